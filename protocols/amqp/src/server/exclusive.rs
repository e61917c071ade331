//! Queues that connections have for themselves.

use parking_lot::Mutex;
use rustc_hash::{FxHashMap, FxHashSet};
use sabir_net::ConnectionId;

/// Which connection has which queue for itself, by name.
#[derive(Debug, Default)]
pub(crate) struct ExclusiveQueues(Mutex<Owners>);

#[derive(Debug, Default)]
struct Owners {
    by_name: FxHashMap<Box<str>, ConnectionId>,
    by_connection: FxHashMap<ConnectionId, FxHashSet<Box<str>>>,
}

impl ExclusiveQueues {
    /// Takes a name for a connection, before there is a queue of that name. Says whether no connection had it.
    pub(crate) fn take(&self, name: &str, connection: ConnectionId) -> bool {
        let mut owners = self.0.lock();
        if owners.by_name.contains_key(name) {
            return false;
        }
        owners.by_name.insert(name.into(), connection);
        owners.by_connection.entry(connection).or_default().insert(name.into())
    }

    /// Whether a queue is this connection's.
    pub(crate) fn is_of(&self, name: &str, connection: ConnectionId) -> bool {
        self.0.lock().by_name.get(name) == Some(&connection)
    }

    /// The names that a connection has.
    pub(crate) fn of(&self, connection: ConnectionId) -> Vec<Box<str>> {
        let owners = self.0.lock();
        owners.by_connection.get(&connection).into_iter().flatten().cloned().collect()
    }

    /// There is no queue of that name any more.
    pub(crate) fn remove(&self, name: &str) {
        let mut owners = self.0.lock();
        let Some(connection) = owners.by_name.remove(name) else { return };
        if let Some(names) = owners.by_connection.get_mut(&connection) {
            names.remove(name);
            if names.is_empty() {
                owners.by_connection.remove(&connection);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_connections_until_its_queue_is_gone() {
        let queues = ExclusiveQueues::default();
        let (one, other) = (ConnectionId(1), ConnectionId(2));
        assert!(queues.take("a", one) && queues.take("b", one) && !queues.take("a", other));
        assert!(queues.is_of("a", one) && !queues.is_of("a", other) && !queues.is_of("c", one));
        queues.remove("a");
        assert_eq!((queues.of(one), queues.of(other)), (vec!["b".into()], vec![]));
        assert!(queues.take("a", other));
        queues.remove("b");
        assert!(queues.0.lock().by_connection.len() == 1, "nothing is kept of who has none");
    }
}

//! The connections there are. They are few, and no client has to wait for one: the connection on which nothing has moved for longest
//! gives way to a new one, also where the process has no descriptor left for that, and to an answer for which there is no memory left.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Instant;

use parking_lot::Mutex;
use tokio::sync::Notify;

/// One source has at most this part of all, a half, so that others have some left.
const SOURCE_SHARE: usize = 2;
/// Bytes of all answers that were not sent whole. The newest one is made all the same.
const ANSWER_BYTES: usize = 16 << 20;

/// One of them.
#[derive(Debug)]
pub struct HttpConnection {
    source: IpAddr,
    began: Instant,
    /// When bytes last went either way, in microseconds since it began.
    moved: AtomicU64,
    /// Bytes of its answer that was not sent whole.
    answer: AtomicUsize,
    ended: Notify,
}

/// All of them. Clones are the same.
#[derive(Debug, Clone)]
pub struct HttpConnections {
    all: Arc<Mutex<Vec<Arc<HttpConnection>>>>,
    /// How many there may be at once.
    most: usize,
}

/// A connection for as long as it is served.
#[derive(Debug)]
pub struct ListedConnection {
    pub connection: Arc<HttpConnection>,
    all: HttpConnections,
}

impl HttpConnection {
    fn new(source: IpAddr) -> Self {
        let (moved, answer, ended) = Default::default();
        Self { source, began: Instant::now(), moved, answer, ended }
    }

    /// Bytes went one way or the other.
    pub fn moved(&self) {
        self.moved.store(self.began.elapsed().as_micros() as u64, Relaxed);
    }

    /// All of its answer was sent.
    pub fn sent(&self) {
        self.answer.store(0, Relaxed);
    }

    /// Ready when it has to give way.
    pub async fn ended(&self) {
        self.ended.notified().await;
    }

    fn last_moved(&self) -> Instant {
        self.began + std::time::Duration::from_micros(self.moved.load(Relaxed))
    }
}

impl HttpConnections {
    /// None yet, and never more than `most`.
    pub fn new(most: usize) -> Self {
        Self { all: Arc::default(), most: most.max(1) }
    }

    /// Has the quietest connection give its descriptor back. False if there is none.
    pub fn relieve(&self) -> bool {
        give_way(&mut self.all.lock(), |_| true)
    }

    /// A new connection, for which another one gives way if there are too many.
    pub fn enter(&self, peer: IpAddr) -> ListedConnection {
        let connection = Arc::new(HttpConnection::new(source(peer)));
        let mut all = self.all.lock();
        while let Some(crowded) = crowded(&all, connection.source, self.most) {
            give_way(&mut all, |one| one.source == crowded);
        }
        all.push(connection.clone());
        ListedConnection { connection, all: self.clone() }
    }

    /// Takes an answer of so many bytes into account; the answers of others give way to it.
    pub fn answer(&self, connection: &Arc<HttpConnection>, bytes: usize) {
        connection.answer.store(bytes, Relaxed);
        let mut all = self.all.lock();
        let held = |all: &[Arc<HttpConnection>]| -> usize {
            all.iter().map(|one| one.answer.load(Relaxed)).fold(0, usize::saturating_add)
        };
        while held(&all) > ANSWER_BYTES {
            let other =
                |one: &Arc<HttpConnection>| !Arc::ptr_eq(one, connection) && one.answer.load(Relaxed) > 0;
            if !give_way(&mut all, other) {
                break;
            }
        }
    }
}

impl Drop for ListedConnection {
    fn drop(&mut self) {
        self.all.all.lock().retain(|one| !Arc::ptr_eq(one, &self.connection));
    }
}

/// Whose connections are too many for another one of `source`.
fn crowded(all: &[Arc<HttpConnection>], source: IpAddr, most: usize) -> Option<IpAddr> {
    let of = |source: IpAddr| all.iter().filter(|one| one.source == source).count();
    match of(source) {
        here if here >= most.div_ceil(SOURCE_SHARE) => Some(source),
        _ if all.len() >= most => all.iter().map(|one| one.source).max_by_key(|source| of(*source)),
        _ => None,
    }
}

/// Ends the connection on which nothing has moved for longest, of those that may be ended; tells whether there was one.
fn give_way(all: &mut Vec<Arc<HttpConnection>>, may_end: impl Fn(&Arc<HttpConnection>) -> bool) -> bool {
    let candidates = all.iter().enumerate().filter(|(_, one)| may_end(one));
    let quietest = candidates.min_by_key(|(_, one)| one.last_moved()).map(|(i, _)| i);
    if let Some(i) = quietest {
        all.remove(i).ended.notify_one();
    }
    quietest.is_some()
}

/// The client that has the address: of version 6 one client has a whole network.
fn source(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(v6) if !v6.is_loopback() => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64)),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONNECTIONS: usize = 64;
    const SOURCE_CONNECTIONS: usize = 32;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn is_open(all: &HttpConnections, one: &ListedConnection) -> bool {
        all.all.lock().iter().any(|open| Arc::ptr_eq(open, &one.connection))
    }

    #[test]
    fn a_source_with_many_connections_loses_the_quietest_of_its_own() {
        let all = HttpConnections::new(CONNECTIONS);
        let other = all.enter(address("192.0.2.1"));
        let mut mine: Vec<_> = (0..SOURCE_CONNECTIONS).map(|_| all.enter(address("127.0.0.1"))).collect();
        std::thread::sleep(std::time::Duration::from_millis(1));
        mine[0].connection.moved();
        mine.push(all.enter(address("::ffff:127.0.0.1")));
        assert!(is_open(&all, &other) && is_open(&all, &mine[0]) && !is_open(&all, &mine[1]));
        assert_eq!(all.all.lock().len(), SOURCE_CONNECTIONS + 1);
        drop(mine);
        assert_eq!(all.all.lock().len(), 1);
    }

    #[test]
    fn where_all_places_are_taken_whoever_has_most_loses_one() {
        let all = HttpConnections::new(CONNECTIONS);
        let many: Vec<_> = (0..SOURCE_CONNECTIONS).map(|_| all.enter(address("192.0.2.1"))).collect();
        let few: Vec<_> = (0..SOURCE_CONNECTIONS / 2).map(|_| all.enter(address("192.0.2.2"))).collect();
        let networks = (0..SOURCE_CONNECTIONS as u32).map(|i| address(&format!("198.51.100.{i}")));
        let single: Vec<_> = networks.map(|one| all.enter(one)).collect();
        assert_eq!(all.all.lock().len(), CONNECTIONS);
        assert!(few.iter().chain(&single).all(|one| is_open(&all, one)));
        assert_eq!(many.iter().filter(|one| is_open(&all, one)).count(), SOURCE_CONNECTIONS / 2);
    }

    #[test]
    fn of_few_places_the_newest_has_one_and_any_may_be_taken_back() {
        let all = HttpConnections::new(2);
        let held: Vec<_> = (0..100).map(|_| all.enter(address("127.0.0.1"))).collect();
        let other = all.enter(address("192.0.2.1"));
        assert!(is_open(&all, &held[99]) && is_open(&all, &other));
        assert_eq!(all.all.lock().len(), 2);
        assert!(all.relieve() && all.relieve() && !all.relieve());
        assert!(!is_open(&all, &other));
        let all = HttpConnections::new(0);
        assert!(is_open(&all, &all.enter(address("127.0.0.1"))));
    }

    #[test]
    fn addresses_of_one_network_are_one_source() {
        assert_eq!(source(address("2001:db8::1")), source(address("2001:db8::ffff:2")));
        assert_ne!(source(address("2001:db8::1")), source(address("2001:db8:0:1::1")));
        assert_eq!(source(address("::1")), address("::1"));
    }

    #[test]
    fn answers_that_are_not_read_give_way_to_new_ones() {
        let all = HttpConnections::new(CONNECTIONS);
        let open: Vec<_> = (0..4).map(|_| all.enter(address("127.0.0.1"))).collect();
        for one in &open {
            all.answer(&one.connection, ANSWER_BYTES / 2);
        }
        let left: Vec<_> = open.iter().map(|one| is_open(&all, one)).collect();
        assert_eq!(left, [false, false, true, true]);
        open[2].connection.sent();
        all.answer(&open[3].connection, 2 * ANSWER_BYTES);
        assert!(is_open(&all, &open[2]) && is_open(&all, &open[3]));
    }
}

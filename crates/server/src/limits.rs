//! What the operating system allows the process.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Descriptors for what there is one of: the standard streams, the log, listeners, signals, and what is open for a moment, such as
/// a connection that is refused.
const ONCE: u64 = 32;
/// For each shard: its folder, page store, queue and event counters, the active segment and the next, and some held back.
const EACH_SHARD: u64 = 12;
/// For each I/O thread: what it polls and is woken by.
const EACH_THREAD: u64 = 4;
/// The most that journals keep for files which are not in use just then.
const MOST_KEPT: u64 = 1024;
/// The fewest and the most connections of the admin port: it has its own, whatever comes in elsewhere.
const ADMIN: (u64, u64) = (2, 64);

/// How many descriptors each part may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Descriptors {
    /// The journals, for files that are not in use just then.
    pub journals: usize,
    /// Connections of clients.
    pub connections: usize,
    /// Connections of the admin port.
    pub admin: usize,
}

impl Descriptors {
    /// Shares `limit` out to `shards` with their disks, I/O threads and connections, of which `wanted` are asked for. A sixteenth is
    /// the journals', half as much the admin port's, and connections get what is left; however little it is, there are some.
    pub fn share(limit: Option<u64>, shards: u32, io_threads: usize, wanted: usize) -> Self {
        let limit = limit.unwrap_or(u64::MAX);
        let journals = (limit / 16).clamp(2 * u64::from(shards), MOST_KEPT.max(2 * u64::from(shards)));
        let admin = (limit / 32).clamp(ADMIN.0, ADMIN.1);
        let fixed = (ONCE + u64::from(shards) * EACH_SHARD + admin)
            .saturating_add((io_threads as u64).saturating_mul(EACH_THREAD));
        let left = limit.saturating_sub(fixed.saturating_add(journals)).max(limit / 16).max(1);
        let connections = usize::try_from(left).unwrap_or(usize::MAX).min(wanted);
        Self { journals: journals as usize, connections, admin: admin as usize }
    }
}

/// Raises the number of files and sockets that may be open as far as an ordinary user may, and returns it.
pub fn raise_open_files() -> Option<u64> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current == maximum {
        return current;
    }
    match setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        Ok(()) => maximum,
        Err(error) => {
            tracing::warn!(%error, "the open-file limit stays at {current:?}, although {maximum:?} are allowed");
            current
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_get_what_is_left() {
        let share = |limit| Descriptors::share(limit, 2, 2, 10_000);
        assert_eq!(share(None), Descriptors { journals: 1024, connections: 10_000, admin: 64 });
        assert_eq!(share(Some(1 << 20)), Descriptors { journals: 1024, connections: 10_000, admin: 64 });
        assert_eq!(share(Some(4096)), Descriptors { journals: 256, connections: 3712, admin: 64 });
        assert_eq!(share(Some(1024)), Descriptors { journals: 64, connections: 864, admin: 32 });
        assert_eq!(share(Some(80)), Descriptors { journals: 5, connections: 9, admin: 2 });
        assert_eq!(share(Some(64)), Descriptors { journals: 4, connections: 4, admin: 2 });
    }

    #[test]
    fn many_shards_leave_some_connections() {
        let share = Descriptors::share(Some(1024), 65, 64, 10_000);
        assert_eq!(share, Descriptors { journals: 130, connections: 64, admin: 32 });
    }
}

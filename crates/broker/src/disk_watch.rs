//! What is looked at on the side, since a file system that hangs takes along the thread that asks it: the space that is free, and whether the
//! disks answer.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use sabir_journal::disk::{Disk, DiskError};
use tracing::{info, warn};

use crate::shard::Shard;

/// A change that takes this long is not slow: the disk does not answer.
pub const STALLED: Duration = Duration::from_secs(5);
/// How often it is said of a disk that it does not answer.
const AGAIN: Duration = Duration::from_secs(60);
/// Free space that was learned longer ago than this is not known.
const STALE: Duration = Duration::from_secs(60);

/// The space that was free when it was last looked.
#[derive(Debug)]
pub(crate) struct FreeSpace {
    bytes: AtomicU64,
    /// `None` where it could not be learned.
    learned: Mutex<Option<Instant>>,
}

impl FreeSpace {
    /// Looks for the first time. Blocking.
    pub(crate) fn of(disk: &dyn Disk) -> Self {
        let space = Self { bytes: AtomicU64::new(0), learned: Mutex::new(None) };
        space.learn(disk.free_bytes());
        space
    }

    fn learn(&self, free: Result<u64, DiskError>) {
        if let Ok(bytes) = free {
            self.bytes.store(bytes, Relaxed);
            *self.learned.lock() = Some(Instant::now());
        }
    }

    /// Never waits.
    pub(crate) fn get(&self) -> Option<u64> {
        let learned = (*self.learned.lock())?;
        (learned.elapsed() < STALE).then(|| self.bytes.load(Relaxed))
    }
}

impl Shard {
    /// Looks how much is free. Blocking, as long as the file system likes.
    pub(crate) fn look_at_space(&self) {
        self.free.learn(self.disk.free_bytes());
    }

    /// How long the oldest change has been under way that its disk has not finished.
    pub(crate) fn disk_wait(&self) -> Duration {
        self.disk.under_way().max(self.pages.under_way())
    }

    /// Whether the disk is not to be waited for.
    pub(crate) fn is_stalled(&self) -> bool {
        self.disk_wait() >= STALLED
    }
}

/// Whether it was said that a disk does not answer, and when.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Told(Option<Instant>);

#[derive(Debug, PartialEq, Eq)]
enum News {
    Stalled,
    Answers,
}

impl Told {
    fn news(&mut self, stalled: bool, now: Instant) -> Option<News> {
        match (stalled, self.0) {
            (true, Some(last)) if now < last + AGAIN => None,
            (true, _) => {
                self.0 = Some(now);
                Some(News::Stalled)
            }
            (false, Some(_)) => {
                self.0 = None;
                Some(News::Answers)
            }
            (false, None) => None,
        }
    }

    /// Looks at a shard's disk, and says in the log what is to be said.
    pub(crate) fn look(&mut self, shard: &Shard) {
        let waited = shard.disk_wait();
        // Of one that has stopped it was said why.
        let stalled = waited >= STALLED && !shard.is_stopped();
        match self.news(stalled, Instant::now()) {
            Some(News::Stalled) => warn!(
                shard = %shard.id,
                seconds = waited.as_secs(),
                "the disk does not answer: it has not finished a write or a sync"
            ),
            Some(News::Answers) => info!(shard = %shard.id, "the disk answers again"),
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_that_does_not_answer_is_told_of_once_a_minute_and_so_is_its_end() {
        let (mut told, start) = (Told::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(told.news(false, at(0)), None);
        assert_eq!(told.news(true, at(1)), Some(News::Stalled));
        assert_eq!(told.news(true, at(60)), None);
        assert_eq!(told.news(true, at(61)), Some(News::Stalled));
        assert_eq!(told.news(false, at(62)), Some(News::Answers));
        assert_eq!(told.news(false, at(63)), None);
        assert_eq!(told.news(true, at(64)), Some(News::Stalled));
    }
}

//! What is looked at on the side, since a file system that hangs takes along the thread that asks it: the space that is free, and whether the
//! disks answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use sabir_journal::disk::{Disk, DiskError};
use sabir_journal::{Journal, Priority};
use tracing::{info, warn};

use crate::shard::Shard;

/// A change or a read that takes this long is not slow: the disk does not answer.
pub const STALLED: Duration = Duration::from_secs(5);
/// How often it is said of a disk that it does not answer.
const AGAIN: Duration = Duration::from_secs(60);
/// How long a disk that was full has space before that is said.
const LASTS: Duration = Duration::from_secs(5);
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

    /// How long the oldest change or read has been under way that its disk has not finished. What it has finished and no thread has come to
    /// does not count.
    pub(crate) fn disk_wait(&self) -> Duration {
        self.disk.under_way().max(self.pages.under_way())
    }

    /// Whether the disk is not to be waited for.
    pub(crate) fn is_stalled(&self) -> bool {
        self.disk_wait() >= STALLED
    }
}

/// Which disks are to be asked whether they answer, by the file system of each, where it is known, and how long ago it was last written to:
/// one of each file system that was not for so long.
pub(crate) fn to_ask(disks: &[(Option<u64>, Option<Duration>)], after: Duration) -> Vec<usize> {
    let mut asked = Vec::<usize>::new();
    if after.is_zero() {
        return asked;
    }
    let idle = |unchanged: Option<Duration>| unchanged.is_some_and(|unchanged| unchanged >= after);
    for (index, (device, unchanged)) in disks.iter().enumerate() {
        let beside = |other: &Option<u64>| device.is_some() && other == device;
        let others_idle = disks.iter().all(|(other, unchanged)| !beside(other) || idle(*unchanged));
        if idle(*unchanged) && others_idle && !asked.iter().any(|index| beside(&disks[*index].0)) {
            asked.push(index);
        }
    }
    asked
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
                "the disk does not answer: it has not finished a read, a write or a sync"
            ),
            Some(News::Answers) => info!(shard = %shard.id, "the disk answers again"),
            None => {}
        }
    }
}

/// Says if there is too little space for what the journals of all shards take: one that gets less is soon full, and stays so while any record
/// is kept, since all that a delete could free is the segment in use.
pub(crate) fn tell_need(shards: &[Arc<Shard>]) {
    let lacking = |shard: &Shard| {
        let segments = Journal::LEAST_SEGMENTS.saturating_sub(shard.journal.stats().segments);
        segments * shard.settings.segment_bytes
    };
    let lacking: u64 = shards.iter().map(|shard| lacking(shard)).sum();
    let Some((free_bytes, first)) = shards.first().and_then(|shard| Some((shard.free.get()?, shard))) else {
        return;
    };
    let needed_bytes = lacking.saturating_add(first.settings.keep_free);
    if lacking > 0 && free_bytes < needed_bytes {
        let (segment_bytes, keep_free) = (first.settings.segment_bytes, first.settings.keep_free);
        let (shards, segments) = (shards.len(), Journal::LEAST_SEGMENTS);
        warn!(
            free_bytes,
            needed_bytes,
            shards,
            segments,
            segment_bytes,
            keep_free,
            "too little space is free for the journals of all shards, shard 0 included: each takes so many segments, and data.keep_free stays \
             free. A shard that gets fewer is soon full, and stays so while any of its records is kept"
        );
    }
}

/// Whether it was said that a disk is full, and when. The last thing that was said is so: that it is full is said at once, and its end once that lasts.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct ToldFull {
    full: bool,
    /// When it was last said that it is full.
    last: Option<Instant>,
    /// Whether it had been said before within a minute.
    is_again: bool,
    /// Since when there has been space.
    space_since: Option<Instant>,
}

impl ToldFull {
    /// Whether it is to be said that the disk is full now, or not any more: the latter of one that is so again and again once it has not been for a
    /// minute.
    fn news(&mut self, full: bool, now: Instant) -> Option<bool> {
        if full {
            self.space_since = None;
            return (!self.full).then(|| self.begin(now));
        }
        let since = *self.space_since.get_or_insert(now);
        let lasts = if self.is_again { AGAIN } else { LASTS };
        let over = self.full && now >= since + lasts;
        self.full &= !over;
        over.then_some(false)
    }

    fn begin(&mut self, now: Instant) -> bool {
        self.is_again = self.last.is_some_and(|last| now < last + AGAIN);
        (self.full, self.last) = (true, Some(now));
        true
    }

    /// Looks at a shard, and says in the log what is to be said.
    pub(crate) fn look(&mut self, shard: &Shard) {
        let full = !shard.is_stopped() && !shard.replicator.admits(Priority::Ordinary);
        let free_bytes = shard.free.get();
        match self.news(full, Instant::now()) {
            Some(true) => {
                let reason = shard.journal.lack().map(|error| error.to_string());
                let (shard, keep_free) = (shard.id, shard.settings.keep_free);
                warn!(%shard, free_bytes, keep_free, reason, "the disk is full: the shard answers reads and takes deletes, and no records");
            }
            Some(false) => info!(shard = %shard.id, free_bytes, "the disk is not full any more"),
            None => {}
        }
    }

    /// The last look: nobody is there who would say later that there has been space.
    pub(crate) fn look_last(&mut self, shard: &Shard) {
        self.look(shard);
        if self.full && self.space_since.is_some() {
            info!(shard = %shard.id, free_bytes = shard.free.get(), "the disk is not full any more");
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

    #[test]
    fn one_disk_of_each_file_system_is_asked_that_nothing_was_written_to() {
        let after = Duration::from_secs(5);
        let ago = |seconds| Some(Duration::from_secs(seconds));
        let asked = |disks: &[(Option<u64>, Option<Duration>)]| to_ask(disks, after);
        assert_eq!(asked(&[(Some(1), ago(5)), (Some(1), ago(9)), (Some(1), ago(7))]), [0]);
        assert_eq!(asked(&[(Some(1), ago(9)), (Some(1), ago(4))]), [0; 0], "writes show whether it answers");
        assert_eq!(
            asked(&[(Some(1), ago(9)), (Some(2), ago(4)), (Some(3), ago(6)), (Some(1), ago(9))]),
            [0, 2]
        );
        assert_eq!(asked(&[(None, ago(9)), (None, ago(4)), (None, ago(6))]), [0, 2]);
        assert_eq!(asked(&[(Some(1), None)]), [0; 0], "nobody watches it");
        assert_eq!(to_ask(&[(Some(1), ago(99))], Duration::ZERO), [0; 0]);
    }

    #[test]
    fn what_was_said_last_of_a_full_disk_is_so_and_not_said_all_the_time() {
        let (mut told, start) = (ToldFull::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(told.news(false, at(0)), None);
        assert_eq!(told.news(true, at(1)), Some(true));
        assert_eq!(told.news(true, at(100)), None);
        assert_eq!((told.news(false, at(101)), told.news(false, at(105))), (None, None));
        assert_eq!(told.news(true, at(106)), None, "there was space for a moment");
        assert_eq!((told.news(false, at(107)), told.news(false, at(112))), (None, Some(false)));
        assert_eq!(told.news(true, at(113)), Some(true));
        assert_eq!((told.news(false, at(114)), told.news(false, at(119))), (None, Some(false)));
        // Within a minute.
        assert_eq!(told.news(true, at(121)), Some(true), "it is said at once however often it is so");
        for seconds in (122..=400).step_by(30) {
            assert_eq!((told.news(false, at(seconds)), told.news(false, at(seconds + 28))), (None, None));
            assert_eq!(told.news(true, at(seconds + 29)), None);
        }
        assert_eq!((told.news(false, at(430)), told.news(false, at(489))), (None, None));
        assert_eq!(told.news(false, at(490)), Some(false));
        assert_eq!(told.news(true, at(491)), Some(true));
        assert_eq!((told.news(false, at(492)), told.news(false, at(497))), (None, Some(false)));
    }
}

//! Partitions whose records could not be read: shown for as long as those are kept, and logged once in a while.

use std::ops::Range;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use sabir_model::{Offset, PartitionId, ReadError, TopicId};

use crate::shard::Shard;

/// Partitions listed; of more, only the log tells.
const LISTED: usize = 64;
/// How often one partition is logged.
const AGAIN: Duration = Duration::from_secs(60);
/// How often what a read finds corrupt is read anew from the disk: one run once in a while, and so many of a shard in that time.
const ANEW_AGAIN: Duration = Duration::from_secs(1);
const ANEW_RUNS: usize = 16;
/// How long a read that the disk refused is shown: the next one may succeed.
const SHOWN: Duration = Duration::from_secs(600);

/// Why records cannot be read, of reasons that an operator looks after.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DamageCause {
    /// Their bytes are not those that were written.
    #[error("corrupt record batch")]
    Corrupt,
    /// Where they lie cannot be told: a page of their partition's index is damaged.
    #[error("corrupt page of the index")]
    Index,
    /// The disk did not give them, or where they lie.
    #[error("storage error")]
    Storage,
}

impl DamageCause {
    fn of(error: ReadError) -> Option<Self> {
        match error {
            ReadError::Corrupt => Some(Self::Corrupt),
            ReadError::Storage => Some(Self::Storage),
            ReadError::UnknownPartition
            | ReadError::OutOfRange { .. }
            | ReadError::Deleted
            | ReadError::ShuttingDown => None,
        }
    }
}

/// Records that could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Damage {
    /// The partition's topic.
    pub topic: TopicId,
    /// The partition's number in it.
    pub partition: u32,
    /// Where the records begin.
    pub offset: Offset,
    /// Why.
    pub cause: DamageCause,
}

/// The damage that reads have met.
#[derive(Debug, Default)]
pub(crate) struct Damages(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    listed: FxHashMap<PartitionId, Seen>,
    /// When one that is not listed was logged.
    unlisted: Option<Instant>,
    unlogged: Vec<Damage>,
    /// When it was last logged what a disk answered.
    why: Option<Instant>,
    /// What was read anew lately: the runs' partitions and first offsets, and when.
    anew: Vec<(PartitionId, Offset, Instant)>,
}

#[derive(Debug)]
struct Seen {
    damage: Damage,
    last: Instant,
    logged: Instant,
}

impl Damages {
    /// Takes a damage down, and for the log if that was not told of it lately.
    pub(crate) fn note(&self, id: PartitionId, damage: Damage, now: Instant) {
        let mut known = self.0.lock();
        if known.is_due(id, damage, now) {
            known.unlogged.push(damage);
        }
    }

    /// Whether what a disk answered is to be logged: once in a while.
    pub(crate) fn may_say_why(&self, now: Instant) -> bool {
        let mut known = self.0.lock();
        let due = known.why.is_none_or(|last| now.duration_since(last) >= AGAIN);
        known.why = if due { Some(now) } else { known.why };
        due
    }

    /// Whether a run of a partition that is corrupt is to be read from the disk anew. What is damaged for good does not make the disk read
    /// all the time.
    pub(crate) fn may_read_anew(&self, id: PartitionId, base: Offset, now: Instant) -> bool {
        let mut known = self.0.lock();
        known.anew.retain(|(.., last)| now.duration_since(*last) < ANEW_AGAIN);
        let was = known.anew.iter().any(|(of, at, _)| (*of, *at) == (id, base));
        let may = !was && known.anew.len() < ANEW_RUNS;
        if may {
            known.anew.push((id, base, now));
        }
        may
    }

    /// Forgets damage of a cause among these offsets, which were read well since.
    pub(crate) fn forget(&self, id: PartitionId, cause: DamageCause, offsets: Range<Offset>) {
        let mut known = self.0.lock();
        let is_of = |seen: &Seen| seen.damage.cause == cause && offsets.contains(&seen.damage.offset);
        if known.listed.get(&id).is_some_and(is_of) {
            known.listed.remove(&id);
        }
    }

    /// What is to be logged.
    pub(crate) fn take_unlogged(&self) -> Vec<Damage> {
        std::mem::take(&mut self.0.lock().unlogged)
    }

    /// Forgets what `is_kept` denies, and what the disk refused long ago; gives the rest in the order of their places.
    pub(crate) fn list(&self, now: Instant, is_kept: impl Fn(PartitionId, Offset) -> bool) -> Vec<Damage> {
        let mut known = self.0.lock();
        known.listed.retain(|id, seen| {
            let lasts = seen.damage.cause != DamageCause::Storage || now.duration_since(seen.last) < SHOWN;
            lasts && is_kept(*id, seen.damage.offset)
        });
        let mut damages: Vec<Damage> = known.listed.values().map(|seen| seen.damage).collect();
        damages.sort_unstable_by_key(|damage| (damage.topic, damage.partition));
        damages
    }
}

impl Known {
    fn is_due(&mut self, id: PartitionId, damage: Damage, now: Instant) -> bool {
        let full = self.listed.len() >= LISTED;
        let due = |logged: Instant| now.duration_since(logged) >= AGAIN;
        match self.listed.get_mut(&id) {
            Some(seen) => {
                // A reader that looks for records behind it finds no more than that they are not given.
                let is_known = seen.damage.cause == DamageCause::Index
                    && damage.cause != DamageCause::Index
                    && damage.offset >= seen.damage.offset;
                seen.damage = if is_known { seen.damage } else { damage };
                seen.last = now;
                let due = due(seen.logged);
                seen.logged = if due { now } else { seen.logged };
                due
            }
            None if full => {
                let due = self.unlisted.is_none_or(due);
                self.unlisted = if due { Some(now) } else { self.unlisted };
                due
            }
            None => self.listed.insert(id, Seen { damage, last: now, logged: now }).is_none(),
        }
    }
}

impl Shard {
    /// Takes down that the records from `offset` on cannot be read; gives the error back.
    pub(crate) fn damaged(&self, id: PartitionId, offset: Offset, error: ReadError) -> ReadError {
        let Some(cause) = DamageCause::of(error) else { return error };
        if cause == DamageCause::Corrupt {
            self.meters.corrupt.add(1);
        }
        let place = self.state.read().partition(id).map(|partition| (partition.topic, partition.number));
        if let Some((topic, partition)) = place {
            self.reads.damages.note(id, Damage { topic, partition, offset, cause }, Instant::now());
        }
        error
    }

    /// The partitions whose records could not be read, and still are kept.
    pub(crate) fn damaged_partitions(&self) -> Vec<Damage> {
        self.reads.damages.list(Instant::now(), |id, offset| {
            self.state.read().partition(id).is_some_and(|partition| partition.log_start <= offset)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn damage(partition: u32, cause: DamageCause) -> Damage {
        Damage { topic: TopicId([7; 16]), partition, offset: Offset(5), cause }
    }

    #[test]
    fn a_partition_is_logged_once_in_a_while_and_shown_while_it_is_kept() {
        let (damages, start) = (Damages::default(), Instant::now());
        let corrupt = damage(0, DamageCause::Corrupt);
        for second in 0..60 {
            damages.note(PartitionId(1), corrupt, start + Duration::from_secs(second));
        }
        assert_eq!(damages.take_unlogged(), [corrupt]);
        damages.note(PartitionId(1), corrupt, start + AGAIN);
        assert_eq!(damages.take_unlogged(), [corrupt]);
        damages.note(PartitionId(2), damage(1, DamageCause::Storage), start);
        assert_eq!(damages.list(start, |_, _| true).len(), 2);
        assert_eq!(damages.list(start + SHOWN, |_, _| true), [corrupt]);
        assert_eq!(damages.list(start, |_, _| false), []);
    }

    #[test]
    fn a_run_is_read_anew_once_a_second_and_a_few_of_a_shard() {
        let (damages, start) = (Damages::default(), Instant::now());
        let may = |id: u64, base: i64, ms: u64| {
            damages.may_read_anew(PartitionId(id), Offset(base), start + Duration::from_millis(ms))
        };
        assert!(may(1, 0, 0) && !may(1, 0, 0) && !may(1, 0, 999) && may(1, 0, 1000));
        let others = (0..100).filter(|n| may(2, *n, 1500)).count();
        assert_eq!(others, ANEW_RUNS - 1);
        assert!(may(3, 0, 2500));
    }

    #[test]
    fn what_was_read_well_since_is_no_damage() {
        let (damages, now) = (Damages::default(), Instant::now());
        damages.note(PartitionId(1), damage(0, DamageCause::Corrupt), now);
        let corrupt = DamageCause::Corrupt;
        damages.forget(PartitionId(1), corrupt, Offset(0)..Offset(5));
        damages.forget(PartitionId(2), corrupt, Offset(0)..Offset(9));
        damages.forget(PartitionId(1), DamageCause::Index, Offset(0)..Offset(9));
        assert_eq!(damages.list(now, |_, _| true).len(), 1);
        damages.forget(PartitionId(1), corrupt, Offset(5)..Offset(6));
        assert_eq!(damages.list(now, |_, _| true), []);
    }

    #[test]
    fn what_is_known_of_an_index_is_not_lost_where_its_records_are_not_given() {
        let (damages, now) = (Damages::default(), Instant::now());
        let index = damage(0, DamageCause::Index);
        damages.note(PartitionId(1), index, now);
        damages.note(PartitionId(1), damage(0, DamageCause::Storage), now);
        assert_eq!(damages.take_unlogged(), [index]);
        assert_eq!(damages.list(now + SHOWN, |_, _| true), [index]);
        let at = |offset: i64| Damage { offset: Offset(offset), ..damage(0, DamageCause::Corrupt) };
        damages.note(PartitionId(1), at(6), now);
        assert_eq!(damages.list(now, |_, _| true), [index]);
        damages.note(PartitionId(1), at(4), now);
        assert_eq!(damages.list(now, |_, _| true), [at(4)]);
    }

    #[test]
    fn any_number_of_partitions_takes_little_memory_and_few_lines() {
        let (damages, now) = (Damages::default(), Instant::now());
        for n in 0..10_000 {
            damages.note(PartitionId(n.into()), damage(n, DamageCause::Corrupt), now);
        }
        assert_eq!(damages.take_unlogged().len(), LISTED + 1);
        assert_eq!(damages.list(now, |_, _| true).len(), LISTED);
    }
}

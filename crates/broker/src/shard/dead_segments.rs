//! Which segments of the journal hold no record that is kept.
//!
//! What a partition's index has in memory says it, but for the closed page that the log start lies in: that one is read, so that records which are gone
//! hold no segment because others of their page are kept. No page is read under the projections' lock.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rustc_hash::FxHashMap;
use sabir_delivery::subscription::Subscription;
use sabir_journal::{Priority, SegmentInfo, SegmentNo};
use sabir_model::{Offset, PartitionId, Sequence};

use super::Shard;
use crate::partition::{PartitionState, SpillKey};
use crate::state::{ShardState, subscription_of};

/// Pages read in one look at the segments; what more would say counts as kept until the next one.
const PAGES: usize = 1024;
/// How often a segment is judged in one look: for the partition that was asked first, for all others, and for what moved meanwhile.
const ROUNDS: usize = 3;
/// How often it is looked at what delayed messages hold on a full disk.
const DELAYED: Duration = Duration::from_secs(1);
/// When a page that could not be read is tried again.
const UNREADABLE: Duration = Duration::from_secs(60);

/// What is known of who keeps which segment.
#[derive(Debug, Default)]
pub(super) struct SegmentKeepers {
    /// For each segment a partition found to have records in it: asked first the next time.
    witnesses: BTreeMap<SegmentNo, PartitionId>,
    /// What was read of partitions' cut pages.
    cut: FxHashMap<PartitionId, CutPage>,
    /// How many more pages are read in this look.
    pages_left: usize,
    /// When it was last looked at what delayed messages hold.
    delayed: Option<Instant>,
}

/// Messages of a shard that are delayed, as of the last look at its full disk: no delete of records frees the segments that they lie in.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct DelayedSurvey {
    pub(super) messages: u64,
    /// When the last timer of the shard is due; none of theirs is later.
    pub(super) until_ms: Option<i64>,
    /// Whether there are some in each segment.
    pub(super) in_each_segment: bool,
}

/// A page of a partition in which its log start lies.
#[derive(Debug, Clone, Copy)]
struct CutPage {
    first: Offset,
    found: CutBlocks,
}

#[derive(Debug, Clone, Copy)]
enum CutBlocks {
    /// The lowest block of what it has from an offset on; none if it has nothing there.
    From(Offset, Option<Sequence>),
    /// It could not be read, and is not before then.
    Unreadable(Instant),
}

/// Whether a partition keeps a record in a segment where it had one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Keeps {
    Yes,
    No,
    /// This page says it, of which what lies from there on is kept.
    AskPage(SpillKey, Offset),
}

/// What a segment is, as far as that is known.
#[derive(Debug, PartialEq, Eq)]
enum Judged {
    Dead,
    Kept,
    /// These pages say it.
    AskPages(Vec<(SpillKey, Offset)>),
}

impl SegmentKeepers {
    /// Forgets pages that the log starts have passed.
    pub(super) fn tidy(&mut self, state: &ShardState) {
        self.cut.retain(|id, known| {
            let page = state.partition(*id).and_then(|partition| partition.cut_page());
            page.is_some_and(|page| page.first == known.first)
        });
    }

    fn keeps(&self, state: &ShardState, id: PartitionId, segment: &SegmentInfo) -> Keeps {
        let Some(partition) = state.partition(id) else { return Keeps::No };
        let reaches = |block: Option<Sequence>| block.is_some_and(|block| block <= segment.last);
        if reaches(partition.first_block_behind_cut()) {
            return Keeps::Yes;
        }
        let Some(page) = partition.cut_page().filter(|page| reaches(Some(page.min_block))) else {
            return Keeps::No;
        };
        match self.cut.get(&id).filter(|known| known.first == page.first).map(|known| known.found) {
            // Pages do not change, and log starts only move on: what is kept of this one now lies no lower.
            Some(CutBlocks::From(_, block)) if !reaches(block) => Keeps::No,
            Some(CutBlocks::From(log_start, _)) if log_start == partition.log_start => Keeps::Yes,
            Some(CutBlocks::Unreadable(until)) if Instant::now() < until => Keeps::Yes,
            _ => Keeps::AskPage(SpillKey::index(id, page.first), partition.log_start),
        }
    }

    fn judge(&mut self, state: &ShardState, segment: &SegmentInfo) -> Judged {
        if segment.last > state.applied {
            return Judged::Kept;
        }
        let witness = self.witnesses.get(&segment.no).map(|id| self.keeps(state, *id, segment));
        match witness {
            Some(Keeps::Yes) => return Judged::Kept,
            // Most likely it still keeps it: then no other is asked.
            Some(Keeps::AskPage(key, log_start)) => return Judged::AskPages(vec![(key, log_start)]),
            Some(Keeps::No) | None => {}
        }
        if state.lowest_block().is_some_and(|first| first <= segment.last) {
            return Judged::Kept;
        }
        let mut asked = Vec::new();
        for id in state.partitions.usage.of(segment.no).into_iter().flat_map(|set| set.iter()) {
            match self.keeps(state, id, segment) {
                Keeps::Yes => {
                    self.witnesses.insert(segment.no, id);
                    return Judged::Kept;
                }
                Keeps::AskPage(key, log_start) if asked.len() <= self.pages_left => {
                    asked.push((key, log_start));
                }
                Keeps::AskPage(..) | Keeps::No => {}
            }
        }
        if asked.is_empty() { Judged::Dead } else { Judged::AskPages(asked) }
    }
}

impl Shard {
    /// Closed segments without a record that a partition keeps. Blocking.
    pub(super) fn dead_segments(&self, keepers: &mut SegmentKeepers) -> Vec<SegmentNo> {
        if !self.settings.recycle {
            return Vec::new();
        }
        let segments = self.journal.segments();
        let there = |no: &SegmentNo| segments.iter().any(|segment| segment.no == *no);
        keepers.witnesses.retain(|no, _| there(no));
        keepers.pages_left = PAGES;
        let closed = segments.iter().filter(|segment| segment.closed);
        closed.filter(|segment| self.is_dead(segment, keepers)).map(|segment| segment.no).collect()
    }

    /// Whether no record in a segment is kept, as far as the pages left to this look say it. Blocking.
    pub(super) fn is_dead(&self, segment: &SegmentInfo, keepers: &mut SegmentKeepers) -> bool {
        for _ in 0..ROUNDS {
            // The lock is let go of before pages are read; what has moved meanwhile is judged anew.
            let judged = keepers.judge(&self.state.read(), segment);
            match judged {
                Judged::Dead => return true,
                Judged::Kept => return false,
                Judged::AskPages(pages) if pages.len() <= keepers.pages_left => {
                    pages.into_iter().for_each(|(key, log_start)| self.ask_page(key, log_start, keepers));
                }
                Judged::AskPages(mut pages) => {
                    pages.truncate(keepers.pages_left);
                    pages.into_iter().for_each(|(key, log_start)| self.ask_page(key, log_start, keepers));
                    return false;
                }
            }
        }
        false
    }

    /// Reads where the records lie that a page has from an offset on.
    fn ask_page(&self, key: SpillKey, log_start: Offset, keepers: &mut SegmentKeepers) {
        keepers.pages_left -= 1;
        let loaded = match self.reads.page_cache.get(&key) {
            Some(runs) => Ok(Some(runs)),
            None => self.load_page(&key),
        };
        let found = match loaded {
            Ok(Some(runs)) => CutBlocks::From(log_start, runs.first_block_from(log_start)),
            // The log start has passed it.
            Ok(None) => return,
            // It is taken down which, and what it has counts as kept.
            Err(_) => CutBlocks::Unreadable(Instant::now() + UNREADABLE),
        };
        keepers.cut.insert(key.partition, CutPage { first: key.first, found });
    }

    /// Where a full disk has hardly more room for copies than all of a segment takes: the last block of the first segment that is held by a queue
    /// that has dead letters. Those in it are copied before others are, or it would not come free before the room ends.
    pub(crate) fn copied_first(&self) -> Option<Sequence> {
        let segment_bytes = self.settings.segment_bytes;
        if self.replicator.admits(Priority::Ordinary)
            || self.journal.room_for_copies() > segment_bytes + segment_bytes / 8
        {
            return None;
        }
        let segments = self.journal.segments();
        let state = self.state.read();
        let gives_up = |id: &PartitionId| {
            let queue = state.partition(*id).and_then(|partition| partition.settings.queue.as_ref());
            queue.is_some_and(|queue| queue.deaths().dead_letters)
        };
        let is_held = |segment: &&SegmentInfo| {
            let mut users = state.partitions.usage.of(segment.no).into_iter().flat_map(|set| set.iter());
            users.any(|id| gives_up(&id) && may_hold(&state, id, segment.last))
        };
        segments.iter().find(is_held).map(|segment| segment.last)
    }

    /// Whether a partition may keep a record in a block up to that one.
    pub(crate) fn may_hold_up_to(&self, id: PartitionId, last: Sequence) -> bool {
        may_hold(&self.state.read(), id, last)
    }

    /// Looks on a full disk whether delayed messages hold what deletes would free. Blocking.
    pub(super) fn look_at_delayed(&self, keepers: &mut SegmentKeepers) {
        if self.replicator.admits(Priority::Ordinary) {
            keepers.delayed = None;
            *self.applies.delayed.lock() = DelayedSurvey::default();
            return;
        }
        if keepers.delayed.is_some_and(|looked| looked.elapsed() < DELAYED) {
            return;
        }
        keepers.delayed = Some(Instant::now());
        keepers.pages_left = PAGES;
        let (queues, mut found) = delayed_messages(&self.state.read());
        let segments = self.journal.segments();
        let mut holds = |segment| queues.iter().any(|id| self.holds(*id, segment, keepers));
        found.in_each_segment = !segments.is_empty() && segments.iter().all(&mut holds);
        *self.applies.delayed.lock() = found;
    }

    /// Whether a partition certainly has a record in a segment that it keeps. Blocking.
    fn holds(&self, id: PartitionId, segment: &SegmentInfo, keepers: &mut SegmentKeepers) -> bool {
        for _ in 0..ROUNDS {
            let keeps = {
                let state = self.state.read();
                let is_there = state.partitions.usage.of(segment.no).is_some_and(|set| set.contains(id));
                if is_there { keepers.keeps(&state, id, segment) } else { Keeps::No }
            };
            match keeps {
                Keeps::Yes => return true,
                Keeps::AskPage(key, log_start) if keepers.pages_left > 0 => {
                    self.ask_page(key, log_start, keepers);
                }
                Keeps::No | Keeps::AskPage(..) => return false,
            }
        }
        false
    }
}

/// By what is in memory: all of the page that the log start lies in counts.
fn may_hold(state: &ShardState, id: PartitionId, last: Sequence) -> bool {
    let Some(partition) = state.partition(id) else { return false };
    let cut = partition.cut_page().map(|page| page.min_block);
    cut.into_iter().chain(partition.first_block_behind_cut()).any(|block| block <= last)
}

/// The queues that delay, and how many messages are delayed in them.
fn delayed_messages(state: &ShardState) -> (Vec<PartitionId>, DelayedSurvey) {
    let delays =
        |partition: &PartitionState| partition.settings.queue.as_ref().is_some_and(|queue| queue.delays);
    let queues: Vec<PartitionId> =
        state.partitions.ids().filter(|id| state.partition(*id).is_some_and(delays)).collect();
    let messages = |id: &PartitionId| {
        let kept = state.subscriptions.get(subscription_of(*id)).map(Subscription::backlog);
        kept.unwrap_or_default().messages
    };
    let messages = queues.iter().map(messages).sum();
    let until_ms = state.timers.timers().and_then(|timers| timers.last_due_ms());
    (queues, DelayedSurvey { messages, until_ms, in_each_segment: false })
}

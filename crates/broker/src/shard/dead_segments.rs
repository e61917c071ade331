//! Which segments of the journal hold no record that is kept.
//!
//! What a partition's index has in memory says it, but for the closed page that the log start lies in: that one is read, so that records which are gone
//! hold no segment because others of their page are kept. No page is read under the projections' lock.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rustc_hash::FxHashMap;
use sabir_journal::{SegmentInfo, SegmentNo};
use sabir_model::{Offset, PartitionId, Sequence};

use super::Shard;
use crate::partition::SpillKey;
use crate::state::ShardState;

/// Pages read in one look at the segments; what more would say counts as kept until the next one.
const PAGES: usize = 1024;
/// How often a segment is judged in one look: for the partition that was asked first, for all others, and for what moved meanwhile.
const ROUNDS: usize = 3;
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
}

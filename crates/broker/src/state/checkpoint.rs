//! Projections to pages and back.

use std::hash::Hash;

use sabir_journal::pages::{Budget, PageBatch, PageChange, PageError, PageKey, PageStore, PageValue, Paged};
use sabir_model::{DecodeError, Sequence, Term};

use super::{Counters, ExpiryQueue, PARTITIONS, Producers, SegmentUsage, ShardState, TRAINS, Touched, usage};
use crate::catalog::Catalog;
use crate::codec::{Reader, put_i64, put_u64};
use crate::group::GroupTable;
use crate::partition::{Spill, SpillChanges};

/// What a checkpoint does with a map, whatever it holds.
pub(crate) trait Capturing {
    fn begin(&mut self);
    fn capture(&mut self, budget: &mut Budget) -> bool;
    fn take(&mut self) -> Vec<PageChange>;
    fn committed(&mut self);
    fn failed(&mut self);
}

impl Capturing for GroupTable {
    fn begin(&mut self) {
        self.begin_checkpoint();
    }
    fn capture(&mut self, budget: &mut Budget) -> bool {
        Self::capture(self, budget)
    }
    fn take(&mut self) -> Vec<PageChange> {
        self.take_captured()
    }
    fn committed(&mut self) {
        self.checkpoint_committed();
    }
    fn failed(&mut self) {
        self.checkpoint_failed();
    }
}

impl<K: PageKey + Hash, V: PageValue> Capturing for Paged<K, V> {
    fn begin(&mut self) {
        self.begin_checkpoint();
    }
    fn capture(&mut self, budget: &mut Budget) -> bool {
        Paged::capture(self, budget)
    }
    fn take(&mut self) -> Vec<PageChange> {
        self.take_captured()
    }
    fn committed(&mut self) {
        self.checkpoint_committed();
    }
    fn failed(&mut self) {
        self.checkpoint_failed();
    }
}

/// The page of what there is one of in a shard.
pub(super) const SHARD_PAGE: &[u8] = b"m";
const FORM: u8 = 1;

/// What is known at the moment of the cut.
pub(crate) struct Cut {
    pub(crate) sequence: Sequence,
    shard_page: Vec<u8>,
    spill: SpillChanges,
}

impl Cut {
    /// Adds what is already known to the checkpoint's batch.
    pub(crate) fn put(self, batch: &mut PageBatch) {
        batch.put(SHARD_PAGE.to_vec(), self.shard_page);
        for (key, page) in self.spill.puts {
            batch.put(key.stored(), page.to_vec());
        }
        self.spill.deletes.iter().for_each(|key| batch.delete(key.stored()));
    }
}

/// A page that reads back whole but makes no sense.
pub(crate) fn undecodable(error: DecodeError) -> PageError {
    PageError::Undecodable { key: SHARD_PAGE.to_vec(), detail: error.to_string() }
}

impl ShardState {
    fn maps(&mut self) -> [&mut dyn Capturing; 6] {
        [
            &mut self.partitions,
            self.producers.pages(),
            &mut self.trains,
            self.catalog.pages(),
            &mut self.groups,
            &mut self.usage.segments,
        ]
    }

    /// Cuts: the checkpoint is of this moment, whatever is applied while it is written; `None` within a block.
    pub(crate) fn begin_checkpoint(&mut self) -> Option<Cut> {
        if self.half_applied.is_some() {
            return None;
        }
        self.maps().into_iter().for_each(Capturing::begin);
        Some(Cut { sequence: self.applied, shard_page: self.shard_page(), spill: self.spill.begin() })
    }

    /// Captures a bounded part of what the checkpoint under way needs; true while there is more.
    pub(crate) fn capture(&mut self) -> bool {
        let mut budget = Budget::MILLISECOND;
        self.maps().into_iter().any(|map| map.capture(&mut budget))
    }

    /// What was captured since the last call.
    pub(crate) fn take_captured(&mut self) -> Vec<PageChange> {
        self.maps().into_iter().flat_map(Capturing::take).collect()
    }

    pub(crate) fn checkpoint_committed(&mut self) {
        self.maps().into_iter().for_each(Capturing::committed);
        self.spill.committed();
    }

    pub(crate) fn checkpoint_failed(&mut self) {
        self.maps().into_iter().for_each(Capturing::failed);
        self.spill.failed();
    }

    pub(super) fn shard_page(&self) -> Vec<u8> {
        let mut out = vec![FORM];
        put_u64(&mut out, self.applied.0);
        put_u64(&mut out, self.term.0);
        put_i64(&mut out, self.time_ms);
        put_u64(&mut out, self.starts);
        self.catalog.put_singles(&mut out);
        out
    }

    /// The projections of the last checkpoint; those of an empty journal where there is none.
    pub(crate) fn restore(store: &dyn PageStore) -> Result<Self, PageError> {
        let Some(page) = store.get(SHARD_PAGE)? else { return Ok(Self::default()) };
        let mut input = Reader::new(&page);
        let (applied, term, time_ms, starts) = take_head(&mut input).map_err(undecodable)?;
        let catalog = Catalog::restore(store, &mut input)?;
        input.end().map_err(undecodable)?;
        let producers = Producers::restore(store)?;
        Ok(Self {
            applied,
            term,
            time_ms,
            half_applied: None,
            within_entry: false,
            starts,
            partitions: Paged::restore(PARTITIONS, store)?,
            expiry: expiry_of(&producers),
            producers,
            trains: Paged::restore(TRAINS, store)?,
            catalog,
            groups: GroupTable::restore(store)?,
            spill: Spill::default(),
            usage: SegmentUsage { segments: Paged::restore(usage::PREFIX, store)? },
            touched: Touched::default(),
            counters: Counters::default(),
        })
    }
}

fn take_head(input: &mut Reader<'_>) -> Result<(Sequence, Term, i64, u64), DecodeError> {
    input.version(FORM)?;
    Ok((Sequence(input.u64()?), Term(input.u64()?), input.i64()?, input.u64()?))
}

/// When to look at each producer.
pub(super) fn expiry_of(producers: &Producers) -> ExpiryQueue {
    let mut queue = ExpiryQueue::default();
    producers.iter().for_each(|(key, state)| queue.note(*key, state.last_ms));
    queue
}

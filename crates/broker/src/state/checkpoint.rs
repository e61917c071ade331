//! Projections to pages and back.

use std::hash::Hash;

use sabir_journal::pages::{Budget, PageBatch, PageChange, PageError, PageKey, PageStore, PageValue, Paged};
use sabir_model::{DecodeError, Sequence, Term};

use super::{Counters, ExpiryQueue, Producers, SegmentUsage, ShardState, Touched, prefixes};
use crate::catalog::{Catalog, Singles};
use crate::codec::{Reader, put_bytes, put_i64, put_len, put_u64};
use crate::group::GroupTable;
use crate::level::FormatLevel;
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

/// The forms of the page of what there is one of in a shard: the first one names neither the level nor the maps.
const FORM_1: u8 = 1;
const FORM: u8 = 2;

/// The maps that a checkpoint lists. One that it lacks is newer than it and starts empty; of one that it lists nothing may be missing.
pub(crate) struct StoredMaps<'a> {
    store: &'a dyn PageStore,
    listed: Vec<Vec<u8>>,
}

impl<'a> StoredMaps<'a> {
    /// Fails where one is listed that this version does not know: to go on without it would lose it.
    fn new(store: &'a dyn PageStore, listed: Vec<Vec<u8>>) -> Result<Self, PageError> {
        match listed.iter().find(|map| !prefixes::MAPS.contains(&map.as_slice())) {
            None => Ok(Self { store, listed }),
            Some(unknown) => {
                let name = String::from_utf8_lossy(unknown);
                let detail =
                    format!("the checkpoint holds the map `{name}`, which this version does not know");
                Err(PageError::Undecodable { key: prefixes::SHARD.to_vec(), detail })
            }
        }
    }

    /// Where all are listed.
    #[cfg(test)]
    pub(crate) fn all(store: &'a dyn PageStore) -> Self {
        Self { store, listed: prefixes::MAPS.map(<[u8]>::to_vec).into() }
    }

    pub(crate) fn restore<K: PageKey, V: PageValue>(&self, prefix: &[u8]) -> Result<Paged<K, V>, PageError> {
        if self.listed.iter().any(|map| map == prefix) {
            Paged::restore(prefix, self.store)
        } else {
            Ok(Paged::new(prefix))
        }
    }
}

/// What is known at the moment of the cut.
pub(crate) struct Cut {
    pub(crate) sequence: Sequence,
    shard_page: Vec<u8>,
    spill: SpillChanges,
}

impl Cut {
    /// Adds what is already known to the checkpoint's batch.
    pub(crate) fn put(self, batch: &mut PageBatch) {
        batch.put(prefixes::SHARD.to_vec(), self.shard_page);
        for (key, page) in self.spill.puts {
            batch.put(key.stored(), page.to_vec());
        }
        self.spill.deletes.iter().for_each(|key| batch.delete(key.stored()));
    }
}

/// A page that reads back whole but makes no sense.
fn undecodable(error: DecodeError) -> PageError {
    PageError::Undecodable { key: prefixes::SHARD.to_vec(), detail: error.to_string() }
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
        let shard_page = self.shard_page(self.level);
        Some(Cut { sequence: self.applied, shard_page, spill: self.spill.begin() })
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

    /// The page of what there is one of, in the form of a level.
    pub(super) fn shard_page(&self, level: FormatLevel) -> Vec<u8> {
        let lists = level >= FormatLevel::LISTED;
        let mut out = vec![if lists { FORM } else { FORM_1 }];
        put_u64(&mut out, self.applied.0);
        put_u64(&mut out, self.term.0);
        put_i64(&mut out, self.time_ms);
        put_u64(&mut out, self.starts);
        self.catalog.put_singles(&mut out, lists);
        if lists {
            put_len(&mut out, prefixes::MAPS.len());
            prefixes::MAPS.iter().for_each(|map| put_bytes(&mut out, map));
        }
        out
    }

    /// The projections of the last checkpoint; those of an empty journal where there is none.
    pub(crate) fn restore(store: &dyn PageStore) -> Result<Self, PageError> {
        let Some(page) = store.get(prefixes::SHARD)? else { return Ok(Self::default()) };
        let ShardPage { applied, term, time_ms, starts, singles, maps } =
            ShardPage::take(&page).map_err(undecodable)?;
        let maps = StoredMaps::new(store, maps)?;
        let catalog = Catalog::restore(singles, &maps)?;
        let producers = Producers::restore(&maps)?;
        Ok(Self {
            applied,
            term,
            time_ms,
            half_applied: None,
            within_entry: false,
            starts,
            level: catalog.level(),
            partitions: maps.restore(prefixes::PARTITIONS)?,
            expiry: expiry_of(&producers),
            producers,
            trains: maps.restore(prefixes::TRAINS)?,
            catalog,
            groups: GroupTable::restore(&maps)?,
            spill: Spill::default(),
            usage: SegmentUsage { segments: maps.restore(prefixes::SEGMENT_USAGE)? },
            touched: Touched::default(),
            counters: Counters::default(),
        })
    }
}

/// The page of what there is one of.
struct ShardPage {
    applied: Sequence,
    term: Term,
    time_ms: i64,
    starts: u64,
    singles: Singles,
    maps: Vec<Vec<u8>>,
}

impl ShardPage {
    fn take(page: &[u8]) -> Result<Self, DecodeError> {
        let mut input = Reader::new(page);
        let lists = page.first() != Some(&FORM_1);
        input.version(if lists { FORM } else { FORM_1 })?;
        let page = Self {
            applied: Sequence(input.u64()?),
            term: Term(input.u64()?),
            time_ms: input.i64()?,
            starts: input.u64()?,
            singles: Singles::take(&mut input, lists)?,
            maps: if lists {
                input.list(1, Reader::bytes)?
            } else {
                prefixes::MAPS.map(<[u8]>::to_vec).into()
            },
        };
        input.end()?;
        Ok(page)
    }
}

/// When to look at each producer.
pub(super) fn expiry_of(producers: &Producers) -> ExpiryQueue {
    let mut queue = ExpiryQueue::default();
    producers.iter().for_each(|(key, state)| queue.note(*key, state.last_ms));
    queue
}

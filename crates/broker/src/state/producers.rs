//! What the partitions of a shard remember of idempotent producers, by partition and producer.

use std::collections::BTreeSet;

use rustc_hash::FxHashMap;
use sabir_journal::pages::{PageError, Paged};
use sabir_model::{PartitionId, ProducerId};

use super::{StoredMaps, prefixes};
use crate::partition::{ProducerKey, ProducerState};
use crate::projection::PageMap;

/// The producers of all partitions.
#[derive(Debug)]
pub(crate) struct Producers {
    pages: Paged<ProducerKey, ProducerState>,
    /// Its keys in their order, so that a partition's are found when it goes; follows from `pages`.
    keys: BTreeSet<ProducerKey>,
    /// How many each partition has; follows from `pages`.
    counts: FxHashMap<PartitionId, usize>,
    /// Producers that came to be known since the start; for looking whether there are new ones.
    pub(crate) met: u64,
}

impl Default for Producers {
    fn default() -> Self {
        Self {
            pages: Paged::new(prefixes::PRODUCERS),
            keys: BTreeSet::new(),
            counts: FxHashMap::default(),
            met: 0,
        }
    }
}

impl Producers {
    pub(crate) fn restore(maps: &StoredMaps<'_>) -> Result<Self, PageError> {
        let pages: Paged<ProducerKey, ProducerState> = maps.restore(prefixes::PRODUCERS)?;
        let keys: BTreeSet<ProducerKey> = pages.iter().map(|(key, _)| *key).collect();
        let mut counts = FxHashMap::default();
        keys.iter().for_each(|key| *counts.entry(key.partition).or_default() += 1);
        Ok(Self { met: keys.len() as u64, pages, keys, counts })
    }

    pub(crate) fn get(&self, key: &ProducerKey) -> Option<&ProducerState> {
        self.pages.get(key)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&ProducerKey, &ProducerState)> {
        self.pages.iter()
    }

    pub(crate) fn get_or_insert_with(
        &mut self,
        key: ProducerKey,
        state: impl FnOnce() -> ProducerState,
    ) -> &mut ProducerState {
        let (keys, counts, met) = (&mut self.keys, &mut self.counts, &mut self.met);
        self.pages.get_or_insert_with(key, || {
            keys.insert(key);
            *counts.entry(key.partition).or_default() += 1;
            *met += 1;
            state()
        })
    }

    pub(crate) fn remove(&mut self, key: &ProducerKey) {
        if self.keys.remove(key) {
            self.pages.remove(key);
            let count = self.counts.entry(key.partition).or_default();
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.counts.remove(&key.partition);
            }
        }
    }

    /// How many each partition has, in no order.
    pub(crate) fn counts(&self) -> impl Iterator<Item = (PartitionId, usize)> {
        self.counts.iter().map(|(partition, count)| (*partition, *count))
    }

    /// Up to `count` of a partition's producers that are missed least: first those that never came back after one batch, as made-up
    /// ids do, then the others, and of both those that were silent for longest. Each with the time of its last batch.
    pub(crate) fn least_missed(&self, partition: PartitionId, count: usize) -> Vec<(ProducerId, i64)> {
        let key = |producer| ProducerKey { partition, producer: ProducerId(producer) };
        let keys = self.keys.range(key(i64::MIN)..=key(i64::MAX));
        let rank = |key: &ProducerKey| {
            self.pages.get(key).map(|state| (state.came_back(), state.last_ms, key.producer))
        };
        let mut ranked: Vec<_> = keys.filter_map(rank).collect();
        if count < ranked.len() {
            ranked.select_nth_unstable(count);
            ranked.truncate(count);
        }
        ranked.into_iter().map(|(_, last_ms, producer)| (producer, last_ms)).collect()
    }

    /// Forgets all producers of a partition.
    pub(crate) fn remove_all_of(&mut self, partition: PartitionId) {
        let key = |producer| ProducerKey { partition, producer: ProducerId(producer) };
        let all: Vec<ProducerKey> = self.keys.range(key(i64::MIN)..=key(i64::MAX)).copied().collect();
        all.iter().for_each(|key| self.remove(key));
    }

    pub(crate) fn pages(&mut self) -> &mut dyn PageMap {
        &mut self.pages
    }

    pub(crate) fn len(&self) -> usize {
        debug_assert_eq!(self.keys.len(), self.pages.len());
        self.keys.len()
    }
}

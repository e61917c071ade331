//! What the partitions of a shard remember of idempotent producers, by partition and producer.

use std::collections::BTreeSet;

use sabir_journal::pages::{PageError, PageStore, Paged};
use sabir_model::{PartitionId, ProducerId};

use super::Capturing;
use crate::partition::{ProducerKey, ProducerState};

const PREFIX: &[u8] = b"i";

/// The producers of all partitions.
#[derive(Debug)]
pub(crate) struct Producers {
    pages: Paged<ProducerKey, ProducerState>,
    /// Its keys in their order, so that a partition's are found when it goes; follows from `pages`.
    keys: BTreeSet<ProducerKey>,
}

impl Default for Producers {
    fn default() -> Self {
        Self { pages: Paged::new(PREFIX), keys: BTreeSet::new() }
    }
}

impl Producers {
    pub(crate) fn restore(store: &dyn PageStore) -> Result<Self, PageError> {
        let pages = Paged::restore(PREFIX, store)?;
        let keys = pages.iter().map(|(key, _)| *key).collect();
        Ok(Self { pages, keys })
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
        let keys = &mut self.keys;
        self.pages.get_or_insert_with(key, || {
            keys.insert(key);
            state()
        })
    }

    pub(crate) fn remove(&mut self, key: &ProducerKey) {
        if self.keys.remove(key) {
            self.pages.remove(key);
        }
    }

    /// Forgets all producers of a partition.
    pub(crate) fn remove_all_of(&mut self, partition: PartitionId) {
        let key = |producer| ProducerKey { partition, producer: ProducerId(producer) };
        let all: Vec<ProducerKey> = self.keys.range(key(i64::MIN)..=key(i64::MAX)).copied().collect();
        all.iter().for_each(|key| self.remove(key));
    }

    pub(crate) fn pages(&mut self) -> &mut dyn Capturing {
        &mut self.pages
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        debug_assert_eq!(self.keys.len(), self.pages.len());
        self.keys.len()
    }

    #[cfg(test)]
    pub(crate) fn dump(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        self.pages.dump()
    }
}

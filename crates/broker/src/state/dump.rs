//! Canonical dumps, by which checkpoints and replays are compared.

use sabir_journal::pages::{PageError, PageStore};

use super::ShardState;
use super::prefixes;
use crate::level::FormatLevel;
use crate::partition::{Partition, PartitionKey, SpillKey};

/// Keys with their stored values.
pub(crate) type Dump = Vec<(Vec<u8>, Vec<u8>)>;

impl ShardState {
    /// Everything that every replica and every replay agrees on, by key, sorted.
    pub(crate) fn dump(&self, store: &dyn PageStore) -> Result<Dump, PageError> {
        let mut dump = vec![(prefixes::SHARD.to_vec(), self.shard_page(FormatLevel::NEWEST))];
        dump.extend(self.partitions.dump());
        dump.extend(self.producers.dump());
        dump.extend(self.trains.dump());
        dump.extend(self.catalog.dump());
        dump.extend(self.groups.dump());
        for (PartitionKey(id), partition) in self.partitions.iter() {
            for key in partition.spilled(*id) {
                dump.push((key.stored(), self.spilled(&key, store)?));
            }
        }
        dump.sort_unstable();
        Ok(dump)
    }

    fn spilled(&self, key: &SpillKey, store: &dyn PageStore) -> Result<Vec<u8>, PageError> {
        if let Some(page) = self.spill.get(key) {
            return Ok(page.to_vec());
        }
        let missing = || PageError::Undecodable { key: key.stored(), detail: "the page is missing".into() };
        store.get(&key.stored())?.ok_or_else(missing)
    }
}

impl Partition {
    /// The keys of all pages of its own.
    fn spilled(&self, id: sabir_model::PartitionId) -> Vec<SpillKey> {
        let pages = self.index.closed().iter().map(|page| SpillKey::index(id, page.first));
        let trains = self.trains.iter();
        let lists = trains.flat_map(|train| (0..train.pages).map(|n| SpillKey::train(id, train.base, n)));
        pages.chain(lists).collect()
    }
}

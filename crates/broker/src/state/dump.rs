//! Canonical dumps, by which checkpoints and replays are compared.

use sabir_journal::pages::{PageError, PageStore};

use super::ShardState;
use super::prefixes;
use crate::level::FormatLevel;
use crate::projection::Dump;

impl ShardState {
    /// Everything that every replica and every replay agrees on, by key, sorted.
    pub(crate) fn dump(&mut self, pages: &dyn PageStore) -> Result<Dump, PageError> {
        let mut dump = vec![(prefixes::SHARD.to_vec(), self.shard_page(FormatLevel::NEWEST))];
        for projection in self.projections_mut() {
            dump.extend(projection.dump(pages)?);
        }
        dump.sort_unstable();
        Ok(dump)
    }
}

//! Which runs answer a read: decided under the projections' lock, without touching a byte of them.

use std::sync::Arc;

use sabir_model::{ErrorKind, LeaderEpoch, Offset, PartitionId};

use crate::partition::{Partition, Place, Run, RunKind, SpillKey, decode_runs};
use crate::shard::Shard;
use crate::state::ShardState;

/// A run and what its reader is to be told.
#[derive(Debug, Clone, Copy)]
pub(super) struct Piece {
    pub(super) run: Run,
    pub(super) epoch: LeaderEpoch,
}

/// What answers a read.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) high_watermark: Offset,
    pub(super) log_start: Offset,
    pub(super) pieces: Vec<Piece>,
}

/// A plan, or the page it wants first.
#[derive(Debug)]
pub(super) enum Planned {
    Ready(Plan),
    NeedsPage(SpillKey),
}

impl Shard {
    /// Plans a read of about `max_bytes` from `from` on.
    pub(super) fn plan(&self, id: PartitionId, from: Offset, max_bytes: usize) -> Result<Planned, ErrorKind> {
        let state = self.state.read();
        let partition = state.readable(id)?;
        if from < partition.log_start || from > partition.next {
            return Err(ErrorKind::OffsetOutOfRange);
        }
        let mut plan =
            Plan { high_watermark: partition.next, log_start: partition.log_start, pieces: Vec::new() };
        let missing = self.collect(&state, partition, id, from, max_bytes, &mut plan.pieces);
        Ok(missing.map_or(Planned::Ready(plan), Planned::NeedsPage))
    }

    fn collect(
        &self,
        state: &ShardState,
        partition: &Partition,
        id: PartitionId,
        mut from: Offset,
        max_bytes: usize,
        pieces: &mut Vec<Piece>,
    ) -> Option<SpillKey> {
        let mut bytes = 0;
        let mut take = |runs: &[Run]| {
            for &run in runs {
                pieces.push(Piece { run, epoch: partition.epochs.at(run.base) });
                bytes += run.len as usize;
                if bytes >= max_bytes {
                    break;
                }
            }
            bytes
        };
        loop {
            match partition.index.find(from)? {
                Place::Open(first) => {
                    take(&partition.index.open()[first..]);
                    return None;
                }
                Place::Closed(page) => {
                    let key = SpillKey::index(id, page.first);
                    let Some(runs) = self.page_in_memory(state, &key) else {
                        // Half of what was asked for is worth more than another look into the page store.
                        return if take(&[]) * 2 >= max_bytes.max(1) { None } else { Some(key) };
                    };
                    let first = runs.partition_point(|run| run.next() <= from);
                    if take(&runs[first..]) >= max_bytes {
                        return None;
                    }
                    from = page.next;
                }
            }
        }
    }

    /// A page's runs, if they can be had without the page store.
    pub(super) fn page_in_memory(&self, state: &ShardState, key: &SpillKey) -> Option<Arc<[Run]>> {
        if let Some(runs) = self.page_cache.get(key) {
            return Some(runs);
        }
        let page = state.spill.get(key)?;
        // This process encoded it.
        let runs: Arc<[Run]> = decode_runs(&page).ok()?.into();
        self.page_cache.put(*key, runs.clone());
        Some(runs)
    }

    /// Gets a page from the page store. Blocking.
    pub(super) fn load_page(&self, key: &SpillKey) -> Result<Option<Arc<[Run]>>, ErrorKind> {
        let Some(page) = self.stored_page(key)? else { return Ok(None) };
        let runs: Arc<[Run]> = decode_runs(&page).map_err(|error| self.bad_page(key, &error))?.into();
        self.page_cache.put(*key, runs.clone());
        Ok(Some(runs))
    }

    /// The bytes of a page, from memory or the page store; `None` if it was deleted. Blocking.
    pub(super) fn stored_page(&self, key: &SpillKey) -> Result<Option<bytes::Bytes>, ErrorKind> {
        if let Some(page) = self.state.read().spill.get(key) {
            return Ok(Some(page));
        }
        let page = self.pages.get(&key.stored()).map_err(|error| self.bad_page(key, &error))?;
        Ok(page.map(Into::into))
    }

    pub(super) fn bad_page(&self, key: &SpillKey, error: &dyn std::fmt::Display) -> ErrorKind {
        tracing::error!(shard = %self.id, ?key, %error, "a page of the index cannot be read");
        ErrorKind::StorageError
    }
}

impl Piece {
    pub(super) fn is_train(&self) -> bool {
        self.run.kind == RunKind::Train
    }
}

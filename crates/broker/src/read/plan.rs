//! Which runs answer a read: decided under the projections' lock, without touching a byte of them.

use std::sync::Arc;
use std::time::Instant;

use sabir_journal::pages::PageError;
use sabir_model::{LeaderEpoch, Offset, OverlayPlace, PartitionId, ReadError};

use super::damage::{Damage, DamageCause};
use crate::partition::{PartitionState, Place, Run, RunKind, Runs, SpillKey, decode_runs};
use crate::shard::Shard;
use crate::state::ShardState;

/// A run and what its reader is to be told.
#[derive(Debug, Clone)]
pub(super) struct Piece {
    pub(super) run: Run,
    pub(super) epoch: LeaderEpoch,
    /// Where it is said what differs for the partition; hardly ever anywhere.
    pub(super) overlay: Option<Box<OverlayPlace>>,
}

/// The most runs in one answer, so that a reader of small batches holds neither a thread nor much memory for long.
pub(super) const RUNS_MAX: usize = 4096;

/// What answers a read, as far as it is planned.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) high_watermark: Offset,
    pub(super) log_start: Offset,
    pub(super) pieces: Vec<Piece>,
    /// Behind the last piece.
    next: Offset,
    bytes: usize,
    max_bytes: usize,
    max_runs: usize,
}

/// How a step of planning ended.
#[derive(Debug)]
pub(super) enum Step {
    Ready,
    /// This page is not in memory.
    NeedsPage(SpillKey),
}

impl Plan {
    pub(super) fn new(from: Offset, max_bytes: usize) -> Self {
        let (high_watermark, log_start) = (Offset::ZERO, Offset::ZERO);
        Self {
            high_watermark,
            log_start,
            pieces: Vec::new(),
            next: from,
            bytes: 0,
            max_bytes,
            max_runs: RUNS_MAX,
        }
    }

    /// Plans no run: the partition's offsets are asked for alone.
    pub(super) fn of_none(from: Offset) -> Self {
        Self { max_runs: 0, ..Self::new(from, 0) }
    }

    /// Takes the runs that end behind what is planned, until there is enough.
    fn take(&mut self, partition: &PartitionState, runs: &Runs) {
        let first = runs.list().partition_point(|run| run.next() <= self.next);
        for &run in &runs.list()[first..] {
            if self.is_full() {
                return;
            }
            let overlay = runs.detail(&run).and_then(|detail| detail.overlay).map(Box::new);
            self.pieces.push(Piece { run, epoch: partition.epochs.at(run.base), overlay });
            self.bytes += run.len as usize;
            self.next = run.next();
        }
    }

    fn is_full(&self) -> bool {
        let enough = self.bytes >= self.max_bytes && !self.pieces.is_empty();
        enough || self.pieces.len() >= self.max_runs
    }

    /// Whether it is worth more than another look into the page store.
    fn is_worth_an_answer(&self) -> bool {
        !self.pieces.is_empty() && self.bytes.saturating_mul(2) >= self.max_bytes
    }
}

impl Shard {
    /// Gets on with a plan: with the page it asked for, and with what is in memory behind that.
    pub(super) fn plan(
        &self,
        id: PartitionId,
        plan: &mut Plan,
        loaded: Option<&Runs>,
    ) -> Result<Step, ReadError> {
        let state = self.state.read();
        let partition = state.readable(id)?;
        let out_of_range = plan.next < partition.log_start || plan.next > partition.next;
        match (out_of_range, plan.pieces.is_empty()) {
            (true, true) => {
                let (start, end) = (partition.log_start, partition.next);
                return Err(ReadError::OutOfRange { asked: plan.next, start, end });
            }
            // Retention or a cut came in between; what is planned is the answer, or its bytes are gone too.
            (true, false) => return Ok(Step::Ready),
            (false, _) => {}
        }
        (plan.high_watermark, plan.log_start) = (partition.next, partition.log_start);
        if let Some(loaded) = loaded {
            plan.take(partition, loaded);
        }
        Ok(self.collect(&state, partition, id, plan).map_or(Step::Ready, Step::NeedsPage))
    }

    fn collect(
        &self,
        state: &ShardState,
        partition: &PartitionState,
        id: PartitionId,
        plan: &mut Plan,
    ) -> Option<SpillKey> {
        while !plan.is_full() {
            match partition.index.find(plan.next)? {
                Place::Open(_) => {
                    plan.take(partition, partition.index.open_runs());
                    return None;
                }
                Place::Closed(page) => {
                    let key = SpillKey::index(id, page.first);
                    let Some(runs) = self.page_in_memory(state, &key) else {
                        return (!plan.is_worth_an_answer()).then_some(key);
                    };
                    plan.take(partition, &runs);
                }
            }
        }
        None
    }

    /// A page's runs, if they can be had without the page store.
    pub(super) fn page_in_memory(&self, state: &ShardState, key: &SpillKey) -> Option<Arc<Runs>> {
        if let Some(runs) = self.reads.page_cache.get(key) {
            return Some(runs);
        }
        let page = state.partitions.spill.get(key)?;
        // This process encoded it.
        let runs: Arc<Runs> = decode_runs(&page).ok()?.into();
        self.reads.page_cache.put(*key, runs.clone());
        Some(runs)
    }

    /// Gets a page from the page store; `None` if it was deleted. Blocking.
    pub(crate) fn load_page(&self, key: &SpillKey) -> Result<Option<Arc<Runs>>, ReadError> {
        let page = match self.stored_page(key)? {
            Some(page) => page,
            // What was let go of while it was read is gone; what came again since is in memory.
            None => {
                let state = self.state.read();
                let is_listed = |partition: &PartitionState| {
                    partition.index.closed().iter().any(|page| page.first == key.first)
                };
                match state.partitions.spill.get(key) {
                    Some(page) => page,
                    None if !state.partition(key.partition).is_some_and(is_listed) => return Ok(None),
                    None => {
                        drop(state);
                        return Err(self.bad_page(key, DamageCause::Index, &"it is not there"));
                    }
                }
            }
        };
        let runs = decode_runs(&page).map_err(|error| self.bad_page(key, DamageCause::Index, &error))?;
        let runs: Arc<Runs> = runs.into();
        if let Some(last) = runs.list().last() {
            self.reads.damages.forget(key.partition, DamageCause::Index, key.first..last.next());
        }
        self.reads.page_cache.put(*key, runs.clone());
        Ok(Some(runs))
    }

    /// The bytes of a page, from memory or the page store; `None` if it was deleted. Blocking.
    pub(super) fn stored_page(&self, key: &SpillKey) -> Result<Option<bytes::Bytes>, ReadError> {
        if let Some(page) = self.state.read().partitions.spill.get(key) {
            return Ok(Some(page));
        }
        let page = self.pages.get(&key.stored()).map_err(|error| {
            let cause = match error {
                PageError::Corrupt { .. } => DamageCause::Index,
                _ => DamageCause::Storage,
            };
            self.bad_page(key, cause, &error)
        })?;
        Ok(page.map(Into::into))
    }

    /// Takes down that records cannot be found for want of a page of their partition's index; gives what their reader is told.
    pub(super) fn bad_page(
        &self,
        key: &SpillKey,
        cause: DamageCause,
        error: &dyn std::fmt::Display,
    ) -> ReadError {
        let now = Instant::now();
        if self.reads.damages.may_say_why(now) {
            tracing::error!(shard = %self.id, ?key, %error, "a page of the index cannot be read");
        }
        if let Some(partition) = self.state.read().partition(key.partition) {
            let (topic, number) = (partition.topic, partition.number);
            let offset = key.first.max(partition.log_start);
            self.reads.damages.note(key.partition, Damage { topic, partition: number, offset, cause }, now);
        }
        match cause {
            DamageCause::Corrupt | DamageCause::Index => ReadError::Corrupt,
            DamageCause::Storage => ReadError::Storage,
        }
    }
}

impl Piece {
    pub(super) fn is_fragmented(&self) -> bool {
        self.run.kind == RunKind::Fragmented
    }
}

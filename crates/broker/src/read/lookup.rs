//! Offsets by time. The index narrows it down to runs; the record is found by walking its batch.
//!
//! Where timestamps mislead, the whole partition may have to be walked. So a lookup goes by steps: after each it is the turn of another one
//! of the shard, and one whose caller has gone goes no further.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::sync::Arc;

use sabir_model::batch::{records, verify_crc};
use sabir_model::{LeaderEpoch, Offset, PartitionId, ReadError};

use super::assemble::take_stored;
use super::fetch::not_done;
use super::memory::UNHELD;
use super::plan::Piece;
use super::rebuild::{RECORDS_MAX, rebuild};
use super::source::Got;
use super::types::{FoundOffset, OffsetSpec};
use crate::partition::{PageRef, PartitionState, Place, Run, RunKind, SpillKey};
use crate::shard::Shard;

const NOT_FOUND: FoundOffset =
    FoundOffset { offset: Offset(-1), timestamp: -1, leader_epoch: LeaderEpoch::UNKNOWN };

/// A step ends after so many runs, pages of the index counted with them, or so many bytes of runs.
const STEP_RUNS: usize = 256;
const STEP_BYTES: usize = 4 << 20;

/// A record as its partition sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Stamped {
    timestamp: i64,
    /// Of records with one timestamp the first counts.
    offset: Reverse<Offset>,
}

/// Where the largest timestamp may be, in the order of the largest it may hold.
#[derive(Debug, PartialEq, Eq)]
struct Candidate {
    bound: Stamped,
    what: What,
}

#[derive(Debug, PartialEq, Eq)]
enum What {
    Page(PageRef),
    Run(Run),
}

impl Ord for Candidate {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.bound.cmp(&other.bound)
    }
}

impl PartialOrd for Candidate {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Candidate {
    fn page(page: PageRef) -> Self {
        let bound = Stamped { timestamp: page.max_ts, offset: Reverse(page.first) };
        Self { bound, what: What::Page(page) }
    }

    fn run(run: Run) -> Self {
        Self { bound: Stamped { timestamp: run.max_ts, offset: Reverse(run.base) }, what: What::Run(run) }
    }
}

/// What is left of a lookup.
enum Search {
    First(First),
    Largest(Largest),
}

/// A search for the first record with a timestamp of at least `ts`.
struct First {
    ts: i64,
    from: Offset,
    /// Where it may be first, and the offset behind these.
    runs: VecDeque<Run>,
    next: Offset,
}

/// A search for the first record with the largest timestamp: best first.
#[derive(Default)]
struct Largest {
    /// `None` before it is begun.
    candidates: Option<BinaryHeap<Candidate>>,
    found: Option<Stamped>,
}

/// What a step may still do.
struct Budget {
    runs: usize,
    bytes: usize,
}

impl Budget {
    fn take(&mut self, bytes: u32) {
        self.runs = self.runs.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(bytes as usize);
    }

    fn is_used_up(&self) -> bool {
        self.runs == 0 || self.bytes == 0
    }
}

impl Shard {
    /// Looks an offset up.
    pub(crate) async fn find_offset(
        self: &Arc<Self>,
        partition: PartitionId,
        spec: OffsetSpec,
    ) -> Result<FoundOffset, ReadError> {
        match spec {
            OffsetSpec::Earliest => self.edge(partition, |p| p.log_start),
            OffsetSpec::Latest => self.edge(partition, |p| p.next),
            OffsetSpec::Timestamp(ts) => {
                let first = First { ts, from: Offset::ZERO, runs: VecDeque::new(), next: Offset::ZERO };
                self.search(partition, Search::First(first)).await
            }
            OffsetSpec::MaxTimestamp => self.search(partition, Search::Largest(Largest::default())).await,
        }
    }

    async fn search(self: &Arc<Self>, id: PartitionId, mut search: Search) -> Result<FoundOffset, ReadError> {
        loop {
            // Given in the order of asking, and kept by the step also where its caller has gone.
            let turn = self.reads.lookups.clone().lock_owned().await;
            let shard = self.clone();
            let step = move || {
                let _turn = turn;
                shard.step(id, &mut search).map(|found| (found, search))
            };
            let (found, rest) = tokio::task::spawn_blocking(step).await.map_err(not_done)??;
            match found {
                Some(found) => return Ok(found),
                None => search = rest,
            }
        }
    }

    /// Goes on with a search; `None` if there is more to do. Blocking.
    fn step(&self, id: PartitionId, search: &mut Search) -> Result<Option<FoundOffset>, ReadError> {
        let log_start = self.edge(id, |partition| partition.log_start)?.offset;
        let mut budget = Budget { runs: STEP_RUNS, bytes: STEP_BYTES };
        while !budget.is_used_up() {
            let found = match search {
                Search::First(first) => self.look_for_first(id, first, log_start, &mut budget)?,
                Search::Largest(largest) => self.look_for_largest(id, largest, log_start, &mut budget)?,
            };
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    fn edge(
        &self,
        id: PartitionId,
        edge: impl FnOnce(&PartitionState) -> Offset,
    ) -> Result<FoundOffset, ReadError> {
        let state = self.state.read();
        let partition = state.readable(id)?;
        let offset = edge(partition);
        // An end without records yet belongs to the epoch that will write there.
        let leader_epoch = if offset == partition.next {
            partition.epoch(self.replicator.term())
        } else {
            partition.epochs.at(offset)
        };
        Ok(FoundOffset { offset, timestamp: -1, leader_epoch })
    }

    fn look_for_first(
        &self,
        id: PartitionId,
        first: &mut First,
        log_start: Offset,
        budget: &mut Budget,
    ) -> Result<Option<FoundOffset>, ReadError> {
        first.from = first.from.max(log_start);
        let (ts, from) = (first.ts, first.from);
        let Some(run) = first.runs.pop_front() else {
            // What the index promised may be below the log start, or have no time of its own.
            first.from = from.max(first.next);
            return self.look_further(id, first, budget);
        };
        if run.next() <= from || run.max_ts < ts {
            return Ok(None);
        }
        budget.take(run.len);
        let found = self.scan(id, &run, from, |timestamp, _| timestamp >= ts)?;
        found.map(|found| self.answer(id, found)).transpose()
    }

    /// Asks the index where the record may be.
    fn look_further(
        &self,
        id: PartitionId,
        first: &mut First,
        budget: &mut Budget,
    ) -> Result<Option<FoundOffset>, ReadError> {
        budget.take(0);
        let Some(place) = self.place_at(id, &mut first.from, first.ts)? else { return Ok(Some(NOT_FOUND)) };
        (first.runs, first.next) = match place {
            Where::Run(run) => (VecDeque::from([run]), run.next()),
            Where::Page(page) => (self.runs_of(id, &page)?.into(), page.next),
        };
        Ok(None)
    }

    fn place_at(&self, id: PartitionId, from: &mut Offset, ts: i64) -> Result<Option<Where>, ReadError> {
        let state = self.state.read();
        let partition = state.readable(id)?;
        *from = (*from).max(partition.log_start);
        Ok(partition.index.find_time(*from, ts).map(|place| match place {
            Place::Open(at) => Where::Run(partition.index.open()[at]),
            Place::Closed(page) => Where::Page(page),
        }))
    }

    fn look_for_largest(
        &self,
        id: PartitionId,
        largest: &mut Largest,
        log_start: Offset,
        budget: &mut Budget,
    ) -> Result<Option<FoundOffset>, ReadError> {
        if largest.found.is_some_and(|found| found.offset.0 < log_start) {
            // It was deleted meanwhile, and what was less was not kept.
            *largest = Largest::default();
        }
        let candidates = match &mut largest.candidates {
            Some(candidates) => candidates,
            none => none.insert(self.candidates(id)?),
        };
        let best = candidates.pop().filter(|best| Some(best.bound) > largest.found);
        let Some(best) = best else {
            return Ok(Some(match largest.found {
                Some(found) => self.answer(id, found)?,
                None => NOT_FOUND,
            }));
        };
        match best.what {
            What::Page(page) => {
                budget.take(0);
                let runs = self.runs_of(id, &page)?.into_iter().map(Candidate::run);
                candidates.extend(runs.filter(|run| Some(run.bound) > largest.found));
            }
            What::Run(run) => {
                budget.take(run.len);
                self.scan(id, &run, log_start, |timestamp, offset| {
                    largest.found = largest.found.max(Some(Stamped { timestamp, offset: Reverse(offset) }));
                    false
                })?;
            }
        }
        Ok(None)
    }

    fn candidates(&self, id: PartitionId) -> Result<BinaryHeap<Candidate>, ReadError> {
        let state = self.state.read();
        let partition = state.readable(id)?;
        let pages = partition.index.closed().iter().copied().map(Candidate::page);
        let runs = partition.index.open().iter().copied().map(Candidate::run);
        Ok(pages.chain(runs).collect())
    }

    /// The runs of a closed page; none if it is gone.
    fn runs_of(&self, id: PartitionId, page: &PageRef) -> Result<Vec<Run>, ReadError> {
        let key = SpillKey::index(id, page.first);
        let in_memory = self.page_in_memory(&self.state.read(), &key);
        let runs = match in_memory {
            Some(runs) => Some(runs),
            None => self.load_page(&key)?,
        };
        Ok(runs.map_or_else(Vec::new, |runs| runs.list().to_vec()))
    }

    /// The first record from `from` on that `wanted(timestamp, offset)` accepts. Blocking.
    fn scan(
        &self,
        id: PartitionId,
        run: &Run,
        from: Offset,
        mut wanted: impl FnMut(i64, Offset) -> bool,
    ) -> Result<Option<Stamped>, ReadError> {
        let found = self.scan_run(id, run, from, &mut wanted);
        found.map_err(|error| self.damaged(id, run.base, error))
    }

    fn scan_run(
        &self,
        id: PartitionId,
        run: &Run,
        from: Offset,
        wanted: &mut impl FnMut(i64, Offset) -> bool,
    ) -> Result<Option<Stamped>, ReadError> {
        // Overlays change headers alone, and these are not looked at.
        let piece = Piece { run: *run, epoch: LeaderEpoch::UNKNOWN, overlay: None };
        let len = run.len as usize;
        let _counted = self.reads.memory.get().filter(|_| len > UNHELD).map(|memory| memory.count(len));
        self.with_bytes(id, &piece, |got| scan_bytes(id, run, &got, from, wanted))
    }

    fn answer(&self, id: PartitionId, found: Stamped) -> Result<FoundOffset, ReadError> {
        let state = self.state.read();
        let partition = state.readable(id)?;
        let offset = found.offset.0;
        let leader_epoch = partition.epochs.at(offset);
        Ok(FoundOffset { offset, timestamp: found.timestamp, leader_epoch })
    }
}

enum Where {
    Run(Run),
    Page(PageRef),
}

fn scan_bytes(
    id: PartitionId,
    run: &Run,
    got: &Got,
    from: Offset,
    wanted: &mut impl FnMut(i64, Offset) -> bool,
) -> Result<Option<Stamped>, ReadError> {
    if run.kind == RunKind::Reference {
        if got.cold {
            verify_crc(&got.bytes).map_err(|_| ReadError::Corrupt)?;
        }
        return scan_batch(&rebuild(&got.bytes, None, run)?, run.base, from, wanted);
    }
    let (mut rest, mut base) = (got.bytes.clone(), run.base);
    while !rest.is_empty() {
        let (batch, next) = take_stored(&mut rest, base, run, id)?;
        if got.cold {
            verify_crc(&batch).map_err(|_| ReadError::Corrupt)?;
        }
        if next > from
            && let Some(found) = scan_batch(&batch, base, from, wanted)?
        {
            return Ok(Some(found));
        }
        base = next;
    }
    if base == run.next() { Ok(None) } else { Err(ReadError::Corrupt) }
}

fn scan_batch(
    batch: &[u8],
    base: Offset,
    from: Offset,
    wanted: &mut impl FnMut(i64, Offset) -> bool,
) -> Result<Option<Stamped>, ReadError> {
    let records = records(batch, RECORDS_MAX).map_err(|_| ReadError::Corrupt)?;
    let stored = records.header().base_offset.0;
    for record in &records {
        let record = record.map_err(|_| ReadError::Corrupt)?;
        let offset = Offset(base.0 + (record.offset.0 - stored));
        if offset >= from && wanted(record.timestamp, offset) {
            return Ok(Some(Stamped { timestamp: record.timestamp, offset: Reverse(offset) }));
        }
    }
    Ok(None)
}

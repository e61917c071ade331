//! Offsets by time. The index narrows it down to runs; the record is found by walking its batch.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

use bytes::Bytes;
use sabir_model::batch::{BatchHeader, records, verify_crc};
use sabir_model::{ErrorKind, LeaderEpoch, Offset, PartitionId};

use super::fetch::not_done;
use super::plan::Piece;
use super::rebuild::{RECORDS_MAX, rebuild};
use super::types::{FoundOffset, OffsetSpec};
use crate::partition::{PageRef, Partition, Place, Run, RunKind, SpillKey};
use crate::shard::Shard;

const NOT_FOUND: FoundOffset =
    FoundOffset { offset: Offset(-1), timestamp: -1, leader_epoch: LeaderEpoch::UNKNOWN };

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
    Record,
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

impl Shard {
    /// Looks an offset up.
    pub(crate) async fn find_offset(
        self: &Arc<Self>,
        partition: PartitionId,
        spec: OffsetSpec,
    ) -> Result<FoundOffset, ErrorKind> {
        let shard = self.clone();
        let lookup = move || match spec {
            OffsetSpec::Timestamp(ts) => shard.first_at(partition, ts),
            _ => shard.largest(partition),
        };
        match spec {
            OffsetSpec::Earliest => self.edge(partition, |p| p.log_start),
            OffsetSpec::Latest => self.edge(partition, |p| p.next),
            OffsetSpec::Timestamp(_) | OffsetSpec::MaxTimestamp => {
                tokio::task::spawn_blocking(lookup).await.map_err(not_done)?
            }
        }
    }

    fn edge(
        &self,
        id: PartitionId,
        edge: impl FnOnce(&Partition) -> Offset,
    ) -> Result<FoundOffset, ErrorKind> {
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

    /// The first record with a timestamp of at least `ts`. Blocking.
    fn first_at(&self, id: PartitionId, ts: i64) -> Result<FoundOffset, ErrorKind> {
        let mut from = Offset::ZERO;
        loop {
            let Some(place) = self.place_at(id, &mut from, ts)? else { return Ok(NOT_FOUND) };
            let (runs, next) = match place {
                Where::Run(run) => (vec![run], run.next()),
                Where::Page(page) => (self.runs_of(id, &page)?, page.next),
            };
            for run in runs.iter().filter(|run| run.next() > from && run.max_ts >= ts) {
                let found = self.scan(id, run, from, |timestamp, _| timestamp >= ts)?;
                if let Some(found) = found {
                    return self.answer(id, found);
                }
            }
            // What the index promised may be below the log start, or have no time of its own.
            from = from.max(next);
        }
    }

    fn place_at(&self, id: PartitionId, from: &mut Offset, ts: i64) -> Result<Option<Where>, ErrorKind> {
        let state = self.state.read();
        let partition = state.readable(id)?;
        *from = (*from).max(partition.log_start);
        Ok(partition.index.find_time(*from, ts).map(|place| match place {
            Place::Open(at) => Where::Run(partition.index.open()[at]),
            Place::Closed(page) => Where::Page(page),
        }))
    }

    /// The first record with the largest timestamp: best first. Blocking.
    fn largest(&self, id: PartitionId) -> Result<FoundOffset, ErrorKind> {
        let (log_start, mut best) = self.candidates(id)?;
        while let Some(Candidate { bound, what }) = best.pop() {
            match what {
                What::Record => return self.answer(id, bound),
                What::Page(page) => best.extend(self.runs_of(id, &page)?.into_iter().map(Candidate::run)),
                What::Run(run) => {
                    let mut largest = None;
                    self.scan(id, &run, log_start, |timestamp, offset| {
                        largest = largest.max(Some(Stamped { timestamp, offset: Reverse(offset) }));
                        false
                    })?;
                    best.extend(largest.map(|bound| Candidate { bound, what: What::Record }));
                }
            }
        }
        Ok(NOT_FOUND)
    }

    fn candidates(&self, id: PartitionId) -> Result<(Offset, BinaryHeap<Candidate>), ErrorKind> {
        let state = self.state.read();
        let partition = state.readable(id)?;
        let pages = partition.index.closed().iter().copied().map(Candidate::page);
        let runs = partition.index.open().iter().copied().map(Candidate::run);
        Ok((partition.log_start, pages.chain(runs).collect()))
    }

    /// The runs of a closed page; none if it is gone.
    fn runs_of(&self, id: PartitionId, page: &PageRef) -> Result<Vec<Run>, ErrorKind> {
        let key = SpillKey::index(id, page.first);
        let in_memory = self.page_in_memory(&self.state.read(), &key);
        let runs = match in_memory {
            Some(runs) => Some(runs),
            None => self.load_page(&key)?,
        };
        Ok(runs.map_or_else(Vec::new, |runs| runs.to_vec()))
    }

    /// The first record from `from` on that `wanted(timestamp, offset)` accepts. Blocking.
    fn scan(
        &self,
        id: PartitionId,
        run: &Run,
        from: Offset,
        mut wanted: impl FnMut(i64, Offset) -> bool,
    ) -> Result<Option<Stamped>, ErrorKind> {
        let found = self.scan_run(id, run, from, &mut wanted);
        found.map_err(|error| self.damaged(id, run.base, error))
    }

    fn scan_run(
        &self,
        id: PartitionId,
        run: &Run,
        from: Offset,
        wanted: &mut impl FnMut(i64, Offset) -> bool,
    ) -> Result<Option<Stamped>, ErrorKind> {
        let piece = Piece { run: *run, epoch: LeaderEpoch::UNKNOWN };
        let got = self.fetch(id, &piece)?;
        let mut rest = if run.kind == RunKind::Reference { rebuild(&got.bytes, run)? } else { got.bytes };
        let mut base = run.base;
        while !rest.is_empty() {
            let (batch, next) = split(&mut rest, base)?;
            if got.cold {
                verify_crc(&batch).map_err(|_| ErrorKind::CorruptBatch)?;
            }
            if next > from
                && let Some(found) = scan_batch(&batch, base, from, wanted)?
            {
                return Ok(Some(found));
            }
            base = next;
        }
        Ok(None)
    }

    fn answer(&self, id: PartitionId, found: Stamped) -> Result<FoundOffset, ErrorKind> {
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

/// Takes the batch at the front, whose base offset is `base`, and gives the offset behind it.
fn split(rest: &mut Bytes, base: Offset) -> Result<(Bytes, Offset), ErrorKind> {
    let header = BatchHeader::parse(rest).map_err(|_| ErrorKind::CorruptBatch)?;
    if header.total_len() > rest.len() {
        return Err(ErrorKind::CorruptBatch);
    }
    let next = base.checked_add(header.last_offset_delta as u32 + 1).ok_or(ErrorKind::CorruptBatch)?;
    Ok((rest.split_to(header.total_len()), next))
}

fn scan_batch(
    batch: &[u8],
    base: Offset,
    from: Offset,
    wanted: &mut impl FnMut(i64, Offset) -> bool,
) -> Result<Option<Stamped>, ErrorKind> {
    let records = records(batch, RECORDS_MAX).map_err(|_| ErrorKind::CorruptBatch)?;
    let stored = records.header().base_offset.0;
    for record in &records {
        let record = record.map_err(|_| ErrorKind::CorruptBatch)?;
        let offset = Offset(base.0 + (record.offset.0 - stored));
        if offset >= from && wanted(record.timestamp, offset) {
            return Ok(Some(Stamped { timestamp: record.timestamp, offset: Reverse(offset) }));
        }
    }
    Ok(None)
}

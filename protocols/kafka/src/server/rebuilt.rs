//! Batches that Kafka's consumers cannot be given as they are stored: those that another front end built, and those of a queue that is done
//! with some of their records.
//!
//! A rebuilt batch covers the same offsets as the stored one. Records that are settled are left out, as after compaction; one without any
//! left still says how far a reader gets.

use std::ops::Range;
use std::sync::Arc;

use bytes::{Buf, Bytes};
use sabir_broker::{Broker, Slice};
use sabir_model::batch::{
    BatchBuilder, BatchError, BatchHeader, Compression, RecordView, SMALL_LIMIT, patch_leader_epoch,
    records_paced, split,
};
use sabir_model::{FrontendNo, LeaderEpoch, Offset};
use sabir_net::{JobCost, JobSize, Workers};

use crate::converter::{NativeRecord, from_message};

/// Bytes that the records of a batch may decompress to, and that it may take rebuilt.
pub(super) const MOST_RECORDS: usize = 512 << 20;

/// Bytes that a batch has decompressed, and rebuilt, where that is done on the connection's thread; and those that it has compressed.
const INLINE: usize = 64 << 10;
const INLINE_COMPRESSED: usize = 16 << 10;
/// It is tried within these limits one after the other, as far as they are below what may be given: nearly all are done with little memory.
const LOWER_LIMITS: [usize; 2] = [SMALL_LIMIT, MEDIUM_LIMIT];
const MEDIUM_LIMIT: usize = 16 << 20;
const LARGE_LIMIT: usize = 128 << 20;
/// Records, and bytes of them, between two pauses of a worker.
const PAUSE_RECORDS: usize = 256;
const PAUSE_BYTES: usize = 256 << 10;

/// Whether a slice cannot be given as it is: `settled` are ranges in order.
pub(super) fn is_needed(slice: &Slice, settled: &[Range<Offset>]) -> bool {
    slice.origin != FrontendNo::NONE || any_in(settled, slice.base_offset..slice.next_offset)
}

/// The batches of a slice one by one, rebuilt where they must be; by the workers, where that takes long.
///
/// A batch that cannot be understood is given as it is: its reader says what is wrong with it.
pub(super) struct Rebuilt {
    with: Rebuilder,
    workers: Workers,
    rest: Bytes,
    /// Bytes within which the next batch is known not to fit.
    tried: usize,
}

/// The next batch cannot be given, and is the next one still.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NotGiven {
    /// It takes more than there is room for.
    NoRoom,
    /// Rebuilding it has panicked.
    Failed,
}

impl Rebuilt {
    pub(super) fn new(
        broker: &Broker,
        workers: &Workers,
        slice: &Slice,
        settled: &Arc<[Range<Offset>]>,
    ) -> Self {
        let with = Rebuilder { broker: broker.clone(), origin: slice.origin, settled: settled.clone() };
        Self { with, workers: workers.clone(), rest: slice.joined(), tried: 0 }
    }

    /// Whether no batch is left.
    pub(super) fn is_done(&self) -> bool {
        self.rest.is_empty()
    }

    /// The offset that the next batch begins with.
    pub(super) fn offset(&self) -> Option<Offset> {
        split(&self.rest).next()?.ok().map(|(header, _)| header.base_offset)
    }

    /// The next batch; `None` behind the last.
    ///
    /// # Errors
    /// It, or its records decompressed, take more than `most` bytes; or it could not be rebuilt.
    pub(super) async fn next(&mut self, most: usize) -> Result<Option<Bytes>, NotGiven> {
        let (header, len) = match split(&self.rest).next() {
            Some(Ok((header, batch))) => (header, batch.len()),
            Some(Err(_)) => return Ok(Some(std::mem::take(&mut self.rest))),
            None => return Ok(None),
        };
        let stored = self.rest.slice(..len);
        let given =
            if self.with.is_needed(&header) { self.rebuild(&header, stored, most).await? } else { stored };
        if given.len() > most {
            return Err(NotGiven::NoRoom);
        }
        self.rest.advance(len);
        self.tried = 0;
        Ok(Some(given))
    }

    async fn rebuild(&mut self, header: &BatchHeader, stored: Bytes, most: usize) -> Result<Bytes, NotGiven> {
        let tried = self.tried;
        for limit in limits(header, stored.len(), most.min(MOST_RECORDS)).filter(|limit| *limit > tried) {
            let rebuilt = if limit <= INLINE {
                self.with.rebuild(header, &stored, limit, &mut || {})
            } else {
                let (with, header, stored) = (self.with.clone(), *header, stored.clone());
                let work = self.workers.run(cost(limit), move |turn| {
                    with.rebuild(&header, &stored, limit, &mut || turn.pause())
                });
                work.await.ok_or(NotGiven::Failed)?
            };
            match rebuilt {
                Err(BatchError::TooLarge { .. }) => self.tried = limit,
                rebuilt => return Ok(rebuilt.unwrap_or(stored)),
            }
        }
        Err(NotGiven::NoRoom)
    }
}

/// The limits within which a batch of so many bytes is tried to be rebuilt, one after the other.
fn limits(header: &BatchHeader, len: usize, most: usize) -> impl Iterator<Item = usize> {
    let is_compressed = header.compression() != Ok(Compression::None);
    let inline = Some(INLINE.min(most)).filter(|_| !is_compressed || len <= INLINE_COMPRESSED);
    let lower = inline.into_iter().chain(LOWER_LIMITS.into_iter().filter(move |lower| *lower < most));
    // Uncompressed it is known what it takes at the least.
    let least = if is_compressed { 0 } else { len };
    let last = Some(most).filter(|most| inline != Some(*most));
    lower.filter(move |lower| *lower >= least).chain(last)
}

/// What a worker takes: the records, what becomes of them, and room for that to grow.
fn cost(limit: usize) -> JobCost {
    let size = if limit <= SMALL_LIMIT {
        JobSize::Small
    } else if limit <= MEDIUM_LIMIT {
        JobSize::Medium
    } else if limit <= LARGE_LIMIT {
        JobSize::Large
    } else {
        JobSize::Slow
    };
    JobCost { bytes: 3 * limit, size }
}

/// How batches are rebuilt.
#[derive(Clone)]
struct Rebuilder {
    broker: Broker,
    origin: FrontendNo,
    settled: Arc<[Range<Offset>]>,
}

impl Rebuilder {
    /// Whether a batch cannot be given as it is.
    fn is_needed(&self, header: &BatchHeader) -> bool {
        self.origin != FrontendNo::NONE || !self.settled_of(header).is_empty()
    }

    fn settled_of(&self, header: &BatchHeader) -> &[Range<Offset>] {
        overlapping(&self.settled, &(header.base_offset..behind(header.last_offset())))
    }

    /// The batch, whose records and which take no more than `limit` bytes. `pause` is called now and then.
    fn rebuild(
        &self,
        header: &BatchHeader,
        stored: &[u8],
        limit: usize,
        pause: &mut dyn FnMut(),
    ) -> Result<Bytes, BatchError> {
        let settled = self.settled_of(header);
        let records = records_paced(stored, limit, pause)?;
        let (id, epoch, sequence) = (header.producer_id, header.producer_epoch, header.base_sequence);
        let mut builder = BatchBuilder::new(Compression::None)
            .base_offset(header.base_offset)
            .producer(id, epoch, sequence);
        let (mut walked, mut pause_at) = (0, PAUSE_BYTES);
        for record in &records {
            let record = record?;
            if !is_in(settled, record.offset) {
                let delta = (record.offset.0 - header.base_offset.0) as i32;
                push(&mut builder, &self.broker, self.origin, delta, &record);
            }
            if builder.bytes() > limit {
                return Err(BatchError::TooLarge { limit });
            }
            walked += 1;
            if walked % PAUSE_RECORDS == 0 || builder.bytes() >= pause_at {
                pause_at = builder.bytes() + PAUSE_BYTES;
                pause();
            }
        }
        builder.cover(header.last_offset_delta);
        Ok(of_epoch(builder.build(), header.leader_epoch))
    }
}

fn of_epoch(batch: Bytes, epoch: LeaderEpoch) -> Bytes {
    let mut batch = Vec::from(batch);
    patch_leader_epoch(&mut batch, epoch);
    batch.into()
}

/// Adds a record as Kafka's consumers know it. One of a front end that this server does not know goes as it is.
fn push(
    builder: &mut BatchBuilder,
    broker: &Broker,
    origin: FrontendNo,
    delta: i32,
    record: &RecordView<'_>,
) {
    let foreign = origin != FrontendNo::NONE;
    match foreign.then(|| broker.to_message(origin, record)).flatten() {
        Some(message) => {
            let NativeRecord { key, value, headers, timestamp_ms } = from_message(&message);
            let headers: Vec<_> =
                headers.iter().map(|(name, value)| (name.as_bytes(), value.as_deref())).collect();
            builder.push_at(delta, timestamp_ms, key.as_deref(), value.as_deref(), &headers);
        }
        None => {
            let headers: Vec<_> = record.headers.map(|header| (header.key, header.value)).collect();
            builder.push_at(delta, record.timestamp, record.key, record.value, &headers);
        }
    }
}

/// Those of the ranges, which are in order, that have something in common with `offsets`.
fn overlapping<'a>(ranges: &'a [Range<Offset>], offsets: &Range<Offset>) -> &'a [Range<Offset>] {
    let from = ranges.partition_point(|range| range.end <= offsets.start);
    let to = ranges.partition_point(|range| range.start < offsets.end);
    &ranges[from.min(to)..to]
}

fn behind(offset: Offset) -> Offset {
    Offset(offset.0.saturating_add(1))
}

fn any_in(ranges: &[Range<Offset>], offsets: Range<Offset>) -> bool {
    !overlapping(ranges, &offsets).is_empty()
}

fn is_in(ranges: &[Range<Offset>], offset: Offset) -> bool {
    any_in(ranges, offset..behind(offset))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(range: Range<i64>) -> Range<Offset> {
        Offset(range.start)..Offset(range.end)
    }

    #[test]
    fn nearly_all_are_tried_with_little_memory_first() {
        let of = |codec, len, most| {
            let mut builder = BatchBuilder::new(codec);
            builder.push(1, None, None, &[]);
            let header = BatchHeader::parse(&builder.build()).unwrap();
            limits(&header, len, most).collect::<Vec<_>>()
        };
        for codec in Compression::ALL {
            assert_eq!(of(codec, 100, 100), [100], "{codec}");
            assert_eq!(of(codec, 100, 100 << 20), [INLINE, SMALL_LIMIT, MEDIUM_LIMIT, 100 << 20], "{codec}");
        }
        assert_eq!(of(Compression::Zstd, 1 << 20, 1 << 20), [1 << 20]);
        assert_eq!(of(Compression::Zstd, 2 << 20, 100 << 20), [SMALL_LIMIT, MEDIUM_LIMIT, 100 << 20]);
        assert_eq!(of(Compression::None, INLINE + 1, 2 << 20), [SMALL_LIMIT, 2 << 20]);
        assert_eq!(of(Compression::None, 2 << 20, 100 << 20), [MEDIUM_LIMIT, 100 << 20]);
    }

    #[test]
    fn ranges_in_order_are_searched() {
        let ranges = [range(2..4), range(7..8)];
        assert_eq!(overlapping(&ranges, &range(0..2)), &[]);
        assert_eq!(overlapping(&ranges, &range(3..7)), &ranges[..1]);
        assert_eq!(overlapping(&ranges, &range(0..9)), &ranges);
        assert_eq!(overlapping(&ranges, &range(4..7)), &[]);
        let in_them: Vec<i64> = (0..9).filter(|at| is_in(&ranges, Offset(*at))).collect();
        assert_eq!(in_them, [2, 3, 7]);
    }
}

//! Batches that Kafka's consumers cannot be given as they are stored: those that another front end built, and those of a queue that is done
//! with some of their records.
//!
//! A rebuilt batch covers the same offsets as the stored one. Records that are settled are left out, as after compaction; one without any
//! left still says how far a reader gets.

use std::ops::Range;

use bytes::{Buf, Bytes};
use sabir_broker::{Broker, Slice};
use sabir_model::batch::{
    BatchBuilder, BatchError, BatchHeader, Compression, RecordView, patch_leader_epoch, records, split,
};
use sabir_model::{FrontendNo, LeaderEpoch, Offset};

use crate::converter::{NativeRecord, from_message};

/// Bytes that the records of a batch may decompress to.
pub(super) const MOST_RECORDS: usize = 512 << 20;

/// Whether a slice cannot be given as it is: `settled` are ranges in order.
pub(super) fn is_needed(slice: &Slice, settled: &[Range<Offset>]) -> bool {
    slice.origin != FrontendNo::NONE || any_in(settled, slice.base_offset..slice.next_offset)
}

/// The batches of a slice one by one, rebuilt where they must be.
///
/// A batch that cannot be understood is given as it is: its reader says what is wrong with it.
pub(super) struct Rebuilt<'a> {
    broker: &'a Broker,
    origin: FrontendNo,
    settled: &'a [Range<Offset>],
    rest: Bytes,
}

/// The records of the next batch decompress to more than there is room for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NoRoom;

impl<'a> Rebuilt<'a> {
    pub(super) fn new(broker: &'a Broker, slice: &Slice, settled: &'a [Range<Offset>]) -> Self {
        Self { broker, origin: slice.origin, settled, rest: slice.joined() }
    }

    /// Whether no batch is left.
    pub(super) fn is_done(&self) -> bool {
        self.rest.is_empty()
    }

    /// The next batch; `None` behind the last. It may be larger than `most` bytes by what its records take as Kafka's.
    ///
    /// # Errors
    /// Its records take more than `most` bytes, and it is the next one still.
    pub(super) fn next(&mut self, most: usize) -> Result<Option<Bytes>, NoRoom> {
        let (header, len) = match split(&self.rest).next() {
            Some(Ok((header, batch))) => (header, batch.len()),
            Some(Err(_)) => return Ok(Some(std::mem::take(&mut self.rest))),
            None => return Ok(None),
        };
        let stored = self.rest.slice(..len);
        let most = most.min(MOST_RECORDS);
        let rebuilt = match rebuild(self.broker, self.origin, &header, &stored, self.settled, most) {
            Err(BatchError::TooLarge { .. }) if most < MOST_RECORDS => return Err(NoRoom),
            rebuilt => rebuilt.ok().flatten(),
        };
        self.rest.advance(len);
        Ok(Some(rebuilt.unwrap_or(stored)))
    }
}

/// `None` if it can be given as it is.
fn rebuild(
    broker: &Broker,
    origin: FrontendNo,
    header: &BatchHeader,
    bytes: &[u8],
    settled: &[Range<Offset>],
    most: usize,
) -> Result<Option<Bytes>, BatchError> {
    let covered = header.base_offset..behind(header.last_offset());
    let settled = overlapping(settled, &covered);
    if origin == FrontendNo::NONE && settled.is_empty() {
        return Ok(None);
    }
    let records = records(bytes, most)?;
    let (id, epoch, sequence) = (header.producer_id, header.producer_epoch, header.base_sequence);
    let mut builder =
        BatchBuilder::new(Compression::None).base_offset(header.base_offset).producer(id, epoch, sequence);
    for record in &records {
        let record = record?;
        if !is_in(settled, record.offset) {
            let delta = (record.offset.0 - header.base_offset.0) as i32;
            push(&mut builder, broker, origin, delta, &record);
        }
    }
    builder.cover(header.last_offset_delta);
    Ok(Some(of_epoch(builder.build(), header.leader_epoch)))
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

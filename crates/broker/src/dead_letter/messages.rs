//! Reading what waits.

use std::ops::Range;

use sabir_delivery::policy::DeathReason;
use sabir_model::batch::{RecordView, records, split};
use sabir_model::{FrontendNo, Offset, PartitionId, ReadError};

use crate::read::{ReadSpec, Slice};
use crate::relay::RECORDS_MAX;
use crate::shard::Shard;

/// Bytes read at a time: for so many a message, within these bounds.
const READ_EACH: u64 = 2048;
const READ_LEAST: u64 = 16 << 10;
const READ_MOST: u64 = 256 << 10;

/// Whether reading goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flow {
    On,
    /// This message was not taken, and no later one is wanted.
    Stop,
}

/// Messages that wait, in a row, all for one reason.
pub(super) type WaitingRun = (Range<u64>, DeathReason);

/// A message that waits.
pub(super) struct WaitingMessage<'a> {
    pub(super) offset: u64,
    pub(super) reason: DeathReason,
    pub(super) found: Found<'a>,
}

/// What is found where a message stands.
#[derive(Clone, Copy)]
pub(super) enum Found<'a> {
    /// A record, and the front end that wrote it.
    Record(FrontendNo, &'a RecordView<'a>),
    /// Nothing any more.
    Gone,
    /// What cannot be read: the disk errs, or it is damaged.
    Unreadable,
}

/// Gives the messages of a queue, in their order.
///
/// # Errors
/// None of them can be read now.
pub(super) fn each_message(
    shard: &Shard,
    queue: PartitionId,
    waiting: &[WaitingRun],
    mut each: impl FnMut(&WaitingMessage<'_>) -> Flow,
) -> Result<(), ReadError> {
    for (messages, reason) in waiting {
        let mut reading = Reading { reason: *reason, at: messages.start, end: messages.end };
        while reading.at < reading.end {
            if reading.read(shard, queue, &mut each)? == Flow::Stop {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// Reads a run from one message on.
struct Reading {
    reason: DeathReason,
    at: u64,
    end: u64,
}

impl Reading {
    fn read(
        &mut self,
        shard: &Shard,
        queue: PartitionId,
        each: &mut impl FnMut(&WaitingMessage<'_>) -> Flow,
    ) -> Result<Flow, ReadError> {
        let most = (self.end - self.at).saturating_mul(READ_EACH).clamp(READ_LEAST, READ_MOST) as usize;
        let from = Offset(i64::try_from(self.at).expect("offsets count from 0"));
        let spec = ReadSpec { partition: queue, from, max_bytes: most, min_one: true };
        match shard.read_blocking(&spec) {
            Ok(fetched) if fetched.slices.is_empty() => Ok(self.skip_to(self.end, Found::Gone, each)),
            Ok(fetched) => {
                for slice in &fetched.slices {
                    if self.take(shard, queue, slice, each) == Flow::Stop {
                        return Ok(Flow::Stop);
                    }
                }
                Ok(Flow::On)
            }
            Err(ReadError::OutOfRange { .. }) => Ok(self.skip_to(self.at + 1, Found::Gone, each)),
            Err(ReadError::Corrupt | ReadError::Storage) if !shard.is_stopped() => {
                // With all that lies in one batch: one read says it of all of them.
                let end = u64::try_from(shard.unreadable_end(queue, from).0).unwrap_or(0);
                Ok(self.skip_to(end.max(self.at + 1), Found::Unreadable, each))
            }
            Err(error) => Err(error),
        }
    }

    /// Of what lies before an offset no record was found.
    fn skip_to(
        &mut self,
        to: u64,
        found: Found<'_>,
        each: &mut impl FnMut(&WaitingMessage<'_>) -> Flow,
    ) -> Flow {
        while self.at < to.min(self.end) {
            let message = WaitingMessage { offset: self.at, reason: self.reason, found };
            if each(&message) == Flow::Stop {
                return Flow::Stop;
            }
            self.at += 1;
        }
        Flow::On
    }

    /// Of a batch that was read, records that are not found are damaged: queues' batches have no gaps.
    fn take(
        &mut self,
        shard: &Shard,
        queue: PartitionId,
        slice: &Slice,
        each: &mut impl FnMut(&WaitingMessage<'_>) -> Flow,
    ) -> Flow {
        let bytes = slice.joined();
        for batch in split(&bytes).flatten() {
            let Ok(found) = records(batch.1, RECORDS_MAX) else { continue };
            for record in found.iter().flatten() {
                let offset = u64::try_from(record.offset.0).unwrap_or(0);
                if offset < self.at || offset >= self.end {
                    continue;
                }
                if self.skip_to(offset, Found::Unreadable, each) == Flow::Stop {
                    return Flow::Stop;
                }
                let found = Found::Record(slice.origin, &record);
                if each(&WaitingMessage { offset, reason: self.reason, found }) == Flow::Stop {
                    return Flow::Stop;
                }
                self.at += 1;
            }
        }
        let next = u64::try_from(slice.next_offset.0).unwrap_or(0);
        if self.at < next.min(self.end) {
            let at = Offset(i64::try_from(self.at).expect("offsets count from 0"));
            shard.damaged(queue, at, ReadError::Corrupt);
        }
        self.skip_to(next, Found::Unreadable, each)
    }
}

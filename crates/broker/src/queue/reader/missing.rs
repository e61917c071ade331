//! Why messages that the broker names are not found by a read.

use std::time::Instant;

use sabir_model::{Offset, ReadError};

use super::{at, offset_of};
use crate::broker::Broker;
use crate::read::{Fetched, READ_FOR, ReadGrant, ReadSpec, ReadTarget, UNHELD};
use crate::shard::Shard;

/// Why messages were not read, and the offset behind those that this holds for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Missing {
    /// They are there no more.
    Gone { end: u64 },
    /// They are damaged, or the disk errs.
    Unreadable { end: u64, error: ReadError },
    /// No message of the queue can be read.
    Failed(ReadError),
}

/// Reads whole batches from the one with an offset on, at least that one. It has `grant`, or else memory of the node's if it is large.
pub(super) async fn read(
    broker: &Broker,
    target: ReadTarget,
    from: u64,
    bytes: usize,
    grant: Option<Box<dyn ReadGrant>>,
) -> Result<Fetched, Missing> {
    let first = offset_of(from);
    let read = broker.read_own(target, spec(target, from, bytes), grant).await;
    match judge(read.map_err(|about| about.error), first) {
        Ok(fetched) => Ok(fetched),
        Err(Cause::Known(missing)) => Err(missing),
        Err(Cause::Together(error)) => Err(together(error, broker.unreadable_end(target, first).await)),
    }
}

/// The same on a thread of its own. Blocking.
///
/// # Errors
/// The shard gives nothing now, or the queue is gone.
pub(super) fn read_blocking(
    shard: &Shard,
    target: ReadTarget,
    from: u64,
    bytes: usize,
) -> Result<Result<Fetched, Missing>, ReadError> {
    let (partition, first) = (target.partition, offset_of(from));
    let read = shard.read_blocking(&spec(target, from, bytes));
    match read {
        Err(error) if shard.is_stopped() || error == ReadError::UnknownPartition => return Err(error),
        _ => {}
    }
    Ok(match judge(read, first) {
        Ok(fetched) => Ok(fetched),
        Err(Cause::Known(Missing::Failed(error))) => return Err(error),
        Err(Cause::Known(missing)) => Err(missing),
        Err(Cause::Together(error)) => Err(together(error, shard.unreadable_end(partition, first))),
    })
}

fn spec(target: ReadTarget, from: u64, max_bytes: usize) -> ReadSpec {
    let (partition, from, until) = (target.partition, offset_of(from), Instant::now() + READ_FOR);
    ReadSpec { partition, from, max_bytes, min_one: true, until, unheld: UNHELD, owns: true }
}

/// What is known of messages that were not read.
enum Cause {
    Known(Missing),
    /// It holds for all that is stored together with the first of them: one read says it of all of these.
    Together(ReadError),
}

fn together(error: ReadError, end: Offset) -> Missing {
    match error {
        ReadError::Deleted => Missing::Gone { end: at(end) },
        error => Missing::Unreadable { end: at(end), error },
    }
}

fn judge(read: Result<Fetched, ReadError>, first: Offset) -> Result<Fetched, Cause> {
    match read {
        Ok(fetched) if !fetched.slices.is_empty() => Ok(fetched),
        // No batch stands where a message was named. It may yet come to be found: it is not said to be gone.
        Ok(_) => Err(Cause::Known(Missing::Unreadable { end: at(first) + 1, error: ReadError::Storage })),
        Err(ReadError::OutOfRange { start, .. }) if start > first => {
            Err(Cause::Known(Missing::Gone { end: at(start) }))
        }
        Err(ReadError::UnknownPartition) => Err(Cause::Known(Missing::Gone { end: u64::MAX })),
        Err(error @ (ReadError::Deleted | ReadError::Corrupt | ReadError::Storage)) => {
            Err(Cause::Together(error))
        }
        Err(error @ (ReadError::OutOfRange { .. } | ReadError::ShuttingDown)) => {
            Err(Cause::Known(Missing::Failed(error)))
        }
    }
}

//! Reading what waits.

use std::ops::Range;

use sabir_delivery::policy::DeathReason;
use sabir_model::{PartitionId, ReadError};

use crate::queue::reader::{self, QueueReader, StoredMessage};
use crate::read::ReadTarget;
use crate::shard::Shard;

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
    pub(super) found: FoundRecord<'a>,
}

/// What is found where a message stands.
#[derive(Clone, Copy)]
pub(super) enum FoundRecord<'a> {
    /// A record.
    Record(StoredMessage<'a>),
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
    let mut reader = QueueReader::of(ReadTarget { shard: shard.id, partition: queue });
    for (messages, reason) in waiting {
        let mut at = messages.start;
        while at < messages.end {
            let (found, end) = match reader.find_blocking(shard, at..messages.end)? {
                reader::Found::Message(message) => (FoundRecord::Record(message), at + 1),
                reader::Found::Gone => (FoundRecord::Gone, at + 1),
                reader::Found::Unreadable { end, .. } => (FoundRecord::Unreadable, end),
                reader::Found::Unread => (FoundRecord::Unreadable, at + 1),
            };
            for offset in at..end.min(messages.end) {
                if each(&WaitingMessage { offset, reason: *reason, found }) == Flow::Stop {
                    return Ok(());
                }
            }
            at = end;
        }
    }
    Ok(())
}

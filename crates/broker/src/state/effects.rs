//! What the applying of a front end's entry may do beside changing its own projection.

use std::ops::Range;

use bytes::Bytes;
use sabir_delivery::subscription::{OffsetRanges, Operation, RangesBuffer};
use sabir_model::{AppendError, Offset, PartitionId, Sequence, Term, TopicError};

use super::{At, Partitions, SubscriptionTable, TimerTable, follow_queues, subscription_of};
use crate::append::Appended;
use crate::entry::OfferedBatch;
use crate::stats::PartitionStats;

/// What of a shard the applying of a front end's entry may change beside its own projection.
pub(super) struct ShardParts<'a> {
    pub(super) partitions: &'a mut Partitions,
    pub(super) subscriptions: &'a mut SubscriptionTable,
    pub(super) timers: &'a mut TimerTable,
}

/// What an operation on a queue's messages came to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Delivered {
    /// How many messages it concerned; of an operation that names none, 1 if it did anything.
    pub concerned: u64,
    /// Those that went to an owner.
    pub acquired: Vec<Range<u64>>,
}

/// Why nothing is done to a queue's messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DeliveryRefused {
    /// The shard has no such partition, or it is no queue's.
    #[error("no such queue")]
    UnknownQueue,
    /// The shard does it by itself: as records are appended, and as a node starts.
    #[error("the shard does that by itself")]
    OfTheShard,
}

/// What the applying of an entry may use, and do in its shard: the block it is in, what came with it, and the records.
///
/// All of it is the same on every replica and in every replay.
pub struct Effects<'a> {
    shard: ShardParts<'a>,
    at: &'a At,
    seed: u64,
    batches: Vec<OfferedBatch>,
    /// Where the first of them begins in the block's content.
    offset: u32,
    appended: Vec<bool>,
    id: EntryId,
    later: bool,
    others: Vec<(EntryId, Bytes)>,
}

/// Names an entry of a shard whose answer comes from one behind it. A projection may keep it, in a map too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct EntryId {
    term: Term,
    block: Sequence,
    index: u32,
}

impl EntryId {
    /// Its stored form, which is of one length.
    pub fn to_bytes(self) -> [u8; 20] {
        let mut bytes = [0; 20];
        bytes[..8].copy_from_slice(&self.term.0.to_be_bytes());
        bytes[8..16].copy_from_slice(&self.block.0.to_be_bytes());
        bytes[16..].copy_from_slice(&self.index.to_be_bytes());
        bytes
    }

    /// The one that is stored so.
    pub fn from_bytes(bytes: [u8; 20]) -> Self {
        let number = |from: usize| u64::from_be_bytes(std::array::from_fn(|i| bytes[from + i]));
        let index = u32::from_be_bytes(std::array::from_fn(|i| bytes[16 + i]));
        Self { term: Term(number(0)), block: Sequence(number(8)), index }
    }

    pub(crate) fn term(self) -> Term {
        self.term
    }
}

/// What the applying of a front end's entry came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FrontendAnswer {
    pub(crate) bytes: Bytes,
    /// Which of its batches were appended, and are no duplicates.
    pub(crate) appended: Vec<bool>,
    /// Its name, if it is answered by an entry behind it, and `bytes` is nothing.
    pub(crate) later: Option<EntryId>,
    /// What it answers to entries before it.
    pub(crate) others: Vec<(EntryId, Bytes)>,
}

impl<'a> Effects<'a> {
    pub(super) fn new(
        shard: ShardParts<'a>,
        at: &'a At,
        seed: u64,
        batches: Vec<OfferedBatch>,
        (index, offset): (u32, u32),
    ) -> Self {
        let appended = vec![false; batches.len()];
        let id = EntryId { term: at.term, block: at.sequence, index };
        Self { shard, at, seed, batches, offset, appended, id, later: false, others: Vec::new() }
    }

    /// The block's time, in milliseconds since the epoch. It never falls from entry to entry.
    pub fn time_ms(&self) -> i64 {
        self.at.time_ms
    }

    /// The random number that the entry brought, or 0 if it asked for none.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// The block that the entry is in.
    pub fn block(&self) -> Sequence {
        self.at.sequence
    }

    /// How many batches the entry brought.
    pub fn batches(&self) -> usize {
        self.batches.len()
    }

    /// Appends a batch that the entry brought, counted from 0, to the partition that it was made for. One that is not appended is nowhere.
    ///
    /// # Errors
    /// [`AppendError::UnknownPartition`] if the partition was deleted meanwhile; what its producer's mark is refused with;
    /// [`AppendError::NoSuchBatch`] if there is no such batch, or it was appended already.
    pub fn append(&mut self, batch: usize) -> Result<Appended, AppendError> {
        let offered = self.batches.get(batch).filter(|_| !self.appended[batch]);
        let offered = offered.ok_or(AppendError::NoSuchBatch)?;
        let before: u32 = self.batches[..batch].iter().map(|batch| batch.len).sum();
        let payload = (self.offset + before, offered.len);
        let appended = self.shard.partitions.append(&offered.append, payload, self.at).first()?;
        self.appended[batch] = !appended.duplicate;
        Ok(appended)
    }

    /// What a partition of the shard keeps; `None` if it has none of that id.
    pub fn partition(&self, id: PartitionId) -> Option<PartitionStats> {
        let kept = self.shard.partitions.partition(id)?;
        Some(PartitionStats { start: kept.log_start, end: kept.next, bytes: kept.bytes })
    }

    /// Moves a partition's first offset up; -1 is behind its last record. Gives where it now is. Whether the client may do that the front end
    /// has judged.
    ///
    /// # Errors
    /// [`TopicError::Unknown`] if the shard has no such partition, [`TopicError::OffsetOutOfRange`], [`TopicError::QueuePartition`].
    pub fn move_log_start(&mut self, id: PartitionId, to: Offset) -> Result<Offset, TopicError> {
        self.shard.partitions.move_log_start(id, to)
    }

    /// Does something to the messages of a queue of the shard, those appended by this entry before among them. Whether the client may do
    /// that the front end has judged. What it returns until a later moment a timer of the shard makes ready then.
    ///
    /// # Errors
    /// See [`DeliveryRefused`]; nothing has changed then.
    pub fn delivery(
        &mut self,
        queue: PartitionId,
        operation: &Operation<'_>,
    ) -> Result<Delivered, DeliveryRefused> {
        if matches!(operation, Operation::Published { .. } | Operation::Started { .. }) {
            return Err(DeliveryRefused::OfTheShard);
        }
        follow_queues(&mut self.shard, self.at);
        let done = self.shard.subscriptions.operate(subscription_of(queue), operation, self.at.time_ms);
        let (concerned, acquired) = done.ok_or(DeliveryRefused::UnknownQueue)?;
        follow_queues(&mut self.shard, self.at);
        Ok(Delivered { concerned, acquired })
    }

    /// The same for all messages of a queue that are held as the operation says. Tells whether there were any.
    pub fn delivery_of_held(
        &mut self,
        queue: PartitionId,
        operation: impl FnOnce(OffsetRanges<'_>) -> Operation<'_>,
    ) -> bool {
        let Some(kept) = self.partition(queue) else { return false };
        let all = RangesBuffer::of(std::iter::once(kept.start.0 as u64..kept.end.0 as u64));
        self.delivery(queue, &operation(all.ranges())).is_ok_and(|done| done.concerned > 0)
    }

    /// Has the writer of this entry wait: what [`apply`](crate::projection::FrontendProjection::apply) gives is not its answer, which comes
    /// by [`answer`](Self::answer) from an entry behind it. The projection keeps the name until then, and the front end sees to it that some
    /// entry answers, be it after a while: nothing here bounds how long it may take.
    pub fn answer_later(&mut self) -> EntryId {
        self.later = true;
        self.id
    }

    /// Answers an entry that waits, once; one that [does not any more](Self::may_wait) is not answered. Whether its writer hears it is not
    /// known here.
    pub fn answer(&mut self, entry: EntryId, answer: impl Into<Bytes>) {
        if self.may_wait(entry) {
            self.others.push((entry, answer.into()));
        }
    }

    /// Whether the writer of an entry may still wait for its answer. A change of leaders, such as a start, ends all waiting: what is
    /// kept of entries from before it is to be forgotten.
    pub fn may_wait(&self, entry: EntryId) -> bool {
        entry.term == self.at.term
    }

    pub(super) fn into_answer(self, bytes: Bytes) -> FrontendAnswer {
        let later = self.later.then_some(self.id);
        FrontendAnswer { bytes, appended: self.appended, later, others: self.others }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entrys_name_keeps_its_stored_form() {
        let id = EntryId { term: Term(1), block: Sequence(0x0203), index: 4 };
        let bytes = [0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 2, 3, 0, 0, 0, 4];
        assert_eq!(id.to_bytes(), bytes);
        assert_eq!(EntryId::from_bytes(bytes), id);
    }
}

//! What the applying of a front end's entry may do beside changing its own projection.

use std::ops::Range;

use bytes::Bytes;
use sabir_delivery::subscription::{OffsetRanges, Operation, RangesBuffer, SubscriptionNo};
use sabir_model::{AppendError, FrontendNo, Offset, PartitionId, Sequence, Term, TopicError};

use super::{
    At, Partitions, SubscriptionTable, SubscriptionView, TimerTable, follow_queues, is_named, partition_of,
};
use crate::append::Appended;
use crate::entry::{OfferedBatch, SubscribeError, SubscriptionMade, SubscriptionSettings, SubscriptionStart};
use crate::stats::PartitionStats;

/// What of a shard the applying of a front end's entry may change beside its own projection.
pub(super) struct ShardParts<'a> {
    pub(super) partitions: &'a mut Partitions,
    pub(super) subscriptions: &'a mut SubscriptionTable,
    pub(super) timers: &'a mut TimerTable,
}

impl ShardParts<'_> {
    /// A topic's partition has its part of a subscription. That of a queue is the queue's own.
    pub(super) fn subscribe(
        &mut self,
        body: &SubscriptionMade,
        owner: FrontendNo,
        at: &At,
    ) -> Result<SubscriptionNo, SubscribeError> {
        let partition = self.partitions.partition(body.partition);
        let partition = partition.filter(|partition| partition.settings.queue.is_none());
        let partition = partition.ok_or(SubscribeError::Unknown)?;
        let kept = partition.log_start..partition.next;
        let number = self.subscriptions.subscribe(body, owner, kept, at)?;
        self.note_subscribed(body.partition);
        Ok(number)
    }

    /// A subscription of a partition was made or removed.
    pub(super) fn note_subscribed(&mut self, id: PartitionId) {
        self.partitions.note_subscribed(id, self.subscriptions.is_subscribed(id));
    }
}

/// What an operation on the messages of a subscription came to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Delivered {
    /// How many messages it concerned; of an operation that names none, 1 if it did anything.
    pub concerned: u64,
    /// Those that went to an owner.
    pub acquired: Vec<Range<u64>>,
}

/// Why nothing is done to a subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DeliveryRefused {
    /// The shard has no such subscription; of a queue: no such queue.
    #[error("there is no such queue or subscription")]
    Unknown,
    /// An entry of another front end made it.
    #[error("the subscription is another front end's")]
    OtherFrontend,
    /// No entry of a front end removes it: clients made it, or it is a queue's own.
    #[error("the subscription is no front end's")]
    NotOwned,
    /// The shard does it by itself: as records are appended, as timers fire, and as a node starts.
    #[error("the shard does that by itself")]
    OfTheShard,
}

/// Why an entry makes no subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotSubscribed {
    /// The shard has no such partition.
    #[error("there is no such partition")]
    UnknownPartition,
    /// A queue has one subscription, which is its own.
    #[error("the topic is a queue, which has no subscriptions but its own")]
    IsQueue,
    /// There is one of that name, be it this projection's or not.
    #[error("there is a subscription of that name")]
    Exists(SubscriptionNo),
    /// The name is empty, or too long.
    #[error("the name of a subscription has 1 to {} bytes", SubscriptionSettings::LONGEST_NAME)]
    Name,
    /// Where its dead letters go is too long a name.
    #[error("the exchange and the routing key of dead letters have at most 1,024 bytes each")]
    DeadLetter,
    /// The partition has as many as it may have.
    #[error("the partition has as many subscriptions as it may have")]
    TooMany,
}

/// What the applying of an entry may use, and do in its shard: the block it is in, what came with it, and the records.
///
/// All of it is the same on every replica and in every replay.
pub struct Effects<'a> {
    /// The projection that the entry is told.
    own: FrontendNo,
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
        own: FrontendNo,
        shard: ShardParts<'a>,
        at: &'a At,
        seed: u64,
        batches: Vec<OfferedBatch>,
        (index, offset): (u32, u32),
    ) -> Self {
        let appended = vec![false; batches.len()];
        let id = EntryId { term: at.term, block: at.sequence, index };
        Self { own, shard, at, seed, batches, offset, appended, id, later: false, others: Vec::new() }
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
        self.shard.partitions.partition(id).map(PartitionStats::of)
    }

    /// Moves a partition's first offset up; -1 is behind its last record. Gives where it now is. No caller is known here: before it writes the
    /// entry, the front end has asked [`Broker::may_empty`](crate::Broker::may_empty) for its client.
    ///
    /// # Errors
    /// [`TopicError::Unknown`] if the shard has no such partition, [`TopicError::OffsetOutOfRange`], [`TopicError::QueuePartition`].
    pub fn move_log_start(&mut self, id: PartitionId, to: Offset) -> Result<Offset, TopicError> {
        self.shard.partitions.move_log_start(id, to)
    }

    /// The subscription of that name that a topic has in a partition, as all that this entry did left it.
    pub fn subscription(&mut self, partition: PartitionId, name: &str) -> Option<SubscriptionView<'_>> {
        self.follow();
        let (number, _) = self.shard.subscriptions.find(partition, name)?;
        self.shard.subscriptions.view(number)
    }

    /// All that a topic has in a partition, in no order that means anything.
    pub fn subscriptions(&mut self, partition: PartitionId) -> impl Iterator<Item = SubscriptionView<'_>> {
        self.follow();
        self.shard.subscriptions.views(partition)
    }

    /// The subscription of a number, a [queue's own](crate::projection::delivery::of_queue) too.
    pub fn messages(&mut self, of: SubscriptionNo) -> Option<SubscriptionView<'_>> {
        self.follow();
        self.shard.subscriptions.view(of)
    }

    /// Makes a subscription of a topic in one of its partitions, all records of which are its messages from `start` on, those that this entry
    /// appended before among them. It is this projection's: entries of another one neither remove it nor touch its messages, and clients
    /// do not remove it either. It stays until it is [removed](Self::unsubscribe), or goes with its partition, of which
    /// [`partition_gone`](crate::projection::FrontendProjection::partition_gone) tells; the operator may remove it, too. Sessions
    /// may consume it, by its name. Whether the client may use the topic the front end has asked before
    /// ([`Broker::may_use`](crate::Broker::may_use)), and whether the data directory's level has that
    /// ([`Broker::has_subscriptions`](crate::Broker::has_subscriptions)).
    ///
    /// # Errors
    /// See [`NotSubscribed`]; nothing has changed then.
    pub fn subscribe(
        &mut self,
        partition: PartitionId,
        name: &str,
        start: SubscriptionStart,
        settings: SubscriptionSettings,
    ) -> Result<SubscriptionNo, NotSubscribed> {
        if !SubscriptionSettings::is_name(name) {
            return Err(NotSubscribed::Name);
        }
        if settings.dead_letter.as_ref().is_some_and(|to| !to.fits()) {
            return Err(NotSubscribed::DeadLetter);
        }
        self.follow();
        let known = self.shard.partitions.partition(partition).ok_or(NotSubscribed::UnknownPartition)?;
        if known.settings.queue.is_some() {
            return Err(NotSubscribed::IsQueue);
        }
        if let Some((number, _)) = self.shard.subscriptions.find(partition, name) {
            return Err(NotSubscribed::Exists(number));
        }
        // How many its topic has matters where some partitions lack a part, and a front end makes each by itself.
        let body = SubscriptionMade { partition, partitions: 1, name: name.into(), start, settings };
        self.shard.subscribe(&body, self.own, self.at).map_err(|_| NotSubscribed::TooMany)
    }

    /// Removes a subscription that an entry of this projection made: its consumers are told, and where it was is forgotten.
    ///
    /// # Errors
    /// [`DeliveryRefused::Unknown`], [`DeliveryRefused::OtherFrontend`], [`DeliveryRefused::NotOwned`].
    pub fn unsubscribe(&mut self, subscription: SubscriptionNo) -> Result<(), DeliveryRefused> {
        self.follow();
        if self.may_use(subscription)? == FrontendNo::NONE {
            return Err(DeliveryRefused::NotOwned);
        }
        self.shard.subscriptions.forget(subscription);
        self.shard.note_subscribed(partition_of(subscription));
        Ok(())
    }

    /// Does something to the messages of a subscription of the shard, or a [queue's](crate::projection::delivery::of_queue), those appended by
    /// this entry before among them. No caller is known here: before it writes the entry, the front end has asked
    /// [`Broker::may_use`](crate::Broker::may_use) for its client, or, for what ends a queue (`SealedIfEmpty`),
    /// [`Broker::may_change`](crate::Broker::may_change). What it returns until a later moment a timer of the shard makes ready then.
    ///
    /// # Errors
    /// [`DeliveryRefused::Unknown`], [`DeliveryRefused::OtherFrontend`], [`DeliveryRefused::OfTheShard`]; nothing has changed then.
    pub fn delivery(
        &mut self,
        of: SubscriptionNo,
        operation: &Operation<'_>,
    ) -> Result<Delivered, DeliveryRefused> {
        let of_the_shard = match operation {
            Operation::Published { .. } | Operation::Started { .. } | Operation::Due { .. } => true,
            // It takes in all that its partition does.
            Operation::SealedIfEmpty => is_named(of),
            _ => false,
        };
        if of_the_shard {
            return Err(DeliveryRefused::OfTheShard);
        }
        self.follow();
        self.may_use(of)?;
        let done = self.shard.subscriptions.operate(of, operation, self.at.time_ms);
        let (concerned, acquired) = done.ok_or(DeliveryRefused::Unknown)?;
        self.follow();
        Ok(Delivered { concerned, acquired })
    }

    /// The same for all messages of a subscription that are held as the operation says. Tells how many there were.
    ///
    /// # Errors
    /// Those of [`delivery`](Self::delivery).
    pub fn delivery_of_held(
        &mut self,
        of: SubscriptionNo,
        operation: impl FnOnce(OffsetRanges<'_>) -> Operation<'_>,
    ) -> Result<u64, DeliveryRefused> {
        let all = self.messages(of).ok_or(DeliveryRefused::Unknown)?.offsets();
        let all = RangesBuffer::of(std::iter::once(all));
        self.delivery(of, &operation(all.ranges())).map(|done| done.concerned)
    }

    /// The owner of a subscription that this projection may use: itself, or none.
    fn may_use(&self, subscription: SubscriptionNo) -> Result<FrontendNo, DeliveryRefused> {
        let owner = self.shard.subscriptions.view(subscription).ok_or(DeliveryRefused::Unknown)?.owner();
        let may = owner == FrontendNo::NONE || owner == self.own;
        if may { Ok(owner) } else { Err(DeliveryRefused::OtherFrontend) }
    }

    /// Has subscriptions know what this entry did so far. What is behind them is not looked at again.
    fn follow(&mut self) {
        follow_queues(&mut self.shard, self.at);
        self.shard.subscriptions.begin_entry();
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

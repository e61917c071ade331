//! Which queue is meant, and why it cannot be used.

use sabir_delivery::dispatch::AttachRefused;
use sabir_delivery::subscription::SubscriptionNo;
use sabir_model::{ErrorAbout, PartitionId, ShardFailure, ShardId, Subject};

use crate::caller::Caller;
use crate::catalog::{Partition, Topic};
use crate::read::ReadTarget;
use crate::state::{is_named, subscription_of};

/// A queue that a caller may use, made from its topic; or what a subscription has of one partition of a topic, which is used like one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct QueueTarget {
    pub(super) shard: ShardId,
    pub(super) partition: PartitionId,
    /// Its number in the shard.
    pub(super) subscription: SubscriptionNo,
}

/// Why a queue is not used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QueueError {
    /// There is none.
    #[error("no such queue")]
    Unknown,
    /// The topic is kept for the front end that made it.
    #[error("no client uses an internal topic")]
    Internal,
    /// Another session has the queue for itself.
    #[error("the queue is exclusive to the connection that made it")]
    Locked,
    /// The topic is no queue.
    #[error("the topic is no queue")]
    NotAQueue,
    /// A front end keeps the topic's subscription, and alone moves and removes it.
    #[error(
        "a front end keeps the subscription for its clients: others consume it, and neither purge nor remove it"
    )]
    Owned,
    /// A consumer has the queue to itself.
    #[error("a consumer has exclusive access to the queue")]
    Exclusive,
    /// Exclusive access was asked for, and others are there.
    #[error("exclusive access was asked for, and the queue has other consumers")]
    InUse,
    /// The shard that the queue is in is not led here, or takes no entries.
    #[error(transparent)]
    Shard(#[from] ShardFailure),
}

impl QueueTarget {
    /// The queue of that topic, for the caller to use.
    ///
    /// # Errors
    /// [`QueueError::Unknown`] of a topic that the caller does not see, [`QueueError::Internal`] of one that it may not use,
    /// [`QueueError::NotAQueue`].
    pub fn new(caller: &Caller, topic: &Topic) -> Result<Self, ErrorAbout<QueueError>> {
        Self::of(caller, topic)
            .map_err(|error| ErrorAbout::new(error, Subject::Queue(topic.name.as_ref().into())))
    }

    pub(crate) fn of(caller: &Caller, topic: &Topic) -> Result<Self, QueueError> {
        caller.may_use(topic)?;
        // What is kept back goes elsewhere when its time comes, and to no consumer before.
        if topic.config.queue().is_none_or(|queue| queue.delays) {
            return Err(QueueError::NotAQueue);
        }
        let partition = topic.partition(0).ok_or(QueueError::Unknown)?;
        Ok(Self::of_subscription(partition, subscription_of(partition.id)))
    }

    pub(super) fn of_subscription(partition: &Partition, subscription: SubscriptionNo) -> Self {
        Self { shard: partition.shard, partition: partition.id, subscription }
    }

    /// Where its messages are read.
    pub fn read_target(&self) -> ReadTarget {
        ReadTarget { shard: self.shard, partition: self.partition }
    }

    /// Its subscription's number in its shard.
    pub(crate) fn subscription(&self) -> SubscriptionNo {
        self.subscription
    }

    /// Whether it is of a topic's subscription, and not a queue.
    pub(super) fn is_of_topic(&self) -> bool {
        is_named(self.subscription)
    }

    /// The shard that it is in.
    pub fn shard(&self) -> ShardId {
        self.shard
    }
}

impl From<AttachRefused> for QueueError {
    fn from(refused: AttachRefused) -> Self {
        match refused {
            AttachRefused::Exclusive => Self::Exclusive,
            AttachRefused::InUse => Self::InUse,
        }
    }
}

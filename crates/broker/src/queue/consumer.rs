//! Consumers, as a front end names them.

use sabir_delivery::dispatch::MemberNo;
use sabir_delivery::subscription::MessageOwner;
use sabir_model::ShardId;

use super::QueueTarget;

/// A session, or a part of one, that holds deliveries until they are settled or given back. No other one has its number in the life of the
/// process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct QueueOwner(pub(super) u64);

impl QueueOwner {
    /// As it is stored: a session of this run.
    pub(super) fn stored(self) -> MessageOwner {
        MessageOwner::Session(self.0)
    }
}

/// What a session is ready to take in one shard; several consumers may draw on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Demand {
    pub(super) shard: ShardId,
    pub(super) number: u64,
}

impl Demand {
    /// The shard that it is in.
    pub fn shard(&self) -> ShardId {
        self.shard
    }
}

/// What a consumer is to be like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConsumerSpec {
    /// What the session calls it: stands in all that is pushed for it.
    pub number: u64,
    /// The owner of what is delivered to it.
    pub owner: QueueOwner,
    /// What it draws on, of the queue's shard.
    pub demand: Demand,
    /// Those of a higher priority are served first.
    pub priority: i32,
    /// Whether it wants the queue to itself.
    pub exclusive: bool,
    /// Whether messages are settled when they are sent.
    pub settles: bool,
}

/// A consumer that is attached to a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct QueueConsumer {
    pub(super) target: QueueTarget,
    pub(super) member: MemberNo,
}

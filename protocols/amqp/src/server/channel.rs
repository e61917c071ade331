//! What a channel has, and what a consumer is.

use std::sync::Arc;

use rustc_hash::FxHashMap;
use sabir_broker::queue::{Demand, QueueConsumer, QueueOwner, QueueTarget};
use sabir_model::{ShardId, TopicId};

use super::confirms::Confirms;
use super::publish::ChannelId;
use super::replies::ReplyConsumer;
use super::transaction::Transaction;
use super::unacked::Unacked;

/// A channel that is open.
#[derive(Debug)]
pub(super) struct Channel {
    pub(super) id: ChannelId,
    /// The owner of what is delivered on it.
    pub(super) owner: QueueOwner,
    /// What is to be confirmed, where the client wants that.
    pub(super) confirms: Option<Confirms>,
    /// What is held until it is committed, where the client wants that.
    pub(super) transaction: Option<Transaction>,
    /// Its consumer of replies, if it has one.
    pub(super) replies: Option<ReplyConsumer>,
    /// Its consumers' numbers, by their tags.
    pub(super) consumers: FxHashMap<Box<str>, u64>,
    /// What was delivered and not settled.
    pub(super) unacked: Unacked,
    /// The tag of the last delivery.
    pub(super) last_tag: u64,
    /// How many unsettled messages each further consumer may have; 0 for any number.
    pub(super) prefetch: u16,
    /// How many all of its consumers may have together, where that is bounded.
    pub(super) together: Option<Together>,
    /// The queue that is meant where none is named.
    pub(super) last_queue: Option<Box<str>>,
    /// The queues of which something may have been delivered.
    pub(super) targets: FxHashMap<QueueTarget, TopicId>,
    /// How many of them there are when those that were deleted are looked for.
    full_at: usize,
}

/// Queues of a channel that are kept whether they are there or not.
const FEW_QUEUES: usize = 16;

impl Channel {
    pub(super) fn new(id: ChannelId, owner: QueueOwner) -> Self {
        Self {
            id,
            owner,
            confirms: None,
            transaction: None,
            replies: None,
            consumers: FxHashMap::default(),
            unacked: Unacked::default(),
            last_tag: 0,
            prefetch: 0,
            together: None,
            last_queue: None,
            targets: FxHashMap::default(),
            full_at: FEW_QUEUES,
        }
    }

    /// Notes a queue of which something may be delivered. Those that are not there any more are let go of from time to time.
    pub(super) fn add_queue(
        &mut self,
        target: QueueTarget,
        topic: TopicId,
        is_there: impl Fn(TopicId) -> bool,
    ) {
        self.targets.insert(target, topic);
        if self.targets.len() > self.full_at {
            self.targets.retain(|_, topic| is_there(*topic));
            self.targets.shrink_to(2 * self.targets.len());
            self.full_at = FEW_QUEUES.max(2 * self.targets.len());
        }
    }

    /// The tag of another delivery.
    pub(super) fn next_tag(&mut self) -> u64 {
        self.last_tag += 1;
        self.last_tag
    }
}

/// A bound for all consumers of a channel, in each shard.
#[derive(Debug)]
pub(super) struct Together {
    pub(super) bound: u16,
    pub(super) demands: Vec<(ShardId, Demand)>,
}

/// When a consumer may be given more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RefillOn {
    /// When what it was given is sent: its client sets no bound.
    Sending,
    /// When what it was given is settled.
    Settling,
}

/// What a consumer draws on, and when there is more of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Drawing {
    pub(super) demand: Demand,
    /// Whether it is its channel's, and other consumers draw on it, too.
    pub(super) shared: bool,
    pub(super) refill_on: RefillOn,
    /// What may be given more, and the broker has not been told.
    pub(super) refill: u32,
}

/// A consumer of a queue, or of a subscription of a topic.
#[derive(Debug)]
pub(super) struct Consumer {
    pub(super) channel: u16,
    pub(super) tag: Box<str>,
    pub(super) owner: QueueOwner,
    pub(super) queue: ConsumedQueue,
    /// One for each of the queue's targets.
    pub(super) attached: Vec<QueueConsumer>,
    /// One for each shard that these are in.
    pub(super) drawings: Vec<Drawing>,
    /// As what it is attached: by priority, and whether it has the queue to itself.
    pub(super) priority: i32,
    pub(super) exclusive: bool,
    /// Whether what is sent is settled with that.
    pub(super) settles: bool,
}

/// The queue, or the subscription of a topic, that a consumer is on.
#[derive(Debug, Clone)]
pub(super) struct ConsumedQueue {
    pub(super) name: Box<str>,
    /// The queue; of a topic what the subscription has of each partition.
    pub(super) targets: Arc<[QueueTarget]>,
    /// Whether messages say how often they have been given back.
    pub(super) says_returns: bool,
    /// Its topic, if it goes with its last consumer.
    pub(super) goes: Option<TopicId>,
}

impl Consumer {
    /// When it may be given more.
    pub(super) fn refill_on(&self) -> RefillOn {
        self.drawings.first().map_or(RefillOn::Settling, |drawing| drawing.refill_on)
    }

    /// It may be given more of a shard; it is put on the list of those of which the broker is to be told.
    pub(super) fn refill(&mut self, shard: ShardId, more: u32, number: u64, list: &mut Vec<u64>) {
        if more == 0 {
            return;
        }
        if self.drawings.iter().all(|drawing| drawing.refill == 0) {
            list.push(number);
        }
        let drawing = self.drawings.iter_mut().find(|drawing| drawing.demand.shard() == shard);
        drawing.into_iter().for_each(|drawing| drawing.refill += more);
    }
}

//! Where dead letters go.

use std::sync::Arc;

use sabir_delivery::subscription::SubscriptionNo;
use sabir_model::{FrontendNo, PartitionId, ShardId};

use crate::append::{AppendAcks, AppendTarget};
use crate::caller::Caller;
use crate::catalog::Topic;
use crate::relay::RelayedMessages;

/// Where a message goes.
#[derive(Debug, Default)]
pub(super) struct LetterTargets {
    /// Queues of the shard that has it.
    pub(super) here: Vec<AppendTarget>,
    /// All others: they take batches by rules of their own, or lie in other shards.
    pub(super) elsewhere: Vec<AppendTarget>,
}

impl LetterTargets {
    /// Adds a topic that takes the message. Tells whether it takes anything from such a caller.
    pub(super) fn add(&mut self, caller: &Caller, topic: &Arc<Topic>, of: Origin) -> bool {
        let index = (of.hash as usize % topic.partitions.len().max(1)) as i32;
        let Ok(target) = AppendTarget::new(caller, topic, index, AppendAcks::Leader, of.front_end) else {
            return false;
        };
        let is_queue = topic.config.queue().is_some() && topic.partitions.len() == 1;
        if is_queue && target.shard == of.shard && !target.stamps() {
            self.here.push(target);
        } else {
            self.elsewhere.push(target);
        }
        true
    }

    pub(super) fn is_empty(&self) -> bool {
        self.here.is_empty() && self.elsewhere.is_empty()
    }

    /// Leaves out those that have decided on the message before.
    pub(super) fn leave_out(&mut self, relayed: &RelayedMessages, queue: SubscriptionNo, offset: u64) {
        relayed.leave_out(queue, offset, &mut self.here);
        relayed.leave_out(queue, offset, &mut self.elsewhere);
    }

    /// Bytes of a batch that all of them take.
    pub(super) fn most_bytes(&self) -> usize {
        let all = self.here.iter().chain(&self.elsewhere);
        all.map(|target| target.topic.config.max_message_bytes as usize).min().unwrap_or(usize::MAX)
    }

    /// All of them are published to.
    pub(super) fn all_elsewhere(&mut self) {
        self.elsewhere.append(&mut self.here);
    }

    /// Whether others are the same.
    pub(super) fn are(&self, others: &Self) -> bool {
        alike(&self.here, &others.here) && alike(&self.elsewhere, &others.elsewhere)
    }

    pub(super) fn ids_here(&self) -> Vec<PartitionId> {
        self.here.iter().map(|target| target.partition).collect()
    }
}

/// From where, and of whose making, messages are.
#[derive(Debug, Clone, Copy)]
pub(super) struct Origin {
    pub(super) shard: ShardId,
    pub(super) front_end: FrontendNo,
    /// Chooses among the partitions of topics that have several.
    pub(super) hash: u32,
}

fn alike(some: &[AppendTarget], others: &[AppendTarget]) -> bool {
    let place = |target: &AppendTarget| (target.shard, target.partition, target.origin);
    some.len() == others.len() && some.iter().zip(others).all(|(one, other)| place(one) == place(other))
}

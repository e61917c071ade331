//! What the leader looks at: subscriptions, and what is known of their messages from beside the records.

use std::ops::Range;

use sabir_delivery::dispatch::{FilterNo, MessageFacts, Messages};
use sabir_delivery::subscription::{Subscription, SubscriptionNo};
use sabir_model::Offset;

use crate::partition::{PartitionState, Place};
use crate::state::ShardState;
use crate::state::partition_of;

/// A shard's queues as they are now.
pub(super) trait QueueView {
    /// What is known of a queue's messages.
    type Facts<'a>: Messages
    where
        Self: 'a;

    /// A queue's subscription, if the queue is there.
    fn subscription(&self, queue: SubscriptionNo) -> Option<&Subscription>;

    /// What is known of its messages. Those from `fresh_from` on count as not expired.
    fn facts(&self, queue: SubscriptionNo, fresh_from: u64) -> Self::Facts<'_>;

    /// The queues with messages that expire.
    fn expiring(&self) -> Vec<SubscriptionNo>;
}

/// Facts from a partition's index and its subscription: messages of one run are alike.
pub(super) struct IndexFacts<'a> {
    partition: Option<&'a PartitionState>,
    subscription: Option<&'a Subscription>,
    fresh_from: u64,
    /// The run that was looked at last, and what is said of its messages.
    run: Range<u64>,
    facts: MessageFacts,
}

impl IndexFacts<'_> {
    fn look(&mut self, offset: u64) {
        // Of what the log no longer has, nothing is known, and no more is the one message.
        (self.run, self.facts) = (offset..offset + 1, MessageFacts::default());
        let Some(partition) = self.partition else { return };
        let (base, next, bytes) = match partition.index.find(Offset(offset as i64)) {
            None => return,
            Some(Place::Open(at)) => {
                let run = &partition.index.open()[at];
                (run.base, run.next(), u64::from(run.len))
            }
            Some(Place::Closed(page)) => (page.first, page.next, page.bytes),
        };
        let run = base.0.max(0) as u64..next.0.max(0) as u64;
        if run.contains(&offset) {
            let each = bytes / (run.end - run.start);
            let bytes = u32::try_from(each).unwrap_or(u32::MAX);
            let (expires_ms, to) = self.expiry(offset);
            self.run = offset..run.end.min(to);
            self.facts = MessageFacts { bytes, group: None, expires_ms };
        }
    }

    /// When a message expires (0 is never), and to which one the same holds.
    fn expiry(&self, offset: u64) -> (i64, u64) {
        let Some(subscription) = self.subscription.filter(|_| offset < self.fresh_from) else {
            return (0, u64::MAX);
        };
        let (expires_ms, to) = subscription.expiry_run(offset);
        (expires_ms.map_or(0, |expires_ms| expires_ms.max(1)), to.min(self.fresh_from))
    }
}

impl Messages for IndexFacts<'_> {
    fn facts(&mut self, offset: u64) -> Option<MessageFacts> {
        if !self.run.contains(&offset) {
            self.look(offset);
        }
        Some(self.facts)
    }

    fn passes(&mut self, _: FilterNo, _: u64) -> bool {
        // No consumer has a filter.
        true
    }
}

impl QueueView for ShardState {
    type Facts<'a> = IndexFacts<'a>;

    fn subscription(&self, queue: SubscriptionNo) -> Option<&Subscription> {
        self.subscriptions.get(queue)
    }

    fn facts(&self, queue: SubscriptionNo, fresh_from: u64) -> IndexFacts<'_> {
        let (partition, subscription) = (self.partition(partition_of(queue)), self.subscriptions.get(queue));
        IndexFacts { partition, subscription, fresh_from, run: 0..0, facts: MessageFacts::default() }
    }

    fn expiring(&self) -> Vec<SubscriptionNo> {
        self.subscriptions.expiring().collect()
    }
}

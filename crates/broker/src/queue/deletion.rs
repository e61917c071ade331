//! Queues that are deleted only if they have no consumers, or no messages.
//!
//! ```text
//!   closed to consumers ─► sealed, if empty (its shard) ─► topic deleted (shard 0) ─► …
//! ```
//!
//! Whether consumers are there the leader says, and lets in none from then on. Whether messages are there the queue's shard decides when it applies the
//! seal: what comes behind that finds no queue. A queue that is sealed and still there, since a step was lost, is deleted by
//! [`Definitions::reconcile`].

use std::sync::Arc;

use sabir_base::wake::WakeBatch;
use sabir_delivery::subscription::{Operation, OperationsWriter};
use sabir_journal::Priority;
use sabir_model::{PartitionId, TopicError, TopicId};

use super::{QueueError, ShardQueues};
use crate::answer::Waiter;
use crate::broker::Broker;
use crate::caller::Caller;
use crate::catalog::{Partition, Topic};
use crate::definitions::{Definitions, TopicAnswer, Unanswered};
use crate::entry::{DeliveryBody, DeliveryError, DeliveryOutcome};
use crate::shard::Shard;
use crate::state::subscription_of;

/// On which conditions a queue is deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DeleteOnlyIf {
    /// It has no consumers.
    pub unused: bool,
    /// No message waits in it. What consumers have and have not settled does not count.
    pub empty: bool,
}

/// A queue that takes no consumers. It takes them again when this is dropped, unless its deletion is decided.
#[derive(Debug)]
pub(crate) struct ClosedQueue {
    queues: Arc<ShardQueues>,
    queue: PartitionId,
    reopens: bool,
}

impl ClosedQueue {
    /// One that the leader has closed.
    pub(crate) fn of(shard: &Shard, queue: PartitionId) -> Self {
        Self { queues: shard.queues.clone(), queue, reopens: true }
    }

    /// It is to go: the leader forgets it with the queue.
    pub(crate) fn goes(mut self) {
        self.reopens = false;
    }
}

impl Drop for ClosedQueue {
    fn drop(&mut self) {
        if self.reopens {
            self.queues.reopen(self.queue);
        }
    }
}

impl Broker {
    /// Deletes a queue on conditions that are judged with the deletion, so that neither a message nor a consumer that comes meanwhile is lost with it;
    /// answered when nothing of it is left. It is on its way whether this is awaited or dropped.
    ///
    /// # Errors
    /// [`TopicError::InUse`], [`TopicError::NotEmpty`]; no such topic, or one that the caller does not delete; it is no queue; its shard, or the
    /// catalog's, takes no entries.
    pub async fn delete_queue(
        &self,
        caller: &Caller,
        queue: TopicId,
        only_if: DeleteOnlyIf,
    ) -> Result<(), TopicError> {
        let known = self.changeable(caller, queue)?;
        let deleting = self.inner.definitions.delete_queue(&known, only_if)?;
        deleting.await.map(drop)
    }
}

impl Definitions {
    fn delete_queue(
        self: &Arc<Self>,
        topic: &Topic,
        only_if: DeleteOnlyIf,
    ) -> Result<TopicAnswer, TopicError> {
        let (Some(_), Some(partition)) = (topic.config.queue(), topic.partition(0)) else {
            return Err(TopicError::Unknown);
        };
        let shard = self.shard_of(partition).ok_or(TopicError::Unknown)?;
        let closed = shard.close_queue(partition.id, only_if.unused).map_err(|error| match error {
            QueueError::Shard(failure) => TopicError::Shard(failure),
            QueueError::Unknown
            | QueueError::Internal
            | QueueError::Locked
            | QueueError::NotAQueue
            | QueueError::Owned
            | QueueError::Exclusive
            | QueueError::InUse => TopicError::InUse((*topic.name).into()),
        })?;
        let answer = TopicAnswer::default();
        let waits = self.unanswered(answer.0.clone(), None);
        match only_if.empty {
            true => self.seal(shard, (topic.id, partition.id), waits, closed),
            false => self.delete_closed(topic.id, waits, closed),
        }
        self.flush();
        Ok(answer)
    }

    /// Has a queue's shard decide whether the queue is empty, and deletes it if it is.
    fn seal(
        self: &Arc<Self>,
        shard: &Shard,
        (topic, queue): (TopicId, PartitionId),
        waits: Unanswered,
        closed: ClosedQueue,
    ) {
        let mut body = Vec::new();
        OperationsWriter::new(&mut body, false).push(subscription_of(queue), &Operation::SealedIfEmpty);
        let definitions = self.clone();
        let decided = move |outcome: Result<DeliveryOutcome, DeliveryError>, wakes: &mut WakeBatch| {
            match outcome {
                Err(DeliveryError::Shard(failure)) => {
                    drop(closed);
                    waits.answer(Err(failure.into()), wakes);
                }
                Ok(DeliveryOutcome { concerned: 0 }) | Err(DeliveryError::Refused { .. }) => {
                    // The caller that is answered finds it open.
                    drop(closed);
                    let there = definitions.topic(topic);
                    let error = |topic: Arc<Topic>| TopicError::NotEmpty((*topic.name).into());
                    waits.answer(Err(there.map_or(TopicError::Unknown, error)), wakes);
                }
                Ok(DeliveryOutcome { .. }) => {
                    definitions.delete_closed(topic, waits, closed);
                    definitions.flush();
                }
            }
        };
        let waiter = Some(Waiter::then(decided));
        if let Err((failure, Some(waiter))) = shard.push(Priority::Reserve, DeliveryBody::KIND, &body, waiter)
        {
            let mut wakes = WakeBatch::default();
            waiter.fail(failure, &mut wakes);
            wakes.deliver();
        }
        shard.submit();
    }

    /// Whether a queue takes in nothing more, since it was found empty and is to be deleted.
    pub(crate) fn is_sealed(&self, topic: &Topic) -> bool {
        let partition = topic.config.queue().and_then(|_| topic.partition(0));
        let is_sealed = |shard: &Arc<Shard>, partition: &Partition| {
            let state = shard.state.read();
            state.subscriptions.get(subscription_of(partition.id)).is_some_and(|queue| queue.is_sealed())
        };
        partition.is_some_and(|partition| {
            self.shard_of(partition).is_some_and(|shard| is_sealed(shard, partition))
        })
    }
}

impl Shard {
    /// Has a queue take no consumers any more; where that is wanted, only if it has none.
    fn close_queue(&self, queue: PartitionId, if_unused: bool) -> Result<ClosedQueue, QueueError> {
        let mut led = self.queues.lock();
        led.check()?;
        led.leader.close(subscription_of(queue), if_unused)?;
        self.queues.note(&led);
        Ok(ClosedQueue::of(self, queue))
    }
}

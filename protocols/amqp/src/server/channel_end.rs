//! The end of a channel, as far as the broker sees to it: consumers that are dealt nothing more, and messages that are ready again.

use sabir_broker::queue::{QueueOwner, QueueTarget, Queues};

use super::asking::Asker;
use super::channel::{Consumer, Together};

/// Consumers and queues of a channel that ends at once; of more a part at a time, so that other connections have their turns between.
const AT_ONCE: usize = 512;

/// What is left of a channel: its consumers are detached first, or they would be dealt what is given back.
pub(super) struct ChannelEnd {
    pub(super) asker: Asker,
    pub(super) owner: QueueOwner,
    pub(super) consumers: Vec<Consumer>,
    pub(super) together: Option<Together>,
    /// The queues of which the channel may have messages.
    pub(super) targets: Vec<QueueTarget>,
}

impl ChannelEnd {
    pub(super) fn is_large(&self) -> bool {
        self.consumers.len() + self.targets.len() > AT_ONCE
    }

    /// Detaches so many consumers; a queue that goes with its last one goes. Says whether there are more.
    pub(super) fn detach(&mut self, most: usize) -> bool {
        for consumer in self.consumers.drain(self.consumers.len().saturating_sub(most)..) {
            end_dealing(self.asker.amqp.broker.queues(), &consumer);
            if let Some(id) = consumer.queue.goes {
                let (asker, name) = (self.asker.clone(), consumer.queue.name);
                let work = move || async move { asker.delete_unused(name, id).await };
                self.asker.amqp.tasks.spawn("amqp auto-delete", work);
            }
        }
        if self.consumers.is_empty() {
            end_together(self.asker.amqp.broker.queues(), self.together.take());
        }
        !self.consumers.is_empty()
    }

    /// Gives back what the channel has of so many queues. Says whether there are more.
    pub(super) fn release(&mut self, most: usize) -> bool {
        for target in self.targets.drain(self.targets.len().saturating_sub(most)..) {
            self.asker.amqp.broker.queues().release(target, self.owner, true);
        }
        !self.targets.is_empty()
    }

    /// Does all of it, a part at a time.
    pub(super) async fn run(mut self) {
        while self.detach(AT_ONCE) || self.release(AT_ONCE) {
            tokio::task::yield_now().await;
        }
    }
}

pub(super) fn end_together(queues: &Queues, together: Option<Together>) {
    let demands = together.into_iter().flat_map(|together| together.demands);
    demands.for_each(|(_, demand)| queues.end_demand(demand));
}

/// The broker deals a consumer nothing more.
pub(super) fn end_dealing(queues: &Queues, consumer: &Consumer) {
    consumer.attached.iter().for_each(|attached| queues.detach(*attached));
    for drawing in consumer.drawings.iter().filter(|drawing| !drawing.shared) {
        queues.end_demand(drawing.demand);
    }
}

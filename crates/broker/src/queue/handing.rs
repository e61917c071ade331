//! Messages that no consumer is to get any more, since they go back to the queues that gave them up.

use std::ops::Range;
use std::sync::Arc;

use sabir_base::wake::WakeBatch;
use sabir_delivery::policy::DeathReason;
use sabir_delivery::subscription::{
    MessageOwner, MessageState, Operation, OperationsWriter, RangesBuffer, Subscription, Terms,
};
use sabir_model::QueueConfig;

use super::QueueTarget;
use super::leader::{Asked, LedQueue, QueueLeader, QueuePolicy, QueueRequest};
use crate::dead_letter::RedriveTally;
use crate::shard::Shard;

impl Shard {
    /// Has messages of a queue wait to go back where they come from: those that are ready, and that no consumer is dealt.
    pub(crate) fn redrive(
        &self,
        target: QueueTarget,
        queue: &QueueConfig,
        messages: Vec<Range<u64>>,
        tally: Arc<RedriveTally>,
    ) {
        let policy = QueuePolicy::of(queue);
        self.ask_queue(QueueRequest::Redrive { target, policy, messages, tally });
    }

    /// Asks something of a queue, and has it done at once.
    pub(super) fn ask_queue(&self, ask: QueueRequest) {
        let mut wakes = WakeBatch::default();
        let _guard = self.guard("look into a queue");
        let mut led = self.queues.lock();
        match led.check() {
            Ok(()) => {
                if let QueueRequest::Get { target, .. } = ask {
                    led.lives.used(target.partition, self.now_ms());
                }
                led.leader.asked.push_back(Asked { ask, is_behind: false });
                self.run_led(&mut led, &mut wakes);
            }
            Err(error) => ask.refuse(error, &mut wakes),
        }
        drop(led);
        wakes.deliver();
        self.submit();
    }
}

impl QueueLeader {
    /// Proposes that they wait.
    pub(super) fn hand_over(
        &mut self,
        target: QueueTarget,
        policy: QueuePolicy,
        messages: &[Range<u64>],
        subscription: &Subscription,
        writer: &mut OperationsWriter<'_>,
    ) {
        let queue = target.subscription();
        let mut ranges = RangesBuffer::default();
        let others = &mut self.round.others;
        let before = others.len();
        let led = self.queues.entry(queue).or_insert_with(|| LedQueue::new(target, policy));
        for messages in messages {
            let mut at = messages.start;
            while at < messages.end {
                let (state, end) = subscription.run(at);
                let end = end.min(messages.end);
                if state == MessageState::Ready {
                    led.dispatcher.undealt(at..end, |messages| {
                        ranges.push(messages.clone());
                        others.push((queue, messages));
                    });
                }
                at = end;
            }
        }
        others[before..].iter().for_each(|(_, messages)| led.dispatcher.propose(messages.clone()));
        if !ranges.ranges().is_empty() {
            let owner = MessageOwner::DeadLetter(DeathReason::Redriven);
            let terms = Terms { owner, timeout_ms: 0, token: 0 };
            writer.push(queue, &Operation::Acquired { ranges: ranges.ranges(), terms });
        }
        self.tidy(queue);
    }
}

//! Messages that are kept back, looked through before their time, and settled.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sabir_delivery::subscription::{
    HeldBy, MessageState, Operation, OperationsWriter, RangesBuffer, Settlement, SubscriptionNo,
};
use sabir_journal::Priority;
use sabir_model::{FrontendNo, PartitionId, ReadError, ShardFailure};

use super::driver::TimerDriver;
use crate::answer::Waiter;
use crate::caller::Caller;
use crate::catalog::Topic;
use crate::converter::{Converter, DelayedAddress};
use crate::entry::{DeliveryBody, DeliveryError, DeliveryOutcome};
use crate::queue::reader::{Found, QueueReader, StoredMessage};
use crate::read::ReadTarget;
use crate::shard::Shard;
use crate::state::subscription_of;

/// Messages that are looked at in one go, and how long one is, once it has looked at some.
const PIECE: u64 = 4096;
const TURN: Duration = Duration::from_millis(50);
/// On a full disk they are settled, too: that is how its space is had back.
const PRIORITY: Priority = Priority::Commit;

/// A queue that keeps messages back, in the shard that has it.
pub(super) struct KeptQueue {
    pub(super) topic: Arc<Topic>,
    pub(super) partition: PartitionId,
    pub(super) shard: Arc<Shard>,
}

/// What was found in one go.
pub(super) struct Looked {
    /// The messages that were meant, ascending.
    pub(super) meant: Vec<Range<u64>>,
    /// Where the next go begins.
    pub(super) next: u64,
}

/// A front end's reader of addresses, and as whom it publishes.
type Reads<'a> = (FrontendNo, Option<(Caller, &'a Converter)>);

impl KeptQueue {
    fn number(&self) -> SubscriptionNo {
        subscription_of(self.partition)
    }

    /// The offsets of all that is in it.
    pub(super) fn offsets(&self) -> Range<u64> {
        let state = self.shard.state.read();
        state.subscriptions.get(self.number()).map_or(0..0, |queue| queue.floor()..queue.end())
    }

    /// What is kept back of these messages, a piece at the most, and up to where that was looked for.
    fn ready(&self, messages: Range<u64>) -> (Vec<Range<u64>>, u64) {
        let state = self.shard.state.read();
        let Some(queue) = state.subscriptions.get(self.number()) else { return (Vec::new(), messages.end) };
        let (mut runs, mut left, mut at) = (Vec::new(), PIECE, messages.start);
        while left > 0
            && let Some(from) = queue.next_ready(at).filter(|from| *from < messages.end)
        {
            let (state, end) = queue.run(from);
            debug_assert_eq!(state, MessageState::Ready);
            at = end.min(messages.end).min(from + left);
            left -= at - from;
            runs.push(from..at);
        }
        (runs, if left > 0 { messages.end } else { at })
    }

    /// Some of these messages, whatever they are.
    pub(super) fn look(&self, messages: Range<u64>) -> Looked {
        let (meant, next) = self.ready(messages);
        Looked { meant, next }
    }

    /// Settles messages before their time; those that have gone meanwhile stay gone. `then` is told how many it settled.
    pub(super) fn settle(
        &self,
        messages: &[Range<u64>],
        then: impl FnOnce(Result<u64, DeliveryError>) + Send + 'static,
    ) -> Result<(), ShardFailure> {
        let ranges = RangesBuffer::of(messages.iter().cloned());
        let (mut operations, why) = (Vec::new(), Settlement::Dropped);
        let mut writer = OperationsWriter::new(&mut operations, false);
        let settled = Operation::Settled { ranges: ranges.ranges(), held_by: HeldBy::Any, why };
        writer.push(self.number(), &settled);
        let decided = |outcome: Result<DeliveryOutcome, DeliveryError>, _: &mut _| {
            then(outcome.map(|outcome| outcome.concerned));
        };
        let entry = (DeliveryBody::KIND, operations, Waiter::then(decided));
        self.shard.push_together(PRIORITY, vec![entry])?;
        self.shard.submit();
        Ok(())
    }
}

impl TimerDriver {
    /// The queues that keep messages back and are led here.
    pub(super) fn kept_queues(&self) -> Vec<KeptQueue> {
        let view = self.definitions.view();
        let delays = |topic: &&Arc<Topic>| topic.config.queue().is_some_and(|queue| queue.delays);
        let partitions = { view.topics() }.filter(delays).flat_map(|topic| {
            topic.partitions.iter().filter_map(|partition| {
                let shard = self.definitions.shard_of(partition)?.clone();
                Some(KeptQueue { topic: topic.clone(), partition: partition.id, shard })
            })
        });
        partitions.filter(|queue| queue.shard.timers.is_led() && !queue.shard.is_stopped()).collect()
    }

    /// Looks at some of these messages, by the addresses that their front end reads in them and the moments, in milliseconds, when they are due. What cannot
    /// be read is not meant. Blocking.
    ///
    /// # Errors
    /// Nothing of the shard can be read now.
    pub(super) fn look_through(
        &self,
        queue: &KeptQueue,
        messages: Range<u64>,
        mut is_meant: impl FnMut(&Caller, &DelayedAddress<'_>, i64) -> bool,
    ) -> Result<Looked, ReadError> {
        let (runs, end) = queue.ready(messages);
        let mut looked = Looked { meant: Vec::new(), next: end };
        let mut reader = QueueReader::of(ReadTarget { shard: queue.shard.id, partition: queue.partition });
        let (began, mut reads, mut is_first) = (Instant::now(), None, true);
        for run in runs {
            let mut at = run.start;
            while at < run.end {
                // One at least is looked at, however long it took to read it, or it would be read for ever.
                if !is_first && began.elapsed() >= TURN {
                    looked.next = at;
                    return Ok(looked);
                }
                is_first = false;
                at = match reader.find_blocking(&queue.shard, at..run.end)? {
                    Found::Message(message) => {
                        if self.is_meant(queue, &message, &mut reads, &mut is_meant) {
                            looked.add(at);
                        }
                        at + 1
                    }
                    Found::Gone | Found::Unread => at + 1,
                    Found::Unreadable { end, .. } => end.max(at + 1),
                };
            }
        }
        Ok(looked)
    }

    fn is_meant<'a>(
        &'a self,
        queue: &KeptQueue,
        message: &StoredMessage<'_>,
        reads: &mut Option<Reads<'a>>,
        is_meant: &mut impl FnMut(&Caller, &DelayedAddress<'_>, i64) -> bool,
    ) -> bool {
        if reads.as_ref().is_none_or(|(of, _)| *of != message.origin) {
            *reads = Some((message.origin, self.caller_of(&queue.topic, message.origin)));
        }
        let Some((_, Some((caller, converter)))) = reads else { return false };
        let Some(address_of) = converter.address else { return false };
        let mut meant = false;
        let due_ms = message.record.timestamp;
        address_of(&message.record, &mut |address| meant = is_meant(caller, address, due_ms));
        meant
    }
}

impl Looked {
    fn add(&mut self, offset: u64) {
        match self.meant.last_mut().filter(|last| last.end == offset) {
            Some(last) => last.end += 1,
            None => self.meant.push(offset..offset + 1),
        }
    }
}

//! What becomes of the messages of redrives, as blocks are applied.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use parking_lot::Mutex;
use sabir_delivery::policy::DeathReason;
use sabir_delivery::subscription::{MessageOwner, Settlement, SubscriptionNo};

use crate::queue::QueueError;
use crate::state::TouchedMessages;
use crate::timer::Alarm;

/// The messages of one redrive that wait, and how many have waited.
#[derive(Debug)]
pub(crate) struct RedriveTally {
    pub(super) queue: SubscriptionNo,
    alarm: Arc<Alarm>,
    told: Mutex<Told>,
}

/// What is known of them.
#[derive(Debug, Default)]
struct Told {
    figures: Figures,
    /// Those that wait.
    waiting: BTreeSet<u64>,
}

/// How many messages came to what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Figures {
    /// An entry that has some wait is not decided.
    pub(super) is_asked: bool,
    /// The queue was not asked.
    pub(super) failed: Option<QueueError>,
    /// Those that came to wait.
    pub(super) acquired: u64,
    /// Those that wait now.
    pub(super) waiting: u64,
    /// Those that went back to the queue that gave them up.
    pub(super) moved: u64,
    /// Those that are ready again where they were.
    pub(super) stayed: u64,
}

impl RedriveTally {
    pub(super) fn new(queue: SubscriptionNo, alarm: Arc<Alarm>) -> Self {
        Self { queue, alarm, told: Mutex::default() }
    }

    pub(super) fn figures(&self) -> Figures {
        let told = self.told.lock();
        Figures { waiting: told.waiting.len() as u64, ..told.figures }
    }

    /// The leader is asked to have messages wait.
    pub(super) fn ask(&self) {
        self.told.lock().figures.is_asked = true;
    }

    /// The entry that says so is applied, or is not to come.
    pub(crate) fn answer(&self, answer: Result<(), QueueError>) {
        let mut told = self.told.lock();
        told.figures.is_asked = false;
        // The queue may be gone by now: what has failed once does not go on.
        told.figures.failed = told.figures.failed.or(answer.err());
        drop(told);
        self.alarm.raise();
    }

    fn tell(&self, event: &TouchedMessages) {
        let mut told = self.told.lock();
        let Told { figures, waiting } = &mut *told;
        let mut has_ended = !waiting.is_empty();
        let mut take = |messages: &std::ops::Range<u64>| {
            messages.clone().filter(|offset| waiting.remove(offset)).count() as u64
        };
        match event {
            TouchedMessages::Acquired { messages, owner, .. } => {
                if *owner == MessageOwner::DeadLetter(DeathReason::Redriven) {
                    figures.acquired += messages.end - messages.start;
                    waiting.extend(messages.clone());
                }
            }
            TouchedMessages::Settled { messages, why: Settlement::DeadLettered, .. } => {
                figures.moved += take(messages);
            }
            TouchedMessages::Ready { messages, .. } => figures.stayed += take(messages),
            TouchedMessages::Gone { .. } => {
                waiting.clear();
                figures.failed.get_or_insert(QueueError::Unknown);
                has_ended = true;
            }
            _ => return,
        }
        has_ended &= waiting.is_empty();
        drop(told);
        if has_ended {
            self.alarm.raise();
        }
    }
}

/// The redrives of a shard's queues.
#[derive(Debug, Default)]
pub(crate) struct ShardRedrives {
    /// How many there are: without any, no block is looked at.
    count: AtomicUsize,
    tallies: Mutex<Vec<Arc<RedriveTally>>>,
}

impl ShardRedrives {
    /// Begins one, if its queue has none.
    pub(super) fn begin(&self, tally: &Arc<RedriveTally>) -> bool {
        let mut tallies = self.tallies.lock();
        let is_free = tallies.iter().all(|other| other.queue != tally.queue);
        if is_free {
            tallies.push(tally.clone());
            self.count.store(tallies.len(), SeqCst);
        }
        is_free
    }

    pub(super) fn end(&self, tally: &Arc<RedriveTally>) {
        let mut tallies = self.tallies.lock();
        tallies.retain(|other| !Arc::ptr_eq(other, tally));
        self.count.store(tallies.len(), SeqCst);
    }

    /// To be told what a block did.
    pub(super) fn tell(&self, events: &[TouchedMessages]) {
        if self.count.load(SeqCst) == 0 || events.is_empty() {
            return;
        }
        let tallies = self.tallies.lock();
        for event in events {
            let tally = tallies.iter().find(|tally| tally.queue == event.subscription());
            tally.into_iter().for_each(|tally| tally.tell(event));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUEUE: SubscriptionNo = SubscriptionNo(3);

    fn waits(messages: std::ops::Range<u64>) -> TouchedMessages {
        let owner = MessageOwner::DeadLetter(DeathReason::Redriven);
        TouchedMessages::Acquired { subscription: QUEUE, messages, owner, deadline_ms: None }
    }

    #[test]
    fn what_waits_is_counted_by_what_becomes_of_it() {
        let (redrives, alarm) = (ShardRedrives::default(), Arc::new(Alarm::default()));
        let tally = Arc::new(RedriveTally::new(QUEUE, alarm.clone()));
        assert!(redrives.begin(&tally) && !redrives.begin(&tally), "one at a time");
        tally.ask();
        let gone = |messages, why| TouchedMessages::Settled { subscription: QUEUE, messages, why };
        let ready = |messages| TouchedMessages::Ready { subscription: QUEUE, messages };
        redrives.tell(&[ready(0..9), waits(0..6), gone(0..2, Settlement::DeadLettered), ready(2..3)]);
        redrives.tell(&[gone(6..9, Settlement::DeadLettered), gone(3..4, Settlement::Acknowledged)]);
        redrives.tell(&[TouchedMessages::Gone { subscription: SubscriptionNo(4) }]);
        let figures = Figures { acquired: 6, waiting: 3, moved: 2, stayed: 1, ..Figures::default() };
        assert_eq!(tally.figures(), Figures { is_asked: true, ..figures });
        assert!(!alarm.take(), "some wait");
        tally.answer(Ok(()));
        assert_eq!((tally.figures(), alarm.take()), (figures, true));
        redrives.tell(&[gone(3..6, Settlement::DeadLettered)]);
        assert_eq!((tally.figures().waiting, alarm.take()), (0, true));
        redrives.tell(&[ready(7..8), gone(7..8, Settlement::Acknowledged)]);
        assert!(!alarm.take(), "nothing waited before either");
        tally.ask();
        redrives.tell(&[waits(8..9), TouchedMessages::Gone { subscription: QUEUE }]);
        let ended = (0, Some(QueueError::Unknown));
        assert_eq!((tally.figures().waiting, tally.figures().failed), ended);
        assert!(alarm.take());
        tally.answer(Ok(()));
        assert_eq!(
            (tally.figures().waiting, tally.figures().failed),
            ended,
            "the queue is gone all the same"
        );
        redrives.end(&tally);
        redrives.tell(&[waits(7..8)]);
        assert_eq!(tally.figures().waiting, 0);
        assert!(redrives.begin(&tally));
    }
}

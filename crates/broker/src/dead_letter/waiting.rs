//! Which queues have dead letters that wait, and what became of others.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use rustc_hash::FxHashSet;
use sabir_delivery::subscription::{MessageOwner, SubscriptionNo};
use sabir_model::Term;

use super::tally::ShardRedrives;
use crate::shard::Leading;
use crate::state::{AppendCounters, TouchedMessages};
use crate::timer::Alarm;

/// A shard's part: the queues in which something waits, and whether it is published from here.
#[derive(Debug, Default)]
pub(crate) struct ShardDeadLetters {
    alarm: OnceLock<Arc<Alarm>>,
    waiting: Mutex<WaitingQueues>,
    pub(super) counters: DeadLetterCounters,
    /// The redrives of its queues.
    pub(super) redrives: ShardRedrives,
}

#[derive(Debug, Default)]
struct WaitingQueues {
    is_led: bool,
    /// Counts terms: what is known of an earlier one does not hold.
    led_terms: u64,
    /// Whether an entry is not decided.
    is_under_way: bool,
    /// Whether it is not known yet which queues have dead letters.
    is_new: bool,
    queues: VecDeque<SubscriptionNo>,
    listed: FxHashSet<SubscriptionNo>,
}

/// What is to be done now.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NextStep {
    /// Nothing, before something is told.
    Rest,
    /// An entry is under way.
    Busy,
    /// To look at queues, in the term of that number; at all of them if it is new.
    Look { led_terms: u64, is_new: bool },
}

impl WaitingQueues {
    fn list(&mut self, queue: SubscriptionNo) {
        if self.listed.insert(queue) {
            self.queues.push_back(queue);
        }
    }
}

impl ShardDeadLetters {
    pub(super) fn connect(&self, alarm: &Arc<Alarm>) {
        // A shard is driven by one broker.
        let _ = self.alarm.set(alarm.clone());
    }

    fn raise(&self) {
        self.alarm.get().into_iter().for_each(|alarm| alarm.raise());
    }

    /// To be told what a block did.
    pub(crate) fn tell(&self, events: &[TouchedMessages]) {
        self.redrives.tell(events);
        let given_up = |event: &TouchedMessages| match event {
            TouchedMessages::Acquired { subscription, owner: MessageOwner::DeadLetter(_), .. } => {
                Some(*subscription)
            }
            _ => None,
        };
        let mut queues = events.iter().filter_map(given_up).peekable();
        if queues.peek().is_some() {
            let mut waiting = self.waiting.lock();
            queues.for_each(|queue| waiting.list(queue));
            drop(waiting);
            self.raise();
        }
    }

    /// What is to be done.
    pub(super) fn next_step(&self) -> NextStep {
        let mut waiting = self.waiting.lock();
        let led_terms = waiting.led_terms;
        match (waiting.is_led, waiting.is_under_way) {
            (false, _) => NextStep::Rest,
            (true, true) => NextStep::Busy,
            (true, false) => NextStep::Look { led_terms, is_new: std::mem::take(&mut waiting.is_new) },
        }
    }

    /// How many queues are listed.
    pub(super) fn len(&self) -> usize {
        self.waiting.lock().queues.len()
    }

    /// Takes the next queue to be looked at.
    pub(super) fn next(&self) -> Option<SubscriptionNo> {
        let mut waiting = self.waiting.lock();
        let next = waiting.queues.pop_front()?;
        waiting.listed.remove(&next);
        Some(next)
    }

    /// Queues are to be looked at, behind those that are listed.
    pub(super) fn list(&self, queues: impl IntoIterator<Item = SubscriptionNo>) {
        let mut waiting = self.waiting.lock();
        queues.into_iter().for_each(|queue| waiting.list(queue));
    }

    /// An entry of that term is under way.
    pub(super) fn begin(&self, led_terms: u64) {
        let mut waiting = self.waiting.lock();
        // Another term waits for no entry of this one.
        waiting.is_under_way |= waiting.led_terms == led_terms;
    }

    /// An entry of that term is decided, or lost: its queues are looked at again. Whether that is at once.
    pub(super) fn end(&self, led_terms: u64, queues: &[SubscriptionNo], at_once: bool) {
        let mut waiting = self.waiting.lock();
        if waiting.led_terms == led_terms {
            waiting.is_under_way = false;
            queues.iter().for_each(|queue| waiting.list(*queue));
        }
        drop(waiting);
        if at_once {
            self.raise();
        }
    }
}

impl Leading for ShardDeadLetters {
    fn led(self: Arc<Self>, _: Term) {
        let mut waiting = self.waiting.lock();
        let led_terms = waiting.led_terms + 1;
        *waiting = WaitingQueues { is_led: true, led_terms, is_new: true, ..WaitingQueues::default() };
        drop(waiting);
        self.raise();
    }

    fn laid_down(self: Arc<Self>) {
        self.waiting.lock().is_led = false;
    }
}

/// What became of dead letters since the start of the process.
#[derive(Debug, Default)]
pub(super) struct DeadLetterCounters {
    /// By reason, as in [`DeathReason::ALL`](sabir_delivery::policy::DeathReason::ALL).
    published: [AtomicU64; 4],
    unroutable: AtomicU64,
    cycles: AtomicU64,
    refused: AtomicU64,
    unreadable: AtomicU64,
}

/// Messages and copies that go nowhere, as [`DeadLetterStats`] has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Dropped {
    pub(super) unroutable: u64,
    pub(super) cycles: u64,
    pub(super) refused: u64,
    pub(super) unreadable: u64,
}

impl Dropped {
    pub(super) fn add(&mut self, more: Self) {
        self.unroutable += more.unroutable;
        self.cycles += more.cycles;
        self.refused += more.refused;
        self.unreadable += more.unreadable;
    }
}

/// What became of dead letters since the start of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DeadLetterStats {
    /// Those that went somewhere, by the reason for which they were given up, in the order of
    /// [`DeathReason::ALL`](sabir_delivery::policy::DeathReason::ALL).
    pub published: [u64; 4],
    /// Those that went nowhere: their queue has no address any more, there is no such exchange, or nothing is bound there that takes them.
    pub unroutable: u64,
    /// Copies for queues that the message came from, no consumer having rejected it since.
    pub cycles: u64,
    /// Copies that their target did not take.
    pub refused: u64,
    /// Those that were not there any more, or of whose form no front end here knows. What reads as damaged stays in its queue, and is tried again.
    pub unreadable: u64,
    /// Those that went back to the queue that gave them up, since an operator wanted it so.
    pub redriven: u64,
    /// Those that were to go back and stayed where they are: that queue did not take them, or was not there.
    pub redrives_refused: u64,
}

impl DeadLetterCounters {
    pub(super) fn published(&self, more: &[u64; 4]) {
        for (count, more) in self.published.iter().zip(more) {
            count.fetch_add(*more, Relaxed);
        }
    }

    pub(super) fn dropped(&self, more: Dropped) {
        let Dropped { unroutable, cycles, refused, unreadable } = more;
        self.unroutable.fetch_add(unroutable, Relaxed);
        self.cycles.fetch_add(cycles, Relaxed);
        self.refused.fetch_add(refused, Relaxed);
        self.unreadable.fetch_add(unreadable, Relaxed);
    }
}

impl ShardDeadLetters {
    /// What became of dead letters, with what is counted where their entries are applied.
    pub(crate) fn stats(&self, applied: &AppendCounters) -> DeadLetterStats {
        let DeadLetterCounters { published, unroutable, cycles, refused, unreadable } = &self.counters;
        DeadLetterStats {
            published: std::array::from_fn(|at| published[at].load(Relaxed)),
            unroutable: unroutable.load(Relaxed),
            cycles: cycles.load(Relaxed),
            refused: refused.load(Relaxed) + applied.dead_letters_refused,
            unreadable: unreadable.load(Relaxed),
            redriven: applied.redriven,
            redrives_refused: applied.redrives_refused,
        }
    }
}

#[cfg(test)]
mod tests {
    use sabir_delivery::policy::DeathReason;

    use super::*;

    const ONE: SubscriptionNo = SubscriptionNo(1);
    const TWO: SubscriptionNo = SubscriptionNo(2);

    fn given_up(subscription: SubscriptionNo) -> TouchedMessages {
        let owner = MessageOwner::DeadLetter(DeathReason::Expired);
        TouchedMessages::Acquired { subscription, messages: 0..1, owner, deadline_ms: None }
    }

    #[test]
    fn queues_are_looked_at_in_turn_and_again_when_their_entry_is_decided() {
        let letters = Arc::new(ShardDeadLetters::default());
        assert_eq!(letters.next_step(), NextStep::Rest);
        letters.clone().led(Term(1));
        assert_eq!(letters.next_step(), NextStep::Look { led_terms: 1, is_new: true });
        letters.tell(&[given_up(ONE), given_up(TWO), given_up(ONE)]);
        letters.tell(&[TouchedMessages::Reset { subscription: SubscriptionNo(3) }]);
        assert_eq!(
            (letters.len(), letters.next(), letters.next(), letters.next()),
            (2, Some(ONE), Some(TWO), None)
        );
        letters.begin(0);
        assert_eq!(
            letters.next_step(),
            NextStep::Look { led_terms: 1, is_new: false },
            "that was another term's"
        );
        letters.begin(1);
        assert_eq!(letters.next_step(), NextStep::Busy);
        letters.end(0, &[ONE], true);
        assert_eq!((letters.next_step(), letters.len()), (NextStep::Busy, 0), "that was another term's");
        letters.end(1, &[ONE], true);
        assert_eq!((letters.next_step(), letters.len()), (NextStep::Look { led_terms: 1, is_new: false }, 1));
        letters.clone().laid_down();
        assert_eq!(letters.next_step(), NextStep::Rest);
    }
}

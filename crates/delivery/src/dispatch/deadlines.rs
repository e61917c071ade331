//! When what is in flight is overdue.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::ops::Range;

use crate::subscription::{MessageState, Subscription};

/// Deadlines of runs in flight. An entry whose messages were settled, returned or extended means nothing any more.
#[derive(Debug, Default)]
pub(super) struct InFlightDeadlines {
    heap: BinaryHeap<Reverse<(i64, u64, u64)>>,
    /// With more entries it is worth looking for those that mean nothing.
    crowded: usize,
}

const FEW: usize = 1_024;

impl InFlightDeadlines {
    pub fn push(&mut self, messages: Range<u64>, deadline_ms: i64) {
        self.heap.push(Reverse((deadline_ms, messages.start, messages.end)));
    }

    /// The first deadline; perhaps of messages that are no longer in flight.
    pub fn first(&self) -> Option<i64> {
        self.heap.peek().map(|Reverse((deadline_ms, ..))| *deadline_ms)
    }

    /// Makes the entries anew from what is in flight.
    pub fn rebuild(&mut self, subscription: &Subscription) {
        self.heap.clear();
        let held = subscription.holdings();
        self.heap.extend(held.filter_map(|(messages, holding)| {
            holding.deadline_ms().map(|at| Reverse((at, messages.start, messages.end)))
        }));
        self.crowded = 2 * self.heap.len() + FEW;
    }

    /// Takes out the messages that are overdue.
    pub fn overdue(&mut self, now_ms: i64, subscription: &Subscription, mut each: impl FnMut(Range<u64>)) {
        if self.heap.len() > self.crowded.max(FEW) {
            self.rebuild(subscription);
        }
        while let Some(&Reverse((deadline_ms, start, end))) = self.heap.peek() {
            if deadline_ms > now_ms {
                return;
            }
            self.heap.pop();
            overdue_of(start..end, now_ms, subscription, &mut each);
        }
    }
}

fn overdue_of(
    messages: Range<u64>,
    now_ms: i64,
    subscription: &Subscription,
    each: &mut impl FnMut(Range<u64>),
) {
    let mut at = messages.start;
    while at < messages.end {
        let (state, mut end) = subscription.run(at);
        if let Some((holding, held_to)) =
            subscription.holding_run(at).filter(|_| state == MessageState::InFlight)
        {
            end = end.min(held_to).min(messages.end);
            if holding.deadline_ms().is_some_and(|deadline_ms| deadline_ms <= now_ms) {
                each(at..end);
            }
        }
        at = end.max(at + 1);
    }
}

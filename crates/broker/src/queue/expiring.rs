//! When the first messages of queues expire: for which of them something is due, none of the others is looked at.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use rustc_hash::FxHashMap;
use sabir_delivery::subscription::SubscriptionNo;

/// A queue with messages that expire.
#[derive(Debug, Clone, Copy)]
struct Watched {
    /// The moment for which it is in the heap, in milliseconds; [`NEVER`] if it is not.
    at_ms: i64,
    /// Whether it is listed among those to be looked at.
    is_listed: bool,
    /// The entry that says what expired, until it is decided: then it is looked at again.
    entry: Option<u64>,
}

const NEVER: i64 = i64::MAX;

/// Queues with messages that expire.
#[derive(Debug, Default)]
pub(super) struct ExpiringQueues {
    queues: FxHashMap<SubscriptionNo, Watched>,
    /// Moments at which queues are to be looked at; one that is no longer its queue's means nothing.
    heap: BinaryHeap<Reverse<(i64, SubscriptionNo)>>,
    /// Queues to be looked at.
    listed: Vec<SubscriptionNo>,
}

impl ExpiringQueues {
    /// A queue has messages that expire.
    pub(super) fn watch(&mut self, queue: SubscriptionNo) {
        self.queues.entry(queue).or_insert(Watched { at_ms: NEVER, is_listed: false, entry: None });
        self.touched(queue);
    }

    /// Another message may be a queue's first.
    pub(super) fn touched(&mut self, queue: SubscriptionNo) {
        if let Some(watched) = self.queues.get_mut(&queue)
            && watched.entry.is_none()
            && !std::mem::replace(&mut watched.is_listed, true)
        {
            self.listed.push(queue);
        }
    }

    /// Nothing of a queue expires any more.
    pub(super) fn forget(&mut self, queue: SubscriptionNo) {
        self.queues.remove(&queue);
    }

    /// How many queues are watched.
    pub(super) fn len(&self) -> usize {
        self.queues.len()
    }

    /// Whether no queue is watched.
    pub(super) fn is_empty(&self) -> bool {
        self.queues.is_empty()
    }

    /// Whether queues are to be looked at.
    pub(super) fn has_listed(&self) -> bool {
        !self.listed.is_empty()
    }

    /// Takes the queues to be looked at.
    pub(super) fn take_listed(&mut self) -> Vec<SubscriptionNo> {
        let mut listed = std::mem::take(&mut self.listed);
        listed.retain(|queue| {
            self.queues.get_mut(queue).is_some_and(|watched| std::mem::take(&mut watched.is_listed))
        });
        listed
    }

    /// The first message of a queue expires at that moment, if it does.
    pub(super) fn schedule(&mut self, queue: SubscriptionNo, at_ms: Option<i64>) {
        if let (Some(watched), Some(at_ms)) = (self.queues.get_mut(&queue), at_ms)
            && at_ms < watched.at_ms
        {
            watched.at_ms = at_ms;
            self.heap.push(Reverse((at_ms, queue)));
        }
    }

    /// An entry says what expired of a queue.
    pub(super) fn proposed(&mut self, queue: SubscriptionNo, entry: u64) {
        if let Some(watched) = self.queues.get_mut(&queue) {
            watched.entry = Some(entry);
        }
    }

    /// An entry that says what expired of a queue is decided, or is not to come.
    pub(super) fn decided(&mut self, queue: SubscriptionNo, entry: u64) {
        if let Some(watched) = self.queues.get_mut(&queue).filter(|watched| watched.entry == Some(entry)) {
            watched.entry = None;
            self.touched(queue);
        }
    }

    /// Lists the queues whose moment has come.
    pub(super) fn due(&mut self, now_ms: i64) {
        while let Some(&Reverse((at_ms, queue))) = self.heap.peek()
            && at_ms <= now_ms
        {
            self.heap.pop();
            if let Some(watched) = self.queues.get_mut(&queue).filter(|watched| watched.at_ms == at_ms) {
                watched.at_ms = NEVER;
                self.touched(queue);
            }
        }
    }

    /// The moment at which something is due next.
    pub(super) fn next_ms(&self) -> Option<i64> {
        self.heap.peek().map(|Reverse((at_ms, _))| *at_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: SubscriptionNo = SubscriptionNo(1);
    const TWO: SubscriptionNo = SubscriptionNo(2);

    #[test]
    fn a_queue_is_listed_when_it_was_touched_and_when_its_moment_has_come_and_only_then() {
        let mut queues = ExpiringQueues::default();
        queues.touched(ONE);
        assert_eq!(queues.take_listed(), []);
        queues.watch(ONE);
        queues.watch(TWO);
        queues.touched(TWO);
        assert_eq!(queues.take_listed(), [ONE, TWO]);
        queues.schedule(ONE, Some(50));
        queues.schedule(ONE, Some(60));
        queues.schedule(TWO, Some(70));
        queues.schedule(TWO, Some(40));
        queues.schedule(ONE, None);
        queues.due(39);
        assert_eq!((queues.has_listed(), queues.next_ms()), (false, Some(40)));
        queues.due(55);
        assert_eq!(queues.take_listed(), [TWO, ONE]);
        queues.due(100);
        assert_eq!(
            (queues.has_listed(), queues.next_ms()),
            (false, None),
            "a later moment meant nothing any more"
        );
    }

    #[test]
    fn what_is_under_way_is_not_looked_at_before_it_is_decided() {
        let mut queues = ExpiringQueues::default();
        queues.watch(ONE);
        queues.take_listed();
        queues.proposed(ONE, 7);
        queues.touched(ONE);
        queues.decided(ONE, 6);
        assert!(!queues.has_listed());
        queues.decided(ONE, 7);
        assert_eq!(queues.take_listed(), [ONE]);
        queues.touched(ONE);
        queues.forget(ONE);
        assert_eq!((queues.take_listed(), queues.is_empty()), (vec![], true));
    }
}

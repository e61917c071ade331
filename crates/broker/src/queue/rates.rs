//! Queues whose messages are dealt at a rate at the most: what may be dealt of them now, and when they are to be looked at again.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use rustc_hash::FxHashMap;
use sabir_delivery::policy::{RateBucket, RateLimit};
use sabir_delivery::subscription::SubscriptionNo;

/// At a high rate it is waited for as many messages as come in a hundredth of a second: an entry for each would be many.
const WAITS_A_SECOND: u32 = 100;

const NEVER: i64 = i64::MAX;

#[derive(Debug)]
struct QueueRate {
    limit: RateLimit,
    /// `None` until the queue is looked at: it is full then.
    bucket: Option<RateBucket>,
    /// The moment for which it is in the heap, in milliseconds; [`NEVER`] if it is not.
    at_ms: i64,
}

impl QueueRate {
    fn bucket(&mut self, now_ms: i64) -> (&RateLimit, &mut RateBucket) {
        let limit = &self.limit;
        (limit, self.bucket.get_or_insert_with(|| RateBucket::full(limit, now_ms)))
    }
}

/// Of a shard. A queue without a rate is not among them.
#[derive(Debug, Default)]
pub(super) struct QueueRates {
    queues: FxHashMap<SubscriptionNo, QueueRate>,
    /// Moments at which queues are to be looked at; one that is no longer its queue's means nothing.
    heap: BinaryHeap<Reverse<(i64, SubscriptionNo)>>,
    /// Queues that have another rate than they were looked at with.
    changed: Vec<SubscriptionNo>,
}

impl QueueRates {
    /// A queue has that rate from now on, or none. What of the one before is left is kept; a queue whose rate is another one is [due](Self::due).
    pub(super) fn set(&mut self, queue: SubscriptionNo, limit: Option<RateLimit>) {
        let known = self.queues.get(&queue);
        if known.map(|rate| rate.limit) == limit {
            return;
        }
        let bucket = known.and_then(|rate| rate.bucket);
        match limit {
            Some(limit) => {
                self.queues.insert(queue, QueueRate { limit, bucket, at_ms: NEVER });
            }
            None => self.forget(queue),
        }
        self.changed.push(queue);
    }

    /// A queue is gone, or has no rate any more.
    pub(super) fn forget(&mut self, queue: SubscriptionNo) {
        self.queues.remove(&queue);
    }

    /// The same for a new term: what an earlier leader dealt is not known here, and counts as nothing.
    pub(super) fn anew(mut self) -> Self {
        self.heap.clear();
        self.queues.values_mut().for_each(|rate| (rate.bucket, rate.at_ms) = (None, NEVER));
        self
    }

    /// How many of a queue's messages may be dealt now, of so many at the most.
    pub(super) fn available(&mut self, queue: SubscriptionNo, now_ms: i64, most: u32) -> u32 {
        if self.queues.is_empty() {
            return most;
        }
        let Some(rate) = self.queues.get_mut(&queue) else { return most };
        let (limit, bucket) = rate.bucket(now_ms);
        bucket.available(limit, now_ms).min(most)
    }

    /// So many were dealt, no more than [may be](Self::available). Where there is more and none may be dealt now, the queue is [due](Self::due) when
    /// that is over, and this tells so.
    pub(super) fn dealt(&mut self, queue: SubscriptionNo, now_ms: i64, messages: u32, more: bool) -> bool {
        let Some(rate) = self.queues.get_mut(&queue) else { return false };
        let (limit, bucket) = rate.bucket(now_ms);
        bucket.take(limit, now_ms, messages);
        if !more || bucket.available(limit, now_ms) > 0 {
            return false;
        }
        // Half of the burst at the most: what comes while the thread is late is not to be lost.
        let wanted = (limit.per_second / WAITS_A_SECOND).min(limit.burst / 2);
        let at_ms = bucket.next_ms(limit, wanted).unwrap_or(NEVER);
        if at_ms < rate.at_ms {
            rate.at_ms = at_ms;
            self.heap.push(Reverse((at_ms, queue)));
        }
        true
    }

    /// Takes a queue whose moment has come.
    pub(super) fn due(&mut self, now_ms: i64) -> Option<SubscriptionNo> {
        if let Some(queue) = self.changed.pop() {
            return Some(queue);
        }
        while let Some(&Reverse((at_ms, queue))) = self.heap.peek()
            && at_ms <= now_ms
        {
            self.heap.pop();
            if let Some(rate) = self.queues.get_mut(&queue).filter(|rate| rate.at_ms == at_ms) {
                rate.at_ms = NEVER;
                return Some(queue);
            }
        }
        None
    }

    /// The moment at which a queue may be due next.
    pub(super) fn next_ms(&self) -> Option<i64> {
        if !self.changed.is_empty() {
            return Some(i64::MIN);
        }
        self.heap.peek().map(|Reverse((at_ms, _))| *at_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: SubscriptionNo = SubscriptionNo(1);
    const TWO: SubscriptionNo = SubscriptionNo(2);

    fn limit(per_second: u32, burst: u32) -> Option<RateLimit> {
        Some(RateLimit { per_second, burst })
    }

    /// Those of one queue, which was looked at.
    fn with(queue: SubscriptionNo, limit: Option<RateLimit>) -> QueueRates {
        let mut rates = QueueRates::default();
        rates.set(queue, limit);
        assert_eq!(rates.due(0), Some(queue));
        rates
    }

    #[test]
    fn a_queue_without_a_rate_is_dealt_whatever_there_is() {
        let mut rates = QueueRates::default();
        rates.set(ONE, None);
        assert_eq!((rates.available(ONE, 0, 9), rates.dealt(ONE, 0, 9, true)), (9, false));
        assert_eq!(rates.next_ms(), None);
        rates.set(TWO, limit(10, 5));
        assert_eq!((rates.available(ONE, 0, 9), rates.available(TWO, 0, 9)), (9, 5));
        rates.set(TWO, None);
        assert_eq!((rates.available(TWO, 0, 9), rates.next_ms()), (9, Some(i64::MIN)));
        assert_eq!((rates.due(0), rates.due(0), rates.due(0)), (Some(TWO), Some(TWO), None));
    }

    #[test]
    fn one_that_has_more_than_it_may_is_due_when_it_may() {
        let mut rates = with(ONE, limit(10, 5));
        assert!(!rates.dealt(ONE, 0, 4, true), "one more may be dealt");
        assert!(!rates.dealt(ONE, 0, 1, false), "nobody waits");
        assert!(rates.dealt(ONE, 30, 0, true));
        assert!(rates.dealt(ONE, 40, 0, true));
        assert_eq!((rates.due(99), rates.next_ms()), (None, Some(100)));
        assert_eq!((rates.due(100), rates.due(100)), (Some(ONE), None));
        assert_eq!(rates.available(ONE, 100, 9), 1);
        let mut rates = with(TWO, limit(10_000, 1_000));
        assert!(rates.dealt(TWO, 0, 1_000, true));
        assert_eq!(rates.next_ms(), Some(10), "not for each by itself");
    }

    #[test]
    fn a_rate_that_is_changed_keeps_what_is_left_and_a_term_begins_with_all_of_it() {
        let mut rates = with(ONE, limit(1, 100));
        assert!(rates.dealt(ONE, 0, 100, true));
        rates.set(ONE, limit(1, 100));
        assert_eq!(rates.next_ms(), Some(1_000), "it is no other one");
        rates.set(ONE, limit(100, 100));
        assert_eq!((rates.due(0), rates.due(1_000)), (Some(ONE), None), "another moment has come");
        assert_eq!((rates.available(ONE, 0, 9), rates.available(ONE, 10, 9)), (0, 1));
        rates.set(ONE, limit(100, 2));
        assert_eq!((rates.due(0), rates.available(ONE, 10_000, 9)), (Some(ONE), 2));
        assert!(rates.dealt(ONE, 10_000, 2, true));
        let mut rates = rates.anew();
        assert_eq!((rates.next_ms(), rates.available(ONE, 10_000, 9)), (None, 2));
    }
}

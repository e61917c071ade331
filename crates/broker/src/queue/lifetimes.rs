//! Queues that are deleted when they are not used for some time.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use rustc_hash::FxHashMap;
use sabir_model::PartitionId;

/// How long it is waited for a deletion before it is asked for once more, in milliseconds.
const AGAIN_MS: i64 = 5_000;

const NEVER: i64 = i64::MAX;

#[derive(Debug, Clone, Copy)]
struct Lifetime {
    /// How long it may be unused, in milliseconds.
    expires_ms: u64,
    /// When it was used last.
    used_ms: i64,
    /// The moment for which it is in the heap; [`NEVER`] if it is not.
    at_ms: i64,
}

/// Of a shard. A use costs no more than to note it: it is judged when the moment has come that was the end before it.
#[derive(Debug, Default)]
pub(super) struct Lifetimes {
    queues: FxHashMap<PartitionId, Lifetime>,
    /// Moments at which queues are to be judged; one that is no longer its queue's means nothing.
    heap: BinaryHeap<Reverse<(i64, PartitionId)>>,
}

impl Lifetimes {
    /// A queue is there, which may be unused for so long, if that is limited. What is known already goes on.
    pub(super) fn set(&mut self, queue: PartitionId, expires_ms: Option<u64>, now_ms: i64) {
        let Some(expires_ms) = expires_ms else { return self.forget(queue) };
        if self.queues.get(&queue).is_none_or(|known| known.expires_ms != expires_ms) {
            self.queues.insert(queue, Lifetime { expires_ms, used_ms: now_ms, at_ms: NEVER });
            self.used(queue, now_ms);
        }
    }

    /// A queue is gone, or may be unused for ever.
    pub(super) fn forget(&mut self, queue: PartitionId) {
        self.queues.remove(&queue);
    }

    /// A queue is used.
    pub(super) fn used(&mut self, queue: PartitionId, now_ms: i64) {
        let Some(lifetime) = self.queues.get_mut(&queue) else { return };
        lifetime.used_ms = now_ms;
        if lifetime.at_ms == NEVER {
            lifetime.at_ms = now_ms.saturating_add_unsigned(lifetime.expires_ms);
            self.heap.push(Reverse((lifetime.at_ms, queue)));
        }
    }

    /// All are used.
    pub(super) fn restart(&mut self, now_ms: i64) {
        let queues: Vec<PartitionId> = self.queues.keys().copied().collect();
        queues.into_iter().for_each(|queue| self.used(queue, now_ms));
    }

    /// Gives the queues that were not used for too long; one that is not deleted is given again. One that has consumers is judged when it was
    /// [used](Self::used) last.
    pub(super) fn ended(
        &mut self,
        now_ms: i64,
        has_consumers: impl Fn(PartitionId) -> bool,
    ) -> Vec<PartitionId> {
        let mut ended = Vec::new();
        while let Some(&Reverse((at_ms, queue))) = self.heap.peek()
            && at_ms <= now_ms
        {
            self.heap.pop();
            let Some(lifetime) = self.queues.get_mut(&queue).filter(|lifetime| lifetime.at_ms == at_ms)
            else {
                continue;
            };
            lifetime.at_ms = NEVER;
            if has_consumers(queue) {
                continue;
            }
            let ends_ms = lifetime.used_ms.saturating_add_unsigned(lifetime.expires_ms);
            if ends_ms <= now_ms {
                ended.push(queue);
            }
            lifetime.at_ms = if ends_ms <= now_ms { now_ms.saturating_add(AGAIN_MS) } else { ends_ms };
            self.heap.push(Reverse((lifetime.at_ms, queue)));
        }
        ended
    }

    /// The moment at which something may be due next.
    pub(super) fn next_ms(&self) -> Option<i64> {
        self.heap.peek().map(|Reverse((at_ms, _))| *at_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: PartitionId = PartitionId(1);
    const TWO: PartitionId = PartitionId(2);

    #[test]
    fn a_queue_ends_once_it_was_not_used_for_so_long() {
        let mut lives = Lifetimes::default();
        lives.set(ONE, Some(100), 0);
        lives.set(TWO, None, 0);
        lives.used(ONE, 60);
        lives.set(ONE, Some(100), 90);
        assert_eq!(lives.ended(100, |_| false), [], "it was used meanwhile");
        assert_eq!(lives.next_ms(), Some(160));
        assert_eq!(lives.ended(159, |_| false), []);
        assert_eq!(lives.ended(160, |_| false), [ONE]);
        assert_eq!(lives.ended(161, |_| false), []);
        assert_eq!(lives.ended(160 + AGAIN_MS, |_| false), [ONE], "it was not deleted");
        lives.forget(ONE);
        assert_eq!(lives.ended(i64::MAX - 1, |_| false), []);
        assert_eq!(lives.next_ms(), None);
    }

    #[test]
    fn a_queue_with_consumers_lives_for_its_time_from_when_the_last_goes() {
        let mut lives = Lifetimes::default();
        lives.set(ONE, Some(1), 0);
        assert_eq!((lives.ended(50, |_| true), lives.next_ms()), (vec![], None), "nothing wakes for it");
        lives.used(ONE, 70);
        assert_eq!(lives.ended(70, |_| false), []);
        assert_eq!(lives.ended(71, |_| false), [ONE]);
        lives.set(TWO, Some(500), 100);
        lives.set(TWO, Some(5), 100);
        assert_eq!(lives.ended(105, |_| false), [TWO], "another time holds at once");
        lives.used(TWO, 500);
        assert_eq!(lives.ended(600, |_| false), [], "the former one means nothing");
    }

    #[test]
    fn all_begin_anew_with_a_term() {
        let mut lives = Lifetimes::default();
        lives.set(ONE, Some(10), 0);
        lives.set(TWO, Some(10), 0);
        assert_eq!(lives.ended(10, |queue| queue == ONE), [TWO]);
        lives.restart(20);
        assert_eq!(lives.next_ms(), Some(30));
        assert_eq!(lives.ended(30, |_| false), [ONE]);
    }
}

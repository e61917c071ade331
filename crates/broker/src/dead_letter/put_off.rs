//! Dead letters that could not be read, and are looked at again after a while: a disk may err while it reads.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::{Duration, Instant};

use rustc_hash::FxHashMap;
use sabir_delivery::subscription::SubscriptionNo;

/// For how long.
const PUT_OFF: Duration = Duration::from_secs(60);

/// Messages that are put off, by their queue. All of a shard are looked at again at once.
#[derive(Debug, Default)]
pub(super) struct PutOff {
    queues: FxHashMap<SubscriptionNo, PutOffMessages>,
    again_at: Option<Instant>,
}

/// Those of one queue.
#[derive(Debug, Default)]
pub(super) struct PutOffMessages {
    /// Runs that do not overlap: where each ends, by where it begins.
    runs: BTreeMap<u64, u64>,
}

impl PutOff {
    pub(super) fn put(&mut self, queue: SubscriptionNo, offset: u64, now: Instant) {
        self.queues.entry(queue).or_default().put(offset);
        self.again_at.get_or_insert(now + PUT_OFF);
    }

    /// The queues that are to be looked at again, if it is time.
    pub(super) fn take_due(&mut self, now: Instant) -> Vec<SubscriptionNo> {
        if self.again_at.is_none_or(|at| at > now) {
            return Vec::new();
        }
        self.again_at = None;
        self.queues.drain().map(|(queue, _)| queue).collect()
    }

    /// For how long nothing is to be looked at again; none if nothing is put off.
    pub(super) fn left(&self, now: Instant) -> Option<Duration> {
        self.again_at.map(|at| at.saturating_duration_since(now))
    }

    pub(super) fn of(&self, queue: SubscriptionNo) -> Option<&PutOffMessages> {
        self.queues.get(&queue)
    }
}

impl PutOffMessages {
    fn put(&mut self, offset: u64) {
        match self.runs.range_mut(..=offset).next_back() {
            Some((_, end)) if *end >= offset => *end = (*end).max(offset + 1),
            _ => {
                self.runs.insert(offset, offset + 1);
            }
        }
    }

    /// The parts of a run that are not put off.
    pub(super) fn others(&self, run: Range<u64>) -> impl Iterator<Item = Range<u64>> {
        let mut at = run.start;
        std::iter::from_fn(move || {
            while let Some((_, end)) = self.runs.range(..=at).next_back()
                && *end > at
            {
                at = *end;
            }
            if at >= run.end {
                return None;
            }
            let next = self.runs.range(at..).next().map_or(run.end, |(start, _)| run.end.min(*start));
            let part = at..next;
            at = next;
            Some(part)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUEUE: SubscriptionNo = SubscriptionNo(1);

    #[test]
    fn what_is_put_off_is_passed_over_until_its_time() {
        let (mut put_off, now) = (PutOff::default(), Instant::now());
        assert_eq!((put_off.left(now), put_off.take_due(now)), (None, vec![]));
        [5, 6, 7, 10, 6, 11].into_iter().for_each(|offset| put_off.put(QUEUE, offset, now));
        let others = |put_off: &PutOff, run| put_off.of(QUEUE).unwrap().others(run).collect::<Vec<_>>();
        assert_eq!(others(&put_off, 0..20), [0..5, 8..10, 12..20]);
        assert_eq!(others(&put_off, 6..11), [8..10; 1]);
        assert_eq!(others(&put_off, 5..8), []);
        assert_eq!(others(&put_off, 0..5), [0..5; 1]);
        assert!(put_off.of(SubscriptionNo(2)).is_none());
        assert_eq!(put_off.left(now), Some(PUT_OFF));
        assert_eq!(put_off.take_due(now + PUT_OFF / 2), []);
        assert_eq!(put_off.take_due(now + PUT_OFF), [QUEUE]);
        assert!(put_off.of(QUEUE).is_none() && put_off.left(now).is_none());
    }
}

//! Dead letters that are looked at again after a while: those that could not be read, since a disk may err while it reads, and those for a shard that takes
//! nothing now. The others of their queue go meanwhile.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::{Duration, Instant};

use rustc_hash::FxHashMap;
use sabir_delivery::subscription::SubscriptionNo;

/// Messages that are put off for one reason, by their queue. All of a shard are looked at again at once.
#[derive(Debug)]
pub(super) struct PutOff {
    /// For how long.
    time: Duration,
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
    pub(super) fn new(time: Duration) -> Self {
        Self { time, queues: FxHashMap::default(), again_at: None }
    }

    pub(super) fn put(&mut self, queue: SubscriptionNo, offsets: Range<u64>, now: Instant) {
        let messages = self.queues.entry(queue).or_default();
        offsets.for_each(|offset| messages.put(offset));
        self.again_at.get_or_insert(now + self.time);
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

    /// The parts of a queue's run that are not put off.
    pub(super) fn others(&self, queue: SubscriptionNo, run: Range<u64>) -> Vec<Range<u64>> {
        match self.queues.get(&queue) {
            Some(messages) => messages.others(run).collect(),
            None => vec![run],
        }
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
    fn others(&self, run: Range<u64>) -> impl Iterator<Item = Range<u64>> {
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
        const TIME: Duration = Duration::from_secs(60);
        let (mut put_off, now) = (PutOff::new(TIME), Instant::now());
        assert_eq!((put_off.left(now), put_off.take_due(now)), (None, vec![]));
        [5..8, 10..11, 6..7, 11..12].into_iter().for_each(|offsets| put_off.put(QUEUE, offsets, now));
        assert_eq!(put_off.others(QUEUE, 0..20), [0..5, 8..10, 12..20]);
        assert_eq!(put_off.others(QUEUE, 6..11), [8..10; 1]);
        assert_eq!(put_off.others(QUEUE, 5..8), []);
        assert_eq!(put_off.others(QUEUE, 0..5), [0..5; 1]);
        assert_eq!(put_off.others(SubscriptionNo(2), 0..20), [0..20; 1]);
        assert_eq!(put_off.left(now), Some(TIME));
        assert_eq!(put_off.take_due(now + TIME / 2), []);
        assert_eq!(put_off.take_due(now + TIME), [QUEUE]);
        assert_eq!((put_off.others(QUEUE, 0..20), put_off.left(now)), (vec![0..20; 1], None));
    }
}

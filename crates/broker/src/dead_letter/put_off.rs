//! Dead letters that are looked at again after a while: those that could not be read, since a disk may err while it reads, and those for a shard that takes
//! nothing now. The others of their queue go meanwhile.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::{Duration, Instant};

use rustc_hash::FxHashMap;
use sabir_delivery::subscription::SubscriptionNo;

/// For how long messages are put off at the most for having taken long, and for how long others of their queue may go on and on before them.
const LONGEST: Duration = Duration::from_secs(5 * 60);
/// Runs of a queue that are kept apart. Where there are more, what lies between them, nearly all of it settled, is put off with them.
const MOST_RUNS: usize = 16 << 10;

/// Messages that are put off for one reason, by their queue. All of a queue are looked at again together.
#[derive(Debug)]
pub(super) struct PutOff {
    /// For how long at the least, from when the last of a queue was put off. Where it took longer to come to that one, it is for as long again, up to
    /// [`LONGEST`]: what waits behind a disk that is full is not read all the time.
    time: Duration,
    queues: FxHashMap<SubscriptionNo, PutOffMessages>,
}

/// Those of one queue.
#[derive(Debug)]
struct PutOffMessages {
    /// Runs that neither overlap nor touch: where each ends, by where it begins.
    runs: BTreeMap<u64, u64>,
    /// When the first was put off.
    since: Instant,
    again_at: Instant,
}

impl PutOff {
    pub(super) fn new(time: Duration) -> Self {
        Self { time, queues: FxHashMap::default() }
    }

    pub(super) fn put(&mut self, queue: SubscriptionNo, offsets: Range<u64>, now: Instant) {
        let none = || PutOffMessages { runs: BTreeMap::new(), since: now, again_at: now };
        let messages = self.queues.entry(queue).or_insert_with(none);
        messages.put(offsets);
        let so_far = now.saturating_duration_since(messages.since);
        messages.again_at = (now + self.time.max(so_far.min(LONGEST))).min(messages.overdue_at(self.time));
    }

    /// The queues with messages that are to be looked at again.
    pub(super) fn due(&self, now: Instant) -> impl Iterator<Item = SubscriptionNo> {
        self.queues.iter().filter(move |(_, messages)| messages.again_at <= now).map(|(queue, _)| *queue)
    }

    /// Puts nothing of a queue off any longer, if it is time. Tells whether there was anything.
    pub(super) fn take_due(&mut self, queue: SubscriptionNo, now: Instant) -> bool {
        self.take_at(queue, now, |messages| messages.again_at)
    }

    /// The same where others of the queue wait still, which come again and again.
    pub(super) fn take_overdue(&mut self, queue: SubscriptionNo, now: Instant) -> bool {
        let time = self.time;
        self.take_at(queue, now, |messages| messages.overdue_at(time))
    }

    fn take_at(
        &mut self,
        queue: SubscriptionNo,
        now: Instant,
        at: impl Fn(&PutOffMessages) -> Instant,
    ) -> bool {
        let is_due = self.queues.get(&queue).is_some_and(|messages| at(messages) <= now);
        is_due && self.queues.remove(&queue).is_some()
    }

    /// For how long nothing is to be looked at again; none if nothing is put off.
    pub(super) fn left(&self, now: Instant) -> Option<Duration> {
        self.queues.values().map(|messages| messages.again_at.saturating_duration_since(now)).min()
    }

    /// The parts of a queue's run that are not put off.
    pub(super) fn others(&self, queue: SubscriptionNo, run: Range<u64>) -> impl Iterator<Item = Range<u64>> {
        let (messages, mut at) = (self.queues.get(&queue), run.start);
        std::iter::from_fn(move || {
            let end_at = |at| messages.and_then(|messages| messages.end_at(at));
            at = end_at(at).unwrap_or(at);
            if at >= run.end {
                return None;
            }
            let next =
                messages.and_then(|messages| messages.next(at)).map_or(run.end, |next| next.min(run.end));
            let part = at..next;
            at = next;
            Some(part)
        })
    }
}

impl PutOffMessages {
    fn put(&mut self, offsets: Range<u64>) {
        let (mut start, mut end) = (offsets.start, offsets.end);
        while let Some((&from, &to)) = self.runs.range(..=end).next_back()
            && to >= start
        {
            (start, end) = (start.min(from), end.max(to));
            self.runs.remove(&from);
        }
        self.runs.insert(start, end);
        if self.runs.len() > MOST_RUNS {
            self.join();
        }
    }

    fn join(&mut self) {
        let all = self.runs.first_key_value().zip(self.runs.last_key_value());
        if let Some(((start, _), (_, end))) = all {
            self.runs = BTreeMap::from([(*start, *end)]);
        }
    }

    /// When they are looked at again whatever waits beside them.
    fn overdue_at(&self, time: Duration) -> Instant {
        self.since + time.max(2 * LONGEST)
    }

    /// Where the run ends that an offset is in.
    fn end_at(&self, offset: u64) -> Option<u64> {
        self.runs.range(..=offset).next_back().map(|(_, end)| *end).filter(|end| *end > offset)
    }

    /// Where the next run begins at or behind an offset.
    fn next(&self, offset: u64) -> Option<u64> {
        self.runs.range(offset..).next().map(|(start, _)| *start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: SubscriptionNo = SubscriptionNo(1);
    const TWO: SubscriptionNo = SubscriptionNo(2);
    const TIME: Duration = Duration::from_secs(60);

    #[test]
    fn what_is_put_off_is_passed_over_until_its_time() {
        let (mut put_off, now) = (PutOff::new(TIME), Instant::now());
        assert_eq!((put_off.left(now), put_off.due(now).next()), (None, None));
        [5..8, 10..11, 6..7, 11..12].into_iter().for_each(|offsets| put_off.put(ONE, offsets, now));
        let others = |put_off: &PutOff, queue, run| put_off.others(queue, run).collect::<Vec<_>>();
        assert_eq!(others(&put_off, ONE, 0..20), [0..5, 8..10, 12..20]);
        assert_eq!(others(&put_off, ONE, 6..11), [8..10; 1]);
        assert_eq!(others(&put_off, ONE, 5..8), []);
        assert_eq!(others(&put_off, ONE, 0..5), [0..5; 1]);
        assert_eq!(others(&put_off, TWO, 0..20), [0..20; 1]);
        put_off.put(ONE, 3..10, now);
        assert_eq!(others(&put_off, ONE, 0..20), [0..3, 12..20]);
        assert_eq!(put_off.left(now), Some(TIME));
        assert!(put_off.due(now + TIME / 2).next().is_none() && !put_off.take_due(ONE, now + TIME / 2));
        assert_eq!(put_off.due(now + TIME).collect::<Vec<_>>(), [ONE]);
        assert_eq!(others(&put_off, ONE, 0..20), [0..3, 12..20], "nothing was taken");
        assert!(put_off.take_due(ONE, now + TIME) && !put_off.take_due(ONE, now + TIME));
        assert_eq!((others(&put_off, ONE, 0..20), put_off.left(now)), (vec![0..20; 1], None));
    }

    #[test]
    fn each_queue_has_its_own_time() {
        let (mut put_off, now) = (PutOff::new(TIME), Instant::now());
        put_off.put(ONE, 0..1, now);
        put_off.put(TWO, 0..1, now + TIME / 2);
        assert_eq!(put_off.due(now + TIME).collect::<Vec<_>>(), [ONE]);
        assert!(put_off.take_due(ONE, now + TIME) && !put_off.take_due(TWO, now + TIME));
        assert_eq!(put_off.left(now + TIME), Some(TIME / 2));
    }

    #[test]
    fn what_took_long_to_be_put_off_is_put_off_for_as_long() {
        let (mut put_off, now) = (PutOff::new(TIME), Instant::now());
        put_off.put(ONE, 0..1, now);
        put_off.put(ONE, 5..6, now + TIME / 2);
        assert_eq!(put_off.left(now + TIME / 2), Some(TIME), "it begins with the last");
        put_off.put(ONE, 9..10, now + TIME * 3);
        assert_eq!(put_off.left(now + TIME * 3), Some(TIME * 3));
    }
    #[test]
    fn a_queue_whose_letters_never_end_is_looked_at_again_and_what_is_known_of_it_is_bounded() {
        let (mut put_off, began) = (PutOff::new(Duration::from_secs(1)), Instant::now());
        let at = |second: u64| began + Duration::from_secs(second);
        // Every other one, for a quarter of an hour.
        for number in 0..200_000 {
            put_off.put(ONE, 2 * number..2 * number + 1, at(number / 200));
        }
        let runs = put_off.queues[&ONE].runs.len();
        assert!(runs <= MOST_RUNS, "{runs} runs");
        assert!(put_off.others(ONE, 0..400_000).all(|part| part.start > 0 && part.end - part.start == 1));
        assert!(!put_off.take_overdue(ONE, at(599)));
        assert_eq!(put_off.due(at(1_000)).collect::<Vec<_>>(), [ONE], "however lately one was put off");
        assert!(put_off.take_overdue(ONE, at(1_000)));
        assert_eq!(put_off.others(ONE, 0..400_000).collect::<Vec<_>>(), [0..400_000; 1]);
        // Nor does it take much longer than that until what was put off for hours has its turn.
        put_off.put(TWO, 0..1, at(0));
        put_off.put(TWO, 1..2, at(590));
        assert_eq!(put_off.left(at(590)), Some(Duration::from_secs(10)));
    }
}

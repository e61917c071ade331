//! Checks of batches. What one takes follows its own size and the level that its topic wants; a check that has proved to take more than it seemed to
//! goes behind, and waits with its like.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use sabir_model::batch::{BatchCheck, BatchRefusal, CheckCost, CheckedBatch};

use super::crowding::LongRequest;
use super::turns::processor_time;
use super::{Asker, JobCost, JobSize, Turn, Workers};

/// Bytes that a job of several small checks takes, at the least.
const SMALL: usize = 4 << 20;
/// Small checks go to a worker together: so many, and of so many bytes.
const TOGETHER: usize = 256;
const TOGETHER_BYTES: usize = 1 << 20;
/// How long small checks go on together. What is left has its turn when others have had theirs.
const TOGETHER_TIME: Duration = Duration::from_millis(10);
/// A request that has had so much work done is no longer small, and then no longer medium.
const SMALL_WORK: Duration = Duration::from_millis(50);
const MEDIUM_WORK: Duration = Duration::from_millis(500);
/// A small check that takes more of a processor's time is ended, and its connection's are with the medium ones until some have taken less: what
/// comes out of a batch does not tell how many headers or frames there are in it. A record of a megabyte takes a fraction of it, as many bytes of
/// nothing but headers twice as much.
const CHEAP: Duration = Duration::from_millis(3);

/// What comes of a check.
pub type Checked = Result<CheckedBatch, BatchRefusal>;

/// The checks of a request that are still to be ended, in order.
#[derive(Debug)]
pub struct Checks {
    begun: VecDeque<BatchCheck>,
    /// The limit within which the first of them was tried already.
    tried: usize,
    /// How long workers have worked on this request.
    worked: Duration,
    /// Whether the first of them has shown that it takes more than [`Self::cheap`].
    is_dear: bool,
    /// What a small check may take.
    cheap: Duration,
    /// Once a worker has looked at some.
    long: Option<LongRequest>,
}

impl From<Vec<BatchCheck>> for Checks {
    fn from(begun: Vec<BatchCheck>) -> Self {
        Self {
            begun: begun.into(),
            tried: 0,
            worked: Duration::ZERO,
            is_dear: false,
            cheap: CHEAP,
            long: None,
        }
    }
}

impl Checks {
    /// Whether all are ended.
    pub fn is_empty(&self) -> bool {
        self.begun.is_empty()
    }

    /// Whether the request is to end with what is done of it: the workers have looked at it for long, no other has more left, and frames of others wait
    /// for memory that it holds. To be asked between two [looks](Workers::check_next).
    pub fn is_over(&self) -> bool {
        self.long.as_ref().is_some_and(|long| long.is_over(self.begun.len(), Instant::now()))
    }

    /// What is to be done next.
    fn portion(&mut self, most: usize) -> Portion {
        let tried = std::mem::take(&mut self.tried);
        let mut portion = Portion { most, ..Portion::default() };
        while let Some(next) = self.begun.pop_front_if(|next| portion.takes(next, tried)) {
            portion.push(next, tried);
            if tried > 0 || self.is_dear {
                break;
            }
        }
        portion
    }

    /// What size a portion's job has: it may be small, and its request or the connection that asks not.
    fn size(&self, portion: &Portion, asker: &Asker) -> JobSize {
        let by_work = match self.worked {
            worked if worked < SMALL_WORK => JobSize::Small,
            worked if worked < MEDIUM_WORK => JobSize::Medium,
            _ => JobSize::Large,
        };
        let by_cost = match portion.work {
            _ if self.is_dear => JobSize::Medium,
            _ if portion.is_small() => asker.size_of_small(),
            work if work <= CheckCost::MODEST => JobSize::Modest,
            work if work <= CheckCost::MEDIUM => JobSize::Medium,
            work if work <= CheckCost::LARGE => JobSize::Large,
            _ => JobSize::Slow,
        };
        by_work.max(by_cost)
    }

    fn take_back(&mut self, left: Left) {
        self.worked += left.worked;
        self.tried = left.tried;
        self.is_dear = left.is_dear;
        left.checks.into_iter().rev().for_each(|check| self.begun.push_front(check));
    }
}

/// Checks that go to a worker together.
#[derive(Debug, Default)]
struct Portion {
    checks: VecDeque<BatchCheck>,
    /// Bytes of batches that are still to be looked at.
    bytes: usize,
    /// The most work that one of them takes, and the most memory.
    work: usize,
    memory: usize,
    /// The limit within which the only one was tried already.
    tried: usize,
    /// The most memory that one may take.
    most: usize,
}

impl Portion {
    fn is_small(&self) -> bool {
        self.work <= CheckCost::SMALL
    }

    fn takes(&self, next: &BatchCheck, tried: usize) -> bool {
        let BatchCheck::Long(long) = next else { return self.checks.len() < TOGETHER };
        let work = long.cost(long.limit_after(tried, self.most), self.most).work.max(self.work);
        let fits = self.bytes + long.bytes() <= TOGETHER_BYTES && work <= CheckCost::SMALL;
        self.checks.is_empty() || (self.checks.len() < TOGETHER && fits)
    }

    fn push(&mut self, check: BatchCheck, tried: usize) {
        if let BatchCheck::Long(long) = &check {
            let CheckCost { bytes, work } = long.cost(long.limit_after(tried, self.most), self.most);
            self.bytes += long.bytes();
            self.work = self.work.max(work);
            self.memory = self.memory.max(bytes);
        }
        self.tried = tried;
        self.checks.push_back(check);
    }

    fn cost(&self, size: JobSize) -> JobCost {
        let least = if self.checks.len() > 1 { SMALL } else { 0 };
        JobCost { bytes: self.memory.max(least), size }
    }

    /// The limit within which the first was tried that it exceeds.
    fn tried_next(&self) -> usize {
        match self.checks.front() {
            Some(BatchCheck::Long(long)) => long.limit_after(self.tried, self.most),
            _ => 0,
        }
    }

    /// Ends checks for as long as they are small and it takes little. One is ended, or known to be larger or dear, in any case: dear is what
    /// takes longer than `cheap`, if there is such a bound.
    fn run(mut self, cheap: Option<Duration>, turn: &mut Turn<'_>) -> (Vec<Checked>, Left) {
        let mut ended = Vec::with_capacity(self.checks.len());
        let (mut larger, mut is_dear) = (0, false);
        while let Some(check) = self.checks.front() {
            let (tried, most) = (self.tried, self.most);
            let done = match cheap {
                Some(cheap) => turn.within(cheap, |turn| end(check, tried, most, turn)),
                None => Some(end(check, tried, most, turn)),
            };
            let Some(done) = done else {
                (larger, is_dear) = (tried, true);
                break;
            };
            let Some(done) = done else {
                larger = self.tried_next();
                break;
            };
            ended.push(done);
            self.checks.pop_front();
            turn.pause();
            if turn.worked() >= TOGETHER_TIME {
                break;
            }
        }
        (ended, Left { checks: self.checks, tried: larger, worked: turn.worked(), is_dear })
    }
}

/// What a worker has not ended.
struct Left {
    checks: VecDeque<BatchCheck>,
    tried: usize,
    worked: Duration,
    /// Whether the first of them was ended for taking too long.
    is_dear: bool,
}

/// Ends a check within so much memory; `None` if it exceeds the next limit after what was tried.
fn end(check: &BatchCheck, tried: usize, most: usize, turn: &mut Turn<'_>) -> Option<Checked> {
    let long = match check {
        BatchCheck::Done(batch) => return Some(Ok(batch.clone())),
        BatchCheck::Long(long) => long,
    };
    let limit = long.limit_after(tried, most);
    match long.run(limit, most, &mut || turn.pause()) {
        Err(refusal) if refusal.exceeds() && limit < long.limit(most) => None,
        done => Some(done),
    }
}

impl Workers {
    /// Ends the next checks of a request, in order: one that takes much alone, small ones together. What comes of them is no more than a
    /// batch made anew, or slices of what came; it is to be appended before the next are ended. Nothing comes of none.
    pub async fn check_next(&self, checks: &mut Checks) -> Vec<Checked> {
        checks.long.get_or_insert_with(|| self.shared.long.begin(Instant::now()));
        while !checks.is_empty() {
            let portion = checks.portion(self.check_memory());
            if portion.bytes == 0 {
                return portion.checks.into_iter().filter_map(done).collect();
            }
            let (count, is_small, cheap) = (portion.checks.len(), portion.is_small(), checks.cheap);
            let cost = portion.cost(checks.size(&portion, &self.asker));
            let bound = (cost.size < JobSize::Medium && is_small).then_some(cheap);
            let work = move |turn: &mut Turn<'_>| {
                let before = processor_time();
                let done = portion.run(bound, turn);
                (done, processor_time() - before)
            };
            let Some(((ended, left), took)) = self.run(cost, work).await else {
                return vec![Err(BatchRefusal::Failed); count];
            };
            if is_small {
                let each = took / u32::try_from(ended.len().max(1)).unwrap_or(u32::MAX);
                self.asker.proved(left.is_dear || each > cheap);
            }
            checks.take_back(left);
            if !ended.is_empty() {
                return ended;
            }
        }
        Vec::new()
    }
}

fn done(check: BatchCheck) -> Option<Checked> {
    match check {
        BatchCheck::Done(batch) => Some(Ok(batch)),
        // It has bytes.
        BatchCheck::Long(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use sabir_model::batch::{BatchBuilder, Compression, InlineBudget, RulesOf};
    use sabir_model::{TopicConfig, TopicId};

    use super::*;
    use crate::workers::turns::{Stops, Turns};

    const NOW: i64 = 1_700_000_000_000;

    /// A check, not begun yet, of one batch with a record of so many zeros at each time.
    fn checks(config: &TopicConfig, sizes: &[usize]) -> Checks {
        let rules = || config.batch_rules(RulesOf { topic: TopicId([1; 16]), version: 1 });
        let begin = |(at, size): (usize, &usize)| {
            let mut builder = BatchBuilder::new(Compression::Gzip);
            builder.push(NOW + at as i64, None, Some(&vec![0; *size]), &[]);
            BatchCheck::begin(builder.build(), rules(), NOW, &mut InlineBudget(0)).unwrap()
        };
        Checks::from(sizes.iter().enumerate().map(begin).collect::<Vec<_>>())
    }

    async fn times(workers: &Workers, mut checks: Checks) -> Vec<i64> {
        let mut times = Vec::new();
        while !checks.is_empty() {
            let ended = workers.check_next(&mut checks).await;
            assert!(!ended.is_empty());
            times.extend(ended.into_iter().map(|checked| checked.unwrap().header().max_timestamp - NOW));
        }
        times
    }

    #[tokio::test]
    async fn all_checks_end_in_order_whatever_each_comes_to() {
        let workers = Workers::of_node(512 << 20);
        let sizes = [10, 3 << 20, 20, 20 << 20, 30, 40, 2 << 20, 100, 17 << 20];
        let plain = TopicConfig::default();
        assert_eq!(times(&workers, checks(&plain, &sizes)).await, (0..9).collect::<Vec<_>>());
        let anew = TopicConfig { compression: Some(Compression::Zstd), zstd_level: 19, ..plain };
        assert_eq!(times(&workers, checks(&anew, &sizes)).await, (0..9).collect::<Vec<_>>());
    }

    /// In what size of job the first of them goes to the workers.
    fn size(checks: &mut Checks) -> JobSize {
        let portion = checks.portion(128 << 20);
        let size = checks.size(&portion, &Asker::node());
        let left =
            Left { tried: portion.tried, checks: portion.checks, worked: Duration::ZERO, is_dear: false };
        checks.take_back(left);
        size
    }

    #[tokio::test]
    async fn what_comes_first_of_its_request_is_as_large_as_its_bytes_and_the_level_are() {
        let plain = |config: &TopicConfig, bytes: usize| {
            let rules = config.batch_rules(RulesOf { topic: TopicId([1; 16]), version: 1 });
            let mut builder = BatchBuilder::new(Compression::None);
            builder.push(NOW, None, Some(&vec![0; bytes]), &[]);
            let begun = BatchCheck::begin(builder.build(), rules, NOW, &mut InlineBudget(0)).unwrap();
            size(&mut Checks::from(vec![begun]))
        };
        for (codec, level) in [(Compression::Zstd, 22), (Compression::Gzip, 9)] {
            let config = TopicConfig {
                compression: Some(codec),
                zstd_level: level,
                gzip_level: level,
                ..TopicConfig::default()
            };
            for (bytes, expected) in [
                (40, JobSize::Small),
                (3000, JobSize::Small),
                (10_000, JobSize::Modest),
                (31_000, JobSize::Medium),
                (400_000, JobSize::Large),
                (1_000_000, JobSize::Slow),
            ] {
                assert_eq!(plain(&config, bytes), expected, "{bytes} bytes under {codec}");
            }
        }
        let cheap = TopicConfig { compression: Some(Compression::Lz4), ..TopicConfig::default() };
        for (bytes, expected) in
            [(100_000, JobSize::Small), (400_000, JobSize::Modest), (1_000_000, JobSize::Medium)]
        {
            assert_eq!(plain(&cheap, bytes), expected, "{bytes} bytes");
        }
        assert_eq!(plain(&TopicConfig::default(), 1_000_000), JobSize::Small);
    }

    #[tokio::test]
    async fn a_small_check_that_takes_long_is_done_among_larger_ones_and_so_are_its_connections_next() {
        let workers = Workers::of_node(512 << 20).asked_from([127, 0, 0, 1].into());
        let next = || {
            let mut checks = checks(&TopicConfig::default(), &[700_000]);
            let portion = checks.portion(128 << 20);
            checks.size(&portion, &workers.asker)
        };
        let mut cheap = checks(&TopicConfig::default(), &[700_000, 10]);
        cheap.cheap = Duration::MAX / 2;
        assert_eq!(next(), JobSize::Modest, "it is not known yet");
        assert_eq!(times(&workers, cheap).await, [0, 1]);
        assert_eq!(next(), JobSize::Small);
        let mut dear = checks(&TopicConfig::default(), &[700_000, 10]);
        dear.cheap = Duration::ZERO;
        let portion = dear.portion(128 << 20);
        assert_eq!((portion.checks.len(), portion.is_small()), (2, true));
        let turns = Turns::new(1);
        let stops = Stops { gone: Default::default(), stopped: Default::default() };
        let run = |turn: &mut Turn<'_>| portion.run(Some(Duration::ZERO), turn);
        let (ended, left) = turns.take(JobSize::Small, Default::default(), stops).work(run).unwrap();
        assert_eq!((ended.len(), left.checks.len(), left.is_dear), (0, 2, true), "at its first pause");
        dear.take_back(left);
        let portion = dear.portion(128 << 20);
        assert_eq!((portion.checks.len(), dear.size(&portion, &workers.asker)), (1, JobSize::Medium));
        dear.take_back(Left { tried: 0, checks: portion.checks, worked: Duration::ZERO, is_dear: true });
        assert_eq!(times(&workers, dear).await, [0, 1]);
        assert_eq!(next(), JobSize::Medium);
    }

    #[tokio::test]
    async fn who_has_proved_long_is_no_longer_small() {
        let config = TopicConfig::default();
        let mut one = checks(&config, &[100]);
        assert_eq!(size(&mut one), JobSize::Small);
        for (tried, then) in
            [(1 << 20, JobSize::Modest), (4 << 20, JobSize::Medium), (16 << 20, JobSize::Large)]
        {
            one.tried = tried;
            assert_eq!(size(&mut one), then);
        }
        one.tried = 0;
        for (worked, then) in [(SMALL_WORK, JobSize::Medium), (MEDIUM_WORK, JobSize::Large)] {
            one.worked = worked;
            assert_eq!(size(&mut one), then);
        }
    }
}

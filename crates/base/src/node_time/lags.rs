//! How much older than they are things look that were stamped before the node's time stepped ahead.
//!
//! Where the time steps ahead by a day, what was stamped a second before looks a day old. If it is true that a day has passed (the machine
//! was paused), and if it is not, nothing that was stamped while the node ran may be deleted for that: it is as old as the monotonic clock
//! says. So each step is kept, with the moment up to which things were stamped before it, by a clock that goes on while the node runs.
//! For something that is kept for a week only the steps of the last week of running count: what is older than they are may go.

const HOUR: u64 = 3_600_000;
/// What is stamped between two looks at the clocks, with much to spare.
const MARGIN: u64 = 1_000;

/// How many steps are told from each other.
pub const LAGS: usize = 8;

/// By how much older than it is what was stamped up to some moment may look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ClockLag {
    /// That moment, by the time for which nodes have run on this data, in milliseconds.
    pub until_ms: u64,
    /// How much older, in milliseconds; 0 where there is no such lag.
    pub by_ms: i64,
}

/// All of them: the moments rise, how much older falls, and those that are none come last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Lags(pub [ClockLag; LAGS]);

impl Lags {
    fn known(&self) -> impl Iterator<Item = ClockLag> + '_ {
        self.0.iter().copied().filter(|lag| lag.by_ms > 0)
    }

    /// The time stepped by so much against the monotonic clock, when nodes had run for so long.
    pub fn step(&mut self, by_ms: i64, ran_ms: u64) {
        if by_ms == 0 {
            return;
        }
        let until_ms = ran_ms.saturating_add(MARGIN).div_ceil(HOUR).saturating_mul(HOUR);
        let (mut lags, mut len) = ([ClockLag::default(); LAGS + 1], 0);
        let earlier = self.known().map(|lag| ClockLag { by_ms: lag.by_ms.saturating_add(by_ms), ..lag });
        for lag in earlier.filter(|lag| lag.by_ms > 0) {
            (lags[len], len) = (lag, len + 1);
        }
        // The one of this hour, if there is one, is the last and not less.
        if by_ms > 0 && lags[..len].last().is_none_or(|last| last.until_ms < until_ms) {
            (lags[len], len) = (ClockLag { until_ms, by_ms }, len + 1);
        }
        if len > LAGS {
            merge(&mut lags);
        }
        self.0.copy_from_slice(&lags[..LAGS]);
    }

    /// By how much older than it is something may look that was stamped less than `limit_ms` ago.
    pub fn within(&self, limit_ms: i64, ran_ms: u64) -> i64 {
        let limit = u64::try_from(limit_ms).unwrap_or(0);
        self.known().find(|lag| lag.until_ms.saturating_add(limit) > ran_ms).map_or(0, |lag| lag.by_ms)
    }

    /// Whether one of more than `drift` differs from what `later` says of it by more than that.
    pub fn differ(&self, later: &Self, drift: u64) -> bool {
        let far =
            |lags: &Self| lags.known().filter(|lag| lag.by_ms.unsigned_abs() > drift).collect::<Vec<_>>();
        let (noted, now) = (far(self), far(later));
        let same =
            |(a, b): (&ClockLag, &ClockLag)| a.until_ms == b.until_ms && a.by_ms.abs_diff(b.by_ms) <= drift;
        noted.len() != now.len() || !noted.iter().zip(&now).all(same)
    }
}

/// Has the two that this costs least become one, which says of neither less than it said.
fn merge(lags: &mut [ClockLag; LAGS + 1]) {
    let cost = |i: usize| {
        let (old, new) = (lags[i], lags[i + 1]);
        i128::from(old.by_ms - new.by_ms) * i128::from(new.until_ms.saturating_sub(old.until_ms))
    };
    let cheapest = (0..LAGS).min_by_key(|&i| cost(i)).unwrap_or(0);
    lags[cheapest + 1].by_ms = lags[cheapest].by_ms;
    lags[cheapest..].rotate_left(1);
    lags[LAGS] = ClockLag::default();
}

/// What things must be older than to be deleted by age.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AgeLimits {
    /// No age is reckoned from a later time than this, whatever the limit.
    pub(crate) at_most_ms: i64,
    /// The node's time, and how long nodes had run then.
    pub(crate) now_ms: i64,
    pub(crate) ran_ms: u64,
    pub(crate) lags: Lags,
}

impl AgeLimits {
    /// Those of a clock that never steps.
    pub fn at(now_ms: i64) -> Self {
        Self { at_most_ms: now_ms, now_ms, ran_ms: 0, lags: Lags::default() }
    }

    /// From what time the age is reckoned of things that are kept for `limit_ms`.
    pub fn now_ms(&self, limit_ms: i64) -> i64 {
        self.now_ms.saturating_sub(self.lags.within(limit_ms, self.ran_ms)).min(self.at_most_ms)
    }

    /// The time before which what is kept for `limit_ms` must have been stamped to be deleted.
    pub fn since_ms(&self, limit_ms: i64) -> i64 {
        self.now_ms(limit_ms).saturating_sub(limit_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const H: u64 = HOUR;

    fn lags(steps: &[(u64, i64)]) -> Lags {
        let mut lags = Lags::default();
        steps.iter().for_each(|&(ran, by)| lags.step(by, ran));
        lags
    }

    #[test]
    fn a_step_counts_for_what_was_stamped_before_it_until_that_is_old() {
        let lags = lags(&[(10 * H, 5)]);
        assert_eq!(lags.within(2 * H as i64, 10 * H), 5);
        assert_eq!(lags.within(2 * H as i64, 13 * H - 1), 5);
        assert_eq!(lags.within(2 * H as i64, 13 * H), 0);
        assert_eq!(lags.within(i64::MAX, 1000 * H), 5);
    }

    #[test]
    fn a_step_back_takes_away_what_one_ahead_has_added_but_not_what_a_later_one_will() {
        assert_eq!(lags(&[(H, 50), (9 * H, -50)]), Lags::default());
        assert_eq!(lags(&[(H, -50), (9 * H, 50)]).within(100, 9 * H), 50, "stamped in between");
        assert_eq!(lags(&[(H, 50), (9 * H, -20), (20 * H, 5)]).within(i64::MAX, 20 * H), 35);
    }

    #[test]
    fn however_many_steps_none_is_said_to_be_less_than_it_was() {
        let mut random = 7_u64;
        let mut next = |below: u64| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) % below
        };
        for _ in 0..200 {
            let (mut lags, mut steps, mut ran) = (Lags::default(), Vec::new(), 0_u64);
            for _ in 0..60 {
                ran += next(5 * H);
                let by = next(1_000) as i64 - 480;
                steps.push((ran, by));
                lags.step(by, ran);
                for (i, (at, _)) in steps.iter().enumerate() {
                    let looks_older: i64 = steps[i..].iter().map(|(_, by)| by).sum();
                    let limit = (ran - at + 1) as i64;
                    assert!(lags.within(limit, ran) >= looks_older, "{lags:?} {steps:?}");
                }
                let mut sorted = lags.known().zip(lags.known().skip(1));
                assert!(sorted.all(|(a, b)| a.until_ms < b.until_ms && a.by_ms > b.by_ms));
            }
        }
    }

    #[test]
    fn small_ones_are_no_difference() {
        let noted = lags(&[(H, 100)]);
        assert!(!noted.differ(&lags(&[(H, 110), (5 * H, 9)]), 20));
        assert!(noted.differ(&lags(&[(H, 130)]), 20) && noted.differ(&lags(&[(3 * H, 100)]), 20));
        assert!(noted.differ(&Lags::default(), 20) && Lags::default().differ(&noted, 20));
    }
}

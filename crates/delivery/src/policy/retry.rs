//! When a returned message is tried again, and when not any more.

use std::sync::Arc;

use crate::subscription::Attempts;

/// How long a message waits before it is tried again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Backoff {
    /// So many milliseconds before the first retry, the second and so on; the last one repeats. None: at once.
    Steps(Arc<[u32]>),
    /// The first delay, and a factor for each further retry, up to the longest.
    Exponential {
        /// Milliseconds before the first retry.
        first_ms: u32,
        /// The factor in percent; 200 doubles.
        percent: u32,
        /// The longest delay in milliseconds.
        longest_ms: u32,
    },
}

impl Backoff {
    /// The delay before a retry, of which the first is 1.
    pub fn delay_ms(&self, retry: u32) -> u32 {
        match self {
            Self::Steps(steps) => {
                let place = (retry.max(1) as usize).min(steps.len());
                place.checked_sub(1).map_or(0, |place| steps[place])
            }
            Self::Exponential { first_ms, percent, longest_ms } => {
                grown(*first_ms, *percent, retry.saturating_sub(1), *longest_ms)
            }
        }
    }
}

fn grown(first_ms: u32, percent: u32, times: u32, longest_ms: u32) -> u32 {
    let mut delay = u64::from(first_ms);
    for _ in 0..times {
        let next = delay * u64::from(percent) / 100;
        if next >= longest_ms.into() || next == delay {
            delay = next;
            break;
        }
        delay = next;
    }
    delay.min(longest_ms.into()) as u32
}

/// Which of a message's counts is limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LimitedCount {
    /// Acquisitions: the message is given up when it is returned from the last.
    Acquired,
    /// Counted returns: the message is given up with the first beyond the limit.
    Returned,
}

/// How often a message is delivered at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeliveryLimit {
    /// What counts.
    pub count: LimitedCount,
    /// How many.
    pub most: u32,
}

impl DeliveryLimit {
    fn is_reached(&self, attempts: Attempts) -> bool {
        match self.count {
            LimitedCount::Acquired => attempts.acquired >= self.most,
            LimitedCount::Returned => attempts.returned > self.most,
        }
    }
}

/// What becomes of returned messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetryPolicy {
    /// The limit, if there is one.
    pub limit: Option<DeliveryLimit>,
    /// The delays.
    pub backoff: Backoff,
}

/// What becomes of a returned message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetryOutcome {
    /// It is ready at once.
    Ready,
    /// It is parked until a moment, in milliseconds.
    Parked(i64),
    /// It was tried often enough: it is dead-lettered or dropped.
    Exhausted,
}

impl RetryPolicy {
    /// Judges a message by its counts, the present return included.
    pub fn judge(&self, attempts: Attempts, now_ms: i64) -> RetryOutcome {
        if self.limit.is_some_and(|limit| limit.is_reached(attempts)) {
            return RetryOutcome::Exhausted;
        }
        match self.backoff.delay_ms(attempts.returned) {
            0 => RetryOutcome::Ready,
            delay => RetryOutcome::Parked(now_ms.saturating_add(delay.into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_taken_one_by_one_and_the_last_repeats() {
        let steps = Backoff::Steps([1_000, 5_000, 10_000].into());
        assert_eq!(
            [0, 1, 2, 3, 4, u32::MAX].map(|n| steps.delay_ms(n)),
            [1_000, 1_000, 5_000, 10_000, 10_000, 10_000]
        );
        assert_eq!(Backoff::Steps([].into()).delay_ms(3), 0);
    }

    #[test]
    fn exponential_delays_grow_to_the_longest() {
        let doubling = |first_ms, percent| Backoff::Exponential { first_ms, percent, longest_ms: 60_000 };
        assert_eq!(
            [1, 2, 3, 7, u32::MAX].map(|n| doubling(1_000, 200).delay_ms(n)),
            [1_000, 2_000, 4_000, 60_000, 60_000]
        );
        assert_eq!([1, u32::MAX].map(|n| doubling(1_000, 100).delay_ms(n)), [1_000, 1_000]);
        assert_eq!([1, u32::MAX].map(|n| doubling(0, 500).delay_ms(n)), [0, 0]);
        assert_eq!(doubling(90_000, 200).delay_ms(1), 60_000);
        assert_eq!(doubling(1_000, 50).delay_ms(u32::MAX), 0);
    }

    #[test]
    fn the_policy_says_which_count_is_limited() {
        let policy = |count| RetryPolicy {
            limit: Some(DeliveryLimit { count, most: 2 }),
            backoff: Backoff::Steps([].into()),
        };
        let judge = |count, acquired, returned| policy(count).judge(Attempts { acquired, returned }, 0);
        assert_eq!(judge(LimitedCount::Acquired, 1, 1), RetryOutcome::Ready);
        assert_eq!(judge(LimitedCount::Acquired, 2, 0), RetryOutcome::Exhausted);
        assert_eq!(judge(LimitedCount::Returned, 9, 2), RetryOutcome::Ready);
        assert_eq!(judge(LimitedCount::Returned, 9, 3), RetryOutcome::Exhausted);
    }

    #[test]
    fn a_retry_with_a_delay_is_parked_from_now_on() {
        let policy = RetryPolicy { limit: None, backoff: Backoff::Steps([10, 20].into()) };
        let attempts = Attempts { acquired: 2, returned: 2 };
        assert_eq!(policy.judge(attempts, 1_000), RetryOutcome::Parked(1_020));
        assert_eq!(policy.judge(attempts, i64::MAX), RetryOutcome::Parked(i64::MAX));
    }
}

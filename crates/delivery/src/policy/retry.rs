//! When a returned message is tried again, and when not any more.

use std::sync::Arc;

pub use sabir_model::Backoff;

use crate::subscription::Attempts;

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
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RetryPolicy {
    /// The limit, if there is one.
    pub limit: Option<DeliveryLimit>,
    /// The delays; none where all are ready at once.
    pub backoff: Option<Arc<Backoff>>,
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
    /// Whether every returned message is ready at once, however often it came back.
    pub fn is_none(&self) -> bool {
        self.limit.is_none() && self.backoff.is_none()
    }

    /// Judges a message by its counts, the present return included.
    pub fn judge(&self, attempts: Attempts, now_ms: i64) -> RetryOutcome {
        if self.limit.is_some_and(|limit| limit.is_reached(attempts)) {
            return RetryOutcome::Exhausted;
        }
        match self.backoff.as_ref().map_or(0, |backoff| backoff.delay_ms(attempts.returned)) {
            0 => RetryOutcome::Ready,
            delay => RetryOutcome::Parked(now_ms.saturating_add(delay.into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_policy_says_which_count_is_limited() {
        let policy = |count| RetryPolicy { limit: Some(DeliveryLimit { count, most: 2 }), backoff: None };
        let judge = |count, acquired, returned| policy(count).judge(Attempts { acquired, returned }, 0);
        assert_eq!(judge(LimitedCount::Acquired, 1, 1), RetryOutcome::Ready);
        assert_eq!(judge(LimitedCount::Acquired, 2, 0), RetryOutcome::Exhausted);
        assert_eq!(judge(LimitedCount::Returned, 9, 2), RetryOutcome::Ready);
        assert_eq!(judge(LimitedCount::Returned, 9, 3), RetryOutcome::Exhausted);
    }

    #[test]
    fn a_retry_with_a_delay_is_parked_from_now_on() {
        let policy = RetryPolicy { limit: None, backoff: Some(Arc::new(Backoff::Steps([10, 20].into()))) };
        let attempts = Attempts { acquired: 2, returned: 2 };
        assert_eq!(policy.judge(attempts, 1_000), RetryOutcome::Parked(1_020));
        assert_eq!(policy.judge(attempts, i64::MAX), RetryOutcome::Parked(i64::MAX));
    }
}

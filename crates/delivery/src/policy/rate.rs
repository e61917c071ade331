//! How fast a subscription is consumed at most: a bucket that fills with time.

pub use sabir_model::RateLimit;

/// What may be delivered now. Counts thousandths of messages, so that each millisecond adds as many as the rate says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateBucket {
    thousandths: u64,
    at_ms: i64,
}

impl RateBucket {
    /// A full one.
    pub fn full(limit: &RateLimit, now_ms: i64) -> Self {
        Self { thousandths: most(limit), at_ms: now_ms }
    }

    /// How many messages there are now; a clock that steps back adds nothing.
    pub fn available(&mut self, limit: &RateLimit, now_ms: i64) -> u32 {
        self.fill(limit, now_ms);
        (self.thousandths / 1_000) as u32
    }

    /// Takes at most so many messages. Tells how many.
    pub fn take(&mut self, limit: &RateLimit, now_ms: i64, wanted: u32) -> u32 {
        let taken = wanted.min(self.available(limit, now_ms));
        self.thousandths -= u64::from(taken) * 1_000;
        taken
    }

    /// The moment from which there are so many messages, one at the least, or as many as there can be at once; `None` if there never are.
    pub fn next_ms(&self, limit: &RateLimit, wanted: u32) -> Option<i64> {
        if limit.per_second == 0 || limit.burst == 0 {
            return None;
        }
        let wanted = u64::from(wanted.clamp(1, limit.burst)) * 1_000;
        let missing = wanted.saturating_sub(self.thousandths);
        Some(self.at_ms.saturating_add(missing.div_ceil(limit.per_second.into()) as i64))
    }

    fn fill(&mut self, limit: &RateLimit, now_ms: i64) {
        let passed = u64::try_from(now_ms.saturating_sub(self.at_ms)).unwrap_or(0);
        let added = passed.saturating_mul(limit.per_second.into());
        self.thousandths = self.thousandths.saturating_add(added).min(most(limit));
        self.at_ms = now_ms;
    }
}

fn most(limit: &RateLimit) -> u64 {
    u64::from(limit.burst) * 1_000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_gives_the_rate_and_no_more() {
        let limit = RateLimit { per_second: 300, burst: 10 };
        let mut bucket = RateBucket::full(&limit, 0);
        let taken: u32 = (0..10_000).map(|now| bucket.take(&limit, now, 5)).sum();
        assert_eq!(taken, 10 + 300 * 10 - 1, "the burst, and ten seconds but the last millisecond");
    }

    #[test]
    fn it_says_when_there_is_another() {
        let limit = RateLimit { per_second: 3, burst: 1 };
        let mut bucket = RateBucket::full(&limit, 100);
        assert_eq!((bucket.take(&limit, 100, 2), bucket.next_ms(&limit, 1)), (1, Some(434)));
        assert_eq!(bucket.next_ms(&limit, 9), Some(434), "there is never more than one");
        assert_eq!((bucket.take(&limit, 433, 1), bucket.take(&limit, 434, 1)), (0, 1));
        let limit = RateLimit { per_second: 2_000, burst: 100 };
        let mut bucket = RateBucket::full(&limit, 0);
        assert_eq!((bucket.take(&limit, 0, 100), bucket.next_ms(&limit, 20)), (100, Some(10)));
        assert_eq!(bucket.available(&limit, 10), 20);
    }

    #[test]
    fn clocks_that_jump_and_rates_of_nothing_do_no_harm() {
        let limit = RateLimit { per_second: u32::MAX, burst: u32::MAX };
        let mut bucket = RateBucket::full(&limit, i64::MAX);
        assert_eq!(bucket.take(&limit, i64::MIN, u32::MAX), u32::MAX);
        assert_eq!(bucket.take(&limit, i64::MIN, 1), 0);
        assert_eq!(bucket.take(&limit, i64::MAX, u32::MAX), u32::MAX);
        let nothing = RateLimit { per_second: 0, burst: 0 };
        let mut bucket = RateBucket::full(&nothing, 0);
        assert_eq!((bucket.take(&nothing, i64::MAX, 1), bucket.next_ms(&nothing, 1)), (0, None));
    }
}

//! How often what a timer is for happens again.

use std::num::NonZero;

/// A timer fires again after each time that it has fired.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Repetition {
    /// Milliseconds from one time to the next.
    pub period_ms: NonZero<u32>,
    /// How often, after the first time; without an end if none.
    pub times: Option<u32>,
}

impl Repetition {
    /// The moment of the next time, in milliseconds, of a timer that was first due at `first_ms` and has fired so often, the time at `now_ms` included. It
    /// keeps to the periods from the first moment on: those that passed while nothing fired are left out, and do not count.
    pub fn next_ms(&self, first_ms: i64, now_ms: i64, fired: u32) -> Option<i64> {
        if self.times.is_some_and(|times| fired > times) {
            return None;
        }
        let period = i64::from(self.period_ms.get());
        let passed = now_ms.saturating_sub(first_ms).max(0) / period;
        passed.checked_add(1)?.checked_mul(period)?.checked_add(first_ms)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_timer_fires_so_often_again_and_in_step() {
        let often = |times| Repetition { period_ms: NonZero::new(100).unwrap(), times };
        let next = |times, now, fired| often(times).next_ms(1_000, now, fired);
        assert_eq!(next(Some(2), 1_000, 1), Some(1_100));
        assert_eq!(next(Some(2), 1_103, 2), Some(1_200), "it was late, and the next one is not");
        assert_eq!(next(Some(2), 1_200, 3), None);
        assert_eq!(next(Some(0), 1_000, 1), None);
        assert_eq!(next(Some(2), 1_777, 1), Some(1_800), "periods that passed are left out");
        assert_eq!(next(None, 1_000, u32::MAX), Some(1_100));
        assert_eq!(next(None, 900, 1), Some(1_100));
        assert_eq!(next(None, i64::MAX, 1), None);
    }

    proptest! {
        #[test]
        fn the_next_time_is_the_first_one_of_a_period_behind_now(first in -5_000..5_000i64, now in -5_000..50_000i64, period in 1..3_000u32) {
            let often = Repetition { period_ms: NonZero::new(period).unwrap(), times: None };
            let next = often.next_ms(first, now, 1).unwrap();
            let naive = (1..).map(|n| first + n * i64::from(period)).find(|at| *at > now).unwrap();
            prop_assert_eq!(next, naive);
        }
    }
}

//! Time for deadlines: a machine that slept, or a process that stood still, expires no member.

/// A step beyond this is no time that members could have used.
const LONGEST_STEP_MS: u64 = 60_000;

/// Milliseconds that pass as the monotonic clock goes on, but for its long steps.
#[derive(Debug)]
pub(super) struct Steady {
    monotonic_ms: u64,
    now_ms: i64,
}

impl Steady {
    pub(super) fn new(monotonic_ms: u64) -> Self {
        Self { monotonic_ms, now_ms: 0 }
    }

    /// The time, given what the monotonic clock shows. A thread that read it earlier and comes later changes nothing.
    pub(super) fn now(&mut self, monotonic_ms: u64) -> i64 {
        let step = monotonic_ms.saturating_sub(self.monotonic_ms);
        self.monotonic_ms = self.monotonic_ms.max(monotonic_ms);
        if step <= LONGEST_STEP_MS {
            self.now_ms += step as i64;
        }
        self.now_ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn follows_the_clock_but_not_its_long_steps() {
        let mut steady = Steady::new(1_000);
        assert_eq!(steady.now(1_500), 500);
        assert_eq!(steady.now(900), 500, "read before the last one");
        assert_eq!(steady.now(1_600), 600);
        assert_eq!(steady.now(1_600 + 3_600_000), 600, "slept for an hour");
        assert_eq!(steady.now(1_700 + 3_600_000), 700);
    }
}

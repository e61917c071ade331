//! Time for deadlines: it never falls, and a jump of the wall clock, or a machine that slept, expires nobody.

/// A step beyond this is no time that members could have used.
const LONGEST_STEP_MS: i64 = 60_000;

/// Milliseconds that pass as the wall clock moves, but for its jumps.
#[derive(Debug)]
pub(super) struct Steady {
    wall_ms: i64,
    now_ms: i64,
}

impl Steady {
    pub(super) fn new(wall_ms: i64) -> Self {
        Self { wall_ms, now_ms: 0 }
    }

    /// The time, given what the wall clock shows.
    pub(super) fn now(&mut self, wall_ms: i64) -> i64 {
        let step = wall_ms.saturating_sub(self.wall_ms);
        self.wall_ms = wall_ms;
        if (0..=LONGEST_STEP_MS).contains(&step) {
            self.now_ms += step;
        }
        self.now_ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn follows_the_clock_but_not_its_jumps() {
        let mut steady = Steady::new(1_000);
        assert_eq!(steady.now(1_500), 500);
        assert_eq!(steady.now(900), 500, "back");
        assert_eq!(steady.now(1_000), 600);
        assert_eq!(steady.now(1_000 + 3_600_000), 600, "ahead by an hour");
        assert_eq!(steady.now(1_100 + 3_600_000), 700);
    }
}

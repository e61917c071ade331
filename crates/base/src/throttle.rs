//! Log lines that a flood of the same must not multiply.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Lets the log have one line in a while.
#[derive(Debug)]
pub struct LogThrottle {
    every: Duration,
    last: Mutex<Option<Instant>>,
}

impl LogThrottle {
    /// One that allows a line each time so long.
    pub const fn new(every: Duration) -> Self {
        Self { every, last: Mutex::new(None) }
    }

    /// Whether a line may be written now; that it is, is assumed.
    pub fn allows(&self, now: Instant) -> bool {
        let mut last = self.last.lock();
        let allows = last.is_none_or(|last| now.saturating_duration_since(last) >= self.every);
        if allows {
            *last = Some(now);
        }
        allows
    }
}

/// Lets the log have a number of lines in a while, whatever they are about, and counts those that it does not get.
#[derive(Debug)]
pub struct LogBudget {
    every: Duration,
    most: u32,
    began: Option<Instant>,
    lines: u32,
    untold: u64,
}

impl LogBudget {
    /// One that allows `most` lines each time so long.
    pub const fn new(most: u32, every: Duration) -> Self {
        Self { every, most, began: None, lines: 0, untold: 0 }
    }

    /// How many lines were not written since the last one, if one may be written now; that it is, is assumed.
    pub fn allows(&mut self, now: Instant) -> Option<u64> {
        if self.began.is_none_or(|began| now.saturating_duration_since(began) >= self.every) {
            (self.began, self.lines) = (Some(now), 0);
        }
        if self.lines >= self.most {
            self.untold += 1;
            return None;
        }
        self.lines += 1;
        Some(std::mem::take(&mut self.untold))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_in_a_while() {
        let (throttle, began) = (LogThrottle::new(Duration::from_secs(10)), Instant::now());
        let lines = [0, 9, 10, 19, 20].map(|second| throttle.allows(began + Duration::from_secs(second)));
        assert_eq!(lines, [true, false, true, false, true]);
    }

    #[test]
    fn a_number_of_lines_in_a_while_and_the_next_says_how_many_were_left_out() {
        let (mut budget, began) = (LogBudget::new(2, Duration::from_secs(10)), Instant::now());
        let lines = [0, 1, 2, 9, 10, 11, 12].map(|second| budget.allows(began + Duration::from_secs(second)));
        assert_eq!(lines, [Some(0), Some(0), None, None, Some(2), Some(0), None]);
    }
}

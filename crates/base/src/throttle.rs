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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_in_a_while() {
        let (throttle, began) = (LogThrottle::new(Duration::from_secs(10)), Instant::now());
        let lines = [0, 9, 10, 19, 20].map(|second| throttle.allows(began + Duration::from_secs(second)));
        assert_eq!(lines, [true, false, true, false, true]);
    }
}

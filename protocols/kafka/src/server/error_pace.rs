//! How often something happens on one connection before it is more than a client with reason does.

use std::time::{Duration, Instant};

const WINDOW: Duration = Duration::from_secs(10);

/// Counts what happens within [`WINDOW`].
#[derive(Debug, Default)]
pub(crate) struct ErrorPace {
    since: Option<Instant>,
    count: u32,
}

impl ErrorPace {
    /// Counts one more; says how many that makes since the window began.
    pub fn count(&mut self, now: Instant) -> u32 {
        if self.since.is_none_or(|since| now.saturating_duration_since(since) >= WINDOW) {
            *self = Self { since: Some(now), count: 0 };
        }
        self.count = self.count.saturating_add(1);
        self.count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_later_it_counts_anew() {
        let (mut pace, began) = (ErrorPace::default(), Instant::now());
        assert_eq!((0..20).map(|_| pace.count(began)).max(), Some(20));
        assert_eq!(pace.count(began + WINDOW / 2), 21);
        assert_eq!(pace.count(began + WINDOW), 1);
        assert_eq!(pace.count(began + WINDOW + WINDOW / 2), 2);
    }
}

//! What a connection's errors are held to, so that a client that does nothing else does not spin.

use std::time::{Duration, Instant};

const WINDOW: Duration = Duration::from_secs(10);
/// How many waits of a connection an error may cut short within [`WINDOW`]. Beyond that they wait their time all the same, or a client that asks again at
/// once would do so for ever.
const CUT_SHORT: u32 = 10;
/// How many errors within [`WINDOW`] are more than a client has that waits before it asks again.
const MANY: u32 = 200;
/// What each error costs a client that has more of them.
const PAUSE: Duration = Duration::from_millis(10);

/// How often something happens on one connection: counts what does within ten seconds.
#[derive(Debug, Default)]
pub struct ErrorPace {
    since: Option<Instant>,
    count: u32,
}

impl ErrorPace {
    /// Counts one more; says how many that makes since the window began.
    fn count(&mut self, now: Instant) -> u32 {
        if self.since.is_none_or(|since| now.saturating_duration_since(since) >= WINDOW) {
            *self = Self { since: Some(now), count: 0 };
        }
        self.count = self.count.saturating_add(1);
        self.count
    }

    /// Counts an error that would end a wait before its time; says whether it may.
    pub fn may_cut_short(&mut self, now: Instant) -> bool {
        self.count(now) <= CUT_SHORT
    }

    /// Counts an error that is answered; once in a window that has too many, says how many.
    pub fn are_many(&mut self, now: Instant) -> Option<u32> {
        (self.count(now) == MANY).then_some(MANY)
    }

    /// How long nothing more is done for the client, whose last error was counted as one that is answered.
    pub fn pause(&self) -> Option<Duration> {
        (self.count > MANY).then_some(PAUSE)
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

    #[test]
    fn a_few_errors_cut_waits_short_and_many_are_told_of_once() {
        let (mut pace, now) = (ErrorPace::default(), Instant::now());
        assert_eq!((0..50).filter(|_| pace.may_cut_short(now)).count(), 10);
        assert!(pace.may_cut_short(now + WINDOW));
        let mut pace = ErrorPace::default();
        assert_eq!((0..200).filter_map(|_| pace.are_many(now)).collect::<Vec<_>>(), [200]);
        assert_eq!(pace.pause(), None);
        assert_eq!((0..800).filter_map(|_| pace.are_many(now)).count(), 0);
        assert_eq!(pace.pause(), Some(PAUSE));
        assert_eq!((pace.are_many(now + WINDOW), pace.pause()), (None, None));
    }
}

//! What wakes the thread that sees to what queues have due.

use std::time::Duration;

use parking_lot::{Condvar, Mutex};

/// A moment at which a sleeping thread is to wake, in milliseconds of the node's time.
#[derive(Debug)]
pub(crate) struct QueueAlarm {
    at_ms: Mutex<i64>,
    told: Condvar,
}

impl Default for QueueAlarm {
    fn default() -> Self {
        Self { at_ms: Mutex::new(i64::MAX), told: Condvar::new() }
    }
}

impl QueueAlarm {
    /// The thread that sleeps is to wake at that moment at the latest.
    pub(crate) fn set(&self, at_ms: i64) {
        let mut next = self.at_ms.lock();
        if at_ms < *next {
            *next = at_ms;
            self.told.notify_all();
        }
    }

    /// Sleeps until the moment has come, which is none then, or for so long.
    pub(crate) fn sleep(&self, now_ms: impl Fn() -> i64, most: Duration) {
        let mut next = self.at_ms.lock();
        let left = |at_ms: i64| {
            u64::try_from(at_ms.saturating_sub(now_ms())).map_or(Duration::ZERO, Duration::from_millis)
        };
        let mut slept = left(*next).min(most);
        while !slept.is_zero() {
            if self.told.wait_for(&mut next, slept).timed_out() {
                break;
            }
            slept = left(*next).min(most);
        }
        if left(*next).is_zero() {
            *next = i64::MAX;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Instant;

    use super::*;

    #[test]
    fn who_sleeps_is_woken_for_a_moment_that_comes_sooner() {
        let (alarm, began) = (Arc::new(QueueAlarm::default()), Instant::now());
        alarm.sleep(|| 0, Duration::from_millis(5));
        let other = alarm.clone();
        let sleeper = std::thread::spawn(move || {
            other.sleep(move || began.elapsed().as_millis() as i64, Duration::from_secs(60));
        });
        alarm.set(30_000);
        alarm.set(20);
        sleeper.join().unwrap();
        assert!(began.elapsed() < Duration::from_secs(20));
        assert_eq!(*alarm.at_ms.lock(), i64::MAX);
    }
}

//! What wakes the thread that fires timers.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use sabir_model::Term;

use crate::shard::Leading;

/// Wakes the thread.
#[derive(Debug, Default)]
pub(crate) struct Alarm {
    raised: Mutex<bool>,
    told: Condvar,
}

impl Alarm {
    pub(crate) fn raise(&self) {
        *self.raised.lock() = true;
        self.told.notify_one();
    }

    /// Whether it was raised; it is not any more then.
    #[cfg(test)]
    pub(crate) fn take(&self) -> bool {
        std::mem::take(&mut *self.raised.lock())
    }

    /// Sleeps until it is raised, or so long.
    pub(crate) fn wait(&self, time: Option<Duration>) {
        let mut raised = self.raised.lock();
        if !*raised {
            match time {
                Some(time) => drop(self.told.wait_for(&mut raised, time)),
                None => self.told.wait(&mut raised),
            }
        }
        *raised = false;
    }
}

/// A shard's part: whether its timers are fired here, and from when on.
#[derive(Debug, Default)]
pub(crate) struct ShardTimers {
    alarm: OnceLock<Arc<Alarm>>,
    /// A timer for an earlier moment raises the alarm.
    looks_at_ms: AtomicI64,
    /// Copies that targets outside the shard's entries have refused.
    refused: AtomicU64,
    state: Mutex<FiringState>,
}

/// How far firing has come.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct FiringState {
    pub(super) is_led: bool,
    /// Counts terms: what is known of an earlier one does not hold.
    pub(super) led_terms: u64,
    /// Whether an entry is not decided.
    pub(super) is_under_way: bool,
}

impl ShardTimers {
    pub(super) fn connect(&self, alarm: &Arc<Alarm>) {
        // A shard is driven by one broker.
        let _ = self.alarm.set(alarm.clone());
    }

    /// Has the thread look again.
    pub(crate) fn raise(&self) {
        if let Some(alarm) = self.alarm.get() {
            alarm.raise();
        }
    }

    /// The block applied last set a timer for that moment.
    pub(crate) fn set(&self, due_ms: Option<i64>) {
        if due_ms.is_some_and(|due_ms| due_ms < self.looks_at_ms.load(SeqCst)) {
            self.raise();
        }
    }

    /// The timers are looked at next from that moment on; before they are looked at, any that is set raises the alarm.
    pub(super) fn looks_at(&self, due_ms: i64) {
        self.looks_at_ms.store(due_ms, SeqCst);
    }

    /// A target outside the shard's entries has refused so many copies.
    pub(super) fn refuse(&self, copies: u64) {
        self.refused.fetch_add(copies, Relaxed);
    }

    /// How many copies targets outside the shard's entries have refused since the start of the process.
    pub(crate) fn refused(&self) -> u64 {
        self.refused.load(Relaxed)
    }

    pub(super) fn state(&self) -> FiringState {
        *self.state.lock()
    }

    /// Whether they are fired here.
    pub(crate) fn is_led(&self) -> bool {
        self.state().is_led
    }

    /// An entry of that term is proposed.
    pub(super) fn begin(&self, led_terms: u64) {
        let mut state = self.state.lock();
        state.is_under_way |= state.led_terms == led_terms;
    }

    /// An entry of that term is decided, or lost; whether it is gone on with at once.
    pub(super) fn end(&self, led_terms: u64, goes_on: bool) {
        let mut state = self.state.lock();
        state.is_under_way &= state.led_terms != led_terms;
        drop(state);
        if goes_on {
            self.raise();
        }
    }
}

impl Leading for ShardTimers {
    fn led(self: Arc<Self>, _: Term) {
        let mut state = self.state.lock();
        *state = FiringState { is_led: true, led_terms: state.led_terms + 1, is_under_way: false };
        drop(state);
        self.raise();
    }

    fn laid_down(self: Arc<Self>) {
        self.state.lock().is_led = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_set_for_an_earlier_moment_wakes_who_waits() {
        let (alarm, timers) = (Arc::new(Alarm::default()), Arc::new(ShardTimers::default()));
        timers.connect(&alarm);
        timers.looks_at(100);
        timers.set(Some(100));
        timers.set(None);
        assert!(!*alarm.raised.lock());
        timers.set(Some(99));
        assert!(*alarm.raised.lock());
        alarm.wait(None);
        timers.clone().led(Term(1));
        alarm.wait(None);
        timers.begin(1);
        timers.end(0, false);
        assert!(timers.state().is_under_way, "that was another term's");
        timers.end(1, true);
        timers.begin(0);
        assert_eq!(timers.state(), FiringState { is_led: true, led_terms: 1, is_under_way: false });
        alarm.wait(Some(Duration::from_secs(60)));
        alarm.wait(Some(Duration::from_millis(1)));
    }
}

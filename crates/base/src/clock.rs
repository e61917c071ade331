//! Time as an argument: nothing below the server reads the machine's clock by itself.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// The one that goes on while the machine sleeps, where there is such a one.
#[cfg(target_os = "linux")]
const MONOTONIC: libc::clockid_t = libc::CLOCK_BOOTTIME;
#[cfg(not(target_os = "linux"))]
const MONOTONIC: libc::clockid_t = libc::CLOCK_MONOTONIC;

/// A source of time.
pub trait Clock: Send + Sync + 'static {
    /// Milliseconds since the Unix epoch.
    fn now_ms(&self) -> i64;

    /// Milliseconds on a clock that nobody sets: it never falls nor jumps, and began at some time.
    fn monotonic_ms(&self) -> u64;

    /// What is deleted by age goes by: not above [`now_ms`](Self::now_ms), and below it where that is in doubt.
    fn expiry_ms(&self) -> i64 {
        self.now_ms()
    }
}

/// The machine's clock.
#[derive(Debug, Default, Clone, Copy)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now_ms(&self) -> i64 {
        // A clock set before 1970 reads as the epoch: block times only need to never fall.
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as i64)
    }

    fn monotonic_ms(&self) -> u64 {
        let mut at = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: `at` is a timespec that lives through the call, which writes nothing else. (A crate's safe call of it finds the
        // kernel's code by itself, which fails where the process is watched, as by valgrind.)
        let failed = unsafe { libc::clock_gettime(MONOTONIC, &raw mut at) };
        debug_assert_eq!(failed, 0, "both clocks are there since Linux 2.6.39");
        at.tv_sec as u64 * 1000 + at.tv_nsec as u64 / 1_000_000
    }
}

/// A clock that stands until it is moved; for tests and simulation.
#[derive(Debug, Default)]
pub struct ManualClock {
    wall_ms: AtomicI64,
    monotonic_ms: AtomicU64,
}

impl ManualClock {
    /// A clock that shows `ms`.
    pub fn at(ms: i64) -> Self {
        Self { wall_ms: AtomicI64::new(ms), monotonic_ms: AtomicU64::new(0) }
    }

    /// Lets `ms` pass; if it is negative, the clock is set back by so much.
    pub fn advance(&self, ms: i64) {
        self.monotonic_ms.fetch_add(u64::try_from(ms).unwrap_or(0), Ordering::SeqCst);
        self.set_by(ms);
    }

    /// Sets the clock forward or back by `ms`, without that time passing.
    pub fn set_by(&self, ms: i64) {
        self.wall_ms.fetch_add(ms, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now_ms(&self) -> i64 {
        self.wall_ms.load(Ordering::SeqCst)
    }

    fn monotonic_ms(&self) -> u64 {
        self.monotonic_ms.load(Ordering::SeqCst)
    }
}

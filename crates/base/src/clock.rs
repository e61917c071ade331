//! Time as an argument: nothing below the server reads the machine's clock by itself.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::node_time::AgeLimits;

/// The one that goes on while the machine sleeps, where there is such a one.
#[cfg(target_os = "linux")]
const MONOTONIC: libc::clockid_t = libc::CLOCK_BOOTTIME;
#[cfg(not(target_os = "linux"))]
const MONOTONIC: libc::clockid_t = libc::CLOCK_MONOTONIC;

/// What a machine's clocks show at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClockReading {
    /// The wall clock, in milliseconds since the Unix epoch.
    pub wall_ms: i64,
    /// The clock that is never set, in milliseconds.
    pub monotonic_ms: u64,
    /// Whether the kernel calls the wall clock synchronised.
    pub synchronised: bool,
}

/// A source of time.
pub trait Clock: Send + Sync + 'static {
    /// Milliseconds since the Unix epoch.
    fn now_ms(&self) -> i64;

    /// Milliseconds on a clock that is never set: it never falls nor jumps, and began at some time.
    fn monotonic_ms(&self) -> u64;

    /// What is deleted by age goes by: ages are not reckoned from later than [`now_ms`](Self::now_ms), and from earlier where that is in
    /// doubt or has stepped.
    fn age_limits(&self) -> AgeLimits {
        AgeLimits::at(self.now_ms())
    }

    /// Whether the kernel says that [`now_ms`](Self::now_ms) is kept synchronised with the world's time.
    fn is_synchronised(&self) -> bool {
        false
    }

    /// A random number that the machine has from its start to its end, if it tells.
    fn boot(&self) -> Option<[u8; 16]> {
        None
    }

    /// All of it at once.
    fn reading(&self) -> ClockReading {
        let (wall_ms, monotonic_ms) = (self.now_ms(), self.monotonic_ms());
        ClockReading { wall_ms, monotonic_ms, synchronised: self.is_synchronised() }
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

    fn is_synchronised(&self) -> bool {
        // A process can be shown another time than the kernel keeps.
        kernel_clock().is_some_and(|kernel| {
            let shown = self.now_ms().div_euclid(1000);
            kernel.synchronised && shown.abs_diff(kernel.seconds) <= 1
        })
    }

    fn boot(&self) -> Option<[u8; 16]> {
        let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
        parse_uuid(id.trim())
    }
}

fn parse_uuid(text: &str) -> Option<[u8; 16]> {
    let digits: Vec<u8> = text.bytes().filter(|&byte| byte != b'-').collect();
    let mut id = [0; 16];
    for (byte, pair) in id.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    (digits.len() == 32).then_some(id)
}

/// What the kernel says of the wall clock that it keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KernelClock {
    /// Seconds since the Unix epoch.
    pub seconds: i64,
    /// Whether something keeps it synchronised.
    pub synchronised: bool,
}

/// What the kernel says of its clock, where it may be asked.
#[cfg(target_os = "linux")]
pub fn kernel_clock() -> Option<KernelClock> {
    /// adjtimex(2): the clock is not synchronised.
    const TIME_ERROR: i32 = 5;
    // SAFETY: all of its fields are numbers, for which zero is a value; `modes` 0 only reads.
    let mut state: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer is to a whole `timex` that no other thread uses meanwhile.
    match unsafe { libc::adjtimex(&raw mut state) } {
        -1 => None,
        answer => Some(KernelClock { seconds: state.time.tv_sec, synchronised: answer != TIME_ERROR }),
    }
}

/// What the kernel says of its clock, where it may be asked.
#[cfg(not(target_os = "linux"))]
pub fn kernel_clock() -> Option<KernelClock> {
    None
}

/// A clock that stands until it is moved; for tests and simulation. Nothing synchronises it unless told.
#[derive(Debug, Default)]
pub struct ManualClock {
    wall_ms: AtomicI64,
    monotonic_ms: AtomicU64,
    synchronised: AtomicBool,
    boots: AtomicU64,
}

impl ManualClock {
    /// A clock that shows `ms`.
    pub fn at(ms: i64) -> Self {
        Self { wall_ms: AtomicI64::new(ms), ..Self::default() }
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

    /// Says whether something keeps it synchronised.
    pub fn set_synchronised(&self, synchronised: bool) {
        self.synchronised.store(synchronised, Ordering::SeqCst);
    }

    /// Starts the machine anew: the clock that is never set begins again.
    pub fn boot_again(&self) {
        self.boots.fetch_add(1, Ordering::SeqCst);
        self.monotonic_ms.store(0, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now_ms(&self) -> i64 {
        self.wall_ms.load(Ordering::SeqCst)
    }

    fn monotonic_ms(&self) -> u64 {
        self.monotonic_ms.load(Ordering::SeqCst)
    }

    fn is_synchronised(&self) -> bool {
        self.synchronised.load(Ordering::SeqCst)
    }

    fn boot(&self) -> Option<[u8; 16]> {
        Some(u128::from(self.boots.load(Ordering::SeqCst)).to_le_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_tells_its_run_and_its_time() {
        assert_eq!(SystemClock.boot(), SystemClock.boot());
        if let Some(kernel) = kernel_clock() {
            assert!((SystemClock.now_ms() / 1000).abs_diff(kernel.seconds) <= 5);
        }
        assert_eq!(
            parse_uuid("00010203-0405-0607-0809-0a0b0c0d0eff").map(|id| (id[1], id[15])),
            Some((1, 255))
        );
        assert_eq!(
            (parse_uuid(""), parse_uuid("00-zz"), parse_uuid("é".repeat(16).as_str())),
            (None, None, None)
        );
    }
}

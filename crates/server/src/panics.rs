//! What is said of panics, all of which are defects of ours: a line in the log, and a count.

use std::panic::PanicHookInfo;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use sabir_base::metrics::Exposition;
use sabir_base::panics::is_on_damaged_data;
use sabir_base::throttle::LogThrottle;

/// Since the start of the process.
static PANICS: AtomicU64 = AtomicU64::new(0);
/// How often one is logged: a client that can cause one can cause many.
const EVERY: Duration = Duration::from_secs(1);

/// Has every panic of this process counted, and logged with its place.
pub(crate) fn report() {
    let throttle = LogThrottle::new(EVERY);
    std::panic::set_hook(Box::new(move |info| {
        if is_on_damaged_data() {
            // The caller says whose data it is.
            let place = info.location().map(ToString::to_string);
            tracing::debug!(place, what = info.payload_as_str(), "damaged data");
            return;
        }
        let count = PANICS.fetch_add(1, Relaxed) + 1;
        if throttle.allows(Instant::now()) {
            log(info, count);
        }
    }));
}

fn log(info: &PanicHookInfo<'_>, count: u64) {
    let thread = std::thread::current();
    let (thread, place) = (thread.name().unwrap_or("?"), info.location().map(ToString::to_string));
    let (place, what) = (place.as_deref().unwrap_or("?"), info.payload_as_str().unwrap_or("?"));
    let trace = std::backtrace::Backtrace::capture();
    tracing::error!(thread, place, what, count, %trace, "a panic, which is a defect of the broker: please report it");
}

/// How many there were.
pub(crate) fn expose(out: &mut Exposition) {
    out.counter("sabir_panics", "Panics, each a defect of the broker.", &[], PANICS.load(Relaxed));
}

#[cfg(test)]
mod tests {
    use sabir_base::testing::{keep_log, logged};

    use super::*;

    #[test]
    fn panics_are_counted_and_logged() {
        keep_log();
        report();
        let before = PANICS.load(Relaxed);
        let damaged = || -> u8 { panic!("the data's fault") };
        assert_eq!(sabir_base::panics::contain_damage(damaged), None);
        assert_eq!(logged(&["ERROR", "the data's fault"]).len(), 0);
        for _ in 0..5 {
            let thread = std::thread::Builder::new().name("panics".into());
            let panicked = thread.spawn(|| panic!("to be logged")).unwrap().join();
            assert!(panicked.is_err());
        }
        assert!(PANICS.load(Relaxed) >= before + 5);
        let said = "a panic, which is a defect of the broker: please report it";
        let lines = logged(&["ERROR", said, "thread=\"panics\"", "panics.rs", "what=\"to be logged\""]);
        assert!((1..5).contains(&lines.len()), "once in a while, with its place: {lines:?}");
        // Other tests are to be heard of as usual.
        drop(std::panic::take_hook());
    }
}

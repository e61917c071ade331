//! Bounds on time, on a machine that others use as well.

use std::time::Duration;

/// Measures up to three times how long something takes, until that is less than `bound`: another process may have taken the processor from
/// one try, and what is slow by itself is slow in all of them.
///
/// # Panics
///
/// If all three take longer.
pub fn best_of_three(bound: Duration, mut measure: impl FnMut() -> Duration) {
    let mut took = Vec::new();
    while took.len() < 3 {
        took.push(measure());
        if took[took.len() - 1] < bound {
            return;
        }
    }
    panic!("{took:?} instead of {bound:?}");
}

/// The same of what is awaited.
///
/// # Panics
///
/// If all three take longer.
pub async fn best_of_three_async(bound: Duration, mut measure: impl AsyncFnMut() -> Duration) {
    let mut took = Vec::new();
    while took.len() < 3 {
        took.push(measure().await);
        if took[took.len() - 1] < bound {
            return;
        }
    }
    panic!("{took:?} instead of {bound:?}");
}

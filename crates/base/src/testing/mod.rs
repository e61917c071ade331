//! What the tests of several crates need.

mod bits;
mod log;
mod memory;
mod tries;

pub use bits::Bits;
pub use log::{keep_log, logged};
pub use memory::{CountingAllocator, peak_of, taken_by};
pub use tries::{best_of_three, best_of_three_async};

//! What the tests of several crates need.

mod bits;
mod log;
mod memory;

pub use bits::Bits;
pub use log::{keep_log, logged};
pub use memory::{CountingAllocator, peak_of};

//! Timers of a shard, to the millisecond, and more of them than memory would hold.
//!
//! [`Timers`] is what the journal knows: it keeps a bounded number of entries and hands the rest over in sorted runs, which are written
//! once and never changed. Timers fire in the order of their keys, so one key says of all runs how far they are used up.
//! [`UpcomingTimers`] is the leader's: it reads runs a page at a time, and says which timers are due.

mod repetition;
mod timers;
mod upcoming;

#[cfg(test)]
mod model_tests;

pub use repetition::Repetition;
pub use timers::{RunSink, TimerKey, TimerRun, TimerTarget, Timers};
pub use upcoming::{DueTimers, UpcomingTimers};

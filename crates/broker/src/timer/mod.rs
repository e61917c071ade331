//! Timers of shards, as their leader has them: what is due is found, routed and published.
//!
//! One thread waits for the earliest timer of all shards that are led here. What is due of a shard goes into one entry, which publishes each message
//! where it goes and settles it in the queue that kept it back, or makes it ready again that was parked; the next one is made when that is decided. Setting a timer for an earlier moment
//! than the thread waits for wakes it.
//!
//! A message is routed when it fires. Queues of its shard are given a reference to the stored record in that entry, so that each gets it once; what lies in other
//! shards is published there first, and may come twice where the node dies between.
//!
//! What an exchange keeps back goes with it (`gone.rs`), and an operator or a front end may have messages go before their time (`recall.rs`).

mod address;
mod alarm;
mod driver;
mod firing;
mod gone;
mod kept;
mod recall;

pub(crate) use alarm::{Alarm, ShardTimers};
pub(crate) use driver::TimerDriver;
pub(crate) use gone::{DelaysGone, GoneDriver};
pub use recall::{
    BadDelayedPosition, DelayedMessages, DelayedPart, DelayedPosition, DelayedRefused, RecallOutcome,
};

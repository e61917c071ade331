//! What a subscription's settings say about a message: when it is tried again, when it is given up, whether there is room for it.
//!
//! Settings and small states, asked by the leader when it proposes and by `apply` where the outcome depends on state. None of
//! them knows where its values come from.

mod dead_letter;
mod dedup;
mod length;
mod rate;
mod retry;

pub use dead_letter::{Death, DeathPolicy, DeathReason, Deaths};
pub use dedup::{DedupLimit, DedupPage, DedupPages, DedupWindow};
pub use length::{Admission, Backlog, LengthLimit, Overflow};
pub use rate::{RateBucket, RateLimit};
pub use retry::{Backoff, DeliveryLimit, LimitedCount, RetryOutcome, RetryPolicy};

//! Which consumer gets which message: the leader's memory beside a [`Subscription`](crate::subscription::Subscription).
//!
//! Sessions say in [`Demands`] what they are ready to take, and [`DemandMember`]s draw on these, each from one subscription. A
//! [`Dispatcher`] deals a subscription's ready messages to its members. What it decides, the driver proposes as entries; what
//! these came to, it is told as [`Touched`](crate::subscription::Touched). It is made anew with each leader, from the
//! subscription alone.
//!
//! A delivery is sent at once if it would be flagged as redelivered after a crash (it lies below the claim) or is so already;
//! any other waits for its `acquired`.

mod deadlines;
mod demand;
mod dispatcher;
mod groups;
mod levels;
mod member;
mod range_set;

pub use demand::{Credit, DemandNo, Demands};
pub use dispatcher::{Access, AttachRefused, Dispatcher};
pub use groups::GroupOrder;
pub use member::{Deliveries, DemandMember, Dispatched, MessageFacts, Messages};

/// A member's number in its shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MemberNo(pub u64);

/// A filter's number in its shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FilterNo(pub u32);

/// How many ready messages may be passed over, because a filter or their group keeps them from the member that asks.
pub const LOOKAHEAD: u64 = 20_000;

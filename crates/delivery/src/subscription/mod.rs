//! A subscription with a state for each message: what the journal knows of it.
//!
//! [`Subscription`] changes by [`Operation`]s alone, in the order of their entries, the same on every replica. A floor, a head
//! and containers hold the states, so that they take memory in proportion to holes, not to the backlog; owner records
//! and counts are sparse. What the leader decides (which consumer gets which message) is the dispatcher's, which proposes
//! operations and is told by [`Touched`] what came of them.
//!
//! ```text
//!             published          acquired, taken           settled
//!   (nothing) ─────────► Ready ──────────────────► InFlight ──────► Settled
//!                          ▲  ▲    returned          │  ▲ │
//!                          │  └──────────────────────┘  └─┘ transferred, extended, prepared
//!                      due │                         │ returned, not before
//!                          └───────── Parked ◄───────┘
//! ```
//!
//! Offsets are unsigned here: a message that is published has one from 0.

mod appended;
mod attempts;
mod dirty;
mod levels;
mod list;
mod machine;
mod operation;
mod owners;
mod pages;
mod ranges;
mod reset;
mod rows;
mod settlement;
mod states;
mod touched;
mod transfer;

#[cfg(test)]
mod model_tests;
#[cfg(test)]
mod tests;

pub use attempts::Attempts;
pub use list::{ListRefused, Subscriptions, apply_list};
pub use machine::Subscription;
pub use operation::{
    AttemptsChange, HeldBy, Operation, OperationList, OperationsWriter, Settlement, SubscriptionNo, Terms,
};
pub use owners::{Holding, MessageOwner};
pub use pages::SubscriptionPage;
pub use ranges::{OffsetRanges, RangesBuffer};
pub use states::{CONTAINER, MessageState};
pub use touched::Touched;

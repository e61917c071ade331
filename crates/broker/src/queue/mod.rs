//! Queues: their consumers, which of them gets which message, and what becomes of it.
//!
//! A queue is a topic of one partition with a subscription, whose state its shard's journal keeps. What stands here is the leader's: consumers, what
//! they are ready to take, and what each was dealt. A front end works with it through [`Queues`]; messages reach its sessions as
//! [`Push::Deliver`](crate::push::Push::Deliver), by name: a session reads their bytes itself, with a [`QueueReader`](reader::QueueReader).

mod alarm;
mod commit;
mod consumer;
mod deletion;
mod driver;
mod exclusive;
mod expiring;
mod gathered;
mod handing;
mod leader;
mod lifetimes;
mod member;
mod queues;
mod rates;
pub mod reader;
mod returning;
mod round;
mod subscribing;
mod target;
mod told;
mod view;

#[cfg(test)]
mod tests;

pub(crate) use alarm::QueueAlarm;
pub(crate) use commit::ShardCommit;
pub(crate) use deletion::ClosedQueue;
pub(crate) use driver::ShardQueues;
pub(crate) use exclusive::ExclusiveOwners;

pub use crate::entry::{SubscriptionSettings, SubscriptionStart};
pub use commit::{CommittingTransaction, LocalTransaction};
pub use consumer::{ConsumerSpec, Demand, QueueConsumer, QueueOwner};
pub use deletion::DeleteOnlyIf;
pub use queues::{GotMessage, QueueReply, QueueStats, Queues};
pub use sabir_delivery::dispatch::Credit;
pub use subscribing::{StartAt, SubscribeRefused, SubscriptionSpec, SubscriptionStats};
pub use target::{QueueError, QueueTarget};

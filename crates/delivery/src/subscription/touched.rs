//! What the leader's memory, the timers and the figures learn of what `apply` did.

use std::ops::Range;

use super::{Attempts, MessageOwner, Settlement, SubscriptionNo};

/// Told what operations did, message by message or run by run; what is not needed costs nothing.
pub trait Touched {
    /// What follows happened to this subscription.
    fn subscription(&mut self, _number: SubscriptionNo) {}

    /// Messages became ready.
    fn ready(&mut self, _messages: Range<u64>) {}

    /// Messages went to an owner, with a deadline or none.
    fn acquired(&mut self, _messages: Range<u64>, _owner: MessageOwner, _deadline_ms: Option<i64>) {}

    /// Messages are done with.
    fn settled(&mut self, _messages: Range<u64>, _why: Settlement) {}

    /// A message is parked: its timer is to be kept, with what [`Due`](super::Operation::Due) must say when it fires.
    fn parked(&mut self, _offset: u64, _until_ms: i64, _resets: u32, _attempts: Attempts) {}

    /// The position was moved, so that nothing known of the subscription's messages holds any more.
    fn reset(&mut self) {}
}

impl Touched for () {}

//! What a front end sees of a subscription.

use std::ops::Range;

use sabir_delivery::subscription::{Attempts, Holding, MessageState, Subscription, SubscriptionNo};
use sabir_model::FrontendNo;

use super::NamedSubscription;
use crate::entry::SubscriptionSettings;

/// A queue's own subscription, or a partition's part of one that its topic has, as the entries so far left it.
#[derive(Clone, Copy)]
pub struct SubscriptionView<'a> {
    pub(super) number: SubscriptionNo,
    /// None of a queue's own.
    pub(super) named: Option<&'a NamedSubscription>,
    pub(super) kept: &'a Subscription,
}

/// How many messages of a subscription are in which state; all others are settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SubscriptionCounts {
    /// Ready to be taken.
    pub ready: u64,
    /// In flight, with whichever owner.
    pub in_flight: u64,
    /// Returned until a moment that has not come.
    pub parked: u64,
}

impl<'a> SubscriptionView<'a> {
    /// Its number in the shard: no other subscription has it while this one is there.
    pub fn number(&self) -> SubscriptionNo {
        self.number
    }

    /// Its name; none of a queue's own.
    pub fn name(&self) -> Option<&'a str> {
        self.named.map(|named| &*named.name)
    }

    /// The projection whose entry made it: entries of that one alone remove it. [`FrontendNo::NONE`] where none did.
    pub fn owner(&self) -> FrontendNo {
        self.named.map_or(FrontendNo::NONE, |named| named.owner)
    }

    /// What it was made with; none of a queue's own, which has its topic's.
    pub fn settings(&self) -> Option<&'a SubscriptionSettings> {
        self.named.map(|named| &named.settings)
    }

    /// The offsets of its messages: from the first that is not settled to one behind the last record.
    pub fn offsets(&self) -> Range<u64> {
        self.kept.floor()..self.kept.end()
    }

    /// The offset of the message that is taken next; one behind the last record if none is ready.
    pub fn next(&self) -> u64 {
        self.kept.next_taken().unwrap_or(self.kept.end())
    }

    /// How many messages are in which state. It counts: in proportion to what is in flight, parked, or settled behind such.
    pub fn counts(&self) -> SubscriptionCounts {
        let count = |state| self.kept.count(state, self.offsets());
        SubscriptionCounts {
            ready: self.kept.backlog().messages,
            in_flight: count(MessageState::InFlight),
            parked: count(MessageState::Parked),
        }
    }

    /// The state of a message. One that is not appended yet is ready.
    pub fn state(&self, offset: u64) -> MessageState {
        self.kept.state(offset)
    }

    /// What is in flight of some messages, ascending: runs that one owner got on the same terms.
    pub fn held(&self, messages: Range<u64>) -> impl Iterator<Item = (Range<u64>, Holding)> + use<'a> {
        self.kept.held(messages)
    }

    /// How often a message was tried. Of one that was neither returned nor transferred nothing is kept: it was acquired once if it is in flight,
    /// else never.
    pub fn attempts(&self, offset: u64) -> Attempts {
        let first = if self.kept.state(offset) == MessageState::InFlight { 1 } else { 0 };
        self.kept.attempts(offset).unwrap_or(Attempts { acquired: first, returned: 0 })
    }

    /// The numbers and names of the named consumers, ascending by number.
    pub fn consumers(&self) -> impl Iterator<Item = (u64, &'a str)> + use<'a> {
        self.kept.consumers()
    }
}

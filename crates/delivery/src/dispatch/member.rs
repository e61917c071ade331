//! The members that draw on a demand, and what the dispatcher says to it.

use super::range_set::RangeSet;
use super::{DemandNo, FilterNo, MemberNo};
use crate::subscription::{Attempts, MessageOwner};

/// A member: takes from a subscription on a demand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DemandMember {
    /// Its number, the shard's own.
    pub number: MemberNo,
    /// What it draws on.
    pub demand: DemandNo,
    /// The owner of what it takes.
    pub owner: MessageOwner,
    /// Higher ones are served first.
    pub priority: i32,
    /// What messages must pass for it; those that do not stay for others.
    pub filter: Option<FilterNo>,
    /// Whether its protocol promises so much that each delivery waits for its `acquired`.
    pub waits: bool,
}

/// A message goes to a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dispatched {
    /// The member that gets it.
    pub member: MemberNo,
    /// Its owner from now on: to be proposed as acquired.
    pub owner: MessageOwner,
    /// Which.
    pub offset: u64,
    /// Its size in bytes.
    pub bytes: u32,
    /// Whether it was perhaps delivered before.
    pub redelivered: bool,
    /// Its counts before this delivery, if it has any.
    pub attempts: Option<Attempts>,
    /// Whether it may be sent only once it is acquired.
    pub waits: bool,
}

/// What is known of a message from beside its record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MessageFacts {
    /// Its size in bytes.
    pub bytes: u32,
    /// Its group, hashed.
    pub group: Option<u64>,
    /// The moment at which it expires, in milliseconds; 0 is never.
    pub expires_ms: i64,
}

/// What the broker knows of messages.
pub trait Messages {
    /// What is beside a record; `None` if it is not at hand, so that dispatching goes on when it is.
    fn facts(&mut self, offset: u64) -> Option<MessageFacts>;

    /// Whether a message passes a filter. Asked after [`facts`](Self::facts).
    fn passes(&mut self, filter: FilterNo, offset: u64) -> bool;
}

/// Takes what the dispatcher decides.
pub trait Deliveries {
    /// A message goes to a member. Its acquisition is to be proposed.
    fn deliver(&mut self, dispatched: Dispatched);

    /// A ready message's time is over. Its settlement is to be proposed.
    fn expired(&mut self, _offset: u64) {}

    /// The claim is to be raised.
    fn claim(&mut self, _to: u64) {}

    /// A single active consumer is active from now on.
    fn active(&mut self, _member: MemberNo) {}
}

/// A member in its place.
#[derive(Debug)]
pub(super) struct Seat {
    pub member: DemandMember,
    /// With a filter: the first message that it was not asked about.
    pub cursor: u64,
    /// With a filter: messages before the cursor that it is to be asked about again.
    pub again: RangeSet,
    /// With a filter: how many ready messages did not pass, at most.
    pub passed: u64,
    /// The count of changes when `passed` was counted.
    pub counted_at: u64,
}

impl Seat {
    pub fn new(member: DemandMember) -> Self {
        Self { member, cursor: 0, again: RangeSet::default(), passed: 0, counted_at: 0 }
    }

    pub fn restart(&mut self) {
        (self.cursor, self.passed) = (0, 0);
        self.again.clear();
    }

    /// A filtering member was asked about a message.
    pub fn looked_at(&mut self, offset: u64) {
        self.again.remove(offset..offset + 1);
        self.cursor = self.cursor.max(offset + 1);
    }
}

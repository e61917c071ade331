//! The classic consumer group: members agree on a protocol, a leader among them assigns the work, and all of them commit
//! positions.
//!
//! Two halves. [`state`] is what the journal knows of a group, changed only by committed [`entries`]: generation, members,
//! assignments, committed offsets; offsets are fenced there. [`Group`] is what the leader adds in memory: heartbeats,
//! deadlines, and a join in progress. It proposes entries ([`Action::Persist`]) and holds back the answers that depend on them
//! until they are committed ([`GroupEvent::Persisted`]). A group restored from its record starts afresh with its deadlines.
//!
//! ```text
//!               join                      all joined, or time is up
//!   Empty ────────────► PreparingRebalance ──────────────► CompletingRebalance
//!     ▲                    ▲   ▲     │                              │ leader's assignment committed
//!     └────────────────────┼───┼─────┘ no member left               ▼
//!                          │   └────────────────────────────────  Stable
//!                          └── join, leave, expiry, changed metadata (from CompletingRebalance too)
//! ```

pub mod entries;
pub mod state;

mod deadlines;
mod event;
mod id;
mod joining;
mod machine;
mod members;
mod pending;
mod rebalance;
mod shares;

use std::sync::Arc;

pub use event::{
    Action, Answer, ClientIdentity, Fence, GroupEvent, GroupProtocol, JoinRefused, JoinRequest, Joined,
    JoinedMember, LeaveRequest, Left, RequestId, SyncRequest, Synced, Token,
};
pub use id::GroupId;
pub use machine::{Group, GroupPhase, GroupView, MemberView};
pub use pending::id_bytes;
pub use shares::{Holder, Shares};

/// A name or an id, shared.
pub type Text = Arc<str>;

/// Limits and delays of every group, in milliseconds where they are times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupLimits {
    /// How long the first members of an empty group wait for more.
    pub initial_rebalance_delay_ms: i64,
    /// The shortest session timeout a member may ask for.
    pub min_session_timeout_ms: i64,
    /// The longest session timeout a member may ask for.
    pub max_session_timeout_ms: i64,
    /// How long a new member may wait in its first join before it is forgotten; a live one asks again.
    pub new_member_join_timeout_ms: i64,
    /// The most members a group takes, and as many that were told an id and have not come back with it.
    pub max_members: usize,
    /// The most bytes of names and metadata a member may bring.
    pub max_member_bytes: usize,
    /// The largest stored record of a group, in bytes: it must fit one entry.
    pub max_record_bytes: usize,
}

impl Default for GroupLimits {
    /// The defaults that clients of such groups expect, where there are any.
    fn default() -> Self {
        Self {
            initial_rebalance_delay_ms: 3_000,
            min_session_timeout_ms: 6_000,
            max_session_timeout_ms: 1_800_000,
            new_member_join_timeout_ms: 300_000,
            max_members: 10_000,
            max_member_bytes: 1 << 20,
            max_record_bytes: 1 << 20,
        }
    }
}

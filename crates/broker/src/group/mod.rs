//! Consumer groups: the driver of [`sabir_delivery::group`] over a shard's journal.
//!
//! Two things, with a lock each. [`GroupTable`] is the projection: what committed entries say, changed by `apply` alone.
//! [`Groups`] is the leader's memory: a machine for each group with members, their deadlines, and the requests parked in
//! them. A request goes to the machine; what the machine proposes goes to the journal; when that is committed and applied,
//! [`GroupWaiter::complete`] tells the machine, which answers what it had parked. The groups' lock may be held while the
//! projections' or the open block's is taken, never the other way round.

mod deadlines;
mod entries;
mod led;
mod memory;
mod offsets;
mod reply;
mod requests;
mod steady;
mod table;
mod underway;
mod waiter;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use sabir_base::clock::Clock;
use sabir_model::{GroupError, ShardFailure};

pub use memory::MemberMemory;
pub use offsets::{Committing, DeletingOffsets, GroupListing};
pub(crate) use reply::Replier;
pub use reply::Reply;
use sabir_delivery::group::state::metadata_fits;
pub use sabir_delivery::group::state::{Committed, MAX_METADATA};
pub use sabir_delivery::group::{
    ClientIdentity, Fence, GroupLimits, GroupPhase, GroupProtocol, GroupView, JoinRefused, JoinRequest,
    Joined, JoinedMember, LeaveRequest, Left, MemberView, SyncRequest, Synced, Text, entries::OffsetCommit,
};
pub(crate) use table::GroupTable;
pub(crate) use waiter::GroupWaiter;

use led::Inner;
use underway::Underway;

/// The longest group id, in bytes: it is a key of the page store.
pub const MAX_GROUP_ID: usize = 384;

/// The longest name of a kind of groups, in bytes: it stays with a group that has no members.
pub const MAX_PROTOCOL_TYPE: usize = 256;

/// One group takes at most this part of what the positions of all groups may take.
const GROUP_SHARE: usize = 4;

/// How groups are run.
#[derive(Debug, Clone)]
pub struct GroupOptions {
    /// Limits and delays of each group.
    pub limits: GroupLimits,
    /// How long offsets are kept after their group lost its last member.
    pub offsets_retention: Duration,
    /// The most groups: with members, or with anything stored.
    pub max_groups: usize,
    /// The most bytes of names and metadata that the members of all groups may bring together.
    pub max_member_bytes: usize,
    /// The most memory, about, that committed positions of all groups take.
    pub max_offset_bytes: usize,
}

impl Default for GroupOptions {
    fn default() -> Self {
        Self {
            limits: GroupLimits::default(),
            offsets_retention: Duration::from_secs(7 * 24 * 3600),
            max_groups: 100_000,
            max_member_bytes: 256 << 20,
            max_offset_bytes: 512 << 20,
        }
    }
}

/// What the driver needs of the shard that holds the groups.
pub(crate) trait GroupShard: Send + Sync {
    /// Pushes an entry that wants to be synced. Its waiter is completed when it is applied, or when it never will be.
    ///
    /// # Errors
    /// It cannot be pushed; the waiter comes back untouched.
    fn propose(&self, kind: u16, body: &[u8], waiter: GroupWaiter)
    -> Result<(), (ShardFailure, GroupWaiter)>;

    /// Pushes entries of one kind with none between them, as [`propose`](Self::propose) does one.
    ///
    /// # Errors
    /// They cannot be pushed: none of them is, and no waiter is completed.
    fn propose_together(&self, kind: u16, entries: Vec<(Vec<u8>, GroupWaiter)>) -> Result<(), ShardFailure>;

    /// Reads the projection under its lock.
    fn read_groups(&self, read: &mut dyn FnMut(&GroupTable));

    /// Submits what was pushed, if the group-commit rule lets it.
    fn flush(&self);
}

/// The consumer groups that this node leads; clones are the same ones. Calls act at once: an answer that has to wait for
/// other members or for the journal is a future, and dropping it changes nothing.
#[derive(Clone)]
pub struct Groups {
    shared: Arc<Shared>,
}

struct Shared {
    shard: Arc<dyn GroupShard>,
    options: GroupOptions,
    clock: Arc<dyn Clock>,
    inner: Mutex<Inner>,
    underway: Arc<Underway>,
}

impl Groups {
    pub(crate) fn new(shard: Arc<dyn GroupShard>, options: GroupOptions, clock: Arc<dyn Clock>) -> Self {
        let inner = Mutex::new(Inner::new(clock.monotonic_ms()));
        Self { shared: Arc::new(Shared { shard, options, clock, inner, underway: Arc::default() }) }
    }

    /// Reads one value out of the projection.
    fn read<T>(&self, read: impl FnOnce(&GroupTable) -> T) -> T {
        let (mut read, mut value) = (Some(read), None);
        self.shared.shard.read_groups(&mut |table| value = read.take().map(|read| read(table)));
        value.expect("a shard reads its table once")
    }
}

/// What a group may be called whose positions are set from outside: nothing, too, as old clients have it that belong to none.
fn check_positions_id(group: &str) -> Result<(), GroupError> {
    if group.len() > MAX_GROUP_ID { Err(GroupError::InvalidId) } else { Ok(()) }
}

fn check_group_id(group: &str) -> Result<(), GroupError> {
    if group.is_empty() || group.len() > MAX_GROUP_ID { Err(GroupError::InvalidId) } else { Ok(()) }
}

//! Consumer groups: the driver of [`sabir_delivery::group`] over a shard's journal.
//!
//! Two things, with a lock each. [`GroupTable`] is the projection: what committed entries say, changed by `apply` alone.
//! [`Groups`] is the leader's memory: a machine for each group with members, their deadlines, and the requests parked in
//! them. A request goes to the machine; what the machine proposes goes to the journal; when that is committed and applied,
//! [`GroupWaiter::complete`] tells the machine, which answers what it had parked. The groups' lock may be held while the
//! projections' or the open block's is taken, never the other way round.

mod addresses;
mod deadlines;
mod drivers;
mod entries;
mod given;
mod led;
mod memory;
mod offsets;
mod reply;
mod requests;
mod steady;
mod table;
mod totals;
mod underway;
mod waiter;

#[cfg(test)]
mod tests;

use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use sabir_base::clock::Clock;
use sabir_model::{ErrorAbout, FrontendNo, GroupError, Namespace, ShardFailure, Subject};

pub(crate) use drivers::GroupDrivers;
pub(crate) use entries::makes_space;
pub use memory::MemberMemory;
pub use offsets::{Committing, DeletingOffsets, GroupListing};
pub(crate) use reply::Replier;
pub use reply::Reply;
use sabir_delivery::group::state::metadata_fits;
pub use sabir_delivery::group::state::{Committed, MAX_METADATA};
pub use sabir_delivery::group::{
    ClientIdentity, Fence, GroupId, GroupLimits, GroupPhase, GroupProtocol, GroupView, JoinRequest, Joined,
    JoinedMember, LeaveRequest, Left, MemberView, SyncRequest, Synced, Text, entries::OffsetCommit,
};
pub(crate) use table::GroupTable;
pub(crate) use waiter::GroupWaiter;

use crate::level::FormatLevel;

use led::LedGroups;
use totals::Totals;
use underway::Underway;

/// The longest name of a group, in bytes. A protocol may take less.
pub const MAX_GROUP_ID: usize = 1024;
/// The longest below the format level at which groups name their front end.
const OLD_MAX_GROUP_ID: usize = 384;

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

/// Why a join was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinRefusal {
    /// The reason.
    pub error: ErrorAbout<GroupError>,
    /// The member id to go on with, empty for none.
    pub member: Text,
}

/// An error with the group that it is about.
fn about(group: &str, error: GroupError) -> ErrorAbout<GroupError> {
    ErrorAbout::new(error, Subject::Group(group.into()))
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

    /// Which forms may be written.
    fn level(&self) -> FormatLevel;

    /// Reads the projection under its lock.
    fn read_groups(&self, read: &mut dyn FnMut(&GroupTable));

    /// Submits what was pushed, if the group-commit rule lets it.
    fn flush(&self);
}

/// The consumer groups that this node leads in one shard, for one caller: a name is that of its front end's group in its namespace. Calls
/// act at once: an answer that has to wait for other members or for the journal is a future, and dropping it changes nothing.
#[derive(Clone)]
pub struct Groups {
    shared: Arc<Shared>,
    scope: GroupScope,
}

/// Whose groups.
#[derive(Debug, Clone)]
pub(crate) struct GroupScope {
    pub(crate) namespace: Namespace,
    /// `None` of one that the catalog has not numbered: it has none yet.
    pub(crate) front_end: Option<FrontendNo>,
}

impl From<&GroupId> for GroupScope {
    fn from(group: &GroupId) -> Self {
        Self { namespace: group.namespace.clone(), front_end: Some(group.front_end) }
    }
}

impl GroupScope {
    /// Of the front end that had groups before they named one, in the default namespace.
    const BARE: Self = Self { namespace: Namespace::DEFAULT, front_end: Some(FrontendNo::NONE) };

    fn has(&self, group: &GroupId) -> bool {
        self.front_end == Some(group.front_end) && self.namespace == group.namespace
    }
}

struct Shared {
    shard: Arc<dyn GroupShard>,
    /// All others that have groups.
    others: Vec<Arc<dyn GroupShard>>,
    /// The drivers of all, this one too; gone with the broker.
    homes: Weak<Vec<Groups>>,
    totals: Arc<Totals>,
    options: GroupOptions,
    clock: Arc<dyn Clock>,
    inner: Mutex<LedGroups>,
    underway: Arc<Underway>,
}

impl Groups {
    /// Those of one of the shards that have groups.
    fn among(
        shards: &[Arc<dyn GroupShard>],
        at: usize,
        options: GroupOptions,
        clock: Arc<dyn Clock>,
        homes: Weak<Vec<Self>>,
        totals: &Arc<Totals>,
        underway: &Arc<Underway>,
    ) -> Self {
        let inner = Mutex::new(LedGroups::new(clock.monotonic_ms(), totals.clone()));
        let others = shards.iter().enumerate().filter(|(other, _)| *other != at);
        let others = others.map(|(_, shard)| shard.clone()).collect();
        let (totals, underway) = (totals.clone(), underway.clone());
        Self::of(Arc::new(Shared {
            shard: shards[at].clone(),
            others,
            homes,
            totals,
            options,
            clock,
            inner,
            underway,
        }))
    }

    #[cfg(test)]
    fn new(shard: Arc<dyn GroupShard>, options: GroupOptions, clock: Arc<dyn Clock>) -> Self {
        Self::among(&[shard], 0, options, clock, Weak::new(), &Arc::default(), &Arc::default())
    }

    fn of(shared: Arc<Shared>) -> Self {
        Self { shared, scope: GroupScope::BARE }
    }

    /// The same for another caller.
    pub(crate) fn within(&self, scope: GroupScope) -> Self {
        Self { shared: self.shared.clone(), scope }
    }

    /// The caller's group of that name; `None` if it can have none.
    pub fn named(&self, name: &str) -> Option<GroupId> {
        let GroupScope { namespace, front_end } = &self.scope;
        Some(GroupId { namespace: namespace.clone(), front_end: (*front_end)?, name: name.into() })
    }

    /// The same, if it may be stored.
    fn id(&self, name: &str) -> Result<GroupId, GroupError> {
        if name.is_empty() { Err(GroupError::InvalidId) } else { self.positions_id(name) }
    }

    /// What a group may be called whose positions are set from outside: nothing, too, as old clients have it that belong to none.
    fn positions_id(&self, name: &str) -> Result<GroupId, GroupError> {
        if name.len() > MAX_GROUP_ID {
            return Err(GroupError::InvalidId);
        }
        let group = self.named(name);
        let is_old = group.as_ref().is_some_and(GroupId::is_bare) && name.len() <= OLD_MAX_GROUP_ID;
        if !is_old {
            self.check_level()?;
        }
        group.ok_or(GroupError::UnknownFrontend)
    }

    fn check_level(&self) -> Result<(), GroupError> {
        let (has, needs) = (self.shared.shard.level(), FormatLevel::FRONT_ENDS);
        if has >= needs {
            Ok(())
        } else {
            Err(GroupError::Level { has: has.number(), needs: needs.number() })
        }
    }

    /// The sum of something over the other shards' tables.
    fn elsewhere(&self, of: impl Fn(&GroupTable) -> usize) -> usize {
        let mut sum = 0;
        self.shared.others.iter().for_each(|shard| shard.read_groups(&mut |table| sum += of(table)));
        sum
    }

    /// Reads one value out of the projection.
    fn read<T>(&self, read: impl FnOnce(&GroupTable) -> T) -> T {
        let (mut read, mut value) = (Some(read), None);
        self.shared.shard.read_groups(&mut |table| value = read.take().map(|read| read(table)));
        value.expect("a shard reads its table once")
    }
}

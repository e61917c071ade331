//! What the broker's housekeeper does for groups, and leadership.

use std::sync::{Arc, Weak};

use sabir_base::wake::WakeBatch;
use sabir_delivery::group::GroupEvent;
use sabir_delivery::group::entries::{OffsetsDeleted, WhichOffsets};
use sabir_delivery::group::state::GroupState;
use sabir_model::{GroupError, ShardFailure, Term, TopicId};

use super::entries::GroupBody;
use super::led::LedGroups;
use super::offsets::DELETED_AT_ONCE;
use super::waiter::GroupWaiter;
use super::{GroupId, Groups, Shared};
use crate::entry::Body;
use crate::shard::Leading;

/// Groups looked at in one hold of the projections' lock.
const AT_ONCE: usize = 256;

/// Why a node that ends leads no group, whichever node leads the shard.
const SHUTTING_DOWN: GroupError = GroupError::Shard(ShardFailure::ShuttingDown);

impl Groups {
    /// Takes over the groups that the table knows, which must be all that was ever acknowledged: each with members is led from now on, its deadlines start afresh.
    pub(super) fn lead(&self) {
        self.with(|inner, wakes| {
            if inner.closed == Some(SHUTTING_DOWN) {
                return;
            }
            inner.closed = None;
            let mut groups: Vec<GroupId> = Vec::new();
            self.read(|table| {
                let with_members = table.iter().filter(|(_, state)| !state.is_empty());
                groups.extend(with_members.map(|(group, _)| group.clone()));
            });
            groups.iter().for_each(|group| self.lead_one(inner, group, wakes));
        });
    }

    /// For the groups' shard to tell when this node leads it.
    pub(crate) fn leading(&self) -> Weak<dyn Leading> {
        let leading: Arc<dyn Leading> = self.shared.clone();
        Arc::downgrade(&leading)
    }

    /// Takes over one group, if it has members.
    pub(super) fn lead_one(&self, inner: &mut LedGroups, group: &GroupId, wakes: &mut WakeBatch) {
        let with_members = inner.closed.is_none()
            && self.read(|table| table.get(group).is_some_and(|state| !state.is_empty()));
        if with_members && self.find(inner, group, GroupError::NotFound).is_ok() {
            self.drive(inner, group, GroupEvent::Tick, wakes);
        }
    }

    /// Ends what is over; to be called every 50 ms or so. Costs nothing where nothing is due.
    pub(crate) fn tick(&self) {
        let passed = self.shared.clock.monotonic_ms();
        let due = {
            let mut inner = self.shared.inner.lock();
            let now = inner.now(passed);
            std::iter::from_fn(|| inner.due(now)).collect::<Vec<_>>()
        };
        for group in due {
            self.with(|inner, wakes| self.drive(inner, &group, GroupEvent::Tick, wakes));
        }
    }

    /// Proposes to delete the positions of groups without members that were not needed for the retention time, and those of topics
    /// that do not exist any more; to be called every few minutes.
    pub(crate) fn housekeep(&self, exists: &dyn Fn(TopicId) -> bool) {
        if self.ready().is_err() {
            return;
        }
        let retention = i64::try_from(self.shared.options.offsets_retention.as_millis()).unwrap_or(i64::MAX);
        let unused_since = self.shared.clock.age_limits().since_ms(retention);
        let mut groups = Vec::new();
        self.read(|table| groups.extend(table.iter().map(|(group, _)| group.clone())));
        for some in groups.chunks(AT_ONCE) {
            let mut entries = Vec::new();
            self.read(|table| {
                for group in some {
                    let Some(state) = table.get(group) else { continue };
                    entries.extend(overdue(state, unused_since, exists).map(|which| (group.clone(), which)));
                }
            });
            for (group, which) in entries {
                self.propose_deletion(group, which);
            }
            self.shared.shard.flush();
        }
    }

    fn propose_deletion(&self, group: GroupId, which: WhichOffsets) {
        // A join under way would find its group gone.
        if matches!(which, WhichOffsets::UnusedSince(_)) && self.shared.inner.lock().led.contains_key(&group)
        {
            return;
        }
        let (kind, body) = (OffsetsDeleted::KIND, OffsetsDeleted { group, which }.encoded());
        if let Err((error, _)) = self.shared.shard.propose(kind, &body, GroupWaiter::Nobody) {
            tracing::debug!(%error, "expired offsets stay until the next round");
        }
    }

    /// Stops leading: all parked requests, and those to come, are answered with `error`; nothing is left in memory.
    pub(crate) fn retire(&self, error: GroupError) {
        self.with(|inner, wakes| {
            if inner.closed != Some(SHUTTING_DOWN) {
                inner.closed = Some(error);
            }
            let groups: Vec<GroupId> = inner.led.keys().cloned().collect();
            groups.iter().for_each(|group| inner.retire(group, error, wakes));
        });
    }
}

impl Leading for Shared {
    fn led(self: Arc<Self>, _: Term) {
        Groups::of(self).lead();
    }

    fn laid_down(self: Arc<Self>) {
        Groups::of(self).retire(ShardFailure::NotLeader.into());
    }
}

/// What of a group's positions is to go.
fn overdue(
    state: &GroupState,
    unused_since: i64,
    exists: &dyn Fn(TopicId) -> bool,
) -> impl Iterator<Item = WhichOffsets> {
    let mut gone: Vec<TopicId> = state.offsets().map(|((topic, _), _)| *topic).collect();
    gone.dedup();
    gone.retain(|topic| !exists(*topic));
    let gone: Vec<_> =
        gone.chunks(DELETED_AT_ONCE).map(|topics| WhichOffsets::Topics(topics.to_vec())).collect();
    let unused = state.has_unused_since(unused_since).then_some(WhichOffsets::UnusedSince(unused_since));
    gone.into_iter().chain(unused)
}

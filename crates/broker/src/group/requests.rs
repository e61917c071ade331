//! Members' requests: join, sync, heartbeat, leave.

use std::hash::{BuildHasher, RandomState};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use sabir_base::wake::WakeBatch;
use sabir_delivery::group::{Group, GroupEvent, Holder};
use sabir_model::{ErrorAbout, GroupError};

use super::led::{LedGroups, Waits};
use super::reply::Reply;
use super::{
    Fence, GroupId, GroupProtocol, GroupTable, Groups, JoinRefusal, JoinRequest, Joined, LeaveRequest, Left,
    MAX_PROTOCOL_TYPE, SyncRequest, Synced, Text, about,
};

impl Groups {
    /// Asks to be a member in the next generation; answered when the rebalance that this calls for has its members. A client
    /// without an id is given one.
    ///
    /// The answer's error is [`GroupError::MemberIdRequired`] (join again with the id that comes with it),
    /// [`GroupError::UnknownMember`], [`GroupError::FencedInstance`], [`GroupError::InconsistentProtocol`],
    /// [`GroupError::InvalidSessionTimeout`], [`GroupError::Full`], [`GroupError::InvalidId`],
    /// [`GroupError::RebalanceInProgress`] (a later join of the same member took its place),
    /// [`GroupError::TooLarge`] (it brings more than a group's entry takes), [`GroupError::LimitReached`], or what kept its entry from being stored.
    pub fn join(&self, group: &str, request: JoinRequest) -> Reply<Result<Joined, JoinRefusal>> {
        let member = request.member.clone();
        match self.try_join(group, request) {
            Ok(reply) => reply,
            Err(error) => Reply::ready(Err(JoinRefusal { error: about(group, error), member })),
        }
    }

    fn try_join(
        &self,
        group: &str,
        request: JoinRequest,
    ) -> Result<Reply<Result<Joined, JoinRefusal>>, GroupError> {
        let group = self.id(group)?;
        if request.protocol_type.len() > MAX_PROTOCOL_TYPE {
            return Err(GroupError::InconsistentProtocol);
        }
        let fresh = fresh_member_id(request.instance.as_ref().unwrap_or(&request.client.id));
        let wants_id = request.wants_id();
        let holder = Holder { host: request.client.host.clone(), connection: request.connection };
        if wants_id {
            self.make_room_for_id();
        }
        self.with(|inner, wakes| {
            self.make(inner, &group, &request)?;
            if let Err(error) = self.admit_join(inner, &group, &request) {
                inner.drop_if_idle(&group);
                return Err(error);
            }
            let (replier, reply) = Reply::pair();
            let ticket = inner.park(&group, Waits::Join(replier));
            self.drive(inner, &group, GroupEvent::Join(ticket, fresh.clone(), detached(request)), wakes);
            if wants_id {
                inner.note_given(&group, holder, fresh);
            }
            Ok(reply)
        })
    }

    /// Asks for the member's assignment; from the leader it brings those of all members. Answered when that is stored.
    ///
    /// The answer's error is [`GroupError::RebalanceInProgress`] (join again), [`GroupError::UnknownMember`],
    /// [`GroupError::FencedInstance`], [`GroupError::IllegalGeneration`], [`GroupError::InconsistentProtocol`],
    /// [`GroupError::InvalidId`], [`GroupError::TooLarge`] (all assignments together do not fit an entry), or what kept the
    /// entry from being stored.
    pub fn sync(
        &self,
        group: &str,
        mut request: SyncRequest,
    ) -> Reply<Result<Synced, ErrorAbout<GroupError>>> {
        let parked = self.id(group).and_then(|group| {
            self.with(|inner, wakes| {
                self.find(inner, &group, GroupError::UnknownMember)?;
                let given: usize = request.assignments.iter().map(|(_, assignment)| assignment.len()).sum();
                if given > 0 {
                    self.admit_bytes(inner, &group, |machine| machine.bytes_given(given))?;
                }
                // More than that is refused, and not kept.
                if given <= self.shared.options.limits.max_record_bytes {
                    let copy = |(_, bytes): &mut (Text, Bytes)| *bytes = Bytes::copy_from_slice(bytes);
                    request.assignments.iter_mut().for_each(copy);
                }
                let (replier, reply) = Reply::pair();
                let ticket = inner.park(&group, Waits::Sync(replier));
                self.drive(inner, &group, GroupEvent::Sync(ticket, request), wakes);
                Ok(reply)
            })
        });
        parked.unwrap_or_else(|error| Reply::ready(Err(about(group, error))))
    }

    /// A sign of life.
    ///
    /// # Errors
    /// [`GroupError::RebalanceInProgress`] (join again), [`GroupError::UnknownMember`], [`GroupError::FencedInstance`],
    /// [`GroupError::IllegalGeneration`], [`GroupError::InvalidId`].
    pub fn heartbeat(&self, group: &str, fence: &Fence) -> Result<(), ErrorAbout<GroupError>> {
        self.beat(group, fence).map_err(|error| about(group, error))
    }

    fn beat(&self, group: &str, fence: &Fence) -> Result<(), GroupError> {
        let group = self.id(group)?;
        let mut inner = self.shared.inner.lock();
        self.find(&mut inner, &group, GroupError::UnknownMember)?;
        let now = inner.now(self.shared.clock.monotonic_ms());
        let led = inner.led.get_mut(&group).ok_or(GroupError::UnknownMember)?;
        let alive = led.machine.heartbeat(fence, now);
        inner.drop_if_idle(&group);
        alive
    }

    /// Takes members out, and tells, in order, what became of each.
    ///
    /// # Errors
    /// [`GroupError::UnknownMember`] if there is no such group, [`GroupError::InvalidId`].
    pub fn leave(
        &self,
        group: &str,
        members: Vec<LeaveRequest>,
    ) -> Result<Vec<Left>, ErrorAbout<GroupError>> {
        let left = self.id(group).and_then(|group| {
            self.with(|inner, wakes| {
                self.find(inner, &group, GroupError::UnknownMember)?;
                let ticket = inner.ticket();
                self.drive(inner, &group, GroupEvent::Leave(ticket, members), wakes)
                    .ok_or(GroupError::NotCoordinator)
            })
        });
        left.map_err(|error| about(group, error))
    }

    /// Does something under the lock, then what must not be done under it.
    pub(super) fn with<T>(&self, act: impl FnOnce(&mut LedGroups, &mut WakeBatch) -> T) -> T {
        let mut wakes = WakeBatch::default();
        let done = act(&mut self.shared.inner.lock(), &mut wakes);
        self.shared.shard.flush();
        wakes.deliver();
        done
    }

    /// Makes sure that a group which exists has its machine.
    ///
    /// # Errors
    /// `missing` if it does not exist; why groups are not led.
    pub(super) fn find(
        &self,
        inner: &mut LedGroups,
        group: &GroupId,
        missing: GroupError,
    ) -> Result<(), GroupError> {
        inner.closed.map_or(Ok(()), Err)?;
        if inner.led.contains_key(group) {
            return Ok(());
        }
        let now = inner.now(self.shared.clock.monotonic_ms());
        let limits = self.shared.options.limits;
        let restored = self.read(|table| table.get(group).map(|state| Group::restore(limits, state, now)));
        inner.put(group.clone(), restored.ok_or(missing)?);
        Ok(())
    }

    /// As [`find`](Self::find), making the group if it is new and the request claims no membership.
    fn make(&self, inner: &mut LedGroups, group: &GroupId, request: &JoinRequest) -> Result<(), GroupError> {
        match self.find(inner, group, GroupError::UnknownMember) {
            Err(GroupError::UnknownMember) if request.member.is_empty() => {
                if self.groups(inner) >= self.shared.options.max_groups || !self.has_room_for(inner, group) {
                    return Err(self.refuse_new(inner, group, &request.client.host));
                }
                inner.put_new(group.clone(), Group::new(self.shared.options.limits));
                Ok(())
            }
            found => found,
        }
    }

    /// Whether what groups take without their members leaves room for a new one.
    fn has_room_for(&self, inner: &LedGroups, group: &GroupId) -> bool {
        let coming = inner.totals.unstored_bytes() + self.shared.underway.bytes();
        coming + self.stored_bytes() + GroupTable::bytes_of_new(group) <= self.shared.options.max_offset_bytes
    }

    /// How many groups there are: those that are stored, those that are led and not stored yet, and those that commits under way will store.
    pub(super) fn groups(&self, inner: &LedGroups) -> usize {
        let coming = inner.totals.unstored() + self.shared.underway.groups();
        coming + self.read(GroupTable::len) + self.elsewhere(GroupTable::len)
    }
}

/// A copy of what would otherwise keep whole requests in memory.
fn detached(mut request: JoinRequest) -> JoinRequest {
    let detach =
        |p: GroupProtocol| GroupProtocol { name: p.name, metadata: Bytes::copy_from_slice(&p.metadata) };
    request.protocols = request.protocols.into_iter().map(detach).collect();
    request
}

/// An id that no other member has: the client's name and 128 bits, keyed by what the system gave the process at random.
fn fresh_member_id(name: &Text) -> Text {
    static KEYS: OnceLock<[RandomState; 2]> = OnceLock::new();
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let keys = KEYS.get_or_init(|| [RandomState::new(), RandomState::new()]);
    let count = COUNTER.fetch_add(1, Ordering::Relaxed);
    let [high, low] = [keys[0].hash_one(count), keys[1].hash_one(count)];
    format!("{name}-{high:016x}{low:016x}").into()
}

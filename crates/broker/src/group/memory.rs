//! What the members of all groups may take: what is there goes on when it is full, and nothing is added.

use sabir_delivery::group::{Group, GroupId, JoinRequest};
use sabir_model::GroupError;

use super::led::{LedGroups, with_name};
use super::{GroupTable, Groups};

/// Ids that were given out take this part beside what members may, and groups that are stored as much beyond it: a member that joins
/// again may name what it was given.
pub(super) const PART: usize = 4;
/// What the groups take that one address made is at most this part of what all may.
const ADDRESS_PART: usize = 2;
/// How often it is told that it is full, in milliseconds.
const TELL_EVERY: i64 = 10_000;

/// What the members of all groups take, in bytes, and what was refused for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemberMemory {
    /// What members brought and were given.
    pub bytes: usize,
    /// Ids given out that have not come back.
    pub pending_bytes: usize,
    /// Joins, assignments and commits refused since the start of the process.
    pub refused: u64,
}

impl Groups {
    /// What the members of all groups take.
    pub fn member_memory(&self) -> MemberMemory {
        let totals = &self.shared.totals;
        let (bytes, pending_bytes) = (totals.member_bytes(), totals.pending_bytes());
        MemberMemory { bytes, pending_bytes, refused: totals.refused() }
    }

    /// Whether there is room for what a join brings.
    pub(super) fn admit_join(
        &self,
        inner: &mut LedGroups,
        group: &GroupId,
        request: &JoinRequest,
    ) -> Result<(), GroupError> {
        if let Some(led) = inner.led.get_mut(group) {
            led.joined_from(&request.client.host);
        }
        self.admit_bytes(inner, group, |machine| machine.bytes_with(request))
    }

    /// Whether there is room for a group with as many bytes. There is for as many as it had when it was last settled.
    pub(super) fn admit_bytes(
        &self,
        inner: &mut LedGroups,
        group: &GroupId,
        bytes: impl FnOnce(&Group) -> usize,
    ) -> Result<(), GroupError> {
        let Some(led) = inner.led.get(group) else { return Ok(()) };
        let more = with_name(group, bytes(&led.machine)).saturating_sub(led.reserved);
        let most = self.shared.options.max_member_bytes;
        let most = if led.stored { most + most / PART } else { most };
        let made_by = led.made_by().clone();
        let of_address = inner.totals.addresses().bytes(&made_by);
        if more == 0 || inner.totals.member_bytes() + more <= most && of_address + more <= most / ADDRESS_PART
        {
            return Ok(());
        }
        inner.totals.refuse();
        if self.may_tell(inner) {
            let MemberMemory { bytes, pending_bytes: pending, refused } = self.member_memory();
            let largest = inner.totals.addresses().largest().unwrap_or_default();
            let of_largest = inner.totals.addresses().bytes(&largest);
            tracing::warn!(
                group = &*group.name,
                address = &*made_by,
                of_address,
                largest = &*largest,
                of_largest,
                bytes,
                pending,
                refused,
                "no room for what members of groups bring: those that are there go on, and none is added; the groups that one address made \
                 take half of it at the most (group.member_memory)"
            );
        }
        Err(GroupError::LimitReached)
    }

    /// Refuses a group that is new.
    pub(super) fn refuse_new(&self, inner: &mut LedGroups, group: &GroupId, address: &str) -> GroupError {
        inner.totals.refuse();
        if self.may_tell(inner) {
            let (groups, bytes, refused) = (self.groups(inner), self.stored_bytes(), inner.totals.refused());
            tracing::warn!(
                group = &*group.name,
                address,
                groups,
                bytes,
                refused,
                "no room for more groups or positions: those that are there go on (group.max_groups, group.offset_memory)"
            );
        }
        GroupError::LimitReached
    }

    /// What all groups take without their members, in bytes.
    pub fn stored_bytes(&self) -> usize {
        self.read(GroupTable::bytes) + self.elsewhere(GroupTable::bytes)
    }

    /// Says that ids were forgotten for others.
    pub(super) fn tell_forgotten(&self, inner: &mut LedGroups, group: &GroupId) {
        if self.may_tell(inner) {
            let pending = inner.totals.pending_bytes();
            tracing::warn!(
                group = &*group.name,
                pending,
                "very many clients were given member ids and have not come back with them: the oldest ids of whoever was given most \
                 are forgotten (group.member_memory, group.max_groups)"
            );
        }
    }

    /// Whether the log may have a line more.
    fn may_tell(&self, inner: &mut LedGroups) -> bool {
        let now = inner.now(self.shared.clock.monotonic_ms());
        let may = inner.told_at.is_none_or(|told| now - told >= TELL_EVERY);
        if may {
            inner.told_at = Some(now);
        }
        may
    }
}

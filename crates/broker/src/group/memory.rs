//! What the members of all groups may take: what is there goes on when it is full, and nothing is added.

use sabir_delivery::group::{Group, GroupId, JoinRequest};
use sabir_model::GroupError;

use super::Groups;
use super::led::Inner;

/// Ids that were given out take this part beside what members may, and groups that are stored as much beyond it: a member that joins
/// again may name what it was given.
pub(super) const PART: usize = 4;
/// How often it is told that it is full, in milliseconds.
const TELL_EVERY: i64 = 10_000;

/// What the members of all groups take, in bytes, and what was refused for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemberMemory {
    /// What members brought and were given.
    pub bytes: usize,
    /// Ids given out that have not come back.
    pub pending_bytes: usize,
    /// Joins and assignments refused since the start of the process.
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
        inner: &mut Inner,
        group: &GroupId,
        request: &JoinRequest,
    ) -> Result<(), GroupError> {
        self.admit_bytes(inner, group, |machine| machine.bytes_with(request))
    }

    /// Whether there is room for a group with as many bytes. There is for as many as it had when it was last settled.
    pub(super) fn admit_bytes(
        &self,
        inner: &mut Inner,
        group: &GroupId,
        bytes: impl FnOnce(&Group) -> usize,
    ) -> Result<(), GroupError> {
        let Some(led) = inner.led.get(group) else { return Ok(()) };
        let more = bytes(&led.machine).saturating_sub(led.reserved);
        let most = self.shared.options.max_member_bytes;
        let most = if led.stored { most + most / PART } else { most };
        if more == 0 || inner.totals.member_bytes() + more <= most {
            Ok(())
        } else {
            self.refuse(inner, group)
        }
    }

    fn refuse(&self, inner: &mut Inner, group: &GroupId) -> Result<(), GroupError> {
        inner.totals.refuse();
        if self.may_tell(inner) {
            let MemberMemory { bytes, pending_bytes: pending, refused } = self.member_memory();
            tracing::warn!(
                group = &*group.name,
                bytes,
                pending,
                refused,
                "no room for what members of groups bring: those that are there go on, and none is added (group.member_memory)"
            );
        }
        Err(GroupError::LimitReached)
    }

    /// Says that ids were forgotten for others.
    pub(super) fn tell_forgotten(&self, inner: &mut Inner, group: &GroupId) {
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
    fn may_tell(&self, inner: &mut Inner) -> bool {
        let now = inner.now(self.shared.clock.monotonic_ms());
        let may = inner.told_at.is_none_or(|told| now - told >= TELL_EVERY);
        if may {
            inner.told_at = Some(now);
        }
        may
    }
}

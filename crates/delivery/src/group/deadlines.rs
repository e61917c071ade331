//! Time passing: silent members, clients that never came back, rebalances that take too long.

use super::machine::{JoinTimer, Phase};
use super::{Group, Text};

impl Group {
    /// Asks to be woken by `at`.
    pub(super) fn arm(&mut self, at: i64) {
        self.wake_at = self.wake_at.min(at);
    }

    pub(super) fn set_deadline(&mut self, id: &Text, at: i64) {
        if let Some(member) = self.members.get_mut(id) {
            member.deadline = Some(at);
            self.arm(at);
        }
    }

    /// The member was heard of.
    pub(super) fn restart_session(&mut self, id: &Text, now: i64) {
        if let Some(member) = self.members.get_mut(id) {
            let at = now + member.session_timeout_ms;
            member.deadline = Some(at);
            self.arm(at);
        }
    }

    pub(super) fn tick(&mut self, now: i64) {
        self.wake_at = i64::MAX;
        self.forget_pending(now);
        for id in self.members.ids_where(|m| m.deadline.is_some_and(|at| at <= now)) {
            self.session_over(&id, now);
        }
        self.end_phase(now);
        self.state_again(now);
        self.wake_at = self.wake_at.min(self.first_deadline());
    }

    fn forget_pending(&mut self, now: i64) {
        if self.pending.forget(now) {
            self.complete_if_nobody_is_missing(now);
        }
    }

    fn session_over(&mut self, id: &Text, now: i64) {
        let Some(member) = self.members.get_mut(id) else { return };
        if member.deadline.is_none_or(|at| at > now) {
            // An earlier one's end moved it.
            return;
        }
        if member.vouched_for() {
            // Answering what it has parked starts its session anew.
            member.deadline = None;
            return;
        }
        self.remove_member(id);
        match self.phase {
            Phase::Stable { .. } | Phase::Completing { .. } => self.prepare(now),
            _ => self.complete_if_nobody_is_missing(now),
        }
    }

    /// Unlike a leave, an expiry ends the first members' wait too: it lasted longer than a session.
    fn complete_if_nobody_is_missing(&mut self, now: i64) {
        if matches!(self.phase, Phase::Preparing(_)) && self.all_joined() {
            self.complete_join(now);
        }
    }

    fn end_phase(&mut self, now: i64) {
        match self.phase {
            Phase::Preparing(JoinTimer::Initial { at, .. }) if at <= now => self.end_first_wait(now),
            Phase::Preparing(JoinTimer::Again { at }) if at <= now => self.complete_join(now),
            Phase::Completing { sync_by, .. } | Phase::Stable { sync_by } if sync_by <= now => {
                self.end_sync(now)
            }
            _ => {}
        }
    }

    /// A member that has not asked for its assignment by now is gone.
    fn end_sync(&mut self, now: i64) {
        let late = self.members.ids_where(|m| m.owes_sync);
        if late.is_empty() {
            return self.no_sync_deadline();
        }
        late.iter().for_each(|id| self.remove_member(id));
        self.prepare(now);
    }

    fn no_sync_deadline(&mut self) {
        if let Phase::Completing { sync_by, .. } | Phase::Stable { sync_by } = &mut self.phase {
            *sync_by = i64::MAX;
        }
    }

    fn first_deadline(&self) -> i64 {
        let phase = match self.phase {
            Phase::Preparing(JoinTimer::Initial { at, .. } | JoinTimer::Again { at }) => at,
            Phase::Completing { sync_by, .. } | Phase::Stable { sync_by } => sync_by,
            Phase::Empty => self.journal.again_at,
            Phase::Dead => i64::MAX,
        };
        let members = self.members.iter().filter_map(|m| m.deadline);
        members.chain(self.pending.times()).fold(phase, i64::min)
    }
}

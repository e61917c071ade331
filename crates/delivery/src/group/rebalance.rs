//! A rebalance: waiting for the members, making the next generation, handing out the assignment.

use std::collections::BTreeMap;

use bytes::Bytes;
use sabir_model::GroupError;

use super::machine::{JoinTimer, Phase, Returning, Storing};
use super::members::Member;
use super::{Answer, Group, RequestId, SyncRequest, Synced, Text, Token};

/// How long after its refusal an entry that must come is proposed again.
const STATE_AGAIN_MS: i64 = 1_000;

impl Group {
    /// Calls all members to join again.
    pub(super) fn prepare(&mut self, now: i64) {
        if matches!(self.phase, Phase::Completing { .. }) {
            self.members.unassign();
            self.answer_syncs(now, Some(GroupError::RebalanceInProgress));
        }
        self.members.iter_mut().for_each(|m| m.owes_sync = false);
        if self.phase == Phase::Empty {
            return self.prepare_first(now);
        }
        let at = now + self.members.rebalance_timeout_ms();
        self.phase = Phase::Preparing(JoinTimer::Again { at });
        self.arm(at);
        self.complete_if_all_joined(now);
    }

    /// More members are likely to follow the first.
    fn prepare_first(&mut self, now: i64) {
        let delay_ms = self.config.initial_rebalance_delay_ms;
        let left_ms = (self.members.rebalance_timeout_ms() - delay_ms).max(0);
        let at = now + delay_ms;
        self.phase = Phase::Preparing(JoinTimer::Initial { at, delay_ms, left_ms, extended: false });
        self.arm(at);
        if delay_ms == 0 {
            self.complete_join(now);
        }
    }

    /// Ends the wait early, unless it is the first members': those wait their time.
    pub(super) fn complete_if_all_joined(&mut self, now: i64) {
        if matches!(self.phase, Phase::Preparing(JoinTimer::Again { .. })) && self.all_joined() {
            self.complete_join(now);
        }
    }

    pub(super) fn all_joined(&self) -> bool {
        self.members.joining() == self.members.len() && self.pending.is_empty()
    }

    /// The first members' wait is over, or goes on because more came.
    pub(super) fn end_first_wait(&mut self, now: i64) {
        let Phase::Preparing(JoinTimer::Initial { delay_ms, left_ms, extended, .. }) = self.phase else {
            return;
        };
        if !extended || left_ms == 0 {
            return self.complete_join(now);
        }
        let next_ms = self.config.initial_rebalance_delay_ms.min(left_ms);
        let at = now + next_ms;
        let left_ms = (left_ms - delay_ms).max(0);
        self.phase = Phase::Preparing(JoinTimer::Initial { at, delay_ms: next_ms, left_ms, extended: false });
        self.arm(at);
    }

    /// Makes the next generation of those that joined, and of static members, who may be restarting.
    pub(super) fn complete_join(&mut self, now: i64) {
        for id in self.members.ids_where(|m| m.joining().is_none() && m.instance.is_none()) {
            self.remove_member(&id);
        }
        if self.members.is_empty() {
            return self.become_empty();
        }
        if !self.elect_joined_leader() {
            // Static members only, and none came: their sessions decide.
            let at = now + self.members.rebalance_timeout_ms();
            self.phase = Phase::Preparing(JoinTimer::Again { at });
            return self.arm(at);
        }
        self.next_generation();
        self.protocol = self.members.elect_protocol();
        let sync_by = now + self.members.rebalance_timeout_ms();
        self.phase = Phase::Completing { sync_by, stored: None };
        self.arm(sync_by);
        for id in self.members.ids_where(|_| true) {
            self.admit(&id, now);
        }
    }

    fn admit(&mut self, id: &Text, now: i64) {
        if let Some(ticket) = self.members.take_join(id) {
            let joined = self.joined(id.clone(), self.leader.as_ref() == Some(id));
            self.answer(ticket, Answer::Joined(Ok(joined)));
        }
        if let Some(member) = self.members.get_mut(id) {
            member.new = false;
            member.owes_sync = true;
        }
        self.restart_session(id, now);
    }

    /// The leader stays if it joined; otherwise the first that did takes over.
    fn elect_joined_leader(&mut self) -> bool {
        let joined = |id: &Text| self.members.get(id).is_some_and(|m| m.joining().is_some());
        if !self.leader.as_ref().is_some_and(joined) {
            let next = self.members.iter().find(|m| m.joining().is_some());
            let Some(next) = next.map(|m| m.id.clone()) else { return false };
            self.leader = Some(next);
        }
        true
    }

    fn next_generation(&mut self) {
        self.generation = self.generation.checked_add(1).unwrap_or(1);
    }

    fn become_empty(&mut self) {
        self.next_generation();
        self.phase = Phase::Empty;
        self.protocol = None;
        self.leader = None;
        // A group that never got as far as an assignment leaves no trace.
        if self.journal.generation.is_some() {
            let record = self.record(&BTreeMap::new());
            self.propose_record(record);
        }
    }

    pub(super) fn sync(&mut self, ticket: RequestId, sync: SyncRequest, now: i64) {
        if let Err(error) = self.check_sync(&sync) {
            return self.answer(ticket, Answer::Synced(Err(error)));
        }
        let id = sync.fence.member.clone();
        match self.phase {
            Phase::Completing { .. } => {
                self.park_sync(ticket, &id);
                if self.leader.as_ref() == Some(&id) {
                    self.store_assignment(sync, now);
                }
            }
            _ => {
                self.answer_sync(ticket, &id);
                self.restart_session(&id, now);
            }
        }
    }

    fn check_sync(&self, sync: &SyncRequest) -> Result<(), GroupError> {
        self.check_member(&sync.fence)?;
        let differs = |theirs: &Option<Text>, ours: Option<&Text>| {
            theirs.as_ref().zip(ours).is_some_and(|(theirs, ours)| theirs != ours)
        };
        if differs(&sync.protocol_type, Some(&self.protocol_type))
            || differs(&sync.protocol, self.protocol.as_ref())
        {
            return Err(GroupError::InconsistentProtocol);
        }
        match self.phase {
            Phase::Preparing(_) => Err(GroupError::RebalanceInProgress),
            _ => Ok(()),
        }
    }

    fn park_sync(&mut self, ticket: RequestId, id: &Text) {
        let Some(member) = self.members.get_mut(id) else { return };
        member.owes_sync = false;
        if let Some(before) = member.syncing.replace(ticket) {
            // Asked again, most likely on a new connection.
            self.answer(before, Answer::Synced(Err(GroupError::RebalanceInProgress)));
        }
    }

    fn answer_sync(&mut self, ticket: RequestId, id: &Text) {
        let (protocol_type, protocol) = (Some(self.protocol_type.clone()), self.protocol.clone());
        let Some(member) = self.members.get_mut(id) else { return };
        member.owes_sync = false;
        let assignment = member.assignment.clone();
        self.answer(ticket, Answer::Synced(Ok(Synced { protocol_type, protocol, assignment })));
    }

    /// Proposes the leader's assignment; no member hears of it before it is committed.
    fn store_assignment(&mut self, sync: SyncRequest, now: i64) {
        if matches!(self.phase, Phase::Completing { stored: Some(_), .. }) {
            return;
        }
        let members = |(id, _): &(Text, Bytes)| self.members.contains(id);
        let assignments: BTreeMap<Text, Bytes> = sync.assignments.into_iter().filter(members).collect();
        let record = self.record(&assignments);
        if record.stored_len() > self.config.max_record_bytes {
            return self.give_up_sync(GroupError::TooLarge, now);
        }
        let token = self.propose_record(record);
        if let Phase::Completing { stored, .. } = &mut self.phase {
            *stored = Some(Storing { token, assignments });
        }
    }

    /// The assignment cannot be stored: all members that wait are told so and join again.
    fn give_up_sync(&mut self, error: GroupError, now: i64) {
        self.answer_syncs(now, Some(error));
        self.prepare(now);
    }

    pub(super) fn persisted(&mut self, token: Token, now: i64) {
        if let Some(at) = self.returning.iter().position(|r| r.token == token) {
            let returning = self.returning.swap_remove(at);
            return self.answer_returning(returning, now);
        }
        let Phase::Completing { stored, sync_by } = &mut self.phase else { return };
        let Some(storing) = stored.take_if(|s| s.token == token) else { return };
        self.phase = Phase::Stable { sync_by: *sync_by };
        for (id, assignment) in storing.assignments {
            self.members.assign(&id, assignment);
        }
        self.answer_syncs(now, None);
    }

    pub(super) fn refused(&mut self, token: Token, error: GroupError, now: i64) {
        if let Some(at) = self.returning.iter().position(|r| r.token == token) {
            let returning = self.returning.swap_remove(at);
            return self.give_up_returning(returning, error, now);
        }
        if self.journal.record == token {
            self.journal.doubtful = true;
            self.state_again_if_empty(now);
        }
        if matches!(&self.phase, Phase::Completing { stored: Some(storing), .. } if storing.token == token) {
            self.give_up_sync(error, now);
        }
    }

    /// A group with members will have another record; that no member is left must be proposed again.
    fn state_again_if_empty(&mut self, now: i64) {
        if self.phase == Phase::Empty {
            self.journal.again_at = now + STATE_AGAIN_MS;
            self.arm(self.journal.again_at);
        }
    }

    pub(super) fn state_again(&mut self, now: i64) {
        if self.phase == Phase::Empty && self.journal.again_at <= now {
            let record = self.record(&BTreeMap::new());
            self.propose_record(record);
        }
    }

    /// The journal goes on with the id the member had, so only a new record can bring the two together.
    fn give_up_returning(&mut self, returning: Returning, error: GroupError, now: i64) {
        let parked = self.members.get(&returning.member).and_then(Member::joining);
        if parked == Some(returning.ticket) {
            self.members.take_join(&returning.member);
            self.refuse_join(returning.ticket, error, Text::from(""));
        }
        if matches!(self.phase, Phase::Stable { .. }) {
            self.prepare(now);
        }
    }

    /// Answers every parked sync, with the assignment or an error; sessions start anew, for while a sync was parked they were
    /// not watched.
    fn answer_syncs(&mut self, now: i64, error: Option<GroupError>) {
        for id in self.members.ids_where(|m| m.syncing.is_some()) {
            let Some(ticket) = self.members.get_mut(&id).and_then(|m| m.syncing.take()) else { continue };
            match error {
                Some(error) => self.answer(ticket, Answer::Synced(Err(error))),
                None => self.answer_sync(ticket, &id),
            }
            self.restart_session(&id, now);
        }
    }
}

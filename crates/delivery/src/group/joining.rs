//! Joins: which members are taken, and what that sets off.

use sabir_model::GroupError;

use super::entries::GroupChange;
use super::machine::{JoinTimer, Phase, Returning};
use super::members::Member;
use super::pending::id_bytes;
use super::shares::Holder;
use super::{Answer, Group, JoinRefused, JoinRequest, Joined, RequestId, Text, Token};

/// How long an id that was given out is kept at the most, in milliseconds. Clients come back with it at once.
const ID_KEPT_MS: i64 = 60_000;

impl Group {
    pub(super) fn join(&mut self, ticket: RequestId, fresh: Text, join: JoinRequest, now: i64) {
        let member = join.member.clone();
        if let Err(error) = self.check_join(&join) {
            return self.refuse_join(ticket, error, member);
        }
        if self.would_be_too_large(&join) {
            return self.refuse_join(ticket, GroupError::Full, member);
        }
        if !self.has_room_for(&member) {
            self.pending.remove(&member);
            self.remove_member(&member);
            self.complete_if_all_joined(now);
            return self.refuse_join(ticket, GroupError::Full, Text::from(""));
        }
        if !self.can_agree_with(&join) {
            return self.refuse_join(ticket, GroupError::InconsistentProtocol, member);
        }
        if member.is_empty() {
            self.join_new(ticket, fresh, join, now);
        } else {
            self.join_known(ticket, join, now);
        }
    }

    fn check_join(&self, join: &JoinRequest) -> Result<(), GroupError> {
        let sessions = self.config.min_session_timeout_ms..=self.config.max_session_timeout_ms;
        if self.phase == Phase::Dead {
            Err(GroupError::NotCoordinator)
        } else if !sessions.contains(&join.session_timeout_ms) {
            let (min_ms, max_ms) = sessions.into_inner();
            Err(GroupError::InvalidSessionTimeout { min_ms, max_ms })
        } else if join.bytes() > self.config.max_member_bytes {
            Err(GroupError::TooLarge)
        } else if join.repeats_itself() {
            Err(GroupError::InvalidRequest)
        } else {
            Ok(())
        }
    }

    /// While members join again, those that have done so count: the last to come are turned away, not the last that came first.
    fn has_room_for(&self, member: &Text) -> bool {
        let max = self.config.max_members;
        match self.phase {
            Phase::Empty | Phase::Dead => true,
            Phase::Preparing(_) => {
                self.members.get(member).is_some_and(|m| m.joining().is_some())
                    || self.members.joining() < max
            }
            Phase::Completing { .. } | Phase::Stable { .. } => {
                self.members.contains(member) || self.members.len() < max
            }
        }
    }

    /// What could not be stored in one record is not taken into memory either.
    fn would_be_too_large(&self, join: &JoinRequest) -> bool {
        let before = self.members.get(&join.member).map_or(0, Member::bytes);
        self.members.bytes() - before + join.bytes() > self.config.max_record_bytes
    }

    fn can_agree_with(&self, join: &JoinRequest) -> bool {
        match self.phase {
            Phase::Empty => !join.protocol_type.is_empty() && !join.protocols.is_empty(),
            _ => self.protocol_type == join.protocol_type && self.members.can_agree_with(&join.protocols),
        }
    }

    fn join_new(&mut self, ticket: RequestId, fresh: Text, join: JoinRequest, now: i64) {
        let known = join.instance.as_ref().and_then(|instance| self.members.of_instance(instance)).cloned();
        match known {
            Some(old) => self.return_static(ticket, join, (old, fresh), now),
            None if join.wants_id() => self.tell_id(ticket, fresh, &join, now),
            None => self.add(ticket, fresh, join, now),
        }
    }

    /// The client shall come back with the id, so that one whose answer gets lost leaves no ghost in the group. Where there is no room for
    /// it, ids of the client that was given most give way: a client that asks and never comes back shuts out none that does.
    fn tell_id(&mut self, ticket: RequestId, fresh: Text, join: &JoinRequest, now: i64) {
        while !self.has_room_for_id(&fresh) {
            if !self.pending.forget_one() {
                return self.refuse_join(ticket, GroupError::Full, Text::from(""));
            }
        }
        let until = now + join.session_timeout_ms.min(ID_KEPT_MS);
        let holder = Holder { host: join.client.host.clone(), connection: join.connection };
        self.pending.insert(fresh.clone(), holder, until);
        self.arm(until);
        self.refuse_join(ticket, GroupError::MemberIdRequired, fresh);
    }

    /// A name of its client's is in each id.
    fn has_room_for_id(&self, id: &Text) -> bool {
        let fits = self.pending.bytes() + id_bytes(id) <= self.config.max_record_bytes;
        fits && self.pending.len() < self.config.max_members
    }

    pub(super) fn forget_id(&mut self, id: &Text, now: i64) {
        if self.pending.remove(id) {
            self.complete_if_all_joined(now);
        }
    }

    fn join_known(&mut self, ticket: RequestId, join: JoinRequest, now: i64) {
        let id = join.member.clone();
        if join.instance.is_none() && self.pending.remove(&id) {
            return self.add(ticket, id, join, now);
        }
        if let Err(error) = self.members.check(&id, join.instance.as_ref()) {
            return self.refuse_join(ticket, error, id);
        }
        let same = self.members.get(&id).is_some_and(|m| m.protocols == join.protocols);
        let leads = self.leader.as_ref() == Some(&id);
        match self.phase {
            Phase::Preparing(_) => {
                self.update(ticket, &id, join);
                self.complete_if_all_joined(now);
            }
            // It missed the answer to its join.
            Phase::Completing { .. } if same => self.answer_current(ticket, id, leads),
            // A leader asks for a rebalance by joining: the topics may have changed, which its metadata does not show.
            Phase::Stable { .. } if same && !leads => self.answer_current(ticket, id, false),
            Phase::Completing { .. } | Phase::Stable { .. } => {
                self.update(ticket, &id, join);
                self.prepare(now);
            }
            Phase::Empty | Phase::Dead => self.refuse_join(ticket, GroupError::UnknownMember, id),
        }
    }

    fn answer_current(&mut self, ticket: RequestId, member: Text, with_members: bool) {
        let joined = self.joined(member, with_members);
        self.answer(ticket, Answer::Joined(Ok(joined)));
    }

    fn add(&mut self, ticket: RequestId, id: Text, join: JoinRequest, now: i64) {
        if self.members.is_empty() {
            self.protocol_type = join.protocol_type.clone();
        }
        if let Phase::Preparing(JoinTimer::Initial { extended, .. }) = &mut self.phase {
            *extended = true;
        }
        self.members.insert(Member::new(id.clone(), join));
        self.members.park_join(&id, ticket);
        self.elect_someone();
        // It cannot send heartbeats yet, and whether its client still waits cannot be seen.
        self.set_deadline(&id, now + self.config.new_member_join_timeout_ms);
        match self.phase {
            Phase::Preparing(_) => self.complete_if_all_joined(now),
            _ => self.prepare(now),
        }
    }

    fn update(&mut self, ticket: RequestId, id: &Text, join: JoinRequest) {
        if let Some(before) = self.members.update(id, join, ticket) {
            self.refuse_join(before, GroupError::RebalanceInProgress, id.clone());
        }
    }

    /// A static member came back without its id: it gets a new one and keeps its place. The old one is fenced.
    fn return_static(&mut self, ticket: RequestId, join: JoinRequest, (old, id): (Text, Text), now: i64) {
        let leader_before = self.leader.clone();
        let may_skip_assignment = join.may_skip_assignment;
        self.rename_static(&old, &id);
        self.update(ticket, &id, join);
        self.restart_session(&id, now);
        match self.phase {
            Phase::Stable { .. } if self.members.elect_protocol() == self.protocol => {
                let token = self.propose_replaced(old, &id);
                let member = id;
                self.returning.push(Returning { token, ticket, member, leader_before, may_skip_assignment });
            }
            // The leader may be assigning to the old id this moment.
            Phase::Stable { .. } | Phase::Completing { .. } => self.prepare(now),
            _ => self.complete_if_all_joined(now),
        }
    }

    fn rename_static(&mut self, old: &Text, id: &Text) {
        if let Some(ticket) = self.members.take_join(old) {
            self.refuse_join(ticket, GroupError::FencedInstance, old.clone());
        }
        let Some(mut member) = self.members.remove(old) else { return };
        if let Some(ticket) = member.syncing.take() {
            self.answer(ticket, Answer::Synced(Err(GroupError::FencedInstance)));
        }
        member.id = id.clone();
        self.members.insert(member);
        if self.leader.as_ref() == Some(old) {
            self.leader = Some(id.clone());
        }
    }

    fn propose_replaced(&mut self, old: Text, id: &Text) -> Token {
        let member = self.members.get(id).expect("renamed just now");
        let member = member.record(member.assignment.clone());
        self.journal.members.remove(&old);
        self.journal.members.insert(id.clone());
        self.propose(GroupChange::Replaced { generation: self.generation, old, member })
    }

    /// The entry of a returned static member is committed. If a rebalance began meanwhile, that answers its join.
    pub(super) fn answer_returning(&mut self, returning: Returning, now: i64) {
        let still_there =
            self.members.get(&returning.member).and_then(Member::joining) == Some(returning.ticket);
        if !still_there || !matches!(self.phase, Phase::Stable { .. }) {
            return;
        }
        self.members.take_join(&returning.member);
        self.restart_session(&returning.member, now);
        let leads = self.leader.as_ref() == Some(&returning.member);
        let mut joined = self.joined(returning.member, leads && returning.may_skip_assignment);
        joined.skip_assignment = leads && returning.may_skip_assignment;
        if !returning.may_skip_assignment {
            // An older client told that it leads would assign anew, unasked; the id it had makes it a follower.
            joined.leader = returning.leader_before.unwrap_or_default();
        }
        self.answer(returning.ticket, Answer::Joined(Ok(joined)));
    }

    pub(super) fn joined(&self, member: Text, with_members: bool) -> Joined {
        Joined {
            generation: self.generation,
            protocol_type: Some(self.protocol_type.clone()),
            protocol: self.protocol.clone(),
            leader: self.leader.clone().unwrap_or_default(),
            members: if with_members { self.members.for_leader(self.protocol.as_ref()) } else { Vec::new() },
            member,
            skip_assignment: false,
        }
    }

    pub(super) fn refuse_join(&mut self, ticket: RequestId, error: GroupError, member: Text) {
        self.answer(ticket, Answer::Joined(Err(JoinRefused { error, member })));
    }
}

//! The group's state in the leader's memory, and the dispatch of events.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use sabir_model::GroupError;

use super::entries::GroupChange;
use super::members::{Member, Members};
use super::pending::Pending;
use super::state::{GroupRecord, GroupState};
use super::{
    Action, Answer, ClientIdentity, Fence, GroupEvent, GroupLimits, JoinRequest, LeaveRequest, Left,
    RequestId, Text, Token,
};

/// Bytes of ids after which a further entry is begun.
const GONE_BYTES: usize = 256 << 10;

/// What a group with members takes beside them, and beside its name.
const GROUP: usize = 2688;

/// One classic group, as its leader runs it. See the [module](super) for its states.
#[derive(Debug)]
pub struct Group {
    pub(super) config: GroupLimits,
    pub(super) phase: Phase,
    pub(super) generation: i32,
    /// Empty until a member ever joined.
    pub(super) protocol_type: Text,
    pub(super) protocol: Option<Text>,
    pub(super) leader: Option<Text>,
    pub(super) members: Members,
    /// Ids given out to clients that have not come back with them.
    pub(super) pending: Pending,
    /// Returned static members whose answer waits for its entry.
    pub(super) returning: Vec<Returning>,
    /// What the journal knows once everything proposed is committed.
    pub(super) journal: Journaled,
    pub(super) last_token: Token,
    /// Nothing is due before; an early bound, made exact by a tick.
    pub(super) wake_at: i64,
    pub(super) out: Vec<Action>,
}

/// Where the group stands, with what that state alone needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Phase {
    Empty,
    Preparing(JoinTimer),
    Completing { sync_by: i64, stored: Option<Storing> },
    Stable { sync_by: i64 },
    Dead,
}

/// When a rebalance stops waiting for members.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum JoinTimer {
    /// The first members of an empty group: each newcomer extends the wait, within what is left.
    Initial { at: i64, delay_ms: i64, left_ms: i64, extended: bool },
    /// Members know of each other; they have until then.
    Again { at: i64 },
}

/// The leader's assignment, waiting for its entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Storing {
    pub token: Token,
    pub assignments: BTreeMap<Text, Bytes>,
}

/// A returned static member.
#[derive(Debug, Clone)]
pub(super) struct Returning {
    pub token: Token,
    pub ticket: RequestId,
    pub member: Text,
    pub leader_before: Option<Text>,
    pub may_skip_assignment: bool,
}

/// What has been proposed to the journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Journaled {
    /// The last record's generation; none if there never was one.
    pub generation: Option<i32>,
    /// Its members that are still there.
    pub members: BTreeSet<Text>,
    /// Members that went during this event.
    pub gone: Vec<Text>,
    /// The entry of the last record.
    pub record: Token,
    /// Whether that was refused, so that the journal still has an older one.
    pub doubtful: bool,
    /// When to propose the record of an empty group again; `i64::MAX` for never.
    pub again_at: i64,
}

impl Journaled {
    fn nothing() -> Self {
        Self {
            generation: None,
            members: BTreeSet::new(),
            gone: Vec::new(),
            record: Token(0),
            doubtful: false,
            again_at: i64::MAX,
        }
    }
}

/// A group's state by its well-known name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GroupPhase {
    /// No members; maybe offsets.
    Empty,
    /// Waiting for the members to join.
    PreparingRebalance,
    /// Waiting for the leader's assignment.
    CompletingRebalance,
    /// All members have an assignment.
    Stable,
    /// Not led here any more.
    Dead,
}

impl GroupPhase {
    /// The name clients know it by.
    pub fn name(self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::PreparingRebalance => "PreparingRebalance",
            Self::CompletingRebalance => "CompletingRebalance",
            Self::Stable => "Stable",
            Self::Dead => "Dead",
        }
    }
}

/// A group as it is, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupView {
    /// Its state.
    pub state: GroupPhase,
    /// Its generation.
    pub generation: i32,
    /// The kind of group; empty if it never had members.
    pub protocol_type: Text,
    /// The protocol chosen; none while there is no choice.
    pub protocol: Option<Text>,
    /// The leader's member id.
    pub leader: Option<Text>,
    /// All members.
    pub members: Vec<MemberView>,
}

/// A member as it is, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberView {
    /// Its id.
    pub member: Text,
    /// Its static instance id.
    pub instance: Option<Text>,
    /// Where it connects from.
    pub client: ClientIdentity,
    /// Its metadata in the chosen protocol.
    pub metadata: Bytes,
    /// What it was given.
    pub assignment: Bytes,
}

impl Group {
    /// A group of which nothing is stored.
    pub fn new(config: GroupLimits) -> Self {
        Self {
            config,
            phase: Phase::Empty,
            generation: 0,
            protocol_type: Text::from(""),
            protocol: None,
            leader: None,
            members: Members::default(),
            pending: Pending::default(),
            returning: Vec::new(),
            journal: Journaled::nothing(),
            last_token: Token(0),
            wake_at: i64::MAX,
            out: Vec::new(),
        }
    }

    /// The group that the journal knows, led afresh from `now`: stable or empty, or, if members went and others were left with
    /// an assignment that no longer covers everything, waiting for those to join again.
    pub fn restore(config: GroupLimits, state: &GroupState, now: i64) -> Self {
        let record = state.record();
        let mut group = Self::new(config);
        group.generation = record.generation;
        group.protocol_type = record.protocol_type.clone();
        group.protocol = record.protocol.clone();
        group.journal.generation = (record.generation > 0).then_some(record.generation);
        for member in &record.members {
            group.members.insert(Member::restored(member));
            group.journal.members.insert(member.member.clone());
            group.restart_session(&member.member, now);
        }
        if group.members.is_empty() {
            return group;
        }
        group.leader = record.leader.clone().filter(|leader| group.members.contains(leader));
        group.elect_someone();
        group.phase = Phase::Stable { sync_by: i64::MAX };
        if state.rebalance_due() || group.members.len() > config.max_members {
            group.prepare(now);
        }
        group
    }

    /// Takes one event at `now` (ms, never falling) and tells what to do, in order.
    pub fn handle(&mut self, event: GroupEvent, now: i64) -> Vec<Action> {
        match event {
            GroupEvent::Join(ticket, fresh, join) => self.join(ticket, fresh, join, now),
            GroupEvent::Sync(ticket, sync) => self.sync(ticket, sync, now),
            GroupEvent::Leave(ticket, members) => self.leave(ticket, members, now),
            GroupEvent::Forget(id) => self.forget_id(&id, now),
            GroupEvent::Persisted(token) => self.persisted(token, now),
            GroupEvent::Refused(token, error) => self.refused(token, error, now),
            GroupEvent::Tick => self.tick(now),
            GroupEvent::Retire(error) => self.retire(error),
        }
        self.propose_gone();
        std::mem::take(&mut self.out)
    }

    /// A heartbeat: the member is alive until its session timeout.
    ///
    /// # Errors
    /// [`GroupError::RebalanceInProgress`] if it shall join again (it is alive all the same); [`GroupError::UnknownMember`],
    /// [`GroupError::FencedInstance`], [`GroupError::IllegalGeneration`], [`GroupError::NotCoordinator`].
    pub fn heartbeat(&mut self, fence: &Fence, now: i64) -> Result<(), GroupError> {
        self.check_member(fence)?;
        self.restart_session(&fence.member, now);
        match self.phase {
            Phase::Preparing(_) => Err(GroupError::RebalanceInProgress),
            _ => Ok(()),
        }
    }

    /// Whether a commit may be proposed: a shortcut that spares an entry, and a sign of life. Applying the entry decides.
    ///
    /// # Errors
    /// [`GroupError::RebalanceInProgress`] between generations; [`GroupError::UnknownMember`], [`GroupError::FencedInstance`],
    /// [`GroupError::IllegalGeneration`], [`GroupError::NotCoordinator`].
    pub fn admit_commit(&mut self, fence: &Fence, now: i64) -> Result<(), GroupError> {
        if fence.generation < 0 && self.phase == Phase::Empty {
            return Ok(());
        }
        self.check_member(fence)?;
        // A generation that never got its assignment is not known to the journal, which would fence it.
        let stored = !self.journal.doubtful && self.journal.generation == Some(self.generation);
        if matches!(self.phase, Phase::Completing { .. }) || !stored {
            return Err(GroupError::RebalanceInProgress);
        }
        self.restart_session(&fence.member, now);
        Ok(())
    }

    pub(super) fn check_member(&self, fence: &Fence) -> Result<(), GroupError> {
        if self.phase == Phase::Dead {
            return Err(GroupError::NotCoordinator);
        }
        self.members.check(&fence.member, fence.instance.as_ref())?;
        if fence.generation == self.generation { Ok(()) } else { Err(GroupError::IllegalGeneration) }
    }

    /// The state.
    pub fn state(&self) -> GroupPhase {
        match self.phase {
            Phase::Empty => GroupPhase::Empty,
            Phase::Preparing(_) => GroupPhase::PreparingRebalance,
            Phase::Completing { .. } => GroupPhase::CompletingRebalance,
            Phase::Stable { .. } => GroupPhase::Stable,
            Phase::Dead => GroupPhase::Dead,
        }
    }

    /// The kind of group; empty if it never had members.
    pub fn protocol_type(&self) -> &Text {
        &self.protocol_type
    }

    /// How many members it has.
    pub fn member_count(&self) -> usize {
        self.members.len()
    }

    /// The generation.
    pub fn generation(&self) -> i32 {
        self.generation
    }

    /// When [`GroupEvent::Tick`] is wanted, in milliseconds; never later than the first deadline, `i64::MAX` if there is none.
    pub fn wake_at(&self) -> i64 {
        self.wake_at
    }

    /// The memory that its members take with what they brought and were given or are about to be, about; and it, where it has any.
    pub fn bytes(&self) -> usize {
        let own = if self.members.is_empty() { 0 } else { GROUP };
        own + self.members.memory() + self.storing_bytes()
    }

    /// What [`bytes`](Self::bytes) would come to with a join.
    pub fn bytes_with(&self, join: &JoinRequest) -> usize {
        let known = join.instance.as_ref().and_then(|instance| self.members.of_instance(instance));
        let before = self.members.get(known.unwrap_or(&join.member));
        let own = if self.members.is_empty() { GROUP } else { 0 };
        own + self.bytes() + Members::memory_of(join) - before.map_or(0, Member::memory)
    }

    /// What [`bytes`](Self::bytes) would come to with such assignments in the place of those there are.
    pub fn bytes_given(&self, given: usize) -> usize {
        GROUP + self.members.memory_given(given)
    }

    /// The address of its first member, by their ids.
    pub fn first_address(&self) -> Option<Text> {
        self.members.iter().next().map(|member| member.client.host.clone())
    }

    /// Whether a client was given that id and has not come back with it.
    pub fn waits_for(&self, id: &Text) -> bool {
        self.pending.contains(id)
    }

    /// The memory that ids given out take, about; and the group, where it is there for them alone.
    pub fn pending_bytes(&self) -> usize {
        let own = if self.members.is_empty() { GROUP } else { 0 };
        if self.pending.is_empty() { 0 } else { own + self.pending.memory() }
    }

    /// Bytes of the assignments that wait for their entry.
    fn storing_bytes(&self) -> usize {
        match &self.phase {
            Phase::Completing { stored: Some(storing), .. } => {
                storing.assignments.iter().map(|(id, assignment)| id.len() + assignment.len()).sum()
            }
            _ => 0,
        }
    }

    /// Whether the machine knows nothing that the journal does not: it can be dropped and restored at will.
    pub fn is_idle(&self) -> bool {
        matches!(self.phase, Phase::Empty | Phase::Dead) && self.pending.is_empty() && !self.journal.doubtful
    }

    /// Whether it was retired.
    pub fn is_dead(&self) -> bool {
        self.phase == Phase::Dead
    }

    /// The group as it is.
    pub fn view(&self) -> GroupView {
        let settled = matches!(self.phase, Phase::Stable { .. });
        let protocol = self.protocol.as_ref().filter(|_| settled);
        let seen = |m: &Member| MemberView {
            member: m.id.clone(),
            instance: m.instance.clone(),
            client: m.client.clone(),
            metadata: m.metadata(protocol),
            assignment: if settled { m.assignment.clone() } else { Bytes::new() },
        };
        GroupView {
            state: self.state(),
            generation: self.generation,
            protocol_type: self.protocol_type.clone(),
            protocol: protocol.cloned(),
            leader: self.leader.clone(),
            members: self.members.iter().map(seen).collect(),
        }
    }

    pub(super) fn answer(&mut self, ticket: RequestId, answer: Answer) {
        self.out.push(Action::Answer(ticket, answer));
    }

    pub(super) fn propose(&mut self, change: GroupChange) -> Token {
        self.last_token = Token(self.last_token.0 + 1);
        self.out.push(Action::Persist(self.last_token, change));
        self.last_token
    }

    /// The group with these assignments, as the journal shall know it.
    pub(super) fn record(&self, assignments: &BTreeMap<Text, Bytes>) -> GroupRecord {
        let member = |m: &Member| m.record(assignments.get(&m.id).cloned().unwrap_or_default());
        GroupRecord {
            generation: self.generation,
            protocol_type: self.protocol_type.clone(),
            protocol: self.protocol.clone(),
            leader: self.leader.clone(),
            members: self.members.iter().map(member).collect(),
        }
    }

    pub(super) fn propose_record(&mut self, record: GroupRecord) -> Token {
        let token = self.propose(GroupChange::Record(record));
        self.journal = Journaled {
            generation: Some(self.generation),
            members: self.members.iter().map(|m| m.id.clone()).collect(),
            record: token,
            ..Journaled::nothing()
        };
        token
    }

    /// Members that went are told to the journal, unless a record made in the same event did so.
    fn propose_gone(&mut self) {
        let gone = std::mem::take(&mut self.journal.gone);
        let Some(generation) = self.journal.generation else { return };
        let (mut members, mut bytes) = (Vec::new(), 0);
        for member in gone {
            if bytes > GONE_BYTES {
                self.propose(GroupChange::Gone { generation, members: std::mem::take(&mut members) });
                bytes = 0;
            }
            bytes += member.len();
            members.push(member);
        }
        if !members.is_empty() {
            self.propose(GroupChange::Gone { generation, members });
        }
    }

    fn leave(&mut self, ticket: RequestId, members: Vec<LeaveRequest>, now: i64) {
        if self.phase == Phase::Dead {
            return self.answer(ticket, Answer::Left(Err(GroupError::NotCoordinator)));
        }
        let left: Vec<Left> = members.into_iter().map(|one| self.leave_one(one)).collect();
        let anyone = left.iter().any(|one| one.result.is_ok());
        self.answer(ticket, Answer::Left(Ok(left)));
        match self.phase {
            Phase::Stable { .. } | Phase::Completing { .. } if anyone => self.prepare(now),
            Phase::Preparing(_) if anyone => self.complete_if_all_joined(now),
            _ => {}
        }
    }

    fn leave_one(&mut self, leave: LeaveRequest) -> Left {
        let result = self.find_leaver(&leave).map(|id| {
            if !self.pending.remove(&id) {
                self.remove_member(&id);
            }
        });
        Left { member: leave.member, instance: leave.instance, result }
    }

    fn find_leaver(&self, leave: &LeaveRequest) -> Result<Text, GroupError> {
        match &leave.instance {
            Some(instance) if leave.member.is_empty() => {
                self.members.of_instance(instance).cloned().ok_or(GroupError::UnknownMember)
            }
            _ if self.pending.contains(&leave.member) => Ok(leave.member.clone()),
            instance => self.members.check(&leave.member, instance.as_ref()).map(|()| leave.member.clone()),
        }
    }

    /// Takes a member out; what it had parked is answered so that a live client starts over.
    pub(super) fn remove_member(&mut self, id: &Text) {
        if let Some(ticket) = self.members.take_join(id) {
            self.refuse_join(ticket, GroupError::UnknownMember, Text::from(""));
        }
        let Some(member) = self.members.remove(id) else { return };
        if let Some(ticket) = member.syncing {
            self.answer(ticket, Answer::Synced(Err(GroupError::UnknownMember)));
        }
        if self.journal.members.remove(id) {
            self.journal.gone.push(id.clone());
        }
        if self.leader.as_ref() == Some(id) {
            self.leader = None;
            self.elect_someone();
        }
    }

    /// Makes a member the leader if none is.
    pub(super) fn elect_someone(&mut self) {
        if self.leader.is_none() {
            self.leader = self.members.iter().next().map(|m| m.id.clone());
        }
    }

    fn retire(&mut self, error: GroupError) {
        for id in self.members.ids_where(|_| true) {
            if let Some(ticket) = self.members.take_join(&id) {
                self.refuse_join(ticket, error, id.clone());
            }
            if let Some(ticket) = self.members.get_mut(&id).and_then(|m| m.syncing.take()) {
                self.answer(ticket, Answer::Synced(Err(error)));
            }
        }
        let config = self.config;
        let out = std::mem::take(&mut self.out);
        *self = Self { phase: Phase::Dead, out, ..Self::new(config) };
    }
}

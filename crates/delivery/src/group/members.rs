//! The members of the group.

use std::collections::BTreeMap;

use bytes::Bytes;
use sabir_model::GroupError;

use super::state::MemberRecord;
use super::{ClientIdentity, GroupProtocol, JoinRequest, JoinedMember, RequestId, Text};

/// What a member takes beside what it brought, here and in the group's record: the test over thousands of groups in the broker.
const MEMBER: usize = 1024;
/// What a protocol takes beside its name and what the member has to say in it.
const PROTOCOL: usize = 64;

/// A member, with what only the leader's memory knows of it.
#[derive(Debug, Clone)]
pub(super) struct Member {
    pub id: Text,
    pub instance: Option<Text>,
    pub client: ClientIdentity,
    pub session_timeout_ms: i64,
    pub rebalance_timeout_ms: i64,
    pub protocols: Vec<GroupProtocol>,
    /// Changed through [`Members`] alone, which counts its bytes.
    pub assignment: Bytes,
    /// What its join brought.
    bytes: usize,
    /// Its parked join. Changed through [`Members`] alone, which counts them.
    joining: Option<RequestId>,
    /// Its parked sync.
    pub syncing: Option<RequestId>,
    /// Whether its first join has not been answered.
    pub new: bool,
    /// Whether it has still to sync in this generation.
    pub owes_sync: bool,
    /// When its silence makes it dead; none while a parked request vouches for it.
    pub deadline: Option<i64>,
}

impl Member {
    pub fn new(id: Text, join: JoinRequest) -> Self {
        // The request has no id where the member is new.
        let bytes = join.bytes() - join.member.len() + id.len();
        Self {
            id,
            bytes,
            instance: join.instance,
            client: join.client,
            session_timeout_ms: join.session_timeout_ms,
            rebalance_timeout_ms: join.rebalance_timeout_ms,
            protocols: join.protocols,
            assignment: Bytes::new(),
            joining: None,
            syncing: None,
            new: true,
            owes_sync: false,
            deadline: None,
        }
    }

    pub fn restored(record: &MemberRecord) -> Self {
        let record = record.clone();
        Self {
            bytes: record.stored_len() - record.assignment.len(),
            id: record.member,
            instance: record.instance,
            client: record.client,
            session_timeout_ms: record.session_timeout_ms,
            rebalance_timeout_ms: record.rebalance_timeout_ms,
            protocols: record.protocols,
            assignment: record.assignment,
            joining: None,
            syncing: None,
            new: false,
            owes_sync: false,
            deadline: None,
        }
    }

    pub fn record(&self, assignment: Bytes) -> MemberRecord {
        MemberRecord {
            member: self.id.clone(),
            instance: self.instance.clone(),
            client: self.client.clone(),
            session_timeout_ms: self.session_timeout_ms,
            rebalance_timeout_ms: self.rebalance_timeout_ms,
            protocols: self.protocols.clone(),
            assignment,
        }
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Its part of [`Members::memory`].
    pub fn memory(&self) -> usize {
        MEMBER + 2 * (self.protocols.len() * PROTOCOL + self.bytes + self.assignment.len())
    }

    pub fn joining(&self) -> Option<RequestId> {
        self.joining
    }

    /// A parked request vouches for a member, but not for one whose first join may have been given up long ago.
    pub fn vouched_for(&self) -> bool {
        !self.new && (self.joining.is_some() || self.syncing.is_some())
    }

    pub fn metadata(&self, protocol: Option<&Text>) -> Bytes {
        let named = self.protocols.iter().find(|p| Some(&p.name) == protocol);
        named.map_or_else(Bytes::new, |p| p.metadata.clone())
    }
}

/// The members by id, with the counts that each step asks for.
#[derive(Debug, Clone, Default)]
pub(super) struct Members {
    /// Boxed, since a node of the map has room for eleven, and most groups have few.
    by_id: BTreeMap<Text, Box<Member>>,
    by_instance: BTreeMap<Text, Text>,
    /// How many can follow each protocol.
    followers: BTreeMap<Text, usize>,
    joining: usize,
    /// How many protocols they name together.
    protocols: usize,
    bytes: usize,
    assigned: usize,
}

impl Members {
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    pub fn joining(&self) -> usize {
        self.joining
    }

    /// Bytes of what the members brought.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The memory that they take, about: what they brought and were given stands in the group's record, too.
    pub fn memory(&self) -> usize {
        self.memory_given(self.assigned)
    }

    /// The same with so many bytes of assignments.
    pub fn memory_given(&self, assigned: usize) -> usize {
        self.len() * MEMBER + 2 * (self.protocols * PROTOCOL + self.bytes + assigned)
    }

    /// What a join adds to [`memory`](Self::memory).
    pub fn memory_of(join: &JoinRequest) -> usize {
        MEMBER + 2 * (join.protocols.len() * PROTOCOL + join.bytes())
    }

    /// Gives a member its assignment.
    pub fn assign(&mut self, id: &Text, assignment: Bytes) {
        if let Some(member) = self.by_id.get_mut(id) {
            self.assigned += assignment.len();
            self.assigned -= member.assignment.len();
            member.assignment = assignment;
        }
    }

    /// Takes all assignments back.
    pub fn unassign(&mut self) {
        self.by_id.values_mut().for_each(|member| member.assignment = Bytes::new());
        self.assigned = 0;
    }

    pub fn get(&self, id: &Text) -> Option<&Member> {
        self.by_id.get(id).map(Box::as_ref)
    }

    /// To change anything but protocols, instance and the parked join, which are counted.
    pub fn get_mut(&mut self, id: &Text) -> Option<&mut Member> {
        self.by_id.get_mut(id).map(Box::as_mut)
    }

    pub fn contains(&self, id: &Text) -> bool {
        self.by_id.contains_key(id)
    }

    pub fn of_instance(&self, instance: &Text) -> Option<&Text> {
        self.by_instance.get(instance)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Member> {
        self.by_id.values().map(Box::as_ref)
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Member> {
        self.by_id.values_mut().map(Box::as_mut)
    }

    pub fn ids_where(&self, wanted: impl Fn(&Member) -> bool) -> Vec<Text> {
        self.iter().filter(|m| wanted(m)).map(|m| m.id.clone()).collect()
    }

    pub fn insert(&mut self, member: Member) {
        if let Some(instance) = &member.instance {
            self.by_instance.insert(instance.clone(), member.id.clone());
        }
        self.count(&member, true);
        self.by_id.insert(member.id.clone(), Box::new(member));
    }

    pub fn remove(&mut self, id: &Text) -> Option<Member> {
        let member = self.by_id.remove(id)?;
        self.count(&member, false);
        if let Some(instance) = &member.instance {
            self.by_instance.remove(instance);
        }
        Some(*member)
    }

    fn count(&mut self, member: &Member, added: bool) {
        let step = |count: &mut usize| if added { *count += 1 } else { *count -= 1 };
        let moved = |sum: usize, part: usize| if added { sum + part } else { sum - part };
        self.bytes = moved(self.bytes, member.bytes);
        self.protocols = moved(self.protocols, member.protocols.len());
        self.assigned = moved(self.assigned, member.assignment.len());
        if member.joining.is_some() {
            step(&mut self.joining);
        }
        for protocol in &member.protocols {
            let count = self.followers.entry(protocol.name.clone()).or_default();
            step(count);
            if *count == 0 {
                self.followers.remove(&protocol.name);
            }
        }
    }

    /// Takes over what a join says of its member and parks it. A join parked before is handed back.
    pub fn update(&mut self, id: &Text, join: JoinRequest, ticket: RequestId) -> Option<RequestId> {
        let mut member = self.remove(id)?;
        member.bytes = join.bytes();
        member.protocols = join.protocols;
        member.client = join.client;
        member.session_timeout_ms = join.session_timeout_ms;
        member.rebalance_timeout_ms = join.rebalance_timeout_ms;
        let before = member.joining.replace(ticket);
        self.insert(member);
        before
    }

    /// Parks a join.
    pub fn park_join(&mut self, id: &Text, ticket: RequestId) {
        if let Some(member) = self.by_id.get_mut(id)
            && member.joining.replace(ticket).is_none()
        {
            self.joining += 1;
        }
    }

    /// Takes a parked join to answer it.
    pub fn take_join(&mut self, id: &Text) -> Option<RequestId> {
        let ticket = self.by_id.get_mut(id)?.joining.take()?;
        self.joining -= 1;
        Some(ticket)
    }

    /// Whether one more member with these protocols leaves one that all can follow. A member that joins again is counted as
    /// it was, so it must keep one of those that all others follow.
    pub fn can_agree_with(&self, protocols: &[GroupProtocol]) -> bool {
        protocols.iter().any(|p| self.followers.get(&p.name) == Some(&self.len()))
    }

    /// The protocol that most members prefer among those that all can follow; between equals the first by name.
    pub fn elect_protocol(&self) -> Option<Text> {
        let mut votes: BTreeMap<&Text, usize> = BTreeMap::new();
        for member in self.iter() {
            let vote = member.protocols.iter().find(|p| self.followers.get(&p.name) == Some(&self.len()))?;
            *votes.entry(&vote.name).or_default() += 1;
        }
        let most = votes.values().max().copied()?;
        votes.into_iter().find(|(_, count)| *count == most).map(|(name, _)| name.clone())
    }

    /// Checks that the id, and the static instance if one is named, are a member's.
    pub fn check(&self, id: &Text, instance: Option<&Text>) -> Result<(), GroupError> {
        if let Some(instance) = instance {
            match self.of_instance(instance) {
                None => return Err(GroupError::UnknownMember),
                Some(holder) if holder != id => return Err(GroupError::FencedInstance),
                Some(_) => {}
            }
        }
        if self.contains(id) { Ok(()) } else { Err(GroupError::UnknownMember) }
    }

    /// All members, as the leader sees them.
    pub fn for_leader(&self, protocol: Option<&Text>) -> Vec<JoinedMember> {
        let seen = |m: &Member| JoinedMember {
            member: m.id.clone(),
            instance: m.instance.clone(),
            metadata: m.metadata(protocol),
        };
        self.iter().map(seen).collect()
    }

    /// The longest that any member may take to join again, in milliseconds.
    pub fn rebalance_timeout_ms(&self) -> i64 {
        self.iter().map(|m| m.rebalance_timeout_ms).max().unwrap_or(0).max(0)
    }
}

//! What goes into a group's machine and what comes out.

use std::collections::BTreeSet;

use bytes::Bytes;
use sabir_model::GroupError;

use super::Text;
use super::entries::GroupChange;

/// A parked request; the driver gives the numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// A proposed entry; the machine gives the numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(pub u64);

/// Something happened.
#[derive(Debug, Clone)]
pub enum GroupEvent {
    /// A client wants to be a member in the next generation. The text is the id to give it if it has none: unique for good.
    Join(RequestId, Text, JoinRequest),
    /// A member asks for its assignment; the leader brings those of all members.
    Sync(RequestId, SyncRequest),
    /// Members go.
    Leave(RequestId, Vec<LeaveRequest>),
    /// An id that was given out gives way to those of other groups.
    Forget(Text),
    /// A proposed entry is committed and applied.
    Persisted(Token),
    /// A proposed entry will not be.
    Refused(Token, GroupError),
    /// Time passed.
    Tick,
    /// The group is no longer led here: all parked requests are answered with the error, and the machine is of no more use.
    Retire(GroupError),
}

/// What the driver shall do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Answer a parked request.
    Answer(RequestId, Answer),
    /// Append an entry, and report what became of it.
    Persist(Token, GroupChange),
}

/// The answer to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// To a join.
    Joined(Result<Joined, JoinRefused>),
    /// To a sync.
    Synced(Result<Synced, GroupError>),
    /// To a leave, in the order asked.
    Left(Result<Vec<Left>, GroupError>),
}

/// Where a member connects from; for people to read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ClientIdentity {
    /// The name the client gave itself.
    pub id: Text,
    /// Its address.
    pub host: Text,
}

/// A protocol a member can follow, and what it has to say in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupProtocol {
    /// Its name, an assignor's for consumers.
    pub name: Text,
    /// Opaque; for consumers the subscription.
    pub metadata: Bytes,
}

/// A request to join.
#[derive(Debug, Clone)]
pub struct JoinRequest {
    /// The member id, empty from a client that has none yet.
    pub member: Text,
    /// The static instance id, if the member is to keep its place over restarts.
    pub instance: Option<Text>,
    /// Where it connects from.
    pub client: ClientIdentity,
    /// The number of its connection: ids that are given out are shared between these, and between addresses.
    pub connection: u64,
    /// The kind of group, `consumer` for consumers.
    pub protocol_type: Text,
    /// What it can follow, the favourite first.
    pub protocols: Vec<GroupProtocol>,
    /// Silence after which it is dead, in milliseconds.
    pub session_timeout_ms: i64,
    /// How long it may take to join again, in milliseconds.
    pub rebalance_timeout_ms: i64,
    /// Whether a dynamic client without an id is told one first and must come back with it.
    pub id_required: bool,
    /// Whether it understands that a returning static leader need not assign again.
    pub may_skip_assignment: bool,
}

impl JoinRequest {
    /// Whether it is answered with an id, with which the client is to come back.
    pub fn wants_id(&self) -> bool {
        self.id_required && self.member.is_empty() && self.instance.is_none()
    }

    /// Bytes of all that the group would keep of it.
    pub(super) fn bytes(&self) -> usize {
        let texts = [&self.member, &self.client.id, &self.client.host, &self.protocol_type];
        let texts: usize = texts.iter().map(|text| text.len()).sum();
        let instance = self.instance.as_ref().map_or(0, |instance| instance.len());
        let protocol = |p: &GroupProtocol| size_of::<GroupProtocol>() + p.name.len() + p.metadata.len();
        texts + instance + self.protocols.iter().map(protocol).sum::<usize>()
    }

    /// Whether it names a protocol twice, which would count its vote twice.
    pub(super) fn repeats_itself(&self) -> bool {
        let mut seen = BTreeSet::new();
        !self.protocols.iter().all(|p| seen.insert(&p.name))
    }
}

/// The answer to a join: the member is in this generation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Joined {
    /// The generation.
    pub generation: i32,
    /// The kind of group.
    pub protocol_type: Option<Text>,
    /// The protocol all members can follow.
    pub protocol: Option<Text>,
    /// The leader's member id.
    pub leader: Text,
    /// The member's own id.
    pub member: Text,
    /// For the leader, all members.
    pub members: Vec<JoinedMember>,
    /// For a leader that returned, whether the assignment stands.
    pub skip_assignment: bool,
}

/// A member, as its leader sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinedMember {
    /// Its id.
    pub member: Text,
    /// Its static instance id.
    pub instance: Option<Text>,
    /// Its metadata in the chosen protocol.
    pub metadata: Bytes,
}

/// Why a join was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinRefused {
    /// The reason.
    pub error: GroupError,
    /// The member id to go on with, empty for none.
    pub member: Text,
}

/// The member that asks, and the generation in which it believes to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fence {
    /// The generation; negative from a client outside the group.
    pub generation: i32,
    /// The member id; empty from a client outside the group.
    pub member: Text,
    /// The static instance id.
    pub instance: Option<Text>,
}

/// A request for the assignment.
#[derive(Debug, Clone)]
pub struct SyncRequest {
    /// The member that asks.
    pub fence: Fence,
    /// The kind of group the member believes in, if it says.
    pub protocol_type: Option<Text>,
    /// The protocol the member believes in, if it says.
    pub protocol: Option<Text>,
    /// From the leader, assignments by member id.
    pub assignments: Vec<(Text, Bytes)>,
}

/// The answer to a sync.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Synced {
    /// The kind of group.
    pub protocol_type: Option<Text>,
    /// The protocol.
    pub protocol: Option<Text>,
    /// What the leader gave this member.
    pub assignment: Bytes,
}

/// A member that goes; by its instance id alone if an operator sends it away.
#[derive(Debug, Clone)]
pub struct LeaveRequest {
    /// The member id, or empty.
    pub member: Text,
    /// The static instance id.
    pub instance: Option<Text>,
}

/// What became of one that was to leave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Left {
    /// As in the request.
    pub member: Text,
    /// As in the request.
    pub instance: Option<Text>,
    /// Whether it went.
    pub result: Result<(), GroupError>,
}

//! A group, the journal it writes to, and its clients' view of both.
#![allow(dead_code, clippy::unwrap_used)]

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use sabir_delivery::group::entries::{GroupChange, GroupChanged, OffsetCommit, OffsetsCommitted};
use sabir_delivery::group::state::GroupState;
use sabir_delivery::group::{
    Action, Answer, ClientIdentity, Fence, Group, GroupEvent, GroupLimits, GroupPhase, GroupProtocol,
    JoinRefused, JoinRequest, Joined, LeaveRequest, Left, RequestId, SyncRequest, Synced, Text, Token,
};
use sabir_model::{GroupError, LeaderEpoch, Offset, TopicId};

pub const SESSION: i64 = 10_000;
pub const REBALANCE: i64 = 60_000;
pub const DELAY: i64 = 3_000;

pub struct World {
    pub group: Group,
    pub state: GroupState,
    pub now: i64,
    /// Proposed and not yet committed.
    pub proposed: VecDeque<(Token, GroupChange)>,
    pub answers: BTreeMap<RequestId, Answer>,
    /// Whether entries commit as soon as they are proposed.
    pub prompt: bool,
    config: GroupLimits,
    tickets: u64,
    ids: u64,
}

/// A member, as its client remembers itself.
#[derive(Debug, Clone)]
pub struct Client1 {
    pub member: Text,
    pub instance: Option<Text>,
    pub protocols: Vec<GroupProtocol>,
    pub generation: i32,
    pub id_required: bool,
    pub may_skip: bool,
    pub session: i64,
    pub rebalance: i64,
    pub protocol_type: &'static str,
    pub host: Text,
    pub connection: u64,
}

pub fn text(s: &str) -> Text {
    s.into()
}

pub fn protocols(names: &[&str]) -> Vec<GroupProtocol> {
    names
        .iter()
        .map(|name| GroupProtocol { name: text(name), metadata: Bytes::from(format!("{name}!")) })
        .collect()
}

pub fn dynamic() -> Client1 {
    Client1 {
        member: text(""),
        instance: None,
        protocols: protocols(&["range"]),
        generation: -1,
        id_required: true,
        may_skip: true,
        session: SESSION,
        rebalance: REBALANCE,
        protocol_type: "consumer",
        host: text("127.0.0.1"),
        connection: 1,
    }
}

pub fn fixed(instance: &str) -> Client1 {
    Client1 { instance: Some(text(instance)), ..dynamic() }
}

impl Client1 {
    pub fn fence(&self) -> Fence {
        Fence { generation: self.generation, member: self.member.clone(), instance: self.instance.clone() }
    }

    pub fn with(mut self, names: &[&str]) -> Self {
        self.protocols = protocols(names);
        self
    }

    fn request(&self) -> JoinRequest {
        JoinRequest {
            member: self.member.clone(),
            instance: self.instance.clone(),
            client: ClientIdentity { id: text("app"), host: self.host.clone() },
            connection: self.connection,
            protocol_type: text(self.protocol_type),
            protocols: self.protocols.clone(),
            session_timeout_ms: self.session,
            rebalance_timeout_ms: self.rebalance,
            id_required: self.id_required,
            may_skip_assignment: self.may_skip,
        }
    }
}

impl World {
    pub fn new() -> Self {
        Self::with(GroupLimits { initial_rebalance_delay_ms: DELAY, ..GroupLimits::default() })
    }

    pub fn with(config: GroupLimits) -> Self {
        Self {
            group: Group::new(config),
            state: GroupState::new(0),
            now: 1_000_000,
            proposed: VecDeque::new(),
            answers: BTreeMap::new(),
            prompt: true,
            config,
            tickets: 0,
            ids: 0,
        }
    }

    pub fn event(&mut self, event: GroupEvent) {
        for action in self.group.handle(event, self.now) {
            match action {
                Action::Answer(ticket, answer) => {
                    let twice = self.answers.insert(ticket, answer);
                    assert!(twice.is_none(), "{ticket:?} was answered twice");
                }
                Action::Persist(token, change) => self.proposed.push_back((token, change)),
            }
        }
        if self.prompt {
            self.commit_entries();
        }
    }

    /// Commits and applies what was proposed, through its stored form.
    pub fn commit_entries(&mut self) {
        while let Some((token, change)) = self.proposed.pop_front() {
            let entry = GroupChanged { group: text("g").into(), change };
            let mut body = Vec::new();
            entry.encode(&mut body);
            let read = GroupChanged::decode(&body).unwrap();
            assert_eq!(read, entry);
            self.state.apply_change(read.change, self.now);
            self.event(GroupEvent::Persisted(token));
        }
    }

    pub fn ticket(&mut self) -> RequestId {
        self.tickets += 1;
        RequestId(self.tickets)
    }

    pub fn join(&mut self, client: &Client1) -> RequestId {
        let ticket = self.ticket();
        self.ids += 1;
        let fresh = text(&format!("m{}", self.ids));
        self.event(GroupEvent::Join(ticket, fresh, client.request()));
        ticket
    }

    /// Joins as a client does that is told its id first, and parks.
    pub fn join_fully(&mut self, client: &mut Client1) -> RequestId {
        let ticket = self.join(client);
        let Some(Answer::Joined(Err(refused))) = self.answers.get(&ticket) else { return ticket };
        assert_eq!(refused.error, GroupError::MemberIdRequired);
        client.member = refused.member.clone();
        self.join(client)
    }

    pub fn sync(&mut self, client: &Client1, assignments: &[(&Client1, &'static str)]) -> RequestId {
        let assignments = assignments
            .iter()
            .map(|(to, what)| (to.member.clone(), Bytes::from_static(what.as_bytes())))
            .collect();
        self.sync_as(SyncRequest { fence: client.fence(), protocol_type: None, protocol: None, assignments })
    }

    pub fn sync_as(&mut self, request: SyncRequest) -> RequestId {
        let ticket = self.ticket();
        self.event(GroupEvent::Sync(ticket, request));
        ticket
    }

    pub fn leave(&mut self, member: &str, instance: Option<&str>) -> Result<(), GroupError> {
        let ticket = self.ticket();
        let leaver = LeaveRequest { member: text(member), instance: instance.map(text) };
        self.event(GroupEvent::Leave(ticket, vec![leaver]));
        match self.answers.remove(&ticket) {
            Some(Answer::Left(Ok(left))) => {
                let [Left { result, .. }] = left.as_slice() else { panic!("one was asked for") };
                *result
            }
            other => panic!("{other:?}"),
        }
    }

    pub fn heartbeat(&mut self, client: &Client1) -> Result<(), GroupError> {
        self.group.heartbeat(&client.fence(), self.now)
    }

    /// Lets time pass, waking the group exactly when it asked for it.
    pub fn pass(&mut self, ms: i64) {
        let end = self.now + ms;
        while self.group.wake_at() <= end {
            self.now = self.now.max(self.group.wake_at());
            self.event(GroupEvent::Tick);
        }
        self.now = end;
    }

    /// Lets time pass until nobody is waited for any more.
    pub fn settle(&mut self) {
        while self.group.state() == GroupPhase::PreparingRebalance {
            self.now = self.now.max(self.group.wake_at());
            self.event(GroupEvent::Tick);
        }
    }

    pub fn parked(&self, ticket: RequestId) -> bool {
        !self.answers.contains_key(&ticket)
    }

    pub fn joined(&mut self, ticket: RequestId, client: &mut Client1) -> Joined {
        match self.answers.remove(&ticket) {
            Some(Answer::Joined(Ok(joined))) => {
                client.member = joined.member.clone();
                client.generation = joined.generation;
                joined
            }
            other => panic!("{other:?}"),
        }
    }

    pub fn refused(&mut self, ticket: RequestId) -> JoinRefused {
        match self.answers.remove(&ticket) {
            Some(Answer::Joined(Err(refused))) => refused,
            other => panic!("{other:?}"),
        }
    }

    pub fn synced(&mut self, ticket: RequestId) -> Result<Synced, GroupError> {
        match self.answers.remove(&ticket) {
            Some(Answer::Synced(answer)) => answer,
            other => panic!("{other:?}"),
        }
    }

    pub fn assigned(&mut self, ticket: RequestId) -> Bytes {
        self.synced(ticket).unwrap().assignment
    }

    /// A stable group of these.
    pub fn stable(&mut self, clients: &mut [&mut Client1]) {
        let tickets: Vec<_> = clients.iter_mut().map(|client| self.join_fully(client)).collect();
        self.settle();
        let leader = self.take_joins(clients, &tickets);
        self.sync_all(clients, leader);
        assert_eq!(self.group.state(), GroupPhase::Stable);
    }

    /// Takes everyone's answer and tells who leads.
    pub fn take_joins(&mut self, clients: &mut [&mut Client1], tickets: &[RequestId]) -> usize {
        let joined: Vec<_> =
            tickets.iter().zip(clients.iter_mut()).map(|(t, c)| self.joined(*t, c)).collect();
        let leader = joined.iter().position(|j| j.leader == j.member).expect("one of them leads");
        assert_eq!(joined[leader].members.len(), self.group.view().members.len());
        assert!(
            joined
                .iter()
                .all(|j| j.leader == joined[leader].member && j.generation == joined[leader].generation)
        );
        leader
    }

    pub fn sync_all(&mut self, clients: &mut [&mut Client1], leader: usize) {
        const WORK: [&str; 6] = ["w0", "w1", "w2", "w3", "w4", "w5"];
        let plan: Vec<(&Client1, &'static str)> = clients.iter().map(|c| &**c).zip(WORK).collect();
        let followers: Vec<_> =
            (0..plan.len()).filter(|i| *i != leader).map(|i| (i, self.sync(plan[i].0, &[]))).collect();
        let own = self.sync(plan[leader].0, &plan);
        assert_eq!(self.assigned(own), WORK[leader]);
        for (i, ticket) in followers {
            assert_eq!(self.assigned(ticket), WORK[i]);
        }
    }

    /// Starts anew from what is committed, its deadlines afresh.
    pub fn restart(&mut self) {
        self.proposed.clear();
        let mut stored = Vec::new();
        self.state.encode(&mut stored);
        self.state = GroupState::decode(&stored).unwrap();
        let mut again = Vec::new();
        self.state.encode(&mut again);
        assert_eq!(stored, again);
        self.group = Group::restore(self.config, &self.state, self.now);
    }

    /// Commits through the machine's check, then the entry.
    pub fn commit(&mut self, fence: Fence) -> Result<(), GroupError> {
        self.group.admit_commit(&fence, self.now)?;
        self.apply_commit(fence)
    }

    /// As an entry that was proposed while it was still legal.
    pub fn apply_commit(&mut self, fence: Fence) -> Result<(), GroupError> {
        let offset = OffsetCommit {
            topic: TopicId([7; 16]),
            partition: 0,
            offset: Offset(self.now),
            leader_epoch: LeaderEpoch(3),
            metadata: text("note"),
        };
        let entry = OffsetsCommitted { group: text("g").into(), fence, offsets: vec![offset] };
        let mut body = Vec::new();
        entry.encode(&mut body);
        let read = OffsetsCommitted::decode(&body).unwrap();
        assert_eq!(read, entry);
        self.state.apply_commit(read, self.now)
    }
}

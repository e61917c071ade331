//! Random clients against the group, under random time, commits, refusals and restarts.
//!
//! Whatever happened before, live clients that do as they are told end in one generation, each with what its leader gave it;
//! and clients that fall silent are forgotten, with every request answered.

mod common;

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use common::{Client1, World, dynamic, fixed, protocols, text};
use proptest::prelude::*;
use sabir_delivery::group::entries::GroupChange;
use sabir_delivery::group::{
    Answer, Fence, GroupEvent, GroupLimits, GroupPhase, RequestId, SyncRequest, Text,
};
use sabir_model::{GroupError, ShardFailure};

const CLIENTS: usize = 4;

#[derive(Debug, Clone)]
enum Op {
    /// A client does the next thing a client does.
    Act(usize),
    /// Its connection broke while it waited: it asks again.
    AskAgain(usize),
    /// It wants a rebalance.
    Rejoin(usize),
    /// It has other protocols and says so.
    Change(usize, u8),
    Leave(usize),
    /// It is gone without a word; a static one comes back under its instance id.
    Crash(usize),
    CommitOffset(usize),
    Pass(i64),
    /// Proposed entries are committed.
    Commit,
    /// The first proposed entry is refused.
    Refuse,
    /// The broker starts anew.
    Restart,
}

fn op() -> impl Strategy<Value = Op> {
    let who = 0..CLIENTS;
    prop_oneof![
        12 => who.clone().prop_map(Op::Act),
        1 => who.clone().prop_map(Op::AskAgain),
        1 => who.clone().prop_map(Op::Rejoin),
        1 => (who.clone(), 0..3u8).prop_map(|(who, what)| Op::Change(who, what)),
        1 => who.clone().prop_map(Op::Leave),
        1 => who.clone().prop_map(Op::Crash),
        2 => who.prop_map(Op::CommitOffset),
        5 => (0..8_000i64).prop_map(Op::Pass),
        5 => Just(Op::Commit),
        1 => Just(Op::Refuse),
        1 => Just(Op::Restart),
    ]
}

struct Sim {
    client: Client1,
    join: Option<RequestId>,
    sync: Option<RequestId>,
    /// Joined and not yet synced: whom to assign to, if it leads.
    to_sync: Option<Vec<Text>>,
    /// What it works on, and since which generation.
    assigned: Option<(i32, Bytes)>,
}

impl Sim {
    fn new(client: Client1) -> Self {
        Self { client, join: None, sync: None, to_sync: None, assigned: None }
    }

    fn forget(&mut self) {
        let fresh = Client1 { member: text(""), generation: -1, ..self.client.clone() };
        *self = Self::new(fresh);
    }

    fn waits(&self) -> bool {
        self.join.is_some() || self.sync.is_some()
    }
}

struct Model {
    world: World,
    sims: Vec<Sim>,
    /// Of every generation, what committed records gave to whom.
    given: BTreeMap<i32, BTreeSet<(Text, Bytes)>>,
    /// Of every generation since the start, its leader and protocol as members were told.
    told: BTreeMap<i32, Option<Text>>,
    highest: i32,
}

impl Model {
    fn new() -> Self {
        let mut world = World::with(GroupLimits { max_members: 10, ..GroupLimits::default() });
        world.prompt = false;
        let sims = vec![
            Sim::new(dynamic().with(&["a", "b"])),
            Sim::new(Client1 { id_required: false, ..dynamic() }.with(&["b", "a"])),
            Sim::new(fixed("c").with(&["a", "b"])),
            Sim::new(Client1 { may_skip: false, ..fixed("d") }.with(&["b"])),
        ];
        Self { world, sims, given: BTreeMap::new(), told: BTreeMap::new(), highest: 0 }
    }

    fn apply(&mut self, op: Op) {
        match op {
            Op::Act(who) => self.act(who),
            Op::AskAgain(who) => self.ask_again(who),
            Op::Rejoin(who) => {
                if !self.sims[who].client.member.is_empty() && !self.sims[who].waits() {
                    self.join(who);
                }
            }
            Op::Change(who, what) => {
                let lists = [["a", "b"].as_slice(), &["b", "a"], &["b"]];
                if !self.sims[who].waits() {
                    self.sims[who].client.protocols = protocols(lists[usize::from(what)]);
                    self.join(who);
                }
            }
            Op::Leave(who) => {
                let member = self.sims[who].client.member.clone();
                if !member.is_empty() {
                    let instance = self.sims[who].client.instance.clone();
                    let _ = self.world.leave(&member, instance.as_deref());
                    // The request that was parked is answered, to no client.
                    self.sims[who].forget();
                }
            }
            Op::Crash(who) => self.sims[who].forget(),
            Op::CommitOffset(who) => self.commit_offset(who),
            Op::Pass(ms) => self.world.pass(ms),
            Op::Commit => self.commit(),
            Op::Refuse => {
                if let Some((token, _)) = self.world.proposed.pop_front() {
                    self.world
                        .event(GroupEvent::Refused(token, GroupError::Shard(ShardFailure::StorageFull)));
                }
            }
            Op::Restart => self.restart(),
        }
        self.listen();
        self.check();
    }

    fn act(&mut self, who: usize) {
        let sim = &mut self.sims[who];
        if sim.waits() {
            return;
        }
        if sim.client.member.is_empty() || sim.client.generation < 0 {
            return self.join(who);
        }
        if sim.to_sync.is_some() {
            return self.sync(who);
        }
        match self.world.group.heartbeat(&sim.client.fence(), self.world.now) {
            Ok(()) => {}
            Err(GroupError::RebalanceInProgress) => self.join(who),
            Err(GroupError::IllegalGeneration | GroupError::UnknownMember | GroupError::FencedInstance) => {
                sim.forget();
                self.join(who);
            }
            Err(other) => panic!("{other:?}"),
        }
    }

    fn join(&mut self, who: usize) {
        let sim = &mut self.sims[who];
        sim.to_sync = None;
        sim.assigned = None;
        sim.sync = None;
        sim.join = Some(self.world.join(&sim.client));
    }

    fn sync(&mut self, who: usize) {
        let sim = &mut self.sims[who];
        let generation = sim.client.generation;
        let plan = sim.to_sync.clone().unwrap_or_default();
        let assignments =
            plan.into_iter().map(|id| (id.clone(), Bytes::from(format!("{generation} for {id}")))).collect();
        let fence = sim.client.fence();
        sim.sync =
            Some(self.world.sync_as(SyncRequest { fence, protocol_type: None, protocol: None, assignments }));
    }

    fn ask_again(&mut self, who: usize) {
        if self.sims[who].join.is_some() {
            self.join(who);
        } else if self.sims[who].sync.is_some() {
            self.sync(who);
        }
    }

    /// The journal's fence and the machine's agree on whatever the machine lets through.
    fn commit_offset(&mut self, who: usize) {
        let fence = self.sims[who].client.fence();
        let quiet = self.world.proposed.is_empty();
        let admitted = self.world.group.admit_commit(&fence, self.world.now);
        let known = self.world.state.check_fence(&fence);
        if admitted.is_ok() && quiet && fence.generation > 0 {
            assert_eq!(known, Ok(()), "{fence:?} in {:?}", self.world.state.record());
        }
        if known.is_ok() && fence.generation >= 0 {
            let record = self.world.state.record();
            assert!(record.generation == fence.generation);
            assert!(record.members.iter().any(|m| m.member == fence.member));
        }
    }

    fn commit(&mut self) {
        for (_, change) in &self.world.proposed {
            let (generation, members) = match change {
                GroupChange::Record(record) => (record.generation, record.members.as_slice()),
                GroupChange::Replaced { generation, member, .. } => {
                    (*generation, std::slice::from_ref(member))
                }
                GroupChange::Gone { .. } => continue,
            };
            let given = self.given.entry(generation).or_default();
            given.extend(members.iter().map(|m| (m.member.clone(), m.assignment.clone())));
        }
        self.world.commit_entries();
    }

    fn restart(&mut self) {
        self.world.restart();
        self.world.answers.clear();
        self.told.clear();
        self.highest = self.world.group.generation();
        assert_eq!(self.highest, self.world.state.record().generation);
        for sim in &mut self.sims {
            // Its connection broke: it goes on with what it was about.
            sim.sync = None;
            if sim.join.take().is_some() {
                sim.client.generation = -1;
            }
        }
    }

    /// Clients hear their answers.
    fn listen(&mut self) {
        for who in 0..CLIENTS {
            let (join, sync) = (self.sims[who].join, self.sims[who].sync);
            if let Some(Answer::Joined(answer)) = join.and_then(|ticket| self.world.answers.remove(&ticket)) {
                self.sims[who].join = None;
                self.hear_join(who, answer);
            }
            if let Some(Answer::Synced(answer)) = sync.and_then(|ticket| self.world.answers.remove(&ticket)) {
                self.sims[who].sync = None;
                self.hear_sync(who, answer);
            }
        }
    }

    fn hear_join(
        &mut self,
        who: usize,
        answer: Result<sabir_delivery::group::Joined, sabir_delivery::group::JoinRefused>,
    ) {
        let sim = &mut self.sims[who];
        match answer {
            Ok(joined) => {
                let told = self.told.entry(joined.generation).or_insert_with(|| joined.protocol.clone());
                assert_eq!(*told, joined.protocol, "one protocol in generation {}", joined.generation);
                assert!(sim.client.protocols.iter().any(|p| Some(&p.name) == joined.protocol.as_ref()));
                let leads = joined.leader == joined.member;
                assert_eq!(leads, !joined.members.is_empty(), "the leader alone sees the members");
                let plan = if joined.skip_assignment { vec![] } else { joined.members };
                sim.client.member = joined.member;
                sim.client.generation = joined.generation;
                sim.to_sync = Some(plan.into_iter().map(|m| m.member).collect());
            }
            Err(refused) if refused.error == GroupError::MemberIdRequired => {
                sim.client.member = refused.member;
                sim.client.generation = -1;
            }
            Err(refused) => match refused.error {
                GroupError::UnknownMember | GroupError::FencedInstance => sim.forget(),
                GroupError::RebalanceInProgress | GroupError::Shard(ShardFailure::StorageFull) => {
                    sim.client.generation = -1
                }
                GroupError::InconsistentProtocol => sim.client.protocols = protocols(&["b", "a"]),
                other => panic!("{other:?}"),
            },
        }
    }

    fn hear_sync(&mut self, who: usize, answer: Result<sabir_delivery::group::Synced, GroupError>) {
        let sim = &mut self.sims[who];
        sim.to_sync = None;
        match answer {
            Ok(synced) => {
                let generation = sim.client.generation;
                let given = self.given.get(&generation).cloned().unwrap_or_default();
                let told = (sim.client.member.clone(), synced.assignment.clone());
                assert!(given.contains(&told), "{told:?} was never committed for {generation}: {given:?}");
                sim.assigned = Some((generation, synced.assignment));
            }
            Err(GroupError::RebalanceInProgress | GroupError::Shard(ShardFailure::StorageFull)) => {
                sim.client.generation = -1
            }
            Err(GroupError::UnknownMember | GroupError::FencedInstance | GroupError::IllegalGeneration) => {
                sim.forget();
            }
            Err(other) => panic!("{other:?}"),
        }
    }

    fn check(&mut self) {
        let view = self.world.group.view();
        assert!(view.generation >= self.highest, "generations never fall");
        self.highest = view.generation;
        match view.state {
            GroupPhase::Empty => assert!(view.members.is_empty()),
            // Everyone went, but somebody was told an id.
            GroupPhase::PreparingRebalance => {}
            _ => assert!(!view.members.is_empty()),
        }
        assert_eq!(view.leader.is_some(), !view.members.is_empty());
        assert!(view.leader.iter().all(|leader| view.members.iter().any(|m| m.member == *leader)));
        let instances: BTreeSet<_> = view.members.iter().filter_map(|m| m.instance.clone()).collect();
        assert_eq!(instances.len(), view.members.iter().filter(|m| m.instance.is_some()).count());
        // While an entry is on its way the journal's answer is what is waited for.
        if !self.world.group.is_idle() && self.world.proposed.is_empty() {
            assert!(self.world.group.wake_at() < i64::MAX, "somebody's deadline is always ahead: {view:?}");
        }
        if view.state == GroupPhase::Stable && self.world.proposed.is_empty() {
            assert_eq!(self.world.state.record().generation, view.generation, "stable is stored");
        }
    }

    /// Everyone does as told: the group comes to rest with all of them.
    fn come_to_rest(&mut self) {
        let mut at_rest = 0;
        for _ in 0..2_000 {
            for who in 0..CLIENTS {
                self.apply(Op::Act(who));
                self.apply(Op::Commit);
            }
            self.apply(Op::Pass(500));
            at_rest = if self.is_at_rest() { at_rest + 1 } else { 0 };
            // Longer than anyone's session: no ghost is left.
            if at_rest > 40 {
                return;
            }
        }
        panic!("the group does not come to rest: {:?}", self.world.group.view());
    }

    fn is_at_rest(&self) -> bool {
        let view = self.world.group.view();
        let works = |sim: &Sim| match &sim.assigned {
            Some((generation, _)) => *generation == view.generation,
            None => false,
        };
        view.state == GroupPhase::Stable && self.sims.iter().all(works)
    }

    /// At rest, everyone works on what the one leader gave it, and nobody else is in the group.
    fn check_rest(&self) {
        let view = self.world.group.view();
        assert_eq!(view.members.len(), CLIENTS);
        for sim in &self.sims {
            let member = view.members.iter().find(|m| m.member == sim.client.member).expect("it is a member");
            let (_, assignment) = sim.assigned.as_ref().expect("it is at rest");
            assert_eq!(member.assignment, assignment);
            assert!(assignment.starts_with(view.generation.to_string().as_bytes()), "{assignment:?}");
            assert_eq!(self.world.state.check_fence(&sim.client.fence()), Ok(()));
        }
        let outside = Fence { generation: -1, member: text(""), instance: None };
        assert_eq!(self.world.state.check_fence(&outside), Err(GroupError::UnknownMember));
    }

    fn fall_silent(&mut self) {
        for _ in 0..720 {
            self.world.pass(5_000);
            self.commit();
        }
        assert!(self.world.group.is_idle());
        assert!(self.world.state.is_empty());
        for sim in &self.sims {
            for ticket in sim.join.iter().chain(&sim.sync) {
                assert!(!self.world.parked(*ticket), "{ticket:?} was never answered");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn live_clients_come_to_rest(ops in prop::collection::vec(op(), 1..200)) {
        let mut model = Model::new();
        ops.into_iter().for_each(|op| model.apply(op));
        model.come_to_rest();
        model.check_rest();
    }

    #[test]
    fn silent_clients_are_forgotten_and_answered(ops in prop::collection::vec(op(), 1..200)) {
        let mut model = Model::new();
        ops.into_iter().for_each(|op| model.apply(op));
        model.fall_silent();
    }
}

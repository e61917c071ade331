//! Consumer groups on a whole broker: over restarts, power cuts, and a replicator that commits late and cuts.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use sabir_journal::Replicator;
use sabir_journal::testing::LateReplicator;
use sabir_model::{ErrorAbout, GroupError, LeaderEpoch, Namespace, Offset, ShardFailure, ShardId, TopicId};

use super::rig::{new_topic, open, options, pending, soon, until};
use super::sim::{Machine, Seam};
use crate::{
    Broker, BrokerOptions, Caller, ClientIdentity, Fence, GroupOptions, GroupPhase, GroupProtocol,
    JoinRequest, OffsetCommit, Reply, SessionId, SyncRequest, Synced, Text,
};

const TOPIC: TopicId = TopicId([5; 16]);

/// A member, as its client knows itself.
#[derive(Debug, Clone)]
struct Member {
    id: Text,
    generation: i32,
}

impl Member {
    fn fence(&self) -> Fence {
        Fence { generation: self.generation, member: self.id.clone(), instance: None }
    }
}

fn at_once() -> GroupOptions {
    let mut groups = GroupOptions::default();
    groups.limits.initial_rebalance_delay_ms = 0;
    groups
}

/// Joins and leads, taking the place of a member that is silent.
async fn join(broker: &Broker, id: Text) -> Result<Member, ErrorAbout<GroupError>> {
    let request = JoinRequest {
        member: id,
        instance: None,
        client: ClientIdentity::default(),
        connection: 0,
        protocol_type: Text::from("consumer"),
        protocols: vec![GroupProtocol { name: Text::from("range"), metadata: Bytes::from_static(b"t") }],
        session_timeout_ms: 6_000,
        rebalance_timeout_ms: 6_000,
        id_required: false,
        may_skip_assignment: true,
    };
    let joined =
        soon(broker.groups(&Caller::OPERATOR).join("g", request)).await.map_err(|refused| refused.error)?;
    Ok(Member { id: joined.member, generation: joined.generation })
}

fn sync(broker: &Broker, member: &Member) -> Reply<Result<Synced, ErrorAbout<GroupError>>> {
    let assignments = vec![(member.id.clone(), Bytes::from_static(b"everything"))];
    let request = SyncRequest { fence: member.fence(), protocol_type: None, protocol: None, assignments };
    broker.groups(&Caller::OPERATOR).sync("g", request)
}

async fn settle(broker: &Broker) -> Result<Member, ErrorAbout<GroupError>> {
    let member = join(broker, Text::from("")).await?;
    let synced = soon(sync(broker, &member)).await?;
    assert_eq!(synced.assignment, "everything");
    Ok(member)
}

fn commit(broker: &Broker, fence: Fence, offset: i64) -> crate::Committing {
    let commit = OffsetCommit {
        topic: TOPIC,
        partition: 0,
        offset: Offset(offset),
        leader_epoch: LeaderEpoch(1),
        metadata: Text::from("so far"),
    };
    broker.groups(&Caller::OPERATOR).commit("g", fence, vec![commit])
}

/// Commits from outside, as the callers of a front end do that makes no members.
fn commit_of(broker: &Broker, caller: &Caller, group: &str, offset: i64) -> crate::Committing {
    let fence = Fence { generation: -1, member: Text::from(""), instance: None };
    let commit = OffsetCommit {
        topic: TOPIC,
        partition: 0,
        offset: Offset(offset),
        leader_epoch: LeaderEpoch(1),
        metadata: Text::from(""),
    };
    broker.groups(caller).commit(group, fence, vec![commit])
}

fn committed_of(broker: &Broker, caller: &Caller, group: &str) -> i64 {
    let found = broker.groups(caller).fetch_offsets(group, &[(TOPIC, 0)]);
    found[0].as_ref().map_or(-1, |committed| committed.offset.0)
}

fn committed(broker: &Broker) -> i64 {
    broker.groups(&Caller::OPERATOR).fetch_offsets("g", &[(TOPIC, 0)])[0]
        .as_ref()
        .map_or(-1, |committed| committed.offset.0)
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

#[tokio::test]
async fn a_group_goes_on_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let options = || BrokerOptions { groups: at_once(), ..options(dir.path()) };
    let mut broker = open(options());
    let member = settle(&broker).await.unwrap();
    assert_eq!(soon(commit(&broker, member.fence(), 77)).await, [Ok(())]);
    for _ in 0..2 {
        broker.shutdown();
        drop(broker);
        broker = open(options());
        let view = broker.groups(&Caller::OPERATOR).describe("g").unwrap();
        assert_eq!((view.state, view.generation, view.members.len()), (GroupPhase::Stable, 1, 1));
        assert_eq!(broker.groups(&Caller::OPERATOR).heartbeat("g", &member.fence()), Ok(()));
        assert_eq!(committed(&broker), 77);
        assert_eq!(soon(sync(&broker, &member)).await.unwrap().assignment, "everything");
    }
    broker.shutdown();
}

static TWO: Caller = Caller::front_end("two");

fn with_two(options: BrokerOptions) -> BrokerOptions {
    BrokerOptions {
        groups: at_once(),
        front_ends: vec!["one", "two"],
        unnamed_groups: Some("one"),
        ..options
    }
}

#[tokio::test]
async fn a_group_s_name_is_another_s_in_another_front_end_or_namespace() {
    let dir = tempfile::tempdir().unwrap();
    let mut broker = open(with_two(options(dir.path())));
    let other = TWO.clone().within(Namespace::named("other").unwrap());
    let one = Caller::client("one", SessionId(1));
    let callers = [&one, &TWO, &other];
    let member = settle(&broker).await.unwrap();
    assert_eq!(soon(commit(&broker, member.fence(), 1)).await, [Ok(())]);
    for (offset, caller) in (2..).zip([&TWO, &other]) {
        assert_eq!(broker.groups(caller).describe("g"), None);
        assert_eq!(
            broker.groups(caller).heartbeat("g", &member.fence()),
            Err(GroupError::UnknownMember.into())
        );
        assert_eq!(soon(commit_of(&broker, caller, "g", offset)).await, [Ok(())]);
    }
    for _ in 0..2 {
        let owners: Vec<_> = broker.all_groups().into_iter().map(|listed| listed.group).collect();
        let owners: Vec<_> = owners.iter().map(|id| (broker.owner_of(id), id.namespace.as_str())).collect();
        let two = Some("two".to_owned());
        assert_eq!(owners, [(Some("one".into()), "/"), (two.clone(), "/"), (two, "other")]);
        assert_eq!(callers.map(|caller| committed_of(&broker, caller, "g")), [1, 2, 3]);
        assert_eq!(callers.map(|caller| broker.groups(caller).list().len()), [1, 1, 1]);
        assert_eq!(broker.groups(&one).describe("g").unwrap().members.len(), 1);
        broker.shutdown();
        drop(broker);
        broker = open(with_two(options(dir.path())));
    }
    assert_eq!(soon(broker.groups(&TWO).delete("g")).await, Ok(()));
    assert_eq!(callers.map(|caller| committed_of(&broker, caller, "g")), [1, -1, 3]);
    // One that the broker does not know has none, and says so.
    let stranger = Caller::front_end("stranger");
    assert_eq!(soon(commit_of(&broker, &stranger, "g", 1)).await, [Err(GroupError::UnknownFrontend.into())]);
    assert_eq!(committed_of(&broker, &stranger, "g"), -1);
    broker.shutdown();
}

#[tokio::test]
async fn names_of_groups_are_as_long_as_they_may_be_and_no_longer() {
    let dir = tempfile::tempdir().unwrap();
    let mut broker = open(with_two(options(dir.path())));
    let namespace = Namespace::named(&"n".repeat(255)).unwrap();
    let callers = [Caller::OPERATOR, TWO.clone().within(namespace)];
    let (longest, longer) = ("x".repeat(1024), "x".repeat(1025));
    for caller in &callers {
        assert_eq!(soon(commit_of(&broker, caller, &longest, 7)).await, [Ok(())]);
        assert_eq!(soon(commit_of(&broker, caller, &longer, 7)).await, [Err(GroupError::InvalidId.into())]);
    }
    // The one replays what the other checkpoints.
    for _ in 0..2 {
        broker.shutdown();
        drop(broker);
        broker = open(with_two(options(dir.path())));
        assert!(callers.iter().all(|caller| committed_of(&broker, caller, &longest) == 7));
    }
    broker.shutdown();
}

#[tokio::test]
async fn a_namespace_s_groups_and_its_topics_of_one_partition_are_in_its_home() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = with_two(BrokerOptions { data_shards: 3, ..options(dir.path()) });
    options.groups.max_groups = 3;
    let mut broker = open(options.clone());
    // One namespace for each shard; the default one's is the first.
    let names = (0..).map(|i| Namespace::named(&format!("n{i}")).unwrap());
    let elsewhere = [2, 3].map(|home| names.clone().find(|name| name.home(3).0 == home).unwrap());
    let callers: Vec<Caller> =
        [Namespace::DEFAULT].into_iter().chain(elsewhere).map(|name| TWO.clone().within(name)).collect();
    for (home, caller) in (1..).zip(&callers) {
        assert_eq!(broker.has_groups(ShardId(home)), home == 1);
        assert_eq!(soon(commit_of(&broker, caller, "g", home.into())).await, [Ok(())]);
        assert!(broker.has_groups(ShardId(home)));
        let topic = soon(broker.create_topics(caller, vec![new_topic("t", 1)])).await.remove(0).unwrap();
        assert_eq!(topic.partitions[0].shard, ShardId(home));
    }
    // The bound is that of all shards together.
    let late = commit_of(&broker, &callers[1], "late", 1);
    assert_eq!(soon(late).await, [Err(GroupError::LimitReached.into())]);
    assert_eq!(soon(commit_of(&broker, &callers[1], "g", 2)).await, [Ok(())]);
    for _ in 0..2 {
        broker.shutdown();
        drop(broker);
        broker = open(options.clone());
        let found: Vec<_> = callers.iter().map(|caller| committed_of(&broker, caller, "g")).collect();
        assert_eq!((found, broker.group_count()), (vec![1, 2, 3], 3));
        assert_eq!(broker.all_groups().len(), 3);
    }
    broker.shutdown();
}

/// Takes a broker whose blocks commit when told, and its data shard's replicator.
fn told() -> (Machine, Broker, Arc<LateReplicator>) {
    let machine = Machine::new(9, 1, Seam::Told);
    let broker = machine.try_open(BrokerOptions { groups: at_once(), ..machine.options() }).unwrap();
    machine.commit_all();
    let late = machine.late.lock()[1].clone();
    (machine, broker, late)
}

/// Lets everything commit until there is an answer.
async fn committing_all<T>(late: &LateReplicator, answer: impl Future<Output = T>) -> T {
    let commits = async {
        loop {
            late.commit_all();
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::select! {
        answer = soon(answer) => answer,
        () = commits => unreachable!("it goes on until the answer is there"),
    }
}

#[test]
fn nobody_hears_of_what_is_not_committed() {
    let (machine, broker, late) = told();
    runtime().block_on(async {
        let member = join(&broker, Text::from("")).await.unwrap();
        let mut syncing = sync(&broker, &member);
        assert!(pending(&mut syncing).await);
        assert_eq!(
            broker.groups(&Caller::OPERATOR).describe("g").unwrap().state,
            GroupPhase::CompletingRebalance
        );
        assert_eq!(committing_all(&late, syncing).await.unwrap().assignment, "everything");
        let mut committing = commit(&broker, member.fence(), 5);
        assert!(pending(&mut committing).await);
        assert_eq!(committed(&broker), -1);
        assert_eq!(committing_all(&late, committing).await, [Ok(())]);
        assert_eq!(committed(&broker), 5);
    });
    machine.freely(|| broker.shutdown());
}

#[test]
fn what_was_cut_leaves_no_trace_in_a_group() {
    let (machine, broker, late) = told();
    runtime().block_on(async {
        let member = join(&broker, Text::from("")).await.unwrap();
        let syncing = sync(&broker, &member);
        committing_all(&late, syncing).await.unwrap();

        let committing = commit(&broker, member.fence(), 5);
        let again = join(&broker, member.id.clone()).await.unwrap();
        assert_eq!(again.generation, 2);
        let syncing = sync(&broker, &again);
        until(|| broker.inner.shards[1].in_flight() > 0).await;
        let after = late.committed();
        let cutting = late.clone();
        tokio::task::spawn_blocking(move || cutting.cut(after).unwrap()).await.unwrap();
        // What was still in the open block goes out in the new term and is applied after the cut.
        let cut = soon(committing).await;
        assert_eq!(cut, [Err(GroupError::Shard(ShardFailure::NotLeader).into())]);
        let outcome = committing_all(&late, syncing).await;
        assert_eq!(committed(&broker), -1);
        let view = broker.groups(&Caller::OPERATOR).describe("g").unwrap();
        match outcome.map_err(|about| about.error) {
            Err(GroupError::Shard(ShardFailure::NotLeader)) => {
                assert_eq!((view.generation, view.state), (1, GroupPhase::Stable))
            }
            Ok(_) => assert_eq!((view.generation, view.state), (2, GroupPhase::Stable)),
            Err(other) => panic!("{other}"),
        }
    });
    machine.freely(|| broker.shutdown());
}

/// Twelve power cuts under a group that commits one offset after another: what was acknowledged is there, and nothing that
/// was never sent.
fn power_cuts(seam: Seam) {
    let mut machine = Machine::new(77, 1, seam);
    let (mut acknowledged, mut sent) = (-1, -1);
    // Of the other front end's group of the same name.
    let (mut acknowledged_of_two, mut sent_of_two) = (-1, -1);
    for round in 0..12 {
        let broker = machine.try_open(with_two(machine.options())).unwrap();
        runtime().block_on(async {
            let found = committed(&broker);
            assert!((acknowledged..=sent).contains(&found), "{acknowledged} <= {found} <= {sent}");
            let found = committed_of(&broker, &TWO, "g");
            assert!((acknowledged_of_two..=sent_of_two).contains(&found), "{found} of two");
            sent_of_two += 1000;
            if soon(commit_of(&broker, &TWO, "g", sent_of_two)).await[0].is_ok() {
                acknowledged_of_two = sent_of_two;
            }
            let mut member = None;
            for _ in 0..15 + round {
                // A cut tail is told as it happens; a client starts over.
                if member.is_none() {
                    member = forget_and_settle(&machine, &broker).await.ok();
                }
                let Some(fence) = member.as_ref().map(Member::fence) else { continue };
                sent += 1;
                match soon(commit(&broker, fence, sent)).await[0] {
                    Ok(()) => acknowledged = sent,
                    Err(_) => member = None,
                }
            }
            // One that may or may not make it.
            if let Some(member) = member {
                sent += 1;
                drop(commit(&broker, member.fence(), sent));
            }
        });
        machine = machine.crash(broker);
    }
    assert!(acknowledged_of_two > 0, "{acknowledged_of_two}");
    assert!(acknowledged > 50, "{acknowledged}: hardly anything got through");
}

/// The members of former runs are silent; the new one is in when their sessions are over.
async fn forget_and_settle(machine: &Machine, broker: &Broker) -> Result<Member, ErrorAbout<GroupError>> {
    machine.clock.advance(7_000);
    until(|| {
        machine.clock.advance(1_000);
        let view = broker.groups(&Caller::OPERATOR).describe("g");
        view.is_none_or(|view| view.state == GroupPhase::Empty)
    })
    .await;
    settle(broker).await
}

#[test]
fn no_power_cut_takes_a_commit_back() {
    power_cuts(Seam::Solo);
}

#[test]
fn no_power_cut_takes_a_commit_back_that_came_late() {
    power_cuts(Seam::Late);
}

//! Panics: what they end, and what goes on.

use std::time::Duration;

use bytes::Bytes;
use sabir_base::panics::contain;
use sabir_base::testing::{keep_log, logged};
use sabir_journal::Priority;
use sabir_model::{
    AppendError, ErrorAbout, FrontendNo, GroupError, LeaderEpoch, Offset, ReadError, ShardFailure, TopicId,
};

use super::rig::{append, batch, create, item, new_topic, open, options, read, soon, until, values};
use crate::answer::{Answer, Waiter};
use crate::entry::{Body, FrontendRegistered};
use crate::panicking::panic_once;
use crate::{
    Appended, Broker, Caller, ClientIdentity, Fence, GroupProtocol, JoinRequest, Joined, OffsetCommit,
    SyncRequest, Text,
};

fn commit(broker: &Broker, metadata: &str) -> crate::Committing {
    let position = OffsetCommit {
        topic: TopicId([1; 16]),
        partition: 0,
        offset: Offset(5),
        leader_epoch: LeaderEpoch(1),
        metadata: Text::from(metadata),
    };
    let fence = Fence { generation: -1, member: Text::from(""), instance: None };
    broker.groups(&Caller::OPERATOR).commit("g", fence, vec![position])
}

#[tokio::test]
async fn a_panic_while_an_entry_takes_effect_stops_the_shard_reads_too_and_a_restart_recovers_it() {
    let dir = tempfile::tempdir().unwrap();
    let options = crate::BrokerOptions { data_shards: 2, ..options(dir.path()) };
    let broker = open(options.clone());
    let topic = create(&broker, "t", 2).await;
    let here = (0..2).find(|i| topic.partition(*i).unwrap().shard.0 == 1).unwrap();
    let other = 1 - here;
    append(&broker, &topic, here, batch(&[b"kept"], 1)).await.unwrap();
    panic_once("apply", "no entry before this one");
    let behind = commit(&broker, "no entry before this one");
    assert_eq!(soon(behind).await, [Err(GroupError::Shard(ShardFailure::StorageError).into())]);
    let stats = broker.stats();
    assert_eq!(stats.shards.iter().map(|shard| shard.stopped).collect::<Vec<_>>(), [false, true, false]);
    assert_eq!(
        append(&broker, &topic, here, batch(&[b"x"], 1)).await,
        Err(AppendError::Shard(ShardFailure::StorageError).into())
    );
    assert_eq!(read(&broker, &topic, here, 0, 100).await.err(), Some(ReadError::Storage.into()));
    assert!(broker.inner.shards[1].journal.stopped().is_some());

    append(&broker, &topic, other, batch(&[b"goes on"], 1)).await.unwrap();
    assert_eq!(values(&read(&broker, &topic, other, 0, 100).await.unwrap()), [(0, b"goes on".to_vec())]);
    broker.inner.definitions.reconcile().unwrap();
    broker.shutdown();
    drop(broker);

    let broker = open(options);
    let topic = broker.catalog().topic("t").cloned().unwrap();
    assert_eq!(values(&read(&broker, &topic, here, 0, 100).await.unwrap()), [(0, b"kept".to_vec())]);
    assert_eq!(values(&read(&broker, &topic, other, 0, 100).await.unwrap()), [(0, b"goes on".to_vec())]);
    assert_eq!(
        broker.groups(&Caller::OPERATOR).all_offsets("g").len(),
        1,
        "what was committed has its effect"
    );
    append(&broker, &topic, here, batch(&[b"again"], 1)).await.unwrap();
    broker.shutdown();
}

/// What is kept after a batch that no call sent on its way: callers that wait for it are told, unless a shard that was driven meanwhile has
/// committed it before.
fn kept_with(told: Vec<Result<Appended, ErrorAbout<AppendError>>>) -> Vec<(i64, Vec<u8>)> {
    let mut kept = vec![(0, b"kept".to_vec())];
    match told.as_slice() {
        [Ok(appended)] => kept.push((appended.base_offset.0, b"not sent".to_vec())),
        told => assert_eq!(told, [Err(AppendError::Shard(ShardFailure::StorageError).into())]),
    }
    kept
}

#[tokio::test]
async fn a_panic_under_the_open_block_stops_the_shard_and_reads_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(options(dir.path()));
    let topic = create(&broker, "t", 1).await;
    append(&broker, &topic, 0, batch(&[b"kept"], 1)).await.unwrap();
    let waiting = broker.append(vec![item(&topic, 0, batch(&[b"not sent"], 1))]);
    panic_once("push", "panics under the lock");
    assert!(contain(|| commit(&broker, "panics under the lock")).is_none(), "the caller's own panic goes on");
    let kept = kept_with(soon(waiting).await);
    assert_eq!(
        append(&broker, &topic, 0, batch(&[b"x"], 1)).await,
        Err(AppendError::Shard(ShardFailure::StorageError).into())
    );
    assert_eq!(values(&read(&broker, &topic, 0, 0, 1000).await.unwrap()), kept);
    broker.shutdown();
}

#[tokio::test]
async fn a_job_that_panics_stops_the_shard_it_was_at_and_no_checkpoint_is_made_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let options = crate::BrokerOptions { data_shards: 2, ..options(dir.path()) };
    let broker = open(options.clone());
    let topic = create(&broker, "t", 2).await;
    let here = (0..2).find(|i| topic.partition(*i).unwrap().shard.0 == 1).unwrap();
    append(&broker, &topic, here, batch(&[b"kept"], 1)).await.unwrap();
    let shard = broker.inner.shards[1].clone();
    let waiting = broker.append(vec![item(&topic, here, batch(&[b"not sent"], 1))]);
    keep_log();
    assert!(!shard.contain("a job of its own", || panic!("on purpose")));
    let lines = logged(&["ERROR", "a panic: the shard stops", "shard=1 doing=\"a job of its own\""]);
    assert_eq!(lines.len(), 1, "{lines:?}");
    let kept = kept_with(soon(waiting).await);
    assert_eq!(
        append(&broker, &topic, here, batch(&[b"x"], 1)).await,
        Err(AppendError::Shard(ShardFailure::StorageError).into())
    );
    assert_eq!(values(&read(&broker, &topic, here, 0, 1000).await.unwrap()), kept);
    append(&broker, &topic, 1 - here, batch(&[b"goes on"], 1)).await.unwrap();
    let before = broker.stats().shards[1].checkpoints;
    shard.checkpoint_if_due();
    broker.shutdown();
    assert_eq!(broker.stats().shards[1].checkpoints, before);
    drop((shard, broker));

    let broker = open(options);
    assert_eq!(values(&read(&broker, &topic, here, 0, 1000).await.unwrap()), kept);
    append(&broker, &topic, here, batch(&[b"again"], 1)).await.unwrap();
    broker.shutdown();
}

#[tokio::test]
async fn a_panic_in_an_answer_is_that_answers_own() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(options(dir.path()));
    let shard = broker.inner.shards[0].clone();
    type Registered = <FrontendRegistered as Body>::Outcome;
    let body = FrontendRegistered { name: "one".into() };
    shard.propose(Priority::Ordinary, &body, Waiter::then(|_: Registered, _| panic!("on purpose")));
    let behind = Answer::<Registered>::default();
    shard.propose(Priority::Ordinary, &body, behind.waiter());
    shard.submit();
    assert_eq!(soon(behind).await, Ok(FrontendNo(1)));
    assert!(!shard.is_stopped());
    broker.shutdown();
}

#[tokio::test]
async fn a_panic_in_a_definitions_step_loses_neither_the_step_nor_who_waits_for_it() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(crate::BrokerOptions { data_shards: 2, ..options(dir.path()) });
    for (place, name) in [("carry", "panics-when-carried"), ("finish", "panics-when-finished")] {
        panic_once(place, name);
        let made = soon(broker.create_topics(&Caller::OPERATOR, vec![new_topic(name, 2)])).await.remove(0);
        assert_eq!(
            made.err(),
            Some(ShardFailure::Timeout.into()),
            "{place}: it is told that it takes longer"
        );
        until(|| broker.catalog().topic(name).is_some()).await;
        let topic = broker.catalog().topic(name).cloned().unwrap();
        append(&broker, &topic, 0, batch(&[b"x"], 1)).await.unwrap();

        panic_once(place, name);
        let deleted = soon(broker.delete_topics(&Caller::OPERATOR, vec![topic.id])).await.remove(0);
        assert_eq!(deleted.err(), Some(ShardFailure::Timeout.into()), "{place}");
        until(|| broker.catalog().topic(name).is_none()).await;
        let kept = |of: &crate::Partition| {
            broker.inner.shards[of.shard.0 as usize].state.read().partition(of.id).is_some()
        };
        until(|| !topic.partitions.iter().any(kept)).await;
    }
    assert!(broker.stats().shards.iter().all(|shard| !shard.stopped));
    broker.shutdown();
}

async fn join(broker: &Broker, group: &str) -> Result<Joined, ErrorAbout<GroupError>> {
    let request = JoinRequest {
        member: Text::from(""),
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
    soon(broker.groups(&Caller::OPERATOR).join(group, request)).await.map_err(|refused| refused.error)
}

fn sync(
    broker: &Broker,
    group: &str,
    joined: &Joined,
) -> crate::Reply<Result<crate::Synced, ErrorAbout<GroupError>>> {
    let fence = Fence { generation: joined.generation, member: joined.member.clone(), instance: None };
    let assignments = vec![(joined.member.clone(), Bytes::from_static(b"all"))];
    broker
        .groups(&Caller::OPERATOR)
        .sync(group, SyncRequest { fence, protocol_type: None, protocol: None, assignments })
}

#[tokio::test]
async fn a_panic_in_a_group_makes_it_start_again_from_what_is_stored() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = options(dir.path());
    options.groups.limits.initial_rebalance_delay_ms = 0;
    let broker = open(options);
    let (joined, other) = (join(&broker, "panicking").await.unwrap(), join(&broker, "other").await.unwrap());
    assert!(soon(sync(&broker, "panicking", &joined)).await.is_ok());
    // The second parks until the first joins again.
    let parked = tokio::spawn({
        let broker = broker.clone();
        async move { join(&broker, "panicking").await.err() }
    });
    until(|| {
        broker.groups(&Caller::OPERATOR).describe("panicking").is_some_and(|group| group.members.len() == 2)
    })
    .await;
    panic_once("group", "panicking");
    assert_eq!(soon(sync(&broker, "panicking", &joined)).await.err(), Some(ShardFailure::NotLeader.into()));
    assert_eq!(
        parked.await.unwrap(),
        Some(ShardFailure::NotLeader.into()),
        "whoever waits there looks for it again"
    );
    let fence = Fence { generation: joined.generation, member: joined.member.clone(), instance: None };
    assert_eq!(
        broker.groups(&Caller::OPERATOR).heartbeat("panicking", &fence),
        Ok(()),
        "its members are stored"
    );
    assert!(soon(sync(&broker, "other", &other)).await.is_ok());
    assert!(!broker.stats().shards[1].stopped);
    tokio::time::sleep(Duration::from_millis(10)).await;
    broker.shutdown();
}

//! How far groups are behind.

use sabir_model::{LeaderEpoch, Offset};

use super::rig::{append, batch, create, open, options};
use crate::{Broker, Caller, Fence, OffsetCommit, PartitionLag, Text, Topic};

pub(super) async fn commit(broker: &Broker, group: &str, topic: &Topic, offsets: &[(i32, i64)]) {
    commit_of(broker, &Caller::OPERATOR, group, topic, offsets).await;
}

async fn commit_of(broker: &Broker, caller: &Caller, group: &str, topic: &Topic, offsets: &[(i32, i64)]) {
    let position = |&(partition, offset): &(i32, i64)| OffsetCommit {
        topic: topic.id,
        partition,
        offset: Offset(offset),
        leader_epoch: LeaderEpoch::UNKNOWN,
        metadata: Text::from(""),
    };
    let fence = Fence { generation: -1, member: Text::from(""), instance: None };
    for outcome in broker.groups(caller).commit(group, fence, offsets.iter().map(position).collect()).await {
        outcome.unwrap();
    }
}

#[tokio::test]
async fn lag_counts_from_the_position_to_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(options(dir.path()));
    let (topic, gone) = (create(&broker, "t", 3).await, create(&broker, "gone", 1).await);
    append(&broker, &topic, 0, batch(&[b"a", b"b", b"c"], 1)).await.unwrap();
    append(&broker, &topic, 2, batch(&[b"d"], 1)).await.unwrap();
    // The position in 2 lies behind the end, as after a loss; there is no partition 9.
    commit(&broker, "g", &topic, &[(0, 1), (2, 5), (9, 0)]).await;
    commit(&broker, "g", &gone, &[(0, 0)]).await;
    commit(&broker, "h", &topic, &[(1, 0)]).await;
    broker.delete_topics(&Caller::OPERATOR, vec![gone.id]).await.remove(0).unwrap();

    let found = broker.group_lag(&Caller::OPERATOR, "g", 10).unwrap();
    let at = |partition, committed, end| PartitionLag {
        partition,
        committed: Offset(committed),
        end: Offset(end),
    };
    assert_eq!(found.len(), 1);
    assert_eq!((&*found[0].topic.name, found[0].lag()), ("t", 2));
    assert_eq!(found[0].partitions, [at(0, 1, 3), at(2, 5, 1)]);
    assert_eq!(found[0].partitions[1].lag(), 0);

    let all = broker.groups_lag(&Caller::OPERATOR, 10).unwrap();
    let ids: Vec<_> = all.iter().map(|one| (&*one.group.group.name, one.group.members)).collect();
    assert_eq!(ids, [("g", 0), ("h", 0)]);
    assert!(broker.groups_lag(&Caller::OPERATOR, 1).is_none(), "there are two groups");
    assert!(broker.group_lag(&Caller::OPERATOR, "g", 1).is_none(), "it has more positions");
    assert!(broker.group_lag(&Caller::OPERATOR, "nobody", 1).unwrap().is_empty());
    broker.shutdown();
}

#[tokio::test]
async fn groups_of_one_name_are_each_as_far_behind_as_they_are() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(crate::BrokerOptions { front_ends: vec!["two"], ..options(dir.path()) });
    let topic = create(&broker, "t", 1).await;
    append(&broker, &topic, 0, batch(&[b"a", b"b", b"c"], 1)).await.unwrap();
    let two = Caller::OPERATOR.about("two");
    for (caller, offset) in [(&Caller::OPERATOR, 1), (&two, 3)] {
        commit_of(&broker, caller, "g", &topic, &[(0, offset)]).await;
    }
    let lag = |groups: Vec<crate::GroupLag>| groups.iter().map(|one| one.topics[0].lag()).collect::<Vec<_>>();
    assert_eq!(lag(broker.groups_lag(&Caller::OPERATOR, 10).unwrap()), [2]);
    assert_eq!(lag(broker.groups_lag(&two, 10).unwrap()), [0]);
    assert_eq!(lag(broker.all_groups_lag(10).unwrap()), [2, 0]);
    assert!(broker.all_groups_lag(1).is_none());
    broker.shutdown();
}

#[tokio::test]
async fn positions_are_read_in_parts() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(options(dir.path()));
    let topics = [create(&broker, "a", 700).await, create(&broker, "b", 700).await];
    for topic in &topics {
        let all: Vec<_> = (0..700).map(|partition| (partition, 0)).collect();
        commit(&broker, "g", topic, &all).await;
    }
    let found = broker.group_lag(&Caller::OPERATOR, "g", 1400).unwrap();
    let counts: Vec<_> = found.iter().map(|topic| topic.partitions.len()).collect();
    assert_eq!(counts, [700, 700]);
    assert!(broker.group_lag(&Caller::OPERATOR, "g", 1399).is_none());
    broker.shutdown();
}

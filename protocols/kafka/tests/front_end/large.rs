//! Requests that are valid and larger than an entry of the journal.

use sabir_base::testing::best_of_three_async;
use sabir_broker::BrokerOptions;
use sabir_kafka::wire::messages::alter_configs;
use sabir_kafka::wire::messages::create_partitions::{CreatePartitionsRequest, CreatePartitionsTopic};
use sabir_kafka::wire::messages::create_topics::CreateTopicsRequest;
use sabir_kafka::wire::messages::delete_groups::DeleteGroupsRequest;
use sabir_kafka::wire::messages::delete_records::{
    DeleteRecordsPartition, DeleteRecordsRequest, DeleteRecordsTopic,
};
use sabir_kafka::wire::messages::delete_topics::{DeleteTopicState, DeleteTopicsRequest};
use sabir_kafka::wire::messages::describe_configs::{DescribeConfigsRequest, DescribeConfigsResource};
use sabir_kafka::wire::messages::describe_groups::DescribeGroupsRequest;
use sabir_kafka::wire::messages::incremental_alter_configs::{
    AlterConfigsResource, AlterableConfig, IncrementalAlterConfigsRequest,
};
use sabir_kafka::wire::messages::join_group::{JoinGroupRequest, JoinGroupRequestProtocol};
use sabir_kafka::wire::messages::leave_group::{LeaveGroupRequest, MemberIdentity};
use sabir_kafka::wire::messages::metadata::{MetadataRequest, MetadataRequestTopic};
use sabir_kafka::wire::messages::offset_commit::{
    OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use sabir_kafka::wire::messages::offset_delete::{
    OffsetDeleteRequest, OffsetDeleteRequestPartition, OffsetDeleteRequestTopic,
};
use sabir_kafka::wire::messages::offset_fetch::{
    OffsetFetchRequest, OffsetFetchRequestGroup, OffsetFetchRequestTopics,
};
use sabir_kafka::wire::messages::sync_group::{SyncGroupRequest, SyncGroupRequestAssignment};
use sabir_kafka::wire::{ErrorCode, Str};

use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::rig::{Raw, Rig, Setup, assert_code, creatable};

fn position(partition_index: i32, committed_offset: i64, metadata: &Str) -> OffsetCommitRequestPartition {
    OffsetCommitRequestPartition {
        partition_index,
        committed_offset,
        committed_leader_epoch: -1,
        committed_metadata: Some(metadata.clone()),
    }
}

fn commit(partitions: Vec<OffsetCommitRequestPartition>) -> OffsetCommitRequest {
    let topic = OffsetCommitRequestTopic { name: "t".into(), partitions, ..Default::default() };
    OffsetCommitRequest {
        group_id: "g".into(),
        generation_id_or_member_epoch: -1,
        topics: vec![topic],
        ..Default::default()
    }
}

async fn codes(raw: &mut Raw, request: &OffsetCommitRequest) -> Vec<i16> {
    let response = raw.call(9, request).await;
    response.topics[0].partitions.iter().map(|p| p.error_code).collect()
}

async fn positions(raw: &mut Raw) -> Vec<(i32, i64)> {
    let group = OffsetFetchRequestGroup { group_id: "g".into(), topics: None, ..Default::default() };
    let response = raw.call(9, &OffsetFetchRequest { groups: vec![group], ..Default::default() }).await;
    let topics = response.groups[0].topics.iter();
    topics.flat_map(|t| t.partitions.iter().map(|p| (p.partition_index, p.committed_offset))).collect()
}

async fn delete(raw: &mut Raw, partitions: impl Iterator<Item = i32>) -> Vec<i16> {
    let partition = |partition_index| OffsetDeleteRequestPartition { partition_index };
    let topic =
        OffsetDeleteRequestTopic { name: "t".into(), partitions: partitions.map(partition).collect() };
    let response = raw.ask(&OffsetDeleteRequest { group_id: "g".into(), topics: vec![topic] }).await;
    assert_eq!(response.error_code, 0);
    response.topics[0].partitions.iter().map(|p| p.error_code).collect()
}

#[tokio::test]
async fn commits_and_deletions_of_positions_have_any_size() {
    let rig = Rig::start();
    let mut raw = rig.raw().await;
    raw.topic("t", 10_000).await;
    let long = Str::from("x".repeat(4000));
    let wide = commit((0..300).map(|i| position(i, 7, &long)).collect());
    assert_eq!(codes(&mut raw, &wide).await, [0; 300]);
    let again = commit((0..300).map(|i| position(5, i, &long)).collect());
    assert_eq!(codes(&mut raw, &again).await, [0; 300]);
    let note = Str::from("x".repeat(200));
    let many = commit((0..10_000).map(|i| position(i, 9, &note)).collect());
    assert_eq!(codes(&mut raw, &many).await, vec![0; 10_000]);
    let kept = positions(&mut raw).await;
    assert_eq!((kept.len(), kept.iter().all(|(_, offset)| *offset == 9)), (10_000, true));
    // Every position many times over: more than an entry takes.
    assert_eq!(delete(&mut raw, (0..80_000).map(|i| i % 9_999)).await, vec![0; 80_000]);
    assert_eq!(positions(&mut raw).await, [(9_999, 9)]);
}

#[tokio::test]
async fn of_a_partition_committed_twice_the_last_position_counts() {
    let rig = Rig::start();
    let mut raw = rig.raw().await;
    raw.topic("t", 1).await;
    let none = Str::default();
    assert_eq!(codes(&mut raw, &commit((0..300).map(|i| position(0, i, &none)).collect())).await, [0; 300]);
    assert_eq!(positions(&mut raw).await, [(0, 299)]);
}

#[tokio::test]
async fn a_commit_whose_fence_alone_is_too_large_is_refused() {
    let rig = Rig::start();
    let mut raw = rig.raw().await;
    raw.topic("t", 2).await;
    let none = Str::default();
    let request = commit(vec![position(0, 1, &none), position(1, 1, &none)]);
    let large =
        OffsetCommitRequest { group_instance_id: Some("i".repeat(2 << 20).into()), ..request.clone() };
    let expected = [ErrorCode::InvalidCommitOffsetSize.code(); 2];
    assert_eq!(codes(&mut raw, &large).await, expected);
    assert_eq!(codes(&mut raw, &request).await, [0; 2]);
}

#[tokio::test]
async fn settings_and_partitions_beyond_measure_are_refused() {
    let rig = Rig::start();
    let mut raw = rig.raw().await;
    raw.topic("t", 1).await;
    let (name, value) = ("follower.replication.throttled.replicas", "0:1,".repeat(500_000));
    let topics = vec![
        creatable("large", 1, &[(name, &value)]),
        creatable("many", 1_500_000, &[]),
        creatable("good", 1, &[]),
    ];
    let created = raw.ask(&CreateTopicsRequest { topics, ..Default::default() }).await.topics;
    assert_code(created[0].error_code, ErrorCode::InvalidConfig);
    assert_code(created[1].error_code, ErrorCode::InvalidPartitions);
    assert_code(created[2].error_code, ErrorCode::None);

    let config = alter_configs::AlterableConfig { name: name.into(), value: Some(value.as_str().into()) };
    let resource = alter_configs::AlterConfigsResource {
        resource_type: 2,
        resource_name: "t".into(),
        configs: vec![config],
    };
    let request = alter_configs::AlterConfigsRequest { resources: vec![resource], ..Default::default() };
    assert_code(raw.ask(&request).await.responses[0].error_code, ErrorCode::InvalidConfig);

    let config = AlterableConfig { name: name.into(), value: Some(value.into()), ..Default::default() };
    let resource =
        AlterConfigsResource { resource_type: 2, resource_name: "t".into(), configs: vec![config] };
    let request = IncrementalAlterConfigsRequest { resources: vec![resource], ..Default::default() };
    assert_code(raw.ask(&request).await.responses[0].error_code, ErrorCode::InvalidConfig);

    let topic = CreatePartitionsTopic { name: "t".into(), count: 1_500_000, ..Default::default() };
    let request = CreatePartitionsRequest { topics: vec![topic], ..Default::default() };
    assert_code(raw.ask(&request).await.results[0].error_code, ErrorCode::InvalidPartitions);
    raw.put("t", 0, &["it serves on"]).await;
}

/// What is made, changed and deleted of it goes as one entry, however many partitions that names.
#[tokio::test]
async fn the_largest_topic_is_made_changed_and_deleted() {
    const MOST: u32 = BrokerOptions::MOST_PARTITIONS;
    let most: fn(&mut BrokerOptions) = |options| {
        options.partitions_max = MOST;
        options.partitions_total_max = 2 * MOST as usize;
    };
    let rig = Rig::with(Setup { options: most, ..Setup::default() });
    let mut raw = rig.raw().await;
    raw.topic("other", 1).await;
    let large = vec![creatable("most", MOST as i32, &[])];
    let request = CreateTopicsRequest { topics: large, timeout_ms: 60_000, ..Default::default() };
    assert_code(raw.ask(&request).await.topics[0].error_code, ErrorCode::None);
    let partitions = |rig: &Rig| rig.broker.catalog().topic("most").map(|topic| topic.partitions.len());
    assert_eq!(partitions(&rig), Some(MOST as usize));

    let config =
        AlterableConfig { name: "retention.ms".into(), value: Some("1000".into()), ..Default::default() };
    let resource =
        AlterConfigsResource { resource_type: 2, resource_name: "most".into(), configs: vec![config] };
    let request = IncrementalAlterConfigsRequest { resources: vec![resource], ..Default::default() };
    assert_code(raw.ask(&request).await.responses[0].error_code, ErrorCode::None);
    raw.put("most", MOST as i32 - 1, &["it takes records"]).await;

    let topic = DeleteTopicState { name: Some("most".into()), ..Default::default() };
    let request = DeleteTopicsRequest { topics: vec![topic], timeout_ms: 60_000, ..Default::default() };
    assert_code(raw.ask(&request).await.responses[0].error_code, ErrorCode::None);
    assert_eq!(partitions(&rig), None);
    raw.put("other", 0, &["it serves on"]).await;
    assert!(rig.broker.stats().shards.iter().all(|shard| !shard.stopped));
}

#[tokio::test]
async fn members_that_bring_too_much_are_refused() {
    let rig = Rig::start();
    let mut raw = rig.raw().await;
    let join = |metadata: usize, instance: &str| JoinGroupRequest {
        group_id: "g".into(),
        session_timeout_ms: 10_000,
        rebalance_timeout_ms: 10_000,
        group_instance_id: Some(instance.into()),
        protocol_type: "consumer".into(),
        protocols: vec![JoinGroupRequestProtocol {
            name: "range".into(),
            metadata: Bytes::from(vec![0; metadata]),
        }],
        ..Default::default()
    };
    for large in [join(2 << 20, "i"), join(10, &"i".repeat(2 << 20))] {
        assert_code(raw.ask(&large).await.error_code, ErrorCode::MessageTooLarge);
    }
    let joined = raw.ask(&join(10, "i")).await;
    assert_eq!(joined.error_code, 0);
    let assignment = SyncGroupRequestAssignment {
        member_id: joined.member_id.clone(),
        assignment: vec![0; 2 << 20].into(),
    };
    let sync = SyncGroupRequest {
        group_id: "g".into(),
        generation_id: joined.generation_id,
        member_id: joined.member_id.clone(),
        group_instance_id: Some("i".into()),
        protocol_type: Some("consumer".into()),
        protocol_name: Some("range".into()),
        assignments: vec![assignment],
    };
    assert_code(raw.ask(&sync).await.error_code, ErrorCode::UnknownServerError);
    let member = |i: i32| MemberIdentity { member_id: format!("{i}").into(), ..Default::default() };
    let members = (0..100_000).map(member).collect();
    let left = raw.ask(&LeaveGroupRequest { group_id: "g".into(), members, ..Default::default() }).await;
    assert_eq!((left.error_code, left.members.len()), (0, 100_000));
    let groups_names = (0..100_000).map(|i| format!("{i}").into()).collect();
    let deleted = raw.ask(&DeleteGroupsRequest { groups_names }).await;
    assert_eq!(deleted.results.len(), 100_000);
    raw.topic("t", 1).await;
    raw.put("t", 0, &["it serves on"]).await;
}

#[tokio::test]
async fn a_request_with_more_deletions_than_it_waits_for_holds_nobody_up() {
    best_of_three_async(Duration::from_secs(1), beside_very_many_deletions).await;
}

/// The longest that a bystander waited.
async fn beside_very_many_deletions() -> Duration {
    let rig = Rig::start();
    let (mut raw, mut bystander) = (rig.raw().await, rig.raw().await);
    raw.topic("t", 1).await;
    let partition = DeleteRecordsPartition { partition_index: 0, offset: -1 };
    let topic = DeleteRecordsTopic { name: "t".into(), partitions: vec![partition; 500_000] };
    let request = DeleteRecordsRequest { topics: vec![topic], timeout_ms: 1000 };
    let asked = raw.send(2, &request).await;
    let (began, mut longest) = (Instant::now(), Duration::ZERO);
    while began.elapsed() < Duration::from_millis(1500) {
        let each = Instant::now();
        bystander.put("t", 0, &["x"]).await;
        longest = longest.max(each.elapsed());
    }
    let response = raw.receive::<DeleteRecordsRequest>(2, asked).await;
    let partitions = &response.topics[0].partitions;
    assert_code(partitions[0].error_code, ErrorCode::None);
    assert_code(partitions[499_999].error_code, ErrorCode::RequestTimedOut);
    longest
}

/// Otherwise a name of a few bytes would stand for an answer of megabytes, as often as it fits a request.
#[tokio::test]
async fn what_is_named_a_hundred_thousand_times_is_answered_once() {
    const TIMES: usize = 100_000;
    let rig = Rig::start();
    let mut raw = rig.raw().await;
    raw.topic("t", 1000).await;
    let note = Str::from("x".repeat(4000));
    let positions = commit((0..1000).map(|i| position(i, 7, &note)).collect());
    assert_eq!(codes(&mut raw, &positions).await, [0; 1000]);

    let all = OffsetFetchRequestGroup { group_id: "g".into(), topics: None, ..Default::default() };
    let request = OffsetFetchRequest { groups: vec![all; TIMES], ..Default::default() };
    assert_eq!(raw.call(9, &request).await.groups.len(), 1);
    let topic = OffsetFetchRequestTopics {
        name: "t".into(),
        partition_indexes: vec![5; TIMES],
        ..Default::default()
    };
    let some = OffsetFetchRequestGroup {
        group_id: "g".into(),
        topics: Some(vec![topic.clone(), topic]),
        ..Default::default()
    };
    let response = raw.call(9, &OffsetFetchRequest { groups: vec![some], ..Default::default() }).await;
    let topics = &response.groups[0].topics;
    assert_eq!((topics.len(), topics[0].partitions.len()), (1, 1));
    assert_eq!(topics[0].partitions[0].committed_offset, 7);

    let request = DescribeGroupsRequest { groups: vec!["g".into(); TIMES], ..Default::default() };
    assert_eq!(raw.ask(&request).await.groups.len(), 1);
    let topic = MetadataRequestTopic { name: Some("t".into()), ..Default::default() };
    let request = MetadataRequest { topics: Some(vec![topic; TIMES]), ..Default::default() };
    assert_eq!(raw.ask(&request).await.topics.len(), 1);
    let resource =
        DescribeConfigsResource { resource_type: 2, resource_name: "t".into(), ..Default::default() };
    let request = DescribeConfigsRequest { resources: vec![resource; TIMES], ..Default::default() };
    assert_eq!(raw.ask(&request).await.results.len(), 1);
}

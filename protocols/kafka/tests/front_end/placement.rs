//! Leaders, replicas and directories: of each there is one, and what asks for that is told so. What has settings is listed here too.

use sabir_kafka::wire::ErrorCode;
use sabir_kafka::wire::messages::alter_partition_reassignments::{
    AlterPartitionReassignmentsRequest, ReassignablePartition, ReassignableTopic,
};
use sabir_kafka::wire::messages::alter_replica_log_dirs::{
    AlterReplicaLogDir, AlterReplicaLogDirTopic, AlterReplicaLogDirsRequest,
};
use sabir_kafka::wire::messages::describe_log_dirs::DescribeLogDirsRequest;
use sabir_kafka::wire::messages::describe_quorum::{DescribeQuorumRequest, PartitionData, TopicData};
use sabir_kafka::wire::messages::elect_leaders::{ElectLeadersRequest, TopicPartitions};
use sabir_kafka::wire::messages::list_config_resources::ListConfigResourcesRequest;
use sabir_kafka::wire::messages::list_partition_reassignments::ListPartitionReassignmentsRequest;

use crate::rig::{Raw, Rig, assert_code};

#[tokio::test]
async fn the_only_replica_leads_and_no_other_can_be_elected() {
    let rig = Rig::start();
    let mut raw = rig.raw().await;
    raw.topic("t", 2).await;
    let wanted = |topic: &str, partitions| TopicPartitions { topic: topic.into(), partitions };
    let some = Some(vec![wanted("t", vec![0, 1, 2, -1]), wanted("nowhere", vec![0])]);
    for version in 0..=2 {
        let request = ElectLeadersRequest { topic_partitions: some.clone(), ..Default::default() };
        let response = raw.call(version, &request).await;
        assert_eq!(response.error_code, 0);
        let results = response.replica_election_results.iter().flat_map(|t| &t.partition_result);
        let results: Vec<_> =
            results.map(|p| (p.partition_id, ErrorCode::from_i16(p.error_code).unwrap())).collect();
        let (led, unknown) = (ErrorCode::ElectionNotNeeded, ErrorCode::UnknownTopicOrPartition);
        assert_eq!(results, [(0, led), (1, led), (2, unknown), (-1, unknown), (0, unknown)]);
    }
    let all = raw.ask(&ElectLeadersRequest { topic_partitions: None, ..Default::default() }).await;
    assert_eq!((all.error_code, all.replica_election_results.len()), (0, 0), "all have their leader");
    let nonsense = ElectLeadersRequest { election_type: 2, topic_partitions: some, ..Default::default() };
    assert_code(raw.ask(&nonsense).await.error_code, ErrorCode::InvalidRequest);
}

fn quorum(topic: &str, partition_index: i32) -> DescribeQuorumRequest {
    let partitions = vec![PartitionData { partition_index }];
    DescribeQuorumRequest { topics: vec![TopicData { topic_name: topic.into(), partitions }] }
}

#[tokio::test]
async fn the_metadata_has_one_voter_who_keeps_up_with_itself() {
    let rig = Rig::start();
    let mut raw = rig.raw().await;
    let before = raw.ask(&quorum("__cluster_metadata", 0)).await.topics[0].partitions[0].high_watermark;
    raw.topic("t", 1).await;
    for version in 0..=2 {
        let response = raw.call(version, &quorum("__cluster_metadata", 0)).await;
        let described = &response.topics[0].partitions[0];
        assert_eq!((response.error_code, described.error_code, described.leader_id), (0, 0, 1));
        assert!(described.high_watermark > before, "a topic more is a change of the metadata");
        let voters: Vec<_> =
            described.current_voters.iter().map(|v| (v.replica_id, v.log_end_offset)).collect();
        assert_eq!(voters, [(1, described.high_watermark)]);
        if version == 2 {
            let listener = &response.nodes[0].listeners[0];
            assert_eq!((&*listener.host, listener.port as u16), ("127.0.0.1", rig.address.port()));
        }
    }
    for (topic, partition) in [("t", 0), ("__cluster_metadata", 1)] {
        let refused = raw.ask(&quorum(topic, partition)).await;
        assert_code(refused.topics[0].partitions[0].error_code, ErrorCode::UnknownTopicOrPartition);
    }
}

async fn reassign(raw: &mut Raw, topic: &str, partition_index: i32, replicas: Option<Vec<i32>>) -> i16 {
    let partitions = vec![ReassignablePartition { partition_index, replicas }];
    let topics = vec![ReassignableTopic { name: topic.into(), partitions }];
    let response = raw.ask(&AlterPartitionReassignmentsRequest { topics, ..Default::default() }).await;
    assert_eq!(response.error_code, 0);
    response.responses[0].partitions[0].error_code
}

#[tokio::test]
async fn a_partition_can_only_be_moved_to_where_it_is() {
    let rig = Rig::start();
    let mut raw = rig.raw().await;
    raw.topic("t", 1).await;
    assert_code(reassign(&mut raw, "t", 0, Some(vec![1])).await, ErrorCode::None);
    for elsewhere in [vec![2], vec![1, 2], vec![1, 1], vec![]] {
        assert_code(reassign(&mut raw, "t", 0, Some(elsewhere)).await, ErrorCode::InvalidReplicaAssignment);
    }
    assert_code(reassign(&mut raw, "t", 0, None).await, ErrorCode::NoReassignmentInProgress);
    assert_code(reassign(&mut raw, "t", 1, Some(vec![1])).await, ErrorCode::UnknownTopicOrPartition);
    assert_code(reassign(&mut raw, "nowhere", 0, Some(vec![1])).await, ErrorCode::UnknownTopicOrPartition);
    let moving = raw.ask(&ListPartitionReassignmentsRequest::default()).await;
    assert_eq!((moving.error_code, moving.topics.len()), (0, 0));
}

async fn move_to(raw: &mut Raw, path: &str, topic: &str, partition: i32) -> i16 {
    let topics = vec![AlterReplicaLogDirTopic { name: topic.into(), partitions: vec![partition] }];
    let dirs = vec![AlterReplicaLogDir { path: path.into(), topics }];
    let response = raw.ask(&AlterReplicaLogDirsRequest { dirs }).await;
    response.results[0].partitions[0].error_code
}

#[tokio::test]
async fn a_partition_can_only_be_in_the_directory_there_is() {
    let rig = Rig::start();
    let mut raw = rig.raw().await;
    raw.topic("t", 1).await;
    let dirs = raw.ask(&DescribeLogDirsRequest { topics: None }).await;
    let dir = dirs.results[0].log_dir.to_string();
    assert!(!dirs.results[0].is_cordoned);
    assert_code(move_to(&mut raw, &dir, "t", 0).await, ErrorCode::None);
    assert_code(move_to(&mut raw, "/nowhere", "t", 0).await, ErrorCode::LogDirNotFound);
    assert_code(move_to(&mut raw, &dir, "t", 1).await, ErrorCode::UnknownTopicOrPartition);
    assert_code(move_to(&mut raw, &dir, "nowhere", 0).await, ErrorCode::UnknownTopicOrPartition);
}

async fn resources(raw: &mut Raw, version: i16, resource_types: Vec<i8>) -> Vec<(String, i8)> {
    let response = raw.call(version, &ListConfigResourcesRequest { resource_types }).await;
    assert_eq!(response.error_code, 0);
    let mut all: Vec<_> =
        response.config_resources.iter().map(|r| (r.resource_name.to_string(), r.resource_type)).collect();
    all.sort();
    all
}

#[tokio::test]
async fn topics_and_brokers_have_settings() {
    let rig = Rig::start();
    let mut raw = rig.raw().await;
    raw.topic("t", 1).await;
    let [internal, topic] = ["__consumer_offsets", "t"].map(|name| (name.to_owned(), 2));
    let broker = ("1".to_owned(), 4);
    let all = [broker.clone(), internal.clone(), topic.clone()];
    assert_eq!(resources(&mut raw, 1, vec![]).await, all);
    assert_eq!(resources(&mut raw, 1, vec![2]).await, [internal, topic]);
    assert_eq!(resources(&mut raw, 1, vec![4, 32]).await, [broker]);
    assert_eq!(resources(&mut raw, 1, vec![8, 16, 32]).await, []);
    assert_eq!(resources(&mut raw, 0, vec![]).await, [], "client metrics only");
    let refused = raw.ask(&ListConfigResourcesRequest { resource_types: vec![2, 3] }).await;
    assert_code(refused.error_code, ErrorCode::UnsupportedVersion);
}

//! Topics that Kafka keeps for itself: one is there from the start, and no client makes, changes or writes to any.

use sabir_kafka::wire::ErrorCode;
use sabir_kafka::wire::messages::alter_configs::{
    AlterConfigsRequest, AlterConfigsResource, AlterableConfig as Replaced,
};
use sabir_kafka::wire::messages::create_partitions::{CreatePartitionsRequest, CreatePartitionsTopic};
use sabir_kafka::wire::messages::create_topics::{CreatableTopicResult, CreateTopicsRequest};
use sabir_kafka::wire::messages::delete_records::{
    DeleteRecordsPartition, DeleteRecordsRequest, DeleteRecordsTopic,
};
use sabir_kafka::wire::messages::delete_topics::{DeleteTopicState, DeleteTopicsRequest};
use sabir_kafka::wire::messages::describe_configs::{DescribeConfigsRequest, DescribeConfigsResource};
use sabir_kafka::wire::messages::describe_topic_partitions::{
    DescribeTopicPartitionsRequest, DescribeTopicPartitionsResponseTopic, TopicRequest,
};
use sabir_kafka::wire::messages::incremental_alter_configs::{
    AlterConfigsResource as Altered, AlterableConfig, IncrementalAlterConfigsRequest,
};
use sabir_kafka::wire::messages::list_offsets::{ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic};
use sabir_kafka::wire::messages::metadata::{MetadataRequest, MetadataRequestTopic, MetadataResponseTopic};

use crate::rig::{Raw, Rig, Setup, assert_code, batch, creatable, produce_request};

const OFFSETS: &str = "__consumer_offsets";
const METADATA: &str = "__cluster_metadata";
/// Those that are never there.
const OTHERS: [&str; 3] = ["__transaction_state", "__share_group_state", METADATA];

async fn ask_for(raw: &mut Raw, version: i16, name: &str, create: bool) -> MetadataResponseTopic {
    let topic = MetadataRequestTopic { name: Some(name.into()), ..Default::default() };
    let topics = Some(vec![topic]);
    let request = MetadataRequest { topics, allow_auto_topic_creation: create, ..Default::default() };
    raw.call(version, &request).await.topics.remove(0)
}

async fn names(raw: &mut Raw) -> Vec<(String, bool, usize)> {
    let topics = raw.ask(&MetadataRequest::default()).await.topics;
    let mut names: Vec<_> = topics
        .iter()
        .map(|t| (t.name.as_ref().unwrap().to_string(), t.is_internal, t.partitions.len()))
        .collect();
    names.sort();
    names
}

async fn create(raw: &mut Raw, name: &str, validate_only: bool) -> CreatableTopicResult {
    let topics = vec![creatable(name, 1, &[])];
    raw.ask(&CreateTopicsRequest { topics, validate_only, ..Default::default() }).await.topics.remove(0)
}

async fn describe(raw: &mut Raw, name: &str) -> DescribeTopicPartitionsResponseTopic {
    let topics = vec![TopicRequest { name: name.into() }];
    let request =
        DescribeTopicPartitionsRequest { topics, response_partition_limit: 10, ..Default::default() };
    raw.ask(&request).await.topics.remove(0)
}

#[tokio::test]
async fn the_topic_of_positions_is_there_from_the_start_and_empty() {
    let rig = Rig::with(Setup { kafka: r#"{"auto_create": false}"#, ..Setup::default() });
    let mut raw = rig.raw().await;
    let asked = ListOffsetsPartition { timestamp: -1, ..Default::default() };
    let topic = ListOffsetsTopic { name: OFFSETS.into(), partitions: vec![asked] };
    // The first request of all.
    let end = raw.ask(&ListOffsetsRequest { topics: vec![topic], ..Default::default() }).await;
    let end = &end.topics[0].partitions[0];
    assert_eq!((end.error_code, end.offset), (0, 0));
    for version in 0..=13 {
        let shown = ask_for(&mut raw, version, OFFSETS, false).await;
        assert_eq!((shown.error_code, shown.partitions.len()), (0, 1), "{version}");
        assert_eq!(shown.is_internal, version >= 1, "{version}");
    }
    let described = describe(&mut raw, OFFSETS).await;
    assert_eq!((described.error_code, described.is_internal, described.partitions.len()), (0, true, 1));
    let resource =
        DescribeConfigsResource { resource_type: 2, resource_name: OFFSETS.into(), ..Default::default() };
    let request = DescribeConfigsRequest { resources: vec![resource], ..Default::default() };
    assert_eq!(raw.ask(&request).await.results[0].error_code, 0);
    assert_eq!(names(&mut raw).await, [(OFFSETS.into(), true, 1)]);
}

#[tokio::test]
async fn no_client_makes_an_internal_topic() {
    let rig = Rig::start();
    let mut raw = rig.raw().await;
    let there = create(&mut raw, OFFSETS, false).await;
    assert_code(there.error_code, ErrorCode::TopicAlreadyExists);
    for name in OTHERS {
        for validate_only in [false, true] {
            let refused = create(&mut raw, name, validate_only).await;
            assert_code(refused.error_code, ErrorCode::InvalidRequest);
            let message = refused.error_message.unwrap();
            assert_eq!(message.as_str(), format!("Creation of internal topic {name} is prohibited."));
        }
        for version in [1, 3, 4, 9, 13] {
            let shown = ask_for(&mut raw, version, name, true).await;
            assert_code(shown.error_code, ErrorCode::UnknownTopicOrPartition);
            assert_eq!(shown.is_internal, name != METADATA, "{name}");
        }
        let described = describe(&mut raw, name).await;
        assert_code(described.error_code, ErrorCode::UnknownTopicOrPartition);
        assert_eq!(described.is_internal, name != METADATA, "{name}");
        let answer = raw.produce(name, 0, batch(&["x"])).await;
        assert_code(answer.error_code, ErrorCode::UnknownTopicOrPartition);
    }
    assert_eq!(names(&mut raw).await, [(OFFSETS.into(), true, 1)]);
}

#[tokio::test]
async fn no_client_changes_the_topic_of_positions_or_writes_to_it() {
    let rig = Rig::start();
    let mut raw = rig.raw().await;
    let id = raw.topic_id(OFFSETS).await;
    let invalid = ErrorCode::InvalidTopic;
    for version in [3, 12] {
        let answer = raw.call(version, &produce_request(-1, OFFSETS, 0, batch(&["x"]))).await;
        assert_code(answer.responses[0].partition_responses[0].error_code, invalid);
    }
    let mut by_id = produce_request(-1, "", 0, batch(&["x"]));
    by_id.topic_data[0].topic_id = id;
    let answer = raw.call(13, &by_id).await;
    assert_code(answer.responses[0].partition_responses[0].error_code, invalid);

    let partitions = vec![DeleteRecordsPartition { partition_index: 0, offset: -1 }];
    let topics = vec![DeleteRecordsTopic { name: OFFSETS.into(), partitions }];
    let answer = raw.ask(&DeleteRecordsRequest { topics, timeout_ms: 1000 }).await;
    assert_code(answer.topics[0].partitions[0].error_code, invalid);

    let by_name = DeleteTopicState { name: Some(OFFSETS.into()), ..Default::default() };
    for topic in [by_name, DeleteTopicState { name: None, topic_id: id }] {
        let request = DeleteTopicsRequest { topics: vec![topic], timeout_ms: 1000, ..Default::default() };
        assert_code(raw.ask(&request).await.responses[0].error_code, invalid);
    }
    let topics = vec![CreatePartitionsTopic { name: OFFSETS.into(), count: 5, assignments: None }];
    let request = CreatePartitionsRequest { topics, timeout_ms: 1000, validate_only: false };
    assert_code(raw.ask(&request).await.results[0].error_code, invalid);

    let value = Some("1000".into());
    let configs =
        vec![AlterableConfig { name: "retention.ms".into(), config_operation: 0, value: value.clone() }];
    let resources = vec![Altered { resource_type: 2, resource_name: OFFSETS.into(), configs }];
    let request = IncrementalAlterConfigsRequest { resources, ..Default::default() };
    assert_code(raw.ask(&request).await.responses[0].error_code, invalid);
    let configs = vec![Replaced { name: "retention.ms".into(), value }];
    let resources = vec![AlterConfigsResource { resource_type: 2, resource_name: OFFSETS.into(), configs }];
    let request = AlterConfigsRequest { resources, ..Default::default() };
    assert_code(raw.ask(&request).await.responses[0].error_code, invalid);
    assert_eq!(names(&mut raw).await, [(OFFSETS.into(), true, 1)]);
}

//! What versions are said to be served, and that they are.

use sabir_kafka::wire::api::SUPPORTED;
use sabir_kafka::wire::messages::api_versions::{ApiVersionsRequest, ApiVersionsResponse};
use sabir_kafka::wire::messages::fetch::{FetchPartition, FetchRequest, FetchTopic};
use sabir_kafka::wire::messages::list_offsets::{ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic};
use sabir_kafka::wire::messages::metadata::{MetadataRequest, MetadataRequestTopic};
use sabir_kafka::wire::messages::offset_commit::{
    OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use sabir_kafka::wire::messages::offset_fetch::{
    OffsetFetchRequest, OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
};
use sabir_kafka::wire::{ApiKey, ErrorCode, Reader};

use crate::rig::{Raw, Rig, assert_code, batch, produce_request};

fn named() -> ApiVersionsRequest {
    ApiVersionsRequest { client_software_name: "test".into(), client_software_version: "1.0".into() }
}

#[tokio::test]
async fn every_version_of_api_versions_lists_what_is_served() {
    let rig = Rig::start();
    let mut raw = rig.raw().await;
    for version in 0..=4 {
        let response = raw.call(version, &named()).await;
        assert_eq!(response.error_code, 0);
        let listed: Vec<_> =
            response.api_keys.iter().map(|k| (k.api_key, k.min_version, k.max_version)).collect();
        let served: Vec<_> = SUPPORTED.iter().map(|&(key, min, max)| (key as i16, min, max)).collect();
        assert_eq!(listed, served);
    }
}

/// librdkafka compresses nothing for a broker that does not list Produce from 0 on.
#[tokio::test]
async fn produce_is_advertised_from_0_and_served_from_3() {
    let rig = Rig::start();
    let mut raw = rig.raw().await;
    let listed = raw.call(0, &ApiVersionsRequest::default()).await.api_keys;
    let produce = listed.iter().find(|k| k.api_key == ApiKey::Produce as i16).unwrap();
    assert_eq!((produce.min_version, produce.max_version), (0, 13));
    raw.topic("t", 1).await;
    for version in 0..=2 {
        let response = raw.call(version, &produce_request(1, "t", 0, batch(&["a"]))).await;
        assert_code(response.responses[0].partition_responses[0].error_code, ErrorCode::UnsupportedVersion);
    }
    for version in 3..=12 {
        let response = raw.call(version, &produce_request(1, "t", 0, batch(&["a"]))).await;
        let answer = &response.responses[0].partition_responses[0];
        assert_eq!((answer.error_code, answer.base_offset), (0, i64::from(version) - 3));
    }
}

#[tokio::test]
async fn an_unknown_version_of_api_versions_is_told_its_own_range_in_the_oldest_form() {
    let rig = Rig::start();
    let mut raw = rig.raw().await;
    // Version 99, correlation id 7, no client id, an empty set of tagged fields, and a body of a form nobody knows.
    raw.write(b"\0\0\0\x10\0\x12\0\x63\0\0\0\x07\xff\xff\0?????").await;
    let frame = raw.receive_frame().await;
    // The header is the correlation id alone, whatever the version.
    assert_eq!(frame[..4], [0, 0, 0, 7]);
    let body = frame.slice(4..);
    let mut reader = Reader::new(&body);
    let response = ApiVersionsResponse::decode(&mut reader, 0).unwrap();
    assert_eq!(reader.remaining(), 0);
    assert_code(response.error_code, ErrorCode::UnsupportedVersion);
    let told: Vec<_> = response.api_keys.iter().map(|k| (k.api_key, k.min_version, k.max_version)).collect();
    assert_eq!(told, [(ApiKey::ApiVersions as i16, 0, 4)]);
    assert_eq!(raw.call(0, &ApiVersionsRequest::default()).await.error_code, 0, "the connection goes on");
}

#[tokio::test]
async fn a_client_that_does_not_name_itself_properly_is_told_so() {
    let rig = Rig::start();
    let mut raw = rig.raw().await;
    for (name, version) in [("", "1"), ("a b", "1"), ("a", ""), ("-a", "1"), ("a", "1.")] {
        let request =
            ApiVersionsRequest { client_software_name: name.into(), client_software_version: version.into() };
        assert_code(raw.call(3, &request).await.error_code, ErrorCode::InvalidRequest);
    }
}

async fn topic_id_of(raw: &mut Raw, version: i16, name: &str) -> [u8; 16] {
    let topic = MetadataRequestTopic { name: Some(name.into()), ..Default::default() };
    let request = MetadataRequest { topics: Some(vec![topic]), ..Default::default() };
    let response = raw.call(version, &request).await;
    assert_eq!(response.topics[0].error_code, 0);
    assert_eq!(response.topics[0].name.as_deref(), Some(name));
    response.topics[0].topic_id
}

#[tokio::test]
async fn topics_have_real_ids_by_which_they_are_written_and_read() {
    let rig = Rig::start();
    let mut raw = rig.raw().await;
    let id = raw.topic("t", 1).await;
    assert_ne!(id, [0; 16]);
    for version in 10..=13 {
        assert_eq!(topic_id_of(&mut raw, version, "t").await, id);
    }
    let by_id = MetadataRequestTopic { topic_id: id, ..Default::default() };
    let found = raw.ask(&MetadataRequest { topics: Some(vec![by_id]), ..Default::default() }).await;
    assert_eq!(found.topics[0].name.as_deref(), Some("t"));

    let mut request = produce_request(-1, "", 0, batch(&["a"]));
    request.topic_data[0].topic_id = id;
    let produced = raw.call(13, &request).await;
    assert_eq!(produced.responses[0].topic_id, id);
    assert_eq!(produced.responses[0].partition_responses[0].error_code, 0);
    request.topic_data[0].topic_id = [7; 16];
    let unknown = raw.call(13, &request).await;
    assert_code(unknown.responses[0].partition_responses[0].error_code, ErrorCode::UnknownTopicId);

    let fetch = |topic_id| FetchRequest {
        max_wait_ms: 0,
        session_epoch: -1,
        topics: vec![FetchTopic {
            topic_id,
            partitions: vec![FetchPartition { partition_max_bytes: 1000, ..Default::default() }],
            ..Default::default()
        }],
        ..Default::default()
    };
    for version in 13..=18 {
        let fetched = raw.call(version, &fetch(id)).await;
        assert_eq!(fetched.responses[0].topic_id, id);
        assert!(!fetched.responses[0].partitions[0].records.as_ref().unwrap().is_empty());
        let unknown = raw.call(version, &fetch([7; 16])).await;
        assert_code(unknown.responses[0].partitions[0].error_code, ErrorCode::UnknownTopicId);
    }

    let commit = |topic_id| OffsetCommitRequest {
        group_id: "g".into(),
        topics: vec![OffsetCommitRequestTopic {
            topic_id,
            partitions: vec![OffsetCommitRequestPartition { committed_offset: 1, ..Default::default() }],
            ..Default::default()
        }],
        ..Default::default()
    };
    let committed = raw.call(10, &commit(id)).await;
    assert_eq!(committed.topics[0].topic_id, id);
    assert_eq!(committed.topics[0].partitions[0].error_code, 0);
    let unknown = raw.call(10, &commit([7; 16])).await;
    assert_code(unknown.topics[0].partitions[0].error_code, ErrorCode::UnknownTopicId);

    let asked =
        |topic_id| OffsetFetchRequestTopics { topic_id, partition_indexes: vec![0], ..Default::default() };
    let group = OffsetFetchRequestGroup {
        group_id: "g".into(),
        topics: Some(vec![asked(id), asked([7; 16])]),
        ..Default::default()
    };
    let offsets = raw.call(10, &OffsetFetchRequest { groups: vec![group], ..Default::default() }).await;
    let topics = &offsets.groups[0].topics;
    assert_eq!((topics[0].topic_id, topics[0].partitions[0].committed_offset), (id, 1));
    assert_code(topics[1].partitions[0].error_code, ErrorCode::UnknownTopicId);
}

#[tokio::test]
async fn every_version_of_the_data_apis_answers() {
    let rig = Rig::start();
    let mut raw = rig.raw().await;
    raw.topic("t", 1).await;
    raw.put("t", 0, &["a", "b", "c"]).await;
    for version in 0..=13 {
        let topic = MetadataRequestTopic { name: Some("t".into()), ..Default::default() };
        let request = MetadataRequest { topics: Some(vec![topic]), ..Default::default() };
        let response = raw.call(version, &request).await;
        assert_eq!((response.brokers.len(), response.topics[0].partitions.len()), (1, 1), "{version}");
        let all = MetadataRequest { topics: (version == 0).then(Vec::new), ..Default::default() };
        assert_eq!(raw.call(version, &all).await.topics.len(), 2, "{version}");
    }
    for version in 4..=12 {
        let request = FetchRequest {
            max_wait_ms: 0,
            session_epoch: -1,
            topics: vec![FetchTopic {
                topic: "t".into(),
                partitions: vec![FetchPartition { partition_max_bytes: 1000, ..Default::default() }],
                ..Default::default()
            }],
            ..Default::default()
        };
        let response = raw.call(version, &request).await;
        let partition = &response.responses[0].partitions[0];
        assert_eq!((partition.error_code, partition.high_watermark), (0, 3), "{version}");
        assert!(!partition.records.as_ref().unwrap().is_empty(), "{version}");
    }
    for version in 1..=11 {
        let partition = ListOffsetsPartition { timestamp: -1, ..Default::default() };
        let topic = ListOffsetsTopic { name: "t".into(), partitions: vec![partition] };
        let response =
            raw.call(version, &ListOffsetsRequest { topics: vec![topic], ..Default::default() }).await;
        let partition = &response.topics[0].partitions[0];
        assert_eq!((partition.error_code, partition.offset), (0, 3), "{version}");
    }
    for version in 2..=9 {
        let partition = OffsetCommitRequestPartition {
            committed_offset: version.into(),
            committed_metadata: Some("note".into()),
            ..Default::default()
        };
        let topic =
            OffsetCommitRequestTopic { name: "t".into(), partitions: vec![partition], ..Default::default() };
        let request = OffsetCommitRequest { group_id: "g".into(), topics: vec![topic], ..Default::default() };
        let response = raw.call(version, &request).await;
        assert_eq!(response.topics[0].partitions[0].error_code, 0, "{version}");
        let (offset, metadata) = committed(&mut raw, version).await;
        assert_eq!((offset, metadata.as_deref()), (i64::from(version), Some("note")), "{version}");
    }
}

/// Reads the group's position back in the version that goes with one of OffsetCommit.
async fn committed(raw: &mut Raw, version: i16) -> (i64, Option<sabir_kafka::wire::Str>) {
    if version < 8 {
        let topic = OffsetFetchRequestTopic { name: "t".into(), partition_indexes: vec![0] };
        let request =
            OffsetFetchRequest { group_id: "g".into(), topics: Some(vec![topic]), ..Default::default() };
        let response = raw.call(version - 1, &request).await;
        let partition = &response.topics[0].partitions[0];
        return (partition.committed_offset, partition.metadata.clone());
    }
    let topic =
        OffsetFetchRequestTopics { name: "t".into(), partition_indexes: vec![0], ..Default::default() };
    let group =
        OffsetFetchRequestGroup { group_id: "g".into(), topics: Some(vec![topic]), ..Default::default() };
    let request = OffsetFetchRequest { groups: vec![group], ..Default::default() };
    let response = raw.call(version, &request).await;
    let partition = &response.groups[0].topics[0].partitions[0];
    (partition.committed_offset, partition.metadata.clone())
}

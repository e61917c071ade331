//! What is not committed is shown to no client, by whatever way it asks; what is cut leaves no trace.

use std::time::Duration;

use bytes::Bytes;
use sabir_kafka::wire::ErrorCode;
use sabir_kafka::wire::messages::fetch::{FetchPartition, FetchRequest, FetchTopic, PartitionData};
use sabir_kafka::wire::messages::list_offsets::{
    EARLIEST_TIMESTAMP, LATEST_TIMESTAMP, ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic,
    MAX_TIMESTAMP,
};
use sabir_kafka::wire::messages::offset_commit::{
    OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use sabir_kafka::wire::messages::offset_fetch::{
    OffsetFetchRequest, OffsetFetchRequestGroup, OffsetFetchRequestTopics,
};
use sabir_kafka::wire::messages::offset_for_leader_epoch::{
    OffsetForLeaderEpochRequest, OffsetForLeaderPartition, OffsetForLeaderTopic,
};
use sabir_kafka::wire::messages::produce::{PartitionProduceResponse, ProduceRequest};
use sabir_model::ShardId;

use crate::rig::{PATIENCE, Raw, Rig, Setup, assert_code, batch, now_ms, produce_request};

/// Where the partitions and groups of one data shard live.
const DATA: ShardId = ShardId(1);

async fn start() -> (Rig, Raw) {
    let rig = Rig::with(Setup { late: true, ..Setup::default() });
    let mut raw = rig.raw().await;
    raw.topic("t", 1).await;
    assert_eq!(raw.put("t", 0, &["kept"]).await, 0);
    (rig, raw)
}

impl Rig {
    fn hold(&self) {
        self.commits.as_ref().unwrap().hold();
    }

    fn release(&self) {
        self.commits.as_ref().unwrap().release();
    }

    async fn until_something_is_held(&self) {
        let commits = self.commits.as_ref().unwrap();
        let wait = async {
            while !commits.is_holding(&self.broker, DATA) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(PATIENCE, wait).await.unwrap();
    }
}

async fn produced(raw: &mut Raw, correlation: i32) -> PartitionProduceResponse {
    raw.receive::<ProduceRequest>(12, correlation).await.responses.remove(0).partition_responses.remove(0)
}

async fn listed(raw: &mut Raw, timestamp: i64) -> i64 {
    let partition = ListOffsetsPartition { timestamp, ..Default::default() };
    let topic = ListOffsetsTopic { name: "t".into(), partitions: vec![partition] };
    let response = raw.ask(&ListOffsetsRequest { topics: vec![topic], ..Default::default() }).await;
    assert_eq!(response.topics[0].partitions[0].error_code, 0);
    response.topics[0].partitions[0].offset
}

/// The bytes that a fetch of one partition brings.
pub async fn fetched_from(raw: &mut Raw, topic: &str, offset: i64) -> Bytes {
    fetch(raw, topic, offset, 0).await.records.unwrap().to_bytes()
}

async fn fetched(raw: &mut Raw, offset: i64, max_wait_ms: i32) -> PartitionData {
    fetch(raw, "t", offset, max_wait_ms).await
}

async fn fetch(raw: &mut Raw, topic: &str, offset: i64, max_wait_ms: i32) -> PartitionData {
    let partition =
        FetchPartition { fetch_offset: offset, partition_max_bytes: 1 << 20, ..Default::default() };
    let topic = FetchTopic { topic: topic.into(), partitions: vec![partition], ..Default::default() };
    let request = FetchRequest {
        max_wait_ms,
        min_bytes: 1,
        max_bytes: 1 << 20,
        topics: vec![topic],
        ..Default::default()
    };
    raw.call(12, &request).await.responses.remove(0).partitions.remove(0)
}

async fn end_of_epoch(raw: &mut Raw, leader_epoch: i32) -> i64 {
    let partition = OffsetForLeaderPartition { leader_epoch, ..Default::default() };
    let topic = OffsetForLeaderTopic { topic: "t".into(), partitions: vec![partition] };
    let request = OffsetForLeaderEpochRequest { topics: vec![topic], ..Default::default() };
    raw.ask(&request).await.topics[0].partitions[0].end_offset
}

fn commit_request(offset: i64) -> OffsetCommitRequest {
    let partition = OffsetCommitRequestPartition { committed_offset: offset, ..Default::default() };
    let topic =
        OffsetCommitRequestTopic { name: "t".into(), partitions: vec![partition], ..Default::default() };
    OffsetCommitRequest { group_id: "g".into(), topics: vec![topic], ..Default::default() }
}

async fn committed(raw: &mut Raw) -> i64 {
    let topic =
        OffsetFetchRequestTopics { name: "t".into(), partition_indexes: vec![0], ..Default::default() };
    let group =
        OffsetFetchRequestGroup { group_id: "g".into(), topics: Some(vec![topic]), ..Default::default() };
    let request = OffsetFetchRequest { groups: vec![group], require_stable: true, ..Default::default() };
    raw.call(9, &request).await.groups[0].topics[0].partitions[0].committed_offset
}

#[tokio::test]
async fn no_request_finds_an_offset_that_is_not_durable() {
    let (rig, mut writer) = start().await;
    let mut reader = rig.raw().await;
    let epoch = fetched(&mut reader, 0, 0).await;
    assert_eq!(epoch.high_watermark, 1);
    let before = listed(&mut reader, MAX_TIMESTAMP).await;
    rig.hold();
    tokio::time::sleep(Duration::from_millis(5)).await;
    let written = now_ms();
    let correlation = writer.send(12, &produce_request(-1, "t", 0, batch(&["a", "b"]))).await;
    rig.until_something_is_held().await;

    let at_end = fetched(&mut reader, 1, 50).await;
    assert_eq!((at_end.error_code, at_end.high_watermark, at_end.last_stable_offset), (0, 1, 1));
    assert!(at_end.records.is_none_or(|records| records.is_empty()));
    let beyond = fetched(&mut reader, 2, 0).await;
    assert_code(beyond.error_code, ErrorCode::OffsetOutOfRange);
    assert_eq!(listed(&mut reader, EARLIEST_TIMESTAMP).await, 0);
    assert_eq!(listed(&mut reader, LATEST_TIMESTAMP).await, 1);
    assert_eq!(listed(&mut reader, MAX_TIMESTAMP).await, before);
    assert_eq!(listed(&mut reader, written).await, -1, "no record is that young");
    assert_eq!(end_of_epoch(&mut reader, 1).await, 1);

    rig.release();
    let answer = produced(&mut writer, correlation).await;
    assert_eq!((answer.error_code, answer.base_offset), (0, 1));
    assert_eq!(listed(&mut reader, written).await, 1);
    assert_eq!(listed(&mut reader, LATEST_TIMESTAMP).await, 3);
    assert_eq!(fetched(&mut reader, 1, 0).await.high_watermark, 3);
}

#[tokio::test]
async fn a_position_is_seen_once_it_is_committed_for_good() {
    let (rig, mut writer) = start().await;
    let mut reader = rig.raw().await;
    assert_eq!(writer.call(9, &commit_request(1)).await.topics[0].partitions[0].error_code, 0);
    rig.hold();
    let correlation = writer.send(9, &commit_request(7)).await;
    rig.until_something_is_held().await;
    assert_eq!(committed(&mut reader).await, 1);
    rig.release();
    let answer = writer.receive::<OffsetCommitRequest>(9, correlation).await;
    assert_eq!(answer.topics[0].partitions[0].error_code, 0);
    assert_eq!(committed(&mut reader).await, 7);
}

#[tokio::test]
async fn what_is_cut_is_told_and_its_offsets_are_given_again() {
    let (rig, mut writer) = start().await;
    let mut reader = rig.raw().await;
    rig.hold();
    let cut = writer.send(12, &produce_request(-1, "t", 0, batch(&["cut"]))).await;
    rig.until_something_is_held().await;
    let commits = rig.commits.clone().unwrap();
    tokio::task::spawn_blocking(move || commits.cut(DATA)).await.unwrap();
    assert_code(produced(&mut writer, cut).await.error_code, ErrorCode::NotLeaderOrFollower);
    assert_eq!(listed(&mut reader, LATEST_TIMESTAMP).await, 1);
    rig.release();
    assert_eq!(writer.put("t", 0, &["next"]).await, 1);
    let all = fetched(&mut reader, 0, 0).await;
    assert_eq!(all.high_watermark, 2);
    let bytes = all.records.unwrap().to_bytes();
    let text = String::from_utf8_lossy(&bytes);
    assert!(text.contains("kept") && text.contains("next") && !text.contains("cut"));
}

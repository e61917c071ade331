//! Requests that say how long they are waited for, asked of a broker whose disk takes longer.

use std::time::{Duration, Instant};

use sabir_kafka::wire::ErrorCode;
use sabir_kafka::wire::messages::create_partitions::{CreatePartitionsRequest, CreatePartitionsTopic};
use sabir_kafka::wire::messages::create_topics::CreateTopicsRequest;
use sabir_kafka::wire::messages::delete_groups::DeleteGroupsRequest;
use sabir_kafka::wire::messages::delete_records::{
    DeleteRecordsPartition, DeleteRecordsRequest, DeleteRecordsTopic,
};
use sabir_kafka::wire::messages::delete_topics::{DeleteTopicState, DeleteTopicsRequest};
use sabir_kafka::wire::messages::incremental_alter_configs::{
    AlterConfigsResource, AlterableConfig, IncrementalAlterConfigsRequest,
};
use sabir_kafka::wire::messages::init_producer_id::InitProducerIdRequest;
use sabir_kafka::wire::messages::join_group::{JoinGroupRequest, JoinGroupRequestProtocol};
use sabir_kafka::wire::messages::metadata::{MetadataRequest, MetadataRequestTopic};
use sabir_kafka::wire::messages::offset_commit::{
    OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use sabir_kafka::wire::messages::offset_delete::{
    OffsetDeleteRequest, OffsetDeleteRequestPartition, OffsetDeleteRequestTopic,
};
use sabir_kafka::wire::messages::produce::ProduceRequest;
use sabir_kafka::wire::messages::sync_group::{SyncGroupRequest, SyncGroupRequestAssignment};
use sabir_model::ProducerId;
use sabir_model::batch::{BatchBuilder, Compression};

use crate::rig::{PATIENCE, Raw, Rig, Setup, assert_code, batch, batch_with, creatable, produce_request};

/// Longer than what is granted to every request.
const TIMEOUT_MS: i32 = 1200;

fn late() -> Rig {
    Rig::with(Setup { late: true, ..Setup::default() })
}

#[tokio::test]
async fn a_producer_that_waits_no_longer_is_told_and_may_send_again() {
    let rig = late();
    let mut raw = rig.raw().await;
    raw.topic("t", 1).await;
    let id = raw.ask(&InitProducerIdRequest::default()).await.producer_id;
    let numbered = batch_with(BatchBuilder::new(Compression::None).producer(ProducerId(id), 0, 0), &["a"]);
    rig.commits.as_ref().unwrap().hold();
    let began = Instant::now();
    let timeout =
        |timeout_ms, acks| ProduceRequest { timeout_ms, ..produce_request(acks, "t", 0, numbered.clone()) };
    let long = raw.send(12, &timeout(TIMEOUT_MS, -1)).await;
    let short = raw.send(12, &timeout(0, 1)).await;
    for correlation in [long, short] {
        let response = raw.receive::<ProduceRequest>(12, correlation).await;
        assert_code(response.responses[0].partition_responses[0].error_code, ErrorCode::RequestTimedOut);
        assert_eq!(response.responses[0].partition_responses[0].base_offset, -1);
        assert!(began.elapsed() >= Duration::from_millis(TIMEOUT_MS as u64), "{:?}", began.elapsed());
    }
    rig.commits.as_ref().unwrap().release();
    let again = raw.call(12, &timeout(10_000, -1)).await;
    let again = &again.responses[0].partition_responses[0];
    assert_eq!((again.error_code, again.base_offset), (0, 0), "it was taken, and is there once");
    assert_eq!(raw.put("t", 0, &["b"]).await, 1);
}

#[tokio::test]
async fn who_wants_no_answer_is_not_closed_for_waiting() {
    let rig = late();
    let mut raw = rig.raw().await;
    raw.topic("t", 1).await;
    rig.commits.as_ref().unwrap().hold();
    let request = ProduceRequest { timeout_ms: 1, ..produce_request(0, "t", 0, batch(&["a"])) };
    raw.send(12, &request).await;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    rig.commits.as_ref().unwrap().release();
    assert_eq!(raw.put("t", 0, &["b"]).await, 1);
}

#[tokio::test]
async fn changes_of_topics_and_records_time_out_and_go_on() {
    let rig = late();
    let mut raw = rig.raw().await;
    for name in ["deleted", "grown", "shortened"] {
        raw.topic(name, 1).await;
    }
    raw.put("shortened", 0, &["a", "b"]).await;
    rig.commits.as_ref().unwrap().hold();
    let mut raws = [rig.raw().await, rig.raw().await, rig.raw().await, rig.raw().await];
    let [a, b, c, d] = &mut raws;
    let create = CreateTopicsRequest {
        topics: vec![creatable("made", 1, &[]), creatable("grown", 1, &[])],
        timeout_ms: TIMEOUT_MS,
        ..Default::default()
    };
    let state = DeleteTopicState { name: Some("deleted".into()), ..Default::default() };
    let delete = DeleteTopicsRequest { topics: vec![state], timeout_ms: TIMEOUT_MS, ..Default::default() };
    let topic = CreatePartitionsTopic { name: "grown".into(), count: 3, ..Default::default() };
    let grow = CreatePartitionsRequest { topics: vec![topic], timeout_ms: TIMEOUT_MS, ..Default::default() };
    let shorten = DeleteRecordsRequest {
        topics: vec![DeleteRecordsTopic {
            name: "shortened".into(),
            partitions: vec![DeleteRecordsPartition { partition_index: 0, offset: 1 }],
        }],
        timeout_ms: TIMEOUT_MS,
    };
    let (created, deleted, grown, shortened) =
        tokio::join!(a.ask(&create), b.ask(&delete), c.ask(&grow), d.ask(&shorten));
    assert_code(created.topics[0].error_code, ErrorCode::RequestTimedOut);
    assert_code(created.topics[1].error_code, ErrorCode::TopicAlreadyExists);
    assert_code(deleted.responses[0].error_code, ErrorCode::RequestTimedOut);
    assert_code(grown.results[0].error_code, ErrorCode::RequestTimedOut);
    let shortened = &shortened.topics[0].partitions[0];
    assert_code(shortened.error_code, ErrorCode::RequestTimedOut);
    assert_eq!(shortened.low_watermark, -1);

    rig.commits.as_ref().unwrap().release();
    let began = Instant::now();
    loop {
        let all = raw.ask(&MetadataRequest { topics: None, ..Default::default() }).await;
        let mut shown: Vec<_> =
            all.topics.iter().map(|t| (t.name.as_deref().unwrap().to_owned(), t.partitions.len())).collect();
        shown.sort_unstable();
        let expected = [("__consumer_offsets", 1), ("grown", 3), ("made", 1), ("shortened", 1)];
        if shown.iter().map(|(name, count)| (name.as_str(), *count)).eq(expected) {
            break;
        }
        assert!(began.elapsed() < PATIENCE, "{shown:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn commit(group: &str) -> OffsetCommitRequest {
    let partition = OffsetCommitRequestPartition { committed_offset: 7, ..Default::default() };
    let topic =
        OffsetCommitRequestTopic { name: "t".into(), partitions: vec![partition], ..Default::default() };
    OffsetCommitRequest { group_id: group.into(), topics: vec![topic], ..Default::default() }
}

fn retention(topics: &[&str], value: &str) -> IncrementalAlterConfigsRequest {
    let resource = |topic: &&str| AlterConfigsResource {
        resource_type: 2,
        resource_name: (*topic).into(),
        configs: vec![AlterableConfig {
            name: "retention.ms".into(),
            value: Some(value.into()),
            ..Default::default()
        }],
    };
    IncrementalAlterConfigsRequest { resources: topics.iter().map(resource).collect(), ..Default::default() }
}

/// The one member of a group, who leads it and has not told its assignment.
async fn leader(raw: &mut Raw, group: &str) -> SyncGroupRequest {
    let protocol = JoinGroupRequestProtocol { name: "range".into(), ..Default::default() };
    let join = JoinGroupRequest {
        group_id: group.into(),
        session_timeout_ms: 30_000,
        rebalance_timeout_ms: 60_000,
        protocol_type: "consumer".into(),
        protocols: vec![protocol],
        ..Default::default()
    };
    let joined = raw.call(3, &join).await;
    assert_eq!(joined.error_code, 0);
    let assignment = SyncGroupRequestAssignment { member_id: joined.member_id.clone(), ..Default::default() };
    SyncGroupRequest {
        group_id: group.into(),
        generation_id: joined.generation_id,
        member_id: joined.member_id,
        assignments: vec![assignment],
        ..Default::default()
    }
}

/// Nothing is waited for for ever whose request says no time.
#[tokio::test]
async fn changes_that_say_no_time_are_told_too() {
    let rig = late();
    let mut raw = rig.raw().await;
    for name in ["t", "u"] {
        raw.topic(name, 1).await;
    }
    for group in ["deleted", "shortened"] {
        assert_eq!(raw.call(9, &commit(group)).await.topics[0].partitions[0].error_code, 0);
    }
    let sync = leader(&mut raw, "g").await;
    rig.commits.as_ref().unwrap().hold();
    let mut raws = Vec::new();
    for _ in 0..7 {
        raws.push(rig.raw().await);
    }
    let [a, b, c, d, e, f, g] = &mut raws[..] else { panic!("seven") };
    let delete = DeleteGroupsRequest { groups_names: vec!["deleted".into()] };
    let partition = OffsetDeleteRequestPartition { partition_index: 0 };
    let topic = OffsetDeleteRequestTopic { name: "t".into(), partitions: vec![partition] };
    let shorten = OffsetDeleteRequest { group_id: "shortened".into(), topics: vec![topic] };
    let new = MetadataRequestTopic { name: Some("new".into()), ..Default::default() };
    let asked =
        MetadataRequest { topics: Some(vec![new]), allow_auto_topic_creation: true, ..Default::default() };
    let (two, one) = (retention(&["t", "u"], "7"), retention(&["u"], "8"));
    let id = InitProducerIdRequest::default();
    let began = Instant::now();
    let (altered, waiting, deleted, shortened, id, made, synced) = tokio::join!(
        a.ask(&two),
        b.ask(&one),
        c.ask(&delete),
        d.ask(&shorten),
        e.ask(&id),
        f.ask(&asked),
        g.ask(&sync)
    );
    // Nothing of it is committed before.
    assert!(began.elapsed() < PATIENCE, "{:?}", began.elapsed());
    for code in altered.responses.iter().chain(&waiting.responses).map(|r| r.error_code) {
        assert_code(code, ErrorCode::RequestTimedOut);
    }
    assert_code(deleted.results[0].error_code, ErrorCode::CoordinatorNotAvailable);
    assert_code(shortened.error_code, ErrorCode::CoordinatorNotAvailable);
    assert_code(id.error_code, ErrorCode::CoordinatorLoadInProgress);
    assert_code(made.topics[0].error_code, ErrorCode::UnknownTopicOrPartition);
    assert_code(synced.error_code, ErrorCode::CoordinatorNotAvailable);

    rig.commits.as_ref().unwrap().release();
    assert_eq!(raw.ask(&sync).await.error_code, 0);
    assert_eq!(raw.ask(&retention(&["t", "u"], "9")).await.responses.len(), 2);
    assert_eq!(raw.ask(&InitProducerIdRequest::default()).await.error_code, 0);
}

/// Members look for their coordinator again, and commit again.
#[tokio::test]
async fn a_commit_of_offsets_that_takes_too_long_is_told() {
    let rig = late();
    let mut raw = rig.raw().await;
    raw.topic("t", 1).await;
    let commit = commit("g");
    rig.commits.as_ref().unwrap().hold();
    let answer = raw.call(9, &commit).await;
    assert_code(answer.topics[0].partitions[0].error_code, ErrorCode::CoordinatorNotAvailable);
    rig.commits.as_ref().unwrap().release();
    assert_eq!(raw.call(9, &commit).await.topics[0].partitions[0].error_code, 0);
}

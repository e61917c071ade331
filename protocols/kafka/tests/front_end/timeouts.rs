//! Requests that say how long they are waited for, asked of a broker whose disk takes longer.

use std::time::{Duration, Instant};

use sabir_kafka::wire::ErrorCode;
use sabir_kafka::wire::messages::create_partitions::{CreatePartitionsRequest, CreatePartitionsTopic};
use sabir_kafka::wire::messages::create_topics::CreateTopicsRequest;
use sabir_kafka::wire::messages::delete_records::{
    DeleteRecordsPartition, DeleteRecordsRequest, DeleteRecordsTopic,
};
use sabir_kafka::wire::messages::delete_topics::{DeleteTopicState, DeleteTopicsRequest};
use sabir_kafka::wire::messages::init_producer_id::InitProducerIdRequest;
use sabir_kafka::wire::messages::metadata::MetadataRequest;
use sabir_kafka::wire::messages::offset_commit::{
    OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use sabir_kafka::wire::messages::produce::ProduceRequest;
use sabir_model::ProducerId;
use sabir_model::batch::{BatchBuilder, Compression};

use crate::rig::{PATIENCE, Rig, Setup, assert_code, batch, batch_with, creatable, produce_request};

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
        let expected = [("grown", 3), ("made", 1), ("shortened", 1)];
        if shown.iter().map(|(name, count)| (name.as_str(), *count)).eq(expected) {
            break;
        }
        assert!(began.elapsed() < PATIENCE, "{shown:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Members look for their coordinator again, and commit again.
#[tokio::test]
async fn a_commit_of_offsets_that_takes_too_long_is_told() {
    let rig = late();
    let mut raw = rig.raw().await;
    raw.topic("t", 1).await;
    let partition = OffsetCommitRequestPartition { committed_offset: 7, ..Default::default() };
    let topic =
        OffsetCommitRequestTopic { name: "t".into(), partitions: vec![partition], ..Default::default() };
    let commit = OffsetCommitRequest { group_id: "g".into(), topics: vec![topic], ..Default::default() };
    rig.commits.as_ref().unwrap().hold();
    let answer = raw.call(9, &commit).await;
    assert_code(answer.topics[0].partitions[0].error_code, ErrorCode::CoordinatorNotAvailable);
    rig.commits.as_ref().unwrap().release();
    assert_eq!(raw.call(9, &commit).await.topics[0].partitions[0].error_code, 0);
}

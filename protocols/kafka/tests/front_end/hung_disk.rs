//! A disk that hangs: a client that writes to its shard waits, and all others go on.

use std::time::{Duration, Instant};

use sabir_kafka::wire::ErrorCode;
use sabir_kafka::wire::messages::produce::ProduceRequest;
use sabir_model::{ShardId, TopicId};

use crate::rig::{PATIENCE, Raw, Rig, Setup, assert_code, batch, produce_request};

/// A broker with two data shards, of which one hangs, and a partition of the topic `t` in each: the hung one's first.
async fn hung() -> (Rig, i32, i32) {
    let rig = Rig::with(Setup { data_shards: 2, hanging: true, ..Setup::default() });
    let mut raw = rig.raw().await;
    let id = raw.topic("t", 2).await;
    let topic = rig.broker.catalog().topic_by_id(TopicId(id)).cloned().unwrap();
    let there = (0..2).find(|i| topic.partition(*i).unwrap().shard == ShardId(2)).unwrap();
    for partition in 0..2 {
        raw.put("t", partition, &["before"]).await;
    }
    rig.disks.as_ref().unwrap().hang(ShardId(2));
    (rig, there, 1 - there)
}

fn request(partition: i32, acks: i16, timeout_ms: i32) -> ProduceRequest {
    let large = batch(&[&"x".repeat(200_000)]);
    ProduceRequest { timeout_ms, ..produce_request(acks, "t", partition, large) }
}

/// Sends more than may wait for the disk.
async fn fill(raw: &mut Raw, partition: i32, timeout_ms: i32) -> Vec<i32> {
    let mut sent = Vec::new();
    for _ in 0..50 {
        let frame = raw.frame(12, &request(partition, 1, timeout_ms)).to_bytes();
        let written = tokio::io::AsyncWriteExt::write_all(&mut raw.stream, &frame);
        if tokio::time::timeout(Duration::from_secs(1), written).await.is_err() {
            break;
        }
        sent.push(i32::from_be_bytes(frame[8..12].try_into().unwrap()));
    }
    sent
}

async fn until_open(rig: &Rig, connections: usize) {
    let began = Instant::now();
    while rig.net.as_ref().unwrap().stats()[0].open > connections {
        assert!(began.elapsed() < PATIENCE, "{:?}", rig.net.as_ref().unwrap().stats());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn one_hung_disk_holds_up_only_those_who_write_to_it() {
    let (rig, hung, other) = hung().await;
    let (mut held, mut bystander) = (rig.raw().await, rig.raw().await);
    let answered = held.send(12, &request(other, 1, 60_000)).await;
    fill(&mut held, hung, 60_000).await;
    held.receive::<ProduceRequest>(12, answered).await;
    let began = Instant::now();
    for _ in 0..20 {
        let response = bystander.call(12, &request(other, -1, 60_000)).await;
        assert_eq!(response.responses[0].partition_responses[0].error_code, 0);
    }
    rig.raw().await.put("t", other, &["from a newcomer"]).await;
    // What waits for the disk does so for as long as this runs.
    assert!(began.elapsed() < PATIENCE, "{:?}", began.elapsed());
}

#[tokio::test]
async fn what_finds_no_room_in_time_is_not_appended_and_the_connection_goes_on() {
    let (rig, hung, other) = hung().await;
    let mut raw = rig.raw().await;
    let mut sent = Vec::new();
    for _ in 0..30 {
        sent.push(raw.send(12, &request(hung, 1, 1000)).await);
    }
    let last = raw.send(12, &request(other, 1, 60_000)).await;
    for correlation in &sent {
        let response = raw.receive::<ProduceRequest>(12, *correlation).await;
        assert_code(response.responses[0].partition_responses[0].error_code, ErrorCode::RequestTimedOut);
    }
    let response = raw.receive::<ProduceRequest>(12, last).await;
    assert_eq!(response.responses[0].partition_responses[0].error_code, 0);
    rig.disks.as_ref().unwrap().resume();
    let offset = raw.put("t", hung, &["again"]).await;
    assert!((2..30).contains(&offset), "{offset}: what found room is there, what did not is not");
}

#[tokio::test]
async fn a_client_that_goes_while_it_is_held_back_gives_its_place_back() {
    let (rig, hung, _) = hung().await;
    until_open(&rig, 0).await;
    let (mut closes, mut resets) = (rig.raw().await, rig.raw().await);
    fill(&mut resets, hung, 600_000).await;
    // What it has sent beside the request that is held is more than is read, and its end lies behind that.
    closes.send(12, &request(hung, 1, 600_000)).await;
    closes.send(12, &produce_request(1, "t", hung, batch(&[&"x".repeat(100_000)]))).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(rig.net.as_ref().unwrap().stats()[0].open, 2);
    resets.stream.set_zero_linger().unwrap();
    drop(resets);
    until_open(&rig, 1).await;
    drop(closes);
    until_open(&rig, 0).await;
    assert_eq!(rig.net.as_ref().unwrap().limits().frame_memory.granted(), 0);
}

/// A client may write its requests, close its side and wait for the answers: those it still gets once the disk goes on.
#[tokio::test]
async fn all_goes_on_when_the_disk_does() {
    let (rig, hung, _) = hung().await;
    let mut raw = rig.raw().await;
    let sent = fill(&mut raw, hung, 60_000).await;
    assert!(sent.len() > 5);
    rig.disks.as_ref().unwrap().resume();
    for correlation in sent {
        let response = raw.receive::<ProduceRequest>(12, correlation).await;
        assert_eq!(response.responses[0].partition_responses[0].error_code, 0);
    }
}

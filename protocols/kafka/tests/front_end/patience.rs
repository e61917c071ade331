//! Clients that are slow, silent or many: dropped after their time, in bounded memory, and no other client notices.

use std::time::{Duration, Instant};

use sabir_base::testing::best_of_three_async;
use sabir_kafka::wire::messages::api_versions::ApiVersionsRequest;
use sabir_kafka::wire::messages::fetch::{FetchPartition, FetchRequest, FetchTopic};
use sabir_kafka::wire::messages::heartbeat::HeartbeatRequest;
use sabir_kafka::wire::messages::produce::ProduceRequest;
use sabir_model::batch::{BatchBuilder, Compression};
use sabir_net::NetOptions;

use crate::rig::{PATIENCE, Rig, Setup, batch, batch_with, produce_request};

fn impatient(change: impl FnOnce(&mut NetOptions)) -> Rig {
    let mut setup = Setup::default();
    change(&mut setup.net);
    Rig::with(setup)
}

async fn is_well(rig: &Rig) {
    best_of_three_async(Duration::from_secs(2), async || {
        let began = Instant::now();
        rig.raw().await.call(0, &ApiVersionsRequest::default()).await;
        began.elapsed()
    })
    .await;
}

#[tokio::test]
async fn a_frame_that_drips_in_is_not_waited_for_for_ever() {
    let rig = impatient(|net| net.frame_timeout = Duration::from_millis(300));
    let mut raw = rig.raw().await;
    let began = Instant::now();
    raw.write(&1000i32.to_be_bytes()).await;
    let dripping = async {
        for _ in 0..1000 {
            if tokio::io::AsyncWriteExt::write_all(&mut raw.stream, b"x").await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, dripping).await.expect("the connection is closed");
    assert!(began.elapsed() >= Duration::from_millis(300));
    assert_eq!(rig.dropped("slow_writer"), 1);
    is_well(&rig).await;
}

#[tokio::test]
async fn an_idle_connection_is_closed_and_one_that_waits_is_not_idle() {
    let rig = impatient(|net| net.idle_timeout = Duration::from_secs(1));
    let (mut idle, mut waiting) = (rig.raw().await, rig.raw().await);
    waiting.topic("t", 1).await;
    let request = FetchRequest {
        max_wait_ms: 3000,
        min_bytes: 1,
        session_epoch: -1,
        topics: vec![FetchTopic {
            topic: "t".into(),
            partitions: vec![FetchPartition { partition_max_bytes: 1, ..Default::default() }],
            ..Default::default()
        }],
        ..Default::default()
    };
    let fetching = waiting.send(12, &request).await;
    assert_eq!(idle.closed().await, b"");
    assert_eq!(rig.dropped("idle"), 1);
    waiting.receive::<FetchRequest>(12, fetching).await;
    waiting.closed().await;
    assert_eq!(rig.dropped("idle"), 2);
}

/// What it asks is answered at once, so that nothing is ever under way when a test looks.
#[tokio::test]
async fn a_client_that_asks_is_not_idle_however_fast_it_is_answered() {
    let rig = impatient(|net| net.idle_timeout = Duration::from_secs(1));
    let (mut asking, mut idle) = (rig.raw().await, rig.raw().await);
    idle.call(0, &ApiVersionsRequest::default()).await;
    let beat = HeartbeatRequest { group_id: "g".into(), ..Default::default() };
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(3) {
        asking.call(3, &beat).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(idle.closed().await, b"");
    assert_eq!(rig.dropped("idle"), 1);
    asking.call(3, &beat).await;
}

#[tokio::test]
async fn who_says_nothing_or_drips_its_first_words_keeps_no_place() {
    let rig = impatient(|net| net.handshake_timeout = Duration::from_secs(1));
    let mut known = rig.raw().await;
    known.call(0, &ApiVersionsRequest::default()).await;
    let began = Instant::now();
    let (mut silent, mut dripping) = (rig.raw().await, rig.raw().await);
    let frame = dripping.frame(0, &ApiVersionsRequest::default()).to_bytes();
    for byte in &frame[..frame.len() - 1] {
        if tokio::io::AsyncWriteExt::write_all(&mut dripping.stream, &[*byte]).await.is_err() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(silent.closed().await, b"");
    assert_eq!(dripping.closed().await, b"");
    assert!(began.elapsed() >= Duration::from_millis(950), "{:?}", began.elapsed());
    rig.until_dropped("handshake", 2).await;
    // A client that has said something may rest.
    known.call(0, &ApiVersionsRequest::default()).await;
}

/// It asks and asks and reads nothing: the broker stops taking requests, holds a bounded answer, and drops it in the end.
#[tokio::test]
async fn a_client_that_never_reads_is_dropped() {
    let rig = impatient(|net| net.write_timeout = Duration::from_millis(500));
    let mut raw = rig.raw().await;
    raw.topic("t", 1).await;
    let large = "x".repeat(900_000);
    for _ in 0..8 {
        raw.put("t", 0, &[&large]).await;
    }
    let request = FetchRequest {
        max_wait_ms: 0,
        session_epoch: -1,
        topics: vec![FetchTopic {
            topic: "t".into(),
            partitions: vec![FetchPartition { partition_max_bytes: i32::MAX, ..Default::default() }],
            ..Default::default()
        }],
        ..Default::default()
    };
    let flood = async {
        let frame = raw.frame(12, &request).to_bytes();
        while tokio::io::AsyncWriteExt::write_all(&mut raw.stream, &frame).await.is_ok() {}
    };
    let flooding = tokio::time::timeout(PATIENCE, flood).await;
    flooding.expect("the connection is closed");
    assert_eq!(rig.dropped("slow_reader"), 1);
    is_well(&rig).await;
}

/// What is read for clients that do not take it shares a bounded memory too; a client that takes its answers gets on with what is left.
#[tokio::test]
async fn unread_answers_share_a_bounded_memory() {
    const TOTAL: usize = 6 << 20;
    let rig = impatient(|net| {
        net.frame_memory = TOTAL;
        net.write_timeout = Duration::from_millis(1500);
    });
    let memory = rig.net.as_ref().unwrap().limits().frame_memory.clone();
    let mut raw = rig.raw().await;
    raw.topic("t", 1).await;
    let large = "x".repeat(900_000);
    for _ in 0..12 {
        raw.put("t", 0, &[&large]).await;
    }
    let request = |wanted: i32| {
        let partition =
            |partition| FetchPartition { partition, partition_max_bytes: i32::MAX, ..Default::default() };
        let partitions = (0..wanted).map(partition).collect();
        let topic = FetchTopic { topic: "t".into(), partitions, ..Default::default() };
        FetchRequest { min_bytes: 1, session_epoch: -1, topics: vec![topic], ..Default::default() }
    };
    let mut silent = Vec::new();
    for _ in 0..30 {
        let mut raw = rig.raw().await;
        let frame = raw.frame(12, &request(1)).to_bytes();
        for _ in 0..8 {
            raw.write(&frame).await;
        }
        assert!(memory.granted() <= TOTAL);
        silent.push(raw);
    }
    let began = Instant::now();
    while memory.granted() == 0 {
        assert!(began.elapsed() < PATIENCE, "nothing of it was counted");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let answer = raw.call(12, &request(1)).await;
    assert!(answer.responses[0].partitions[0].records.as_ref().unwrap().len() > 900_000);
    while rig.dropped("memory") + rig.dropped("slow_reader") < 30 {
        assert!(began.elapsed() < PATIENCE && memory.granted() <= TOTAL);
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    drop(silent);
    while memory.granted() > 0 {
        assert!(began.elapsed() < PATIENCE, "{} bytes are not given back", memory.granted());
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    // A list that is too long to be kept for nothing is counted while its answer is made.
    let answer = raw.call(12, &request(20_000)).await;
    assert_eq!(answer.responses[0].partitions.len(), 20_000);
    // The last bytes may be here before the broker has noted that they went.
    while memory.granted() > 0 {
        assert!(began.elapsed() < PATIENCE, "{} bytes are not given back", memory.granted());
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn a_pipeline_of_dear_requests_lets_others_have_their_turn() {
    let rig = impatient(|net| net.io_threads = 1);
    let (mut dear, mut other) = (rig.raw().await, rig.raw().await);
    dear.topic_with("t", 1, &[("compression.type", "gzip"), ("compression.gzip.level", "9")]).await;
    let batch = batch_with(BatchBuilder::new(Compression::Zstd), &[&"x".repeat(4_000_000)]);
    let mut pipeline = Vec::new();
    for _ in 0..60 {
        pipeline.extend_from_slice(&dear.frame(12, &produce_request(-1, "t", 0, batch.clone())).to_bytes());
    }
    assert!(pipeline.len() < 60_000, "{} bytes are not read at once", pipeline.len());
    let began = Instant::now();
    dear.write(&pipeline).await;
    tokio::time::sleep(Duration::from_millis(10)).await;
    let asked = Instant::now();
    other.call(0, &ApiVersionsRequest::default()).await;
    let answered = asked.elapsed();
    for _ in 0..60 {
        dear.receive_frame().await;
    }
    let all = began.elapsed();
    assert!(answered < all / 4, "an answer took {answered:?} of {all:?}");
}

fn long_poll(partitions: usize, max_wait_ms: i32) -> FetchRequest {
    let partition =
        |partition| FetchPartition { partition, partition_max_bytes: 1 << 20, ..Default::default() };
    let partitions = (0..partitions as i32).map(partition).collect();
    let topic = FetchTopic { topic: "t".into(), partitions, ..Default::default() };
    FetchRequest { max_wait_ms, min_bytes: 1, session_epoch: -1, topics: vec![topic], ..Default::default() }
}

/// A fetch whose frame came in pieces gives the frame's memory back before it waits.
#[tokio::test]
async fn a_fetch_that_waits_keeps_no_memory_for_its_frame() {
    let rig = Rig::start();
    let memory = rig.net.as_ref().unwrap().limits().frame_memory.clone();
    let mut raw = rig.raw().await;
    raw.topic("t", 1).await;
    let frame = raw.frame(12, &long_poll(250, 60_000)).to_bytes();
    let (first, last) = frame.split_at(frame.len() - 10);
    raw.write(first).await;
    let began = Instant::now();
    while memory.granted() == 0 {
        assert!(began.elapsed() < PATIENCE, "what has arrived is not counted");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    raw.write(last).await;
    while memory.granted() > 0 {
        assert!(began.elapsed() < PATIENCE, "{} bytes are kept", memory.granted());
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    rig.raw().await.put("t", 0, &["a"]).await;
    assert_eq!(raw.receive_frame().await[..4], 2i32.to_be_bytes());
}

#[tokio::test]
async fn a_fetch_that_finds_no_memory_is_not_held_for_ever() {
    let rig = impatient(|net| net.frame_memory = 4 << 20);
    let memory = rig.net.as_ref().unwrap().limits().frame_memory.clone();
    let mut raw = rig.raw().await;
    raw.topic("t", 1).await;
    let all = memory.try_take(memory.total()).unwrap();
    let began = Instant::now();
    raw.send(12, &long_poll(1000, 10)).await;
    assert_eq!(raw.closed().await, b"");
    assert!(began.elapsed() >= Duration::from_secs(1), "{:?}", began.elapsed());
    assert_eq!(rig.dropped("memory"), 1);
    drop(all);
    let answer = rig.raw().await.call(12, &long_poll(1000, 10)).await;
    assert_eq!(answer.responses[0].partitions.len(), 1000);
}

/// Frames that never end share a bounded memory; clients that find none left are dropped, and all others go on.
#[tokio::test]
async fn unfinished_frames_share_a_bounded_memory() {
    let rig = impatient(|net| {
        net.frame_memory = 8 << 20;
        net.frame_timeout = Duration::from_secs(5);
    });
    let memory = rig.net.as_ref().unwrap().limits().frame_memory.clone();
    let mut slow = Vec::new();
    for _ in 0..60 {
        let mut raw = rig.raw().await;
        raw.write(&(1i32 << 20).to_be_bytes()).await;
        // May be closed already.
        let _ = tokio::io::AsyncWriteExt::write_all(&mut raw.stream, &[0; 100_000]).await;
        assert!(memory.granted() <= 8 << 20);
        slow.push(raw);
    }
    rig.until_dropped("memory", 1).await;
    // A quarter is kept for clients that have sent a whole request.
    assert!((5 << 20..=6 << 20).contains(&memory.granted()), "{}", memory.granted());
    is_well(&rig).await;
    for mut raw in slow {
        raw.closed().await;
    }
    assert_eq!(rig.dropped("memory") + rig.dropped("slow_writer"), 60);
    let began = Instant::now();
    while memory.granted() > 0 {
        assert!(began.elapsed() < PATIENCE, "{} bytes are not given back", memory.granted());
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn a_large_request_comes_through_and_gives_its_memory_back() {
    let rig = impatient(|net| net.frame_memory = 4 << 20);
    let mut raw = rig.raw().await;
    raw.topic_with("t", 1, &[("max.message.bytes", "4000000")]).await;
    let large = "x".repeat(1_000_000);
    for i in 0..10 {
        assert_eq!(raw.put("t", 0, &[&large]).await, i);
    }
    assert_eq!(rig.net.as_ref().unwrap().limits().frame_memory.granted(), 0);
}

#[tokio::test]
async fn there_are_only_so_many_connections() {
    let rig = Rig::with(Setup { max_connections: 3, ..Setup::default() });
    let mut taken = Vec::new();
    for _ in 0..3 {
        let mut raw = rig.raw().await;
        raw.call(0, &ApiVersionsRequest::default()).await;
        taken.push(raw);
    }
    assert_eq!(rig.raw().await.closed().await, b"");
    drop(taken.pop());
    let began = Instant::now();
    while rig.net.as_ref().unwrap().stats()[0].open == 3 {
        assert!(began.elapsed() < PATIENCE);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    is_well(&rig).await;
    assert_eq!(rig.net.as_ref().unwrap().stats()[0].refused, 1);
}

/// A client that sends its requests and then no more still gets its answers.
#[tokio::test]
async fn who_closes_its_side_gets_the_answers_under_way() {
    let rig = Rig::start();
    let mut raw = rig.raw().await;
    raw.topic("t", 1).await;
    let mut sent = Vec::new();
    for _ in 0..50 {
        sent.push(raw.send(12, &produce_request(-1, "t", 0, batch(&["a"]))).await);
    }
    tokio::io::AsyncWriteExt::shutdown(&mut raw.stream).await.unwrap();
    for correlation in sent {
        let response = raw.receive::<ProduceRequest>(12, correlation).await;
        assert_eq!(response.responses[0].partition_responses[0].error_code, 0);
    }
    assert_eq!(raw.closed().await, b"");
}

#[tokio::test]
async fn a_drain_answers_what_is_under_way_and_lets_go_of_those_who_wait() {
    let rig = Rig::start();
    let (mut producer, mut waiting, mut idle) = (rig.raw().await, rig.raw().await, rig.raw().await);
    producer.topic("t", 1).await;
    idle.call(0, &ApiVersionsRequest::default()).await;
    let request = FetchRequest {
        max_wait_ms: 60_000,
        min_bytes: 1_000_000,
        session_epoch: -1,
        topics: vec![FetchTopic {
            topic: "t".into(),
            partitions: vec![FetchPartition { partition_max_bytes: 1, ..Default::default() }],
            ..Default::default()
        }],
        ..Default::default()
    };
    waiting.send(12, &request).await;
    let mut sent = Vec::new();
    for _ in 0..20 {
        sent.push(producer.send(12, &produce_request(-1, "t", 0, batch(&["a"]))).await);
    }
    // The last answer says that all of them were read.
    for correlation in sent.drain(..) {
        producer.receive::<ProduceRequest>(12, correlation).await;
    }
    // The fetch would wait for longer.
    let drained = rig.net.as_ref().unwrap().drain(PATIENCE);
    assert_eq!((drained.open, drained.left), (3, 0));
    assert_eq!(waiting.closed().await, b"");
    assert_eq!(idle.closed().await, b"");
    assert_eq!(producer.closed().await, b"");
}

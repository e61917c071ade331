//! What counts against the memory that frames and answers share, beside what clients leave unfinished and unread.

use std::time::{Duration, Instant};

use bytes::Bytes;
use sabir_base::testing::best_of_three_async;
use sabir_kafka::wire::messages::create_topics::CreateTopicsRequest;
use sabir_kafka::wire::messages::describe_configs::{DescribeConfigsRequest, DescribeConfigsResource};
use sabir_kafka::wire::messages::describe_groups::DescribeGroupsRequest;
use sabir_kafka::wire::messages::describe_log_dirs::DescribeLogDirsRequest;
use sabir_kafka::wire::messages::fetch::{FetchPartition, FetchRequest, FetchTopic, ForgottenTopic};
use sabir_kafka::wire::messages::find_coordinator::FindCoordinatorRequest;
use sabir_kafka::wire::messages::join_group::{JoinGroupRequest, JoinGroupRequestProtocol};
use sabir_kafka::wire::messages::list_config_resources::ListConfigResourcesRequest;
use sabir_kafka::wire::messages::metadata::{MetadataRequest, MetadataRequestTopic};
use sabir_kafka::wire::messages::offset_commit::{
    OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use sabir_kafka::wire::messages::offset_fetch::{OffsetFetchRequest, OffsetFetchRequestGroup};
use sabir_kafka::wire::messages::produce::ProduceRequest;
use sabir_kafka::wire::messages::sync_group::SyncGroupRequest;
use sabir_kafka::wire::{ErrorCode, RequestMessage, Str};

use crate::rig::{PATIENCE, Raw, Rig, Setup, assert_code, batch, creatable, produce_request};

/// A broker with so much memory for frames and answers.
fn with_memory(bytes: usize) -> Rig {
    let mut setup = Setup::default();
    setup.net.frame_memory = bytes;
    Rig::with(setup)
}

/// Takes memory, once it is given back: an answer's is so only after its client may have read it.
pub async fn taken(memory: &sabir_net::FrameMemory, bytes: usize) -> sabir_net::Grant {
    for _ in 0..500 {
        if let Some(grant) = memory.try_take(bytes) {
            return grant;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("memory is not given back");
}

/// With all memory taken a request is not answered; with memory it is, and gives all of it back.
async fn needs_memory<R: RequestMessage>(rig: &Rig, version: i16, request: &R) {
    let memory = rig.net.as_ref().unwrap().limits().frame_memory.clone();
    let all = taken(&memory, memory.total()).await;
    let dropped = rig.dropped("memory");
    let mut raw = rig.raw().await;
    raw.send(version, request).await;
    assert_eq!(raw.closed().await, b"", "{:?}", R::KEY);
    assert_eq!(rig.dropped("memory"), dropped + 1, "{:?}", R::KEY);
    drop(all);
    rig.raw().await.call(version, request).await;
    let began = Instant::now();
    while memory.granted() > 0 {
        assert!(began.elapsed() < PATIENCE, "{:?}: {} bytes are kept", R::KEY, memory.granted());
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// A position of `g` in each of `t`'s 2,000 partitions, each with so many bytes of text.
fn commit(text: usize) -> OffsetCommitRequest {
    let position = |partition_index| OffsetCommitRequestPartition {
        partition_index,
        committed_metadata: Some(Str::from("x".repeat(text))),
        ..Default::default()
    };
    let partitions = (0..2000).map(position).collect();
    let topics = vec![OffsetCommitRequestTopic { name: "t".into(), partitions, ..Default::default() }];
    OffsetCommitRequest {
        group_id: "g".into(),
        generation_id_or_member_epoch: -1,
        topics,
        ..Default::default()
    }
}

/// Of two groups, `g` with a position in each partition of `t` and one that has a member with much to say.
async fn groups(raw: &mut Raw) {
    assert_eq!(raw.call(9, &commit(100)).await.topics[0].partitions[0].error_code, 0);
    let metadata = Bytes::from(vec![7; 200_000]);
    let protocols = vec![JoinGroupRequestProtocol { name: "p".into(), metadata }];
    let join = JoinGroupRequest {
        group_id: "large".into(),
        session_timeout_ms: 30_000,
        rebalance_timeout_ms: 30_000,
        protocol_type: "consumer".into(),
        protocols,
        ..Default::default()
    };
    let joined = raw.call(3, &join).await;
    assert_eq!(joined.error_code, 0);
    let sync = SyncGroupRequest {
        group_id: "large".into(),
        generation_id: joined.generation_id,
        member_id: joined.member_id,
        ..Default::default()
    };
    assert_eq!(raw.call(3, &sync).await.error_code, 0);
}

#[tokio::test]
async fn an_answer_that_is_far_larger_than_its_request_takes_its_memory_first() {
    let rig = with_memory(8 << 20);
    let mut raw = rig.raw().await;
    raw.topic("t", 2000).await;
    let names = (0..150).flat_map(|i| [format!("many-{i}"), format!("{i:0>240}")]);
    let topics: Vec<_> = names.map(|name| creatable(&name, 1, &[])).collect();
    let create = CreateTopicsRequest { topics, timeout_ms: 30_000, ..Default::default() };
    assert_eq!(raw.ask(&create).await.topics[299].error_code, 0);
    groups(&mut raw).await;

    needs_memory(&rig, 12, &MetadataRequest { topics: None, ..Default::default() }).await;
    let named = MetadataRequestTopic { name: Some("t".into()), ..Default::default() };
    needs_memory(&rig, 9, &MetadataRequest { topics: Some(vec![named]), ..Default::default() }).await;
    needs_memory(&rig, 4, &settings_of(20)).await;
    needs_memory(&rig, 7, &CreateTopicsRequest { validate_only: true, ..create }).await;
    needs_memory(&rig, 3, &DescribeLogDirsRequest { topics: None }).await;
    needs_memory(&rig, 1, &ListConfigResourcesRequest::default()).await;
    let group = OffsetFetchRequestGroup { group_id: "g".into(), topics: None, ..Default::default() };
    let all = OffsetFetchRequest { groups: vec![group], ..Default::default() };
    needs_memory(&rig, 9, &all).await;
    let old = OffsetFetchRequest { group_id: "g".into(), topics: None, ..Default::default() };
    needs_memory(&rig, 5, &old).await;
    needs_memory(&rig, 5, &DescribeGroupsRequest { groups: vec!["large".into()], ..Default::default() })
        .await;
}

/// Its frame is small enough to be counted nowhere.
#[tokio::test]
async fn what_a_request_takes_decoded_is_held_until_it_is_answered() {
    let rig = with_memory(8 << 20);
    rig.raw().await.topic("t", 2000).await;
    needs_memory(&rig, 9, &commit(0)).await;
}

#[tokio::test]
async fn topics_are_made_whose_answer_needs_more_than_half_of_the_memory() {
    let rig = with_memory(1 << 20);
    let topics: Vec<_> = (0..1000).map(|i| creatable(&format!("many-{i}"), 1, &[])).collect();
    let create = CreateTopicsRequest { topics, timeout_ms: 30_000, ..Default::default() };
    let made = rig.raw().await.ask(&create).await;
    assert!(made.topics.iter().all(|topic| topic.error_code == 0));
    let all = rig.raw().await.call(12, &MetadataRequest { topics: None, ..Default::default() }).await;
    assert!(all.topics.len() >= 1000, "{}", all.topics.len());
}

/// Asks for all that is to be known of the settings of so many topics.
fn settings_of(topics: usize) -> DescribeConfigsRequest {
    let resource = |i| DescribeConfigsResource {
        resource_type: 2,
        resource_name: Str::from(format!("many-{i}")),
        configuration_keys: None,
    };
    let resources = (0..topics).map(resource).collect();
    DescribeConfigsRequest { resources, include_synonyms: true, include_documentation: true }
}

#[tokio::test]
async fn settings_that_no_memory_would_have_room_for_are_refused_by_name() {
    const MEMORY: usize = 1 << 20;
    let rig = with_memory(MEMORY);
    let mut raw = rig.raw().await;
    let topics: Vec<_> = (0..100).map(|i| creatable(&format!("many-{i}"), 1, &[])).collect();
    raw.ask(&CreateTopicsRequest { topics, timeout_ms: 30_000, ..Default::default() }).await;
    raw.send(4, &settings_of(100)).await;
    let frame = raw.receive_frame().await;
    assert!(frame.len() < MEMORY, "{}", frame.len());
    let response = raw.call(4, &settings_of(100)).await;
    let (told, refused): (Vec<_>, Vec<_>) = response.results.iter().partition(|r| r.error_code == 0);
    assert!(told.len() >= 10 && told.iter().all(|r| !r.configs.is_empty()), "{}", told.len());
    assert!(refused.len() >= 10, "{}", refused.len());
    for result in refused {
        assert_code(result.error_code, ErrorCode::PolicyViolation);
        assert!(result.resource_name.starts_with("many-") && result.error_message.is_some());
    }
}

/// A request is not answered, for want of memory that no connection has.
async fn is_too_large<R: RequestMessage>(rig: &Rig, version: i16, request: &R) {
    let dropped = rig.dropped("memory");
    let mut raw = rig.raw().await;
    raw.send(version, request).await;
    assert_eq!(raw.closed().await, b"", "{:?}", R::KEY);
    assert_eq!(rig.dropped("memory"), dropped + 1, "{:?}", R::KEY);
}

#[tokio::test]
async fn what_can_never_fit_is_refused_before_it_is_made() {
    let rig = with_memory(1 << 20);
    let names = |count: usize| (0..count).map(|i| Str::from(format!("{i:x}")));
    let groups = |count| DescribeGroupsRequest { groups: names(count).collect(), ..Default::default() };
    // Its answer is too large, and so is what it has decoded.
    is_too_large(&rig, 5, &groups(5000)).await;
    is_too_large(&rig, 5, &groups(50_000)).await;
    let find =
        |count| FindCoordinatorRequest { coordinator_keys: names(count).collect(), ..Default::default() };
    is_too_large(&rig, 4, &find(6000)).await;
    let topics = (0..50_000).map(|i| creatable(&format!("{i}"), 1, &[])).collect();
    is_too_large(&rig, 7, &CreateTopicsRequest { topics, validate_only: true, ..Default::default() }).await;
    let mut raw = rig.raw().await;
    assert_eq!(raw.call(5, &groups(100)).await.groups.len(), 100);
    assert_eq!(raw.call(4, &find(100)).await.coordinators.len(), 100);
}

#[tokio::test]
async fn more_topics_than_an_answer_may_be_about_are_refused_by_name() {
    let rig = with_memory(1 << 20);
    let topics: Vec<_> = (0..1001).map(|i| creatable(&format!("many-{i}"), 1, &[])).collect();
    for validate_only in [true, false] {
        let create = CreateTopicsRequest { topics: topics.clone(), timeout_ms: 30_000, validate_only };
        let refused = rig.raw().await.call(7, &create).await;
        assert_eq!(refused.topics.len(), 1001);
        for topic in refused.topics {
            assert_code(topic.error_code, ErrorCode::PolicyViolation);
            assert!(topic.error_message.is_some());
        }
    }
    let all = rig.raw().await.call(12, &MetadataRequest { topics: None, ..Default::default() }).await;
    assert!(all.topics.iter().all(|topic| topic.name.as_deref().is_none_or(|n| !n.starts_with("many-"))));
}

/// Waits for records of `t` for a minute, by a frame of about 64 KiB.
fn long_poll() -> FetchRequest {
    let forgotten = |i| ForgottenTopic { topic: Str::from(format!("{i:0>249}")), ..Default::default() };
    FetchRequest {
        max_wait_ms: 60_000,
        min_bytes: 1 << 20,
        session_epoch: -1,
        topics: vec![FetchTopic {
            topic: "t".into(),
            partitions: vec![FetchPartition { partition_max_bytes: 1 << 20, ..Default::default() }],
            ..Default::default()
        }],
        forgotten_topics_data: (0..250).map(forgotten).collect(),
        ..Default::default()
    }
}

#[tokio::test]
async fn a_request_of_usual_size_is_answered_whatever_waits_or_trickles_beside_it() {
    best_of_three_async(Duration::from_secs(1), beside_what_waits_and_trickles).await;
}

/// The longest that a request of usual size waited.
async fn beside_what_waits_and_trickles() -> Duration {
    const TOTAL: usize = 64 << 20;
    let rig = with_memory(TOTAL);
    let memory = rig.net.as_ref().unwrap().limits().frame_memory.clone();
    let (mut honest, mut large) = (rig.raw().await, rig.raw().await);
    honest.topic_with("t", 1, &[("max.message.bytes", "30000000")]).await;
    large.topic_id("t").await;
    let mut waiting = Vec::new();
    for _ in 0..400 {
        let mut raw = rig.raw().await;
        raw.send(12, &long_poll()).await;
        waiting.push(raw);
    }
    let began = Instant::now();
    while memory.granted() + memory.granted_little() > 0 {
        assert!(began.elapsed() < PATIENCE, "requests that wait keep {} bytes", memory.granted());
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let _others = memory.try_take(30 << 20).expect("there is room");
    let request = produce_request(-1, "t", 0, batch(&[&"x".repeat(20_000_000)]));
    let frame = large.frame(12, &request).to_bytes();
    let correlation = large.correlation();
    let mut slow = Vec::new();
    for _ in 0..20 {
        let mut raw = rig.raw().await;
        raw.topic_id("t").await;
        raw.write(&frame[..1_200_000]).await;
        slow.push(raw);
    }
    let (reading, mut writing) = large.stream.into_split();
    let sending = tokio::spawn(async move {
        tokio::io::AsyncWriteExt::write_all(&mut writing, &frame).await.unwrap();
        writing
    });
    tokio::time::sleep(Duration::from_millis(100)).await;
    let mut longest = Duration::ZERO;
    for size in [1 << 10, 70_000, 200_000, 500_000, 1 << 20] {
        let asked = Instant::now();
        honest.put("t", 0, &[&"x".repeat(size)]).await;
        longest = longest.max(asked.elapsed());
        assert!(memory.granted() <= TOTAL);
    }
    large.stream = reading.reunite(sending.await.unwrap()).unwrap();
    let produced = large.receive::<ProduceRequest>(12, correlation).await;
    assert_eq!(produced.responses[0].partition_responses[0].error_code, 0);
    assert!(rig.dropped("slow_writer") >= 15, "{} that kept memory", rig.dropped("slow_writer"));
    longest
}

#[tokio::test]
async fn fetches_that_wait_have_memory_or_are_answered_at_once() {
    const TOTAL: usize = 1 << 20;
    let rig = with_memory(TOTAL);
    let memory = rig.net.as_ref().unwrap().limits().frame_memory.clone();
    let mut other = rig.raw().await;
    other.topic("t", 100).await;
    let wanted = |partition| FetchPartition { partition, partition_max_bytes: 1 << 20, ..Default::default() };
    let fetch = |partitions| FetchRequest {
        max_wait_ms: 60_000,
        min_bytes: 1,
        max_bytes: 1 << 20,
        session_epoch: -1,
        topics: vec![FetchTopic {
            topic: "t".into(),
            partitions: (0..partitions).map(wanted).collect(),
            ..Default::default()
        }],
        ..Default::default()
    };
    let (mut waiting, mut answered) = (Vec::new(), 0);
    for _ in 0..150 {
        let mut raw = rig.raw().await;
        raw.send(12, &fetch(100)).await;
        waiting.push(raw);
        // What is answered at once may take longer than this: it is found with a later one.
        tokio::time::sleep(Duration::from_millis(50)).await;
        let mut silent = Vec::new();
        for mut raw in waiting {
            if tokio::time::timeout(Duration::ZERO, raw.stream.readable()).await.is_ok() {
                let frame = raw.receive_frame().await;
                assert!(frame.len() > 1000, "all partitions are answered: {} bytes", frame.len());
                answered += 1;
            } else {
                silent.push(raw);
            }
        }
        waiting = silent;
        if answered >= 20 {
            break;
        }
    }
    assert!(waiting.len() >= 20 && answered >= 20, "{} wait, {answered} are answered", waiting.len());
    assert!(rig.metric("sabir_kafka_unwaited_fetches_total") >= 20);
    let held = memory.granted() + memory.granted_little();
    assert!((TOTAL / 4..TOTAL).contains(&held), "{held} bytes are held");
    // What takes next to nothing waits all the same.
    let mut small = rig.raw().await;
    small.send(12, &fetch(1)).await;
    tokio::time::timeout(Duration::from_millis(100), small.stream.readable()).await.expect_err("it waits");
    other.put("t", 0, &["a"]).await;
    small.receive_frame().await;
    for raw in &mut waiting {
        raw.receive_frame().await;
    }
    let began = Instant::now();
    while memory.granted() + memory.granted_little() > 0 {
        assert!(began.elapsed() < PATIENCE, "{} bytes are kept", memory.granted());
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn fetches_of_large_batches_wait_for_memory_and_each_is_answered() {
    const BATCH: usize = 3 << 20;
    let rig = with_memory(8 << 20);
    let memory = rig.net.as_ref().unwrap().limits().frame_memory.clone();
    let mut first = rig.raw().await;
    first.topic_with("t", 1, &[("max.message.bytes", "4000000")]).await;
    for text in ["a", "b", "c", "d"] {
        assert_code(first.produce("t", 0, batch(&[&text.repeat(BATCH)])).await.error_code, ErrorCode::None);
    }
    let wanted =
        |fetch_offset| FetchPartition { fetch_offset, partition_max_bytes: 1 << 20, ..Default::default() };
    let fetch = |offset| FetchRequest {
        max_wait_ms: 1000,
        min_bytes: 1,
        max_bytes: 1 << 20,
        session_epoch: -1,
        topics: vec![FetchTopic {
            topic: "t".into(),
            partitions: vec![wanted(offset)],
            ..Default::default()
        }],
        ..Default::default()
    };
    let dropped = rig.dropped("memory");
    let mut waiting = Vec::new();
    for at in 0..16 {
        let mut raw = rig.raw().await;
        let correlation = raw.send(12, &fetch(at % 4)).await;
        waiting.push(async move {
            let answer = raw.receive::<FetchRequest>(12, correlation).await;
            let records = answer.responses[0].partitions[0].records.as_ref().unwrap().to_bytes();
            assert!(records.len() > BATCH && records[200] == b"abcd"[at as usize % 4], "{at}");
        });
    }
    // None of them reads until some have what the others wait for.
    let began = Instant::now();
    while memory.granted() < BATCH {
        assert!(began.elapsed() < PATIENCE);
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let mut reading: Vec<_> = waiting.into_iter().map(tokio::spawn).collect();
    while let Some(one) = reading.pop() {
        one.await.unwrap();
    }
    assert_eq!(rig.dropped("memory"), dropped);
    drop(taken(&memory, memory.total() / 2).await);
}

/// A request that names one partition so many times, each with a batch of one record.
fn batches(count: usize) -> ProduceRequest {
    let mut request = produce_request(-1, "t", 0, batch(&["v"]));
    let one = request.topic_data[0].partition_data[0].clone();
    request.topic_data[0].partition_data = vec![one; count];
    request
}

/// What a batch takes until it is answered, beside the frame, at the least.
const OF_A_BATCH: usize = 600;

#[tokio::test]
async fn batches_under_way_are_counted_beside_their_frame() {
    let mut setup = Setup { late: true, ..Setup::default() };
    setup.net.frame_memory = 16 << 20;
    let rig = Rig::with(setup);
    let memory = rig.net.as_ref().unwrap().limits().frame_memory.clone();
    let granted = || memory.granted() + memory.granted_little();
    let mut raw = rig.raw().await;
    raw.topic("t", 1).await;
    rig.commits.as_ref().unwrap().hold();
    let (mut sent, mut least) = (Vec::new(), 0);
    // The last one is decoded on another thread.
    for count in [50, 300, 12_000] {
        sent.push((count, raw.send(12, &batches(count)).await));
        least += count * OF_A_BATCH;
        let began = Instant::now();
        while granted() < least {
            assert!(began.elapsed() < PATIENCE, "{} of {least} bytes for {count}", granted());
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    rig.commits.as_ref().unwrap().release();
    for (count, correlation) in sent {
        let answer = raw.receive::<ProduceRequest>(12, correlation).await;
        let partitions = &answer.responses[0].partition_responses;
        assert!(partitions.len() == count && partitions.iter().all(|partition| partition.error_code == 0));
    }
    let began = Instant::now();
    while granted() > 0 {
        assert!(began.elapsed() < PATIENCE, "{} bytes are kept", granted());
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn more_batches_than_there_is_memory_for_are_not_taken() {
    let rig = with_memory(8 << 20);
    let mut raw = rig.raw().await;
    raw.topic("t", 1).await;
    needs_memory(&rig, 12, &batches(300)).await;
    let before = raw.put("t", 0, &["v"]).await;
    for count in [15_000, 60_000] {
        let dropped = rig.dropped("memory");
        let mut many = rig.raw().await;
        many.send(12, &batches(count)).await;
        assert_eq!(many.closed().await, b"", "{count}");
        assert_eq!(rig.dropped("memory"), dropped + 1, "{count}");
    }
    assert_eq!(raw.put("t", 0, &["v"]).await, before + 1, "none of them was appended");
}

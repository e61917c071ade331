//! Batches that take long to look at, or that make no sense: they cost their producer time, and no other client much.

use std::time::{Duration, Instant};

use bytes::Bytes;
use sabir_base::testing::best_of_three_async;
use sabir_kafka::wire::messages::create_topics::{CreatableTopic, CreateTopicsRequest};
use sabir_kafka::wire::messages::delete_groups::DeleteGroupsRequest;
use sabir_kafka::wire::messages::describe_configs::{DescribeConfigsRequest, DescribeConfigsResource};
use sabir_kafka::wire::messages::describe_groups::DescribeGroupsRequest;
use sabir_kafka::wire::messages::heartbeat::HeartbeatRequest;
use sabir_kafka::wire::messages::metadata::{MetadataRequest, MetadataRequestTopic};
use sabir_kafka::wire::messages::offset_fetch::{OffsetFetchRequest, OffsetFetchRequestTopic};
use sabir_kafka::wire::messages::produce::{PartitionProduceData, ProduceRequest, TopicProduceData};
use sabir_kafka::wire::{ErrorCode, Str};
use sabir_model::batch::{BatchBuilder, Compression, HEADER_LEN};
use sabir_net::NetOptions;

use crate::rig::{Raw, Rig, Setup, assert_code, batch, batch_with, now_ms, produce_request};

/// What a bystander waits for an answer at the most.
const SOON: Duration = Duration::from_secs(1);

/// Many megabytes in a few kilobytes.
fn bomb(codec: Compression, megabytes: usize) -> Bytes {
    let mut bomb = BatchBuilder::new(codec);
    bomb.push(now_ms(), None, Some(&vec![0; megabytes << 20]), &[]);
    bomb.build()
}

/// The longest that plain and compressed produce requests and others take on a connection of their own.
async fn longest_wait(raw: &mut Raw, topic: &str, time: Duration) -> Duration {
    let (began, mut longest) = (Instant::now(), Duration::ZERO);
    while began.elapsed() < time {
        let asked = Instant::now();
        assert_eq!(raw.produce(topic, 0, batch(&["plain"])).await.error_code, 0);
        let compressed = batch_with(BatchBuilder::new(Compression::Lz4), &["a few"; 50]);
        assert_eq!(raw.produce(topic, 0, compressed).await.error_code, 0);
        raw.ask(&HeartbeatRequest { group_id: "nobody".into(), ..Default::default() }).await;
        longest = longest.max(asked.elapsed());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    longest
}

#[tokio::test]
async fn thousands_of_bombs_in_one_request_hold_up_nobody_else() {
    best_of_three_async(SOON, thousands_of_bombs).await;
}

/// The longest that a bystander waited.
async fn thousands_of_bombs() -> Duration {
    let rig = Rig::start();
    let (mut attacker, mut bystander) = (rig.raw().await, rig.raw().await);
    attacker.topic("t", 1).await;
    bystander.topic("calm", 1).await;
    let one = bomb(Compression::Zstd, 100);
    assert!(one.len() < 20_000);
    let data = |_| PartitionProduceData { index: 0, records: Some(one.clone()) };
    let partition_data: Vec<_> = (0..1000).map(data).collect();
    let topic = TopicProduceData { name: "t".into(), partition_data, ..Default::default() };
    let request =
        ProduceRequest { acks: -1, timeout_ms: 1000, topic_data: vec![topic], ..Default::default() };
    attacker.send(12, &request).await;
    let longest = longest_wait(&mut bystander, "calm", Duration::from_secs(3)).await;
    // It goes, and with it what it asked for.
    drop(attacker);
    let began = Instant::now();
    assert_eq!(bystander.produce("calm", 0, bomb(Compression::Zstd, 1)).await.error_code, 0);
    longest.max(began.elapsed())
}

/// The broker with one I/O thread, which all its clients share.
fn start_narrow() -> Rig {
    Rig::with(Setup { net: NetOptions { io_threads: 1, ..NetOptions::default() }, ..Setup::default() })
}

/// Each is a name of nothing, and none of them the same.
fn names(count: usize) -> impl Iterator<Item = Str> {
    (0..count).map(|i| Str::from(format!("{i:x}")))
}

#[tokio::test]
async fn requests_of_very_many_elements_hold_up_nobody_else() {
    best_of_three_async(SOON, requests_of_very_many_elements).await;
}

/// The longest that a bystander waited.
async fn requests_of_very_many_elements() -> Duration {
    const MANY: usize = 150_000;
    let rig = start_narrow();
    let mut bystander = rig.raw().await;
    bystander.topic("calm", 1).await;
    let mut attackers = Vec::new();
    for _ in 0..7 {
        attackers.push(rig.raw().await);
    }
    let topic = |name| MetadataRequestTopic { name: Some(name), ..Default::default() };
    let topics = Some(names(MANY).map(topic).collect());
    let metadata = MetadataRequest { topics, allow_auto_topic_creation: false, ..Default::default() };
    attackers[0].send(9, &metadata).await;
    let groups = DescribeGroupsRequest { groups: names(MANY).collect(), ..Default::default() };
    attackers[1].send(0, &groups).await;
    attackers[2].send(5, &groups).await;
    let resource =
        |resource_name| DescribeConfigsResource { resource_type: 2, resource_name, configuration_keys: None };
    let resources = names(MANY).map(resource).collect();
    attackers[3].send(4, &DescribeConfigsRequest { resources, ..Default::default() }).await;
    let topic =
        |name| CreatableTopic { name, num_partitions: -7, replication_factor: 1, ..Default::default() };
    let topics = names(MANY).map(topic).collect();
    attackers[4].send(5, &CreateTopicsRequest { topics, timeout_ms: 1000, ..Default::default() }).await;
    attackers[5].send(2, &DeleteGroupsRequest { groups_names: names(MANY).collect() }).await;
    let partition_indexes = (0..MANY as i32).collect();
    let topic = OffsetFetchRequestTopic { name: "calm".into(), partition_indexes };
    let fetch =
        OffsetFetchRequest { group_id: "none".into(), topics: Some(vec![topic]), ..Default::default() };
    attackers[6].send(5, &fetch).await;
    // Nothing that waits for the disk, which may be others' meanwhile.
    let (began, mut longest) = (Instant::now(), Duration::ZERO);
    while began.elapsed() < Duration::from_secs(4) {
        let asked = Instant::now();
        bystander.ask(&HeartbeatRequest { group_id: "nobody".into(), ..Default::default() }).await;
        longest = longest.max(asked.elapsed());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    for attacker in &mut attackers {
        assert!(attacker.receive_frame().await.len() > MANY, "it is answered in its own time");
    }
    longest
}

#[tokio::test]
async fn who_has_long_batches_goes_behind_who_has_short_ones_and_is_told_when_its_time_is_over() {
    let rig = Rig::start();
    let mut honest = rig.raw().await;
    honest.topic("t", 1).await;
    let mut state = 1u32;
    let mut half = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 28) as u8
    };
    let noise: Vec<u8> = (0..400_000).map(|_| half()).collect();
    for (codec, count) in [(Compression::Zstd, 100), (Compression::Gzip, 150)] {
        best_of_three_async(SOON, async || {
            beside_long_batches(&rig, &mut honest, codec, count, &noise).await
        })
        .await;
    }
}

/// The longest of five short batches' waits behind so many long ones.
async fn beside_long_batches(
    rig: &Rig,
    honest: &mut Raw,
    codec: Compression,
    count: usize,
    noise: &[u8],
) -> Duration {
    let bomb = bomb(codec, 120);
    let data = PartitionProduceData { index: 0, records: Some(bomb) };
    let topic = TopicProduceData { name: "t".into(), partition_data: vec![data], ..Default::default() };
    let mut bomb =
        ProduceRequest { acks: -1, timeout_ms: 30_000, topic_data: vec![topic], ..Default::default() };
    let mut attackers = Vec::new();
    for _ in 0..count {
        let mut attacker = rig.raw().await;
        attacker.send(12, &bomb).await;
        attackers.push(attacker);
    }
    bomb.timeout_ms = 20;
    let mut impatient = rig.raw().await;
    let asked = impatient.send(12, &bomb).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let mut short = BatchBuilder::new(codec);
    short.push(now_ms(), None, Some(noise), &[]);
    let short = short.build();
    assert!(short.len() > 100_000, "{codec}: workers have to look at it");
    let mut longest = Duration::ZERO;
    for _ in 0..5 {
        let began = Instant::now();
        assert_eq!(honest.produce("t", 0, short.clone()).await.error_code, 0);
        longest = longest.max(began.elapsed());
    }
    let answer = impatient.receive::<ProduceRequest>(12, asked).await;
    // A bomb of zstd is so quick that all before it may be done in time.
    if codec == Compression::Gzip {
        assert_code(answer.responses[0].partition_responses[0].error_code, ErrorCode::RequestTimedOut);
    }
    longest
}

#[tokio::test]
async fn a_dear_level_holds_up_nobody_else_and_ends_in_its_own_time() {
    best_of_three_async(SOON, beside_dear_levels).await;
}

/// The longest that others waited.
async fn beside_dear_levels() -> Duration {
    let rig = Rig::start();
    let mut longest = Duration::ZERO;
    let mut bystander = rig.raw().await;
    bystander.topic("calm", 1).await;
    let mut dears = Vec::new();
    for (name, level) in [("gzip", "9"), ("zstd", "22")] {
        let mut attacker = rig.raw().await;
        let level = (&format!("compression.{name}.level")[..], level);
        let config = [("compression.type", name), level, ("max.message.bytes", "4194304")];
        attacker.topic_with(name, 1, &config).await;
        // What takes gzip long: nearly the same again and again.
        let mut dear = BatchBuilder::new(Compression::Lz4);
        let text: Vec<u8> = (0..8u32 << 20).map(|i| b"ab"[(i.wrapping_mul(i) >> 13) as usize & 1]).collect();
        dear.push(now_ms(), None, Some(&text), &[]);
        let asked = attacker.send(12, &produce_request(-1, name, 0, dear.build())).await;
        let mut small = rig.raw().await;
        longest = longest.max(longest_wait(&mut bystander, "calm", Duration::from_secs(2)).await);
        // On the same topic.
        longest = longest.max(longest_wait(&mut small, name, Duration::from_secs(1)).await);
        dears.push((name, attacker, asked));
    }
    for (name, mut attacker, asked) in dears {
        let answer = attacker.receive::<ProduceRequest>(12, asked).await;
        let produced = &answer.responses[0].partition_responses[0];
        assert_eq!(produced.error_code, 0, "{name}: it was done, not refused: {:?}", produced.error_message);
    }
    longest
}

/// A record's bytes around what it holds.
fn record(body: &[u8]) -> Vec<u8> {
    [&[2 * body.len() as u8][..], body].concat()
}

/// A batch around these bytes, which says that they are so many records.
fn around(records: &[u8], codec: u8, count: i32) -> Bytes {
    let mut batch = batch(&["x"])[..HEADER_LEN].to_vec();
    batch[22] = codec;
    batch[23..27].copy_from_slice(&(count - 1).to_be_bytes());
    batch[57..61].copy_from_slice(&count.to_be_bytes());
    batch.extend_from_slice(records);
    let length = (batch.len() - 12) as i32;
    batch[8..12].copy_from_slice(&length.to_be_bytes());
    let crc = sabir_base::crc::crc32c(&batch[21..]);
    batch[17..21].copy_from_slice(&crc.to_be_bytes());
    batch.into()
}

/// Attributes, time, offset, no key, a value of one byte, no headers.
const GOOD: [u8; 7] = [0, 0, 0, 1, 2, b'v', 0];
const SECOND: [u8; 7] = [0, 0, 2, 1, 2, b'v', 0];

#[tokio::test]
async fn what_makes_no_sense_under_a_right_checksum_is_refused_in_every_codec() {
    let rig = Rig::start();
    let mut raw = rig.raw().await;
    raw.topic("t", 1).await;
    let two = [record(&GOOD), record(&SECOND)].concat();
    let cases: [(&str, Vec<u8>, i32, bool); 17] = [
        ("two good ones", two.clone(), 2, true),
        ("a header without a value", record(&[0, 0, 0, 1, 2, b'v', 2, 2, b'k', 1]), 1, true),
        ("no value", record(&[0, 0, 0, 1, 1, 0]), 1, true),
        ("nothing", vec![], 1, false),
        ("noise", (0..100).map(|i: u8| i.wrapping_mul(151) ^ 0x5a).collect(), 1, false),
        ("one that says ten", record(&GOOD), 10, false),
        ("two that say one", two.clone(), 1, false),
        ("bytes behind the last", [&two[..], b"xyz"].concat(), 2, false),
        ("a record without bytes", vec![0], 1, false),
        ("a negative length", vec![9, 1, 2, 3], 1, false),
        ("a key longer than its record", record(&[0, 0, 0, 100, 2, b'v', 0]), 1, false),
        ("a value longer than its record", record(&[0, 0, 0, 1, 100, b'v', 0]), 1, false),
        ("fewer than no headers", record(&[0, 0, 0, 1, 2, b'v', 1]), 1, false),
        ("fewer headers than it says", record(&[0, 0, 0, 1, 2, b'v', 10]), 1, false),
        ("a header without a key", record(&[0, 0, 0, 1, 2, b'v', 2, 1, 2, b'x']), 1, false),
        ("bytes behind the headers", record(&[0, 0, 0, 1, 2, b'v', 0, 7]), 1, false),
        ("the same offset twice", [record(&GOOD), record(&GOOD)].concat(), 2, false),
    ];
    for codec in Compression::ALL {
        for (what, records, count, good) in &cases {
            let mut body = Vec::new();
            codec.compress(records, &mut body);
            let answer = raw.produce("t", 0, around(&body, codec as u8, *count)).await;
            match good {
                true => assert_eq!(answer.error_code, 0, "{what}, {codec}: {:?}", answer.error_message),
                false => assert_eq!(
                    ErrorCode::from_i16(answer.error_code),
                    Some(ErrorCode::InvalidRecord),
                    "{what}, {codec}"
                ),
            }
        }
        if codec != Compression::None {
            let noise: Vec<u8> = (0..60).map(|i: u8| i.wrapping_mul(77) ^ 0xa5).collect();
            let answer = raw.produce("t", 0, around(&noise, codec as u8, 1)).await;
            assert_code(answer.error_code, ErrorCode::InvalidRecord);
        }
    }
}

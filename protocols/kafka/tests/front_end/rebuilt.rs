//! What a Kafka consumer reads of batches that another front end built, and of a queue that is done with some of its messages.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use sabir_broker::queue::QueueTarget;
use sabir_broker::{
    AppendAcks, AppendTarget, Broker, BrokerOptions, Caller, Converter, NewTopic, ReadHold, ReadMemory, Topic,
};
use sabir_frontend::Protocol;
use sabir_kafka::Kafka;
use sabir_kafka::wire::messages::fetch::{FetchPartition, FetchRequest, FetchTopic, PartitionData};
use sabir_kafka::wire::messages::heartbeat::HeartbeatRequest;
use sabir_kafka::wire::{ErrorCode, RecordData};
use sabir_model::batch::{BatchBuilder, Compression, RecordView, records, split, verify_crc};
use sabir_model::{FrontendNo, Message, QueueConfig, TopicConfig};
use sabir_net::NetOptions;

use crate::memory::taken;
use crate::rig::{Raw, Rig, Setup};

const OTHER: &str = "other";

/// The other front end's records have their body in a header.
fn message_of(record: &RecordView<'_>) -> Message {
    let mut message = Message { timestamp_ms: record.timestamp, ..Message::default() };
    for header in record.headers {
        message.body = header.value.map(Bytes::copy_from_slice);
    }
    message.content_type = Some("text/plain".into());
    message
}

fn rig() -> Rig {
    with_memory(NetOptions::default().frame_memory)
}

fn with_memory(frame_memory: usize) -> Rig {
    with_threads(2, frame_memory)
}

fn with_threads(io_threads: usize, frame_memory: usize) -> Rig {
    Rig::with(Setup {
        net: NetOptions { io_threads, frame_memory, ..NetOptions::default() },
        options: |options: &mut BrokerOptions| {
            options.front_ends = vec![Kafka.name(), OTHER];
            options.converters = vec![Converter {
                front_end: OTHER,
                reads_unnamed: false,
                to_message: message_of,
                address: None,
                delay_queue: None,
                dead_letter: None,
                redrive: None,
            }];
        },
        ..Setup::default()
    })
}

async fn made(broker: &Broker, partitions: u32, config: TopicConfig) -> Arc<Topic> {
    let new = NewTopic { name: "t".into(), partitions, config, internal: false, unlike: false };
    broker.create_topics(&Caller::front_end(OTHER), vec![new]).await.remove(0).unwrap()
}

/// Has a front end append one batch; of the operator's it is a client's as it came.
async fn append(broker: &Broker, topic: &Arc<Topic>, origin: FrontendNo, bodies: &[&str]) {
    let caller = Caller::front_end(OTHER);
    let target = AppendTarget::new(&caller, topic, 0, AppendAcks::InSync, origin).unwrap();
    let mut batch = BatchBuilder::new(Compression::None);
    for (at, body) in bodies.iter().enumerate() {
        let body = Some(body.as_bytes());
        let headers: &[(&[u8], Option<&[u8]>)] = &[(b"body", body)];
        match origin {
            FrontendNo::NONE => batch.push(at as i64, Some(b"key"), body, &[]),
            _ => batch.push(at as i64, None, None, headers),
        }
    }
    let batch = batch.build_checked(&target.rules(), broker.wall_ms()).unwrap();
    let appending = broker.append(vec![target.append(batch).unwrap()]);
    broker.flush();
    appending.await.remove(0).unwrap();
}

/// Has the other front end append a message of so many bytes that takes next to nothing compressed.
async fn append_large(broker: &Broker, topic: &Arc<Topic>, partition: i32, bytes: usize) {
    let caller = Caller::front_end(OTHER);
    let target = AppendTarget::new(&caller, topic, partition, AppendAcks::InSync, topic.made_by).unwrap();
    let mut batch = BatchBuilder::new(Compression::Zstd);
    batch.push(0, None, None, &[(b"body", Some(&vec![b'x'; bytes]))]);
    let batch = batch.build_checked(&target.rules(), broker.wall_ms()).unwrap();
    let appending = broker.append(vec![target.append(batch).unwrap()]);
    broker.flush();
    appending.await.remove(0).unwrap();
}

/// What each of the partitions gives within these bounds: bytes and batches.
async fn sizes(raw: &mut Raw, partitions: i32, from: i64, each: i32, max_bytes: i32) -> Vec<(usize, usize)> {
    let wanted = |partition| FetchPartition {
        partition,
        fetch_offset: from,
        partition_max_bytes: each,
        ..Default::default()
    };
    let partitions = (0..partitions).map(wanted).collect();
    let request = FetchRequest {
        max_wait_ms: 50,
        min_bytes: 1,
        max_bytes,
        session_epoch: -1,
        topics: vec![FetchTopic { topic: "t".into(), partitions, ..Default::default() }],
        ..Default::default()
    };
    let response = raw.call(12, &request).await;
    let size = |records: &RecordData| (records.len(), split(&records.to_bytes()).count());
    response.responses[0].partitions.iter().map(|answer| size(answer.records.as_ref().unwrap())).collect()
}

const MIB: usize = 1 << 20;

#[tokio::test]
async fn no_more_is_given_than_asked_for_however_little_it_takes_stored() {
    let rig = rig();
    let topic = made(&rig.broker, 4, TopicConfig::default()).await;
    for partition in 0..4 {
        for _ in 0..10 {
            append_large(&rig.broker, &topic, partition, MIB).await;
        }
    }
    let mut raw = rig.raw().await;
    let batches = |sizes: Vec<(usize, usize)>| sizes.into_iter().map(|(_, n)| n).collect::<Vec<_>>();
    // Each partition's own bound: the first batch of all is given whatever its size.
    assert_eq!(batches(sizes(&mut raw, 4, 0, 100, 50 << 20).await), [1, 0, 0, 0]);
    assert_eq!(batches(sizes(&mut raw, 4, 0, MIB as i32, 50 << 20).await), [1, 0, 0, 0]);
    assert_eq!(batches(sizes(&mut raw, 4, 0, 5 * MIB as i32 / 2, 50 << 20).await), [2; 4]);
    // That of all of them.
    assert_eq!(batches(sizes(&mut raw, 4, 0, 50 << 20, 5 * MIB as i32 / 2).await), [2, 0, 0, 0]);
    assert_eq!(batches(sizes(&mut raw, 4, 8, 50 << 20, 9 * MIB as i32).await), [2; 4]);
    for (bytes, batches) in sizes(&mut raw, 4, 0, 50 << 20, 50 << 20).await {
        assert!(batches == 10 && bytes > 10 * MIB, "{batches} of {bytes} bytes");
    }
}

#[tokio::test]
async fn what_is_given_has_memory_and_waits_for_what_other_readers_have() {
    let rig = with_memory(8 * MIB);
    let topic = made(&rig.broker, 1, TopicConfig::default()).await;
    for _ in 0..2 {
        append_large(&rig.broker, &topic, 0, 3 * MIB).await;
    }
    let memory = rig.net.as_ref().unwrap().limits().frame_memory.clone();
    let mut raw = rig.raw().await;
    let all = taken(&memory, 6 * MIB).await;
    let ReadHold::Now(other) = memory.hold(2 * MIB) else { panic!("there is room") };
    let mut waiting = Box::pin(sizes(&mut raw, 1, 0, 50 << 20, 50 << 20));
    assert!(tokio::time::timeout(Duration::from_millis(200), &mut waiting).await.is_err());
    // Where no other reader has any it is given, whatever frames have.
    drop(other);
    let (bytes, batches) = waiting.await[0];
    assert!(batches == 1 && bytes > 3 * MIB, "{batches} of {bytes} bytes");
    drop(all);
    let _some = taken(&memory, 3 * MIB).await;
    assert_eq!(sizes(&mut raw, 1, 1, 50 << 20, 50 << 20).await[0].1, 1);
}

/// What partitions of `t` give, one after the other, within so many bytes: errors and bytes.
async fn errors(raw: &mut Raw, partitions: i32, max_bytes: i32) -> Vec<(i16, usize)> {
    let wanted =
        |partition| FetchPartition { partition, partition_max_bytes: max_bytes, ..Default::default() };
    let request = FetchRequest {
        max_wait_ms: 50,
        min_bytes: 1,
        max_bytes,
        session_epoch: -1,
        topics: vec![FetchTopic {
            topic: "t".into(),
            partitions: (0..partitions).map(wanted).collect(),
            ..Default::default()
        }],
        ..Default::default()
    };
    let response = raw.call(12, &request).await;
    let given =
        |answer: &PartitionData| (answer.error_code, answer.records.as_ref().map_or(0, RecordData::len));
    response.responses[0].partitions.iter().map(given).collect()
}

#[tokio::test]
async fn a_batch_for_which_no_memory_would_do_is_an_error_of_its_partition() {
    let rig = with_memory(4 * MIB);
    let topic = made(&rig.broker, 3, TopicConfig::default()).await;
    append_large(&rig.broker, &topic, 0, 4 * MIB).await;
    append_large(&rig.broker, &topic, 1, 3 * MIB + MIB / 2).await;
    append_large(&rig.broker, &topic, 2, 40 * MIB).await;
    let mut raw = rig.raw().await;
    let too_large = ErrorCode::MessageTooLarge.code();
    for max_bytes in [100, 50 << 20] {
        let given = errors(&mut raw, 3, max_bytes).await;
        assert_eq!((given[0], given[2].1), ((too_large, 0), 0), "{given:?}");
        assert!(given[1].0 == 0 && given[1].1 > 3 * MIB, "others are read: {given:?}");
    }
    assert_eq!(rig.dropped("memory"), 0, "its connection goes on");
    let counted = rig.metric("sabir_kafka_too_large_batches_total");
    assert!(counted >= 2, "{counted}");
}

/// Has the other front end append a batch of so many small messages.
async fn append_many(broker: &Broker, topic: &Arc<Topic>, messages: usize) {
    let caller = Caller::front_end(OTHER);
    let target = AppendTarget::new(&caller, topic, 0, AppendAcks::InSync, topic.made_by).unwrap();
    let mut batch = BatchBuilder::new(Compression::Zstd);
    (0..messages).for_each(|_| batch.push(0, None, None, &[(b"body", Some(b"few"))]));
    let batch = batch.build_checked(&target.rules(), broker.wall_ms()).unwrap();
    let appending = broker.append(vec![target.append(batch).unwrap()]);
    broker.flush();
    appending.await.remove(0).unwrap();
}

#[tokio::test]
async fn what_takes_long_to_rebuild_holds_up_nobody_else() {
    let rig = with_threads(1, NetOptions::default().frame_memory);
    let topic = made(&rig.broker, 1, TopicConfig::default()).await;
    append_many(&rig.broker, &topic, 1_000_000).await;
    let mut bystander = rig.raw().await;
    let wanted = FetchPartition { partition_max_bytes: 100, ..Default::default() };
    let request = FetchRequest {
        max_wait_ms: 50,
        min_bytes: 1,
        max_bytes: 100,
        session_epoch: -1,
        topics: vec![FetchTopic { topic: "t".into(), partitions: vec![wanted], ..Default::default() }],
        ..Default::default()
    };
    let mut readers = Vec::new();
    for _ in 0..3 {
        let mut raw = rig.raw().await;
        let asked = raw.send(12, &request).await;
        readers.push((raw, asked));
    }
    let (began, mut waits) = (Instant::now(), Vec::new());
    while began.elapsed() < Duration::from_secs(4) {
        let asked = Instant::now();
        bystander.ask(&HeartbeatRequest { group_id: "nobody".into(), ..Default::default() }).await;
        waits.push(asked.elapsed());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    waits.sort_unstable();
    let (p99, longest) = (waits[waits.len() * 99 / 100], waits[waits.len() - 1]);
    println!("p99 {p99:?}, longest {longest:?} of {}", waits.len());
    assert!(p99 < Duration::from_millis(500), "p99 {p99:?}, longest {longest:?}");
    for (raw, asked) in &mut readers {
        let response = raw.receive::<FetchRequest>(12, *asked).await;
        let answer = &response.responses[0].partitions[0];
        let bytes = answer.records.as_ref().unwrap().to_bytes();
        let (header, batch) = split(&bytes).next().unwrap().unwrap();
        verify_crc(batch).unwrap();
        assert_eq!((answer.error_code, header.count), (0, 1_000_000));
    }
}

/// A record as its reader sees it: offset, key, value and headers.
type Read = (i64, Option<String>, Option<String>, Vec<(String, String)>);

/// All there is from an offset on: the records, and the first and last offset of each batch.
async fn read(raw: &mut Raw, fetch_offset: i64) -> (Vec<Read>, Vec<(i64, i64)>) {
    let wanted = FetchPartition { fetch_offset, partition_max_bytes: 1 << 20, ..Default::default() };
    let request = FetchRequest {
        min_bytes: 1,
        session_epoch: -1,
        topics: vec![FetchTopic { topic: "t".into(), partitions: vec![wanted], ..Default::default() }],
        ..Default::default()
    };
    let response = raw.call(12, &request).await;
    let answer = &response.responses[0].partitions[0];
    assert_eq!(answer.error_code, 0);
    let bytes = answer.records.as_ref().unwrap().to_bytes();
    let text = |bytes: Option<&[u8]>| bytes.map(|bytes| String::from_utf8(bytes.to_vec()).unwrap());
    let (mut found, mut covered) = (Vec::new(), Vec::new());
    for batch in split(&bytes) {
        let (header, batch) = batch.unwrap();
        verify_crc(batch).unwrap();
        covered.push((header.base_offset.0, header.last_offset().0));
        for record in &records(batch, 1 << 20).unwrap() {
            let record = record.unwrap();
            let headers = record.headers.map(|h| (text(Some(h.key)).unwrap(), text(h.value).unwrap()));
            found.push((record.offset.0, text(record.key), text(record.value), headers.collect()));
        }
    }
    (found, covered)
}

fn other(offset: i64, body: &str) -> Read {
    (offset, None, Some(body.to_owned()), vec![("content-type".to_owned(), "text/plain".to_owned())])
}

fn own(offset: i64, body: &str) -> Read {
    (offset, Some("key".to_owned()), Some(body.to_owned()), Vec::new())
}

#[tokio::test]
async fn what_another_front_end_built_is_read_as_a_message_of_kafka() {
    let rig = rig();
    let topic = made(&rig.broker, 1, TopicConfig::default()).await;
    let number = topic.made_by;
    append(&rig.broker, &topic, number, &["a", "b"]).await;
    append(&rig.broker, &topic, FrontendNo::NONE, &["c"]).await;
    append(&rig.broker, &topic, number, &["d"]).await;
    let mut raw = rig.raw().await;
    let (found, covered) = read(&mut raw, 0).await;
    assert_eq!(found, [other(0, "a"), other(1, "b"), own(2, "c"), other(3, "d")]);
    assert_eq!(covered, [(0, 1), (2, 2), (3, 3)]);
    // A front end that this server does not know: as it is stored.
    append(&rig.broker, &topic, FrontendNo(99), &["e"]).await;
    let stored = (4, None, None, vec![("body".to_owned(), "e".to_owned())]);
    assert_eq!(read(&mut raw, 4).await.0, [stored]);
}

#[tokio::test]
async fn what_a_queue_is_done_with_is_a_gap() {
    let rig = rig();
    let topic = made(&rig.broker, 1, TopicConfig::of_queue(QueueConfig::default())).await;
    let number = topic.made_by;
    append(&rig.broker, &topic, number, &["a", "b", "c"]).await;
    append(&rig.broker, &topic, FrontendNo::NONE, &["d", "e", "f"]).await;
    append(&rig.broker, &topic, FrontendNo::NONE, &["g"]).await;
    append(&rig.broker, &topic, FrontendNo::NONE, &["h"]).await;
    let (queues, caller) = (rig.broker.queues(), Caller::front_end(OTHER));
    let target = QueueTarget::new(&caller, &topic).unwrap();
    let owner = queues.owner();
    for offset in 0..7 {
        let getting = queues.get(&caller, target, owner, false);
        rig.broker.flush();
        assert_eq!(getting.await.unwrap().unwrap().offset, offset);
    }
    let mut raw = rig.raw().await;
    // What is in flight is there.
    let (found, _) = read(&mut raw, 0).await;
    assert_eq!(found.len(), 8);
    queues.settle(target, owner, [1..2, 3..4, 5..7]);
    rig.broker.flush();
    while queues.stats(target).unwrap().in_flight != 3 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let (found, covered) = read(&mut raw, 0).await;
    assert_eq!(found, [other(0, "a"), other(2, "c"), own(4, "e"), own(7, "h")]);
    // The reader gets on over the gaps, and the batch that is as it was is given as it is.
    assert_eq!(covered, [(0, 2), (3, 5), (6, 6), (7, 7)]);
    assert_eq!(read(&mut raw, 6).await.0, [own(7, "h")]);
}

//! Produce.

use bytes::Bytes;
use sabir_base::varint::put_i64;
use sabir_kafka::wire::ErrorCode;
use sabir_kafka::wire::messages::api_versions::ApiVersionsRequest;
use sabir_kafka::wire::messages::delete_records::{
    DeleteRecordsPartition, DeleteRecordsRequest, DeleteRecordsTopic,
};
use sabir_kafka::wire::messages::init_producer_id::InitProducerIdRequest;
use sabir_kafka::wire::messages::produce::{PartitionProduceData, ProduceRequest, TopicProduceData};
use sabir_model::batch::{
    BatchBuilder, BatchHeader, Compression, HEADER_LEN, RecordView, records, rewrite_header, verify_crc,
};
use sabir_model::{Offset, ProducerId};

use crate::rig::{Raw, Rig, Setup, assert_code, batch, batch_with, now_ms, produce_request};

#[tokio::test]
async fn nothing_is_answered_to_a_producer_that_does_not_wait() {
    let rig = Rig::start();
    let mut raw = rig.raw().await;
    raw.topic("t", 1).await;
    for value in ["a", "b", "c"] {
        raw.send(12, &produce_request(0, "t", 0, batch(&[value]))).await;
    }
    // The next answer is to this request, and the batches before it are in.
    let correlation = raw.send(0, &ApiVersionsRequest::default()).await;
    raw.receive::<ApiVersionsRequest>(0, correlation).await;
    assert_eq!(raw.put("t", 0, &["d"]).await, 3);
}

#[tokio::test]
async fn a_refused_batch_that_nobody_waits_for_closes_the_connection() {
    let rig = Rig::start();
    let mut raw = rig.raw().await;
    raw.send(12, &produce_request(0, "nowhere", 0, batch(&["a"]))).await;
    assert_eq!(raw.closed().await, b"");
    assert_eq!(rig.dropped("refused_unanswered"), 1);
}

#[tokio::test]
async fn answers_come_in_the_order_of_requests_good_or_bad() {
    let rig = Rig::with(Setup { data_shards: 3, ..Setup::default() });
    let mut raw = rig.raw().await;
    raw.topic("t", 6).await;
    let mut sent = Vec::new();
    for i in 0..300 {
        let partition = if i % 7 == 0 { 99 } else { i % 6 };
        let correlation = raw.send(12, &produce_request(1, "t", partition, batch(&["x"]))).await;
        sent.push((correlation, partition));
    }
    let mut next = [0; 6];
    for (correlation, partition) in sent {
        let response = raw.receive::<ProduceRequest>(12, correlation).await;
        let answer = &response.responses[0].partition_responses[0];
        assert_eq!(answer.index, partition);
        if partition == 99 {
            assert_code(answer.error_code, ErrorCode::UnknownTopicOrPartition);
        } else {
            let place = &mut next[partition as usize];
            assert_eq!((answer.error_code, answer.base_offset), (0, *place));
            *place += 1;
        }
    }
}

#[tokio::test]
async fn each_partition_has_its_own_answer() {
    let rig = Rig::start();
    let mut raw = rig.raw().await;
    raw.topic("t", 2).await;
    let mut broken = batch(&["x"]).to_vec();
    *broken.last_mut().unwrap() ^= 1;
    let data = |index, records: Bytes| PartitionProduceData { index, records: Some(records) };
    let topic = |name: &str, partition_data| TopicProduceData {
        name: name.into(),
        partition_data,
        ..Default::default()
    };
    let request = ProduceRequest {
        acks: -1,
        topic_data: vec![
            topic("t", vec![data(1, batch(&["a", "b"])), data(0, broken.into()), data(5, batch(&["c"]))]),
            topic("nowhere", vec![data(0, batch(&["d"]))]),
            topic("t", vec![data(1, batch(&["e"])), PartitionProduceData { index: 0, records: None }]),
        ],
        ..Default::default()
    };
    let response = raw.call(12, &request).await;
    let answers = response.responses.iter().flat_map(|t| &t.partition_responses);
    let answers: Vec<_> =
        answers.map(|p| (p.index, ErrorCode::from_i16(p.error_code).unwrap(), p.base_offset)).collect();
    assert_eq!(
        answers,
        [
            (1, ErrorCode::None, 0),
            (0, ErrorCode::CorruptMessage, -1),
            (5, ErrorCode::UnknownTopicOrPartition, -1),
            (0, ErrorCode::UnknownTopicOrPartition, -1),
            (1, ErrorCode::None, 2),
            (0, ErrorCode::InvalidRecord, -1),
        ]
    );
    assert_eq!(rig.metric("sabir_bad_batches_total{protocol=\"kafka\"}"), 2);
}

#[tokio::test]
async fn acknowledgements_are_all_one_or_none() {
    let rig = Rig::start();
    let mut raw = rig.raw().await;
    raw.topic("t", 1).await;
    for acks in [2, -2, i16::MAX] {
        let response = raw.call(12, &produce_request(acks, "t", 0, batch(&["a"]))).await;
        assert_code(response.responses[0].partition_responses[0].error_code, ErrorCode::InvalidRequiredAcks);
    }
    raw.topic_with("two", 1, &[("min.insync.replicas", "2")]).await;
    let all = raw.produce("two", 0, batch(&["a"])).await;
    assert_code(all.error_code, ErrorCode::NotEnoughReplicas);
    let one = raw.call(12, &produce_request(1, "two", 0, batch(&["a"]))).await;
    assert_eq!(one.responses[0].partition_responses[0].error_code, 0);
}

#[tokio::test]
async fn the_topics_limits_hold() {
    let rig = Rig::start();
    let mut raw = rig.raw().await;
    let small = batch(&["x"]);
    raw.topic_with("small", 1, &[("max.message.bytes", &small.len().to_string())]).await;
    assert_eq!(raw.produce("small", 0, small).await.error_code, 0);
    let refused = raw.produce("small", 0, batch(&["xy"])).await;
    assert_code(refused.error_code, ErrorCode::MessageTooLarge);
    assert!(refused.error_message.unwrap().contains("max.message.bytes"));

    raw.topic("plain", 1).await;
    let at = |time: i64| {
        let mut builder = BatchBuilder::new(Compression::None);
        builder.push(time, None, Some(b"x"), &[]);
        builder.build()
    };
    let ahead = raw.produce("plain", 0, at(now_ms() + 2 * 3_600_000)).await;
    assert_code(ahead.error_code, ErrorCode::InvalidTimestamp);
    let named: Vec<_> = ahead.record_errors.iter().map(|record| record.batch_index).collect();
    assert_eq!(named, [0]);
    let taken = raw.produce("plain", 0, at(5)).await;
    assert_eq!((taken.error_code, taken.log_append_time_ms), (0, -1));
}

#[tokio::test]
async fn records_whose_times_are_refused_are_named_and_no_more_than_an_answer_has_room_for() {
    let rig = Rig::start();
    let mut raw = rig.raw().await;
    raw.topic("t", 3).await;
    let ahead = now_ms() + 2 * 3_600_000;
    let of = |times: &mut dyn Iterator<Item = i64>| {
        let mut builder = BatchBuilder::new(Compression::Gzip);
        times.for_each(|time| builder.push(time, None, None, &[]));
        builder.build()
    };
    let some = of(&mut [5, ahead, 5, ahead, ahead].into_iter());
    let many = of(&mut std::iter::repeat_n(ahead, 9_000));
    for version in [7, 8, 12] {
        let mut request = produce_request(-1, "t", 0, some.clone());
        let data = |index| PartitionProduceData { index, records: Some(many.clone()) };
        request.topic_data[0].partition_data.extend([data(1), data(2)]);
        let response = raw.call(version, &request).await;
        let partitions = &response.responses[0].partition_responses;
        for partition in partitions {
            assert_code(partition.error_code, ErrorCode::InvalidTimestamp);
        }
        let named = |at: usize| partitions[at].record_errors.iter().map(|record| record.batch_index);
        let expected: &[i32] = if version < 8 { &[] } else { &[1, 3, 4] };
        assert_eq!(named(0).collect::<Vec<_>>(), expected);
        assert_eq!(named(1).len() + named(2).len(), if version < 8 { 0 } else { 10_000 - 3 });
    }
}

#[tokio::test]
async fn who_has_an_id_says_its_epoch_and_the_other_way_round() {
    let rig = Rig::start();
    let mut raw = rig.raw().await;
    for (producer_id, producer_epoch) in [(5, -1), (-1, 0)] {
        let request = InitProducerIdRequest { producer_id, producer_epoch, ..Default::default() };
        assert_code(raw.ask(&request).await.error_code, ErrorCode::InvalidRequest);
    }
    let known = InitProducerIdRequest { producer_id: 5, producer_epoch: 0, ..Default::default() };
    assert_eq!(raw.ask(&known).await.error_code, 0);
}

#[tokio::test]
async fn a_topic_with_append_time_is_stamped() {
    let rig = Rig::start();
    let mut raw = rig.raw().await;
    raw.topic_with("stamped", 1, &[("message.timestamp.type", "LogAppendTime")]).await;
    let before = now_ms();
    let produced = raw.produce("stamped", 0, batch(&["a"])).await;
    assert_eq!(produced.error_code, 0);
    // The broker's time follows the clock of the machine, and may be some milliseconds beside it.
    let near = before - 1000..=now_ms() + 1000;
    assert!(near.contains(&produced.log_append_time_ms), "{}", produced.log_append_time_ms);
}

/// An idempotent Java producer gives up for good if it gets no id.
#[tokio::test]
async fn idempotent_producers_get_their_ids() {
    let rig = Rig::start();
    let mut raw = rig.raw().await;
    let mut seen = Vec::new();
    for version in 0..=5 {
        let response = raw.call(version, &InitProducerIdRequest::default()).await;
        assert_eq!((response.error_code, response.producer_epoch), (0, 0));
        assert!(response.producer_id >= 0 && !seen.contains(&response.producer_id));
        seen.push(response.producer_id);
    }
    let transactional = InitProducerIdRequest { transactional_id: Some("tx".into()), ..Default::default() };
    let refused = raw.ask(&transactional).await;
    assert_code(refused.error_code, ErrorCode::ClusterAuthorizationFailed);
    assert_eq!(refused.producer_id, -1);
}

fn numbered(producer: i64, epoch: i16, sequence: i32, values: &[&str]) -> Bytes {
    batch_with(BatchBuilder::new(Compression::None).producer(ProducerId(producer), epoch, sequence), values)
}

async fn producer_id(raw: &mut Raw) -> i64 {
    raw.ask(&InitProducerIdRequest::default()).await.producer_id
}

#[tokio::test]
async fn a_batch_sent_twice_is_there_once() {
    let rig = Rig::start();
    let mut raw = rig.raw().await;
    raw.topic("t", 1).await;
    let id = producer_id(&mut raw).await;
    let first = numbered(id, 0, 0, &["a", "b"]);
    assert_eq!(raw.produce("t", 0, first.clone()).await.base_offset, 0);
    let second = numbered(id, 0, 2, &["c"]);
    assert_eq!(raw.produce("t", 0, second.clone()).await.base_offset, 2);
    let again = raw.produce("t", 0, first).await;
    assert_eq!((again.error_code, again.base_offset), (0, 0));
    let again = raw.produce("t", 0, second).await;
    assert_eq!((again.error_code, again.base_offset), (0, 2));
    assert_eq!(raw.put("t", 0, &["d"]).await, 3);
}

#[tokio::test]
async fn gaps_and_old_epochs_are_refused() {
    let rig = Rig::start();
    let mut raw = rig.raw().await;
    raw.topic("t", 1).await;
    let id = producer_id(&mut raw).await;
    assert_eq!(raw.produce("t", 0, numbered(id, 1, 0, &["a"])).await.error_code, 0);
    let gap = raw.produce("t", 0, numbered(id, 1, 5, &["b"])).await;
    assert_code(gap.error_code, ErrorCode::OutOfOrderSequenceNumber);
    let old = raw.produce("t", 0, numbered(id, 0, 1, &["b"])).await;
    assert_code(old.error_code, ErrorCode::InvalidProducerEpoch);
    assert_eq!(raw.produce("t", 0, numbered(id, 1, 1, &["b"])).await.base_offset, 1);
}

/// Five requests may be under way: what one connection sends is appended in its order, whatever the broker waits for.
/// As Kafka 4.3.1 answered the same batches.
#[tokio::test]
async fn a_producer_without_an_epoch_is_known_and_asked_for_no_order() {
    let rig = Rig::start();
    let mut raw = rig.raw().await;
    raw.topic("t", 1).await;
    let mut told = Vec::new();
    for (epoch, sequence) in
        [(-1, 0), (-1, 5), (-1, 0), (-1, 5), (-1, 1), (0, 7), (-1, 8), (0, 8), (-2, 9), (0, -1)]
    {
        let answer = raw.produce("t", 0, numbered(77, epoch, sequence, &["x"])).await;
        told.push((answer.error_code, answer.base_offset));
    }
    let (old, nonsense) = (ErrorCode::InvalidProducerEpoch.code(), ErrorCode::InvalidRecord.code());
    let refused = [(old, -1), (0, 4), (old, -1), (nonsense, -1)];
    assert_eq!(told, [&[(0, 0), (0, 1), (0, 0), (0, 1), (0, 2), (0, 3)][..], &refused].concat());
    let unknown = raw.produce("t", 0, numbered(78, -2, 0, &["x"])).await;
    assert_code(unknown.error_code, ErrorCode::InvalidProducerEpoch);
}

#[tokio::test]
async fn attributes_that_mean_nothing_are_taken_and_stay_as_they_came() {
    let rig = Rig::start();
    let mut raw = rig.raw().await;
    raw.topic("t", 1).await;
    for (offset, attributes) in [0x40u16, 0x80, 0x4000].into_iter().enumerate() {
        let mut batch = batch(&["x"]).to_vec();
        batch[21..23].copy_from_slice(&attributes.to_be_bytes());
        let crc = sabir_base::crc::crc32c(&batch[21..]);
        batch[17..21].copy_from_slice(&crc.to_be_bytes());
        assert_eq!(raw.produce("t", 0, batch.into()).await.error_code, 0, "{attributes:x}");
        let stored = crate::uncommitted::fetched_from(&mut raw, "t", offset as i64).await;
        assert_eq!(&stored[21..23], attributes.to_be_bytes(), "{attributes:x}");
    }
}

#[tokio::test]
async fn idempotent_batches_are_pipelined_in_order() {
    let rig = Rig::with(Setup { data_shards: 3, ..Setup::default() });
    let mut raw = rig.raw().await;
    raw.topic("t", 1).await;
    let id = producer_id(&mut raw).await;
    let mut sent = Vec::new();
    for sequence in 0..500 {
        sent.push(raw.send(12, &produce_request(-1, "t", 0, numbered(id, 0, sequence, &["x"]))).await);
        if sent.len() == 5 {
            let correlation = sent.remove(0);
            let response = raw.receive::<ProduceRequest>(12, correlation).await;
            let answer = &response.responses[0].partition_responses[0];
            assert_eq!((answer.error_code, answer.base_offset), (0, i64::from(sequence) - 4));
        }
    }
}

#[tokio::test]
async fn nothing_transactional_is_taken() {
    let rig = Rig::start();
    let mut raw = rig.raw().await;
    raw.topic("t", 1).await;
    let mut request = produce_request(-1, "t", 0, batch(&["a"]));
    request.transactional_id = Some("tx".into());
    let response = raw.call(12, &request).await;
    assert_code(response.responses[0].partition_responses[0].error_code, ErrorCode::UnsupportedVersion);
    let marked = BatchBuilder::new(Compression::None).producer(ProducerId(1), 0, 0).transactional();
    let refused = raw.produce("t", 0, batch_with(marked, &["a"])).await;
    assert_code(refused.error_code, ErrorCode::UnsupportedVersion);
}

#[tokio::test]
async fn every_partition_of_a_fresh_topic_takes_writes_at_once() {
    let rig = Rig::with(Setup { data_shards: 3, ..Setup::default() });
    let mut raw = rig.raw().await;
    let id = producer_id(&mut raw).await;
    for round in 0..3 {
        let name = format!("wide{round}");
        raw.topic(&name, 256).await;
        let mut sent = Vec::new();
        for partition in 0..256 {
            for sequence in 0..2 {
                let batch = numbered(id, 0, sequence, &["x"]);
                sent.push((partition, raw.send(12, &produce_request(-1, &name, partition, batch)).await));
            }
        }
        for (partition, correlation) in sent {
            let response = raw.receive::<ProduceRequest>(12, correlation).await;
            let answer = &response.responses[0].partition_responses[0];
            assert_eq!((answer.index, answer.error_code), (partition, 0), "{:?}", answer.error_message);
        }
    }
}

/// `compression.type`: the topic's codec is what is stored and read, whatever producers use.
#[tokio::test]
async fn a_topics_codec_is_what_its_readers_get() {
    let rig = Rig::start();
    let mut raw = rig.raw().await;
    for (name, codec) in [
        ("uncompressed", Compression::None),
        ("gzip", Compression::Gzip),
        ("snappy", Compression::Snappy),
        ("lz4", Compression::Lz4),
        ("zstd", Compression::Zstd),
    ] {
        raw.topic_with(name, 1, &[("compression.type", name)]).await;
        let mut offset = 0;
        for from in Compression::ALL {
            let id = producer_id(&mut raw).await;
            let builder = BatchBuilder::new(from).producer(ProducerId(id), 0, 0);
            let sent = batch_with(builder, &["the same again", "the same again"]);
            for duplicate in [false, true] {
                let answer = raw.produce(name, 0, sent.clone()).await;
                assert_eq!((answer.error_code, answer.base_offset), (0, offset), "{from} {duplicate}");
            }
            let stored = crate::uncommitted::fetched_from(&mut raw, name, offset).await;
            let header = BatchHeader::parse(&stored).unwrap();
            assert_eq!(header.compression(), Ok(codec), "{name} from {from}");
            verify_crc(&stored).unwrap();
            let (read, came) = (records(&stored, 1 << 20).unwrap(), records(&sent, 1 << 20).unwrap());
            let bare = |record: RecordView<'_>| (record.timestamp, record.value.map(<[u8]>::to_vec));
            assert!(read.iter().map(|r| bare(r.unwrap())).eq(came.iter().map(|r| bare(r.unwrap()))));
            offset += 2;
        }
    }
}

/// As Kafka: a producer that is not known may begin anywhere, since its records may have gone; one that is known may not leave a gap.
#[tokio::test]
async fn a_producer_that_is_not_known_may_begin_anywhere() {
    let rig = Rig::start();
    let mut raw = rig.raw().await;
    raw.topic("t", 1).await;
    let id = producer_id(&mut raw).await;
    assert_eq!(raw.produce("t", 0, numbered(id, 0, 41, &["a", "b"])).await.base_offset, 0);
    let gap = raw.produce("t", 0, numbered(id, 0, 44, &["d"])).await;
    assert_code(gap.error_code, ErrorCode::OutOfOrderSequenceNumber);
    // That its records have gone from the log makes it no stranger.
    let gone = DeleteRecordsRequest {
        topics: vec![DeleteRecordsTopic {
            name: "t".into(),
            partitions: vec![DeleteRecordsPartition { partition_index: 0, offset: -1 }],
        }],
        timeout_ms: 10_000,
    };
    assert_eq!(raw.ask(&gone).await.topics[0].partitions[0].low_watermark, 2);
    let gap = raw.produce("t", 0, numbered(id, 0, 44, &["d"])).await;
    assert_code(gap.error_code, ErrorCode::OutOfOrderSequenceNumber);
    assert_eq!(raw.produce("t", 0, numbered(id, 0, 41, &["a", "b"])).await.base_offset, 0, "a duplicate");
    assert_eq!(raw.produce("t", 0, numbered(id, 0, 43, &["c"])).await.base_offset, 2);
}

/// One record, whose time is counted from that of a header in which something is changed.
fn odd(delta: i64, change: impl Fn(&mut BatchHeader)) -> Bytes {
    let mut builder = BatchBuilder::new(Compression::None);
    let now = now_ms();
    builder.push(now, None, Some(b"v"), &[]);
    let plain = builder.build();
    let mut header = BatchHeader::parse(&plain).unwrap();
    let mut body = vec![0];
    put_i64(&mut body, delta);
    body.extend_from_slice(&[0, 1, 2, b'v', 0]);
    let mut bytes = plain[..HEADER_LEN].to_vec();
    put_i64(&mut bytes, body.len() as i64);
    bytes.extend_from_slice(&body);
    header.length = bytes.len() as i32 - 12;
    change(&mut header);
    rewrite_header(&mut bytes, &mut header).unwrap();
    bytes.into()
}

/// As Kafka 4.3.1 answers the same bytes.
#[tokio::test]
async fn odd_headers_are_judged_as_by_the_original() {
    type Change = fn(&mut BatchHeader);
    use ErrorCode::{InvalidProducerEpoch, InvalidRecord, InvalidTimestamp, None as Taken};
    let cases: [(&str, i64, Change, ErrorCode); 22] = [
        ("base offset 99", 0, |h| h.base_offset = Offset(99), InvalidRecord),
        ("base offset -1", 0, |h| h.base_offset = Offset(-1), InvalidRecord),
        ("the last base offset", 0, |h| h.base_offset = Offset(i64::MAX), InvalidRecord),
        ("the first time", 0, |h| h.base_timestamp = i64::MIN, InvalidTimestamp),
        ("no time", 0, |h| h.base_timestamp = -1, Taken),
        ("a time before the epoch", 0, |h| h.base_timestamp = -2, Taken),
        ("a time in two hours", 7_200_000, |_| (), InvalidTimestamp),
        ("a time beyond all", i64::MAX, |_| (), InvalidTimestamp),
        ("times that wrap to the future", i64::MIN, |h| h.base_timestamp = -2, InvalidTimestamp),
        ("times that wrap to before the epoch", i64::MAX, |h| h.base_timestamp = i64::MAX, Taken),
        ("a wrong largest time", 0, |h| h.max_timestamp = 5, Taken),
        ("a negative producer", 0, |h| (h.producer_id, h.producer_epoch) = (ProducerId(-5), 0), Taken),
        ("an epoch of no producer", 0, |h| h.producer_epoch = 3, Taken),
        (
            "a negative epoch",
            0,
            |h| (h.producer_id, h.producer_epoch, h.base_sequence) = (ProducerId(7), -2, 0),
            InvalidProducerEpoch,
        ),
        ("no sequence", 0, |h| (h.producer_id, h.producer_epoch) = (ProducerId(7), 0), InvalidRecord),
        ("unknown attributes", 0, |h| h.attributes = 0x4000, Taken),
        ("all high attributes", 0, |h| h.attributes = i16::MIN, Taken),
        ("a control batch", 0, |h| h.attributes = 0x20, InvalidRecord),
        ("stamped by the producer", 0, |h| h.attributes = 8, Taken),
        ("a gap at the end", 0, |h| h.last_offset_delta = 1, InvalidRecord),
        ("no records", 0, |h| h.count = 0, InvalidRecord),
        ("more records than there are", 0, |h| (h.count, h.last_offset_delta) = (2, 1), InvalidRecord),
    ];
    let rig = Rig::start();
    let mut raw = rig.raw().await;
    raw.topic("t", 1).await;
    for (name, delta, change, expected) in cases {
        let answer = raw.produce("t", 0, odd(delta, change)).await;
        assert_eq!(ErrorCode::from_i16(answer.error_code), Some(expected), "{name}");
    }
}

#[tokio::test]
async fn a_topic_that_stamps_takes_any_time_and_keeps_no_attribute_that_means_nothing() {
    let rig = Rig::start();
    let mut raw = rig.raw().await;
    raw.topic_with("t", 1, &[("message.timestamp.type", "LogAppendTime")]).await;
    let answer = raw.produce("t", 0, odd(0, |h| h.attributes = 8)).await;
    assert_code(answer.error_code, ErrorCode::InvalidTimestamp);
    let answer = raw.produce("t", 0, odd(0, |h| (h.base_timestamp, h.attributes) = (i64::MIN, 0x40c0))).await;
    assert_eq!((answer.error_code, answer.base_offset), (0, 0));
    let stored = crate::uncommitted::fetched_from(&mut raw, "t", 0).await;
    let header = BatchHeader::parse(&stored).unwrap();
    assert_eq!((header.attributes, header.max_timestamp), (0x48, answer.log_append_time_ms));
    assert_eq!(verify_crc(&stored), Ok(()));
}

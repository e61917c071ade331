//! What is written is what is read.

use sabir_kafka::client::{Consumer, ConsumerOptions, OffsetAt, Producer, ProducerOptions, Record};
use sabir_kafka::wire::ErrorCode;
use sabir_kafka::wire::messages::list_offsets::{
    EARLIEST_LOCAL_TIMESTAMP, EARLIEST_PENDING_UPLOAD_TIMESTAMP, EARLIEST_TIMESTAMP, LATEST_TIERED_TIMESTAMP,
    LATEST_TIMESTAMP, ListOffsetsPartition, ListOffsetsPartitionResponse, ListOffsetsRequest,
    ListOffsetsTopic, MAX_TIMESTAMP,
};
use sabir_kafka::wire::messages::offset_for_leader_epoch::{
    OffsetForLeaderEpochRequest, OffsetForLeaderPartition, OffsetForLeaderTopic,
};
use sabir_model::batch::{BatchBuilder, Compression};

use crate::rig::{PATIENCE, Raw, Rig, Setup, assert_code, now_ms};

#[tokio::test]
async fn every_codec_comes_back_as_it_was() {
    let rig = Rig::start();
    let client = rig.client().await;
    let headers: &[(&[u8], Option<&[u8]>)] = &[(b"h", Some(b"1")), (b"h", None)];
    for compression in Compression::ALL {
        let topic = format!("codec-{compression}");
        rig.raw().await.topic(&topic, 1).await;
        let producer = Producer::start(&client, ProducerOptions { compression, ..Default::default() }, None)
            .await
            .unwrap();
        let handle = producer.topic(&topic).await.unwrap();
        for i in 0..1000 {
            let value = format!("value {i}");
            let record =
                Record { key: Some(b"k"), value: Some(value.as_bytes()), headers, timestamp: Some(i) };
            producer.feed().push(handle, 0, &record, 0).unwrap();
        }
        producer.flush().await;
        let mut consumer =
            Consumer::of_topic(&client, &topic, OffsetAt::Earliest, ConsumerOptions::default())
                .await
                .unwrap();
        let mut next = 0;
        while next < 1000 {
            for part in consumer.poll(PATIENCE).await.unwrap() {
                part.for_each(|record| {
                    assert_eq!((record.offset.0, record.timestamp), (next, next));
                    assert_eq!(record.value, Some(format!("value {next}").as_bytes()));
                    let got: Vec<_> = record.headers.map(|h| (h.key, h.value)).collect();
                    assert_eq!(got, headers);
                    next += 1;
                })
                .unwrap();
            }
        }
    }
}

async fn offset_at(raw: &mut Raw, version: i16, timestamp: i64) -> ListOffsetsPartitionResponse {
    let partition = ListOffsetsPartition { timestamp, ..Default::default() };
    let topic = ListOffsetsTopic { name: "t".into(), partitions: vec![partition] };
    let mut response =
        raw.call(version, &ListOffsetsRequest { topics: vec![topic], ..Default::default() }).await;
    response.topics.remove(0).partitions.remove(0)
}

#[tokio::test]
async fn offsets_are_found_by_time_and_by_name() {
    let rig = Rig::start();
    let mut raw = rig.raw().await;
    raw.topic("t", 1).await;
    let empty = offset_at(&mut raw, 11, 5).await;
    assert_eq!((empty.error_code, empty.offset, empty.timestamp), (0, -1, -1));
    let base = now_ms() - 1000;
    for times in [&[base + 10, base + 30, base + 20][..], &[base + 40, base + 50]] {
        let mut builder = BatchBuilder::new(Compression::None);
        times.iter().for_each(|time| builder.push(*time, None, Some(b"x"), &[]));
        assert_eq!(raw.produce("t", 0, builder.build()).await.error_code, 0);
    }
    for (timestamp, offset, found) in [
        (0, 0, base + 10),
        (base + 11, 1, base + 30),
        (base + 31, 3, base + 40),
        (base + 50, 4, base + 50),
        (base + 51, -1, -1),
        (EARLIEST_TIMESTAMP, 0, -1),
        (LATEST_TIMESTAMP, 5, -1),
        (MAX_TIMESTAMP, 4, base + 50),
        (EARLIEST_LOCAL_TIMESTAMP, 0, -1),
        (LATEST_TIERED_TIMESTAMP, -1, -1),
        (EARLIEST_PENDING_UPLOAD_TIMESTAMP, -1, -1),
    ] {
        let answer = offset_at(&mut raw, 11, timestamp).await;
        assert_eq!((answer.error_code, answer.offset, answer.timestamp), (0, offset, found), "{timestamp}");
        assert_eq!(answer.leader_epoch < 0, offset < 0, "{timestamp}: what is not found has no epoch");
    }
    for (version, timestamp) in [(6, MAX_TIMESTAMP), (7, EARLIEST_LOCAL_TIMESTAMP), (11, -7)] {
        assert_code(offset_at(&mut raw, version, timestamp).await.error_code, ErrorCode::UnsupportedVersion);
    }
}

#[tokio::test]
async fn what_a_version_does_not_know_is_refused_of_what_is_not_there_too() {
    let rig = Rig::start();
    let mut raw = rig.raw().await;
    for timestamp in [-3, -4, -99] {
        let partitions = vec![ListOffsetsPartition { timestamp, ..Default::default() }];
        let topics = vec![ListOffsetsTopic { name: "nowhere".into(), partitions }];
        let response = raw.call(6, &ListOffsetsRequest { topics, ..Default::default() }).await;
        assert_code(response.topics[0].partitions[0].error_code, ErrorCode::UnsupportedVersion);
    }
}

#[tokio::test]
async fn a_partition_named_twice_is_answered_once_and_its_topic_too() {
    let rig = Rig::start();
    let mut raw = rig.raw().await;
    raw.topic("t", 3).await;
    let asked =
        |partition_index| ListOffsetsPartition { partition_index, timestamp: -1, ..Default::default() };
    let topic = |name: &str, partitions: &[i32]| ListOffsetsTopic {
        name: name.into(),
        partitions: partitions.iter().copied().map(asked).collect(),
    };
    let topics = vec![topic("t", &[0, 1, 0]), topic("nowhere", &[0, 0]), topic("t", &[2, 1, 1, 9])];
    let response = raw.ask(&ListOffsetsRequest { topics, ..Default::default() }).await;
    let answered = |at: usize| -> (&str, Vec<(i32, i16, i64)>) {
        let topic = &response.topics[at];
        (&topic.name, topic.partitions.iter().map(|p| (p.partition_index, p.error_code, p.offset)).collect())
    };
    let twice = ErrorCode::InvalidRequest.code();
    let unknown = ErrorCode::UnknownTopicOrPartition.code();
    assert_eq!(answered(0), ("t", vec![(0, twice, -1), (1, twice, -1), (2, 0, 0), (9, unknown, -1)]));
    assert_eq!(answered(1), ("nowhere", vec![(0, twice, -1)]));
    assert_eq!(response.topics.len(), 2);
}

/// A client that sees an offset as the end can read everything before it, without gaps, at any moment of a busy partition.
#[tokio::test]
async fn offsets_are_contiguous_and_never_ahead_of_what_is_there() {
    let rig = Rig::with(Setup { data_shards: 3, ..Setup::default() });
    let mut raw = rig.raw().await;
    raw.topic("t", 1).await;
    let producers: Vec<_> = (0..4)
        .map(|_| {
            let address = rig.address.to_string();
            tokio::spawn(async move {
                let client =
                    sabir_kafka::client::KafkaClient::connect(&address, Default::default()).await.unwrap();
                let producer = Producer::start(&client, ProducerOptions::default(), None).await.unwrap();
                let handle = producer.topic("t").await.unwrap();
                for _ in 0..2000 {
                    while producer.feed().push(handle, 0, &Record::value(b"0123456789"), 0).is_err() {
                        producer.room().await;
                    }
                    tokio::task::yield_now().await;
                }
                producer.flush().await;
            })
        })
        .collect();
    let client = rig.client().await;
    let mut consumer =
        Consumer::of_topic(&client, "t", OffsetAt::Earliest, ConsumerOptions::default()).await.unwrap();
    let mut next = 0;
    while next < 8000 {
        let end = offset_at(&mut raw, 11, LATEST_TIMESTAMP).await.offset;
        while next < end {
            for part in consumer.poll(PATIENCE).await.unwrap() {
                part.for_each(|record| {
                    assert_eq!(record.offset.0, next);
                    next += 1;
                })
                .unwrap();
            }
        }
        tokio::task::yield_now().await;
    }
    for producer in producers {
        producer.await.unwrap();
    }
    assert_eq!(offset_at(&mut raw, 11, LATEST_TIMESTAMP).await.offset, 8000);
}

#[tokio::test]
async fn leader_epochs_are_checked_and_their_ends_known() {
    let rig = Rig::start();
    let mut raw = rig.raw().await;
    raw.topic("t", 1).await;
    raw.put("t", 0, &["a", "b"]).await;
    let epoch = offset_at(&mut raw, 11, LATEST_TIMESTAMP).await.leader_epoch;
    assert!(epoch >= 0);
    for (known, expected) in [
        (-2, ErrorCode::FencedLeaderEpoch),
        (-1, ErrorCode::None),
        (epoch - 1, ErrorCode::FencedLeaderEpoch),
        (epoch, ErrorCode::None),
        (epoch + 1, ErrorCode::UnknownLeaderEpoch),
    ] {
        let partition =
            ListOffsetsPartition { timestamp: -1, current_leader_epoch: known, ..Default::default() };
        let topic = ListOffsetsTopic { name: "t".into(), partitions: vec![partition] };
        let response = raw.ask(&ListOffsetsRequest { topics: vec![topic], ..Default::default() }).await;
        assert_code(response.topics[0].partitions[0].error_code, expected);
    }
    let fenced =
        OffsetForLeaderPartition { current_leader_epoch: -2, leader_epoch: epoch, ..Default::default() };
    let topic = OffsetForLeaderTopic { topic: "t".into(), partitions: vec![fenced] };
    let response = raw.ask(&OffsetForLeaderEpochRequest { topics: vec![topic], ..Default::default() }).await;
    assert_code(response.topics[0].partitions[0].error_code, ErrorCode::FencedLeaderEpoch);
    for version in 2..=4 {
        let partition = OffsetForLeaderPartition { leader_epoch: epoch, ..Default::default() };
        let topic = OffsetForLeaderTopic { topic: "t".into(), partitions: vec![partition] };
        let request = OffsetForLeaderEpochRequest { topics: vec![topic], ..Default::default() };
        let response = raw.call(version, &request).await;
        let end = &response.topics[0].partitions[0];
        assert_eq!((end.error_code, end.leader_epoch, end.end_offset), (0, epoch, 2));
    }
}

//! The client against a real broker: Kafka itself or anything that speaks its protocol, at `KAFKA_ADDR` (host:port).
#![allow(clippy::unwrap_used, reason = "a failure is what a test is for")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use sabir_kafka::client::{
    Acks, Committer, ConnectOptions, Consumer, ConsumerOptions, Error, KafkaClient, KafkaTopicSpec, OffsetAt,
    OnOutOfRange, Producer, ProducerOptions, Record, partition_of_key,
};
use sabir_kafka::wire::api::coded_versions;
use sabir_kafka::wire::{ApiKey, ErrorCode};
use sabir_model::batch::Compression;

const NEEDS: &str = "KAFKA_ADDR names a running broker";

fn address() -> String {
    std::env::var("KAFKA_ADDR").expect(NEEDS)
}

async fn connect() -> KafkaClient {
    KafkaClient::connect(&address(), ConnectOptions::default()).await.expect(NEEDS)
}

async fn connect_capped(api: ApiKey, version: i16) -> KafkaClient {
    let options = ConnectOptions { version_caps: vec![(api, version)], ..Default::default() };
    KafkaClient::connect(&address(), options).await.expect(NEEDS)
}

fn unique(name: &str) -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let nanos = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos();
    format!("{name}-{nanos}-{}", COUNT.fetch_add(1, Ordering::Relaxed))
}

async fn new_topic(client: &KafkaClient, name: &str, partitions: i32) -> String {
    let name = unique(name);
    client.create_topic(KafkaTopicSpec::new(&name, partitions)).await.unwrap();
    // Kafka answers before its partitions take writes.
    let ends: Vec<_> = (0..partitions).map(|p| (p, OffsetAt::Latest)).collect();
    client.list_offsets(&name, &ends).await.unwrap();
    name
}

type Read = (i32, i64, Option<Bytes>, Option<Bytes>, Vec<(Bytes, Option<Bytes>)>);

async fn read_all(client: &KafkaClient, topic: &str, count: u64, options: ConsumerOptions) -> Vec<Read> {
    let mut consumer = Consumer::of_topic(client, topic, OffsetAt::Earliest, options).await.unwrap();
    let mut read: Vec<Read> = Vec::new();
    let mut counted = 0;
    while counted < count {
        let fetched = consumer.poll(Duration::from_secs(20)).await.unwrap();
        assert!(!fetched.is_empty(), "{counted} of {count} records after 20 s");
        for part in fetched {
            counted += part.count;
            let copy = |b: Option<&[u8]>| b.map(Bytes::copy_from_slice);
            part.for_each(|r| {
                let headers = r.headers.map(|h| (Bytes::copy_from_slice(h.key), copy(h.value))).collect();
                read.push((part.partition, r.offset.0, copy(r.key), copy(r.value), headers));
            })
            .unwrap();
        }
    }
    assert_eq!(read.len() as u64, counted, "counting and decoding agree");
    assert_eq!(consumer.lag(), 0);
    read
}

#[tokio::test]
#[ignore = "needs a broker at KAFKA_ADDR"]
async fn every_codec_and_acknowledgement_round_trips() {
    let client = connect().await;
    let headers: &[(&[u8], Option<&[u8]>)] = &[(b"h", Some(b"1")), (b"h", None)];
    for compression in Compression::ALL {
        for acks in [Acks::All, Acks::Leader, Acks::None] {
            let topic = new_topic(&client, "codec", 1).await;
            let options = ProducerOptions { compression, acks, ..Default::default() };
            let producer = Producer::start(&client, options, None).await.unwrap();
            let handle = producer.topic(&topic).await.unwrap();
            let value = "compressible ".repeat(500);
            for i in 0..10i64 {
                let key = i.to_string();
                let record = Record { headers, ..Record::keyed(key.as_bytes(), value.as_bytes()) };
                let expected = if acks == Acks::None { -1 } else { i };
                assert_eq!(producer.send(handle, Some(0), &record).await.unwrap(), (0, expected));
            }
            let tombstone = Record { key: Some(b"gone"), ..Record::default() };
            producer.send(handle, Some(0), &tombstone).await.unwrap();
            let read = read_all(&client, &topic, 11, ConsumerOptions::default()).await;
            for (i, (_, offset, key, read, headers)) in read.iter().take(10).enumerate() {
                assert_eq!(*offset, i as i64);
                assert_eq!(key.as_deref(), Some(i.to_string().as_bytes()));
                assert_eq!(read.as_deref(), Some(value.as_bytes()));
                assert_eq!(headers.len(), 2);
            }
            assert_eq!((&read[10].2, &read[10].3), (&Some(Bytes::from_static(b"gone")), &None));
        }
    }
}

/// Every version that both sides know, of the calls that a producer and a consumer make.
#[tokio::test]
#[ignore = "needs a broker at KAFKA_ADDR"]
async fn every_version_does_the_same() {
    let plain = connect().await;
    let offered = |api| plain_versions(&plain, api);
    for api in [
        ApiKey::ApiVersions,
        ApiKey::Metadata,
        ApiKey::Produce,
        ApiKey::Fetch,
        ApiKey::ListOffsets,
        ApiKey::FindCoordinator,
        ApiKey::OffsetCommit,
        ApiKey::OffsetFetch,
        ApiKey::CreateTopics,
        ApiKey::DeleteTopics,
        ApiKey::InitProducerId,
    ] {
        let (low, high) = offered(api).await;
        for version in
            low.max(*coded_versions(api).unwrap().start())..=high.min(*coded_versions(api).unwrap().end())
        {
            let client = connect_capped(api, version).await;
            let all = everything(&client).await;
            assert!(all.is_ok(), "{api} v{version}: {all:?}");
        }
    }
}

async fn plain_versions(client: &KafkaClient, api: ApiKey) -> (i16, i16) {
    client.any().await.unwrap().versions().offered(api).expect("served")
}

async fn everything(client: &KafkaClient) -> Result<(), Error> {
    let topic = unique("versions");
    client.create_topic(KafkaTopicSpec::new(&topic, 2)).await?;
    let options = ProducerOptions { idempotent: true, ..Default::default() };
    let producer = Producer::start(client, options, None).await?;
    let handle = producer.topic(&topic).await?;
    assert_eq!(producer.send(handle, Some(1), &Record::value(b"one")).await?, (1, 0));
    assert_eq!(producer.send(handle, Some(1), &Record::value(b"two")).await?, (1, 1));
    let offsets =
        client.list_offsets(&topic, &[(1, OffsetAt::Latest), (0, OffsetAt::Latest), (1, OffsetAt::Earliest)]);
    let offsets: Vec<_> = offsets.await?.iter().map(|o| (o.partition, o.offset)).collect();
    assert_eq!(offsets, [(1, 2), (0, 0), (1, 0)]);
    let read = read_all(client, &topic, 2, ConsumerOptions::default()).await;
    assert_eq!(read[1].3.as_deref(), Some(&b"two"[..]));

    let group = unique("group");
    client
        .commit_offsets(&group, &Committer::default(), &[(&topic, 1, 2, Some("note")), (&topic, 0, 0, None)])
        .await?;
    let mut committed = client.fetch_offsets(&group, Some(&[(&topic, 0), (&topic, 1)])).await?;
    committed.sort_by_key(|c| c.partition);
    let shown: Vec<_> = committed.iter().map(|c| (c.partition, c.offset, c.metadata.as_deref())).collect();
    assert_eq!(shown, [(0, 0, None), (1, 2, Some("note"))]);
    assert!(committed.iter().all(|c| c.topic == topic));

    client.delete_topics(&[&topic]).await?.remove(0)?;
    Ok(())
}

#[tokio::test]
#[ignore = "needs a broker at KAFKA_ADDR"]
async fn pipelined_and_numbered_records_stay_in_order() {
    const RECORDS: u64 = 200_000;
    let client = connect().await;
    let topic = new_topic(&client, "order", 6).await;
    let settled = Arc::new(AtomicU64::new(0));
    let counter = settled.clone();
    let on_delivery = Box::new(move |delivery: &sabir_kafka::client::Delivery<'_>| {
        assert!(delivery.result.is_ok(), "{delivery:?}");
        assert_eq!(delivery.stamps.len(), delivery.records as usize);
        counter.fetch_add(u64::from(delivery.records), Ordering::Relaxed);
    });
    let options = ProducerOptions {
        idempotent: true,
        batch_bytes: 4 << 10,
        buffer_bytes: 1 << 20,
        linger: Duration::from_millis(2),
        ..Default::default()
    };
    let producer = Producer::start(&client, options, Some(on_delivery)).await.unwrap();
    let handle = producer.topic(&topic).await.unwrap();
    let mut sent = 0u64;
    while sent < RECORDS {
        {
            let mut feed = producer.feed();
            while sent < RECORDS {
                let key = (sent % 1000).to_string();
                let partition = feed.choose(handle, Some(key.as_bytes()));
                let value = sent.to_be_bytes();
                if feed.push(handle, partition, &Record::keyed(key.as_bytes(), &value), sent).is_err() {
                    break;
                }
                sent += 1;
            }
        }
        producer.room().await;
    }
    producer.flush().await;
    assert_eq!(settled.load(Ordering::Relaxed), RECORDS);

    let read = read_all(&client, &topic, RECORDS, ConsumerOptions::default()).await;
    let mut last = [(-1i64, -1i64); 6];
    for (partition, offset, key, value, _) in read {
        let number = i64::from_be_bytes(value.unwrap()[..].try_into().unwrap());
        let (last_offset, last_number) = &mut last[partition as usize];
        assert_eq!(offset, *last_offset + 1);
        assert!(number > *last_number, "{number} after {last_number} in {partition}");
        assert_eq!(partition_of_key(&key.unwrap(), 6) as i32, partition);
        (*last_offset, *last_number) = (offset, number);
    }
    assert_eq!(last.iter().map(|(offset, _)| offset + 1).sum::<i64>(), RECORDS as i64);
}

#[tokio::test]
#[ignore = "needs a broker at KAFKA_ADDR"]
async fn reading_from_the_middle_of_a_batch() {
    let client = connect().await;
    let topic = new_topic(&client, "middle", 1).await;
    let producer = Producer::start(&client, ProducerOptions::default(), None).await.unwrap();
    let handle = producer.topic(&topic).await.unwrap();
    {
        let mut feed = producer.feed();
        for i in 0..100u8 {
            let value = [i];
            let record =
                Record { timestamp: Some(1_700_000_000_000 + i64::from(i)), ..Record::value(&value) };
            feed.push(handle, 0, &record, 0).unwrap();
        }
    }
    producer.flush().await;
    let by_time = client.list_offsets(&topic, &[(0, OffsetAt::Time(1_700_000_000_060))]).await.unwrap();
    assert_eq!(by_time[0].offset, 60);
    let mut consumer =
        Consumer::assign(&client, &[(&topic, 0, 60)], ConsumerOptions::default()).await.unwrap();
    let fetched = consumer.poll(Duration::from_secs(10)).await.unwrap().remove(0);
    assert_eq!((fetched.from, fetched.next, fetched.count), (60, 100, 40));
    let mut values = Vec::new();
    fetched.for_each(|r| values.push(r.value.unwrap()[0])).unwrap();
    assert_eq!(values, (60..100).collect::<Vec<u8>>());
    // At the end nothing comes; a record then does.
    assert!(consumer.poll(Duration::from_millis(50)).await.unwrap().is_empty());
    producer.send(handle, Some(0), &Record::value(b"!")).await.unwrap();
    assert_eq!(consumer.poll(Duration::from_secs(10)).await.unwrap()[0].count, 1);
    // Back again: what is under way by now is thrown away. A broker may give the batches one by one.
    consumer.seek(&topic, 0, 98);
    let mut again = Vec::new();
    while again.len() < 3 {
        for fetched in consumer.poll(Duration::from_secs(10)).await.unwrap() {
            fetched.for_each(|r| again.push(r.offset.0)).unwrap();
        }
    }
    assert_eq!(again, [98, 99, 100]);
}

#[tokio::test]
#[ignore = "needs a broker at KAFKA_ADDR"]
async fn errors_say_what_was_wrong() {
    let client = connect().await;
    let missing = client.topic("there-is-no-such-topic", false).await.unwrap_err();
    assert_eq!(missing.code(), Some(ErrorCode::UnknownTopicOrPartition));
    assert!(missing.to_string().contains("there-is-no-such-topic"), "{missing}");
    let topic = new_topic(&client, "errors", 1).await;
    let twice = client.create_topic(KafkaTopicSpec::new(&topic, 1)).await.unwrap_err();
    assert_eq!(twice.code(), Some(ErrorCode::TopicAlreadyExists));
    let checked = client.create_topics(&[KafkaTopicSpec::new("bad name!", 1)], true).await.unwrap();
    assert_eq!(checked[0].as_ref().unwrap_err().code(), Some(ErrorCode::InvalidTopic));

    let outside = |policy| {
        let options = ConsumerOptions { on_out_of_range: policy, ..Default::default() };
        let (client, topic) = (client.clone(), topic.clone());
        async move {
            let mut consumer = Consumer::assign(&client, &[(&topic, 0, 77)], options).await.unwrap();
            consumer.poll(Duration::from_secs(5)).await.map(|_| consumer.positions().next().unwrap().2)
        }
    };
    assert_eq!(outside(OnOutOfRange::Fail).await.unwrap_err().code(), Some(ErrorCode::OffsetOutOfRange));
    assert_eq!(outside(OnOutOfRange::Earliest).await.unwrap(), 0);

    let options = ProducerOptions { batch_bytes: 4 << 20, ..Default::default() };
    let producer = Producer::start(&client, options, None).await.unwrap();
    let handle = producer.topic(&topic).await.unwrap();
    let large = vec![0; 2 << 20];
    let refused = producer.send(handle, Some(0), &Record::value(&large)).await.unwrap_err();
    assert_eq!(refused.code(), Some(ErrorCode::MessageTooLarge));
    assert_eq!(producer.send(handle, Some(0), &Record::value(b"fits")).await.unwrap(), (0, 0));

    let nobody = KafkaClient::connect("127.0.0.1:1", ConnectOptions::default()).await.unwrap_err();
    assert!(matches!(nobody, Error::Connect { .. }), "{nobody}");
}

//! The producer against a broker that fails in every way it may: what is acknowledged is there, once and in order.
#![allow(clippy::unwrap_used, reason = "a failure is what a test is for")]

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;
use sabir_base::testing::best_of_three_async;
use sabir_kafka::client::{ConnectOptions, Delivery, KafkaClient, Producer, ProducerOptions, Record};
use sabir_kafka::wire::api::SUPPORTED;
use sabir_kafka::wire::messages::{
    api_versions as av, init_producer_id as ip, metadata as md, produce as pr,
};
use sabir_kafka::wire::{ApiKey, Encoded, ErrorCode, Reader, RequestHeader, encode_response};
use sabir_model::batch::{BatchHeader, records, verify_crc};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const PARTITIONS: i32 = 4;

/// A broker of one topic that keeps values in memory.
struct FakeBroker {
    port: i32,
    log: Mutex<HashMap<i32, Log>>,
    faults: Mutex<Faults>,
    /// Drops every connection, old and new.
    down: AtomicBool,
}

#[derive(Default)]
struct Log {
    values: Vec<u64>,
    next_sequence: i32,
    /// First sequence and offset of the last batches.
    recent: Vec<(i32, i64)>,
}

/// A seeded choice of what goes wrong, one request in `one_in`.
struct Faults {
    state: u64,
    one_in: u64,
    injected: u64,
    /// What every request is refused with, if with anything.
    always: Option<ErrorCode>,
}

enum Fault {
    None,
    CloseBefore,
    CloseAfter,
    Refuse(ErrorCode),
}

impl Faults {
    fn next(&mut self) -> Fault {
        if let Some(code) = self.always {
            return Fault::Refuse(code);
        }
        self.state = self.state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        let bits = self.state >> 33;
        if self.one_in == 0 || !bits.is_multiple_of(self.one_in) {
            return Fault::None;
        }
        self.injected += 1;
        match bits / self.one_in % 5 {
            0 => Fault::CloseBefore,
            1 => Fault::CloseAfter,
            2 => Fault::Refuse(ErrorCode::NotLeaderOrFollower),
            3 => Fault::Refuse(ErrorCode::RequestTimedOut),
            _ => Fault::Refuse(ErrorCode::NotEnoughReplicas),
        }
    }
}

impl FakeBroker {
    async fn start(seed: u64, one_in: u64) -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = i32::from(listener.local_addr().unwrap().port());
        let faults = Mutex::new(Faults { state: seed, one_in, injected: 0, always: None });
        let broker = Arc::new(Self { port, log: Mutex::default(), faults, down: AtomicBool::new(false) });
        let accepting = broker.clone();
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let broker = accepting.clone();
                // A connection ends with whatever goes wrong on it.
                tokio::spawn(async move { broker.serve(socket).await });
            }
        });
        broker
    }

    fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    async fn serve(&self, mut socket: TcpStream) -> Option<()> {
        loop {
            let len = socket.read_i32().await.ok()?;
            let mut frame = vec![0; len as usize];
            socket.read_exact(&mut frame).await.ok()?;
            if self.down.load(Ordering::Relaxed) {
                return None;
            }
            let answer = self.answer(&Bytes::from(frame))?;
            socket.write_all(&answer.to_bytes()).await.ok()?;
        }
    }

    fn answer(&self, frame: &Bytes) -> Option<Encoded> {
        let mut r = Reader::new(frame);
        let header = RequestHeader::decode(&mut r).unwrap();
        let (api, version, id) = (header.api().unwrap(), header.api_version, header.correlation_id);
        Some(match api {
            ApiKey::ApiVersions => {
                let row = |&(key, min_version, max_version): &(ApiKey, i16, i16)| av::ApiVersion {
                    api_key: key as i16,
                    min_version,
                    max_version,
                };
                let api_keys = SUPPORTED.iter().map(row).collect();
                encode_response(api, version, id, &av::ApiVersionsResponse { api_keys, ..Default::default() })
            }
            ApiKey::Metadata => encode_response(api, version, id, &self.metadata()),
            ApiKey::InitProducerId => {
                let response = ip::InitProducerIdResponse { producer_id: 7, ..Default::default() };
                encode_response(api, version, id, &response)
            }
            ApiKey::Produce => {
                let request = pr::ProduceRequest::decode(&mut r, version).unwrap();
                let fault = self.faults.lock().next();
                if matches!(fault, Fault::CloseBefore) {
                    return None;
                }
                let response = self.produce(request, &fault);
                if matches!(fault, Fault::CloseAfter) {
                    return None;
                }
                encode_response(api, version, id, &response)
            }
            other => panic!("{other} is not expected"),
        })
    }

    fn metadata(&self) -> md::MetadataResponse {
        let broker =
            md::MetadataResponseBroker { node_id: 3, host: "127.0.0.1".into(), port: self.port, rack: None };
        let partition = |index| md::MetadataResponsePartition {
            partition_index: index,
            leader_id: 3,
            ..Default::default()
        };
        let topic = md::MetadataResponseTopic {
            name: Some("t".into()),
            topic_id: [9; 16],
            partitions: (0..PARTITIONS).map(partition).collect(),
            ..Default::default()
        };
        md::MetadataResponse { brokers: vec![broker], topics: vec![topic], ..Default::default() }
    }

    fn produce(&self, request: pr::ProduceRequest, fault: &Fault) -> pr::ProduceResponse {
        let mut log = self.log.lock();
        let responses = request.topic_data.into_iter().map(|topic| {
            let partitions = topic.partition_data.into_iter().map(|data| {
                let log = log.entry(data.index).or_default();
                let result = match fault {
                    Fault::Refuse(code) => Err(*code),
                    _ => log.append(&data.records.unwrap()),
                };
                pr::PartitionProduceResponse {
                    index: data.index,
                    error_code: result.err().map_or(0, ErrorCode::code),
                    base_offset: result.unwrap_or(-1),
                    ..Default::default()
                }
            });
            pr::TopicProduceResponse {
                topic_id: topic.topic_id,
                partition_responses: partitions.collect(),
                ..Default::default()
            }
        });
        pr::ProduceResponse { responses: responses.collect(), ..Default::default() }
    }
}

impl Log {
    /// As a broker does for numbered batches: a repeated one is known, one behind a gap is refused.
    fn append(&mut self, batch: &Bytes) -> Result<i64, ErrorCode> {
        verify_crc(batch).unwrap();
        let header = BatchHeader::parse(batch).unwrap();
        assert_eq!(header.total_len(), batch.len());
        if header.producer_id.0 >= 0 {
            if let Some((_, offset)) = self.recent.iter().find(|(first, _)| *first == header.base_sequence) {
                return Ok(*offset);
            }
            if header.base_sequence != self.next_sequence {
                return Err(ErrorCode::OutOfOrderSequenceNumber);
            }
            self.next_sequence += header.count;
        }
        let offset = self.values.len() as i64;
        self.recent.push((header.base_sequence, offset));
        if self.recent.len() > 5 {
            self.recent.remove(0);
        }
        for record in &records(batch, 1 << 20).unwrap() {
            self.values.push(u64::from_be_bytes(record.unwrap().value.unwrap().try_into().unwrap()));
        }
        Ok(offset)
    }
}

async fn produce(
    broker: &FakeBroker,
    count: u64,
    options: ProducerOptions,
    acknowledged: Arc<AtomicU64>,
) -> u64 {
    let failed = Arc::new(AtomicU64::new(0));
    let failures = failed.clone();
    let on_delivery = Box::new(move |delivery: &Delivery<'_>| {
        let counter = if delivery.result.is_ok() { &acknowledged } else { &failures };
        counter.fetch_add(u64::from(delivery.records), Ordering::Relaxed);
    });
    let client = KafkaClient::connect(&broker.address(), ConnectOptions::default()).await.unwrap();
    let producer = Producer::start(&client, options, Some(on_delivery)).await.unwrap();
    let topic = producer.topic("t").await.unwrap();
    let mut next = 0;
    while next < count {
        {
            let mut feed = producer.feed();
            for _ in 0..50.min(count - next) {
                let partition = (next % PARTITIONS as u64) as usize;
                if feed.push(topic, partition, &Record::value(&next.to_be_bytes()), next).is_err() {
                    break;
                }
                next += 1;
            }
        }
        producer.room().await;
        tokio::task::yield_now().await;
    }
    tokio::time::timeout(Duration::from_secs(120), producer.flush()).await.expect("everything is settled");
    failed.load(Ordering::Relaxed)
}

fn options(idempotent: bool) -> ProducerOptions {
    ProducerOptions {
        idempotent,
        batch_bytes: 600,
        buffer_bytes: 64 << 10,
        linger: Duration::from_millis(1),
        ..Default::default()
    }
}

#[tokio::test]
async fn numbered_records_are_written_once_and_in_order() {
    for seed in 1..=3 {
        let broker = FakeBroker::start(seed, 8).await;
        let acknowledged = Arc::new(AtomicU64::new(0));
        let failed = produce(&broker, 20_000, options(true), acknowledged.clone()).await;
        assert_eq!((failed, acknowledged.load(Ordering::Relaxed)), (0, 20_000), "seed {seed}");
        assert!(broker.faults.lock().injected >= 10, "seed {seed}: too little went wrong");
        let log = broker.log.lock();
        for partition in 0..PARTITIONS {
            let expected: Vec<u64> =
                (0..20_000).filter(|v| v % PARTITIONS as u64 == partition as u64).collect();
            assert_eq!(log[&partition].values, expected, "seed {seed}, partition {partition}");
        }
    }
}

#[tokio::test]
async fn plain_records_are_written_at_least_once() {
    let broker = FakeBroker::start(5, 8).await;
    let acknowledged = Arc::new(AtomicU64::new(0));
    let failed = produce(&broker, 20_000, options(false), acknowledged.clone()).await;
    assert_eq!((failed, acknowledged.load(Ordering::Relaxed)), (0, 20_000));
    let log = broker.log.lock();
    let mut values: Vec<u64> = log.values().flat_map(|log| &log.values).copied().collect();
    assert!(values.len() >= 20_000);
    values.sort_unstable();
    values.dedup();
    assert_eq!(values, (0..20_000).collect::<Vec<u64>>());
}

#[tokio::test]
async fn a_broker_that_goes_away_and_comes_back_is_found_again() {
    let broker = FakeBroker::start(1, 0).await;
    let outage = broker.clone();
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(Duration::from_millis(50)).await;
            outage.down.store(true, Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(700)).await;
            outage.down.store(false, Ordering::Relaxed);
        }
    });
    let acknowledged = Arc::new(AtomicU64::new(0));
    let failed = produce(&broker, 50_000, options(true), acknowledged.clone()).await;
    assert_eq!((failed, acknowledged.load(Ordering::Relaxed)), (0, 50_000));
    let written: usize = broker.log.lock().values().map(|log| log.values.len()).sum();
    assert_eq!(written, 50_000);
}

/// A broker that refuses everything: records are given up after their time, and those behind them with them.
#[tokio::test]
async fn records_are_given_up_after_their_time() {
    for idempotent in [true, false] {
        let broker = FakeBroker::start(1, 1).await;
        let acknowledged = Arc::new(AtomicU64::new(0));
        let options = ProducerOptions { delivery_timeout: Duration::from_millis(700), ..options(idempotent) };
        let failed = produce(&broker, 1000, options, acknowledged.clone()).await;
        // Closed connections may have left some records behind: what is acknowledged was written.
        assert_eq!(failed + acknowledged.load(Ordering::Relaxed), 1000);
        assert!(failed > 0);
    }
}

/// A caller that waits for a record hears what the broker said to it, and not that time has passed.
#[tokio::test]
async fn a_record_that_is_given_up_fails_with_the_brokers_last_error() {
    let broker = FakeBroker::start(1, 0).await;
    broker.faults.lock().always = Some(ErrorCode::KafkaStorageError);
    let client = KafkaClient::connect(&broker.address(), ConnectOptions::default()).await.unwrap();
    let limit = Duration::from_millis(700);
    let options = ProducerOptions { delivery_timeout: limit, ..options(true) };
    let producer = Producer::start(&client, options, None).await.unwrap();
    let topic = producer.topic("t").await.unwrap();
    let record = Record::value(b"x");
    // It is given up before its time is over.
    best_of_three_async(limit, async || {
        let began = Instant::now();
        let refused = producer.send(topic, Some(0), &record).await.unwrap_err();
        assert_eq!(refused.code(), Some(ErrorCode::KafkaStorageError), "{refused}");
        began.elapsed()
    })
    .await;
}

//! The consumer against a broker that cannot read what it holds: it says so after a few tries, and does not spin.
#![allow(clippy::unwrap_used, reason = "a failure is what a test is for")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use sabir_kafka::client::{ConnectOptions, Consumer, ConsumerOptions, Error, FetchedRecords, KafkaClient};
use sabir_kafka::wire::api::SUPPORTED;
use sabir_kafka::wire::messages::{api_versions as av, fetch as fe, metadata as md};
use sabir_kafka::wire::{ApiKey, Encoded, ErrorCode, Reader, RequestHeader, encode_response};
use sabir_model::Offset;
use sabir_model::batch::{BatchBuilder, Compression};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// What a fetch of a partition from an offset is answered with: an error code and records.
type Script = fn(partition: i32, offset: i64, fetches: u64) -> (i16, Bytes);

/// A broker of one topic with two partitions, of which the script says what they answer.
struct FakeBroker {
    port: i32,
    script: Script,
    fetches: AtomicU64,
}

impl FakeBroker {
    async fn start(script: Script) -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = i32::from(listener.local_addr().unwrap().port());
        let broker = Arc::new(Self { port, script, fetches: AtomicU64::new(0) });
        let accepting = broker.clone();
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let broker = accepting.clone();
                tokio::spawn(async move { broker.serve(socket).await });
            }
        });
        broker
    }

    async fn serve(&self, mut socket: TcpStream) -> Option<()> {
        loop {
            let len = socket.read_i32().await.ok()?;
            let mut frame = vec![0; len as usize];
            socket.read_exact(&mut frame).await.ok()?;
            let answer = self.answer(&Bytes::from(frame));
            socket.write_all(&answer.to_bytes()).await.ok()?;
        }
    }

    fn answer(&self, frame: &Bytes) -> Encoded {
        let mut r = Reader::new(frame);
        let header = RequestHeader::decode(&mut r).unwrap();
        let (api, version, id) = (header.api().unwrap(), header.api_version, header.correlation_id);
        match api {
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
            ApiKey::Fetch => {
                let request = fe::FetchRequest::decode(&mut r, version).unwrap();
                encode_response(api, version, id, &self.fetch(request))
            }
            other => panic!("{other} is not expected"),
        }
    }

    fn metadata(&self) -> md::MetadataResponse {
        let broker =
            md::MetadataResponseBroker { node_id: 3, host: "127.0.0.1".into(), port: self.port, rack: None };
        let partition = |partition_index| md::MetadataResponsePartition {
            partition_index,
            leader_id: 3,
            ..Default::default()
        };
        let topic = md::MetadataResponseTopic {
            name: Some("t".into()),
            topic_id: [9; 16],
            partitions: (0..2).map(partition).collect(),
            ..Default::default()
        };
        md::MetadataResponse { brokers: vec![broker], topics: vec![topic], ..Default::default() }
    }

    fn fetch(&self, request: fe::FetchRequest) -> fe::FetchResponse {
        let fetches = self.fetches.fetch_add(1, Ordering::Relaxed) + 1;
        let topic = |topic: fe::FetchTopic| fe::FetchableTopicResponse {
            topic: topic.topic,
            topic_id: topic.topic_id,
            partitions: topic.partitions.iter().map(|asked| self.partition(asked, fetches)).collect(),
        };
        let responses = request.topics.into_iter().map(topic).collect();
        fe::FetchResponse { responses, ..Default::default() }
    }

    fn partition(&self, asked: &fe::FetchPartition, fetches: u64) -> fe::PartitionData {
        let (error_code, records) = (self.script)(asked.partition, asked.fetch_offset, fetches);
        fe::PartitionData {
            partition_index: asked.partition,
            error_code,
            high_watermark: 100,
            records: Some(records.into()),
            ..Default::default()
        }
    }
}

async fn consumer(broker: &FakeBroker, partitions: i32) -> Consumer {
    let address = format!("127.0.0.1:{}", broker.port);
    let client = KafkaClient::connect(&address, ConnectOptions::default()).await.unwrap();
    let from: Vec<_> = (0..partitions).map(|partition| ("t", partition, 0)).collect();
    Consumer::assign(&client, &from, ConsumerOptions::default()).await.unwrap()
}

/// A batch of one record.
fn record(offset: i64) -> Bytes {
    let mut builder = BatchBuilder::new(Compression::None).base_offset(Offset(offset));
    builder.push(1, None, Some(b"value"), &[]);
    builder.build()
}

/// Polls until there are records or an error.
async fn next(consumer: &mut Consumer) -> Result<Vec<FetchedRecords>, Error> {
    let began = Instant::now();
    loop {
        assert!(began.elapsed() < Duration::from_secs(30), "neither records nor an error");
        match consumer.poll(Duration::from_millis(200)).await {
            Ok(fetched) if fetched.is_empty() => {}
            found => return found,
        }
    }
}

#[tokio::test]
async fn what_cannot_be_read_is_an_error_after_a_few_tries() {
    let scripts: [(Script, ErrorCode); 3] = [
        (|_, _, _| (ErrorCode::CorruptMessage.code(), Bytes::new()), ErrorCode::CorruptMessage),
        (|_, _, _| (ErrorCode::KafkaStorageError.code(), Bytes::new()), ErrorCode::KafkaStorageError),
        (|_, _, _| (ErrorCode::UnknownServerError.code(), Bytes::new()), ErrorCode::UnknownServerError),
    ];
    for (script, code) in scripts {
        let broker = FakeBroker::start(script).await;
        let error = next(&mut consumer(&broker, 1).await).await.unwrap_err();
        assert_eq!(error.code(), Some(code));
        assert!(error.to_string().contains("t-0, offset 0"), "{error}");
        assert!(broker.fetches.load(Ordering::Relaxed) <= 6, "{:?}", broker.fetches);
    }
}

#[tokio::test]
async fn bytes_that_lead_no_further_are_an_error_too() {
    let scripts: [Script; 2] = [
        |_, _, _| (0, Bytes::from_static(&[7; 40])),
        |_, _, _| {
            (0, Bytes::from_static(&[0, 0, 0, 0, 0, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0, 2, 0, 0]))
        },
    ];
    for script in scripts {
        let broker = FakeBroker::start(script).await;
        let error = next(&mut consumer(&broker, 1).await).await.unwrap_err();
        assert!(matches!(error, Error::Records { .. }), "{error}");
        assert!(broker.fetches.load(Ordering::Relaxed) <= 6, "{:?}", broker.fetches);
    }
}

#[tokio::test]
async fn a_record_whose_checksum_is_wrong_is_not_shown() {
    let broker = FakeBroker::start(|_, offset, _| {
        let mut bytes = record(offset).to_vec();
        let in_the_value = bytes.len() - 3;
        bytes[in_the_value] ^= 1;
        (0, bytes.into())
    })
    .await;
    let fetched = next(&mut consumer(&broker, 1).await).await.unwrap();
    let error = fetched[0].for_each(|record| panic!("{record:?}")).unwrap_err();
    assert!(matches!(error, Error::Records { .. }), "{error}");
}

#[tokio::test]
async fn an_error_that_passes_is_waited_out() {
    let broker = FakeBroker::start(|_, _, fetches| match fetches {
        1 | 2 => (ErrorCode::CorruptMessage.code(), Bytes::new()),
        3 | 4 => (ErrorCode::NotLeaderOrFollower.code(), Bytes::new()),
        _ => (0, record(0)),
    })
    .await;
    let fetched = next(&mut consumer(&broker, 1).await).await.unwrap();
    assert_eq!((fetched[0].partition, fetched[0].count), (0, 1));
}

#[tokio::test]
async fn what_other_partitions_gave_is_not_lost() {
    let broker = FakeBroker::start(|partition, offset, _| match partition {
        0 => (ErrorCode::CorruptMessage.code(), Bytes::new()),
        _ => (0, record(offset)),
    })
    .await;
    let mut consumer = consumer(&broker, 2).await;
    let mut got = 0;
    let error = loop {
        match next(&mut consumer).await {
            Ok(fetched) => fetched.iter().for_each(|part| {
                assert_eq!((part.partition, part.from), (1, got));
                got = part.next;
            }),
            Err(error) => break error,
        }
    };
    assert_eq!(error.code(), Some(ErrorCode::CorruptMessage));
    assert!(got >= 4, "the other partition gave {got} records before it was said");
    assert!(consumer.positions().any(|at| at == ("t", 1, got)), "positions and records differ");
}

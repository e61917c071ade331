//! A broker with the front end on a port of its own, and clients of it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use sabir_base::clock::SystemClock;
use sabir_base::metrics::Exposition;
use sabir_broker::testing::{Commits, Disks};
use sabir_broker::{Broker, BrokerOptions, DiskKind, ReservedTopic};
use sabir_frontend::{FrontendContext, Listening, Protocol, watched};
use sabir_kafka::Kafka;
use sabir_kafka::client::{ConnectOptions, KafkaClient};
use sabir_kafka::wire::messages::create_topics::{CreatableTopic, CreateTopicsRequest};
use sabir_kafka::wire::messages::metadata::{MetadataRequest, MetadataRequestTopic};
use sabir_kafka::wire::messages::produce::{
    PartitionProduceData, PartitionProduceResponse, ProduceRequest, TopicProduceData,
};
use sabir_kafka::wire::{Encoded, ErrorCode, RequestMessage, Str, Uuid, decode_response, encode_request};
use sabir_model::batch::{BatchBuilder, Compression};
use sabir_net::{Frontend, ListenOptions, Listener, Net, NetOptions};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Long enough for a busy machine, short enough to see that a test hangs.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// How the broker is set up.
pub struct Setup {
    /// The front end's table, in JSON.
    pub kafka: &'static str,
    pub listen: &'static [&'static str],
    /// What clients are told that come by each of these addresses, where it is said.
    pub advertise: &'static [&'static str],
    pub net: NetOptions,
    pub data_shards: u32,
    pub max_connections: usize,
    /// Whether the test decides what commits.
    pub late: bool,
    /// Whether the test may hang the disks, behind which little may wait then.
    pub hanging: bool,
    /// What else is set of the broker.
    pub options: fn(&mut BrokerOptions),
}

impl Default for Setup {
    fn default() -> Self {
        let net = NetOptions { io_threads: 2, ..NetOptions::default() };
        Self {
            kafka: "{}",
            listen: &["127.0.0.1:0"],
            advertise: &[],
            net,
            data_shards: 1,
            max_connections: 1000,
            late: false,
            hanging: false,
            options: |_| {},
        }
    }
}

/// A running broker.
pub struct Rig {
    pub address: SocketAddr,
    /// All addresses; the first is `address`.
    pub addresses: Vec<SocketAddr>,
    pub net: Option<Net>,
    pub broker: Broker,
    /// Of a broker whose commits the test decides.
    pub commits: Option<Commits>,
    /// Of a broker whose disks the test may hang.
    pub disks: Option<Disks>,
    front_end: Arc<dyn Frontend>,
    _dir: tempfile::TempDir,
}

impl Rig {
    pub fn start() -> Self {
        Self::with(Setup::default())
    }

    pub fn with(setup: Setup) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut options = BrokerOptions {
            data_shards: setup.data_shards,
            disk: DiskKind::Pwrite,
            segment_bytes: 8 << 20,
            keep_free: 0,
            ..BrokerOptions::new(dir.path())
        };
        options.groups.limits.initial_rebalance_delay_ms = 100;
        let reserved = |&name: &&'static str| ReservedTopic { name, by: Kafka.name() };
        options.reserved = Kafka.reserved_topics().iter().map(reserved).collect();
        options.front_ends = vec![Kafka.name()];
        options.unnamed_groups = Some(Kafka.name());
        (setup.options)(&mut options);
        let (mut commits, mut disks) = (None, None);
        let broker = if setup.late {
            let (broker, hand) = Commits::open(options, Arc::new(SystemClock)).unwrap();
            commits = Some(hand);
            broker
        } else if setup.hanging {
            options.open_bytes_max = 2 << 20;
            let (broker, hand) = Disks::open(options, Arc::new(SystemClock)).unwrap();
            disks = Some(hand);
            broker
        } else {
            Broker::open(options, Arc::new(SystemClock)).unwrap()
        };
        let net = Net::start(&setup.net, watched(&broker)).unwrap();
        broker.hold_reads_in(&net.read_memory());
        let listener = Listener::bind(&ListenOptions {
            section: "kafka",
            addresses: setup.listen.iter().map(|address| address.parse().unwrap()).collect(),
            anonymous: true,
            max_connections: setup.max_connections,
        });
        let listener = listener.unwrap();
        let addresses = listener.addresses().to_vec();
        let listening = |(at, &address): (usize, &SocketAddr)| {
            let advertise = setup.advertise.get(at).map(|said| said.parse().unwrap());
            Listening { key: "listen", address, advertise }
        };
        let configured = Kafka.configure(serde_json::from_str(setup.kafka).unwrap()).unwrap();
        let started = configured.start(FrontendContext {
            broker: broker.clone(),
            workers: net.workers().clone(),
            tasks: net.tasks(),
            registry: net.registry().clone(),
            listening: addresses.iter().enumerate().map(listening).collect(),
            memory: 1 << 30,
        });
        let front_end = started.frontend;
        net.serve(listener, front_end.clone());
        Self {
            address: addresses[0],
            addresses,
            net: Some(net),
            broker,
            commits,
            disks,
            front_end,
            _dir: dir,
        }
    }

    /// A client like those of users.
    pub async fn client(&self) -> KafkaClient {
        KafkaClient::connect(&self.address.to_string(), ConnectOptions::default()).await.unwrap()
    }

    /// A connection without a client's manners.
    pub async fn raw(&self) -> Raw {
        self.raw_at(self.address).await
    }

    /// The same by another address.
    pub async fn raw_at(&self, address: SocketAddr) -> Raw {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Raw { stream, correlation: 0 }
    }

    /// The front end's figures.
    pub fn metrics(&self) -> String {
        let mut out = Exposition::default();
        self.front_end.metrics(&mut out);
        out.render()
    }

    /// The value of a metric with these labels, 0 if it is not shown.
    pub fn metric(&self, name_and_labels: &str) -> u64 {
        let text = self.metrics();
        let line = text.lines().find_map(|l| l.strip_prefix(name_and_labels));
        line.map_or(0, |value| value.trim().parse().unwrap())
    }

    /// How many connections were closed for this reason.
    pub fn dropped(&self, reason: &str) -> u64 {
        self.metric(&format!("sabir_dropped_connections_total{{protocol=\"kafka\",reason=\"{reason}\"}}"))
    }

    /// Waits until that many connections were closed for this reason.
    pub async fn until_dropped(&self, reason: &str, count: u64) {
        let began = Instant::now();
        while self.dropped(reason) < count {
            assert!(began.elapsed() < PATIENCE, "{reason}: {} of {count}", self.dropped(reason));
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        if let Some(commits) = &self.commits {
            commits.release();
        }
        if let Some(disks) = &self.disks {
            disks.resume();
        }
        if let Some(net) = &self.net {
            net.drain(Duration::from_secs(5));
        }
        self.broker.shutdown();
        self.net = None;
    }
}

/// A connection that says exactly what it is told to.
pub struct Raw {
    pub stream: TcpStream,
    correlation: i32,
}

impl Raw {
    /// Sends a request; gives its correlation id.
    pub async fn send<R: RequestMessage>(&mut self, version: i16, request: &R) -> i32 {
        let frame = self.frame(version, request);
        self.write(&frame.to_bytes()).await;
        self.correlation
    }

    /// The correlation id of the last request.
    pub fn correlation(&self) -> i32 {
        self.correlation
    }

    /// A request's frame under the next correlation id.
    pub fn frame<R: RequestMessage>(&mut self, version: i16, request: &R) -> Encoded {
        self.correlation += 1;
        encode_request(version, self.correlation, Some(&Str::from_static("raw")), request)
    }

    pub async fn write(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    /// The next frame, without its length.
    pub async fn receive_frame(&mut self) -> Bytes {
        let read = async {
            let mut frame = vec![0; self.stream.read_i32().await.unwrap() as usize];
            self.stream.read_exact(&mut frame).await.unwrap();
            Bytes::from(frame)
        };
        timeout(PATIENCE, read).await.expect("an answer")
    }

    /// The next answer, which must be to that request.
    pub async fn receive<R: RequestMessage>(&mut self, version: i16, correlation: i32) -> R::Response {
        let frame = self.receive_frame().await;
        let (header, response) = decode_response::<R>(&frame, version, 1 << 28).unwrap();
        assert_eq!(header.correlation_id, correlation);
        response
    }

    pub async fn call<R: RequestMessage>(&mut self, version: i16, request: &R) -> R::Response {
        let correlation = self.send(version, request).await;
        self.receive::<R>(version, correlation).await
    }

    /// A call in the newest version.
    pub async fn ask<R: RequestMessage>(&mut self, request: &R) -> R::Response {
        self.call(*R::VERSIONS.end(), request).await
    }

    /// Waits for the broker to close the connection; gives what came before that.
    pub async fn closed(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        let read = timeout(PATIENCE, self.stream.read_to_end(&mut rest)).await.expect("a closed connection");
        // Closing with unread input resets the connection.
        if let Err(error) = read {
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
        }
        rest
    }

    /// Makes a topic; gives its id.
    pub async fn topic(&mut self, name: &str, partitions: i32) -> Uuid {
        self.topic_with(name, partitions, &[]).await
    }

    pub async fn topic_with(&mut self, name: &str, partitions: i32, configs: &[(&str, &str)]) -> Uuid {
        let topic = creatable(name, partitions, configs);
        let response = self.ask(&CreateTopicsRequest { topics: vec![topic], ..Default::default() }).await;
        let created = &response.topics[0];
        assert_eq!(created.error_code, 0, "{:?}", created.error_message);
        created.topic_id
    }

    pub async fn topic_id(&mut self, name: &str) -> Uuid {
        let topic = MetadataRequestTopic { name: Some(name.into()), ..Default::default() };
        self.ask(&MetadataRequest { topics: Some(vec![topic]), ..Default::default() }).await.topics[0]
            .topic_id
    }

    /// Produces one batch by name, in version 12.
    pub async fn produce(&mut self, topic: &str, partition: i32, batch: Bytes) -> PartitionProduceResponse {
        let request = produce_request(-1, topic, partition, batch);
        let mut response = self.call(12, &request).await;
        response.responses.remove(0).partition_responses.remove(0)
    }

    /// Produces records with these values, which must be taken; gives the first one's offset.
    pub async fn put(&mut self, topic: &str, partition: i32, values: &[&str]) -> i64 {
        let produced = self.produce(topic, partition, batch(values)).await;
        assert_eq!(produced.error_code, 0, "{:?}", produced.error_message);
        produced.base_offset
    }
}

pub fn creatable(name: &str, partitions: i32, configs: &[(&str, &str)]) -> CreatableTopic {
    use sabir_kafka::wire::messages::create_topics::CreatableTopicConfig;
    let config = |(name, value): &(&str, &str)| CreatableTopicConfig {
        name: (*name).into(),
        value: Some((*value).into()),
    };
    CreatableTopic {
        name: name.into(),
        num_partitions: partitions,
        replication_factor: -1,
        configs: configs.iter().map(config).collect(),
        ..Default::default()
    }
}

pub fn produce_request(acks: i16, topic: &str, partition: i32, batch: Bytes) -> ProduceRequest {
    let data = PartitionProduceData { index: partition, records: Some(batch) };
    let topic = TopicProduceData { name: topic.into(), partition_data: vec![data], ..Default::default() };
    ProduceRequest { acks, timeout_ms: 10_000, topic_data: vec![topic], ..Default::default() }
}

/// The clock in milliseconds.
pub fn now_ms() -> i64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as i64
}

/// One batch of records with these values.
pub fn batch(values: &[&str]) -> Bytes {
    batch_with(BatchBuilder::new(Compression::None), values)
}

pub fn batch_with(mut builder: BatchBuilder, values: &[&str]) -> Bytes {
    let now = now_ms();
    values.iter().for_each(|value| builder.push(now, None, Some(value.as_bytes()), &[]));
    builder.build()
}

#[track_caller]
pub fn assert_code(code: i16, expected: ErrorCode) {
    assert_eq!(ErrorCode::from_i16(code), Some(expected));
}

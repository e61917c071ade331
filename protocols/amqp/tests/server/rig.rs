//! A node of two data shards whose disks hang when a test wants it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use sabir_amqp::Amqp;
use sabir_base::clock::SystemClock;
use sabir_broker::testing::Disks;
use sabir_broker::{
    AppendAcks, AppendTarget, Broker, BrokerOptions, Caller, NewTopic, Publish, PublishTargets,
    ReservedTopic, Topic,
};
use sabir_frontend::{FrontendContext, Listening, Protocol, watched};
use sabir_model::batch::{BatchBuilder, Compression};
use sabir_model::{FrontendNo, ShardId, TopicConfig};
use sabir_net::{ListenOptions, Listener, Net, NetOptions};

use crate::node::Client;

const OPEN_BYTES: usize = 1 << 20;
/// The shard that is filled.
pub const HANGS: ShardId = ShardId(2);
/// The one in which the queues are.
pub const QUEUES: ShardId = ShardId(1);

/// A node of two data shards whose disks may hang.
pub struct Rig {
    net: Net,
    pub broker: Broker,
    pub disks: Disks,
    address: std::net::SocketAddr,
    _data: tempfile::TempDir,
}

impl Rig {
    pub fn start() -> Self {
        let data = tempfile::tempdir().unwrap();
        let reserved = |&name: &&'static str| ReservedTopic { name, by: Amqp.name() };
        let mut options = BrokerOptions {
            data_shards: 2,
            segment_bytes: 8 << 20,
            keep_free: 0,
            open_bytes_max: OPEN_BYTES,
            reserved: Amqp.reserved_topics().iter().map(reserved).collect(),
            front_ends: vec![Amqp.name()],
            ..BrokerOptions::new(data.path())
        };
        options.exchanges.predeclared = Amqp.exchanges();
        let (broker, disks) = Disks::open(options, Arc::new(SystemClock)).unwrap();
        let net =
            Net::start(&NetOptions { io_threads: 2, ..NetOptions::default() }, watched(&broker)).unwrap();
        broker.hold_reads_in(&net.read_memory());
        let addresses = vec!["127.0.0.1:0".parse().unwrap()];
        let listen = ListenOptions { section: "amqp", addresses, anonymous: true, max_connections: 100 };
        let listener = Listener::bind(&listen).unwrap();
        let address = listener.addresses()[0];
        let configured = Amqp.configure(serde_json::from_str("{}").unwrap()).unwrap();
        let started = configured.start(FrontendContext {
            broker: broker.clone(),
            workers: net.workers().clone(),
            tasks: net.tasks(),
            registry: net.registry().clone(),
            listening: vec![Listening { key: "listen", address, advertise: None }],
            memory: 1 << 30,
        });
        net.serve(listener, started.frontend);
        Self { net, broker, disks, address, _data: data }
    }

    pub fn open(&self) -> Client {
        Client::opened(self.address)
    }

    /// Bytes of the node's memory for frames that connections have.
    pub fn granted(&self) -> usize {
        let memory = &self.net.limits().frame_memory;
        memory.granted() + memory.granted_little()
    }

    /// A topic with a partition in each shard.
    pub fn topic(&self, name: &str) -> Arc<Topic> {
        let config = TopicConfig::default();
        let new = NewTopic { name: name.into(), partitions: 2, config, internal: false, unlike: false };
        let making = self.broker.create_topics(&Caller::OPERATOR, vec![new]);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(making).remove(0).unwrap()
    }

    /// Has a shard's disk hang, and publishes to a topic there until the shard has no room. Gives how many messages that took.
    pub fn fill(&self, topic: &Arc<Topic>) -> i64 {
        self.disks.hang(HANGS);
        let partition = topic.partitions.iter().find(|partition| partition.shard == HANGS).unwrap();
        let target =
            AppendTarget::new(&Caller::OPERATOR, topic, partition.index, AppendAcks::Leader, FrontendNo(1));
        let targets = PublishTargets::new(vec![target.unwrap()]).unwrap();
        let mut published = 0;
        // What is on its way to the disk makes room once more, until as much is on its way as may be.
        let mut crowded_since = Instant::now();
        while crowded_since.elapsed() < Duration::from_millis(500) {
            if self.broker.crowded_by(&targets).is_some() {
                std::thread::sleep(Duration::from_millis(5));
                continue;
            }
            let mut batch = BatchBuilder::new(Compression::None);
            batch.push(1, None, Some(&[7; OPEN_BYTES / 8]), &[]);
            let batch = batch.build_checked(&targets.rules(), 1).unwrap();
            let publish = Publish::new(targets.clone(), [batch]);
            drop(self.broker.publish(&Caller::OPERATOR, &publish).unwrap());
            self.broker.flush();
            published += 1;
            crowded_since = Instant::now();
        }
        published
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.disks.resume();
        self.net.drain(Duration::from_secs(5));
        self.broker.shutdown();
    }
}

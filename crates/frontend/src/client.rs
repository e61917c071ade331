//! The client side of a protocol as the command line uses it: topics, messages, groups and load, without its own terms.
//!
//! Futures are local: a client is used from one thread.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::Duration;

use bytes::Bytes;
pub use sabir_model::batch::Compression;

/// A future on its own thread.
pub type LocalFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, ClientError>> + 'a>>;

/// Why a request failed, as far as a user must tell one case from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Failure {
    /// Nobody answers at the address, or what answers speaks another protocol.
    Connect,
    /// The topic, partition, group or offset does not exist.
    NotFound,
    /// It exists already.
    Exists,
    /// The broker refused what was asked, as it was asked.
    Refused,
    /// The broker or this protocol does not know the operation.
    Unsupported,
    /// No answer in time.
    Timeout,
    /// The connection broke, or the answer made no sense.
    Broken,
}

/// A request that failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ClientError {
    /// Which kind of failure.
    pub failure: Failure,
    /// What went wrong, with the protocol's own name for it.
    pub message: String,
}

impl ClientError {
    /// A failure with its explanation.
    pub fn new(failure: Failure, message: impl Into<String>) -> Self {
        Self { failure, message: message.into() }
    }
}

/// Makes clients of one protocol.
pub trait Connector: Send + Sync {
    /// The port its brokers usually listen on.
    fn default_port(&self) -> u16;

    /// Connects to `address` (host:port).
    fn connect(&self, address: &str) -> LocalFuture<'static, Box<dyn Client>>;

    /// Puts load on the broker at `address`, counting into `progress`, until the plan is fulfilled.
    fn bench(
        &self,
        address: String,
        plan: LoadPlan,
        progress: &'static Progress,
    ) -> LocalFuture<'static, LoadReport>;
}

/// A connected client.
pub trait Client {
    /// The nodes of the cluster.
    fn cluster(&mut self) -> LocalFuture<'_, ClusterInfo>;

    /// Every topic, by name.
    fn topics(&mut self) -> LocalFuture<'_, Vec<TopicInfo>>;

    /// One topic with the offsets of its partitions.
    fn topic<'a>(&'a mut self, name: &'a str) -> LocalFuture<'a, TopicInfo>;

    /// Creates a topic, or only checks that it could be.
    fn create_topic(&mut self, topic: NewTopic) -> LocalFuture<'_, ()>;

    /// Deletes a topic and all its records.
    fn delete_topic<'a>(&'a mut self, name: &'a str) -> LocalFuture<'a, ()>;

    /// A topic's settings, by name.
    fn topic_settings<'a>(&'a mut self, name: &'a str) -> LocalFuture<'a, Vec<TopicSetting>>;

    /// Changes settings of a topic, all or none, or only checks that they could be changed.
    fn change_topic<'a>(
        &'a mut self,
        name: &'a str,
        changes: &'a [SettingChange],
        dry_run: bool,
    ) -> LocalFuture<'a, ()>;

    /// Gives a topic more partitions, `total` in all, or only checks that it could have them.
    fn add_partitions<'a>(&'a mut self, name: &'a str, total: i32, dry_run: bool) -> LocalFuture<'a, ()>;

    /// Deletes the records before these offsets (partition, offset); answers with the first offsets that are left.
    fn delete_records<'a>(
        &'a mut self,
        topic: &'a str,
        before: &'a [(i32, i64)],
    ) -> LocalFuture<'a, Vec<(i32, i64)>>;

    /// Publishes messages in order; answers when the broker has acknowledged every one, with their places in that order.
    fn publish<'a>(
        &'a mut self,
        topic: &'a str,
        messages: Vec<Outgoing>,
        options: PublishOptions,
    ) -> LocalFuture<'a, Vec<Receipt>>;

    /// The offset of each partition (or of the one named) at which reading from `start` begins, and the end as it now is.
    fn positions<'a>(
        &'a mut self,
        topic: &'a str,
        partition: Option<i32>,
        start: Start,
    ) -> LocalFuture<'a, Vec<Position>>;

    /// Reads on from the positions, at most `wait` long, and moves them behind what is returned. May return nothing.
    fn read<'a>(
        &'a mut self,
        topic: &'a str,
        positions: &'a mut [Position],
        wait: Duration,
    ) -> LocalFuture<'a, Vec<Incoming>>;

    /// Every consumer group, by id.
    fn groups(&mut self) -> LocalFuture<'_, Vec<GroupSummary>>;

    /// A consumer group's members.
    fn group<'a>(&'a mut self, id: &'a str) -> LocalFuture<'a, GroupInfo>;

    /// What a consumer group has committed, with the end of each partition as it now is.
    fn group_offsets<'a>(&'a mut self, id: &'a str) -> LocalFuture<'a, Vec<GroupOffset>>;

    /// Commits offsets (topic, partition, next offset to read) for a group that has no members.
    fn commit<'a>(&'a mut self, id: &'a str, offsets: &'a [(String, i32, i64)]) -> LocalFuture<'a, ()>;

    /// Deletes a group that has no members, and what it has committed.
    fn delete_group<'a>(&'a mut self, id: &'a str) -> LocalFuture<'a, ()>;

    /// Deletes what a group has committed of these partitions of a topic that its members do not read.
    fn delete_offsets<'a>(
        &'a mut self,
        id: &'a str,
        topic: &'a str,
        partitions: &'a [i32],
    ) -> LocalFuture<'a, ()>;
}

/// A setting of a topic, by its protocol's name.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TopicSetting {
    /// Its name.
    pub name: String,
    /// Its value; none where it has none, or where it is kept secret.
    pub value: Option<String>,
    /// Whether the topic itself says so; else it is what holds for topics that say nothing.
    pub own: bool,
    /// Whether it can only be looked at.
    pub read_only: bool,
    /// What it does, where the broker says it.
    pub help: Option<String>,
}

/// A change of a setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettingChange {
    /// The setting's name.
    pub name: String,
    /// Its new value; none takes the topic's own value away.
    pub value: Option<String>,
}

/// A consumer group as a list shows it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GroupSummary {
    /// Its id.
    pub id: String,
    /// Its state, by the protocol's name; empty where the broker does not say.
    pub state: String,
    /// What kind of group it is, by the protocol's name.
    pub kind: String,
}

/// A consumer group.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GroupInfo {
    /// Its id, state and kind.
    pub summary: GroupSummary,
    /// How it deals partitions out.
    pub assignor: String,
    /// The node that looks after it.
    pub coordinator: Option<String>,
    /// Who is in it.
    pub members: Vec<MemberInfo>,
}

/// A member of a consumer group.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MemberInfo {
    /// The id that the coordinator gave it.
    pub id: String,
    /// Its static id, if it has one.
    pub instance: Option<String>,
    /// What it calls itself.
    pub client: String,
    /// Where it connects from.
    pub host: String,
    /// The partitions dealt to it.
    pub assigned: Vec<(String, i32)>,
}

/// How far a consumer group is in a partition.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GroupOffset {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The next offset it will read.
    pub committed: i64,
    /// The offset behind the last record; none where the partition is gone.
    pub end: Option<i64>,
}

/// A cluster as its metadata shows it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ClusterInfo {
    /// The cluster's id, where the protocol has one.
    pub id: Option<String>,
    /// (node id, address) of every node.
    pub nodes: Vec<(i32, String)>,
}

/// A topic as its metadata shows it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TopicInfo {
    /// Its name.
    pub name: String,
    /// Its id in the protocol's form, where it has one.
    pub id: Option<String>,
    /// Whether the broker keeps it for itself.
    pub internal: bool,
    /// Its partitions by number.
    pub partitions: Vec<PartitionInfo>,
}

/// A partition as its metadata shows it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PartitionInfo {
    /// Its number.
    pub index: i32,
    /// The node that leads it; none for the moment where it is absent.
    pub leader: Option<i32>,
    /// The nodes that hold it.
    pub replicas: Vec<i32>,
    /// Those of them that are in sync.
    pub in_sync: Vec<i32>,
    /// First offset and the one behind the last, where they were asked for.
    pub offsets: Option<(i64, i64)>,
}

/// A topic to create.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewTopic {
    /// Its name.
    pub name: String,
    /// How many partitions; the broker's default where absent.
    pub partitions: Option<i32>,
    /// Settings by their protocol's names.
    pub configs: Vec<(String, String)>,
    /// Only check.
    pub dry_run: bool,
}

/// A message to publish.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Outgoing {
    /// Where to: by key, or in turn, where absent.
    pub partition: Option<i32>,
    /// What places it and compacts it.
    pub key: Option<Bytes>,
    /// Its content; absent is not the same as empty.
    pub value: Option<Bytes>,
    /// Headers in order; names may repeat, a value may be absent.
    pub headers: Vec<(String, Option<Bytes>)>,
}

/// How to publish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PublishOptions {
    /// What an acknowledgement must mean.
    pub acks: Acks,
    /// How batches are compressed.
    pub compression: Compression,
    /// How long to wait for an acknowledgement.
    pub timeout: Duration,
}

impl Default for PublishOptions {
    fn default() -> Self {
        Self { acks: Acks::All, compression: Compression::None, timeout: Duration::from_secs(30) }
    }
}

/// What an acknowledgement means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Acks {
    /// None is awaited.
    None,
    /// The leader has it.
    Leader,
    /// Every in-sync replica has it.
    All,
}

/// Where a published message went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Receipt {
    /// The partition.
    pub partition: i32,
    /// Its offset; none where no acknowledgement was asked for.
    pub offset: Option<i64>,
}

/// Where reading begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// At the oldest record.
    Earliest,
    /// Behind the newest.
    Latest,
    /// At an offset.
    Offset(i64),
    /// At the first record that is not older (milliseconds since the epoch).
    Time(i64),
    /// This many records before the end of each partition.
    Last(u32),
}

/// How far a reader is in a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// The partition.
    pub partition: i32,
    /// The offset of the first record, when it was last asked.
    pub first: i64,
    /// The next offset to read.
    pub next: i64,
    /// The offset behind the last record, when it was last asked.
    pub end: i64,
}

/// A message that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Incoming {
    /// The partition it stands in.
    pub partition: i32,
    /// Its offset.
    pub offset: i64,
    /// Milliseconds since the epoch.
    pub timestamp_ms: i64,
    /// Its key.
    pub key: Option<Bytes>,
    /// Its content.
    pub value: Option<Bytes>,
    /// Its headers in order; names may repeat, a value may be absent.
    pub headers: Vec<(String, Option<Bytes>)>,
}

/// What kind of load.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Load {
    /// Publish; latency is from when a message was due to its acknowledgement.
    Produce,
    /// Read what is there; latency is that of a fetch.
    Consume,
    /// Publish and read at once; latency is from when a message was due to when it was read.
    EndToEnd,
}

/// The load to put on a broker.
#[derive(Debug, Clone, PartialEq)]
pub struct LoadPlan {
    /// Which kind.
    pub load: Load,
    /// The topic.
    pub topic: String,
    /// How many partitions to create it with, where it does not exist.
    pub partitions: i32,
    /// Bytes of a message's content.
    pub size: usize,
    /// Messages a second, over all clients; as many as go where absent.
    pub rate: Option<f64>,
    /// Ends after so many messages, over all clients.
    pub count: Option<u64>,
    /// Ends after this time.
    pub duration: Option<Duration>,
    /// Left out of the figures at the beginning.
    pub warmup: Duration,
    /// Connections that work at once.
    pub clients: usize,
    /// What an acknowledgement must mean.
    pub acks: Acks,
    /// How batches are compressed.
    pub compression: Compression,
    /// Bytes a batch may have.
    pub batch_bytes: usize,
    /// How long a message may wait for others to share its batch.
    pub linger: Duration,
    /// Requests without an answer, per connection.
    pub in_flight: usize,
    /// Number the batches, so that a repeated one is recognised.
    pub idempotent: bool,
}

/// Counters that rise while a load runs, and the means to end it.
#[derive(Debug, Default)]
pub struct Progress {
    /// Messages done.
    pub messages: AtomicU64,
    /// Bytes of content done.
    pub bytes: AtomicU64,
    /// Requests that failed.
    pub errors: AtomicU64,
    /// Set to end the load early, with the figures so far.
    pub stop: AtomicBool,
}

/// What a load came to.
#[derive(Debug, Clone)]
pub struct LoadReport {
    /// Messages after the warm-up.
    pub messages: u64,
    /// Bytes of their content.
    pub bytes: u64,
    /// Requests that failed.
    pub errors: u64,
    /// What the first of them said.
    pub first_error: Option<String>,
    /// From the end of the warm-up to the last answer.
    pub elapsed: Duration,
    /// Latencies in microseconds.
    pub latency_us: hdrhistogram::Histogram<u64>,
}

impl fmt::Display for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Load::Produce => "produce",
            Load::Consume => "consume",
            Load::EndToEnd => "e2e",
        })
    }
}

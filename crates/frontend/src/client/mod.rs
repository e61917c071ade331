//! The client side of a protocol as the command line uses it, without the protocol's own terms: messages, which every protocol has,
//! and load and the administration of topics and groups where it has them.
//!
//! Futures are local: a client is used from one thread.

mod groups;
mod load;
mod options;
mod topics;

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
pub use sabir_net::{DialTls, Dialer, Socket};

pub use groups::{GroupAdmin, GroupInfo, GroupOffset, GroupSummary, MemberInfo};
pub use load::{Load, LoadCounts, LoadPlan, LoadProgress, LoadReport, LoadTally};
pub use options::{ClientOption, ClientOptions};
pub use topics::{PartitionInfo, SettingChange, TopicAdmin, TopicInfo, TopicSetting, TopicSpec};

/// A future on its own thread.
pub type LocalFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, ClientError>> + 'a>>;

/// Why a request failed, as far as a user must tell one case from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Failure {
    /// No server answers at the address, or what answers speaks another protocol.
    Connect,
    /// No server answers at the admin port's address, or what answers is none.
    AdminPort,
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
    /// The partition and the offset that a read failed at, where it was at one.
    pub at: Option<(i32, i64)>,
    /// What to do about it, where the protocol knows better than the command.
    pub advice: Option<String>,
}

impl ClientError {
    /// A failure with its explanation.
    pub fn new(failure: Failure, message: impl Into<String>) -> Self {
        Self { failure, message: message.into(), at: None, advice: None }
    }

    /// The same, with what to do about it.
    pub fn advise(self, advice: impl Into<String>) -> Self {
        Self { advice: Some(advice.into()), ..self }
    }
}

/// Makes clients of one protocol.
pub trait Connector: Send + Sync {
    /// The port its brokers usually listen on with TLS, where there is such a one.
    fn default_tls_port(&self) -> Option<u16> {
        None
    }

    /// The port its brokers usually listen on; none where they listen on none unless they are told to. Such a protocol is used only where
    /// it is named.
    fn default_port(&self) -> Option<u16>;

    /// What can be said of publishing in this protocol.
    fn publish_options(&self) -> &'static [ClientOption] {
        &[]
    }

    /// What can be said of a load that publishes in this protocol.
    fn load_options(&self) -> &'static [ClientOption] {
        &[]
    }

    /// Connects. The caller waits `within` for that, and again for each answer: the client has no shorter time of its own.
    fn connect(&self, to: Endpoint, within: Duration) -> LocalFuture<'static, Box<dyn Client>>;

    /// Puts load on a broker, counting into `progress`, until the plan is fulfilled.
    fn bench(
        &self,
        to: Endpoint,
        plan: LoadPlan,
        progress: &'static LoadProgress,
    ) -> LocalFuture<'static, LoadReport>;
}

/// A broker, and how it is connected to.
#[derive(Debug, Clone, Default)]
pub struct Endpoint {
    /// As host:port.
    pub address: String,
    /// What makes the connections: to this address, and to those that the broker names.
    pub dialer: Dialer,
}

impl Endpoint {
    /// One that is spoken with plainly.
    pub fn plain(address: impl Into<String>) -> Self {
        Self { address: address.into(), dialer: Dialer::default() }
    }
}

/// A connected client.
pub trait Client {
    /// Publishes messages in order; answers when the broker has acknowledged every one, with their places in that order.
    fn publish<'a>(
        &'a mut self,
        topic: &'a str,
        messages: Vec<Outgoing>,
        options: &'a PublishOptions,
    ) -> LocalFuture<'a, Vec<Receipt>>;

    /// The offset of each partition (or of the one named) at which reading from `start` begins, and the end as it now is. Of an offset it is that
    /// one, and of a partition that is not there nothing: the command judges both.
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

    /// Whether that can be [settled](Self::settle) here.
    fn settles(&self, what: Settling<'_>) -> bool;

    /// Settles what was read of a topic: it is not read again.
    fn settle<'a>(&'a mut self, topic: &'a str, what: Settling<'a>) -> LocalFuture<'a, ()>;

    /// Gives back what was read and not settled; answers when the next reader can have it. It is the last that a client is asked, also where a
    /// read or another request was dropped before its answer. Nothing is to do where reading takes nothing.
    fn stop_reading(&mut self) -> LocalFuture<'_, ()>;

    /// The nodes of the cluster, where the protocol tells of them.
    fn cluster(&mut self) -> LocalFuture<'_, ClusterInfo> {
        let message = "this protocol does not tell of the nodes of a cluster";
        Box::pin(std::future::ready(Err(ClientError::new(Failure::Unsupported, message))))
    }

    /// The administration of topics, where the protocol has it.
    fn topics(&mut self) -> Option<&mut dyn TopicAdmin> {
        None
    }

    /// The administration of groups, where the protocol has it.
    fn groups(&mut self) -> Option<&mut dyn GroupAdmin> {
        None
    }
}

/// A cluster as its metadata shows it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ClusterInfo {
    /// The cluster's id, where the protocol has one.
    pub id: Option<String>,
    /// (node id, address) of every node.
    pub nodes: Vec<(i32, String)>,
}

/// What is settled, and for which readers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settling<'a> {
    /// For a group, what stands before these offsets (partition, next offset to read).
    Group {
        /// The group.
        group: &'a str,
        /// How far it has read.
        before: &'a [(i32, i64)],
    },
    /// For all who read here, these messages (partition, offset), as they were read from this client: they are taken from a queue.
    Messages(&'a [(i32, i64)]),
}

/// A message to publish.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Outgoing {
    /// Where to; absent, the client chooses, by the key where there is one.
    pub partition: Option<i32>,
    /// What places it and compacts it.
    pub key: Option<Bytes>,
    /// Its content; absent is not the same as empty.
    pub value: Option<Bytes>,
    /// Headers in order; names may repeat, a value may be absent.
    pub headers: Vec<(String, Option<Bytes>)>,
}

/// How to publish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublishOptions {
    /// How long to wait for an acknowledgement.
    pub timeout: Duration,
    /// What is said of [`Connector::publish_options`].
    pub options: ClientOptions,
}

impl Default for PublishOptions {
    fn default() -> Self {
        Self { timeout: Duration::from_secs(30), options: ClientOptions::default() }
    }
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
    /// Milliseconds since the epoch; none where the message does not say.
    pub timestamp_ms: Option<i64>,
    /// Its key.
    pub key: Option<Bytes>,
    /// Its content.
    pub value: Option<Bytes>,
    /// Its headers in order; names may repeat, a value may be absent.
    pub headers: Vec<(String, Option<Bytes>)>,
}

//! A client of Kafka's protocol, for the command line, the load generator and tests. It works against any broker that speaks
//! the protocol.
//!
//! [`KafkaClient`] knows the cluster and makes single requests; [`Producer`] and [`Consumer`] move records, each over connections of
//! its own; [`mod@bench`] puts load on a broker.

mod admin;
mod admin_changes;
mod batch;
pub mod bench;
mod connection;
mod consumer;
mod error;
mod group_admin;
mod groups;
mod options;
mod partitioner;
mod producer;
pub(crate) mod tool;
mod tool_admin;
mod versions;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use sabir_frontend::config::HostPort;

pub use admin::{KafkaTopicSpec, OffsetAt, PartitionOffset};
pub use batch::Record;
pub use connection::{BrokerConnection, ConnectOptions};
pub use consumer::{Consumer, ConsumerOptions, FetchedRecords, OnOutOfRange};
pub use error::Error;
pub use groups::{CommittedOffset, Committer};
pub use options::Acks;
pub use partitioner::partition_of_key;
pub use producer::{Delivery, Feed, Full, OnDelivery, Producer, ProducerOptions, TopicHandle};
pub use versions::Versions;

use crate::wire::messages::metadata::{
    MetadataRequest, MetadataRequestTopic, MetadataResponse, MetadataResponseTopic,
};
use crate::wire::{ApiKey, ErrorCode, RequestMessage, Str, Uuid};

/// How long one of several addresses is tried.
const ONE_OF_SEVERAL: Duration = Duration::from_secs(10);
const RETRY_EVERY: Duration = Duration::from_millis(100);

/// A client of one cluster. Clones share its connections.
#[derive(Debug, Clone)]
pub struct KafkaClient {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    bootstrap: Vec<String>,
    options: ConnectOptions,
    /// Addresses by node, as the last metadata had them.
    addresses: Mutex<HashMap<i32, String>>,
    /// Connections for single requests, by address.
    connections: tokio::sync::Mutex<HashMap<String, Arc<BrokerConnection>>>,
}

/// A topic as the metadata shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicMetadata {
    /// Its name.
    pub name: Str,
    /// Its id; zero where the broker's metadata has none.
    pub id: Uuid,
    /// The leader of each partition, by index; -1 where there is none.
    pub leaders: Vec<i32>,
}

impl KafkaClient {
    /// Connects to one of the addresses (host:port, separated by commas).
    ///
    /// # Errors
    /// None of them answers as a broker; the last one's error is given.
    pub async fn connect(bootstrap: &str, options: ConnectOptions) -> Result<Self, Error> {
        let bootstrap: Vec<String> = bootstrap.split(',').map(|a| a.trim().to_owned()).collect();
        let inner =
            Inner { bootstrap, options, addresses: Mutex::default(), connections: Default::default() };
        let client = Self { inner: Arc::new(inner) };
        client.any().await?;
        Ok(client)
    }

    /// A connection to any broker.
    ///
    /// # Errors
    /// No known address answers.
    pub async fn any(&self) -> Result<Arc<BrokerConnection>, Error> {
        let mut addresses: Vec<String> = self.inner.addresses.lock().values().cloned().collect();
        let unknown = |named: &&String| !addresses.contains(named);
        let others: Vec<_> = self.inner.bootstrap.iter().filter(unknown).cloned().collect();
        addresses.extend(others);
        if let Some(open) = self.open_at(&addresses).await {
            return Ok(open);
        }
        let mut last = Error::Usage("no address to connect to".into());
        for address in &addresses {
            // One that does not answer leaves time for the next.
            let most = if addresses.len() > 1 { ONE_OF_SEVERAL } else { Duration::MAX };
            match self.at(address, most).await {
                Ok(connection) => return Ok(connection),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// The connection to this node.
    ///
    /// # Errors
    /// The node is unknown or does not answer.
    pub async fn node(&self, node: i32) -> Result<Arc<BrokerConnection>, Error> {
        let address = self.address_of(node).await?;
        self.at(&address, Duration::MAX).await.map_err(|error| self.told(&address, error))
    }

    /// A connection to this node of the caller's own: what waits on it holds up no other request.
    ///
    /// # Errors
    /// The node is unknown or does not answer.
    pub async fn open(&self, node: i32) -> Result<BrokerConnection, Error> {
        let address = self.address_of(node).await?;
        let opened = BrokerConnection::open(&address, self.inner.options.clone()).await;
        opened.map_err(|error| self.told(&address, error))
    }

    /// The error of an address, which says so where only the broker has named it.
    fn told(&self, address: &str, error: Error) -> Error {
        match self.inner.bootstrap.iter().any(|named| named == address) {
            true => error,
            false => error.advertised(address),
        }
    }

    async fn address_of(&self, node: i32) -> Result<String, Error> {
        let known = |client: &Self| client.inner.addresses.lock().get(&node).cloned();
        if let Some(address) = known(self) {
            return Ok(address);
        }
        self.metadata(Some(&[])).await?;
        known(self).ok_or_else(|| Error::Usage(format!("the cluster has no node {node}")))
    }

    /// A connection that is open already.
    async fn open_at(&self, addresses: &[String]) -> Option<Arc<BrokerConnection>> {
        let connections = self.inner.connections.lock().await;
        let open = |address: &String| connections.get(address).filter(|c| !c.is_closed());
        addresses.iter().find_map(open).cloned()
    }

    /// The connection to this address, which is opened in `most` or what the options say, whichever is less.
    async fn at(&self, address: &str, most: Duration) -> Result<Arc<BrokerConnection>, Error> {
        let mut connections = self.inner.connections.lock().await;
        if let Some(open) = connections.get(address).filter(|c| !c.is_closed()) {
            return Ok(open.clone());
        }
        let mut options = self.inner.options.clone();
        options.connect_timeout = options.connect_timeout.min(most);
        let opened = Arc::new(BrokerConnection::open(address, options).await?);
        connections.insert(address.to_owned(), opened.clone());
        Ok(opened)
    }

    /// Sends a request to any broker.
    ///
    /// # Errors
    /// Those of [`BrokerConnection::call`].
    pub async fn call<R: RequestMessage>(&self, request: &R) -> Result<R::Response, Error> {
        self.any().await?.call(request).await
    }

    /// The cluster's metadata: of these topics, or of all. No topic is created by asking.
    ///
    /// # Errors
    /// No broker answers. Errors about single topics are in the answer.
    pub async fn metadata(&self, topics: Option<&[&str]>) -> Result<MetadataResponse, Error> {
        self.metadata_of(topics, false).await
    }

    async fn metadata_of(&self, topics: Option<&[&str]>, create: bool) -> Result<MetadataResponse, Error> {
        let connection = self.any().await?;
        let name = |name: &&str| MetadataRequestTopic { name: Some((*name).into()), ..Default::default() };
        let request = MetadataRequest {
            topics: topics.map(|topics| topics.iter().map(name).collect()),
            allow_auto_topic_creation: create,
            ..Default::default()
        };
        let response = connection.call(&request).await?;
        Error::check(ApiKey::Metadata, response.error_code, String::new)?;
        *self.inner.addresses.lock() = nodes(&response).collect();
        Ok(response)
    }

    /// A topic, once every partition has a leader. `create` lets the broker make it if it does so by itself.
    ///
    /// # Errors
    /// The topic does not exist, or has a partition without a leader for too long.
    pub async fn topic(&self, name: &str, create: bool) -> Result<TopicMetadata, Error> {
        let patience = self.patience();
        loop {
            let found = self.topic_now(name, create).await;
            let missing = found.as_ref().is_err_and(|e| e.code() == Some(ErrorCode::UnknownTopicOrPartition));
            // One that is not there appears only if asking creates it.
            if (missing && !create) || !patience.again(&found).await {
                return found;
            }
        }
    }

    /// How long an answer is waited for, and an error that passes by itself.
    fn answer_within(&self) -> Duration {
        self.inner.options.request_timeout
    }

    /// The same for the broker, in milliseconds.
    fn timeout_ms(&self) -> i32 {
        i32::try_from(self.answer_within().as_millis()).unwrap_or(i32::MAX)
    }

    fn patience(&self) -> Patience {
        Patience { since: Instant::now(), limit: self.answer_within() }
    }

    /// A topic as it is now.
    pub(crate) async fn topic_now(&self, name: &str, create: bool) -> Result<TopicMetadata, Error> {
        topic_in(self.metadata_of(Some(&[name]), create).await?.topics, name)
    }
}

/// Waits out a broker's errors that pass by themselves: an election, a coordinator that loads.
struct Patience {
    since: Instant,
    limit: Duration,
}

impl Patience {
    /// Whether to try again; has waited a moment then.
    async fn again<T>(&self, found: &Result<T, Error>) -> bool {
        let passes = found.as_ref().is_err_and(|error| error.retriable() && error.code().is_some());
        let again = passes && self.since.elapsed() < self.limit;
        if again {
            tokio::time::sleep(RETRY_EVERY).await;
        }
        again
    }
}

/// The nodes of a cluster with the addresses that their clients are told.
fn nodes(metadata: &MetadataResponse) -> impl Iterator<Item = (i32, String)> + '_ {
    metadata.brokers.iter().map(|node| {
        let port = u16::try_from(node.port).unwrap_or_default();
        (node.node_id, HostPort { host: node.host.to_string(), port }.to_string())
    })
}

fn topic_in(topics: Vec<MetadataResponseTopic>, name: &str) -> Result<TopicMetadata, Error> {
    let about = || name.to_owned();
    let found = topics.into_iter().find(|t| t.name.as_ref().is_some_and(|n| *n == name));
    let missing = || Error::Broker {
        api: ApiKey::Metadata,
        code: ErrorCode::UnknownTopicOrPartition,
        message: about(),
    };
    let found = found.ok_or_else(missing)?;
    Error::check(ApiKey::Metadata, found.error_code, about)?;
    let mut leaders = vec![-1; found.partitions.len()];
    for partition in &found.partitions {
        Error::check(ApiKey::Metadata, partition.error_code, || {
            format!("{name}-{}", partition.partition_index)
        })?;
        if let Some(leader) = leaders.get_mut(partition.partition_index as usize) {
            *leader = partition.leader_id;
        }
    }
    Ok(TopicMetadata { name: name.into(), id: found.topic_id, leaders })
}

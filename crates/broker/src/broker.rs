//! The handle to a broker.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use sabir_base::clock::Clock;
use sabir_model::{
    ErrorKind, FrontEndNo, LeaderEpoch, NodeId, Offset, PartitionId, ProducerId, ShardId, Term, TopicConfig,
    TopicId,
};

use crate::append::{Append, Appending};
use crate::catalog::{CatalogView, NewTopic, Topic};
use crate::options::{BrokerOptions, StartError};
use crate::read::{EpochEnd, Fetched, FoundOffset, OffsetSpec};
use crate::stats::Stats;
use crate::watch::DataWatch;

/// A running broker; clones are the same one. All methods may be called from any thread.
#[derive(Clone)]
pub struct Broker {
    inner: Arc<Inner>,
}

struct Inner {
    options: BrokerOptions,
    catalog: Arc<CatalogView>,
}

impl Broker {
    /// Opens the data directory, recovers every shard and leads it. Blocking; returns when reads and writes are taken.
    ///
    /// # Errors
    /// What [`StartError`] lists: the directory is in use, cannot be used, or holds damaged data.
    pub fn open(options: BrokerOptions, _clock: Arc<dyn Clock>) -> Result<Self, StartError> {
        Ok(Self { inner: Arc::new(Inner { options, catalog: Arc::default() }) })
    }

    /// This node.
    pub fn node_id(&self) -> NodeId {
        self.inner.options.node_id
    }

    /// A random id that the data directory was given when it was made.
    pub fn cluster_id(&self) -> TopicId {
        TopicId::ZERO
    }

    /// What the broker was opened with; `data_shards` is the number in use.
    pub fn options(&self) -> &BrokerOptions {
        &self.inner.options
    }

    /// The broker's clock, in milliseconds since the epoch.
    pub fn now_ms(&self) -> i64 {
        0
    }

    /// The topics that take writes, as of now.
    pub fn catalog(&self) -> Arc<CatalogView> {
        self.inner.catalog.clone()
    }

    /// The term a shard is led in, and whether this node leads it.
    pub fn leadership(&self, _shard: ShardId) -> Option<(Term, bool)> {
        None
    }

    /// The number of a front end's name, given on first use and kept for good.
    ///
    /// # Errors
    /// The catalog's shard does not take writes.
    pub async fn register_front_end(&self, _name: &str) -> Result<FrontEndNo, ErrorKind> {
        Err(ErrorKind::StorageError)
    }

    /// Creates topics; answered, in order, when every partition of all of them takes writes.
    pub async fn create_topics(&self, topics: Vec<NewTopic>) -> Vec<Result<Arc<Topic>, ErrorKind>> {
        topics.iter().map(|_| Err(ErrorKind::StorageError)).collect()
    }

    /// Deletes topics; answered, in order, when no partition of them is left.
    pub async fn delete_topics(&self, topics: Vec<TopicId>) -> Vec<Result<(), ErrorKind>> {
        topics.iter().map(|_| Err(ErrorKind::StorageError)).collect()
    }

    /// Raises a topic's number of partitions to `count`; answered when the new ones take writes.
    ///
    /// # Errors
    /// No such topic; `count` is not above what it has or beyond the limit; the shards do not take writes.
    pub async fn create_partitions(&self, _topic: TopicId, _count: u32) -> Result<Arc<Topic>, ErrorKind> {
        Err(ErrorKind::StorageError)
    }

    /// Replaces a topic's configuration; answered when all its partitions keep to it.
    ///
    /// # Errors
    /// No such topic; the shards do not take writes.
    pub async fn configure_topic(
        &self,
        _topic: TopicId,
        _config: TopicConfig,
    ) -> Result<Arc<Topic>, ErrorKind> {
        Err(ErrorKind::StorageError)
    }

    /// Moves a partition's first offset up to `before` (-1: to the high watermark) and answers with where it now is.
    ///
    /// # Errors
    /// No such partition; an offset beyond the high watermark; the shard does not take writes.
    pub async fn delete_records(
        &self,
        _shard: ShardId,
        _partition: PartitionId,
        _before: Offset,
    ) -> Result<Offset, ErrorKind> {
        Err(ErrorKind::StorageError)
    }

    /// Copies batches into the open blocks at once, in order. Call [`flush`](Self::flush) when no more come in this turn.
    pub fn append(&self, items: Vec<Append>) -> Appending {
        Appending::ready(items.iter().map(|_| Err(ErrorKind::StorageError)).collect())
    }

    /// Sends the open blocks on their way, if the group-commit rule lets them; call it at the end of a socket read.
    pub fn flush(&self) {}

    /// Waits while too much waits in open blocks to be written: what a front end awaits before it reads more.
    pub async fn room(&self) {}

    /// Reads whole batches from the one that holds `from` on, about `max_bytes` of them; with `min_one` the first whatever
    /// its size. Ready at once unless the bytes must come from the disk.
    ///
    /// # Errors
    /// No such partition, an offset outside [log start, high watermark], a corrupt batch, the disk.
    pub async fn read(
        &self,
        _shard: ShardId,
        _partition: PartitionId,
        _from: Offset,
        _max_bytes: usize,
        _min_one: bool,
    ) -> Result<Fetched, ErrorKind> {
        Err(ErrorKind::StorageError)
    }

    /// Looks an offset up. Ready at once for [`OffsetSpec::Earliest`] and [`OffsetSpec::Latest`].
    ///
    /// # Errors
    /// No such partition, a corrupt batch, the disk.
    pub async fn offsets(
        &self,
        _shard: ShardId,
        _partition: PartitionId,
        _spec: OffsetSpec,
    ) -> Result<FoundOffset, ErrorKind> {
        Err(ErrorKind::StorageError)
    }

    /// The end of the largest leader epoch of a partition that is not above `epoch`.
    ///
    /// # Errors
    /// No such partition.
    pub fn end_of_epoch(
        &self,
        _shard: ShardId,
        _partition: PartitionId,
        _epoch: LeaderEpoch,
    ) -> Result<EpochEnd, ErrorKind> {
        Err(ErrorKind::StorageError)
    }

    /// Watches partitions for `min_bytes` of new records in all. Register it before reading, so that nothing is missed.
    pub fn watch(&self, _partitions: &[(ShardId, PartitionId)], _min_bytes: usize) -> DataWatch {
        DataWatch::idle()
    }

    /// A producer id that nobody had before.
    ///
    /// # Errors
    /// The catalog's shard does not take writes.
    pub async fn allocate_producer_id(&self) -> Result<ProducerId, ErrorKind> {
        Err(ErrorKind::StorageError)
    }

    /// Figures for metrics.
    pub fn stats(&self) -> Stats {
        Stats::default()
    }

    /// What to watch for readability, edge-triggered, and then call [`drive`](Self::drive) with. A shard that is not listed
    /// drives itself.
    pub fn event_fds(&self) -> Vec<(ShardId, OwnedFd)> {
        Vec::new()
    }

    /// Completes, applies and answers what a shard's disk has finished. Never blocks on the disk.
    pub fn drive(&self, _shard: ShardId) {}

    /// Takes no more writes, finishes those under way, seals the journals, writes checkpoints and unlocks the data
    /// directory. Blocking.
    pub fn shutdown(&self) {}
}

//! What a broker is opened with, and why it cannot be.

use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use sabir_base::descriptors;
use sabir_journal::StartProgress;
use sabir_journal::disk::DiskError;
use sabir_model::{Durability, NodeId, TopicConfig};

use crate::caller::ReservedTopic;
use crate::converter::Converter;
use crate::exchange::ExchangeOptions;
use crate::group::GroupOptions;
use crate::projection::ProjectionFactory;
use crate::survey::ShardsError;

/// How the journal reaches its disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DiskKind {
    /// io_uring with direct I/O where the platform has it, else `pwrite`.
    #[default]
    Auto,
    /// io_uring with direct I/O, or not at all.
    Uring,
    /// `pwrite` and `fdatasync` on a thread of its own.
    Pwrite,
}

/// How a broker runs.
#[derive(Debug, Clone)]
pub struct BrokerOptions {
    /// The data directory; made if it is not there.
    pub data: PathBuf,
    /// Data shards of a new data directory; an existing one keeps the number it was made with.
    pub data_shards: u32,
    /// Whether that is what suits the machine, and not what the user chose.
    pub data_shards_auto: bool,
    /// The format level that the data directory is to have, if it has a lower one; `None` keeps the one that it has. A new one has the
    /// newest.
    pub format_level: Option<u32>,
    /// How the journal reaches its disk.
    pub disk: DiskKind,
    /// This node.
    pub node_id: NodeId,
    /// The configuration of a topic that says nothing else.
    pub defaults: TopicConfig,
    /// What a topic's appends wait for if it does not say.
    pub durability: Durability,
    /// Bytes of recent blocks kept in memory, all shards together.
    pub tail_cache_bytes: usize,
    /// A checkpoint is due after so many bytes of the journal, as its segments have them.
    pub checkpoint_bytes: u64,
    /// A checkpoint is due after so many entries.
    pub checkpoint_entries: u64,
    /// How long nothing is written to a disk before something small is, to see whether it answers; zero for never.
    pub idle_check: Duration,
    /// How often retention looks at the partitions.
    pub retention_interval: Duration,
    /// How long an idempotent producer is remembered after its last batch.
    pub producer_expiry: Duration,
    /// The most idempotent producers that a partition remembers; beyond it those are forgotten that came once, or not for longest.
    pub partition_producers_max: usize,
    /// The same for all partitions of the node together, a producer counted in each.
    pub producers_max: usize,
    /// Bytes that may wait in open blocks of one shard before [`Broker::room`](crate::Broker::room) makes callers wait; as many bytes of
    /// changes may wait there before further ones are refused.
    pub open_bytes_max: usize,
    /// The most partitions a topic may have.
    pub partitions_max: u32,
    /// The most partitions that all topics may have together.
    pub partitions_total_max: usize,
    /// The most memory, in bytes, that settings take which are kept by name for all topics together.
    pub settings_max: usize,
    /// The most memory, in bytes, that what queues remember of messages' ids may come to for all queues together.
    pub dedup_max: usize,
    /// Names that front ends keep for topics of their own, of all that there are, whether they are served or not.
    pub reserved: Vec<ReservedTopic>,
    /// Names that topics have which front ends' own clients made, and those of no other, whether they are served or not.
    pub of_clients: Vec<ReservedTopic>,
    /// Names that front ends give queues where their clients leave that to them.
    pub generated: Vec<ReservedTopic>,
    /// All front ends that there are, whether they are served or not: each is given a number at the start, for good.
    pub front_ends: Vec<&'static str>,
    /// The one of them whose groups are stored without its number, since they were there before groups had one. It is never another one.
    pub unnamed_groups: Option<&'static str>,
    /// Projections that front ends keep in shards, of all that there are, whether they are served or not: a shard that has state of another
    /// one does not open.
    pub projections: Vec<ProjectionFactory>,
    /// How each front end's records become messages, whether it is served or not.
    pub converters: Vec<Converter>,
    /// Exchanges and bindings.
    pub exchanges: ExchangeOptions,
    /// Bytes of a new segment file of the journal.
    pub segment_bytes: u64,
    /// Whether segments without a record that is kept are used again; off only where the journal is to be replayed from its
    /// first block.
    pub recycle: bool,
    /// Bytes of the device that a shard's journal leaves to others.
    pub keep_free: u64,
    /// Descriptors that the journals keep for files that are not in use just then, all shards together.
    pub open_files: usize,
    /// The most topics whose bytes in and out are counted one by one; those of the others are counted together.
    pub counted_topics_max: usize,
    /// How consumer groups are run.
    pub groups: GroupOptions,
    /// Where opening says what it is at.
    pub progress: Arc<StartProgress>,
}

impl BrokerOptions {
    /// The most that [`data_shards`](Self::data_shards) may be.
    pub const MOST_DATA_SHARDS: u32 = 1024;
    /// The most that [`partitions_max`](Self::partitions_max) may be: so many partitions are named by one entry.
    pub const MOST_PARTITIONS: u32 = 400_000;

    /// The defaults for a data directory: one data shard per two cores, everything synced.
    pub fn new(data: impl Into<PathBuf>) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            data: data.into(),
            data_shards: (cores / 2).clamp(1, 1024) as u32,
            data_shards_auto: true,
            format_level: None,
            disk: DiskKind::Auto,
            node_id: NodeId(1),
            defaults: TopicConfig::default(),
            durability: Durability::Sync,
            tail_cache_bytes: 256 << 20,
            checkpoint_bytes: 1 << 30,
            checkpoint_entries: 4_000_000,
            idle_check: Duration::from_secs(5),
            retention_interval: Duration::from_secs(30),
            producer_expiry: Duration::from_secs(24 * 3600),
            partition_producers_max: 10_000,
            producers_max: 250_000,
            open_bytes_max: 32 << 20,
            partitions_max: 10_000,
            partitions_total_max: 500_000,
            settings_max: 32 << 20,
            dedup_max: 64 << 20,
            reserved: Vec::new(),
            of_clients: Vec::new(),
            generated: Vec::new(),
            front_ends: Vec::new(),
            unnamed_groups: None,
            projections: Vec::new(),
            converters: Vec::new(),
            exchanges: ExchangeOptions::default(),
            segment_bytes: 64 << 20,
            recycle: true,
            keep_free: 256 << 20,
            open_files: 256,
            counted_topics_max: 1000,
            groups: GroupOptions::default(),
            progress: Arc::default(),
        }
    }
}

/// Why a broker did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// Another process has the data directory open.
    #[error("{path} is in use by process {pid}")]
    InUse {
        /// The data directory.
        path: PathBuf,
        /// What its lock file says.
        pid: String,
    },
    /// The data directory cannot be used.
    #[error("{op} {path}: {source}")]
    Io {
        /// What was being done.
        op: &'static str,
        /// To what.
        path: PathBuf,
        /// What the system answered.
        source: std::io::Error,
    },
    /// A shard cannot be opened; the message names file, position and sequence where data is damaged.
    #[error("shard {shard}: {reason}")]
    Shard {
        /// Which shard.
        shard: u32,
        /// What is wrong.
        #[source]
        reason: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The shards do not belong together, or one is not there.
    #[error(transparent)]
    Shards(#[from] ShardsError),
    /// The data directory is a folder of something else.
    #[error(
        "{path} is not empty and not a data directory (it holds {found}): choose a folder of its own, or move that away"
    )]
    NotOurs {
        /// The data directory.
        path: PathBuf,
        /// Something that is in it.
        found: String,
    },
    /// The options make no sense, or not for this data directory. Nothing was made, and nothing written to its journals.
    #[error("{0}")]
    Options(String),
}

impl StartError {
    /// Whether the process, or the system, had no descriptor left for a file that is to be opened.
    pub fn lacks_descriptors(&self) -> bool {
        let first: &(dyn Error + 'static) = self;
        std::iter::successors(Some(first), |&error| error.source()).any(is_lack_of_descriptors)
    }
}

fn is_lack_of_descriptors(error: &(dyn Error + 'static)) -> bool {
    let shared = error.downcast_ref::<Arc<std::io::Error>>().map(AsRef::as_ref);
    let of_system = error.downcast_ref().or(shared).is_some_and(descriptors::are_lacking);
    of_system || matches!(error.downcast_ref(), Some(DiskError::NoDescriptors { .. }))
}

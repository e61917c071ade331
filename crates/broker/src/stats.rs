//! Figures of a running broker.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use sabir_base::metrics::{Histogram, HistogramSnapshot};
use sabir_model::{Offset, Sequence, ShardId, Term};

use crate::dead_letter::DeadLetterStats;
use crate::exchange::ExchangeMemory;
use crate::partition::PartitionState;
use crate::read::Damage;

/// A snapshot of the broker's figures. Counters count from the start of the process.
#[derive(Debug, Clone, Default)]
pub struct Stats {
    /// One for each shard, by number.
    pub shards: Vec<ShardStats>,
    /// Topics that take writes.
    pub topics: u64,
    /// Their partitions.
    pub partitions: u64,
    /// The most that the tail caches of all shards are to hold together just now.
    pub tail_cache_limit: u64,
    /// Memory of the settings kept by name for all topics.
    pub setting_bytes: u64,
    /// Changes of topics refused since that is as much as it may be.
    pub refused_settings: u64,
    /// What exchanges and bindings take, and how many were refused for it.
    pub exchanges: ExchangeMemory,
    /// How far the system clock is ahead of the node's time, in milliseconds; negative if it is behind.
    pub clock_ahead_ms: i64,
    /// How far the last block's time may be ahead of the node's, in milliseconds: those of new blocks stand at it.
    pub stamps_ahead_ms: i64,
}

/// Messages that are delayed and hold the segments of a full disk that they lie in, whatever else is deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DelayedStats {
    /// How many.
    pub messages: u64,
    /// Within this time all of them are due.
    pub left: Duration,
    /// Whether each segment holds some, so that deletes of other records free none.
    pub in_each_segment: bool,
}

/// Figures of one shard.
#[derive(Debug, Clone, Default)]
pub struct ShardStats {
    /// Which shard.
    pub shard: ShardId,
    /// The last block applied.
    pub applied: Sequence,
    /// The term it is led in.
    pub term: Term,
    /// Whether its storage failed: it answers reads only.
    pub stopped: bool,
    /// Whether its disk is full: it takes deletes only.
    pub full: bool,
    /// Whether its journal has fewer segments than it takes to go on: if it is full, deletes make no room while any record is kept.
    pub lacks_segments: bool,
    /// Whether a block finds no space in a segment that is there, as on file systems that copy on write: deletes wait behind it.
    pub waits_for_space: bool,
    /// How long the oldest block that is not committed has been under way.
    pub commit_age: Duration,
    /// How long the oldest change or read has been under way that the disk has not finished, of the journal or of the pages beside it.
    pub disk_wait: Duration,
    /// Blocks applied.
    pub blocks: u64,
    /// Entries applied.
    pub entries: u64,
    /// Bytes of the blocks applied.
    pub bytes: u64,
    /// Batches appended to partitions.
    pub batches: u64,
    /// Records appended to partitions.
    pub records: u64,
    /// Bytes of batches appended to partitions.
    pub batch_bytes: u64,
    /// Batches refused where their order was final.
    pub refused: u64,
    /// Batches of idempotent producers that were there already, and are there once.
    pub duplicates: u64,
    /// Messages that queues dropped, since they had had one of the same id.
    pub repeated: u64,
    /// Ids of messages that queues remember.
    pub message_ids: u64,
    /// What became of messages that queues gave up and published elsewhere.
    pub dead_letters: DeadLetterStats,
    /// Messages that queues gave up and that wait to be published elsewhere: they are neither ready nor in flight there.
    pub waiting_dead_letters: u64,
    /// Messages that are delayed, where its disk is full; none are counted where it is not.
    pub delayed: DelayedStats,
    /// Messages that are kept back until their time.
    pub kept_back: u64,
    /// Copies of messages that were kept back which their target did not take when their time came.
    pub delayed_refused: u64,
    /// Messages of topics' subscriptions that were removed from their topics before they were delivered.
    pub skipped_messages: u64,
    /// Idempotent producers that are remembered, in each partition by itself.
    pub producers: u64,
    /// Producers forgotten before their time, since there were too many.
    pub crowded_out: u64,
    /// Bytes read for fetches from the newest blocks in memory.
    pub hot_bytes: u64,
    /// Bytes read from the disk for fetches, ahead of them or when they came.
    pub cold_bytes: u64,
    /// Reads for fetches that the tail cache served.
    pub cache_hits: u64,
    /// Reads for fetches that read-ahead had brought from the disk already.
    pub ahead_hits: u64,
    /// Reads for fetches that waited for the disk.
    pub disk_reads: u64,
    /// Checkpoints committed.
    pub checkpoints: u64,
    /// Since the last checkpoint of this run, or since its start.
    pub checkpoint_age: Duration,
    /// Checkpoints that were given up, each of which was or is tried again.
    pub failed_checkpoints: u64,
    /// Since the first of those that were given up one after the other; zero where the last one was committed.
    pub checkpoints_fail_for: Duration,
    /// Batches found corrupt by reads.
    pub corrupt: u64,
    /// Partitions whose records could not be read; the first few of them.
    pub damaged: Vec<Damage>,
    /// Segment files of the journal.
    pub segment_files: u64,
    /// Their bytes.
    pub segment_bytes: u64,
    /// Bytes free on the shard's file system, as of the last minute; `None` if that does not say.
    pub free_bytes: Option<u64>,
    /// How many of those its journal leaves to others.
    pub keep_free: u64,
    /// Bytes in the tail cache, or pinned by its readers.
    pub tail_cache_bytes: u64,
    /// Blocks given to the replicator and not committed yet.
    pub in_flight: u32,
    /// Sizes of submitted blocks, in bytes.
    pub block_bytes: HistogramSnapshot,
    /// Entries of submitted blocks.
    pub block_entries: HistogramSnapshot,
    /// From a block's submission to its commit, in microseconds.
    pub commit_us: HistogramSnapshot,
}

/// What a partition keeps, at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PartitionStats {
    /// The first offset.
    pub start: Offset,
    /// The offset behind the last record: the high watermark.
    pub end: Offset,
    /// Bytes of the batches kept.
    pub bytes: u64,
}

impl PartitionStats {
    pub(crate) fn of(kept: &PartitionState) -> Self {
        Self { start: kept.log_start, end: kept.next, bytes: kept.bytes }
    }
}

/// A number that only grows.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, more: usize) {
        self.0.fetch_add(more as u64, Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// When something last happened; at first, when this was made.
#[derive(Debug)]
pub(crate) struct Moment(Mutex<Instant>);

impl Default for Moment {
    fn default() -> Self {
        Self(Mutex::new(Instant::now()))
    }
}

impl Moment {
    pub(crate) fn now(&self) {
        *self.0.lock() = Instant::now();
    }

    pub(crate) fn age(&self) -> Duration {
        self.0.lock().elapsed()
    }
}

/// Since when something has been so, if it is.
#[derive(Debug, Default)]
pub(crate) struct Since(Mutex<Option<Instant>>);

impl Since {
    /// It is so: since now, if it was not before.
    pub(crate) fn is_so(&self) {
        self.0.lock().get_or_insert_with(Instant::now);
    }

    pub(crate) fn ends(&self) {
        *self.0.lock() = None;
    }

    /// Zero if it is not so.
    pub(crate) fn age(&self) -> Duration {
        self.0.lock().map_or(Duration::ZERO, |since| since.elapsed())
    }
}

/// What a shard counts outside of its projections.
#[derive(Debug, Default)]
pub(crate) struct ShardMeters {
    pub(crate) crowded_out: Counter,
    pub(crate) hot_bytes: Counter,
    pub(crate) corrupt: Counter,
    pub(crate) cache_hits: Counter,
    pub(crate) ahead_hits: Counter,
    pub(crate) disk_reads: Counter,
    pub(crate) checkpoints: Counter,
    pub(crate) checkpointed: Moment,
    pub(crate) failed_checkpoints: Counter,
    pub(crate) checkpoints_fail: Since,
    pub(crate) block_bytes: Histogram,
    pub(crate) block_entries: Histogram,
    pub(crate) commit_us: Histogram,
}

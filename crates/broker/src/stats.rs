//! Figures of a running broker.

use sabir_model::{Sequence, ShardId, Term};

/// A snapshot of the broker's figures. Counters count from the start of the process.
#[derive(Debug, Clone, Default)]
pub struct Stats {
    /// One for each shard, by number.
    pub shards: Vec<ShardStats>,
    /// Topics that take writes.
    pub topics: u64,
    /// Their partitions.
    pub partitions: u64,
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
    /// Batches refused or found to be duplicates.
    pub refused: u64,
    /// Bytes read for fetches from memory.
    pub hot_bytes: u64,
    /// Bytes read for fetches from the disk.
    pub cold_bytes: u64,
    /// Checkpoints committed.
    pub checkpoints: u64,
    /// Batches found corrupt by reads.
    pub corrupt: u64,
}

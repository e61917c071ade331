//! What a read asks for and what it is answered with.

use std::time::Instant;

use bytes::Bytes;
use sabir_model::{ErrorAbout, FrontendNo, LeaderEpoch, Offset, PartitionId, ReadError, ShardId};

use crate::caller::Caller;
use crate::catalog::{Partition, Topic};

/// A partition that a caller may read; see [`Broker::read`](crate::Broker::read).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadTarget {
    pub(crate) shard: ShardId,
    pub(crate) partition: PartitionId,
}

impl ReadTarget {
    /// Partition `index` of `topic`, for the caller to read.
    ///
    /// # Errors
    /// There is none, or none that the caller may read.
    #[inline]
    pub fn new(caller: &Caller, topic: &Topic, index: i32) -> Result<Self, ErrorAbout<ReadError>> {
        Self::find(caller, topic, index).map_err(|error| ErrorAbout::new(error, topic.subject(index)))
    }

    /// The same for a caller that knows what it asked for: its error costs nothing.
    ///
    /// # Errors
    /// Those of [`new`](Self::new).
    #[inline]
    pub fn find(caller: &Caller, topic: &Topic, index: i32) -> Result<Self, ReadError> {
        caller.may_read(topic)?;
        topic.partition(index).map(Self::of).ok_or(ReadError::UnknownPartition)
    }

    /// For a caller that may read it.
    pub(crate) fn of(partition: &Partition) -> Self {
        Self { shard: partition.shard, partition: partition.id }
    }
}

/// What a reader has room for that counts what it reads itself; see [`Broker::read_until`](crate::Broker::read_until).
pub struct ReadRoom<'a> {
    /// Bytes for which it has memory.
    pub max_bytes: usize,
    /// Whether the first batch is read whatever its size. A larger one holds memory of the node's.
    pub min_one: bool,
    /// From then on it is answered with what it has, if that is anything.
    pub until: Instant,
    /// Called before the read waits for memory: whoever waits is to have none.
    pub waits: &'a mut (dyn FnMut() + Send),
}

/// Records of one partition.
#[derive(Debug, Clone, Default)]
pub struct Fetched {
    /// The offset behind the last committed record.
    pub high_watermark: Offset,
    /// The offset behind the last record that no open transaction holds back.
    pub last_stable: Offset,
    /// The partition's first offset.
    pub log_start: Offset,
    /// The batches found, in offset order. The first may begin before the offset asked for.
    pub slices: Vec<Slice>,
}

impl Fetched {
    /// Bytes of all slices.
    pub fn bytes(&self) -> usize {
        self.slices.iter().map(Slice::len).sum()
    }
}

/// Whole v2 batches, ready to be written: base offsets and leader epochs stand in them. Their bytes are those of `head`,
/// then those of `body`; a large batch's body is shared with the tail cache, not copied, unless it holds memory of its own.
#[derive(Debug, Clone)]
pub struct Slice {
    /// The first batch's base offset.
    pub base_offset: Offset,
    /// The offset behind the last batch.
    pub next_offset: Offset,
    /// The leader epoch of all batches.
    pub leader_epoch: LeaderEpoch,
    /// The front end that built the batches; [`FrontendNo::NONE`] for what a client sent as it is.
    pub origin: FrontendNo,
    /// The bytes that differ from the stored ones; may be empty.
    pub head: Bytes,
    /// The bytes behind `head`.
    pub body: Bytes,
    /// Whether `body` is all of one large batch and holds memory of the node's until the last slice of it is let go of.
    pub is_held: bool,
}

impl Slice {
    /// Bytes of head and body.
    pub fn len(&self) -> usize {
        self.head.len() + self.body.len()
    }

    /// Whether it holds nothing.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Head and body as one, copied unless one of them is empty.
    pub fn joined(&self) -> Bytes {
        if self.head.is_empty() {
            return self.body.clone();
        }
        let mut all = Vec::with_capacity(self.len());
        all.extend_from_slice(&self.head);
        all.extend_from_slice(&self.body);
        all.into()
    }
}

/// Which offset is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OffsetSpec {
    /// The first one kept.
    Earliest,
    /// The one behind the last committed record.
    Latest,
    /// The first record that carries the largest timestamp.
    MaxTimestamp,
    /// The first record whose timestamp is at least this, in milliseconds since the epoch.
    Timestamp(i64),
}

/// An offset that was looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FoundOffset {
    /// The offset; -1 where no record fits.
    pub offset: Offset,
    /// The record's timestamp in milliseconds since the epoch; -1 where no record was looked at.
    pub timestamp: i64,
    /// The leader epoch at that offset.
    pub leader_epoch: LeaderEpoch,
}

/// The end of a leader epoch in a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EpochEnd {
    /// The largest epoch of the partition that is not above the one asked for; unknown where there is none.
    pub epoch: LeaderEpoch,
    /// The offset behind its last record; -1 where there is none.
    pub end_offset: Offset,
}

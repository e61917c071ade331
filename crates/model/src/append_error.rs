//! Why a batch is not appended.

use crate::ShardFailure;

/// Why a batch that passed its checks is not appended. Its producer is told; the partition is as it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum AppendError {
    /// There is no such partition, or no longer.
    #[error("there is no such partition")]
    UnknownPartition,
    /// The producer's sequence number leaves a gap, or is too old to be known as that of a duplicate.
    #[error("out of order sequence number {got}: {expected} is the producer's next")]
    OutOfOrderSequence {
        /// The next one.
        expected: i32,
        /// The batch's.
        got: i32,
    },
    /// A later epoch of the producer has written: this one is fenced off for good.
    #[error("the producer's epoch {got} was replaced by {current}")]
    FencedProducer {
        /// The latest epoch.
        current: i16,
        /// The batch's.
        got: i16,
    },
    /// The partition has no offsets left for it.
    #[error("the partition has no offsets left")]
    NoOffsets,
    /// It refers to records that are not in the log.
    #[error("it refers to records that are not there")]
    InvalidReference,
    /// The queue is as long as it may be, and takes no more.
    #[error("the queue is as long as it may be, and takes no more")]
    QueueFull,
    /// A projection has no such batch to append, or appended it already.
    #[error("there is no such batch, or it was appended already")]
    NoSuchBatch,
    /// Its chunks together are more than a batch can be.
    #[error("the batch is too large")]
    TooLarge,
    /// The shard did not take it, or gave it up.
    #[error(transparent)]
    Shard(#[from] ShardFailure),
}

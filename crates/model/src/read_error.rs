//! Why records are not read.

use crate::Offset;

/// Why records, or an offset of a partition, are not given. A read may be repeated: it changed nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum ReadError {
    /// There is no such partition, or no longer.
    #[error("there is no such partition")]
    UnknownPartition,
    /// The partition keeps no records there.
    #[error("offset {asked} is out of range: the partition keeps {start} to {end}")]
    OutOfRange {
        /// The offset that was asked for.
        asked: Offset,
        /// The partition's first offset.
        start: Offset,
        /// The offset behind its last record.
        end: Offset,
    },
    /// Retention deleted the records while they were read.
    #[error("the records were deleted while they were read: go on at the partition's first offset")]
    Deleted,
    /// The bytes of the records are not those that were written.
    #[error("the records are corrupt: see the broker's log for their place")]
    Corrupt,
    /// The disk did not give the records.
    #[error("the disk does not give the records: see the broker's log")]
    Storage,
    /// The node is going down.
    #[error("the broker is shutting down")]
    ShuttingDown,
}

//! Why a shard took no entry.

/// Why a shard took no entry, or gave up one that it had taken. Nothing that the entry would have done is done, [`Timeout`](Self::Timeout)
/// aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum ShardFailure {
    /// Another node leads the shard, or led it before the entry was committed.
    #[error("this node does not lead: ask again")]
    NotLeader,
    /// The shard's storage failed.
    #[error("the shard's storage failed, and it takes no more writes: see the broker's log")]
    StorageError,
    /// The disk is full.
    #[error("the disk is full: make room, and ask again")]
    StorageFull,
    /// It took longer than the caller wanted to wait; it may be done all the same.
    #[error("it is not done in time, and may be done later all the same")]
    Timeout,
    /// The change is more than an entry takes. It will not succeed later, either.
    #[error("the change is larger than an entry of the journal takes")]
    TooLarge,
    /// The node is going down.
    #[error("the broker is shutting down")]
    ShuttingDown,
}

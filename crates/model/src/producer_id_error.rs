//! Why no producer id is given out.

use crate::ShardFailure;

/// Why no producer id is given out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum ProducerIdError {
    /// All have been given out.
    #[error("all producer ids have been given out")]
    UsedUp,
    /// The catalog's shard did not take the request.
    #[error(transparent)]
    Shard(#[from] ShardFailure),
}

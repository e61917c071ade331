//! Plain data every part of the broker speaks of: ids, kinds of errors, topic configuration, extents, and the codec of
//! Kafka's v2 record batch, which is the form records have on disk.
#![deny(missing_docs)]

pub mod batch;
mod error;
mod extent;
mod ids;
mod message;
pub mod stored;
mod topic;
mod topic_error;

pub use error::ErrorKind;
pub use extent::{Extent, Overlay};
pub use ids::{
    FrontendNo, LeaderEpoch, NodeId, Offset, PartitionId, ProducerId, Sequence, ShardId, Term, TopicId,
};
pub use message::{HeaderValue, Message, SentTo};
pub use stored::DecodeError;
pub use topic::{
    Durability, InvalidSetting, KEPT_BYTES, KeptSettings, OwnFields, QueueConfig, TimestampType, TopicConfig,
    TopicField, TopicKind, ValidConfig,
};
pub use topic_error::{ShardFailure, TopicError};

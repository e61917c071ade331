//! Plain data every part of the broker speaks of: ids, errors, topic configuration, extents, and the codec of
//! Kafka's v2 record batch, which is the form records have on disk.
#![deny(missing_docs)]

mod about;
mod append_error;
pub mod batch;
mod extent;
mod facts;
mod group_error;
mod ids;
mod message;
mod namespace;
mod overlay;
mod producer_id_error;
mod read_error;
mod shard_failure;
pub mod stored;
mod topic;
mod topic_error;

pub use about::{ErrorAbout, Subject};
pub use append_error::AppendError;
pub use extent::{Extent, Overlay, OverlayPlace};
pub use facts::{Facts, RecordFacts};
pub use group_error::GroupError;
pub use ids::{
    FrontendNo, LeaderEpoch, NodeId, Offset, PartitionId, ProducerId, Sequence, ShardId, Term, TopicId,
};
pub use message::{HeaderValue, Message, SentTo};
pub use namespace::{DEFAULT_NAMESPACE, Namespace};
pub use overlay::OverlayBody;
pub use producer_id_error::ProducerIdError;
pub use read_error::ReadError;
pub use shard_failure::ShardFailure;
pub use stored::DecodeError;
pub use topic::{
    Backoff, DeadLetterAddress, DedupLimit, Durability, GroupOrder, InvalidSetting, KEPT_BYTES, KeptSettings,
    Overflow, OwnFields, QueueConfig, RateLimit, TimestampType, TopicConfig, TopicField, TopicKind,
    ValidConfig,
};
pub use topic_error::TopicError;

//! The broker: shards, the projections over their journals, topics and partitions, behind one handle.
//!
//! Start at [`Broker`]. A front end checks, translates, makes one call here and replies.
#![deny(missing_docs)]

mod append;
mod broker;
mod catalog;
mod codec;
mod entry;
mod lock;
mod options;
mod partition;
mod read;
mod state;
mod stats;
mod watch;

pub use append::{Append, Appended, Appending};
pub use broker::Broker;
pub use catalog::{CatalogView, DEFAULT_NAMESPACE, NewTopic, Partition, Topic};
pub use lock::check_free;
pub use options::{BrokerOptions, DiskKind, StartError};
pub use read::{EpochEnd, Fetched, FoundOffset, OffsetSpec, Slice};
pub use stats::{ShardStats, Stats};
pub use watch::DataWatch;

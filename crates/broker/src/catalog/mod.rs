//! The catalog: which topics there are and where their partitions live.

mod view;

pub use view::{CatalogView, DEFAULT_NAMESPACE, NewTopic, Partition, Topic};

//! The catalog: which topics there are and where their partitions live.

mod cow;
mod names;
mod state;
mod view;

pub(crate) use state::{Catalog, Singles};
pub use view::{CatalogView, NewTopic, Partition, Topic};

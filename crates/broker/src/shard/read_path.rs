//! The read path: what reads of a shard share.

use std::sync::Arc;

use crate::read::{Damages, PageCache, ReadMemoryOf};
use crate::watch::Watchers;

/// What reads, and readers that wait, keep between them.
#[derive(Default)]
pub(crate) struct ReadPath {
    /// Pages of the index that were read from the page store.
    pub(crate) page_cache: PageCache,
    /// Records that could not be read.
    pub(crate) damages: Damages,
    /// Readers that wait for records.
    pub(crate) watchers: Watchers,
    /// Held by the one step of a lookup by time that is under way.
    pub(crate) lookups: Arc<tokio::sync::Mutex<()>>,
    /// What large batches hold.
    pub(crate) memory: ReadMemoryOf,
}

//! Pages: what projections and a node's own tables are checkpointed as, by key, in one ordered store beside the journal.
//!
//! The journal is the truth; a page store holds what a replay would give again, up to one sequence. So it is written only
//! at a checkpoint, and a [transaction](PageTransaction) is all or nothing: after a crash at any moment the store is what it was after its
//! last commit, or after the one under way.
//!
//! [`Paged`] is a resident map whose changed entries become pages at a checkpoint. Closed history (old index pages, timer
//! runs) is put into the same [`PageBatch`] as pages of its own and read back with [`PageStore::get`].

mod batch;
mod capture;
#[cfg(any(test, feature = "testing"))]
mod mem;
mod paged;
#[cfg(test)]
mod paged_tests;
mod redb;
mod rising;
mod split;
#[cfg(test)]
mod suite;
mod summary;

pub use batch::{PageBatch, PageChange};
pub use capture::{CapturedKey, PageCapture, StoredMark, stored_entries};
#[cfg(any(test, feature = "testing"))]
pub use mem::{CommitFault, MemPages, PageFault};
pub use paged::{Budget, PageDecodeError, PageKey, PageValue, Paged};
pub use redb::RedbPages;
pub use rising::Rising;

use std::fmt;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use crate::disk::limit_text;

/// The largest page, in bytes; a larger value is split over numbered pages. With its key and the store's own
/// header it takes 16 KiB on disk, and not the next power of two.
pub const MAX_PAGE: usize = 16_000;

/// The longest key of a page, in bytes: room for two names and what stands before them. A full page under a key of more than some 350
/// bytes takes 32 KiB on disk.
pub const MAX_KEY: usize = 1536;

/// Why a page store did not do what it was asked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum PageError {
    /// What is stored is not what was written. The store is left as it is: it is never replaced by an empty one.
    #[error("the page store {path} is corrupt: {detail}")]
    Corrupt {
        /// The store's file.
        path: String,
        /// What did not match.
        detail: String,
    },
    /// A page, read whole and unharmed, is not one this version can decode.
    #[error("the page {key:02x?} cannot be decoded: {detail}")]
    Undecodable {
        /// The page's key.
        key: Vec<u8>,
        /// What was wrong with it.
        detail: String,
    },
    /// Pages are not there that must be.
    #[error("pages under {prefix:02x?} are missing: {detail}")]
    Incomplete {
        /// What their keys begin with.
        prefix: Vec<u8>,
        /// What was found and what was expected.
        detail: String,
    },
    /// A key or page beyond [`MAX_KEY`] or [`MAX_PAGE`].
    #[error("a page of {page} bytes under a key of {key} bytes is larger than a store takes")]
    TooLarge {
        /// The key's length, in bytes.
        key: usize,
        /// The page's length, in bytes.
        page: usize,
    },
    /// No space left.
    #[error("no space left on the device for the page store {path}")]
    Full {
        /// The store's file.
        path: String,
    },
    /// No file may be so large: the process has a limit on it, or the file system.
    #[error("the page store {path} would be larger than {}", limit_text(.limit))]
    FileTooLarge {
        /// The store's file.
        path: String,
        /// The process's limit in bytes, if it has one.
        limit: Option<u64>,
    },
    /// Another process has the store open.
    #[error("the page store {path} is open elsewhere")]
    InUse {
        /// The store's file.
        path: String,
    },
    /// The system refused or failed.
    #[error("the page store {path}: {source}")]
    Io {
        /// The store's file.
        path: String,
        /// What the system answered.
        source: Arc<std::io::Error>,
    },
}

/// Whether a store was there. What it means beside a journal that is not empty is the caller's to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opened {
    /// It was not there and has been made, empty.
    Created,
    /// It was there.
    Existing,
}

/// What [`PageStore::scan`] calls with each key and page.
pub type Visit<'a> = dyn FnMut(&[u8], &[u8]) -> Result<ControlFlow<()>, PageError> + 'a;

/// An ordered store of pages by key.
///
/// Readers see what was committed last, whole, while a transaction is open. Whatever is read from disk has been
/// verified against checksums. All methods block and may be called from any thread; transactions exclude one another.
pub trait PageStore: Send + Sync + fmt::Debug + 'static {
    /// The page under `key`.
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, PageError>;

    /// Visits the pages whose key begins with `prefix` and is not before `from` (empty: from the first), in the order of the keys,
    /// until told to stop. All of them are of one committed state.
    fn scan(&self, prefix: &[u8], from: &[u8], visit: &mut Visit<'_>) -> Result<(), PageError>;

    /// Begins a transaction, once the one that is open has ended.
    fn begin(&self) -> Result<Box<dyn PageTransaction + '_>, PageError>;

    /// A transaction of one batch: what there is no space for has what is [set aside](Self::keep_reserve).
    fn commit(&self, batch: PageBatch) -> Result<(), PageError> {
        let once = || {
            let mut transaction = self.begin()?;
            transaction.put(&batch)?;
            transaction.commit()
        };
        match once() {
            Err(PageError::Full { .. }) if self.give_up_reserve() => once(),
            result => result,
        }
    }

    /// What the store takes on its disk, in bytes.
    fn stored_bytes(&self) -> Result<u64, PageError>;

    /// Sets space aside that a transaction may have where the disk has none left, if the store has not enough of it for one that brings so many
    /// bytes of changes; false if the disk gives none.
    fn keep_reserve(&self, changes: u64) -> bool {
        let _ = changes;
        true
    }

    /// What is used of the space that it has. It may have to read all pages to tell.
    ///
    /// # Errors
    /// A page cannot be read.
    fn room(&self) -> Result<PageRoom, PageError> {
        Ok(PageRoom::UNBOUNDED)
    }

    /// Gives that up, for a transaction that found the disk full and is tried again; false if there is none.
    fn give_up_reserve(&self) -> bool {
        false
    }

    /// How long the oldest read, write or sync that is not done has been under way; zero if there is none, or if nothing watches the disk.
    fn under_way(&self) -> Duration {
        Duration::ZERO
    }
}

/// The space that a store has on its disk, whether others leave any or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageRoom {
    /// Bytes of the pages that are stored.
    pub used: u64,
    /// Bytes that they, and those of the transaction that replaces them, may take together.
    pub all: u64,
}

impl PageRoom {
    /// That of a store that needs none.
    pub const UNBOUNDED: Self = Self { used: 0, all: u64::MAX };

    /// What each byte that is changed takes at most, until the transaction behind the one that changes it: a value may fill little more than half of
    /// its page, what it replaces is free one transaction later, and the tree and the allocator's state are written with it.
    pub const A_CHANGE_TAKES: u64 = 5;
}

/// Changes that are seen together or not at all: one that is dropped before it is committed has changed nothing.
///
/// What was put takes no memory in proportion: it is written as it comes, where nothing refers to it.
pub trait PageTransaction {
    /// Adds changes; of two changes of one key the later one counts. After an error it is over, and nothing of it is kept.
    fn put(&mut self, portion: &PageBatch) -> Result<(), PageError>;

    /// Makes all of it visible at once; it is durable on return. After an error the store holds all of it or, as far as is known, none:
    /// what later calls see is what it holds.
    fn commit(self: Box<Self>) -> Result<(), PageError>;
}

/// What a transaction answers that an earlier error has ended.
fn ended(path: String) -> PageError {
    PageError::Io { path, source: Arc::new(std::io::Error::other("the transaction has failed before")) }
}

//! The journal: the one thing that is made durable on the write path, and the page store beside it.
//!
//! ```text
//!   entries ──► BlockBuilder ──► Block ──► Replicator::append ──► Event::Committed ──► apply
//!                                              │        ▲
//!                                      Journal │        │ completions, reaped by whoever is told of them
//!                                              ▼        │
//!                                   segments ── Disk ───┘         reads: tail cache, else the segment
//! ```
#![deny(missing_docs)]

pub mod disk;
pub mod pages;

mod block;
mod error;
mod journal;
mod read;
mod replicator;
mod segment;
mod solo;
mod table;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
mod view;

pub use block::{Block, BlockBuilder, LARGEST_ENTRY, MAX_BLOCK};
pub use error::{AppendError, CutError, JournalError, ReadError, StorageError};
pub use journal::{Journal, JournalOptions, JournalStats, Recovered, Replayed, Torn};
pub use read::{ColdRead, Read};
pub use replicator::{Event, Priority, Replicator, Ticket};
pub use segment::{SegmentInfo, SegmentNo};
pub use solo::Solo;
pub use table::{LocalTables, SegmentTable};
pub use view::{BlockView, Entries, EntryView, ViewError};

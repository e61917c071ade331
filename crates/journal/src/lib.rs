//! The journal: the one thing that is made durable on the write path, and the page store beside it.
//!
//! ```text
//!   entries ──► BlockBuilder ──► Block ──► Replicator::append ──► Event::Committed ──► apply
//!                                              │        ▲
//!                                      Journal │        │ completions, reaped by the thread told of them
//!                                              ▼        │
//!                                   segments ── Disk ───┘         reads: tail cache, else the segment
//! ```
#![deny(missing_docs)]

// The fuzz targets, which the tests run too, name the crate from outside.
#[cfg(test)]
extern crate self as sabir_journal;

pub mod disk;
pub mod pages;

mod block;
mod content;
mod cut;
mod error;
mod flight;
mod frame;
mod index;
mod journal;
mod pending;
mod progress;
mod read;
mod recovery;
mod replay;
pub mod replicator;
mod segment;
mod slots;
mod solo;
mod space;
mod table;
mod tail;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
#[cfg(test)]
mod tests;
mod view;
mod walk;
mod writer;

pub use block::{Block, BlockBuilder, LARGEST_ENTRY, MAX_BLOCK};
pub use error::{BlockAppendError, BlockReadError, CutError, JournalError, StorageError};
pub use journal::{Journal, JournalOptions, JournalStats, Recovered, Torn};
pub use progress::{StartProgress, StartStep};
pub use read::{ColdRead, Read, ReadAhead};
pub use recovery::segment_generations;
pub use replay::Replayed;
pub use replicator::{Event, Priority, Replicator, Ticket};
pub use segment::{SegmentInfo, SegmentNo, is_journal_file};
pub use slots::{
    JournalFound, SHARD_ENDS, ShardEnds, ShardIdentity, SlotForm, SlotNotes, StartId, Vote, look_at,
};
pub use solo::Solo;
pub use space::Prepared;
pub use table::{LocalTables, SegmentTable};
pub use tail::TailBudget;
pub use view::{BlockView, Entries, EntryView, ViewError};

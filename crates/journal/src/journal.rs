//! The journal of one shard on one node.

use std::sync::Arc;

use bytes::Bytes;
use sabir_base::buf::BufPool;
use sabir_model::{Sequence, Term};

use crate::disk::Disk;
use crate::error::{JournalError, ReadError, StorageError};
use crate::read::Read;
use crate::segment::{SegmentInfo, SegmentNo};
use crate::table::LocalTables;

/// What a journal is opened with.
#[derive(Debug, Clone)]
pub struct JournalOptions {
    /// Bytes of a segment file; a multiple of 4 KiB, at most 256 MiB.
    pub segment_bytes: u64,
    /// What the tail cache may hold, readers' slices included, in bytes.
    pub tail_bytes: usize,
    /// What all segments may take, in bytes; `None` for what the device has.
    pub max_bytes: Option<u64>,
    /// Bytes of the device left to others (a checkpoint, an archive object).
    pub keep_free: u64,
    /// Seed of the segments' generations; `None` takes the system's randomness.
    pub seed: Option<u64>,
}

impl Default for JournalOptions {
    fn default() -> Self {
        Self {
            segment_bytes: 64 << 20,
            tail_bytes: 64 << 20,
            max_bytes: None,
            keep_free: 256 << 20,
            seed: None,
        }
    }
}

/// What opening found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recovered {
    /// The last block found; all up to it is flushed.
    pub last: Sequence,
    /// What is known to be committed: at least the checkpoint.
    pub committed: Sequence,
    /// The term in the slot.
    pub term: Term,
    /// Whether the last run ended by [`Journal::shutdown`].
    pub clean: bool,
    /// The tail that a crash tore, if it did.
    pub torn: Option<Torn>,
}

/// A write that a crash cut short. Nothing acknowledged was in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Torn {
    /// The segment's file name.
    pub file: String,
    /// Where it starts, in bytes.
    pub position: u64,
    /// The sequence that the block would have had.
    pub sequence: Sequence,
}

/// A block handed to a replay.
#[derive(Debug, Clone)]
pub struct Replayed {
    /// Its place.
    pub sequence: Sequence,
    /// The term it was appended in.
    pub term: Term,
    /// Its content, verified against its checksum.
    pub content: Bytes,
}

/// Figures of a journal since it was opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct JournalStats {
    /// Blocks appended.
    pub blocks: u64,
    /// Bytes of content appended.
    pub content_bytes: u64,
    /// Bytes written for blocks and seals, padding included.
    pub written_bytes: u64,
    /// Explicit flushes.
    pub flushes: u64,
    /// Seals.
    pub seals: u64,
    /// Bytes in the tail cache, or pinned by its readers.
    pub tail_bytes: u64,
    /// Reads answered from memory.
    pub hot_reads: u64,
    /// Reads that went to the disk.
    pub cold_reads: u64,
    /// Segment files.
    pub segments: u64,
}

/// The journal of one shard on one node.
#[derive(Debug)]
pub struct Journal;

impl Journal {
    /// Opens or makes the journal in `disk`, starting from the checkpoint's tables where there is one. Blocking.
    ///
    /// # Errors
    /// See [`JournalError`]: corruption is reported with its place, and nothing is cut off or overwritten.
    pub fn open(
        _disk: Arc<dyn Disk>,
        _pool: Arc<BufPool>,
        _options: JournalOptions,
        _checkpoint: Option<LocalTables>,
    ) -> Result<(Arc<Self>, Recovered), JournalError> {
        unimplemented!()
    }

    /// Hands the committed blocks after `after` to `each`, in order, each verified. Blocking.
    ///
    /// # Errors
    /// A bad block or a failed read, as `E`; or what `each` returns.
    pub fn replay<E: From<JournalError>>(
        &self,
        _after: Sequence,
        _each: &mut dyn FnMut(Replayed) -> Result<(), E>,
    ) -> Result<(), E> {
        unimplemented!()
    }

    /// The bytes `offset..offset + len` of a committed block's content.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn read(&self, _sequence: Sequence, _offset: u32, _len: u32) -> Result<Read, ReadError> {
        unimplemented!()
    }

    /// The last block that may be read.
    pub fn committed(&self) -> Sequence {
        unimplemented!()
    }

    /// The last block that a flush covers, with everything before it.
    pub fn durable(&self) -> Sequence {
        unimplemented!()
    }

    /// Waits until a flush covers `through`, which must be appended. Blocking: for checkpoints.
    ///
    /// # Errors
    /// The journal has stopped.
    pub fn flush(&self, _through: Sequence) -> Result<(), Arc<StorageError>> {
        unimplemented!()
    }

    /// Makes segments ready ahead of the writer, up to its stock: recycles dead ones, makes and zeroes new ones. Blocking, in
    /// the background; when the stock is full it returns at once. Returns whether the stock is full.
    ///
    /// # Errors
    /// A failed disk. No space left is none: then ordinary appends are refused (see `Replicator::admits`) until there is.
    pub fn prepare(&self) -> Result<bool, JournalError> {
        unimplemented!()
    }

    /// The tables cut at `through`, without released segments; for the checkpoint of that sequence.
    pub fn tables(&self, _through: Sequence) -> LocalTables {
        unimplemented!()
    }

    /// Says that the checkpoint of the tables last taken is committed: what they left out may be overwritten.
    pub fn checkpoint_committed(&self) {
        unimplemented!()
    }

    /// The segment that holds a block; `None` when released or not written yet.
    pub fn segment_of(&self, _sequence: Sequence) -> Option<SegmentNo> {
        unimplemented!()
    }

    /// The segments that hold blocks and are not released, in order.
    pub fn segments(&self) -> Vec<SegmentInfo> {
        unimplemented!()
    }

    /// Gives closed segments back: nothing refers to them any more. Their blocks cannot be read from now on; they are
    /// overwritten once a checkpoint that leaves them out is committed, lies beyond them, and no reader pins them.
    pub fn release(&self, _segments: &[SegmentNo]) {
        unimplemented!()
    }

    /// Why the journal stopped, if it did.
    pub fn stopped(&self) -> Option<Arc<StorageError>> {
        unimplemented!()
    }

    /// Drains, flushes and seals, so that the next start need not look for a torn tail. Nothing may be appended after it. Blocking.
    ///
    /// # Errors
    /// The journal has stopped.
    pub fn shutdown(&self) -> Result<(), Arc<StorageError>> {
        unimplemented!()
    }

    /// Figures since it was opened.
    pub fn stats(&self) -> JournalStats {
        unimplemented!()
    }
}

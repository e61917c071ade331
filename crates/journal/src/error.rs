//! What can go wrong with a journal: one type per operation.

use std::sync::Arc;

use sabir_model::Sequence;

use crate::block::Block;
use crate::disk::DiskError;
use crate::segment::SegmentNo;

/// Why a journal does not start. Nothing was changed on the disk unless the text says so.
#[derive(Debug, Clone, thiserror::Error)]
pub enum JournalError {
    /// The disk refused or failed.
    #[error("the journal could not {doing}: {source}")]
    Disk {
        /// What was being done.
        doing: &'static str,
        /// What the disk answered.
        #[source]
        source: DiskError,
    },
    /// A block that was durable cannot be read any more. It is never cut off: the bytes stay as they are.
    #[error("{file} is corrupt at byte {position}, where block {sequence} should stand: {reason}")]
    Corrupt {
        /// The segment's file name.
        file: String,
        /// Where the bad frame starts, in bytes.
        position: u64,
        /// The sequence of the block that should stand there.
        sequence: Sequence,
        /// What was found, and what proves that a good block stood there.
        reason: String,
    },
    /// A segment between two others is not there.
    #[error("segment {missing} of the journal is missing: {reason}")]
    Gap {
        /// The first one that is missing.
        missing: SegmentNo,
        /// What stands around it.
        reason: String,
    },
    /// A segment that the checkpoint lists is not there: it has been lost, or the checkpoint is of another journal or an older one.
    #[error("segment {missing} of the journal is missing: {reason}")]
    Unmatched {
        /// The first one that is missing.
        missing: SegmentNo,
        /// Its generation, as the checkpoint has it.
        generation: u64,
        /// The file in which the checkpoint has it.
        file: String,
        /// The segment that this file is.
        instead: Option<SegmentNo>,
        /// Whether others that it lists are there.
        others: bool,
        /// What stands around it.
        reason: String,
    },
    /// A segment's file that is another journal's.
    #[error("{file} is of another journal")]
    Foreign {
        /// The file name.
        file: String,
        /// The number of the journal that it is of.
        journal: u64,
    },
    /// Neither of the two slot copies can be read.
    #[error("{file}: neither copy of the journal's slot can be read: {reason}")]
    Slots {
        /// The file name.
        file: String,
        /// What is wrong with the better one.
        reason: String,
    },
    /// A block is not in the journal: its segment was released.
    #[error("block {sequence} is not in the journal, whose first is {first}")]
    Missing {
        /// What was asked for.
        sequence: Sequence,
        /// The first block there is.
        first: Sequence,
    },
    /// Written by a newer version of this program.
    #[error("{file} has format version {found}, newer than the {known} this program knows")]
    Newer {
        /// The file name.
        file: String,
        /// Its version.
        found: u16,
        /// The newest known version.
        known: u16,
    },
    /// The local tables of the checkpoint cannot be read.
    #[error("the journal's tables in the checkpoint cannot be read: {0}")]
    Tables(&'static str),
    /// An option is out of its range.
    #[error("journal option {option}: {reason}")]
    Option {
        /// Its name.
        option: &'static str,
        /// What it must be.
        reason: &'static str,
    },
    /// The journal has stopped.
    #[error(transparent)]
    Stopped(#[from] Arc<StorageError>),
}

impl JournalError {
    pub(crate) fn disk(doing: &'static str) -> impl FnOnce(DiskError) -> Self {
        move |source| Self::Disk { doing, source }
    }

    /// Whether there was no space left on the device, or no descriptor.
    pub fn is_full(&self) -> bool {
        matches!(self, Self::Disk { source, .. } if source.is_shortage())
    }
}

/// Why a running journal stopped writing, for good: a write or a sync failed, so what the caches below hold is not known.
/// It is never retried; reads of what is committed go on. Only a start from the disk clears it. A write or a sync that finds too little
/// space is no failure: it is tried again.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the journal stopped: could not {doing} at block {sequence}: {source}")]
pub struct StorageError {
    /// What was being done.
    pub doing: &'static str,
    /// The first block that it concerned.
    pub sequence: Sequence,
    /// What the disk answered.
    #[source]
    pub source: DiskError,
}

/// Why a block was not appended. None of it was written.
#[derive(Debug, thiserror::Error)]
pub enum BlockAppendError {
    /// The journal has stopped.
    #[error(transparent)]
    Stopped(#[from] Arc<StorageError>),
    /// No segment has room and none can be made: the reserve is used up too. The block comes back.
    #[error("no space is left for a block of {} bytes", .0.framed_len())]
    Full(Block),
    /// The journal was shut down. The block comes back.
    #[error("the journal was shut down")]
    Closed(Block),
    /// This node does not lead the shard. The block comes back.
    #[error("this node does not lead the shard")]
    NotLeader(Block),
}

/// Why a read failed. It concerns the bytes asked for and nothing else.
#[derive(Debug, Clone, thiserror::Error)]
pub enum BlockReadError {
    /// No such block yet, or not committed: no reader may see it.
    #[error("block {sequence} is not committed")]
    NotCommitted {
        /// What was asked for.
        sequence: Sequence,
    },
    /// The block's segment was released: nothing was to refer to it.
    #[error("block {sequence} was released")]
    Released {
        /// What was asked for.
        sequence: Sequence,
    },
    /// The range is not inside the block.
    #[error("{len} bytes at {offset} are not inside block {sequence}")]
    OutOfBounds {
        /// The block.
        sequence: Sequence,
        /// Where the range starts in the content, in bytes.
        offset: u32,
        /// How long it is, in bytes.
        len: u32,
    },
    /// What stands in its place is not this block: another one was written there, or its own write was lost.
    #[error("{file} is corrupt at byte {position}, where block {sequence} should stand: {reason}")]
    Corrupt {
        /// The block.
        sequence: Sequence,
        /// The segment's file name.
        file: String,
        /// Where its frame should start, in bytes.
        position: u64,
        /// What was found.
        reason: String,
    },
    /// The disk failed.
    #[error("block {sequence} could not be read: {source}")]
    Disk {
        /// The block.
        sequence: Sequence,
        /// What the disk answered.
        #[source]
        source: DiskError,
    },
}

/// Why a tail was not cut.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CutError {
    /// What is committed is never cut.
    #[error("cannot cut after block {after}: {committed} is committed")]
    Committed {
        /// The last block that was to stay.
        after: Sequence,
        /// The last one that is committed.
        committed: Sequence,
    },
    /// The journal has stopped, before or during the cut.
    #[error(transparent)]
    Stopped(#[from] Arc<StorageError>),
}

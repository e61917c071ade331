//! What only this node knows, and its checkpoint keeps: which segment holds which blocks, and where.

use sabir_model::Sequence;

use crate::error::JournalError;
use crate::segment::SegmentNo;

/// One segment's part of the tables; its encoding is at most about 33 KiB.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentTable {
    pub(crate) no: SegmentNo,
    pub(crate) first: Sequence,
}

impl SegmentTable {
    /// Its place in the order: the key to store it under.
    pub fn no(&self) -> SegmentNo {
        self.no
    }

    /// Its last block. A table once stored with the segment closed never changes.
    pub fn last(&self) -> Sequence {
        self.first
    }

    /// Appends the stored form.
    pub fn encode(&self, _out: &mut Vec<u8>) {
        unimplemented!()
    }

    /// Reads the stored form.
    ///
    /// # Errors
    /// [`JournalError::Tables`].
    pub fn decode(_bytes: &[u8]) -> Result<Self, JournalError> {
        unimplemented!()
    }
}

/// The tables cut at one sequence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalTables {
    /// The last block they know: the checkpoint's.
    pub through: Sequence,
    /// The segments that are not released, in order.
    pub segments: Vec<SegmentTable>,
}

impl LocalTables {
    /// The stored form of the whole, for one who does not store segment by segment.
    pub fn encode(&self, _out: &mut Vec<u8>) {
        unimplemented!()
    }

    /// Reads the stored form.
    ///
    /// # Errors
    /// [`JournalError::Tables`].
    pub fn decode(_bytes: &[u8]) -> Result<Self, JournalError> {
        unimplemented!()
    }
}

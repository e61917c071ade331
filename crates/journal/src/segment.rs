//! Segment files.

use std::fmt;

use sabir_model::Sequence;

/// A segment's place in the order of the journal, from 1. Not its file's name: files are recycled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentNo(pub u64);

impl fmt::Display for SegmentNo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// A segment that holds blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentInfo {
    /// Its place in the order.
    pub no: SegmentNo,
    /// Its first block.
    pub first: Sequence,
    /// Its last block so far.
    pub last: Sequence,
    /// Whether later blocks go elsewhere.
    pub closed: bool,
}

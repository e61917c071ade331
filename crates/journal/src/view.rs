//! Reading a block's content; every bound is checked, whatever the bytes.

/// Why a content is not a block's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ViewError {
    /// Shorter than its header, or than its header says.
    #[error("the block's content is cut short")]
    Truncated,
    /// Written by a newer version of this program.
    #[error("the block's content has version {0}, which is not known")]
    Version(u16),
    /// A field points outside of its area or contradicts another.
    #[error("the block's content is malformed: {0}")]
    Malformed(&'static str),
}

/// A block's content.
#[derive(Debug, Clone, Copy)]
pub struct BlockView<'a> {
    content: &'a [u8],
}

impl<'a> BlockView<'a> {
    /// Checks the content's header.
    ///
    /// # Errors
    /// See [`ViewError`].
    pub fn parse(content: &'a [u8]) -> Result<Self, ViewError> {
        Ok(Self { content })
    }

    /// The leader's time when the block closed, in milliseconds since the epoch; never falls from block to block.
    pub fn time_ms(&self) -> i64 {
        unimplemented!()
    }

    /// How many entries there are.
    pub fn len(&self) -> u32 {
        unimplemented!()
    }

    /// Whether there are no entries.
    pub fn is_empty(&self) -> bool {
        unimplemented!()
    }

    /// The entries in order; ends after the first error.
    pub fn entries(&self) -> Entries<'a> {
        unimplemented!()
    }

    /// The bytes of a payload, as [`EntryView::payload`] names them.
    ///
    /// # Errors
    /// The range is not inside the content.
    pub fn payload(&self, _offset: u32, _len: u32) -> Result<&'a [u8], ViewError> {
        let _ = self.content;
        unimplemented!()
    }
}

/// An entry of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EntryView<'a> {
    /// Its place in the block, from 0.
    pub index: u32,
    /// What it is; the broker's numbering.
    pub kind: u16,
    /// What it says.
    pub body: &'a [u8],
    /// Offset in the content and length of its payload, in bytes; lies inside the payload area.
    pub payload: Option<(u32, u32)>,
}

/// Iterates over a block's entries.
#[derive(Debug, Clone)]
pub struct Entries<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Entries<'a> {
    type Item = Result<EntryView<'a>, ViewError>;

    fn next(&mut self) -> Option<Self::Item> {
        let _ = self.rest;
        unimplemented!()
    }
}

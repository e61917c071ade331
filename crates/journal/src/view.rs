//! Reading a block's content; every bound is checked, whatever the bytes.

use sabir_base::varint::{take_u32, take_u64};

use crate::content::{CONTENT_HEADER, CONTENT_VERSION, ContentHeader};

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
    header: ContentHeader,
}

impl<'a> BlockView<'a> {
    /// Checks the content's header.
    ///
    /// # Errors
    /// See [`ViewError`].
    pub fn parse(content: &'a [u8]) -> Result<Self, ViewError> {
        let header = ContentHeader::decode(content).ok_or(ViewError::Truncated)?;
        if header.version != CONTENT_VERSION {
            return Err(ViewError::Version(header.version));
        }
        if header.flags != 0 || header.reserved != 0 {
            return Err(ViewError::Malformed("a flag of a newer version"));
        }
        check_areas(&header, content.len())?;
        Ok(Self { content, header })
    }

    /// The leader's time when the block closed, in milliseconds since the epoch; never falls from block to block.
    pub fn time_ms(&self) -> i64 {
        self.header.time_ms
    }

    /// How many entries there are; not more than the content has room for.
    pub fn len(&self) -> u32 {
        self.header.entries
    }

    /// Whether there are no entries.
    pub fn is_empty(&self) -> bool {
        self.header.entries == 0
    }

    /// The entries in order; ends after the first error.
    pub fn entries(&self) -> Entries<'a> {
        let at = self.header.entries_off as usize;
        Entries {
            rest: &self.content[at..],
            payload_end: self.header.entries_off,
            index: 0,
            count: self.header.entries,
        }
    }

    /// The bytes of a payload, as [`EntryView::payload`] names them.
    ///
    /// # Errors
    /// The range is not inside the payload area.
    pub fn payload(&self, offset: u32, len: u32) -> Result<&'a [u8], ViewError> {
        check_payload(offset, len, self.header.entries_off)?;
        let at = offset as usize;
        Ok(&self.content[at..at + len as usize])
    }
}

fn check_areas(header: &ContentHeader, content_len: usize) -> Result<(), ViewError> {
    let (off, len) = (header.entries_off as usize, header.entries_len as usize);
    if off < CONTENT_HEADER {
        return Err(ViewError::Malformed("the entries start inside the header"));
    }
    match off.checked_add(len) {
        Some(end) if end == content_len => {}
        Some(end) if end < content_len => return Err(ViewError::Malformed("bytes behind the entries")),
        _ => return Err(ViewError::Truncated),
    }
    // The shortest entry is two varints of a byte each.
    if header.entries as usize > len / 2 {
        return Err(ViewError::Malformed("more entries than bytes for them"));
    }
    Ok(())
}

fn check_payload(offset: u32, len: u32, payload_end: u32) -> Result<(), ViewError> {
    let inside =
        offset as usize >= CONTENT_HEADER && offset.checked_add(len).is_some_and(|end| end <= payload_end);
    if inside { Ok(()) } else { Err(ViewError::Malformed("a payload outside of its area")) }
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
    payload_end: u32,
    index: u32,
    count: u32,
}

impl<'a> Entries<'a> {
    fn take(&mut self) -> Result<EntryView<'a>, ViewError> {
        let malformed = |_| ViewError::Malformed("a number in an entry");
        let tag = take_u64(&mut self.rest).map_err(malformed)?;
        let kind = u16::try_from(tag >> 1).map_err(|_| ViewError::Malformed("an entry's kind"))?;
        let body_len = take_u32(&mut self.rest).map_err(malformed)? as usize;
        let payload = match tag & 1 {
            0 => None,
            _ => Some((
                take_u32(&mut self.rest).map_err(malformed)?,
                take_u32(&mut self.rest).map_err(malformed)?,
            )),
        };
        if let Some((offset, len)) = payload {
            check_payload(offset, len, self.payload_end)?;
        }
        let (body, rest) = self.rest.split_at_checked(body_len).ok_or(ViewError::Truncated)?;
        self.rest = rest;
        let index = self.index;
        self.index += 1;
        Ok(EntryView { index, kind, body, payload })
    }

    fn end(&mut self) -> Option<Result<EntryView<'a>, ViewError>> {
        let trailing = !self.rest.is_empty();
        self.rest = &[];
        trailing.then_some(Err(ViewError::Malformed("bytes behind the last entry")))
    }
}

impl<'a> Iterator for Entries<'a> {
    type Item = Result<EntryView<'a>, ViewError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.index >= self.count {
            return self.end();
        }
        let entry = self.take();
        if entry.is_err() {
            (self.count, self.rest) = (0, &[]);
        }
        Some(entry)
    }
}

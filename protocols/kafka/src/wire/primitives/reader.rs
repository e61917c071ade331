//! Reads fields off a frame without copying.

use bytes::Bytes;
use sabir_base::varint::{VarintError, take_u32};

use super::WireError;

/// Decoded arrays may take this much for a frame of any size...
const BUDGET_FLOOR: usize = 1 << 20;
/// ...this many times the frame...
const BUDGET_FACTOR: usize = 16;
/// ...and no more than this.
const BUDGET_CEILING: usize = 32 << 20;

/// A cursor over one frame.
///
/// Byte fields and strings are slices of the frame. Arrays are the only thing that allocates: their counts are checked
/// against the bytes left and their memory against the reader's limit before that.
#[derive(Debug)]
pub struct Reader<'a> {
    frame: &'a Bytes,
    at: usize,
    end: usize,
    budget: usize,
}

impl<'a> Reader<'a> {
    /// A reader with the limit that suits requests: 16 times the frame, within 1 MiB and 32 MiB.
    pub fn new(frame: &'a Bytes) -> Self {
        let budget = frame.len().saturating_mul(BUDGET_FACTOR).clamp(BUDGET_FLOOR, BUDGET_CEILING);
        Self::with_limit(frame, budget)
    }

    /// A reader whose arrays take at most `limit` bytes of memory together.
    pub fn with_limit(frame: &'a Bytes, limit: usize) -> Self {
        Self { frame, at: 0, end: frame.len(), budget: limit }
    }

    /// Bytes not read yet.
    pub fn remaining(&self) -> usize {
        self.end - self.at
    }

    /// What was not read, as a slice of the frame.
    pub fn rest(&self) -> Bytes {
        self.frame.slice(self.at..self.end)
    }

    fn span(&mut self, len: usize) -> Result<std::ops::Range<usize>, WireError> {
        if len > self.remaining() {
            return Err(WireError::Truncated);
        }
        let start = self.at;
        self.at += len;
        Ok(start..self.at)
    }

    /// The next `N` bytes.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let span = self.span(N)?;
        Ok(self.frame[span].try_into().expect("a span of N bytes"))
    }

    /// The next `len` bytes, shared with the frame.
    pub fn bytes(&mut self, len: usize) -> Result<Bytes, WireError> {
        if len > self.remaining() {
            return Err(WireError::BadLength(len as i64));
        }
        let span = self.span(len)?;
        Ok(self.frame.slice(span))
    }

    /// One byte.
    pub fn i8(&mut self) -> Result<i8, WireError> {
        Ok(i8::from_be_bytes(self.array()?))
    }

    /// A big-endian 16-bit integer.
    pub fn i16(&mut self) -> Result<i16, WireError> {
        Ok(i16::from_be_bytes(self.array()?))
    }

    /// A big-endian 32-bit integer.
    pub fn i32(&mut self) -> Result<i32, WireError> {
        Ok(i32::from_be_bytes(self.array()?))
    }

    /// A big-endian 64-bit integer.
    pub fn i64(&mut self) -> Result<i64, WireError> {
        Ok(i64::from_be_bytes(self.array()?))
    }

    /// An unsigned varint of at most 32 bits.
    pub fn varint(&mut self) -> Result<u32, WireError> {
        let mut left = &self.frame[self.at..self.end];
        let value = take_u32(&mut left).map_err(|e| match e {
            VarintError::Truncated => WireError::Truncated,
            VarintError::Overflow => WireError::BadVarint,
        })?;
        self.at = self.end - left.len();
        Ok(value)
    }

    /// A compact length or count: one more than its value, 0 for null.
    pub(super) fn compact_len(&mut self) -> Result<Option<usize>, WireError> {
        Ok((self.varint()? as usize).checked_sub(1))
    }

    /// A signed length or count whose only negative value, -1, is null.
    pub(super) fn signed_len(len: i64) -> Result<Option<usize>, WireError> {
        match len {
            -1 => Ok(None),
            0.. => Ok(Some(len as usize)),
            _ => Err(WireError::BadLength(len)),
        }
    }

    /// An empty vector with room for `count` elements that take at least `least` bytes of the frame each.
    pub(super) fn room<T>(&mut self, count: usize, least: usize) -> Result<Vec<T>, WireError> {
        if count.checked_mul(least.max(1)).is_none_or(|bytes| bytes > self.remaining()) {
            return Err(WireError::BadCount(count as i64));
        }
        // The product cannot overflow: the count is at most the frame's length, which fits memory beside it.
        let memory = count.saturating_mul(size_of::<T>());
        self.budget = self.budget.checked_sub(memory).ok_or(WireError::TooLarge)?;
        Ok(Vec::with_capacity(count))
    }

    /// Reads a flexible struct's tagged fields. `known` reads those it knows off a reader that ends with the field and
    /// says whether it did; the others are skipped.
    pub(crate) fn tagged(
        &mut self,
        mut known: impl FnMut(&mut Self, u32) -> Result<bool, WireError>,
    ) -> Result<(), WireError> {
        for _ in 0..self.varint()? {
            let tag = self.varint()?;
            let size = self.varint()? as usize;
            if size > self.remaining() {
                return Err(WireError::BadLength(size as i64));
            }
            let outer_end = std::mem::replace(&mut self.end, self.at + size);
            let field_end = self.end;
            let read = known(self, tag)?;
            if read && self.at != field_end {
                return Err(WireError::BadTaggedField(field_end - self.at));
            }
            self.at = field_end;
            self.end = outer_end;
        }
        Ok(())
    }
}

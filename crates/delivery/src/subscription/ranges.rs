//! Ranges of offsets in their stored form: a count, then for each the gap to the one before and its length, as varints.

use std::ops::Range;

use sabir_base::varint::{put_u64, take_u64};
use sabir_model::DecodeError;
use sabir_model::stored::take_count;

/// No offset reaches this far.
const LIMIT: u64 = i64::MAX as u64;

/// Ascending ranges that neither touch nor overlap, in their stored form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OffsetRanges<'a> {
    count: usize,
    bytes: &'a [u8],
}

impl<'a> OffsetRanges<'a> {
    /// Appends the stored form.
    pub fn encode(&self, out: &mut Vec<u8>) {
        put_u64(out, self.count as u64);
        out.extend_from_slice(self.bytes);
    }

    /// Takes ranges off the front of `input`, checked.
    ///
    /// # Errors
    /// A cut input, a range that touches the one before, an offset out of range.
    pub fn decode(input: &mut &'a [u8]) -> Result<Self, DecodeError> {
        let count = take_count(input, 2)?;
        let bytes = *input;
        let mut end = 0u64;
        for i in 0..count {
            let (gap, more) = (take_u64(input)?, take_u64(input)?);
            if gap == 0 && i > 0 || gap > LIMIT || more >= LIMIT {
                return Err(DecodeError::Field("range"));
            }
            end = end + gap + more + 1;
            if end > LIMIT {
                return Err(DecodeError::Field("range"));
            }
        }
        Ok(Self { count, bytes: &bytes[..bytes.len() - input.len()] })
    }

    /// The ranges, ascending.
    pub fn iter(&self) -> impl Iterator<Item = Range<u64>> + use<'a> {
        let (mut bytes, mut end) = (self.bytes, 0u64);
        (0..self.count).map(move |_| {
            let start = end + take_u64(&mut bytes).expect("checked when it was decoded");
            end = start + take_u64(&mut bytes).expect("checked when it was decoded") + 1;
            start..end
        })
    }

    /// How many messages they name.
    pub fn messages(&self) -> u64 {
        self.iter().map(|range| range.end - range.start).sum()
    }

    /// Whether they name none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }
}

/// Builds [`OffsetRanges`]; kept and cleared, it allocates nothing.
#[derive(Debug, Clone, Default)]
pub struct RangesBuffer {
    bytes: Vec<u8>,
    count: usize,
    /// The last range, and where its stored form begins.
    last: Range<u64>,
    last_at: usize,
    /// The end of the range before the last.
    before: u64,
}

impl RangesBuffer {
    /// Adds a range that does not begin before the last one's end; tells whether it was.
    pub fn push(&mut self, range: Range<u64>) -> bool {
        if range.start >= range.end || range.start < self.last.end || range.end > LIMIT {
            return false;
        }
        if self.count > 0 && range.start == self.last.end {
            self.bytes.truncate(self.last_at);
            self.last.end = range.end;
        } else {
            self.before = self.last.end;
            self.last_at = self.bytes.len();
            self.count += 1;
            self.last = range;
        }
        put_u64(&mut self.bytes, self.last.start - self.before);
        put_u64(&mut self.bytes, self.last.end - self.last.start - 1);
        true
    }

    /// What was added.
    pub fn ranges(&self) -> OffsetRanges<'_> {
        OffsetRanges { count: self.count, bytes: &self.bytes }
    }

    /// Forgets what was added.
    pub fn clear(&mut self) {
        self.bytes.clear();
        (self.count, self.last, self.last_at, self.before) = (0, 0..0, 0, 0);
    }

    /// Those of some ranges, which may be given in any order but must not overlap.
    pub fn of(ranges: impl IntoIterator<Item = Range<u64>>) -> Self {
        let mut sorted: Vec<_> = ranges.into_iter().collect();
        sorted.sort_by_key(|range| range.start);
        let mut buffer = Self::default();
        sorted.into_iter().for_each(|range| {
            buffer.push(range);
        });
        buffer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_stored_as_gaps_and_lengths() {
        let buffer = RangesBuffer::of([300..301, 5..7, 7..10]);
        let mut out = Vec::new();
        buffer.ranges().encode(&mut out);
        assert_eq!(out, [2, 5, 4, 0xa2, 2, 0]);
        let mut input = out.as_slice();
        let read = OffsetRanges::decode(&mut input).unwrap();
        assert_eq!(read, buffer.ranges());
        assert!(input.is_empty());
        assert_eq!(read.iter().collect::<Vec<_>>(), [5..10, 300..301]);
        assert_eq!(read.messages(), 6);
    }

    #[test]
    fn ranges_that_touch_or_lie_out_of_range_are_refused() {
        assert_eq!(OffsetRanges::decode(&mut [2, 5, 4, 0, 2].as_slice()), Err(DecodeError::Field("range")));
        assert_eq!(OffsetRanges::decode(&mut [9, 5, 4, 0, 2].as_slice()), Err(DecodeError::Truncated));
        let mut far = vec![1];
        put_u64(&mut far, u64::MAX);
        put_u64(&mut far, 0);
        assert_eq!(OffsetRanges::decode(&mut far.as_slice()), Err(DecodeError::Field("range")));
        let mut buffer = RangesBuffer::default();
        assert!(buffer.push(5..7) && !buffer.push(6..8) && !buffer.push(9..9) && !buffer.push(1..2));
        assert_eq!(buffer.ranges().iter().next(), Some(5..7));
    }

    #[test]
    fn a_cleared_buffer_begins_anew() {
        let mut buffer = RangesBuffer::of(std::iter::once(300..301));
        buffer.clear();
        assert!(buffer.ranges().is_empty());
        buffer.push(0..1);
        buffer.push(1..2);
        assert_eq!(buffer.ranges().iter().next(), Some(0..2));
    }
}

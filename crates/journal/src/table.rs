//! What only this node knows, and its checkpoint keeps: which segment holds which blocks, and where.

use sabir_base::varint::{put_u64, take_u32, take_u64};
use sabir_model::Sequence;

use crate::error::JournalError;
use crate::frame::STEP;
use crate::segment::SegmentNo;

const FORM: u8 = 1;

/// One segment's part of the tables; its stored form takes a byte or two a block, about 16 KiB at most.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentTable {
    pub(crate) no: SegmentNo,
    pub(crate) file: u32,
    pub(crate) generation: u64,
    pub(crate) first: Sequence,
    /// Where each block starts, in steps of 4 KiB; block `first + i` at `starts[i]`. Never empty, rising.
    pub(crate) starts: Vec<u16>,
    /// Where the last frame ends, in the same steps.
    pub(crate) end: u32,
}

impl SegmentTable {
    /// Its place in the order: the key to store it under.
    pub fn no(&self) -> SegmentNo {
        self.no
    }

    /// Its first block.
    pub fn first(&self) -> Sequence {
        self.first
    }

    /// Its last block. A table of a segment that is followed by another never changes.
    pub fn last(&self) -> Sequence {
        Sequence(self.first.0 + self.starts.len() as u64 - 1)
    }

    /// Appends the stored form: a form byte, then varints.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(FORM);
        put_u64(out, self.no.0);
        put_u64(out, u64::from(self.file));
        out.extend(self.generation.to_le_bytes());
        put_u64(out, self.first.0);
        put_u64(out, u64::from(self.end));
        put_u64(out, self.starts.len() as u64);
        let mut before = 0;
        for &start in &self.starts {
            put_u64(out, u64::from(start - before));
            before = start;
        }
    }

    /// Reads the stored form.
    ///
    /// # Errors
    /// [`JournalError::Tables`].
    pub fn decode(mut bytes: &[u8]) -> Result<Self, JournalError> {
        let table = Self::take(&mut bytes)?;
        if bytes.is_empty() { Ok(table) } else { Err(JournalError::Tables("bytes behind a segment's table")) }
    }

    fn take(input: &mut &[u8]) -> Result<Self, JournalError> {
        let cut = |_| JournalError::Tables("a number is cut short");
        if take_byte(input)? != FORM {
            return Err(JournalError::Tables("a form that is not known"));
        }
        let no = SegmentNo(take_u64(input).map_err(cut)?);
        let file = take_u32(input).map_err(cut)?;
        let (generation, rest) =
            input.split_first_chunk().ok_or(JournalError::Tables("a generation is cut short"))?;
        *input = rest;
        let first = Sequence(take_u64(input).map_err(cut)?);
        let end = take_u32(input).map_err(cut)?;
        let count = take_u64(input).map_err(cut)?;
        let starts = take_starts(input, count, end)?;
        if first.0.checked_add(count).is_none() {
            return Err(JournalError::Tables("sequences beyond the largest"));
        }
        Ok(Self { no, file, generation: u64::from_le_bytes(*generation), first, starts, end })
    }

    /// Where a block of this segment starts, in bytes.
    pub(crate) fn start_of(&self, sequence: Sequence) -> Option<u64> {
        let index = sequence.0.checked_sub(self.first.0)?;
        self.starts.get(usize::try_from(index).ok()?).map(|&start| u64::from(start) * STEP)
    }
}

fn take_byte(input: &mut &[u8]) -> Result<u8, JournalError> {
    let (&byte, rest) = input.split_first().ok_or(JournalError::Tables("cut short"))?;
    *input = rest;
    Ok(byte)
}

fn take_starts(input: &mut &[u8], count: u64, end: u32) -> Result<Vec<u16>, JournalError> {
    // A start takes a byte at least, so the count is bounded by what is there.
    if count == 0 || count > input.len() as u64 {
        return Err(JournalError::Tables("a count that does not match"));
    }
    let mut starts = Vec::with_capacity(count as usize);
    let mut at = 0u64;
    for _ in 0..count {
        let step = take_u64(input).map_err(|_| JournalError::Tables("a position is cut short"))?;
        at = at.checked_add(step).filter(|_| step > 0).ok_or(JournalError::Tables("positions must rise"))?;
        starts.push(u16::try_from(at).map_err(|_| JournalError::Tables("a position beyond the segment"))?);
    }
    if at < u64::from(end) { Ok(starts) } else { Err(JournalError::Tables("a block behind the end")) }
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
    /// The stored form of the whole, for a store that does not go segment by segment.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(FORM);
        put_u64(out, self.through.0);
        put_u64(out, self.segments.len() as u64);
        self.segments.iter().for_each(|segment| segment.encode(out));
    }

    /// Reads the stored form.
    ///
    /// # Errors
    /// [`JournalError::Tables`].
    pub fn decode(mut bytes: &[u8]) -> Result<Self, JournalError> {
        let input = &mut bytes;
        let cut = |_| JournalError::Tables("a number is cut short");
        if take_byte(input)? != FORM {
            return Err(JournalError::Tables("a form that is not known"));
        }
        let through = Sequence(take_u64(input).map_err(cut)?);
        let count = take_u64(input).map_err(cut)?;
        let mut segments = Vec::new();
        for _ in 0..count {
            segments.push(SegmentTable::take(input)?);
        }
        if !input.is_empty() {
            return Err(JournalError::Tables("bytes behind the last table"));
        }
        let tables = Self { through, segments };
        tables.check()?;
        Ok(tables)
    }

    /// Whether the segments are in order, and the last one ends with the checkpoint's block.
    pub(crate) fn check(&self) -> Result<(), JournalError> {
        let in_order =
            self.segments.windows(2).all(|pair| pair[0].no < pair[1].no && pair[0].last() < pair[1].first);
        let last = self.segments.last().map_or(Sequence::NONE, SegmentTable::last);
        if !in_order {
            return Err(JournalError::Tables("segments out of order"));
        }
        if last != self.through {
            return Err(JournalError::Tables("the last segment does not end with the checkpoint's block"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tables() -> LocalTables {
        let table = |no, first, starts: &[u16], end| SegmentTable {
            no: SegmentNo(no),
            file: no as u32 + 3,
            generation: 0xfeed_0000 + no,
            first: Sequence(first),
            starts: starts.to_vec(),
            end,
        };
        LocalTables {
            through: Sequence(25),
            segments: vec![table(4, 10, &[1, 2, 300], 301), table(9, 24, &[1, 9], 16_384)],
        }
    }

    #[test]
    fn come_back_as_they_were() {
        let mut bytes = Vec::new();
        tables().encode(&mut bytes);
        assert_eq!(LocalTables::decode(&bytes).unwrap(), tables());
        let one = &tables().segments[0];
        let mut bytes = Vec::new();
        one.encode(&mut bytes);
        let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(
            hex,
            concat!("01", "04", "07", "0400edfe00000000", "0a", "ad02", "03", "01", "01", "aa02")
        );
        assert_eq!(&SegmentTable::decode(&bytes).unwrap(), one);
        assert_eq!((one.last(), one.start_of(Sequence(12))), (Sequence(12), Some(300 * STEP)));
        assert_eq!((one.start_of(Sequence(9)), one.start_of(Sequence(13))), (None, None));
    }

    #[test]
    fn no_prefix_and_no_flipped_byte_is_taken_for_something_else_in_silence() {
        let mut bytes = Vec::new();
        tables().encode(&mut bytes);
        for len in 0..bytes.len() {
            assert!(LocalTables::decode(&bytes[..len]).is_err(), "{len}");
        }
        bytes.push(0);
        assert!(LocalTables::decode(&bytes).is_err());
    }

    #[test]
    fn a_hostile_count_allocates_nothing() {
        let mut bytes = vec![FORM, 1, 1];
        bytes.extend([0; 8]);
        bytes.push(1);
        bytes.push(9);
        put_u64(&mut bytes, u64::MAX);
        assert!(SegmentTable::decode(&bytes).is_err());
    }

    #[test]
    fn what_contradicts_itself_is_refused() {
        let mut bad = tables();
        bad.segments[1].first = Sequence(12);
        assert!(bad.check().is_err());
        assert!(LocalTables { through: Sequence(26), ..tables() }.check().is_err());
        assert!(LocalTables { through: Sequence(0), segments: vec![] }.check().is_ok());
    }
}

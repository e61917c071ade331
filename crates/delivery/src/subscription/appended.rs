//! What is known of messages from when they are published until the floor has passed them: their sizes, where a limit asks for them, and when
//! they expire. Neighbours that are alike share a row. Rows come at the end and go at the front, so they lie packed by the containers in
//! which they begin: 16 bytes a message where each expires at a moment of its own.

use std::collections::VecDeque;

use sabir_base::varint::{put_u64, take_u64};
use sabir_model::DecodeError;

use super::CONTAINER;
use super::dirty::DirtyBlocks;
use super::rows::RowValue;
use super::states::block_of;

/// No row is of so many messages.
const LONGEST: u64 = 1 << 48;

/// Rows by where they begin; messages need not have one.
#[derive(Debug)]
pub(super) struct AppendedRows<V> {
    /// In the order of their containers; none is empty.
    chunks: VecDeque<Chunk<V>>,
    rows: usize,
    pub dirty: DirtyBlocks,
}

/// The rows that begin in a container.
#[derive(Debug, PartialEq)]
struct Chunk<V> {
    block: u64,
    /// How many of the first ones were forgotten.
    gone: u16,
    rows: Vec<Row<V>>,
}

/// Neighbours that are alike.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Row<V> {
    /// Where it begins in its container.
    at: u16,
    /// How many messages it has: the upper and the lower bits.
    high: u16,
    low: u32,
    value: V,
}

impl<V: RowValue> Row<V> {
    fn new(start: u64, len: u64, value: V) -> Self {
        Self { at: (start % CONTAINER) as u16, high: (len >> 32) as u16, low: len as u32, value }
    }

    fn len(&self) -> u64 {
        u64::from(self.high) << 32 | u64::from(self.low)
    }
}

impl<V: RowValue> Chunk<V> {
    fn there(&self) -> &[Row<V>] {
        &self.rows[self.gone.into()..]
    }

    fn start(&self, row: &Row<V>) -> u64 {
        self.block * CONTAINER + u64::from(row.at)
    }

    fn end(&self, row: &Row<V>) -> u64 {
        self.start(row) + row.len()
    }

    fn last(&self) -> Option<(u64, V)> {
        self.there().last().map(|row| (self.end(row), row.value))
    }
}

impl<V> Default for AppendedRows<V> {
    fn default() -> Self {
        Self { chunks: VecDeque::new(), rows: 0, dirty: DirtyBlocks::default() }
    }
}

impl<V: RowValue> AppendedRows<V> {
    pub fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    /// One behind the last message with a row.
    pub fn end(&self) -> u64 {
        self.chunks.back().and_then(Chunk::last).map_or(0, |(end, _)| end)
    }

    /// Adds messages behind all that are known.
    pub fn add(&mut self, from: u64, to: u64, value: V) {
        if from >= to {
            return;
        }
        if let Some(chunk) = self.chunks.back_mut()
            && chunk.last() == Some((from, value))
            && let Some(last) = chunk.rows.last_mut()
        {
            *last = Row::new(last.at.into(), last.len() + (to - from), value);
            return self.dirty.insert(chunk.block);
        }
        let block = block_of(from);
        self.dirty.insert(block);
        self.rows += 1;
        let row = Row::new(from, to - from, value);
        match self.chunks.back_mut() {
            Some(last) if last.block == block => last.rows.push(row),
            last => {
                last.into_iter().for_each(|last| last.rows.shrink_to_fit());
                self.chunks.push_back(Chunk { block, gone: 0, rows: vec![row] });
            }
        }
    }

    /// What is said of a message, and where its row ends; of what has none, where the next row begins.
    pub fn run(&self, offset: u64) -> (Option<V>, u64) {
        let block = block_of(offset);
        let behind = self.chunks.partition_point(|chunk| chunk.block <= block);
        let before = behind.checked_sub(1).map(|at| &self.chunks[at]);
        let within = before.filter(|chunk| chunk.block == block).map_or((0, None), |chunk| {
            let rows = chunk.there();
            let place = rows.partition_point(|row| chunk.start(row) <= offset);
            (place, rows.get(place).map(|row| chunk.start(row)))
        });
        let row = match within.0.checked_sub(1) {
            Some(place) => before.map(|chunk| (chunk.end(&chunk.there()[place]), chunk.there()[place].value)),
            // None of its container begins before it: one of an earlier container may reach as far.
            None => {
                let earlier = self.chunks.partition_point(|chunk| chunk.block < block);
                earlier.checked_sub(1).and_then(|at| self.chunks[at].last())
            }
        };
        match row {
            Some((end, value)) if offset < end => (Some(value), end),
            _ => {
                let first = |chunk: &Chunk<V>| chunk.there().first().map(|row| chunk.start(row));
                let next = within.1.or_else(|| self.chunks.get(behind).and_then(first));
                (None, next.unwrap_or(u64::MAX))
            }
        }
    }

    /// Forgets rows that end at or below the floor.
    pub fn drop_below(&mut self, floor: u64) {
        while let Some(chunk) = self.chunks.front_mut()
            && let Some(row) = chunk.there().first()
            && chunk.end(row) <= floor
        {
            self.dirty.insert(chunk.block);
            chunk.gone += 1;
            self.rows -= 1;
            if chunk.there().is_empty() {
                self.chunks.pop_front();
            }
        }
    }

    /// Bytes of memory behind the struct, about.
    pub fn bytes(&self) -> usize {
        self.chunks.len() * (16 + size_of::<Chunk<V>>()) + self.rows * size_of::<Row<V>>()
    }

    /// The containers in which some begin.
    pub fn each_block(&self, each: impl FnMut(u64)) {
        self.chunks.iter().map(|chunk| chunk.block).for_each(each);
    }

    /// Appends the stored form of the rows that begin in a container. Tells whether there are any.
    pub fn encode_block(&self, block: u64, out: &mut Vec<u8>) -> bool {
        let Ok(place) = self.chunks.binary_search_by_key(&block, |chunk| chunk.block) else { return false };
        let mut last = 0;
        for row in self.chunks[place].there() {
            put_u64(out, (row.at - last).into());
            put_u64(out, row.len());
            row.value.put(out);
            last = row.at;
        }
        true
    }

    pub fn decode_block(&mut self, block: u64, input: &mut &[u8]) -> Result<(), DecodeError> {
        let (first, mut start) = (block * CONTAINER, block * CONTAINER);
        let mut rows: Vec<Row<V>> = Vec::new();
        while !input.is_empty() {
            start = start.checked_add(take_u64(input)?).ok_or(V::BAD)?;
            let len = take_u64(input)?;
            let rises = rows.last().is_none_or(|last| u64::from(last.at) + first < start);
            if block_of(start) != block || !rises || len == 0 || len >= LONGEST {
                return Err(V::BAD);
            }
            rows.push(Row::new(start, len, V::take(input)?));
        }
        rows.shrink_to_fit();
        let place = self.chunks.partition_point(|chunk| chunk.block < block);
        if self.chunks.get(place).is_some_and(|chunk| chunk.block == block) {
            return Err(V::BAD);
        }
        if !rows.is_empty() {
            self.rows += rows.len();
            self.chunks.insert(place, Chunk { block, gone: 0, rows });
        }
        Ok(())
    }
}

impl AppendedRows<u32> {
    /// The bytes of a range.
    pub fn sum(&self, from: u64, to: u64) -> u64 {
        let (mut at, mut bytes) = (from, 0);
        while at < to && !self.is_empty() {
            let (size, end) = self.run(at);
            bytes += u64::from(size.unwrap_or(0)) * (end.min(to) - at);
            at = end;
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_of_one_size_are_one_row_and_come_back() {
        let mut sizes = AppendedRows::<u32>::default();
        for (from, to, size) in [(5, 7, 10), (7, 9, 10), (9, 9, 3), (9, 10, 300), (1030, 1031, 1)] {
            sizes.add(from, to, size);
        }
        assert_eq!((sizes.rows, sizes.end()), (3, 1031));
        let sums = [(0, 2000), (6, 10), (8, 9), (10, 1030), (0, 5)].map(|(from, to)| sizes.sum(from, to));
        assert_eq!(sums, [341, 330, 10, 0, 0]);
        assert_eq!(
            [0, 6, 9, 10, 2000].map(|at| sizes.run(at)),
            [(None, 5), (Some(10), 9), (Some(300), 10), (None, 1030), (None, u64::MAX)]
        );
        let mut stored = Vec::new();
        assert!(sizes.encode_block(0, &mut stored));
        assert_eq!(stored, [5, 4, 10, 4, 1, 0xac, 2]);
        let mut again = AppendedRows::<u32>::default();
        again.decode_block(0, &mut stored.as_slice()).unwrap();
        assert_eq!((again.rows, again.sum(0, 2000)), (2, 340));
        sizes.drop_below(9);
        assert_eq!((sizes.rows, sizes.sum(0, 2000)), (2, 301));
        sizes.drop_below(1031);
        assert!(sizes.is_empty() && sizes.rows == 0 && !sizes.encode_block(0, &mut stored));
    }

    #[test]
    fn expiries_are_stored_in_these_bytes() {
        let mut expiries = AppendedRows::<i64>::default();
        expiries.add(3, 5, 1_000);
        expiries.add(7, 8, i64::MAX);
        let mut stored = Vec::new();
        assert!(expiries.encode_block(0, &mut stored));
        let golden = b"\x03\x02\xd0\x0f\x04\x01\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01";
        assert_eq!(stored, golden);
        let mut again = AppendedRows::<i64>::default();
        again.decode_block(0, &mut stored.as_slice()).unwrap();
        assert_eq!(again.chunks, expiries.chunks);
        let bad = |stored: &[u8]| AppendedRows::<i64>::default().decode_block(0, &mut &*stored);
        for stored in [&[3, 0, 2][..], &[3, 1, 2, 0, 1, 2], &[0xff, 0xff, 3, 1, 2]] {
            assert_eq!(bad(stored), Err(DecodeError::Field("row of expiries")), "{stored:?}");
        }
    }

    #[test]
    fn rows_reach_over_containers_and_are_found_from_wherever_one_asks() {
        let mut expiries = AppendedRows::<i64>::default();
        let rows = [(10, 20, 1), (20, 5_000, 2), (5_001, 5_002, 3), (9_000, 9_001, 3), (9_001, 9_002, 4)];
        rows.iter().for_each(|(from, to, value)| expiries.add(*from, *to, *value));
        let naive = |offset: u64| {
            let found = rows.iter().find(|(from, to, _)| (*from..*to).contains(&offset));
            let next = || rows.iter().map(|row| row.0).find(|from| *from > offset);
            found.map_or_else(|| (None, next().unwrap_or(u64::MAX)), |(_, to, value)| (Some(*value), *to))
        };
        (0..10_000).for_each(|offset| assert_eq!(expiries.run(offset), naive(offset), "{offset}"));
        expiries.drop_below(4_999);
        assert_eq!(
            [0, 20, 4_999].map(|at| expiries.run(at)),
            [(None, 20), (Some(2), 5_000), (Some(2), 5_000)]
        );
    }

    #[test]
    fn a_message_that_expires_at_its_own_moment_takes_sixteen_bytes() {
        let mut expiries = AppendedRows::<i64>::default();
        (0..1_000_000).for_each(|offset| expiries.add(offset, offset + 1, 1_700_000_000_000 + offset as i64));
        assert!(expiries.bytes() < 17_000_000, "{}", expiries.bytes());
        let held: usize = expiries.chunks.iter().map(|chunk| chunk.rows.capacity()).sum();
        assert!(held * size_of::<Row<i64>>() < 17_000_000, "{held}");
    }
}

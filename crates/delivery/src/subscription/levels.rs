//! The levels of messages in a queue that has priorities. Neighbours of one level share a row; level 0 goes without saying.

use std::collections::BTreeMap;
use std::ops::Range;

use sabir_base::varint::{put_u64, take_u64};
use sabir_model::DecodeError;
use sabir_model::stored::take_u8;

use super::CONTAINER;
use super::dirty::DirtyBlocks;
use super::states::block_of;

/// Levels by container: one without any message above level 0 has none.
#[derive(Debug, Default)]
pub(super) struct LevelTable {
    containers: BTreeMap<u64, ContainerLevels>,
    pub dirty: DirtyBlocks,
    /// How many unsettled messages are above level 0, by level; follows from the rows and the states.
    unsettled: BTreeMap<u8, u64>,
}

/// Those of a container.
#[derive(Debug, Default)]
struct ContainerLevels {
    /// Where messages of another level begin than those before them; it begins with level 0.
    rows: Vec<(u16, u8)>,
    /// How many of its messages are unsettled, for each level above 0.
    unsettled: Vec<(u8, u16)>,
}

impl ContainerLevels {
    /// The row that holds a message: its level, and where it ends within the container.
    fn run(&self, at: u16) -> (u8, u16) {
        let next = self.rows.partition_point(|(start, _)| *start <= at);
        let level = next.checked_sub(1).map_or(0, |row| self.rows[row].1);
        (level, self.rows.get(next).map_or(CONTAINER as u16, |(start, _)| *start))
    }

    fn add(&mut self, at: u16, level: u8) -> bool {
        let differs = self.rows.last().map_or(0, |(_, last)| *last) != level;
        if differs {
            self.rows.push((at, level));
        }
        differs
    }

    fn count(&mut self, level: u8, count: u16, more: bool) {
        match self.unsettled.iter_mut().find(|(known, _)| *known == level) {
            Some((_, sum)) => *sum = if more { *sum + count } else { *sum - count },
            None => self.unsettled.push((level, count)),
        }
        self.unsettled.retain(|(_, count)| *count > 0);
    }

    /// Whether there may be an unsettled message of a level.
    fn may_have(&self, level: u8) -> bool {
        level == 0 || self.unsettled.iter().any(|(known, _)| *known == level)
    }
}

impl LevelTable {
    pub fn is_empty(&self) -> bool {
        self.containers.is_empty()
    }

    /// Messages of one level come behind all that are known. They are not counted as unsettled by this.
    pub fn add(&mut self, messages: Range<u64>, level: u8) {
        for (block, within) in pieces(messages) {
            if level > 0 || self.containers.contains_key(&block) {
                let levels = self.containers.entry(block).or_default();
                if levels.add(within.start, level) {
                    self.dirty.insert(block);
                }
            }
        }
    }

    /// The level of a message, and where those end that share it.
    pub fn run(&self, offset: u64) -> (u8, u64) {
        let block = block_of(offset);
        let Some(levels) = self.containers.get(&block) else {
            let next = self.containers.range(block..).next().map_or(u64::MAX, |(next, _)| next * CONTAINER);
            return (0, next);
        };
        let start = block * CONTAINER;
        let (level, end) = levels.run((offset - start) as u16);
        (level, start + u64::from(end))
    }

    /// The first messages of a level at or behind `from`, as far as they are in one container. Containers without unsettled ones are left out.
    pub fn next(&self, level: u8, from: u64) -> Option<Range<u64>> {
        let mut at = from;
        loop {
            if level > 0 {
                let (block, _) =
                    self.containers.range(block_of(at)..).find(|(_, levels)| levels.may_have(level))?;
                at = at.max(block * CONTAINER);
            }
            let (found, end) = self.run(at);
            if found == level {
                return Some(at..end);
            }
            at = end;
        }
    }

    /// The levels of which there are unsettled messages, the highest first, and level 0.
    pub fn descending(&self) -> impl Iterator<Item = u8> {
        self.unsettled.keys().rev().copied().chain([0])
    }

    /// Messages become unsettled, or are settled.
    pub fn count(&mut self, messages: Range<u64>, more: bool) {
        for (block, within) in pieces(messages) {
            let Some(levels) = self.containers.get_mut(&block) else { continue };
            let mut at = within.start;
            while at < within.end {
                let (level, end) = levels.run(at);
                let count = end.min(within.end) - at;
                if level > 0 {
                    levels.count(level, count, more);
                    let sum = self.unsettled.entry(level).or_default();
                    *sum = if more { *sum + u64::from(count) } else { *sum - u64::from(count) };
                }
                at = end;
            }
        }
        if !more {
            self.unsettled.retain(|_, count| *count > 0);
        }
    }

    /// Counts anew: whatever is to be counted is told next.
    pub fn begin_count(&mut self) {
        self.unsettled.clear();
        self.containers.values_mut().for_each(|levels| levels.unsettled.clear());
    }

    /// Forgets containers whose messages are all below the floor.
    pub fn drop_below(&mut self, floor: u64, end: u64) {
        while let Some(first) = self.containers.first_entry()
            && ((first.key() + 1) * CONTAINER).min(end) <= floor
        {
            self.dirty.insert(*first.key());
            first.remove();
        }
    }

    /// Bytes of memory behind the struct, about.
    pub fn bytes(&self) -> usize {
        let of = |levels: &ContainerLevels| 4 * (levels.rows.capacity() + levels.unsettled.capacity());
        let rows: usize = self.containers.values().map(of).sum();
        let each = size_of::<(u64, ContainerLevels)>();
        rows + (self.containers.len() * each + self.unsettled.len() * size_of::<(u8, u64)>()) * 3 / 2
    }

    /// The containers that have some.
    pub fn each_block(&self, each: impl FnMut(u64)) {
        self.containers.keys().copied().for_each(each);
    }

    /// Appends the stored form of a container's. Tells whether it has any.
    pub fn encode_block(&self, block: u64, out: &mut Vec<u8>) -> bool {
        let Some(levels) = self.containers.get(&block) else { return false };
        let mut last = 0;
        for (start, level) in &levels.rows {
            put_u64(out, (start - last).into());
            out.push(*level);
            last = *start;
        }
        true
    }

    pub fn decode_block(&mut self, block: u64, input: &mut &[u8]) -> Result<(), DecodeError> {
        let bad = DecodeError::Field("row of levels");
        let mut levels = ContainerLevels::default();
        let mut start = 0;
        while !input.is_empty() {
            start = take_u64(input)?.checked_add(start).filter(|start| *start < CONTAINER).ok_or(bad)?;
            let is_behind = levels.rows.last().is_none_or(|(last, _)| u64::from(*last) < start);
            if !is_behind || !levels.add(start as u16, take_u8(input)?) {
                return Err(bad);
            }
        }
        self.containers.insert(block, levels);
        Ok(())
    }
}

/// The parts of a range by container, as places within it.
fn pieces(messages: Range<u64>) -> impl Iterator<Item = (u64, Range<u16>)> {
    let blocks =
        if messages.is_empty() { 0..0 } else { block_of(messages.start)..block_of(messages.end - 1) + 1 };
    blocks.map(move |block| {
        let start = block * CONTAINER;
        let within = |offset: u64| (offset.max(start) - start).min(CONTAINER) as u16;
        (block, within(messages.start)..within(messages.end))
    })
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn neighbours_of_one_level_are_one_row_and_come_back() {
        let mut levels = LevelTable::default();
        for (messages, level) in [(0..5, 0), (5..7, 3), (7..9, 3), (9..2000, 0), (2000..2050, 9)] {
            levels.add(messages.clone(), level);
            levels.count(messages, true);
        }
        assert_eq!(levels.containers.len(), 3);
        let runs = [0, 5, 8, 9, 1500, 2020, 2048, 5000].map(|at| levels.run(at));
        let expected = [(0, 5), (3, 9), (3, 9), (0, 1024), (0, 2000), (9, 2048), (9, 3072), (0, u64::MAX)];
        assert_eq!(runs, expected);
        assert_eq!(levels.descending().collect::<Vec<_>>(), [9, 3, 0]);
        assert_eq!(
            [levels.next(3, 6), levels.next(3, 9), levels.next(9, 0)],
            [Some(6..9), None, Some(2000..2048)]
        );
        let mut stored = Vec::new();
        assert!(levels.encode_block(0, &mut stored));
        assert_eq!(stored, [5, 3, 4, 0]);
        let mut again = LevelTable::default();
        again.decode_block(0, &mut stored.as_slice()).unwrap();
        assert_eq!((again.run(6), again.run(9)), ((3, 9), (0, 1024)));
        for bad in [&[5, 0][..], &[5, 3, 0, 4], &[5, 3, 1, 3], &[0x80, 8, 1], &[5]] {
            assert!(LevelTable::default().decode_block(0, &mut &*bad).is_err(), "{bad:?}");
        }
        levels.count(0..1024, false);
        assert_eq!((levels.descending().collect::<Vec<_>>(), levels.next(3, 0)), (vec![9, 0], None));
        levels.drop_below(1024, 2050);
        assert_eq!(levels.containers.len(), 2);
        levels.drop_below(2050, 2050);
        assert!(levels.is_empty());
    }

    proptest! {
        #[test]
        fn levels_are_those_that_were_told(runs in vec((1..900u64, 0..4u8), 1..40), from in 0..9000u64) {
            let (mut levels, mut naive) = (LevelTable::default(), Vec::new());
            for (count, level) in runs {
                let start = naive.len() as u64;
                levels.add(start..start + count, level);
                levels.count(start..start + count, true);
                naive.extend((0..count).map(|_| level));
            }
            for (offset, level) in naive.iter().enumerate() {
                prop_assert_eq!(levels.run(offset as u64).0, *level);
            }
            for level in 1..4 {
                let expected = naive.iter().enumerate().skip(from as usize).find(|(_, other)| **other == level);
                let found = levels.next(level, from).map(|range| range.start as usize);
                // The last row goes on behind what is known.
                let found = found.filter(|offset| *offset < naive.len());
                prop_assert_eq!(found, expected.map(|(offset, _)| offset));
            }
        }
    }
}

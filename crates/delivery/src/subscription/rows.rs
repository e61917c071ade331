//! What is known of messages until they are settled, from when they come back: how often they were tried. Neighbours that are alike share a
//! row, which may span messages that are settled: the states say which are.

use std::collections::BTreeMap;

use sabir_base::varint::{put_i64, put_u64, take_i64, take_u32, take_u64};
use sabir_model::DecodeError;

use super::dirty::DirtyBlocks;
use super::states::block_of;

/// What a row says of each of its messages.
pub(super) trait RowValue: Copy + PartialEq {
    /// What a stored row is called that cannot be.
    const BAD: DecodeError;

    fn put(self, out: &mut Vec<u8>);

    fn take(input: &mut &[u8]) -> Result<Self, DecodeError>;
}

/// Bytes of a message.
impl RowValue for u32 {
    const BAD: DecodeError = DecodeError::Field("row of sizes");

    fn put(self, out: &mut Vec<u8>) {
        put_u64(out, self.into());
    }

    fn take(input: &mut &[u8]) -> Result<Self, DecodeError> {
        Ok(take_u32(input)?)
    }
}

/// When a message expires, in milliseconds since the epoch.
impl RowValue for i64 {
    const BAD: DecodeError = DecodeError::Field("row of expiries");

    fn put(self, out: &mut Vec<u8>) {
        put_i64(out, self);
    }

    fn take(input: &mut &[u8]) -> Result<Self, DecodeError> {
        Ok(take_i64(input)?)
    }
}

/// Rows by where they begin; messages need not have one.
#[derive(Debug)]
pub(super) struct Rows<V> {
    rows: BTreeMap<u64, (u64, V)>,
    pub dirty: DirtyBlocks,
}

impl<V> Default for Rows<V> {
    fn default() -> Self {
        Self { rows: BTreeMap::new(), dirty: DirtyBlocks::default() }
    }
}

impl<V: RowValue> Rows<V> {
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// One behind the last message with a row.
    pub fn end(&self) -> u64 {
        self.rows.last_key_value().map_or(0, |(_, (end, _))| *end)
    }

    /// What is said of a message, if anything is.
    pub fn get(&self, offset: u64) -> Option<V> {
        let (_, (end, value)) = self.rows.range(..=offset).next_back()?;
        (offset < *end).then_some(*value)
    }

    /// What is said of a message, and where its row ends; of what has none, where the next row begins.
    pub fn run(&self, offset: u64) -> (Option<V>, u64) {
        match self.rows.range(..=offset).next_back() {
            Some((_, &(end, value))) if offset < end => (Some(value), end),
            _ => (None, self.rows.range(offset..).next().map_or(u64::MAX, |(start, _)| *start)),
        }
    }

    /// Puts every message's value in a range through `change`, which is given that of its row, if it has one.
    pub fn update(&mut self, from: u64, to: u64, change: impl Fn(Option<V>) -> Option<V>) {
        self.split(from);
        self.split(to);
        let mut at = from;
        while at < to {
            let next = self.rows.range(at..to).next().map(|(start, (end, value))| (*start, *end, *value));
            let (start, end, value) = next.map_or((to, to, None), |(s, e, v)| (s, e, Some(v)));
            if at < start {
                self.put(at, start, change(None));
            }
            if start < end {
                self.put(start, end, change(value));
            }
            at = end;
        }
        self.join(from);
        self.join(to);
    }

    fn put(&mut self, from: u64, to: u64, value: Option<V>) {
        let before = match value {
            Some(value) => self.rows.insert(from, (to, value)),
            None => self.rows.remove(&from),
        };
        if before.is_some() || value.is_some() {
            self.dirty.insert(block_of(from));
        }
    }

    /// Makes a row that spans `at` two.
    fn split(&mut self, at: u64) {
        let Some((&start, &mut (ref mut end, value))) = self.rows.range_mut(..at).next_back() else {
            return;
        };
        if *end > at {
            let behind = std::mem::replace(end, at);
            self.dirty.insert(block_of(start));
            self.put(at, behind, Some(value));
        }
    }

    /// Makes two rows that meet at `at` of one value one.
    fn join(&mut self, at: u64) {
        let Some(&(end, value)) = self.rows.get(&at) else { return };
        let Some((&start, before)) = self.rows.range_mut(..at).next_back() else { return };
        if *before == (at, value) {
            before.0 = end;
            self.dirty.insert(block_of(start));
            self.put(at, end, None);
        }
    }

    /// Forgets settled messages' rows, but for what lies inside a longer one.
    pub fn settle(&mut self, from: u64, to: u64) {
        while let Some((&start, &(end, value))) = self.rows.range(..to).next_back() {
            let inside = start < from && to < end;
            if end <= from || inside {
                return;
            }
            if start < from {
                return self.put(start, from, Some(value));
            }
            self.put(start, end, None);
            if to < end {
                self.put(to, end, Some(value));
            }
        }
    }

    /// Forgets rows that end at or below the floor.
    pub fn drop_below(&mut self, floor: u64) {
        while let Some(first) = self.rows.first_entry()
            && first.get().0 <= floor
        {
            self.dirty.insert(block_of(*first.key()));
            first.remove();
        }
    }

    /// Forgets all of them.
    pub fn clear(&mut self) {
        self.rows.keys().for_each(|start| self.dirty.insert(block_of(*start)));
        self.rows.clear();
    }

    /// Bytes of memory behind the struct, about.
    pub fn bytes(&self) -> usize {
        self.rows.len() * (8 + size_of::<(u64, V)>()) * 3 / 2
    }

    /// The containers in which some begin.
    pub fn each_block(&self, mut each: impl FnMut(u64)) {
        let mut last = None;
        for block in self.rows.keys().map(|start| block_of(*start)) {
            if last.replace(block) != Some(block) {
                each(block);
            }
        }
    }

    /// Appends the stored form of the rows that begin in a container. Tells whether there are any.
    pub fn encode_block(&self, block: u64, out: &mut Vec<u8>) -> bool {
        let mut last = block * super::CONTAINER;
        let mut any = false;
        for (start, (end, value)) in self.rows.range(last..last + super::CONTAINER) {
            put_u64(out, start - last);
            put_u64(out, end - start);
            value.put(out);
            (last, any) = (*start, true);
        }
        any
    }

    pub fn decode_block(&mut self, block: u64, input: &mut &[u8]) -> Result<(), DecodeError> {
        let mut start = block * super::CONTAINER;
        while !input.is_empty() {
            start = start.checked_add(take_u64(input)?).ok_or(V::BAD)?;
            let end = start.checked_add(take_u64(input)?).ok_or(V::BAD)?;
            if block_of(start) != block || start == end {
                return Err(V::BAD);
            }
            self.rows.insert(start, (end, V::take(input)?));
        }
        Ok(())
    }
}

//! How often messages were tried: a side row from the first return until settled. Neighbours with equal counts share one.
//!
//! A row may span messages that are settled; the states say which are.

use std::collections::BTreeMap;

use sabir_base::varint::{put_u64, take_u32, take_u64};
use sabir_model::DecodeError;

use super::dirty::DirtyBlocks;
use super::states::block_of;

/// How often a message was tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash, PartialOrd, Ord)]
pub struct Attempts {
    /// Times that it was acquired, the present one included.
    pub acquired: u32,
    /// Returns that count.
    pub returned: u32,
}

impl Attempts {
    /// Of a message that is in flight for the first time.
    pub const FIRST: Self = Self { acquired: 1, returned: 0 };

    /// Appends the stored form.
    pub fn encode(self, out: &mut Vec<u8>) {
        put_u64(out, self.acquired.into());
        put_u64(out, self.returned.into());
    }

    /// Takes counts off the front of `input`.
    ///
    /// # Errors
    /// A cut input, a number out of range.
    pub fn decode(input: &mut &[u8]) -> Result<Self, DecodeError> {
        Ok(Self { acquired: take_u32(input)?, returned: take_u32(input)? })
    }
}

#[derive(Debug, Default)]
pub(super) struct AttemptRows {
    rows: BTreeMap<u64, (u64, Attempts)>,
    pub dirty: DirtyBlocks,
}

impl AttemptRows {
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// One behind the last message with a row.
    pub fn end(&self) -> u64 {
        self.rows.last_key_value().map_or(0, |(_, (end, _))| *end)
    }

    pub fn get(&self, offset: u64) -> Option<Attempts> {
        let (_, (end, attempts)) = self.rows.range(..=offset).next_back()?;
        (offset < *end).then_some(*attempts)
    }

    /// Puts every message's counts in a range through `change`, which is given those of its row, if it has one.
    pub fn update(&mut self, from: u64, to: u64, change: impl Fn(Option<Attempts>) -> Option<Attempts>) {
        self.split(from);
        self.split(to);
        let mut at = from;
        while at < to {
            let next =
                self.rows.range(at..to).next().map(|(start, (end, attempts))| (*start, *end, *attempts));
            let (start, end, attempts) = next.map_or((to, to, None), |(s, e, a)| (s, e, Some(a)));
            if at < start {
                self.put(at, start, change(None));
            }
            if start < end {
                self.put(start, end, change(attempts));
            }
            at = end;
        }
        self.join(from);
        self.join(to);
    }

    fn put(&mut self, from: u64, to: u64, attempts: Option<Attempts>) {
        let before = match attempts {
            Some(attempts) => self.rows.insert(from, (to, attempts)),
            None => self.rows.remove(&from),
        };
        if before.is_some() || attempts.is_some() {
            self.dirty.insert(block_of(from));
        }
    }

    /// Makes a row that spans `at` two.
    fn split(&mut self, at: u64) {
        let Some((&start, &mut (ref mut end, attempts))) = self.rows.range_mut(..at).next_back() else {
            return;
        };
        if *end > at {
            let behind = std::mem::replace(end, at);
            self.dirty.insert(block_of(start));
            self.put(at, behind, Some(attempts));
        }
    }

    /// Makes two rows that meet at `at` with equal counts one.
    fn join(&mut self, at: u64) {
        let Some(&(end, attempts)) = self.rows.get(&at) else { return };
        let Some((&start, before)) = self.rows.range_mut(..at).next_back() else { return };
        if *before == (at, attempts) {
            before.0 = end;
            self.dirty.insert(block_of(start));
            self.put(at, end, None);
        }
    }

    /// Forgets settled messages' rows, but for what lies inside a longer one.
    pub fn settle(&mut self, from: u64, to: u64) {
        while let Some((&start, &(end, attempts))) = self.rows.range(..to).next_back() {
            let inside = start < from && to < end;
            if end <= from || inside {
                return;
            }
            if start < from {
                return self.put(start, from, Some(attempts));
            }
            self.put(start, end, None);
            if to < end {
                self.put(to, end, Some(attempts));
            }
        }
    }

    /// Forgets rows that end at or below the floor.
    pub fn drop_below(&mut self, floor: u64) {
        while let Some((&start, &(end, _))) = self.rows.first_key_value() {
            if end > floor {
                return;
            }
            self.put(start, end, None);
        }
    }

    /// Forgets all of them.
    pub fn clear(&mut self) {
        self.rows.keys().for_each(|start| self.dirty.insert(block_of(*start)));
        self.rows.clear();
    }

    /// Bytes of memory behind the struct, about.
    pub fn bytes(&self) -> usize {
        self.rows.len() * (8 + size_of::<(u64, Attempts)>()) * 3 / 2
    }

    /// Appends the stored form of the rows that begin in a container. Tells whether there are any.
    pub fn encode_block(&self, block: u64, out: &mut Vec<u8>) -> bool {
        let mut last = block * super::CONTAINER;
        let mut any = false;
        for (start, (end, attempts)) in self.rows.range(last..last + super::CONTAINER) {
            put_u64(out, start - last);
            put_u64(out, end - start);
            attempts.encode(out);
            (last, any) = (*start, true);
        }
        any
    }

    pub fn decode_block(&mut self, block: u64, input: &mut &[u8]) -> Result<(), DecodeError> {
        let mut start = block * super::CONTAINER;
        while !input.is_empty() {
            start = start.checked_add(take_u64(input)?).ok_or(DecodeError::Field("row of counts"))?;
            let end = start.checked_add(take_u64(input)?).ok_or(DecodeError::Field("row of counts"))?;
            if block_of(start) != block || start == end {
                return Err(DecodeError::Field("row of counts"));
            }
            self.rows.insert(start, (end, Attempts::decode(input)?));
        }
        Ok(())
    }
}

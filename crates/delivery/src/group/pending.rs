//! Ids given out to clients that have not come back with them.

use std::collections::BTreeMap;

use super::Text;

/// The ids, and when each is forgotten.
#[derive(Debug, Clone, Default)]
pub(super) struct Pending {
    until: BTreeMap<Text, i64>,
    bytes: usize,
}

impl Pending {
    /// What an id takes, about.
    pub fn cost(id: &Text) -> usize {
        64 + id.len()
    }

    pub fn len(&self) -> usize {
        self.until.len()
    }

    pub fn is_empty(&self) -> bool {
        self.until.is_empty()
    }

    /// The memory they take, about.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub fn contains(&self, id: &Text) -> bool {
        self.until.contains_key(id)
    }

    pub fn insert(&mut self, id: Text, until: i64) {
        let bytes = Self::cost(&id);
        if self.until.insert(id, until).is_none() {
            self.bytes += bytes;
        }
    }

    /// Takes an id out; whether it was there.
    pub fn remove(&mut self, id: &Text) -> bool {
        let there = self.until.remove(id).is_some();
        if there {
            self.bytes -= Self::cost(id);
        }
        there
    }

    /// Forgets those whose time is over; whether there were any.
    pub fn forget(&mut self, now: i64) -> bool {
        let before = self.until.len();
        self.until.retain(|_, until| *until > now);
        self.bytes = self.until.keys().map(Self::cost).sum();
        self.until.len() < before
    }

    /// When each is forgotten.
    pub fn times(&self) -> impl Iterator<Item = i64> {
        self.until.values().copied()
    }
}

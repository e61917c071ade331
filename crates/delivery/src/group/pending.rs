//! Ids given out to clients that have not come back with them.

use std::collections::BTreeMap;

use super::Text;
use super::shares::{Holder, Shares};

/// What an id takes beside its text, here and where those of all groups are bounded.
const BESIDE: usize = 256;

/// What a group takes for the tables of its ids, beside what each takes.
const TABLES: usize = 4096;

/// What an id takes that was given out, in bytes, about.
pub fn id_bytes(id: &Text) -> usize {
    BESIDE + id.len()
}

/// The ids, and when each is forgotten.
#[derive(Debug, Clone, Default)]
pub(super) struct Pending {
    ids: BTreeMap<Text, Given>,
    shares: Shares<Text>,
    next: u64,
    bytes: usize,
}

#[derive(Debug, Clone, Copy)]
struct Given {
    until: i64,
    number: u64,
}

impl Pending {
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// What they take each, in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The memory they take with the tables of a group that has any, about.
    pub fn memory(&self) -> usize {
        TABLES + self.bytes
    }

    pub fn contains(&self, id: &Text) -> bool {
        self.ids.contains_key(id)
    }

    /// Forgets the id that gives way to another.
    pub fn forget_one(&mut self) -> bool {
        let first = self.shares.first_to_go().map(|(_, id)| id.clone());
        first.is_some_and(|id| self.remove(&id))
    }

    /// Takes an id that is new.
    pub fn insert(&mut self, id: Text, holder: Holder, until: i64) {
        let (number, bytes) = (self.next, id_bytes(&id));
        self.next += 1;
        self.remove(&id);
        self.shares.push(number, holder, bytes, id.clone());
        self.ids.insert(id, Given { until, number });
        self.bytes += bytes;
    }

    /// Takes an id out; whether it was there.
    pub fn remove(&mut self, id: &Text) -> bool {
        let Some(given) = self.ids.remove(id) else { return false };
        self.shares.remove(given.number);
        self.bytes -= id_bytes(id);
        true
    }

    /// Forgets those whose time is over; whether there were any.
    pub fn forget(&mut self, now: i64) -> bool {
        let over = self.ids.iter().filter(|(_, given)| given.until <= now).map(|(id, _)| id.clone());
        let over: Vec<Text> = over.collect();
        for id in &over {
            self.remove(id);
        }
        !over.is_empty()
    }

    /// When each is forgotten.
    pub fn times(&self) -> impl Iterator<Item = i64> {
        self.ids.values().map(|given| given.until)
    }
}

//! A resident map whose changed entries become pages at a checkpoint.
//!
//! ```text
//!            begin_checkpoint = the cut                    checkpoint_committed / _failed
//!   ── era n ───────┬───────────────── era n+1 ─────────────────┬──────────────
//!     changes of n  │  capture(budget) … capture(budget)        │
//!     are due       │  a change of an entry that is still due   │  failed: what was captured
//!                   │  captures the entry as it is first        │  is due again
//! ```
//!
//! Beside its pages lies a summary under the prefix itself: how many entries there are and the sum of their checksums. So a
//! map that came back from a damaged store without some of its entries is an error, and never a smaller map.

use std::fmt;
use std::hash::Hash;
use std::ops::{ControlFlow, Range};

use rustc_hash::FxHashMap;
use sabir_base::crc::crc32c_parts;

use super::split::{self, Parts};
use super::summary::Summary;
use super::{PageChange, PageError, PageStore};

/// Why bytes are not the form of a key or value: one line for the error that names the page.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct PageDecodeError(pub String);

/// A key with a stored form. Equal keys have equal bytes and different keys different ones.
pub trait PageKey: Clone + Eq + Hash + fmt::Debug {
    /// Appends the stored form, at most 400 bytes.
    fn encode(&self, out: &mut Vec<u8>);

    /// Reads the stored form back, all of it.
    fn decode(bytes: &[u8]) -> Result<Self, PageDecodeError>;
}

/// A value with a stored form; equal values have equal bytes, so that dumps can be compared.
pub trait PageValue: Sized {
    /// Appends the stored form.
    fn encode(&self, out: &mut Vec<u8>);

    /// Reads the stored form back, all of it.
    fn decode(bytes: &[u8]) -> Result<Self, PageDecodeError>;
}

/// What one call of [`Paged::capture`] may do: its caller holds a lock meanwhile.
#[derive(Debug, Clone, Copy)]
pub struct Budget {
    /// Entries left.
    pub entries: usize,
    /// Encoded bytes left.
    pub bytes: usize,
}

impl Budget {
    /// Well below a millisecond of encoding on any machine this runs on.
    pub const MILLISECOND: Self = Self { entries: 512, bytes: 256 << 10 };

    fn spent(&self) -> bool {
        self.entries == 0 || self.bytes == 0
    }

    fn spend(&mut self, bytes: usize) {
        self.entries = self.entries.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(bytes);
    }
}

/// The number of the time between two cuts. 0: not changed since it was captured.
type Era = u32;
const CAPTURED: Era = 0;

#[derive(Debug)]
struct Entry<V> {
    value: V,
    mark: Mark,
}

/// What the store knows of an entry, or of one that was removed.
#[derive(Debug, Clone, Copy)]
struct Mark {
    /// The era of its last change.
    changed: Era,
    /// How many pages of it the store may hold.
    stored: u32,
    /// The checksum that stands for it in the summary, if it is counted there.
    counted: Option<u32>,
}

impl Mark {
    const NEW: Self = Self { changed: CAPTURED, stored: 0, counted: None };
}

#[derive(Debug)]
struct Captured<K> {
    key: K,
    /// What the mark said before; it counts again if the commit fails.
    stored: u32,
}

/// The changes captured for the checkpoint under way.
#[derive(Debug)]
struct Capture<K> {
    prefix: Vec<u8>,
    keys: Vec<Captured<K>>,
    changes: Vec<PageChange>,
    scratch: Vec<u8>,
    summary: Summary,
    /// What is committed, if that is known.
    stored_summary: Option<Summary>,
    /// Whether nothing is left to capture.
    finished: bool,
}

/// A map that is wholly in memory, with its changed entries written as pages at a checkpoint.
///
/// Its pages lie under `prefix`; no prefix in one store may begin another. The order of [`iter`](Self::iter) is not that of the keys
/// and may differ from one process to the next, so nothing that must be deterministic may follow it.
#[derive(Debug)]
pub struct Paged<K, V> {
    entries: FxHashMap<K, Entry<V>>,
    /// Entries that were removed and whose pages are still to be deleted.
    removed: FxHashMap<K, Mark>,
    /// The keys whose mark says this era, each once.
    dirty: Vec<K>,
    /// The keys that were dirty at the cut; one whose mark no longer says the era before has been captured.
    due: Vec<K>,
    era: Era,
    under_way: bool,
    capture: Capture<K>,
}

impl<K: PageKey, V: PageValue> Paged<K, V> {
    /// An empty map whose pages will lie under `prefix`.
    pub fn new(prefix: &[u8]) -> Self {
        let capture = Capture {
            prefix: prefix.to_vec(),
            keys: Vec::new(),
            changes: Vec::new(),
            scratch: Vec::new(),
            summary: Summary::default(),
            stored_summary: None,
            finished: false,
        };
        Self {
            entries: FxHashMap::default(),
            removed: FxHashMap::default(),
            dirty: Vec::new(),
            due: Vec::new(),
            // The era before the first must not be CAPTURED.
            era: CAPTURED + 2,
            under_way: false,
            capture,
        }
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// How many entries have changed since the last cut.
    pub fn dirty(&self) -> usize {
        self.dirty.len()
    }

    /// The value under `key`.
    pub fn get(&self, key: &K) -> Option<&V> {
        self.entries.get(key).map(|entry| &entry.value)
    }

    /// Whether there is a value under `key`.
    pub fn contains(&self, key: &K) -> bool {
        self.entries.contains_key(key)
    }

    /// All entries, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.entries.iter().map(|(key, entry)| (key, &entry.value))
    }

    /// The value under `key` to change; it counts as changed.
    pub fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        let entry = self.entries.get_mut(key)?;
        if entry.mark.changed != self.era {
            if entry.mark.changed == self.era - 1 {
                self.capture.value(key, entry);
            }
            entry.mark.changed = self.era;
            self.dirty.push(key.clone());
        }
        Some(&mut entry.value)
    }

    /// Puts a value and gives the one it replaces.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        if let Some(there) = self.get_mut(&key) {
            return Some(std::mem::replace(there, value));
        }
        let mut mark = self.removed.remove(&key).unwrap_or(Mark::NEW);
        if mark.changed == self.era - 1 {
            self.capture.removal(&key, &mut mark);
        }
        if mark.changed != self.era {
            mark.changed = self.era;
            self.dirty.push(key.clone());
        }
        self.entries.insert(key, Entry { value, mark });
        None
    }

    /// The value under `key` to change, put there if there was none.
    pub fn get_or_insert_with(&mut self, key: K, value: impl FnOnce() -> V) -> &mut V {
        if !self.entries.contains_key(&key) {
            self.insert(key.clone(), value());
        }
        self.get_mut(&key).expect("present, or inserted the line before")
    }

    /// Takes an entry out.
    pub fn remove(&mut self, key: &K) -> Option<V> {
        let mut entry = self.entries.remove(key)?;
        if entry.mark.changed == self.era - 1 {
            self.capture.value(key, &mut entry);
        }
        if entry.mark.changed != self.era {
            entry.mark.changed = self.era;
            self.dirty.push(key.clone());
        }
        self.removed.insert(key.clone(), entry.mark);
        Some(entry.value)
    }

    /// Cuts: the pages captured from now on are those of this moment, whatever changes after it.
    ///
    /// # Panics
    /// If a checkpoint is under way.
    pub fn begin_checkpoint(&mut self) {
        assert!(!self.under_way, "a checkpoint of this map is under way");
        self.under_way = true;
        self.capture.finished = false;
        self.era += 1;
        self.due = std::mem::take(&mut self.dirty);
    }

    /// Captures entries that are due, within the budget, which it draws on; true while more are due. A value larger than
    /// what is left is still captured whole.
    pub fn capture(&mut self, budget: &mut Budget) -> bool {
        while !budget.spent()
            && let Some(key) = self.due.pop()
        {
            budget.spend(self.capture_due(&key));
        }
        if self.under_way && self.due.is_empty() {
            self.capture.finish();
        }
        !self.due.is_empty()
    }

    fn capture_due(&mut self, key: &K) -> usize {
        let cut = self.era - 1;
        if let Some(entry) = self.entries.get_mut(key).filter(|e| e.mark.changed == cut) {
            return self.capture.value(key, entry);
        }
        if let Some(mut mark) = self.removed.get(key).copied().filter(|m| m.changed == cut) {
            self.capture.removal(key, &mut mark);
            self.removed.remove(key);
        }
        0
    }

    /// The changes captured since the last call, for the checkpoint's batch.
    pub fn take_captured(&mut self) -> Vec<PageChange> {
        std::mem::take(&mut self.capture.changes)
    }

    /// The batch with everything captured has been committed.
    ///
    /// # Panics
    /// If something that was due had not been captured, or something captured not been taken.
    pub fn checkpoint_committed(&mut self) {
        assert!(self.capture.finished && self.capture.changes.is_empty(), "the checkpoint left pages out");
        self.capture.keys = Vec::new();
        self.capture.stored_summary = Some(self.capture.summary);
        self.under_way = false;
    }

    /// The checkpoint was given up, or its batch may not have been committed: what it captured, and what was still due,
    /// is due for the next one.
    pub fn checkpoint_failed(&mut self) {
        self.capture.changes.clear();
        self.capture.stored_summary = None;
        for captured in std::mem::take(&mut self.capture.keys) {
            self.redirty(captured.key, captured.stored);
        }
        for key in std::mem::take(&mut self.due) {
            self.redirty(key, 0);
        }
        self.under_way = false;
    }

    fn redirty(&mut self, key: K, stored: u32) {
        let mark = match self.entries.get_mut(&key) {
            Some(entry) => &mut entry.mark,
            None => self.removed.entry(key.clone()).or_insert(Mark::NEW),
        };
        mark.stored = mark.stored.max(stored);
        if mark.changed != self.era {
            mark.changed = self.era;
            self.dirty.push(key);
        }
    }

    /// Every entry's key (with the prefix) and stored form, not split, sorted: equal maps give equal dumps.
    pub fn dump(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        let stored = |(key, value): (&K, &V)| {
            let (mut k, mut v) = (self.capture.prefix.clone(), Vec::new());
            key.encode(&mut k);
            value.encode(&mut v);
            (k, v)
        };
        let mut dump: Vec<_> = self.iter().map(stored).collect();
        dump.sort_unstable();
        dump
    }

    /// The map whose pages lie under `prefix`. It must have been part of the last checkpoint, even if it was empty then: a map
    /// without a trace in the store is [`PageError::Incomplete`], since its pages may have been lost.
    pub fn restore(prefix: &[u8], store: &dyn PageStore) -> Result<Self, PageError> {
        let mut map = Self::new(prefix);
        let (mut expected, mut open) = (None, FxHashMap::<Vec<u8>, Parts>::default());
        store.scan(prefix, &[], &mut |stored_key, page| {
            if stored_key == prefix {
                expected = Some(Summary::decode(page).map_err(undecodable(stored_key))?);
                return Ok(ControlFlow::Continue(()));
            }
            let (key, number) =
                split::take_number(&stored_key[prefix.len()..]).map_err(undecodable(stored_key))?;
            let parts = open.entry(key.to_vec()).or_default();
            if parts.add(number, page).map_err(undecodable(stored_key))? {
                let parts = open.remove(key).unwrap_or_default();
                map.restore_entry(key, &parts).map_err(undecodable(stored_key))?;
            }
            Ok(ControlFlow::Continue(()))
        })?;
        let found = map.capture.summary;
        if open.is_empty() && expected == Some(found) {
            map.capture.stored_summary = expected;
            return Ok(map);
        }
        let detail = match expected {
            None => "no summary of them".to_owned(),
            Some(expected) => format!("{found} and {} in parts, where {expected} were written", open.len()),
        };
        Err(PageError::Incomplete { prefix: prefix.to_vec(), detail })
    }

    fn restore_entry(&mut self, key: &[u8], parts: &Parts) -> Result<(), PageDecodeError> {
        let value = parts.joined();
        let mut mark = Mark { stored: parts.count(), ..Mark::NEW };
        self.capture.summary.count(&mut mark.counted, crc32c_parts(&[key, &value]));
        self.entries.insert(K::decode(key)?, Entry { value: V::decode(&value)?, mark });
        Ok(())
    }
}

fn undecodable(key: &[u8]) -> impl Fn(PageDecodeError) -> PageError {
    move |error| PageError::Undecodable { key: key.to_vec(), detail: error.0 }
}

impl<K: PageKey> Capture<K> {
    /// Puts an entry's pages as they are now and deletes those it no longer has; gives its encoded bytes.
    fn value<V: PageValue>(&mut self, key: &K, entry: &mut Entry<V>) -> usize {
        let mut value = std::mem::take(&mut self.scratch);
        value.clear();
        entry.value.encode(&mut value);
        let pages = split::pages(&value);
        let count = pages.len() as u32;
        self.keys.push(Captured { key: key.clone(), stored: entry.mark.stored });
        for (number, page) in (0..count).zip(pages) {
            self.push(key, number, Some(page));
        }
        self.delete(key, count..entry.mark.stored);
        entry.mark.changed = CAPTURED;
        entry.mark.stored = count;
        let mut stored_key = Vec::new();
        key.encode(&mut stored_key);
        self.summary.count(&mut entry.mark.counted, crc32c_parts(&[&stored_key, &value]));
        let bytes = value.len();
        self.scratch = value;
        bytes
    }

    /// Deletes all pages of an entry that was removed.
    fn removal(&mut self, key: &K, mark: &mut Mark) {
        self.keys.push(Captured { key: key.clone(), stored: mark.stored });
        self.delete(key, 0..mark.stored);
        self.summary.uncount(&mut mark.counted);
        *mark = Mark::NEW;
    }

    /// Adds the summary, unless the one in the store still holds.
    fn finish(&mut self) {
        if !self.finished && self.stored_summary != Some(self.summary) {
            let page = Some(self.summary.encode());
            self.changes.push(PageChange { key: self.prefix.clone(), page });
        }
        self.finished = true;
    }

    fn delete(&mut self, key: &K, numbers: Range<u32>) {
        numbers.for_each(|number| self.push(key, number, None));
    }

    fn push(&mut self, key: &K, number: u32, page: Option<Vec<u8>>) {
        let mut stored = self.prefix.clone();
        key.encode(&mut stored);
        split::put_number(&mut stored, number);
        self.changes.push(PageChange { key: stored, page });
    }
}

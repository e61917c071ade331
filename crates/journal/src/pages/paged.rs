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

use rustc_hash::FxHashMap;

use super::{CapturedKey, PageCapture, PageChange, PageError, PageStore, Rising, StoredMark};

/// Why bytes are not the form of a key or value: one line for the error that names the page.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct PageDecodeError(pub String);

/// A key with a stored form. Equal keys have equal bytes and different keys different ones. They are written in their order, which is to be that
/// of their stored forms, at least for most of them: what comes in rising order fills a store's pages, and what does not leaves them half empty.
pub trait PageKey: Clone + Ord + Hash + fmt::Debug {
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

    /// Whether nothing is left of it.
    pub fn spent(&self) -> bool {
        self.entries == 0 || self.bytes == 0
    }

    /// Takes an entry of so many bytes off.
    pub fn spend(&mut self, bytes: usize) {
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

/// What is known of an entry, or of one that was removed.
#[derive(Debug, Clone, Copy)]
struct Mark {
    /// The era of its last change.
    changed: Era,
    stored: StoredMark,
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
    /// The keys that were dirty at the cut; one whose mark no longer says the era before has been captured. Those that were looked at stay there for a checkpoint that fails.
    due: Rising<K>,
    era: Era,
    under_way: bool,
    capture: PageCapture<K>,
}

impl<K: PageKey, V: PageValue> Paged<K, V> {
    /// An empty map whose pages will lie under `prefix`.
    pub fn new(prefix: &[u8]) -> Self {
        Self {
            entries: FxHashMap::default(),
            removed: FxHashMap::default(),
            dirty: Vec::new(),
            due: Rising::default(),
            // The era before the first must not be CAPTURED.
            era: CAPTURED + 2,
            under_way: false,
            capture: PageCapture::new(prefix).noting_few(),
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
                entry.capture(key, &mut self.capture);
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
        let mut mark = self.removed.remove(&key).unwrap_or(NEW);
        if mark.changed == self.era - 1 {
            self.capture.remove(&key, &mut mark.stored);
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
            entry.capture(key, &mut self.capture);
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
        self.capture.begin();
        self.era += 1;
        self.due = Rising::new(std::mem::take(&mut self.dirty));
    }

    /// Captures entries that are due, within the budget, which it draws on; true while more are due. A value larger than
    /// what is left is still captured whole.
    pub fn capture(&mut self, budget: &mut Budget) -> bool {
        while !budget.spent()
            && let Some(key) = self.due.take().cloned()
        {
            budget.spend(self.capture_due(&key));
        }
        let more = self.due.left() > 0;
        if self.under_way && !more {
            self.capture.finish();
        }
        more
    }

    fn capture_due(&mut self, key: &K) -> usize {
        let cut = self.era - 1;
        if let Some(entry) = self.entries.get_mut(key).filter(|e| e.mark.changed == cut) {
            return entry.capture(key, &mut self.capture);
        }
        if let Some(mut mark) = self.removed.get(key).copied().filter(|m| m.changed == cut) {
            self.capture.remove(key, &mut mark.stored);
            self.removed.remove(key);
        }
        0
    }

    /// The changes captured since the last call, for the checkpoint's batch.
    pub fn take_captured(&mut self) -> Vec<PageChange> {
        self.capture.take()
    }

    /// The batch with everything captured has been committed.
    ///
    /// # Panics
    /// If something that was due had not been captured, or something captured not been taken.
    pub fn checkpoint_committed(&mut self) {
        self.capture.committed();
        self.due = Rising::default();
        self.under_way = false;
    }

    /// The checkpoint was given up, or its batch may not have been committed: what it captured, and what was still due,
    /// is due for the next one.
    pub fn checkpoint_failed(&mut self) {
        for captured in self.capture.failed() {
            let CapturedKey { ref key, .. } = captured;
            self.mark_of(key).stored.widen(&captured);
        }
        for key in std::mem::take(&mut self.due).into_all() {
            self.redirty(key);
        }
        self.under_way = false;
    }

    fn mark_of(&mut self, key: &K) -> &mut Mark {
        match self.entries.get_mut(key) {
            Some(entry) => &mut entry.mark,
            None => self.removed.entry(key.clone()).or_insert(NEW),
        }
    }

    fn redirty(&mut self, key: K) {
        let era = self.era;
        let mark = self.mark_of(&key);
        if mark.changed != era {
            mark.changed = era;
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
        let capture = PageCapture::restore(prefix, store, |key, value, stored| {
            let mark = Mark { stored, ..NEW };
            map.entries.insert(key, Entry { value: V::decode(value)?, mark });
            Ok(())
        })?;
        map.capture = capture.noting_few();
        Ok(map)
    }
}

/// Of what no store knows.
const NEW: Mark = Mark { changed: CAPTURED, stored: StoredMark::NONE };

impl<V: PageValue> Entry<V> {
    /// Captures it as it is now; gives its encoded bytes.
    fn capture<K: PageKey>(&mut self, key: &K, capture: &mut PageCapture<K>) -> usize {
        let Self { value, mark } = self;
        let bytes = capture.capture(key, &mut mark.stored, |out| {
            value.encode(out);
            true
        });
        mark.changed = CAPTURED;
        bytes
    }
}

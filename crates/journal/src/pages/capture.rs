//! What a checkpoint under way writes of one map, and what the store holds of it.

use std::ops::{ControlFlow, Range};

use rustc_hash::FxHashMap;
use sabir_base::crc::crc32c_parts;

use super::split::{self, ValuePages};
use super::summary::Summary;
use super::{PageChange, PageDecodeError, PageError, PageKey, PageStore};

/// What the store holds under a key, or did before the key was removed. The map that keeps the values keeps it beside each.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StoredMark {
    /// How many pages the store may hold.
    stored: u32,
    /// The checksum that stands for the value in the summary, if it is counted there.
    counted: Option<u32>,
}

impl StoredMark {
    /// The store holds nothing.
    pub const NONE: Self = Self { stored: 0, counted: None };

    /// Whether the store holds nothing.
    pub fn is_none(&self) -> bool {
        *self == Self::NONE
    }

    /// The store may hold more: what was captured before a commit that failed.
    pub fn widen(&mut self, captured: &CapturedKey<impl Sized>) {
        self.stored = self.stored.max(captured.stored);
    }
}

/// A key that was captured for a checkpoint that failed: it is to be captured again.
#[derive(Debug)]
pub struct CapturedKey<K> {
    /// The key.
    pub key: K,
    /// What its mark said before.
    stored: u32,
}

/// The changes captured for the checkpoint under way, with the summary that ends them.
///
/// The part of a map that writes pages. A [`Paged`](super::Paged) has one; what keeps its values in another way uses it by itself: it knows what
/// changed, keeps a [`StoredMark`] for each key, and sees to it that what it captures is of the moment of the cut.
#[derive(Debug)]
pub struct PageCapture<K> {
    pub(super) prefix: Vec<u8>,
    /// Those that were captured since the checkpoint began.
    keys: Vec<CapturedKey<K>>,
    /// Whether those are left out of which the store holds no more pages than it will.
    few: bool,
    changes: Vec<PageChange>,
    scratch: Vec<u8>,
    summary: Summary,
    /// What is committed, if that is known.
    stored_summary: Option<Summary>,
    /// Whether nothing is left to capture.
    finished: bool,
}

impl<K: PageKey> PageCapture<K> {
    /// Of a map whose pages will lie under `prefix`.
    pub fn new(prefix: &[u8]) -> Self {
        Self {
            prefix: prefix.to_vec(),
            keys: Vec::new(),
            few: false,
            changes: Vec::new(),
            scratch: Vec::new(),
            summary: Summary::default(),
            stored_summary: None,
            finished: false,
        }
    }

    /// Notes only those keys whose marks are to be widened should a checkpoint fail: for a map that itself keeps what was due.
    pub(super) fn noting_few(self) -> Self {
        Self { few: true, ..self }
    }

    fn note(&mut self, key: &K, mark: StoredMark, pages: u32) {
        if !self.few || mark.stored > pages {
            self.keys.push(CapturedKey { key: key.clone(), stored: mark.stored });
        }
    }

    /// A checkpoint begins.
    pub fn begin(&mut self) {
        self.finished = false;
    }

    /// Puts the pages of a value and deletes those that it no longer has; gives its encoded bytes. `encode` appends it, and tells whether
    /// there is one: if not, all its pages are deleted.
    pub fn capture(
        &mut self,
        key: &K,
        mark: &mut StoredMark,
        encode: impl FnOnce(&mut Vec<u8>) -> bool,
    ) -> usize {
        let mut value = std::mem::take(&mut self.scratch);
        value.clear();
        if encode(&mut value) {
            self.put(key, mark, &value);
        } else {
            value.clear();
            self.remove(key, mark);
        }
        let bytes = value.len();
        self.scratch = value;
        bytes
    }

    fn put(&mut self, key: &K, mark: &mut StoredMark, value: &[u8]) {
        let pages = split::pages(value);
        let count = pages.len() as u32;
        self.note(key, *mark, count);
        for (number, page) in (0..count).zip(pages) {
            self.push(key, number, Some(page));
        }
        self.delete(key, count..mark.stored);
        mark.stored = count;
        let mut stored_key = Vec::new();
        key.encode(&mut stored_key);
        self.summary.count(&mut mark.counted, crc32c_parts(&[&stored_key, value]));
    }

    /// Deletes all pages of a value that is no more.
    pub fn remove(&mut self, key: &K, mark: &mut StoredMark) {
        self.note(key, *mark, 0);
        self.delete(key, 0..mark.stored);
        self.summary.uncount(&mut mark.counted);
        *mark = StoredMark::NONE;
    }

    /// Nothing is left to capture: adds the summary, unless the one in the store still holds.
    pub fn finish(&mut self) {
        if !self.finished && self.stored_summary != Some(self.summary) {
            let page = Some(self.summary.encode());
            self.changes.push(PageChange { key: self.prefix.clone(), page });
        }
        self.finished = true;
    }

    /// The changes captured since the last call, for the checkpoint's batch.
    pub fn take(&mut self) -> Vec<PageChange> {
        std::mem::take(&mut self.changes)
    }

    /// The batch with everything captured has been committed.
    ///
    /// # Panics
    /// If something that was due had not been captured, or something captured not been taken.
    pub fn committed(&mut self) {
        assert!(self.finished && self.changes.is_empty(), "the checkpoint left pages out");
        self.keys = Vec::new();
        self.stored_summary = Some(self.summary);
    }

    /// The checkpoint was given up, or its batch may not have been committed: gives the keys that are to be captured again, whose marks are
    /// to be [widened](StoredMark::widen).
    pub fn failed(&mut self) -> Vec<CapturedKey<K>> {
        self.changes.clear();
        self.stored_summary = None;
        std::mem::take(&mut self.keys)
    }

    /// Of the map whose pages lie under `prefix`; `each` is given every value, in the order of the stored keys as far as none begins another.
    /// It must have been part of the last checkpoint, even if it was empty then: a map without a trace in the store is
    /// [`PageError::Incomplete`], since its pages may have been lost.
    pub fn restore(
        prefix: &[u8],
        store: &dyn PageStore,
        mut each: impl FnMut(K, &[u8], StoredMark) -> Result<(), PageDecodeError>,
    ) -> Result<Self, PageError> {
        let mut capture = Self::new(prefix);
        let (mut expected, mut open) = (None, FxHashMap::<Vec<u8>, ValuePages>::default());
        store.scan(prefix, &[], &mut |stored_key, page| {
            let undecodable = undecodable(stored_key);
            if stored_key == prefix {
                expected = Some(Summary::decode(page).map_err(undecodable)?);
                return Ok(ControlFlow::Continue(()));
            }
            let (key, number) = split::take_number(&stored_key[prefix.len()..]).map_err(&undecodable)?;
            let parts = open.entry(key.to_vec()).or_default();
            if parts.add(number, page).map_err(&undecodable)? {
                let parts = open.remove(key).unwrap_or_default();
                let (value, mark) = capture.count(key, &parts);
                K::decode(key).and_then(|key| each(key, &value, mark)).map_err(&undecodable)?;
            }
            Ok(ControlFlow::Continue(()))
        })?;
        let found = capture.summary;
        if open.is_empty() && expected == Some(found) {
            capture.stored_summary = expected;
            return Ok(capture);
        }
        let detail = match expected {
            None => "no summary of them".to_owned(),
            Some(expected) => format!("{found} and {} in parts, where {expected} were written", open.len()),
        };
        Err(PageError::Incomplete { prefix: prefix.to_vec(), detail })
    }

    fn count(&mut self, key: &[u8], parts: &ValuePages) -> (Vec<u8>, StoredMark) {
        let value = parts.joined();
        let mut mark = StoredMark { stored: parts.count(), counted: None };
        self.summary.count(&mut mark.counted, crc32c_parts(&[key, &value]));
        (value, mark)
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

/// How many values the map has whose pages lie under `prefix`, without reading them: 0 where the store knows no such map.
///
/// # Errors
/// Those of the store, and a summary that cannot be decoded.
pub fn stored_entries(prefix: &[u8], store: &dyn PageStore) -> Result<u64, PageError> {
    let summary = store.get(prefix)?.map(|page| Summary::decode(&page).map_err(undecodable(prefix)));
    Ok(summary.transpose()?.map_or(0, |summary| summary.entries()))
}

fn undecodable(key: &[u8]) -> impl Fn(PageDecodeError) -> PageError {
    move |error| PageError::Undecodable { key: key.to_vec(), detail: error.0 }
}

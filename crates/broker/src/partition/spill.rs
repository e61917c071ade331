//! Closed history on its way to the page store.
//!
//! Pages are immutable. They stay in memory until the checkpoint that counts them is committed, and are looked up in the
//! page store from then on.

use bytes::Bytes;
use rustc_hash::{FxHashMap, FxHashSet};
use sabir_model::{Offset, PartitionId};

use crate::projection::{Budget, Dump, PageChange, PageMap};
use crate::state::prefixes;

/// What a page holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum SpillKind {
    /// Runs of a partition.
    Index,
    /// The chunk list of a fragmented batch.
    Fragmented,
    /// Timers of a run.
    Timers,
}

/// The key of a page: kind · partition · first offset · number, for lists of more than one page. Of timers: the run's number, and the page's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct SpillKey {
    pub(crate) kind: SpillKind,
    pub(crate) partition: PartitionId,
    pub(crate) first: Offset,
    pub(crate) number: u16,
}

impl SpillKey {
    pub(crate) fn index(partition: PartitionId, first: Offset) -> Self {
        Self { kind: SpillKind::Index, partition, first, number: 0 }
    }

    pub(crate) fn fragmented(partition: PartitionId, first: Offset, number: u16) -> Self {
        Self { kind: SpillKind::Fragmented, partition, first, number }
    }

    pub(crate) fn timers(run: u64, page: u32) -> Self {
        Self { kind: SpillKind::Timers, partition: PartitionId(run), first: Offset(page.into()), number: 0 }
    }

    /// The key in the page store; all numbers big-endian.
    pub(crate) fn stored(&self) -> Vec<u8> {
        let mut key = Vec::with_capacity(24);
        key.extend_from_slice(match self.kind {
            SpillKind::Index => prefixes::INDEX_PAGES,
            SpillKind::Fragmented => prefixes::CHUNK_LISTS,
            SpillKind::Timers => prefixes::TIMER_RUNS,
        });
        key.extend_from_slice(&self.partition.0.to_be_bytes());
        key.extend_from_slice(&self.first.0.to_be_bytes());
        key.extend_from_slice(&self.number.to_be_bytes());
        key
    }
}

/// Pages that the page store does not have yet, and those it need not keep.
#[derive(Debug, Default)]
pub(crate) struct Spill {
    fresh: FxHashMap<SpillKey, Bytes>,
    /// Keys that the page store may have and that have gone; one that is also fresh has come again since.
    dead: FxHashSet<SpillKey>,
    /// What the checkpoint under way puts and deletes.
    writing: Option<(FxHashMap<SpillKey, Bytes>, Vec<SpillKey>)>,
    /// What of that is not captured yet, and what is captured and not taken.
    due: SpillChanges,
    captured: Vec<PageChange>,
}

/// What a checkpoint has to write, the last key first: what comes in rising order fills the store's pages.
#[derive(Debug, Default)]
pub(super) struct SpillChanges {
    pub(super) puts: Vec<(SpillKey, Bytes)>,
    pub(super) deletes: Vec<SpillKey>,
}

impl SpillChanges {
    fn next(&mut self) -> Option<(SpillKey, Option<Bytes>)> {
        let put = self.puts.pop().map(|(key, page)| (key, Some(page)));
        put.or_else(|| self.deletes.pop().map(|key| (key, None)))
    }

    fn is_empty(&self) -> bool {
        self.puts.is_empty() && self.deletes.is_empty()
    }
}

impl Spill {
    pub(crate) fn put(&mut self, key: SpillKey, page: Vec<u8>) {
        self.fresh.insert(key, page.into());
    }

    pub(crate) fn remove(&mut self, key: SpillKey) {
        let fresh = self.fresh.remove(&key).is_some();
        let being_written = self.writing.as_ref().is_some_and(|(puts, _)| puts.contains_key(&key));
        if !fresh || being_written {
            self.dead.insert(key);
        }
    }

    /// A page that the page store may not have yet.
    pub(crate) fn get(&self, key: &SpillKey) -> Option<Bytes> {
        self.fresh.get(key).cloned()
    }

    /// Cuts: what is to be written as of this moment.
    pub(super) fn begin(&mut self) -> SpillChanges {
        let mut dead = std::mem::take(&mut self.dead);
        dead.retain(|key| !self.fresh.contains_key(key));
        let mut deletes: Vec<_> = dead.into_iter().collect();
        deletes.sort_unstable_by(|a, b| b.cmp(a));
        let mut puts: Vec<_> = self.fresh.iter().map(|(key, page)| (*key, page.clone())).collect();
        puts.sort_unstable_by_key(|(key, _)| std::cmp::Reverse(*key));
        self.writing = Some((self.fresh.clone(), deletes.clone()));
        SpillChanges { puts, deletes }
    }

    /// The page store has what [`begin`](Self::begin) gave.
    pub(super) fn committed(&mut self) {
        let (puts, _) = self.writing.take().unwrap_or_default();
        for (key, page) in puts {
            // Another page may have taken its place meanwhile.
            if self.fresh.get(&key).is_some_and(|fresh| fresh.as_ptr() == page.as_ptr()) {
                self.fresh.remove(&key);
            }
        }
    }

    /// It may not have it.
    pub(super) fn failed(&mut self) {
        let (_, deletes) = self.writing.take().unwrap_or_default();
        self.dead.extend(deletes);
    }
}

impl PageMap for Spill {
    fn begin_checkpoint(&mut self) {
        self.due = self.begin();
    }

    fn capture(&mut self, budget: &mut Budget) -> bool {
        while budget.entries > 0
            && budget.bytes > 0
            && let Some((key, page)) = self.due.next()
        {
            budget.entries -= 1;
            budget.bytes = budget.bytes.saturating_sub(page.as_ref().map_or(0, Bytes::len));
            self.captured.push(PageChange { key: key.stored(), page: page.map(|page| page.to_vec()) });
        }
        !self.due.is_empty()
    }

    fn take_captured(&mut self) -> Vec<PageChange> {
        std::mem::take(&mut self.captured)
    }

    fn checkpoint_committed(&mut self) {
        self.committed();
    }

    fn checkpoint_failed(&mut self) {
        (self.due, self.captured) = Default::default();
        self.failed();
    }

    /// Those in memory alone: the page store has the others.
    fn dump(&self) -> Dump {
        let mut dump: Dump = self.fresh.iter().map(|(key, page)| (key.stored(), page.to_vec())).collect();
        dump.sort_unstable();
        dump
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: SpillKey =
        SpillKey { kind: SpillKind::Fragmented, partition: PartitionId(2), first: Offset(0), number: 0 };

    /// What a page store holds after a checkpoint.
    fn write(changes: SpillChanges, store: &mut FxHashMap<SpillKey, Bytes>) {
        store.extend(changes.puts);
        changes.deletes.iter().for_each(|key| drop(store.remove(key)));
    }

    fn checkpoint(spill: &mut Spill, store: &mut FxHashMap<SpillKey, Bytes>) {
        write(spill.begin(), store);
        spill.committed();
    }

    /// As when a partition is deleted and made again under its number.
    #[test]
    fn a_page_that_comes_again_is_kept() {
        let (mut spill, mut store) = (Spill::default(), FxHashMap::default());
        spill.put(KEY, b"old".to_vec());
        checkpoint(&mut spill, &mut store);
        spill.remove(KEY);
        spill.put(KEY, b"new".to_vec());
        checkpoint(&mut spill, &mut store);
        assert_eq!(store.get(&KEY).map(|page| &page[..]), Some(&b"new"[..]));
        spill.remove(KEY);
        spill.put(KEY, b"newer".to_vec());
        spill.remove(KEY);
        checkpoint(&mut spill, &mut store);
        assert_eq!(store.len(), 0, "it has gone after all");
    }

    #[test]
    fn one_that_comes_again_while_it_is_written_is_written_again() {
        let (mut spill, mut store) = (Spill::default(), FxHashMap::default());
        spill.put(KEY, b"old".to_vec());
        let changes = spill.begin();
        spill.remove(KEY);
        spill.put(KEY, b"new".to_vec());
        write(changes, &mut store);
        spill.committed();
        assert_eq!(spill.get(&KEY).as_deref(), Some(&b"new"[..]));
        checkpoint(&mut spill, &mut store);
        assert_eq!((store.get(&KEY).map(|page| &page[..]), spill.get(&KEY)), (Some(&b"new"[..]), None));
    }
}

//! The journal's own tables in the page store: one value a segment, in as many pages as it takes.

use std::collections::BTreeMap;

use sabir_journal::pages::{MAX_PAGE, PageBatch, PageError, PageStore};
use sabir_journal::{LocalTables, SegmentNo, SegmentTable};
use sabir_model::Sequence;

use crate::state::prefixes;

/// What of the tables the page store has: a table that is stored up to its segment's last block does not change.
#[derive(Debug, Default)]
pub(super) struct StoredTables {
    segments: BTreeMap<SegmentNo, Stored>,
    /// As it will be when the checkpoint under way is committed.
    next: Option<BTreeMap<SegmentNo, Stored>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stored {
    last: Sequence,
    pages: u16,
}

/// Prefix · segment · number of the page, big-endian.
fn key(no: SegmentNo, page: u16) -> Vec<u8> {
    [prefixes::TABLES, &no.0.to_be_bytes(), &page.to_be_bytes()].concat()
}

fn bad(key: &[u8], detail: &str) -> PageError {
    PageError::Undecodable { key: key.to_vec(), detail: detail.to_owned() }
}

impl StoredTables {
    /// The tables of the last checkpoint, which was of block `through`.
    pub(super) fn load(
        store: &dyn PageStore,
        through: Sequence,
    ) -> Result<(Self, Option<LocalTables>), PageError> {
        let mut parts = BTreeMap::<SegmentNo, (Vec<u8>, u16)>::new();
        store.scan(prefixes::TABLES, &[], &mut |key, page| {
            let no = key.get(1..9).and_then(|no| no.try_into().ok());
            let no = no.ok_or_else(|| bad(key, "not a segment's key"))?;
            let (bytes, pages) = parts.entry(SegmentNo(u64::from_be_bytes(no))).or_default();
            bytes.extend_from_slice(page);
            *pages += 1;
            Ok(std::ops::ControlFlow::Continue(()))
        })?;
        let mut stored = Self::default();
        let mut segments = Vec::with_capacity(parts.len());
        for (no, (bytes, pages)) in parts {
            let table = SegmentTable::decode(&bytes).map_err(|e| bad(&key(no, 0), &e.to_string()))?;
            stored.segments.insert(no, Stored { last: table.last(), pages });
            segments.push(table);
        }
        let known = through != Sequence::NONE;
        Ok((stored, known.then_some(LocalTables { through, segments })))
    }

    /// Adds what changed to a checkpoint's batch.
    pub(super) fn put(&mut self, tables: &LocalTables, batch: &mut PageBatch) {
        let mut next = BTreeMap::new();
        for table in &tables.segments {
            let no = table.no();
            let before = self.segments.get(&no).copied();
            let stored = match before {
                Some(stored) if stored.last == table.last() => stored,
                _ => put_table(table, before, batch),
            };
            next.insert(no, stored);
        }
        for (no, stored) in &self.segments {
            if !next.contains_key(no) {
                (0..stored.pages).for_each(|page| batch.delete(key(*no, page)));
            }
        }
        self.next = Some(next);
    }

    /// The batch is committed.
    pub(super) fn committed(&mut self) {
        if let Some(next) = self.next.take() {
            self.segments = next;
        }
    }
}

fn put_table(table: &SegmentTable, before: Option<Stored>, batch: &mut PageBatch) -> Stored {
    let mut bytes = Vec::new();
    table.encode(&mut bytes);
    let mut pages = 0;
    for page in bytes.chunks(MAX_PAGE) {
        batch.put(key(table.no(), pages), page.to_vec());
        pages += 1;
    }
    let had = before.map_or(0, |stored| stored.pages);
    (pages..had).for_each(|page| batch.delete(key(table.no(), page)));
    Stored { last: table.last(), pages }
}

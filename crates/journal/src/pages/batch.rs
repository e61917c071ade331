//! What a transaction changes.

use super::{MAX_KEY, MAX_PAGE, PageError};

/// A page to put, or `None` to delete what is under the key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageChange {
    /// The key.
    pub key: Vec<u8>,
    /// The new page.
    pub page: Option<Vec<u8>>,
}

/// Changes that are put into a transaction together. Of two changes of one key the later one counts.
#[derive(Debug, Clone, Default)]
pub struct PageBatch {
    changes: Vec<PageChange>,
    bytes: usize,
}

impl PageBatch {
    /// Puts a page, over what is there.
    pub fn put(&mut self, key: Vec<u8>, page: Vec<u8>) {
        self.push(PageChange { key, page: Some(page) });
    }

    /// Deletes a page; one that is not there is as good as deleted.
    pub fn delete(&mut self, key: Vec<u8>) {
        self.push(PageChange { key, page: None });
    }

    /// Adds changes, such as [`Paged::take_captured`](super::Paged::take_captured) gives.
    pub fn extend(&mut self, changes: impl IntoIterator<Item = PageChange>) {
        changes.into_iter().for_each(|change| self.push(change));
    }

    fn push(&mut self, change: PageChange) {
        self.bytes += change.key.len() + change.page.as_ref().map_or(0, Vec::len);
        self.changes.push(change);
    }

    /// Bytes of keys and pages.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// About how much memory it takes, in bytes.
    pub fn memory(&self) -> usize {
        /// Two allocations of each change, rounded up.
        const ALLOCATIONS: usize = 32;
        self.bytes + self.changes.len() * (size_of::<PageChange>() + ALLOCATIONS)
    }

    /// How many changes it has.
    pub fn len(&self) -> usize {
        self.changes.len()
    }

    /// Whether it changes nothing.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// The changes by key, one a key, each within the limits.
    pub(super) fn sorted(&self) -> Result<Vec<&PageChange>, PageError> {
        for change in &self.changes {
            let page = change.page.as_ref().map_or(0, Vec::len);
            if change.key.len() > MAX_KEY || page > MAX_PAGE {
                return Err(PageError::TooLarge { key: change.key.len(), page });
            }
        }
        // Reversed before the stable sort, so that the later of two stands first and is the one that is kept.
        let mut changes: Vec<_> = self.changes.iter().rev().collect();
        changes.sort_by(|a, b| a.key.cmp(&b.key));
        changes.dedup_by(|later, kept| later.key == kept.key);
        Ok(changes)
    }
}

//! Which pages changed.

use std::collections::BTreeSet;

/// Numbers of pages to be written again. One change after the other mostly concerns the same page.
#[derive(Debug, Default)]
pub(super) struct DirtyBlocks {
    blocks: BTreeSet<u64>,
    last: Option<u64>,
}

impl DirtyBlocks {
    pub fn insert(&mut self, block: u64) {
        if self.last != Some(block) {
            self.last = Some(block);
            self.blocks.insert(block);
        }
    }

    pub fn take(&mut self) -> BTreeSet<u64> {
        self.last = None;
        std::mem::take(&mut self.blocks)
    }

    pub fn is_empty(&self) -> bool {
        self.blocks.is_empty()
    }

    pub fn len(&self) -> usize {
        self.blocks.len()
    }
}

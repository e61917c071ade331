//! What requests under way may add to what is stored. It is judged before their entries are pushed, so that none is refused that is in
//! the journal already; counted until they are applied, many at once cannot pass together where one could.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

/// What all requests under way may add.
#[derive(Debug, Default)]
pub(super) struct Underway {
    bytes: AtomicUsize,
    groups: AtomicUsize,
}

/// The part of one request, until its entries are applied or never will be.
#[derive(Debug)]
pub(super) struct Share {
    all: Arc<Underway>,
    bytes: usize,
    groups: usize,
}

impl Underway {
    /// Counts what a request may add. What the others add is to be looked up after that, and the projection last: what is applied meanwhile
    /// is then counted twice, and not never.
    pub(super) fn begin(self: &Arc<Self>, bytes: usize, groups: usize) -> Share {
        self.bytes.fetch_add(bytes, SeqCst);
        self.groups.fetch_add(groups, SeqCst);
        Share { all: self.clone(), bytes, groups }
    }

    /// Bytes of groups and positions.
    pub(super) fn bytes(&self) -> usize {
        self.bytes.load(SeqCst)
    }

    /// Groups that are not stored yet.
    pub(super) fn groups(&self) -> usize {
        self.groups.load(SeqCst)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.all.bytes.fetch_sub(self.bytes, SeqCst);
        self.all.groups.fetch_sub(self.groups, SeqCst);
    }
}

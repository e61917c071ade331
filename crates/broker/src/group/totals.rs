//! What the drivers of all shards count together, for the bounds that hold for all groups of a node. A driver counts under its own lock; of
//! what others count at that moment it may miss one request each.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst};

use super::addresses::Addresses;

#[derive(Debug, Default)]
pub(super) struct Totals {
    member_bytes: AtomicUsize,
    pending_bytes: AtomicUsize,
    unstored: AtomicUsize,
    unstored_bytes: AtomicUsize,
    only_ids: AtomicUsize,
    refused: AtomicU64,
    addresses: Addresses,
    given: AtomicU64,
}

impl Totals {
    /// What the members of all groups brought, in bytes.
    pub(super) fn member_bytes(&self) -> usize {
        self.member_bytes.load(SeqCst)
    }

    /// The same by the addresses of the clients that made the groups.
    pub(super) fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// What ids take that were given out and have not come back.
    pub(super) fn pending_bytes(&self) -> usize {
        self.pending_bytes.load(SeqCst)
    }

    /// Machines of groups that no table has yet.
    pub(super) fn unstored(&self) -> usize {
        self.unstored.load(SeqCst)
    }

    /// What they will take when they are stored.
    pub(super) fn unstored_bytes(&self) -> usize {
        self.unstored_bytes.load(SeqCst)
    }

    /// Groups that are there for ids alone that were given out.
    pub(super) fn only_ids(&self) -> usize {
        self.only_ids.load(SeqCst)
    }

    /// Requests refused for want of memory.
    pub(super) fn refused(&self) -> u64 {
        self.refused.load(SeqCst)
    }

    /// A group takes other bytes than before: those of its members, and those of ids.
    pub(super) fn recount(&self, (members, pending): (usize, usize), before: (usize, usize)) {
        self.member_bytes.fetch_add(members.wrapping_sub(before.0), SeqCst);
        self.pending_bytes.fetch_add(pending.wrapping_sub(before.1), SeqCst);
    }

    /// A group has nothing but ids that were given out, or has it no more.
    pub(super) fn recount_only_ids(&self, now: bool, before: bool) {
        self.only_ids.fetch_add(usize::from(now).wrapping_sub(before.into()), SeqCst);
    }

    pub(super) fn add_unstored(&self, bytes: usize) {
        self.unstored.fetch_add(1, SeqCst);
        self.unstored_bytes.fetch_add(bytes, SeqCst);
    }

    pub(super) fn take_unstored(&self, bytes: usize) {
        self.unstored.fetch_sub(1, SeqCst);
        self.unstored_bytes.fetch_sub(bytes, SeqCst);
    }

    /// A number for an id that is given out: those of later ones are higher, whichever home gives them.
    pub(super) fn next_given(&self) -> u64 {
        self.given.fetch_add(1, SeqCst)
    }

    pub(super) fn refuse(&self) {
        self.refused.fetch_add(1, SeqCst);
    }
}

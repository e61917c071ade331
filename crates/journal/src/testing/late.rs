//! A replicator that commits late and cuts.

use std::os::fd::RawFd;
use std::sync::Arc;

use sabir_model::{Sequence, Term};

use crate::block::Block;
use crate::disk::WakeFn;
use crate::error::{AppendError, CutError, JournalError};
use crate::journal::Journal;
use crate::replicator::{Event, Priority, Replicator, Ticket};

/// How a [`LateReplicator`] behaves.
#[derive(Debug, Clone, Copy)]
pub struct LateOptions {
    /// Seed of all it decides by itself.
    pub seed: u64,
    /// Whether it commits and cuts by itself, at `tick` and `advance`; else only when told.
    pub auto: bool,
    /// Of a thousand ticks with an uncommitted tail, how many cut a part of it; 0 for none.
    pub cut_per_mille: u32,
}

/// Commits late, out of step with the disk, and cuts uncommitted tails, as a quorum may.
#[derive(Debug)]
pub struct LateReplicator;

impl LateReplicator {
    /// Takes office over an opened journal. What was recovered beyond the slot's lower bound commits late too.
    ///
    /// # Errors
    /// The slot could not be written.
    pub fn start(_journal: Arc<Journal>, _options: LateOptions) -> Result<Arc<Self>, JournalError> {
        unimplemented!()
    }

    /// Commits up to `blocks` more.
    pub fn commit(&self, _blocks: u64) {
        unimplemented!()
    }

    /// Commits all that is appended.
    pub fn commit_all(&self) {
        unimplemented!()
    }
}

impl Replicator for LateReplicator {
    fn append(&self, _block: Block) -> Result<Ticket, AppendError> {
        unimplemented!()
    }
    fn admits(&self, _priority: Priority) -> bool {
        unimplemented!()
    }
    fn ready(&self, _open_bytes: usize) -> bool {
        unimplemented!()
    }
    fn advance(&self) {
        unimplemented!()
    }
    fn poll(&self, _out: &mut Vec<Event>) {
        unimplemented!()
    }
    fn tick(&self, _now_ms: u64) {
        unimplemented!()
    }
    fn committed(&self) -> Sequence {
        unimplemented!()
    }
    fn term(&self) -> Term {
        unimplemented!()
    }
    fn is_leader(&self) -> bool {
        unimplemented!()
    }
    fn cut(&self, _after: Sequence) -> Result<(), CutError> {
        unimplemented!()
    }
    fn event_fd(&self) -> Option<RawFd> {
        unimplemented!()
    }
    fn set_waker(&self, _wake: WakeFn) {
        unimplemented!()
    }
}

//! The replicator of one machine: what its own disk has is final.

use std::os::fd::RawFd;
use std::sync::Arc;

use sabir_model::{Sequence, Term};

use crate::block::Block;
use crate::disk::WakeFn;
use crate::error::{AppendError, CutError, JournalError};
use crate::journal::Journal;
use crate::replicator::{Event, Priority, Replicator, Ticket};

/// Commits a block when the disk has it as durably as it asked, and everything before it.
#[derive(Debug)]
pub struct Solo;

impl Solo {
    /// Takes office over an opened journal: everything recovered is committed, and the term is raised and synced.
    ///
    /// # Errors
    /// The slot could not be written.
    pub fn start(_journal: Arc<Journal>) -> Result<Arc<Self>, JournalError> {
        unimplemented!()
    }
}

impl Replicator for Solo {
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

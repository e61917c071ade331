//! The replicator of one machine: what its own disk has is final.

use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use sabir_model::{Sequence, Term};

use crate::block::Block;
use crate::disk::WakeFn;
use crate::error::{BlockAppendError, CutError, JournalError};
use sabir_base::drain_loop::DrainLoop;

use crate::journal::Journal;
use crate::pending::Pending;
use crate::replicator::{Event, Priority, Replicator, Ticket};

/// Commits a block when the disk has it as durably as it asked, and everything before it.
#[derive(Debug)]
pub struct Solo {
    journal: Arc<Journal>,
    /// Held across an append, so that blocks stand here in the order of their sequences.
    pending: Mutex<Pending>,
    term: AtomicU64,
    completions: DrainLoop,
}

impl Solo {
    /// Takes office over an opened journal: everything recovered is committed, and the term is raised and synced.
    ///
    /// # Errors
    /// The slot could not be written.
    pub fn start(journal: Arc<Journal>) -> Result<Arc<Self>, JournalError> {
        journal.commit(journal.last());
        let term = journal.enter_term(journal.term().next())?;
        let mut pending = Pending::default();
        pending.lead(term);
        Ok(Arc::new(Self {
            journal,
            pending: Mutex::new(pending),
            term: AtomicU64::new(term.0),
            completions: DrainLoop::default(),
        }))
    }

    /// Commits what the disk has. Returns whether the journal turns out to have stopped.
    fn settle(&self) -> bool {
        let mut pending = self.pending.lock();
        if let Some(last) = pending.commit(self.journal.acked()) {
            self.journal.commit(last);
        }
        self.journal.stopped().is_some_and(|error| pending.stop(error))
    }
}

impl Replicator for Solo {
    fn append(&self, block: Block) -> Result<Ticket, BlockAppendError> {
        let appended = {
            let mut pending = self.pending.lock();
            let term = self.term();
            let appended = self.journal.append(block, term);
            appended.map(|(sequence, content)| pending.push(sequence, term, content))
        };
        if matches!(appended, Err(BlockAppendError::Stopped(_))) && self.settle() {
            self.journal.wake();
        }
        appended
    }

    fn admits(&self, priority: Priority) -> bool {
        self.journal.admits(priority)
    }

    fn ready(&self, open_bytes: usize) -> bool {
        self.journal.ready(open_bytes)
    }

    fn advance(&self) {
        self.completions.run(|| {
            self.journal.advance();
            self.settle();
        });
    }

    fn poll(&self, out: &mut Vec<Event>) {
        self.pending.lock().poll(out);
    }

    fn tick(&self, now_ms: u64) {
        self.journal.tick(now_ms);
        if self.settle() {
            self.journal.wake();
        }
    }

    fn committed(&self) -> Sequence {
        self.journal.committed()
    }

    fn term(&self) -> Term {
        Term(self.term.load(Ordering::Acquire))
    }

    fn is_leader(&self) -> bool {
        true
    }

    fn cut(&self, after: Sequence) -> Result<(), CutError> {
        let mut pending = self.pending.lock();
        let term = self.term().next();
        let (last, result) = (self.journal.last(), self.journal.cut(after, term));
        if result.is_ok() && self.journal.last() < last {
            pending.cut(after);
            self.term.store(term.0, Ordering::Release);
        }
        drop(pending);
        self.journal.wake();
        result
    }

    fn event_fd(&self) -> Option<RawFd> {
        self.journal.disk().event_fd()
    }

    fn set_waker(&self, wake: WakeFn) {
        self.journal.set_waker(wake);
    }
}

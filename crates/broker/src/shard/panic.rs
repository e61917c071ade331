//! What becomes of a shard while something panicked that held one of its locks, or was in one of its loops.
//!
//! What the lock guarded may be half changed, so the shard stops, by name: it takes no more writes, those that wait are answered
//! with a storage error, nothing is checkpointed, and the next start recovers it from the journal. Reads go on, unless the panic
//! came from within the applying of an entry: then the projections are not to be believed either.

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use sabir_base::panics;
use sabir_model::ShardFailure;
use tracing::error;

use super::Shard;
use super::drive::Worker;

/// Stops its shard if it is dropped by a panic. To be made before the lock is taken, so that it is dropped when that is free.
pub(crate) struct Guarded<'a> {
    shard: &'a Shard,
    doing: &'static str,
    /// What is dropped by a panic from elsewhere may still give back what it has: that is no panic of the shard's.
    is_unwinding: bool,
}

impl Drop for Guarded<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() && !self.is_unwinding {
            self.shard.panicked(self.doing);
        }
    }
}

impl Shard {
    /// For callers whose panic ends elsewhere, as a connection's does.
    pub(crate) fn guard(&self, doing: &'static str) -> Guarded<'_> {
        Guarded { shard: self, doing, is_unwinding: std::thread::panicking() }
    }

    /// Does what no caller waits for, and so ends the panic, too; whether there was none.
    pub(crate) fn contain(&self, doing: &'static str, work: impl FnOnce()) -> bool {
        let done = panics::contain(work).is_some();
        if !done {
            self.panicked(doing);
        }
        done
    }

    /// Marks alone are set here: the thread that unwinds may hold other locks, which answering the waiters would take.
    fn panicked(&self, doing: &'static str) {
        error!(shard = %self.id, doing, "a panic: the shard stops, it takes no more writes; a restart recovers it");
        self.stopped.store(true, SeqCst);
        self.applies.panicked.store(true, SeqCst);
        self.applies.signal.raiser().raise();
    }

    /// Answers the waiters, once, on the thread that drives.
    pub(super) fn settle_panic(&self, worker: &mut Worker) {
        if self.applies.panicked.load(SeqCst) && self.applies.panicked.swap(false, SeqCst) {
            self.journal.abandon(Arc::from("a panic"));
            self.fail_all(worker, ShardFailure::StorageError);
        }
    }
}

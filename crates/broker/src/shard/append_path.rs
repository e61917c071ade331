//! The append path: from a call, by way of the open block, to the replicator.

use std::sync::Weak;
use std::sync::atomic::{AtomicBool, AtomicUsize};

use parking_lot::Mutex;
use sabir_base::drain_loop::DrainLoop;

use super::open::OpenBlocks;
use super::submit::InFlight;
use crate::answer::Sleeper;

/// What takes a shard's entries and sends them on their way. The open block's lock and that of the projections are never held together.
pub(super) struct AppendPath {
    pub(super) open: Mutex<OpenBlocks>,
    /// What waits in open blocks, in bytes: for looking without the lock.
    pub(super) waiting: AtomicUsize,
    /// Tasks that wait until less does.
    pub(super) room: Mutex<Vec<Weak<Mutex<Sleeper>>>>,
    pub(super) submitting: DrainLoop,
    /// Whether a thread is in that loop, and may have a block in hand that no other thread sees in flight yet.
    pub(super) is_submitting: AtomicBool,
    /// The time of the last block submitted; only the thread that is in that loop locks it.
    pub(super) submitter: Mutex<i64>,
    /// Blocks that the replicator has, and the waiters of their entries.
    pub(super) in_flight: Mutex<InFlight>,
}

impl AppendPath {
    /// One that goes on from a block of that time.
    pub(super) fn new(open: OpenBlocks, last_ms: i64) -> Self {
        Self {
            open: Mutex::new(open),
            waiting: AtomicUsize::new(0),
            room: Mutex::default(),
            submitting: DrainLoop::default(),
            is_submitting: AtomicBool::new(false),
            submitter: Mutex::new(last_ms),
            in_flight: Mutex::new(InFlight::default()),
        }
    }
}

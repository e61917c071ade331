//! What a load came to so far.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use sabir_frontend::client::{LoadCounts, LoadProgress, LoadReport};

use super::super::Error;

/// Shared by all clients of a load.
#[derive(Debug, Clone)]
pub(super) struct Tally {
    counts: Arc<Mutex<LoadCounts>>,
    progress: &'static LoadProgress,
    started: Instant,
    /// Nanoseconds since the start.
    warm_from: u64,
}

impl Tally {
    pub fn new(progress: &'static LoadProgress, warmup: Duration) -> Self {
        let (counts, warm_from) = (Arc::default(), warmup.as_nanos() as u64);
        Self { counts, progress, started: Instant::now(), warm_from }
    }

    /// When the load began.
    pub fn started(&self) -> Instant {
        self.started
    }

    /// Nanoseconds since the start.
    pub fn now(&self) -> u64 {
        self.started.elapsed().as_nanos() as u64
    }

    /// Messages of `size` bytes arrived; each was due at its stamp.
    pub fn arrived(&self, stamps: &[u64], size: usize) {
        let now = self.now();
        let count = stamps.len() as u64;
        self.progress.messages.fetch_add(count, Ordering::Relaxed);
        self.progress.bytes.fetch_add(count * size as u64, Ordering::Relaxed);
        let mut counts = self.counts.lock();
        // Many messages share a stamp: one step for each row of equal ones.
        for row in stamps.chunk_by(|a, b| a == b) {
            if row[0] < self.warm_from {
                continue;
            }
            let count = row.len() as u64;
            counts.done(count, count * size as u64, now.saturating_sub(row[0]), now);
        }
    }

    /// One answer brought so many messages.
    pub fn fetched(&self, count: u64, bytes: u64, took: Duration) {
        let now = self.now();
        self.progress.messages.fetch_add(count, Ordering::Relaxed);
        self.progress.bytes.fetch_add(bytes, Ordering::Relaxed);
        // How long the broker waits when there is nothing says nothing about it.
        if count == 0 || now < self.warm_from {
            return;
        }
        self.counts.lock().fetched(count, bytes, took.as_nanos() as u64, now);
    }

    /// A request failed for good.
    pub fn failed(&self, error: &Error) {
        self.progress.errors.fetch_add(1, Ordering::Relaxed);
        self.counts.lock().failed(|| error.to_string());
    }

    pub fn report(&self) -> LoadReport {
        self.counts.lock().report(self.warm_from)
    }
}

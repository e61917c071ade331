//! What a load came to so far.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use parking_lot::Mutex;
use sabir_frontend::client::{LoadProgress, LoadReport};

use super::super::Error;

/// The longest latency that is told apart.
const LONGEST_US: u64 = 600_000_000;

/// Shared by all clients of a load.
#[derive(Debug, Clone)]
pub(super) struct Tally {
    inner: Arc<Mutex<Inner>>,
    progress: &'static LoadProgress,
    started: Instant,
    /// Nanoseconds since the start.
    warm_from: u64,
}

#[derive(Debug)]
struct Inner {
    messages: u64,
    bytes: u64,
    errors: u64,
    first_error: Option<String>,
    /// Nanoseconds since the start.
    last: u64,
    latency_us: Histogram<u64>,
}

impl Tally {
    pub fn new(progress: &'static LoadProgress, warmup: Duration) -> Self {
        let latency_us =
            Histogram::new_with_bounds(1, LONGEST_US, 3).expect("bounds that the library allows");
        let inner = Inner { messages: 0, bytes: 0, errors: 0, first_error: None, last: 0, latency_us };
        Self {
            inner: Arc::new(Mutex::new(inner)),
            progress,
            started: Instant::now(),
            warm_from: warmup.as_nanos() as u64,
        }
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
        let mut inner = self.inner.lock();
        // Many messages share a stamp: one step for each row of equal ones.
        for row in stamps.chunk_by(|a, b| a == b) {
            if row[0] < self.warm_from {
                continue;
            }
            let count = row.len() as u64;
            inner.messages += count;
            inner.bytes += count * size as u64;
            inner.latency_us.saturating_record_n(micros(now.saturating_sub(row[0])), count);
            inner.last = now;
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
        let mut inner = self.inner.lock();
        inner.messages += count;
        inner.bytes += bytes;
        inner.latency_us.saturating_record(micros(took.as_nanos() as u64));
        inner.last = now;
    }

    /// A request failed for good.
    pub fn failed(&self, error: &Error) {
        self.progress.errors.fetch_add(1, Ordering::Relaxed);
        let mut inner = self.inner.lock();
        inner.errors += 1;
        inner.first_error.get_or_insert_with(|| error.to_string());
    }

    pub fn report(&self) -> LoadReport {
        let inner = self.inner.lock();
        LoadReport {
            messages: inner.messages,
            bytes: inner.bytes,
            errors: inner.errors,
            first_error: inner.first_error.clone(),
            elapsed: Duration::from_nanos(inner.last.saturating_sub(self.warm_from)),
            latency_us: inner.latency_us.clone(),
        }
    }
}

fn micros(nanos: u64) -> u64 {
    (nanos / 1000).max(1)
}

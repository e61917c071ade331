//! Load on a broker.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use super::ClientOptions;

/// The longest latency that is told apart.
const LONGEST_US: u64 = 600_000_000;

/// What kind of load.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Load {
    /// Publish; latency is from when a message was due to its acknowledgement.
    Produce,
    /// Read what is there; latency is that of a fetch.
    Consume,
    /// Publish and read at once; latency is from when a message was due to when it was read.
    EndToEnd,
}

/// The load to put on a broker.
#[derive(Debug, Clone, PartialEq)]
pub struct LoadPlan {
    /// Which kind.
    pub load: Load,
    /// The topic.
    pub topic: String,
    /// Bytes of a message's content.
    pub size: usize,
    /// Messages a second, over all clients; as many as go where absent.
    pub rate: Option<f64>,
    /// Ends after so many messages, over all clients.
    pub count: Option<u64>,
    /// Ends after this time.
    pub duration: Option<Duration>,
    /// Left out of the figures at the beginning.
    pub warmup: Duration,
    /// Connections that work at once.
    pub clients: usize,
    /// What is said of [`Connector::load_options`](super::Connector::load_options).
    pub options: ClientOptions,
}

/// Counters that rise while a load runs, and the means to end it.
#[derive(Debug, Default)]
pub struct LoadProgress {
    /// Messages done.
    pub messages: AtomicU64,
    /// Bytes of content done.
    pub bytes: AtomicU64,
    /// Requests that failed.
    pub errors: AtomicU64,
    /// Set to end the load early, with the figures so far.
    pub stop: AtomicBool,
}

/// What a load came to.
#[derive(Debug, Clone)]
pub struct LoadReport {
    /// Messages after the warm-up.
    pub messages: u64,
    /// Bytes of their content.
    pub bytes: u64,
    /// Requests that failed.
    pub errors: u64,
    /// What the first of them said.
    pub first_error: Option<String>,
    /// From the end of the warm-up to the last answer.
    pub elapsed: Duration,
    /// Latencies in microseconds.
    pub latency_us: Histogram<u64>,
}

/// The count of a load whose clients share a thread: what is left to do, and what was done. Moments are nanoseconds since it began.
#[derive(Debug)]
pub struct LoadTally {
    progress: &'static LoadProgress,
    started: Instant,
    /// No message counts that was due before.
    warm_from: u64,
    /// When nothing more is begun.
    ends: Option<Duration>,
    left: Cell<u64>,
    counts: RefCell<LoadCounts>,
}

/// What messages and failures have come to. Moments are nanoseconds since the load began.
#[derive(Debug)]
pub struct LoadCounts {
    messages: u64,
    bytes: u64,
    errors: u64,
    first_error: Option<String>,
    /// When the last message was done.
    last: u64,
    latency_us: Histogram<u64>,
}

impl Default for LoadCounts {
    fn default() -> Self {
        let latency_us =
            Histogram::new_with_bounds(1, LONGEST_US, 3).expect("bounds that the library allows");
        Self { messages: 0, bytes: 0, errors: 0, first_error: None, last: 0, latency_us }
    }
}

impl LoadCounts {
    /// So many messages, of so many bytes together, are done at `now`, each after so many nanoseconds.
    pub fn done(&mut self, messages: u64, bytes: u64, took: u64, now: u64) {
        self.add(messages, bytes, now);
        self.latency_us.saturating_record_n((took / 1000).max(1), messages);
    }

    /// One answer, after so many nanoseconds, brought them.
    pub fn fetched(&mut self, messages: u64, bytes: u64, took: u64, now: u64) {
        self.add(messages, bytes, now);
        self.latency_us.saturating_record((took / 1000).max(1));
    }

    fn add(&mut self, messages: u64, bytes: u64, now: u64) {
        self.messages += messages;
        self.bytes += bytes;
        self.last = now;
    }

    /// A request failed.
    pub fn failed(&mut self, why: impl FnOnce() -> String) {
        self.errors += 1;
        self.first_error.get_or_insert_with(why);
    }

    /// What they come to where nothing counts before `warm_from`.
    pub fn report(&self, warm_from: u64) -> LoadReport {
        LoadReport {
            messages: self.messages,
            bytes: self.bytes,
            errors: self.errors,
            first_error: self.first_error.clone(),
            elapsed: Duration::from_nanos(self.last.saturating_sub(warm_from)),
            latency_us: self.latency_us.clone(),
        }
    }
}

impl LoadTally {
    /// That of a load which begins now, counted into `progress`, too.
    pub fn new(plan: &LoadPlan, progress: &'static LoadProgress) -> Self {
        Self {
            progress,
            started: Instant::now(),
            warm_from: plan.warmup.as_nanos() as u64,
            ends: plan.duration.map(|duration| plan.warmup + duration),
            left: Cell::new(plan.count.unwrap_or(u64::MAX)),
            counts: RefCell::default(),
        }
    }

    /// The present moment.
    pub fn now(&self) -> u64 {
        self.started.elapsed().as_nanos() as u64
    }

    /// Takes up to so many messages off what is left; none once the load is over.
    pub fn take(&self, wanted: u64) -> u64 {
        if self.is_over() {
            return 0;
        }
        let left = self.left.get();
        self.left.set(left.saturating_sub(wanted));
        left.min(wanted)
    }

    /// Whether the load has had its time, or was told to end.
    pub fn is_over(&self) -> bool {
        self.progress.stop.load(Relaxed) || self.ends.is_some_and(|end| self.started.elapsed() >= end)
    }

    /// Whether nothing more is to be begun.
    pub fn is_spent(&self) -> bool {
        self.is_over() || self.left.get() == 0
    }

    /// A message of so many bytes is done at `now` that was due at `stamp`.
    pub fn done(&self, bytes: u64, stamp: u64, now: u64) {
        self.progress.messages.fetch_add(1, Relaxed);
        self.progress.bytes.fetch_add(bytes, Relaxed);
        if stamp >= self.warm_from {
            self.counts.borrow_mut().done(1, bytes, now.saturating_sub(stamp), now);
        }
    }

    /// A message failed.
    pub fn failed(&self, why: &str) {
        self.progress.errors.fetch_add(1, Relaxed);
        self.counts.borrow_mut().failed(|| why.to_owned());
    }

    /// What it has come to.
    pub fn report(&self) -> LoadReport {
        self.counts.borrow().report(self.warm_from)
    }
}

impl fmt::Display for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Load::Produce => "produce",
            Load::Consume => "consume",
            Load::EndToEnd => "e2e",
        })
    }
}

//! Load on a broker.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::Duration;

use super::ClientOptions;

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
    pub latency_us: hdrhistogram::Histogram<u64>,
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

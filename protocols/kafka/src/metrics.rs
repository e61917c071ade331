//! What the front end counts.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use sabir_base::metrics::{Exposition, Histogram};

use crate::wire::{ApiKey, ErrorCode};

/// Why the broker closed a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dropped {
    /// It said what cannot be answered.
    Protest(&'static str),
    /// A frame took too long to arrive.
    SlowWriter,
    /// It did not read what was sent to it.
    SlowReader,
    /// No request for too long.
    Idle,
    /// It no longer answers the system's questions whether it is there.
    Vanished,
    /// No memory was left for its incomplete frame, for the partitions it fetches, or for answers that it does not read.
    Memory,
    /// A batch sent without waiting for an answer was refused; closing is the only way to say so.
    RefusedUnanswered,
}

/// Keys run from 0 on.
const APIS: usize = ApiKey::DeleteShareGroupOffsets as usize + 1;
/// Codes run from -1 on.
const ERRORS: usize = ErrorCode::ALL.len();

const REASONS: [&str; 12] = [
    "foreign",
    "frame_size",
    "header",
    "unknown_api",
    "unknown_version",
    "body",
    "slow_writer",
    "slow_reader",
    "idle",
    "vanished",
    "memory",
    "refused_unanswered",
];

impl Dropped {
    pub fn label(self) -> &'static str {
        match self {
            Self::Protest(label) => label,
            Self::SlowWriter => "slow_writer",
            Self::SlowReader => "slow_reader",
            Self::Idle => "idle",
            Self::Vanished => "vanished",
            Self::Memory => "memory",
            Self::RefusedUnanswered => "refused_unanswered",
        }
    }
}

impl std::fmt::Display for Dropped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Protest(label) => label,
            Self::SlowWriter => "a frame took too long to arrive (net.frame_timeout)",
            Self::SlowReader => "what was sent to it was not read in time (net.write_timeout)",
            Self::Idle => "no request for too long (net.idle_timeout)",
            Self::Vanished => "it vanished without a word (net.keepalive)",
            Self::Memory => {
                "no memory is left for its incomplete frame, for the partitions it fetches, or for what it does not read \
                 (net.frame_memory)"
            }
            Self::RefusedUnanswered => "a batch sent with acks=0 was refused",
        })
    }
}

/// How many lines about one reason the log is given in [`WINDOW`].
const LINES: u32 = 10;
const WINDOW: Duration = Duration::from_secs(10);

/// What the log was told of one reason.
#[derive(Debug, Default)]
struct Said {
    since: Option<Instant>,
    lines: u32,
    unsaid: u64,
}

impl Said {
    /// How many times it was not said since the last time, if now it may be.
    fn may_say(&mut self, now: Instant) -> Option<u64> {
        if self.since.is_none_or(|since| now.saturating_duration_since(since) >= WINDOW) {
            (self.since, self.lines) = (Some(now), 0);
        }
        if self.lines == LINES {
            self.unsaid += 1;
            return None;
        }
        self.lines += 1;
        Some(std::mem::take(&mut self.unsaid))
    }
}

/// Counters since the start.
#[derive(Debug)]
pub(crate) struct Metrics {
    /// By API, then by error.
    requests: Vec<AtomicU64>,
    dropped: [AtomicU64; REASONS.len()],
    received: AtomicU64,
    sent: AtomicU64,
    bad_batches: AtomicU64,
    held_fetches: AtomicU64,
    /// How long requests of each API took, in microseconds.
    took: Box<[Histogram]>,
    said: [Mutex<Said>; REASONS.len()],
}

impl Default for Metrics {
    fn default() -> Self {
        let cells = APIS * ERRORS;
        Self {
            requests: std::iter::repeat_with(AtomicU64::default).take(cells).collect(),
            dropped: Default::default(),
            received: AtomicU64::default(),
            sent: AtomicU64::default(),
            bad_batches: AtomicU64::default(),
            held_fetches: AtomicU64::default(),
            took: std::iter::repeat_with(Histogram::default).take(APIS).collect(),
            said: Default::default(),
        }
    }
}

impl Metrics {
    /// Counts a request by the first error its answer carries, and how long that took.
    pub fn request(&self, api: ApiKey, error: ErrorCode, took: Duration) {
        self.requests[cell(api, error)].fetch_add(1, Relaxed);
        self.took[api as usize].record(took.as_micros() as u64);
    }

    /// Counts a connection that the broker closed. Where the log is to name it, gives how many before it were not named.
    pub fn dropped(&self, why: Dropped, now: Instant) -> Option<u64> {
        let reason = REASONS.iter().position(|label| *label == why.label());
        let reason = reason.expect("every reason is listed");
        self.dropped[reason].fetch_add(1, Relaxed);
        self.said[reason].lock().may_say(now)
    }

    /// Counts bytes read off sockets.
    pub fn received(&self, bytes: usize) {
        self.received.fetch_add(bytes as u64, Relaxed);
    }

    /// Counts bytes written to sockets.
    pub fn sent(&self, bytes: usize) {
        self.sent.fetch_add(bytes as u64, Relaxed);
    }

    /// Counts a produced batch that is malformed.
    pub fn bad_batch(&self) {
        self.bad_batches.fetch_add(1, Relaxed);
    }

    /// Counts a fetch that waits although a partition failed, since its client does not.
    pub fn held_fetch(&self) {
        self.held_fetches.fetch_add(1, Relaxed);
    }

    /// How often an API was answered so.
    #[cfg(test)]
    pub fn requests(&self, api: ApiKey, error: ErrorCode) -> u64 {
        self.requests[cell(api, error)].load(Relaxed)
    }

    /// Writes everything that is not zero.
    pub fn expose(&self, protocol: &str, out: &mut Exposition) {
        for &api in ApiKey::ALL {
            for &error in ErrorCode::ALL {
                let count = self.requests[cell(api, error)].load(Relaxed);
                if count > 0 {
                    let labels = [("protocol", protocol), ("api", api.name()), ("error", error.name())];
                    out.counter("sabir_requests", "Requests answered, by their first error.", &labels, count);
                }
            }
            let took = self.took[api as usize].snapshot();
            if took.counts.iter().any(|count| *count > 0) {
                let labels = [("protocol", protocol), ("api", api.name())];
                let help = "From when a request is taken up to its answer, waiting included.";
                out.histogram("sabir_request_seconds", help, &labels, 1e-6, &took);
            }
        }
        for (reason, count) in REASONS.iter().zip(&self.dropped) {
            let labels = [("protocol", protocol), ("reason", reason)];
            let help = "Connections that the broker closed.";
            out.counter("sabir_dropped_connections", help, &labels, count.load(Relaxed));
        }
        let labels = [("protocol", protocol)];
        let (received, sent) = (self.received.load(Relaxed), self.sent.load(Relaxed));
        out.counter("sabir_received_bytes", "Bytes read off connections.", &labels, received);
        out.counter("sabir_sent_bytes", "Bytes written to connections.", &labels, sent);
        let bad = self.bad_batches.load(Relaxed);
        out.counter("sabir_bad_batches", "Produced batches that are malformed.", &labels, bad);
        let help = "Fetches held back, since their client fetches over and over what fails.";
        out.counter("sabir_kafka_held_fetches", help, &[], self.held_fetches.load(Relaxed));
    }
}

fn cell(api: ApiKey, error: ErrorCode) -> usize {
    api as usize * ERRORS + (error.code() + 1) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_one_kind_is_a_few_lines_and_a_count() {
        let (metrics, began) = (Metrics::default(), Instant::now());
        let lines = (0..70).filter(|_| metrics.dropped(Dropped::Protest("foreign"), began).is_some()).count();
        assert_eq!(lines, 10);
        assert_eq!(metrics.dropped(Dropped::Idle, began), Some(0), "another kind has lines of its own");
        let later = began + Duration::from_secs(10);
        assert_eq!(metrics.dropped(Dropped::Protest("foreign"), later), Some(60));
        assert_eq!(metrics.dropped(Dropped::Protest("foreign"), later), Some(0));
    }

    #[test]
    fn every_api_and_error_has_a_counter_of_its_own() {
        let metrics = Metrics::default();
        for &api in ApiKey::ALL {
            for &error in ErrorCode::ALL {
                metrics.request(api, error, Duration::ZERO);
                assert_eq!(metrics.requests(api, error), 1, "{api} {error}");
            }
        }
    }

    #[test]
    fn what_was_counted_is_shown() {
        let metrics = Metrics::default();
        metrics.request(ApiKey::Fetch, ErrorCode::None, Duration::from_millis(3));
        metrics.request(ApiKey::Fetch, ErrorCode::OffsetOutOfRange, Duration::ZERO);
        metrics.dropped(Dropped::Idle, Instant::now());
        metrics.dropped(Dropped::Protest("body"), Instant::now());
        let mut out = Exposition::default();
        metrics.expose("kafka", &mut out);
        let text = out.render();
        for line in [
            "sabir_requests_total{protocol=\"kafka\",api=\"Fetch\",error=\"NONE\"} 1",
            "sabir_requests_total{protocol=\"kafka\",api=\"Fetch\",error=\"OFFSET_OUT_OF_RANGE\"} 1",
            "sabir_request_seconds_bucket{protocol=\"kafka\",api=\"Fetch\",le=\"0.004096\"} 2",
            "sabir_request_seconds_count{protocol=\"kafka\",api=\"Fetch\"} 2",
            "sabir_dropped_connections_total{protocol=\"kafka\",reason=\"idle\"} 1",
            "sabir_dropped_connections_total{protocol=\"kafka\",reason=\"body\"} 1",
            "sabir_dropped_connections_total{protocol=\"kafka\",reason=\"header\"} 0",
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
    }
}

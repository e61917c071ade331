//! What the front end counts.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use sabir_base::metrics::{Exposition, Histogram};

use crate::wire::{ApiKey, ErrorCode};

/// Keys run from 0 on.
const APIS: usize = ApiKey::DeleteShareGroupOffsets as usize + 1;
/// Codes run from -1 on.
const ERRORS: usize = ErrorCode::ALL.len();

/// Counters since the start.
#[derive(Debug)]
pub(crate) struct Metrics {
    /// By API, then by error.
    requests: Vec<AtomicU64>,
    bad_batches: AtomicU64,
    held_fetches: AtomicU64,
    unwaited_fetches: AtomicU64,
    too_large_batches: AtomicU64,
    /// How long requests of each API took, in microseconds.
    took: Box<[Histogram]>,
}

impl Default for Metrics {
    fn default() -> Self {
        let cells = APIS * ERRORS;
        Self {
            requests: std::iter::repeat_with(AtomicU64::default).take(cells).collect(),
            bad_batches: AtomicU64::default(),
            held_fetches: AtomicU64::default(),
            unwaited_fetches: AtomicU64::default(),
            too_large_batches: AtomicU64::default(),
            took: std::iter::repeat_with(Histogram::default).take(APIS).collect(),
        }
    }
}

impl Metrics {
    /// Counts a request by the first error its answer carries, and how long that took.
    pub fn request(&self, api: ApiKey, error: ErrorCode, took: Duration) {
        self.requests[cell(api, error)].fetch_add(1, Relaxed);
        self.took[api as usize].record(took.as_micros() as u64);
    }

    /// Counts a produced batch that is malformed.
    pub fn bad_batch(&self) {
        self.bad_batches.fetch_add(1, Relaxed);
    }

    /// Counts a fetch that waits although a partition failed, since its client does not.
    pub fn held_fetch(&self) {
        self.held_fetches.fetch_add(1, Relaxed);
    }

    /// Counts a fetch that does not wait for records, since no memory is left to wait with.
    pub fn unwaited_fetch(&self) {
        self.unwaited_fetches.fetch_add(1, Relaxed);
    }

    /// Counts a batch that is refused to its reader, since no memory would do for it.
    pub fn too_large_batch(&self) {
        self.too_large_batches.fetch_add(1, Relaxed);
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
        let labels = [("protocol", protocol)];
        let bad = self.bad_batches.load(Relaxed);
        out.counter("sabir_bad_batches", "Produced batches that are malformed.", &labels, bad);
        let help = "Fetches held back, since their client fetches over and over what fails.";
        out.counter("sabir_kafka_held_fetches", help, &[], self.held_fetches.load(Relaxed));
        let help = "Fetches answered before there were records or their time was up, since no memory was left to wait with.";
        out.counter("sabir_kafka_unwaited_fetches", help, &[], self.unwaited_fetches.load(Relaxed));
        let help = "Batches refused to their readers, since they take more memory than one may have.";
        out.counter("sabir_kafka_too_large_batches", help, &[], self.too_large_batches.load(Relaxed));
    }
}

fn cell(api: ApiKey, error: ErrorCode) -> usize {
    api as usize * ERRORS + (error.code() + 1) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let mut out = Exposition::default();
        metrics.expose("kafka", &mut out);
        let text = out.render();
        for line in [
            "sabir_requests_total{protocol=\"kafka\",api=\"Fetch\",error=\"NONE\"} 1",
            "sabir_requests_total{protocol=\"kafka\",api=\"Fetch\",error=\"OFFSET_OUT_OF_RANGE\"} 1",
            "sabir_request_seconds_bucket{protocol=\"kafka\",api=\"Fetch\",le=\"0.004096\"} 2",
            "sabir_request_seconds_count{protocol=\"kafka\",api=\"Fetch\"} 2",
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
    }
}

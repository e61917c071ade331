//! What is counted, and the text in which it is shown: OpenMetrics 1.0, or the older form of Prometheus (0.0.4).
//!
//! Counters are plain atomics beside what they count; nothing registers anywhere. When they are asked for, each part writes its
//! own into an [`Exposition`], which groups samples of one name, as the format demands.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Buckets of a [`Histogram`], each twice as wide as the one before.
pub const BUCKETS: usize = 28;

/// How often which magnitude was seen: bucket `i` counts values of at most `2^i` units, the last one all.
#[derive(Debug, Default)]
pub struct Histogram {
    counts: [AtomicU64; BUCKETS],
    sum: AtomicU64,
}

impl Histogram {
    /// Counts a value, in the unit of the histogram's choice (microseconds, bytes, records).
    pub fn record(&self, value: u64) {
        let bucket = (u64::BITS - value.saturating_sub(1).leading_zeros()) as usize;
        self.counts[bucket.min(BUCKETS - 1)].fetch_add(1, Relaxed);
        self.sum.fetch_add(value, Relaxed);
    }

    /// The counts as they are now.
    pub fn snapshot(&self) -> HistogramSnapshot {
        let counts = std::array::from_fn(|i| self.counts[i].load(Relaxed));
        HistogramSnapshot { counts, sum: self.sum.load(Relaxed) }
    }
}

/// A histogram's counts at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistogramSnapshot {
    /// Values per bucket, not cumulated.
    pub counts: [u64; BUCKETS],
    /// Sum of all values, in the histogram's unit.
    pub sum: u64,
}

impl HistogramSnapshot {
    /// Adds another one's counts.
    pub fn merge(&mut self, other: &HistogramSnapshot) {
        for (mine, theirs) in self.counts.iter_mut().zip(other.counts) {
            *mine += theirs;
        }
        self.sum += other.sum;
    }
}

impl Default for HistogramSnapshot {
    fn default() -> Self {
        Self { counts: [0; BUCKETS], sum: 0 }
    }
}

#[derive(Debug)]
struct Family {
    kind: &'static str,
    unit: &'static str,
    help: &'static str,
    samples: String,
}

/// A text of metrics in the making. Names carry their unit (`_bytes`, `_seconds`), counters without `_total`.
#[derive(Debug, Default)]
pub struct Exposition {
    families: BTreeMap<&'static str, Family>,
}

impl Exposition {
    /// A counter's value; `_total` is appended to the name.
    pub fn counter(&mut self, name: &'static str, help: &'static str, labels: &[(&str, &str)], value: u64) {
        let samples = self.family(name, "counter", help);
        sample(samples, name, "_total", labels, value);
    }

    /// A counter in fractions, such as CPU seconds.
    pub fn counter_f64(
        &mut self,
        name: &'static str,
        help: &'static str,
        labels: &[(&str, &str)],
        value: f64,
    ) {
        let samples = self.family(name, "counter", help);
        sample(samples, name, "_total", labels, value);
    }

    /// A value that goes up and down.
    pub fn gauge(&mut self, name: &'static str, help: &'static str, labels: &[(&str, &str)], value: i64) {
        let samples = self.family(name, "gauge", help);
        sample(samples, name, "", labels, value);
    }

    /// A value that goes up and down, in fractions, such as seconds.
    pub fn gauge_f64(&mut self, name: &'static str, help: &'static str, labels: &[(&str, &str)], value: f64) {
        let samples = self.family(name, "gauge", help);
        sample(samples, name, "", labels, value);
    }

    /// What the process is: labels with the constant 1; `_info` is appended to the name.
    pub fn info(&mut self, name: &'static str, help: &'static str, labels: &[(&str, &str)]) {
        let samples = self.family(name, "info", help);
        sample(samples, name, "_info", labels, 1);
    }

    /// A histogram whose unit is `scale` of the shown one: 1e-6 shows microseconds as seconds, 1 shows bytes as bytes.
    pub fn histogram(
        &mut self,
        name: &'static str,
        help: &'static str,
        labels: &[(&str, &str)],
        scale: f64,
        of: &HistogramSnapshot,
    ) {
        let samples = self.family(name, "histogram", help);
        let mut seen = 0;
        for (i, count) in of.counts.iter().enumerate() {
            seen += count;
            let last = i == BUCKETS - 1;
            let bound = if last { "+Inf".into() } else { ((1u64 << i) as f64 * scale).to_string() };
            sample(samples, name, "_bucket", &[labels, &[("le", &bound)]].concat(), seen);
        }
        sample(samples, name, "_sum", labels, of.sum as f64 * scale);
        sample(samples, name, "_count", labels, seen);
    }

    /// The whole text as Prometheus had it before OpenMetrics, form 0.0.4: families bear the names of their samples.
    pub fn render_plain(self) -> String {
        let mut text = String::new();
        for (name, family) in self.families {
            let (suffix, kind) = match family.kind {
                "counter" => ("_total", "counter"),
                "info" => ("_info", "gauge"),
                // promtool takes such a name for a part of a histogram, unless no kind is claimed.
                "gauge" if name.ends_with("_sum") => ("", "untyped"),
                kind => ("", kind),
            };
            let _ = writeln!(text, "# HELP {name}{suffix} {}", family.help);
            let _ = writeln!(text, "# TYPE {name}{suffix} {kind}");
            text.push_str(&family.samples);
        }
        text
    }

    /// The whole text as OpenMetrics.
    pub fn render(self) -> String {
        let mut text = String::new();
        for (name, family) in self.families {
            let _ = writeln!(text, "# TYPE {name} {}", family.kind);
            if !family.unit.is_empty() {
                let _ = writeln!(text, "# UNIT {name} {}", family.unit);
            }
            let _ = writeln!(text, "# HELP {name} {}", family.help);
            text.push_str(&family.samples);
        }
        text.push_str("# EOF\n");
        text
    }

    fn family(&mut self, name: &'static str, kind: &'static str, help: &'static str) -> &mut String {
        let unit = ["bytes", "seconds"].into_iter().find(|u| name.ends_with(u)).unwrap_or("");
        let fresh = || Family { kind, unit, help, samples: String::new() };
        let family = self.families.entry(name).or_insert_with(fresh);
        debug_assert_eq!(family.kind, kind, "{name} is one kind of metric");
        &mut family.samples
    }
}

fn sample(to: &mut String, name: &str, suffix: &str, labels: &[(&str, &str)], value: impl std::fmt::Display) {
    to.push_str(name);
    to.push_str(suffix);
    for (i, (label, content)) in labels.iter().enumerate() {
        to.push(if i == 0 { '{' } else { ',' });
        to.push_str(label);
        to.push_str("=\"");
        escape(to, content);
        to.push('"');
    }
    if !labels.is_empty() {
        to.push('}');
    }
    // Writing to a String cannot fail.
    let _ = writeln!(to, " {value}");
}

fn escape(to: &mut String, content: &str) {
    for c in content.chars() {
        match c {
            '\\' => to.push_str("\\\\"),
            '"' => to.push_str("\\\""),
            '\n' => to.push_str("\\n"),
            c => to.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_hold_what_is_at_most_their_bound() {
        let h = Histogram::default();
        for value in [0, 1, 2, 3, 4, 5, u64::MAX] {
            h.record(value);
        }
        let counts = h.snapshot().counts;
        assert_eq!(counts[..4], [2, 1, 2, 1]);
        assert_eq!(counts[BUCKETS - 1], 1);
    }

    #[test]
    fn samples_of_one_name_stand_together() {
        let mut e = Exposition::default();
        e.counter("sabir_requests", "Requests.", &[("api", "a\"b\\\n")], 3);
        e.gauge("sabir_connections", "Open.", &[], 2);
        e.counter("sabir_requests", "Requests.", &[("api", "c")], 4);
        let want = "# TYPE sabir_connections gauge\n# HELP sabir_connections Open.\nsabir_connections 2\n\
            # TYPE sabir_requests counter\n# HELP sabir_requests Requests.\n\
            sabir_requests_total{api=\"a\\\"b\\\\\\n\"} 3\nsabir_requests_total{api=\"c\"} 4\n# EOF\n";
        assert_eq!(e.render(), want);
    }

    #[test]
    fn the_older_form_names_families_as_their_samples() {
        let mut e = Exposition::default();
        e.counter("sabir_sent_bytes", "Bytes.", &[], 3);
        e.info("sabir_build", "Build.", &[("version", "1")]);
        e.gauge("sabir_connections", "Open.", &[], 2);
        e.gauge("sabir_lag_sum", "Lag.", &[], 1);
        let want = "# HELP sabir_build_info Build.\n# TYPE sabir_build_info gauge\nsabir_build_info{version=\"1\"} 1\n\
            # HELP sabir_connections Open.\n# TYPE sabir_connections gauge\nsabir_connections 2\n\
            # HELP sabir_lag_sum Lag.\n# TYPE sabir_lag_sum untyped\nsabir_lag_sum 1\n\
            # HELP sabir_sent_bytes_total Bytes.\n# TYPE sabir_sent_bytes_total counter\nsabir_sent_bytes_total 3\n";
        assert_eq!(e.render_plain(), want);
    }

    #[test]
    fn histograms_cumulate() {
        let h = Histogram::default();
        h.record(1);
        h.record(3);
        let mut e = Exposition::default();
        e.histogram("sabir_wait_seconds", "Waiting.", &[("shard", "0")], 0.5, &h.snapshot());
        let text = e.render();
        assert!(text.contains("# UNIT sabir_wait_seconds seconds\n"));
        assert!(text.contains("sabir_wait_seconds_bucket{shard=\"0\",le=\"0.5\"} 1\n"));
        assert!(text.contains("sabir_wait_seconds_bucket{shard=\"0\",le=\"2\"} 2\n"));
        assert!(text.contains("sabir_wait_seconds_bucket{shard=\"0\",le=\"+Inf\"} 2\n"));
        assert!(
            text.contains("sabir_wait_seconds_sum{shard=\"0\"} 2\nsabir_wait_seconds_count{shard=\"0\"} 2\n")
        );
    }
}

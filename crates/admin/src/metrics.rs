//! `/metrics`: the broker's figures under the names that dashboards use.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use axum::body::Bytes;
use axum::http::{HeaderMap, HeaderName, header};
use sabir_base::metrics::{Exposition, HistogramSnapshot};
use sabir_broker::{DeadLetterStats, ShardStats, Stats};

use crate::api::Problem;
use crate::health::Health;
use crate::{Admin, State, detail, process};

const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const PLAIN: &str = "text/plain; version=0.0.4; charset=utf-8";

/// How long other requests are waited for before figures are gathered.
const LINGER: Duration = Duration::from_millis(5);

/// The text that was gathered last, kept for the requests that wait for it.
#[derive(Debug, Default)]
pub struct Gathered {
    begun: Option<Instant>,
    openmetrics: bool,
    text: Option<Arc<String>>,
}

impl Gathered {
    /// The text in one of its forms, if it was begun after the request came.
    fn since(&self, asked: Instant, openmetrics: bool) -> Option<Arc<String>> {
        let fits = self.openmetrics == openmetrics && self.begun.is_some_and(|begun| begun >= asked);
        self.text.clone().filter(|_| fits)
    }
}

/// A request that waits for a text, counted.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn new(waiting: &'a AtomicUsize) -> Self {
        waiting.fetch_add(1, Relaxed);
        Self(waiting)
    }

    fn is_alone(&self) -> bool {
        self.0.load(Relaxed) == 1
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

struct Text(Arc<String>);

impl AsRef<[u8]> for Text {
    fn as_ref(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

/// All figures, as OpenMetrics for clients that ask for it.
pub async fn show(
    axum::extract::State(admin): axum::extract::State<Admin>,
    headers: HeaderMap,
) -> Result<([(HeaderName, &'static str); 1], Bytes), Problem> {
    let asked = Instant::now();
    let openmetrics = wants_openmetrics(&headers);
    let waiting = Waiting::new(&admin.waiting);
    let mut last = admin.gathering.lock().await;
    let text = match last.since(asked, openmetrics) {
        Some(text) => text,
        None => {
            // Connections are taken one a turn: those that wait to be are to have this text too.
            tokio::time::sleep(LINGER).await;
            let begun = Some(Instant::now());
            let text = Arc::new(gathered(admin.clone(), openmetrics).await?);
            *last = Gathered { begun, openmetrics, text: Some(text.clone()) };
            text
        }
    };
    if waiting.is_alone() {
        last.text = None;
    }
    drop(waiting);
    let content_type = if openmetrics { OPENMETRICS } else { PLAIN };
    Ok(([(header::CONTENT_TYPE, content_type)], Bytes::from_owner(Text(text))))
}

/// The text, made beside the thread that answers probes.
async fn gathered(admin: Admin, openmetrics: bool) -> Result<String, Problem> {
    let workers = admin.scraper.clone();
    let making = move || {
        let out = gather(&admin);
        if openmetrics { out.render() } else { out.render_plain() }
    };
    workers.run(making).await
}

fn gather(admin: &Admin) -> Exposition {
    let mut out = Exposition::default();
    let (version, os, arch) = (env!("CARGO_PKG_VERSION"), std::env::consts::OS, std::env::consts::ARCH);
    let labels = [("version", version), ("os", os), ("arch", arch)];
    out.info("sabir_build", "The running version, and what it was built for.", &labels);
    let help = "When the process was started, in seconds since the epoch.";
    out.gauge_f64("process_start_time_seconds", help, &[], admin.started().as_secs_f64());
    process::figures(&mut out);
    let running = match admin.state() {
        State::Running(shown) => Some((shown.broker.stats(), shown)),
        State::Starting | State::Stopping => None,
    };
    readiness(&mut out, running.as_ref().map(|(stats, _)| stats));
    if let Some((stats, shown)) = running {
        broker_figures(&mut out, &stats);
        detail::expose(&shown.broker, admin.options.metrics_limit, &mut out);
        shown.figures.iter().for_each(|write| write(&mut out));
    }
    out
}

/// Whether OpenMetrics is named, and no other form is liked better.
fn wants_openmetrics(headers: &HeaderMap) -> bool {
    let lines = headers.get_all(header::ACCEPT).iter().filter_map(|line| line.to_str().ok());
    let (mut open, mut plain) = (0.0, 0.0);
    for (form, liked) in lines.flat_map(|line| line.split(',')).filter_map(accepted) {
        match form.as_str() {
            "application/openmetrics-text" => open = liked.max(open),
            "text/plain" => plain = liked.max(plain),
            _ => {}
        }
    }
    open > 0.0 && open >= plain
}

/// A media type that is taken, and how much it is liked. A form in a version that is not made here is none.
fn accepted(range: &str) -> Option<(String, f32)> {
    let mut parts = range.split(';').map(str::trim);
    let form = parts.next()?.to_ascii_lowercase();
    let (mut liked, mut made) = (1.0, true);
    for (name, value) in parts.filter_map(|part| part.split_once('=')) {
        let value = value.trim().trim_matches('"');
        match name.trim().to_ascii_lowercase().as_str() {
            "q" => liked = value.parse().unwrap_or(0.0),
            "version" => made = ["1.0.0", "0.0.1", "0.0.4"].contains(&value),
            _ => {}
        }
    }
    made.then_some((form, liked))
}

/// What `/readyz` says of a broker with these figures, or of none that runs.
fn readiness(out: &mut Exposition, stats: Option<&Stats>) {
    let ready = stats.is_some_and(|stats| Health::judge(stats, |id| id.to_string()).ready);
    out.gauge("sabir_ready", "Whether requests are taken.", &[], ready.into());
}

fn broker_figures(out: &mut Exposition, stats: &Stats) {
    out.gauge("sabir_topics", "Topics.", &[], stats.topics as i64);
    out.gauge("sabir_partitions", "Partitions of all topics.", &[], stats.partitions as i64);
    let help = "Memory of the settings that topics keep without effect.";
    out.gauge("sabir_topic_setting_bytes", help, &[], stats.setting_bytes as i64);
    let help = "Changes of topics refused since their settings would take more than topic.settings_memory.";
    out.counter("sabir_refused_topic_settings", help, &[], stats.refused_settings);
    let help = "Memory of exchanges and bindings.";
    out.gauge("sabir_exchange_bytes", help, &[], stats.exchanges.bytes as i64);
    let help = "Exchanges and bindings refused since they would take more than topic.exchange_memory.";
    out.counter("sabir_refused_exchanges", help, &[], stats.exchanges.refused);
    let help = "How far the system clock is ahead of the time that records are stamped with.";
    out.gauge_f64("sabir_clock_ahead_seconds", help, &[], stats.clock_ahead_ms as f64 / 1e3);
    let help = "What the newest blocks of all shards may take together at the moment.";
    out.gauge("sabir_tail_cache_limit_bytes", help, &[], stats.tail_cache_limit as i64);
    let help = "How far the last block's time may be ahead of the node's: those of new blocks stand at it.";
    out.gauge_f64("sabir_stamps_ahead_seconds", help, &[], stats.stamps_ahead_ms as f64 / 1e3);
    for shard in &stats.shards {
        shard_figures(out, shard);
    }
}

type Gauge = (&'static str, &'static str, fn(&ShardStats) -> u64);

const GAUGES: &[Gauge] = &[
    ("sabir_shard_term", "The term the shard is led in.", |s| s.term.0),
    ("sabir_shard_sequence", "The last block applied.", |s| s.applied.0),
    ("sabir_shard_stopped", "Whether the shard's storage failed.", |s| s.stopped.into()),
    ("sabir_shard_full", "Whether the shard's disk is full.", |s| s.full.into()),
    (
        "sabir_waiting_dead_letters",
        "Messages that queues gave up and that wait to be published elsewhere.",
        |s| s.waiting_dead_letters,
    ),
    ("sabir_producers", "Idempotent producers that partitions remember.", |s| s.producers),
    ("sabir_message_ids", "Ids of messages that queues remember, to drop what comes twice.", |s| {
        s.message_ids
    }),
    ("sabir_delayed_messages", "Messages that are kept back until their time.", |s| s.kept_back),
    ("sabir_journal_segments", "Segment files of the journal.", |s| s.segment_files),
    ("sabir_journal_segment_bytes", "Bytes of the journal's segment files.", |s| s.segment_bytes),
    ("sabir_journal_in_flight_blocks", "Blocks written and not committed yet.", |s| s.in_flight.into()),
    ("sabir_unreadable_partitions", "Partitions whose records could not be read.", |s| {
        s.damaged.len() as u64
    }),
    ("sabir_tail_cache_bytes", "Memory of the newest blocks.", |s| s.tail_cache_bytes),
];

/// Name, help, the unit of the shown value in that of the counted one, and the histogram.
type Distribution = (&'static str, &'static str, f64, fn(&ShardStats) -> &HistogramSnapshot);

const DISTRIBUTIONS: &[Distribution] = &[
    ("sabir_journal_commit_seconds", "From the writing of a block to its commit.", 1e-6, |s| &s.commit_us),
    ("sabir_journal_block_bytes", "Sizes of the blocks written: what group commit gathers.", 1.0, |s| {
        &s.block_bytes
    }),
    ("sabir_journal_block_entries", "Entries of the blocks written.", 1.0, |s| &s.block_entries),
];

type Counter = (&'static str, &'static str, fn(&ShardStats) -> u64);

const COUNTERS: &[Counter] = &[
    ("sabir_journal_blocks", "Blocks committed.", |s| s.blocks),
    ("sabir_journal_entries", "Entries committed.", |s| s.entries),
    ("sabir_journal_content_bytes", "Bytes of the blocks committed.", |s| s.bytes),
    ("sabir_appended_batches", "Record batches appended to partitions.", |s| s.batches),
    ("sabir_appended_records", "Records appended to partitions.", |s| s.records),
    ("sabir_appended_bytes", "Bytes of the batches appended to partitions.", |s| s.batch_bytes),
    ("sabir_refused_batches", "Batches that were refused when their turn came.", |s| s.refused),
    (
        "sabir_duplicate_batches",
        "Batches that idempotent producers sent again, and that are there once.",
        |s| s.duplicates,
    ),
    (
        "sabir_repeated_messages",
        "Messages that queues dropped, since they had had one of the same id.",
        |s| s.repeated,
    ),
    (
        "sabir_refused_delayed_messages",
        "Copies of delayed messages that their target did not take when their time came.",
        |s| s.delayed_refused,
    ),
    (
        "sabir_skipped_messages",
        "Messages of topics' subscriptions that were removed from their topics before they were delivered.",
        |s| s.skipped_messages,
    ),
    ("sabir_crowded_out_producers", "Producers forgotten early, since there were too many.", |s| {
        s.crowded_out
    }),
    ("sabir_read_memory_bytes", "Bytes read for consumers from the newest blocks in memory.", |s| {
        s.hot_bytes
    }),
    ("sabir_read_disk_bytes", "Bytes read from the disk for consumers, ahead or at once.", |s| s.cold_bytes),
    ("sabir_tail_cache_hits", "Reads for consumers that the newest blocks in memory served.", |s| {
        s.cache_hits
    }),
    ("sabir_read_ahead_hits", "Reads for consumers that had been read ahead from the disk.", |s| {
        s.ahead_hits
    }),
    ("sabir_disk_reads", "Reads for consumers that waited for the disk.", |s| s.disk_reads),
    ("sabir_checkpoints", "Checkpoints made.", |s| s.checkpoints),
    ("sabir_failed_checkpoints", "Checkpoints that were given up, and tried again.", |s| {
        s.failed_checkpoints
    }),
    ("sabir_corrupt_batches", "Batches that were found to be corrupt when they were read.", |s| s.corrupt),
];

fn shard_figures(out: &mut Exposition, shard: &ShardStats) {
    let number = shard.shard.to_string();
    let labels = [("shard", number.as_str())];
    for (name, help, value) in COUNTERS {
        out.counter(name, help, &labels, value(shard));
    }
    dead_letters(out, number.as_str(), &shard.dead_letters);
    for (name, help, value) in GAUGES {
        out.gauge(name, help, &labels, i64::try_from(value(shard)).unwrap_or(i64::MAX));
    }
    if let Some(free) = shard.free_bytes {
        let help = "Bytes free on the journal's file system.";
        out.gauge("sabir_journal_free_bytes", help, &labels, i64::try_from(free).unwrap_or(i64::MAX));
    }
    let help = "How long the oldest block that is not committed has been under way.";
    out.gauge_f64("sabir_journal_commit_age_seconds", help, &labels, shard.commit_age.as_secs_f64());
    let help = "How long the oldest read, write or sync has been under way that the disk has not finished.";
    out.gauge_f64("sabir_disk_wait_seconds", help, &labels, shard.disk_wait.as_secs_f64());
    let help = "Time since the last checkpoint, or since the start.";
    out.gauge_f64("sabir_checkpoint_age_seconds", help, &labels, shard.checkpoint_age.as_secs_f64());
    for (name, help, scale, of) in DISTRIBUTIONS {
        out.histogram(name, help, &labels, *scale, of(shard));
    }
}

fn dead_letters(out: &mut Exposition, shard: &str, stats: &DeadLetterStats) {
    let help = "Messages that their queues gave up and published elsewhere.";
    for (reason, count) in
        ["rejected", "expired", "length", "delivery_limit"].into_iter().zip(stats.published)
    {
        out.counter("sabir_dead_letters", help, &[("shard", shard), ("reason", reason)], count);
    }
    let help = "Messages, or copies of them, that their queues gave up and that are nowhere.";
    for (reason, count) in [
        ("unroutable", stats.unroutable),
        ("cycle", stats.cycles),
        ("refused", stats.refused),
        ("unreadable", stats.unreadable),
    ] {
        out.counter("sabir_dropped_dead_letters", help, &[("shard", shard), ("reason", reason)], count);
    }
    let help = "Dead letters that were to go back to the queues that gave them up.";
    for (outcome, count) in [("moved", stats.redriven), ("refused", stats.redrives_refused)] {
        out.counter("sabir_redriven_messages", help, &[("shard", shard), ("outcome", outcome)], count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broker_with_a_stopped_shard_is_not_ready() {
        let with = |stopped| {
            let shards = vec![ShardStats::default(), ShardStats { stopped, ..ShardStats::default() }];
            Stats { shards, ..Stats::default() }
        };
        for (stats, line) in
            [(Some(with(false)), "ready 1"), (Some(with(true)), "ready 0"), (None, "ready 0")]
        {
            let mut out = Exposition::default();
            readiness(&mut out, stats.as_ref());
            let text = out.render();
            assert!(text.contains(&format!("\nsabir_{line}\n")), "{text}");
        }
    }

    #[test]
    fn the_form_is_the_one_that_is_asked_for() {
        let prometheus = "application/openmetrics-text;version=1.0.0;q=0.5,application/openmetrics-text;version=0.0.1;q=0.4,\
            text/plain;version=1.0.0;q=0.3,text/plain;version=0.0.4;q=0.2,*/*;q=0.1";
        for (accept, wanted) in [
            (None, false),
            (Some("*/*"), false),
            (Some("text/plain"), false),
            (Some("application/json"), false),
            (Some("application/openmetrics-text"), true),
            (Some("Application/OpenMetrics-Text; Version=1.0.0"), true),
            (Some("application/openmetrics-text; version=\"1.0.0\"; charset=utf-8"), true),
            (Some("application/openmetrics-text;version=2.0.0"), false),
            (Some("application/openmetrics-text;q=0"), false),
            (Some("application/openmetrics-text;q=0.1, text/plain;version=0.0.4"), false),
            (
                Some("application/vnd.google.protobuf;proto=x;encoding=delimited;q=0.7, text/plain;q=0.3"),
                false,
            ),
            (Some(prometheus), true),
        ] {
            let mut headers = HeaderMap::new();
            accept.map(|accept| headers.insert(header::ACCEPT, accept.parse().unwrap()));
            assert_eq!(wants_openmetrics(&headers), wanted, "{accept:?}");
        }
    }

    #[test]
    fn shards_are_told_apart() {
        let shard =
            |n, records| ShardStats { shard: sabir_model::ShardId(n), records, ..ShardStats::default() };
        let mut commit_us = HistogramSnapshot::default();
        (commit_us.counts[10], commit_us.sum) = (1, 1000);
        let busy = ShardStats { commit_us, ..shard(1, 4) };
        let shards = vec![shard(0, 3), busy];
        let stats = Stats {
            shards,
            topics: 2,
            partitions: 9,
            clock_ahead_ms: 1500,
            tail_cache_limit: 1 << 30,
            ..Stats::default()
        };
        let mut out = Exposition::default();
        broker_figures(&mut out, &stats);
        let text = out.render();
        assert!(text.contains("sabir_appended_records_total{shard=\"0\"} 3\n"), "{text}");
        assert!(text.contains("sabir_appended_records_total{shard=\"1\"} 4\n"), "{text}");
        assert!(text.contains("\nsabir_partitions 9\n"), "{text}");
        assert!(
            text.contains("sabir_journal_commit_seconds_bucket{shard=\"1\",le=\"0.001024\"} 1\n"),
            "{text}"
        );
        assert!(text.contains("sabir_journal_commit_seconds_sum{shard=\"1\"} 0.001\n"), "{text}");
    }
}

//! `/metrics`: the broker's figures under the names that dashboards use.

use axum::http::{HeaderName, header};
use sabir_base::metrics::Exposition;
use sabir_broker::{ShardStats, Stats};

use crate::{Admin, State, process};

const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// All figures as OpenMetrics text.
pub async fn show(
    axum::extract::State(admin): axum::extract::State<Admin>,
) -> ([(HeaderName, &'static str); 1], String) {
    let mut out = Exposition::default();
    out.info("sabir_build", "The running version.", &[("version", env!("CARGO_PKG_VERSION"))]);
    process::figures(&mut out);
    match &*admin.state.read() {
        State::Running { broker, figures } => {
            out.gauge("sabir_ready", "Whether requests are taken.", &[], 1);
            broker_figures(&mut out, &broker.stats());
            figures.iter().for_each(|write| write(&mut out));
        }
        State::Starting | State::Stopping => out.gauge("sabir_ready", "Whether requests are taken.", &[], 0),
    }
    ([(header::CONTENT_TYPE, CONTENT_TYPE)], out.render())
}

fn broker_figures(out: &mut Exposition, stats: &Stats) {
    out.gauge("sabir_topics", "Topics.", &[], stats.topics as i64);
    out.gauge("sabir_partitions", "Partitions of all topics.", &[], stats.partitions as i64);
    for shard in &stats.shards {
        shard_figures(out, shard);
    }
}

type Counter = (&'static str, &'static str, fn(&ShardStats) -> u64);

const COUNTERS: &[Counter] = &[
    ("sabir_journal_blocks", "Blocks committed.", |s| s.blocks),
    ("sabir_journal_entries", "Entries committed.", |s| s.entries),
    ("sabir_journal_content_bytes", "Bytes of the blocks committed.", |s| s.bytes),
    ("sabir_appended_batches", "Record batches appended to partitions.", |s| s.batches),
    ("sabir_appended_records", "Records appended to partitions.", |s| s.records),
    ("sabir_appended_bytes", "Bytes of the batches appended to partitions.", |s| s.batch_bytes),
    ("sabir_refused_batches", "Batches that were refused, or were there already.", |s| s.refused),
    ("sabir_read_memory_bytes", "Bytes read for consumers from memory.", |s| s.hot_bytes),
    ("sabir_read_disk_bytes", "Bytes read for consumers from the disk.", |s| s.cold_bytes),
    ("sabir_checkpoints", "Checkpoints made.", |s| s.checkpoints),
    ("sabir_corrupt_batches", "Batches that were found to be corrupt when they were read.", |s| s.corrupt),
];

fn shard_figures(out: &mut Exposition, shard: &ShardStats) {
    let number = shard.shard.to_string();
    let labels = [("shard", number.as_str())];
    for (name, help, value) in COUNTERS {
        out.counter(name, help, &labels, value(shard));
    }
    out.gauge("sabir_shard_term", "The term the shard is led in.", &labels, shard.term.0 as i64);
    out.gauge("sabir_shard_sequence", "The last block applied.", &labels, shard.applied.0 as i64);
    out.gauge("sabir_shard_stopped", "Whether the shard's storage failed.", &labels, shard.stopped.into());
    out.gauge("sabir_shard_full", "Whether the shard's disk is full.", &labels, shard.full.into());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_are_told_apart() {
        let shard =
            |n, records| ShardStats { shard: sabir_model::ShardId(n), records, ..ShardStats::default() };
        let stats = Stats { shards: vec![shard(0, 3), shard(1, 4)], topics: 2, partitions: 9 };
        let mut out = Exposition::default();
        broker_figures(&mut out, &stats);
        let text = out.render();
        assert!(text.contains("sabir_appended_records_total{shard=\"0\"} 3\n"), "{text}");
        assert!(text.contains("sabir_appended_records_total{shard=\"1\"} 4\n"), "{text}");
        assert!(text.contains("\nsabir_partitions 9\n"), "{text}");
    }
}

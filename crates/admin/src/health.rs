//! `/livez` and `/readyz`.

use axum::http::StatusCode;
use sabir_broker::{ShardStats, Stats};

use crate::{Admin, State};

/// The process answers: nothing more is said.
pub async fn live() -> &'static str {
    "ok\n"
}

/// Whether requests are taken, and if not, what is not ready.
pub async fn ready(axum::extract::State(admin): axum::extract::State<Admin>) -> (StatusCode, String) {
    match &*admin.state.read() {
        State::Starting => {
            (StatusCode::SERVICE_UNAVAILABLE, "not ready: the journal is being opened\n".into())
        }
        State::Stopping => (StatusCode::SERVICE_UNAVAILABLE, "not ready: the broker is stopping\n".into()),
        State::Running { broker, .. } => verdict(&broker.stats()),
    }
}

/// A shard that lost its storage makes the node not ready. A full disk does not: readers and deletes are what empties it.
fn verdict(stats: &Stats) -> (StatusCode, String) {
    let stopped: Vec<_> = stats.shards.iter().filter(|s| s.stopped).collect();
    let mut text: String = stopped.iter().map(|s| stopped_line(s)).collect();
    for s in stats.shards.iter().filter(|s| s.full) {
        text += &format!("shard {}: its disk is full; it answers reads and takes deletes\n", s.shard);
    }
    if stopped.is_empty() {
        return (StatusCode::OK, format!("ready\n{text}"));
    }
    (StatusCode::SERVICE_UNAVAILABLE, text)
}

fn stopped_line(shard: &ShardStats) -> String {
    format!("not ready: shard {}: its storage failed, it answers reads only; see the log\n", shard.shard)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_shard_is_named() {
        let mut stats =
            Stats { shards: vec![ShardStats::default(), ShardStats::default()], ..Stats::default() };
        assert_eq!(verdict(&stats), (StatusCode::OK, "ready\n".into()));
        stats.shards[0].full = true;
        let (status, text) = verdict(&stats);
        assert_eq!(status, StatusCode::OK);
        assert!(text.contains("disk is full"), "{text}");
        stats.shards[1].shard = sabir_model::ShardId(1);
        stats.shards[1].stopped = true;
        let (status, text) = verdict(&stats);
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert!(text.starts_with("not ready: shard 1"), "{text}");
    }
}

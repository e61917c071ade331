//! `/livez` and `/readyz`, and what they go by.

use axum::http::StatusCode;
use sabir_broker::Stats;

use crate::{Admin, State};

/// How the server is, and why.
#[derive(Debug, PartialEq, Eq)]
pub struct Health {
    /// Whether requests are taken.
    pub ready: bool,
    /// One word: starting, ready, failed or stopping.
    pub status: &'static str,
    /// What is wrong, a sentence each.
    pub problems: Vec<String>,
}

impl Health {
    /// How the server is now.
    pub fn of(admin: &Admin) -> Self {
        let waiting = |status, why: &str| Self { ready: false, status, problems: vec![why.to_owned()] };
        match admin.state() {
            State::Starting => waiting("starting", "the journal is being opened"),
            State::Stopping => waiting("stopping", "the broker is stopping"),
            State::Running(shown) => Self::judge(&shown.broker.stats()),
        }
    }

    /// A shard that lost its storage makes the node not ready. A full disk does not: readers and deletes are what empties it.
    pub fn judge(stats: &Stats) -> Self {
        let stopped = stats.shards.iter().filter(|shard| shard.stopped);
        let full = stats.shards.iter().filter(|shard| shard.full);
        let failed =
            |shard| format!("shard {shard}: its storage failed, it answers reads at the most; see the log");
        let mut problems: Vec<String> = stopped.map(|s| failed(s.shard)).collect();
        let ready = problems.is_empty();
        problems.extend(
            full.map(|s| format!("shard {}: its disk is full; it answers reads and takes deletes", s.shard)),
        );
        Self { ready, status: if ready { "ready" } else { "failed" }, problems }
    }

    /// The code that tells a probe.
    pub fn code(&self) -> StatusCode {
        if self.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
    }

    fn text(&self) -> String {
        let head = if self.ready { "ready\n" } else { "" };
        let mark = if self.ready { "" } else { "not ready: " };
        self.problems.iter().fold(head.to_owned(), |text, problem| format!("{text}{mark}{problem}\n"))
    }
}

/// The process answers: nothing more is said.
pub async fn live() -> &'static str {
    "ok\n"
}

/// Whether requests are taken, and if not, what is not ready.
pub async fn ready(axum::extract::State(admin): axum::extract::State<Admin>) -> (StatusCode, String) {
    let health = Health::of(&admin);
    (health.code(), health.text())
}

#[cfg(test)]
mod tests {
    use sabir_broker::ShardStats;

    use super::*;

    #[test]
    fn a_failed_shard_is_named() {
        let mut stats =
            Stats { shards: vec![ShardStats::default(), ShardStats::default()], ..Stats::default() };
        let health = Health::judge(&stats);
        assert_eq!((health.code(), health.text()), (StatusCode::OK, "ready\n".into()));
        stats.shards[0].full = true;
        let health = Health::judge(&stats);
        assert_eq!((health.code(), health.status), (StatusCode::OK, "ready"));
        assert!(health.text().starts_with("ready\nshard 0: its disk is full"), "{health:?}");
        stats.shards[1].shard = sabir_model::ShardId(1);
        stats.shards[1].stopped = true;
        let health = Health::judge(&stats);
        assert_eq!((health.code(), health.status), (StatusCode::SERVICE_UNAVAILABLE, "failed"));
        assert!(health.text().starts_with("not ready: shard 1"), "{health:?}");
    }
}

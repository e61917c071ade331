//! The node, its shards, and how it is.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use sabir_broker::{Broker, ShardStats};
use sabir_model::{Durability, ShardId};
use serde::Serialize;

use super::request::Open;
use crate::health::Health;
use crate::{Admin, ServedFrontend};

#[derive(Serialize)]
pub struct HealthReport {
    status: &'static str,
    ready: bool,
    problems: Vec<String>,
}

pub async fn health(State(admin): State<Admin>) -> (StatusCode, Json<HealthReport>) {
    let verdict = Health::of(&admin);
    let code = verdict.code();
    let Health { ready, status, problems } = verdict;
    (code, Json(HealthReport { status, ready, problems }))
}

#[derive(Serialize)]
pub struct NodeReport {
    node: i32,
    cluster: String,
    version: &'static str,
    started_ms: u64,
    uptime_seconds: f64,
    durability: &'static str,
    shards: usize,
    topics: usize,
    partitions: usize,
    groups: usize,
    listeners: Vec<Listener>,
}

#[derive(Serialize)]
struct Listener {
    protocol: &'static str,
    listening: Vec<String>,
    advertise: String,
}

pub async fn node(State(admin): State<Admin>, Open(shown): Open) -> Json<NodeReport> {
    let (broker, catalog) = (&shown.broker, shown.broker.catalog());
    Json(NodeReport {
        node: broker.node_id().0,
        cluster: broker.cluster_id().to_string(),
        version: env!("CARGO_PKG_VERSION"),
        started_ms: admin.started().as_millis() as u64,
        uptime_seconds: admin.uptime().as_secs_f64(),
        durability: durability(broker.options().durability),
        shards: broker.stats().shards.len(),
        topics: catalog.len(),
        partitions: catalog.partitions(),
        groups: broker.group_count(),
        listeners: (shown.front_ends)().into_iter().flat_map(listeners).collect(),
    })
}

/// One for each address, since what clients are told differs.
fn listeners(front_end: ServedFrontend) -> impl Iterator<Item = Listener> {
    let each = front_end.listening.into_iter().zip(front_end.advertise);
    each.map(move |(address, advertise)| Listener {
        protocol: front_end.name,
        listening: vec![address.to_string()],
        advertise,
    })
}

pub fn durability(durability: Durability) -> &'static str {
    match durability {
        Durability::Sync => "sync",
        Durability::Os => "os",
    }
}

#[derive(Serialize)]
pub struct Shards {
    shards: Vec<Shard>,
}

#[derive(Serialize)]
struct Shard {
    shard: u32,
    holds: &'static str,
    holds_groups: bool,
    state: &'static str,
    term: u64,
    applied: u64,
    in_flight_blocks: u32,
    segments: u64,
    segment_bytes: u64,
    free_bytes: Option<u64>,
    tail_cache_bytes: u64,
    checkpoints: u64,
    checkpoint_age_seconds: f64,
    corrupt_batches: u64,
}

pub async fn shards(Open(shown): Open) -> Json<Shards> {
    let shard = |stats: &ShardStats| shard(&shown.broker, stats);
    Json(Shards { shards: shown.broker.stats().shards.iter().map(shard).collect() })
}

fn shard(broker: &Broker, stats: &ShardStats) -> Shard {
    Shard {
        shard: stats.shard.0,
        holds: if stats.shard == ShardId::CATALOG { "catalog" } else { "partitions" },
        holds_groups: broker.has_groups(stats.shard),
        state: match stats {
            ShardStats { stopped: true, .. } => "stopped",
            ShardStats { full: true, .. } => "full",
            _ => "running",
        },
        term: stats.term.0,
        applied: stats.applied.0,
        in_flight_blocks: stats.in_flight,
        segments: stats.segment_files,
        segment_bytes: stats.segment_bytes,
        free_bytes: stats.free_bytes,
        tail_cache_bytes: stats.tail_cache_bytes,
        checkpoints: stats.checkpoints,
        checkpoint_age_seconds: stats.checkpoint_age.as_secs_f64(),
        corrupt_batches: stats.corrupt,
    }
}

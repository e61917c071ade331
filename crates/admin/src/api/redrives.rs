//! Redrives: dead letters that go back to the queues that gave them up.

use std::time::{Duration, Instant};

use axum::Json;
use axum::http::StatusCode;
use sabir_broker::{
    Caller, DeathReason, Redrive, RedriveCounts, RedriveOrigin, RedriveProgress, RedriveRefused, RedriveSpec,
    RedriveState,
};
use sabir_model::ErrorAbout;
use serde::{Deserialize, Serialize};

use super::Answer;
use super::problem::{Problem, of_queue};
use super::request::{Body, Name, Open, Within, WriteAccess};
use super::topics::find;

/// For how long the answer waits for a redrive to end that is begun.
const PATIENCE: Duration = Duration::from_secs(1);
/// How often it looks meanwhile.
const LOOK: Duration = Duration::from_millis(10);

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
#[derive(Default)]
pub struct Wanted {
    most: Option<u64>,
    origin: Option<String>,
    reason: Option<Reason>,
    per_second: Option<u32>,
    dry_run: bool,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Reason {
    Rejected,
    Expired,
    Length,
    DeliveryLimit,
}

impl Reason {
    /// None of one for which no queue gives a message up.
    fn shown(reason: DeathReason) -> Option<Self> {
        Some(match reason {
            DeathReason::Rejected => Self::Rejected,
            DeathReason::Expired => Self::Expired,
            DeathReason::QueueLength => Self::Length,
            DeathReason::DeliveryLimit => Self::DeliveryLimit,
            DeathReason::Redriven => return None,
        })
    }

    fn meant(self) -> DeathReason {
        match self {
            Self::Rejected => DeathReason::Rejected,
            Self::Expired => DeathReason::Expired,
            Self::Length => DeathReason::QueueLength,
            Self::DeliveryLimit => DeathReason::DeliveryLimit,
        }
    }
}

#[derive(Serialize)]
pub struct Redrives {
    redrives: Vec<RedriveDetails>,
}

#[derive(Serialize)]
pub struct RedriveDetails {
    id: String,
    queue: String,
    namespace: String,
    most: Option<u64>,
    origin: Option<String>,
    reason: Option<Reason>,
    per_second: Option<u32>,
    dry_run: bool,
    state: &'static str,
    error: Option<String>,
    read: u64,
    wanted: u64,
    moved: u64,
    refused: u64,
    waiting: u64,
    taken: u64,
    origin_gone: u64,
    without_origin: u64,
    unreadable: u64,
    origins: Vec<Origin>,
}

#[derive(Serialize)]
struct Origin {
    queue: String,
    reason: Option<Reason>,
    messages: u64,
    is_there: bool,
}

pub async fn begin(
    _: WriteAccess,
    Open(shown): Open,
    Within(caller): Within,
    Name(name): Name,
    Body(wanted): Body<Wanted>,
) -> Answer<RedriveDetails> {
    let queue = find(&shown.broker, &caller, &name)?;
    let Wanted { most, origin, reason, per_second, dry_run } = wanted;
    let spec = RedriveSpec { most, origin, reason: reason.map(Reason::meant), per_second, dry_run };
    let redrive = shown.broker.redrive(&caller, &queue, spec)?;
    let began = Instant::now();
    while redrive.is_running() && began.elapsed() < PATIENCE {
        tokio::time::sleep(LOOK).await;
    }
    Ok(Json(details(&redrive)))
}

pub async fn list(Open(shown): Open) -> Answer<Redrives> {
    let all = shown.broker.redrives(&Caller::OPERATOR)?;
    Ok(Json(Redrives { redrives: all.iter().map(details).collect() }))
}

pub async fn one(Open(shown): Open, Name(id): Name) -> Answer<RedriveDetails> {
    let all = shown.broker.redrives(&Caller::OPERATOR)?;
    Ok(Json(details(&numbered(all, &id)?)))
}

pub async fn cancel(_: WriteAccess, Open(shown): Open, Name(id): Name) -> Result<StatusCode, Problem> {
    let redrive = numbered(shown.broker.redrives(&Caller::OPERATOR)?, &id)?;
    if !redrive.is_running() {
        let detail = format!("redrive {id} has ended: its state is {}", state(&redrive.progress()).0);
        return Err(Problem::new(StatusCode::CONFLICT, "redrive-ended", detail));
    }
    redrive.cancel();
    Ok(StatusCode::NO_CONTENT)
}

fn numbered(all: Vec<Redrive>, id: &str) -> Result<Redrive, Problem> {
    let bad = |_| Problem::bad_request(format!("expected the number of a redrive, not {id:?}"));
    let number: u64 = id.parse().map_err(bad)?;
    all.into_iter().find(|redrive| redrive.number() == number).ok_or_else(|| {
        Problem::new(StatusCode::NOT_FOUND, "unknown-redrive", format!("there is no redrive {id}"))
    })
}

fn details(redrive: &Redrive) -> RedriveDetails {
    let (queue, spec) = (redrive.queue(), redrive.spec().clone());
    let progress = redrive.progress();
    let (state, error) = state(&progress);
    let RedriveProgress { counts, origins, .. } = progress;
    let RedriveCounts {
        read,
        wanted,
        moved,
        refused,
        waiting,
        taken,
        origin_gone,
        without_origin,
        unreadable,
    } = counts;
    let RedriveSpec { most, origin, reason, per_second, dry_run } = spec;
    RedriveDetails {
        id: redrive.number().to_string(),
        queue: queue.name.to_string(),
        namespace: queue.namespace.to_string(),
        most,
        origin,
        reason: reason.and_then(Reason::shown),
        per_second,
        dry_run,
        state,
        error,
        read,
        wanted,
        moved,
        refused,
        waiting,
        taken,
        origin_gone,
        without_origin,
        unreadable,
        origins: origins.into_iter().map(shown).collect(),
    }
}

/// A state's name, and why it failed.
fn state(of: &RedriveProgress) -> (&'static str, Option<String>) {
    match of.state {
        RedriveState::Running => ("running", None),
        RedriveState::Done => ("done", None),
        RedriveState::Cancelled => ("cancelled", None),
        RedriveState::Failed(error) => ("failed", Some(error.to_string())),
        RedriveState::Unreadable(error) => ("failed", Some(error.to_string())),
    }
}

fn shown(origin: RedriveOrigin) -> Origin {
    let RedriveOrigin { queue, reason, messages, is_there } = origin;
    Origin { queue, reason: Reason::shown(reason), messages, is_there }
}

impl From<ErrorAbout<RedriveRefused>> for Problem {
    fn from(refused: ErrorAbout<RedriveRefused>) -> Self {
        use RedriveRefused as E;
        let (status, kind) = match refused.error {
            E::NotOperator => (StatusCode::FORBIDDEN, "forbidden"),
            E::Queue(error) => of_queue(error),
            E::IsRunning => (StatusCode::CONFLICT, "redrive-running"),
            E::TooMany => (StatusCode::SERVICE_UNAVAILABLE, "unavailable"),
            E::Nothing | E::NeedsLevel { .. } => (StatusCode::UNPROCESSABLE_ENTITY, "invalid"),
        };
        Self::new(status, kind, refused.to_string())
    }
}

//! Delayed messages: counted by exchange, and dropped.

use std::time::Duration;

use axum::Json;
use axum::extract::FromRequestParts;
use axum::extract::rejection::QueryRejection;
use axum::http::StatusCode;
use axum::http::request::Parts;
use sabir_broker::{Broker, Caller, DelayedMessages, DelayedPart, DelayedPosition, DelayedRefused};
use serde::{Deserialize, Serialize};

use super::Answer;
use super::problem::{Problem, of_read, of_shard};
use super::request::{Open, Within, WriteAccess};
use crate::Admin;

/// How long one answer is made.
const WITHIN: Duration = Duration::from_secs(2);

/// Of which exchange, and behind which place.
pub struct Asked {
    exchange: Option<String>,
    after: Option<DelayedPosition>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AskedQuery {
    exchange: Option<String>,
    after: Option<String>,
    /// Taken by [`Within`].
    #[serde(rename = "namespace")]
    _namespace: Option<String>,
}

impl FromRequestParts<Admin> for Asked {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, admin: &Admin) -> Result<Self, Problem> {
        use axum::extract::Query;
        let taken: Result<Query<AskedQuery>, QueryRejection> = Query::from_request_parts(parts, admin).await;
        let Query(AskedQuery { exchange, after, .. }) =
            taken.map_err(|error| Problem::bad_request(error.body_text()))?;
        let bad = |text: &str| {
            Problem::bad_request(format!("after: expected the `next` of the part before, not {text:?}"))
        };
        let after = after.map(|text| text.parse().map_err(|_| bad(&text))).transpose()?;
        Ok(Self { exchange, after })
    }
}

#[derive(Serialize)]
pub struct Counted {
    exchanges: Vec<OfExchange>,
    next: Option<String>,
}

#[derive(Serialize)]
struct OfExchange {
    exchange: String,
    messages: u64,
    earliest_ms: i64,
    latest_ms: i64,
}

#[derive(Serialize)]
pub struct Dropped {
    dropped: u64,
    next: Option<String>,
}

pub async fn list(Open(shown): Open, Within(caller): Within, asked: Asked) -> Answer<Counted> {
    let part = work(shown.broker.clone(), caller, asked, Broker::delayed).await?;
    let of = |of: DelayedMessages| {
        let DelayedMessages { exchange, messages, earliest_ms, latest_ms } = of;
        OfExchange { exchange, messages, earliest_ms, latest_ms }
    };
    let next = part.next.map(|next| next.to_string());
    Ok(Json(Counted { exchanges: part.exchanges.into_iter().map(of).collect(), next }))
}

pub async fn drop_all(
    _: WriteAccess,
    Open(shown): Open,
    Within(caller): Within,
    asked: Asked,
) -> Answer<Dropped> {
    let part = work(shown.broker.clone(), caller, asked, Broker::drop_delayed).await?;
    Ok(Json(Dropped { dropped: part.dropped, next: part.next.map(|next| next.to_string()) }))
}

type Work = fn(
    &Broker,
    &Caller,
    Option<&str>,
    Option<DelayedPosition>,
    Duration,
) -> Result<DelayedPart, DelayedRefused>;

/// Reads the disk, and so keeps none of the workers that others wait for.
async fn work(broker: Broker, caller: Caller, asked: Asked, work: Work) -> Result<DelayedPart, Problem> {
    let Asked { exchange, after } = asked;
    let doing = move || work(&broker, &caller, exchange.as_deref(), after, WITHIN);
    let done = tokio::task::spawn_blocking(doing).await;
    let done = done.map_err(|_| {
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "it could not be done; see the log")
    })?;
    done.map_err(|error| {
        let (status, kind) = match error {
            DelayedRefused::NotOperator => (StatusCode::FORBIDDEN, "forbidden"),
            DelayedRefused::Read(error) => of_read(error),
            DelayedRefused::Shard(failure) => of_shard(failure),
        };
        Problem::new(status, kind, error.to_string())
    })
}

//! The document as it is taken.

use std::time::Duration;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use futures_util::future::join_all;
use sabir_broker::exchange::{ExchangeSpec, NamedBinding};
use sabir_broker::{Broker, Caller};
use serde::{Deserialize, Serialize};

use super::super::problem::Problem;
use super::super::request::{Open, Within, WriteAccess, parse, read};
use super::document::{BindingDefinition, DefinitionsDocument};
use super::plan::{Absent, Plan, Planned};
use crate::Admin;

/// The largest document taken.
const DOCUMENT: usize = 16 << 20;
/// A document must be there by then.
const PATIENCE: Duration = Duration::from_secs(60);
/// What is created together.
const TOGETHER: usize = 500;

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ImportMode {
    dry_run: bool,
    namespace: Option<String>,
}

#[derive(Serialize)]
pub struct DefinitionsImported {
    dry_run: bool,
    topics: Vec<ImportedTopic>,
    queues: Vec<ImportedQueue>,
    exchanges: Vec<ImportedExchange>,
    bindings: Vec<ImportedBinding>,
}

#[derive(Serialize)]
struct ImportedTopic {
    topic: String,
    outcome: &'static str,
}

#[derive(Serialize)]
struct ImportedQueue {
    queue: String,
    outcome: &'static str,
}

#[derive(Serialize)]
struct ImportedExchange {
    exchange: String,
    outcome: &'static str,
}

#[derive(Serialize)]
struct ImportedBinding {
    #[serde(flatten)]
    binding: BindingDefinition,
    outcome: &'static str,
}

impl DefinitionsImported {
    fn new(dry_run: bool, planned: Planned) -> Self {
        let outcome = |new: bool| if new { "created" } else { "exists" };
        let Planned { topics, queues, exchanges, bindings } = planned;
        let topics = topics.into_iter().map(|(topic, new)| ImportedTopic { topic, outcome: outcome(new) });
        let queues = queues.into_iter().map(|(queue, new)| ImportedQueue { queue, outcome: outcome(new) });
        let exchanges = exchanges.into_iter();
        let exchanges = exchanges.map(|(exchange, new)| ImportedExchange { exchange, outcome: outcome(new) });
        let bindings = bindings.into_iter();
        let bindings = bindings.map(|(binding, new)| ImportedBinding { binding, outcome: outcome(new) });
        Self {
            dry_run,
            topics: topics.collect(),
            queues: queues.collect(),
            exchanges: exchanges.collect(),
            bindings: bindings.collect(),
        }
    }
}

/// Creates what is absent and nothing else, after all of it was judged. Documents are taken one at a time: they are large.
pub async fn import(
    _: WriteAccess,
    Open(shown): Open,
    State(admin): State<Admin>,
    Within(caller): Within,
    mode: Result<Query<ImportMode>, QueryRejection>,
    request: Request,
) -> Result<Response, Problem> {
    let Query(ImportMode { dry_run, .. }) = mode.map_err(|error| Problem::bad_request(error.body_text()))?;
    let _alone = admin.importing.try_lock().map_err(|_| {
        let detail = "definitions are being taken already: ask again";
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", detail)
    })?;
    let body = read(request, DOCUMENT, PATIENCE).await?;
    let (broker, asker) = (shown.broker.clone(), caller.clone());
    let judging = move || {
        let document: DefinitionsDocument = parse(&body)?;
        Plan::of(&broker, &asker, document)
    };
    let Plan { planned, absent } = admin.workers.run(judging).await??;
    if !dry_run {
        let creating = Creating { broker: &shown.broker, caller: &caller, made: 0, all: absent.count() };
        creating.create(absent).await?;
    }
    let told = move || Json(DefinitionsImported::new(dry_run, planned)).into_response();
    admin.workers.run(told).await
}

/// Creates what is absent, and first what the rest leads to. What was made stays, should something go wrong on the way: the document can be given
/// again.
struct Creating<'a> {
    broker: &'a Broker,
    caller: &'a Caller,
    made: usize,
    all: usize,
}

impl Creating<'_> {
    async fn create(mut self, absent: Absent) -> Result<(), Problem> {
        let Absent { topics, exchanges, bindings, delays } = absent;
        let mut topics = topics.into_iter();
        while topics.len() > 0 {
            let together: Vec<_> = topics.by_ref().take(TOGETHER).collect();
            let about = together.iter().map(|topic| format!("topic {:?}", topic.name)).collect();
            let made = self.broker.create_topics(self.caller, together).await;
            self.note(about, made)?;
        }
        if delays {
            self.broker.prepare_delays(self.caller).await?;
        }
        if !bindings.is_empty() {
            self.broker.exchanges().prepare(self.caller).await?;
        }
        self.declare(exchanges).await?;
        self.bind(bindings).await
    }

    async fn declare(&mut self, all: Vec<(String, ExchangeSpec)>) -> Result<(), Problem> {
        let (exchanges, caller) = (self.broker.exchanges(), self.caller);
        for together in all.chunks(TOGETHER) {
            let declaring = together.iter().map(|(name, spec)| exchanges.declare(caller, name, spec.clone()));
            let made = join_all(declaring).await;
            self.note(together.iter().map(|(name, _)| format!("exchange {name:?}")).collect(), made)?;
        }
        Ok(())
    }

    /// In their order, which some exchanges go by.
    async fn bind(&mut self, all: Vec<NamedBinding>) -> Result<(), Problem> {
        let (exchanges, caller) = (self.broker.exchanges(), self.caller);
        for together in all.chunks(TOGETHER) {
            let binding = together.iter().map(|binding| exchanges.bind(caller, binding.clone()));
            let made = join_all(binding).await;
            let about = |binding: &NamedBinding| BindingDefinition::of(binding).to_string();
            self.note(together.iter().map(about).collect(), made)?;
        }
        Ok(())
    }

    /// Counts what was made, and refuses where something was not.
    fn note<T, E: Into<Problem>>(
        &mut self,
        about: Vec<String>,
        made: Vec<Result<T, E>>,
    ) -> Result<(), Problem> {
        self.made += made.iter().filter(|made| made.is_ok()).count();
        let failed = made.into_iter().zip(about).find_map(|(made, about)| Some((made.err()?, about)));
        let Some((error, about)) = failed else { return Ok(()) };
        let Self { made, all, .. } = self;
        let told = format!(
            "{made} of {all} were created, and giving the document again goes on from there; {about}"
        );
        Err(error.into().about(&told))
    }
}

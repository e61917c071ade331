//! Definitions: which topics there are and what they set for themselves, in one document that this broker or another one takes.

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use std::{fmt, io};

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use sabir_broker::{Broker, Caller, CatalogView, NewTopic, Topic};
use sabir_model::{TopicConfig, TopicError, TopicKind};
use serde::de::{Error as _, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

use super::problem::Problem;
use super::request::{Open, Within, WriteAccess, parse, read};
use super::topics::{ConfigChange, kind, own_settings};
use crate::Admin;
use crate::workers::AnswerWorkers;

/// The form of the document. One that says another is refused, whatever else is in it.
const VERSION: u32 = 1;
/// The largest document taken.
pub const DOCUMENT: usize = 16 << 20;
/// A document must be there by then.
const PATIENCE: Duration = Duration::from_secs(60);
/// The most topics in a document that is taken.
const TOPICS: usize = 100_000;
/// Topics that are looked up together while a document is made.
const PAGE: usize = 1000;
/// Bytes after which a piece of the document is sent.
const PIECE: usize = 32 << 10;
/// Topics created together.
const TOGETHER: usize = 500;
/// Refusals that are told one by one.
const TOLD: usize = 20;

/// A topic as the document has it.
#[derive(Debug, PartialEq, Serialize)]
struct TopicDefinition {
    name: String,
    partitions: u32,
    kind: &'static str,
    config: Map<String, Value>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    kept_settings: BTreeMap<String, String>,
}

impl TopicDefinition {
    fn new(name: &str, partitions: u32, config: &TopicConfig) -> Self {
        let kept = config.kept.iter().map(|(name, value)| (name.to_owned(), value.to_owned()));
        Self {
            name: name.to_owned(),
            partitions,
            kind: kind(&config.kind),
            config: own_settings(config),
            kept_settings: kept.collect(),
        }
    }

    fn of(topic: &Topic) -> Self {
        Self::new(&topic.name, topic.partitions.len() as u32, &topic.config)
    }

    /// In what this topic, which exists, is not what the document wants.
    fn differences(&self, wanted: &Self) -> Vec<String> {
        let mut found = Vec::new();
        let mut compare = |what: &str, here: Option<String>, there: Option<String>| {
            if here != there {
                let [here, there] = [here, there].map(|value| value.unwrap_or_else(|| "not set".into()));
                found.push(format!("{what}: {here} here, {there} in the document"));
            }
        };
        compare("partitions", Some(self.partitions.to_string()), Some(wanted.partitions.to_string()));
        compare("kind", Some(self.kind.into()), Some(wanted.kind.into()));
        for name in union(self.config.keys(), wanted.config.keys()) {
            let value = |of: &Self| of.config.get(name).map(Value::to_string);
            compare(name, value(self), value(wanted));
        }
        for name in union(self.kept_settings.keys(), wanted.kept_settings.keys()) {
            let value = |of: &Self| of.kept_settings.get(name).cloned();
            compare(name, value(self), value(wanted));
        }
        found
    }
}

fn union<'a>(
    one: impl Iterator<Item = &'a String>,
    other: impl Iterator<Item = &'a String>,
) -> BTreeSet<&'a String> {
    one.chain(other).collect()
}

/// The document, made piece by piece as it is read: each topic as it is when its turn comes.
pub async fn export(State(admin): State<Admin>, Open(shown): Open, Within(caller): Within) -> Response {
    let broker = shown.broker.clone();
    let pieces = Pieces { broker, caller, page: VecDeque::new(), after: None, step: Step::Begin };
    let body =
        Body::from_stream(stream::try_unfold(pieces, move |pieces| next(admin.workers.clone(), pieces)));
    ([(header::CONTENT_TYPE, "application/json")], body).into_response()
}

/// The next piece, made by a worker.
async fn next(workers: AnswerWorkers, mut pieces: Pieces) -> io::Result<Option<(Bytes, Pieces)>> {
    let made = workers.run(move || pieces.next().map(|piece| (piece, pieces))).await;
    made.map_err(|_| io::Error::other("the document broke off"))
}

struct Pieces {
    broker: Broker,
    caller: Caller,
    /// The topics that come next.
    page: VecDeque<Arc<Topic>>,
    /// The last of them that was looked up.
    after: Option<Arc<str>>,
    step: Step,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    Begin,
    /// A topic stands before what comes next.
    Further,
    Done,
}

impl Iterator for Pieces {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        if self.step == Step::Done {
            return None;
        }
        let mut piece = Vec::with_capacity(2 * PIECE);
        if self.step == Step::Begin {
            piece.extend_from_slice(format!("{{\"version\":{VERSION},\"topics\":[").as_bytes());
        }
        while piece.len() < PIECE && self.step != Step::Done {
            self.add(&mut piece);
        }
        Some(piece.into())
    }
}

impl Pieces {
    /// The next topic, on a line of its own, or the end.
    fn add(&mut self, piece: &mut Vec<u8>) {
        let Some(topic) = self.topic() else {
            piece.extend_from_slice(b"\n]}\n");
            self.step = Step::Done;
            return;
        };
        piece.extend_from_slice(if self.step == Step::Begin { b"\n" } else { b",\n" });
        serde_json::to_writer(&mut *piece, &TopicDefinition::of(&topic))
            .expect("texts and numbers can be written");
        self.step = Step::Further;
    }

    fn topic(&mut self) -> Option<Arc<Topic>> {
        if self.page.is_empty() {
            self.page = page_after(&self.broker.catalog(), &self.caller, self.after.as_deref());
            self.after = self.page.back().map(|last| last.name.clone());
        }
        self.page.pop_front()
    }
}

/// The caller's first topics by name behind one, without those that the broker keeps for itself, and without queues: their protocol's clients declare
/// them.
fn page_after(catalog: &CatalogView, caller: &Caller, after: Option<&str>) -> VecDeque<Arc<Topic>> {
    let mut first: BTreeMap<&str, &Arc<Topic>> = BTreeMap::new();
    let behind = |topic: &&Arc<Topic>| {
        !topic.internal && topic.config.queue().is_none() && after.is_none_or(|after| &*topic.name > after)
    };
    for topic in catalog.topics_of(caller).filter(behind) {
        first.insert(&topic.name, topic);
        if first.len() > PAGE {
            first.pop_last();
        }
    }
    first.into_values().cloned().collect()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DefinitionsDocument {
    /// It comes first, so that a later form is told by it and not by what it has more.
    #[serde(deserialize_with = "this_version", rename = "version")]
    _version: (),
    #[serde(deserialize_with = "so_many")]
    topics: Vec<WantedTopic>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WantedTopic {
    name: String,
    partitions: u32,
    #[serde(default)]
    kind: WantedKind,
    #[serde(default)]
    config: ConfigChange,
    #[serde(default)]
    kept_settings: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum WantedKind {
    #[default]
    Retention,
    Queue,
}

fn this_version<'de, D: Deserializer<'de>>(input: D) -> Result<(), D::Error> {
    match u32::deserialize(input)? {
        VERSION => Ok(()),
        other => {
            Err(D::Error::custom(format!("this broker takes definitions of version {VERSION}, not {other}")))
        }
    }
}

fn so_many<'de, D: Deserializer<'de>>(input: D) -> Result<Vec<WantedTopic>, D::Error> {
    struct List;
    impl<'de> Visitor<'de> for List {
        type Value = Vec<WantedTopic>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "a list of at most {TOPICS} topics")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut input: A) -> Result<Self::Value, A::Error> {
            let mut topics = Vec::new();
            while let Some(topic) = input.next_element()? {
                if topics.len() == TOPICS {
                    return Err(A::Error::invalid_length(TOPICS + 1, &self));
                }
                topics.push(topic);
            }
            Ok(topics)
        }
    }
    input.deserialize_seq(List)
}

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
}

#[derive(Serialize)]
struct ImportedTopic {
    topic: String,
    outcome: &'static str,
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
        plan(&broker, &asker, document.topics)
    };
    let Plan { topics, new } = admin.workers.run(judging).await??;
    if !dry_run {
        create(&shown.broker, &caller, new).await?;
    }
    admin.workers.run(move || Json(DefinitionsImported { dry_run, topics }).into_response()).await
}

#[derive(Default)]
struct Plan {
    topics: Vec<ImportedTopic>,
    new: Vec<NewTopic>,
}

impl Plan {
    fn take(&mut self, topic: String, new: Option<NewTopic>) {
        let outcome = if new.is_some() { "created" } else { "exists" };
        self.topics.push(ImportedTopic { topic, outcome });
        self.new.extend(new);
    }
}

/// What is to be made, or all that stands against it.
fn plan(broker: &Broker, caller: &Caller, wanted: Vec<WantedTopic>) -> Result<Plan, Problem> {
    let (mut plan, mut names, mut refused) = (Plan::default(), HashSet::new(), Vec::new());
    for topic in wanted {
        let name = topic.name.clone();
        if !names.insert(name.clone()) {
            refused.push(Problem::bad_request(format!("topic {name:?} stands in the document twice")));
            continue;
        }
        match judge(broker, caller, topic) {
            Ok(new) => plan.take(name, new),
            Err(problem) => refused.push(problem),
        }
    }
    refused.extend(room(broker, &plan.new).err().map(Problem::from));
    match Problem::all(refused, TOLD) {
        None => Ok(plan),
        Some(problem) => Err(problem),
    }
}

/// The topic to be made, if it is to be made and can be.
fn judge(broker: &Broker, caller: &Caller, wanted: WantedTopic) -> Result<Option<NewTopic>, Problem> {
    let defaults = &broker.options().defaults;
    let WantedTopic { name, partitions, config: change, .. } = &wanted;
    let mut config = defaults.clone();
    change.apply(&mut config, defaults);
    wanted.kept_settings.iter().for_each(|(name, value)| config.kept.set(name, value));
    config.claim(defaults);
    if wanted.kind == WantedKind::Queue {
        config.kind = TopicKind::Queue(Default::default());
    }
    if let Some(there) = broker.catalog().topic_of(caller, name) {
        let mut known = TopicConfig::clone(&there.config);
        known.inherit(defaults);
        let known = TopicDefinition::new(name, there.partitions.len() as u32, &known);
        return same(there, &known, &TopicDefinition::new(name, *partitions, &config)).map(|()| None);
    }
    if wanted.kind == WantedKind::Queue {
        let detail = format!("topic {name:?} is a queue, which the protocol that it belongs to declares");
        return Err(Problem::invalid(detail));
    }
    let WantedTopic { name, partitions, .. } = wanted;
    let topic = NewTopic { name, partitions, config, internal: false, unlike: false };
    let judged = broker.check_new_topic(caller, &topic);
    judged.map_err(|error| Problem::from(error).about(&format!("topic {:?}", topic.name)))?;
    Ok(Some(topic))
}

fn same(there: &Topic, known: &TopicDefinition, wanted: &TopicDefinition) -> Result<(), Problem> {
    let name = &there.name;
    if there.internal {
        return Err(TopicError::Internal((**name).into()).into());
    }
    match known.differences(wanted) {
        none if none.is_empty() => Ok(()),
        found => {
            let detail = format!("topic {name:?} exists and differs ({})", found.join(", "));
            Err(Problem::new(StatusCode::CONFLICT, "topic-exists", detail))
        }
    }
}

/// Whether all together may be.
fn room(broker: &Broker, new: &[NewTopic]) -> Result<(), TopicError> {
    let (options, view) = (broker.options(), broker.catalog());
    let partitions: usize = new.iter().map(|topic| topic.partitions as usize).sum();
    let bytes: usize = new.iter().map(|topic| topic.config.kept.bytes()).sum();
    if view.partitions() + partitions > options.partitions_total_max {
        return Err(TopicError::TooManyPartitions { most: options.partitions_total_max });
    }
    if view.setting_bytes() + bytes > options.settings_max {
        return Err(TopicError::TooManySettings { most: options.settings_max });
    }
    Ok(())
}

/// What was made stays, should something go wrong on the way: the document can be given again.
async fn create(broker: &Broker, caller: &Caller, new: Vec<NewTopic>) -> Result<(), Problem> {
    let (all, mut made, mut new) = (new.len(), 0, new.into_iter());
    while new.len() > 0 {
        let together: Vec<_> = new.by_ref().take(TOGETHER).collect();
        let names: Vec<String> = together.iter().map(|topic| topic.name.clone()).collect();
        let outcomes = broker.create_topics(caller, together).await;
        made += outcomes.iter().filter(|outcome| outcome.is_ok()).count();
        let failed = outcomes.into_iter().zip(names).find_map(|(made, name)| Some((made.err()?, name)));
        if let Some((error, name)) = failed {
            let about = format!(
                "{made} of {all} topics were created, and giving it again goes on from there; topic {name:?}"
            );
            return Err(Problem::from(error).about(&about));
        }
    }
    Ok(())
}

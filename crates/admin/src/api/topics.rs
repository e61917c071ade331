//! Topics: looked at, created, changed, deleted.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::num::NonZero;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use sabir_broker::queue::{QueueStats, SubscriptionStats};
use sabir_broker::{Broker, Caller, NewTopic, ReadTarget, Topic};
use sabir_model::batch::Compression;
use sabir_model::{
    DEFAULT_NAMESPACE, Durability, ShardFailure, Subject, TimestampType, TopicConfig, TopicField, TopicKind,
};
use serde::de::{Error as _, IgnoredAny};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

use super::definitions::QueueSettings;
use super::node::durability;
use super::problem::Problem;
use super::request::{Body, Name, NamePair, Open, Page, Within, WriteAccess};
use super::{Answer, bounded};
use crate::Admin;
use crate::detail::totals;

#[derive(Serialize)]
pub struct TopicList {
    topics: Vec<Summary>,
    next: Option<String>,
}

#[derive(Serialize)]
struct Summary {
    name: String,
    namespace: String,
    id: String,
    internal: bool,
    partitions: usize,
    records: u64,
    bytes: u64,
}

pub async fn list(Open(shown): Open, page: Page) -> Answer<TopicList> {
    page.goes_by(true, false)?;
    let catalog = shown.broker.catalog();
    let wanted = catalog.topics().filter(|topic| page.is_within(&topic.namespace));
    let (topics, next) = page.cut(wanted.map(|topic| (place(topic), topic)), |(place, _)| place);
    let topics = topics.into_iter().map(|(_, topic)| summary(&shown.broker, topic)).collect();
    Ok(Json(TopicList { topics, next }))
}

/// Where it stands in the list: by its name, and those of one name by their namespaces.
fn place(topic: &Topic) -> Cow<'_, str> {
    match &*topic.namespace {
        DEFAULT_NAMESPACE => Cow::Borrowed(&topic.name),
        namespace => Cow::Owned(format!("{}\n{namespace}", topic.name)),
    }
}

fn summary(broker: &Broker, topic: &Topic) -> Summary {
    let (sum, records) = totals(broker, topic);
    Summary {
        name: topic.name.to_string(),
        namespace: topic.namespace.to_string(),
        id: topic.id.to_string(),
        internal: topic.internal,
        partitions: topic.partitions.len(),
        records,
        bytes: sum.bytes,
    }
}

#[derive(Serialize)]
pub struct TopicDetails {
    name: String,
    namespace: String,
    id: String,
    internal: bool,
    version: u64,
    config: Config,
    /// Of a queue alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    queue: Option<QueueSettings>,
    records: u64,
    bytes: u64,
    partitions: Vec<Partition>,
    subscriptions: Vec<Subscription>,
}

/// A subscription of a topic that is no queue, over all partitions.
#[derive(Serialize)]
struct Subscription {
    name: String,
    /// The front end that keeps it for its clients; none where clients made it.
    owner: Option<String>,
    ready: u64,
    in_flight: u64,
    consumers: usize,
}

#[derive(Serialize)]
struct Config {
    retention_ms: Option<i64>,
    retention_bytes: Option<i64>,
    max_message_bytes: u32,
    timestamp: Stamp,
    durability: Option<&'static str>,
    compression: Option<String>,
    kind: &'static str,
    min_insync: u16,
    timestamp_before_max_ms: Option<i64>,
    timestamp_after_max_ms: Option<i64>,
    flush_ms: Option<i64>,
    flush_messages: Option<i64>,
    gzip_level: i32,
    zstd_level: i32,
    own: Vec<&'static str>,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Stamp {
    Create,
    Append,
}

#[derive(Serialize)]
struct Partition {
    partition: i32,
    shard: u32,
    leader: Option<i32>,
    leader_epoch: Option<i32>,
    start: i64,
    end: i64,
    bytes: u64,
}

pub async fn one(Open(shown): Open, Within(caller): Within, Name(name): Name) -> Answer<TopicDetails> {
    Ok(Json(details(&shown.broker, &*find(&shown.broker, &caller, &name)?)))
}

/// The caller's topic of that name.
pub fn find(broker: &Broker, caller: &Caller, name: &str) -> Result<Arc<Topic>, Problem> {
    broker.catalog().topic_of(caller, name).cloned().ok_or_else(|| Problem::unknown_topic(name))
}

fn details(broker: &Broker, topic: &Topic) -> TopicDetails {
    let (sum, records) = totals(broker, topic);
    TopicDetails {
        name: topic.name.to_string(),
        namespace: topic.namespace.to_string(),
        id: topic.id.to_string(),
        internal: topic.internal,
        version: topic.version,
        config: config(&topic.config),
        queue: topic.config.queue().map(|queue| QueueSettings::of(queue)),
        records,
        bytes: sum.bytes,
        partitions: topic.partitions.iter().map(|p| partition(broker, topic, p)).collect(),
        subscriptions: subscriptions(broker, topic),
    }
}

/// None while a shard of the topic is not led here: nothing is known of them then.
fn subscriptions(broker: &Broker, topic: &Topic) -> Vec<Subscription> {
    let all = broker.subscriptions(&Caller::OPERATOR, topic).unwrap_or_default();
    let one = |SubscriptionStats { name, owner, queue: QueueStats { ready, in_flight, consumers, .. } }| {
        Subscription { name: name.into(), owner: owner.map(Into::into), ready, in_flight, consumers }
    };
    all.into_iter().map(one).collect()
}

/// Removes a subscription of a topic, which any protocol may have made.
pub async fn unsubscribe(
    _: WriteAccess,
    Open(shown): Open,
    Within(caller): Within,
    NamePair(name, subscription): NamePair,
) -> Result<StatusCode, Problem> {
    let topic = find(&shown.broker, &caller, &name)?;
    if shown.broker.unsubscribe(&caller, &topic, &subscription).await? {
        return Ok(StatusCode::NO_CONTENT);
    }
    let subject = Subject::Subscription { topic: name.into(), name: subscription.into() };
    let detail = format!("there is no {subject}");
    Err(Problem::new(StatusCode::NOT_FOUND, "unknown-subscription", detail))
}

fn config(config: &TopicConfig) -> Config {
    Config {
        retention_ms: config.retention_ms,
        retention_bytes: config.retention_bytes,
        max_message_bytes: config.max_message_bytes,
        timestamp: match config.timestamp_type {
            TimestampType::CreateTime => Stamp::Create,
            TimestampType::LogAppendTime => Stamp::Append,
        },
        durability: config.durability.map(durability),
        compression: config.compression.map(|compression| compression.to_string()),
        kind: kind(&config.kind),
        min_insync: config.min_insync,
        timestamp_before_max_ms: bounded(config.timestamp_before_max_ms),
        timestamp_after_max_ms: bounded(config.timestamp_after_max_ms),
        flush_ms: config.flush_ms,
        flush_messages: config.flush_messages,
        gzip_level: config.gzip_level,
        zstd_level: config.zstd_level,
        own: TopicField::ALL.iter().filter(|field| config.owns(**field)).map(|field| field.name()).collect(),
    }
}

/// What a topic sets for itself, by name.
pub fn own_settings(topic: &TopicConfig) -> Map<String, Value> {
    let Ok(Value::Object(mut settings)) = serde_json::to_value(config(topic)) else { return Map::new() };
    settings.retain(|name, _| TopicField::ALL.iter().any(|field| topic.owns(*field) && field.name() == name));
    settings
}

pub fn kind(kind: &TopicKind) -> &'static str {
    match kind {
        TopicKind::Retention => "retention",
        TopicKind::Queue(_) => "queue",
    }
}

fn partition(broker: &Broker, topic: &Topic, partition: &sabir_broker::Partition) -> Partition {
    let led = broker.leadership(partition.shard).filter(|(_, leads)| *leads);
    let target = ReadTarget::new(&Caller::OPERATOR, topic, partition.index);
    let stats = target.and_then(|target| broker.partition_stats(target)).unwrap_or_default();
    Partition {
        partition: partition.index,
        shard: partition.shard.0,
        leader: led.map(|_| broker.node_id().0),
        leader_epoch: led.map(|(term, _)| partition.leader_epoch(term).0),
        start: stats.start.0,
        end: stats.end.0,
        bytes: stats.bytes,
    }
}

/// What is to be changed of a configuration: what is absent stays.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct ConfigChange {
    #[serde(deserialize_with = "present")]
    retention_ms: Option<Option<i64>>,
    #[serde(deserialize_with = "present")]
    retention_bytes: Option<Option<i64>>,
    max_message_bytes: Option<u32>,
    timestamp: Option<Stamp>,
    #[serde(deserialize_with = "present")]
    durability: Option<Option<Promise>>,
    #[serde(deserialize_with = "present")]
    compression: Option<Option<Codec>>,
    min_insync: Option<NonZero<u16>>,
    #[serde(deserialize_with = "present")]
    timestamp_before_max_ms: Option<Option<i64>>,
    #[serde(deserialize_with = "present")]
    timestamp_after_max_ms: Option<Option<i64>>,
    #[serde(deserialize_with = "present")]
    flush_ms: Option<Option<i64>>,
    #[serde(deserialize_with = "present")]
    flush_messages: Option<Option<i64>>,
    gzip_level: Option<i32>,
    zstd_level: Option<i32>,
    #[serde(flatten, deserialize_with = "no_other_setting")]
    _rest: (),
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Codec {
    None,
    Gzip,
    Snappy,
    Lz4,
    Zstd,
}

impl From<Codec> for Compression {
    fn from(codec: Codec) -> Self {
        match codec {
            Codec::None => Self::None,
            Codec::Gzip => Self::Gzip,
            Codec::Snappy => Self::Snappy,
            Codec::Lz4 => Self::Lz4,
            Codec::Zstd => Self::Zstd,
        }
    }
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Promise {
    Sync,
    Os,
}

/// Null is something else than nothing.
fn present<'de, D: Deserializer<'de>, T: Deserialize<'de>>(input: D) -> Result<Option<Option<T>>, D::Error> {
    Option::deserialize(input).map(Some)
}

/// Refuses a name beside those that are known here, and says which those are. What is shown and cannot be changed is not among them.
fn refuse_others<'de, D: Deserializer<'de>>(input: D, known: &[&str]) -> Result<(), D::Error> {
    let others = BTreeMap::<String, IgnoredAny>::deserialize(input)?;
    let Some(name) = others.into_keys().next() else { return Ok(()) };
    let why = match &*name {
        "name" | "namespace" | "id" | "internal" | "kind" => {
            "it cannot be changed: a topic keeps what it was made with; leave it out"
        }
        "version" | "records" | "bytes" | "own" => {
            "it cannot be changed: it follows from the topic's records and settings; leave it out"
        }
        "subscriptions" => {
            "it cannot be changed: who consumes makes them; one is removed by DELETE /sabir/v1/topics/{name}/subscriptions/{subscription}"
        }
        _ => {
            return Err(D::Error::custom(format!(
                "unknown field `{name}`, expected one of `{}`",
                known.join("`, `")
            )));
        }
    };
    Err(D::Error::custom(format!("{name}: {why}")))
}

fn no_other_setting<'de, D: Deserializer<'de>>(input: D) -> Result<(), D::Error> {
    refuse_others(input, &TopicField::ALL.map(TopicField::name))
}

fn no_other_queue_setting<'de, D: Deserializer<'de>>(input: D) -> Result<(), D::Error> {
    let others = BTreeMap::<String, IgnoredAny>::deserialize(input)?;
    let Some(name) = others.into_keys().next() else { return Ok(()) };
    Err(D::Error::custom(format!(
        "{name}: it cannot be changed: a queue keeps what it was declared with, but for consume_rate and consume_burst; leave it out"
    )))
}

fn no_other_change<'de, D: Deserializer<'de>>(input: D) -> Result<(), D::Error> {
    refuse_others(input, &["partitions", "config", "queue", "unset", "dry_run"])
}

/// What is to be changed of what holds for a queue alone: what is absent stays.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct QueueChange {
    #[serde(deserialize_with = "present")]
    consume_rate: Option<Option<u32>>,
    #[serde(deserialize_with = "present")]
    consume_burst: Option<Option<u32>>,
    #[serde(flatten, deserialize_with = "no_other_queue_setting")]
    _rest: (),
}

impl QueueChange {
    /// A burst goes with its rate, unless another one is said.
    fn apply(&self, config: &mut TopicConfig) -> Result<(), Problem> {
        let TopicKind::Queue(queue) = &mut config.kind else {
            return Err(Problem::invalid("queue: the topic is no queue"));
        };
        let queue = Arc::make_mut(queue);
        if let Some(rate) = self.consume_rate {
            queue.consume_rate = rate;
            queue.consume_burst = queue.consume_burst.filter(|_| rate.is_some());
        }
        queue.consume_burst = self.consume_burst.unwrap_or(queue.consume_burst);
        Ok(())
    }
}

impl ConfigChange {
    /// What is said is the topic's own, also where the node has the same. What can be is for the broker to judge.
    pub fn apply(&self, config: &mut TopicConfig, defaults: &TopicConfig) {
        if let Some(ms) = self.retention_ms {
            config.retention_ms = ms;
            config.own(TopicField::RetentionMs);
        }
        if let Some(bytes) = self.retention_bytes {
            config.retention_bytes = bytes;
            config.own(TopicField::RetentionBytes);
        }
        if let Some(bytes) = self.max_message_bytes {
            config.max_message_bytes = bytes;
            config.own(TopicField::MaxMessageBytes);
        }
        if let Some(stamp) = self.timestamp {
            config.timestamp_type = match stamp {
                Stamp::Create => TimestampType::CreateTime,
                Stamp::Append => TimestampType::LogAppendTime,
            };
            config.own(TopicField::TimestampType);
        }
        self.apply_to_new_batches(config);
        self.apply_to_flushes(config, defaults);
    }

    /// What holds for batches that come from now on.
    fn apply_to_new_batches(&self, config: &mut TopicConfig) {
        if let Some(codec) = self.compression {
            config.compression = codec.map(Compression::from);
            config.own(TopicField::Compression);
        }
        if let Some(level) = self.gzip_level {
            config.gzip_level = level;
            config.own(TopicField::GzipLevel);
        }
        if let Some(level) = self.zstd_level {
            config.zstd_level = level;
            config.own(TopicField::ZstdLevel);
        }
        if let Some(replicas) = self.min_insync {
            config.min_insync = replicas.get();
            config.own(TopicField::MinInsync);
        }
        if let Some(bound) = self.timestamp_before_max_ms {
            config.timestamp_before_max_ms = bound.unwrap_or(i64::MAX);
            config.own(TopicField::TimestampBeforeMaxMs);
        }
        if let Some(bound) = self.timestamp_after_max_ms {
            config.timestamp_after_max_ms = bound.unwrap_or(i64::MAX);
            config.own(TopicField::TimestampAfterMaxMs);
        }
    }

    /// When records reach the disk.
    fn apply_to_flushes(&self, config: &mut TopicConfig, defaults: &TopicConfig) {
        if let Some(bound) = self.flush_ms {
            config.flush_ms = bound;
            config.own(TopicField::FlushMs);
        }
        if let Some(bound) = self.flush_messages {
            config.flush_messages = bound;
            config.own(TopicField::FlushMessages);
        }
        match self.durability {
            None => {}
            Some(None) => config.disown(TopicField::Durability, defaults),
            Some(Some(promise)) => {
                config.durability = Some(match promise {
                    Promise::Sync => Durability::Sync,
                    Promise::Os => Durability::Os,
                });
                config.own(TopicField::Durability);
            }
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewTopicRequest {
    name: String,
    #[serde(default = "one_partition")]
    partitions: u32,
    #[serde(default)]
    config: ConfigChange,
    #[serde(default)]
    dry_run: bool,
}

fn one_partition() -> u32 {
    1
}

pub async fn create(
    _: WriteAccess,
    Open(shown): Open,
    State(admin): State<Admin>,
    Within(caller): Within,
    Body(wanted): Body<NewTopicRequest>,
) -> Result<Response, Problem> {
    let broker = &shown.broker;
    let mut config = broker.options().defaults.clone();
    wanted.config.apply(&mut config, &broker.options().defaults);
    let NewTopicRequest { name, partitions, dry_run, .. } = wanted;
    let topic = NewTopic { name, partitions, config, internal: false, unlike: false };
    if dry_run {
        broker.check_new_topic(&caller, &topic)?;
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let mut made = broker.create_topics(&caller, vec![topic]).await;
    let topic = made.pop().unwrap_or(Err(ShardFailure::Timeout.into()))?;
    let place = location(&topic);
    let broker = shown.broker.clone();
    let described = move || Json(details(&broker, &topic)).into_response();
    let answer = admin.workers.run(described).await?;
    Ok((StatusCode::CREATED, [(header::LOCATION, place)], answer).into_response())
}

/// Where a topic is described.
fn location(topic: &Topic) -> String {
    let path = format!("{}/topics/{}", super::PREFIX, escaped(&topic.name));
    match &*topic.namespace {
        DEFAULT_NAMESPACE => path,
        namespace => format!("{path}?namespace={}", escaped(namespace)),
    }
}

/// A name as a part of a path, or a value in a query.
fn escaped(name: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-' | b'~');
    let escape = |b: u8| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") };
    name.bytes().map(escape).collect()
}

/// What is to be changed of what is shown: what is absent stays.
#[derive(Default, Deserialize)]
#[serde(default)]
pub struct Change {
    #[serde(deserialize_with = "count")]
    partitions: Option<u32>,
    config: Option<ConfigChange>,
    queue: Option<QueueChange>,
    unset: Vec<Unset>,
    dry_run: bool,
    #[serde(flatten, deserialize_with = "no_other_change")]
    _rest: (),
}

/// A setting that the topic is to have no longer: the node's default holds for it again.
#[derive(Debug, Clone, Copy)]
struct Unset(TopicField);

impl<'de> Deserialize<'de> for Unset {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        let name = String::deserialize(input)?;
        let field = TopicField::ALL.into_iter().find(|field| field.name() == name);
        field.map(Self).ok_or_else(|| {
            let known = TopicField::ALL.map(TopicField::name).join("`, `");
            D::Error::custom(format!("unknown setting `{name}`, expected one of `{known}`"))
        })
    }
}

/// How many partitions there are to be; a list of them, as it is shown, changes nothing.
fn count<'de, D: Deserializer<'de>>(input: D) -> Result<Option<u32>, D::Error> {
    let count: Result<Option<u32>, _> = Option::deserialize(input);
    count.map_err(|error| {
        D::Error::custom(format!("{error}: only how many there are can be changed, given as a number"))
    })
}

pub async fn change(
    _: WriteAccess,
    Open(shown): Open,
    State(admin): State<Admin>,
    Within(caller): Within,
    Name(name): Name,
    Body(change): Body<Change>,
) -> Result<Response, Problem> {
    let broker = &shown.broker;
    let mut topic = find(broker, &caller, &name)?;
    let more = change.partitions.filter(|count| *count as usize != topic.partitions.len());
    // Before the configuration is changed, or a request that is refused would have done half.
    if let Some(count) = more {
        broker
            .check_new_partitions(&caller, topic.id, count)
            .map_err(|error| Problem::of_topic(error, &name))?;
    }
    let apply = |config: &mut TopicConfig| change.apply(config, &broker.options().defaults);
    if change.dry_run {
        broker
            .check_change(&caller, topic.id, apply)
            .map_err(|error: Problem| Problem::of_topic(error, &name))?;
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    if change.config.is_some() || change.queue.is_some() || !change.unset.is_empty() {
        let changed = broker.change_topic(&caller, topic.id, apply).await;
        topic = changed.map_err(|error: Problem| Problem::of_topic(error, &name))?;
    }
    if let Some(count) = more {
        let extended = broker.create_partitions(&caller, topic.id, count).await;
        topic = extended.map_err(|error| Problem::of_topic(error, &name))?;
    }
    let broker = shown.broker.clone();
    admin.workers.run(move || Json(details(&broker, &topic)).into_response()).await
}

impl Change {
    fn apply(&self, config: &mut TopicConfig, defaults: &TopicConfig) -> Result<(), Problem> {
        self.unset.iter().for_each(|unset| config.disown(unset.0, defaults));
        if let Some(wanted) = &self.config {
            wanted.apply(config, defaults);
        }
        self.queue.as_ref().map_or(Ok(()), |wanted| wanted.apply(config))
    }
}

pub async fn remove(
    _: WriteAccess,
    Open(shown): Open,
    Within(caller): Within,
    Name(name): Name,
) -> Result<StatusCode, Problem> {
    let topic = find(&shown.broker, &caller, &name)?;
    let gone = shown.broker.delete_topics(&caller, vec![topic.id]).await.pop();
    gone.unwrap_or(Ok(())).map_err(|error| Problem::of_topic(error, &name))?;
    Ok(StatusCode::NO_CONTENT)
}

//! Topics: looked at, created, changed, deleted.

use std::num::NonZero;
use std::sync::Arc;

use axum::Json;
use axum::http::{HeaderName, StatusCode, header};
use sabir_broker::{Broker, BrokerOptions, NewTopic, Topic};
use sabir_model::batch::Compression;
use sabir_model::{Durability, FrontEndNo, TimestampType, TopicConfig, TopicField, TopicKind};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};

use super::node::durability;
use super::problem::Problem;
use super::request::{Body, Name, Open, Page, Writer};
use super::{Answer, bounded};
use crate::detail::totals;

/// As many bytes as a batch can have anywhere.
const LARGEST_MESSAGE: u32 = 1 << 30;
/// Settings kept with a topic that ask for a flush, and from where on a topic of durability `os` grants them: it is flushed within a
/// second, whatever has come. Front ends that take these settings hold them to the same.
const FLUSHES: [(&str, i64); 2] = [("flush.messages", i64::MAX), ("flush.ms", 1000)];

#[derive(Serialize)]
pub struct Topics {
    topics: Vec<Summary>,
    next: Option<String>,
}

#[derive(Serialize)]
struct Summary {
    name: String,
    id: String,
    internal: bool,
    partitions: usize,
    records: u64,
    bytes: u64,
}

pub async fn list(Open(shown): Open, page: Page) -> Json<Topics> {
    let catalog = shown.broker.catalog();
    let (topics, next) = page.cut(catalog.topics(), |topic| &topic.name);
    Json(Topics { topics: topics.into_iter().map(|topic| summary(&shown.broker, topic)).collect(), next })
}

fn summary(broker: &Broker, topic: &Topic) -> Summary {
    let (sum, records) = totals(broker, topic);
    Summary {
        name: topic.name.to_string(),
        id: topic.id.to_string(),
        internal: topic.internal,
        partitions: topic.partitions.len(),
        records,
        bytes: sum.bytes,
    }
}

#[derive(Serialize)]
pub struct Details {
    name: String,
    id: String,
    internal: bool,
    version: u64,
    config: Config,
    records: u64,
    bytes: u64,
    partitions: Vec<Partition>,
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

pub async fn one(Open(shown): Open, Name(name): Name) -> Answer<Details> {
    Ok(Json(details(&shown.broker, &*find(&shown.broker, &name)?)))
}

/// The topic of that name.
pub fn find(broker: &Broker, name: &str) -> Result<Arc<Topic>, Problem> {
    broker.catalog().topic(name).cloned().ok_or_else(|| Problem::unknown_topic(name))
}

fn details(broker: &Broker, topic: &Topic) -> Details {
    let (sum, records) = totals(broker, topic);
    Details {
        name: topic.name.to_string(),
        id: topic.id.to_string(),
        internal: topic.internal,
        version: topic.version,
        config: config(&topic.config),
        records,
        bytes: sum.bytes,
        partitions: topic.partitions.iter().map(|p| partition(broker, p)).collect(),
    }
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
        kind: match config.kind {
            TopicKind::Retention => "retention",
            TopicKind::Queue => "queue",
        },
        min_insync: config.min_insync,
        timestamp_before_max_ms: bounded(config.timestamp_before_max_ms),
        timestamp_after_max_ms: bounded(config.timestamp_after_max_ms),
        own: OWN.iter().filter(|(field, _)| config.owns(*field)).map(|(_, name)| *name).collect(),
    }
}

/// What a topic may have of its own, by the names it has here.
const OWN: &[(TopicField, &str)] = &[
    (TopicField::RetentionMs, "retention_ms"),
    (TopicField::RetentionBytes, "retention_bytes"),
    (TopicField::MaxMessageBytes, "max_message_bytes"),
    (TopicField::TimestampType, "timestamp"),
    (TopicField::Durability, "durability"),
    (TopicField::Compression, "compression"),
    (TopicField::MinInsync, "min_insync"),
    (TopicField::TimestampBeforeMaxMs, "timestamp_before_max_ms"),
    (TopicField::TimestampAfterMaxMs, "timestamp_after_max_ms"),
];

fn partition(broker: &Broker, partition: &sabir_broker::Partition) -> Partition {
    let led = broker.leadership(partition.shard).filter(|(_, leads)| *leads);
    let stats = broker.partition_stats(partition.shard, partition.id).unwrap_or_default();
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
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct ConfigChange {
    #[serde(deserialize_with = "said")]
    retention_ms: Option<Option<i64>>,
    #[serde(deserialize_with = "said")]
    retention_bytes: Option<Option<i64>>,
    max_message_bytes: Option<u32>,
    timestamp: Option<Stamp>,
    #[serde(deserialize_with = "said")]
    durability: Option<Option<Promise>>,
    #[serde(deserialize_with = "said")]
    compression: Option<Option<Codec>>,
    min_insync: Option<NonZero<u16>>,
    #[serde(deserialize_with = "said")]
    timestamp_before_max_ms: Option<Option<i64>>,
    #[serde(deserialize_with = "said")]
    timestamp_after_max_ms: Option<Option<i64>>,
    #[serde(rename = "kind", deserialize_with = "fixed")]
    _kind: (),
    #[serde(rename = "own", deserialize_with = "follows")]
    _own: (),
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
fn said<'de, D: Deserializer<'de>, T: Deserialize<'de>>(input: D) -> Result<Option<Option<T>>, D::Error> {
    Option::deserialize(input).map(Some)
}

/// Refuses what a topic keeps for good.
fn fixed<'de, D: Deserializer<'de>>(_: D) -> Result<(), D::Error> {
    Err(D::Error::custom("it cannot be changed: a topic keeps what it was made with; leave it out"))
}

/// Refuses what is shown and not set.
fn follows<'de, D: Deserializer<'de>>(_: D) -> Result<(), D::Error> {
    Err(D::Error::custom(
        "it cannot be changed: it follows from the topic's records and settings; leave it out",
    ))
}

impl ConfigChange {
    /// What is said is the topic's own, also where the node has the same.
    fn apply(self, config: &mut TopicConfig, node: &BrokerOptions) -> Result<(), Problem> {
        if let Some(ms) = self.retention_ms {
            config.retention_ms = not_negative("retention_ms", ms)?;
            config.own(TopicField::RetentionMs);
        }
        if let Some(bytes) = self.retention_bytes {
            config.retention_bytes = not_negative("retention_bytes", bytes)?;
            config.own(TopicField::RetentionBytes);
        }
        if let Some(bytes) = self.max_message_bytes {
            if bytes > LARGEST_MESSAGE {
                return Err(Problem::invalid(format!("max_message_bytes: at most {LARGEST_MESSAGE}")));
            }
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
        self.apply_to_new_batches(config)?;
        match self.durability {
            None => return Ok(()),
            Some(None) => config.disown(TopicField::Durability, &node.defaults),
            Some(Some(promise)) => {
                config.durability = Some(match promise {
                    Promise::Sync => Durability::Sync,
                    Promise::Os => Durability::Os,
                });
                config.own(TopicField::Durability);
            }
        }
        flushed_as_asked(config, node.durability)
    }
}

impl ConfigChange {
    /// What holds for batches that come from now on.
    fn apply_to_new_batches(&self, config: &mut TopicConfig) -> Result<(), Problem> {
        if let Some(codec) = self.compression {
            config.compression = codec.map(Compression::from);
            config.own(TopicField::Compression);
        }
        if let Some(replicas) = self.min_insync {
            config.min_insync = replicas.get();
            config.own(TopicField::MinInsync);
        }
        if let Some(bound) = self.timestamp_before_max_ms {
            let bound = not_negative("timestamp_before_max_ms", bound)?;
            config.timestamp_before_max_ms = bound.unwrap_or(i64::MAX);
            config.own(TopicField::TimestampBeforeMaxMs);
        }
        if let Some(bound) = self.timestamp_after_max_ms {
            let bound = not_negative("timestamp_after_max_ms", bound)?;
            config.timestamp_after_max_ms = bound.unwrap_or(i64::MAX);
            config.own(TopicField::TimestampAfterMaxMs);
        }
        Ok(())
    }
}

/// Refuses durability `os` for a topic that asks for more.
fn flushed_as_asked(config: &TopicConfig, node: Durability) -> Result<(), Problem> {
    if config.durability.unwrap_or(node) == Durability::Sync {
        return Ok(());
    }
    for (name, granted) in FLUSHES {
        let asked = config.kept.get(name).and_then(|value| value.parse::<i64>().ok());
        if let Some(asked) = asked.filter(|asked| *asked < granted) {
            return Err(Problem::invalid(format!(
                "durability: the topic has {name}={asked}, and with \"os\" it is flushed within a second and not sooner; take {name} \
                 away, or say \"sync\", which flushes everything before it is acknowledged"
            )));
        }
    }
    Ok(())
}

fn not_negative(key: &str, bound: Option<i64>) -> Result<Option<i64>, Problem> {
    match bound {
        Some(bound) if bound < 0 => Err(Problem::invalid(format!("{key}: a number from 0 on, or null"))),
        bound => Ok(bound),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wanted {
    name: String,
    #[serde(default = "one_partition")]
    partitions: u32,
    #[serde(default)]
    config: ConfigChange,
}

fn one_partition() -> u32 {
    1
}

type Created = (StatusCode, [(HeaderName, String); 1], Json<Details>);

pub async fn create(_: Writer, Open(shown): Open, Body(wanted): Body<Wanted>) -> Result<Created, Problem> {
    let broker = &shown.broker;
    let mut config = broker.options().defaults.clone();
    wanted.config.apply(&mut config, broker.options())?;
    let Wanted { name, partitions, .. } = wanted;
    let topic = NewTopic {
        name: name.clone(),
        partitions,
        config,
        internal: false,
        unlike: true,
        made_by: FrontEndNo::NONE,
    };
    let made = broker.create_topics(vec![topic]).await.pop();
    let topic = made
        .unwrap_or(Err(sabir_model::ErrorKind::InvalidRequest))
        .map_err(|error| Problem::refused(&format!("topic {name:?}"), error))?;
    let place = format!("{}/topics/{}", super::PREFIX, escaped(&name));
    Ok((StatusCode::CREATED, [(header::LOCATION, place)], Json(details(broker, &topic))))
}

/// A name as a part of a path.
fn escaped(name: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-' | b'~');
    let escape = |b: u8| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") };
    name.bytes().map(escape).collect()
}

/// What is to be changed of what is shown: what is absent stays.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Change {
    #[serde(deserialize_with = "count")]
    partitions: Option<u32>,
    config: Option<ConfigChange>,
    #[serde(rename = "name", deserialize_with = "fixed")]
    _name: (),
    #[serde(rename = "id", deserialize_with = "fixed")]
    _id: (),
    #[serde(rename = "internal", deserialize_with = "fixed")]
    _internal: (),
    #[serde(rename = "version", deserialize_with = "follows")]
    _version: (),
    #[serde(rename = "records", deserialize_with = "follows")]
    _records: (),
    #[serde(rename = "bytes", deserialize_with = "follows")]
    _bytes: (),
}

/// How many partitions there are to be; a list of them, as it is shown, changes nothing.
fn count<'de, D: Deserializer<'de>>(input: D) -> Result<Option<u32>, D::Error> {
    let count: Result<Option<u32>, _> = Option::deserialize(input);
    count.map_err(|error| {
        D::Error::custom(format!("{error}: only how many there are can be changed, given as a number"))
    })
}

pub async fn change(
    _: Writer,
    Open(shown): Open,
    Name(name): Name,
    Body(change): Body<Change>,
) -> Answer<Details> {
    let broker = &shown.broker;
    let mut topic = find_ordinary(broker, &name)?;
    let refused = |error| Problem::refused(&format!("topic {name:?}"), error);
    // Before the configuration is changed, or a request that is refused would have done half.
    if let Some(count) = change.partitions {
        can_have(&topic, count, broker.options().partitions_max)?;
    }
    if let Some(change) = change.config {
        let _turn = broker.configuring().await;
        let mut config = find(broker, &name)?.config.clone();
        change.apply(&mut config, broker.options())?;
        topic = broker.configure_topic(topic.id, config).await.map_err(refused)?;
    }
    if let Some(count) = change.partitions.filter(|count| *count as usize != topic.partitions.len()) {
        topic = broker.create_partitions(topic.id, count).await.map_err(refused)?;
    }
    Ok(Json(details(broker, &topic)))
}

/// A topic that may be changed.
fn find_ordinary(broker: &Broker, name: &str) -> Result<Arc<Topic>, Problem> {
    let topic = find(broker, name)?;
    if topic.internal { Err(Problem::internal_topic(name)) } else { Ok(topic) }
}

fn can_have(topic: &Topic, count: u32, most: u32) -> Result<(), Problem> {
    let now = topic.partitions.len() as u32;
    if count == now || (now..=most).contains(&count) {
        return Ok(());
    }
    let name = &topic.name;
    Err(Problem::invalid(format!("partitions: topic {name:?} has {now}; it can have more, up to {most}")))
}

pub async fn remove(_: Writer, Open(shown): Open, Name(name): Name) -> Result<StatusCode, Problem> {
    let topic = find_ordinary(&shown.broker, &name)?;
    let gone = shown.broker.delete_topics(vec![topic.id]).await.pop().unwrap_or(Ok(()));
    gone.map(|()| StatusCode::NO_CONTENT).map_err(|error| Problem::refused(&format!("topic {name:?}"), error))
}

//! The administration of topics by way of the admin port, by its names for their settings.

use hyper::Method;
use sabir_server::client::{
    ClientError, Failure, LocalFuture, PartitionInfo, Position, SettingChange, Start, TopicAdmin, TopicInfo,
    TopicSetting, TopicSpec,
};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{AdminClient, escaped};

/// What can be changed of that which holds for a queue alone.
const OF_QUEUES: [&str; 2] = ["consume_rate", "consume_burst"];

/// Topics asked for at once.
const PAGE: usize = 1000;

#[derive(Deserialize)]
struct ListedTopics {
    topics: Vec<ListedTopic>,
    next: Option<String>,
}

#[derive(Deserialize)]
struct ListedTopic {
    name: String,
    /// Absent where a broker of an earlier version answers.
    namespace: Option<String>,
    id: String,
    internal: bool,
    partitions: i32,
}

#[derive(Deserialize)]
struct ShownTopic {
    name: String,
    id: String,
    internal: bool,
    config: Map<String, Value>,
    /// Absent of a topic that is no queue, and where a broker of an earlier version answers.
    queue: Option<Map<String, Value>>,
    partitions: Vec<ShownPartition>,
}

#[derive(Deserialize)]
struct ShownPartition {
    partition: i32,
    leader: Option<i32>,
    start: i64,
    end: i64,
}

#[derive(Deserialize)]
struct LeftRecords {
    partitions: Vec<LeftInPartition>,
}

#[derive(Deserialize)]
struct LeftInPartition {
    partition: i32,
    start: i64,
}

impl ShownPartition {
    fn place(&self, start: Start) -> Result<Position, ClientError> {
        let Self { partition, start: first, end, .. } = *self;
        let next = match start {
            Start::Earliest => first,
            Start::Latest => end,
            Start::Offset(offset) => offset,
            Start::Last(count) => first.max(end.saturating_sub(count.into())),
            Start::Time(_) => {
                let problem = "the admin port looks up no times: name an offset, earliest or latest";
                return Err(ClientError::new(Failure::Unsupported, problem));
            }
        };
        Ok(Position { partition, first, next, end })
    }
}

impl From<ListedTopic> for TopicInfo {
    fn from(topic: ListedTopic) -> Self {
        let partition = |index| PartitionInfo { index, ..PartitionInfo::default() };
        Self {
            name: topic.name,
            id: Some(topic.id),
            internal: topic.internal,
            partitions: (0..topic.partitions).map(partition).collect(),
        }
    }
}

impl From<ShownTopic> for TopicInfo {
    fn from(topic: ShownTopic) -> Self {
        let partition = |p: ShownPartition| PartitionInfo {
            index: p.partition,
            leader: p.leader,
            offsets: Some((p.start, p.end)),
            ..PartitionInfo::default()
        };
        Self {
            name: topic.name,
            id: Some(topic.id),
            internal: topic.internal,
            partitions: topic.partitions.into_iter().map(partition).collect(),
        }
    }
}

impl AdminClient {
    fn topic_path(&self, name: &str, below: &str) -> String {
        format!("/topics/{}{below}{}", escaped(name), self.owner.of_topics(""))
    }

    async fn topic(&self, name: &str) -> Result<ShownTopic, ClientError> {
        self.get(&self.topic_path(name, "")).await
    }

    async fn patch_topic(&self, name: &str, change: Value) -> Result<(), ClientError> {
        self.order(Method::PATCH, &self.topic_path(name, ""), Some(change)).await
    }

    /// What each setting does, by name; empty where that is not told.
    async fn setting_helps(&self) -> Map<String, Value> {
        let mut description: Value = self.get("/openapi.json").await.unwrap_or_default();
        let mut helps = Map::new();
        for schema in ["QueueSettings", "TopicConfig"] {
            let properties = description.pointer_mut(&format!("/components/schemas/{schema}/properties"));
            if let Some(Value::Object(properties)) = properties.map(Value::take) {
                helps.extend(properties);
            }
        }
        helps
    }
}

impl TopicAdmin for AdminClient {
    fn list(&mut self) -> LocalFuture<'_, Vec<TopicInfo>> {
        Box::pin(async move {
            let mut all: Vec<TopicInfo> = Vec::new();
            // Where none is named, those of the default one are meant, and all are listed.
            let wanted = self.owner.namespace.clone().unwrap_or_else(|| "/".to_owned());
            let mut rest = format!("limit={PAGE}");
            loop {
                let path = format!("/topics{}", self.owner.of_topics(&rest));
                let mut part: ListedTopics = self.get(&path).await?;
                part.topics.retain(|topic| topic.namespace.as_ref().is_none_or(|is_in| *is_in == wanted));
                all.extend(part.topics.into_iter().map(TopicInfo::from));
                let Some(next) = part.next else { return Ok(all) };
                rest = format!("limit={PAGE}&after={}", escaped(&next));
            }
        })
    }

    fn describe<'a>(&'a mut self, name: &'a str) -> LocalFuture<'a, TopicInfo> {
        Box::pin(async move { Ok(self.topic(name).await?.into()) })
    }

    /// A time is not looked up: that is a protocol's to tell.
    fn places<'a>(
        &'a mut self,
        name: &'a str,
        partition: Option<i32>,
        start: Start,
    ) -> LocalFuture<'a, Vec<Position>> {
        Box::pin(async move {
            let mut partitions = self.topic(name).await?.partitions;
            partitions.retain(|p| partition.is_none_or(|only| p.partition == only));
            if let (Some(only), true) = (partition, partitions.is_empty()) {
                let problem = format!("topic {name} has no partition {only}");
                return Err(ClientError::new(Failure::NotFound, problem));
            }
            partitions.iter().map(|p| p.place(start)).collect()
        })
    }

    fn create(&mut self, topic: TopicSpec) -> LocalFuture<'_, ()> {
        Box::pin(async move {
            let config: Map<String, Value> =
                topic.configs.into_iter().map(|(name, value)| (name, setting_value(&value))).collect();
            let mut wanted = json!({"name": topic.name, "config": config, "dry_run": topic.dry_run});
            if let Some(partitions) = topic.partitions {
                wanted["partitions"] = partitions.into();
            }
            let path = format!("/topics{}", self.owner.of_topics(""));
            self.order(Method::POST, &path, Some(wanted)).await
        })
    }

    fn delete<'a>(&'a mut self, name: &'a str) -> LocalFuture<'a, ()> {
        Box::pin(async move { self.order(Method::DELETE, &self.topic_path(name, ""), None).await })
    }

    fn settings<'a>(&'a mut self, name: &'a str) -> LocalFuture<'a, Vec<TopicSetting>> {
        Box::pin(async move {
            let ShownTopic { mut config, queue, .. } = self.topic(name).await?;
            let own = config.remove("own").unwrap_or_default();
            let helps = self.setting_helps().await;
            let setting = |name: String, value: Value, own: bool, read_only: bool| TopicSetting {
                help: helps.get(&name).and_then(|help| help["description"].as_str()).map(str::to_owned),
                value: Some(setting_text(value)),
                own,
                read_only,
                name,
            };
            let is_own = |name: &str| own.as_array().is_some_and(|own| own.iter().any(|one| one == name));
            let of_topic = config.into_iter().map(|(name, value)| {
                let (own, read_only) = (is_own(&name), name == "kind");
                setting(name, value, own, read_only)
            });
            let of_queue = queue.into_iter().flat_map(|mut queue| {
                for name in OF_QUEUES {
                    queue.entry(name).or_insert(Value::Null);
                }
                queue
            });
            let of_queue = of_queue.map(|(name, value)| {
                let (own, read_only) = (!value.is_null(), !OF_QUEUES.contains(&&*name));
                setting(name, value, own, read_only)
            });
            Ok(of_topic.chain(of_queue).collect())
        })
    }

    fn change<'a>(
        &'a mut self,
        name: &'a str,
        changes: &'a [SettingChange],
        dry_run: bool,
    ) -> LocalFuture<'a, ()> {
        Box::pin(async move {
            let value = |change: &SettingChange| change.value.as_deref().map(setting_value);
            let (of_queue, of_topic): (Vec<_>, Vec<_>) =
                changes.iter().partition(|change| OF_QUEUES.contains(&&*change.name));
            let set = |change: &&SettingChange| Some((change.name.clone(), value(change)?));
            let config: Map<String, Value> = of_topic.iter().filter_map(set).collect();
            let unset: Vec<_> = of_topic.iter().filter(|c| c.value.is_none()).map(|c| &c.name).collect();
            let mut wanted = json!({"config": config, "unset": unset, "dry_run": dry_run});
            if !of_queue.is_empty() {
                let set = |change: &&SettingChange| (change.name.clone(), value(change).unwrap_or_default());
                wanted["queue"] = of_queue.iter().map(set).collect::<Map<String, Value>>().into();
            }
            self.patch_topic(name, wanted).await
        })
    }

    fn add_partitions<'a>(&'a mut self, name: &'a str, total: i32, dry_run: bool) -> LocalFuture<'a, ()> {
        Box::pin(async move {
            // The port takes the number that there is for nothing to be done.
            let has = TopicAdmin::describe(self, name).await?.partitions.len();
            if usize::try_from(total) == Ok(has) {
                let problem = format!("topic {name:?} has {has} partitions already");
                return Err(ClientError::new(Failure::Refused, problem));
            }
            self.patch_topic(name, json!({"partitions": total, "dry_run": dry_run})).await
        })
    }

    fn delete_records<'a>(
        &'a mut self,
        topic: &'a str,
        before: &'a [(i32, i64)],
    ) -> LocalFuture<'a, Vec<(i32, i64)>> {
        Box::pin(async move {
            let path = self.topic_path(topic, "/delete-records");
            let mut left = Vec::new();
            for part in before.chunks(PAGE) {
                let cut =
                    |(partition, offset): &(i32, i64)| json!({"partition": partition, "offset": offset});
                let wanted = json!({"before": part.iter().map(cut).collect::<Vec<_>>()});
                let done: LeftRecords = self.ask(Method::POST, &path, wanted.to_string().into()).await?;
                left.extend(done.partitions.into_iter().map(|p| (p.partition, p.start)));
            }
            Ok(left)
        })
    }
}

/// A setting's value as a user writes it: a number, `null` for none, or a word.
fn setting_value(text: &str) -> Value {
    match text.parse::<i64>() {
        Ok(number) => number.into(),
        Err(_) if text == "null" => Value::Null,
        Err(_) => text.into(),
    }
}

fn setting_text(value: Value) -> String {
    match value {
        Value::String(text) => text,
        other => other.to_string(),
    }
}

//! `sabir topic`.

use sabir_server::client::{Client, ClientError, Failure, NewTopic, PartitionInfo, TopicInfo};
use serde_json::{Value, json};

use super::{block_on, in_time};
use crate::args::{ClientArgs, TopicCommand};
use crate::failure::CliError;
use crate::output::{Show, Table, grouped, print};

pub fn run(command: TopicCommand, client: &ClientArgs) -> Result<(), CliError> {
    block_on(dispatch(command, client))
}

async fn dispatch(command: TopicCommand, args: &ClientArgs) -> Result<(), CliError> {
    let mut client = args.connect().await?;
    match command {
        TopicCommand::Create { topics, partitions, config, if_not_exists, dry_run, output } => {
            let new = |name| NewTopic { name, partitions, configs: config.clone(), dry_run };
            let mut done = Vec::new();
            for name in topics {
                let outcome = in_time(args.timeout.0, client.create_topic(new(name.clone()))).await;
                let exists = unless(Failure::Exists, if_not_exists, outcome)?.is_none();
                done.push((name, if exists { "exists" } else { tense("create", dry_run) }));
            }
            Ok(print(output.output, &Done(done))?)
        }
        TopicCommand::List { internal, output } => {
            let mut topics = in_time(args.timeout.0, client.topics()).await?;
            topics.retain(|t| internal || !t.internal);
            Ok(print(output.output, &List(topics))?)
        }
        TopicCommand::Describe { topics, output } => {
            let mut found = Vec::new();
            for name in &topics {
                found.push(in_time(args.timeout.0, client.topic(name)).await?);
            }
            Ok(print(output.output, &Details(found))?)
        }
        TopicCommand::Delete { topics, if_exists, dry_run: true, output } => {
            let found = find(&mut *client, args, &topics, if_exists).await?;
            Ok(print(output.output, &Loss(found))?)
        }
        TopicCommand::Delete { topics, if_exists, dry_run: false, output } => {
            // All must be there before the first is gone.
            let found = find(&mut *client, args, &topics, if_exists).await?;
            let mut done = Vec::new();
            for topic in found {
                in_time(args.timeout.0, client.delete_topic(&topic.name)).await?;
                done.push((topic.name, tense("delete", false)));
            }
            Ok(print(output.output, &Done(done))?)
        }
    }
}

async fn find(
    client: &mut dyn Client,
    args: &ClientArgs,
    names: &[String],
    if_exists: bool,
) -> Result<Vec<TopicInfo>, CliError> {
    let mut found = Vec::new();
    for name in names {
        let outcome = in_time(args.timeout.0, client.topic(name)).await;
        found.extend(unless(Failure::NotFound, if_exists, outcome)?);
    }
    Ok(found)
}

/// Takes one kind of failure for an answer, if that is wanted.
fn unless<T>(failure: Failure, wanted: bool, outcome: Result<T, ClientError>) -> Result<Option<T>, CliError> {
    match outcome {
        Ok(value) => Ok(Some(value)),
        Err(e) if wanted && e.failure == failure => Ok(None),
        Err(e) => Err(e.into()),
    }
}

fn tense(verb: &'static str, dry_run: bool) -> &'static str {
    match (verb, dry_run) {
        ("create", true) => "could be created",
        ("create", false) => "created",
        _ => "deleted",
    }
}

/// What became of each topic.
struct Done(Vec<(String, &'static str)>);

impl Show for Done {
    fn json(&self) -> Value {
        self.0.iter().map(|(name, outcome)| json!({"topic": name, "outcome": outcome})).collect()
    }

    fn tables(&self) -> Vec<Table> {
        let rows = self.0.iter().map(|(name, outcome)| vec![name.clone(), (*outcome).into()]).collect();
        vec![Table { title: None, head: vec!["TOPIC", "OUTCOME"], rows }]
    }

    fn names(&self) -> Vec<String> {
        self.0.iter().map(|(name, _)| name.clone()).collect()
    }
}

struct List(Vec<TopicInfo>);

impl Show for List {
    fn json(&self) -> Value {
        let brief = |t: &TopicInfo| {
            let replicas = t.partitions.first().map_or(0, |p| p.replicas.len());
            json!({"topic": t.name, "id": t.id, "partitions": t.partitions.len(), "replicas": replicas,
                   "internal": t.internal})
        };
        self.0.iter().map(brief).collect()
    }

    fn tables(&self) -> Vec<Table> {
        let row = |t: &TopicInfo| {
            let replicas = t.partitions.first().map_or(0, |p| p.replicas.len());
            vec![t.name.clone(), t.partitions.len().to_string(), replicas.to_string()]
        };
        let rows = self.0.iter().map(row).collect();
        vec![Table { title: None, head: vec!["TOPIC", "PARTITIONS", "REPLICAS"], rows }]
    }

    fn names(&self) -> Vec<String> {
        self.0.iter().map(|t| t.name.clone()).collect()
    }
}

fn messages(p: &PartitionInfo) -> i64 {
    p.offsets.map_or(0, |(start, end)| end - start)
}

struct Details(Vec<TopicInfo>);

impl Show for Details {
    fn json(&self) -> Value {
        let partition = |p: &PartitionInfo| {
            json!({"partition": p.index, "leader": p.leader, "replicas": p.replicas, "in_sync": p.in_sync,
                   "start": p.offsets.map(|o| o.0), "end": p.offsets.map(|o| o.1)})
        };
        let topic = |t: &TopicInfo| {
            let partitions: Value = t.partitions.iter().map(partition).collect();
            json!({"topic": t.name, "id": t.id, "internal": t.internal, "partitions": partitions})
        };
        self.0.iter().map(topic).collect()
    }

    fn tables(&self) -> Vec<Table> {
        self.0.iter().map(detail_table).collect()
    }

    fn names(&self) -> Vec<String> {
        self.0.iter().map(|t| t.name.clone()).collect()
    }
}

fn detail_table(topic: &TopicInfo) -> Table {
    let id = topic.id.as_ref().map_or(String::new(), |id| format!("  id {id}"));
    let ids = |nodes: &[i32]| nodes.iter().map(i32::to_string).collect::<Vec<_>>().join(",");
    let row = |p: &PartitionInfo| {
        let (start, end) = p.offsets.unwrap_or_default();
        let leader = p.leader.map_or("none".into(), |l| l.to_string());
        let places = [ids(&p.replicas), ids(&p.in_sync)];
        let offsets = [start.to_string(), end.to_string(), messages(p).to_string()];
        [vec![p.index.to_string(), leader], places.to_vec(), offsets.to_vec()].concat()
    };
    Table {
        title: Some(format!("{}{id}", topic.name)),
        head: vec!["PARTITION", "LEADER", "REPLICAS", "IN SYNC", "START", "END", "MESSAGES"],
        rows: topic.partitions.iter().map(row).collect(),
    }
}

/// What a deletion would take.
struct Loss(Vec<TopicInfo>);

impl Loss {
    fn of(topic: &TopicInfo) -> u64 {
        topic.partitions.iter().map(messages).sum::<i64>().max(0) as u64
    }
}

impl Show for Loss {
    fn json(&self) -> Value {
        let line = |t: &TopicInfo| {
            json!({"topic": t.name, "outcome": "would be deleted", "partitions": t.partitions.len(),
                   "messages": Self::of(t)})
        };
        self.0.iter().map(line).collect()
    }

    fn tables(&self) -> Vec<Table> {
        let row = |t: &TopicInfo| {
            vec![
                t.name.clone(),
                t.partitions.len().to_string(),
                grouped(Self::of(t)),
                "would be deleted".into(),
            ]
        };
        let rows = self.0.iter().map(row).collect();
        vec![Table { title: None, head: vec!["TOPIC", "PARTITIONS", "MESSAGES", "OUTCOME"], rows }]
    }

    fn names(&self) -> Vec<String> {
        self.0.iter().map(|t| t.name.clone()).collect()
    }
}

//! Topics on stdout.

use sabir_server::client::{PartitionInfo, TopicInfo};
use serde_json::{Value, json};

use crate::output::{Show, Table, grouped};

/// What became of each topic.
pub struct TopicOutcomes(pub Vec<(String, &'static str)>);

impl Show for TopicOutcomes {
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

pub struct TopicsListed(pub Vec<TopicInfo>);

impl Show for TopicsListed {
    fn json(&self) -> Value {
        let brief = |t: &TopicInfo| {
            json!({"topic": t.name, "id": t.id, "partitions": t.partitions.len(), "replicas": replicas(t),
                   "internal": t.internal})
        };
        self.0.iter().map(brief).collect()
    }

    fn tables(&self) -> Vec<Table> {
        let row = |t: &TopicInfo| {
            let replicas = replicas(t).map_or("-".into(), |count| count.to_string());
            vec![t.name.clone(), t.partitions.len().to_string(), replicas]
        };
        let rows = self.0.iter().map(row).collect();
        vec![Table { title: None, head: vec!["TOPIC", "PARTITIONS", "REPLICAS"], rows }]
    }

    fn names(&self) -> Vec<String> {
        self.0.iter().map(|t| t.name.clone()).collect()
    }
}

/// How many nodes hold each partition, where that is told.
fn replicas(topic: &TopicInfo) -> Option<usize> {
    topic.partitions.first().map(|p| p.replicas.len()).filter(|count| *count > 0)
}

fn messages(p: &PartitionInfo) -> i64 {
    p.offsets.map_or(0, |(start, end)| end - start)
}

pub struct TopicsDescribed(pub Vec<TopicInfo>);

impl Show for TopicsDescribed {
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

/// What a deletion takes, or would take.
pub struct Loss {
    pub topics: Vec<TopicInfo>,
    pub outcome: &'static str,
}

impl Loss {
    /// Messages of a topic.
    pub fn of(topic: &TopicInfo) -> u64 {
        topic.partitions.iter().map(messages).sum::<i64>().max(0) as u64
    }
}

impl Show for Loss {
    fn json(&self) -> Value {
        let line = |t: &TopicInfo| {
            json!({"topic": t.name, "outcome": self.outcome, "partitions": t.partitions.len(),
                   "messages": Self::of(t)})
        };
        self.topics.iter().map(line).collect()
    }

    fn tables(&self) -> Vec<Table> {
        let row = |t: &TopicInfo| {
            vec![t.name.clone(), t.partitions.len().to_string(), grouped(Self::of(t)), self.outcome.into()]
        };
        let rows = self.topics.iter().map(row).collect();
        vec![Table { title: None, head: vec!["TOPIC", "PARTITIONS", "MESSAGES", "OUTCOME"], rows }]
    }

    fn names(&self) -> Vec<String> {
        self.topics.iter().map(|t| t.name.clone()).collect()
    }
}

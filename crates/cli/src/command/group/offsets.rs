//! `sabir group delete-offsets`.

use sabir_server::client::{Client, ClientError, GroupOffset};
use serde_json::{Value, json};

use super::super::{confirm, counted, group_admin, in_time};
use super::committed;
use crate::args::ClientArgs;
use crate::args::group::DeleteOffsetsArgs;
use crate::failure::{CliError, Exit};
use crate::output::{Show, Table, print};

pub async fn run(
    client: &mut dyn Client,
    args: &ClientArgs,
    wanted: DeleteOffsetsArgs,
) -> Result<(), CliError> {
    let DeleteOffsetsArgs { group, topics, partition, dry_run, sure, output } = wanted;
    let mut offsets = committed(client, args, &group).await?;
    for topic in &topics {
        let fits = |o: &GroupOffset| o.topic == *topic && partition.is_none_or(|p| p == o.partition);
        if !offsets.iter().any(fits) {
            let problem = format!("group {group} has committed nothing of {topic}{}", place(partition));
            let advice = format!("`sabir group lag {group}` shows what it has committed.");
            return Err(CliError::new(Exit::NotFound, problem).advise(advice));
        }
    }
    offsets.retain(|o| topics.contains(&o.topic) && partition.is_none_or(|p| p == o.partition));
    if !dry_run {
        let count = counted(offsets.len() as u64, "offset", "offsets");
        confirm(sure, &format!("Delete {count} of {} that {group} has committed?", topics.join(", ")))?;
        for topic in offsets.chunk_by(|a, b| a.topic == b.topic) {
            let partitions: Vec<_> = topic.iter().map(|o| o.partition).collect();
            let asking = group_admin(client)?.delete_offsets(&group, &topic[0].topic, &partitions);
            in_time(args.timeout.0, asking).await.map_err(|error| in_use(&group, error))?;
        }
    }
    let outcome = if dry_run { "would be deleted" } else { "deleted" };
    Ok(print(output.output, &Deleted { group, offsets, outcome })?)
}

/// What members read is not let go.
fn in_use(group: &str, error: ClientError) -> CliError {
    let failed = CliError::from(error);
    match failed.exit {
        Exit::Refused => {
            failed.advise(format!("`sabir group describe {group}` shows who reads it; stop them first."))
        }
        _ => failed,
    }
}

fn place(partition: Option<i32>) -> String {
    partition.map_or(String::new(), |p| format!(", partition {p}"))
}

struct Deleted {
    group: String,
    offsets: Vec<GroupOffset>,
    outcome: &'static str,
}

impl Show for Deleted {
    fn json(&self) -> Value {
        let one = |o: &GroupOffset| {
            json!({"group": self.group, "topic": o.topic, "partition": o.partition, "committed": o.committed,
                   "outcome": self.outcome})
        };
        self.offsets.iter().map(one).collect()
    }

    fn tables(&self) -> Vec<Table> {
        let row = |o: &GroupOffset| {
            vec![o.topic.clone(), o.partition.to_string(), o.committed.to_string(), self.outcome.into()]
        };
        let head = vec!["TOPIC", "PARTITION", "COMMITTED", "OUTCOME"];
        vec![Table { title: None, head, rows: self.offsets.iter().map(row).collect() }]
    }

    fn names(&self) -> Vec<String> {
        self.offsets.iter().map(|o| format!("{}/{}", o.topic, o.partition)).collect()
    }
}

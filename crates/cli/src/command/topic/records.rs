//! `sabir topic delete-records`.

use sabir_server::client::{Client, Position, Start};
use serde_json::{Value, json};

use super::super::{confirm, counted, in_time, places, topic_admin};
use super::tense;
use crate::args::ClientArgs;
use crate::args::topic::DeleteRecordsArgs;
use crate::args::value::Place;
use crate::failure::{CliError, Exit};
use crate::output::{Show, Table, grouped, print};

pub async fn run(
    client: &mut dyn Client,
    args: &ClientArgs,
    wanted: DeleteRecordsArgs,
) -> Result<(), CliError> {
    let DeleteRecordsArgs { topic, before, partition, dry_run, sure, output } = wanted;
    let (start, offset) = match before {
        Place::Earliest => {
            let problem = "nothing stands before the earliest message";
            return Err(CliError::new(Exit::Usage, problem).advise("--before latest deletes all of them."));
        }
        Place::Latest => (Start::Latest, None),
        Place::Time(moment) => (Start::Time(moment.at()), None),
        Place::Offset(offset) => (Start::Latest, Some(offset)),
    };
    let mut positions = places(client, args, &topic, partition, start).await?;
    if let Some(offset) = offset {
        positions.iter_mut().try_for_each(|p| cut_at(&topic, partition, p, offset))?;
    }
    let mut cuts = Cuts { topic, positions, outcome: tense(dry_run, "would be deleted", "deleted") };
    if !dry_run {
        let messages = counted(cuts.messages(), "message", "messages");
        confirm(sure, &format!("Delete {messages} of {}?", cuts.topic))?;
        cuts.delete(client, args).await?;
    }
    Ok(print(output.output, &cuts)?)
}

/// Makes an offset the new start, if it lies in the partition or before it.
fn cut_at(topic: &str, named: Option<i32>, position: &mut Position, offset: i64) -> Result<(), CliError> {
    if offset > position.end {
        let problem = format!("{topic}-{} ends at {}, before {offset}", position.partition, position.end);
        let advice = match named {
            Some(_) => "--before latest deletes all that the partition has; nothing was deleted.",
            None => "Name the partition with --partition, or say --before latest; nothing was deleted.",
        };
        return Err(CliError::new(Exit::NotFound, problem).advise(advice));
    }
    position.next = offset.max(position.first);
    Ok(())
}

/// What is deleted: from `first` up to `next` of each partition.
struct Cuts {
    topic: String,
    positions: Vec<Position>,
    outcome: &'static str,
}

impl Cuts {
    fn messages(&self) -> u64 {
        self.positions.iter().map(cut).sum()
    }

    async fn delete(&mut self, client: &mut dyn Client, args: &ClientArgs) -> Result<(), CliError> {
        let cut = |p: &&Position| p.next > p.first;
        let before: Vec<_> = self.positions.iter().filter(cut).map(|p| (p.partition, p.next)).collect();
        if before.is_empty() {
            return Ok(());
        }
        // Retention may have been there first: the starts are what the broker says.
        for (partition, start) in
            in_time(args.timeout.0, topic_admin(client)?.delete_records(&self.topic, &before)).await?
        {
            let known = self.positions.iter_mut().find(|p| p.partition == partition);
            known.into_iter().for_each(|p| p.next = start);
        }
        Ok(())
    }
}

fn cut(position: &Position) -> u64 {
    (position.next - position.first).max(0) as u64
}

impl Show for Cuts {
    fn json(&self) -> Value {
        let one = |p: &Position| {
            json!({"topic": self.topic, "partition": p.partition, "start_before": p.first, "start": p.next,
                   "end": p.end, "messages": cut(p), "outcome": self.outcome})
        };
        self.positions.iter().map(one).collect()
    }

    fn tables(&self) -> Vec<Table> {
        let row = |p: &Position| {
            let numbers = [p.partition.into(), p.first, p.next, p.end].map(|n: i64| n.to_string());
            [numbers.to_vec(), vec![grouped(cut(p))]].concat()
        };
        vec![Table {
            title: Some(format!(
                "{}: {} {}",
                self.topic,
                counted(self.messages(), "message", "messages"),
                self.outcome
            )),
            head: vec!["PARTITION", "START BEFORE", "START", "END", "MESSAGES"],
            rows: self.positions.iter().map(row).collect(),
        }]
    }

    fn names(&self) -> Vec<String> {
        self.positions.iter().map(|p| format!("{}/{}", self.topic, p.partition)).collect()
    }
}

//! `sabir topic offsets`.

use sabir_server::client::{Client, Position, Start};
use serde_json::{Value, json};

use super::super::places;
use crate::args::value::Moment;
use crate::args::{ClientArgs, OutputArg};
use crate::failure::CliError;
use crate::output::{Show, Table, grouped, print};

pub async fn run(
    client: &mut dyn Client,
    args: &ClientArgs,
    topic: &str,
    at: Option<Moment>,
    partition: Option<i32>,
    output: OutputArg,
) -> Result<(), CliError> {
    let start = at.map_or(Start::Latest, |moment| Start::Time(moment.at()));
    let positions = places(client, args, topic, partition, start).await?;
    Ok(print(output.output, &Offsets { topic, positions, timed: at.is_some() })?)
}

struct Offsets<'a> {
    topic: &'a str,
    positions: Vec<Position>,
    /// Whether the positions are those of a time.
    timed: bool,
}

impl Show for Offsets<'_> {
    fn json(&self) -> Value {
        let one = |p: &Position| {
            json!({"topic": self.topic, "partition": p.partition, "start": p.first, "end": p.end,
                   "messages": p.end - p.first, "at": self.timed.then_some(p.next)})
        };
        self.positions.iter().map(one).collect()
    }

    fn tables(&self) -> Vec<Table> {
        let mut head = vec!["PARTITION", "START", "END", "MESSAGES"];
        head.extend(self.timed.then_some("AT"));
        let row = |p: &Position| {
            let messages = grouped((p.end - p.first).max(0) as u64);
            let mut row = vec![p.partition.to_string(), p.first.to_string(), p.end.to_string(), messages];
            row.extend(self.timed.then(|| p.next.to_string()));
            row
        };
        vec![Table { title: None, head, rows: self.positions.iter().map(row).collect() }]
    }

    fn names(&self) -> Vec<String> {
        self.positions.iter().map(|p| format!("{}/{}", self.topic, p.partition)).collect()
    }
}

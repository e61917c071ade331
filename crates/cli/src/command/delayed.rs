//! `sabir delayed`.

use serde_json::{Value, json};

use super::{block_on, confirm, tell};
use crate::admin::AdminClient;
use crate::admin::delayed::{DelayedScope, ShownDelayed};
use crate::args::AdminArgs;
use crate::args::delayed::{DelayedCommand, DeleteArgs};
use crate::failure::CliError;
use crate::output::{Show, Table, grouped, print};

pub fn run(command: DelayedCommand, args: &AdminArgs) -> Result<(), CliError> {
    block_on(dispatch(command, args))
}

async fn dispatch(command: DelayedCommand, args: &AdminArgs) -> Result<(), CliError> {
    let client = args.client();
    match command {
        DelayedCommand::List { exchange, namespace, output } => {
            let found = client.delayed(&DelayedScope { exchange, namespace }).await?;
            Ok(print(output.output, &DelayedListed(found))?)
        }
        DelayedCommand::Delete(args) => delete(&client, args).await,
    }
}

async fn delete(client: &AdminClient, args: DeleteArgs) -> Result<(), CliError> {
    let DeleteArgs { exchange, all: _, namespace, dry_run, sure, output } = args;
    let scope = DelayedScope { exchange: exchange.clone(), namespace };
    if dry_run {
        let found = client.delayed(&scope).await?;
        let messages = found.iter().map(|of| of.messages).sum();
        let would = DelayedDropped { exchange, messages, outcome: "would be dropped" };
        return Ok(print(output.output, &would)?);
    }
    let which = exchange
        .as_ref()
        .map_or_else(|| "all delayed messages".to_owned(), |name| format!("what {name} keeps back"));
    confirm(sure, &format!("Drop {which}?"))?;
    let mut dropped = DelayedDropped { exchange, messages: 0, outcome: "dropped" };
    let outcome = client.drop_delayed(&scope, |more| dropped.messages += more).await;
    tell(output.output, &dropped, outcome.map_err(CliError::from))
}

struct DelayedListed(Vec<ShownDelayed>);

struct DelayedDropped {
    exchange: Option<String>,
    messages: u64,
    outcome: &'static str,
}

/// A moment, to the second.
fn moment(ms: i64) -> String {
    jiff::Timestamp::from_millisecond(ms).map_or_else(|_| ms.to_string(), |time| format!("{time:.0}"))
}

impl Show for DelayedListed {
    fn json(&self) -> Value {
        json!(self.0)
    }

    fn tables(&self) -> Vec<Table> {
        let row = |of: &ShownDelayed| {
            vec![of.exchange.clone(), grouped(of.messages), moment(of.earliest_ms), moment(of.latest_ms)]
        };
        let head = vec!["EXCHANGE", "MESSAGES", "EARLIEST", "LATEST"];
        vec![Table { title: None, head, rows: self.0.iter().map(row).collect() }]
    }

    fn names(&self) -> Vec<String> {
        self.0.iter().map(|of| of.exchange.clone()).collect()
    }
}

impl Show for DelayedDropped {
    fn json(&self) -> Value {
        json!([{"exchange": self.exchange, "messages": self.messages, "outcome": self.outcome}])
    }

    fn tables(&self) -> Vec<Table> {
        let exchange = self.exchange.clone().unwrap_or_else(|| "-".to_owned());
        let rows = vec![vec![exchange, grouped(self.messages), self.outcome.to_owned()]];
        vec![Table { title: None, head: vec!["EXCHANGE", "MESSAGES", "OUTCOME"], rows }]
    }

    fn names(&self) -> Vec<String> {
        self.exchange.iter().cloned().collect()
    }
}

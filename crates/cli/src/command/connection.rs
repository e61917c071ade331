//! `sabir connection`.

use sabir_server::client::ClientError;
use serde_json::{Value, json};

use super::{block_on, confirm, counted, in_time, once, tell};
use crate::admin::AdminClient;
use crate::admin::connections::ShownConnection;
use crate::args::AdminArgs;
use crate::args::connection::ConnectionCommand;
use crate::failure::{CliError, Exit};
use crate::output::{Show, Table, grouped, known, print};

pub fn run(command: ConnectionCommand, args: &AdminArgs) -> Result<(), CliError> {
    block_on(dispatch(command, args))
}

async fn dispatch(command: ConnectionCommand, args: &AdminArgs) -> Result<(), CliError> {
    let client = args.client();
    match command {
        ConnectionCommand::List { client: prefix, output } => {
            let found = in_time(args.timeout.0, client.connections(&prefix)).await?;
            Ok(print(output.output, &ConnectionsListed(found))?)
        }
        ConnectionCommand::Show { ids, output } => {
            let found = find(&client, ids).await?;
            Ok(print(output.output, &ConnectionsShown(found))?)
        }
        ConnectionCommand::Close { ids, dry_run, sure, output } => {
            // All must be there before the first is closed.
            let found = find(&client, once(ids)).await?;
            if dry_run {
                let would = found.into_iter().map(|one| (one, "would be closed")).collect();
                return Ok(print(output.output, &ConnectionsClosed(would))?);
            }
            let count = counted(found.len() as u64, "connection", "connections");
            confirm(sure, &format!("Close {count}?"))?;
            let mut done = Vec::new();
            let mut outcome = Ok(());
            for one in found {
                outcome = client.close_connection(&one.id).await.map_err(gone);
                if outcome.is_err() {
                    break;
                }
                done.push((one, "closed"));
            }
            tell(output.output, &ConnectionsClosed(done), outcome)
        }
    }
}

async fn find(client: &AdminClient, ids: Vec<String>) -> Result<Vec<ShownConnection>, CliError> {
    let mut found = Vec::new();
    for id in ids {
        found.push(client.connection(&id).await.map_err(gone)?);
    }
    Ok(found)
}

fn gone(error: ClientError) -> CliError {
    let failed = CliError::from(error);
    match failed.exit {
        Exit::NotFound => failed.advise("`sabir connection list` shows what there is."),
        _ => failed,
    }
}

struct ConnectionsListed(Vec<ShownConnection>);
struct ConnectionsShown(Vec<ShownConnection>);
struct ConnectionsClosed(Vec<(ShownConnection, &'static str)>);

fn names<'a>(all: impl Iterator<Item = &'a ShownConnection>) -> Vec<String> {
    all.map(|one| one.id.clone()).collect()
}

fn word(text: Option<&str>) -> String {
    text.filter(|text| !text.is_empty()).unwrap_or("-").to_owned()
}

/// The time it is open since, to the second.
fn since(one: &ShownConnection) -> String {
    let ms = one.since_ms;
    jiff::Timestamp::from_millisecond(ms).map_or_else(|_| ms.to_string(), |time| format!("{time:.0}"))
}

fn rate(bytes_per_second: f64) -> String {
    format!("{}/s", grouped(bytes_per_second.round() as u64))
}

impl Show for ConnectionsListed {
    fn json(&self) -> Value {
        json!(self.0)
    }

    fn tables(&self) -> Vec<Table> {
        let row = |one: &ShownConnection| {
            vec![
                one.id.clone(),
                word(one.protocol.as_deref()),
                word(Some(&one.client)),
                word(one.user.as_deref()),
                one.peer.clone(),
                since(one),
                grouped(one.received_bytes),
                grouped(one.sent_bytes),
            ]
        };
        let head = vec!["ID", "PROTOCOL", "CLIENT", "USER", "PEER", "SINCE", "RECEIVED", "SENT"];
        vec![Table { title: None, head, rows: self.0.iter().map(row).collect() }]
    }

    fn names(&self) -> Vec<String> {
        names(self.0.iter())
    }
}

impl Show for ConnectionsShown {
    fn json(&self) -> Value {
        json!(self.0)
    }

    fn tables(&self) -> Vec<Table> {
        self.0.iter().map(table).collect()
    }

    fn names(&self) -> Vec<String> {
        names(self.0.iter())
    }
}

fn table(one: &ShownConnection) -> Table {
    let rows = [
        ("protocol", word(one.protocol.as_deref())),
        ("client", word(Some(&one.client))),
        ("user", word(one.user.as_deref())),
        ("peer", one.peer.clone()),
        ("local", one.local.clone()),
        ("since", since(one)),
        ("received bytes", grouped(one.received_bytes)),
        ("sent bytes", grouped(one.sent_bytes)),
        ("receives", rate(one.received_bytes_per_second)),
        ("sends", rate(one.sent_bytes_per_second)),
    ];
    let rows = rows.into_iter().map(|(name, value)| vec![name.to_owned(), value]).collect();
    Table { title: Some(format!("connection {}", one.id)), head: vec!["WHAT", "VALUE"], rows }
}

impl Show for ConnectionsClosed {
    fn json(&self) -> Value {
        let one = |(one, outcome): &(ShownConnection, &'static str)| json!({"id": one.id, "protocol": one.protocol, "client": known(&one.client), "peer": one.peer, "outcome": outcome});
        self.0.iter().map(one).collect()
    }

    fn tables(&self) -> Vec<Table> {
        let row = |(one, outcome): &(ShownConnection, &'static str)| {
            vec![one.id.clone(), word(Some(&one.client)), one.peer.clone(), (*outcome).into()]
        };
        let rows = self.0.iter().map(row).collect();
        vec![Table { title: None, head: vec!["ID", "CLIENT", "PEER", "OUTCOME"], rows }]
    }

    fn names(&self) -> Vec<String> {
        names(self.0.iter().map(|(one, _)| one))
    }
}

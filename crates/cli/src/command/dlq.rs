//! `sabir dlq`.

use std::io::{self, IsTerminal};
use std::time::Duration;

use sabir_server::client::{ClientError, Failure};
use serde_json::{Value, json};

use super::{block_on, confirm, counted, once, pause_while_read, tell};
use crate::admin::AdminClient;
use crate::admin::redrives::{ShownOrigin, ShownRedrive};
use crate::args::AdminArgs;
use crate::args::dlq::{DlqCommand, Reason, RedriveArgs};
use crate::failure::{CliError, Exit};
use crate::output::{Show, Table, grouped, print};

/// How often it is looked how far a redrive is.
const LOOK: Duration = Duration::from_millis(500);

pub fn run(command: DlqCommand, args: &AdminArgs) -> Result<(), CliError> {
    block_on(dispatch(command, args))
}

async fn dispatch(command: DlqCommand, args: &AdminArgs) -> Result<(), CliError> {
    let client = args.client();
    match command {
        DlqCommand::Redrive(redrive) => run_redrive(&client, redrive).await,
        DlqCommand::Redrives { output } => {
            Ok(print(output.output, &RedrivesListed(client.redrives().await?))?)
        }
        DlqCommand::Cancel { ids, output } => {
            let (mut done, mut outcome) = (Vec::new(), Ok(()));
            for id in once(ids) {
                outcome = client.cancel_redrive(&id).await.map_err(CliError::from);
                if outcome.is_err() {
                    break;
                }
                done.push(id);
            }
            tell(output.output, &Cancelled(done), outcome)
        }
    }
}

async fn run_redrive(client: &AdminClient, args: RedriveArgs) -> Result<(), CliError> {
    let RedriveArgs { queue, from, reason, limit, rate, namespace, dry_run, no_wait, sure, output } = args;
    if !dry_run {
        let which = limit.map_or_else(
            || "All that is asked for".to_owned(),
            |most| format!("At most {}", counted(most.get(), "message", "messages")),
        );
        confirm(sure, &format!("{which} of {queue} to go back to where it came from?"))?;
    }
    let wanted = json!({"origin": from, "reason": reason.map(Reason::name), "most": limit,
                        "per_second": rate, "dry_run": dry_run});
    let begun = client.redrive(&queue, namespace, &wanted).await?;
    let tells = io::stderr().is_terminal();
    let waited = if no_wait { Ok(begun) } else { wait(client, begun, tells).await };
    // Also where it failed: the error has a line of its own.
    if tells {
        eprint!("\r\x1b[K");
    }
    let redrive = waited?;
    let outcome = ended(&redrive);
    print(output.output, &RedriveShown(redrive))?;
    outcome
}

/// Waits for the end of a redrive, and tells how far it is.
async fn wait(client: &AdminClient, begun: ShownRedrive, tells: bool) -> Result<ShownRedrive, CliError> {
    let mut redrive = begun;
    while redrive.is_running() {
        if tells {
            eprint!("\r{} of {} went back", grouped(redrive.moved), grouped(redrive.wanted));
        }
        pause_while_read(LOOK).await?;
        redrive = gone_on(&redrive, client.redrive_progress(&redrive.id).await)?;
    }
    Ok(redrive)
}

/// How far a redrive is, by what its id has now. A broker that has started anew gives ids anew: then it is nobody's, or another redrive's.
fn gone_on(
    before: &ShownRedrive,
    found: Result<ShownRedrive, ClientError>,
) -> Result<ShownRedrive, CliError> {
    let is_same = |now: &ShownRedrive| (&now.queue, &now.namespace) == (&before.queue, &before.namespace);
    match found {
        Ok(now) if is_same(&now) => Ok(now),
        Err(error) if error.failure != Failure::NotFound => Err(error.into()),
        Ok(_) | Err(_) => {
            let problem = format!("the broker has started anew, and redrive {} ended with it", before.id);
            let advice =
                "What was on its way goes back all the same; the same command goes on with what is left.";
            Err(CliError::new(Exit::Failed, problem).advise(advice))
        }
    }
}

/// Whether it came to its end.
fn ended(redrive: &ShownRedrive) -> Result<(), CliError> {
    let failed = |problem: String| Err(CliError::new(Exit::Failed, problem));
    match (&*redrive.state, &redrive.error) {
        ("failed", error) => failed(format!(
            "redrive {} failed: {}",
            redrive.id,
            error.as_deref().unwrap_or("the broker's log says why")
        )),
        ("cancelled", _) => failed(format!("redrive {} was cancelled", redrive.id)),
        _ => Ok(()),
    }
}

struct RedriveShown(ShownRedrive);
struct RedrivesListed(Vec<ShownRedrive>);
struct Cancelled(Vec<String>);

/// What became of its messages: words and how many.
fn figures(of: &ShownRedrive) -> Vec<(&'static str, u64)> {
    let goes = if of.dry_run { ("would go back", of.wanted) } else { ("went back", of.moved) };
    let rest = [
        ("on their way back", of.waiting),
        ("the queue that they came from did not take them: it is full, or gone since", of.refused),
        ("the queue that they came from is gone", of.origin_gone),
        ("say of no queue that they came from it", of.without_origin),
        ("taken by a consumer meanwhile", of.taken),
        ("cannot be read", of.unreadable),
    ];
    std::iter::once(goes).chain(rest.into_iter().filter(|(_, count)| *count > 0)).collect()
}

impl Show for RedriveShown {
    fn json(&self) -> Value {
        json!(self.0)
    }

    fn tables(&self) -> Vec<Table> {
        let of = &self.0;
        let row = |(what, count): (&str, u64)| vec![what.to_owned(), grouped(count)];
        let became = Table {
            title: Some(format!("redrive {} of {}: {}", of.id, of.queue, of.state)),
            head: vec!["WHAT", "MESSAGES"],
            rows: figures(of).into_iter().map(row).collect(),
        };
        let row = |origin: &ShownOrigin| {
            let gone = if origin.is_there { "" } else { " (gone)" };
            let reason = origin.reason.clone().unwrap_or_else(|| "-".to_owned());
            vec![format!("{}{gone}", origin.queue), reason, grouped(origin.messages)]
        };
        let origins = Table {
            title: Some("where they came from".to_owned()),
            head: vec!["QUEUE", "REASON", "MESSAGES"],
            rows: of.origins.iter().map(row).collect(),
        };
        if of.origins.is_empty() { vec![became] } else { vec![became, origins] }
    }

    fn names(&self) -> Vec<String> {
        vec![self.0.id.clone()]
    }
}

impl Show for RedrivesListed {
    fn json(&self) -> Value {
        json!(self.0)
    }

    fn tables(&self) -> Vec<Table> {
        let row = |of: &ShownRedrive| {
            let state = if of.dry_run { format!("{} (dry run)", of.state) } else { of.state.clone() };
            let stay = of.refused + of.origin_gone + of.without_origin + of.taken + of.unreadable;
            let word = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
            vec![
                of.id.clone(),
                of.queue.clone(),
                word(&of.origin),
                word(&of.reason),
                state,
                grouped(of.read),
                grouped(of.moved),
                grouped(stay),
            ]
        };
        let head = vec!["ID", "QUEUE", "FROM", "REASON", "STATE", "READ", "MOVED", "STAY"];
        vec![Table { title: None, head, rows: self.0.iter().map(row).collect() }]
    }

    fn names(&self) -> Vec<String> {
        self.0.iter().map(|of| of.id.clone()).collect()
    }
}

impl Show for Cancelled {
    fn json(&self) -> Value {
        self.0.iter().map(|id| json!({"id": id, "outcome": "cancelled"})).collect()
    }

    fn tables(&self) -> Vec<Table> {
        let row = |id: &String| vec![id.clone(), "cancelled".to_owned()];
        vec![Table { title: None, head: vec!["ID", "OUTCOME"], rows: self.0.iter().map(row).collect() }]
    }

    fn names(&self) -> Vec<String> {
        self.0.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_queue(queue: &str, namespace: &str, moved: u64) -> ShownRedrive {
        let value = json!({
            "id": "1", "queue": queue, "namespace": namespace, "most": null, "origin": null, "reason": null, "per_second": null,
            "dry_run": false, "state": "running", "error": null, "read": 9, "wanted": 9, "moved": moved, "refused": 0, "waiting": 0,
            "taken": 0, "origin_gone": 0, "without_origin": 0, "unreadable": 0, "origins": [],
        });
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn a_redrive_of_a_broker_that_has_started_anew_is_none_that_was_begun() {
        let begun = of_queue("dead", "/", 1);
        let further = of_queue("dead", "/", 5);
        assert_eq!(gone_on(&begun, Ok(further.clone())).unwrap(), further);
        let absent = || Err(ClientError::new(Failure::NotFound, "there is no redrive 1"));
        for found in [Ok(of_queue("other", "/", 1)), Ok(of_queue("dead", "other", 1)), absent()] {
            let failed = gone_on(&begun, found).unwrap_err();
            assert_eq!(failed.exit, Exit::Failed);
            assert!(
                failed.message.contains("started anew") && failed.message.contains("redrive 1"),
                "{failed:?}"
            );
        }
        let silent = Err(ClientError::new(Failure::AdminPort, "it does not answer"));
        assert_eq!(gone_on(&begun, silent).unwrap_err().exit, Exit::Connect);
    }
}

//! `sabir dlq`.

use std::io::{self, IsTerminal};
use std::time::Duration;

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
    let mut redrive = client.redrive(&queue, namespace, &wanted).await?;
    let tells = io::stderr().is_terminal();
    while redrive.is_running() && (!no_wait || dry_run) {
        if tells {
            eprint!("\r{} of {} went back", grouped(redrive.moved), grouped(redrive.wanted));
        }
        pause_while_read(LOOK).await?;
        redrive = client.redrive_progress(&redrive.id).await?;
    }
    if tells {
        eprint!("\r\x1b[K");
    }
    let outcome = ended(&redrive);
    print(output.output, &RedriveShown(redrive))?;
    outcome
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

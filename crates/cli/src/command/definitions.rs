//! `sabir definitions`.

use std::fs::{self, File, Permissions};
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use hyper::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{block_on, in_time};
use crate::args::AdminArgs;
use crate::args::definitions::DefinitionsCommand;
use crate::failure::{CliError, Exit};
use crate::output::{Format, Show, Table, print};

/// Bytes of a document that a broker takes.
const DOCUMENT: usize = 16 << 20;

pub fn run(command: DefinitionsCommand, args: &AdminArgs) -> Result<(), CliError> {
    block_on(async {
        match command {
            DefinitionsCommand::Export { output: None } => {
                args.client().copy("/definitions", &mut io::stdout().lock()).await
            }
            DefinitionsCommand::Export { output: Some(file) } => export(args, &file).await,
            DefinitionsCommand::Import { file, dry_run, output } => {
                import(args, &file, dry_run, output.output).await
            }
        }
    })
}

/// Writes beside the file and puts it in place when it is whole. What is no file, such as a pipe, is written to as it is.
async fn export(args: &AdminArgs, file: &Path) -> Result<(), CliError> {
    let named =
        |error: io::Error| CliError { message: format!("{}: {error}", file.display()), ..error.into() };
    if fs::metadata(file).is_ok_and(|there| !there.is_file()) {
        let mut out = File::options().write(true).open(file).map_err(named)?;
        return args.client().copy("/definitions", &mut out).await;
    }
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let open_to_all = Permissions::from_mode(0o666);
    let beside = tempfile::Builder::new().prefix(".sabir-").permissions(open_to_all).tempfile_in(folder);
    let mut beside = beside.map_err(named)?;
    args.client().copy("/definitions", &mut beside).await?;
    beside.persist(file).map(drop).map_err(|error| named(error.error))
}

/// A broker of an earlier version names topics alone.
#[derive(Deserialize)]
struct ImportDone {
    dry_run: bool,
    topics: Vec<Imported<NamedTopic>>,
    #[serde(default)]
    queues: Vec<Imported<NamedQueue>>,
    #[serde(default)]
    exchanges: Vec<Imported<NamedExchange>>,
    #[serde(default)]
    bindings: Vec<Imported<NamedBinding>>,
}

#[derive(Deserialize)]
struct Imported<T> {
    #[serde(flatten)]
    what: T,
    outcome: String,
}

#[derive(Deserialize)]
struct NamedTopic {
    topic: String,
}

#[derive(Deserialize)]
struct NamedQueue {
    queue: String,
}

#[derive(Deserialize)]
struct NamedExchange {
    exchange: String,
}

#[derive(Deserialize)]
struct NamedBinding {
    source: String,
    destination: Destination,
    /// A text, or an object where it is none.
    #[serde(default)]
    key: Value,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Destination {
    Queue(String),
    Exchange(String),
}

impl NamedBinding {
    /// What it is called in a list: it has no name.
    fn name(&self) -> String {
        let (of, to) = match &self.destination {
            Destination::Queue(name) => ("queue", name),
            Destination::Exchange(name) => ("exchange", name),
        };
        let key = match &self.key {
            Value::Null => String::new(),
            Value::String(key) => format!(" by {key}"),
            other => format!(" by {other}"),
        };
        format!("{} to {of} {to}{key}", self.source)
    }
}

/// What became of each thing that a document names.
struct DefinitionOutcomes(Vec<DefinitionOutcome>);

struct DefinitionOutcome {
    kind: &'static str,
    name: String,
    outcome: &'static str,
}

impl DefinitionOutcomes {
    fn of(done: ImportDone) -> Self {
        let told = |kind, name, outcome: &str| DefinitionOutcome {
            kind,
            name,
            outcome: outcome_of(outcome, done.dry_run),
        };
        let topics = done.topics.into_iter().map(|it| told("topic", it.what.topic, &it.outcome));
        let queues = done.queues.into_iter().map(|it| told("queue", it.what.queue, &it.outcome));
        let exchanges = done.exchanges.into_iter().map(|it| told("exchange", it.what.exchange, &it.outcome));
        let bindings = done.bindings.into_iter().map(|it| told("binding", it.what.name(), &it.outcome));
        Self(topics.chain(queues).chain(exchanges).chain(bindings).collect())
    }
}

impl Show for DefinitionOutcomes {
    fn json(&self) -> Value {
        let shown = |it: &DefinitionOutcome| {
            let topic = (it.kind == "topic").then_some(&it.name);
            json!({"kind": it.kind, "name": it.name, "topic": topic, "outcome": it.outcome})
        };
        self.0.iter().map(shown).collect()
    }

    fn tables(&self) -> Vec<Table> {
        let row = |it: &DefinitionOutcome| vec![it.kind.into(), it.name.clone(), it.outcome.into()];
        let rows = self.0.iter().map(row).collect();
        vec![Table { title: None, head: vec!["KIND", "NAME", "OUTCOME"], rows }]
    }

    fn names(&self) -> Vec<String> {
        self.0.iter().map(|it| it.name.clone()).collect()
    }
}

async fn import(args: &AdminArgs, file: &Path, dry_run: bool, format: Format) -> Result<(), CliError> {
    let document = read(file)?;
    // A mistake in the file is told with its line, which the broker's answer has not.
    if let Err(error) = serde_json::from_slice::<Value>(&document) {
        return Err(CliError::new(Exit::Failed, format!("{} is no JSON: {error}", file.display())));
    }
    let path = format!("/definitions?dry_run={dry_run}");
    let client = args.client();
    let asking = client.ask(Method::POST, &path, document.into());
    let done: ImportDone = in_time(args.timeout.0, asking).await.map_err(|error| refused(error.into()))?;
    Ok(print(format, &DefinitionOutcomes::of(done))?)
}

fn read(file: &Path) -> Result<Vec<u8>, CliError> {
    let named =
        |error: io::Error| CliError { message: format!("{}: {error}", file.display()), ..error.into() };
    let source: Box<dyn Read> = match file.to_str() {
        Some("-") => Box::new(io::stdin().lock()),
        _ => Box::new(File::open(file).map_err(named)?),
    };
    let mut text = Vec::new();
    source.take(DOCUMENT as u64 + 1).read_to_end(&mut text).map_err(named)?;
    if text.len() > DOCUMENT {
        let problem =
            format!("{} has more than the {DOCUMENT} bytes that a broker takes at once", file.display());
        return Err(CliError::new(Exit::Refused, problem).advise("Give it in several files."));
    }
    Ok(text)
}

fn outcome_of(told: &str, dry_run: bool) -> &'static str {
    match (told, dry_run) {
        ("created", false) => "created",
        ("created", true) => "would be created",
        _ => "exists",
    }
}

fn refused(error: CliError) -> CliError {
    match error.exit {
        Exit::Exists => error.advise(
            "Nothing was created. Make the file, or what is there, what it is to be: `sabir definitions export` shows it.",
        ),
        _ => error,
    }
}

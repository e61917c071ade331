//! `sabir definitions`.

use std::fs::{self, File, Permissions};
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use hyper::Method;
use serde::Deserialize;
use serde_json::Value;

use super::topic::TopicOutcomes;
use super::{block_on, in_time};
use crate::args::AdminArgs;
use crate::args::definitions::DefinitionsCommand;
use crate::failure::{CliError, Exit};
use crate::output::{Format, print};

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

#[derive(Deserialize)]
struct ImportDone {
    dry_run: bool,
    topics: Vec<TopicImported>,
}

#[derive(Deserialize)]
struct TopicImported {
    topic: String,
    outcome: String,
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
    let told = |topic: TopicImported| (topic.topic, outcome(&topic.outcome, done.dry_run));
    Ok(print(format, &TopicOutcomes(done.topics.into_iter().map(told).collect()))?)
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

fn outcome(told: &str, dry_run: bool) -> &'static str {
    match (told, dry_run) {
        ("created", false) => "created",
        ("created", true) => "would be created",
        _ => "exists",
    }
}

fn refused(error: CliError) -> CliError {
    match error.exit {
        Exit::Exists => error.advise(
            "Nothing was created. Make the file or the topic what it is to be: `sabir definitions export` shows what is there.",
        ),
        _ => error,
    }
}

//! `sabir topic`.

mod config;
mod offsets;
mod records;
mod show;

use sabir_server::client::{Client, ClientError, Failure, TopicInfo, TopicSpec};

use super::{about_topic, block_on, confirm, counted, in_time, once, tell, topic_admin};
use crate::admin::AdminScope;
use crate::args::topic::TopicCommand;
use crate::args::{ClientArgs, OutputArg, TopicNoun};
use crate::failure::{CliError, Exit};
use crate::output::print;
use show::{Loss, TopicOutcomes, TopicsDescribed, TopicsListed};

pub fn run(noun: TopicNoun) -> Result<(), CliError> {
    let owner = AdminScope { protocol: None, namespace: noun.namespace };
    block_on(dispatch(noun.verb, &noun.client, owner))
}

async fn dispatch(command: TopicCommand, args: &ClientArgs, owner: AdminScope) -> Result<(), CliError> {
    let mut connected = args.connect_to(owner).await?;
    let client = &mut *connected;
    match command {
        TopicCommand::Create { topics, partitions, config, if_not_exists, dry_run, output } => {
            let new = |name| TopicSpec { name, partitions, configs: config.clone(), dry_run };
            let mut done = Vec::new();
            let mut outcome = Ok(());
            for name in once(topics) {
                let made = in_time(args.timeout.0, topic_admin(client)?.create(new(name.clone()))).await;
                let made = match unless(Failure::Exists, if_not_exists, made) {
                    Ok(Some(())) => tense(dry_run, "would be created", "created"),
                    Ok(None) => "exists",
                    Err(error) => {
                        outcome = Err(exists_already(error));
                        break;
                    }
                };
                done.push((name, made));
            }
            tell(output.output, &TopicOutcomes(done), outcome)
        }
        TopicCommand::List { internal, output } => {
            let mut topics = in_time(args.timeout.0, topic_admin(client)?.list()).await?;
            topics.retain(|t| internal || !t.internal);
            Ok(print(output.output, &TopicsListed(topics))?)
        }
        TopicCommand::Describe { topics, output } => {
            let found = find(client, args, &topics, false).await?;
            Ok(print(output.output, &TopicsDescribed(found))?)
        }
        TopicCommand::Offsets { topic, at, partition, output } => {
            offsets::run(client, args, &topic, at, partition, output).await
        }
        TopicCommand::Config(command) => config::run(client, args, command).await,
        TopicCommand::AddPartitions { topic, total, dry_run, output } => {
            add_partitions(client, args, topic, total, dry_run, output).await
        }
        TopicCommand::DeleteRecords(delete) => records::run(client, args, delete).await,
        TopicCommand::Delete { topics, if_exists, dry_run, sure, output } => {
            // All must be there before the first is gone.
            let topics = find(client, args, &once(topics), if_exists).await?;
            if dry_run || topics.is_empty() {
                let outcome = tense(dry_run, "would be deleted", "deleted");
                return Ok(print(output.output, &Loss { topics, outcome })?);
            }
            confirm(sure, &question(&topics))?;
            delete(client, args, topics, output).await
        }
    }
}

async fn find(
    client: &mut dyn Client,
    args: &ClientArgs,
    names: &[String],
    if_exists: bool,
) -> Result<Vec<TopicInfo>, CliError> {
    let mut found = Vec::new();
    for name in names {
        let outcome = in_time(args.timeout.0, topic_admin(client)?.describe(name)).await;
        match unless(Failure::NotFound, if_exists, outcome) {
            Ok(topic) => found.extend(topic),
            Err(error) => about_topic(client, args, name, Err(error)).await?,
        }
    }
    Ok(found)
}

async fn delete(
    client: &mut dyn Client,
    args: &ClientArgs,
    topics: Vec<TopicInfo>,
    output: OutputArg,
) -> Result<(), CliError> {
    let mut done = Loss { topics: Vec::new(), outcome: "deleted" };
    let mut outcome = Ok(());
    for topic in topics {
        outcome =
            in_time(args.timeout.0, topic_admin(client)?.delete(&topic.name)).await.map_err(CliError::from);
        if outcome.is_err() {
            break;
        }
        done.topics.push(topic);
    }
    tell(output.output, &done, outcome)
}

async fn add_partitions(
    client: &mut dyn Client,
    args: &ClientArgs,
    topic: String,
    total: i32,
    dry_run: bool,
    output: OutputArg,
) -> Result<(), CliError> {
    let outcome = in_time(args.timeout.0, topic_admin(client)?.add_partitions(&topic, total, dry_run)).await;
    about_topic(client, args, &topic, outcome).await?;
    let outcome = tense(dry_run, "would be changed", "changed");
    Ok(print(output.output, &TopicOutcomes(vec![(topic, outcome)]))?)
}

/// Takes one kind of failure for an answer, if that is wanted.
fn unless<T>(
    failure: Failure,
    wanted: bool,
    outcome: Result<T, ClientError>,
) -> Result<Option<T>, ClientError> {
    match outcome {
        Ok(value) => Ok(Some(value)),
        Err(e) if wanted && e.failure == failure => Ok(None),
        Err(e) => Err(e),
    }
}

fn exists_already(error: ClientError) -> CliError {
    let error = CliError::from(error);
    match error.exit {
        Exit::Exists => error.advise("--if-not-exists takes it as it is; `sabir topic describe` shows it."),
        _ => error,
    }
}

fn question(topics: &[TopicInfo]) -> String {
    let names: Vec<_> = topics.iter().map(|t| t.name.as_str()).collect();
    let messages = topics.iter().map(Loss::of).sum();
    format!("Delete {} with {}?", names.join(", "), counted(messages, "message", "messages"))
}

fn tense(dry_run: bool, would_be: &'static str, is: &'static str) -> &'static str {
    if dry_run { would_be } else { is }
}

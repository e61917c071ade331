//! `sabir group`.

mod offsets;
mod reset;
mod show;

use std::collections::BTreeMap;
use std::io::Write;
use std::time::Duration;

use sabir_server::client::{Client, GroupInfo, GroupOffset, Start};

use super::{
    about_group, block_on, confirm, group_admin, in_time, once, pause_while_read, tell, topic_admin,
};
use crate::admin::AdminScope;
use crate::args::group::GroupCommand;
use crate::args::{ClientArgs, GroupNoun, OutputArg, Sure};
use crate::failure::{CliError, Exit};
use crate::output::{Format, print};
use show::{Detail, GroupOutcomes, GroupsDescribed, GroupsListed, Lag, Progress};

/// What is shown again and again is not asked for sooner, whatever the command line says.
const LEAST_PAUSE: Duration = Duration::from_millis(100);

pub fn run(noun: GroupNoun) -> Result<(), CliError> {
    let owner = AdminScope { protocol: noun.protocol, namespace: noun.namespace };
    block_on(dispatch(noun.verb, &noun.client, owner))
}

async fn dispatch(command: GroupCommand, args: &ClientArgs, owner: AdminScope) -> Result<(), CliError> {
    let mut connected = args.connect_to(owner).await?;
    let client = &mut *connected;
    match command {
        GroupCommand::List { output } => {
            let groups = in_time(args.timeout.0, group_admin(client)?.list()).await?;
            Ok(print(output.output, &GroupsListed(groups))?)
        }
        GroupCommand::Describe { groups, output } => {
            let mut found = Vec::new();
            for id in &groups {
                found.push(detail(client, args, id).await?);
            }
            Ok(print(output.output, &GroupsDescribed(found))?)
        }
        GroupCommand::Lag { groups, watch, output } => loop {
            print(output.output, &lag(client, args, &groups).await?)?;
            let Some(pause) = watch else { return Ok(()) };
            pause_while_read(pause.0.max(LEAST_PAUSE)).await?;
            if output.output == Format::Table {
                writeln!(std::io::stdout())?;
            }
        },
        GroupCommand::Reset(wanted) => reset::run(client, args, wanted).await,
        GroupCommand::Delete { groups, dry_run, sure, output } => {
            delete(client, args, groups, dry_run, sure, output).await
        }
        GroupCommand::DeleteOffsets(wanted) => offsets::run(client, args, wanted).await,
    }
}

/// How far these groups are behind, or all there are.
async fn lag(client: &mut dyn Client, args: &ClientArgs, groups: &[String]) -> Result<Lag, CliError> {
    let mut groups = groups.to_vec();
    if groups.is_empty() {
        let all = in_time(args.timeout.0, group_admin(client)?.list()).await?;
        groups = all.into_iter().map(|g| g.id).collect();
    }
    let mut found = Vec::new();
    for id in groups {
        let offsets = committed(client, args, &id).await?;
        found.push((id, offsets));
    }
    Ok(Lag(found))
}

async fn described(client: &mut dyn Client, args: &ClientArgs, id: &str) -> Result<GroupInfo, CliError> {
    let outcome = in_time(args.timeout.0, group_admin(client)?.describe(id)).await;
    about_group(client, args, id, outcome).await
}

/// What a group has committed. One that does not exist has committed nothing either, and is told from one that exists.
async fn committed(
    client: &mut dyn Client,
    args: &ClientArgs,
    id: &str,
) -> Result<Vec<GroupOffset>, CliError> {
    let offsets = in_time(args.timeout.0, group_admin(client)?.offsets(id)).await?;
    if offsets.is_empty() {
        described(client, args, id).await?;
    }
    Ok(offsets)
}

/// Refuses what a group with members does not take.
fn without_members(group: &GroupInfo) -> Result<(), CliError> {
    let (id, members) = (&group.summary.id, group.members.len());
    if members == 0 {
        return Ok(());
    }
    let problem = format!("group {id} has {members} member{}", if members == 1 { "" } else { "s" });
    let advice =
        format!("Stop its consumers first; `sabir group describe {id}` shows who and where they are.");
    Err(CliError::new(Exit::Refused, problem).advise(advice))
}

/// A group with its members, what it has committed, and what is dealt to members and not committed yet.
async fn detail(client: &mut dyn Client, args: &ClientArgs, id: &str) -> Result<Detail, CliError> {
    let info = described(client, args, id).await?;
    let offsets = in_time(args.timeout.0, group_admin(client)?.offsets(id)).await?;
    let mut partitions: Vec<Progress> = offsets.into_iter().map(Progress::from).collect();
    let known =
        |topic: &str, partition| partitions.iter().any(|p| p.topic == topic && p.partition == partition);
    let mut new: BTreeMap<String, Vec<i32>> = BTreeMap::new();
    for (topic, partition) in info.members.iter().flat_map(|m| &m.assigned) {
        if !known(topic, *partition) {
            new.entry(topic.clone()).or_default().push(*partition);
        }
    }
    for (topic, wanted) in new {
        // A topic that is gone has no ends; whatever else is wrong with it, the rest is worth showing.
        let asking = topic_admin(client)?.places(&topic, None, Start::Latest);
        let ends = in_time(args.timeout.0, asking).await.unwrap_or_default();
        for partition in wanted {
            let end = ends.iter().find(|p| p.partition == partition).map(|p| p.end);
            partitions.push(Progress { topic: topic.clone(), partition, committed: None, end });
        }
    }
    partitions.sort_by(|a, b| (&a.topic, a.partition).cmp(&(&b.topic, b.partition)));
    Ok(Detail { info, partitions })
}

async fn delete(
    client: &mut dyn Client,
    args: &ClientArgs,
    groups: Vec<String>,
    dry_run: bool,
    sure: Sure,
    output: OutputArg,
) -> Result<(), CliError> {
    let groups = once(groups);
    // All must be there, and without members, before the first is gone.
    for id in &groups {
        without_members(&described(client, args, id).await?)?;
    }
    if !dry_run {
        confirm(sure, &format!("Delete {} and what they have committed?", groups.join(", ")))?;
    }
    let mut done = Vec::new();
    let mut outcome = Ok(());
    for id in groups {
        if !dry_run {
            outcome = in_time(args.timeout.0, group_admin(client)?.delete(&id)).await.map_err(CliError::from);
        }
        if outcome.is_err() {
            break;
        }
        done.push((id, if dry_run { "would be deleted" } else { "deleted" }));
    }
    tell(output.output, &GroupOutcomes(done), outcome)
}

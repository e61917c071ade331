//! Consumer groups: looked at and deleted.

use std::collections::BTreeMap;

use axum::Json;
use axum::http::StatusCode;
use sabir_broker::{Broker, Caller, Committed, GroupId, GroupView, MemberView, TopicLag};
use sabir_model::{ErrorAbout, TopicId};
use serde::Serialize;

use super::Answer;
use super::problem::Problem;
use super::request::{Name, Open, Owner, Page, WriteAccess, protocol_named};

#[derive(Serialize)]
pub struct GroupList {
    groups: Vec<Summary>,
    next: Option<String>,
}

#[derive(Serialize)]
struct Summary {
    group: String,
    owner: GroupOwner,
    state: &'static str,
    kind: String,
    members: usize,
}

pub async fn list(Open(shown): Open, page: Page) -> Answer<GroupList> {
    let groups = shown.broker.groups(&Caller::OPERATOR);
    groups.ready().map_err(|error| Problem::refused("groups", ErrorAbout::from(error)))?;
    let broker = &shown.broker;
    let mut listings = broker.all_groups();
    listings.retain(|listing| page.is_within(listing.group.namespace.as_str()));
    if let Some(name) = &page.protocol {
        let wanted = protocol_named(broker, name)?;
        listings.retain(|listing| broker.owner_of(&listing.group).as_deref() == Some(wanted));
    }
    let all = listings.into_iter().map(|listing| (place(broker, &listing.group), listing));
    let (listed, next) = page.cut(all, |(place, _)| place);
    let summary = |(_, listing): (String, sabir_broker::GroupListing)| Summary {
        group: listing.group.name.to_string(),
        owner: owner(broker, &listing.group),
        state: listing.phase.name(),
        kind: listing.protocol_type.to_string(),
        members: listing.members,
    };
    Ok(Json(GroupList { groups: listed.into_iter().map(summary).collect(), next }))
}

/// Whose group it is.
#[derive(Serialize)]
struct GroupOwner {
    protocol: Option<String>,
    namespace: String,
}

fn owner(broker: &Broker, group: &GroupId) -> GroupOwner {
    GroupOwner { protocol: broker.owner_of(group), namespace: group.namespace.to_string() }
}

/// Where it stands in the list: by its name, and those of one name by whose they are.
fn place(broker: &Broker, group: &GroupId) -> String {
    if group.is_bare() {
        return group.name.to_string();
    }
    let owner = broker.owner_of(group).unwrap_or_default();
    format!("{}\n{owner}\n{}", group.name, group.namespace)
}

#[derive(Serialize)]
pub struct GroupDetails {
    group: String,
    owner: GroupOwner,
    state: &'static str,
    kind: String,
    generation: i32,
    protocol: Option<String>,
    leader: Option<String>,
    members: Vec<Member>,
    lag: u64,
    offsets: Vec<Position>,
}

#[derive(Serialize)]
struct Member {
    member: String,
    instance: Option<String>,
    client: String,
    host: String,
}

#[derive(Serialize)]
struct Position {
    topic: String,
    partition: i32,
    committed: i64,
    committed_ms: Option<i64>,
    metadata: String,
    end: i64,
    lag: u64,
}

pub async fn one(Open(shown): Open, Owner(caller): Owner, Name(name): Name) -> Answer<GroupDetails> {
    let groups = shown.broker.groups(&caller);
    groups.ready().map_err(|error| Problem::refused("groups", ErrorAbout::from(error)))?;
    let unknown = || Problem::unknown_group(&name);
    let (id, view) = groups.named(&name).zip(groups.describe(&name)).ok_or_else(unknown)?;
    let topics = shown.broker.group_lag(&caller, &name, usize::MAX).unwrap_or_default();
    let committed = groups.all_offsets(&name).into_iter().collect();
    let owner = owner(&shown.broker, &id);
    Ok(Json(details(name, owner, view, &topics, &committed)))
}

fn details(
    group: String,
    owner: GroupOwner,
    view: GroupView,
    topics: &[TopicLag],
    committed: &BTreeMap<(TopicId, i32), Committed>,
) -> GroupDetails {
    let mut offsets: Vec<_> = topics.iter().flat_map(|topic| positions(topic, committed)).collect();
    offsets.sort_by(|a, b| (&a.topic, a.partition).cmp(&(&b.topic, b.partition)));
    GroupDetails {
        group,
        owner,
        state: view.state.name(),
        kind: view.protocol_type.to_string(),
        generation: view.generation,
        protocol: view.protocol.map(|protocol| protocol.to_string()),
        leader: view.leader.map(|leader| leader.to_string()),
        members: view.members.iter().map(member).collect(),
        lag: topics.iter().map(TopicLag::lag).sum(),
        offsets,
    }
}

fn member(view: &MemberView) -> Member {
    Member {
        member: view.member.to_string(),
        instance: view.instance.as_ref().map(ToString::to_string),
        client: view.client.id.to_string(),
        host: view.client.host.to_string(),
    }
}

fn positions<'a>(
    topic: &'a TopicLag,
    committed: &'a BTreeMap<(TopicId, i32), Committed>,
) -> impl Iterator<Item = Position> + 'a {
    topic.partitions.iter().map(move |position| {
        let known = committed.get(&(topic.topic.id, position.partition));
        Position {
            topic: topic.topic.name.to_string(),
            partition: position.partition,
            committed: position.committed.0,
            committed_ms: known.map(|known| known.time_ms),
            metadata: known.map(|known| known.metadata.to_string()).unwrap_or_default(),
            end: position.end.0,
            lag: position.lag(),
        }
    })
}

pub async fn remove(
    _: WriteAccess,
    Open(shown): Open,
    Owner(caller): Owner,
    Name(name): Name,
) -> Result<StatusCode, Problem> {
    shown.broker.groups(&caller).delete(&name).await?;
    Ok(StatusCode::NO_CONTENT)
}

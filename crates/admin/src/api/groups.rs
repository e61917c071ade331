//! Consumer groups: looked at and deleted.

use std::collections::BTreeMap;

use axum::Json;
use axum::http::StatusCode;
use sabir_broker::{Caller, Committed, GroupView, MemberView, TopicLag};
use sabir_model::TopicId;
use serde::Serialize;

use super::Answer;
use super::problem::Problem;
use super::request::{Name, Open, Page, WriteAccess};

#[derive(Serialize)]
pub struct GroupList {
    groups: Vec<Summary>,
    next: Option<String>,
}

#[derive(Serialize)]
struct Summary {
    group: String,
    state: &'static str,
    kind: String,
    members: usize,
}

pub async fn list(Open(shown): Open, page: Page) -> Answer<GroupList> {
    let groups = shown.broker.groups(&Caller::OPERATOR);
    groups.ready().map_err(|error| Problem::refused("groups", error))?;
    let (listed, next) = page.cut(groups.list().into_iter(), |listing| &listing.group);
    let summary = |listing: sabir_broker::GroupListing| Summary {
        group: listing.group.to_string(),
        state: listing.phase.name(),
        kind: listing.protocol_type.to_string(),
        members: listing.members,
    };
    Ok(Json(GroupList { groups: listed.into_iter().map(summary).collect(), next }))
}

#[derive(Serialize)]
pub struct GroupDetails {
    group: String,
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

pub async fn one(Open(shown): Open, Name(name): Name) -> Answer<GroupDetails> {
    let groups = shown.broker.groups(&Caller::OPERATOR);
    groups.ready().map_err(|error| Problem::refused("groups", error))?;
    let view = groups.describe(&name).ok_or_else(|| Problem::unknown_group(&name))?;
    let topics = shown.broker.group_lag(&Caller::OPERATOR, &name, usize::MAX).unwrap_or_default();
    let committed = groups.all_offsets(&name).into_iter().collect();
    Ok(Json(details(name, view, &topics, &committed)))
}

fn details(
    group: String,
    view: GroupView,
    topics: &[TopicLag],
    committed: &BTreeMap<(TopicId, i32), Committed>,
) -> GroupDetails {
    let mut offsets: Vec<_> = topics.iter().flat_map(|topic| positions(topic, committed)).collect();
    offsets.sort_by(|a, b| (&a.topic, a.partition).cmp(&(&b.topic, b.partition)));
    GroupDetails {
        group,
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

pub async fn remove(_: WriteAccess, Open(shown): Open, Name(name): Name) -> Result<StatusCode, Problem> {
    let deleted = shown.broker.groups(&Caller::OPERATOR).delete(&name).await;
    deleted
        .map(|()| StatusCode::NO_CONTENT)
        .map_err(|error| Problem::refused(&format!("group {name:?}"), error))
}

//! Positions of a group without members, set and taken away one by one.

use std::collections::BTreeSet;

use axum::http::StatusCode;
use sabir_broker::{Broker, Caller, Fence, GroupPhase, OffsetCommit, Text};
use sabir_model::{ErrorAbout, GroupError, LeaderEpoch, Offset, Subject, TopicId};
use serde::{Deserialize, Deserializer};

use super::problem::Problem;
use super::request::{Body, Name, Open, Owner, WriteAccess};
use super::topics::find;

/// Positions in one entry.
const COMMIT: usize = 1000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OffsetChanges {
    offsets: Vec<OffsetChange>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OffsetChange {
    topic: String,
    partition: i32,
    /// The next offset to read; null takes the position away.
    #[serde(deserialize_with = "present")]
    offset: Option<i64>,
}

/// Null must be said.
fn present<'de, D: Deserializer<'de>>(input: D) -> Result<Option<i64>, D::Error> {
    Option::deserialize(input)
}

pub async fn change(
    _: WriteAccess,
    Open(shown): Open,
    Owner(caller): Owner,
    Name(group): Name,
    Body(wanted): Body<OffsetChanges>,
) -> Result<StatusCode, Problem> {
    let (broker, groups) = (&shown.broker, shown.broker.groups(&caller));
    let refused = |error| ErrorAbout::new(error, Subject::Group(group.as_str().into()));
    groups.ready().map_err(refused)?;
    let (mut set, mut gone, mut named) = (Vec::new(), Vec::new(), BTreeSet::new());
    for position in &wanted.offsets {
        let topic = place(broker, &caller, position)?;
        if !named.insert((topic, position.partition)) {
            let OffsetChange { topic, partition, .. } = position;
            return Err(Problem::bad_request(format!(
                "topic {topic:?}, partition {partition} is named twice"
            )));
        }
        match position.offset {
            Some(offset) if offset < 0 => {
                return Err(Problem::invalid(format!("offset: expected a number from 0 on, not {offset}")));
            }
            Some(offset) => set.push((topic, position.partition, Offset(offset))),
            None => gone.push((topic, position.partition)),
        }
    }
    match groups.describe(&group).map(|view| view.state) {
        // One that is new has nothing to be taken away.
        None if !gone.is_empty() => return Err(Problem::unknown_group(&group)),
        None | Some(GroupPhase::Empty) => {}
        Some(_) => return Err(refused(GroupError::NotEmpty).into()),
    }
    commit(broker, &caller, &group, &set).await?;
    if !gone.is_empty() {
        groups.delete_offsets(&group, &gone).await?;
    }
    Ok(StatusCode::NO_CONTENT)
}

fn place(broker: &Broker, caller: &Caller, position: &OffsetChange) -> Result<TopicId, Problem> {
    let OffsetChange { topic: name, partition, .. } = position;
    let topic = find(broker, caller, name)?;
    match topic.partition(*partition) {
        Some(_) => Ok(topic.id),
        None => {
            let detail = format!("topic {name:?} has no partition {partition}");
            Err(Problem::new(StatusCode::NOT_FOUND, "unknown-partition", detail))
        }
    }
}

/// Commits for a group from outside it: it must have no members.
pub async fn commit(
    broker: &Broker,
    caller: &Caller,
    group: &str,
    positions: &[(TopicId, i32, Offset)],
) -> Result<(), ErrorAbout<GroupError>> {
    let position = |&(topic, partition, offset): &(TopicId, i32, Offset)| OffsetCommit {
        topic,
        partition,
        offset,
        leader_epoch: LeaderEpoch::UNKNOWN,
        metadata: Text::from(""),
    };
    for part in positions.chunks(COMMIT) {
        let outside = Fence { generation: -1, member: Text::from(""), instance: None };
        let outcomes =
            broker.groups(caller).commit(group, outside, part.iter().map(position).collect()).await;
        outcomes.into_iter().collect::<Result<(), _>>()?;
    }
    Ok(())
}

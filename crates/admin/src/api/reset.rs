//! A group that goes on elsewhere.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use sabir_broker::{Broker, Caller, GroupPhase, OffsetSpec, PartitionStats, ReadTarget, Topic};
use sabir_model::{ErrorAbout, GroupError, Offset, Subject};
use serde::{Deserialize, Serialize, Serializer};

use super::offsets::commit;
use super::problem::Problem;
use super::request::{Body, Name, Open, Owner, WriteAccess};
use super::topics::find;
use crate::Admin;

/// Partitions in which one request sets a group's position, at the most.
const PARTITIONS: usize = 100_000;
/// Bytes of an answer that tells of them, at the most.
const REPORT: usize = 16 << 20;
/// Bytes of it for each of them, beside the topic's name.
const CHANGE: usize = 96;
/// Looked up by time between two turns of others: what lies in memory takes no turn.
const TURN: usize = 16;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResetRequest {
    to: Target,
    topics: Option<Vec<String>>,
    #[serde(default)]
    dry_run: bool,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Target {
    Earliest,
    Latest,
    Offset(i64),
    TimeMs(i64),
}

#[derive(Serialize)]
pub struct ResetReport {
    group: String,
    dry_run: bool,
    offsets: Vec<Change>,
}

#[derive(Serialize)]
struct Change {
    #[serde(serialize_with = "name")]
    topic: Arc<Topic>,
    partition: i32,
    before: Option<i64>,
    after: i64,
}

fn name<S: Serializer>(topic: &Arc<Topic>, out: S) -> Result<S::Ok, S::Error> {
    out.serialize_str(&topic.name)
}

/// A partition in which a position is to be set.
struct Place {
    topic: Arc<Topic>,
    partition: i32,
    /// The group's position.
    before: Option<i64>,
    kept: PartitionStats,
}

pub async fn reset(
    _: WriteAccess,
    Open(shown): Open,
    State(admin): State<Admin>,
    Owner(caller): Owner,
    Name(group): Name,
    Body(wanted): Body<ResetRequest>,
) -> Result<Response, Problem> {
    let broker = &shown.broker;
    let refused = |error| ErrorAbout::new(error, Subject::Group(group.as_str().into()));
    broker.groups(&caller).ready().map_err(refused)?;
    match broker.groups(&caller).describe(&group).map(|view| view.state) {
        None if wanted.topics.is_none() => return Err(Problem::unknown_group(&group)),
        None | Some(GroupPhase::Empty) => {}
        Some(_) => return Err(refused(GroupError::NotEmpty).into()),
    }
    let ResetRequest { to, topics, dry_run } = wanted;
    let finding = {
        let (broker, caller, group) = (broker.clone(), caller.clone(), group.clone());
        move || places(&broker, &caller, &group, topics.as_deref())
    };
    let offsets = changes(broker, admin.workers.run(finding).await??, to).await?;
    if !dry_run {
        let positions: Vec<_> = offsets.iter().map(|c| (c.topic.id, c.partition, Offset(c.after))).collect();
        commit(broker, &caller, &group, &positions).await?;
    }
    admin.workers.run(move || Json(ResetReport { group, dry_run, offsets }).into_response()).await
}

/// What would change there.
async fn changes(broker: &Broker, places: Vec<Place>, to: Target) -> Result<Vec<Change>, Problem> {
    let mut changes = Vec::with_capacity(places.len());
    for (i, Place { topic, partition, before, kept }) in places.into_iter().enumerate() {
        let after = match to {
            Target::Earliest => kept.start.0,
            Target::Latest => kept.end.0,
            Target::Offset(offset) => offset.clamp(kept.start.0, kept.end.0),
            Target::TimeMs(time) => {
                if i.is_multiple_of(TURN) {
                    tokio::task::yield_now().await;
                }
                at_time(broker, &topic, partition, kept, time).await?
            }
        };
        changes.push(Change { topic, partition, before, after });
    }
    Ok(changes)
}

/// Every partition of the topics named, each once, or of those in which the group has a position; by name.
fn places(
    broker: &Broker,
    caller: &Caller,
    group: &str,
    named: Option<&[String]>,
) -> Result<Vec<Place>, Problem> {
    let mut room = Room { partitions: PARTITIONS, bytes: REPORT };
    let mut wanted: Vec<(Arc<Topic>, i32)> = Vec::new();
    match named {
        Some(names) => {
            for name in names.iter().collect::<BTreeSet<_>>() {
                let topic = find(broker, caller, name)?;
                room.take(&topic, topic.partitions.len())?;
                wanted.extend(topic.partitions.iter().map(|p| (topic.clone(), p.index)));
            }
        }
        None => {
            let all = broker.group_lag(caller, group, PARTITIONS).ok_or_else(too_many)?;
            for topic in all {
                room.take(&topic.topic, topic.partitions.len())?;
                wanted.extend(topic.partitions.iter().map(|p| (topic.topic.clone(), p.partition)));
            }
        }
    }
    let place = |(topic, partition)| place(broker, caller, group, topic, partition);
    let mut places: Vec<Place> = wanted.into_iter().filter_map(place).collect();
    places.sort_by(|a, b| (&a.topic.name, a.partition).cmp(&(&b.topic.name, b.partition)));
    Ok(places)
}

/// A partition as it is now; none if it was deleted meanwhile.
fn place(broker: &Broker, caller: &Caller, group: &str, topic: Arc<Topic>, partition: i32) -> Option<Place> {
    let target = ReadTarget::new(caller, &topic, partition).ok()?;
    let kept = broker.partition_stats(target).ok()?;
    let before = broker.groups(caller).fetch_offsets(group, &[(topic.id, partition)]).pop().flatten();
    let before = before.map(|committed| committed.offset.0);
    Some(Place { topic, partition, before, kept })
}

/// What a request may still concern.
struct Room {
    partitions: usize,
    bytes: usize,
}

impl Room {
    fn take(&mut self, topic: &Topic, partitions: usize) -> Result<(), Problem> {
        // Control characters of a name are written as six bytes.
        let bytes = partitions * (CHANGE + 6 * topic.name.len());
        self.partitions = self.partitions.checked_sub(partitions).ok_or_else(too_many)?;
        self.bytes = self.bytes.checked_sub(bytes).ok_or_else(too_many)?;
        Ok(())
    }
}

fn too_many() -> Problem {
    let detail = format!(
        "these are more than {PARTITIONS} partitions, or an answer of more than {} MiB: name fewer topics at a time",
        REPORT >> 20
    );
    Problem::invalid(detail)
}

/// The first record of that time or later, or the end.
async fn at_time(
    broker: &Broker,
    topic: &Topic,
    index: i32,
    kept: PartitionStats,
    time: i64,
) -> Result<i64, Problem> {
    let target = ReadTarget::new(&Caller::OPERATOR, topic, index)?;
    let found = broker.offsets(target, OffsetSpec::Timestamp(time)).await?;
    Ok(if found.offset.0 < 0 { kept.end.0 } else { found.offset.0 })
}

//! A group that goes on elsewhere.

use std::sync::Arc;

use axum::Json;
use sabir_broker::{Broker, Caller, GroupPhase, OffsetSpec, PartitionStats, ReadTarget, Topic};
use sabir_model::{GroupError, Offset, TopicId};
use serde::{Deserialize, Serialize};

use super::Answer;
use super::offsets::commit;
use super::problem::Problem;
use super::request::{Body, Name, Open, Owner, WriteAccess};
use super::topics::find;

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
    topic: String,
    partition: i32,
    before: Option<i64>,
    after: i64,
    #[serde(skip)]
    id: TopicId,
}

pub async fn reset(
    _: WriteAccess,
    Open(shown): Open,
    Owner(caller): Owner,
    Name(group): Name,
    Body(wanted): Body<ResetRequest>,
) -> Answer<ResetReport> {
    let broker = &shown.broker;
    let refused = |error| Problem::refused(&format!("group {group:?}"), error);
    broker.groups(&caller).ready().map_err(refused)?;
    match broker.groups(&caller).describe(&group).map(|view| view.state) {
        None if wanted.topics.is_none() => return Err(Problem::unknown_group(&group)),
        None | Some(GroupPhase::Empty) => {}
        Some(_) => return Err(refused(GroupError::NotEmpty)),
    }
    let offsets = changes(broker, &caller, &group, &wanted).await?;
    if !wanted.dry_run {
        let positions: Vec<_> = offsets.iter().map(|c| (c.id, c.partition, Offset(c.after))).collect();
        commit(broker, &caller, &group, &positions).await.map_err(refused)?;
    }
    Ok(Json(ResetReport { group, dry_run: wanted.dry_run, offsets }))
}

/// What would change: in every partition of the topics named, or wherever the group has a position.
async fn changes(
    broker: &Broker,
    caller: &Caller,
    group: &str,
    wanted: &ResetRequest,
) -> Result<Vec<Change>, Problem> {
    let mut changes = Vec::new();
    for (topic, partition) in places(broker, caller, group, wanted)? {
        let Some(place) = topic.partition(partition) else { continue };
        let Ok(kept) = broker.partition_stats(place.shard, place.id) else { continue };
        let before = broker.groups(caller).fetch_offsets(group, &[(topic.id, partition)]).pop().flatten();
        let after = match wanted.to {
            Target::Earliest => kept.start.0,
            Target::Latest => kept.end.0,
            Target::Offset(offset) => offset.clamp(kept.start.0, kept.end.0),
            Target::TimeMs(time) => at_time(broker, &topic, partition, kept, time).await?,
        };
        let before = before.map(|committed| committed.offset.0);
        changes.push(Change { topic: topic.name.to_string(), partition, before, after, id: topic.id });
    }
    changes.sort_by(|a, b| (&a.topic, a.partition).cmp(&(&b.topic, b.partition)));
    Ok(changes)
}

fn places(
    broker: &Broker,
    caller: &Caller,
    group: &str,
    wanted: &ResetRequest,
) -> Result<Vec<(Arc<Topic>, i32)>, Problem> {
    let mut places = Vec::new();
    match &wanted.topics {
        Some(names) => {
            for name in names {
                let topic = find(broker, name)?;
                places.extend(topic.partitions.iter().map(|p| (topic.clone(), p.index)));
            }
        }
        None => {
            for topic in broker.group_lag(caller, group, usize::MAX).unwrap_or_default() {
                places.extend(topic.partitions.iter().map(|p| (topic.topic.clone(), p.partition)));
            }
        }
    }
    Ok(places)
}

/// The first record of that time or later, or the end.
async fn at_time(
    broker: &Broker,
    topic: &Topic,
    index: i32,
    kept: PartitionStats,
    time: i64,
) -> Result<i64, Problem> {
    let refused = |error| Problem::refused(&format!("partition {index}"), error);
    let target = ReadTarget::new(&Caller::OPERATOR, topic, index).map_err(refused)?;
    let found = broker.offsets(target, OffsetSpec::Timestamp(time)).await.map_err(refused)?;
    Ok(if found.offset.0 < 0 { kept.end.0 } else { found.offset.0 })
}

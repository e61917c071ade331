//! The oldest records of a topic, deleted.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::Json;
use axum::http::StatusCode;
use sabir_broker::{Broker, Caller, Partition, ReadTarget, Topic};
use sabir_model::Offset;
use serde::{Deserialize, Serialize};

use super::Answer;
use super::problem::Problem;
use super::request::{Body, Name, Open, Within, WriteAccess};
use super::topics::find;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecordCuts {
    before: Vec<RecordCut>,
}

/// Of a partition, what stands before an offset.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RecordCut {
    partition: i32,
    offset: i64,
}

#[derive(Serialize)]
pub struct RecordsCut {
    topic: String,
    partitions: Vec<PartitionStart>,
}

#[derive(Serialize)]
struct PartitionStart {
    partition: i32,
    start: i64,
}

pub async fn delete(
    _: WriteAccess,
    Open(shown): Open,
    Within(caller): Within,
    Name(name): Name,
    Body(cuts): Body<RecordCuts>,
) -> Answer<RecordsCut> {
    let broker = &shown.broker;
    let topic = find(broker, &caller, &name)?;
    let mut named = BTreeSet::new();
    if let Some(again) = cuts.before.iter().find(|cut| !named.insert(cut.partition)) {
        let detail = format!("topic {name:?}, partition {} is named twice", again.partition);
        return Err(Problem::bad_request(detail));
    }
    // All is looked at before the first record goes.
    let places: Vec<_> =
        cuts.before.iter().map(|cut| place(broker, &topic, cut)).collect::<Result<_, _>>()?;
    let mut partitions = Vec::with_capacity(places.len());
    for (place, before) in places {
        let cut = broker.delete_records(&caller, place.shard, place.id, before).await;
        let about = || format!("partition {} of topic {name:?}", place.index);
        let start = cut.map_err(|error| Problem::refused(&about(), error))?;
        partitions.push(PartitionStart { partition: place.index, start: start.0 });
    }
    Ok(Json(RecordsCut { topic: name, partitions }))
}

fn place(broker: &Broker, topic: &Arc<Topic>, cut: &RecordCut) -> Result<(Partition, Offset), Problem> {
    let (name, partition) = (&topic.name, cut.partition);
    let Some(place) = topic.partition(partition) else {
        let detail = format!("topic {name:?} has no partition {partition}");
        return Err(Problem::new(StatusCode::NOT_FOUND, "unknown-partition", detail));
    };
    let kept = ReadTarget::new(&Caller::OPERATOR, topic, partition)
        .and_then(|target| broker.partition_stats(target))?;
    if !(0..=kept.end.0).contains(&cut.offset) {
        let detail = format!(
            "topic {name:?}, partition {partition}: expected an offset from 0 to {}, its end, not {}",
            kept.end.0, cut.offset
        );
        return Err(Problem::invalid(detail));
    }
    Ok((*place, Offset(cut.offset)))
}

//! ListOffsets: the offset of a timestamp, the first, the next.

use std::collections::HashSet;
use std::rc::Rc;

use sabir_broker::{FoundOffset, OffsetSpec, Partition};
use sabir_model::Offset;

use super::fetch::check_epoch;
use super::{Call, Client, Reply, decode};
use crate::frontend::FrontEnd;
use crate::map::error_code;
use crate::session::{BadRequest, Request};
use crate::wire::messages::list_offsets::{
    EARLIEST_LOCAL_TIMESTAMP, EARLIEST_PENDING_UPLOAD_TIMESTAMP, EARLIEST_TIMESTAMP, LATEST_TIERED_TIMESTAMP,
    LATEST_TIMESTAMP, ListOffsetsPartition, ListOffsetsPartitionResponse, ListOffsetsRequest,
    ListOffsetsResponse, ListOffsetsTopicResponse, MAX_TIMESTAMP,
};
use crate::wire::{ErrorCode, Str};

pub(super) async fn list_offsets(client: Rc<Client>, request: Request) -> Result<Reply, BadRequest> {
    let call = Call::of(&request);
    let body: ListOffsetsRequest = decode(&request)?;
    drop(request);
    let twice = named_twice(&body);
    let (mut topics, mut first_error) = (Vec::with_capacity(body.topics.len()), ErrorCode::None);
    for topic in &body.topics {
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for wanted in &topic.partitions {
            let found = match twice.contains(&(&*topic.name, wanted.partition_index)) {
                true => Err(ErrorCode::InvalidRequest),
                false => find(&client.kafka, &topic.name, wanted, call.version).await,
            };
            let base = ListOffsetsPartitionResponse {
                partition_index: wanted.partition_index,
                ..Default::default()
            };
            partitions.push(match found {
                Ok(found) => ListOffsetsPartitionResponse {
                    timestamp: found.timestamp,
                    offset: found.offset.0,
                    leader_epoch: found.leader_epoch.0,
                    ..base
                },
                Err(error) => {
                    first_error = if first_error == ErrorCode::None { error } else { first_error };
                    ListOffsetsPartitionResponse { error_code: error.code(), ..base }
                }
            });
        }
        topics.push(ListOffsetsTopicResponse { name: topic.name.clone(), partitions });
    }
    Ok(call.reply(&ListOffsetsResponse { topics, ..Default::default() }, first_error))
}

fn named_twice(body: &ListOffsetsRequest) -> HashSet<(&str, i32)> {
    let mut seen = HashSet::new();
    let all = body.topics.iter().flat_map(|t| t.partitions.iter().map(|p| (&*t.name, p.partition_index)));
    all.filter(|name| !seen.insert(*name)).collect()
}

async fn find(
    kafka: &FrontEnd,
    topic: &Str,
    wanted: &ListOffsetsPartition,
    version: i16,
) -> Result<FoundOffset, ErrorCode> {
    let topic = kafka.topic(topic).ok_or(ErrorCode::UnknownTopicOrPartition)?;
    let partition = topic.partition(wanted.partition_index).ok_or(ErrorCode::UnknownTopicOrPartition)?;
    let epoch = check_epoch(kafka, partition, wanted.current_leader_epoch)?;
    match meaning(wanted.timestamp, version)? {
        // No record was tiered, and none is to be.
        None => Ok(FoundOffset { offset: Offset(-1), timestamp: -1, leader_epoch: epoch }),
        Some(spec) => look_up(kafka, partition, spec).await,
    }
}

async fn look_up(
    kafka: &FrontEnd,
    partition: &Partition,
    spec: OffsetSpec,
) -> Result<FoundOffset, ErrorCode> {
    kafka.broker.offsets(partition.shard, partition.id, spec).await.map_err(error_code)
}

/// What a timestamp of the request asks for; `None` for a place in tiered storage, of which there is none.
fn meaning(timestamp: i64, version: i16) -> Result<Option<OffsetSpec>, ErrorCode> {
    let (spec, since) = match timestamp {
        LATEST_TIMESTAMP => (Some(OffsetSpec::Latest), 1),
        EARLIEST_TIMESTAMP => (Some(OffsetSpec::Earliest), 1),
        MAX_TIMESTAMP => (Some(OffsetSpec::MaxTimestamp), 7),
        EARLIEST_LOCAL_TIMESTAMP => (Some(OffsetSpec::Earliest), 8),
        LATEST_TIERED_TIMESTAMP => (None, 9),
        EARLIEST_PENDING_UPLOAD_TIMESTAMP => (None, 11),
        0.. => (Some(OffsetSpec::Timestamp(timestamp)), 1),
        _ => return Err(ErrorCode::UnsupportedVersion),
    };
    if version >= since { Ok(spec) } else { Err(ErrorCode::UnsupportedVersion) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn special_timestamps_have_their_versions() {
        assert_eq!(meaning(-1, 1), Ok(Some(OffsetSpec::Latest)));
        assert_eq!(meaning(-2, 1), Ok(Some(OffsetSpec::Earliest)));
        assert_eq!(meaning(0, 1), Ok(Some(OffsetSpec::Timestamp(0))));
        for (timestamp, since) in [(-3, 7), (-4, 8), (-5, 9), (-6, 11)] {
            assert_eq!(meaning(timestamp, since - 1), Err(ErrorCode::UnsupportedVersion));
            assert!(meaning(timestamp, since).is_ok(), "{timestamp}");
        }
        assert_eq!(meaning(-7, 11), Err(ErrorCode::UnsupportedVersion));
    }
}

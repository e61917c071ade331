//! ListOffsets: the offset of a timestamp, the first, the next.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use sabir_broker::{FoundOffset, OffsetSpec, ReadTarget};
use sabir_model::{LeaderEpoch, Offset};

use super::fetch::check_epoch;
use super::{Call, Client, Reply, Unanswered, decode, first_error};
use crate::server::map::read_error_code;
use crate::server::requests::Request;
use crate::wire::messages::list_offsets::{
    EARLIEST_LOCAL_TIMESTAMP, EARLIEST_PENDING_UPLOAD_TIMESTAMP, EARLIEST_TIMESTAMP, LATEST_TIERED_TIMESTAMP,
    LATEST_TIMESTAMP, ListOffsetsPartition, ListOffsetsPartitionResponse, ListOffsetsRequest,
    ListOffsetsResponse, ListOffsetsTopic, ListOffsetsTopicResponse, MAX_TIMESTAMP,
};
use crate::wire::{ErrorCode, Str};

pub(super) async fn list_offsets(client: Arc<Client>, request: Request) -> Result<Reply, Unanswered> {
    let call = Call::of(&request);
    let body: ListOffsetsRequest = decode(&request)?;
    drop(request);
    let mut topics = Vec::with_capacity(body.topics.len());
    for (name, wanted) in by_topic(&body.topics) {
        let mut partitions = Vec::with_capacity(wanted.len());
        for (partition_index, wanted) in wanted {
            let found = match wanted {
                Once(wanted) => find(&client, name, wanted, call.version).await,
                Again => Err(ErrorCode::InvalidRequest),
            };
            partitions.push(answer(partition_index, found));
        }
        topics.push(ListOffsetsTopicResponse { name: name.clone(), partitions });
    }
    let error = first_error(topics.iter().flat_map(|t| t.partitions.iter().map(|p| p.error_code)));
    Ok(call.reply(&ListOffsetsResponse { topics, ..Default::default() }, error))
}

/// How often a request names a partition.
enum Named<'a> {
    Once(&'a ListOffsetsPartition),
    Again,
}
use Named::{Again, Once};

/// A topic and its partitions.
type Asked<'a> = (&'a Str, Vec<(i32, Named<'a>)>);

/// What is asked for, each topic and each partition of it in one place, as Kafka answers it.
fn by_topic(wanted: &[ListOffsetsTopic]) -> Vec<Asked<'_>> {
    let mut topics: Vec<Asked<'_>> = Vec::new();
    let mut places = HashMap::new();
    let mut partition_places: HashMap<(usize, i32), usize> = HashMap::new();
    for topic in wanted {
        let place = *places.entry(&topic.name).or_insert_with(|| {
            topics.push((&topic.name, Vec::with_capacity(topic.partitions.len())));
            topics.len() - 1
        });
        let partitions = &mut topics[place].1;
        for partition in &topic.partitions {
            match partition_places.entry((place, partition.partition_index)) {
                Entry::Occupied(known) => partitions[*known.get()].1 = Again,
                Entry::Vacant(new) => {
                    new.insert(partitions.len());
                    partitions.push((partition.partition_index, Once(partition)));
                }
            }
        }
    }
    topics
}

fn answer(partition_index: i32, found: Result<FoundOffset, ErrorCode>) -> ListOffsetsPartitionResponse {
    let base = ListOffsetsPartitionResponse { partition_index, ..Default::default() };
    match found {
        Ok(found) => ListOffsetsPartitionResponse {
            timestamp: found.timestamp,
            offset: found.offset.0,
            leader_epoch: found.leader_epoch.0,
            ..base
        },
        Err(error) => ListOffsetsPartitionResponse { error_code: error.code(), ..base },
    }
}

async fn find(
    client: &Client,
    topic: &Str,
    wanted: &ListOffsetsPartition,
    version: i16,
) -> Result<FoundOffset, ErrorCode> {
    let spec = meaning(wanted.timestamp, version)?;
    let topic = client.topic(topic).ok_or(ErrorCode::UnknownTopicOrPartition)?;
    let partition = topic.partition(wanted.partition_index).ok_or(ErrorCode::UnknownTopicOrPartition)?;
    check_epoch(client, partition, wanted.current_leader_epoch)?;
    match spec {
        // No record was tiered, and none is to be.
        None => Ok(FoundOffset { offset: Offset(-1), timestamp: -1, leader_epoch: LeaderEpoch::UNKNOWN }),
        Some(spec) => look_up(client, client.read_target(&topic, wanted.partition_index)?, spec).await,
    }
}

async fn look_up(client: &Client, target: ReadTarget, spec: OffsetSpec) -> Result<FoundOffset, ErrorCode> {
    client.kafka.broker.offsets(target, spec).await.map_err(read_error_code)
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

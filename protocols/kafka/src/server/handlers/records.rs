//! DeleteRecords and OffsetForLeaderEpoch.

use std::sync::Arc;

use futures_util::future::join_all;
use sabir_model::{LeaderEpoch, Offset};
use tokio::time::Instant;

use super::fetch::check_epoch;
use super::topics::is_internal;
use super::{Call, Client, Reply, Unanswered, decode, first_error, patience, within};
use crate::server::map::{read_error_code, topic_refusal};
use crate::server::requests::{BadRequest, Request};
use crate::wire::ErrorCode;
use crate::wire::messages::delete_records::{
    DeleteRecordsPartition, DeleteRecordsPartitionResult, DeleteRecordsRequest, DeleteRecordsResponse,
    DeleteRecordsTopicResult,
};
use crate::wire::messages::offset_for_leader_epoch::{
    EpochEndOffset, OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse, OffsetForLeaderPartition,
    OffsetForLeaderTopicResult,
};

pub(super) async fn delete_records(client: Arc<Client>, request: Request) -> Result<Reply, Unanswered> {
    let call = Call::of(&request);
    let body: DeleteRecordsRequest = decode(&request)?;
    drop(request);
    let until = Instant::now() + patience(body.timeout_ms);
    let mut topics = Vec::with_capacity(body.topics.len());
    for topic in body.topics {
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for wanted in topic.partitions.chunks(AT_ONCE) {
            let deleting = wanted.iter().map(|wanted| delete(&client, &topic.name, wanted, until));
            partitions.extend(join_all(deleting).await);
        }
        topics.push(DeleteRecordsTopicResult { name: topic.name, partitions });
    }
    let error = first_error(topics.iter().flat_map(|t| t.partitions.iter().map(|p| p.error_code)));
    Ok(call.reply(&DeleteRecordsResponse { topics, ..Default::default() }, error))
}

/// Partitions of a topic that are worked on at once, to be committed together.
const AT_ONCE: usize = 256;

async fn delete(
    client: &Client,
    topic: &str,
    wanted: &DeleteRecordsPartition,
    until: Instant,
) -> DeleteRecordsPartitionResult {
    let deleted = try_delete(client, topic, wanted.partition_index, wanted.offset, until).await;
    DeleteRecordsPartitionResult {
        partition_index: wanted.partition_index,
        low_watermark: deleted.map_or(-1, |start| start.0),
        error_code: deleted.err().unwrap_or(ErrorCode::None).code(),
    }
}

/// Deletes everything before `offset`; -1 stands for the high watermark.
async fn try_delete(
    client: &Client,
    topic: &str,
    index: i32,
    offset: i64,
    until: Instant,
) -> Result<Offset, ErrorCode> {
    let topic = client.topic(topic).ok_or(ErrorCode::UnknownTopicOrPartition)?;
    let partition = topic.partition(index).ok_or(ErrorCode::UnknownTopicOrPartition)?;
    if is_internal(&topic) {
        return Err(ErrorCode::InvalidTopic);
    }
    if offset < -1 {
        return Err(ErrorCode::OffsetOutOfRange);
    }
    // What no client waits for any more is not begun: a request may name a million of them.
    if Instant::now() >= until {
        return Err(ErrorCode::RequestTimedOut);
    }
    let deleting =
        client.kafka.broker.delete_records(&client.caller, partition.shard, partition.id, Offset(offset));
    within(until, deleting).await.map_err(|error| topic_refusal(&error).0)
}

pub(super) fn offset_for_leader_epoch(client: &Client, request: &Request) -> Result<Reply, BadRequest> {
    let call = Call::of(request);
    let body: OffsetForLeaderEpochRequest = decode(request)?;
    let topics: Vec<_> = body
        .topics
        .into_iter()
        .map(|topic| OffsetForLeaderTopicResult {
            partitions: topic.partitions.iter().map(|p| epoch_end(client, &topic.topic, p)).collect(),
            topic: topic.topic,
        })
        .collect();
    let error = first_error(topics.iter().flat_map(|t| t.partitions.iter().map(|p| p.error_code)));
    Ok(call.reply(&OffsetForLeaderEpochResponse { topics, ..Default::default() }, error))
}

fn epoch_end(client: &Client, topic: &str, wanted: &OffsetForLeaderPartition) -> EpochEndOffset {
    let find = || {
        let topic = client.topic(topic).ok_or(ErrorCode::UnknownTopicOrPartition)?;
        let partition = topic.partition(wanted.partition).ok_or(ErrorCode::UnknownTopicOrPartition)?;
        check_epoch(client, partition, wanted.current_leader_epoch)?;
        let target = client.read_target(&topic, wanted.partition)?;
        let end = client.kafka.broker.end_of_epoch(target, LeaderEpoch(wanted.leader_epoch));
        end.map_err(read_error_code)
    };
    let base = EpochEndOffset { partition: wanted.partition, ..Default::default() };
    match find() {
        Ok(end) => EpochEndOffset { leader_epoch: end.epoch.0, end_offset: end.end_offset.0, ..base },
        Err(error) => EpochEndOffset { error_code: error.code(), ..base },
    }
}

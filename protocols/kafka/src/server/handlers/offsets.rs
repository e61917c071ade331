//! How far groups have read: OffsetCommit, OffsetFetch, OffsetDelete.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use sabir_broker::{CatalogView, Committed, Fence, GroupPhase, OffsetCommit, Topic};
use sabir_model::{GroupError, LeaderEpoch, Offset, ShardFailure, TopicId};

use super::{COMMIT_TIMEOUT, Call, Client, Reply, Unanswered, commit_by, decode, first_error, once, within};
use crate::server::map::group_error_code;
use crate::server::names;
use crate::server::requests::{BadRequest, Request};
use crate::wire::messages::offset_commit::{
    OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitResponse, OffsetCommitResponsePartition,
    OffsetCommitResponseTopic,
};
use crate::wire::messages::offset_delete::{
    OffsetDeleteRequest, OffsetDeleteResponse, OffsetDeleteResponsePartition, OffsetDeleteResponseTopic,
};
use crate::wire::messages::offset_fetch::{
    OffsetFetchRequest, OffsetFetchRequestGroup, OffsetFetchRequestTopics, OffsetFetchResponse,
    OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponsePartitions,
    OffsetFetchResponseTopic, OffsetFetchResponseTopics,
};
use crate::wire::{ErrorCode, Reader, Str, Uuid};

/// The first versions that name topics by id.
const IDS_SINCE: i16 = 10;
/// The first version of OffsetFetch in which a group has an error of its own.
const ERROR_SINCE: i16 = 2;
/// The first version of OffsetFetch that asks for several groups.
const GROUPS_SINCE: i16 = 8;
/// The first version of OffsetCommit whose clients know that a group may not be found.
const NOT_FOUND_SINCE: i16 = 9;

fn find(
    client: &Client,
    catalog: &CatalogView,
    by_id: bool,
    name: &str,
    id: Uuid,
) -> Result<Arc<Topic>, ErrorCode> {
    if by_id {
        return catalog
            .topic_by_id(TopicId(id))
            .filter(|topic| client.sees(topic))
            .cloned()
            .ok_or(ErrorCode::UnknownTopicId);
    }
    let stored = names::topic_name(name).map_err(|_| ErrorCode::UnknownTopicOrPartition)?;
    catalog.topic_of(&client.caller, &stored).cloned().ok_or(ErrorCode::UnknownTopicOrPartition)
}

fn has_partition(topic: &Topic, index: i32) -> Result<(), ErrorCode> {
    topic.partition(index).map(drop).ok_or(ErrorCode::UnknownTopicOrPartition)
}

pub(super) async fn offset_commit(client: Arc<Client>, request: Request) -> Result<Reply, Unanswered> {
    let call = Call::of(&request);
    let body: OffsetCommitRequest = decode(&request)?;
    drop(request);
    let catalog = client.kafka.broker.catalog();
    // Of a partition that is named more than once the last position counts, and counts once.
    let mut commits = Vec::new();
    let mut numbers = HashMap::new();
    // What the answers to the commits are for, by places in the response.
    let mut places = Vec::new();
    let mut topics = Vec::with_capacity(body.topics.len());
    for (at, topic) in body.topics.iter().enumerate() {
        let found = find(&client, &catalog, call.version >= IDS_SINCE, &topic.name, topic.topic_id);
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for (i, partition) in topic.partitions.iter().enumerate() {
            let commit = found.clone().and_then(|topic| commit_of(&topic, partition));
            let partition_index = partition.partition_index;
            let error_code = commit.as_ref().map_or_else(|e| e.code(), |_| 0);
            partitions.push(OffsetCommitResponsePartition { partition_index, error_code });
            if let Ok(commit) = commit {
                let number = *numbers.entry((commit.topic, commit.partition)).or_insert(commits.len());
                match commits.get_mut(number) {
                    Some(earlier) => *earlier = commit,
                    None => commits.push(commit),
                }
                places.push((at, i, number));
            }
        }
        let (name, topic_id) = (topic.name.clone(), topic.topic_id);
        topics.push(OffsetCommitResponseTopic { name, topic_id, partitions });
    }
    let fence = Fence {
        generation: body.generation_id_or_member_epoch,
        member: body.member_id.as_str().into(),
        instance: body.group_instance_id.as_deref().map(Into::into),
    };
    drop(numbers);
    let count = commits.len();
    let committing = client.groups().commit(&body.group_id, fence, commits);
    let outcomes = tokio::time::timeout(COMMIT_TIMEOUT, committing).await;
    let outcomes = outcomes.unwrap_or_else(|_| vec![Err(ShardFailure::Timeout.into()); count]);
    for (at, i, number) in places {
        if let Some(Err(refused)) = outcomes.get(number) {
            topics[at].partitions[i].error_code = commit_error(refused.error, call.version).code();
        }
    }
    let error = first_error(topics.iter().flat_map(|t| t.partitions.iter().map(|p| p.error_code)));
    Ok(call.reply(&OffsetCommitResponse { topics, ..Default::default() }, error))
}

fn commit_of(topic: &Topic, partition: &OffsetCommitRequestPartition) -> Result<OffsetCommit, ErrorCode> {
    has_partition(topic, partition.partition_index)?;
    Ok(OffsetCommit {
        topic: topic.id,
        partition: partition.partition_index,
        offset: Offset(partition.committed_offset),
        leader_epoch: LeaderEpoch(partition.committed_leader_epoch),
        metadata: partition.committed_metadata.as_deref().unwrap_or_default().into(),
    })
}

fn commit_error(error: GroupError, version: i16) -> ErrorCode {
    match error {
        // Clients before that take it for a generation that has passed.
        GroupError::NotFound if version < NOT_FOUND_SINCE => ErrorCode::IllegalGeneration,
        GroupError::TooLarge => ErrorCode::InvalidCommitOffsetSize,
        other => group_error_code(other),
    }
}

pub(super) fn offset_fetch(client: &Client, request: &Request) -> Result<Reply, BadRequest> {
    let call = Call::of(request);
    let body: OffsetFetchRequest = decode(request)?;
    // Offsets are visible once they are committed for good, so there are no unstable ones and `require_stable` is kept.
    if call.version >= GROUPS_SINCE {
        let named = once(&body.groups, |group| group.group_id.clone());
        let groups: Vec<_> = named.map(|g| group_offsets(client, g, call.version)).collect();
        let topics = groups.iter().flat_map(|g| &g.topics);
        let partitions = topics.flat_map(|t| t.partitions.iter().map(|p| p.error_code));
        let error = first_error(groups.iter().map(|g| g.error_code).chain(partitions));
        return Ok(call.reply(&OffsetFetchResponse { groups, ..Default::default() }, error));
    }
    let topics = body.topics.map(|topics| {
        let topic =
            |t: crate::wire::messages::offset_fetch::OffsetFetchRequestTopic| OffsetFetchRequestTopics {
                name: t.name,
                partition_indexes: t.partition_indexes,
                ..Default::default()
            };
        topics.into_iter().map(topic).collect()
    });
    let group = OffsetFetchRequestGroup { group_id: body.group_id, topics, ..Default::default() };
    let mut offsets = group_offsets(client, &group, call.version);
    if call.version < ERROR_SINCE {
        offsets.topics = refused_topics(&group, offsets.error_code).unwrap_or(offsets.topics);
    }
    let response = OffsetFetchResponse {
        error_code: offsets.error_code,
        topics: offsets.topics.into_iter().map(old_topic).collect(),
        ..Default::default()
    };
    let error = first_error(std::iter::once(response.error_code));
    Ok(call.reply(&response, error))
}

fn old_topic(topic: OffsetFetchResponseTopics) -> OffsetFetchResponseTopic {
    let partition = |p: OffsetFetchResponsePartitions| OffsetFetchResponsePartition {
        partition_index: p.partition_index,
        committed_offset: p.committed_offset,
        committed_leader_epoch: p.committed_leader_epoch,
        metadata: p.metadata,
        error_code: p.error_code,
    };
    OffsetFetchResponseTopic {
        name: topic.name,
        partitions: topic.partitions.into_iter().map(partition).collect(),
    }
}

fn group_offsets(client: &Client, group: &OffsetFetchRequestGroup, version: i16) -> OffsetFetchResponseGroup {
    let catalog = client.kafka.broker.catalog();
    if let Err(kind) = client.groups().ready() {
        let error_code = group_error_code(kind).code();
        return OffsetFetchResponseGroup {
            group_id: group.group_id.clone(),
            error_code,
            ..Default::default()
        };
    }
    let topics = match &group.topics {
        None => all_offsets(client, &catalog, &group.group_id),
        Some(topics) => {
            let by_id = version >= IDS_SINCE;
            let named = once(topics, |topic| (topic.name.clone(), topic.topic_id));
            named.map(|topic| topic_offsets(client, &catalog, &group.group_id, topic, by_id)).collect()
        }
    };
    OffsetFetchResponseGroup { group_id: group.group_id.clone(), topics, error_code: 0 }
}

/// A group's error where the answer has room for it in each partition alone.
fn refused_topics(
    group: &OffsetFetchRequestGroup,
    error_code: i16,
) -> Option<Vec<OffsetFetchResponseTopics>> {
    if error_code == ErrorCode::None.code() {
        return None;
    }
    let partition = |index: &i32| OffsetFetchResponsePartitions { error_code, ..position(*index, None) };
    let topic = |topic: &OffsetFetchRequestTopics| OffsetFetchResponseTopics {
        name: topic.name.clone(),
        partitions: topic.partition_indexes.iter().map(partition).collect(),
        ..Default::default()
    };
    Some(group.topics.iter().flatten().map(topic).collect())
}

fn topic_offsets(
    client: &Client,
    catalog: &CatalogView,
    group: &str,
    wanted: &OffsetFetchRequestTopics,
    by_id: bool,
) -> OffsetFetchResponseTopics {
    let base = OffsetFetchResponseTopics {
        name: wanted.name.clone(),
        topic_id: wanted.topic_id,
        partitions: Vec::new(),
    };
    let indexes: Vec<i32> = once(&wanted.partition_indexes, |index| *index).copied().collect();
    let partitions = match find(client, catalog, by_id, &wanted.name, wanted.topic_id) {
        Ok(topic) => {
            let asked: Vec<_> = indexes.iter().map(|index| (topic.id, *index)).collect();
            let found = client.groups().fetch_offsets(group, &asked);
            indexes.iter().zip(found).map(|(index, committed)| position(*index, committed.as_ref())).collect()
        }
        // By name, a topic that is not there has no position, and that is no error.
        Err(_) if !by_id => indexes.iter().map(|index| position(*index, None)).collect(),
        Err(error) => {
            let refused = |index: &i32| OffsetFetchResponsePartitions {
                error_code: error.code(),
                ..position(*index, None)
            };
            indexes.iter().map(refused).collect()
        }
    };
    OffsetFetchResponseTopics { partitions, ..base }
}

fn all_offsets(client: &Client, catalog: &CatalogView, group: &str) -> Vec<OffsetFetchResponseTopics> {
    let mut by_topic: BTreeMap<TopicId, Vec<OffsetFetchResponsePartitions>> = BTreeMap::new();
    for ((topic, index), committed) in client.groups().all_offsets(group) {
        by_topic.entry(topic).or_default().push(position(index, Some(&committed)));
    }
    // Those of topics deleted a moment ago are left out; nothing can be read there.
    let shown = by_topic.into_iter().filter_map(|(id, partitions)| {
        let topic = catalog.topic_by_id(id).filter(|topic| client.sees(topic))?;
        let name = Str::from(&*names::client_name(&topic.name));
        Some(OffsetFetchResponseTopics { name, topic_id: id.0, partitions })
    });
    shown.collect()
}

fn position(partition_index: i32, committed: Option<&Committed>) -> OffsetFetchResponsePartitions {
    OffsetFetchResponsePartitions {
        partition_index,
        committed_offset: committed.map_or(-1, |c| c.offset.0),
        committed_leader_epoch: committed.map_or(-1, |c| c.leader_epoch.0),
        metadata: Some(committed.map_or_else(Str::default, |c| Str::from(&*c.metadata))),
        error_code: 0,
    }
}

pub(super) async fn offset_delete(client: Arc<Client>, request: Request) -> Result<Reply, Unanswered> {
    let call = Call::of(&request);
    let body: OffsetDeleteRequest = decode(&request)?;
    drop(request);
    let groups = client.groups();
    let refused = |error: ErrorCode| {
        call.reply(&OffsetDeleteResponse { error_code: error.code(), ..Default::default() }, error)
    };
    if let Err(kind) = groups.ready() {
        return Ok(refused(group_error_code(kind)));
    }
    if body.group_id.is_empty() {
        return Ok(refused(ErrorCode::InvalidGroupId));
    }
    let Some(view) = groups.describe(&body.group_id) else { return Ok(refused(ErrorCode::GroupIdNotFound)) };
    let read = match (view.state, &*view.protocol_type) {
        (GroupPhase::Empty, _) => HashSet::new(),
        (_, CONSUMER) => view.members.iter().flat_map(|m| subscribed(&m.metadata)).collect(),
        // What members of other kinds of groups read cannot be told.
        _ => return Ok(refused(ErrorCode::NonEmptyGroup)),
    };
    let catalog = client.kafka.broker.catalog();
    let mut deleted = Vec::new();
    let mut topics = Vec::with_capacity(body.topics.len());
    for topic in &body.topics {
        let found = match read.contains(&*topic.name) {
            true => Err(ErrorCode::GroupSubscribedToTopic),
            false => find(&client, &catalog, false, &topic.name, [0; 16]),
        };
        let partitions = topic.partitions.iter().map(|p| {
            let gone =
                found.clone().and_then(|topic| has_partition(&topic, p.partition_index).map(|()| topic.id));
            let error_code = gone.map_or_else(
                |e| e.code(),
                |id| {
                    deleted.push((id, p.partition_index));
                    0
                },
            );
            OffsetDeleteResponsePartition { partition_index: p.partition_index, error_code }
        });
        topics.push(OffsetDeleteResponseTopic { name: topic.name.clone(), partitions: partitions.collect() });
    }
    if !deleted.is_empty()
        && let Err(why) = within(commit_by(), groups.delete_offsets(&body.group_id, &deleted)).await
    {
        return Ok(refused(group_error_code(why.error)));
    }
    let error = first_error(topics.iter().flat_map(|t| t.partitions.iter().map(|p| p.error_code)));
    Ok(call.reply(&OffsetDeleteResponse { topics, ..Default::default() }, error))
}

/// The kind of group whose members' metadata is a subscription.
const CONSUMER: &str = "consumer";

/// The topics of a consumer's subscription: version, then an array of names, then what does not matter here. Nothing, if it
/// is no subscription.
fn subscribed(metadata: &bytes::Bytes) -> Vec<String> {
    let mut reader = Reader::new(metadata);
    let mut read = || {
        reader.i16()?;
        let count = reader.i32()?;
        let mut topics = Vec::new();
        for _ in 0..count {
            let length = usize::try_from(reader.i16()?).unwrap_or(usize::MAX);
            topics.push(String::from_utf8_lossy(&reader.bytes(length)?).into_owned());
        }
        Ok::<_, crate::wire::WireError>(topics)
    };
    read().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subscriptions_are_read_and_nonsense_is_none() {
        let golden = b"\0\x01\0\0\0\x02\0\x01a\0\x02bc\xff\xff\xff\xff\0\0\0\0";
        assert_eq!(subscribed(&bytes::Bytes::from_static(golden)), ["a", "bc"]);
        for nonsense in
            [&b""[..], b"\0\x01\x7f\xff\xff\xff", b"\0\x01\0\0\0\x01\xff\xff", b"\0\x01\0\0\0\x01\0\x09a"]
        {
            assert!(subscribed(&bytes::Bytes::copy_from_slice(nonsense)).is_empty());
        }
    }
}

//! What the answer to a request may take: one that is far larger than what came takes its memory before it is made, from what frames and
//! unread answers of all connections share. It keeps what it needs of it until it is sent.

use std::sync::Arc;

use sabir_broker::{CatalogView, Topic};
use sabir_model::TopicId;
use sabir_net::{FrameMemory, Grant, NoMemory, UNCOUNTED};
use tokio::time::{Duration, Instant};

use super::{Client, Handling, LONG, Reply, Unanswered, decode, once};
use crate::server::names;
use crate::server::requests::{BadRequest, Request};
use crate::wire::messages::create_topics::{
    CreatableTopicConfigs, CreatableTopicResult, CreateTopicsRequest,
};
use crate::wire::messages::delete_groups::{DeletableGroupResult, DeleteGroupsRequest};
use crate::wire::messages::delete_topics::{DeletableTopicResult, DeleteTopicsRequest};
use crate::wire::messages::describe_configs::{
    DescribeConfigsRequest, DescribeConfigsResourceResult, DescribeConfigsSynonym,
};
use crate::wire::messages::describe_groups::{DescribeGroupsRequest, DescribedGroup, DescribedGroupMember};
use crate::wire::messages::describe_log_dirs::{DescribeLogDirsPartition, DescribeLogDirsRequest};
use crate::wire::messages::find_coordinator::{Coordinator, FindCoordinatorRequest};
use crate::wire::messages::list_groups::ListedGroup;
use crate::wire::messages::metadata::{MetadataRequest, MetadataResponsePartition, MetadataResponseTopic};
use crate::wire::messages::offset_fetch::{
    OffsetFetchRequest, OffsetFetchRequestTopics, OffsetFetchResponsePartitions,
};
use crate::wire::{ApiKey, Str};

/// How long memory is waited for, if the request itself waits no longer.
const LEAST_HOLD: Duration = Duration::from_secs(1);

/// Memory for what a request takes beside its frame.
///
/// # Errors
/// There was none in time. Waiting on would be for others that may wait for what this one's frame takes.
pub(super) async fn hold(
    memory: &FrameMemory,
    bytes: usize,
    until: Instant,
) -> Result<Option<Grant>, NoMemory> {
    let bytes = bytes.min(memory.total());
    if bytes <= UNCOUNTED {
        return Ok(None);
    }
    let by = until.max(Instant::now() + LEAST_HOLD);
    let taken = tokio::time::timeout_at(by, memory.clone().take(bytes)).await;
    taken.map(Some).map_err(|_| NoMemory)
}

/// So many partitions, or groups, are listed at once, and so many topics made.
const FEW: usize = 1000;

/// Whether a request may take long to be weighed, handled and answered although it is small.
pub(super) fn is_long(client: &Client, request: &Request) -> bool {
    let broker = &client.kafka.broker;
    match request.api {
        ApiKey::OffsetFetch | ApiKey::DescribeGroups => true,
        ApiKey::ListGroups => client.groups().count() > FEW,
        ApiKey::Metadata
        | ApiKey::DescribeConfigs
        | ApiKey::DescribeLogDirs
        | ApiKey::DescribeTopicPartitions
        | ApiKey::ElectLeaders
        | ApiKey::ListConfigResources => broker.catalog().partitions() > FEW,
        _ => false,
    }
}

/// Handles a request within memory for its answer, where that is worth counting.
pub(super) fn within(
    client: Arc<Client>,
    request: Request,
    handle: fn(Arc<Client>, Request) -> Handling,
) -> Handling {
    let (total, decoded) = (client.memory.total(), decoded(&request));
    if decoded > total {
        return Box::pin(std::future::ready(Err(Unanswered::NoMemory)));
    }
    let answer = answer(&client, &request);
    if answer > total && is_as_asked(request.api) {
        return Box::pin(std::future::ready(Err(Unanswered::NoMemory)));
    }
    let bytes = answer.saturating_add(if is_parked(request.api) { 0 } else { decoded });
    if bytes <= UNCOUNTED { handle(client, request) } else { Box::pin(held(client, request, bytes, handle)) }
}

/// What each byte of a large request may come to in memory once it is decoded and its names are told apart.
const DECODED: usize = 16;

/// About what a request takes decoded, in bytes, where that may be far more than it has encoded.
fn decoded(request: &Request) -> usize {
    let each = match request.api {
        // A fetch is weighed, with memory held for it, before it is decoded.
        ApiKey::Fetch => 0,
        _ if request.body.len() <= LONG => 0,
        // Most of their bytes are of what they carry, which is not copied.
        ApiKey::JoinGroup | ApiKey::SyncGroup => DECODED / 2,
        _ => DECODED,
    };
    request.body.len().saturating_mul(each)
}

/// Whether a request may wait for others of its kind for minutes: what is kept of it meanwhile is counted where it waits.
fn is_parked(api: ApiKey) -> bool {
    matches!(api, ApiKey::JoinGroup | ApiKey::SyncGroup)
}

/// Whether it is the request that decides how large the answer becomes, not what there is: the client can ask for less at once.
fn is_as_asked(api: ApiKey) -> bool {
    matches!(
        api,
        ApiKey::CreateTopics
            | ApiKey::DeleteTopics
            | ApiKey::DescribeGroups
            | ApiKey::DeleteGroups
            | ApiKey::FindCoordinator
    )
}

async fn held(
    client: Arc<Client>,
    request: Request,
    bytes: usize,
    handle: fn(Arc<Client>, Request) -> Handling,
) -> Result<Reply, Unanswered> {
    // One that is larger, as the answer on all there is may be, is let through alone, or nearly so: its frame has a part of the same
    // memory.
    let bytes = bytes.min(client.memory.total() / 2);
    let granted = hold(&client.memory, bytes, Instant::now()).await?;
    Ok(sent(handle(client, request).await?, granted))
}

/// A reply keeps of its memory what it takes now that it is encoded.
fn sent(reply: Reply, granted: Option<Grant>) -> Reply {
    let Reply::Frame { frame, .. } = &reply else { return reply };
    let len = frame.len();
    match granted {
        Some(mut granted) if len > UNCOUNTED => {
            // What is not to be had is counted as unread, as of any other answer.
            granted.resize(len.min(granted.bytes()));
            reply.within(Some(granted), None)
        }
        _ => reply,
    }
}

/// What a topic's settings take in an answer, with all that may be asked of them.
pub(super) const TOPIC_SETTINGS: usize = 40
    * (size_of::<DescribeConfigsResourceResult>() + 3 * size_of::<DescribeConfigsSynonym>() + SETTING_TEXTS);
/// The same without descriptions and synonyms.
const MADE_TOPIC: usize = 40 * (size_of::<CreatableTopicConfigs>() + 100);
/// A topic that is not made, with what is said of it.
const REFUSED_TOPIC: usize = size_of::<CreatableTopicResult>() + 300;
/// More topics are not made at once, whatever memory there is.
const MOST_TOPICS: usize = 10_000;
/// Names, values and what is said of a setting, as it is encoded.
const SETTING_TEXTS: usize = 400;
/// A list of nodes, of which there is one.
const NODES: usize = 32;
const PARTITION: usize = size_of::<MetadataResponsePartition>() + 2 * NODES + 64;
const TOPIC: usize = size_of::<MetadataResponseTopic>() + 64;
const MEMBER: usize = size_of::<DescribedGroupMember>() + 256;
const POSITION: usize = size_of::<OffsetFetchResponsePartitions>() + 64;
const SIZE: usize = size_of::<DescribeLogDirsPartition>() + 32;
const GROUP: usize = size_of::<ListedGroup>() + 512;
/// A group that is asked for by name, beside its members and twice its name.
const NAMED_GROUP: usize = size_of::<DescribedGroup>() + 256;
const DELETED_GROUP: usize = size_of::<DeletableGroupResult>() + 64;
const DELETED_TOPIC: usize = size_of::<DeletableTopicResult>() + 300;
const COORDINATOR: usize = size_of::<Coordinator>() + 128;
/// The name of a topic, beside its text.
const NAME: usize = size_of::<Str>() + size_of::<String>() + 32;

/// About what the answer to a request takes, in bytes, where that may be far more than the request: as it is made, and encoded.
fn answer(client: &Client, request: &Request) -> usize {
    // One that cannot be decoded is refused.
    match request.api {
        ApiKey::Metadata => metadata(client, request).unwrap_or(0),
        ApiKey::DescribeConfigs => described_settings(client, request).unwrap_or(0),
        ApiKey::CreateTopics => made_topics(client, request).unwrap_or(0),
        ApiKey::DeleteTopics => decode::<DeleteTopicsRequest>(request)
            .map_or(0, |body| body.topics.len().max(body.topic_names.len()) * DELETED_TOPIC),
        ApiKey::DeleteGroups => {
            decode::<DeleteGroupsRequest>(request).map_or(0, |body| body.groups_names.len() * DELETED_GROUP)
        }
        ApiKey::FindCoordinator => decode::<FindCoordinatorRequest>(request)
            .map_or(0, |body| body.coordinator_keys.len() * COORDINATOR),
        ApiKey::DescribeGroups => described_groups(client, request).unwrap_or(0),
        ApiKey::ListGroups => client.groups().count() * GROUP,
        ApiKey::OffsetFetch => positions(client, request).unwrap_or(0),
        ApiKey::DescribeLogDirs => sizes(client, request).unwrap_or(0),
        ApiKey::ListConfigResources | ApiKey::DescribeTopicPartitions => topic_names(client),
        _ => 0,
    }
}

/// How many topics one request may make: their settings are all in the answer.
pub(super) fn most_topics(client: &Client) -> usize {
    (client.memory.total() / MADE_TOPIC).clamp(FEW, MOST_TOPICS)
}

fn made_topics(client: &Client, request: &Request) -> Result<usize, BadRequest> {
    let count = decode::<CreateTopicsRequest>(request)?.topics.len();
    Ok(match count > most_topics(client) {
        true => count * REFUSED_TOPIC,
        // A few are made whatever memory there is.
        false => (count * MADE_TOPIC).min(client.memory.total()),
    })
}

fn partitions(topics: usize, partitions: usize, each: usize) -> usize {
    topics * TOPIC + partitions * each
}

fn all_topics(catalog: &CatalogView, each: usize) -> usize {
    partitions(catalog.len(), catalog.partitions(), each)
        + 2 * names::most_shown(catalog.len(), catalog.name_bytes())
}

fn one_topic(topic: &Topic, each: usize) -> usize {
    partitions(1, topic.partitions.len(), each) + 2 * names::most_shown(1, topic.name.len())
}

fn metadata(client: &Client, request: &Request) -> Result<usize, BadRequest> {
    let body: MetadataRequest = decode(request)?;
    let catalog = client.kafka.broker.catalog();
    let Some(topics) = body.topics.filter(|topics| request.version > 0 || !topics.is_empty()) else {
        return Ok(all_topics(&catalog, PARTITION));
    };
    let one = |wanted: &crate::wire::messages::metadata::MetadataRequestTopic| {
        let topic = match wanted.name.as_deref().filter(|_| wanted.topic_id == [0; 16]) {
            Some(name) => {
                names::topic_name(name).ok().and_then(|name| catalog.topic_of(&client.caller, &name))
            }
            None => catalog.topic_by_id(TopicId(wanted.topic_id)).filter(|topic| client.sees(topic)),
        };
        topic.map_or(TOPIC, |topic| one_topic(topic, PARTITION))
    };
    let named = once(&topics, |topic| (topic.name.clone(), topic.topic_id));
    Ok(named.map(one).sum())
}

fn described_settings(client: &Client, request: &Request) -> Result<usize, BadRequest> {
    let body: DescribeConfigsRequest = decode(request)?;
    let named = once(&body.resources, |r| (r.resource_type, r.resource_name.clone()));
    let known = named.filter(|r| client.topic(&r.resource_name).is_some());
    Ok(known.count() * TOPIC_SETTINGS)
}

fn described_groups(client: &Client, request: &Request) -> Result<usize, BadRequest> {
    let body: DescribeGroupsRequest = decode(request)?;
    let groups = client.groups();
    let members = |view: sabir_broker::GroupView| -> usize {
        view.members.iter().map(|m| MEMBER + m.metadata.len() + m.assignment.len()).sum()
    };
    let one = |id: &Str| NAMED_GROUP + 2 * id.len() + groups.describe(id).map_or(0, members);
    Ok(once(&body.groups, Clone::clone).map(one).sum())
}

fn positions(client: &Client, request: &Request) -> Result<usize, BadRequest> {
    let body: OffsetFetchRequest = decode(request)?;
    let one = |group: &str, named: Option<usize>| match named {
        // So many cannot be much.
        Some(named) if named * (POSITION + LONGEST_METADATA) <= UNCOUNTED => 0,
        named => {
            let offsets = client.groups().all_offsets(group);
            let known: usize = offsets.iter().map(|(_, position)| POSITION + position.metadata.len()).sum();
            known + named.unwrap_or(0) * POSITION
        }
    };
    let old = body.topics.as_ref().map(|topics| topics.iter().map(|t| t.partition_indexes.len()).sum());
    let named =
        |topics: &Vec<OffsetFetchRequestTopics>| topics.iter().map(|t| t.partition_indexes.len()).sum();
    let of_groups = once(&body.groups, |group| group.group_id.clone());
    let of_groups: usize =
        of_groups.map(|group| one(&group.group_id, group.topics.as_ref().map(named))).sum();
    Ok(of_groups + one(&body.group_id, old))
}

/// The longest text that comes with a position: 4,096 UTF-16 units.
const LONGEST_METADATA: usize = 3 * 4096;

fn sizes(client: &Client, request: &Request) -> Result<usize, BadRequest> {
    let body: DescribeLogDirsRequest = decode(request)?;
    Ok(match body.topics {
        None => all_topics(&client.kafka.broker.catalog(), SIZE),
        Some(topics) => topics.iter().map(|topic| partitions(1, topic.partitions.len(), SIZE)).sum(),
    })
}

fn topic_names(client: &Client) -> usize {
    let catalog = client.kafka.broker.catalog();
    catalog.len() * NAME + 2 * names::most_shown(catalog.len(), catalog.name_bytes())
}

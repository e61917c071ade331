//! What the answer to a request may take: one that is far larger than what came takes its memory before it is made, from what frames and
//! unread answers of all connections share. It keeps what it needs of it until it is sent.

use std::sync::Arc;

use sabir_broker::{CatalogView, Topic};
use sabir_model::TopicId;
use sabir_net::{DropReason, FrameMemory, Grant, NoMemory, UNCOUNTED};
use tokio::time::{Duration, Instant};

use super::{Client, Handling, Reply, decode, once};
use crate::server::names;
use crate::server::requests::{BadRequest, Request};
use crate::wire::messages::create_topics::{CreatableTopicConfigs, CreateTopicsRequest};
use crate::wire::messages::describe_configs::{
    DescribeConfigsRequest, DescribeConfigsResourceResult, DescribeConfigsSynonym,
};
use crate::wire::messages::describe_groups::{DescribeGroupsRequest, DescribedGroupMember};
use crate::wire::messages::describe_log_dirs::{DescribeLogDirsPartition, DescribeLogDirsRequest};
use crate::wire::messages::list_groups::ListedGroup;
use crate::wire::messages::metadata::{MetadataRequest, MetadataResponsePartition, MetadataResponseTopic};
use crate::wire::messages::offset_fetch::{
    OffsetFetchRequest, OffsetFetchRequestTopics, OffsetFetchResponsePartitions,
};
use crate::wire::{ApiKey, ErrorCode, Str};

/// How long memory is waited for, if the request itself waits no longer.
const LEAST_HOLD: Duration = Duration::from_secs(1);

pub(super) const NO_MEMORY: Reply =
    Reply::Close { error: ErrorCode::RequestTimedOut, why: DropReason::Memory };

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

/// So many partitions, or groups, are listed at once.
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
    let bytes = answer(&client, &request);
    if bytes <= UNCOUNTED { handle(client, request) } else { Box::pin(held(client, request, bytes, handle)) }
}

async fn held(
    client: Arc<Client>,
    request: Request,
    bytes: usize,
    handle: fn(Arc<Client>, Request) -> Handling,
) -> Result<Reply, BadRequest> {
    // One that is larger is let through alone, or nearly so: its frame has a part of the same memory.
    let bytes = bytes.min(client.memory.total() / 2);
    match hold(&client.memory, bytes, Instant::now()).await {
        Ok(granted) => Ok(sent(handle(client, request).await?, granted)),
        Err(NoMemory) => Ok(NO_MEMORY),
    }
}

/// A reply keeps of its memory what it takes now that it is encoded.
fn sent(reply: Reply, granted: Option<Grant>) -> Reply {
    let Reply::Frame { frame, .. } = &reply else { return reply };
    let len = frame.len();
    match granted {
        Some(mut granted) if len > UNCOUNTED => {
            // What is not to be had is counted as unread, as of any other answer.
            granted.resize(len.min(granted.bytes()));
            reply.within(Some(granted))
        }
        _ => reply,
    }
}

/// What a topic's settings take in an answer, with all that may be asked of them.
pub(super) const TOPIC_SETTINGS: usize = 40
    * (size_of::<DescribeConfigsResourceResult>() + 3 * size_of::<DescribeConfigsSynonym>() + SETTING_TEXTS);
/// The same without descriptions and synonyms.
const MADE_TOPIC: usize = 40 * (size_of::<CreatableTopicConfigs>() + 100);
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
/// The name of a topic, beside its text.
const NAME: usize = size_of::<Str>() + size_of::<String>() + 32;

/// About what the answer to a request takes, in bytes, where that may be far more than the request: as it is made, and encoded.
fn answer(client: &Client, request: &Request) -> usize {
    // One that cannot be decoded is refused.
    match request.api {
        ApiKey::Metadata => metadata(client, request).unwrap_or(0),
        ApiKey::DescribeConfigs => described_settings(client, request).unwrap_or(0),
        ApiKey::CreateTopics => {
            decode::<CreateTopicsRequest>(request).map_or(0, |body| body.topics.len() * MADE_TOPIC)
        }
        ApiKey::DescribeGroups => described_groups(client, request).unwrap_or(0),
        ApiKey::ListGroups => client.groups().count() * GROUP,
        ApiKey::OffsetFetch => positions(client, request).unwrap_or(0),
        ApiKey::DescribeLogDirs => sizes(client, request).unwrap_or(0),
        ApiKey::ListConfigResources | ApiKey::DescribeTopicPartitions => topic_names(client),
        _ => 0,
    }
}

fn partitions(topics: usize, partitions: usize, each: usize) -> usize {
    topics * TOPIC + partitions * each
}

fn all_topics(catalog: &CatalogView, each: usize) -> usize {
    partitions(catalog.len(), catalog.partitions(), each) + catalog.len() * 2 * LONGEST_NAME
}

/// What names of topics take at the most, in bytes.
const LONGEST_NAME: usize = 249;

fn one_topic(topic: &Topic, each: usize) -> usize {
    partitions(1, topic.partitions.len(), each) + 2 * topic.name.len()
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
            None => catalog.topic_by_id(TopicId(wanted.topic_id)).filter(|topic| client.caller.sees(topic)),
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
    let views = once(&body.groups, Clone::clone).filter_map(|id| groups.describe(id));
    let members = |view: sabir_broker::GroupView| -> usize {
        view.members.iter().map(|m| MEMBER + m.metadata.len() + m.assignment.len()).sum()
    };
    Ok(views.map(members).sum())
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
    client.kafka.broker.catalog().len() * (NAME + 2 * LONGEST_NAME)
}

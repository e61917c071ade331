//! DescribeCluster, DescribeLogDirs, DescribeTopicPartitions and ListConfigResources.

use std::collections::HashSet;
use std::sync::Arc;

use sabir_broker::{ReadTarget, Topic};

use super::metadata::{CLUSTER_OPERATIONS, TOPIC_OPERATIONS};
use super::topics::is_internal;
use super::{Call, Client, Reply, decode, first_error, once};
use crate::server::names;
use crate::server::requests::{BadRequest, Request};
use crate::wire::messages::describe_cluster::{
    DescribeClusterBroker, DescribeClusterRequest, DescribeClusterResponse,
};
use crate::wire::messages::describe_log_dirs::{
    DescribeLogDirsPartition, DescribeLogDirsRequest, DescribeLogDirsResponse, DescribeLogDirsResult,
    DescribeLogDirsTopic,
};
use crate::wire::messages::describe_topic_partitions::{
    Cursor, DescribeTopicPartitionsRequest, DescribeTopicPartitionsResponse,
    DescribeTopicPartitionsResponsePartition, DescribeTopicPartitionsResponseTopic,
};
use crate::wire::messages::list_config_resources::{
    ConfigResource, ListConfigResourcesRequest, ListConfigResourcesResponse,
};
use crate::wire::{ErrorCode, Str};

/// Asks for the brokers.
const BROKERS: i8 = 1;
/// Asks for the controllers, of one of them.
const CONTROLLERS: i8 = 2;

pub(super) fn describe_cluster(client: &Client, request: &Request) -> Result<Reply, BadRequest> {
    let call = Call::of(request);
    let body: DescribeClusterRequest = decode(request)?;
    if body.endpoint_type != BROKERS {
        let (error, message) = match body.endpoint_type {
            CONTROLLERS => (ErrorCode::MismatchedEndpointType, "this is a broker (1), not a controller"),
            _ => (ErrorCode::UnsupportedEndpointType, "there are brokers (1) and controllers (2)"),
        };
        let response = DescribeClusterResponse {
            error_code: error.code(),
            error_message: Some(Str::from_static(message)),
            ..Default::default()
        };
        return Ok(call.reply(&response, error));
    }
    let mut response = DescribeClusterResponse {
        cluster_id: client.kafka.cluster_id.clone(),
        controller_id: client.kafka.node_id(),
        brokers: vec![DescribeClusterBroker {
            broker_id: client.kafka.node_id(),
            host: client.host.clone(),
            port: client.port,
            rack: None,
            is_fenced: false,
        }],
        ..Default::default()
    };
    if body.include_cluster_authorized_operations {
        response.cluster_authorized_operations = CLUSTER_OPERATIONS;
    }
    Ok(call.reply(&response, ErrorCode::None))
}

/// What stands for space that is not known.
const UNKNOWN_BYTES: i64 = -1;

/// Says how much each partition takes of the one directory there is. A partition has no file of its own: its size is that of
/// its batches.
pub(super) fn describe_log_dirs(client: &Client, request: &Request) -> Result<Reply, BadRequest> {
    let call = Call::of(request);
    let body: DescribeLogDirsRequest = decode(request)?;
    let topics = match &body.topics {
        None => {
            let catalog = client.kafka.broker.catalog();
            names::shown(&catalog, &client.caller).map(|topic| sizes(client, topic, None)).collect()
        }
        Some(wanted) => {
            let named = once(wanted, |wanted| wanted.topic.clone());
            let indexes = |indexes: &Vec<i32>| indexes.iter().copied().collect::<HashSet<_>>();
            let found = named.filter_map(|w| Some((client.topic(&w.topic)?, indexes(&w.partitions))));
            found.map(|(topic, indexes)| sizes(client, &topic, Some(&indexes))).collect()
        }
    };
    let shards = client.kafka.broker.stats().shards;
    let free = shards.iter().filter_map(|shard| shard.free_bytes).min();
    let used: u64 = shards.iter().map(|shard| shard.segment_bytes).sum();
    let result = DescribeLogDirsResult {
        error_code: 0,
        log_dir: Str::from(client.kafka.broker.options().data.display().to_string()),
        topics,
        total_bytes: free.map_or(UNKNOWN_BYTES, |free| signed(used.saturating_add(free))),
        usable_bytes: free.map_or(UNKNOWN_BYTES, signed),
        is_cordoned: false,
    };
    Ok(call.reply(&DescribeLogDirsResponse { results: vec![result], ..Default::default() }, ErrorCode::None))
}

fn sizes(client: &Client, topic: &Topic, indexes: Option<&HashSet<i32>>) -> DescribeLogDirsTopic {
    let wanted = topic.partitions.iter().filter(|p| indexes.is_none_or(|indexes| indexes.contains(&p.index)));
    let size = |p: &sabir_broker::Partition| DescribeLogDirsPartition {
        partition_index: p.index,
        // One that went a moment ago keeps nothing.
        partition_size: ReadTarget::new(&client.caller, topic, p.index)
            .and_then(|target| client.kafka.broker.partition_bytes(target))
            .map_or(0, signed),
        offset_lag: 0,
        is_future_key: false,
    };
    DescribeLogDirsTopic {
        name: Str::from(&*names::client_name(&topic.name)),
        partitions: wanted.map(size).collect(),
    }
}

fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

/// The most partitions of one answer.
const MAX_PARTITIONS: usize = 2000;

pub(super) fn describe_topic_partitions(client: &Client, request: &Request) -> Result<Reply, BadRequest> {
    let call = Call::of(request);
    let body: DescribeTopicPartitionsRequest = decode(request)?;
    let limit = usize::try_from(body.response_partition_limit).unwrap_or(0).clamp(1, MAX_PARTITIONS);
    let mut names: Vec<String> = if body.topics.is_empty() {
        let catalog = client.kafka.broker.catalog();
        names::shown(&catalog, &client.caller).map(|t| names::client_name(&t.name).into_owned()).collect()
    } else {
        body.topics.iter().map(|t| t.name.to_string()).collect()
    };
    names.sort_unstable();
    names.dedup();
    let from = body.cursor.as_ref().map_or(("", 0), |c| (&*c.topic_name, c.partition_index.max(0)));
    let mut page = Page { left: limit, next: None, topics: Vec::new() };
    for name in names.iter().filter(|name| name.as_str() >= from.0) {
        let first = if name == from.0 { from.1 } else { 0 };
        page.add(client, name, first as usize);
        if page.next.is_some() {
            break;
        }
    }
    let error = first_error(page.topics.iter().map(|t| t.error_code));
    let response =
        DescribeTopicPartitionsResponse { topics: page.topics, next_cursor: page.next, ..Default::default() };
    Ok(call.reply(&response, error))
}

/// An answer in the making.
struct Page {
    /// Partitions that still fit.
    left: usize,
    /// Where the next answer begins.
    next: Option<Cursor>,
    topics: Vec<DescribeTopicPartitionsResponseTopic>,
}

impl Page {
    fn add(&mut self, client: &Client, name: &str, first: usize) {
        if self.left == 0 {
            self.next = Some(Cursor { topic_name: name.into(), partition_index: first as i32 });
            return;
        }
        let refused = |error: ErrorCode| DescribeTopicPartitionsResponseTopic {
            error_code: error.code(),
            name: Some(name.into()),
            is_internal: names::is_internal(name),
            topic_authorized_operations: TOPIC_OPERATIONS,
            ..Default::default()
        };
        let described = match (names::topic_name(name), client.topic(name)) {
            (Err(names::IllegalName), _) => refused(ErrorCode::InvalidTopic),
            (Ok(_), None) => refused(ErrorCode::UnknownTopicOrPartition),
            (Ok(_), Some(topic)) => self.describe(client, name, &topic, first),
        };
        self.topics.push(described);
    }

    fn describe(
        &mut self,
        client: &Client,
        name: &str,
        topic: &Arc<Topic>,
        first: usize,
    ) -> DescribeTopicPartitionsResponseTopic {
        let all = topic.partitions.get(first..).unwrap_or_default();
        let fitting = &all[..all.len().min(self.left)];
        self.left -= fitting.len();
        if fitting.len() < all.len() {
            let partition_index = (first + fitting.len()) as i32;
            self.next = Some(Cursor { topic_name: name.into(), partition_index });
        }
        DescribeTopicPartitionsResponseTopic {
            error_code: 0,
            name: Some(name.into()),
            topic_id: topic.id.0,
            is_internal: is_internal(topic),
            partitions: fitting.iter().map(|p| partition(client, p)).collect(),
            topic_authorized_operations: TOPIC_OPERATIONS,
        }
    }
}

fn partition(
    client: &Client,
    partition: &sabir_broker::Partition,
) -> DescribeTopicPartitionsResponsePartition {
    let described = super::metadata::partition(client, partition);
    DescribeTopicPartitionsResponsePartition {
        error_code: described.error_code,
        partition_index: described.partition_index,
        leader_id: described.leader_id,
        leader_epoch: described.leader_epoch,
        replica_nodes: described.replica_nodes,
        isr_nodes: described.isr_nodes,
        eligible_leader_replicas: Some(Vec::new()),
        last_known_elr: Some(Vec::new()),
        offline_replicas: Vec::new(),
    }
}

/// Lists what has settings: topics (2) and brokers (4). Of the other kinds that there are in Kafka, loggers (8), client metrics
/// (16) and groups (32), there are none; unknown kinds are refused. Before version 1, client metrics alone were asked for.
pub(super) fn list_config_resources(client: &Client, request: &Request) -> Result<Reply, BadRequest> {
    const TOPIC: i8 = 2;
    const BROKER: i8 = 4;
    const KINDS: [i8; 5] = [TOPIC, BROKER, 8, 16, 32];
    let call = Call::of(request);
    let body: ListConfigResourcesRequest = decode(request)?;
    if body.resource_types.iter().any(|kind| !KINDS.contains(kind)) {
        let error = ErrorCode::UnsupportedVersion;
        let response = ListConfigResourcesResponse { error_code: error.code(), ..Default::default() };
        return Ok(call.reply(&response, error));
    }
    let wanted =
        |kind| call.version >= 1 && (body.resource_types.is_empty() || body.resource_types.contains(&kind));
    let mut config_resources = Vec::new();
    if wanted(TOPIC) {
        let catalog = client.kafka.broker.catalog();
        config_resources.extend(names::shown(&catalog, &client.caller).map(|topic| ConfigResource {
            resource_name: Str::from(&*names::client_name(&topic.name)),
            resource_type: TOPIC,
        }));
    }
    if wanted(BROKER) {
        let resource_name = Str::from(client.kafka.node_id().to_string());
        config_resources.push(ConfigResource { resource_name, resource_type: BROKER });
    }
    let response = ListConfigResourcesResponse { config_resources, ..Default::default() };
    Ok(call.reply(&response, ErrorCode::None))
}

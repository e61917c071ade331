//! Metadata: brokers, topics and partitions; topics that are asked for and not there are made.

use std::sync::Arc;

use sabir_broker::{CatalogView, NewTopic, Topic};
use sabir_model::{TopicError, TopicId};

use super::topics::is_internal;
use super::{COMMIT_TIMEOUT, Call, Client, Reply, Unanswered, decode, first_error, once};
use crate::server::names;
use crate::server::requests::Request;
use crate::wire::messages::metadata::{
    MetadataRequest, MetadataRequestTopic, MetadataResponse, MetadataResponseBroker,
    MetadataResponsePartition, MetadataResponseTopic,
};
use crate::wire::{ErrorCode, Str};

/// Everything one can do to a topic, as Kafka numbers it: read, write, create, delete, alter, describe, describe and alter
/// its configuration. No client is refused anything yet.
pub(super) const TOPIC_OPERATIONS: i32 = bits(&[3, 4, 5, 6, 7, 8, 10, 11]);
/// Everything one can do to a cluster: create, alter, describe, cluster action, its configuration, idempotent write.
pub(super) const CLUSTER_OPERATIONS: i32 = bits(&[5, 7, 8, 9, 10, 11, 12]);
/// Everything one can do to a group: read, delete, describe, describe and alter its configuration.
pub(super) const GROUP_OPERATIONS: i32 = bits(&[3, 6, 8, 10, 11]);

const fn bits(operations: &[u32]) -> i32 {
    let (mut sum, mut i) = (0, 0);
    while i < operations.len() {
        sum |= 1 << operations[i];
        i += 1;
    }
    sum
}

pub(super) async fn metadata(client: Arc<Client>, request: Request) -> Result<Reply, Unanswered> {
    let call = Call::of(&request);
    let body: MetadataRequest = decode(&request)?;
    drop(request);
    let all = match &body.topics {
        None => true,
        // Before version 1 there was no null.
        Some(topics) => call.version == 0 && topics.is_empty(),
    };
    let mut topics = if all {
        let catalog = client.kafka.broker.catalog();
        names::shown(&catalog, &client.caller).map(|topic| described(&client, topic)).collect()
    } else {
        let create = client.kafka.config.auto_create && body.allow_auto_topic_creation;
        let wanted = body.topics.unwrap_or_default();
        if create {
            // What is not made in time is made all the same, and not there in the answer.
            if tokio::time::timeout(COMMIT_TIMEOUT, create_missing(&client, &wanted)).await.is_err() {
                tracing::warn!("topics that a client asked for are not made in time");
            }
        }
        let catalog = client.kafka.broker.catalog();
        let wanted = once(&wanted, |topic| (topic.name.clone(), topic.topic_id));
        wanted.map(|topic| one(&client, &catalog, topic, create)).collect::<Vec<_>>()
    };
    if body.include_topic_authorized_operations {
        for topic in topics.iter_mut().filter(|t| t.error_code == 0) {
            topic.topic_authorized_operations = TOPIC_OPERATIONS;
        }
    }
    let error = first_error(topics.iter().map(|t| t.error_code));
    let mut response = MetadataResponse {
        brokers: vec![MetadataResponseBroker {
            node_id: client.kafka.node_id(),
            host: client.host.clone(),
            port: client.port,
            rack: None,
        }],
        cluster_id: Some(client.kafka.cluster_id.clone()),
        controller_id: client.kafka.node_id(),
        topics,
        ..Default::default()
    };
    if body.include_cluster_authorized_operations {
        response.cluster_authorized_operations = CLUSTER_OPERATIONS;
    }
    Ok(call.reply(&response, error))
}

/// Topics of one request whose making the log tells of by name.
const NAMED: usize = 10;

/// Makes the named topics that are not there. What goes wrong shows in the answer: they are still not there.
async fn create_missing(client: &Client, wanted: &[MetadataRequestTopic]) {
    if wanted.iter().any(|topic| topic.name.as_deref() == Some(names::OFFSETS))
        && let Err(error) = client.kafka.make_offsets_topic().await
    {
        tracing::warn!(topic = names::OFFSETS, %error, "the topic cannot be made");
    }
    let catalog = client.kafka.broker.catalog();
    let named = wanted.iter().filter(|t| t.topic_id == [0; 16]).filter_map(|t| t.name.as_deref());
    let missing = named.filter_map(|name| names::topic_name(name).ok());
    let missing = missing.filter(|name| names::may_be_made(name));
    let missing = missing.filter(|name| catalog.topic_of(&client.caller, name).is_none());
    let mut missing: Vec<String> = missing.map(Into::into).collect();
    missing.sort_unstable();
    missing.dedup();
    if missing.is_empty() {
        return;
    }
    let new = |name| NewTopic {
        name,
        partitions: client.kafka.config.num_partitions,
        config: client.kafka.broker.options().defaults.clone(),
        internal: false,
        unlike: true,
    };
    let names = missing.clone();
    let made =
        client.kafka.broker.create_topics(&client.caller, missing.into_iter().map(new).collect()).await;
    if names.len() > NAMED {
        tracing::info!(
            asked = names.len(),
            "a client asked for many topics that are not there; the first of them:"
        );
    }
    for (name, result) in names.iter().zip(made).take(NAMED) {
        match result {
            Ok(_) => {
                tracing::info!(topic = name, "topic made because a client asked for it (kafka.auto_create)")
            }
            // Another client was faster, or no client makes it.
            Err(TopicError::Exists(_) | TopicError::Reserved { .. }) => {}
            Err(error) => {
                tracing::warn!(topic = name, %error, "a topic that a client asked for cannot be made")
            }
        }
    }
}

/// `create` says whether it would have been made if it could be.
fn one(
    client: &Client,
    catalog: &CatalogView,
    wanted: &MetadataRequestTopic,
    create: bool,
) -> MetadataResponseTopic {
    let (name, topic_id) = (wanted.name.clone(), wanted.topic_id);
    let refused = |error: ErrorCode| MetadataResponseTopic {
        error_code: error.code(),
        name: name.clone(),
        topic_id,
        is_internal: name.as_deref().is_some_and(names::is_internal),
        ..Default::default()
    };
    if topic_id != [0; 16] {
        return match catalog.topic_by_id(TopicId(topic_id)).filter(|topic| client.sees(topic)) {
            Some(topic) => described(client, topic),
            None => refused(ErrorCode::UnknownTopicId),
        };
    }
    let Some(text) = name.as_deref() else { return refused(ErrorCode::InvalidRequest) };
    match names::topic_name(text) {
        Err(names::IllegalName) => refused(ErrorCode::InvalidTopic),
        Ok(stored) => match catalog.topic_of(&client.caller, &stored) {
            Some(topic) => described(client, topic),
            None if create && client.kafka.broker.topic_alike(&client.caller, &stored).is_some() => {
                refused(ErrorCode::InvalidTopic)
            }
            None => refused(ErrorCode::UnknownTopicOrPartition),
        },
    }
}

fn described(client: &Client, topic: &Arc<Topic>) -> MetadataResponseTopic {
    MetadataResponseTopic {
        name: Some(Str::from(&*names::client_name(&topic.name))),
        topic_id: topic.id.0,
        is_internal: is_internal(topic),
        partitions: topic.partitions.iter().map(|p| partition(client, p)).collect(),
        ..Default::default()
    }
}

pub(super) fn partition(client: &Client, partition: &sabir_broker::Partition) -> MetadataResponsePartition {
    let replica_nodes = vec![client.kafka.node_id()];
    let base = MetadataResponsePartition {
        partition_index: partition.index,
        isr_nodes: replica_nodes.clone(),
        replica_nodes,
        ..Default::default()
    };
    match client.kafka.leader(partition) {
        Some((leader_id, epoch)) => MetadataResponsePartition { leader_id, leader_epoch: epoch.0, ..base },
        None => MetadataResponsePartition {
            error_code: ErrorCode::LeaderNotAvailable.code(),
            leader_id: -1,
            ..base
        },
    }
}

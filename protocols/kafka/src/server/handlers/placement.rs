//! Who leads and where replicas are: ElectLeaders, DescribeQuorum, AlterPartitionReassignments, ListPartitionReassignments,
//! AlterReplicaLogDirs. With one node that has one directory, everything is where it belongs; what asks for that is told so,
//! and what asks for anything else is refused.

use std::path::Path;

use sabir_broker::{Partition, Topic};

use super::{Call, Client, Reply, decode, first_error};
use crate::server::names;
use crate::server::requests::{BadRequest, Request};
use crate::wire::messages::{
    alter_partition_reassignments as reassign, alter_replica_log_dirs as dirs, describe_quorum as quorum,
    elect_leaders as elect, list_partition_reassignments as list,
};
use crate::wire::{ErrorCode, Str};

/// Kinds of elections, as Kafka numbers them: of the preferred replica, of any.
const PREFERRED: i8 = 0;
const UNCLEAN: i8 = 1;

pub(super) fn elect_leaders(client: &Client, request: &Request) -> Result<Reply, BadRequest> {
    let call = Call::of(request);
    let body: elect::ElectLeadersRequest = decode(request)?;
    if !matches!(body.election_type, PREFERRED | UNCLEAN) {
        let error = ErrorCode::InvalidRequest;
        let response = elect::ElectLeadersResponse { error_code: error.code(), ..Default::default() };
        return Ok(call.reply(&response, error));
    }
    let results = match &body.topic_partitions {
        None => elections_of_all(client, body.election_type),
        Some(topics) => topics.iter().map(|t| elections(client, t, body.election_type)).collect(),
    };
    let error = first_error(results.iter().flat_map(|t| &t.partition_result).map(|p| p.error_code));
    let response = elect::ElectLeadersResponse { replica_election_results: results, ..Default::default() };
    Ok(call.reply(&response, error))
}

fn elections(client: &Client, wanted: &elect::TopicPartitions, kind: i8) -> elect::ReplicaElectionResult {
    let topic = client.topic(&wanted.topic);
    let result = |&partition_id: &i32| {
        let found = topic.as_deref().and_then(|topic| partition(topic, partition_id));
        let error = found
            .map_or(ErrorCode::UnknownTopicOrPartition, |p| election(client.kafka.leader(p).is_some(), kind));
        elect::PartitionResult {
            partition_id,
            error_code: error.code(),
            error_message: Some(Str::from_static(why(error))),
        }
    };
    elect::ReplicaElectionResult {
        topic: wanted.topic.clone(),
        partition_result: wanted.partitions.iter().map(result).collect(),
    }
}

/// For a request that names no partitions: those that have their leader are left out of its answer.
fn elections_of_all(client: &Client, kind: i8) -> Vec<elect::ReplicaElectionResult> {
    let catalog = client.kafka.broker.catalog();
    let topics = names::shown(&catalog, &client.caller).map(|topic| {
        let leaderless = topic.partitions.iter().filter(|p| client.kafka.leader(p).is_none());
        let partitions = leaderless.map(|p| p.index).collect();
        elect::TopicPartitions { topic: Str::from(&*names::client_name(&topic.name)), partitions }
    });
    topics.filter(|topic| !topic.partitions.is_empty()).map(|topic| elections(client, &topic, kind)).collect()
}

/// The one replica there is leads or is about to: no other can be elected.
fn election(led: bool, kind: i8) -> ErrorCode {
    match kind {
        _ if led => ErrorCode::ElectionNotNeeded,
        UNCLEAN => ErrorCode::EligibleLeadersNotAvailable,
        _ => ErrorCode::PreferredLeaderNotAvailable,
    }
}

fn why(error: ErrorCode) -> &'static str {
    match error {
        ErrorCode::ElectionNotNeeded => "the preferred replica leads already",
        ErrorCode::UnknownTopicOrPartition => "no such topic or partition",
        _ => "the only replica is not ready to lead",
    }
}

fn partition(topic: &Topic, index: i32) -> Option<&Partition> {
    topic.partitions.get(usize::try_from(index).ok()?)
}

/// The one partition that keeps a cluster's metadata: here the shard of the catalog, block by block.
const METADATA: (&str, i32) = ("__cluster_metadata", 0);

pub(super) fn describe_quorum(client: &Client, request: &Request) -> Result<Reply, BadRequest> {
    let call = Call::of(request);
    let body: quorum::DescribeQuorumRequest = decode(request)?;
    let shards = client.kafka.broker.stats().shards;
    let described = |topic: &quorum::TopicData| {
        let one = |p: &quorum::PartitionData| {
            let catalog = shards.first().filter(|_| (&*topic.topic_name, p.partition_index) == METADATA);
            voters(client, p.partition_index, catalog)
        };
        quorum::DescribedTopic {
            topic_name: topic.topic_name.clone(),
            partitions: topic.partitions.iter().map(one).collect(),
        }
    };
    let topics: Vec<_> = body.topics.iter().map(described).collect();
    let listener = quorum::Listener {
        name: Str::from_static("PLAINTEXT"),
        host: client.host.clone(),
        port: client.port as i16,
    };
    let nodes = vec![quorum::Node { node_id: client.kafka.node_id(), listeners: vec![listener] }];
    let error = first_error(topics.iter().flat_map(|t| &t.partitions).map(|p| p.error_code));
    Ok(call.reply(&quorum::DescribeQuorumResponse { topics, nodes, ..Default::default() }, error))
}

fn voters(
    client: &Client,
    partition_index: i32,
    catalog: Option<&sabir_broker::ShardStats>,
) -> quorum::DescribedPartition {
    let base = quorum::DescribedPartition { partition_index, ..Default::default() };
    let Some(catalog) = catalog else {
        let error_code = ErrorCode::UnknownTopicOrPartition.code();
        return quorum::DescribedPartition { error_code, ..base };
    };
    let end = i64::try_from(catalog.applied.0).unwrap_or(i64::MAX).saturating_add(1);
    let replica = quorum::ReplicaState {
        replica_id: client.kafka.node_id(),
        log_end_offset: end,
        ..Default::default()
    };
    quorum::DescribedPartition {
        leader_id: client.kafka.node_id(),
        leader_epoch: i32::try_from(catalog.term.0).unwrap_or(i32::MAX),
        high_watermark: end,
        current_voters: vec![replica],
        ..base
    }
}

pub(super) fn alter_partition_reassignments(client: &Client, request: &Request) -> Result<Reply, BadRequest> {
    let call = Call::of(request);
    let body: reassign::AlterPartitionReassignmentsRequest = decode(request)?;
    let responses: Vec<_> = body.topics.iter().map(|topic| reassigned(client, topic)).collect();
    let error = first_error(responses.iter().flat_map(|t| &t.partitions).map(|p| p.error_code));
    let response = reassign::AlterPartitionReassignmentsResponse {
        allow_replication_factor_change: body.allow_replication_factor_change,
        responses,
        ..Default::default()
    };
    Ok(call.reply(&response, error))
}

fn reassigned(client: &Client, wanted: &reassign::ReassignableTopic) -> reassign::ReassignableTopicResponse {
    let topic = client.topic(&wanted.name);
    let answer = |p: &reassign::ReassignablePartition| {
        let there = topic.as_deref().and_then(|topic| partition(topic, p.partition_index));
        let refused = match there {
            None => Some((ErrorCode::UnknownTopicOrPartition, "no such topic or partition".into())),
            Some(_) => check_replicas(client, p.replicas.as_deref()).err(),
        };
        let (error, message) = refused.unzip();
        reassign::ReassignablePartitionResponse {
            partition_index: p.partition_index,
            error_code: error.unwrap_or(ErrorCode::None).code(),
            error_message: message.map(|text: String| Str::from(text)),
        }
    };
    reassign::ReassignableTopicResponse {
        name: wanted.name.clone(),
        partitions: wanted.partitions.iter().map(answer).collect(),
    }
}

/// A partition can only be where it is. Nothing is being moved that could be stopped (`None`).
fn check_replicas(client: &Client, replicas: Option<&[i32]>) -> Result<(), super::topics::Refused> {
    let invalid = |message: String| Err((ErrorCode::InvalidReplicaAssignment, message));
    match replicas {
        None => Err((ErrorCode::NoReassignmentInProgress, "nothing is being moved".into())),
        Some([]) => invalid("the list of replicas is empty".into()),
        Some(replicas) => match replicas.iter().find(|&&node| node != client.kafka.node_id()) {
            Some(node) => invalid(format!("there is broker {} only, not {node}", client.kafka.node_id())),
            None if replicas.len() > 1 => {
                invalid(format!("broker {} is named twice", client.kafka.node_id()))
            }
            None => Ok(()),
        },
    }
}

/// Nothing is ever being moved.
pub(super) fn list_partition_reassignments(request: &Request) -> Result<Reply, BadRequest> {
    let call = Call::of(request);
    let _: list::ListPartitionReassignmentsRequest = decode(request)?;
    Ok(call.reply(&list::ListPartitionReassignmentsResponse::default(), ErrorCode::None))
}

pub(super) fn alter_replica_log_dirs(client: &Client, request: &Request) -> Result<Reply, BadRequest> {
    let call = Call::of(request);
    let body: dirs::AlterReplicaLogDirsRequest = decode(request)?;
    let mut results = Vec::new();
    for dir in &body.dirs {
        let known = Path::new(&*dir.path) == client.kafka.broker.options().data;
        results.extend(dir.topics.iter().map(|topic| moved(client, topic, known)));
    }
    let error = first_error(results.iter().flat_map(|t| &t.partitions).map(|p| p.error_code));
    Ok(call.reply(&dirs::AlterReplicaLogDirsResponse { results, ..Default::default() }, error))
}

fn moved(
    client: &Client,
    wanted: &dirs::AlterReplicaLogDirTopic,
    known_dir: bool,
) -> dirs::AlterReplicaLogDirTopicResult {
    let topic = client.topic(&wanted.name);
    let result = |&partition_index: &i32| {
        let error = match topic.as_deref().and_then(|topic| partition(topic, partition_index)) {
            _ if !known_dir => ErrorCode::LogDirNotFound,
            Some(_) => ErrorCode::None,
            None => ErrorCode::UnknownTopicOrPartition,
        };
        dirs::AlterReplicaLogDirPartitionResult { partition_index, error_code: error.code() }
    };
    dirs::AlterReplicaLogDirTopicResult {
        topic_name: wanted.name.clone(),
        partitions: wanted.partitions.iter().map(result).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_may_be_elected_is_not_there() {
        assert_eq!(election(false, PREFERRED), ErrorCode::PreferredLeaderNotAvailable);
        assert_eq!(election(false, UNCLEAN), ErrorCode::EligibleLeadersNotAvailable);
        assert_eq!([PREFERRED, UNCLEAN].map(|kind| election(true, kind)), [ErrorCode::ElectionNotNeeded; 2]);
    }
}

// What is fuzzed; the same functions run bounded on stable in `tests/wire_bad_input.rs`.

use bytes::Bytes;
use sabir_kafka::wire::messages as m;
use sabir_kafka::wire::{ApiMessage, Reader, RequestHeader, RequestMessage, Writer};

/// Arrays of a decoded message may take this much, whatever the input says.
pub const LIMIT: usize = 64 << 10;

macro_rules! all_requests {
    ($go:ident) => {
        $go! {
            m::produce::ProduceRequest, m::fetch::FetchRequest, m::list_offsets::ListOffsetsRequest,
            m::metadata::MetadataRequest, m::api_versions::ApiVersionsRequest,
            m::find_coordinator::FindCoordinatorRequest, m::join_group::JoinGroupRequest,
            m::sync_group::SyncGroupRequest, m::heartbeat::HeartbeatRequest, m::leave_group::LeaveGroupRequest,
            m::offset_commit::OffsetCommitRequest, m::offset_fetch::OffsetFetchRequest,
            m::create_topics::CreateTopicsRequest, m::delete_topics::DeleteTopicsRequest,
            m::init_producer_id::InitProducerIdRequest, m::describe_groups::DescribeGroupsRequest,
            m::list_groups::ListGroupsRequest, m::delete_groups::DeleteGroupsRequest,
            m::offset_delete::OffsetDeleteRequest, m::delete_records::DeleteRecordsRequest,
            m::create_partitions::CreatePartitionsRequest, m::describe_configs::DescribeConfigsRequest,
            m::incremental_alter_configs::IncrementalAlterConfigsRequest, m::alter_configs::AlterConfigsRequest,
            m::describe_cluster::DescribeClusterRequest, m::offset_for_leader_epoch::OffsetForLeaderEpochRequest,
            m::describe_log_dirs::DescribeLogDirsRequest,
            m::describe_topic_partitions::DescribeTopicPartitionsRequest, m::elect_leaders::ElectLeadersRequest,
            m::alter_partition_reassignments::AlterPartitionReassignmentsRequest,
            m::list_partition_reassignments::ListPartitionReassignmentsRequest,
            m::alter_replica_log_dirs::AlterReplicaLogDirsRequest,
            m::list_config_resources::ListConfigResourcesRequest, m::describe_quorum::DescribeQuorumRequest,
            m::sasl_handshake::SaslHandshakeRequest,
            m::sasl_authenticate::SaslAuthenticateRequest,
            m::describe_acls::DescribeAclsRequest,
            m::create_acls::CreateAclsRequest,
            m::delete_acls::DeleteAclsRequest,
            m::describe_client_quotas::DescribeClientQuotasRequest,
            m::alter_client_quotas::AlterClientQuotasRequest,
            m::describe_user_scram_credentials::DescribeUserScramCredentialsRequest,
            m::alter_user_scram_credentials::AlterUserScramCredentialsRequest,
            m::list_transactions::ListTransactionsRequest,
            m::describe_transactions::DescribeTransactionsRequest,
            m::consumer_group_heartbeat::ConsumerGroupHeartbeatRequest,
        }
    };
}

type Decode = fn(&mut Reader<'_>, i16);

/// Decodes; what is a message is encoded too, and decoded again to the same.
fn decode<M: ApiMessage + PartialEq + std::fmt::Debug>(r: &mut Reader<'_>, version: i16) {
    let Ok(message) = M::decode(r, version) else { return };
    let mut w = Writer::new();
    message.encode(&mut w, version);
    let bytes = w.finish().to_bytes();
    assert_eq!(M::decode(&mut Reader::with_limit(&bytes, usize::MAX), version), Ok(message));
}

/// Every API's versions with what decodes its requests and responses.
pub fn apis() -> Vec<(std::ops::RangeInclusive<i16>, Decode, Decode)> {
    macro_rules! list {
        ($($request:ty),* $(,)?) => {
            vec![$((<$request>::VERSIONS, decode::<$request>, decode::<<$request as RequestMessage>::Response>)),*]
        };
    }
    all_requests!(list)
}

/// The first two bytes choose API and version, the others are the body.
fn choose(data: &[u8]) -> Option<(i16, Decode, Decode, Bytes)> {
    let (&[api, version], body) = data.split_first_chunk()?;
    let apis = apis();
    let (versions, request, response) = &apis[usize::from(api) % apis.len()];
    let span = i16::from(version) % (versions.end() - versions.start() + 1);
    Some((versions.start() + span, *request, *response, Bytes::copy_from_slice(body)))
}

/// A request's body in any version of any API.
pub fn requests(data: &[u8]) {
    if let Some((version, request, _, body)) = choose(data) {
        request(&mut Reader::with_limit(&body, LIMIT), version);
    }
}

/// A response's body in any version of any API.
pub fn responses(data: &[u8]) {
    if let Some((version, _, response, body)) = choose(data) {
        response(&mut Reader::with_limit(&body, LIMIT), version);
    }
}

/// A frame as it comes off the socket: header, then what the header says.
pub fn frames(data: &[u8]) {
    let frame = Bytes::copy_from_slice(data);
    let mut r = Reader::with_limit(&frame, LIMIT);
    let Ok(header) = RequestHeader::decode(&mut r) else { return };
    macro_rules! body {
        ($($request:ty),* $(,)?) => {
            $(if header.api() == Some(<$request>::KEY) && <$request>::VERSIONS.contains(&header.api_version) {
                return decode::<$request>(&mut r, header.api_version);
            })*
        };
    }
    all_requests!(body);
}

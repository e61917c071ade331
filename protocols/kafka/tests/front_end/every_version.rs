//! Every version of every API that is listed is answered in its own form, whatever it asks for.

use sabir_kafka::wire::RequestMessage;
use sabir_kafka::wire::api::SUPPORTED;
use sabir_kafka::wire::messages as m;

use crate::rig::{Raw, Rig};

/// The form of an answer is checked by decoding it to its last byte.
async fn asked<R: RequestMessage + Default>(raw: &mut Raw) -> i16 {
    for version in R::VERSIONS {
        raw.call(version, &R::default()).await;
    }
    R::KEY as i16
}

#[tokio::test]
async fn every_version_that_is_listed_is_answered_in_its_form() {
    let rig = Rig::start();
    let raw = &mut rig.raw().await;
    let mut answered = vec![
        asked::<m::fetch::FetchRequest>(raw).await,
        asked::<m::list_offsets::ListOffsetsRequest>(raw).await,
        asked::<m::metadata::MetadataRequest>(raw).await,
        asked::<m::api_versions::ApiVersionsRequest>(raw).await,
        asked::<m::find_coordinator::FindCoordinatorRequest>(raw).await,
        asked::<m::join_group::JoinGroupRequest>(raw).await,
        asked::<m::sync_group::SyncGroupRequest>(raw).await,
        asked::<m::heartbeat::HeartbeatRequest>(raw).await,
        asked::<m::leave_group::LeaveGroupRequest>(raw).await,
        asked::<m::offset_commit::OffsetCommitRequest>(raw).await,
        asked::<m::offset_fetch::OffsetFetchRequest>(raw).await,
        asked::<m::create_topics::CreateTopicsRequest>(raw).await,
        asked::<m::delete_topics::DeleteTopicsRequest>(raw).await,
        asked::<m::init_producer_id::InitProducerIdRequest>(raw).await,
        asked::<m::describe_groups::DescribeGroupsRequest>(raw).await,
        asked::<m::list_groups::ListGroupsRequest>(raw).await,
        asked::<m::delete_groups::DeleteGroupsRequest>(raw).await,
        asked::<m::offset_delete::OffsetDeleteRequest>(raw).await,
        asked::<m::delete_records::DeleteRecordsRequest>(raw).await,
        asked::<m::create_partitions::CreatePartitionsRequest>(raw).await,
        asked::<m::describe_configs::DescribeConfigsRequest>(raw).await,
        asked::<m::incremental_alter_configs::IncrementalAlterConfigsRequest>(raw).await,
        asked::<m::alter_configs::AlterConfigsRequest>(raw).await,
        asked::<m::describe_cluster::DescribeClusterRequest>(raw).await,
        asked::<m::offset_for_leader_epoch::OffsetForLeaderEpochRequest>(raw).await,
        asked::<m::describe_log_dirs::DescribeLogDirsRequest>(raw).await,
        asked::<m::describe_topic_partitions::DescribeTopicPartitionsRequest>(raw).await,
        asked::<m::elect_leaders::ElectLeadersRequest>(raw).await,
        asked::<m::alter_partition_reassignments::AlterPartitionReassignmentsRequest>(raw).await,
        asked::<m::list_partition_reassignments::ListPartitionReassignmentsRequest>(raw).await,
        asked::<m::alter_replica_log_dirs::AlterReplicaLogDirsRequest>(raw).await,
        asked::<m::list_config_resources::ListConfigResourcesRequest>(raw).await,
        asked::<m::describe_quorum::DescribeQuorumRequest>(raw).await,
        asked::<m::sasl_handshake::SaslHandshakeRequest>(raw).await,
        asked::<m::sasl_authenticate::SaslAuthenticateRequest>(raw).await,
        asked::<m::describe_acls::DescribeAclsRequest>(raw).await,
        asked::<m::create_acls::CreateAclsRequest>(raw).await,
        asked::<m::delete_acls::DeleteAclsRequest>(raw).await,
        asked::<m::describe_client_quotas::DescribeClientQuotasRequest>(raw).await,
        asked::<m::alter_client_quotas::AlterClientQuotasRequest>(raw).await,
        asked::<m::describe_user_scram_credentials::DescribeUserScramCredentialsRequest>(raw).await,
        asked::<m::alter_user_scram_credentials::AlterUserScramCredentialsRequest>(raw).await,
        asked::<m::list_transactions::ListTransactionsRequest>(raw).await,
        asked::<m::describe_transactions::DescribeTransactionsRequest>(raw).await,
        asked::<m::consumer_group_heartbeat::ConsumerGroupHeartbeatRequest>(raw).await,
    ];
    // Only clients that wait for an acknowledgement get an answer.
    for version in m::produce::ProduceRequest::VERSIONS {
        let request = m::produce::ProduceRequest { acks: -1, ..Default::default() };
        raw.call(version, &request).await;
    }
    answered.push(m::produce::ProduceRequest::KEY as i16);
    answered.sort_unstable();
    let mut listed: Vec<_> = SUPPORTED.iter().map(|(api, ..)| *api as i16).collect();
    listed.sort_unstable();
    assert_eq!(answered, listed);
}

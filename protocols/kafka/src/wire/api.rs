//! The APIs by key, the versions that the codec knows, and what every message can do.

use std::fmt;
use std::ops::RangeInclusive;

use super::messages as m;
use super::{Reader, WireError, Writer};

/// A message, or a struct inside one.
pub trait ApiMessage: Sized + Default {
    /// Reads the message in this version.
    ///
    /// # Errors
    /// What is wrong with the bytes.
    fn decode(r: &mut Reader<'_>, version: i16) -> Result<Self, WireError>;
    /// Writes the message in this version.
    fn encode(&self, w: &mut Writer, version: i16);
}

/// A request, with all that belongs to its API.
pub trait RequestMessage: ApiMessage {
    /// The API.
    const KEY: ApiKey;
    /// The versions declared.
    const VERSIONS: RangeInclusive<i16>;
    /// The first flexible version.
    const FLEXIBLE_FROM: i16;
    /// What answers it.
    type Response: ApiMessage;
}

macro_rules! api_keys {
    ($($name:ident = $key:literal),* $(,)?) => {
        /// An API of Kafka, whether it is served or not.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(i16)]
        pub enum ApiKey {
            $(#[allow(missing_docs, reason = "Kafka's own names")] $name = $key,)*
        }

        impl ApiKey {
            /// Every API.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// The API of this key.
            pub const fn from_i16(key: i16) -> Option<Self> {
                match key {
                    $($key => Some(Self::$name),)*
                    _ => None,
                }
            }

            /// The name as Kafka's documentation has it.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)*
                }
            }
        }
    };
}

api_keys! {
    Produce = 0, Fetch = 1, ListOffsets = 2, Metadata = 3, OffsetCommit = 8, OffsetFetch = 9, FindCoordinator = 10,
    JoinGroup = 11, Heartbeat = 12, LeaveGroup = 13, SyncGroup = 14, DescribeGroups = 15, ListGroups = 16,
    SaslHandshake = 17, ApiVersions = 18, CreateTopics = 19, DeleteTopics = 20, DeleteRecords = 21,
    InitProducerId = 22, OffsetForLeaderEpoch = 23, AddPartitionsToTxn = 24, AddOffsetsToTxn = 25, EndTxn = 26,
    WriteTxnMarkers = 27, TxnOffsetCommit = 28, DescribeAcls = 29, CreateAcls = 30, DeleteAcls = 31,
    DescribeConfigs = 32, AlterConfigs = 33, AlterReplicaLogDirs = 34, DescribeLogDirs = 35, SaslAuthenticate = 36,
    CreatePartitions = 37, CreateDelegationToken = 38, RenewDelegationToken = 39, ExpireDelegationToken = 40,
    DescribeDelegationToken = 41, DeleteGroups = 42, ElectLeaders = 43, IncrementalAlterConfigs = 44,
    AlterPartitionReassignments = 45, ListPartitionReassignments = 46, OffsetDelete = 47, DescribeClientQuotas = 48,
    AlterClientQuotas = 49, DescribeUserScramCredentials = 50, AlterUserScramCredentials = 51, Vote = 52,
    BeginQuorumEpoch = 53, EndQuorumEpoch = 54, DescribeQuorum = 55, AlterPartition = 56, UpdateFeatures = 57,
    Envelope = 58, FetchSnapshot = 59, DescribeCluster = 60, DescribeProducers = 61, BrokerRegistration = 62,
    BrokerHeartbeat = 63, UnregisterBroker = 64, DescribeTransactions = 65, ListTransactions = 66,
    AllocateProducerIds = 67, ConsumerGroupHeartbeat = 68, ConsumerGroupDescribe = 69, ControllerRegistration = 70,
    GetTelemetrySubscriptions = 71, PushTelemetry = 72, AssignReplicasToDirs = 73, ListConfigResources = 74,
    DescribeTopicPartitions = 75, ShareGroupHeartbeat = 76, ShareGroupDescribe = 77, ShareFetch = 78,
    ShareAcknowledge = 79, AddRaftVoter = 80, RemoveRaftVoter = 81, UpdateRaftVoter = 82,
    InitializeShareGroupState = 83, ReadShareGroupState = 84, WriteShareGroupState = 85,
    DeleteShareGroupState = 86, ReadShareGroupStateSummary = 87, StreamsGroupHeartbeat = 88,
    StreamsGroupDescribe = 89, DescribeShareGroupOffsets = 90, AlterShareGroupOffsets = 91,
    DeleteShareGroupOffsets = 92,
}

impl fmt::Display for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

macro_rules! coded {
    ($($request:ty),* $(,)?) => {
        /// The APIs declared here, with the lowest and highest version of each. Whether one is served is for the session to
        /// say: it advertises only what it has a handler for.
        ///
        /// Produce says 0, though 0 to 2 are not declared and must be answered UNSUPPORTED_VERSION: librdkafka turns
        /// compression off for a broker that does not list them.
        pub const SUPPORTED: &[(ApiKey, i16, i16)] = &[
            $((<$request>::KEY, lowest_advertised::<$request>(), *<$request>::VERSIONS.end()),)*
        ];

        /// The first flexible version of a declared API.
        const fn flexible_from(key: ApiKey) -> Option<i16> {
            $(if key as i16 == <$request>::KEY as i16 {
                return Some(<$request>::FLEXIBLE_FROM);
            })*
            None
        }

        /// The versions of an API that messages are declared for.
        pub const fn coded_versions(key: ApiKey) -> Option<RangeInclusive<i16>> {
            $(if key as i16 == <$request>::KEY as i16 {
                return Some(<$request>::VERSIONS);
            })*
            None
        }
    };
}

const fn lowest_advertised<R: RequestMessage>() -> i16 {
    if R::KEY as i16 == ApiKey::Produce as i16 { 0 } else { *R::VERSIONS.start() }
}

coded! {
    m::produce::ProduceRequest,
    m::fetch::FetchRequest,
    m::list_offsets::ListOffsetsRequest,
    m::metadata::MetadataRequest,
    m::api_versions::ApiVersionsRequest,
    m::find_coordinator::FindCoordinatorRequest,
    m::join_group::JoinGroupRequest,
    m::sync_group::SyncGroupRequest,
    m::heartbeat::HeartbeatRequest,
    m::leave_group::LeaveGroupRequest,
    m::offset_commit::OffsetCommitRequest,
    m::offset_fetch::OffsetFetchRequest,
    m::create_topics::CreateTopicsRequest,
    m::delete_topics::DeleteTopicsRequest,
    m::init_producer_id::InitProducerIdRequest,
    m::describe_groups::DescribeGroupsRequest,
    m::list_groups::ListGroupsRequest,
    m::delete_groups::DeleteGroupsRequest,
    m::offset_delete::OffsetDeleteRequest,
    m::delete_records::DeleteRecordsRequest,
    m::create_partitions::CreatePartitionsRequest,
    m::describe_configs::DescribeConfigsRequest,
    m::incremental_alter_configs::IncrementalAlterConfigsRequest,
    m::alter_configs::AlterConfigsRequest,
    m::describe_cluster::DescribeClusterRequest,
    m::offset_for_leader_epoch::OffsetForLeaderEpochRequest,
    m::describe_log_dirs::DescribeLogDirsRequest,
    m::describe_topic_partitions::DescribeTopicPartitionsRequest,
    m::elect_leaders::ElectLeadersRequest,
    m::alter_partition_reassignments::AlterPartitionReassignmentsRequest,
    m::list_partition_reassignments::ListPartitionReassignmentsRequest,
    m::alter_replica_log_dirs::AlterReplicaLogDirsRequest,
    m::list_config_resources::ListConfigResourcesRequest,
    m::describe_quorum::DescribeQuorumRequest,
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

/// The version of the header that stands before a request: 2 for flexible versions, else 1. `None` if the API is not
/// declared here.
pub fn request_header_version(key: ApiKey, version: i16) -> Option<i16> {
    Some(if version >= flexible_from(key)? { 2 } else { 1 })
}

/// The version of the header that stands before a response: 1 for flexible versions, else 0. ApiVersions is always
/// answered with 0, so that a client which asked in a version unknown here can read the answer.
pub fn response_header_version(key: ApiKey, version: i16) -> Option<i16> {
    let flexible = version >= flexible_from(key)? && key != ApiKey::ApiVersions;
    Some(i16::from(flexible))
}

//! Every message in every version, checked against the `kafka-protocol` crate, an independent reading of the same schemas.

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages as theirs;
use kafka_protocol::protocol::{Decodable, Encodable};

use super::api::ApiMessage;
use super::messages as ours;
use super::primitives::{Cx, Wire};
use super::testing::{Sample, Source};
use super::{Reader, Writer};

const SAMPLES: u64 = 60;

fn encode<M: ApiMessage>(message: &M, version: i16) -> Bytes {
    let mut w = Writer::new();
    message.encode(&mut w, version);
    let encoded = w.finish();
    let whole = encoded.to_bytes();
    assert_eq!(whole.len(), encoded.len());
    whole
}

/// Ours alone: what is encoded is decoded again, no shorter than the least, and no shorter input will do.
fn check_round_trip<M: ApiMessage + Wire + Sample + PartialEq + std::fmt::Debug>(
    version: i16,
    flexible: bool,
    seed: u64,
) -> Bytes {
    let cx = Cx { version, flexible, nullable: false };
    let message = M::sample(&mut Source::new(seed), cx);
    let bytes = encode(&message, version);
    assert!(bytes.len() >= M::least(cx), "{message:?}");
    let mut r = Reader::new(&bytes);
    let again =
        <M as ApiMessage>::decode(&mut r, version).unwrap_or_else(|e| panic!("v{version}: {e}: {message:?}"));
    assert_eq!(r.remaining(), 0, "v{version}: {message:?}");
    assert_eq!(again, message, "v{version}");
    check_cut::<M>(&bytes, version);
    check_mutations::<M>(&bytes, version, seed);
    bytes
}

/// Every field is needed: no prefix of a message is one.
fn check_cut<M: ApiMessage>(bytes: &Bytes, version: i16) {
    for len in (0..bytes.len()).rev().take(300) {
        let cut = bytes.slice(..len);
        assert!(
            <M as ApiMessage>::decode(&mut Reader::new(&cut), version).is_err(),
            "v{version}: {len} bytes of {bytes:?}"
        );
    }
}

/// A damaged message is an error or another message, which is encoded and decoded like any.
fn check_mutations<M: ApiMessage + PartialEq + std::fmt::Debug>(bytes: &Bytes, version: i16, seed: u64) {
    let mut g = Source::new(seed ^ 0x5ab1);
    for _ in 0..20 {
        let mut damaged = bytes.to_vec();
        for _ in 0..=g.below(3) {
            let Some(at) = (!damaged.is_empty()).then(|| g.below(damaged.len() as u64) as usize) else {
                return;
            };
            damaged[at] = [0, 0x7f, 0x80, 0xff, g.bits() as u8][g.below(5) as usize];
        }
        let damaged = Bytes::from(damaged);
        let Ok(message) = <M as ApiMessage>::decode(&mut Reader::new(&damaged), version) else { continue };
        let bytes = encode(&message, version);
        assert_eq!(
            <M as ApiMessage>::decode(&mut Reader::new(&bytes), version).as_ref(),
            Ok(&message),
            "v{version}"
        );
    }
}

/// Theirs reads what ours wrote and writes the same bytes.
fn check_theirs<T: Decodable + Encodable + std::fmt::Debug>(bytes: &Bytes, version: i16) {
    let mut left = bytes.clone();
    let decoded = T::decode(&mut left, version).unwrap_or_else(|e| panic!("v{version}: {e}: {bytes:?}"));
    assert!(left.is_empty(), "v{version}: {} bytes left of {decoded:?}", left.len());
    let mut again = BytesMut::new();
    decoded.encode(&mut again, version).unwrap_or_else(|e| panic!("v{version}: {e}: {decoded:?}"));
    assert_eq!(again.freeze(), bytes, "v{version}: {decoded:?}");
}

macro_rules! crosscheck {
    ($($module:ident: $request:ident, $response:ident, theirs to $theirs:expr;)*) => {$(
        #[test]
        fn $module() {
            use super::api::RequestMessage;
            use ours::$module::{$request, $response};
            for version in $request::VERSIONS {
                let flexible = version >= $request::FLEXIBLE_FROM;
                for seed in 0..SAMPLES {
                    let request = check_round_trip::<$request>(version, flexible, seed);
                    let response = check_round_trip::<$response>(version, flexible, !seed);
                    if version <= $theirs {
                        check_theirs::<theirs::$request>(&request, version);
                        check_theirs::<theirs::$response>(&response, version);
                    }
                }
            }
        }
    )*};
}

#[test]
fn request_headers() {
    use super::{ApiKey, RequestHeader};
    for (key, version, theirs_version) in [
        (ApiKey::Fetch, 11, 1),
        (ApiKey::Fetch, 12, 2),
        (ApiKey::ApiVersions, 3, 2),
        (ApiKey::OffsetDelete, 0, 1),
    ] {
        for client_id in [None, Some("rdkafka".into()), Some("".into())] {
            let header =
                RequestHeader { api_key: key as i16, api_version: version, correlation_id: 77, client_id };
            let mut w = Writer::new();
            header.encode(&mut w);
            let bytes = w.finish().to_bytes();
            check_theirs::<theirs::RequestHeader>(&bytes, theirs_version);
            assert_eq!(RequestHeader::decode(&mut Reader::new(&bytes)), Ok(header));
        }
    }
}

#[test]
fn response_headers() {
    use super::{ApiKey, ResponseHeader};
    for (key, version, theirs_version) in [
        (ApiKey::Fetch, 11, 0),
        (ApiKey::Fetch, 12, 1),
        (ApiKey::ApiVersions, 4, 0),
        (ApiKey::DescribeCluster, 0, 1),
    ] {
        let header = ResponseHeader { correlation_id: -5 };
        let mut w = Writer::new();
        header.encode(&mut w, key, version);
        let bytes = w.finish().to_bytes();
        check_theirs::<theirs::ResponseHeader>(&bytes, theirs_version);
        assert_eq!(ResponseHeader::decode(&mut Reader::new(&bytes), key, version), Ok(header));
    }
}

#[test]
fn the_table_agrees_with_theirs() {
    for &(key, low, high) in super::api::SUPPORTED {
        let theirs = theirs::ApiKey::try_from(key as i16).expect("known to both");
        for version in low.max(theirs.valid_versions().min)..=high.min(theirs.valid_versions().max) {
            let header = super::api::request_header_version(key, version);
            assert_eq!(header, Some(theirs.request_header_version(version)), "{key} {version}");
            let header = super::api::response_header_version(key, version);
            assert_eq!(header, Some(theirs.response_header_version(version)), "{key} {version}");
        }
    }
}

crosscheck! {
    produce: ProduceRequest, ProduceResponse, theirs to 13;
    fetch: FetchRequest, FetchResponse, theirs to 18;
    list_offsets: ListOffsetsRequest, ListOffsetsResponse, theirs to 10;
    metadata: MetadataRequest, MetadataResponse, theirs to 13;
    api_versions: ApiVersionsRequest, ApiVersionsResponse, theirs to 4;
    find_coordinator: FindCoordinatorRequest, FindCoordinatorResponse, theirs to 6;
    join_group: JoinGroupRequest, JoinGroupResponse, theirs to 9;
    sync_group: SyncGroupRequest, SyncGroupResponse, theirs to 5;
    heartbeat: HeartbeatRequest, HeartbeatResponse, theirs to 4;
    leave_group: LeaveGroupRequest, LeaveGroupResponse, theirs to 5;
    offset_commit: OffsetCommitRequest, OffsetCommitResponse, theirs to 9;
    offset_fetch: OffsetFetchRequest, OffsetFetchResponse, theirs to 9;
    create_topics: CreateTopicsRequest, CreateTopicsResponse, theirs to 7;
    delete_topics: DeleteTopicsRequest, DeleteTopicsResponse, theirs to 6;
    init_producer_id: InitProducerIdRequest, InitProducerIdResponse, theirs to 5;
    describe_groups: DescribeGroupsRequest, DescribeGroupsResponse, theirs to 6;
    list_groups: ListGroupsRequest, ListGroupsResponse, theirs to 5;
    delete_groups: DeleteGroupsRequest, DeleteGroupsResponse, theirs to 2;
    offset_delete: OffsetDeleteRequest, OffsetDeleteResponse, theirs to 0;
    delete_records: DeleteRecordsRequest, DeleteRecordsResponse, theirs to 2;
    create_partitions: CreatePartitionsRequest, CreatePartitionsResponse, theirs to 3;
    describe_configs: DescribeConfigsRequest, DescribeConfigsResponse, theirs to 4;
    incremental_alter_configs: IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse, theirs to 1;
    alter_configs: AlterConfigsRequest, AlterConfigsResponse, theirs to 2;
    describe_cluster: DescribeClusterRequest, DescribeClusterResponse, theirs to 2;
    offset_for_leader_epoch: OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse, theirs to 4;
    describe_log_dirs: DescribeLogDirsRequest, DescribeLogDirsResponse, theirs to 4;
    describe_topic_partitions: DescribeTopicPartitionsRequest, DescribeTopicPartitionsResponse, theirs to 0;
    elect_leaders: ElectLeadersRequest, ElectLeadersResponse, theirs to 2;
    alter_partition_reassignments: AlterPartitionReassignmentsRequest, AlterPartitionReassignmentsResponse, theirs to 1;
    list_partition_reassignments: ListPartitionReassignmentsRequest, ListPartitionReassignmentsResponse, theirs to 0;
    alter_replica_log_dirs: AlterReplicaLogDirsRequest, AlterReplicaLogDirsResponse, theirs to 2;
    list_config_resources: ListConfigResourcesRequest, ListConfigResourcesResponse, theirs to 1;
    describe_quorum: DescribeQuorumRequest, DescribeQuorumResponse, theirs to 2;
    sasl_handshake: SaslHandshakeRequest, SaslHandshakeResponse, theirs to 1;
    sasl_authenticate: SaslAuthenticateRequest, SaslAuthenticateResponse, theirs to 2;
    describe_acls: DescribeAclsRequest, DescribeAclsResponse, theirs to 3;
    create_acls: CreateAclsRequest, CreateAclsResponse, theirs to 3;
    delete_acls: DeleteAclsRequest, DeleteAclsResponse, theirs to 3;
    describe_client_quotas: DescribeClientQuotasRequest, DescribeClientQuotasResponse, theirs to 1;
    alter_client_quotas: AlterClientQuotasRequest, AlterClientQuotasResponse, theirs to 1;
    describe_user_scram_credentials: DescribeUserScramCredentialsRequest, DescribeUserScramCredentialsResponse, theirs to 0;
    alter_user_scram_credentials: AlterUserScramCredentialsRequest, AlterUserScramCredentialsResponse, theirs to 0;
    list_transactions: ListTransactionsRequest, ListTransactionsResponse, theirs to 2;
    describe_transactions: DescribeTransactionsRequest, DescribeTransactionsResponse, theirs to 0;
    consumer_group_heartbeat: ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse, theirs to 1;
}

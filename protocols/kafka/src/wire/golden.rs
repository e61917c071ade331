//! Bytes that Kafka 4.3.1's own classes wrote: the versions that no other library reads, and what is peculiar.

use bytes::Bytes;

use super::api::ApiMessage;
use super::messages::{
    api_versions as av, describe_topic_partitions as dtp, fetch, list_offsets as lo, offset_commit as oc,
    offset_fetch as of,
};
use super::{Encoded, Reader, RecordData, RequestHeader, Uuid, WireError, Writer};

const ID: Uuid = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16];

fn unhex(hex: &str) -> Bytes {
    let digits: Vec<u8> = hex.bytes().filter(|b| !b.is_ascii_whitespace()).collect();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(byte).collect()
}

fn encode<M: ApiMessage>(message: &M, version: i16) -> Bytes {
    let mut w = Writer::new();
    message.encode(&mut w, version);
    w.finish().to_bytes()
}

fn check<M: ApiMessage + PartialEq + std::fmt::Debug>(message: M, version: i16, hex: &str) {
    let golden = unhex(hex);
    assert_eq!(encode(&message, version), golden);
    let mut r = Reader::new(&golden);
    assert_eq!(M::decode(&mut r, version), Ok(message));
    assert_eq!(r.remaining(), 0);
}

#[test]
fn offset_commit_10() {
    let partitions = vec![
        oc::OffsetCommitRequestPartition {
            partition_index: 2,
            committed_offset: 77,
            committed_leader_epoch: 5,
            committed_metadata: Some("meta".into()),
        },
        oc::OffsetCommitRequestPartition { partition_index: 3, committed_offset: 78, ..Default::default() },
    ];
    let request = oc::OffsetCommitRequest {
        group_id: "g".into(),
        generation_id_or_member_epoch: 3,
        member_id: "m-1".into(),
        group_instance_id: Some("i".into()),
        topics: vec![oc::OffsetCommitRequestTopic { topic_id: ID, partitions, ..Default::default() }],
        ..Default::default()
    };
    check(
        request,
        10,
        "026700000003046d2d310269020102030405060708090a0b0c0d0e0f100300000002000000000000004d00000005056d657461000000
         0003000000000000004effffffff00000000",
    );
    let partitions = vec![oc::OffsetCommitResponsePartition { partition_index: 2, error_code: 25 }];
    let topic = oc::OffsetCommitResponseTopic { topic_id: ID, partitions, ..Default::default() };
    check(
        oc::OffsetCommitResponse { throttle_time_ms: 9, topics: vec![topic] },
        10,
        "00000009020102030405060708090a0b0c0d0e0f1002000000020019000000",
    );
}

#[test]
fn offset_fetch_10() {
    let topics = vec![of::OffsetFetchRequestTopics {
        topic_id: ID,
        partition_indexes: vec![0, 2],
        ..Default::default()
    }];
    let some = of::OffsetFetchRequestGroup {
        group_id: "g".into(),
        member_id: Some("m".into()),
        member_epoch: 4,
        topics: Some(topics),
    };
    let all = of::OffsetFetchRequestGroup { group_id: "h".into(), ..Default::default() };
    check(
        of::OffsetFetchRequest { groups: vec![some, all], require_stable: true, ..Default::default() },
        10,
        "030267026d00000004020102030405060708090a0b0c0d0e0f100300000000000000020000026800ffffffff00000100",
    );
    let partitions = vec![of::OffsetFetchResponsePartitions {
        partition_index: 2,
        committed_offset: 77,
        committed_leader_epoch: 5,
        metadata: Some("meta".into()),
        error_code: 0,
    }];
    let group = of::OffsetFetchResponseGroup {
        group_id: "g".into(),
        topics: vec![of::OffsetFetchResponseTopics { topic_id: ID, partitions, ..Default::default() }],
        error_code: 16,
    };
    check(
        of::OffsetFetchResponse { groups: vec![group], ..Default::default() },
        10,
        "00000000020267020102030405060708090a0b0c0d0e0f100200000002000000000000004d00000005056d657461000000000010
         0000",
    );
}

#[test]
fn list_offsets_11() {
    let partitions = vec![lo::ListOffsetsPartition {
        partition_index: 1,
        current_leader_epoch: 6,
        timestamp: lo::EARLIEST_PENDING_UPLOAD_TIMESTAMP,
    }];
    let request = lo::ListOffsetsRequest {
        isolation_level: 1,
        topics: vec![lo::ListOffsetsTopic { name: "t".into(), partitions }],
        timeout_ms: 30_000,
        ..Default::default()
    };
    check(request, 11, "ffffffff01020274020000000100000006fffffffffffffffa00000000753000");
    let partitions = vec![lo::ListOffsetsPartitionResponse {
        partition_index: 1,
        offset: 42,
        leader_epoch: 6,
        ..Default::default()
    }];
    let topics = vec![lo::ListOffsetsTopicResponse { name: "t".into(), partitions }];
    check(
        lo::ListOffsetsResponse { throttle_time_ms: 1, topics },
        11,
        "0000000102027402000000010000ffffffffffffffff000000000000002a00000006000000",
    );
}

#[test]
fn fetch_18_with_its_tagged_fields() {
    let partition = fetch::FetchPartition {
        partition: 1,
        fetch_offset: 10,
        partition_max_bytes: 1 << 20,
        high_watermark: 12,
        ..Default::default()
    };
    let request = fetch::FetchRequest {
        cluster_id: Some("c".into()),
        replica_state: fetch::ReplicaState { replica_id: 3, replica_epoch: 4 },
        max_wait_ms: 500,
        min_bytes: 1,
        session_id: 8,
        session_epoch: 9,
        topics: vec![fetch::FetchTopic { topic_id: ID, partitions: vec![partition], ..Default::default() }],
        ..Default::default()
    };
    check(
        request,
        18,
        "000001f4000000017fffffff000000000800000009020102030405060708090a0b0c0d0e0f100200000001ffffffff0000000000
         00000affffffffffffffffffffffff00100000010108000000000000000c0001010200020263010d00000003000000000000000400",
    );
}

#[test]
fn api_versions_4_with_finalized_features() {
    let feature = av::FinalizedFeatureKey { name: "f".into(), max_version_level: 2, min_version_level: 1 };
    let response = av::ApiVersionsResponse {
        api_keys: vec![av::ApiVersion { api_key: 0, min_version: 0, max_version: 13 }],
        finalized_features_epoch: 5,
        finalized_features: vec![feature],
        ..Default::default()
    };
    check(response, 4, "00000200000000000d0000000000020108000000000000000502080202660002000100");
}

#[test]
fn a_struct_that_may_be_null() {
    let request = dtp::DescribeTopicPartitionsRequest {
        topics: vec![dtp::TopicRequest { name: "t".into() }],
        cursor: Some(dtp::Cursor { topic_name: "t".into(), partition_index: 4 }),
        ..Default::default()
    };
    check(request, 0, "02027400000007d0010274000000040000");
}

#[test]
fn a_request_header() {
    let golden = unhex("00010012000000070003636c6900");
    let header =
        RequestHeader { api_key: 1, api_version: 18, correlation_id: 7, client_id: Some("cli".into()) };
    let mut w = Writer::new();
    header.encode(&mut w);
    assert_eq!(w.finish().to_bytes(), golden);
    assert_eq!(RequestHeader::decode(&mut Reader::new(&golden)), Ok(header));
}

#[test]
fn unknown_tagged_fields_are_skipped_and_known_ones_must_fit() {
    // A heartbeat with an unknown tagged field of two bytes.
    let known = super::messages::heartbeat::HeartbeatRequest {
        group_id: "g".into(),
        generation_id: 1,
        member_id: "m".into(),
        group_instance_id: None,
    };
    let mut bytes = encode(&known, 4).to_vec();
    assert_eq!(bytes.pop(), Some(0));
    bytes.extend_from_slice(&[1, 200, 1, 2, 0xaa, 0xbb]);
    let bytes = Bytes::from(bytes);
    let mut r = Reader::new(&bytes);
    assert_eq!(ApiMessage::decode(&mut r, 4), Ok(known));
    assert_eq!(r.remaining(), 0);

    // ApiVersions' second tag is an i64: 9 bytes are one too many, 7 too few.
    let response = |size: u8| {
        let mut bytes = vec![0, 0, 1, 0, 0, 0, 0, 1, 1, size];
        bytes.extend(std::iter::repeat_n(0, usize::from(size)));
        av::ApiVersionsResponse::decode(&mut Reader::new(&Bytes::from(bytes)), 3)
    };
    assert!(response(8).is_ok());
    assert_eq!(response(9), Err(WireError::BadTaggedField(1)));
    assert_eq!(response(7), Err(WireError::Truncated));
}

#[test]
fn records_are_spliced_not_copied() {
    let (small, large) = (Bytes::from(vec![1; 61]), Bytes::from(vec![2; 100_000]));
    let partition = fetch::PartitionData {
        records: Some(RecordData::from(vec![small.clone(), large.clone(), large.clone()])),
        ..Default::default()
    };
    let responses = vec![fetch::FetchableTopicResponse { partitions: vec![partition], ..Default::default() }];
    let mut w = Writer::new();
    fetch::FetchResponse { responses, ..Default::default() }.encode(&mut w, 17);
    let mut encoded: Encoded = w.finish();
    let [head, first, second, tail] = encoded.segments() else { panic!("{:?}", encoded.segments().len()) };
    assert!(head.ends_with(&small));
    assert_eq!((first.as_ptr(), second.as_ptr()), (large.as_ptr(), large.as_ptr()));
    assert_eq!(tail[..], [0, 0, 0]);
    let whole = encoded.to_bytes();
    // Written away in uneven steps, nothing is lost or doubled.
    let mut written = Vec::new();
    while bytes::Buf::has_remaining(&encoded) {
        let step = 7777.min(bytes::Buf::chunk(&encoded).len());
        written.extend_from_slice(&bytes::Buf::chunk(&encoded)[..step]);
        bytes::Buf::advance(&mut encoded, step);
    }
    assert_eq!(written, whole);
}

#[test]
fn decoding_a_produce_copies_nothing() {
    use super::messages::produce::{PartitionProduceData, ProduceRequest, TopicProduceData};
    let records = Bytes::from(vec![7; 5000]);
    let partition_data = vec![PartitionProduceData { index: 3, records: Some(records) }];
    let request = ProduceRequest {
        acks: -1,
        topic_data: vec![TopicProduceData { name: "t".into(), partition_data, ..Default::default() }],
        ..Default::default()
    };
    let frame = encode(&request, 9);
    let decoded = ProduceRequest::decode(&mut Reader::new(&frame), 9).unwrap();
    assert_eq!(decoded, request);
    let records = decoded.topic_data[0].partition_data[0].records.as_ref().unwrap();
    assert!(frame.as_ptr_range().contains(&records.as_ptr()));
    assert!(frame.as_ptr_range().contains(&decoded.topic_data[0].name.as_bytes().as_ptr()));
}

#[test]
fn a_string_too_long_for_its_field_is_cut_at_a_character() {
    let long = "é".repeat(20_000);
    let host = super::messages::find_coordinator::FindCoordinatorResponse {
        host: long.into(),
        ..Default::default()
    };
    let bytes = encode(&host, 2);
    let again =
        super::messages::find_coordinator::FindCoordinatorResponse::decode(&mut Reader::new(&bytes), 2);
    assert_eq!(again.unwrap().host.len(), 32766);
}

//! Bytes from strangers: no panic, no more memory than the limit, the error that says what was wrong.
#![allow(clippy::unwrap_used, reason = "a failure is what a test is for")]

use bytes::Bytes;
use proptest::prelude::*;
use sabir_base::testing::{CountingAllocator, peak_of};
use sabir_kafka::wire::messages::{fetch::FetchRequest, metadata::MetadataRequest, produce::ProduceRequest};
use sabir_kafka::wire::{ApiMessage, Encoded, Reader, RequestHeader, WireError, Writer};

#[path = "../fuzz/targets.rs"]
mod targets;

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

/// A shared frame's reference count, error values and the like.
const SLACK: usize = 4096;

/// Bodies of every API and version made of what looks like counts and lengths.
#[test]
fn hostile_counts_take_no_memory() {
    let fills: [&[u8]; 6] = [
        &[0xff; 64],
        &[0x7f; 64],
        &[0x7f, 0xff, 0xff, 0xff],
        &[0x80, 0x80, 0x80, 0x80, 0x0f],
        &[2, 0, 0, 0],
        &[0; 64],
    ];
    for (versions, request, response) in targets::apis() {
        for version in versions {
            for fill in fills {
                let body: Bytes = fill.iter().copied().cycle().take(2048).collect();
                for decode in [request, response] {
                    let limit = targets::LIMIT;
                    let ((), peak) = peak_of(|| decode(&mut Reader::with_limit(&body, limit), version));
                    // The message is encoded and decoded once more by the target if it was one.
                    assert!(peak <= 4 * limit + SLACK, "{peak} bytes for {} bytes of input", body.len());
                }
            }
        }
    }
}

/// Elements of one byte on the wire and many in memory: the limit holds, not the wire's size.
#[test]
fn small_elements_are_bounded_by_the_limit() {
    // Metadata 9: an array of n empty topic names (two bytes each with their tagged fields).
    let body = |n: u32| {
        let mut w = Writer::new();
        w.varint(n + 1);
        (0..n).for_each(|_| w.put(&[1, 0]));
        w.put(&[1, 0, 0, 0]);
        w.finish().to_bytes()
    };
    let frame = body(1000);
    let (decoded, _) = peak_of(|| MetadataRequest::decode(&mut Reader::new(&frame), 9));
    assert_eq!(decoded.unwrap().topics.unwrap().len(), 1000);

    let frame = body(4_000_000);
    let (decoded, peak) = peak_of(|| MetadataRequest::decode(&mut Reader::new(&frame), 9));
    assert_eq!(decoded, Err(WireError::TooLarge));
    assert!(peak < SLACK, "{peak}");
}

#[test]
fn counts_and_lengths_are_checked_before_use() {
    let metadata =
        |bytes: &'static [u8]| MetadataRequest::decode(&mut Reader::new(&Bytes::from_static(bytes)), 1);
    assert_eq!(metadata(&[0x7f, 0xff, 0xff, 0xff]), Err(WireError::BadCount(i32::MAX.into())));
    assert_eq!(metadata(&[0xff, 0xff, 0xff, 0xfe]), Err(WireError::BadCount(-2)));
    assert_eq!(metadata(&[0, 0, 0, 2, 0, 1, b'a']), Err(WireError::BadCount(2)));
    assert_eq!(metadata(&[0, 0, 0, 1, 0x7f, 0xff, b'a']), Err(WireError::BadLength(0x7fff)));
    assert_eq!(metadata(&[0, 0, 0, 1, 0xff, 0xfe]), Err(WireError::BadLength(-2)));
    assert_eq!(metadata(&[0, 0, 0, 1, 0xff, 0xff]), Err(WireError::UnexpectedNull));
    assert_eq!(metadata(&[0, 0, 0, 1, 0, 1, 0xff]), Err(WireError::BadString));
    assert_eq!(metadata(&[0, 0]), Err(WireError::Truncated));
    assert_eq!(metadata(&[0xff, 0xff, 0xff, 0xff]).map(|m| m.topics), Ok(None));

    let flexible =
        |bytes: &'static [u8]| MetadataRequest::decode(&mut Reader::new(&Bytes::from_static(bytes)), 9);
    assert_eq!(flexible(&[0xff, 0xff, 0xff, 0xff, 0x0f]), Err(WireError::BadCount(0xffff_fffe)));
    assert_eq!(flexible(&[0xff, 0xff, 0xff, 0xff, 0x1f]), Err(WireError::BadVarint));
    assert_eq!(flexible(&[0xff, 0xff]), Err(WireError::Truncated));
    // Tagged fields: a size beyond the frame, and four thousand million of them.
    assert_eq!(flexible(&[0, 0, 0, 0, 1, 9, 0xff, 0x01]), Err(WireError::BadLength(255)));
    assert_eq!(flexible(&[0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0x0f]), Err(WireError::Truncated));
}

#[test]
fn a_header_of_an_unknown_api_is_read_as_far_as_it_is_known() {
    let bytes = Bytes::from_static(&[0x7f, 0xff, 0, 99, 0, 0, 0, 7, 0, 1, b'x', 0xde, 0xad]);
    let mut r = Reader::new(&bytes);
    let header = RequestHeader::decode(&mut r).unwrap();
    assert_eq!(
        (header.api(), header.api_key, header.api_version, header.correlation_id),
        (None, 0x7fff, 99, 7)
    );
    assert_eq!(r.remaining(), 2);
}

/// What a produce of one partition costs: its two arrays and the frame's reference count.
#[test]
fn decoding_a_produce_allocates_two_arrays() {
    let mut w = Writer::new();
    w.i16(-1);
    w.i16(-1);
    w.i32(30_000);
    w.i32(1);
    w.i16(5);
    w.put(b"topic");
    w.i32(1);
    w.i32(0);
    w.i32(1000);
    w.put(&[3; 1000]);
    let encoded: Encoded = w.finish();
    let frame = encoded.to_bytes();
    let (decoded, peak) = peak_of(|| ProduceRequest::decode(&mut Reader::new(&frame), 7));
    let decoded = decoded.unwrap();
    assert_eq!(decoded.topic_data[0].partition_data[0].records.as_ref().unwrap().len(), 1000);
    assert!(peak < 300, "{peak}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 20_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_as_a_request(data in proptest::collection::vec(any::<u8>(), 0..600)) {
        let ((), peak) = peak_of(|| targets::requests(&data));
        prop_assert!(peak <= 4 * targets::LIMIT + SLACK, "{}", peak);
    }

    #[test]
    fn any_bytes_as_a_response(data in proptest::collection::vec(any::<u8>(), 0..600)) {
        let ((), peak) = peak_of(|| targets::responses(&data));
        prop_assert!(peak <= 4 * targets::LIMIT + SLACK, "{}", peak);
    }

    /// Mostly small bytes: they pass for counts, lengths and tags, so the decoder gets further.
    #[test]
    fn small_bytes_as_anything(data in proptest::collection::vec(prop_oneof![8 => 0u8..4, 1 => any::<u8>()], 0..400)) {
        let ((), peak) = peak_of(|| { targets::requests(&data); targets::responses(&data) });
        prop_assert!(peak <= 4 * targets::LIMIT + SLACK, "{}", peak);
    }

    #[test]
    fn any_bytes_as_a_frame(api in 0u8..100, version in 0u8..20, rest in proptest::collection::vec(any::<u8>(), 0..300)) {
        let mut frame = vec![0, api, 0, version, 0, 0, 0, 1, 0xff, 0xff];
        frame.extend(rest);
        targets::frames(&frame);
    }

    /// A damaged fetch of many partitions, the largest request that clients send often.
    #[test]
    fn a_damaged_fetch(at in 0usize..2000, byte in any::<u8>(), version in 4i16..=18) {
        use sabir_kafka::wire::messages::fetch::{FetchPartition, FetchTopic};
        let partitions = vec![FetchPartition::default(); 30];
        let topic = FetchTopic { topic: "topic".into(), partitions, ..Default::default() };
        let request = FetchRequest { topics: vec![topic], ..Default::default() };
        let mut w = Writer::new();
        request.encode(&mut w, version);
        let mut bytes = w.finish().to_bytes().to_vec();
        let at = at % bytes.len();
        bytes[at] = byte;
        let bytes = Bytes::from(bytes);
        let (_, peak) = peak_of(|| <FetchRequest as ApiMessage>::decode(&mut Reader::with_limit(&bytes, targets::LIMIT), version));
        prop_assert!(peak <= targets::LIMIT + SLACK, "{}", peak);
    }
}

//! Random batches: what is built is read back, by us and by another implementation, in every codec.

#![allow(clippy::unwrap_used)]

use bytes::{Bytes, BytesMut};
use indexmap::IndexMap;
use kafka_protocol::protocol::StrBytes;
use kafka_protocol::records::{
    Compression as TheirCompression, Record, RecordBatchDecoder, RecordBatchEncoder, RecordEncodeOptions,
    TimestampType as TheirTimestampType,
};
use proptest::prelude::*;
use sabir_model::batch::{BatchBuilder, BatchHeader, Compression, records, verify_crc};
use sabir_model::{Offset, ProducerId};

#[derive(Debug, Clone, PartialEq, Eq)]
struct Plain {
    timestamp: i64,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Vec<(String, Option<Vec<u8>>)>,
}

fn blob() -> impl Strategy<Value = Option<Vec<u8>>> {
    let random = prop::collection::vec(any::<u8>(), 0..40);
    let long = (any::<u8>(), 0..3_000usize).prop_map(|(byte, len)| vec![byte; len]);
    prop::option::of(prop_oneof![3 => random, 1 => long])
}

fn plain() -> impl Strategy<Value = Plain> {
    // Few names, so that some repeat.
    let header = ("[ab]{1,2}", blob());
    (0..4_000_000_000_000i64, blob(), blob(), prop::collection::vec(header, 0..4))
        .prop_map(|(timestamp, key, value, headers)| Plain { timestamp, key, value, headers })
}

fn codec() -> impl Strategy<Value = Compression> {
    prop::sample::select(Compression::ALL.to_vec())
}

fn build(codec: Compression, plains: &[Plain]) -> Bytes {
    let mut builder = BatchBuilder::new(codec).base_offset(Offset(77)).producer(ProducerId(9), 1, 0);
    for plain in plains {
        let headers: Vec<_> = plain.headers.iter().map(|(k, v)| (k.as_bytes(), v.as_deref())).collect();
        builder.push(plain.timestamp, plain.key.as_deref(), plain.value.as_deref(), &headers);
    }
    builder.build()
}

fn read(batch: &[u8]) -> Vec<Plain> {
    let records = records(batch, 1 << 20).unwrap();
    let plain = |(i, record): (usize, Result<sabir_model::batch::RecordView<'_>, _>)| {
        let record = record.unwrap();
        assert_eq!(record.offset.0, 77 + i as i64);
        Plain {
            timestamp: record.timestamp,
            key: record.key.map(<[u8]>::to_vec),
            value: record.value.map(<[u8]>::to_vec),
            headers: record
                .headers
                .map(|h| (String::from_utf8(h.key.to_vec()).unwrap(), h.value.map(<[u8]>::to_vec)))
                .collect(),
        }
    };
    records.iter().enumerate().map(plain).collect()
}

/// The other implementation keeps one header of a name: it is right where no name repeats.
fn with_unique_headers(mut plains: Vec<Plain>) -> Vec<Plain> {
    for plain in &mut plains {
        let unique: IndexMap<_, _> = std::mem::take(&mut plain.headers).into_iter().collect();
        plain.headers = unique.into_iter().collect();
    }
    plains
}

fn theirs(codec: Compression) -> TheirCompression {
    match codec {
        Compression::None => TheirCompression::None,
        Compression::Gzip => TheirCompression::Gzip,
        Compression::Snappy => TheirCompression::Snappy,
        Compression::Lz4 => TheirCompression::Lz4,
        Compression::Zstd => TheirCompression::Zstd,
    }
}

fn to_theirs((i, plain): (usize, &Plain)) -> Record {
    let header =
        |(k, v): &(String, Option<Vec<u8>>)| (StrBytes::from_string(k.clone()), v.clone().map(Bytes::from));
    Record {
        transactional: false,
        control: false,
        delete_horizon: false,
        partition_leader_epoch: -1,
        producer_id: 9,
        producer_epoch: 1,
        timestamp_type: TheirTimestampType::Creation,
        offset: 77 + i as i64,
        sequence: i as i32,
        timestamp: plain.timestamp,
        key: plain.key.clone().map(Bytes::from),
        value: plain.value.clone().map(Bytes::from),
        headers: plain.headers.iter().map(header).collect(),
    }
}

/// Codecs the other implementation is built with.
fn shared_codec() -> impl Strategy<Value = Compression> {
    prop::sample::select(vec![Compression::None, Compression::Gzip, Compression::Snappy, Compression::Lz4])
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_built_is_read_back(codec in codec(), plains in prop::collection::vec(plain(), 1..12)) {
        let batch = build(codec, &plains);
        let header = BatchHeader::parse(&batch).unwrap();
        prop_assert_eq!(header.total_len(), batch.len());
        prop_assert_eq!(header.check_produced(), Ok(()));
        prop_assert_eq!(header.max_timestamp, plains.iter().map(|p| p.timestamp).max().unwrap());
        prop_assert_eq!(verify_crc(&batch), Ok(()));
        prop_assert_eq!(read(&batch), plains);
    }

    #[test]
    fn another_implementation_reads_what_we_build(codec in shared_codec(), plains in prop::collection::vec(plain(), 1..12)) {
        let plains = with_unique_headers(plains);
        let mut batch = build(codec, &plains);
        let set = RecordBatchDecoder::decode(&mut batch).unwrap();
        let expected: Vec<_> = plains.iter().enumerate().map(to_theirs).collect();
        prop_assert_eq!(set.records, expected);
    }

    #[test]
    fn we_read_what_another_implementation_builds(codec in shared_codec(), plains in prop::collection::vec(plain(), 1..12)) {
        let plains = with_unique_headers(plains);
        let records: Vec<_> = plains.iter().enumerate().map(to_theirs).collect();
        let mut batch = BytesMut::new();
        let options = RecordEncodeOptions { version: 2, compression: theirs(codec) };
        RecordBatchEncoder::encode(&mut batch, &records, &options).unwrap();
        prop_assert_eq!(verify_crc(&batch), Ok(()));
        let header = BatchHeader::parse(&batch).unwrap();
        prop_assert_eq!((header.producer_id, header.base_sequence), (ProducerId(9), 0));
        prop_assert_eq!(read(&batch), plains);
    }

    #[test]
    fn a_flipped_bit_is_found(codec in codec(), plains in prop::collection::vec(plain(), 1..4), at in any::<prop::sample::Index>(), bit in 0..8u8) {
        let mut batch = build(codec, &plains).to_vec();
        let len = batch.len();
        // From the CRC on; what is before it is the broker's to patch.
        let at = 17 + at.index(len - 17);
        batch[at] ^= 1 << bit;
        prop_assert!(verify_crc(&batch).is_err());
    }

    #[test]
    fn a_stamp_changes_time_alone(codec in codec(), plains in prop::collection::vec(plain(), 1..6), now in 0..i64::MAX) {
        let mut batch = build(codec, &plains).to_vec();
        sabir_model::batch::stamp_log_append_time(&mut batch, now).unwrap();
        prop_assert_eq!(verify_crc(&batch), Ok(()));
        let stamped: Vec<_> = plains.into_iter().map(|plain| Plain { timestamp: now, ..plain }).collect();
        prop_assert_eq!(read(&batch), stamped);
    }
}

/// Megabytes in each codec, through the framing of many blocks.
#[test]
fn large_batches_in_every_codec() {
    let value: Vec<u8> = (0..900_000u32).flat_map(|i| (i / 7).to_le_bytes()).take(900_000).collect();
    let plains = vec![Plain { timestamp: 1, key: None, value: Some(value), headers: vec![] }];
    for codec in Compression::ALL {
        assert_eq!(read(&build(codec, &plains)), plains, "{codec}");
    }
}

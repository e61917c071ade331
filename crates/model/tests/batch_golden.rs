//! Record batches as the protocol guide writes them, byte for byte.

use sabir_model::batch::{
    BatchBuilder, BatchError, BatchHeader, Compression, HEADER_LEN, HeaderView, RecordView,
    patch_base_offset, patch_leader_epoch, records, split, stamp_log_append_time, verify_crc,
};
use sabir_model::{LeaderEpoch, Offset, ProducerId, TimestampType};

/// Base offset 5, leader epoch 7, producer 4000 in epoch 2 from sequence 10 on, three records from 1_700_000_000_000 on.
/// Put together by hand; the CRC by a bitwise CRC-32C.
const GOLDEN: &str = concat!(
    "0000000000000005", // base offset
    "00000052",         // length: 82
    "00000007",         // leader epoch
    "02",               // magic
    "c2ea18f7",         // CRC
    "0000",             // attributes
    "00000002",         // last offset delta
    "0000018bcfe56800", // base timestamp
    "0000018bcfe5692c", // max timestamp: 300 later
    "0000000000000fa0", // producer id
    "0002",             // producer epoch
    "0000000a",         // base sequence
    "00000003",         // record count
    // Length 17, attributes, timestamp +0, offset +0, key "k1", value "v1", two headers: h = "x", h without a value.
    "2200000004",
    "6b31",
    "04",
    "7631",
    "04",
    "0268",
    "0278",
    "0268",
    "01",
    // Length 6: timestamp -5, offset +1, no key, an empty value.
    "0c0009020100",
    "00",
    // Length 7: timestamp +300, offset +2, an empty key, no value.
    "0e00d80404000100",
);

fn golden() -> Vec<u8> {
    let digit = |c: u8| (c as char).to_digit(16).expect("hexadecimal") as u8;
    GOLDEN.as_bytes().chunks(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect()
}

/// A record's fields: offset, timestamp, key, value, headers.
type Fields<'a> = (i64, i64, Option<&'a [u8]>, Option<&'a [u8]>, Vec<(&'a [u8], Option<&'a [u8]>)>);

fn fields(record: RecordView<'_>) -> Fields<'_> {
    let headers = record.headers.map(|HeaderView { key, value }| (key, value)).collect();
    (record.offset.0, record.timestamp, record.key, record.value, headers)
}

#[test]
fn the_header_is_read() {
    let batch = golden();
    let header = BatchHeader::parse(&batch).unwrap();
    assert_eq!(
        header,
        BatchHeader {
            base_offset: Offset(5),
            length: 82,
            leader_epoch: LeaderEpoch(7),
            crc: 0xc2ea_18f7,
            attributes: 0,
            last_offset_delta: 2,
            base_timestamp: 1_700_000_000_000,
            max_timestamp: 1_700_000_000_300,
            producer_id: ProducerId(4000),
            producer_epoch: 2,
            base_sequence: 10,
            count: 3,
        }
    );
    assert_eq!((header.total_len(), header.last_offset(), header.last_sequence()), (94, Offset(7), 12));
    assert_eq!(header.compression(), Ok(Compression::None));
    assert_eq!(header.timestamp_type(), TimestampType::CreateTime);
    assert!(!header.is_control() && !header.is_transactional());
    assert_eq!(header.check_produced(), Ok(()));
    assert_eq!(verify_crc(&batch), Ok(()));
}

#[test]
fn the_records_are_read() {
    let batch = golden();
    let records = records(&batch, 1 << 20).unwrap();
    let read: Vec<_> = records.iter().map(|record| fields(record.unwrap())).collect();
    assert_eq!(
        read,
        [
            (
                5,
                1_700_000_000_000,
                Some(b"k1".as_slice()),
                Some(b"v1".as_slice()),
                vec![(b"h".as_slice(), Some(b"x".as_slice())), (b"h", None)]
            ),
            (6, 1_699_999_999_995, None, Some(b""), vec![]),
            (7, 1_700_000_000_300, Some(b""), None, vec![]),
        ]
    );
}

#[test]
fn the_builder_makes_the_same_bytes() {
    let mut builder =
        BatchBuilder::new(Compression::None).base_offset(Offset(5)).producer(ProducerId(4000), 2, 10);
    let base = 1_700_000_000_000;
    builder.push(base, Some(b"k1"), Some(b"v1"), &[(b"h", Some(b"x")), (b"h", None)]);
    builder.push(base - 5, None, Some(b""), &[]);
    builder.push(base + 300, Some(b""), None, &[]);
    assert_eq!((builder.count(), builder.bytes()), (3, 94));
    let mut built = builder.build().to_vec();
    assert_eq!(BatchHeader::parse(&built).unwrap().leader_epoch, LeaderEpoch::UNKNOWN);
    patch_leader_epoch(&mut built, LeaderEpoch(7));
    assert_eq!(built, golden());
}

#[test]
fn patches_leave_the_crc_alone_and_a_stamp_redoes_it() {
    let mut batch = golden();
    patch_base_offset(&mut batch, Offset(1 << 40));
    patch_leader_epoch(&mut batch, LeaderEpoch(-1));
    assert_eq!(verify_crc(&batch), Ok(()));
    let header = BatchHeader::parse(&batch).unwrap();
    assert_eq!((header.base_offset, header.leader_epoch), (Offset(1 << 40), LeaderEpoch(-1)));

    let mut run = batch.clone();
    run.extend(golden());
    stamp_log_append_time(&mut run, 1_800_000_000_000).unwrap();
    assert_eq!(verify_crc(&run), Ok(()));
    assert_eq!(run[94..], golden(), "what follows the batch is not its own");
    let header = BatchHeader::parse(&run).unwrap();
    assert_eq!(header.timestamp_type(), TimestampType::LogAppendTime);
    assert_eq!((header.max_timestamp, header.base_timestamp), (1_800_000_000_000, 1_700_000_000_000));
    let records = records(&run, 1 << 20).unwrap();
    assert!(records.iter().all(|record| record.unwrap().timestamp == 1_800_000_000_000));
}

#[test]
fn a_run_of_batches_is_taken_apart() {
    let mut run = golden();
    run.extend(golden());
    patch_base_offset(&mut run[94..], Offset(8));
    let batches: Vec<_> = split(&run).map(|batch| batch.unwrap()).collect();
    assert_eq!(
        batches.iter().map(|(h, b)| (h.base_offset.0, b.len())).collect::<Vec<_>>(),
        [(5, 94), (8, 94)]
    );
    // A cut batch ends the run.
    for len in 95..188 {
        let mut batches = split(&run[..len]);
        assert!(batches.next().unwrap().is_ok());
        assert!(matches!(batches.next(), Some(Err(BatchError::Truncated { .. }))), "{len}");
        assert!(batches.next().is_none());
    }
    assert!(split(&[]).next().is_none());
}

#[test]
fn the_attributes_of_every_kind() {
    let of = |builder: BatchBuilder| {
        let mut builder = builder;
        builder.push(0, None, None, &[]);
        BatchHeader::parse(&builder.build()).unwrap()
    };
    for (codec, bits) in Compression::ALL.into_iter().zip([0i16, 1, 2, 3, 4]) {
        let header = of(BatchBuilder::new(codec));
        assert_eq!((header.attributes, header.compression()), (bits, Ok(codec)));
    }
    let header = of(BatchBuilder::new(Compression::Zstd).transactional().control());
    assert_eq!(header.attributes, 4 | 1 << 4 | 1 << 5);
    assert!(header.is_transactional() && header.is_control());
}

#[test]
fn an_empty_batch_covers_a_gap() {
    let mut builder = BatchBuilder::new(Compression::None).base_offset(Offset(100));
    builder.cover(9);
    let batch = builder.build();
    let header = BatchHeader::parse(&batch).unwrap();
    assert_eq!((batch.len(), header.count, header.last_offset()), (HEADER_LEN, 0, Offset(109)));
    assert_eq!(records(&batch, 0).unwrap().iter().count(), 0);
    assert!(header.check_produced().is_err(), "no producer sends one");

    let mut builder = BatchBuilder::new(Compression::None);
    builder.push_at(3, 0, None, None, &[]);
    builder.push_at(7, 0, None, None, &[]);
    builder.cover(9);
    let batch = builder.build();
    let records = records(&batch, 100).unwrap();
    assert_eq!(records.iter().map(|r| r.unwrap().offset.0).collect::<Vec<_>>(), [3, 7]);
    assert_eq!(records.header().last_offset(), Offset(9));
}

#[test]
fn sequences_wrap() {
    let mut header = BatchHeader::parse(&golden()).unwrap();
    header.base_sequence = i32::MAX - 1;
    assert_eq!(header.last_sequence(), 0);
    header.base_sequence = i32::MAX - 2;
    assert_eq!(header.last_sequence(), i32::MAX);
}

/// The Java library's framing around two raw blocks, and one raw block without it, as librdkafka sends.
#[test]
fn snappy_in_both_forms() {
    // Raw: length 3, a literal of 3.
    let raw = [3, 2 << 2, b'a', b'b', b'c'];
    assert_eq!(&*Compression::Snappy.decompress(&raw, 100).unwrap(), b"abc");
    let mut framed = b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01".to_vec();
    for _ in 0..2 {
        framed.extend([0, 0, 0, 5]);
        framed.extend(raw);
    }
    assert_eq!(&*Compression::Snappy.decompress(&framed, 100).unwrap(), b"abcabc");
    let mut made = Vec::new();
    Compression::Snappy.compress(b"abc", &mut made);
    assert_eq!(made[..20], framed[..20]);
}

/// A frame of the LZ4 tools: version 1, independent blocks, 64 KiB, one stored block, no checksums.
#[test]
fn lz4_frames() {
    let frame = [0x04, 0x22, 0x4d, 0x18, 0x60, 0x40, 0x82, 3, 0, 0, 0x80, b'a', b'b', b'c', 0, 0, 0, 0];
    assert_eq!(&*Compression::Lz4.decompress(&frame, 100).unwrap(), b"abc");
    let mut made = Vec::new();
    Compression::Lz4.compress(&[7; 100_000], &mut made);
    assert_eq!(made[..6], frame[..6], "the Java client takes independent blocks only");
}

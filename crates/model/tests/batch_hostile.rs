//! Batches made to hurt: every one is an error, none takes more memory than its limit allows.

use proptest::prelude::*;
use sabir_base::testing::{CountingAllocator, peak_of};
use sabir_model::batch::{
    BatchBuilder, BatchError, BatchHeader, Compression, HEADER_LEN, check_records, records, split,
    stamp_log_append_time, verify_crc,
};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

/// A batch with this attribute byte, count and body, its CRC right.
fn forged(attributes: u8, last_offset_delta: i32, count: i32, body: &[u8]) -> Vec<u8> {
    let mut builder = BatchBuilder::new(Compression::None);
    builder.cover(0);
    let mut batch = builder.build().to_vec();
    batch.extend_from_slice(body);
    let len = (batch.len() - 12) as i32;
    batch[8..12].copy_from_slice(&len.to_be_bytes());
    batch[22] = attributes;
    batch[23..27].copy_from_slice(&last_offset_delta.to_be_bytes());
    batch[57..61].copy_from_slice(&count.to_be_bytes());
    let crc = sabir_base::crc::crc32c(&batch[21..]);
    batch[17..21].copy_from_slice(&crc.to_be_bytes());
    batch
}

fn walk(batch: &[u8], limit: usize) -> Result<usize, BatchError> {
    let records = records(batch, limit)?;
    let mut walked = 0;
    for record in &records {
        walked += 1 + record?.headers.count();
    }
    Ok(walked)
}

const LIMIT: usize = 1 << 20;
/// What a decompressor keeps for itself, whatever its input says: LZ4's largest blocks are 4 MiB.
const OWN: usize = 9 << 20;

#[test]
fn header_fields_that_no_batch_can_have() {
    let good = forged(0, 0, 1, &[]);
    let with = |at: usize, bytes: &[u8]| {
        let mut bad = good.clone();
        bad[at..at + bytes.len()].copy_from_slice(bytes);
        BatchHeader::parse(&bad)
    };
    let field = |field, value| Err(BatchError::Field { field, value });
    assert_eq!(with(16, &[1]), Err(BatchError::Magic(1)));
    assert_eq!(with(16, &[0xff]), Err(BatchError::Magic(-1)));
    assert_eq!(with(8, &(-1i32).to_be_bytes()), field("length", -1));
    assert_eq!(with(8, &48i32.to_be_bytes()), field("length", 48));
    assert_eq!(with(8, &i32::MIN.to_be_bytes()), field("length", i32::MIN.into()));
    assert_eq!(with(57, &(-1i32).to_be_bytes()), field("record count", -1));
    assert_eq!(with(57, &2i32.to_be_bytes()), field("record count", 2));
    assert_eq!(with(23, &(-1i32).to_be_bytes()), field("last offset delta", -1));
    for len in 0..HEADER_LEN {
        let parsed = BatchHeader::parse(&good[..len]);
        assert_eq!(parsed, Err(BatchError::Truncated { need: HEADER_LEN, have: len }));
    }
    // An old format is named for what it is, even if the message is shorter than this header.
    let mut old = [0; 20];
    old[16] = 1;
    assert_eq!(BatchHeader::parse(&old), Err(BatchError::Magic(1)));
}

#[test]
fn what_a_producer_may_not_send() {
    let produced = |batch: &[u8]| BatchHeader::parse(batch).unwrap().check_produced();
    assert_eq!(produced(&forged(0, 0, 1, &[])), Ok(()));
    assert!(produced(&forged(0, 0, 0, &[])).is_err(), "no records");
    assert!(produced(&forged(0, 5, 1, &[])).is_err(), "gaps");
    for unknown in [1 << 6, 1 << 7] {
        assert_eq!(produced(&forged(unknown, 0, 1, &[])), Ok(()), "what means nothing here");
    }
    for codec in 5..8 {
        assert_eq!(produced(&forged(codec, 0, 1, &[])), Err(BatchError::Codec(codec)));
    }
    for (epoch, sequence) in [(-1i16, -1i32), (0, -1)] {
        let mut batch = forged(0, 0, 1, &[]);
        batch[43..51].copy_from_slice(&7i64.to_be_bytes());
        batch[51..53].copy_from_slice(&epoch.to_be_bytes());
        batch[53..57].copy_from_slice(&sequence.to_be_bytes());
        assert!(produced(&batch).is_err(), "{epoch} {sequence}");
    }
}

#[test]
fn huge_counts_take_no_memory() {
    // A batch of 61 bytes that claims two thousand million records.
    let batch = forged(0, i32::MAX - 1, i32::MAX, &[]);
    let (walked, peak) = peak_of(|| walk(&batch, LIMIT));
    assert!(matches!(walked, Err(BatchError::Record { index: 0, .. })));
    assert!(peak < 1_000, "{peak}");

    // A record that claims as many headers: length 11, attributes, +0, +0, no key, no value, 2^31-1 headers.
    let body = [22, 0, 0, 0, 1, 1, 0xfe, 0xff, 0xff, 0xff, 0x0f, 0];
    let (walked, peak) = peak_of(|| walk(&forged(0, 0, 1, &body), LIMIT));
    assert_eq!(walked, Err(BatchError::Record { index: 0, what: "a header is cut or negative" }));
    assert!(peak < 1_000, "{peak}");
}

/// Sixty-four megabytes in a few kilobytes, as one record, and a count that is wrong: all of it is gone through, none of it kept.
#[test]
fn counting_holds_little_of_a_bomb() {
    // Length, attributes, +0, +0, no key, the value's length, the value, no headers: both lengths have four bytes.
    let value = (64 << 20) - 1000;
    let varint = |number: u32| {
        let raw = 2 * number;
        [raw as u8 | 0x80, (raw >> 7) as u8 | 0x80, (raw >> 14) as u8 | 0x80, (raw >> 21) as u8 & 0x7f]
    };
    let mut records = [&varint(4 + 4 + value + 1)[..], &[0, 0, 0, 1], &varint(value)].concat();
    records.resize(records.len() + value as usize + 1, 0);
    for codec in [Compression::Gzip, Compression::Lz4, Compression::Zstd] {
        let mut body = Vec::new();
        codec.compress(&records, &mut body);
        let batch = forged(codec as u8, 1, 2, &body);
        let (counted, peak) = peak_of(|| check_records(&batch, 128 << 20, &mut || {}).map(drop));
        let what = "its length is cut or too long";
        assert_eq!(counted, Err(BatchError::Record { index: 1, what }), "{codec}");
        assert!(peak < OWN, "{codec}: {peak}");
    }
}

#[test]
fn malformed_records_are_told_apart() {
    let one = |body: &[u8]| match walk(&forged(0, 0, 1, body), LIMIT) {
        Err(BatchError::Record { what, .. }) => what,
        other => panic!("{body:?}: {other:?}"),
    };
    assert_eq!(one(&[]), "its length is cut or too long");
    assert_eq!(one(&[0x80; 6]), "its length is cut or too long");
    assert_eq!(one(&[1]), "it is longer than what is left", "a length of -1");
    assert_eq!(one(&[14, 0, 0, 0, 1, 1]), "it is longer than what is left");
    assert_eq!(one(&[0]), "it is empty");
    assert_eq!(one(&[2, 0]), "its timestamp is cut or too long");
    assert_eq!(one(&[4, 0, 0]), "its offset is cut or too long");
    assert_eq!(one(&[12, 0, 0, 2, 1, 1, 0]), "its offset lies outside the batch");
    assert_eq!(one(&[12, 0, 0, 1, 1, 1, 0]), "its offset lies outside the batch", "-1");
    assert_eq!(one(&[12, 0, 0, 0, 3, 1, 0]), "its key is longer than the record", "-2");
    assert_eq!(one(&[12, 0, 0, 0, 40, 1, 0]), "its key is longer than the record");
    assert_eq!(one(&[12, 0, 0, 0, 1, 40, 0]), "its value is longer than the record");
    assert_eq!(one(&[12, 0, 0, 0, 1, 1, 1]), "its number of headers is cut or negative");
    assert_eq!(one(&[14, 0, 0, 0, 1, 1, 2, 1]), "a header is cut or negative", "a header without a name");
    assert_eq!(one(&[14, 0, 0, 0, 1, 1, 0, 9]), "bytes are left behind its headers");
    assert_eq!(one(&[12, 0, 0, 0, 1, 1, 0, 9]), "bytes are left behind the last one");
}

#[test]
fn bombs_stop_at_the_limit() {
    let zeros = vec![0; 64 << 20];
    for codec in [Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd] {
        let mut bomb = Vec::new();
        codec.compress(&zeros, &mut bomb);
        let batch = forged(codec as u8, 0, 1, &bomb);
        assert_eq!(verify_crc(&batch), Ok(()));
        let (walked, peak) = peak_of(|| walk(&batch, LIMIT));
        assert_eq!(walked, Err(BatchError::TooLarge { limit: LIMIT }), "{codec}");
        assert!(peak <= 2 * LIMIT + OWN, "{codec}: {peak}");
        // The limit is exact.
        let mut exact = Vec::new();
        codec.compress(&zeros[..5_000], &mut exact);
        assert_eq!(codec.decompress(&exact, 5_000).map(|out| out.len()), Ok(5_000), "{codec}");
        assert_eq!(codec.decompress(&exact, 4_999), Err(BatchError::TooLarge { limit: 4_999 }), "{codec}");
    }
    assert_eq!(Compression::None.decompress(&[0; 9], 8), Err(BatchError::TooLarge { limit: 8 }));
}

#[test]
fn a_few_bytes_that_promise_much_take_little() {
    // Snappy: a length of 2^32-1, and one that is within the limit but not within what snappy can do.
    for promise in [[0xff, 0xff, 0xff, 0xff, 0x0f].as_slice(), &[0x80, 0x80, 0x40]] {
        let (out, peak) = peak_of(|| Compression::Snappy.decompress(promise, 64 << 20).map(|out| out.len()));
        assert_eq!(out, Err(BatchError::Decompress(Compression::Snappy)));
        assert!(peak < 1_000, "{peak}");
    }
    // Zstandard: a frame that says it holds 1 GiB, with a window to match, and ends.
    let frame = [0x28, 0xb5, 0x2f, 0xfd, 0xa0, 0, 0, 0, 0x40, 1, 0, 0];
    let (out, peak) = peak_of(|| Compression::Zstd.decompress(&frame, 64 << 20).map(|out| out.len()));
    assert_eq!(out, Err(BatchError::Decompress(Compression::Zstd)));
    assert!(peak < 1 << 20, "{peak}");
    // LZ4: a header that asks for 4 MiB blocks.
    let frame = [0x04, 0x22, 0x4d, 0x18, 0x60, 0x70, 0x73, 0xff, 0xff, 0xff, 0x7f];
    let (out, peak) = peak_of(|| Compression::Lz4.decompress(&frame, 64 << 20).map(|out| out.len()));
    assert_eq!(out, Err(BatchError::Decompress(Compression::Lz4)));
    assert!(peak <= OWN, "{peak}");
}

#[test]
fn bytes_that_are_not_the_codecs() {
    for codec in [Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd] {
        for junk in [b"".as_slice(), b"\x05", b"not compressed at all", &[0xff; 40]] {
            let empty_is_fine = junk.is_empty() && codec != Compression::Snappy;
            let out = codec.decompress(junk, LIMIT);
            assert!(out.is_err() || empty_is_fine, "{codec} {junk:?}");
        }
    }
    let framed = b"\x82SNAPPY\0";
    for broken in [
        framed.as_slice(),
        b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01\xff\xff\xff\xff",
        b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01\0\0\0\x09a",
    ] {
        assert!(Compression::Snappy.decompress(broken, LIMIT).is_err(), "{broken:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_at_all(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let (_, peak) = peak_of(|| {
            let _ = (verify_crc(&bytes), walk(&bytes, LIMIT), split(&bytes).count());
            let _ = stamp_log_append_time(&mut bytes.clone(), 5);
        });
        prop_assert!(peak <= LIMIT + OWN);
    }

    #[test]
    fn any_body_behind_a_good_header(codec in 0..8u8, delta in any::<u16>(), count in any::<u16>(), body in prop::collection::vec(any::<u8>(), 0..300)) {
        let batch = forged(codec, delta.into(), count.into(), &body);
        let (walked, peak) = peak_of(|| walk(&batch, LIMIT));
        prop_assert!(peak <= LIMIT + OWN, "{peak}");
        prop_assert!(walked.is_err() || walked.unwrap() >= usize::from(count));
    }

    /// Bytes of a real batch, changed here and there with the CRC made to fit: further in than noise gets.
    #[test]
    fn a_good_batch_gone_bad(codec in 0..5u8, changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6)) {
        let mut builder = BatchBuilder::new(Compression::ALL[usize::from(codec)]);
        for i in 0..20 {
            builder.push(i, Some(&[7; 30]), Some(&[9; 100]), &[(b"name", Some(b"value")), (b"name", None)]);
        }
        let mut batch = builder.build().to_vec();
        let len = batch.len();
        for (at, byte) in changes {
            batch[HEADER_LEN + at.index(len - HEADER_LEN)] = byte;
        }
        let (_, peak) = peak_of(|| walk(&batch, LIMIT));
        prop_assert!(peak <= 2 * LIMIT + OWN, "{peak}");
    }
}

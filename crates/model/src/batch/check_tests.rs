//! Of checks.

use super::*;
use crate::batch::{BatchBuilder, Compression};

const LIMIT: usize = 1 << 20;

fn check(bytes: &[u8], limit: usize) -> Result<(), BatchError> {
    check_records(bytes, limit, &mut || {}).map(drop)
}

fn batch(codec: Compression, records: usize) -> Vec<u8> {
    let mut builder = BatchBuilder::new(codec);
    (0..records).for_each(|i| builder.push(i as i64, Some(b"key"), Some(&[7; 90]), &[]));
    builder.build().to_vec()
}

fn claim(batch: &mut [u8], count: i32) {
    batch[57..61].copy_from_slice(&count.to_be_bytes());
    batch[23..27].copy_from_slice(&(count - 1).to_be_bytes());
}

#[test]
fn the_right_number_is_believed_in_every_codec_and_no_other() {
    for codec in Compression::ALL {
        for records in [1, 2, 700] {
            let mut bytes = batch(codec, records);
            assert_eq!(check(&bytes, LIMIT), Ok(()), "{codec}, {records}");
            for wrong in [records as i32 + 1, 5000] {
                claim(&mut bytes, wrong);
                assert!(matches!(check(&bytes, LIMIT), Err(BatchError::Record { .. })), "{codec}");
            }
            if records > 1 {
                claim(&mut bytes, records as i32 - 1);
                let what = "bytes are left behind the last one";
                let index = records as u32 - 1;
                assert_eq!(check(&bytes, LIMIT), Err(BatchError::Record { index, what }));
            }
        }
    }
}

#[test]
fn nothing_is_no_records_and_no_more() {
    for codec in Compression::ALL {
        let mut bytes = batch(codec, 1)[..HEADER_LEN].to_vec();
        bytes[8..12].copy_from_slice(&(HEADER_LEN as i32 - 12).to_be_bytes());
        assert!(matches!(check(&bytes, LIMIT), Err(BatchError::Record { index: 0, .. })), "{codec}");
        claim(&mut bytes, 0);
        bytes[23..27].copy_from_slice(&0i32.to_be_bytes());
        assert_eq!(check(&bytes, LIMIT), Ok(()), "{codec}");
    }
}

#[test]
fn more_than_the_limit_is_refused_before_it_is_read() {
    for codec in Compression::ALL {
        let mut bytes = batch(codec, 700);
        assert_eq!(check(&bytes, 10_000), Err(BatchError::TooLarge { limit: 10_000 }), "{codec}");
        claim(&mut bytes, 200_000_000);
        let field = BatchError::Field { field: "record count", value: 200_000_000 };
        assert_eq!(check(&bytes, LIMIT), Err(field), "{codec}");
    }
}

#[test]
fn a_zstandard_window_may_be_as_large_as_its_library_takes() {
    let plain = batch(Compression::None, 700);
    for (log, expected) in [(27, Ok(())), (28, Err(BatchError::Decompress(Compression::Zstd)))] {
        let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
        encoder.window_log(log).unwrap();
        std::io::Write::write_all(&mut encoder, &plain[HEADER_LEN..]).unwrap();
        let mut bytes = [&plain[..HEADER_LEN], &encoder.finish().unwrap()].concat();
        let len = (bytes.len() - 12) as i32;
        bytes[8..12].copy_from_slice(&len.to_be_bytes());
        bytes[22] |= Compression::Zstd as u8;
        assert_eq!(check(&bytes, LIMIT), expected, "{log}");
    }
}

#[test]
fn cut_and_damaged_batches_are_refused() {
    for codec in Compression::ALL {
        let good = batch(codec, 50);
        // An LZ4 frame ends with four bytes that say no more than this; its library does not miss them.
        let least = if codec == Compression::Lz4 { 5 } else { 1 };
        for cut in least..good.len() - HEADER_LEN {
            let mut bytes = good[..good.len() - cut].to_vec();
            let len = (bytes.len() - 12) as i32;
            bytes[8..12].copy_from_slice(&len.to_be_bytes());
            assert!(check(&bytes, LIMIT).is_err(), "{codec}, {cut} bytes less");
        }
    }
}

#[test]
fn a_record_that_claims_more_than_any_limit_is_malformed() {
    let mut bytes = batch(Compression::None, 1)[..HEADER_LEN].to_vec();
    bytes.extend_from_slice(&[0xfe, 0xff, 0xff, 0xff, 0x0f, 0, 0, 0, 1, 1, 0]);
    let len = (bytes.len() - 12) as i32;
    bytes[8..12].copy_from_slice(&len.to_be_bytes());
    assert_eq!(check(&bytes, LIMIT), Err(BatchError::Record { index: 0, what: LONG }));
}

#[test]
fn a_record_that_claims_more_than_there_is_is_malformed_and_not_too_large() {
    for codec in Compression::ALL {
        for claimed in [LIMIT as i64 - 3, LIMIT as i64, 1 << 27, i64::from(i32::MAX)] {
            let mut record = Vec::new();
            sabir_base::varint::put_i64(&mut record, claimed);
            record.extend_from_slice(b"abc");
            let mut body = Vec::new();
            codec.compress(&record, &mut body);
            let checked = check(&packed_in(codec, 1, &body), LIMIT);
            assert!(
                matches!(checked, Err(BatchError::Record { index: 0, .. })),
                "{codec}, {claimed}: {checked:?}"
            );
        }
    }
}

#[test]
fn what_is_in_a_record_is_looked_at_and_its_time_told() {
    for codec in Compression::ALL {
        let mut builder = BatchBuilder::new(codec);
        for (time, value) in [(70, 5), (50, 100_000), (90, 20)] {
            builder.push(time, Some(b"k"), Some(&vec![b'v'; value]), &[(b"h", None)]);
        }
        let found = check_records(&builder.build(), LIMIT, &mut || {}).unwrap();
        assert_eq!((found.oldest, found.newest, found.bytes), (50, 90, 100_062), "{codec}");
    }
    // attributes, time, offset, key, value, number of headers
    for (record, good) in [
        (&[0, 0, 0, 1, 1, 0][..], true),
        (&[0, 0, 2, 1, 1, 0], false),
        (&[0, 0, 0, 3, 1, 0], false),
        (&[0, 0, 0, 1, 100, 0], false),
        (&[0, 0, 0, 1, 1, 1], false),
        (&[0, 0, 0, 1, 1, 2], false),
        (&[0, 0, 0, 1, 1, 0, 7], false),
        (&[0, 0, 0, 1, 1, 2, 1, 1], false),
        (&[0, 0, 0, 1, 1, 2, 0, 1], true),
    ] {
        let mut bytes = batch(Compression::None, 1)[..HEADER_LEN].to_vec();
        bytes.push(2 * record.len() as u8);
        bytes.extend_from_slice(record);
        let len = (bytes.len() - 12) as i32;
        bytes[8..12].copy_from_slice(&len.to_be_bytes());
        assert_eq!(check(&bytes, LIMIT).is_ok(), good, "{record:?}");
    }
}

#[test]
fn numbers_of_more_bytes_than_a_client_reads_are_refused() {
    // A record without key and value whose numbers are written with more bytes than they need.
    let long = |bytes: usize, number: u8| {
        let mut out = vec![number | 0x80];
        out.resize(bytes - 1, 0x80);
        out.push(0);
        out
    };
    let record = |time: &[u8], offset: &[u8], headers: &[u8]| [&[0], time, offset, &[1, 1], headers].concat();
    let cases = [
        (record(&[0], &[0], &[0]), true),
        (record(&[0], &long(5, 0), &[0]), true),
        (record(&[0], &long(6, 0), &[0]), false),
        (record(&long(10, 0), &[0], &[0]), true),
        (record(&long(11, 0), &[0], &[0]), false),
        (record(&[&[0x80; 9][..], &[2]].concat(), &[0], &[0]), false),
        (record(&[0], &[0], &long(5, 0)), true),
        (record(&[0], &[0], &long(6, 0)), false),
    ];
    let header = BatchHeader::parse(&batch(Compression::None, 1)).unwrap();
    for (record, good) in cases {
        let body = [&[2 * record.len() as u8], &record[..]].concat();
        let whole = Walk::new(&body[..], &mut || {}).records(&header, 1000, &mut Next::new(&header, 1000));
        assert_eq!(whole.is_ok(), good, "{record:?}: {whole:?}");
        let from = BufReader::with_capacity(1, Pieces(&body, 1));
        let pieces = Walk::new(from, &mut || {}).records(&header, 1000, &mut Next::new(&header, 1000));
        assert_eq!(pieces, whole, "{record:?}");
    }
}

#[test]
fn what_is_taken_in_two_frames_can_be_read() {
    for codec in Compression::ALL {
        let plain = batch(Compression::None, 2);
        let (one, two) = plain[HEADER_LEN..].split_at((plain.len() - HEADER_LEN) / 2);
        let mut bytes = plain[..HEADER_LEN].to_vec();
        bytes[22] |= codec as u8;
        [one, two].iter().for_each(|part| codec.compress(part, &mut bytes));
        let len = (bytes.len() - 12) as i32;
        bytes[8..12].copy_from_slice(&len.to_be_bytes());
        let read =
            crate::batch::records(&bytes, LIMIT).is_ok_and(|records| records.iter().all(|r| r.is_ok()));
        assert!(read || check(&bytes, LIMIT).is_err(), "{codec}");
    }
}

#[test]
fn a_zstandard_context_serves_again_after_bad_frames_and_large_windows() {
    let good = batch(Compression::Zstd, 50);
    let mut cut = good[..good.len() - 5].to_vec();
    let len = (cut.len() - 12) as i32;
    cut[8..12].copy_from_slice(&len.to_be_bytes());
    let mut large = BatchBuilder::new(Compression::Zstd);
    large.push(0, None, Some(&vec![7; 16 << 20]), &[]);
    let large = large.build();
    for _ in 0..3 {
        assert_eq!(check(&good, LIMIT), Ok(()));
        assert!(check(&cut, LIMIT).is_err());
        assert_eq!(check(&large, LIMIT), Err(BatchError::TooLarge { limit: LIMIT }));
        assert!(CONTEXT.take().is_none_or(|context| context.sizeof() <= CONTEXT_KEPT));
        assert_eq!(check(&good, LIMIT), Ok(()));
        assert_eq!(check(&large, 32 << 20), Ok(()));
    }
}

/// A buffer that gives a few bytes at a time.
struct Pieces<'a>(&'a [u8], usize);

impl Read for Pieces<'_> {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        let n = self.1.min(out.len());
        self.0.read(&mut out[..n])
    }
}

#[test]
fn a_record_in_pieces_is_judged_as_one_that_lies_whole() {
    let good = {
        let mut builder = BatchBuilder::new(Compression::None);
        builder.push(70, Some(b"key"), Some(b"value"), &[(b"h", None), (b"i", Some(b"x"))]);
        builder.push(75, None, None, &[]);
        builder.build()
    };
    let header = BatchHeader::parse(&good).unwrap();
    let mut bodies = vec![good[HEADER_LEN..].to_vec()];
    for at in HEADER_LEN..good.len() {
        for byte in [0, 1, 3, 0x7f, 0x80] {
            let mut bad = good[HEADER_LEN..].to_vec();
            bad[at - HEADER_LEN] = byte;
            bodies.push(bad);
        }
    }
    for body in bodies {
        let whole = Walk::new(&body[..], &mut || {}).records(&header, 1000, &mut Next::new(&header, 1000));
        for size in [1, 2, 3] {
            let from = BufReader::with_capacity(size, Pieces(&body, size));
            let pieces = Walk::new(from, &mut || {}).records(&header, 1000, &mut Next::new(&header, 1000));
            assert_eq!(pieces.is_ok(), whole.is_ok(), "{body:?}: {pieces:?}, {whole:?}");
            if let (Ok(pieces), Ok(whole)) = (pieces, whole.clone()) {
                assert_eq!(pieces, whole);
            }
        }
    }
}

#[test]
fn a_long_walk_pauses() {
    for codec in Compression::ALL {
        let mut pauses = 0;
        check_records(&batch(codec, 9_000), LIMIT, &mut || pauses += 1).unwrap();
        assert!((3..10).contains(&pauses), "{codec}: {pauses}");
    }
}

#[test]
fn a_record_of_many_headers_or_a_long_value_pauses_within() {
    let headers: Vec<(&[u8], Option<&[u8]>)> = vec![(b"", None); 500_000];
    let value = vec![7; 1 << 20];
    for codec in Compression::ALL {
        for (value, headers) in [(None, &headers[..]), (Some(&value[..]), &headers[..0])] {
            let mut builder = BatchBuilder::new(codec);
            builder.push(1, None, value, headers);
            let mut pauses = 0;
            let summary = check_records(&builder.build(), 2 * LIMIT, &mut || pauses += 1).unwrap();
            assert!(summary.bytes >= 1_000_000);
            // A long value that lies in memory is stepped over at once.
            let least = if headers.is_empty() { 1 } else { 3 };
            assert!((least..10).contains(&pauses), "{codec}, {} headers: {pauses}", headers.len());
        }
    }
}

/// A batch of that codec with so many records, in these bytes.
fn packed_in(codec: Compression, records: usize, body: &[u8]) -> Vec<u8> {
    let mut bytes = [&batch(codec, records)[..HEADER_LEN], body].concat();
    let len = (bytes.len() - 12) as i32;
    bytes[8..12].copy_from_slice(&len.to_be_bytes());
    bytes
}

#[test]
fn frames_of_nothing_pause_as_well() {
    let mut nothing = Vec::new();
    Compression::Zstd.compress(b"", &mut nothing);
    let mut body = nothing.repeat((1 << 20) / nothing.len());
    body.extend_from_slice(&batch(Compression::Zstd, 1)[HEADER_LEN..]);
    let mut pauses = 0;
    check_records(&packed_in(Compression::Zstd, 1, &body), LIMIT, &mut || pauses += 1).unwrap();
    assert!(pauses >= 60, "{pauses}");
}

#[test]
fn what_some_clients_read_only_the_first_frame_of_is_refused() {
    let plain = batch(Compression::None, 20);
    let (first, last) = plain[HEADER_LEN..].split_at(700);
    for codec in Compression::ALL.into_iter().filter(|codec| *codec != Compression::None) {
        let (mut whole, mut two, mut empty) = (Vec::new(), Vec::new(), Vec::new());
        codec.compress(&plain[HEADER_LEN..], &mut whole);
        codec.compress(first, &mut two);
        codec.compress(last, &mut two);
        codec.compress(b"", &mut empty);
        let is_good = |body: &[u8]| check(&packed_in(codec, 20, body), LIMIT).is_ok();
        // Zstandard's frames may be many.
        let many = codec == Compression::Zstd;
        assert!(is_good(&whole), "{codec}");
        assert_eq!(is_good(&two), many, "{codec}");
        assert_eq!(is_good(&[&whole[..], &empty].concat()), many, "{codec}");
        assert!(!is_good(&[&whole[..], b"x"].concat()), "{codec}");
    }
}

#[test]
fn deflated_bytes_may_not_refer_to_what_is_before_them() {
    let record = [18, 0, 0, 0, 1, 6, 0, 0, 0, 0];
    let mut whole = Vec::new();
    Compression::Gzip.compress(&record, &mut whole);
    let deflated = |distance: u32| {
        let (mut bits, code) = (vec![true, true, false], |code: u32, len: u32| {
            (0..len).rev().map(move |bit| code >> bit & 1 > 0).collect::<Vec<_>>()
        });
        record[..7].iter().for_each(|byte| bits.extend(code(0x30 + u32::from(*byte), 8)));
        // Three bytes less one that stands there, at one of two distances, and the end.
        bits.extend(code(1, 7));
        bits.extend(code(if distance == 1 { 0 } else { 9 }, 5));
        bits.extend(vec![true; if distance == 1 { 0 } else { 3 }]);
        bits.extend(code(0, 7));
        let bytes = bits.chunks(8).map(|b| b.iter().rev().fold(0, |byte, bit| byte << 1 | u8::from(*bit)));
        let tail = &whole[whole.len() - 8..];
        [&whole[..10], &bytes.collect::<Vec<_>>(), tail].concat()
    };
    assert_eq!(check(&packed_in(Compression::Gzip, 1, &deflated(1)), LIMIT), Ok(()));
    let before = check(&packed_in(Compression::Gzip, 1, &deflated(32)), LIMIT);
    assert_eq!(before, Err(BatchError::Decompress(Compression::Gzip)));
}

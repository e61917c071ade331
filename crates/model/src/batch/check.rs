//! Walking a batch's records without holding them.

use std::io::{BufRead, BufReader, Cursor, Read};

use super::header::whole;
use super::records::take_record;
use super::{BatchError, BatchHeader, Compression, HEADER_LEN, RecordView};
use crate::Offset;

/// The fewest bytes of a record behind its length: attributes, times, offset, no key, no value, no headers.
const LEAST: u64 = 6;
/// What is decompressed at a time, in bytes.
const STEP: usize = 16 << 10;
/// Bytes between two calls of `pause`.
const PAUSE: u64 = 256 << 10;
/// Zstandard frames may ask for a window of so many bytes, as a power of two: what its library takes if nothing is said.
const WINDOW_LOG: u32 = 27;

/// What a batch's records have together; times in milliseconds since the epoch, -1 where no record has one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordSummary {
    /// The smallest time that is not negative.
    pub oldest: i64,
    /// The largest time.
    pub newest: i64,
    /// Bytes of the records, decompressed.
    pub bytes: u64,
}

impl RecordSummary {
    const NONE: Self = Self { oldest: -1, newest: -1, bytes: 0 };

    fn add(&mut self, time: i64) {
        if time >= 0 && (self.oldest < 0 || time < self.oldest) {
            self.oldest = time;
        }
        self.newest = self.newest.max(time);
    }
}

/// Checks that the batch at the front of `bytes` holds as many records as its header says, whole and well formed, at the offsets 0, 1, 2
/// … and nothing behind them, decompressing no more than `limit` bytes and only a little at a time. `pause` is called now and then, for
/// the thread to be lent to others.
///
/// # Errors
/// What [`BatchHeader::parse`] refuses, a cut batch, records that do not decompress or exceed `limit`, another number of records, a
/// malformed one.
pub fn check_records(
    bytes: &[u8],
    limit: usize,
    pause: &mut dyn FnMut(),
) -> Result<RecordSummary, BatchError> {
    let mut header = BatchHeader::parse(bytes)?;
    // The records' own times are looked at, whoever is said to have stamped the batch.
    header.set_create_time();
    let body = &whole(bytes, &header)?[HEADER_LEN..];
    let codec = header.compression()?;
    let (count, limit) = (header.count as u64, limit as u64);
    if count * (LEAST + 1) > limit {
        return Err(BatchError::Field { field: "record count", value: header.count.into() });
    }
    if codec == Compression::None {
        if body.len() as u64 > limit {
            return Err(BatchError::TooLarge { limit: limit as usize });
        }
        return Walk { from: body, taken: 0 }.records(&header, limit, pause);
    }
    let from = reader(codec, body, limit as usize)?.take(limit + 1);
    let from = BufReader::with_capacity(STEP, from);
    Walk { from, taken: 0 }.records(&header, limit, pause)
}

/// What is compressed, piece by piece. Snappy's blocks are small, or at most twenty-two times their bytes.
fn reader(codec: Compression, body: &[u8], limit: usize) -> Result<Box<dyn Read + '_>, BatchError> {
    Ok(match codec {
        // Nothing at all is no records in any codec.
        _ if body.is_empty() => Box::new(body),
        Compression::None => Box::new(body),
        Compression::Gzip => Box::new(flate2::read::MultiGzDecoder::new(body)),
        Compression::Snappy => Box::new(Cursor::new(codec.decompress(body, limit)?)),
        Compression::Lz4 => Box::new(lz4_flex::frame::FrameDecoder::new(body)),
        Compression::Zstd => {
            let mut decoder =
                zstd::stream::read::Decoder::with_buffer(body).map_err(|_| BatchError::Decompress(codec))?;
            decoder.window_log_max(WINDOW_LOG).map_err(|_| BatchError::Decompress(codec))?;
            Box::new(decoder)
        }
    })
}

enum Problem {
    What(&'static str),
    TooLarge,
    Decompress,
}

struct Walk<R> {
    from: R,
    /// Bytes taken so far.
    taken: u64,
}

impl<R: BufRead> Walk<R> {
    fn records(
        mut self,
        header: &BatchHeader,
        limit: u64,
        pause: &mut dyn FnMut(),
    ) -> Result<RecordSummary, BatchError> {
        let (count, mut paused) = (header.count as u64, 0);
        let mut times = RecordSummary::NONE;
        for index in 0..header.count as u32 {
            // Those that are left take their least.
            let end = limit.saturating_sub((count - u64::from(index) - 1) * (LEAST + 1));
            let time = self.record(header, index, end).map_err(|problem| match problem {
                Problem::What(what) => BatchError::Record { index, what },
                Problem::TooLarge => BatchError::TooLarge { limit: limit as usize },
                Problem::Decompress => BatchError::Decompress(header.compression().unwrap_or_default()),
            })?;
            times.add(time);
            if self.taken - paused >= PAUSE {
                paused = self.taken;
                pause();
            }
        }
        match self.from.fill_buf() {
            Ok([]) => Ok(RecordSummary { bytes: self.taken, ..times }),
            Ok(_) => Err(BatchError::Record {
                index: header.count as u32,
                what: "bytes are left behind the last one",
            }),
            Err(_) => Err(BatchError::Decompress(header.compression()?)),
        }
    }

    /// Takes a record that must end before `end`; gives its time.
    fn record(&mut self, header: &BatchHeader, index: u32, end: u64) -> Result<i64, Problem> {
        let len = self.length()?;
        if len < LEAST {
            return Err(Problem::What("it is too short"));
        }
        if self.taken + len > end {
            return Err(Problem::TooLarge);
        }
        let buffer = self.from.fill_buf().map_err(|_| Problem::Decompress)?;
        let Some(record) = buffer.get(..len as usize) else { return self.in_pieces(header, index, len) };
        let time = check_record(record, header, index).map_err(Problem::What);
        self.from.consume(len as usize);
        self.taken += len;
        time
    }

    /// The same of a record that does not lie in the buffer whole: only its lengths are held.
    fn in_pieces(&mut self, header: &BatchHeader, index: u32, len: u64) -> Result<i64, Problem> {
        let end = self.taken + len;
        self.skip(1, end)?;
        let time = self.varint(end)?;
        if self.varint(end)? != i64::from(index) {
            return Err(Problem::What(OFFSET));
        }
        self.nullable(end)?;
        self.nullable(end)?;
        let headers = self.varint(end)?;
        if headers < 0 {
            return Err(Problem::What("its number of headers is negative"));
        }
        for _ in 0..headers {
            if !self.nullable(end)? {
                return Err(Problem::What("a header has no key"));
            }
            self.nullable(end)?;
        }
        let time = header.base_timestamp.saturating_add(time);
        if self.taken == end { Ok(time) } else { Err(Problem::What(BEHIND)) }
    }

    /// Steps over a field; false for one that is not there.
    fn nullable(&mut self, end: u64) -> Result<bool, Problem> {
        match self.varint(end)? {
            -1 => Ok(false),
            len if len < -1 => Err(Problem::What("a length in it is negative")),
            len => self.skip(len as u64, end).map(|()| true),
        }
    }

    fn varint(&mut self, end: u64) -> Result<i64, Problem> {
        let mut value = 0u64;
        for shift in (0..70).step_by(7) {
            if self.taken == end {
                return Err(Problem::What(CUT));
            }
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok((value >> 1) as i64 ^ -((value & 1) as i64));
            }
        }
        Err(Problem::What("a number in it is too long"))
    }

    fn skip(&mut self, mut len: u64, end: u64) -> Result<(), Problem> {
        if len > end - self.taken {
            return Err(Problem::What(CUT));
        }
        while len > 0 {
            let have = self.from.fill_buf().map_err(|_| Problem::Decompress)?.len();
            if have == 0 {
                return Err(Problem::What("it is longer than what is left"));
            }
            let step = len.min(have as u64);
            self.from.consume(step as usize);
            self.taken += step;
            len -= step;
        }
        Ok(())
    }

    /// A zigzag varint that is not negative.
    fn length(&mut self) -> Result<u64, Problem> {
        let mut value = 0u64;
        for shift in [0, 7, 14, 21, 28] {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                let zigzag = value & 1 == 0 && value <= u64::from(u32::MAX);
                return if zigzag { Ok(value >> 1) } else { Err(Problem::What(LENGTH)) };
            }
        }
        Err(Problem::What(LENGTH))
    }

    fn byte(&mut self) -> Result<u8, Problem> {
        let buffer = self.from.fill_buf().map_err(|_| Problem::Decompress)?;
        let byte = *buffer.first().ok_or(Problem::What(LENGTH))?;
        self.from.consume(1);
        self.taken += 1;
        Ok(byte)
    }
}

/// Checks the bytes of a record, and gives its time.
fn check_record(mut record: &[u8], header: &BatchHeader, index: u32) -> Result<i64, &'static str> {
    let RecordView { offset, timestamp, .. } = take_record(&mut record, header)?;
    if offset != Offset(header.base_offset.0.saturating_add(index.into())) {
        return Err(OFFSET);
    }
    if record.is_empty() { Ok(timestamp) } else { Err(BEHIND) }
}

const OFFSET: &str = "its offset is not the next one";
const BEHIND: &str = "bytes are left behind its headers";
const CUT: &str = "a field is longer than what is left of it";
const LENGTH: &str = "its length is cut or too long";

#[cfg(test)]
mod tests {
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
            let whole = Walk { from: &body[..], taken: 0 }.records(&header, 1000, &mut || {});
            for size in [1, 2, 3] {
                let from = BufReader::with_capacity(size, Pieces(&body, size));
                let pieces = Walk { from, taken: 0 }.records(&header, 1000, &mut || {});
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
            assert_eq!(pauses, 3, "{codec}");
        }
    }
}

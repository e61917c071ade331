//! Counting a batch's records without holding them.

use std::io::{BufRead, BufReader, Cursor, Read};

use super::header::whole;
use super::{BatchError, BatchHeader, Compression, HEADER_LEN};

/// The fewest bytes of a record behind its length: attributes, times, offset, no key, no value, no headers.
const LEAST: u64 = 6;
/// What is decompressed at a time, in bytes.
const STEP: usize = 16 << 10;
/// Zstandard frames may ask for a window of so many bytes, as a power of two: what its library takes if nothing is said.
const WINDOW_LOG: u32 = 27;

/// Checks that the batch at the front of `bytes` has room for as many records as its header says, one behind the other and
/// none after the last, decompressing no more than `limit` bytes and only a little at a time. What is in the records is not looked at.
///
/// # Errors
/// What [`BatchHeader::parse`] refuses, a cut batch, records that do not decompress or exceed `limit`, another number of records.
pub fn check_count(bytes: &[u8], limit: usize) -> Result<(), BatchError> {
    let header = BatchHeader::parse(bytes)?;
    let body = &whole(bytes, &header)?[HEADER_LEN..];
    let codec = header.compression()?;
    let (count, limit) = (header.count as u64, limit as u64);
    if count * (LEAST + 1) > limit {
        return Err(BatchError::Field { field: "record count", value: header.count.into() });
    }
    let from = reader(codec, body, limit as usize)?.take(limit + 1);
    let mut walk = Walk { from: BufReader::with_capacity(STEP, from), taken: 0 };
    for index in 0..header.count as u32 {
        let left = count - u64::from(index) - 1;
        let skipped = walk.record(limit.saturating_sub(left * (LEAST + 1)));
        skipped.map_err(|problem| match problem {
            Problem::What(what) => BatchError::Record { index, what },
            Problem::TooLarge => BatchError::TooLarge { limit: limit as usize },
            Problem::Decompress => BatchError::Decompress(codec),
        })?;
    }
    match walk.from.fill_buf() {
        Ok([]) => Ok(()),
        Ok(_) => {
            Err(BatchError::Record { index: header.count as u32, what: "bytes are left behind the last one" })
        }
        Err(_) => Err(BatchError::Decompress(codec)),
    }
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
    from: BufReader<R>,
    /// Bytes taken so far.
    taken: u64,
}

impl<R: Read> Walk<R> {
    /// Steps over a record that must end before `end`.
    fn record(&mut self, end: u64) -> Result<(), Problem> {
        let len = self.length()?;
        if len < LEAST {
            return Err(Problem::What("it is too short"));
        }
        if self.taken + len > end {
            return Err(Problem::TooLarge);
        }
        self.skip(len)
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
        let byte = *self.buffer()?.first().ok_or(Problem::What(LENGTH))?;
        self.take(1);
        Ok(byte)
    }

    fn skip(&mut self, mut len: u64) -> Result<(), Problem> {
        while len > 0 {
            let have = self.buffer()?.len();
            if have == 0 {
                return Err(Problem::What("it is longer than what is left"));
            }
            let step = len.min(have as u64);
            self.take(step as usize);
            len -= step;
        }
        Ok(())
    }

    fn buffer(&mut self) -> Result<&[u8], Problem> {
        self.from.fill_buf().map_err(|_| Problem::Decompress)
    }

    fn take(&mut self, len: usize) {
        self.from.consume(len);
        self.taken += len as u64;
    }
}

const LENGTH: &str = "its length is cut or too long";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{BatchBuilder, Compression};

    const LIMIT: usize = 1 << 20;

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
                assert_eq!(check_count(&bytes, LIMIT), Ok(()), "{codec}, {records}");
                for wrong in [records as i32 + 1, 5000] {
                    claim(&mut bytes, wrong);
                    assert!(matches!(check_count(&bytes, LIMIT), Err(BatchError::Record { .. })), "{codec}");
                }
                if records > 1 {
                    claim(&mut bytes, records as i32 - 1);
                    let what = "bytes are left behind the last one";
                    let index = records as u32 - 1;
                    assert_eq!(check_count(&bytes, LIMIT), Err(BatchError::Record { index, what }));
                }
            }
        }
    }

    #[test]
    fn nothing_is_no_records_and_no_more() {
        for codec in Compression::ALL {
            let mut bytes = batch(codec, 1)[..HEADER_LEN].to_vec();
            bytes[8..12].copy_from_slice(&(HEADER_LEN as i32 - 12).to_be_bytes());
            assert!(
                matches!(check_count(&bytes, LIMIT), Err(BatchError::Record { index: 0, .. })),
                "{codec}"
            );
            claim(&mut bytes, 0);
            bytes[23..27].copy_from_slice(&0i32.to_be_bytes());
            assert_eq!(check_count(&bytes, LIMIT), Ok(()), "{codec}");
        }
    }

    #[test]
    fn more_than_the_limit_is_refused_before_it_is_read() {
        for codec in Compression::ALL {
            let mut bytes = batch(codec, 700);
            assert_eq!(check_count(&bytes, 10_000), Err(BatchError::TooLarge { limit: 10_000 }), "{codec}");
            claim(&mut bytes, 200_000_000);
            let field = BatchError::Field { field: "record count", value: 200_000_000 };
            assert_eq!(check_count(&bytes, LIMIT), Err(field), "{codec}");
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
            assert_eq!(check_count(&bytes, LIMIT), expected, "{log}");
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
                assert!(check_count(&bytes, LIMIT).is_err(), "{codec}, {cut} bytes less");
            }
        }
    }
}

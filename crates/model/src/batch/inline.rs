//! How much of a request's batches is looked at on a thread that others wait for.

use super::check::CONTEXT_KEPT;
use super::{BatchHeader, Compression, HEADER_LEN};

/// Header and checksum.
const HEADER: usize = 32;
/// A record that is not compressed.
const RECORD: usize = 2;
/// How many bytes of what is not compressed count as one: it is passed over, but for headers, of which some bytes may have one each.
const PASSED: usize = 8;
/// The fewest bytes of a record.
const LEAST_RECORD: usize = 7;
/// A decoder set up or taken up again, and the memory that it touches.
const DECODER: usize = 512;
/// The same for an encoder, whose tables are larger.
const ENCODER: usize = 4096;
/// A byte that is decompressed and copied.
const COPIED: usize = 2;
/// A byte that is compressed, and one at a level that takes much longer than its codec's default: Zstandard's highest takes some two microseconds.
const COMPRESSED: usize = 8;
const DEAR: usize = 256;

/// What is left, for one request, of the work that is done on a thread that others wait for. The unit takes some eight nanoseconds: to
/// decompress a byte, or half of what a record takes that is not compressed.
#[derive(Debug, Clone, Copy)]
pub struct InlineBudget(pub usize);

impl Default for InlineBudget {
    fn default() -> Self {
        Self(256 << 10)
    }
}

impl InlineBudget {
    /// Whether there is as much left.
    pub(super) fn covers(&self, work: usize) -> bool {
        work <= self.0
    }

    /// Takes it, or all that is left.
    pub(super) fn spend(&mut self, work: usize) {
        self.0 = self.0.saturating_sub(work);
    }

    /// How many bytes may be decompressed of a batch.
    pub(super) fn limit(&self) -> usize {
        self.0.saturating_sub(HEADER + DECODER)
    }
}

/// What it takes at least to look at a batch's records.
pub(super) fn least(batch: &[u8], header: &BatchHeader) -> usize {
    let count = header.count as usize;
    match header.compression() {
        Err(_) | Ok(Compression::None) => HEADER + count * RECORD + batch.len() / PASSED,
        Ok(Compression::Zstd) if zstd_window(&batch[HEADER_LEN..]) > CONTEXT_KEPT as u64 => usize::MAX,
        Ok(codec) => decompressed(codec, batch, (count * LEAST_RECORD) as u64),
    }
}

/// What it takes to look at the records of a compressed batch, of which so many bytes come out.
pub(super) fn decompressed(codec: Compression, batch: &[u8], bytes: u64) -> usize {
    // Blocks and frames of next to nothing have tables and checksums of their own.
    let least = match codec {
        Compression::Gzip | Compression::Zstd => 4 * batch.len(),
        _ => 2 * batch.len(),
    };
    HEADER + DECODER + least.max(bytes as usize)
}

/// What it takes to compress so many bytes.
pub(super) fn recompressed(bytes: u64) -> usize {
    ENCODER + COMPRESSED * bytes as usize
}

/// What each byte takes that is to be given a codec, at a level.
pub(super) fn by_byte(codec: Compression, level: Option<i32>) -> usize {
    match codec {
        Compression::None => COPIED,
        _ if is_dear(codec, level) => DEAR,
        _ => COMPRESSED,
    }
}

/// The highest level that does not take much longer than its codec's default, of the codecs that have levels.
fn highest_cheap(codec: Compression) -> Option<i32> {
    match codec {
        Compression::Gzip => Some(6),
        Compression::Zstd => Some(3),
        _ => None,
    }
}

/// Whether a level takes much longer than its codec's default.
pub(super) fn is_dear(codec: Compression, level: Option<i32>) -> bool {
    level.zip(highest_cheap(codec)).is_some_and(|(level, highest)| level > highest)
}

/// The level, or the highest below it that is not dear.
pub(super) fn cheap_level(codec: Compression, level: Option<i32>) -> Option<i32> {
    level.zip(highest_cheap(codec)).map(|(level, highest)| level.min(highest))
}

const ZSTD_MAGIC: [u8; 4] = 0xFD2F_B528u32.to_le_bytes();

/// The window that the first Zstandard frame asks for, in bytes; none if it lies in one piece, or is none.
fn zstd_window(input: &[u8]) -> u64 {
    const ONE_PIECE: u8 = 1 << 5;
    match input {
        [a, b, c, d, descriptor, window, ..]
            if [*a, *b, *c, *d] == ZSTD_MAGIC && descriptor & ONE_PIECE == 0 =>
        {
            let base = 1 << (10 + (window >> 3));
            base + base / 8 * u64::from(window & 7)
        }
        _ => 0,
    }
}

/// What the first Zstandard frame takes to be decompressed a piece at a time: its window, or all of it if it lies in one piece.
pub(super) fn zstd_memory(input: &[u8]) -> u64 {
    let content = || {
        let descriptor = usize::from(*input.get(4)?);
        // A dictionary's number is behind the descriptor, and the size of the content behind that, in a form that the two say.
        let at = 5 + [0, 1, 2, 4][descriptor & 3];
        let len = [1, 2, 4, 8][descriptor >> 6];
        let mut size = [0; 8];
        size[..len].copy_from_slice(input.get(at..at + len)?);
        Some(u64::from_le_bytes(size))
    };
    match zstd_window(input) {
        0 if input.starts_with(&ZSTD_MAGIC) => content().unwrap_or(0),
        window => window,
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::batch::{BatchBuilder, check_records};

    fn batch(codec: Compression, records: usize) -> (Vec<u8>, BatchHeader) {
        let mut builder = BatchBuilder::new(codec);
        (0..records).for_each(|_| builder.push(0, None, Some(b"value"), &[]));
        let bytes = builder.build().to_vec();
        let header = BatchHeader::parse(&bytes).unwrap();
        (bytes, header)
    }

    #[test]
    fn every_compressed_batch_takes_its_decoder() {
        for codec in Compression::ALL {
            let (bytes, header) = batch(codec, 1);
            let fixed = if codec == Compression::None { HEADER } else { HEADER + DECODER };
            assert!(least(&bytes, &header) > fixed, "{codec}");
            let most = InlineBudget::default().0 / least(&bytes, &header);
            assert!(if codec == Compression::None { most > 4000 } else { most < 512 }, "{codec}: {most}");
        }
    }

    #[test]
    fn a_batch_of_one_record_with_very_many_headers_is_for_workers() {
        let mut builder = BatchBuilder::new(Compression::None);
        builder.push(0, None, None, &vec![(b"" as &[u8], None); 2 << 20]);
        let bytes = builder.build();
        let header = BatchHeader::parse(&bytes).unwrap();
        assert!(!InlineBudget::default().covers(least(&bytes, &header)));
    }

    #[test]
    fn a_batch_takes_what_comes_out_of_it_or_goes_into_it() {
        for codec in Compression::ALL.into_iter().filter(|codec| *codec != Compression::None) {
            let (bytes, header) = batch(codec, 10_000);
            let found = check_records(&bytes, 1 << 20, &mut || {}).unwrap();
            assert_eq!(decompressed(codec, &bytes, found.bytes), HEADER + DECODER + found.bytes as usize);
            assert!(least(&bytes, &header) >= 10_000 * LEAST_RECORD, "{codec}");
            let noise = vec![0; 100_000];
            assert!(least(&[&bytes[..], &noise].concat(), &header) >= 2 * noise.len(), "{codec}");
        }
    }

    #[test]
    fn a_large_window_is_for_workers() {
        let (plain, mut header) = batch(Compression::None, 10);
        header.attributes |= Compression::Zstd as i16;
        for (log, small) in [(10, true), (21, true), (22, false), (27, false)] {
            let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
            encoder.window_log(log).unwrap();
            encoder.write_all(&plain[HEADER_LEN..]).unwrap();
            let frame = encoder.finish().unwrap();
            assert_eq!(zstd_window(&frame), 1 << log);
            let bytes = [&plain[..HEADER_LEN], &frame].concat();
            assert_eq!(InlineBudget::default().covers(least(&bytes, &header)), small, "{log}");
            assert_eq!(zstd_memory(&frame), 1 << log);
        }
        for len in [10, 200, 300, 70_000, 3 << 20] {
            let mut frame = zstd::bulk::compress(&vec![7; len], 19).unwrap();
            assert_eq!(
                (zstd_window(&frame), zstd_memory(&frame)),
                (0, len as u64 - u64::from(len > 255 && len < 65_792) * 256)
            );
            frame.truncate(5);
            assert_eq!(zstd_memory(&frame), 0);
        }
        let (one_piece, header) = batch(Compression::Zstd, 10);
        assert!(InlineBudget::default().covers(least(&one_piece, &header)));
    }
}

//! The four codecs of record batches, each bounded: no output grows past the caller's limit, and none is reserved on the word
//! of the compressed bytes.

use std::borrow::Cow;
use std::fmt;
use std::io::{Read, Write};

use super::BatchError;
use super::lz4::Lz4Reader;

/// How a batch's records are compressed. The discriminant is the number in the attributes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[repr(u8)]
pub enum Compression {
    /// Not at all.
    #[default]
    None = 0,
    /// gzip, RFC 1952.
    Gzip = 1,
    /// Snappy, raw or in the framing of the Java library ("xerial").
    Snappy = 2,
    /// LZ4 frames.
    Lz4 = 3,
    /// Zstandard frames.
    Zstd = 4,
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Snappy => "snappy",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        })
    }
}

impl Compression {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::None, Self::Gzip, Self::Snappy, Self::Lz4, Self::Zstd];

    pub(super) fn from_attributes(attributes: i16) -> Result<Self, BatchError> {
        let codec = (attributes & 7) as u8;
        Self::ALL.get(usize::from(codec)).copied().ok_or(BatchError::Codec(codec))
    }

    /// Decompresses `input` to at most `limit` bytes; without a codec the bytes are borrowed.
    ///
    /// # Errors
    /// Bytes that are not this codec's, or more than `limit` when decompressed.
    pub fn decompress<'a>(self, input: &'a [u8], limit: usize) -> Result<Cow<'a, [u8]>, BatchError> {
        match self {
            Self::None if input.len() > limit => Err(BatchError::TooLarge { limit }),
            Self::None => Ok(Cow::Borrowed(input)),
            Self::Gzip => read_bounded(self, flate2::read::MultiGzDecoder::new(input), limit).map(Cow::Owned),
            Self::Snappy => snappy(input, limit).map(Cow::Owned),
            Self::Lz4 => read_bounded(self, Lz4Reader::new(input), limit).map(Cow::Owned),
            Self::Zstd => zstd(input, limit).map(Cow::Owned),
        }
    }

    /// Compresses `input`, appending to `out`. Snappy is framed as the Java library frames it; LZ4 blocks are independent,
    /// as the Java client wants them.
    pub fn compress(self, input: &[u8], out: &mut Vec<u8>) {
        self.compress_at(None, input, out, &mut || {});
    }

    /// As [`compress`](Self::compress), at a level where the codec has levels: gzip 0 to 9, zstd as its library numbers them. A
    /// level beyond these is taken for the nearest. `pause` is called after every 64 KiB.
    pub fn compress_at(self, level: Option<i32>, input: &[u8], out: &mut Vec<u8>, pause: &mut dyn FnMut()) {
        match self {
            Self::None => out.extend_from_slice(input),
            Self::Gzip => gzip(level, input, out, pause),
            Self::Snappy => xerial(input, out, pause),
            Self::Lz4 => lz4(input, out, pause),
            Self::Zstd => zstd_frame(level, input, out, pause),
        }
    }
}

impl Compression {
    /// The most memory that an encoder has for itself while it compresses so many bytes at a level.
    pub(super) fn encoder_memory(self, level: Option<i32>, len: usize) -> usize {
        match (self, level) {
            (Self::Zstd, Some(level)) if level > zstd::DEFAULT_COMPRESSION_LEVEL => {
                ENCODER + ZSTD_TABLES * len.next_power_of_two().min(1 << WINDOW_LOG)
            }
            _ => ENCODER,
        }
    }
}

/// What encoders have whatever they compress, at the levels that are taken where none is said all that they have.
const ENCODER: usize = 1 << 20;
/// The tables of Zstandard's higher levels, in windows.
const ZSTD_TABLES: usize = 16;
/// What is compressed between two pauses, in bytes.
const PIECE: usize = 64 << 10;
/// The largest window of a Zstandard frame that is written, as a power of two: so its highest level takes some 80 MiB and not 800.
const WINDOW_LOG: u32 = 22;

/// Writes `input` to an encoder over a vector, which takes every write.
fn write_in_pieces(mut encoder: impl Write, input: &[u8], pause: &mut dyn FnMut()) {
    for piece in input.chunks(PIECE) {
        encoder.write_all(piece).expect("a Vec takes every write");
        pause();
    }
}

/// Reads `from` to its end, growing with what has come, never past `limit`.
fn read_bounded(codec: Compression, from: impl Read, limit: usize) -> Result<Vec<u8>, BatchError> {
    let mut out = Vec::new();
    from.take(limit as u64 + 1).read_to_end(&mut out).map_err(|_| BatchError::Decompress(codec))?;
    if out.len() > limit { Err(BatchError::TooLarge { limit }) } else { Ok(out) }
}

const XERIAL_MAGIC: &[u8; 8] = b"\x82SNAPPY\0";
/// Magic, version, lowest compatible version.
const XERIAL_HEADER: usize = 16;
const XERIAL_BLOCK: usize = 32 << 10;
/// Three bytes of snappy can copy 64: no honest block grows by more.
const SNAPPY_GROWTH: usize = 22;

fn snappy(input: &[u8], limit: usize) -> Result<Vec<u8>, BatchError> {
    let mut out = Vec::new();
    if !input.starts_with(XERIAL_MAGIC) {
        snappy_block(input, &mut out, limit)?;
        return Ok(out);
    }
    let mut rest = input.get(XERIAL_HEADER..).ok_or(BatchError::Decompress(Compression::Snappy))?;
    while !rest.is_empty() {
        let (block, behind) = xerial_block(rest).ok_or(BatchError::Decompress(Compression::Snappy))?;
        snappy_block(block, &mut out, limit)?;
        rest = behind;
    }
    Ok(out)
}

fn xerial_block(rest: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, rest) = rest.split_first_chunk::<4>()?;
    rest.split_at_checked(usize::try_from(i32::from_be_bytes(*len)).ok()?)
}

fn snappy_block(block: &[u8], out: &mut Vec<u8>, limit: usize) -> Result<(), BatchError> {
    let bad = || BatchError::Decompress(Compression::Snappy);
    let len = snap::raw::decompress_len(block).map_err(|_| bad())?;
    if len > block.len().saturating_mul(SNAPPY_GROWTH) {
        return Err(bad());
    }
    let start = out.len();
    if len > limit - start {
        return Err(BatchError::TooLarge { limit });
    }
    out.resize(start + len, 0);
    let written = snap::raw::Decoder::new().decompress(block, &mut out[start..]).map_err(|_| bad())?;
    out.truncate(start + written);
    Ok(())
}

fn xerial(input: &[u8], out: &mut Vec<u8>, pause: &mut dyn FnMut()) {
    out.extend_from_slice(XERIAL_MAGIC);
    out.extend_from_slice(&1i32.to_be_bytes());
    out.extend_from_slice(&1i32.to_be_bytes());
    let mut encoder = snap::raw::Encoder::new();
    for block in input.chunks(XERIAL_BLOCK) {
        let at = out.len();
        out.resize(at + 4 + snap::raw::max_compress_len(block.len()), 0);
        let len = encoder
            .compress(block, &mut out[at + 4..])
            .expect("a block of 32 KiB fits the room that the library asks for");
        out[at..at + 4].copy_from_slice(&(len as i32).to_be_bytes());
        out.truncate(at + 4 + len);
        pause();
    }
}

fn gzip(level: Option<i32>, input: &[u8], out: &mut Vec<u8>, pause: &mut dyn FnMut()) {
    let level = level
        .map_or(flate2::Compression::default(), |level| flate2::Compression::new(level.clamp(0, 9) as u32));
    let mut encoder = flate2::write::GzEncoder::new(out, level);
    write_in_pieces(&mut encoder, input, pause);
    encoder.finish().expect("a Vec takes every write");
}

fn lz4(input: &[u8], out: &mut Vec<u8>, pause: &mut dyn FnMut()) {
    let info = lz4_flex::frame::FrameInfo::new()
        .block_mode(lz4_flex::frame::BlockMode::Independent)
        .block_size(lz4_flex::frame::BlockSize::Max64KB);
    let mut encoder = lz4_flex::frame::FrameEncoder::with_frame_info(info, out);
    write_in_pieces(&mut encoder, input, pause);
    encoder.finish().expect("a Vec takes every write");
}

/// One shot needs no window, whatever the frame asks for; the output starts small and grows while the frame shows that it
/// needs more.
fn zstd(input: &[u8], limit: usize) -> Result<Vec<u8>, BatchError> {
    let mut decompressor =
        zstd::bulk::Decompressor::new().map_err(|_| BatchError::Decompress(Compression::Zstd))?;
    let mut room = input.len().saturating_mul(4).max(4 << 10).min(limit);
    loop {
        let mut out = Vec::with_capacity(room);
        match decompressor.decompress_to_buffer(input, &mut out) {
            Ok(_) => return Ok(out),
            Err(error) if !is_short(&error) => return Err(BatchError::Decompress(Compression::Zstd)),
            Err(_) if room >= limit => return Err(BatchError::TooLarge { limit }),
            Err(_) => room = room.saturating_mul(4).min(limit),
        }
    }
}

/// The library gives its error codes as their names only.
fn is_short(error: &std::io::Error) -> bool {
    error.to_string().contains("Destination buffer is too small")
}

fn zstd_frame(level: Option<i32>, input: &[u8], out: &mut Vec<u8>, pause: &mut dyn FnMut()) {
    let levels = zstd::compression_level_range();
    let level = level.unwrap_or(zstd::DEFAULT_COMPRESSION_LEVEL).clamp(*levels.start(), *levels.end());
    let mut encoder =
        zstd::stream::write::Encoder::new(out, level).expect("the level is one that the library has");
    // Its tables are as large as what it is told to expect calls for.
    encoder.set_pledged_src_size(Some(input.len() as u64)).expect("nothing is written yet");
    if input.len() > 1 << WINDOW_LOG {
        encoder.window_log(WINDOW_LOG).expect("a window that every decoder takes");
    }
    write_in_pieces(&mut encoder, input, pause);
    encoder.finish().expect("a Vec takes every write");
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the frame's header says it; `None` where the window is as large as the content.
    fn window_log(frame: &[u8]) -> Option<u32> {
        let single_segment = frame[4] & 0x20 != 0;
        // In the lowest bits stand eighths of it.
        (!single_segment).then(|| 10 + u32::from(frame[5] >> 3) + u32::from(frame[5] & 7 != 0))
    }

    #[test]
    fn no_level_of_zstandard_has_a_window_of_more_than_four_mebibytes() {
        let zeros = vec![0; (4 << 20) + 1];
        for level in [None, Some(i32::MIN), Some(1), Some(9), Some(19), Some(22), Some(i32::MAX)] {
            let mut frame = Vec::new();
            Compression::Zstd.compress_at(level, &zeros, &mut frame, &mut || {});
            assert_eq!(frame[..4], 0xfd2f_b528u32.to_le_bytes());
            assert!(window_log(&frame).is_some_and(|log| log <= 22), "{level:?}: {:?}", window_log(&frame));
        }
    }
}

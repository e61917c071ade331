//! The four codecs of record batches, each bounded: no output grows past the caller's limit, and none is reserved on the word
//! of the compressed bytes.

use std::borrow::Cow;
use std::fmt;
use std::io::{self, Read, Write};

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
        let effort = Effort { level, memory: usize::MAX };
        let written = self.encode(effort, input.len(), out, |encoder| {
            for piece in input.chunks(PIECE) {
                encoder.write_all(piece)?;
                pause();
            }
            Ok(())
        });
        written.expect("a Vec takes every write");
    }
}

/// How hard a codec tries, where it has levels, and within how much memory of its own: a level is done in less where that is short.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Effort {
    pub level: Option<i32>,
    pub memory: usize,
}

impl Effort {
    /// The window of a Zstandard frame, as a power of two: so its highest level takes some 80 MiB and not 800, or less where that is short.
    fn window_log(self) -> u32 {
        let tables = self.memory.saturating_sub(ENCODER) / ZSTD_TABLES;
        tables.checked_ilog2().map_or(LEAST_WINDOW_LOG, |log| log.clamp(LEAST_WINDOW_LOG, WINDOW_LOG))
    }
}

impl Compression {
    /// The most memory that an encoder has for itself while it compresses so many bytes.
    pub(super) fn encoder_memory(self, effort: Effort, len: usize) -> usize {
        let window = |most: usize| len.next_power_of_two().min(most);
        match (self, effort.level) {
            (Self::Zstd, Some(level)) if level > zstd::DEFAULT_COMPRESSION_LEVEL => {
                ENCODER + ZSTD_TABLES * window(1 << effort.window_log())
            }
            (Self::Zstd, _) => ENCODER + window(ZSTD_DEFAULT_WINDOW) * 3 / 2,
            _ => ENCODER,
        }
    }

    /// Has `feed` write `len` bytes, and appends what becomes of them to `out`.
    ///
    /// # Errors
    /// Those of `feed` and `out`.
    pub(super) fn encode(
        self,
        effort: Effort,
        len: usize,
        mut out: impl Write,
        mut feed: impl FnMut(&mut dyn Write) -> io::Result<()>,
    ) -> io::Result<()> {
        match self {
            Self::None => feed(&mut out),
            Self::Gzip => {
                // What cannot be compressed grows by a twentieth at the library's level 1, which has fixed codes alone.
                let level = |level: i32| {
                    flate2::Compression::new(if level == 1 { 2 } else { level.clamp(0, 9) as u32 })
                };
                let level = effort.level.map(level);
                let mut encoder = flate2::write::GzEncoder::new(out, level.unwrap_or_default());
                feed(&mut encoder)?;
                encoder.finish().map(drop)
            }
            Self::Snappy => {
                let mut encoder = Xerial::new(out)?;
                feed(&mut encoder)?;
                encoder.write_block()
            }
            Self::Lz4 => {
                let info = lz4_flex::frame::FrameInfo::new()
                    .block_mode(lz4_flex::frame::BlockMode::Independent)
                    .block_size(lz4_flex::frame::BlockSize::Max64KB);
                let mut encoder = lz4_flex::frame::FrameEncoder::with_frame_info(info, out);
                feed(&mut encoder)?;
                Ok(encoder.finish().map(drop)?)
            }
            Self::Zstd => {
                let mut encoder = zstd_encoder(effort, len, out)?;
                feed(&mut encoder)?;
                encoder.finish().map(drop)
            }
        }
    }
}

/// What encoders have whatever they compress, at the levels that are taken where none is said all that they have.
const ENCODER: usize = 1 << 20;
/// The tables of Zstandard's higher levels, and the window itself, in windows.
const ZSTD_TABLES: usize = 18;
/// The largest window of the other levels.
const ZSTD_DEFAULT_WINDOW: usize = 2 << 20;
/// What is compressed between two pauses, in bytes.
pub(super) const PIECE: usize = 64 << 10;
/// The largest window of a Zstandard frame that is written, as a power of two, and the largest one where memory is short.
const WINDOW_LOG: u32 = 22;
const LEAST_WINDOW_LOG: u32 = 17;

/// A vector that takes so many bytes in all, and has no room for more.
#[derive(Debug)]
pub(super) struct Bounded<'a> {
    out: &'a mut Vec<u8>,
    most: usize,
    /// Whether more was to be written.
    pub is_full: bool,
}

impl<'a> Bounded<'a> {
    pub(super) fn new(out: &'a mut Vec<u8>, most: usize) -> Self {
        Self { out, most, is_full: false }
    }
}

impl Write for Bounded<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let (len, needed) = (self.out.len(), self.out.len() + bytes.len());
        if needed > self.most {
            self.is_full = true;
            return Err(io::ErrorKind::StorageFull.into());
        }
        if needed > self.out.capacity() {
            self.out.reserve_exact(needed.max((2 * len).min(self.most)) - len);
        }
        self.out.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
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

/// Writes blocks in the framing of the Java library.
struct Xerial<W> {
    out: W,
    block: Vec<u8>,
    packed: Vec<u8>,
    encoder: snap::raw::Encoder,
}

impl<W: Write> Xerial<W> {
    fn new(mut out: W) -> io::Result<Self> {
        out.write_all(XERIAL_MAGIC)?;
        out.write_all(&[1i32.to_be_bytes(), 1i32.to_be_bytes()].concat())?;
        Ok(Self { out, block: Vec::new(), packed: Vec::new(), encoder: snap::raw::Encoder::new() })
    }

    /// Ends a block, if there is something in it.
    fn write_block(&mut self) -> io::Result<()> {
        if self.block.is_empty() {
            return Ok(());
        }
        self.packed.resize(snap::raw::max_compress_len(XERIAL_BLOCK), 0);
        let len = self.encoder.compress(&self.block, &mut self.packed).map_err(io::Error::other)?;
        self.block.clear();
        self.out.write_all(&(len as i32).to_be_bytes())?;
        self.out.write_all(&self.packed[..len])
    }
}

impl<W: Write> Write for Xerial<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let len = bytes.len().min(XERIAL_BLOCK - self.block.len());
        self.block.extend_from_slice(&bytes[..len]);
        if self.block.len() == XERIAL_BLOCK {
            self.write_block()?;
        }
        Ok(len)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
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

fn zstd_encoder<W: Write>(
    effort: Effort,
    len: usize,
    out: W,
) -> io::Result<zstd::stream::write::Encoder<'static, W>> {
    let levels = zstd::compression_level_range();
    let level = effort.level.unwrap_or(zstd::DEFAULT_COMPRESSION_LEVEL).clamp(*levels.start(), *levels.end());
    let mut encoder = zstd::stream::write::Encoder::new(out, level)?;
    // Its tables are as large as what it is told to expect calls for.
    encoder.set_pledged_src_size(Some(len as u64))?;
    let window = effort.window_log();
    if len > 1 << window {
        encoder.window_log(window)?;
    }
    Ok(encoder)
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
    fn what_cannot_be_compressed_hardly_grows_at_any_level() {
        let mut state = 1_u64;
        let mut byte = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        };
        let noise: Vec<u8> = (0..1_000_000).map(|_| byte()).collect();
        for codec in [Compression::Gzip, Compression::Zstd] {
            for level in 0..=9 {
                let mut out = Vec::new();
                codec.compress_at(Some(level), &noise, &mut out, &mut || {});
                assert!(out.len() < noise.len() + noise.len() / 500, "{codec} {level}: {}", out.len());
            }
        }
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

    #[test]
    fn a_level_is_done_in_a_smaller_window_where_memory_is_short() {
        for (mib, log) in [(1, 17), (6, 18), (24, 20), (128, 22), (1024, 22)] {
            let effort = Effort { level: Some(22), memory: mib << 20 };
            assert_eq!(effort.window_log(), log, "{mib} MiB");
            let memory = Compression::Zstd.encoder_memory(effort, 32 << 20);
            assert!(memory <= (mib << 20).max(4 << 20), "{mib} MiB: {memory}");
        }
        let zeros = vec![0; 1 << 20];
        let (mut frame, effort) = (Vec::new(), Effort { level: Some(22), memory: 6 << 20 });
        let written =
            Compression::Zstd.encode(effort, zeros.len(), &mut frame, |encoder| encoder.write_all(&zeros));
        written.unwrap();
        assert_eq!(window_log(&frame), Some(18));
        assert_eq!(Compression::Zstd.decompress(&frame, 1 << 20).unwrap(), zeros);
    }

    #[test]
    fn no_codec_writes_more_than_there_is_room_for_nor_has_room_for_more() {
        let bytes: Vec<u8> = (0..300_000u32).map(|i| (i.wrapping_mul(i) >> 11) as u8).collect();
        for codec in Compression::ALL {
            let mut whole = Vec::new();
            codec.compress(&bytes, &mut whole);
            for (most, fits) in [(whole.len(), true), (whole.len() - 1, false), (10, false)] {
                let mut out = Vec::new();
                let mut bounded = Bounded::new(&mut out, most);
                let effort = Effort { level: None, memory: usize::MAX };
                let written = codec.encode(effort, bytes.len(), &mut bounded, |encoder| {
                    bytes.chunks(PIECE).try_for_each(|piece| encoder.write_all(piece))
                });
                assert_eq!((written.is_ok(), bounded.is_full), (fits, !fits), "{codec}: {most}");
                assert!(out.capacity() <= most.max(8), "{codec}: {} of {most}", out.capacity());
                assert!(!fits || out == whole, "{codec}");
            }
        }
    }
}

//! LZ4 frames, a block at a time, in memory for what has come and not for what a frame says of its blocks: clients announce blocks of
//! 4 MiB for a few hundred bytes.

use std::cell::Cell;
use std::hash::Hasher;
use std::io::{self, BufRead, Read};

use lz4_flex::block::{DecompressError, decompress_into_with_dict};
use twox_hash::XxHash32;

const MAGIC: [u8; 4] = 0x184D_2204u32.to_le_bytes();
/// Version 1, in the first byte of the descriptor.
const VERSION: u8 = 1 << 6;
const VERSION_AND_UNKNOWN: u8 = 3 << 6 | 1 << 1;
const INDEPENDENT: u8 = 1 << 5;
const BLOCK_CHECKSUMS: u8 = 1 << 4;
const CONTENT_SIZE: u8 = 1 << 3;
const CONTENT_CHECKSUM: u8 = 1 << 2;
const DICTIONARY: u8 = 1;
/// The bit of a block's length that says that it is not compressed.
const STORED: u32 = 1 << 31;
/// How far back in what has come a block may refer.
const WINDOW: usize = 64 << 10;
/// The largest block that a frame may have.
const LARGEST_BLOCK: usize = 4 << 20;
/// A byte of a block stands for no more.
const GROWTH: usize = 255;
/// What a byte of a block is first taken to stand for, and then for so many times more.
const FIRST_GROWTH: usize = 8;
/// A compressed block ends with so many bytes as they are, and its last reference to what has come begins so many before its end.
/// What decodes without looking at each byte's room relies on it and refuses other blocks.
const LAST_LITERALS: usize = 5;
const LAST_MATCH: usize = 12;
/// A reference is no shorter.
const LEAST_MATCH: usize = 4;
/// A thread keeps a buffer of up to so many bytes: honest batches of some tens of kilobytes.
const KEPT: usize = 256 << 10;

thread_local! {
    static BUFFER: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// The most memory that it takes to decompress so many bytes, beside what is made of them.
pub(super) fn memory(len: usize) -> usize {
    2 * WINDOW + 2 * len.saturating_mul(GROWTH).min(LARGEST_BLOCK)
}

#[derive(Debug, Clone, Copy)]
struct Frame {
    largest_block: usize,
    linked: bool,
    block_checksums: bool,
    content_checksum: bool,
    content_size: Option<u64>,
}

impl Frame {
    fn take(input: &mut &[u8]) -> Option<Self> {
        if take(input)? != MAGIC {
            return None;
        }
        let descriptor = *input;
        let [flags, sizes] = take(input)?;
        if flags & (VERSION_AND_UNKNOWN | DICTIONARY) != VERSION {
            return None;
        }
        let content_size = match flags & CONTENT_SIZE {
            0 => None,
            _ => Some(u64::from_le_bytes(take(input)?)),
        };
        let summed = &descriptor[..descriptor.len() - input.len()];
        let [sum] = take(input)?;
        let largest_block = match sizes {
            0x40 => 64 << 10,
            0x50 => 256 << 10,
            0x60 => 1 << 20,
            0x70 => LARGEST_BLOCK,
            _ => return None,
        };
        let frame = Self {
            largest_block,
            linked: flags & INDEPENDENT == 0,
            block_checksums: flags & BLOCK_CHECKSUMS != 0,
            content_checksum: flags & CONTENT_CHECKSUM != 0,
            content_size,
        };
        (sum == (XxHash32::oneshot(0, summed) >> 8) as u8).then_some(frame)
    }
}

/// Reads what the first frame of its input holds. What is behind it does not count.
pub(super) struct Lz4Reader<'a> {
    input: &'a [u8],
    /// Whether it takes only what every client reads.
    strict: bool,
    frame: Option<Frame>,
    ended: bool,
    content: XxHash32,
    content_len: u64,
    /// What has come lies up to `end`, what of it was not read from `read` on. The bytes behind are room.
    out: Vec<u8>,
    read: usize,
    end: usize,
}

impl<'a> Lz4Reader<'a> {
    pub fn new(input: &'a [u8]) -> Self {
        Self {
            input,
            strict: false,
            frame: None,
            // Nothing at all holds nothing, as in every codec.
            ended: input.is_empty(),
            content: XxHash32::with_seed(0),
            content_len: 0,
            out: BUFFER.take(),
            read: 0,
            end: 0,
        }
    }

    /// Takes only what every client reads: one frame and nothing behind it, whose blocks do not refer to each other and end as the format
    /// has them end.
    pub fn strict(input: &'a [u8]) -> Self {
        let mut reader = Self::new(input);
        reader.strict = true;
        reader
    }

    /// Has more come, unless the frame ends; none if it makes no sense.
    fn more(&mut self) -> Option<()> {
        let frame = match self.frame {
            Some(frame) => frame,
            None => *self.frame.insert(Frame::take(&mut self.input)?),
        };
        // Kafka's own client reads none, and stops there for good.
        if self.strict && frame.linked {
            return None;
        }
        let word = u32::from_le_bytes(take(&mut self.input)?);
        let len = (word & !STORED) as usize;
        if len == 0 {
            self.ended = true;
            self.check_content(&frame)?;
            // A stored block of nothing ends the frame for some clients and not for others.
            return (!self.strict || (word == 0 && self.input.is_empty())).then_some(());
        }
        if len > frame.largest_block {
            return None;
        }
        let block = self.input.split_off(..len)?;
        if self.strict && word & STORED == 0 && !ends_well(block, frame.largest_block) {
            return None;
        }
        if frame.block_checksums && take(&mut self.input)? != XxHash32::oneshot(0, block).to_le_bytes() {
            return None;
        }
        let added =
            if word & STORED == 0 { self.decompress(block, &frame)? } else { self.store(block, &frame) };
        self.end += added;
        self.content_len += added as u64;
        if frame.content_checksum {
            self.content.write(&self.out[self.read..self.end]);
        }
        // A client that reads it as a stream takes an empty block for the end.
        (added > 0).then_some(())
    }

    fn check_content(&mut self, frame: &Frame) -> Option<()> {
        if frame.content_size.is_some_and(|size| size != self.content_len) {
            return None;
        }
        let good =
            !frame.content_checksum || take(&mut self.input)? == self.content.finish_32().to_le_bytes();
        good.then_some(())
    }

    fn store(&mut self, block: &[u8], frame: &Frame) -> usize {
        self.make_room(block.len(), frame);
        self.out[self.end..self.end + block.len()].copy_from_slice(block);
        block.len()
    }

    fn decompress(&mut self, block: &[u8], frame: &Frame) -> Option<usize> {
        let mut growth = FIRST_GROWTH;
        loop {
            let room = (block.len() * growth).min(frame.largest_block);
            self.make_room(room, frame);
            let (before, behind) = self.out.split_at_mut(self.end);
            let window = if frame.linked { &before[before.len().saturating_sub(WINDOW)..] } else { &[] };
            match decompress_into_with_dict(block, &mut behind[..room], window) {
                Ok(len) => return Some(len),
                Err(DecompressError::OutputTooSmall { .. })
                    if growth < GROWTH && room < frame.largest_block =>
                {
                    growth = (growth * FIRST_GROWTH).min(GROWTH);
                }
                Err(_) => return None,
            }
        }
    }

    /// Has so much room behind what has come. Of that, all has been read, and only what blocks may refer to stays.
    fn make_room(&mut self, room: usize, frame: &Frame) {
        if self.out.len() < self.end + room || !frame.linked {
            let kept = if frame.linked { self.end.min(WINDOW) } else { 0 };
            self.out.copy_within(self.end - kept..self.end, 0);
            self.end = kept;
            // As much again as was kept, so that small blocks do not have it moved for each of them.
            let len = kept + room.max(kept);
            if self.out.len() < len {
                self.out.reserve_exact(len - self.out.len());
                self.out.resize(len, 0);
            }
        }
        self.read = self.end;
    }
}

impl Drop for Lz4Reader<'_> {
    fn drop(&mut self) {
        if self.out.len() <= KEPT {
            BUFFER.set(std::mem::take(&mut self.out));
        }
    }
}

impl BufRead for Lz4Reader<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.read == self.end && !self.ended {
            self.more().ok_or(io::ErrorKind::InvalidData)?;
        }
        Ok(&self.out[self.read..self.end])
    }

    fn consume(&mut self, len: usize) {
        self.read = (self.read + len).min(self.end);
    }
}

impl Read for Lz4Reader<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let have = self.fill_buf()?;
        let len = have.len().min(out.len());
        out[..len].copy_from_slice(&have[..len]);
        self.consume(len);
        Ok(len)
    }
}

fn take<const N: usize>(input: &mut &[u8]) -> Option<[u8; N]> {
    let (head, rest) = input.split_first_chunk()?;
    *input = rest;
    Some(*head)
}

/// Whether a compressed block, of which at most `room` bytes may come, ends as every decoder wants it; what is wrong with it otherwise is
/// for the decoder to find.
fn ends_well(mut block: &[u8], room: usize) -> bool {
    let mut made = 0_usize;
    while let Some(token) = block.split_off_first() {
        let Some(literals) = length(token >> 4, &mut block) else { return false };
        made += literals;
        let Some(behind) = block.len().checked_sub(literals) else { return false };
        if behind == 0 {
            return made <= room;
        }
        // An offset, a token and the last literals.
        if behind < 2 + 1 + LAST_LITERALS || made + LAST_MATCH > room {
            return false;
        }
        block = &block[literals..];
        if take::<2>(&mut block) == Some([0, 0]) {
            return false;
        }
        let Some(matched) = length(token & 15, &mut block) else { return false };
        made += LEAST_MATCH + matched;
        if made + LAST_LITERALS > room {
            return false;
        }
    }
    false
}

/// A length whose first part is half of a token.
fn length(part: u8, block: &mut &[u8]) -> Option<usize> {
    let mut length = usize::from(part);
    if part == 15 {
        loop {
            let more = *block.split_off_first()?;
            length += usize::from(more);
            if more < u8::MAX {
                break;
            }
        }
    }
    Some(length)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use lz4_flex::frame::{BlockMode, BlockSize, FrameEncoder, FrameInfo};

    use super::*;

    fn infos() -> Vec<FrameInfo> {
        let mut infos = Vec::new();
        for mode in [BlockMode::Independent, BlockMode::Linked] {
            for size in [BlockSize::Max64KB, BlockSize::Max256KB, BlockSize::Max1MB, BlockSize::Max4MB] {
                for sums in 0..4 {
                    let info = FrameInfo::new().block_mode(mode).block_size(size);
                    infos.push(info.block_checksums(sums & 1 > 0).content_checksum(sums & 2 > 0));
                }
            }
        }
        infos
    }

    fn packed(info: FrameInfo, content: &[u8], piece: usize) -> Vec<u8> {
        let mut encoder = FrameEncoder::with_frame_info(info, Vec::new());
        for part in content.chunks(piece) {
            encoder.write_all(part).unwrap();
            encoder.flush().unwrap();
        }
        encoder.finish().unwrap()
    }

    fn unpacked(frame: &[u8]) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        Lz4Reader::new(frame).read_to_end(&mut out).map(|_| out)
    }

    /// Bytes of which some were there before.
    fn content(len: usize) -> Vec<u8> {
        let mut seed = 7u32;
        let mut out: Vec<u8> = Vec::new();
        while out.len() < len {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let back = (seed >> 8) as usize % 70_000;
            match out.len().checked_sub(back + 40) {
                Some(from) if seed >> 30 > 0 => out.extend_from_within(from..from + 40),
                _ => out.extend(seed.to_le_bytes().repeat(1 + back % 3)),
            }
        }
        out.truncate(len);
        out
    }

    #[test]
    fn what_an_encoder_writes_comes_back() {
        for info in infos() {
            for (len, piece) in
                [(0, 1), (1, 1), (1000, 1000), (200_000, 200_000), (200_000, 700), (90_000, 35)]
            {
                let content = content(len);
                let frame = packed(info.clone(), &content, piece);
                assert_eq!(unpacked(&frame).unwrap(), content, "{info:?}, {len} by {piece}");
            }
        }
        let large = content(9 << 20);
        let sized = FrameInfo::new().block_size(BlockSize::Max4MB).content_size(Some(large.len() as u64));
        assert_eq!(unpacked(&packed(sized, &large, large.len())).unwrap(), large);
        let zeros = vec![0; 9 << 20];
        assert_eq!(unpacked(&packed(FrameInfo::new(), &zeros, zeros.len())).unwrap(), zeros);
    }

    #[test]
    fn what_is_cut_or_changed_is_refused_and_what_is_behind_does_not_count() {
        for info in infos() {
            let content = content(500);
            let checked = info.block_checksums && info.content_checksum;
            let frame = packed(info, &content, 200);
            for len in 1..frame.len() {
                assert!(unpacked(&frame[..len]).is_err(), "{len} of {}", frame.len());
            }
            assert_eq!(unpacked(&[&frame[..], b"x"].concat()).unwrap(), content);
            for at in 0..frame.len() {
                let mut bad = frame.clone();
                bad[at] ^= 0x10;
                assert!(!checked || unpacked(&bad).is_err(), "at {at}");
            }
        }
        let sized = packed(FrameInfo::new().content_size(Some(3)), b"abc", 3);
        assert_eq!(unpacked(&sized).unwrap(), b"abc");
        let other = FrameInfo::new().content_size(Some(4));
        let mut encoder = FrameEncoder::with_frame_info(other, Vec::new());
        encoder.write_all(b"abc").unwrap();
        assert!(encoder.finish().is_err() || unpacked(&sized[..sized.len() - 1]).is_err());
    }

    fn strictly(frame: &[u8]) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        Lz4Reader::strict(frame).read_to_end(&mut out).map(|_| out)
    }

    /// A frame of these blocks, by their words and bytes, that are independent and up to 64 KiB.
    fn framed(blocks: &[(u32, &[u8])]) -> Vec<u8> {
        let mut frame = packed(FrameInfo::new().block_size(BlockSize::Max64KB), b"", 1)[..7].to_vec();
        for (stored, block) in blocks {
            frame.extend_from_slice(&(stored | block.len() as u32).to_le_bytes());
            frame.extend_from_slice(block);
        }
        frame.extend_from_slice(&[0; 4]);
        frame
    }

    #[test]
    fn strictly_one_frame_of_independent_blocks_is_taken_and_nothing_behind_it() {
        let content = content(200_000);
        for info in infos() {
            let linked = info.block_mode == BlockMode::Linked;
            for piece in [700, 200_000] {
                let frame = packed(info.clone(), &content, piece);
                assert_eq!(strictly(&frame).ok().as_ref(), (!linked).then_some(&content), "{info:?}");
                assert_eq!(unpacked(&[&frame[..], &frame].concat()).unwrap(), content);
                assert!(strictly(&[&frame[..], &frame].concat()).is_err());
                assert!(strictly(&[&frame[..], b"x"].concat()).is_err());
            }
        }
        assert!(strictly(b"").unwrap().is_empty());
        assert_eq!(strictly(&framed(&[(STORED, b"abc")])).unwrap(), b"abc");
        assert!(unpacked(&framed(&[(STORED, b"abc"), (STORED, b"")])).is_ok());
        assert!(strictly(&framed(&[(STORED, b"abc"), (STORED, b"")])).is_err());
    }

    #[test]
    fn strictly_a_block_ends_with_literals_as_other_decoders_want_it() {
        // Twelve literals, a reference of four, and so many literals.
        let block = |last: u8| {
            let mut block = vec![12 << 4];
            block.extend_from_slice(b"abcdefghijkl");
            block.extend_from_slice(&[12, 0, last << 4]);
            block.extend((0..last).map(|i| b'0' + i));
            block
        };
        for last in 0..8 {
            let frame = framed(&[(0, &block(last))]);
            assert_eq!(unpacked(&frame).unwrap().len(), 16 + usize::from(last), "{last}");
            assert_eq!(strictly(&frame).is_ok(), last >= 5, "{last}");
        }
        // One that fills the frame's blocks, with so many literals behind a reference.
        let full = |last: usize| {
            let mut block = vec![0x1f, b'a', 1, 0];
            let mut matched = (64 << 10) - 1 - last - LEAST_MATCH - 15;
            while matched >= 255 {
                block.push(255);
                matched -= 255;
            }
            block.extend_from_slice(&[matched as u8, (last as u8) << 4]);
            block.extend(vec![b'z'; last]);
            framed(&[(0, &block)])
        };
        for last in [5, 6, 12] {
            assert_eq!(strictly(&full(last)).unwrap().len(), 64 << 10, "{last}");
        }
        let mut zero = block(6);
        zero[13] = 0;
        assert!(strictly(&framed(&[(0, &zero)])).is_err());
    }

    #[test]
    fn a_block_of_nothing_is_refused() {
        let frame = packed(FrameInfo::new(), b"abc", 3);
        let head = &frame[..7];
        let nothing = [head, &1u32.to_le_bytes(), &[0], &[0; 4]].concat();
        assert!(unpacked(&nothing).is_err());
    }

    #[test]
    fn memory_follows_what_comes_and_not_what_is_announced() {
        let announced = || FrameInfo::new().block_size(BlockSize::Max4MB).block_mode(BlockMode::Linked);
        let frame = packed(announced(), &content(300), 300);
        let mut reader = Lz4Reader::new(&frame);
        reader.out = Vec::new();
        assert_eq!(reader.fill_buf().unwrap().len(), 300);
        assert!(reader.out.capacity() <= 300 * FIRST_GROWTH, "{}", reader.out.capacity());
        let zeros = vec![0; 8 << 20];
        let bomb = packed(announced(), &zeros, zeros.len());
        let mut reader = Lz4Reader::new(&bomb);
        reader.out = Vec::new();
        while !reader.fill_buf().unwrap().is_empty() {
            let len = reader.fill_buf().unwrap().len();
            reader.consume(len);
            assert!(reader.out.capacity() <= memory(bomb.len()), "{}", reader.out.capacity());
        }
        drop(reader);
        assert!(BUFFER.take().capacity() <= KEPT, "a large buffer is not kept");
    }
}

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

/// Reads what the first frame of its input holds; as for the clients that read such batches, what is behind it does not count.
pub(super) struct Lz4Reader<'a> {
    input: &'a [u8],
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

    /// Has more come, unless the frame ends; none if it makes no sense.
    fn more(&mut self) -> Option<()> {
        let frame = match self.frame {
            Some(frame) => frame,
            None => *self.frame.insert(Frame::take(&mut self.input)?),
        };
        let word = u32::from_le_bytes(take(&mut self.input)?);
        let len = (word & !STORED) as usize;
        if len == 0 {
            self.ended = true;
            return self.check_content(&frame);
        }
        if len > frame.largest_block {
            return None;
        }
        let block = self.input.split_off(..len)?;
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

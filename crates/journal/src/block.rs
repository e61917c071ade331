//! The open block and the closed one.

use std::sync::Arc;

use sabir_base::buf::{AlignedBuf, Arena, BufPool, CHUNK, round_up};
use sabir_base::crc::crc32c;
use sabir_base::varint::put_u64;
use sabir_model::Durability;

use crate::content::{CONTENT_HEADER, CONTENT_VERSION, ContentHeader, ENTRY_OVERHEAD};
use crate::frame::FRAME;
use crate::view::{BlockView, ViewError};

/// A block closes at this many bytes, its frame included.
pub const MAX_BLOCK: usize = 1 << 20;

/// The largest entry, payload and body together, that a block takes whole: the largest batch of a topic that does not say, and its body.
pub const LARGEST_ENTRY: usize = MAX_BLOCK + (64 << 10);

/// The most that a block takes on the disk: one entry of [`LARGEST_ENTRY`], framed and padded.
pub(crate) const LARGEST_FRAMED: usize = round_up(PAYLOADS_AT + LARGEST_ENTRY + ENTRY_OVERHEAD);

/// Chunks that a tail cache holds at least, if blocks are carved out of chunks: the cache gives them back whole.
const CHUNKS_KEPT: usize = 16;

/// Where payloads start, counted from the frame.
const PAYLOADS_AT: usize = FRAME + CONTENT_HEADER;

/// From this size on a payload is copied where it arrives; below, grouping it is worth a second copy.
const PLACED_AT_ONCE: usize = 4096;

/// The open block: entries in arrival order, their payloads grouped by target when it closes.
///
/// One builder serves a shard for good: [`take`](Self::take) leaves it empty, its memory kept.
#[derive(Debug)]
pub struct BlockBuilder {
    arena: Arena,
    /// Where large payloads stand already; made with the first of them.
    buf: Option<AlignedBuf>,
    /// Where the next payload goes in `buf`, counted from the frame.
    end: usize,
    /// What the last block with large payloads took: where the chunk at hand has less room, the next one goes into another.
    guess: usize,
    small: Vec<u8>,
    bodies: Vec<u8>,
    entries: Vec<Pending>,
    /// Scratch: the small payloads' entries by group, and the entries' encoding.
    grouped: Vec<u32>,
    encoded: Vec<u8>,
    /// A bound of what the entries will take.
    entry_bytes: usize,
    durability: Durability,
    time_floor: i64,
}

#[derive(Debug, Clone, Copy)]
struct Pending {
    kind: u16,
    body: Span,
    payload: Payload,
    group: u64,
}

#[derive(Debug, Clone, Copy)]
struct Span {
    at: u32,
    len: u32,
}

#[derive(Debug, Clone, Copy)]
enum Payload {
    None,
    /// In `small`, until the block closes.
    Waiting(Span),
    /// In the block's buffer, counted from the content.
    Placed(Span),
}

impl BlockBuilder {
    /// A builder whose blocks take their memory from `pool`, one by one.
    pub fn new(pool: Arc<BufPool>) -> Self {
        Self::with_arena(Arena::without_chunks(pool))
    }

    /// A builder for a journal whose tail cache holds `tail_bytes`: where those are many chunks, blocks are carved out of chunks.
    pub fn for_tail(pool: Arc<BufPool>, tail_bytes: usize) -> Self {
        let carve = tail_bytes >= CHUNKS_KEPT * CHUNK;
        Self::with_arena(if carve { Arena::new(pool) } else { Arena::without_chunks(pool) })
    }

    fn with_arena(arena: Arena) -> Self {
        Self {
            arena,
            buf: None,
            end: PAYLOADS_AT,
            guess: 0,
            small: Vec::new(),
            bodies: Vec::new(),
            entries: Vec::new(),
            grouped: Vec::new(),
            encoded: Vec::new(),
            entry_bytes: 0,
            durability: Durability::Os,
            time_floor: i64::MIN,
        }
    }

    /// Adds an entry and returns its index in the block. `group` is the target that small payloads are grouped by, so that
    /// a reader of one target gets runs. A payload of 4 KiB or more is copied into the block's buffer now, a smaller one
    /// when the block closes.
    ///
    /// # Panics
    /// When the entry does not fit: the caller asks [`fits`](Self::fits) first.
    pub fn push(
        &mut self,
        kind: u16,
        body: &[u8],
        payload: Option<&[u8]>,
        group: u64,
        durability: Durability,
    ) -> u32 {
        let len = body.len() + payload.map_or(0, <[u8]>::len);
        assert!(self.fits(len), "an entry of {len} bytes does not fit: `fits` was not asked");
        let body = append(&mut self.bodies, body);
        let payload = match payload {
            None => Payload::None,
            Some(bytes) if bytes.len() < PLACED_AT_ONCE => Payload::Waiting(append(&mut self.small, bytes)),
            Some(bytes) => Payload::Placed(self.place(bytes)),
        };
        self.entry_bytes += ENTRY_OVERHEAD - saved(kind) + body.len as usize;
        self.durability = self.durability.max(durability);
        self.entries.push(Pending { kind, body, payload, group });
        (self.entries.len() - 1) as u32
    }

    /// Puts other bytes in the place of the first ones of the last entry's payload. Does nothing to one that is shorter.
    pub fn put_front(&mut self, bytes: &[u8]) {
        let Some(last) = self.entries.last() else { return };
        let place = match last.payload {
            Payload::None => None,
            Payload::Waiting(span) => self.small[span.range()].get_mut(..bytes.len()),
            Payload::Placed(span) => {
                let buf = self.buf.as_mut().expect("what is placed has a buffer");
                buf[FRAME..][span.range()].get_mut(..bytes.len())
            }
        };
        if let Some(place) = place {
            place.copy_from_slice(bytes);
        }
    }

    /// Whether an entry of this many bytes, payload and body together, may be pushed now. False: take the block first; on
    /// an empty builder: larger than [`LARGEST_ENTRY`], it is fragmented, into chunks.
    pub fn fits(&self, payload_and_body: usize) -> bool {
        if self.is_empty() {
            return payload_and_body <= LARGEST_ENTRY;
        }
        payload_and_body <= MAX_BLOCK && self.bytes() + payload_and_body + ENTRY_OVERHEAD <= MAX_BLOCK
    }

    /// What the block would take on the disk now, in bytes (an upper bound); 0 when it is empty.
    pub fn bytes(&self) -> usize {
        if self.is_empty() { 0 } else { self.end + self.small.len() + self.entry_bytes }
    }

    /// Entries pushed.
    pub fn entries(&self) -> u32 {
        self.entries.len() as u32
    }

    /// Whether nothing was pushed.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The strongest durability that any entry so far asked for.
    pub fn durability(&self) -> Durability {
        self.durability
    }

    /// The time the next block will at least carry, in milliseconds since the epoch: what the last one carried.
    pub fn time_floor(&self) -> i64 {
        self.time_floor
    }

    /// Raises the time the next block will at least carry: after recovery, or to a stamp put into a record.
    pub fn raise_time(&mut self, ms: i64) {
        self.time_floor = self.time_floor.max(ms);
    }

    /// Closes the block at `time_ms` (or the last block's time where that is later) and leaves the builder empty.
    pub fn take(&mut self, time_ms: i64) -> Block {
        self.raise_time(time_ms);
        let mut buf = self.sized_buffer();
        self.copy_small(&mut buf);
        let content_len = self.write_entries(&mut buf);
        self.write_header(&mut buf, content_len);
        let mut block = Block::close(buf, content_len, self.durability, self.time_floor);
        self.arena.shrink(&mut block.buf);
        self.clear();
        block
    }

    /// Copies a large payload to its place.
    fn place(&mut self, bytes: &[u8]) -> Span {
        let end = self.end + bytes.len();
        if self.buf.as_ref().is_none_or(|buf| buf.capacity() < end) {
            self.grow(end);
        }
        let buf = self.buf.as_mut().expect("grown above");
        buf[self.end..end].copy_from_slice(bytes);
        let span = Span { at: (self.end - FRAME) as u32, len: bytes.len() as u32 };
        self.end = end;
        span
    }

    /// Makes room for `needed` bytes, as a rule where the payloads stand already.
    fn grow(&mut self, needed: usize) {
        let mut buf = match self.buf.take() {
            None => self.arena.get(needed.max(self.guess)),
            Some(buf) => self.grown(buf, needed),
        };
        buf.set_len(buf.capacity());
        self.buf = Some(buf);
    }

    fn grown(&mut self, mut buf: AlignedBuf, needed: usize) -> AlignedBuf {
        if buf.capacity() >= needed || self.arena.grow(&mut buf, needed) {
            return buf;
        }
        let mut larger = self.arena.get(needed.max(self.guess).max((2 * buf.capacity()).min(LARGEST_FRAMED)));
        larger[PAYLOADS_AT..self.end].copy_from_slice(&buf[PAYLOADS_AT..self.end]);
        larger
    }

    /// A buffer for the whole block.
    fn sized_buffer(&mut self) -> AlignedBuf {
        let needed = round_up(self.bytes().max(PAYLOADS_AT));
        self.guess = if self.buf.is_some() { needed } else { 0 };
        self.grow(needed);
        self.buf.take().expect("grown above")
    }

    /// Copies the small payloads behind the large ones, those of a group together and in arrival order.
    fn copy_small(&mut self, buf: &mut [u8]) {
        let waiting = |entry: &Pending| matches!(entry.payload, Payload::Waiting(_));
        self.grouped.clear();
        self.grouped.extend((0u32..).zip(&self.entries).filter(|(_, e)| waiting(e)).map(|(i, _)| i));
        let entries = &mut self.entries;
        self.grouped.sort_unstable_by_key(|&i| (entries[i as usize].group, i));
        for &i in &self.grouped {
            let entry = &mut entries[i as usize];
            let Payload::Waiting(span) = entry.payload else { continue };
            let bytes = &self.small[span.range()];
            buf[self.end..self.end + bytes.len()].copy_from_slice(bytes);
            entry.payload = Payload::Placed(Span { at: (self.end - FRAME) as u32, len: span.len });
            self.end += bytes.len();
        }
    }

    /// Encodes the entries behind the payloads; returns the length of the content.
    fn write_entries(&mut self, buf: &mut [u8]) -> usize {
        let out = &mut self.encoded;
        out.clear();
        for entry in &self.entries {
            let placed = match entry.payload {
                Payload::Placed(span) => Some(span),
                Payload::Waiting(_) | Payload::None => None,
            };
            put_u64(out, u64::from(entry.kind) << 1 | u64::from(placed.is_some()));
            put_u64(out, u64::from(entry.body.len));
            if let Some(span) = placed {
                put_u64(out, u64::from(span.at));
                put_u64(out, u64::from(span.len));
            }
            out.extend_from_slice(&self.bodies[entry.body.range()]);
        }
        buf[self.end..self.end + out.len()].copy_from_slice(out);
        self.end + out.len() - FRAME
    }

    fn write_header(&self, buf: &mut [u8], content_len: usize) {
        let header = ContentHeader {
            time_ms: self.time_floor,
            entries: self.entries(),
            entries_off: (self.end - FRAME) as u32,
            entries_len: (content_len + FRAME - self.end) as u32,
            version: CONTENT_VERSION,
            flags: 0,
            reserved: 0,
        };
        buf[FRAME..PAYLOADS_AT].copy_from_slice(&header.encode());
    }

    fn clear(&mut self) {
        self.end = PAYLOADS_AT;
        self.small.clear();
        self.bodies.clear();
        self.entries.clear();
        self.entry_bytes = 0;
        self.durability = Durability::Os;
    }
}

impl Span {
    fn range(self) -> std::ops::Range<usize> {
        self.at as usize..self.at as usize + self.len as usize
    }
}

/// Most kinds take a byte, not three.
fn saved(kind: u16) -> usize {
    if kind < 64 { 2 } else { 0 }
}

fn append(arena: &mut Vec<u8>, bytes: &[u8]) -> Span {
    let span = Span { at: arena.len() as u32, len: bytes.len() as u32 };
    arena.extend_from_slice(bytes);
    span
}

/// A closed block: its content, with room for the frame in front.
#[derive(Debug)]
pub struct Block {
    /// Frame, content, zeros to the end of the page.
    pub(crate) buf: AlignedBuf,
    content_len: usize,
    content_crc: u32,
    durability: Durability,
    time_ms: i64,
}

impl Block {
    fn close(mut buf: AlignedBuf, content_len: usize, durability: Durability, time_ms: i64) -> Self {
        let end = FRAME + content_len;
        buf.set_len(round_up(end));
        buf[end..].fill(0);
        let content_crc = crc32c(&buf[FRAME..end]);
        Self { buf, content_len, content_crc, durability, time_ms }
    }

    /// A block around a content made elsewhere (by the leader of another replica).
    ///
    /// # Errors
    /// What [`BlockView::parse`] says; a content larger than any block.
    pub fn from_content(
        pool: &Arc<BufPool>,
        content: &[u8],
        durability: Durability,
    ) -> Result<Self, ViewError> {
        let time_ms = BlockView::parse(content)?.time_ms();
        let framed = round_up(FRAME + content.len());
        if framed > LARGEST_FRAMED {
            return Err(ViewError::Malformed("larger than any block"));
        }
        let mut buf = pool.get(framed);
        buf[FRAME..FRAME + content.len()].copy_from_slice(content);
        Ok(Self::close(buf, content.len(), durability, time_ms))
    }

    /// The content, as it will be read back.
    pub fn content(&self) -> &[u8] {
        &self.buf[FRAME..FRAME + self.content_len]
    }

    /// The length of the content in bytes.
    pub fn content_len(&self) -> usize {
        self.content_len
    }

    pub(crate) fn content_crc(&self) -> u32 {
        self.content_crc
    }

    /// What it takes on the disk, in bytes: frame and content, padded.
    pub fn framed_len(&self) -> usize {
        self.buf.len()
    }

    /// The strongest durability any entry asked for.
    pub fn durability(&self) -> Durability {
        self.durability
    }

    /// Its time in milliseconds since the epoch.
    pub fn time_ms(&self) -> i64 {
        self.time_ms
    }
}

#[cfg(test)]
#[path = "block_tests.rs"]
mod tests;

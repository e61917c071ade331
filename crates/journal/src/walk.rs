//! Walking over frames that may be anything: good, torn, of an older life of the file, or a stored payload.

use std::sync::Arc;

use sabir_base::buf::{AlignedBuf, BufPool};
use sabir_base::crc::crc32c;
use sabir_model::{Sequence, Term};

use crate::disk::DiskError;
use crate::frame::{FRAME, FrameHeader, FrameKind, NotAFrame, STEP};
use crate::segment::SegmentFile;
use crate::slots::HardState;

/// What is read at once, in bytes: little where little may follow, more as the walk goes on.
const FIRST_WINDOW: u64 = 128 << 10;
const WINDOW: u64 = 2 << 20;

/// Bytes at positions.
pub(crate) trait Source {
    fn len(&self) -> u64;
    fn read(&self, pos: u64, buf: &mut [u8]) -> Result<(), DiskError>;
}

impl Source for SegmentFile {
    fn len(&self) -> u64 {
        self.len
    }

    fn read(&self, pos: u64, buf: &mut [u8]) -> Result<(), DiskError> {
        Self::read(self, pos, buf)
    }
}

/// A part of one source in memory.
pub(crate) struct Window<'a, S> {
    source: &'a S,
    pool: &'a Arc<BufPool>,
    buf: Option<AlignedBuf>,
    start: u64,
    ahead: u64,
}

impl<'a, S: Source> Window<'a, S> {
    pub(crate) fn new(source: &'a S, pool: &'a Arc<BufPool>) -> Self {
        Self { source, pool, buf: None, start: 0, ahead: FIRST_WINDOW }
    }

    /// `len` bytes at `pos`, fewer where the source ends.
    pub(crate) fn bytes(&mut self, pos: u64, len: u64) -> Result<&[u8], DiskError> {
        let end = pos.saturating_add(len).min(self.source.len());
        let pos = pos.min(end);
        if !self.covers(pos, end) {
            self.load(pos, end)?;
        }
        let at = (pos - self.start) as usize;
        let buf = self.buf.as_deref().unwrap_or_default();
        Ok(&buf[at..at + (end - pos) as usize])
    }

    fn covers(&self, pos: u64, end: u64) -> bool {
        let held = self.buf.as_ref().map_or(0, |buf| buf.len() as u64);
        self.start <= pos && end <= self.start + held
    }

    fn load(&mut self, pos: u64, end: u64) -> Result<(), DiskError> {
        let start = pos / STEP * STEP;
        let end = end.max(start + self.ahead).min(self.source.len());
        self.ahead = (2 * self.ahead).min(WINDOW);
        // Given back first: the pool then gives the same memory again.
        self.buf = None;
        let mut buf = self.pool.get((end - start) as usize);
        self.source.read(start, &mut buf)?;
        (self.start, self.buf) = (start, Some(buf));
        Ok(())
    }
}

/// What the frames so far say about the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Chain {
    pub last: Sequence,
    pub term: Term,
    pub cuts: u32,
    pub prev_crc: u32,
    /// Whether the last frame is a seal.
    pub sealed: bool,
}

impl Chain {
    /// Before the first frame of a journal.
    pub(crate) const START: Self =
        Self { last: Sequence::NONE, term: Term(0), cuts: 0, prev_crc: 0, sealed: true };

    /// Behind a frame.
    pub(crate) fn after(header: &FrameHeader, crc: u32) -> Self {
        Self {
            last: header.sequence,
            term: header.term,
            cuts: header.cuts,
            prev_crc: crc,
            sealed: header.kind == FrameKind::Seal,
        }
    }

    /// Why a frame is not the next one, if it is not.
    fn refuses(&self, header: &FrameHeader, slot: &HardState) -> Option<&'static str> {
        let sequence = match header.kind {
            FrameKind::Block => self.last.next(),
            FrameKind::Seal => self.last,
        };
        if header.sequence != sequence {
            return Some("its sequence is another");
        }
        if header.prev_crc != self.prev_crc {
            return Some("it does not follow the frame before it");
        }
        if header.term < self.term || header.cuts < self.cuts || header.cuts > slot.cuts {
            return Some("it belongs to another term");
        }
        slot.has_cut(header.sequence, header.cuts).then_some("it was cut off")
    }
}

/// What stands at a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found {
    /// A frame with its content, good in itself and of the segment's generation; its header's CRC.
    Frame(FrameHeader, u32),
    Bad(&'static str),
    /// Made by a newer version of this program.
    Newer(u16),
    /// The file ends here.
    End,
}

/// Looks for a frame at `pos`.
pub(crate) fn examine<S: Source>(
    window: &mut Window<'_, S>,
    pos: u64,
    generation: u64,
) -> Result<Found, DiskError> {
    let page = window.bytes(pos, STEP)?;
    if page.len() < STEP as usize {
        return Ok(Found::End);
    }
    let (header, crc) = match FrameHeader::decode(page) {
        Ok(decoded) => decoded,
        Err(NotAFrame::Bad) => return Ok(Found::Bad("there is no frame")),
        Err(NotAFrame::Newer(version)) => return Ok(Found::Newer(version)),
    };
    if header.generation != generation {
        return Ok(Found::Bad("its generation is not the segment's"));
    }
    let framed = header.framed_len() as u64;
    let frame = window.bytes(pos, framed)?;
    if (frame.len() as u64) < framed {
        return Ok(Found::Bad("its length goes beyond the file"));
    }
    let content = &frame[FRAME..FRAME + header.content_len as usize];
    if crc32c(content) != header.content_crc {
        return Ok(Found::Bad("its content does not match its checksum"));
    }
    Ok(Found::Frame(header, crc))
}

/// Looks for the frame that continues `chain` at `pos`.
pub(crate) fn next_frame<S: Source>(
    window: &mut Window<'_, S>,
    pos: u64,
    generation: u64,
    chain: &Chain,
    slot: &HardState,
) -> Result<Found, DiskError> {
    let found = examine(window, pos, generation)?;
    Ok(match found {
        Found::Frame(header, _) => chain.refuses(&header, slot).map_or(found, Found::Bad),
        other => other,
    })
}

/// A frame behind a bad one, which tells that a good one stood there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Witness {
    pub position: u64,
    pub header: FrameHeader,
}

/// What a scan behind a bad frame looks for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Missing<'a> {
    /// The sequence of the block that should stand at the bad place.
    pub sequence: Sequence,
    pub chain: &'a Chain,
    pub slot: &'a HardState,
}

impl Missing<'_> {
    /// Whether a header, good in itself, is a later frame of the same history.
    fn is_later(&self, header: &FrameHeader) -> bool {
        let sequence = header.sequence;
        sequence >= self.sequence
            && header.cuts >= self.chain.cuts
            && header.cuts <= self.slot.cuts
            && !self.slot.has_cut(sequence, header.cuts)
    }

    /// Whether such a frame proves that the missing block was durable: it says so itself.
    fn is_covered_by(&self, header: &FrameHeader) -> bool {
        header.durable_through >= self.sequence
    }

    /// Whether it is the missing block, whole, behind the bad place. Then the bad one was a seal, and blocks wait for a seal.
    fn is_behind_a_seal(&self, header: &FrameHeader) -> bool {
        header.kind == FrameKind::Block
            && header.sequence == self.sequence
            && header.prev_crc != self.chain.prev_crc
    }
}

/// What a scan found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Scan {
    /// The first frame that proves the missing block was durable.
    pub witness: Option<Witness>,
    /// The first frame of the same history, whatever it proves.
    pub first_later: Option<Witness>,
}

/// Looks at every step of `from..to` for frames; of `generation`, or of any where the segment's is not known.
pub(crate) fn scan<S: Source>(
    window: &mut Window<'_, S>,
    range: std::ops::Range<u64>,
    generation: Option<u64>,
    missing: &Missing<'_>,
) -> Result<Scan, DiskError> {
    let mut scan = Scan::default();
    for position in range.step_by(STEP as usize) {
        let Ok((header, _)) = FrameHeader::decode(window.bytes(position, FRAME as u64)?) else { continue };
        if generation.is_some_and(|generation| generation != header.generation) || !missing.is_later(&header)
        {
            continue;
        }
        scan.first_later.get_or_insert(Witness { position, header });
        let whole = |window: &mut Window<'_, S>| {
            examine(window, position, header.generation).map(|found| matches!(found, Found::Frame(..)))
        };
        let proves = missing.is_covered_by(&header) || (missing.is_behind_a_seal(&header) && whole(window)?);
        if proves {
            scan.witness = Some(Witness { position, header });
            break;
        }
    }
    Ok(scan)
}

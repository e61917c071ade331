//! The frame before each content: local to a node, 64 bytes; `docs/adr/0001-journal-format.md` draws it.

use sabir_base::buf::round_up;
use sabir_base::crc::crc32c;
use sabir_model::{Sequence, Term};

use crate::block::LARGEST_FRAMED;
use crate::content::field;

/// Bytes of a frame's header.
pub(crate) const FRAME: usize = 64;

/// What frames start at multiples of, in bytes.
pub(crate) const STEP: u64 = 4096;

/// The first and only version.
pub(crate) const FRAME_VERSION: u16 = 1;

/// "SBRF".
const MAGIC: [u8; 4] = *b"SBRF";

/// What a frame is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FrameKind {
    /// Before a block's content.
    Block,
    /// After the last block of an idle journal: no content, and the last block's sequence, not one of its own.
    Seal,
}

/// A frame's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FrameHeader {
    pub kind: FrameKind,
    /// Of the segment, so that neither an older life of the file nor a stored payload passes for a frame.
    pub generation: u64,
    pub sequence: Sequence,
    pub term: Term,
    /// The highest sequence that a flush had covered when this frame was submitted.
    pub durable_through: Sequence,
    pub content_len: u32,
    pub content_crc: u32,
    /// The header CRC of the frame before, across segments; 0 for the first.
    pub prev_crc: u32,
    /// How often the journal's tail had been cut when this frame was submitted.
    pub cuts: u32,
}

/// Why 64 bytes are not a frame's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotAFrame {
    /// Something else, or torn, or flipped.
    Bad,
    /// Good, of a newer version.
    Newer(u16),
}

impl FrameHeader {
    /// The header, and its CRC.
    pub(crate) fn encode(&self) -> ([u8; FRAME], u32) {
        let mut out = [0; FRAME];
        out[0..4].copy_from_slice(&MAGIC);
        out[4..6].copy_from_slice(&FRAME_VERSION.to_le_bytes());
        out[6] = match self.kind {
            FrameKind::Block => 1,
            FrameKind::Seal => 2,
        };
        out[8..16].copy_from_slice(&self.generation.to_le_bytes());
        out[16..24].copy_from_slice(&self.sequence.0.to_le_bytes());
        out[24..32].copy_from_slice(&self.term.0.to_le_bytes());
        out[32..40].copy_from_slice(&self.durable_through.0.to_le_bytes());
        out[40..44].copy_from_slice(&self.content_len.to_le_bytes());
        out[44..48].copy_from_slice(&self.content_crc.to_le_bytes());
        out[48..52].copy_from_slice(&self.prev_crc.to_le_bytes());
        out[52..56].copy_from_slice(&self.cuts.to_le_bytes());
        let crc = crc32c(&out[..60]);
        out[60..64].copy_from_slice(&crc.to_le_bytes());
        (out, crc)
    }

    /// The header at the front of `bytes`, and its CRC.
    pub(crate) fn decode(bytes: &[u8]) -> Result<(Self, u32), NotAFrame> {
        if bytes.len() < FRAME || bytes[..4] != MAGIC {
            return Err(NotAFrame::Bad);
        }
        let crc = u32_at(bytes, 60);
        if crc != crc32c(&bytes[..60]) {
            return Err(NotAFrame::Bad);
        }
        match field(bytes, 4).map(u16::from_le_bytes) {
            Some(FRAME_VERSION) => {}
            Some(version) if version > FRAME_VERSION => return Err(NotAFrame::Newer(version)),
            _ => return Err(NotAFrame::Bad),
        }
        Ok((Self::fields(bytes)?, crc))
    }

    fn fields(bytes: &[u8]) -> Result<Self, NotAFrame> {
        let header = Self {
            kind: match bytes[6] {
                1 => FrameKind::Block,
                2 => FrameKind::Seal,
                _ => return Err(NotAFrame::Bad),
            },
            generation: u64_at(bytes, 8),
            sequence: Sequence(u64_at(bytes, 16)),
            term: Term(u64_at(bytes, 24)),
            durable_through: Sequence(u64_at(bytes, 32)),
            content_len: u32_at(bytes, 40),
            content_crc: u32_at(bytes, 44),
            prev_crc: u32_at(bytes, 48),
            cuts: u32_at(bytes, 52),
        };
        let sane = match header.kind {
            FrameKind::Block => FRAME + header.content_len as usize <= LARGEST_FRAMED,
            FrameKind::Seal => header.content_len == 0,
        };
        if sane { Ok(header) } else { Err(NotAFrame::Bad) }
    }

    /// What frame and content take on the disk, in bytes.
    pub(crate) fn framed_len(&self) -> usize {
        round_up(FRAME + self.content_len as usize)
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    field(bytes, at).map_or(0, u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    field(bytes, at).map_or(0, u64::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> FrameHeader {
        FrameHeader {
            kind: FrameKind::Block,
            generation: 0x1122_3344_5566_7788,
            sequence: Sequence(0x0102_0304_0506_0708),
            term: Term(0x1112_1314_1516_1718),
            durable_through: Sequence(0x2122_2324_2526_2728),
            content_len: 0x0001_0203,
            content_crc: 0x3132_3334,
            prev_crc: 0x4142_4344,
            cuts: 0x5152_5354,
        }
    }

    #[test]
    fn golden_bytes_of_a_frame() {
        let (bytes, crc) = header().encode();
        let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(
            hex,
            "53425246010001008877665544332211080706050403020118171615141312112827262524232221\
             0302010034333231444342415453525100000000a7ed7a4d"
        );
        assert_eq!(FrameHeader::decode(&bytes), Ok((header(), crc)));
    }

    #[test]
    fn every_flipped_bit_is_seen() {
        let (good, _) = header().encode();
        for bit in 0..FRAME * 8 {
            let mut bad = good;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(FrameHeader::decode(&bad), Err(NotAFrame::Bad), "bit {bit}");
        }
    }

    #[test]
    fn a_newer_version_is_told_from_a_bad_one() {
        let (mut bytes, _) = header().encode();
        bytes[4] = 2;
        let crc = crc32c(&bytes[..60]);
        bytes[60..].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(FrameHeader::decode(&bytes), Err(NotAFrame::Newer(2)));
    }

    #[test]
    fn lengths_are_bounded_and_a_seal_has_none() {
        for (kind, content_len) in [(FrameKind::Block, LARGEST_FRAMED as u32), (FrameKind::Seal, 1)] {
            let (bytes, _) = FrameHeader { kind, content_len, ..header() }.encode();
            assert_eq!(FrameHeader::decode(&bytes), Err(NotAFrame::Bad));
        }
        assert_eq!(FrameHeader::decode(&[0; 10]), Err(NotAFrame::Bad));
    }
}

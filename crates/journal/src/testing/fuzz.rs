//! The readers of bytes from a disk, for a fuzzer: whatever the bytes, they return.

use std::ops::Range;

use sabir_base::buf::BufPool;
use sabir_base::crc::crc32c;
use sabir_model::{Sequence, Term};

use crate::BlockView;
use crate::disk::DiskError;
use crate::frame::{FRAME, FrameHeader, FrameKind, STEP};
use crate::slots::HardState;
use crate::walk::{Chain, Found, Missing, Source, Window, next_frame, scan};

/// The generation that [`follow_frames`] takes a segment to have.
pub const FUZZ_GENERATION: u64 = 7;

/// Reads a content and all its entries; returns how many there are, or `None` if it is no content.
///
/// # Panics
/// When what it says does not lie inside it: a bug.
pub fn walk_content(content: &[u8]) -> Option<usize> {
    let view = BlockView::parse(content).ok()?;
    let mut count = 0;
    for entry in view.entries() {
        let entry = entry.ok()?;
        if let Some((offset, len)) = entry.payload {
            let payload = view.payload(offset, len).expect("an entry's payload was checked");
            assert_eq!(payload.len(), len as usize);
        }
        count += 1;
        assert!(count <= content.len(), "no more entries than bytes");
    }
    assert_eq!(count, view.len() as usize, "all entries or an error");
    Some(count)
}

struct Image<'a>(&'a [u8]);

impl Source for Image<'_> {
    fn len(&self) -> u64 {
        self.0.len() as u64
    }

    fn read(&self, pos: u64, buf: &mut [u8]) -> Result<(), DiskError> {
        let at = pos as usize;
        buf.copy_from_slice(&self.0[at..at + buf.len()]);
        Ok(())
    }
}

/// Follows the frames of a segment without its header, as recovery does, then scans what is behind the first bad one; returns the
/// sequence of the last good one.
///
/// # Panics
/// When a read goes beyond the bytes: a bug.
pub fn follow_frames(segment: &[u8]) -> u64 {
    let image = Image(segment);
    let pool = BufPool::new(4 << 20);
    let mut window = Window::new(&image, &pool);
    let (mut pos, mut chain, slot) = (0, Chain::START, HardState::default());
    let next = |window: &mut Window<'_, _>, pos, chain: &Chain| {
        next_frame(window, pos, FUZZ_GENERATION, chain, &slot).expect("memory does not fail")
    };
    while let Found::Frame(header, crc) = next(&mut window, pos, &chain) {
        chain = Chain::after(&header, crc);
        pos += header.framed_len() as u64;
    }
    let missing = Missing { sequence: chain.last.next(), chain: &chain, slot: &slot };
    let end = image.len().next_multiple_of(STEP);
    scan(&mut window, pos.min(end)..end, None, &missing).expect("memory does not fail");
    chain.last.0
}

/// Good frames around these contents, the first with sequence 1, as [`follow_frames`] reads them; and where each one's header and
/// content lie.
pub fn frame_contents(contents: &[&[u8]]) -> (Vec<u8>, Vec<Range<usize>>) {
    let (mut image, mut places, mut prev_crc) = (Vec::new(), Vec::new(), 0);
    for (sequence, content) in (1..).zip(contents) {
        let (frame, crc) = frame_content(sequence, prev_crc, content);
        places.push(image.len()..image.len() + FRAME + content.len());
        image.extend(frame);
        prev_crc = crc;
    }
    (image, places)
}

/// A good frame around a content, and its CRC.
pub(crate) fn frame_content(sequence: u64, prev_crc: u32, content: &[u8]) -> (Vec<u8>, u32) {
    let header = FrameHeader {
        kind: FrameKind::Block,
        generation: FUZZ_GENERATION,
        sequence: Sequence(sequence),
        term: Term(1),
        durable_through: Sequence(sequence - 1),
        content_len: content.len() as u32,
        content_crc: crc32c(content),
        prev_crc,
        cuts: 0,
    };
    let (bytes, crc) = header.encode();
    let mut frame = bytes.to_vec();
    frame.extend(content);
    frame.resize(header.framed_len(), 0);
    (frame, crc)
}

//! Dropping an uncommitted tail.

use std::sync::Arc;

use sabir_model::{Sequence, Term};

use crate::error::{CutError, StorageError};
use crate::frame::FrameKind;
use crate::journal::Journal;
use crate::segment::{SEGMENT_HEADER, Segment};
use crate::walk::{Chain, Found, Window, examine};

/// Where a frame ends, and what may follow it.
struct FrameEnd {
    segment: Arc<Segment>,
    pos: u64,
    chain: Chain,
}

impl Journal {
    /// Drains the writes in flight, then drops every block above `after`: `term`, the higher one in which the journal goes on,
    /// is made durable with the place of the cut before anything is overwritten. Nothing may be appended meanwhile. Blocking.
    ///
    /// # Errors
    /// See [`CutError`].
    pub fn cut(&self, after: Sequence, term: Term) -> Result<(), CutError> {
        let committed = self.committed();
        if after < committed {
            return Err(CutError::Committed { after, committed });
        }
        self.writer.lock().pause(&self.parts, true);
        let result = self.cut_paused(after, term);
        self.writer.lock().pause(&self.parts, false);
        result
    }

    fn cut_paused(&self, after: Sequence, term: Term) -> Result<(), CutError> {
        self.wait_until(|| self.writer.lock().drained(&self.parts))?;
        if after >= self.last() {
            return Ok(());
        }
        // What stays must be durable first: frames that the cut spares may go on to say so.
        self.flush(self.last())?;
        self.wait_until(|| self.writer.lock().drained(&self.parts))?;
        let end = self.end_of(after)?;
        let cut = self.save_slot(|slot| {
            slot.cuts += 1;
            (slot.first_cut, slot.cut_term) = (after.next(), term);
            slot.term = slot.term.max(term);
        });
        let slot = cut.map_err(|source| self.stop("write its slot", source))?;
        // The next block may not fit here and go to the next segment. The first old one must not seem to follow then, when
        // the slot has long come to speak of another cut.
        end.segment.file.blank(end.pos).map_err(|source| self.stop("cut", source))?;
        self.drop_above(after, end, slot.cuts);
        Ok(())
    }

    fn end_of(&self, after: Sequence) -> Result<FrameEnd, Arc<StorageError>> {
        let end = if after == Sequence::NONE {
            let first = self.parts.index.read().locate(1, 0);
            let start = SEGMENT_HEADER as u64;
            first.map(|first| FrameEnd { segment: first.segment, pos: start, chain: Chain::START })
        } else {
            self.end_of_block(after)?
        };
        // The blocks above `after` exist, so the one before them does; only a failing disk hides it.
        let missing = || crate::disk::DiskError::NotFound { path: format!("the frame of block {after}") };
        end.ok_or_else(|| self.stop("cut", missing()))
    }

    fn end_of_block(&self, sequence: Sequence) -> Result<Option<FrameEnd>, Arc<StorageError>> {
        let Some(found) = self.parts.index.read().locate(sequence.0, sequence.0) else { return Ok(None) };
        let segment = found.segment;
        let examined = {
            let mut window = Window::new(&segment.file, &self.parts.pool);
            examine(&mut window, found.start, segment.generation)
        };
        match examined.map_err(|source| self.stop("cut", source))? {
            Found::Frame(header, crc) if header.sequence == sequence && header.kind == FrameKind::Block => {
                let pos = found.start + header.framed_len() as u64;
                Ok(Some(FrameEnd { segment, pos, chain: Chain::after(&header, crc) }))
            }
            _ => Ok(None),
        }
    }

    fn drop_above(&self, after: Sequence, end: FrameEnd, cuts: u32) {
        let mut writer = self.writer.lock();
        let emptied = self.parts.index.write().cut(after.0);
        let unused = emptied.into_iter().filter(|segment| segment.no > end.segment.no).collect();
        self.parts.segment_pool.put_back(unused);
        self.parts.tail.cut(after.0);
        writer.restart(end.segment, end.pos, &end.chain, cuts);
        self.publish(&writer);
    }
}

//! Reading the blocks again, in order, each verified.

use bytes::Bytes;
use sabir_base::crc::crc32c;
use sabir_model::{Sequence, Term};

use crate::error::JournalError;
use crate::frame::{FRAME, FrameHeader, FrameKind};
use crate::index::Located;
use crate::journal::Journal;

/// What is read at once, in bytes; more than the largest frame.
const READ_BYTES: u64 = 2 << 20;

/// A block handed to a replay.
#[derive(Debug, Clone)]
pub struct Replayed {
    /// Its place.
    pub sequence: Sequence,
    /// The term it was appended in.
    pub term: Term,
    /// Its content, verified against its checksum.
    pub content: Bytes,
}

impl Journal {
    /// Hands the committed blocks after `after` to `each`, in order, each verified. Blocking.
    ///
    /// # Errors
    /// A bad block or a failed read, as `E`; or what `each` returns.
    pub fn replay<E: From<JournalError>>(
        &self,
        after: Sequence,
        each: &mut dyn FnMut(Replayed) -> Result<(), E>,
    ) -> Result<(), E> {
        self.replay_range(after, self.committed(), each)
    }

    /// As [`replay`](Self::replay), up to `through`, committed or not.
    pub(crate) fn replay_range<E: From<JournalError>>(
        &self,
        after: Sequence,
        through: Sequence,
        each: &mut dyn FnMut(Replayed) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut ahead: Option<Ahead> = None;
        for sequence in after.0 + 1..=through.0 {
            let located = self.locate(sequence)?;
            let replayed = match &ahead {
                Some(window) if window.covers(&located) => window.block(sequence, &located)?,
                _ => {
                    // Dropped first: the pool then gives the same memory again.
                    drop(ahead.take());
                    let window = self.read_ahead(&located)?;
                    let replayed = window.block(sequence, &located)?;
                    ahead = Some(window);
                    replayed
                }
            };
            each(replayed)?;
        }
        Ok(())
    }

    fn locate(&self, sequence: u64) -> Result<Located, JournalError> {
        let index = self.parts.index.read();
        let stable = self.last().0;
        index.locate(sequence, stable).ok_or_else(|| JournalError::Missing {
            sequence: Sequence(sequence),
            first: Sequence(index.first().unwrap_or(0)),
        })
    }

    fn read_ahead(&self, located: &Located) -> Result<Ahead, JournalError> {
        let end = (located.start + READ_BYTES).min(located.stable_end).max(located.end);
        let mut buf = self.parts.pool.get((end - located.start) as usize);
        let read = located.segment.file.read(located.start, &mut buf);
        read.map_err(JournalError::disk("read a segment"))?;
        Ok(Ahead { file: located.segment.file.number, start: located.start, bytes: buf.freeze() })
    }
}

/// Frames that were read at once.
struct Ahead {
    file: u32,
    start: u64,
    bytes: Bytes,
}

impl Ahead {
    fn covers(&self, located: &Located) -> bool {
        self.file == located.segment.file.number
            && self.start <= located.start
            && located.end <= self.start + self.bytes.len() as u64
    }

    fn block(&self, sequence: u64, located: &Located) -> Result<Replayed, JournalError> {
        let frame = &self.bytes[(located.start - self.start) as usize..(located.end - self.start) as usize];
        let good = FrameHeader::decode(frame).ok().map(|(header, _)| header).filter(|header| {
            header.kind == FrameKind::Block
                && header.generation == located.segment.generation
                && header.sequence.0 == sequence
        });
        let content = good.and_then(|header| frame.get(FRAME..FRAME + header.content_len as usize));
        match (good, content) {
            (Some(header), Some(content)) if crc32c(content) == header.content_crc => Ok(Replayed {
                sequence: header.sequence,
                term: header.term,
                content: self.bytes.slice_ref(content),
            }),
            _ => Err(JournalError::Corrupt {
                file: located.segment.file.name(),
                position: located.start,
                sequence: Sequence(sequence),
                reason: "the block that stood there is not good any more".into(),
            }),
        }
    }
}

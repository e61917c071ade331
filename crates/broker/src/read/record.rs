//! One batch by an offset in it, with its place: for entries that refer to a record of it.

use bytes::Bytes;
use sabir_model::batch::verify_crc;
use sabir_model::{FrontendNo, LeaderEpoch, Offset, PartitionId, ReadError, Sequence};

use super::assemble::{is_consistent, take_stored};
use super::plan::{Piece, Plan};
use super::source::Got;
use crate::partition::{Place, Run, RunKind};
use crate::shard::Shard;

/// A batch and where it lies.
#[derive(Debug, Clone)]
pub(crate) struct StoredBatch {
    pub(crate) bytes: Bytes,
    /// The offset of its first record, and the one behind its last.
    pub(crate) base: Offset,
    pub(crate) next: Offset,
    pub(crate) block: Sequence,
    /// Where its bytes begin in the block's content.
    pub(crate) at: u32,
    /// The front end that built it.
    pub(crate) origin: FrontendNo,
}

impl Shard {
    /// The batch that holds an offset; none if that is gone. Blocking.
    ///
    /// # Errors
    /// It is damaged, too large to be one piece, or not stored as a batch of this partition; the disk.
    pub(crate) fn batch_at(&self, id: PartitionId, offset: Offset) -> Result<Option<StoredBatch>, ReadError> {
        let run = match self.run_at(id, offset) {
            Ok(Some(run)) => run,
            Ok(None) | Err(ReadError::OutOfRange { .. } | ReadError::UnknownPartition) => return Ok(None),
            Err(error) => return Err(error),
        };
        if run.kind != RunKind::Whole {
            return Err(ReadError::Corrupt);
        }
        let piece = Piece { run, epoch: LeaderEpoch::UNKNOWN, overlay: None };
        self.with_bytes(id, &piece, |got| batch_in(id, &run, offset, &got)).map(Some)
    }

    /// The offset behind all that cannot be read, or is gone, as the record at `offset` is: behind its batch, or where that is not found, behind all that
    /// was stored together with it. Blocking.
    pub(crate) fn unreadable_end(&self, id: PartitionId, offset: Offset) -> Offset {
        let next = Offset(offset.0.saturating_add(1));
        let run = match self.run_at(id, offset) {
            Ok(Some(run)) => run,
            Ok(None) => return next,
            // Their page of the index cannot be read.
            Err(_) => return self.page_end(id, offset).map_or(next, |end| end.max(next)),
        };
        let piece = Piece { run, epoch: LeaderEpoch::UNKNOWN, overlay: None };
        let end = match run.kind {
            RunKind::Whole => self.fetch(id, &piece).and_then(|got| end_in(id, &run, offset, &got)),
            _ => Ok(run.next()),
        };
        end.unwrap_or(run.next()).max(next)
    }

    fn page_end(&self, id: PartitionId, offset: Offset) -> Option<Offset> {
        match self.state.read().partition(id)?.index.find(offset)? {
            Place::Closed(page) => Some(page.next),
            Place::Open(_) => None,
        }
    }

    fn run_at(&self, id: PartitionId, offset: Offset) -> Result<Option<Run>, ReadError> {
        let plan = self.plan_blocking(id, Plan::new(offset, 1))?;
        Ok(plan.pieces.first().map(|piece| piece.run))
    }
}

/// The end of a run's batch that holds an offset.
fn end_in(id: PartitionId, run: &Run, offset: Offset, got: &Got) -> Result<Offset, ReadError> {
    if !is_consistent(&got.bytes, run, id) {
        return Err(ReadError::Corrupt);
    }
    let (mut rest, mut base) = (got.bytes.clone(), run.base);
    while base <= offset {
        (_, base) = take_stored(&mut rest, base, run, id)?;
    }
    Ok(base)
}

/// The batch of a run that holds an offset.
fn batch_in(id: PartitionId, run: &Run, offset: Offset, got: &Got) -> Result<StoredBatch, ReadError> {
    let (mut rest, mut base) = (got.bytes.clone(), run.base);
    let is_misled = got.cold && !is_consistent(&got.bytes, run, id);
    while !rest.is_empty() {
        let at = run.offset + (run.len - rest.len() as u32);
        let (bytes, next) = take_stored(&mut rest, base, run, id)?;
        if is_misled || got.cold && offset < next {
            verify_crc(&bytes).map_err(|_| ReadError::Corrupt)?;
        }
        if offset < next {
            let &Run { block, origin, .. } = run;
            return Ok(StoredBatch { bytes, base, next, block, at, origin });
        }
        base = next;
    }
    Err(ReadError::Corrupt)
}

//! What the applying of a front end's entry may do beside changing its own projection.

use bytes::Bytes;
use sabir_model::{AppendError, Sequence};

use super::{At, Partitions};
use crate::append::Appended;
use crate::entry::OfferedBatch;

/// What the applying of an entry may use, and do in its shard: the block it is in, what came with it, and the records.
///
/// All of it is the same on every replica and in every replay.
pub struct Effects<'a> {
    partitions: &'a mut Partitions,
    at: &'a At,
    seed: u64,
    batches: Vec<OfferedBatch>,
    /// Where the first of them begins in the block's content.
    offset: u32,
    appended: Vec<bool>,
}

/// What the applying of a front end's entry came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FrontendAnswer {
    pub(crate) bytes: Bytes,
    /// Which of its batches were appended, and are no duplicates.
    pub(crate) appended: Vec<bool>,
}

impl<'a> Effects<'a> {
    pub(super) fn new(
        partitions: &'a mut Partitions,
        at: &'a At,
        seed: u64,
        batches: Vec<OfferedBatch>,
        offset: u32,
    ) -> Self {
        let appended = vec![false; batches.len()];
        Self { partitions, at, seed, batches, offset, appended }
    }

    /// The block's time, in milliseconds since the epoch. It never falls from entry to entry.
    pub fn time_ms(&self) -> i64 {
        self.at.time_ms
    }

    /// The random number that the entry brought, or 0 if it asked for none.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// The block that the entry is in.
    pub fn block(&self) -> Sequence {
        self.at.sequence
    }

    /// How many batches the entry brought.
    pub fn batches(&self) -> usize {
        self.batches.len()
    }

    /// Appends a batch that the entry brought, counted from 0, to the partition that it was made for. One that is not appended is nowhere.
    ///
    /// # Errors
    /// [`AppendError::UnknownPartition`] if the partition was deleted meanwhile; what its producer's mark is refused with;
    /// [`AppendError::NoSuchBatch`] if there is no such batch, or it was appended already.
    pub fn append(&mut self, batch: usize) -> Result<Appended, AppendError> {
        let offered = self.batches.get(batch).filter(|_| !self.appended[batch]);
        let offered = offered.ok_or(AppendError::NoSuchBatch)?;
        let before: u32 = self.batches[..batch].iter().map(|batch| batch.len).sum();
        let payload = (self.offset + before, offered.len);
        let appended = self.partitions.append(&offered.append, payload, self.at).first()?;
        self.appended[batch] = !appended.duplicate;
        Ok(appended)
    }

    pub(super) fn appended(self) -> Vec<bool> {
        self.appended
    }
}

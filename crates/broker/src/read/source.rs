//! The bytes of a run: from the tail cache, or from the disk.

use std::time::Instant;

use bytes::{Bytes, BytesMut};
use sabir_journal::{BlockReadError, ColdRead, Read};
use sabir_model::{PartitionId, ReadError, Sequence};

use super::plan::Piece;
use crate::partition::{Chunk, SpillKey, decode_chunks};
use crate::shard::Shard;

/// Bytes, and whether they came from the disk, so that their batches' checksums are to be verified.
#[derive(Debug)]
pub(super) struct Got {
    pub(super) bytes: Bytes,
    /// What differs for the partition; it has a checksum of its own.
    pub(super) overlay: Option<Bytes>,
    pub(super) cold: bool,
}

impl Shard {
    /// A run's bytes, if they are in memory.
    pub(super) fn in_memory(&self, piece: &Piece) -> Result<Option<Got>, ReadError> {
        if piece.is_fragmented() {
            return Ok(None);
        }
        let run = &piece.run;
        let read = self.read_block(run.block, run.offset, run.len)?;
        let Ok(mut got) = self.without_disk(read) else { return Ok(None) };
        if let Some(place) = &piece.overlay {
            let read = self.read_block(place.block, place.offset, place.len)?;
            let Ok(overlay) = self.without_disk(read) else { return Ok(None) };
            got.overlay = Some(overlay.bytes);
        }
        Ok(Some(got))
    }

    /// Bytes in memory, or the read that gets them.
    fn without_disk(&self, read: Read) -> Result<Got, ColdRead> {
        match read {
            Read::Hot(bytes) => {
                self.meters.cache_hits.add(1);
                self.meters.hot_bytes.add(bytes.len());
                Ok(Got { bytes, overlay: None, cold: false })
            }
            Read::Ahead(bytes) => {
                self.meters.ahead_hits.add(1);
                Ok(Got { bytes, overlay: None, cold: true })
            }
            Read::Cold(cold) => Err(cold),
        }
    }

    /// A run's bytes, wherever they are. Blocking.
    pub(super) fn fetch(&self, partition: PartitionId, piece: &Piece) -> Result<Got, ReadError> {
        if piece.is_fragmented() {
            return self.fetch_fragmented(partition, piece);
        }
        let mut got = self.fetch_part(piece.run.block, piece.run.offset, piece.run.len)?;
        if let Some(place) = &piece.overlay {
            got.overlay = Some(self.fetch_part(place.block, place.offset, place.len)?.bytes);
        }
        Ok(got)
    }

    fn fetch_part(&self, block: Sequence, offset: u32, len: u32) -> Result<Got, ReadError> {
        let read = self.read_block(block, offset, len)?;
        let cold = match self.without_disk(read) {
            Ok(got) => return Ok(got),
            Err(cold) => cold,
        };
        let bytes = cold.run().map_err(|error| self.read_failed(&error))?;
        self.read_ahead();
        self.meters.disk_reads.add(1);
        Ok(Got { bytes, overlay: None, cold: true })
    }

    /// Has loaded what readers will come to soon, on threads that may block.
    pub(super) fn read_ahead(&self) {
        while let Some(ahead) = self.journal.take_read_ahead() {
            tokio::task::spawn_blocking(move || ahead.run());
        }
    }

    fn fetch_fragmented(&self, partition: PartitionId, piece: &Piece) -> Result<Got, ReadError> {
        let mut all = BytesMut::with_capacity(piece.run.len as usize);
        let mut cold = false;
        for number in 0..=u16::MAX {
            if all.len() >= piece.run.len as usize {
                break;
            }
            for chunk in self.chunks(&SpillKey::fragmented(partition, piece.run.base, number))? {
                let got = self.fetch_part(chunk.block, chunk.offset, chunk.len)?;
                all.extend_from_slice(&got.bytes);
                cold |= got.cold;
            }
        }
        Ok(Got { bytes: all.freeze(), overlay: None, cold })
    }

    fn chunks(&self, key: &SpillKey) -> Result<Vec<Chunk>, ReadError> {
        let page = self.stored_page(key)?.ok_or_else(|| self.bad_page(key, &"it is not there"))?;
        decode_chunks(&page).map_err(|error| self.bad_page(key, &error))
    }

    fn read_block(&self, block: Sequence, offset: u32, len: u32) -> Result<Read, ReadError> {
        self.journal.read(block, offset, len).map_err(|error| self.read_failed(&error))
    }

    fn read_failed(&self, error: &BlockReadError) -> ReadError {
        match error {
            // Retention was faster than the reader, which looks at the log start again.
            BlockReadError::Released { .. } => ReadError::Deleted,
            BlockReadError::Corrupt { .. } => {
                self.say_why(error);
                ReadError::Corrupt
            }
            BlockReadError::NotCommitted { .. }
            | BlockReadError::OutOfBounds { .. }
            | BlockReadError::Disk { .. } => {
                self.say_why(error);
                ReadError::Storage
            }
        }
    }

    /// Whose records it were is said elsewhere; this is what was found on the disk, or what that answered.
    fn say_why(&self, error: &BlockReadError) {
        if self.reads.damages.may_say_why(Instant::now()) {
            tracing::error!(shard = %self.id, %error, "a read failed");
        }
    }
}

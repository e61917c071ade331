//! The bytes of a run: from the tail cache, or from the disk.

use std::time::Instant;

use bytes::{Bytes, BytesMut};
use sabir_journal::{BlockReadError, ColdRead, Read};
use sabir_model::{PartitionId, ReadError, Sequence};
use tokio::runtime::Handle;

use super::damage::DamageCause;
use super::plan::Piece;
use crate::partition::{Chunk, PartitionState, Run, SpillKey, decode_chunks};
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

    /// What `make` makes of a run's bytes, wherever they are. Where they are corrupt they are read a second time: it may have been the
    /// read that was wrong, and memory keeps what it gave. Blocking.
    pub(super) fn with_bytes<T>(
        &self,
        partition: PartitionId,
        piece: &Piece,
        mut make: impl FnMut(Got) -> Result<T, ReadError>,
    ) -> Result<T, ReadError> {
        let first = self.fetch(partition, piece).and_then(&mut make);
        if !matches!(first, Err(ReadError::Corrupt)) {
            return first;
        }
        let now = Instant::now();
        if self.reads.damages.may_read_anew(partition, piece.run.base, now) {
            self.forget_reads(partition, piece);
        }
        // Another thread may have had it read anew just now.
        let made = self.fetch(partition, piece).and_then(make)?;
        self.reads.damages.forget(partition, DamageCause::Corrupt, piece.run.base..piece.run.next());
        if self.reads.damages.may_say_why(now) {
            let block = piece.run.block.0;
            tracing::warn!(shard = %self.id, block, "what the disk gave was corrupt, and good when it was read again");
        }
        Ok(made)
    }

    /// Drops what is kept of earlier reads of a run.
    fn forget_reads(&self, partition: PartitionId, piece: &Piece) {
        let Ok(chunks) = self.chunks_of(partition, piece) else { return };
        chunks.iter().for_each(|chunk| self.journal.forget(chunk.block, chunk.offset, chunk.len));
        if let Some(place) = &piece.overlay {
            self.journal.forget(place.block, place.offset, place.len);
        }
    }

    /// Where the bytes of a run lie.
    fn chunks_of(&self, partition: PartitionId, piece: &Piece) -> Result<Vec<Chunk>, ReadError> {
        let run = &piece.run;
        if !piece.is_fragmented() {
            return Ok(vec![Chunk { block: run.block, offset: run.offset, len: run.len }]);
        }
        let (mut all, mut len) = (Vec::new(), 0);
        for number in 0..=u16::MAX {
            if len >= u64::from(run.len) {
                break;
            }
            let chunks = self.chunks(partition, run, number)?;
            len += chunks.iter().map(|chunk| u64::from(chunk.len)).sum::<u64>();
            all.extend(chunks);
        }
        Ok(all)
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

    /// Has loaded what readers will come to soon, on threads that may block. A caller on none of the runtime's threads leaves it to the next one that
    /// is: it goes on for as long as readers read on.
    pub(super) fn read_ahead(&self) {
        let Ok(runtime) = Handle::try_current() else { return };
        while let Some(ahead) = self.journal.take_read_ahead() {
            runtime.spawn_blocking(move || ahead.run());
        }
    }

    fn fetch_fragmented(&self, partition: PartitionId, piece: &Piece) -> Result<Got, ReadError> {
        let mut all = BytesMut::with_capacity(piece.run.len as usize);
        let mut cold = false;
        for chunk in self.chunks_of(partition, piece)? {
            let got = self.fetch_part(chunk.block, chunk.offset, chunk.len)?;
            all.extend_from_slice(&got.bytes);
            cold |= got.cold;
        }
        Ok(Got { bytes: all.freeze(), overlay: None, cold })
    }

    fn chunks(&self, partition: PartitionId, run: &Run, number: u16) -> Result<Vec<Chunk>, ReadError> {
        let key = SpillKey::fragmented(partition, run.base, number);
        let Some(page) = self.stored_page(&key)? else {
            let is_kept = |partition: &PartitionState| partition.log_start < run.next();
            let is_kept = self.state.read().partition(partition).is_some_and(is_kept);
            // What is let go of while it is read goes with its pages.
            return Err(match is_kept {
                true => self.bad_page(&key, DamageCause::Index, &"it is not there"),
                false => ReadError::Deleted,
            });
        };
        let chunks = decode_chunks(&page).map_err(|error| self.bad_page(&key, DamageCause::Index, &error))?;
        self.reads.damages.forget(partition, DamageCause::Index, run.base..run.next());
        Ok(chunks)
    }

    pub(super) fn read_block(&self, block: Sequence, offset: u32, len: u32) -> Result<Read, ReadError> {
        self.journal.read(block, offset, len).map_err(|error| self.read_failed(&error))
    }

    pub(super) fn read_failed(&self, error: &BlockReadError) -> ReadError {
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

//! From stored runs to batches a reader can use.

use bytes::{Bytes, BytesMut};
use sabir_model::batch::{BatchHeader, patch_base_offset, patch_leader_epoch, stored_for, verify_crc};
use sabir_model::{Offset, PartitionId, ReadError};

use super::fetch::ReadSpec;
use super::memory::{ReadGrant, held, own};
use super::plan::Piece;
use super::rebuild::rebuild;
use super::source::Got;
use super::types::Slice;
use crate::partition::{Run, RunKind};

/// Batches from this size on are not copied.
const SHARED: usize = 4 << 10;
/// The bytes in front of a batch that differ from the stored ones: base offset, length, leader epoch.
const PATCHED: usize = 16;

/// Takes the batch at the front of a run's bytes, whose base offset is `base`, and gives the offset behind it. Another partition's stands
/// there where a disk wrote it in the wrong place.
pub(super) fn take_stored(
    rest: &mut Bytes,
    base: Offset,
    run: &Run,
    partition: PartitionId,
) -> Result<(Bytes, Offset), ReadError> {
    let header = BatchHeader::parse(rest).map_err(|_| ReadError::Corrupt)?;
    let (len, next) = (header.total_len(), Offset(base.0 + i64::from(header.last_offset_delta) + 1));
    let foreign = stored_for(header.base_offset).is_some_and(|of| of != partition);
    if foreign || len > rest.len() || next > run.next() {
        return Err(ReadError::Corrupt);
    }
    Ok((rest.split_to(len), next))
}

/// Whether the headers of a run's batches lead from its first record to its last. If not, one of them is wrong, and says the wrong offset of whatever
/// lies behind it.
pub(super) fn is_consistent(bytes: &Bytes, run: &Run, partition: PartitionId) -> bool {
    let (mut rest, mut base) = (bytes.clone(), run.base);
    while !rest.is_empty() {
        let Ok((_, next)) = take_stored(&mut rest, base, run, partition) else { return false };
        base = next;
    }
    base == run.next()
}

/// Slices in the making.
#[derive(Debug)]
pub(super) struct Assembly {
    partition: PartitionId,
    /// The largest batch that is taken without memory of its own.
    unheld: usize,
    /// Whether a larger one is copied although it is cached.
    owns: bool,
    /// Memory for the first batch.
    grant: Option<Box<dyn ReadGrant>>,
    from: Offset,
    left: usize,
    /// Whether the next batch is taken whatever its size.
    must: bool,
    slices: Vec<Slice>,
    /// Patched fronts of large batches, and small batches whole; slices share its memory.
    buffer: BytesMut,
    /// The slice that the buffer's content belongs to.
    small: Option<Slice>,
}

/// What to do after a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    More,
    Enough,
    /// The first batch is to hold so many bytes of memory.
    Lacks(usize),
}

impl Assembly {
    /// Takes what is asked for; with memory for the first batch, if there is some.
    pub(super) fn new(spec: &ReadSpec, grant: Option<Box<dyn ReadGrant>>) -> Self {
        Self {
            partition: spec.partition,
            unheld: spec.unheld,
            owns: spec.owns,
            grant,
            from: spec.from,
            left: spec.max_bytes,
            must: spec.min_one,
            slices: Vec::new(),
            buffer: BytesMut::new(),
            small: None,
        }
    }

    /// Whether a batch of `len` bytes would be taken.
    pub(super) fn takes(&self, len: usize) -> bool {
        self.must || len <= self.left
    }

    /// What comes before a batch of `len` bytes is taken: memory, or what was taken goes without it. It need not be if it is `cached` and slices of it
    /// do.
    pub(super) fn lacks(&self, len: usize, cached: bool) -> Option<Next> {
        if len <= self.unheld || self.grant.is_some() || cached && !self.owns {
            return None;
        }
        Some(if self.must { Next::Lacks(len) } else { Next::Enough })
    }

    /// Takes memory for the first batch; where there is none to be had it goes without.
    pub(super) fn hold(&mut self, grant: Option<Box<dyn ReadGrant>>) {
        if grant.is_none() {
            self.unheld = usize::MAX;
        }
        self.grant = grant;
    }

    /// Adds the batches of a run, but for those that it has already.
    pub(super) fn add(&mut self, piece: &Piece, got: Got) -> Result<Next, ReadError> {
        if piece.run.kind == RunKind::Reference {
            return self.add_reference(piece, &got);
        }
        let mut base = piece.run.base;
        let from = self.from.max(self.next_from(base));
        // Each batch of what was copied for this read is given alone: one that is long on its way is not to hold all others.
        let is_copy = got.bytes.is_unique();
        let is_misled = got.cold && !is_consistent(&got.bytes, &piece.run, self.partition);
        let (cold, len) = (got.cold, got.bytes.len());
        // The only batch of what was read for this reader is not copied once more.
        let mut rest = got.bytes;
        while !rest.is_empty() {
            let (batch, next) = take_stored(&mut rest, base, &piece.run, self.partition)?;
            if next <= from {
                if is_misled {
                    verify_crc(&batch).map_err(|_| ReadError::Corrupt)?;
                }
            } else {
                if !self.takes(batch.len()) {
                    return Ok(Next::Enough);
                }
                if let Some(next) = self.lacks(batch.len(), !cold) {
                    return Ok(next);
                }
                if cold {
                    verify_crc(&batch).map_err(|_| ReadError::Corrupt)?;
                }
                let alone = self.grant.is_none() && is_copy && (SHARED..len).contains(&batch.len());
                let batch = if alone { Bytes::copy_from_slice(&batch) } else { batch };
                self.take(piece, base, next, batch, rest.len());
            }
            base = next;
        }
        if base == piece.run.next() { Ok(Next::More) } else { Err(ReadError::Corrupt) }
    }

    fn add_reference(&mut self, piece: &Piece, got: &Got) -> Result<Next, ReadError> {
        if let Some(next) = self.lacks(piece.run.len as usize, false) {
            return Ok(next);
        }
        if got.cold {
            verify_crc(&got.bytes).map_err(|_| ReadError::Corrupt)?;
        }
        let batch = rebuild(&got.bytes, got.overlay.as_ref(), &piece.run)?;
        if !self.takes(batch.len()) {
            return Ok(Next::Enough);
        }
        self.take(piece, piece.run.base, piece.run.next(), batch, 0);
        Ok(Next::More)
    }

    /// `behind` bytes follow in the same run.
    fn take(&mut self, piece: &Piece, base: Offset, next: Offset, batch: Bytes, behind: usize) {
        self.left = self.left.saturating_sub(batch.len());
        self.must = false;
        let slice = Slice {
            base_offset: base,
            next_offset: next,
            leader_epoch: piece.epoch,
            origin: piece.run.origin,
            head: Bytes::new(),
            body: Bytes::new(),
            is_held: false,
        };
        if let Some(grant) = self.grant.take() {
            self.keep(slice, batch, grant);
        } else if batch.len() >= SHARED {
            self.share(slice, batch);
        } else {
            self.copy(slice, &batch, behind);
        }
    }

    /// Takes the first batch, with the memory that it holds.
    fn keep(&mut self, mut slice: Slice, batch: Bytes, grant: Box<dyn ReadGrant>) {
        let mut batch = own(batch);
        patch(&mut batch, &slice);
        (slice.body, slice.is_held) = (held(batch, grant), true);
        self.slices.push(slice);
    }

    fn share(&mut self, mut slice: Slice, batch: Bytes) {
        self.close_small();
        self.put(&slice, &batch[..PATCHED]);
        slice.head = self.buffer.split().freeze();
        slice.body = batch.slice(PATCHED..);
        self.slices.push(slice);
    }

    fn copy(&mut self, slice: Slice, batch: &Bytes, behind: usize) {
        let joins = self.small.as_ref().is_some_and(|small| {
            small.next_offset == slice.base_offset
                && small.leader_epoch == slice.leader_epoch
                && small.origin == slice.origin
        });
        if !joins {
            self.close_small();
        }
        if self.buffer.capacity() - self.buffer.len() < batch.len() {
            self.buffer.reserve(batch.len() + behind.min(self.left));
        }
        self.put(&slice, batch);
        match &mut self.small {
            Some(small) => small.next_offset = slice.next_offset,
            none => *none = Some(slice),
        }
    }

    /// Copies a batch, or the front of one, and patches it.
    fn put(&mut self, slice: &Slice, bytes: &[u8]) {
        let at = self.buffer.len();
        self.buffer.extend_from_slice(bytes);
        patch(&mut self.buffer[at..], slice);
    }

    fn close_small(&mut self) {
        if let Some(mut small) = self.small.take() {
            small.body = self.buffer.split().freeze();
            self.slices.push(small);
        }
    }

    /// The offset behind what was taken, or `base` if that comes later.
    pub(super) fn next_from(&self, base: Offset) -> Offset {
        let last = self.small.as_ref().or(self.slices.last());
        last.map_or(base, |slice| slice.next_offset.max(base))
    }

    /// Whether nothing was taken yet.
    pub(super) fn is_empty(&self) -> bool {
        self.slices.is_empty() && self.small.is_none()
    }

    pub(super) fn finish(mut self) -> Vec<Slice> {
        self.close_small();
        self.slices
    }
}

fn patch(batch: &mut [u8], slice: &Slice) {
    patch_base_offset(batch, slice.base_offset);
    patch_leader_epoch(batch, slice.leader_epoch);
}

#[cfg(test)]
mod tests {
    use sabir_model::batch::{BatchBuilder, Compression};
    use sabir_model::{FrontendNo, LeaderEpoch, Sequence};

    use super::*;

    fn batch(base: i64) -> Bytes {
        let mut builder = BatchBuilder::new(Compression::None).base_offset(Offset(base));
        builder.push(0, None, Some(&[b'x'; 50_000]), &[]);
        builder.build()
    }

    fn run_of(bytes: &Bytes, records: u32) -> Run {
        Run {
            base: Offset(0),
            block: Sequence(1),
            max_ts: 0,
            offset: 0,
            len: bytes.len() as u32,
            records,
            first_record: 0,
            origin: FrontendNo(0),
            kind: RunKind::Whole,
        }
    }

    fn all_from(from: i64) -> ReadSpec {
        ReadSpec {
            partition: PartitionId(1),
            from: Offset(from),
            max_bytes: usize::MAX,
            min_one: true,
            until: std::time::Instant::now(),
            unheld: usize::MAX,
            owns: false,
        }
    }

    /// What is taken of a run of three large batches, from the last one on, and whether it is a slice of them.
    fn last_of(bytes: Bytes) -> (bool, Slice) {
        let run = run_of(&bytes, 3);
        let piece = Piece { run, epoch: LeaderEpoch(0), overlay: None };
        let got = Got { bytes, overlay: None, cold: false };
        let range = got.bytes.as_ptr_range();
        let mut assembly = Assembly::new(&all_from(2), None);
        assert_eq!(assembly.add(&piece, got), Ok(Next::More));
        let slice = assembly.finish().pop().expect("it is taken");
        (range.contains(&slice.body.as_ptr()), slice)
    }

    /// The offsets of the batches that a reader is given which begins at one.
    fn read_from(from: i64, bytes: &Bytes) -> Result<Vec<(i64, i64)>, ReadError> {
        let piece = Piece { run: run_of(bytes, 30), epoch: LeaderEpoch(0), overlay: None };
        let got = Got { bytes: bytes.clone(), overlay: None, cold: true };
        let mut assembly = Assembly::new(&all_from(from), None);
        match assembly.add(&piece, got) {
            Err(error) if assembly.is_empty() => Err(error),
            _ => {
                let slices = assembly.finish();
                let batches = slices.iter().flat_map(|slice| {
                    let bytes = slice.joined().to_vec();
                    let headers: Vec<_> = sabir_model::batch::split(&bytes).map(|b| b.unwrap().0).collect();
                    headers.into_iter().map(|header| {
                        let base = header.base_offset.0;
                        (base, base + i64::from(header.last_offset_delta) + 1)
                    })
                });
                Ok(batches.collect())
            }
        }
    }

    #[test]
    fn no_record_is_given_with_anothers_offset_behind_a_damaged_header() {
        let ten = |base: i64| {
            let mut builder = BatchBuilder::new(Compression::None).base_offset(Offset(base));
            (0..10).for_each(|_| builder.push(0, None, Some(b"value"), &[]));
            builder.build()
        };
        let whole = [ten(0), ten(10), ten(20)].concat();
        let sound = Bytes::from(whole.clone());
        assert_eq!(read_from(15, &sound), Ok(vec![(10, 20), (20, 30)]));
        for (at, others) in [(0, [5, 15, 25]), (1, [15, 25, 25])] {
            // The last byte of the last offset's delta, 9 before.
            let delta = at * ten(0).len() + 26;
            for changed in [8, 11, 19] {
                let mut damaged = whole.clone();
                assert_eq!(std::mem::replace(&mut damaged[delta], changed), 9);
                for from in others {
                    assert_eq!(read_from(from, &Bytes::from(damaged.clone())), Err(ReadError::Corrupt));
                }
                if at == 1 {
                    assert_eq!(read_from(5, &Bytes::from(damaged.clone())), Ok(vec![(0, 10)]));
                }
            }
        }
        // What is damaged, and leads to the next one, is passed over.
        let mut damaged = whole.clone();
        damaged[ten(0).len() - 3] ^= 1;
        assert_eq!(read_from(15, &Bytes::from(damaged)), Ok(vec![(10, 20), (20, 30)]));
    }

    #[test]
    fn a_batch_of_what_was_copied_does_not_hold_the_others() {
        let whole = [batch(0), batch(1), batch(2)].concat();
        let cached = Bytes::from(whole.clone());
        let (is_in, shared) = last_of(cached.clone());
        assert!(is_in);
        let (is_in, alone) = last_of(Bytes::from(whole));
        assert!(!is_in);
        assert_eq!((alone.head, alone.body), (shared.head, shared.body));
        drop(cached);
    }
}

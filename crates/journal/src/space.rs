//! The segments that the writer will need: made and zeroed ahead, recycled, and two of them kept for when the disk is full.
//!
//! ```text
//!    create ──► raw ──zero──► header ──┐                     (zeroed as fast as the writer fills the one before)
//!                                      ├──► ready (in order) ──► the writer ──► live ──► released ──► free ─┐
//!    free ─────────────────► header ───┘                                                                    │
//!      ▲────────────────────────────────────────────────────────────────────────────────────────────────────┘
//! ```

use std::collections::VecDeque;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use parking_lot::Mutex;
use sabir_base::buf::BufPool;

use crate::disk::{Disk, DiskError};
use crate::frame::STEP;
use crate::segment::{SEGMENT_HEADER, Segment, SegmentFile, SegmentHeader, SegmentNo, file_name};
use crate::slots::{HardState, Slots};

/// Segments that ordinary entries never take.
pub(crate) const RESERVE: usize = 2;
/// Dead segments kept for recycling: about what dies between two checkpoints. More are given back to the file system.
const KEEP_FREE_SEGMENTS: usize = 16;
/// Zeroing goes in steps of at most this many bytes, so that it delays a commit by no more than one of them.
const ZERO_STEP: usize = 1 << 20;

/// How far preparing has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Prepared {
    /// The pool is full, or as full as it is to be for now.
    Full,
    /// A part of the next segment was zeroed: to be called again soon.
    Zeroing,
    /// There is no space for more, another prepares, or the journal has stopped.
    Short,
}

/// A file whose first bytes are zeroed.
#[derive(Debug)]
pub(crate) struct Zeroing {
    file: SegmentFile,
    at: u64,
}

/// What the pool is made with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SegmentPoolLimits {
    pub segment_bytes: u64,
    pub max_bytes: Option<u64>,
    pub keep_free: u64,
}

/// Segment files that hold no block.
#[derive(Debug)]
pub(crate) struct SegmentPool {
    disk: Arc<dyn Disk>,
    pool: Arc<BufPool>,
    limits: SegmentPoolLimits,
    journal: u64,
    /// Says which segment was made last.
    slots: Arc<Mutex<Slots>>,
    /// Held while a segment gets its number, so that numbers are given in the order of use; never while a file is made or zeroed.
    pooled: Mutex<PooledSegments>,
    /// Held by the thread that prepares.
    preparing: Mutex<()>,
    /// What the pool holds, and whether the last try to make a file found no space; to be read where nothing may wait.
    spare: AtomicUsize,
    exhausted: AtomicBool,
    /// Why it found none.
    lack: Mutex<Option<DiskError>>,
    /// All segment files, those with blocks too.
    files: AtomicU64,
}

#[derive(Debug)]
pub(crate) struct PooledSegments {
    /// With a durable header, in order.
    pub ready: VecDeque<Arc<Segment>>,
    /// Made, not zeroed and without a header.
    pub raw: Vec<SegmentFile>,
    /// Zeroed in part. It is on no shelf while a step is written.
    zeroing: Option<Zeroing>,
    /// Dead; a reader may still pin one.
    pub free: Vec<Arc<Segment>>,
    /// Its header may say the next number already, though writing it failed: it must be the one that gets it.
    unsettled: Option<SegmentFile>,
    pub next_no: SegmentNo,
    pub next_file: u32,
    pub random: Random,
}

impl PooledSegments {
    /// No segments: those of a new journal.
    pub(crate) fn new(random: Random) -> Self {
        Self {
            ready: VecDeque::new(),
            raw: Vec::new(),
            zeroing: None,
            free: Vec::new(),
            unsettled: None,
            next_no: SegmentNo::FIRST,
            next_file: 1,
            random,
        }
    }

    fn spare(&self) -> usize {
        let single = [self.zeroing.is_some(), self.unsettled.is_some()];
        self.ready.len()
            + self.raw.len()
            + self.free.len()
            + single.into_iter().map(usize::from).sum::<usize>()
    }

    /// A file without a header, the one that is zeroed furthest.
    fn take_raw(&mut self) -> Option<Zeroing> {
        self.zeroing.take().or_else(|| self.raw.pop().map(|file| Zeroing { file, at: 0 }))
    }

    /// A file that was written before and whose frames are needed no more.
    fn take_written(&mut self) -> Option<SegmentFile> {
        self.unsettled.take().or_else(|| self.take_free())
    }

    /// A dead segment's file that no reader pins.
    fn take_free(&mut self) -> Option<SegmentFile> {
        let at = self.free.iter().position(|segment| Arc::strong_count(segment) == 1)?;
        let segment = self.free.swap_remove(at);
        match Arc::try_unwrap(segment) {
            Ok(segment) => Some(segment.file),
            Err(segment) => {
                self.free.push(segment);
                None
            }
        }
    }

    fn take_file_number(&mut self) -> u32 {
        self.next_file += 1;
        self.next_file - 1
    }

    /// Gives back the number of a file that there was no space for: it is tried again and again, and numbers would run up. Another may have
    /// been taken since.
    fn give_file_number_back(&mut self, number: u32) {
        if self.next_file == number + 1 {
            self.next_file = number;
        }
    }
}

impl SegmentPool {
    /// A pool of these segments; `files` counts those with blocks too.
    pub(crate) fn new(
        disk: Arc<dyn Disk>,
        pool: Arc<BufPool>,
        limits: SegmentPoolLimits,
        slots: Arc<Mutex<Slots>>,
        (pooled, files): (PooledSegments, u64),
    ) -> Self {
        let journal = slots.lock().get().journal;
        Self {
            disk,
            pool,
            limits,
            journal,
            slots,
            spare: AtomicUsize::new(pooled.spare()),
            pooled: Mutex::new(pooled),
            preparing: Mutex::new(()),
            exhausted: AtomicBool::new(false),
            lack: Mutex::default(),
            files: AtomicU64::new(files),
        }
    }

    /// Does something to the pooled segments, and notes how many there are then.
    fn change<T>(&self, change: impl FnOnce(&mut PooledSegments) -> T) -> T {
        let mut pooled = self.pooled.lock();
        let result = change(&mut pooled);
        self.spare.store(pooled.spare(), Ordering::Release);
        result
    }

    /// The next segment for the writer; made on the spot, not zeroed, where none was prepared.
    pub(crate) fn take(&self) -> Result<Arc<Segment>, DiskError> {
        self.change(|pooled| {
            if let Some(segment) = pooled.ready.pop_front() {
                return Ok(segment);
            }
            let file = match pooled.take_written().or_else(|| pooled.take_raw().map(|raw| raw.file)) {
                Some(file) => file,
                None => {
                    let number = pooled.take_file_number();
                    let made = self.create(number);
                    made.inspect_err(|error| Self::note_unused(pooled, number, error))?
                }
            };
            self.number(pooled, file)
        })
    }

    /// Gives a file its place.
    fn number(&self, pooled: &mut PooledSegments, file: SegmentFile) -> Result<Arc<Segment>, DiskError> {
        let header = SegmentHeader {
            journal: self.journal,
            no: pooled.next_no,
            generation: pooled.random.next(),
            len: file.len,
        };
        let prepared = Segment::prepare(file, header).and_then(|segment| match self.write_down(header.no) {
            Ok(()) => Ok(segment),
            Err(error) => Err((segment.file, error)),
        });
        match prepared {
            Ok(segment) => {
                pooled.next_no = header.no.next();
                Ok(Arc::new(segment))
            }
            Err((file, error)) => {
                pooled.unsettled = Some(file);
                Err(error)
            }
        }
    }

    /// Notes in the slot that a segment was made, before it is used: one that is gone later is missed.
    fn write_down(&self, no: SegmentNo) -> Result<(), DiskError> {
        let mut slots = self.slots.lock();
        let slot = slots.get();
        slots.save(HardState { segment: slot.segment.max(no.0), ..slot })
    }

    fn create(&self, number: u32) -> Result<SegmentFile, DiskError> {
        let made = self
            .check_room(number)
            .and_then(|()| SegmentFile::create(&self.disk, number, self.limits.segment_bytes));
        self.note_exhausted(made.as_ref().err().filter(|error| error.is_shortage()));
        if made.is_ok() {
            self.files.fetch_add(1, Ordering::Relaxed);
        }
        made
    }

    /// A file was not made. Its name may be left over, unless it was a shortage.
    fn note_unused(pooled: &mut PooledSegments, number: u32, error: &DiskError) {
        if error.is_shortage() {
            pooled.give_file_number_back(number);
        }
    }

    /// Says once what segments lack. A lack of space or descriptors is logged where these are measured.
    fn note_exhausted(&self, lack: Option<&DiskError>) {
        *self.lack.lock() = lack.cloned();
        let was = self.exhausted.swap(lack.is_some(), Ordering::AcqRel);
        if let (false, Some(error @ DiskError::FileTooLarge { .. })) = (was, lack) {
            tracing::warn!(%error, "no further segment can be made");
        }
    }

    fn check_room(&self, number: u32) -> Result<(), DiskError> {
        let (len, keep_free) = (self.limits.segment_bytes, self.limits.keep_free);
        let path = file_name(number);
        if self.limits.max_bytes.is_some_and(|max| (self.files() + 1) * len > max) {
            return Err(DiskError::full("create", path));
        }
        let free = self.disk.free_bytes()?;
        if free < len.saturating_add(keep_free) {
            return Err(DiskError::KeptFree { path, len, free, keep_free });
        }
        Ok(())
    }

    /// Fills the pool. The next segment is made ready, or zeroed up to `pace`; at 0 the writer has hardly begun its own, and needs
    /// none. No space left is no error.
    pub(crate) fn prepare(&self, pace: u64) -> Result<Prepared, DiskError> {
        let Some(_preparing) = self.preparing.try_lock() else { return Ok(Prepared::Short) };
        self.give_back()?;
        while self.spare.load(Ordering::Acquire) <= RESERVE {
            let number = self.pooled.lock().take_file_number();
            match self.create(number) {
                Ok(file) => self.change(|pooled| pooled.raw.push(file)),
                Err(error) => {
                    self.change(|pooled| Self::note_unused(pooled, number, &error));
                    return if error.is_shortage() { Ok(Prepared::Short) } else { Err(error) };
                }
            }
        }
        self.note_exhausted(None);
        if pace == 0 || !self.pooled.lock().ready.is_empty() {
            return Ok(Prepared::Full);
        }
        match self.make_ready(pace) {
            // A file system that does not keep what it reserved, or a process without descriptors.
            Err(error) if error.is_shortage() => Ok(Prepared::Short),
            made => made,
        }
    }

    fn make_ready(&self, pace: u64) -> Result<Prepared, DiskError> {
        let put_back = |pooled: &mut PooledSegments, file| {
            let segment = self.number(pooled, file)?;
            pooled.ready.push_back(segment);
            Ok(Prepared::Full)
        };
        let recycled = self.change(|pooled| pooled.take_written().map(|file| put_back(pooled, file)));
        if let Some(result) = recycled {
            return result;
        }
        let Some(mut raw) = self.change(PooledSegments::take_raw) else { return Ok(Prepared::Full) };
        let before = raw.at;
        let zeroed = self.zero(&mut raw, pace);
        let so_far = if raw.at > before { Prepared::Zeroing } else { Prepared::Full };
        self.change(|pooled| {
            let done = raw.at == raw.file.len;
            let next = match zeroed {
                // The writer wanted a segment meanwhile, and its header could not be written: that number comes first.
                Ok(()) if done && pooled.unsettled.is_none() => Some(raw.file),
                Ok(()) => {
                    pooled.zeroing = Some(raw);
                    pooled.unsettled.take()
                }
                Err(error) => {
                    pooled.zeroing = Some(raw);
                    return Err(error);
                }
            };
            next.map_or(Ok(so_far), |file| put_back(pooled, file))
        })
    }

    /// Writes zeros over a new file up to a place: the first write to an extent that was never written costs twice.
    fn zero(&self, raw: &mut Zeroing, until: u64) -> Result<(), DiskError> {
        let until = until.next_multiple_of(STEP).min(raw.file.len);
        if raw.at >= until {
            return Ok(());
        }
        let mut zeros = self.pool.get(ZERO_STEP);
        zeros.fill(0);
        while raw.at < until {
            let step = (until - raw.at).min(ZERO_STEP as u64);
            self.disk.write_at(raw.file.id, raw.at, &zeros[..step as usize])?;
            raw.at += step;
        }
        Ok(())
    }

    /// Removes dead segments that are too many. One at a time: there is no hurry.
    fn give_back(&self) -> Result<(), DiskError> {
        let take = |pooled: &mut PooledSegments| match pooled.free.len() > KEEP_FREE_SEGMENTS {
            true => pooled.take_free(),
            false => None,
        };
        self.remove(self.change(take)).map(drop)
    }

    /// Removes a segment that has no number yet and is not needed for the reserve.
    pub(crate) fn give_back_one(&self) -> Result<bool, DiskError> {
        self.give_back_above(RESERVE)
    }

    /// Removes a segment of the reserve that has no number yet; not the last one.
    pub(crate) fn give_back_reserved(&self) -> Result<bool, DiskError> {
        self.give_back_above(1)
    }

    fn give_back_above(&self, kept: usize) -> Result<bool, DiskError> {
        let raw = |pooled: &mut PooledSegments| pooled.take_raw().map(|raw| raw.file);
        let take = |pooled: &mut PooledSegments| pooled.take_free().or_else(|| raw(pooled));
        self.remove(self.change(|pooled| if pooled.spare() > kept { take(pooled) } else { None }))
    }

    fn remove(&self, taken: Option<SegmentFile>) -> Result<bool, DiskError> {
        let Some(file) = taken else { return Ok(false) };
        let removed = self.disk.remove(&file.name());
        self.files.fetch_sub(1, Ordering::Relaxed);
        drop(file);
        removed.and_then(|()| self.disk.sync_dir()).map(|()| true)
    }

    /// Takes dead segments in.
    pub(crate) fn recycle(&self, segments: Vec<Arc<Segment>>) {
        self.change(|pooled| pooled.free.extend(segments));
    }

    /// Takes segments back that a cut left empty, in order: they come before all that are ready.
    pub(crate) fn put_back(&self, segments: Vec<Arc<Segment>>) {
        self.change(|pooled| segments.into_iter().rev().for_each(|segment| pooled.ready.push_front(segment)));
    }

    /// Segments that the writer can still get, and whether more can be made as far as is known. Never waits.
    pub(crate) fn outlook(&self) -> (usize, bool) {
        (self.spare.load(Ordering::Acquire), !self.exhausted.load(Ordering::Acquire))
    }

    /// Why no more can be made, as far as is known.
    pub(crate) fn lack(&self) -> Option<DiskError> {
        self.lack.lock().clone()
    }

    /// What fits into a new segment.
    pub(crate) fn largest_frame(&self) -> u64 {
        self.limits.segment_bytes - SEGMENT_HEADER as u64
    }

    pub(crate) fn files(&self) -> u64 {
        self.files.load(Ordering::Relaxed)
    }
}

/// Numbers that cannot be foreseen, or that follow from a seed.
#[derive(Debug)]
pub(crate) enum Random {
    System,
    Seeded(u64),
}

impl Random {
    pub(crate) fn new(seed: Option<u64>) -> Self {
        seed.map_or(Self::System, Self::Seeded)
    }

    /// The next number; never 0, which is what zeroed space reads as.
    pub(crate) fn next(&mut self) -> u64 {
        let number = match self {
            // The standard library draws each state's keys from the system's randomness.
            Self::System => RandomState::new().build_hasher().finish(),
            Self::Seeded(state) => splitmix(state),
        };
        number.max(1)
    }
}

/// A step of SplitMix64.
pub(crate) fn splitmix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

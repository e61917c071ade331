//! The segments that the writer will need: made and zeroed ahead, recycled, and two of them kept for when the disk is full.
//!
//! ```text
//!    create ──► raw ──zero──► header ──┐
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
use crate::segment::{SEGMENT_HEADER, Segment, SegmentFile, SegmentHeader, SegmentNo, file_name};

/// Segments that ordinary entries never take.
pub(crate) const RESERVE: usize = 2;
/// Dead segments kept for recycling: about what dies between two checkpoints. More are given back to the file system.
const KEEP_FREE_SEGMENTS: usize = 16;
/// Zeroing goes in steps of this many bytes, so that it delays a commit by no more than one of them.
const ZERO_STEP: usize = 1 << 20;

/// What the stock is made with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StockLimits {
    pub segment_bytes: u64,
    pub max_bytes: Option<u64>,
    pub keep_free: u64,
}

/// Segment files that hold no block.
#[derive(Debug)]
pub(crate) struct Stock {
    disk: Arc<dyn Disk>,
    pool: Arc<BufPool>,
    limits: StockLimits,
    journal: u64,
    /// Held while a segment gets its number, so that numbers are given in the order of use; never while a file is made or zeroed.
    shelves: Mutex<Shelves>,
    /// Held by the one who prepares.
    preparing: Mutex<()>,
    /// What the shelves hold, and whether the last try to make a file found no space; for those who must not wait.
    spare: AtomicUsize,
    exhausted: AtomicBool,
    /// All segment files, those with blocks too.
    files: AtomicU64,
}

#[derive(Debug)]
pub(crate) struct Shelves {
    /// With a durable header, in order.
    pub ready: VecDeque<Arc<Segment>>,
    /// Made, not zeroed and without a header.
    pub raw: Vec<SegmentFile>,
    /// Dead; a reader may still pin one.
    pub free: Vec<Arc<Segment>>,
    /// Its header may say the next number already, though writing it failed: it must be the one that gets it.
    unsettled: Option<SegmentFile>,
    pub next_no: SegmentNo,
    pub next_file: u32,
    pub random: Random,
}

impl Shelves {
    /// Empty shelves of a new journal.
    pub(crate) fn new(random: Random) -> Self {
        Self {
            ready: VecDeque::new(),
            raw: Vec::new(),
            free: Vec::new(),
            unsettled: None,
            next_no: SegmentNo::FIRST,
            next_file: 1,
            random,
        }
    }

    fn spare(&self) -> usize {
        self.ready.len() + self.raw.len() + self.free.len() + usize::from(self.unsettled.is_some())
    }

    /// A file that was written before and whose frames nobody needs.
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
}

impl Stock {
    /// A stock of these shelves; `files` counts those with blocks too.
    pub(crate) fn new(
        disk: Arc<dyn Disk>,
        pool: Arc<BufPool>,
        limits: StockLimits,
        journal: u64,
        (shelves, files): (Shelves, u64),
    ) -> Self {
        Self {
            disk,
            pool,
            limits,
            journal,
            spare: AtomicUsize::new(shelves.spare()),
            shelves: Mutex::new(shelves),
            preparing: Mutex::new(()),
            exhausted: AtomicBool::new(false),
            files: AtomicU64::new(files),
        }
    }

    /// Does something to the shelves, and notes what they hold then.
    fn change<T>(&self, change: impl FnOnce(&mut Shelves) -> T) -> T {
        let mut shelves = self.shelves.lock();
        let result = change(&mut shelves);
        self.spare.store(shelves.spare(), Ordering::Release);
        result
    }

    /// The next segment for the writer; made on the spot, not zeroed, where none was prepared.
    pub(crate) fn take(&self) -> Result<Arc<Segment>, DiskError> {
        self.change(|shelves| {
            if let Some(segment) = shelves.ready.pop_front() {
                return Ok(segment);
            }
            let file = match shelves.take_written().or_else(|| shelves.raw.pop()) {
                Some(file) => file,
                None => {
                    let number = shelves.take_file_number();
                    self.create(number)?
                }
            };
            self.number(shelves, file)
        })
    }

    /// Gives a file its place.
    fn number(&self, shelves: &mut Shelves, file: SegmentFile) -> Result<Arc<Segment>, DiskError> {
        let header =
            SegmentHeader { journal: self.journal, no: shelves.next_no, generation: shelves.random.next() };
        match Segment::prepare(file, header) {
            Ok(segment) => {
                shelves.next_no = header.no.next();
                Ok(Arc::new(segment))
            }
            Err((file, error)) => {
                shelves.unsettled = Some(file);
                Err(error)
            }
        }
    }

    fn create(&self, number: u32) -> Result<SegmentFile, DiskError> {
        let made = self
            .check_room(number)
            .and_then(|()| SegmentFile::create(&self.disk, number, self.limits.segment_bytes));
        self.exhausted.store(matches!(made, Err(DiskError::Full { .. })), Ordering::Release);
        if made.is_ok() {
            self.files.fetch_add(1, Ordering::Relaxed);
        }
        made
    }

    fn check_room(&self, number: u32) -> Result<(), DiskError> {
        let bytes = self.limits.segment_bytes;
        let within = self.limits.max_bytes.is_none_or(|max| (self.files() + 1) * bytes <= max);
        if within && self.disk.free_bytes()? >= bytes.saturating_add(self.limits.keep_free) {
            return Ok(());
        }
        Err(DiskError::Full { path: file_name(number) })
    }

    /// Fills the stock; `in_use` says that the writer has begun its segment in earnest, so that the next should be ready.
    /// Returns whether the stock is full. No space left is no error.
    pub(crate) fn prepare(&self, in_use: bool) -> Result<bool, DiskError> {
        let Some(_preparing) = self.preparing.try_lock() else { return Ok(false) };
        self.give_back()?;
        while self.spare.load(Ordering::Acquire) <= RESERVE {
            let number = self.shelves.lock().take_file_number();
            match self.create(number) {
                Ok(file) => self.change(|shelves| shelves.raw.push(file)),
                Err(DiskError::Full { .. }) => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        self.exhausted.store(false, Ordering::Release);
        if in_use && self.shelves.lock().ready.is_empty() {
            self.make_ready()?;
        }
        Ok(true)
    }

    fn make_ready(&self) -> Result<(), DiskError> {
        let shelve = |shelves: &mut Shelves, file| {
            let segment = self.number(shelves, file)?;
            shelves.ready.push_back(segment);
            Ok(())
        };
        let recycled = self.change(|shelves| shelves.take_written().map(|file| shelve(shelves, file)));
        if let Some(result) = recycled {
            return result;
        }
        let Some(file) = self.change(|shelves| shelves.raw.pop()) else { return Ok(()) };
        let file = self.zero(file)?;
        self.change(|shelves| match shelves.unsettled.take() {
            None => shelve(shelves, file),
            Some(first) => {
                shelves.raw.push(file);
                shelve(shelves, first)
            }
        })
    }

    /// Writes zeros over a new file: the first write to an extent that was never written costs twice.
    fn zero(&self, file: SegmentFile) -> Result<SegmentFile, DiskError> {
        let mut zeros = self.pool.get(ZERO_STEP);
        zeros.fill(0);
        let mut at = 0;
        while at < file.len {
            let step = (file.len - at).min(ZERO_STEP as u64);
            let written = self.disk.write_at(file.id, at, &zeros[..step as usize]);
            if let Err(error) = written {
                self.change(|shelves| shelves.raw.push(file));
                return Err(error);
            }
            at += step;
        }
        Ok(file)
    }

    /// Removes dead segments that are too many. One at a time: there is no hurry.
    fn give_back(&self) -> Result<(), DiskError> {
        let surplus = |shelves: &mut Shelves| {
            (shelves.free.len() > KEEP_FREE_SEGMENTS).then(|| shelves.take_free()).flatten()
        };
        let Some(file) = self.change(surplus) else { return Ok(()) };
        self.disk.remove(&file.name())?;
        self.files.fetch_sub(1, Ordering::Relaxed);
        self.disk.sync_dir()
    }

    /// Takes dead segments in.
    pub(crate) fn recycle(&self, segments: Vec<Arc<Segment>>) {
        self.change(|shelves| shelves.free.extend(segments));
    }

    /// Takes segments back that a cut left empty, in order: they come before all that are ready.
    pub(crate) fn put_back(&self, segments: Vec<Arc<Segment>>) {
        self.change(|shelves| {
            segments.into_iter().rev().for_each(|segment| shelves.ready.push_front(segment))
        });
    }

    /// Segments that the writer can still get, and whether more can be made as far as is known. Never waits.
    pub(crate) fn outlook(&self) -> (usize, bool) {
        (self.spare.load(Ordering::Acquire), !self.exhausted.load(Ordering::Acquire))
    }

    /// What fits into a new segment.
    pub(crate) fn largest_frame(&self) -> u64 {
        self.limits.segment_bytes - SEGMENT_HEADER as u64
    }

    pub(crate) fn files(&self) -> u64 {
        self.files.load(Ordering::Relaxed)
    }
}

/// Numbers that nobody can foresee, or that follow from a seed.
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

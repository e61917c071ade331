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
    /// Held while a segment gets its number, so that numbers are given in the order of use.
    shelves: Mutex<Shelves>,
    /// Held by the one who prepares.
    preparing: Mutex<()>,
}

#[derive(Debug)]
pub(crate) struct Shelves {
    /// With a durable header, in order.
    pub ready: VecDeque<Arc<Segment>>,
    /// Made, not zeroed and without a header.
    pub raw: Vec<SegmentFile>,
    /// Dead; a reader may still pin one.
    pub free: Vec<Arc<Segment>>,
    pub next_no: SegmentNo,
    pub next_file: u32,
    /// All segment files, those with blocks too.
    pub files: u64,
    pub random: Random,
    /// Whether the last try to make a file found no space.
    pub exhausted: bool,
}

impl Shelves {
    /// Empty shelves of a new journal.
    pub(crate) fn new(random: Random) -> Self {
        Self {
            ready: VecDeque::new(),
            raw: Vec::new(),
            free: Vec::new(),
            next_no: SegmentNo::FIRST,
            next_file: 1,
            files: 0,
            random,
            exhausted: false,
        }
    }

    fn spare(&self) -> usize {
        self.ready.len() + self.raw.len() + self.free.len()
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
}

impl Stock {
    pub(crate) fn new(
        disk: Arc<dyn Disk>,
        pool: Arc<BufPool>,
        limits: StockLimits,
        journal: u64,
        shelves: Shelves,
    ) -> Self {
        Self { disk, pool, limits, journal, shelves: Mutex::new(shelves), preparing: Mutex::new(()) }
    }

    /// The next segment for the writer; made on the spot, not zeroed, where none was prepared.
    pub(crate) fn take(&self) -> Result<Arc<Segment>, DiskError> {
        let shelves = &mut *self.shelves.lock();
        if let Some(segment) = shelves.ready.pop_front() {
            return Ok(segment);
        }
        let file = match shelves.take_free().or_else(|| shelves.raw.pop()) {
            Some(file) => file,
            None => self.create(shelves)?,
        };
        self.number(shelves, file)
    }

    /// Gives a file its place. A file whose header may be torn is as good as raw.
    fn number(&self, shelves: &mut Shelves, file: SegmentFile) -> Result<Arc<Segment>, DiskError> {
        let header =
            SegmentHeader { journal: self.journal, no: shelves.next_no, generation: shelves.random.next() };
        match Segment::prepare(file, header) {
            Ok(segment) => {
                shelves.next_no = header.no.next();
                Ok(Arc::new(segment))
            }
            Err((file, error)) => {
                shelves.raw.push(file);
                Err(error)
            }
        }
    }

    fn create(&self, shelves: &mut Shelves) -> Result<SegmentFile, DiskError> {
        let made = self
            .check_room(shelves)
            .and_then(|()| SegmentFile::create(&self.disk, shelves.next_file, self.limits.segment_bytes));
        shelves.exhausted = matches!(made, Err(DiskError::Full { .. }));
        let file = made?;
        shelves.next_file += 1;
        shelves.files += 1;
        Ok(file)
    }

    fn check_room(&self, shelves: &Shelves) -> Result<(), DiskError> {
        let bytes = self.limits.segment_bytes;
        let within = self.limits.max_bytes.is_none_or(|max| (shelves.files + 1) * bytes <= max);
        if within && self.disk.free_bytes()? >= bytes.saturating_add(self.limits.keep_free) {
            return Ok(());
        }
        Err(DiskError::Full { path: file_name(shelves.next_file) })
    }

    /// Fills the stock; `in_use` says that the writer has begun its segment in earnest, so that the next should be ready.
    /// Returns whether the stock is full. No space left is no error.
    pub(crate) fn prepare(&self, in_use: bool) -> Result<bool, DiskError> {
        let Some(_preparing) = self.preparing.try_lock() else { return Ok(false) };
        self.give_back()?;
        while self.shelves.lock().spare() <= RESERVE {
            let made = self.create(&mut self.shelves.lock());
            match made {
                Ok(file) => self.shelves.lock().raw.push(file),
                Err(DiskError::Full { .. }) => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        self.shelves.lock().exhausted = false;
        if in_use && self.shelves.lock().ready.is_empty() {
            self.make_ready()?;
        }
        Ok(true)
    }

    fn make_ready(&self) -> Result<(), DiskError> {
        let recycled = self.shelves.lock().take_free();
        let file = match recycled {
            Some(file) => file,
            None => {
                let Some(file) = self.shelves.lock().raw.pop() else { return Ok(()) };
                self.zero(file)?
            }
        };
        let shelves = &mut *self.shelves.lock();
        let segment = self.number(shelves, file)?;
        shelves.ready.push_back(segment);
        Ok(())
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
                self.shelves.lock().raw.push(file);
                return Err(error);
            }
            at += step;
        }
        Ok(file)
    }

    /// Removes dead segments that are too many. One at a time: there is no hurry.
    fn give_back(&self) -> Result<(), DiskError> {
        let file = {
            let shelves = &mut *self.shelves.lock();
            let surplus = shelves.free.len() > KEEP_FREE_SEGMENTS;
            let Some(file) = surplus.then(|| shelves.take_free()).flatten() else { return Ok(()) };
            shelves.files -= 1;
            file
        };
        self.disk.remove(&file.name())?;
        self.disk.sync_dir()
    }

    /// Takes dead segments in.
    pub(crate) fn recycle(&self, segments: Vec<Arc<Segment>>) {
        self.shelves.lock().free.extend(segments);
    }

    /// Takes segments back that a cut left empty, in order: they come before all that are ready.
    pub(crate) fn put_back(&self, segments: Vec<Arc<Segment>>) {
        let shelves = &mut *self.shelves.lock();
        segments.into_iter().rev().for_each(|segment| shelves.ready.push_front(segment));
    }

    /// Segments that the writer can still get, and whether more can be made as far as is known.
    pub(crate) fn outlook(&self) -> (usize, bool) {
        let shelves = self.shelves.lock();
        (shelves.spare(), !shelves.exhausted)
    }

    /// What fits into a new segment.
    pub(crate) fn largest_frame(&self) -> u64 {
        self.limits.segment_bytes - SEGMENT_HEADER as u64
    }

    pub(crate) fn files(&self) -> u64 {
        self.shelves.lock().files
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

//! Reads of committed bytes that are not in the tail cache: large, with read-ahead, and never on a thread that others wait for.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;
use sabir_base::buf::BufPool;
use sabir_model::Sequence;

use crate::error::ReadError;
use crate::frame::STEP;
use crate::segment::{Segment, SegmentNo};
use crate::tail::{Tail, slice_of};

/// What a first read of a place fetches, in bytes; and one that runs on from the last.
const FIRST_READ: u64 = 64 << 10;
const READ_AHEAD: u64 = 1 << 20;
/// Windows kept at most, whatever their size.
const MAX_WINDOWS: usize = 64;

/// Bytes asked for, or how to get them.
#[derive(Debug)]
pub enum Read {
    /// In memory since it was written, or verified.
    Hot(Bytes),
    /// In memory as the disk gave it to an earlier read: like a cold one's, its bytes are not verified.
    Ahead(Bytes),
    /// On the disk only.
    Cold(ColdRead),
}

/// What was read from the disk lately, for the next reader of the same place.
#[derive(Debug)]
pub(crate) struct ColdReads {
    pool: Arc<BufPool>,
    /// Counts what is read as it counts its own blocks.
    tail: Arc<Tail>,
    bound: usize,
    windows: Mutex<VecDeque<Window>>,
    pub reads: AtomicU64,
}

/// A part of a segment. Its bytes were final when it was read.
#[derive(Debug, Clone)]
struct Window {
    segment: SegmentNo,
    start: u64,
    bytes: Bytes,
}

impl Window {
    fn end(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }

    fn covers(&self, place: &Place) -> bool {
        self.segment == place.segment.no && self.start <= place.start && place.end() <= self.end()
    }

    fn slice(&self, place: &Place) -> Bytes {
        let at = (place.start - self.start) as usize;
        slice_of(&self.bytes, at..at + place.len as usize)
    }
}

/// Which bytes of which segment.
#[derive(Debug)]
pub(crate) struct Place {
    pub sequence: Sequence,
    pub segment: Arc<Segment>,
    pub start: u64,
    pub len: u32,
    /// Up to where the segment's bytes will not change; a multiple of 4 KiB.
    pub stable_end: u64,
}

impl Place {
    fn end(&self) -> u64 {
        self.start + u64::from(self.len)
    }
}

impl ColdReads {
    pub(crate) fn new(pool: Arc<BufPool>, tail: Arc<Tail>, bound: usize) -> Arc<Self> {
        Arc::new(Self { pool, tail, bound, windows: Mutex::default(), reads: AtomicU64::new(0) })
    }

    /// The bytes, where a window has them.
    pub(crate) fn get(&self, place: &Place) -> Option<Bytes> {
        let mut windows = self.windows.lock();
        let at = windows.iter().position(|window| window.covers(place))?;
        let window = windows.remove(at)?;
        let bytes = window.slice(place);
        windows.push_back(window);
        Some(bytes)
    }

    /// How much to fetch: much when this read runs on from an earlier one.
    fn amount(&self, place: &Place) -> u64 {
        let runs_on = |window: &Window| {
            window.segment == place.segment.no
                && (window.start..=window.end() + FIRST_READ).contains(&place.start)
        };
        if self.windows.lock().iter().any(runs_on) { READ_AHEAD } else { FIRST_READ }
    }

    fn keep(&self, window: Window) {
        let mut windows = self.windows.lock();
        windows.push_back(window);
        let mut bytes: usize = windows.iter().map(|window| window.bytes.len()).sum();
        while bytes > self.bound || windows.len() > MAX_WINDOWS {
            let Some(oldest) = windows.pop_front() else { break };
            bytes -= oldest.bytes.len();
        }
    }
}

/// A read that waits for the disk. It pins its segment until dropped.
#[derive(Debug)]
pub struct ColdRead {
    pub(crate) reads: Arc<ColdReads>,
    pub(crate) place: Place,
}

impl ColdRead {
    /// Reads the bytes, and some after them for the next reader. Blocking: to be called where that stalls nobody.
    ///
    /// # Errors
    /// [`ReadError::Disk`]. The bytes are not verified: they have a checksum of their own.
    pub fn run(self) -> Result<Bytes, ReadError> {
        // Another reader may have brought them meanwhile.
        if let Some(bytes) = self.reads.get(&self.place) {
            return Ok(bytes);
        }
        let window = self.fetch()?;
        let bytes = window.slice(&self.place);
        self.reads.keep(window);
        Ok(bytes)
    }

    fn fetch(&self) -> Result<Window, ReadError> {
        let place = &self.place;
        let start = place.start / STEP * STEP;
        let wanted = (place.end() - start).max(self.reads.amount(place));
        let end = (start + wanted).next_multiple_of(STEP).min(place.stable_end);
        let mut buf = self.reads.pool.get((end - start) as usize);
        let failed = |source| ReadError::Disk { sequence: place.sequence, source };
        place.segment.file.read(start, &mut buf).map_err(failed)?;
        self.reads.reads.fetch_add(1, Ordering::Relaxed);
        Ok(Window { segment: place.segment.no, start, bytes: self.reads.tail.share(buf) })
    }
}

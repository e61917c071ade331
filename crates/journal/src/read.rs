//! Reads of committed bytes that are not in the tail cache: large, with read-ahead, and never on a thread that others wait for.
//!
//! What comes from the disk is kept for a while in windows, at most one of which is loaded for a place at a time. A reader that
//! runs on has the next few loaded while it is busy with these: the first window of each such stretch is marked, and the
//! read that touches it asks for the stretch after it. Stretches begin small and double for a reader that comes before they are loaded: a slow
//! reader takes little of the disk's time at once from the writes.
//!
//! A disk may have written another block where this one should stand, or have lost this one's write over an older life of the file.
//! Its batches then have good checksums, so no bytes are given before the block's frame was looked at: in the window that has it,
//! or read for that.
//!
//! Bytes are kept before they are verified. A reader that finds that they are wrong has them [forgotten](crate::Journal::forget), for it
//! may be the read that was wrong and not the disk.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::{Bytes, BytesMut};
use parking_lot::{Condvar, Mutex, MutexGuard};
use sabir_base::buf::BufPool;
use sabir_model::Sequence;

use crate::disk::DiskError;
use crate::error::BlockReadError;
use crate::frame::{FRAME, FrameHeader, FrameKind, STEP};
use crate::segment::{SEGMENT_HEADER, Segment, SegmentNo};
use crate::tail::Tail;

/// What a first read of a place fetches, in bytes.
const FIRST_READ: u64 = 64 << 10;
/// How much is loaded ahead of a reader that runs on, in bytes, at first and at most: then more than a fetch of several partitions.
const LEAST_AHEAD: u64 = 512 << 10;
const MOST_AHEAD: u64 = 16 << 20;
/// It is read in windows of half of that, within these bounds...
const LEAST_WINDOW: u64 = 256 << 10;
const MOST_WINDOW: u64 = 1 << 20;
/// ...in pieces of so many bytes...
const STRETCH: u64 = 2 << 20;
/// ...of which so many are under way at once: the disk always has the next read when it ends one. With many at once it takes longer
/// for all.
const LANES: usize = 2;
/// What is kept at least, in bytes.
const LEAST_COLD_BYTES: usize = 256 << 10;
/// Windows kept at most, whatever their size.
const MAX_WINDOWS: usize = 256;
/// Stretches that wait to be loaded; further ones are forgotten.
const MAX_WANTED: usize = 32;
/// What is being loaded at once, in bytes, for however many readers: this part of a journal's share of the budget, and no less than this.
const LOADING_PART: usize = 8;
const LEAST_LOADING: usize = 2 << 20;

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
    windows: Mutex<Windows>,
    /// A window was loaded, or will not be.
    loaded: Condvar,
    loading: Loading,
    /// Whether a stretch waits to be loaded: to be looked at without the lock.
    wants: AtomicBool,
    /// What was read from the disk: how often, and how many bytes.
    pub reads: AtomicU64,
    pub read_bytes: AtomicU64,
}

#[derive(Debug, Default)]
struct Windows {
    windows: Vec<Window>,
    /// Counts uses, to tell which window was not used longest.
    clock: u64,
    wanted: VecDeque<Stretch>,
    /// Stretches that are being loaded.
    lanes: usize,
}

/// A part of a segment. Its bytes were final when it was read.
#[derive(Debug)]
struct Window {
    segment: SegmentNo,
    range: Range<u64>,
    /// None while it is being loaded.
    bytes: Option<Bytes>,
    used: u64,
    /// No read has asked for any of it yet.
    unread: bool,
    /// How much is loaded ahead of the reader here; none for a reader that does not read on.
    ahead: u64,
    /// Where the stretch begins that is to be loaded once this window is touched.
    next: Option<u64>,
    /// The block that begins before this window, once its frame was found good.
    front: Option<Sequence>,
}

/// What is to be loaded before a read asks for it.
#[derive(Debug)]
struct Stretch {
    segment: Arc<Segment>,
    range: Range<u64>,
    ahead: u64,
    /// What its first window is marked with.
    next: Option<u64>,
}

/// Bytes that are being loaded. Nothing else is waited for by a thread that loads.
#[derive(Debug, Default)]
struct Loading {
    bytes: Mutex<usize>,
    less: Condvar,
}

impl Loading {
    /// Waits until so many bytes may be loaded beside the others: no more than `most` together, or these alone.
    fn begin(&self, count: usize, most: usize) -> LoadingBytes<'_> {
        let mut bytes = self.bytes.lock();
        while *bytes > 0 && *bytes + count > most {
            self.less.wait(&mut bytes);
        }
        *bytes += count;
        // There may be room for another one that was not woken.
        self.less.notify_one();
        LoadingBytes { of: self, count }
    }
}

struct LoadingBytes<'a> {
    of: &'a Loading,
    count: usize,
}

impl Drop for LoadingBytes<'_> {
    fn drop(&mut self) {
        *self.of.bytes.lock() -= self.count;
        self.of.less.notify_one();
    }
}

impl Window {
    fn holds(&self, segment: SegmentNo, pos: u64) -> bool {
        self.segment == segment && self.range.contains(&pos)
    }

    fn is(&self, segment: SegmentNo, start: u64) -> bool {
        self.segment == segment && self.range.start == start
    }

    fn len(&self) -> usize {
        (self.range.end - self.range.start) as usize
    }
}

/// Which bytes of which segment.
#[derive(Debug)]
pub(crate) struct Place {
    pub sequence: Sequence,
    pub segment: Arc<Segment>,
    /// Where the block's frame starts, in bytes.
    pub frame: u64,
    pub start: u64,
    pub len: u32,
    /// Up to where the segment's bytes will not change; a multiple of 4 KiB.
    pub stable_end: u64,
}

impl Place {
    fn range(&self) -> Range<u64> {
        self.start..self.start + u64::from(self.len)
    }

    fn len(&self) -> usize {
        self.len as usize
    }

    /// Whether the frame of the block stands where it should, and its content covers the place.
    fn check(&self, frame: &[u8]) -> Result<(), BlockReadError> {
        let Ok((header, _)) = FrameHeader::decode(frame) else {
            return Err(self.misplaced("its frame is bad".into()));
        };
        if header.generation != self.segment.generation {
            return Err(self.misplaced("a block of an older use of the file stands there".into()));
        }
        if header.kind != FrameKind::Block || header.sequence != self.sequence {
            return Err(self.misplaced(format!("block {} stands there", header.sequence)));
        }
        let end = self.frame + FRAME as u64 + u64::from(header.content_len);
        if self.range().end > end {
            return Err(self.misplaced("the block there is shorter".into()));
        }
        Ok(())
    }

    fn misplaced(&self, reason: String) -> BlockReadError {
        let (file, position) = (self.segment.file.name(), self.frame);
        BlockReadError::Corrupt { sequence: self.sequence, file, position, reason }
    }

    fn failed(&self, source: DiskError) -> BlockReadError {
        BlockReadError::Disk { sequence: self.sequence, source }
    }
}

impl Windows {
    /// The bytes at a place, if loaded windows have them. No more than `room` may lie unread, loaded ahead of all readers.
    fn touch(&mut self, place: &Place, room: u64, tail: &Tail) -> Option<Bytes> {
        let range = place.range();
        self.clock += 1;
        let (at, first) = self.touch_one(place, range.start, room)?;
        if at + place.len() <= first.len() {
            return Some(tail.slice_of(&first, at..at + place.len()));
        }
        // It runs over the end of a window: two pieces are joined rather than read again.
        let mut all = BytesMut::with_capacity(place.len());
        all.extend_from_slice(&first[at..]);
        while all.len() < place.len() {
            let (at, next) = self.touch_one(place, range.start + all.len() as u64, room)?;
            let end = next.len().min(at + place.len() - all.len());
            all.extend_from_slice(&next[at..end]);
        }
        Some(all.freeze())
    }

    /// The loaded window that holds the byte at `pos`, and where in it that is.
    fn touch_one(&mut self, place: &Place, pos: u64, room: u64) -> Option<(usize, Bytes)> {
        let holds = |w: &&mut Window| w.bytes.is_some() && w.holds(place.segment.no, pos);
        let window = self.windows.iter_mut().rev().find(holds)?;
        (window.used, window.unread) = (self.clock, false);
        let found = ((pos - window.range.start) as usize, window.bytes.clone()?);
        let ahead = window.ahead;
        if let Some(next) = window.next.take() {
            self.want(place, next, ahead, room);
        }
        Some(found)
    }

    /// Whether the block of a place is the right one; none if no loaded window can tell.
    fn check(&mut self, place: &Place) -> Option<Result<(), BlockReadError>> {
        let segment = place.segment.no;
        let is_known = |w: &Window| w.front == Some(place.sequence) && w.holds(segment, place.start);
        if self.windows.iter().any(is_known) {
            return Some(Ok(()));
        }
        let holds = |w: &&Window| w.bytes.is_some() && w.holds(segment, place.frame);
        let window = self.windows.iter().rev().find(holds)?;
        let at = (place.frame - window.range.start) as usize;
        let checked = place.check(window.bytes.as_ref()?.get(at..at + FRAME)?);
        if checked.is_ok() {
            self.note_front(place);
        }
        Some(checked)
    }

    /// Keeps for the windows with a place's start but without its frame that the frame is good.
    fn note_front(&mut self, place: &Place) {
        let segment = place.segment.no;
        let behind = |w: &&mut Window| w.holds(segment, place.start) && !w.holds(segment, place.frame);
        self.windows.iter_mut().filter(behind).for_each(|w| w.front = Some(place.sequence));
    }

    /// Where a read of a place begins: at its frame, if that is near and no window has it or will.
    fn begin_of(&self, place: &Place) -> u64 {
        let start = place.start / STEP * STEP;
        let is_near = start - place.frame <= FIRST_READ;
        let is_new = !self.windows.iter().any(|w| w.holds(place.segment.no, place.frame));
        if is_near && is_new { place.frame } else { start }
    }

    /// Those under way that have some of a place.
    fn loading(&mut self, place: &Place) -> impl Iterator<Item = &mut Window> {
        let (segment, range) = (place.segment.no, place.range());
        let overlaps = move |w: &&mut Window| w.range.start < range.end && range.start < w.range.end;
        self.windows.iter_mut().filter(move |w| w.bytes.is_none() && w.segment == segment).filter(overlaps)
    }

    /// Drops what is loaded of a place and of its block's frame.
    fn forget(&mut self, place: &Place) {
        let (segment, range) = (place.segment.no, place.range());
        let overlaps = |w: &Window| w.range.start < range.end && range.start < w.range.end;
        let has_some = |w: &Window| w.segment == segment && (overlaps(w) || w.range.contains(&place.frame));
        self.windows.retain(|w| w.bytes.is_none() || !has_some(w));
    }

    /// A reader has come before what it wants is loaded: next time there is to be more.
    fn hurry(&mut self, place: &Place) {
        self.loading(place).for_each(|w| w.ahead = doubled(w.ahead));
    }

    /// Asks for `ahead` bytes from `start` on, in the segment of a place; less where so much that was loaded is unread that readers
    /// would drive out each other's.
    fn want(&mut self, place: &Place, start: u64, ahead: u64, room: u64) {
        let unread: usize = self.windows.iter().filter(|w| w.unread).map(Window::len).sum();
        let queued: u64 = self.wanted.iter().map(|stretch| stretch.range.end - stretch.range.start).sum();
        let amount = ahead.min(room.saturating_sub(unread as u64 + queued)) / LEAST_WINDOW * LEAST_WINDOW;
        let end = (start + amount).min(place.stable_end);
        let mut next = Some(end);
        for from in (start..end).step_by(STRETCH as usize) {
            if self.wanted.len() == MAX_WANTED {
                return;
            }
            let (segment, range) = (place.segment.clone(), from..(from + STRETCH).min(end));
            self.wanted.push_back(Stretch { segment, range, ahead, next: next.take() });
        }
    }

    /// How much is to be loaded ahead, if a read here, of what no read has loaded, continues an earlier one.
    fn runs_on(&self, place: &Place) -> Option<u64> {
        let near = |w: &&Window| {
            w.segment == place.segment.no && (w.range.start..=w.range.end + FIRST_READ).contains(&place.start)
        };
        if let Some(ahead) = self.windows.iter().filter(near).map(|w| w.ahead).max() {
            return Some(doubled(ahead));
        }
        // Nothing is loaded over the end of a segment: a reader that comes from there is not late.
        let begins = place.start < SEGMENT_HEADER as u64 + FIRST_READ;
        let before = self.windows.iter().filter(|w| begins && w.segment.next() == place.segment.no);
        before.map(|w| w.ahead.max(LEAST_AHEAD)).max()
    }

    /// Where the next window behind `start` begins.
    fn next_start(&self, segment: SegmentNo, start: u64) -> u64 {
        let behind = self.windows.iter().filter(|w| w.segment == segment && w.range.start > start);
        behind.map(|w| w.range.start).min().unwrap_or(u64::MAX)
    }

    /// The end of the window that holds the byte at `start`.
    fn end_of(&self, segment: SegmentNo, start: u64) -> Option<u64> {
        let holds = |w: &&Window| w.holds(segment, start);
        self.windows.iter().filter(holds).map(|w| w.range.end).max()
    }

    fn begin(&mut self, segment: SegmentNo, range: Range<u64>, ahead: u64, unread: bool, next: Option<u64>) {
        self.clock += 1;
        self.windows.push(Window {
            segment,
            range,
            bytes: None,
            used: self.clock,
            unread,
            ahead,
            next,
            front: None,
        });
    }

    /// Drops what was not used longest.
    fn shrink(&mut self, bound: usize) {
        let mut bytes: usize = self.windows.iter().map(Window::len).sum();
        while bytes > bound || self.windows.len() > MAX_WINDOWS {
            let loaded = self.windows.iter().enumerate().filter(|(_, w)| w.bytes.is_some());
            let Some((oldest, _)) = loaded.min_by_key(|(_, w)| w.used) else { return };
            bytes -= self.windows.remove(oldest).len();
        }
    }
}

fn doubled(ahead: u64) -> u64 {
    (2 * ahead).clamp(LEAST_AHEAD, MOST_AHEAD)
}

fn window(ahead: u64) -> u64 {
    (ahead / 2).clamp(LEAST_WINDOW, MOST_WINDOW)
}

impl ColdReads {
    pub(crate) fn new(pool: Arc<BufPool>, tail: Arc<Tail>) -> Arc<Self> {
        let (windows, loaded) = (Mutex::default(), Condvar::new());
        let (wants, reads, read_bytes) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
        Arc::new(Self { pool, tail, windows, loaded, loading: Loading::default(), wants, reads, read_bytes })
    }

    /// How much may lie unread, loaded ahead of all readers together.
    fn room(&self) -> u64 {
        self.bound() as u64 / 2
    }

    /// What is kept at most: this journal's part of a quarter of the budget.
    fn bound(&self) -> usize {
        let budget = self.tail.budget();
        (budget.bound() / 4 / budget.sharers()).max(LEAST_COLD_BYTES)
    }

    /// How much is being loaded at once at most.
    fn most_loading(&self) -> usize {
        let budget = self.tail.budget();
        (budget.bound() / LOADING_PART / budget.sharers()).max(LEAST_LOADING)
    }

    /// Drops what is kept of a place, whose bytes have turned out to be wrong. What is being loaded is another read, and stays.
    pub(crate) fn forget(&self, place: &Place) {
        self.windows.lock().forget(place);
    }

    /// Lets go of what is beyond the bound.
    pub(crate) fn shrink(&self) {
        self.windows.lock().shrink(self.bound());
    }

    /// The bytes, where a window has them and their block is known to be the right one.
    ///
    /// # Errors
    /// It is another block.
    pub(crate) fn get(&self, place: &Place) -> Result<Option<Bytes>, BlockReadError> {
        let mut windows = self.windows.lock();
        let bytes = windows.touch(place, self.room(), &self.tail);
        self.note_wants(&windows);
        let Some(bytes) = bytes else { return Ok(None) };
        windows.check(place).transpose().map(|checked| checked.map(|()| bytes))
    }

    /// Makes sure that the block of a place is the right one; reads its frame if no window has that. Blocking.
    fn check(&self, place: &Place) -> Result<(), BlockReadError> {
        if let Some(checked) = self.windows.lock().check(place) {
            return checked;
        }
        let mut page = self.pool.get(STEP as usize);
        place.segment.file.read(place.frame, &mut page).map_err(|source| place.failed(source))?;
        self.reads.fetch_add(1, Ordering::Relaxed);
        self.read_bytes.fetch_add(STEP, Ordering::Relaxed);
        place.check(&page[..FRAME])?;
        self.windows.lock().note_front(place);
        Ok(())
    }

    fn note_wants(&self, windows: &Windows) {
        let wants = windows.lanes < LANES && !windows.wanted.is_empty();
        self.wants.store(wants, Ordering::Release);
    }

    /// What should be loaded ahead by a thread that may block, if anything.
    pub(crate) fn take_wanted(self: &Arc<Self>) -> Option<ReadAhead> {
        if !self.wants.load(Ordering::Acquire) {
            return None;
        }
        let mut windows = self.windows.lock();
        if windows.lanes == LANES {
            return None;
        }
        let stretch = windows.wanted.pop_front()?;
        windows.lanes += 1;
        self.note_wants(&windows);
        Some(ReadAhead { reads: self.clone(), stretch: Some(stretch) })
    }

    /// What is to be loaded in a lane that is free now; without any it is given back.
    fn next_wanted(&self) -> Option<Stretch> {
        let mut windows = self.windows.lock();
        let next = windows.wanted.pop_front();
        windows.lanes -= usize::from(next.is_none());
        self.note_wants(&windows);
        next
    }

    /// The bytes, once another reader has brought them; or the range that the caller must [`load`](Self::load) now.
    fn claim(&self, place: &Place) -> Result<Bytes, Range<u64>> {
        let mut windows = self.windows.lock();
        windows.hurry(place);
        loop {
            if let Some(bytes) = windows.touch(place, self.room(), &self.tail) {
                self.note_wants(&windows);
                return Ok(bytes);
            }
            if windows.loading(place).next().is_none() {
                break;
            }
            self.loaded.wait(&mut windows);
        }
        Err(self.claim_new(windows, place))
    }

    fn claim_new(&self, mut windows: MutexGuard<'_, Windows>, place: &Place) -> Range<u64> {
        let (segment, wanted) = (place.segment.no, place.range());
        let ahead = windows.runs_on(place);
        let start = windows.begin_of(place);
        let until = (wanted.start / STEP * STEP + ahead.map_or(FIRST_READ, window))
            .min(windows.next_start(segment, start))
            .max(wanted.end);
        let end = until.next_multiple_of(STEP).min(place.stable_end);
        windows.begin(segment, start..end, ahead.unwrap_or(0), false, None);
        if let Some(ahead) = ahead {
            windows.want(place, end, ahead, self.room());
            self.note_wants(&windows);
        }
        start..end
    }

    /// The next range of a stretch that no thread has loaded or loads, claimed; from `start` on.
    fn claim_ahead(&self, stretch: &Stretch, mut start: u64) -> Option<Range<u64>> {
        let mut windows = self.windows.lock();
        let segment = stretch.segment.no;
        while let Some(end) = windows.end_of(segment, start) {
            start = end;
        }
        if start >= stretch.range.end {
            return None;
        }
        let end =
            (start + window(stretch.ahead)).min(stretch.range.end).min(windows.next_start(segment, start));
        let next = stretch.next.filter(|_| start == stretch.range.start);
        windows.begin(segment, start..end, stretch.ahead, true, next);
        Some(start..end)
    }

    fn load_ahead(&self, stretch: &Stretch) {
        let mut start = stretch.range.start;
        while let Some(range) = self.claim_ahead(stretch, start) {
            if self.load(&stretch.segment, &range).is_err() {
                return;
            }
            start = range.end;
        }
    }

    /// Reads a claimed range.
    fn load(&self, segment: &Segment, range: &Range<u64>) -> Result<Bytes, crate::disk::DiskError> {
        let len = (range.end - range.start) as usize;
        let loading = self.loading.begin(len, self.most_loading());
        let mut buf = self.pool.get(len);
        let read = segment.file.read(range.start, &mut buf).map(|()| self.tail.share(buf));
        drop(loading);
        self.reads.fetch_add(1, Ordering::Relaxed);
        self.read_bytes.fetch_add(range.end - range.start, Ordering::Relaxed);
        let mut windows = self.windows.lock();
        let windows = &mut *windows;
        let at = windows.windows.iter().position(|w| w.bytes.is_none() && w.is(segment.no, range.start));
        match (at, &read) {
            (Some(at), Ok(bytes)) => windows.windows[at].bytes = Some(bytes.clone()),
            (Some(at), Err(_)) => drop(windows.windows.remove(at)),
            (None, _) => {}
        }
        windows.shrink(self.bound());
        self.loaded.notify_all();
        read
    }
}

/// A read that waits for the disk. It pins its segment until dropped.
#[derive(Debug)]
pub struct ColdRead {
    pub(crate) reads: Arc<ColdReads>,
    pub(crate) place: Place,
}

impl ColdRead {
    /// Reads the bytes, and some after them for the next reader; or waits for another thread that does. Blocking: to be called on a
    /// thread that may block.
    ///
    /// # Errors
    /// [`BlockReadError::Disk`], and [`BlockReadError::Corrupt`] where another block stands in the place. The bytes themselves are
    /// not verified: they have a checksum of their own.
    pub fn run(self) -> Result<Bytes, BlockReadError> {
        let bytes = self.bytes()?;
        self.reads.check(&self.place)?;
        Ok(bytes)
    }

    fn bytes(&self) -> Result<Bytes, BlockReadError> {
        let place = &self.place;
        let range = match self.reads.claim(place) {
            Ok(bytes) => return Ok(bytes),
            Err(range) => range,
        };
        let bytes = self.reads.load(&place.segment, &range).map_err(|source| place.failed(source))?;
        let at = (place.start - range.start) as usize;
        Ok(self.reads.tail.slice_of(&bytes, at..at + place.len()))
    }
}

/// Stretches that readers will come to soon. It pins their segments until dropped.
#[derive(Debug)]
pub struct ReadAhead {
    reads: Arc<ColdReads>,
    /// None once its lane is given back.
    stretch: Option<Stretch>,
}

impl ReadAhead {
    /// Loads them, window by window, until no more are wanted. Blocking, as [`ColdRead::run`]. An error is left to the reader that
    /// comes to the place.
    pub fn run(mut self) {
        while let Some(stretch) = &self.stretch {
            self.reads.load_ahead(stretch);
            self.stretch = self.reads.next_wanted();
        }
    }
}

impl Drop for ReadAhead {
    fn drop(&mut self) {
        if self.stretch.is_some() {
            let mut windows = self.reads.windows.lock();
            windows.lanes -= 1;
            self.reads.note_wants(&windows);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_loaded_at_once_than_may_be_or_one_alone() {
        let loading = Loading::default();
        let first = loading.begin(9, 4);
        let (told, hears) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                let (loading, told) = (&loading, told.clone());
                scope.spawn(move || {
                    let one = loading.begin(2, 4);
                    told.send(*loading.bytes.lock()).unwrap();
                    drop(one);
                });
            }
            assert!(hears.try_recv().is_err(), "the first one is alone");
            drop(first);
        });
        drop(told);
        assert!(hears.iter().all(|bytes| bytes <= 4));
        assert_eq!(*loading.bytes.lock(), 0);
    }
}

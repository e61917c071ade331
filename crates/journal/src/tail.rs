//! The newest blocks in memory, as they were written, of all the journals that share a budget. What readers hold counts against it: slow
//! ones make the caches smaller, down to a quarter of the bound. Once both hold a quarter more than the bound, readers get copies of
//! what they asked for, which their own memory counts, and hold nothing of the blocks any more. So both together take half as much
//! again as the bound at most, but for what is not on the disk yet and what is being loaded.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use sabir_base::buf::{AlignedBuf, HeldBytes};

use crate::frame::FRAME;

/// A slice of at most this many bytes is copied out of a block [`COPY_OUT_RATIO`] times as large, rather than pin it. Copying a
/// larger one costs more than it saves, while there is room: what pins it is mostly on its way to a socket. Without room every
/// slice is copied: the block's memory may be a part of a chunk, and pins all of that.
const COPY_OUT: usize = 4 << 10;
const COPY_OUT_RATIO: usize = 8;
/// The share of the bound that the caches keep, whatever readers hold.
const KEPT: usize = 4;
/// What is the oldest of a cache that has none which can be had elsewhere.
const NO_AGE: u64 = u64::MAX;

/// What the tail caches of several journals may hold together: the oldest block of all of them goes first.
#[derive(Debug)]
pub struct TailBudget {
    bound: AtomicUsize,
    held: Arc<HeldBytes>,
    /// Bytes of the blocks in the caches, whether readers hold them, too, or not.
    cached: AtomicUsize,
    /// The age of the next block.
    next_age: AtomicU64,
    tails: RwLock<Vec<Weak<Tail>>>,
}

impl TailBudget {
    /// A budget of so many bytes.
    pub fn new(bound: usize) -> Arc<Self> {
        Arc::new(Self {
            bound: AtomicUsize::new(bound),
            held: Arc::default(),
            cached: AtomicUsize::new(0),
            next_age: AtomicU64::new(0),
            tails: RwLock::default(),
        })
    }

    /// The most that the caches hold just now, in bytes, but for what readers pin and what is not on the disk yet.
    pub fn bound(&self) -> usize {
        self.bound.load(Ordering::Relaxed)
    }

    /// Bytes of memory that the caches and their readers hold.
    pub fn held_bytes(&self) -> usize {
        self.held.get()
    }

    /// Lets the caches hold at most `bound` bytes from now on, and lets go of what is beyond them.
    pub fn resize(&self, bound: usize) {
        self.bound.store(bound, Ordering::Relaxed);
        self.make_room();
    }

    fn make_room(&self) {
        while self.held_bytes() > self.bound() && self.cached() > self.bound() / KEPT && self.evict_oldest() {
        }
    }

    fn cached(&self) -> usize {
        self.cached.load(Ordering::Relaxed)
    }

    /// Whether readers may pin no more.
    fn is_pinned_full(&self) -> bool {
        let bound = self.bound();
        self.held_bytes() > bound.saturating_add(bound / KEPT)
    }

    /// Lets go of the oldest block that can be had elsewhere. False if there is none.
    fn evict_oldest(&self) -> bool {
        let tails = self.tails.read();
        let oldest = tails.iter().filter_map(Weak::upgrade).map(|tail| (tail.oldest(), tail));
        let Some((age, tail)) = oldest.min_by_key(|(age, _)| *age) else { return false };
        age != NO_AGE && tail.evict()
    }

    /// The caches that share it.
    pub(crate) fn sharers(&self) -> usize {
        self.tails.read().len().max(1)
    }

    fn join(&self, tail: &Arc<Tail>) {
        let mut tails = self.tails.write();
        tails.retain(|tail| tail.strong_count() > 0);
        tails.push(Arc::downgrade(tail));
    }
}

/// The cache of one journal.
#[derive(Debug)]
pub(crate) struct Tail {
    budget: Arc<TailBudget>,
    held: Arc<HeldBytes>,
    blocks: Mutex<Blocks>,
}

/// Frames by sequence, without holes.
#[derive(Debug)]
struct Blocks {
    first: u64,
    frames: VecDeque<Aged>,
    /// The last that can be had elsewhere.
    evictable: u64,
}

#[derive(Debug)]
struct Aged {
    frame: Bytes,
    content_len: usize,
    age: u64,
}

impl Tail {
    /// An empty cache behind `last`.
    pub(crate) fn after(last: u64, budget: Arc<TailBudget>) -> Arc<Self> {
        let blocks = Blocks { first: last + 1, frames: VecDeque::new(), evictable: last };
        let held = HeldBytes::within(budget.held.clone());
        let tail = Arc::new(Self { budget, held, blocks: Mutex::new(blocks) });
        tail.budget.join(&tail);
        tail
    }

    /// Shares a frame's buffer, counted.
    pub(crate) fn share(&self, buf: AlignedBuf) -> Bytes {
        buf.counted(&self.held).freeze()
    }

    /// Takes in the next block, and has old ones beyond the budget let go; only those through `evictable` can be had elsewhere.
    pub(crate) fn push(&self, frame: Bytes, content_len: usize, evictable: u64) {
        let age = self.budget.next_age.fetch_add(1, Ordering::Relaxed);
        let mut blocks = self.blocks.lock();
        self.budget.cached.fetch_add(frame.len(), Ordering::Relaxed);
        blocks.frames.push_back(Aged { frame, content_len, age });
        blocks.evictable = evictable;
        // Another journal's push may look at this cache.
        drop(blocks);
        self.budget.make_room();
    }

    /// The age of the oldest block, if that can be had elsewhere.
    fn oldest(&self) -> u64 {
        let blocks = self.blocks.lock();
        let oldest = blocks.frames.front().filter(|_| blocks.first <= blocks.evictable);
        oldest.map_or(NO_AGE, |block| block.age)
    }

    /// Lets go of the oldest block. False if that cannot be had elsewhere, or there is none.
    fn evict(&self) -> bool {
        let mut blocks = self.blocks.lock();
        if blocks.first > blocks.evictable {
            return false;
        }
        let oldest = blocks.frames.pop_front();
        blocks.first += u64::from(oldest.is_some());
        let freed = oldest.as_ref().map_or(0, |block| block.frame.len());
        self.budget.cached.fetch_sub(freed, Ordering::Relaxed);
        // Its memory is given back without the lock.
        drop(blocks);
        oldest.is_some()
    }

    /// The content of a block.
    pub(crate) fn get(&self, sequence: u64) -> Option<Bytes> {
        let blocks = self.blocks.lock();
        let index = sequence.checked_sub(blocks.first)?;
        blocks.frames.get(index as usize).map(|block| content_of(&block.frame, block.content_len))
    }

    /// The whole frame of a block, as it was written.
    pub(crate) fn frame(&self, sequence: u64) -> Option<Bytes> {
        let blocks = self.blocks.lock();
        let index = sequence.checked_sub(blocks.first)?;
        blocks.frames.get(index as usize).map(|block| block.frame.clone())
    }

    /// Drops the blocks above `after`.
    pub(crate) fn cut(&self, after: u64) {
        let mut blocks = self.blocks.lock();
        let kept = (after + 1).saturating_sub(blocks.first) as usize;
        let dropped = blocks.frames.iter().skip(kept).map(|block| block.frame.len()).sum();
        self.budget.cached.fetch_sub(dropped, Ordering::Relaxed);
        blocks.frames.truncate(kept);
        if blocks.frames.is_empty() {
            blocks.first = after + 1;
        }
    }

    /// A range of a block or window, copied out where that is much larger, or readers may pin no more.
    pub(crate) fn slice_of(&self, content: &Bytes, range: std::ops::Range<usize>) -> Bytes {
        let small = range.len() <= COPY_OUT && range.len() * COPY_OUT_RATIO < content.len();
        if small || self.budget.is_pinned_full() {
            Bytes::copy_from_slice(&content[range])
        } else {
            content.slice(range)
        }
    }

    /// Bytes of the memory that this cache and its readers hold.
    pub(crate) fn held_bytes(&self) -> usize {
        self.held.get()
    }

    /// The budget that it shares.
    pub(crate) fn budget(&self) -> &Arc<TailBudget> {
        &self.budget
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        self.cut(0);
    }
}

/// The content in a frame's shared buffer.
pub(crate) fn content_of(frame: &Bytes, content_len: usize) -> Bytes {
    frame.slice(FRAME..FRAME + content_len)
}

#[cfg(test)]
mod tests {
    use super::*;
    use sabir_base::buf::BufPool;

    fn push(tail: &Tail, fill: u8, evictable: u64) {
        let mut buf = BufPool::new(0).get(8192);
        buf.fill(fill);
        tail.push(tail.share(buf), 8000, evictable);
    }

    #[test]
    fn holds_the_newest_blocks_within_its_bound() {
        let tail = Tail::after(10, TailBudget::new(3 * 8192));
        for i in 1..=5 {
            push(&tail, i, 20);
        }
        assert_eq!(tail.held_bytes(), 3 * 8192);
        assert_eq!(tail.get(12), None);
        assert_eq!(tail.get(13).unwrap()[0], 3);
        assert_eq!(tail.get(15).unwrap()[0], 5);
        assert_eq!((tail.get(16), tail.get(0)), (None, None));
    }

    #[test]
    fn gives_memory_back_when_it_is_to_hold_less() {
        let tail = Tail::after(0, TailBudget::new(5 * 8192));
        (1..=5).for_each(|i| push(&tail, i, 4));
        tail.budget.resize(2 * 8192);
        assert_eq!((tail.held_bytes(), tail.get(3)), (2 * 8192, None));
        tail.budget.resize(usize::MAX);
        assert!(!tail.budget.is_pinned_full());
        tail.budget.resize(0);
        assert_eq!(tail.get(5).unwrap()[0], 5, "what is not elsewhere stays");
        tail.budget.resize(5 * 8192);
        (6..=9).for_each(|i| push(&tail, i, 9));
        assert_eq!(tail.held_bytes(), 5 * 8192);
    }

    #[test]
    fn the_oldest_block_of_all_journals_goes_first() {
        let budget = TailBudget::new(4 * 8192);
        let (quiet, busy) = (Tail::after(0, budget.clone()), Tail::after(0, budget.clone()));
        (1..=3).for_each(|i| push(&quiet, i, 2));
        push(&busy, 1, 0);
        assert_eq!((quiet.held_bytes(), busy.held_bytes(), budget.held_bytes()), (3 * 8192, 8192, 4 * 8192));
        push(&busy, 2, 1);
        assert_eq!((quiet.get(1), quiet.held_bytes()), (None, 2 * 8192), "the quiet journal's is the oldest");
        (3..=9).for_each(|i| push(&busy, i, u64::from(i) - 1));
        assert_eq!((quiet.get(2), quiet.get(3).unwrap()[0]), (None, 3), "the third is not elsewhere");
        assert_eq!((busy.get(6), busy.get(7).unwrap()[0], budget.held_bytes()), (None, 7, 4 * 8192));
        drop(quiet);
        assert_eq!((budget.held_bytes(), busy.held_bytes()), (3 * 8192, 3 * 8192));
        push(&busy, 10, 9);
        assert_eq!(busy.get(7).unwrap()[0], 7, "what another held is there for all");
    }

    #[test]
    fn what_is_not_elsewhere_stays_whatever_the_bound() {
        let tail = Tail::after(0, TailBudget::new(8192));
        for i in 1..=4 {
            push(&tail, i, 0);
        }
        assert_eq!(tail.get(1).unwrap()[0], 1);
        push(&tail, 5, 4);
        assert_eq!((tail.get(4), tail.held_bytes()), (None, 8192));
    }

    #[test]
    fn a_slow_reader_shrinks_the_cache() {
        let tail = Tail::after(0, TailBudget::new(2 * 8192));
        push(&tail, 1, 0);
        let pinned = tail.get(1).unwrap();
        push(&tail, 2, 1);
        push(&tail, 3, 2);
        assert_eq!((tail.get(1), tail.get(2)), (None, None));
        assert_eq!(tail.held_bytes(), 2 * 8192);
        assert_eq!(pinned[0], 1);
        drop(pinned);
        assert_eq!(tail.held_bytes(), 8192);
    }

    #[test]
    fn a_cut_drops_what_is_above_it() {
        let tail = Tail::after(0, TailBudget::new(1 << 20));
        (1..=4).for_each(|i| push(&tail, i, 0));
        tail.cut(2);
        assert!(tail.get(2).is_some() && tail.get(3).is_none());
        push(&tail, 9, 0);
        assert_eq!(tail.get(3).unwrap()[0], 9);
        tail.cut(0);
        push(&tail, 7, 0);
        assert_eq!(tail.get(1).unwrap()[0], 7);
    }

    #[test]
    fn small_slices_of_large_blocks_are_copied_out() {
        let tail = Tail::after(0, TailBudget::new(1 << 20));
        push(&tail, 1, 0);
        let content = tail.get(1).unwrap();
        let (small, large) = (tail.slice_of(&content, 10..110), tail.slice_of(&content, 0..4000));
        assert_eq!((small.len(), large.len()), (100, 4000));
        tail.cut(0);
        drop((content, large));
        assert_eq!(tail.held_bytes(), 0, "the small slice pins nothing");
    }

    fn block(tail: &Tail, fill: u8) -> Bytes {
        let mut buf = BufPool::new(0).get(65_536);
        buf.fill(fill);
        tail.share(buf)
    }

    #[test]
    fn slow_readers_of_whole_blocks_hold_no_more_than_the_bound_and_half_and_leave_a_quarter_to_the_cache() {
        let bound = 16 * 65_536;
        let budget = TailBudget::new(bound);
        let (tail, other) = (Tail::after(0, budget.clone()), Tail::after(0, budget.clone()));
        let mut pinned = Vec::new();
        for i in 1..=200_u64 {
            let one = block(&tail, i as u8);
            tail.push(one.clone(), 65_000, i);
            let slice = tail.slice_of(&one, 0..65_000);
            assert_eq!(slice[..2], [i as u8; 2], "block {i}");
            pinned.push(slice);
            drop(one);
            assert!(budget.held_bytes() <= bound + bound / 2, "{} bytes after {i}", budget.held_bytes());
        }
        assert!(tail.get(196).is_none() && tail.get(197).is_some(), "a quarter is for those who keep up");
        (1..=8).for_each(|i| push(&other, i, i.into()));
        assert!(other.get(1).is_some() && tail.get(197).is_none() && tail.get(198).is_some(), "all share it");
        drop(pinned);
        (201..=300_u64).for_each(|i| tail.push(block(&tail, i as u8), 65_000, i));
        assert_eq!((budget.held_bytes(), budget.cached()), (bound, bound), "all of it is the caches' again");
        drop((tail, other));
        assert_eq!((budget.held_bytes(), budget.cached()), (0, 0));
    }

    #[test]
    fn slices_are_copied_out_while_readers_pin_too_much() {
        let tail = Tail::after(0, TailBudget::new(2 * 65_536));
        let blocks: Vec<Bytes> = (0..4).map(|fill| block(&tail, fill)).collect();
        let held = tail.held_bytes();
        let slices: Vec<Bytes> = blocks.iter().map(|b| tail.slice_of(b, 0..8000)).collect();
        drop(blocks);
        assert_eq!((tail.held_bytes(), slices[3][0]), (0, 3), "{held} bytes are beyond the bound");
        let block = block(&tail, 9);
        let slice = tail.slice_of(&block, 0..8000);
        drop(block);
        assert_eq!((tail.held_bytes(), slice[0]), (65_536, 9), "there is room to share it");
    }
}

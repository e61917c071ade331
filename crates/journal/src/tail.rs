//! The newest blocks in memory, as they were written. What readers hold counts against the bound: slow ones make the cache
//! smaller, and once they hold half as much again, they get copies of what they asked for rather than hold whole blocks for it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;
use sabir_base::buf::AlignedBuf;

use crate::frame::FRAME;

/// A slice of at most this many bytes is copied out of a block [`COPY_OUT_RATIO`] times as large, rather than pin it. Copying a
/// larger one costs more than it saves, while there is room: what pins it is mostly on its way to a socket.
const COPY_OUT: usize = 4 << 10;
const COPY_OUT_RATIO: usize = 8;

/// The cache.
#[derive(Debug)]
pub(crate) struct Tail {
    bound: AtomicUsize,
    /// Bytes of the memory that this cache and its readers hold.
    held: Arc<AtomicUsize>,
    blocks: Mutex<Blocks>,
}

/// Contents by sequence, without holes.
#[derive(Debug)]
struct Blocks {
    first: u64,
    contents: VecDeque<Bytes>,
}

impl Tail {
    /// An empty cache behind `last`.
    pub(crate) fn after(last: u64, bound: usize) -> Self {
        let blocks = Blocks { first: last + 1, contents: VecDeque::new() };
        Self { bound: AtomicUsize::new(bound), held: Arc::default(), blocks: Mutex::new(blocks) }
    }

    /// Shares a frame's buffer, counted.
    pub(crate) fn share(&self, buf: AlignedBuf) -> Bytes {
        buf.counted(&self.held).freeze()
    }

    /// Takes in the next block, and lets go of old ones beyond the bound; only those through `evictable` can be had elsewhere.
    pub(crate) fn push(&self, content: Bytes, evictable: u64) {
        let mut blocks = self.blocks.lock();
        blocks.contents.push_back(content);
        self.evict(&mut blocks, evictable);
    }

    /// Holds at most `bound` bytes from now on, and lets go of what is beyond them.
    pub(crate) fn resize(&self, bound: usize, evictable: u64) {
        self.bound.store(bound, Ordering::Relaxed);
        self.evict(&mut self.blocks.lock(), evictable);
    }

    fn evict(&self, blocks: &mut Blocks, evictable: u64) {
        while self.held_bytes() > self.bound() && blocks.first <= evictable {
            if blocks.contents.pop_front().is_none() {
                break;
            }
            blocks.first += 1;
        }
    }

    pub(crate) fn bound(&self) -> usize {
        self.bound.load(Ordering::Relaxed)
    }

    /// The content of a block.
    pub(crate) fn get(&self, sequence: u64) -> Option<Bytes> {
        let blocks = self.blocks.lock();
        let index = sequence.checked_sub(blocks.first)?;
        blocks.contents.get(index as usize).cloned()
    }

    /// Drops the blocks above `after`.
    pub(crate) fn cut(&self, after: u64) {
        let mut blocks = self.blocks.lock();
        let kept = (after + 1).saturating_sub(blocks.first) as usize;
        blocks.contents.truncate(kept);
        if blocks.contents.is_empty() {
            blocks.first = after + 1;
        }
    }

    /// A range of a block or window, copied out where that is much larger and what is pinned matters.
    pub(crate) fn slice_of(&self, content: &Bytes, range: std::ops::Range<usize>) -> Bytes {
        let small = range.len() <= COPY_OUT || self.held_bytes() > self.bound() + self.bound() / 2;
        if small && range.len() * COPY_OUT_RATIO < content.len() {
            Bytes::copy_from_slice(&content[range])
        } else {
            content.slice(range)
        }
    }

    /// Bytes that the cache and its readers hold.
    pub(crate) fn held_bytes(&self) -> usize {
        self.held.load(Ordering::Relaxed)
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
        let frame = tail.share(buf);
        tail.push(content_of(&frame, 8000), evictable);
    }

    #[test]
    fn holds_the_newest_blocks_within_its_bound() {
        let tail = Tail::after(10, 3 * 8192);
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
        let tail = Tail::after(0, 5 * 8192);
        (1..=5).for_each(|i| push(&tail, i, 4));
        tail.resize(2 * 8192, 4);
        assert_eq!((tail.held_bytes(), tail.get(3)), (2 * 8192, None));
        tail.resize(0, 4);
        assert_eq!(tail.get(5).unwrap()[0], 5, "what is not elsewhere stays");
        tail.resize(5 * 8192, 4);
        (6..=9).for_each(|i| push(&tail, i, 9));
        assert_eq!(tail.held_bytes(), 5 * 8192);
    }

    #[test]
    fn what_is_not_elsewhere_stays_whatever_the_bound() {
        let tail = Tail::after(0, 8192);
        for i in 1..=4 {
            push(&tail, i, 0);
        }
        assert_eq!(tail.get(1).unwrap()[0], 1);
        push(&tail, 5, 4);
        assert_eq!((tail.get(4), tail.held_bytes()), (None, 8192));
    }

    #[test]
    fn a_slow_reader_shrinks_the_cache() {
        let tail = Tail::after(0, 2 * 8192);
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
        let tail = Tail::after(0, 1 << 20);
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
        let tail = Tail::after(0, 1 << 20);
        push(&tail, 1, 0);
        let content = tail.get(1).unwrap();
        let (small, large) = (tail.slice_of(&content, 10..110), tail.slice_of(&content, 0..4000));
        assert_eq!((small.len(), large.len()), (100, 4000));
        tail.cut(0);
        drop((content, large));
        assert_eq!(tail.held_bytes(), 0, "the small slice pins nothing");
    }

    #[test]
    fn slices_are_copied_out_while_readers_pin_too_much() {
        let tail = Tail::after(0, 2 * 65_536);
        let block = |fill| {
            let mut buf = BufPool::new(0).get(65_536);
            buf.fill(fill);
            content_of(&tail.share(buf), 65_000)
        };
        let blocks: Vec<Bytes> = (0..4).map(block).collect();
        let held = tail.held_bytes();
        let slices: Vec<Bytes> = blocks.iter().map(|b| tail.slice_of(b, 0..8000)).collect();
        drop(blocks);
        assert_eq!((tail.held_bytes(), slices[3][0]), (0, 3), "{held} bytes are beyond the bound");
        let block = block(9);
        let slice = tail.slice_of(&block, 0..8000);
        drop(block);
        assert_eq!((tail.held_bytes(), slice[0]), (65_536, 9), "there is room to share it");
    }
}

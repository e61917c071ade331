//! Memory for buffers that come one after another and go in about the same order, carved out of chunks. A buffer takes whole pages
//! rather than the next power of two, grows in its place, and of a fresh chunk only the pages that are written to are ever touched.

use std::alloc::handle_alloc_error;
use std::ptr::NonNull;
use std::sync::{Arc, OnceLock, Weak};

use super::{AlignedBuf, BufPool, HeldBytes, Memory, Raw, round_up};

/// The bytes of a chunk. Huge pages for it were tried: where the machine is virtual and its host does not back it with such pages,
/// the first touch of one cost 7 ms, three times as much as that of as many small pages.
pub const CHUNK: usize = 2 << 20;

/// Hands out buffers of one chunk after another. The last one can grow and shrink in its place.
#[derive(Debug)]
pub struct Arena {
    pool: Arc<BufPool>,
    /// The largest buffer that is carved out of a chunk.
    largest: usize,
    chunk: Option<Arc<Chunk>>,
    /// Where the free part of the chunk begins: nothing that was handed out lies behind it.
    end: usize,
}

impl Arena {
    /// An arena that takes its chunks from `pool`.
    pub fn new(pool: Arc<BufPool>) -> Self {
        Self { pool, largest: CHUNK, chunk: None, end: 0 }
    }

    /// One without chunks, whose every buffer is the pool's: where so little is kept that whole chunks would be most of it.
    pub fn without_chunks(pool: Arc<BufPool>) -> Self {
        Self { largest: 0, ..Self::new(pool) }
    }

    /// A buffer of `len` bytes, with whatever an earlier user left in it. What is larger than a chunk is
    /// the pool's.
    pub fn get(&mut self, len: usize) -> AlignedBuf {
        let capacity = round_up(len.max(1));
        if capacity > self.largest {
            return self.pool.get(len);
        }
        let at = self.end;
        let chunk = match self.chunk.clone() {
            Some(chunk) if CHUNK - at >= capacity => chunk,
            _ => return self.get_of_next(len, capacity),
        };
        self.end = at + capacity;
        AlignedBuf::new(Memory::Carved(Carved { chunk, at, capacity }), len)
    }

    fn get_of_next(&mut self, len: usize, capacity: usize) -> AlignedBuf {
        let chunk = Arc::new(Chunk::new(&self.pool));
        self.chunk = Some(chunk.clone());
        self.end = capacity;
        AlignedBuf::new(Memory::Carved(Carved { chunk, at: 0, capacity }), len)
    }

    /// Makes room for at least `len` bytes in the buffer where it lies. False where something stands behind it.
    pub fn grow(&mut self, buf: &mut AlignedBuf, len: usize) -> bool {
        let Some(carved) = self.last(buf) else { return false };
        let end = carved.at + round_up(len).max(carved.capacity);
        if end > CHUNK {
            return false;
        }
        carved.capacity = end - carved.at;
        self.end = end;
        true
    }

    /// Takes back the pages behind the buffer's length, if nothing stands behind them.
    pub fn shrink(&mut self, buf: &mut AlignedBuf) {
        let capacity = round_up(buf.len().max(1));
        let Some(carved) = self.last(buf) else { return };
        carved.capacity = capacity;
        self.end = carved.at + capacity;
    }

    /// The buffer's place, if it is the last that was handed out.
    fn last<'a>(&self, buf: &'a mut AlignedBuf) -> Option<&'a mut Carved> {
        let Some(Memory::Carved(carved)) = &mut buf.memory else { return None };
        let is_last = self.chunk.as_ref().is_some_and(|chunk| Arc::ptr_eq(chunk, &carved.chunk))
            && carved.at + carved.capacity == self.end;
        is_last.then_some(carved)
    }
}

/// A part of a chunk that one buffer has alone.
#[derive(Debug)]
pub(super) struct Carved {
    chunk: Arc<Chunk>,
    at: usize,
    capacity: usize,
}

impl Carved {
    pub(super) fn capacity(&self) -> usize {
        self.capacity
    }

    /// Counts the whole chunk in `held` for as long as any buffer of it lives.
    pub(super) fn count(&self, held: &Arc<HeldBytes>) {
        self.chunk.held.get_or_init(|| {
            held.add(CHUNK);
            held.clone()
        });
    }

    pub(super) fn as_slice(&self) -> &[u8] {
        // SAFETY: the chunk lives as long as this part of it. The arena hands out `at..at + capacity`, within the chunk, to one buffer
        // alone: it begins each where the last one ends, and moves that end only with the buffer that it belongs to.
        unsafe { std::slice::from_raw_parts(self.start(), self.capacity) }
    }

    pub(super) fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: as in `as_slice`, and the borrow of self is exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.start(), self.capacity) }
    }

    fn start(&self) -> *mut u8 {
        let mapping = self.chunk.mapping.as_ref().expect("present until drop");
        // SAFETY: `at` is within the chunk.
        unsafe { mapping.0.as_ptr().add(self.at) }
    }
}

/// A mapping that its buffers share; it returns to the pool with the last of them.
#[derive(Debug)]
pub(super) struct Chunk {
    mapping: Option<Mapping>,
    pool: Weak<BufPool>,
    held: OnceLock<Arc<HeldBytes>>,
}

impl Chunk {
    fn new(pool: &Arc<BufPool>) -> Self {
        let mapping = pool.take_mapping().unwrap_or_else(Mapping::new);
        Self { mapping: Some(mapping), pool: Arc::downgrade(pool), held: OnceLock::new() }
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        if let Some(held) = self.held.get() {
            held.sub(CHUNK);
        }
        if let (Some(mapping), Some(pool)) = (self.mapping.take(), self.pool.upgrade()) {
            pool.give_mapping(mapping);
        }
    }
}

/// [`CHUNK`] bytes from the kernel, zero at first.
#[derive(Debug)]
pub(super) struct Mapping(NonNull<u8>);

// SAFETY: a Mapping owns its memory alone; nothing else holds the pointer.
unsafe impl Send for Mapping {}
// SAFETY: a shared Mapping hands out nothing; what a chunk carves of it is exclusive to each buffer.
unsafe impl Sync for Mapping {}

impl Mapping {
    fn new() -> Self {
        let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANON);
        // SAFETY: a new anonymous mapping anywhere touches nothing that exists.
        let at = unsafe { libc::mmap(std::ptr::null_mut(), CHUNK, protection, flags, -1, 0) };
        match NonNull::new(at.cast()) {
            Some(at) if at.as_ptr() != libc::MAP_FAILED.cast() => Self(at),
            _ => handle_alloc_error(Raw::layout(CHUNK)),
        }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped in `new` with this length, unmapped once.
        let failed = unsafe { libc::munmap(self.0.as_ptr().cast(), CHUNK) };
        debug_assert_eq!(failed, 0, "a mapping of ours, whole");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buf::PAGE;

    fn arena(keep: usize) -> (Arc<BufPool>, Arena) {
        let pool = BufPool::new(keep);
        (pool.clone(), Arena::new(pool))
    }

    #[test]
    fn buffers_lie_behind_one_another_in_whole_pages() {
        let (_, mut arena) = arena(0);
        let (mut a, mut b) = (arena.get(5000), arena.get(1));
        assert_eq!((a.len(), a.capacity(), b.capacity()), (5000, 8192, 4096));
        assert_eq!(a.as_ptr() as usize % PAGE, 0);
        assert_eq!(a.as_ptr() as usize + 8192, b.as_ptr() as usize);
        a.fill(1);
        b.fill(2);
        assert!(a.iter().all(|&byte| byte == 1));
        let large = arena.get(CHUNK + 1);
        assert_eq!(large.len(), CHUNK + 1);
    }

    #[test]
    fn the_last_buffer_grows_and_shrinks_in_its_place() {
        let (_, mut arena) = arena(0);
        let mut first = arena.get(PAGE);
        assert!(arena.grow(&mut first, 3 * PAGE));
        let at = first.as_ptr();
        first.set_len(2 * PAGE);
        arena.shrink(&mut first);
        let mut second = arena.get(PAGE);
        assert_eq!((first.as_ptr(), first.capacity()), (at, 2 * PAGE));
        assert_eq!(second.as_ptr() as usize, at as usize + 2 * PAGE);
        assert!(!arena.grow(&mut first, 3 * PAGE), "the second stands behind it");
        arena.shrink(&mut first);
        assert!(!arena.grow(&mut second, CHUNK), "the chunk ends");
        assert!(arena.grow(&mut second, CHUNK - 2 * PAGE));
        let _third = arena.get(PAGE);
        assert!(!arena.grow(&mut second, CHUNK - 2 * PAGE), "of a chunk that is full");
    }

    #[test]
    fn a_buffer_of_another_arena_neither_grows_nor_shrinks() {
        let (pool, mut arena) = arena(0);
        let mut foreign = Arena::new(pool.clone()).get(PAGE);
        let mut pooled = pool.get(PAGE);
        let _ours = arena.get(PAGE);
        assert!(!arena.grow(&mut foreign, 2 * PAGE) && !arena.grow(&mut pooled, 2 * PAGE));
        foreign.set_len(0);
        arena.shrink(&mut foreign);
        assert_eq!(foreign.capacity(), PAGE);
    }

    #[test]
    fn a_chunk_counts_while_any_buffer_of_it_lives_and_comes_back() {
        let (pool, mut arena) = arena(CHUNK);
        let all = Arc::default();
        let held = HeldBytes::within(Arc::clone(&all));
        let a = arena.get(PAGE).counted(&held).freeze();
        let b = arena.get(PAGE).counted(&held).freeze();
        assert_eq!(held.get(), CHUNK);
        let at = a.as_ptr();
        let full = arena.get(CHUNK).counted(&held);
        drop(a);
        assert_eq!(held.get(), 2 * CHUNK, "the other one holds it");
        drop(b);
        assert_eq!((held.get(), pool.idle_bytes()), (CHUNK, CHUNK));
        assert_eq!(arena.get(PAGE).as_ptr(), at);
        assert_eq!(all.get(), CHUNK, "it is counted in both");
        drop((full, arena));
        assert_eq!((held.get() + all.get(), pool.idle_bytes()), (0, CHUNK), "one is kept");
    }
}

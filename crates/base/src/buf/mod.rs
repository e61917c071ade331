//! Page-aligned buffers for direct I/O, pooled: the first touch of fresh memory costs 20 to 60 times its reuse.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use bytes::Bytes;
use parking_lot::Mutex;

use arena::{Carved, Mapping};

mod arena;

pub use arena::{Arena, CHUNK};

/// The alignment and the granule of every buffer, in bytes.
pub const PAGE: usize = 4096;

/// Rounds `len` up to whole pages.
pub const fn round_up(len: usize) -> usize {
    len.div_ceil(PAGE) * PAGE
}

/// The largest pooled capacity: a full block of 1 MiB, an entry of up to 1 MiB + 64 KiB, its frame and some slack.
const LARGEST_CLASS: usize = (2 << 20) + (128 << 10);
const CLASSES: usize = 10;

/// The capacities that are pooled: 4 KiB doubling to 1 MiB, then [`LARGEST_CLASS`].
fn class_of(len: usize) -> Option<(usize, usize)> {
    if len > LARGEST_CLASS {
        return None;
    }
    (0..CLASSES).map(|class| (class, class_bytes(class))).find(|&(_, bytes)| len <= bytes)
}

fn class_bytes(class: usize) -> usize {
    if class == CLASSES - 1 { LARGEST_CLASS } else { PAGE << class }
}

/// A pool of [`AlignedBuf`]s, kept by size class up to a bound.
#[derive(Debug)]
pub struct BufPool {
    free: Mutex<FreeLists>,
    keep: usize,
}

#[derive(Debug, Default)]
struct FreeLists {
    classes: [FreeList<Raw>; CLASSES],
    chunks: FreeList<Mapping>,
    bytes: usize,
}

/// What waits for reuse, all of one size.
#[derive(Debug)]
struct FreeList<T> {
    waiting: Vec<T>,
    /// The fewest that waited since the last trim.
    fewest: usize,
}

impl<T> Default for FreeList<T> {
    fn default() -> Self {
        Self { waiting: Vec::new(), fewest: 0 }
    }
}

impl<T> FreeList<T> {
    fn take(&mut self) -> Option<T> {
        let one = self.waiting.pop()?;
        self.fewest = self.fewest.min(self.waiting.len());
        Some(one)
    }

    /// Takes out what was not wanted since the last call.
    fn unused(&mut self) -> Vec<T> {
        let unused = self.waiting.drain(..self.fewest).collect();
        self.fewest = self.waiting.len();
        unused
    }
}

impl BufPool {
    /// A pool that keeps at most `keep` bytes of buffers that are not in use.
    pub fn new(keep: usize) -> Arc<Self> {
        Arc::new(Self { free: Mutex::new(FreeLists::default()), keep })
    }

    /// A buffer of `len` bytes. Its content is whatever an earlier user left.
    pub fn get(self: &Arc<Self>, len: usize) -> AlignedBuf {
        let (raw, pool) = match class_of(len) {
            None => (Raw::zeroed(round_up(len)), Weak::new()),
            Some((class, bytes)) => {
                (self.take(class).unwrap_or_else(|| Raw::zeroed(bytes)), Arc::downgrade(self))
            }
        };
        AlignedBuf::new(Memory::Pooled(raw, pool), len)
    }

    fn take(&self, class: usize) -> Option<Raw> {
        let mut free = self.free.lock();
        let raw = free.classes[class].take()?;
        free.bytes -= raw.capacity;
        Some(raw)
    }

    fn give(&self, raw: Raw) {
        let Some((class, bytes)) = class_of(raw.capacity) else { return };
        debug_assert_eq!(bytes, raw.capacity);
        let mut free = self.free.lock();
        if free.bytes + bytes <= self.keep {
            free.bytes += bytes;
            free.classes[class].waiting.push(raw);
        }
    }

    fn take_mapping(&self) -> Option<Mapping> {
        let mut free = self.free.lock();
        let mapping = free.chunks.take()?;
        free.bytes -= CHUNK;
        Some(mapping)
    }

    fn give_mapping(&self, mapping: Mapping) {
        let mut free = self.free.lock();
        if free.bytes + CHUNK <= self.keep {
            free.bytes += CHUNK;
            free.chunks.waiting.push(mapping);
        }
    }

    /// Frees the buffers and chunks that have not been wanted since the last call.
    pub fn trim(&self) {
        let mut free = self.free.lock();
        let buffers: Vec<Raw> = free.classes.iter_mut().flat_map(FreeList::unused).collect();
        let chunks = free.chunks.unused();
        free.bytes -= buffers.iter().map(|raw| raw.capacity).sum::<usize>() + chunks.len() * CHUNK;
        drop(free);
        drop((buffers, chunks));
    }

    /// Bytes of buffers that wait for reuse.
    pub fn idle_bytes(&self) -> usize {
        self.free.lock().bytes
    }
}

/// Bytes of memory that are held, and among those of another count.
#[derive(Debug, Default)]
pub struct HeldBytes {
    bytes: AtomicUsize,
    all: Option<Arc<HeldBytes>>,
}

impl HeldBytes {
    /// A count whose bytes are counted in `all`, too.
    pub fn within(all: Arc<HeldBytes>) -> Arc<Self> {
        Arc::new(Self { bytes: AtomicUsize::new(0), all: Some(all) })
    }

    /// Bytes held.
    pub fn get(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    fn add(&self, bytes: usize) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        if let Some(all) = &self.all {
            all.add(bytes);
        }
    }

    fn sub(&self, bytes: usize) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        if let Some(all) = &self.all {
            all.sub(bytes);
        }
    }
}

/// Page-aligned memory with a length, returned to its pool when dropped.
#[derive(Debug)]
pub struct AlignedBuf {
    memory: Option<Memory>,
    len: usize,
    held: Option<Arc<HeldBytes>>,
}

/// Where a buffer's memory is from.
#[derive(Debug)]
enum Memory {
    /// An allocation of its own, for the pool that it came from.
    Pooled(Raw, Weak<BufPool>),
    /// A part of an arena's chunk.
    Carved(Carved),
}

impl AlignedBuf {
    fn new(memory: Memory, len: usize) -> Self {
        Self { memory: Some(memory), len, held: None }
    }

    fn memory(&self) -> &Memory {
        self.memory.as_ref().expect("present until drop")
    }

    /// Bytes that fit.
    pub fn capacity(&self) -> usize {
        match self.memory() {
            Memory::Pooled(raw, _) => raw.capacity,
            Memory::Carved(carved) => carved.capacity(),
        }
    }

    /// Counts its memory in `held` until that is given back: its capacity, or the arena's chunk, which is given back whole and is
    /// counted once.
    #[must_use]
    pub fn counted(mut self, held: &Arc<HeldBytes>) -> Self {
        match self.memory() {
            Memory::Carved(carved) => carved.count(held),
            Memory::Pooled(raw, _) => {
                held.add(raw.capacity);
                self.held = Some(held.clone());
            }
        }
        self
    }

    /// Sets how many bytes count.
    ///
    /// # Panics
    /// If `len` is beyond the capacity.
    pub fn set_len(&mut self, len: usize) {
        assert!(len <= self.capacity(), "length {len} is beyond the capacity {}", self.capacity());
        self.len = len;
    }

    /// The buffer as shared bytes, without a copy; it returns to its pool with the last of them.
    pub fn freeze(self) -> Bytes {
        Bytes::from_owner(self)
    }
}

impl Drop for AlignedBuf {
    fn drop(&mut self) {
        if let Some(held) = self.held.take() {
            held.sub(self.capacity());
        }
        if let Some(Memory::Pooled(raw, pool)) = self.memory.take()
            && let Some(pool) = pool.upgrade()
        {
            pool.give(raw);
        }
    }
}

impl Deref for AlignedBuf {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        let memory = match self.memory() {
            Memory::Pooled(raw, _) => raw.as_slice(),
            Memory::Carved(carved) => carved.as_slice(),
        };
        &memory[..self.len]
    }
}

impl DerefMut for AlignedBuf {
    fn deref_mut(&mut self) -> &mut [u8] {
        let memory = match self.memory.as_mut().expect("present until drop") {
            Memory::Pooled(raw, _) => raw.as_mut_slice(),
            Memory::Carved(carved) => carved.as_mut_slice(),
        };
        &mut memory[..self.len]
    }
}

impl AsRef<[u8]> for AlignedBuf {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

/// Owned, zero-initialised, page-aligned memory.
#[derive(Debug)]
struct Raw {
    ptr: NonNull<u8>,
    capacity: usize,
}

// SAFETY: Raw owns its allocation alone; nothing else holds the pointer.
unsafe impl Send for Raw {}
// SAFETY: a shared Raw only hands out shared slices.
unsafe impl Sync for Raw {}

impl Raw {
    fn layout(capacity: usize) -> Layout {
        Layout::from_size_align(capacity.max(PAGE), PAGE)
            .expect("a capacity below isize::MAX, aligned to a power of two")
    }

    fn zeroed(capacity: usize) -> Self {
        let capacity = capacity.max(PAGE);
        let layout = Self::layout(capacity);
        // SAFETY: the layout's size is at least one page, so not zero.
        let ptr = unsafe { alloc_zeroed(layout) };
        let ptr = NonNull::new(ptr).unwrap_or_else(|| handle_alloc_error(layout));
        Self { ptr, capacity }
    }

    fn as_slice(&self) -> &[u8] {
        // SAFETY: `ptr` is valid for `capacity` bytes, initialised when allocated, and borrowed through self.
        unsafe { std::slice::from_raw_parts(self.ptr.as_ptr(), self.capacity) }
    }

    fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: as in `as_slice`, and the borrow of self is exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.ptr.as_ptr(), self.capacity) }
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // SAFETY: allocated in `zeroed` with this very layout, freed once.
        unsafe { dealloc(self.ptr.as_ptr(), Self::layout(self.capacity)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_aligned_and_comes_back() {
        let pool = BufPool::new(1 << 20);
        let mut buf = pool.get(5000);
        assert_eq!(buf.as_ptr() as usize % PAGE, 0);
        assert_eq!((buf.len(), buf.capacity()), (5000, 8192));
        buf[0] = 7;
        let first = buf.as_ptr();
        let bytes = buf.freeze();
        let slice = bytes.slice(1..);
        drop(bytes);
        assert_eq!(pool.idle_bytes(), 0, "a slice still pins it");
        drop(slice);
        assert_eq!(pool.idle_bytes(), 8192);
        assert_eq!(pool.get(8000).as_ptr(), first);
    }

    #[test]
    fn what_nobody_wants_is_freed() {
        let pool = BufPool::new(1 << 20);
        drop((0..8).map(|_| pool.get(PAGE)).collect::<Vec<_>>());
        pool.trim();
        assert_eq!(pool.idle_bytes(), 8 * PAGE, "they have just come");
        drop((pool.get(PAGE), pool.get(PAGE), pool.get(PAGE)));
        pool.trim();
        assert_eq!(pool.idle_bytes(), 3 * PAGE, "three were wanted");
        pool.trim();
        assert_eq!(pool.idle_bytes(), 0);
        assert_eq!(pool.get(PAGE).capacity(), PAGE);
    }

    #[test]
    fn keeps_no_more_than_its_bound() {
        let pool = BufPool::new(PAGE);
        let (a, b) = (pool.get(1), pool.get(1));
        drop((a, b));
        assert_eq!(pool.idle_bytes(), PAGE);
        assert_eq!(pool.get(LARGEST_CLASS + 1).capacity(), round_up(LARGEST_CLASS + 1));
    }
}

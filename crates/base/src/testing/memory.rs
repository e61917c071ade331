//! How much memory something takes.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// The system's allocator, which counts what each thread holds, and the most that it held. A test makes it its `#[global_allocator]`.
#[derive(Debug)]
pub struct CountingAllocator;

thread_local! {
    static HELD: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
    static TAKEN: Cell<isize> = const { Cell::new(0) };
}

/// What an allocation takes of the heap: a header before it, whole units of 16 bytes, and two of them at least.
const fn chunk(size: usize) -> isize {
    let taken = (size + 8).next_multiple_of(16);
    if taken < 32 { 32 } else { taken as isize }
}

fn count(bytes: isize) {
    let taken = chunk(bytes.unsigned_abs()) * bytes.signum();
    let _ = TAKEN.try_with(|all| all.set(all.get() + taken));
    // A thread that ends may free after its counters are gone.
    let _ = HELD.try_with(|held| {
        held.set(held.get() + bytes);
        let _ = PEAK.try_with(|peak| peak.set(peak.get().max(held.get())));
    });
}

// SAFETY: every call is passed on unchanged to the system's allocator; counting neither allocates nor unwinds.
unsafe impl GlobalAlloc for CountingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller's promise on `layout` is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: `ptr` came from `alloc` above with this layout, so from the system's.
        unsafe { System.dealloc(ptr, layout) }
    }
}

/// What `run` gives, and the most memory that it held on this thread beside what was there before. It is 0 where [`CountingAllocator`] is not
/// the process' allocator.
pub fn peak_of<T>(run: impl FnOnce() -> T) -> (T, usize) {
    let before = HELD.get();
    PEAK.set(before);
    let value = run();
    (value, usize::try_from(PEAK.get() - before).unwrap_or(0))
}

/// What `run` gives, and what it leaves allocated by this thread beside what was there before, as the heap of glibc has it.
pub fn taken_by<T>(run: impl FnOnce() -> T) -> (T, usize) {
    let before = TAKEN.get();
    let value = run();
    (value, usize::try_from(TAKEN.get() - before).unwrap_or(0))
}

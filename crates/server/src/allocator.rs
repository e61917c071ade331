//! The C library's allocator, which keeps what is freed until it is told to give it back.
//!
//! Told nothing, it learns from the largest allocation that is freed how much it may keep at the end of each of its arenas: twice that,
//! so 40 MiB each after records of 20 MiB, and [`give_back`] does not reach the ends of any but the first. With bounds it learns nothing.

/// What is larger comes from the system and goes back to it, in bytes: no frame of a common size, no pooled buffer.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const DIRECT: libc::c_int = 4 << 20;
/// What an arena keeps at its end, in bytes: enough for a few frames of a common size to come and go.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const KEPT_AT_END: libc::c_int = 4 << 20;

/// Bounds what is kept. To be called before there is much to keep.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub fn bound() {
    // SAFETY: it sets numbers of the allocator's, under its own locks; both are in the range that it takes.
    let set = unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, DIRECT) == 1
            && libc::mallopt(libc::M_TRIM_THRESHOLD, KEPT_AT_END) == 1
    };
    if !set {
        tracing::warn!("the allocator takes no bounds: memory of large records may not come back");
    }
}

/// Nothing is known of other allocators.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub fn bound() {}

/// Gives free memory back to the system.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub fn give_back() {
    // SAFETY: it touches nothing but memory that is free, under the allocator's own locks.
    unsafe { libc::malloc_trim(0) };
}

/// Nothing is known of other allocators.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub fn give_back() {}

//! The C library's allocator, which keeps what is freed until it is told to give it back.

/// Gives free memory back to the system.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub fn give_back() {
    // SAFETY: it touches nothing but memory that is free, under the allocator's own locks.
    unsafe { libc::malloc_trim(0) };
}

/// Nothing is known of other allocators.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub fn give_back() {}

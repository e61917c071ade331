//! Descriptors, of which a process has so many.

use std::io;

/// Whether the process, or the system, has no descriptor left: `EMFILE`, `ENFILE`. It may have one again soon.
pub fn are_lacking(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_told_by_the_systems_number() {
        assert!([libc::EMFILE, libc::ENFILE].map(io::Error::from_raw_os_error).iter().all(are_lacking));
        assert!(!are_lacking(&io::Error::from_raw_os_error(libc::ENOSPC)));
        assert!(!are_lacking(&io::Error::other("Too many open files")));
    }
}

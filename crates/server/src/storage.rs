//! What the data directory stands on.

use std::path::Path;

/// Where the file system of `dir` is kept in memory, its name: nothing there survives the machine, whatever is synced.
pub fn volatile(dir: &Path) -> Option<&'static str> {
    in_memory(rustix::fs::statfs(dir).ok()?.f_type as u64)
}

/// The name of a kind of file system that is kept in memory, by its magic number.
fn in_memory(kind: u64) -> Option<&'static str> {
    const TMPFS: u64 = 0x0102_1994;
    const RAMFS: u64 = 0x8584_58f6;
    // The kind is signed or not, 32 or 64 bits, as the platform likes; the magic numbers fill 32.
    match kind & 0xffff_ffff {
        TMPFS => Some("tmpfs"),
        RAMFS => Some("ramfs"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_systems_in_memory_are_known_and_no_others_taken_for_one() {
        for (kind, name) in [(0x0102_1994, "tmpfs"), (0x8584_58f6, "ramfs"), (0xffff_ffff_8584_58f6, "ramfs")]
        {
            assert_eq!(in_memory(kind), Some(name));
        }
        let [ext4, xfs, btrfs, zfs, overlay, nfs] =
            [0xef53, 0x5846_5342, 0x9123_683e, 0x2fc1_2fc1, 0x794c_7630, 0x6969];
        for kind in [ext4, xfs, btrfs, zfs, overlay, nfs] {
            assert_eq!(in_memory(kind), None, "{kind:x}");
        }
        assert_eq!((volatile(Path::new("/proc")), volatile(Path::new("/nowhere/at/all"))), (None, None));
    }
}

//! What the data directory stands on.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::advice::shell_quoted;

/// Where the file system of `dir` is kept in memory, its name: nothing there survives the machine, whatever is synced.
pub fn volatile(dir: &Path) -> Option<&'static str> {
    in_memory(rustix::fs::statfs(dir).ok()?.f_type as u64)
}

/// What users may do in the data directory who are neither its owner nor of its group, where they may anything; `None` also where there is no
/// such folder, for it is made for its owner alone. What lies in it is made private by every start.
pub fn others_may(data: &Path) -> Option<&'static str> {
    let mode = std::fs::metadata(data).ok()?.permissions().mode();
    match mode & 0o007 {
        0 => None,
        may if may & 0o002 != 0 => Some("put files into it, and move or remove what is in it"),
        may if may & 0o004 != 0 => Some("see what is in it"),
        _ => Some("reach what is in it, by its name"),
    }
}

/// What takes that from them. Only who made the folder knows that nobody needs it.
pub fn keep_others_out(data: &Path) -> String {
    format!("chmod o= {}", shell_quoted(data.as_os_str()))
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
    fn what_others_may_do_in_a_folder_is_seen_and_what_its_group_may_is_not_told() {
        let dir = tempfile::tempdir().unwrap();
        for (mode, others) in [
            (0o700, None),
            (0o770, None),
            (0o2750, None),
            (0o755, Some("see")),
            (0o754, Some("see")),
            (0o711, Some("reach")),
            (0o777, Some("remove")),
            (0o1777, Some("remove")),
        ] {
            std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(mode)).unwrap();
            let found = others_may(dir.path());
            assert_eq!(found.is_some(), others.is_some(), "{mode:o}");
            assert!(found.unwrap_or_default().contains(others.unwrap_or_default()), "{mode:o} {found:?}");
        }
        assert_eq!(others_may(&dir.path().join("not made yet")), None);
        assert_eq!(keep_others_out(Path::new("/my data/it's")), r"chmod o= '/my data/it'\''s'");
    }

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

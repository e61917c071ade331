//! Space on the disk that a commit may have when there is no other: a file beside the store, of no use but its size.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use parking_lot::Mutex;

use crate::disk::reserve_space;

/// Space that is kept, and given up when it is needed.
pub(super) trait Reserve: fmt::Debug + Send + Sync + 'static {
    /// Takes space until it is this many bytes.
    fn fill(&self, bytes: u64) -> io::Result<()>;
    /// Gives all of it back; false if there is none.
    fn give_up(&self) -> bool;
}

/// A file whose blocks are allocated.
#[derive(Debug)]
pub(super) struct ReserveFile {
    file: File,
    bytes: Mutex<u64>,
}

impl ReserveFile {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
        // What an earlier run left is as good as new, unless a crash came while it was allocated.
        let meta = file.metadata()?;
        let whole = std::os::unix::fs::MetadataExt::blocks(&meta) * 512 >= meta.len();
        Ok(Self { file, bytes: Mutex::new(if whole { meta.len() } else { 0 }) })
    }
}

impl Reserve for ReserveFile {
    fn fill(&self, bytes: u64) -> io::Result<()> {
        let mut have = self.bytes.lock();
        if *have >= bytes {
            return Ok(());
        }
        let filled = reserve_space(&self.file, bytes);
        match filled {
            Ok(()) => *have = bytes,
            // A part of it would be there and be counted nowhere.
            Err(_) => self.file.set_len(*have)?,
        }
        filled
    }

    fn give_up(&self) -> bool {
        let mut have = self.bytes.lock();
        // Synced, since some file systems give freed blocks out only once that is durable.
        let freed = *have > 0 && self.file.set_len(0).and_then(|()| self.file.sync_all()).is_ok();
        *have = 0;
        freed
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn takes_blocks_and_gives_them_up() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("reserve");
        let blocks = || std::fs::metadata(&path).unwrap().blocks() * 512;
        let reserve = ReserveFile::open(&path).unwrap();
        assert!(!reserve.give_up(), "there is none yet");
        reserve.fill(1 << 20).unwrap();
        assert!(blocks() >= 1 << 20, "{}", blocks());
        drop(reserve);
        let reserve = ReserveFile::open(&path).unwrap();
        assert_eq!(*reserve.bytes.lock(), 1 << 20);
        assert!(reserve.give_up() && !reserve.give_up());
        assert_eq!(blocks(), 0);
    }
}

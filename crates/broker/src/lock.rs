//! One broker at a time has a data directory.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use rustix::io::Errno;

use crate::options::StartError;

/// The hold on a data directory. The system lets go of it when the process ends, however it ends.
#[derive(Debug)]
pub(crate) struct DataLock {
    /// Locked for as long as it is open. The file stays: removing it would let two processes lock two files of one name.
    _file: File,
}

impl DataLock {
    /// Takes a data directory, which must be there, and leaves word of the process that has it.
    ///
    /// # Errors
    /// Another process has it; the file cannot be opened or written.
    pub(crate) fn take(dir: &Path) -> Result<Self, StartError> {
        let path = lock_path(dir);
        let mut file = lock(dir, &path)?;
        let told = file
            .set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| writeln!(file, "{}", std::process::id()));
        match told {
            // What it says is for people only; the hold is as good without, and a full disk must not keep one from deleting.
            Err(source) if source.kind() != io::ErrorKind::StorageFull => {
                Err(StartError::Io { op: "write", path, source })
            }
            _ => Ok(Self { _file: file }),
        }
    }
}

/// Fails if another broker has the data directory. One that does not exist is free.
///
/// # Errors
/// [`StartError::InUse`], or what keeps the lock file from being opened.
pub fn check_free(dir: &Path) -> Result<(), StartError> {
    let path = lock_path(dir);
    match path.try_exists() {
        Ok(false) => Ok(()),
        Ok(true) => lock(dir, &path).map(drop),
        Err(source) => Err(StartError::Io { op: "look for", path, source }),
    }
}

fn lock_path(dir: &Path) -> PathBuf {
    dir.join("lock")
}

fn lock(dir: &Path, path: &Path) -> Result<File, StartError> {
    let io = |op| move |source: io::Error| StartError::Io { op, path: path.to_owned(), source };
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    // Whatever a link leads to would be overwritten.
    let opened = options.custom_flags(OFlags::NOFOLLOW.bits() as i32).open(path);
    let mut file =
        opened.map_err(|source| match source.raw_os_error() == Some(Errno::LOOP.raw_os_error()) {
            true => io("open")(io::Error::other("it is a symbolic link, and is not followed: remove it")),
            false => io("open")(source),
        })?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            let mut pid = String::new();
            // What it says is for people only: unreadable, it is unknown.
            let _ = (&mut file).take(32).read_to_string(&mut pid);
            let pid = if pid.trim().is_empty() { "unknown".into() } else { pid.trim().into() };
            Err(StartError::InUse { path: dir.to_owned(), pid })
        }
        Err(TryLockError::Error(source)) => Err(io("lock")(source)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_is_told_who_is_the_first() {
        let dir = std::env::temp_dir().join(format!("sabir-lock-{}", std::process::id()));
        check_free(&dir).unwrap();
        std::fs::create_dir_all(&dir).unwrap();
        let held = DataLock::take(&dir).unwrap();
        for refused in [check_free(&dir).unwrap_err(), DataLock::take(&dir).unwrap_err()] {
            let StartError::InUse { pid, .. } = refused else { panic!("{refused}") };
            assert_eq!(pid, std::process::id().to_string());
        }
        drop(held);
        check_free(&dir).unwrap();
        drop(DataLock::take(&dir).unwrap());
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn a_link_in_its_place_is_named_and_what_it_leads_to_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let (data, letter) = (dir.path().join("data"), dir.path().join("letter"));
        std::fs::create_dir(&data).unwrap();
        std::fs::write(&letter, b"dear").unwrap();
        std::os::unix::fs::symlink(&letter, data.join("lock")).unwrap();
        for refused in [check_free(&data).unwrap_err(), DataLock::take(&data).unwrap_err()] {
            assert!(refused.to_string().contains("symbolic link"), "{refused}");
        }
        assert_eq!(std::fs::read(&letter).unwrap(), b"dear");
        std::fs::remove_file(&letter).unwrap();
        assert!(DataLock::take(&data).is_err() && !letter.exists(), "nor is it made");
    }
}

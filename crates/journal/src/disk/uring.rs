//! The disk of Linux: io_uring past the page cache.
//!
//! A write that asks for it carries `RWF_DSYNC`, so several are under way at once and each is durable by itself; completions are
//! counted on a descriptor that an I/O thread watches, so no thread of the disk's own stands between.

use std::os::fd::{AsRawFd, RawFd};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::files::{Files, Handle};
use super::ring::{Ring, RingAction, RingOp};
use super::{Completion, Disk, DiskError, FileId, WakeFn, WriteOp, delegate_to_files};

/// A disk of io_uring and `O_DIRECT`.
pub struct UringDisk {
    files: Files,
    ring: Ring,
}

impl std::fmt::Debug for UringDisk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("UringDisk").field("files", &self.files).finish_non_exhaustive()
    }
}

impl UringDisk {
    /// The directory at `path`, which must exist. [`DiskError::Unsupported`] says what is missing here; a
    /// [`PwriteDisk`](super::PwriteDisk) does without.
    pub fn open(path: &Path) -> Result<Self, DiskError> {
        let files = Files::open_dir(path, true)?;
        let ring = Ring::new().map_err(|source| DiskError::Unsupported {
            what: "io_uring",
            path: files.dir_path(),
            source: Arc::new(source),
        })?;
        files.probe(|file, data| {
            ring.submit(RingOp { token: 0, file, action: RingAction::Write { pos: 0, data, sync: true } });
            let mut answer = None;
            while answer.is_none() {
                wait(&ring, Duration::from_secs(1));
                ring.reap(|_, result| answer = Some(result));
            }
            bytes_done(answer.unwrap_or(0)).map(drop)
        })?;
        Ok(Self { files, ring })
    }

    /// Keeps at most so many descriptors of files that are not in use just then. Such a file is opened again when it is used.
    pub fn keep_open(&self, descriptors: usize) {
        self.files.keep_open(descriptors);
    }

    fn completion(&self, op: RingOp, answer: i32) -> Completion {
        let done = bytes_done(answer);
        let result = match &op.action {
            RingAction::Write { pos, data, .. } => op.file.open.written(*pos, data.len(), done),
            RingAction::Sync => op.file.synced(done.map(drop)),
        };
        Completion { token: op.token, result: result.inspect_err(|e| self.files.fail_unless_short(e)) }
    }

    fn submit_op(&self, token: u64, file: Handle, action: RingAction) {
        self.ring.submit(RingOp { token, file, action });
    }
}

fn bytes_done(answer: i32) -> std::io::Result<usize> {
    usize::try_from(answer).map_err(|_| std::io::Error::from_raw_os_error(-answer))
}

/// Waits until there is something to reap, but no longer than `timeout`.
fn wait(ring: &Ring, timeout: Duration) -> bool {
    let until = Instant::now() + timeout;
    while ring.depth() > 0 {
        if ring.has_completions() {
            return true;
        }
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return false;
        }
        let left = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) };
        // Interrupted or not, what counts is what the queue says next.
        let _ = poll(&mut [PollFd::new(&ring.event(), PollFlags::IN)], Some(&left));
        // Read before looking again: a completion that comes in between counts it up anew.
        let _ = rustix::io::read(ring.event(), &mut [0; 8]);
    }
    false
}

impl Disk for UringDisk {
    delegate_to_files!(files);

    fn submit(&self, op: WriteOp) -> Result<(), DiskError> {
        let open = self.files.get_for_write(op.file, op.pos, op.data.len(), op.sync)?;
        let data = self.files.aligned(op.data);
        self.submit_op(op.token, open, RingAction::Write { pos: op.pos, data, sync: op.sync });
        Ok(())
    }

    fn submit_sync(&self, token: u64, file: FileId) -> Result<(), DiskError> {
        self.files.check()?;
        self.submit_op(token, self.files.get(file)?, RingAction::Sync);
        Ok(())
    }

    fn reap(&self, out: &mut Vec<Completion>) {
        self.ring.reap(|op, answer| out.push(self.completion(op, answer)));
    }

    fn wait(&self, timeout: Duration) -> bool {
        wait(&self.ring, timeout)
    }

    fn event_fd(&self) -> Option<RawFd> {
        Some(self.ring.event().as_raw_fd())
    }

    fn set_waker(&self, _wake: WakeFn) {
        // The descriptor does it.
    }

    fn depth(&self) -> usize {
        self.ring.depth()
    }

    fn has_completions(&self) -> bool {
        self.ring.has_completions()
    }
}

#[cfg(test)]
mod tests {
    use super::UringDisk;
    use crate::disk::suite::{self, Subject};
    use crate::disk::{Disk, DiskError, WriteOp};
    use std::path::Path;
    use std::sync::Arc;

    #[test]
    fn conforms() {
        suite::run(|| {
            let dir = tempfile::tempdir().unwrap();
            let disk = Arc::new(UringDisk::open(dir.path()).unwrap());
            let broken = disk.clone();
            let break_file = Box::new(move |file| broken.files.make_read_only(file));
            Subject { disk, break_file, _keep: Some(dir) }
        });
    }

    #[test]
    fn a_few_descriptors_do_for_many_files() {
        let dir = tempfile::tempdir().unwrap();
        let disk = UringDisk::open(dir.path()).unwrap();
        disk.keep_open(4);
        suite::few_descriptors(&disk, dir.path(), 4);
    }

    #[test]
    fn says_where_direct_io_is_missing() {
        // A file system of the kernel's own that has no files to write, let alone directly.
        let error = UringDisk::open(Path::new("/proc/self/fd")).unwrap_err();
        assert!(matches!(&error, DiskError::Unsupported { what: "direct I/O", .. }), "{error:?}");
        assert!(error.to_string().contains("/proc/self/fd"), "{error}");
    }

    #[test]
    fn dropping_waits_for_what_is_under_way() {
        let dir = tempfile::tempdir().unwrap();
        let disk = UringDisk::open(dir.path()).unwrap();
        let file = disk.create("f", 300 << 12).unwrap();
        for i in 0..300 {
            let data = vec![7; 4096].into();
            disk.submit(WriteOp { token: i, file, pos: i << 12, data, sync: i % 2 == 0 }).unwrap();
        }
        drop(disk);
        assert!(std::fs::read(dir.path().join("f")).unwrap().iter().all(|&b| b == 7));
    }
}

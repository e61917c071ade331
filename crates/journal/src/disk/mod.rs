//! The disk below a journal: named files of a fixed length in one directory, written at positions and made durable.
//!
//! ```text
//!   submit(write, sync: false) ──► completion: read_at sees it; a power cut may lose any part of it
//!            │
//!            ├─ submit_sync / sync, submitted AFTER that completion, same file ──► its completion: durable
//!            │
//!   submit(write, sync: true) ───► completion: these bytes are durable, and no others are promised
//! ```
//!
//! What every implementation keeps, and the conformance suite checks:
//!
//! 1. **Completions come in any order**, also for writes to one file. A caller that needs an order waits. Two writes in
//!    flight never overlap, or the bytes they share are undefined.
//! 2. **A completed write is seen** by every later `read_at`; one in flight may be seen in part.
//! 3. **Durable** means: a power cut after that moment keeps it.
//!    - After the completion of a write with `sync: true`, its own bytes are durable. Nothing follows for other writes,
//!      not even for those completed before it was submitted: where the disk writes through (FUA) there is no flush.
//!    - After the completion of a [`Disk::submit_sync`], or the return of [`Disk::sync`], every write to *that file* which
//!      had completed before the call is durable, and so is the file's length.
//!    - Before that, a power cut keeps any subset of a write's 512-byte sectors, in any order among writes.
//! 4. **A name is an entry of the directory** and durable only after [`Disk::sync_dir`]; a file whose content was synced but
//!    whose name was not is lost. A created file needs both `sync` and `sync_dir`.
//! 5. **Writes stay inside the file**, start at a multiple of [`SECTOR`] and are a multiple of it long. Memory aligned to it
//!    goes to the device as it is; other memory is right too, and copied first.
//! 6. **A short write is an error**, never a success and never continued in silence.
//! 7. **A failed disk stays failed.** After a submitted operation or a sync failed, what the caches below hold is unknown and a
//!    later sync could answer success for bytes that were dropped. So every later write and sync answers
//!    [`DiskError::Failed`] with the first cause; reads, lists and lengths go on. Only opening the directory anew clears it.
//!    A write or a sync that finds [too little space](DiskError::is_shortage) fails nothing: its bytes may stand there in part, and
//!    the caller that still needs them writes all of them again. So after such a sync, or such a write with `sync: true`, no later sync says
//!    anything for the writes to that file which had completed before and were not durable: a cache may have let go of them.
//! 8. **No submission is refused for depth**: what the device's queue does not take waits in memory. The caller bounds it.

mod files;
mod pwrite;
#[cfg(target_os = "linux")]
mod ring;
#[cfg(any(test, feature = "testing"))]
pub mod sim;
#[cfg(test)]
mod suite;
mod under_way;
#[cfg(target_os = "linux")]
mod uring;
mod watched;

pub use files::free_of;
pub(crate) use files::{PROBE, lengthen_allocated, reserve_space};
pub use pwrite::PwriteDisk;
pub use under_way::UnderWay;
#[cfg(target_os = "linux")]
pub use uring::UringDisk;
pub use watched::WatchedDisk;

use std::fmt;
use std::io;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

/// What positions and lengths of writes are multiples of, in bytes.
pub const SECTOR: usize = 4096;

/// An open file of one [`Disk`]. A number is never given twice in the life of a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileId(pub u64);

impl fmt::Display for FileId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "file {}", self.0)
    }
}

/// A write to submit.
#[derive(Debug, Clone)]
pub struct WriteOp {
    /// Comes back in the [`Completion`]; the caller's own numbering.
    pub token: u64,
    /// The file to write to.
    pub file: FileId,
    /// Where, in bytes: a multiple of [`SECTOR`].
    pub pos: u64,
    /// What; a multiple of [`SECTOR`] long, not empty, and kept alive by the disk until the completion is reaped.
    pub data: Bytes,
    /// Whether the completion waits until these bytes are durable.
    pub sync: bool,
}

/// The end of a submitted write or sync.
#[derive(Debug, Clone)]
pub struct Completion {
    /// The token it was submitted with.
    pub token: u64,
    /// Done in full, or why not.
    pub result: Result<(), DiskError>,
}

/// Called when there is something to reap.
pub type WakeFn = Arc<dyn Fn() + Send + Sync>;

/// Why a disk did not do what it was asked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum DiskError {
    /// No such file.
    #[error("{path} does not exist")]
    NotFound {
        /// The file.
        path: String,
    },
    /// The name is taken.
    #[error("{path} exists already")]
    Exists {
        /// The file.
        path: String,
    },
    /// Not a plain file name.
    #[error("{name:?} is not a file name of 1 to 200 characters out of a-z, 0-9, '-', '_' and '.'")]
    BadName {
        /// What was given.
        name: String,
    },
    /// The file is not open on this disk (closed, or of an earlier life of a simulated one).
    #[error("{file} is not open")]
    NotOpen {
        /// What was given.
        file: FileId,
    },
    /// No space left, or no further file may be made.
    #[error("{op} {path}: {source}")]
    Full {
        /// What was being done.
        op: &'static str,
        /// The file that was to be created or written.
        path: String,
        /// What the system answered.
        source: Arc<io::Error>,
    },
    /// What is left is kept free for others.
    #[error(
        "no space for the {len} bytes of {path}: {free} are free, of which `keep_free` leaves {keep_free} to others"
    )]
    KeptFree {
        /// The file that was to be created, or has holes.
        path: String,
        /// What it takes, in bytes.
        len: u64,
        /// What is free, in bytes.
        free: u64,
        /// What shall stay free, in bytes.
        keep_free: u64,
    },
    /// No file may be so large: the process has a limit on it, or the file system. Like [`DiskError::Full`] otherwise.
    #[error("{path} would be larger than {}", limit_text(.limit))]
    FileTooLarge {
        /// The file that was to be created or written.
        path: String,
        /// The process's limit in bytes, if it has one.
        limit: Option<u64>,
    },
    /// The process, or the system, has no descriptor left. It may have one again soon.
    #[error("no descriptor is left to open {path}")]
    NoDescriptors {
        /// The file that was to be opened.
        path: String,
    },
    /// Not wholly inside the file.
    #[error("{len} bytes at {pos} are not inside {path}, which has {file_len}")]
    OutOfBounds {
        /// The file.
        path: String,
        /// Where it should have started, in bytes.
        pos: u64,
        /// How long it was, in bytes.
        len: u64,
        /// How long the file is, in bytes.
        file_len: u64,
    },
    /// A write's position or length is no multiple of [`SECTOR`], or it is empty.
    #[error("a write of {len} bytes at {pos} of {path} is not whole sectors of 4096 bytes")]
    Misaligned {
        /// The file.
        path: String,
        /// Its position, in bytes.
        pos: u64,
        /// Its length, in bytes.
        len: u64,
    },
    /// The device took fewer bytes than it was given.
    #[error("{path}: only {done} of {len} bytes at {pos} were written")]
    ShortWrite {
        /// The file.
        path: String,
        /// The write's position, in bytes.
        pos: u64,
        /// The write's length, in bytes.
        len: u64,
        /// What was taken, in bytes.
        done: u64,
    },
    /// This kind of disk cannot work here; another kind may.
    #[error("{what} is not available for {path}: {source}")]
    Unsupported {
        /// The missing feature.
        what: &'static str,
        /// The directory.
        path: String,
        /// What the system answered.
        source: Arc<io::Error>,
    },
    /// The system refused or failed.
    #[error("{op} {path}: {source}")]
    Io {
        /// What was being done.
        op: &'static str,
        /// The file or directory.
        path: String,
        /// What the system answered.
        source: Arc<io::Error>,
    },
    /// Nothing is wrong with the disk: its writer has given up.
    #[error("given up after {why}")]
    Abandoned {
        /// After what.
        why: Arc<str>,
    },
    /// An earlier write or sync failed; see rule 7 of the module.
    #[error("writes have stopped since an earlier failure: {cause}")]
    Failed {
        /// The first failure.
        cause: Arc<DiskError>,
    },
}

/// The largest file that the process may write, in bytes, if it has a limit.
pub(crate) fn file_size_limit() -> Option<u64> {
    rustix::process::getrlimit(rustix::process::Resource::Fsize).current
}

/// What no file may be larger than.
pub(crate) fn limit_text(limit: &Option<u64>) -> String {
    match limit {
        Some(bytes) => {
            format!("the {bytes} bytes that the process may write to a file (ulimit -f, LimitFSIZE=)")
        }
        None => "the file system takes".into(),
    }
}

impl DiskError {
    /// [`Full`](Self::Full) by a bound that is not the system's.
    pub(crate) fn full(op: &'static str, path: String) -> Self {
        let source = Arc::new(rustix::io::Errno::NOSPC.into());
        Self::Full { op, path, source }
    }

    /// Whether there is too little of something that may be there again later: nothing has failed, and it is worth another try.
    /// A write is cut short where the space ends; should there be another reason, the next try is told of it.
    pub fn is_shortage(&self) -> bool {
        matches!(
            self,
            Self::Full { .. }
                | Self::KeptFree { .. }
                | Self::FileTooLarge { .. }
                | Self::NoDescriptors { .. }
                | Self::ShortWrite { .. }
        )
    }
}

/// A directory of files that a journal lives in; see the [module](self) for the invariants.
///
/// All methods may be called from any thread. Those called blocking wait for the device and belong on a thread that may.
pub trait Disk: Send + Sync + fmt::Debug + 'static {
    /// The names of all files, sorted.
    fn list(&self) -> Result<Vec<String>, DiskError>;

    /// Creates a file of `len` bytes with its space reserved; it reads as zeros. [`DiskError::Full`] and
    /// [`DiskError::NoDescriptors`] leave nothing behind.
    /// Blocking. The name and the length are durable after `sync` and `sync_dir`.
    fn create(&self, name: &str, len: u64) -> Result<FileId, DiskError>;

    /// Opens a file for reading and writing. Opening it twice gives two numbers of one file.
    fn open(&self, name: &str) -> Result<FileId, DiskError>;

    /// Forgets an open file; operations in flight on it still end. Closing twice is harmless.
    fn close(&self, file: FileId);

    /// Keeps what it takes to use an open file, until [`let_go`](Self::let_go): what is submitted for it is not refused with
    /// [`DiskError::NoDescriptors`]. Counts, and does so where it fails, too.
    fn hold(&self, _file: FileId) -> Result<(), DiskError> {
        Ok(())
    }

    /// Ends a [`hold`](Self::hold).
    fn let_go(&self, _file: FileId) {}

    /// Renames a file; [`DiskError::Exists`] where `to` is taken. Open numbers stay valid. Durable after `sync_dir`.
    fn rename(&self, from: &str, to: &str) -> Result<(), DiskError>;

    /// Removes a name. Open numbers stay valid, and the space is freed with the last of them. Durable after `sync_dir`.
    fn remove(&self, name: &str) -> Result<(), DiskError>;

    /// Makes all creates, renames and removes so far durable. Blocking.
    fn sync_dir(&self) -> Result<(), DiskError>;

    /// The length of a file in bytes.
    fn len(&self, file: FileId) -> Result<u64, DiskError>;

    /// Gives a file the space that it has not, where the file system can without writing and `keep_free` bytes are left: a sparse copy has
    /// holes. It reads as before. Says whether it had any. Blocking.
    fn fill_holes(&self, _file: FileId, _keep_free: u64) -> Result<bool, DiskError> {
        Ok(false)
    }

    /// Fills `buf` from `pos`, or fails; never partly. Blocking. Any alignment; whole sectors into memory aligned to
    /// [`SECTOR`] are read without a copy.
    fn read_at(&self, file: FileId, pos: u64, buf: &mut [u8]) -> Result<(), DiskError>;

    /// Writes whole sectors and returns when they are written, not when they are durable. Blocking; for headers, slots and
    /// zeroing. A failure here does not fail the disk: nothing was promised yet.
    fn write_at(&self, file: FileId, pos: u64, data: &[u8]) -> Result<(), DiskError>;

    /// Makes the file's length and every write to it that has completed durable. Blocking.
    fn sync(&self, file: FileId) -> Result<(), DiskError>;

    /// Starts a write and returns at once; its end comes through [`reap`](Self::reap). An error means that it was not
    /// started and that no completion follows.
    fn submit(&self, op: WriteOp) -> Result<(), DiskError>;

    /// Starts what [`sync`](Self::sync) does and returns at once. An error means that no completion follows.
    fn submit_sync(&self, token: u64, file: FileId) -> Result<(), DiskError>;

    /// Appends the completions since the last call to `out`, each exactly once. Never waits.
    fn reap(&self, out: &mut Vec<Completion>);

    /// Waits until there is something to reap, at most for `timeout`; false when there is nothing, and at once if nothing is
    /// under way. Blocking; for recovery, draining and shutdown.
    fn wait(&self, timeout: Duration) -> bool;

    /// An event counter that becomes readable whenever there is something to reap. A thread that watches it edge-triggered (as
    /// tokio's `AsyncFd` does) need not read it; a thread that watches its level reads its 8 bytes, then reaps.
    /// `None` where [`set_waker`](Self::set_waker) does this instead.
    fn event_fd(&self) -> Option<RawFd>;

    /// Sets what is called, from the disk's own thread and without any of its locks, after there is something to reap. Not called by
    /// a disk with an [`event_fd`](Self::event_fd). Calls may be more than needed.
    fn set_waker(&self, wake: WakeFn);

    /// Operations submitted and not yet reaped.
    fn depth(&self) -> usize;

    /// Whether there is something to reap: the disk has answered, and whoever reaps has not come to it. Does not wait.
    fn has_completions(&self) -> bool {
        false
    }

    /// Bytes that files may still be created with. Blocking, where the file system does not answer.
    fn free_bytes(&self) -> Result<u64, DiskError>;

    /// How long the oldest change or read that is not done has been under way; zero if there is none, or if what was submitted is done but for
    /// being reaped, or if [nothing watches the disk](WatchedDisk).
    fn under_way(&self) -> Duration {
        Duration::ZERO
    }

    /// How long ago a change was last begun or done; `None` if none was, or if [nothing watches the disk](WatchedDisk).
    fn unchanged(&self) -> Option<Duration> {
        None
    }

    /// The number of the file system that the files lie in: those of one number hang together. `None` if that is not known.
    fn device(&self) -> Option<u64> {
        None
    }
}

const LONGEST_NAME: usize = 200;

fn check_name(name: &str) -> Result<(), DiskError> {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_.".contains(&b);
    let dots = name.bytes().all(|b| b == b'.');
    if !dots && name.len() <= LONGEST_NAME && name.bytes().all(plain) {
        return Ok(());
    }
    Err(DiskError::BadName { name: name.to_owned() })
}

/// Fails unless `len` bytes at `pos` are whole sectors, and some.
fn check_sectors(pos: u64, len: u64, path: impl FnOnce() -> String) -> Result<(), DiskError> {
    let whole = |n: u64| n.is_multiple_of(SECTOR as u64);
    if len > 0 && whole(pos) && whole(len) {
        return Ok(());
    }
    Err(DiskError::Misaligned { path: path(), pos, len })
}

/// Fails unless `len` bytes at `pos` are inside a file of `file_len`.
fn check_bounds(pos: u64, len: u64, file_len: u64, path: impl FnOnce() -> String) -> Result<(), DiskError> {
    if pos.checked_add(len).is_some_and(|end| end <= file_len) {
        return Ok(());
    }
    Err(DiskError::OutOfBounds { path: path(), pos, len, file_len })
}

/// The part of [`Disk`] that is the same for all disks over [`files::Files`], found at `self.$files`.
macro_rules! delegate_to_files {
    ($($files:ident).+) => {
        fn list(&self) -> Result<Vec<String>, DiskError> {
            self.$($files).+.list()
        }
        fn create(&self, name: &str, len: u64) -> Result<FileId, DiskError> {
            self.$($files).+.create(name, len)
        }
        fn open(&self, name: &str) -> Result<FileId, DiskError> {
            self.$($files).+.open(name)
        }
        fn close(&self, file: FileId) {
            self.$($files).+.close(file);
        }
        fn hold(&self, file: FileId) -> Result<(), DiskError> {
            self.$($files).+.hold(file)
        }
        fn let_go(&self, file: FileId) {
            self.$($files).+.let_go(file);
        }
        fn rename(&self, from: &str, to: &str) -> Result<(), DiskError> {
            self.$($files).+.rename(from, to)
        }
        fn remove(&self, name: &str) -> Result<(), DiskError> {
            self.$($files).+.remove(name)
        }
        fn sync_dir(&self) -> Result<(), DiskError> {
            self.$($files).+.sync_dir()
        }
        fn len(&self, file: FileId) -> Result<u64, DiskError> {
            self.$($files).+.len(file)
        }
        fn fill_holes(&self, file: FileId, keep_free: u64) -> Result<bool, DiskError> {
            self.$($files).+.fill_holes(file, keep_free)
        }
        fn read_at(&self, file: FileId, pos: u64, buf: &mut [u8]) -> Result<(), DiskError> {
            self.$($files).+.read_at(file, pos, buf)
        }
        fn write_at(&self, file: FileId, pos: u64, data: &[u8]) -> Result<(), DiskError> {
            self.$($files).+.write_at(file, pos, data)
        }
        fn sync(&self, file: FileId) -> Result<(), DiskError> {
            self.$($files).+.sync(file)
        }
        fn free_bytes(&self) -> Result<u64, DiskError> {
            self.$($files).+.free_bytes()
        }
        fn device(&self) -> Option<u64> {
            self.$($files).+.device()
        }
    };
}
use delegate_to_files;

//! The disk that any Unix has: `pwrite` and `fdatasync` on one thread.
//!
//! The thread takes all that is queued, writes it, completes what asked for no sync, then syncs each file once for all the
//! others: what arrives during a sync shares the next one.

use std::os::fd::RawFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use sabir_base::panics::AbortOnPanic;

use super::files::{Files, Handle, io_error};
use super::{Completion, Disk, DiskError, FileId, WakeFn, WriteOp, delegate_to_files};

#[derive(Debug)]
enum Job {
    Write(WriteOp, Handle),
    Sync(u64, FileId, Handle),
}

#[derive(Debug, Default)]
struct Queue {
    jobs: Vec<Job>,
    stop: bool,
}

/// What the thread and its disk share.
struct Shared {
    files: Files,
    queue: Mutex<Queue>,
    queued: Condvar,
    done: Mutex<Vec<Completion>>,
    finished: Condvar,
    wake: Mutex<Option<WakeFn>>,
    depth: AtomicUsize,
}

/// A disk of `pwrite` and `fdatasync`, through the page cache or past it.
pub struct PwriteDisk {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl std::fmt::Debug for PwriteDisk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PwriteDisk").field("files", &self.shared.files).finish_non_exhaustive()
    }
}

impl PwriteDisk {
    /// The directory at `path`, which must exist, through the page cache.
    pub fn open(path: &Path) -> Result<Self, DiskError> {
        Self::start(Files::open_dir(path, false)?)
    }

    /// The directory at `path`, which must exist, past the page cache (`O_DIRECT`); an error says if that cannot be had.
    pub fn open_direct(path: &Path) -> Result<Self, DiskError> {
        let files = Files::open_dir(path, true)?;
        files.probe(|open, sector| open.file.write_all_at(&sector, 0))?;
        Self::start(files)
    }

    /// Keeps at most so many descriptors of files that are not in use just then. Such a file is opened again when it is used.
    pub fn keep_open(&self, descriptors: usize) {
        self.shared.files.keep_open(descriptors);
    }

    fn start(files: Files) -> Result<Self, DiskError> {
        let path = files.dir_path();
        let shared = Arc::new(Shared {
            files,
            queue: Mutex::default(),
            queued: Condvar::new(),
            done: Mutex::default(),
            finished: Condvar::new(),
            wake: Mutex::default(),
            depth: AtomicUsize::new(0),
        });
        let work = shared.clone();
        let thread = std::thread::Builder::new()
            .name("disk".into())
            .spawn(move || {
                // Without it nothing would ever complete.
                let _guard = AbortOnPanic;
                work.run();
            })
            .map_err(|e| io_error("start the disk thread of", path, e))?;
        Ok(Self { shared, thread: Some(thread) })
    }
}

impl Drop for PwriteDisk {
    fn drop(&mut self) {
        self.shared.queue.lock().stop = true;
        self.shared.queued.notify_one();
        if let Some(thread) = self.thread.take() {
            // Had the thread panicked, it would not have come here.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn push(&self, job: Job) {
        self.depth.fetch_add(1, Ordering::Relaxed);
        self.queue.lock().jobs.push(job);
        self.queued.notify_one();
    }

    /// The thread: until told to stop, and then until nothing is queued.
    fn run(&self) {
        while let Some(jobs) = self.next_jobs() {
            let (synced, mut held) = (self.write_all(jobs), Vec::new());
            for (file, tokens) in synced {
                let result = self.sync_unless_failed(&file);
                held.extend(tokens.into_iter().map(|token| Completion { token, result: result.clone() }));
            }
            self.complete(held);
        }
    }

    fn next_jobs(&self) -> Option<Vec<Job>> {
        let mut queue = self.queue.lock();
        while queue.jobs.is_empty() {
            if queue.stop {
                return None;
            }
            self.queued.wait(&mut queue);
        }
        Some(std::mem::take(&mut queue.jobs))
    }

    /// Writes what is to be written, completes what needs no sync, and gives the tokens that wait for one, by file.
    fn write_all(&self, jobs: Vec<Job>) -> Vec<(Handle, Vec<u64>)> {
        let mut waiting: Vec<(FileId, Handle, Vec<u64>)> = Vec::new();
        let mut done = Vec::new();
        for job in jobs {
            let (token, file, open) = match job {
                Job::Sync(token, file, open) => (token, file, open),
                Job::Write(op, open) => match self.write(&op, &open) {
                    Ok(()) if op.sync => (op.token, op.file, open),
                    result => {
                        done.push(Completion { token: op.token, result });
                        continue;
                    }
                },
            };
            match waiting.iter_mut().find(|(id, ..)| *id == file) {
                Some((_, held, tokens)) => {
                    // The later one knows of more writes.
                    *held = open;
                    tokens.push(token);
                }
                None => waiting.push((file, open, vec![token])),
            }
        }
        self.complete(done);
        waiting.into_iter().map(|(_, open, tokens)| (open, tokens)).collect()
    }

    fn write(&self, op: &WriteOp, handle: &Handle) -> Result<(), DiskError> {
        self.files.check()?;
        let result = self.files.write_once(&handle.file, op.pos, &op.data);
        handle.open.written(op.pos, op.data.len(), result).inspect_err(|e| self.files.fail_unless_short(e))
    }

    fn sync_unless_failed(&self, handle: &Handle) -> Result<(), DiskError> {
        self.files.check()?;
        handle.synced(handle.file.sync_data()).inspect_err(|e| self.files.fail_unless_short(e))
    }

    fn complete(&self, mut completions: Vec<Completion>) {
        if completions.is_empty() {
            return;
        }
        self.done.lock().append(&mut completions);
        self.finished.notify_all();
        let wake = self.wake.lock().clone();
        if let Some(wake) = wake {
            wake();
        }
    }
}

impl Disk for PwriteDisk {
    delegate_to_files!(shared.files);

    fn submit(&self, op: WriteOp) -> Result<(), DiskError> {
        let open = self.shared.files.get_for_write(op.file, op.pos, op.data.len(), op.sync)?;
        self.shared.push(Job::Write(op, open));
        Ok(())
    }

    fn submit_sync(&self, token: u64, file: FileId) -> Result<(), DiskError> {
        self.shared.files.check()?;
        let open = self.shared.files.get(file)?;
        self.shared.push(Job::Sync(token, file, open));
        Ok(())
    }

    fn reap(&self, out: &mut Vec<Completion>) {
        let mut done = self.shared.done.lock();
        self.shared.depth.fetch_sub(done.len(), Ordering::Relaxed);
        out.append(&mut done);
    }

    fn wait(&self, timeout: Duration) -> bool {
        let mut done = self.shared.done.lock();
        if done.is_empty() && self.depth() > 0 {
            self.shared.finished.wait_for(&mut done, timeout);
        }
        !done.is_empty()
    }

    fn event_fd(&self) -> Option<RawFd> {
        None
    }

    fn set_waker(&self, wake: WakeFn) {
        *self.shared.wake.lock() = Some(wake);
    }

    fn depth(&self) -> usize {
        self.shared.depth.load(Ordering::Relaxed)
    }

    fn has_completions(&self) -> bool {
        !self.shared.done.lock().is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::PwriteDisk;
    use crate::disk::DiskError;
    use crate::disk::suite::{self, Subject};
    use std::path::Path;
    use std::sync::Arc;

    fn conforms(open: fn(&Path) -> Result<PwriteDisk, DiskError>) {
        suite::run(|| {
            let dir = tempfile::tempdir().unwrap();
            let disk = Arc::new(open(dir.path()).unwrap());
            let shared = disk.shared.clone();
            let break_file = Box::new(move |file| shared.files.make_read_only(file));
            Subject { disk, break_file, _keep: Some(dir) }
        });
    }

    #[test]
    fn conforms_through_the_page_cache() {
        conforms(PwriteDisk::open);
    }

    #[test]
    fn conforms_past_the_page_cache() {
        conforms(PwriteDisk::open_direct);
    }

    #[test]
    fn a_few_descriptors_do_for_many_files() {
        let dir = tempfile::tempdir().unwrap();
        let disk = PwriteDisk::open(dir.path()).unwrap();
        disk.keep_open(4);
        suite::few_descriptors(&disk, dir.path(), 4);
    }

    /// What a sparse copy of a journal has lost: its segments' space, those in use and those made ahead.
    #[cfg(target_os = "linux")]
    #[test]
    fn a_journal_whose_files_have_holes_gets_their_space_when_it_is_opened() {
        use std::os::unix::fs::MetadataExt;
        let dir = tempfile::tempdir().unwrap();
        let open = |keep_free| {
            let disk = Arc::new(PwriteDisk::open(dir.path()).unwrap());
            let options = crate::JournalOptions { segment_bytes: 1 << 20, keep_free, ..Default::default() };
            crate::Journal::open(disk, sabir_base::buf::BufPool::new(1 << 20), options, None).unwrap().0
        };
        let journal = open(0);
        journal.prepare().unwrap();
        journal.shutdown().unwrap();
        drop(journal);
        let files = || std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path());
        let taken = || files().map(|path| path.metadata().unwrap().blocks() * 512).sum::<u64>();
        let (before, bytes): (u64, Vec<Vec<u8>>) =
            (taken(), files().map(|path| std::fs::read(path).unwrap()).collect());
        assert!(before >= 4 << 20, "{before}");
        for (path, bytes) in files().zip(&bytes) {
            let used = bytes.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
            let file = std::fs::File::options().write(true).open(path).unwrap();
            file.set_len(used as u64).unwrap();
            file.set_len(bytes.len() as u64).unwrap();
        }
        let sparse = taken();
        assert!(sparse < 1 << 20, "{sparse}");
        drop(open(u64::MAX / 2));
        assert!(taken() < 1 << 20, "what is kept free stays free");
        drop(open(0));
        assert!(taken() >= before, "{} of {before}", taken());
    }

    #[test]
    fn no_directory_no_disk() {
        let missing = PwriteDisk::open(Path::new("/nowhere/at/all"));
        assert!(matches!(missing, Err(DiskError::NotFound { .. })));
    }
}

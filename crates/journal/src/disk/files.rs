//! What the two real disks share: the directory, its open files and the blocking calls.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};
use rustc_hash::FxHashMap;
use sabir_base::buf::BufPool;
use sabir_base::descriptors;
use sabir_base::throttle::LogThrottle;

use super::{DiskError, FileId, SECTOR, check_bounds, check_name, check_sectors, file_size_limit};

/// What direct I/O asks of the memory, in bytes.
const MEMORY: usize = 512;
/// Bounce buffers kept for reuse, in bytes.
const KEEP_BOUNCE: usize = 2 << 20;
/// The file that is made to see whether direct I/O works.
pub(crate) const PROBE: &str = "probe.tmp";
#[cfg(target_os = "linux")]
const DIRECT: i32 = rustix::fs::OFlags::DIRECT.bits() as i32;
#[cfg(not(target_os = "linux"))]
const DIRECT: i32 = 0;

/// Descriptors kept if nothing else is said, beside those that cannot be given up.
const KEEP_OPEN: usize = 64;
/// Descriptors that are held for when the process has no others left.
const SPARE: usize = 2;
/// How often it is said that none is left.
const COMPLAIN_EVERY: Duration = Duration::from_secs(10);
/// What the spare descriptors are of.
const NOTHING: &str = "/dev/null";

/// An open file. Its descriptor may be given up while the file is not in use, and is then made anew from the name.
#[derive(Debug)]
pub(super) struct OpenFile {
    descriptor: Mutex<Option<Arc<File>>>,
    name: Mutex<String>,
    dir: PathBuf,
    pub(super) len: u64,
    /// When it was used last, in uses of all.
    used: AtomicU64,
    /// How many operations need the descriptor kept.
    holders: AtomicUsize,
    /// Writes that a sync is still to make durable: submitted, and how many of them were synced.
    writes: AtomicU64,
    synced: AtomicU64,
}

/// An open file with its descriptor, which stays for as long as this does.
#[derive(Debug)]
pub(super) struct Handle {
    pub(super) open: Arc<OpenFile>,
    pub(super) file: Arc<File>,
    /// Writes submitted before.
    writes: u64,
}

impl Handle {
    pub(super) fn synced(&self, result: io::Result<()>) -> Result<(), DiskError> {
        result.map_err(|source| self.open.error("sync", source))?;
        self.open.synced.fetch_max(self.writes, Ordering::AcqRel);
        Ok(())
    }
}

impl OpenFile {
    pub(super) fn path(&self) -> String {
        self.dir.join(&*self.name.lock()).display().to_string()
    }

    fn error(&self, op: &'static str, source: io::Error) -> DiskError {
        io_error(op, self.path(), source)
    }

    /// What a write of `len` bytes at `pos` that answered `result` comes to.
    pub(super) fn written(&self, pos: u64, len: usize, result: io::Result<usize>) -> Result<(), DiskError> {
        match result {
            Ok(done) if done == len => Ok(()),
            Ok(done) => Err(self.short(pos, len as u64, done as u64)),
            Err(source) => Err(self.error("write", source)),
        }
    }

    /// A write that crosses the limit on a file's size is cut short there; only the next one would be told of it.
    fn short(&self, pos: u64, len: u64, done: u64) -> DiskError {
        let (path, limit) = (self.path(), file_size_limit());
        match limit {
            Some(most) if most == pos + done => DiskError::FileTooLarge { path, limit },
            _ => DiskError::ShortWrite { path, pos, len, done },
        }
    }

    /// Whether there are writes that a sync is still to make durable, beside those that do so themselves.
    fn awaits_sync(&self) -> bool {
        self.writes.load(Ordering::Acquire) != self.synced.load(Ordering::Acquire)
    }

    /// Takes the descriptor away, if no operation needs that very one. A write that no sync followed keeps it: what became of such a
    /// write is told on the descriptor it went through.
    fn take_idle(&self) -> Option<Arc<File>> {
        let mut slot = self.descriptor.try_lock()?;
        let needed = self.awaits_sync() || self.holders.load(Ordering::Acquire) > 0;
        if needed || slot.as_ref().is_some_and(|file| Arc::strong_count(file) > 1) {
            return None;
        }
        slot.take()
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// The system's error as this module's.
pub(super) fn io_error(op: &'static str, path: String, source: io::Error) -> DiskError {
    match source.kind() {
        io::ErrorKind::NotFound => DiskError::NotFound { path },
        io::ErrorKind::AlreadyExists => DiskError::Exists { path },
        _ if is_full(&source) => DiskError::Full { op, path, source: Arc::new(source) },
        io::ErrorKind::FileTooLarge => DiskError::FileTooLarge { path, limit: file_size_limit() },
        _ if descriptors::are_lacking(&source) => DiskError::NoDescriptors { path },
        _ => DiskError::Io { op, path, source: Arc::new(source) },
    }
}

/// A directory and the files open in it.
#[derive(Debug)]
pub(super) struct Files {
    path: PathBuf,
    dir: File,
    direct: bool,
    open: RwLock<FxHashMap<FileId, Arc<OpenFile>>>,
    next: AtomicU64,
    /// Those that have a descriptor.
    opened: Mutex<Vec<Arc<OpenFile>>>,
    keep_open: AtomicUsize,
    uses: AtomicU64,
    spare: Mutex<Vec<File>>,
    /// When it was last said that there are no descriptors.
    complaints: LogThrottle,
    /// Held for writing while a name changes, so that no file is opened by the one it had.
    naming: RwLock<()>,
    failed: OnceLock<Arc<DiskError>>,
    bounce: Arc<BufPool>,
}

impl Files {
    /// The directory at `path`, which must exist; its files will bypass the page cache if `direct`.
    pub(super) fn open_dir(path: &Path, direct: bool) -> Result<Self, DiskError> {
        let dir = File::open(path).map_err(|e| io_error("open", path.display().to_string(), e))?;
        let mut spare = Vec::new();
        fill_spare(&mut spare);
        Ok(Self {
            path: path.to_path_buf(),
            dir,
            direct,
            open: RwLock::default(),
            next: AtomicU64::new(1),
            opened: Mutex::default(),
            keep_open: AtomicUsize::new(KEEP_OPEN),
            uses: AtomicU64::new(0),
            spare: Mutex::new(spare),
            complaints: LogThrottle::new(COMPLAIN_EVERY),
            naming: RwLock::default(),
            failed: OnceLock::new(),
            bounce: BufPool::new(KEEP_BOUNCE),
        })
    }

    pub(super) fn dir_path(&self) -> String {
        self.path.display().to_string()
    }

    fn error_at<'a>(&'a self, op: &'static str, name: &'a str) -> impl FnOnce(io::Error) -> DiskError + 'a {
        move |e| io_error(op, self.path.join(name).display().to_string(), e)
    }

    fn options(&self) -> OpenOptions {
        let mut options = OpenOptions::new();
        options.read(true).write(true).mode(0o600).custom_flags(if self.direct { DIRECT } else { 0 });
        options
    }

    /// Fails if an earlier write or sync did.
    pub(super) fn check(&self) -> Result<(), DiskError> {
        match self.failed.get() {
            Some(cause) => Err(DiskError::Failed { cause: cause.clone() }),
            None => Ok(()),
        }
    }

    /// Remembers a failure for good.
    fn fail(&self, error: &DiskError) {
        self.failed.get_or_init(|| {
            tracing::error!(%error, "a write or sync failed; this disk takes no more of them");
            Arc::new(error.clone())
        });
    }

    /// Remembers it unless there was only too little space: then the writer writes it again.
    pub(super) fn fail_unless_short(&self, error: &DiskError) {
        if !error.is_shortage() {
            self.fail(error);
        }
    }

    fn find(&self, file: FileId) -> Result<Arc<OpenFile>, DiskError> {
        self.open.read().get(&file).cloned().ok_or(DiskError::NotOpen { file })
    }

    /// An open file with its descriptor.
    pub(super) fn get(&self, file: FileId) -> Result<Handle, DiskError> {
        let open = self.find(file)?;
        open.used.store(self.uses.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
        let mut slot = open.descriptor.lock();
        let file = match &*slot {
            Some(file) => file.clone(),
            None => {
                let file = Arc::new(self.reopen(&open)?);
                *slot = Some(file.clone());
                self.note_opened(&open);
                file
            }
        };
        drop(slot);
        let writes = open.writes.load(Ordering::Acquire);
        Ok(Handle { open, file, writes })
    }

    fn reopen(&self, open: &OpenFile) -> Result<File, DiskError> {
        let _naming = self.naming.read();
        let path = self.path.join(&*open.name.lock());
        let file = self.with_spare(|| self.options().open(&path));
        file.map_err(|e| io_error("open", path.display().to_string(), e))
    }

    /// Opens with what is held back, where the process has no descriptor left.
    fn with_spare(&self, open: impl Fn() -> io::Result<File>) -> io::Result<File> {
        match open() {
            Err(error) if descriptors::are_lacking(&error) => {
                self.complain(&error);
                self.give_up(0);
                drop(self.spare.lock().pop());
                open()
            }
            result => result,
        }
    }

    fn complain(&self, error: &io::Error) {
        if self.complaints.allows(Instant::now()) {
            tracing::warn!(%error, path = self.dir_path(), "no descriptor is left for the journal's files; raise the limit (ulimit -n)");
        }
    }

    fn note_opened(&self, open: &Arc<OpenFile>) {
        self.opened.lock().push(open.clone());
        self.give_up(self.keep_open.load(Ordering::Relaxed));
        fill_spare(&mut self.spare.lock());
    }

    /// Gives descriptors up until `keep` are left, or none that can be spared; those first that were not used longest.
    fn give_up(&self, keep: usize) {
        let mut opened = self.opened.lock();
        if opened.len() <= keep {
            return;
        }
        opened.sort_unstable_by_key(|open| std::cmp::Reverse(open.used.load(Ordering::Relaxed)));
        let mut surplus = opened.len() - keep;
        for at in (0..opened.len()).rev() {
            if surplus > 0 && opened[at].take_idle().is_some() {
                opened.swap_remove(at);
                surplus -= 1;
            }
        }
    }

    /// Keeps at most so many descriptors beside those that are needed.
    pub(super) fn keep_open(&self, descriptors: usize) {
        self.keep_open.store(descriptors, Ordering::Relaxed);
        self.give_up(descriptors);
    }

    /// Keeps a file's descriptor until it is let go.
    pub(super) fn hold(&self, file: FileId) -> Result<(), DiskError> {
        self.find(file)?.holders.fetch_add(1, Ordering::AcqRel);
        self.get(file).map(drop)
    }

    pub(super) fn let_go(&self, file: FileId) {
        if let Ok(open) = self.find(file) {
            open.holders.fetch_sub(1, Ordering::AcqRel);
        }
    }

    /// A file that a submitted write fits.
    /// `sync` says that the write makes itself durable.
    pub(super) fn get_for_write(
        &self,
        file: FileId,
        pos: u64,
        len: usize,
        sync: bool,
    ) -> Result<Handle, DiskError> {
        self.check()?;
        let handle = self.get(file)?;
        check_sectors(pos, len as u64, || handle.open.path())?;
        check_bounds(pos, len as u64, handle.open.len, || handle.open.path())?;
        if !sync {
            handle.open.writes.fetch_add(1, Ordering::AcqRel);
        }
        Ok(handle)
    }

    fn keep(&self, name: &str, file: File, len: u64) -> FileId {
        let id = FileId(self.next.fetch_add(1, Ordering::Relaxed));
        let open = self.open_file(name, file, len).open;
        open.used.store(self.uses.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
        self.open.write().insert(id, open.clone());
        self.note_opened(&open);
        id
    }

    fn open_file(&self, name: &str, file: File, len: u64) -> Handle {
        let file = Arc::new(file);
        let open = OpenFile {
            descriptor: Mutex::new(Some(file.clone())),
            name: Mutex::new(name.to_owned()),
            dir: self.path.clone(),
            len,
            used: AtomicU64::new(0),
            holders: AtomicUsize::new(0),
            writes: AtomicU64::new(0),
            synced: AtomicU64::new(0),
        };
        Handle { open: Arc::new(open), file, writes: 0 }
    }

    pub(super) fn list(&self) -> Result<Vec<String>, DiskError> {
        let mut names = Vec::new();
        let listing = fs::read_dir(&self.path).map_err(|e| io_error("list", self.dir_path(), e))?;
        for entry in listing {
            let entry = entry.map_err(|e| io_error("list", self.dir_path(), e))?;
            let is_file = entry.file_type().map_err(|e| io_error("list", self.dir_path(), e))?.is_file();
            // What no journal could have named is not one of its files.
            names.extend(entry.file_name().into_string().ok().filter(|n| is_file && check_name(n).is_ok()));
        }
        names.sort_unstable();
        Ok(names)
    }

    pub(super) fn create(&self, name: &str, len: u64) -> Result<FileId, DiskError> {
        self.check()?;
        check_name(name)?;
        check_sectors(0, len, || self.path.join(name).display().to_string())?;
        let path = self.path.join(name);
        let made = self.with_spare(|| self.options().create_new(true).open(&path));
        let file = made.map_err(self.error_at("create", name))?;
        if let Err(e) = reserve_space(&file, len) {
            drop(file);
            fs::remove_file(&path).map_err(self.error_at("remove", name))?;
            return Err(self.error_at("reserve space for", name)(e));
        }
        Ok(self.keep(name, file, len))
    }

    pub(super) fn open(&self, name: &str) -> Result<FileId, DiskError> {
        check_name(name)?;
        let opened = self.with_spare(|| self.options().open(self.path.join(name)));
        let file = opened.map_err(self.error_at("open", name))?;
        let len = file.metadata().map_err(self.error_at("open", name))?.len();
        Ok(self.keep(name, file, len))
    }

    pub(super) fn close(&self, file: FileId) {
        let closed = self.open.write().remove(&file);
        if let Some(closed) = closed {
            self.opened.lock().retain(|open| !Arc::ptr_eq(open, &closed));
        }
    }

    pub(super) fn rename(&self, from: &str, to: &str) -> Result<(), DiskError> {
        self.check()?;
        check_name(to)?;
        let _naming = self.naming.write();
        let target = self.path.join(to);
        // The directory belongs to one process, and its journal names files from one thread.
        if target.exists() {
            return Err(DiskError::Exists { path: target.display().to_string() });
        }
        fs::rename(self.path.join(from), target).map_err(self.error_at("rename", from))?;
        for open in self.open.read().values() {
            let mut name = open.name.lock();
            if *name == from {
                to.clone_into(&mut name);
            }
        }
        Ok(())
    }

    pub(super) fn remove(&self, name: &str) -> Result<(), DiskError> {
        self.check()?;
        check_name(name)?;
        self.hold_named(name)?;
        fs::remove_file(self.path.join(name)).map_err(self.error_at("remove", name))
    }

    /// A file that loses its name cannot be opened by it any more.
    fn hold_named(&self, name: &str) -> Result<(), DiskError> {
        let open = self.open.read();
        let named = open.iter().filter(|(_, open)| *open.name.lock() == name);
        let named: Vec<FileId> = named.map(|(id, _)| *id).collect();
        drop(open);
        named.into_iter().try_for_each(|id| self.hold(id))
    }

    pub(super) fn sync_dir(&self) -> Result<(), DiskError> {
        self.check()?;
        let result = self.dir.sync_all().map_err(|e| io_error("sync", self.dir_path(), e));
        result.inspect_err(|e| self.fail_unless_short(e))
    }

    #[cfg(target_os = "linux")]
    pub(super) fn fill_holes(&self, file: FileId, keep_free: u64) -> Result<bool, DiskError> {
        use std::os::unix::fs::MetadataExt;
        let handle = self.get(file)?;
        let taken = || handle.file.metadata().map(|metadata| metadata.blocks() * 512);
        let error = |e| handle.open.error("reserve space for", e);
        let before = taken().map_err(error)?;
        let len = handle.open.len.saturating_sub(before);
        if len == 0 {
            return Ok(false);
        }
        // Where there is too little, a file system may give away all that it has.
        let free = self.free_bytes()?;
        if free < len.saturating_add(keep_free) {
            return Err(DiskError::KeptFree { path: handle.open.path(), len, free, keep_free });
        }
        Ok(fallocate(&handle.file, 0, handle.open.len).map_err(error)? && taken().map_err(error)? > before)
    }

    #[cfg(not(target_os = "linux"))]
    pub(super) fn fill_holes(&self, _file: FileId, _keep_free: u64) -> Result<bool, DiskError> {
        Ok(false)
    }

    pub(super) fn len(&self, file: FileId) -> Result<u64, DiskError> {
        self.find(file).map(|open| open.len)
    }

    pub(super) fn read_at(&self, file: FileId, pos: u64, buf: &mut [u8]) -> Result<(), DiskError> {
        let handle = self.get(file)?;
        check_bounds(pos, buf.len() as u64, handle.open.len, || handle.open.path())?;
        let result = if self.direct && !goes_direct(pos, buf) {
            self.read_bounced(&handle.file, pos, buf)
        } else {
            let needed = buf.len();
            read_full(&handle.file, pos, buf, needed)
        };
        result.map_err(|e| handle.open.error("read", e))
    }

    /// Reads the whole sectors around what is wanted into aligned memory and copies.
    fn read_bounced(&self, file: &File, pos: u64, buf: &mut [u8]) -> io::Result<()> {
        let skip = (pos % SECTOR as u64) as usize;
        let mut sectors = self.bounce.get((skip + buf.len()).next_multiple_of(SECTOR));
        read_full(file, pos - skip as u64, &mut sectors, skip + buf.len())?;
        buf.copy_from_slice(&sectors[skip..skip + buf.len()]);
        Ok(())
    }

    pub(super) fn write_at(&self, file: FileId, pos: u64, data: &[u8]) -> Result<(), DiskError> {
        let handle = self.get_for_write(file, pos, data.len(), false)?;
        handle.open.written(pos, data.len(), self.write_once(&handle.file, pos, data))
    }

    /// One write call, from aligned memory where the file needs it.
    pub(super) fn write_once(&self, file: &File, pos: u64, data: &[u8]) -> io::Result<usize> {
        if !self.direct || goes_direct(pos, data) {
            return retry(|| file.write_at(data, pos));
        }
        let mut aligned = self.bounce.get(data.len());
        aligned.copy_from_slice(data);
        retry(|| file.write_at(&aligned, pos))
    }

    /// `data` in memory that direct I/O takes.
    pub(super) fn aligned(&self, data: bytes::Bytes) -> bytes::Bytes {
        if goes_direct(0, &data) {
            return data;
        }
        let mut aligned = self.bounce.get(data.len());
        aligned.copy_from_slice(&data);
        aligned.freeze()
    }

    pub(super) fn sync(&self, file: FileId) -> Result<(), DiskError> {
        self.check()?;
        let handle = self.get(file)?;
        handle.synced(handle.file.sync_data()).inspect_err(|e| self.fail_unless_short(e))
    }

    /// Makes writes to a file fail, as a device that has gone would.
    #[cfg(test)]
    pub(super) fn make_read_only(&self, file: FileId) {
        let mut open = self.open.write();
        let name = open[&file].name.lock().clone();
        let read_only = File::open(self.path.join(&name)).unwrap();
        let len = open[&file].len;
        open.insert(file, self.open_file(&name, read_only, len).open);
    }

    /// Writes a sector past the page cache, to a file that is gone at once, with `write`. That there is no space for it says
    /// nothing against direct I/O: then it is enough that the files which are there can be opened for it.
    pub(super) fn probe(
        &self,
        write: impl FnOnce(Handle, bytes::Bytes) -> io::Result<()>,
    ) -> Result<(), DiskError> {
        match self.probe_by_writing(write) {
            Err(full) if is_full(&full) => self.probe_by_opening(),
            result => result,
        }
        .map_err(|source| DiskError::Unsupported {
            what: "direct I/O",
            path: self.dir_path(),
            source: Arc::new(source),
        })
    }

    fn probe_by_writing(&self, write: impl FnOnce(Handle, bytes::Bytes) -> io::Result<()>) -> io::Result<()> {
        let path = self.path.join(PROBE);
        let file = self.options().create(true).truncate(true).open(&path)?;
        fs::remove_file(&path)?;
        let mut sector = self.bounce.get(SECTOR);
        sector.fill(0);
        write(self.open_file(PROBE, file, SECTOR as u64), sector.freeze())
    }

    fn probe_by_opening(&self) -> io::Result<()> {
        let names = self.list().map_err(io::Error::other)?;
        names.iter().try_for_each(|name| self.options().open(self.path.join(name)).map(drop))
    }

    /// Where the folder lies: what is known of an open file asks no disk.
    pub(super) fn device(&self) -> Option<u64> {
        rustix::fs::fstat(&self.dir).ok().map(|stat| stat.st_dev)
    }

    pub(super) fn free_bytes(&self) -> Result<u64, DiskError> {
        let stat = rustix::fs::fstatvfs(&self.dir)
            .map_err(|e| io_error("read the free space of", self.dir_path(), e.into()))?;
        Ok(free_of(&stat))
    }
}

/// The free bytes of a file system. XFS that is full now and then says of its free blocks a number below zero, which wraps: more than there are
/// blocks is none.
pub fn free_of(stat: &rustix::fs::StatVfs) -> u64 {
    let free = if stat.f_bavail > stat.f_blocks { 0 } else { stat.f_bavail };
    free.saturating_mul(stat.f_frsize)
}

/// Holds descriptors back, as many as there are; those that are held already stay so.
fn fill_spare(held: &mut Vec<File>) {
    let lacking = SPARE.saturating_sub(held.len());
    held.extend((0..lacking).map_while(|_| File::open(NOTHING).ok()));
}

fn goes_direct(pos: u64, buf: &[u8]) -> bool {
    pos.is_multiple_of(SECTOR as u64)
        && buf.len().is_multiple_of(SECTOR)
        && buf.as_ptr().addr().is_multiple_of(MEMORY)
}

fn retry(mut call: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    loop {
        match call() {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// Reads until `needed` bytes are there; the file's end may come before that of `buf`.
fn read_full(file: &File, pos: u64, buf: &mut [u8], needed: usize) -> io::Result<()> {
    let mut done = 0;
    while done < needed {
        match retry(|| file.read_at(&mut buf[done..], pos + done as u64))? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            n => done += n,
        }
    }
    Ok(())
}

/// Has the file system set space aside for a range of a file, which is at least so long then. Tells whether it can do that at all.
#[cfg(target_os = "linux")]
fn fallocate(file: &File, from: u64, to: u64) -> io::Result<bool> {
    match rustix::fs::fallocate(file, rustix::fs::FallocateFlags::empty(), from, to - from) {
        Err(rustix::io::Errno::OPNOTSUPP) => Ok(false),
        result => result.map(|()| true).map_err(io::Error::from),
    }
}

#[cfg(not(target_os = "linux"))]
fn fallocate(_file: &File, _from: u64, _to: u64) -> io::Result<bool> {
    Ok(false)
}

/// Gives the file its length and its space.
pub(crate) fn reserve_space(file: &File, len: u64) -> io::Result<()> {
    if fallocate(file, 0, len)? { Ok(()) } else { write_zeros(file, 0, len) }
}

/// Makes a file at least so long, with space for all of a range of it. What is in it stays.
pub(crate) fn lengthen_allocated(file: &File, from: u64, to: u64) -> io::Result<()> {
    if fallocate(file, from, to)? {
        return Ok(());
    }
    let len = file.metadata()?.len();
    write_zeros(file, len.max(from), to)
}

fn write_zeros(file: &File, from: u64, len: u64) -> io::Result<()> {
    const CHUNK: usize = 1 << 20;
    let mut zeros = BufPool::new(0).get(CHUNK);
    zeros.fill(0);
    let mut pos = from;
    while pos < len {
        let n = CHUNK.min((len - pos) as usize);
        file.write_all_at(&zeros[..n], pos)?;
        pos += n as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_blocks_below_zero_are_none() {
        let mut stat = rustix::fs::statvfs("/").unwrap();
        (stat.f_frsize, stat.f_blocks, stat.f_bavail) = (4096, 0x15000, 0x20);
        assert_eq!(free_of(&stat), 0x20000);
        stat.f_bavail = 0xffff_ffff_ffff_ffe0;
        assert_eq!(free_of(&stat), 0);
    }

    #[test]
    fn to_have_no_descriptor_left_is_a_shortage() {
        for source in [rustix::io::Errno::MFILE, rustix::io::Errno::NFILE] {
            let error = io_error("open", "journal/segment-000001".into(), source.into());
            assert!(error.is_shortage() && matches!(error, DiskError::NoDescriptors { .. }), "{error:?}");
            assert!(crate::JournalError::disk("prepare a segment")(error).is_full());
        }
    }

    #[test]
    fn a_file_that_may_not_be_so_large_is_a_shortage_and_is_named_with_the_limit() {
        let source = rustix::io::Errno::FBIG.into();
        let error = io_error("write", "journal/segment-000001".into(), source);
        assert!(error.is_shortage() && matches!(error, DiskError::FileTooLarge { .. }), "{error:?}");
        let limited = DiskError::FileTooLarge { path: "segment-000001".into(), limit: Some(10 << 20) };
        let message = limited.to_string();
        assert!(message.starts_with("segment-000001 would be larger than the 10485760 bytes"), "{message}");
    }
}

//! The page store on disk: one file of redb, a copy-on-write B-tree.
//!
//! redb verifies its own checksums only when it repairs, and trusts what it reads otherwise; so its file lies in a
//! [checked](checked::Checked) one. Commits save the allocator's state and flush twice, so that opening after a crash need not
//! walk the whole tree.
//!
//! What frees space on a full disk is a commit, and a commit takes space first. So some is kept in a [file](reserve) beside the
//! store, given up when a commit finds no other, and taken again when there is more.
//!
//! A transaction takes no more memory than the store's cache and a few bytes for each page that it writes: redb holds up to half of the cache
//! of it, and writes the rest to pages that nothing refers to before the commit.

mod checked;
mod refused;
mod reserve;

use std::cell::Cell;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::ops::{Bound, ControlFlow};
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard, RwLock, RwLockReadGuard};
use redb::{Builder, Database, ReadableDatabase, ReadableTableMetadata, TableDefinition, WriteTransaction};
use sabir_base::panics::contain_damage;

use self::checked::{Checked, Preallocation, RawFile, WatchedFile};
use self::refused::Refused;
use self::reserve::{Reserve, ReserveFile};
use super::{Opened, PageBatch, PageChange, PageError, PageRoom, PageStore, PageTransaction, Visit, ended};
use crate::disk::{UnderWay, file_size_limit};

/// The number is that of the stored form.
const PAGES: TableDefinition<'static, &[u8], &[u8]> = TableDefinition::new("pages-1");

/// The least and the most that is kept for a commit on a full disk; between them, room to copy the whole store twice.
const RESERVE_LEAST: u64 = 4 << 20;
const RESERVE_MOST: u64 = 256 << 20;
/// In which steps that is kept for what a commit changes.
const CHANGES_STEP: u64 = 4 << 20;

/// A page store in one file.
pub struct RedbPages {
    path: PathBuf,
    reopen: Box<dyn Fn() -> Result<Database, PageError> + Send + Sync>,
    /// `None` after a failed transaction, until the next call opens it anew and so learns what the file holds; so after a failed read.
    database: RwLock<Option<OpenDatabase>>,
    refused: Refused,
    /// Held by the transaction that is open.
    open: Mutex<()>,
    /// `None` where it could not even be opened.
    reserve: Option<Box<dyn Reserve>>,
    /// The file once more, and what is kept behind its end.
    tail: Option<(Box<dyn RawFile>, Arc<Preallocation>)>,
    /// What the pages take, if it was looked at since the last transaction.
    used: Mutex<Option<u64>>,
    under_way: Arc<UnderWay>,
}

/// redb refuses everything after the first read or write that fails, until it is opened anew.
struct OpenDatabase {
    database: Database,
    failed: AtomicBool,
}

type Opening<'a> = RwLockReadGuard<'a, Option<OpenDatabase>>;

fn database<'a>(opening: &'a Opening<'_>) -> &'a OpenDatabase {
    opening.as_ref().expect("`opened` gives no other")
}

impl std::fmt::Debug for RedbPages {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RedbPages").field("path", &self.path).finish_non_exhaustive()
    }
}

impl RedbPages {
    /// What a store keeps in memory unless told otherwise, in bytes.
    pub const CACHE_BYTES: usize = 4 << 20;

    /// Opens the store at `path`, or makes an empty one if there is no such file. It keeps up to `cache_bytes` in memory.
    pub fn open(path: &Path, cache_bytes: usize) -> Result<(Self, Opened), PageError> {
        let exists = path.try_exists().map_err(|e| io_error(path, e))?;
        if !exists {
            create(path, cache_bytes).map_err(|e| error(path, e))?;
        }
        let path = path.to_path_buf();
        let own_path = path.clone();
        let reserve = ReserveFile::open(&path.with_extension("reserve"));
        let under_way = Arc::new(UnderWay::default());
        let (watch, tail) = (under_way.clone(), Arc::<Preallocation>::default());
        let kept = tail.clone();
        let mut store = Self::start(path, move || open(&own_path, cache_bytes, &watch, &kept))?;
        store.under_way = under_way;
        let file = OpenOptions::new().read(true).write(true).open(&store.path);
        store.tail = Some((Box::new(file.map_err(|e| io_error(&store.path, e))?), tail));
        match reserve {
            Ok(reserve) => store.reserve = Some(Box::new(reserve)),
            Err(error) => {
                tracing::warn!(path = %store.path.display(), %error, "no space is kept for its commits")
            }
        }
        store.keep_reserve(0);
        Ok((store, if exists { Opened::Existing } else { Opened::Created }))
    }

    fn start(
        path: PathBuf,
        reopen: impl Fn() -> Result<Database, PageError> + Send + Sync + 'static,
    ) -> Result<Self, PageError> {
        let database = OpenDatabase { database: reopen()?, failed: AtomicBool::new(false) };
        Ok(Self {
            path,
            reopen: Box::new(reopen),
            database: RwLock::new(Some(database)),
            refused: Refused::default(),
            open: Mutex::default(),
            reserve: None,
            tail: None,
            used: Mutex::default(),
            under_way: Arc::default(),
        })
    }

    fn wanted_reserve(&self) -> u64 {
        self.stored_bytes().map_or(RESERVE_LEAST, |bytes| (2 * bytes).clamp(RESERVE_LEAST, RESERVE_MOST))
    }

    /// Reads. Whatever fails has the database opened anew by the next caller; a caller that meets another's failure reads once more.
    fn run<T>(&self, mut work: impl FnMut(&Database) -> Result<T, redb::Error>) -> Result<T, PageError> {
        let until = Instant::now() + PATIENCE;
        loop {
            let opening = self.opened()?;
            let OpenDatabase { database, failed } = database(&opening);
            let done = guarded(|| work(database)).inspect_err(|_| failed.store(true, Relaxed));
            match done {
                Err(redb::Error::PreviousIo) if Instant::now() < until => {}
                done => return done.map_err(|e| error(&self.path, e)),
            }
        }
    }

    fn opened(&self) -> Result<Opening<'_>, PageError> {
        let until = Instant::now() + PATIENCE;
        loop {
            let opening = self.database.read();
            let failed = opening.as_ref().is_none_or(|open| open.failed.load(Relaxed));
            // The transaction that holds it open ends with its next step. Where that takes long, a caller that waited hears that it has failed.
            if !failed || (opening.is_some() && Instant::now() >= until) {
                return Ok(opening);
            }
            drop(opening);
            // A caller that waited here for a transaction to end would keep all others from reading beside it.
            let Some(mut slot) = self.database.try_write() else {
                std::thread::sleep(INTERVAL);
                continue;
            };
            if slot.as_ref().is_none_or(|open| open.failed.load(Relaxed)) {
                close(&mut slot);
                *slot = Some(OpenDatabase { database: (self.reopen)()?, failed: AtomicBool::new(false) });
            }
        }
    }
}

/// How long a read waits for a transaction to end on a database that has failed, and how often it looks.
const PATIENCE: Duration = Duration::from_secs(1);
const INTERVAL: Duration = Duration::from_millis(2);

/// Closes a database that has failed; it may panic of what it was reading when it did.
fn close(slot: &mut Option<OpenDatabase>) {
    let failed = slot.take();
    let _ = guarded(|| {
        drop(failed);
        Ok(())
    });
}

/// A transaction of redb's, which holds what it cannot do without. It writes what exceeds half of the store's cache as it comes.
struct OpenTransaction<'a> {
    transaction: WriteTransaction,
    // Let go of behind it.
    database: Opening<'a>,
}

struct RedbTransaction<'a> {
    store: &'a RedbPages,
    /// `None` once it is over.
    open: Option<OpenTransaction<'a>>,
    _alone: MutexGuard<'a, ()>,
}

impl RedbTransaction<'_> {
    fn end(&mut self) {
        if let Some(open) = self.open.take() {
            let _ = guarded(|| {
                drop(open);
                Ok(())
            });
        }
    }

    fn failed(&mut self, reason: redb::Error) -> PageError {
        self.end();
        // It refuses everything after a failure; what the file holds is seen by opening it again.
        close(&mut self.store.database.write());
        error(&self.store.path, reason)
    }
}

impl Drop for RedbTransaction<'_> {
    fn drop(&mut self) {
        self.end();
    }
}

impl PageTransaction for RedbTransaction<'_> {
    fn put(&mut self, portion: &PageBatch) -> Result<(), PageError> {
        let changes = portion.sorted().inspect_err(|_| self.end())?;
        let Some(open) = &self.open else { return Err(ended(self.store.path.display().to_string())) };
        let put = guarded(|| put(&open.transaction, &changes));
        put.map_err(|reason| self.failed(reason))
    }

    fn commit(mut self: Box<Self>) -> Result<(), PageError> {
        let open = self.open.take().ok_or_else(|| ended(self.store.path.display().to_string()))?;
        let OpenTransaction { transaction, database } = open;
        let committed = guarded(|| Ok(transaction.commit()?));
        *self.store.used.lock() = None;
        drop(database);
        committed.map_err(|reason| self.failed(reason))
    }
}

/// Makes an empty store that appears under its name whole or not at all.
fn create(path: &Path, cache_bytes: usize) -> Result<(), redb::Error> {
    let unfinished = path.with_extension("new");
    let mut options = OpenOptions::new();
    let file = options.read(true).write(true).create(true).truncate(true).mode(0o600).open(&unfinished)?;
    create_in(file, cache_bytes)?;
    fs::rename(&unfinished, path)?;
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()?;
    Ok(())
}

fn create_in(file: impl RawFile, cache_bytes: usize) -> Result<(), redb::Error> {
    let database = Builder::new().set_cache_size(cache_bytes).create_with_backend(Checked::create(file)?)?;
    let transaction = begin(&database)?;
    put(&transaction, &[])?;
    Ok(transaction.commit()?)
}

fn open(
    path: &Path,
    cache_bytes: usize,
    under_way: &Arc<UnderWay>,
    tail: &Arc<Preallocation>,
) -> Result<Database, PageError> {
    let file = OpenOptions::new().read(true).write(true).open(path).map_err(|e| io_error(path, e))?;
    lock(&file, path)?;
    let file = WatchedFile { file, under_way: under_way.clone() };
    guarded(|| open_in(file, cache_bytes, tail.clone())).map_err(|e| error(path, e))
}

/// How long a store is waited for whose owner lets go of it: of a broker that has ended, what still answers closes it a moment later.
const LOCK_PATIENCE: Duration = Duration::from_secs(2);
const LOCK_INTERVAL: Duration = Duration::from_millis(20);

fn lock(file: &File, path: &Path) -> Result<(), PageError> {
    let until = Instant::now() + LOCK_PATIENCE;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::WouldBlock) if Instant::now() < until => std::thread::sleep(LOCK_INTERVAL),
            Err(TryLockError::WouldBlock) => {
                return Err(PageError::InUse { path: path.display().to_string() });
            }
            Err(TryLockError::Error(e)) => return Err(io_error(path, e)),
        }
    }
}

/// Does work on a tree that may be damaged: a page whose checksum is right but which makes no sense, as blocks of the first form can
/// become where their sums are lost, has redb's own code panic. Then the database is closed, and what the file holds is named.
fn guarded<T>(work: impl FnOnce() -> Result<T, redb::Error>) -> Result<T, redb::Error> {
    contain_damage(work).unwrap_or_else(|| Err(redb::Error::Corrupted("a page of it makes no sense".into())))
}

fn open_in(
    file: impl RawFile,
    cache_bytes: usize,
    tail: Arc<Preallocation>,
) -> Result<Database, redb::Error> {
    let mut builder = Builder::new();
    builder.set_cache_size(cache_bytes);
    builder.set_repair_callback(|_| tracing::warn!("repairing a page store after a crash"));
    let file = Checked::open(file, tail)?;
    // redb would make a new database of an empty file.
    if redb::StorageBackend::len(&file)? == 0 {
        return Err(redb::Error::Corrupted("it is empty".into()));
    }
    let database = builder.create_with_backend(file)?;
    database.begin_read()?.open_table(PAGES)?;
    Ok(database)
}

fn get(database: &Database, key: &[u8]) -> Result<Option<Vec<u8>>, redb::Error> {
    let table = database.begin_read()?.open_table(PAGES)?;
    Ok(table.get(key)?.map(|guard| guard.value().to_vec()))
}

/// How long a file of `end` bytes may get within what is allocated: redb makes it twice as long each time, and may take any page of that.
fn reachable(end: u64, allocated: u64) -> u64 {
    let mut reachable = end.min(allocated).max(1);
    while 2 * reachable <= allocated {
        reachable *= 2;
    }
    reachable
}

/// Bytes of the tree's pages. All of them are read.
fn used(database: &Database) -> Result<u64, redb::Error> {
    let stats = database.begin_read()?.open_table(PAGES)?.stats()?;
    Ok(stats.stored_bytes() + stats.metadata_bytes() + stats.fragmented_bytes())
}

/// Begins a durable transaction.
fn begin(database: &Database) -> Result<WriteTransaction, redb::Error> {
    let mut transaction = database.begin_write()?;
    transaction.set_quick_repair(true);
    Ok(transaction)
}

/// Puts changes that are sorted by key.
fn put(transaction: &WriteTransaction, changes: &[&PageChange]) -> Result<(), redb::Error> {
    let mut table = transaction.open_table(PAGES)?;
    for PageChange { key, page } in changes {
        match page {
            None => drop(table.remove(key.as_slice())?),
            Some(page) => drop(table.insert(key.as_slice(), page.as_slice())?),
        }
    }
    Ok(())
}

fn io_error(path: &Path, source: io::Error) -> PageError {
    let path = path.display().to_string();
    match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => PageError::Full { path },
        io::ErrorKind::FileTooLarge => PageError::FileTooLarge { path, limit: file_size_limit() },
        // What redb says of a file that is not, or no longer, one of its own.
        io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidInput => {
            PageError::Corrupt { path, detail: source.to_string() }
        }
        _ => PageError::Io { path, source: Arc::new(source) },
    }
}

fn error(path: &Path, error: redb::Error) -> PageError {
    use redb::Error as E;
    match error {
        E::Io(source) => io_error(path, source),
        E::DatabaseAlreadyOpen => PageError::InUse { path: path.display().to_string() },
        E::PreviousIo | E::DatabaseClosed | E::LockPoisoned(_) => io_error(path, io::Error::other(error)),
        other => PageError::Corrupt { path: path.display().to_string(), detail: other.to_string() },
    }
}

impl PageStore for RedbPages {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, PageError> {
        if let Some(error) = self.refused.error(key, self.open.is_locked(), Instant::now()) {
            return Err(error);
        }
        let mut is_own = false;
        let mut once = || {
            self.run(|database| {
                // Unless it is said below that it was another's, as where it panics.
                is_own = true;
                let got = get(database, key);
                is_own = !matches!(got, Err(redb::Error::PreviousIo));
                got
            })
        };
        let mut got = once();
        if matches!(got, Err(PageError::Io { .. })) {
            got = once();
        }
        match &got {
            Ok(_) => self.refused.forget(key),
            Err(error) if is_own => self.refused.note(key, error, Instant::now()),
            Err(_) => {}
        }
        got
    }

    fn scan(&self, prefix: &[u8], from: &[u8], visit: &mut Visit<'_>) -> Result<(), PageError> {
        let start = prefix.max(from);
        let (mut visited, begun) = (Ok(()), Cell::new(false));
        let mut walk = |database: &Database| {
            let table = database.begin_read()?.open_table(PAGES)?;
            for entry in table.range::<&[u8]>((Bound::Included(start), Bound::Unbounded))? {
                let (key, stored) = entry?;
                let key = key.value();
                if !key.starts_with(prefix) {
                    break;
                }
                begun.set(true);
                match visit(key, stored.value()) {
                    Ok(ControlFlow::Continue(())) => {}
                    stop => {
                        visited = stop.map(drop);
                        break;
                    }
                }
            }
            Ok::<(), redb::Error>(())
        };
        self.run(|database| match walk(database) {
            // What has been visited is not visited again.
            Err(failed @ redb::Error::PreviousIo) if begun.get() => Err(io::Error::other(failed).into()),
            walked => walked,
        })?;
        visited
    }

    fn begin(&self) -> Result<Box<dyn PageTransaction + '_>, PageError> {
        let alone = self.open.lock();
        let opening = self.opened()?;
        let begun = guarded(|| begin(&database(&opening).database));
        let mut transaction = RedbTransaction { store: self, open: None, _alone: alone };
        match begun {
            Ok(begun) => transaction.open = Some(OpenTransaction { transaction: begun, database: opening }),
            Err(reason) => {
                drop(opening);
                return Err(transaction.failed(reason));
            }
        }
        Ok(Box::new(transaction))
    }

    fn keep_reserve(&self, changes: u64) -> bool {
        let wanted = self.wanted_reserve();
        let in_tail = wanted + (PageRoom::A_CHANGE_TAKES * changes).next_multiple_of(CHANGES_STEP);
        // No space for it is no failure: it is tried again. What a limit of the process forbids will be forbidden then, too.
        let done = |kept: io::Result<()>| match kept {
            Err(error) => error.kind() == io::ErrorKind::FileTooLarge,
            Ok(()) => true,
        };
        let tail = |(file, tail): &(Box<dyn RawFile>, Arc<Preallocation>)| done(tail.keep(&**file, in_tail));
        let reserve = |reserve: &dyn Reserve| done(reserve.fill(wanted));
        self.under_way.during(|| {
            let tail = self.tail.as_ref().is_none_or(tail);
            self.reserve.as_deref().is_none_or(reserve) && tail
        })
    }

    fn room(&self) -> Result<PageRoom, PageError> {
        let Some((_, tail)) = &self.tail else { return Ok(PageRoom::UNBOUNDED) };
        let used = match *self.used.lock() {
            Some(used) => used,
            None => self.run(used)?,
        };
        *self.used.lock() = Some(used);
        Ok(PageRoom { used, all: reachable(tail.end(), tail.allocated()) })
    }

    fn give_up_reserve(&self) -> bool {
        let given = self.reserve.as_ref().is_some_and(|r| self.under_way.during(|| r.give_up()));
        if given {
            tracing::warn!(path = %self.path.display(), "the disk is full: the space kept for this commit is used");
        }
        given
    }

    fn under_way(&self) -> Duration {
        self.under_way.age()
    }

    fn stored_bytes(&self) -> Result<u64, PageError> {
        // In units of 512 bytes, whatever the file system's are; holes do not count, nor does what is kept behind the end.
        let most = self.tail.as_ref().map_or(u64::MAX, |(_, tail)| tail.end());
        fs::metadata(&self.path).map(|m| most.min(m.blocks() * 512)).map_err(|e| io_error(&self.path, e))
    }
}

#[cfg(test)]
mod faults;

#[cfg(test)]
mod tests {
    use super::checked::HEADER_BYTES;
    use super::{Checked, RedbPages};
    use crate::pages::suite;
    use crate::pages::{Opened, PageBatch, PageError, PageStore};
    use redb::Database;
    use std::fs::{self, File};
    use std::path::Path;

    fn open(path: &Path) -> Result<(RedbPages, Opened), PageError> {
        RedbPages::open(path, RedbPages::CACHE_BYTES)
    }

    #[test]
    fn a_store_that_may_not_be_so_large_is_named_with_the_limit() {
        let error = super::io_error(Path::new("pages.redb"), std::io::ErrorKind::FileTooLarge.into());
        assert!(matches!(error, PageError::FileTooLarge { .. }), "{error:?}");
        assert!(error.to_string().starts_with("the page store pages.redb would be larger than "), "{error}");
    }

    #[test]
    fn conforms() {
        let dir = tempfile::tempdir().unwrap();
        let mut stores = 0;
        suite::run(|| {
            stores += 1;
            Box::new(open(&dir.path().join(format!("pages-{stores}"))).unwrap().0)
        });
    }

    #[test]
    fn says_whether_it_was_there_and_keeps_what_was_committed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pages");
        // What a crash while it was being made leaves.
        fs::write(path.with_extension("new"), b"half").unwrap();
        let (store, opened) = open(&path).unwrap();
        assert_eq!(opened, Opened::Created);
        let mut batch = PageBatch::default();
        batch.put(b"k".to_vec(), b"v".to_vec());
        store.commit(batch).unwrap();
        assert!(store.stored_bytes().unwrap() > 0);
        assert!(matches!(open(&path), Err(PageError::InUse { .. })));
        drop(store);
        let (store, opened) = open(&path).unwrap();
        assert_eq!(opened, Opened::Existing);
        assert_eq!(store.get(b"k").unwrap().unwrap(), b"v");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "the store and its reserve");
    }

    #[test]
    fn what_is_no_store_is_an_error_and_stays_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        for (name, content) in [("empty", vec![]), ("short", vec![7; 100]), ("noise", vec![7; 100_000])] {
            let path = dir.path().join(name);
            fs::write(&path, &content).unwrap();
            let error = open(&path).unwrap_err();
            assert!(matches!(error, PageError::Corrupt { .. }), "{name}: {error:?}");
            assert!(error.to_string().contains(name), "{error}");
            assert_eq!(fs::read(&path).unwrap(), content);
        }
        let other = dir.path().join("other");
        Database::builder()
            .create_with_backend(Checked::create(File::create(&other).unwrap()).unwrap())
            .unwrap();
        assert!(matches!(open(&other), Err(PageError::Corrupt { .. })), "a redb file without our table");
    }

    #[test]
    fn a_page_that_has_rotted_is_an_error_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pages");
        let (store, _) = open(&path).unwrap();
        let mut batch = PageBatch::default();
        batch.put(b"k".to_vec(), [b"a page to be found in the file".as_slice(); 100].concat());
        store.commit(batch).unwrap();
        drop(store);
        let mut bytes = fs::read(&path).unwrap();
        let at = bytes.windows(14).rposition(|w| w == b"a page to be f").unwrap();
        bytes[at] ^= 0x10;
        fs::write(&path, &bytes).unwrap();
        let read = open(&path).and_then(|(store, _)| store.get(b"k"));
        let Err(PageError::Corrupt { path: named, detail }) = read else { panic!("{read:?}") };
        assert_eq!(named, path.display().to_string());
        assert!(detail.contains("checksum"), "{detail}");
        // An opening notes in redb's first block that it is open, which stands in the header's copies.
        let after = fs::read(&path).unwrap();
        assert!(after[HEADER_BYTES..] == bytes[HEADER_BYTES..], "it is left as it is");
        let again = open(&path).and_then(|(store, _)| store.get(b"k"));
        assert!(matches!(again, Err(PageError::Corrupt { .. })), "and found so once more: {again:?}");
    }

    #[test]
    fn a_file_reaches_as_far_as_it_can_be_twice_as_long_again() {
        for (end, allocated, reaches) in [(5, 29, 20), (5, 40, 40), (10, 9, 9), (7, 7, 7), (1, 0, 1)] {
            assert_eq!(super::reachable(end, allocated), reaches, "{end} of {allocated}");
        }
    }
}

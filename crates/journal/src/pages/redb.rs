//! The page store on disk: one file of redb, a copy-on-write B-tree.
//!
//! Every page ends in a CRC-32C of its key and content, since redb verifies its own checksums only when it repairs. Commits
//! save the allocator's state and flush twice, so that opening after a crash need not walk the whole tree.

use std::fs::{self, File};
use std::io;
use std::ops::{Bound, ControlFlow};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::{RwLock, RwLockReadGuard};
use redb::{Builder, Database, ReadableDatabase, TableDefinition};
use sabir_base::crc::crc32c_parts;

use super::{Opened, PageBatch, PageChange, PageError, PageStore, Visit};

/// The number is that of the stored form.
const PAGES: TableDefinition<'static, &[u8], &[u8]> = TableDefinition::new("pages-1");
const CRC: usize = 4;

/// A page store in one file.
pub struct RedbPages {
    path: PathBuf,
    cache_bytes: usize,
    /// `None` after a failed commit, until the next call opens it anew and so learns what the file holds.
    database: RwLock<Option<Database>>,
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
        let database = open(path, cache_bytes)?;
        let store = Self { path: path.to_path_buf(), cache_bytes, database: RwLock::new(Some(database)) };
        Ok((store, if exists { Opened::Existing } else { Opened::Created }))
    }

    fn run<T>(&self, work: impl FnOnce(&Database) -> Result<T, redb::Error>) -> Result<T, PageError> {
        let guard = self.opened()?;
        let database = guard.as_ref().expect("`opened` gives no other");
        work(database).map_err(|e| error(&self.path, e))
    }

    fn opened(&self) -> Result<RwLockReadGuard<'_, Option<Database>>, PageError> {
        loop {
            let guard = self.database.read();
            if guard.is_some() {
                return Ok(guard);
            }
            drop(guard);
            let mut database = self.database.write();
            if database.is_none() {
                *database = Some(open(&self.path, self.cache_bytes)?);
            }
        }
    }

    fn corrupt(&self, key: &[u8], what: &str) -> PageError {
        PageError::Corrupt {
            path: self.path.display().to_string(),
            detail: format!("the page {key:02x?} {what}"),
        }
    }

    /// The page in a stored value.
    fn verified<'a>(&self, key: &[u8], stored: &'a [u8]) -> Result<&'a [u8], PageError> {
        let (page, crc) =
            stored.split_last_chunk::<CRC>().ok_or_else(|| self.corrupt(key, "ends before its checksum"))?;
        if crc32c_parts(&[key, page]) == u32::from_le_bytes(*crc) {
            return Ok(page);
        }
        Err(self.corrupt(key, "fails its checksum"))
    }
}

/// Makes an empty store that appears under its name whole or not at all.
fn create(path: &Path, cache_bytes: usize) -> Result<(), redb::Error> {
    let unfinished = path.with_extension("new");
    match fs::remove_file(&unfinished) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e.into()),
        _ => {}
    }
    let database = Builder::new().set_cache_size(cache_bytes).create(&unfinished)?;
    write(&database, Vec::new())?;
    drop(database);
    fs::rename(&unfinished, path)?;
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()?;
    Ok(())
}

fn open(path: &Path, cache_bytes: usize) -> Result<Database, PageError> {
    let opened = || -> Result<Database, redb::Error> {
        let mut builder = Builder::new();
        builder.set_cache_size(cache_bytes);
        builder.set_repair_callback(|_| tracing::warn!("repairing a page store after a crash"));
        // Not `create`, which takes an empty file for a new store.
        let database = builder.open(path)?;
        database.begin_read()?.open_table(PAGES)?;
        Ok(database)
    };
    opened().map_err(|e| error(path, e))
}

/// Writes changes that are sorted by key as one durable transaction.
fn write(database: &Database, changes: Vec<PageChange>) -> Result<(), redb::Error> {
    let mut transaction = database.begin_write()?;
    transaction.set_quick_repair(true);
    {
        let mut table = transaction.open_table(PAGES)?;
        for PageChange { key, page } in changes {
            match page {
                None => drop(table.remove(key.as_slice())?),
                Some(mut page) => {
                    let crc = crc32c_parts(&[&key, &page]);
                    page.extend_from_slice(&crc.to_le_bytes());
                    table.insert(key.as_slice(), page.as_slice())?;
                }
            }
        }
    }
    transaction.commit()?;
    Ok(())
}

fn io_error(path: &Path, source: io::Error) -> PageError {
    let path = path.display().to_string();
    match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => PageError::Full { path },
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
        let stored = self.run(|database| {
            let table = database.begin_read()?.open_table(PAGES)?;
            Ok(table.get(key)?.map(|guard| guard.value().to_vec()))
        })?;
        let Some(mut page) = stored else { return Ok(None) };
        let len = self.verified(key, &page)?.len();
        page.truncate(len);
        Ok(Some(page))
    }

    fn scan(&self, prefix: &[u8], from: &[u8], visit: &mut Visit<'_>) -> Result<(), PageError> {
        let start = prefix.max(from);
        let mut visited = Ok(());
        self.run(|database| {
            let table = database.begin_read()?.open_table(PAGES)?;
            for entry in table.range::<&[u8]>((Bound::Included(start), Bound::Unbounded))? {
                let (key, stored) = entry?;
                let key = key.value();
                if !key.starts_with(prefix) {
                    break;
                }
                match self.verified(key, stored.value()).and_then(|page| visit(key, page)) {
                    Ok(ControlFlow::Continue(())) => {}
                    stop => {
                        visited = stop.map(drop);
                        break;
                    }
                }
            }
            Ok(())
        })?;
        visited
    }

    fn commit(&self, batch: PageBatch) -> Result<(), PageError> {
        let changes = batch.into_sorted()?;
        let result = self.run(|database| write(database, changes));
        if result.is_err() {
            // It refuses everything after a failure; what the file holds is seen by opening it again.
            *self.database.write() = None;
        }
        result
    }

    fn stored_bytes(&self) -> Result<u64, PageError> {
        fs::metadata(&self.path).map(|m| m.len()).map_err(|e| io_error(&self.path, e))
    }
}

#[cfg(test)]
mod tests {
    use super::{PAGES, RedbPages};
    use crate::pages::suite;
    use crate::pages::{Opened, PageBatch, PageError, PageStore};
    use std::fs;
    use std::path::Path;

    fn open(path: &Path) -> Result<(RedbPages, Opened), PageError> {
        RedbPages::open(path, RedbPages::CACHE_BYTES)
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
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
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
        redb::Database::create(&other).unwrap();
        assert!(matches!(open(&other), Err(PageError::Corrupt { .. })), "a redb file without our table");
    }

    #[test]
    fn a_page_that_fails_its_checksum_is_an_error_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pages");
        let (store, _) = open(&path).unwrap();
        let mut batch = PageBatch::default();
        batch.put(b"good".to_vec(), b"page".to_vec());
        batch.put(b"rotten".to_vec(), b"page".to_vec());
        store.commit(batch).unwrap();
        drop(store);
        {
            let database = redb::Database::open(&path).unwrap();
            let transaction = database.begin_write().unwrap();
            transaction
                .open_table(PAGES)
                .unwrap()
                .insert(b"rotten".as_slice(), b"pbgexxxx".as_slice())
                .unwrap();
            transaction.open_table(PAGES).unwrap().insert(b"stub".as_slice(), b"xxx".as_slice()).unwrap();
            transaction.commit().unwrap();
        }
        let (store, _) = open(&path).unwrap();
        assert_eq!(store.get(b"good").unwrap().unwrap(), b"page");
        for key in [b"rotten".as_slice(), b"stub"] {
            assert!(matches!(store.get(key), Err(PageError::Corrupt { .. })));
            let scanned = store.scan(key, &[], &mut |_, _| panic!("nothing to see"));
            let Err(PageError::Corrupt { path: named, .. }) = scanned else { panic!("{scanned:?}") };
            assert_eq!(named, path.display().to_string());
        }
    }

    #[test]
    fn goes_on_after_a_failed_commit_with_what_the_file_holds() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pages");
        let (store, _) = open(&path).unwrap();
        let mut batch = PageBatch::default();
        batch.put(b"k".to_vec(), b"v".to_vec());
        store.commit(batch).unwrap();
        *store.database.write() = None;
        assert_eq!(store.get(b"k").unwrap().unwrap(), b"v");
    }
}

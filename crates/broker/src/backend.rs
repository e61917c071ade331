//! What shards stand on: disks, page stores and replicators.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use sabir_journal::disk::{Disk, DiskError, PwriteDisk};
use sabir_journal::pages::{PageStore, RedbPages};
use sabir_journal::{
    Journal, JournalError, JournalFound, Replicator, Solo, is_journal_file, look_at, segment_generations,
};
use sabir_model::ShardId;
use tracing::info;

use crate::directory::DirectoryIdentity;
use crate::options::{BrokerOptions, DiskKind, StartError};
use crate::private;
use crate::shard::OpenError;
use crate::strays::is_of_shard;
use crate::survey::Survey;

/// The file of a shard's page store.
pub(crate) const PAGES: &str = "pages.redb";
/// Descriptors that a shard's disk keeps at least.
const LEAST_OPEN_FILES: usize = 2;

/// Gives each shard its ground.
pub(crate) trait Backend: Send + Sync {
    /// The shards that are there, before anything is opened or made.
    fn survey(&self) -> Result<Survey, StartError>;

    /// Writes down that every shard was made, where that is not in the shards alone.
    fn write_identity(&self, _identity: DirectoryIdentity) -> Result<(), StartError> {
        Ok(())
    }

    /// The disk of a shard's journal.
    fn disk(&self, shard: ShardId) -> Result<Arc<dyn Disk>, OpenError>;

    /// The page store beside it; `None` where there is none.
    fn pages(&self, shard: ShardId) -> Result<Option<Arc<dyn PageStore>>, OpenError>;

    /// Makes an empty page store where there is none.
    fn make_pages(&self, shard: ShardId) -> Result<Arc<dyn PageStore>, OpenError>;

    /// The replicator over its journal.
    fn replicator(&self, shard: ShardId, journal: Arc<Journal>) -> Result<Arc<dyn Replicator>, JournalError>;

    /// The shard whose journal that is, if it is one of these.
    fn shard_with(&self, _mark: JournalMark) -> Option<ShardId> {
        None
    }
}

/// What a journal is known by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum JournalMark {
    /// Its number.
    Number(u64),
    /// The generation of one of its segments.
    Generation(u64),
}

/// Folders of a data directory: `shard-N/journal` and `shard-N/pages.redb`.
#[derive(Debug)]
pub(crate) struct Folders {
    pub(crate) data: PathBuf,
    disk: DiskKind,
    /// Descriptors that each shard's disk keeps.
    open_files: usize,
}

impl Folders {
    pub(crate) fn of(options: &BrokerOptions) -> Self {
        let disks = options.data_shards as usize + 1;
        let open_files = (options.open_files / disks).max(LEAST_OPEN_FILES);
        Self { data: options.data.clone(), disk: options.disk, open_files }
    }

    fn shard(&self, shard: ShardId) -> PathBuf {
        self.data.join(format!("shard-{shard}"))
    }
}

impl Folders {
    /// The numbers of the folders that have a shard's name.
    fn numbers(&self) -> std::io::Result<Vec<ShardId>> {
        let mut numbers = Vec::new();
        for entry in std::fs::read_dir(&self.data)? {
            let name = entry?.file_name();
            numbers.extend(name.to_str().and_then(shard_number));
        }
        Ok(numbers)
    }

    /// What no start leaves that ended before it had made a journal: it begins with shard 0.
    fn unexpected(&self) -> std::io::Result<Option<PathBuf>> {
        if let Some(later) = self.numbers()?.into_iter().filter(|shard| *shard != ShardId::CATALOG).min() {
            return Ok(Some(self.shard(later)));
        }
        let catalog = self.shard(ShardId::CATALOG);
        let journal = catalog.join("journal");
        Ok(foreign_in(&catalog, is_of_shard)?.or(foreign_in(&journal, is_journal_file)?))
    }

    fn look_at(&self, shard: ShardId) -> Result<Option<JournalFound>, OpenError> {
        let folder = self.shard(shard).join("journal");
        // One that may not be looked into is not one that is not there.
        let there = folder.try_exists();
        if !there.map_err(|source| OpenError::Folder { path: folder.clone(), source })? {
            return Ok(None);
        }
        let disk = PwriteDisk::open(&folder).map_err(OpenError::Disk)?;
        Ok(look_at(&(Arc::new(disk) as Arc<dyn Disk>))?)
    }
}

/// Something in a folder that is not called as `ours` is; `None` also where there is no such folder.
fn foreign_in(folder: &Path, ours: fn(&str) -> bool) -> std::io::Result<Option<PathBuf>> {
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        entries => entries?,
    };
    for entry in entries {
        let name = entry?.file_name();
        if !name.to_str().is_some_and(ours) {
            return Ok(Some(folder.join(name)));
        }
    }
    Ok(None)
}

/// The number in the name of a shard's folder.
pub(crate) fn shard_number(name: &str) -> Option<ShardId> {
    let number = name.strip_prefix("shard-")?.parse().ok().map(ShardId)?;
    (format!("shard-{number}") == name).then_some(number)
}

impl Backend for Folders {
    fn survey(&self) -> Result<Survey, StartError> {
        let io = |source| StartError::Io { op: "list", path: self.data.clone(), source };
        let mut survey = Survey { identity: DirectoryIdentity::read(&self.data)?, ..Survey::default() };
        for shard in self.numbers().map_err(io)? {
            let found = self.look_at(shard);
            let found = found.map_err(|error| error.of_shard(shard, &self.shard(shard)))?;
            survey.found.insert(shard, found);
        }
        survey.unexpected = self.unexpected().map_err(io)?;
        Ok(survey)
    }

    fn write_identity(&self, identity: DirectoryIdentity) -> Result<(), StartError> {
        identity.write(&self.data)
    }

    fn disk(&self, shard: ShardId) -> Result<Arc<dyn Disk>, OpenError> {
        let folder = self.shard(shard).join("journal");
        private::make_folder(&folder).map_err(|source| OpenError::Folder { path: folder.clone(), source })?;
        sync_folders(&folder, &self.data)?;
        open_disk(self.disk, &folder, self.open_files).map_err(OpenError::Disk)
    }

    fn pages(&self, shard: ShardId) -> Result<Option<Arc<dyn PageStore>>, OpenError> {
        let path = self.shard(shard).join(PAGES);
        let there = path.try_exists().map_err(|source| OpenError::Folder { path, source })?;
        if there { self.make_pages(shard).map(Some) } else { Ok(None) }
    }

    fn make_pages(&self, shard: ShardId) -> Result<Arc<dyn PageStore>, OpenError> {
        let (store, _) = RedbPages::open(&self.shard(shard).join(PAGES), RedbPages::CACHE_BYTES)?;
        Ok(Arc::new(store))
    }

    fn replicator(&self, _: ShardId, journal: Arc<Journal>) -> Result<Arc<dyn Replicator>, JournalError> {
        Ok(Solo::start(journal)?)
    }

    fn shard_with(&self, mark: JournalMark) -> Option<ShardId> {
        // What cannot be read is no answer to whose another file is.
        let has = |shard: &ShardId| match mark {
            JournalMark::Number(number) => {
                self.look_at(*shard).is_ok_and(|found| found.is_some_and(|found| found.journal == number))
            }
            JournalMark::Generation(generation) => {
                let disk = PwriteDisk::open(&self.shard(*shard).join("journal"));
                let generations = disk.map(|disk| segment_generations(&(Arc::new(disk) as Arc<dyn Disk>)));
                matches!(generations, Ok(Ok(generations)) if generations.contains(&generation))
            }
        };
        self.numbers().ok()?.into_iter().find(has)
    }
}

/// A folder's name is durable only once the folder above it is synced.
fn sync_folders(folder: &Path, data: &Path) -> Result<(), OpenError> {
    for path in folder.ancestors().skip(1) {
        let synced = std::fs::File::open(path).and_then(|folder| folder.sync_all());
        synced.map_err(|source| OpenError::Folder { path: path.to_owned(), source })?;
        if path == data {
            break;
        }
    }
    Ok(())
}

/// Checks that io_uring with direct I/O works in a folder that exists; the error says what is missing. Writes a file there, and
/// removes it.
///
/// # Errors
/// In words, why a journal there would fall back to `pwrite`.
pub fn check_uring(folder: &Path) -> Result<(), String> {
    open_disk(DiskKind::Uring, folder, LEAST_OPEN_FILES).map(drop).map_err(|error| error.to_string())
}

fn open_pwrite(folder: &Path, open_files: usize) -> Result<Arc<dyn Disk>, DiskError> {
    let disk = PwriteDisk::open(folder)?;
    disk.keep_open(open_files);
    Ok(Arc::new(disk))
}

#[cfg(target_os = "linux")]
fn open_disk(kind: DiskKind, folder: &Path, open_files: usize) -> Result<Arc<dyn Disk>, DiskError> {
    use sabir_journal::disk::UringDisk;
    if kind == DiskKind::Pwrite {
        return open_pwrite(folder, open_files);
    }
    match UringDisk::open(folder) {
        Ok(disk) => {
            disk.keep_open(open_files);
            Ok(Arc::new(disk))
        }
        Err(error @ DiskError::Unsupported { .. }) if kind == DiskKind::Auto => {
            info!(%error, "falling back to pwrite");
            open_pwrite(folder, open_files)
        }
        Err(error) => Err(error),
    }
}

#[cfg(not(target_os = "linux"))]
fn open_disk(kind: DiskKind, folder: &Path, open_files: usize) -> Result<Arc<dyn Disk>, DiskError> {
    if kind == DiskKind::Uring {
        let source = Arc::new(std::io::ErrorKind::Unsupported.into());
        let path = folder.display().to_string();
        return Err(DiskError::Unsupported { what: "io_uring", path, source });
    }
    open_pwrite(folder, open_files)
}

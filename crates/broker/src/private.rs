//! What a data directory holds is its owner's alone to read: files are made for their owner alone, and so are folders. Those that are
//! there already are made so at the start, but for what a symbolic link in the data directory leads to.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;

use tracing::{info, warn};

use crate::backend::shard_number;
use crate::strays::is_of_directory;

/// The bits of all users but the owner.
const OTHERS: u32 = 0o077;
/// How deep folders lie in a shard's: more of them are none of ours.
const DEPTH: usize = 4;

/// Makes a folder and those above it where there are none.
///
/// # Errors
/// That of the file system; a link that leads nowhere is named as one, where the file system would say that there is something.
pub(crate) fn make_folder(path: &Path) -> io::Result<()> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|error| leads_nowhere(path).unwrap_or(error))
}

/// What is wrong with a path, or with a folder above it, that is a symbolic link to what is not there.
fn leads_nowhere(path: &Path) -> Option<io::Error> {
    let link = path.ancestors().find(|path| path.is_symlink() && !path.exists())?;
    let target = fs::read_link(link).ok()?;
    let problem =
        format!("{} is a symbolic link to {}, which is not there", link.display(), target.display());
    Some(io::Error::new(io::ErrorKind::NotFound, problem))
}

/// Takes from others what they may do with the lock and the shards. The data directory itself stays as it was created.
pub(crate) fn tighten(data: &Path) {
    let mut done = Tightened::default();
    done.entries(data, DEPTH, |name| is_of_directory(name) || shard_number(name).is_some());
    let data = data.display();
    if done.changed > 0 {
        info!(%data, changed = done.changed, "other users could read files or folders of the data directory; now only their owner can");
    }
    if let Some((path, error)) = done.failed {
        warn!(%data, %path, %error, "other users may read files of the data directory, and that cannot be changed");
    }
}

#[derive(Default)]
struct Tightened {
    changed: usize,
    /// The first that could not be changed.
    failed: Option<(String, io::Error)>,
}

impl Tightened {
    fn entries(&mut self, folder: &Path, depth: usize, wanted: fn(&str) -> bool) {
        let Ok(entries) = fs::read_dir(folder) else { return };
        for entry in entries.flatten().filter(|entry| entry.file_name().to_str().is_some_and(wanted)) {
            self.one(&entry.path(), depth);
        }
    }

    fn one(&mut self, path: &Path, depth: usize) {
        // What a link leads to is none of ours, or its owner has said who may read it; what is gone needs nothing.
        let Ok(found) = fs::symlink_metadata(path) else { return };
        if found.is_symlink() {
            return;
        }
        let mode = found.permissions().mode();
        if mode & OTHERS != 0 {
            match fs::set_permissions(path, Permissions::from_mode(mode & !OTHERS)) {
                Ok(()) => self.changed += 1,
                Err(error) => drop(self.failed.get_or_insert((path.display().to_string(), error))),
            }
        }
        if found.is_dir() && depth > 0 {
            self.entries(path, depth - 1, |_| true);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::tests::rig::{create, open, options};

    /// Every path below a folder with what others may do there.
    fn open_to_others(folder: &Path, found: &mut BTreeMap<String, u32>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let meta = fs::metadata(&path).unwrap();
            found.insert(path.display().to_string(), meta.permissions().mode() & OTHERS);
            if meta.is_dir() {
                open_to_others(&path, found);
            }
        }
    }

    fn loosen(folder: &Path) {
        let mut found = BTreeMap::new();
        open_to_others(folder, &mut found);
        for path in found.keys() {
            let mode = if Path::new(path).is_dir() { 0o2755 } else { 0o644 };
            fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
        }
    }

    fn is_private(folder: &Path) {
        let mut found = BTreeMap::new();
        open_to_others(folder, &mut found);
        assert!(found.len() > 8, "{found:?}");
        assert!(found.values().all(|others| *others == 0), "{found:?}");
    }

    #[test]
    fn a_link_that_leads_nowhere_is_named_as_one() {
        let dir = tempfile::tempdir().unwrap();
        let (link, target) = (dir.path().join("link"), dir.path().join("away"));
        std::os::unix::fs::symlink(&target, &link).unwrap();
        for path in [link.clone(), link.join("data/shard-0")] {
            let error = make_folder(&path).unwrap_err();
            let (link, target) = (link.display(), target.display());
            assert_eq!(
                error.to_string(),
                format!("{link} is a symbolic link to {target}, which is not there")
            );
        }
        fs::create_dir(&target).unwrap();
        make_folder(&link.join("data")).unwrap();
        assert!(target.join("data").is_dir());
        fs::write(dir.path().join("file"), b"").unwrap();
        assert_eq!(make_folder(&dir.path().join("file")).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
    }

    #[tokio::test]
    async fn nobody_else_reads_what_is_kept_whoever_could_before() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("new");
        for _ in 0..2 {
            let broker = open(options(&data));
            is_private(&data);
            broker.shutdown();
            drop(broker);
            is_private(&data);
            loosen(&data);
        }
        assert_eq!(fs::metadata(&data).unwrap().permissions().mode() & OTHERS, 0);
        fs::set_permissions(&data, Permissions::from_mode(0o755)).unwrap();
        fs::write(data.join("shard-0/ours"), b"").unwrap();
        let broker = open(options(&data));
        create(&broker, "t", 1).await;
        broker.shutdown();
        drop(broker);
        is_private(&data);
        assert_eq!(fs::metadata(&data).unwrap().permissions().mode() & OTHERS, 0o055, "its creator's");
    }

    #[tokio::test]
    async fn what_a_link_leads_to_stays_as_it_is() {
        let [dir, away] = std::array::from_fn(|_| tempfile::tempdir().unwrap());
        let (data, others) = (dir.path().join("data"), away.path().join("others"));
        open(options(&data)).shutdown();
        fs::create_dir(&others).unwrap();
        fs::write(others.join("file"), b"").unwrap();
        loosen(away.path());
        let link = |to: &Path, name: &str| std::os::unix::fs::symlink(to, data.join(name)).unwrap();
        link(&others, "shard-0/folder");
        link(&others.join("file"), "shard-1/file");
        link(&others, "shard-9");
        tighten(&data);
        let mut found = BTreeMap::new();
        open_to_others(away.path(), &mut found);
        assert!(found.len() == 2 && found.values().all(|others| *others != 0), "{found:?}");
        // The data directory itself may be one.
        let linked = dir.path().join("linked");
        std::os::unix::fs::symlink(&data, &linked).unwrap();
        fs::set_permissions(data.join("shard-0"), Permissions::from_mode(0o755)).unwrap();
        tighten(&linked);
        assert_eq!(fs::metadata(data.join("shard-0")).unwrap().permissions().mode() & OTHERS, 0);
    }
}

//! What lies in a data directory and is none of its: it is named and left alone. To refuse a start for a file that harms nothing would
//! cost more than it.

use std::fs::{DirEntry, read_dir};
use std::path::Path;

use sabir_journal::is_journal_file;
use tracing::warn;

use crate::backend::{PAGES, shard_number};
use crate::directory;

/// What a file system puts into its root: a shard may have one of its own.
const LOST_FOUND: &str = "lost+found";
/// So many are named.
const NAMED: usize = 10;

/// Whether a file of a data directory is called so that is in no shard.
pub(crate) fn is_of_directory(name: &str) -> bool {
    matches!(name, "lock" | directory::NAME | directory::NAME_NEW)
}

/// Whether what lies in a shard's folder is called so.
pub(crate) fn is_of_shard(name: &str) -> bool {
    matches!(name, "journal" | PAGES | "pages.reserve" | "pages.new")
}

/// Says so in the log.
pub(crate) fn tell(data: &Path, data_shards: u32) {
    let found = find(data, data_shards);
    if !found.is_empty() {
        let (files, more) = (found[..found.len().min(NAMED)].join(", "), found.len().saturating_sub(NAMED));
        warn!(data = %data.display(), %files, more, "these do not belong into a data directory, and are left alone");
    }
}

/// Names, from the data directory on, sorted.
fn find(data: &Path, data_shards: u32) -> Vec<String> {
    let mut found = Vec::new();
    for (name, entry) in entries(data) {
        match shard_number(&name) {
            Some(shard) if shard.0 <= data_shards => in_shard(&name, &entry, &mut found),
            None if is_of_directory(&name) || name == LOST_FOUND => {}
            _ => found.push(name),
        }
    }
    found.sort_unstable();
    found
}

fn in_shard(shard: &str, folder: &DirEntry, found: &mut Vec<String>) {
    for (name, entry) in entries(&folder.path()) {
        match name.as_str() {
            "journal" => in_journal(&format!("{shard}/journal"), &entry, found),
            LOST_FOUND => {}
            name if is_of_shard(name) => {}
            _ => found.push(format!("{shard}/{name}")),
        }
    }
}

fn in_journal(journal: &str, folder: &DirEntry, found: &mut Vec<String>) {
    let foreign = entries(&folder.path()).filter(|(name, _)| !is_journal_file(name) && name != LOST_FOUND);
    found.extend(foreign.map(|(name, _)| format!("{journal}/{name}")));
}

fn entries(folder: &Path) -> impl Iterator<Item = (String, DirEntry)> + use<> {
    let entries = read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| (entry.file_name().to_string_lossy().into_owned(), entry))
}

#[cfg(test)]
mod tests {
    use std::fs::{create_dir_all, write};

    use super::*;

    #[test]
    fn what_does_not_belong_is_found_and_what_does_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path();
        for shard in 0..4 {
            let journal = data.join(format!("shard-{shard}/journal"));
            create_dir_all(&journal).unwrap();
            create_dir_all(data.join(format!("shard-{shard}/{LOST_FOUND}"))).unwrap();
            for ours in ["slots", "slots.new", "segment-000001", "segment-000002.new", "../pages.redb"] {
                write(journal.join(ours), b"").unwrap();
            }
        }
        for ours in ["lock", "identity", "identity.new", "shard-1/pages.reserve", "shard-1/pages.new"] {
            write(data.join(ours), b"").unwrap();
        }
        assert_eq!(find(data, 3), Vec::<String>::new());
        let strays = ["notes.txt", "shard-0/holiday.jpg", "shard-1/journal/segment-1 (copy)", "shard-x"];
        strays.iter().for_each(|stray| write(data.join(stray), b"").unwrap());
        assert_eq!(find(data, 3), strays);
        assert_eq!(find(data, 2)[3], "shard-3");
    }
}

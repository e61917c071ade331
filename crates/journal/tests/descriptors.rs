//! A process without a descriptor left. The limit is the process's: nothing else is tested in this one.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs::File;
use std::path::Path;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
#[cfg(target_os = "linux")]
use sabir_journal::disk::UringDisk;
use sabir_journal::disk::{Disk, DiskError, FileId, PwriteDisk};

/// What the disk holds back.
const SPARE: usize = 2;
const LEN: u64 = 4096;

type OpenDisk = fn(&Path) -> Box<dyn Disk>;

fn open_pwrite(dir: &Path) -> Box<dyn Disk> {
    let disk = PwriteDisk::open(dir).unwrap();
    disk.keep_open(4);
    Box::new(disk)
}

#[cfg(target_os = "linux")]
fn open_uring(dir: &Path) -> Box<dyn Disk> {
    let disk = UringDisk::open(dir).unwrap();
    disk.keep_open(4);
    Box::new(disk)
}

/// All descriptors that the process may still have, as a flood of connections takes them.
fn take_all() -> Vec<File> {
    std::iter::from_fn(|| File::open("/dev/null").ok()).collect()
}

/// A file whose descriptor cannot be given up.
fn create_held(disk: &dyn Disk, name: &str) -> Result<FileId, DiskError> {
    let file = disk.create(name, LEN)?;
    disk.hold(file)?;
    Ok(file)
}

/// What is held back is the disk's alone, as often as it needs it.
fn some_are_held_back(disk: &dyn Disk) {
    for round in 0..3 {
        let others = take_all();
        for i in 0..SPARE {
            create_held(disk, &format!("late-{round}-{i}")).unwrap();
            assert!(File::open("/dev/null").is_err(), "nobody else gets what it has left, round {round}");
        }
        let none = disk.create("one-too-many", LEN);
        assert!(
            matches!(&none, Err(error @ DiskError::NoDescriptors { .. }) if error.is_shortage()),
            "{none:?}"
        );
        drop(others);
        assert!(!disk.list().unwrap().contains(&"one-too-many".to_owned()), "it leaves nothing behind");
        // The next that is opened has it hold some back again.
        create_held(disk, &format!("then-{round}")).unwrap();
    }
}

/// Files that nobody needs just then give theirs up for those that are read.
fn any_number_is_read(disk: &dyn Disk) {
    let files: Vec<FileId> = (0..20).map(|i| disk.create(&format!("f{i}"), LEN).unwrap()).collect();
    let _others = take_all();
    for _ in 0..3 {
        for file in &files {
            disk.read_at(*file, 0, &mut [0; 16]).unwrap();
        }
    }
}

#[test]
fn the_disk_has_some_when_nobody_else_has() {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(200), ..limit }).unwrap();
    let open: &[OpenDisk] = &[
        open_pwrite,
        #[cfg(target_os = "linux")]
        open_uring,
    ];
    for open in open {
        for check in [any_number_is_read, some_are_held_back] {
            let dir = tempfile::tempdir().unwrap();
            check(&*open(dir.path()));
        }
    }
}

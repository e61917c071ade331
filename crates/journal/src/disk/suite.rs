//! The conformance suite of [`Disk`], run by every implementation.

use std::os::fd::BorrowedFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use sabir_base::buf::BufPool;

use super::{Completion, Disk, DiskError, FileId, SECTOR, WriteOp};

const SECTOR_U64: u64 = SECTOR as u64;
const PATIENCE: Duration = Duration::from_secs(20);

/// A disk to be tested.
pub(super) struct Subject {
    /// The disk, with nothing in it.
    pub(super) disk: Arc<dyn Disk>,
    /// Makes the next submitted write to this file fail.
    pub(super) break_file: Box<dyn Fn(FileId)>,
    /// What must outlive the disk.
    pub(super) _keep: Option<tempfile::TempDir>,
}

/// Runs every case on a disk of its own.
pub(super) fn run(subject: impl Fn() -> Subject) {
    let cases: &[fn(&Subject)] = &[
        names_and_lengths,
        a_bad_name_is_refused,
        renaming_and_removing,
        blocking_writes_are_read_back,
        what_does_not_fit_is_refused,
        completions_come_once_each,
        unaligned_memory_is_written_right,
        more_than_a_queue_holds,
        syncs_complete,
        many_threads_submit,
        a_closed_file_is_not_open_but_its_writes_end,
        someone_is_told_of_completions,
        waiting_without_anything_under_way_returns,
        a_failed_disk_stays_failed,
        there_is_free_space,
    ];
    for case in cases {
        let subject = subject();
        case(&subject);
        drain(&*subject.disk);
    }
}

fn data(byte: u8, sectors: usize) -> Bytes {
    let mut buf = BufPool::new(0).get(sectors * SECTOR);
    buf.fill(byte);
    buf.freeze()
}

fn write(token: u64, file: FileId, pos: u64, data: Bytes, sync: bool) -> WriteOp {
    WriteOp { token, file, pos, data, sync }
}

/// Waits for the end of all that was submitted.
fn drain(disk: &dyn Disk) -> Vec<Completion> {
    let mut all = Vec::new();
    while disk.depth() > 0 {
        assert!(disk.wait(PATIENCE), "nothing completed in {PATIENCE:?}");
        disk.reap(&mut all);
    }
    all
}

fn drained_tokens(disk: &dyn Disk) -> Vec<u64> {
    let mut tokens: Vec<u64> = drain(disk)
        .into_iter()
        .map(|c| {
            c.result.unwrap();
            c.token
        })
        .collect();
    tokens.sort_unstable();
    tokens
}

fn read(disk: &dyn Disk, file: FileId, pos: u64, len: usize) -> Vec<u8> {
    let mut buf = vec![0xee; len];
    disk.read_at(file, pos, &mut buf).unwrap();
    buf
}

fn names_and_lengths(s: &Subject) {
    let disk = &*s.disk;
    assert_eq!(disk.list().unwrap(), [""; 0]);
    let b = disk.create("b", 4 * SECTOR_U64).unwrap();
    let a = disk.create("a-1.seg", SECTOR_U64).unwrap();
    assert_ne!(a, b);
    assert_eq!(disk.list().unwrap(), ["a-1.seg", "b"]);
    assert_eq!((disk.len(a).unwrap(), disk.len(b).unwrap()), (SECTOR_U64, 4 * SECTOR_U64));
    assert!(read(disk, b, 0, 4 * SECTOR).iter().all(|&byte| byte == 0), "a new file is zero");

    assert!(matches!(disk.create("b", SECTOR_U64), Err(DiskError::Exists { .. })));
    assert!(matches!(disk.open("c"), Err(DiskError::NotFound { .. })));
    assert!(matches!(disk.create("c", 100), Err(DiskError::Misaligned { .. })));
    assert!(matches!(disk.create("c", 0), Err(DiskError::Misaligned { .. })));
    assert_eq!(disk.list().unwrap(), ["a-1.seg", "b"], "a refused file is not left behind");

    let again = disk.open("b").unwrap();
    assert!(again != a && again != b);
    assert_eq!(disk.len(again).unwrap(), 4 * SECTOR_U64);
    disk.sync_dir().unwrap();
}

fn a_bad_name_is_refused(s: &Subject) {
    for name in ["", ".", "..", "a/b", "/a", "A", "a b", "ä", &"x".repeat(201)] {
        assert!(matches!(s.disk.create(name, SECTOR_U64), Err(DiskError::BadName { .. })), "{name:?}");
        assert!(matches!(s.disk.open(name), Err(DiskError::BadName { .. })), "{name:?}");
    }
    assert_eq!(s.disk.list().unwrap(), [""; 0]);
}

fn renaming_and_removing(s: &Subject) {
    let disk = &*s.disk;
    let file = disk.create("old", SECTOR_U64).unwrap();
    disk.create("other", SECTOR_U64).unwrap();
    disk.write_at(file, 0, &data(3, 1)).unwrap();

    assert!(matches!(disk.rename("old", "other"), Err(DiskError::Exists { .. })));
    assert!(matches!(disk.rename("absent", "new"), Err(DiskError::NotFound { .. })));
    disk.rename("old", "new").unwrap();
    assert_eq!(disk.list().unwrap(), ["new", "other"]);
    assert_eq!(read(disk, file, 0, 2), [3, 3], "an open file goes on under its new name");
    let error = disk.read_at(file, SECTOR_U64, &mut [0]).unwrap_err();
    assert!(error.to_string().contains("new"), "errors name the file as it is called now: {error}");

    disk.remove("new").unwrap();
    assert!(matches!(disk.remove("new"), Err(DiskError::NotFound { .. })));
    assert!(matches!(disk.open("new"), Err(DiskError::NotFound { .. })));
    assert_eq!(read(disk, file, 0, 2), [3, 3], "an open file outlives its name");
    disk.write_at(file, 0, &data(4, 1)).unwrap();
    assert_eq!(read(disk, file, 0, 2), [4, 4]);
    disk.create("new", SECTOR_U64).unwrap();
    assert_eq!(read(disk, file, 0, 2), [4, 4], "a new file of the name is another");
}

fn blocking_writes_are_read_back(s: &Subject) {
    let disk = &*s.disk;
    let file = disk.create("f", 8 * SECTOR_U64).unwrap();
    disk.write_at(file, 2 * SECTOR_U64, &data(7, 3)).unwrap();
    // From memory and at places that direct I/O does not take.
    let unaligned = [vec![0], vec![9; SECTOR]].concat();
    disk.write_at(file, 3 * SECTOR_U64, &unaligned[1..]).unwrap();
    disk.sync(file).unwrap();

    let mut expected = vec![0; 2 * SECTOR];
    expected.extend([7, 9, 7].iter().flat_map(|&b| [b; SECTOR]));
    expected.extend([0; 3 * SECTOR]);
    assert_eq!(read(disk, file, 0, 8 * SECTOR), expected);
    for (from, to) in [(0, 1), (4095, 8193), (8191, 8192), (12_000, 20_481), (32_767, 32_768), (5, 32_760)] {
        assert_eq!(read(disk, file, from, to - from as usize), expected[from as usize..to], "{from}..{to}");
    }
    let other = disk.open("f").unwrap();
    assert_eq!(read(disk, other, 0, 8 * SECTOR), expected, "both numbers are one file");
}

fn what_does_not_fit_is_refused(s: &Subject) {
    let disk = &*s.disk;
    let file = disk.create("f", 2 * SECTOR_U64).unwrap();
    let far = u64::MAX - SECTOR_U64 + 1;
    for pos in [SECTOR_U64, 2 * SECTOR_U64, far] {
        let refused = disk.write_at(file, pos, &data(1, 2));
        assert!(matches!(refused, Err(DiskError::OutOfBounds { .. })), "{pos}: {refused:?}");
        let refused = disk.submit(write(1, file, pos, data(1, 2), true));
        assert!(matches!(refused, Err(DiskError::OutOfBounds { .. })), "{pos}: {refused:?}");
    }
    for (pos, len) in [(1, SECTOR), (512, SECTOR), (0, 1), (0, 512), (0, SECTOR + 1), (0, 0)] {
        let refused = disk.write_at(file, pos, &vec![1; len]);
        assert!(matches!(refused, Err(DiskError::Misaligned { .. })), "{pos} {len}: {refused:?}");
        let refused = disk.submit(write(1, file, pos, vec![1; len].into(), false));
        assert!(matches!(refused, Err(DiskError::Misaligned { .. })), "{pos} {len}: {refused:?}");
    }
    for (pos, len) in [(2 * SECTOR_U64, 1), (0, 2 * SECTOR + 1), (far, SECTOR), (u64::MAX, 2)] {
        let refused = disk.read_at(file, pos, &mut vec![0; len]);
        assert!(matches!(refused, Err(DiskError::OutOfBounds { .. })), "{pos} {len}: {refused:?}");
    }
    assert_eq!(disk.depth(), 0, "what was refused does not complete");
    assert!(read(disk, file, 0, 2 * SECTOR).iter().all(|&b| b == 0), "what was refused changed nothing");
    disk.write_at(file, 0, &data(1, 1)).unwrap();
}

fn completions_come_once_each(s: &Subject) {
    let disk = &*s.disk;
    let file = disk.create("f", 8 * SECTOR_U64).unwrap();
    for i in 0..8u8 {
        let at = u64::from(i) * SECTOR_U64;
        disk.submit(write(100 + u64::from(i), file, at, data(i + 1, 1), i % 2 == 0)).unwrap();
    }
    assert_eq!(drained_tokens(disk), Vec::from_iter(100..108));
    assert_eq!(disk.depth(), 0);
    let mut none = Vec::new();
    disk.reap(&mut none);
    assert!(none.is_empty());
    let expected: Vec<u8> = (1..=8).flat_map(|b| [b; SECTOR]).collect();
    assert_eq!(read(disk, file, 0, 8 * SECTOR), expected);
}

fn unaligned_memory_is_written_right(s: &Subject) {
    let file = s.disk.create("f", 2 * SECTOR_U64).unwrap();
    let bytes = Bytes::from((0..=2 * SECTOR).map(|i| i as u8).collect::<Vec<u8>>());
    s.disk.submit(write(1, file, 0, bytes.slice(1..), true)).unwrap();
    assert_eq!(drained_tokens(&*s.disk), [1]);
    assert_eq!(read(&*s.disk, file, 0, 2 * SECTOR), bytes[1..]);
}

fn more_than_a_queue_holds(s: &Subject) {
    const WRITES: u64 = 700;
    let disk = &*s.disk;
    let file = disk.create("f", WRITES * SECTOR_U64).unwrap();
    for i in 0..WRITES {
        disk.submit(write(i, file, i * SECTOR_U64, data(i as u8, 1), false)).unwrap();
    }
    assert_eq!(drained_tokens(disk), Vec::from_iter(0..WRITES));
    for i in 0..WRITES {
        assert_eq!(read(disk, file, i * SECTOR_U64, 1), [i as u8]);
    }
}

fn syncs_complete(s: &Subject) {
    let disk = &*s.disk;
    let (a, b) = (disk.create("a", SECTOR_U64).unwrap(), disk.create("b", SECTOR_U64).unwrap());
    disk.submit(write(1, a, 0, data(1, 1), false)).unwrap();
    assert_eq!(drained_tokens(disk), [1]);
    disk.submit_sync(2, a).unwrap();
    disk.submit_sync(3, b).unwrap();
    disk.submit_sync(4, a).unwrap();
    assert_eq!(drained_tokens(disk), [2, 3, 4]);
    disk.sync(a).unwrap();
}

fn many_threads_submit(s: &Subject) {
    const EACH: u64 = 60;
    let disk = &s.disk;
    let file = disk.create("f", 4 * EACH * SECTOR_U64).unwrap();
    // The threads end with their writes under way.
    std::thread::scope(|scope| {
        for thread in 0..4 {
            scope.spawn(move || {
                for i in thread * EACH..(thread + 1) * EACH {
                    disk.submit(write(i, file, i * SECTOR_U64, data(i as u8, 1), i % 3 == 0)).unwrap();
                }
            });
        }
    });
    assert_eq!(drained_tokens(&**disk), Vec::from_iter(0..4 * EACH));
    for i in 0..4 * EACH {
        assert_eq!(read(&**disk, file, i * SECTOR_U64, 1), [i as u8]);
    }
}

fn a_closed_file_is_not_open_but_its_writes_end(s: &Subject) {
    let disk = &*s.disk;
    let file = disk.create("f", SECTOR_U64).unwrap();
    disk.submit(write(1, file, 0, data(5, 1), true)).unwrap();
    disk.close(file);
    disk.close(file);
    assert_eq!(drained_tokens(disk), [1]);
    assert!(matches!(disk.len(file), Err(DiskError::NotOpen { .. })));
    assert!(matches!(disk.submit_sync(2, file), Err(DiskError::NotOpen { .. })));
    assert!(matches!(disk.submit(write(3, file, 0, data(1, 1), false)), Err(DiskError::NotOpen { .. })));
    assert!(matches!(disk.write_at(file, 0, &data(1, 1)), Err(DiskError::NotOpen { .. })));
    let again = disk.open("f").unwrap();
    assert_ne!(again, file);
    assert_eq!(read(disk, again, 0, 1), [5]);
}

fn someone_is_told_of_completions(s: &Subject) {
    let disk = &*s.disk;
    let file = disk.create("f", SECTOR_U64).unwrap();
    let woken = Arc::new(AtomicUsize::new(0));
    let count = woken.clone();
    disk.set_waker(Arc::new(move || {
        count.fetch_add(1, Ordering::SeqCst);
    }));
    for round in 1..4 {
        disk.submit(write(round, file, 0, data(1, 1), true)).unwrap();
        if let Some(fd) = disk.event_fd() {
            // SAFETY: the descriptor belongs to the disk, which outlives this borrow.
            let fd = unsafe { BorrowedFd::borrow_raw(fd) };
            let timeout = Timespec { tv_sec: PATIENCE.as_secs() as i64, tv_nsec: 0 };
            assert_eq!(poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&timeout)).unwrap(), 1);
            rustix::io::read(fd, &mut [0; 8]).unwrap();
        } else {
            assert!(disk.wait(PATIENCE));
            let until = std::time::Instant::now() + PATIENCE;
            while woken.load(Ordering::SeqCst) < round as usize {
                assert!(std::time::Instant::now() < until, "the waker was not called");
                std::thread::yield_now();
            }
        }
        let mut reaped = Vec::new();
        disk.reap(&mut reaped);
        assert_eq!(reaped.len(), 1, "there is something to reap when one is told so");
    }
}

fn waiting_without_anything_under_way_returns(s: &Subject) {
    assert!(!s.disk.wait(PATIENCE * 1000));
}

fn a_failed_disk_stays_failed(s: &Subject) {
    let disk = &*s.disk;
    let (good, bad) =
        (disk.create("good", 2 * SECTOR_U64).unwrap(), disk.create("bad", 2 * SECTOR_U64).unwrap());
    disk.write_at(good, 0, &data(1, 1)).unwrap();
    (s.break_file)(bad);
    disk.submit(write(1, bad, 0, data(1, 1), true)).unwrap();
    let ended = drain(disk);
    let [Completion { token: 1, result: Err(first) }] = ended.as_slice() else { panic!("{ended:?}") };
    assert!(first.to_string().contains("bad"), "the error names the file: {first}");

    let refused = [
        disk.submit(write(2, good, 0, data(2, 1), false)),
        disk.submit_sync(3, good),
        disk.write_at(good, 0, &data(2, 1)),
        disk.sync(good),
        disk.sync_dir(),
        disk.create("new", SECTOR_U64).map(drop),
        disk.rename("good", "better"),
        disk.remove("good"),
    ];
    for refused in refused {
        let Err(DiskError::Failed { cause }) = refused else { panic!("{refused:?}") };
        assert_eq!(cause.to_string(), first.to_string());
    }
    assert_eq!(disk.depth(), 0);
    assert_eq!(read(disk, good, 0, 1), [1], "reads go on");
    assert_eq!(disk.list().unwrap(), ["bad", "good"]);
    assert_eq!(disk.len(disk.open("good").unwrap()).unwrap(), 2 * SECTOR_U64);
}

fn there_is_free_space(s: &Subject) {
    assert!(s.disk.free_bytes().unwrap() > SECTOR_U64);
    let huge = s.disk.create("huge", 1 << 50);
    let refused =
        matches!(huge, Err(DiskError::Full { .. } | DiskError::FileTooLarge { .. } | DiskError::Io { .. }));
    assert!(refused, "{huge:?}");
    assert_eq!(s.disk.list().unwrap(), [""; 0]);
    s.disk.create("small", SECTOR_U64).unwrap();
}

/// Descriptors of this process for files below `dir`.
fn descriptors(dir: &Path) -> usize {
    let targets = std::fs::read_dir("/proc/self/fd").unwrap();
    targets
        .filter(|entry| {
            std::fs::read_link(entry.as_ref().unwrap().path())
                .is_ok_and(|to| to.starts_with(dir) && to != dir)
        })
        .count()
}

/// Hundreds of files are written, synced, renamed, removed and read through at most `keep` descriptors, and those that are held.
pub(super) fn few_descriptors(disk: &dyn Disk, dir: &Path, keep: usize) {
    const FILES: u64 = 300;
    let files: Vec<FileId> = (0..FILES).map(|i| disk.create(&format!("f{i}"), 4096).unwrap()).collect();
    let held = files[0];
    disk.hold(held).unwrap();
    for (i, file) in (0..).zip(&files) {
        disk.submit(write(i, *file, 0, data(i as u8, 1), i % 2 == 0)).unwrap();
        drain(disk).into_iter().for_each(|done| done.result.unwrap());
        if i % 2 == 1 {
            disk.submit_sync(i, *file).unwrap();
            drain(disk).into_iter().for_each(|done| done.result.unwrap());
        }
        assert!(descriptors(dir) <= keep + 2, "{} after {i}", descriptors(dir));
    }
    disk.rename("f1", "renamed").unwrap();
    disk.remove("f2").unwrap();
    assert!(disk.open("renamed").is_ok());
    for (i, file) in (0..).zip(&files) {
        assert_eq!(read(disk, *file, 0, 2), [i as u8; 2], "file {i}");
        assert!(descriptors(dir) <= keep + 2, "{} after {i}", descriptors(dir));
    }
    let paths: Vec<_> =
        std::fs::read_dir("/proc/self/fd").unwrap().flatten().map(|e| std::fs::read_link(e.path())).collect();
    assert!(paths.iter().flatten().any(|to| *to == dir.join("f0")), "what is held stays open");
    disk.let_go(held);
    files.iter().for_each(|file| disk.close(*file));
    assert!(descriptors(dir) <= 1, "the second number of what was renamed may have one");
}

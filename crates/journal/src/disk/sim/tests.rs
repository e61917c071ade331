use std::sync::Arc;

use bytes::Bytes;

use super::{Fate, Fault, Injection, Op, SimDisk};
use crate::disk::suite::{self, Subject};
use crate::disk::{Disk, DiskError, FileId, SECTOR, WatchedDisk, WriteOp};

const S: u64 = SECTOR as u64;

fn once(op: Op, fault: Fault) -> Injection {
    Injection { op: Some(op), skip: 0, fault, lasting: false }
}

#[test]
fn conforms() {
    suite::run(|| {
        let disk = SimDisk::new(7);
        let broken = disk.clone();
        let break_file = Box::new(move |_| broken.inject(once(Op::Write, Fault::Io)));
        Subject { disk, break_file, _keep: None }
    });
}

#[test]
fn a_watched_one_conforms() {
    suite::run(|| {
        let disk = SimDisk::new(9);
        let broken = disk.clone();
        let break_file = Box::new(move |_| broken.inject(once(Op::Write, Fault::Io)));
        Subject { disk: WatchedDisk::over(disk), break_file, _keep: None }
    });
}

#[test]
fn conforms_when_everything_completes_by_itself() {
    suite::run(|| {
        let disk = SimDisk::new(8);
        disk.set_auto(true);
        let broken = disk.clone();
        let break_file = Box::new(move |_| broken.inject(once(Op::Write, Fault::Io)));
        Subject { disk, break_file, _keep: None }
    });
}

/// A file that is on the disk for good.
fn with_file(seed: u64, sectors: u64) -> (Arc<SimDisk>, FileId) {
    let disk = SimDisk::new(seed);
    let file = disk.create("f", sectors * S).unwrap();
    disk.sync(file).unwrap();
    disk.sync_dir().unwrap();
    (disk, file)
}

fn submit(disk: &SimDisk, token: u64, file: FileId, sector: u64, byte: u8, sync: bool) {
    let data = Bytes::from(vec![byte; SECTOR]);
    disk.submit(WriteOp { token, file, pos: sector * S, data, sync }).unwrap();
}

fn content(disk: &SimDisk) -> Vec<u8> {
    let file = disk.open("f").unwrap();
    let mut all = vec![0; disk.len(file).unwrap() as usize];
    disk.read_at(file, 0, &mut all).unwrap();
    all
}

fn first_bytes(disk: &SimDisk) -> Vec<u8> {
    content(disk).chunks(SECTOR).map(|sector| sector[0]).collect()
}

fn tokens(disk: &SimDisk) -> Vec<u64> {
    let mut out = Vec::new();
    disk.reap(&mut out);
    out.into_iter().map(|c| c.token).collect()
}

#[test]
fn nothing_completes_without_a_step_and_the_seed_picks_the_order() {
    let order = |seed| {
        let (disk, file) = with_file(seed, 8);
        (0..8).for_each(|i| submit(&disk, i, file, i, 1, false));
        assert!(tokens(&disk).is_empty());
        assert_eq!(first_bytes(&disk), [0; 8]);
        assert!(disk.step());
        assert_eq!(content(&disk).iter().filter(|&&b| b == 1).count(), SECTOR);
        assert_eq!(disk.run(), 7);
        assert!(!disk.step());
        tokens(&disk)
    };
    assert_eq!(order(1), order(1), "equal seeds give equal orders");
    assert!((2..10).any(|seed| order(seed) != order(1)));
    assert!((2..10).any(|seed| !order(seed).is_sorted()));
}

#[test]
fn a_sync_write_makes_its_own_bytes_durable_and_no_others() {
    let (disk, file) = with_file(1, 3);
    submit(&disk, 1, file, 0, 1, false);
    disk.run();
    submit(&disk, 2, file, 1, 2, true);
    disk.run();
    submit(&disk, 3, file, 2, 3, true);
    let point = disk.power_off();
    assert_eq!(first_bytes(&point.survive_all(Fate::Lost)), [0, 2, 0]);
    assert_eq!(first_bytes(&point.survive_all(Fate::Kept)), [1, 2, 3]);
    assert!(disk.list().is_err() && disk.create("g", S).is_err() && !disk.step(), "it has no power");
}

#[test]
fn a_sync_covers_what_had_completed_when_it_was_submitted() {
    let (disk, file) = with_file(3, 3);
    submit(&disk, 1, file, 0, 1, false);
    disk.run();
    disk.submit_sync(9, file).unwrap();
    disk.stall(Op::Sync);
    submit(&disk, 2, file, 1, 2, false);
    assert_eq!(disk.run(), 1, "a stalled sync holds up no write");
    assert_eq!(tokens(&disk), [1, 2]);
    assert_eq!(first_bytes(&disk.crash_point().survive_all(Fate::Lost)), [0, 0, 0]);
    disk.resume();
    assert_eq!(disk.run(), 1);
    assert_eq!(first_bytes(&disk.crash_point().survive_all(Fate::Lost)), [1, 0, 0]);
    disk.sync(file).unwrap();
    assert_eq!(first_bytes(&disk.crash_point().survive_all(Fate::Lost)), [1, 2, 0]);
}

#[test]
fn an_older_unsynced_write_never_comes_back_over_a_durable_one() {
    let (disk, file) = with_file(1, 3);
    disk.write_at(file, 0, &[1; 3 * SECTOR]).unwrap();
    submit(&disk, 1, file, 1, 2, true);
    disk.run();
    let point = disk.crash_point();
    for fates in point.subsets(100).into_iter().chain(point.tears(1024)) {
        let found = first_bytes(&point.survive(&fates));
        assert_eq!(found[1], 2, "{fates:?}");
    }
    assert_eq!(first_bytes(&point.survive_all(Fate::Kept)), [1, 2, 1]);
}

#[test]
fn names_and_lengths_are_lost_until_they_are_synced() {
    let disk = SimDisk::new(1);
    let file = disk.create("a", S).unwrap();
    submit(&disk, 1, file, 0, 1, true);
    disk.run();
    let point = disk.crash_point();
    assert_eq!(
        point.survive_all(Fate::Lost).list().unwrap(),
        [""; 0],
        "its content is durable, its name is not"
    );
    assert_eq!(point.survive_all(Fate::Kept).list().unwrap(), ["a"]);

    disk.create("b", S).unwrap();
    disk.sync_dir().unwrap();
    let found = disk.crash_point().survive_all(Fate::Lost);
    assert_eq!(found.list().unwrap(), ["a", "b"]);
    assert_eq!(found.len(found.open("a").unwrap()).unwrap(), S);
    assert_eq!(found.len(found.open("b").unwrap()).unwrap(), 0, "the length of b was never synced");

    disk.rename("a", "c").unwrap();
    disk.remove("b").unwrap();
    disk.create("b", S).unwrap();
    let point = disk.crash_point();
    let found = |fates: &[Fate]| point.survive(fates).list().unwrap();
    let (kept, lost) = (Fate::Kept, Fate::Lost);
    assert_eq!(found(&[lost, lost, lost]), ["a", "b"]);
    assert_eq!(found(&[kept, lost, lost]), ["b", "c"]);
    assert_eq!(found(&[lost, kept, lost]), ["a"]);
    assert_eq!(found(&[lost, lost, kept]), ["a", "b"], "the new b needs the removal of the old");
    disk.sync_dir().unwrap();
    assert_eq!(disk.crash_point().survive_all(lost).list().unwrap(), ["b", "c"]);
}

#[test]
fn a_crash_leaves_every_kind_of_tear_and_equal_seeds_leave_the_same() {
    let torn = |seed| {
        let (disk, file) = with_file(seed, 1);
        submit(&disk, 1, file, 0, 1, false);
        content(&disk.crash())
    };
    assert_eq!(torn(5), torn(5));
    let all: Vec<Vec<u8>> = (0..60).map(torn).collect();
    let kinds = |is: &dyn Fn(&[u8]) -> bool| all.iter().filter(|c| is(c)).count();
    assert!(kinds(&|c| c.iter().all(|&b| b == 0)) > 0, "lost");
    assert!(kinds(&|c| c.iter().all(|&b| b == 1)) > 0, "kept");
    assert!(kinds(&|c| c[0] == 1 && c[SECTOR - 1] == 0) > 0, "its beginning");
    assert!(kinds(&|c| c[0] == 0 && c[SECTOR - 1] == 1) > 0, "its end");
    let atoms = |c: &[u8]| c.chunks(512).all(|atom| atom.iter().all(|&b| b == atom[0]));
    assert_eq!(kinds(&atoms), all.len(), "never inside 512 bytes");
}

#[test]
fn tears_at_every_byte_if_told_so() {
    let (disk, file) = with_file(1, 1);
    disk.set_atom(1);
    submit(&disk, 1, file, 0, 1, false);
    let point = disk.crash_point();
    let found: Vec<usize> = point
        .tears(1)
        .iter()
        .map(|fates| content(&point.survive(fates)).iter().filter(|&&b| b == 1).count())
        .collect();
    assert_eq!(found.len(), 2 * SECTOR);
    assert!((0..=SECTOR).all(|n| found.contains(&n)));
}

#[test]
fn a_recording_gives_every_moment_and_every_subset() {
    let (disk, file) = with_file(1, 3);
    disk.record();
    submit(&disk, 1, file, 0, 1, false);
    submit(&disk, 2, file, 1, 2, false);
    submit(&disk, 3, file, 2, 3, false);
    disk.run();
    disk.sync(file).unwrap();
    let points = disk.recorded();
    assert_eq!(points.len(), 1 + 3 + 3 + 1);
    let unsynced: Vec<usize> = points.iter().map(|p| p.unsynced().len()).collect();
    assert_eq!(unsynced, [0, 1, 2, 3, 3, 3, 3, 0]);
    let subsets = points[6].subsets(8);
    let mut found: Vec<Vec<u8>> = subsets.iter().map(|s| first_bytes(&points[6].survive(s))).collect();
    found.sort();
    assert_eq!(found.len(), 8);
    found.dedup();
    assert_eq!(found.len(), 8, "every subset is another disk");
    assert_eq!(points[6].subsets(7).len(), 7);
    assert_eq!(first_bytes(&points[7].survive_all(Fate::Lost)), [1, 2, 3]);
    assert!(disk.recorded().is_empty());
}

#[test]
fn faults_come_when_they_are_told_to() {
    let (disk, file) = with_file(1, 1);
    let sector = [1; SECTOR];
    disk.inject(Injection { op: Some(Op::Write), skip: 1, fault: Fault::Full, lasting: false });
    disk.inject(once(Op::Create, Fault::Full));
    disk.write_at(file, 0, &sector).unwrap();
    assert!(matches!(disk.write_at(file, 0, &sector), Err(DiskError::Full { .. })));
    disk.write_at(file, 0, &sector).unwrap();
    assert!(matches!(disk.create("g", S), Err(DiskError::Full { .. })));
    disk.create("g", S).unwrap();

    disk.inject(once(Op::Write, Fault::Short));
    let short = disk.write_at(file, 0, &sector);
    assert!(matches!(short, Err(DiskError::ShortWrite { len: 4096, done: 0..4096, .. })), "{short:?}");
    disk.inject(once(Op::Read, Fault::Io));
    assert!(matches!(disk.read_at(file, 0, &mut [0]), Err(DiskError::Io { .. })));
    disk.read_at(file, 0, &mut [0]).unwrap();

    let before = disk.operations();
    disk.inject(Injection { op: None, skip: 2, fault: Fault::Io, lasting: true });
    disk.write_at(file, 0, &sector).unwrap();
    disk.write_at(file, 0, &sector).unwrap();
    assert!(disk.write_at(file, 0, &sector).is_err());
    assert!(disk.write_at(file, 0, &sector).is_err());
    assert_eq!(disk.operations() - before, 4);
}

#[test]
fn a_failed_sync_promises_nothing_and_ends_all_writing() {
    let (disk, file) = with_file(1, 1);
    submit(&disk, 1, file, 0, 1, false);
    disk.run();
    disk.inject(once(Op::Sync, Fault::Io));
    assert!(matches!(disk.sync(file), Err(DiskError::Io { .. })));
    assert!(matches!(disk.sync(file), Err(DiskError::Failed { .. })), "never retried into a success");
    assert_eq!(first_bytes(&disk.crash_point().survive_all(Fate::Lost)), [0]);
}

#[test]
fn space_runs_out_and_comes_back() {
    let (disk, file) = with_file(1, 2);
    disk.set_capacity(4 * S);
    assert_eq!(disk.free_bytes().unwrap(), 2 * S);
    assert!(matches!(disk.create("g", 3 * S), Err(DiskError::Full { .. })));
    disk.create("g", 2 * S).unwrap();
    assert_eq!(disk.free_bytes().unwrap(), 0);
    disk.write_at(file, 0, &[1; SECTOR]).unwrap();
    disk.remove("f").unwrap();
    assert_eq!(disk.free_bytes().unwrap(), 0, "an open file keeps its space");
    disk.close(file);
    assert_eq!(disk.free_bytes().unwrap(), 2 * S);
}

#[test]
fn a_bit_flips_for_good() {
    let (disk, file) = with_file(1, 1);
    disk.write_at(file, 0, &[1; SECTOR]).unwrap();
    disk.sync(file).unwrap();
    disk.flip_bit("f", 4000, 3);
    assert_eq!(content(&disk)[4000], 1 ^ 8);
    assert_eq!(content(&disk.crash())[4000], 1 ^ 8);
}

#[test]
fn the_disk_after_a_crash_knows_no_file_opened_before() {
    let (disk, file) = with_file(1, 1);
    let found = disk.crash();
    assert!(matches!(found.len(file), Err(DiskError::NotOpen { .. })));
    assert_ne!(found.open("f").unwrap(), file);
}

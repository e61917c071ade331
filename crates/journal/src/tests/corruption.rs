//! Flipped bits: what a later frame covers is reported with its place, never cut off; nothing else is reported.

use std::sync::Arc;

use sabir_model::{Durability, Sequence};

use super::rig::{Rig, places};
use crate::JournalError;
use crate::disk::Disk;
use crate::disk::sim::{Fate, SimDisk};

/// The same disk, that can be broken without harm to the first.
fn copy(disk: &SimDisk) -> Arc<SimDisk> {
    disk.crash_point().survive_all(Fate::Kept)
}

/// Blocks over several segments, sealed now and then; all of it durable.
fn written(seed: u64) -> Rig {
    let mut rig = Rig::new(seed);
    for id in 1..=20 {
        rig.append(id, [100, 5000, 20, 9000][id as usize % 4], Durability::Sync).unwrap();
        rig.settle();
        if id % 5 == 0 {
            rig.seal();
        }
    }
    rig
}

fn expect_corrupt(disk: Arc<SimDisk>, file: &str, position: u64, sequence: u64, what: &str) {
    let before = disk.operations();
    match Rig::over(disk.clone(), None).map(|rig| rig.recovered) {
        Err(JournalError::Corrupt { file: f, position: p, sequence: s, reason }) => {
            assert_eq!((f.as_str(), p, s), (file, position, Sequence(sequence)), "{what}: {reason}");
        }
        other => panic!("{what}: {other:?}"),
    }
    assert_eq!(disk.operations(), before, "{what}: nothing was written");
}

#[test]
fn a_flipped_bit_in_any_covered_frame_is_reported_with_its_place() {
    let rig = written(1);
    for (sequence, file, position) in places(&rig.journal) {
        let header = (0..64).map(|byte| (byte, byte as u8 % 8));
        let content = [64, 72, 96, 100].map(|byte| (byte, 3));
        for (byte, bit) in header.chain(content) {
            let disk = copy(&rig.disk);
            disk.flip_bit(&file, position + byte, bit);
            let what = format!("block {sequence}, byte {byte}, bit {bit}");
            expect_corrupt(disk, &file, position, sequence, &what);
        }
    }
}

/// No seal helps here: each block's frame says what was durable when it was submitted.
#[test]
fn each_block_covers_those_before_it() {
    let mut rig = Rig::new(12);
    for id in 1..=16 {
        rig.append(id, [100, 5000][id as usize % 2], Durability::Sync).unwrap();
        rig.settle();
    }
    let places = places(&rig.journal);
    let (last, covered) = places.split_last().unwrap();
    for (sequence, file, position) in covered {
        let disk = copy(&rig.disk);
        disk.flip_bit(file, position + 33, 0);
        expect_corrupt(disk, file, *position, *sequence, "a covered block");
    }
    let disk = copy(&rig.disk);
    disk.flip_bit(&last.1, last.2 + 33, 0);
    assert_eq!(Rig::over(disk, None).unwrap().all().len(), 15, "nothing covers the last one");
}

#[test]
fn a_flipped_seal_is_reported_when_a_block_follows_it() {
    let mut rig = Rig::new(2);
    rig.append_all(1..=2);
    rig.seal();
    let seal = 3 * 4096;
    rig.append_all(3..=3);
    rig.settle();
    let disk = copy(&rig.disk);
    disk.flip_bit("segment-000001", seal + 20, 1);
    expect_corrupt(disk, "segment-000001", seal, 3, "a seal");
}

#[test]
fn a_flipped_last_seal_costs_nothing() {
    let mut rig = Rig::new(3);
    rig.append_all(1..=2);
    rig.seal();
    for byte in 0..64 {
        let disk = copy(&rig.disk);
        disk.flip_bit("segment-000001", 3 * 4096 + byte, 2);
        assert_eq!(Rig::over(disk, None).unwrap().all(), [1, 2], "byte {byte}");
    }
}

#[test]
fn the_last_block_of_a_clean_journal_is_covered_by_its_seal() {
    let mut rig = Rig::new(4);
    rig.append_all(1..=9);
    rig.journal.shutdown().unwrap();
    let (sequence, file, position) = places(&rig.journal).pop().unwrap();
    let disk = copy(&rig.disk);
    disk.flip_bit(&file, position + 70, 0);
    expect_corrupt(disk, &file, position, sequence, "the last block");
    // And the slot says so, if the seal goes too.
    let disk = copy(&rig.disk);
    disk.flip_bit(&file, position + 70, 0);
    disk.flip_bit(&file, position + 4096 + 10, 0);
    expect_corrupt(disk, &file, position, sequence, "the last block and its seal");
}

#[test]
fn a_first_block_of_a_segment_is_placed_there() {
    let mut rig = Rig::new(5);
    // Leaves one step free at the end of the first segment, which the next block does not fit into.
    rig.append_all(1..=6);
    rig.append(7, 5000, Durability::Sync).unwrap();
    rig.seal();
    assert_eq!(places(&rig.journal)[6], (7, "segment-000002".to_owned(), 4096));
    for byte in 0..64 {
        let disk = copy(&rig.disk);
        disk.flip_bit("segment-000002", 4096 + byte, 4);
        expect_corrupt(disk, "segment-000002", 4096, 7, &format!("byte {byte}"));
    }
}

#[test]
fn a_bad_segment_header_is_never_a_silent_end() {
    let rig = written(6);
    let files: Vec<String> =
        rig.disk.list().unwrap().into_iter().filter(|name| name.starts_with("segment")).collect();
    assert!(files.len() > 3);
    for file in &files {
        for byte in [0, 4, 9, 17, 25, 4093] {
            let disk = copy(&rig.disk);
            disk.flip_bit(file, byte, 5);
            let error = Rig::over(disk, None).map(|rig| rig.recovered).unwrap_err();
            assert!(
                matches!(&error, JournalError::Gap { .. } | JournalError::Corrupt { .. }),
                "{file}, byte {byte}: {error}"
            );
            assert!(error.to_string().contains(file.as_str()), "{error}");
        }
    }
}

#[test]
fn a_missing_segment_is_a_gap() {
    let rig = written(7);
    let disk = copy(&rig.disk);
    disk.remove("segment-000003").unwrap();
    let error = Rig::over(disk, None).map(|rig| rig.recovered).unwrap_err();
    assert!(matches!(error, JournalError::Gap { missing, .. } if missing == crate::SegmentNo(3)), "{error}");
    assert!(error.to_string().contains("there is no file segment-000003"), "{error}");
    let disk = copy(&rig.disk);
    disk.remove("segment-000001").unwrap();
    let error = Rig::over(disk, None).map(|rig| rig.recovered).unwrap_err();
    assert!(matches!(error, JournalError::Gap { missing, .. } if missing.0 == 1), "{error}");
    assert!(error.to_string().contains("there is no file segment-000001"), "{error}");
    let disk = copy(&rig.disk);
    let last = disk.list().unwrap().into_iter().filter(|name| name.starts_with("segment-")).max().unwrap();
    disk.remove(&last).unwrap();
    let error = Rig::over(disk, None).map(|rig| rig.recovered).unwrap_err();
    assert!(matches!(error, JournalError::Gap { .. }), "{error}");
    assert!(error.to_string().contains(&format!("there is no file {last}")), "{error}");
}

#[test]
fn slots_survive_one_bad_copy_and_say_so_for_two() {
    let rig = written(8);
    for copies in [vec![0], vec![4096]] {
        let disk = copy(&rig.disk);
        copies.iter().for_each(|at| disk.flip_bit("slots", at + 30, 1));
        assert_eq!(Rig::over(disk, None).unwrap().all().len(), 20);
    }
    let disk = copy(&rig.disk);
    [0, 4096].iter().for_each(|at| disk.flip_bit("slots", at + 30, 1));
    let error = Rig::over(disk, None).map(|rig| rig.recovered).unwrap_err();
    assert!(matches!(error, JournalError::Slots { .. }), "{error}");
    let disk = copy(&rig.disk);
    disk.remove("slots").unwrap();
    let error = Rig::over(disk, None).map(|rig| rig.recovered).unwrap_err();
    assert!(matches!(error, JournalError::Slots { .. }), "{error}");
}

#[test]
fn a_segment_of_another_journal_is_not_taken() {
    let (mut one, mut other) = (Rig::new(9), Rig::with_seed(9, 77));
    one.append_all(1..=3);
    other.append_all(1..=3);
    one.seal();
    other.seal();
    let disk = copy(&one.disk);
    let mut page = vec![0; 4096];
    let theirs = other.disk.open("segment-000001").unwrap();
    let ours = disk.open("segment-000001").unwrap();
    other.disk.read_at(theirs, 0, &mut page).unwrap();
    disk.write_at(ours, 0, &page).unwrap();
    let error = Rig::over(disk, None).map(|rig| rig.recovered).unwrap_err();
    assert!(error.to_string().contains("another journal"), "{error}");
}

#[test]
fn a_block_that_goes_bad_later_is_found_by_the_replay() {
    let rig = written(10);
    let (sequence, file, position) = places(&rig.journal)[7].clone();
    rig.disk.flip_bit(&file, position + 66, 0);
    let mut seen = 0;
    let replay = rig.journal.replay::<JournalError>(Sequence::NONE, &mut |_| {
        seen += 1;
        Ok(())
    });
    match replay {
        Err(JournalError::Corrupt { file: f, position: p, sequence: s, .. }) => {
            assert_eq!((f, p, s), (file, position, Sequence(sequence)));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(seen, 7);
}

#[test]
fn a_checkpoints_block_must_be_good() {
    let mut rig = written(11);
    let tables = rig.checkpoint();
    rig.append_all(21..=23);
    rig.settle();
    let (_, file, position) = places(&rig.journal)[19].clone();
    let disk = copy(&rig.disk);
    let found = Rig::over(disk.clone(), Some(tables.clone())).unwrap();
    assert_eq!(found.replayed(tables.through), [21, 22, 23]);
    let disk = copy(&rig.disk);
    disk.flip_bit(&file, position + 65, 0);
    match Rig::over(disk, Some(tables)).map(|rig| rig.recovered) {
        Err(JournalError::Corrupt { file: f, position: p, sequence, .. }) => {
            assert_eq!((f, p, sequence), (file, position, Sequence(20)));
        }
        other => panic!("{other:?}"),
    }
}

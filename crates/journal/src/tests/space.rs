//! Segments: made ahead, recycled, kept in reserve, and what the slot says of them.

use std::sync::Arc;

use sabir_model::{Durability, Sequence};

use super::rig::{Rig, SEGMENT, open, options};
use crate::disk::Disk;
use crate::disk::sim::{Fate, Fault, Injection, Op, SimDisk};
use crate::slots::Slots;
use crate::{BlockAppendError, JournalOptions, LocalTables, Prepared, Priority, Replicator, SegmentNo};

fn segment_files(disk: &SimDisk) -> usize {
    disk.list().unwrap().iter().filter(|name| name.starts_with("segment")).count()
}

/// Releases all closed segments before the last checkpointed block, and checkpoints.
fn release_all(rig: &mut Rig) -> LocalTables {
    let dead: Vec<SegmentNo> =
        rig.journal.segments().iter().filter(|segment| segment.closed).map(|segment| segment.no).collect();
    rig.checkpoint_without(&dead)
}

#[test]
fn prepares_ahead_and_then_leaves_the_disk_alone() {
    let mut rig = Rig::new(1);
    assert_eq!(rig.journal.prepare().unwrap(), Prepared::Full);
    assert_eq!(segment_files(&rig.disk), 4, "the one in use, the next, and two in reserve");
    let operations = rig.disk.operations();
    assert_eq!(rig.journal.prepare().unwrap(), Prepared::Full);
    assert_eq!(rig.disk.operations(), operations);
    rig.append_all(1..=1);
    rig.settle();
    rig.journal.prepare().unwrap();
    assert!(rig.disk.operations() > operations, "the next one is zeroed once this one is in use");
}

#[test]
fn the_next_segment_is_zeroed_in_step_with_the_writer_who_may_come_early() {
    let mut rig = Rig::new(1);
    rig.journal.prepare().unwrap();
    let mut ids = 1..200;
    let mut append = |rig: &mut Rig| {
        rig.append(ids.next().expect("a segment is soon full"), 500, Durability::Sync).unwrap();
        rig.settle();
    };
    while rig.journal.prepare().unwrap() != Prepared::Zeroing {
        append(&mut rig);
    }
    assert_eq!(rig.journal.prepare().unwrap(), Prepared::Full, "it is as far as the writer wants it");
    let files = segment_files(&rig.disk);
    while rig.journal.segments().len() < 2 {
        append(&mut rig);
    }
    assert_eq!(segment_files(&rig.disk), files, "the one that was zeroed in part is used");
}

/// How much the slot would say is durable after a power cut.
fn noted(disk: &SimDisk) -> Sequence {
    let disk: Arc<dyn Disk> = disk.crash_point().survive_all(Fate::Lost);
    Slots::open(&disk, &disk.list().unwrap(), 0).unwrap().get().committed
}

#[test]
fn the_slot_says_how_much_is_durable_whenever_a_segment_was_made_ready() {
    let mut rig = Rig::new(1);
    for id in 1..=40 {
        rig.append_all(id..=id);
        rig.settle();
        let made = |rig: &Rig| rig.journal.slots.lock().get().segment;
        let before = made(&rig);
        rig.journal.prepare().unwrap();
        if made(&rig) > before {
            assert_eq!(noted(&rig.disk), Sequence(id));
        }
    }
    assert!(noted(&rig.disk) > Sequence(20), "{}", noted(&rig.disk));
}

#[test]
fn the_slot_says_how_much_is_durable_after_each_checkpoint() {
    let mut rig = Rig::new(1);
    for id in 1..=5 {
        rig.append_all(id..=id);
        rig.settle();
        assert_eq!(noted(&rig.disk), Sequence(id - 1));
        rig.checkpoint();
        assert_eq!(noted(&rig.disk), Sequence(id));
    }
}

#[test]
fn dead_segments_are_used_again_and_their_old_blocks_never_come_back() {
    let mut rig = Rig::new(2);
    let mut next = 1;
    let mut tables = None;
    for round in 0..12 {
        rig.append_all(next..next + 20);
        next += 20;
        rig.settle();
        let last = release_all(&mut rig);
        rig.journal.prepare().unwrap();
        assert!(segment_files(&rig.disk) <= 12, "{}", segment_files(&rig.disk));
        let through = last.through;
        tables = Some(last);
        // Crash with something behind the checkpoint, over old frames.
        rig.append_all(next..next + 3);
        next += 3;
        rig.settle();
        rig.append_all(next..next + 2);
        let disk = rig.disk.crash();
        rig = Rig::over(disk, tables.clone()).unwrap();
        let found = rig.replayed(through);
        assert!(found.len() >= 3, "round {round}: {found:?}");
        let first = next - 3;
        assert_eq!(found, (first..first + found.len() as u64).collect::<Vec<_>>(), "round {round}");
        next = first + found.len() as u64;
    }
    assert!(tables.unwrap().segments.len() <= 4);
}

#[test]
fn a_dead_segment_waits_for_the_checkpoint_that_leaves_it_out_however_often_one_fails() {
    let mut rig = Rig::new(3);
    rig.append_all(1..=30);
    rig.settle();
    rig.journal.flush(Sequence(30)).unwrap();
    let before = rig.journal.tables(Sequence(30), &[]);
    rig.journal.checkpoint_committed();
    let dead = [SegmentNo(1), SegmentNo(2)];
    for _ in 0..3 {
        // This one is never committed.
        assert_eq!(rig.journal.tables(Sequence(30), &dead).segments.len() + 2, before.segments.len());
        assert_eq!(rig.journal.segments()[0].no, SegmentNo(1), "nothing is let go of yet");
    }
    rig.append_all(31..=60);
    rig.settle();
    for id in 61..=120 {
        rig.append_all(id..=id);
        rig.settle();
        rig.journal.prepare().unwrap();
    }
    // The last checkpoint still lists them, so they must be as they were.
    let found = Rig::over(rig.disk.crash_point().survive_all(Fate::Lost), Some(before)).unwrap();
    assert_eq!(found.replayed(Sequence(0)).len(), 120);
}

#[test]
fn the_segment_of_the_checkpoints_block_and_the_open_one_stay() {
    let mut rig = Rig::new(4);
    rig.append_all(1..=10);
    rig.settle();
    let all: Vec<SegmentNo> = rig.journal.segments().iter().map(|segment| segment.no).collect();
    let tables = rig.journal.tables(Sequence(5), &all);
    assert_eq!((tables.through, tables.segments.len()), (Sequence(5), 1), "the checkpoint's");
    let tables = rig.journal.tables(Sequence(10), &all);
    assert_eq!(tables.segments.len(), 1, "the open one");
    rig.journal.checkpoint_committed();
    assert_eq!(rig.journal.segments().len(), 1, "the open one");
}

#[test]
fn a_crash_at_any_moment_of_recycling() {
    let mut rig = Rig::new(5);
    rig.append_all(1..=30);
    rig.settle();
    rig.journal.prepare().unwrap();
    let dead: Vec<SegmentNo> =
        rig.journal.segments().iter().filter(|segment| segment.closed).map(|segment| segment.no).collect();
    rig.journal.flush(Sequence(30)).unwrap();
    let tables = rig.journal.tables(Sequence(30), &dead);
    rig.disk.record();
    rig.journal.checkpoint_committed();
    let mut finals = Vec::new();
    for id in 31..=60 {
        rig.append_all(id..=id);
        rig.settle();
        finals.push((id, rig.disk.operations()));
        rig.journal.prepare().unwrap();
    }
    for point in rig.disk.recorded() {
        for fates in point.subsets(8).into_iter().chain([point.fates_of(3)]) {
            let found =
                Rig::over(point.survive(&fates), Some(tables.clone())).unwrap().replayed(Sequence(30));
            let kept = finals.iter().filter(|(_, at)| *at <= point.operations()).count();
            assert!(found.len() >= kept, "{found:?} of {kept}");
            assert_eq!(found, (31..31 + found.len() as u64).collect::<Vec<_>>());
        }
    }
}

#[test]
fn a_full_disk_refuses_ordinary_entries_and_keeps_two_segments_for_others() {
    let disk = SimDisk::new(6);
    disk.set_capacity(8192 + 8 * SEGMENT);
    let mut rig = Rig::over(disk, None).unwrap();
    let mut id = 0;
    while rig.solo.admits(Priority::Ordinary) {
        id += 1;
        rig.append_all(id..=id);
        rig.settle();
        rig.journal.prepare().unwrap();
        assert!(id < 100, "it is full at some time");
    }
    let ordinary = id;
    assert!(rig.solo.admits(Priority::Reserve));
    loop {
        id += 1;
        match rig.append(id, 100, Durability::Sync) {
            Ok(_) => rig.settle(),
            Err(BlockAppendError::Full(_)) => break,
            Err(error) => panic!("{error}"),
        }
    }
    assert!(id - ordinary > 14, "two segments of seven: {}", id - ordinary);
    assert!(rig.journal.stopped().is_none(), "a full disk is no failure");
    assert_eq!(rig.all().len() as u64, id - 1);

    // What makes space opens it again.
    release_all(&mut rig);
    rig.journal.prepare().unwrap();
    assert!(rig.solo.admits(Priority::Ordinary));
    rig.append_all(id..=id);
    rig.settle();
    assert_eq!(rig.replayed(Sequence(id - 1)), [id]);
}

#[test]
fn a_segment_of_the_reserve_but_not_the_last_goes_for_what_frees_others() {
    let disk = SimDisk::new(9);
    disk.set_capacity(8192 + 8 * SEGMENT);
    let mut rig = Rig::over(disk, None).unwrap();
    let mut id = 0;
    while rig.solo.admits(Priority::Ordinary) {
        id += 1;
        rig.append_all(id..=id);
        rig.settle();
        rig.journal.prepare().unwrap();
    }
    let before = segment_files(&rig.disk);
    assert!(!rig.journal.give_back_segment().unwrap(), "what is left is the reserve");
    assert!(rig.journal.give_back_reserved_segment().unwrap());
    assert!(
        !rig.journal.give_back_reserved_segment().unwrap(),
        "with the last one entries that make space go on"
    );
    assert_eq!(segment_files(&rig.disk), before - 1);
    assert!(rig.solo.admits(Priority::Reserve));
    for _ in 0..5 {
        id += 1;
        rig.append(id, 100, Durability::Sync).unwrap();
        rig.settle();
    }
    assert_eq!(rig.all().len() as u64, id);
    release_all(&mut rig);
    rig.journal.prepare().unwrap();
    assert!(rig.solo.admits(Priority::Ordinary));
    rig.append_all(id + 1..=id + 1);
    rig.settle();
    assert_eq!(rig.replayed(Sequence(id)), [id + 1]);
}

#[test]
fn a_process_without_descriptors_is_like_a_full_disk_and_goes_on_once_it_has_some() {
    let mut rig = Rig::new(8);
    rig.append_all(1..=1);
    rig.settle();
    rig.journal.prepare().unwrap();
    let lack = Fault::NoDescriptors;
    rig.disk.inject(Injection { op: Some(Op::Create), skip: 0, fault: lack, lasting: true });
    let mut id = 1;
    while rig.solo.admits(Priority::Ordinary) {
        id += 1;
        rig.append_all(id..=id);
        rig.settle();
        rig.journal.prepare().unwrap();
        assert!(id < 100, "there is no room at some time");
    }
    assert_eq!(rig.journal.prepare().unwrap(), Prepared::Short);
    assert!(rig.solo.admits(Priority::Reserve));
    loop {
        id += 1;
        match rig.append(id, 100, Durability::Sync) {
            Ok(_) => rig.settle(),
            Err(BlockAppendError::Full(_)) => break,
            Err(error) => panic!("{error}"),
        }
        assert!(id < 200, "the reserve ends at some time");
    }
    assert!(rig.journal.stopped().is_none(), "it is no failure");
    rig.disk.end_faults();
    assert_eq!(rig.journal.prepare().unwrap(), Prepared::Full);
    assert!(rig.solo.admits(Priority::Ordinary));
    rig.append_all(id..=id);
    rig.settle();
    assert_eq!(rig.all().len() as u64, id);
}

#[test]
fn limits_of_the_options_are_kept_like_a_full_disk() {
    let limited = JournalOptions { max_bytes: Some(5 * SEGMENT), ..options() };
    let mut rig = Rig::with(SimDisk::new(7), limited, None).unwrap();
    let mut id = 0;
    while rig.solo.admits(Priority::Ordinary) {
        id += 1;
        rig.append_all(id..=id);
        rig.settle();
        rig.journal.prepare().unwrap();
        assert!(id < 100);
    }
    assert_eq!(segment_files(&rig.disk), 5);
    // What is tried again and again has the same name each time.
    for _ in 0..50 {
        assert_eq!(rig.journal.prepare().unwrap(), Prepared::Short);
    }
    let lack = rig.journal.lack().unwrap().to_string();
    assert!(lack.contains("segment-000006"), "{lack}");

    let disk = SimDisk::new(8);
    disk.set_capacity(8192 + 10 * SEGMENT);
    let polite = JournalOptions { keep_free: 5 * SEGMENT, ..options() };
    let rig = Rig::with(disk, polite, None).unwrap();
    while rig.journal.prepare().unwrap() != Prepared::Short && rig.disk.free_bytes().unwrap() > 6 * SEGMENT {}
    assert!(rig.disk.free_bytes().unwrap() >= 5 * SEGMENT);
}

/// No space at each operation in turn: what was taken is final, what was refused is not there, and a restart finds the same.
#[test]
fn no_space_at_every_step() {
    for skip in 0..60 {
        for lasting in [false, true] {
            let disk = SimDisk::new(skip);
            for op in [Op::Create, Op::Rename] {
                disk.inject(Injection { op: Some(op), skip: skip / 4, fault: Fault::Full, lasting });
            }
            let Ok(mut rig) = Rig::over(disk, None) else { continue };
            let mut taken = Vec::new();
            for id in 1..=30 {
                match rig.append(id, 3000, Durability::Sync) {
                    Ok(_) => taken.push(id),
                    Err(BlockAppendError::Full(_)) => {}
                    Err(error) => panic!("{skip}: {error}"),
                }
                rig.settle();
                if id % 3 == 0 {
                    // An error here is for the log; the next try may do better.
                    let _ = rig.journal.prepare();
                }
            }
            assert_eq!(rig.committed(), taken, "{skip}");
            assert_eq!(Rig::over(rig.disk.crash(), None).unwrap().all(), taken, "{skip}");
        }
    }
}

#[test]
fn surplus_segments_go_back_to_the_file_system() {
    let mut rig = Rig::new(9);
    rig.append_all(1..=280);
    rig.settle();
    let most = segment_files(&rig.disk);
    assert!(most >= 40);
    let tables = release_all(&mut rig);
    for _ in 0..100 {
        rig.journal.prepare().unwrap();
    }
    let kept = segment_files(&rig.disk);
    assert!(kept < 20, "{kept} of {most}");
    rig.append_all(281..=300);
    rig.settle();
    let rig = Rig::over(rig.disk.crash(), Some(tables)).unwrap();
    assert_eq!(rig.replayed(Sequence(280)).len(), 20);
}

#[test]
fn options_out_of_range_are_refused() {
    for segment_bytes in [0, 4096, 5000, 1 << 30] {
        let result = open(&SimDisk::new(1), JournalOptions { segment_bytes, ..options() }, None);
        assert!(result.is_err(), "{segment_bytes}");
    }
}

#[test]
fn a_block_larger_than_a_segment_is_refused_and_harms_nothing() {
    let mut rig = Rig::new(10);
    for _ in 0..5 {
        let refused = rig.append(1, SEGMENT as usize, Durability::Sync);
        assert!(matches!(refused, Err(BlockAppendError::Full(_))), "{refused:?}");
    }
    assert_eq!(segment_files(&rig.disk), 1);
    rig.append_all(2..=2);
    rig.settle();
    assert_eq!(rig.all(), [2]);
}

/// A header that failed to be written may stand there all the same; no other file may get its number.
#[test]
fn a_failed_preparation_is_taken_up_again() {
    let mut failures = 0;
    for (seed, skip) in (0..12).flat_map(|seed| [(seed, 0), (seed, 1)]) {
        for recycled in [false, true] {
            let mut rig = Rig::new(seed);
            rig.append_all(1..=30);
            rig.settle();
            let tables = recycled.then(|| release_all(&mut rig));
            let after = tables.as_ref().map_or(Sequence::NONE, |tables| tables.through);
            while rig.solo.committed() < Sequence(33) {
                // Uses up what is ready, so that there is something to prepare.
                let next = rig.solo.committed().0 + 1;
                rig.append_all(next..=next);
                rig.settle();
            }
            rig.disk.inject(Injection { op: Some(Op::Write), skip, fault: Fault::Io, lasting: false });
            failures += u32::from(rig.journal.prepare().is_err());
            for id in 34..=60 {
                // Where nothing was to be prepared, a block meets the fault instead.
                let _ = rig.append(id, 3000, Durability::Sync);
                rig.settle();
                let _ = rig.journal.prepare();
            }
            let committed = rig.committed().len();
            let rig = Rig::over(rig.disk.crash(), tables).unwrap();
            let found = rig.replayed(after);
            assert!(found.len() + after.0 as usize >= committed, "{found:?} of {committed}");
            assert_eq!(found, (after.0 + 1..=after.0 + found.len() as u64).collect::<Vec<_>>());
        }
    }
    assert!(failures > 10, "{failures} preparations failed");
}

/// Seven small blocks fill a segment, each of which takes a step of 4 KiB.
#[test]
fn what_blocks_take_is_counted_as_it_lies_in_the_segments() {
    let mut rig = Rig::new(14);
    rig.append_all(1..=10);
    rig.settle();
    let steps = |after, through| rig.journal.bytes_between(Sequence(after), Sequence(through)) / 4096;
    for (after, through, taken) in [
        (0, 10, 10),
        (0, 7, 7),
        (0, 8, 8),
        (3, 10, 7),
        (7, 10, 3),
        (8, 9, 1),
        (0, 0, 0),
        (10, 10, 0),
        (10, 12, 0),
    ] {
        assert_eq!(steps(after, through), taken, "{after} {through}");
    }
    rig.append(11, 10_000, Durability::Sync).unwrap();
    rig.settle();
    assert_eq!(rig.journal.bytes_between(Sequence(10), Sequence(11)), 3 * 4096);
}

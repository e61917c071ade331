//! Power cuts: what was committed is found, what was torn is cut off, and neither is ever called corrupt.

use std::sync::Arc;

use sabir_model::{Durability, Sequence};

use super::rig::{Rig, open, options};
use crate::disk::sim::{CrashPoint, Fate, SimDisk};

/// A block that was final after this many operations of the disk.
type Final = (u64, u64);

/// Opens what a power cut left: a prefix of what was appended, with all that was final at that moment.
fn check(disk: Arc<SimDisk>, operations: u64, finals: &[Final], appended: &[u64]) -> Rig {
    let rig = Rig::over(disk, None).unwrap_or_else(|error| panic!("after {operations} operations: {error}"));
    let found = rig.all();
    let kept = finals.iter().filter(|(_, at)| *at <= operations).count();
    assert!(found.len() >= kept, "{} of {kept} committed blocks after {operations}", found.len());
    assert_eq!(found, appended[..found.len()], "after {operations} operations");
    rig
}

/// Appends blocks of all sizes, some at once, some unsynced, with idle times between.
fn workload(rig: &mut Rig, count: u64, os: bool) -> (Vec<Final>, Vec<u64>) {
    let (mut finals, mut appended) = (Vec::new(), Vec::new());
    for id in 1..=count {
        let durability = if os && id % 3 != 0 { Durability::Os } else { Durability::Sync };
        let payload = [10, 5000, 100, 9000, 3000][id as usize % 5];
        rig.append(id, payload, durability).unwrap();
        appended.push(id);
        for _ in 0..id % 4 {
            rig.disk.step();
            note(rig, &mut finals, os);
        }
        if id % 6 == 0 {
            for _ in 0..3 {
                while rig.disk.step() {
                    note(rig, &mut finals, os);
                }
                rig.tick(100);
                note(rig, &mut finals, os);
            }
        }
    }
    (finals, appended)
}

/// Only what a flush covers must survive a power cut; with unsynced blocks, less is than what is committed.
fn note(rig: &mut Rig, finals: &mut Vec<Final>, os: bool) {
    rig.look();
    let through = if os { rig.journal.durable() } else { rig.journal.committed() };
    let now = rig.disk.operations();
    while (finals.len() as u64) < through.0 {
        finals.push((finals.len() as u64 + 1, now));
    }
}

fn every_moment(seed: u64, os: bool, mut each: impl FnMut(&CrashPoint, &[Final], &[u64])) {
    let mut rig = Rig::new(seed);
    rig.disk.record();
    let (finals, appended) = workload(&mut rig, 24, os);
    for point in rig.disk.recorded() {
        each(&point, &finals, &appended);
    }
}

#[test]
fn every_legal_subset_of_the_writes_at_every_moment() {
    for (seed, os) in [(1, false), (2, true), (3, false), (4, true)] {
        every_moment(seed, os, |point, finals, appended| {
            for fates in point.subsets(24) {
                check(point.survive(&fates), point.operations(), finals, appended);
            }
        });
    }
}

#[test]
fn writes_torn_at_every_sector_and_in_any_pattern() {
    for (seed, os) in [(5, false), (6, true)] {
        every_moment(seed, os, |point, finals, appended| {
            for fates in point.tears(1024) {
                check(point.survive(&fates), point.operations(), finals, appended);
            }
            for seed in 0..8 {
                let fates = point.fates_of(seed);
                check(point.survive(&fates), point.operations(), finals, appended);
            }
        });
    }
}

/// The header, the end of the header, the start of the content and its end, to the byte.
#[test]
fn a_tail_torn_at_every_byte_of_interest() {
    let mut rig = Rig::new(9);
    rig.disk.set_atom(1);
    rig.append_all(1..=3);
    rig.settle();
    let content = 32 + 100 + 12;
    for id in 4..=5 {
        rig.append(id, 100, Durability::Sync).unwrap();
    }
    let appended: Vec<u64> = (1..=5).collect();
    let finals: Vec<Final> = (1..=3).map(|id| (id, 0)).collect();
    let point = rig.disk.power_off();
    let cuts = (0..70).chain(64 + content - 20..64 + content + 20).chain([511, 512, 513, 4095]);
    for cut in cuts {
        for torn in [Fate::Prefix(cut), Fate::Suffix(cut)] {
            for other in [Fate::Lost, Fate::Kept, Fate::Prefix(40)] {
                for fates in [[torn, other], [other, torn]] {
                    let rig = check(point.survive(&fates), u64::MAX, &finals, &appended);
                    assert!(rig.recovered.last >= Sequence(3));
                }
            }
        }
    }
}

#[test]
fn a_torn_tail_is_reported_as_one_with_its_place() {
    let mut rig = Rig::new(10);
    rig.append_all(1..=2);
    rig.settle();
    rig.append(3, 9000, Durability::Sync).unwrap();
    let disk = rig.disk.power_off().survive(&[Fate::Prefix(4096)]);
    let rig = Rig::over(disk, None).unwrap();
    let torn = rig.recovered.torn.expect("a part of a frame is there");
    assert_eq!((torn.file.as_str(), torn.position), ("segment-000001", 3 * 4096));
    assert_eq!((torn.sequence, rig.recovered.last), (Sequence(3), Sequence(2)));
}

#[test]
fn goes_on_after_each_of_many_crashes() {
    for seed in 20..40 {
        let mut rig = Rig::new(seed);
        let (mut next, mut kept): (u64, Vec<u64>) = (1, Vec::new());
        for life in 0..6 {
            let mut appended = rig.all();
            for i in 0..(seed + life) % 9 + 3 {
                let payload = [50, 6000, 20][(next % 3) as usize];
                let durability = if next % 4 == 0 { Durability::Os } else { Durability::Sync };
                rig.append(next, payload, durability).unwrap();
                appended.push(next);
                next += 1;
                rig.steps(i % 3);
                if i % 4 == 3 {
                    rig.seal();
                }
                rig.look();
            }
            let durable = rig.journal.durable().0 as usize;
            rig = Rig::over(rig.disk.crash(), None).unwrap();
            let found = rig.all();
            assert!(found.len() >= durable, "seed {seed}, life {life}");
            assert_eq!(found, appended[..found.len()], "seed {seed}, life {life}");
            assert!(found.starts_with(&kept), "what a start found, later ones find");
            kept = found;
        }
    }
}

/// A killed process leaves its unsynced blocks in a cache. A start that finds them there must flush them before a frame says they are durable.
#[test]
fn what_a_killed_process_left_in_a_cache_is_made_durable() {
    let mut rig = Rig::new(11);
    for id in 1..=9 {
        rig.append(id, 3000, Durability::Os).unwrap();
    }
    rig.settle();
    let disk = rig.disk.clone();
    drop(rig);
    let mut rig = Rig::over(disk, None).unwrap();
    assert_eq!(rig.journal.durable(), Sequence(9));
    rig.append_all(10..=11);
    rig.settle();
    let rig = Rig::over(rig.disk.power_off().survive_all(Fate::Lost), None).unwrap();
    assert_eq!(rig.all(), (1..=11).collect::<Vec<_>>());
}

#[test]
fn a_crash_during_recovery_changes_nothing() {
    for seed in 50..60 {
        let mut rig = Rig::new(seed);
        rig.append_all(1..=10);
        rig.settle();
        for id in 11..=16 {
            rig.append(id, [100, 5000][id as usize % 2], Durability::Sync).unwrap();
        }
        rig.steps(seed % 5);
        let found_first =
            Rig::over(rig.disk.crash_point().survive_all(Fate::Atoms(seed)), None).unwrap().all();
        let disk = rig.disk.power_off().survive_all(Fate::Atoms(seed));
        disk.record();
        drop(Rig::over(disk.clone(), None).unwrap());
        for point in disk.recorded() {
            for fates in point.subsets(16).into_iter().chain([point.fates_of(seed)]) {
                let again = Rig::over(point.survive(&fates), None).unwrap();
                assert_eq!(again.all(), found_first, "seed {seed}");
            }
        }
    }
}

#[test]
fn a_crash_while_the_journal_is_made_leaves_nothing_in_the_way() {
    let disk = SimDisk::new(3);
    disk.record();
    let mut rig = Rig::over(disk.clone(), None).unwrap();
    rig.journal.prepare().unwrap();
    rig.append_all(1..=1);
    rig.settle();
    let made = rig.disk.operations();
    for point in disk.recorded().into_iter().filter(|point| point.operations() < made) {
        for fates in point.subsets(32) {
            let mut rig = Rig::over(point.survive(&fates), None).unwrap();
            // The block itself may have been under way.
            let mut found = rig.all();
            rig.append_all(2..=2);
            rig.settle();
            found.push(2);
            assert_eq!(rig.all(), found);
        }
    }
}

#[test]
fn a_clean_shutdown_is_known_as_one() {
    let mut rig = Rig::new(4);
    rig.append_all(1..=9);
    rig.append(10, 10, Durability::Os).unwrap();
    rig.journal.shutdown().unwrap();
    assert_eq!(rig.journal.durable(), Sequence(10));
    let rig = Rig::over(rig.disk.crash(), None).unwrap();
    assert!(rig.recovered.clean && rig.recovered.torn.is_none());
    assert_eq!(rig.all(), (1..=10).collect::<Vec<_>>());
    let rig = Rig::over(rig.disk.crash(), None).unwrap();
    assert!(!rig.recovered.clean, "the second start follows no shutdown");
    assert_eq!(rig.all().len(), 10);
}

#[test]
fn nothing_is_appended_after_a_shutdown() {
    let mut rig = Rig::new(4);
    rig.append_all(1..=1);
    rig.journal.shutdown().unwrap();
    let refused = rig.append(2, 10, Durability::Sync);
    assert!(matches!(refused, Err(crate::BlockAppendError::Closed(_))), "{refused:?}");
}

#[test]
fn a_new_journal_is_empty_and_each_start_has_its_term() {
    let disk = SimDisk::new(8);
    let (journal, recovered) = open(&disk, options(), None).unwrap();
    assert_eq!((recovered.last, recovered.torn), (Sequence::NONE, None));
    assert_eq!((journal.committed(), journal.last()), (Sequence::NONE, Sequence::NONE));
    drop(journal);
    let terms: Vec<u64> = (0..3)
        .map(|_| {
            let rig = Rig::over(disk.clone(), None).unwrap();
            crate::Replicator::term(&*rig.solo).0
        })
        .collect();
    assert_eq!(terms, [1, 2, 3]);
}

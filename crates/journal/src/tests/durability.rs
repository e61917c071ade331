//! When blocks become final, and what that costs the disk.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use sabir_model::{Durability, Sequence};

use super::rig::{Rig, options};
use crate::disk::Disk;
use crate::disk::sim::{Fate, Fault, Injection, Op, SimDisk};
use crate::{JournalOptions, Priority, Replicator, SHARD_ENDS, TailBudget};

#[test]
fn one_write_in_flight_and_more_only_when_much_waits() {
    let mut rig = Rig::new(1);
    rig.disk.stall(Op::Write);
    assert!(rig.solo.ready(1));
    rig.append_all(1..=1);
    assert!(!rig.solo.ready((64 << 10) - 1));
    for id in 2..=8 {
        assert!(rig.solo.ready(64 << 10), "{id}");
        rig.append_all(id..=id);
    }
    assert!(!rig.solo.ready(1 << 20), "eight are under way");
    rig.disk.resume();
    rig.settle();
    assert!(rig.solo.ready(1));
}

#[test]
fn a_sync_block_is_final_only_when_a_power_cut_cannot_take_it() {
    let mut rig = Rig::new(2);
    rig.append(1, 10, Durability::Os).unwrap();
    rig.append(2, 10, Durability::Sync).unwrap();
    rig.append(3, 10, Durability::Sync).unwrap();
    for _ in 0..100 {
        rig.look();
        let committed = rig.committed().len();
        let disk = rig.disk.crash_point().survive_all(Fate::Lost);
        let found = Rig::over(disk, None).unwrap().all();
        assert!(committed < 2 || found.len() >= committed, "{committed} were final, {found:?} were found");
        rig.disk.step();
    }
    assert_eq!(rig.committed(), [1, 2, 3]);
    assert!(rig.journal.stats().flushes <= 2, "a flush serves the run and what is written behind it");
}

#[test]
fn an_os_block_is_final_unflushed_and_flushed_within_a_second() {
    let mut rig = Rig::new(3);
    rig.append(1, 10, Durability::Os).unwrap();
    rig.settle();
    assert_eq!(rig.committed(), [1]);
    assert_eq!((rig.journal.durable(), rig.journal.stats().flushes), (Sequence(0), 0));
    // Never idle for long enough to seal.
    for id in 2..=20 {
        rig.tick(50);
        rig.append(id, 10, Durability::Os).unwrap();
        rig.settle();
    }
    rig.tick(50);
    rig.settle();
    assert_eq!(rig.now_ms, 1000);
    assert!(rig.journal.durable() >= Sequence(1));
    assert_eq!(rig.journal.stats().flushes, 1);
}

#[test]
fn an_idle_journal_is_flushed_and_sealed_once() {
    let mut rig = Rig::new(4);
    rig.append(1, 10, Durability::Os).unwrap();
    rig.settle();
    rig.tick(10);
    rig.tick(99);
    rig.settle();
    assert_eq!(rig.journal.stats().seals, 0);
    rig.tick(1);
    rig.settle();
    assert_eq!((rig.journal.durable(), rig.journal.stats().seals), (Sequence(1), 0), "flushed first");
    rig.tick(1);
    rig.settle();
    assert_eq!(rig.journal.stats().seals, 1);
    let operations = rig.disk.operations();
    (0..100).for_each(|_| rig.tick(100));
    rig.settle();
    assert_eq!(rig.disk.operations(), operations, "an idle journal leaves the disk alone");
}

#[test]
fn blocks_wait_for_a_seal_under_way() {
    let mut rig = Rig::new(5);
    rig.append_all(1..=1);
    rig.settle();
    rig.tick(10);
    rig.disk.stall(Op::Write);
    rig.tick(110);
    assert!(!rig.solo.ready(1 << 20));
    rig.append_all(2..=3);
    assert_eq!(rig.disk.depth(), 1, "only the seal is under way");
    rig.disk.resume();
    rig.settle();
    assert_eq!(rig.committed(), [1, 2, 3]);
    assert_eq!(Rig::over(rig.disk.crash(), None).unwrap().all(), [1, 2, 3]);
}

#[test]
fn a_stalled_sync_holds_what_asked_for_it_and_nothing_is_lost() {
    let mut rig = Rig::new(6);
    rig.disk.stall(Op::Sync);
    rig.append(1, 10, Durability::Os).unwrap();
    rig.append(2, 10, Durability::Sync).unwrap();
    rig.settle();
    for _ in 0..20 {
        rig.tick(500);
        rig.settle();
        assert_eq!(rig.committed(), [1]);
    }
    rig.disk.resume();
    rig.settle();
    assert_eq!(rig.committed(), [1, 2]);
}

#[test]
fn a_failed_sync_commits_nothing_and_is_not_tried_again() {
    let mut rig = Rig::new(7);
    rig.append(1, 10, Durability::Os).unwrap();
    rig.settle();
    rig.disk.inject(Injection { op: Some(Op::Sync), skip: 0, fault: Fault::Io, lasting: false });
    rig.append(2, 10, Durability::Sync).unwrap();
    rig.settle();
    assert_eq!(rig.committed(), [1]);
    let error = rig.journal.stopped().unwrap();
    assert!(error.to_string().contains("could not flush"), "{error}");
    let operations = rig.disk.operations();
    (0..50).for_each(|_| rig.tick(500));
    rig.settle();
    assert_eq!((rig.disk.operations(), rig.committed()), (operations, vec![1]));
    assert!(rig.journal.flush(Sequence(2)).is_err() && rig.journal.shutdown().is_err());
    assert_eq!(rig.all(), [1], "reads go on");
}

#[test]
fn a_failed_write_stops_the_journal() {
    let mut rig = Rig::new(8);
    rig.append_all(1..=3);
    rig.settle();
    rig.disk.inject(Injection { op: Some(Op::Write), skip: 1, fault: Fault::Io, lasting: false });
    rig.append_all(4..=6);
    rig.settle();
    assert!(rig.journal.stopped().is_some());
    let committed = rig.committed();
    assert!(committed.starts_with(&[1, 2, 3]) && committed.len() < 6, "{committed:?}");
    let found = Rig::over(rig.disk.crash(), None).unwrap().all();
    assert!(found.starts_with(&committed));
}

/// A rig whose blocks all go to one segment.
fn roomy(seed: u64) -> Rig {
    Rig::with(SimDisk::new(seed), JournalOptions { segment_bytes: 1 << 20, ..options() }, None).unwrap()
}

/// Blocks at a time and after the others, with and without a sync, on a disk that takes some writes and not others.
#[test]
fn a_write_that_finds_no_space_is_done_again_and_nothing_passes_it() {
    for (seed, fault) in
        (0..40).flat_map(|seed| [(seed, Fault::Full), (seed, Fault::Short), (seed, Fault::NoDescriptors)])
    {
        let mut rig = roomy(seed);
        rig.append_all(1..=3);
        rig.settle();
        let durability = if seed % 2 == 0 { Durability::Sync } else { Durability::Os };
        let first_lasts = seed % 3 == 0;
        rig.disk.inject(Injection { op: Some(Op::Write), skip: seed % 4, fault, lasting: first_lasts });
        for id in 4..=12 {
            rig.append(id, 3000, durability).unwrap();
        }
        rig.settle();
        let (committed, refuses) = (rig.committed(), !rig.solo.admits(Priority::Ordinary));
        assert_eq!(committed, (1..=committed.len() as u64).collect::<Vec<_>>());
        assert!(committed.len() < 12 && refuses && rig.solo.admits(Priority::Reserve), "{seed} {fault:?}");
        assert!(rig.journal.stopped().is_none() && rig.journal.shortage().is_some());
        // A power cut now leaves what was acknowledged, in order, and the journal goes on behind it.
        let mut found = Rig::over(rig.disk.crash_point().survive_all(Fate::Kept), None).unwrap();
        let there = found.all();
        assert!(there.starts_with(&committed), "{seed} {fault:?}: {there:?}");
        assert_eq!(there, (1..=there.len() as u64).collect::<Vec<_>>());
        found.append_all([100]);
        found.settle();
        let again = Rig::over(found.disk.crash(), None).unwrap().all();
        assert_eq!(
            (again.len(), again.last()),
            (there.len() + 1, Some(&100)),
            "what stood behind is cut off"
        );

        rig.tick(100);
        rig.settle();
        assert_eq!(rig.committed(), committed, "it is not tried at every moment");
        // What makes space may still come.
        rig.append(13, 100, Durability::Sync).unwrap();
        rig.settle();
        for _ in 0..3 {
            rig.tick(500);
            rig.settle();
        }
        assert_eq!(rig.committed().len() < 13, first_lasts, "{seed} {fault:?}");
        rig.disk.end_faults();
        rig.tick(500);
        rig.settle();
        assert_eq!(rig.committed(), (1..=13).collect::<Vec<_>>(), "{seed} {fault:?}");
        assert!(rig.solo.admits(Priority::Ordinary) && rig.journal.shortage().is_none());
        rig.append_all(14..=20);
        rig.seal();
        rig.journal.shutdown().unwrap();
        assert_eq!(Rig::over(rig.disk.crash(), None).unwrap().all(), (1..=20).collect::<Vec<_>>());
    }
}

/// No seal, flush or checkpoint says more than what is written.
#[test]
fn a_crash_at_any_moment_while_writes_find_no_space() {
    let mut rig = roomy(8);
    rig.append_all(1..=2);
    rig.settle();
    rig.disk.record();
    // How many no power cut takes any more, from which operation on.
    let mut finals = Vec::new();
    for round in 0..4 {
        rig.disk.inject(Injection {
            op: Some(Op::Write),
            skip: 1,
            fault: Fault::Full,
            lasting: round % 2 == 0,
        });
        for id in 0..3 {
            let durability = if id == 1 { Durability::Os } else { Durability::Sync };
            rig.append(3 + round * 3 + id, 500, durability).unwrap();
        }
        rig.settle();
        rig.tick(600);
        rig.settle();
        finals.push((rig.journal.durable().0, rig.disk.operations()));
        rig.disk.end_faults();
        rig.tick(600);
        rig.seal();
        finals.push((rig.journal.durable().0, rig.disk.operations()));
    }
    assert_eq!(rig.committed().len(), 14);
    for point in rig.disk.recorded() {
        for fates in point.subsets(8).into_iter().chain([point.fates_of(3)]) {
            let found = Rig::over(point.survive(&fates), None).unwrap().all();
            let kept = finals
                .iter()
                .rev()
                .find(|(_, at)| *at <= point.operations())
                .map_or(2, |(durable, _)| *durable);
            assert!(found.len() as u64 >= kept, "{found:?} of {kept}");
            assert_eq!(found, (1..=found.len() as u64).collect::<Vec<_>>());
        }
    }
}

/// What such a flush was to make durable no later one does: see the simulated disk.
#[test]
fn a_flush_that_finds_no_space_is_done_again_with_all_that_it_covers() {
    for seed in 0..40 {
        let mut rig = roomy(seed);
        rig.append_all(1..=3);
        rig.settle();
        let lasting = seed % 2 == 0;
        let fault = if seed % 3 == 0 { Fault::NoDescriptors } else { Fault::Full };
        rig.disk.inject(Injection { op: Some(Op::Sync), skip: 0, fault, lasting });
        for id in 4..=12 {
            rig.append(id, 3000, Durability::Os).unwrap();
        }
        rig.append(13, 100, Durability::Sync).unwrap();
        rig.settle();
        assert_eq!(rig.committed(), (1..=12).collect::<Vec<_>>(), "those that ask for no flush");
        assert!(rig.journal.stopped().is_none() && rig.journal.shortage().is_some());
        assert!(!rig.solo.admits(Priority::Ordinary) && rig.solo.admits(Priority::Reserve));
        let given_up = rig.journal.flush(Sequence(12)).unwrap_err();
        assert!(given_up.source.is_shortage(), "a checkpoint does not wait for space: {given_up}");
        rig.append(14, 100, if seed % 4 < 2 { Durability::Sync } else { Durability::Os }).unwrap();
        for _ in 0..8 {
            rig.tick(250);
            rig.settle();
        }
        assert_eq!(rig.committed().len() < 14, lasting, "{seed}");
        assert_eq!(rig.journal.durable(), Sequence(if lasting { 3 } else { 14 }));
        rig.disk.end_faults();
        for _ in 0..8 {
            rig.tick(250);
            rig.settle();
        }
        assert_eq!((rig.committed().len(), rig.journal.durable()), (14, Sequence(14)), "{seed}");
        assert!(rig.solo.admits(Priority::Ordinary) && rig.journal.shortage().is_none());
        let found = Rig::over(rig.disk.crash_point().survive_all(Fate::Lost), None).unwrap().all();
        assert_eq!(found, (1..=14).collect::<Vec<_>>());
        rig.append_all(15..=20);
        rig.seal();
        rig.journal.shutdown().unwrap();
        assert_eq!(Rig::over(rig.disk.crash(), None).unwrap().all(), (1..=20).collect::<Vec<_>>());
    }
}

#[test]
fn a_crash_at_any_moment_while_flushes_find_no_space() {
    for seed in 0..6 {
        let mut rig = roomy(seed);
        rig.append_all(1..=2);
        rig.settle();
        rig.disk.record();
        let mut finals = Vec::new();
        for round in 0..4 {
            let op = if round == 3 { Op::Write } else { Op::Sync };
            rig.disk.inject(Injection { op: Some(op), skip: 0, fault: Fault::Full, lasting: round % 2 == 0 });
            for id in 0..3 {
                let durability = if id == 2 { Durability::Sync } else { Durability::Os };
                rig.append(3 + round * 3 + id, 500, durability).unwrap();
            }
            for _ in 0..4 {
                rig.settle();
                rig.tick(300);
                finals.push((rig.journal.durable().0, rig.disk.operations()));
            }
            rig.disk.end_faults();
            for _ in 0..6 {
                rig.tick(300);
                rig.settle();
                finals.push((rig.journal.durable().0, rig.disk.operations()));
            }
        }
        assert_eq!((rig.committed().len(), rig.journal.durable()), (14, Sequence(14)));
        for point in rig.disk.recorded() {
            for fates in point.subsets(6).into_iter().chain([point.fates_of(seed)]) {
                let found = Rig::over(point.survive(&fates), None).unwrap().all();
                let kept = finals.iter().rev().find(|(_, at)| *at <= point.operations());
                assert!(found.len() as u64 >= kept.map_or(2, |(durable, _)| *durable), "{found:?}");
                assert_eq!(found, (1..=found.len() as u64).collect::<Vec<_>>());
            }
        }
    }
}

/// What memory has no more is read back, and must be what was written.
#[test]
fn what_a_flush_did_not_cover_and_a_cache_has_lost_stops_the_journal() {
    for lost in [false, true] {
        let roomy = JournalOptions { segment_bytes: 1 << 20, tail: TailBudget::new(0), ..options() };
        let mut rig = Rig::with(SimDisk::new(5), roomy, None).unwrap();
        rig.disk.inject(Injection { op: Some(Op::Sync), skip: 0, fault: Fault::Full, lasting: false });
        for id in 1..=4 {
            rig.append(id, 3000, Durability::Os).unwrap();
            rig.settle();
        }
        rig.append(5, 100, Durability::Sync).unwrap();
        rig.settle();
        let (_, file, pos) = super::rig::places(&rig.journal)[1].clone();
        if lost {
            rig.disk.flip_bit(&file, pos + 1000, 1);
        }
        for _ in 0..4 {
            rig.tick(300);
            rig.settle();
        }
        assert_eq!(rig.journal.stopped().is_some(), lost);
        assert_eq!(rig.committed().len(), if lost { 4 } else { 5 });
    }
}

#[test]
fn the_end_of_a_run_waits_for_no_flush_that_finds_no_space() {
    for lasting in [false, true] {
        let mut rig = roomy(8);
        rig.disk.inject(Injection { op: Some(Op::Sync), skip: 0, fault: Fault::Full, lasting });
        for id in 1..=20 {
            rig.append(id, 100, Durability::Os).unwrap();
        }
        rig.settle();
        assert!(rig.journal.flush(Sequence(20)).unwrap_err().source.is_shortage());
        let ended = rig.journal.shutdown();
        assert_eq!(ended.is_err_and(|error| error.source.is_shortage()), lasting);
        let found = Rig::over(rig.disk.power_off().survive_all(Fate::Lost), None).unwrap().all();
        assert_eq!(found.len(), 20, "what was written again synced itself");
    }
}

#[test]
fn the_end_of_a_run_waits_for_no_space() {
    let mut rig = Rig::new(8);
    rig.append_all(1..=2);
    rig.settle();
    rig.disk.inject(Injection { op: Some(Op::Write), skip: 0, fault: Fault::Full, lasting: true });
    rig.append_all(3..=4);
    rig.settle();
    assert!(rig.journal.shutdown().unwrap_err().source.is_shortage());
    rig.disk.end_faults();
    let mut rig = Rig::over(rig.disk.crash(), None).unwrap();
    let found = rig.all();
    // What was told to have found no space may stand there all the same.
    assert!([1, 2, 3, 4].starts_with(&found) && found.len() >= 2, "{found:?}");
    // The next one finds the space.
    rig.disk.inject(Injection { op: Some(Op::Write), skip: 0, fault: Fault::Full, lasting: false });
    rig.append_all([9]);
    rig.settle();
    rig.journal.shutdown().unwrap();
    assert_eq!(Rig::over(rig.disk.crash(), None).unwrap().all().last(), Some(&9));
}

/// Whatever the slot has no space for, it says later; what it said stays.
#[test]
fn a_slot_that_finds_no_space_is_written_later() {
    for (op, skip) in [(Op::Write, 0), (Op::Sync, 0)] {
        let mut rig = Rig::new(8);
        rig.append_all(1..=3);
        rig.settle();
        rig.journal.note_growth(SHARD_ENDS);
        rig.append_all(4..=5);
        rig.settle();
        rig.disk.inject(Injection { op: Some(op), skip, fault: Fault::Full, lasting: true });
        for _ in 0..3 {
            rig.journal.note_growth(SHARD_ENDS);
        }
        assert!(rig.journal.stopped().is_none(), "{op:?}");
        assert_eq!(Rig::over(rig.disk.crash_point().survive_all(Fate::Lost), None).unwrap().all().len(), 5);
        rig.disk.end_faults();
        rig.journal.note_growth(SHARD_ENDS);
        rig.append_all(6..=6);
        rig.settle();
        assert_eq!(rig.committed().len(), 6);
        rig.journal.shutdown().unwrap();
        assert_eq!(Rig::over(rig.disk.crash(), None).unwrap().all().len(), 6);
    }
}

#[test]
fn a_flush_covers_what_it_says() {
    let mut rig = Rig::new(9);
    for id in 1..=12 {
        rig.append(id, 3000, Durability::Os).unwrap();
    }
    rig.journal.flush(Sequence(12)).unwrap();
    assert_eq!(rig.journal.durable(), Sequence(12));
    let found = Rig::over(rig.disk.power_off().survive_all(Fate::Lost), None).unwrap().all();
    assert_eq!(found.len(), 12);
}

/// A thread that waits for the disk takes from it what others were to be told of.
#[cfg(target_os = "linux")]
#[test]
fn a_flush_tells_of_the_commits_it_took_in() {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    let dir = tempfile::tempdir().unwrap();
    let disk = Arc::new(crate::disk::UringDisk::open(dir.path()).unwrap());
    let pool = sabir_base::buf::BufPool::new(1 << 20);
    let options = crate::JournalOptions { segment_bytes: 1 << 20, keep_free: 0, ..Default::default() };
    let (journal, _) = crate::Journal::open(disk, pool.clone(), options, None).unwrap();
    let solo = crate::Solo::start(journal.clone()).unwrap();
    let told = Arc::new(AtomicBool::new(false));
    let flag = told.clone();
    solo.set_waker(Arc::new(move || flag.store(true, Ordering::SeqCst)));
    let mut builder = crate::BlockBuilder::new(pool);
    builder.push(1, b"body", None, 0, Durability::Os);
    solo.append(builder.take(0)).unwrap();
    journal.flush(Sequence(1)).unwrap();
    assert!(told.load(Ordering::SeqCst));
}

/// The end of a seal moves no mark, and yet a block may wait for it: the thread that takes it in must say so.
#[test]
fn a_flush_that_takes_in_the_end_of_a_seal_wakes_who_waits_for_it() {
    let mut rig = Rig::new(9);
    rig.append_all(1..=1);
    rig.settle();
    rig.tick(100);
    rig.tick(100);
    assert!(!rig.solo.ready(1), "a seal is under way");
    let woken = Arc::new(AtomicUsize::new(0));
    let count = woken.clone();
    rig.solo.set_waker(Arc::new(move || {
        count.fetch_add(1, SeqCst);
    }));
    assert!(rig.disk.step(), "the seal is written");
    // The disk's own call came while another thread was taking it in.
    woken.store(0, SeqCst);
    rig.journal.flush(Sequence(1)).unwrap();
    assert!(rig.solo.ready(1));
    assert!(woken.load(SeqCst) > 0, "a block may lie in wait for this");
}

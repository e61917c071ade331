//! Cuts, and power cuts during and after them.

use sabir_model::{Durability, Sequence, Term};

use super::rig::{Rig, block, id_of, open, options};
use crate::disk::sim::{Fate, SimDisk};
use crate::{BlockBuilder, Journal, JournalError, Read};

/// A journal whose replicator is the test.
struct Bare {
    disk: std::sync::Arc<SimDisk>,
    journal: std::sync::Arc<Journal>,
    builder: BlockBuilder,
    term: Term,
}

impl Bare {
    fn new(seed: u64) -> Self {
        Self::over(SimDisk::new(seed)).unwrap()
    }

    fn over(disk: std::sync::Arc<SimDisk>) -> Result<Self, JournalError> {
        let (journal, recovered) = open(&disk, options(), None)?;
        let term = journal.enter_term(recovered.term.next())?;
        let builder = BlockBuilder::new(sabir_base::buf::BufPool::new(1 << 20));
        Ok(Self { disk, journal, builder, term })
    }

    fn append(&mut self, id: u64, payload: usize) {
        self.append_as(id, payload, Durability::Sync);
    }

    fn append_as(&mut self, id: u64, payload: usize, durability: Durability) {
        let block = block(&mut self.builder, id, payload, durability);
        self.journal.append(block, self.term).unwrap();
    }

    fn settle(&self) {
        self.journal.advance();
        while self.disk.step() {
            self.journal.advance();
        }
    }

    fn cut(&mut self, after: u64) {
        self.term = self.term.next();
        self.journal.cut(Sequence(after), self.term).unwrap();
    }

    /// Everything in the journal, committed or not.
    fn all(&self) -> Vec<u64> {
        let mut found = Vec::new();
        let all = self.journal.replay_range::<JournalError>(Sequence(0), self.journal.last(), &mut |block| {
            found.push(id_of(&block.content));
            Ok(())
        });
        all.unwrap();
        found
    }
}

#[test]
fn a_cut_goes_back_over_segments_and_the_journal_goes_on() {
    let mut bare = Bare::new(1);
    for id in 1..=20 {
        bare.append(id, 3000);
    }
    bare.settle();
    let files = bare.journal.stats().segments;
    bare.cut(4);
    assert_eq!((bare.journal.last(), bare.journal.acked()), (Sequence(4), Sequence(4)));
    for id in 105..=120 {
        bare.append(id, 3000);
    }
    bare.settle();
    let expected: Vec<u64> = (1..=4).chain(105..=120).collect();
    assert_eq!(bare.all(), expected);
    assert_eq!(bare.journal.stats().segments, files, "emptied segments are used again");
    let bare = Bare::over(bare.disk.crash()).unwrap();
    assert_eq!(bare.all(), expected);
}

#[test]
fn a_cut_to_nothing_starts_over() {
    let mut bare = Bare::new(2);
    (1..=9).for_each(|id| bare.append(id, 10));
    bare.cut(0);
    assert_eq!(bare.all(), []);
    bare.append(50, 10);
    bare.settle();
    assert_eq!(bare.journal.last(), Sequence(1));
    let bare = Bare::over(bare.disk.crash()).unwrap();
    assert_eq!(bare.all(), [50]);
}

#[test]
fn what_was_cut_cannot_be_read_from_any_cache() {
    let mut bare = Bare::new(3);
    (1..=3).for_each(|id| bare.append(id, 500));
    bare.settle();
    bare.journal.commit(Sequence(1));
    bare.cut(1);
    for id in [12, 13] {
        bare.append(id, 500);
    }
    bare.settle();
    bare.journal.commit(Sequence(3));
    let mut ids = Vec::new();
    bare.journal
        .replay::<JournalError>(Sequence(0), &mut |block| {
            ids.push(id_of(&block.content));
            let Read::Hot(bytes) = bare.journal.read(block.sequence, 0, block.content.len() as u32).unwrap()
            else {
                panic!("it is among the newest")
            };
            assert_eq!(bytes, block.content);
            Ok(())
        })
        .unwrap();
    assert_eq!(ids, [1, 12, 13]);
}

/// At every moment of a cut and of what follows it: the old tail or the new one, never a mixture, never corruption.
#[test]
fn a_power_cut_at_any_moment_of_a_cut() {
    for (seed, sizes) in [(4, [3000, 3000]), (5, [9000, 100]), (6, [100, 9000])] {
        let mut bare = Bare::new(seed);
        for id in 1..=10 {
            bare.append(id, sizes[0]);
        }
        bare.settle();
        bare.journal.commit(Sequence(3));
        bare.disk.record();
        bare.cut(5);
        for id in 106..=112 {
            bare.append(id, sizes[1]);
            bare.disk.step();
            bare.journal.advance();
        }
        bare.cut(7);
        for id in 208..=212 {
            bare.append(id, sizes[1]);
            bare.disk.step();
            bare.journal.advance();
        }
        let old: Vec<u64> = (1..=10).collect();
        let first: Vec<u64> = (1..=5).chain(106..=112).collect();
        let second: Vec<u64> = first[..7].iter().copied().chain(208..=212).collect();
        for point in bare.disk.recorded() {
            for fates in point.subsets(16).into_iter().chain([point.fates_of(seed)]) {
                let found = Bare::over(point.survive(&fates)).unwrap().all();
                let known = [&old, &first, &second].iter().any(|tail| tail.starts_with(&found));
                assert!(known && found.len() >= 3, "{found:?}");
            }
        }
    }
}

/// Small new blocks leave old ones standing behind them, which say that blocks of these sequences were durable.
#[test]
fn remnants_of_a_cut_tail_prove_nothing() {
    let mut bare = Bare::new(7);
    for id in 1..=6 {
        bare.append(id, 100);
        bare.settle();
    }
    bare.cut(1);
    bare.append(12, 100);
    // The new block is torn; behind it stand old ones that say that block 2 was durable.
    let disk = bare.disk.power_off().survive_all(Fate::Prefix(512));
    let bare = Bare::over(disk).unwrap();
    assert!(bare.all() == [1] || bare.all() == [1, 12]);
}

/// What stays is durable before the cut is remembered: old frames that it spares may go on to say so.
#[test]
fn what_a_cut_leaves_is_durable() {
    let mut bare = Bare::new(10);
    for id in 1..=6 {
        bare.append(id, 5000);
        bare.settle();
    }
    bare.cut(2);
    // Small enough to leave the old blocks of the second segment standing.
    for id in 13..=16 {
        bare.append_as(id, 10, Durability::Os);
    }
    bare.settle();
    bare.cut(5);
    let bare = Bare::over(bare.disk.power_off().survive_all(Fate::Lost)).unwrap();
    assert_eq!(bare.all(), [1, 2, 13, 14, 15]);
}

/// A crash amid a cut may leave the first old frame standing. The next blocks go elsewhere, a later cut takes the slot.
#[test]
fn a_cut_that_a_crash_interrupted_is_finished_by_the_recovery() {
    let mut bare = Bare::new(11);
    (1..=6).for_each(|id| bare.append(id, 100));
    bare.settle();
    bare.disk.record();
    bare.cut(3);
    for point in bare.disk.recorded() {
        for fates in point.subsets(8) {
            let mut bare = Bare::over(point.survive(&fates)).unwrap();
            if bare.all().len() > 3 {
                continue;
            }
            // Too large for the rest of the first segment.
            (14..=18).for_each(|id| bare.append(id, 17_000));
            bare.settle();
            bare.cut(6);
            (27..=28).for_each(|id| bare.append(id, 17_000));
            bare.settle();
            let found = Bare::over(bare.disk.crash()).unwrap().all();
            assert_eq!(found, [1, 2, 3, 14, 15, 16, 27, 28]);
        }
    }
}

#[test]
fn a_cut_never_touches_what_is_committed() {
    let mut rig = Rig::new(8);
    rig.append_all(1..=5);
    rig.settle();
    let cut = rig.journal.cut(Sequence(4), Term(99));
    assert!(matches!(cut, Err(crate::CutError::Committed { .. })), "{cut:?}");
    assert_eq!(rig.all().len(), 5);
}

#[test]
fn a_cut_that_fails_stops_the_journal() {
    use crate::disk::sim::{Fault, Injection, Op};
    let mut bare = Bare::new(9);
    (1..=5).for_each(|id| bare.append(id, 10));
    bare.settle();
    bare.disk.inject(Injection { op: Some(Op::Sync), skip: 0, fault: Fault::Io, lasting: false });
    let cut = bare.journal.cut(Sequence(2), bare.term.next());
    assert!(matches!(cut, Err(crate::CutError::Stopped(_))), "{cut:?}");
    assert!(bare.journal.stopped().unwrap().to_string().contains("stopped"));
}

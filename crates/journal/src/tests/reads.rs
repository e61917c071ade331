//! Reads from memory and from the disk.

use bytes::Bytes;
use sabir_model::{Durability, Sequence};

use super::rig::{Rig, options, payload_of, places};
use crate::disk::Disk;
use crate::disk::sim::{Fault, Injection, Op, SimDisk};
use crate::frame::FrameHeader;
use crate::{BlockReadError, BlockView, JournalOptions, Read, SegmentNo, TailBudget};

/// A rig whose cache holds next to nothing.
fn cold_rig(blocks: u64, payload: usize) -> Rig {
    let options = JournalOptions { tail: TailBudget::new(0), segment_bytes: 64 << 10, ..options() };
    let mut rig = Rig::with(SimDisk::new(1), options, None).unwrap();
    for id in 1..=blocks {
        rig.append(id, payload, Durability::Sync).unwrap();
        rig.settle();
    }
    rig
}

fn bytes_of(read: Read) -> Bytes {
    match read {
        Read::Hot(bytes) | Read::Ahead(bytes) => bytes,
        Read::Cold(cold) => cold.run().unwrap(),
    }
}

#[test]
fn hot_and_cold_bytes_are_the_same() {
    for payload in [0, 10, 4000, 20_000] {
        let (hot, cold) = (Rig::new(1), cold_rig(12, payload));
        let mut hot = hot;
        for id in 1..=12 {
            hot.append(id, payload, Durability::Sync).unwrap();
        }
        hot.settle();
        for sequence in (1..=12).map(Sequence) {
            let len = 32 + payload as u32 + 8;
            let one = bytes_of(hot.journal.read(sequence, 0, len).unwrap());
            let two = bytes_of(cold.journal.read(sequence, 0, len).unwrap());
            assert_eq!(one, two, "{payload}");
            let part = bytes_of(cold.journal.read(sequence, 32, payload as u32).unwrap());
            assert_eq!(part, payload_of(sequence.0, payload));
        }
        assert!(cold.journal.stats().cold_reads > 0);
    }
}

#[test]
fn a_cold_read_reads_ahead_for_the_next_one() {
    let rig = cold_rig(60, 500);
    for sequence in 1..=59 {
        bytes_of(rig.journal.read(Sequence(sequence), 32, 500).unwrap());
    }
    let stats = rig.journal.stats();
    assert!(stats.cold_reads <= 8, "{} reads for four segments", stats.cold_reads);
    assert!(stats.tail_bytes <= 512 << 10);
}

/// A rig with room for read-ahead, whose blocks are all cold.
fn roomy_rig(blocks: u64) -> Rig {
    let options = JournalOptions { tail: TailBudget::new(40 << 20), segment_bytes: 16 << 20, ..options() };
    let mut rig = Rig::with(SimDisk::new(1), options, None).unwrap();
    for id in 1..=blocks {
        rig.append(id, PAYLOAD, Durability::Sync).unwrap();
        rig.settle();
    }
    rig
}

const PAYLOAD: usize = 500_000;

#[test]
fn a_reader_that_runs_on_finds_what_was_loaded_ahead() {
    // 80 MB: what the tail does not hold any more is more than what is loaded ahead.
    let rig = roomy_rig(160);
    let (mut cold, mut ahead) = (0, 0);
    for sequence in 1..=40 {
        match rig.journal.read(Sequence(sequence), 32, PAYLOAD as u32).unwrap() {
            Read::Hot(_) => panic!("block {sequence} is no more in the tail"),
            Read::Ahead(bytes) => {
                assert_eq!(bytes, payload_of(sequence, PAYLOAD));
                ahead += 1;
            }
            Read::Cold(read) => {
                assert_eq!(read.run().unwrap(), payload_of(sequence, PAYLOAD));
                cold += 1;
            }
        }
        while let Some(stretch) = rig.journal.take_read_ahead() {
            stretch.run();
        }
    }
    // The first two or three of each segment.
    assert!(cold <= 8, "{cold} cold, {ahead} ahead");
}

#[test]
fn a_read_ahead_that_fails_is_read_again_by_who_needs_it() {
    let rig = roomy_rig(160);
    for sequence in 1..=3 {
        bytes_of(rig.journal.read(Sequence(sequence), 32, PAYLOAD as u32).unwrap());
    }
    let stretch = rig.journal.take_read_ahead().expect("it runs on");
    rig.disk.inject(Injection { op: Some(Op::Read), skip: 0, fault: Fault::Io, lasting: false });
    stretch.run();
    for sequence in 4..=8 {
        let bytes = bytes_of(rig.journal.read(Sequence(sequence), 32, PAYLOAD as u32).unwrap());
        assert_eq!(bytes, payload_of(sequence, PAYLOAD));
    }
}

/// Reads loaded by the disk for a reader of 60 blocks, for which nothing is loaded ahead before the one numbered `late`.
fn loads_of_reader(late: u64) -> u64 {
    let rig = roomy_rig(160);
    let before = rig.journal.stats().cold_reads;
    for sequence in 1..=60 {
        let bytes = bytes_of(rig.journal.read(Sequence(sequence), 32, PAYLOAD as u32).unwrap());
        assert_eq!(bytes, payload_of(sequence, PAYLOAD));
        while let Some(stretch) = (sequence >= late).then(|| rig.journal.take_read_ahead()).flatten() {
            stretch.run();
        }
    }
    rig.journal.stats().cold_reads - before
}

#[test]
fn more_is_loaded_ahead_of_who_came_too_early() {
    let (patient, hasty) = (loads_of_reader(1), loads_of_reader(8));
    assert!(3 * hasty < 2 * patient, "{hasty} in larger steps, {patient} in smaller ones");
}

#[test]
fn two_stretches_are_loaded_at_once_and_one_given_up_makes_room() {
    let rig = roomy_rig(160);
    for sequence in 1..=8 {
        bytes_of(rig.journal.read(Sequence(sequence), 32, PAYLOAD as u32).unwrap());
    }
    let take = || rig.journal.take_read_ahead();
    let (first, second) = (take().expect("it runs on"), take().expect("there is room for two"));
    assert!(take().is_none());
    drop(first);
    let before = rig.journal.stats().cold_reads;
    let third = take().expect("one was given up");
    assert!(take().is_none());
    third.run();
    assert!(rig.journal.stats().cold_reads > before);
    second.run();
    assert!(take().is_none(), "nothing more is wanted");
}

#[test]
fn readers_of_one_place_share_one_read() {
    let rig = roomy_rig(160);
    let before = rig.journal.stats().cold_reads;
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let bytes = bytes_of(rig.journal.read(Sequence(1), 32, 30_000).unwrap());
                assert_eq!(bytes, payload_of(1, PAYLOAD)[..30_000]);
            });
        }
    });
    assert_eq!(rig.journal.stats().cold_reads, before + 1);
}

#[test]
fn read_ahead_never_keeps_what_will_still_change() {
    let mut rig = cold_rig(3, 500);
    for id in 4..=40 {
        // Each read of the newest would cache the empty space behind it.
        for sequence in (1..id).rev().take(3) {
            let bytes = bytes_of(rig.journal.read(Sequence(sequence), 32, 500).unwrap());
            assert_eq!(bytes, payload_of(sequence, 500), "block {sequence} after {id}");
        }
        rig.append(id, 500, Durability::Sync).unwrap();
        rig.settle();
    }
}

#[test]
fn only_what_is_there_can_be_read() {
    let mut rig = cold_rig(3, 100);
    rig.disk.stall(Op::Write);
    rig.append_all(4..=4);
    for (sequence, offset, len) in [(0, 0, 1), (4, 0, 1), (9, 0, 1)] {
        let read = rig.journal.read(Sequence(sequence), offset, len);
        assert!(matches!(read, Err(BlockReadError::NotCommitted { .. })), "{read:?}");
    }
    for (offset, len) in [(0, 5000), (4096, 1), (u32::MAX, 1), (0, u32::MAX), (u32::MAX, u32::MAX)] {
        for rig in [&rig, &Rig::new(3).with_one_block()] {
            let read = rig.journal.read(Sequence(1), offset, len);
            assert!(matches!(read, Err(BlockReadError::OutOfBounds { .. })), "{read:?}");
        }
    }
}

impl Rig {
    fn with_one_block(mut self) -> Self {
        self.append_all(1..=1);
        self.settle();
        self
    }
}

#[test]
fn a_failed_read_says_which_block_and_stops_nothing() {
    let mut rig = cold_rig(3, 100);
    let Read::Cold(cold) = rig.journal.read(Sequence(2), 0, 50).unwrap() else { panic!("nothing is cached") };
    rig.disk.inject(Injection { op: Some(Op::Read), skip: 0, fault: Fault::Io, lasting: false });
    let error = cold.run().unwrap_err();
    assert!(error.to_string().contains("block 2"), "{error}");
    rig.append_all(4..=4);
    rig.settle();
    assert_eq!(rig.committed(), [1, 2, 3, 4]);
}

#[test]
fn what_a_slow_reader_pins_counts_against_the_cache() {
    let bound = 64 << 10;
    let mut rig = Rig::new(5);
    let mut pinned = Vec::new();
    for id in 1..=200 {
        rig.append(id, 7000, Durability::Sync).unwrap();
        rig.settle();
        rig.events.clear();
        if id <= 6 {
            let Read::Hot(bytes) = rig.journal.read(Sequence(id), 32, 7000).unwrap() else { panic!("hot") };
            pinned.push(bytes);
        }
        assert!(rig.journal.stats().tail_bytes <= bound + (16 << 10), "{}", rig.journal.stats().tail_bytes);
    }
    assert!(matches!(rig.journal.read(Sequence(200), 32, 10), Ok(Read::Hot(_))));
    for (id, bytes) in (1..).zip(pinned) {
        assert_eq!(bytes, payload_of(id, 7000));
    }
}

#[test]
fn released_blocks_are_gone_but_a_reader_keeps_its_segment() {
    let mut rig = cold_rig(60, 500);
    let Read::Cold(cold) = rig.journal.read(Sequence(1), 32, 500).unwrap() else { panic!("cold") };
    rig.checkpoint_without(&[SegmentNo(1)]);
    let gone = rig.journal.read(Sequence(1), 0, 10);
    assert!(matches!(gone, Err(BlockReadError::Released { .. })), "{gone:?}");
    for id in 61..=100 {
        rig.append(id, 500, Durability::Sync).unwrap();
        rig.settle();
        rig.journal.prepare().unwrap();
    }
    assert_eq!(cold.run().unwrap(), payload_of(1, 500), "its segment was not overwritten");
}

#[test]
fn every_entry_of_a_large_block_is_found_again() {
    let mut rig = Rig::new(6);
    let mut builder = crate::BlockBuilder::new(sabir_base::buf::BufPool::new(4 << 20));
    for id in 0..50u64 {
        builder.push(1, &id.to_le_bytes(), Some(&payload_of(id, 300)), id % 7, Durability::Sync);
    }
    crate::Replicator::append(&*rig.solo, builder.take(1)).unwrap();
    rig.settle();
    let content_len = rig.journal.stats().content_bytes as u32;
    let content = bytes_of(rig.journal.read(Sequence(1), 0, content_len).unwrap());
    for (id, entry) in (0..).zip(BlockView::parse(&content).unwrap().entries()) {
        let (offset, len) = entry.unwrap().payload.unwrap();
        let bytes = bytes_of(rig.journal.read(Sequence(1), offset, len).unwrap());
        assert_eq!(bytes, payload_of(id, 300));
    }
}

/// The first page of a block.
fn page_of(rig: &Rig, sequence: u64) -> Vec<u8> {
    let (_, file, position) = places(&rig.journal)[sequence as usize - 1].clone();
    let mut page = vec![0; 4096];
    rig.disk.read_at(rig.disk.open(&file).unwrap(), position, &mut page).unwrap();
    page
}

/// Puts a page in the place of a block's first one.
fn misplace(rig: &Rig, sequence: u64, page: &[u8]) {
    let (_, file, position) = places(&rig.journal)[sequence as usize - 1].clone();
    rig.disk.write_at(rig.disk.open(&file).unwrap(), position, page).unwrap();
}

fn outcome(rig: &Rig, sequence: u64, offset: u32, len: u32) -> Result<Bytes, BlockReadError> {
    match rig.journal.read(Sequence(sequence), offset, len)? {
        Read::Hot(bytes) | Read::Ahead(bytes) => Ok(bytes),
        Read::Cold(cold) => cold.run(),
    }
}

fn assert_refused(rig: &Rig, sequence: u64, offset: u32, why: &str) {
    let (_, file, position) = places(&rig.journal)[sequence as usize - 1].clone();
    let error = outcome(rig, sequence, offset, 10).unwrap_err();
    assert!(matches!(error, BlockReadError::Corrupt { .. }), "{error}");
    let said = error.to_string();
    for part in [&file, &format!("byte {position}"), &format!("block {sequence} should"), why] {
        assert!(said.contains(part), "{said}");
    }
}

#[test]
fn another_block_in_a_blocks_place_is_refused_however_it_is_read() {
    // The block before is read first, so that the bad one lies in a window; or it is the first one read.
    for warm in [false, true] {
        let rig = cold_rig(6, 100);
        misplace(&rig, 3, &page_of(&rig, 5));
        if warm {
            outcome(&rig, 2, 32, 100).unwrap();
        }
        assert_refused(&rig, 3, 32, "block 5 stands there");
        assert_refused(&rig, 3, 32, "block 5 stands there");
        for good in [1, 2, 4, 5, 6] {
            assert_eq!(outcome(&rig, good, 32, 100).unwrap(), payload_of(good, 100));
        }
    }
}

#[test]
fn a_block_of_an_older_use_of_the_file_is_refused() {
    let rig = cold_rig(6, 100);
    let mut page = page_of(&rig, 4);
    let (header, _) = FrameHeader::decode(&page).unwrap();
    let (older, _) = FrameHeader { generation: header.generation + 1, ..header }.encode();
    page[..older.len()].copy_from_slice(&older);
    misplace(&rig, 4, &page);
    misplace(&rig, 5, &[0; 4096]);
    assert_refused(&rig, 4, 32, "an older use of the file");
    assert_refused(&rig, 5, 32, "its frame is bad");
}

#[test]
fn the_frame_is_looked_at_whatever_part_of_a_block_is_read() {
    let rig = roomy_rig(160);
    misplace(&rig, 3, &page_of(&rig, 5));
    for offset in [32, 50_000, 100_000, 300_000, 490_000] {
        assert_refused(&rig, 3, offset, "block 5 stands there");
    }
    let before = rig.journal.stats().cold_reads;
    for _ in 0..20 {
        assert_eq!(outcome(&rig, 20, 400_032, 100).unwrap(), payload_of(20, PAYLOAD)[400_000..400_100]);
    }
    assert_eq!(rig.journal.stats().cold_reads, before + 2, "the frame is read once for a window");
}

fn wrong_bits(rig: &Rig, skip: u64, lasting: bool) {
    rig.disk.inject(Injection { op: Some(Op::Read), skip, fault: Fault::WrongBits, lasting });
}

/// What a reader does that has a checksum: it has forgotten what is wrong, and reads once more.
fn checked(rig: &Rig, sequence: u64, len: usize) -> Result<Bytes, ()> {
    let is_right = |bytes: &Bytes| *bytes == payload_of(sequence, PAYLOAD)[..len];
    let read = || outcome(rig, sequence, 32, len as u32).ok().filter(is_right);
    read().map_or_else(
        || {
            rig.journal.forget(Sequence(sequence), 32, len as u32);
            read().ok_or(())
        },
        Ok,
    )
}

#[test]
fn wrong_bits_of_one_read_are_kept_until_they_are_forgotten() {
    let rig = roomy_rig(160);
    let right = payload_of(1, PAYLOAD);
    wrong_bits(&rig, 0, false);
    let before = rig.journal.stats().cold_reads;
    for _ in 0..2 {
        assert_ne!(outcome(&rig, 1, 32, 30_000).unwrap(), right[..30_000]);
    }
    assert_eq!(rig.journal.stats().cold_reads, before + 1);
    // The window goes whole, whichever of its bytes were found wrong.
    rig.journal.forget(Sequence(1), 20_032, 10);
    assert_eq!(outcome(&rig, 1, 32, 30_000).unwrap(), right[..30_000]);
    assert_eq!(outcome(&rig, 1, 20_032, 10).unwrap(), right[20_000..20_010]);
    assert_eq!(rig.journal.stats().cold_reads, before + 2);
    // What is right, was forgotten or is not there harms no reader.
    for (sequence, offset, len) in [(1, 0, 10), (2, 0, u32::MAX), (999, 0, 1), (0, 0, 1)] {
        rig.journal.forget(Sequence(sequence), offset, len);
    }
    assert_eq!(outcome(&rig, 1, 32, 30_000).unwrap(), right[..30_000]);
}

#[test]
fn bits_that_stay_wrong_are_found_right_once_the_disk_is_good() {
    let rig = roomy_rig(160);
    wrong_bits(&rig, 0, true);
    for _ in 0..3 {
        assert_eq!(checked(&rig, 1, 30_000), Err(()));
    }
    rig.disk.end_faults();
    assert!(checked(&rig, 1, 30_000).is_ok());
}

#[test]
fn readers_of_one_window_all_get_what_is_right() {
    let rig = roomy_rig(160);
    wrong_bits(&rig, 0, false);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| assert!(checked(&rig, 1, 30_000).is_ok()));
        }
    });
}

#[test]
fn wrong_bits_that_were_loaded_ahead_are_read_anew_and_no_others() {
    let rig = roomy_rig(160);
    for sequence in 1..=3 {
        bytes_of(rig.journal.read(Sequence(sequence), 32, PAYLOAD as u32).unwrap());
    }
    wrong_bits(&rig, 0, false);
    rig.journal.take_read_ahead().expect("it runs on").run();
    for sequence in 4..=9 {
        let bytes = checked(&rig, sequence, PAYLOAD).unwrap();
        assert_eq!(bytes, payload_of(sequence, PAYLOAD));
        while let Some(stretch) = rig.journal.take_read_ahead() {
            stretch.run();
        }
    }
    let before = rig.journal.stats().cold_reads;
    assert!(outcome(&rig, 2, 32, PAYLOAD as u32).is_ok());
    assert_eq!(rig.journal.stats().cold_reads, before, "what is right is still kept");
}

//! Disks that fail, fill up and forget.

use std::future::Future;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use sabir_base::clock::{Clock, SystemClock};
use sabir_base::testing::{keep_log, logged};
use sabir_journal::disk::Disk;
use sabir_journal::disk::sim::{Fault, Injection, Op};
use sabir_journal::pages::CommitFault;
use sabir_journal::{Prepared, Priority, SHARD_ENDS};
use sabir_model::{AppendError, LeaderEpoch, Offset, ReadError, ShardFailure, ShardId, TopicConfig};

use super::rig::{append, batch, create, item, new_topic, pending, read, soon, until, values};
use super::sim::{Machine, Seam};
use crate::testing::Disks;
use crate::{
    Broker, BrokerOptions, Caller, Damage, DamageCause, Fence, NewTopic, OffsetCommit, OffsetSpec,
    ReadTarget, ShardStats, StartError, Text, Topic,
};

#[tokio::test]
async fn a_failed_write_stops_its_shard_and_no_other() {
    let machine = Machine::new(1, 2, Seam::Solo);
    let broker = machine.open();
    let topic = create(&broker, "t", 2).await;
    let of_shard = |shard: u32| topic.partitions.iter().find(|p| p.shard.0 == shard).unwrap().index;
    let (bad, good) = (of_shard(1), of_shard(2));
    append(&broker, &topic, bad, batch(&[b"before"], 1)).await.unwrap();
    machine.disks[1].inject(Injection { op: Some(Op::Write), skip: 0, fault: Fault::Io, lasting: false });
    let failed = soon(append(&broker, &topic, bad, batch(&[b"lost"], 2))).await;
    assert_eq!(failed, Err(AppendError::Shard(ShardFailure::StorageError).into()));
    assert_eq!(
        append(&broker, &topic, bad, batch(&[b"x"], 3)).await,
        Err(AppendError::Shard(ShardFailure::StorageError).into())
    );
    append(&broker, &topic, good, batch(&[b"fine"], 4)).await.unwrap();
    let fetched = read(&broker, &topic, bad, 0, 1000).await.unwrap();
    assert_eq!(values(&fetched), [(0, b"before".to_vec())]);
    let stopped: Vec<bool> = broker.stats().shards.iter().map(|shard| shard.stopped).collect();
    assert_eq!(stopped, [false, true, false]);
    broker.shutdown();
}

/// A copy-on-write file system, or a sparse copy, may have no space for a write into a segment that is there.
#[tokio::test]
async fn a_write_that_finds_no_space_waits_and_all_goes_on_when_there_is_some() {
    keep_log();
    let machine = Machine::new(21, 2, Seam::Solo);
    let options = BrokerOptions { keep_free: 4321, ..machine.options() };
    let broker = machine.try_open(options).unwrap();
    let topic = create(&broker, "t", 2).await;
    let of_shard = |shard: u32| topic.partitions.iter().find(|p| p.shard.0 == shard).unwrap().index;
    let (full, good) = (of_shard(1), of_shard(2));
    append(&broker, &topic, full, batch(&[b"before"], 1)).await.unwrap();
    machine.disks[1].inject(Injection { op: Some(Op::Write), skip: 0, fault: Fault::Full, lasting: true });
    let mut waits = Box::pin(append(&broker, &topic, full, batch(&[b"waits"], 2)));
    assert!(pending(&mut waits).await);
    until(|| broker.stats().shards[1].full).await;
    assert!(broker.stats().shards[1].waits_for_space && !broker.stats().shards[2].waits_for_space);
    let refused = append(&broker, &topic, full, batch(&[b"x"], 3)).await;
    assert_eq!(refused, Err(AppendError::Shard(ShardFailure::StorageFull).into()));
    append(&broker, &topic, good, batch(&[b"fine"], 4)).await.unwrap();
    let place = topic.partition(full).unwrap();
    let mut deleted = Box::pin(broker.delete_records(&Caller::OPERATOR, place.shard, place.id, Offset(1)));
    broker.inner.shards[1].journal.note_growth(SHARD_ENDS);
    tokio::time::sleep(Duration::from_millis(1200)).await;
    assert!(pending(&mut waits).await && pending(&mut deleted).await);
    assert_eq!(values(&read(&broker, &topic, full, 0, 1000).await.unwrap()), [(0, b"before".to_vec())]);
    let told = |text: &str| logged(&[text, "shard=1 ", "free_bytes=", "disk"]).len();
    until(|| logged(&["WARN", "the disk is full", "shard=1 ", "keep_free=4321", "No space left"]).len() == 1)
        .await;

    machine.disks[1].end_faults();
    assert_eq!(soon(waits).await.unwrap().base_offset, Offset(1));
    soon(deleted).await.unwrap();
    until(|| !broker.stats().shards[1].full).await;
    assert!(!broker.stats().shards[1].waits_for_space);
    append(&broker, &topic, full, batch(&[b"after"], 5)).await.unwrap();
    until(|| told("is not full any more") > 0).await;
    assert!(broker.stats().shards.iter().all(|shard| !shard.stopped));
    let machine = machine.crash(broker);
    let broker = machine.open();
    let fetched = read(&broker, &topic, full, 1, 1000).await.unwrap();
    assert_eq!(values(&fetched), [(1, b"waits".to_vec()), (2, b"after".to_vec())]);
    broker.shutdown();
}

/// Segments that deletes have freed are kept to be used again, unless a block has no other space.
#[tokio::test]
async fn a_write_that_finds_no_space_gets_that_of_segments_without_records() {
    let machine = Machine::new(23, 1, Seam::Solo);
    let broker = machine.open();
    let large = create(&broker, "large", 1).await;
    let kept = create(&broker, "kept", 1).await;
    for i in 0..16 {
        append(&broker, &large, 0, batch(&[&vec![i; 900 << 10]], 1)).await.unwrap();
    }
    broker.delete_topics(&Caller::OPERATOR, vec![large.id]).await.remove(0).unwrap();
    append(&broker, &kept, 0, batch(&[b"before"], 1)).await.unwrap();
    let shard = &broker.inner.shards[1];
    let files = || shard.journal.stats().segments;
    let full = files();
    shard.checkpoint().unwrap();
    assert!(full >= 7 && files() >= full, "they are kept: {} of {full}", files());
    machine.disks[1].inject(Injection { op: Some(Op::Write), skip: 0, fault: Fault::Full, lasting: true });
    let mut waits = Box::pin(append(&broker, &kept, 0, batch(&[b"waits"], 2)));
    assert!(pending(&mut waits).await);
    until(|| files() == sabir_journal::Journal::LEAST_SEGMENTS).await;
    machine.disks[1].end_faults();
    soon(waits).await.unwrap();
    broker.shutdown();
}

#[test]
fn a_disk_that_is_too_small_for_the_journals_is_named_at_the_start() {
    keep_log();
    let machine = Machine::new(22, 1, Seam::Solo);
    let told = || logged(&["WARN", "too little space is free for the journals", "keep_free=5432"]);
    machine.disks.iter().for_each(|disk| disk.set_capacity(7 << 20));
    let options = || BrokerOptions { keep_free: 5432, ..machine.options() };
    machine.try_open(options()).unwrap().shutdown();
    let lines = told();
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].contains("shards=2 segments=4 segment_bytes=2097152"), "{lines:?}");
    machine.disks.iter().for_each(|disk| disk.set_capacity(64 << 20));
    machine.try_open(options()).unwrap().shutdown();
    assert_eq!(told().len(), 1);
}

/// A client need not wait for the answer to one change before it asks for the next, or may go and come again.
#[tokio::test]
async fn changes_do_not_pile_up_behind_a_disk_that_hangs() {
    const MOST: usize = 2 << 20;
    let dir = tempfile::tempdir().unwrap();
    let options = BrokerOptions { open_bytes_max: MOST, ..super::rig::options(dir.path()) };
    let (broker, disks) = Disks::open(options, Arc::new(SystemClock)).unwrap();
    let topic = create(&broker, "t", 1).await;
    let text = "m".repeat(4000);
    let commit = || {
        let (topic, offset, leader_epoch) = (topic.id, Offset(5), LeaderEpoch(1));
        let position =
            OffsetCommit { topic, partition: 0, offset, leader_epoch, metadata: Text::from(text.as_str()) };
        let fence = Fence { generation: -1, member: Text::from(""), instance: None };
        broker.groups(&Caller::OPERATOR).commit("g", fence, vec![position])
    };
    assert_eq!(soon(commit()).await, [Ok(())]);
    assert!(broker.allocate_producer_id(&Caller::OPERATOR).await.is_ok());
    disks.hang(ShardId(0));
    disks.hang(ShardId(1));
    let waiting = |shard: usize| broker.inner.shards[shard].waiting_bytes();
    let refused = (0..5000)
        .filter_map(|_| poll_once(commit()))
        .filter(|answer| *answer == [Err(ShardFailure::Timeout.into())])
        .count();
    assert!(refused > 2000, "{refused}");
    let ids = (0..1_000_000).filter_map(|_| poll_once(broker.allocate_producer_id(&Caller::OPERATOR)));
    assert_eq!(ids.filter(|id| id.is_err()).take(20_000).count(), 20_000);
    assert!(waiting(0) < 2 * MOST && waiting(1) < 2 * MOST, "{} and {}", waiting(0), waiting(1));
    // Records have a bound of their own.
    let appending = broker.append(vec![item(&topic, 0, batch(&[b"x"], 1))]);
    disks.resume();
    assert!(soon(appending).await[0].is_ok());
    until(|| (waiting(0), waiting(1)) == (0, 0)).await;
    assert_eq!(soon(commit()).await, [Ok(())]);
    assert!(soon(broker.allocate_producer_id(&Caller::OPERATOR)).await.is_ok());
    broker.shutdown();
}

/// What a future comes to at once; the caller does not wait for it.
fn poll_once<T>(asked: impl Future<Output = T>) -> Option<T> {
    match std::pin::pin!(asked).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(answer) => Some(answer),
        Poll::Pending => None,
    }
}

async fn fill(broker: &Broker, topic: &Topic) -> i64 {
    let big = vec![1u8; 200_000];
    let mut taken = 0;
    loop {
        match soon(append(broker, topic, 0, batch(&[&big], 1))).await {
            Ok(appended) => assert_eq!(appended.base_offset.0, taken),
            Err(error) => {
                assert_eq!(error, ShardFailure::StorageFull.into());
                return taken;
            }
        }
        taken += 1;
    }
}

#[tokio::test]
async fn a_full_disk_refuses_records_until_some_are_deleted() {
    let machine = Machine::new(2, 1, Seam::Solo);
    machine.disks[1].set_capacity(24 << 20);
    let broker = machine.open();
    let topic = create(&broker, "t", 1).await;
    let taken = fill(&broker, &topic).await;
    assert!(taken > 10, "{taken}");
    let ShardStats { full, lacks_segments, waits_for_space, .. } = broker.stats().shards[1];
    assert_eq!((full, lacks_segments, waits_for_space), (true, false, false), "deletes make room");
    let fetched = read(&broker, &topic, 0, taken - 1, 1000).await.unwrap();
    assert_eq!((fetched.high_watermark.0, fetched.slices.len()), (taken, 1));
    // Deleting goes on, and makes room by itself.
    let partition = topic.partition(0).unwrap();
    let moved =
        broker.delete_records(&Caller::OPERATOR, partition.shard, partition.id, Offset(-1)).await.unwrap();
    assert_eq!(moved.0, taken);
    until(|| !broker.stats().shards[1].full).await;
    let appended = append(&broker, &topic, 0, batch(&[b"again"], 1)).await.unwrap();
    assert_eq!((appended.base_offset.0, appended.log_start.0), (taken, taken));
    let below = read(&broker, &topic, 0, taken - 1, 1000).await;
    let (asked, end) = (Offset(taken - 1), Offset(taken + 1));
    assert_eq!(below.unwrap_err(), ReadError::OutOfRange { asked, start: Offset(taken), end }.into());
    broker.shutdown();
}

/// A disk with space for so few segments that the one that is written to holds most of what is deleted.
#[tokio::test]
async fn a_disk_with_the_least_of_segments_is_not_full_any_more_once_records_are_deleted() {
    for kept in [0, 3] {
        let machine = Machine::new(24, 1, Seam::Solo);
        machine.disks[1].set_capacity(9 << 20);
        let broker = machine.open();
        let small = create(&broker, "kept", 1).await;
        for _ in 0..kept {
            append(&broker, &small, 0, batch(&[b"kept"], 1)).await.unwrap();
        }
        let shard = &broker.inner.shards[1];
        let segments = || shard.journal.stats().segments;
        assert_eq!(segments(), 4, "they are made at the start");
        for round in 0..4 {
            let topic = create(&broker, &format!("t{round}"), 1).await;
            let taken = fill(&broker, &topic).await;
            assert!(taken > 5 && broker.stats().shards[1].full, "{round}: {taken}");
            broker.delete_topics(&Caller::OPERATOR, vec![topic.id]).await.remove(0).unwrap();
            until(|| !broker.stats().shards[1].full && !shard.journal.lacks_reserve()).await;
        }
        assert_eq!((segments(), shard.is_stopped()), (4, false));
        let machine = machine.crash(broker);
        let broker = machine.open();
        let small = broker.catalog().topic("kept").cloned().unwrap();
        assert_eq!(values(&read(&broker, &small, 0, 0, 1000).await.unwrap()).len(), kept);
        broker.shutdown();
    }
}

#[tokio::test]
async fn a_process_without_descriptors_refuses_records_until_it_has_some() {
    let machine = Machine::new(12, 1, Seam::Solo);
    let broker = machine.open();
    let topic = create(&broker, "t", 1).await;
    let lack = Fault::NoDescriptors;
    machine.disks[1].inject(Injection { op: Some(Op::Create), skip: 0, fault: lack, lasting: true });
    let taken = fill(&broker, &topic).await;
    assert!(broker.stats().shards[1].full && !broker.stats().shards[1].stopped);
    let fetched = read(&broker, &topic, 0, taken - 1, 1000).await.unwrap();
    assert_eq!(fetched.high_watermark.0, taken);
    machine.disks[1].end_faults();
    until(|| !broker.stats().shards[1].full).await;
    let appended = append(&broker, &topic, 0, batch(&[b"again"], 1)).await.unwrap();
    assert_eq!(appended.base_offset.0, taken);
    broker.shutdown();
}

#[tokio::test]
async fn a_fragmented_batch_that_does_not_fit_leaves_the_reserve_alone() {
    let machine = Machine::new(7, 1, Seam::Solo);
    machine.disks[1].set_capacity(24 << 20);
    let broker = machine.open();
    let topic = create(&broker, "t", 1).await;
    let huge = vec![1u8; 40 << 20];
    let refused = soon(append(&broker, &topic, 0, batch(&[&huge], 1))).await;
    assert_eq!(refused, Err(AppendError::Shard(ShardFailure::StorageFull).into()));
    // What the first chunks took comes back by itself.
    until(|| {
        let open = broker.inner.shards[1].state.read().lowest_block();
        open.is_none() && !broker.stats().shards[1].full
    })
    .await;
    let appended = soon(append(&broker, &topic, 0, batch(&[b"small"], 1))).await.unwrap();
    assert_eq!(appended.base_offset, Offset(0));
    broker.shutdown();
}

#[tokio::test]
async fn retention_by_time_and_size_recycles_segments() {
    let machine = Machine::new(4, 1, Seam::Solo);
    let options = BrokerOptions {
        retention_interval: std::time::Duration::from_millis(20),
        checkpoint_bytes: 1 << 20,
        ..machine.options()
    };
    let broker = machine.try_open(options).unwrap();
    let config = TopicConfig { retention_ms: Some(1000), ..TopicConfig::default() };
    let sized = TopicConfig { retention_bytes: Some(500_000), retention_ms: None, ..TopicConfig::default() };
    let topics = vec![
        NewTopic { config, ..new_topic("timed", 1) },
        NewTopic { config: sized, ..new_topic("sized", 1) },
    ];
    let topics: Vec<Arc<Topic>> =
        broker.create_topics(&Caller::OPERATOR, topics).await.into_iter().map(Result::unwrap).collect();
    let big = vec![1u8; 100_000];
    for _ in 0..100 {
        for topic in &topics {
            append(&broker, topic, 0, batch(&[&big], machine.clock.now_ms())).await.unwrap();
        }
    }
    machine.clock.advance(2000);
    let start = |topic: &Topic| {
        let id = topic.partition(0).unwrap().id;
        broker.inner.shards[1].state.read().partition(id).unwrap().log_start.0
    };
    until(|| start(&topics[0]) == 100 && start(&topics[1]) == 95).await;
    // 20 MB were written; a few segments of 2 MiB are left.
    until(|| broker.inner.shards[1].journal.segments().len() <= 3).await;
    let fetched = read(&broker, &topics[1], 0, 95, 1 << 20).await.unwrap();
    assert_eq!(values(&fetched).len(), 5);
    broker.shutdown();
}

#[tokio::test]
async fn a_batch_that_went_bad_on_the_disk_is_an_error_for_its_partition_alone() {
    keep_log();
    let machine = Machine::new(5, 1, Seam::Solo);
    let broker = machine.open();
    let (a, b) = (create(&broker, "rotten", 1).await, create(&broker, "b", 1).await);
    let marked = vec![0xa7u8; 8000];
    append(&broker, &a, 0, batch(&[b"good"], 1)).await.unwrap();
    append(&broker, &a, 0, batch(&[&marked], 1)).await.unwrap();
    append(&broker, &b, 0, batch(&[b"fine"], 1)).await.unwrap();
    broker.shutdown();
    drop(broker);

    let broker = machine.open();
    flip(&*machine.disks[1], &machine, &marked);
    let fetched = soon(read(&broker, &b, 0, 0, 1000)).await.unwrap();
    assert_eq!(values(&fetched), [(0, b"fine".to_vec())]);
    let fetched = soon(read(&broker, &a, 0, 0, 100_000)).await.unwrap();
    assert_eq!(values(&fetched), [(0, b"good".to_vec())], "what stands before it is served");
    assert_eq!(soon(read(&broker, &a, 0, 1, 100_000)).await.unwrap_err(), ReadError::Corrupt.into());
    assert_eq!(broker.stats().shards[1].corrupt, 2);
    // However often it is read.
    for _ in 0..3 {
        assert!(soon(read(&broker, &a, 0, 1, 100_000)).await.is_err());
    }
    let lines = logged(&["ERROR", "records cannot be read", "topic=\"rotten\" partition=0 offset=1 error="]);
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(!broker.stats().shards[1].stopped);
    let damage = Damage { topic: a.id, partition: 0, offset: Offset(1), cause: DamageCause::Corrupt };
    assert_eq!(broker.stats().shards[1].damaged, [damage]);
    let place = a.partition(0).unwrap();
    broker.delete_records(&Caller::OPERATOR, place.shard, place.id, Offset(2)).await.unwrap();
    assert_eq!(broker.stats().shards[1].damaged, [], "what is not kept any more harms nobody");
    broker.shutdown();
}

/// A broker over disk 1 whose records are not in memory, and a topic with two of them.
async fn with_cold_records(machine: &Machine) -> (Broker, Arc<Topic>) {
    let broker = machine.open();
    let topic = create(&broker, "t", 1).await;
    for value in [b'a', b'b'] {
        append(&broker, &topic, 0, batch(&[&[value; 8000]], 1)).await.unwrap();
    }
    broker.shutdown();
    drop(broker);
    let broker = machine.open();
    (broker, topic)
}

fn wrong_bits(machine: &Machine, lasting: bool) {
    machine.disks[1].inject(Injection { op: Some(Op::Read), skip: 0, fault: Fault::WrongBits, lasting });
}

/// A caller that reads records, looks for a time or takes one record gets the right ones.
#[tokio::test]
async fn one_wrong_read_of_a_good_disk_costs_nobody_anything() {
    let machine = Machine::new(11, 1, Seam::Solo);
    let (broker, topic) = with_cold_records(&machine).await;
    let place = topic.partition(0).unwrap();
    let shard = &broker.inner.shards[1];
    let forget = || {
        let runs = shard.state.read().partition(place.id).unwrap().index.open().to_vec();
        runs.iter().for_each(|run| shard.journal.forget(run.block, run.offset, run.len));
    };
    wrong_bits(&machine, false);
    let fetched = soon(read(&broker, &topic, 0, 0, 100_000)).await.unwrap();
    assert_eq!(values(&fetched), [(0, vec![b'a'; 8000]), (1, vec![b'b'; 8000])]);
    forget();
    tokio::time::sleep(Duration::from_millis(1100)).await;
    wrong_bits(&machine, false);
    let target = ReadTarget::new(&Caller::OPERATOR, &topic, 0).unwrap();
    assert_eq!(soon(broker.offsets(target, OffsetSpec::Timestamp(1))).await.unwrap().offset, Offset(0));
    forget();
    tokio::time::sleep(Duration::from_millis(1100)).await;
    wrong_bits(&machine, false);
    let (of, id) = (shard.clone(), place.id);
    let found = tokio::task::spawn_blocking(move || of.batch_at(id, Offset(1))).await.unwrap();
    assert_eq!(found.unwrap().unwrap().base, Offset(1));
    assert_eq!((broker.stats().shards[1].corrupt, &broker.stats().shards[1].damaged[..]), (0, &[][..]));
    broker.shutdown();
}

#[tokio::test]
async fn records_are_read_again_once_the_disk_is_good() {
    let machine = Machine::new(12, 1, Seam::Solo);
    let (broker, topic) = with_cold_records(&machine).await;
    wrong_bits(&machine, true);
    let (before, began) = (broker.inner.shards[1].journal.stats().cold_reads, std::time::Instant::now());
    for _ in 0..20 {
        assert_eq!(soon(read(&broker, &topic, 0, 0, 100_000)).await.unwrap_err(), ReadError::Corrupt.into());
    }
    let reads = broker.inner.shards[1].journal.stats().cold_reads - before;
    // What is known to be bad is read anew once a second.
    assert!(reads <= 4 * (1 + began.elapsed().as_secs()), "{reads} reads of what stays bad");
    assert_eq!(broker.stats().shards[1].damaged.len(), 1);
    machine.disks[1].end_faults();
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let fetched = soon(read(&broker, &topic, 0, 0, 100_000)).await.unwrap();
    assert_eq!(values(&fetched).len(), 2);
    assert_eq!(broker.stats().shards[1].damaged, []);
    broker.shutdown();
}

/// A disk wrote one block of a partition in the place of another one of the same: its batch has a good checksum and the right partition.
#[tokio::test]
async fn a_block_of_the_same_partition_in_anothers_place_is_not_served_as_that_offset() {
    keep_log();
    let machine = Machine::new(7, 1, Seam::Solo);
    let broker = machine.open();
    let topic = create(&broker, "misdirected", 1).await;
    for value in ["one-------", "two-------", "three-----"] {
        append(&broker, &topic, 0, batch(&[value.as_bytes()], 1)).await.unwrap();
    }
    broker.shutdown();
    drop(broker);

    let broker = machine.open();
    let disk = &*machine.disks[1];
    let ((file, from), (same, to)) = (page_of(disk, b"three-----"), page_of(disk, b"two-------"));
    assert_eq!(file, same);
    let file = disk.open(&file).unwrap();
    let mut page = vec![0; 4096];
    disk.read_at(file, from, &mut page).unwrap();
    disk.write_at(file, to, &page).unwrap();
    let fetched = soon(read(&broker, &topic, 0, 0, 100_000)).await.unwrap();
    assert_eq!(values(&fetched), [(0, b"one-------".to_vec())], "what stands before it is served");
    for _ in 0..3 {
        assert_eq!(soon(read(&broker, &topic, 0, 1, 100_000)).await.unwrap_err(), ReadError::Corrupt.into());
    }
    let fetched = soon(read(&broker, &topic, 0, 2, 100_000)).await.unwrap();
    assert_eq!(values(&fetched), [(2, b"three-----".to_vec())]);
    assert!(broker.stats().shards[1].corrupt >= 3);
    let lines =
        logged(&["ERROR", "records cannot be read", "topic=\"misdirected\" partition=0 offset=1 error="]);
    assert_eq!(lines.len(), 1, "{lines:?}");
    broker.shutdown();
}

/// The file in which a value stands, and where.
pub(super) fn place_of(disk: &dyn Disk, value: &[u8]) -> (String, u64) {
    for name in disk.list().unwrap() {
        let file = disk.open(&name).unwrap();
        let mut bytes = vec![0; disk.len(file).unwrap() as usize];
        disk.read_at(file, 0, &mut bytes).unwrap();
        disk.close(file);
        if let Some(at) = bytes.windows(value.len()).position(|window| window == value) {
            return (name, at as u64);
        }
    }
    panic!("the value is in no file");
}

/// The file and position of the page in which a value stands.
fn page_of(disk: &dyn Disk, value: &[u8]) -> (String, u64) {
    let (name, at) = place_of(disk, value);
    (name, at / 4096 * 4096)
}

/// Flips a bit in the middle of a value that stands in one of the files.
fn flip(disk: &dyn Disk, machine: &Machine, value: &[u8]) {
    let (name, at) = place_of(disk, value);
    machine.disks[1].flip_bit(&name, at + value.len() as u64 / 2, 3);
}

#[tokio::test]
async fn a_damaged_journal_is_named_and_not_started() {
    let machine = Machine::new(6, 1, Seam::Solo);
    let broker = machine.open();
    let topic = create(&broker, "t", 1).await;
    let marked = vec![0xa7u8; 8000];
    append(&broker, &topic, 0, batch(&[&marked], 1)).await.unwrap();
    append(&broker, &topic, 0, batch(&[b"behind"], 1)).await.unwrap();
    let machine = machine.crash(broker);
    flip(&*machine.disks[1], &machine, &marked);
    let refused = machine.try_open(machine.options());
    let Err(StartError::Shard { shard: 1, reason }) = refused else { panic!("it started") };
    assert!(reason.to_string().contains("corrupt"), "{reason}");
}

/// Checkpoints that find no space are tried again by themselves, and let go of nothing until one is committed.
#[tokio::test]
async fn deletes_on_a_full_disk_make_room_however_many_checkpoints_fail_first() {
    let machine = Machine::new(11, 1, Seam::Solo);
    machine.disks[1].set_capacity(24 << 20);
    let broker = machine.open();
    let topic = create(&broker, "t", 1).await;
    let taken = fill(&broker, &topic).await;
    for fault in [CommitFault::Full, CommitFault::NotDone, CommitFault::Full, CommitFault::Done] {
        machine.pages[1].fail_commit(fault);
    }
    let partition = topic.partition(0).unwrap();
    let segments = broker.inner.shards[1].journal.segments().len();
    broker.delete_records(&Caller::OPERATOR, partition.shard, partition.id, Offset(-1)).await.unwrap();
    assert!(segments > 3 && broker.stats().shards[1].full);
    until(|| !broker.stats().shards[1].full).await;
    assert!(broker.stats().shards[1].failed_checkpoints >= 3);
    // The last one was committed.
    until(|| broker.stats().shards[1].checkpoints_fail_for.is_zero()).await;
    let appended = append(&broker, &topic, 0, batch(&[b"again"], 1)).await.unwrap();
    assert_eq!(appended.base_offset.0, taken);
    let machine = machine.crash(broker);
    let broker = machine.open();
    let fetched = read(&broker, &topic, 0, taken, 1000).await.unwrap();
    assert_eq!(values(&fetched), [(taken, b"again".to_vec())]);
    broker.shutdown();
}

#[tokio::test]
async fn a_block_applied_in_part_stops_its_shard_and_is_in_no_checkpoint() {
    let machine = Machine::new(12, 1, Seam::Solo);
    let broker = machine.open();
    let topic = create(&broker, "t", 1).await;
    append(&broker, &topic, 0, batch(&[b"before"], 1)).await.unwrap();
    let shard = broker.inner.shards[1].clone();
    shard.checkpoint().unwrap();
    let stored = machine.pages[1].crash();
    let first = broker.append(vec![item(&topic, 0, batch(&[b"first"], 1))]);
    shard.push(Priority::Ordinary, 999, b"of a newer version", None).unwrap();
    let second = broker.append(vec![item(&topic, 0, batch(&[b"second"], 1))]);
    broker.flush();
    // What came before the entry that failed took effect, and is answered and read so; what stands behind it is not known.
    assert_eq!(soon(first).await.remove(0).unwrap().base_offset, Offset(1));
    assert_eq!(soon(second).await[0], Err(AppendError::Shard(ShardFailure::StorageError).into()));
    assert_eq!(values(&read(&broker, &topic, 0, 1, 1000).await.unwrap()), [(1, b"first".to_vec())]);
    assert!(broker.stats().shards[1].stopped);
    assert_eq!(
        append(&broker, &topic, 0, batch(&[b"x"], 1)).await,
        Err(AppendError::Shard(ShardFailure::StorageError).into())
    );
    let refused = shard.checkpoint().unwrap_err();
    assert!(refused.to_string().contains("applied in part"), "{refused}");
    shard.seal();
    assert_eq!(machine.pages[1].crash().len(), stored.len());
    drop(shard);
    let machine = machine.crash(broker);
    let Err(StartError::Shard { shard: 1, reason }) = machine.try_open(machine.options()) else { panic!() };
    assert!(reason.to_string().contains("kind 999"), "{reason}");
}

/// What waits for space where that comes back only once it waits.
#[test]
fn a_start_whose_own_entries_find_no_space_says_so_and_goes_on_when_there_is_some() {
    keep_log();
    // Of a new data directory the catalog has most to write, of an old one every shard the same.
    let rounds = (0..12).map(|skip| (true, 0, skip)).chain((0..12).map(|skip| (false, 1, skip)));
    let mut waited = [0, 0];
    for (is_new, shard, skip) in rounds {
        let machine = Arc::new(Machine::new(31 + skip, 2, Seam::Solo));
        if !is_new {
            machine.open().shutdown();
        }
        let injection = Injection { op: Some(Op::Write), skip, fault: Fault::Full, lasting: true };
        machine.disks[shard].inject(injection);
        let options = machine.options();
        let progress = options.progress.clone();
        let (done, opened) = std::sync::mpsc::channel();
        let opening = machine.clone();
        std::thread::spawn(move || drop(done.send(opening.try_open(options))));
        let mut result = opened.recv_timeout(Duration::from_millis(1));
        let began = Instant::now();
        while result.is_err() && !progress.step().full {
            assert!(began.elapsed() < Duration::from_secs(20), "{:?}", progress.step());
            result = opened.recv_timeout(Duration::from_millis(1));
        }
        if result.is_err() {
            let told = || logged(&["WARN", "the disk is full", &format!("shard={shard} ")]).len();
            assert!(told() > 0, "{:?}", progress.step());
            waited[usize::from(is_new)] += 1;
            machine.disks[shard].end_faults();
            result = opened.recv_timeout(Duration::from_secs(20));
            assert!(matches!(result, Ok(Ok(_))), "{skip}: {:?}", progress.step());
            assert!(!progress.step().full);
        }
        // What cannot be written of a journal's slots ends the start.
        machine.disks[shard].end_faults();
        if let Ok(Ok(broker)) = result {
            broker.shutdown();
        }
    }
    assert!(waited.iter().all(|&waited| waited > 0), "{waited:?}");
}

/// Something is written to an idle disk again and again, by which it is seen whether it answers: of what is there, and nothing new.
#[tokio::test]
async fn a_disk_that_nothing_is_written_to_is_asked_whether_it_answers() {
    for idle_check in [Duration::from_millis(50), Duration::ZERO] {
        let machine = Machine::new(31, 1, Seam::Solo);
        let broker = machine.try_open(BrokerOptions { idle_check, ..machine.options() }).unwrap();
        let (shard, disk) = (&broker.inner.shards[1], &machine.disks[1]);
        // What was noted last stays so.
        let is_quiet =
            || shard.journal.stats().seals > 0 && shard.journal.prepare().unwrap() == Prepared::Full;
        until(is_quiet).await;
        tokio::time::sleep(Duration::from_millis(2500)).await;
        let (before, files, slot) = (disk.operations(), disk.list().unwrap(), shard.journal.found());
        if idle_check.is_zero() {
            tokio::time::sleep(Duration::from_millis(2500)).await;
            assert_eq!(disk.operations(), before);
        } else {
            // A write and a sync each.
            until(|| disk.operations() >= before + 4).await;
        }
        assert_eq!((disk.list().unwrap(), shard.journal.found().run), (files, slot.run));
        broker.shutdown();
    }
}

//! Projections of front ends: what is written there is read in its order, survives crashes, and is kept apart.

mod model;
mod subscriptions;

use std::sync::Arc;

use sabir_base::clock::SystemClock;
use sabir_journal::Replicator;
use sabir_journal::disk::sim::{Fault, Injection, Op};
use sabir_model::{
    AppendError, FrontendNo, Offset, QueueConfig, ShardFailure, ShardId, TimestampType, TopicConfig,
    TopicError,
};

use super::registers::{
    REGISTERS, Registers, THERE, delete, draw, lease, log_new, newer, panics, pin, set, settle, trim, unpin,
};
use super::rig::{append, batch, create, item, new_topic, options, pending, read, soon, until, values};
use super::sim::{Machine, Seam};
use crate::partition::PartitionKey;
use crate::projection::View;
use crate::queue::QueueTarget;
use crate::testing::Disks;
use crate::{
    Broker, BrokerOptions, Caller, EntryRef, EntryRefused, FormatLevel, NewTopic, ProjectionEntry,
    ReadTarget, Reply, StartError, Topic,
};

/// The front end whose projection it is.
const OWN: Caller = Caller::front_end("registers");

type Answer = Reply<Result<bytes::Bytes, ShardFailure>>;
type Value = Option<Vec<u8>>;

fn machine(shards: usize, seam: Seam) -> Machine {
    Machine { projections: vec![REGISTERS], ..Machine::new(11, shards, seam) }
}

fn number(broker: &Broker) -> FrontendNo {
    broker.projection("registers").unwrap()
}

fn write(broker: &Broker, shard: u32, command: bytes::Bytes) -> (EntryRef, Answer) {
    broker.write(&OWN, ShardId(shard), number(broker), &ProjectionEntry::new(command)).unwrap()
}

/// Reads a key right behind an entry.
fn get(broker: &Broker, behind: &EntryRef, key: &'static str) -> Reply<Result<Value, ShardFailure>> {
    let number = number(broker);
    broker.after(&OWN, behind, move |view| view.projection::<Registers>(number).and_then(|own| own.get(key)))
}

fn look(broker: &Broker, shard: u32, key: &str) -> Value {
    let number = number(broker);
    broker
        .look(&OWN, ShardId(shard), |view| view.projection::<Registers>(number).and_then(|own| own.get(key)))
        .unwrap()
}

fn some(text: &str) -> Value {
    Some(text.as_bytes().to_vec())
}

/// Has all that was written committed.
async fn commit(machine: &Machine, broker: &Broker, shard: u32) {
    let shard = broker.inner.shards[shard as usize].clone();
    until(|| {
        machine.commit_all();
        shard.in_flight() == 0 && shard.waiting_bytes() == 0
    })
    .await;
}

/// As a connection does that does not wait for its answers.
async fn pipeline(machine: &Machine, broker: &Broker, shard: u32) {
    let (one, before) = write(broker, shard, set("k", b"1"));
    let between = get(broker, &one, "k");
    let (two, replaced) = write(broker, shard, set("k", b"2"));
    let (behind, other) = (get(broker, &two, "k"), get(broker, &two, "another"));
    let (gone, last) = write(broker, shard, delete("k"));
    let end = get(broker, &gone, "k");
    broker.flush();
    assert_eq!(look(broker, shard, "k"), None, "nothing is committed yet");
    commit(machine, broker, shard).await;
    assert_eq!(soon(before).await.unwrap(), "");
    assert_eq!(soon(between).await, Ok(some("1")));
    assert_eq!(soon(replaced).await.unwrap(), "1");
    assert_eq!((soon(behind).await, soon(other).await), (Ok(some("2")), Ok(None)));
    assert_eq!(soon(last).await.unwrap(), "2");
    assert_eq!(soon(end).await, Ok(None));
    // It is applied by now, and read at once.
    assert_eq!(soon(get(broker, &one, "k")).await, Ok(None));
}

async fn pipelines(shards: usize) {
    let machine = machine(shards, Seam::Told);
    let broker = machine.open();
    for shard in 1..=shards as u32 {
        pipeline(&machine, &broker, shard).await;
    }
    machine.freely(|| broker.shutdown());
}

#[tokio::test]
async fn what_is_read_behind_an_entry_is_what_that_one_left_with_one_data_shard() {
    pipelines(1).await;
}

#[tokio::test]
async fn what_is_read_behind_an_entry_is_what_that_one_left_with_three_data_shards() {
    pipelines(3).await;
}

#[tokio::test]
async fn what_is_read_behind_an_entry_that_was_cut_is_told_why() {
    let machine = machine(1, Seam::Told);
    let broker = machine.open();
    let late = machine.late.lock()[1].clone();
    let (kept, answer) = write(&broker, 1, set("k", b"kept"));
    broker.flush();
    commit(&machine, &broker, 1).await;
    soon(answer).await.unwrap();
    let (cut, answer) = write(&broker, 1, set("k", b"cut"));
    let mut behind = get(&broker, &cut, "k");
    broker.flush();
    assert!(pending(&mut behind).await);
    let shard = broker.inner.shards[1].clone();
    until(|| shard.in_flight() == 1 && shard.waiting_bytes() == 0).await;
    let after = late.committed();
    tokio::task::spawn_blocking(move || late.cut(after).unwrap()).await.unwrap();
    assert_eq!(soon(answer).await, Err(ShardFailure::NotLeader));
    assert_eq!(soon(behind).await, Err(ShardFailure::NotLeader));
    assert_eq!(soon(get(&broker, &cut, "k")).await, Err(ShardFailure::NotLeader), "asked later");
    assert_eq!(soon(get(&broker, &kept, "k")).await, Ok(some("kept")));
    machine.freely(|| broker.shutdown());
}

/// The first entry of a shard says whose the number is; one that is cut has said nothing.
#[tokio::test]
async fn the_first_entry_may_be_cut() {
    let machine = machine(1, Seam::Told);
    let broker = machine.open();
    let late = machine.late.lock()[1].clone();
    let (_, cut) = write(&broker, 1, set("k", b"cut"));
    broker.flush();
    let shard = broker.inner.shards[1].clone();
    until(|| shard.in_flight() == 1 && shard.waiting_bytes() == 0).await;
    let after = late.committed();
    tokio::task::spawn_blocking(move || late.cut(after).unwrap()).await.unwrap();
    assert_eq!(soon(cut).await, Err(ShardFailure::NotLeader));
    let (_, answer) = write(&broker, 1, set("k", b"kept"));
    broker.flush();
    commit(&machine, &broker, 1).await;
    assert_eq!(soon(answer).await.unwrap(), "");
    assert_eq!(look(&broker, 1, "k"), some("kept"));
    machine.freely(|| broker.shutdown());
}

#[tokio::test]
async fn a_read_that_panics_ends_alone() {
    let machine = machine(1, Seam::Told);
    let broker = machine.open();
    let (entry, answer) = write(&broker, 1, set("k", b"1"));
    let panics = broker.after(&OWN, &entry, |_| -> u8 { panic!("wanted by the test") });
    let behind = get(&broker, &entry, "k");
    broker.flush();
    commit(&machine, &broker, 1).await;
    assert_eq!(soon(panics).await, Err(ShardFailure::StorageError));
    assert_eq!(soon(behind).await, Ok(some("1")));
    assert!(soon(answer).await.is_ok());
    assert!(!broker.stats().shards[1].stopped);
    machine.freely(|| broker.shutdown());
}

#[tokio::test]
async fn records_come_with_an_entry_and_are_appended_only_if_it_says_so() {
    let machine = machine(1, Seam::Solo);
    let broker = machine.open();
    let stamped = TopicConfig { timestamp_type: TimestampType::LogAppendTime, ..TopicConfig::default() };
    let new = NewTopic { config: stamped, ..new_topic("stamped", 1) };
    let stamped = broker.create_topics(&Caller::OPERATOR, vec![new]).await.remove(0).unwrap();
    let plain = create(&broker, "plain", 1).await;
    for (topic, key) in [(&plain, "p"), (&stamped, "s")] {
        append(&broker, topic, 0, batch(&[b"before"], 1)).await.unwrap();
        let entry = |text: &[u8]| ProjectionEntry {
            batches: vec![item(topic, 0, batch(&[text], 5))],
            ..ProjectionEntry::new(log_new(key, text))
        };
        let (number, big) = (number(&broker), [b"first".as_slice(), &[7; 9000]].concat());
        let asked = [entry(&big), entry(b"second")];
        let answers = asked.map(|entry| broker.write(&OWN, ShardId(1), number, &entry).unwrap().1);
        broker.flush();
        let [first, second] = answers;
        assert_eq!(soon(first).await.unwrap(), 1i64.to_be_bytes().as_slice());
        assert_eq!(soon(second).await.unwrap(), THERE);
        append(&broker, topic, 0, batch(&[b"after"], 1)).await.unwrap();
        let fetched = read(&broker, topic, 0, 0, 1 << 20).await.unwrap();
        let expected = [(0, b"before".to_vec()), (1, big.clone()), (2, b"after".to_vec())];
        assert_eq!(values(&fetched), expected, "{key}");
        assert_eq!(look(&broker, 1, key), Some(big));
        let own = topic.traffic.own().unwrap();
        let sizes = [b"before".to_vec(), expected[1].1.clone(), b"after".to_vec()];
        let bytes: usize = sizes.iter().map(|value| batch(&[value], 5).len()).sum();
        assert_eq!(own.received(), bytes as u64, "what was not appended is not counted");
    }
    // As when the topic goes while the entry is under way.
    let gone = item(&plain, 0, batch(&[b"x"], 5));
    broker.delete_topics(&Caller::OPERATOR, vec![plain.id]).await.remove(0).unwrap();
    let entry = ProjectionEntry { batches: vec![gone], ..ProjectionEntry::new(log_new("new", b"x")) };
    let (_, answer) = broker.write(&OWN, ShardId(1), number(&broker), &entry).unwrap();
    broker.flush();
    assert_eq!(soon(answer).await.unwrap(), AppendError::UnknownPartition.to_string());
    assert_eq!(look(&broker, 1, "new"), None);
    broker.shutdown();
}

#[tokio::test]
async fn what_cannot_be_written_is_refused_before_anything_is_kept() {
    let machine = machine(2, Seam::Solo);
    let broker = machine.open();
    let topic = create(&broker, "t", 2).await;
    let number = number(&broker);
    let write = |shard, number, entry: &ProjectionEntry| {
        broker.write(&OWN, ShardId(shard), number, entry).err().map(|error| error.to_string())
    };
    let plain = ProjectionEntry::new(set("k", b"v"));
    assert!(write(9, number, &plain).unwrap().contains("no such shard"));
    assert!(write(1, FrontendNo(77), &plain).unwrap().contains("no such projection"));
    assert!(matches!(broker.projection("hash"), Err(EntryRefused::UnknownProjection)));
    let of_second = topic.partitions.iter().find(|partition| partition.shard.0 == 2).unwrap().index;
    let elsewhere = ProjectionEntry {
        batches: vec![item(&topic, of_second, batch(&[b"x"], 1))],
        ..ProjectionEntry::new(log_new("k", b"v"))
    };
    assert!(write(1, number, &elsewhere).unwrap().contains("another shard"));
    for len in [(1 << 20) + (64 << 10), 40 << 20] {
        let large = ProjectionEntry::new(set("k", &vec![1; len]));
        assert!(write(1, number, &large).unwrap().contains("may take"), "{len}");
        let batch = item(&topic, of_second, batch(&[&vec![1; len]], 1));
        let large = ProjectionEntry { batches: vec![batch], ..ProjectionEntry::new(log_new("k", b"v")) };
        assert!(write(2, number, &large).unwrap().contains("may take"), "{len}");
    }
    assert_eq!(broker.inner.shards[1].waiting_bytes() + broker.inner.shards[2].waiting_bytes(), 0);
    // The largest that there can be, alone and behind another one.
    for _ in 0..2 {
        let most = (1 << 20) + (64 << 10) - 200;
        let (_, small) = broker.write(&OWN, ShardId(1), number, &plain).unwrap();
        let largest = ProjectionEntry::new(set("large", &vec![7; most]));
        let (_, large) = broker.write(&OWN, ShardId(1), number, &largest).unwrap();
        broker.flush();
        assert!(soon(small).await.is_ok() && soon(large).await.is_ok());
        assert_eq!(look(&broker, 1, "large").unwrap().len(), most);
    }
    broker.shutdown();
}

#[tokio::test]
async fn the_time_and_a_seed_come_with_the_entry() {
    let machine = machine(1, Seam::Solo);
    let broker = machine.open();
    let mut seen = Vec::new();
    for seeded in [true, true, false] {
        let entry = ProjectionEntry { seeded, ..ProjectionEntry::new(draw("r")) };
        let (entry, answer) = broker.write(&OWN, ShardId(1), number(&broker), &entry).unwrap();
        broker.flush();
        soon(answer).await.unwrap();
        let drawn = String::from_utf8(soon(get(&broker, &entry, "r")).await.unwrap().unwrap()).unwrap();
        let (time, seed) = drawn.split_once(' ').unwrap();
        assert!(time.parse::<i64>().unwrap() >= 1_000_000);
        seen.push(seed.to_owned());
    }
    assert!(seen[0] != seen[1] && seen[0] != "0" && seen[2] == "0", "{seen:?}");
    machine.agrees_with_replay(&broker);
    broker.shutdown();
}

#[tokio::test]
async fn a_block_that_a_projection_needs_is_kept_with_all_above_it() {
    let machine = machine(1, Seam::Solo);
    let options = BrokerOptions { checkpoint_bytes: 1 << 20, ..machine.options() };
    let broker = machine.try_open(options).unwrap();
    let topic = create(&broker, "t", 1).await;
    let partition = *topic.partition(0).unwrap();
    let (_, pinned) = write(&broker, 1, pin("k"));
    broker.flush();
    soon(pinned).await.unwrap();
    let shard = broker.inner.shards[1].clone();
    let first = shard.state.read().lowest_block().unwrap();
    let segment = shard.journal.segment_of(first).unwrap();
    let checkpoints = || broker.stats().shards[1].checkpoints;
    for _ in 0..100 {
        append(&broker, &topic, 0, batch(&[&[1; 100_000]], 1)).await.unwrap();
    }
    broker.delete_records(&Caller::OPERATOR, partition.shard, partition.id, Offset(-1)).await.unwrap();
    for _ in 0..3 {
        shard.checkpoint().unwrap();
    }
    let kept = || shard.journal.segments().iter().any(|there| there.no == segment);
    assert!(checkpoints() >= 3 && kept() && shard.journal.segments().len() >= 5);
    let (_, released) = write(&broker, 1, unpin("k"));
    broker.flush();
    soon(released).await.unwrap();
    shard.checkpoint().unwrap();
    shard.checkpoint().unwrap();
    assert!(!kept() && shard.journal.segments().len() <= 3, "{:?}", shard.journal.segments());
    broker.shutdown();
}

#[tokio::test]
async fn a_command_of_a_later_version_stops_its_shard_by_name_and_each_start_after_it() {
    let machine = machine(2, Seam::Solo);
    let broker = machine.open();
    let (_, good) = write(&broker, 1, set("k", b"v"));
    let (_, bad) = write(&broker, 1, newer());
    let (_, behind) = write(&broker, 1, set("k", b"w"));
    broker.flush();
    assert!(soon(good).await.is_ok());
    assert_eq!(soon(bad).await, Err(ShardFailure::StorageError));
    assert_eq!(soon(behind).await, Err(ShardFailure::StorageError));
    let stopped: Vec<bool> = broker.stats().shards.iter().map(|shard| shard.stopped).collect();
    assert_eq!(stopped, [false, true, false]);
    assert_eq!(look(&broker, 1, "k"), some("v"), "reads go on");
    broker.shutdown();
    drop(broker);
    let error = machine.try_open(machine.options()).err().unwrap().to_string();
    assert!(error.contains("shard 1") && error.contains("of the front end registers: "), "{error}");
}

#[tokio::test]
async fn a_shard_with_state_of_a_front_end_that_is_not_there_does_not_open() {
    for in_checkpoint in [false, true] {
        let machine = machine(1, Seam::Solo);
        let broker = machine.open();
        let (_, answer) = write(&broker, 1, set("k", b"v"));
        broker.flush();
        soon(answer).await.unwrap();
        if in_checkpoint {
            broker.shutdown();
        }
        let machine = if in_checkpoint {
            drop(broker);
            machine
        } else {
            machine.crash(broker)
        };
        let without = BrokerOptions { projections: Vec::new(), ..machine.options() };
        let error = machine.try_open(without).err().unwrap().to_string();
        assert!(error.contains("shard 1") && error.contains("registers, which this version"), "{error}");
        let broker = machine.open();
        assert_eq!(look(&broker, 1, "k"), some("v"), "nothing was lost by that");
        broker.shutdown();
    }
}

#[tokio::test]
async fn what_panics_as_it_is_applied_stops_its_shard_reads_too() {
    let machine = machine(2, Seam::Solo);
    let broker = machine.open();
    let (good, answer) = write(&broker, 1, set("k", b"v"));
    broker.flush();
    soon(answer).await.unwrap();
    let (bad, answer) = write(&broker, 1, panics());
    let behind = get(&broker, &bad, "k");
    broker.flush();
    assert_eq!(soon(answer).await, Err(ShardFailure::StorageError));
    assert_eq!(soon(behind).await, Err(ShardFailure::StorageError));
    assert_eq!(
        soon(get(&broker, &good, "k")).await,
        Err(ShardFailure::StorageError),
        "nothing is believed there"
    );
    assert!(broker.look(&OWN, ShardId(1), |_| ()).is_err());
    let (_, elsewhere) = write(&broker, 2, set("k", b"v"));
    broker.flush();
    assert!(soon(elsewhere).await.is_ok());
    broker.shutdown();
}

#[tokio::test]
async fn what_is_read_behind_an_entry_that_the_disk_lost_is_told_so_and_what_was_there_is_read() {
    let machine = machine(1, Seam::Solo);
    let broker = machine.open();
    let (_, answer) = write(&broker, 1, set("k", b"there"));
    broker.flush();
    soon(answer).await.unwrap();
    machine.disks[1].inject(Injection { op: Some(Op::Write), skip: 0, fault: Fault::Io, lasting: false });
    let (lost, answer) = write(&broker, 1, set("k", b"lost"));
    let behind = get(&broker, &lost, "k");
    broker.flush();
    assert_eq!(soon(answer).await, Err(ShardFailure::StorageError));
    assert_eq!(soon(behind).await, Err(ShardFailure::StorageError));
    assert_eq!(look(&broker, 1, "k"), some("there"));
    let refused = broker.write(&OWN, ShardId(1), number(&broker), &ProjectionEntry::new(delete("k"))).err();
    assert_eq!(refused, Some(EntryRefused::Shard(ShardFailure::StorageError)));
    broker.shutdown();
}

#[tokio::test]
async fn a_projection_is_written_and_seen_by_its_own_front_end_alone() {
    let machine = machine(1, Seam::Solo);
    let broker = machine.open();
    let (entry, answer) = write(&broker, 1, set("k", b"v"));
    broker.flush();
    soon(answer).await.unwrap();
    let (number, command) = (number(&broker), ProjectionEntry::new("a command that it cannot read"));
    let client = |name| Caller::client(name, crate::SessionId(1));
    for other in [client("other"), Caller::front_end("register"), Caller::OPERATOR] {
        let written = broker.write(&other, ShardId(1), number, &command).err();
        assert_eq!(written, Some(EntryRefused::OtherFrontend));
        let seen = |view: &View<'_>| view.projection::<Registers>(number).is_some();
        assert_eq!(broker.look(&other, ShardId(1), seen), Ok(false));
        let seen = move |view: &View<'_>| view.projection::<Registers>(number).is_some();
        assert_eq!(soon(broker.after(&other, &entry, seen)).await, Ok(false));
    }
    assert_eq!(
        broker.look(&client("registers"), ShardId(1), |view| view.projection::<Registers>(number).is_some()),
        Ok(true)
    );
    assert_eq!(look(&broker, 1, "k"), some("v"), "the shard goes on");
    broker.shutdown();
}

#[tokio::test]
async fn an_entry_leases_and_settles_messages_moves_log_starts_and_is_told_of_what_is_gone() {
    let machine = machine(1, Seam::Solo);
    let broker = machine.open();
    let plain = create(&broker, "plain", 1).await;
    let new = NewTopic { config: TopicConfig::of_queue(QueueConfig::default()), ..new_topic("queue", 1) };
    let queue = broker.create_topics(&Caller::OPERATOR, vec![new]).await.remove(0).unwrap();
    let (log, id) = (plain.partitions[0].id, queue.partitions[0].id);
    for topic in [&plain, &queue] {
        append(&broker, topic, 0, batch(&[b"a", b"b", b"c"], 5)).await.unwrap();
    }
    let ask = async |entry: ProjectionEntry| {
        let (_, answer) = broker.write(&OWN, ShardId(1), number(&broker), &entry).unwrap();
        broker.flush();
        String::from_utf8(soon(answer).await.unwrap().to_vec()).unwrap()
    };
    let told = async |command| ask(ProjectionEntry::new(command)).await;
    assert_eq!(told(lease(id, 2)).await, "[0..2]");
    let batches = vec![item(&queue, 0, batch(&[b"d"], 5))];
    let published = ProjectionEntry { batches, ..ProjectionEntry::new(lease(id, 9)) };
    assert_eq!(ask(published).await, "[2..4]", "what the entry appends among them");
    assert_eq!(told(lease(id, 1)).await, "[]");
    assert_eq!((told(settle(id, 0)).await, told(settle(id, 0)).await), ("1".into(), "0".into()));
    let target = |topic| ReadTarget::new(&Caller::OPERATOR, topic, 0).unwrap();
    let kept = broker.partition_stats(target(&queue)).unwrap();
    assert_eq!((kept.start, kept.end), (Offset(1), Offset(4)), "the log lets go of what is settled");
    assert_eq!(told(lease(log, 1)).await, "there is no such queue or subscription");
    assert_eq!(told(trim(log, 2)).await, "Some((2, 3))");
    assert_eq!(told(trim(id, 2)).await, TopicError::QueuePartition(id).to_string());
    assert_eq!(
        told(trim(log, 4)).await,
        TopicError::OffsetOutOfRange { asked: Offset(4), end: Offset(3) }.to_string()
    );
    let queues = broker.queues();
    let stats = queues.stats(QueueTarget::new(&Caller::OPERATOR, &queue).unwrap()).unwrap();
    assert_eq!((stats.ready, stats.in_flight), (0, 3));
    machine.agrees_with_replay(&broker);
    broker.delete_topics(&Caller::OPERATOR, vec![plain.id]).await.remove(0).unwrap();
    assert_eq!(look(&broker, 1, "gone"), some(&log.0.to_string()));
    machine.agrees_with_replay(&broker);
    broker.shutdown();
}

#[tokio::test]
async fn on_a_full_disk_only_what_makes_space_is_taken() {
    let machine = machine(1, Seam::Solo);
    machine.disks[1].set_capacity(24 << 20);
    let broker = machine.open();
    let number = number(&broker);
    let full = loop {
        match broker.write(&OWN, ShardId(1), number, &ProjectionEntry::new(set("k", &[7; 500_000]))) {
            Ok((_, answer)) => {
                broker.flush();
                if let Err(failure) = soon(answer).await {
                    break EntryRefused::Shard(failure);
                }
            }
            Err(refused) => break refused,
        }
    };
    assert_eq!(full, EntryRefused::Shard(ShardFailure::StorageFull));
    assert_eq!(look(&broker, 1, "k").unwrap().len(), 500_000, "reads go on");
    let deletion = ProjectionEntry { makes_space: true, ..ProjectionEntry::new(delete("k")) };
    let (_, answer) = broker.write(&OWN, ShardId(1), number, &deletion).unwrap();
    broker.flush();
    assert_eq!(soon(answer).await.unwrap().len(), 500_000);
    assert_eq!(look(&broker, 1, "k"), None);
    broker.shutdown();
}

#[tokio::test]
async fn entries_do_not_pile_up_behind_a_disk_that_hangs_nor_do_their_batches() {
    const MOST: usize = 2 << 20;
    let dir = tempfile::tempdir().unwrap();
    let options = BrokerOptions { open_bytes_max: MOST, projections: vec![REGISTERS], ..options(dir.path()) };
    let (broker, disks) = Disks::open(options, Arc::new(SystemClock)).unwrap();
    let topic = create(&broker, "t", 1).await;
    let number = number(&broker);
    let batches = vec![item(&topic, 0, batch(&[&[1; 100_000]], 1))];
    let with_batch = ProjectionEntry { batches, ..ProjectionEntry::new(log_new("k", b"v")) };
    for entry in [ProjectionEntry::new(set("k", &[1; 4000])), with_batch, ProjectionEntry::new(set("k", b""))]
    {
        disks.hang(ShardId(1));
        let all = (0..80_000).map(|_| broker.write(&OWN, ShardId(1), number, &entry));
        let (taken, refused): (Vec<_>, Vec<_>) = all.partition(Result::is_ok);
        assert!(!taken.is_empty() && refused.iter().all(|it| matches!(it, Err(EntryRefused::Crowded))));
        assert!(!refused.is_empty(), "{}", entry.bytes());
        assert!(broker.inner.shards[1].waiting_bytes() < 2 * MOST + entry.bytes());
        disks.resume();
        soon(broker.room(ShardId(1))).await;
        for written in taken {
            assert!(soon(written.unwrap().1).await.is_ok());
        }
    }
    broker.shutdown();
}

#[tokio::test]
async fn what_is_written_where_there_is_room_is_never_refused() {
    const MOST: usize = 2 << 20;
    let dir = tempfile::tempdir().unwrap();
    let options = BrokerOptions { open_bytes_max: MOST, projections: vec![REGISTERS], ..options(dir.path()) };
    let (broker, disks) = Disks::open(options, Arc::new(SystemClock)).unwrap();
    let number = number(&broker);
    for bytes in [1, 60_000, 700_000] {
        let entry = ProjectionEntry::new(set("k", &vec![1; bytes]));
        disks.hang(ShardId(1));
        let mut written = Vec::new();
        while broker.has_room(ShardId(1)) {
            written.push(broker.write(&OWN, ShardId(1), number, &entry).unwrap());
        }
        // Another one looked before the last of them was written.
        written.push(broker.write(&OWN, ShardId(1), number, &entry).unwrap());
        assert!(broker.inner.shards[1].waiting_bytes() <= 2 * (MOST + bytes), "it is bounded");
        disks.resume();
        for (_, answer) in written {
            assert!(soon(answer).await.is_ok());
        }
    }
    broker.shutdown();
}

/// One that was never used is in no other's way.
#[tokio::test]
async fn a_front_end_that_wrote_nothing_may_go() {
    let machine = machine(1, Seam::Solo);
    let broker = machine.open();
    assert_eq!(look(&broker, 1, "k"), None);
    broker.shutdown();
    drop(broker);
    let without = BrokerOptions { projections: Vec::new(), ..machine.options() };
    let broker = machine.try_open(without).unwrap();
    assert_eq!(broker.format_level(), FormatLevel::NEWEST);
    assert!(broker.projection("registers").is_err());
    broker.shutdown();
}

#[test]
fn projections_have_names_of_their_own() {
    let dir = tempfile::tempdir().unwrap();
    let open = |projections| {
        let options = BrokerOptions { projections, ..options(dir.path()) };
        match Broker::open(options, Arc::new(SystemClock)) {
            Err(StartError::Options(why)) => why,
            other => panic!("{:?}", other.err()),
        }
    };
    assert!(open(vec![REGISTERS, REGISTERS]).contains("two projections called \"registers\""));
    let nameless = crate::projection::ProjectionFactory { name: "", ..REGISTERS };
    assert!(open(vec![nameless]).contains("1 to 64 bytes"));
    let twice = crate::projection::ProjectionFactory {
        name: "twice",
        make: |maps| {
            let _ = maps.map::<PartitionKey, crate::partition::PartitionState>(0)?;
            let _ = maps.map::<PartitionKey, crate::partition::PartitionState>(0)?;
            Err(crate::projection::PageError::InUse { path: String::new() })
        },
    };
    assert!(open(vec![twice]).contains("\"twice\" cannot be made"));
}

//! The broker against a model of it: random work of idempotent producers, deletes, checkpoints, restarts and power cuts.
//!
//! What was answered stays where it was; nothing stands in a log twice or out of order; and after every start the
//! projections are those of a replay from zero.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;
use sabir_model::{AppendError, Offset, ShardFailure, TopicError};

use super::rig::{item, produced, read, soon, until, values};
use super::sim::{Machine, Seam};
use crate::{Broker, Caller, Topic};

const TOPICS: usize = 3;
const PARTITIONS: usize = 4;
/// A producer has at most so many batches under way.
const PIPELINE: usize = 5;

#[derive(Debug, Clone)]
enum Step {
    /// Batches of these sizes sent at once, and waited for.
    Send {
        topic: usize,
        partition: usize,
        sizes: Vec<usize>,
    },
    /// The last batches once more.
    Repeat {
        topic: usize,
        partition: usize,
    },
    DeleteRecords {
        topic: usize,
        partition: usize,
        keep: i64,
    },
    Recreate {
        topic: usize,
    },
    Checkpoint {
        shard: usize,
    },
    Restart,
    /// Batches are under way, the disk does so much of its work, and the power goes.
    Crash {
        topic: usize,
        partition: usize,
        sizes: Vec<usize>,
        steps: usize,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let topic = 0..TOPICS;
    let partition = 0..PARTITIONS;
    let sizes = || prop::collection::vec(prop_oneof![4 => 1usize..300, 1 => 4000usize..9000], 1..=PIPELINE);
    prop_oneof![
        10 => (topic.clone(), partition.clone(), sizes())
            .prop_map(|(topic, partition, sizes)| Step::Send { topic, partition, sizes }),
        2 => (topic.clone(), partition.clone()).prop_map(|(topic, partition)| Step::Repeat { topic, partition }),
        2 => (topic.clone(), partition.clone(), 0i64..6)
            .prop_map(|(topic, partition, keep)| Step::DeleteRecords { topic, partition, keep }),
        1 => topic.clone().prop_map(|topic| Step::Recreate { topic }),
        2 => (0..4usize).prop_map(|shard| Step::Checkpoint { shard }),
        1 => Just(Step::Restart),
        2 => (topic, partition, sizes(), 0..12usize)
            .prop_map(|(topic, partition, sizes, steps)| Step::Crash { topic, partition, sizes, steps }),
    ]
}

/// What a partition must hold.
#[derive(Debug, Default)]
struct Log {
    /// Record values by offset, of what was acknowledged and is kept.
    records: BTreeMap<i64, Vec<u8>>,
    log_start: i64,
    /// Its producer's next sequence number; two records a batch.
    sequence: i32,
    /// The last batches, with their sequence numbers and offsets.
    last: Vec<(i32, Vec<u8>, i64)>,
}

struct World {
    machine: Machine,
    broker: Broker,
    topics: Vec<Arc<Topic>>,
    logs: Vec<Vec<Log>>,
    producer: i64,
    made: u8,
}

/// Two records: the value, and the value with a mark behind it.
fn pair(value: &[u8]) -> [Vec<u8>; 2] {
    [value.to_vec(), [value, b"'"].concat()]
}

impl World {
    async fn new(seed: u64, shards: usize, seam: Seam) -> Self {
        let machine = Machine { recycle: false, ..Machine::new(seed, shards, seam) };
        let broker = machine.open();
        let producer = loop {
            match soon(broker.allocate_producer_id(&Caller::OPERATOR)).await {
                Ok(id) => break id.0,
                Err(error) => assert_eq!(error, ShardFailure::NotLeader.into()),
            }
        };
        let (topics, logs) = (Vec::new(), Vec::new());
        let mut world = Self { machine, broker, topics, logs, producer, made: 0 };
        for number in 0..TOPICS {
            let topic = world.create(&format!("t{number}")).await;
            world.topics.push(topic);
            world.logs.push((0..PARTITIONS).map(|_| Log::default()).collect());
        }
        world
    }

    /// Creates a topic; a cut makes it try again.
    async fn create(&self, name: &str) -> Arc<Topic> {
        loop {
            let new = super::rig::new_topic(name, PARTITIONS as u32);
            match soon(self.broker.create_topics(&Caller::OPERATOR, vec![new])).await.remove(0) {
                Ok(topic) => return topic,
                // It exists, and a later step was cut: that is made up for.
                Err(TopicError::Exists(_)) => {
                    until(|| self.broker.catalog().topic(name).is_some()).await;
                    return self.broker.catalog().topic(name).cloned().unwrap();
                }
                Err(error) => assert_eq!(error, ShardFailure::NotLeader.into()),
            }
        }
    }

    fn value(&mut self, size: usize) -> Vec<u8> {
        self.made = self.made.wrapping_add(1);
        vec![self.made; size]
    }

    /// Sends a batch without waiting.
    fn start(&self, topic: usize, partition: usize, sequence: i32, value: &[u8]) -> crate::Appending {
        let [one, two] = pair(value);
        let batch = produced(&[&one, &two], self.producer, 0, sequence);
        let appending = self.broker.append(vec![item(&self.topics[topic], partition as i32, batch)]);
        self.broker.flush();
        appending
    }

    async fn take(mut self, step: &Step) -> Self {
        match step {
            Step::Send { topic, partition, sizes } => {
                let values = sizes.iter().map(|size| self.value(*size)).collect();
                self.send(*topic, *partition, values).await;
            }
            Step::Repeat { topic, partition } => self.repeat(*topic, *partition).await,
            Step::DeleteRecords { topic, partition, keep } => {
                self.delete_records(*topic, *partition, *keep).await;
            }
            Step::Recreate { topic } => self.recreate(*topic).await,
            Step::Checkpoint { shard } => {
                let shards = &self.broker.inner.shards;
                shards[shard % shards.len()].checkpoint().unwrap();
            }
            Step::Restart => {
                let broker = self.broker.clone();
                tokio::task::spawn_blocking(move || broker.shutdown()).await.unwrap();
                self = self.reopened().await;
            }
            Step::Crash { topic, partition, sizes, steps } => {
                return self.crash(*topic, *partition, sizes, *steps).await;
            }
        }
        self
    }

    /// As a producer does: several under way, and what was refused again, in order.
    async fn send(&mut self, topic: usize, partition: usize, values: Vec<Vec<u8>>) {
        let first = self.logs[topic][partition].sequence;
        let mut left: Vec<(i32, Vec<u8>)> =
            values.into_iter().enumerate().map(|(i, value)| (first + 2 * i as i32, value)).collect();
        while !left.is_empty() {
            // The first batch of all goes alone: of a producer that is not known yet any sequence is the next one.
            let at_once = if left[0].0 == 0 { 1 } else { left.len() };
            let sent: Vec<_> =
                left[..at_once].iter().map(|(s, value)| self.start(topic, partition, *s, value)).collect();
            let mut refused = Vec::new();
            for (appending, (sequence, value)) in sent.into_iter().zip(left.drain(..at_once)) {
                match soon(appending).await.remove(0).map_err(|about| about.error) {
                    Ok(appended) => {
                        self.acknowledged(topic, partition, sequence, value, appended.base_offset.0)
                    }
                    Err(
                        AppendError::Shard(ShardFailure::NotLeader) | AppendError::OutOfOrderSequence { .. },
                    ) => refused.push((sequence, value)),
                    Err(error) => panic!("{error}"),
                }
            }
            refused.append(&mut left);
            left = refused;
        }
    }

    fn acknowledged(&mut self, topic: usize, partition: usize, sequence: i32, value: Vec<u8>, offset: i64) {
        let log = &mut self.logs[topic][partition];
        // A copy that was cut may be answered after its successor: its first copy is in the log.
        log.sequence = log.sequence.max(sequence + 2);
        for (delta, value) in (0..).zip(pair(&value)) {
            let before = log.records.insert(offset + delta, value);
            assert_eq!(before, None, "an offset is given once");
        }
        log.last.push((sequence, value, offset));
        log.last.sort_unstable_by_key(|(sequence, ..)| *sequence);
        let old = log.last.len().saturating_sub(PIPELINE);
        log.last.drain(..old);
    }

    async fn repeat(&mut self, topic: usize, partition: usize) {
        for (sequence, value, offset) in self.logs[topic][partition].last.clone() {
            loop {
                match soon(self.start(topic, partition, sequence, &value)).await.remove(0) {
                    Ok(appended) => {
                        assert_eq!((appended.base_offset, appended.duplicate), (Offset(offset), true));
                        break;
                    }
                    Err(error) => assert_eq!(error, ShardFailure::NotLeader.into()),
                }
            }
        }
    }

    async fn delete_records(&mut self, topic: usize, partition: usize, keep: i64) {
        let log = &mut self.logs[topic][partition];
        let end = log.records.keys().next_back().map_or(log.log_start, |last| last + 1);
        let before = (end - keep).max(log.log_start);
        let place = *self.topics[topic].partition(partition as i32).unwrap();
        loop {
            match soon(self.broker.delete_records(&Caller::OPERATOR, place.shard, place.id, Offset(before)))
                .await
            {
                Ok(moved) => break assert_eq!(moved.0, before),
                Err(error) => assert_eq!(error, ShardFailure::NotLeader.into()),
            }
        }
        log.log_start = before;
        log.records = log.records.split_off(&before);
    }

    async fn recreate(&mut self, topic: usize) {
        let old = self.topics[topic].clone();
        loop {
            match soon(self.broker.delete_topics(&Caller::OPERATOR, vec![old.id])).await.remove(0) {
                Ok(()) | Err(TopicError::Unknown) => break,
                Err(error) => assert_eq!(error, ShardFailure::NotLeader.into()),
            }
        }
        let name = old.name.to_string();
        assert!(self.broker.catalog().topic(&name).is_none());
        let made = self.create(&name).await;
        assert_ne!(made.id, old.id);
        self.topics[topic] = made;
        self.logs[topic] = (0..PARTITIONS).map(|_| Log::default()).collect();
    }

    async fn crash(mut self, topic: usize, partition: usize, sizes: &[usize], steps: usize) -> Self {
        self.send(topic, partition, vec![b"before".to_vec()]).await;
        self.machine.disks.iter().for_each(|disk| disk.set_auto(false));
        let values: Vec<_> = sizes.iter().map(|size| self.value(*size)).collect();
        let first = self.logs[topic][partition].sequence;
        let started: Vec<_> = values
            .iter()
            .enumerate()
            .map(|(i, value)| self.start(topic, partition, first + 2 * i as i32, value))
            .collect();
        for _ in 0..steps {
            self.machine.disks.iter().for_each(|disk| {
                disk.step();
            });
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
        // Some may have been answered; what the others came to is found when they are sent again.
        let mut answered = Vec::new();
        for mut appending in started {
            let answer = std::future::poll_fn(|cx| {
                std::task::Poll::Ready(std::pin::Pin::new(&mut appending).poll(cx))
            });
            if let std::task::Poll::Ready(answer) = answer.await {
                answered.extend(answer);
            }
        }
        let Self { machine, broker, topics, logs, producer, made } = self;
        let machine = tokio::task::spawn_blocking(move || machine.crash(broker)).await.unwrap();
        machine.disks.iter().for_each(|disk| disk.set_auto(true));
        let (machine, broker) = open(machine).await;
        let mut world = Self { machine, broker, topics, logs, producer, made };
        world.check().await;
        let sent = values.len();
        world.send(topic, partition, values).await;
        let last = &world.logs[topic][partition].last;
        for (answer, (_, _, offset)) in answered.iter().zip(&last[last.len() - sent..]) {
            match answer {
                Ok(appended) => assert_eq!(appended.base_offset.0, *offset, "an answered offset stays"),
                Err(error) => {
                    assert!(
                        matches!(
                            error.error,
                            AppendError::Shard(ShardFailure::NotLeader)
                                | AppendError::OutOfOrderSequence { .. }
                        ),
                        "{error}"
                    );
                }
            }
        }
        world
    }

    async fn reopened(self) -> Self {
        let Self { machine, broker, topics, logs, producer, made } = self;
        drop(broker);
        let (machine, broker) = open(machine).await;
        Self { machine, broker, topics, logs, producer, made }
    }

    async fn check(&self) {
        for shard in &self.broker.inner.shards {
            until(|| {
                let settled = shard.waiting_bytes() == 0 && shard.in_flight() == 0;
                settled && shard.state.read().applied == shard.journal.last()
            })
            .await;
        }
        for (topic, logs) in self.topics.iter().zip(&self.logs) {
            until(|| self.broker.catalog().topic(&topic.name).is_some()).await;
            let shown = self.broker.catalog().topic(&topic.name).cloned().unwrap();
            assert_eq!((shown.id, &shown.partitions), (topic.id, &topic.partitions));
            for (partition, log) in logs.iter().enumerate() {
                self.check_log(topic, partition as i32, log).await;
            }
        }
        self.machine.agrees_with_replay(&self.broker);
    }

    /// All that was acknowledged is there; behind it may stand what was under way at a crash.
    async fn check_log(&self, topic: &Topic, partition: i32, log: &Log) {
        let mut from = log.log_start;
        let mut found = BTreeMap::new();
        loop {
            let fetched = soon(read(&self.broker, topic, partition, from, 5000)).await.unwrap();
            assert_eq!(fetched.log_start.0, log.log_start);
            let asked = from;
            for (offset, value) in values(&fetched).into_iter().filter(|(offset, _)| *offset >= asked) {
                assert_eq!(offset, from, "offsets are dense");
                found.insert(offset, value);
                from += 1;
            }
            if from == fetched.high_watermark.0 {
                break;
            }
        }
        let acknowledged: Vec<&Vec<u8>> = log.records.values().collect();
        assert!(found.values().take(acknowledged.len()).eq(acknowledged), "{} {partition}", topic.name);
        for (offset, value) in &log.records {
            assert_eq!(found.get(offset), Some(value), "offset {offset} of {} {partition}", topic.name);
        }
    }
}

async fn open(machine: Machine) -> (Machine, Broker) {
    let opening = move || {
        let broker = machine.open();
        (machine, broker)
    };
    tokio::task::spawn_blocking(opening).await.unwrap()
}

fn run(seed: u64, shards: usize, seam: Seam, steps: &[Step]) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut world = Box::new(World::new(seed, shards, seam).await);
        for step in steps {
            *world = Box::pin(world.take(step)).await;
        }
        world.check().await;
        let broker = world.broker.clone();
        tokio::task::spawn_blocking(move || broker.shutdown()).await.unwrap();
        *world = world.reopened().await;
        world.check().await;
    });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, max_shrink_iters: 40, max_shrink_time: 60_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn one_shard_solo(seed in any::<u64>(), steps in prop::collection::vec(step(), 1..30)) {
        run(seed, 1, Seam::Solo, &steps);
    }

    #[test]
    fn three_shards_solo(seed in any::<u64>(), steps in prop::collection::vec(step(), 1..30)) {
        run(seed, 3, Seam::Solo, &steps);
    }

    #[test]
    fn one_shard_that_commits_late_and_cuts(seed in any::<u64>(), steps in prop::collection::vec(step(), 1..30)) {
        run(seed, 1, Seam::Late, &steps);
    }

    #[test]
    fn three_shards_that_commit_late_and_cut(seed in any::<u64>(), steps in prop::collection::vec(step(), 1..30)) {
        run(seed, 3, Seam::Late, &steps);
    }
}

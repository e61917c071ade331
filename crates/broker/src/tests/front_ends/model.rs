//! Against a model: writes and reads of many keys at once, records with some, checkpoints, restarts, cuts and power cuts.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const KEYS: [&str; 4] = ["a", "b", "c", "d"];
const PARTITIONS: u32 = 3;

#[derive(Debug, Clone)]
enum Op {
    Set(usize),
    Delete(usize),
    LogNew(usize),
    Draw(usize),
    Get(usize),
}

#[derive(Debug, Clone)]
enum Step {
    /// Sent at once, each to the shard of a partition.
    Pipeline(Vec<(u32, Op)>),
    Checkpoint(usize),
    Restart,
    Crash(Vec<(u32, Op)>, usize),
}

fn op() -> impl Strategy<Value = Op> {
    let key = 0..KEYS.len();
    prop_oneof![
        4 => key.clone().prop_map(Op::Set),
        2 => key.clone().prop_map(Op::Delete),
        3 => key.clone().prop_map(Op::LogNew),
        1 => key.clone().prop_map(Op::Draw),
        4 => key.prop_map(Op::Get),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let ops = || prop::collection::vec((0..PARTITIONS, op()), 1..12);
    prop_oneof![
        8 => ops().prop_map(Step::Pipeline),
        2 => (0..4usize).prop_map(Step::Checkpoint),
        1 => Just(Step::Restart),
        2 => (ops(), 0..12usize).prop_map(|(ops, steps)| Step::Crash(ops, steps)),
    ]
}

enum Sent {
    Write(Answer),
    Read(Reply<Result<Value, ShardFailure>>),
    /// Read at once: nothing of this pipeline went to the shard before.
    Known(Value),
}

struct World {
    machine: Machine,
    broker: Broker,
    topic: Arc<Topic>,
    /// By partition's shard and key.
    values: BTreeMap<(u32, usize), Vec<u8>>,
    made: u64,
}

impl World {
    async fn new(seed: u64, shards: usize, seam: Seam) -> Self {
        let machine =
            Machine { recycle: false, projections: vec![REGISTERS], ..Machine::new(seed, shards, seam) };
        let broker = machine.open();
        let topic = loop {
            let new = new_topic("t", PARTITIONS);
            match soon(broker.create_topics(&Caller::OPERATOR, vec![new])).await.remove(0) {
                Ok(topic) => break topic,
                Err(_) => {
                    if let Some(topic) = broker.catalog().topic("t") {
                        break topic.clone();
                    }
                    tokio::time::sleep(std::time::Duration::from_millis(1)).await;
                }
            }
        };
        Self { machine, broker, topic, values: BTreeMap::new(), made: 0 }
    }

    fn shard(&self, partition: u32) -> u32 {
        self.topic.partition(partition as i32).unwrap().shard.0
    }

    /// Sends all, as a connection does that does not wait; a read goes behind the last write to its shard.
    fn send(&mut self, ops: &[(u32, Op)]) -> Vec<(Vec<u8>, Sent)> {
        let number = number(&self.broker);
        let mut last = BTreeMap::<u32, EntryRef>::new();
        let mut sent = Vec::new();
        for (partition, op) in ops {
            let shard = self.shard(*partition);
            self.made += 1;
            let value = self.made.to_string().into_bytes();
            let entry = match op {
                Op::Get(key) => {
                    let read = match last.get(&shard) {
                        Some(behind) => Sent::Read(get(&self.broker, behind, KEYS[*key])),
                        None => Sent::Known(look(&self.broker, shard, KEYS[*key])),
                    };
                    sent.push((value, read));
                    continue;
                }
                Op::Set(key) => ProjectionEntry::new(set(KEYS[*key], &value)),
                Op::Delete(key) => ProjectionEntry::new(delete(KEYS[*key])),
                Op::Draw(key) => ProjectionEntry { seeded: true, ..ProjectionEntry::new(draw(KEYS[*key])) },
                Op::LogNew(key) => ProjectionEntry {
                    batches: vec![item(&self.topic, *partition as i32, batch(&[&value], 1))],
                    ..ProjectionEntry::new(log_new(KEYS[*key], &value))
                },
            };
            let (entry, answer) = self.broker.write(&OWN, ShardId(shard), number, &entry).unwrap();
            last.insert(shard, entry);
            sent.push((value, Sent::Write(answer)));
        }
        self.broker.flush();
        sent
    }

    async fn pipeline(&mut self, ops: &[(u32, Op)]) {
        let sent = self.send(ops);
        let mut failed = BTreeMap::<u32, bool>::new();
        for ((partition, op), (value, sent)) in ops.iter().zip(sent) {
            let shard = self.shard(*partition);
            match sent {
                Sent::Known(found) => self.check(shard, op, found),
                Sent::Read(read) => match soon(read).await {
                    Ok(found) => {
                        assert!(!failed[&shard]);
                        self.check(shard, op, found);
                    }
                    Err(failure) => assert!(failed[&shard], "{failure}"),
                },
                Sent::Write(answer) => {
                    let answer = soon(answer).await;
                    failed.insert(shard, answer.is_err());
                    match answer {
                        Ok(answer) => self.written(*partition, op, value, &answer),
                        Err(failure) => assert_eq!(failure, ShardFailure::NotLeader),
                    }
                }
            }
        }
    }

    fn check(&self, shard: u32, op: &Op, found: Value) {
        let Op::Get(key) = op else { panic!("{op:?} is no read") };
        match (self.values.get(&(shard, *key)), found) {
            // What was drawn is not known here; the replays agree about it.
            (Some(drawn), found) if drawn.is_empty() => assert!(found.is_some()),
            (expected, found) => assert_eq!(expected, found.as_ref()),
        }
    }

    fn written(&mut self, partition: u32, op: &Op, value: Vec<u8>, answer: &[u8]) {
        let shard = self.shard(partition);
        let place = |key: &usize| (shard, *key);
        match op {
            Op::Set(key) => drop(self.values.insert(place(key), value)),
            Op::Delete(key) => drop(self.values.remove(&place(key))),
            Op::Draw(key) => drop(self.values.insert(place(key), Vec::new())),
            Op::LogNew(key) if self.values.contains_key(&place(key)) => assert_eq!(answer, THERE),
            Op::LogNew(key) => {
                assert_eq!(answer.len(), 8, "an offset");
                self.values.insert(place(key), value);
            }
            Op::Get(_) => panic!("a read is no write"),
        }
    }

    async fn take(mut self, step: &Step) -> Self {
        match step {
            Step::Pipeline(ops) => self.pipeline(ops).await,
            Step::Checkpoint(shard) => {
                let shards = &self.broker.inner.shards;
                shards[shard % shards.len()].checkpoint().unwrap();
            }
            Step::Restart => {
                let broker = self.broker.clone();
                tokio::task::spawn_blocking(move || broker.shutdown()).await.unwrap();
                let Self { machine, broker, topic, values, made } = self;
                drop(broker);
                let (machine, broker) = open(machine).await;
                self = Self { machine, broker, topic, values, made };
            }
            Step::Crash(ops, steps) => return self.crash(ops, *steps).await,
        }
        self
    }

    /// What was answered is there, of the rest a first part.
    async fn crash(mut self, ops: &[(u32, Op)], steps: usize) -> Self {
        self.machine.disks.iter().for_each(|disk| disk.set_auto(false));
        let sent = self.send(ops);
        for _ in 0..steps {
            self.machine.disks.iter().for_each(|disk| {
                disk.step();
            });
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
        let mut possible = self.values.clone();
        let mut open_ends = BTreeMap::<(u32, usize), Vec<Value>>::new();
        for ((partition, op), (value, sent)) in ops.iter().zip(sent) {
            let shard = self.shard(*partition);
            let Sent::Write(mut answer) = sent else { continue };
            let answered = tokio::time::timeout(std::time::Duration::ZERO, &mut answer).await.ok();
            let (key, new) = match op {
                Op::Delete(key) => (*key, None),
                Op::Draw(key) => (*key, Some(Vec::new())),
                Op::Set(key) | Op::LogNew(key) => (*key, Some(value)),
                Op::Get(_) => continue,
            };
            let ends = open_ends.entry((shard, key)).or_default();
            if ends.is_empty() {
                ends.push(possible.get(&(shard, key)).cloned());
            }
            match answered {
                Some(Ok(answer)) if answer == THERE => {}
                Some(Ok(_)) => *ends = vec![new],
                Some(Err(failure)) => assert_eq!(failure, ShardFailure::NotLeader),
                None => ends.push(new),
            }
        }
        let Self { machine, broker, topic, made, .. } = self;
        let machine = tokio::task::spawn_blocking(move || machine.crash(broker)).await.unwrap();
        machine.disks.iter().for_each(|disk| disk.set_auto(true));
        let (machine, broker) = self::open(machine).await;
        settled(&broker).await;
        for ((shard, key), ends) in open_ends {
            let found = look(&broker, shard, KEYS[key]);
            let drawn = found.as_ref().is_some_and(|value| value.contains(&b' '));
            let known = if drawn { Some(Vec::new()) } else { found };
            assert!(ends.contains(&known), "{known:?} of {ends:?}");
            match known {
                Some(value) => drop(possible.insert((shard, key), value)),
                None => drop(possible.remove(&(shard, key))),
            }
        }
        Self { machine, broker, topic, values: possible, made }
    }

    async fn check_all(&self) {
        settled(&self.broker).await;
        let shards: std::collections::BTreeSet<u32> =
            (0..PARTITIONS).map(|partition| self.shard(partition)).collect();
        for shard in shards {
            for (key, name) in KEYS.iter().enumerate() {
                self.check(shard, &Op::Get(key), look(&self.broker, shard, name));
            }
        }
        self.machine.agrees_with_replay(&self.broker);
    }
}

async fn settled(broker: &Broker) {
    for shard in &broker.inner.shards {
        until(|| {
            let settled = shard.waiting_bytes() == 0 && shard.in_flight() == 0;
            settled && shard.state.read().applied == shard.journal.last()
        })
        .await;
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
        world.check_all().await;
        *world = Box::pin(world.take(&Step::Restart)).await;
        world.check_all().await;
    });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8, max_shrink_iters: 40, max_shrink_time: 60_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn one_shard_solo(seed in any::<u64>(), steps in prop::collection::vec(step(), 1..20)) {
        run(seed, 1, Seam::Solo, &steps);
    }

    #[test]
    fn three_shards_solo(seed in any::<u64>(), steps in prop::collection::vec(step(), 1..20)) {
        run(seed, 3, Seam::Solo, &steps);
    }

    #[test]
    fn three_shards_that_commit_late_and_cut(seed in any::<u64>(), steps in prop::collection::vec(step(), 1..20)) {
        run(seed, 3, Seam::Late, &steps);
    }
}

//! Publishes: one payload a shard, and an outcome for each target as it is known.

use std::ops::Range;
use std::sync::Arc;

use proptest::prelude::*;
use sabir_model::batch::{BatchBuilder, BatchRefusal, CheckedBatch, Compression};
use sabir_model::{
    AppendError, ErrorAbout, Facts, FrontendNo, Offset, Overflow, QueueConfig, RecordFacts, ShardFailure,
    TimestampType, TopicConfig, ValidConfig,
};

use super::rig::{append, batch, checked, create, new_topic, pending, read, soon, target, until, values};
use super::sim::{Machine, Seam};
use crate::queue::LocalTransaction;
use crate::{
    AppendRefusal, AppendTarget, Broker, Caller, NewTopic, Publish, PublishOutcomes, PublishRefused,
    PublishTargets, PublishVerdict, Topic,
};

const OWN: FrontendNo = FrontendNo(1);

/// All partitions of topics, for batches that a front end builds.
fn targets(topics: &[&Topic]) -> Vec<AppendTarget> {
    let of = |topic: &&Topic| {
        let topic = (*topic).clone();
        (0..topic.partitions.len() as i32).map(move |index| target(&topic, index, OWN))
    };
    topics.iter().flat_map(of).collect()
}

fn all_of(topics: &[&Topic]) -> PublishTargets {
    PublishTargets::new(targets(topics)).unwrap()
}

fn built(targets: &PublishTargets, values: &[&[u8]]) -> CheckedBatch {
    let mut builder = BatchBuilder::new(Compression::None);
    values.iter().for_each(|value| builder.push(5, None, Some(value), &[]));
    builder.build_checked(&targets.rules(), 5).unwrap()
}

fn publish(broker: &Broker, targets: &PublishTargets, values: &[&[u8]]) -> PublishOutcomes {
    let publish = Publish::new(targets.clone(), [built(targets, values)]);
    let outcomes = broker.publish(&Caller::OPERATOR, &publish).unwrap();
    broker.flush();
    outcomes
}

/// Target, and offset or why not, of all outcomes.
async fn all(mut outcomes: PublishOutcomes) -> Vec<(usize, Result<i64, ErrorAbout<AppendError>>)> {
    let mut all = Vec::new();
    while let Some(outcome) = soon(outcomes.next()).await {
        all.push((outcome.target, outcome.result.map(|appended| appended.base_offset.0)));
    }
    all.sort_unstable_by_key(|(target, _)| *target);
    all
}

async fn read_all(broker: &Broker, topic: &Topic, index: i32) -> Vec<(i64, Vec<u8>)> {
    values(&soon(read(broker, topic, index, 0, 10 << 20)).await.unwrap())
}

#[tokio::test]
async fn a_payload_is_stored_once_a_shard_and_read_in_every_target() {
    for shards in [1, 3] {
        let machine = Machine { recycle: false, ..Machine::new(1, shards, Seam::Solo) };
        let broker = machine.open();
        let (one, two) = (create(&broker, "one", 6).await, create(&broker, "two", 6).await);
        append(&broker, &two, 1, batch(&[b"before"], 1)).await.unwrap();
        let targets = all_of(&[&one, &two]);
        let written = |broker: &Broker| broker.stats().shards.iter().map(|shard| shard.bytes).sum::<u64>();
        let before = written(&broker);
        let value = vec![7; 10_000];
        let batches = [built(&targets, &[&value]), built(&targets, &[b"x", b"y"])];
        let publishing = Publish::new(targets.clone(), batches);
        let mut outcomes = broker.publish(&Caller::OPERATOR, &publishing).unwrap();
        broker.flush();
        let mut seen = Vec::new();
        while let Some(outcome) = soon(outcomes.next()).await {
            let first = i64::from(outcome.target == 7) + outcome.batch as i64;
            assert_eq!(outcome.result.unwrap().base_offset, Offset(first));
            assert_eq!(outcome.records, 0..outcome.batch as u32 + 1);
            seen.push((outcome.target, outcome.batch));
        }
        seen.sort_unstable();
        assert_eq!(seen, (0..24).map(|n| (n / 2, n % 2)).collect::<Vec<_>>());
        let bytes = written(&broker) - before;
        assert!(bytes < 12_000 * shards as u64, "{bytes} bytes in {shards} shards");
        for (topic, index) in [(&one, 0), (&one, 5), (&two, 1)] {
            let found = read_all(&broker, topic, index).await;
            let last: Vec<_> = found[found.len() - 3..].iter().map(|(_, value)| value.clone()).collect();
            assert_eq!(last, [value.clone(), b"x".to_vec(), b"y".to_vec()]);
        }
        machine.agrees_with_replay(&broker);
        broker.shutdown();
        drop(broker);
        let broker = machine.open();
        assert_eq!(read_all(&broker, &one, 3).await.len(), 3);
        broker.shutdown();
    }
}

#[tokio::test]
async fn outcomes_come_as_their_shards_decide_and_it_is_confirmed_when_all_have() {
    let machine = Machine::new(2, 3, Seam::Told);
    let broker = machine.open();
    let topic = {
        let making = broker.create_topics(&Caller::OPERATOR, vec![new_topic("t", 6)]);
        machine.committing(making).await.remove(0).unwrap()
    };
    let targets = all_of(&[&topic]);
    let mut outcomes = publish(&broker, &targets, &[b"x"]);
    let confirmed = publish(&broker, &targets, &[b"y"]).confirmed();
    let mut confirmed = Box::pin(confirmed);
    assert!(pending(&mut Box::pin(outcomes.next())).await);
    let mut seen = Vec::new();
    for shard in [2, 3, 1] {
        assert!(pending(&mut confirmed).await);
        let late = machine.late.lock()[shard].clone();
        until(|| {
            late.commit_all();
            let state = broker.inner.shards[shard].state.read();
            let of_shard = topic.partitions.iter().filter(|partition| partition.shard.0 as usize == shard);
            of_shard.clone().all(|one| state.partition(one.id).unwrap().next == Offset(2))
        })
        .await;
        for _ in 0..2 {
            let outcome = soon(outcomes.next()).await.unwrap();
            assert_eq!(topic.partitions[outcome.target].shard.0 as usize, shard);
            assert_eq!(outcome.result.unwrap().base_offset, Offset(0));
            seen.push(outcome.target);
        }
    }
    seen.sort_unstable();
    assert_eq!(seen, [0, 1, 2, 3, 4, 5]);
    assert_eq!(soon(outcomes.next()).await, None);
    assert_eq!(soon(confirmed).await, Ok(()));
    machine.freely(|| broker.shutdown());
}

/// Target, records, and the first offset or why not, of all outcomes.
async fn parts(
    mut outcomes: PublishOutcomes,
) -> Vec<(usize, Range<u32>, Result<i64, ErrorAbout<AppendError>>)> {
    let mut all = Vec::new();
    while let Some(outcome) = soon(outcomes.next()).await {
        all.push((outcome.target, outcome.records, outcome.result.map(|appended| appended.base_offset.0)));
    }
    all.sort_unstable_by_key(|(target, records, _)| (*target, records.start));
    all
}

#[tokio::test]
async fn a_queue_takes_the_front_of_a_batch_for_which_it_has_room() {
    for shards in [1, 3] {
        let machine = Machine { recycle: false, ..Machine::new(9, shards, Seam::Solo) };
        let broker = machine.open();
        let limits =
            QueueConfig { max_length: Some(3), overflow: Overflow::Reject, ..QueueConfig::default() };
        let new = NewTopic { config: TopicConfig::of_queue(limits), ..new_topic("queue", 1) };
        let queue = broker.create_topics(&Caller::OPERATOR, vec![new]).await.remove(0).unwrap();
        let log = create(&broker, "log", 2).await;
        let targets = all_of(&[&log, &queue]);
        let five = || built(&targets, &[b"a", b"b", b"c", b"d", b"e"]);
        let whole = Publish::new(targets.clone(), [five()]);
        let divided = Publish { partial: true, ..whole.clone() };
        let send = |publish: &Publish| {
            let outcomes = broker.publish(&Caller::OPERATOR, publish).unwrap();
            broker.flush();
            outcomes
        };
        let full = || Err(AppendError::QueueFull.into());
        assert_eq!(parts(send(&whole)).await, [(0, 0..5, Ok(0)), (1, 0..5, Ok(0)), (2, 0..5, full())]);
        let expected = [(0, 0..5, Ok(5)), (1, 0..5, Ok(5)), (2, 0..3, Ok(0)), (2, 3..5, full())];
        assert_eq!(parts(send(&divided)).await, expected);
        let last = parts(send(&divided)).await.pop();
        assert_eq!(last, Some((2, 0..5, full())), "nothing fits any more");
        let front = [(0, b"a".to_vec()), (1, b"b".to_vec()), (2, b"c".to_vec())];
        assert_eq!(read_all(&broker, &queue, 0).await, front);
        assert_eq!(read_all(&broker, &log, 1).await.len(), 15);
        machine.agrees_with_replay(&broker);
        broker.shutdown();
        drop(broker);
        let broker = machine.open();
        assert_eq!(read_all(&broker, &queue, 0).await, front);
        broker.shutdown();
    }
}

#[tokio::test]
async fn a_target_that_is_gone_refuses_by_itself() {
    let machine = Machine::new(3, 3, Seam::Solo);
    let broker = machine.open();
    let (one, gone) = (create(&broker, "one", 3).await, create(&broker, "gone", 3).await);
    let targets = all_of(&[&one, &gone]);
    broker.delete_topics(&Caller::OPERATOR, vec![gone.id]).await.remove(0).unwrap();
    let unknown = || Err(AppendError::UnknownPartition.into());
    let expected = [Ok(0), Ok(0), Ok(0), unknown(), unknown(), unknown()];
    let outcomes = all(publish(&broker, &targets, &[b"x"])).await;
    assert_eq!(outcomes, expected.into_iter().enumerate().collect::<Vec<_>>());
    assert_eq!(
        soon(publish(&broker, &targets, &[b"y"]).confirmed()).await,
        Err(AppendError::UnknownPartition.into())
    );
    assert_eq!(read_all(&broker, &one, 2).await.len(), 2);
    let mut outcomes = publish(&broker, &all_of(&[&gone]), &[b"nowhere"]);
    while let Some(outcome) = soon(outcomes.next()).await {
        assert_eq!(outcome.verdict(), PublishVerdict::Gone);
    }
    let mut together = LocalTransaction::default();
    together.publish(Publish::new(targets.clone(), [built(&targets, &[b"z"])]));
    let (committing, mut verdicts) = (broker.commit(&Caller::OPERATOR, together).unwrap(), Vec::new());
    broker.flush();
    let done = committing.done(|_, outcome| verdicts.push(outcome.verdict() == PublishVerdict::Gone));
    assert_eq!((soon(done).await, verdicts.iter().filter(|gone| **gone).count()), (Ok(()), 3));
    let closed = Err(AppendError::Shard(ShardFailure::ShuttingDown).into());
    broker.shutdown();
    assert!(all(publish(&broker, &targets, &[b"z"])).await.iter().all(|(_, result)| *result == closed));
    let traffic = one.traffic.own().unwrap().received();
    assert_eq!(traffic, 9 * built(&targets, &[b"x"]).bytes().len() as u64);
}

#[tokio::test]
async fn targets_are_given_what_all_of_them_take() {
    let machine = Machine::new(4, 1, Seam::Solo);
    let broker = machine.open();
    let small = TopicConfig {
        max_message_bytes: 1000,
        timestamp_type: TimestampType::LogAppendTime,
        ..TopicConfig::default()
    };
    let zipped = TopicConfig { compression: Some(Compression::Lz4), ..TopicConfig::default() };
    let other = TopicConfig { compression: Some(Compression::Gzip), ..TopicConfig::default() };
    let mut topics = Vec::new();
    for (name, config) in
        [("plain", TopicConfig::default()), ("small", small), ("zipped", zipped), ("other", other)]
    {
        let topic = NewTopic { config, ..new_topic(name, 1) };
        topics.push(broker.create_topics(&Caller::OPERATOR, vec![topic]).await.remove(0).unwrap());
    }
    let [plain, small, zipped, other] = &topics[..] else { panic!("four were made") };
    let targets = all_of(&[plain, small, zipped]);
    assert_eq!(all(publish(&broker, &targets, &[b"x"])).await, [(0, Ok(0)), (1, Ok(0)), (2, Ok(0))]);
    // One is stamped, and the others have what was built, all in the codec that one of them wants.
    let mut times = Vec::new();
    for topic in [plain, small, zipped] {
        let bytes = soon(read(&broker, topic, 0, 0, 1 << 20)).await.unwrap().slices[0].joined();
        let header = sabir_model::batch::BatchHeader::parse(&bytes).unwrap();
        assert_eq!(header.compression().unwrap(), Compression::Lz4);
        times.push((header.timestamp_type(), header.max_timestamp));
    }
    let (own, stamped) = ((TimestampType::CreateTime, 5), (TimestampType::LogAppendTime, 1_000_000));
    assert_eq!(times, [own, stamped, own]);
    let mut large = BatchBuilder::new(Compression::None);
    let noise: Vec<u8> = (0..2000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    large.push(5, None, Some(&noise), &[]);
    let refused = large.build_checked(&targets.rules(), 5).unwrap_err();
    assert!(matches!(refused, BatchRefusal::TooLarge { max: 1000, .. }), "{refused}");
    let refused = PublishTargets::new(self::targets(&[plain, zipped, other])).unwrap_err();
    assert_eq!(refused.error, PublishRefused::OtherCodec(2));
    let says =
        "partition 0 of topic \"other\": the target keeps batches in another codec than those before it";
    assert_eq!(refused.to_string(), says);
    broker.shutdown();
}

#[tokio::test]
async fn what_cannot_be_published_is_refused_before_anything_is_written() {
    let machine = Machine::new(5, 1, Seam::Solo);
    let broker = machine.open();
    let (topic, other) = (create(&broker, "t", 2).await, create(&broker, "other", 1).await);
    let new = |targets: Vec<AppendTarget>| PublishTargets::new(targets).unwrap_err().error;
    assert_eq!(new(Vec::new()), PublishRefused::NoTarget);
    assert_eq!(new(vec![target(&topic, 1, OWN), target(&topic, 1, OWN)]), PublishRefused::Twice(1));
    let stamped = TopicConfig { timestamp_type: TimestampType::LogAppendTime, ..TopicConfig::default() };
    let changed = Topic { config: ValidConfig::trusted(stamped), ..Topic::clone(&topic) };
    let both = vec![target(&topic, 0, OWN), target(&topic, 1, OWN), target(&changed, 0, OWN)];
    assert_eq!(new(both), PublishRefused::Twice(2));
    assert_eq!(
        new(vec![target(&topic, 0, OWN), target(&topic, 1, FrontendNo(2))]),
        PublishRefused::OtherOrigin(1)
    );
    let client = |index| target(&topic, index, FrontendNo::NONE);
    assert_eq!(new(vec![client(0), client(1)]), PublishRefused::ClientsBatch);

    let targets = all_of(&[&topic]);
    let good = Publish::new(targets.clone(), [built(&targets, &[b"x"])]);
    let refused = |publish: &Publish| broker.publish(&Caller::OPERATOR, publish).unwrap_err().error;
    let mut facts = RecordFacts::new();
    (0..9).for_each(|_| facts.push(Facts::default()).unwrap());
    let mut with_facts = good.clone();
    with_facts.batches[0].facts = Some(facts);
    assert_eq!(refused(&with_facts), PublishRefused::OtherFacts(0));
    let elsewhere = all_of(&[&topic, &other]);
    let batches = [built(&targets, &[b"x"]), built(&elsewhere, &[b"x"])];
    assert_eq!(refused(&Publish::new(targets.clone(), batches)), PublishRefused::OtherRules(1));
    let one = PublishTargets::new(vec![client(0)]).unwrap();
    let whole = Publish::new(one.clone(), [checked(&topic, batch(&[b"x"], 1))]);
    assert_eq!(refused(&Publish { partial: true, ..whole.clone() }), PublishRefused::ClientsBatch);
    let elsewhere = sabir_model::Namespace::named("elsewhere").unwrap();
    let stranger = Caller::client("x", crate::SessionId(1)).within(elsewhere);
    let why = AppendRefusal::UnknownPartition;
    let refused = broker.publish(&stranger, &good).unwrap_err();
    assert_eq!(refused.error, PublishRefused::Target { target: 0, why });
    assert!(refused.to_string().starts_with("partition 0 of topic \"t\": "), "{refused}");
    broker.flush();
    assert_eq!(read_all(&broker, &topic, 0).await, []);
    for taken in [whole, good.clone(), Publish { partial: true, ..good }] {
        let outcomes = broker.publish(&Caller::OPERATOR, &taken).unwrap();
        broker.flush();
        assert_eq!(soon(outcomes.confirmed()).await, Ok(()));
    }
    let nothing = broker.publish(&Caller::OPERATOR, &Publish::new(targets, [])).unwrap();
    assert_eq!(soon(nothing.confirmed()).await, Ok(()));
    assert_eq!(read_all(&broker, &topic, 0).await.len(), 3);
    broker.shutdown();
}

#[tokio::test]
async fn a_batch_beyond_a_block_and_more_targets_than_an_entry_names_are_published_too() {
    let machine = Machine::new(6, 1, Seam::Solo);
    let broker = machine.open();
    let config = TopicConfig { max_message_bytes: 8 << 20, ..TopicConfig::default() };
    let topic = NewTopic { config, ..new_topic("t", 3) };
    let topic = broker.create_topics(&Caller::OPERATOR, vec![topic]).await.remove(0).unwrap();
    let targets = all_of(&[&topic]);
    let big = vec![9; 5 << 20];
    assert_eq!(all(publish(&broker, &targets, &[&big])).await, [(0, Ok(0)), (1, Ok(0)), (2, Ok(0))]);
    for index in 0..3 {
        assert_eq!(read_all(&broker, &topic, index).await, [(0, big.clone())]);
    }
    let wide = create(&broker, "wide", 5000).await;
    let outcomes = all(publish(&broker, &all_of(&[&wide]), &[b"x"])).await;
    assert_eq!(outcomes, (0..5000).map(|n| (n, Ok(0))).collect::<Vec<_>>());
    broker.shutdown();
}

/// A step of the random life of a few partitions that are published to.
#[derive(Debug, Clone)]
enum Step {
    /// To the partitions whose bits are set; a value of so many bytes.
    Publish {
        to: u8,
        size: usize,
    },
    Delete {
        of: usize,
        keep: i64,
    },
    Checkpoint,
    Restart,
    /// Published, so much of it written, and the power goes.
    Crash {
        to: u8,
        steps: usize,
    },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (1u8..64, 1usize..5000).prop_map(|(to, size)| Step::Publish { to, size }),
        2 => (0usize..6, 0i64..4).prop_map(|(of, keep)| Step::Delete { of, keep }),
        1 => Just(Step::Checkpoint),
        1 => Just(Step::Restart),
        2 => (1u8..64, 0usize..12).prop_map(|(to, steps)| Step::Crash { to, steps }),
    ]
}

struct World {
    machine: Machine,
    broker: Broker,
    topic: Arc<Topic>,
    /// Of each partition, what it must hold: by offset, from its first one on.
    logs: Vec<(i64, Vec<Vec<u8>>)>,
    made: u8,
}

impl World {
    async fn new(seed: u64, shards: usize) -> Self {
        let machine = Machine { recycle: false, ..Machine::new(seed, shards, Seam::Solo) };
        let broker = machine.open();
        let topic = create(&broker, "t", 6).await;
        Self { machine, broker, topic, logs: vec![(0, Vec::new()); 6], made: 0 }
    }

    fn publish(&mut self, to: u8, size: usize) -> (Vec<usize>, Vec<u8>, PublishOutcomes) {
        self.made = self.made.wrapping_add(1);
        let (value, chosen) = (vec![self.made; size], (0..6usize).filter(|index| to >> index & 1 == 1));
        let chosen: Vec<usize> = chosen.collect();
        let targets = chosen.iter().map(|index| target(&self.topic, *index as i32, OWN)).collect();
        let outcomes = publish(&self.broker, &PublishTargets::new(targets).unwrap(), &[&value]);
        (chosen, value, outcomes)
    }

    async fn take(mut self, step: &Step) -> Self {
        match *step {
            Step::Publish { to, size } => {
                let (chosen, value, outcomes) = self.publish(to, size);
                for (target, result) in all(outcomes).await {
                    let (start, log) = &mut self.logs[chosen[target]];
                    assert_eq!(result, Ok(*start + log.len() as i64));
                    log.push(value.clone());
                }
            }
            Step::Delete { of, keep } => {
                let (start, log) = &mut self.logs[of];
                let gone = (log.len() as i64 - keep).max(0);
                log.drain(..gone as usize);
                *start += gone;
                let (place, before) = (self.topic.partitions[of], Offset(*start));
                let deleting = self.broker.delete_records(&Caller::OPERATOR, place.shard, place.id, before);
                soon(deleting).await.unwrap();
            }
            Step::Checkpoint => {
                self.broker.inner.shards.iter().for_each(|shard| shard.checkpoint().unwrap());
            }
            Step::Restart => {
                let broker = self.broker.clone();
                tokio::task::spawn_blocking(move || broker.shutdown()).await.unwrap();
                let Self { machine, broker, topic, logs, made } = self;
                drop(broker);
                let (machine, broker) = open(machine).await;
                return Self { machine, broker, topic, logs, made };
            }
            Step::Crash { to, steps } => return self.crash(to, steps).await,
        }
        self
    }

    /// What was confirmed before the power went is there, whatever its neighbours came to; of the rest a target has all or nothing.
    async fn crash(mut self, to: u8, steps: usize) -> Self {
        self.machine.disks.iter().for_each(|disk| disk.set_auto(false));
        let (chosen, value, mut outcomes) = self.publish(to, 3000);
        for _ in 0..steps {
            self.machine.disks.iter().for_each(|disk| {
                disk.step();
            });
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
        let mut confirmed = Vec::new();
        while let Ok(Some(outcome)) =
            tokio::time::timeout(std::time::Duration::from_millis(1), outcomes.next()).await
        {
            assert!(outcome.result.is_ok());
            confirmed.push(chosen[outcome.target]);
        }
        let Self { machine, broker, topic, mut logs, made } = self;
        let machine = tokio::task::spawn_blocking(move || machine.crash(broker)).await.unwrap();
        machine.disks.iter().for_each(|disk| disk.set_auto(true));
        let (machine, broker) = open(machine).await;
        for index in chosen {
            let (start, log) = &mut logs[index];
            let partition = topic.partitions[index];
            let state = broker.inner.shards[partition.shard.0 as usize].state.read();
            let more = state.partition(partition.id).unwrap().next.0 - *start - log.len() as i64;
            assert!(more == 1 || (more == 0 && !confirmed.contains(&index)), "{more} more in {index}");
            log.extend((more == 1).then(|| value.clone()));
        }
        Self { machine, broker, topic, logs, made }
    }

    async fn check(&self) {
        for (index, (start, log)) in self.logs.iter().enumerate() {
            let fetched =
                soon(read(&self.broker, &self.topic, index as i32, *start, 10 << 20)).await.unwrap();
            let found = values(&fetched).into_iter().filter(|(offset, _)| offset >= start);
            let expected = log.iter().enumerate().map(|(at, value)| (start + at as i64, value.clone()));
            assert_eq!(found.collect::<Vec<_>>(), expected.collect::<Vec<_>>(), "partition {index}");
        }
        self.machine.agrees_with_replay(&self.broker);
    }
}

async fn open(machine: Machine) -> (Machine, Broker) {
    let opening = move || {
        let broker = machine.open();
        (machine, broker)
    };
    tokio::task::spawn_blocking(opening).await.unwrap()
}

fn run(seed: u64, shards: usize, steps: &[Step]) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut world = Box::new(World::new(seed, shards).await);
        for step in steps {
            *world = Box::pin(world.take(step)).await;
        }
        world.check().await;
        *world = Box::pin(world.take(&Step::Restart)).await;
        world.check().await;
    });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10, max_shrink_iters: 40, max_shrink_time: 60_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn over_one_shard_each_target_holds_what_was_confirmed(seed in any::<u64>(), steps in prop::collection::vec(step(), 1..25)) {
        run(seed, 1, &steps);
    }

    #[test]
    fn over_three_shards_each_target_holds_what_was_confirmed(seed in any::<u64>(), steps in prop::collection::vec(step(), 1..25)) {
        run(seed, 3, &steps);
    }
}

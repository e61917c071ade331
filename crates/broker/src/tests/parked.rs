//! Messages that come back and wait: each is ready again at its moment, at its place and counted, over stops and power cuts at any moment.

use std::iter::once;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use sabir_delivery::subscription::{
    HeldBy, MessageOwner, MessageState, Operation, OperationsWriter, RangesBuffer, Settlement, Subscription,
    SubscriptionNo, Terms,
};
use sabir_journal::Priority;
use sabir_model::{Backoff, QueueConfig, TopicConfig, TopicError};

use super::rig::{append, batch, soon, until};
use super::sim::{Machine, Seam};
use crate::answer::Answer;
use crate::entry::{DeliveryBody, DeliveryError, DeliveryOutcome};
use crate::level::FormatLevel;
use crate::queue::QueueTarget;
use crate::{Broker, Caller, NewTopic, Topic};

const CALLER: Caller = Caller::OPERATOR;
const NAME: &str = "q";

async fn queue(broker: &Broker, config: QueueConfig) -> Arc<Topic> {
    let config = TopicConfig::of_queue(config);
    let new = NewTopic { name: NAME.to_owned(), partitions: 1, config, internal: false, unlike: false };
    broker.create_topics(&CALLER, vec![new]).await.remove(0).unwrap()
}

fn patient() -> QueueConfig {
    let retry = Some(Backoff::Steps([50, 200].into()));
    QueueConfig { retry, delivery_limit: Some(3), ..QueueConfig::default() }
}

async fn publish(broker: &Broker, queue: &Topic, count: usize) {
    append(broker, queue, 0, batch(&vec![&b"v"[..]; count], 1)).await.unwrap();
}

fn number(queue: &Topic) -> SubscriptionNo {
    crate::state::subscription_of(queue.partitions[0].id)
}

fn with<T>(broker: &Broker, queue: &Topic, look: impl FnOnce(&Subscription) -> T) -> T {
    let state = broker.inner.shards[queue.partitions[0].shard.0 as usize].state.read();
    look(state.subscriptions.get(number(queue)).unwrap())
}

fn states(broker: &Broker, queue: &Topic) -> Vec<MessageState> {
    with(broker, queue, |of| (0..of.end()).map(|offset| of.state(offset)).collect())
}

/// Takes the first ready messages and gives them back until a moment. Gives which those were, with their counts as they were dealt.
async fn bounce(
    broker: &Broker,
    queue: &Arc<Topic>,
    count: usize,
    counted: bool,
    until_ms: Option<i64>,
) -> Vec<(u64, u32)> {
    let (target, owner) = (QueueTarget::new(&CALLER, queue).unwrap(), broker.queues().owner());
    let mut all = Vec::new();
    for _ in 0..count {
        let getting = broker.queues().get(&CALLER, target, owner, false);
        broker.flush();
        let Some(got) = soon(getting).await.unwrap() else { break };
        assert!(got.returned == 0 || got.redelivered);
        all.push((got.offset, got.returned));
    }
    let offsets: Vec<Range<u64>> = all.iter().map(|(offset, _)| *offset..offset + 1).collect();
    broker.queues().give_back(target, owner, offsets, counted, until_ms);
    broker.flush();
    // What was flagged comes before it is acquired; that and the return are applied then.
    until(|| broker.inner.shards.iter().all(|shard| shard.is_idle())).await;
    all
}

async fn settle_anyhow(broker: &Broker, queue: &Topic, messages: Range<u64>) {
    let ranges = RangesBuffer::of(once(messages));
    let (ranges, held_by, why) = (ranges.ranges(), HeldBy::Any, Settlement::Dropped);
    operate(broker, queue, &[Operation::Settled { ranges, held_by, why }]).await;
}

async fn operate(broker: &Broker, queue: &Topic, operations: &[Operation<'_>]) {
    let mut body = Vec::new();
    let mut writer = OperationsWriter::new(&mut body, false);
    operations.iter().for_each(|operation| writer.push(number(queue), operation));
    let shard = &broker.inner.shards[queue.partitions[0].shard.0 as usize];
    let answer = Answer::<Result<DeliveryOutcome, DeliveryError>>::default();
    assert!(
        shard.push(Priority::Ordinary, DeliveryBody::KIND, &body, Some(answer.waiter())).is_ok(),
        "there is room"
    );
    shard.submit();
    soon(answer).await.unwrap();
}

/// Time passes, and the thread that fires timers is told.
fn advance(machine: &Machine, broker: &Broker, ms: i64) {
    machine.clock.advance(ms);
    broker.inner.shards.iter().for_each(|shard| shard.timers.raise());
}

async fn close(broker: Broker) {
    tokio::task::spawn_blocking(move || broker.shutdown()).await.unwrap();
}

use MessageState::{Parked, Ready, Settled};

#[tokio::test]
async fn what_is_given_back_until_a_moment_is_ready_then_at_its_place() {
    let machine = Machine::new(1, 1, Seam::Solo);
    let broker = machine.open();
    let queue = queue(&broker, QueueConfig::default()).await;
    publish(&broker, &queue, 3).await;
    let now = broker.now_ms();
    assert_eq!(bounce(&broker, &queue, 2, true, Some(now + 50)).await, [(0, 0), (1, 0)]);
    assert_eq!(states(&broker, &queue), [Parked, Parked, Ready]);
    assert_eq!(bounce(&broker, &queue, 1, false, Some(now - 1)).await, [(2, 0)], "its moment is over");
    assert_eq!(states(&broker, &queue), [Parked, Parked, Ready]);
    settle_anyhow(&broker, &queue, 1..2).await;
    advance(&machine, &broker, 49);
    tokio::time::sleep(Duration::from_millis(30)).await;
    assert_eq!(states(&broker, &queue), [Parked, Settled, Ready]);
    advance(&machine, &broker, 1);
    until(|| states(&broker, &queue)[0] == Ready).await;
    assert_eq!(states(&broker, &queue), [Ready, Settled, Ready], "what was settled meanwhile stays so");
    assert_eq!(bounce(&broker, &queue, 3, false, None).await, [(0, 1), (2, 0)]);
    // A queue that is deleted takes its parked messages with it.
    bounce(&broker, &queue, 1, false, Some(now + 1_000)).await;
    broker.delete_topics(&CALLER, vec![queue.id]).await.remove(0).unwrap();
    let pending = |broker: &Broker| {
        let state = broker.inner.shards[1].state.read();
        state.timers.timers().unwrap().in_memory(sabir_delivery::timer::TimerKey::FIRST).count()
    };
    assert_eq!(pending(&broker), 1);
    advance(&machine, &broker, 1_000);
    until(|| pending(&broker) == 0).await;
    machine.agrees_with_replay(&broker);
    close(broker).await;
}

#[tokio::test]
async fn a_queues_settings_say_how_long_what_counts_waits_and_how_often() {
    let machine = Machine::new(2, 1, Seam::Solo);
    let broker = machine.open();
    let queue = queue(&broker, patient()).await;
    publish(&broker, &queue, 1).await;
    for (returned, delay) in [(0, 50), (1, 200), (2, 200)] {
        assert_eq!(bounce(&broker, &queue, 1, true, None).await, [(0, returned)]);
        advance(&machine, &broker, delay - 1);
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert_eq!(states(&broker, &queue), [Parked]);
        advance(&machine, &broker, 1);
        until(|| states(&broker, &queue) == [Ready]).await;
    }
    assert_eq!(bounce(&broker, &queue, 1, true, None).await, [(0, 3)]);
    assert_eq!(states(&broker, &queue), [Settled], "that was once too often");
    machine.agrees_with_replay(&broker);
    // Other settings hold for what comes back from then on.
    let change = |config: &mut TopicConfig| {
        *config = TopicConfig::of_queue(QueueConfig { retry: None, ..patient() });
        Ok::<(), TopicError>(())
    };
    let queue = broker.change_topic(&CALLER, queue.id, change).await.unwrap();
    publish(&broker, &queue, 1).await;
    assert_eq!(bounce(&broker, &queue, 1, true, None).await, [(1, 0)]);
    assert_eq!(states(&broker, &queue), [Settled, Ready]);
    close(broker).await;
}

#[tokio::test]
async fn below_the_level_nobody_names_a_moment_and_what_was_parked_comes_back_all_the_same() {
    let machine = Machine::new(3, 1, Seam::Solo);
    let broker = machine.open();
    let queue = queue(&broker, patient()).await;
    publish(&broker, &queue, 3).await;
    bounce(&broker, &queue, 2, true, None).await;
    broker.inner.shards[1].state.write().level = FormatLevel::QUEUES;
    bounce(&broker, &queue, 1, false, Some(broker.now_ms() + 50)).await;
    assert_eq!(states(&broker, &queue), [Parked, Parked, Ready]);
    let before = broker.stats().shards[1].entries;
    advance(&machine, &broker, 50);
    until(|| states(&broker, &queue) == [Ready; 3]).await;
    until(|| broker.stats().shards[1].entries == before + 2).await;
    broker.inner.shards[1].state.write().level = FormatLevel::NEWEST;
    assert_eq!(bounce(&broker, &queue, 1, true, None).await, [(0, 1)]);
    machine.agrees_with_replay(&broker);
    close(broker).await;
}

#[tokio::test]
async fn more_than_memory_holds_wait_over_a_start() {
    let machine = Machine { recycle: false, ..Machine::new(4, 1, Seam::Solo) };
    let broker = machine.open();
    let queue = queue(&broker, QueueConfig::default()).await;
    let count = 40_000u64;
    for _ in 0..count / 1_000 {
        publish(&broker, &queue, 1_000).await;
    }
    let (owner, now) = (MessageOwner::Session(u64::MAX), broker.now_ms());
    for start in (0..count).step_by(1_000) {
        let terms = Terms { owner, timeout_ms: 0, token: 0 };
        operate(&broker, &queue, &[Operation::Taken { count: 1_000, terms }]).await;
        let all = (start..start + 1_000).map(|offset| (offset, RangesBuffer::of(once(offset..offset + 1))));
        let all: Vec<_> = all.collect();
        let returned = all.iter().map(|(offset, ranges)| Operation::Returned {
            ranges: ranges.ranges(),
            held_by: HeldBy::Owner(owner),
            counted: true,
            // Spread, and never two for one moment.
            not_before_ms: now + 10_000 + (offset * 7_919 % count) as i64,
        });
        operate(&broker, &queue, &returned.collect::<Vec<_>>()).await;
    }
    let parked = |broker: &Broker| with(broker, &queue, |of| of.count(Parked, 0..count));
    assert_eq!(parked(&broker), count);
    let timers = |broker: &Broker| {
        let state = broker.inner.shards[1].state.read();
        let timers = state.timers.timers().unwrap();
        (timers.runs().len(), timers.bytes())
    };
    let (runs, bytes) = timers(&broker);
    assert!(runs > 1 && bytes < 4 << 20, "{runs} runs, {bytes} bytes");
    broker.inner.shards[1].checkpoint().unwrap();
    advance(&machine, &broker, 10_000 + count as i64 / 2);
    until(|| parked(&broker) < count / 2).await;
    let opening = move || {
        broker.shutdown();
        drop(broker);
        let broker = machine.open();
        (machine, broker)
    };
    let (machine, broker) = tokio::task::spawn_blocking(opening).await.unwrap();
    until(|| broker.catalog().topic(NAME).is_some()).await;
    machine.agrees_with_replay(&broker);
    assert!(parked(&broker) > 0);
    advance(&machine, &broker, count as i64);
    until(|| parked(&broker) == 0).await;
    assert!(with(&broker, &queue, |of| (0..count).all(|at| of.attempts(at).unwrap().returned == 1)));
    assert_eq!(timers(&broker).0, 0);
    machine.agrees_with_replay(&broker);
    close(broker).await;
}

#[derive(Debug, Clone)]
enum Step {
    Publish {
        count: usize,
    },
    /// The first ready messages are taken and given back.
    Bounce {
        count: usize,
        counted: bool,
        delay_ms: Option<i64>,
    },
    /// The first ready messages are taken and settled.
    Settle {
        count: usize,
    },
    /// Messages are settled wherever they are.
    SettleAnyhow {
        from: u64,
        count: u64,
    },
    Purge,
    Pass(i64),
    Checkpoint,
    Restart,
    /// Time passes, the disk does some of its work meanwhile, and the power goes.
    Crash {
        steps: usize,
        ms: i64,
    },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (1..12usize).prop_map(|count| Step::Publish { count }),
        8 => (1..5usize, any::<bool>(), prop::option::of(-5..120i64))
            .prop_map(|(count, counted, delay_ms)| Step::Bounce { count, counted, delay_ms }),
        1 => (1..3usize).prop_map(|count| Step::Settle { count }),
        1 => (0..12u64, 1..4u64).prop_map(|(from, count)| Step::SettleAnyhow { from, count }),
        1 => Just(Step::Purge),
        6 => (0..90i64).prop_map(Step::Pass),
        1 => Just(Step::Checkpoint),
        1 => Just(Step::Restart),
        2 => (0..10usize, 0..60i64).prop_map(|(steps, ms)| Step::Crash { steps, ms }),
    ]
}

/// A message: until when it is parked, and how often it came back such that it counts.
#[derive(Debug, Clone, Copy, Default)]
struct Naive {
    settled: bool,
    until_ms: i64,
    returned: u32,
}

impl Naive {
    fn state(&self, now_ms: i64) -> MessageState {
        match (self.settled, self.until_ms > now_ms) {
            (true, _) => Settled,
            (false, true) => Parked,
            (false, false) => Ready,
        }
    }

    fn give_back(&mut self, config: &QueueConfig, counted: bool, until_ms: Option<i64>, now_ms: i64) {
        self.returned += u32::from(counted);
        if counted && config.delivery_limit.is_some_and(|most| self.returned > most) {
            self.settled = true;
        }
        let delay =
            config.retry.as_ref().filter(|_| counted).map_or(0, |retry| retry.delay_ms(self.returned));
        self.until_ms = until_ms.unwrap_or(now_ms + i64::from(delay));
    }
}

struct World {
    machine: Machine,
    broker: Broker,
    queue: Arc<Topic>,
    config: QueueConfig,
    naive: Vec<Naive>,
}

impl World {
    async fn take(mut self, step: &Step) -> Self {
        let now = self.broker.now_ms();
        match *step {
            Step::Publish { count } => {
                publish(&self.broker, &self.queue, count).await;
                self.naive.extend(vec![Naive::default(); count]);
            }
            Step::Bounce { count, counted, delay_ms } => {
                let until_ms = delay_ms.map(|delay| now + delay);
                let bounced = bounce(&self.broker, &self.queue, count, counted, until_ms).await;
                self.check_taken(&bounced, count, now);
                for (offset, _) in bounced {
                    self.naive[offset as usize].give_back(&self.config, counted, until_ms, now);
                }
            }
            Step::Settle { count } => {
                let (target, owner) = (self.target(), self.broker.queues().owner());
                let mut taken = Vec::new();
                for _ in 0..count {
                    let getting = self.broker.queues().get(&CALLER, target, owner, true);
                    self.broker.flush();
                    taken.extend(soon(getting).await.unwrap().map(|got| (got.offset, got.returned)));
                }
                self.check_taken(&taken, count, now);
                taken.iter().for_each(|(offset, _)| self.naive[*offset as usize].settled = true);
            }
            Step::SettleAnyhow { from, count } => {
                let to = (from + count).min(self.naive.len() as u64);
                if from < to {
                    settle_anyhow(&self.broker, &self.queue, from..to).await;
                    self.naive[from as usize..to as usize].iter_mut().for_each(|naive| naive.settled = true);
                }
            }
            Step::Purge => {
                let purging = self.broker.queues().purge(&CALLER, self.target());
                self.broker.flush();
                soon(purging).await.unwrap();
                self.naive.iter_mut().for_each(|naive| naive.settled = true);
            }
            Step::Pass(ms) => advance(&self.machine, &self.broker, ms),
            Step::Checkpoint => self.broker.inner.shards.iter().for_each(|shard| shard.checkpoint().unwrap()),
            Step::Restart => {
                let broker = self.broker.clone();
                tokio::task::spawn_blocking(move || broker.shutdown()).await.unwrap();
                self = self.reopened(false).await;
            }
            Step::Crash { steps, ms } => {
                self.machine.disks.iter().for_each(|disk| disk.set_auto(false));
                advance(&self.machine, &self.broker, ms);
                for _ in 0..steps {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                    self.machine.disks.iter().for_each(|disk| {
                        disk.step();
                    });
                }
                self = self.reopened(true).await;
            }
        }
        self.check().await;
        self
    }

    fn target(&self) -> QueueTarget {
        QueueTarget::new(&CALLER, &self.queue).unwrap()
    }

    /// The first that were ready were taken, in their order, and counted.
    fn check_taken(&self, taken: &[(u64, u32)], count: usize, now_ms: i64) {
        let ready = self.naive.iter().zip(0..).filter(|(naive, _)| naive.state(now_ms) == Ready);
        let first: Vec<_> = ready.take(count).map(|(naive, offset)| (offset, naive.returned)).collect();
        assert_eq!(taken, first);
    }

    async fn check(&self) {
        let now_ms = self.broker.now_ms();
        let expected: Vec<_> = self.naive.iter().map(|naive| naive.state(now_ms)).collect();
        let began = std::time::Instant::now();
        while states(&self.broker, &self.queue) != expected {
            assert!(
                began.elapsed() < Duration::from_secs(20),
                "{:?} is not {expected:?}",
                states(&self.broker, &self.queue)
            );
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    async fn reopened(self, crashed: bool) -> Self {
        let Self { machine, broker, queue, config, naive } = self;
        let opening = move || {
            let machine = if crashed {
                machine.crash(broker)
            } else {
                drop(broker);
                machine
            };
            machine.disks.iter().for_each(|disk| disk.set_auto(true));
            let broker = machine.open();
            (machine, broker)
        };
        let (machine, broker) = tokio::task::spawn_blocking(opening).await.unwrap();
        until(|| broker.catalog().topic(NAME).is_some()).await;
        machine.agrees_with_replay(&broker);
        Self { machine, broker, queue, config, naive }
    }
}

fn run(seed: u64, config: QueueConfig, steps: &[Step]) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let machine = Machine { recycle: false, ..Machine::new(seed, 1, Seam::Solo) };
        let broker = machine.open();
        let queue = queue(&broker, config.clone()).await;
        publish(&broker, &queue, 6).await;
        let naive = vec![Naive::default(); 6];
        let mut world = Box::new(World { machine, broker, queue, config, naive });
        for step in steps {
            *world = Box::pin(world.take(step)).await;
        }
        advance(&world.machine, &world.broker, 100_000);
        world.check().await;
        world.machine.agrees_with_replay(&world.broker);
        close(world.broker.clone()).await;
    });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 40, max_shrink_time: 60_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn each_waits_until_its_moment_over_stops_and_power_cuts(
        seed in any::<u64>(),
        by_settings in any::<bool>(),
        steps in prop::collection::vec(step(), 1..40),
    ) {
        run(seed, if by_settings { patient() } else { QueueConfig::default() }, &steps);
    }
}

//! Messages that are published again and again: each so often as it says, over stops and power cuts at any moment, until it is called back.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use sabir_model::batch::{BatchBuilder, Compression};
use sabir_model::{Facts, Offset, RecordFacts};

use super::rig::{soon, until};
use super::sim::{Machine, Seam};
use super::timers::{FRONT_END, Places, advance, lies_in, open, places, waiting};
use crate::{AppendAcks, AppendTarget, Broker, Caller, Publish, PublishTargets, RecallOutcome, Topic};

const PERIOD: u32 = 100;

/// Keeps messages back: (value, moment, how often it is published after the first time). Gives whether they were confirmed.
async fn repeat(broker: &Broker, delayed: &Arc<Topic>, key: &str, messages: &[(u64, i64, u32)]) -> bool {
    let caller = Caller::front_end(FRONT_END);
    let origin = broker.front_end_number(FRONT_END).unwrap();
    let target = AppendTarget::new(&caller, delayed, 0, AppendAcks::InSync, origin).unwrap();
    let targets = PublishTargets::new(vec![target]).unwrap();
    let (mut batch, mut facts) = (BatchBuilder::new(Compression::None), RecordFacts::new());
    for (value, due_ms, times) in messages {
        let often = [PERIOD.to_be_bytes(), times.to_be_bytes()].concat();
        let headers = [(&b"later"[..], None), (&b"often"[..], Some(&often[..]))];
        batch.push(*due_ms, Some(key.as_bytes()), Some(&value.to_be_bytes()), &headers);
        facts.push(Facts { deliver_at_ms: Some(*due_ms), ..Facts::default() }).unwrap();
    }
    let batch = batch.build_checked(&targets.rules(), broker.wall_ms()).unwrap();
    let mut publish = Publish::new(targets, [batch]);
    publish.batches[0].facts = Some(facts);
    let outcomes = broker.publish(&caller, &publish).unwrap();
    broker.flush();
    soon(outcomes.confirmed()).await.is_ok()
}

async fn shut_down(broker: Broker) {
    tokio::task::spawn_blocking(move || broker.shutdown()).await.unwrap();
}

async fn came(broker: &Broker, queue: &Topic, count: usize) {
    for _ in 0..2_000 {
        if lies_in(broker, queue).await.len() == count {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("{:?} came, not {count}", lies_in(broker, queue).await);
}

#[tokio::test]
async fn a_message_fires_once_a_period_and_once_for_those_that_passed_together() {
    let machine = Machine::new(31, 1, Seam::Solo);
    let broker = open(&machine);
    let Places { delayed, queues } = places(&broker).await;
    let now = broker.now_ms();
    assert!(repeat(&broker, &delayed, "q0", &[(7, now + 50, 3)]).await);
    for (passes, count) in [(60, 1), (100, 2), (1_000, 3)] {
        advance(&machine, &broker, passes);
        came(&broker, &queues[0], count).await;
        assert_eq!(waiting(&broker, &delayed), 1);
    }
    // In step with the first time again.
    advance(&machine, &broker, 89);
    tokio::time::sleep(Duration::from_millis(30)).await;
    assert_eq!(lies_in(&broker, &queues[0]).await.len(), 3);
    advance(&machine, &broker, 1);
    until(|| waiting(&broker, &delayed) == 0).await;
    assert_eq!(lies_in(&broker, &queues[0]).await, [7; 4]);
    machine.agrees_with_replay(&broker);
    shut_down(broker).await;
}

#[tokio::test]
async fn one_that_is_called_back_fires_no_more() {
    let machine = Machine::new(32, 1, Seam::Solo);
    let broker = open(&machine);
    let Places { delayed, queues } = places(&broker).await;
    let now = broker.now_ms();
    assert!(repeat(&broker, &delayed, "q0", &[(7, now + 50, 1_000)]).await);
    advance(&machine, &broker, 60);
    came(&broker, &queues[0], 1).await;
    let recalled = broker.recall(&Caller::front_end(FRONT_END), &delayed, 0, Offset(0)).await;
    assert_eq!(recalled, Ok(RecallOutcome::Recalled));
    advance(&machine, &broker, 10_000);
    tokio::time::sleep(Duration::from_millis(30)).await;
    assert_eq!((lies_in(&broker, &queues[0]).await, waiting(&broker, &delayed)), (vec![7], 0));
    shut_down(broker).await;
}

/// What was published to another shard is known until its message is done with, and is published there each time all the same.
#[tokio::test]
async fn a_message_goes_to_other_shards_each_time() {
    let machine = Machine::new(33, 3, Seam::Solo);
    let broker = open(&machine);
    let Places { delayed, queues } = places(&broker).await;
    let wide = super::rig::create(&broker, "wide", 3).await;
    super::timers::bind_to(&broker, "later", "wide", b"q0").await;
    let partition = *wide.partition(7 % 3).unwrap();
    let now = broker.now_ms();
    assert!(repeat(&broker, &delayed, "q0", &[(7, now + 50, 2)]).await);
    for count in 1..=3 {
        advance(&machine, &broker, i64::from(PERIOD));
        came(&broker, &queues[0], count).await;
    }
    until(|| waiting(&broker, &delayed) == 0).await;
    let end = || {
        let state = broker.inner.shards[partition.shard.0 as usize].state.read();
        state.partition(partition.id).unwrap().next.0
    };
    until(|| end() == 3).await;
    shut_down(broker).await;
}

#[derive(Debug, Clone)]
enum Step {
    Publish {
        count: u64,
        times: u32,
        waits: bool,
    },
    Pass(i64),
    Checkpoint,
    Restart,
    /// The disk does some more of its work, and the power goes.
    Crash {
        steps: usize,
    },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1..10u64, 0..6u32, any::<bool>())
            .prop_map(|(count, times, waits)| Step::Publish { count, times, waits }),
        8 => (0..300i64).prop_map(Step::Pass),
        1 => Just(Step::Checkpoint),
        1 => Just(Step::Restart),
        2 => (0..12usize).prop_map(|steps| Step::Crash { steps }),
    ]
}

struct World {
    machine: Machine,
    broker: Broker,
    places: Places,
    /// By message, how often it comes, and whether it was confirmed.
    sent: BTreeMap<u64, (u32, bool)>,
}

impl World {
    async fn take(mut self, step: &Step) -> Self {
        match *step {
            Step::Publish { count, times, waits } => {
                let (first, now) = (self.sent.len() as u64, self.broker.now_ms());
                let all: Vec<_> =
                    (first..first + count).map(|value| (value, now + value as i64 % 7, times)).collect();
                let publishing = repeat(&self.broker, &self.places.delayed, "q0", &all);
                let confirmed = match waits {
                    true => publishing.await,
                    false => {
                        tokio::time::timeout(Duration::from_micros(1), publishing).await.unwrap_or(false)
                    }
                };
                self.sent.extend(all.iter().map(|(value, ..)| (*value, (times + 1, confirmed))));
            }
            Step::Pass(ms) => {
                advance(&self.machine, &self.broker, ms);
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            Step::Checkpoint => self.broker.inner.shards.iter().for_each(|shard| shard.checkpoint().unwrap()),
            Step::Restart => {
                shut_down(self.broker.clone()).await;
                self = self.reopened(false).await;
            }
            Step::Crash { steps } => {
                self.machine.disks.iter().for_each(|disk| disk.set_auto(false));
                for _ in 0..steps {
                    advance(&self.machine, &self.broker, 25);
                    tokio::time::sleep(Duration::from_millis(1)).await;
                    self.machine.disks.iter().for_each(|disk| {
                        disk.step();
                    });
                }
                self = self.reopened(true).await;
            }
        }
        self
    }

    async fn reopened(self, crashed: bool) -> Self {
        let Self { machine, broker, places, sent } = self;
        let opening = move || {
            let machine = if crashed {
                machine.crash(broker)
            } else {
                drop(broker);
                machine
            };
            machine.disks.iter().for_each(|disk| disk.set_auto(true));
            let broker = open(&machine);
            (machine, broker)
        };
        let (machine, broker) = tokio::task::spawn_blocking(opening).await.unwrap();
        until(|| broker.catalog().topic("delayed").is_some()).await;
        machine.agrees_with_replay(&broker);
        Self { machine, broker, places, sent }
    }

    /// Each comes as often as it says.
    async fn check(&self) {
        let passes = || {
            advance(&self.machine, &self.broker, 1_000);
            waiting(&self.broker, &self.places.delayed) == 0
        };
        until(passes).await;
        let mut times: BTreeMap<u64, u32> = BTreeMap::new();
        for value in lies_in(&self.broker, &self.places.queues[0]).await {
            *times.entry(value).or_default() += 1;
        }
        for (value, (wanted, confirmed)) in &self.sent {
            let came = times.get(value).copied().unwrap_or_default();
            assert!(came == *wanted || (came == 0 && !confirmed), "{value} came {came} times, not {wanted}");
        }
    }
}

fn run(seed: u64, steps: &[Step]) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let machine = Machine { recycle: false, ..Machine::new(seed, 1, Seam::Solo) };
        let broker = open(&machine);
        let places = places(&broker).await;
        let mut world = Box::new(World { machine, broker, places, sent: BTreeMap::new() });
        for step in steps {
            *world = Box::pin(world.take(step)).await;
        }
        world.check().await;
        shut_down(world.broker.clone()).await;
    });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, max_shrink_iters: 40, max_shrink_time: 60_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn each_message_fires_as_often_as_it_says_over_stops_and_power_cuts(seed in any::<u64>(), steps in prop::collection::vec(step(), 1..40)) {
        run(seed, &steps);
    }
}

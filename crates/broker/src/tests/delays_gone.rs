//! What an exchange keeps back goes with it, at once, and nothing else does, over stops and power cuts at any moment.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use sabir_model::{Offset, QueueConfig};

use super::rig::until;
use super::sim::{Machine, Seam};
use super::timers::{FRONT_END, advance, bind_to, lies_in, open, publish_to, queue, waiting};
use crate::exchange::{ExchangeError, ExchangeId, ExchangeKind, ExchangeSpec};
use crate::queue::QueueError;
use crate::{Broker, Caller, DelayedRefused, RecallOutcome, Topic};

/// Far from now, in milliseconds.
const LATER: i64 = 1_000_000;

async fn declare(broker: &Broker, name: &str) -> ExchangeId {
    let spec = ExchangeSpec { delayed: true, ..ExchangeSpec::of(ExchangeKind::Direct) };
    broker.exchanges().declare(&Caller::OPERATOR, name, spec).await.unwrap();
    bind_to(broker, name, "q", b"k").await;
    id(broker, name).unwrap()
}

fn id(broker: &Broker, name: &str) -> Option<ExchangeId> {
    broker.exchanges().declared(&Caller::OPERATOR, name).unwrap().map(|(id, _)| id)
}

async fn delete(broker: &Broker, name: &str) -> Result<(), ExchangeError> {
    broker.exchanges().delete(&Caller::OPERATOR, name, false).await
}

async fn queues(broker: &Broker) -> (Arc<Topic>, Arc<Topic>) {
    let delayed = queue(broker, "delayed", QueueConfig { delays: true, ..QueueConfig::default() }).await;
    (delayed, queue(broker, "q", QueueConfig::default()).await)
}

async fn keep_back(
    broker: &Broker,
    delayed: &Arc<Topic>,
    exchange: (&str, ExchangeId),
    values: std::ops::Range<u64>,
) {
    let due_ms = broker.now_ms() + LATER;
    let all: Vec<_> = values.map(|value| (value, "k", due_ms + value as i64)).collect();
    assert!(publish_to(broker, delayed, Some(exchange), &all).await);
}

fn in_memory(broker: &Broker, delayed: &Topic) -> usize {
    let state = broker.inner.shards[delayed.partitions[0].shard.0 as usize].state.read();
    state.timers.timers().unwrap().in_memory(sabir_delivery::timer::TimerKey::FIRST).count()
}

/// Messages' offsets are their values, as all of them are confirmed.
async fn recall(broker: &Broker, delayed: &Arc<Topic>, value: u64) -> RecallOutcome {
    let caller = Caller::front_end(FRONT_END);
    broker.recall(&caller, delayed, 0, Offset(value as i64)).await.unwrap()
}

async fn shut_down(broker: Broker) {
    tokio::task::spawn_blocking(move || broker.shutdown()).await.unwrap();
}

#[tokio::test]
async fn what_an_exchange_keeps_back_goes_with_it_and_frees_its_space() {
    let machine = Machine::new(21, 1, Seam::Solo);
    let broker = open(&machine);
    let (delayed, queue) = queues(&broker).await;
    let (first, other) = (declare(&broker, "first").await, declare(&broker, "other").await);
    keep_back(&broker, &delayed, ("first", first), 0..500).await;
    keep_back(&broker, &delayed, ("other", other), 500..510).await;
    keep_back(&broker, &delayed, ("first", first), 510..1000).await;
    delete(&broker, "first").await.unwrap();
    until(|| waiting(&broker, &delayed) == 10).await;
    assert_eq!(in_memory(&broker, &delayed), 10, "timers go with their messages");
    let again = declare(&broker, "first").await;
    assert_ne!(first, again);
    keep_back(&broker, &delayed, ("first", again), 1000..1003).await;
    // As one does that was on its way while the exchange went.
    keep_back(&broker, &delayed, ("first", first), 1003..1005).await;
    advance(&machine, &broker, LATER + 2_000);
    until(|| waiting(&broker, &delayed) == 0).await;
    assert_eq!(lies_in(&broker, &queue).await, (500..510).chain(1000..1003).collect::<Vec<_>>());
    machine.agrees_with_replay(&broker);
    shut_down(broker).await;
}

#[tokio::test]
async fn what_went_while_nobody_looked_goes_at_the_next_start() {
    let machine = Machine::new(22, 1, Seam::Solo);
    let broker = open(&machine);
    let (delayed, _) = queues(&broker).await;
    let (first, other) = (declare(&broker, "first").await, declare(&broker, "other").await);
    keep_back(&broker, &delayed, ("other", other), 0..10).await;
    delete(&broker, "first").await.unwrap();
    // As one does that was on its way: behind the search, mostly.
    keep_back(&broker, &delayed, ("first", first), 10..20).await;
    shut_down(broker.clone()).await;
    drop(broker);
    let opening = move || {
        let broker = open(&machine);
        (machine, broker)
    };
    let (machine, broker) = tokio::task::spawn_blocking(opening).await.unwrap();
    until(|| broker.catalog().topic("delayed").is_some() && waiting(&broker, &delayed) == 10).await;
    assert_eq!(in_memory(&broker, &delayed), 10);
    machine.agrees_with_replay(&broker);
    shut_down(broker).await;
}

#[tokio::test]
async fn a_message_is_called_back_once_while_it_is_pending_and_by_its_front_end() {
    let machine = Machine::new(24, 1, Seam::Solo);
    let broker = open(&machine);
    let (delayed, queue) = queues(&broker).await;
    let first = declare(&broker, "first").await;
    keep_back(&broker, &delayed, ("first", first), 0..3).await;
    assert_eq!(recall(&broker, &delayed, 1).await, RecallOutcome::Recalled);
    assert_eq!(in_memory(&broker, &delayed), 2, "its timer goes with it");
    assert_eq!(recall(&broker, &delayed, 1).await, RecallOutcome::NotPending);
    assert_eq!(recall(&broker, &delayed, 7).await, RecallOutcome::NotPending);
    advance(&machine, &broker, LATER + 10);
    until(|| waiting(&broker, &delayed) == 0).await;
    assert_eq!(recall(&broker, &delayed, 0).await, RecallOutcome::NotPending, "it has fired");
    assert_eq!(lies_in(&broker, &queue).await, [0, 2]);
    let by = |caller: Caller, topic: Arc<Topic>| {
        let broker = broker.clone();
        async move { broker.recall(&caller, &topic, 0, Offset(0)).await }
    };
    assert_eq!(by(Caller::OPERATOR, delayed.clone()).await, Err(QueueError::Internal));
    assert_eq!(by(Caller::front_end(FRONT_END), queue.clone()).await, Err(QueueError::NotAQueue));
    let refused = broker.delayed(&Caller::front_end(FRONT_END), None, None, Duration::ZERO);
    assert_eq!(refused, Err(DelayedRefused::NotOperator));
    machine.agrees_with_replay(&broker);
    shut_down(broker).await;
}

/// More than are looked at in one go, and more timers than memory holds: what is out fires in vain.
#[tokio::test]
async fn very_many_messages_go_with_their_exchange() {
    let machine = Machine { recycle: false, ..Machine::new(23, 1, Seam::Solo) };
    let broker = open(&machine);
    let (delayed, queue) = queues(&broker).await;
    let (first, other) = (declare(&broker, "first").await, declare(&broker, "other").await);
    for from in (0..20_000).step_by(1_000) {
        keep_back(&broker, &delayed, ("first", first), from..from + 1_000).await;
        keep_back(&broker, &delayed, ("other", other), from..from + 1).await;
    }
    delete(&broker, "first").await.unwrap();
    until(|| waiting(&broker, &delayed) == 20).await;
    let before = broker.stats().shards[1].entries;
    advance(&machine, &broker, LATER + 20_000);
    until(|| waiting(&broker, &delayed) == 0).await;
    assert_eq!(lies_in(&broker, &queue).await.len(), 20);
    let entries = broker.stats().shards[1].entries - before;
    assert!(entries <= 30, "{entries} entries");
    machine.agrees_with_replay(&broker);
    shut_down(broker).await;
}

#[derive(Debug, Clone)]
enum Step {
    Publish {
        exchange: usize,
        count: u64,
    },
    Delete {
        exchange: usize,
        waits: bool,
    },
    Declare {
        exchange: usize,
    },
    /// One of all that there were.
    Recall {
        which: u64,
    },
    Checkpoint,
    Restart,
    /// The disk does some more of its work, and the power goes.
    Crash {
        steps: usize,
    },
}

const NAMES: [&str; 2] = ["x0", "x1"];

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..2usize, 1..40u64).prop_map(|(exchange, count)| Step::Publish { exchange, count }),
        3 => (0..2usize, any::<bool>()).prop_map(|(exchange, waits)| Step::Delete { exchange, waits }),
        4 => (0..2usize).prop_map(|exchange| Step::Declare { exchange }),
        3 => any::<u64>().prop_map(|which| Step::Recall { which }),
        1 => Just(Step::Checkpoint),
        1 => Just(Step::Restart),
        2 => (0..8usize).prop_map(|steps| Step::Crash { steps }),
    ]
}

struct World {
    machine: Machine,
    broker: Broker,
    delayed: Arc<Topic>,
    queue: Arc<Topic>,
    /// By message, its exchange and that one's number.
    sent: BTreeMap<u64, (usize, ExchangeId)>,
    recalled: BTreeSet<u64>,
}

impl World {
    async fn take(mut self, step: &Step) -> Self {
        match *step {
            Step::Publish { exchange, count } => {
                let Some(id) = id(&self.broker, NAMES[exchange]) else { return self };
                let first = self.sent.len() as u64;
                keep_back(&self.broker, &self.delayed, (NAMES[exchange], id), first..first + count).await;
                self.sent.extend((first..first + count).map(|value| (value, (exchange, id))));
            }
            Step::Delete { exchange, waits } => {
                if id(&self.broker, NAMES[exchange]).is_none() {
                    return self;
                }
                // One may be on its way already.
                let deleting = delete(&self.broker, NAMES[exchange]);
                match waits {
                    true => {
                        let _ = deleting.await;
                    }
                    false => {
                        let _ = tokio::time::timeout(Duration::from_micros(1), deleting).await;
                    }
                }
            }
            Step::Declare { exchange } => {
                let name = NAMES[exchange];
                let spec = ExchangeSpec { delayed: true, ..ExchangeSpec::of(ExchangeKind::Direct) };
                // A deletion may be on its way.
                let _ = self.broker.exchanges().declare(&Caller::OPERATOR, name, spec).await;
            }
            Step::Recall { which } if !self.sent.is_empty() => {
                let value = which % self.sent.len() as u64;
                let (exchange, by) = self.sent[&value];
                let recalled = recall(&self.broker, &self.delayed, value).await;
                let is_pending =
                    id(&self.broker, NAMES[exchange]) == Some(by) && !self.recalled.contains(&value);
                // What is of no exchange any more may have gone.
                assert!(recalled == RecallOutcome::Recalled || !is_pending, "{value}");
                assert!(recalled == RecallOutcome::NotPending || self.recalled.insert(value), "{value}");
            }
            Step::Recall { .. } => {}
            Step::Checkpoint => self.broker.inner.shards.iter().for_each(|shard| shard.checkpoint().unwrap()),
            Step::Restart => {
                shut_down(self.broker.clone()).await;
                self = self.reopened(false).await;
            }
            Step::Crash { steps } => {
                self.machine.disks.iter().for_each(|disk| disk.set_auto(false));
                for _ in 0..steps {
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
        let Self { machine, broker, delayed, queue, sent, recalled } = self;
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
        Self { machine, broker, delayed, queue, sent, recalled }
    }

    /// What is kept back is of exchanges that are there, long before it is due; all of it comes then, and nothing else.
    async fn check(&self) {
        let there: Vec<_> = NAMES.iter().map(|name| id(&self.broker, name)).collect();
        let is_left = |(exchange, id): &(usize, ExchangeId)| there[*exchange] == Some(*id);
        let left = self.sent.iter().filter(|(value, by)| is_left(by) && !self.recalled.contains(value));
        let left: Vec<u64> = left.map(|(value, _)| *value).collect();
        until(|| waiting(&self.broker, &self.delayed) == left.len() as u64).await;
        for name in NAMES.iter().zip(&there).filter_map(|(name, id)| id.map(|_| name)) {
            bind_to(&self.broker, name, "q", b"k").await;
        }
        advance(&self.machine, &self.broker, 2 * LATER);
        until(|| waiting(&self.broker, &self.delayed) == 0).await;
        let mut came = lies_in(&self.broker, &self.queue).await;
        came.sort_unstable();
        assert_eq!(came, left);
    }
}

fn run(seed: u64, steps: &[Step]) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let machine = Machine { recycle: false, ..Machine::new(seed, 1, Seam::Solo) };
        let broker = open(&machine);
        let (delayed, queue) = queues(&broker).await;
        let mut world = Box::new(World {
            machine,
            broker,
            delayed,
            queue,
            sent: BTreeMap::new(),
            recalled: BTreeSet::new(),
        });
        for step in steps {
            *world = Box::pin(world.take(step)).await;
        }
        // What was not waited for is decided.
        declare(&world.broker, "last").await;
        world.check().await;
        shut_down(world.broker.clone()).await;
    });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, max_shrink_iters: 40, max_shrink_time: 60_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn only_what_exchanges_keep_back_that_are_there_comes(seed in any::<u64>(), steps in prop::collection::vec(step(), 1..40)) {
        run(seed, &steps);
    }
}

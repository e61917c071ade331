//! Queues, and subscriptions of a topic, against a model of them: random work of publishers and consumers, with power cuts at any moment.
//!
//! What was acknowledged, and is known to be, never comes again; what was confirmed and not acknowledged is never lost; and what comes unflagged
//! was never there before.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use sabir_base::outbox::Outbox;
use sabir_delivery::subscription::MessageState;
use sabir_model::{AppendError, ErrorAbout, Offset, QueueConfig, ShardFailure, TopicConfig, TopicError};

use super::rig::{batch, item, soon, until};
use super::sim::{Machine, Seam};
use crate::push::{Push, PushedMessages};
use crate::queue::{
    ConsumerSpec, Credit, Demand, QueueConsumer, QueueError, QueueOwner, QueueTarget, SubscriptionSpec,
};
use crate::{Broker, Caller, NewTopic, Topic};

const CALLER: Caller = Caller::OPERATOR;
/// The last two are subscriptions of one topic.
const QUEUES: usize = 4;
const FIRST_SUBSCRIPTION: usize = 2;
/// Consumers at a time.
const CLIENTS: usize = 6;

#[derive(Debug, Clone)]
enum Step {
    /// Messages are published, and waited for or not.
    Publish {
        queue: usize,
        count: usize,
        waits: bool,
    },
    Attach {
        queue: usize,
        credit: u32,
        settles: bool,
    },
    /// A consumer acknowledges, or gives back, every so many of what it has.
    Acknowledge {
        client: usize,
        every: usize,
    },
    GiveBack {
        client: usize,
        every: usize,
        counted: bool,
    },
    /// It takes leave, or vanishes.
    Leave {
        client: usize,
    },
    Vanish {
        client: usize,
    },
    Get {
        queue: usize,
        settles: bool,
    },
    Purge {
        queue: usize,
    },
    /// So many of the oldest records that are confirmed are removed from the topic.
    Trim {
        count: usize,
    },
    /// Time passes.
    Pause,
    Checkpoint,
    Restart,
    /// Some of the disks' work is done, and the power goes.
    Crash {
        steps: usize,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let (queue, client) = (0..QUEUES, 0..CLIENTS);
    prop_oneof![
        10 => (queue.clone(), 1..40usize, any::<bool>())
            .prop_map(|(queue, count, waits)| Step::Publish { queue, count, waits }),
        5 => (queue.clone(), prop_oneof![Just(1u32), Just(7), Just(1000)], prop::bool::weighted(0.2))
            .prop_map(|(queue, credit, settles)| Step::Attach { queue, credit, settles }),
        8 => (client.clone(), 1..4usize).prop_map(|(client, every)| Step::Acknowledge { client, every }),
        3 => (client.clone(), 1..4usize, any::<bool>())
            .prop_map(|(client, every, counted)| Step::GiveBack { client, every, counted }),
        2 => client.clone().prop_map(|client| Step::Leave { client }),
        1 => client.prop_map(|client| Step::Vanish { client }),
        2 => (queue.clone(), any::<bool>()).prop_map(|(queue, settles)| Step::Get { queue, settles }),
        1 => queue.prop_map(|queue| Step::Purge { queue }),
        1 => (1..20usize).prop_map(|count| Step::Trim { count }),
        3 => Just(Step::Pause),
        1 => Just(Step::Checkpoint),
        1 => Just(Step::Restart),
        2 => (0..16usize).prop_map(|steps| Step::Crash { steps }),
    ]
}

/// What is known of a queue.
#[derive(Debug, Default)]
struct Known {
    /// Messages that are stored for certain.
    confirmed: BTreeSet<u64>,
    /// Messages that a consumer was sent.
    seen: BTreeSet<u64>,
    /// Messages that were acknowledged, or settled otherwise; perhaps in vain.
    settling: BTreeSet<u64>,
    /// Those of which the queue has taken it in.
    settled: BTreeSet<u64>,
    /// What lies below is removed: it comes no more, but may be on its way.
    trimmed: u64,
}

struct Client {
    queue: usize,
    settles: bool,
    owner: QueueOwner,
    demand: Demand,
    consumer: QueueConsumer,
    outbox: Arc<Outbox<Push>>,
    has: BTreeSet<u64>,
    cancelled: bool,
}

struct World {
    machine: Machine,
    broker: Broker,
    topics: Vec<Arc<Topic>>,
    targets: Vec<QueueTarget>,
    known: Vec<Known>,
    clients: Vec<Client>,
}

impl Known {
    fn delivered(&mut self, offset: u64, redelivered: bool) {
        let is_settled = self.settled.contains(&offset) && offset >= self.trimmed;
        assert!(!is_settled, "{offset} was acknowledged, and comes again");
        assert!(self.seen.insert(offset) || redelivered, "{offset} was sent before, and is not flagged");
    }
}

impl Client {
    /// Takes in what it was sent.
    fn take(&mut self, known: &mut Known) {
        let mut taken = VecDeque::new();
        self.outbox.take(&mut taken);
        for push in taken {
            match push {
                Push::Deliver(PushedMessages { offsets, redelivered, .. }) => {
                    for offset in offsets {
                        known.delivered(offset, redelivered);
                        if self.settles {
                            known.settling.insert(offset);
                        } else {
                            assert!(self.has.insert(offset), "{offset} is delivered twice to one who has it");
                        }
                    }
                }
                Push::Cancelled { .. } => self.cancelled = true,
                other => panic!("{other:?}"),
            }
        }
    }
}

impl World {
    async fn new(seed: u64, shards: usize, seam: Seam) -> Self {
        let machine = Machine { recycle: false, ..Machine::new(seed, shards, seam) };
        let broker = machine.open();
        let (mut topics, mut targets) = (Vec::new(), Vec::new());
        for number in 0..FIRST_SUBSCRIPTION {
            let config = TopicConfig::of_queue(QueueConfig::default());
            let topic = create(&broker, &format!("q{number}"), config).await;
            targets.push(QueueTarget::new(&CALLER, &topic).unwrap());
            topics.push(topic);
        }
        let topic = create(&broker, "topic", TopicConfig::default()).await;
        for number in FIRST_SUBSCRIPTION..QUEUES {
            let spec = SubscriptionSpec::default();
            let made = soon(broker.subscribe(&CALLER, &topic, &number.to_string(), &spec)).await.unwrap();
            targets.extend(made);
            topics.push(topic.clone());
        }
        let known = (0..QUEUES).map(|_| Known::default()).collect();
        Self { machine, broker, topics, targets, known, clients: Vec::new() }
    }

    /// The queues that have what is published to one of them.
    fn alike(queue: usize) -> std::ops::Range<usize> {
        if queue < FIRST_SUBSCRIPTION { queue..queue + 1 } else { FIRST_SUBSCRIPTION..QUEUES }
    }

    fn target(&self, queue: usize) -> QueueTarget {
        self.targets[queue]
    }

    /// Takes in what all were sent, and what queues have settled.
    fn look(&mut self) {
        self.clients.iter_mut().for_each(|client| client.take(&mut self.known[client.queue]));
        self.clients.retain(|client| !client.cancelled);
        for (target, known) in self.targets.iter().zip(&mut self.known) {
            let state = self.broker.inner.shards[target.shard().0 as usize].state.read();
            let Some(subscription) = state.subscriptions.get(target.subscription()) else { continue };
            let settled = known.settling.iter().copied();
            let settled = settled.filter(|offset| subscription.state(*offset) == MessageState::Settled);
            known.settled.extend(settled.collect::<Vec<_>>());
        }
    }

    async fn take(mut self, step: &Step) -> Self {
        match *step {
            Step::Publish { queue, count, waits } => self.publish(queue, count, waits).await,
            Step::Attach { queue, credit, settles } => self.attach(queue, credit, settles),
            Step::Acknowledge { client, every } => self.acknowledge(client, every),
            Step::GiveBack { client, every, counted } => self.give_back(client, every, counted),
            Step::Leave { client } => self.leave(client),
            Step::Vanish { client } => self.vanish(client),
            Step::Get { queue, settles } => self.get(queue, settles).await,
            Step::Purge { queue } => self.purge(queue).await,
            Step::Trim { count } => self.trim(count).await,
            Step::Pause => tokio::time::sleep(Duration::from_millis(2)).await,
            Step::Checkpoint => {
                self.broker.inner.shards.iter().for_each(|shard| shard.checkpoint().unwrap());
            }
            Step::Restart => {
                self.look();
                let broker = self.broker.clone();
                tokio::task::spawn_blocking(move || broker.shutdown()).await.unwrap();
                self = self.reopened(false).await;
            }
            Step::Crash { steps } => {
                self.look();
                self.work_unseen(steps).await;
                self = self.reopened(true).await;
            }
        }
        self.look();
        self
    }

    async fn publish(&mut self, queue: usize, count: usize, waits: bool) {
        let appending = self.broker.append(vec![item(
            &self.topics[queue],
            0,
            batch(&vec![b"message".as_slice(); count], 1),
        )]);
        self.broker.flush();
        if waits {
            match soon(appending).await.remove(0).map_err(|about| about.error) {
                Ok(appended) => {
                    let first = appended.base_offset.0 as u64;
                    for alike in Self::alike(queue) {
                        self.known[alike].confirmed.extend(first..first + count as u64);
                    }
                }
                Err(AppendError::Shard(ShardFailure::NotLeader)) => {}
                Err(error) => panic!("{error}"),
            }
        }
    }

    fn attach(&mut self, queue: usize, credit: u32, settles: bool) {
        let (queues, outbox, target) = (self.broker.queues(), Outbox::new(), self.target(queue));
        if self.clients.len() == CLIENTS {
            return;
        }
        let (owner, demand) = (queues.owner(), queues.demand(target.shard(), Credit::messages(credit)));
        let spec = ConsumerSpec { number: 1, owner, demand, priority: 0, exclusive: false, settles };
        match queues.attach(&CALLER, target, outbox.seat(), spec) {
            Ok(consumer) => {
                let (has, cancelled) = (BTreeSet::new(), false);
                self.clients.push(Client { queue, settles, owner, demand, consumer, outbox, has, cancelled });
            }
            Err(error) => assert_eq!(error.error, QueueError::Shard(ShardFailure::NotLeader)),
        }
    }

    /// Takes every so many messages from a client.
    fn some_of(&mut self, client: usize, every: usize) -> Option<(usize, QueueOwner, Vec<u64>)> {
        self.look();
        let client = self.clients.get_mut(client)?;
        let some: Vec<u64> = client.has.iter().copied().step_by(every).collect();
        client.has.retain(|offset| some.binary_search(offset).is_err());
        self.broker.queues().refill(client.demand, some.len() as u32, 0);
        Some((client.queue, client.owner, some))
    }

    fn acknowledge(&mut self, client: usize, every: usize) {
        let Some((queue, owner, some)) = self.some_of(client, every) else { return };
        self.known[queue].settling.extend(&some);
        let ranges = some.into_iter().map(|offset| offset..offset + 1);
        self.broker.queues().settle(self.target(queue), owner, ranges);
        self.broker.flush();
    }

    fn give_back(&mut self, client: usize, every: usize, counted: bool) {
        let Some((queue, owner, some)) = self.some_of(client, every) else { return };
        let ranges = some.into_iter().map(|offset| offset..offset + 1);
        self.broker.queues().give_back(self.target(queue), owner, ranges, counted, None);
        self.broker.flush();
    }

    fn leave(&mut self, client: usize) {
        self.look();
        if client >= self.clients.len() {
            return;
        }
        let mut client = self.clients.remove(client);
        let (queues, target) = (self.broker.queues(), self.target(client.queue));
        queues.detach(client.consumer);
        queues.end_demand(client.demand);
        client.take(&mut self.known[client.queue]);
        queues.release(target, client.owner, false);
        self.broker.flush();
    }

    /// Its connection ends: what it has is given back, and its consumer is there until something is left for it.
    fn vanish(&mut self, client: usize) {
        self.look();
        // What one that settles is sent then is gone.
        if self.clients.get(client).is_none_or(|client| client.settles) {
            return;
        }
        let mut client = self.clients.remove(client);
        client.take(&mut self.known[client.queue]);
        client.outbox.end();
        self.broker.queues().release(self.target(client.queue), client.owner, false);
        self.broker.flush();
    }

    async fn get(&mut self, queue: usize, settles: bool) {
        let (queues, target) = (self.broker.queues(), self.target(queue));
        let owner = queues.owner();
        match soon(queues.get(&CALLER, target, owner, settles)).await {
            Ok(Some(got)) => {
                self.look();
                self.known[queue].delivered(got.offset, got.redelivered);
                if settles {
                    self.known[queue].settling.insert(got.offset);
                } else {
                    self.broker.queues().release(target, owner, true);
                    self.broker.flush();
                }
            }
            Ok(None) | Err(ErrorAbout { error: QueueError::Shard(ShardFailure::NotLeader), .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }

    async fn purge(&mut self, queue: usize) {
        let before = self.known[queue].confirmed.clone();
        match soon(self.broker.queues().purge(&CALLER, self.target(queue))).await {
            // What no owner has may be gone.
            Ok(_) | Err(ErrorAbout { error: QueueError::Shard(ShardFailure::NotLeader), .. }) => {
                self.known[queue].settling.extend(before);
            }
            Err(error) => panic!("{error}"),
        }
    }

    async fn trim(&mut self, count: usize) {
        let of = FIRST_SUBSCRIPTION;
        let before = self.known[of].confirmed.iter().nth(count).copied().unwrap_or(0);
        for known in &mut self.known[of..] {
            known.settling.extend(0..before);
            known.trimmed = known.trimmed.max(before);
        }
        let place = self.topics[of].partitions[0];
        let trimmed = self.broker.delete_records(&CALLER, place.shard, place.id, Offset(before as i64));
        match soon(trimmed).await {
            Ok(_) | Err(TopicError::Shard(ShardFailure::NotLeader)) => {}
            Err(error) => panic!("{error}"),
        }
    }

    /// All work on, and the disks do little of their own.
    async fn work_unseen(&mut self, steps: usize) {
        self.machine.disks.iter().for_each(|disk| disk.set_auto(false));
        for step in 0..steps {
            let queue = step % QUEUES;
            drop(self.broker.append(vec![item(
                &self.topics[queue],
                0,
                batch(&[b"unseen".as_slice(); 3], 1),
            )]));
            self.broker.flush();
            if step % 3 == 0 {
                self.acknowledge(step % CLIENTS, 2);
            }
            self.machine.disks.iter().for_each(|disk| {
                disk.step();
            });
            tokio::time::sleep(Duration::from_millis(1)).await;
            self.look();
        }
    }

    async fn reopened(self, crashed: bool) -> Self {
        let Self { machine, broker, topics, targets, mut known, clients } = self;
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
        // What was left in their outboxes was sent; but what came in once the power had gone, while the broker ended, was not. All that came
        // before was looked at.
        for mut client in clients.into_iter().filter(|_| !crashed) {
            client.take(&mut known[client.queue]);
        }
        let mut world = Self { machine, broker, topics, targets, known, clients: Vec::new() };
        for topic in &world.topics {
            until(|| world.broker.catalog().topic(&topic.name).is_some()).await;
        }
        world.machine.agrees_with_replay(&world.broker);
        world.look();
        world
    }

    /// All that is left is delivered to a consumer that wants all of it.
    async fn check(&mut self) {
        for client in (0..self.clients.len()).rev() {
            self.leave(client);
        }
        for queue in 0..QUEUES {
            soon(self.drain(queue)).await;
            let known = &self.known[queue];
            let lost: Vec<_> = known.confirmed.difference(&known.settling).collect();
            assert!(lost.is_empty(), "{lost:?} of queue {queue} never came");
        }
    }

    async fn drain(&mut self, queue: usize) {
        loop {
            while self.clients.is_empty() {
                self.attach(queue, 10_000, false);
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            self.acknowledge(0, 1);
            let stats = self.broker.queues().stats(self.target(queue));
            if stats.is_ok_and(|stats| (stats.ready, stats.in_flight) == (0, 0)) {
                return self.leave(0);
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

/// Makes a topic; a cut has it try again.
async fn create(broker: &Broker, name: &str, config: TopicConfig) -> Arc<Topic> {
    loop {
        let config = config.clone();
        let new = NewTopic { name: name.to_owned(), partitions: 1, config, internal: false, unlike: false };
        match soon(broker.create_topics(&CALLER, vec![new])).await.remove(0) {
            Ok(topic) => return topic,
            Err(TopicError::Exists(_)) => {
                until(|| broker.catalog().topic(name).is_some()).await;
                return broker.catalog().topic(name).cloned().unwrap();
            }
            Err(error) => assert_eq!(error, ShardFailure::NotLeader.into()),
        }
    }
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
    });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, max_shrink_iters: 40, max_shrink_time: 60_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn one_shard_solo(seed in any::<u64>(), steps in prop::collection::vec(step(), 1..60)) {
        run(seed, 1, Seam::Solo, &steps);
    }

    #[test]
    fn three_shards_solo(seed in any::<u64>(), steps in prop::collection::vec(step(), 1..60)) {
        run(seed, 3, Seam::Solo, &steps);
    }
}

//! Queues through the broker: published, delivered, settled, and what is left of it after a start.

use std::collections::VecDeque;
use std::iter::once;
use std::ops::Range;
use std::sync::Arc;

use sabir_base::outbox::Outbox;
use sabir_model::batch::{BatchBuilder, Compression};
use sabir_model::{ErrorAbout, FrontendNo, Offset, QueueConfig, ShardFailure, TopicConfig, TopicError};

use super::rig::{append, batch, pending, soon, target, until, values};
use super::sim::{Machine, Seam};
use crate::open::block_on;
use crate::push::{CancelReason, Push, PushedMessages};
use crate::queue::{
    ConsumerSpec, Credit, DeleteOnlyIf, Demand, LocalTransaction, QueueConsumer, QueueError, QueueOwner,
    QueueTarget,
};
use crate::{
    Broker, Caller, NewTopic, Publish, PublishOutcomes, PublishTargets, PublishVerdict, SessionId, Topic,
};

pub(super) const CALLER: Caller = Caller::OPERATOR;

pub(super) async fn queue(broker: &Broker, name: &str, config: QueueConfig) -> (Arc<Topic>, QueueTarget) {
    let config = TopicConfig::of_queue(config);
    let new = NewTopic { name: name.to_owned(), partitions: 1, config, internal: false, unlike: false };
    let topic = broker.create_topics(&CALLER, vec![new]).await.remove(0).unwrap();
    let target = QueueTarget::new(&CALLER, &topic).unwrap();
    (topic, target)
}

fn found(broker: &Broker, name: &str) -> (Arc<Topic>, QueueTarget) {
    let topic = broker.catalog().topic(name).unwrap().clone();
    let target = QueueTarget::new(&CALLER, &topic).unwrap();
    (topic, target)
}

/// A session with one consumer.
pub(super) struct Client {
    broker: Broker,
    target: QueueTarget,
    pub(super) owner: QueueOwner,
    pub(super) demand: Demand,
    consumer: QueueConsumer,
    pub(super) outbox: Arc<Outbox<Push>>,
}

impl Client {
    pub(super) fn attach(broker: &Broker, target: QueueTarget, credit: u32) -> Self {
        Self::try_attach(broker, target, credit, |_| {}).unwrap()
    }

    pub(super) fn try_attach(
        broker: &Broker,
        target: QueueTarget,
        credit: u32,
        change: impl FnOnce(&mut ConsumerSpec),
    ) -> Result<Self, ErrorAbout<QueueError>> {
        let (queues, outbox) = (broker.queues(), Outbox::new());
        let demand = queues.demand(target.shard(), Credit::messages(credit));
        let owner = queues.owner();
        let (priority, exclusive, settles) = (0, false, false);
        let mut spec = ConsumerSpec { number: 1, owner, demand, priority, exclusive, settles };
        change(&mut spec);
        let consumer = queues.attach(&CALLER, target, outbox.seat(), spec)?;
        Ok(Self { broker: broker.clone(), target, owner, demand, consumer, outbox })
    }

    pub(super) fn taken(&self) -> VecDeque<Push> {
        let mut taken = VecDeque::new();
        self.outbox.take(&mut taken);
        taken
    }

    /// Waits for so many messages: which, and whether each may have been seen.
    pub(super) async fn delivered(&self, count: usize) -> Vec<(u64, bool)> {
        let mut all = Vec::new();
        until(|| {
            for push in self.taken() {
                let Push::Deliver(PushedMessages { offsets, redelivered, .. }) = push else {
                    panic!("{push:?}")
                };
                all.extend(offsets.map(|offset| (offset, redelivered)));
            }
            all.len() >= count
        })
        .await;
        assert_eq!(all.len(), count);
        all
    }

    pub(super) fn settle(&self, offsets: Range<u64>) {
        self.broker.queues().settle(self.target, self.owner, [offsets]);
        self.broker.flush();
    }

    pub(super) fn leave(self) {
        self.broker.queues().detach(self.consumer);
        self.broker.queues().release(self.target, self.owner, false);
        self.broker.queues().end_demand(self.demand);
        self.broker.flush();
    }
}

pub(super) fn numbers(range: Range<u64>, redelivered: bool) -> Vec<(u64, bool)> {
    range.map(|offset| (offset, redelivered)).collect()
}

pub(super) fn ready(broker: &Broker, target: QueueTarget) -> u64 {
    broker.queues().stats(target).unwrap().ready
}

#[tokio::test]
async fn what_is_published_is_delivered_read_settled_and_gone_after_a_start() {
    for shards in [1, 3] {
        let mut machine = Machine::new(1, shards, Seam::Solo);
        let broker = machine.open();
        let (topic, target) = queue(&broker, "q", QueueConfig::default()).await;
        append(&broker, &topic, 0, batch(&[b"a", b"b"], 1)).await.unwrap();
        let client = Client::attach(&broker, target, 100);
        assert_eq!(client.delivered(2).await, numbers(0..2, false));
        append(&broker, &topic, 0, batch(&[b"c", b"d"], 1)).await.unwrap();
        assert_eq!(client.delivered(2).await, numbers(2..4, false));
        let read = broker.read(target.read_target(), Offset(2), 1000, true).await.unwrap();
        assert_eq!(values(&read), [(2, b"c".to_vec()), (3, b"d".to_vec())]);
        client.settle(0..1);
        client.settle(2..3);
        until(|| broker.queues().stats(target).unwrap().in_flight == 2).await;
        drop(client);
        machine = machine.crash(broker);
        let broker = machine.open();
        let (_, target) = found(&broker, "q");
        let client = Client::attach(&broker, target, 100);
        assert_eq!(client.delivered(2).await, [(1, true), (3, true)]);
        client.settle(1..2);
        client.settle(3..4);
        until(|| broker.queues().stats(target).unwrap().in_flight == 0).await;
        machine.agrees_with_replay(&broker);
        drop(client);
        broker.shutdown();
    }
}

#[tokio::test]
async fn what_a_consumer_leaves_behind_is_the_next_ones() {
    let machine = Machine::new(2, 1, Seam::Solo);
    let broker = machine.open();
    let (topic, target) = queue(&broker, "q", QueueConfig::default()).await;
    append(&broker, &topic, 0, batch(&[b"a", b"b", b"c"], 1)).await.unwrap();
    let client = Client::attach(&broker, target, 2);
    assert_eq!(client.delivered(2).await, numbers(0..2, false));
    client.settle(0..1);
    client.leave();
    let client = Client::attach(&broker, target, 100);
    let mut seen = client.delivered(2).await;
    seen.sort_unstable();
    assert_eq!(seen, [(1, true), (2, false)]);
    drop(client);
    broker.shutdown();
}

#[tokio::test]
async fn a_message_is_got_behind_what_was_published_and_given_back_before() {
    let machine = Machine::new(3, 1, Seam::Solo);
    let broker = machine.open();
    let (topic, target) = queue(&broker, "q", QueueConfig::default()).await;
    let (queues, owner) = (broker.queues(), broker.queues().owner());
    assert_eq!(soon(queues.get(&CALLER, target, owner, false)).await, Ok(None));
    for number in 0..20 {
        // Not awaited: it stands in the open block.
        let appending = broker.append(vec![super::rig::item(&topic, 0, batch(&[b"x"], 1))]);
        let got = soon(queues.get(&CALLER, target, owner, false)).await.unwrap().unwrap();
        assert_eq!((got.offset, got.redelivered, got.left), (number, false, 0));
        assert!(appending.await[0].is_ok());
        if number % 3 == 0 {
            queues.give_back(target, owner, once(number..number + 1), true, None);
            let again = soon(queues.get(&CALLER, target, owner, false)).await.unwrap().unwrap();
            assert_eq!((again.offset, again.redelivered, again.returned), (number, true, 1));
        }
    }
    queues.settle(target, owner, once(0..20));
    broker.flush();
    until(|| broker.queues().stats(target).unwrap().in_flight == 0).await;
    broker.shutdown();
}

#[tokio::test]
async fn a_purge_counts_what_it_drops() {
    let machine = Machine::new(4, 1, Seam::Solo);
    let broker = machine.open();
    let (topic, target) = queue(&broker, "q", QueueConfig::default()).await;
    assert_eq!(soon(broker.queues().purge(&CALLER, target)).await, Ok(0));
    append(&broker, &topic, 0, batch(&[b"a", b"b", b"c"], 1)).await.unwrap();
    let client = Client::attach(&broker, target, 1);
    assert_eq!(client.delivered(1).await, numbers(0..1, false));
    assert_eq!(soon(broker.queues().purge(&CALLER, target)).await, Ok(2));
    assert_eq!((ready(&broker, target), client.taken().len()), (0, 0));
    drop(client);
    broker.shutdown();
}

#[tokio::test]
async fn who_consumes_is_told_that_the_queue_is_deleted_and_nobody_consumes_what_is_no_queue() {
    let machine = Machine::new(5, 1, Seam::Solo);
    let broker = machine.open();
    let (topic, target) = queue(&broker, "q", QueueConfig::default()).await;
    let plain = super::rig::create(&broker, "plain", 1).await;
    assert_eq!(QueueTarget::new(&CALLER, &plain).err(), Some(QueueError::NotAQueue.into()));
    let client = Client::attach(&broker, target, 10);
    assert_eq!(broker.queues().stats(target).unwrap().consumers, 1);
    assert_eq!(broker.delete_topics(&CALLER, vec![topic.id]).await, [Ok(())]);
    until(|| client.outbox.seat().waiting() > 0).await;
    let told: Vec<_> = client.taken().into_iter().collect();
    assert!(matches!(told[..], [Push::Cancelled { consumer: 1, why: CancelReason::Deleted }]), "{told:?}");
    assert_eq!(Client::try_attach(&broker, target, 1, |_| {}).err(), Some(QueueError::Unknown.into()));
    assert_eq!(broker.queues().stats(target), Err(QueueError::Unknown.into()));
    let owner = broker.queues().owner();
    assert_eq!(
        soon(broker.queues().get(&CALLER, target, owner, false)).await,
        Err(QueueError::Unknown.into())
    );
    drop(client);
    broker.shutdown();
}

#[tokio::test]
async fn a_queue_that_goes_with_its_last_consumer_is_deleted_when_that_leaves_or_vanishes() {
    let machine = Machine::new(8, 1, Seam::Solo);
    let broker = machine.open();
    for vanishes in [false, true] {
        let config = QueueConfig { auto_delete: true, ..QueueConfig::default() };
        let (topic, target) = queue(&broker, "q", config).await;
        let clients = [Client::attach(&broker, target, 10), Client::attach(&broker, target, 10)];
        for (client, left) in clients.into_iter().zip([1, 0]) {
            if vanishes {
                client.outbox.end();
                append(&broker, &topic, 0, batch(&[b"a", b"b"], 1)).await.unwrap();
            } else {
                client.leave();
            }
            until(|| broker.queues().stats(target).map_or(0, |stats| stats.consumers) == left).await;
            assert!(left == 0 || broker.catalog().topic("q").is_some());
        }
        until(|| broker.catalog().topic("q").is_none()).await;
        until(|| broker.queues().stats(target) == Err(QueueError::Unknown.into())).await;
    }
    broker.shutdown();
}

#[tokio::test]
async fn who_consumes_is_told_that_the_shard_has_stopped() {
    use sabir_journal::disk::sim::{Fault, Injection, Op};
    let machine = Machine::new(6, 1, Seam::Solo);
    let broker = machine.open();
    let (topic, target) = queue(&broker, "q", QueueConfig::default()).await;
    let client = Client::attach(&broker, target, 10);
    machine.disks[1].inject(Injection { op: Some(Op::Write), skip: 0, fault: Fault::Io, lasting: false });
    assert!(append(&broker, &topic, 0, batch(&[b"lost"], 1)).await.is_err());
    until(|| client.outbox.seat().waiting() > 0).await;
    let told = client.taken();
    assert!(matches!(told[0], Push::Cancelled { consumer: 1, why: CancelReason::Unavailable }), "{told:?}");
    let refused = Client::try_attach(&broker, target, 1, |_| {}).err();
    assert_eq!(refused, Some(QueueError::Shard(ShardFailure::StorageError).into()));
    drop(client);
    broker.shutdown();
}

#[tokio::test]
async fn nothing_is_sent_before_it_is_acquired_where_nothing_says_that_it_may_have_been() {
    let machine = Machine::new(7, 1, Seam::Told);
    let broker = machine.open();
    let (topic, target) = machine.committing(queue(&broker, "q", QueueConfig::default())).await;
    machine.settle(&broker).await;
    let client = Client::attach(&broker, target, 10);
    let mut appending = Box::pin(append(&broker, &topic, 0, batch(&[b"a"], 1)));
    assert!(pending(&mut appending).await);
    until(|| broker.inner.shards[1].in_flight() == 1 && broker.inner.shards[1].waiting_bytes() == 0).await;
    machine.late.lock()[1].commit(1);
    let next = || broker.inner.shards[1].state.read().partition(topic.partitions[0].id).unwrap().next;
    until(|| next() == Offset(1)).await;
    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    assert_eq!(client.taken().len(), 0, "it is dealt, and the entry is not committed");
    until(|| {
        machine.commit_all();
        client.outbox.seat().waiting() > 0
    })
    .await;
    assert_eq!(client.delivered(1).await, numbers(0..1, false));
    assert!(soon(appending).await.is_ok());
    drop(client);
    machine.freely(|| broker.shutdown());
}

#[tokio::test]
async fn an_exclusive_queue_is_its_sessions_alone() {
    let machine = Machine::new(21, 1, Seam::Solo);
    let broker = machine.open();
    let session = |number| Caller::client("one", SessionId(number));
    let (own, other) = (session(7), session(8));
    let exclusive = QueueConfig { exclusive: true, ..QueueConfig::default() };
    let config = TopicConfig::of_queue(exclusive);
    let new = NewTopic { name: "q".into(), partitions: 1, config, internal: false, unlike: false };
    let topic = broker.create_topics(&own, vec![new.clone()]).await.remove(0).unwrap();
    append(&broker, &topic, 0, batch(&[b"a", b"b"], 5)).await.unwrap();
    let queues = broker.queues();
    let used = async |caller: &Caller| {
        let target = QueueTarget::new(caller, &topic).unwrap();
        let owner = queues.owner();
        let got = queues.get(caller, target, owner, true);
        broker.flush();
        soon(got).await.map(|got| got.is_some())
    };
    assert_eq!((used(&own).await, used(&other).await), (Ok(true), Err(QueueError::Locked.into())));
    assert_eq!(used(&Caller::OPERATOR).await, Ok(true));
    let target = QueueTarget::new(&other, &topic).unwrap();
    assert_eq!(soon(queues.purge(&other, target)).await, Err(QueueError::Locked.into()));
    let demand = queues.demand(target.shard(), Credit::messages(1));
    let spec = ConsumerSpec {
        number: 1,
        owner: queues.owner(),
        demand,
        priority: 0,
        exclusive: false,
        settles: false,
    };
    let refused = queues.attach(&other, target, Outbox::new().seat(), spec).unwrap_err();
    assert_eq!(refused, QueueError::Locked.into());
    let locked: Result<(), TopicError> = Err(TopicError::Exclusive("q".into()));
    assert_eq!(broker.delete_topics(&other, vec![topic.id]).await, [locked]);
    assert!(broker.create_topics(&other, vec![new]).await.remove(0).is_err(), "it is there");
    assert_eq!(used(&own).await, Ok(false), "it is still its own");
    assert_eq!(broker.delete_topics(&own, vec![topic.id]).await, [Ok(())]);
    assert_eq!(broker.inner.definitions.exclusive.owner(topic.id), None);
    broker.shutdown();
}

/// A transaction: the message at an offset of one queue is settled, and a batch for each of two queues published.
fn step(topics: &[Arc<Topic>; 2], from: QueueTarget, owner: QueueOwner, number: u64) -> LocalTransaction {
    let mut transaction = LocalTransaction::default();
    let text = number.to_string();
    for topic in topics {
        let targets = PublishTargets::new(vec![target(topic, 0, FrontendNo(1))]).unwrap();
        let mut batch = BatchBuilder::new(Compression::None);
        batch.push(1, None, Some(text.as_bytes()), &[]);
        let batch = batch.build_checked(&targets.rules(), 1).unwrap();
        transaction.publish(Publish::new(targets, [batch]));
    }
    transaction.settle(from, owner, once(number..number + 1));
    transaction
}

#[tokio::test]
async fn what_is_committed_together_is_there_whole_or_not_at_all_after_a_crash() {
    const STEPS: u64 = 40;
    for seed in 1..20 {
        let mut machine = Machine::new(seed, 1, Seam::Solo);
        let broker = machine.open();
        let (source, from) = queue(&broker, "source", QueueConfig::default()).await;
        let (one, _) = queue(&broker, "one", QueueConfig::default()).await;
        let (two, _) = queue(&broker, "two", QueueConfig::default()).await;
        for _ in 0..STEPS {
            append(&broker, &source, 0, batch(&[b"m"], 1)).await.unwrap();
        }
        let client = Client::attach(&broker, from, 100);
        client.delivered(STEPS as usize).await;
        let topics = [one, two];
        let mut confirmed = 0;
        for number in 0..STEPS {
            let committing = broker.commit(&CALLER, step(&topics, from, client.owner, number)).unwrap();
            broker.flush();
            if number < seed {
                committing.done(|_, _| {}).await.unwrap();
                confirmed = number + 1;
            }
        }
        drop(client);
        machine = machine.crash(broker);
        let broker = machine.open();
        let counts = ["one", "two"].map(|name| ready(&broker, found(&broker, name).1));
        let settled = STEPS - ready(&broker, found(&broker, "source").1);
        assert_eq!((counts[0], counts[1]), (settled, settled), "seed {seed}");
        assert!(settled >= confirmed, "seed {seed}: {settled} of {confirmed}");
        machine.crash(broker);
    }
}

/// Has what a shard has been given so far commit, and waits until it is applied.
async fn commit(machine: &Machine, broker: &Broker, shard: usize) {
    let late = machine.late.lock()[shard].clone();
    until(|| {
        late.commit_all();
        broker.inner.shards[shard].is_idle()
    })
    .await;
}

fn fill(broker: &Broker, topic: &Arc<Topic>, value: &[u8]) -> PublishOutcomes {
    let targets = PublishTargets::new(vec![target(topic, 0, FrontendNo(1))]).unwrap();
    let mut batch = BatchBuilder::new(Compression::None);
    batch.push(1, None, Some(value), &[]);
    let batch = batch.build_checked(&targets.rules(), 1).unwrap();
    let outcomes = broker.publish(&CALLER, &Publish::new(targets, [batch])).unwrap();
    broker.flush();
    outcomes
}

async fn verdict(mut outcomes: PublishOutcomes) -> PublishVerdict {
    soon(outcomes.next()).await.unwrap().verdict()
}

const IF_EMPTY: DeleteOnlyIf = DeleteOnlyIf { unused: false, empty: true };
const IF_UNUSED: DeleteOnlyIf = DeleteOnlyIf { unused: true, empty: false };

#[tokio::test]
async fn a_queue_that_is_deleted_if_it_is_empty_loses_no_message_that_came_before() {
    let machine = Machine { recycle: false, ..Machine::new(4, 1, Seam::Told) };
    let broker = machine.open();
    let (topic, target) = machine.freely(|| block_on(queue(&broker, "q", QueueConfig::default())));
    // It looks empty when the deletion is asked for, and is not when it is decided.
    let published = fill(&broker, &topic, b"before");
    assert_eq!(ready(&broker, target), 0);
    let mut deleting = Box::pin(broker.delete_queue(&CALLER, topic.id, IF_EMPTY));
    assert!(pending(&mut deleting).await);
    commit(&machine, &broker, 1).await;
    assert!(matches!(verdict(published).await, PublishVerdict::Taken(_)));
    assert_eq!(soon(deleting).await, Err(TopicError::NotEmpty("q".into())));
    assert_eq!(ready(&broker, target), 1);
    // A message that is in flight does not wait, and what comes behind the decision finds no queue.
    let client = Client::attach(&broker, target, 10);
    commit(&machine, &broker, 1).await;
    client.delivered(1).await;
    let mut deleting = Box::pin(broker.delete_queue(&CALLER, topic.id, IF_EMPTY));
    assert!(pending(&mut deleting).await);
    let published = fill(&broker, &topic, b"behind");
    commit(&machine, &broker, 1).await;
    assert_eq!(verdict(published).await, PublishVerdict::Gone);
    let refused = Client::try_attach(&broker, target, 1, |_| {}).err();
    assert_eq!(refused, Some(QueueError::Unknown.into()));
    assert!(broker.catalog().topic("q").is_some(), "the catalog has not decided");
    assert_eq!(verdict_of(&machine, &broker, fill(&broker, &topic, b"later")).await, PublishVerdict::Gone);
    commit(&machine, &broker, 0).await;
    commit(&machine, &broker, 1).await;
    assert_eq!(soon(deleting).await, Ok(()));
    assert!(broker.catalog().topic("q").is_none());
    machine.agrees_with_replay(&broker);
    drop(client);
    machine.freely(|| broker.shutdown());
}

async fn verdict_of(machine: &Machine, broker: &Broker, outcomes: PublishOutcomes) -> PublishVerdict {
    commit(machine, broker, 1).await;
    verdict(outcomes).await
}

#[tokio::test]
async fn a_queue_whose_deletion_its_shard_has_decided_is_gone_after_a_crash() {
    let mut machine = Machine::new(5, 1, Seam::Told);
    let broker = machine.open();
    let made = |name| machine.freely(|| block_on(queue(&broker, name, QueueConfig::default())));
    let ((goes, _), _) = (made("goes"), made("stays"));
    let mut deleting = Box::pin(broker.delete_queue(&CALLER, goes.id, IF_EMPTY));
    assert!(pending(&mut deleting).await);
    let late = machine.late.lock()[1].clone();
    until(|| {
        late.commit_all();
        let state = broker.inner.shards[1].state.read();
        state.subscriptions.sealed().count() == 1
    })
    .await;
    drop((deleting, late));
    machine.late.lock().clear();
    machine = machine.crash(broker);
    let broker = machine.open();
    let catalog = || broker.catalog();
    until(|| {
        machine.commit_all();
        catalog().topic("goes").is_none() && catalog().topic("stays").is_some()
    })
    .await;
    commit(&machine, &broker, 1).await;
    let (_, gone) = machine.freely(|| block_on(queue(&broker, "goes", QueueConfig::default())));
    let (_, stays) = found(&broker, "stays");
    assert_eq!((ready(&broker, gone), ready(&broker, stays)), (0, 0), "the name can be used again");
    machine.freely(|| broker.shutdown());
}

#[tokio::test]
async fn a_queue_that_is_deleted_if_it_is_unused_lets_no_consumer_in_meanwhile() {
    let machine = Machine::new(6, 1, Seam::Told);
    let broker = machine.open();
    let (topic, target) = machine.freely(|| block_on(queue(&broker, "q", QueueConfig::default())));
    let client = Client::attach(&broker, target, 10);
    assert_eq!(
        soon(broker.delete_queue(&CALLER, topic.id, IF_UNUSED)).await,
        Err(TopicError::InUse("q".into()))
    );
    client.leave();
    commit(&machine, &broker, 1).await;
    let both = DeleteOnlyIf { unused: true, empty: true };
    let published = fill(&broker, &topic, b"x");
    let mut deleting = Box::pin(broker.delete_queue(&CALLER, topic.id, both));
    assert!(pending(&mut deleting).await);
    let attach = || Client::try_attach(&broker, target, 1, |_| {});
    assert_eq!(attach().err(), Some(QueueError::Unknown.into()));
    commit(&machine, &broker, 1).await;
    assert_eq!(soon(deleting).await, Err(TopicError::NotEmpty("q".into())));
    drop(published);
    // It is not deleted after all.
    let client = attach().unwrap();
    client.leave();
    commit(&machine, &broker, 1).await;
    let mut deleting = Box::pin(broker.delete_queue(&CALLER, topic.id, IF_UNUSED));
    assert!(pending(&mut deleting).await);
    assert_eq!(attach().err(), Some(QueueError::Unknown.into()));
    drop(deleting);
    commit(&machine, &broker, 0).await;
    commit(&machine, &broker, 1).await;
    until(|| broker.catalog().topic("q").is_none()).await;
    machine.freely(|| broker.shutdown());
}

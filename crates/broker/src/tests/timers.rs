//! Messages that are kept back until their time: each is published once, where it goes then, over stops and power cuts at any moment.

use std::collections::BTreeMap;
use std::num::NonZero;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use sabir_journal::disk::sim::{Fault, Injection, Op};
use sabir_model::batch::{BatchBuilder, Compression, RecordView};
use sabir_model::{Facts, FrontendNo, Offset, Overflow, QueueConfig, RecordFacts, ShardId, TopicConfig};
use sabir_routing::NoAttributes;

use super::faults::place_of;
use super::rig::{append, batch, create, read, soon, until, values};
use super::sim::{Machine, Seam};
use crate::exchange::{ExchangeId, ExchangeKind, ExchangeSpec, NamedBinding, NamedDestination};
use crate::{
    AppendAcks, AppendTarget, Broker, BrokerOptions, Caller, Converter, Damage, DamageCause, DelayedAddress,
    NewTopic, Publish, PublishTargets, Repetition, Topic,
};

pub(super) const FRONT_END: &str = "one";
const QUEUES: usize = 2;

/// A record's key is its routing key; its first header names its exchange and has that one's number, the second one says how often it is published again.
fn address(record: &RecordView<'_>, each: &mut dyn FnMut(&DelayedAddress<'_>)) {
    let facts = Facts { size: 1, ..Facts::default() };
    let mut headers = record.headers;
    let header = headers.next();
    let repetition = headers.next().map(|header| {
        let (period, times) = header.value.unwrap().split_at(4);
        let number = |bytes: &[u8]| u32::from_be_bytes(bytes.try_into().unwrap());
        Repetition { period_ms: NonZero::new(number(period)).unwrap(), times: Some(number(times)) }
    });
    let exchange = header.and_then(|header| std::str::from_utf8(header.key).ok()).unwrap_or("later");
    let number = header.and_then(|header| header.value?.try_into().ok()).map(u64::from_be_bytes);
    let (exchange_id, key) = (number.map(ExchangeId), record.key.unwrap_or_default());
    each(&DelayedAddress {
        exchange,
        exchange_id,
        repetition,
        key,
        further_keys: &[],
        attributes: &NoAttributes,
        hash: 7,
        facts,
    });
}

fn options(machine: &Machine) -> BrokerOptions {
    let to_message = |_: &RecordView<'_>| sabir_model::Message::default();
    let converter = Converter {
        front_end: FRONT_END,
        reads_unnamed: false,
        to_message,
        address: Some(address),
        delay_queue: None,
        dead_letter: None,
        redrive: None,
    };
    BrokerOptions { front_ends: vec![FRONT_END], converters: vec![converter], ..machine.options() }
}

pub(super) fn open(machine: &Machine) -> Broker {
    machine.try_open(options(machine)).unwrap()
}

pub(super) async fn queue(broker: &Broker, name: &str, config: QueueConfig) -> Arc<Topic> {
    let (config, internal) = (TopicConfig::of_queue(config.clone()), config.delays);
    let new = NewTopic { name: name.to_owned(), partitions: 1, config, internal, unlike: false };
    broker.create_topics(&Caller::front_end(FRONT_END), vec![new]).await.remove(0).unwrap()
}

/// The queue that keeps messages back, and those that they go to.
pub(super) struct Places {
    pub(super) delayed: Arc<Topic>,
    pub(super) queues: Vec<Arc<Topic>>,
}

pub(super) async fn places(broker: &Broker) -> Places {
    let delayed = queue(broker, "delayed", QueueConfig { delays: true, ..QueueConfig::default() }).await;
    let spec = ExchangeSpec { delayed: true, ..ExchangeSpec::of(ExchangeKind::Direct) };
    broker.exchanges().declare(&Caller::OPERATOR, "later", spec).await.unwrap();
    let mut queues = Vec::new();
    for number in 0..QUEUES {
        let name = format!("q{number}");
        let config = QueueConfig { max_priority: (number == 1).then_some(5), ..QueueConfig::default() };
        queues.push(queue(broker, &name, config).await);
        bind(broker, &name, name.as_bytes()).await;
        bind(broker, &name, b"all").await;
    }
    Places { delayed, queues }
}

async fn bind(broker: &Broker, name: &str, key: &[u8]) {
    bind_to(broker, "later", name, key).await;
}

pub(super) async fn bind_to(broker: &Broker, exchange: &str, name: &str, key: &[u8]) {
    let binding = NamedBinding::keyed(exchange, NamedDestination::Queue(name.to_owned()), key);
    broker.exchanges().bind(&Caller::OPERATOR, binding).await.unwrap();
}

fn origin(broker: &Broker) -> FrontendNo {
    broker.front_end_number(FRONT_END).unwrap()
}

/// Publishes messages to be kept back: (value, key, moment). Gives whether they were confirmed.
async fn publish(broker: &Broker, delayed: &Arc<Topic>, messages: &[(u64, &str, i64)]) -> bool {
    publish_to(broker, delayed, None, messages).await
}

/// The same by an exchange: its name and number.
pub(super) async fn publish_to(
    broker: &Broker,
    delayed: &Arc<Topic>,
    exchange: Option<(&str, ExchangeId)>,
    messages: &[(u64, &str, i64)],
) -> bool {
    let caller = Caller::front_end(FRONT_END);
    let target = AppendTarget::new(&caller, delayed, 0, AppendAcks::InSync, origin(broker)).unwrap();
    let targets = PublishTargets::new(vec![target]).unwrap();
    let (mut batch, mut facts) = (BatchBuilder::new(Compression::None), RecordFacts::new());
    for (value, key, due_ms) in messages {
        let number = exchange.map(|(_, id)| id.0.to_be_bytes());
        let header =
            exchange.zip(number.as_ref()).map(|((name, _), number)| (name.as_bytes(), Some(&number[..])));
        batch.push(*due_ms, Some(key.as_bytes()), Some(&value.to_be_bytes()), header.as_slice());
        facts.push(Facts { deliver_at_ms: Some(*due_ms), ..Facts::default() }).unwrap();
    }
    let batch = batch.build_checked(&targets.rules(), broker.wall_ms()).unwrap();
    let mut publish = Publish::new(targets, [batch]);
    publish.batches[0].facts = Some(facts);
    let outcomes = broker.publish(&caller, &publish).unwrap();
    broker.flush();
    soon(outcomes.confirmed()).await.is_ok()
}

/// What lies in a queue, in its order.
pub(super) async fn lies_in(broker: &Broker, queue: &Topic) -> Vec<u64> {
    let (mut all, mut from) = (Vec::new(), 0);
    loop {
        let fetched = soon(read(broker, queue, 0, from, 1 << 20)).await.unwrap();
        let some = values(&fetched);
        let Some((last, _)) = some.last() else { return all };
        from = last + 1;
        all.extend(some.iter().map(|(_, value)| u64::from_be_bytes(value[..].try_into().unwrap())));
    }
}

pub(super) fn waiting(broker: &Broker, delayed: &Topic) -> u64 {
    let place = delayed.partitions[0];
    let state = broker.inner.shards[place.shard.0 as usize].state.read();
    let subscription = state.subscriptions.get(crate::state::subscription_of(place.id)).unwrap();
    subscription.backlog().messages
}

/// Time passes, and the thread that fires timers is told.
pub(super) fn advance(machine: &Machine, broker: &Broker, ms: i64) {
    machine.clock.advance(ms);
    broker.inner.shards.iter().for_each(|shard| shard.timers.raise());
}

#[tokio::test]
async fn a_message_goes_where_it_is_bound_to_when_its_time_comes() {
    let machine = Machine::new(1, 2, Seam::Solo);
    let broker = open(&machine);
    let Places { delayed, queues } = places(&broker).await;
    let now = broker.now_ms();
    let all =
        [(1, "q0", now + 50), (2, "q1", now + 20), (3, "all", now + 20), (4, "new", now + 60), (5, "q0", 0)];
    assert!(publish(&broker, &delayed, &all).await);
    until(|| waiting(&broker, &delayed) == 4).await;
    assert_eq!(lies_in(&broker, &queues[0]).await, [5], "its time is over");
    advance(&machine, &broker, 19);
    tokio::time::sleep(Duration::from_millis(30)).await;
    assert_eq!(waiting(&broker, &delayed), 4);
    advance(&machine, &broker, 1);
    until(|| waiting(&broker, &delayed) == 2).await;
    assert_eq!(
        (lies_in(&broker, &queues[0]).await, lies_in(&broker, &queues[1]).await),
        (vec![5, 3], vec![2, 3])
    );
    // One that is spread over shards is bound meanwhile, too.
    let spread = create(&broker, "spread", 3).await;
    bind(&broker, "spread", b"new").await;
    bind(&broker, "q1", b"new").await;
    // One that is gone when its time comes is gone.
    broker.delete_topics(&Caller::front_end(FRONT_END), vec![queues[0].id]).await.remove(0).unwrap();
    advance(&machine, &broker, 1_000);
    until(|| waiting(&broker, &delayed) == 0).await;
    assert_eq!(lies_in(&broker, &queues[1]).await, [2, 3, 4]);
    let partition = spread.partition(7 % 3).unwrap();
    let fetched = broker.read(crate::ReadTarget::of(partition), Offset(0), 1 << 20, true).await.unwrap();
    assert_eq!(values(&fetched), [(0, 4u64.to_be_bytes().to_vec())]);
    let shard = delayed.partitions[0].shard.0 as usize;
    let log_start =
        broker.inner.shards[shard].state.read().partition(delayed.partitions[0].id).unwrap().log_start;
    assert_eq!(log_start.0, 5, "nothing holds its records any more");
    tokio::task::spawn_blocking(move || broker.shutdown()).await.unwrap();
}

/// Partitions on all shards, and a queue, that the key `wide` leads to, and one of their shards that is not that of the delayed messages.
async fn wide(broker: &Broker, delayed: &Topic) -> (Vec<crate::catalog::Partition>, ShardId) {
    let mut wide = Vec::new();
    for number in 0..12 {
        let name = format!("t{number}");
        wide.push(*create(broker, &name, 3).await.partition(7 % 3).unwrap());
        bind(broker, &name, b"wide").await;
    }
    bind(broker, "q0", b"wide").await;
    let own = delayed.partitions[0].shard;
    let other = wide.iter().map(|target| target.shard).find(|shard| *shard != own).unwrap();
    (wide, other)
}

#[tokio::test]
async fn a_target_that_takes_nothing_now_holds_up_neither_other_targets_nor_other_messages() {
    let machine = Machine::new(5, 3, Seam::Told);
    let broker = open(&machine);
    let (_committing, lates) = (machine.commit_always(), machine.late.lock().clone());
    let Places { delayed, queues } = places(&broker).await;
    let (wide, other) = wide(&broker, &delayed).await;
    let now = broker.now_ms();
    assert!(publish(&broker, &delayed, &[(1, "wide", now + 50), (2, "q1", now + 60)]).await);
    lates[other.0 as usize].lead(false).unwrap();
    advance(&machine, &broker, 100);
    until(|| waiting(&broker, &delayed) == 1).await;
    assert_eq!(lies_in(&broker, &queues[1]).await, [2]);
    // It is tried again several times.
    for _ in 0..4 {
        tokio::time::sleep(std::time::Duration::from_millis(120)).await;
        advance(&machine, &broker, 1_000);
    }
    assert_eq!(lies_in(&broker, &queues[0]).await, [1]);
    lates[other.0 as usize].lead(true).unwrap();
    until(|| {
        advance(&machine, &broker, 1_000);
        waiting(&broker, &delayed) == 0
    })
    .await;
    assert_eq!(lies_in(&broker, &queues[0]).await, [1]);
    for target in &wide {
        let fetched = broker.read(crate::ReadTarget::of(target), Offset(0), 1 << 20, true).await.unwrap();
        assert_eq!(values(&fetched), [(0, 1u64.to_be_bytes().to_vec())], "{target:?}");
    }
    tokio::task::spawn_blocking(move || broker.shutdown()).await.unwrap();
}

/// A disk that has stopped neither fails nor answers.
#[tokio::test]
async fn a_target_whose_disk_has_stopped_holds_up_no_other_message_and_has_each_once_when_it_goes_on() {
    let machine = Machine::new(9, 3, Seam::Solo);
    let broker = open(&machine);
    let Places { delayed, queues } = places(&broker).await;
    let (wide, other) = wide(&broker, &delayed).await;
    let now = broker.now_ms();
    let stopped: Vec<_> = (0..20).map(|value| (value, "wide", now + 50)).collect();
    assert!(publish(&broker, &delayed, &stopped).await);
    assert!(publish(&broker, &delayed, &[(100, "q1", now + 60)]).await);
    let disk = &machine.disks[other.0 as usize];
    disk.set_auto(false);
    advance(&machine, &broker, 100);
    let began = std::time::Instant::now();
    until(|| waiting(&broker, &delayed) == 20).await;
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    assert_eq!(lies_in(&broker, &queues[1]).await, [100]);
    // They are tried again, and others come.
    for value in 101..104 {
        assert!(publish(&broker, &delayed, &[(value, "q1", broker.now_ms() + 10)]).await);
        advance(&machine, &broker, 2_000);
        until(|| waiting(&broker, &delayed) == 20).await;
    }
    let mut came = lies_in(&broker, &queues[0]).await;
    came.sort_unstable();
    assert_eq!(came, (0..20).collect::<Vec<_>>());
    disk.set_auto(true);
    disk.run();
    until(|| {
        advance(&machine, &broker, 1_000);
        std::thread::sleep(Duration::from_millis(1));
        waiting(&broker, &delayed) == 0
    })
    .await;
    assert_eq!(lies_in(&broker, &queues[0]).await.len(), 20);
    for target in &wide {
        let fetched = broker.read(crate::ReadTarget::of(target), Offset(0), 1 << 20, true).await.unwrap();
        let mut came: Vec<_> = values(&fetched).into_iter().map(|(_, value)| value).collect();
        came.sort_unstable();
        assert_eq!(
            came,
            (0..20u64).map(|value| value.to_be_bytes().to_vec()).collect::<Vec<_>>(),
            "{target:?}"
        );
    }
    tokio::task::spawn_blocking(move || broker.shutdown()).await.unwrap();
}

#[tokio::test]
async fn a_queue_that_is_being_deleted_holds_up_no_other_queues_messages() {
    let machine = Machine::new(10, 1, Seam::Solo);
    let broker = open(&machine);
    let Places { delayed, queues } = places(&broker).await;
    let second = queue(&broker, "second", QueueConfig { delays: true, ..QueueConfig::default() }).await;
    let now = broker.now_ms();
    assert!(publish(&broker, &delayed, &[(1, "q0", now + 50), (2, "q0", now + 50)]).await);
    assert!(publish(&broker, &second, &[(3, "q0", now + 60)]).await);
    // As if its shard were not told yet.
    broker.inner.definitions.hide(delayed.id);
    for _ in 0..3 {
        advance(&machine, &broker, 1_000);
        tokio::time::sleep(Duration::from_millis(150)).await;
    }
    until(|| waiting(&broker, &second) == 0).await;
    assert_eq!((lies_in(&broker, &queues[0]).await, waiting(&broker, &delayed)), (vec![3], 2));
    tokio::task::spawn_blocking(move || broker.shutdown()).await.unwrap();
}

#[tokio::test]
async fn a_message_for_very_many_queues_is_published_a_part_of_them_at_a_time() {
    let machine = Machine::new(11, 1, Seam::Solo);
    let broker = open(&machine);
    let Places { delayed, .. } = places(&broker).await;
    let names: Vec<String> = (0..4_100).map(|number| format!("many{number}")).collect();
    let queue_of = |name: &String| NewTopic {
        name: name.clone(),
        partitions: 1,
        config: TopicConfig::of_queue(QueueConfig::default()),
        internal: false,
        unlike: false,
    };
    let made =
        broker.create_topics(&Caller::front_end(FRONT_END), names.iter().map(queue_of).collect()).await;
    let queues: Vec<_> = made.into_iter().map(Result::unwrap).collect();
    let to = |name: &String| NamedBinding::keyed("later", NamedDestination::Queue(name.clone()), b"very");
    let exchanges = broker.exchanges();
    let binding: Vec<_> = names.iter().map(|name| exchanges.bind(&Caller::OPERATOR, to(name))).collect();
    for bound in binding {
        soon(bound).await.unwrap();
    }
    assert!(publish(&broker, &delayed, &[(1, "very", broker.now_ms() + 50)]).await);
    let before = broker.stats().shards[1].entries;
    advance(&machine, &broker, 50);
    until(|| waiting(&broker, &delayed) == 0).await;
    assert!(queues.iter().all(|queue| waiting(&broker, queue) == 1));
    let entries = broker.stats().shards[1].entries - before;
    assert!(entries >= 3, "{entries} entries");
    tokio::task::spawn_blocking(move || broker.shutdown()).await.unwrap();
}

#[tokio::test]
async fn what_targets_refuse_when_its_time_comes_is_counted() {
    let machine = Machine::new(8, 1, Seam::Solo);
    let broker = open(&machine);
    let Places { delayed, queues } = places(&broker).await;
    let full = QueueConfig { max_length: Some(0), overflow: Overflow::Reject, ..QueueConfig::default() };
    queue(&broker, "full", full).await;
    let config = TopicConfig { max_message_bytes: 1, ..TopicConfig::default() };
    let new = NewTopic { name: "small".to_owned(), partitions: 3, config, internal: false, unlike: false };
    broker.create_topics(&Caller::OPERATOR, vec![new]).await.remove(0).unwrap();
    for name in ["full", "small", "q0"] {
        bind(&broker, name, b"wide").await;
    }
    assert!(publish(&broker, &delayed, &[(1, "wide", broker.now_ms() + 50)]).await);
    advance(&machine, &broker, 50);
    until(|| waiting(&broker, &delayed) == 0).await;
    assert_eq!(lies_in(&broker, &queues[0]).await, [1]);
    assert_eq!(broker.stats().shards[1].delayed_refused, 2);
    tokio::task::spawn_blocking(move || broker.shutdown()).await.unwrap();
}

/// Each time that a message is put off is stored.
#[tokio::test]
async fn a_message_for_a_shard_that_takes_nothing_is_tried_less_and_less_often() {
    let machine = Machine::new(7, 3, Seam::Told);
    let broker = open(&machine);
    let (_committing, lates) = (machine.commit_always(), machine.late.lock().clone());
    let Places { delayed, queues } = places(&broker).await;
    let own = delayed.partitions[0].shard;
    let mut wide = Vec::new();
    for number in 0..12 {
        let name = format!("t{number}");
        wide.push(*create(&broker, &name, 3).await.partition(7 % 3).unwrap());
        bind(&broker, &name, b"wide").await;
    }
    bind(&broker, "q0", b"wide").await;
    let other = wide.iter().map(|target| target.shard).find(|shard| *shard != own).unwrap();
    assert!(publish(&broker, &delayed, &[(1, "wide", broker.now_ms() + 50)]).await);
    lates[other.0 as usize].lead(false).unwrap();
    let entries = |broker: &Broker| broker.stats().shards[own.0 as usize].entries;
    advance(&machine, &broker, 100);
    until(|| broker.inner.shards[own.0 as usize].state.read().timers.timers().unwrap().fired().due_ms > 0)
        .await;
    let before = entries(&broker);
    for _ in 0..60 {
        advance(&machine, &broker, 1_000);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let tried = entries(&broker) - before;
    assert!((3..20).contains(&tried), "it was tried {tried} times in a minute");
    lates[other.0 as usize].lead(true).unwrap();
    for _ in 0..3 {
        advance(&machine, &broker, 30_000);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    until(|| waiting(&broker, &delayed) == 0).await;
    assert_eq!(lies_in(&broker, &queues[0]).await, [1]);
    tokio::task::spawn_blocking(move || broker.shutdown()).await.unwrap();
}

/// A disk may err while it reads: what cannot be read when its time comes is not dropped, and holds up nothing.
#[tokio::test]
async fn a_message_that_reads_as_damaged_is_put_off_and_named() {
    let machine = Machine::new(4, 1, Seam::Solo);
    let broker = open(&machine);
    let Places { delayed, queues } = places(&broker).await;
    let (now, marked) = (broker.now_ms(), u64::from_be_bytes([0xa7; 8]));
    assert!(publish(&broker, &delayed, &[(marked, "q0", now + 50)]).await);
    assert!(publish(&broker, &delayed, &[(2, "q0", now + 60)]).await);
    broker.shutdown();
    drop(broker);

    let disk = &machine.disks[1];
    let (file, at) = place_of(&**disk, &marked.to_be_bytes());
    disk.flip_bit(&file, at, 3);
    let broker = open(&machine);
    advance(&machine, &broker, 100);
    until(|| waiting(&broker, &delayed) == 1).await;
    assert_eq!(lies_in(&broker, &queues[0]).await, [2]);
    let damage = Damage { topic: delayed.id, partition: 0, offset: Offset(0), cause: DamageCause::Corrupt };
    assert_eq!(broker.stats().shards[1].damaged, [damage]);
    advance(&machine, &broker, 30_000);
    tokio::time::sleep(Duration::from_millis(30)).await;
    assert_eq!(waiting(&broker, &delayed), 1);
    disk.flip_bit(&file, at, 3);
    // What reads as damaged is read anew once a second at the most.
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    advance(&machine, &broker, 31_000);
    until(|| waiting(&broker, &delayed) == 0).await;
    assert_eq!(lies_in(&broker, &queues[0]).await, [2, marked]);
    broker.shutdown();
}

/// Others do not wait while each of them is read by itself.
#[tokio::test]
async fn very_many_messages_of_one_damaged_batch_are_passed_over_at_once() {
    let machine = Machine::new(12, 1, Seam::Solo);
    let broker = open(&machine);
    let Places { delayed, queues } = places(&broker).await;
    let (now, marked) = (broker.now_ms(), u64::from_be_bytes([0xa7; 8]));
    let mut many: Vec<_> = (0..2_000).map(|value| (value, "q0", now + 50)).collect();
    many.push((marked, "q0", now + 50));
    assert!(publish(&broker, &delayed, &many).await);
    assert!(publish(&broker, &delayed, &[(2, "q1", now + 60)]).await);
    broker.shutdown();
    drop(broker);

    let disk = &machine.disks[1];
    let (file, at) = place_of(&**disk, &marked.to_be_bytes());
    disk.flip_bit(&file, at, 3);
    let broker = open(&machine);
    until(|| broker.catalog().topic("delayed").is_some()).await;
    let before = broker.stats().shards[1].entries;
    advance(&machine, &broker, 100);
    until(|| waiting(&broker, &delayed) == 2_001).await;
    assert_eq!(lies_in(&broker, &queues[1]).await, [2]);
    let entries = broker.stats().shards[1].entries - before;
    assert!(entries <= 2, "{entries} entries");
    disk.flip_bit(&file, at, 3);
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    advance(&machine, &broker, 61_000);
    until(|| waiting(&broker, &delayed) == 0).await;
    assert_eq!(lies_in(&broker, &queues[0]).await.len(), 2_001);
    broker.shutdown();
}

/// A disk that does not give a message is no reason for others to wait.
#[tokio::test]
async fn a_message_that_the_disk_does_not_give_is_put_off_and_named() {
    let machine = Machine::new(6, 1, Seam::Solo);
    let broker = open(&machine);
    let Places { delayed, queues } = places(&broker).await;
    let now = broker.now_ms();
    assert!(publish(&broker, &delayed, &[(1, "q0", now + 50)]).await);
    broker.shutdown();
    drop(broker);

    let broker = open(&machine);
    let disk = &machine.disks[1];
    disk.inject(Injection { op: Some(Op::Read), skip: 0, fault: Fault::Io, lasting: true });
    assert!(publish(&broker, &delayed, &[(2, "q0", now + 60)]).await);
    advance(&machine, &broker, 100);
    until(|| waiting(&broker, &delayed) == 1).await;
    assert_eq!(lies_in(&broker, &queues[0]).await, [2]);
    let damage = Damage { topic: delayed.id, partition: 0, offset: Offset(0), cause: DamageCause::Storage };
    assert_eq!(broker.stats().shards[1].damaged, [damage]);
    assert!(!broker.stats().shards[1].stopped);
    disk.end_faults();
    advance(&machine, &broker, 61_000);
    until(|| waiting(&broker, &delayed) == 0).await;
    assert_eq!(lies_in(&broker, &queues[0]).await, [2, 1]);
    broker.shutdown();
}

#[tokio::test]
async fn more_timers_than_memory_holds_fire_in_their_order() {
    let machine = Machine { recycle: false, ..Machine::new(2, 1, Seam::Solo) };
    let mut broker = open(&machine);
    let Places { delayed, queues } = places(&broker).await;
    let now = broker.now_ms();
    let count = 40_000u64;
    // Spread, and never two for one moment.
    let due = |value: u64| now + 10_000 + (value * 7_919 % count) as i64;
    let all: Vec<(u64, &str, i64)> = (0..count).map(|value| (value, "q0", due(value))).collect();
    for some in all.chunks(100) {
        assert!(publish(&broker, &delayed, some).await);
    }
    let runs = |broker: &Broker| broker.inner.shards[1].state.read().timers.timers().unwrap().runs().len();
    assert!(runs(&broker) > 1);
    broker.inner.shards[1].checkpoint().unwrap();
    advance(&machine, &broker, 10_000 + count as i64 / 2);
    until(|| waiting(&broker, &delayed) < count / 2).await;
    let closing = broker.clone();
    tokio::task::spawn_blocking(move || closing.shutdown()).await.unwrap();
    drop(broker);
    let (machine, again) = tokio::task::spawn_blocking(move || {
        let broker = open(&machine);
        (machine, broker)
    })
    .await
    .unwrap();
    broker = again;
    machine.agrees_with_replay(&broker);
    advance(&machine, &broker, count as i64);
    until(|| waiting(&broker, &delayed) == 0).await;
    let came = lies_in(&broker, &queues[0]).await;
    let mut expected: Vec<u64> = (0..count).collect();
    expected.sort_by_key(|value| due(*value));
    assert!(came == expected);
    assert_eq!(runs(&broker), 0);
    machine.agrees_with_replay(&broker);
    tokio::task::spawn_blocking(move || broker.shutdown()).await.unwrap();
}

#[derive(Debug, Clone)]
enum Step {
    /// Messages for the queues in turn, this far apart.
    Publish {
        count: u64,
        apart_ms: i64,
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
        6 => (1..30u64, -2..20i64, any::<bool>())
            .prop_map(|(count, apart_ms, waits)| Step::Publish { count, apart_ms, waits }),
        6 => (0..300i64).prop_map(Step::Pass),
        1 => Just(Step::Checkpoint),
        1 => Just(Step::Restart),
        2 => (0..12usize).prop_map(|steps| Step::Crash { steps }),
    ]
}

struct World {
    machine: Machine,
    broker: Broker,
    places: Places,
    /// By message, whether it was confirmed.
    sent: BTreeMap<u64, bool>,
}

const KEYS: [&str; 3] = ["q0", "q1", "all"];

impl World {
    async fn take(mut self, step: &Step) -> Self {
        match *step {
            Step::Publish { count, apart_ms, waits } => {
                let (first, now) = (self.sent.len() as u64, self.broker.now_ms());
                let each =
                    |value: u64| (value, KEYS[(value % 3) as usize], now + apart_ms * (value - first) as i64);
                let all: Vec<_> = (first..first + count).map(each).collect();
                let (broker, delayed) = (self.broker.clone(), self.places.delayed.clone());
                let confirmed = match waits {
                    true => publish(&broker, &delayed, &all).await,
                    false => {
                        let publishing = publish(&broker, &delayed, &all);
                        tokio::time::timeout(Duration::from_micros(1), publishing).await.unwrap_or(false)
                    }
                };
                self.sent.extend((first..first + count).map(|value| (value, confirmed)));
            }
            Step::Pass(ms) => {
                advance(&self.machine, &self.broker, ms);
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            Step::Checkpoint => self.broker.inner.shards.iter().for_each(|shard| shard.checkpoint().unwrap()),
            Step::Restart => {
                let broker = self.broker.clone();
                tokio::task::spawn_blocking(move || broker.shutdown()).await.unwrap();
                self = self.reopened(false).await;
            }
            Step::Crash { steps } => {
                self.machine.disks.iter().for_each(|disk| disk.set_auto(false));
                for _ in 0..steps {
                    advance(&self.machine, &self.broker, 5);
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

    /// All come to be where they go, each once.
    async fn check(&self) {
        advance(&self.machine, &self.broker, 100_000);
        until(|| waiting(&self.broker, &self.places.delayed) == 0).await;
        for (number, queue) in self.places.queues.iter().enumerate() {
            let mut came = lies_in(&self.broker, queue).await;
            came.sort_unstable();
            assert!(came.windows(2).all(|pair| pair[0] < pair[1]), "some came twice: {came:?}");
            for (value, confirmed) in &self.sent {
                let wanted = *value % 3 == 2 || *value % 3 == number as u64;
                let is_there = came.binary_search(value).is_ok();
                assert!(is_there == wanted || (!is_there && !confirmed), "{value} in queue {number}");
            }
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
        let broker = world.broker.clone();
        tokio::task::spawn_blocking(move || broker.shutdown()).await.unwrap();
    });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, max_shrink_iters: 40, max_shrink_time: 60_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn each_message_fires_once_over_stops_and_power_cuts(seed in any::<u64>(), steps in prop::collection::vec(step(), 1..40)) {
        run(seed, &steps);
    }
}

#[tokio::test]
async fn what_delayed_messages_hold_of_a_full_disk_is_told() {
    for every in [4, 1000] {
        let machine = Machine::new(14, 1, Seam::Solo);
        machine.disks[1].set_capacity(24 << 20);
        let broker = open(&machine);
        let Places { delayed, .. } = places(&broker).await;
        let topic = create(&broker, "t", 1).await;
        let (mut messages, due_ms) = (0, broker.now_ms() + 3_500_000);
        let big = vec![1u8; 200_000];
        for number in 0.. {
            if number % every == 0 {
                messages += u64::from(publish(&broker, &delayed, &[(number, "q0", due_ms)]).await);
            }
            if append(&broker, &topic, 0, batch(&[&big], 1)).await.is_err() {
                break;
            }
        }
        let told = || broker.stats().shards[1].delayed;
        until(|| told().messages == messages).await;
        assert_eq!(told().in_each_segment, every == 4, "{messages}");
        assert_eq!(told().left, Duration::from_millis(3_500_000));
        let place = topic.partition(0).unwrap();
        broker.delete_records(&Caller::OPERATOR, place.shard, place.id, Offset(-1)).await.unwrap();
        if every == 4 {
            broker.inner.shards[1].checkpoint().unwrap();
            assert!(broker.stats().shards[1].full, "they hold all of it");
        } else {
            until(|| !broker.stats().shards[1].full && told().messages == 0).await;
        }
        broker.shutdown();
    }
}

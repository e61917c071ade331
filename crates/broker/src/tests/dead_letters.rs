//! Dead letters: what a queue gives up is published where its address says, once, over stops and power cuts at any moment.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use sabir_delivery::policy::{Death, DeathReason, Deaths};
use sabir_delivery::subscription::{MessageOwner, MessageState, Subscription};
use sabir_model::batch::{BatchBuilder, Compression, RecordView, records, split};
use sabir_model::{
    AppendError, Backoff, DeadLetterAddress, ErrorAbout, Facts, FrontendNo, Offset, Overflow, QueueConfig,
    TopicConfig,
};
use sabir_routing::NoAttributes;

use super::faults::place_of;
use super::rig::{create, read, soon, until, values};
use super::sim::{Machine, Seam};
use crate::catalog::Partition;
use crate::exchange::{ExchangeKind, ExchangeSpec, NamedBinding, NamedDestination};
use crate::queue::QueueTarget;
use crate::state::subscription_of;
use crate::{
    AppendAcks, AppendTarget, Broker, BrokerOptions, Caller, Converter, DeadLetter, DeadLetterRecord,
    DeadRecord, DelayedAddress, NewTopic, Publish, PublishTargets, Redrive, RedriveRefused, RedriveSpec,
    RedrivenRecord, Topic,
};

const FRONT_END: &str = "one";
pub(super) const CALLER: Caller = Caller::front_end(FRONT_END);
const DEATHS: &[u8] = b"deaths";
const SINCE: &[u8] = b"since";

/// A record's key is its routing key, and its headers its deaths: all of them, and those since it was redriven.
fn dead_letter(dead: &DeadRecord<'_>, death: &DeadLetter<'_>, each: &mut dyn FnMut(&DeadLetterRecord<'_>)) {
    let DeadRecord::Own(record) = dead else { return };
    let (mut deaths, mut since) = (deaths_of(record), listed_in(record, SINCE));
    let (mut stored, mut stored_since) = (Vec::new(), Vec::new());
    for (deaths, stored) in [(&mut deaths, &mut stored), (&mut since, &mut stored_since)] {
        deaths.add(&Arc::from(death.queue), death.reason, death.time_ms);
        deaths.encode(stored);
    }
    let key = death.routing_key.map(str::as_bytes).or(record.key);
    let address = DelayedAddress {
        exchange_id: None,
        repetition: None,
        exchange: death.exchange,
        key: key.unwrap_or_default(),
        further_keys: &[],
        attributes: &NoAttributes,
        hash: 7,
        facts: Facts { size: 1, ..Facts::default() },
    };
    let headers = [(DEATHS, Some(&stored[..])), (SINCE, Some(&stored_since[..]))];
    each(&DeadLetterRecord {
        address: &address,
        deaths: &since,
        key,
        value: record.value,
        headers: &headers,
    });
}

fn redrive(record: &RecordView<'_>, queue: &str, each: &mut dyn FnMut(&RedrivenRecord<'_>)) {
    let deaths = deaths_of(record);
    let Some(last) = deaths.iter().find(|death| *death.queue != *queue) else { return };
    let mut stored = Vec::new();
    deaths.encode(&mut stored);
    each(&RedrivenRecord {
        origin: &last.queue,
        reason: last.reason,
        facts: Facts { size: 1, ..Facts::default() },
        key: record.key,
        value: record.value,
        headers: &[(DEATHS, Some(&stored))],
    });
}

fn options(machine: &Machine) -> BrokerOptions {
    let to_message = |_: &RecordView<'_>| sabir_model::Message::default();
    let converter = Converter {
        front_end: FRONT_END,
        reads_unnamed: false,
        to_message,
        address: None,
        delay_queue: None,
        dead_letter: Some(dead_letter),
        redrive: Some(redrive),
    };
    BrokerOptions { front_ends: vec![FRONT_END], converters: vec![converter], ..machine.options() }
}

pub(super) fn open(machine: &Machine) -> Broker {
    machine.try_open(options(machine)).unwrap()
}

pub(super) fn to(exchange: &str, key: Option<&str>) -> QueueConfig {
    let address = DeadLetterAddress { exchange: exchange.into(), routing_key: key.map(Into::into) };
    QueueConfig { dead_letter: Some(address), ..QueueConfig::default() }
}

pub(super) async fn queue(broker: &Broker, name: &str, config: QueueConfig) -> Arc<Topic> {
    let config = TopicConfig { max_message_bytes: 8 << 20, ..TopicConfig::of_queue(config) };
    let new = NewTopic { name: name.to_owned(), partitions: 1, config, internal: false, unlike: false };
    broker.create_topics(&CALLER, vec![new]).await.remove(0).unwrap()
}

fn origin(broker: &Broker) -> FrontendNo {
    broker.front_end_number(FRONT_END).unwrap()
}

/// Publishes one batch, as far as it is taken.
pub(super) async fn publish_bodies(
    broker: &Broker,
    queue: &Arc<Topic>,
    bodies: &[Vec<u8>],
) -> Result<(), ErrorAbout<AppendError>> {
    let target = AppendTarget::new(&CALLER, queue, 0, AppendAcks::InSync, origin(broker)).unwrap();
    let targets = PublishTargets::new(vec![target]).unwrap();
    let mut batch = BatchBuilder::new(Compression::None);
    bodies.iter().for_each(|body| batch.push(5, Some(queue.name.as_bytes()), Some(body), &[]));
    let batch = batch.build_checked(&targets.rules(), broker.wall_ms()).unwrap();
    let publish = Publish { partial: true, ..Publish::new(targets, [batch]) };
    let outcomes = broker.publish(&CALLER, &publish).unwrap();
    broker.flush();
    soon(outcomes.confirmed()).await
}

pub(super) async fn publish(
    broker: &Broker,
    queue: &Arc<Topic>,
    ids: &[u64],
) -> Result<(), ErrorAbout<AppendError>> {
    let bodies: Vec<_> = ids.iter().map(|id| id.to_be_bytes().to_vec()).collect();
    publish_bodies(broker, queue, &bodies).await
}

pub(super) fn with_subscription<T>(
    broker: &Broker,
    queue: &Topic,
    look: impl FnOnce(&Subscription) -> T,
) -> T {
    let place = queue.partitions[0];
    let state = broker.inner.shards[place.shard.0 as usize].state.read();
    look(state.subscriptions.get(subscription_of(place.id)).unwrap())
}

fn id_of(value: &[u8]) -> u64 {
    u64::from_be_bytes(value[..8].try_into().unwrap())
}

/// What is in a queue and not settled, in its order, whichever owner has it.
pub(super) async fn lies_in(broker: &Broker, queue: &Topic) -> Vec<u64> {
    with_history(broker, queue).await.into_iter().map(|(id, _)| id).collect()
}

pub(super) async fn with_history(broker: &Broker, queue: &Topic) -> Vec<(u64, Deaths)> {
    let mut from = with_subscription(broker, queue, Subscription::floor);
    let mut all = Vec::new();
    loop {
        let fetched = soon(read(broker, queue, 0, from as i64, 1 << 20)).await.unwrap();
        let Some(last) = fetched.slices.last() else { return all };
        let (begins, ends) = (from, last.next_offset.0 as u64);
        from = ends;
        for slice in &fetched.slices {
            let bytes = slice.joined();
            for batch in split(&bytes) {
                let found = records(batch.unwrap().1, 1 << 30).unwrap();
                let found = found.iter().map(Result::unwrap);
                let found = found.filter(|record| (begins..ends).contains(&(record.offset.0 as u64)));
                with_subscription(broker, queue, |queue| {
                    let is_left = |offset| queue.state(offset) != MessageState::Settled;
                    let left = found.filter(|record| is_left(record.offset.0 as u64));
                    all.extend(left.map(|record| (id_of(record.value.unwrap()), deaths_of(&record))));
                });
            }
        }
    }
}

fn deaths_of(record: &RecordView<'_>) -> Deaths {
    listed_in(record, DEATHS)
}

fn listed_in(record: &RecordView<'_>, name: &[u8]) -> Deaths {
    let stored = { record.headers }.find(|header| header.key == name).and_then(|header| header.value);
    stored.map_or_else(Deaths::default, |stored| Deaths::decode(stored).unwrap())
}

/// Waits until no dead letter waits to be published.
pub(super) async fn at_rest(broker: &Broker) {
    let waits = |broker: &Broker| {
        broker
            .inner
            .shards
            .iter()
            .any(|shard| shard.state.read().subscriptions.dead_lettering().next().is_some())
    };
    until(|| !waits(broker)).await;
}

/// What is done with a message that a client got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    Settle,
    Reject,
    GiveBack,
}

/// Gets the first ready message of a queue and has that come of it. Gives which it was.
pub(super) async fn get(broker: &Broker, queue: &Arc<Topic>, fate: Fate) -> Option<u64> {
    let (target, owner) = (QueueTarget::new(&CALLER, queue).unwrap(), broker.queues().owner());
    let getting = broker.queues().get(&CALLER, target, owner, false);
    broker.flush();
    let got = soon(getting).await.unwrap()?;
    let offset = got.offset;
    let fetched = broker.read(target.read_target(), Offset(offset as i64), 1, true).await.unwrap();
    let found = values(&fetched).into_iter().find(|(at, _)| *at == offset as i64).unwrap();
    let messages = std::iter::once(offset..offset + 1);
    match fate {
        Fate::Settle => broker.queues().settle(target, owner, messages),
        Fate::Reject => broker.queues().reject(target, owner, messages),
        Fate::GiveBack => broker.queues().give_back(target, owner, messages, true, None),
    }
    broker.flush();
    let has_come = |queue: &Subscription| {
        let owner = queue.holding(offset).map(|holding| holding.owner);
        let is_counted = || queue.attempts(offset).is_some_and(|attempts| attempts.returned > got.returned);
        let is_back = || queue.state(offset) == MessageState::Parked || is_counted();
        queue.state(offset) == MessageState::Settled
            || matches!(owner, Some(MessageOwner::DeadLetter(_)))
            || fate == Fate::GiveBack && is_back()
    };
    until(|| with_subscription(broker, queue, has_come)).await;
    Some(id_of(&found.1))
}

pub(super) fn advance(machine: &Machine, broker: &Broker, ms: i64) {
    machine.clock.advance(ms);
    broker.inner.queues.alarm.set(i64::MIN);
}

pub(super) fn stats(broker: &Broker) -> crate::DeadLetterStats {
    broker.stats().shards[1].dead_letters
}

pub(super) async fn close(broker: Broker) {
    tokio::task::spawn_blocking(move || broker.shutdown()).await.unwrap();
}

#[tokio::test]
async fn what_is_given_up_for_any_reason_is_published_once_in_its_order() {
    let machine = Machine::new(1, 1, Seam::Solo);
    let broker = open(&machine);
    let dead = queue(&broker, "dead", QueueConfig::default()).await;
    let work = queue(&broker, "work", QueueConfig { message_ttl_ms: Some(50), ..to("", Some("dead")) }).await;
    publish(&broker, &work, &[1, 2, 3, 4]).await.unwrap();
    assert_eq!(get(&broker, &work, Fate::Reject).await, Some(1));
    until(|| stats(&broker).published == [1, 0, 0, 0]).await;
    advance(&machine, &broker, 50);
    until(|| stats(&broker).published == [1, 3, 0, 0]).await;
    at_rest(&broker).await;
    assert_eq!(lies_in(&broker, &dead).await, [1, 2, 3, 4]);
    let limits = QueueConfig { max_length: Some(2), ..to("", Some("dead")) };
    let short = queue(&broker, "short", limits.clone()).await;
    publish(&broker, &short, &[5, 6, 7]).await.unwrap();
    let refuses = QueueConfig { overflow: Overflow::RejectAndDeadLetter, ..limits };
    let refuses = queue(&broker, "refuses", refuses).await;
    assert_eq!(publish(&broker, &refuses, &[8, 9, 10]).await, Err(AppendError::QueueFull.into()));
    assert_eq!(publish(&broker, &refuses, &[11]).await, Err(AppendError::QueueFull.into()));
    until(|| stats(&broker).published == [1, 3, 3, 0]).await;
    assert_eq!(lies_in(&broker, &refuses).await, [8, 9]);
    let patient =
        queue(&broker, "patient", QueueConfig { delivery_limit: Some(1), ..to("", Some("dead")) }).await;
    publish(&broker, &patient, &[12]).await.unwrap();
    for _ in 0..2 {
        assert_eq!(get(&broker, &patient, Fate::GiveBack).await, Some(12));
    }
    assert_eq!(get(&broker, &patient, Fate::GiveBack).await, None);
    until(|| stats(&broker).published == [1, 3, 3, 1]).await;
    assert_eq!(lies_in(&broker, &dead).await, [1, 2, 3, 4, 5, 10, 11, 12]);
    // One whose settings have it wait before it is tried again.
    let retry = Some(Backoff::Steps([30].into()));
    let waits = QueueConfig { retry, delivery_limit: Some(1), ..to("", Some("dead")) };
    let waits = queue(&broker, "waits", waits).await;
    publish(&broker, &waits, &[13]).await.unwrap();
    assert_eq!(get(&broker, &waits, Fate::GiveBack).await, Some(13));
    assert_eq!(get(&broker, &waits, Fate::GiveBack).await, None);
    machine.clock.advance(30);
    broker.inner.shards.iter().for_each(|shard| shard.timers.raise());
    until(|| with_subscription(&broker, &waits, |of| of.next_ready(0).is_some())).await;
    assert_eq!(get(&broker, &waits, Fate::GiveBack).await, Some(13));
    until(|| stats(&broker).published == [1, 3, 3, 2]).await;
    assert_eq!(lies_in(&broker, &dead).await, [1, 2, 3, 4, 5, 10, 11, 12, 13]);
    for of in [&work, &short, &refuses, &patient] {
        let (floor, ready) = with_subscription(&broker, of, |of| (of.floor(), of.next_ready(0)));
        assert_eq!(Some(floor), ready.or(Some(floor)), "nothing of {} holds its log", of.name);
    }
    machine.agrees_with_replay(&broker);
    close(broker).await;
}

#[tokio::test]
async fn dead_letters_go_to_other_shards_and_whole_whatever_their_size() {
    let machine = Machine::new(2, 2, Seam::Solo);
    let broker = open(&machine);
    let spec = ExchangeSpec { internal: true, ..ExchangeSpec::of(ExchangeKind::Fanout) };
    broker.exchanges().declare(&Caller::OPERATOR, "dlx", spec).await.unwrap();
    let dead = queue(&broker, "dead", QueueConfig::default()).await;
    let spread = create(&broker, "spread", 3).await;
    for name in ["dead", "spread"] {
        let binding = NamedBinding::keyed("dlx", NamedDestination::Queue(name.to_owned()), b"");
        broker.exchanges().bind(&Caller::OPERATOR, binding).await.unwrap();
    }
    let work = queue(&broker, "work", to("dlx", None)).await;
    publish(&broker, &work, &[1]).await.unwrap();
    let large = [2u64.to_be_bytes().to_vec(), vec![7; 3 << 20]].concat();
    publish_bodies(&broker, &dead, std::slice::from_ref(&large)).await.unwrap();
    publish_bodies(&broker, &work, std::slice::from_ref(&large)).await.unwrap();
    for id in [1, 2] {
        assert_eq!(get(&broker, &work, Fate::Reject).await, Some(id));
    }
    at_rest(&broker).await;
    assert_eq!(lies_in(&broker, &dead).await, [2, 1, 2]);
    let partition = crate::ReadTarget::of(spread.partition(7 % 3).unwrap());
    let fetched = broker.read(partition, Offset(0), 8 << 20, true).await.unwrap();
    assert_eq!(values(&fetched).len(), 1);
    assert_eq!(stats(&broker).refused, 1, "that topic takes nothing so large");
    close(broker).await;
}

#[tokio::test]
async fn what_goes_round_without_a_rejection_or_to_nowhere_is_dropped_and_counted() {
    let machine = Machine::new(3, 1, Seam::Solo);
    let broker = open(&machine);
    let circle =
        queue(&broker, "circle", QueueConfig { message_ttl_ms: Some(50), ..to("", Some("circle")) }).await;
    let lost = queue(&broker, "lost", to("absent", None)).await;
    let full = QueueConfig { max_length: Some(0), overflow: Overflow::Reject, ..QueueConfig::default() };
    queue(&broker, "full", full).await;
    let refused = queue(&broker, "refused", to("", Some("full"))).await;
    publish(&broker, &circle, &[1]).await.unwrap();
    for _ in 0..3 {
        until(|| with_subscription(&broker, &circle, |circle| circle.backlog().messages) == 1).await;
        assert_eq!(get(&broker, &circle, Fate::Reject).await, Some(1));
        at_rest(&broker).await;
    }
    advance(&machine, &broker, 50);
    until(|| stats(&broker).cycles == 1).await;
    publish(&broker, &lost, &[2]).await.unwrap();
    publish(&broker, &refused, &[3]).await.unwrap();
    assert_eq!(get(&broker, &lost, Fate::Reject).await, Some(2));
    assert_eq!(get(&broker, &refused, Fate::Reject).await, Some(3));
    at_rest(&broker).await;
    assert_eq!((stats(&broker).unroutable, stats(&broker).refused), (1, 1));
    for queue in [&circle, &lost, &refused] {
        assert!(lies_in(&broker, queue).await.is_empty());
    }
    close(broker).await;
}

#[tokio::test]
async fn many_at_once_go_in_pieces_and_hold_up_nobody() {
    let machine = Machine::new(4, 1, Seam::Solo);
    let broker = open(&machine);
    let dead = queue(&broker, "dead", QueueConfig::default()).await;
    let work = queue(&broker, "work", QueueConfig { message_ttl_ms: Some(50), ..to("", Some("dead")) }).await;
    let other = queue(&broker, "other", to("", Some("dead"))).await;
    let all: Vec<u64> = (0..5_000).collect();
    for some in all.chunks(500) {
        publish(&broker, &work, some).await.unwrap();
    }
    publish(&broker, &other, &[5_000]).await.unwrap();
    advance(&machine, &broker, 50);
    until(|| with_subscription(&broker, &work, |work| work.backlog().messages) == 0).await;
    assert_eq!(get(&broker, &other, Fate::Reject).await, Some(5_000));
    at_rest(&broker).await;
    let mut came = lies_in(&broker, &dead).await;
    came.retain(|id| *id < 5_000);
    assert!(came == all);
    machine.agrees_with_replay(&broker);
    close(broker).await;
}

/// Binds queues to a fanout exchange that takes dead letters.
async fn fanout(broker: &Broker, queues: &[String]) {
    let spec = ExchangeSpec { internal: true, ..ExchangeSpec::of(ExchangeKind::Fanout) };
    broker.exchanges().declare(&Caller::OPERATOR, "dlx", spec).await.unwrap();
    let to = |name: &String| NamedBinding::keyed("dlx", NamedDestination::Queue(name.clone()), b"");
    let binding: Vec<_> =
        queues.iter().map(|name| broker.exchanges().bind(&Caller::OPERATOR, to(name))).collect();
    for bound in binding {
        bound.await.unwrap();
    }
}

#[tokio::test]
async fn where_one_target_takes_nothing_now_the_others_have_each_message_once() {
    let machine = Machine::new(5, 3, Seam::Told);
    let broker = open(&machine);
    let (_committing, lates) = (machine.commit_always(), machine.late.lock().clone());
    let mut names: Vec<String> = (0..12).map(|number| format!("t{number}")).collect();
    let mut targets = Vec::new();
    for name in &names {
        targets.push(*create(&broker, name, 3).await.partition(7 % 3).unwrap());
    }
    // One that lies beside the dead letters.
    let near = queue(&broker, "near", QueueConfig::default()).await;
    targets.push(near.partitions[0]);
    names.push("near".to_owned());
    fanout(&broker, &names).await;
    let work = queue(&broker, "work", to("dlx", None)).await;
    let own = work.partitions[0].shard;
    let other = targets.iter().map(|target| target.shard).find(|shard| *shard != own).unwrap();
    let count = |target: &Partition| {
        let state = broker.inner.shards[target.shard.0 as usize].state.read();
        state.partition(target.id).unwrap().next.0
    };
    publish(&broker, &work, &[1, 2, 3]).await.unwrap();
    lates[other.0 as usize].lead(false).unwrap();
    assert_eq!(get(&broker, &work, Fate::Reject).await, Some(1));
    until(|| targets.iter().any(|target| count(target) == 1)).await;
    // It is tried again several times.
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(targets.iter().all(|target| count(target) == i64::from(target.shard != other)));
    // Nor does one behind it wait.
    assert_eq!(get(&broker, &work, Fate::Reject).await, Some(2));
    until(|| targets.iter().all(|target| count(target) == 2 * i64::from(target.shard != other))).await;
    lates[other.0 as usize].lead(true).unwrap();
    at_rest(&broker).await;
    for target in &targets {
        let fetched = broker.read(crate::ReadTarget::of(target), Offset(0), 1 << 20, true).await.unwrap();
        let came: Vec<_> = values(&fetched).iter().map(|(_, value)| id_of(value)).collect();
        assert_eq!(came, [1, 2], "{target:?}");
    }
    assert_eq!(broker.stats().shards[own.0 as usize].dead_letters.published, [2, 0, 0, 0]);
    close(broker).await;
}

/// More than an entry takes are for a shard that takes nothing: all others have them meanwhile, in whatever time that takes, and that one has them later.
#[tokio::test]
async fn very_many_that_are_put_off_hold_up_none_behind_them() {
    let machine = Machine::new(8, 3, Seam::Told);
    let broker = open(&machine);
    let (_committing, lates) = (machine.commit_always(), machine.late.lock().clone());
    let names: Vec<String> = (0..12).map(|number| format!("t{number}")).collect();
    let mut targets = Vec::new();
    for name in &names {
        targets.push(*create(&broker, name, 3).await.partition(7 % 3).unwrap());
    }
    fanout(&broker, &names).await;
    let work = queue(&broker, "work", QueueConfig { message_ttl_ms: Some(50), ..to("dlx", None) }).await;
    let own = work.partitions[0].shard;
    let other = targets.iter().map(|target| target.shard).find(|shard| *shard != own).unwrap();
    let all: Vec<u64> = (0..3_000).collect();
    publish(&broker, &work, &all).await.unwrap();
    lates[other.0 as usize].lead(false).unwrap();
    advance(&machine, &broker, 50);
    let count = |target: &Partition| {
        let state = broker.inner.shards[target.shard.0 as usize].state.read();
        state.partition(target.id).unwrap().next.0
    };
    until(|| targets.iter().all(|target| count(target) == 3_000 * i64::from(target.shard != other))).await;
    // It is tried again.
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    assert!(targets.iter().all(|target| count(target) == 3_000 * i64::from(target.shard != other)));
    lates[other.0 as usize].lead(true).unwrap();
    at_rest(&broker).await;
    for target in &targets {
        let fetched = broker.read(crate::ReadTarget::of(target), Offset(0), 8 << 20, true).await.unwrap();
        let came: Vec<_> = values(&fetched).iter().map(|(_, value)| id_of(value)).collect();
        assert!(came == all, "{target:?}");
    }
    assert_eq!(broker.stats().shards[own.0 as usize].dead_letters.published, [0, 3_000, 0, 0]);
    close(broker).await;
}

/// One target of many takes nothing so large: all others have the message by one publish.
#[tokio::test]
async fn a_target_that_takes_less_than_others_costs_these_nothing() {
    let machine = Machine::new(10, 1, Seam::Solo);
    let broker = open(&machine);
    let mut names: Vec<String> = (0..100).map(|number| format!("t{number}")).collect();
    let mut targets = Vec::new();
    for name in &names {
        targets.push(*create(&broker, name, 1).await.partition(0).unwrap());
    }
    let config = TopicConfig { max_message_bytes: 1_000, ..TopicConfig::default() };
    let new = NewTopic { name: "small".to_owned(), partitions: 1, config, internal: false, unlike: false };
    let small = broker.create_topics(&CALLER, vec![new]).await.remove(0).unwrap();
    names.insert(50, "small".to_owned());
    fanout(&broker, &names).await;
    let work = queue(&broker, "work", to("dlx", None)).await;
    let large = [1u64.to_be_bytes().to_vec(), vec![7; 2_000]].concat();
    publish_bodies(&broker, &work, &[large]).await.unwrap();
    let before = broker.stats().shards[1].entries;
    assert_eq!(get(&broker, &work, Fate::Reject).await, Some(1));
    until(|| stats(&broker).published == [1, 0, 0, 0]).await;
    let entries = broker.stats().shards[1].entries - before;
    assert!(entries < 10, "{entries} entries");
    assert_eq!(stats(&broker).refused, 1);
    let count = |target: &Partition| broker.inner.shards[1].state.read().partition(target.id).unwrap().next.0;
    assert!(targets.iter().all(|target| count(target) == 1) && count(&small.partitions[0]) == 0);
    close(broker).await;
}

#[tokio::test]
async fn letters_that_go_to_very_many_queues_are_published_by_themselves() {
    let machine = Machine::new(6, 1, Seam::Solo);
    let broker = open(&machine);
    let names: Vec<String> = (0..4_100).map(|number| format!("q{number}")).collect();
    let queue_of = |name: &String| NewTopic {
        name: name.clone(),
        partitions: 1,
        config: TopicConfig::of_queue(QueueConfig::default()),
        internal: false,
        unlike: false,
    };
    let made = broker.create_topics(&CALLER, names.iter().map(queue_of).collect()).await;
    let queues: Vec<_> = made.into_iter().map(Result::unwrap).collect();
    fanout(&broker, &names).await;
    let work = queue(&broker, "work", QueueConfig { message_ttl_ms: Some(50), ..to("dlx", None) }).await;
    publish(&broker, &work, &[1, 2, 3]).await.unwrap();
    advance(&machine, &broker, 50);
    until(|| stats(&broker).published == [0, 3, 0, 0]).await;
    at_rest(&broker).await;
    let count = |queue: &Topic| with_subscription(&broker, queue, |queue| queue.backlog().messages);
    assert!(queues.iter().all(|queue| count(queue) == 3));
    assert_eq!(lies_in(&broker, &queues[4_099]).await, [1, 2, 3]);
    close(broker).await;
}

/// A disk may err while it reads: what cannot be read is not dropped, and holds up nothing.
#[tokio::test]
async fn a_dead_letter_that_reads_as_damaged_is_put_off() {
    let machine = Machine::new(7, 1, Seam::Solo);
    let broker = open(&machine);
    let dead = queue(&broker, "dead", QueueConfig::default()).await;
    let work = queue(&broker, "work", QueueConfig { message_ttl_ms: Some(50), ..to("", Some("dead")) }).await;
    let marked = u64::from_be_bytes([0xa7; 8]);
    for id in [1, marked, 3] {
        publish(&broker, &work, &[id]).await.unwrap();
    }
    close(broker).await;

    let disk = &machine.disks[1];
    let (file, at) = place_of(&**disk, &marked.to_be_bytes());
    disk.flip_bit(&file, at, 3);
    let broker = open(&machine);
    advance(&machine, &broker, 50);
    until(|| stats(&broker).published == [0, 2, 0, 0]).await;
    assert_eq!(lies_in(&broker, &dead).await, [1, 3]);
    assert_eq!((stats(&broker).unreadable, broker.stats().shards[1].damaged.len()), (0, 1));
    let waiting = |work: &Subscription| work.dead_letters().collect::<Vec<_>>();
    assert_eq!(with_subscription(&broker, &work, waiting), [(1..2, DeathReason::Expired)]);
    close(broker).await;

    disk.flip_bit(&file, at, 3);
    let broker = open(&machine);
    at_rest(&broker).await;
    assert_eq!(lies_in(&broker, &dead).await, [1, 3, marked]);
    close(broker).await;
}

#[tokio::test]
async fn a_damaged_batch_of_more_than_an_entry_takes_holds_up_none_behind_it() {
    let machine = Machine::new(9, 1, Seam::Solo);
    let broker = open(&machine);
    let dead = queue(&broker, "dead", QueueConfig::default()).await;
    let work = queue(&broker, "work", QueueConfig { message_ttl_ms: Some(50), ..to("", Some("dead")) }).await;
    let marked = u64::from_be_bytes([0xa7; 8]);
    let mut batch: Vec<u64> = (0..2_000).collect();
    batch[1_000] = marked;
    publish(&broker, &work, &batch).await.unwrap();
    publish(&broker, &work, &[2_000]).await.unwrap();
    close(broker).await;

    let disk = &machine.disks[1];
    let (file, at) = place_of(&**disk, &marked.to_be_bytes());
    disk.flip_bit(&file, at, 3);
    let broker = open(&machine);
    advance(&machine, &broker, 50);
    until(|| stats(&broker).published == [0, 1, 0, 0]).await;
    assert_eq!(lies_in(&broker, &dead).await, [2_000]);
    let waiting = |work: &Subscription| work.dead_letters().map(|(run, _)| run.end - run.start).sum::<u64>();
    assert_eq!(with_subscription(&broker, &work, waiting), 2_000);
    assert_eq!(stats(&broker).unreadable, 0);
    let reads = broker.stats().shards[1].corrupt;
    assert!((1..=4).contains(&reads), "{reads} reads of one batch");
    close(broker).await;
}

#[derive(Debug, Clone)]
enum Step {
    Publish {
        queue: usize,
        count: u64,
        waits: bool,
    },
    Get {
        queue: usize,
        fate: Fate,
    },
    /// Has dead letters go back to where they come from.
    Redrive {
        queue: usize,
        most: Option<u64>,
    },
    Pass(i64),
    Checkpoint,
    Restart,
    /// The disk does some more of its work, and the power goes.
    Crash {
        steps: usize,
    },
}

const QUEUES: [&str; 5] = ["refuses", "short", "brief", "patient", "dead"];

fn step() -> impl Strategy<Value = Step> {
    let fate = prop_oneof![Just(Fate::Settle), Just(Fate::Reject), Just(Fate::Reject), Just(Fate::GiveBack)];
    prop_oneof![
        6 => (0..4usize, 1..8u64, any::<bool>())
            .prop_map(|(queue, count, waits)| Step::Publish { queue, count, waits }),
        8 => (0..QUEUES.len(), fate).prop_map(|(queue, fate)| Step::Get { queue, fate }),
        2 => (1..QUEUES.len(), prop_oneof![Just(None), (1..4u64).prop_map(Some)])
            .prop_map(|(queue, most)| Step::Redrive { queue, most }),
        3 => (0..60i64).prop_map(Step::Pass),
        1 => Just(Step::Checkpoint),
        1 => Just(Step::Restart),
        2 => (0..12usize).prop_map(|steps| Step::Crash { steps }),
    ]
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Known {
    /// It may be there.
    Sent,
    /// It is there.
    Confirmed,
    /// It may be gone.
    Settled,
}

struct World {
    machine: Machine,
    broker: Broker,
    queues: Vec<Arc<Topic>>,
    known: BTreeMap<u64, Known>,
    /// How often each was rejected, by queue.
    rejected: BTreeMap<(u64, usize), u32>,
}

/// Each one's dead letters go to the next one, and what is rejected in the last goes round.
async fn chain(broker: &Broker) -> Vec<Arc<Topic>> {
    let mut queues = Vec::new();
    for (number, name) in QUEUES.iter().enumerate() {
        let next = QUEUES.get(number + 1).unwrap_or(&QUEUES[1]);
        queues.push(queue(broker, name, limits(name, to("", Some(next)))).await);
    }
    queues
}

fn limits(name: &str, config: QueueConfig) -> QueueConfig {
    match name {
        "refuses" => QueueConfig { max_length: Some(3), overflow: Overflow::RejectAndDeadLetter, ..config },
        "short" => QueueConfig { max_length: Some(4), ..config },
        "brief" => QueueConfig { message_ttl_ms: Some(40), ..config },
        "patient" => QueueConfig { delivery_limit: Some(1), ..config },
        _ => config,
    }
}

impl World {
    async fn take(mut self, step: &Step) -> Self {
        match *step {
            Step::Publish { queue, count, waits } => self.publish(queue, count, waits).await,
            Step::Get { queue, fate } => {
                let got = get(&self.broker, &self.queues[queue], fate).await;
                match (got, fate) {
                    (Some(id), Fate::Settle) => drop(self.known.insert(id, Known::Settled)),
                    (Some(id), Fate::Reject) => *self.rejected.entry((id, queue)).or_default() += 1,
                    _ => {}
                }
            }
            Step::Redrive { queue, most } => {
                let spec = RedriveSpec { most, ..RedriveSpec::default() };
                match self.broker.redrive(&Caller::OPERATOR, &self.queues[queue], spec) {
                    Ok(_) | Err(ErrorAbout { error: RedriveRefused::IsRunning, .. }) => {}
                    Err(refused) => panic!("{refused}"),
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            Step::Pass(ms) => {
                advance(&self.machine, &self.broker, ms);
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            Step::Checkpoint => self.broker.inner.shards.iter().for_each(|shard| shard.checkpoint().unwrap()),
            Step::Restart => {
                close(self.broker.clone()).await;
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

    async fn publish(&mut self, queue: usize, count: u64, waits: bool) {
        let first = self.known.len() as u64;
        let ids: Vec<u64> = (first..first + count).collect();
        let publishing = publish(&self.broker, &self.queues[queue], &ids);
        let published = match waits {
            true => Some(publishing.await),
            false => tokio::time::timeout(Duration::from_micros(1), publishing).await.ok(),
        };
        // What is refused is dead-lettered: it is there as well.
        let there = published.is_some_and(|done| done.is_ok() || done == Err(AppendError::QueueFull.into()));
        let known = if there { Known::Confirmed } else { Known::Sent };
        self.known.extend(ids.into_iter().map(|id| (id, known)));
    }

    async fn reopened(self, crashed: bool) -> Self {
        let Self { machine, broker, queues, known, rejected } = self;
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
        for name in QUEUES {
            until(|| broker.catalog().topic(name).is_some()).await;
        }
        machine.agrees_with_replay(&broker);
        Self { machine, broker, queues, known, rejected }
    }

    /// Each message is in one queue, unless a client settled it, and says of its history what happened.
    async fn check(&self) {
        let redrives = self.broker.redrives(&Caller::OPERATOR).unwrap();
        until(|| !redrives.iter().any(Redrive::is_running)).await;
        at_rest(&self.broker).await;
        let brief = |brief: &Subscription| brief.backlog().messages;
        // What no call waited for, or what another queue gives up, may come at any time.
        until(|| {
            advance(&self.machine, &self.broker, 10);
            with_subscription(&self.broker, &self.queues[2], brief) == 0
        })
        .await;
        at_rest(&self.broker).await;
        let mut copies: BTreeMap<u64, u32> = BTreeMap::new();
        for queue in &self.queues {
            for (id, deaths) in with_history(&self.broker, queue).await {
                *copies.entry(id).or_default() += 1;
                self.check_history(id, &deaths);
            }
        }
        for (id, known) in &self.known {
            match (copies.get(id).copied().unwrap_or(0), known) {
                (1, _) | (0, Known::Sent | Known::Settled) => {}
                (count, known) => panic!("message {id} is there {count} times: {known:?}"),
            }
        }
        let short = with_subscription(&self.broker, &self.queues[1], |short| short.backlog().messages);
        assert!(short <= 4, "{short} are ready");
    }

    fn check_history(&self, id: u64, deaths: &Deaths) {
        for (number, name) in QUEUES.iter().enumerate() {
            let there = || deaths.iter().filter(|death| &*death.queue == *name);
            let all: u32 = there().map(|death| death.count).sum();
            let rejected = there().find(|death| death.reason == DeathReason::Rejected);
            let rejected = rejected.map_or(0, |death: &Death| death.count);
            // What a full queue gave up before it was dealt is not rejected any more.
            let wanted = self.rejected.get(&(id, number)).copied().unwrap_or(0);
            assert!(rejected <= wanted && wanted <= all, "{wanted} of message {id} in {name}: {deaths:?}");
        }
    }
}

fn run(seed: u64, steps: &[Step]) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let machine = Machine { recycle: false, ..Machine::new(seed, 1, Seam::Solo) };
        let broker = open(&machine);
        let queues = chain(&broker).await;
        let mut world =
            Box::new(World { machine, broker, queues, known: BTreeMap::new(), rejected: BTreeMap::new() });
        for step in steps {
            *world = Box::pin(world.take(step)).await;
        }
        world.check().await;
        close(world.broker.clone()).await;
    });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 40, max_shrink_time: 60_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn messages_go_down_a_chain_of_queues_and_none_is_lost_or_doubled(
        seed in any::<u64>(),
        steps in prop::collection::vec(step(), 1..60),
    ) {
        run(seed, &steps);
    }
}

#[test]
fn reasons_have_the_numbers_of_their_figures() {
    assert!(DeathReason::ALL.iter().enumerate().all(|(at, reason)| *reason as usize == at));
}

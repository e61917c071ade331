//! Subscriptions of topics that are no queues, through the broker: consumed as queues are, and nothing of it is seen by other readers.

use std::iter::once;
use std::sync::Arc;

use sabir_model::{DeadLetterAddress, Offset, QueueConfig};

use super::queues::{CALLER, Client, numbers, queue, ready};
use super::rig::{append, batch, create, read, soon, until, values};
use super::sim::{Machine, Seam};
use crate::push::{CancelReason, Push};
use crate::queue::{
    QueueError, QueueTarget, StartAt, SubscribeRefused, SubscriptionSettings, SubscriptionSpec,
    SubscriptionStart,
};
use crate::{Broker, Topic};

fn starting(start: SubscriptionStart) -> SubscriptionSpec {
    SubscriptionSpec { start: StartAt::Place(start), ..SubscriptionSpec::default() }
}

async fn subscribe(broker: &Broker, topic: &Topic, name: &str) -> Vec<QueueTarget> {
    soon(broker.subscribe(&CALLER, topic, name, &SubscriptionSpec::default())).await.unwrap()
}

async fn published(broker: &Broker, topic: &Topic, index: i32, count: usize) {
    append(broker, topic, index, batch(&vec![b"m".as_slice(); count], 1)).await.unwrap();
}

fn found(broker: &Broker, name: &str) -> Arc<Topic> {
    broker.catalog().topic(name).unwrap().clone()
}

fn skipped(broker: &Broker) -> u64 {
    broker.inner.shards.iter().map(|shard| shard.state.read().subscriptions.skipped).sum()
}

fn in_flight(broker: &Broker, target: QueueTarget) -> u64 {
    broker.queues().stats(target).unwrap().in_flight
}

#[tokio::test]
async fn what_is_settled_of_each_partition_is_known_after_a_crash_and_nothing_else_is_lost() {
    for shards in [1, 3] {
        let mut machine = Machine::new(1, shards, Seam::Solo);
        let broker = machine.open();
        let topic = create(&broker, "t", 3).await;
        for index in 0..3 {
            published(&broker, &topic, index, 3).await;
        }
        let targets = subscribe(&broker, &topic, "s").await;
        assert_eq!(targets, subscribe(&broker, &topic, "s").await, "it is there");
        for target in &targets {
            let client = Client::attach(&broker, *target, 3);
            assert_eq!(client.delivered(3).await, numbers(0..3, false));
            client.settle(1..2);
            until(|| in_flight(&broker, *target) == 2).await;
        }
        broker.inner.shards.iter().for_each(|shard| shard.checkpoint().unwrap());
        for index in 0..3 {
            published(&broker, &topic, index, 2).await;
        }
        machine = machine.crash(broker);
        let broker = machine.open();
        let topic = found(&broker, "t");
        assert_eq!(broker.subscription(&CALLER, &topic, "s").unwrap(), targets, "they have their numbers");
        for (index, target) in (0..).zip(&targets) {
            let client = Client::attach(&broker, *target, 100);
            let mut seen = client.delivered(4).await;
            seen.sort_unstable();
            // What was claimed for its credit may have been sent as well.
            assert_eq!(seen[..2], [(0, true), (2, true)]);
            assert_eq!(seen[2..].iter().map(|(offset, _)| *offset).collect::<Vec<_>>(), [3, 4]);
            client.settle(0..5);
            until(|| in_flight(&broker, *target) == 0).await;
            let kept = values(&read(&broker, &topic, index, 0, 10_000).await.unwrap());
            assert_eq!(kept.len(), 5, "who reads by position has all of it");
        }
        machine.agrees_with_replay(&broker);
        broker.shutdown();
    }
}

#[tokio::test]
async fn subscriptions_of_one_topic_do_not_know_of_one_another() {
    let machine = Machine::new(2, 1, Seam::Solo);
    let broker = machine.open();
    let topic = create(&broker, "t", 1).await;
    published(&broker, &topic, 0, 4).await;
    let (one, two) = (subscribe(&broker, &topic, "one").await[0], subscribe(&broker, &topic, "two").await[0]);
    assert_ne!(one, two);
    let (first, second) = (Client::attach(&broker, one, 2), Client::attach(&broker, two, 10));
    assert_eq!(first.delivered(2).await, numbers(0..2, false));
    assert_eq!(second.delivered(4).await, numbers(0..4, false));
    first.settle(0..2);
    until(|| in_flight(&broker, one) == 0).await;
    second.leave();
    until(|| ready(&broker, two) == 4).await;
    assert_eq!(ready(&broker, one), 2);
    let listed = broker.subscriptions(&CALLER, &topic).unwrap();
    let listed: Vec<_> = listed.iter().map(|s| (&*s.name, s.queue.ready, s.queue.consumers)).collect();
    assert_eq!(listed, [("one", 2, 1), ("two", 4, 0)]);
    machine.agrees_with_replay(&broker);
    broker.shutdown();
}

#[tokio::test]
async fn a_subscription_begins_where_it_is_wanted_to() {
    let machine = Machine::new(3, 1, Seam::Solo);
    let broker = machine.open();
    let topic = create(&broker, "t", 1).await;
    for time_ms in [10, 20, 30] {
        append(&broker, &topic, 0, batch(&[b"a", b"b"], time_ms)).await.unwrap();
    }
    let place = topic.partitions[0];
    broker.delete_records(&CALLER, place.shard, place.id, Offset(1)).await.unwrap();
    let wanted = [
        (StartAt::Place(SubscriptionStart::Oldest), 5),
        (StartAt::Place(SubscriptionStart::Last), 1),
        (StartAt::Place(SubscriptionStart::Next), 0),
        (StartAt::Place(SubscriptionStart::At(2)), 4),
        (StartAt::Place(SubscriptionStart::At(0)), 5),
        (StartAt::Place(SubscriptionStart::At(99)), 0),
        (StartAt::Since(20), 4),
        (StartAt::Since(31), 0),
    ];
    for (number, (start, left)) in wanted.into_iter().enumerate() {
        let spec = SubscriptionSpec { start, ..SubscriptionSpec::default() };
        let made = soon(broker.subscribe(&CALLER, &topic, &number.to_string(), &spec)).await.unwrap();
        assert_eq!(ready(&broker, made[0]), left, "{start:?}");
        let again = starting(SubscriptionStart::Oldest);
        assert_eq!(soon(broker.subscribe(&CALLER, &topic, &number.to_string(), &again)).await, Ok(made));
    }
    published(&broker, &topic, 0, 1).await;
    let next = broker.subscription(&CALLER, &topic, "2").unwrap();
    assert_eq!(ready(&broker, next[0]), 1);
    let several = create(&broker, "several", 2).await;
    let refused = soon(broker.subscribe(&CALLER, &several, "s", &starting(SubscriptionStart::At(1)))).await;
    assert_eq!(refused, Err(SubscribeRefused::SeveralPartitions.into()));
    machine.agrees_with_replay(&broker);
    broker.shutdown();
}

#[tokio::test]
async fn what_was_removed_before_it_was_delivered_is_skipped_and_counted_whoever_has_it() {
    let machine = Machine::new(4, 1, Seam::Solo);
    let broker = machine.open();
    let topic = create(&broker, "t", 1).await;
    published(&broker, &topic, 0, 10).await;
    let target = subscribe(&broker, &topic, "s").await[0];
    let client = Client::attach(&broker, target, 3);
    assert_eq!(client.delivered(3).await, numbers(0..3, false));
    let place = topic.partitions[0];
    broker.delete_records(&CALLER, place.shard, place.id, Offset(8)).await.unwrap();
    assert_eq!((ready(&broker, target), in_flight(&broker, target), skipped(&broker)), (2, 0, 5));
    client.settle(0..3);
    broker.queues().refill(client.demand, 3, 0);
    broker.flush();
    assert_eq!(client.delivered(2).await, numbers(8..10, false));
    machine.agrees_with_replay(&broker);
    let machine = machine.crash(broker);
    let broker = machine.open();
    assert_eq!(ready(&broker, target), 2);
    broker.shutdown();
}

#[tokio::test]
async fn one_that_is_removed_tells_its_consumers_and_its_name_is_free() {
    let machine = Machine::new(5, 1, Seam::Solo);
    let broker = machine.open();
    let topic = create(&broker, "t", 1).await;
    published(&broker, &topic, 0, 4).await;
    let target = subscribe(&broker, &topic, "s").await[0];
    let client = Client::attach(&broker, target, 10);
    assert_eq!(client.delivered(4).await, numbers(0..4, false));
    assert_eq!(soon(broker.unsubscribe(&CALLER, &topic, "s")).await, Ok(true));
    assert_eq!(soon(broker.unsubscribe(&CALLER, &topic, "s")).await, Ok(false));
    until(|| client.outbox.seat().waiting() > 0).await;
    let told: Vec<_> = client.taken().into_iter().collect();
    assert!(matches!(told[..], [Push::Cancelled { consumer: 1, why: CancelReason::Deleted }]), "{told:?}");
    assert_eq!(Client::try_attach(&broker, target, 1, |_| {}).err(), Some(QueueError::Unknown.into()));
    let owner = broker.queues().owner();
    assert_eq!(
        soon(broker.queues().get(&CALLER, target, owner, false)).await,
        Err(QueueError::Unknown.into())
    );
    let other = subscribe(&broker, &topic, "s").await[0];
    assert_ne!(other, target);
    let new = Client::attach(&broker, other, 10);
    assert_eq!(new.delivered(4).await, numbers(0..4, false), "it begins anew");
    // What is said late of the one that is gone is nothing to it.
    client.settle(0..4);
    published(&broker, &topic, 0, 1).await;
    assert_eq!(new.delivered(1).await, numbers(4..5, false));
    assert_eq!(in_flight(&broker, other), 5);
    assert_eq!(broker.delete_topics(&CALLER, vec![topic.id]).await, [Ok(())]);
    until(|| new.outbox.seat().waiting() > 0).await;
    assert!(
        broker.inner.shards.iter().all(|shard| shard
            .state
            .read()
            .subscriptions
            .get(other.subscription())
            .is_none())
    );
    broker.inner.shards.iter().for_each(|shard| shard.checkpoint().unwrap());
    machine.agrees_with_replay(&broker);
    let machine = machine.crash(broker);
    machine.open().shutdown();
}

#[tokio::test]
async fn a_subscription_s_name_may_be_as_long_as_a_topic_s() {
    let mut machine = Machine::new(11, 1, Seam::Solo);
    let longest = "s".repeat(1024);
    let mut broker = machine.open();
    let topic = create(&broker, "t", 1).await;
    let made = subscribe(&broker, &topic, &longest).await;
    // By replay, and from a checkpoint.
    for _ in 0..2 {
        machine = machine.crash(broker);
        broker = machine.open();
        assert_eq!(broker.subscription(&CALLER, &found(&broker, "t"), &longest), Ok(made.clone()));
        broker.inner.shards.iter().for_each(|shard| shard.checkpoint().unwrap());
    }
    broker.shutdown();
}

#[tokio::test]
async fn a_partition_that_comes_later_is_taken_from_its_first_record() {
    let machine = Machine::new(6, 1, Seam::Solo);
    let broker = machine.open();
    let topic = create(&broker, "t", 1).await;
    published(&broker, &topic, 0, 2).await;
    let spec = starting(SubscriptionStart::Next);
    let made = soon(broker.subscribe(&CALLER, &topic, "s", &spec)).await.unwrap();
    broker.create_partitions(&CALLER, topic.id, 3).await.unwrap();
    until(|| found(&broker, "t").partitions.len() == 3).await;
    let topic = found(&broker, "t");
    published(&broker, &topic, 2, 2).await;
    let now = soon(broker.subscribe(&CALLER, &topic, "s", &spec)).await.unwrap();
    assert_eq!(now[0], made[0]);
    let left: Vec<_> = now.iter().map(|target| ready(&broker, *target)).collect();
    assert_eq!(left, [0, 0, 2]);
    broker.shutdown();
}

#[tokio::test]
async fn what_cannot_be_is_refused() {
    let machine = Machine::new(7, 1, Seam::Solo);
    let broker = machine.open();
    let topic = create(&broker, "t", 2).await;
    let (plain, (own, _)) = (SubscriptionSpec::default(), queue(&broker, "q", QueueConfig::default()).await);
    let refused = async |topic: &Topic, name: &str, spec: &SubscriptionSpec| {
        soon(broker.subscribe(&CALLER, topic, name, spec)).await.unwrap_err()
    };
    assert_eq!(refused(&own, "s", &plain).await, SubscribeRefused::IsQueue.into());
    assert_eq!(refused(&topic, "", &plain).await, SubscribeRefused::Name.into());
    assert_eq!(refused(&topic, &"x".repeat(1025), &plain).await, SubscribeRefused::Name.into());
    let address = DeadLetterAddress { exchange: "x".into(), routing_key: None };
    let settings = SubscriptionSettings { dead_letter: Some(address), delivery_limit: None };
    let letters = SubscriptionSpec { settings, ..plain.clone() };
    soon(broker.subscribe(&CALLER, &topic, "letters", &letters)).await.unwrap();
    soon(broker.subscribe(&CALLER, &topic, "letters", &plain)).await.expect("it says nothing of it");
    subscribe(&broker, &topic, "plain").await;
    assert_eq!(refused(&topic, "plain", &letters).await, SubscribeRefused::Differs.into());
    for number in 0..1022 {
        subscribe(&broker, &topic, &number.to_string()).await;
    }
    assert_eq!(refused(&topic, "one more", &plain).await, SubscribeRefused::TooMany.into());
    broker.shutdown();
}

#[tokio::test]
async fn a_message_is_got_given_back_and_purged_as_of_a_queue() {
    let machine = Machine::new(8, 1, Seam::Solo);
    let broker = machine.open();
    let topic = create(&broker, "t", 1).await;
    let target = subscribe(&broker, &topic, "s").await[0];
    let (queues, owner) = (broker.queues(), broker.queues().owner());
    assert_eq!(soon(queues.get(&CALLER, target, owner, false)).await, Ok(None));
    published(&broker, &topic, 0, 3).await;
    let got = soon(queues.get(&CALLER, target, owner, false)).await.unwrap().unwrap();
    assert_eq!((got.offset, got.redelivered, got.left), (0, false, 2));
    queues.give_back(target, owner, once(0..1), true, None);
    let again = soon(queues.get(&CALLER, target, owner, false)).await.unwrap().unwrap();
    assert_eq!((again.offset, again.redelivered, again.returned), (0, true, 1));
    assert_eq!(soon(queues.purge(&CALLER, target)).await, Ok(2));
    queues.release(target, owner, true);
    broker.flush();
    until(|| ready(&broker, target) == 1).await;
    broker.shutdown();
}

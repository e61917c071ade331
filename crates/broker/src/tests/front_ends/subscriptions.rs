//! Subscriptions that entries of front ends make, use and remove.

use sabir_model::PartitionId;

use super::*;
use crate::projection::delivery::{MessageOwner, SubscriptionCounts};
use crate::queue::{QueueError, SubscribeRefused, SubscriptionSpec};
use crate::tests::registers::{OTHERS, subscription};

const OTHER: Caller = Caller::front_end("others");

fn both() -> Machine {
    Machine { projections: vec![REGISTERS, OTHERS], recycle: false, ..Machine::new(21, 1, Seam::Solo) }
}

async fn told(broker: &Broker, caller: &Caller, entry: ProjectionEntry) -> String {
    let number = broker.projection(caller.by().unwrap()).unwrap();
    let (_, answer) = broker.write(caller, ShardId(1), number, &entry).unwrap();
    broker.flush();
    String::from_utf8(soon(answer).await.unwrap().to_vec()).unwrap()
}

async fn say(broker: &Broker, caller: &Caller, what: u8, id: PartitionId, number: u64) -> String {
    told(broker, caller, ProjectionEntry::new(subscription(what, id, "s", number))).await
}

/// Owner, counts, what is taken next, and what is held.
fn seen(broker: &Broker, id: PartitionId) -> Option<(FrontendNo, SubscriptionCounts, u64, Vec<u64>)> {
    let look = |view: &View<'_>| {
        let found = view.subscription(id, "s")?;
        let held = found.held(found.offsets()).inspect(|(_, held)| {
            assert_eq!(held.owner, MessageOwner::Named(1));
        });
        Some((found.owner(), found.counts(), found.next(), held.flat_map(|(messages, _)| messages).collect()))
    };
    broker.look(&OWN, ShardId(1), look).unwrap()
}

fn counts(ready: u64, in_flight: u64) -> SubscriptionCounts {
    SubscriptionCounts { ready, in_flight, parked: 0 }
}

#[tokio::test]
async fn a_subscription_is_its_makers_and_is_found_as_it_was_after_a_checkpoint_and_a_power_cut() {
    let mut machine = both();
    let mut broker = machine.open();
    let topic = create(&broker, "t", 1).await;
    let id = topic.partitions[0].id;
    for _ in 0..4 {
        append(&broker, &topic, 0, batch(&[b"x"], 1)).await.unwrap();
    }
    assert_eq!(say(&broker, &OWN, b't', id, 1).await, "unknown");
    assert_eq!(say(&broker, &OWN, b'+', id, 0).await, "\"made\"");
    assert_eq!(say(&broker, &OTHER, b'+', id, 0).await, "there is a subscription of that name");
    assert_eq!(say(&broker, &OWN, b't', id, 3).await, "[0..3]");
    assert_eq!(say(&broker, &OWN, b's', id, 1).await, "1");
    for what in [b't', b's', b'-'] {
        assert_eq!(say(&broker, &OTHER, what, id, 0).await, "the subscription is another front end's");
    }
    let own = number(&broker);
    let expected = Some((own, counts(1, 2), 3, vec![0, 2]));
    for checkpoint in [false, true] {
        assert_eq!(seen(&broker, id), expected);
        machine.agrees_with_replay(&broker);
        if checkpoint {
            broker.inner.shards[1].checkpoint().unwrap();
        }
        machine = machine.crash(broker);
        broker = machine.open();
    }
    assert_eq!(seen(&broker, id), expected);
    assert_eq!(say(&broker, &OTHER, b'-', id, 0).await, "the subscription is another front end's");
    let topic = broker.catalog().topic("t").unwrap().clone();
    let client = Caller::client("registers", crate::SessionId(1));
    assert_eq!(soon(broker.unsubscribe(&client, &topic, "s")).await, Err(SubscribeRefused::Owned.into()));
    let listed = broker.subscriptions(&Caller::OPERATOR, &topic).unwrap();
    assert_eq!(listed[0].owner.as_deref(), Some("registers"));
    assert_eq!(say(&broker, &OWN, b'-', id, 0).await, "()");
    assert_eq!(seen(&broker, id), None);
    machine.agrees_with_replay(&broker);
    broker.shutdown();
}

#[tokio::test]
async fn what_clients_made_is_used_by_an_entry_and_not_removed() {
    let machine = both();
    let broker = machine.open();
    let topic = create(&broker, "t", 1).await;
    let id = topic.partitions[0].id;
    append(&broker, &topic, 0, batch(&[b"x"], 1)).await.unwrap();
    soon(broker.subscribe(&OTHER, &topic, "s", &SubscriptionSpec::default())).await.unwrap();
    assert_eq!(say(&broker, &OWN, b't', id, 3).await, "[0..1]");
    assert_eq!(say(&broker, &OWN, b'-', id, 0).await, "the subscription is no front end's");
    assert_eq!(soon(broker.unsubscribe(&OTHER, &topic, "s")).await, Ok(true));
    // The operator removes any.
    assert_eq!(say(&broker, &OTHER, b'+', id, 0).await, "\"made\"");
    assert_eq!(soon(broker.unsubscribe(&Caller::OPERATOR, &topic, "s")).await, Ok(true));
    assert_eq!(seen(&broker, id), None);
    assert_eq!(say(&broker, &OWN, b'+', PartitionId(999), 0).await, "there is no such partition");
    machine.agrees_with_replay(&broker);
    broker.shutdown();
}

#[tokio::test]
async fn what_may_not_be_removed_in_one_partition_stays_in_all() {
    let machine = both();
    let broker = machine.open();
    let topic = create(&broker, "t", 1).await;
    let spec = SubscriptionSpec::default();
    soon(broker.subscribe(&OTHER, &topic, "s", &spec)).await.unwrap();
    // Whose entry makes a part in a partition does not see the others.
    let topic = broker.create_partitions(&Caller::OPERATOR, topic.id, 2).await.unwrap();
    let ids = [0, 1].map(|at: usize| topic.partitions[at].id);
    assert_eq!(say(&broker, &OWN, b'+', ids[1], 0).await, "\"made\"");
    let parts = soon(broker.subscribe(&OTHER, &topic, "s", &spec)).await.unwrap();
    let owners = || ids.map(|id| seen(&broker, id).map(|(owner, ..)| owner));
    let there = [Some(FrontendNo::NONE), Some(number(&broker))];
    assert_eq!((parts.len(), owners()), (2, there));
    assert!(soon(broker.unsubscribe(&OTHER, &topic, "s")).await.is_err(), "a part of it is a front end's");
    // An entry behind whatever that might have written.
    assert_eq!(say(&broker, &OWN, b'+', ids[1], 0).await, "there is a subscription of that name");
    assert_eq!(owners(), there);
    broker.shutdown();
}

#[tokio::test]
async fn others_consume_what_a_front_end_keeps_where_it_is_and_change_nothing_of_it() {
    let machine = both();
    let broker = machine.open();
    let topic = create(&broker, "t", 2).await;
    let ids = [0, 1].map(|at: usize| topic.partitions[at].id);
    for index in [0, 1] {
        append(&broker, &topic, index, batch(&[b"x", b"y"], 1)).await.unwrap();
    }
    assert_eq!(say(&broker, &OWN, b'+', ids[1], 0).await, "\"made\"");
    let parts = soon(broker.subscribe(&OTHER, &topic, "s", &SubscriptionSpec::default())).await.unwrap();
    let owners = ids.map(|id| seen(&broker, id).map(|(owner, ..)| owner));
    assert_eq!(
        (parts.len(), owners),
        (1, [None, Some(number(&broker))]),
        "no other partition has a part now"
    );
    let (queues, owner) = (broker.queues(), broker.queues().owner());
    let got = soon(queues.get(&OTHER, parts[0], owner, true)).await.unwrap().unwrap();
    assert_eq!((got.offset, got.left), (0, 1), "it is consumed");
    for caller in [&OTHER, &OWN] {
        assert_eq!(soon(queues.purge(caller, parts[0])).await, Err(QueueError::Owned.into()));
        let refused = broker.may_change_subscription(caller, &topic, "s");
        assert_eq!(refused, Err(SubscribeRefused::Owned.into()));
    }
    assert_eq!(queues.stats(parts[0]).unwrap().ready, 1, "nothing is purged");
    let clients =
        soon(broker.subscribe(&OTHER, &topic, "clients", &SubscriptionSpec::default())).await.unwrap();
    broker.may_change_subscription(&OTHER, &topic, "clients").unwrap();
    assert_eq!(soon(queues.purge(&OTHER, clients[0])).await, Ok(2));
    assert_eq!(soon(queues.purge(&Caller::OPERATOR, parts[0])).await, Ok(1), "the operator does");
    machine.agrees_with_replay(&broker);
    broker.shutdown();
}

#[tokio::test]
async fn one_entry_appends_makes_takes_and_settles() {
    let machine = both();
    let broker = machine.open();
    let topic = create(&broker, "t", 1).await;
    let id = topic.partitions[0].id;
    append(&broker, &topic, 0, batch(&[b"x", b"y"], 1)).await.unwrap();
    for round in 0..2u64 {
        let batches = vec![item(&topic, 0, batch(&[b"z"], 1))];
        let entry = ProjectionEntry { batches, ..ProjectionEntry::new(subscription(b'a', id, "s", round)) };
        let expected = format!("{:?}", Some((counts(2, 0), round + 1)));
        assert_eq!(told(&broker, &OWN, entry).await, expected, "the record that came along counts once");
    }
    broker.delete_records(&Caller::OPERATOR, ShardId(1), id, Offset(3)).await.unwrap();
    assert_eq!(seen(&broker, id), Some((number(&broker), counts(1, 0), 3, Vec::new())));
    broker.delete_topics(&Caller::OPERATOR, vec![topic.id]).await.remove(0).unwrap();
    assert_eq!(seen(&broker, id), None, "it goes with its partition");
    machine.agrees_with_replay(&broker);
    broker.shutdown();
}

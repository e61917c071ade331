//! Which consumer is sent which message, and when.

use std::iter::once;

use sabir_delivery::subscription::Settlement;
use sabir_model::DeadLetterAddress;

use super::*;

#[test]
fn what_nothing_was_claimed_of_is_sent_once_it_is_acquired_and_what_follows_at_once() {
    let mut rig = Rig::new(&[1]);
    let consumer = rig.attach(1, 7);
    rig.publish(1, 3);
    rig.apply();
    rig.tell();
    rig.propose();
    assert_eq!(consumer.sent(), [], "nothing says yet that they may have been sent");
    rig.commit();
    assert_eq!(consumer.sent(), [(0..3, false)]);
    rig.publish(1, 2);
    rig.apply();
    rig.tell();
    rig.propose();
    assert_eq!(consumer.sent(), [(3..5, false)], "they lie below the claim");
}

#[test]
fn what_is_acknowledged_is_gone_and_what_is_given_back_comes_again_as_seen() {
    let mut rig = Rig::new(&[1]);
    let consumer = rig.attach(1, 7);
    rig.publish(1, 4);
    rig.commit();
    assert_eq!(consumer.sent(), [(0..4, false)]);
    rig.change(1, Change::Settled(session(7), Settlement::Acknowledged), [0..1, 2..3]);
    rig.change(1, Change::Returned(session(7), true, 0), once(1..2));
    rig.commit();
    let Some(Push::Deliver(again)) = consumer.taken().pop() else { panic!("it comes again") };
    assert_eq!((again.offsets, again.redelivered, again.returned), (1..2, true, 1));
    rig.change(1, Change::Settled(session(7), Settlement::Acknowledged), [1..2, 3..4]);
    rig.commit();
    assert_eq!((rig.unsettled(1), consumer.sent()), (0, vec![]));
}

#[test]
fn what_is_given_back_keeps_its_place_before_whoever_comes_to_consume_in_the_same_turn() {
    let mut rig = Rig::new(&[1, 2]);
    rig.publish(1, 5);
    rig.publish(2, 1);
    rig.commit();
    for offset in 0..2 {
        let mut got = rig.get(1, 5, false);
        rig.commit();
        assert_eq!(answer(&mut got).unwrap().unwrap().map(|got| got.offset), Some(offset));
    }
    rig.change(1, Change::Returned(session(5), false, 0), [0..1, 1..2]);
    let (consumer, other) = (rig.attach(1, 7), rig.attach(2, 8));
    rig.propose();
    rig.apply();
    assert_eq!(other.taken().len(), 0, "it waits for being acquired, and for nothing else");
    rig.commit();
    assert_eq!((consumer.sent(), other.sent()), (vec![(0..2, true), (2..5, false)], vec![(0..1, false)]));
    rig.change(1, Change::Released(session(7), false), []);
    let again = rig.attach(1, 9);
    rig.leader.detach(consumer.member);
    rig.commit();
    assert_eq!(again.sent(), [(0..5, true)]);
}

#[test]
fn a_consumer_of_one_message_at_a_time_that_gives_it_back_gets_it_again() {
    let mut rig = Rig::new(&[1]);
    let demand = rig.demand(Credit::messages(1));
    let consumer = rig.try_attach(1, 7, |new| new.demand = demand).unwrap();
    rig.publish(1, 3);
    rig.commit();
    assert_eq!(consumer.sent(), [(0..1, false)]);
    rig.change(1, Change::Returned(session(7), true, 0), once(0..1));
    rig.leader.refill(demand, 1, 0);
    rig.commit();
    assert_eq!(consumer.taken().len(), 1);
    assert_eq!(rig.leader.count(target(1).subscription()), (1, 0));
    let state = rig.state.subscriptions.get(target(1).subscription()).unwrap();
    assert!((state.holding(0).is_some(), state.holding(1)) == (true, None));
}

#[test]
fn what_is_given_back_with_an_entry_that_is_lost_or_refused_holds_up_nothing_for_good() {
    let mut rig = Rig::new(&[1]);
    let one = rig.attach(1, 7);
    rig.publish(1, 2);
    rig.commit();
    assert_eq!(one.sent(), [(0..2, false)]);
    rig.leader.detach(one.member);
    rig.publish(1, 1);
    rig.change(1, Change::Returned(session(7), false, 0), once(1..2));
    rig.commit();
    let two = rig.attach(1, 8);
    rig.change(1, Change::Returned(session(7), false, 0), once(0..1));
    let moment = RoundTime { now_ms: rig.now_ms, is_idle: false, is_full: false };
    assert!(rig.leader.propose(&rig.state, &moment, &mut rig.wakes).entry);
    rig.leader.refused(ShardFailure::Timeout, &mut rig.wakes);
    rig.propose();
    assert_eq!(two.sent(), []);
    rig.builder.take(rig.now_ms);
    for number in std::mem::take(&mut rig.pushed) {
        rig.leader.lost(number, ShardFailure::StorageFull, &mut rig.wakes);
    }
    rig.commit();
    assert_eq!(two.sent(), [(0..2, true), (2..3, false)]);
}

#[test]
fn no_more_is_sent_than_the_credit_says() {
    let mut rig = Rig::new(&[1]);
    let demand = rig.demand(Credit::messages(2));
    let consumer = rig.try_attach(1, 7, |new| new.demand = demand).unwrap();
    rig.publish(1, 5);
    rig.commit();
    assert_eq!(consumer.sent(), [(0..2, false)]);
    rig.change(1, Change::Settled(session(7), Settlement::Acknowledged), once(0..2));
    rig.commit();
    assert_eq!(consumer.sent(), [], "only its session adds to it");
    rig.leader.refill(demand, 2, 0);
    rig.commit();
    assert_eq!(consumer.sent(), [(2..4, false)]);
    rig.leader.end_demand(demand);
    rig.leader.refill(demand, 2, 0);
    rig.commit();
    assert_eq!(consumer.sent(), []);
}

#[test]
fn consumers_are_served_in_turn_and_those_of_a_higher_priority_first() {
    let mut rig = Rig::new(&[1]);
    let (one, two) = (rig.attach(1, 1), rig.attach(1, 2));
    let demand = rig.demand(Credit::messages(2));
    let first = rig.try_attach(1, 3, |new| (new.demand, new.priority) = (demand, 5)).unwrap();
    rig.publish(1, 6);
    rig.commit();
    assert_eq!(first.sent(), [(0..2, false)]);
    assert_eq!(one.sent(), [(2..3, false), (4..5, false)]);
    assert_eq!(two.sent(), [(3..4, false), (5..6, false)]);
}

#[test]
fn what_a_consumer_that_goes_was_not_sent_yet_is_another_ones() {
    let mut rig = Rig::new(&[1]);
    let one = rig.attach(1, 1);
    rig.publish(1, 2);
    rig.apply();
    rig.tell();
    rig.propose();
    rig.leader.detach(one.member);
    let two = rig.attach(1, 2);
    rig.commit();
    assert_eq!(one.taken().len(), 0);
    assert!(two.sent().into_iter().map(|(offsets, _)| offsets).eq(once(0..2)));
}

#[test]
fn what_is_dealt_is_dealt_to_nobody_else_before_it_is_decided() {
    let mut rig = Rig::new(&[1]);
    let one = rig.attach(1, 1);
    rig.publish(1, 2);
    rig.apply();
    rig.tell();
    rig.propose();
    // Its queue is led on although no consumer is there.
    rig.leader.detach(one.member);
    let two = rig.attach(1, 2);
    rig.propose();
    rig.apply();
    assert_eq!(two.sent(), []);
    rig.commit();
    assert_eq!(two.sent(), [(0..2, true)]);
}

#[test]
fn a_consumer_that_settles_is_sent_what_is_gone_from_the_queue_with_it() {
    let mut rig = Rig::new(&[1]);
    let consumer = rig.try_attach(1, 7, |new| new.settles = true).unwrap();
    rig.publish(1, 3);
    rig.commit();
    assert_eq!((consumer.sent(), rig.unsettled(1)), (vec![(0..3, false)], 0));
    rig.publish(1, 3);
    rig.apply();
    rig.tell();
    rig.propose();
    assert_eq!(consumer.sent(), [(3..6, false)]);
    rig.commit();
    assert_eq!(rig.unsettled(1), 0);
}

#[test]
fn a_session_that_ended_unsaid_gives_back_what_it_has() {
    let mut rig = Rig::new(&[1]);
    let (one, two) = (rig.attach(1, 1), rig.attach(1, 2));
    rig.publish(1, 2);
    rig.commit();
    assert_eq!((one.sent(), two.sent()), (vec![(0..1, false)], vec![(1..2, false)]));
    one.outbox.end();
    rig.publish(1, 2);
    rig.commit();
    let mut sent: Vec<_> = two.sent().into_iter().map(|(offsets, _)| offsets).collect();
    sent.sort_by_key(|offsets| offsets.start);
    assert_eq!(sent, [0..1, 2..3, 3..4]);
    assert_eq!(rig.leader.count(target(1).subscription()).0, 1);
}

#[test]
fn an_exclusive_consumer_is_alone() {
    let mut rig = Rig::new(&[1, 2]);
    let first = rig.try_attach(1, 1, |new| new.exclusive = true).unwrap();
    assert_eq!(rig.try_attach(1, 2, |_| {}).err(), Some(QueueError::Exclusive));
    rig.leader.detach(first.member);
    let second = rig.attach(1, 2);
    assert_eq!(rig.try_attach(1, 3, |new| new.exclusive = true).err(), Some(QueueError::InUse));
    rig.leader.detach(second.member);
    assert!(rig.try_attach(1, 3, |new| new.exclusive = true).is_ok());
}

#[test]
fn of_single_active_consumers_the_next_takes_over_when_the_first_goes() {
    let mut rig = Rig::new(&[1]);
    let config = QueueConfig { single_active: true, ..QueueConfig::default() };
    let single = |new: &mut NewMember| new.policy = QueuePolicy::of(&config);
    let one = rig.try_attach(1, 1, single).unwrap();
    let two = rig.try_attach(1, 2, single).unwrap();
    rig.publish(1, 3);
    rig.commit();
    assert_eq!((one.sent(), two.sent()), (vec![(0..3, false)], vec![]));
    rig.leader.detach(one.member);
    rig.change(1, Change::Released(session(1), true), []);
    rig.publish(1, 1);
    rig.commit();
    let sent: Vec<_> = two.sent().into_iter().flat_map(|(offsets, _)| offsets).collect();
    assert_eq!((sent.len(), sent.contains(&0), sent.contains(&3)), (4, true, true));
}

#[test]
fn who_consumes_a_deleted_queue_or_one_that_is_led_elsewhere_is_told() {
    let mut rig = Rig::new(&[1, 2]);
    let (one, two) = (rig.attach(1, 1), rig.attach(2, 2));
    rig.push(&PartitionsDeleted { partitions: vec![PartitionId(1)] });
    rig.commit();
    assert_eq!(one.cancelled(), [(1, CancelReason::Deleted)]);
    assert_eq!(two.taken().len(), 0);
    let mut get = rig.get(1, 9, false);
    rig.commit();
    assert_eq!(answer(&mut get), Some(Err(QueueError::Unknown)));
    rig.leader.end_all(ShardFailure::NotLeader.into(), &mut rig.wakes);
    assert_eq!(two.cancelled(), [(2, CancelReason::Unavailable)]);
    assert!(!rig.leader.has_work() && rig.leader.members.is_empty() && rig.leader.rows.is_empty());
}

#[test]
fn a_message_is_got_if_there_is_one_whatever_was_published_before() {
    let mut rig = Rig::new(&[1]);
    let mut none = rig.get(1, 5, false);
    rig.propose();
    assert_eq!(answer(&mut none), Some(Ok(None)), "nothing is on its way");
    rig.publish(1, 2);
    let mut first = rig.get(1, 5, false);
    rig.propose();
    assert_eq!(answer(&mut first), None, "what was published stands in the block in hand");
    rig.commit();
    let got = GotMessage { offset: 0, redelivered: false, returned: 0, left: 1 };
    assert_eq!(answer(&mut first), Some(Ok(Some(got))));
    rig.change(1, Change::Returned(session(5), true, 0), once(0..1));
    let mut again = rig.get(1, 5, true);
    rig.commit();
    let got = GotMessage { offset: 0, redelivered: true, returned: 1, left: 1 };
    assert_eq!(answer(&mut again), Some(Ok(Some(got))), "given back before, it is the first again");
    assert_eq!(rig.unsettled(1), 1);
    assert!(rig.leader.queues.is_empty() && rig.leader.members.is_empty());
}

#[test]
fn what_is_got_for_a_session_that_has_ended_meanwhile_stays_with_nobody() {
    // When the session ends: the answer waits for an entry; the message is dealt, and told of once that is applied.
    for is_dealt in [false, true] {
        let mut rig = Rig::new(&[1]);
        rig.publish(1, 2);
        let got = rig.get(1, 5, false);
        rig.propose();
        if is_dealt {
            rig.apply();
            rig.tell();
            rig.propose();
        }
        drop(got);
        rig.change(1, Change::Released(session(5), true), []);
        rig.commit();
        for offset in 0..2 {
            let mut got = rig.get(1, 6, false);
            rig.commit();
            assert_eq!(answer(&mut got).unwrap().unwrap().map(|got| got.offset), Some(offset), "{is_dealt}");
        }
        rig.change(1, Change::Released(session(6), true), []);
        rig.commit();
        assert!(rig.leader.queues.is_empty() && rig.leader.members.is_empty());
    }
}

#[test]
fn a_purge_drops_what_is_ready_and_nothing_that_is_out() {
    let mut rig = Rig::new(&[1]);
    let demand = rig.demand(Credit::messages(2));
    let consumer = rig.try_attach(1, 7, |new| new.demand = demand).unwrap();
    rig.publish(1, 5);
    rig.commit();
    assert_eq!(consumer.sent(), [(0..2, false)]);
    rig.publish(1, 3);
    let mut purged = rig.purge(1);
    rig.commit();
    assert_eq!(answer(&mut purged), Some(Ok(6)), "those published before, too");
    rig.leader.refill(demand, 10, 0);
    rig.commit();
    assert_eq!(consumer.sent(), []);
    rig.change(1, Change::Returned(session(7), false, 0), once(0..2));
    rig.commit();
    assert_eq!(consumer.sent(), [(0..2, true)]);
}

#[test]
fn a_purge_drops_what_waits_to_be_dead_lettered_where_the_disk_is_full_alone() {
    let dead_letter = Some(DeadLetterAddress { exchange: "dead".into(), routing_key: None });
    let mut rig = Rig::with(&[1], QueueConfig { dead_letter, max_length: Some(2), ..QueueConfig::default() });
    rig.publish(1, 5);
    rig.commit();
    for (is_full, dropped, left) in [(false, 2, 5), (true, 3, 0), (true, 0, 0)] {
        rig.is_full = is_full;
        let mut purged = rig.purge(1);
        rig.commit();
        assert_eq!((answer(&mut purged), rig.unsettled(1)), (Some(Ok(dropped)), left), "full: {is_full}");
    }
}

#[test]
fn an_entry_that_is_not_taken_changes_nothing() {
    let mut rig = Rig::new(&[1]);
    let demand = rig.demand(Credit::messages(2));
    let consumer = rig.try_attach(1, 7, |new| new.demand = demand).unwrap();
    rig.publish(1, 3);
    rig.apply();
    rig.tell();
    for _ in 0..3 {
        let moment = RoundTime { now_ms: rig.now_ms, is_idle: false, is_full: false };
        assert!(rig.leader.propose(&rig.state, &moment, &mut rig.wakes).entry);
        rig.leader.refused(ShardFailure::StorageFull, &mut rig.wakes);
    }
    rig.commit();
    assert_eq!(consumer.sent(), [(0..2, false)]);
    rig.change(1, Change::Settled(session(7), Settlement::Acknowledged), once(0..2));
    let moment = RoundTime { now_ms: rig.now_ms, is_idle: false, is_full: false };
    assert!(rig.leader.propose(&rig.state, &moment, &mut rig.wakes).entry);
    rig.leader.refused(ShardFailure::Timeout, &mut rig.wakes);
    rig.commit();
    assert_eq!(rig.unsettled(1), 1, "what the session said is said once there is room");
}

#[test]
fn what_was_sent_with_an_entry_that_is_lost_comes_again_as_seen_and_what_a_session_said_is_said_again() {
    let mut rig = Rig::new(&[1]);
    let consumer = rig.attach(1, 7);
    rig.publish(1, 1);
    rig.commit();
    assert_eq!(consumer.sent(), [(0..1, false)]);
    rig.publish(1, 2);
    rig.apply();
    rig.tell();
    rig.change(1, Change::Settled(session(7), Settlement::Acknowledged), once(0..1));
    rig.propose();
    assert_eq!(consumer.sent(), [(1..3, false)]);
    // There was no room for the block.
    rig.builder.take(rig.now_ms);
    for number in std::mem::take(&mut rig.pushed) {
        rig.leader.lost(number, ShardFailure::StorageFull, &mut rig.wakes);
    }
    rig.commit();
    assert_eq!((consumer.sent(), rig.unsettled(1)), (vec![(1..3, true)], 2));
}

#[test]
fn what_was_sent_before_a_start_is_flagged_after_it_and_nothing_else_is() {
    let mut rig = Rig::new(&[1]);
    let demand = rig.demand(Credit::messages(3));
    let consumer = rig.try_attach(1, 7, |new| new.demand = demand).unwrap();
    rig.publish(1, 100);
    rig.commit();
    assert_eq!(consumer.sent(), [(0..3, false)]);
    rig.push(&Started { node: sabir_model::NodeId(1), clean: true });
    rig.apply();
    rig.leader.end_all(ShardFailure::NotLeader.into(), &mut rig.wakes);
    rig.tell();
    let consumer = rig.attach(1, 8);
    rig.commit();
    let sent =
        consumer.sent().into_iter().flat_map(|(offsets, seen)| offsets.map(move |offset| (offset, seen)));
    assert!(sent.eq((0..100).map(|offset| (offset, offset < 3))));
}

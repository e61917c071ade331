//! What becomes of messages whose time is over.

use std::iter::once;

use sabir_delivery::subscription::{MessageState, Settlement};

use super::*;

fn expiring(ttl_ms: u64) -> Rig {
    Rig::with(&[1, 2], QueueConfig { message_ttl_ms: Some(ttl_ms), ..QueueConfig::default() })
}

impl Rig {
    fn states(&self, queue: u64) -> Vec<MessageState> {
        let subscription = self.state.subscriptions.get(target(queue).subscription()).unwrap();
        (0..subscription.end()).map(|offset| subscription.state(offset)).collect()
    }
}

use MessageState::{InFlight, Ready, Settled};

#[test]
fn what_nobody_consumes_expires_when_its_time_has_come() {
    let mut rig = expiring(100);
    rig.publish(1, 3);
    rig.commit();
    let first = rig.now_ms;
    rig.pass(50);
    rig.publish(1, 1);
    rig.commit();
    assert_eq!(rig.leader.expiring.next_ms(), Some(first + 100));
    rig.now_ms = first + 99;
    rig.pass(0);
    assert_eq!(rig.unsettled(1), 4);
    rig.pass(1);
    assert_eq!(rig.states(1), [Settled, Settled, Settled, Ready]);
    rig.pass(1000);
    assert_eq!((rig.unsettled(1), rig.leader.expiring.len()), (0, 0));
    assert!(rig.leader.queues.is_empty(), "nothing is led for it");
    assert_eq!(rig.states(2), []);
}

#[test]
fn what_may_not_wait_at_all_goes_to_who_takes_it_at_once_or_expires() {
    let mut rig = expiring(0);
    rig.publish(1, 1);
    rig.commit();
    assert_eq!(rig.unsettled(1), 0, "nobody was there");
    let demand = rig.demand(Credit::messages(2));
    let consumer = rig.try_attach(1, 7, |new| new.demand = demand).unwrap();
    rig.publish(1, 3);
    rig.commit();
    assert_eq!(consumer.sent(), [(1..3, false)]);
    assert_eq!(rig.states(1), [Settled, InFlight, InFlight, Settled]);
    let mut none = rig.get(1, 5, false);
    rig.publish(1, 1);
    rig.commit();
    assert_eq!(answer(&mut none), Some(Ok(None)));
}

#[test]
fn what_is_out_does_not_expire_before_it_is_given_back() {
    let mut rig = expiring(100);
    let demand = rig.demand(Credit::messages(1));
    let consumer = rig.try_attach(1, 7, |new| new.demand = demand).unwrap();
    rig.publish(1, 2);
    rig.commit();
    assert_eq!(consumer.sent(), [(0..1, false)]);
    rig.pass(200);
    assert_eq!(rig.states(1), [InFlight, Settled]);
    rig.change(1, Change::Returned(session(7), true, 0), once(0..1));
    rig.leader.refill(demand, 1, 0);
    rig.commit();
    assert_eq!((consumer.sent(), rig.unsettled(1)), (vec![], 0));
}

#[test]
fn what_stands_behind_one_that_does_not_expire_waits_for_it() {
    let mut rig = Rig::new(&[1]);
    let at = rig.now_ms + 20;
    rig.publish_expiring(1, &[None, Some(at), None, Some(at)]);
    rig.commit();
    rig.pass(50);
    assert_eq!(rig.states(1), [Ready; 4]);
    let mut first = rig.get(1, 5, false);
    rig.commit();
    assert_eq!(answer(&mut first).unwrap().unwrap().unwrap().offset, 0);
    assert_eq!(rig.states(1), [InFlight, Settled, Ready, Ready], "it is the first now");
    let mut second = rig.get(1, 5, true);
    rig.commit();
    let got = answer(&mut second).unwrap().unwrap().unwrap();
    assert_eq!((got.offset, got.redelivered), (2, false));
    assert_eq!(rig.states(1), [InFlight, Settled, Settled, Settled]);
    rig.change(1, Change::Settled(session(5), Settlement::Acknowledged), once(0..1));
    rig.commit();
    assert_eq!((rig.unsettled(1), rig.leader.expiring.len()), (0, 0));
}

#[test]
fn what_has_expired_is_delivered_to_nobody_before_it_is_settled() {
    let mut rig = Rig::new(&[1]);
    let at = rig.now_ms + 20;
    rig.publish_expiring(1, &[Some(at), Some(at), None]);
    rig.commit();
    rig.now_ms += 50;
    let consumer = rig.attach(1, 7);
    rig.commit();
    assert_eq!(consumer.sent(), [(2..3, false)]);
    assert_eq!(rig.states(1), [Settled, Settled, InFlight]);
}

#[test]
fn what_has_expired_is_proposed_again_where_its_entry_came_to_nothing() {
    let mut rig = expiring(10);
    rig.publish(1, 2);
    rig.commit();
    rig.now_ms += 20;
    rig.leader.expiring.due(rig.now_ms);
    let moment = RoundTime { now_ms: rig.now_ms, is_idle: true, is_full: false };
    assert!(rig.leader.propose(&rig.state, &moment, &mut rig.wakes).entry);
    rig.leader.refused(ShardFailure::Timeout, &mut rig.wakes);
    assert!(rig.leader.has_work());
    rig.propose();
    assert!(!rig.leader.has_work(), "it is on its way");
    rig.builder.take(rig.now_ms);
    for number in std::mem::take(&mut rig.pushed) {
        rig.leader.lost(number, ShardFailure::StorageFull, &mut rig.wakes);
    }
    rig.commit();
    assert_eq!(rig.unsettled(1), 0);
}

#[test]
fn a_new_leader_finds_what_expires() {
    let mut rig = expiring(10);
    rig.publish(1, 2);
    rig.commit();
    rig.leader.end_all(ShardFailure::NotLeader.into(), &mut rig.wakes);
    rig.leader.is_new = true;
    rig.commit();
    assert_eq!(rig.unsettled(1), 2);
    rig.pass(20);
    assert_eq!((rig.unsettled(1), rig.states(2)), (0, vec![]));
}

#[test]
fn what_has_expired_and_is_dealt_meanwhile_is_its_consumers() {
    let mut rig = expiring(10);
    let consumer = rig.attach(1, 7);
    rig.publish(1, 2);
    rig.apply();
    rig.tell();
    rig.propose();
    rig.now_ms += 50;
    rig.leader.expiring.due(rig.now_ms);
    rig.commit();
    assert_eq!(consumer.sent(), [(0..2, false)]);
    assert_eq!(rig.states(1), [InFlight, InFlight]);
}

//! Queues that are consumed at a rate.

use std::iter::once;

use sabir_delivery::subscription::Settlement;
use sabir_model::RateLimit;

use super::*;

impl Rig {
    fn set_rate(&mut self, queue: u64, limit: Option<(u32, u32)>) {
        let limit = limit.map(|(per_second, burst)| RateLimit { per_second, burst });
        self.leader.rates.set(target(queue).subscription(), limit);
        self.pass(0);
    }
}

/// How many messages it was sent.
fn count(consumer: &Consumer) -> u64 {
    consumer.sent().into_iter().map(|(offsets, _)| offsets.end - offsets.start).sum()
}

#[test]
fn consumers_share_a_queues_rate_and_other_queues_have_none() {
    let mut rig = Rig::new(&[1, 2]);
    rig.set_rate(1, Some((50, 10)));
    rig.publish(1, 100);
    rig.publish(2, 100);
    rig.commit();
    let (one, two, other) = (rig.attach(1, 7), rig.attach(1, 8), rig.attach(2, 9));
    let began_ms = rig.now_ms;
    rig.commit();
    assert_eq!((count(&one), count(&two), count(&other)), (5, 5, 100), "the burst");
    assert_eq!(rig.leader.next_ms(), Some(began_ms + 20));
    let (mut of_one, mut of_two) = (5, 5);
    while rig.now_ms < began_ms + 1_000 {
        rig.pass(1);
        (of_one, of_two) = (of_one + count(&one), of_two + count(&two));
    }
    rig.pass(0);
    let all = of_one + of_two + count(&one) + count(&two);
    assert_eq!(all, 10 + (rig.now_ms - began_ms) as u64 / 20);
    assert!((29..=31).contains(&of_one), "{of_one}");
}

#[test]
fn what_comes_again_and_what_is_got_counts_and_what_is_acknowledged_does_not() {
    let mut rig = Rig::new(&[1]);
    rig.set_rate(1, Some((10, 2)));
    let consumer = rig.attach(1, 7);
    rig.publish(1, 3);
    rig.commit();
    assert_eq!(consumer.sent(), [(0..2, false)]);
    rig.change(1, Change::Returned(session(7), true, 0), [0..1, 1..2]);
    let mut got = rig.get(1, 5, false);
    rig.commit();
    assert_eq!((consumer.sent(), answer(&mut got)), (vec![], Some(Ok(None))));
    rig.pass(100);
    assert_eq!(consumer.taken().len(), 1);
    rig.change(1, Change::Settled(session(7), Settlement::Acknowledged), once(0..1));
    rig.leader.detach(consumer.member);
    rig.pass(100);
    let (mut second, mut third) = (rig.get(1, 5, true), rig.get(1, 5, true));
    rig.commit();
    let got = answer(&mut second).unwrap().unwrap().unwrap();
    assert_eq!((got.offset, got.redelivered, answer(&mut third)), (1, true, Some(Ok(None))));
    assert_eq!(rig.unsettled(1), 1);
}

#[test]
fn another_rate_holds_at_once_and_none_lets_all_through() {
    let mut rig = Rig::new(&[1]);
    rig.set_rate(1, Some((1, 1)));
    let consumer = rig.attach(1, 7);
    rig.publish(1, 20);
    rig.commit();
    assert_eq!(consumer.sent(), [(0..1, false)]);
    rig.set_rate(1, Some((10, 4)));
    assert_eq!(count(&consumer), 0);
    rig.pass(300);
    assert_eq!(count(&consumer), 3);
    rig.set_rate(1, None);
    assert_eq!(count(&consumer), 16);
    rig.set_rate(1, Some((10, 2)));
    rig.publish(1, 5);
    rig.commit();
    assert_eq!(count(&consumer), 2);
}

#[test]
fn what_the_rate_keeps_back_expires() {
    let mut rig = Rig::with(&[1], QueueConfig { message_ttl_ms: Some(50), ..QueueConfig::default() });
    rig.set_rate(1, Some((1, 1)));
    let consumer = rig.attach(1, 7);
    rig.publish(1, 3);
    rig.commit();
    assert_eq!(consumer.sent(), [(0..1, false)]);
    rig.change(1, Change::Settled(session(7), Settlement::Acknowledged), once(0..1));
    rig.pass(60);
    assert_eq!((rig.unsettled(1), consumer.sent()), (0, vec![]));
}

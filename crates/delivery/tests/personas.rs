//! What the protocols' own queues do, one script each over the same engine; the engine knows none of them.

mod rig;

use rig::{NUMBER, Rig, range};
use sabir_delivery::dispatch::*;
use sabir_delivery::subscription::*;

fn acknowledged<'a>(ranges: &'a RangesBuffer, held_by: HeldBy) -> Operation<'a> {
    Operation::Settled { ranges: ranges.ranges(), held_by, why: Settlement::Acknowledged }
}

fn offsets(sent: &[Dispatched]) -> Vec<u64> {
    sent.iter().map(|d| d.offset).collect()
}

#[test]
fn classic_queue_prefetch_requeue_and_round_robin() {
    let mut rig = Rig::shared();
    rig.publish(10);
    let first = rig.consumer(1, Credit::messages(2));
    rig.consumer(2, Credit::messages(2));
    assert_eq!(rig.pumped(), [(1, 0), (2, 1), (1, 2), (2, 3)], "in turn, up to the prefetch");
    // An acknowledgement makes room for one more.
    assert!(rig.settle(1, 2));
    rig.demands.refill(first.demand, 1, 0);
    assert_eq!(rig.pumped(), [(1, 4)]);
    // A requeued message comes back before all that were published after it, flagged.
    rig.give_back(1, false, 0);
    rig.demands.refill(first.demand, 2, 0);
    let sent = rig.pump();
    assert_eq!(offsets(&sent), [1, 5]);
    assert!(sent[0].redelivered && !sent[1].redelivered);
    // A message is settled by its own session alone, and once.
    assert!(!rig.settle(2, 0) && rig.settle(1, 0) && !rig.settle(1, 0));
    // A cancelled consumer's deliveries stay with its session; those of a closed one go back to their places.
    rig.detach(MemberNo(1));
    assert_eq!(rig.subscription.state(4), MessageState::InFlight);
    rig.end_session(1, true);
    rig.consumer(3, Credit::messages(Credit::UNLIMITED));
    assert_eq!(offsets(&rig.pump()), [1, 4, 5, 6, 7, 8, 9]);
}

#[test]
fn classic_queue_purge_spares_what_is_in_flight() {
    let mut rig = Rig::shared();
    rig.publish(10);
    rig.consumer(1, Credit::messages(2));
    rig.pump();
    rig.apply(&Operation::Reset { to: 10, everything: false });
    rig.end_session(1, true);
    rig.detach(MemberNo(1));
    rig.publish(1);
    rig.consumer(2, Credit::messages(10));
    assert_eq!(offsets(&rig.pump()), [0, 1, 10]);
}

#[test]
fn quorum_queue_counts_returns_but_not_a_brokers_stop() {
    let mut rig = Rig::shared();
    rig.publish(1);
    let counts = |acquired, returned| Some(Attempts { acquired, returned });
    let mut session = 1;
    let mut deliver = |rig: &mut Rig| {
        session += 1;
        rig.consumer(session, Credit::messages(1));
        let sent = rig.pump();
        rig.detach(MemberNo(session));
        (session, sent[0].attempts)
    };
    assert_eq!(deliver(&mut rig).1, None);
    rig.give_back(0, true, 0);
    assert_eq!(deliver(&mut rig).1, counts(1, 1), "rejected: it counts");
    rig.give_back(0, false, 0);
    let (session, attempts) = deliver(&mut rig);
    assert_eq!(attempts, counts(2, 1), "returned on purpose: it does not");
    rig.end_session(session, true);
    assert_eq!(deliver(&mut rig).1, counts(3, 2), "its connection was lost: it counts");
    rig.restart(true);
    assert_eq!(
        deliver(&mut rig).1,
        counts(4, 2),
        "the broker stopped: it does not, and nothing is forgotten"
    );
}

#[test]
fn single_active_consumer_hands_over() {
    let mut rig = Rig::new(Access::SingleActive, GroupOrder::Free);
    rig.publish(6);
    rig.consumer(1, Credit::messages(2));
    rig.consumer(2, Credit::messages(Credit::UNLIMITED));
    assert_eq!(rig.pumped(), [(1, 0), (1, 1)]);
    // One of a higher priority waits for what the old one has.
    rig.consumer_with(3, Credit::messages(2), |member| member.priority = 5);
    rig.demands.refill(DemandNo(0), 10, 0);
    assert_eq!(rig.pumped(), [], "the old one gets nothing more");
    rig.settle(1, 0);
    assert_eq!(rig.pumped(), []);
    rig.settle(1, 1);
    assert_eq!(rig.pumped(), [(3, 2), (3, 3)]);
    // One that is cancelled hands over at once, to the one that came first.
    rig.detach(MemberNo(3));
    assert_eq!(rig.pumped(), [(1, 4), (1, 5)]);
    assert_eq!(rig.activated, [MemberNo(1), MemberNo(3), MemberNo(1)]);
}

#[test]
fn exclusive_consumers_keep_others_out() {
    let mut rig = Rig::shared();
    let member = rig.consumer(1, Credit::NONE);
    let other = DemandMember { number: MemberNo(2), ..member };
    assert_eq!(rig.dispatcher.attach(other, true), Err(AttachRefused::InUse));
    rig.detach(member.number);
    assert_eq!(rig.dispatcher.attach(other, true), Ok(()));
    assert_eq!(rig.dispatcher.attach(member, false), Err(AttachRefused::Exclusive));
}

#[test]
fn consumers_of_higher_priority_are_served_first_while_they_have_credit() {
    let mut rig = Rig::shared();
    rig.publish(5);
    rig.consumer(1, Credit::messages(10));
    rig.consumer_with(2, Credit::messages(2), |member| member.priority = 10);
    assert_eq!(rig.pumped(), [(2, 0), (2, 1), (1, 2), (1, 3), (1, 4)]);
}

#[test]
fn pop_handles_have_a_visibility_timeout_that_can_be_changed() {
    let mut rig = Rig::shared();
    rig.publish(3);
    (rig.timeout_ms, rig.token) = (1_000, 1);
    let consumer = rig.consumer_with(1, Credit::messages(2), |member| {
        member.owner = MessageOwner::Lease;
        member.waits = true;
    });
    let sent = rig.pump();
    assert_eq!(offsets(&sent), [0, 1]);
    assert!(sent.iter().all(|d| d.waits), "a handle is good for something only once it is acquired");
    let handle = HeldBy::Token(rig.subscription.holding(0).unwrap().token);
    // The handle's invisible time is changed, for one of them.
    let one = range(0, 1);
    rig.now_ms += 500;
    rig.apply(&Operation::Extended { ranges: one.ranges(), held_by: handle, timeout_ms: 5_000, phase: 0 });
    rig.now_ms += 500;
    rig.demands.refill(consumer.demand, 10, 0);
    let sent = rig.pump();
    assert_eq!(offsets(&sent), [1, 2], "the other one is overdue, at the millisecond");
    assert_eq!(sent[0].attempts, Some(Attempts { acquired: 1, returned: 1 }));
    // The old handle is worth nothing for what was delivered again.
    let both = range(0, 2);
    assert_eq!(rig.apply(&acknowledged(&both, handle)), 1);
    assert_eq!(rig.subscription.floor(), 1);
}

#[test]
fn a_deadline_that_is_extended_in_time_returns_nothing() {
    let mut rig = Rig::shared();
    rig.publish(1);
    rig.timeout_ms = 1_000;
    rig.consumer(1, Credit::messages(1));
    rig.pump();
    let (one, held_by) = (range(0, 1), HeldBy::Owner(MessageOwner::Session(1)));
    rig.now_ms += 1_000;
    // The extension stands in the journal before the return that the deadline proposes.
    rig.propose(&Operation::Extended { ranges: one.ranges(), held_by, timeout_ms: 500, phase: 0 });
    rig.fire();
    assert_eq!(rig.subscription.state(0), MessageState::InFlight);
    rig.now_ms += 500;
    rig.fire();
    assert_eq!(rig.subscription.state(0), MessageState::Ready);
}

#[test]
fn ordered_pop_blocks_its_group_through_retries() {
    let mut rig = Rig::new(Access::Shared, GroupOrder::Serial);
    rig.world.groups = 2;
    rig.publish(6);
    rig.consumer(1, Credit::messages(10));
    assert_eq!(rig.pumped(), [(1, 0), (1, 1)], "one of each group");
    rig.settle(1, 1);
    assert_eq!(rig.pumped(), [(1, 3)]);
    // A retry with a delay keeps the group's others back, even over a crash.
    rig.give_back(0, true, rig.now_ms + 1_000);
    assert_eq!(rig.pumped(), []);
    rig.restart(false);
    rig.consumer(2, Credit::messages(10));
    assert_eq!(rig.pumped(), [(2, 3)]);
    rig.now_ms += 1_000;
    assert_eq!(rig.pumped(), [(2, 0)]);
    rig.settle(2, 0);
    assert_eq!(rig.pumped(), [(2, 2)]);
}

#[test]
fn a_group_begins_anew_with_what_waits_before_a_returned_message() {
    let mut rig = Rig::new(Access::Shared, GroupOrder::Serial);
    rig.world.groups = 1;
    rig.publish(2);
    rig.apply(&Operation::Reset { to: 1, everything: false });
    rig.consumer(1, Credit::messages(10));
    assert_eq!(rig.pumped(), [(1, 1)]);
    rig.apply(&Operation::Reset { to: 0, everything: false });
    assert_eq!(rig.pumped(), [], "the group's later message is still out");
    rig.give_back(1, true, 0);
    assert_eq!(rig.pumped(), [(1, 0)]);
    rig.settle(1, 0);
    assert_eq!(rig.pumped(), [(1, 1)]);
}

#[test]
fn sticky_groups_stay_with_a_consumer_until_it_goes() {
    let mut rig = Rig::new(Access::Shared, GroupOrder::Sticky);
    rig.world.groups = 2;
    rig.publish(4);
    rig.consumer(1, Credit::messages(1));
    let second = rig.consumer(2, Credit::messages(10));
    assert_eq!(rig.pumped(), [(1, 0), (2, 1), (2, 3)], "group 0 waits for its consumer");
    rig.publish(2);
    assert_eq!(rig.pumped(), [(2, 5)]);
    rig.detach(MemberNo(1));
    rig.end_session(1, true);
    assert_eq!(rig.pumped(), [(2, 0), (2, 2), (2, 4)]);
    assert_eq!(second.number, MemberNo(2));
}

#[test]
fn jms_selectors_leave_what_does_not_match_to_others() {
    let mut rig = Rig::shared();
    rig.publish(7);
    rig.consumer_with(1, Credit::messages(10), |member| member.filter = Some(FilterNo(3)));
    assert_eq!(rig.pumped(), [(1, 0), (1, 3), (1, 6)]);
    rig.consumer_with(2, Credit::messages(10), |member| member.filter = Some(FilterNo(2)));
    assert_eq!(rig.pumped(), [(2, 2), (2, 4)]);
    // A recovered message goes to one that it matches.
    rig.give_back(4, true, 0);
    assert_eq!(rig.pumped(), [(2, 4)]);
    rig.give_back(3, true, 0);
    assert_eq!(rig.pumped(), [(1, 3)]);
    rig.consumer(3, Credit::messages(10));
    assert_eq!(rig.pumped(), [(3, 1), (3, 5)]);
}

#[test]
fn jms_local_transactions_take_effect_together() {
    let mut rig = Rig::shared();
    rig.publish(3);
    rig.consumer(1, Credit::messages(2));
    rig.pump();
    let (taken, session) = (range(0, 2), HeldBy::Owner(MessageOwner::Session(1)));
    let prepared = Operation::Prepared { ranges: taken.ranges(), held_by: session, transaction: 9 };
    rig.apply(&prepared);
    rig.apply(&Operation::Published { count: 1, transaction: Some(9) });
    rig.end_session(1, true);
    rig.restart(false);
    rig.consumer(2, Credit::messages(10));
    assert_eq!(rig.pumped(), [(2, 2)], "a prepared transaction outlives session and node");
    rig.apply(&Operation::Decided { transaction: 9, commit: true });
    assert_eq!(rig.pumped(), [(2, 3)]);
    rig.settle(2, 2);
    assert_eq!(rig.subscription.floor(), 3);
}

#[test]
fn mqtt_exactly_once_delivery_goes_through_two_phases() {
    const RECEIVED: u8 = 1;
    let mut rig = Rig::shared();
    rig.publish(2);
    let client = MessageOwner::Named(4);
    let consumer = rig.consumer_with(1, Credit::messages(2), |member| {
        member.owner = client;
        member.waits = true;
    });
    assert_eq!(offsets(&rig.pump()), [0, 1]);
    // PUBREC for the first; then the node dies. The session outlives it, with the phases of both.
    let one = range(0, 1);
    let held_by = HeldBy::Owner(client);
    rig.apply(&Operation::Extended { ranges: one.ranges(), held_by, timeout_ms: 0, phase: RECEIVED });
    rig.restart(false);
    let phases: Vec<_> = rig.subscription.holdings().map(|(of, holding)| (of, holding.phase)).collect();
    assert_eq!(phases, [(0..1, RECEIVED), (1..2, 0)], "the first is released, the second published anew");
    // PUBCOMP.
    assert_eq!(rig.apply(&acknowledged(&one, held_by)), 1);
    assert_eq!(rig.apply(&acknowledged(&one, held_by)), 0);
    assert_eq!(rig.subscription.floor(), 1);
    assert_eq!(consumer.owner, client);
}

#[test]
fn redis_pending_list_is_claimed_by_idle_time_and_kept_over_starts() {
    let mut rig = Rig::shared();
    rig.publish(4);
    for (number, name) in [(1, "alice"), (2, "bob")] {
        rig.apply(&Operation::ConsumerNamed { number, name });
    }
    // XREADGROUP: the reading happens where the entry is applied.
    let named = |number| Terms { owner: MessageOwner::Named(number), timeout_ms: 0, token: 0 };
    assert_eq!(rig.apply(&Operation::Taken { count: 3, terms: named(1) }), 3);
    rig.restart(false);
    assert_eq!(rig.subscription.holding(2).unwrap().owner, MessageOwner::Named(1));
    rig.now_ms += 100;
    // XCLAIM with a minimal idle time; RETRYCOUNT and JUSTID differ in what they do to the count.
    let claim = |ranges, min_idle_ms, attempts, force| Operation::Transferred {
        ranges,
        terms: named(2),
        min_idle_ms,
        since_ms: None,
        attempts,
        force,
    };
    let all = range(0, 4);
    assert_eq!(rig.apply(&claim(all.ranges(), 101, AttemptsChange::Add, false)), 0);
    let first = range(0, 1);
    assert_eq!(rig.apply(&claim(first.ranges(), 100, AttemptsChange::Add, false)), 1);
    assert_eq!(rig.subscription.attempts(0), Some(Attempts { acquired: 2, returned: 0 }));
    let second = range(1, 2);
    assert_eq!(rig.apply(&claim(second.ranges(), 0, AttemptsChange::Keep, false)), 1);
    assert_eq!(rig.subscription.attempts(1), None);
    // FORCE makes pending what no consumer has.
    let last = range(3, 4);
    assert_eq!(rig.apply(&claim(last.ranges(), 0, AttemptsChange::Set(7), true)), 1);
    assert_eq!(rig.subscription.attempts(3), Some(Attempts { acquired: 7, returned: 0 }));
    // XACK asks for no consumer and tells how many were pending; XGROUP DELCONSUMER settles what its consumer had.
    assert_eq!(rig.apply(&acknowledged(&second, HeldBy::Any)), 1);
    assert_eq!(rig.apply(&acknowledged(&second, HeldBy::Any)), 0);
    rig.apply(&Operation::ConsumerForgotten { number: 1 });
    let pending = |offset| rig.subscription.holding(offset).map(|holding| holding.owner);
    let bob = Some(MessageOwner::Named(2));
    assert_eq!([0, 1, 2, 3].map(pending), [bob, None, None, bob]);
    assert_eq!(rig.subscription.consumers().collect::<Vec<_>>(), [(2, "bob")]);
    // XGROUP SETID back to the beginning offers again what is not pending.
    rig.apply(&Operation::Reset { to: 0, everything: false });
    assert_eq!(rig.apply(&Operation::Taken { count: 9, terms: named(2) }), 2);
}

#[test]
fn share_group_locks_are_released_archived_and_counted() {
    let mut rig = Rig::shared();
    rig.publish(5);
    rig.timeout_ms = 30_000;
    rig.consumer(1, Credit { bytes: 30, ..Credit::messages(500) });
    assert_eq!(rig.pumped(), [(1, 0), (1, 1), (1, 2)], "as many as the fetch has room for");
    // ACCEPT, RELEASE, REJECT.
    assert!(rig.settle(1, 0));
    rig.give_back(1, true, 0);
    let (third, held_by) = (range(2, 3), HeldBy::Owner(MessageOwner::Session(1)));
    let rejected = Operation::Settled { ranges: third.ranges(), held_by, why: Settlement::Dropped };
    assert_eq!(rig.apply(&rejected), 1);
    rig.demands.refill(DemandNo(0), 0, 10);
    let sent = rig.pump();
    assert_eq!((offsets(&sent), sent[0].attempts), (vec![1], Some(Attempts { acquired: 1, returned: 1 })));
    // The lock runs out.
    rig.now_ms += 30_000;
    rig.demands.refill(DemandNo(0), 0, 10);
    let sent = rig.pump();
    assert_eq!(sent[0].attempts, Some(Attempts { acquired: 2, returned: 2 }));
    // The log's start moves past what no consumer had.
    rig.end_session(1, false);
    let gone = range(0, 4);
    let ranges = gone.ranges();
    rig.apply(&Operation::Settled { ranges, held_by: HeldBy::Any, why: Settlement::Gone });
    assert_eq!(rig.subscription.floor(), 4);
}

#[test]
fn two_protocols_draw_on_one_subscription() {
    let mut rig = Rig::shared();
    rig.publish(6);
    let session = rig.consumer(1, Credit::messages(2));
    let lease = rig.consumer_with(2, Credit::messages(2), |member| {
        member.owner = MessageOwner::Lease;
        member.waits = true;
    });
    assert_eq!(rig.pumped(), [(1, 0), (2, 1), (1, 2), (2, 3)]);
    // A pull that apply decides takes what is next.
    let named = Terms { owner: MessageOwner::Named(1), timeout_ms: 0, token: 0 };
    assert_eq!(rig.apply(&Operation::Taken { count: 1, terms: named }), 1);
    rig.demands.refill(session.demand, 5, 0);
    rig.demands.refill(lease.demand, 5, 0);
    assert_eq!(rig.pumped(), [(1, 5)]);
    // What one returns, the other may get.
    rig.give_back(0, true, 0);
    assert_eq!(rig.pumped(), [(2, 0)]);
}

#[test]
fn expired_messages_are_settled_where_they_would_be_delivered() {
    let mut rig = Rig::shared();
    rig.world.expires_ms = rig.now_ms + 50;
    rig.publish(3);
    rig.consumer(1, Credit::messages(1));
    assert_eq!(rig.pumped(), [(1, 0)]);
    rig.now_ms += 50;
    rig.demands.refill(DemandNo(0), 5, 0);
    assert_eq!(rig.pumped(), []);
    assert_eq!(rig.subscription.next_ready(0), None);
    assert_eq!(rig.subscription.state(0), MessageState::InFlight, "what is delivered does not expire");
}

#[test]
fn a_delivery_within_the_claim_does_not_wait_for_the_journal() {
    let mut rig = Rig::shared();
    rig.publish(100);
    let consumer = rig.consumer(1, Credit::messages(10));
    rig.dispatch();
    assert_eq!(rig.sent.len(), 0, "nothing is claimed yet");
    rig.commit(usize::MAX);
    assert_eq!(rig.sent.len(), 10);
    rig.demands.refill(consumer.demand, 5, 0);
    rig.dispatch();
    assert_eq!(rig.sent.len(), 15, "sent at once");
    // The node dies before the acquisitions are in the journal: what was sent is flagged.
    rig.restart(false);
    rig.consumer(2, Credit::messages(100));
    let sent = rig.pump();
    assert_eq!(offsets(&sent), (0..100).collect::<Vec<_>>());
    assert!(sent[..15].iter().all(|d| d.redelivered));
    assert!(sent[64..].iter().all(|d| !d.redelivered));
}

#[test]
fn a_list_of_operations_is_one_entry() {
    let mut rig = Rig::shared();
    rig.publish(1);
    let mut body = Vec::new();
    let (one, terms) = (range(0, 1), Terms { owner: MessageOwner::Lease, timeout_ms: 0, token: 1 });
    let mut writer = OperationsWriter::new(&mut body, false);
    writer.push(NUMBER, &Operation::Acquired { ranges: one.ranges(), terms });
    writer.push(NUMBER, &acknowledged(&one, HeldBy::Token(1)));
    rig.journal.push_back(body);
    assert_eq!(rig.commit(1), 1);
    assert_eq!(rig.subscription.floor(), 1);
}

use std::collections::BTreeMap;
use std::ops::Range;

use sabir_model::DecodeError;

use super::*;
use crate::policy::{Backoff, DeathPolicy, DeathReason, DeliveryLimit, LimitedCount, RetryPolicy};

const SESSION: MessageOwner = MessageOwner::Session(9);
const TERMS: Terms = Terms { owner: SESSION, timeout_ms: 300, token: 5 };

fn ranges(from: u64, to: u64) -> RangesBuffer {
    RangesBuffer::of(std::iter::once(from..to))
}

fn settled(ranges: &RangesBuffer, held_by: HeldBy) -> Operation<'_> {
    Operation::Settled { ranges: ranges.ranges(), held_by, why: Settlement::Acknowledged }
}

/// Published messages, of which the first are in flight.
fn with_in_flight(published: u32, in_flight: u64) -> Subscription {
    let mut subscription = Subscription::default();
    subscription.apply(&Operation::Published { count: published, transaction: None }, 1_000, &mut ());
    let acquired = ranges(0, in_flight);
    subscription.apply(&Operation::Acquired { ranges: acquired.ranges(), terms: TERMS }, 1_000, &mut ());
    subscription
}

/// Every operation, in the order of the tags.
fn operations(ranges: OffsetRanges<'_>) -> Vec<Operation<'_>> {
    let held_by = HeldBy::Token(5);
    vec![
        Operation::Published { count: 300, transaction: Some(4) },
        Operation::Acquired { ranges, terms: TERMS },
        Operation::Taken { count: 2, terms: Terms { owner: MessageOwner::Lease, timeout_ms: 0, token: 1 } },
        Operation::Returned { ranges, held_by: HeldBy::Owner(SESSION), counted: true, not_before_ms: 64 },
        Operation::Settled { ranges, held_by: HeldBy::Any, why: Settlement::Gone },
        Operation::Transferred {
            ranges,
            terms: Terms { owner: MessageOwner::Named(2), timeout_ms: 0, token: 0 },
            min_idle_ms: 100,
            since_ms: Some(-1),
            attempts: AttemptsChange::Set(3),
            force: true,
        },
        Operation::Extended { ranges, held_by, timeout_ms: 1, phase: 2 },
        Operation::Reset { to: 8, everything: true },
        Operation::Due { offset: 8, resets: 1, attempts: Attempts { acquired: 2, returned: 1 } },
        Operation::Claimed { to: 4096 },
        Operation::Released { owner: SESSION, counted: true },
        Operation::Started { clean: true },
        Operation::Prepared { ranges, held_by: HeldBy::Overdue, transaction: 3 },
        Operation::Decided { transaction: 3, commit: true },
        Operation::ConsumerNamed { number: 2, name: "ab" },
        Operation::ConsumerForgotten { number: 2 },
        Operation::SealedIfEmpty,
    ]
}

#[test]
fn operations_are_stored_in_these_bytes() {
    let ranges = RangesBuffer::of([5..10, 300..301]);
    let mut body = Vec::new();
    let mut writer = OperationsWriter::new(&mut body, true);
    let written = operations(ranges.ranges());
    written.iter().for_each(|operation| writer.push(SubscriptionNo(7), operation));
    let golden: Vec<u8> = [
        &[1, 1][..],
        &[1, 7, 0xac, 2, 1, 4],
        &[0x82, 2, 5, 4, 0xa2, 2, 0, 0, 9, 0xac, 2, 5],
        &[0x83, 2, 2, 0, 0, 1],
        &[0x84, 2, 5, 4, 0xa2, 2, 0, 1, 0, 9, 1, 0x80, 1],
        &[0x85, 2, 5, 4, 0xa2, 2, 0, 0, 4],
        &[0x86, 2, 5, 4, 0xa2, 2, 0, 1, 2, 0, 0, 100, 1, 1, 2, 3, 1],
        &[0x87, 2, 5, 4, 0xa2, 2, 0, 2, 5, 1, 2],
        &[0x88, 8, 1],
        &[0x89, 8, 1, 2, 1],
        &[0x8a, 0x80, 0x20],
        &[0x8b, 0, 9, 1],
        &[0x8c, 1],
        &[0x8d, 2, 5, 4, 0xa2, 2, 0, 3, 3],
        &[0x8e, 3, 1],
        &[0x8f, 2, 2, b'a', b'b'],
        &[0x90, 2],
        &[0x91],
    ]
    .concat();
    assert_eq!(body, golden);
    let list = OperationList::decode(&golden).unwrap();
    assert!(list.strict);
    let read: Vec<_> = list.iter().map(|(number, operation)| (number.0, operation)).collect();
    assert_eq!(read, written.into_iter().map(|operation| (7, operation)).collect::<Vec<_>>());
}

#[test]
fn a_list_cut_anywhere_or_of_a_newer_version_is_refused() {
    let ranges = RangesBuffer::of([5..10, 300..301]);
    for operation in operations(ranges.ranges()) {
        let mut body = Vec::new();
        OperationsWriter::new(&mut body, false).push(SubscriptionNo(300), &operation);
        for len in 3..body.len() {
            assert!(OperationList::decode(&body[..len]).is_err(), "{operation:?} cut at {len}");
        }
    }
    assert_eq!(OperationList::decode(&[2, 0]).unwrap_err(), DecodeError::Version(2));
    assert_eq!(OperationList::decode(&[1, 2]).unwrap_err(), DecodeError::Field("marks"));
    assert_eq!(OperationList::decode(&[1, 0, 99, 1]).unwrap_err(), DecodeError::Version(99));
    assert_eq!(OperationList::decode(&[1, 0, 0x91]).unwrap_err(), DecodeError::Field("subscription"));
}

#[test]
fn pages_are_stored_in_these_bytes() {
    let mut subscription = with_in_flight(3_000, 10);
    let hole = ranges(4, 6);
    subscription.apply(&settled(&hole, HeldBy::Owner(SESSION)), 1_000, &mut ());
    let back = ranges(8, 9);
    let ranges = back.ranges();
    let returned = Operation::Returned { ranges, held_by: HeldBy::Token(5), counted: true, not_before_ms: 0 };
    subscription.apply(&returned, 1_000, &mut ());
    subscription.apply(&Operation::Claimed { to: 4_096 }, 1_000, &mut ());
    subscription.apply(&Operation::ConsumerNamed { number: 1, name: "ab" }, 1_000, &mut ());

    let page = |page: SubscriptionPage| {
        let (mut key, mut value) = (Vec::new(), Vec::new());
        page.encode(&mut key);
        assert_eq!(SubscriptionPage::decode(&key), Ok(page));
        subscription.encode_page(page, &mut value).then_some((key, value))
    };
    let header = vec![1, 0, 10, 0xae, 0x17, 0x80, 0x20, 0, 0, 0];
    assert_eq!(page(SubscriptionPage::Header), Some((vec![0], header)));
    let key = |kind| vec![kind, 0, 0, 0, 0, 0, 0, 0, 0];
    // Messages 0 to 9 in flight (01), but 4 and 5 settled (11) and 8 ready (00).
    let mut container = vec![1, 4, 0b0101_0101, 0b0101_1111, 0b0000_0100];
    container.resize(258, 0);
    assert_eq!(page(SubscriptionPage::Container(0)), Some((key(1), container)));
    let owners = vec![1, 0, 10, 7, 0, 9, 0, 0xd0, 0x0f, 0xac, 2, 5];
    assert_eq!(page(SubscriptionPage::Owners(0)), Some((key(2), owners)));
    assert_eq!(page(SubscriptionPage::Attempts(0)), Some((key(3), vec![1, 8, 1, 1, 1])));
    assert_eq!(page(SubscriptionPage::Container(1)), None);
    let name = [vec![4], 1u64.to_be_bytes().to_vec()].concat();
    assert_eq!(page(SubscriptionPage::Consumer(1)), Some((name, vec![1, 2, b'a', b'b'])));
}

#[test]
fn damaged_pages_are_refused() {
    let mut subscription = Subscription::default();
    let mut refuse =
        |page, bytes: &[u8]| assert!(subscription.decode_page(page, bytes).is_err(), "{page:?} {bytes:?}");
    refuse(SubscriptionPage::Header, &[2]);
    refuse(SubscriptionPage::Header, &[1, 0, 0, 0, 0, 0, 0, 2]);
    refuse(SubscriptionPage::Container(9), &[1, 3]);
    refuse(SubscriptionPage::Container(0), &[1, 5]);
    refuse(SubscriptionPage::Owners(0), &[1, 0, 1, 2, 0, 9, 0, 0, 0, 0]);
    refuse(SubscriptionPage::Attempts(0), &[1, 0, 0, 1, 1]);
    refuse(SubscriptionPage::Consumer(0), &[1, 1, 0xff]);
    assert!(SubscriptionPage::decode(&[9, 0, 0, 0, 0, 0, 0, 0, 0]).is_err());
}

#[test]
fn a_checkpoint_that_lacks_owners_is_refused() {
    let whole = with_in_flight(3_000, 10);
    let mut again = Subscription::default();
    let mut read = |page| {
        let mut stored = Vec::new();
        assert!(whole.encode_page(page, &mut stored));
        again.decode_page(page, &stored).unwrap();
        again.check_pages()
    };
    assert_eq!(read(SubscriptionPage::Header), Err(DecodeError::Field("owner")));
    assert_eq!(read(SubscriptionPage::Owners(0)), Ok(()));
}

#[test]
fn a_backlog_that_is_settled_in_order_leaves_no_page_but_the_header() {
    let mut subscription = with_in_flight(100_000, 100);
    for offset in 0..100 {
        let one = ranges(offset, offset + 1);
        assert_eq!(subscription.apply(&settled(&one, HeldBy::Owner(SESSION)), 1_000, &mut ()), 1);
    }
    let mut there = 0;
    let mut dirty = Vec::new();
    subscription.take_dirty(|page| dirty.push(page));
    for page in dirty {
        let mut value = Vec::new();
        there += usize::from(subscription.encode_page(page, &mut value));
        assert!(value.len() < 20);
    }
    assert_eq!(there, 1);
    subscription.shrink();
    assert!(subscription.bytes() <= 128, "{} bytes", subscription.bytes());
}

#[test]
fn what_may_have_been_sent_before_a_crash_is_flagged_and_nothing_else() {
    let mut subscription = with_in_flight(100, 0);
    subscription.apply(&Operation::Claimed { to: 10 }, 1_000, &mut ());
    subscription.apply(&Operation::Started { clean: true }, 1_000, &mut ());
    assert!(!subscription.is_redelivered(9));
    subscription.apply(&Operation::Started { clean: false }, 1_000, &mut ());
    assert!(subscription.is_redelivered(9));
    assert!(!subscription.is_redelivered(10));
}

#[test]
fn a_stop_in_order_counts_for_nothing_but_flags_what_was_delivered() {
    let mut subscription = with_in_flight(10, 3);
    subscription.apply(&Operation::Started { clean: true }, 1_000, &mut ());
    assert_eq!(subscription.next_ready(0), Some(0));
    assert_eq!(subscription.attempts(2), Some(Attempts { acquired: 1, returned: 0 }));
    assert!(subscription.is_redelivered(2) && !subscription.is_redelivered(3));
}

#[test]
fn a_sealed_subscription_takes_in_nothing() {
    let mut subscription = with_in_flight(2, 1);
    assert!(!subscription.admits(&Operation::SealedIfEmpty, 1_000));
    assert_eq!(subscription.apply(&Operation::SealedIfEmpty, 1_000, &mut ()), 0);
    assert!(!subscription.is_sealed());
    let ready = ranges(1, 2);
    subscription.apply(&settled(&ready, HeldBy::Any), 1_000, &mut ());
    // What is in flight does not wait.
    assert!(subscription.admits(&Operation::SealedIfEmpty, 1_000));
    for _ in 0..2 {
        assert_eq!(subscription.apply(&Operation::SealedIfEmpty, 1_000, &mut ()), 1);
        assert!(subscription.is_sealed());
    }
    let published = Operation::Published { count: 1, transaction: None };
    assert!(!subscription.admits(&published, 1_000));
    assert_eq!(subscription.apply(&published, 1_000, &mut ()), 0);
}

#[test]
fn what_is_taken_is_of_the_highest_level_first() {
    let mut subscription = with_in_flight(0, 0);
    for (messages, level) in [(0..2, 0), (2..4, 3), (4..5, 0), (5..6, 9)] {
        let count = (messages.end - messages.start) as u32;
        subscription.note_level(messages, level);
        subscription.apply(&Operation::Published { count, transaction: None }, 1_000, &mut ());
    }
    let (mut taken, mut next) = (Vec::new(), Vec::new());
    for count in [2, 3, 9] {
        let before: Vec<_> = (0..6).map(|offset| subscription.state(offset)).collect();
        let terms = Terms { owner: MessageOwner::Lease, timeout_ms: 0, token: 1 };
        next.push(subscription.next_taken());
        subscription.apply(&Operation::Taken { count, terms }, 1_000, &mut ());
        let new = |offset: &u64| subscription.state(*offset) != before[*offset as usize];
        taken.push((0..6).filter(new).collect::<Vec<_>>());
    }
    assert_eq!(taken, [vec![2, 5], vec![0, 1, 3], vec![4]]);
    assert_eq!((next, subscription.next_taken()), (vec![Some(5), Some(3), Some(4)], None));
    let back = ranges(1, 2);
    let returned =
        Operation::Returned { ranges: back.ranges(), held_by: HeldBy::Any, counted: false, not_before_ms: 0 };
    subscription.apply(&returned, 1_000, &mut ());
    assert_eq!(subscription.next_ready(0), Some(1));
}

#[test]
fn who_takes_where_nothing_is_ready_looks_through_what_others_hold_once() {
    let mut subscription = with_in_flight(10, 0);
    let all = RangesBuffer::of((0..10).map(|offset| offset..offset + 1));
    subscription.apply(&Operation::Acquired { ranges: all.ranges(), terms: TERMS }, 1_000, &mut ());
    let terms = Terms { owner: MessageOwner::Lease, timeout_ms: 0, token: 1 };
    let taken = Operation::Taken { count: 3, terms };
    assert_eq!((subscription.apply(&taken, 1_000, &mut ()), subscription.ready_from), (0, 10));
    subscription.apply(&Operation::Published { count: 1, transaction: None }, 1_000, &mut ());
    let back = ranges(4, 5);
    let held_by = HeldBy::Owner(SESSION);
    let returned = Operation::Returned { ranges: back.ranges(), held_by, counted: false, not_before_ms: 0 };
    subscription.apply(&returned, 1_000, &mut ());
    assert_eq!((subscription.next_taken(), subscription.apply(&taken, 1_000, &mut ())), (Some(4), 2));
    assert_eq!(subscription.ready_from, 11);
}

#[test]
fn a_timer_of_before_a_reset_wakes_nobody() {
    let mut subscription = with_in_flight(10, 2);
    let all = ranges(0, 2);
    let parked = Operation::Returned {
        ranges: all.ranges(),
        held_by: HeldBy::Any,
        counted: true,
        not_before_ms: 2_000,
    };
    subscription.apply(&parked, 1_000, &mut ());
    assert_eq!(subscription.state(1), MessageState::Parked);
    let due = Operation::Due { offset: 1, resets: 0, attempts: Attempts::FIRST };
    subscription.apply(&Operation::Reset { to: 0, everything: true }, 1_000, &mut ());
    subscription.apply(&Operation::Acquired { ranges: all.ranges(), terms: TERMS }, 1_000, &mut ());
    subscription.apply(&parked, 1_000, &mut ());
    assert_eq!(subscription.apply(&due, 2_000, &mut ()), 0);
    assert_eq!(subscription.state(1), MessageState::Parked);
}

#[derive(Default)]
struct Shard(BTreeMap<SubscriptionNo, Subscription>);

impl Subscriptions for Shard {
    fn get(&self, number: SubscriptionNo) -> Option<&Subscription> {
        self.0.get(&number)
    }

    fn get_mut(&mut self, number: SubscriptionNo) -> Option<&mut Subscription> {
        self.0.get_mut(&number)
    }
}

fn two() -> Shard {
    let of = |number| (SubscriptionNo(number), with_in_flight(10, 4));
    Shard(BTreeMap::from([of(1), of(2)]))
}

/// Publishes to one subscription and settles at the other.
fn list(strict: bool, messages: &RangesBuffer, owner: MessageOwner) -> Vec<u8> {
    let mut body = Vec::new();
    let mut writer = OperationsWriter::new(&mut body, strict);
    writer.push(SubscriptionNo(1), &Operation::Published { count: 1, transaction: None });
    writer.push(SubscriptionNo(2), &settled(messages, HeldBy::Owner(owner)));
    body
}

#[test]
fn a_strict_list_takes_effect_together_or_not_at_all() {
    let mut shard = two();
    let (some, too_many) = (ranges(1, 3), ranges(1, 5));
    let body = list(true, &too_many, SESSION);
    let refused = apply_list(&OperationList::decode(&body).unwrap(), &mut shard, 1_000, &mut ());
    assert_eq!(refused, Err(ListRefused { operation: 1 }));
    assert_eq!(shard.0[&SubscriptionNo(1)].end(), 10);

    let body = list(true, &some, MessageOwner::Session(1));
    assert!(apply_list(&OperationList::decode(&body).unwrap(), &mut shard, 1_000, &mut ()).is_err());
    let body = list(true, &some, SESSION);
    let applied = apply_list(&OperationList::decode(&body).unwrap(), &mut shard, 1_000, &mut ());
    assert_eq!((applied, shard.0[&SubscriptionNo(1)].end()), (Ok(3), 11));
}

#[test]
fn any_other_list_passes_over_what_does_not_concern_it() {
    let mut shard = two();
    shard.0.remove(&SubscriptionNo(1));
    let messages = ranges(1, 5);
    let body = list(false, &messages, SESSION);
    let applied = apply_list(&OperationList::decode(&body).unwrap(), &mut shard, 1_000, &mut ());
    assert_eq!(applied, Ok(3));
}

#[test]
fn what_a_transaction_holds_is_its_own_until_it_is_decided() {
    let mut subscription = with_in_flight(4, 2);
    let first = ranges(0, 1);
    let prepared =
        Operation::Prepared { ranges: first.ranges(), held_by: HeldBy::Owner(SESSION), transaction: 3 };
    subscription.apply(&prepared, 1_000, &mut ());
    subscription.apply(&Operation::Published { count: 1, transaction: Some(3) }, 1_000, &mut ());
    subscription.apply(&Operation::Started { clean: true }, 1_000, &mut ());
    assert_eq!(subscription.apply(&settled(&first, HeldBy::Any), 1_000, &mut ()), 0);
    let states = |s: &Subscription| (0..5).map(|offset| s.state(offset)).collect::<Vec<_>>();
    use MessageState::{InFlight, Ready, Settled};
    assert_eq!(states(&subscription), [InFlight, Ready, Ready, Ready, InFlight]);
    subscription.apply(&Operation::Decided { transaction: 3, commit: true }, 1_000, &mut ());
    assert_eq!(states(&subscription), [Settled, Ready, Ready, Ready, Ready]);
    assert!(!subscription.is_redelivered(4), "nobody saw it before it was committed");
}

fn deaths(dead_letters: bool, most: u32, backoff: Option<Backoff>) -> DeathPolicy {
    let limit = Some(DeliveryLimit { count: LimitedCount::Returned, most });
    DeathPolicy { dead_letters, retry: RetryPolicy { limit, backoff: backoff.map(Into::into) } }
}

/// When messages are parked until.
#[derive(Default)]
struct Parkings(Vec<(u64, i64, Attempts)>);

impl Touched for Parkings {
    fn parked(&mut self, offset: u64, until_ms: i64, _resets: u32, attempts: Attempts) {
        self.0.push((offset, until_ms, attempts));
    }
}

#[test]
fn a_queue_whose_settings_say_so_parks_what_counts_for_longer_each_time_and_then_gives_it_up() {
    let mut queue = Subscription::default();
    queue.set_deaths(deaths(true, 2, Some(Backoff::Steps([100, 500].into()))));
    queue.apply(&Operation::Published { count: 2, transaction: None }, 0, &mut ());
    let all = RangesBuffer::of(std::iter::once(0..2));
    let ranges = all.ranges();
    let first = RangesBuffer::of(std::iter::once(0..1));
    let terms = Terms { owner: MessageOwner::Session(1), timeout_ms: 0, token: 0 };
    let back = |queue: &mut Subscription, ranges, counted, not_before_ms, now| {
        let mut parkings = Parkings::default();
        queue.apply(&Operation::Acquired { ranges, terms }, now, &mut ());
        let held_by = HeldBy::Owner(terms.owner);
        queue.apply(&Operation::Returned { ranges, held_by, counted, not_before_ms }, now, &mut parkings);
        parkings.0
    };
    let attempts = |acquired, returned| Attempts { acquired, returned };
    let due = |queue: &mut Subscription, offset, attempts| {
        queue.apply(&Operation::Due { offset, resets: 0, attempts }, 0, &mut ())
    };
    assert_eq!(back(&mut queue, ranges, false, 0, 1_000), [], "it does not count");
    assert_eq!(
        back(&mut queue, ranges, true, 900, 1_000),
        [],
        "its moment is over, and no other is asked for"
    );
    assert_eq!((queue.state(0), queue.attempts(0)), (MessageState::Ready, Some(attempts(2, 1))));
    let parked = [(0, 1_500, attempts(3, 2)), (1, 1_500, attempts(3, 2))];
    assert_eq!(back(&mut queue, ranges, true, 0, 1_000), parked);
    assert_eq!((queue.state(0), queue.attempts(0)), (MessageState::Parked, None));
    assert_eq!((due(&mut queue, 0, attempts(3, 2)), due(&mut queue, 1, attempts(3, 2))), (1, 1));
    assert!(queue.is_redelivered(0));
    assert_eq!(back(&mut queue, first.ranges(), true, 9_000, 2_000), [], "that was once too often");
    assert_eq!(queue.dead_letters().collect::<Vec<_>>(), [(0..1, DeathReason::DeliveryLimit)]);
    // An owner that is gone had them, too.
    queue.set_deaths(deaths(true, 3, Some(Backoff::Steps([100, 500].into()))));
    queue.apply(&Operation::Acquired { ranges, terms }, 3_000, &mut ());
    let mut parkings = Parkings::default();
    queue.apply(&Operation::Released { owner: terms.owner, counted: true }, 3_000, &mut parkings);
    assert_eq!(parkings.0, [(1, 3_500, attempts(4, 3))]);
}

#[test]
fn what_came_back_too_often_is_given_up_in_runs_of_the_same_count() {
    let mut queue = Subscription::default();
    queue.set_deaths(deaths(true, 1, None));
    queue.apply(&Operation::Published { count: 6, transaction: None }, 0, &mut ());
    let terms = Terms { owner: MessageOwner::Session(1), timeout_ms: 0, token: 0 };
    let back = |queue: &mut Subscription, messages: Range<u64>, counted: bool| {
        let ranges = RangesBuffer::of(std::iter::once(messages));
        let ranges = ranges.ranges();
        queue.apply(&Operation::Acquired { ranges, terms }, 1, &mut ());
        let held_by = HeldBy::Owner(terms.owner);
        queue.apply(&Operation::Returned { ranges, held_by, counted, not_before_ms: 0 }, 2, &mut ());
    };
    back(&mut queue, 0..6, true);
    back(&mut queue, 2..3, false);
    assert!(!queue.has_dead_letters());
    back(&mut queue, 1..5, true);
    let waiting: Vec<_> = queue.dead_letters().collect();
    assert_eq!(waiting, [(1..5, DeathReason::DeliveryLimit)]);
    assert_eq!((queue.backlog().messages, queue.attempts(1)), (2, None));
    // A start, its session's end, or what settles anything leaves them.
    queue.apply(&Operation::Started { clean: false }, 3, &mut ());
    let all = RangesBuffer::of(std::iter::once(0..6));
    let settled = Operation::Settled { ranges: all.ranges(), held_by: HeldBy::Any, why: Settlement::Dropped };
    assert_eq!(queue.apply(&settled, 4, &mut ()), 2);
    let held_by = HeldBy::Owner(MessageOwner::DeadLetter(DeathReason::DeliveryLimit));
    let some = RangesBuffer::of(std::iter::once(1..4));
    let published = Operation::Settled { ranges: some.ranges(), held_by, why: Settlement::DeadLettered };
    assert!(queue.admits(&published, 5));
    assert_eq!(queue.apply(&published, 5, &mut ()), 3);
    assert!(!queue.admits(&published, 5), "once");
    assert_eq!(queue.dead_letters().collect::<Vec<_>>(), [(4..5, DeathReason::DeliveryLimit)]);
    assert_eq!(queue.floor(), 4);
}

#[test]
fn without_a_place_for_dead_letters_what_is_given_up_is_gone() {
    let mut queue = Subscription::default();
    queue.set_deaths(deaths(false, 0, None));
    queue.apply(&Operation::Published { count: 2, transaction: None }, 0, &mut ());
    let terms = Terms { owner: MessageOwner::Session(1), timeout_ms: 0, token: 0 };
    let all = RangesBuffer::of(std::iter::once(0..2));
    queue.apply(&Operation::Acquired { ranges: all.ranges(), terms }, 1, &mut ());
    queue.apply(&Operation::Released { owner: terms.owner, counted: true }, 2, &mut ());
    assert_eq!((queue.floor(), queue.has_dead_letters()), (2, false));
}

#[test]
fn what_is_to_go_back_is_no_consumers_until_it_is_given_back() {
    let mut queue = Subscription::default();
    queue.apply(&Operation::Published { count: 4, transaction: None }, 0, &mut ());
    let owner = MessageOwner::DeadLetter(DeathReason::Redriven);
    let of = |messages: Range<u64>| RangesBuffer::of(std::iter::once(messages));
    let (all, some) = (of(0..4), of(1..3));
    let terms = Terms { owner, timeout_ms: 0, token: 0 };
    assert_eq!(queue.apply(&Operation::Acquired { ranges: some.ranges(), terms }, 1, &mut ()), 2);
    queue.apply(&Operation::Started { clean: false }, 2, &mut ());
    let dropped = Operation::Settled { ranges: all.ranges(), held_by: HeldBy::Any, why: Settlement::Dropped };
    assert_eq!(queue.apply(&dropped, 3, &mut ()), 2);
    assert_eq!(queue.dead_letters().collect::<Vec<_>>(), [(1..3, DeathReason::Redriven)]);
    let (second, held_by) = (of(2..3), HeldBy::Owner(owner));
    let back = Operation::Returned { ranges: second.ranges(), held_by, counted: false, not_before_ms: 0 };
    assert_eq!(queue.apply(&back, 4, &mut ()), 1);
    assert_eq!((queue.next_ready(0), queue.floor()), (Some(2), 1));
    assert_eq!(queue.dead_letters().collect::<Vec<_>>(), [(1..2, DeathReason::Redriven)]);
}

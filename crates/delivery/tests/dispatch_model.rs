//! Dealing under random publishes, settles, returns, sessions that come and go, entries that are late, and crashes.

mod rig;

use std::collections::{BTreeMap, BTreeSet};

use proptest::collection::vec;
use proptest::prelude::*;
use rig::{Rig, range};
use sabir_delivery::dispatch::*;
use sabir_delivery::subscription::*;

#[derive(Debug, Clone)]
enum Event {
    Publish(u8),
    Refill(u8, u8),
    Settle(u8),
    GiveBack(u8, bool, u16),
    Come(u8),
    Go(u8),
    EndSession(u8, bool),
    Commit(u8),
    Dispatch,
    Wait(u16),
    Reset(u8, bool),
    Restart(bool),
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        4 => (1..40u8).prop_map(Event::Publish),
        4 => (any::<u8>(), 1..20u8).prop_map(|(m, n)| Event::Refill(m, n)),
        8 => any::<u8>().prop_map(Event::Settle),
        3 => (any::<u8>(), any::<bool>(), 0..300u16).prop_map(|(m, c, t)| Event::GiveBack(m, c, t)),
        3 => any::<u8>().prop_map(Event::Come),
        1 => any::<u8>().prop_map(Event::Go),
        1 => (any::<u8>(), any::<bool>()).prop_map(|(s, c)| Event::EndSession(s, c)),
        8 => (1..4u8).prop_map(Event::Commit),
        8 => Just(Event::Dispatch),
        1 => (0..200u16).prop_map(Event::Wait),
        1 => (any::<u8>(), any::<bool>()).prop_map(|(to, all)| Event::Reset(to, all)),
        1 => any::<bool>().prop_map(Event::Restart),
    ];
    vec(event, 1..120)
}

/// The rig, and what must hold of it.
struct Checked {
    rig: Rig,
    order: GroupOrder,
    next_member: u64,
    members: Vec<DemandMember>,
    /// What sessions have and did not settle, by offset.
    unsettled: BTreeMap<u64, MemberNo>,
    checked: usize,
    /// A moved position offers what a session may still be working on.
    moved: bool,
}

impl Checked {
    fn new(access: Access, order: GroupOrder) -> Self {
        let mut rig = Rig::new(access, order);
        rig.world.groups = if order == GroupOrder::Free { 0 } else { 7 };
        Self::of(rig, order)
    }

    fn of(rig: Rig, order: GroupOrder) -> Self {
        let (members, unsettled) = (Vec::new(), BTreeMap::new());
        Self { rig, order, next_member: 1, members, unsettled, checked: 0, moved: false }
    }

    fn pick<T: Copy>(all: &[T], which: u8) -> Option<T> {
        all.get(usize::from(which) % all.len().max(1)).copied()
    }

    fn pick_unsettled(&self, which: u8) -> Option<(u64, MemberNo)> {
        let all: Vec<_> = self.unsettled.iter().map(|(offset, member)| (*offset, *member)).collect();
        Self::pick(&all, which)
    }

    fn come(&mut self, kind: u8) {
        let number = self.next_member;
        self.next_member += 1;
        let credit = Credit::messages(u32::from(kind % 8));
        let plain = self.rig.world.levels > 0 || self.order != GroupOrder::Free || !kind.is_multiple_of(3);
        let member = self.rig.consumer_with(number, credit, |member| {
            member.filter = (!plain).then_some(FilterNo(3));
            member.priority = i32::from(kind / 64);
            member.waits = kind % 16 == 5;
        });
        self.members.push(member);
    }

    fn forget(&mut self, gone: impl Fn(&DemandMember) -> bool) {
        for member in self.members.iter().filter(|member| gone(member)) {
            self.unsettled.retain(|_, of| *of != member.number);
            self.rig.detach(member.number);
        }
        self.members.retain(|member| !gone(member));
    }

    fn happen(&mut self, event: &Event) {
        match *event {
            Event::Publish(count) => {
                self.rig.propose(&Operation::Published { count: count.into(), transaction: None })
            }
            Event::Refill(which, messages) => {
                if let Some(member) = Self::pick(&self.members, which) {
                    self.rig.demands.refill(member.demand, messages.into(), 0);
                }
            }
            Event::Settle(which) => {
                if let Some((offset, member)) = self.pick_unsettled(which) {
                    let settled = self.rig.settle(member.0, offset);
                    assert!(settled || self.moved, "{offset} belongs to {member:?}");
                    self.unsettled.remove(&offset);
                }
            }
            Event::GiveBack(which, counted, after) => {
                if let Some((offset, _)) = self.pick_unsettled(which) {
                    let until = if after < 100 { 0 } else { self.rig.now_ms + i64::from(after) };
                    self.rig.commit(usize::MAX);
                    self.unsettled.remove(&offset);
                    self.rig.give_back(offset, counted, until);
                }
            }
            Event::Come(kind) => self.come(kind),
            Event::Go(which) => {
                if let Some(member) = Self::pick(&self.members, which) {
                    self.rig.detach(member.number);
                    self.members.retain(|other| other.number != member.number);
                }
            }
            Event::EndSession(which, counted) => {
                if let Some(member) = Self::pick(&self.members, which) {
                    self.forget(|other| other.number == member.number);
                    self.rig.held_back.retain(|d| d.member != member.number);
                    self.rig.end_session(member.number.0, counted);
                }
            }
            Event::Commit(entries) => {
                self.rig.commit(entries.into());
            }
            Event::Dispatch => self.rig.dispatch(),
            Event::Wait(ms) => {
                self.rig.now_ms += i64::from(ms);
                self.rig.fire();
            }
            Event::Reset(to, everything) => {
                self.rig.commit(usize::MAX);
                self.check();
                self.rig.apply(&Operation::Reset { to: to.into(), everything });
                self.moved |= everything;
                if everything {
                    self.unsettled.clear();
                }
            }
            Event::Restart(clean) => {
                if clean {
                    self.rig.commit(usize::MAX);
                    self.check();
                }
                self.rig.restart(clean);
                self.members.clear();
                self.unsettled.clear();
            }
        }
        self.check();
    }

    /// Looks at what was sent since.
    fn check(&mut self) {
        let new = self.rig.sent[self.checked..].iter();
        for sent in new {
            let member = self.members.iter().find(|m| m.number == sent.member).copied();
            let passes = member.and_then(|m| m.filter).is_none_or(|f| sent.offset.is_multiple_of(f.0.into()));
            assert!(passes, "{sent:?} does not pass");
            let before = self.unsettled.insert(sent.offset, sent.member);
            assert_eq!(before, None, "{sent:?} is with two");
            assert!(sent.waits || sent.redelivered || sent.offset < self.rig.subscription.claim());
            if self.order == GroupOrder::Serial && !self.moved {
                check_serial(&self.rig, &self.unsettled, sent.offset);
            }
        }
        self.checked = self.rig.sent.len();
    }

    /// Everybody goes: what they had is returned.
    fn empty(&mut self) {
        self.rig.commit(usize::MAX);
        self.check();
        self.forget(|_| true);
        (1..self.next_member).for_each(|session| self.rig.end_session(session, true));
        self.unsettled.clear();
    }

    /// In the end, with or without a start before, everything is settled by a consumer that takes all.
    fn finish(&mut self, restart: bool) {
        self.empty();
        if restart {
            self.rig.restart(true);
        }
        self.checked = self.rig.sent.len();
        self.come(1);
        self.rig.demands.refill(self.members[0].demand, 1_000_000, 0);
        let end = self.rig.subscription.end();
        for _ in 0..=end {
            self.rig.now_ms += 1_000;
            self.rig.pump();
            self.check();
            for (offset, member) in std::mem::take(&mut self.unsettled) {
                assert!(self.rig.settle(member.0, offset));
            }
            if self.rig.subscription.floor() == end {
                return;
            }
        }
        panic!("{} of {end} are left", end - self.rig.subscription.floor());
    }
}

fn check_serial(rig: &Rig, unsettled: &BTreeMap<u64, MemberNo>, offset: u64) {
    let groups = rig.world.groups;
    let same = |other: &&u64| **other % groups == offset % groups;
    assert_eq!(unsettled.keys().filter(same).collect::<Vec<_>>(), [&offset], "one at a time");
    for earlier in (rig.subscription.floor()..offset).filter(|o| same(&o)) {
        assert_eq!(rig.subscription.state(earlier), MessageState::Settled, "{earlier} before {offset}");
    }
}

fn run(access: Access, order: GroupOrder, events: &[Event]) {
    run_in(Checked::new(access, order), events);
}

fn run_in(mut checked: Checked, events: &[Event]) {
    events.iter().for_each(|event| checked.happen(event));
    checked.finish(events.len().is_multiple_of(2));
    let seen: BTreeSet<u64> = checked.rig.sent.iter().map(|sent| sent.offset).collect();
    assert!(
        checked.moved || events.iter().any(|e| matches!(e, Event::Reset(..))) || {
            seen.len() as u64 == checked.rig.subscription.end()
        }
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn every_message_is_with_one_at_a_time_and_settled_in_the_end(events in events()) {
        run(Access::Shared, GroupOrder::Free, &events);
    }

    #[test]
    fn a_single_active_consumer_gets_everything(events in events()) {
        run(Access::SingleActive, GroupOrder::Free, &events);
    }

    #[test]
    fn a_serial_group_has_one_unsettled_delivery_and_keeps_its_order(events in events()) {
        run(Access::Shared, GroupOrder::Serial, &events);
    }

    #[test]
    fn of_several_levels_the_highest_is_dealt_first_and_each_in_order(levels in 1..6u64, events in events()) {
        // What is settled has no level any more, and a queue with priorities has no position to be moved.
        let events: Vec<_> = events.into_iter().filter(|event| !matches!(event, Event::Reset(..))).collect();
        run_in(Checked::of(Rig::by_level(levels), GroupOrder::Free), &events);
    }

    #[test]
    fn a_sticky_group_keeps_nothing_back_for_ever(events in events()) {
        run(Access::Shared, GroupOrder::Sticky, &events);
    }
}

#[test]
fn a_filter_is_asked_about_each_message_once() {
    struct Counting(BTreeMap<u64, u32>);
    impl Messages for Counting {
        fn facts(&mut self, _offset: u64) -> Option<MessageFacts> {
            Some(MessageFacts::default())
        }
        fn passes(&mut self, _filter: FilterNo, offset: u64) -> bool {
            *self.0.entry(offset).or_default() += 1;
            false
        }
    }
    struct Nothing;
    impl Deliveries for Nothing {
        fn deliver(&mut self, dispatched: Dispatched) {
            panic!("{dispatched:?}");
        }
    }
    let mut rig = Rig::shared();
    rig.publish(50_000);
    rig.consumer_with(1, Credit::messages(1), |member| member.filter = Some(FilterNo(3)));
    let mut counting = Counting(BTreeMap::new());
    for _ in 0..3 {
        let (subscription, demands) = (&rig.subscription, &mut rig.demands);
        rig.dispatcher.dispatch(subscription, demands, 0, 1_000, &mut counting, &mut Nothing);
    }
    assert_eq!(counting.0.len() as u64, LOOKAHEAD, "it does not look further");
    assert!(counting.0.values().all(|asked| *asked == 1));
    // What others settle makes room to look on.
    let ranges = range(0, 100);
    let (ranges, why) = (ranges.ranges(), Settlement::Acknowledged);
    rig.apply(&Operation::Settled { ranges, held_by: HeldBy::Any, why });
    let (subscription, demands) = (&rig.subscription, &mut rig.demands);
    rig.dispatcher.dispatch(subscription, demands, 0, 1_000, &mut counting, &mut Nothing);
    assert_eq!(counting.0.len() as u64, LOOKAHEAD + 100);
}

//! A driver as a broker has one: a subscription, its dispatcher, a journal of entries that are proposed and not yet applied, timers,
//! and sessions that receive.

// Each test binary uses a part of it.
#![allow(dead_code)]

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Range;

use sabir_delivery::dispatch::*;
use sabir_delivery::subscription::*;

/// The one subscription's number.
pub const NUMBER: SubscriptionNo = SubscriptionNo(1);

/// What the broker knows of messages: a function of the offset.
#[derive(Debug, Clone, Copy, Default)]
pub struct World {
    pub groups: u64,
    pub expires_ms: i64,
    /// How many levels messages have; 0 where the queue has none.
    pub levels: u64,
}

impl World {
    /// The level of a message.
    pub fn level(&self, offset: u64) -> u8 {
        (offset * 7 / 3).checked_rem(self.levels).unwrap_or(0) as u8
    }
}

impl Messages for World {
    fn facts(&mut self, offset: u64) -> Option<MessageFacts> {
        let group = offset.checked_rem(self.groups);
        Some(MessageFacts { bytes: 10, group, expires_ms: self.expires_ms })
    }

    /// Filter n passes every n-th message.
    fn passes(&mut self, filter: FilterNo, offset: u64) -> bool {
        offset.is_multiple_of(filter.0.into())
    }
}

/// What a parked message's timer keeps.
type Timer = (u32, Attempts);

#[derive(Debug, Default)]
struct Decided {
    dispatched: Vec<Dispatched>,
    expired: Vec<u64>,
    claim: Option<u64>,
    active: Vec<MemberNo>,
}

impl Deliveries for Decided {
    fn deliver(&mut self, dispatched: Dispatched) {
        self.dispatched.push(dispatched);
    }

    fn expired(&mut self, offset: u64) {
        self.expired.push(offset);
    }

    fn claim(&mut self, to: u64) {
        self.claim = Some(to);
    }

    fn active(&mut self, member: MemberNo) {
        self.active.push(member);
    }
}

/// Tells the dispatcher, and keeps the timers.
struct Ear<'a> {
    dispatcher: &'a mut Dispatcher,
    timers: &'a mut BTreeMap<(i64, u64), Timer>,
    acquired: BTreeSet<u64>,
}

impl Touched for Ear<'_> {
    fn ready(&mut self, messages: Range<u64>) {
        self.dispatcher.ready(messages);
    }

    fn acquired(&mut self, messages: Range<u64>, owner: MessageOwner, deadline_ms: Option<i64>) {
        self.acquired.extend(messages.clone());
        self.dispatcher.acquired(messages, owner, deadline_ms);
    }

    fn settled(&mut self, messages: Range<u64>, why: Settlement) {
        self.dispatcher.settled(messages, why);
    }

    fn parked(&mut self, offset: u64, until_ms: i64, resets: u32, attempts: Attempts) {
        self.timers.insert((until_ms, offset), (resets, attempts));
    }

    fn reset(&mut self) {
        self.dispatcher.reset();
    }
}

pub struct Rig {
    pub subscription: Subscription,
    pub dispatcher: Dispatcher,
    pub demands: Demands,
    pub world: World,
    pub now_ms: i64,
    /// Entries that are proposed.
    pub journal: VecDeque<Vec<u8>>,
    pub timers: BTreeMap<(i64, u64), Timer>,
    /// What was sent, in order.
    pub sent: Vec<Dispatched>,
    /// What waits for its `acquired`.
    pub held_back: Vec<Dispatched>,
    /// What was ever sent.
    pub seen: BTreeSet<u64>,
    pub activated: Vec<MemberNo>,
    /// The timeout of acquisitions.
    pub timeout_ms: u32,
    /// The token of acquisitions; raised with each if not 0.
    pub token: u64,
    kind: (Access, GroupOrder),
}

pub fn range(from: u64, to: u64) -> RangesBuffer {
    RangesBuffer::of(std::iter::once(from..to))
}

impl Rig {
    pub fn new(access: Access, order: GroupOrder) -> Self {
        Self {
            subscription: Subscription::new(0),
            dispatcher: Dispatcher::new(access, order),
            demands: Demands::default(),
            world: World::default(),
            now_ms: 1_000,
            journal: VecDeque::new(),
            timers: BTreeMap::new(),
            sent: Vec::new(),
            held_back: Vec::new(),
            seen: BTreeSet::new(),
            activated: Vec::new(),
            timeout_ms: 0,
            token: 0,
            kind: (access, order),
        }
    }

    /// A queue with so many levels.
    pub fn by_level(levels: u64) -> Self {
        let mut rig = Self::shared();
        rig.world.levels = levels;
        rig.dispatcher = rig.new_dispatcher();
        rig
    }

    fn new_dispatcher(&self) -> Dispatcher {
        let dispatcher = Dispatcher::new(self.kind.0, self.kind.1);
        if self.world.levels > 0 { dispatcher.by_level() } else { dispatcher }
    }

    /// A queue that all consumers share.
    pub fn shared() -> Self {
        Self::new(Access::Shared, GroupOrder::Free)
    }

    /// Attaches a plain member of a session of its own; its demand has the member's number.
    pub fn consumer(&mut self, number: u64, credit: Credit) -> DemandMember {
        let demand = self.demands.add(credit);
        let owner = MessageOwner::Session(number);
        let number = MemberNo(number);
        let member = DemandMember { number, demand, owner, priority: 0, filter: None, waits: false };
        self.attach(member);
        member
    }

    /// Attaches a plain member that differs.
    pub fn consumer_with(
        &mut self,
        number: u64,
        credit: Credit,
        change: impl FnOnce(&mut DemandMember),
    ) -> DemandMember {
        let mut member = self.consumer(number, credit);
        self.detach(member.number);
        change(&mut member);
        self.attach(member);
        member
    }

    pub fn attach(&mut self, member: DemandMember) {
        self.dispatcher.attach(member, false).expect("nobody has it to itself");
    }

    pub fn detach(&mut self, member: MemberNo) {
        self.dispatcher.detach(member);
    }

    pub fn propose(&mut self, operation: &Operation<'_>) {
        let mut body = Vec::new();
        OperationsWriter::new(&mut body, false).push(NUMBER, operation);
        self.journal.push_back(body);
    }

    /// Proposes an operation and applies all that is proposed.
    pub fn apply(&mut self, operation: &Operation<'_>) -> u64 {
        self.propose(operation);
        self.commit(usize::MAX)
    }

    /// Applies the first entries. Tells how many messages the last one concerned.
    pub fn commit(&mut self, entries: usize) -> u64 {
        let mut concerned = 0;
        for _ in 0..entries {
            let Some(body) = self.journal.pop_front() else { break };
            for (_, operation) in OperationList::decode(&body).expect("just written").iter() {
                if let Operation::Published { count, .. } = operation {
                    self.note_levels(count);
                }
                let (dispatcher, timers) = (&mut self.dispatcher, &mut self.timers);
                let mut ear = Ear { dispatcher, timers, acquired: BTreeSet::new() };
                concerned = self.subscription.apply(&operation, self.now_ms, &mut ear);
                let acquired = ear.acquired;
                self.dispatcher.applied(&operation);
                self.release(&operation, &acquired);
            }
        }
        concerned
    }

    fn note_levels(&mut self, count: u32) {
        let end = self.subscription.end();
        for offset in (end..end + u64::from(count)).filter(|_| self.world.levels > 0) {
            self.subscription.note_level(offset..offset + 1, self.world.level(offset));
        }
    }

    /// What is dealt in a queue with levels is the first of what is ready and was not dealt before.
    fn check_levels(&self, dispatched: &[Dispatched]) {
        let ready = |offset: &u64| self.subscription.state(*offset) == MessageState::Ready;
        let mut ready: Vec<u64> =
            (self.subscription.floor()..self.subscription.end()).filter(ready).collect();
        for body in &self.journal {
            for (_, operation) in OperationList::decode(body).expect("just written").iter() {
                if let Operation::Acquired { ranges, .. } = operation {
                    ready.retain(|offset| !ranges.iter().any(|range| range.contains(offset)));
                }
            }
        }
        ready.sort_by_key(|offset| (std::cmp::Reverse(self.world.level(*offset)), *offset));
        let dealt: Vec<u64> = dispatched.iter().map(|dispatched| dispatched.offset).collect();
        assert_eq!(dealt, ready[..dealt.len()]);
    }

    /// Sends what waited for this acquisition; what was not acquired is not sent.
    fn release(&mut self, operation: &Operation<'_>, acquired: &BTreeSet<u64>) {
        let Operation::Acquired { ranges, .. } = operation else { return };
        let named = |offset| ranges.iter().any(|range| range.contains(&offset));
        let (done, kept): (Vec<_>, _) = self.held_back.drain(..).partition(|d| named(d.offset));
        self.held_back = kept;
        done.into_iter().filter(|d| acquired.contains(&d.offset)).for_each(|d| self.send(d));
    }

    fn send(&mut self, dispatched: Dispatched) {
        let is_new = self.seen.insert(dispatched.offset);
        assert!(is_new || dispatched.redelivered, "an unflagged message was seen before: {dispatched:?}");
        self.sent.push(dispatched);
    }

    /// Deals messages and proposes what that takes.
    pub fn dispatch(&mut self) {
        let mut decided = Decided::default();
        let (subscription, demands) = (&self.subscription, &mut self.demands);
        self.dispatcher.dispatch(subscription, demands, self.now_ms, 1_000, &mut self.world, &mut decided);
        if self.world.levels > 0 {
            self.check_levels(&decided.dispatched);
        }
        self.activated.append(&mut decided.active);
        if let Some(to) = decided.claim {
            self.propose(&Operation::Claimed { to });
        }
        let expired = RangesBuffer::of(decided.expired.into_iter().map(|offset| offset..offset + 1));
        if !expired.ranges().is_empty() {
            let (ranges, held_by) = (expired.ranges(), HeldBy::Any);
            self.propose(&Operation::Settled { ranges, held_by, why: Settlement::Expired });
        }
        self.propose_acquired(&decided.dispatched);
        for dispatched in decided.dispatched {
            if dispatched.waits {
                self.held_back.push(dispatched);
            } else {
                self.send(dispatched);
            }
        }
    }

    fn propose_acquired(&mut self, dispatched: &[Dispatched]) {
        let mut by_owner: BTreeMap<MessageOwner, Vec<Range<u64>>> = BTreeMap::new();
        for each in dispatched {
            by_owner.entry(each.owner).or_default().push(each.offset..each.offset + 1);
        }
        for (owner, mut ranges) in by_owner {
            ranges.sort_by_key(|range| range.start);
            let ranges = RangesBuffer::of(ranges);
            self.token += u64::from(self.token > 0);
            let terms = Terms { owner, timeout_ms: self.timeout_ms, token: self.token };
            self.propose(&Operation::Acquired { ranges: ranges.ranges(), terms });
        }
    }

    /// Deals and applies until nothing more comes of it. Gives what was sent, in the order of the offsets.
    pub fn pump(&mut self) -> Vec<Dispatched> {
        let from = self.sent.len();
        self.commit(usize::MAX);
        self.fire();
        self.dispatch();
        while !self.journal.is_empty() {
            self.commit(usize::MAX);
            self.dispatch();
        }
        let mut sent = self.sent[from..].to_vec();
        sent.sort_by_key(|sent| sent.offset);
        sent
    }

    /// Pumps, and tells who was sent which.
    pub fn pumped(&mut self) -> Vec<(u64, u64)> {
        self.pump().into_iter().map(|d| (d.member.0, d.offset)).collect()
    }

    /// Applies what timers and deadlines say at this time.
    pub fn fire(&mut self) {
        let later = self.timers.split_off(&(self.now_ms + 1, 0));
        for ((_, offset), (resets, attempts)) in std::mem::replace(&mut self.timers, later) {
            self.propose(&Operation::Due { offset, resets, attempts });
        }
        let mut overdue = Vec::new();
        self.dispatcher.overdue(&self.subscription, self.now_ms, |messages| overdue.push(messages));
        if !overdue.is_empty() {
            let ranges = RangesBuffer::of(overdue);
            self.returned(&ranges, HeldBy::Overdue, true, 0);
        }
        self.commit(usize::MAX);
    }

    pub fn publish(&mut self, count: u32) {
        self.apply(&Operation::Published { count, transaction: None });
    }

    fn returned(&mut self, ranges: &RangesBuffer, held_by: HeldBy, counted: bool, not_before_ms: i64) {
        self.propose(&Operation::Returned { ranges: ranges.ranges(), held_by, counted, not_before_ms });
    }

    /// A session settles a message. Tells whether it was its own.
    pub fn settle(&mut self, session: u64, offset: u64) -> bool {
        let (ranges, held_by) = (range(offset, offset + 1), HeldBy::Owner(MessageOwner::Session(session)));
        let why = Settlement::Acknowledged;
        self.apply(&Operation::Settled { ranges: ranges.ranges(), held_by, why }) == 1
    }

    /// Gives a message back, at once or not before a time.
    pub fn give_back(&mut self, offset: u64, counted: bool, not_before_ms: i64) {
        self.returned(&range(offset, offset + 1), HeldBy::Any, counted, not_before_ms);
        self.commit(usize::MAX);
    }

    pub fn end_session(&mut self, session: u64, counted: bool) {
        self.apply(&Operation::Released { owner: MessageOwner::Session(session), counted });
    }

    /// The node dies, or stops in order, and starts again: entries that were not applied are lost, and so are sessions.
    pub fn restart(&mut self, clean: bool) {
        if clean {
            self.commit(usize::MAX);
        }
        self.journal.clear();
        self.held_back.clear();
        self.subscription = restored(&self.subscription);
        self.dispatcher = self.new_dispatcher();
        self.demands = Demands::default();
        self.apply(&Operation::Started { clean });
    }
}

/// What a checkpoint and a start make of a subscription.
fn restored(subscription: &Subscription) -> Subscription {
    let mut pages = vec![SubscriptionPage::Header];
    pages.extend((0..=subscription.end() / CONTAINER).flat_map(|number| {
        [
            SubscriptionPage::Container(number),
            SubscriptionPage::Owners(number),
            SubscriptionPage::Attempts(number),
            SubscriptionPage::Levels(number),
        ]
    }));
    pages.extend(subscription.consumers().map(|(number, _)| SubscriptionPage::Consumer(number)));
    let mut again = Subscription::default();
    for page in pages {
        let mut stored = Vec::new();
        if subscription.encode_page(page, &mut stored) {
            again.decode_page(page, &stored).expect("just written");
        }
    }
    again.recount();
    again
}

//! Dealing ready messages to members.

use std::ops::Range;

use super::deadlines::InFlightDeadlines;
use super::groups::{GroupOrder, GroupTable};
use super::member::Seat;
use super::range_set::RangeSet;
use super::{
    Credit, Deliveries, DemandMember, Demands, Dispatched, LOOKAHEAD, MemberNo, MessageFacts, Messages,
};
use crate::subscription::{MessageOwner, MessageState, Operation, Settlement, Subscription, Touched};

/// Who of several members may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Access {
    /// All of them.
    #[default]
    Shared,
    /// One at a time: the first of the highest priority.
    SingleActive,
}

/// A member may not attach.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AttachRefused {
    /// A member has the subscription to itself.
    #[error("another consumer has exclusive access")]
    Exclusive,
    /// It wants the subscription to itself, and others are there.
    #[error("exclusive access was asked for, and other consumers are there")]
    InUse,
}

/// The steps in which a claim is raised: as much as credit is in use, within these bounds.
const CLAIM_STEPS: std::ops::RangeInclusive<u64> = 16..=4_096;

/// Members of one priority, served in turn.
#[derive(Debug)]
struct Level {
    priority: i32,
    seats: Vec<Seat>,
    next: usize,
}

/// Where members without a filter are, and what is kept from all.
#[derive(Debug)]
struct Offer {
    /// The first message that no member without a filter was offered.
    cursor: u64,
    /// Messages before the cursor that are to be offered anew.
    again: RangeSet,
    /// Messages that were dealt or expired, and the entry that says so is not applied.
    proposed: RangeSet,
    groups: GroupTable,
    /// Counts what `apply` touched.
    changes: u64,
}

/// A subscription's members and what they were offered.
#[derive(Debug)]
pub struct Dispatcher {
    access: Access,
    levels: Vec<Level>,
    offer: Offer,
    deadlines: InFlightDeadlines,
    active: Option<MemberNo>,
    /// The claim that was asked for.
    claimed: u64,
    /// What is in flight has not been looked at since this was made, or the position moved.
    is_new: bool,
}

/// What one call of [`Dispatcher::dispatch`] goes by.
struct Round<'a, M, D> {
    subscription: &'a Subscription,
    now_ms: i64,
    messages: &'a mut M,
    out: &'a mut D,
    left: u32,
}

/// A message that a member is to have.
struct Found {
    offset: u64,
    facts: MessageFacts,
    /// It is the first that nobody was offered.
    in_order: bool,
}

impl Dispatcher {
    /// One without members.
    pub fn new(access: Access, order: GroupOrder) -> Self {
        let (cursor, again, proposed, changes) = (0, RangeSet::default(), RangeSet::default(), 0);
        let groups = GroupTable::new(order);
        Self {
            access,
            levels: Vec::new(),
            offer: Offer { cursor, again, proposed, groups, changes },
            deadlines: InFlightDeadlines::default(),
            active: None,
            claimed: 0,
            is_new: true,
        }
    }

    /// Whether nobody takes anything.
    pub fn is_idle(&self) -> bool {
        self.levels.is_empty()
    }

    /// The single active consumer.
    pub fn active(&self) -> Option<MemberNo> {
        self.active
    }

    /// The members, those first that are served first.
    pub fn members(&self) -> impl Iterator<Item = &DemandMember> {
        self.seats().map(|seat| &seat.member)
    }

    fn seats(&self) -> impl Iterator<Item = &Seat> {
        self.levels.iter().flat_map(|level| &level.seats)
    }

    /// Adds a member.
    ///
    /// # Errors
    /// [`AttachRefused`].
    pub fn attach(&mut self, member: DemandMember, exclusive: bool) -> Result<(), AttachRefused> {
        if self.seats().any(|seat| seat.exclusive) {
            return Err(AttachRefused::Exclusive);
        }
        if exclusive && !self.is_idle() {
            return Err(AttachRefused::InUse);
        }
        let place = self.levels.partition_point(|level| level.priority > member.priority);
        if self.levels.get(place).is_none_or(|level| level.priority != member.priority) {
            self.levels.insert(place, Level { priority: member.priority, seats: Vec::new(), next: 0 });
        }
        self.levels[place].seats.push(Seat::new(member, exclusive));
        Ok(())
    }

    /// Takes a member away. What it has in flight stays with its owner.
    pub fn detach(&mut self, member: MemberNo) {
        for level in &mut self.levels {
            if let Some(at) = level.seats.iter().position(|seat| seat.member.number == member) {
                level.seats.remove(at);
                level.next -= usize::from(at < level.next);
            }
        }
        self.levels.retain(|level| !level.seats.is_empty());
        let kept = self.offer.groups.detach(member);
        kept.iter().for_each(|messages| self.offer_again(messages));
        self.active = self.active.filter(|active| *active != member);
    }

    /// Deals ready messages until none is left that anybody takes, or `limit` were dealt. Tells whether there may be more.
    pub fn dispatch(
        &mut self,
        subscription: &Subscription,
        demands: &mut Demands,
        now_ms: i64,
        limit: u32,
        messages: &mut impl Messages,
        out: &mut impl Deliveries,
    ) -> bool {
        if self.is_new && !self.adopt(subscription, messages) {
            return false;
        }
        self.choose_active(subscription, out);
        let mut round = Round { subscription, now_ms, messages, out, left: limit };
        (0..self.levels.len()).any(|level| self.serve_level(level, demands, &mut round))
    }

    /// Takes up what is in flight. Tells whether all of it could be looked at.
    fn adopt(&mut self, subscription: &Subscription, messages: &mut impl Messages) -> bool {
        self.deadlines.rebuild(subscription);
        if let GroupTable::Serial(groups) = &mut self.offer.groups {
            let mut at = subscription.floor();
            while at < subscription.end() {
                let (state, end) = subscription.run(at);
                if matches!(state, MessageState::InFlight | MessageState::Parked) {
                    for offset in at..end {
                        let Some(facts) = messages.facts(offset) else { return false };
                        facts.group.into_iter().for_each(|group| groups.adopt(offset, group));
                    }
                }
                at = end;
            }
        }
        self.is_new = false;
        true
    }

    fn choose_active(&mut self, subscription: &Subscription, out: &mut impl Deliveries) {
        if self.access == Access::Shared {
            return;
        }
        let Some(first) = self.levels.first().map(|level| level.seats[0].member) else { return };
        let before = self.active.and_then(|active| self.members().find(|m| m.number == active)).copied();
        let hands_over = match before {
            None => true,
            Some(before) => first.priority > before.priority && self.has_nothing(subscription, before.owner),
        };
        if hands_over {
            self.active = Some(first.number);
            out.active(first.number);
        }
    }

    fn has_nothing(&self, subscription: &Subscription, owner: MessageOwner) -> bool {
        self.offer.proposed.is_empty() && !subscription.holdings().any(|(_, holding)| holding.owner == owner)
    }

    /// An active consumer that a better one waits for gets nothing more.
    fn may_take(&self, member: &DemandMember) -> bool {
        let best = self.levels.first().map_or(i32::MIN, |level| level.priority);
        self.access == Access::Shared || self.active == Some(member.number) && member.priority >= best
    }

    /// Tells whether it stopped at the limit.
    fn serve_level<M: Messages, D: Deliveries>(
        &mut self,
        level: usize,
        demands: &mut Demands,
        round: &mut Round<'_, M, D>,
    ) -> bool {
        let seats = self.levels[level].seats.len();
        let mut passed_over = 0;
        while passed_over < seats {
            if round.left == 0 {
                return true;
            }
            let at = self.levels[level].next % seats;
            self.levels[level].next = (at + 1) % seats;
            passed_over = if self.serve(level, at, demands, round) { 0 } else { passed_over + 1 };
        }
        false
    }

    /// Deals a member its next message. Tells whether there was one.
    fn serve<M: Messages, D: Deliveries>(
        &mut self,
        level: usize,
        at: usize,
        demands: &mut Demands,
        round: &mut Round<'_, M, D>,
    ) -> bool {
        let member = self.levels[level].seats[at].member;
        let credit = demands.credit(member.demand);
        if !credit.is_open(round.now_ms) || !self.may_take(&member) {
            return false;
        }
        let Some(found) = self.offer.next(&mut self.levels[level].seats[at], round) else { return false };
        demands.draw(member.demand, found.facts.bytes);
        round.left -= 1;
        self.offer.proposed.insert(found.offset..found.offset + 1);
        self.deliver(member, &found, credit, round);
        true
    }

    fn deliver<M: Messages, D: Deliveries>(
        &mut self,
        member: DemandMember,
        found: &Found,
        credit: Credit,
        round: &mut Round<'_, M, D>,
    ) {
        let (subscription, offset) = (round.subscription, found.offset);
        let redelivered = subscription.is_redelivered(offset);
        let is_covered = redelivered || offset < subscription.claim();
        let attempts = subscription.attempts(offset);
        let waits = member.waits || !is_covered;
        let owner = member.owner;
        round.out.deliver(Dispatched { member: member.number, owner, offset, redelivered, attempts, waits });
        if found.in_order && !member.waits {
            self.raise_claim(offset, subscription.claim(), credit, round.out);
        }
    }

    fn raise_claim(&mut self, offset: u64, claim: u64, credit: Credit, out: &mut impl Deliveries) {
        let step = u64::from(credit.messages).clamp(*CLAIM_STEPS.start(), *CLAIM_STEPS.end());
        if offset + step / 2 >= self.claimed.max(claim) {
            self.claimed = offset + 1 + step;
            out.claim(self.claimed);
        }
    }

    /// Messages are to be offered anew to whoever was offered them before.
    fn offer_again(&mut self, messages: Range<u64>) {
        let Range { start, end } = messages;
        self.offer.again.insert(start..end.min(self.offer.cursor));
        for seat in self.levels.iter_mut().flat_map(|level| &mut level.seats) {
            if seat.member.filter.is_some() {
                seat.again.insert(start..end.min(seat.cursor));
            }
        }
    }

    /// An operation that this leader proposed was applied: to be told behind what it touched.
    pub fn applied(&mut self, operation: &Operation<'_>) {
        if let Operation::Acquired { ranges, .. } | Operation::Settled { ranges, .. } = operation
            && !self.offer.proposed.is_empty()
        {
            ranges.iter().for_each(|messages| self.offer.proposed.remove(messages));
        }
    }

    /// The first deadline of what is in flight.
    pub fn next_deadline(&self) -> Option<i64> {
        self.deadlines.first()
    }

    /// What is overdue: to be proposed as returned, under the fence [`Overdue`](crate::subscription::HeldBy::Overdue).
    pub fn overdue(&mut self, subscription: &Subscription, now_ms: i64, each: impl FnMut(Range<u64>)) {
        self.deadlines.overdue(now_ms, subscription, each);
    }
}

impl Offer {
    /// The next message for a member.
    fn next<M: Messages, D: Deliveries>(
        &mut self,
        seat: &mut Seat,
        round: &mut Round<'_, M, D>,
    ) -> Option<Found> {
        loop {
            let (offset, in_order) = self.peek(seat, round.subscription)?;
            let facts = round.messages.facts(offset)?;
            self.looked_at(seat, offset);
            if facts.expires_ms > 0 && facts.expires_ms <= round.now_ms {
                self.proposed.insert(offset..offset + 1);
                round.out.expired(offset);
                continue;
            }
            if seat.member.filter.is_some_and(|filter| !round.messages.passes(filter, offset)) {
                seat.passed += 1;
                continue;
            }
            if self.groups.admit(seat.member.number, offset, facts.group) {
                return Some(Found { offset, facts, in_order });
            }
        }
    }

    /// The first message to offer a member, and whether nobody was offered it.
    fn peek(&mut self, seat: &mut Seat, subscription: &Subscription) -> Option<(u64, bool)> {
        let own = self.own(seat, subscription);
        let again = match seat.member.filter {
            Some(_) => first_ready(&mut seat.again, &self.proposed, subscription),
            None => first_ready(&mut self.again, &self.proposed, subscription),
        };
        let anew = own.into_iter().chain(again).min();
        let next =
            if self.looks_ahead(seat, subscription) { self.behind_cursor(seat, subscription) } else { None };
        match (anew, next) {
            (Some(anew), next) if next.is_none_or(|next| anew < next) => Some((anew, false)),
            (_, next) => next.map(|next| (next, seat.member.filter.is_none())),
        }
    }

    /// The first message that its group keeps for this member.
    fn own(&mut self, seat: &Seat, subscription: &Subscription) -> Option<u64> {
        let member = seat.member.number;
        while let Some(offset) = self.groups.first_of(member) {
            if subscription.state(offset) == MessageState::Ready && !self.proposed.contains(offset) {
                return Some(offset);
            }
            self.groups.take_of(member, offset..offset + 1);
        }
        None
    }

    fn behind_cursor(&mut self, seat: &mut Seat, subscription: &Subscription) -> Option<u64> {
        let cursor = if seat.member.filter.is_some() { &mut seat.cursor } else { &mut self.cursor };
        loop {
            *cursor = subscription.next_ready(*cursor)?;
            match self.proposed.end_of(*cursor) {
                Some(end) => *cursor = end,
                None => return Some(*cursor),
            }
        }
    }

    /// Whether a member may look at messages further on.
    fn looks_ahead(&self, seat: &mut Seat, subscription: &Subscription) -> bool {
        if self.groups.waiting() >= LOOKAHEAD {
            return false;
        }
        if seat.passed >= LOOKAHEAD && seat.counted_at != self.changes {
            seat.passed = subscription.count(MessageState::Ready, subscription.floor()..seat.cursor);
            seat.counted_at = self.changes;
        }
        seat.passed < LOOKAHEAD
    }

    fn looked_at(&mut self, seat: &mut Seat, offset: u64) {
        self.groups.take_of(seat.member.number, offset..offset + 1);
        if seat.member.filter.is_some() {
            return seat.looked_at(offset);
        }
        self.again.remove(offset..offset + 1);
        self.cursor = self.cursor.max(offset + 1);
    }
}

/// The first message of a set that can be offered; those before it that cannot are taken out.
fn first_ready(set: &mut RangeSet, proposed: &RangeSet, subscription: &Subscription) -> Option<u64> {
    while let Some(offset) = set.first() {
        let (state, end) = subscription.run(offset);
        match proposed.end_of(offset) {
            Some(end) => set.remove(offset..end),
            None if state == MessageState::Ready => return Some(offset),
            None => set.remove(offset..end),
        }
    }
    None
}

impl Touched for Dispatcher {
    fn ready(&mut self, messages: Range<u64>) {
        self.offer.changes += 1;
        let mut offered = Vec::new();
        self.offer.groups.returned(messages.clone(), &mut |offset| offered.push(offset));
        offered.into_iter().for_each(|offset| self.offer_again(offset..offset + 1));
        self.offer_again(messages);
    }

    fn acquired(&mut self, messages: Range<u64>, _owner: MessageOwner, deadline_ms: Option<i64>) {
        self.offer.changes += 1;
        if let Some(deadline_ms) = deadline_ms {
            self.deadlines.push(messages, deadline_ms);
        }
    }

    fn settled(&mut self, messages: Range<u64>, _why: Settlement) {
        self.offer.changes += 1;
        let mut offered = Vec::new();
        self.offer.groups.settled(messages, &mut |offset| offered.push(offset));
        offered.into_iter().for_each(|offset| self.offer_again(offset..offset + 1));
    }

    fn reset(&mut self) {
        self.offer.changes += 1;
        self.offer.cursor = 0;
        self.offer.again.clear();
        self.offer.groups = GroupTable::new(self.offer.groups.order());
        self.levels.iter_mut().flat_map(|level| &mut level.seats).for_each(Seat::restart);
        self.is_new = true;
    }
}

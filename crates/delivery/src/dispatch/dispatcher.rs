//! Dealing ready messages to members.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::ops::Range;

use super::deadlines::InFlightDeadlines;
use super::groups::{GroupOrder, GroupTable};
use super::levels::{LevelOffers, first_ready};
use super::member::Seat;
use super::range_set::RangeSet;
use super::{
    Credit, Deliveries, DemandMember, Demands, Dispatched, LOOKAHEAD, MemberNo, MessageFacts, Messages,
};
use crate::subscription::{MessageOwner, MessageState, Operation, Settlement, Subscription, Touched};

/// Which of several members may take.
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
    /// In the order in which they came: numbers rise.
    seats: BTreeMap<MemberNo, Seat>,
    /// Whose turn it is, or that of the one behind it.
    next: MemberNo,
}

/// What became of a member's turn.
enum DealOutcome {
    Dealt,
    /// It takes nothing now.
    Passed,
    /// There is nothing for it, nor for any other that takes whatever there is.
    Nothing,
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
    /// Messages that may have been sent, and the entry that said so was lost.
    seen: RangeSet,
    groups: GroupTable,
    /// What members without a filter are offered where the highest level goes first; cursor and `again` count for nothing then.
    levels: Option<Box<LevelOffers>>,
    /// Counts what `apply` touched.
    changes: u64,
}

/// A subscription's members and what they were offered.
#[derive(Debug)]
pub struct Dispatcher {
    access: Access,
    levels: Vec<Level>,
    /// The member that has the subscription to itself.
    exclusive: Option<MemberNo>,
    /// How many members have a filter.
    filtering: usize,
    offer: Offer,
    deadlines: InFlightDeadlines,
    active: Option<MemberNo>,
    /// The claim that was asked for.
    claimed: u64,
    /// The first message that is not dealt to members.
    until: u64,
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
    until: u64,
}

/// A message that a member is to have.
struct Found {
    offset: u64,
    facts: MessageFacts,
    /// It is the first that no member was offered.
    in_order: bool,
}

impl Dispatcher {
    /// One without members.
    pub fn new(access: Access, order: GroupOrder) -> Self {
        let groups = GroupTable::new(order);
        let (again, proposed, seen) = (RangeSet::default(), RangeSet::default(), RangeSet::default());
        let offer = Offer { cursor: 0, again, proposed, seen, groups, levels: None, changes: 0 };
        Self {
            access,
            levels: Vec::new(),
            exclusive: None,
            filtering: 0,
            offer,
            deadlines: InFlightDeadlines::default(),
            active: None,
            claimed: 0,
            until: u64::MAX,
            is_new: true,
        }
    }

    /// The same where messages of a higher level go first. Members with a filter are offered messages in their order all the same.
    #[must_use]
    pub fn by_level(mut self) -> Self {
        self.offer.levels = Some(Box::default());
        self
    }

    /// Whether no member takes anything.
    pub fn is_idle(&self) -> bool {
        self.levels.is_empty()
    }

    /// Whether nothing is left to be known: no member takes anything, and nothing that was dealt is undecided.
    pub fn is_at_rest(&self) -> bool {
        self.is_idle() && self.offer.proposed.is_empty() && self.offer.seen.is_empty()
    }

    /// How many messages were dealt or expired, and the entries that say so are not applied.
    pub fn undecided(&self) -> u64 {
        self.offer.proposed.len()
    }

    /// The single active consumer.
    pub fn active(&self) -> Option<MemberNo> {
        self.active
    }

    /// The members, those first that are served first.
    pub fn members(&self) -> impl Iterator<Item = &DemandMember> {
        self.seats().map(|seat| &seat.member)
    }

    /// How many there are.
    pub fn member_count(&self) -> usize {
        self.levels.iter().map(|level| level.seats.len()).sum()
    }

    fn seats(&self) -> impl Iterator<Item = &Seat> {
        self.levels.iter().flat_map(|level| level.seats.values())
    }

    /// Adds a member.
    ///
    /// # Errors
    /// [`AttachRefused`].
    pub fn attach(&mut self, member: DemandMember, exclusive: bool) -> Result<(), AttachRefused> {
        if self.exclusive.is_some() {
            return Err(AttachRefused::Exclusive);
        }
        if exclusive && !self.is_idle() {
            return Err(AttachRefused::InUse);
        }
        let place = self.levels.partition_point(|level| level.priority > member.priority);
        if self.levels.get(place).is_none_or(|level| level.priority != member.priority) {
            self.levels.insert(
                place,
                Level { priority: member.priority, seats: BTreeMap::new(), next: MemberNo(0) },
            );
        }
        self.exclusive = exclusive.then_some(member.number);
        self.filtering += usize::from(member.filter.is_some());
        self.levels[place].seats.insert(member.number, Seat::new(member));
        Ok(())
    }

    /// Takes a member away. What it has in flight stays with its owner.
    pub fn detach(&mut self, member: MemberNo) {
        for level in &mut self.levels {
            let gone = level.seats.remove(&member);
            self.filtering -= usize::from(gone.is_some_and(|seat| seat.member.filter.is_some()));
        }
        self.levels.retain(|level| !level.seats.is_empty());
        let kept = self.offer.groups.detach(member);
        kept.iter().for_each(|messages| self.offer_again(messages));
        self.active = self.active.filter(|active| *active != member);
        self.exclusive = self.exclusive.filter(|exclusive| *exclusive != member);
    }

    /// Deals ready messages until none is left that a member takes, or `limit` were dealt. Tells whether there may be more.
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
        let mut round = Round { subscription, now_ms, messages, out, left: limit, until: self.until };
        (0..self.levels.len()).any(|level| self.serve_level(level, demands, &mut round))
    }

    /// Deals nothing to members from this message on, until told otherwise: for what stands before it and is on its way back.
    pub fn deal_before(&mut self, offset: u64) {
        self.until = offset;
    }

    /// Deals one ready message to an owner that is no member, whichever members may take. Tells whether there was one.
    pub fn pull(
        &mut self,
        puller: DemandMember,
        subscription: &Subscription,
        now_ms: i64,
        messages: &mut impl Messages,
        out: &mut impl Deliveries,
    ) -> bool {
        if self.is_new && !self.adopt(subscription, messages) {
            return false;
        }
        let mut round = Round { subscription, now_ms, messages, out, left: 1, until: u64::MAX };
        let found = self.offer.next(&mut Seat::new(puller), &mut round);
        if let Some(found) = &found {
            self.offer.proposed.insert(found.offset..found.offset + 1);
            self.deliver(puller, found, Credit::messages(1), &mut round);
        }
        self.detach(puller.number);
        found.is_some()
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
        let Some(first) = self.members().next().copied() else { return };
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
            let Some(at) = self.levels[level].take_turn() else { return false };
            passed_over = match self.serve(level, at, demands, round) {
                DealOutcome::Dealt => 0,
                DealOutcome::Passed => passed_over + 1,
                DealOutcome::Nothing => {
                    self.levels[level].next = at;
                    return false;
                }
            };
        }
        false
    }

    /// Deals a member its next message.
    fn serve<M: Messages, D: Deliveries>(
        &mut self,
        level: usize,
        at: MemberNo,
        demands: &mut Demands,
        round: &mut Round<'_, M, D>,
    ) -> DealOutcome {
        let best = self.levels.first().map_or(i32::MIN, |level| level.priority);
        let (access, active) = (self.access, self.active);
        let Some(seat) = self.levels[level].seats.get_mut(&at) else { return DealOutcome::Passed };
        let member = seat.member;
        let credit = demands.credit(member.demand);
        // An active consumer that a better one waits for gets nothing more.
        let may_take = access == Access::Shared || active == Some(at) && member.priority >= best;
        if !credit.is_open(round.now_ms) || !may_take {
            return DealOutcome::Passed;
        }
        let Some(found) = self.offer.next(seat, round) else {
            let is_for_all = self.filtering == 0 && matches!(self.offer.groups, GroupTable::Free);
            return if is_for_all { DealOutcome::Nothing } else { DealOutcome::Passed };
        };
        demands.draw(member.demand, found.facts.bytes);
        round.left -= 1;
        self.offer.proposed.insert(found.offset..found.offset + 1);
        self.deliver(member, &found, credit, round);
        DealOutcome::Dealt
    }

    fn deliver<M: Messages, D: Deliveries>(
        &mut self,
        member: DemandMember,
        found: &Found,
        credit: Credit,
        round: &mut Round<'_, M, D>,
    ) {
        let (subscription, offset) = (round.subscription, found.offset);
        let redelivered = subscription.is_redelivered(offset) || self.offer.seen.contains(offset);
        // What this leader alone knows to have been sent is not known after a crash: it waits like any other.
        let is_covered = subscription.is_redelivered(offset) || offset < subscription.claim();
        let attempts = subscription.attempts(offset);
        let waits = member.waits || !is_covered;
        let owner = member.owner;
        let (member_no, bytes) = (member.number, found.facts.bytes);
        round.out.deliver(Dispatched {
            member: member_no,
            owner,
            offset,
            bytes,
            redelivered,
            attempts,
            waits,
        });
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

    /// Messages are to be offered anew to the members that were offered them before.
    fn offer_again(&mut self, messages: Range<u64>) {
        let Range { start, end } = messages;
        match &mut self.offer.levels {
            Some(levels) => levels.ready(start..end),
            None => self.offer.again.insert(start..end.min(self.offer.cursor)),
        }
        if self.filtering == 0 {
            return;
        }
        for seat in self.levels.iter_mut().flat_map(|level| level.seats.values_mut()) {
            if seat.member.filter.is_some() {
                seat.again.insert(start..end.min(seat.cursor));
            }
        }
    }

    /// An operation that this leader proposed was applied: to be told behind what it touched.
    pub fn applied(&mut self, operation: &Operation<'_>) {
        if let Operation::Acquired { ranges, .. } | Operation::Settled { ranges, .. } = operation {
            ranges.iter().for_each(|messages| self.decided(messages));
        }
    }

    /// An entry that proposed these messages was applied: to be told behind what it touched.
    pub fn decided(&mut self, messages: Range<u64>) {
        if !self.offer.proposed.is_empty() {
            self.offer.proposed.remove(messages);
        }
    }

    /// Tells the parts of a range of which nothing is proposed.
    pub fn undealt(&self, messages: Range<u64>, each: impl FnMut(Range<u64>)) {
        self.offer.proposed.gaps(messages, each);
    }

    /// The leader proposes something of these messages by itself: they are not dealt before that is decided.
    pub fn propose(&mut self, messages: Range<u64>) {
        self.offer.proposed.insert(messages);
    }

    /// What was dealt is not proposed, and no member was sent it: it is to be dealt anew.
    pub fn withdraw(&mut self, messages: Range<u64>) {
        self.claimed = 0;
        self.decided(messages.clone());
        self.ready(messages);
    }

    /// The entry that proposed these messages was lost, and they may have been sent: the members that get them are told so.
    pub fn lost(&mut self, messages: Range<u64>) {
        self.offer.seen.insert(messages.clone());
        self.withdraw(messages);
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

impl Level {
    /// Whose turn it is.
    fn take_turn(&mut self) -> Option<MemberNo> {
        let mut behind = self.seats.range(self.next..).map(|(number, _)| *number);
        let turn = behind.next().or_else(|| self.seats.keys().next().copied())?;
        self.next = MemberNo(turn.0 + 1);
        Some(turn)
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
            // What is on its way back may be of any level.
            if offset >= round.until || self.levels.is_some() && round.until < u64::MAX {
                return None;
            }
            let facts = round.messages.facts(offset)?;
            self.looked_at(seat, offset, round.subscription);
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

    /// The first message to offer a member, and whether none was offered it.
    fn peek(&mut self, seat: &mut Seat, subscription: &Subscription) -> Option<(u64, bool)> {
        let own = self.own(seat, subscription);
        if seat.member.filter.is_none() && self.levels.is_some() {
            return self.peek_levels(own, subscription).map(|offset| (offset, false));
        }
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

    /// The first message of the highest level; what a group keeps for the member goes by its level, too.
    fn peek_levels(&mut self, own: Option<u64>, subscription: &Subscription) -> Option<u64> {
        let looks_ahead = self.groups.waiting() < LOOKAHEAD;
        let levels = self.levels.as_mut().filter(|_| looks_ahead);
        let first = levels.and_then(|levels| levels.peek(subscription, &self.proposed));
        let place = |offset: &u64| (Reverse(subscription.level_run(*offset).0), *offset);
        own.into_iter().chain(first).min_by_key(place)
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

    fn looked_at(&mut self, seat: &mut Seat, offset: u64, subscription: &Subscription) {
        self.groups.take_of(seat.member.number, offset..offset + 1);
        if seat.member.filter.is_some() {
            return seat.looked_at(offset);
        }
        if let Some(levels) = &mut self.levels {
            return levels.looked_at(offset, subscription.level_run(offset).0);
        }
        self.again.remove(offset..offset + 1);
        self.cursor = self.cursor.max(offset + 1);
    }
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
        self.offer.seen.remove(messages.clone());
        let mut offered = Vec::new();
        self.offer.groups.settled(messages, &mut |offset| offered.push(offset));
        offered.into_iter().for_each(|offset| self.offer_again(offset..offset + 1));
    }

    fn reset(&mut self) {
        self.offer.changes += 1;
        self.offer.cursor = 0;
        self.offer.again.clear();
        self.offer.levels.iter_mut().for_each(|levels| levels.clear());
        self.offer.groups = GroupTable::new(self.offer.groups.order());
        self.levels.iter_mut().flat_map(|level| level.seats.values_mut()).for_each(Seat::restart);
        self.is_new = true;
    }
}

//! A subscription's durable state, changed by operations alone.

use std::collections::BTreeMap;
use std::ops::Range;

use super::attempts::AttemptRows;
use super::dirty::DirtyBlocks;
use super::owners::Owners;
use super::states::States;
use super::{
    Attempts, AttemptsChange, HeldBy, Holding, MessageOwner, MessageState, OffsetRanges, Operation,
    Settlement, Terms, Touched,
};

/// How far below the floor a forced transfer reaches: what is settled in order is not remembered one by one.
const FARTHEST_FORCE: u64 = 1 << 24;

/// What a subscription knows of its messages: the same on every replica.
#[derive(Debug, Default)]
pub struct Subscription {
    pub(super) states: States,
    /// Messages below may have been sent.
    pub(super) claim: u64,
    /// Messages below may have been sent before the node died, or the position moved.
    pub(super) suspect: u64,
    /// How often everything was reset.
    pub(super) resets: u32,
    pub(super) sealed: bool,
    /// Nothing of a stored header differs from this.
    pub(super) header_clean: bool,
    /// No message before it is ready; follows from the states.
    ready_from: u64,
    pub(super) busy: Option<Box<Busy>>,
}

/// What is there while messages are in flight, were returned, or consumers have names.
#[derive(Debug, Default)]
pub(super) struct Busy {
    pub owners: Owners,
    pub attempts: AttemptRows,
    pub consumers: BTreeMap<u64, Box<str>>,
    pub dirty_containers: DirtyBlocks,
    pub dirty_consumers: DirtyBlocks,
}

impl HeldBy {
    /// What a transaction decides is touched by nothing else.
    fn admits(self, holding: &Holding, now_ms: i64) -> bool {
        let decided_elsewhere =
            matches!(holding.owner, MessageOwner::Prepared(_) | MessageOwner::Publishing(_));
        match self {
            Self::Any => !decided_elsewhere,
            Self::Overdue => !decided_elsewhere && holding.deadline_ms().is_some_and(|at| at <= now_ms),
            Self::Owner(owner) => holding.owner == owner,
            Self::Token(token) => holding.token == token && token != 0,
        }
    }
}

/// What may happen to messages that an operation names.
#[derive(Clone, Copy)]
struct Wanted {
    held_by: HeldBy,
    now_ms: i64,
    ready: bool,
    parked: bool,
    /// In flight even with a transaction.
    always: bool,
}

impl Wanted {
    const fn in_flight(held_by: HeldBy, now_ms: i64) -> Self {
        Self { held_by, now_ms, ready: false, parked: false, always: false }
    }

    fn settling(held_by: HeldBy, why: Settlement, now_ms: i64) -> Self {
        let any = held_by == HeldBy::Any;
        Self { held_by, now_ms, ready: any, parked: any, always: any && why == Settlement::Gone }
    }
}

impl Subscription {
    /// One whose first message is that at `start`; what stands before it in the log is not for it.
    pub fn new(start: u64) -> Self {
        let mut new = Self::default();
        (new.states.floor, new.states.head, new.states.end) = (start, start, start);
        new.ready_from = start;
        new
    }

    /// The first message that is not settled; the end if all are.
    pub fn floor(&self) -> u64 {
        self.states.floor
    }

    /// One behind the last message published.
    pub fn end(&self) -> u64 {
        self.states.end
    }

    /// The claim: messages below it may have been sent.
    pub fn claim(&self) -> u64 {
        self.claim
    }

    /// How often everything was reset.
    pub fn resets(&self) -> u32 {
        self.resets
    }

    /// Whether it takes in nothing more.
    pub fn is_sealed(&self) -> bool {
        self.sealed
    }

    /// Where a message stands.
    pub fn state(&self, offset: u64) -> MessageState {
        self.states.state(offset)
    }

    /// The state of a message, and where a run of messages like it ends (a longer run may follow).
    pub fn run(&self, offset: u64) -> (MessageState, u64) {
        let (state, end) = self.states.run(offset);
        (state, end.min(self.states.end.max(offset + 1)))
    }

    /// The first ready message at or behind `from`.
    pub fn next_ready(&self, from: u64) -> Option<u64> {
        self.states.next_ready(from.max(self.ready_from))
    }

    /// How many messages of a range are in a state.
    pub fn count(&self, state: MessageState, range: Range<u64>) -> u64 {
        self.states.count(state, range.start, range.end.min(self.states.end))
    }

    /// The terms on which a message is in flight.
    pub fn holding(&self, offset: u64) -> Option<Holding> {
        self.holding_run(offset).map(|(holding, _)| holding)
    }

    /// The terms on which a message is in flight, and where those that share them end; some of these may be so no longer.
    pub fn holding_run(&self, offset: u64) -> Option<(Holding, u64)> {
        if self.states.state(offset) != MessageState::InFlight {
            return None;
        }
        self.busy.as_ref()?.owners.find(offset)
    }

    /// What is in flight, ascending: runs of one owner, in which single messages may be so no longer.
    pub fn holdings(&self) -> impl Iterator<Item = (Range<u64>, Holding)> {
        let owners = self.busy.iter().flat_map(|busy| busy.owners.iter());
        owners.map(|(start, end, holding)| (start..end, holding))
    }

    /// The counts of a message that was returned or transferred.
    pub fn attempts(&self, offset: u64) -> Option<Attempts> {
        let kept = self.states.state(offset) != MessageState::Settled;
        kept.then(|| self.busy.as_ref()?.attempts.get(offset)).flatten()
    }

    /// Whether a ready message was perhaps delivered before.
    pub fn is_redelivered(&self, offset: u64) -> bool {
        offset < self.suspect || self.attempts(offset).is_some()
    }

    /// The named consumers.
    pub fn consumers(&self) -> impl Iterator<Item = (u64, &str)> {
        let consumers = self.busy.iter().flat_map(|busy| &busy.consumers);
        consumers.map(|(number, name)| (*number, &**name))
    }

    /// Whether an operation would concern every message that it names.
    pub fn admits(&self, operation: &Operation<'_>, time_ms: i64) -> bool {
        match *operation {
            Operation::Published { count, .. } => {
                !self.sealed && self.states.end.checked_add(count.into()).is_some()
            }
            Operation::Acquired { ranges, .. } => self.is_ready(ranges),
            Operation::Settled { ranges, held_by, why } => {
                self.all(ranges, Wanted::settling(held_by, why, time_ms))
            }
            Operation::Returned { ranges, held_by, .. }
            | Operation::Extended { ranges, held_by, .. }
            | Operation::Prepared { ranges, held_by, .. } => {
                self.all(ranges, Wanted::in_flight(held_by, time_ms))
            }
            Operation::Transferred { ranges, .. } => {
                self.all(ranges, Wanted::in_flight(HeldBy::Any, time_ms))
            }
            Operation::Due { offset, resets, .. } => self.is_due(offset, resets),
            Operation::SealedIfEmpty => self.states.floor == self.states.end,
            _ => true,
        }
    }

    fn is_ready(&self, ranges: OffsetRanges<'_>) -> bool {
        ranges.iter().all(|range| self.count(MessageState::Ready, range.clone()) == range.end - range.start)
    }

    fn is_due(&self, offset: u64, resets: u32) -> bool {
        resets == self.resets && self.states.state(offset) == MessageState::Parked
    }

    fn all(&self, ranges: OffsetRanges<'_>, wanted: Wanted) -> bool {
        let mut found = 0;
        for range in ranges.iter() {
            let mut at = range.start;
            while let Some((from, to, _)) = self.piece(at, range.end, wanted) {
                found += to - from;
                at = to;
            }
        }
        found == ranges.messages()
    }

    /// The first run of messages in a range that are what is wanted, with their terms if they are in flight.
    fn piece(&self, from: u64, to: u64, wanted: Wanted) -> Option<(u64, u64, Option<Holding>)> {
        let (mut at, to) = (from.max(self.states.floor), to.min(self.states.end));
        while at < to {
            let (state, end) = self.states.run(at);
            let end = end.min(to);
            match state {
                MessageState::Ready if wanted.ready => return Some((at, end, None)),
                MessageState::Parked if wanted.parked => return Some((at, end, None)),
                MessageState::InFlight => {
                    let (holding, run_end) = self.owner_run(at);
                    let end = end.min(run_end);
                    if wanted.always || wanted.held_by.admits(&holding, wanted.now_ms) {
                        return Some((at, end, Some(holding)));
                    }
                    at = end;
                }
                _ => at = end,
            }
        }
        None
    }

    fn owner_run(&self, offset: u64) -> (Holding, u64) {
        let found = self.busy.as_ref().and_then(|busy| busy.owners.find(offset));
        found.expect("what is in flight has an owner")
    }

    /// Applies an operation, at its block's time. Tells how many messages it concerned (of others: 1 if it did anything).
    pub fn apply(&mut self, operation: &Operation<'_>, time_ms: i64, out: &mut impl Touched) -> u64 {
        self.header_clean = false;
        match *operation {
            Operation::Published { count, transaction } => self.publish(count, transaction, time_ms, out),
            Operation::Acquired { ranges, terms } => self.acquire(ranges, terms.from(time_ms), out),
            Operation::Taken { count, terms } => self.take(count, terms.from(time_ms), out),
            Operation::Returned { ranges, held_by, counted, not_before_ms } => {
                let back = Back { counted, not_before_ms };
                self.each(ranges, Wanted::in_flight(held_by, time_ms), |me, from, to, _| {
                    me.give_back(from, to, back, out)
                })
            }
            Operation::Settled { ranges, held_by, why } => {
                self.each(ranges, Wanted::settling(held_by, why, time_ms), |me, from, to, held| {
                    me.settle(from, to, held.is_some(), why, out)
                })
            }
            Operation::Extended { ranges, held_by, timeout_ms, phase } => {
                self.each(ranges, Wanted::in_flight(held_by, time_ms), |me, from, to, held| {
                    let Some(held) = held else { return };
                    me.rehold(from, to, held.extended(time_ms, timeout_ms, phase), out);
                })
            }
            Operation::Transferred { .. } => self.transfer(operation, time_ms, out),
            Operation::Prepared { ranges, held_by, transaction } => {
                let terms = Terms { owner: MessageOwner::Prepared(transaction), timeout_ms: 0, token: 0 };
                let wanted = Wanted::in_flight(held_by, time_ms);
                self.each(ranges, wanted, |me, from, to, _| me.rehold(from, to, terms.from(time_ms), out))
            }
            _ => self.apply_rare(operation, out),
        }
    }

    fn apply_rare(&mut self, operation: &Operation<'_>, out: &mut impl Touched) -> u64 {
        let uncounted = Back { counted: false, not_before_ms: 0 };
        match *operation {
            Operation::Reset { to, everything } => self.reset(to, everything, out),
            Operation::Due { offset, resets, attempts } => self.unpark(offset, resets, attempts, out),
            Operation::Claimed { to } => {
                self.claim = self.claim.max(to);
                1
            }
            Operation::Released { owner, counted } => {
                let back = Back { counted, ..uncounted };
                self.each_of(|o| o == owner, |me, from, to| me.give_back(from, to, back, out))
            }
            Operation::Started { clean } => {
                let claimed = self.claim.min(self.states.end);
                self.suspect = if clean { self.suspect } else { self.suspect.max(claimed) };
                let ended = |owner| matches!(owner, MessageOwner::Session(_) | MessageOwner::Lease);
                self.each_of(ended, |me, from, to| me.give_back(from, to, uncounted, out))
            }
            Operation::Decided { transaction, commit } => self.decide(transaction, commit, out),
            Operation::ConsumerNamed { number, name } => self.name_consumer(number, Some(name)),
            Operation::ConsumerForgotten { number } => {
                let why = Settlement::Dropped;
                let of = |owner| owner == MessageOwner::Named(number);
                let settled = self.each_of(of, |me, from, to| me.settle(from, to, true, why, out));
                settled + self.name_consumer(number, None)
            }
            Operation::SealedIfEmpty => {
                let seals = self.states.floor == self.states.end && !self.sealed;
                self.sealed |= seals;
                seals.into()
            }
            _ => 0,
        }
    }

    fn publish(&mut self, count: u32, transaction: Option<u64>, time_ms: i64, out: &mut impl Touched) -> u64 {
        let (from, to) = (self.states.end, self.states.end + u64::from(count));
        if self.sealed || count == 0 {
            return 0;
        }
        self.states.end = to;
        match transaction {
            None => out.ready(from..to),
            Some(id) => {
                let terms = Terms { owner: MessageOwner::Publishing(id), timeout_ms: 0, token: 0 };
                self.hold(from, to, terms.from(time_ms), out);
            }
        }
        count.into()
    }

    fn acquire(&mut self, ranges: OffsetRanges<'_>, holding: Holding, out: &mut impl Touched) -> u64 {
        let ready = Wanted { ready: true, ..NOT_IN_FLIGHT };
        self.each(ranges, ready, |me, from, to, _| me.hold(from, to, holding, out))
    }

    fn take(&mut self, count: u32, holding: Holding, out: &mut impl Touched) -> u64 {
        let mut left = u64::from(count);
        while left > 0 {
            let Some(from) = self.next_ready(self.ready_from) else { break };
            let (_, end) = self.states.run(from);
            let to = end.min(self.states.end).min(from + left);
            self.ready_from = to;
            self.hold(from, to, holding, out);
            left -= to - from;
        }
        u64::from(count) - left
    }

    /// Runs `act` for each run of what is wanted in the ranges. Tells how many messages that were.
    fn each(
        &mut self,
        ranges: OffsetRanges<'_>,
        wanted: Wanted,
        mut act: impl FnMut(&mut Self, u64, u64, Option<Holding>),
    ) -> u64 {
        let mut count = 0;
        for range in ranges.iter() {
            let mut at = range.start;
            while let Some((from, to, holding)) = self.piece(at, range.end, wanted) {
                act(self, from, to, holding);
                count += to - from;
                at = to;
            }
        }
        count
    }

    /// Runs `act` for each run of messages in flight with certain owners.
    fn each_of(
        &mut self,
        owner: impl Fn(MessageOwner) -> bool,
        mut act: impl FnMut(&mut Self, u64, u64),
    ) -> u64 {
        let Some(busy) = &self.busy else { return 0 };
        let runs = busy.owners.runs_of(owner);
        let wanted = Wanted { always: true, ..NOT_IN_FLIGHT };
        let mut count = 0;
        for (mut at, end) in runs {
            while let Some((from, to, _)) = self.piece(at, end, wanted) {
                act(self, from, to);
                count += to - from;
                at = to;
            }
        }
        count
    }

    /// The states and the rest, apart.
    pub(super) fn parts(&mut self) -> (&mut States, &mut Busy) {
        (&mut self.states, self.busy.get_or_insert_default())
    }

    fn set(&mut self, from: u64, to: u64, state: MessageState) {
        let (states, busy) = self.parts();
        states.set(from, to, state, &mut |block| {
            busy.dirty_containers.insert(block);
        });
    }

    /// Messages without an owner get one.
    fn hold(&mut self, from: u64, to: u64, holding: Holding, out: &mut impl Touched) {
        self.set(from, to, MessageState::InFlight);
        let (states, busy) = self.parts();
        busy.owners.take(from, to, holding, &|from, to| states.count(MessageState::InFlight, from, to));
        if !busy.attempts.is_empty() {
            busy.attempts.update(from, to, |known| known.map(Attempts::acquired_again));
        }
        out.acquired(from..to, holding.owner, holding.deadline_ms());
    }

    /// Messages in flight get other terms.
    fn rehold(&mut self, from: u64, to: u64, holding: Holding, out: &mut impl Touched) {
        let (states, busy) = self.parts();
        busy.owners.release(from, to);
        busy.owners.take(from, to, holding, &|from, to| states.count(MessageState::InFlight, from, to));
        out.acquired(from..to, holding.owner, holding.deadline_ms());
    }

    fn give_back(&mut self, from: u64, to: u64, back: Back, out: &mut impl Touched) {
        let (_, busy) = self.parts();
        busy.owners.release(from, to);
        busy.attempts.update(from, to, |known| Some(known.unwrap_or(Attempts::FIRST).back(back.counted)));
        if back.not_before_ms > 0 {
            return self.park(from, to, back.not_before_ms, out);
        }
        self.make_ready(from, to, out);
    }

    fn park(&mut self, from: u64, to: u64, until_ms: i64, out: &mut impl Touched) {
        self.set(from, to, MessageState::Parked);
        let resets = self.resets;
        let (_, busy) = self.parts();
        for offset in from..to {
            out.parked(offset, until_ms, resets, busy.attempts.get(offset).unwrap_or_default());
        }
        busy.attempts.update(from, to, |_| None);
    }

    fn unpark(&mut self, offset: u64, resets: u32, attempts: Attempts, out: &mut impl Touched) -> u64 {
        if !self.is_due(offset, resets) {
            return 0;
        }
        let (_, busy) = self.parts();
        busy.attempts.update(offset, offset + 1, |_| Some(attempts));
        self.make_ready(offset, offset + 1, out);
        1
    }

    fn make_ready(&mut self, from: u64, to: u64, out: &mut impl Touched) {
        self.set(from, to, MessageState::Ready);
        self.ready_from = self.ready_from.min(from);
        out.ready(from..to);
    }

    fn settle(&mut self, from: u64, to: u64, in_flight: bool, why: Settlement, out: &mut impl Touched) {
        self.set(from, to, MessageState::Settled);
        let (states, busy) = self.parts();
        if in_flight {
            busy.owners.release(from, to);
        }
        if !busy.attempts.is_empty() {
            busy.attempts.settle(from, to);
            busy.attempts.drop_below(states.floor);
        }
        out.settled(from..to, why);
    }

    fn transfer(&mut self, operation: &Operation<'_>, time_ms: i64, out: &mut impl Touched) -> u64 {
        let Operation::Transferred { ranges, terms, min_idle_ms, since_ms, attempts, force } = *operation
        else {
            return 0;
        };
        let holding = Holding { since_ms: since_ms.unwrap_or(time_ms), ..terms.from(time_ms) };
        let mut transferred = 0;
        self.each(ranges, Wanted::in_flight(HeldBy::Any, time_ms), |me, from, to, held| {
            let idle = held.map_or(0, |held| time_ms.saturating_sub(held.since_ms));
            if idle >= min_idle_ms.into() {
                me.rehold(from, to, holding, out);
                me.change_attempts(from, to, attempts);
                transferred += to - from;
            }
        });
        if force {
            transferred += self.force(ranges, holding, attempts, out);
        }
        transferred
    }

    /// What is ready or settled is in flight again.
    fn force(
        &mut self,
        ranges: OffsetRanges<'_>,
        holding: Holding,
        attempts: AttemptsChange,
        out: &mut impl Touched,
    ) -> u64 {
        let (states, busy) = self.parts();
        let lowest = ranges.iter().next().map_or(u64::MAX, |range| range.start);
        if lowest < states.floor && states.floor - lowest <= FARTHEST_FORCE {
            states.lower_floor(lowest, &mut |block| {
                busy.dirty_containers.insert(block);
            });
        }
        let mut count = 0;
        for range in ranges.iter() {
            let (mut at, to) = (range.start.max(self.states.floor), range.end.min(self.states.end));
            while at < to {
                let (state, end) = self.states.run(at);
                let end = end.min(to);
                if matches!(state, MessageState::Ready | MessageState::Settled) {
                    self.forget_attempts_of(state, at, end);
                    self.hold(at, end, holding, out);
                    self.change_attempts(at, end, attempts);
                    count += end - at;
                }
                at = end;
            }
        }
        // What was not taken is settled as before, and lies below the floor again.
        let (states, busy) = self.parts();
        states.settle_floor(&mut |block| {
            busy.dirty_containers.insert(block);
        });
        count
    }

    /// A row may still span what is settled.
    fn forget_attempts_of(&mut self, state: MessageState, from: u64, to: u64) {
        if state == MessageState::Settled {
            self.parts().1.attempts.update(from, to, |_| None);
        }
    }

    fn change_attempts(&mut self, from: u64, to: u64, change: AttemptsChange) {
        let (_, busy) = self.parts();
        match change {
            AttemptsChange::Keep => {}
            AttemptsChange::Add => {
                busy.attempts
                    .update(from, to, |known| Some(known.unwrap_or(Attempts::FIRST).acquired_again()));
            }
            AttemptsChange::Set(acquired) => busy.attempts.update(from, to, |known| {
                let returned = known.map_or(0, |known| known.returned);
                Some(Attempts { acquired, returned })
            }),
        }
    }

    fn decide(&mut self, transaction: u64, commit: bool, out: &mut impl Touched) -> u64 {
        let (acknowledging, publishing) =
            (MessageOwner::Prepared(transaction), MessageOwner::Publishing(transaction));
        let back = Back { counted: false, not_before_ms: 0 };
        let acknowledged = self.each_of(
            |owner| owner == acknowledging,
            |me, from, to| match commit {
                true => me.settle(from, to, true, Settlement::Acknowledged, out),
                false => me.give_back(from, to, back, out),
            },
        );
        let published = self.each_of(
            |owner| owner == publishing,
            |me, from, to| match commit {
                true => me.first_ready(from, to, out),
                false => me.settle(from, to, true, Settlement::Dropped, out),
            },
        );
        acknowledged + published
    }

    fn first_ready(&mut self, from: u64, to: u64, out: &mut impl Touched) {
        let (_, busy) = self.parts();
        busy.owners.release(from, to);
        self.make_ready(from, to, out);
    }

    fn name_consumer(&mut self, number: u64, name: Option<&str>) -> u64 {
        let (_, busy) = self.parts();
        let before = match name {
            Some(name) => busy.consumers.insert(number, name.into()).is_none(),
            None => busy.consumers.remove(&number).is_some(),
        };
        busy.dirty_consumers.insert(number);
        before.into()
    }

    fn reset(&mut self, to: u64, everything: bool, out: &mut impl Touched) -> u64 {
        let to = to.min(self.states.end);
        let seen = self.claim.min(self.states.end).max(self.states.last_unready_end());
        self.suspect = self.suspect.max(seen).max(self.busy.as_ref().map_or(0, |busy| busy.attempts.end()));
        let idle = self.busy.as_ref().is_none_or(|busy| busy.owners.is_empty());
        let all = self.states.floor..self.states.end;
        if everything || idle && self.count(MessageState::Parked, all) == 0 {
            self.reset_all(to);
        } else {
            self.reset_around(to);
        }
        self.ready_from = self.states.floor;
        out.reset();
        1
    }

    fn reset_all(&mut self, to: u64) {
        self.resets += 1;
        let (states, busy) = self.parts();
        states.restart_at(to, &mut |block| {
            busy.dirty_containers.insert(block);
        });
        busy.owners.clear();
        busy.attempts.clear();
    }

    /// In flight and parked messages stay so.
    fn reset_around(&mut self, to: u64) {
        let (states, busy) = self.parts();
        states.lower_floor(to, &mut |block| {
            busy.dirty_containers.insert(block);
        });
        // In this order, or the floor would move on over what is to be ready again.
        self.turn(to, self.states.end, MessageState::Settled, MessageState::Ready);
        self.turn(self.states.floor, to, MessageState::Ready, MessageState::Settled);
    }

    fn turn(&mut self, from: u64, to: u64, old: MessageState, new: MessageState) {
        let mut at = from;
        while at < to {
            let (state, end) = self.states.run(at);
            let end = end.min(to);
            if state == old {
                self.set(at, end, new);
                let (_, busy) = self.parts();
                busy.attempts.update(at, end, |_| None);
            }
            at = end;
        }
    }

    /// Gives back the memory of what is idle.
    pub fn shrink(&mut self) {
        self.states.shrink();
        if self.busy.as_ref().is_some_and(|busy| busy.is_idle()) {
            self.busy = None;
        }
    }

    /// Bytes of memory, about.
    pub fn bytes(&self) -> usize {
        let busy = self.busy.as_ref().map_or(0, |busy| busy.bytes());
        size_of::<Self>() + self.states.bytes() + busy
    }
}

/// How messages go back.
#[derive(Clone, Copy)]
struct Back {
    counted: bool,
    not_before_ms: i64,
}

/// Nothing in flight carries token 0 as a fence.
const NOT_IN_FLIGHT: Wanted = Wanted::in_flight(HeldBy::Token(0), 0);

impl Terms {
    fn from(self, time_ms: i64) -> Holding {
        let Self { owner, timeout_ms, token } = self;
        Holding { owner, phase: 0, since_ms: time_ms, timeout_ms, token }
    }
}

impl Holding {
    fn extended(self, time_ms: i64, timeout_ms: u32, phase: u8) -> Self {
        let already = u32::try_from(time_ms.saturating_sub(self.since_ms).max(0)).unwrap_or(u32::MAX);
        let timeout_ms = if timeout_ms == 0 { 0 } else { already.saturating_add(timeout_ms) };
        Self { timeout_ms, phase, ..self }
    }
}

impl Attempts {
    fn acquired_again(self) -> Self {
        Self { acquired: self.acquired.saturating_add(1), ..self }
    }

    fn back(self, counted: bool) -> Self {
        Self { returned: self.returned.saturating_add(counted.into()), ..self }
    }
}

impl Busy {
    fn is_idle(&self) -> bool {
        self.owners.is_empty()
            && self.attempts.is_empty()
            && self.consumers.is_empty()
            && self.dirty_containers.is_empty()
            && self.dirty_consumers.is_empty()
            && self.owners.dirty.is_empty()
            && self.attempts.dirty.is_empty()
    }

    fn bytes(&self) -> usize {
        let dirty = self.dirty_containers.len() + self.owners.dirty.len() + self.attempts.dirty.len();
        let consumers: usize = self.consumers.values().map(|name| 48 + name.len()).sum();
        size_of::<Self>() + self.owners.bytes() + self.attempts.bytes() + consumers + dirty * 12
    }
}

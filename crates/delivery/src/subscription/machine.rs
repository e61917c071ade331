//! A subscription's durable state, changed by operations alone.

use std::collections::BTreeMap;
use std::ops::Range;

use super::appended::AppendedRows;
use super::dirty::DirtyBlocks;
use super::levels::LevelTable;
use super::owners::Owners;
use super::rows::Rows;
use super::states::States;
use super::{
    Attempts, HeldBy, Holding, MessageOwner, MessageState, OffsetRanges, Operation, RangesBuffer, Settlement,
    Terms, Touched,
};
use crate::policy::{Backlog, DeathPolicy, DeathReason, LengthLimit};

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
    /// What becomes of messages that are given up; follows from the queue's settings.
    pub(super) deaths: DeathPolicy,
    /// No message before it is ready; follows from the states.
    pub(super) ready_from: u64,
    /// How many messages are ready; follows from the states.
    ready: u64,
    pub(super) busy: Option<Box<Busy>>,
}

/// What is there while messages are in flight, were returned, or consumers have names.
#[derive(Debug, Default)]
pub(super) struct Busy {
    pub owners: Owners,
    pub attempts: Rows<Attempts>,
    pub sizes: AppendedRows<u32>,
    /// Bytes of what is ready; follows from the sizes and the states.
    pub ready_bytes: u64,
    pub levels: LevelTable,
    pub expiries: AppendedRows<i64>,
    pub consumers: BTreeMap<u64, Box<str>>,
    pub dirty_containers: DirtyBlocks,
    pub dirty_consumers: DirtyBlocks,
}

impl HeldBy {
    /// What a transaction decides, or is to be published elsewhere, is touched by nothing else.
    fn admits(self, holding: &Holding, now_ms: i64) -> bool {
        let decided_elsewhere = matches!(
            holding.owner,
            MessageOwner::Prepared(_) | MessageOwner::Publishing(_) | MessageOwner::DeadLetter(_)
        );
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
pub(super) struct Wanted {
    held_by: HeldBy,
    now_ms: i64,
    ready: bool,
    parked: bool,
    /// In flight even with a transaction.
    always: bool,
}

impl Wanted {
    pub(super) const fn in_flight(held_by: HeldBy, now_ms: i64) -> Self {
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

    /// What is ready: how many, and of those whose [size](Self::note_size) was told how many bytes.
    pub fn backlog(&self) -> Backlog {
        Backlog { messages: self.ready, bytes: self.busy.as_ref().map_or(0, |busy| busy.ready_bytes) }
    }

    /// Tells that so many messages of one size are published next, behind those that were told of. Kept where a limit asks for it.
    pub fn note_size(&mut self, count: u32, size: u32) {
        let (states, busy) = self.parts();
        let from = states.end.max(busy.sizes.end());
        busy.sizes.add(from, from + u64::from(count), size);
    }

    /// Tells the level of messages that are published next. Kept where a queue has priorities; what nothing is told of has level 0.
    pub fn note_level(&mut self, messages: Range<u64>, level: u8) {
        self.parts().1.levels.add(messages, level);
    }

    /// The levels of which there are unsettled messages, the highest first, and level 0.
    pub fn levels(&self) -> impl Iterator<Item = u8> {
        let plain = if self.busy.is_some() { None } else { Some(0) };
        self.busy.iter().flat_map(|busy| busy.levels.descending()).chain(plain)
    }

    /// The level of a message, and where a run of messages like it ends (a longer run may follow).
    pub fn level_run(&self, offset: u64) -> (u8, u64) {
        self.busy.as_ref().map_or((0, u64::MAX), |busy| busy.levels.run(offset))
    }

    /// The first ready message of a level at or behind `from`.
    pub fn next_ready_of(&self, level: u8, from: u64) -> Option<u64> {
        let mut at = self.next_ready(from)?;
        loop {
            let run = match &self.busy {
                Some(busy) => busy.levels.next(level, at)?,
                None if level == 0 => at..u64::MAX,
                None => return None,
            };
            at = self.next_ready(run.start)?;
            if at < run.end {
                return Some(at);
            }
        }
    }

    /// The message that is [taken](Operation::Taken) next: the first ready one of the highest level.
    pub fn next_taken(&self) -> Option<u64> {
        self.levels().find_map(|level| self.next_ready_of(level, self.ready_from))
    }

    /// Tells that of the messages that are published next so many, from that one on, expire at a moment, in milliseconds.
    pub fn note_expiry(&mut self, first: u32, count: u32, expires_ms: i64) {
        let (states, busy) = self.parts();
        let from = states.end + u64::from(first);
        busy.expiries.add(from.max(busy.expiries.end()), from + u64::from(count), expires_ms);
    }

    /// When a message expires, in milliseconds, if it does.
    pub fn expires_ms(&self, offset: u64) -> Option<i64> {
        self.expiry_run(offset).0
    }

    /// The same, and where a run of messages ends of which the same holds.
    pub fn expiry_run(&self, offset: u64) -> (Option<i64>, u64) {
        self.busy.as_ref().map_or((None, u64::MAX), |busy| busy.expiries.run(offset))
    }

    /// Whether there is a message, ready or not, that expires, or one behind which such a one waits to be forgotten.
    pub fn has_expiries(&self) -> bool {
        self.busy.as_ref().is_some_and(|busy| !busy.expiries.is_empty())
    }

    /// The first ready messages that have expired, up to one that has not: what stands behind that waits for it.
    pub fn expired(&self, now_ms: i64, mut each: impl FnMut(Range<u64>)) {
        let mut at = self.floor();
        while let Some(from) = self.next_ready(at) {
            let (expires_ms, same_to) = self.expiry_run(from);
            if expires_ms.is_none_or(|expires_ms| expires_ms > now_ms) {
                return;
            }
            at = self.run(from).1.min(same_to);
            each(from..at);
        }
    }

    /// The oldest ready messages that are to go until the others are within a limit, whatever it says of overflow.
    pub fn excess(&self, limit: &LengthLimit) -> RangesBuffer {
        let (mut left, mut excess, mut at) = (self.backlog(), RangesBuffer::default(), self.floor());
        while limit.is_exceeded(left)
            && let Some(from) = self.next_ready(at)
        {
            let (_, end) = self.run(from);
            let (size, sized_to) = self.busy.as_ref().map_or((None, end), |busy| busy.sizes.run(from));
            let size = size.unwrap_or(0);
            let count = limit.overrun(left, size).min(end.min(sized_to) - from);
            left.messages -= count;
            left.bytes -= count * u64::from(size);
            at = from + count;
            excess.push(from..at);
        }
        excess
    }

    /// Counts what is ready anew: to be called once all pages are read back.
    pub fn recount(&mut self) {
        (self.ready, self.ready_from) = (0, self.floor());
        self.busy.iter_mut().for_each(|busy| busy.levels.begin_count());
        let (mut at, end, mut bytes) = (self.floor(), self.end(), 0);
        while at < end {
            let (state, to) = self.run(at);
            let to = to.min(end);
            if state == MessageState::Ready {
                self.ready += to - at;
                bytes += self.busy.as_ref().map_or(0, |busy| busy.sizes.sum(at, to));
            }
            if state != MessageState::Settled {
                self.count_levels(at, to, true);
            }
            at = to;
        }
        self.busy.iter_mut().for_each(|busy| busy.ready_bytes = bytes);
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

    /// Has messages that are given up from now on be dead-lettered, or not, and given up when they come back too often. It is no part of what is stored.
    pub fn set_deaths(&mut self, deaths: DeathPolicy) {
        self.deaths = deaths;
    }

    /// Whether messages wait to be published elsewhere.
    pub fn has_dead_letters(&self) -> bool {
        self.busy
            .as_ref()
            .is_some_and(|busy| busy.owners.has(|owner| matches!(owner, MessageOwner::DeadLetter(_))))
    }

    /// The messages that wait to be published elsewhere, ascending, with the reason: runs of those that wait for the same one.
    pub fn dead_letters(&self) -> impl Iterator<Item = (Range<u64>, DeathReason)> {
        let holdings = self.has_dead_letters().then(|| self.holdings()).into_iter().flatten();
        let runs = holdings.filter_map(|(messages, holding)| match holding.owner {
            MessageOwner::DeadLetter(reason) => Some((messages, reason)),
            _ => None,
        });
        runs.flat_map(|(messages, reason)| self.left_of(messages).map(move |left| (left, reason)))
    }

    /// The parts of an owner's run that are in flight still.
    fn left_of(&self, messages: Range<u64>) -> impl Iterator<Item = Range<u64>> {
        let mut at = messages.start;
        std::iter::from_fn(move || {
            while at < messages.end {
                let (state, end) = self.states.run(at);
                let part = at..end.min(messages.end);
                at = part.end;
                if state == MessageState::InFlight {
                    return Some(part);
                }
            }
            None
        })
    }

    /// What is in flight, ascending: runs of one owner, in which single messages may be so no longer.
    pub fn holdings(&self) -> impl Iterator<Item = (Range<u64>, Holding)> {
        let owners = self.busy.iter().flat_map(|busy| busy.owners.iter());
        owners.map(|(start, end, holding)| (start..end, holding))
    }

    /// What is in flight of some messages, ascending: runs of one owner, each message of which is so still.
    pub fn held(&self, messages: Range<u64>) -> impl Iterator<Item = (Range<u64>, Holding)> {
        let (mut at, wanted) = (messages.start, Wanted { always: true, ..NOT_IN_FLIGHT });
        std::iter::from_fn(move || {
            let (from, to, holding) = self.piece(at, messages.end, wanted)?;
            at = to;
            Some((from..to, holding?))
        })
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
            Operation::SealedIfEmpty => self.sealed || self.is_empty(),
            _ => true,
        }
    }

    fn is_ready(&self, ranges: OffsetRanges<'_>) -> bool {
        ranges.iter().all(|range| self.count(MessageState::Ready, range.clone()) == range.end - range.start)
    }

    /// Whether no message waits, to be delivered or to be published elsewhere: what consumers have does not.
    fn is_empty(&self) -> bool {
        let parked = || self.count(MessageState::Parked, self.states.floor..self.states.end);
        self.ready == 0 && !self.has_dead_letters() && parked() == 0
    }

    pub(super) fn is_due(&self, offset: u64, resets: u32) -> bool {
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
                let back = Back { counted, not_before_ms, time_ms };
                self.each(ranges, Wanted::in_flight(held_by, time_ms), |me, from, to, _| {
                    me.give_back(from, to, back, out)
                })
            }
            Operation::Settled { ranges, held_by, why } => {
                self.each(ranges, Wanted::settling(held_by, why, time_ms), |me, from, to, held| {
                    me.finish(from, to, held.map(|held| held.owner), why, time_ms, out)
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
            _ => self.apply_rare(operation, time_ms, out),
        }
    }

    fn apply_rare(&mut self, operation: &Operation<'_>, time_ms: i64, out: &mut impl Touched) -> u64 {
        let uncounted = Back { counted: false, not_before_ms: 0, time_ms };
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
            Operation::Decided { transaction, commit } => self.decide(transaction, commit, time_ms, out),
            Operation::ConsumerNamed { number, name } => self.name_consumer(number, Some(name)),
            Operation::ConsumerForgotten { number } => {
                let why = Settlement::Dropped;
                let of = |owner| owner == MessageOwner::Named(number);
                let settled = self.each_of(of, |me, from, to| me.settle(from, to, true, why, out));
                settled + self.name_consumer(number, None)
            }
            Operation::SealedIfEmpty => {
                self.sealed |= self.is_empty();
                self.sealed.into()
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
        self.count_ready(from, to, true);
        self.count_levels(from, to, true);
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
            let Some(from) = self.next_taken() else {
                // Else every look for one would go through all that others hold.
                self.ready_from = self.states.end;
                break;
            };
            let ((_, ready), (_, level)) = (self.states.run(from), self.level_run(from));
            let to = ready.min(level).min(self.states.end).min(from + left);
            if self.next_ready(self.ready_from) == Some(from) {
                self.ready_from = to;
            }
            self.hold(from, to, holding, out);
            left -= to - from;
        }
        u64::from(count) - left
    }

    /// Runs `act` for each run of what is wanted in the ranges. Tells how many messages that were.
    pub(super) fn each(
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

    /// Puts messages into a state that are all in one.
    pub(super) fn set(&mut self, from: u64, to: u64, state: MessageState) {
        let before = self.states.state(from);
        let (was, is) = (before == MessageState::Ready, state == MessageState::Ready);
        if was != is {
            self.count_ready(from, to, is);
        }
        let (was, is) = (before == MessageState::Settled, state == MessageState::Settled);
        if was != is {
            self.count_levels(from, to, was);
        }
        let (states, busy) = self.parts();
        states.set(from, to, state, &mut |block| {
            busy.dirty_containers.insert(block);
        });
    }

    fn count_ready(&mut self, from: u64, to: u64, more: bool) {
        let add = |sum: &mut u64, count: u64| *sum = if more { *sum + count } else { *sum - count };
        add(&mut self.ready, to - from);
        if let Some(busy) = &mut self.busy
            && !busy.sizes.is_empty()
        {
            let bytes = busy.sizes.sum(from, to);
            add(&mut busy.ready_bytes, bytes);
        }
    }

    /// Messages become unsettled, or are settled.
    fn count_levels(&mut self, from: u64, to: u64, more: bool) {
        if let Some(busy) = &mut self.busy
            && !busy.levels.is_empty()
        {
            busy.levels.count(from..to, more);
        }
    }

    /// Messages without an owner get one.
    pub(super) fn hold(&mut self, from: u64, to: u64, holding: Holding, out: &mut impl Touched) {
        self.set(from, to, MessageState::InFlight);
        let (states, busy) = self.parts();
        busy.owners.take(from, to, holding, &|from, to| states.count(MessageState::InFlight, from, to));
        if !busy.attempts.is_empty() {
            busy.attempts.update(from, to, |known| known.map(Attempts::acquired_again));
        }
        out.acquired(from..to, holding.owner, holding.deadline_ms());
    }

    /// Messages in flight get other terms.
    pub(super) fn rehold(&mut self, from: u64, to: u64, holding: Holding, out: &mut impl Touched) {
        let (states, busy) = self.parts();
        busy.owners.release(from, to);
        busy.owners.take(from, to, holding, &|from, to| states.count(MessageState::InFlight, from, to));
        out.acquired(from..to, holding.owner, holding.deadline_ms());
    }

    fn decide(&mut self, transaction: u64, commit: bool, time_ms: i64, out: &mut impl Touched) -> u64 {
        let (acknowledging, publishing) =
            (MessageOwner::Prepared(transaction), MessageOwner::Publishing(transaction));
        let back = Back { counted: false, not_before_ms: 0, time_ms };
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
pub(super) struct Back {
    pub(super) counted: bool,
    pub(super) not_before_ms: i64,
    pub(super) time_ms: i64,
}

/// Nothing in flight carries token 0 as a fence.
const NOT_IN_FLIGHT: Wanted = Wanted::in_flight(HeldBy::Token(0), 0);

impl Terms {
    pub(super) fn from(self, time_ms: i64) -> Holding {
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
    pub(super) fn acquired_again(self) -> Self {
        Self { acquired: self.acquired.saturating_add(1), ..self }
    }

    pub(super) fn back(self, counted: bool) -> Self {
        Self { returned: self.returned.saturating_add(counted.into()), ..self }
    }
}

impl Busy {
    fn is_idle(&self) -> bool {
        self.owners.is_empty()
            && self.attempts.is_empty()
            && self.sizes.is_empty()
            && self.sizes.dirty.is_empty()
            && self.levels.is_empty()
            && self.levels.dirty.is_empty()
            && self.expiries.is_empty()
            && self.expiries.dirty.is_empty()
            && self.consumers.is_empty()
            && self.dirty_containers.is_empty()
            && self.dirty_consumers.is_empty()
            && self.owners.dirty.is_empty()
            && self.attempts.dirty.is_empty()
    }

    fn bytes(&self) -> usize {
        let rows = self.attempts.dirty.len() + self.sizes.dirty.len() + self.levels.dirty.len();
        let rows = rows + self.expiries.dirty.len();
        let dirty = self.dirty_containers.len() + self.owners.dirty.len() + rows;
        let consumers: usize = self.consumers.values().map(|name| 48 + name.len()).sum();
        size_of::<Self>()
            + self.owners.bytes()
            + self.attempts.bytes()
            + self.sizes.bytes()
            + self.levels.bytes()
            + self.expiries.bytes()
            + consumers
            + dirty * 12
    }
}

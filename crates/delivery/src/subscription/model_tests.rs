//! The machine against one that keeps a struct for each message, restarted from its pages at any moment.

use std::collections::BTreeMap;
use std::ops::Range;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::policy::{Backoff, DeathPolicy, DeathReason, DeliveryLimit, LimitedCount, RetryPolicy};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Naive {
    state: MessageState,
    holding: Option<Holding>,
    attempts: Option<Attempts>,
}

const READY: Naive = Naive { state: MessageState::Ready, holding: None, attempts: None };

/// A parked message's timer: offset, moment, resets, counts.
type Timer = (u64, i64, u32, Attempts);

#[derive(Debug, Default)]
struct NaiveSubscription {
    messages: Vec<Naive>,
    deaths: DeathPolicy,
    claim: u64,
    suspect: u64,
    resets: u32,
    sealed: bool,
    consumers: BTreeMap<u64, String>,
    timers: Vec<Timer>,
    /// When messages expire that do.
    expiries: BTreeMap<u64, i64>,
    /// The farthest that the floor ever was: what was below it may have forgotten when it expires.
    farthest: u64,
}

fn admits(held_by: HeldBy, holding: &Holding, now: i64) -> bool {
    let others = !matches!(
        holding.owner,
        MessageOwner::Prepared(_) | MessageOwner::Publishing(_) | MessageOwner::DeadLetter(_)
    );
    match held_by {
        HeldBy::Any => others,
        HeldBy::Overdue => {
            others && holding.timeout_ms > 0 && holding.since_ms + i64::from(holding.timeout_ms) <= now
        }
        HeldBy::Owner(owner) => holding.owner == owner,
        HeldBy::Token(token) => token != 0 && holding.token == token,
    }
}

fn held(terms: Terms, since_ms: i64) -> Option<Holding> {
    Some(Holding { owner: terms.owner, phase: 0, since_ms, timeout_ms: terms.timeout_ms, token: terms.token })
}

fn more(known: Option<Attempts>, acquired: u32, returned: u32) -> Option<Attempts> {
    let known = known.unwrap_or(Attempts::FIRST);
    Some(Attempts { acquired: known.acquired + acquired, returned: known.returned + returned })
}

impl NaiveSubscription {
    fn floor(&self) -> usize {
        let unsettled = self.messages.iter().position(|m| m.state != MessageState::Settled);
        unsettled.unwrap_or(self.messages.len())
    }

    fn named(&self, ranges: OffsetRanges<'_>) -> Vec<usize> {
        let end = self.messages.len();
        ranges.iter().flatten().map(|o| o as usize).filter(|o| *o < end).collect()
    }

    fn hold(&mut self, offset: usize, holding: Option<Holding>) {
        let message = &mut self.messages[offset];
        let attempts = message.attempts.and_then(|known| more(Some(known), 1, 0));
        *message = Naive { state: MessageState::InFlight, holding, attempts };
    }

    fn give_back(&mut self, offset: usize, counted: bool, not_before_ms: i64, now: i64) {
        let attempts = more(self.messages[offset].attempts, 0, counted.into());
        let returned = attempts.unwrap().returned;
        let retry = Some(&self.deaths.retry).filter(|_| counted);
        if retry.and_then(|retry| retry.limit).is_some_and(|limit| returned > limit.most) {
            return self.finish(offset, Settlement::TooOften, now);
        }
        let delay = retry.and_then(|retry| retry.backoff.as_ref()).map_or(0, |b| b.delay_ms(returned).into());
        let until = if not_before_ms == 0 { now + delay } else { not_before_ms };
        self.messages[offset] = match until > now {
            false => Naive { attempts, ..READY },
            true => Naive { state: MessageState::Parked, ..READY },
        };
        if until > now {
            self.timers.push((offset as u64, until, self.resets, attempts.unwrap()));
        }
    }

    fn finish(&mut self, offset: usize, why: Settlement, now: i64) {
        match why.death().filter(|_| self.deaths.dead_letters) {
            Some(reason) => {
                let terms = Terms { owner: MessageOwner::DeadLetter(reason), timeout_ms: 0, token: 0 };
                self.messages[offset] =
                    Naive { state: MessageState::InFlight, holding: held(terms, now), attempts: None };
            }
            None => self.settle(offset),
        }
    }

    fn settle(&mut self, offset: usize) {
        self.messages[offset] = Naive { state: MessageState::Settled, ..READY };
    }

    fn each(&mut self, wanted: impl Fn(&Naive) -> bool, mut act: impl FnMut(&mut Self, usize)) {
        let all: Vec<usize> = (0..self.messages.len()).filter(|o| wanted(&self.messages[*o])).collect();
        all.into_iter().for_each(|offset| act(self, offset));
    }

    fn apply(&mut self, operation: &Operation<'_>, now: i64) {
        match *operation {
            Operation::Published { count, transaction } if !self.sealed => {
                for _ in 0..count {
                    self.messages.push(READY);
                    if let Some(id) = transaction {
                        let terms = Terms { owner: MessageOwner::Publishing(id), timeout_ms: 0, token: 0 };
                        self.hold(self.messages.len() - 1, held(terms, now));
                    }
                }
            }
            Operation::Acquired { ranges, terms } => {
                for offset in self.named(ranges) {
                    if self.messages[offset].state == MessageState::Ready {
                        self.hold(offset, held(terms, now));
                    }
                }
            }
            Operation::Taken { count, terms } => {
                let ready =
                    (0..self.messages.len()).filter(|o| self.messages[*o].state == MessageState::Ready);
                let first: Vec<_> = ready.take(count as usize).collect();
                first.into_iter().for_each(|offset| self.hold(offset, held(terms, now)));
            }
            Operation::Transferred { .. } => self.transfer(operation, now),
            Operation::Reset { to, everything } => self.reset(to as usize, everything),
            Operation::Settled { ranges, held_by, why } => {
                for offset in self.named(ranges) {
                    let message = &self.messages[offset];
                    let named = match message.holding {
                        Some(holding) => {
                            admits(held_by, &holding, now)
                                || held_by == HeldBy::Any && why == Settlement::Gone
                        }
                        None => held_by == HeldBy::Any && message.state != MessageState::Settled,
                    };
                    if named {
                        self.finish(offset, why, now);
                    }
                }
            }
            _ => self.apply_more(operation, now),
        }
    }

    fn apply_more(&mut self, operation: &Operation<'_>, now: i64) {
        let in_flight = |me: &Self, ranges, held_by| -> Vec<usize> {
            let mut named = me.named(ranges);
            named.retain(|o| me.messages[*o].holding.is_some_and(|holding| admits(held_by, &holding, now)));
            named
        };
        match *operation {
            Operation::Returned { ranges, held_by, counted, not_before_ms } => {
                for offset in in_flight(self, ranges, held_by) {
                    self.give_back(offset, counted, not_before_ms, now);
                }
            }
            Operation::Extended { ranges, held_by, timeout_ms, phase } => {
                for offset in in_flight(self, ranges, held_by) {
                    let holding = self.messages[offset].holding.as_mut().unwrap();
                    holding.phase = phase;
                    let since = (now - holding.since_ms).max(0) as u32;
                    holding.timeout_ms = if timeout_ms == 0 { 0 } else { timeout_ms + since };
                }
            }
            Operation::Prepared { ranges, held_by, transaction } => {
                for offset in in_flight(self, ranges, held_by) {
                    let terms = Terms { owner: MessageOwner::Prepared(transaction), timeout_ms: 0, token: 0 };
                    self.messages[offset].holding = held(terms, now);
                }
            }
            Operation::Released { owner, counted } => self.each(
                |m| m.holding.is_some_and(|h| h.owner == owner),
                |me, offset| me.give_back(offset, counted, 0, now),
            ),
            Operation::Started { clean } => {
                let claim = self.claim.min(self.messages.len() as u64);
                self.suspect = if clean { self.suspect } else { self.suspect.max(claim) };
                let ended = |m: &Naive| {
                    m.holding
                        .is_some_and(|h| matches!(h.owner, MessageOwner::Session(_) | MessageOwner::Lease))
                };
                self.each(ended, |me, offset| me.give_back(offset, false, 0, now));
            }
            Operation::Decided { transaction, commit } => self.decide(transaction, commit, now),
            Operation::Due { offset, resets, attempts } => {
                let parked = |m: &&mut Naive| m.state == MessageState::Parked;
                let message = self.messages.get_mut(offset as usize).filter(parked);
                if let Some(message) = message.filter(|_| resets == self.resets) {
                    *message = Naive { attempts: Some(attempts), ..READY };
                }
            }
            Operation::Claimed { to } => self.claim = self.claim.max(to),
            Operation::ConsumerNamed { number, name } => {
                self.consumers.insert(number, name.to_owned());
            }
            Operation::ConsumerForgotten { number } => {
                self.consumers.remove(&number);
                let owned = |m: &Naive| m.holding.is_some_and(|h| h.owner == MessageOwner::Named(number));
                self.each(owned, Self::settle);
            }
            Operation::SealedIfEmpty => {
                let is_dead =
                    |m: &Naive| m.holding.is_some_and(|h| matches!(h.owner, MessageOwner::DeadLetter(_)));
                let waits =
                    |m: &Naive| matches!(m.state, MessageState::Ready | MessageState::Parked) || is_dead(m);
                self.sealed |= !self.messages.iter().any(waits);
            }
            _ => {}
        }
    }

    fn transfer(&mut self, operation: &Operation<'_>, now: i64) {
        let Operation::Transferred { ranges, terms, min_idle_ms, since_ms, attempts, force } = *operation
        else {
            return;
        };
        for offset in self.named(ranges) {
            let message = self.messages[offset];
            let transferred = match (message.state, message.holding) {
                (MessageState::InFlight, Some(holding)) => {
                    admits(HeldBy::Any, &holding, now) && now - holding.since_ms >= min_idle_ms.into()
                }
                (state, _) => force && state != MessageState::Parked,
            };
            if !transferred {
                continue;
            }
            if message.holding.is_none() {
                self.hold(offset, None);
            }
            let message = &mut self.messages[offset];
            message.holding = held(terms, since_ms.unwrap_or(now));
            message.attempts = match attempts {
                AttemptsChange::Keep => message.attempts,
                AttemptsChange::Add => more(message.attempts, 1, 0),
                AttemptsChange::Set(acquired) => {
                    Some(Attempts { acquired, returned: message.attempts.map_or(0, |a| a.returned) })
                }
            };
        }
    }

    fn reset(&mut self, to: usize, everything: bool) {
        let to = to.min(self.messages.len());
        let seen = self.messages.iter().rposition(|m| *m != READY).map_or(0, |last| last as u64 + 1);
        self.suspect = self.suspect.max(seen).max(self.claim.min(self.messages.len() as u64));
        let kept = |m: &Naive| matches!(m.state, MessageState::InFlight | MessageState::Parked);
        let all = everything || !self.messages.iter().any(kept);
        self.resets += u32::from(all);
        for (offset, message) in self.messages.iter_mut().enumerate() {
            if all || !kept(message) {
                let state = if offset < to { MessageState::Settled } else { message.state };
                let again = all || state == MessageState::Settled;
                *message = match offset < to {
                    true => Naive { state, ..READY },
                    false if again => READY,
                    false => *message,
                };
            }
        }
    }

    fn decide(&mut self, transaction: u64, commit: bool, now: i64) {
        let owner = |owner: MessageOwner| move |m: &Naive| m.holding.is_some_and(|h| h.owner == owner);
        self.each(owner(MessageOwner::Prepared(transaction)), |me, offset| match commit {
            true => me.settle(offset),
            false => me.give_back(offset, false, 0, now),
        });
        self.each(owner(MessageOwner::Publishing(transaction)), |me, offset| match commit {
            true => me.messages[offset].holding = None,
            false => me.settle(offset),
        });
        for message in &mut self.messages {
            if message.state == MessageState::InFlight && message.holding.is_none() {
                message.state = MessageState::Ready;
            }
        }
    }
}

#[derive(Debug, Default)]
struct Timers(Vec<Timer>);

impl Touched for Timers {
    fn parked(&mut self, offset: u64, until_ms: i64, resets: u32, attempts: Attempts) {
        self.0.push((offset, until_ms, resets, attempts));
    }
}

type Store = BTreeMap<Vec<u8>, Vec<u8>>;

/// Writes the pages that changed.
fn checkpoint(subscription: &mut Subscription, store: &mut Store) {
    let mut dirty = Vec::new();
    subscription.take_dirty(|page| dirty.push(page));
    for page in dirty {
        let (mut key, mut value) = (Vec::new(), Vec::new());
        page.encode(&mut key);
        if subscription.encode_page(page, &mut value) {
            store.insert(key, value);
        } else {
            store.remove(&key);
        }
    }
}

fn restore(store: &Store) -> Subscription {
    let mut subscription = Subscription::default();
    for (key, value) in store {
        subscription.decode_page(SubscriptionPage::decode(key).unwrap(), value).unwrap();
    }
    subscription.check_pages().unwrap();
    subscription.recount();
    subscription
}

fn check(machine: &Subscription, naive: &NaiveSubscription) {
    assert_eq!(machine.floor(), naive.floor() as u64);
    assert_eq!(machine.end(), naive.messages.len() as u64);
    assert_eq!((machine.claim(), machine.resets()), (naive.claim, naive.resets));
    assert_eq!(machine.is_sealed(), naive.sealed);
    for (offset, message) in naive.messages.iter().enumerate() {
        let at = offset as u64;
        let state = machine.state(at);
        let seen = Naive { state, holding: machine.holding(at), attempts: machine.attempts(at) };
        assert_eq!(seen, *message, "message {offset}");
        let flagged = at < naive.suspect || message.attempts.is_some();
        assert!(state != MessageState::Ready || machine.is_redelivered(at) == flagged, "message {offset}");
    }
    let ready = naive.messages.iter().filter(|m| m.state == MessageState::Ready).count();
    assert_eq!(machine.backlog().messages, ready as u64);
    let ready = naive.messages.iter().position(|m| m.state == MessageState::Ready);
    assert_eq!(machine.next_ready(0), ready.map(|o| o as u64));
    for offset in naive.farthest..machine.end() {
        assert_eq!(machine.expires_ms(offset), naive.expiries.get(&offset).copied(), "message {offset}");
    }
    let held = naive.messages.iter().zip(0..).filter_map(|(m, offset)| Some((offset, m.holding?)));
    let listed = machine.held(0..machine.end());
    assert!(listed.flat_map(|(run, holding)| run.map(move |offset| (offset, holding))).eq(held));
    let dead = |m: &Naive| match m.holding.map(|holding| holding.owner) {
        Some(MessageOwner::DeadLetter(reason)) => Some(reason),
        _ => None,
    };
    let waiting = naive.messages.iter().zip(0..).filter_map(|(m, offset)| Some((offset, dead(m)?)));
    let waiting: Vec<(u64, DeathReason)> = waiting.collect();
    let listed = machine.dead_letters().flat_map(|(run, reason)| run.map(move |offset| (offset, reason)));
    assert_eq!(listed.collect::<Vec<_>>(), waiting);
    assert_eq!(machine.has_dead_letters(), !waiting.is_empty());
    let consumers: BTreeMap<u64, String> =
        machine.consumers().map(|(n, name)| (n, name.to_owned())).collect();
    assert_eq!(consumers, naive.consumers);
}

/// What a step's numbers mean: all steps are made of the same five.
#[derive(Debug, Clone)]
struct Step {
    kind: u8,
    ranges: Vec<(u16, u16)>,
    a: u8,
    b: u8,
    restart: bool,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let length = prop_oneof![3 => 1..3u16, 2 => 1..300u16, 1 => 900..2200u16];
    let range = (0..2600u16, length);
    let step = (0..32u8, vec(range, 1..4), any::<u8>(), any::<u8>(), prop::bool::weighted(0.2));
    vec(step.prop_map(|(kind, ranges, a, b, restart)| Step { kind, ranges, a, b, restart }), 1..70)
}

fn owner(a: u8) -> MessageOwner {
    match a % 8 {
        0..=3 => MessageOwner::Session(u64::from(a % 4)),
        4..=6 => MessageOwner::Named(u64::from(a % 2)),
        _ if a >= 128 => MessageOwner::DeadLetter(DeathReason::Redriven),
        _ => MessageOwner::Lease,
    }
}

fn fence(b: u8) -> HeldBy {
    match b % 5 {
        0 | 1 => HeldBy::Any,
        4 => HeldBy::Overdue,
        2 if b.is_multiple_of(3) => {
            let reason = DeathReason::ALL.get(usize::from(b / 16 % 5)).copied();
            HeldBy::Owner(MessageOwner::DeadLetter(reason.unwrap_or(DeathReason::Redriven)))
        }
        2 => HeldBy::Owner(owner(b / 4)),
        _ => HeldBy::Token(u64::from(b / 4 % 3)),
    }
}

/// Acquisitions and settles begin at the floor as often as not, as in life.
fn ranges(step: &Step, naive: &NaiveSubscription) -> RangesBuffer {
    let base = if step.b & 1 == 0 { naive.floor() as u64 } else { 0 };
    let mut all: Vec<Range<u64>> = Vec::new();
    for (from, len) in &step.ranges {
        let from = if step.b & 1 == 0 { base + u64::from(from % 40) } else { u64::from(*from) };
        all.push(from..from + u64::from(*len));
    }
    RangesBuffer::of(all)
}

fn terms(step: &Step) -> Terms {
    Terms { owner: owner(step.a), timeout_ms: u32::from(step.a / 8) * 100, token: u64::from(step.b % 3) }
}

fn operation<'a>(step: &Step, ranges: &'a RangesBuffer, naive: &NaiveSubscription) -> Operation<'a> {
    let (a, b) = (step.a, step.b);
    let (ranges, terms, held_by) = (ranges.ranges(), terms(step), fence(b));
    let transaction = u64::from(a % 2);
    let room = 2600u32.saturating_sub(naive.messages.len() as u32);
    match step.kind {
        0..=4 => Operation::Published { count: u32::from(a).min(room) * 4, transaction: None },
        5 => Operation::Published { count: u32::from(a % 64).min(room), transaction: Some(transaction) },
        6..=9 => Operation::Acquired { ranges, terms },
        10..=11 => Operation::Taken { count: u32::from(a) * 3, terms },
        12..=14 => {
            let not_before_ms = [5_000, 0, 0, 0, 50, 0][usize::from(a % 6)];
            Operation::Returned { ranges, held_by, counted: a % 2 == 0, not_before_ms }
        }
        15..=19 => {
            let why = match a {
                0 => Settlement::Gone,
                1..30 => Settlement::Rejected,
                30..50 => Settlement::Expired,
                50..70 => Settlement::TooMany,
                _ => Settlement::Acknowledged,
            };
            Operation::Settled { ranges, held_by, why }
        }
        20..=21 => Operation::Transferred {
            ranges,
            terms,
            min_idle_ms: u32::from(b % 4) * 10,
            since_ms: (a % 4 == 0).then_some(7),
            attempts: [AttemptsChange::Keep, AttemptsChange::Add, AttemptsChange::Set(b.into())]
                [usize::from(a % 3)],
            force: a % 5 == 0,
        },
        22 => Operation::Extended { ranges, held_by, timeout_ms: u32::from(a) * 10, phase: b % 3 },
        23 => Operation::Reset { to: u64::from(step.ranges[0].0), everything: a % 4 == 0 },
        24..=25 => match naive.timers.get(usize::from(a) % naive.timers.len().max(1)) {
            Some(&(offset, _, resets, attempts)) => Operation::Due { offset, resets, attempts },
            None => Operation::Claimed { to: 5 },
        },
        26 => Operation::Claimed { to: u64::from(a) * 8 },
        27 => Operation::Released { owner: terms.owner, counted: b % 2 == 0 },
        28 => Operation::Started { clean: b % 2 == 0 },
        29 => Operation::Prepared { ranges, held_by, transaction },
        30 => Operation::Decided { transaction, commit: b % 2 == 0 },
        _ => match b % 5 {
            0 => Operation::SealedIfEmpty,
            1 => Operation::ConsumerForgotten { number: transaction },
            _ => {
                Operation::ConsumerNamed { number: transaction, name: ["left", "right"][usize::from(a % 2)] }
            }
        },
    }
}

/// What an entry carries across.
fn stored(operation: &Operation<'_>) -> Vec<u8> {
    let mut body = Vec::new();
    OperationsWriter::new(&mut body, false).push(SubscriptionNo(7), operation);
    body
}

/// Some of what is published expires.
fn expiry(step: &Step, operation: &Operation<'_>, now: i64) -> Option<(u32, u32, i64)> {
    let Operation::Published { count, .. } = operation else { return None };
    let (a, first) = (step.b, u32::from(step.b % 4).min(*count));
    (a % 3 == 0).then(|| (first, (count - first).min(a.into()), now + i64::from(a % 16) * 10))
}

/// The ready messages that have expired, as far as none is before them that has not.
fn expired(machine: &Subscription, now: i64) -> Vec<u64> {
    let ready = (machine.floor()..machine.end()).filter(|o| machine.state(*o) == MessageState::Ready);
    ready.take_while(|o| machine.expires_ms(*o).is_some_and(|at| at <= now)).collect()
}

fn run(steps: &[Step], deaths: DeathPolicy) {
    let (mut machine, mut twin) = (Subscription::default(), Subscription::default());
    let mut naive = NaiveSubscription { deaths: deaths.clone(), ..NaiveSubscription::default() };
    machine.set_deaths(deaths.clone());
    twin.set_deaths(deaths.clone());
    let (mut store, mut timers) = (Store::new(), Timers::default());
    for (step, now) in steps.iter().zip(0..) {
        let now = now / 3 * 10;
        let ranges = ranges(step, &naive);
        let body = stored(&operation(step, &ranges, &naive));
        let list = OperationList::decode(&body).unwrap();
        for (number, operation) in list.iter() {
            assert_eq!(number, SubscriptionNo(7));
            let expiry = expiry(step, &operation, now).filter(|_| !machine.is_sealed());
            if let Some((first, count, at)) = expiry {
                let from = machine.end() + u64::from(first);
                naive.expiries.extend((from..from + u64::from(count)).map(|offset| (offset, at)));
                machine.note_expiry(first, count, at);
                twin.note_expiry(first, count, at);
            }
            machine.apply(&operation, now, &mut timers);
            twin.apply(&operation, now, &mut ());
            naive.apply(&operation, now);
            naive.farthest = naive.farthest.max(naive.floor() as u64);
        }
        let mut gone = Vec::new();
        machine.expired(now, |messages| gone.extend(messages));
        assert_eq!(gone, expired(&machine, now));
        timers.0.sort_unstable();
        naive.timers.sort_unstable();
        assert_eq!(timers.0, naive.timers);
        check(&machine, &naive);
        if step.restart {
            checkpoint(&mut machine, &mut store);
            machine = restore(&store);
            machine.set_deaths(deaths.clone());
            check(&machine, &naive);
        }
    }
    checkpoint(&mut machine, &mut store);
    let mut whole = Store::new();
    checkpoint(&mut twin, &mut whole);
    assert_eq!(store, whole, "pages do not depend on restarts");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn a_subscription_restarted_at_any_operation_is_like_a_list_of_messages(
        steps in steps(),
        dead_letters in any::<bool>(),
        most in proptest::option::of(0..3u32),
        waits in any::<bool>(),
    ) {
        let limit = most.map(|most| DeliveryLimit { count: LimitedCount::Returned, most });
        let backoff = waits.then(|| Backoff::Steps([0, 30].into()).into());
        run(&steps, DeathPolicy { dead_letters, retry: RetryPolicy { limit, backoff } });
    }
}

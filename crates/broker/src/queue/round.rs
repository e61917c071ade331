//! One entry that the leader proposes: what goes into it, and what is to be sent once it is pushed.

use std::iter::once;
use std::ops::Range;
use std::sync::Arc;

use rustc_hash::FxHashMap;
use sabir_base::wake::WakeBatch;
use sabir_delivery::dispatch::{Deliveries, Dispatched, MemberNo};
use sabir_delivery::policy::DeathReason;
use sabir_delivery::subscription::{
    HeldBy, MessageOwner, MessageState, Operation, OperationList, OperationsWriter, RangesBuffer, Settlement,
    Subscription, SubscriptionNo, Terms,
};
use sabir_model::ShardFailure;

use super::gathered::{Change, Gathered};
use super::leader::{Asked, LedQueue, PurgeReplier, PushedEntry, QueueLeader, QueuePolicy, QueueRequest};
use super::member::{Dealt, Member, Recipient};
use super::view::QueueView;
use super::{QueueError, QueueTarget};
use crate::dead_letter::RedriveTally;

/// Messages dealt by one entry.
const MOST_DEALT: u32 = 1024;
/// Bytes of changes of an entry, about: others come with the next one.
const MOST_BYTES: usize = 256 << 10;
/// Bodies that are kept for reuse, and of how many bytes at the most.
const SPARE: usize = 8;
const SPARE_BYTES: usize = 64 << 10;
/// Ranges that one entry drops.
const MOST_DROPPED: usize = 16_384;

/// What is done once an entry is applied.
#[derive(Debug)]
pub(super) enum OnceApplied {
    /// It is asked again, now that all that was pushed before is applied.
    Ask(QueueRequest),
    /// It is answered.
    Purged { dropped: u64, replier: PurgeReplier },
    /// A redrive goes on.
    HandedOver(Arc<RedriveTally>),
}

/// What a round works with; kept for the next one.
#[derive(Debug, Default)]
pub(super) struct Round {
    /// The entry's body.
    pub(super) body: Vec<u8>,
    /// What waits for it to be applied.
    pub(super) next: Vec<OnceApplied>,
    /// The queues whose messages are given back by it.
    gives_back: Vec<SubscriptionNo>,
    /// The queues of which it says what expired.
    expires: Vec<SubscriptionNo>,
    dealt: Vec<Dealt>,
    /// What is proposed of messages that no member is dealt.
    pub(super) others: Vec<(SubscriptionNo, Range<u64>)>,
    /// Changes of those gathered that are in it.
    written: usize,
    slots: DealtMembers,
    /// Bodies of earlier ones.
    spare: Vec<Vec<u8>>,
}

/// What there is to be pushed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Proposed {
    /// Whether there is an entry.
    pub(super) entry: bool,
    /// Whether there is more for another one.
    pub(super) more: bool,
}

/// By what the leader judges.
pub(super) struct RoundTime {
    pub(super) now_ms: i64,
    /// Whether all that was pushed is applied.
    pub(super) is_idle: bool,
    /// Whether the shard's disk is full.
    pub(super) is_full: bool,
}

/// What a member was dealt of the queue in hand.
#[derive(Debug)]
struct DealtMember {
    member: MemberNo,
    owner: MessageOwner,
    settles: bool,
    /// Whether what comes next waits, as what came before does.
    waits: bool,
    acquired: RangesBuffer,
    settled: RangesBuffer,
    /// Its last run among all that were dealt.
    last: Option<usize>,
}

/// Those of the members of a queue; kept for the next one.
#[derive(Debug, Default)]
struct DealtMembers {
    slots: Vec<DealtMember>,
    used: usize,
    by_member: FxHashMap<MemberNo, usize>,
    last: usize,
}

impl DealtMembers {
    fn clear(&mut self) {
        self.used = 0;
        self.by_member.clear();
        self.last = 0;
    }

    /// The place of a member. They are dealt to in turn, so that it mostly is the next one, or the one before.
    fn find(&mut self, number: MemberNo, members: &FxHashMap<MemberNo, Member>) -> Option<usize> {
        let used = &self.slots[..self.used];
        let next = if self.last + 1 < self.used { self.last + 1 } else { 0 };
        let guess =
            [next, self.last].into_iter().find(|at| used.get(*at).is_some_and(|slot| slot.member == number));
        let at = match guess.or_else(|| self.by_member.get(&number).copied()) {
            Some(at) => at,
            None => self.add(number, members.get(&number)?),
        };
        self.last = at;
        Some(at)
    }

    fn add(&mut self, number: MemberNo, member: &Member) -> usize {
        let at = self.used;
        if at == self.slots.len() {
            self.slots.push(DealtMember {
                member: number,
                owner: member.owner,
                settles: false,
                waits: false,
                acquired: RangesBuffer::default(),
                settled: RangesBuffer::default(),
                last: None,
            });
        }
        let slot = &mut self.slots[at];
        (slot.member, slot.owner, slot.settles) = (number, member.owner, member.settles);
        (slot.waits, slot.last) = (member.waiting > 0, None);
        self.used += 1;
        self.by_member.insert(number, at);
        at
    }
}

/// Messages in ascending order.
#[derive(Default)]
struct Ranges(Vec<Range<u64>>);

impl Ranges {
    fn add(&mut self, messages: Range<u64>) {
        match self.0.last_mut() {
            _ if messages.is_empty() => {}
            Some(last) if last.end == messages.start => last.end = messages.end,
            _ => self.0.push(messages),
        }
    }
}

/// Takes what a queue's dispatcher decides.
struct Deals<'a, 'w> {
    queue: SubscriptionNo,
    target: QueueTarget,
    members: &'a FxHashMap<MemberNo, Member>,
    slots: &'a mut DealtMembers,
    dealt: &'a mut Vec<Dealt>,
    others: &'a mut Vec<(SubscriptionNo, Range<u64>)>,
    writer: &'a mut OperationsWriter<'w>,
    claim: u64,
    count: u32,
}

impl Deals<'_, '_> {
    /// Writes what was gathered of it all.
    fn write(&mut self) {
        for slot in &mut self.slots.slots[..self.slots.used] {
            write_acquired(self.queue, slot, self.writer);
            write_settled(self.queue, slot, self.writer);
        }
        if self.claim > 0 {
            self.writer.push(self.queue, &Operation::Claimed { to: self.claim });
        }
        self.slots.clear();
    }
}

fn write_acquired(queue: SubscriptionNo, slot: &mut DealtMember, writer: &mut OperationsWriter<'_>) {
    if !slot.acquired.ranges().is_empty() {
        let terms = Terms { owner: slot.owner, timeout_ms: 0, token: 0 };
        writer.push(queue, &Operation::Acquired { ranges: slot.acquired.ranges(), terms });
        slot.acquired.clear();
    }
}

fn write_settled(queue: SubscriptionNo, slot: &mut DealtMember, writer: &mut OperationsWriter<'_>) {
    if !slot.settled.ranges().is_empty() {
        writer.push(queue, &settled(&slot.settled, Settlement::Acknowledged));
        slot.settled.clear();
    }
}

/// Drops messages that wait to be dead-lettered: on a full disk they may do so until this makes space. Tells how many, and whether those were all.
fn drop_dead_letters(
    target: QueueTarget,
    subscription: &Subscription,
    writer: &mut OperationsWriter<'_>,
) -> (u64, bool) {
    let mut dropped: Vec<(DeathReason, RangesBuffer)> = Vec::new();
    let (mut runs, mut all) = (0, true);
    for (messages, reason) in subscription.dead_letters() {
        all = runs < MOST_DROPPED;
        if !all {
            break;
        }
        runs += 1;
        match dropped.iter_mut().find(|(known, _)| *known == reason) {
            Some((_, ranges)) => drop(ranges.push(messages)),
            None => dropped.push((reason, RangesBuffer::of(once(messages)))),
        }
    }
    for (reason, ranges) in &dropped {
        let held_by = HeldBy::Owner(MessageOwner::DeadLetter(*reason));
        let operation = Operation::Settled { ranges: ranges.ranges(), held_by, why: Settlement::Dropped };
        writer.push(target.subscription(), &operation);
    }
    (dropped.iter().map(|(_, ranges)| ranges.ranges().messages()).sum(), all)
}

fn settled(ranges: &RangesBuffer, why: Settlement) -> Operation<'_> {
    Operation::Settled { ranges: ranges.ranges(), held_by: HeldBy::Any, why }
}

impl Deliveries for Deals<'_, '_> {
    fn deliver(&mut self, dispatched: Dispatched) {
        let Dispatched { member, owner, offset, bytes, redelivered, attempts, waits } = dispatched;
        let Some(at) = self.slots.find(member, self.members) else { return };
        let slot = &mut self.slots.slots[at];
        let message = offset..offset + 1;
        slot.waits |= waits;
        self.count += 1;
        // What waits is settled once it was sent, or it would be gone if its consumer went before.
        if slot.settles && !slot.waits {
            if !slot.settled.push(message.clone()) {
                write_settled(self.queue, slot, self.writer);
                slot.settled.push(message.clone());
            }
        } else if !slot.acquired.push(message.clone()) {
            write_acquired(self.queue, slot, self.writer);
            slot.acquired.push(message.clone());
        }
        let returned = attempts.map_or(0, |attempts| attempts.returned);
        let last = slot.last.and_then(|last| self.dealt.get_mut(last));
        let alike = last.filter(|last| {
            last.offsets.end == offset
                && (last.redelivered, last.returned, last.waits) == (redelivered, returned, slot.waits)
        });
        match alike {
            Some(last) => {
                last.offsets.end += 1;
                last.bytes += u64::from(bytes);
            }
            None => {
                slot.last = Some(self.dealt.len());
                let (waits, bytes, target) = (slot.waits, bytes.into(), self.target);
                let offsets = message;
                self.dealt.push(Dealt {
                    member,
                    owner,
                    target,
                    offsets,
                    bytes,
                    redelivered,
                    returned,
                    waits,
                });
            }
        }
    }

    fn expired(&mut self, offset: u64) {
        let ranges = RangesBuffer::of(once(offset..offset + 1));
        self.writer.push(self.queue, &settled(&ranges, Settlement::Expired));
        self.others.push((self.queue, offset..offset + 1));
    }

    fn claim(&mut self, to: u64) {
        self.claim = self.claim.max(to);
    }
}

impl QueueLeader {
    /// Makes the next entry, from what is there to be done.
    pub(super) fn propose<V: QueueView>(
        &mut self,
        view: &V,
        moment: &RoundTime,
        wakes: &mut WakeBatch,
    ) -> Proposed {
        let mut body = std::mem::take(&mut self.round.body);
        body.clear();
        let mut writer = OperationsWriter::new(&mut body, false);
        let empty = writer.bytes();
        let (entry, returning, gives_back) =
            (self.next_entry, &mut self.returning, &mut self.round.gives_back);
        let written = self.gathered.write(&mut writer, MOST_BYTES, |queue, first| {
            returning.add(entry, queue, first);
            gives_back.push(queue);
        });
        self.round.written = written;
        if writer.bytes() < MOST_BYTES {
            let asked = std::mem::take(&mut self.asked);
            for asked in asked {
                self.answer(asked, view, moment, &mut writer, wakes);
            }
            self.deal(view, moment.now_ms, &mut writer);
            self.expire(view, moment.now_ms, &mut writer);
        }
        let entry = writer.bytes() > empty || !self.round.next.is_empty();
        self.round.body = body;
        let more = self.gathered.len() > written || !self.asked.is_empty() || !self.due.is_empty();
        let more = more || self.expiring.has_listed();
        Proposed { entry, more }
    }

    /// Deals what the queues that are due have, as far as an entry goes.
    fn deal<V: QueueView>(&mut self, view: &V, now_ms: i64, writer: &mut OperationsWriter<'_>) {
        let mut left = MOST_DEALT;
        let looked_at = self.due.len();
        for _ in 0..looked_at {
            if left == 0 || writer.bytes() >= MOST_BYTES {
                return;
            }
            let Some(queue) = self.due.pop_front() else { return };
            let Some(led) = self.queues.get_mut(&queue) else { continue };
            led.is_due = false;
            let Some(subscription) = view.subscription(queue) else { continue };
            let Round { slots, dealt, others, .. } = &mut self.round;
            let (target, members) = (led.target, &self.members);
            let mut deals =
                Deals { queue, target, members, slots, dealt, others, writer, claim: 0, count: 0 };
            let fresh_from = *led.fresh_from.get_or_insert(subscription.end());
            let mut facts = view.facts(queue, fresh_from);
            let until = self.returning.first(queue).unwrap_or(u64::MAX);
            led.dispatcher.deal_before(until);
            let most = self.rates.available(queue, now_ms, left);
            let more = led.dispatcher.dispatch(
                subscription,
                &mut self.demands,
                now_ms,
                most,
                &mut facts,
                &mut deals,
            );
            deals.write();
            let count = deals.count;
            left = left.saturating_sub(count);
            // What the rate keeps back was looked at: it expires like what no member takes.
            let waits = self.rates.dealt(queue, now_ms, count, more);
            if more && !waits {
                self.look_at(queue);
            } else if until == u64::MAX {
                led.fresh_from = Some(subscription.end());
                self.expiring.touched(queue);
            }
        }
    }

    /// Proposes to settle what has expired at the heads of queues.
    fn expire<V: QueueView>(&mut self, view: &V, now_ms: i64, writer: &mut OperationsWriter<'_>) {
        if std::mem::take(&mut self.is_new) {
            view.expiring().into_iter().for_each(|queue| self.expiring.watch(queue));
        }
        self.expiring.due(now_ms);
        for queue in self.expiring.take_listed() {
            let subscription = view.subscription(queue).filter(|subscription| subscription.has_expiries());
            let Some(subscription) = subscription else {
                self.expiring.forget(queue);
                continue;
            };
            if writer.bytes() >= MOST_BYTES {
                self.expiring.touched(queue);
                continue;
            }
            let expired = self.expired(queue, subscription, now_ms);
            if !expired.ranges().is_empty() {
                writer.push(queue, &settled(&expired, Settlement::Expired));
                self.round.expires.push(queue);
                self.expiring.proposed(queue, self.next_entry);
            }
        }
    }

    /// What has expired at a queue's head and is not dealt; has the queue looked at again when the next one expires.
    fn expired(&mut self, queue: SubscriptionNo, subscription: &Subscription, now_ms: i64) -> RangesBuffer {
        let led = self.queues.get(&queue);
        let until = led.map_or(u64::MAX, |led| led.fresh_from.unwrap_or(0));
        let (mut expired, mut at) = (Ranges::default(), subscription.floor());
        subscription.expired(now_ms, |messages| {
            at = messages.end;
            expired.add(messages.start..messages.end.min(until));
        });
        let next = subscription.next_ready(at).and_then(|next| subscription.expires_ms(next));
        self.expiring.schedule(queue, next.filter(|expires_ms| *expires_ms > now_ms));
        self.undealt(queue, expired.0.into_iter().take(MOST_DROPPED))
    }

    /// Those of some messages that no member is dealt, and none will be before what is proposed of them is decided.
    fn undealt(&mut self, queue: SubscriptionNo, messages: impl Iterator<Item = Range<u64>>) -> RangesBuffer {
        let Some(led) = self.queues.get_mut(&queue) else { return RangesBuffer::of(messages) };
        let others = &mut self.round.others;
        let (mut undealt, from) = (RangesBuffer::default(), others.len());
        for messages in messages {
            led.dispatcher.undealt(messages, |messages| {
                undealt.push(messages.clone());
                others.push((queue, messages));
            });
        }
        others[from..].iter().for_each(|(_, messages)| led.dispatcher.propose(messages.clone()));
        undealt
    }

    /// What an entry says of expired messages is decided, or does not come.
    fn expiry_decided(&mut self, entry: u64, queues: &[SubscriptionNo]) {
        queues.iter().for_each(|queue| self.expiring.decided(*queue, entry));
    }

    /// Whether messages of a queue come to be ready by what is not applied yet.
    fn is_giving_back(&self, target: QueueTarget) -> bool {
        self.returning.first(target.subscription()).is_some()
    }

    /// An entry's messages are back, or stay where they are: what lies behind them may be dealt.
    fn given_back(&mut self, entry: u64, queues: &[SubscriptionNo]) {
        for queue in queues {
            if self.returning.decided(entry, *queue) {
                self.look_at(*queue);
            }
        }
    }

    fn answer<V: QueueView>(
        &mut self,
        asked: Asked,
        view: &V,
        moment: &RoundTime,
        writer: &mut OperationsWriter<'_>,
        wakes: &mut WakeBatch,
    ) {
        let Asked { ask, is_behind } = asked;
        if !ask.is_awaited() {
            return;
        }
        let Some(subscription) = view.subscription(ask.target().subscription()) else {
            return ask.refuse(QueueError::Unknown, wakes);
        };
        match ask {
            QueueRequest::Get { target, .. } if !is_behind && self.is_giving_back(target) => {
                self.round.next.push(OnceApplied::Ask(ask));
            }
            QueueRequest::Get { .. } => {
                // In an entry with changes more may come to be ready.
                let is_last = is_behind || moment.is_idle && self.round.written == 0;
                if let Some(ask) = self.pull(ask, subscription, view, moment.now_ms, writer) {
                    self.not_found(ask, is_last, wakes);
                }
            }
            QueueRequest::Back { target, .. } if !is_behind && self.is_giving_back(target) => {
                self.round.next.push(OnceApplied::Ask(ask));
            }
            QueueRequest::Back { replier, .. } => replier.send(Ok(()), wakes),
            QueueRequest::Purge { .. } if !is_behind => self.round.next.push(OnceApplied::Ask(ask)),
            QueueRequest::Purge { target, policy, dropped, replier } => {
                let (mut more, mut whole) = self.drop_waiting(target, policy, subscription, writer);
                if moment.is_full {
                    let (dead, all) = drop_dead_letters(target, subscription, writer);
                    (more, whole) = (more + dead, whole && all);
                }
                let dropped = dropped + more;
                self.round.next.push(match whole {
                    true => OnceApplied::Purged { dropped, replier },
                    false => OnceApplied::Ask(QueueRequest::Purge { target, policy, dropped, replier }),
                });
            }
            QueueRequest::Redrive { target, policy, messages, tally } => {
                self.hand_over(target, policy, &messages, subscription, writer);
                self.round.next.push(OnceApplied::HandedOver(tally));
            }
        }
    }

    /// Gets a message for the caller that asked. Gives back what was asked if there is none.
    fn pull<V: QueueView>(
        &mut self,
        ask: QueueRequest,
        subscription: &Subscription,
        view: &V,
        now_ms: i64,
        writer: &mut OperationsWriter<'_>,
    ) -> Option<QueueRequest> {
        let queue = ask.target().subscription();
        if self.rates.available(queue, now_ms, 1) == 0 {
            return Some(ask);
        }
        let QueueRequest::Get { target, policy, owner, settles, replier } = ask else { return Some(ask) };
        let puller = self.add_getter(target, owner, settles, replier);
        self.lead(target, policy);
        let led = self.queues.get_mut(&queue).expect("it is led from now on");
        let Round { slots, dealt, others, .. } = &mut self.round;
        let members = &self.members;
        let mut deals = Deals { queue, target, members, slots, dealt, others, writer, claim: 0, count: 0 };
        let mut facts = view.facts(queue, u64::MAX);
        let found = led.dispatcher.pull(puller, subscription, now_ms, &mut facts, &mut deals);
        deals.write();
        let others = subscription.count(MessageState::Ready, subscription.floor()..subscription.end());
        let left_there = others.saturating_sub(led.dispatcher.undecided());
        if found {
            self.rates.dealt(queue, now_ms, 1, false);
            if let Some(Member { to: Recipient::Getter { left, .. }, .. }) =
                self.members.get_mut(&puller.number)
            {
                *left = left_there;
            }
            return None;
        }
        let gone = self.members.remove(&puller.number);
        self.tidy(queue);
        let replier = gone.and_then(Member::into_getter)?;
        Some(QueueRequest::Get { target, policy, owner, settles, replier })
    }

    fn not_found(&mut self, ask: QueueRequest, is_last: bool, wakes: &mut WakeBatch) {
        match ask {
            QueueRequest::Get { replier, .. } if is_last => replier.send(Ok(None), wakes),
            ask => self.round.next.push(OnceApplied::Ask(ask)),
        }
    }

    /// Proposes to drop what is ready and not dealt, and what is parked. Gives how many messages, and whether that is all.
    fn drop_waiting(
        &mut self,
        target: QueueTarget,
        policy: QueuePolicy,
        subscription: &Subscription,
        writer: &mut OperationsWriter<'_>,
    ) -> (u64, bool) {
        let queue = target.subscription();
        let mut ranges = RangesBuffer::default();
        let others = &mut self.round.others;
        let before = others.len();
        let led = self.queues.entry(queue).or_insert_with(|| LedQueue::new(target, policy));
        let mut at = subscription.floor();
        while at < subscription.end() && others.len() - before < MOST_DROPPED {
            let (state, end) = subscription.run(at);
            if matches!(state, MessageState::Ready | MessageState::Parked) {
                led.dispatcher.undealt(at..end, |messages| {
                    ranges.push(messages.clone());
                    others.push((queue, messages));
                });
            }
            at = end;
        }
        others[before..].iter().for_each(|(_, messages)| led.dispatcher.propose(messages.clone()));
        if !ranges.ranges().is_empty() {
            writer.push(queue, &settled(&ranges, Settlement::Dropped));
        }
        let dropped = ranges.ranges().messages();
        self.tidy(queue);
        (dropped, at >= subscription.end())
    }

    /// The number and the body of the entry that was made.
    pub(super) fn entry(&self) -> (u64, &[u8]) {
        (self.next_entry, &self.round.body)
    }

    /// The entry is pushed: what may be sent is sent.
    pub(super) fn pushed(&mut self, wakes: &mut WakeBatch) {
        let body = std::mem::replace(&mut self.round.body, self.round.spare.pop().unwrap_or_default());
        let next = std::mem::take(&mut self.round.next);
        let (gives_back, expires) =
            (std::mem::take(&mut self.round.gives_back), std::mem::take(&mut self.round.expires));
        self.entries.insert(self.next_entry, PushedEntry { body, next, gives_back, expires });
        self.next_entry += 1;
        self.gathered.remove(std::mem::take(&mut self.round.written));
        self.round.others.clear();
        let mut dealt = std::mem::take(&mut self.round.dealt);
        for dealt in dealt.drain(..) {
            if dealt.waits {
                self.keep_waiting(dealt);
            } else {
                self.send(&dealt, wakes);
            }
        }
        self.round.dealt = dealt;
    }

    fn keep_waiting(&mut self, dealt: Dealt) {
        if let Some(member) = self.members.get_mut(&dealt.member) {
            member.waiting += dealt.messages();
        }
        if let Some(led) = self.queues.get_mut(&dealt.target.subscription()) {
            led.waiting.insert(dealt.offsets.start, dealt);
        }
    }

    /// Sends a member what it was dealt.
    pub(super) fn send(&mut self, dealt: &Dealt, wakes: &mut WakeBatch) {
        let Some(member) = self.members.get_mut(&dealt.member) else {
            // It went meanwhile, and what it was dealt stays with its owner unless it is given back.
            let change = Change::Returned(dealt.owner, false, 0);
            return self.gathered.add(dealt.target.subscription(), change, [dealt.offsets.clone()]);
        };
        let is_getter = matches!(member.to, Recipient::Getter { .. });
        let sent = member.send(dealt, wakes);
        if dealt.waits {
            member.waiting = member.waiting.saturating_sub(dealt.messages());
            if member.settles && sent {
                let change = Change::Settled(dealt.owner, Settlement::Acknowledged);
                self.gathered.add(dealt.target.subscription(), change, [dealt.offsets.clone()]);
            }
        }
        if is_getter {
            self.members.remove(&dealt.member);
            if !sent {
                // Its session may have said before that it gives back what it has.
                let change = Change::Returned(dealt.owner, false, 0);
                self.gathered.add(dealt.target.subscription(), change, [dealt.offsets.clone()]);
            }
        } else if !sent {
            self.session_gone(dealt.member);
        }
    }

    /// The entry is not pushed: nothing of it was sent, and what was gathered is still there.
    pub(super) fn refused(&mut self, why: ShardFailure, wakes: &mut WakeBatch) {
        self.round.written = 0;
        let gives_back = std::mem::take(&mut self.round.gives_back);
        self.given_back(self.next_entry, &gives_back);
        let expires = std::mem::take(&mut self.round.expires);
        self.expiry_decided(self.next_entry, &expires);
        let others = std::mem::take(&mut self.round.others);
        for (queue, messages) in others {
            self.queues.get_mut(&queue).into_iter().for_each(|led| led.dispatcher.withdraw(messages.clone()));
            self.look_at(queue);
        }
        for dealt in std::mem::take(&mut self.round.dealt) {
            self.withdraw(&dealt, why, wakes);
        }
        let next = std::mem::take(&mut self.round.next);
        next.into_iter().for_each(|next| next.refuse(why.into(), wakes));
    }

    fn withdraw(&mut self, dealt: &Dealt, why: ShardFailure, wakes: &mut WakeBatch) {
        let queue = dealt.target.subscription();
        self.refund(dealt);
        if let Some(led) = self.queues.get_mut(&queue) {
            led.dispatcher.withdraw(dealt.offsets.clone());
        }
        self.look_at(queue);
        if self.members.get(&dealt.member).is_some_and(|member| member.demand.is_none()) {
            let gone = self.members.remove(&dealt.member).and_then(Member::into_getter);
            gone.into_iter().for_each(|replier| replier.send(Err(why.into()), wakes));
            self.tidy(queue);
        }
    }

    /// What was dealt and is not sent is no use of its demand.
    pub(super) fn refund(&mut self, dealt: &Dealt) {
        let demand = self.members.get(&dealt.member).and_then(|member| member.demand);
        if let Some(row) = demand.and_then(|demand| self.rows.get(&demand)) {
            self.demands.refill(row.credit, dealt.messages() as u32, dealt.bytes);
        }
    }

    /// An entry is decided: what waited for it goes on.
    pub(super) fn applied(&mut self, number: u64, wakes: &mut WakeBatch) {
        let Some(entry) = self.entries.remove(&number) else { return };
        self.given_back(number, &entry.gives_back);
        self.expiry_decided(number, &entry.expires);
        self.keep_spare(entry.body);
        for next in entry.next {
            match next {
                OnceApplied::Ask(ask) => self.asked.push_back(Asked { ask, is_behind: true }),
                OnceApplied::Purged { dropped, replier } => replier.send(Ok(dropped), wakes),
                OnceApplied::HandedOver(tally) => tally.answer(Ok(())),
            }
        }
    }

    /// An entry that was pushed was given up, although this node leads on: there was no room for it. What sessions said in it is said again, and
    /// what was dealt is dealt anew, as something that may have been seen.
    pub(super) fn lost(&mut self, number: u64, why: ShardFailure, wakes: &mut WakeBatch) {
        let Some(PushedEntry { body, next, gives_back, expires }) = self.entries.remove(&number) else {
            return;
        };
        self.given_back(number, &gives_back);
        self.expiry_decided(number, &expires);
        next.into_iter().for_each(|next| next.refuse(why.into(), wakes));
        let Ok(list) = OperationList::decode(&body) else { return };
        let mut said = Gathered::default();
        for (queue, operation) in list.iter() {
            match operation {
                Operation::Settled { ranges, held_by: HeldBy::Owner(owner), why } => {
                    said.add(queue, Change::Settled(owner, why), ranges.iter());
                }
                Operation::Returned { ranges, held_by: HeldBy::Owner(owner), counted, not_before_ms } => {
                    said.add(queue, Change::Returned(owner, counted, not_before_ms), ranges.iter());
                }
                Operation::Released { owner, counted } => {
                    said.add(queue, Change::Released(owner, counted), []);
                }
                Operation::Acquired { ranges, .. } | Operation::Settled { ranges, .. } => {
                    ranges.iter().for_each(|messages| self.lost_messages(queue, messages));
                }
                _ => {}
            }
        }
        self.gathered.put_before(said);
    }

    fn keep_spare(&mut self, body: Vec<u8>) {
        if self.round.spare.len() < SPARE && body.capacity() <= SPARE_BYTES {
            self.round.spare.push(body);
        }
    }

    fn lost_messages(&mut self, queue: SubscriptionNo, messages: Range<u64>) {
        self.forget_waiting(queue, messages.clone());
        if let Some(led) = self.queues.get_mut(&queue) {
            led.dispatcher.lost(messages);
        }
        self.look_at(queue);
    }
}

impl OnceApplied {
    pub(super) fn refuse(self, error: QueueError, wakes: &mut WakeBatch) {
        match self {
            Self::Ask(ask) => ask.refuse(error, wakes),
            Self::Purged { replier, .. } => replier.send(Err(error), wakes),
            Self::HandedOver(tally) => tally.answer(Err(error)),
        }
    }
}

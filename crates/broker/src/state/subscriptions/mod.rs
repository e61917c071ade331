//! The projection of deliveries: where each message of each queue of the shard stands.

mod named;
mod paged;
mod view;

use std::ops::Range;

use sabir_delivery::policy::{Backlog, DeathPolicy, LengthLimit};
use sabir_delivery::subscription::{
    Attempts, HeldBy, MessageOwner, MessageState, Operation, OperationList, RangesBuffer, Settlement,
    Subscription, SubscriptionNo, Subscriptions, Touched, apply_list,
};
use sabir_journal::EntryView;
use sabir_journal::pages::PageError;
use sabir_model::{FrontendNo, Offset, PartitionId};

use super::{At, CoreProjection, EntryError, EntryOutcome, Locate, Outcome, StoredMaps, bad_body};
use crate::entry::{
    DeadLetters, DeliveryBody, DeliveryError, DeliveryOutcome, DueMessage, Kinds, RecordPlace,
    SubscribeError, SubscriptionMade, SubscriptionRemoved, SubscriptionSettings, SubscriptionStart, kind,
};
use crate::projection::{PageMap, Projection};
pub(crate) use named::NamedSubscription;
use named::NamedSubscriptions;
use paged::PagedSubscriptions;
pub use view::{SubscriptionCounts, SubscriptionView};

/// What entries did to messages, for the leader. Told in the order in which it happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TouchedMessages {
    /// They became ready.
    Ready { subscription: SubscriptionNo, messages: Range<u64> },
    /// They went to an owner.
    Acquired {
        subscription: SubscriptionNo,
        messages: Range<u64>,
        owner: MessageOwner,
        deadline_ms: Option<i64>,
    },
    /// Messages that expire are published to a queue that had none.
    Expiring { subscription: SubscriptionNo },
    /// They are done with.
    Settled { subscription: SubscriptionNo, messages: Range<u64>, why: Settlement },
    /// They are parked.
    Parked { subscription: SubscriptionNo, messages: Range<u64> },
    /// The position was moved: nothing known of the messages holds any more.
    Reset { subscription: SubscriptionNo },
    /// An operation that acquires or settles named them, whether it concerned them or not: behind what it did, and what others of its entry
    /// did.
    Named { subscription: SubscriptionNo, messages: Range<u64> },
    /// The queue takes in nothing more, if it was empty.
    Sealed { subscription: SubscriptionNo },
    /// The queue was deleted.
    Gone { subscription: SubscriptionNo },
}

/// Messages that an entry parked alike: their timers are to be set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ParkedMessages {
    /// The first of them.
    pub(super) first: DueMessage,
    /// How many they are.
    pub(super) count: u64,
    pub(super) until_ms: i64,
}

impl ParkedMessages {
    /// Takes another one in, if it is the next and parked alike.
    fn takes(&mut self, message: DueMessage, until_ms: i64) -> bool {
        let next = DueMessage { offset: self.first.offset + self.count, ..self.first };
        let is_next = next == message && self.until_ms == until_ms;
        self.count += u64::from(is_next);
        is_next
    }
}

/// What an entry did to a partition, which its subscriptions are told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum QueueChange {
    /// It was made.
    Made(PartitionId),
    /// Records are appended next: so many of that size. Where a limit asks for it.
    Sized(PartitionId, u32, u32),
    /// These records are appended next, and have that level. Where the queue has priorities.
    Leveled(PartitionId, Range<u64>, u8),
    /// These records are appended next, and are kept back until that moment, in milliseconds. Where the queue delays.
    Delayed(PartitionId, Range<u64>, i64),
    /// Of the records that are appended next, from that one on, so many expire at a moment.
    Expires(PartitionId, u32, u32, i64),
    /// Records were appended.
    Published(PartitionId, u32),
    /// Records were appended of which these are not to be delivered: the queue had had messages of the same ids.
    Repeated(PartitionId, u32, Vec<Range<u64>>),
    /// These records were appended, and the queue refused them: they are to be published elsewhere.
    Refused(PartitionId, Range<u64>),
    /// Its limits changed.
    Configured(PartitionId),
    /// Records below an offset were removed from a topic's partition.
    Trimmed(PartitionId, Offset),
    /// It was deleted.
    Gone(PartitionId),
}

/// The subscription of a queue's partition.
pub(crate) fn subscription_of(partition: PartitionId) -> SubscriptionNo {
    SubscriptionNo(partition.0)
}

/// The partition that a subscription is of, a queue's own or another one.
pub(crate) fn partition_of(subscription: SubscriptionNo) -> PartitionId {
    PartitionId(subscription.0 & ((1 << named::PARTITION_BITS) - 1))
}

/// Whether it is one of those that a topic has which is no queue.
pub(crate) fn is_named(subscription: SubscriptionNo) -> bool {
    subscription.0 >> named::PARTITION_BITS != 0
}

/// All subscriptions of a shard.
#[derive(Default)]
pub(crate) struct SubscriptionTable {
    paged: PagedSubscriptions,
    named: NamedSubscriptions,
    /// What the block applied last did.
    pub(crate) touched: Vec<TouchedMessages>,
    /// What was parked, and has no timer yet.
    pub(super) parked: Vec<ParkedMessages>,
    /// How much of it was there before the entry that is being applied.
    before: usize,
    /// Messages that were removed from their topics before they were dealt, since the start; no part of the projection.
    pub(crate) skipped: u64,
}

impl SubscriptionTable {
    pub(crate) fn get(&self, number: SubscriptionNo) -> Option<&Subscription> {
        self.paged.get(number)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.paged.is_empty()
    }

    /// A block begins.
    pub(super) fn begin_block(&mut self) {
        self.touched.clear();
        self.before = 0;
    }

    /// An entry begins.
    pub(super) fn begin_entry(&mut self) {
        self.before = self.touched.len();
    }

    /// The queues' own that the entry changed.
    pub(super) fn touched_by_entry(&self) -> impl Iterator<Item = (PartitionId, &Subscription)> {
        let events = &self.touched[self.before.min(self.touched.len())..];
        let runs = events.chunk_by(|a, b| a.subscription() == b.subscription());
        runs.filter_map(|run| {
            let number = run[0].subscription();
            (!is_named(number)).then_some(())?;
            Some((partition_of(number), self.get(number)?))
        })
    }

    /// Messages of queues' own that the entry settled.
    pub(super) fn settled_by_entry(&self) -> impl Iterator<Item = (SubscriptionNo, Range<u64>)> {
        let events = &self.touched[self.before.min(self.touched.len())..];
        events.iter().filter_map(|event| match event {
            TouchedMessages::Settled { subscription, messages, .. } if !is_named(*subscription) => {
                Some((*subscription, messages.clone()))
            }
            _ => None,
        })
    }

    /// What is ready of each queue.
    pub(super) fn backlogs(&self) -> impl Iterator<Item = (PartitionId, Backlog)> {
        let queues = self.paged.iter().filter(|(number, _)| !is_named(*number));
        queues.map(|(number, subscription)| (partition_of(number), subscription.backlog()))
    }

    /// The queues that take in nothing more.
    pub(crate) fn sealed(&self) -> impl Iterator<Item = PartitionId> {
        let sealed = self.paged.iter().filter(|(_, subscription)| subscription.is_sealed());
        sealed.map(|(number, _)| partition_of(number))
    }

    /// What is ready of a queue.
    pub(crate) fn backlog(&self, id: PartitionId) -> Backlog {
        self.get(subscription_of(id)).map(Subscription::backlog).unwrap_or_default()
    }

    /// What becomes of messages that a queue gives up from now on.
    pub(super) fn set_deaths(&mut self, id: PartitionId, deaths: DeathPolicy) {
        self.paged.set_deaths(subscription_of(id), deaths);
    }

    /// Those with messages that wait to be published elsewhere.
    pub(crate) fn dead_lettering(&self) -> impl Iterator<Item = SubscriptionNo> {
        let waiting = self.paged.iter().filter(|(_, subscription)| subscription.has_dead_letters());
        waiting.map(|(number, _)| number)
    }

    /// How many messages wait to be published elsewhere.
    pub(crate) fn waiting_dead_letters(&self) -> u64 {
        let waiting = self.paged.iter().flat_map(|(_, subscription)| subscription.dead_letters());
        waiting.map(|(messages, _)| messages.end - messages.start).sum()
    }

    /// Those with messages that expire.
    pub(crate) fn expiring(&self) -> impl Iterator<Item = SubscriptionNo> {
        self.paged.iter().filter(|(_, subscription)| subscription.has_expiries()).map(|(number, _)| number)
    }

    /// Gives the oldest ready messages up until the others are within a limit.
    pub(super) fn drop_excess(&mut self, id: PartitionId, limit: &LengthLimit, time_ms: i64) {
        let number = subscription_of(id);
        let Some(excess) = self.get(number).map(|subscription| subscription.excess(limit)) else { return };
        if !excess.ranges().is_empty() {
            let (ranges, held_by, why) = (excess.ranges(), HeldBy::Any, Settlement::TooMany);
            self.apply_one(number, &Operation::Settled { ranges, held_by, why }, time_ms);
        }
    }

    /// Takes in what an entry did to a partition.
    pub(super) fn follow(&mut self, change: QueueChange, time_ms: i64) {
        match change {
            QueueChange::Made(id) => self.paged.insert(subscription_of(id), Subscription::new(0)),
            QueueChange::Gone(id) => {
                let named = self.named.of(id).iter().copied();
                let all: Vec<_> = std::iter::once(subscription_of(id)).chain(named).collect();
                all.into_iter().for_each(|subscription| self.forget(subscription));
            }
            QueueChange::Sized(id, count, size) => {
                if let Some(subscription) = self.paged.get_mut(subscription_of(id)) {
                    subscription.note_size(count, size);
                }
            }
            QueueChange::Leveled(id, messages, level) => {
                if let Some(subscription) = self.paged.get_mut(subscription_of(id)) {
                    subscription.note_level(messages, level);
                }
            }
            QueueChange::Expires(id, first, count, expires_ms) => {
                let subscription = subscription_of(id);
                if let Some(kept) = self.paged.get_mut(subscription) {
                    if !kept.has_expiries() {
                        self.touched.push(TouchedMessages::Expiring { subscription });
                    }
                    kept.note_expiry(first, count, expires_ms);
                }
            }
            QueueChange::Repeated(id, count, again) => {
                let number = subscription_of(id);
                self.apply_one(number, &Operation::Published { count, transaction: None }, time_ms);
                let (again, held_by, why) = (RangesBuffer::of(again), HeldBy::Any, Settlement::Dropped);
                self.apply_one(number, &Operation::Settled { ranges: again.ranges(), held_by, why }, time_ms);
            }
            QueueChange::Published(id, count) => {
                let published = Operation::Published { count, transaction: None };
                let named = self.named.of(id);
                if named.is_empty() {
                    self.apply_one(subscription_of(id), &published, time_ms);
                    return;
                }
                // No queue has any.
                for at in 0..named.len() {
                    self.apply_one(self.named.of(id)[at], &published, time_ms);
                }
            }
            QueueChange::Trimmed(id, to) => {
                for at in 0..self.named.of(id).len() {
                    self.skip(self.named.of(id)[at], to, time_ms);
                }
            }
            QueueChange::Refused(id, messages) => self.refuse_last(subscription_of(id), messages, time_ms),
            QueueChange::Delayed(..) | QueueChange::Configured(_) => {}
        }
    }

    /// What a subscription of a topic was made with; none of a queue's own.
    pub(crate) fn settings(&self, number: SubscriptionNo) -> Option<&SubscriptionSettings> {
        self.named.get(number).map(|named| &named.settings)
    }

    /// A partition's part of a topic's subscription of that name.
    pub(crate) fn find(
        &self,
        partition: PartitionId,
        name: &str,
    ) -> Option<(SubscriptionNo, &NamedSubscription)> {
        let number = self.named.find(partition, name)?;
        Some((number, self.named.get(number)?))
    }

    /// The subscriptions that a topic has in a partition.
    pub(crate) fn named_of(
        &self,
        partition: PartitionId,
    ) -> impl Iterator<Item = (SubscriptionNo, &NamedSubscription)> {
        self.named.each_of(partition)
    }

    /// The partitions with such subscriptions.
    pub(super) fn subscribed(&self) -> impl Iterator<Item = PartitionId> {
        self.named.partitions()
    }

    /// Whether a partition has any.
    pub(super) fn is_subscribed(&self, partition: PartitionId) -> bool {
        !self.named.of(partition).is_empty()
    }

    pub(super) fn has_named(&self) -> bool {
        !self.named.is_empty()
    }

    /// Makes a partition's part of a topic's subscription, if it is not there. The partition has the records of these offsets.
    pub(super) fn subscribe(
        &mut self,
        body: &SubscriptionMade,
        owner: FrontendNo,
        kept: Range<Offset>,
        at: &At,
    ) -> Result<SubscriptionNo, SubscribeError> {
        if let Some(number) = self.named.find(body.partition, &body.name) {
            return Ok(number);
        }
        if self.named.of(body.partition).len() >= named::MOST {
            return Err(SubscribeError::TooMany);
        }
        let number = self.named.free(body.partition, at.sequence.0);
        let first = first_of(body.start, unsigned(kept.start)..unsigned(kept.end));
        let mut made = Subscription::new(first);
        made.set_deaths(body.settings.deaths());
        self.paged.insert(number, made);
        let SubscriptionMade { partitions, name, settings, .. } = body.clone();
        self.named.insert(number, NamedSubscription { name, owner, partitions, settings });
        let mut left = unsigned(kept.end) - first;
        while left > 0 {
            let count = u32::try_from(left).unwrap_or(u32::MAX);
            self.apply_one(number, &Operation::Published { count, transaction: None }, at.time_ms);
            left -= u64::from(count);
        }
        Ok(number)
    }

    /// Removes a partition's part of a topic's subscription.
    pub(super) fn unsubscribe(
        &mut self,
        body: &SubscriptionRemoved,
    ) -> Result<SubscriptionNo, SubscribeError> {
        let found = self.find(body.partition, &body.name).filter(|(_, named)| named.owner == body.owner);
        let (number, _) = found.ok_or(SubscribeError::Unknown)?;
        self.forget(number);
        Ok(number)
    }

    /// A subscription as the entries so far left it.
    pub(crate) fn view(&self, number: SubscriptionNo) -> Option<SubscriptionView<'_>> {
        Some(SubscriptionView { number, named: self.named.get(number), kept: self.get(number)? })
    }

    /// Those that a topic has in a partition.
    pub(crate) fn views(&self, partition: PartitionId) -> impl Iterator<Item = SubscriptionView<'_>> {
        self.named.of(partition).iter().filter_map(|number| self.view(*number))
    }

    pub(super) fn forget(&mut self, subscription: SubscriptionNo) {
        self.named.remove(subscription);
        self.paged.remove(subscription);
        self.touched.push(TouchedMessages::Gone { subscription });
    }

    /// What was removed from the log below an offset is done with, whichever owner has it.
    fn skip(&mut self, number: SubscriptionNo, to: Offset, time_ms: i64) {
        let Some(subscription) = self.get(number) else { return };
        let gone = subscription.floor()..unsigned(to).min(subscription.end());
        if gone.is_empty() {
            return;
        }
        self.skipped += subscription.count(MessageState::Ready, gone.clone());
        let ranges = RangesBuffer::of(std::iter::once(gone));
        let (ranges, held_by, why) = (ranges.ranges(), HeldBy::Any, Settlement::Gone);
        self.apply_one(number, &Operation::Settled { ranges, held_by, why }, time_ms);
    }

    fn apply_one(&mut self, number: SubscriptionNo, operation: &Operation<'_>, time_ms: i64) {
        let mut told = TouchRecorder::new(number, self.before, &mut self.touched, &mut self.parked);
        if let Some(subscription) = self.paged.get_mut(number) {
            subscription.apply(operation, time_ms, &mut told);
        }
    }

    /// A parked message's time has come. Tells whether it is ready by that: one that was settled otherwise, or that is not there any more, is not.
    pub(super) fn unpark(&mut self, due: &DueMessage, time_ms: i64) -> bool {
        let is_parked = self.is_parked(due);
        if is_parked {
            self.apply_one(due.subscription, &due.operation(), time_ms);
        }
        is_parked
    }

    /// Whether a message is still parked as its timer has it.
    pub(crate) fn is_parked(&self, due: &DueMessage) -> bool {
        self.get(due.subscription).is_some_and(|queue| queue.admits(&due.operation(), 0))
    }

    fn refuse_last(&mut self, subscription: SubscriptionNo, messages: Range<u64>, time_ms: i64) {
        let mut told = TouchRecorder::new(subscription, self.before, &mut self.touched, &mut self.parked);
        if let Some(kept) = self.paged.get_mut(subscription) {
            kept.give_up_last(messages, Settlement::TooMany, time_ms, &mut told);
        }
    }

    /// Whether all of these messages wait to be published elsewhere for that reason.
    pub(super) fn waits(&self, letter: &DeadLetters, time_ms: i64) -> bool {
        let ranges = letter.ranges();
        let queue = self.get(letter.queue);
        queue.is_some_and(|queue| queue.admits(&letter.settled(&ranges), time_ms))
    }

    /// Of messages that waited to be published elsewhere so many at the front are done with, and the others are ready again.
    pub(super) fn settle_dead(&mut self, letter: &DeadLetters, gone: u32, time_ms: i64) {
        let [gone, back] = letter.parts(gone);
        if !gone.ranges().is_empty() {
            self.apply_one(letter.queue, &letter.settled(&gone), time_ms);
        }
        if !back.ranges().is_empty() {
            self.apply_one(letter.queue, &letter.back(&back), time_ms);
        }
    }

    /// Whether a message is there and not settled.
    pub(crate) fn is_unsettled(&self, place: RecordPlace) -> bool {
        let offset = u64::try_from(place.offset.0).unwrap_or(u64::MAX);
        let queue = self.get(subscription_of(place.partition));
        queue.is_some_and(|queue| offset < queue.end() && queue.state(offset) != MessageState::Settled)
    }

    /// Whether one of these messages is there and not settled.
    pub(crate) fn has_unsettled(&self, queue: SubscriptionNo, offsets: Range<u64>) -> bool {
        let Some(queue) = self.get(queue) else { return false };
        let (mut at, end) = (offsets.start, offsets.end.min(queue.end()));
        while at < end {
            let (state, next) = queue.run(at);
            if state != MessageState::Settled {
                return true;
            }
            at = next.max(at + 1);
        }
        false
    }

    /// A message that was kept back has gone where it goes.
    pub(super) fn settle_fired(&mut self, place: RecordPlace, time_ms: i64) {
        let offset = u64::try_from(place.offset.0).unwrap_or(u64::MAX);
        let ranges = RangesBuffer::of(std::iter::once(offset..offset.saturating_add(1)));
        let (ranges, held_by, why) = (ranges.ranges(), HeldBy::Any, Settlement::Acknowledged);
        self.apply_one(
            subscription_of(place.partition),
            &Operation::Settled { ranges, held_by, why },
            time_ms,
        );
    }

    /// Does one operation of a front end's entry. Gives how many messages it concerned, and which went to an owner; `None` where there is no
    /// such subscription.
    pub(super) fn operate(
        &mut self,
        number: SubscriptionNo,
        operation: &Operation<'_>,
        time_ms: i64,
    ) -> Option<(u64, Vec<Range<u64>>)> {
        let subscription = self.paged.get_mut(number)?;
        let from = self.touched.len();
        let mut told = TouchRecorder::new(number, from, &mut self.touched, &mut self.parked);
        let concerned = subscription.apply(operation, time_ms, &mut told);
        told.name(number, operation);
        let acquired = self.touched[from..].iter().filter_map(|event| match event {
            TouchedMessages::Acquired { messages, .. } => Some(messages.clone()),
            _ => None,
        });
        Some((concerned, acquired.collect()))
    }

    /// A node started to lead the shard. What has nothing unsettled has nothing that could come of it.
    pub(super) fn started(&mut self, clean: bool, time_ms: i64) {
        let has_any = |(number, subscription): (SubscriptionNo, &Subscription)| {
            (subscription.floor() < subscription.end()).then_some(number)
        };
        let all: Vec<SubscriptionNo> = self.paged.iter().filter_map(has_any).collect();
        for number in all {
            self.apply_one(number, &Operation::Started { clean }, time_ms);
        }
    }

    fn deliver(&mut self, list: &OperationList<'_>, time_ms: i64) -> Result<DeliveryOutcome, DeliveryError> {
        let mut told =
            TouchRecorder::new(SubscriptionNo(0), self.before, &mut self.touched, &mut self.parked);
        let applied = apply_list(list, &mut self.paged, time_ms, &mut told);
        list.iter().for_each(|(number, operation)| told.name(number, &operation));
        let concerned = applied.map_err(|refused| DeliveryError::Refused { operation: refused.operation })?;
        Ok(DeliveryOutcome { concerned })
    }
}

fn unsigned(offset: Offset) -> u64 {
    u64::try_from(offset.0).expect("offsets count from 0")
}

/// The first message that is for a subscription which is made, where these are kept.
fn first_of(start: SubscriptionStart, kept: Range<u64>) -> u64 {
    match start {
        SubscriptionStart::Oldest => kept.start,
        SubscriptionStart::Last => kept.end.saturating_sub(1).max(kept.start),
        SubscriptionStart::Next => kept.end,
        SubscriptionStart::At(offset) => offset.clamp(kept.start, kept.end),
    }
}

/// Writes down what operations do, in runs.
struct TouchRecorder<'a> {
    subscription: SubscriptionNo,
    /// Runs of earlier entries are not made longer: what an entry touched is known by what stands behind them.
    before: usize,
    events: &'a mut Vec<TouchedMessages>,
    parked: &'a mut Vec<ParkedMessages>,
}

impl<'a> TouchRecorder<'a> {
    fn new(
        subscription: SubscriptionNo,
        before: usize,
        events: &'a mut Vec<TouchedMessages>,
        parked: &'a mut Vec<ParkedMessages>,
    ) -> Self {
        Self { subscription, before, events, parked }
    }

    /// What an operation proposes is decided, for all that it names. What a session says of its own under a fence, a late one perhaps, is no
    /// proposal of the leader's.
    fn name(&mut self, subscription: SubscriptionNo, operation: &Operation<'_>) {
        if let Operation::Acquired { ranges, .. } | Operation::Settled { ranges, held_by: HeldBy::Any, .. } =
            operation
        {
            let named = ranges.iter().map(|messages| TouchedMessages::Named { subscription, messages });
            self.events.extend(named);
        }
        if let Operation::SealedIfEmpty = operation {
            self.events.push(TouchedMessages::Sealed { subscription });
        }
    }

    /// Adds a run, or makes the last one longer that it goes on from.
    fn add(&mut self, event: TouchedMessages) {
        let joined = self.events[self.before..].last_mut().is_some_and(|last| last.join(&event));
        if !joined {
            self.events.push(event);
        }
    }
}

impl TouchedMessages {
    /// The subscription that it is about.
    pub(crate) fn subscription(&self) -> SubscriptionNo {
        match self {
            Self::Ready { subscription, .. }
            | Self::Expiring { subscription }
            | Self::Acquired { subscription, .. }
            | Self::Settled { subscription, .. }
            | Self::Parked { subscription, .. }
            | Self::Reset { subscription }
            | Self::Named { subscription, .. }
            | Self::Sealed { subscription }
            | Self::Gone { subscription } => *subscription,
        }
    }

    /// Takes in a run that goes on from this one; tells whether it does.
    fn join(&mut self, next: &Self) -> bool {
        let (before, more) = match (&mut *self, next) {
            (Self::Ready { subscription, messages }, Self::Ready { subscription: other, messages: more })
                if subscription == other =>
            {
                (messages, more)
            }
            (
                Self::Acquired { subscription, messages, owner, deadline_ms },
                Self::Acquired { subscription: other, messages: more, owner: to, deadline_ms: until },
            ) if (&*subscription, &*owner, &*deadline_ms) == (other, to, until) => (messages, more),
            (
                Self::Settled { subscription, messages, why },
                Self::Settled { subscription: other, messages: more, why: because },
            ) if (&*subscription, &*why) == (other, because) => (messages, more),
            (
                Self::Parked { subscription, messages },
                Self::Parked { subscription: other, messages: more },
            ) if subscription == other => (messages, more),
            _ => return false,
        };
        let goes_on = before.end == more.start;
        if goes_on {
            before.end = more.end;
        }
        goes_on
    }
}

impl Touched for TouchRecorder<'_> {
    fn subscription(&mut self, number: SubscriptionNo) {
        self.subscription = number;
    }

    fn ready(&mut self, messages: Range<u64>) {
        self.add(TouchedMessages::Ready { subscription: self.subscription, messages });
    }

    fn acquired(&mut self, messages: Range<u64>, owner: MessageOwner, deadline_ms: Option<i64>) {
        let subscription = self.subscription;
        self.add(TouchedMessages::Acquired { subscription, messages, owner, deadline_ms });
    }

    fn settled(&mut self, messages: Range<u64>, why: Settlement) {
        self.add(TouchedMessages::Settled { subscription: self.subscription, messages, why });
    }

    fn parked(&mut self, offset: u64, until_ms: i64, resets: u32, attempts: Attempts) {
        let subscription = self.subscription;
        self.add(TouchedMessages::Parked { subscription, messages: offset..offset + 1 });
        let message = DueMessage { subscription, offset, resets, attempts };
        if !self.parked.last_mut().is_some_and(|last| last.takes(message, until_ms)) {
            self.parked.push(ParkedMessages { first: message, count: 1, until_ms });
        }
    }

    fn reset(&mut self) {
        self.add(TouchedMessages::Reset { subscription: self.subscription });
    }
}

impl Projection for SubscriptionTable {
    fn maps(&mut self) -> Vec<&mut dyn PageMap> {
        vec![&mut self.paged, self.named.pages()]
    }
}

impl CoreProjection for SubscriptionTable {
    const NAME: &'static str = "subscriptions";
    const KINDS: Kinds = &[kind::DELIVERIES];

    fn restore(stored: &StoredMaps<'_>) -> Result<Self, PageError> {
        let (mut paged, named) = (PagedSubscriptions::restore(stored)?, NamedSubscriptions::restore(stored)?);
        named.iter().for_each(|(number, named)| paged.set_deaths(number, named.settings.deaths()));
        Ok(Self { paged, named, ..Self::default() })
    }

    fn apply(&mut self, entry: &EntryView<'_>, at: &At, _: Locate<'_>) -> Result<Outcome, EntryError> {
        if entry.kind != DeliveryBody::KIND {
            return Err(EntryError::unknown(entry));
        }
        let body = DeliveryBody::decode(entry.body).map_err(|source| bad_body(entry, source))?;
        Ok(self.deliver(&body.0, at.time_ms).into_outcome())
    }
}

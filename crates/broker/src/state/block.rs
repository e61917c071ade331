//! A block applied: the one place where entries take effect, in their order.

use sabir_delivery::policy::DeathReason;
use sabir_delivery::subscription::SubscriptionNo;
use sabir_journal::{BlockView, EntryView};
use sabir_model::{AppendError, DecodeError, FrontendNo, Offset, PartitionId, Sequence, ShardFailure, Term};

use super::timers::recall_settled;
use super::{
    ApplyError, At, CoreProjection, EntryError, EntryOutcome, Locate, Outcome, Partitions, QueueChange,
    ShardParts, ShardState, SubscriptionTable,
};
use crate::catalog::Catalog;
use crate::entry::{
    Body, DeadLettered, DeadLetters, DeliveryError, DeliveryOutcome, NodeTime, RecordPlace, Started,
    SubscribeError, SubscriptionMade, SubscriptionRemoved, TimersFired, kind,
};
use crate::exchange::ExchangeTable;
use crate::group::GroupTable;

/// What an entry changes beside what it says, in bytes.
const AN_ENTRY_CHANGES: u64 = 32;

impl ShardState {
    /// Applies the block that follows the last one; `outcome` is told what each entry came to, in order, and is shown the
    /// projections as the entry left them. An entry that fails
    /// changes nothing, those before it have taken effect, and nothing is applied after it, nor checkpointed.
    pub(crate) fn apply_block(
        &mut self,
        sequence: Sequence,
        term: Term,
        content: &[u8],
        locate: Locate<'_>,
        outcome: &mut dyn FnMut(u32, Outcome, &Self),
    ) -> Result<(), ApplyError> {
        let failed = |error: EntryError| ApplyError { sequence, reason: error.to_string() };
        if let Some(block) = self.half_applied {
            return Err(failed(EntryError::HalfApplied { block }));
        }
        // Before anything changes, and taken back when all has: whichever way this is left, half a block is known for what it is.
        self.half_applied = Some(sequence);
        self.apply_whole(sequence, term, content, locate, outcome).map_err(failed)?;
        self.half_applied = None;
        Ok(())
    }

    fn apply_whole(
        &mut self,
        sequence: Sequence,
        term: Term,
        content: &[u8],
        locate: Locate<'_>,
        outcome: &mut dyn FnMut(u32, Outcome, &Self),
    ) -> Result<(), EntryError> {
        let view = BlockView::parse(content)?;
        let time_ms = view.time_ms();
        let mut at = At { sequence, term, time_ms, node_ms: time_ms };
        if sequence != self.applied.next() {
            return Err(EntryError::Order { after: self.applied });
        }
        self.partitions.begin_block();
        self.front_ends.begin_block();
        self.subscriptions.begin_block();
        self.timers.begin_block();
        self.enter(term);
        let mut changes = 0;
        for entry in view.entries() {
            let entry = entry?;
            changes += entry.body.len() as u64 + AN_ENTRY_CHANGES;
            if entry.kind == kind::NODE_TIME {
                let said = NodeTime::decode(entry.body).map_err(|source| bad_body(&entry, source))?;
                at.node_ms = said.ms.min(time_ms);
            }
            let result = self.apply(&entry, &at, locate)?;
            outcome(entry.index, result, self);
        }
        self.partitions.note_usage(sequence, locate);
        self.applied = sequence;
        self.time_ms = at.time_ms;
        self.counters.blocks += 1;
        self.counters.entries += u64::from(view.len());
        self.counters.bytes += content.len() as u64;
        self.counters.changes += changes;
        Ok(())
    }

    fn enter(&mut self, term: Term) {
        if term != self.term {
            self.term = term;
            self.partitions.enter(term);
        }
    }

    fn apply(&mut self, entry: &EntryView<'_>, at: &At, locate: Locate<'_>) -> Result<Outcome, EntryError> {
        self.within_entry = true;
        self.subscriptions.begin_entry();
        let gone = self.partitions.touched.gone.len();
        let outcome = self.apply_entry(entry, at, locate);
        let Self { partitions, subscriptions, timers, .. } = self;
        follow_queues(&mut ShardParts { partitions, subscriptions, timers }, at);
        for id in &self.partitions.touched.gone[gone..] {
            self.front_ends.partition_gone(*id);
        }
        self.within_entry = false;
        outcome
    }

    /// The projections are asked in the order in which their entries are frequent, by static dispatch.
    fn apply_entry(
        &mut self,
        entry: &EntryView<'_>,
        at: &At,
        locate: Locate<'_>,
    ) -> Result<Outcome, EntryError> {
        #[cfg(any(test, feature = "testing"))]
        if entry.kind != kind::APPEND {
            crate::panicking::panic_if_wanted("apply", entry.body);
        }
        match entry.kind {
            of if Partitions::applies(of) => apply_to(&mut self.partitions, entry, at, locate),
            kind::DEAD_LETTERED => self.apply_dead_letters(entry, at),
            kind::TIMERS_FIRED => applied(entry, |body: TimersFired| self.fire(&body, at, locate)),
            kind::SUBSCRIPTION_MADE => applied(entry, |body: SubscriptionMade| self.subscribe(&body, at)),
            kind::SUBSCRIPTION_REMOVED => applied(entry, |body: SubscriptionRemoved| self.unsubscribe(&body)),
            of if SubscriptionTable::applies(of) => {
                let outcome = apply_to(&mut self.subscriptions, entry, at, locate)?;
                recall_settled(&mut self.timers, &self.partitions, &self.subscriptions);
                Ok(outcome)
            }
            of if GroupTable::applies(of) => apply_to(&mut self.groups, entry, at, locate),
            of if Catalog::applies(of) => {
                let outcome = apply_to(&mut self.catalog, entry, at, locate)?;
                self.follow_topic(of, &outcome);
                Ok(outcome)
            }
            of if ExchangeTable::applies(of) => self.exchanges.apply(entry, &self.catalog),
            kind::FRONT_END => {
                let Self { partitions, subscriptions, timers, front_ends, .. } = self;
                front_ends.apply(entry, at, ShardParts { partitions, subscriptions, timers })
            }
            kind::NODE_TIME => applied(entry, |_: NodeTime| Ok(())),
            kind::STARTED => applied(entry, |body: Started| self.started(&body, at)),
            _ => Err(EntryError::unknown(entry)),
        }
    }

    /// Publishes what was kept back until now, makes ready what was parked until now; what is settled otherwise is neither.
    fn fire(
        &mut self,
        body: &TimersFired,
        at: &At,
        locate: Locate<'_>,
    ) -> Result<DeliveryOutcome, DeliveryError> {
        if !self.timers.fire(body.through, body.below) {
            return Err(DeliveryError::Refused { operation: 0 });
        }
        let mut concerned = 0;
        for message in &body.messages {
            if !self.subscriptions.is_unsettled(message.place) {
                continue;
            }
            if let Some(ms) = message.put_off_ms {
                let RecordPlace { partition, offset } = message.place;
                self.timers.keep_back(
                    partition,
                    offset.0 as u64,
                    at.time_ms.saturating_add(ms),
                    message.fired,
                );
                continue;
            }
            if let Some(published) = &message.published {
                let outcome = self.partitions.refer(published, None, message.facts.clone(), at, locate);
                let refused = (0..published.targets.len()).filter(|target| outcome.at(*target).is_err());
                self.partitions.counters.delayed_refused += refused.count() as u64;
            }
            match message.again_ms {
                Some(due_ms) => {
                    let RecordPlace { partition, offset } = message.place;
                    self.timers.keep_back(partition, offset.0 as u64, due_ms, message.fired);
                }
                None => self.subscriptions.settle_fired(message.place, at.time_ms),
            }
            concerned += 1;
        }
        for due in &body.due {
            concerned += u64::from(self.subscriptions.unpark(due, at.time_ms));
        }
        Ok(DeliveryOutcome { concerned })
    }

    /// A topic's partition has its part of a subscription. That of a queue is the queue's own.
    fn subscribe(&mut self, body: &SubscriptionMade, at: &At) -> Result<SubscriptionNo, SubscribeError> {
        let Self { partitions, subscriptions, timers, .. } = self;
        ShardParts { partitions, subscriptions, timers }.subscribe(body, FrontendNo::NONE, at)
    }

    fn unsubscribe(&mut self, body: &SubscriptionRemoved) -> Result<SubscriptionNo, SubscribeError> {
        let number = self.subscriptions.unsubscribe(body)?;
        let Self { partitions, subscriptions, timers, .. } = self;
        ShardParts { partitions, subscriptions, timers }.note_subscribed(body.partition);
        Ok(number)
    }

    fn apply_dead_letters(&mut self, entry: &EntryView<'_>, at: &At) -> Result<Outcome, EntryError> {
        let body = DeadLettered::decode(entry.body).map_err(|source| bad_body(entry, source))?;
        let (offset, len) = entry.payload.unwrap_or((0, 0));
        if body.bytes() > u64::from(len) {
            return Err(bad_body(entry, DecodeError::Field("length of a batch")));
        }
        Ok(self.dead_letter(&body, offset, at).into_outcome())
    }

    /// Publishes what its queues gave up, and has it be done with there: both or, where it is done with otherwise, neither.
    fn dead_letter(
        &mut self,
        body: &DeadLettered,
        mut offset: u32,
        at: &At,
    ) -> Result<DeliveryOutcome, DeliveryError> {
        let mut concerned = 0;
        for letter in &body.letters {
            let from = offset;
            offset += letter.len();
            if self.subscriptions.waits(letter, at.time_ms) {
                let gone = self.publish_dead(letter, from, at);
                self.subscriptions.settle_dead(letter, gone, at.time_ms);
                if letter.reason == DeathReason::Redriven {
                    self.partitions.counters.redriven += u64::from(gone);
                    self.partitions.counters.redrives_refused += u64::from(letter.count - gone);
                }
                concerned += u64::from(letter.count);
            }
        }
        Ok(DeliveryOutcome { concerned })
    }

    /// Publishes letters, and tells how many of them, from the first on, are done with by that: all, but for what stays where it is.
    fn publish_dead(&mut self, letter: &DeadLetters, offset: u32, at: &At) -> u32 {
        let Some(published) = &letter.published else { return if letter.stay { 0 } else { letter.count } };
        let outcome = self.partitions.append(&letter.append(published), (offset, published.len), at);
        let taken = |target| outcome.at(target).map_or(0, |taken| taken.records.min(letter.count));
        if letter.reason == DeathReason::Redriven {
            let takes = |(target, id): (usize, &PartitionId)| match outcome.at(target) {
                // What it refuses it has given up again, and not let go of.
                Ok(_) | Err(AppendError::QueueFull) if self.partitions.keeps_what_it_refuses(*id) => {
                    letter.count
                }
                _ => taken(target),
            };
            return published.targets.iter().enumerate().map(takes).min().unwrap_or(letter.count);
        }
        let refused = (0..published.targets.len()).map(|target| u64::from(letter.count - taken(target)));
        self.partitions.counters.dead_letters_refused += refused.sum::<u64>();
        letter.count
    }

    /// What is bound to a topic goes with it.
    fn follow_topic(&mut self, of: u16, outcome: &Outcome) {
        if let (kind::TOPIC_DELETED, Outcome::Topic(Ok(topic))) = (of, outcome) {
            self.exchanges.topic_deleted(topic);
        }
    }

    fn started(&mut self, body: &Started, at: &At) -> Result<(), ShardFailure> {
        self.starts += 1;
        self.subscriptions.started(body.clean, at.time_ms);
        self.exchanges.started();
        Ok(())
    }
}

/// What an entry did to queues' partitions their subscriptions are told, what it parked has timers, and what it settled the logs let go of.
pub(super) fn follow_queues(shard: &mut ShardParts<'_>, at: &At) {
    let ShardParts { partitions, subscriptions, timers } = shard;
    let mut changes = std::mem::take(&mut partitions.queue_changes);
    for change in changes.drain(..) {
        subscriptions.follow(change.clone(), at.time_ms);
        match change {
            QueueChange::Published(id, _) | QueueChange::Repeated(id, ..) => {
                if let Some(limit) = partitions.drops_at(id) {
                    subscriptions.drop_excess(id, &limit, at.time_ms);
                }
            }
            QueueChange::Delayed(id, messages, due_ms) => {
                messages.for_each(|offset| timers.keep_back(id, offset, due_ms, 0));
            }
            QueueChange::Made(id) => set_deaths(partitions, subscriptions, id),
            QueueChange::Configured(id) => {
                set_deaths(partitions, subscriptions, id);
                partitions.note_backlog(id, subscriptions.backlog(id));
            }
            _ => {}
        }
    }
    partitions.queue_changes = changes;
    // Its memory goes: an owner that is gone may have had very many.
    std::mem::take(&mut subscriptions.parked).iter().for_each(|parked| timers.park(parked));
    drop_what_came_back(partitions, subscriptions, at);
    for (id, subscription) in subscriptions.touched_by_entry() {
        partitions.follow_floor(id, Offset(subscription.floor() as i64));
        partitions.note_backlog(id, subscription.backlog());
        partitions.note_sealed(id, subscription.is_sealed());
    }
}

fn set_deaths(partitions: &Partitions, subscriptions: &mut SubscriptionTable, id: PartitionId) {
    if let Some(queue) = partitions.partition(id).and_then(|partition| partition.settings.queue.as_ref()) {
        subscriptions.set_deaths(id, queue.deaths());
    }
}

/// What an entry gives back to a full queue counts as what is published to it does.
fn drop_what_came_back(partitions: &Partitions, subscriptions: &mut SubscriptionTable, at: &At) {
    let touched = subscriptions.touched_by_entry();
    let bounded: Vec<_> = touched.filter_map(|(id, _)| Some((id, partitions.drops_at(id)?))).collect();
    for (id, limit) in bounded {
        subscriptions.drop_excess(id, &limit, at.time_ms);
    }
}

/// Applies an entry, and says whose it was where that fails.
fn apply_to<P: CoreProjection>(
    projection: &mut P,
    entry: &EntryView<'_>,
    at: &At,
    locate: Locate<'_>,
) -> Result<Outcome, EntryError> {
    projection
        .apply(entry, at, locate)
        .map_err(|source| EntryError::In { name: P::NAME, source: source.into() })
}

/// Applies an entry of one kind, and gives what it came to.
pub(crate) fn applied<B: Body>(
    entry: &EntryView<'_>,
    apply: impl FnOnce(B) -> B::Outcome,
) -> Result<Outcome, EntryError> {
    let body = B::decode(entry.body).map_err(|source| bad_body(entry, source))?;
    Ok(apply(body).into_outcome())
}

pub(crate) fn bad_body(entry: &EntryView<'_>, source: DecodeError) -> EntryError {
    EntryError::Body { index: entry.index, kind: entry.kind, source }
}

/// Where the entry's payload lies in its block's content.
pub(crate) fn payload(entry: &EntryView<'_>) -> Result<(u32, u32), EntryError> {
    entry.payload.ok_or(EntryError::Payload { index: entry.index, kind: entry.kind })
}

//! The thread that publishes dead letters.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sabir_base::clock::Clock;
use sabir_base::node_time::NodeClock;
use sabir_base::wake::WakeBatch;
use sabir_delivery::policy::DeathReason;
use sabir_delivery::subscription::SubscriptionNo;
use sabir_journal::Priority;
use sabir_model::{DeadLetterAddress, FrontendNo, Namespace, RecordFacts};
use tracing::error;

use super::letters::{Group, LetterRecord, Letters, bytes_of, empty_batch};
use super::messages::{Flow, FoundRecord, WaitingMessage, WaitingRun, each_message};
use super::put_off::PutOff;
use super::target::{LetterTargets, Origin};
use super::waiting::{Dropped, NextStep};
use crate::answer::Waiter;
use crate::caller::Caller;
use crate::catalog::Topic;
use crate::converter::{Converter, DeadLetter, DeadLetterRecord, DeadRecord, RedriveOf};
use crate::definitions::Definitions;
use crate::entry::{DeliveryError, DeliveryOutcome};
use crate::exchange::{Exchanges, Publication, RouteError, RouteScratch};
use crate::relay::{Later, Relay, RelayOutcome, RelayedMessages};
use crate::shard::{Leading, Shard};
use crate::state::partition_of;
use crate::timer::Alarm;

/// Routes that are remembered.
const ROUTES: usize = 4096;
/// When it is tried again what could not be done.
const RETRY: Duration = Duration::from_millis(100);

/// Publishes the dead letters of all shards that are led here.
pub(crate) struct DeadLetterDriver {
    pub(super) shards: Vec<Arc<Shard>>,
    pub(super) definitions: Arc<Definitions>,
    exchanges: Exchanges,
    converters: Vec<Converter>,
    clock: Arc<NodeClock>,
    alarm: Arc<Alarm>,
}

/// When what reads as damaged, and what is for a shard that takes nothing now, is looked at again.
const UNREADABLE: Duration = Duration::from_secs(60);
const UNDECIDED: Duration = Duration::from_secs(1);

/// What the thread knows of a shard's letters while that is led.
#[derive(Debug)]
pub(super) struct Known {
    /// In which term.
    led_terms: u64,
    pub(super) relayed: RelayedMessages,
    unreadable: PutOff,
    /// A target of theirs has not decided.
    undecided: PutOff,
}

impl Known {
    fn new(led_terms: u64) -> Self {
        let (unreadable, undecided) = (PutOff::new(UNREADABLE), PutOff::new(UNDECIDED));
        Self { led_terms, relayed: RelayedMessages::default(), unreadable, undecided }
    }

    /// The parts of a queue's run that are looked at now.
    fn others(&self, queue: SubscriptionNo, run: Range<u64>) -> impl Iterator<Item = Range<u64>> {
        self.unreadable.others(queue, run).flat_map(move |part| self.undecided.others(queue, part))
    }

    /// The queues with messages that are to be looked at again.
    fn due(&self, now: Instant) -> impl Iterator<Item = SubscriptionNo> {
        self.unreadable.due(now).chain(self.undecided.due(now))
    }

    /// Puts off no longer what is due of a queue. Tells whether there was anything.
    fn take_due(&mut self, queue: SubscriptionNo, now: Instant) -> bool {
        self.unreadable.take_due(queue, now) | self.undecided.take_due(queue, now)
    }

    /// The same of what would wait on and on.
    fn take_overdue(&mut self, queue: SubscriptionNo, now: Instant) {
        self.unreadable.take_overdue(queue, now);
        self.undecided.take_overdue(queue, now);
    }

    /// When something is to be looked at again.
    fn left(&self, now: Instant) -> Option<Duration> {
        self.unreadable.left(now).into_iter().chain(self.undecided.left(now)).min()
    }
}

/// Whether anything of a queue was looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Collected {
    /// Nothing waits that is not put off.
    Nothing,
    /// There may be more.
    Some,
}

/// A queue, and what is done with what it gives up.
pub(super) struct Source<'a> {
    pub(super) queue: SubscriptionNo,
    pub(super) topic: Arc<Topic>,
    /// Where it goes; none where it is dropped.
    to: Option<Arc<Destination<'a>>>,
}

/// Where a queue's dead letters go, as which caller they are published, and the converter that says what becomes of each.
struct Destination<'a> {
    address: DeadLetterAddress,
    caller: Caller,
    converter: &'a Converter,
    /// The converter's front end.
    number: FrontendNo,
}

impl DeadLetterDriver {
    pub(crate) fn new(
        shards: Vec<Arc<Shard>>,
        definitions: Arc<Definitions>,
        exchanges: Exchanges,
        converters: Vec<Converter>,
        clock: Arc<NodeClock>,
    ) -> Arc<Self> {
        let alarm = Arc::new(Alarm::default());
        for shard in &shards {
            shard.dead_letters.connect(&alarm);
            let leading: Arc<dyn Leading> = shard.dead_letters.clone();
            shard.lead_with(Arc::downgrade(&leading));
        }
        Arc::new(Self { shards, definitions, exchanges, converters, clock, alarm })
    }

    pub(super) fn wall_ms(&self) -> i64 {
        self.clock.wall_ms()
    }

    /// What wakes the thread.
    pub(crate) fn alarm(&self) -> &Arc<Alarm> {
        &self.alarm
    }

    /// Publishes dead letters until it is time to end.
    pub(crate) fn run(&self, has_ended: impl Fn() -> bool) {
        let mut scratch = RouteScratch::new(ROUTES);
        let mut known: Vec<Known> = self.shards.iter().map(|_| Known::new(0)).collect();
        while !has_ended() {
            let mut again: Option<Duration> = None;
            for (shard, known) in self.shards.iter().zip(&mut known) {
                let mut after = None;
                shard.contain("publish dead letters", || after = self.look(shard, known, &mut scratch));
                again = again.into_iter().chain(after).min();
            }
            self.alarm.wait(again);
        }
    }

    /// Proposes what waits in a shard. Tells when it is to be looked again, whatever is told.
    fn look(&self, shard: &Shard, known: &mut Known, scratch: &mut RouteScratch) -> Option<Duration> {
        let (led_terms, is_new) = match shard.dead_letters.next_step() {
            _ if shard.is_stopped() => return None,
            NextStep::Rest => return None,
            NextStep::Busy => return Some(RETRY),
            NextStep::Look { led_terms, is_new } => (led_terms, is_new),
        };
        if known.led_terms != led_terms {
            *known = Known::new(led_terms);
        }
        if is_new {
            let waiting: Vec<_> = shard.state.read().subscriptions.dead_lettering().collect();
            shard.dead_letters.list(waiting);
        }
        known.relayed.forget_settled(shard, self.clock.now_ms());
        shard.dead_letters.list(known.due(Instant::now()));
        let (mut letters, mut later) = (Letters::default(), Vec::new());
        let first = shard.copied_first();
        for _ in 0..shard.dead_letters.len() {
            if letters.is_full(None) {
                break;
            }
            let Some(queue) = shard.dead_letters.next() else { break };
            if first.is_some_and(|last| !shard.may_hold_up_to(partition_of(queue), last)) {
                later.push(queue);
                continue;
            }
            match self.collect(shard, known, queue, &mut letters, scratch) {
                Ok(Collected::Nothing) => {}
                Ok(Collected::Some) => letters.queues.push(queue),
                Err(Later) => later.push(queue),
            }
        }
        let waits = !later.is_empty();
        shard.dead_letters.list(later);
        if !letters.is_empty() {
            let ranges = letters.body.letters.iter().map(|letter| (letter.queue, letter.offsets()));
            ranges.for_each(|(queue, offsets)| known.relayed.settles(queue, offsets));
            propose(shard, letters, led_terms);
        } else if !letters.queues.is_empty() {
            // All that was looked at of them is put off: what stands behind that does not wait.
            shard.dead_letters.list(letters.queues);
            return Some(Duration::ZERO);
        } else if !waits {
            return known.left(Instant::now()).map(|left| left.max(RETRY));
        }
        Some(RETRY)
    }

    /// Adds what waits in a queue to an entry, as far as that has room.
    fn collect(
        &self,
        shard: &Shard,
        known: &mut Known,
        queue: SubscriptionNo,
        letters: &mut Letters,
        scratch: &mut RouteScratch,
    ) -> Result<Collected, Later> {
        let (waiting, is_cut) = waiting(shard, queue, known, letters.room());
        if waiting.is_empty() {
            let is_again = known.take_due(queue, Instant::now());
            return Ok(if is_again { Collected::Some } else { Collected::Nothing });
        }
        let Some(source) = self.source(shard, queue)? else { return Ok(Collected::Nothing) };
        let mut collecting = Collecting { driver: self, shard, known, source, letters, open: None };
        let (mut is_full, mut added) = (false, Ok(()));
        let read = each_message(shard, partition_of(queue), &waiting, |message| {
            is_full = collecting.letters.is_full(collecting.open.as_ref());
            if !is_full {
                added = collecting.add(message, scratch);
            }
            if is_full || added.is_err() { Flow::Stop } else { Flow::On }
        });
        collecting.close();
        if let Err(error) = read {
            error!(shard = %shard.id, ?queue, %error, "dead letters cannot be read now");
            return Err(Later);
        }
        if !is_cut && !is_full && added.is_ok() {
            // What is put off comes again once all others had their turn, however long these take.
            known.take_due(queue, Instant::now());
        } else {
            known.take_overdue(queue, Instant::now());
        }
        added.map(|()| Collected::Some)
    }

    /// What is done with what a queue gives up; none if the queue is gone.
    fn source(&self, shard: &Shard, queue: SubscriptionNo) -> Result<Option<Source<'_>>, Later> {
        let (topic, named) = {
            let state = shard.state.read();
            let Some(partition) = state.partition(partition_of(queue)) else { return Ok(None) };
            (
                partition.topic,
                state.subscriptions.settings(queue).map(|settings| settings.dead_letter.clone()),
            )
        };
        // What is there and not shown is being made or deleted.
        let topic = self.definitions.view().topic_by_id(topic).cloned().ok_or(Later)?;
        let of_queue = || topic.config.queue().and_then(|config| config.dead_letter.clone());
        let address = named.unwrap_or_else(of_queue);
        let to = address.and_then(|address| {
            let (converter, number) = self.converter(topic.made_by)?;
            let namespace = Namespace::named(&topic.namespace)?;
            let caller = Caller::front_end(converter.front_end).within(namespace);
            Some(Arc::new(Destination { address, caller, converter, number }))
        });
        Ok(Some(Source { queue, topic, to }))
    }

    /// Of the front end that made a queue; else of one that has dead letters.
    fn converter(&self, made_by: FrontendNo) -> Option<(&Converter, FrontendNo)> {
        let state = self.shards[0].state.read();
        let able = self.converters.iter().filter(|converter| converter.dead_letter.is_some());
        let numbered = able.filter_map(|able| Some((able, state.catalog.front_end(able.front_end)?)));
        numbered.min_by_key(|(_, number)| *number != made_by)
    }

    /// The front end that wrote a record.
    pub(super) fn writer(&self, origin: FrontendNo) -> Option<&Converter> {
        let state = self.shards[0].state.read();
        self.converters.iter().find(|converter| match origin {
            FrontendNo::NONE => converter.reads_unnamed,
            origin => state.catalog.front_end(converter.front_end) == Some(origin),
        })
    }

    /// What says where dead letters in a topic go back to that a front end wrote, and as which caller they do; none where that does not say.
    pub(super) fn redriver(&self, origin: FrontendNo, topic: &Topic) -> Option<(RedriveOf, Caller)> {
        let writer = self.writer(origin)?;
        let caller = Caller::front_end(writer.front_end).within(Namespace::named(&topic.namespace)?);
        Some((writer.redrive?, caller))
    }

    /// Publishes a group where it goes outside its shard's entry, and waits for it to be taken or refused.
    fn publish(&self, shard: &Shard, relayed: &mut RelayedMessages, group: &Group) -> Result<(), Later> {
        let LetterTargets { here, elsewhere } = &group.targets;
        if elsewhere.is_empty() {
            return Ok(());
        }
        let relay = Relay {
            caller: &group.caller,
            queue: group.queue,
            offsets: group.first..group.end(),
            stays: group.reason == DeathReason::Redriven,
            batch: &group.batch,
            facts: group.said(),
            wall_ms: self.clock.wall_ms(),
            now_ms: self.clock.now_ms(),
        };
        let RelayOutcome { refused, undecided_ms } =
            relay.publish_or_later(&self.shards, here, elsewhere, relayed);
        shard.dead_letters.counters.dropped(Dropped { refused, ..Dropped::default() });
        if undecided_ms.is_some() { Err(Later) } else { Ok(()) }
    }
}

/// What is added to an entry of one queue.
pub(super) struct Collecting<'a> {
    pub(super) driver: &'a DeadLetterDriver,
    pub(super) shard: &'a Shard,
    pub(super) known: &'a mut Known,
    pub(super) source: Source<'a>,
    pub(super) letters: &'a mut Letters,
    /// The messages that were added last, which the next one may join.
    open: Option<Group>,
}

impl Collecting<'_> {
    fn add(&mut self, message: &WaitingMessage<'_>, scratch: &mut RouteScratch) -> Result<(), Later> {
        if message.reason == DeathReason::Redriven {
            self.send_back(message);
            return Ok(());
        }
        let Some(to) = self.source.to.clone() else {
            self.drop_message(message, Dropped { unroutable: 1, ..Dropped::default() });
            return Ok(());
        };
        let Destination { address, caller, converter, number } = &*to;
        let (topic, driver) = (self.source.topic.clone(), self.driver);
        let unreadable = Dropped { unreadable: 1, ..Dropped::default() };
        let (origin, record) = match message.found {
            FoundRecord::Record(stored) => (stored.origin, stored.record),
            FoundRecord::Gone => {
                self.drop_message(message, unreadable);
                return Ok(());
            }
            FoundRecord::Unreadable => {
                self.put_off(message);
                return Ok(());
            }
        };
        let Some(dead_letter) = converter.dead_letter else {
            self.drop_message(message, unreadable);
            return Ok(());
        };
        let death = DeadLetter {
            queue: &topic.name,
            reason: message.reason,
            time_ms: driver.clock.wall_ms(),
            exchange: &address.exchange,
            routing_key: address.routing_key.as_deref(),
        };
        let mut added = None;
        let mut each = |letter: &DeadLetterRecord<'_>| {
            added = Some(self.route(message, letter, (caller, *number), death.time_ms, scratch));
        };
        if origin == *number {
            dead_letter(&DeadRecord::Own(&record), &death, &mut each);
        } else {
            let written = driver.writer(origin).map(|writer| (writer.to_message)(&record));
            written.iter().for_each(|written| dead_letter(&DeadRecord::Other(written), &death, &mut each));
        }
        added.unwrap_or_else(|| {
            self.drop_message(message, unreadable);
            Ok(())
        })
    }

    fn route(
        &mut self,
        message: &WaitingMessage<'_>,
        letter: &DeadLetterRecord<'_>,
        (caller, number): (&Caller, FrontendNo),
        time_ms: i64,
        scratch: &mut RouteScratch,
    ) -> Result<(), Later> {
        let address = letter.address;
        let publication = Publication {
            key: address.key,
            further_keys: address.further_keys,
            attributes: address.attributes,
            queues: &|_| None,
        };
        let route = match self.driver.exchanges.route_dead(caller, address.exchange, &publication, scratch) {
            Ok(route) => route,
            Err(RouteError::Shard(_)) => return Err(Later),
            Err(RouteError::NoExchange | RouteError::Internal | RouteError::Key(_)) => Arc::default(),
        };
        let of = Origin { shard: self.shard.id, front_end: number, hash: address.hash };
        let (mut targets, mut dropped) = (LetterTargets::default(), Dropped::default());
        for topic in route.topics() {
            if letter.deaths.is_cycle(&topic.name) {
                dropped.cycles += 1;
            } else if !targets.add(caller, topic, of) {
                dropped.refused += 1;
            }
        }
        if targets.is_empty() {
            dropped.unroutable += u64::from(route.is_empty());
            self.drop_message(message, dropped);
            return Ok(());
        }
        targets.leave_out(&self.known.relayed, self.source.queue, message.offset);
        let DeadLetterRecord { key, value, headers, .. } = *letter;
        let record = LetterRecord { key, value, headers, facts: &address.facts };
        self.join(message, &record, targets, (caller, number), time_ms, dropped);
        Ok(())
    }

    /// Adds a message to those that go to the same targets.
    pub(super) fn join(
        &mut self,
        message: &WaitingMessage<'_>,
        letter: &LetterRecord<'_>,
        targets: LetterTargets,
        (caller, origin): (&Caller, FrontendNo),
        time_ms: i64,
        dropped: Dropped,
    ) {
        let (offset, reason) = (message.offset, message.reason);
        let goes_on = |open: &Group| open.goes_on((offset, reason), &targets, bytes_of(letter));
        if !self.open.as_ref().is_some_and(goes_on) {
            self.close();
            self.open = Some(Group {
                queue: self.source.queue,
                first: offset,
                count: 0,
                reason,
                caller: caller.clone(),
                origin,
                targets,
                batch: empty_batch(),
                facts: RecordFacts::new(),
                facts_bytes: 0,
                dropped: Dropped::default(),
            });
        }
        self.open.as_mut().expect("it was put there").push(time_ms, letter, dropped);
    }

    pub(super) fn drop_message(&mut self, message: &WaitingMessage<'_>, dropped: Dropped) {
        self.close();
        self.letters.settle(self.source.queue, message.offset, 1, message.reason);
        self.letters.dropped.add(dropped);
    }

    /// It stays where it is, and those behind it do not wait for it.
    fn put_off(&mut self, message: &WaitingMessage<'_>) {
        self.close();
        let (queue, at) = (self.source.queue, message.offset);
        self.known.unreadable.put(queue, at..at + 1, Instant::now());
    }

    /// Nothing more joins those that were added last: what goes elsewhere is published.
    pub(super) fn close(&mut self) {
        let Some(mut group) = self.open.take() else { return };
        if group.is_large() {
            group.targets.all_elsewhere();
        }
        if let Err(Later) = self.driver.publish(self.shard, &mut self.known.relayed, &group) {
            // They stay where they are, and those behind them do not wait for them.
            self.known.undecided.put(group.queue, group.first..group.end(), Instant::now());
            return;
        }
        if group.reason == DeathReason::Redriven {
            return self.close_redriven(group);
        }
        self.letters.dropped.add(group.dropped);
        self.letters.published[group.reason as usize] += u64::from(group.count);
        if group.targets.here.is_empty() {
            self.letters.settle(group.queue, group.first, group.count, group.reason);
        } else {
            self.letters.publish(group);
        }
    }
}

/// What waits in a queue and is not put off, so many messages at the most. Tells whether there may be more.
fn waiting(shard: &Shard, queue: SubscriptionNo, known: &Known, most: u64) -> (Vec<WaitingRun>, bool) {
    let state = shard.state.read();
    let Some(subscription) = state.subscriptions.get(queue) else { return (Vec::new(), false) };
    let (mut all, mut left) = (Vec::new(), most);
    for (run, reason) in subscription.dead_letters() {
        for part in known.others(queue, run) {
            let count = (part.end - part.start).min(left);
            all.push((part.start..part.start + count, reason));
            left -= count;
            if left == 0 {
                return (all, true);
            }
        }
    }
    (all, false)
}

fn propose(shard: &Shard, letters: Letters, led_terms: u64) {
    let Letters { body, payload, queues, published, dropped, .. } = letters;
    let waiting = shard.dead_letters.clone();
    waiting.begin(led_terms);
    // What a shard does not take is tried again after a while.
    let decided = move |outcome: Result<DeliveryOutcome, DeliveryError>, _: &mut WakeBatch| {
        let is_decided = !matches!(outcome, Err(DeliveryError::Shard(_)));
        if is_decided {
            waiting.counters.published(&published);
            waiting.counters.dropped(dropped);
        }
        waiting.end(led_terms, &queues, is_decided);
    };
    let payload = (!payload.is_empty()).then_some(&payload[..]);
    let priority = if payload.is_some() { Priority::Copy } else { Priority::Reserve };
    shard.propose_with(priority, &body, payload, Waiter::then(decided));
    shard.submit();
}

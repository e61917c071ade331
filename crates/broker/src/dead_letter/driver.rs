//! The thread that publishes dead letters.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use sabir_base::node_time::NodeClock;
use sabir_base::wake::WakeBatch;
use sabir_delivery::subscription::SubscriptionNo;
use sabir_journal::Priority;
use sabir_model::{AppendError, DeadLetterAddress, Facts, FrontendNo, Namespace, PartitionId, RecordFacts};
use tracing::{debug, error};

use super::letters::{Group, Letters, empty_batch};
use super::messages::{Flow, WaitingMessage, WaitingRun, each_message};
use super::target::{LetterTargets, Origin};
use super::waiting::Turn;
use crate::answer::Waiter;
use crate::caller::Caller;
use crate::catalog::Topic;
use crate::converter::{Converter, DeadLetter, DeadLetterRecord, DeadRecord};
use crate::definitions::Definitions;
use crate::entry::{Body, DeadLettered, DeliveryError, DeliveryOutcome};
use crate::exchange::{Exchanges, Publication, RouteError, RouteScratch, targets_by_codec};
use crate::open::block_on;
use crate::publish::{Publish, PublishCall, PublishOutcomes, PublishTargets};
use crate::shard::{Leading, Shard};
use crate::state::partition_of;
use crate::timer::Alarm;

/// Routes that are remembered.
const ROUTES: usize = 4096;
/// When it is tried again what could not be done, in milliseconds.
const RETRY_MS: u64 = 100;

/// Publishes the dead letters of all shards that are led here.
pub(crate) struct DeadLetterDriver {
    shards: Vec<Arc<Shard>>,
    definitions: Arc<Definitions>,
    exchanges: Exchanges,
    converters: Vec<Converter>,
    clock: Arc<NodeClock>,
    alarm: Arc<Alarm>,
}

/// It cannot be done now, and is to be tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Later;

/// How far a queue's messages were taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Collected {
    /// Nothing waits.
    Nothing,
    All,
    /// There are more, or were when it was looked.
    Some,
}

/// A queue, and what is done with what it gives up.
struct Source<'a> {
    queue: PartitionId,
    topic: Arc<Topic>,
    /// Where it goes; none where it is dropped.
    to: Option<Arc<Destination<'a>>>,
}

/// Where a queue's dead letters go, for whom they are published, and who says what becomes of each.
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

    /// What wakes the thread.
    pub(crate) fn alarm(&self) -> &Arc<Alarm> {
        &self.alarm
    }

    /// Publishes dead letters until it is time to end.
    pub(crate) fn run(&self, has_ended: impl Fn() -> bool) {
        let mut scratch = RouteScratch::new(ROUTES);
        while !has_ended() {
            let mut again = false;
            for shard in &self.shards {
                shard.contain("publish dead letters", || again |= self.look(shard, &mut scratch));
            }
            self.alarm.wait(again.then_some(Duration::from_millis(RETRY_MS)));
        }
    }

    /// Proposes what waits in a shard. Tells whether it is to be looked again after a while, whatever is told.
    fn look(&self, shard: &Shard, scratch: &mut RouteScratch) -> bool {
        let (led_terms, is_new) = match shard.dead_letters.turn() {
            _ if shard.is_stopped() => return false,
            Turn::Rest => return false,
            Turn::Busy => return true,
            Turn::Look { led_terms, is_new } => (led_terms, is_new),
        };
        if is_new {
            let waiting: Vec<_> = shard.state.read().subscriptions.dead_lettering().collect();
            shard.dead_letters.list(waiting);
        }
        let (mut letters, mut later) = (Letters::default(), Vec::new());
        for _ in 0..shard.dead_letters.len() {
            if letters.is_full(None) {
                break;
            }
            let Some(queue) = shard.dead_letters.next() else { break };
            match self.collect(shard, queue, &mut letters, scratch) {
                Ok(Collected::Nothing) => {}
                Ok(Collected::All) => letters.queues.push(queue),
                Ok(Collected::Some) => later.push(queue),
                Err(Later) => later.push(queue),
            }
        }
        let waits = !later.is_empty();
        shard.dead_letters.list(later);
        if letters.is_empty() {
            return waits;
        }
        propose(shard, letters, led_terms);
        true
    }

    /// Adds what waits in a queue to an entry, as far as that has room.
    fn collect(
        &self,
        shard: &Shard,
        queue: SubscriptionNo,
        letters: &mut Letters,
        scratch: &mut RouteScratch,
    ) -> Result<Collected, Later> {
        let waiting = waiting(shard, queue, letters.room());
        if waiting.is_empty() {
            return Ok(Collected::Nothing);
        }
        let Some(source) = self.source(shard, partition_of(queue))? else { return Ok(Collected::Nothing) };
        let mut collecting = Collecting { driver: self, shard, source, letters, open: None, later: false };
        let mut is_full = false;
        let read = each_message(shard, partition_of(queue), &waiting, |message| {
            is_full = collecting.letters.is_full(collecting.open.as_ref());
            if is_full || collecting.add(message, scratch).is_err() { Flow::Stop } else { Flow::On }
        });
        let closed = collecting.close();
        let later = collecting.later;
        if let Err(error) = read {
            error!(shard = %shard.id, ?queue, %error, "dead letters cannot be read now");
            return Err(Later);
        }
        closed?;
        if later {
            Err(Later)
        } else if is_full {
            Ok(Collected::Some)
        } else {
            Ok(Collected::All)
        }
    }

    /// What is done with what a queue gives up; none if the queue is gone.
    fn source(&self, shard: &Shard, queue: PartitionId) -> Result<Option<Source<'_>>, Later> {
        let topic = shard.state.read().partition(queue).map(|partition| partition.topic);
        let Some(topic) = topic else { return Ok(None) };
        // What is there and not shown is being made or deleted.
        let topic = self.definitions.view().topic_by_id(topic).cloned().ok_or(Later)?;
        let address = topic.config.queue().and_then(|config| config.dead_letter.clone());
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
    fn writer(&self, origin: FrontendNo) -> Option<&Converter> {
        let state = self.shards[0].state.read();
        self.converters.iter().find(|converter| match origin {
            FrontendNo::NONE => converter.reads_unnamed,
            origin => state.catalog.front_end(converter.front_end) == Some(origin),
        })
    }

    /// Publishes a group where it goes outside its shard's entry, and waits for it to be taken or refused.
    fn publish(&self, shard: &Shard, group: &Group) -> Result<(), Later> {
        for targets in targets_by_codec(group.targets.elsewhere.clone()).unwrap_or_default() {
            self.publish_in_codec(shard, group, &targets)?;
        }
        Ok(())
    }

    fn publish_in_codec(&self, shard: &Shard, group: &Group, targets: &PublishTargets) -> Result<(), Later> {
        match self.publish_to(group, targets) {
            Err(AppendError::Shard(_)) => Err(Later),
            // One of them takes nothing so large: that is no reason for others not to have it.
            Err(AppendError::TooLarge) if targets.targets().len() > 1 => {
                let each = targets.targets().iter().map(|target| PublishTargets::new(vec![target.clone()]));
                each.flatten().try_for_each(|one| self.publish_in_codec(shard, group, &one))
            }
            Err(error) => {
                debug!(%error, "dead letters are not taken");
                shard.dead_letters.counters.refused.fetch_add(group.count.into(), Relaxed);
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    fn publish_to(&self, group: &Group, targets: &PublishTargets) -> Result<(), AppendError> {
        let batch = group.batch.clone().build_checked(&targets.rules(), self.clock.wall_ms());
        let Ok(batch) = batch else { return Err(AppendError::TooLarge) };
        let mut publish = Publish { partial: true, ..Publish::new(targets.clone(), [batch]) };
        publish.batches[0].facts = group.said();
        if publish.check(&group.caller).is_err() {
            return Err(AppendError::UnknownPartition);
        }
        let call = PublishCall::new(&publish);
        for id in targets.shards() {
            let shard = &self.shards[id.0 as usize];
            shard.publish(&publish, &call);
            shard.submit();
        }
        block_on(PublishOutcomes::new(call, targets.clone()).confirmed())
    }
}

/// What is added to an entry of one queue.
struct Collecting<'a> {
    driver: &'a DeadLetterDriver,
    shard: &'a Shard,
    source: Source<'a>,
    letters: &'a mut Letters,
    /// The messages that were added last, which the next one may join.
    open: Option<Group>,
    /// Whether something is to be tried again.
    later: bool,
}

impl Collecting<'_> {
    fn add(&mut self, message: &WaitingMessage<'_>, scratch: &mut RouteScratch) -> Result<(), Later> {
        let added = self.try_add(message, scratch);
        self.later |= added.is_err();
        added
    }

    fn try_add(&mut self, message: &WaitingMessage<'_>, scratch: &mut RouteScratch) -> Result<(), Later> {
        let Some(to) = self.source.to.clone() else { return self.drop_message(message) };
        let Destination { address, caller, converter, number } = &*to;
        let (topic, driver) = (self.source.topic.clone(), self.driver);
        let (Some((origin, record)), Some(dead_letter)) = (message.record, converter.dead_letter) else {
            self.shard.dead_letters.counters.unreadable.fetch_add(1, Relaxed);
            return self.drop_message(message);
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
            dead_letter(&DeadRecord::Own(record), &death, &mut each);
        } else {
            let written = driver.writer(origin).map(|writer| (writer.to_message)(record));
            written.iter().for_each(|written| dead_letter(&DeadRecord::Other(written), &death, &mut each));
        }
        added.unwrap_or_else(|| {
            self.shard.dead_letters.counters.unreadable.fetch_add(1, Relaxed);
            self.drop_message(message)
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
        let counters = &self.shard.dead_letters.counters;
        let route = match self.driver.exchanges.route_dead(caller, address.exchange, &publication, scratch) {
            Ok(route) => route,
            Err(RouteError::Shard(_)) => return Err(Later),
            Err(RouteError::NoExchange | RouteError::Internal | RouteError::Key(_)) => Arc::default(),
        };
        let of = Origin { shard: self.shard.id, front_end: number, hash: address.hash };
        let mut targets = LetterTargets::default();
        for topic in route.topics() {
            if letter.deaths.is_cycle(&topic.name) {
                counters.cycles.fetch_add(1, Relaxed);
            } else if !targets.add(caller, topic, of) {
                counters.refused.fetch_add(1, Relaxed);
            }
        }
        if targets.is_empty() {
            counters.unroutable.fetch_add(u64::from(route.is_empty()), Relaxed);
            return self.drop_message(message);
        }
        self.join(message, letter, targets, (caller, number), time_ms)
    }

    /// Adds a message to those that go to the same targets.
    fn join(
        &mut self,
        message: &WaitingMessage<'_>,
        letter: &DeadLetterRecord<'_>,
        targets: LetterTargets,
        (caller, origin): (&Caller, FrontendNo),
        time_ms: i64,
    ) -> Result<(), Later> {
        let (offset, reason) = (message.offset, message.reason);
        if !self.open.as_ref().is_some_and(|open| open.goes_on(offset, reason, &targets)) {
            self.close()?;
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
            });
        }
        let open = self.open.as_mut().expect("it was put there");
        open.batch.push(time_ms, letter.key, letter.value, letter.headers);
        if open.facts.push(letter.address.facts.clone()).is_err() {
            open.facts.push(Facts::default()).expect("it has no names");
        }
        open.count += 1;
        Ok(())
    }

    fn drop_message(&mut self, message: &WaitingMessage<'_>) -> Result<(), Later> {
        self.close()?;
        self.letters.settle(self.source.queue, message.offset, 1, message.reason);
        Ok(())
    }

    /// Nothing more joins those that were added last: what goes elsewhere is published.
    fn close(&mut self) -> Result<(), Later> {
        let Some(mut group) = self.open.take() else { return Ok(()) };
        if group.is_large() {
            group.targets.all_elsewhere();
        }
        if !group.targets.elsewhere.is_empty()
            && let Err(later) = self.driver.publish(self.shard, &group)
        {
            self.later = true;
            return Err(later);
        }
        self.letters.published[group.reason as usize] += u64::from(group.count);
        if group.targets.here.is_empty() {
            self.letters.settle(group.queue, group.first, group.count, group.reason);
        } else {
            self.letters.publish(group);
        }
        Ok(())
    }
}

/// What waits in a queue, so many messages at the most.
fn waiting(shard: &Shard, queue: SubscriptionNo, most: u64) -> Vec<WaitingRun> {
    let state = shard.state.read();
    let Some(subscription) = state.subscriptions.get(queue) else { return Vec::new() };
    let (mut all, mut left) = (Vec::new(), most);
    for (messages, reason) in subscription.dead_letters() {
        let count = (messages.end - messages.start).min(left);
        all.push((messages.start..messages.start + count, reason));
        left -= count;
        if left == 0 {
            break;
        }
    }
    all
}

fn propose(shard: &Shard, letters: Letters, led_terms: u64) {
    let Letters { body, payload, queues, published, .. } = letters;
    let waiting = shard.dead_letters.clone();
    waiting.begin();
    // What a shard does not take is tried again after a while.
    let decided = move |outcome: Result<DeliveryOutcome, DeliveryError>, _: &mut WakeBatch| {
        let is_decided = !matches!(outcome, Err(DeliveryError::Shard(_)));
        if is_decided {
            waiting.counters.published(&published);
        }
        waiting.end(led_terms, &queues, is_decided);
    };
    let mut encoded = Vec::new();
    body.encode(&mut encoded);
    let payload = (!payload.is_empty()).then_some(&payload[..]);
    let priority = if payload.is_some() { Priority::Ordinary } else { Priority::Reserve };
    let waiter = Some(Waiter::then(decided));
    if let Err((failure, Some(waiter))) =
        shard.push_with(priority, DeadLettered::KIND, (&encoded, payload), waiter)
    {
        let mut wakes = WakeBatch::default();
        waiter.fail(failure, &mut wakes);
        wakes.deliver();
    }
    shard.submit();
}

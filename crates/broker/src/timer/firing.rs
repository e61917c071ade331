//! One entry of timers that have fired: what is due, where its messages go, and which are ready again.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rustc_hash::FxHashMap;
use sabir_base::clock::Clock;
use sabir_base::wake::WakeBatch;
use sabir_delivery::subscription::{MessageState, OperationsWriter, SubscriptionNo};
use sabir_delivery::timer::{DueTimers, TimerKey, TimerTarget, Timers, UpcomingTimers};
use sabir_journal::Priority;
use sabir_model::batch::{BatchBuilder, Compression, RecordView, records};
use sabir_model::{
    Extent, Facts, FrontendNo, Offset, Overlay, PartitionId, ReadError, RecordFacts, ShardFailure, TopicId,
};
use tracing::error;

use super::address::FiringTargets;
use super::driver::TimerDriver;
use crate::answer::Waiter;
use crate::catalog::Topic;
use crate::entry::{
    Body, DeliveryBody, DeliveryError, DeliveryOutcome, DueMessage, FiredMessage, RecordPlace, ReferenceBody,
    TimersFired,
};
use crate::exchange::RouteScratch;
use crate::read::StoredBatch;
use crate::relay::{Later, RECORDS_MAX, Relay, RelayOutcome, RelayedMessages};
use crate::shard::Shard;
use crate::state::{TimerTable, partition_of, subscription_of};

/// Messages of one entry that go somewhere, targets that they name, and all timers of it, with those that are put off.
const MOST: usize = 512;
const MOST_TARGETS: usize = 8192;
const MOST_TIMERS: usize = 2048;
/// A message with more targets in its shard is published to them by itself, a part of them at a time.
const LARGEST_TARGETS: usize = 4096;
/// How long an entry is put together, if it has something: other shards' timers wait for that.
const AT_A_TIME: Duration = Duration::from_millis(100);
/// On a full disk timers fire, too, or what they keep back could never be consumed there: an entry refers to records, and copies none.
const PRIORITY: Priority = Priority::Commit;
/// When it is tried again what could not be done, in milliseconds.
const RETRY_MS: i64 = 100;
/// When a message that reads as damaged is looked at again: a disk may err while it reads.
const PUT_OFF_MS: i64 = 60_000;
/// The same of one of whose targets a shard takes nothing now, if it has not for longer: for as long as it has, since each time a timer is stored anew.
const UNDECIDED_MS: i64 = 1_000;

/// What is known while a shard is led.
#[derive(Debug)]
pub(super) struct Firing {
    /// In which term.
    led_terms: u64,
    upcoming: UpcomingTimers,
    /// The batch that was looked into last: the next timer's message may be in it, too.
    batch: Option<(RecordPlace, StoredBatch)>,
    relayed: RelayedMessages,
    /// Up to where the entry proposed last fires timers, and the messages in it that are to be published once more.
    again: (TimerKey, Vec<RecordPlace>),
    /// Messages that read as damaged with others of their batch, by the first: up to where, and until when none of them is read again.
    unreadable: BTreeMap<(PartitionId, u64), (u64, i64)>,
    /// Topics that are not shown, or whose messages cannot be routed, and since when, in milliseconds of the node's time.
    unshown: FxHashMap<TopicId, i64>,
}

/// What is known of so many is forgotten: it is found out again.
const MOST_KNOWN: usize = 4096;

impl Default for Firing {
    fn default() -> Self {
        Self {
            led_terms: 0,
            upcoming: UpcomingTimers::default(),
            batch: None,
            relayed: RelayedMessages::default(),
            again: (TimerKey::FIRST, Vec::new()),
            unreadable: BTreeMap::new(),
            unshown: FxHashMap::default(),
        }
    }
}

impl Firing {
    /// Whether a message was found to be damaged with others of its batch, a short time ago.
    fn is_unreadable(&self, place: RecordPlace, now_ms: i64) -> bool {
        let offset = place.offset.0 as u64;
        let before = self.unreadable.range(..=(place.partition, offset)).next_back();
        before.is_some_and(|((partition, _), (end, until_ms))| {
            (*partition, offset < *end, now_ms < *until_ms) == (place.partition, true, true)
        })
    }

    fn note_unreadable(&mut self, place: RecordPlace, end: Offset, now_ms: i64) {
        if self.unreadable.len() >= MOST_KNOWN {
            self.unreadable.clear();
        }
        let known = (end.0 as u64, now_ms + PUT_OFF_MS / 2);
        self.unreadable.insert((place.partition, place.offset.0 as u64), known);
    }

    /// What was published of messages that fire again is done with where the entry proposed last has taken effect.
    fn forget_repeated(&mut self, shard: &Shard) {
        let (through, places) = std::mem::replace(&mut self.again, (TimerKey::FIRST, Vec::new()));
        let fired = shard.state.read().timers.timers().map(Timers::fired);
        if places.is_empty() || fired.is_none_or(|fired| fired < through) {
            return;
        }
        for RecordPlace { partition, offset } in places {
            self.relayed.forget_message(subscription_of(partition), offset.0 as u64);
        }
    }

    /// For how long a message is put off whose topic is not shown, though it is there; for as long as that has been so. What is being made
    /// is shown soon, and waited for.
    fn waits_for(&mut self, topic: TopicId, is_there: bool, now_ms: i64) -> Result<i64, Later> {
        if self.unshown.len() >= MOST_KNOWN {
            self.unshown.clear();
        }
        let since_ms = *self.unshown.entry(topic).or_insert(now_ms);
        match now_ms.saturating_sub(since_ms) {
            so_far if is_there && so_far < UNDECIDED_MS => Err(Later),
            so_far => Ok(so_far.clamp(UNDECIDED_MS, PUT_OFF_MS)),
        }
    }
}

/// A page of timers cannot be had.
#[derive(Debug, thiserror::Error)]
#[error("a page of timers: {0}")]
struct BadPage(String);

/// What becomes of a message whose time has come.
enum Decided {
    /// It goes there, where that is in its own shard; all others have decided.
    Goes(FiringTargets),
    /// It is tried again, after so many milliseconds.
    PutOff(i64),
}

/// What is to be done next.
enum Due {
    Nothing(Option<i64>),
    /// These timers fire; with the number of the timer that is set next.
    Fire(Vec<(TimerKey, TimerTarget)>, u64),
}

impl TimerDriver {
    /// Proposes what is due in a shard. Gives the moment at which it is to be looked again, if there is one; what is proposed wakes the
    /// thread when it is decided.
    pub(super) fn fire(&self, shard: &Shard, firing: &mut Firing, scratch: &mut RouteScratch) -> Option<i64> {
        // Whatever is set from here on, and not seen below, wakes the thread.
        shard.timers.looks_at(i64::MAX);
        let next = self.propose_due(shard, firing, scratch);
        shard.timers.looks_at(next.unwrap_or(i64::MAX));
        next
    }

    fn propose_due(&self, shard: &Shard, firing: &mut Firing, scratch: &mut RouteScratch) -> Option<i64> {
        let state = shard.timers.state();
        if !state.is_led || shard.is_stopped() {
            return None;
        }
        if state.is_under_way {
            return Some(shard.now_ms() + RETRY_MS);
        }
        if firing.led_terms != state.led_terms {
            *firing = Firing { led_terms: state.led_terms, ..Firing::default() };
        }
        match due(shard, &mut firing.upcoming) {
            Ok(Due::Nothing(next)) => next,
            Ok(Due::Fire(timers, below)) => self.propose(shard, firing, &timers, below, scratch),
            Err(error) => {
                error!(shard = %shard.id, %error, "timers do not fire");
                Some(shard.now_ms() + 10 * RETRY_MS)
            }
        }
    }

    fn propose(
        &self,
        shard: &Shard,
        firing: &mut Firing,
        timers: &[(TimerKey, TimerTarget)],
        below: u64,
        scratch: &mut RouteScratch,
    ) -> Option<i64> {
        firing.relayed.forget_settled(shard, self.clock.now_ms());
        firing.forget_repeated(shard);
        let mut body = TimersFired { through: TimerKey::FIRST, below, messages: Vec::new(), due: Vec::new() };
        let (mut targets, mut going, began) = (0, 0, Instant::now());
        for (key, target) in timers {
            let is_late = body.through > TimerKey::FIRST && began.elapsed() >= AT_A_TIME;
            if targets >= MOST_TARGETS || going >= MOST || is_late {
                break;
            }
            if let Some((subscription, offset, fired)) = kept_back(target) {
                if topic_of(shard, subscription, offset).is_none() {
                    // It was settled before its time.
                    body.through = *key;
                    continue;
                }
                let message = self.message(shard, firing, (subscription, offset, fired), scratch);
                let Ok(message) = message else { break };
                going += usize::from(message.put_off_ms.is_none());
                targets += message.published.as_ref().map_or(0, |published| published.targets.len());
                body.messages.push(message);
            }
            if let TimerTarget::Parked { subscription, offset, resets, attempts } = *target {
                body.due.push(DueMessage { subscription, offset, resets, attempts });
            }
            body.through = *key;
        }
        if !body.due.is_empty() {
            let state = shard.state.read();
            body.due.retain(|due| state.subscriptions.is_parked(due));
        }
        if body.through > TimerKey::FIRST {
            let (timers, term) = (shard.timers.clone(), firing.led_terms);
            timers.begin(term);
            let again = body.messages.iter().filter(|message| message.again_ms.is_some());
            firing.again = (body.through, again.map(|message| message.place).collect());
            let goes = |message: &&FiredMessage| message.put_off_ms.is_none() && message.again_ms.is_none();
            let settled = body.messages.iter().filter(goes);
            for RecordPlace { partition, offset } in settled.map(|message| message.place) {
                let offset = offset.0 as u64;
                firing.relayed.settles(subscription_of(partition), offset..offset + 1);
            }
            // What a shard does not take is tried again after a while.
            let decided = move |outcome: Result<DeliveryOutcome, DeliveryError>, _: &mut WakeBatch| {
                timers.end(term, !matches!(outcome, Err(DeliveryError::Shard(_))));
            };
            if push(shard, body, Waiter::then(decided)).is_err() {
                shard.timers.end(term, false);
            }
            shard.submit();
        }
        // If it was not taken, or nothing could be.
        Some(shard.now_ms() + RETRY_MS)
    }

    /// A message, and where it goes.
    fn message(
        &self,
        shard: &Shard,
        firing: &mut Firing,
        (subscription, offset, fired): (SubscriptionNo, u64, u32),
        scratch: &mut RouteScratch,
    ) -> Result<FiredMessage, Later> {
        let place = RecordPlace { partition: partition_of(subscription), offset: Offset(offset as i64) };
        let nowhere =
            FiredMessage { place, published: None, facts: None, put_off_ms: None, fired: 0, again_ms: None };
        let put_off = |ms: i64| FiredMessage { put_off_ms: Some(ms), fired, ..nowhere.clone() };
        let Some(id) = topic_of(shard, subscription, offset) else { return Ok(nowhere) };
        let now_ms = self.clock.now_ms();
        let Some(topic) = self.definitions.view().topic_by_id(id).cloned() else {
            // What is there and not shown is being made or deleted.
            return firing.waits_for(id, self.definitions.topic(id).is_some(), now_ms).map(put_off);
        };
        if firing.is_unreadable(place, now_ms) {
            return Ok(put_off(PUT_OFF_MS));
        }
        let batch = match batch_of(shard, firing, place) {
            Ok(Some(batch)) => batch,
            Ok(None) => return Ok(nowhere),
            Err(ReadError::ShuttingDown) => return Err(Later),
            Err(_) if shard.is_stopped() => return Err(Later),
            Err(error) => {
                shard.damaged(place.partition, place.offset, error);
                firing.note_unreadable(place, shard.unreadable_end(place.partition, place.offset), now_ms);
                return Ok(put_off(PUT_OFF_MS));
            }
        };
        let damaged = || {
            shard.damaged(place.partition, place.offset, ReadError::Corrupt);
            Ok(put_off(PUT_OFF_MS))
        };
        let Ok(found) = records(&batch.bytes, RECORDS_MAX) else { return damaged() };
        let number = place.offset.0 - batch.base.0;
        let first = found.header().base_offset.0;
        let record = found.iter().flatten().find(|record| record.offset.0 - first == number);
        let Some(record) = record else { return damaged() };
        let targets = match self.targets_of((shard, firing), (&topic, batch.origin), place, &record, scratch)
        {
            Ok(Decided::Goes(targets)) => targets,
            Ok(Decided::PutOff(ms)) => return Ok(put_off(ms)),
            Err(Later) => return firing.waits_for(id, false, now_ms).map(put_off),
        };
        firing.unshown.remove(&id);
        let extent = Extent {
            block: batch.block,
            offset: batch.at,
            len: batch.bytes.len() as u32,
            first_record: number as u32,
            records: 1,
            origin: batch.origin,
            overlay: Overlay::None,
        };
        // The version before would not read that it has fired.
        let repetition = targets.repetition.filter(|_| shard.parks());
        let fired = fired.saturating_add(1);
        let again_ms = repetition.and_then(|often| often.next_ms(record.timestamp, now_ms, fired));
        let went = fired_once(place, extent, record.timestamp, targets);
        Ok(FiredMessage { fired: again_ms.map_or(0, |_| fired), again_ms, ..went })
    }

    /// Where a record goes in its own shard; it is published to all others. Where one of these does not decide now it is published to those of its own
    /// shard, too, and tried again.
    fn targets_of(
        &self,
        (shard, firing): (&Shard, &mut Firing),
        (topic, origin): (&Topic, FrontendNo),
        place: RecordPlace,
        record: &RecordView<'_>,
        scratch: &mut RouteScratch,
    ) -> Result<Decided, Later> {
        let Some((caller, converter)) = self.caller_of(topic, origin) else {
            return Ok(Decided::Goes(FiringTargets::default()));
        };
        let mut targets = self.targets((&caller, converter), (shard.id, origin), record, scratch)?;
        let (queue, offset) = (subscription_of(place.partition), place.offset.0 as u64);
        firing.relayed.leave_out(queue, offset, &mut targets.here);
        firing.relayed.leave_out(queue, offset, &mut targets.elsewhere);
        if targets.here.len() > LARGEST_TARGETS {
            targets.elsewhere.append(&mut targets.here);
        }
        let FiringTargets { here, elsewhere, .. } = &targets;
        if elsewhere.is_empty() {
            return Ok(Decided::Goes(targets));
        }
        let mut batch = BatchBuilder::new(Compression::None);
        let headers: Vec<_> = record.headers.map(|header| (header.key, header.value)).collect();
        batch.push(record.timestamp, record.key, record.value, &headers);
        let facts = said(&targets.facts).map(|facts| *facts);
        let relay = Relay {
            caller: &caller,
            queue,
            offsets: offset..offset + 1,
            stays: false,
            batch: &batch,
            facts: facts.as_ref(),
            wall_ms: self.clock.wall_ms(),
            now_ms: self.clock.now_ms(),
        };
        let RelayOutcome { refused, undecided_ms } =
            relay.publish_or_later(&self.shards, here, elsewhere, &mut firing.relayed);
        shard.timers.refuse(refused);
        Ok(match undecided_ms {
            Some(ms) => Decided::PutOff(ms.clamp(UNDECIDED_MS, PUT_OFF_MS)),
            None => Decided::Goes(targets),
        })
    }
}

/// Below the level that has entries of timers for them, parked messages become ready by an entry of deliveries right before that of the timers.
fn push(shard: &Shard, mut body: TimersFired, waiter: Waiter) -> Result<(), ShardFailure> {
    let due = if shard.parks() { Vec::new() } else { std::mem::take(&mut body.due) };
    if due.is_empty() {
        shard.propose(PRIORITY, &body, waiter);
        return Ok(());
    }
    let (mut operations, mut fired) = (Vec::new(), Vec::new());
    let mut writer = OperationsWriter::new(&mut operations, false);
    due.iter().for_each(|due| writer.push(due.subscription, &due.operation()));
    body.encode(&mut fired);
    let nobody = Waiter::then(|_: Result<DeliveryOutcome, DeliveryError>, _: &mut WakeBatch| {});
    let entries = vec![(DeliveryBody::KIND, operations, nobody), (TimersFired::KIND, fired, waiter)];
    shard.push_together(PRIORITY, entries)
}

/// What is due in a shard.
fn due(shard: &Shard, upcoming: &mut UpcomingTimers) -> Result<Due, BadPage> {
    loop {
        let (run, page) = {
            let state = shard.state.read();
            let Some(timers) = state.timers.timers() else { return Ok(Due::Nothing(None)) };
            match upcoming.due(timers, timers.fired(), shard.now_ms(), MOST_TIMERS) {
                DueTimers::Nothing(next) => return Ok(Due::Nothing(next)),
                DueTimers::Fire(due) => return Ok(Due::Fire(due, timers.next_number())),
                DueTimers::Read { run, page } => (run, page),
            }
        };
        let stored = timer_page(shard, run, page)?;
        let timers = Timers::decode_page(&stored).map_err(|error| BadPage(error.to_string()))?;
        upcoming.page(run, page, timers);
    }
}

fn timer_page(shard: &Shard, run: u64, page: u32) -> Result<Vec<u8>, BadPage> {
    if let Some(stored) = shard.state.read().timers.page_in_memory(run, page) {
        return Ok(stored.to_vec());
    }
    let stored = shard.pages.get(&TimerTable::page_key(run, page));
    let stored = stored.map_err(|error| BadPage(error.to_string()))?;
    stored.ok_or_else(|| BadPage("it is not there".into()))
}

/// The topic of a message that is not settled.
fn topic_of(shard: &Shard, subscription: SubscriptionNo, offset: u64) -> Option<TopicId> {
    let state = shard.state.read();
    let queue = state.subscriptions.get(subscription)?;
    let is_left = offset < queue.end() && queue.state(offset) != MessageState::Settled;
    state.partition(partition_of(subscription)).filter(|_| is_left).map(|partition| partition.topic)
}

fn batch_of(
    shard: &Shard,
    firing: &mut Firing,
    place: RecordPlace,
) -> Result<Option<StoredBatch>, ReadError> {
    let holds = |(of, batch): &&(RecordPlace, StoredBatch)| {
        of.partition == place.partition && (batch.base..batch.next).contains(&place.offset)
    };
    if let Some((_, batch)) = firing.batch.as_ref().filter(holds) {
        return Ok(Some(batch.clone()));
    }
    let found = shard.batch_at(place.partition, place.offset)?;
    firing.batch = found.clone().map(|batch| (place, batch));
    Ok(found)
}

/// Which message a timer is for that is kept back, and how often it has fired.
fn kept_back(target: &TimerTarget) -> Option<(SubscriptionNo, u64, u32)> {
    match *target {
        TimerTarget::Message { subscription, offset } => Some((subscription, offset, 0)),
        TimerTarget::Repeated { subscription, offset, fired } => Some((subscription, offset, fired)),
        TimerTarget::Parked { .. } | TimerTarget::Kept(_) => None,
    }
}

fn fired_once(place: RecordPlace, extent: Extent, max_ts: i64, targets: FiringTargets) -> FiredMessage {
    let facts = said(&targets.facts);
    let here = targets.here.iter().map(|target| target.partition).collect();
    let reference = ReferenceBody { targets: here, max_ts, source: Some(place), extent };
    let published = Some(reference).filter(|reference| !reference.targets.is_empty());
    let facts = facts.filter(|_| published.is_some());
    FiredMessage { place, facts, published, put_off_ms: None, fired: 0, again_ms: None }
}

/// A message's facts, if they say anything.
fn said(facts: &Facts) -> Option<Box<RecordFacts>> {
    let mut all = RecordFacts::new();
    all.push(facts.clone()).ok()?;
    (*facts != Facts::default()).then(|| Box::new(all))
}

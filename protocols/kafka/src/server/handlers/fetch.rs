//! Fetch: batches from an offset on; waits for them where there are none.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use bytes::Bytes;
use sabir_broker::{
    Fetched, Partition, READ_FOR, ReadGrant, ReadRoom, ReadTarget, Slice, Topic, held as holding,
};
use sabir_model::{LeaderEpoch, Offset, TopicId};
use sabir_net::{FrameMemory, Grant, MemoryPart, NoMemory, UNCOUNTED};
use tokio::time::Instant;

use super::weight::hold;
use super::{Call, Client, Reply, Unanswered, decode, first_error};
use crate::server::fetch_session::{NO_SESSION, Plan, TopicKey, Wanted};
use crate::server::frontend::short_uuid;
use crate::server::map::read_error_code;
use crate::server::rebuilt::{self, MOST_RECORDS, NotGiven, Rebuilt};
use crate::server::requests::Request;
use crate::wire::messages::fetch::{
    EpochEndOffset, FetchRequest, FetchResponse, FetchableTopicResponse, LeaderIdAndEpoch, PartitionData,
};
use crate::wire::{ErrorCode, RecordData};

/// The longest a fetch waits, whatever it asks for: a connection without answers looks dead.
const MAX_WAIT: Duration = Duration::from_secs(300);

pub(super) async fn fetch(client: Arc<Client>, request: Request) -> Result<Reply, Unanswered> {
    let call = Call::of(&request);
    // Before it is decoded: those that wait for memory may be many.
    let frame = request.body.len();
    let most = (frame / named_in(call.version) * EACH).min(client.memory.total().saturating_sub(frame));
    // One time for all that is done before it reads: a clock is dear beside a fetch of little.
    let mut now = Instant::now();
    let held = hold(&client.memory, most, now).await?;
    if held.is_some() {
        // It may have waited for that.
        now = Instant::now();
    }
    let body: FetchRequest = decode(&request)?;
    drop(request);
    let catalog = client.kafka.broker.catalog();
    let seen = |topic: &&Arc<Topic>| client.sees(topic);
    let names = |id| catalog.topic_by_id(TopicId(id)).filter(seen).map(|topic| topic.name.clone());
    let begun = client.kafka.with_sessions(|s| s.begin(&body, call.version, &names, now.into_std()));
    drop(catalog);
    let mut plan = match begun {
        Ok(plan) => plan,
        Err(error) => {
            let response = FetchResponse { error_code: error.code(), ..Default::default() };
            return Ok(call.reply(&response, error));
        }
    };
    let first = plan.begin_at(client.fetch_first.load(Relaxed));
    let needed = plan.wanted.len().saturating_mul(EACH) + plan.name_bytes();
    let bounds = Bounds {
        min_bytes: usize::try_from(body.min_bytes).unwrap_or(0),
        max_bytes: usize::try_from(body.max_bytes).unwrap_or(0).min(client.kafka.config.max_fetch.0 as usize),
        until: now + Duration::from_millis(u64::try_from(body.max_wait_ms).unwrap_or(0)).min(MAX_WAIT),
        committed_only: body.isolation_level == 1,
        follower: body.replica_id.max(body.replica_state.replica_id) >= 0,
        largest: client.memory.total().saturating_sub(needed.max(UNCOUNTED)).min(MOST_RECORDS),
    };
    drop(body);
    let kept = hold_all(&client.memory, held, needed, bounds.until).await?;
    let gathered = wait(&client, &plan, &bounds, kept.is_some()).await;
    client.fetch_first.store(next_first(&plan, first, &gathered), Relaxed);
    let Gathered { mut answers, memory, held, given, .. } = gathered;
    if plan.session_id() == NO_SESSION {
        // In the order in which they were asked for.
        answers.rotate_right(first);
    }
    client.kafka.with_sessions(|sessions| sessions.end(&plan, &mut answers));
    let error = first_error(answers.iter().map(|(_, a)| a.error_code));
    given.iter().for_each(|(topic, bytes)| topic.traffic.send(*bytes));
    Ok(call.reply(&respond(&plan, answers), error).within(memory, held))
}

/// Where the next fetch without a session begins. Where time did not last, those that were left out come first, and so it goes on until a
/// fetch has come to all of them.
fn next_first(plan: &Plan, first: usize, gathered: &Gathered) -> usize {
    let left_out = gathered.is_late || (first > 0 && gathered.is_full);
    if !left_out || plan.session_id() != NO_SESSION {
        return 0;
    }
    let has_records = |answer: &PartitionData| answer.records.as_ref().is_some_and(|r| !r.is_empty());
    let last = gathered.answers.iter().rev().find(|(_, answer)| has_records(answer));
    last.map_or(first, |(at, _)| (first + at + 1) % plan.wanted.len())
}

struct Bounds {
    min_bytes: usize,
    max_bytes: usize,
    until: Instant,
    committed_only: bool,
    /// Whether another broker asks: there is none that holds replicas of ours.
    follower: bool,
    /// The most bytes that one batch may have: what is left of all memory beside the answer around it.
    largest: usize,
}

/// What a partition takes while its fetch waits: what is wanted of it, that it is watched, and what is answered.
const EACH: usize = size_of::<Wanted>() + size_of::<ReadTarget>() + size_of::<(usize, PartitionData)>();

/// What a partition takes while nothing comes of its fetch: what is wanted of it, and that it is watched.
const WAITING: usize = size_of::<Wanted>() + 64;
/// A fetch that takes no more while it waits is not counted.
const FREE: usize = 2048;

/// Memory for what a fetch takes that waits and has none yet. Those that wait together have what there is for little things, and half of
/// the rest: they may wait for minutes, and others have requests and answers meanwhile.
fn hold_waiting(memory: &FrameMemory, plan: &Plan) -> Result<Option<Grant>, NoMemory> {
    let bytes = plan.wanted.len() * WAITING + plan.name_bytes();
    if bytes <= FREE {
        return Ok(None);
    }
    let little = memory.try_take_little(MemoryPart::Common, bytes);
    little.or_else(|| memory.try_take_of_plenty(bytes)).map(Some).ok_or(NoMemory)
}

/// In how many bytes a request of a version names a partition, if not more.
const fn named_in(version: i16) -> usize {
    match version {
        ..5 => 16,
        5..9 => 24,
        9..12 => 28,
        _ => 33,
    }
}

/// Memory for a list of partitions, which is kept while the fetch waits, and for the answers to it, once it is known how long it is: a
/// session knows more than its request says.
async fn hold_all(
    memory: &FrameMemory,
    held: Option<Grant>,
    bytes: usize,
    until: Instant,
) -> Result<Option<Grant>, NoMemory> {
    if let Some(mut held) = held
        && bytes > UNCOUNTED
        && held.resize(bytes.min(memory.total()))
    {
        return Ok(Some(held));
    }
    hold(memory, bytes, until).await
}

/// What was read, by the places in the plan.
type Answers = Vec<(usize, PartitionData)>;

/// Reads, and reads again when there is more, until there is enough or it is time to answer. Where no memory is left to wait with it is
/// answered at once.
async fn wait(client: &Client, plan: &Plan, bounds: &Bounds, is_held: bool) -> Gathered {
    let memory = &client.memory;
    let first = gather(client, memory, plan, bounds).await;
    if first.is_enough(bounds) || Instant::now() >= bounds.until {
        return first;
    }
    let failed = first.has_failed();
    if failed && client.may_cut_short() {
        return first;
    }
    if failed {
        tell_of_spin(client, plan, &first.answers);
    }
    let _waiting = match if is_held { Ok(None) } else { hold_waiting(memory, plan) } {
        Ok(held) => held,
        Err(NoMemory) => {
            client.kafka.metrics.unwaited_fetch();
            return first;
        }
    };
    let (mut there, mut absent, mut missing) = (first.bytes, first.absent, first.missing(bounds));
    drop(first);
    loop {
        // Registered before the read, so that nothing between the two is missed.
        let watch = client.kafka.broker.watch(&partitions(client, plan), missing.max(1));
        let gathered = gather(client, memory, plan, bounds).await;
        // What is deleted while it waits ends the wait, and not that of the next fetch, which finds it gone.
        let is_deleted = std::mem::replace(&mut absent, gathered.absent) < gathered.absent;
        if gathered.is_enough(bounds) || ((gathered.has_failed() || is_deleted) && !failed) {
            return gathered;
        }
        missing = gathered.missing(bounds);
        // What came before the watch is not counted by it.
        if std::mem::replace(&mut there, gathered.bytes) < gathered.bytes {
            continue;
        }
        drop(gathered);
        let more = tokio::time::timeout_at(bounds.until, watch).await;
        if more.is_err() {
            return gather(client, memory, plan, bounds).await;
        }
    }
}

struct Gathered {
    answers: Answers,
    bytes: usize,
    /// The most that it could have been.
    max_bytes: usize,
    /// What was granted for it, where it is much.
    memory: Option<Grant>,
    /// A large first batch that holds memory of its own.
    held: Option<Box<Bytes>>,
    /// Whether a partition has something to say that does not wait.
    urgent: bool,
    /// Partitions that are not there.
    absent: usize,
    /// What topics give.
    given: Vec<(Arc<Topic>, usize)>,
    /// Whether it has taken long enough, so that there may be more.
    is_late: bool,
    /// Whether partitions were left out because there was no room.
    is_full: bool,
}

impl Gathered {
    fn is_enough(&self, bounds: &Bounds) -> bool {
        self.missing(bounds) == 0 || self.answers.is_empty() || self.is_late
    }

    /// Whether it is answered before its time because of errors. A topic that is not there does not end the wait for others.
    fn has_failed(&self) -> bool {
        self.urgent || self.absent == self.answers.len()
    }

    /// Counts what one of a topic's partitions gives.
    fn gives(&mut self, topic: &Arc<Topic>, bytes: usize) {
        match self.given.last_mut() {
            _ if bytes == 0 => {}
            Some((last, given)) if Arc::ptr_eq(last, topic) => *given += bytes,
            _ => self.given.push((topic.clone(), bytes)),
        }
    }

    /// How many bytes more are waited for. A client that takes none at all still gets the first batch, and waits for that.
    fn missing(&self, bounds: &Bounds) -> usize {
        bounds.min_bytes.min(self.max_bytes.max(1)).saturating_sub(self.bytes)
    }
}

/// How long partitions are read before the thread is lent to other connections.
const AT_A_TIME: Duration = Duration::from_millis(1);

/// Reads what there is, as much of it as there is memory for: what is read stays in memory until the client has taken it. After [`READ_FOR`]
/// it is given what there is so far, and the partitions that are left have their turn with the next fetch: each batch may be a read of the
/// disk's, and a client gives a broker up that is silent for long.
async fn gather(client: &Client, memory: &FrameMemory, plan: &Plan, bounds: &Bounds) -> Gathered {
    let most = most(&plan.wanted, bounds.max_bytes);
    let memory = memory.share(most, UNCOUNTED);
    let granted = memory.as_ref().map_or(most.min(UNCOUNTED), Grant::bytes);
    let mut max_bytes = if granted < most { granted } else { bounds.max_bytes };
    let answers = Vec::with_capacity(plan.wanted.len());
    let (held, urgent, absent, given, is_late, is_full) = Default::default();
    let mut gathered =
        Gathered { answers, bytes: 0, max_bytes, memory, held, urgent, absent, given, is_late, is_full };
    let (mut topics, mut began) = (Lookup::new(client), Instant::now());
    let until = began.into_std() + READ_FOR;
    // What is given, and what there was no room for.
    let mut used = 0_usize;
    for (at, wanted) in plan.wanted.iter().enumerate() {
        if at % 64 == 63 && began.elapsed() >= AT_A_TIME {
            // A session knows of far more partitions than its request names.
            tokio::task::yield_now().await;
            began = Instant::now();
        }
        gathered.is_full |= used >= max_bytes;
        let left = if gathered.is_late { 0 } else { max_bytes.saturating_sub(used) };
        let found = topics.find(wanted);
        let mut lost = 0;
        let answer = match found
            .as_ref()
            .map(|(topic, partition, target)| (topic, check(client, partition, *target, wanted, bounds)))
        {
            Ok((topic, Ok(Found::Partition(target)))) => {
                let max = usize::try_from(wanted.max_bytes).unwrap_or(0).min(left);
                // The first batch of the first partition that has one is given whatever its size, or a consumer that wants
                // less could never go on.
                let memory = (gathered.bytes == 0).then_some(&mut gathered.memory);
                let largest = bounds.largest;
                let mut room =
                    Room { max, first: memory, largest, until, is_used: false, large: None, held: None };
                let answer = read(client, topic, target, wanted, &mut room, bounds.committed_only).await;
                // One whose next batch does not fit has had all that it may have, or each might be decompressed for nothing.
                lost = if room.is_used { max } else { 0 };
                gathered.held = gathered.held.or(room.held);
                if gathered.memory.is_none() {
                    // It was given back while others had what a large batch is to have.
                    max_bytes = max_bytes.min(UNCOUNTED);
                }
                answer
            }
            Ok((_, Ok(Found::Diverged(target, end)))) => diverged(client, target, wanted, end),
            Ok((_, Err(error))) => Err(error),
            Err(error) => Err(*error),
        };
        let answer = answer.unwrap_or_else(|error| unread(wanted, error));
        let bytes = answer.records.as_ref().map_or(0, RecordData::len);
        if let Ok((topic, ..)) = &found {
            gathered.gives(topic, bytes);
        }
        let is_absent = is_absent(answer.error_code);
        gathered.urgent |= (answer.error_code != 0 && !is_absent) || answer.diverging_epoch.epoch >= 0;
        gathered.absent += usize::from(is_absent);
        gathered.bytes += bytes;
        used = used.saturating_add(bytes.max(lost));
        gathered.is_late |= bytes > 0 && std::time::Instant::now() >= until;
        gathered.answers.push((at, answer));
    }
    // What a first batch has beyond it is counted once it is known that the client does not read.
    let granted = gathered.memory.as_ref().map_or(granted, Grant::bytes);
    let held = gathered.held.as_ref().map_or(0, |held| held.len());
    let used = gathered.bytes.saturating_sub(held).min(granted);
    gathered.memory = gathered.memory.filter(|_| used > UNCOUNTED);
    if let Some(grant) = &mut gathered.memory {
        grant.resize(used);
    }
    gathered
}

/// Whether an error says that there is no such partition, which its client learns as well when the wait for the others is over.
fn is_absent(error_code: i16) -> bool {
    error_code == ErrorCode::UnknownTopicOrPartition.code() || error_code == ErrorCode::UnknownTopicId.code()
}

/// Says that a client fetches over and over what fails.
fn tell_of_spin(client: &Client, plan: &Plan, answers: &Answers) {
    client.kafka.metrics.held_fetch();
    let Some((at, answer)) = answers.iter().find(|(_, answer)| answer.error_code != 0) else { return };
    let Wanted { topic, known_as, partition, .. } = &plan.wanted[*at];
    let topic = match (topic, known_as) {
        (TopicKey::Name(name), _) => name.to_string(),
        (_, Some(name)) => name.to_string(),
        (TopicKey::Id(id), None) => short_uuid(*id),
    };
    let error = ErrorCode::from_i16(answer.error_code).unwrap_or(ErrorCode::UnknownServerError);
    client.complain(format_args!(
        "it fetches over and over what fails, and is held back: {error} of partition {partition} of {topic:?}"
    ));
}

/// How many bytes can come of these partitions, of so many that are wanted in all.
fn most(wanted: &[Wanted], max_bytes: usize) -> usize {
    let each = wanted.iter().map(|wanted| usize::try_from(wanted.max_bytes).unwrap_or(0));
    each.fold(0, usize::saturating_add).min(max_bytes)
}

/// Finds topics, which come in runs.
struct Lookup<'a> {
    client: &'a Client,
    last: Option<(TopicKey, Option<Arc<Topic>>)>,
}

impl<'a> Lookup<'a> {
    fn new(client: &'a Client) -> Self {
        Self { client, last: None }
    }

    fn find(&mut self, wanted: &Wanted) -> Result<(Arc<Topic>, Partition, ReadTarget), ErrorCode> {
        if self.last.as_ref().is_none_or(|(key, _)| *key != wanted.topic) {
            let topic = match &wanted.topic {
                TopicKey::Name(name) => self.client.topic(name),
                TopicKey::Id(id) => self.client.topic_by_id(*id),
            };
            self.last = Some((wanted.topic.clone(), topic));
        }
        let topic = self.last.as_ref().and_then(|(_, topic)| topic.clone());
        let topic = topic.ok_or_else(|| self.absent(wanted))?;
        let partition =
            topic.partition(wanted.partition).copied().ok_or(ErrorCode::UnknownTopicOrPartition)?;
        let target = self.client.read_target(&topic, wanted.partition)?;
        Ok((topic, partition, target))
    }

    /// What has become of a topic that is not there.
    fn absent(&self, wanted: &Wanted) -> ErrorCode {
        match (&wanted.topic, &wanted.known_as) {
            (TopicKey::Id(_), None) => ErrorCode::UnknownTopicId,
            (TopicKey::Id(_), Some(name)) if self.client.knows(name) => ErrorCode::InconsistentTopicId,
            _ => ErrorCode::UnknownTopicOrPartition,
        }
    }
}

enum Found {
    Partition(ReadTarget),
    Diverged(ReadTarget, EpochEndOffset),
}

/// Checks leadership and the epochs that the client knows.
fn check(
    client: &Client,
    partition: &Partition,
    target: ReadTarget,
    wanted: &Wanted,
    bounds: &Bounds,
) -> Result<Found, ErrorCode> {
    if bounds.follower {
        return Err(ErrorCode::NotLeaderOrFollower);
    }
    // In a fetch any negative epoch is none, as with Kafka; elsewhere -1 alone is.
    check_epoch(client, partition, wanted.leader_epoch.max(-1))?;
    if wanted.last_fetched_epoch >= 0 {
        let end = client.kafka.broker.end_of_epoch(target, LeaderEpoch(wanted.last_fetched_epoch));
        let end = end.map_err(read_error_code)?;
        if end.epoch == LeaderEpoch::UNKNOWN {
            return Err(ErrorCode::OffsetOutOfRange);
        }
        if end.epoch.0 < wanted.last_fetched_epoch || end.end_offset.0 < wanted.fetch_offset {
            let end = EpochEndOffset { epoch: end.epoch.0, end_offset: end.end_offset.0 };
            return Ok(Found::Diverged(target, end));
        }
    }
    Ok(Found::Partition(target))
}

/// Refuses an epoch other than the leader's; negative is none.
pub(super) fn check_epoch(client: &Client, partition: &Partition, epoch: i32) -> Result<(), ErrorCode> {
    let (_, current) = client.kafka.leader(partition).ok_or(ErrorCode::NotLeaderOrFollower)?;
    match epoch {
        -1 => Ok(()),
        older if older < current.0 => Err(ErrorCode::FencedLeaderEpoch),
        newer if newer > current.0 => Err(ErrorCode::UnknownLeaderEpoch),
        _ => Ok(()),
    }
}

/// What may be given of a partition.
struct Room<'a> {
    /// Bytes of it.
    max: usize,
    /// Where nothing is given yet: the first batch is given whatever its size, as far as there is memory, with what is granted for it.
    first: Option<&'a mut Option<Grant>>,
    /// The most bytes that one batch may have.
    largest: usize,
    /// From then on nothing more is read of it, once there is something.
    until: std::time::Instant,
    /// Whether there was more than it had room for, once that was rebuilt.
    is_used: bool,
    /// Bytes that a first batch may have which is rebuilt, and memory of the node's for them.
    large: Option<Box<(usize, Box<dyn ReadGrant>)>>,
    /// The first batch, if it is large and holds memory of the node's.
    held: Option<Box<Bytes>>,
}

impl Room<'_> {
    /// Bytes of which the records of the next batch may be, where so many are given already.
    fn left(&self, given: usize) -> usize {
        let left = self.max.saturating_sub(given);
        if self.takes_any(given) { left.max(UNCOUNTED) } else { left }
    }

    fn takes_any(&self, given: usize) -> bool {
        given == 0 && self.first.is_some()
    }

    /// Makes room for a first batch for which `bytes` are too few.
    fn grow(&mut self, memory: &FrameMemory, bytes: usize) -> Growth {
        if bytes >= self.largest {
            return Growth::TooLarge;
        }
        let wanted = bytes.saturating_mul(2).min(self.largest);
        if let Some(large) = self.large.as_ref().map(|large| large.0) {
            return if bytes < large { Growth::To(large) } else { Growth::NoMemory(wanted) };
        }
        let Some(grant) = self.first.as_deref_mut() else { return Growth::NoMemory(wanted) };
        let is_granted = match grant {
            Some(grant) if grant.bytes() >= wanted => true,
            Some(grant) => grant.resize(wanted),
            none => {
                *none = memory.try_take(wanted);
                none.is_some()
            }
        };
        if is_granted { Growth::To(wanted) } else { Growth::NoMemory(wanted) }
    }

    /// A batch that was rebuilt, holding the memory that there is for the first one.
    fn keep(&mut self, batch: Bytes) -> Bytes {
        let Some(mut large) = self.large.take() else { return batch };
        let grant = large.1.split_off(batch.len());
        let batch = holding(batch, grant);
        self.held = Some(Box::new(batch.clone()));
        batch
    }

    /// Gives back what it has for the first batch: a reader that waits has nothing.
    fn give_back(&mut self) {
        self.large = None;
        give_back(self.first.as_deref_mut());
        self.max = self.max.min(UNCOUNTED);
    }
}

fn give_back(granted: Option<&mut Option<Grant>>) {
    if let Some(granted) = granted {
        *granted = None;
    }
}

/// What becomes of room for a first batch that has too little.
enum Growth {
    /// It may have so many bytes.
    To(usize),
    /// Others have the memory for now that so many bytes take.
    NoMemory(usize),
    /// No memory would do.
    TooLarge,
}

async fn read(
    client: &Client,
    topic: &Topic,
    target: ReadTarget,
    wanted: &Wanted,
    room: &mut Room<'_>,
    committed_only: bool,
) -> Result<PartitionData, ErrorCode> {
    let from = Offset(wanted.fetch_offset);
    let (max_bytes, min_one, until) = (room.max, room.first.is_some(), room.until);
    let mut has_waited = false;
    let mut waits = || {
        has_waited = true;
        give_back(room.first.as_deref_mut());
    };
    let read = ReadRoom { max_bytes, min_one, until, waits: &mut waits };
    let read = client.kafka.broker.read_until(target, from, read).await;
    let fetched = read.map_err(read_error_code)?;
    if has_waited {
        room.give_back();
    }
    let (high_watermark, last_stable, log_start) =
        (fetched.high_watermark, fetched.last_stable, fetched.log_start);
    let stored = fetched.slices.first().map_or(0, Slice::len);
    let mut records = records(client, topic, target, fetched, room, committed_only).await;
    if let Err(Unfit::NoMemory(bytes)) = records {
        let lacks = Lack { stored, bytes };
        records = Box::pin(read_again(client, topic, target, from, room, committed_only, lacks)).await?;
    }
    Ok(PartitionData {
        partition_index: wanted.partition,
        high_watermark: high_watermark.0,
        last_stable_offset: last_stable.0,
        log_start_offset: log_start.0,
        aborted_transactions: committed_only.then(Vec::new),
        records: Some(records.map_err(|unfit| unfit.told(client, topic, wanted, room.largest))?),
        ..Default::default()
    })
}

/// What a first batch lacks that is to be rebuilt.
struct Lack {
    /// Bytes that it is stored in.
    stored: usize,
    /// Bytes that it takes rebuilt, or more.
    bytes: usize,
}

/// Reads a first batch once more, with memory for what it is rebuilt to: for that it waits with nothing in hand.
async fn read_again(
    client: &Client,
    topic: &Topic,
    target: ReadTarget,
    from: Offset,
    room: &mut Room<'_>,
    committed_only: bool,
    mut lacks: Lack,
) -> Result<Result<RecordData, Unfit>, ErrorCode> {
    let broker = &client.kafka.broker;
    loop {
        room.give_back();
        let stored = lacks.stored;
        // Nearly all take about as much as they are stored in.
        let bytes = lacks.bytes.max(stored.saturating_add(stored / 8)).min(room.largest);
        let Some(mut held) = broker.hold_memory(stored.saturating_add(bytes)).await else {
            return Ok(Ok(RecordData::new()));
        };
        let own = held.split_off(stored);
        room.large = Some(Box::new((bytes, held)));
        let (max_bytes, min_one, until) = (room.max, true, room.until);
        let read = ReadRoom { max_bytes, min_one, until, waits: &mut || {} };
        let read = broker.read_held(target, from, read, own).await;
        let fetched = read.map_err(read_error_code)?;
        lacks.stored = fetched.slices.first().map_or(0, Slice::len);
        match records(client, topic, target, fetched, room, committed_only).await {
            Err(Unfit::NoMemory(more)) => lacks.bytes = more,
            given => return Ok(given),
        }
    }
}

/// A batch that is the first of all and cannot be given.
#[derive(Debug, Clone, Copy)]
enum Unfit {
    /// No memory would do for it.
    TooLarge(Offset),
    /// Others have the memory for now that it takes rebuilt: so many bytes, or more.
    NoMemory(usize),
    /// Rebuilding it has panicked, which is logged.
    Failed,
}

impl Unfit {
    /// Counts and logs it. Gives what its client is told.
    fn told(self, client: &Client, topic: &Topic, wanted: &Wanted, largest: usize) -> ErrorCode {
        let Self::TooLarge(Offset(offset)) = self else { return ErrorCode::UnknownServerError };
        client.kafka.metrics.too_large_batch();
        client.complain(format_args!(
            "the batch at offset {offset} of {}-{} takes more than {largest} bytes for a Kafka client, the most that \
             net.frame_memory lets one have: it is refused with {}",
            topic.name,
            wanted.partition,
            ErrorCode::MessageTooLarge
        ));
        ErrorCode::MessageTooLarge
    }
}

/// The batches as a Kafka consumer reads them. What is rebuilt may be far larger than it is stored, and counts as it is given.
///
/// # Errors
/// The first batch that is to be given cannot be.
async fn records(
    client: &Client,
    topic: &Topic,
    target: ReadTarget,
    fetched: Fetched,
    room: &mut Room<'_>,
    committed_only: bool,
) -> Result<RecordData, Unfit> {
    let broker = &client.kafka.broker;
    let end = if committed_only { fetched.last_stable } else { fetched.high_watermark };
    let covered = fetched.slices.first().zip(fetched.slices.last());
    let settled = match covered {
        Some((first, last)) if topic.config.queue().is_some() => {
            broker.settled(target, first.base_offset..last.next_offset)
        }
        _ => Vec::new(),
    };
    let (mut records, mut began, mut shared) = (RecordData::new(), Instant::now(), None);
    for slice in fetched.slices.into_iter().filter(|slice| slice.base_offset < end) {
        if rebuilt::is_needed(&slice, &settled) {
            let settled = shared.get_or_insert_with(|| Arc::from(&settled[..]));
            let batches = Rebuilt::new(broker, &client.workers, &slice, settled);
            room.is_used = !rebuild(&client.memory, batches, room, &mut records, &mut began).await?;
        } else if records.is_empty() && slice.len() > room.max.max(room.largest) {
            return Err(Unfit::TooLarge(slice.base_offset));
        } else if records.is_empty() || records.len() + slice.len() <= room.max {
            if slice.is_held {
                room.held = Some(Box::new(slice.body.clone()));
            }
            [slice.head, slice.body]
                .into_iter()
                .filter(|piece| !piece.is_empty())
                .for_each(|p| records.push(p));
        } else {
            room.is_used = true;
        }
        if room.is_used {
            break;
        }
    }
    Ok(records)
}

/// Gives what there is room for; says whether that is all. What takes longer than a thread is to be held for is done in parts, or elsewhere.
///
/// # Errors
/// The first batch that is to be given cannot be.
async fn rebuild(
    memory: &FrameMemory,
    mut batches: Rebuilt,
    room: &mut Room<'_>,
    records: &mut RecordData,
    began: &mut Instant,
) -> Result<bool, Unfit> {
    let mut most = room.left(records.len());
    while most > 0 {
        // Each may wait for a worker.
        if !records.is_empty() && std::time::Instant::now() >= room.until {
            return Ok(batches.is_done());
        }
        match batches.next(most).await {
            Ok(None) => return Ok(true),
            Ok(Some(batch)) => {
                records.push(room.keep(batch));
                most = room.left(records.len());
            }
            Err(NotGiven::NoRoom) if room.takes_any(records.len()) => match room.grow(memory, most) {
                Growth::To(more) => most = more,
                Growth::NoMemory(bytes) => return Err(Unfit::NoMemory(bytes)),
                Growth::TooLarge => return Err(Unfit::TooLarge(batches.offset().unwrap_or_default())),
            },
            // It is the first of the next fetch.
            Err(NotGiven::Failed) if records.is_empty() => return Err(Unfit::Failed),
            Err(_) => return Ok(false),
        }
        if began.elapsed() >= AT_A_TIME {
            tokio::task::yield_now().await;
            *began = Instant::now();
        }
    }
    // There may be nothing behind it.
    Ok(batches.is_done())
}

fn unread(wanted: &Wanted, error: ErrorCode) -> PartitionData {
    PartitionData {
        partition_index: wanted.partition,
        error_code: error.code(),
        high_watermark: -1,
        current_leader: LeaderIdAndEpoch::default(),
        records: Some(RecordData::new()),
        ..Default::default()
    }
}

/// Where the log of who asks parts from this one, and where this one begins and ends.
fn diverged(
    client: &Client,
    target: ReadTarget,
    wanted: &Wanted,
    diverging_epoch: EpochEndOffset,
) -> Result<PartitionData, ErrorCode> {
    let stats = client.kafka.broker.partition_stats(target).map_err(read_error_code)?;
    Ok(PartitionData {
        diverging_epoch,
        high_watermark: stats.end.0,
        last_stable_offset: stats.end.0,
        log_start_offset: stats.start.0,
        ..unread(wanted, ErrorCode::None)
    })
}

/// Every partition of the plan that is there.
fn partitions(client: &Client, plan: &Plan) -> Vec<ReadTarget> {
    let mut topics = Lookup::new(client);
    let found = plan.wanted.iter().filter_map(|wanted| topics.find(wanted).ok());
    found.map(|(.., target)| target).collect()
}

fn respond(plan: &Plan, answers: Answers) -> FetchResponse {
    let mut responses: Vec<FetchableTopicResponse> = Vec::new();
    let mut last = None;
    for (at, answer) in answers {
        let topic = &plan.wanted[at].topic;
        if last != Some(topic) {
            responses.push(match topic {
                TopicKey::Name(name) => FetchableTopicResponse { topic: name.clone(), ..Default::default() },
                TopicKey::Id(id) => FetchableTopicResponse { topic_id: *id, ..Default::default() },
            });
            last = Some(topic);
        }
        let topic = responses.last_mut().expect("just pushed");
        topic.partitions.push(answer);
    }
    FetchResponse { session_id: plan.session_id(), responses, ..Default::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_reserved_than_the_partitions_can_give() {
        let wanted = |max_bytes| Wanted {
            topic: TopicKey::Id([1; 16]),
            known_as: None,
            partition: 0,
            fetch_offset: 0,
            leader_epoch: -1,
            last_fetched_epoch: -1,
            max_bytes,
        };
        let all = [wanted(1 << 20), wanted(-5), wanted(1 << 20)];
        assert_eq!(most(&all, 50 << 20), 2 << 20);
        assert_eq!(most(&all, 1000), 1000);
        assert_eq!(most(&[wanted(i32::MAX), wanted(i32::MAX)], usize::MAX), 2 * i32::MAX as usize);
        assert_eq!(most(&[], 1000), 0);
    }
}

//! Produce: appends at once, answers when the appends commit.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use parking_lot::Mutex;
use sabir_broker::{Append, AppendAcks, AppendRefusal, AppendTarget, Appended, Appending, Broker, Topic};
use sabir_model::batch::{BatchCheck, BatchRefusal, CheckedBatch, FactsOf, InlineBudget};
use sabir_model::{AppendError, ErrorAbout, FrontendNo, ShardFailure};
use sabir_net::{Checks, FrameMemory, Grant, MemoryPart, NoMemory, UNCOUNTED, Workers};
use tokio::time::Instant;

use super::batches::{self, Refusal};
use super::topics::is_internal;
use super::{Call, Client, Reply, Unanswered, decode, decode_with, patience, weight};
use crate::converter;
use crate::server::map::append_error_code;
use crate::server::requests::{BadRequest, Request};
use crate::wire::messages::produce::{
    BatchIndexAndErrorMessage, PartitionProduceData, PartitionProduceResponse, ProduceRequest,
    ProduceResponse, TopicProduceData, TopicProduceResponse,
};
use crate::wire::{ApiKey, ErrorCode, Reader, Str, WireError};

/// The first version served. Earlier ones are advertised because librdkafka compresses nothing otherwise, and refused
/// because they carry message formats that are gone.
const SERVED_SINCE: i16 = 3;
/// The first version that names topics by id.
const IDS_SINCE: i16 = 13;

/// A produce request under way. What was appended is appended whether it is polled or dropped.
pub(crate) struct Producing {
    stage: Stage,
    /// What was appended, in that order.
    portions: VecDeque<Portion>,
    answer: Answer,
    /// When the client no longer waits.
    until: Option<Instant>,
    /// Memory for the frame, while its batches wait to be appended.
    _memory: Option<Grant>,
    /// Memory for what its batches take beside the frame until they are answered, where that is worth counting.
    _batches: Option<Grant>,
}

/// Frames that are no larger came in a buffer that the I/O thread lends, much of which they would keep while they wait.
const LENT: usize = 256 << 10;

enum Stage {
    /// It names very many partitions: another thread decodes it, and begins with what they carry.
    Beginning(Pin<Box<dyn Future<Output = Result<Box<Producing>, Unanswered>> + Send>>),
    /// The workers look at records. What they are done with is appended.
    Checking { ended: Arc<Mutex<Ended>>, checking: Pin<Box<dyn Future<Output = ()> + Send>> },
    /// A shard has no room for now.
    Crowded { good: Good, room: Pin<Box<dyn Future<Output = ()> + Send>> },
    /// All that is good is appended.
    Appended,
}

impl Producing {
    /// Whether anything was appended, so that the broker is to be flushed.
    pub fn appends(&self) -> bool {
        !self.portions.is_empty()
    }

    /// Whether not all is appended yet: no later request of the connection may be begun.
    pub fn is_held(&self) -> bool {
        !matches!(self.stage, Stage::Appended)
    }

    /// Counts the frame while it is held.
    pub fn hold(&mut self, memory: Option<Grant>) {
        self._memory = memory;
    }

    /// Has what is good appended once the workers are done and there is room.
    ///
    /// # Errors
    /// It could not be decoded, or there was no memory for so many batches in time.
    pub fn go_on(&mut self, client: &Client, cx: &mut Context<'_>) -> Poll<Result<(), Unanswered>> {
        if let Stage::Beginning(beginning) = &mut self.stage {
            let begun = *std::task::ready!(beginning.as_mut().poll(cx))?;
            *self = Self { _memory: self._memory.take(), ..begun };
        }
        if let Stage::Checking { ended, checking } = &mut self.stage {
            let is_late = self.until.is_some_and(|until| until <= Instant::now());
            let is_over = checking.as_mut().poll(cx).is_ready();
            if !is_over && !is_late {
                return Poll::Pending;
            }
            let Ended { portions, refused, left } = std::mem::take(&mut *ended.lock());
            if is_over && !left.as_slice().is_empty() {
                let left = left.as_slice().len();
                client.complain(format_args!(
                    "{left} batches of a request that takes long are not looked at: others wait for memory (net.frame_memory)"
                ));
            }
            self.portions = portions;
            self.answer.refuse(client, refused);
            // Not appended, and never will be.
            self.answer.time_out(left.as_slice());
            self.stage = Stage::Appended;
        }
        while let Stage::Crowded { good, room } = &mut self.stage {
            std::task::ready!(room.as_mut().poll(cx));
            let good = std::mem::take(good);
            self.stage = Stage::Appended;
            self.append(&client.kafka.broker, good);
        }
        self._memory = None;
        Poll::Ready(Ok(()))
    }

    fn append(&mut self, broker: &Broker, mut good: Good) {
        match broker.crowded(&good.appends) {
            None => self.portions.extend(good.append(broker)),
            Some(shard) => {
                let batches = || good.appends.iter().map(Append::bytes).sum::<usize>();
                if batches() < LENT {
                    good.appends.iter_mut().for_each(Append::detach);
                }
                let broker = broker.clone();
                self.stage = Stage::Crowded { good, room: Box::pin(async move { broker.room(shard).await }) };
            }
        }
    }

    /// When it ends at the latest, if it is polled then.
    pub fn until(&self) -> Option<Instant> {
        self.until
    }

    /// Ends, once, with the reply.
    ///
    /// # Errors
    /// There is an error to tell, and the client wants no answer.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Reply, Unanswered>> {
        let is_late = self.until.is_some_and(|until| until <= Instant::now());
        match &mut self.stage {
            Stage::Appended => {}
            // Not appended, and never will be.
            Stage::Crowded { good, .. } if is_late => {
                self.answer.time_out(&good.at);
                self.stage = Stage::Appended;
            }
            Stage::Beginning(_) | Stage::Checking { .. } | Stage::Crowded { .. } => return Poll::Pending,
        }
        while let Some(portion) = self.portions.front_mut() {
            let results = match Pin::new(&mut portion.appending).poll(cx) {
                Poll::Ready(results) => results,
                Poll::Pending if is_late => portion.appending.so_far(),
                Poll::Pending => return Poll::Pending,
            };
            self.answer.fill(&portion.at, results);
            self.portions.pop_front();
        }
        Poll::Ready(self.answer.reply())
    }
}

/// The response in the making.
#[derive(Debug)]
struct Answer {
    call: Call,
    acks: i16,
    response: ProduceResponse,
    /// How many records it names.
    named: usize,
}

/// Where a batch goes, and the places of its topic and partition in the response.
#[derive(Debug)]
struct Place {
    target: AppendTarget,
    at: (usize, usize),
}

/// Batches that were appended together, by their places in the response.
struct Portion {
    at: Vec<(usize, usize)>,
    appending: Appending,
}

/// Batches that are to be appended together.
#[derive(Default)]
struct Good {
    at: Vec<(usize, usize)>,
    appends: Vec<Append>,
}

impl Good {
    fn append(self, broker: &Broker) -> Option<Portion> {
        let Self { at, appends } = self;
        (!appends.is_empty()).then(|| Portion { at, appending: broker.append(appends) })
    }
}

/// Checks that have ended, and the places of the batches whose have not.
#[derive(Default)]
struct Ended {
    portions: VecDeque<Portion>,
    refused: Vec<(Place, Refusal)>,
    left: std::vec::IntoIter<(usize, usize)>,
}

/// What is good, and what is refused.
fn sift(
    checked: impl ExactSizeIterator<Item = (Place, Result<CheckedBatch, Refusal>)>,
) -> (Good, Vec<(Place, Refusal)>) {
    let (count, mut refused) = (checked.len(), Vec::new());
    let mut good = Good { at: Vec::with_capacity(count), appends: Vec::with_capacity(count) };
    for (place, checked) in checked {
        match checked.and_then(|batch| Ok(place.target.append(batch)?)) {
            Ok(append) => {
                good.appends.push(append);
                good.at.push(place.at);
            }
            Err(refusal) => refused.push((place, refusal)),
        }
    }
    (good, refused)
}

impl Answer {
    fn refuse(&mut self, client: &Client, refused: Vec<(Place, Refusal)>) {
        for (Place { target, at: (topic, partition) }, refusal) in refused {
            let response = &mut self.response.responses[topic].partition_responses[partition];
            complain(client, &target.topic().name, response.index, &refusal);
            refuse(response, refusal, &mut self.named);
        }
    }

    fn fill(&mut self, at: &[(usize, usize)], results: Vec<Result<Appended, ErrorAbout<AppendError>>>) {
        for (&(topic, partition), result) in at.iter().zip(results) {
            let place = &mut self.response.responses[topic].partition_responses[partition];
            match result {
                Ok(appended) => {
                    place.base_offset = appended.base_offset.0;
                    place.log_append_time_ms = appended.append_time_ms;
                    place.log_start_offset = appended.log_start.0;
                }
                Err(error) => {
                    let refusal = Refusal::new(append_error_code(error.error), error.to_string());
                    refuse(place, refusal, &mut self.named);
                }
            }
        }
    }

    fn time_out(&mut self, at: &[(usize, usize)]) {
        self.fill(at, vec![Err(ShardFailure::Timeout.into()); at.len()]);
    }

    fn reply(&self) -> Result<Reply, Unanswered> {
        let partitions = self.response.responses.iter().flat_map(|topic| &topic.partition_responses);
        let error = partitions.map(|p| ErrorCode::check(p.error_code)).find_map(Result::err);
        match (self.acks, error) {
            (0, None) => Ok(Reply::Silence),
            (0, Some(error)) => Err(Unanswered::Untold(error)),
            (_, error) => Ok(self.call.reply(&self.response, error.unwrap_or(ErrorCode::None))),
        }
    }
}

/// The most records that a response names as those that batches are refused for: a batch of a few bytes may hold any number.
const MOST_NAMED: usize = 10_000;

/// Answers with why; `named` counts the records that the response names.
fn refuse(place: &mut PartitionProduceResponse, refusal: Refusal, named: &mut usize) {
    let records = refusal.records.into_iter().flatten().take(MOST_NAMED - *named);
    // Clients show the batch's message for a record that has none.
    let record_error = |index| BatchIndexAndErrorMessage { batch_index: index as i32, ..Default::default() };
    place.record_errors = records.map(record_error).collect();
    *named += place.record_errors.len();
    place.error_code = refusal.code.code();
    place.base_offset = -1;
    place.error_message = Some(Str::from(refusal.message));
}

/// What the arrays of a request take that is decoded on the connection's thread, in bytes.
const DECODED_AT_ONCE: usize = 512 << 10;

/// What a partition takes that a request names, beside its batch, until it is answered: decoded, checked, on its way to the disk, and in the
/// answer. A request may name one over and over.
const NAMED_PARTITION: usize = 640;
/// The same of a topic, beside its name.
const NAMED_TOPIC: usize = 256;
/// The most that the arrays of any request take, in bytes.
const MOST_DECODED: usize = 32 << 20;
/// What is not worth counting, a request.
const UNWEIGHED: usize = 4 << 10;

/// What a request takes beside its frame, in bytes.
fn weigh(body: &ProduceRequest) -> usize {
    let one = |topic: &TopicProduceData| {
        NAMED_TOPIC + topic.name.len() + topic.partition_data.len() * NAMED_PARTITION
    };
    body.topic_data.iter().map(one).sum()
}

/// Memory for that, if there is some now.
fn take_for(memory: &FrameMemory, bytes: usize) -> Result<Option<Grant>, NoMemory> {
    if bytes <= UNWEIGHED {
        return Ok(None);
    }
    let little = if bytes <= UNCOUNTED { memory.try_take_little(MemoryPart::All, bytes) } else { None };
    little.or_else(|| memory.try_take_of(MemoryPart::All, bytes)).map(Some).ok_or(NoMemory)
}

/// Checks a request and appends what is good of it.
pub(crate) fn begin(client: &Arc<Client>, request: Request) -> Result<Producing, BadRequest> {
    client.introduce(request.header.client_id.as_ref());
    let reader = Reader::with_limit(&request.body, DECODED_AT_ONCE);
    match decode_with(reader, &request) {
        Ok(body) => match take_for(&client.memory, weigh(&body)) {
            Ok(memory) => begin_with(client, &request, body, memory),
            Err(NoMemory) => Ok(begin_elsewhere(client, request)),
        },
        Err(BadRequest::Body { source: WireError::TooLarge, .. }) => Ok(begin_elsewhere(client, request)),
        Err(bad) => Err(bad),
    }
}

fn begin_elsewhere(client: &Arc<Client>, request: Request) -> Producing {
    let (call, bytes) = (Call::of(&request), request.body.len());
    let (client, workers) = (client.clone(), client.workers.clone());
    let begin = async move {
        let memory = hold_for(&client, &request).await?;
        Ok(Box::new(begin_with(&client, &request, decode(&request)?, memory)?))
    };
    let beginning = async move { workers.handle(bytes, Box::pin(begin)).await };
    let answer = Answer { call, acks: -1, response: ProduceResponse::default(), named: 0 };
    let (stage, portions) = (Stage::Beginning(Box::pin(beginning)), VecDeque::new());
    Producing { stage, portions, answer, until: None, _memory: None, _batches: None }
}

/// Memory for what a request takes beside its frame. What more would take than there is, is not even decoded.
async fn hold_for(client: &Client, request: &Request) -> Result<Option<Grant>, Unanswered> {
    let total = client.memory.total();
    let most = total / NAMED_PARTITION * size_of::<PartitionProduceData>();
    let reader = Reader::with_limit(&request.body, most.clamp(DECODED_AT_ONCE, MOST_DECODED));
    let bytes = match decode_with(reader, request) {
        Ok(body) => weigh(&body),
        Err(BadRequest::Body { source: WireError::TooLarge, .. }) if most < MOST_DECODED => usize::MAX,
        Err(bad) => return Err(bad.into()),
    };
    if bytes > total {
        return Err(Unanswered::NoMemory);
    }
    Ok(weight::hold(&client.memory, bytes, Instant::now()).await?)
}

fn begin_with(
    client: &Client,
    request: &Request,
    body: ProduceRequest,
    batches: Option<Grant>,
) -> Result<Producing, BadRequest> {
    let call = Call::of(request);
    let refused = refusal_of_all(&call, &body);
    let mut beginning = Beginning {
        client,
        version: call.version,
        wall_ms: client.kafka.broker.wall_ms(),
        acks: if body.acks == -1 { AppendAcks::InSync } else { AppendAcks::Leader },
        inline: InlineBudget::default(),
        begun: Vec::new(),
        places: Vec::new(),
        named: 0,
    };
    let topics = body.topic_data.into_iter().enumerate();
    let responses = topics.map(|(at, topic)| beginning.topic(at, topic, refused.as_ref())).collect();
    let Beginning { begun, places, named, .. } = beginning;
    let response = ProduceResponse { responses, ..Default::default() };
    let answer = Answer { call, acks: body.acks, response, named };
    // A producer that wants no answer cannot be told that it takes long.
    let until = (body.acks != 0).then(|| Instant::now() + patience(body.timeout_ms));
    let (stage, portions) = (Stage::Appended, VecDeque::new());
    let mut producing = Producing { stage, portions, answer, until, _memory: None, _batches: batches };
    let broker = &client.kafka.broker;
    if begun.iter().any(|begun| matches!(begun, BatchCheck::Long(_))) {
        let left = places.iter().map(|place| place.at).collect::<Vec<_>>().into_iter();
        let ended = Arc::new(Mutex::new(Ended { left, ..Default::default() }));
        let workers = client.workers.clone();
        let checking = finish(workers, broker.clone(), begun.into(), places.into_iter(), ended.clone());
        producing.stage = Stage::Checking { ended, checking: Box::pin(checking) };
    } else {
        let taken = |begun| match begun {
            BatchCheck::Done(taken) => Ok(taken),
            BatchCheck::Long(_) => Err(BatchRefusal::Failed.into()),
        };
        let checked = places.into_iter().zip(begun).map(|(place, begun)| (place, taken(begun)));
        let (good, refused) = sift(checked);
        producing.answer.refuse(client, refused);
        producing.append(broker, good);
    }
    Ok(producing)
}

/// Has the workers look at what is long, and appends what they are done with as the shards have room: a request may hold far less than
/// its batches come to in another codec. What is left where it is to end early stays among what has not ended.
async fn finish(
    workers: Workers,
    broker: Broker,
    mut begun: Checks,
    mut places: std::vec::IntoIter<Place>,
    ended: Arc<Mutex<Ended>>,
) {
    while !begun.is_empty() && !begun.is_over() {
        let checked = workers.check_next(&mut begun).await;
        let count = checked.len();
        let places: Vec<_> = places.by_ref().take(count).collect();
        let checked = checked.into_iter().map(|checked| checked.map_err(Refusal::from));
        let (good, refused) = sift(places.into_iter().zip(checked));
        while let Some(shard) = broker.crowded(&good.appends) {
            broker.room(shard).await;
        }
        let mut ended = ended.lock();
        ended.portions.extend(good.append(&broker));
        ended.refused.extend(refused);
        ended.left.by_ref().take(count).for_each(drop);
        drop(ended);
        broker.flush();
    }
}

fn complain(client: &Client, topic: &str, partition: i32, refusal: &Refusal) {
    if refusal.malformed {
        client.kafka.metrics.bad_batch();
        client.complain(format_args!("a batch for {topic}-{partition} is refused: {}", refusal.message));
    }
    if refusal.unserved {
        client.refused(ApiKey::Produce, &refusal.message);
    }
}

/// Why nothing of a request is taken.
fn refusal_of_all(call: &Call, body: &ProduceRequest) -> Option<Refusal> {
    if call.version < SERVED_SINCE {
        let message = format!("Produce is served from version {SERVED_SINCE} on");
        return Some(Refusal::new(ErrorCode::UnsupportedVersion, message));
    }
    if body.transactional_id.is_some() {
        return Some(Refusal::transactional());
    }
    if !(-1..=1).contains(&body.acks) {
        return Some(Refusal::new(ErrorCode::InvalidRequiredAcks, "acks is -1, 0 or 1"));
    }
    None
}

struct Beginning<'a> {
    client: &'a Client,
    version: i16,
    wall_ms: i64,
    acks: AppendAcks,
    /// What is left of the bytes that the I/O thread decompresses for this request.
    inline: InlineBudget,
    begun: Vec<BatchCheck>,
    places: Vec<Place>,
    /// Records that the response names so far.
    named: usize,
}

impl Beginning<'_> {
    fn topic(
        &mut self,
        at: usize,
        data: TopicProduceData,
        refused: Option<&Refusal>,
    ) -> TopicProduceResponse {
        let found = refused.cloned().map_or_else(|| self.find(&data), Err);
        let partitions = data.partition_data.into_iter().enumerate();
        let partition_responses = partitions
            .map(|(i, partition)| {
                let mut place = PartitionProduceResponse { index: partition.index, ..Default::default() };
                match found.as_ref().map_err(Refusal::clone).and_then(|topic| self.begin(topic, partition)) {
                    Ok((begun, target)) => {
                        self.begun.push(begun);
                        self.places.push(Place { target, at: (at, i) });
                    }
                    Err(refusal) => {
                        complain(self.client, &data.name, place.index, &refusal);
                        refuse(&mut place, refusal, &mut self.named);
                    }
                }
                place
            })
            .collect();
        // The frame that the name lies in holds the batches, too.
        TopicProduceResponse { name: data.name.detached(), topic_id: data.topic_id, partition_responses }
    }

    fn find(&self, data: &TopicProduceData) -> Result<Arc<Topic>, Refusal> {
        if self.version >= IDS_SINCE {
            let unknown = || Refusal::new(ErrorCode::UnknownTopicId, "no topic has this id");
            return self.client.topic_by_id(data.topic_id).ok_or_else(unknown);
        }
        let unknown = || Refusal::new(ErrorCode::UnknownTopicOrPartition, "no such topic");
        self.client.topic(&data.name).ok_or_else(unknown)
    }

    fn begin(
        &mut self,
        topic: &Arc<Topic>,
        data: PartitionProduceData,
    ) -> Result<(BatchCheck, AppendTarget), Refusal> {
        let target = AppendTarget::new(&self.client.caller, topic, data.index, self.acks, FrontendNo::NONE)?;
        let dedups = topic.config.queue().is_some_and(|queue| queue.dedup_window_ms.is_some());
        let facts = if dedups { converter::facts_with_id } else { converter::facts };
        let target = target.with_facts_of(FactsOf(facts));
        if is_internal(topic) {
            return Err(AppendRefusal::Internal.into());
        }
        let begun = batches::begin(data.records, self.version, &target, self.wall_ms, &mut self.inline)?;
        Ok((begun, target))
    }
}

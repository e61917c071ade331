//! Produce: appends at once, answers when the appends commit.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use sabir_broker::{Append, Appended, Appending, Broker, Topic};
use sabir_model::batch::{BatchCheck, CheckedBatch, InlineBudget};
use sabir_model::{ErrorKind, FrontEndNo};
use sabir_net::{DropReason, Grant, Workers};
use tokio::time::Instant;

use super::batches::{self, Refusal};
use super::topics::is_internal;
use super::transactions::{NO_TRANSACTIONS, WHY_NOT};
use super::{Call, Client, Reply, decode, patience};
use crate::map::error_code;
use crate::requests::{BadRequest, REFUSED_UNANSWERED, Request};
use crate::wire::messages::produce::{
    PartitionProduceData, PartitionProduceResponse, ProduceRequest, ProduceResponse, TopicProduceData,
    TopicProduceResponse,
};
use crate::wire::{ErrorCode, Str};

/// The first version served. Earlier ones are advertised because librdkafka compresses nothing otherwise, and refused
/// because they carry message formats that are gone.
const SERVED_SINCE: i16 = 3;
/// The first version that names topics by id.
const IDS_SINCE: i16 = 13;

/// A produce request under way. What was appended is appended whether it is polled or dropped.
pub(crate) struct Producing {
    stage: Stage,
    answer: Answer,
    /// When the client no longer waits.
    until: Option<Instant>,
    /// Memory for the frame, while its batches wait to be appended.
    _memory: Option<Grant>,
}

/// Frames that are no larger came in a buffer that the I/O thread lends, much of which they would keep while they wait.
const LENT: usize = 256 << 10;

enum Stage {
    /// The workers look at records; nothing is appended before they are done.
    Checking(Checking),
    /// A shard has no room for now.
    Crowded {
        appends: Vec<Append>,
        room: Pin<Box<dyn Future<Output = ()>>>,
    },
    Appending(Appending),
    /// Nothing is waited for.
    Done,
}

impl Stage {
    fn append(broker: &Broker, mut appends: Vec<Append>) -> Self {
        match broker.crowded(&appends) {
            None if appends.is_empty() => Self::Done,
            None => Self::Appending(broker.append(appends)),
            Some(shard) => {
                let broker = broker.clone();
                let batches = || appends.iter().map(|append| append.batch.bytes().len()).sum::<usize>();
                if batches() < LENT {
                    appends.iter_mut().for_each(|append| append.batch.detach());
                }
                Self::Crowded { appends, room: Box::pin(async move { broker.room(shard).await }) }
            }
        }
    }
}

/// Ends with what became of each batch that was begun, in order.
type Checking = Pin<Box<dyn Future<Output = Vec<Result<CheckedBatch, Refusal>>>>>;

impl Producing {
    /// Whether anything was appended, so that the broker is to be flushed.
    pub fn appends(&self) -> bool {
        matches!(self.stage, Stage::Appending(_))
    }

    /// Whether nothing is appended yet: no later request of the connection may be begun.
    pub fn is_held(&self) -> bool {
        matches!(self.stage, Stage::Checking(_) | Stage::Crowded { .. })
    }

    /// Counts the frame while it is held.
    pub fn hold(&mut self, memory: Option<Grant>) {
        self._memory = memory;
    }

    /// Appends once the workers are done and there is room.
    pub fn go_on(&mut self, client: &Client, cx: &mut Context<'_>) -> Poll<()> {
        let broker = &client.kafka.broker;
        if let Stage::Checking(checking) = &mut self.stage {
            let checked = std::task::ready!(checking.as_mut().poll(cx));
            self.stage = Stage::append(broker, self.answer.appends(client, checked));
        }
        while let Stage::Crowded { appends, room } = &mut self.stage {
            std::task::ready!(room.as_mut().poll(cx));
            self.stage = Stage::append(broker, std::mem::take(appends));
        }
        self._memory = None;
        Poll::Ready(())
    }

    /// When it ends at the latest, if it is polled then.
    pub fn until(&self) -> Option<Instant> {
        self.until.filter(|_| matches!(self.stage, Stage::Appending(_) | Stage::Crowded { .. }))
    }

    /// Ends, once, with the reply.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Reply> {
        let is_late = || self.until.is_some_and(|until| until <= Instant::now());
        let results = match &mut self.stage {
            Stage::Done => Vec::new(),
            Stage::Appending(appending) => match Pin::new(&mut *appending).poll(cx) {
                Poll::Ready(results) => results,
                Poll::Pending if is_late() => appending.so_far(),
                Poll::Pending => return Poll::Pending,
            },
            // Not appended, and never will be.
            Stage::Crowded { appends, .. } if is_late() => vec![Err(ErrorKind::Timeout); appends.len()],
            Stage::Checking(_) | Stage::Crowded { .. } => return Poll::Pending,
        };
        self.stage = Stage::Done;
        self.answer.fill(results);
        Poll::Ready(self.answer.reply())
    }
}

/// The response in the making.
#[derive(Debug)]
struct Answer {
    call: Call,
    acks: i16,
    response: ProduceResponse,
    /// For each batch that was begun, and then for each append.
    places: Vec<Place>,
}

/// Where a batch goes, and the places of its topic and partition in the response.
#[derive(Debug)]
struct Place {
    topic: Arc<Topic>,
    at: (usize, usize),
}

impl Answer {
    /// What is good and to be appended; what is refused has its answer.
    fn appends(&mut self, client: &Client, checked: Vec<Result<CheckedBatch, Refusal>>) -> Vec<Append> {
        let mut appends = Vec::with_capacity(checked.len());
        let mut places = Vec::with_capacity(checked.len());
        for (place, checked) in std::mem::take(&mut self.places).into_iter().zip(checked) {
            let response = &mut self.response.responses[place.at.0].partition_responses[place.at.1];
            let append = checked.and_then(|batch| {
                Append::to(&place.topic, response.index, batch, FrontEndNo::NONE)
                    .map_err(|kind| Refusal::new(error_code(kind), kind.to_string()))
            });
            match append {
                Ok(append) => {
                    appends.push(append);
                    places.push(place);
                }
                Err(refusal) => {
                    complain(client, &place.topic.name, response.index, &refusal);
                    refuse(response, refusal);
                }
            }
        }
        self.places = places;
        appends
    }

    fn fill(&mut self, results: Vec<Result<Appended, ErrorKind>>) {
        for (Place { at: (topic, partition), .. }, result) in self.places.drain(..).zip(results) {
            let place = &mut self.response.responses[topic].partition_responses[partition];
            match result {
                Ok(appended) => {
                    place.base_offset = appended.base_offset.0;
                    place.log_append_time_ms = appended.append_time_ms;
                    place.log_start_offset = appended.log_start.0;
                }
                Err(kind) => refuse(place, Refusal::new(error_code(kind), kind.to_string())),
            }
        }
    }

    fn reply(&self) -> Reply {
        let partitions = self.response.responses.iter().flat_map(|topic| &topic.partition_responses);
        let error = partitions.map(|p| ErrorCode::check(p.error_code)).find_map(Result::err);
        match (self.acks, error) {
            (0, None) => Reply::Silence,
            (0, Some(error)) => Reply::Close { error, why: DropReason::Protocol(REFUSED_UNANSWERED) },
            (_, error) => self.call.reply(&self.response, error.unwrap_or(ErrorCode::None)),
        }
    }
}

fn refuse(place: &mut PartitionProduceResponse, refusal: Refusal) {
    place.error_code = refusal.code.code();
    place.base_offset = -1;
    place.error_message = Some(Str::from(refusal.message));
}

/// Checks a request and appends what is good of it.
pub(crate) fn begin(client: &Client, request: Request) -> Result<Producing, BadRequest> {
    client.introduce(request.header.client_id.as_ref());
    let call = Call::of(&request);
    let body: ProduceRequest = decode(&request)?;
    let refused = refusal_of_all(&call, &body);
    let mut beginning = Beginning {
        client,
        version: call.version,
        wall_ms: client.kafka.broker.wall_ms(),
        // One replica has everything, so what asks for more of them cannot be had.
        needs_in_sync: body.acks == -1,
        inline: InlineBudget::default(),
        begun: Vec::new(),
        places: Vec::new(),
    };
    let topics = body.topic_data.into_iter().enumerate();
    let responses = topics.map(|(at, topic)| beginning.topic(at, topic, refused.as_ref())).collect();
    let Beginning { begun, places, .. } = beginning;
    let response = ProduceResponse { responses, ..Default::default() };
    let mut answer = Answer { call, acks: body.acks, response, places };
    let stage = if begun.iter().any(|begun| matches!(begun, BatchCheck::Long(_))) {
        Stage::Checking(Box::pin(finish(client.kafka.workers.clone(), begun)))
    } else {
        let taken = begun.into_iter().filter_map(|begun| match begun {
            BatchCheck::Done(taken) => Some(Ok(taken)),
            BatchCheck::Long(_) => None,
        });
        Stage::append(&client.kafka.broker, answer.appends(client, taken.collect()))
    };
    // Without an answer there is nobody to be told that it takes long.
    let until = (body.acks != 0).then(|| Instant::now() + patience(body.timeout_ms));
    Ok(Producing { stage, answer, until, _memory: None })
}

/// Has the workers look at what is long, one batch after another: a request of many has no more than one of them at a time.
async fn finish(workers: Workers, begun: Vec<BatchCheck>) -> Vec<Result<CheckedBatch, Refusal>> {
    let mut checked = Vec::with_capacity(begun.len());
    for begun in begun {
        checked.push(match begun {
            BatchCheck::Done(taken) => Ok(taken),
            BatchCheck::Long(long) => workers.check(long).await.map_err(Refusal::from),
        });
    }
    checked
}

fn complain(client: &Client, topic: &str, partition: i32, refusal: &Refusal) {
    if refusal.malformed {
        client.kafka.metrics.bad_batch();
        client.complain(format_args!("a batch for {topic}-{partition} is refused: {}", refusal.message));
    }
}

/// Why nothing of a request is taken.
fn refusal_of_all(call: &Call, body: &ProduceRequest) -> Option<Refusal> {
    if call.version < SERVED_SINCE {
        let message = format!("Produce is served from version {SERVED_SINCE} on");
        return Some(Refusal::new(ErrorCode::UnsupportedVersion, message));
    }
    if body.transactional_id.is_some() {
        return Some(Refusal::new(NO_TRANSACTIONS, WHY_NOT));
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
    needs_in_sync: bool,
    /// What is left of the bytes that the I/O thread decompresses for this request.
    inline: InlineBudget,
    begun: Vec<BatchCheck>,
    places: Vec<Place>,
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
                let begun = found.clone().and_then(|topic| Ok((self.begin(&topic, partition)?, topic)));
                match begun {
                    Ok((begun, topic)) => {
                        self.begun.push(begun);
                        self.places.push(Place { topic, at: (at, i) });
                    }
                    Err(refusal) => {
                        complain(self.client, &data.name, place.index, &refusal);
                        refuse(&mut place, refusal);
                    }
                }
                place
            })
            .collect();
        // The frame that the name lies in holds the batches, too.
        TopicProduceResponse { name: data.name.detached(), topic_id: data.topic_id, partition_responses }
    }

    fn find(&self, data: &TopicProduceData) -> Result<Arc<Topic>, Refusal> {
        let kafka = &self.client.kafka;
        if self.version >= IDS_SINCE {
            let unknown = || Refusal::new(ErrorCode::UnknownTopicId, "no topic has this id");
            return kafka.topic_by_id(data.topic_id).ok_or_else(unknown);
        }
        let unknown = || Refusal::new(ErrorCode::UnknownTopicOrPartition, "no such topic");
        kafka.topic(&data.name).ok_or_else(unknown)
    }

    fn begin(&mut self, topic: &Arc<Topic>, data: PartitionProduceData) -> Result<BatchCheck, Refusal> {
        if topic.partition(data.index).is_none() {
            return Err(Refusal::new(ErrorCode::UnknownTopicOrPartition, "no such partition"));
        }
        if is_internal(topic) {
            return Err(Refusal::new(ErrorCode::InvalidTopic, "no client writes to an internal topic"));
        }
        if self.needs_in_sync && topic.config.min_insync > 1 {
            let message = format!("1 replica is in sync, the topic wants {}", topic.config.min_insync);
            return Err(Refusal::new(ErrorCode::NotEnoughReplicas, message));
        }
        batches::begin(data.records, self.version, topic, self.wall_ms, &mut self.inline)
    }
}

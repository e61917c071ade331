//! Produce: appends at once, answers when the appends commit.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use sabir_broker::{Append, Appended, Appending, Topic};
use sabir_model::{ErrorKind, FrontEndNo};
use tokio::time::Instant;

use super::batches::{self, Refusal};
use super::{Call, Client, Reply, decode, patience};
use crate::map::error_code;
use crate::metrics::Dropped;
use crate::session::{Protest, Request};
use crate::wire::messages::produce::{
    PartitionProduceData, PartitionProduceResponse, ProduceRequest, ProduceResponse, TopicProduceData,
    TopicProduceResponse,
};
use crate::wire::{ErrorCode, Str};

/// What everything transactional is answered with until transactions are built.
pub(super) const NO_TRANSACTIONS: ErrorCode = ErrorCode::UnsupportedVersion;
/// The first version served. Earlier ones are advertised because librdkafka compresses nothing otherwise, and refused
/// because they carry message formats that are gone.
const SERVED_SINCE: i16 = 3;
/// The first version that names topics by id.
const IDS_SINCE: i16 = 13;

/// A produce request under way. Its batches are appended whether it is polled or dropped.
#[derive(Debug)]
pub(crate) struct Producing {
    appending: Option<Appending>,
    answer: Answer,
    /// When the client no longer waits.
    until: Option<Instant>,
}

impl Producing {
    /// Whether anything was appended, so that the broker is to be flushed.
    pub fn appends(&self) -> bool {
        self.appending.is_some()
    }

    /// When it ends at the latest, if it is polled then.
    pub fn until(&self) -> Option<Instant> {
        self.until.filter(|_| self.appending.is_some())
    }

    /// Ends, once, with the reply.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Reply> {
        if let Some(appending) = &mut self.appending {
            let results = match Pin::new(&mut *appending).poll(cx) {
                Poll::Ready(results) => results,
                Poll::Pending if self.until.is_some_and(|until| until <= Instant::now()) => {
                    appending.so_far()
                }
                Poll::Pending => return Poll::Pending,
            };
            self.appending = None;
            self.answer.fill(results);
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
    /// For each append: its topic's and partition's places in the response.
    places: Vec<(usize, usize)>,
}

impl Answer {
    fn fill(&mut self, results: Vec<Result<Appended, ErrorKind>>) {
        for ((topic, partition), result) in self.places.drain(..).zip(results) {
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
            (0, Some(error)) => Reply::Close { error, why: Dropped::RefusedUnanswered },
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
pub(crate) fn begin(client: &Client, request: Request) -> Result<Producing, Protest> {
    client.introduce(request.header.client_id.as_ref());
    let call = Call::of(&request);
    let body: ProduceRequest = decode(&request)?;
    let refused = refusal_of_all(&call, &body);
    let mut beginning = Beginning {
        client,
        version: call.version,
        now_ms: client.kafka.broker.now_ms(),
        // One replica has everything, so what asks for more of them cannot be had.
        needs_in_sync: body.acks == -1,
        appends: Vec::new(),
        places: Vec::new(),
    };
    let topics = body.topic_data.into_iter().enumerate();
    let responses = topics.map(|(at, topic)| beginning.topic(at, topic, refused.as_ref())).collect();
    let Beginning { appends, places, .. } = beginning;
    Ok(Producing {
        // Without an answer there is nobody to be told that it takes long.
        until: (body.acks != 0).then(|| Instant::now() + patience(body.timeout_ms)),
        appending: (!appends.is_empty()).then(|| client.kafka.broker.append(appends)),
        answer: Answer {
            call,
            acks: body.acks,
            response: ProduceResponse { responses, ..Default::default() },
            places,
        },
    })
}

/// Why nothing of a request is taken.
fn refusal_of_all(call: &Call, body: &ProduceRequest) -> Option<Refusal> {
    if call.version < SERVED_SINCE {
        let message = format!("Produce is served from version {SERVED_SINCE} on");
        return Some(Refusal::new(ErrorCode::UnsupportedVersion, message));
    }
    if body.transactional_id.is_some() {
        return Some(Refusal::new(NO_TRANSACTIONS, "transactions are not served by this broker"));
    }
    if !(-1..=1).contains(&body.acks) {
        return Some(Refusal::new(ErrorCode::InvalidRequiredAcks, "acks is -1, 0 or 1"));
    }
    None
}

struct Beginning<'a> {
    client: &'a Client,
    version: i16,
    now_ms: i64,
    needs_in_sync: bool,
    appends: Vec<Append>,
    places: Vec<(usize, usize)>,
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
                let taken = found.clone().and_then(|topic| self.take(&topic, partition));
                match taken {
                    Ok(append) => {
                        self.appends.push(append);
                        self.places.push((at, i));
                    }
                    Err(refusal) => {
                        self.complain(&data.name, place.index, &refusal);
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

    fn take(&self, topic: &Topic, data: PartitionProduceData) -> Result<Append, Refusal> {
        if topic.partition(data.index).is_none() {
            return Err(Refusal::new(ErrorCode::UnknownTopicOrPartition, "no such partition"));
        }
        if self.needs_in_sync && topic.config.min_insync > 1 {
            let message = format!("1 replica is in sync, the topic wants {}", topic.config.min_insync);
            return Err(Refusal::new(ErrorCode::NotEnoughReplicas, message));
        }
        let (batch, header) = batches::take(data.records, self.version, &topic.config, self.now_ms)?;
        Append::to(topic, data.index, batch, header, FrontEndNo::NONE)
            .map_err(|kind| Refusal::new(error_code(kind), kind.to_string()))
    }

    fn complain(&self, topic: &str, partition: i32, refusal: &Refusal) {
        if refusal.malformed {
            self.client.kafka.metrics.bad_batch();
            self.client
                .complain(format_args!("a batch for {topic}-{partition} is refused: {}", refusal.message));
        }
    }
}

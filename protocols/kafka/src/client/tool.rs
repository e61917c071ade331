//! This client in the form in which the command line uses every protocol's.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use sabir_frontend::client::{
    Client as Tool, ClientError, ClientOption, ClusterInfo, Connector, Endpoint, Failure, GroupAdmin,
    Incoming, LoadPlan, LoadProgress, LoadReport, LocalFuture, Outgoing, Position, PublishOptions, Receipt,
    Settling, Start, TopicAdmin,
};

use super::RETRY_EVERY;
use super::consumer::place;
use super::groups::Committer;
use super::options::{self, Publishing};
use super::{
    Acks, ConnectOptions, Consumer, ConsumerOptions, Delivery, Error, KafkaClient, OffsetAt, Producer,
    ProducerOptions, Record, TopicHandle, bench,
};
use crate::wire::ErrorCode;

/// How long a topic that the broker makes by itself is waited for.
const APPEARANCE: Duration = Duration::from_secs(2);
/// How much sooner than the caller this client gives up, at most.
const SOONER: Duration = Duration::from_millis(200);

/// Makes clients of any broker that speaks the protocol.
pub(crate) static CONNECTOR: KafkaConnector = KafkaConnector;

/// See [`CONNECTOR`].
pub(crate) struct KafkaConnector;

impl Connector for KafkaConnector {
    fn default_port(&self) -> Option<u16> {
        Some(9092)
    }

    fn publish_options(&self) -> &'static [ClientOption] {
        options::PUBLISH
    }

    fn load_options(&self) -> &'static [ClientOption] {
        options::LOAD
    }

    fn connect(&self, to: Endpoint, within: Duration) -> LocalFuture<'static, Box<dyn Tool>> {
        Box::pin(async move {
            let options = ConnectOptions { dialer: to.dialer, ..in_time_of(within) };
            let client = KafkaClient::connect(&to.address, options).await.map_err(|e| unreachable(&e))?;
            Ok(Box::new(KafkaTool { client, sending: None, reading: None }) as Box<dyn Tool>)
        })
    }

    fn bench(
        &self,
        to: Endpoint,
        plan: LoadPlan,
        progress: &'static LoadProgress,
    ) -> LocalFuture<'static, LoadReport> {
        Box::pin(async move { bench::run(to, &plan, progress).await.map_err(failed) })
    }
}

/// A little less than a caller waits, so that it is said what did not come, or why.
fn sooner(within: Duration) -> Duration {
    within - (within / 10).min(SOONER)
}

fn in_time_of(within: Duration) -> ConnectOptions {
    let limit = sooner(within);
    ConnectOptions { connect_timeout: limit, request_timeout: limit, ..ConnectOptions::default() }
}

/// Whatever keeps a first connection from being made: no server is there that speaks the protocol, or none that answers in time.
fn unreachable(error: &Error) -> ClientError {
    match error {
        Error::Timeout { .. } => failed(error.clone()),
        _ => ClientError::new(Failure::Connect, error.to_string()),
    }
}

const ADVERTISED: &str = "That address must mean the broker from here too. It is set at the broker: kafka.advertise of Sabir, \
                          advertised.listeners of Kafka.";

pub(super) fn failed(error: Error) -> ClientError {
    let failure = match &error {
        Error::Advertised { reason, .. } if matches!(**reason, Error::Timeout { .. }) => Failure::Timeout,
        Error::Connect { .. } | Error::Advertised { .. } => Failure::Connect,
        Error::Closed { .. } | Error::Wire { .. } | Error::Records { .. } => Failure::Broken,
        Error::Timeout { .. } => Failure::Timeout,
        Error::Unsupported { .. } => Failure::Unsupported,
        Error::Usage(_) => Failure::Refused,
        Error::Broker { code, .. } => match code {
            ErrorCode::UnknownTopicOrPartition
            | ErrorCode::UnknownTopicId
            | ErrorCode::OffsetOutOfRange
            | ErrorCode::GroupIdNotFound => Failure::NotFound,
            ErrorCode::TopicAlreadyExists => Failure::Exists,
            ErrorCode::RequestTimedOut => Failure::Timeout,
            _ => Failure::Refused,
        },
    };
    let failed = ClientError::new(failure, error.to_string());
    match error {
        Error::Advertised { .. } => failed.advise(ADVERTISED),
        _ => failed,
    }
}

/// A read that failed, with the place that it failed at where the broker's answer was about one.
fn unread(topic: &str, positions: &[Position], error: Error) -> ClientError {
    let about = |p: &&Position| match &error {
        Error::Broker { message, .. } => *message == place(topic, p.partition, p.next),
        _ => false,
    };
    let at = positions.iter().find(about).map(|p| (p.partition, p.next));
    ClientError { at, ..failed(error) }
}

pub(super) struct KafkaTool {
    pub(super) client: KafkaClient,
    /// The producer of the last call, for the next one with the same options.
    sending: Option<Sending>,
    /// The consumer of the last call: its next fetch is under way already.
    reading: Option<Consumer>,
}

struct Sending {
    options: PublishOptions,
    producer: Producer,
    outcomes: Outcomes,
}

/// What became of each message of a call, by its number in it.
type Outcomes = Arc<Mutex<Vec<Option<Result<Receipt, Error>>>>>;

impl Tool for KafkaTool {
    fn cluster(&mut self) -> LocalFuture<'_, ClusterInfo> {
        Box::pin(async {
            let metadata = self.client.metadata(Some(&[])).await.map_err(failed)?;
            let nodes = super::nodes(&metadata).collect();
            Ok(ClusterInfo { id: metadata.cluster_id.map(|id| id.to_string()), nodes })
        })
    }

    fn publish<'a>(
        &'a mut self,
        topic: &'a str,
        messages: Vec<Outgoing>,
        options: &'a PublishOptions,
    ) -> LocalFuture<'a, Vec<Receipt>> {
        Box::pin(async move {
            // A new topic has a partition 0; whether it would have another is not known before it is made, and stays.
            let highest = messages.iter().filter_map(|m| m.partition).max();
            if highest.is_some_and(|p| p > 0) {
                self.client.topic(topic, false).await.map_err(failed)?;
            }
            self.appears(topic).await.map_err(failed)?;
            let sending = self.sending(options).await.map_err(failed)?;
            sending.send(topic, &messages).await
        })
    }

    fn positions<'a>(
        &'a mut self,
        topic: &'a str,
        partition: Option<i32>,
        start: Start,
    ) -> LocalFuture<'a, Vec<Position>> {
        Box::pin(async move {
            let count = self.client.topic(topic, false).await.map_err(failed)?.leaders.len() as i32;
            let partitions = match partition {
                Some(one) if one >= count => return Err(no_partition(topic, one, count as usize)),
                Some(one) => vec![one],
                None => (0..count).collect(),
            };
            let ends = self.ends(topic, &partitions).await?;
            let timed = self.timed(topic, &partitions, start).await?;
            let mut positions = Vec::with_capacity(partitions.len());
            for (i, (&partition, (first, end))) in partitions.iter().zip(ends).enumerate() {
                let next = match start {
                    Start::Earliest => first,
                    Start::Latest => end,
                    Start::Last(count) => (end - i64::from(count)).max(first),
                    // Nothing is that young: what comes will be.
                    Start::Time(_) => {
                        if timed[i] < 0 {
                            end
                        } else {
                            timed[i]
                        }
                    }
                    Start::Offset(offset) => offset,
                };
                positions.push(Position { partition, first, next, end });
            }
            Ok(positions)
        })
    }

    fn read<'a>(
        &'a mut self,
        topic: &'a str,
        positions: &'a mut [Position],
        wait: Duration,
    ) -> LocalFuture<'a, Vec<Incoming>> {
        Box::pin(async move {
            let consumer = self.reading(topic, positions).await.map_err(failed)?;
            let fetched = consumer.poll(wait).await.map_err(|error| unread(topic, positions, error))?;
            let mut got = Vec::new();
            for part in fetched {
                part.for_each(|record| got.push(incoming(part.partition, record))).map_err(failed)?;
                if let Some(position) = positions.iter_mut().find(|p| p.partition == part.partition) {
                    position.next = part.next;
                    position.end = part.high_watermark;
                }
            }
            Ok(got)
        })
    }

    fn settles(&self, what: Settling<'_>) -> bool {
        matches!(what, Settling::Group { .. })
    }

    fn settle<'a>(&'a mut self, topic: &'a str, what: Settling<'a>) -> LocalFuture<'a, ()> {
        Box::pin(async move {
            let Settling::Group { group, before } = what else {
                return Err(ClientError::new(
                    Failure::Unsupported,
                    "a topic's messages are settled for a group",
                ));
            };
            let offsets: Vec<_> = before.iter().map(|(p, next)| (topic, *p, *next, None)).collect();
            self.client.commit_offsets(group, &Committer::default(), &offsets).await.map_err(failed)
        })
    }

    fn stop_reading(&mut self) -> LocalFuture<'_, ()> {
        Box::pin(async { Ok(()) })
    }

    fn topics(&mut self) -> Option<&mut dyn TopicAdmin> {
        Some(self)
    }

    fn groups(&mut self) -> Option<&mut dyn GroupAdmin> {
        Some(self)
    }
}

impl KafkaTool {
    /// Waits for a topic that asking for it may create, though not for long: most brokers have it at the second question.
    async fn appears(&self, topic: &str) -> Result<(), Error> {
        let asked = Instant::now();
        loop {
            match self.client.topic_now(topic, true).await {
                Err(error)
                    if error.code() == Some(ErrorCode::UnknownTopicOrPartition)
                        && asked.elapsed() < APPEARANCE =>
                {
                    tokio::time::sleep(RETRY_EVERY).await;
                }
                Err(error) if error.code() == Some(ErrorCode::UnknownTopicOrPartition) => return Err(error),
                // Whatever else is wrong with it may pass, or is met again by the producer.
                _ => return Ok(()),
            }
        }
    }

    /// First offset and end of partitions.
    pub(super) async fn ends(&self, topic: &str, partitions: &[i32]) -> Result<Vec<(i64, i64)>, ClientError> {
        let both = |p: &i32| [(*p, OffsetAt::Earliest), (*p, OffsetAt::Latest)];
        let wanted: Vec<_> = partitions.iter().flat_map(both).collect();
        let found = self.client.list_offsets(topic, &wanted).await.map_err(failed)?;
        Ok(found.chunks(2).map(|pair| (pair[0].offset, pair[1].offset)).collect())
    }

    /// The first offset that is not older, for each partition; -1 where there is none. Empty unless a time is asked for.
    async fn timed(&self, topic: &str, partitions: &[i32], start: Start) -> Result<Vec<i64>, ClientError> {
        let Start::Time(ms) = start else { return Ok(Vec::new()) };
        let wanted: Vec<_> = partitions.iter().map(|p| (*p, OffsetAt::Time(ms))).collect();
        let found = self.client.list_offsets(topic, &wanted).await.map_err(failed)?;
        Ok(found.iter().map(|f| f.offset).collect())
    }

    async fn sending(&mut self, options: &PublishOptions) -> Result<&Sending, Error> {
        let fitting = self.sending.take().filter(|sending| sending.options == *options);
        let sending = match fitting {
            Some(sending) => sending,
            None => Sending::start(&self.client, options).await?,
        };
        Ok(self.sending.insert(sending))
    }

    async fn reading(&mut self, topic: &str, positions: &[Position]) -> Result<&mut Consumer, Error> {
        let fits = |consumer: &Consumer| {
            let at = positions.iter().map(|p| (topic, p.partition, p.next));
            consumer.positions().eq(at)
        };
        let consumer = match self.reading.take().filter(fits) {
            Some(consumer) => consumer,
            None => {
                let from: Vec<_> = positions.iter().map(|p| (topic, p.partition, p.next)).collect();
                Consumer::assign(&self.client, &from, ConsumerOptions::default()).await?
            }
        };
        Ok(self.reading.insert(consumer))
    }
}

impl Sending {
    async fn start(client: &KafkaClient, options: &PublishOptions) -> Result<Self, Error> {
        let Publishing { acks, compression } = Publishing::of(&options.options)?;
        let outcomes = Outcomes::default();
        let noted = outcomes.clone();
        let on_delivery = Box::new(move |delivery: &Delivery<'_>| note(&mut noted.lock(), delivery));
        let defaults = ProducerOptions::default();
        let producer_options = ProducerOptions {
            acks,
            compression,
            // A request that is repeated after a broken connection must not publish twice.
            idempotent: acks == Acks::All,
            delivery_timeout: sooner(options.timeout),
            request_timeout: options.timeout.max(defaults.request_timeout),
            ..defaults
        };
        let producer = Producer::start(client, producer_options, Some(on_delivery)).await?;
        Ok(Self { options: options.clone(), producer, outcomes })
    }

    async fn send(&self, topic: &str, messages: &[Outgoing]) -> Result<Vec<Receipt>, ClientError> {
        let handle = self.producer.topic(topic).await.map_err(failed)?;
        let partitions = self.producer.partitions(handle);
        // Before the first is sent: a call publishes all of its messages, or says which part of the request is wrong.
        if let Some(wrong) = messages.iter().filter_map(|m| m.partition).find(|p| *p as usize >= partitions) {
            return Err(no_partition(topic, wrong, partitions));
        }
        *self.outcomes.lock() = vec![None; messages.len()];
        let mut pushed = 0;
        while pushed < messages.len() {
            pushed = self.push(handle, messages, pushed);
            if pushed < messages.len() {
                self.producer.room().await;
            }
        }
        self.producer.flush().await;
        let outcomes = std::mem::take(&mut *self.outcomes.lock());
        let lost = || Err(Error::Usage("a message was neither acknowledged nor refused".into()));
        outcomes.into_iter().map(|outcome| outcome.unwrap_or_else(lost).map_err(failed)).collect()
    }

    /// Pushes messages from a number on, until the buffer is full, and says with which to go on. All at once: a batch is sent when
    /// the feed is let go, and messages without a key share batches then.
    fn push(&self, handle: TopicHandle, messages: &[Outgoing], first: usize) -> usize {
        let mut feed = self.producer.feed();
        for (number, message) in messages.iter().enumerate().skip(first) {
            let asked = message.partition.map(|p| p as usize);
            let headers: Vec<_> =
                message.headers.iter().map(|(name, value)| (name.as_bytes(), value.as_deref())).collect();
            let record = Record {
                key: message.key.as_deref(),
                value: message.value.as_deref(),
                headers: &headers,
                timestamp: None,
            };
            let partition = asked.unwrap_or_else(|| feed.choose(handle, record.key));
            if feed.push(handle, partition, &record, number as u64).is_err() {
                return number;
            }
        }
        messages.len()
    }
}

fn note(outcomes: &mut [Option<Result<Receipt, Error>>], delivery: &Delivery<'_>) {
    for (i, stamp) in delivery.stamps.iter().enumerate() {
        let Some(outcome) = outcomes.get_mut(*stamp as usize) else { continue };
        let receipt = |first: i64| {
            let offset = (first >= 0).then_some(first + i as i64);
            Receipt { partition: delivery.partition, offset }
        };
        *outcome = Some(delivery.result.as_ref().map(|first| receipt(*first)).map_err(|e| (*e).clone()));
    }
}

fn no_partition(topic: &str, wrong: i32, partitions: usize) -> ClientError {
    let message = format!("{topic} has no partition {wrong}; it has 0 to {}", partitions.saturating_sub(1));
    ClientError::new(Failure::NotFound, message)
}

fn incoming(partition: i32, record: &sabir_model::batch::RecordView<'_>) -> Incoming {
    let copy = |bytes: &[u8]| bytes::Bytes::copy_from_slice(bytes);
    Incoming {
        partition,
        offset: record.offset.0,
        // -1 says that there is none.
        timestamp_ms: Some(record.timestamp).filter(|ms| *ms != -1),
        key: record.key.map(copy),
        value: record.value.map(copy),
        headers: record
            .headers
            .map(|h| (String::from_utf8_lossy(h.key).into_owned(), h.value.map(copy)))
            .collect(),
    }
}

//! Sending records: batched by partition, pipelined, retried, optionally numbered so that none is written twice.
//!
//! Nothing here runs by itself but one small task for what time and broken connections ask for. A full batch is sent by the caller
//! that filled it, and an answer makes room for the next request where it is read.

mod settle;
mod state;
mod upkeep;

use std::fmt;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use parking_lot::{Mutex, MutexGuard};
use sabir_model::ProducerId;
use sabir_model::batch::Compression;
use tokio::sync::{Notify, oneshot};
use tokio::task::AbortHandle;

use self::state::{State, TopicState, Waiter};
use super::Acks;
use super::batch::Record;
use super::partitioner::partition_of_key;
use super::{Error, KafkaClient};
use crate::wire::messages::init_producer_id::{InitProducerIdRequest, InitProducerIdResponse};
use crate::wire::{ApiKey, Str};

/// How records are sent.
#[derive(Debug, Clone)]
pub struct ProducerOptions {
    /// What an acknowledgement means.
    pub acks: Acks,
    /// How batches are compressed.
    pub compression: Compression,
    /// A batch is closed when it has this many bytes (before compression); a larger record has one to itself.
    pub batch_bytes: usize,
    /// How long a record may wait for others to share its batch.
    pub linger: Duration,
    /// A request takes no further batch once it has this many bytes.
    pub request_bytes: usize,
    /// Requests without an answer, per broker; at most 5 count if `idempotent`.
    pub in_flight: usize,
    /// Bytes of records that wait or are under way.
    pub buffer_bytes: usize,
    /// Number the batches, so that the broker recognises a repeated one. Asks for [`Acks::All`].
    pub idempotent: bool,
    /// How long the broker may take for a request before its connection counts as broken.
    pub request_timeout: Duration,
    /// How long a record is tried for.
    pub delivery_timeout: Duration,
}

impl Default for ProducerOptions {
    fn default() -> Self {
        Self {
            acks: Acks::All,
            compression: Compression::None,
            batch_bytes: 64 << 10,
            linger: Duration::ZERO,
            request_bytes: 1 << 20,
            in_flight: 5,
            buffer_bytes: 32 << 20,
            idempotent: false,
            request_timeout: Duration::from_secs(30),
            delivery_timeout: Duration::from_secs(120),
        }
    }
}

/// What became of a batch.
#[derive(Debug)]
pub struct Delivery<'a> {
    /// The topic.
    pub topic: &'a Str,
    /// The partition.
    pub partition: i32,
    /// How many records it has.
    pub records: u32,
    /// Its bytes as sent.
    pub bytes: usize,
    /// The first record's offset (-1 if no acknowledgement was asked for, or the broker had the batch already), or why it
    /// failed for good.
    pub result: Result<i64, &'a Error>,
    /// What each record was pushed with.
    pub stamps: &'a [u64],
}

/// Called with every batch's fate, on the task that read it; must be quick and not use the producer.
pub type OnDelivery = Box<dyn FnMut(&Delivery<'_>) + Send>;

/// A topic that a producer sends to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TopicHandle(usize);

/// The buffer is full: wait for [`Producer::room`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full;

/// Sends records. Dropping it drops what was not sent: [`flush`](Self::flush) first.
pub struct Producer {
    shared: Arc<Shared>,
    client: KafkaClient,
    upkeep: AbortHandle,
}

impl fmt::Debug for Producer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Producer").finish_non_exhaustive()
    }
}

pub(in crate::client) struct Shared {
    state: Mutex<State>,
    /// Records were settled.
    settled: Notify,
    /// There is something for the upkeep task.
    work: Notify,
}

impl Producer {
    /// A producer over connections of its own.
    ///
    /// # Errors
    /// An idempotent one gets its number from the broker, which may fail.
    pub async fn start(
        client: &KafkaClient,
        options: ProducerOptions,
        on_delivery: Option<OnDelivery>,
    ) -> Result<Self, Error> {
        let identity = if options.idempotent { Some(identity(client).await?) } else { None };
        let shared = Arc::new_cyclic(|weak| Shared {
            state: Mutex::new(State::new(options, identity, on_delivery, weak.clone())),
            settled: Notify::new(),
            work: Notify::new(),
        });
        let upkeep = tokio::spawn(upkeep::run(shared.clone(), client.clone())).abort_handle();
        Ok(Self { shared, client: client.clone(), upkeep })
    }

    /// Makes a topic known, creating it if the broker does so by itself.
    ///
    /// # Errors
    /// The topic does not exist, or its leaders cannot be reached.
    pub async fn topic(&self, name: &str) -> Result<TopicHandle, Error> {
        if let Some(known) = self.shared.state.lock().topics.iter().position(|t| t.name == *name) {
            return Ok(TopicHandle(known));
        }
        let topic = self.client.topic(name, true).await?;
        let handle = {
            let mut state = self.shared.state.lock();
            state.topics.push(TopicState::new(&topic, any_number()));
            state.place_partitions(&topic);
            TopicHandle(state.topics.len() - 1)
        };
        upkeep::open_missing(&self.shared, &self.client).await?;
        Ok(handle)
    }

    /// How many partitions the topic has.
    pub fn partitions(&self, topic: TopicHandle) -> usize {
        self.shared.state.lock().topics[topic.0].partitions.len()
    }

    /// Takes the producer's lock to push records; what is due is sent when it is dropped.
    pub fn feed(&self) -> Feed<'_> {
        let now = Instant::now();
        Feed { state: self.shared.state.lock(), shared: &self.shared, now, now_ms: now_ms() }
    }

    /// Waits until at least a quarter of the buffer is free.
    pub async fn room(&self) {
        self.until(|state| state.buffered <= state.options.buffer_bytes / 4 * 3).await;
    }

    /// Sends all that waits, without lingering, and waits until it is settled.
    pub async fn flush(&self) {
        let _flushing = Flushing::begin(&self.shared);
        self.shared.work.notify_one();
        self.until(|state| state.buffered == 0).await;
    }

    async fn until(&self, reached: impl Fn(&State) -> bool) {
        loop {
            let settled = self.shared.settled.notified();
            tokio::pin!(settled);
            // Registered before the check, so that what is settled in between is not missed.
            settled.as_mut().enable();
            if reached(&self.shared.state.lock()) {
                return;
            }
            settled.await;
        }
    }

    /// Sends one record and waits for its acknowledgement: the partition it went to and its offset (-1 without one).
    ///
    /// # Errors
    /// Why it was given up.
    pub async fn send(
        &self,
        topic: TopicHandle,
        partition: Option<usize>,
        record: &Record<'_>,
    ) -> Result<(i32, i64), Error> {
        loop {
            let (sender, receiver) = oneshot::channel();
            let pushed = {
                let mut feed = self.feed();
                let partition = partition.unwrap_or_else(|| feed.choose(topic, record.key));
                feed.push_with(topic, partition, record, 0, Some(sender)).map(|()| partition)
            };
            match pushed {
                Ok(partition) => {
                    let lost = Err(Error::Usage("the producer was dropped".into()));
                    return receiver.await.unwrap_or(lost).map(|offset| (partition as i32, offset));
                }
                Err(Full) => self.room().await,
            }
        }
    }
}

impl Drop for Producer {
    fn drop(&mut self) {
        self.upkeep.abort();
        let connections = self.shared.state.lock().take_connections();
        // Outside the lock: closing calls back into the state.
        drop(connections);
    }
}

struct Flushing<'a>(&'a Shared);

impl<'a> Flushing<'a> {
    fn begin(shared: &'a Shared) -> Self {
        shared.state.lock().flushing += 1;
        Self(shared)
    }
}

impl Drop for Flushing<'_> {
    fn drop(&mut self) {
        self.0.state.lock().flushing -= 1;
    }
}

/// The producer, locked, to push records into.
pub struct Feed<'a> {
    state: MutexGuard<'a, State>,
    shared: &'a Arc<Shared>,
    now: Instant,
    now_ms: i64,
}

impl fmt::Debug for Feed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Feed").finish_non_exhaustive()
    }
}

impl Feed<'_> {
    /// Adds a record to the partition's batch. `stamp` is handed back with the batch's fate.
    ///
    /// # Errors
    /// The buffer is full.
    ///
    /// # Panics
    /// The topic has no such partition.
    pub fn push(
        &mut self,
        topic: TopicHandle,
        partition: usize,
        record: &Record<'_>,
        stamp: u64,
    ) -> Result<(), Full> {
        self.push_with(topic, partition, record, stamp, None)
    }

    fn push_with(
        &mut self,
        topic: TopicHandle,
        partition: usize,
        record: &Record<'_>,
        stamp: u64,
        waiter: Option<Waiter>,
    ) -> Result<(), Full> {
        self.state.push((topic.0, partition), record, stamp, waiter, (self.now, self.now_ms))
    }

    /// The partition for a record: by its key, or, without one, the one that was given least with each new batch.
    pub fn choose(&mut self, topic: TopicHandle, key: Option<&[u8]>) -> usize {
        let topic = &mut self.state.topics[topic.0];
        match key {
            Some(key) => partition_of_key(key, topic.partitions.len()),
            None => topic.next_in_turn(),
        }
    }
}

impl Drop for Feed<'_> {
    fn drop(&mut self) {
        self.state.pump(self.now);
        if self.state.wants_upkeep() {
            self.shared.work.notify_one();
        }
    }
}

/// Differs from process to process, so that many short-lived producers do not begin with the same partition.
fn any_number() -> usize {
    RandomState::new().build_hasher().finish() as usize
}

/// Milliseconds since the epoch.
fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as i64)
}

/// Asks for a number; any broker gives one.
async fn identity(client: &KafkaClient) -> Result<(ProducerId, i16), Error> {
    let request = InitProducerIdRequest { transaction_timeout_ms: 60_000, ..Default::default() };
    let patience = client.patience();
    loop {
        let answer = client.call(&request).await.and_then(numbered);
        if !patience.again(&answer).await {
            return answer;
        }
    }
}

fn numbered(response: InitProducerIdResponse) -> Result<(ProducerId, i16), Error> {
    Error::check(ApiKey::InitProducerId, response.error_code, String::new)?;
    Ok((ProducerId(response.producer_id), response.producer_epoch))
}

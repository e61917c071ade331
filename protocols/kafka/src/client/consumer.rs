//! Reading records: large fetches, the next one under way while the caller looks at the last.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use bytes::Bytes;
use sabir_model::batch::{BatchError, BatchHeader, RecordView, records, split, verify_crc};
use tokio::sync::oneshot;

use super::connection::BrokerConnection;
use super::{Error, KafkaClient, OffsetAt, RETRY_EVERY, TopicMetadata};
use crate::wire::messages::fetch::{FetchPartition, FetchRequest, FetchTopic, PartitionData};
use crate::wire::{ApiKey, ErrorCode, Str};

/// So many answers in a row of one partition that the broker cannot read it, before that is the answer.
const READ_ATTEMPTS: u32 = 5;
/// A batch's records take no more than this when decompressed.
const RECORDS_LIMIT: usize = 256 << 20;

/// How records are read.
#[derive(Debug, Clone)]
pub struct ConsumerOptions {
    /// Bytes of an answer, roughly.
    pub max_bytes: i32,
    /// Bytes of one partition in an answer, roughly.
    pub partition_max_bytes: i32,
    /// The broker answers once it has so many bytes...
    pub min_bytes: i32,
    /// ...or this time has passed.
    pub max_wait: Duration,
    /// What to do when a position lies outside the log.
    pub on_out_of_range: OnOutOfRange,
}

impl Default for ConsumerOptions {
    fn default() -> Self {
        Self {
            max_bytes: 50 << 20,
            partition_max_bytes: 1 << 20,
            min_bytes: 1,
            max_wait: Duration::from_millis(500),
            on_out_of_range: OnOutOfRange::Fail,
        }
    }
}

/// What to do when a position lies outside the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnOutOfRange {
    /// Say so.
    Fail,
    /// Go on at the first offset there is.
    Earliest,
    /// Go on at the end.
    Latest,
}

/// Records of one partition from one fetch.
#[derive(Debug, Clone)]
pub struct FetchedRecords {
    /// The topic.
    pub topic: Str,
    /// The partition.
    pub partition: i32,
    /// The position that was asked for: the first batch may begin before it.
    pub from: i64,
    /// The position behind these records.
    pub next: i64,
    /// How many records there are from `from` on, markers left out.
    pub count: u64,
    /// The end of what may be read.
    pub high_watermark: i64,
    /// Whole batches; what follows them is the beginning of another, cut off.
    pub batches: Bytes,
}

impl FetchedRecords {
    /// Shows every record from the position on, in order.
    ///
    /// # Errors
    /// A batch that cannot be read.
    pub fn for_each(&self, mut show: impl FnMut(&RecordView<'_>)) -> Result<(), Error> {
        let bad = |source| self.unreadable(source);
        for batch in whole_batches(&self.batches) {
            let (header, bytes) = batch.map_err(bad)?;
            if header.is_control() || header.last_offset().0 < self.from {
                continue;
            }
            verify_crc(bytes).map_err(bad)?;
            let records = records(bytes, RECORDS_LIMIT).map_err(bad)?;
            for record in &records {
                let record = record.map_err(bad)?;
                if record.offset.0 >= self.from {
                    show(&record);
                }
            }
        }
        Ok(())
    }

    fn unreadable(&self, source: BatchError) -> Error {
        Error::Records { topic: self.topic.to_string(), partition: self.partition, source }
    }
}

/// The batches that are there as a whole: an answer may end inside one.
fn whole_batches(bytes: &[u8]) -> impl Iterator<Item = Result<(BatchHeader, &[u8]), BatchError>> {
    split(bytes).take_while(|batch| !matches!(batch, Err(BatchError::Truncated { .. })))
}

/// Reads assigned partitions, each from its leader.
#[derive(Debug)]
pub struct Consumer {
    client: KafkaClient,
    options: ConsumerOptions,
    topics: Vec<TopicMetadata>,
    assigned: Vec<Assigned>,
    nodes: Vec<Node>,
    /// Leaders have to be asked for again.
    stale: bool,
    /// A partition answered with an error: no fetch before this.
    retry_at: Option<Instant>,
    /// What one partition answered while others gave records: said at the next poll, so that none of them is lost.
    failed: Option<Error>,
    last_fetch: Duration,
}

#[derive(Debug)]
struct Assigned {
    topic: usize,
    partition: i32,
    next: i64,
    high_watermark: i64,
    /// Answers in a row that the broker cannot read what stands there.
    unreadable: u32,
}

#[derive(Debug)]
struct Node {
    id: i32,
    connection: Arc<BrokerConnection>,
    /// Those led here, the one that waited longest first.
    order: VecDeque<usize>,
    under_way: Option<UnderWay>,
}

#[derive(Debug)]
struct UnderWay {
    version: i16,
    since: Instant,
    /// (assigned, the position asked for)
    asked: Vec<(usize, i64)>,
    answer: oneshot::Receiver<(Instant, Result<Bytes, Error>)>,
}

impl Consumer {
    /// A consumer of these partitions from these positions on: (topic, partition, next offset).
    ///
    /// # Errors
    /// A topic does not exist, or its leaders cannot be reached.
    pub async fn assign(
        client: &KafkaClient,
        partitions: &[(&str, i32, i64)],
        options: ConsumerOptions,
    ) -> Result<Self, Error> {
        let mut consumer = Self {
            client: client.clone(),
            options,
            topics: Vec::new(),
            assigned: Vec::new(),
            nodes: Vec::new(),
            stale: false,
            retry_at: None,
            failed: None,
            last_fetch: Duration::ZERO,
        };
        for &(name, partition, next) in partitions {
            let known = consumer.topics.iter().position(|t| t.name == *name);
            let topic = match known {
                Some(known) => known,
                None => {
                    consumer.topics.push(client.topic(name, false).await?);
                    consumer.topics.len() - 1
                }
            };
            consumer.assigned.push(Assigned { topic, partition, next, high_watermark: -1, unreadable: 0 });
        }
        consumer.place().await?;
        Ok(consumer)
    }

    /// A consumer of all of a topic's partitions from their first or last offset, or a time on.
    ///
    /// # Errors
    /// The topic does not exist, or its leaders cannot be reached.
    pub async fn of_topic(
        client: &KafkaClient,
        topic: &str,
        start: OffsetAt,
        options: ConsumerOptions,
    ) -> Result<Self, Error> {
        let count = client.topic(topic, false).await?.leaders.len() as i32;
        let wanted: Vec<_> = (0..count).map(|partition| (partition, start)).collect();
        let mut found = client.list_offsets(topic, &wanted).await?;
        if found.iter().any(|f| f.offset < 0) {
            // Nothing is that young: what comes will be.
            let ends: Vec<_> = (0..count).map(|partition| (partition, OffsetAt::Latest)).collect();
            let ends = client.list_offsets(topic, &ends).await?;
            found
                .iter_mut()
                .zip(ends)
                .filter(|(f, _)| f.offset < 0)
                .for_each(|(f, end)| f.offset = end.offset);
        }
        let partitions: Vec<_> = found.iter().map(|f| (topic, f.partition, f.offset)).collect();
        Self::assign(client, &partitions, options).await
    }

    /// The next offset to read of each partition, as assigned: (topic, partition, offset).
    pub fn positions(&self) -> impl Iterator<Item = (&str, i32, i64)> {
        self.assigned.iter().map(|a| (self.topics[a.topic].name.as_str(), a.partition, a.next))
    }

    /// Records up to the end of each partition, as far as the last answers showed; -1 where none has.
    pub fn lag(&self) -> i64 {
        let lag = |a: &Assigned| if a.high_watermark < 0 { -1 } else { (a.high_watermark - a.next).max(0) };
        let lags = || self.assigned.iter().map(lag);
        if lags().any(|lag| lag < 0) { -1 } else { lags().sum() }
    }

    /// How long the broker took for the last answer that [`poll`](Self::poll) gave.
    pub fn last_fetch(&self) -> Duration {
        self.last_fetch
    }

    /// Reads on elsewhere.
    pub fn seek(&mut self, topic: &str, partition: i32, next: i64) {
        let topics = &self.topics;
        let found =
            self.assigned.iter_mut().find(|a| a.partition == partition && topics[a.topic].name == *topic);
        if let Some(assigned) = found {
            assigned.next = next;
        }
    }

    /// What one broker answered, waiting at most `wait`; nothing if that passes or the answer is empty. The next fetch is
    /// under way when it returns.
    ///
    /// # Errors
    /// The leaders cannot be reached for too long, or one answers with an error that does not pass.
    pub async fn poll(&mut self, wait: Duration) -> Result<Vec<FetchedRecords>, Error> {
        let until = Instant::now() + wait;
        let mut failing_since = None;
        loop {
            let placed = if self.stale { self.place().await } else { Ok(()) };
            let found = match placed {
                Ok(()) => self.poll_once(until).await,
                Err(error) => Err(error),
            };
            match found {
                Err(error) if passes(&error) => {
                    let since = *failing_since.get_or_insert_with(Instant::now);
                    if since.elapsed() > self.client.answer_within() {
                        return Err(error);
                    }
                    self.stale = true;
                    tokio::time::sleep(RETRY_EVERY).await;
                    if until <= Instant::now() {
                        return Ok(Vec::new());
                    }
                }
                found => return found,
            }
        }
    }

    /// Finds the leaders and connects to them. Fetches that are under way stay so where the leader is the same.
    async fn place(&mut self) -> Result<(), Error> {
        if self.stale {
            for topic in &mut self.topics {
                *topic = self.client.topic(&topic.name, false).await?;
            }
        }
        let leader =
            |a: &Assigned| self.topics[a.topic].leaders.get(a.partition as usize).copied().unwrap_or(-1);
        let led: Vec<(usize, i32)> = self.assigned.iter().map(leader).enumerate().collect();
        if let Some((lost, _)) = led.iter().find(|(_, leader)| *leader < 0) {
            let lost = &self.assigned[*lost];
            let message = format!("{}-{}", self.topics[lost.topic].name, lost.partition);
            return Err(Error::Broker { api: ApiKey::Fetch, code: ErrorCode::LeaderNotAvailable, message });
        }
        self.nodes.retain(|node| !node.connection.is_closed() && led.iter().any(|(_, id)| *id == node.id));
        let mut ids: Vec<i32> = led.iter().map(|(_, id)| *id).collect();
        ids.sort_unstable();
        ids.dedup();
        for id in ids {
            let here: VecDeque<usize> = led.iter().filter(|(_, l)| *l == id).map(|(i, _)| *i).collect();
            match self.nodes.iter_mut().find(|node| node.id == id) {
                Some(node) => node.order = here,
                None => {
                    let connection = Arc::new(self.client.open(id).await?);
                    self.nodes.push(Node { id, connection, order: here, under_way: None });
                }
            }
        }
        self.stale = false;
        Ok(())
    }

    async fn poll_once(&mut self, until: Instant) -> Result<Vec<FetchedRecords>, Error> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        if let Some(at) = self.retry_at {
            tokio::time::sleep_until(at.min(until).into()).await;
            if Instant::now() < at {
                return Ok(Vec::new());
            }
            self.retry_at = None;
        }
        for node in 0..self.nodes.len() {
            if self.nodes[node].under_way.is_none() {
                self.fetch(node)?;
            }
        }
        let first_answer = std::future::poll_fn(|cx| {
            for (index, node) in self.nodes.iter_mut().enumerate() {
                let Some(under_way) = &mut node.under_way else { continue };
                if let Poll::Ready(answer) = Future::poll(std::pin::Pin::new(&mut under_way.answer), cx) {
                    return Poll::Ready((index, answer));
                }
            }
            Poll::Pending
        });
        let Ok((node, answer)) = tokio::time::timeout_at(until.into(), first_answer).await else {
            return self.nothing_yet();
        };
        let Some(under_way) = self.nodes[node].under_way.take() else { return Ok(Vec::new()) };
        let closed = || Error::Closed {
            address: self.nodes[node].connection.address().to_owned(),
            reason: "the connection was dropped".into(),
        };
        let (answered, frame) = answer.unwrap_or_else(|_| (Instant::now(), Err(closed())));
        let frame = frame?;
        self.last_fetch = answered - under_way.since;
        let fetched = self.take_in(node, &under_way, &frame).await?;
        // A partition that answers with an error does so at once: the next question waits.
        if self.retry_at.is_none() {
            self.fetch(node)?;
        }
        Ok(fetched)
    }

    /// No answer so far: is one overdue?
    fn nothing_yet(&mut self) -> Result<Vec<FetchedRecords>, Error> {
        let after = self.options.max_wait + self.client.answer_within();
        let overdue = |node: &&Node| node.under_way.as_ref().is_some_and(|u| u.since.elapsed() > after);
        if let Some(node) = self.nodes.iter().find(overdue) {
            node.connection.close("no answer to a fetch");
            return Err(Error::Timeout { what: "Fetch", after });
        }
        Ok(Vec::new())
    }

    /// Sends the next fetch to a node.
    fn fetch(&mut self, node: usize) -> Result<(), Error> {
        let version = self.nodes[node].connection.versions().of::<FetchRequest>()?;
        let (request, asked) = self.request(&self.nodes[node].order, version);
        let (sender, answer) = oneshot::channel();
        let done = Box::new(move |frame| drop(sender.send((Instant::now(), frame))));
        let node = &mut self.nodes[node];
        node.connection.send(version, &request, done, true)?;
        node.under_way = Some(UnderWay { version, since: Instant::now(), asked, answer });
        Ok(())
    }

    fn request(&self, order: &VecDeque<usize>, version: i16) -> (FetchRequest, Vec<(usize, i64)>) {
        let mut asked = Vec::with_capacity(order.len());
        let mut topics: Vec<(usize, FetchTopic)> = Vec::new();
        for &index in order {
            let assigned = &self.assigned[index];
            asked.push((index, assigned.next));
            let partition = FetchPartition {
                partition: assigned.partition,
                fetch_offset: assigned.next,
                partition_max_bytes: self.options.partition_max_bytes,
                ..Default::default()
            };
            match topics.iter_mut().find(|(topic, _)| *topic == assigned.topic) {
                Some((_, topic)) => topic.partitions.push(partition),
                None => {
                    let TopicMetadata { name, id, .. } = &self.topics[assigned.topic];
                    let name = if version < 13 { name.clone() } else { Str::default() };
                    let topic = FetchTopic { topic: name, topic_id: *id, partitions: vec![partition] };
                    topics.push((assigned.topic, topic));
                }
            }
        }
        let request = FetchRequest {
            max_wait_ms: self.options.max_wait.as_millis() as i32,
            min_bytes: self.options.min_bytes,
            max_bytes: self.options.max_bytes,
            topics: topics.into_iter().map(|(_, topic)| topic).collect(),
            ..Default::default()
        };
        (request, asked)
    }

    /// Moves the positions behind what came.
    async fn take_in(
        &mut self,
        node: usize,
        under_way: &UnderWay,
        frame: &Bytes,
    ) -> Result<Vec<FetchedRecords>, Error> {
        let response = self.nodes[node].connection.decode::<FetchRequest>(frame, under_way.version)?;
        Error::check(ApiKey::Fetch, response.error_code, String::new)?;
        let mut fetched = Vec::new();
        for topic in response.responses {
            for data in topic.partitions {
                let asked = under_way.asked.iter().find(|(index, _)| {
                    let assigned = &self.assigned[*index];
                    let known = &self.topics[assigned.topic];
                    let same = if under_way.version < 13 {
                        known.name == topic.topic
                    } else {
                        known.id == topic.topic_id
                    };
                    same && assigned.partition == data.partition_index
                });
                let Some(&(index, from)) = asked else { continue };
                // A seek since then makes the answer useless.
                if self.assigned[index].next == from {
                    match self.take_partition(node, index, data).await {
                        Ok(part) => fetched.extend(part),
                        Err(error) => self.failed = Some(error),
                    }
                }
            }
        }
        if fetched.is_empty()
            && let Some(error) = self.failed.take()
        {
            return Err(error);
        }
        Ok(fetched)
    }

    async fn take_partition(
        &mut self,
        node: usize,
        index: usize,
        data: PartitionData,
    ) -> Result<Option<FetchedRecords>, Error> {
        if data.error_code != 0 {
            return self.refused(index, data.error_code).await.map(|()| None);
        }
        let assigned = &mut self.assigned[index];
        assigned.high_watermark = data.high_watermark;
        let from = assigned.next;
        let batches = data.records.map(|r| r.to_bytes()).unwrap_or_default();
        let topic = self.topics[assigned.topic].name.clone();
        let mut fetched = FetchedRecords {
            topic,
            partition: assigned.partition,
            from,
            next: from,
            count: 0,
            high_watermark: data.high_watermark,
            batches,
        };
        for batch in whole_batches(&fetched.batches) {
            let (header, _) = batch.map_err(|source| fetched.unreadable(source))?;
            let last = header.last_offset().0;
            fetched.next = fetched.next.max(last + 1);
            let wanted = (last + 1 - from).clamp(0, header.count.into()) as u64;
            fetched.count += if header.is_control() { 0 } else { wanted };
        }
        if fetched.next == from && fetched.batches.is_empty() {
            return Ok(None);
        }
        if fetched.next == from {
            // Bytes that lead no further: the beginning of a batch whose length is wrong, or one that lies before the position.
            let source =
                BatchError::Truncated { need: fetched.batches.len() + 1, have: fetched.batches.len() };
            let error = fetched.unreadable(source);
            return self.unreadable(index, error).map(|()| None);
        }
        assigned.unreadable = 0;
        assigned.next = fetched.next;
        // A fetch that got something waits for the others.
        let order = &mut self.nodes[node].order;
        order.retain(|&other| other != index);
        order.push_back(index);
        Ok(Some(fetched))
    }

    /// An error about one partition: reset the position, ask for the leader again, or say so.
    async fn refused(&mut self, index: usize, code: i16) -> Result<(), Error> {
        let Assigned { topic, partition, next, .. } = self.assigned[index];
        let name = self.topics[topic].name.clone();
        let about = || place(&name, partition, next);
        let Err(error) = Error::check(ApiKey::Fetch, code, about) else { return Ok(()) };
        if error.code().is_some_and(says_unreadable) {
            return self.unreadable(index, error);
        }
        self.retry_at = Some(Instant::now() + RETRY_EVERY);
        let start = match (error.code(), self.options.on_out_of_range) {
            (Some(ErrorCode::OffsetOutOfRange), OnOutOfRange::Earliest) => OffsetAt::Earliest,
            (Some(ErrorCode::OffsetOutOfRange), OnOutOfRange::Latest) => OffsetAt::Latest,
            _ if passes(&error) => {
                self.stale = true;
                return Ok(());
            }
            _ => return Err(error),
        };
        let found = self.client.list_offsets(&name, &[(partition, start)]).await?;
        self.assigned[index].next = found[0].offset;
        Ok(())
    }

    /// What stands at a partition's position cannot be read: asked for a few times more, a moment apart, and then said.
    fn unreadable(&mut self, index: usize, error: Error) -> Result<(), Error> {
        self.retry_at = Some(Instant::now() + RETRY_EVERY);
        let tried = &mut self.assigned[index].unreadable;
        *tried += 1;
        if *tried < READ_ATTEMPTS { Ok(()) } else { Err(error) }
    }
}

/// A place in a topic, as errors name it.
pub(super) fn place(topic: &str, partition: i32, offset: i64) -> String {
    format!("{topic}-{partition}, offset {offset}")
}

/// What a broker says of records that it cannot read: a disk may come back, a damaged record never does.
fn says_unreadable(code: ErrorCode) -> bool {
    use ErrorCode::{CorruptMessage, KafkaStorageError, UnknownServerError};
    matches!(code, CorruptMessage | KafkaStorageError | UnknownServerError)
}

fn passes(error: &Error) -> bool {
    !error.code().is_some_and(says_unreadable)
        && (error.retriable() || matches!(error.code(), Some(ErrorCode::UnknownTopicId)))
}

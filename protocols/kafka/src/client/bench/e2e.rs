//! Publishing and reading at once, with latency from when a message was due to when it was read.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use sabir_frontend::client::{LoadPlan, LoadProgress, LoadReport};
use tokio::task::JoinSet;

use super::super::options::Loading;
use super::super::{
    Consumer, ConsumerOptions, Delivery, Error, FetchedRecords, KafkaClient, OffsetAt, OnDelivery, Producer,
    Record, TopicHandle,
};
use super::payload::Payload;
use super::produce::pace;
use super::tally::Tally;
use super::{Budget, producer_options};

/// A message begins with its stamp and its client's mark, eight bytes each.
const HEAD: usize = 16;
/// How long the last messages are waited for.
const GRACE: Duration = Duration::from_secs(10);

pub(super) async fn run(
    client: &KafkaClient,
    plan: &LoadPlan,
    loading: &Loading,
    progress: &'static LoadProgress,
) -> Result<LoadReport, Error> {
    if plan.size < HEAD {
        return Err(Error::Usage(format!("end to end, a message has at least {HEAD} bytes")));
    }
    let tally = Tally::new(progress, plan.warmup);
    let budget = Arc::new(Budget::new(plan.count, progress));
    let mut lanes = JoinSet::new();
    let count = plan.clients.max(1);
    for number in 0..count {
        let lane = Lane::start(client, plan, loading, &tally, budget.clone(), number).await?;
        match plan.rate {
            None => drop(lanes.spawn(lane.one_by_one())),
            Some(rate) => drop(lanes.spawn(lane.at_rate(rate / count as f64))),
        }
    }
    while let Some(ended) = lanes.join_next().await {
        ended.map_err(|e| Error::Usage(format!("a client of the load ended early: {e}")))??;
    }
    Ok(tally.report())
}

/// A client that publishes to a partition and reads it.
struct Lane {
    producer: Arc<Producer>,
    consumer: Consumer,
    topic: TopicHandle,
    partition: usize,
    mark: u64,
    size: usize,
    tally: Tally,
    budget: Arc<Budget>,
    end: u64,
}

impl Lane {
    async fn start(
        client: &KafkaClient,
        plan: &LoadPlan,
        loading: &Loading,
        tally: &Tally,
        budget: Arc<Budget>,
        number: usize,
    ) -> Result<Self, Error> {
        let partitions = client.topic(&plan.topic, false).await?.leaders.len();
        let partition = number % partitions.max(1);
        let end = client.list_offsets(&plan.topic, &[(partition as i32, OffsetAt::Latest)]).await?[0].offset;
        let from = [(plan.topic.as_str(), partition as i32, end)];
        let consumer = Consumer::assign(client, &from, ConsumerOptions::default()).await?;
        let failures = tally.clone();
        let on_delivery: OnDelivery = Box::new(move |delivery: &Delivery<'_>| {
            if let Err(error) = delivery.result {
                failures.failed(error);
            }
        });
        let producer = Producer::start(client, producer_options(loading, 1), Some(on_delivery)).await?;
        let topic = producer.topic(&plan.topic).await?;
        Ok(Self {
            producer: Arc::new(producer),
            consumer,
            topic,
            partition,
            // Tells this run's messages from those of another on the same topic.
            mark: (u64::from(std::process::id()) << 32) ^ (end as u64) ^ ((number as u64) << 56),
            size: plan.size,
            tally: tally.clone(),
            budget,
            end: plan.duration.map_or(u64::MAX, |d| (plan.warmup + d).as_nanos() as u64),
        })
    }

    /// The next message once the last one was read.
    async fn one_by_one(mut self) -> Result<(), Error> {
        let mut message = Message::new(&self);
        let mut index = 0;
        // The first fetch waits at the broker before the first message is sent.
        self.consumer.poll(Duration::ZERO).await?;
        while self.tally.now() < self.end && self.budget.take(1) == 1 {
            let stamp = self.tally.now();
            let content = message.write(index, stamp);
            index += 1;
            if self.producer.send(self.topic, Some(self.partition), &Record::value(content)).await.is_err() {
                continue;
            }
            let until = Instant::now() + GRACE;
            while !self.read().await?.contains(&stamp) {
                if Instant::now() > until {
                    return Err(Error::Timeout { what: "a message to be read", after: GRACE });
                }
            }
        }
        Ok(())
    }

    /// Reads what came and gives the stamps of this lane's messages.
    async fn read(&mut self) -> Result<Vec<u64>, Error> {
        let fetched = self.consumer.poll(Duration::from_millis(100)).await?;
        let stamps = stamps(&fetched, self.mark)?;
        self.tally.arrived(&stamps, self.size);
        Ok(stamps)
    }

    /// Messages when they are due, from a thread of its own, whether those before were read or not.
    async fn at_rate(mut self, rate: f64) -> Result<(), Error> {
        let (producer, topic, partition) = (self.producer.clone(), self.topic, self.partition);
        let (started, end, budget) = (self.tally.started(), self.end, self.budget.clone());
        let mut message = Message::new(&self);
        let done = Arc::new(AtomicBool::new(false));
        let told = done.clone();
        let pacing = tokio::task::spawn_blocking(move || {
            let sent = pace(started, rate, end, &budget, |first, count, due| {
                let mut feed = producer.feed();
                for index in first..first + count {
                    let content = message.write(index, due(index));
                    if feed.push(topic, partition, &Record::value(content), due(index)).is_err() {
                        return index - first;
                    }
                }
                count
            });
            told.store(true, Ordering::Release);
            sent
        });
        let mut read = 0;
        while !done.load(Ordering::Acquire) {
            read += self.read().await?.len() as u64;
        }
        let sent = pacing.await.map_err(|e| Error::Usage(format!("the pacing thread ended early: {e}")))?;
        self.producer.flush().await;
        let until = Instant::now() + GRACE;
        while read < sent && Instant::now() < until {
            read += self.read().await?.len() as u64;
        }
        if read < sent {
            tracing::warn!(missing = sent - read, "messages were sent and not read");
        }
        Ok(())
    }
}

/// A message under construction.
struct Message {
    content: Vec<u8>,
    letters: Payload,
    mark: u64,
}

impl Message {
    fn new(lane: &Lane) -> Self {
        Self { content: vec![0; lane.size], letters: Payload::new(lane.size, lane.mark), mark: lane.mark }
    }

    fn write(&mut self, index: u64, stamp: u64) -> &[u8] {
        self.content.copy_from_slice(self.letters.of(index));
        self.content[..8].copy_from_slice(&stamp.to_be_bytes());
        self.content[8..HEAD].copy_from_slice(&self.mark.to_be_bytes());
        &self.content
    }
}

/// The stamps of messages that bear the mark.
fn stamps(fetched: &[FetchedRecords], mark: u64) -> Result<Vec<u64>, Error> {
    let mut stamps = Vec::new();
    for part in fetched {
        part.for_each(|record| {
            let head = record.value.and_then(|value| value.first_chunk::<HEAD>());
            let Some((stamp, found)) = head.map(|head| head.split_at(8)) else { return };
            if *found == mark.to_be_bytes() {
                stamps.push(stamp.iter().fold(0, |stamp, &byte| stamp << 8 | u64::from(byte)));
            }
        })?;
    }
    Ok(stamps)
}

//! Publishing, with latency from when a message was due to its acknowledgement.

use std::sync::Arc;
use std::time::{Duration, Instant};

use sabir_frontend::client::{LoadPlan, LoadProgress, LoadReport};
use tokio::task::JoinSet;

use super::super::options::Loading;
use super::super::{Delivery, Error, KafkaClient, OnDelivery, Producer, Record, TopicHandle};
use super::payload::Payload;
use super::tally::Tally;
use super::{Budget, producer_options};

/// At a rate, messages that are due within so much of each other are pushed together: what the system's timers can do without
/// a core of their own. It is part of the latency shown.
const TICK: Duration = Duration::from_micros(200);
/// At a rate, how long the next message is slept for at once.
const LONGEST_SLEEP: Duration = Duration::from_millis(100);
/// As fast as it goes, the runtime gets a turn after so many pushes of a batch's worth.
const YIELD_AFTER: usize = 8;

pub(super) async fn run(
    client: &KafkaClient,
    plan: &LoadPlan,
    loading: &Loading,
    progress: &'static LoadProgress,
) -> Result<LoadReport, Error> {
    let tally = Tally::new(progress, plan.warmup);
    let budget = Arc::new(Budget::new(plan.count, progress));
    let mut clients = JoinSet::new();
    for number in 0..plan.clients.max(1) {
        let payload = Payload::new(plan.size, number as u64 + 1);
        let sender = Sender::start(client, plan, loading, &tally, budget.clone(), payload).await?;
        match plan.rate {
            None => drop(clients.spawn(sender.flat_out())),
            Some(rate) => drop(clients.spawn(sender.at_rate(rate / plan.clients.max(1) as f64))),
        }
    }
    while let Some(ended) = clients.join_next().await {
        ended.map_err(|e| Error::Usage(format!("a client of the load ended early: {e}")))?;
    }
    Ok(tally.report())
}

/// Counts acknowledgements.
pub(super) fn on_delivery(tally: &Tally, size: usize) -> OnDelivery {
    let tally = tally.clone();
    Box::new(move |delivery: &Delivery<'_>| match delivery.result {
        Ok(_) => tally.arrived(delivery.stamps, size),
        Err(error) => tally.failed(error),
    })
}

/// One client that publishes.
struct Sender {
    producer: Producer,
    topic: TopicHandle,
    payload: Payload,
    budget: Arc<Budget>,
    tally: Tally,
    /// Nanoseconds since the start.
    end: u64,
    /// Messages of about one batch.
    chunk: u64,
}

impl Sender {
    async fn start(
        client: &KafkaClient,
        plan: &LoadPlan,
        loading: &Loading,
        tally: &Tally,
        budget: Arc<Budget>,
        payload: Payload,
    ) -> Result<Self, Error> {
        let partitions = client.topic(&plan.topic, false).await?.leaders.len();
        let options = producer_options(loading, partitions);
        let producer = Producer::start(client, options, Some(on_delivery(tally, plan.size))).await?;
        let topic = producer.topic(&plan.topic).await?;
        let chunk = (loading.batch_bytes / (plan.size + 8)).clamp(1, 4096) as u64;
        let end = plan.duration.map_or(u64::MAX, |d| (plan.warmup + d).as_nanos() as u64);
        Ok(Self { producer, topic, payload, budget, tally: tally.clone(), end, chunk })
    }

    async fn flat_out(self) {
        let mut index = 0;
        'load: loop {
            for _ in 0..YIELD_AFTER {
                let now = self.tally.now();
                let wanted = if now < self.end { self.budget.take(self.chunk) } else { 0 };
                if wanted == 0 {
                    break 'load;
                }
                let pushed = self.push(index, wanted, |_| now);
                index += pushed;
                self.budget.give_back(wanted - pushed);
                if pushed < wanted {
                    self.producer.room().await;
                }
            }
            tokio::task::yield_now().await;
        }
        self.producer.flush().await;
    }

    /// Pushes messages until the buffer is full and says how many.
    fn push(&self, first: u64, count: u64, stamp: impl Fn(u64) -> u64) -> u64 {
        let mut feed = self.producer.feed();
        for index in first..first + count {
            let partition = feed.choose(self.topic, None);
            let record = Record::value(self.payload.of(index));
            if feed.push(self.topic, partition, &record, stamp(index)).is_err() {
                return index - first;
            }
        }
        count
    }

    async fn at_rate(self, rate: f64) {
        let sender = Arc::new(self);
        let pacing = sender.clone();
        let paced = tokio::task::spawn_blocking(move || {
            let started = pacing.tally.started();
            pace(started, rate, pacing.end, &pacing.budget, |first, count, due| {
                pacing.push(first, count, due)
            })
        });
        if let Err(error) = paced.await {
            sender.tally.failed(&Error::Usage(format!("the pacing thread ended early: {error}")));
        }
        sender.producer.flush().await;
    }
}

/// Pushes messages when they are due, until `end` (nanoseconds) or the budget is spent, and says how many. On a thread of its
/// own: the runtime's timers are too coarse. `push` gets the first one's number, how many are due, and when each was; it says
/// how many it took, and the others are offered again.
pub(super) fn pace(
    started: Instant,
    rate: f64,
    end: u64,
    budget: &Budget,
    mut push: impl FnMut(u64, u64, &dyn Fn(u64) -> u64) -> u64,
) -> u64 {
    let due = |index: u64| (index as f64 * 1e9 / rate) as u64;
    let total = (end as f64 * rate / 1e9).ceil() as u64;
    let mut index = 0;
    while index < total && !budget.is_stopped() {
        let now = started.elapsed();
        let ready = ((now.as_secs_f64() * rate) as u64 + 1).min(total).saturating_sub(index);
        let wanted = budget.take(ready);
        if wanted == 0 && ready > 0 {
            break;
        }
        let pushed = push(index, wanted, &due);
        budget.give_back(wanted - pushed);
        index += pushed;
        // Not for too long, lest a slow load does not hear that it is to stop.
        sleep_until(started + Duration::from_nanos(due(index)).clamp(now + TICK, now + LONGEST_SLEEP));
    }
    index
}

fn sleep_until(at: Instant) {
    if let Some(left) = at.checked_duration_since(Instant::now()) {
        std::thread::sleep(left);
    }
}

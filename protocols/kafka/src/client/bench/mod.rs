//! Load on a broker: as fast as it goes, or at a rate that does not care whether the broker keeps up.
//!
//! At a rate, a message's latency counts from when it was due, so a broker that stalls is charged for the messages that could
//! not be sent meanwhile too.

mod consume;
mod e2e;
mod payload;
mod produce;
mod tally;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sabir_frontend::client::{Endpoint, Load, LoadPlan, LoadProgress, LoadReport};

use super::options::{Loading, Publishing};
use super::{ConnectOptions, Error, KafkaClient, KafkaTopicSpec, OffsetAt, ProducerOptions};
use crate::wire::ErrorCode;

/// Before a batch is counted as failed.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(30);

/// Runs a plan against a broker, counting into `progress`.
///
/// # Errors
/// The broker cannot be reached, or refuses the topic or a read. Messages that fail are counted in the report.
pub async fn run(
    to: Endpoint,
    plan: &LoadPlan,
    progress: &'static LoadProgress,
) -> Result<LoadReport, Error> {
    let loading = Loading::of(&plan.options)?;
    let client =
        KafkaClient::connect(&to.address, ConnectOptions { dialer: to.dialer, ..Default::default() }).await?;
    match plan.load {
        Load::Produce => {
            ensure_topic(&client, plan, &loading).await?;
            produce::run(&client, plan, &loading, progress).await
        }
        Load::Consume => consume::run(&client, plan, progress).await,
        Load::EndToEnd => {
            ensure_topic(&client, plan, &loading).await?;
            e2e::run(&client, plan, &loading, progress).await
        }
    }
}

/// Creates the topic unless it exists, and waits until its partitions take writes.
async fn ensure_topic(client: &KafkaClient, plan: &LoadPlan, loading: &Loading) -> Result<(), Error> {
    match client.create_topic(KafkaTopicSpec::new(&plan.topic, loading.partitions)).await {
        Err(error) if error.code() != Some(ErrorCode::TopicAlreadyExists) => return Err(error),
        _ => {}
    }
    let count = client.topic(&plan.topic, false).await?.leaders.len() as i32;
    let ends: Vec<_> = (0..count).map(|partition| (partition, OffsetAt::Latest)).collect();
    client.list_offsets(&plan.topic, &ends).await.map(drop)
}

/// The buffer is no larger than what keeps the pipeline full: a message should wait for the broker, not behind a queue.
fn producer_options(loading: &Loading, partitions: usize) -> ProducerOptions {
    let Publishing { acks, compression } = loading.publishing;
    let defaults = ProducerOptions::default();
    let request =
        defaults.request_bytes.min(loading.batch_bytes.saturating_mul(partitions)).max(loading.batch_bytes);
    let pipeline = request * loading.in_flight.max(1);
    ProducerOptions {
        acks,
        compression,
        batch_bytes: loading.batch_bytes,
        linger: loading.linger,
        in_flight: loading.in_flight,
        buffer_bytes: 2 * pipeline + (1 << 20),
        idempotent: loading.idempotent,
        delivery_timeout: DELIVERY_TIMEOUT,
        ..defaults
    }
}

/// How many messages are left to be sent, over all clients: none once the load is told to stop.
#[derive(Debug)]
struct Budget {
    left: AtomicU64,
    progress: &'static LoadProgress,
}

impl Budget {
    fn new(count: Option<u64>, progress: &'static LoadProgress) -> Self {
        Self { left: AtomicU64::new(count.unwrap_or(u64::MAX)), progress }
    }

    fn is_stopped(&self) -> bool {
        self.progress.stop.load(Ordering::Relaxed)
    }

    /// Takes up to `wanted`.
    fn take(&self, wanted: u64) -> u64 {
        if self.is_stopped() {
            return 0;
        }
        let take = |left: u64| Some(left.saturating_sub(wanted));
        let left = self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).unwrap_or(0);
        left.min(wanted)
    }

    fn is_empty(&self) -> bool {
        self.is_stopped() || self.left.load(Ordering::Relaxed) == 0
    }

    /// Gives back what was taken and not used.
    fn give_back(&self, unused: u64) {
        if unused > 0 {
            self.left.fetch_add(unused, Ordering::Relaxed);
        }
    }
}

//! Reading what is there, with the latency of each fetch.

use std::sync::Arc;
use std::time::Duration;

use sabir_frontend::client::{LoadPlan, LoadProgress, LoadReport};
use tokio::task::JoinSet;

use super::super::{Consumer, ConsumerOptions, Error, KafkaClient, OffsetAt};
use super::Budget;
use super::tally::Tally;

/// A topic that gives nothing for so long has been read to its end.
const QUIET: Duration = Duration::from_secs(1);

pub(super) async fn run(
    client: &KafkaClient,
    plan: &LoadPlan,
    progress: &'static LoadProgress,
) -> Result<LoadReport, Error> {
    let partitions = client.topic(&plan.topic, false).await?.leaders.len();
    let wanted: Vec<_> = (0..partitions as i32).map(|p| (p, OffsetAt::Earliest)).collect();
    let starts = client.list_offsets(&plan.topic, &wanted).await?;
    let tally = Tally::new(progress, plan.warmup);
    let budget = Arc::new(Budget::new(plan.count, progress));
    let mut clients = JoinSet::new();
    let count = plan.clients.clamp(1, partitions.max(1));
    for number in 0..count {
        let own = starts.iter().skip(number).step_by(count);
        let own: Vec<_> = own.map(|start| (plan.topic.as_str(), start.partition, start.offset)).collect();
        let consumer = Consumer::assign(client, &own, ConsumerOptions::default()).await?;
        let end = plan.duration.map_or(u64::MAX, |d| (plan.warmup + d).as_nanos() as u64);
        clients.spawn(read(consumer, tally.clone(), budget.clone(), end));
    }
    while let Some(ended) = clients.join_next().await {
        ended.map_err(|e| Error::Usage(format!("a client of the load ended early: {e}")))??;
    }
    Ok(tally.report())
}

async fn read(mut consumer: Consumer, tally: Tally, budget: Arc<Budget>, end: u64) -> Result<(), Error> {
    loop {
        let left = Duration::from_nanos(end.saturating_sub(tally.now()));
        let fetched = consumer.poll(QUIET.min(left)).await?;
        // What comes after the end does not count, and of what is more than was asked for only so much.
        if tally.now() >= end {
            break;
        }
        let got = fetched.iter().map(|f| f.count).sum();
        let bytes = fetched.iter().map(|f| f.batches.len() as u64).sum();
        let counted = budget.take(got);
        tally.fetched(counted, share(bytes, counted, got), consumer.last_fetch());
        if counted < got || budget.is_empty() || (got == 0 && consumer.lag() == 0) {
            break;
        }
    }
    Ok(())
}

/// The bytes of `counted` messages out of `got`.
fn share(bytes: u64, counted: u64, got: u64) -> u64 {
    if counted == got { bytes } else { (u128::from(bytes) * u128::from(counted) / u128::from(got)) as u64 }
}

//! Reading what is there, with the latency of each fetch.

use std::sync::Arc;
use std::time::Duration;

use sabir_frontend::client::{LoadPlan, LoadReport, Progress};
use tokio::task::JoinSet;

use super::super::{Client, Consumer, ConsumerOptions, Error, OffsetAt};
use super::Budget;
use super::tally::Tally;

/// A topic that gives nothing for so long has been read to its end.
const QUIET: Duration = Duration::from_secs(1);

pub(super) async fn run(
    client: &Client,
    plan: &LoadPlan,
    progress: &'static Progress,
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
    while tally.now() < end {
        let fetched = consumer.poll(QUIET).await?;
        let (count, bytes) =
            fetched.iter().fold((0, 0), |(c, b), f| (c + f.count, b + f.batches.len() as u64));
        tally.fetched(count, bytes, consumer.last_fetch());
        let done = count > 0 && budget.take(count) < count;
        if done || budget.is_empty() || (count == 0 && consumer.lag() <= 0) {
            break;
        }
    }
    Ok(())
}

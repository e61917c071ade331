//! What time and broken connections ask for: lingered batches, leaders that moved, answers that do not come.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Shared;
use super::state::{Batch, Node, Open, Partition, State};
use crate::client::{BrokerConnection, Error, KafkaClient};

/// How often requests and batches without an end are looked for.
const HOUSEKEEPING: Duration = Duration::from_millis(250);
/// Between two attempts to reach the leaders.
const RECONNECT: Duration = Duration::from_millis(100);

pub(super) async fn run(shared: Arc<Shared>, client: KafkaClient) {
    let mut clean_up_at = Instant::now() + HOUSEKEEPING;
    loop {
        let now = Instant::now();
        let (ended, stale, next) = {
            let mut state = shared.state.lock();
            if clean_up_at <= now {
                clean_up_at = now + HOUSEKEEPING;
                state.expire(now);
            }
            state.pump(now);
            let next = state.next_deadline(now).min(clean_up_at);
            state.looks_at = Some(next);
            let hung = state.hung(now);
            (std::mem::take(&mut state.ended).into_iter().chain(hung).collect::<Vec<_>>(), state.stale, next)
        };
        ended.iter().for_each(|connection| connection.close("given up"));
        drop(ended);
        shared.settled.notify_waiters();
        if stale && let Err(error) = refresh(&shared, &client).await {
            tracing::debug!(%error, "the leaders cannot be reached");
            tokio::time::sleep(RECONNECT).await;
            continue;
        }
        tokio::select! {
            () = shared.work.notified() => {}
            () = tokio::time::sleep_until(next.into()) => {}
        }
    }
}

/// Asks again for the leaders, and connects.
async fn refresh(shared: &Shared, client: &KafkaClient) -> Result<(), Error> {
    let names: Vec<_> = {
        let mut state = shared.state.lock();
        // Before the question: what fails while it is under way asks for another.
        state.stale = false;
        state.topics.iter().map(|topic| topic.name.clone()).collect()
    };
    let refreshed = async {
        for name in names {
            let topic = client.topic_now(&name, false).await?;
            shared.state.lock().place_partitions(&topic);
        }
        open_missing(shared, client).await
    };
    let refreshed = refreshed.await;
    if refreshed.is_err() {
        shared.state.lock().stale = true;
    }
    refreshed
}

/// Connects to every leader that there is no connection to.
pub(super) async fn open_missing(shared: &Shared, client: &KafkaClient) -> Result<(), Error> {
    loop {
        let missing = {
            let state = shared.state.lock();
            let wanted = |node: &&Node| node.connection.is_none() && !node.partitions.is_empty();
            state.nodes.iter().find(wanted).map(|node| node.id)
        };
        let Some(id) = missing else { return Ok(()) };
        let connection = Arc::new(client.open(id).await?);
        let mut state = shared.state.lock();
        if let Some(node) = state.nodes.iter_mut().find(|node| node.id == id) {
            let before = node.connection.replace(connection);
            state.ended.extend(before);
        }
        state.pump(Instant::now());
    }
}

impl State {
    /// When the upkeep task has to look again: the next batch that has lingered enough or may be tried again. What is due
    /// already waits for an answer, not for time.
    fn next_deadline(&mut self, now: Instant) -> Instant {
        let linger = self.options.linger;
        let lingers = |p: &Partition| p.open.as_ref().map(|open: &Open| open.since + linger);
        let retries = |p: &Partition| p.retry_at.filter(|_| !p.ready.is_empty());
        let partitions = || self.topics.iter().flat_map(|t| &t.partitions);
        let ahead =
            partitions().flat_map(|p| [lingers(p), retries(p)]).flatten().filter(|&at| at > now).min();
        self.due_at = ahead;
        ahead.unwrap_or(now + HOUSEKEEPING)
    }

    /// Gives up what was tried for too long, or stands behind a gap.
    fn expire(&mut self, now: Instant) {
        for topic in 0..self.topics.len() {
            for partition in 0..self.topics[topic].partitions.len() {
                let at = (topic, partition);
                if self.partition(at).broken.is_some() {
                    self.close(at);
                }
                while let Some((batch, error)) = self.late(at, now) {
                    self.give_up(at, batch, error);
                }
            }
        }
    }

    fn late(&mut self, at: (usize, usize), now: Instant) -> Option<(Batch, Error)> {
        let limit = self.options.delivery_timeout;
        let partition = self.partition(at);
        let late = |batch: &Batch| batch.since + limit <= now && partition.in_flight == 0;
        let error = match (&partition.broken, partition.ready.front()) {
            (Some(error), _) => error.clone(),
            (None, Some(batch)) if late(batch) => {
                let timeout = || Error::Timeout { what: "a batch of records", after: limit };
                batch.failed.clone().unwrap_or_else(timeout)
            }
            _ => return None,
        };
        partition.ready.pop_front().map(|batch| (batch, error))
    }

    /// Connections whose oldest request should have been answered by now.
    fn hung(&self, now: Instant) -> Vec<Arc<BrokerConnection>> {
        // The broker itself answers with a timeout at the request's limit; it gets some time beyond that.
        let limit = self.options.request_timeout + self.options.request_timeout / 2;
        let hung = self.nodes.iter().filter(|n| n.sent.front().is_some_and(|sent| sent.at + limit <= now));
        hung.filter_map(|node| node.connection.clone()).collect()
    }
}

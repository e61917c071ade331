//! A topic's records as they come, for a client that has given credit.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};

use sabir_broker::{Broker, Caller, ReadTarget, Topic};
use sabir_model::{Offset, ReadError};

use crate::records::{Shown, shown};

/// Bytes read of a partition at a time.
const AT_ONCE: usize = 64 * 1024;

/// How far a subscription has read each partition.
type Positions = Vec<PartitionPosition>;
type Reading = Pin<Box<dyn Future<Output = Result<(Positions, Vec<Shown>), ReadError>>>>;

struct PartitionPosition {
    index: i32,
    target: ReadTarget,
    next: Offset,
}

pub(crate) struct Subscription {
    pub(crate) number: u64,
    broker: Broker,
    /// What was read and not sent.
    ready: VecDeque<Shown>,
    reading: Reading,
}

impl Subscription {
    /// One to all partitions of a topic, from their ends on.
    pub(crate) fn begin(
        number: u64,
        broker: Broker,
        caller: &Caller,
        topic: &Topic,
    ) -> Result<Self, ReadError> {
        let mut positions = Positions::new();
        for partition in &topic.partitions {
            let target = ReadTarget::new(caller, topic, partition.index)?;
            let next = broker.partition_stats(target)?.end;
            positions.push(PartitionPosition { index: partition.index, target, next });
        }
        let reading = Box::pin(next(broker.clone(), positions));
        Ok(Self { number, broker, ready: VecDeque::new(), reading })
    }

    /// The next record, when there is one; the task is woken when there may be.
    pub(crate) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Shown, ReadError>> {
        while self.ready.is_empty() {
            match self.reading.as_mut().poll(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Ready(Ok((positions, records))) => {
                    self.ready.extend(records);
                    self.reading = Box::pin(next(self.broker.clone(), positions));
                }
            }
        }
        Poll::Ready(Ok(self.ready.pop_front().expect("it is not empty")))
    }
}

/// Waits for records behind the positions, and moves these behind what is found.
async fn next(broker: Broker, mut positions: Positions) -> Result<(Positions, Vec<Shown>), ReadError> {
    let targets: Vec<_> = positions.iter().map(|position| position.target).collect();
    loop {
        // Before the look: what comes between the two is not missed.
        let watch = broker.watch(&targets, 1);
        let mut found = Vec::new();
        for position in &mut positions {
            found.extend(read(&broker, position).await?);
        }
        if !found.is_empty() {
            return Ok((positions, found));
        }
        watch.await;
    }
}

async fn read(broker: &Broker, position: &mut PartitionPosition) -> Result<Vec<Shown>, ReadError> {
    let next = position.next;
    let fetched = match broker.read(position.target, next, AT_ONCE, true).await {
        // Retention was faster than the client.
        Err(ReadError::OutOfRange { start, .. }) if start > next => {
            position.next = start;
            return Ok(Vec::new());
        }
        Err(ReadError::Deleted) => return Ok(Vec::new()),
        fetched => fetched?,
    };
    position.next = fetched.slices.last().map_or(next, |slice| slice.next_offset);
    Ok(shown(broker, &fetched, position.index, next))
}

//! A topic's records as they come, for a client that has given credit.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use sabir_broker::{Caller, ReadPosition, ReadTarget, Topic};
use sabir_model::{ErrorAbout, ReadError};

use crate::frontend::ProbeFrontend;
use crate::records::{READ_BYTES, Shown};

/// How far a subscription has read each partition.
type Positions = Vec<ReadPosition>;
type Reading = Pin<Box<dyn Future<Output = Result<(Positions, Vec<Shown>), ErrorAbout<ReadError>>>>>;

pub(crate) struct Subscription {
    pub(crate) number: u64,
    probe: Arc<ProbeFrontend>,
    /// What was read and not sent.
    ready: VecDeque<Shown>,
    reading: Reading,
}

impl Subscription {
    /// One to all partitions of a topic, from their ends on.
    pub(crate) fn begin(
        number: u64,
        probe: Arc<ProbeFrontend>,
        caller: &Caller,
        topic: &Topic,
    ) -> Result<Self, ErrorAbout<ReadError>> {
        let mut positions = Positions::new();
        for partition in &topic.partitions {
            let target = ReadTarget::new(caller, topic, partition.index)?;
            let next = probe.broker.partition_stats(target)?.end;
            positions.push(ReadPosition { target, next });
        }
        let reading = Box::pin(next(probe.clone(), positions));
        Ok(Self { number, probe, ready: VecDeque::new(), reading })
    }

    /// The next record, when there is one; the task is woken when there may be.
    pub(crate) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Shown, ErrorAbout<ReadError>>> {
        while self.ready.is_empty() {
            match self.reading.as_mut().poll(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Ready(Ok((positions, records))) => {
                    self.ready.extend(records);
                    self.reading = Box::pin(next(self.probe.clone(), positions));
                }
            }
        }
        Poll::Ready(Ok(self.ready.pop_front().expect("it is not empty")))
    }
}

/// Waits for records behind the positions, and moves these behind what is found.
async fn next(
    probe: Arc<ProbeFrontend>,
    mut positions: Positions,
) -> Result<(Positions, Vec<Shown>), ErrorAbout<ReadError>> {
    loop {
        let mut all = Vec::new();
        for (index, fetched) in probe.broker.read_on(&mut positions, READ_BYTES).await? {
            let ReadPosition { target, next } = positions[index];
            let (records, behind) = probe.shown(target, index as i32, next, fetched).await?;
            positions[index].next = behind;
            all.extend(records);
        }
        if !all.is_empty() {
            return Ok((positions, all));
        }
    }
}

//! A topic's records as they come, for a client that has given credit.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use sabir_broker::{Caller, Follower, ReadPosition, ReadTarget, Topic};
use sabir_model::{ErrorAbout, ReadError, Subject};

use crate::frontend::ProbeFrontend;
use crate::records::{READ_BYTES, Shown};

type Reading = Pin<Box<dyn Future<Output = Result<(Follower, Vec<Shown>), ErrorAbout<ReadError>>>>>;

pub(crate) struct Subscription {
    pub(crate) number: u64,
    /// The topic's name: when that is gone, nothing else knows it.
    topic: Box<str>,
    /// Partitions that it follows.
    pub(crate) partitions: usize,
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
        let mut positions = Vec::new();
        for partition in &topic.partitions {
            let target = ReadTarget::new(caller, topic, partition.index)?;
            let next = probe.broker.partition_stats(target)?.end;
            positions.push(ReadPosition { target, next });
        }
        let partitions = positions.len();
        let reading = Box::pin(next(probe.clone(), probe.broker.follow(positions)));
        let topic = (*topic.name).into();
        Ok(Self { number, topic, partitions, probe, ready: VecDeque::new(), reading })
    }

    /// The next record, when there is one; the task is woken when there may be.
    pub(crate) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Shown, ErrorAbout<ReadError>>> {
        while self.ready.is_empty() {
            match self.reading.as_mut().poll(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(error)) => {
                    return Poll::Ready(Err(error.or_about(|| Subject::Topic(self.topic.clone()))));
                }
                Poll::Ready(Ok((follower, records))) => {
                    self.ready.extend(records);
                    self.reading = Box::pin(next(self.probe.clone(), follower));
                }
            }
        }
        Poll::Ready(Ok(self.ready.pop_front().expect("it is not empty")))
    }
}

/// Waits for records behind the positions, and moves these behind what is found.
async fn next(
    probe: Arc<ProbeFrontend>,
    mut follower: Follower,
) -> Result<(Follower, Vec<Shown>), ErrorAbout<ReadError>> {
    loop {
        let mut all = Vec::new();
        for (index, fetched) in follower.next(READ_BYTES).await? {
            let ReadPosition { target, next } = follower.position(index);
            let (records, behind) = probe.shown(target, index as i32, next, fetched).await?;
            follower.go_on_at(index, behind);
            all.extend(records);
        }
        if !all.is_empty() {
            return Ok((follower, all));
        }
    }
}

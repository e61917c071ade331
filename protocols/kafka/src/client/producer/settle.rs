//! What becomes of batches: written, tried again, given up.

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::state::{Batch, Sent, State};
use super::{Delivery, Shared};
use crate::client::Error;
use crate::wire::messages::produce::{PartitionProduceResponse, ProduceRequest, ProduceResponse};
use crate::wire::{ApiKey, ErrorCode};

/// Before a batch is tried again.
const BACKOFF: Duration = Duration::from_millis(100);

/// A batch with what the broker said to it: the first record's offset or an error.
pub(super) type Outcome = ((usize, usize), Batch, Result<i64, Error>);

impl Shared {
    /// A request was answered, or its connection ended.
    pub(super) fn answered(&self, node: usize, request: u64, frame: Result<Bytes, Error>) {
        let now = Instant::now();
        let (ended, wants_upkeep) = {
            let mut state = self.state.lock();
            state.answered(node, request, frame, now);
            state.pump(now);
            (std::mem::take(&mut state.ended), state.wants_upkeep())
        };
        drop(ended);
        self.settled.notify_waiters();
        if wants_upkeep {
            self.work.notify_one();
        }
    }
}

impl State {
    fn answered(&mut self, node: usize, request: u64, frame: Result<Bytes, Error>, now: Instant) {
        let place = self.nodes[node].sent.iter().position(|sent| sent.request == request);
        let Some(sent) = place.and_then(|place| self.nodes[node].sent.remove(place)) else { return };
        if self.nodes[node].connection.as_ref().is_some_and(|c| c.is_closed()) {
            self.lost(node);
        }
        let outcomes = match frame.and_then(|frame| self.read_answer(&sent, &frame)) {
            Ok(answer) => outcomes(sent, answer.as_ref()),
            Err(error) => {
                sent.batches.into_iter().map(|(at, batch)| (at, batch, Err(error.clone()))).collect()
            }
        };
        self.settle(outcomes, now);
    }

    /// `None` for a request that has no answer.
    fn read_answer(&self, sent: &Sent, frame: &Bytes) -> Result<Option<ProduceResponse>, Error> {
        if frame.is_empty() {
            return Ok(None);
        }
        let decoded = crate::wire::decode_response::<ProduceRequest>(frame, sent.version, 64 << 20);
        decoded
            .map(|(_, response)| Some(response))
            .map_err(|source| Error::Wire { api: ApiKey::Produce, source })
    }

    pub(super) fn settle(&mut self, outcomes: Vec<Outcome>, now: Instant) {
        for (at, batch, outcome) in outcomes {
            self.partition(at).in_flight -= 1;
            match outcome {
                Ok(offset) => self.written(at, batch, offset),
                Err(Error::Broker { code: ErrorCode::DuplicateSequenceNumber, .. }) => {
                    self.written(at, batch, -1)
                }
                Err(error) => self.failed(at, batch, error, now),
            }
        }
    }

    fn written(&mut self, at: (usize, usize), batch: Batch, offset: i64) {
        self.partition(at).retry_at = None;
        self.deliver(at, batch, Ok(offset));
    }

    fn failed(&mut self, at: (usize, usize), mut batch: Batch, error: Error, now: Instant) {
        let passes = error.retriable() || self.waits_for_an_earlier_one(at, &batch, &error);
        // What would be tried too late fails now: the caller that waits is to hear why.
        if passes && now + BACKOFF < batch.since + self.options.delivery_timeout {
            self.stale = true;
            tracing::debug!(%error, "a batch is tried again");
            batch.failed = Some(error);
            return self.partition(at).requeue(batch, now + BACKOFF);
        }
        self.give_up(at, batch, error);
    }

    /// A numbered batch is out of order while one before it is still to be tried again.
    fn waits_for_an_earlier_one(&mut self, at: (usize, usize), batch: &Batch, error: &Error) -> bool {
        if error.code() != Some(ErrorCode::OutOfOrderSequenceNumber) || self.identity.is_none() {
            return false;
        }
        let waits = self.partition(at).ready.front().is_some_and(|first| first.number < batch.number);
        let sent = self.nodes.iter().flat_map(|n| &n.sent).flat_map(|s| &s.batches);
        waits || sent.into_iter().any(|(other, b)| *other == at && b.number < batch.number)
    }

    /// Numbered batches behind the one that failed leave a gap in front of them: they fail with it.
    pub(super) fn give_up(&mut self, at: (usize, usize), batch: Batch, error: Error) {
        self.deliver(at, batch, Err(error.clone()));
        if self.identity.is_none() {
            return;
        }
        self.close(at);
        let behind = std::mem::take(&mut self.partition(at).ready);
        self.partition(at).broken = Some(error.clone());
        for batch in behind {
            self.deliver(at, batch, Err(error.clone()));
        }
    }

    fn deliver(&mut self, (topic, partition): (usize, usize), batch: Batch, result: Result<i64, Error>) {
        self.buffered -= batch.held;
        let delivery = Delivery {
            topic: &self.topics[topic].name,
            partition: partition as i32,
            records: batch.records as u32,
            bytes: batch.bytes.len(),
            result: result.as_ref().copied(),
            stamps: &batch.stamps,
        };
        if let Some(on_delivery) = &mut self.on_delivery {
            on_delivery(&delivery);
        }
        for (index, waiter) in batch.waiters {
            let result = result.clone().map(|first| if first < 0 { first } else { first + i64::from(index) });
            // The task that waited may have gone.
            let _ = waiter.send(result);
        }
        self.recycle(batch.bytes, batch.stamps);
    }
}

/// Matches the answer with what was sent, in whatever order it comes.
fn outcomes(sent: Sent, answer: Option<&ProduceResponse>) -> Vec<Outcome> {
    let Some(answer) = answer else {
        return sent.batches.into_iter().map(|(at, batch)| (at, batch, Ok(-1))).collect();
    };
    // Topics were sent in rows, so the answer's rows are in the same order; within one, partitions are found by number.
    let mut row = 0;
    let mut last = None;
    let mut outcomes = Vec::with_capacity(sent.batches.len());
    for (i, (at, batch)) in sent.batches.into_iter().enumerate() {
        if last.is_some_and(|last| last != at.0) {
            row += 1;
        }
        last = Some(at.0);
        let partitions = answer.responses.get(row).map_or(&[][..], |r| &r.partition_responses);
        outcomes.push((at, batch, result_of(partitions, i, at.1 as i32)));
    }
    outcomes
}

fn result_of(partitions: &[PartitionProduceResponse], likely: usize, index: i32) -> Result<i64, Error> {
    let found = partitions.get(likely).filter(|p| p.index == index);
    let found = found.or_else(|| partitions.iter().find(|p| p.index == index));
    let Some(found) = found else {
        let code = ErrorCode::UnknownServerError;
        return Err(Error::Broker {
            api: ApiKey::Produce,
            code,
            message: format!("no answer for partition {index}"),
        });
    };
    let message = || match &found.error_message {
        Some(message) => format!("partition {index}: {message}"),
        None => format!("partition {index}"),
    };
    Error::check(ApiKey::Produce, found.error_code, message).map(|()| found.base_offset)
}

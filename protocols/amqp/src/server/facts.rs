//! What queues must know of messages without looking into their records.

use sabir_broker::PublishTargets;
use sabir_model::batch::BatchBuilder;
use sabir_model::{Facts, QueueConfig, RecordFacts};

use super::records::Envelope;
use crate::wire::*;

/// The facts of a batch's messages, where a target asks for them.
#[derive(Debug, Default)]
pub(super) struct BatchFacts {
    facts: Option<RecordFacts>,
    /// Whether messages are kept back until their time.
    delays: bool,
    /// Whether messages are known by their ids.
    dedups: bool,
}

impl BatchFacts {
    /// Those of no message yet, of a batch for these targets.
    pub(super) fn of(targets: &PublishTargets) -> Self {
        let queues = || targets.targets().iter().filter_map(|target| target.topic().config.queue());
        let delays = queues().any(|queue| queue.delays);
        let dedups = queues().any(|queue| queue.dedup_window_ms.is_some());
        let asks = delays || dedups || queues().any(|queue| asks(queue));
        Self { facts: asks.then(RecordFacts::new), delays, dedups }
    }

    /// Whether messages are kept back until their time.
    pub(super) fn delays(&self) -> bool {
        self.delays
    }

    /// Adds those of the next message, whose time that is; the batch has the earlier ones. One that expires has facts, whatever the targets ask for.
    pub(super) fn push(
        &mut self,
        earlier: &BatchBuilder,
        time_ms: i64,
        envelope: &Envelope<'_>,
        body: &[u8],
    ) {
        // What is kept back expires once it is routed.
        let expires_ms = if self.delays { None } else { envelope.expires_ms(time_ms) };
        if expires_ms.is_some() {
            self.facts.get_or_insert_with(|| facts_of(earlier));
        }
        if let Some(all) = &mut self.facts {
            let deliver_at_ms = self.delays.then_some(time_ms);
            let message_id = if self.dedups { message_id(envelope.properties) } else { None };
            let facts = Facts { deliver_at_ms, expires_ms, message_id, ..of(envelope, body) };
            all.push(facts).expect("no group is there, and a message id has 255 bytes at the most");
        }
    }

    pub(super) fn take(self) -> Option<RecordFacts> {
        self.facts
    }
}

/// Those of a batch's messages of which nothing was to be known: each is its part of the batch.
fn facts_of(batch: &BatchBuilder) -> RecordFacts {
    let (count, mut all) = (batch.count(), RecordFacts::new());
    let size = u32::try_from(batch.bytes() / count.max(1) as usize).unwrap_or(u32::MAX);
    for _ in 0..count {
        all.push(Facts { size, ..Facts::default() }).expect("neither group nor message id is there");
    }
    all
}

/// What a message says to queues.
pub(super) fn of(envelope: &Envelope<'_>, body: &[u8]) -> Facts {
    let size = u32::try_from(body.len()).unwrap_or(u32::MAX);
    Facts { size, priority: priority(envelope.properties), ..Facts::default() }
}

/// What a message is known by: it says so itself. An empty one is none.
pub(super) fn message_id(properties: &[u8]) -> Option<Box<[u8]>> {
    if !BasicProperties::has_message_id(properties) {
        return None;
    }
    let id = BasicProperties::read_again(properties).message_id?.as_bytes();
    (!id.is_empty()).then(|| id.into())
}

/// Whether a queue wants to know more of a message than its part of a batch says.
fn asks(queue: &QueueConfig) -> bool {
    queue.max_priority.is_some() || queue.max_length_bytes.is_some()
}

fn priority(properties: &[u8]) -> Option<u8> {
    if !BasicProperties::has_priority(properties) {
        return None;
    }
    BasicProperties::read_again(properties).priority.filter(|priority| *priority > 0)
}

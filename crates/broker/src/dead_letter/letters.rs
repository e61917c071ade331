//! One entry of dead letters in the making.

use sabir_delivery::policy::DeathReason;
use sabir_delivery::subscription::SubscriptionNo;
use sabir_model::batch::{BatchBuilder, BatchHeader, Compression};
use sabir_model::{Facts, FrontendNo, PartitionId, RecordFacts};

use super::target::LetterTargets;
use crate::caller::Caller;
use crate::entry::{DeadLettered, DeadLetters, PublishedLetters};

/// Messages of one entry, and bytes of its batches, about.
const MOST: u64 = 1024;
const MOST_BYTES: usize = 256 << 10;
/// A batch that is larger is published by itself.
const LARGEST: usize = 512 << 10;

/// Messages in a row that go to the same targets.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) queue: PartitionId,
    pub(super) first: u64,
    pub(super) count: u32,
    pub(super) reason: DeathReason,
    pub(super) caller: Caller,
    pub(super) origin: FrontendNo,
    pub(super) targets: LetterTargets,
    pub(super) batch: BatchBuilder,
    pub(super) facts: RecordFacts,
}

impl Group {
    /// Whether a message belongs to it that stands at that place.
    pub(super) fn goes_on(&self, offset: u64, reason: DeathReason, targets: &LetterTargets) -> bool {
        self.first + u64::from(self.count) == offset
            && self.reason == reason
            && self.targets.are(targets)
            && self.batch.bytes() < MOST_BYTES
    }

    /// Whether it does not fit an entry.
    pub(super) fn is_large(&self) -> bool {
        self.batch.bytes() > LARGEST
    }

    /// What queues must know of its messages, if anything.
    pub(super) fn said(&self) -> Option<RecordFacts> {
        let says = self.facts.runs().any(|(_, facts)| *facts != Facts::default());
        says.then(|| self.facts.clone())
    }
}

/// What an entry is to say.
#[derive(Debug, Default)]
pub(super) struct Letters {
    pub(super) body: DeadLettered,
    pub(super) payload: Vec<u8>,
    /// The queues that it is about.
    pub(super) queues: Vec<SubscriptionNo>,
    /// How many messages of it go somewhere, by reason.
    pub(super) published: [u64; 4],
    messages: u64,
}

impl Letters {
    /// Whether no further message is to come.
    pub(super) fn is_full(&self, open: Option<&Group>) -> bool {
        let (count, bytes) = open.map_or((0, 0), |group| (group.count.into(), group.batch.bytes()));
        self.messages + count >= MOST || self.payload.len() + bytes >= MOST_BYTES
    }

    /// How many more messages it may name.
    pub(super) fn room(&self) -> u64 {
        MOST.saturating_sub(self.messages)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.body.letters.is_empty()
    }

    /// Adds a message that goes nowhere, or is where it goes.
    pub(super) fn settle(&mut self, queue: PartitionId, first: u64, count: u32, reason: DeathReason) {
        self.messages += u64::from(count);
        let last = self.body.letters.last_mut().filter(|last| {
            last.published.is_none()
                && (last.queue, last.reason) == (queue, reason)
                && last.first + u64::from(last.count) == first
        });
        match last {
            Some(last) => last.count += count,
            None => self.body.letters.push(DeadLetters { queue, first, count, reason, published: None }),
        }
    }

    /// Adds messages that are published in their shard.
    pub(super) fn publish(&mut self, group: Group) {
        self.messages += u64::from(group.count);
        let facts = group.said().map(Box::new);
        let Group { queue, first, count, reason, origin, targets, batch, .. } = group;
        let batch = batch.build();
        let max_ts = BatchHeader::parse(&batch).map_or(-1, |header| header.max_timestamp);
        let len = u32::try_from(batch.len()).expect("what is large is published by itself");
        let published = PublishedLetters { targets: targets.ids_here(), max_ts, origin, len, facts };
        self.payload.extend_from_slice(&batch);
        self.body.letters.push(DeadLetters { queue, first, count, reason, published: Some(published) });
    }
}

/// A batch for one group's messages.
pub(super) fn empty_batch() -> BatchBuilder {
    BatchBuilder::new(Compression::None)
}

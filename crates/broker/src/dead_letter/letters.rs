//! One entry of dead letters in the making.

use sabir_delivery::policy::DeathReason;
use sabir_delivery::subscription::SubscriptionNo;
use sabir_model::batch::{BatchBuilder, BatchHeader, Compression};
use sabir_model::{Facts, FrontendNo, RecordFacts};

use super::target::LetterTargets;
use super::waiting::Dropped;
use crate::caller::Caller;
use crate::entry::{DeadLettered, DeadLetters, PublishedLetters};

/// Messages of one entry, bytes of its batches and of what is said of their records, and targets that it names, about.
const MOST: u64 = 1024;
const MOST_BYTES: usize = 256 << 10;
const MOST_TARGETS: usize = 8192;
/// A batch that is larger, or is for more targets, is published by itself.
const LARGEST: usize = 512 << 10;
const LARGEST_TARGETS: usize = 4096;
/// Bytes that a record takes beside its key, value and headers in a batch, at the most.
const RECORD_OVERHEAD: usize = 64;

/// What is published of a message.
#[derive(Debug, Clone, Copy)]
pub(super) struct LetterRecord<'a> {
    pub(super) key: Option<&'a [u8]>,
    pub(super) value: Option<&'a [u8]>,
    pub(super) headers: &'a [(&'a [u8], Option<&'a [u8]>)],
    pub(super) facts: &'a Facts,
}

/// Messages in a row that go to the same targets.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) queue: SubscriptionNo,
    pub(super) first: u64,
    pub(super) count: u32,
    pub(super) reason: DeathReason,
    pub(super) caller: Caller,
    pub(super) origin: FrontendNo,
    pub(super) targets: LetterTargets,
    pub(super) batch: BatchBuilder,
    pub(super) facts: RecordFacts,
    /// Bytes that the names in the facts have.
    pub(super) facts_bytes: usize,
    /// Copies of its messages that go nowhere.
    pub(super) dropped: Dropped,
}

impl Group {
    /// Whether a message of so many bytes belongs to it that stands at that place.
    pub(super) fn goes_on(
        &self,
        (offset, reason): (u64, DeathReason),
        targets: &LetterTargets,
        bytes: usize,
    ) -> bool {
        self.end() == offset
            && self.reason == reason
            && self.bytes() < MOST_BYTES
            && self.batch.bytes() + bytes <= self.targets.most_bytes()
            && self.targets.are(targets)
    }

    /// The offset behind its last message.
    pub(super) fn end(&self) -> u64 {
        self.first + u64::from(self.count)
    }

    fn bytes(&self) -> usize {
        self.batch.bytes() + self.facts_bytes
    }

    /// Adds its next message.
    pub(super) fn push(&mut self, time_ms: i64, letter: &LetterRecord<'_>, dropped: Dropped) {
        self.batch.push(time_ms, letter.key, letter.value, letter.headers);
        let facts = letter.facts.clone();
        self.facts_bytes += names_of(&facts);
        if self.facts.push(facts).is_err() {
            self.facts.push(Facts::default()).expect("it has no names");
        }
        self.dropped.add(dropped);
        self.count += 1;
    }

    /// Whether it does not fit an entry.
    pub(super) fn is_large(&self) -> bool {
        self.bytes() > LARGEST || self.targets.here.len() > LARGEST_TARGETS
    }

    /// What queues must know of its messages, if anything.
    pub(super) fn said(&self) -> Option<&RecordFacts> {
        let says = self.facts.runs().any(|(_, facts)| *facts != Facts::default());
        says.then_some(&self.facts)
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
    /// Messages and copies that go nowhere.
    pub(super) dropped: Dropped,
    messages: u64,
    targets: usize,
    facts_bytes: usize,
}

impl Letters {
    /// Whether no further message is to come.
    pub(super) fn is_full(&self, open: Option<&Group>) -> bool {
        let of = |group: &Group| (u64::from(group.count), group.bytes(), group.targets.here.len());
        let (count, bytes, targets) = open.map_or((0, 0, 0), of);
        self.messages + count >= MOST
            || self.payload.len() + self.facts_bytes + bytes >= MOST_BYTES
            || self.targets + targets >= MOST_TARGETS
    }

    /// How many more messages it may name.
    pub(super) fn room(&self) -> u64 {
        MOST.saturating_sub(self.messages)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.body.letters.is_empty()
    }

    /// Adds a message that goes nowhere, or is where it goes.
    pub(super) fn settle(&mut self, queue: SubscriptionNo, first: u64, count: u32, reason: DeathReason) {
        self.add(DeadLetters { queue, first, count, reason, published: None, stay: false });
    }

    /// Adds a message that stays where it is.
    pub(super) fn keep(&mut self, queue: SubscriptionNo, first: u64, reason: DeathReason) {
        self.add(DeadLetters { queue, first, count: 1, reason, published: None, stay: true });
    }

    fn add(&mut self, letter: DeadLetters) {
        self.messages += u64::from(letter.count);
        let last = self.body.letters.last_mut().filter(|last| {
            last.published.is_none()
                && (last.queue, last.reason, last.stay) == (letter.queue, letter.reason, letter.stay)
                && last.first + u64::from(last.count) == letter.first
        });
        match last {
            Some(last) => last.count += letter.count,
            None => self.body.letters.push(letter),
        }
    }

    /// Adds messages that are published in their shard.
    pub(super) fn publish(&mut self, group: Group) {
        self.messages += u64::from(group.count);
        self.targets += group.targets.here.len();
        self.facts_bytes += group.facts_bytes;
        let facts = group.said().cloned().map(Box::new);
        let Group { queue, first, count, reason, origin, targets, batch, .. } = group;
        let batch = batch.build();
        let max_ts = BatchHeader::parse(&batch).map_or(-1, |header| header.max_timestamp);
        let len = u32::try_from(batch.len()).expect("what is large is published by itself");
        let published = PublishedLetters { targets: targets.ids_here(), max_ts, origin, len, facts };
        self.payload.extend_from_slice(&batch);
        let published = Some(published);
        self.body.letters.push(DeadLetters { queue, first, count, reason, published, stay: false });
    }
}

/// Bytes that a message takes in a batch, at the most.
pub(super) fn bytes_of(letter: &LetterRecord<'_>) -> usize {
    let len = |of: Option<&[u8]>| of.map_or(0, <[u8]>::len);
    let headers = letter.headers.iter().map(|(key, value)| key.len() + len(*value) + RECORD_OVERHEAD);
    len(letter.key) + len(letter.value) + headers.sum::<usize>() + RECORD_OVERHEAD
}

fn names_of(facts: &Facts) -> usize {
    [&facts.group, &facts.message_id].into_iter().flatten().map(|name| name.len()).sum()
}

/// A batch for one group's messages.
pub(super) fn empty_batch() -> BatchBuilder {
    BatchBuilder::new(Compression::None)
}

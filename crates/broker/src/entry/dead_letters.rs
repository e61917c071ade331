//! Entries of dead letters: messages that their queues gave up are published elsewhere.

use std::iter::once;
use std::ops::Range;

use sabir_delivery::policy::DeathReason;
use sabir_delivery::subscription::{
    HeldBy, MessageOwner, Operation, RangesBuffer, Settlement, SubscriptionNo,
};
use sabir_model::{DecodeError, FrontendNo, PartitionId, RecordFacts};

use super::{AppendBody, Body, DeliveryError, DeliveryOutcome, Targets, kind};
use crate::codec::{Reader, put_i64, put_len, put_u32, put_u64};

const FORM: u8 = 1;
/// Marks of letters: they are published, what queues must know of them is said, and they stay where they are.
const PUBLISHED: u8 = 1 << 0;
const FACTS: u8 = 1 << 1;
const STAY: u8 = 1 << 2;

/// Messages that wait in their queues to be published elsewhere are done with there, and stand where they are published: version 1 · list of
/// letters, as [`DeadLetters`]. The payload is their batches, one after the other.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct DeadLettered {
    pub(crate) letters: Vec<DeadLetters>,
}

/// Messages of one queue in a row, and the batch in which they are published: marks u8 (1 published, 2 facts, 4 they stay, being ready again) ·
/// subscription, a queue's partition or a topic's subscription · first offset · how many
/// · reason u8 · if they are published: list of targets · largest timestamp, signed · origin · bytes of the batch, which has as many records ·
/// facts, if marked. Those that are not published, and do not stay, are dropped, or were published in another shard before. Of those that are
/// redriven what its target refuses stays as well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DeadLetters {
    pub(crate) queue: SubscriptionNo,
    pub(crate) first: u64,
    pub(crate) count: u32,
    pub(crate) reason: DeathReason,
    pub(crate) published: Option<PublishedLetters>,
    pub(crate) stay: bool,
}

/// A batch in which dead letters are published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PublishedLetters {
    pub(crate) targets: Vec<PartitionId>,
    pub(crate) max_ts: i64,
    /// The front end that built it.
    pub(crate) origin: FrontendNo,
    pub(crate) len: u32,
    pub(crate) facts: Option<Box<RecordFacts>>,
}

impl DeadLettered {
    /// Bytes of all batches.
    pub(crate) fn bytes(&self) -> u64 {
        self.letters.iter().map(|letter| u64::from(letter.len())).sum()
    }
}

impl DeadLetters {
    /// Bytes of its batch.
    pub(crate) fn len(&self) -> u32 {
        self.published.as_ref().map_or(0, |published| published.len)
    }

    /// The messages.
    pub(crate) fn offsets(&self) -> Range<u64> {
        self.first..self.first.saturating_add(self.count.into())
    }

    pub(crate) fn ranges(&self) -> RangesBuffer {
        RangesBuffer::of(once(self.offsets()))
    }

    /// So many at the front, and the others.
    pub(crate) fn parts(&self, front: u32) -> [RangesBuffer; 2] {
        let Range { start, end } = self.offsets();
        let middle = start.saturating_add(front.into()).min(end);
        [start..middle, middle..end].map(|part| RangesBuffer::of(once(part)))
    }

    fn held_by(&self) -> HeldBy {
        HeldBy::Owner(MessageOwner::DeadLetter(self.reason))
    }

    /// They are done with, if they wait.
    pub(crate) fn settled<'a>(&self, ranges: &'a RangesBuffer) -> Operation<'a> {
        Operation::Settled { ranges: ranges.ranges(), held_by: self.held_by(), why: Settlement::DeadLettered }
    }

    /// They are ready again where they are, if they wait.
    pub(crate) fn back<'a>(&self, ranges: &'a RangesBuffer) -> Operation<'a> {
        let held_by = self.held_by();
        Operation::Returned { ranges: ranges.ranges(), held_by, counted: false, not_before_ms: 0 }
    }

    /// The append of its batch: what a queue has no room for is dropped.
    pub(crate) fn append(&self, published: &PublishedLetters) -> AppendBody {
        AppendBody {
            targets: Targets::Several(published.targets.clone()),
            records: self.count,
            max_ts: published.max_ts,
            stamped: false,
            origin: published.origin,
            producer: None,
            facts: published.facts.clone(),
            partial: true,
        }
    }

    fn put(&self, out: &mut Vec<u8>) {
        let facts = self.published.as_ref().and_then(|published| published.facts.as_ref());
        let mark = |on: bool, bit: u8| if on { bit } else { 0 };
        let marks = mark(self.published.is_some(), PUBLISHED) | mark(facts.is_some(), FACTS);
        out.push(marks | mark(self.stay, STAY));
        put_u64(out, self.queue.0);
        put_u64(out, self.first);
        put_u32(out, self.count);
        out.push(self.reason as u8);
        if let Some(PublishedLetters { targets, max_ts, origin, len, .. }) = &self.published {
            put_len(out, targets.len());
            targets.iter().for_each(|id| put_u64(out, id.0));
            put_i64(out, *max_ts);
            put_u32(out, origin.0.into());
            put_u32(out, *len);
        }
        facts.into_iter().for_each(|facts| facts.encode(out));
    }

    fn take(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let marks = input.u8()?;
        if marks & !(PUBLISHED | FACTS | STAY) != 0 || marks & STAY != 0 && marks != STAY || marks == FACTS {
            return Err(DecodeError::Version(marks));
        }
        let mut letter = Self {
            queue: SubscriptionNo(input.u64()?),
            first: input.u64()?,
            count: input.u32()?,
            reason: DeathReason::stored(input.u8()?)?,
            published: None,
            stay: marks & STAY != 0,
        };
        if letter.count == 0 {
            return Err(DecodeError::Field("number of records"));
        }
        if marks & PUBLISHED != 0 {
            letter.published = Some(take_published(input, marks, letter.count)?);
        }
        Ok(letter)
    }
}

fn take_published(input: &mut Reader<'_>, marks: u8, count: u32) -> Result<PublishedLetters, DecodeError> {
    let published = PublishedLetters {
        targets: input.list(1, Reader::partition)?,
        max_ts: input.i64()?,
        origin: input.front_end()?,
        len: input.u32()?,
        facts: if marks & FACTS == 0 { None } else { Some(Box::new(input.with(RecordFacts::decode)?)) },
    };
    let fit = published.facts.as_ref().is_none_or(|facts| facts.records() == u64::from(count));
    if fit { Ok(published) } else { Err(DecodeError::Field("number of facts")) }
}

impl Body for DeadLettered {
    const KIND: u16 = kind::DEAD_LETTERED;
    type Outcome = Result<DeliveryOutcome, DeliveryError>;

    fn encode(&self, out: &mut Vec<u8>) {
        out.push(FORM);
        put_len(out, self.letters.len());
        self.letters.iter().for_each(|letter| letter.put(out));
    }

    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut input = Reader::new(bytes);
        input.version(FORM)?;
        let body = Self { letters: input.list(5, DeadLetters::take)? };
        input.end()?;
        Ok(body)
    }
}

#[cfg(test)]
mod tests {
    use sabir_model::Facts;

    use super::*;

    #[test]
    fn dead_letters_are_stored_in_these_bytes() {
        let dropped = DeadLetters {
            queue: SubscriptionNo(5),
            first: 300,
            count: 2,
            reason: DeathReason::Expired,
            published: None,
            stay: false,
        };
        let mut facts = RecordFacts::new();
        facts.push(Facts { size: 4, ..Facts::default() }).unwrap();
        let published = PublishedLetters {
            targets: vec![PartitionId(6), PartitionId(7)],
            max_ts: 1,
            origin: FrontendNo(3),
            len: 70,
            facts: Some(Box::new(facts)),
        };
        let rejected = DeadLetters {
            queue: SubscriptionNo(6),
            first: 0,
            count: 1,
            reason: DeathReason::Rejected,
            published: Some(published),
            stay: false,
        };
        let stays = DeadLetters { reason: DeathReason::Redriven, stay: true, ..dropped.clone() };
        let body = DeadLettered { letters: vec![dropped, rejected, stays] };
        let mut out = Vec::new();
        body.encode(&mut out);
        let first = [0, 5, 0xac, 2, 2, 1];
        let second = [3, 6, 0, 1, 0, 2, 6, 7, 2, 3, 70, 1, 1, 1, 0, 4];
        let third = [4, 5, 0xac, 2, 2, 4];
        assert_eq!(out, [&[1, 3][..], &first, &second, &third].concat());
        assert_eq!(DeadLettered::decode(&out), Ok(body));
        assert!((0..out.len()).all(|len| DeadLettered::decode(&out[..len]).is_err()));
        for wrong in [[8, 5, 0, 1, 1], [5, 5, 0, 1, 1], [2, 5, 0, 1, 1], [0, 5, 0, 0, 1], [0, 5, 0, 1, 9]] {
            assert!(DeadLettered::decode(&[&[1, 1][..], &wrong].concat()).is_err(), "{wrong:?}");
        }
    }
}

//! What is remembered of an idempotent producer in a partition: its epoch and its last batches.

use sabir_journal::pages::{PageDecodeError, PageKey, PageValue};
use sabir_model::{AppendError, Offset, PartitionId, ProducerId};

use crate::codec::{Reader, put_i64, put_len, put_u32};
use crate::entry::Producer;

/// Batches remembered: as many as a producer may have in flight.
const WINDOW: usize = 5;

/// A producer in a partition; stored as both numbers, big-endian.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct ProducerKey {
    pub(crate) partition: PartitionId,
    pub(crate) producer: ProducerId,
}

impl PageKey for ProducerKey {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.partition.0.to_be_bytes());
        out.extend_from_slice(&self.producer.0.to_be_bytes());
    }

    fn decode(bytes: &[u8]) -> Result<Self, PageDecodeError> {
        let both: [u8; 16] =
            bytes.try_into().map_err(|_| PageDecodeError("a producer's key has 16 bytes".into()))?;
        let (partition, producer) = both.split_at(8);
        let number = |half: &[u8]| half.iter().fold(0u64, |n, &byte| n << 8 | u64::from(byte));
        Ok(Self { partition: PartitionId(number(partition)), producer: ProducerId(number(producer) as i64) })
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Seen {
    first: i32,
    records: u32,
    offset: Offset,
}

impl Seen {
    fn last(&self) -> i32 {
        advance(self.first, self.records - 1)
    }
}

/// Sequence numbers wrap to 0 after the largest.
fn advance(sequence: i32, by: u32) -> i32 {
    ((i64::from(sequence) + i64::from(by)) % (i64::from(i32::MAX) + 1)) as i32
}

/// What a batch is, by its producer's mark.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The next one.
    Next,
    /// Seen before, at this offset.
    Duplicate(Offset),
    /// Not acceptable.
    Refused(AppendError),
}

/// A producer's epoch and last batches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ProducerState {
    epoch: i16,
    window: Window,
    /// The time of the block with its last batch.
    pub(crate) last_ms: i64,
}

/// The last batches. Of producers that make ids up, and of many that come once, there is only one: it takes little.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Window {
    None,
    One(Seen),
    Some(Box<Last>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Last {
    len: u8,
    seen: [Seen; WINDOW],
}

impl Window {
    fn seen(&self) -> &[Seen] {
        match self {
            Self::None => &[],
            Self::One(seen) => std::slice::from_ref(seen),
            Self::Some(last) => &last.seen[..usize::from(last.len)],
        }
    }

    fn push(&mut self, next: Seen) {
        match self {
            Self::None => *self = Self::One(next),
            Self::One(first) => {
                let mut seen = [Seen::default(); WINDOW];
                (seen[0], seen[1]) = (*first, next);
                *self = Self::Some(Box::new(Last { len: 2, seen }));
            }
            Self::Some(last) => last.push(next),
        }
    }
}

impl Last {
    fn push(&mut self, next: Seen) {
        if usize::from(self.len) == WINDOW {
            self.seen.rotate_left(1);
            self.len -= 1;
        }
        self.seen[usize::from(self.len)] = next;
        self.len += 1;
    }
}

fn out_of_order(expected: i32, mark: &Producer) -> Verdict {
    Verdict::Refused(AppendError::OutOfOrderSequence { expected, got: mark.base_sequence })
}

impl ProducerState {
    /// One whose first batch is about to be taken. Any sequence will do: what came before may have been forgotten.
    pub(crate) fn new(epoch: i16) -> Self {
        Self { epoch, window: Window::None, last_ms: 0 }
    }

    fn seen(&self) -> &[Seen] {
        self.window.seen()
    }

    /// Whether it came back after its first batch in this epoch.
    pub(crate) fn came_back(&self) -> bool {
        matches!(self.window, Window::Some(_))
    }

    /// Judges a batch of `records` records.
    pub(crate) fn judge(&self, mark: &Producer, records: u32) -> Verdict {
        if mark.epoch < self.epoch {
            return Verdict::Refused(AppendError::FencedProducer { current: self.epoch, got: mark.epoch });
        }
        if mark.epoch > self.epoch {
            // What a producer sent without an epoch was in no order.
            let fresh = mark.base_sequence == 0 || self.epoch == Producer::NO_EPOCH;
            return if fresh { Verdict::Next } else { out_of_order(0, mark) };
        }
        let same = |seen: &&Seen| seen.first == mark.base_sequence && seen.records == records;
        if let Some(seen) = self.seen().iter().find(same) {
            return Verdict::Duplicate(seen.offset);
        }
        match self.seen().last() {
            Some(last) if mark.epoch != Producer::NO_EPOCH => match advance(last.last(), 1) {
                next if next == mark.base_sequence => Verdict::Next,
                next => out_of_order(next, mark),
            },
            _ => Verdict::Next,
        }
    }

    /// Takes the batch that was judged to be the next one.
    pub(crate) fn take(&mut self, mark: &Producer, records: u32, offset: Offset, now_ms: i64) {
        if mark.epoch != self.epoch {
            *self = Self::new(mark.epoch);
        }
        self.window.push(Seen { first: mark.base_sequence, records, offset });
        self.last_ms = now_ms;
    }
}

const FORM: u8 = 1;

impl PageValue for ProducerState {
    fn encode(&self, out: &mut Vec<u8>) {
        out.push(FORM);
        put_i64(out, self.epoch.into());
        put_i64(out, self.last_ms);
        put_len(out, self.seen().len());
        for seen in self.seen() {
            put_u32(out, seen.first as u32);
            put_u32(out, seen.records);
            put_i64(out, seen.offset.0);
        }
    }

    fn decode(bytes: &[u8]) -> Result<Self, PageDecodeError> {
        take(bytes).map_err(|error| PageDecodeError(error.to_string()))
    }
}

fn take(bytes: &[u8]) -> Result<ProducerState, sabir_model::DecodeError> {
    use sabir_model::DecodeError::Field;
    let mut input = Reader::new(bytes);
    input.version(FORM)?;
    let epoch = i16::try_from(input.i64()?).map_err(|_| Field("producer epoch"))?;
    let mut state = ProducerState::new(epoch);
    state.last_ms = input.i64()?;
    let seen = input.list(3, take_seen)?;
    if seen.len() > WINDOW {
        return Err(Field("number of batches"));
    }
    seen.into_iter().for_each(|seen| state.window.push(seen));
    input.end()?;
    Ok(state)
}

fn take_seen(input: &mut Reader<'_>) -> Result<Seen, sabir_model::DecodeError> {
    use sabir_model::DecodeError::Field;
    let first = i32::try_from(input.u32()?).map_err(|_| Field("sequence"))?;
    let records = input.u32()?;
    if records == 0 {
        return Err(Field("number of records"));
    }
    Ok(Seen { first, records, offset: input.offset()? })
}

//! Entries that bring records.

use sabir_model::{
    DecodeError, Extent, FrontendNo, Offset, Overlay, PartitionId, ProducerId, RecordFacts, ShardFailure,
};

use super::{Body, kind};
use crate::codec::{Reader, put_i64, put_len, put_u32, put_u64};
use crate::state::AppendOutcome;

const PRODUCER: u8 = 1 << 0;
const SEVERAL: u8 = 1 << 1;
const STAMPED: u8 = 1 << 2;
const ORIGIN: u8 = 1 << 3;
const EPOCHLESS: u8 = 1 << 4;
const FACTS: u8 = 1 << 5;
const PARTIAL: u8 = 1 << 6;
const KNOWN: u8 = PRODUCER | SEVERAL | STAMPED | ORIGIN | EPOCHLESS | FACTS | PARTIAL;

/// The partitions an entry is for; nearly always one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Targets {
    One(PartitionId),
    Several(Vec<PartitionId>),
}

impl Targets {
    pub(crate) fn as_slice(&self) -> &[PartitionId] {
        match self {
            Self::One(id) => std::slice::from_ref(id),
            Self::Several(ids) => ids,
        }
    }
}

/// An idempotent producer's mark on a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Producer {
    pub(crate) id: ProducerId,
    /// Not negative, or [`Producer::NO_EPOCH`].
    pub(crate) epoch: i16,
    pub(crate) base_sequence: i32,
}

impl Producer {
    /// The epoch of a producer that names none.
    pub(crate) const NO_EPOCH: i16 = -1;
}

/// A batch for partitions of this shard: flags u8 (1 producer, 2 several targets, 4 stamped, 8 origin, 16 producer without an epoch, 32
/// facts, 64 partial; 128 is kept for a second byte of them) · target, or a list of targets · offsets the batch covers · largest timestamp, signed · origin, if marked · producer id,
/// epoch unless marked as without, and base sequence, if marked · facts, if marked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AppendBody {
    pub(crate) targets: Targets,
    /// Offsets that the batch covers, at least 1.
    pub(crate) records: u32,
    /// The largest timestamp in it, or the stamp.
    pub(crate) max_ts: i64,
    /// Whether the broker stamped it with its own time.
    pub(crate) stamped: bool,
    /// The front end that built it, if one did.
    pub(crate) origin: FrontendNo,
    pub(crate) producer: Option<Producer>,
    /// What a queue must know of each record. A partition that is no queue's passes it over.
    pub(crate) facts: Option<Box<RecordFacts>>,
    /// Whether a queue that has no room for all of the batch takes the records at its front for which it has. Said of queues alone, so that no
    /// directory has it that queues are not written in.
    pub(crate) partial: bool,
}

impl AppendBody {
    fn flags(&self) -> u8 {
        let mark = |on: bool, bit: u8| if on { bit } else { 0 };
        mark(self.producer.is_some(), PRODUCER)
            | mark(matches!(self.targets, Targets::Several(_)), SEVERAL)
            | mark(self.stamped, STAMPED)
            | mark(self.origin != FrontendNo::NONE, ORIGIN)
            | mark(self.producer.is_some_and(|p| p.epoch == Producer::NO_EPOCH), EPOCHLESS)
            | mark(self.facts.is_some(), FACTS)
            | mark(self.partial, PARTIAL)
    }

    pub(super) fn put(&self, out: &mut Vec<u8>) {
        out.push(self.flags());
        match &self.targets {
            Targets::One(id) => put_u64(out, id.0),
            Targets::Several(ids) => put_ids(out, ids),
        }
        put_u32(out, self.records);
        put_i64(out, self.max_ts);
        if self.origin != FrontendNo::NONE {
            put_u32(out, self.origin.0.into());
        }
        if let Some(producer) = self.producer {
            put_u64(out, producer.id.0 as u64);
            if producer.epoch != Producer::NO_EPOCH {
                put_u32(out, producer.epoch as u32);
            }
            put_u32(out, producer.base_sequence as u32);
        }
        if let Some(facts) = &self.facts {
            facts.encode(out);
        }
    }

    pub(super) fn take(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let flags = input.marks(KNOWN, "append")?;
        let mut body = Self {
            targets: if flags & SEVERAL == 0 {
                Targets::One(input.partition()?)
            } else {
                Targets::Several(input.list(1, Reader::partition)?)
            },
            records: take_records(input)?,
            max_ts: input.i64()?,
            stamped: flags & STAMPED != 0,
            origin: if flags & ORIGIN == 0 { FrontendNo::NONE } else { input.front_end()? },
            producer: if flags & PRODUCER == 0 { None } else { Some(take_producer(input, flags)?) },
            facts: None,
            partial: flags & PARTIAL != 0,
        };
        if flags & FACTS != 0 {
            body.facts = Some(take_facts(input, body.records)?);
        }
        Ok(body)
    }
}

impl Body for AppendBody {
    const KIND: u16 = kind::APPEND;
    type Outcome = AppendOutcome;

    fn encode(&self, out: &mut Vec<u8>) {
        self.put(out);
    }

    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut input = Reader::new(bytes);
        let body = Self::take(&mut input)?;
        input.end()?;
        Ok(body)
    }
}

fn put_ids(out: &mut Vec<u8>, ids: &[PartitionId]) {
    put_len(out, ids.len());
    ids.iter().for_each(|id| put_u64(out, id.0));
}

fn take_records(input: &mut Reader<'_>) -> Result<u32, DecodeError> {
    match input.u32()? {
        0 => Err(DecodeError::Field("number of records")),
        records => Ok(records),
    }
}

fn take_producer(input: &mut Reader<'_>, flags: u8) -> Result<Producer, DecodeError> {
    let id = i64::try_from(input.u64()?).map_err(|_| DecodeError::Field("producer id"))?;
    let epoch = match flags & EPOCHLESS {
        0 => i16::try_from(input.u32()?).map_err(|_| DecodeError::Field("producer epoch"))?,
        _ => Producer::NO_EPOCH,
    };
    let base_sequence = i32::try_from(input.u32()?).map_err(|_| DecodeError::Field("base sequence"))?;
    Ok(Producer { id: ProducerId(id), epoch, base_sequence })
}

fn take_facts(input: &mut Reader<'_>, records: u32) -> Result<Box<RecordFacts>, DecodeError> {
    let facts = input.with(RecordFacts::decode)?;
    if facts.records() == u64::from(records) {
        Ok(Box::new(facts))
    } else {
        Err(DecodeError::Field("number of facts"))
    }
}

/// A record by its partition and offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RecordPlace {
    pub(crate) partition: PartitionId,
    pub(crate) offset: Offset,
}

impl RecordPlace {
    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        put_u64(out, self.partition.0);
        put_i64(out, self.offset.0);
    }

    pub(crate) fn take(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let place = Self { partition: input.partition()?, offset: input.offset()? };
        if place.offset.0 < 0 { Err(DecodeError::Field("offset of a record")) } else { Ok(place) }
    }
}

/// Stored records for further partitions: version 2 · list of targets · largest timestamp · partition and offset of the first record, where it
/// stands now · the extent. In version 1 there was no such record, and the extent had no overlay.
///
/// Block 0 in the extent means this block; no other block that is not applied yet can be named. The payload is the overlay, if the extent says
/// so; else there is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ReferenceBody {
    pub(crate) targets: Vec<PartitionId>,
    pub(crate) max_ts: i64,
    pub(crate) source: Option<RecordPlace>,
    pub(crate) extent: Extent,
}

impl Body for ReferenceBody {
    const KIND: u16 = kind::REFERENCE;
    type Outcome = AppendOutcome;

    fn encode(&self, out: &mut Vec<u8>) {
        out.push(if self.source.is_some() { 2 } else { 1 });
        put_ids(out, &self.targets);
        put_i64(out, self.max_ts);
        if let Some(source) = &self.source {
            source.put(out);
        }
        self.extent.encode(out);
    }

    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut input = Reader::new(bytes);
        let form = input.u8()?;
        if !(1..=2).contains(&form) {
            return Err(DecodeError::Version(form));
        }
        let body = Self {
            targets: input.list(1, Reader::partition)?,
            max_ts: input.i64()?,
            source: if form == 1 { None } else { Some(RecordPlace::take(&mut input)?) },
            extent: input.with(Extent::decode)?,
        };
        if body.extent.records == 0 {
            return Err(DecodeError::Field("number of records"));
        }
        if form == 1 && body.extent.overlay != Overlay::None {
            return Err(DecodeError::Field("overlay"));
        }
        input.end()?;
        Ok(body)
    }
}

/// A chunk of a fragmented batch: version 1 · its number · number of the chunk, from 0. A fragmented batch is told from others of its term by its number, and
/// is dropped when a later term begins before it is complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ChunkBody {
    pub(crate) fragmented: u64,
    pub(crate) index: u32,
}

impl Body for ChunkBody {
    const KIND: u16 = kind::CHUNK;
    type Outcome = Result<(), ShardFailure>;

    fn encode(&self, out: &mut Vec<u8>) {
        out.push(1);
        put_u64(out, self.fragmented);
        put_u32(out, self.index);
    }

    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut input = Reader::new(bytes);
        input.version(1)?;
        let body = Self { fragmented: input.u64()?, index: input.u32()? };
        input.end()?;
        Ok(body)
    }
}

/// The end of a fragmented batch, which makes it visible: version 1 · its number · number of chunks · then as an append.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FragmentedBody {
    pub(crate) fragmented: u64,
    pub(crate) chunks: u32,
    pub(crate) append: AppendBody,
}

impl Body for FragmentedBody {
    const KIND: u16 = kind::FRAGMENTED;
    type Outcome = AppendOutcome;

    fn encode(&self, out: &mut Vec<u8>) {
        out.push(1);
        put_u64(out, self.fragmented);
        put_u32(out, self.chunks);
        self.append.put(out);
    }

    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut input = Reader::new(bytes);
        input.version(1)?;
        let body =
            Self { fragmented: input.u64()?, chunks: input.u32()?, append: AppendBody::take(&mut input)? };
        input.end()?;
        Ok(body)
    }
}

/// A fragmented batch of this term given up: version 1 · its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FragmentedDropped {
    pub(crate) fragmented: u64,
}

impl Body for FragmentedDropped {
    const KIND: u16 = kind::FRAGMENTED_DROPPED;
    type Outcome = Result<(), ShardFailure>;

    fn encode(&self, out: &mut Vec<u8>) {
        out.push(1);
        put_u64(out, self.fragmented);
    }

    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut input = Reader::new(bytes);
        input.version(1)?;
        let body = Self { fragmented: input.u64()? };
        input.end()?;
        Ok(body)
    }
}

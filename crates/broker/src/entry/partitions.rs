//! Entries about the partitions of a shard.

use std::sync::Arc;

use sabir_delivery::policy::{DeathPolicy, LengthLimit};
use sabir_model::stored::{MORE_MARKS, take_marks};
use sabir_model::{
    Backoff, DecodeError, DedupLimit, Offset, Overflow, PartitionId, ProducerId, QueueConfig, ShardFailure,
    TopicConfig, TopicError, TopicId,
};

use super::{Body, kind};
use crate::codec::{Reader, put_i64, put_len, put_u64};

/// Of partitions that are no queue's.
const SETTINGS_FORM_1: u8 = 1;
/// Of queues'.
const SETTINGS_FORM: u8 = 2;

/// What a partition must know of its topic's configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PartitionSettings {
    /// Counts the topic's configurations.
    pub(crate) version: u64,
    /// How long records are kept, in milliseconds; -1 for ever.
    pub(crate) retention_ms: i64,
    /// How many bytes are kept; -1 for all.
    pub(crate) retention_bytes: i64,
    /// Of a queue's partition, which nothing but its subscription empties.
    pub(crate) queue: Option<QueueSettings>,
}

/// What a queue's partition must know of its settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct QueueSettings {
    /// The most ready messages.
    pub(crate) max_length: Option<u64>,
    /// Their most bytes.
    pub(crate) max_length_bytes: Option<u64>,
    /// What is done about one too many.
    pub(crate) overflow: Overflow,
    /// Whether what is given up is published elsewhere.
    pub(crate) dead_letters: bool,
    /// The highest priority that counts, where priorities do.
    pub(crate) max_priority: Option<u8>,
    /// Whether what it takes is kept back until its time, and goes elsewhere then.
    pub(crate) delays: bool,
    /// After how many milliseconds a message expires.
    pub(crate) message_ttl_ms: Option<u64>,
    /// How often a message may come back such that it counts.
    pub(crate) delivery_limit: Option<u32>,
    /// How long one waits that came back such that it counts.
    pub(crate) retry: Option<Arc<Backoff>>,
    /// Within which bounds a message is dropped that has the id of an earlier one. Few queues have it.
    pub(crate) dedup: Option<Box<DedupLimit>>,
}

const DEAD_LETTERS: u8 = 1 << 2;
const MAX_PRIORITY: u8 = 1 << 3;
const DELAYS: u8 = 1 << 4;
const MESSAGE_TTL: u8 = 1 << 5;
const DELIVERY_LIMIT: u8 = 1 << 6;
/// What is no part of what is done about a message too many.
const MARKS: u8 = DEAD_LETTERS | MAX_PRIORITY | DELAYS | MESSAGE_TTL | DELIVERY_LIMIT | MORE_MARKS;
/// In the second byte.
const RETRY: u8 = 1 << 0;
const DEDUP: u8 = 1 << 1;

impl QueueSettings {
    fn of(queue: &QueueConfig) -> Self {
        let QueueConfig {
            max_length,
            max_length_bytes,
            overflow,
            max_priority,
            message_ttl_ms,
            delays,
            delivery_limit,
            ..
        } = *queue;
        let dead_letters = queue.dead_letter.is_some();
        let retry = queue.retry.clone().map(Arc::new);
        Self {
            max_length,
            max_length_bytes,
            overflow,
            dead_letters,
            max_priority,
            delays,
            message_ttl_ms,
            delivery_limit,
            retry,
            dedup: queue.dedup().map(Box::new),
        }
    }

    /// What becomes of messages that the queue gives up.
    pub(crate) fn deaths(&self) -> DeathPolicy {
        DeathPolicy::of_returns(self.dead_letters, self.delivery_limit, self.retry.clone())
    }

    /// How long the queue may be, if that is limited.
    pub(crate) fn limit(&self) -> Option<LengthLimit> {
        let Self { max_length: messages, max_length_bytes: bytes, overflow, .. } = *self;
        (messages.is_some() || bytes.is_some()).then_some(LengthLimit { messages, bytes, overflow })
    }

    fn more_marks(&self) -> u8 {
        let mark = |on: bool, bit: u8| if on { bit } else { 0 };
        mark(self.retry.is_some(), RETRY) | mark(self.dedup.is_some(), DEDUP)
    }

    fn put(&self, out: &mut Vec<u8>) {
        let most = |most: Option<u64>| most.map_or(0, |most| most.saturating_add(1));
        put_u64(out, most(self.max_length));
        put_u64(out, most(self.max_length_bytes));
        let mark = |on: bool, bit: u8| if on { bit } else { 0 };
        let marks = mark(self.dead_letters, DEAD_LETTERS)
            | mark(self.max_priority.is_some(), MAX_PRIORITY)
            | mark(self.delays, DELAYS)
            | mark(self.message_ttl_ms.is_some(), MESSAGE_TTL)
            | mark(self.delivery_limit.is_some(), DELIVERY_LIMIT)
            | mark(self.more_marks() != 0, MORE_MARKS);
        out.push(self.overflow as u8 | marks);
        out.extend(Some(self.more_marks()).filter(|marks| *marks != 0));
        out.extend(self.max_priority);
        self.message_ttl_ms.iter().for_each(|ttl_ms| put_u64(out, *ttl_ms));
        self.delivery_limit.iter().for_each(|limit| put_u64(out, (*limit).into()));
        self.retry.iter().for_each(|backoff| backoff.encode(out));
        if let Some(limit) = &self.dedup {
            put_u64(out, limit.window_ms);
            put_u64(out, limit.most.into());
        }
    }

    fn take(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let (max_length, max_length_bytes) = (input.u64()?.checked_sub(1), input.u64()?.checked_sub(1));
        let marks = input.u8()?;
        let more = match marks & MORE_MARKS {
            0 => 0,
            _ => input.with(|input| take_marks(input, RETRY | DEDUP, "queue"))?,
        };
        Ok(Self {
            max_length,
            max_length_bytes,
            dead_letters: marks & DEAD_LETTERS != 0,
            overflow: match marks & !MARKS {
                0 => Overflow::DropHead,
                1 => Overflow::Reject,
                2 => Overflow::RejectAndDeadLetter,
                _ => return Err(DecodeError::Field("overflow")),
            },
            max_priority: if marks & MAX_PRIORITY == 0 { None } else { Some(input.u8()?) },
            delays: marks & DELAYS != 0,
            message_ttl_ms: if marks & MESSAGE_TTL == 0 { None } else { Some(input.u64()?) },
            delivery_limit: if marks & DELIVERY_LIMIT == 0 { None } else { Some(input.u32()?) },
            retry: if more & RETRY == 0 { None } else { Some(Arc::new(input.with(Backoff::decode)?)) },
            dedup: if more & DEDUP == 0 {
                None
            } else {
                Some(Box::new(DedupLimit { window_ms: input.u64()?, most: input.u32()? }))
            },
        })
    }
}

impl PartitionSettings {
    pub(crate) fn of(config: &TopicConfig, version: u64) -> Self {
        Self {
            version,
            retention_ms: config.retention_ms.unwrap_or(-1),
            retention_bytes: config.retention_bytes.unwrap_or(-1),
            queue: config.queue().map(|queue| QueueSettings::of(queue)),
        }
    }

    /// Appends the stored form: 1 · version · retention in milliseconds · in bytes. Of a queue: 2 · version · retention in milliseconds · in
    /// bytes · one more than the most messages, 0 where there is no bound · the same of bytes · overflow u8 (0 drop head, 1 reject,
    /// 2 reject and dead-letter; 4 more where there is an address for dead letters, 8 more where priorities count, 16 more where messages are kept back,
    /// 32 more where messages expire, 64 more where they may come back so often alone, 128 more where a second byte of marks follows: 1 what comes back waits, 2 what comes twice is dropped) · if they count, the highest priority u8 · if they expire,
    /// after how many milliseconds · if that is limited, how often one may come back ·
    /// if it waits, how long, as [`Backoff`] has it · if it is dropped, for how many milliseconds an id is remembered, and the most ids.
    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        out.push(if self.queue.is_some() { SETTINGS_FORM } else { SETTINGS_FORM_1 });
        put_u64(out, self.version);
        put_i64(out, self.retention_ms);
        put_i64(out, self.retention_bytes);
        self.queue.iter().for_each(|queue| queue.put(out));
    }

    pub(crate) fn take(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let form = input.u8()?;
        if !(SETTINGS_FORM_1..=SETTINGS_FORM).contains(&form) {
            return Err(DecodeError::Version(form));
        }
        let mut settings = Self::take_formless(input)?;
        if form == SETTINGS_FORM {
            settings.queue = Some(QueueSettings::take(input)?);
        }
        Ok(settings)
    }

    /// Takes them as they were stored before they had a form of their own.
    pub(crate) fn take_formless(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            version: input.u64()?,
            retention_ms: input.i64()?,
            retention_bytes: input.i64()?,
            queue: None,
        })
    }
}

/// Partitions of one topic made in this shard, those that are not there yet: version 2 · topic id, 16 bytes · epoch base ·
/// settings, in version 1 without their form · list of (index, partition).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PartitionsCreated {
    pub(crate) topic: TopicId,
    pub(crate) epoch_base: i32,
    pub(crate) settings: PartitionSettings,
    pub(crate) partitions: Vec<(u32, PartitionId)>,
}

impl Body for PartitionsCreated {
    const KIND: u16 = kind::PARTITIONS_CREATED;
    type Outcome = Result<(), ShardFailure>;

    fn encode(&self, out: &mut Vec<u8>) {
        out.push(2);
        out.extend_from_slice(&self.topic.0);
        put_i64(out, self.epoch_base.into());
        self.settings.put(out);
        put_len(out, self.partitions.len());
        for (index, id) in &self.partitions {
            put_u64(out, (*index).into());
            put_u64(out, id.0);
        }
    }

    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut input = Reader::new(bytes);
        let take_settings = take_settings_of(input.u8()?)?;
        let body = Self {
            topic: input.topic()?,
            epoch_base: input.i32()?,
            settings: take_settings(&mut input)?,
            partitions: input.list(2, |input| Ok((input.u32()?, input.partition()?)))?,
        };
        input.end()?;
        Ok(body)
    }
}

type TakeSettings = fn(&mut Reader<'_>) -> Result<PartitionSettings, DecodeError>;

/// How settings stand in an entry of that version.
fn take_settings_of(version: u8) -> Result<TakeSettings, DecodeError> {
    match version {
        1 => Ok(PartitionSettings::take_formless),
        2 => Ok(PartitionSettings::take),
        newer => Err(DecodeError::Version(newer)),
    }
}

/// Partitions of this shard deleted, those that are there: version 1 · list of partitions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PartitionsDeleted {
    pub(crate) partitions: Vec<PartitionId>,
}

impl Body for PartitionsDeleted {
    const KIND: u16 = kind::PARTITIONS_DELETED;
    type Outcome = Result<(), ShardFailure>;

    fn encode(&self, out: &mut Vec<u8>) {
        out.push(1);
        put_len(out, self.partitions.len());
        self.partitions.iter().for_each(|id| put_u64(out, id.0));
    }

    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut input = Reader::new(bytes);
        input.version(1)?;
        let body = Self { partitions: input.list(1, Reader::partition)? };
        input.end()?;
        Ok(body)
    }
}

/// Partitions given other settings, those that have older ones: version 2 · settings, in version 1 without their form · list of
/// partitions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PartitionsConfigured {
    pub(crate) settings: PartitionSettings,
    pub(crate) partitions: Vec<PartitionId>,
}

impl Body for PartitionsConfigured {
    const KIND: u16 = kind::PARTITIONS_CONFIGURED;
    type Outcome = Result<(), ShardFailure>;

    fn encode(&self, out: &mut Vec<u8>) {
        out.push(2);
        self.settings.put(out);
        put_len(out, self.partitions.len());
        self.partitions.iter().for_each(|id| put_u64(out, id.0));
    }

    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut input = Reader::new(bytes);
        let take_settings = take_settings_of(input.u8()?)?;
        let body =
            Self { settings: take_settings(&mut input)?, partitions: input.list(1, Reader::partition)? };
        input.end()?;
        Ok(body)
    }
}

/// First offsets moved up: version 1 · list of (partition, offset); -1 means the high watermark. One that is not above
/// the first offset changes nothing, one beyond the high watermark is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LogStartsMoved {
    pub(crate) moves: Vec<(PartitionId, Offset)>,
}

impl Body for LogStartsMoved {
    const KIND: u16 = kind::LOG_STARTS_MOVED;
    type Outcome = Result<Offset, TopicError>;

    fn encode(&self, out: &mut Vec<u8>) {
        out.push(1);
        put_len(out, self.moves.len());
        for (id, offset) in &self.moves {
            put_u64(out, id.0);
            put_i64(out, offset.0);
        }
    }

    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut input = Reader::new(bytes);
        input.version(1)?;
        let body = Self { moves: input.list(2, |input| Ok((input.partition()?, input.offset()?)))? };
        input.end()?;
        Ok(body)
    }
}

/// Producers forgotten, those whose last batch is not younger than the block time given: version 1 · that time, in milliseconds · list
/// of (partition, producer).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ProducersExpired {
    pub(crate) idle_since: i64,
    pub(crate) producers: Vec<(PartitionId, ProducerId)>,
}

impl Body for ProducersExpired {
    const KIND: u16 = kind::PRODUCERS_EXPIRED;
    type Outcome = Result<(), ShardFailure>;

    fn encode(&self, out: &mut Vec<u8>) {
        out.push(1);
        put_i64(out, self.idle_since);
        put_len(out, self.producers.len());
        for (partition, producer) in &self.producers {
            put_u64(out, partition.0);
            put_i64(out, producer.0);
        }
    }

    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut input = Reader::new(bytes);
        input.version(1)?;
        let one = |input: &mut Reader<'_>| Ok((input.partition()?, input.i64().map(ProducerId)?));
        let body = Self { idle_since: input.i64()?, producers: input.list(2, one)? };
        input.end()?;
        Ok(body)
    }
}

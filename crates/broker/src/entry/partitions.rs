//! Entries about the partitions of a shard.

use sabir_model::{
    DecodeError, Offset, PartitionId, ProducerId, ShardFailure, TopicConfig, TopicError, TopicId,
};

use super::{Body, kind};
use crate::codec::{Reader, put_i64, put_len, put_u64};

const SETTINGS_FORM: u8 = 1;

/// What a partition must know of its topic's configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PartitionSettings {
    /// Counts the topic's configurations.
    pub(crate) version: u64,
    /// How long records are kept, in milliseconds; -1 for ever.
    pub(crate) retention_ms: i64,
    /// How many bytes are kept; -1 for all.
    pub(crate) retention_bytes: i64,
}

impl PartitionSettings {
    pub(crate) fn of(config: &TopicConfig, version: u64) -> Self {
        Self {
            version,
            retention_ms: config.retention_ms.unwrap_or(-1),
            retention_bytes: config.retention_bytes.unwrap_or(-1),
        }
    }

    /// Appends the stored form: 1 · version · retention in milliseconds · in bytes.
    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        out.push(SETTINGS_FORM);
        put_u64(out, self.version);
        put_i64(out, self.retention_ms);
        put_i64(out, self.retention_bytes);
    }

    pub(crate) fn take(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
        input.version(SETTINGS_FORM)?;
        Self::take_formless(input)
    }

    /// Takes them as they were stored before they had a form of their own.
    pub(crate) fn take_formless(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { version: input.u64()?, retention_ms: input.i64()?, retention_bytes: input.i64()? })
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

//! Entries of the catalog's shard.

use std::sync::Arc;

use sabir_model::{
    DecodeError, FrontendNo, NodeId, ProducerId, ProducerIdError, ShardFailure, ShardId, TopicConfig,
    TopicError, TopicId, ValidConfig,
};

use super::{Body, kind};
use crate::catalog::Topic;
use crate::codec::{Reader, put_i64, put_len, put_str, put_u32, put_u64};
use crate::level::FormatLevel;

/// A topic made: version 2 · topic id, 16 bytes · namespace · name · configuration · marks u8 (1 internal, 2 unlike; the rest 0) · front
/// end · epoch base · the shard of each partition. `apply` gives the partitions' ids. In version 1 there was no mark but the first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TopicCreated {
    pub(crate) id: TopicId,
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) config: ValidConfig,
    pub(crate) internal: bool,
    /// Refused beside a topic whose name differs in `.` and `_` alone.
    pub(crate) unlike: bool,
    pub(crate) made_by: FrontendNo,
    pub(crate) epoch_base: i32,
    pub(crate) shards: Vec<ShardId>,
}

const INTERNAL: u8 = 1 << 0;
const UNLIKE: u8 = 1 << 1;

impl Body for TopicCreated {
    const KIND: u16 = kind::TOPIC_CREATED;
    type Outcome = Result<Arc<Topic>, TopicError>;

    fn encode(&self, out: &mut Vec<u8>) {
        out.push(2);
        out.extend_from_slice(&self.id.0);
        put_str(out, &self.namespace);
        put_str(out, &self.name);
        self.config.encode(out);
        out.push(if self.internal { INTERNAL } else { 0 } | if self.unlike { UNLIKE } else { 0 });
        put_u32(out, self.made_by.0.into());
        put_i64(out, self.epoch_base.into());
        put_shards(out, &self.shards);
    }

    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut input = Reader::new(bytes);
        let known = match input.u8()? {
            1 => INTERNAL,
            2 => INTERNAL | UNLIKE,
            newer => return Err(DecodeError::Version(newer)),
        };
        let (id, namespace, name) = (input.topic()?, input.str()?.to_owned(), input.str()?.to_owned());
        let config = take_config(&mut input)?;
        let marks = input.marks(known, "topic")?;
        let body = Self {
            id,
            namespace,
            name,
            config,
            internal: marks & INTERNAL != 0,
            unlike: marks & UNLIKE != 0,
            made_by: input.front_end()?,
            epoch_base: input.i32()?,
            shards: take_shards(&mut input)?,
        };
        input.end()?;
        Ok(body)
    }
}

fn take_config(input: &mut Reader<'_>) -> Result<ValidConfig, DecodeError> {
    input.with(TopicConfig::decode).map(ValidConfig::trusted)
}

fn put_shards(out: &mut Vec<u8>, shards: &[ShardId]) {
    put_len(out, shards.len());
    shards.iter().for_each(|shard| put_u32(out, shard.0));
}

fn take_shards(input: &mut Reader<'_>) -> Result<Vec<ShardId>, DecodeError> {
    let shards = input.list(1, |input| input.u32().map(ShardId))?;
    if shards.is_empty() { Err(DecodeError::Field("number of partitions")) } else { Ok(shards) }
}

/// A topic deleted: version 1 · topic id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TopicDeleted {
    pub(crate) id: TopicId,
}

impl Body for TopicDeleted {
    const KIND: u16 = kind::TOPIC_DELETED;
    type Outcome = Result<Arc<Topic>, TopicError>;

    fn encode(&self, out: &mut Vec<u8>) {
        out.push(1);
        out.extend_from_slice(&self.id.0);
    }

    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut input = Reader::new(bytes);
        input.version(1)?;
        let body = Self { id: input.topic()? };
        input.end()?;
        Ok(body)
    }
}

/// A topic's configuration replaced: version 2 · topic id · version of the topic that it was made of, 0 for any · configuration. Refused
/// if the topic has another version. In version 1 there was none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TopicConfigured {
    pub(crate) id: TopicId,
    /// What the topic was when this was made of it; `None` replaces it whatever it is.
    pub(crate) version: Option<u64>,
    pub(crate) config: ValidConfig,
}

impl Body for TopicConfigured {
    const KIND: u16 = kind::TOPIC_CONFIGURED;
    type Outcome = Result<Arc<Topic>, TopicError>;

    fn encode(&self, out: &mut Vec<u8>) {
        out.push(2);
        out.extend_from_slice(&self.id.0);
        put_u64(out, self.version.unwrap_or(0));
        self.config.encode(out);
    }

    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut input = Reader::new(bytes);
        let form = input.u8()?;
        if !(1..=2).contains(&form) {
            return Err(DecodeError::Version(form));
        }
        let id = input.topic()?;
        let version = if form == 1 { None } else { Some(input.u64()?).filter(|version| *version > 0) };
        let body = Self { id, version, config: take_config(&mut input)? };
        input.end()?;
        Ok(body)
    }
}

/// A topic given further partitions: version 1 · topic id · how many it has so far · the shard of each new one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TopicExtended {
    pub(crate) id: TopicId,
    /// What the topic had when this was decided; refused if that is no longer so.
    pub(crate) from: u32,
    pub(crate) shards: Vec<ShardId>,
}

impl Body for TopicExtended {
    const KIND: u16 = kind::TOPIC_EXTENDED;
    type Outcome = Result<Arc<Topic>, TopicError>;

    fn encode(&self, out: &mut Vec<u8>) {
        out.push(1);
        out.extend_from_slice(&self.id.0);
        put_u32(out, self.from);
        put_shards(out, &self.shards);
    }

    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut input = Reader::new(bytes);
        input.version(1)?;
        let body = Self { id: input.topic()?, from: input.u32()?, shards: take_shards(&mut input)? };
        input.end()?;
        Ok(body)
    }
}

/// A front end's name given a number, unless it has one: version 1 · name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FrontendRegistered {
    pub(crate) name: String,
}

impl Body for FrontendRegistered {
    const KIND: u16 = kind::FRONT_END_REGISTERED;
    type Outcome = Result<FrontendNo, TopicError>;

    fn encode(&self, out: &mut Vec<u8>) {
        out.push(1);
        put_str(out, &self.name);
    }

    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut input = Reader::new(bytes);
        input.version(1)?;
        let body = Self { name: input.str()?.to_owned() };
        input.end()?;
        Ok(body)
    }
}

/// A range of producer ids handed out: version 1 · how many. `apply` gives the first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ProducerIdsAllocated {
    pub(crate) count: u32,
}

impl Body for ProducerIdsAllocated {
    const KIND: u16 = kind::PRODUCER_IDS_ALLOCATED;
    type Outcome = Result<ProducerId, ProducerIdError>;

    fn encode(&self, out: &mut Vec<u8>) {
        out.push(1);
        put_u32(out, self.count);
    }

    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut input = Reader::new(bytes);
        input.version(1)?;
        let body = Self { count: input.u32()? };
        input.end()?;
        Ok(body)
    }
}

/// What a data directory is made with: version 1 · number of data shards · cluster id, 16 bytes. The first one counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DataShardsFixed {
    pub(crate) shards: u32,
    pub(crate) cluster: TopicId,
}

impl Body for DataShardsFixed {
    const KIND: u16 = kind::DATA_SHARDS_FIXED;
    type Outcome = Result<(), ShardFailure>;

    fn encode(&self, out: &mut Vec<u8>) {
        out.push(1);
        put_u32(out, self.shards);
        out.extend_from_slice(&self.cluster.0);
    }

    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut input = Reader::new(bytes);
        input.version(1)?;
        let body = Self { shards: input.u32()?, cluster: input.topic()? };
        input.end()?;
        Ok(body)
    }
}

/// Which forms may be written from now on: version 1 · level. It never falls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FormatLevelRaised {
    pub(crate) level: FormatLevel,
}

impl Body for FormatLevelRaised {
    const KIND: u16 = kind::FORMAT_LEVEL_RAISED;
    type Outcome = Result<(), ShardFailure>;

    fn encode(&self, out: &mut Vec<u8>) {
        out.push(1);
        put_u32(out, self.level.number());
    }

    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut input = Reader::new(bytes);
        input.version(1)?;
        let body = Self { level: FormatLevel::stored(input.u32()?)? };
        input.end()?;
        Ok(body)
    }
}

/// The node's time where the block's stands above it: version 1 · milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NodeTime {
    pub(crate) ms: i64,
}

impl Body for NodeTime {
    const KIND: u16 = kind::NODE_TIME;
    type Outcome = Result<(), ShardFailure>;

    fn encode(&self, out: &mut Vec<u8>) {
        out.push(1);
        put_i64(out, self.ms);
    }

    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut input = Reader::new(bytes);
        input.version(1)?;
        let body = Self { ms: input.i64()? };
        input.end()?;
        Ok(body)
    }
}

/// A node started to lead this shard: version 1 · node · whether the run before ended cleanly u8.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Started {
    pub(crate) node: NodeId,
    pub(crate) clean: bool,
}

impl Body for Started {
    const KIND: u16 = kind::STARTED;
    type Outcome = Result<(), ShardFailure>;

    fn encode(&self, out: &mut Vec<u8>) {
        out.push(1);
        put_i64(out, self.node.0.into());
        out.push(self.clean.into());
    }

    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut input = Reader::new(bytes);
        input.version(1)?;
        let body = Self { node: NodeId(input.i32()?), clean: input.bool("clean mark")? };
        input.end()?;
        Ok(body)
    }
}

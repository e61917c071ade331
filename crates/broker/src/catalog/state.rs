//! The catalog as a projection of shard 0.

use std::sync::{Arc, LazyLock};

use sabir_journal::EntryView;
use sabir_journal::pages::{PageDecodeError, PageError, PageKey, PageValue, Paged};
use sabir_model::{
    DEFAULT_NAMESPACE, FrontendNo, PartitionId, ProducerId, ProducerIdError, ShardFailure, ShardId,
    TopicConfig, TopicError, TopicId, ValidConfig,
};

use super::names::Names;
use super::view::{Partition, Topic};
use crate::codec::{Reader, put_i64, put_len, put_str, put_u32, put_u64};
use crate::entry::{
    DataShardsFixed, FormatLevelRaised, FrontendRegistered, Kinds, ProducerIdsAllocated, TopicConfigured,
    TopicCreated, TopicDeleted, TopicExtended, kind,
};
use crate::level::FormatLevel;
use crate::projection::{PageMap, Projection};
use crate::state::{At, CoreProjection, EntryError, Locate, Outcome, StoredMaps, applied, prefixes};

/// A topic as it is stored.
#[derive(Debug, Clone)]
struct TopicRow(Arc<Topic>);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct TopicKey(TopicId);

/// Topics, their partitions' ids, front ends' numbers, producer ids.
#[derive(Debug)]
pub(crate) struct Catalog {
    topics: Paged<TopicKey, TopicRow>,
    /// Follows from `topics`.
    names: Names,
    singles: Singles,
}

/// What there is one of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Singles {
    next_partition: u64,
    next_producer: i64,
    shards: u32,
    cluster: TopicId,
    level: FormatLevel,
    /// Front end `i + 1` has name `i`.
    front_ends: Vec<String>,
}

impl Default for Catalog {
    fn default() -> Self {
        Self { topics: Paged::new(prefixes::TOPICS), names: Names::default(), singles: Singles::default() }
    }
}

impl Catalog {
    /// The number of data shards and the cluster's id, once they are fixed.
    pub(crate) fn made_with(&self) -> Option<(u32, TopicId)> {
        (self.singles.shards > 0).then_some((self.singles.shards, self.singles.cluster))
    }

    /// Ids of partitions from this one on were never given.
    pub(crate) fn next_partition(&self) -> PartitionId {
        PartitionId(self.singles.next_partition)
    }

    pub(crate) fn topic(&self, id: TopicId) -> Option<&Arc<Topic>> {
        self.topics.get(&TopicKey(id)).map(|row| &row.0)
    }

    pub(crate) fn topic_named(&self, namespace: &str, name: &str) -> Option<&Arc<Topic>> {
        self.topic(self.names.get(namespace, name)?)
    }

    /// A topic's name that differs from this one in `.` and `_` alone.
    pub(crate) fn alike(&self, namespace: &str, name: &str) -> Option<&Arc<str>> {
        self.names.alike(namespace, name)
    }

    pub(crate) fn topics(&self) -> impl Iterator<Item = &Arc<Topic>> {
        self.topics.iter().map(|(_, row)| &row.0)
    }

    pub(crate) fn front_end(&self, name: &str) -> Option<FrontendNo> {
        let at = self.singles.front_ends.iter().position(|known| known == name)?;
        u16::try_from(at + 1).ok().map(FrontendNo)
    }

    /// The name of a front end.
    pub(crate) fn front_end_name(&self, number: FrontendNo) -> Option<&str> {
        let at = usize::from(number.0).checked_sub(1)?;
        self.singles.front_ends.get(at).map(String::as_str)
    }

    fn create(&mut self, body: TopicCreated) -> Result<Arc<Topic>, TopicError> {
        let name: Box<str> = (*body.name).into();
        if self.topic_named(&body.namespace, &body.name).is_some() || self.topic(body.id).is_some() {
            return Err(TopicError::Exists(name));
        }
        if let Some(other) = self.alike(&body.namespace, &body.name).filter(|_| body.unlike) {
            return Err(TopicError::Collides { name, other: (**other).into() });
        }
        let partitions = self.give_ids(&body.name, &body.shards, 0, body.epoch_base)?;
        let topic = Arc::new(Topic {
            id: body.id,
            name: body.name.into(),
            namespace: intern(&body.namespace),
            version: 1,
            config: body.config,
            partitions,
            internal: body.internal,
            made_by: body.made_by,
            traffic: Arc::default(),
        });
        self.names.insert(&topic);
        self.topics.insert(TopicKey(topic.id), TopicRow(topic.clone()));
        Ok(topic)
    }

    fn give_ids(
        &mut self,
        name: &str,
        shards: &[ShardId],
        from: usize,
        epoch_base: i32,
    ) -> Result<Vec<Partition>, TopicError> {
        let asked = u32::try_from(from + shards.len()).unwrap_or(u32::MAX);
        if i32::try_from(asked).is_err() {
            return Err(TopicError::Partitions { name: name.into(), asked, most: i32::MAX as u32 });
        }
        let first = self.singles.next_partition;
        self.singles.next_partition += shards.len() as u64;
        let partition = |(i, &shard): (usize, &ShardId)| Partition {
            index: (from + i) as i32,
            id: PartitionId(first + i as u64),
            shard,
            epoch_base,
        };
        Ok(shards.iter().enumerate().map(partition).collect())
    }

    fn delete(&mut self, body: &TopicDeleted) -> Result<Arc<Topic>, TopicError> {
        let row = self.topics.remove(&TopicKey(body.id)).ok_or(TopicError::Unknown)?;
        self.names.remove(&row.0);
        Ok(row.0)
    }

    fn configure(&mut self, body: TopicConfigured) -> Result<Arc<Topic>, TopicError> {
        let topic = self.topic(body.id).ok_or(TopicError::Unknown)?;
        // It was made of what held then, and would take back what came between.
        if body.version.is_some_and(|version| version != topic.version) {
            return Err(TopicError::Changed((*topic.name).into()));
        }
        self.change(body.id, |topic| topic.config = body.config)
    }

    fn extend(&mut self, body: &TopicExtended) -> Result<Arc<Topic>, TopicError> {
        let topic = self.topic(body.id).ok_or(TopicError::Unknown)?;
        let from = topic.partitions.len();
        let epoch_base = topic.partitions.first().map_or(0, |first| first.epoch_base);
        if from != body.from as usize {
            return Err(TopicError::Changed((*topic.name).into()));
        }
        let name = topic.name.clone();
        let more = self.give_ids(&name, &body.shards, from, epoch_base)?;
        self.change(body.id, |topic| topic.partitions.extend(more))
    }

    fn change(&mut self, id: TopicId, change: impl FnOnce(&mut Topic)) -> Result<Arc<Topic>, TopicError> {
        let row = self.topics.get_mut(&TopicKey(id)).ok_or(TopicError::Unknown)?;
        let mut topic = Topic::clone(&row.0);
        change(&mut topic);
        topic.version += 1;
        row.0 = Arc::new(topic);
        Ok(row.0.clone())
    }

    fn register(&mut self, body: FrontendRegistered) -> Result<FrontendNo, TopicError> {
        if let Some(known) = self.front_end(&body.name) {
            return Ok(known);
        }
        let number =
            u16::try_from(self.singles.front_ends.len() + 1).map_err(|_| TopicError::TooManyFrontends)?;
        self.singles.front_ends.push(body.name);
        Ok(FrontendNo(number))
    }

    /// The first of the ids handed out.
    fn allocate(&mut self, body: &ProducerIdsAllocated) -> Result<ProducerId, ProducerIdError> {
        let first = self.singles.next_producer;
        let next = first.checked_add(body.count.into()).ok_or(ProducerIdError::UsedUp)?;
        self.singles.next_producer = next;
        Ok(ProducerId(first))
    }

    fn fix_shards(&mut self, body: &DataShardsFixed) -> Result<(), ShardFailure> {
        if self.singles.shards == 0 {
            self.singles.shards = body.shards;
            self.singles.cluster = body.cluster;
        }
        Ok(())
    }

    /// Which forms may be written.
    pub(crate) fn level(&self) -> FormatLevel {
        self.singles.level
    }

    fn raise_level(&mut self, body: &FormatLevelRaised) -> Result<(), ShardFailure> {
        self.singles.level = self.singles.level.max(body.level);
        Ok(())
    }

    /// The part that goes into the shard's own page.
    pub(crate) fn put_singles(&self, out: &mut Vec<u8>, names_level: bool) {
        let singles = &self.singles;
        put_u64(out, singles.next_partition);
        put_i64(out, singles.next_producer);
        put_u32(out, singles.shards);
        out.extend_from_slice(&singles.cluster.0);
        put_len(out, singles.front_ends.len());
        singles.front_ends.iter().for_each(|name| put_str(out, name));
        if names_level {
            put_u32(out, singles.level.number());
        }
    }
}

impl Projection for Catalog {
    fn maps(&mut self) -> Vec<&mut dyn PageMap> {
        vec![&mut self.topics]
    }
}

impl CoreProjection for Catalog {
    const NAME: &'static str = "catalog";
    const KINDS: Kinds = &[kind::CATALOG];

    /// The topics' pages, and the part from the shard's own page.
    fn restore(stored: &StoredMaps<'_>) -> Result<Self, PageError> {
        let topics = stored.restore(prefixes::TOPICS)?;
        let mut names = Names::default();
        topics.iter().for_each(|(_, row): (_, &TopicRow)| names.insert(&row.0));
        Ok(Self { topics, names, singles: stored.singles.clone() })
    }

    fn apply(&mut self, entry: &EntryView<'_>, _: &At, _: Locate<'_>) -> Result<Outcome, EntryError> {
        match entry.kind {
            kind::TOPIC_CREATED => applied(entry, |body: TopicCreated| self.create(body)),
            kind::TOPIC_DELETED => applied(entry, |body: TopicDeleted| self.delete(&body)),
            kind::TOPIC_CONFIGURED => applied(entry, |body: TopicConfigured| self.configure(body)),
            kind::TOPIC_EXTENDED => applied(entry, |body: TopicExtended| self.extend(&body)),
            kind::FRONT_END_REGISTERED => applied(entry, |body: FrontendRegistered| self.register(body)),
            kind::PRODUCER_IDS_ALLOCATED => applied(entry, |body: ProducerIdsAllocated| self.allocate(&body)),
            kind::DATA_SHARDS_FIXED => applied(entry, |body: DataShardsFixed| self.fix_shards(&body)),
            kind::FORMAT_LEVEL_RAISED => applied(entry, |body: FormatLevelRaised| self.raise_level(&body)),
            _ => Err(EntryError::unknown(entry)),
        }
    }
}

impl Default for Singles {
    fn default() -> Self {
        Self {
            next_partition: 1,
            next_producer: 1,
            shards: 0,
            cluster: TopicId::default(),
            level: FormatLevel::FIRST,
            front_ends: Vec::new(),
        }
    }
}

impl Singles {
    /// The part of the shard's own page, which in its first form names no level.
    pub(crate) fn take(input: &mut Reader<'_>, names_level: bool) -> Result<Self, sabir_model::DecodeError> {
        Ok(Self {
            next_partition: input.u64()?,
            next_producer: input.i64()?,
            shards: input.u32()?,
            cluster: input.topic()?,
            front_ends: input.list(1, |input| input.str().map(str::to_owned))?,
            level: if names_level { FormatLevel::stored(input.u32()?)? } else { FormatLevel::FIRST },
        })
    }
}

/// One allocation for the name that nearly all topics share.
fn intern(namespace: &str) -> Arc<str> {
    static DEFAULT: LazyLock<Arc<str>> = LazyLock::new(|| DEFAULT_NAMESPACE.into());
    if namespace == DEFAULT_NAMESPACE { DEFAULT.clone() } else { namespace.into() }
}

impl PageKey for TopicKey {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.0.0);
    }

    fn decode(bytes: &[u8]) -> Result<Self, PageDecodeError> {
        let id = bytes.try_into().map_err(|_| PageDecodeError("a topic's key has 16 bytes".into()))?;
        Ok(Self(TopicId(id)))
    }
}

const FORM: u8 = 1;

impl PageValue for TopicRow {
    fn encode(&self, out: &mut Vec<u8>) {
        let topic = &self.0;
        out.push(FORM);
        out.extend_from_slice(&topic.id.0);
        put_u64(out, topic.version);
        put_str(out, &topic.namespace);
        put_str(out, &topic.name);
        topic.config.encode(out);
        out.push(topic.internal.into());
        put_u32(out, topic.made_by.0.into());
        put_len(out, topic.partitions.len());
        for partition in &topic.partitions {
            put_u64(out, partition.id.0);
            put_u32(out, partition.shard.0);
            put_i64(out, partition.epoch_base.into());
        }
    }

    fn decode(bytes: &[u8]) -> Result<Self, PageDecodeError> {
        take_row(bytes).map_err(|error| PageDecodeError(error.to_string()))
    }
}

fn take_row(bytes: &[u8]) -> Result<TopicRow, sabir_model::DecodeError> {
    let mut input = Reader::new(bytes);
    input.version(FORM)?;
    let mut index = 0;
    let topic = Topic {
        id: input.topic()?,
        version: input.u64()?,
        namespace: intern(input.str()?),
        name: input.str()?.into(),
        config: ValidConfig::trusted(input.with(TopicConfig::decode)?),
        internal: input.bool("internal mark")?,
        made_by: input.front_end()?,
        partitions: input.list(3, |input| {
            let partition = Partition {
                index,
                id: input.partition()?,
                shard: ShardId(input.u32()?),
                epoch_base: input.i32()?,
            };
            index += 1;
            Ok(partition)
        })?,
        traffic: Arc::default(),
    };
    input.end()?;
    Ok(TopicRow(Arc::new(topic)))
}

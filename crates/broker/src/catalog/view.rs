//! What front ends see of the catalog.

use std::sync::Arc;

use sabir_model::{FrontEndNo, LeaderEpoch, PartitionId, ShardId, Term, TopicConfig, TopicId};

/// The namespace that names without another one belong to.
pub const DEFAULT_NAMESPACE: &str = "/";

/// A partition of a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Partition {
    /// Its number in the topic, from 0.
    pub index: i32,
    /// Its id, never reused.
    pub id: PartitionId,
    /// The shard it lives in.
    pub shard: ShardId,
    /// What is added to its shard's term to give its leader epoch.
    pub epoch_base: i32,
}

impl Partition {
    /// Its leader epoch while its shard is led in `term`.
    pub fn leader_epoch(&self, term: Term) -> LeaderEpoch {
        LeaderEpoch(self.epoch_base.saturating_add(i32::try_from(term.0).unwrap_or(i32::MAX)))
    }
}

/// A topic that takes writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topic {
    /// Its id for good.
    pub id: TopicId,
    /// Its name, unique in its namespace.
    pub name: Arc<str>,
    /// Its namespace.
    pub namespace: Arc<str>,
    /// How it keeps its records and what it takes.
    pub config: TopicConfig,
    /// Its partitions by index, without gaps.
    pub partitions: Vec<Partition>,
    /// Whether the broker or a protocol keeps it for itself.
    pub internal: bool,
    /// The front end that made it.
    pub made_by: FrontEndNo,
}

impl Topic {
    /// The partition of that index.
    pub fn partition(&self, index: i32) -> Option<&Partition> {
        usize::try_from(index).ok().and_then(|index| self.partitions.get(index))
    }
}

/// A topic to create.
#[derive(Debug, Clone)]
pub struct NewTopic {
    /// Its name: not empty, at most 249 bytes of UTF-8 without control characters. A front end may be stricter.
    pub name: String,
    /// How many partitions.
    pub partitions: u32,
    /// How it keeps its records and what it takes.
    pub config: TopicConfig,
    /// Whether the broker or a protocol keeps it for itself.
    pub internal: bool,
    /// The front end that makes it.
    pub made_by: FrontEndNo,
}

/// The topics as they were at one moment. Cheap to get, never changes.
#[derive(Debug, Clone, Default)]
pub struct CatalogView {}

impl CatalogView {
    /// The topic of this name in the default namespace.
    pub fn topic(&self, _name: &str) -> Option<&Arc<Topic>> {
        None
    }

    /// The topic of this id.
    pub fn topic_by_id(&self, _id: TopicId) -> Option<&Arc<Topic>> {
        None
    }

    /// All topics, in no order.
    pub fn topics(&self) -> impl Iterator<Item = &Arc<Topic>> {
        std::iter::empty()
    }

    /// How many topics there are.
    pub fn len(&self) -> usize {
        0
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

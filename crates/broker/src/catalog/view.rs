//! What front ends see of the catalog.

use std::sync::Arc;

use rustc_hash::FxHashMap;
use sabir_model::{
    DEFAULT_NAMESPACE, FrontendNo, LeaderEpoch, PartitionId, ShardId, Subject, Term, TopicConfig, TopicId,
    ValidConfig,
};

use super::cow::CowMap;
use crate::caller::Caller;
use crate::traffic::TopicTraffic;

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
    /// Counts its changes, from 1.
    pub version: u64,
    /// How it keeps its records and what it takes.
    pub config: ValidConfig,
    /// Its partitions by index, without gaps.
    pub partitions: Vec<Partition>,
    /// Whether the broker or a protocol keeps it for itself.
    pub internal: bool,
    /// The front end that made it.
    pub made_by: FrontendNo,
    /// Counts what it is given and gives.
    pub traffic: Arc<TopicTraffic>,
}

impl Topic {
    /// The partition of that index.
    pub fn partition(&self, index: i32) -> Option<&Partition> {
        usize::try_from(index).ok().and_then(|index| self.partitions.get(index))
    }

    /// What an error about a partition of it, be it there or not, is about.
    pub(crate) fn subject(&self, partition: i32) -> Subject {
        let topic = self.name.as_ref().into();
        match self.config.queue() {
            Some(_) if partition == 0 => Subject::Queue(topic),
            _ => Subject::Partition { topic, partition },
        }
    }

    /// The same for one that it had when this was seen, by its id.
    pub(crate) fn subject_of(&self, id: PartitionId) -> Subject {
        let known = self.partitions.iter().find(|partition| partition.id == id);
        self.subject(known.map_or(-1, |partition| partition.index))
    }

    /// What an error about it as a queue is about, or as a topic with subscriptions.
    pub(crate) fn whole_subject(&self) -> Subject {
        let name = self.name.as_ref().into();
        if self.config.queue().is_some() { Subject::Queue(name) } else { Subject::Topic(name) }
    }

    /// What an error about a subscription of it, be it there or not, is about.
    pub(crate) fn subscription_subject(&self, name: &str) -> Subject {
        Subject::Subscription { topic: self.name.as_ref().into(), name: name.into() }
    }
}

/// A topic to create.
#[derive(Debug, Clone)]
pub struct NewTopic {
    /// Its name: not empty, at most 1,024 bytes of UTF-8 without control characters. A front end may be stricter.
    pub name: String,
    /// How many partitions.
    pub partitions: u32,
    /// How it keeps its records and what it takes.
    pub config: TopicConfig,
    /// Whether the broker or a protocol keeps it for itself.
    pub internal: bool,
    /// Whether it is not to be made beside a topic whose name differs in `.` and `_` alone. That is a rule of some protocols, which hold
    /// their own topics to it; to the broker the two are as different as any.
    pub unlike: bool,
}

/// The topics as they were at one moment. Cheap to get, never changes.
#[derive(Debug, Clone, Default)]
pub struct CatalogView {
    namespaces: FxHashMap<Arc<str>, CowMap<Arc<str>, Arc<Topic>>>,
    ids: CowMap<TopicId, Arc<Topic>>,
    partitions: usize,
    name_bytes: usize,
    setting_bytes: usize,
    dedup_bytes: usize,
    /// Counts what was shown and hidden.
    edition: u64,
}

impl CatalogView {
    /// Rises whenever a topic is shown, changed or hidden: views of one edition are the same.
    pub(crate) fn edition(&self) -> u64 {
        self.edition
    }

    /// The topic of this name in the default namespace.
    pub fn topic(&self, name: &str) -> Option<&Arc<Topic>> {
        self.topic_in(DEFAULT_NAMESPACE, name)
    }

    /// The topic of this name in a namespace.
    pub fn topic_in(&self, namespace: &str, name: &str) -> Option<&Arc<Topic>> {
        self.namespaces.get(namespace)?.get(name)
    }

    /// The topic of this name in the caller's namespace.
    pub fn topic_of(&self, caller: &Caller, name: &str) -> Option<&Arc<Topic>> {
        self.topic_in(caller.namespace().as_str(), name)
    }

    /// All topics of the caller's namespace, in no order.
    pub fn topics_of(&self, caller: &Caller) -> impl Iterator<Item = &Arc<Topic>> {
        let named = self.namespaces.get(caller.namespace().as_str());
        named.into_iter().flat_map(CowMap::values)
    }

    /// The topic of this id.
    pub fn topic_by_id(&self, id: TopicId) -> Option<&Arc<Topic>> {
        self.ids.get(&id)
    }

    /// What an error about a topic's partition of that number is about, if the topic is there.
    pub(crate) fn subject(&self, topic: TopicId, partition: u32) -> Option<Subject> {
        Some(self.topic_by_id(topic)?.subject(i32::try_from(partition).unwrap_or(-1)))
    }

    /// All topics, in no order.
    pub fn topics(&self) -> impl Iterator<Item = &Arc<Topic>> {
        self.ids.values()
    }

    /// How many topics there are.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many partitions all topics have.
    pub fn partitions(&self) -> usize {
        self.partitions
    }

    /// Bytes of all topics' names.
    pub fn name_bytes(&self) -> usize {
        self.name_bytes
    }

    /// The memory, in bytes, of the settings that are kept by name for all topics.
    pub fn setting_bytes(&self) -> usize {
        self.setting_bytes
    }

    /// The memory, in bytes, that all queues' message ids may come to.
    pub fn dedup_bytes(&self) -> usize {
        self.dedup_bytes
    }

    /// Shows a topic, in place of what it was before.
    pub(crate) fn show(&mut self, topic: &Arc<Topic>) {
        self.hide(topic.id);
        self.edition += 1;
        self.partitions += topic.partitions.len();
        self.name_bytes += topic.name.len();
        self.setting_bytes += topic.config.kept.bytes();
        self.dedup_bytes += topic.config.dedup_bytes();
        self.ids.insert(topic.id, topic.clone());
        let names = self.namespaces.entry(topic.namespace.clone()).or_default();
        names.insert(topic.name.clone(), topic.clone());
    }

    /// Shows a topic no longer.
    pub(crate) fn hide(&mut self, id: TopicId) {
        let Some(topic) = self.ids.remove(&id) else { return };
        self.edition += 1;
        self.partitions -= topic.partitions.len();
        self.name_bytes -= topic.name.len();
        self.setting_bytes -= topic.config.kept.bytes();
        self.dedup_bytes -= topic.config.dedup_bytes();
        if let Some(names) = self.namespaces.get_mut(&topic.namespace) {
            names.remove(&topic.name);
        }
    }
}

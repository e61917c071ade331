//! What is asked of topics: to be made, changed, emptied and deleted. Every rule is judged here, whichever front end asks.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};

use sabir_journal::Priority;
use sabir_model::{
    FrontendNo, Namespace, Offset, PartitionId, QueueConfig, ShardId, TopicConfig, TopicError, TopicId,
    ValidConfig,
};

use crate::broker::Broker;
use crate::caller::Caller;
use crate::catalog::{NewTopic, Topic};
use crate::definitions::TopicAnswer;
use crate::entry::{
    FrontendRegistered, LogStartsMoved, TopicConfigured, TopicCreated, TopicDeleted, TopicExtended,
};
use crate::level::FormatLevel;
use crate::open::random_id;
use crate::shard::Shard;

/// Topics that are made or deleted at a time: those of others have their turn between two such pieces, and what else the shards do.
const PIECE: usize = 256;

/// The longest name of a topic, in bytes. A front end may take less for what it makes.
const NAME_MAX: usize = 1024;

/// What is on its way into the catalog, and so is not in it yet: partitions, and bytes of settings kept by name and of what queues may remember.
#[derive(Debug, Default)]
pub(crate) struct OnTheWay {
    partitions: AtomicUsize,
    setting_bytes: AtomicUsize,
    dedup_bytes: AtomicUsize,
    /// How often settings were refused since all topics together keep as much as they may.
    pub(crate) refused_settings: AtomicU64,
}

/// What is to be more than there is.
#[derive(Debug, Clone, Copy, Default)]
struct Growth {
    partitions: usize,
    setting_bytes: usize,
    dedup_bytes: usize,
}

impl Growth {
    /// That of a topic's settings, which were those before.
    fn of(config: &TopicConfig, before: Option<&TopicConfig>) -> Self {
        let more = |bytes: fn(&TopicConfig) -> usize| bytes(config).saturating_sub(before.map_or(0, bytes));
        Self {
            partitions: 0,
            setting_bytes: more(|config| config.kept.bytes()),
            dedup_bytes: more(TopicConfig::dedup_bytes),
        }
    }
}

/// Some of that, until it is shown or refused.
#[derive(Debug)]
pub(crate) struct Admitted {
    all: Arc<OnTheWay>,
    growth: Growth,
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.all.partitions.fetch_sub(self.growth.partitions, SeqCst);
        self.all.setting_bytes.fetch_sub(self.growth.setting_bytes, SeqCst);
        self.all.dedup_bytes.fetch_sub(self.growth.dedup_bytes, SeqCst);
    }
}

impl Broker {
    /// Creates topics; answered, in order, when every partition of all of them takes writes. What differs from the node's defaults is
    /// a topic's own, beside what it marks as such.
    pub async fn create_topics(
        &self,
        caller: &Caller,
        topics: Vec<NewTopic>,
    ) -> Vec<Result<Arc<Topic>, TopicError>> {
        let made_by = match self.number_of(caller).await {
            Ok(number) => number,
            Err(error) => return topics.iter().map(|_| Err(error.clone())).collect(),
        };
        let propose = |topic| self.propose_topic(caller, made_by, topic);
        let mut answers = Vec::with_capacity(topics.len());
        for topics in pieces(topics) {
            let asked: Vec<_> = topics.into_iter().map(propose).collect();
            self.inner.definitions.flush();
            for asked in asked {
                answers.push(match asked {
                    Ok((id, answer)) => {
                        answer.await.inspect_err(|_| self.inner.definitions.exclusive.forget(id))
                    }
                    Err(error) => Err(error),
                });
            }
        }
        answers
    }

    /// Judges what [`create_topics`](Self::create_topics) would, as things are now, and makes nothing.
    ///
    /// # Errors
    /// Why the topic would not be made.
    pub fn check_new_topic(&self, caller: &Caller, topic: &NewTopic) -> Result<(), TopicError> {
        self.check_topic_name(caller, topic)?;
        self.check_count(&topic.name, topic.partitions)?;
        self.check_queue(topic)?;
        self.valid(topic.config.clone()).map(drop)
    }

    /// The part of [`check_new_topic`](Self::check_new_topic) that asks for the topic's name alone.
    ///
    /// # Errors
    /// Why no topic of this name would be made.
    pub fn check_topic_name(&self, caller: &Caller, topic: &NewTopic) -> Result<(), TopicError> {
        let name = &*topic.name;
        if name.is_empty() || name.len() > NAME_MAX || name.contains(char::is_control) {
            return Err(TopicError::InvalidName { most: NAME_MAX });
        }
        let there = self.catalog().topic_of(caller, name).is_some();
        if there {
            return Err(TopicError::Exists(name.into()));
        }
        self.may_make(caller, name, topic.internal)?;
        match self.topic_alike(caller, name).filter(|_| topic.unlike) {
            Some(other) => Err(TopicError::Collides { name: name.into(), other: (*other).into() }),
            None => Ok(()),
        }
    }

    /// The name of a topic of the caller's namespace that differs from this one in `.` and `_` alone.
    pub fn topic_alike(&self, caller: &Caller, name: &str) -> Option<Arc<str>> {
        self.catalog_shard().state.read().catalog.alike(caller.namespace().as_str(), name).cloned()
    }

    fn propose_topic(
        &self,
        caller: &Caller,
        made_by: FrontendNo,
        topic: NewTopic,
    ) -> Result<(TopicId, TopicAnswer), TopicError> {
        self.check_topic_name(caller, &topic)?;
        self.check_count(&topic.name, topic.partitions)?;
        self.check_queue(&topic)?;
        let mut config = topic.config;
        config.claim(&self.options().defaults);
        let config = self.valid(config)?;
        let admitted =
            self.admit(Growth { partitions: topic.partitions as usize, ..Growth::of(&config, None) })?;
        let id = random_id();
        let definitions = &self.inner.definitions;
        if config.queue().is_some_and(|queue| queue.exclusive) {
            definitions.exclusive.own(id, caller.session());
        }
        let body = TopicCreated {
            id,
            namespace: caller.namespace().as_str().to_owned(),
            name: topic.name,
            config,
            internal: topic.internal,
            unlike: topic.unlike,
            made_by,
            epoch_base: 0,
            shards: self.place(caller.namespace(), id, 0, topic.partitions),
        };
        Ok((id, definitions.change(&body, Priority::Ordinary, Some(admitted))))
    }

    fn check_count(&self, name: &str, asked: u32) -> Result<(), TopicError> {
        let most = self.options().partitions_max;
        match asked {
            asked if (1..=most).contains(&asked) => Ok(()),
            asked => Err(TopicError::Partitions { name: name.into(), asked, most }),
        }
    }

    fn check_queue(&self, topic: &NewTopic) -> Result<(), TopicError> {
        if topic.config.queue().is_none() {
            return Ok(());
        }
        let (has, needs) = (self.format_level(), FormatLevel::QUEUES);
        if has < needs {
            return Err(TopicError::QueuesNeedLevel { has: has.number(), needs: needs.number() });
        }
        self.check_queue_level(&topic.config)?;
        match topic.partitions {
            1 => Ok(()),
            asked => Err(TopicError::Partitions { name: (*topic.name).into(), asked, most: 1 }),
        }
    }

    /// The version before would not open a directory with a queue whose messages wait when they come back, that is consumed at a rate, or that drops
    /// what comes twice.
    fn check_queue_level(&self, config: &TopicConfig) -> Result<(), TopicError> {
        let (has, needs) = (self.format_level(), FormatLevel::RETRIES);
        let is_newer = |queue: &QueueConfig| {
            queue.retry.is_some() || queue.consume_rate.is_some() || queue.dedup_window_ms.is_some()
        };
        match config.queue().is_some_and(|queue| is_newer(queue)) && has < needs {
            true => Err(TopicError::QueuesNeedLevel { has: has.number(), needs: needs.number() }),
            false => Ok(()),
        }
    }

    fn valid(&self, config: TopicConfig) -> Result<ValidConfig, TopicError> {
        Ok(config.validate(self.options().durability)?)
    }

    /// Admits what is to be made, if the node may have so much more.
    fn admit(&self, growth: Growth) -> Result<Admitted, TopicError> {
        let (options, all, view) = (self.options(), self.inner.on_the_way.clone(), self.catalog());
        let Growth { partitions, setting_bytes, dedup_bytes } = growth;
        let expected = all.partitions.fetch_add(partitions, SeqCst) + partitions;
        let expected_bytes = all.setting_bytes.fetch_add(setting_bytes, SeqCst) + setting_bytes;
        let expected_ids = all.dedup_bytes.fetch_add(dedup_bytes, SeqCst) + dedup_bytes;
        let admitted = Admitted { all, growth };
        if partitions > 0 && view.partitions() + expected > options.partitions_total_max {
            return Err(TopicError::TooManyPartitions { most: options.partitions_total_max });
        }
        if setting_bytes > 0 && view.setting_bytes() + expected_bytes > options.settings_max {
            admitted.all.refused_settings.fetch_add(1, Relaxed);
            return Err(TopicError::TooManySettings { most: options.settings_max });
        }
        if dedup_bytes > 0 && view.dedup_bytes() + expected_ids > options.dedup_max {
            return Err(TopicError::TooManyMessageIds { most: options.dedup_max });
        }
        Ok(admitted)
    }

    /// The shards of partitions `from..to`: a topic of one lives in its namespace's home, others are spread over all data shards.
    fn place(&self, namespace: &Namespace, id: TopicId, from: u32, to: u32) -> Vec<ShardId> {
        let data_shards = self.options().data_shards;
        if to == 1 {
            return vec![namespace.home(data_shards)];
        }
        let start = u32::from_le_bytes([id.0[0], id.0[1], id.0[2], 0]);
        (from..to).map(|index| ShardId(1 + (start + index) % data_shards)).collect()
    }

    /// Deletes topics; answered, in order, when no partition of them is left.
    pub async fn delete_topics(&self, caller: &Caller, topics: Vec<TopicId>) -> Vec<Result<(), TopicError>> {
        let delete = |id: TopicId| {
            self.changeable(caller, id)?;
            Ok(self.inner.definitions.change(&TopicDeleted { id }, Priority::Reserve, None))
        };
        let mut answers = Vec::with_capacity(topics.len());
        for topics in pieces(topics) {
            let asked: Vec<Result<TopicAnswer, TopicError>> = topics.into_iter().map(delete).collect();
            self.inner.definitions.flush();
            for asked in asked {
                answers.push(match asked {
                    Ok(answer) => answer.await.map(drop),
                    Err(error) => Err(error),
                });
            }
        }
        answers
    }

    /// The topic as committed entries have it, if the caller may change it.
    pub(crate) fn changeable(&self, caller: &Caller, id: TopicId) -> Result<Arc<Topic>, TopicError> {
        let known = self.catalog_shard().state.read().catalog.topic(id).cloned();
        let known = known.ok_or(TopicError::Unknown)?;
        self.may_change(caller, &known).map(|()| known)
    }

    /// Raises a topic's number of partitions to `count`; answered when the new ones take writes.
    ///
    /// # Errors
    /// No such topic; `count` is not above what it has or beyond the limits; the shards do not take writes.
    pub async fn create_partitions(
        &self,
        caller: &Caller,
        topic: TopicId,
        count: u32,
    ) -> Result<Arc<Topic>, TopicError> {
        loop {
            let from = self.check_new_partitions(caller, topic, count)?;
            let admitted = self.admit(Growth { partitions: (count - from) as usize, ..Growth::default() })?;
            let body =
                TopicExtended { id: topic, from, shards: self.place(caller.namespace(), topic, from, count) };
            let asked = self.inner.definitions.change(&body, Priority::Ordinary, Some(admitted));
            self.inner.definitions.flush();
            match asked.await {
                Err(TopicError::Changed(_)) => {}
                done => return done,
            }
        }
    }

    /// Judges what [`create_partitions`](Self::create_partitions) would, as things are now, and makes nothing. Answers with how many the
    /// topic has.
    ///
    /// # Errors
    /// Why they would not be made.
    pub fn check_new_partitions(
        &self,
        caller: &Caller,
        topic: TopicId,
        count: u32,
    ) -> Result<u32, TopicError> {
        let known = self.changeable(caller, topic)?;
        if known.config.queue().is_some() {
            return Err(TopicError::IsQueue((*known.name).into()));
        }
        let has = known.partitions.len() as u32;
        if count <= has {
            return Err(TopicError::NotMore { name: (*known.name).into(), has });
        }
        self.check_count(&known.name, count).map(|()| has)
    }

    /// Changes a topic's configuration; answered when all its partitions keep to it. `change` is given what holds now, and is called
    /// again if another change came between: so none is lost, whichever way it came. What it does not mark as the topic's own takes the
    /// node's defaults, and follows them when they change.
    ///
    /// # Errors
    /// What `change` answers; no such topic; a configuration that cannot be; the shards do not take writes.
    pub async fn change_topic<E: From<TopicError>>(
        &self,
        caller: &Caller,
        topic: TopicId,
        mut change: impl FnMut(&mut TopicConfig) -> Result<(), E>,
    ) -> Result<Arc<Topic>, E> {
        // It would be right without: the second change is told so by the entry's outcome. But many at once would go on for long.
        let _turn = self.inner.changing.lock().await;
        loop {
            let (known, config) = self.changed(caller, topic, &mut change)?;
            if config == known.config {
                return Ok(known);
            }
            let admitted = self.admit(Growth::of(&config, Some(&known.config)))?;
            let body = TopicConfigured { id: topic, version: Some(known.version), config };
            let asked = self.inner.definitions.change(&body, Priority::Ordinary, Some(admitted));
            self.inner.definitions.flush();
            match asked.await {
                Err(TopicError::Changed(_)) => {}
                done => return Ok(done?),
            }
        }
    }

    /// Judges what [`change_topic`](Self::change_topic) would, as things are now, and changes nothing.
    ///
    /// # Errors
    /// Why it would not be changed.
    pub fn check_change<E: From<TopicError>>(
        &self,
        caller: &Caller,
        topic: TopicId,
        mut change: impl FnMut(&mut TopicConfig) -> Result<(), E>,
    ) -> Result<(), E> {
        self.changed(caller, topic, &mut change).map(drop)
    }

    fn changed<E: From<TopicError>>(
        &self,
        caller: &Caller,
        topic: TopicId,
        change: &mut impl FnMut(&mut TopicConfig) -> Result<(), E>,
    ) -> Result<(Arc<Topic>, ValidConfig), E> {
        let (known, defaults) = (self.changeable(caller, topic)?, &self.options().defaults);
        let mut config = TopicConfig::clone(&known.config);
        // Right after a start it may not have followed new defaults yet.
        config.inherit(defaults);
        change(&mut config)?;
        config.inherit(defaults);
        self.check_queue_level(&config)?;
        let config = self.valid(config)?;
        Ok((known, config))
    }

    /// Moves a partition's first offset up to `before` (-1: to the high watermark) and answers with where it now is.
    ///
    /// # Errors
    /// No such partition; an offset beyond the high watermark; the shard does not take writes; what is in it is another's.
    pub async fn delete_records(
        &self,
        caller: &Caller,
        shard: ShardId,
        partition: PartitionId,
        before: Offset,
    ) -> Result<Offset, TopicError> {
        let shard = self.shard(shard).ok_or(TopicError::Unknown)?;
        let topic = shard.state.read().partition(partition).map(|partition| partition.topic);
        let known = self.changeable(caller, topic.ok_or(TopicError::Unknown)?)?;
        self.may_empty(caller, &known)?;
        let body = LogStartsMoved { moves: vec![(partition, before)] };
        shard.ask(Priority::Reserve, &body).await
    }

    /// The number of the front end that asks, given when it first asks for it or makes a topic, and kept for good.
    ///
    /// # Errors
    /// The catalog's shard does not take writes; no number is left.
    pub async fn number_of(&self, caller: &Caller) -> Result<FrontendNo, TopicError> {
        number_of(self.catalog_shard(), caller).await
    }

    pub(crate) fn front_end_number(&self, name: &str) -> Option<FrontendNo> {
        self.catalog_shard().state.read().catalog.front_end(name)
    }
}

/// See [`Broker::number_of`].
pub(crate) async fn number_of(catalog: &Shard, caller: &Caller) -> Result<FrontendNo, TopicError> {
    let Some(name) = caller.as_front_end() else { return Ok(FrontendNo::NONE) };
    let known = catalog.state.read().catalog.front_end(name);
    match known {
        Some(known) => Ok(known),
        None => catalog.ask(Priority::Ordinary, &FrontendRegistered { name: name.to_owned() }).await,
    }
}

fn pieces<T>(all: Vec<T>) -> impl Iterator<Item = Vec<T>> {
    let mut rest = all.into_iter();
    std::iter::from_fn(move || {
        Some(rest.by_ref().take(PIECE).collect::<Vec<_>>()).filter(|piece| !piece.is_empty())
    })
}

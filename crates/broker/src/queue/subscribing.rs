//! Subscriptions of topics that are no queues: made, looked at, and removed.
//!
//! Each partition has its part of a subscription in its own shard, with a number of its own; a part is consumed as a queue is. So a subscription is
//! made by an entry for each partition, and is there for its topic once all have it.

use std::collections::BTreeMap;

use sabir_journal::Priority;
use sabir_model::{ErrorAbout, FrontendNo, Offset, ReadError, ShardFailure};

use super::{QueueError, QueueStats, QueueTarget};
use crate::broker::Broker;
use crate::caller::Caller;
use crate::catalog::{Partition, Topic};
use crate::entry::{
    SubscribeError, SubscriptionMade, SubscriptionRemoved, SubscriptionSettings, SubscriptionStart,
};
use crate::level::FormatLevel;
use crate::read::{FoundOffset, OffsetSpec, ReadTarget};

/// Where a subscription begins that is not there yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartAt {
    /// At a place that each partition knows.
    Place(SubscriptionStart),
    /// With the first record of at least that timestamp, in milliseconds.
    Since(i64),
}

impl Default for StartAt {
    fn default() -> Self {
        Self::Place(SubscriptionStart::Oldest)
    }
}

/// A subscription as it is wanted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SubscriptionSpec {
    /// Where it begins, if it is made.
    pub start: StartAt,
    /// What holds for it, if it is made; nothing said of it takes what there is.
    pub settings: SubscriptionSettings,
}

/// How much there is of a subscription, in all partitions of its topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubscriptionStats {
    /// Its name.
    pub name: Box<str>,
    /// The front end's projection whose entry made it, and alone removes it; none where clients did.
    pub owner: Option<Box<str>>,
    /// Its messages and consumers. A client that consumes several partitions is one of them.
    pub queue: QueueStats,
}

/// Why there is no subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SubscribeRefused {
    /// The topic cannot be used so.
    #[error(transparent)]
    Topic(#[from] QueueError),
    /// A queue has one subscription, which is its own.
    #[error("the topic is a queue")]
    IsQueue,
    /// A name has 1 to 1,024 bytes.
    #[error("the name of a subscription has 1 to {} bytes", SubscriptionSettings::LONGEST_NAME)]
    Name,
    /// Where its dead letters go is too long a name.
    #[error("the exchange and the routing key of dead letters have at most 1,024 bytes each")]
    DeadLetter,
    /// The topic has as many as it may have.
    #[error("the topic has as many subscriptions as it may have")]
    TooMany,
    /// An entry of a front end's own made it: no client moves or removes it otherwise.
    #[error("a front end keeps the subscription for its clients, who move and remove it by way of that")]
    Owned,
    /// It is there with other settings.
    #[error("the subscription is there with other settings")]
    Differs,
    /// An offset is one partition's, and the topic has several.
    #[error("the topic has several partitions: no offset is that of all of them")]
    SeveralPartitions,
    /// The records of a time cannot be found.
    #[error("where the subscription is to begin cannot be read: {0}")]
    Read(ReadError),
    /// The data directory is of a format level that has no subscriptions.
    #[error(
        "subscriptions need format level {needs}, and the data directory has {has}: raise data.format_level"
    )]
    NeedsLevel {
        /// The directory's.
        has: u32,
        /// The one it takes.
        needs: u32,
    },
}

impl From<ShardFailure> for SubscribeRefused {
    fn from(failure: ShardFailure) -> Self {
        Self::Topic(failure.into())
    }
}

impl From<SubscribeError> for SubscribeRefused {
    fn from(error: SubscribeError) -> Self {
        match error {
            SubscribeError::Unknown => Self::Topic(QueueError::Unknown),
            SubscribeError::TooMany => Self::TooMany,
            SubscribeError::Shard(failure) => failure.into(),
        }
    }
}

impl Broker {
    /// Has a topic have a subscription of that name, made where it is not there. Gives its part of each partition, in their order. A partition that
    /// was added since it was made is taken from its first record on.
    ///
    /// Of one that a front end keeps in some partition there are the parts that this has, and none is made: callers consume it there.
    ///
    /// # Errors
    /// See [`SubscribeRefused`]. Some partitions may have their parts then: a caller that asks again makes the others.
    pub async fn subscribe(
        &self,
        caller: &Caller,
        topic: &Topic,
        name: &str,
        wanted: &SubscriptionSpec,
    ) -> Result<Vec<QueueTarget>, ErrorAbout<SubscribeRefused>> {
        let made = self.make_subscription(caller, topic, name, wanted).await;
        made.map_err(|error| ErrorAbout::new(error, topic.subscription_subject(name)))
    }

    async fn make_subscription(
        &self,
        caller: &Caller,
        topic: &Topic,
        name: &str,
        wanted: &SubscriptionSpec,
    ) -> Result<Vec<QueueTarget>, SubscribeRefused> {
        self.check_subscription(caller, topic, name)?;
        if wanted.settings.dead_letter.as_ref().is_some_and(|to| !to.fits()) {
            return Err(SubscribeRefused::DeadLetter);
        }
        if let Some(there) = self.check_alike(topic, name, wanted)? {
            return Ok(there);
        }
        if self.owner_of_a_part(topic, name) != FrontendNo::NONE {
            return Ok(self.parts(topic, name));
        }
        let known = self.first_made(topic, name);
        // A part of one that is there is as the others are.
        let settings = known.as_ref().map_or(&wanted.settings, |(_, settings)| settings);
        let (mut targets, mut answers) = (Vec::new(), Vec::new());
        for partition in topic.partitions.iter() {
            let index = u32::try_from(partition.index).unwrap_or(0);
            let is_later = known.as_ref().is_some_and(|(partitions, _)| index >= *partitions);
            let start = match is_later {
                true => SubscriptionStart::Oldest,
                false => self.start_in(partition, topic, wanted).await?,
            };
            let body = SubscriptionMade {
                partition: partition.id,
                partitions: u32::try_from(topic.partitions.len()).unwrap_or(u32::MAX),
                name: name.into(),
                start,
                settings: settings.clone(),
            };
            let shard = self.shard(partition.shard).ok_or(QueueError::Unknown)?;
            answers.push((partition, shard.ask(Priority::Ordinary, &body)));
        }
        for (partition, answer) in answers {
            targets.push(QueueTarget::of_subscription(partition, answer.await?));
        }
        // Another caller may have made it meanwhile, otherwise than it is wanted.
        self.check_alike(topic, name, wanted)?;
        Ok(targets)
    }

    /// What a subscription has of each partition, for those that have a part of it.
    ///
    /// # Errors
    /// The topic cannot be used so; the name is none.
    pub fn subscription(
        &self,
        caller: &Caller,
        topic: &Topic,
        name: &str,
    ) -> Result<Vec<QueueTarget>, ErrorAbout<SubscribeRefused>> {
        let usable = self.check_subscription(caller, topic, name);
        usable.map_err(|error| ErrorAbout::new(error, topic.subscription_subject(name)))?;
        Ok(self.parts(topic, name))
    }

    /// Removes a topic's subscription: its consumers are told, and where it was is forgotten. Tells whether there was one. What is refused to the
    /// caller in one partition stays in all of them.
    ///
    /// # Errors
    /// See [`SubscribeRefused`]. Some partitions may have their parts still: a caller that asks again removes these.
    pub async fn unsubscribe(
        &self,
        caller: &Caller,
        topic: &Topic,
        name: &str,
    ) -> Result<bool, ErrorAbout<SubscribeRefused>> {
        let removed = self.remove_subscription(caller, topic, name).await;
        removed.map_err(|error| ErrorAbout::new(error, topic.subscription_subject(name)))
    }

    async fn remove_subscription(
        &self,
        caller: &Caller,
        topic: &Topic,
        name: &str,
    ) -> Result<bool, SubscribeRefused> {
        self.check_subscription(caller, topic, name)?;
        let mut parts = Vec::new();
        for partition in topic.partitions.iter() {
            let shard = self.shard(partition.shard).ok_or(QueueError::Unknown)?;
            let owner =
                shard.state.read().subscriptions.find(partition.id, name).map(|(_, named)| named.owner);
            let owner = owner.unwrap_or(FrontendNo::NONE);
            caller.may_change_subscription_of(owner)?;
            parts.push((shard, SubscriptionRemoved { owner, partition: partition.id, name: name.into() }));
        }
        let asked = parts.into_iter().map(|(shard, body)| shard.ask(Priority::Reserve, &body));
        let answers: Vec<_> = asked.collect();
        let mut was_there = false;
        for answer in answers {
            match answer.await {
                Ok(_) => was_there = true,
                Err(SubscribeError::Unknown) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(was_there)
    }

    /// Whether a topic's subscription may be purged or removed, as things are now: not where a front end keeps it. What then does so judges that by
    /// itself, part by part.
    ///
    /// # Errors
    /// The topic cannot be used so; the name is none; [`SubscribeRefused::Owned`].
    pub fn may_change_subscription(
        &self,
        caller: &Caller,
        topic: &Topic,
        name: &str,
    ) -> Result<(), ErrorAbout<SubscribeRefused>> {
        let may_change = self
            .check_subscription(caller, topic, name)
            .and_then(|()| caller.may_change_subscription_of(self.owner_of_a_part(topic, name)));
        may_change.map_err(|error| ErrorAbout::new(error, topic.subscription_subject(name)))
    }

    /// The subscriptions of a topic, by their names.
    ///
    /// # Errors
    /// The topic cannot be used so; a shard of it is not led here.
    pub fn subscriptions(
        &self,
        caller: &Caller,
        topic: &Topic,
    ) -> Result<Vec<SubscriptionStats>, ErrorAbout<QueueError>> {
        caller.may_use(topic).map_err(|error| ErrorAbout::new(error, topic.whole_subject()))?;
        let mut all: BTreeMap<Box<str>, (FrontendNo, Vec<QueueTarget>)> = BTreeMap::new();
        for partition in topic.partitions.iter() {
            let Some(shard) = self.shard(partition.shard) else { continue };
            for (number, named) in shard.state.read().subscriptions.named_of(partition.id) {
                let part = QueueTarget::of_subscription(partition, number);
                let of_name = all.entry(named.name.clone()).or_insert((named.owner, Vec::new()));
                if of_name.0 == FrontendNo::NONE {
                    of_name.0 = named.owner;
                }
                of_name.1.push(part);
            }
        }
        let mut stats = Vec::with_capacity(all.len());
        for (name, (owner, parts)) in all {
            match self.subscription_stats(&parts) {
                Ok(queue) => {
                    stats.push(SubscriptionStats { name, owner: self.projection_name(owner), queue })
                }
                // Removed a moment ago.
                Err(ErrorAbout { error: QueueError::Unknown, .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(stats)
    }

    /// How much there is of a subscription, of which these are the parts. A client that consumes several of them is one consumer.
    ///
    /// # Errors
    /// It is gone, or a shard of it is not led here.
    pub fn subscription_stats(&self, parts: &[QueueTarget]) -> Result<QueueStats, ErrorAbout<QueueError>> {
        let mut all = QueueStats::default();
        for part in parts {
            let QueueStats { ready, in_flight, parked, consumers } = self.queues().stats(*part)?;
            all.ready += ready;
            all.in_flight += in_flight;
            all.parked += parked;
            all.consumers = all.consumers.max(consumers);
        }
        Ok(all)
    }

    /// Whether the data directory's level has subscriptions of topics.
    pub fn has_subscriptions(&self) -> bool {
        self.format_level() >= FormatLevel::RETRIES
    }

    fn projection_name(&self, number: FrontendNo) -> Option<Box<str>> {
        let known = self.inner.projections.iter().find(|(known, _)| *known == number);
        known.map(|(_, name)| (*name).into())
    }

    fn check_subscription(&self, caller: &Caller, topic: &Topic, name: &str) -> Result<(), SubscribeRefused> {
        caller.may_use(topic)?;
        if topic.config.queue().is_some() {
            return Err(SubscribeRefused::IsQueue);
        }
        if !self.has_subscriptions() {
            let (has, needs) = (self.format_level(), FormatLevel::RETRIES);
            return Err(SubscribeRefused::NeedsLevel { has: has.number(), needs: needs.number() });
        }
        if SubscriptionSettings::is_name(name) { Ok(()) } else { Err(SubscribeRefused::Name) }
    }

    /// The parts of a subscription that is whole and is what is wanted; none if it lacks parts.
    fn check_alike(
        &self,
        topic: &Topic,
        name: &str,
        wanted: &SubscriptionSpec,
    ) -> Result<Option<Vec<QueueTarget>>, SubscribeRefused> {
        let takes_all = wanted.settings == SubscriptionSettings::default();
        let mut parts = Vec::new();
        for partition in topic.partitions.iter() {
            let Some(shard) = self.shard(partition.shard) else { continue };
            let state = shard.state.read();
            let Some((number, named)) = state.subscriptions.find(partition.id, name) else { continue };
            if !takes_all && named.settings != wanted.settings {
                return Err(SubscribeRefused::Differs);
            }
            parts.push(QueueTarget::of_subscription(partition, number));
        }
        Ok((parts.len() == topic.partitions.len()).then_some(parts))
    }

    fn parts(&self, topic: &Topic, name: &str) -> Vec<QueueTarget> {
        let part = |partition: &Partition| {
            let state = self.shard(partition.shard)?.state.read();
            let (number, _) = state.subscriptions.find(partition.id, name)?;
            Some(QueueTarget::of_subscription(partition, number))
        };
        topic.partitions.iter().filter_map(part).collect()
    }

    /// The projection that keeps a subscription in a partition of its topic; none where no part of it is kept.
    fn owner_of_a_part(&self, topic: &Topic, name: &str) -> FrontendNo {
        let owner = |partition: &Partition| {
            let state = self.shard(partition.shard)?.state.read();
            state.subscriptions.find(partition.id, name).map(|(_, named)| named.owner)
        };
        let mut owners = topic.partitions.iter().filter_map(owner);
        owners.find(|owner| *owner != FrontendNo::NONE).unwrap_or(FrontendNo::NONE)
    }

    /// How many partitions a topic had when its subscription was made, and what holds for that; none if no partition has a part of it.
    fn first_made(&self, topic: &Topic, name: &str) -> Option<(u32, SubscriptionSettings)> {
        let made = |partition: &Partition| {
            let state = self.shard(partition.shard)?.state.read();
            state
                .subscriptions
                .find(partition.id, name)
                .map(|(_, named)| (named.partitions, named.settings.clone()))
        };
        topic.partitions.iter().find_map(made)
    }

    /// Where a subscription begins in a partition.
    async fn start_in(
        &self,
        partition: &Partition,
        topic: &Topic,
        wanted: &SubscriptionSpec,
    ) -> Result<SubscriptionStart, SubscribeRefused> {
        match wanted.start {
            StartAt::Place(SubscriptionStart::At(_)) if topic.partitions.len() > 1 => {
                Err(SubscribeRefused::SeveralPartitions)
            }
            StartAt::Place(place) => Ok(place),
            StartAt::Since(time_ms) => {
                let target = ReadTarget { shard: partition.shard, partition: partition.id };
                let read = |found: Result<FoundOffset, ErrorAbout<ReadError>>| {
                    found.map_err(|about| SubscribeRefused::Read(about.error))
                };
                // Asked first: what comes while the time is looked for may have it.
                let end = read(self.offsets(target, OffsetSpec::Latest).await)?.offset;
                let found = read(self.offsets(target, OffsetSpec::Timestamp(time_ms)).await)?.offset;
                let Offset(start) = if found < Offset::ZERO { end } else { found };
                Ok(u64::try_from(start).map_or(SubscriptionStart::Next, SubscriptionStart::At))
            }
        }
    }
}

//! What takes its time: it is asked of the broker, and its answer goes to the client in its turn.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use sabir_broker::queue::reader::UnreadableMessages;
use sabir_broker::queue::{
    DeleteOnlyIf, LocalTransaction, QueueError, QueueOwner, QueueStats, QueueTarget, StartAt,
    SubscribeRefused, SubscriptionSpec, SubscriptionStart,
};
use sabir_broker::{Caller, NewTopic, ReadTarget, Topic};
use sabir_model::{ErrorAbout, ShardFailure, TopicError, TopicId};
use sabir_net::{ConnectionId, Workers};

use super::arguments::{Declaration, WantedSubscription, precondition, queue};
use super::frontend::AmqpFrontend;
use super::getting::Got;
use super::mandatory::{MandatoryTogether, Unroutable};
use super::publish::ChannelId;
use super::settling::Fate;
use super::unacked::Delivered;
use crate::wire::*;

/// How long it is waited for a queue that another connection is making, and how often it is looked.
const LOOKS: u32 = 100;
const LOOK: Duration = Duration::from_millis(20);

/// The names that the server gives itself.
pub(super) const RESERVED: &str = "amq.";

/// An answer, as it comes.
pub(super) type Answering = Pin<Box<dyn Future<Output = Result<Answer, Exception>>>>;

/// What is asked for, and the answer to it.
pub(super) struct Asked {
    /// On which channel; none for what is the connection's.
    pub(super) channel: Option<ChannelId>,
    /// By which method.
    pub(super) method: (u16, u16),
    /// What it takes messages from and for whom, if it does.
    pub(super) takes: Vec<(QueueTarget, QueueOwner)>,
    pub(super) answering: Answering,
}

/// What is answered.
pub(super) enum Answer {
    /// The connection is open.
    Opened,
    /// All is laid down for a client that closes.
    Closed,
    /// There is such a queue.
    Declared {
        name: Box<str>,
        stats: QueueStats,
        no_wait: bool,
    },
    /// So many messages are dropped.
    Purged {
        messages: u64,
        no_wait: bool,
    },
    /// The queue is gone, with so many messages.
    Deleted {
        messages: u64,
        no_wait: bool,
    },
    /// An exchange or a binding is there, or is there no more.
    ExchangeDeclared,
    ExchangeDeleted,
    QueueBound,
    QueueUnbound,
    ExchangeBound,
    ExchangeUnbound,
    /// It is done, and the client did not want to be told.
    Nothing,
    /// A topic has the subscription that is to be consumed.
    Subscribed {
        topic: Arc<Topic>,
        /// What it has of each partition.
        targets: Arc<[QueueTarget]>,
        subscriber: Subscriber,
    },
    /// A consumer is no more.
    Cancelled {
        tag: Box<str>,
        no_wait: bool,
    },
    /// A transaction has taken effect; what becomes of these follows it, and messages whose queues are gone go back before.
    Committed {
        others: Vec<(Fate, Delivered)>,
        unroutable: Vec<Unroutable>,
    },
    /// A message was got, if there was one.
    Got {
        /// None where none is ready.
        got: Option<Box<Got>>,
        /// What could not be read before it.
        unreadable: Vec<UnreadableMessages>,
    },
}

/// What a subscription is for.
pub(super) enum Subscriber {
    Consumer(WantedConsumer),
    Getter(WantedGet),
}

/// A consumer as it is asked for, to be kept.
pub(super) struct WantedConsumer {
    pub(super) name: Box<str>,
    pub(super) tag: Box<str>,
    pub(super) priority: i32,
    pub(super) exclusive: bool,
    pub(super) no_ack: bool,
    pub(super) no_wait: bool,
}

/// A message as it is asked for, to be kept.
pub(super) struct WantedGet {
    pub(super) name: String,
    pub(super) no_ack: bool,
}

/// A queue as it is asked for, to be kept.
pub(super) struct WantedQueue {
    pub(super) name: String,
    pub(super) passive: bool,
    pub(super) durable: bool,
    pub(super) exclusive: bool,
    pub(super) auto_delete: bool,
    pub(super) no_wait: bool,
    /// A field table.
    pub(super) arguments: Vec<u8>,
}

/// As which caller.
#[derive(Clone)]
pub(super) struct Asker {
    pub(super) amqp: Arc<AmqpFrontend>,
    pub(super) workers: Workers,
    pub(super) caller: Caller,
    pub(super) connection: ConnectionId,
}

impl Asker {
    /// A queue that is there, and that the connection may use.
    pub(super) fn topic(&self, name: &str) -> Result<Arc<Topic>, Exception> {
        let topic = self.amqp.broker.catalog().topic_of(&self.caller, name).cloned();
        let topic = topic.ok_or_else(|| not_found(name))?;
        self.check_access(&topic).map(|()| topic)
    }

    /// Refuses what another connection, or a protocol itself, has for itself.
    fn check_access(&self, topic: &Topic) -> Result<(), Exception> {
        let may_use = self.amqp.broker.may_use(&self.caller, topic);
        may_use.map_err(|refusal| refused(&topic.name, refusal.error))
    }

    pub(super) fn target(&self, topic: &Topic) -> Result<QueueTarget, Exception> {
        QueueTarget::new(&self.caller, topic).map_err(|refusal| refused(&topic.name, refusal.error))
    }

    /// The subscription that is meant where none is named, as far as it is there. It has the topic's name.
    fn subscription(&self, topic: &Topic) -> Result<Vec<QueueTarget>, Exception> {
        let parts = self.amqp.broker.subscription(&self.caller, topic, &topic.name);
        parts.map_err(|refusal| not_subscribed(&topic.name, &refusal.error))
    }

    /// How much there is of a queue; of another topic, of the subscription of its name, and if there is none what it would begin with.
    async fn stats(&self, topic: &Topic) -> Result<QueueStats, Exception> {
        let broker = &self.amqp.broker;
        let failed = |refusal: ErrorAbout<QueueError>| refused(&topic.name, refusal.error);
        match QueueTarget::new(&self.caller, topic) {
            Ok(target) => broker.queues().settled_stats(target).await.map_err(failed),
            Err(_) => {
                let parts = self.subscription(topic).unwrap_or_default();
                if !parts.is_empty() {
                    return broker.subscription_stats(&parts).map_err(failed);
                }
                let kept = topic.partitions.iter().filter_map(|partition| {
                    let target = ReadTarget::new(&self.caller, topic, partition.index).ok()?;
                    let stats = broker.partition_stats(target).ok()?;
                    u64::try_from(stats.end.0 - stats.start.0).ok()
                });
                Ok(QueueStats { ready: kept.sum(), ..QueueStats::default() })
            }
        }
    }

    /// Has a queue be there.
    pub(super) async fn declare(self, wanted: WantedQueue) -> Result<Answer, Exception> {
        let arguments = FieldTable::from_bytes(&wanted.arguments).unwrap_or_default();
        let WantedQueue { ref name, passive, durable, exclusive, auto_delete, no_wait, .. } = wanted;
        let declaration = Declaration { name, durable, exclusive, auto_delete, arguments };
        let topic = match passive {
            true => self.topic(name)?,
            false => self.make(&declaration).await?,
        };
        if let Ok(target) = self.target(&topic) {
            self.amqp.broker.queues().used(target);
        }
        Ok(Answer::Declared { name: name.as_str().into(), stats: self.stats(&topic).await?, no_wait })
    }

    async fn make(&self, declaration: &Declaration<'_>) -> Result<Arc<Topic>, Exception> {
        for _ in 0..LOOKS {
            let there = self.amqp.broker.catalog().topic_of(&self.caller, declaration.name).cloned();
            if let Some(topic) = there {
                return self.check_alike(declaration, &topic).map(|()| topic);
            }
            match self.create(declaration).await? {
                Some(topic) => return Ok(topic),
                // Another connection was quicker, and it is not shown yet.
                None => tokio::time::sleep(LOOK).await,
            }
        }
        Err(internal(declaration.name, "it is being made, and does not come to be there").into())
    }

    fn check_alike(&self, declaration: &Declaration<'_>, topic: &Topic) -> Result<(), Exception> {
        self.check_access(topic)?;
        if declaration.exclusive && topic.config.queue().is_some_and(|queue| !queue.exclusive) {
            return Err(locked(&topic.name).into());
        }
        Ok(declaration.check_alike(&topic.config)?)
    }

    async fn create(&self, declaration: &Declaration<'_>) -> Result<Option<Arc<Topic>>, Exception> {
        let config = declaration.config(self.amqp.options.message_max)?;
        let name: Box<str> = declaration.name.into();
        // Before it is there, so that no other connection finds it without an owner.
        if declaration.exclusive && !self.amqp.exclusive.take(&name, self.connection) {
            return Err(locked(&name).into());
        }
        let topic =
            NewTopic { name: name.to_string(), partitions: 1, config, internal: false, unlike: false };
        let made = self.amqp.broker.create_topics(&self.caller, vec![topic]).await.pop();
        let made = made.expect("an answer for each topic");
        if made.is_err() && declaration.exclusive {
            self.amqp.exclusive.remove(&name);
        }
        match made {
            Ok(topic) => Ok(Some(topic)),
            Err(TopicError::Exists(_)) => Ok(None),
            Err(error) => Err(not_made(&name, &error)),
        }
    }

    pub(super) async fn purge(self, name: String, no_wait: bool) -> Result<Answer, Exception> {
        let topic = self.topic(&name)?;
        let messages = match topic.config.queue() {
            Some(_) => self.drop_ready(&name, self.target(&topic)?).await?,
            None => self.move_to_end(&topic).await?,
        };
        Ok(Answer::Purged { messages, no_wait })
    }

    async fn drop_ready(&self, name: &str, target: QueueTarget) -> Result<u64, Exception> {
        let purging = self.amqp.broker.queues().purge(&self.caller, target);
        self.amqp.broker.flush();
        purging.await.map_err(|refusal| refused(name, refusal.error))
    }

    /// Has the subscription of a topic's name go on with what comes next. Tells how many messages that leaves out.
    async fn move_to_end(&self, topic: &Topic) -> Result<u64, Exception> {
        // Before a part of it is emptied.
        let may_purge = self.amqp.broker.may_change_subscription(&self.caller, topic, &topic.name);
        may_purge.map_err(|refusal| not_subscribed(&topic.name, &refusal.error))?;
        let (before, is_there) = (self.stats(topic).await?.ready, !self.subscription(topic)?.is_empty());
        let start = StartAt::Place(SubscriptionStart::Next);
        let spec = SubscriptionSpec { start, ..SubscriptionSpec::default() };
        let mut dropped = 0;
        for target in self.make_subscription(topic, &topic.name, &spec).await? {
            dropped += self.drop_ready(&topic.name, target).await?;
        }
        Ok(if is_there { dropped } else { before })
    }

    async fn make_subscription(
        &self,
        topic: &Topic,
        name: &str,
        spec: &SubscriptionSpec,
    ) -> Result<Vec<QueueTarget>, Exception> {
        let made = self.amqp.broker.subscribe(&self.caller, topic, name, spec).await;
        made.map_err(|refusal| not_subscribed(&topic.name, &refusal.error))
    }

    /// Has a topic have a subscription, and gives it to whom it is for.
    pub(super) async fn subscribe(
        self,
        topic: Arc<Topic>,
        wanted: WantedSubscription,
        subscriber: Subscriber,
    ) -> Result<Answer, Exception> {
        let targets = self.make_subscription(&topic, &wanted.name, &wanted.spec).await?;
        Ok(Answer::Subscribed { topic, targets: targets.into(), subscriber })
    }

    /// Removes the subscription of a topic's name. The topic stays: another protocol made it.
    async fn unsubscribe(&self, topic: &Topic, if_unused: bool, if_empty: bool) -> Result<u64, Exception> {
        if self.subscription(topic)?.is_empty() {
            return Ok(0);
        }
        let QueueStats { ready, consumers, .. } = self.stats(topic).await?;
        if if_unused && consumers > 0 {
            return Err(not_made(&topic.name, &TopicError::InUse((*topic.name).into())));
        }
        if if_empty && ready > 0 {
            return Err(not_made(&topic.name, &TopicError::NotEmpty((*topic.name).into())));
        }
        let removed = self.amqp.broker.unsubscribe(&self.caller, topic, &topic.name).await;
        removed.map(|_| ready).map_err(|refusal| not_subscribed(&topic.name, &refusal.error))
    }

    pub(super) async fn delete(
        self,
        name: String,
        if_unused: bool,
        if_empty: bool,
        no_wait: bool,
    ) -> Result<Answer, Exception> {
        let gone = Answer::Deleted { messages: 0, no_wait };
        let Some(topic) = self.amqp.broker.catalog().topic_of(&self.caller, &name).cloned() else {
            return Ok(gone);
        };
        self.check_access(&topic)?;
        if topic.config.queue().is_none() {
            let messages = self.unsubscribe(&topic, if_unused, if_empty).await?;
            return Ok(Answer::Deleted { messages, no_wait });
        }
        let stats = self.stats(&topic).await?;
        let only_if = DeleteOnlyIf { unused: if_unused, empty: if_empty };
        let deleted = match only_if == DeleteOnlyIf::default() {
            false => self.remove_if(&name, topic.id, only_if).await,
            true => self.amqp.remove(&self.caller, vec![(name.as_str().into(), topic.id)]).await.remove(0),
        };
        match deleted {
            Err(TopicError::Unknown) => Ok(gone),
            Err(error) => Err(not_made(&name, &error)),
            Ok(()) => Ok(Answer::Deleted { messages: stats.ready, no_wait }),
        }
    }

    async fn remove_if(&self, name: &str, queue: TopicId, only_if: DeleteOnlyIf) -> Result<(), TopicError> {
        let removed = self.amqp.broker.delete_queue(&self.caller, queue, only_if).await;
        let is_gone = matches!(removed, Ok(()) | Err(TopicError::Unknown));
        // Another connection may have the name by now.
        if is_gone && self.amqp.exclusive.is_of(name, self.connection) {
            self.amqp.exclusive.remove(name);
        }
        removed
    }

    /// Deletes a queue that goes with its last consumer, if that was it.
    pub(super) async fn delete_unused(self, name: Box<str>, id: TopicId) {
        let only_if = DeleteOnlyIf { unused: true, empty: false };
        if let Err(error) = self.remove_if(&name, id, only_if).await {
            tracing::debug!(queue = &*name, %error, "an auto-delete queue is not deleted");
        }
    }

    /// Has a transaction take effect.
    pub(super) async fn commit(
        self,
        transaction: LocalTransaction,
        mut mandatory: MandatoryTogether,
        others: Vec<(Fate, Delivered)>,
    ) -> Result<Answer, Exception> {
        let broker = &self.amqp.broker;
        while let Some(shard) = transaction.targets().find_map(|targets| broker.crowded_by(targets)) {
            broker.room(shard).await;
        }
        let committing = broker.commit(&self.caller, transaction);
        let committing = committing.map_err(|refused| precondition(refused.to_string()))?;
        broker.flush();
        match committing.done(|publish, outcome| mandatory.note(publish, outcome)).await {
            Ok(()) => Ok(Answer::Committed { others, unroutable: mandatory.decide() }),
            Err(error) => Err(precondition(format!("partial tx completion: {error}")).into()),
        }
    }
}

pub(super) fn not_found(name: &str) -> ChannelException {
    ChannelException::not_found(format!("no {}", queue(name)))
}

fn locked(name: &str) -> ChannelException {
    let text = format!(
        "cannot obtain exclusive access to locked {}. It could be originally declared on another connection or the exclusive \
         property value does not match that of the original declaration.",
        queue(name)
    );
    ChannelException::resource_locked(text)
}

pub(super) fn internal(name: &str, why: &str) -> ConnectionException {
    ConnectionException::new(ReplyCode::InternalError, format!("{}: {why}", queue(name)))
}

/// Why a shard did not do what was asked for. A full disk is no failure of the broker's: what is on the connection's other channels goes on, and room may be
/// made by it.
pub(super) fn failed(what: impl fmt::Display, failure: ShardFailure) -> Exception {
    let text = format!("{what}: {failure}");
    match failure {
        ShardFailure::StorageFull => precondition(text).into(),
        ShardFailure::NotLeader
        | ShardFailure::StorageError
        | ShardFailure::Timeout
        | ShardFailure::TooLarge
        | ShardFailure::ShuttingDown => ConnectionException::new(ReplyCode::InternalError, text).into(),
    }
}

/// Why a queue is not used, in RabbitMQ's words, with the name that the client gave: it names a queue that is gone, too.
pub(super) fn refused(name: &str, error: QueueError) -> Exception {
    let ends_channel = match error {
        QueueError::Unknown => not_found(name),
        QueueError::Locked => locked(name),
        QueueError::Internal => ChannelException::access_refused(format!("{}: {error}", queue(name))),
        QueueError::Owned => ChannelException::access_refused(format!("topic '{name}': {error}")),
        QueueError::NotAQueue => precondition(format!("topic '{name}' is no queue")),
        QueueError::Exclusive | QueueError::InUse => {
            ChannelException::access_refused(format!("{} in exclusive use", queue(name)))
        }
        QueueError::Shard(failure) => return failed(queue(name), failure),
    };
    ends_channel.into()
}

/// Why a topic has no subscription.
fn not_subscribed(name: &str, error: &SubscribeRefused) -> Exception {
    match error {
        SubscribeRefused::Topic(error) => refused(name, *error),
        SubscribeRefused::TooMany => {
            ConnectionException::new(ReplyCode::ResourceError, format!("topic '{name}': {error}")).into()
        }
        SubscribeRefused::Owned => {
            ChannelException::access_refused(format!("topic '{name}': {error}")).into()
        }
        SubscribeRefused::Read(error) => internal(name, &error.to_string()).into(),
        SubscribeRefused::IsQueue
        | SubscribeRefused::Name
        | SubscribeRefused::DeadLetter
        | SubscribeRefused::Differs
        | SubscribeRefused::SeveralPartitions
        | SubscribeRefused::NeedsLevel { .. } => precondition(format!("topic '{name}': {error}")).into(),
    }
}

/// Why a queue is not made or deleted.
fn not_made(name: &str, error: &TopicError) -> Exception {
    let ends_channel = match error {
        TopicError::Shard(failure) => return failed(queue(name), *failure),
        TopicError::Exclusive(_) => locked(name),
        TopicError::MadeElsewhere(_) | TopicError::Internal(_) | TopicError::Reserved { .. } => {
            ChannelException::access_refused(format!("{}: {error}", queue(name)))
        }
        TopicError::Unknown => not_found(name),
        TopicError::InUse(_) => precondition(format!("{} in use", queue(name))),
        TopicError::NotEmpty(_) => precondition(format!("{} not empty", queue(name))),
        TopicError::Exists(_)
        | TopicError::Collides { .. }
        | TopicError::InvalidName { .. }
        | TopicError::IsQueue(_)
        | TopicError::QueuePartition(_)
        | TopicError::QueueRecords(_)
        | TopicError::QueuesNeedLevel { .. }
        | TopicError::Partitions { .. }
        | TopicError::NotMore { .. }
        | TopicError::TooManyPartitions { .. }
        | TopicError::Setting(_)
        | TopicError::TooManySettings { .. }
        | TopicError::TooManyMessageIds { .. }
        | TopicError::OffsetOutOfRange { .. }
        | TopicError::Changed(_)
        | TopicError::TooManyFrontends => precondition(format!("{}: {error}", queue(name))),
    };
    ends_channel.into()
}

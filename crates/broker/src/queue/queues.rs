//! What front ends ask of queues.

use std::fmt;
use std::future::Future;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll, ready};

use sabir_base::wake::WakeBatch;
use sabir_delivery::dispatch::Credit;
use sabir_delivery::subscription::{MessageState, Settlement};
use sabir_model::{ErrorAbout, FrontendNo, ShardId, Subject};

use super::driver::LedQueues;
use super::gathered::Change;
use super::leader::{NewMember, QueuePolicy, QueueRequest};
use super::{ConsumerSpec, Demand, QueueAlarm, QueueConsumer, QueueError, QueueOwner, QueueTarget};
use crate::broker::Broker;
use crate::caller::Caller;
use crate::definitions::Definitions;
use crate::group::Reply;
use crate::level::FormatLevel;
use crate::push::PushSeat;
use crate::shard::{Leading, Shard};

/// The queues of a node, to be consumed.
///
/// What is settled, given back and released, and what is dealt on a demand that was filled, is on its way with the next
/// [`Broker::flush`]: one entry a shard, however much a turn of a session brought.
pub struct Queues {
    shards: Vec<Arc<Shard>>,
    definitions: Arc<Definitions>,
    /// What owners and demands are numbered by.
    numbers: AtomicU64,
    /// Wakes the thread that sees to what is due.
    pub(crate) alarm: Arc<QueueAlarm>,
}

impl fmt::Debug for Queues {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queues").finish_non_exhaustive()
    }
}

/// A message that was got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GotMessage {
    /// Which; to be read with a [`QueueReader`](super::reader::QueueReader).
    pub offset: u64,
    /// Whether it was perhaps delivered before.
    pub redelivered: bool,
    /// How often it was given back in such a way that it counts.
    pub returned: u32,
    /// How many others are ready.
    pub left: u64,
}

/// The answer to what was asked of a queue. Dropped, it does not undo that: what was got is its owner's.
#[derive(Debug)]
#[must_use = "the answer comes through it"]
pub struct QueueReply<'a, T> {
    reply: Reply<Result<T, QueueError>>,
    queues: &'a Queues,
    target: QueueTarget,
}

impl<T> Future for QueueReply<'_, T> {
    type Output = Result<T, ErrorAbout<QueueError>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = ready!(Pin::new(&mut self.reply).poll(cx));
        Poll::Ready(answer.map_err(|error| self.queues.about(self.target, error)))
    }
}

/// How much there is of a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct QueueStats {
    /// Messages that wait to be dealt.
    pub ready: u64,
    /// Messages that were dealt and are not settled.
    pub in_flight: u64,
    /// Messages that came back, and are ready at a later moment.
    pub parked: u64,
    /// Its consumers.
    pub consumers: usize,
}

impl Broker {
    /// The queues.
    pub fn queues(&self) -> &Queues {
        &self.inner.queues
    }

    /// Whether a message that is given back may wait until a moment: the version before would not open a data directory in which one had.
    pub fn parks(&self) -> bool {
        self.format_level() >= FormatLevel::RETRIES
    }
}

impl Queues {
    /// Those of these shards, led from now on where the shard is.
    pub(crate) fn new(shards: Vec<Arc<Shard>>, definitions: Arc<Definitions>) -> Self {
        let alarm = Arc::<QueueAlarm>::default();
        for shard in &shards {
            shard.queues.wake(alarm.clone());
            let queues: Arc<dyn Leading> = shard.queues.clone();
            shard.lead_with(Arc::downgrade(&queues));
        }
        Self { shards, definitions, numbers: AtomicU64::new(1), alarm }
    }

    fn number(&self) -> u64 {
        self.numbers.fetch_add(1, Relaxed)
    }

    fn shard(&self, id: ShardId) -> Result<&Arc<Shard>, QueueError> {
        self.shards.get(id.0 as usize).ok_or(QueueError::Unknown)
    }

    /// An error with the queue by its topic's name, or the subscription by its own and its topic's, where these are still there. The caller holds no
    /// lock of the shard.
    #[cold]
    pub(super) fn about<E>(&self, target: QueueTarget, error: E) -> ErrorAbout<E> {
        match self.subject(target) {
            Some(subject) => ErrorAbout::new(error, subject),
            None => error.into(),
        }
    }

    fn subject(&self, target: QueueTarget) -> Option<Subject> {
        let (topic, partition, subscription) = {
            let state = self.shard(target.shard).ok()?.state.read();
            let kept = state.partition(target.partition)?;
            let named = state.subscriptions.view(target.subscription()).and_then(|view| view.name());
            (kept.topic, kept.number, named.map(Box::<str>::from))
        };
        let view = self.definitions.view();
        match subscription {
            Some(name) => Some(view.topic_by_id(topic)?.subscription_subject(&name)),
            None => view.subject(topic, partition),
        }
    }

    /// Does something to the leader of a shard's queues; what it comes to is dealt with the next flush.
    fn with(&self, shard: ShardId, act: impl FnOnce(&mut LedQueues)) {
        let Ok(shard) = self.shard(shard) else { return };
        let _guard = shard.guard("change a demand");
        let mut led = shard.queues.lock();
        act(&mut led);
        shard.queues.note(&led);
    }

    fn policy(&self, target: QueueTarget) -> Result<QueuePolicy, QueueError> {
        let shard = self.shard(target.shard)?;
        let topic = shard.state.read().partition(target.partition).map(|partition| partition.topic);
        let view = self.definitions.view();
        let topic = topic.and_then(|topic| view.topic_by_id(topic)).ok_or(QueueError::Unknown)?;
        if target.is_of_topic() {
            return Ok(QueuePolicy::default());
        }
        topic.config.queue().map(|config| QueuePolicy::of(config)).ok_or(QueueError::NotAQueue)
    }

    /// An owner of deliveries, with a number of its own.
    pub fn owner(&self) -> QueueOwner {
        QueueOwner(self.number())
    }

    /// Makes a demand: what a session is ready to take in one shard. Its credit bounds what is left in the session's outbox: where a client sets
    /// no bound, the session sets one, and refills as it sends.
    pub fn demand(&self, shard: ShardId, credit: Credit) -> Demand {
        let number = self.number();
        self.with(shard, |led| led.leader.add_demand(number, credit));
        Demand { shard, number }
    }

    /// Adds to a demand's credit.
    pub fn refill(&self, demand: Demand, messages: u32, bytes: u64) {
        self.with(demand.shard, |led| led.leader.refill(demand.number, messages, bytes));
    }

    /// Puts a demand's credit anew.
    pub fn set_credit(&self, demand: Demand, credit: Credit) {
        self.with(demand.shard, |led| led.leader.set_credit(demand.number, credit));
    }

    /// Ends a demand, whose consumers get nothing more.
    pub fn end_demand(&self, demand: Demand) {
        self.with(demand.shard, |led| led.leader.end_demand(demand.number));
    }

    /// Has a consumer take from a queue. What is left in the seat for it is in the queue's order, but for what was given back. A demand that has ended
    /// gives it nothing.
    ///
    /// # Errors
    /// The queue is gone, a consumer has it to itself or this one wants to, its shard is not led here, or was led anew since the demand was made.
    pub fn attach(
        &self,
        caller: &Caller,
        target: QueueTarget,
        seat: PushSeat,
        consumer: ConsumerSpec,
    ) -> Result<QueueConsumer, ErrorAbout<QueueError>> {
        self.attach_member(caller, target, seat, consumer).map_err(|error| self.about(target, error))
    }

    fn attach_member(
        &self,
        caller: &Caller,
        target: QueueTarget,
        seat: PushSeat,
        consumer: ConsumerSpec,
    ) -> Result<QueueConsumer, QueueError> {
        let shard = self.usable(caller, target)?;
        let policy = self.policy(target)?;
        let ConsumerSpec { number, owner, demand, priority, exclusive, settles } = consumer;
        let demand = if demand.shard == target.shard { demand.number } else { 0 };
        let owner = owner.stored();
        let new = NewMember { target, policy, owner, demand, priority, exclusive, settles, number, seat };
        let mut wakes = WakeBatch::default();
        let _guard = shard.guard("attach a consumer");
        let member = {
            let mut led = shard.queues.lock();
            led.check()?;
            let member = led.leader.attach(new)?;
            shard.run_led(&mut led, &mut wakes);
            member
        };
        wakes.deliver();
        shard.submit();
        Ok(QueueConsumer { target, member })
    }

    /// The shard of a queue that the caller may use and that is there.
    fn usable(&self, caller: &Caller, target: QueueTarget) -> Result<&Arc<Shard>, QueueError> {
        let shard = self.shard(target.shard)?;
        let topic = shard.state.read().partition(target.partition).map(|partition| partition.topic);
        let view = self.definitions.view();
        let topic = topic.and_then(|topic| view.topic_by_id(topic)).ok_or(QueueError::Unknown)?;
        self.definitions.may_use(caller, topic)?;
        if target.is_of_topic() && shard.state.read().subscriptions.get(target.subscription()).is_none() {
            return Err(QueueError::Unknown);
        }
        Ok(shard)
    }

    /// Ends a consumer; a queue that goes with its last one is deleted then. What it has in flight stays with its owner; so does what is left in the seat and not taken, for the session to give back. Of a
    /// consumer that settles, that is still to be sent: it is gone from the queue.
    pub fn detach(&self, consumer: QueueConsumer) {
        self.with(consumer.target.shard, |led| drop(led.leader.detach(consumer.member)));
        if let Ok(shard) = self.shard(consumer.target.shard) {
            self.definitions.delete_deserted(shard);
        }
    }

    /// A client asked for a queue: one that goes if it is not used for some time has all of it again. Consumers, and clients that get a message, use
    /// it without saying so.
    pub fn used(&self, target: QueueTarget) {
        let Ok(shard) = self.shard(target.shard) else { return };
        let now_ms = shard.now_ms();
        self.with(target.shard, |led| led.lives.used(target.partition, now_ms));
    }

    /// Gets the first message that is ready, if there is one, as of now: what was published and given back before is looked at, too.
    pub fn get(
        &self,
        caller: &Caller,
        target: QueueTarget,
        owner: QueueOwner,
        settles: bool,
    ) -> QueueReply<'_, Option<GotMessage>> {
        QueueReply { reply: self.get_of(caller, target, owner, settles), queues: self, target }
    }

    /// The same; its errors name nothing.
    pub(super) fn get_of(
        &self,
        caller: &Caller,
        target: QueueTarget,
        owner: QueueOwner,
        settles: bool,
    ) -> Reply<Result<Option<GotMessage>, QueueError>> {
        let (replier, reply) = Reply::pair();
        let usable = self.usable(caller, target).and_then(|_| self.policy(target));
        match usable {
            Ok(policy) => {
                let owner = owner.stored();
                self.ask(target, QueueRequest::Get { target, policy, owner, settles, replier });
            }
            Err(error) => return Reply::ready(Err(error)),
        }
        reply
    }

    /// Asks something of a queue, and has it done at once.
    fn ask(&self, target: QueueTarget, ask: QueueRequest) {
        match self.shard(target.shard) {
            Ok(shard) => shard.ask_queue(ask),
            Err(error) => ask.refuse(error, &mut WakeBatch::default()),
        }
    }

    /// Messages are done with: their consumer said so. What the owner does not have is passed over.
    pub fn settle(
        &self,
        target: QueueTarget,
        owner: QueueOwner,
        offsets: impl IntoIterator<Item = Range<u64>>,
    ) {
        self.gather(target, Change::Settled(owner.stored(), Settlement::Acknowledged), offsets);
    }

    /// Messages are ready again, at their place: at once, or at a moment, in milliseconds of the node's time. `counted` says whether that counts as a
    /// failed attempt; where the queue's settings say so, one that names no moment waits for that, and one too many is given up.
    ///
    /// The moment counts from format level 5 on ([`Broker::parks`]); below, messages are ready at once.
    pub fn give_back(
        &self,
        target: QueueTarget,
        owner: QueueOwner,
        offsets: impl IntoIterator<Item = Range<u64>>,
        counted: bool,
        not_before_ms: Option<i64>,
    ) {
        let parks = |_: &i64| self.shard(target.shard).is_ok_and(|shard| shard.parks());
        let not_before_ms = not_before_ms.filter(parks).unwrap_or(0);
        self.gather(target, Change::Returned(owner.stored(), counted, not_before_ms), offsets);
    }

    /// Messages are refused for good: they are dead-lettered, or dropped where their queue has no place for those.
    pub fn reject(
        &self,
        target: QueueTarget,
        owner: QueueOwner,
        offsets: impl IntoIterator<Item = Range<u64>>,
    ) {
        self.gather(target, Change::Settled(owner.stored(), Settlement::Rejected), offsets);
    }

    /// All that an owner has of a queue is ready again. Its consumers are to be detached before.
    pub fn release(&self, target: QueueTarget, owner: QueueOwner, counted: bool) {
        self.gather(target, Change::Released(owner.stored(), counted), []);
    }

    fn gather(&self, target: QueueTarget, change: Change, offsets: impl IntoIterator<Item = Range<u64>>) {
        if let Ok(shard) = self.shard(target.shard) {
            shard.queues.gather(|gathered| gathered.add(target.subscription(), change, offsets));
        }
    }

    /// Drops all messages that are ready or parked, and tells how many those were. Refused of a topic's subscription that a front end keeps
    /// ([`QueueError::Owned`]), which that alone moves.
    pub fn purge(&self, caller: &Caller, target: QueueTarget) -> QueueReply<'_, u64> {
        let (replier, mut reply) = Reply::pair();
        let may_purge = self.usable(caller, target).and_then(|shard| {
            let owner = shard.state.read().subscriptions.view(target.subscription()).map(|view| view.owner());
            caller
                .may_change_subscription_of(owner.unwrap_or(FrontendNo::NONE))
                .map_err(|_| QueueError::Owned)
        });
        match may_purge.and_then(|()| self.policy(target)) {
            Ok(policy) => self.ask(target, QueueRequest::Purge { target, policy, dropped: 0, replier }),
            Err(error) => reply = Reply::ready(Err(error)),
        }
        QueueReply { reply, queues: self, target }
    }

    /// How much there is of a queue once all is back that its consumers have given back, also by an end that was told before this call.
    ///
    /// # Errors
    /// Those of [`stats`](Self::stats).
    pub async fn settled_stats(&self, target: QueueTarget) -> Result<QueueStats, ErrorAbout<QueueError>> {
        let (replier, reply) = Reply::pair();
        self.ask(target, QueueRequest::Back { target, replier });
        QueueReply { reply, queues: self, target }.await?;
        self.stats(target)
    }

    /// How much there is of a queue, as of now: what is on its way back is missing.
    ///
    /// # Errors
    /// It is gone, or its shard is not led here.
    pub fn stats(&self, target: QueueTarget) -> Result<QueueStats, ErrorAbout<QueueError>> {
        self.stats_now(target).map_err(|error| self.about(target, error))
    }

    fn stats_now(&self, target: QueueTarget) -> Result<QueueStats, QueueError> {
        let (shard, queue) = (self.shard(target.shard)?, target.subscription());
        let led = shard.queues.lock();
        led.check()?;
        let (consumers, undecided) = led.leader.count(queue);
        let state = shard.state.read();
        let subscription = state.subscriptions.get(queue).ok_or(QueueError::Unknown)?;
        let count = |state| subscription.count(state, subscription.floor()..subscription.end());
        let ready = count(MessageState::Ready);
        // What is decided and not told is counted as it is in the state.
        let dealt = undecided.min(ready);
        // No session has what waits to be published elsewhere.
        let dead: u64 = subscription.dead_letters().map(|(messages, _)| messages.end - messages.start).sum();
        let in_flight = count(MessageState::InFlight).saturating_sub(dead) + dealt;
        let parked = count(MessageState::Parked);
        Ok(QueueStats { ready: ready - dealt, in_flight, parked, consumers })
    }
}

//! `basic.qos`, `basic.consume`, `basic.cancel`, `basic.get`.

use std::sync::Arc;

use sabir_broker::Topic;
use sabir_broker::queue::{ConsumerSpec, Credit, Demand, QueueConsumer, QueueError, QueueTarget};
use sabir_model::{ShardId, TopicId};

use super::super::arguments::{WantedSubscription, integer, is_quorum, precondition, queue};
use super::super::asking::{Answer, Asked, Subscriber, WantedConsumer, WantedGet, refused};
use super::super::channel::{ConsumedQueue, Consumer, Drawing, RefillOn, Together};
use super::super::channel_end::{end_dealing, end_together};
use super::super::connection::AmqpSession;
use super::super::deliver::credit;
use super::super::getting::{Got, WantedMessage};
use super::super::replies::REPLY_TO;
use super::super::transaction::Transaction;
use super::super::unacked::Delivered;
use super::counted;
use crate::wire::*;

impl AmqpSession {
    pub(super) fn qos(&mut self, number: u16, qos: &BasicQos) -> Result<(), Exception> {
        if qos.prefetch_size != 0 {
            let text = format!("prefetch_size!=0 ({})", qos.prefetch_size);
            return Err(ConnectionException::new(ReplyCode::NotImplemented, text).into());
        }
        match qos.global {
            true => self.bound_channel(number, qos.prefetch_count)?,
            false => self.channel(number).prefetch = qos.prefetch_count,
        }
        self.say(number, &BasicQosOk {});
        Ok(())
    }

    /// All consumers of a channel together have at most so many unsettled messages; 0 for any number. Those that are there are attached anew.
    fn bound_channel(&mut self, number: u16, bound: u16) -> Result<(), Exception> {
        let channel = self.channel(number);
        let former = channel.together.take();
        channel.together = (bound > 0).then(|| Together { bound, demands: Vec::new() });
        let keys: Vec<u64> = channel.consumers.values().copied().collect();
        for key in keys {
            self.attach_anew(key)?;
        }
        end_together(self.amqp.broker.queues(), former);
        Ok(())
    }

    fn attach_anew(&mut self, key: u64) -> Result<(), Exception> {
        let Some(consumer) = self.consumers.get(&key) else { return Ok(()) };
        end_dealing(self.amqp.broker.queues(), consumer);
        let (channel, settles, priority, exclusive) =
            (consumer.channel, consumer.settles, consumer.priority, consumer.exclusive);
        let queue = consumer.queue.clone();
        let drawings = self.drawings(channel, &queue, settles);
        let attached = self.deal(key, channel, &queue, &drawings, (priority, exclusive))?;
        if let Some(consumer) = self.consumers.get_mut(&key) {
            (consumer.drawings, consumer.attached) = (drawings, attached);
        }
        Ok(())
    }

    /// What a consumer of a channel draws on, in each shard.
    fn drawings(&mut self, number: u16, queue: &ConsumedQueue, settles: bool) -> Vec<Drawing> {
        let mut shards: Vec<ShardId> = queue.targets.iter().map(QueueTarget::shard).collect();
        shards.sort_unstable();
        shards.dedup();
        shards.into_iter().map(|shard| self.drawing(number, shard, settles)).collect()
    }

    fn drawing(&mut self, number: u16, shard: ShardId, settles: bool) -> Drawing {
        if let Some(demand) = self.shared_demand(number, shard).filter(|_| !settles) {
            return Drawing { demand, shared: true, refill_on: RefillOn::Settling, refill: 0 };
        }
        let (credit, refill_on) = credit(self.channel(number).prefetch, settles);
        let demand = self.amqp.broker.queues().demand(shard, credit);
        Drawing { demand, shared: false, refill_on, refill: 0 }
    }

    /// The demand that the consumers of a channel share in a shard, where they are bounded together.
    fn shared_demand(&mut self, number: u16, shard: ShardId) -> Option<Demand> {
        let channel = self.channels.get_mut(&number)?;
        let held = channel.transaction.as_ref().map_or(0, Transaction::delivered);
        let unacked = channel.unacked.delivered() + held;
        let together = channel.together.as_mut()?;
        if let Some((_, demand)) = together.demands.iter().find(|(of, _)| *of == shard) {
            return Some(*demand);
        }
        let left = counted(u64::from(together.bound).saturating_sub(unacked));
        let demand = self.amqp.broker.queues().demand(shard, Credit::messages(left));
        together.demands.push((shard, demand));
        Some(demand)
    }

    /// Has a consumer be dealt messages.
    fn deal(
        &mut self,
        key: u64,
        channel: u16,
        queue: &ConsumedQueue,
        drawings: &[Drawing],
        (priority, exclusive): (i32, bool),
    ) -> Result<Vec<QueueConsumer>, Exception> {
        let seat = self.seat.clone().expect("a session is given its seat before all else");
        let owner = self.channel(channel).owner;
        let queues = self.amqp.broker.queues();
        // What was given back before keeps its place before what this one is dealt.
        self.settling.tell(queues);
        let mut attached = Vec::with_capacity(queue.targets.len());
        for target in &*queue.targets {
            let drawing = drawings.iter().find(|drawing| drawing.demand.shard() == target.shard());
            let demand = drawing.expect("there is one for each shard").demand;
            // What is to be settled with being sent is read before: the session does it.
            let settles = false;
            let spec = ConsumerSpec { number: key, owner, demand, priority, exclusive, settles };
            match queues.attach(&self.caller, *target, seat.clone(), spec) {
                Ok(consumer) => attached.push(consumer),
                Err(refusal) => {
                    attached.into_iter().for_each(|consumer| queues.detach(consumer));
                    let own = drawings.iter().filter(|drawing| !drawing.shared);
                    own.for_each(|drawing| queues.end_demand(drawing.demand));
                    return Err(refused(&queue.name, refusal.error));
                }
            }
        }
        Ok(attached)
    }

    pub(super) fn consume(&mut self, number: u16, consume: &BasicConsume<'_>) -> Result<(), Exception> {
        let tag = match consume.consumer_tag.as_str() {
            "" => self.generated("amq.ctag-"),
            given => given.to_owned(),
        };
        let channel = self.channel(number);
        let gets_replies = channel.replies.as_ref().is_some_and(|consumer| *consumer.tag == *tag);
        if gets_replies || channel.consumers.contains_key(&*tag) {
            let text = format!("attempt to reuse consumer tag '{tag}'");
            return Err(ConnectionException::new(ReplyCode::NotAllowed, text).into());
        }
        if consume.queue.as_str() == REPLY_TO {
            return self.consume_replies(number, &tag, consume);
        }
        let name = self.queue_name(number, consume.queue)?;
        let asker = self.asker();
        let topic = asker.topic(&name)?;
        let wanted = WantedConsumer {
            name: name.into(),
            tag: tag.into(),
            priority: priority(consume.arguments)?,
            exclusive: consume.exclusive,
            no_ack: consume.no_ack,
            no_wait: consume.no_wait,
        };
        if topic.config.queue().is_some() {
            let target = asker.target(&topic)?;
            return self.begin_consumer(number, &topic, [target].into(), wanted);
        }
        self.admit_consumer(&wanted.tag, 1)?;
        let subscription = WantedSubscription::of_consumer(&wanted.name, consume.arguments)?;
        let subscribing = asker.subscribe(topic, subscription, Subscriber::Consumer(wanted));
        self.ask(number, consume, Box::pin(subscribing));
        Ok(())
    }

    /// A topic has the subscription that a consumer, or a client that gets a message, waited for.
    pub(super) fn subscribed(
        &mut self,
        number: u16,
        topic: &Topic,
        targets: Arc<[QueueTarget]>,
        subscriber: Subscriber,
    ) {
        let (method, begun) = match subscriber {
            Subscriber::Consumer(wanted) => {
                let begun = self.begin_consumer(number, topic, targets, wanted);
                (<BasicConsume<'_> as MethodArguments>::ID, begun)
            }
            Subscriber::Getter(wanted) => {
                (<BasicGet<'_> as MethodArguments>::ID, self.begin_get(number, topic, &targets, wanted))
            }
        };
        if let Err(exception) = begun {
            self.fail(number, exception.caused_by(method));
        }
    }

    fn begin_consumer(
        &mut self,
        number: u16,
        topic: &Topic,
        targets: Arc<[QueueTarget]>,
        wanted: WantedConsumer,
    ) -> Result<(), Exception> {
        let (tag, no_wait, count) = (wanted.tag.clone(), wanted.no_wait, targets.len());
        self.admit_consumer(&tag, count)?;
        let (key, consumer) = self.attach(number, topic, targets, wanted)?;
        self.consumers.insert(key, consumer);
        self.kept.add_consumer(&tag, count);
        self.channel(number).consumers.insert(tag.clone(), key);
        if !no_wait {
            self.say(number, &BasicConsumeOk { consumer_tag: ShortStr::cut(&tag) });
        }
        Ok(())
    }

    fn admit_consumer(&mut self, tag: &str, targets: usize) -> Result<(), ConnectionException> {
        self.kept.admit_consumer(&self.limits.frame_memory, self.machine.channels(), tag, targets)
    }

    /// Notes a queue of which something may be delivered on a channel.
    fn add_queue(&mut self, number: u16, target: QueueTarget, topic: TopicId) {
        let view = self.broker().catalog();
        let channel = self.channel(number);
        let before = channel.targets.len();
        channel.add_queue(target, topic, |topic| view.topic_by_id(topic).is_some());
        let now = channel.targets.len();
        self.kept.change_queues(before, now);
    }

    fn consume_replies(
        &mut self,
        number: u16,
        tag: &str,
        consume: &BasicConsume<'_>,
    ) -> Result<(), Exception> {
        if !consume.no_ack {
            return Err(precondition("reply consumer cannot acknowledge".to_owned()).into());
        }
        if self.channel(number).replies.is_some() {
            return Err(precondition("reply consumer already set".to_owned()).into());
        }
        self.admit_consumer(tag, 1)?;
        let seat = self.seat.clone().expect("a session is given its seat before all else");
        let (key, random) = (self.consumer_number(number), self.broker().fresh_topic_id().0);
        self.channel(number).replies = Some(self.amqp.replies.consume((key, tag), seat, random));
        self.kept.add_consumer(tag, 1);
        if !consume.no_wait {
            self.say(number, &BasicConsumeOk { consumer_tag: ShortStr::cut(tag) });
        }
        Ok(())
    }

    fn attach(
        &mut self,
        channel: u16,
        topic: &Topic,
        targets: Arc<[QueueTarget]>,
        wanted: WantedConsumer,
    ) -> Result<(u64, Consumer), Exception> {
        let WantedConsumer { name, tag, priority, exclusive, no_ack: settles, .. } = wanted;
        if exclusive && topic.config.queue().is_some_and(|queue| queue.single_active) {
            return Err(refused(&name, QueueError::InUse));
        }
        let goes = topic.config.queue().is_some_and(|queue| queue.auto_delete).then_some(topic.id);
        let is_quorum = is_quorum(&topic.config);
        if is_quorum && self.channel(channel).together.is_some() {
            let text = format!("{} does not support global qos", queue(&name));
            return Err(ConnectionException::new(ReplyCode::NotImplemented, text).into());
        }
        let says_returns = is_quorum || topic.config.queue().is_none();
        let key = self.consumer_number(channel);
        targets.iter().for_each(|target| self.add_queue(channel, *target, topic.id));
        let queue = ConsumedQueue { name, targets, says_returns, goes };
        let owner = self.channel(channel).owner;
        let drawings = self.drawings(channel, &queue, settles);
        let attached = self.deal(key, channel, &queue, &drawings, (priority, exclusive))?;
        let consumer =
            Consumer { channel, tag, owner, queue, attached, drawings, priority, exclusive, settles };
        Ok((key, consumer))
    }

    pub(super) fn cancel(&mut self, number: u16, cancel: &BasicCancel<'_>) {
        let (tag, no_wait) = (cancel.consumer_tag.as_str(), cancel.no_wait);
        // What replies it had not been sent go with it.
        if let Some(replies) = self.channel(number).replies.take_if(|consumer| *consumer.tag == *tag) {
            self.kept.remove_consumer(&replies.tag, 1);
        }
        let ended = self.channel(number).consumers.remove(tag).and_then(|key| self.detach(key));
        let goes = ended.and_then(|consumer| Some((consumer.queue.goes?, consumer.queue.name)));
        let Some((id, name)) = goes else {
            return self.say_cancelled(number, tag, no_wait);
        };
        let (asker, tag) = (self.asker(), tag.into());
        let answering = Box::pin(async move {
            asker.delete_unused(name, id).await;
            Ok(Answer::Cancelled { tag, no_wait })
        });
        self.ask(number, cancel, answering);
    }

    pub(super) fn say_cancelled(&mut self, number: u16, tag: &str, no_wait: bool) {
        if !no_wait {
            self.say(number, &BasicCancelOk { consumer_tag: ShortStr::cut(tag) });
        }
    }

    /// The broker has ended a consumer.
    pub(in super::super) fn end_cancelled(&mut self, key: u64) {
        let Some(consumer) = self.detach(key) else { return };
        if let Some(channel) = self.channels.get_mut(&consumer.channel) {
            channel.consumers.remove(&consumer.tag);
        }
        if self.client.hears_cancels {
            let consumer_tag = ShortStr::cut(&consumer.tag);
            self.say(consumer.channel, &BasicCancel { consumer_tag, no_wait: true });
        }
    }

    pub(super) fn get(&mut self, number: u16, get: &BasicGet<'_>) -> Result<(), Exception> {
        let name = self.queue_name(number, get.queue)?;
        let asker = self.asker();
        let topic = asker.topic(&name)?;
        let is_quorum = is_quorum(&topic.config);
        if is_quorum && topic.config.queue().is_some_and(|queue| queue.single_active) {
            let text = format!(
                "cannot obtain access to locked {}. basic.get operations are not supported by quorum queues with single active consumer",
                queue(&name)
            );
            return Err(ChannelException::resource_locked(text).into());
        }
        let wanted = WantedGet { name, no_ack: get.no_ack };
        if topic.config.queue().is_some() {
            let target = asker.target(&topic)?;
            return self.begin_get(number, &topic, &[target], wanted);
        }
        let subscription = WantedSubscription::of_topic(&topic.name);
        let subscribing = asker.subscribe(topic, subscription, Subscriber::Getter(wanted));
        self.ask(number, get, Box::pin(subscribing));
        Ok(())
    }

    fn begin_get(
        &mut self,
        number: u16,
        topic: &Topic,
        targets: &[QueueTarget],
        wanted: WantedGet,
    ) -> Result<(), Exception> {
        self.kept.admit_queues(&self.limits.frame_memory, self.machine.channels(), targets.len())?;
        targets.iter().for_each(|target| self.add_queue(number, *target, topic.id));
        let owner = self.channel(number).owner;
        // What was settled and given back before counts.
        self.settling.tell(self.amqp.broker.queues());
        let (frame_max, says_returns) =
            (self.machine.frame_max(), is_quorum(&topic.config) || topic.config.queue().is_none());
        // Another one is asked first each time.
        let mut targets = targets.to_vec();
        let first = self.number() as usize % targets.len().max(1);
        targets.rotate_left(first);
        let takes = targets.iter().map(|target| (*target, owner)).collect();
        let WantedGet { name, no_ack: settles } = wanted;
        let wanted = WantedMessage { name, targets, owner, settles, says_returns, frame_max };
        let (channel, asker) = (Some(self.channel(number).id), self.asker());
        let (method, answering) = (<BasicGet<'_> as MethodArguments>::ID, Box::pin(asker.get(wanted)));
        self.asked.push_back(Asked { channel, method, takes, answering });
        Ok(())
    }

    pub(super) fn got(&mut self, number: u16, got: Option<Box<Got>>) {
        let Some(got) = got else { return self.say(number, &BasicGetEmpty::default()) };
        let Got { message, target, settles, exchange, routing_key, properties, body, is_held } = *got;
        let delivery_tag = self.channel(number).next_tag();
        if !settles {
            let tags = delivery_tag..delivery_tag + 1;
            let delivered = Delivered { tags, offset: message.offset, target, consumer: None };
            self.channel(number).unacked.add(delivered);
        }
        let get_ok = BasicGetOk {
            delivery_tag,
            redelivered: message.redelivered,
            exchange: ShortBytes::new(&exchange).unwrap_or_default(),
            routing_key: ShortBytes::new(&routing_key).unwrap_or_default(),
            message_count: counted(message.left),
        };
        self.out.hold(is_held);
        let written = self.out.content(number, &get_ok, &properties, &body.into(), self.machine.frame_max());
        self.out.hold(false);
        debug_assert!(written.is_ok(), "it was looked whether they fit");
    }
}

/// The priority that a consumer asks for.
fn priority(arguments: FieldTable<'_>) -> Result<i32, ChannelException> {
    let Some(value) = arguments.get("x-priority") else { return Ok(0) };
    let priority = integer(value).and_then(|priority| i32::try_from(priority).ok());
    priority.ok_or_else(|| precondition("invalid arg 'x-priority': expected a number".to_owned()))
}

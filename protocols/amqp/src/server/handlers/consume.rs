//! `basic.qos`, `basic.consume`, `basic.cancel`, `basic.get`.

use sabir_broker::queue::{ConsumerSpec, Credit, Demand, QueueConsumer, QueueError, QueueTarget};
use sabir_model::{ShardId, TopicId};

use super::super::arguments::{integer, is_quorum, precondition, queue};
use super::super::asking::{Answer, Asked, refused};
use super::super::channel::{ConsumedQueue, Consumer, Drawing, RefillOn, Together};
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
            return Err(Exception::new(ReplyCode::NotImplemented, text));
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
        self.end_together(former);
        Ok(())
    }

    fn attach_anew(&mut self, key: u64) -> Result<(), Exception> {
        let Some(consumer) = self.consumers.get(&key) else { return Ok(()) };
        self.end_dealing(consumer);
        let (channel, settles, priority, exclusive) =
            (consumer.channel, consumer.settles, consumer.priority, consumer.exclusive);
        let queue = consumer.queue.clone();
        let drawing = self.drawing(channel, &queue, settles);
        let attached = self.deal(key, channel, &queue, drawing, (priority, exclusive))?;
        if let Some(consumer) = self.consumers.get_mut(&key) {
            (consumer.drawing, consumer.attached, consumer.refill) = (drawing, attached, 0);
        }
        Ok(())
    }

    /// What a consumer of a channel draws on.
    fn drawing(&mut self, number: u16, queue: &ConsumedQueue, settles: bool) -> Drawing {
        if let Some(demand) = self.shared_demand(number, queue.target.shard()).filter(|_| !settles) {
            return Drawing { demand, shared: true, refill_on: RefillOn::Settling };
        }
        let (credit, refill_on) = credit(self.channel(number).prefetch, settles);
        let demand = self.amqp.broker.queues().demand(queue.target.shard(), credit);
        Drawing { demand, shared: false, refill_on }
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
        drawing: Drawing,
        (priority, exclusive): (i32, bool),
    ) -> Result<QueueConsumer, Exception> {
        let seat = self.seat.clone().expect("a session is given its seat before all else");
        let owner = self.channel(channel).owner;
        let Drawing { demand, shared, .. } = drawing;
        // What is to be settled with being sent is read before: the session does it.
        let settles = false;
        let spec = ConsumerSpec { number: key, owner, demand, priority, exclusive, settles };
        let queues = self.amqp.broker.queues();
        // What was given back before keeps its place before what this one is dealt.
        self.settling.tell(queues);
        let attached = queues.attach(&self.caller, queue.target, seat, spec);
        attached.map_err(|error| {
            if !shared {
                queues.end_demand(demand);
            }
            refused(&queue.name, error)
        })
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
            return Err(Exception::new(ReplyCode::NotAllowed, text));
        }
        if consume.queue.as_str() == REPLY_TO {
            return self.consume_replies(number, &tag, consume);
        }
        let name = self.queue_name(number, consume.queue)?;
        self.admit_consumer(&tag)?;
        let consumer = self.attach(number, &name, &tag, consume)?;
        let key = consumer.0;
        self.consumers.insert(key, consumer.1);
        self.kept.add_consumer(&tag);
        self.channel(number).consumers.insert(tag.as_str().into(), key);
        if !consume.no_wait {
            self.say(number, &BasicConsumeOk { consumer_tag: ShortStr::cut(&tag) });
        }
        Ok(())
    }

    fn admit_consumer(&mut self, tag: &str) -> Result<(), Exception> {
        self.kept.admit_consumer(&self.limits.frame_memory, self.machine.channels(), tag)
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
            return Err(precondition("reply consumer cannot acknowledge".to_owned()));
        }
        if self.channel(number).replies.is_some() {
            return Err(precondition("reply consumer already set".to_owned()));
        }
        self.admit_consumer(tag)?;
        let consumer = self.amqp.replies.consume(tag, self.broker().fresh_topic_id().0);
        self.channel(number).replies = Some(consumer);
        self.kept.add_consumer(tag);
        self.replying.push(number);
        if !consume.no_wait {
            self.say(number, &BasicConsumeOk { consumer_tag: ShortStr::cut(tag) });
        }
        Ok(())
    }

    fn attach(
        &mut self,
        channel: u16,
        name: &str,
        tag: &str,
        consume: &BasicConsume<'_>,
    ) -> Result<(u64, Consumer), Exception> {
        let asker = self.asker();
        let topic = asker.topic(name)?;
        let target = asker.target(&topic)?;
        if consume.exclusive && topic.config.queue().is_some_and(|queue| queue.single_active) {
            return Err(refused(name, QueueError::InUse));
        }
        let priority = consume.arguments.get("x-priority").map(|value| {
            let priority = integer(value).and_then(|priority| i32::try_from(priority).ok());
            priority.ok_or_else(|| precondition("invalid arg 'x-priority': expected a number".to_owned()))
        });
        let priority = priority.transpose()?.unwrap_or(0);
        let goes = topic.config.queue().is_some_and(|queue| queue.auto_delete).then_some(topic.id);
        let is_quorum = is_quorum(&topic.config);
        if is_quorum && self.channel(channel).together.is_some() {
            let text = format!("{} does not support global qos", queue(name));
            return Err(Exception::new(ReplyCode::NotImplemented, text));
        }
        let queue = ConsumedQueue { name: name.into(), target, is_quorum, goes };
        let (key, settles, exclusive) = (self.consumer_number(channel), consume.no_ack, consume.exclusive);
        self.add_queue(channel, target, topic.id);
        let owner = self.channel(channel).owner;
        let drawing = self.drawing(channel, &queue, settles);
        let attached = self.deal(key, channel, &queue, drawing, (priority, exclusive))?;
        let (tag, refill) = (tag.into(), 0);
        let consumer =
            Consumer { channel, tag, owner, queue, attached, drawing, priority, exclusive, refill, settles };
        Ok((key, consumer))
    }

    pub(super) fn cancel(&mut self, number: u16, cancel: &BasicCancel<'_>) -> Result<(), Exception> {
        let (tag, no_wait) = (cancel.consumer_tag.as_str(), cancel.no_wait);
        // What replies it had not been sent go with it.
        if let Some(replies) = self.channel(number).replies.take_if(|consumer| *consumer.tag == *tag) {
            self.kept.remove_consumer(&replies.tag);
        }
        let ended = self.channel(number).consumers.remove(tag).and_then(|key| self.detach(key));
        let goes = ended.and_then(|consumer| Some((consumer.queue.goes?, consumer.queue.name)));
        let Some((id, name)) = goes else {
            self.say_cancelled(number, tag, no_wait);
            return Ok(());
        };
        let (asker, tag) = (self.asker(), tag.into());
        let answering = Box::pin(async move {
            asker.delete_unused(name, id).await;
            Ok(Answer::Cancelled { tag, no_wait })
        });
        self.ask(number, cancel, answering);
        Ok(())
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
        let target = asker.target(&topic)?;
        let is_quorum = is_quorum(&topic.config);
        if is_quorum && topic.config.queue().is_some_and(|queue| queue.single_active) {
            let text = format!(
                "cannot obtain access to locked {}. basic.get operations are not supported by quorum queues with single active consumer",
                queue(&name)
            );
            return Err(Exception::new(ReplyCode::ResourceLocked, text));
        }
        self.kept.admit_queue(&self.limits.frame_memory, self.machine.channels())?;
        self.add_queue(number, target, topic.id);
        let owner = self.channel(number).owner;
        // What was settled and given back before counts.
        self.settling.tell(self.amqp.broker.queues());
        let frame_max = self.machine.frame_max();
        let wanted = WantedMessage { name, target, owner, settles: get.no_ack, is_quorum, frame_max };
        let (channel, takes) = (Some(self.channel(number).id), Some((target, owner)));
        let (method, answering) = (<BasicGet<'_> as MethodArguments>::ID, Box::pin(asker.get(wanted)));
        self.asked.push_back(Asked { channel, method, takes, answering });
        Ok(())
    }

    pub(super) fn got(&mut self, number: u16, got: Option<Box<Got>>) {
        let Some(got) = got else { return self.say(number, &BasicGetEmpty::default()) };
        let Got { message, target, settles, exchange, routing_key, properties, body } = *got;
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
        let written = self.out.content(number, &get_ok, &properties, &body.into(), self.machine.frame_max());
        debug_assert!(written.is_ok(), "it was looked whether they fit");
    }
}

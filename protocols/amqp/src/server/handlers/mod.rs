//! What requests ask for: a file a class of methods.

mod basic;
mod connection;
mod consume;
mod exchange;
mod queue;
mod settle;
mod transaction;

use super::asking::{Answer, Answering, Asked};
use super::channel::Channel;
use super::connection::AmqpSession;
use super::publish::ChannelId;
use crate::session::ChannelRequest;
use crate::wire::*;

impl AmqpSession {
    pub(super) fn request(&mut self, number: u16, request: ChannelRequest<'_>) {
        let cause = request.id();
        if let Err(exception) = self.handle_request(number, request) {
            self.fail(number, exception.caused_by(cause));
        }
    }

    fn handle_request(&mut self, number: u16, request: ChannelRequest<'_>) -> Result<(), Exception> {
        match request {
            ChannelRequest::Flow(flow) => Ok(self.flow(number, &flow)?),
            ChannelRequest::Access(_) => {
                self.say(number, &AccessRequestOk { ticket: 1 });
                Ok(())
            }
            ChannelRequest::DeclareExchange(declare) => self.declare_exchange(number, &declare),
            ChannelRequest::DeleteExchange(delete) => Ok(self.delete_exchange(number, &delete)?),
            ChannelRequest::BindExchange(bind) => Ok(self.bind_exchange(number, &bind)?),
            ChannelRequest::UnbindExchange(unbind) => Ok(self.unbind_exchange(number, &unbind)?),
            ChannelRequest::BindQueue(bind) => Ok(self.bind_queue(number, &bind)?),
            ChannelRequest::UnbindQueue(unbind) => Ok(self.unbind_queue(number, &unbind)?),
            ChannelRequest::DeclareQueue(declare) => Ok(self.declare_queue(number, &declare)?),
            ChannelRequest::PurgeQueue(purge) => Ok(self.purge_queue(number, &purge)?),
            ChannelRequest::DeleteQueue(delete) => Ok(self.delete_queue(number, &delete)?),
            ChannelRequest::Qos(qos) => self.qos(number, &qos),
            ChannelRequest::Consume(consume) => self.consume(number, &consume),
            ChannelRequest::Cancel(cancel) => {
                self.cancel(number, &cancel);
                Ok(())
            }
            ChannelRequest::Get(get) => self.get(number, &get),
            ChannelRequest::Ack(ack) => self.ack(number, &ack),
            ChannelRequest::Nack(nack) => self.nack(number, &nack),
            ChannelRequest::Reject(reject) => self.reject(number, &reject),
            ChannelRequest::Recover(BasicRecover { requeue }) => {
                self.recover(number, requeue)?;
                self.say(number, &BasicRecoverOk {});
                Ok(())
            }
            ChannelRequest::RecoverAsync(BasicRecoverAsync { requeue }) => Ok(self.recover(number, requeue)?),
            ChannelRequest::SelectConfirms(select) => Ok(self.select_confirms(number, &select)?),
            ChannelRequest::SelectTransactions(_) => Ok(self.select_transactions(number)?),
            ChannelRequest::Commit(_) => Ok(self.commit(number)?),
            ChannelRequest::Rollback(_) => Ok(self.roll_back(number)?),
        }
    }

    fn flow(&mut self, number: u16, flow: &ChannelFlow) -> Result<(), ConnectionException> {
        if !flow.active {
            return Err(ConnectionException::new(ReplyCode::NotImplemented, "active=false"));
        }
        self.say(number, &ChannelFlowOk { active: true });
        Ok(())
    }

    /// The channel on which a request came.
    fn channel(&mut self, number: u16) -> &mut Channel {
        self.channels.get_mut(&number).expect("requests come on channels that are open")
    }

    /// The queue that is meant: the last one that was declared on the channel, where none is named.
    fn queue_name(&mut self, number: u16, name: ShortStr<'_>) -> Result<String, ChannelException> {
        if !name.is_empty() {
            return Ok(name.as_str().to_owned());
        }
        let last = self.channel(number).last_queue.as_deref().map(str::to_owned);
        last.ok_or_else(|| ChannelException::not_found("no previously declared queue"))
    }

    /// Has an answer sent when it comes, behind all that were asked for before.
    fn ask<M: MethodArguments>(&mut self, number: u16, _: &M, answering: Answering) {
        let channel = Some(self.channel(number).id);
        self.asked.push_back(Asked { channel, method: M::ID, takes: Vec::new(), answering });
    }

    /// An answer has come. That of a channel which is no more goes nowhere, and what was taken for it is given back.
    pub(super) fn answered(&mut self, asked: Asked, answer: Result<Answer, Exception>) {
        let Asked { channel, method, takes, .. } = asked;
        if method == <TxCommit as MethodArguments>::ID {
            self.committing = 0;
        }
        let is_there = |id: ChannelId| self.channels.get(&id.number).is_some_and(|channel| channel.id == id);
        let number = match channel {
            None => 0,
            Some(id) if is_there(id) => id.number,
            Some(_) => {
                for (target, owner) in takes {
                    self.amqp.broker.queues().release(target, owner, true);
                }
                return;
            }
        };
        match answer {
            Ok(answer) => self.say_answer(number, answer),
            Err(exception) => self.fail(number, exception.caused_by(method)),
        }
    }

    fn say_answer(&mut self, number: u16, answer: Answer) {
        match answer {
            Answer::Opened => self.machine.opened(&mut self.out),
            Answer::Closed => self.close_in_order(),
            Answer::Declared { name, stats, no_wait } => self.declared(number, &name, &stats, no_wait),
            Answer::Purged { messages, no_wait: false } => {
                self.say(number, &QueuePurgeOk { message_count: counted(messages) });
            }
            Answer::Deleted { messages, no_wait: false } => {
                self.say(number, &QueueDeleteOk { message_count: counted(messages) });
            }
            Answer::Purged { .. } | Answer::Deleted { .. } | Answer::Nothing => {}
            Answer::ExchangeDeclared => self.say(number, &ExchangeDeclareOk {}),
            Answer::ExchangeDeleted => self.say(number, &ExchangeDeleteOk {}),
            Answer::QueueBound => self.say(number, &QueueBindOk {}),
            Answer::QueueUnbound => self.say(number, &QueueUnbindOk {}),
            Answer::ExchangeBound => self.say(number, &ExchangeBindOk {}),
            Answer::ExchangeUnbound => self.say(number, &ExchangeUnbindOk {}),
            Answer::Subscribed { topic, targets, subscriber } => {
                self.subscribed(number, &topic, targets, subscriber)
            }
            Answer::Cancelled { tag, no_wait } => self.say_cancelled(number, &tag, no_wait),
            Answer::Committed { others, unroutable } => self.committed(number, others, &unroutable),
            Answer::Got { got, unreadable } => {
                self.keep_unreadable(unreadable);
                self.got(number, got);
            }
        }
    }
}

/// A count as the protocol has room for.
fn counted(count: u64) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

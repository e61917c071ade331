//! How a connection begins and ends, and its channels end.

use sabir_broker::queue::QueueTarget;
use sabir_net::{DropReason, Ending};
use tokio::time::Instant;

use super::super::asking::{Answer, Asked};
use super::super::channel::Consumer;
use super::super::channel_end::{ChannelEnd, end_dealing};
use super::super::connection::AmqpSession;
use super::super::frontend::LOGIN;
use super::super::login::{ClientProperties, log_in};
use super::super::transaction::Transaction;
use crate::wire::*;

impl AmqpSession {
    pub(in super::super) fn authenticate(&mut self, start_ok: &ConnectionStartOk<'_>) {
        self.client = ClientProperties::read(start_ok.client_properties);
        match log_in(start_ok, self.peer) {
            Ok(user) => {
                self.user = user;
                self.open.introduce(&self.client.name);
                self.open.log_in(user);
                self.machine.authenticated(&mut self.out);
            }
            Err((exception, why)) => {
                let says = format!("its login was refused: {why}");
                self.ending = Some(Ending::dropped(DropReason::Protocol(LOGIN), says));
                self.machine.refuse(exception, &mut self.out);
            }
        }
    }

    pub(in super::super) fn open_virtual_host(&mut self, name: &str) {
        let method = <ConnectionOpen<'_> as MethodArguments>::ID;
        if name != "/" {
            let exception =
                ConnectionException::new(ReplyCode::NotAllowed, format!("vhost {name} not found"));
            return self.fail_connection(exception.caused_by(method));
        }
        let amqp = self.amqp.clone();
        let answering = Box::pin(async move {
            let ready = amqp.ready().await.map(|_| Answer::Opened);
            ready
                .map_err(|error| ConnectionException::new(ReplyCode::InternalError, error.to_string()).into())
        });
        self.asked.push_back(Asked { channel: None, method, takes: Vec::new(), answering });
    }

    /// The client closes: what it had for itself is gone before it is told that it is.
    pub(in super::super) fn begin_to_close(&mut self) {
        self.lay_all_down();
        self.publisher.send_all(&self.amqp.broker, &self.caller);
        let (amqp, caller, connection) = (self.amqp.clone(), self.caller.clone(), self.open.id());
        let answering = Box::pin(async move {
            amqp.remove_exclusive(&caller, connection).await;
            Ok(Answer::Closed)
        });
        let method = <ConnectionClose<'_> as MethodArguments>::ID;
        self.asked.push_back(Asked { channel: None, method, takes: Vec::new(), answering });
    }

    pub(super) fn close_in_order(&mut self) {
        self.machine.connection_closed(&mut self.out);
        self.ended = Some(Instant::now());
    }

    /// A channel is no more: what was delivered on it and not settled is ready again.
    pub(in super::super) fn lay_down(&mut self, number: u16) {
        let Some(channel) = self.channels.remove(&number) else { return };
        let consumers =
            channel.consumers.into_values().filter_map(|consumer| self.forget(consumer)).collect();
        let targets: Vec<QueueTarget> = channel.targets.into_keys().collect();
        self.kept.change_queues(targets.len(), 0);
        channel.replies.iter().for_each(|consumer| self.kept.remove_consumer(&consumer.tag, 1));
        self.held -= channel.transaction.as_ref().map_or(0, Transaction::bytes);
        let (asker, owner, together) = (self.asker(), channel.owner, channel.together);
        let mut end = ChannelEnd { asker, owner, consumers, together, targets };
        let is_large = end.is_large();
        if !is_large {
            end.detach(usize::MAX);
        }
        for messages in self.deliveries.put_off.take_of(owner) {
            self.give_back_unreadable(messages);
        }
        // What was settled before is not ready again.
        self.settling.tell(self.amqp.broker.queues());
        match is_large {
            true => self.amqp.tasks.spawn("amqp end of a channel", move || end.run()),
            false => drop(end.release(usize::MAX)),
        }
    }

    pub(in super::super) fn lay_all_down(&mut self) {
        let numbers: Vec<u16> = self.channels.keys().copied().collect();
        numbers.into_iter().for_each(|number| self.lay_down(number));
    }

    /// Nothing more is delivered to a consumer. What it has not settled stays with its channel.
    pub(super) fn detach(&mut self, number: u64) -> Option<Consumer> {
        let consumer = self.forget(number)?;
        end_dealing(self.amqp.broker.queues(), &consumer);
        Some(consumer)
    }

    fn forget(&mut self, number: u64) -> Option<Consumer> {
        let consumer = self.consumers.remove(&number)?;
        self.kept.remove_consumer(&consumer.tag, consumer.queue.targets.len());
        Some(consumer)
    }
}

//! `queue.declare`, `queue.purge`, `queue.delete`.

use sabir_broker::queue::QueueStats;

use super::super::asking::{Answer, RESERVED, WantedQueue};
use super::super::connection::AmqpSession;
use super::counted;
use crate::wire::*;

impl AmqpSession {
    pub(super) fn declare_queue(
        &mut self,
        number: u16,
        declare: &QueueDeclare<'_>,
    ) -> Result<(), ChannelException> {
        let given: String = declare.queue.chars().filter(|c| !matches!(c, '\r' | '\n')).collect();
        let name = match (given.is_empty(), declare.passive) {
            (true, true) => self.queue_name(number, ShortStr::EMPTY)?,
            (true, false) => self.generated("amq.gen-"),
            (false, false) if given.starts_with(RESERVED) => {
                let text = format!("queue name '{given}' contains reserved prefix 'amq.*'");
                return Err(ChannelException::access_refused(text));
            }
            (false, _) => given,
        };
        if declare.passive && self.amqp.replies.is_there(&name) {
            let stats = QueueStats { consumers: 1, ..QueueStats::default() };
            let answer = Answer::Declared { name: name.into(), stats, no_wait: declare.no_wait };
            self.ask(number, declare, Box::pin(async move { Ok(answer) }));
            return Ok(());
        }
        let wanted = WantedQueue {
            name,
            passive: declare.passive,
            durable: declare.durable,
            exclusive: declare.exclusive,
            auto_delete: declare.auto_delete,
            no_wait: declare.no_wait,
            arguments: declare.arguments.as_bytes().to_vec(),
        };
        let asker = self.asker();
        self.ask(number, declare, Box::pin(asker.declare(wanted)));
        Ok(())
    }

    pub(super) fn declared(&mut self, number: u16, name: &str, stats: &QueueStats, no_wait: bool) {
        self.channel(number).last_queue = Some(name.into());
        if !no_wait {
            let (message_count, consumer_count) = (counted(stats.ready), counted(stats.consumers as u64));
            let queue = ShortStr::cut(name);
            self.say(number, &QueueDeclareOk { queue, message_count, consumer_count });
        }
    }

    pub(super) fn purge_queue(
        &mut self,
        number: u16,
        purge: &QueuePurge<'_>,
    ) -> Result<(), ChannelException> {
        let name = self.queue_name(number, purge.queue)?;
        let asker = self.asker();
        self.ask(number, purge, Box::pin(asker.purge(name, purge.no_wait)));
        Ok(())
    }

    pub(super) fn delete_queue(
        &mut self,
        number: u16,
        delete: &QueueDelete<'_>,
    ) -> Result<(), ChannelException> {
        let name = self.queue_name(number, delete.queue)?;
        let QueueDelete { if_unused, if_empty, no_wait, .. } = *delete;
        let asker = self.asker();
        self.ask(number, delete, Box::pin(asker.delete(name, if_unused, if_empty, no_wait)));
        Ok(())
    }

    /// A name that no other queue has.
    pub(super) fn generated(&self, prefix: &str) -> String {
        let random = self.broker().fresh_topic_id().0;
        let digit = |byte: &u8| {
            let digits = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
            [char::from(digits[usize::from(byte >> 2)]), char::from(b'A' + (byte & 3))]
        };
        prefix.chars().chain(random.iter().flat_map(digit)).collect()
    }
}

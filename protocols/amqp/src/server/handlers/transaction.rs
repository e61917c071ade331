//! `tx.select`, `tx.commit`, `tx.rollback`.

use std::sync::Arc;

use sabir_broker::exchange::RoutedTargets;
use sabir_broker::queue::LocalTransaction;

use super::super::arguments::precondition;
use super::super::connection::AmqpSession;
use super::super::mandatory::{MandatoryTogether, Unroutable};
use super::super::publish::{ChannelId, Publisher, TooLarge, check_size};
use super::super::records::Envelope;
use super::super::settling::Fate;
use super::super::transaction::{HeldMessage, Transaction};
use super::super::unacked::Delivered;
use crate::wire::*;

impl AmqpSession {
    pub(super) fn select_transactions(&mut self, number: u16) -> Result<(), ChannelException> {
        let channel = self.channel(number);
        if channel.confirms.is_some() {
            return Err(precondition("cannot switch from confirm to tx mode".to_owned()));
        }
        channel.transaction.get_or_insert_with(Transaction::default);
        self.say(number, &TxSelectOk {});
        Ok(())
    }

    pub(super) fn commit(&mut self, number: u16) -> Result<(), ChannelException> {
        let held = self.take_transaction(number)?;
        let bytes = held.bytes();
        let Transaction { messages, settled, returns, .. } = held;
        let id = self.channel(number).id;
        let (mut together, mandatory) = self.published_together(id, messages)?;
        self.committing = bytes;
        returns.iter().for_each(|frames| self.out.raw(frames));
        let owner = self.channel(number).owner;
        let (acknowledged, others): (Vec<_>, Vec<_>) =
            settled.into_iter().partition(|(fate, _)| *fate == Fate::Settled);
        for (_, delivered) in acknowledged {
            together.settle(delivered.target, owner, [delivered.offsets()]);
            self.refill_for(&delivered);
        }
        let asker = self.asker();
        self.ask(number, &TxCommit {}, Box::pin(asker.commit(together, mandatory, others)));
        Ok(())
    }

    /// A transaction has taken effect. What is refused or given back has further to go, and goes behind it.
    pub(super) fn committed(
        &mut self,
        number: u16,
        others: Vec<(Fate, Delivered)>,
        unroutable: &[Unroutable],
    ) {
        unroutable.iter().for_each(|Unroutable { channel, message }| self.give_back_kept(*channel, message));
        self.say(number, &TxCommitOk {});
        let owner = self.channel(number).owner;
        for (fate, delivered) in others {
            self.settling.add(delivered.target, owner, fate, delivered.offsets());
            self.refill_for(&delivered);
        }
    }

    fn published_together(
        &self,
        id: ChannelId,
        messages: Vec<HeldMessage>,
    ) -> Result<(LocalTransaction, MandatoryTogether), ChannelException> {
        let (mut publisher, broker) = (Publisher::default(), &self.amqp.broker);
        for held in messages {
            let size = held.message.body().len();
            let added = publisher.add_held(id, broker.now_ms(), held);
            added.map_err(|TooLarge| too_large(size))?;
        }
        let together = publisher.into_transaction(broker);
        together.ok_or_else(|| precondition("a message is not what its queue takes".to_owned()))
    }

    pub(super) fn roll_back(&mut self, number: u16) -> Result<(), ChannelException> {
        let Transaction { settled, .. } = self.take_transaction(number)?;
        let unacked = &mut self.channel(number).unacked;
        settled.into_iter().for_each(|(_, delivered)| unacked.put_back(delivered));
        self.say(number, &TxRollbackOk {});
        Ok(())
    }

    /// Takes what a channel holds, which holds on from nothing.
    fn take_transaction(&mut self, number: u16) -> Result<Transaction, ChannelException> {
        let transaction = self.channel(number).transaction.as_mut();
        let transaction =
            transaction.ok_or_else(|| precondition("channel is not transactional".to_owned()))?;
        let held = std::mem::take(transaction);
        self.held -= held.bytes();
        Ok(held)
    }

    /// Has a channel's transaction take something in, as far as there is room for it.
    pub(super) fn hold(
        &mut self,
        number: u16,
        take_in: impl FnOnce(&mut Transaction),
    ) -> Result<(), ConnectionException> {
        let transaction = self.channel(number).transaction.as_mut().expect("the channel was looked at");
        let before = transaction.bytes();
        take_in(transaction);
        let more = transaction.bytes() - before;
        self.held += more;
        let most = self.amqp.options.unfinished_max;
        if self.held as u64 <= most {
            return Ok(());
        }
        let text =
            format!("transactions that are not committed take {} bytes, where {most} are allowed", self.held);
        Err(ConnectionException::new(ReplyCode::ResourceError, text))
    }

    pub(super) fn hold_message(
        &mut self,
        number: u16,
        routed: Arc<RoutedTargets>,
        is_mandatory: bool,
        envelope: &Envelope<'_>,
        body: &[u8],
    ) -> Result<(), Exception> {
        check_size(&routed, envelope, body).map_err(|TooLarge| too_large(body.len()))?;
        Ok(self.hold(number, |transaction| transaction.hold(routed, is_mandatory, envelope, body))?)
    }

    pub(super) fn hold_settled(
        &mut self,
        number: u16,
        fate: Fate,
        taken: Vec<Delivered>,
    ) -> Result<(), ConnectionException> {
        self.hold(number, |transaction| transaction.settle(fate, taken))
    }
}

/// A message is larger than its queue takes.
pub(super) fn too_large(size: usize) -> ChannelException {
    precondition(format!("message size {size} is larger than its queue takes"))
}

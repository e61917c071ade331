//! `basic.ack`, `basic.nack`, `basic.reject`, `basic.recover`.

use super::super::arguments::precondition;
use super::super::channel::RefillOn;
use super::super::connection::AmqpSession;
use super::super::settling::Fate;
use super::super::unacked::Delivered;
use super::counted;
use crate::wire::*;

impl AmqpSession {
    pub(super) fn ack(&mut self, number: u16, ack: &BasicAck) -> Result<(), Exception> {
        self.settle_delivered(number, ack.delivery_tag, ack.multiple, Fate::Settled)
    }

    pub(super) fn nack(&mut self, number: u16, nack: &BasicNack) -> Result<(), Exception> {
        let fate = if nack.requeue { Fate::GivenBack { counted: true } } else { Fate::Rejected };
        self.settle_delivered(number, nack.delivery_tag, nack.multiple, fate)
    }

    pub(super) fn reject(&mut self, number: u16, reject: &BasicReject) -> Result<(), Exception> {
        let fate = if reject.requeue { Fate::GivenBack { counted: true } } else { Fate::Rejected };
        self.settle_delivered(number, reject.delivery_tag, false, fate)
    }

    pub(super) fn recover(&mut self, number: u16, requeue: bool) -> Result<(), ConnectionException> {
        if !requeue {
            return Err(ConnectionException::new(ReplyCode::NotImplemented, "requeue=false"));
        }
        let all = self.channel(number).unacked.take_all();
        self.gather(number, all, Fate::GivenBack { counted: true });
        Ok(())
    }

    fn settle_delivered(
        &mut self,
        number: u16,
        tag: u64,
        multiple: bool,
        fate: Fate,
    ) -> Result<(), Exception> {
        let unacked = &mut self.channel(number).unacked;
        let taken = match multiple {
            true => unacked.take_through(tag),
            false => unacked.take(tag).map(|one| vec![one]),
        };
        let taken = taken.ok_or_else(|| precondition(format!("unknown delivery tag {tag}")))?;
        match self.channel(number).transaction {
            Some(_) => Ok(self.hold_settled(number, fate, taken)?),
            None => {
                self.gather(number, taken, fate);
                Ok(())
            }
        }
    }

    /// Gathers what becomes of messages; their consumers may be given as many more.
    fn gather(&mut self, number: u16, taken: Vec<Delivered>, fate: Fate) {
        let owner = self.channel(number).owner;
        for delivered in taken {
            self.settling.add(delivered.target, owner, fate, delivered.offsets());
            self.refill_for(&delivered);
        }
    }

    /// The consumer of deliveries that are settled may be given as many more.
    pub(super) fn refill_for(&mut self, delivered: &Delivered) {
        let Some(key) = delivered.consumer else { return };
        let Some(consumer) = self.consumers.get_mut(&key) else { return };
        if consumer.refill_on() == RefillOn::Settling {
            consumer.refill(delivered.target.shard(), counted(delivered.count()), key, &mut self.refills);
        }
    }
}

//! `basic.publish`, `confirm.select`.

use bytes::Bytes;
use sabir_base::wake::WakeBatch;
use sabir_broker::exchange::ExchangeId;

use super::super::arguments::precondition;
use super::super::confirms::Confirms;
use super::super::connection::AmqpSession;
use super::super::delays;
use super::super::mandatory::{KeptMessage, Unroutable};
use super::super::publish::{ChannelId, Outgoing, TooLarge};
use super::super::records::Envelope;
use super::super::replies::{REPLY_TO, Reply, is_address};
use super::transaction::too_large;
use crate::session::PublishedContent;
use crate::wire::*;

/// There is no queue for a message.
const NO_ROUTE: ReplyCode = ReplyCode::NoRoute;

impl AmqpSession {
    pub(super) fn select_confirms(
        &mut self,
        number: u16,
        select: &ConfirmSelect,
    ) -> Result<(), ChannelException> {
        let channel = self.channel(number);
        if channel.transaction.is_some() {
            return Err(precondition("cannot switch from tx to confirm mode".to_owned()));
        }
        channel.confirms.get_or_insert_with(Confirms::default);
        if !select.no_wait {
            self.say(number, &ConfirmSelectOk {});
        }
        Ok(())
    }

    pub(in super::super) fn publish(&mut self, number: u16, content: &PublishedContent) {
        if let Err(exception) = self.try_publish(number, content) {
            self.fail(number, exception.caused_by(<BasicPublish<'_> as MethodArguments>::ID));
        }
        if self.publisher.is_heavy() {
            self.send_batches();
            self.may_be_over = true;
        }
    }

    fn try_publish(&mut self, number: u16, content: &PublishedContent) -> Result<(), Exception> {
        let method = content.method();
        if method.immediate {
            return Err(ConnectionException::new(ReplyCode::NotImplemented, "immediate=true").into());
        }
        let properties = content.header.properties();
        self.check(&properties)?;
        let addressed = self.addressed(number, &properties)?;
        let properties = addressed.as_deref().unwrap_or(content.header.raw_properties());
        self.check_fits(properties)?;
        let (exchange, routing_key) = (method.exchange, method.routing_key);
        let envelope = Envelope { exchange, routing_key, properties };
        if let Some(delay) = delays::delay(envelope.properties)
            && let Some(exchange) = self.delaying(&envelope)
        {
            return self.publish_later(number, (exchange, &envelope), delay, content);
        }
        if exchange.is_empty() && is_address(&routing_key) {
            return Ok(self.reply(number, &method, &envelope, content)?);
        }
        let routed = self.routes.find(&self.amqp.broker, &self.caller, self.amqp.number(), &envelope);
        self.may_be_over |= self.routes.take_resolved();
        let routed = routed?;
        let channel = self.channels.get_mut(&number).expect("messages come on channels that are open");
        let tag = channel.confirms.as_mut().map(|confirms| confirms.publish(routed.publishes.len()));
        let (id, holds) = (channel.id, channel.transaction.is_some());
        if routed.publishes.is_empty() {
            if method.mandatory {
                self.give_back(number, &method, content, holds)?;
            }
            if self.confirming.last() != Some(&id) {
                self.confirming.push(id);
            }
            return Ok(());
        }
        let kept = without_hidden(envelope.properties);
        let envelope = Envelope { properties: kept.as_deref().unwrap_or(envelope.properties), ..envelope };
        if holds {
            let body = content.body.to_bytes();
            return self.hold_message(number, routed, method.mandatory, &envelope, &body);
        }
        let added = self.publisher.add(&Outgoing {
            channel: id,
            routed: &routed,
            tag,
            is_mandatory: method.mandatory,
            kept_by: None,
            time_ms: self.amqp.broker.now_ms(),
            envelope,
            body: &content.body.to_bytes(),
        });
        added.map_err(|TooLarge| too_large(content.body.len() as usize).into())
    }

    /// A message's exchange, if that keeps messages back.
    fn delaying(&self, envelope: &Envelope<'_>) -> Option<ExchangeId> {
        let name = std::str::from_utf8(envelope.exchange.as_bytes()).ok()?;
        let (id, spec) = self.amqp.broker.exchanges().declared(&self.caller, name).ok()??;
        (spec.delayed && !spec.internal).then_some(id)
    }

    /// Keeps a message back. Whether it goes anywhere is found when its time comes, so that none is returned.
    fn publish_later(
        &mut self,
        number: u16,
        (exchange, envelope): (ExchangeId, &Envelope<'_>),
        delay: i64,
        content: &PublishedContent,
    ) -> Result<(), Exception> {
        if self.channel(number).transaction.is_some() {
            let text = "a delayed message in a transaction";
            return Err(ConnectionException::new(ReplyCode::NotImplemented, text).into());
        }
        let properties = delays::over(envelope.properties, delay)?;
        self.check_fits(&properties)?;
        let routed = self.routes.delayed(&self.amqp.broker, &self.caller, self.amqp.number())?;
        let channel = self.channels.get_mut(&number).expect("messages come on channels that are open");
        let tag = channel.confirms.as_mut().map(|confirms| confirms.publish(routed.publishes.len()));
        let id = channel.id;
        let added = self.publisher.add(&Outgoing {
            channel: id,
            routed: &routed,
            tag,
            is_mandatory: false,
            kept_by: Some(exchange),
            time_ms: self.amqp.broker.now_ms().saturating_add(delay),
            envelope: Envelope { properties: &properties, ..*envelope },
            body: &content.body.to_bytes(),
        });
        added.map_err(|TooLarge| {
            precondition(format!("message size {} is larger than can be delayed", content.body.len())).into()
        })
    }

    /// The properties of a message whose replies go straight to its channel; none of any other.
    fn addressed(
        &mut self,
        number: u16,
        properties: &BasicProperties<'_>,
    ) -> Result<Option<Bytes>, ChannelException> {
        if properties.reply_to.is_none_or(|reply_to| reply_to.as_bytes() != REPLY_TO.as_bytes()) {
            return Ok(None);
        }
        let consumer = self.channel(number).replies.as_ref();
        let consumer =
            consumer.ok_or_else(|| precondition("fast reply consumer does not exist".to_owned()))?;
        let address = consumer.address();
        let reply_to = Some(ShortBytes::cut(&address));
        Ok(Some(BasicProperties { reply_to, ..*properties }.to_bytes()))
    }

    /// A reply goes to the channel that asked. It is confirmed whether that is still there, and goes back if it is not and the reply is mandatory.
    fn reply(
        &mut self,
        number: u16,
        method: &BasicPublish<'_>,
        envelope: &Envelope<'_>,
        content: &PublishedContent,
    ) -> Result<(), ConnectionException> {
        if !self.leave_reply(envelope, content) && method.mandatory {
            self.give_back(number, method, content, false)?;
        }
        let channel = self.channel(number);
        if let Some(confirms) = &mut channel.confirms {
            confirms.publish(0);
        }
        let id = channel.id;
        self.confirming.push(id);
        Ok(())
    }

    fn leave_reply(&self, envelope: &Envelope<'_>, content: &PublishedContent) -> bool {
        let takes = Reply::takes(envelope.len(), content.body.len() as usize);
        let Some(memory) = self.limits.frame_memory.try_take(takes) else { return false };
        // Copied: what is kept of a read takes no more memory than it has bytes.
        let reply = Reply {
            exchange: envelope.exchange.as_bytes().into(),
            routing_key: envelope.routing_key.as_bytes().into(),
            properties: Bytes::copy_from_slice(envelope.properties),
            body: Bytes::copy_from_slice(&content.body.to_bytes()),
            memory,
        };
        let mut wakes = WakeBatch::default();
        let left = self.amqp.replies.leave(reply, &mut wakes);
        wakes.deliver();
        left
    }

    /// What a client says of a message has to make sense.
    fn check(&self, properties: &BasicProperties<'_>) -> Result<(), ChannelException> {
        if let Some(user) = properties.user_id.filter(|user| user.as_bytes() != self.user.as_bytes()) {
            let (user, own) = (String::from_utf8_lossy(&user), self.user);
            let text = format!("user_id property set to '{user}' but authenticated user was '{own}'");
            return Err(precondition(text));
        }
        let is_number = |text: &[u8]| std::str::from_utf8(text).is_ok_and(|text| text.parse::<u32>().is_ok());
        match properties.expiration.filter(|expiration| !is_number(expiration)) {
            Some(wrong) => {
                let wrong = String::from_utf8_lossy(&wrong);
                Err(precondition(format!("invalid expiration '{wrong}': expected milliseconds")))
            }
            None => Ok(()),
        }
    }

    /// Refuses properties that no frame of this connection could bring back: those that came in a frame with eight bytes too many, which is taken, and
    /// those that are larger by what is put in for the client.
    fn check_fits(&self, properties: &[u8]) -> Result<(), ChannelException> {
        let (size, frame_max) = (properties.len(), self.machine.frame_max());
        if header_fits(size, frame_max) {
            return Ok(());
        }
        Err(precondition(format!("{size} bytes of properties need a larger frame_max than {frame_max}")))
    }

    /// A message that is to be taken by a queue and is by none goes back, in a transaction with its commit.
    fn give_back(
        &mut self,
        number: u16,
        method: &BasicPublish<'_>,
        content: &PublishedContent,
        holds: bool,
    ) -> Result<(), ConnectionException> {
        let back = returned(method.exchange, method.routing_key);
        let (properties, frame_max) = (content.header.raw_properties(), self.machine.frame_max());
        let mut held = FrameBuffer::new();
        let out = if holds { &mut held } else { &mut self.out };
        let written = out.content(number, &back, properties, &content.body, frame_max);
        debug_assert!(written.is_ok(), "they were looked at when they came");
        if holds { self.hold(number, |transaction| transaction.give_back(held)) } else { Ok(()) }
    }

    /// Gives messages back whose queues went after they were routed to them.
    pub(in super::super) fn give_back_unroutable(&mut self) {
        let unroutable = self.publisher.take_unroutable();
        unroutable.iter().for_each(|Unroutable { channel, message }| self.give_back_kept(*channel, message));
    }

    /// The same for one of them, if its channel is still there.
    pub(in super::super) fn give_back_kept(&mut self, channel: ChannelId, message: &KeptMessage) {
        let ChannelId { number, .. } = channel;
        let is_there = self.channels.get(&number).is_some_and(|there| there.id == channel);
        if !is_there || !self.machine.is_heard(number) {
            return;
        }
        let Envelope { exchange, routing_key, properties } = message.envelope();
        let (back, body) = (returned(exchange, routing_key), Bytes::copy_from_slice(message.body()));
        let written = self.out.content(number, &back, properties, &body.into(), self.machine.frame_max());
        debug_assert!(written.is_ok(), "they were looked at when they came");
    }
}

fn returned<'a>(exchange: ShortBytes<'a>, routing_key: ShortBytes<'a>) -> BasicReturn<'a> {
    let reply_text = ShortStr::cut(NO_ROUTE.name());
    BasicReturn { reply_code: NO_ROUTE as u16, reply_text, exchange, routing_key }
}

/// The header of further routing keys that no consumer is shown.
const HIDDEN: &str = "BCC";

/// The properties as the clients that get the message see them; none if they are as they came.
fn without_hidden(properties: &[u8]) -> Option<Bytes> {
    if !BasicProperties::has_headers(properties) {
        return None;
    }
    let read = BasicProperties::read_again(properties);
    let headers = read.headers?;
    headers.get(HIDDEN)?;
    let mut shown = FieldTableBuf::new();
    for (name, value) in headers.iter().filter(|(name, _)| name.as_bytes() != HIDDEN.as_bytes()) {
        shown.push(name, value);
    }
    Some(BasicProperties { headers: Some(shown.as_table()), ..read }.to_bytes())
}

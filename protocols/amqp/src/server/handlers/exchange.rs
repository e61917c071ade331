//! `exchange.declare`, `exchange.delete`, and bindings of exchanges and of queues.

use std::sync::Arc;

use sabir_broker::exchange::{
    ExchangeError, ExchangeKind, ExchangeSpec, HashOn, HashedProperty, NamedBinding, NamedDestination,
};

use super::super::arguments::precondition;
use super::super::asking::{Answer, Asker, RESERVED, failed, not_found};
use super::super::attributes::arguments;
use super::super::connection::AmqpSession;
use super::super::delays;
use crate::wire::*;

/// A binding as it is asked for.
struct Wanted<'a> {
    source: &'a str,
    destination: NamedDestination,
    key: &'a [u8],
    arguments: FieldTable<'a>,
}

impl AmqpSession {
    pub(super) fn declare_exchange(
        &mut self,
        number: u16,
        declare: &ExchangeDeclare<'_>,
    ) -> Result<(), Exception> {
        let name: String = declare.exchange.chars().filter(|c| !matches!(c, '\r' | '\n')).collect();
        check_default(&name)?;
        let (asker, no_wait) = (self.asker(), declare.no_wait);
        let done = (!no_wait).then_some(Answer::ExchangeDeclared);
        if declare.passive {
            let there = asker.exchange(&name).map(|_| done.unwrap_or(Answer::Nothing));
            self.ask(number, declare, Box::pin(std::future::ready(there)));
            return Ok(());
        }
        let spec = spec(declare)?;
        let answering = async move {
            asker.declare_exchange(&name, spec).await.map(|()| done.unwrap_or(Answer::Nothing))
        };
        self.ask(number, declare, Box::pin(answering));
        Ok(())
    }

    pub(super) fn delete_exchange(
        &mut self,
        number: u16,
        delete: &ExchangeDelete<'_>,
    ) -> Result<(), ChannelException> {
        let name = delete.exchange.as_str().to_owned();
        check_default(&name)?;
        check_reserved(&name)?;
        let (asker, if_unused, no_wait) = (self.asker(), delete.if_unused, delete.no_wait);
        let answering = async move {
            asker.delete_exchange(&name, if_unused).await?;
            Ok(if no_wait { Answer::Nothing } else { Answer::ExchangeDeleted })
        };
        self.ask(number, delete, Box::pin(answering));
        Ok(())
    }

    pub(super) fn bind_queue(&mut self, number: u16, bind: &QueueBind<'_>) -> Result<(), ChannelException> {
        let answer = if bind.no_wait { Answer::Nothing } else { Answer::QueueBound };
        let QueueBind { queue, exchange, routing_key, arguments, .. } = *bind;
        let binding = self.queue_binding(number, queue, exchange, routing_key, arguments)?;
        self.change_binding(number, bind, binding, true, answer);
        Ok(())
    }

    pub(super) fn unbind_queue(
        &mut self,
        number: u16,
        unbind: &QueueUnbind<'_>,
    ) -> Result<(), ChannelException> {
        let QueueUnbind { queue, exchange, routing_key, arguments, .. } = *unbind;
        let binding = self.queue_binding(number, queue, exchange, routing_key, arguments)?;
        self.change_binding(number, unbind, binding, false, Answer::QueueUnbound);
        Ok(())
    }

    pub(super) fn bind_exchange(
        &mut self,
        number: u16,
        bind: &ExchangeBind<'_>,
    ) -> Result<(), ChannelException> {
        let answer = if bind.no_wait { Answer::Nothing } else { Answer::ExchangeBound };
        let ExchangeBind { destination, source, routing_key, arguments, .. } = *bind;
        let binding = exchange_binding(destination, source, routing_key, arguments)?;
        self.change_binding(number, bind, binding, true, answer);
        Ok(())
    }

    pub(super) fn unbind_exchange(
        &mut self,
        number: u16,
        unbind: &ExchangeUnbind<'_>,
    ) -> Result<(), ChannelException> {
        let answer = if unbind.no_wait { Answer::Nothing } else { Answer::ExchangeUnbound };
        let ExchangeUnbind { destination, source, routing_key, arguments, .. } = *unbind;
        let binding = exchange_binding(destination, source, routing_key, arguments)?;
        self.change_binding(number, unbind, binding, false, answer);
        Ok(())
    }

    /// Where neither a queue nor a key is named, the key is the queue's name.
    fn queue_binding(
        &mut self,
        number: u16,
        queue: ShortStr<'_>,
        exchange: ShortStr<'_>,
        key: ShortStr<'_>,
        arguments: FieldTable<'_>,
    ) -> Result<NamedBinding, ChannelException> {
        let name = self.queue_name(number, queue)?;
        check_default(&exchange)?;
        let key = if queue.is_empty() && key.is_empty() { name.clone() } else { key.as_str().to_owned() };
        let destination = NamedDestination::Queue(name);
        Ok(binding(&Wanted { source: &exchange, destination, key: key.as_bytes(), arguments }))
    }

    fn change_binding<M: MethodArguments>(
        &mut self,
        number: u16,
        asked: &M,
        binding: NamedBinding,
        make: bool,
        answer: Answer,
    ) {
        let asker = self.asker();
        let answering = async move { asker.change_binding(binding, make).await.map(|()| answer) };
        self.ask(number, asked, Box::pin(answering));
    }
}

impl Asker {
    /// What an exchange that is there was declared with.
    fn exchange(&self, name: &str) -> Result<Arc<ExchangeSpec>, Exception> {
        self.find_exchange(name)?.ok_or_else(|| no_exchange(name).into())
    }

    /// The same, if it is there.
    fn find_exchange(&self, name: &str) -> Result<Option<Arc<ExchangeSpec>>, Exception> {
        self.amqp.broker.exchanges().get(&self.caller, name).map_err(|error| refused(name, &error))
    }

    async fn declare_exchange(&self, name: &str, spec: ExchangeSpec) -> Result<(), Exception> {
        match self.find_exchange(name)? {
            Some(there) => return Ok(check_alike(name, &spec, &there)?),
            None => check_reserved(name)?,
        }
        if spec.delayed {
            self.prepare_delays().await?;
        }
        let declared = self.amqp.broker.exchanges().declare(&self.caller, name, spec.clone()).await;
        match declared {
            // Another connection was quicker.
            Err(ExchangeError::Differs { .. }) => Ok(check_alike(name, &spec, &*self.exchange(name)?)?),
            declared => declared.map_err(|error| refused(name, &error)),
        }
    }

    async fn delete_exchange(&self, name: &str, if_unused: bool) -> Result<(), Exception> {
        match self.amqp.broker.exchanges().delete(&self.caller, name, if_unused).await {
            Err(ExchangeError::Unknown(_)) => Ok(()),
            deleted => deleted.map_err(|error| refused(name, &error)),
        }
    }

    async fn change_binding(&self, binding: NamedBinding, make: bool) -> Result<(), Exception> {
        if let NamedDestination::Queue(name) = &binding.destination {
            self.topic(name)?;
        }
        let source = binding.source.clone();
        self.exchange(&source)?;
        let exchanges = self.amqp.broker.exchanges();
        let changed = match make {
            true => exchanges.bind(&self.caller, binding).await,
            false => exchanges.unbind(&self.caller, binding).await,
        };
        changed.map_err(|error| refused(&source, &error))
    }
}

fn binding(wanted: &Wanted<'_>) -> NamedBinding {
    let arguments = arguments(wanted.arguments);
    NamedBinding { arguments, ..NamedBinding::keyed(wanted.source, wanted.destination.clone(), wanted.key) }
}

fn exchange_binding(
    destination: ShortStr<'_>,
    source: ShortStr<'_>,
    key: ShortStr<'_>,
    arguments: FieldTable<'_>,
) -> Result<NamedBinding, ChannelException> {
    check_default(&source)?;
    check_default(&destination)?;
    let destination = NamedDestination::Exchange(destination.as_str().to_owned());
    Ok(binding(&Wanted { source: &source, destination, key: key.as_bytes(), arguments }))
}

fn spec(declare: &ExchangeDeclare<'_>) -> Result<ExchangeSpec, Exception> {
    let name = declare.exchange.as_str();
    let text = |argument: &str| match declare.arguments.get(argument) {
        None => Ok(None),
        Some(FieldValue::LongStr(text)) => match std::str::from_utf8(text) {
            Ok(text) => Ok(Some(text)),
            Err(_) => Err(invalid(argument, name)),
        },
        Some(_) => Err(invalid(argument, name)),
    };
    let delayed = declare.kind.as_str() == delays::KIND;
    let asked = if delayed { text(delays::ARGUMENT)?.unwrap_or_default() } else { declare.kind.as_str() };
    let kind = match asked {
        "direct" => ExchangeKind::Direct,
        "fanout" => ExchangeKind::Fanout,
        "topic" => ExchangeKind::Topic,
        "headers" => ExchangeKind::Headers,
        "x-consistent-hash" => {
            let (header, property) = (text("hash-header")?, text("hash-property")?);
            ExchangeKind::ConsistentHash(hashed(name, header, property)?)
        }
        _ if delayed => {
            let text = "Invalid argument, 'x-delayed-type' must be an existing exchange type".to_owned();
            return Err(precondition(text).into());
        }
        other => {
            let text = format!("unknown exchange type '{other}'");
            return Err(ConnectionException::new(ReplyCode::CommandInvalid, text).into());
        }
    };
    Ok(ExchangeSpec {
        durable: declare.durable,
        auto_delete: declare.auto_delete,
        internal: declare.internal,
        delayed,
        alternate: text("alternate-exchange")?.map(Box::from),
        kept: arguments(declare.arguments),
        ..ExchangeSpec::of(kind)
    })
}

fn hashed(name: &str, header: Option<&str>, property: Option<&str>) -> Result<HashOn, ChannelException> {
    match (header, property) {
        (None, None) => Ok(HashOn::Key),
        (Some(header), None) => Ok(HashOn::Header(header.as_bytes().into())),
        (None, Some("correlation_id")) => Ok(HashOn::Property(HashedProperty::CorrelationId)),
        (None, Some("message_id")) => Ok(HashOn::Property(HashedProperty::MessageId)),
        (None, Some("timestamp")) => Ok(HashOn::Property(HashedProperty::Timestamp)),
        (None, Some(_)) => Err(invalid("hash-property", name)),
        (Some(_), Some(_)) => {
            Err(precondition(format!("{}: it is either hash-header or hash-property", exchange(name))))
        }
    }
}

fn check_alike(name: &str, wanted: &ExchangeSpec, there: &ExchangeSpec) -> Result<(), ChannelException> {
    let differs = |argument: &str, received: &str, current: &str| {
        Err(precondition(format!(
            "inequivalent arg '{argument}' for {}: received {received} but current is {current}",
            exchange(name)
        )))
    };
    let delays = |spec: &ExchangeSpec| if spec.delayed { delays::KIND } else { kind(&spec.kind) };
    if delays(wanted) != delays(there) {
        return differs("type", &format!("'{}'", delays(wanted)), &format!("'{}'", delays(there)));
    }
    if wanted.kind != there.kind && wanted.delayed {
        let value = |spec: &ExchangeSpec| format!("the value '{}' of type 'longstr'", kind(&spec.kind));
        return differs(delays::ARGUMENT, &value(wanted), &value(there));
    }
    if wanted.kind != there.kind {
        let (received, current) = (kind(&wanted.kind), kind(&there.kind));
        return differs("type", &format!("'{received}'"), &format!("'{current}'"));
    }
    let fields = [
        ("durable", wanted.durable, there.durable),
        ("auto_delete", wanted.auto_delete, there.auto_delete),
        ("internal", wanted.internal, there.internal),
    ];
    if let Some((field, received, current)) = fields.iter().find(|(_, received, current)| received != current)
    {
        return differs(field, &format!("'{received}'"), &format!("'{current}'"));
    }
    if wanted.alternate != there.alternate {
        let shown = |alternate: &Option<Box<str>>| match alternate {
            Some(name) => format!("the value '{name}' of type 'longstr'"),
            None => "none".to_owned(),
        };
        return differs("alternate-exchange", &shown(&wanted.alternate), &shown(&there.alternate));
    }
    Ok(())
}

fn kind(kind: &ExchangeKind) -> &'static str {
    match kind {
        ExchangeKind::Direct => "direct",
        ExchangeKind::Fanout => "fanout",
        ExchangeKind::Topic => "topic",
        ExchangeKind::Headers => "headers",
        ExchangeKind::ConsistentHash(_) => "x-consistent-hash",
    }
}

/// An exchange in an error's text.
fn exchange(name: &str) -> String {
    format!("exchange '{name}' in vhost '/'")
}

fn no_exchange(name: &str) -> ChannelException {
    ChannelException::not_found(format!("no {}", exchange(name)))
}

fn invalid(argument: &str, name: &str) -> ChannelException {
    precondition(format!("invalid arg '{argument}' for {}", exchange(name)))
}

fn check_default(name: &str) -> Result<(), ChannelException> {
    if name.is_empty() {
        let text = "operation not permitted on the default exchange";
        return Err(ChannelException::access_refused(text));
    }
    Ok(())
}

fn check_reserved(name: &str) -> Result<(), ChannelException> {
    if name.starts_with(RESERVED) {
        let text = format!("exchange name '{name}' contains reserved prefix 'amq.*'");
        return Err(ChannelException::access_refused(text));
    }
    Ok(())
}

fn refused(name: &str, error: &ExchangeError) -> Exception {
    let ends_channel = match error {
        ExchangeError::Unknown(name) => no_exchange(name),
        ExchangeError::UnknownQueue(name) => not_found(name),
        ExchangeError::Internal(_) => ChannelException::access_refused(error.to_string()),
        ExchangeError::MadeElsewhere(_) | ExchangeError::Reserved { .. } => {
            ChannelException::access_refused(error.to_string())
        }
        ExchangeError::InUse(_) => precondition(format!("{} in use", exchange(name))),
        ExchangeError::Shard(failure) => return failed(exchange(name), *failure),
        ExchangeError::Origin(_)
        | ExchangeError::Differs { .. }
        | ExchangeError::Default
        | ExchangeError::Binding(_)
        | ExchangeError::InvalidName { .. }
        | ExchangeError::LongKey { .. }
        | ExchangeError::NoRoom { .. }
        | ExchangeError::TooMany { .. }
        | ExchangeError::Level { .. } => precondition(format!("{}: {error}", exchange(name))),
    };
    ends_channel.into()
}

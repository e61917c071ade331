//! What the server lists.

use sabir_broker::Converter;
use sabir_broker::exchange::{ExchangeKind, ExchangeSpec, PredeclaredExchange};
use sabir_frontend::client::Connector;
use sabir_frontend::config::{ConfigError, Setting, SettingsTable};
use sabir_frontend::{Configured, FrontendContext, Protocol, StartedFrontend};

use crate::client::CONNECTOR;
use crate::converter;
use crate::server::config::{AmqpConfig, NAME, SETTINGS};
use crate::server::frontend::AmqpFrontend;
use crate::server::{dead_letters, delays};

/// AMQP 0-9-1.
#[derive(Debug, Clone, Copy)]
pub struct Amqp;

impl Protocol for Amqp {
    fn name(&self) -> &'static str {
        NAME
    }

    fn default_listen(&self) -> &'static str {
        "\"127.0.0.1:5672\""
    }

    fn settings(&self) -> &'static [Setting] {
        SETTINGS
    }

    /// Those that the specification has, and RabbitMQ's: into `amq.rabbitmq.trace` nothing is published yet.
    fn exchanges(&self) -> Vec<PredeclaredExchange> {
        let all = [
            ("amq.direct", ExchangeKind::Direct),
            ("amq.fanout", ExchangeKind::Fanout),
            ("amq.topic", ExchangeKind::Topic),
            ("amq.headers", ExchangeKind::Headers),
            ("amq.match", ExchangeKind::Headers),
        ];
        let plain = |(name, kind)| PredeclaredExchange { name, by: NAME, spec: ExchangeSpec::of(kind) };
        let trace = ExchangeSpec { internal: true, ..ExchangeSpec::of(ExchangeKind::Topic) };
        let trace = PredeclaredExchange { name: "amq.rabbitmq.trace", by: NAME, spec: trace };
        all.into_iter().map(plain).chain([trace]).collect()
    }

    fn reserved_topics(&self) -> &'static [&'static str] {
        &[delays::DELAYED]
    }

    /// Where clients name queues themselves, such names are refused them as well.
    fn client_topics(&self) -> &'static [&'static str] {
        &["amq.*"]
    }

    /// Those of queues that clients have the server name.
    fn generated_topics(&self) -> &'static [&'static str] {
        &["amq.gen-*"]
    }

    fn converter(&self) -> Option<Converter> {
        Some(Converter {
            front_end: NAME,
            reads_unnamed: false,
            to_message: converter::to_message,
            address: Some(delays::address),
            delay_queue: Some(delays::queue),
            dead_letter: Some(dead_letters::publish),
            redrive: Some(dead_letters::redrive),
        })
    }

    fn configure(&self, table: SettingsTable) -> Result<Box<dyn Configured>, ConfigError> {
        Ok(Box::new(AmqpConfig::parse(table)?))
    }

    fn connector(&self) -> &'static dyn Connector {
        &CONNECTOR
    }
}

impl Configured for AmqpConfig {
    fn start(self: Box<Self>, place: FrontendContext) -> StartedFrontend {
        AmqpFrontend::start(&self, place).into()
    }
}

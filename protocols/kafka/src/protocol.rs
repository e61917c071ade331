//! What the server lists: Kafka's protocol, to be configured and served.

use sabir_broker::Converter;
use sabir_frontend::client::Connector;
use sabir_frontend::config::{ConfigError, MemorySetting, Setting, SettingsTable, Size};
use sabir_frontend::{Configured, FrontendContext, Protocol, StartedFrontend};

use crate::client::tool::CONNECTOR;
use crate::converter;
use crate::server::config::{KafkaConfig, NAME, SETTINGS};
use crate::server::frontend::KafkaFrontend;
use crate::server::names;

/// Kafka's protocol.
#[derive(Debug, Clone, Copy)]
pub struct Kafka;

impl Protocol for Kafka {
    fn name(&self) -> &'static str {
        NAME
    }

    fn default_listen(&self) -> &'static str {
        "\"127.0.0.1:9092\""
    }

    fn settings(&self) -> &'static [Setting] {
        SETTINGS
    }

    fn reserved_topics(&self) -> &'static [&'static str] {
        &names::RESERVED
    }

    fn converter(&self) -> Option<Converter> {
        Some(Converter {
            front_end: NAME,
            reads_unnamed: true,
            to_message: converter::to_message,
            address: None,
            delay_queue: None,
            dead_letter: None,
            redrive: None,
        })
    }

    fn configure(&self, table: SettingsTable) -> Result<Box<dyn Configured>, ConfigError> {
        Ok(Box::new(KafkaConfig::parse(table)?))
    }

    fn connector(&self) -> &'static dyn Connector {
        &CONNECTOR
    }
}

impl Configured for KafkaConfig {
    fn largest_frame(&self) -> Option<(&'static str, Size)> {
        Some(("max_request", self.max_request))
    }

    fn memory(&self) -> Vec<MemorySetting> {
        vec![self.session_memory()]
    }

    fn start(self: Box<Self>, place: FrontendContext) -> StartedFrontend {
        KafkaFrontend::new(*self, place).into()
    }
}

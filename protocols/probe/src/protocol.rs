//! What the server lists.

use sabir_broker::Converter;
use sabir_broker::projection::ProjectionFactory;
use sabir_frontend::client::Connector;
use sabir_frontend::config::{ConfigError, Setting, SettingsTable};
use sabir_frontend::{Configured, FrontendContext, Protocol, StartedFrontend};

use crate::client::CONNECTOR;
use crate::frontend::ProbeFrontend;
use crate::state::PROJECTION;
use crate::{http, records};

/// The name of its table, of its metrics' label and of its projection.
pub(crate) const NAME: &str = "probe";

/// The protocol.
#[derive(Debug, Clone, Copy)]
pub struct Probe;

struct ProbeConfig;

impl Protocol for Probe {
    fn name(&self) -> &'static str {
        NAME
    }

    fn default_listen(&self) -> &'static str {
        "\"off\""
    }

    fn settings(&self) -> &'static [Setting] {
        &[]
    }

    fn projections(&self) -> &'static [ProjectionFactory] {
        &[PROJECTION]
    }

    fn converter(&self) -> Option<Converter> {
        Some(Converter {
            front_end: NAME,
            reads_unnamed: false,
            to_message: records::to_message,
            address: None,
            delay_queue: None,
            dead_letter: None,
            redrive: None,
        })
    }

    fn configure(&self, _: SettingsTable) -> Result<Box<dyn Configured>, ConfigError> {
        Ok(Box::new(ProbeConfig))
    }

    fn connector(&self) -> &'static dyn Connector {
        &CONNECTOR
    }
}

impl Configured for ProbeConfig {
    fn http_prefix(&self) -> Option<&'static str> {
        Some("/probe")
    }

    fn start(self: Box<Self>, place: FrontendContext) -> StartedFrontend {
        let routes = http::routes(place.registry.clone());
        StartedFrontend::from(ProbeFrontend::start(place)).with_http(routes)
    }
}

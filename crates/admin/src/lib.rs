//! The admin port: whether the broker lives, whether it is ready, and its figures, over HTTP.
//!
//! It is served before the broker is open, so that a long recovery can be told from a dead process.
#![deny(missing_docs)]

mod health;
mod http;
mod metrics;
mod process;

use std::sync::Arc;

use parking_lot::RwLock;
use sabir_base::metrics::Exposition;
use sabir_broker::Broker;

pub use http::serve;

/// Writes the figures of one part of the server.
pub type Figures = Box<dyn Fn(&mut Exposition) + Send + Sync>;

/// What the admin port shows. Clones are the same one.
#[derive(Clone)]
pub struct Admin {
    state: Arc<RwLock<State>>,
}

/// How far the server is.
#[derive(Default)]
enum State {
    /// Not open yet.
    #[default]
    Starting,
    /// Open.
    Running {
        /// The broker.
        broker: Broker,
        /// The other parts' figures.
        figures: Vec<Figures>,
    },
    /// Told to stop.
    Stopping,
}

impl Default for Admin {
    fn default() -> Self {
        Self::new()
    }
}

impl Admin {
    /// The admin port of a server that is starting.
    pub fn new() -> Self {
        Self { state: Arc::new(RwLock::new(State::Starting)) }
    }

    /// The broker takes requests; `figures` write those of the other parts.
    pub fn running(&self, broker: Broker, figures: Vec<Figures>) {
        *self.state.write() = State::Running { broker, figures };
    }

    /// The broker takes no more connections, and is let go of.
    pub fn stopping(&self) {
        *self.state.write() = State::Stopping;
    }
}

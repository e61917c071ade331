//! The admin port: whether the broker lives, whether it is ready, its figures, and what it holds as JSON, over HTTP.
//!
//! It is served before the broker is open, so that a long recovery can be told from a dead process.
#![deny(missing_docs)]

mod api;
mod connections;
mod detail;
mod health;
mod host;
mod http;
mod metrics;
mod mounted;
mod process;
mod stream;
#[cfg(test)]
mod testing;
mod undated;
mod workers;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::Router;
use parking_lot::RwLock;
use sabir_base::metrics::Exposition;
use sabir_broker::{Broker, StartProgress};
use sabir_net::Registry;

pub use http::serve;

/// Writes the figures of one part of the server.
pub type Figures = Box<dyn Fn(&mut Exposition) + Send + Sync>;

/// Tells of every front end that is served, as of now.
pub type ServedFrontends = Box<dyn Fn() -> Vec<ServedFrontend> + Send + Sync>;

/// A front end that is served.
#[derive(Debug, Clone)]
pub struct ServedFrontend {
    /// Its name.
    pub name: &'static str,
    /// Where it listens.
    pub listening: Vec<SocketAddr>,
    /// What clients are told that come by each of them.
    pub advertise: Vec<String>,
    /// Connections open now.
    pub open: u64,
    /// Connections taken since the start.
    pub accepted: u64,
    /// Connections closed at once since the start, because a limit was reached.
    pub refused: u64,
}

/// The port's own paths, and the beginnings of those that lie below one.
pub const PATHS: [&str; 4] = ["/livez", "/readyz", "/metrics", "/sabir"];

/// From where changes are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Writes {
    /// Nowhere.
    Off,
    /// Addresses of this machine.
    Loopback,
    /// Every address.
    Anywhere,
}

/// How the port is served.
#[derive(Debug, Clone)]
pub struct Options {
    /// From where changes are taken.
    pub writes: Writes,
    /// Names by which the port may be asked, beside addresses and `localhost`; `*` is all.
    pub hosts: Vec<String>,
    /// The most topics, and the most groups, that metrics show one by one.
    pub metrics_limit: usize,
    /// Connections at once; the one on which nothing has moved for longest gives way to a further one.
    pub connections: usize,
    /// Below which paths protocols mount routes of their own: `/` and one name each.
    pub prefixes: Vec<&'static str>,
    /// How far the start is.
    pub start: Arc<StartProgress>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            writes: Writes::Loopback,
            hosts: Vec::new(),
            metrics_limit: 10_000,
            connections: 64,
            prefixes: Vec::new(),
            start: Arc::default(),
        }
    }
}

/// What the port shows of a broker that takes requests.
pub struct Shown {
    /// The broker.
    pub broker: Broker,
    /// The other parts' figures.
    pub figures: Vec<Figures>,
    /// The front ends that are served.
    pub front_ends: ServedFrontends,
    /// The open connections.
    pub registry: Registry,
    /// What protocols mount, each below one of [`Options::prefixes`].
    pub routes: Vec<(&'static str, Router)>,
}

/// What the admin port shows. Clones are the same one.
#[derive(Clone)]
pub struct Admin {
    options: Arc<Options>,
    started: SystemTime,
    state: Arc<RwLock<State>>,
    /// Held while figures are gathered: one text is in the making, for all requests from before it was begun.
    gathering: Arc<tokio::sync::Mutex<metrics::Gathered>>,
    /// Held while definitions are taken.
    importing: Arc<tokio::sync::Mutex<()>>,
    /// How many ask for figures now.
    waiting: Arc<std::sync::atomic::AtomicUsize>,
    /// The workers that make the API's answers.
    workers: workers::AnswerWorkers,
    /// The workers that gather figures: they do not wait for the API's answers.
    scraper: workers::AnswerWorkers,
}

/// How far the server is.
#[derive(Clone, Default)]
enum State {
    /// Not open yet.
    #[default]
    Starting,
    /// Open.
    Running(Arc<Shown>),
    /// Told to stop.
    Stopping,
}

impl Admin {
    /// The admin port of a server that is starting.
    pub fn new(options: Options) -> Self {
        Self {
            options: Arc::new(options),
            started: SystemTime::now(),
            state: Arc::default(),
            gathering: Arc::default(),
            importing: Arc::default(),
            waiting: Arc::default(),
            workers: workers::AnswerWorkers::new(workers::API),
            scraper: workers::AnswerWorkers::new(1),
        }
    }

    /// The broker takes requests.
    pub fn running(&self, mut shown: Shown) {
        let routes = shown.routes.into_iter();
        shown.routes = routes.map(|(prefix, routes)| (prefix, mounted::mounted(prefix, routes))).collect();
        *self.state.write() = State::Running(Arc::new(shown));
    }

    /// The broker takes no more connections, and is let go of.
    pub fn stopping(&self) {
        *self.state.write() = State::Stopping;
    }

    fn state(&self) -> State {
        self.state.read().clone()
    }

    /// When the server was started, since the epoch.
    fn started(&self) -> Duration {
        self.started.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
    }

    /// How long the server has been up.
    fn uptime(&self) -> Duration {
        self.started.elapsed().unwrap_or_default()
    }
}

//! What a protocol's folder exports: how it is configured, how it is served, and a client of it.

use std::net::SocketAddr;
use std::sync::Arc;

use sabir_broker::Broker;

use crate::Frontend;
use crate::client::Connector;
use crate::config::{ConfigError, HostPort, Setting, Table};

/// A protocol this server can speak. `server` holds the one list of them.
///
/// Some keys of its configuration table are the same for all, and handled for it: `listen`, `advertise`, `anonymous` and
/// `max_connections`.
pub trait Protocol: Send + Sync + 'static {
    /// Its short name in lower case: that of its configuration table, of its metrics' label and of `--proto`.
    fn name(&self) -> &'static str;

    /// Where it listens when nothing is said, as a [`Setting`]'s default is written: `"127.0.0.1:9092"` with its quotes.
    fn default_listen(&self) -> &'static str;

    /// The keys of its table beside the common ones.
    fn settings(&self) -> &'static [Setting];

    /// Takes its table (without the common keys), before anything is opened. Unknown keys were refused already.
    fn configure(&self, table: Table) -> Result<Box<dyn Configured>, ConfigError>;

    /// The client by which the command line uses this protocol.
    fn connector(&self) -> &'static dyn Connector;
}

/// A front end whose settings are known to be good.
pub trait Configured: Send {
    /// Makes the front end. Its listeners are bound already, and nothing is accepted before this has returned.
    fn start(self: Box<Self>, place: Place) -> Arc<dyn Frontend>;
}

/// Where a front end stands.
#[derive(Clone)]
pub struct Place {
    /// The broker it translates for.
    pub broker: Broker,
    /// The addresses it listens on, with their real ports.
    pub listening: Vec<SocketAddr>,
    /// The address that clients are to be told, with its real port.
    pub advertise: HostPort,
}

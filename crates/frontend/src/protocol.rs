//! What a protocol's folder exports: how it is configured, how it is served, and a client of it.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::Router;
use sabir_broker::exchange::PredeclaredExchange;
use sabir_broker::projection::ProjectionFactory;
use sabir_broker::{Broker, Converter};
use sabir_net::{Frontend, ListenAddress, Registry, Tasks, Workers, exposed, exposure_advice, machine_name};

use crate::client::Connector;
use crate::config::{ConfigError, HostPort, MemorySetting, Setting, SettingsTable, Size};

/// Addresses that a protocol listens on for one purpose: clients' bytes as they come, or within TLS, or within WebSocket later, each by keys
/// and a default of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListenerSpec {
    /// The key of its table that says where: `listen`, or one that ends so.
    pub listen: &'static str,
    /// The key that says what clients are told: `advertise`, or one that ends so.
    pub advertise: &'static str,
    /// Where when nothing is said, as a [`Setting`]'s default is written.
    pub default: &'static str,
    /// Whether clients speak TLS there.
    pub tls: bool,
}

impl ListenerSpec {
    /// The one for clients' bytes as they come.
    pub const fn plain(default: &'static str) -> Self {
        Self { listen: "listen", advertise: "advertise", default, tls: false }
    }

    /// The one for TLS, which listens nowhere unless it is said where.
    pub const TLS: Self =
        Self { listen: "tls_listen", advertise: "tls_advertise", default: "\"off\"", tls: true };
}

/// A protocol this server can speak. `server` holds the one list of them.
///
/// Some keys of its configuration table are the same for all, and handled for it: `listen` and `advertise`, or those of each of its
/// [listeners](Self::listeners), `anonymous`, `max_connections`, and where one of the listeners speaks TLS what that is served with.
pub trait Protocol: Send + Sync + 'static {
    /// Its short name in lower case: that of its configuration table, of its metrics' label and of `--proto`.
    fn name(&self) -> &'static str;

    /// Where it listens when nothing is said, as a [`Setting`]'s default is written: `"127.0.0.1:9092"` with its quotes.
    fn default_listen(&self) -> &'static str;

    /// Its listeners, each with keys and a default of its own. Most have one, and one for TLS.
    fn listeners(&self) -> Vec<ListenerSpec> {
        vec![ListenerSpec::plain(self.default_listen()), ListenerSpec::TLS]
    }

    /// The keys of its table beside the common ones.
    fn settings(&self) -> &'static [Setting];

    /// Names that it keeps for topics of its own: no other protocol makes such topics, whether it is served or not. A `*` at the end stands for
    /// every name that begins so.
    fn reserved_topics(&self) -> &'static [&'static str] {
        &[]
    }

    /// Names that its own clients' topics have, and nobody else's, in the same form: neither other protocols' clients nor the operator make such ones.
    fn client_topics(&self) -> &'static [&'static str] {
        &[]
    }

    /// Names that it gives queues where its clients leave that to it, in the same form. Such queues are left out of definitions.
    fn generated_topics(&self) -> &'static [&'static str] {
        &[]
    }

    /// State of its own that it keeps in the broker's shards: each is called by the protocol's name, or by one that begins with that and a
    /// dot. It is there whether the protocol is served or not, and a program without it does not open a data directory that has some.
    fn projections(&self) -> &'static [ProjectionFactory] {
        &[]
    }

    /// Exchanges that are in every namespace without being declared, whether it is served or not.
    fn exchanges(&self) -> Vec<PredeclaredExchange> {
        Vec::new()
    }

    /// How its records become messages that every protocol understands; `None` where it writes none of its own.
    fn converter(&self) -> Option<Converter> {
        None
    }

    /// Takes its table (without the common keys), before anything is opened. Unknown keys were refused already.
    fn configure(&self, table: SettingsTable) -> Result<Box<dyn Configured>, ConfigError>;

    /// The client by which the command line uses this protocol.
    fn connector(&self) -> &'static dyn Connector;
}

/// A front end whose settings are known to be good.
pub trait Configured: Send {
    /// The key by which it is said how large a frame may be, and how large: no larger than the memory for frames.
    fn largest_frame(&self) -> Option<(&'static str, Size)> {
        None
    }

    /// Its settings that bound memory, all of its connections together.
    fn memory(&self) -> Vec<MemorySetting> {
        Vec::new()
    }

    /// Below which path its routes on the admin port lie, if it has any: `/` and one name, which no other protocol has.
    fn http_prefix(&self) -> Option<&'static str> {
        None
    }

    /// Makes the front end. Its listeners are bound already, and nothing is accepted before this has returned.
    fn start(self: Box<Self>, place: FrontendContext) -> StartedFrontend;
}

/// A front end that was made, and what it serves beside its listeners.
pub struct StartedFrontend {
    /// What serves its connections.
    pub frontend: Arc<dyn Frontend>,
    /// Its routes on the admin port, below [`Configured::http_prefix`], which is left out in them. The port's own rules hold for them: the
    /// names it may be asked by, its connections, which clients may change something (any method but GET, HEAD and OPTIONS does), bodies of
    /// 64 KiB where a route says nothing else, and problems in JSON. They run on the port's one thread, and must not block it.
    pub http: Option<Router>,
}

impl StartedFrontend {
    /// The same with routes on the admin port.
    pub fn with_http(self, routes: Router) -> Self {
        Self { http: Some(routes), ..self }
    }
}

impl<F: Frontend> From<Arc<F>> for StartedFrontend {
    /// One that has no routes on the admin port.
    fn from(frontend: Arc<F>) -> Self {
        Self { frontend, http: None }
    }
}

/// Where a front end stands.
#[derive(Clone)]
pub struct FrontendContext {
    /// The broker it translates for.
    pub broker: Broker,
    /// What does work that takes long; shared with all other front ends.
    pub workers: Workers,
    /// Starts what it does beside its connections.
    pub tasks: Tasks,
    /// The node's open connections, those of other front ends too.
    pub registry: Registry,
    /// Where it listens. [`Connection::listener`](sabir_net::Connection::listener) counts them from 0.
    pub listening: Vec<Listening>,
    /// Bytes of memory that the machine or the control group has, for what follows it.
    pub memory: u64,
}

/// An address that a front end listens on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listening {
    /// The [key](ListenerSpec::listen) that named it.
    pub key: &'static str,
    /// The address, with its real port.
    pub address: SocketAddr,
    /// What the user wants clients to be told; port 0 is that of the address.
    pub advertise: Option<HostPort>,
}

impl Listening {
    /// What a client is told that came here by way of `local`: what the user said, else the address listened on. Where that is all of
    /// them, it is the one that the client has reached already.
    pub fn told(&self, local: SocketAddr) -> HostPort {
        let any = self.address.ip().is_unspecified();
        match local.ip().to_canonical() {
            // Such an address means nothing without the name of a link, which differs between machines.
            IpAddr::V6(link) if any && link.is_unicast_link_local() => self.shown(),
            reached if any => self.advertised().unwrap_or_else(|| self.at(reached.to_string())),
            _ => self.shown(),
        }
    }

    /// The same for where no client asks: this machine's name stands for all of its addresses.
    pub fn shown(&self) -> HostPort {
        let ip = self.address.ip();
        let host = || if ip.is_unspecified() { machine_name() } else { ip.to_string() };
        self.advertised().unwrap_or_else(|| self.at(host()))
    }

    fn advertised(&self) -> Option<HostPort> {
        let advertised = self.advertise.clone()?;
        Some(if advertised.port == 0 { self.at(advertised.host) } else { advertised })
    }

    fn at(&self, host: String) -> HostPort {
        HostPort { host, port: self.address.port() }
    }
}

/// Refuses addresses that other machines reach where no client has to log in, unless the user allowed that in so many words.
///
/// # Errors
/// The first such address, with what to do.
pub fn refuse_exposed(
    section: &str,
    addresses: &[ListenAddress],
    anonymous: bool,
) -> Result<(), ConfigError> {
    match exposed(addresses).filter(|_| !anonymous) {
        None => Ok(()),
        Some(address) => Err(ConfigError::new(section, "listen", exposure_advice(section, &address))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_are_told_an_address_they_can_reach() {
        let told = |advertised: Option<&str>, listening: &str, local: &str| {
            let advertise = advertised.map(|advertised| advertised.parse().unwrap());
            let (key, address) = ("listen", listening.parse().unwrap());
            let listening = Listening { key, address, advertise };
            listening.told(local.parse().unwrap()).to_string()
        };
        assert_eq!(told(None, "127.0.0.1:9092", "127.0.0.1:9092"), "127.0.0.1:9092");
        assert_eq!(told(None, "[::1]:9092", "[::1]:9092"), "[::1]:9092");
        assert_eq!(told(None, "0.0.0.0:9092", "192.0.2.7:9092"), "192.0.2.7:9092");
        assert_eq!(told(None, "[::]:9092", "[2001:db8::7]:9092"), "[2001:db8::7]:9092");
        assert_eq!(told(None, "[::]:9092", "[::ffff:127.0.0.1]:9092"), "127.0.0.1:9092");
        assert_eq!(told(Some("broker:9999"), "0.0.0.0:9092", "192.0.2.7:9092"), "broker:9999");
        assert_eq!(told(Some("broker:0"), "0.0.0.0:9092", "192.0.2.7:9092"), "broker:9092");
        assert_eq!(told(Some("broker:0"), "[::]:9092", "[fe80::7]:9092"), "broker:9092");
        assert_eq!(told(None, "[::]:9092", "[fe80::7]:9092"), format!("{}:9092", machine_name()));
        let any = Listening { key: "listen", address: "0.0.0.0:1".parse().unwrap(), advertise: None };
        assert_eq!(any.shown(), HostPort { host: machine_name(), port: 1 });
    }
}

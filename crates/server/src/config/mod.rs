//! The configuration: one TOML file, over it the environment, over that `--set`.
//!
//! Every section lists its keys ([`sections`], and each protocol for its own), and nothing else is taken. All that is wrong is
//! reported at once, each with the place it came from.

pub mod budgets;
mod options;
pub mod reference;
pub mod sections;
pub mod sources;
pub mod tls;

use std::net::SocketAddr;
use std::sync::Arc;
use std::{fmt, io};

use sabir_broker::exchange::PredeclaredExchange;
use sabir_broker::projection::ProjectionFactory;
use sabir_broker::{BrokerOptions, Converter, FormatLevel, ReservedTopic};
use sabir_frontend::config::{ConfigError, HostPort, Setting, SettingsTable, parse_table, unknown};
use sabir_frontend::refuse_exposed;
use sabir_frontend::{Configured, ListenerSpec, Protocol};
use sabir_net::{ListenAddress, ListenOptions, Tls};
use serde::de::DeserializeOwned;

use sections::{
    AccessTable, AdminSection, DataSection, GroupSection, ListenTable, LogSection, NetSection, NodeSection,
    TopicSection,
};
pub use sources::Sources;
use sources::Tree;
use tls::TlsSection;

/// A configuration whose every value is known to be good.
pub struct ServerConfig {
    /// `[node]`.
    pub node: NodeSection,
    /// `[data]`.
    pub data: DataSection,
    /// `[topic]`.
    pub topic: TopicSection,
    /// `[group]`.
    pub group: GroupSection,
    /// `[net]`.
    pub net: NetSection,
    /// `[admin]`.
    pub admin: AdminSection,
    /// `[log]`.
    pub log: LogSection,
    /// The protocols that are not off.
    pub front_ends: Vec<FrontendConfig>,
    /// What they serve TLS with.
    pub tls: Vec<Arc<Tls>>,
    /// The names of all protocols, also of those that are off.
    pub protocols: Vec<&'static str>,
    /// What every protocol keeps for itself, also those that are off.
    pub reserved: Vec<ReservedTopic>,
    /// What every protocol keeps for its clients' topics.
    pub of_clients: Vec<ReservedTopic>,
    /// Names that protocols give topics themselves.
    pub generated: Vec<ReservedTopic>,
    /// State that protocols keep in the broker's shards, whether they are served or not.
    pub projections: Vec<ProjectionFactory>,
    /// Exchanges that protocols have in every namespace, whether they are served or not.
    pub exchanges: Vec<PredeclaredExchange>,
    /// How the records of all protocols become messages, served or not.
    pub converters: Vec<Converter>,
}

/// One protocol to be served.
pub struct FrontendConfig {
    /// Which.
    pub protocol: &'static dyn Protocol,
    /// Where it listens.
    pub listen: ListenOptions,
    /// The key that named each address.
    pub keys: Vec<&'static str>,
    /// What clients are told, for each address; that one where absent.
    pub advertise: Vec<Option<HostPort>>,
    /// Its own settings.
    pub configured: Box<dyn Configured>,
}

/// All that is wrong with a configuration.
#[derive(Debug, thiserror::Error)]
pub struct ConfigErrors(pub Vec<ConfigProblem>);

/// One thing that is wrong, and where it was said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigProblem {
    /// The file, environment variable or flag, where it is known.
    pub source: Option<String>,
    /// What is wrong.
    pub message: String,
    /// What it is wrong with.
    pub about: About,
}

/// What is wrong: advice differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum About {
    /// A key or its value.
    Value,
    /// The file, which cannot be read for this reason.
    File(io::ErrorKind),
    /// The file's text, which is no TOML.
    Syntax,
}

impl ConfigProblem {
    fn of_value(source: Option<String>, message: String) -> Self {
        Self { source, message, about: About::Value }
    }
}

impl fmt::Display for ConfigProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.source {
            Some(source) => write!(f, "{} (from {source})", self.message),
            None => f.write_str(&self.message),
        }
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<_> = self.0.iter().map(ConfigProblem::to_string).collect();
        f.write_str(&lines.join("\n"))
    }
}

impl ServerConfig {
    /// Reads and checks everything, for the protocols in `protocols`.
    pub fn load(
        sources: &Sources,
        protocols: &[&'static dyn Protocol],
    ) -> Result<ServerConfig, ConfigErrors> {
        let tree = sources.read(protocols).map_err(|problem| ConfigErrors(vec![problem]))?;
        let mut loader = Loader { tree, problems: Vec::new(), tls: Vec::new() };
        loader.check_sections(protocols);
        let node = loader.section("node", sections::NODE);
        let data = loader.section::<DataSection>("data", sections::DATA);
        let topic = loader.section::<TopicSection>("topic", sections::TOPIC);
        let group = loader.section::<GroupSection>("group", sections::GROUP);
        let net = loader.section::<NetSection>("net", sections::NET);
        let tls = loader.section::<TlsSection>("tls", tls::TLS);
        let admin = loader.section::<AdminSection>("admin", sections::ADMIN);
        let log = loader.section::<LogSection>("log", sections::LOG);
        loader.check_values(topic.as_ref(), log.as_ref());
        loader.check_limits(data.as_ref(), group.as_ref());
        if let Some(net) = &net {
            loader.check_net(net);
        }
        if let Some(admin) = &admin {
            let addresses = plain(&admin.listen.addresses);
            loader.keep(refuse_exposed("admin", &addresses, admin.anonymous));
        }
        let front_ends: Vec<_> =
            protocols.iter().filter_map(|p| loader.front_end(*p, tls.is_some())).collect();
        loader.check_shared(&front_ends);
        loader.check_addresses(admin.as_ref(), &front_ends);
        loader.check_frames(net.as_ref(), &front_ends);
        loader.check_prefixes(&front_ends);
        match (node, data, topic, group, net, tls, admin, log) {
            (
                Some(node),
                Some(data),
                Some(topic),
                Some(group),
                Some(net),
                Some(_),
                Some(admin),
                Some(log),
            ) if loader.problems.is_empty() => {
                let reserved = protocols.iter().flat_map(|p| names(*p, p.reserved_topics())).collect();
                let of_clients = protocols.iter().flat_map(|p| names(*p, p.client_topics())).collect();
                let generated = protocols.iter().flat_map(|p| names(*p, p.generated_topics())).collect();
                let projections = protocols.iter().flat_map(|p| p.projections()).copied().collect();
                let exchanges = protocols.iter().flat_map(|p| p.exchanges()).collect();
                let converters = protocols.iter().filter_map(|p| p.converter()).collect();
                Ok(ServerConfig {
                    node,
                    data,
                    topic,
                    group,
                    net,
                    admin,
                    log,
                    front_ends,
                    tls: loader.tls,
                    protocols: protocols.iter().map(|protocol| protocol.name()).collect(),
                    reserved,
                    of_clients,
                    generated,
                    projections,
                    exchanges,
                    converters,
                })
            }
            _ => Err(ConfigErrors(loader.problems)),
        }
    }
}

/// Addresses without TLS.
fn plain(addresses: &[SocketAddr]) -> Vec<ListenAddress> {
    addresses.iter().copied().map(ListenAddress::from).collect()
}

fn names(
    protocol: &'static dyn Protocol,
    names: &'static [&'static str],
) -> impl Iterator<Item = ReservedTopic> {
    names.iter().map(|&name| ReservedTopic { name, by: protocol.name() })
}

/// An address that a protocol listens on: the listener that named it, and what clients are told.
type ListeningAt = (ListenerSpec, SocketAddr, Option<HostPort>);

/// An address to listen on, and the setting that names it.
#[derive(Clone, Copy)]
struct NamedAddress {
    section: &'static str,
    key: &'static str,
    address: SocketAddr,
}

impl NamedAddress {
    /// Why both are not listened on.
    fn problem_beside(&self, other: &Self) -> Option<String> {
        let Self { section, key, address } = *self;
        let is_one_setting = (section, key) == (other.section, other.key);
        // Port 0 is another one each time.
        if address.port() != other.address.port() || address.port() == 0 {
            return None;
        }
        if address == other.address {
            let is_shared = section != other.section && section != "admin" && other.section != "admin";
            return match (is_shared, is_one_setting) {
                (true, _) => None,
                (false, true) => Some(format!("it names {address} more than once")),
                (false, false) => Some(format!("{address} is {}.{}'s too", other.section, other.key)),
            };
        }
        let holds_all = address.ip().is_unspecified() || other.address.ip().is_unspecified();
        let collides = holds_all && address.is_ipv4() == other.address.is_ipv4();
        collides.then(|| {
            let (other, by) = (other.address, format!("{}.{}", other.section, other.key));
            format!("{address} cannot be listened on beside {other} of {by}: one of them is all addresses of this machine")
        })
    }
}

struct Loader {
    tree: Tree,
    problems: Vec<ConfigProblem>,
    /// What protocols serve TLS with: once for those that do with the same.
    tls: Vec<Arc<Tls>>,
}

impl Loader {
    fn check_sections(&mut self, protocols: &[&'static dyn Protocol]) {
        let own = sections::CORE.iter().map(|(name, _)| *name);
        let known: Vec<_> = own.chain(protocols.iter().map(|p| p.name())).collect();
        for name in self.tree.section_names() {
            if !known.contains(&name.as_str()) {
                let message = format!("[{name}]: {}", unknown(&name, known.iter().copied()));
                self.problems.push(ConfigProblem::of_value(self.tree.source(&name), message));
            }
        }
    }

    /// What the types cannot say.
    fn check_values(&mut self, topic: Option<&TopicSection>, log: Option<&LogSection>) {
        if let Some(size) = topic.map(|t| t.max_message).filter(|size| *size > sections::LARGEST_MESSAGE) {
            let problem = format!("{size} is too large; it can be at most {}", sections::LARGEST_MESSAGE);
            self.note(ConfigError::new("topic", "max_message", problem));
        }
        let most = BrokerOptions::MOST_PARTITIONS;
        if let Some(count) = topic.map(|t| t.max_partitions).filter(|count| *count > most) {
            let problem = format!("{count} are too many; there can be at most {most}");
            self.note(ConfigError::new("topic", "max_partitions", problem));
        }
        if let Some(Err(problem)) = log.map(LogSection::filter) {
            self.note(ConfigError::new("log", "level", problem));
        }
    }

    /// Values that must fit each other, or what a data directory can be.
    fn check_limits(&mut self, data: Option<&DataSection>, group: Option<&GroupSection>) {
        let least = sections::LEAST_OPEN_BYTES;
        if let Some(size) = data.and_then(|d| d.open_bytes_max.0).filter(|size| *size < least) {
            let problem = format!("{size} is too little; it must be at least {least}");
            self.note(ConfigError::new("data", "open_bytes_max", problem));
        }
        let most = BrokerOptions::MOST_DATA_SHARDS;
        if let Some(count) = data.and_then(|d| d.shards.0).filter(|count| count.get() > most) {
            let problem = format!("{count} are too many; there can be at most {most}");
            self.note(ConfigError::new("data", "shards", problem));
        }
        let level = data.and_then(|d| d.format_level.0);
        if let Some(level) = level.filter(|level| FormatLevel::written(level.get()).is_none()) {
            let (oldest, newest) = (FormatLevel::OLDEST, FormatLevel::NEWEST);
            let problem = format!("this version writes the levels from {oldest} to {newest}, not {level}");
            self.note(ConfigError::new("data", "format_level", problem));
        }
        if let Some(group) = group.filter(|g| g.min_session_timeout > g.max_session_timeout) {
            let (min, max) = (group.min_session_timeout, group.max_session_timeout);
            let problem = format!("{max} is less than group.min_session_timeout, which is {min}");
            self.note(ConfigError::new("group", "max_session_timeout", problem));
        }
    }

    /// What would let no client stay.
    fn check_net(&mut self, net: &NetSection) {
        if net.io_threads.0.is_some_and(|threads| threads.get() > sections::MOST_IO_THREADS) {
            let problem = format!("more than {} are of no use", sections::MOST_IO_THREADS);
            self.note(ConfigError::new("net", "io_threads", problem));
        }
        if net.frame_memory.0.is_some_and(|size| size < sections::LEAST_FRAME_MEMORY) {
            let problem = format!("it must be at least {}", sections::LEAST_FRAME_MEMORY);
            self.note(ConfigError::new("net", "frame_memory", problem));
        }
        let patience = [
            ("handshake_timeout", net.handshake_timeout),
            ("frame_timeout", net.frame_timeout),
            ("write_timeout", net.write_timeout),
            ("idle_timeout", net.idle_timeout),
        ];
        for (key, _) in patience.into_iter().filter(|(_, span)| span.0.is_zero()) {
            self.note(ConfigError::new("net", key, "every client would be closed at once".to_owned()));
        }
    }

    /// A frame that the user allows and that no memory is for would be waited for in vain. What the user does not say follows the memory.
    fn check_frames(&mut self, net: Option<&NetSection>, front_ends: &[FrontendConfig]) {
        let Some(memory) = net.map(|net| sabir_frontend::config::Size(net.frame_memory_bytes())) else {
            return;
        };
        for front_end in front_ends {
            let name = front_end.protocol.name();
            let Some((key, size)) = front_end.configured.largest_frame() else { continue };
            if size > memory && self.tree.source(&format!("{name}.{key}")).is_some() {
                let problem = format!("{size} is more than net.frame_memory, which is {memory}");
                self.note(ConfigError::new(name, key, problem));
            }
        }
    }

    /// Two that mount routes below one path of the admin port cannot be served together.
    fn check_prefixes(&mut self, front_ends: &[FrontendConfig]) {
        let mut taken: Vec<_> =
            sabir_admin::PATHS.iter().map(|path| (*path, "the admin port itself")).collect();
        for front_end in front_ends {
            let name = front_end.protocol.name();
            let Some(prefix) = front_end.configured.http_prefix() else { continue };
            let other = taken.iter().find(|(path, _)| *path == prefix);
            if let Some((_, other)) = other {
                let problem = format!(
                    "{prefix} of the admin port is {other}'s already: turn one of them off (\"off\")"
                );
                self.note(ConfigError::new(name, "listen", problem));
            } else if !prefix.strip_prefix('/').is_some_and(|rest| !rest.is_empty() && !rest.contains('/')) {
                self.note(ConfigError::new(name, "listen", format!("{prefix} is not `/` and one name")));
            }
            taken.push((prefix, name));
        }
    }

    fn section<T: DeserializeOwned>(&mut self, name: &str, settings: &[Setting]) -> Option<T> {
        let table = self.table(name, settings)?;
        let parsed = parse_table(name, table, settings);
        self.keep(parsed)
    }

    /// A section's table. Every unknown key in it is noted as a problem, and left out.
    fn table(&mut self, name: &str, settings: &[Setting]) -> Option<SettingsTable> {
        let Some(mut table) = self.tree.section(name) else {
            let message = format!("{name}: is a section, write [{name}] and its keys below it");
            self.problems.push(ConfigProblem::of_value(self.tree.source(name), message));
            return None;
        };
        let known = settings.iter().map(|s| s.key);
        let strange: Vec<_> = table.keys().filter(|k| known.clone().all(|s| s != *k)).cloned().collect();
        for key in strange {
            table.remove(&key);
            self.note(ConfigError::new(name, &key, unknown(&key, known.clone())));
        }
        Some(table)
    }

    /// A protocol's table, where `[tls]` is as it should be.
    fn front_end(&mut self, protocol: &'static dyn Protocol, is_tls_good: bool) -> Option<FrontendConfig> {
        let name = protocol.name();
        let mut own = self.table(name, &reference::protocol_settings(protocol))?;
        let specs = protocol.listeners();
        let listeners: Vec<_> = specs.iter().map(|spec| self.listener(name, spec, &mut own)).collect();
        let access = sections::ACCESS.iter().filter_map(|s| own.remove_entry(s.key)).collect();
        let access = parse_table::<AccessTable>(name, access, &sections::ACCESS);
        // What is wrong in `[tls]` is not said once more for each protocol.
        let node_tls = self.tree.section("tls").filter(|_| is_tls_good).unwrap_or_default();
        let tls = tls::of_protocol(name, &mut own, &node_tls);
        let tls = self.keep(tls).filter(|_| is_tls_good);
        let configured = protocol.configure(own);
        let (access, configured) = (self.keep(access), self.keep(configured));
        let (access, configured) = (access?, configured?);
        let listeners = listeners.into_iter().flatten().collect::<Option<Vec<_>>>()?;
        let speaks_tls = listeners.iter().any(|(spec, ..)| spec.tls);
        let tls = if speaks_tls { Some(self.load_tls(name, &tls?)?) } else { None };
        let at = |(spec, address, _): &ListeningAt| ListenAddress {
            address: *address,
            tls: tls.clone().filter(|_| spec.tls),
        };
        let addresses: Vec<_> = listeners.iter().map(at).collect();
        self.keep(refuse_exposed(name, &addresses, access.anonymous))?;
        let on = !addresses.is_empty();
        let keys = listeners.iter().map(|(spec, ..)| spec.listen).collect();
        let advertise = listeners.into_iter().map(|(.., told)| told).collect();
        let max_connections = access.max_connections.0.map_or(usize::MAX, |count| count.0);
        let listen = ListenOptions { section: name, addresses, anonymous: access.anonymous, max_connections };
        on.then_some(FrontendConfig { protocol, listen, keys, advertise, configured })
    }

    /// The addresses of one of a protocol's listeners, each with its key and with what clients are told; none in place of what is wrong.
    fn listener(
        &mut self,
        name: &'static str,
        spec: &ListenerSpec,
        own: &mut SettingsTable,
    ) -> Vec<Option<ListeningAt>> {
        // What is wrong is said of the keys as they are called.
        let called = |error: ConfigError| {
            let key = if error.key == "advertise" { spec.advertise } else { spec.listen };
            ConfigError { key: key.to_owned(), ..error }
        };
        let settings = reference::listener_settings(spec);
        let mut table = SettingsTable::new();
        for (setting, plain) in settings.iter().zip(&sections::LISTEN) {
            let value = own.remove(setting.key).unwrap_or_else(|| setting.default_value());
            table.insert(plain.key.to_owned(), value);
        }
        let parsed = parse_table::<ListenTable>(name, table, &sections::LISTEN).map_err(called);
        let Some(ListenTable { listen, advertise }) = self.keep(parsed) else { return vec![None] };
        if listen.addresses.is_empty() {
            return Vec::new();
        }
        let told = advertise.at_each(listen.addresses.len());
        let told = told.map_err(|problem| ConfigError::new(name, spec.advertise, problem));
        let Some(told) = self.keep(told) else { return vec![None] };
        let each = listen.addresses.into_iter().zip(told);
        each.map(|(address, told)| Some((*spec, address, told))).collect()
    }

    /// What a protocol serves TLS with, from its files.
    fn load_tls(&mut self, name: &'static str, section: &TlsSection) -> Option<Arc<Tls>> {
        let lacks = |key| {
            let problem = format!(
                "{name}.tls_listen needs it: a file in PEM (or {name}.tls_{key} for this protocol alone)"
            );
            ConfigError::new("tls", key, problem)
        };
        let options = self.keep(section.options().map_err(lacks))?;
        if let Some(loaded) = self.tls.iter().find(|loaded| *loaded.options() == options) {
            return Some(loaded.clone());
        }
        let loaded =
            Tls::load(options).map_err(|error| ConfigError::new(name, "tls_listen", error.to_string()));
        let loaded = Arc::new(self.keep(loaded)?);
        self.tls.push(loaded.clone());
        Some(loaded)
    }

    /// Protocols that share an address are told apart behind TLS, which is then the same.
    fn check_shared(&mut self, front_ends: &[FrontendConfig]) {
        let mut seen: Vec<(&'static str, &ListenAddress)> = Vec::new();
        for FrontendConfig { listen, keys, .. } in front_ends {
            for (one, key) in listen.addresses.iter().zip(keys) {
                let tls = |at: &ListenAddress| at.tls.as_ref().map(Arc::as_ptr);
                let other = seen.iter().find(|(_, other)| {
                    other.address == one.address && one.address.port() != 0 && tls(other) != tls(one)
                });
                if let Some((other, _)) = other {
                    let problem = format!("{} is {other}'s too, with another TLS or none", one.address);
                    self.note(ConfigError::new(listen.section, key, problem));
                }
            }
            seen.extend(listen.addresses.iter().map(|one| (listen.section, one)));
        }
    }

    /// An address is bound once. Several protocols may share one; nothing else may, nor can one be listened on beside all of its family.
    fn check_addresses(&mut self, admin: Option<&AdminSection>, front_ends: &[FrontendConfig]) {
        let of_admin = admin.iter().flat_map(|admin| &admin.listen.addresses);
        let of_admin =
            of_admin.map(|address| NamedAddress { section: "admin", key: "listen", address: *address });
        let of_front_ends = front_ends.iter().flat_map(|FrontendConfig { listen, keys, .. }| {
            let each = listen.addresses.iter().zip(keys);
            each.map(|(at, key)| NamedAddress { section: listen.section, key, address: at.address })
        });
        let mut seen: Vec<NamedAddress> = Vec::new();
        for named in of_admin.chain(of_front_ends) {
            if let Some(problem) = seen.iter().find_map(|other| named.problem_beside(other)) {
                self.note(ConfigError::new(named.section, named.key, problem));
            }
            seen.push(named);
        }
    }

    fn keep<T>(&mut self, parsed: Result<T, ConfigError>) -> Option<T> {
        parsed.map_err(|e| self.note(e)).ok()
    }

    fn note(&mut self, error: ConfigError) {
        let source = self.tree.source(&format!("{}.{}", error.section, error.key));
        self.problems.push(ConfigProblem::of_value(source, error.to_string()));
    }
}

#[cfg(test)]
mod tests;

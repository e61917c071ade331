//! One file for each noun of the command line.

pub mod bench;
pub mod cluster;
pub mod completions;
pub mod config;
pub mod connection;
pub mod definitions;
pub mod delayed;
pub mod dev;
pub mod dlq;
pub mod doctor;
pub mod group;
pub mod message;
pub mod serve;
pub mod topic;

use std::collections::HashSet;
use std::future::Future;
use std::io::{self, BufRead, IsTerminal, Write};
use std::net::Ipv6Addr;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use sabir_server::client::{
    Client, ClientError, Connector, DialTls, Dialer, Endpoint, Failure, GroupAdmin, Position, Start,
    TopicAdmin,
};
use sabir_server::config_value::nearest;
use sabir_server::{Protocol, protocols};

use crate::admin::{AdminClient, AdminScope, AdminUrl, Administered};
use crate::args::{ClientArgs, Sure, Target, TlsArgs};
use crate::failure::{CliError, Exit};
use crate::output::{Format, Show, grouped, print};

/// Runs a command's future on this thread.
fn block_on<T>(future: impl Future<Output = Result<T, CliError>>) -> Result<T, CliError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    tokio::task::LocalSet::new().block_on(&runtime, future)
}

/// How long it is tried whether a protocol is spoken at an address.
const PROBE: Duration = Duration::from_secs(3);

/// A protocol to speak, and where.
#[derive(Clone)]
struct Chosen {
    protocol: &'static str,
    connector: &'static dyn Connector,
    /// With a port.
    broker: Endpoint,
}

impl Target {
    /// The protocol that was asked for, else what is spoken there.
    async fn choose(&self) -> Result<Chosen, CliError> {
        check_address(self.parts().1)?;
        let named = self.named()?;
        let dialer = self.dialer()?;
        if let Some(named) = named {
            return self.at(named, &dialer);
        }
        // One that listens nowhere by default has to be named.
        let known = protocols().iter().filter(|protocol| protocol.connector().default_port().is_some());
        let all: Vec<_> = known.map(|protocol| self.at(*protocol, &dialer)).collect();
        let mut all = match all.iter().any(Result::is_ok) {
            true => all.into_iter().flatten().collect(),
            false => all.into_iter().collect::<Result<Vec<_>, _>>()?,
        };
        // The protocol whose port it is is the likeliest, and the order of the list decides between the others.
        all.sort_by_key(|chosen| {
            let usual = usual_port(chosen.connector, &dialer);
            !usual.is_some_and(|port| chosen.broker.address.ends_with(&format!(":{port}")))
        });
        Ok(spoken(all).await)
    }

    /// This protocol at the address.
    fn at(&self, protocol: &'static dyn Protocol, dialer: &Dialer) -> Result<Chosen, CliError> {
        let (name, connector) = (protocol.name(), protocol.connector());
        let address = self.address(name, usual_port(connector, dialer), dialer)?;
        Ok(Chosen { protocol: name, connector, broker: Endpoint { address, dialer: dialer.clone() } })
    }

    /// What makes the connections: in TLS where an option or the address says so.
    fn dialer(&self) -> Result<Dialer, CliError> {
        let secured = self.parts().0.is_some_and(|scheme| protocol_of(scheme).is_some_and(|(_, tls)| tls));
        self.tls.dialer(secured)
    }

    /// The protocol that was asked for.
    fn named(&self) -> Result<Option<&'static dyn Protocol>, CliError> {
        let all = protocols();
        let scheme = self.parts().0;
        let (name, found, asked) = match (&self.proto, scheme) {
            (None, None) => return Ok(None),
            (Some(name), None) => (name.as_str(), named(name), format!("--proto {name}")),
            (_, Some(scheme)) => {
                let found = protocol_of(scheme).map(|(protocol, _)| protocol);
                (scheme, found, format!("--address {scheme}://"))
            }
        };
        if let (Some(proto), Some(scheme)) = (&self.proto, scheme)
            && found.is_some_and(|found| found.name() != proto)
        {
            let problem = format!("--proto {proto} and --address {scheme}:// name different protocols");
            return Err(CliError::new(Exit::Usage, problem).advise("Say it once."));
        }
        let names = || all.iter().map(|p| p.name());
        found.map(Some).ok_or_else(|| {
            let advice = match nearest(name, names()) {
                Some(near) => format!("Did you mean `{near}`?"),
                None => format!("There are: {}.", names().collect::<Vec<_>>().join(", ")),
            };
            CliError::new(Exit::Usage, format!("{asked}: no such protocol")).advise(advice)
        })
    }

    /// The protocol that the address names (`protocol://host:port`), and what is left of it.
    fn parts(&self) -> (Option<&str>, Option<&str>) {
        match self.address.as_deref().map(|address| address.split_once("://").ok_or(address)) {
            None => (None, None),
            Some(Err(address)) => (None, Some(address)),
            Some(Ok((scheme, rest))) => (Some(scheme), Some(rest.trim_end_matches('/'))),
        }
    }

    /// The address with a port, by default the protocol's.
    fn address(&self, protocol: &str, port: Option<u16>, dialer: &Dialer) -> Result<String, CliError> {
        match (self.parts().1, port) {
            (Some(address), _) if has_port(address) => Ok(address.to_owned()),
            (host, Some(port)) => Ok(format!("{}:{port}", host.unwrap_or("127.0.0.1"))),
            (_, None) => {
                let by_tls = if dialer.is_tls() { " for TLS" } else { "" };
                let problem = format!("{protocol} has no port of its own{by_tls}");
                Err(CliError::new(Exit::Usage, problem).advise("Say where it listens: --address HOST:PORT."))
            }
        }
    }
}

/// The protocol of a name.
fn named(name: &str) -> Option<&'static dyn Protocol> {
    protocols().iter().copied().find(|protocol| protocol.name() == name)
}

/// The protocol that an address begins with, in letters of either case, and whether by TLS: then an `s` stands behind its name.
fn protocol_of(scheme: &str) -> Option<(&'static dyn Protocol, bool)> {
    let scheme = &*scheme.to_ascii_lowercase();
    let plain = named(scheme).map(|protocol| (protocol, false));
    plain.or_else(|| Some((named(scheme.strip_suffix('s')?)?, true)))
}

/// The port that a protocol's brokers usually listen on for such connections.
fn usual_port(connector: &dyn Connector, dialer: &Dialer) -> Option<u16> {
    if dialer.is_tls() { connector.default_tls_port() } else { connector.default_port() }
}

impl TlsArgs {
    /// What makes the connections.
    fn dialer(&self, secured: bool) -> Result<Dialer, CliError> {
        let identity = match (&self.tls_cert, &self.tls_key) {
            (Some(certificate), Some(key)) => Some((certificate.clone(), key.clone())),
            (None, None) => None,
            _ => {
                let problem = "--tls-cert and --tls-key are of no use without each other";
                return Err(CliError::new(Exit::Usage, problem));
            }
        };
        let options = DialTls { authorities: self.tls_ca.clone(), identity, insecure: self.tls_insecure };
        if !secured && !self.tls && options == DialTls::default() {
            return Ok(Dialer::default());
        }
        Dialer::tls(&options).map_err(|error| {
            let advice = "--tls-ca names the authorities of the broker's certificate, --tls-cert and --tls-key what is shown to it.";
            CliError::new(Exit::Usage, format!("TLS: {error}")).advise(advice)
        })
    }
}

/// The first of these clients that is understood at its address; the first of all where none is, to say why.
async fn spoken(candidates: Vec<Chosen>) -> Chosen {
    // With one candidate there is nothing to find out.
    if candidates.len() > 1 {
        for candidate in &candidates {
            let connecting = candidate.connector.connect(candidate.broker.clone(), PROBE);
            if let Ok(Ok(_)) = tokio::time::timeout(PROBE, connecting).await {
                return candidate.clone();
            }
        }
    }
    candidates.into_iter().next().expect("there is a protocol")
}

impl ClientArgs {
    async fn connect(&self) -> Result<Box<dyn Client>, CliError> {
        Ok(self.connect_as().await?.1)
    }

    /// A client for what is that owner's. Where one is named, the admin port alone is asked: a protocol knows its own.
    async fn connect_to(&self, owner: AdminScope) -> Result<Box<dyn Client>, CliError> {
        if owner == AdminScope::default() {
            return self.connect().await;
        }
        let host = self.target.parts().1;
        check_address(host)?;
        let url = self.admin.clone().unwrap_or_else(|| host.map(AdminUrl::beside).unwrap_or_default());
        Ok(Box::new(AdminClient::new(url, self.timeout.0).about(owner)))
    }

    /// A client, and what made it.
    async fn connect_as(&self) -> Result<(&'static dyn Connector, Box<dyn Client>), CliError> {
        let Chosen { protocol, connector, broker } = self.target.choose().await?;
        let address = broker.address.clone();
        let client = in_time(self.timeout.0, connector.connect(broker, self.timeout.0)).await;
        let client = client.map_err(|error| about_address(&address, error))?;
        let url = self.admin.clone().unwrap_or_else(|| AdminUrl::beside(&address));
        // It is asked about groups where the protocol does not administer its own, and about no others.
        let owner = AdminScope { protocol: Some(protocol.to_owned()), namespace: None };
        let admin = AdminClient::new(url, self.timeout.0).about(owner);
        Ok((connector, Box::new(Administered::new(client, admin))))
    }
}

/// The failure, with the address that it is about.
fn about_address(address: &str, error: ClientError) -> ClientError {
    match error.message.contains(address) {
        true => error,
        false => ClientError { message: format!("{address}: {}", error.message), ..error },
    }
}

/// Refuses what can be no host's address, before it is looked for as one.
fn check_address(address: Option<&str>) -> Result<(), CliError> {
    let refused = |problem: String| {
        let advice = "An address is HOST:PORT, with a port of 1 to 65535, or a HOST alone.";
        Err(CliError::new(Exit::Usage, problem).advise(advice))
    };
    let Some(address) = address else { return Ok(()) };
    if address.contains(',') {
        let problem = format!("--address {address}: one address is named at a time");
        let advice = "Name one of them: which others belong to the broker, it says itself.";
        return Err(CliError::new(Exit::Usage, problem).advise(advice));
    }
    if let Some((host, port)) = address.rsplit_once(':')
        && host.contains(':')
        && !is_v6(address)
        && !is_v6(host)
    {
        let problem = format!("--address {address}: no host has a colon in its name");
        let advice = match host.split_once(':') {
            Some((scheme, host)) if protocol_of(scheme).is_some() => {
                format!(
                    "An address that names its protocol is protocol://host:port: {scheme}://{host}:{port}"
                )
            }
            _ => "An address is [protocol://]host[:port], and one of IPv6 stands in brackets: [::1]:9092."
                .into(),
        };
        return Err(CliError::new(Exit::Usage, problem).advise(advice));
    }
    let port = address.rsplit_once(':').filter(|(host, _)| !host.contains(':') || host.ends_with(']'));
    match port {
        _ if address.is_empty() => refused("--address is empty".into()),
        Some(("", _)) => refused(format!("--address {address}: it names no host")),
        Some((_, port)) if port.parse::<u16>().unwrap_or(0) == 0 => {
            refused(format!("--address {address}: {port:?} is no port"))
        }
        _ => Ok(()),
    }
}

/// Whether it is an address of IPv6, in brackets or not, with the zone that it may have.
fn is_v6(host: &str) -> bool {
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    bare.split('%').next().is_some_and(|bare| bare.parse::<Ipv6Addr>().is_ok())
}

/// `host:port`, `[v6]:port`; not `host`, `[v6]` or a bare IPv6 address.
fn has_port(address: &str) -> bool {
    let behind = address.rsplit_once(':').map(|(host, port)| (host.contains(':'), host.ends_with(']'), port));
    matches!(behind, Some((colons, bracket, port)) if port.parse::<u16>().is_ok() && (!colons || bracket))
}

/// Shows what was done, also where an error kept the rest from being done; one that came first leaves nothing to show.
fn tell(format: Format, done: &impl Show, outcome: Result<(), CliError>) -> Result<(), CliError> {
    let shown = if outcome.is_ok() || !done.names().is_empty() { print(format, done) } else { Ok(()) };
    outcome?;
    Ok(shown?)
}

/// Each name once, where it stands first.
fn once(names: Vec<String>) -> Vec<String> {
    let mut seen = HashSet::new();
    names.into_iter().filter(|name| seen.insert(name.clone())).collect()
}

/// Gives an answer that does not come up.
pub async fn in_time<T>(
    limit: Duration,
    answer: impl Future<Output = Result<T, ClientError>>,
) -> Result<T, ClientError> {
    tokio::time::timeout(limit, answer).await.unwrap_or_else(|_| {
        let message = format!("no answer within {} s", limit.as_secs_f64());
        Err(ClientError::new(Failure::Timeout, message))
    })
}

/// The administration of topics, if the protocol has it.
fn topic_admin(client: &mut dyn Client) -> Result<&mut dyn TopicAdmin, ClientError> {
    client.topics().ok_or_else(|| not_administered("topics"))
}

/// The administration of groups, if the protocol has it.
fn group_admin(client: &mut dyn Client) -> Result<&mut dyn GroupAdmin, ClientError> {
    client.groups().ok_or_else(|| not_administered("groups"))
}

fn not_administered(what: &str) -> ClientError {
    let message = format!(
        "{what} cannot be administered by this protocol: name another with --proto, or ask the admin port, /sabir/v1/{what}"
    );
    ClientError::new(Failure::Unsupported, message)
}

/// Where reading from `start` begins in a topic's partitions, or in the one named, as the protocol or the admin port tells it, whichever administers topics: a client of queues
/// reads them from their first message on alone.
async fn places(
    client: &mut dyn Client,
    args: &ClientArgs,
    topic: &str,
    partition: Option<i32>,
    start: Start,
) -> Result<Vec<Position>, CliError> {
    let outcome = in_time(args.timeout.0, topic_admin(client)?.places(topic, partition, start)).await;
    about_topic(client, args, topic, outcome).await
}

/// What came of a question about a topic. Where there is none of that name, the failure says so and names the nearest.
async fn about_topic<T>(
    client: &mut dyn Client,
    args: &ClientArgs,
    name: &str,
    outcome: Result<T, ClientError>,
) -> Result<T, CliError> {
    let error = match outcome {
        // What its protocol advises on is no topic that could be created here.
        Err(error) if error.failure == Failure::NotFound && error.advice.is_none() => error,
        other => return Ok(other?),
    };
    let Some(topics) = client.topics() else { return Err(error.into()) };
    match in_time(args.timeout.0, topics.list()).await {
        Ok(topics) => Err(not_found("topic", name, topics.into_iter().map(|t| t.name).collect(), error)),
        // The first answer has to do.
        Err(_) => Err(error.into()),
    }
}

/// [`about_topic`] for a group.
async fn about_group<T>(
    client: &mut dyn Client,
    args: &ClientArgs,
    id: &str,
    outcome: Result<T, ClientError>,
) -> Result<T, CliError> {
    let error = match outcome {
        Err(error) if error.failure == Failure::NotFound => error,
        other => return Ok(other?),
    };
    let Some(groups) = client.groups() else { return Err(error.into()) };
    match in_time(args.timeout.0, groups.list()).await {
        Ok(groups) => Err(not_found("group", id, groups.into_iter().map(|g| g.id).collect(), error)),
        Err(_) => Err(error.into()),
    }
}

/// Something is not there: the thing itself, or something in it.
fn not_found(noun: &str, name: &str, there: Vec<String>, error: ClientError) -> CliError {
    if there.iter().any(|t| t == name) {
        let advice = format!("`sabir {noun} describe {name}` shows what it has.");
        return CliError::from(error).advise(advice);
    }
    let all = format!("`sabir {noun} list` shows what there is");
    let advice = match nearest(name, there.iter().map(String::as_str)) {
        Some(near) => format!("Did you mean `{near}`? {all}."),
        None if noun == "topic" => format!("{all}; `sabir topic create {name}` makes it."),
        None => format!("{all}."),
    };
    CliError::new(Exit::NotFound, format!("there is no {noun} {name}")).advise(advice)
}

/// Asks before something is lost, where a user sits at a terminal who can answer.
fn confirm(sure: Sure, question: &str) -> Result<(), CliError> {
    let mut err = io::stderr();
    if sure.yes || !io::stdin().is_terminal() || !err.is_terminal() {
        return Ok(());
    }
    write!(err, "{question} [y/N] ")?;
    err.flush()?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    match answer.trim().to_lowercase().as_str() {
        "y" | "yes" => Ok(()),
        _ => Err(CliError::new(Exit::Failed, "nothing was changed").advise("--yes asks no question.")),
    }
}

/// Fails, as a write would, if the reader of our output has gone away.
fn reader_is_there() -> io::Result<()> {
    let stdout = io::stdout();
    let mut polled = [PollFd::new(&stdout, PollFlags::empty())];
    poll(&mut polled, Some(&Timespec::default()))?;
    match polled[0].revents().intersects(PollFlags::ERR | PollFlags::HUP) {
        true => Err(io::ErrorKind::BrokenPipe.into()),
        false => Ok(()),
    }
}

/// Waits, unless the reader of our output goes away meanwhile.
async fn pause_while_read(mut left: Duration) -> io::Result<()> {
    const LOOK: Duration = Duration::from_millis(200);
    while !left.is_zero() {
        let pause = left.min(LOOK);
        tokio::time::sleep(pause).await;
        reader_is_there()?;
        left -= pause;
    }
    Ok(())
}

/// A number of things, as a person says it.
fn counted(count: u64, one: &str, many: &str) -> String {
    format!("{} {}", grouped(count), if count == 1 { one } else { many })
}

#[cfg(test)]
mod tests {
    use sabir_server::client::{LoadPlan, LoadProgress, LoadReport, LocalFuture};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;
    use crate::testing::NoClient;

    #[tokio::test]
    async fn an_address_may_name_its_protocol() {
        let target = |address: &str, proto: Option<&str>| Target {
            address: Some(address.into()),
            proto: proto.map(Into::into),
            tls: TlsArgs::default(),
        };
        for (address, found) in [
            ("kafka://a:1", "a:1"),
            ("kafka://a:1/", "a:1"),
            ("kafka://a", "a:9092"),
            ("kafka://[::1]:1", "[::1]:1"),
            ("a:1", "a:1"),
            ("kafkas://a:1", "a:1"),
            ("KAFKA://a:1", "a:1"),
            ("Kafka://a", "a:9092"),
        ] {
            for proto in [None, Some("kafka")] {
                let broker = target(address, proto).choose().await.unwrap().broker;
                assert_eq!(
                    (broker.address.as_str(), broker.dialer.is_tls()),
                    (found, address.starts_with("kafkas"))
                );
            }
        }
        assert_eq!(target("amqps://a", None).choose().await.unwrap().broker.address, "a:5671");
        let named = target("127.0.0.1:1", Some("probe")).choose().await.unwrap();
        assert_eq!((named.protocol, named.connector.default_port()), ("probe", None));
        assert_eq!(named.broker.address, "127.0.0.1:1");
        for (address, tls) in [("a", "a:5671"), ("a:7", "a:7")] {
            let secured =
                Target { tls: TlsArgs { tls: true, ..TlsArgs::default() }, ..target(address, None) };
            assert_eq!(
                secured.choose().await.unwrap().broker.address,
                tls,
                "of the protocols with a port for TLS"
            );
        }
        for address in ["kafkas://a", "kafkass://a:1", "tls://a:1"] {
            assert_eq!(target(address, None).choose().await.err().unwrap().exit, Exit::Usage, "{address}");
        }
        for address in ["a", "probe://a"] {
            let error = target(address, Some("probe")).choose().await.err().unwrap();
            assert_eq!(error.exit, Exit::Usage, "{address}: it has no port by default");
        }
        for (address, proto) in [("kafak://a:1", None), ("redis://a:1", Some("kafka")), ("://a", None)] {
            let error = target(address, proto).choose().await.err().unwrap();
            assert_eq!(error.exit, Exit::Usage, "{address}");
        }
        for address in ["", "127.0.0.1:99999", "a:0", "a:b", "a:", ":9092", "kafka://", "[::1]:99999"] {
            let error = target(address, None).choose().await.err().unwrap();
            assert_eq!(error.exit, Exit::Usage, "{address}");
        }
    }

    #[test]
    fn what_can_be_no_address_is_refused_with_what_it_may_have_been_meant_to_be() {
        for good in [
            "a",
            "a:1",
            "127.0.0.1:1",
            "::1",
            "fe80::1",
            "[::1]",
            "[::1]:1",
            "[fe80::1%eth0]:1",
            "fe80::1%eth0",
        ] {
            assert!(check_address(Some(good)).is_ok(), "{good}");
        }
        for (address, problem, advice) in [
            ("127.0.0.1:1,127.0.0.1:2", "one address is named at a time", "Name one of them"),
            ("a,b", "one address is named at a time", "Name one of them"),
            ("kafka:127.0.0.1:22020", "no host has a colon", "kafka://127.0.0.1:22020"),
            ("AMQPS:a:22020", "no host has a colon", "AMQPS://a:22020"),
            ("a:b:1", "no host has a colon", "[protocol://]host[:port]"),
            ("::zz:1", "no host has a colon", "in brackets"),
        ] {
            let error = check_address(Some(address)).unwrap_err();
            assert_eq!(error.exit, Exit::Usage, "{address}");
            let (said, advised) = (&error.message, error.advice.as_deref().unwrap_or_default());
            assert!(said.contains(problem) && said.contains(address), "{address}: {said}");
            assert!(advised.contains(advice), "{address}: {advised}");
        }
    }

    /// A protocol whose brokers greet with its name.
    struct Greeting(&'static str);

    impl Connector for Greeting {
        fn default_port(&self) -> Option<u16> {
            Some(1)
        }

        fn connect(&self, to: Endpoint, _: Duration) -> LocalFuture<'static, Box<dyn Client>> {
            let name = self.0;
            Box::pin(async move {
                let refused = |message: String| ClientError::new(Failure::Connect, message);
                let mut stream = to.dialer.connect(&to.address).await.map_err(|e| refused(e.to_string()))?;
                let mut greeting = vec![0; name.len()];
                stream.read_exact(&mut greeting).await.map_err(|e| refused(e.to_string()))?;
                match greeting == name.as_bytes() {
                    true => Ok(Box::new(NoClient) as Box<dyn Client>),
                    false => Err(refused(format!("it does not speak {name}"))),
                }
            })
        }

        fn bench(
            &self,
            _: Endpoint,
            _: LoadPlan,
            _: &'static LoadProgress,
        ) -> LocalFuture<'static, LoadReport> {
            Box::pin(async { Err(not_administered("loads")) })
        }
    }

    #[tokio::test]
    async fn the_protocol_is_chosen_by_what_is_spoken() {
        static A: Greeting = Greeting("a");
        static B: Greeting = Greeting("b");
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let serving = tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                stream.write_all(b"b").await.unwrap();
            }
        });
        let both = |at: &str| {
            let chosen = |greeting: &'static Greeting| Chosen {
                protocol: greeting.0,
                connector: greeting,
                broker: Endpoint::plain(at),
            };
            vec![chosen(&A), chosen(&B)]
        };
        assert_eq!(spoken(both(&address)).await.protocol, "b", "the second greets");
        serving.abort();
        // No server is there: the first says so.
        assert_eq!(spoken(both("127.0.0.1:1")).await.protocol, "a");
    }

    #[test]
    fn what_a_protocol_cannot_administer_is_said() {
        let mut client = NoClient;
        let error = topic_admin(&mut client).err().unwrap();
        assert_eq!(CliError::from(error).exit, Exit::Refused);
        assert!(group_admin(&mut client).err().unwrap().to_string().contains("/sabir/v1/groups"));
    }

    #[test]
    fn ports_are_told_from_addresses() {
        for with in ["a:1", "127.0.0.1:9092", "[::1]:9092"] {
            assert!(has_port(with), "{with}");
        }
        for without in ["a", "127.0.0.1", "[::1]", "::1", "fe80::1:2", "a:b"] {
            assert!(!has_port(without), "{without}");
        }
    }
}

//! One file for each noun of the command line.

pub mod bench;
pub mod cluster;
pub mod completions;
pub mod config;
pub mod dev;
pub mod doctor;
pub mod group;
pub mod message;
pub mod serve;
pub mod topic;

use std::collections::HashSet;
use std::future::Future;
use std::io::{self, BufRead, IsTerminal, Write};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use sabir_server::client::{Acks, Client, ClientError, Compression, Connector, Failure};
use sabir_server::config_value::nearest;

use crate::args::{AcksArg, ClientArgs, CompressionArg, Sure, Target};
use crate::failure::{CliError, Exit};
use crate::output::{Format, Show, grouped, print};

/// Runs a command's future on this thread.
fn block_on<T>(future: impl Future<Output = Result<T, CliError>>) -> Result<T, CliError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    tokio::task::LocalSet::new().block_on(&runtime, future)
}

impl Target {
    /// The client of the protocol that was asked for.
    fn connector(&self) -> Result<&'static dyn Connector, CliError> {
        let all = sabir_server::protocols();
        let scheme = self.parts().0;
        let (name, said) = match (&self.proto, scheme) {
            (None, None) => return Ok(all[0].connector()),
            (Some(name), None) => (name.as_str(), format!("--proto {name}")),
            (Some(name), Some(scheme)) if name != scheme => {
                let problem = format!("--proto {name} and --address {scheme}:// name different protocols");
                return Err(CliError::new(Exit::Usage, problem).advise("Say it once."));
            }
            (_, Some(scheme)) => (scheme, format!("--address {scheme}://")),
        };
        let names = || all.iter().map(|p| p.name());
        all.iter().find(|p| p.name() == name).map(|p| p.connector()).ok_or_else(|| {
            let advice = match nearest(name, names()) {
                Some(near) => format!("Did you mean `{near}`?"),
                None => format!("There are: {}.", names().collect::<Vec<_>>().join(", ")),
            };
            CliError::new(Exit::Usage, format!("{said}: no such protocol")).advise(advice)
        })
    }

    /// The protocol that the address names (`kafka://host:port`), and what is left of it.
    fn parts(&self) -> (Option<&str>, Option<&str>) {
        match self.address.as_deref().map(|address| address.split_once("://").ok_or(address)) {
            None => (None, None),
            Some(Err(address)) => (None, Some(address)),
            Some(Ok((scheme, rest))) => (Some(scheme), Some(rest.trim_end_matches('/'))),
        }
    }

    /// The address with a port.
    fn address(&self, connector: &dyn Connector) -> String {
        let port = connector.default_port();
        match self.parts().1 {
            None => format!("127.0.0.1:{port}"),
            Some(a) if has_port(a) => a.to_owned(),
            Some(a) => format!("{a}:{port}"),
        }
    }
}

impl ClientArgs {
    async fn connect(&self) -> Result<Box<dyn Client>, CliError> {
        let connector = self.target.connector()?;
        let address = self.target.address(connector);
        Ok(in_time(self.timeout.0, connector.connect(&address)).await?)
    }
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
async fn in_time<T>(
    limit: Duration,
    answer: impl Future<Output = Result<T, ClientError>>,
) -> Result<T, ClientError> {
    tokio::time::timeout(limit, answer).await.unwrap_or_else(|_| {
        let message = format!("no answer within {} s", limit.as_secs_f64());
        Err(ClientError::new(Failure::Timeout, message))
    })
}

/// What came of a question about a topic. Where there is none of that name, the failure says so and names the nearest.
async fn about_topic<T>(
    client: &mut dyn Client,
    args: &ClientArgs,
    name: &str,
    outcome: Result<T, ClientError>,
) -> Result<T, CliError> {
    let error = match outcome {
        Err(error) if error.failure == Failure::NotFound => error,
        other => return Ok(other?),
    };
    match in_time(args.timeout.0, client.topics()).await {
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
    match in_time(args.timeout.0, client.groups()).await {
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

/// Asks before something is lost, where somebody sits at a terminal who can answer.
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

/// Fails, as a write would, if whoever read our output has gone away.
fn reader_is_there() -> io::Result<()> {
    let stdout = io::stdout();
    let mut polled = [PollFd::new(&stdout, PollFlags::empty())];
    poll(&mut polled, Some(&Timespec::default()))?;
    match polled[0].revents().intersects(PollFlags::ERR | PollFlags::HUP) {
        true => Err(io::ErrorKind::BrokenPipe.into()),
        false => Ok(()),
    }
}

/// A number of things, as a person says it.
fn counted(count: u64, one: &str, many: &str) -> String {
    format!("{} {}", grouped(count), if count == 1 { one } else { many })
}

impl From<AcksArg> for Acks {
    fn from(arg: AcksArg) -> Self {
        match arg {
            AcksArg::None => Acks::None,
            AcksArg::Leader => Acks::Leader,
            AcksArg::All => Acks::All,
        }
    }
}

impl From<CompressionArg> for Compression {
    fn from(arg: CompressionArg) -> Self {
        match arg {
            CompressionArg::None => Compression::None,
            CompressionArg::Gzip => Compression::Gzip,
            CompressionArg::Snappy => Compression::Snappy,
            CompressionArg::Lz4 => Compression::Lz4,
            CompressionArg::Zstd => Compression::Zstd,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_may_name_its_protocol() {
        let target = |address: &str, proto: Option<&str>| Target {
            address: Some(address.into()),
            proto: proto.map(Into::into),
        };
        for (address, found) in [
            ("kafka://a:1", "a:1"),
            ("kafka://a:1/", "a:1"),
            ("kafka://a", "a:9092"),
            ("kafka://[::1]:1", "[::1]:1"),
            ("a:1", "a:1"),
        ] {
            for proto in [None, Some("kafka")] {
                let target = target(address, proto);
                assert_eq!(target.address(target.connector().unwrap()), found);
            }
        }
        for (address, proto) in [("kafak://a:1", None), ("redis://a:1", Some("kafka")), ("://a", None)] {
            let error = target(address, proto).connector().err().unwrap();
            assert_eq!(error.exit, Exit::Usage, "{address}");
        }
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

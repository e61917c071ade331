//! One file for each noun of the command line.

pub mod bench;
pub mod completions;
pub mod config;
pub mod dev;
pub mod doctor;
pub mod group;
pub mod message;
pub mod serve;
pub mod topic;

use std::future::Future;
use std::time::Duration;

use sabir_server::client::{Acks, Client, ClientError, Compression, Connector, Failure};
use sabir_server::config_value::nearest;

use crate::args::{AcksArg, ClientArgs, CompressionArg, Target};
use crate::failure::{CliError, Exit};

/// Runs a command's future on this thread.
fn block_on<T>(future: impl Future<Output = Result<T, CliError>>) -> Result<T, CliError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    tokio::task::LocalSet::new().block_on(&runtime, future)
}

impl Target {
    /// The client of the protocol that was asked for.
    fn connector(&self) -> Result<&'static dyn Connector, CliError> {
        let all = sabir_server::protocols();
        let Some(name) = &self.proto else {
            return Ok(all[0].connector());
        };
        let names = || all.iter().map(|p| p.name());
        all.iter().find(|p| p.name() == name).map(|p| p.connector()).ok_or_else(|| {
            let advice = match nearest(name, names()) {
                Some(near) => format!("Did you mean `{near}`?"),
                None => format!("There are: {}.", names().collect::<Vec<_>>().join(", ")),
            };
            CliError::new(Exit::Usage, format!("--proto {name}: no such protocol")).advise(advice)
        })
    }

    /// The address with a port.
    fn address(&self, connector: &dyn Connector) -> String {
        let port = connector.default_port();
        match self.address.as_deref() {
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
    fn ports_are_told_from_addresses() {
        for with in ["a:1", "127.0.0.1:9092", "[::1]:9092"] {
            assert!(has_port(with), "{with}");
        }
        for without in ["a", "127.0.0.1", "[::1]", "::1", "fe80::1:2", "a:b"] {
            assert!(!has_port(without), "{without}");
        }
    }
}

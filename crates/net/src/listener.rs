//! Bound sockets, before anything is accepted from them.

use std::io;
use std::net::{AddrParseError, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto, sockopt};

use crate::tls::Tls;

/// Connections that the system may hold until they are accepted.
const BACKLOG: i32 = 4096;

/// What a front end listens on.
#[derive(Debug, Clone)]
pub struct ListenOptions {
    /// Its configuration section: the front end's name.
    pub section: &'static str,
    /// The addresses.
    pub addresses: Vec<ListenAddress>,
    /// Whether the user allows clients without a login on addresses that other machines reach.
    pub anonymous: bool,
    /// Connections at once.
    pub max_connections: usize,
}

/// An address to be listened on.
#[derive(Debug, Clone)]
pub struct ListenAddress {
    /// Which; port 0 takes any free one.
    pub address: SocketAddr,
    /// What clients speak TLS with there; none where they do not.
    pub tls: Option<Arc<Tls>>,
}

impl ListenAddress {
    /// Whether clients reach it from other machines, and come in without being known.
    pub fn is_open(&self) -> bool {
        let is_remote = !self.address.ip().to_canonical().is_loopback();
        is_remote && !self.tls.as_ref().is_some_and(|tls| tls.knows_clients())
    }
}

impl FromStr for ListenAddress {
    type Err = AddrParseError;

    /// One without TLS.
    fn from_str(text: &str) -> Result<Self, AddrParseError> {
        text.parse().map(SocketAddr::into)
    }
}

impl From<SocketAddr> for ListenAddress {
    /// One without TLS.
    fn from(address: SocketAddr) -> Self {
        Self { address, tls: None }
    }
}

/// Why an address is not listened on.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// It would let every client in.
    #[error("{section}.listen: {}", exposure_advice(section, .address))]
    Exposed {
        /// The configuration section.
        section: &'static str,
        /// The address.
        address: SocketAddr,
    },
    /// An address is named twice.
    #[error("{section}.listen: it names {address} more than once")]
    Twice {
        /// The configuration section.
        section: &'static str,
        /// The address.
        address: SocketAddr,
    },
    /// The system refused.
    #[error("{section}.listen: cannot listen on {address}: {}", advice(.address, .source))]
    System {
        /// The configuration section.
        section: &'static str,
        /// The address.
        address: SocketAddr,
        /// What the system answered.
        source: io::Error,
    },
}

fn advice(address: &SocketAddr, error: &io::Error) -> String {
    let port = address.port();
    match error.kind() {
        io::ErrorKind::AddrInUse => format!(
            "another process listens there, or has a connection from that port (`ss -tanp sport = :{port}` names it); stop it, or choose \
             another port"
        ),
        io::ErrorKind::PermissionDenied => {
            format!("ports below 1024 need CAP_NET_BIND_SERVICE; grant it, or choose a port above {port}")
        }
        io::ErrorKind::AddrNotAvailable => {
            format!("{} is no address of this machine (`ip address` lists them)", address.ip())
        }
        _ => error.to_string(),
    }
}

/// The first address by which clients come in from other machines without being known.
pub fn exposed(addresses: &[ListenAddress]) -> Option<SocketAddr> {
    addresses.iter().find(|one| one.is_open()).map(|one| one.address)
}

/// An address that is named more than once. Port 0 is another port each time.
fn named_twice(addresses: &[ListenAddress]) -> Option<SocketAddr> {
    let before = |at: usize, address| addresses[..at].iter().any(|other| other.address == address);
    let again = |(at, address): &(usize, SocketAddr)| address.port() != 0 && before(*at, *address);
    addresses.iter().map(|one| one.address).enumerate().find(again).map(|(_, address)| address)
}

/// Why such an address is not listened on where clients need no login, and what to do about it.
pub fn exposure_advice(section: &str, address: &SocketAddr) -> String {
    format!(
        "{address} can be reached from other machines, and nobody has to log in here; listen on 127.0.0.1, or \
         by TLS with client_auth = \"required\", or set {section}.anonymous = true if all who reach it may read, write and delete \
         everything"
    )
}

/// A socket that listens.
#[derive(Debug)]
pub(crate) struct ListeningSocket {
    pub(crate) socket: std::net::TcpListener,
    pub(crate) tls: Option<Arc<Tls>>,
}

/// Sockets that listen and are not accepted from yet.
#[derive(Debug)]
pub struct Listener {
    pub(crate) section: &'static str,
    pub(crate) sockets: Vec<ListeningSocket>,
    pub(crate) max_connections: usize,
    addresses: Vec<SocketAddr>,
}

impl Listener {
    /// Binds every address.
    ///
    /// # Errors
    /// An address open to other machines without `anonymous`; what the system refuses, with what to do about it.
    pub fn bind(options: &ListenOptions) -> Result<Self, BindError> {
        let section = options.section;
        if let Some(address) = exposed(&options.addresses).filter(|_| !options.anonymous) {
            return Err(BindError::Exposed { section, address });
        }
        if let Some(address) = named_twice(&options.addresses) {
            return Err(BindError::Twice { section, address });
        }
        let mut sockets = Vec::with_capacity(options.addresses.len());
        let mut addresses = Vec::with_capacity(options.addresses.len());
        for ListenAddress { address, tls } in options.addresses.iter().cloned() {
            let bound = bind(address).and_then(|socket| Ok((socket.local_addr()?, socket)));
            let (real, socket) = bound.map_err(|source| BindError::System { section, address, source })?;
            addresses.push(real);
            sockets.push(ListeningSocket { socket, tls });
        }
        Ok(Self { section, sockets, max_connections: options.max_connections, addresses })
    }

    /// The addresses with their real ports.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// The sockets, not blocking, for a caller that accepts from them without I/O threads, and without TLS.
    pub fn into_sockets(self) -> Vec<std::net::TcpListener> {
        self.sockets.into_iter().map(|one| one.socket).collect()
    }
}

/// What this machine calls itself.
pub fn machine_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

fn bind(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, Some(ipproto::TCP))?;
    // A restart must not wait for the connections of the run before to be forgotten.
    sockopt::set_socket_reuseaddr(&socket, true)?;
    rustix::net::bind(&socket, &address).map_err(from_errno)?;
    rustix::net::listen(&socket, BACKLOG).map_err(from_errno)?;
    Ok(socket.into())
}

fn from_errno(errno: Errno) -> io::Error {
    io::Error::from_raw_os_error(errno.raw_os_error())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(address: &str, anonymous: bool) -> ListenOptions {
        let addresses = address.split(',').map(|one| one.parse().expect("an address")).collect();
        ListenOptions { section: "kafka", addresses, anonymous, max_connections: 10 }
    }

    #[test]
    fn only_loopback_is_open_to_everybody() {
        for open in ["0.0.0.0:0", "[::]:0", "192.0.2.1:9092", "[::ffff:192.0.2.1]:9092"] {
            let refused = Listener::bind(&options(open, false)).expect_err("exposed").to_string();
            assert!(refused.starts_with("kafka.listen: "), "{refused}");
            assert!(refused.contains("kafka.anonymous = true"), "{refused}");
        }
        assert!(Listener::bind(&options("0.0.0.0:0", true)).is_ok());
        let bound = Listener::bind(&options("127.0.0.1:0", false)).expect("loopback");
        assert_ne!(bound.addresses()[0].port(), 0);
    }

    #[test]
    fn errors_say_what_to_do() {
        let first = Listener::bind(&options("127.0.0.1:0", false)).expect("free");
        let taken = first.addresses()[0].to_string();
        let refused = Listener::bind(&options(&taken, false)).expect_err("taken").to_string();
        assert!(refused.contains("another process listens there"), "{refused}");
        let twice =
            Listener::bind(&options(&format!("{taken},{taken}"), false)).expect_err("twice").to_string();
        assert!(twice.contains("more than once"), "{twice}");
        let foreign = Listener::bind(&options("192.0.2.1:0", true)).expect_err("foreign").to_string();
        assert!(foreign.contains("no address of this machine"), "{foreign}");
    }
}

//! What a front end is, and what it is given to serve.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use sabir_base::metrics::Exposition;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::claim::Claim;
use crate::memory::FrameMemory;
use crate::registry::Registered;
use crate::stream::Stream;

/// A future that stays on its I/O thread.
pub type LocalBoxFuture = Pin<Box<dyn Future<Output = ()>>>;

/// A protocol that is being served.
pub trait Frontend: Send + Sync + 'static {
    /// Its short name in lower case.
    fn name(&self) -> &'static str;

    /// Serves one connection on the calling I/O thread until it ends. The future must end soon after
    /// [`Connection::closing`] is cancelled, with what is under way finished; it is dropped at the drain's deadline.
    fn serve(self: Arc<Self>, connection: Connection) -> LocalBoxFuture;

    /// Whether a connection that begins with these bytes is one of its own, where it shares an address with other front ends. Asked
    /// again with more, while it cannot tell.
    fn claims(&self, _first: &[u8]) -> Claim {
        Claim::Foreign
    }

    /// Adds its figures.
    fn metrics(&self, _out: &mut Exposition) {}
}

/// What bounds every connection.
#[derive(Debug, Clone)]
pub struct Limits {
    /// The memory that incomplete and unanswered frames of all connections share.
    pub frame_memory: FrameMemory,
    /// How long a client may take to introduce itself.
    pub handshake_timeout: Duration,
    /// How long a frame that has begun may take to arrive, beside a second for each [`Limits::SLOWEST`] bytes that have.
    pub frame_timeout: Duration,
    /// How long a client may take to read what was sent to it, beside a second for each [`Limits::SLOWEST`] bytes of it.
    pub write_timeout: Duration,
    /// How long a connection may be without a request.
    pub idle_timeout: Duration,
}

impl Limits {
    /// The slowest peer that large frames are waited for, in bytes a second.
    pub const SLOWEST: usize = 256 * 1024;

    /// How long `bytes` may take beside `timeout`.
    pub fn allowed(timeout: Duration, bytes: usize) -> Duration {
        timeout + Duration::from_secs((bytes / Self::SLOWEST) as u64)
    }
}

/// An accepted connection.
#[derive(Debug)]
pub struct Connection {
    /// The socket, without Nagle's delay.
    pub stream: Stream,
    /// When it was accepted.
    pub opened: Instant,
    /// What was read of it before it was known whose it is.
    pub prefix: Bytes,
    /// The client's address.
    pub peer: SocketAddr,
    /// The address it connected to.
    pub local: SocketAddr,
    /// Which of the front end's addresses it came by, counted from 0.
    pub listener: usize,
    /// What is served at the address it connected to, for the log.
    pub takes: Arc<str>,
    /// Its place among the node's open connections.
    pub open: Registered,
    /// What bounds it.
    pub limits: Arc<Limits>,
    /// Cancelled when the node drains: take no more requests, finish those under way, end.
    pub closing: CancellationToken,
}

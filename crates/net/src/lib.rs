//! Listeners, I/O threads, connection limits, drain, and what drives a protocol's sessions on their connections.
//!
//! [`Net`] owns the I/O threads. Each is a current-thread runtime; a connection is dealt to the one with the fewest and
//! stays there. The same threads watch what the broker's shards want to be driven by, so that a request needs no other
//! thread.
#![deny(missing_docs)]

mod admission;
mod claim;
mod connection;
mod dial;
mod driver;
mod error_pace;
mod listener;
mod memory;
mod net;
mod registry;
mod run_queue;
mod stream;
mod threads;
mod tls;
mod workers;

pub use admission::ListenerStats;
pub use claim::Claim;
pub use connection::{Connection, Frontend, Limits, LocalBoxFuture};
pub use dial::{DialTls, Dialer, Socket, Tunnel};
pub use driver::{
    Appetite, Closing, ConnectionCounters, DropReason, Ending, Input, Io, NoMemory, Output, OwnReason,
    Patience, Session, Standing, UNCOUNTED, drive,
};
pub use error_pace::ErrorPace;
pub use listener::{
    BindError, ListenAddress, ListenOptions, Listener, exposed, exposure_advice, machine_name,
};
pub use memory::{FrameMemory, Grant, MemoryPart};
pub use net::{Drained, Net, NetOptions, ServedAt, Tasks};
pub use registry::{ClientKey, ConnectionId, ConnectionView, OpenConnection, Registered, Registry};
pub use sabir_base::outbox::Seat;
pub use stream::Stream;
pub use threads::Watched;
pub use tls::{ClientAuth, Tls, TlsError, TlsOptions};
pub use workers::{Checked, Checks, JobCost, JobSize, Turn, Workers};

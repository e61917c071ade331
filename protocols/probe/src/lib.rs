//! A protocol of lines of text that nobody speaks: it shows that the broker's seams hold for a protocol that the core does not know.
//!
//! It uses what every protocol gets, and nothing else; `docs/adding-a-protocol.md` walks through it. It listens only where a user says so
//! (`probe.listen`).

mod client;
mod frontend;
mod groups;
mod http;
mod protocol;
mod records;
mod requests;
mod session;
mod state;
mod subscription;
mod wire;

pub use protocol::Probe;

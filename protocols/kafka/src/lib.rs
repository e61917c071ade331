//! Kafka's protocol: the front end that serves it, and a client of it.
//!
//! - [`wire`]: the messages.
//! - `server`: the front end.
//! - [`client`]: what the command line and the tests talk to a broker with.

pub mod client;
pub mod converter;
mod protocol;
mod server;
pub mod wire;

pub use protocol::Kafka;

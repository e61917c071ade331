//! Kafka's protocol: the front end that serves it, and a client of it.
//!
//! - [`wire`]: the messages.
//! - `session`: one connection as a machine; `connection`: what moves its bytes.
//! - `handlers`: one file per family of APIs: check, translate, one call to the broker, reply.
//! - `map`, `topic_config`, `names`: the model's words in Kafka's.

mod broker_config;
pub mod client;
mod config;
mod connection;
mod error_pace;
mod exporter;
mod fetch_session;
mod foreign;
mod frontend;
mod handlers;
mod map;
mod metrics;
mod names;
mod protocol;
mod requests;
mod topic_config;
pub mod wire;

pub use protocol::Kafka;

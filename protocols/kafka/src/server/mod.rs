//! The front end that serves Kafka's clients.
//!
//! - `requests`: one connection as a machine; `connection`: its session on a connection of `net`.
//! - `handlers`: one file per family of APIs: check, translate, one call to the broker, reply.
//! - `map`, `topic_config`, `names`: the model's words in Kafka's.

mod broker_config;
pub(crate) mod config;
mod connection;
mod exporter;
mod fetch_session;
mod foreign;
pub(crate) mod frontend;
mod handlers;
mod map;
mod metrics;
pub(crate) mod names;
mod rebuilt;
mod requests;
mod topic_config;

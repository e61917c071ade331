//! Listeners, connection limits and drain; and what a protocol's folder exports to be served, configured and used.
#![deny(missing_docs)]

pub mod client;
pub mod config;

//! What a protocol's folder exports: how it is configured, how it is served, and a client of it for the command line.
#![deny(missing_docs)]

pub mod client;
pub mod config;
mod protocol;
mod watched;

pub use protocol::{
    Configured, FrontendContext, ListenerSpec, Listening, Protocol, StartedFrontend, refuse_exposed,
};
pub use watched::watched;

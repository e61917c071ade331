//! What a protocol's folder exports: how it is configured, how it is served, and a client of it for the command line.
#![deny(missing_docs)]

pub mod client;
pub mod config;
mod deadlines;
mod parked;
mod protocol;
mod watched;

pub use deadlines::{DeadlineClock, Deadlines};
pub use parked::{GiveUp, Parked};
pub use protocol::{
    Configured, FrontendContext, ListenerSpec, Listening, Protocol, StartedFrontend, refuse_exposed,
};
pub use watched::watched;

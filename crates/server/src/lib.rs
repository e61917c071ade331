//! The server: configuration, the list of front ends, and the order in which parts start and stop.
//!
//! [`start`] runs a whole broker inside a process; [`run`] is what `sabir serve` does around it.
#![deny(missing_docs)]

mod advice;
mod allocator;
pub mod config;
pub mod doctor;
mod limits;
pub mod log;
mod memory;
mod memory_watch;
mod panics;
mod protocols;
mod run;
mod running;
mod start_watch;
mod storage;

pub use advice::{advice_on, shell_quoted};
pub use protocols::protocols;
pub use run::{RunError, run, run_while};
pub use running::{Running, ServerStartError, Serving, ServingAt, Stopped, start};
pub use storage::volatile;

pub use sabir_frontend::Protocol;
/// The client side of the protocols, as the command line uses it.
pub use sabir_frontend::client;
/// Values as a user writes them.
pub use sabir_frontend::config as config_value;

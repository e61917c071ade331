//! AMQP 0-9-1 as RabbitMQ's clients speak it.
//!
//! - [`wire`]: frames, methods, properties, field tables.
//! - [`session`]: what is legal when, and which requests a client's frames amount to.
//! - `server`: what answers them.
#![deny(missing_docs)]

mod client;
mod converter;
mod protocol;
mod server;
pub mod session;
pub mod wire;

pub use protocol::Amqp;

//! AMQP 0-9-1 as RabbitMQ's clients speak it. So far what is pure: the codec, and a connection as a state machine. Neither is
//! served yet.
//!
//! - [`wire`]: frames, methods, properties, field tables.
//! - [`session`]: what is legal when, and which requests a client's frames amount to.
#![deny(missing_docs)]

pub mod session;
pub mod wire;

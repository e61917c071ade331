//! Kafka's wire protocol: primitives, messages of every API served, headers and error codes. No I/O, no clock, no tokio.
//!
//! The messages are declared by `schema!` in one module per API; names are those of Kafka's message schemas in
//! snake case. Every message decodes and encodes, so that the same structs serve the front end and the client.

#[cfg(test)]
mod crosscheck;
#[cfg(test)]
mod golden;
#[macro_use]
mod schema;

pub mod api;
pub mod error;
pub mod header;
pub mod messages;
pub mod primitives;
#[cfg(test)]
pub(crate) mod testing;

pub use api::{ApiKey, ApiMessage, RequestMessage};
pub use error::ErrorCode;
pub use header::{RequestHeader, ResponseHeader, decode_response, encode_request, encode_response};
pub use primitives::{Encoded, Reader, RecordData, Str, Uuid, WireError, Writer};

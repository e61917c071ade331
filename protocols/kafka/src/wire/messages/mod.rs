//! The messages, one module per API. Names, versions and defaults are those of Kafka's message schemas.
#![allow(
    missing_docs,
    reason = "the fields are documented by Kafka's message schemas, whose names they bear"
)]

pub mod api_versions;
pub mod fetch;
pub mod list_offsets;
pub mod metadata;
pub mod produce;

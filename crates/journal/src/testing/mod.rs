//! A second replicator and the conformance suite both pass; for tests only.

mod late;

pub use late::{LateOptions, LateReplicator};

//! A second replicator and the conformance suite both pass; for tests only.

mod fuzz;
mod late;
mod suite;

#[cfg(test)]
pub(crate) use fuzz::frame_content;
pub use fuzz::{FUZZ_GENERATION, follow_frames, frame_contents, walk_content};
pub use late::{LateOptions, LateReplicator};
pub use suite::{Start, replicator_suite};

#[cfg(test)]
#[path = "late_tests.rs"]
mod tests;

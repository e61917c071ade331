//! The front end over a real broker, asked through sockets.
#![allow(clippy::unwrap_used, reason = "tests")]

mod admin;
mod bad_input;
mod data;
mod dear;
mod every_version;
mod exporter;
mod fetching;
mod groups;
mod hung_disk;
mod internal_topics;
mod large;
mod listeners;
mod memory;
mod panics;
mod patience;
mod placement;
mod producing;
mod rebuilt;
mod refusals;
mod rig;
mod settings;
mod timeouts;
mod topics;
mod uncommitted;
mod versions;

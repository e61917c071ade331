//! The whole of it through real sockets, with one and with three data shards.
#![allow(clippy::unwrap_used, reason = "tests")]

mod appends;
mod asks;
mod errors;
mod groups;
mod killed;
mod leases;
mod node;
mod push;
mod pushes;
mod state;
mod tool;

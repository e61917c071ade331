//! A whole node, and clients of it through real sockets.
#![allow(clippy::unwrap_used, reason = "a failure is what a test is for")]

mod bounds;
mod dead_letters;
mod delays;
mod deletion;
mod duplicates;
mod exchanges;
mod handshake;
mod limits;
mod messages;
mod node;
mod panics;
mod queues;
mod quorum;
mod rates;
mod replies;
mod rig;
mod room;
mod subscriptions;
mod tool;
mod transactions;
mod unreadable;

//! Delivery as pure machines: state, an event and the time go in, actions come out. No clock, no randomness, no I/O.
#![deny(missing_docs)]

pub mod dispatch;
pub mod group;
pub mod policy;
pub mod subscription;
pub mod timer;

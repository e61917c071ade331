//! kafka

pub mod wire;

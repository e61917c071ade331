//! Building blocks without a domain: time, checksums, varints, aligned buffers, wake-ups and metrics.
#![deny(missing_docs)]

pub mod buf;
pub mod clock;
pub mod crc;
pub mod descriptors;
pub mod drain_loop;
pub mod metrics;
pub mod node_time;
pub mod outbox;
pub mod panics;
#[cfg(feature = "testing")]
pub mod testing;
pub mod throttle;
pub mod ticker;
pub mod varint;
pub mod wake;

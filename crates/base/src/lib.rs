//! Building blocks without a domain: time, checksums, varints, aligned buffers and wake-ups.
#![deny(missing_docs)]

pub mod buf;
pub mod clock;
pub mod crc;
pub mod varint;
pub mod wake;

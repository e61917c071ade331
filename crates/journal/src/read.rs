//! Reads of committed bytes.

use bytes::Bytes;

use crate::error::ReadError;

/// Bytes asked for, or how to get them.
#[derive(Debug)]
pub enum Read {
    /// In memory.
    Hot(Bytes),
    /// On the disk only.
    Cold(ColdRead),
}

/// A read that waits for the disk. It pins its segment until dropped.
#[derive(Debug)]
pub struct ColdRead;

impl ColdRead {
    /// Reads the bytes, and some after them for the next reader. Blocking: to be called where that stalls nobody.
    ///
    /// # Errors
    /// [`ReadError::Disk`]. The bytes are not verified: they have a checksum of their own.
    pub fn run(self) -> Result<Bytes, ReadError> {
        unimplemented!()
    }
}

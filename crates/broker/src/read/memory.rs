//! Memory for what is read.
//!
//! A batch is small enough for its reader to have it beside all else, or it holds memory of the node's from before it is read until the last slice
//! of it is let go of. A reader for which there is none waits, and has nothing meanwhile that another one waits for.

use std::fmt::Debug;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};

use bytes::{Bytes, BytesMut};

/// Bytes of a batch that a reader has beside all else.
pub(crate) const UNHELD: usize = 64 << 10;

/// Memory that a reader has, given back when dropped.
pub trait ReadGrant: Send + Sync + Debug {
    /// Takes so many bytes of it apart, or all that there are.
    fn split_off(&mut self, bytes: usize) -> Box<dyn ReadGrant>;
}

/// Memory, or the wait for it; none is given where the node is gone that has it.
pub enum ReadHold {
    /// There was some.
    Now(Box<dyn ReadGrant>),
    /// Others have it.
    Later(Pin<Box<dyn Future<Output = Granted> + Send>>),
}

/// Memory that was given, if it was.
pub type Granted = Option<Box<dyn ReadGrant>>;

/// The node's memory for large batches.
pub trait ReadMemory: Send + Sync + Debug {
    /// Memory for so many bytes, in the order of asking. One batch can be read always, however large: who holds some waits for nothing but its
    /// client.
    fn hold(&self, bytes: usize) -> ReadHold;

    /// Counts what the node reads for itself, and does not wait with.
    fn count(&self, bytes: usize) -> Box<dyn ReadGrant>;
}

/// The memory that a shard's reads hold; none where nothing bounds them.
pub(crate) type ReadMemoryOf = OnceLock<Arc<dyn ReadMemory>>;

/// Waits for memory; `before` is called where it must.
pub(crate) async fn hold(
    memory: &dyn ReadMemory,
    bytes: usize,
    before: impl FnOnce(),
) -> Option<Box<dyn ReadGrant>> {
    match memory.hold(bytes) {
        ReadHold::Now(grant) => Some(grant),
        ReadHold::Later(later) => {
            before();
            later.await
        }
    }
}

/// Bytes that hold memory for as long as any slice of them is kept.
pub fn held(bytes: impl Into<Bytes>, grant: Box<dyn ReadGrant>) -> Bytes {
    Bytes::from_owner(Held { bytes: bytes.into(), _grant: grant })
}

struct Held {
    // Before its grant: fields are dropped in their order.
    bytes: Bytes,
    _grant: Box<dyn ReadGrant>,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// The bytes to be changed: as they are, where no other slice of them is kept.
pub(crate) fn own(bytes: Bytes) -> BytesMut {
    bytes.try_into_mut().unwrap_or_else(|shared| BytesMut::from(&shared[..]))
}

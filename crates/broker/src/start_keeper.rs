//! What is done by time while a broker starts, before its housekeeper does it: an entry of the start may find the disk full.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use sabir_base::ticker::Ticker;
use sabir_journal::StartProgress;
use tracing::warn;

use crate::disk_watch::ToldFull;
use crate::shard::Shard;

/// How often it is looked at the shards.
const TICK: Duration = Duration::from_millis(50);

/// Has what found no space tried again, and says that the disk is full, until it is dropped.
pub(crate) struct StartKeeper {
    ticker: Option<Ticker>,
    watched: Arc<Mutex<Watched>>,
}

struct Watched {
    shards: Vec<(Arc<Shard>, ToldFull)>,
    progress: Arc<StartProgress>,
    /// What the replicators' time counts from.
    began: Instant,
}

impl StartKeeper {
    /// Begins with shards that are open. `began` is what the replicators' time counts from.
    pub(crate) fn begin(
        shards: &[Arc<Shard>],
        progress: Arc<StartProgress>,
        began: Instant,
    ) -> std::io::Result<Self> {
        let shards = shards.iter().map(|shard| (shard.clone(), ToldFull::default())).collect();
        let watched = Arc::new(Mutex::new(Watched { shards, progress, began }));
        let ticked = watched.clone();
        let ticker = Ticker::begin("start-keeper", TICK, move || ticked.lock().keep())?;
        Ok(Self { ticker: Some(ticker), watched })
    }
}

impl Drop for StartKeeper {
    fn drop(&mut self) {
        self.ticker = None;
        // What waited may have been written just now.
        let Watched { shards, progress, .. } = &mut *self.watched.lock();
        shards.iter_mut().for_each(|(shard, told)| told.look_last(shard));
        progress.set_full(false);
    }
}

impl Watched {
    /// Looks at each shard once. One that lacks nothing is left alone.
    fn keep(&mut self) {
        let mut full = false;
        for (shard, told) in &mut self.shards {
            if !shard.is_stopped() && shard.journal.shortage().is_some() {
                full = true;
                shard.look_at_space();
                shard.contain("try a write again", || {
                    shard.replicator.tick(self.began.elapsed().as_millis() as u64);
                    // It gives the write what is kept of segments without records.
                    if let Err(error) = shard.journal.prepare() {
                        warn!(shard = %shard.id, %error, "a segment could not be made ready");
                    }
                });
            }
            told.look(shard);
        }
        self.progress.set_full(full);
    }
}

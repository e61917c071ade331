//! What only a shard's leader does, by time, for a front end's projection.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use sabir_broker::projection::{Leading, View};
use sabir_broker::{Broker, Caller, ProjectionEntry};
use sabir_model::{FrontendNo, ShardId, Term};
use sabir_net::Tasks;
use tokio::sync::Notify;

/// How long it waits before it tries again what the shard did not take.
const AGAIN: Duration = Duration::from_millis(200);

/// The deadlines that a projection keeps, such as those of leases.
#[derive(Clone, Copy)]
pub struct Deadlines {
    /// The projection's name.
    pub projection: &'static str,
    /// The front end's own caller.
    pub caller: &'static Caller,
    /// When the next one comes, in milliseconds by the node's time; none if none does. It is asked after each that came and each change.
    pub next: fn(&View<'_>, FrontendNo) -> Option<i64>,
    /// The command by which `apply` does what is due by its block's time.
    pub due: fn() -> Bytes,
}

/// Has a projection of one shard told by an entry when a deadline of its has come, for as long as this node leads the shard. It decides nothing: `apply` does.
pub struct DeadlineClock {
    deadlines: Deadlines,
    broker: Broker,
    tasks: Tasks,
    shard: ShardId,
    /// The term in which this node leads the shard.
    led: Mutex<Option<Term>>,
    changed: Notify,
}

impl DeadlineClock {
    /// One of a shard; it runs for as long as it is kept.
    pub fn start(broker: &Broker, tasks: &Tasks, shard: ShardId, deadlines: Deadlines) -> Arc<Self> {
        let (led, changed) = Default::default();
        let (broker, tasks) = (broker.clone(), tasks.clone());
        let clock = Arc::new(Self { deadlines, broker, tasks, shard, led, changed });
        let leading: Arc<dyn Leading> = clock.clone();
        clock.broker.lead_with(shard, &leading);
        clock
    }

    /// There may be an earlier deadline than before.
    pub fn look_again(&self) {
        self.changed.notify_one();
    }

    async fn run(self: Arc<Self>, term: Term) {
        while *self.led.lock() == Some(term) {
            match self.next().map(|at| at - self.broker.now_ms()) {
                None => self.changed.notified().await,
                Some(ms) if ms > 0 => {
                    let left = Duration::from_millis(ms.unsigned_abs());
                    // Told of a change, or in time: both lead to another look.
                    let _ = tokio::time::timeout(left, self.changed.notified()).await;
                }
                Some(_) if self.tell().await => {}
                Some(_) => tokio::time::sleep(AGAIN).await,
            }
        }
    }

    fn next(&self) -> Option<i64> {
        let Deadlines { projection, caller, next, .. } = self.deadlines;
        let number = self.broker.projection(projection).ok()?;
        self.broker.look(caller, self.shard, |view| next(view, number)).ok()?
    }

    /// Whether what is due was done.
    async fn tell(&self) -> bool {
        let Deadlines { projection, caller, due, .. } = self.deadlines;
        let Ok(number) = self.broker.projection(projection) else { return false };
        // By the space kept in reserve, as acknowledgements go on where the disk is full.
        let entry = ProjectionEntry { makes_space: true, ..ProjectionEntry::new(due()) };
        let written = self.broker.write(caller, self.shard, number, &entry);
        self.broker.flush();
        match written {
            Ok((_, reply)) => reply.await.is_ok(),
            Err(_) => false,
        }
    }
}

impl Leading for DeadlineClock {
    fn led(self: Arc<Self>, term: Term) {
        // It may be told of one term more than once.
        if self.led.lock().replace(term) == Some(term) {
            return;
        }
        // One of an earlier term sees that it is over.
        self.changed.notify_one();
        let clock = self.clone();
        self.tasks.spawn(self.deadlines.projection, move || clock.run(term));
    }

    fn laid_down(self: Arc<Self>) {
        *self.led.lock() = None;
        self.changed.notify_one();
    }
}

//! What only a shard's leader does: it has leases end that are over, by an entry.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use sabir_broker::projection::Leading;
use sabir_broker::{Broker, ProjectionEntry};
use sabir_model::{ShardId, Term};
use sabir_net::Tasks;
use tokio::sync::Notify;

use crate::frontend::CALLER;
use crate::protocol::NAME;
use crate::state::{State, command};

/// How long it waits before it tries again what the shard did not take.
const AGAIN: Duration = Duration::from_millis(200);

/// The deadlines of a shard's leases.
pub(crate) struct LeaseClock {
    broker: Broker,
    tasks: Tasks,
    shard: ShardId,
    /// The term in which this node leads the shard.
    led: Mutex<Option<Term>>,
    changed: Notify,
}

impl LeaseClock {
    pub(crate) fn start(broker: &Broker, tasks: &Tasks, shard: ShardId) -> Arc<Self> {
        let (led, changed) = Default::default();
        let clock = Arc::new(Self { broker: broker.clone(), tasks: tasks.clone(), shard, led, changed });
        let leading: Arc<dyn Leading> = clock.clone();
        broker.lead_with(shard, &leading);
        clock
    }

    /// There may be an earlier deadline than before.
    pub(crate) fn look_again(&self) {
        self.changed.notify_one();
    }

    async fn run(self: Arc<Self>, term: Term) {
        while *self.led.lock() == Some(term) {
            let left_ms = self.next_deadline().map(|at| at - self.broker.now_ms());
            match left_ms {
                None => self.changed.notified().await,
                Some(ms) if ms > 0 => {
                    let left = Duration::from_millis(ms.unsigned_abs());
                    // Told of a change, or in time: both lead to another look.
                    let _ = tokio::time::timeout(left, self.changed.notified()).await;
                }
                Some(_) => self.expire().await,
            }
        }
    }

    fn next_deadline(&self) -> Option<i64> {
        let number = self.broker.projection(NAME).ok()?;
        let look =
            |view: &sabir_broker::projection::View<'_>| view.projection::<State>(number)?.next_deadline();
        self.broker.look(&CALLER, self.shard, look).ok()?
    }

    async fn expire(&self) {
        let Ok(number) = self.broker.projection(NAME) else { return };
        let written =
            self.broker.write(&CALLER, self.shard, number, &ProjectionEntry::new(command("expire")));
        self.broker.flush();
        let done = match written {
            Ok((_, reply)) => reply.await.is_ok(),
            Err(_) => false,
        };
        if !done {
            tokio::time::sleep(AGAIN).await;
        }
    }
}

impl Leading for LeaseClock {
    fn led(self: Arc<Self>, term: Term) {
        // It may be told of one term more than once.
        if self.led.lock().replace(term) == Some(term) {
            return;
        }
        // One of an earlier term sees that it is over.
        self.changed.notify_one();
        let clock = self.clone();
        self.tasks.spawn("probe leases", move || clock.run(term));
    }

    fn laid_down(self: Arc<Self>) {
        *self.led.lock() = None;
        self.changed.notify_one();
    }
}

//! The thread that fires timers.

use std::sync::Arc;
use std::time::Duration;

use sabir_base::clock::Clock;
use sabir_base::node_time::NodeClock;

use super::alarm::Alarm;
use super::firing::Firing;
use crate::converter::Converter;
use crate::definitions::Definitions;
use crate::exchange::{Exchanges, RouteScratch};
use crate::shard::{Leading, Shard};

/// Routes that are remembered.
const ROUTES: usize = 4096;
/// The longest sleep while there are timers: the node's time may have been put right meanwhile.
const MOST_SLEEP_MS: u64 = 1000;

/// Fires the timers of all shards that are led here.
pub(crate) struct TimerDriver {
    pub(super) shards: Vec<Arc<Shard>>,
    pub(super) definitions: Arc<Definitions>,
    pub(super) exchanges: Exchanges,
    pub(super) converters: Vec<Converter>,
    pub(super) clock: Arc<NodeClock>,
    alarm: Arc<Alarm>,
}

impl TimerDriver {
    pub(crate) fn new(
        shards: Vec<Arc<Shard>>,
        definitions: Arc<Definitions>,
        exchanges: Exchanges,
        converters: Vec<Converter>,
        clock: Arc<NodeClock>,
    ) -> Arc<Self> {
        let alarm = Arc::new(Alarm::default());
        for shard in &shards {
            shard.timers.connect(&alarm);
            let leading: Arc<dyn Leading> = shard.timers.clone();
            shard.lead_with(Arc::downgrade(&leading));
        }
        Arc::new(Self { shards, definitions, exchanges, converters, clock, alarm })
    }

    /// What wakes the thread.
    pub(crate) fn alarm(&self) -> &Arc<Alarm> {
        &self.alarm
    }

    /// Fires timers until it is time to end.
    pub(crate) fn run(&self, has_ended: impl Fn() -> bool) {
        let mut firings: Vec<Firing> = self.shards.iter().map(|_| Firing::default()).collect();
        let mut scratch = RouteScratch::new(ROUTES);
        while !has_ended() {
            let mut next: Option<i64> = None;
            for (shard, firing) in self.shards.iter().zip(&mut firings) {
                let mut at = None;
                shard.contain("fire timers", || at = self.fire(shard, firing, &mut scratch));
                next = next.into_iter().chain(at).min();
            }
            self.alarm.wait(next.map(|next| self.until(next)));
        }
    }

    fn until(&self, due_ms: i64) -> Duration {
        let left = due_ms.saturating_sub(self.clock.now_ms()).max(0).unsigned_abs();
        Duration::from_millis(left.min(MOST_SLEEP_MS))
    }
}

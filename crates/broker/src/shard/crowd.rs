//! Idempotent producers in bounded number. A producer that names an id is remembered, and ids cost nothing to make up.
//!
//! The leader proposes which are forgotten, and the entry names them: so every replica and every replay forgets the same ones, whatever
//! the bounds are by then.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

use rustc_hash::FxHashMap;
use sabir_base::throttle::LogThrottle;
use sabir_base::wake::WakeBatch;
use sabir_journal::Priority;
use sabir_model::{PartitionId, ProducerId, ShardFailure};
use tracing::warn;

use super::Shard;
use crate::answer::Waiter;
use crate::entry::ProducersExpired;
use crate::state::Producers;

/// Producers named by one entry.
const PORTION: usize = 4096;
/// How often it is logged that some were forgotten.
const TELL: Duration = Duration::from_secs(60);

/// What the shard knows of its last look.
#[derive(Debug)]
pub(super) struct Crowd {
    /// Producers met by then.
    looked: AtomicU64,
    /// Whether what it proposed is not applied yet.
    proposed: Arc<AtomicBool>,
    throttle: LogThrottle,
}

impl Default for Crowd {
    fn default() -> Self {
        Self { looked: AtomicU64::default(), proposed: Arc::default(), throttle: LogThrottle::new(TELL) }
    }
}

impl Shard {
    /// Proposes to forget producers of partitions that have more than `most`, and `excess` of the shard's in any case, from where there
    /// are most. Costs next to nothing where no producer is new.
    pub(crate) fn thin_out_producers(&self, most: usize, excess: usize) {
        if self.applies.crowd.proposed.load(SeqCst) {
            return;
        }
        let victims = {
            let state = self.state.read();
            let producers = &state.partitions.producers;
            let met = producers.met;
            if self.applies.crowd.looked.swap(met, SeqCst) == met && excess == 0 {
                return;
            }
            let quotas = quotas(producers, most, excess);
            let of = |(id, count): (&PartitionId, &usize)| (*id, producers.least_missed(*id, *count));
            quotas.iter().map(of).collect::<Vec<_>>()
        };
        self.forget(
            victims.into_iter().flat_map(|(id, all)| all.into_iter().map(move |one| (id, one))).collect(),
        );
    }

    fn forget(&self, victims: Vec<(PartitionId, (ProducerId, i64))>) {
        if victims.is_empty() {
            return;
        }
        self.applies.crowd.proposed.store(true, SeqCst);
        let portions = victims.chunks(PORTION);
        let last = portions.len() - 1;
        for (at, portion) in portions.enumerate() {
            // One that has a batch in a later block meanwhile stays.
            let idle_since = portion.iter().map(|(_, (_, last_ms))| *last_ms).max().unwrap_or(i64::MIN);
            let producers =
                portion.iter().map(|(partition, (producer, _))| (*partition, *producer)).collect();
            let proposed = self.applies.crowd.proposed.clone();
            let done =
                move |_: Result<(), ShardFailure>, _: &mut WakeBatch| proposed.store(at != last, SeqCst);
            self.propose(Priority::Reserve, &ProducersExpired { idle_since, producers }, Waiter::then(done));
        }
        self.submit();
        self.meters.crowded_out.add(victims.len());
        if self.applies.crowd.throttle.allows(Instant::now()) {
            let (shard, forgotten, known) =
                (self.id, victims.len(), self.state.read().partitions.producers.len());
            warn!(%shard, forgotten, known, "too many idempotent producers: those that came once, or not for longest, are forgotten");
        }
    }

    /// Producers that are remembered, in all partitions.
    pub(crate) fn producers(&self) -> usize {
        self.state.read().partitions.producers.len()
    }
}

/// How many each partition is to forget: a tenth more than it must, so that it is not looked at again for each that comes.
fn quotas(producers: &Producers, most: usize, excess: usize) -> FxHashMap<PartitionId, usize> {
    let beyond = |count: usize| if count > most { count - most + most / 10 } else { 0 };
    let mut left: Vec<(usize, PartitionId)> = Vec::new();
    let mut quotas = FxHashMap::default();
    for (id, count) in producers.counts() {
        let goes = beyond(count).min(count);
        if goes > 0 {
            quotas.insert(id, goes);
        }
        left.push((count - goes, id));
    }
    let mut excess = excess.saturating_sub(quotas.values().sum());
    left.sort_unstable_by(|a, b| b.cmp(a));
    for (count, id) in left {
        if excess == 0 {
            break;
        }
        // From the largest a half at most, then from the next.
        let goes = count.div_ceil(2).min(excess);
        *quotas.entry(id).or_default() += goes;
        excess -= goes;
    }
    quotas
}

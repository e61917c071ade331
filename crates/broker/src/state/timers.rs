//! The projection of timers: which messages are kept back or parked, and until when.
//!
//! A timer is set where a message is appended to a queue that delays, and fires with an entry that the leader proposes, which publishes the message
//! where it goes and settles it in its queue. One is set, too, where a message comes back that is parked; the entry makes it ready again. So it fires
//! once, whatever is lost with a node.

use std::collections::BTreeMap;
use std::ops::Range;

use sabir_delivery::subscription::SubscriptionNo;
use sabir_delivery::timer::{RunSink, TimerKey, TimerTarget, Timers};
use sabir_journal::pages::{PageDecodeError, PageError, PageKey, PageStore, PageValue, Paged};
use sabir_model::PartitionId;

use super::subscriptions::{ParkedMessages, SubscriptionTable};
use super::{Partitions, StoredMaps, partition_of, prefixes, subscription_of};
use crate::entry::DueMessage;
use crate::partition::{Spill, SpillKey};
use crate::projection::{Dump, PageMap, Projection};

/// Timers in memory; the later half of more go out. It is part of what is stored.
const MOST: usize = 16_384;

/// There is one row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct SingleRow;

impl PageKey for SingleRow {
    fn encode(&self, out: &mut Vec<u8>) {
        out.push(0);
    }

    fn decode(bytes: &[u8]) -> Result<Self, PageDecodeError> {
        if bytes == [0] { Ok(Self) } else { Err(PageDecodeError("there is one row of timers".into())) }
    }
}

#[derive(Debug)]
struct StoredTimers(Timers);

impl PageValue for StoredTimers {
    fn encode(&self, out: &mut Vec<u8>) {
        self.0.encode(out);
    }

    fn decode(bytes: &[u8]) -> Result<Self, PageDecodeError> {
        Timers::decode(bytes).map(Self).map_err(|error| PageDecodeError(error.to_string()))
    }
}

/// The timers of a shard.
#[derive(Debug)]
pub(crate) struct TimerTable {
    row: Paged<SingleRow, StoredTimers>,
    /// Pages of runs that the page store does not have yet, or need not keep.
    spill: Spill,
    /// The earliest moment for which the block applied last set a timer.
    pub(crate) set_ms: Option<i64>,
}

impl Default for TimerTable {
    fn default() -> Self {
        Self::of(Paged::new(prefixes::TIMERS))
    }
}

/// Keeps the pages of runs. It is told of a run that goes before the run is forgotten, and so knows how many pages it has.
struct Pages<'a> {
    spill: &'a mut Spill,
    dropped: Vec<u64>,
}

impl RunSink for Pages<'_> {
    fn write(&mut self, run: u64, page: u32, stored: Vec<u8>) {
        self.spill.put(SpillKey::timers(run, page), stored);
    }

    fn drop_run(&mut self, run: u64) {
        self.dropped.push(run);
    }
}

impl TimerTable {
    fn of(row: Paged<SingleRow, StoredTimers>) -> Self {
        Self { row, spill: Spill::default(), set_ms: None }
    }

    /// As the last checkpoint left it.
    pub(super) fn restore(stored: &StoredMaps<'_>) -> Result<Self, PageError> {
        Ok(Self::of(stored.restore(prefixes::TIMERS)?))
    }

    /// Whether there never was one.
    pub(super) fn is_empty(&self) -> bool {
        self.row.is_empty()
    }

    /// The timers, if any were ever set.
    pub(crate) fn timers(&self) -> Option<&Timers> {
        self.row.get(&SingleRow).map(|stored| &stored.0)
    }

    /// A page of a run, if the page store may not have it yet.
    pub(crate) fn page_in_memory(&self, run: u64, page: u32) -> Option<bytes::Bytes> {
        self.spill.get(&SpillKey::timers(run, page))
    }

    /// The key of a page in the page store.
    pub(crate) fn page_key(run: u64, page: u32) -> Vec<u8> {
        SpillKey::timers(run, page).stored()
    }

    /// A block begins.
    pub(super) fn begin_block(&mut self) {
        self.set_ms = None;
    }

    /// A message is kept back until a moment; it has fired so often.
    pub(super) fn keep_back(&mut self, queue: PartitionId, offset: u64, due_ms: i64, fired: u32) {
        let subscription = subscription_of(queue);
        let target = match fired {
            0 => TimerTarget::Message { subscription, offset },
            fired => TimerTarget::Repeated { subscription, offset, fired },
        };
        self.set(target, due_ms);
    }

    /// Messages are parked.
    pub(super) fn park(&mut self, parked: &ParkedMessages) {
        let DueMessage { subscription, offset: first, resets, attempts } = parked.first;
        for offset in first..first + parked.count {
            self.set(TimerTarget::Parked { subscription, offset, resets, attempts }, parked.until_ms);
        }
    }

    fn set(&mut self, target: TimerTarget, due_ms: i64) {
        let mut pages = Pages { spill: &mut self.spill, dropped: Vec::new() };
        let timers = self.row.get_or_insert_with(SingleRow, || StoredTimers(Timers::new(MOST)));
        let key = timers.0.set(due_ms, target, &mut pages);
        self.set_ms = Some(self.set_ms.map_or(key.due_ms, |earliest| earliest.min(key.due_ms)));
    }

    /// Messages that were kept back are settled before their time: ranges, ascending. What has no timer in memory fires in vain.
    fn recall(&mut self, queue: SubscriptionNo, settled: &[Range<u64>]) {
        let Some(timers) = self.row.get_mut(&SingleRow) else { return };
        let is_settled = |offset: u64| {
            let at = settled.partition_point(|messages| messages.end <= offset);
            settled.get(at).is_some_and(|messages| messages.contains(&offset))
        };
        timers.0.recall_in_memory(|target| match target {
            TimerTarget::Message { subscription, offset }
            | TimerTarget::Repeated { subscription, offset, .. } => {
                *subscription == queue && is_settled(*offset)
            }
            TimerTarget::Parked { .. } | TimerTarget::Kept(_) => false,
        });
    }

    /// All timers up to a key have fired, but for those that were set since this was proposed. Tells whether it took effect.
    pub(super) fn fire(&mut self, through: TimerKey, below: u64) -> bool {
        let Some(timers) = self.row.get_mut(&SingleRow) else { return false };
        let pages_of: Vec<(u64, usize)> =
            timers.0.runs().iter().map(|run| (run.number, run.pages.len())).collect();
        let mut pages = Pages { spill: &mut self.spill, dropped: Vec::new() };
        let fired = timers.0.fire(through, below, &mut pages);
        let dropped = pages.dropped;
        for (run, pages) in pages_of.into_iter().filter(|(run, _)| dropped.contains(run)) {
            (0..pages as u32).for_each(|page| self.spill.remove(SpillKey::timers(run, page)));
        }
        fired
    }

    fn page(&self, key: &SpillKey, pages: &dyn PageStore) -> Result<Vec<u8>, PageError> {
        if let Some(page) = self.spill.get(key) {
            return Ok(page.to_vec());
        }
        let missing = || PageError::Undecodable { key: key.stored(), detail: "the page is missing".into() };
        pages.get(&key.stored())?.ok_or_else(missing)
    }
}

/// What an entry of deliveries settled of queues that keep messages back has no timers any more.
pub(super) fn recall_settled(
    timers: &mut TimerTable,
    partitions: &Partitions,
    subscriptions: &SubscriptionTable,
) {
    if timers.is_empty() {
        return;
    }
    let delays = |queue: SubscriptionNo| {
        let partition = partitions.partition(partition_of(queue));
        partition.and_then(|partition| partition.settings.queue.as_ref()).is_some_and(|queue| queue.delays)
    };
    let mut settled: BTreeMap<SubscriptionNo, Vec<Range<u64>>> = BTreeMap::new();
    for (queue, messages) in subscriptions.settled_by_entry() {
        match settled.get_mut(&queue) {
            Some(all) => all.push(messages),
            None if delays(queue) => drop(settled.insert(queue, vec![messages])),
            None => {}
        }
    }
    for (queue, mut messages) in settled {
        messages.sort_unstable_by_key(|messages| messages.start);
        timers.recall(queue, &messages);
    }
}

impl Projection for TimerTable {
    fn maps(&mut self) -> Vec<&mut dyn PageMap> {
        vec![&mut self.row, &mut self.spill]
    }

    fn dump(&mut self, pages: &dyn PageStore) -> Result<Dump, PageError> {
        let mut dump = self.row.dump();
        let runs = self.timers().map(|timers| timers.runs().to_vec()).unwrap_or_default();
        for run in runs {
            for page in 0..run.pages.len() as u32 {
                let key = SpillKey::timers(run.number, page);
                dump.push((key.stored(), self.page(&key, pages)?));
            }
        }
        Ok(dump)
    }
}

//! A shard: one journal, the projections over it, and what waits for either.
//!
//! ```text
//!  any thread            the thread in the loop             the thread that sees a completion
//!  ──────────            ───────────────────────           ─────────────────────────
//!  append ─► open block ─► submit: close, Replicator::append ─► drive: advance, poll, apply ─► answers
//!             (lock)         (lock, for taking only)                        (lock)
//! ```
//!
//! The open block and the projections have a lock each; no thread ever holds both.

mod append_path;
mod apply_path;
mod checkpoint;
mod commit;
mod crowd;
mod dead_segments;
mod drive;
mod late;
mod leadership;
mod open;
mod panic;
mod poller;
mod read_path;
mod recover;
mod signal;
mod submit;
mod tables;

pub(crate) use recover::{OpenError, Parts, Settings};

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed, Ordering::SeqCst};
use std::time::Duration;

use parking_lot::RwLock;
use sabir_base::clock::Clock;
use sabir_base::wake::WakeBatch;
use sabir_journal::disk::Disk;
use sabir_journal::pages::PageStore;
use sabir_journal::{Journal, LARGEST_ENTRY, Priority, Replicator};
use sabir_model::{Durability, FrontendNo, Sequence, ShardFailure, ShardId};

use crate::answer::{Answer, AppendCall, Waiter};
use crate::append::Append;
use crate::dead_letter::ShardDeadLetters;
use crate::disk_watch::FreeSpace;
use crate::entry::Body;
use crate::front_ends::{EntryRefused, ProjectionEntry};
use crate::group::{GroupShard, GroupTable, GroupWaiter, makes_space};
use crate::level::FormatLevel;
use crate::publish::{Publish, PublishCall};
use crate::queue::ShardQueues;
use crate::state::ShardState;
use crate::stats::{DelayedStats, ShardMeters, ShardStats};
use crate::timer::ShardTimers;
use append_path::AppendPath;
use apply_path::ApplyPath;
use dead_segments::DelayedSurvey;
pub use leadership::Leading;
use open::Entry;
use read_path::ReadPath;

/// A shard of this node.
pub(crate) struct Shard {
    pub(crate) id: ShardId,
    pub(crate) journal: Arc<Journal>,
    pub(crate) replicator: Arc<dyn Replicator>,
    pub(crate) pages: Arc<dyn PageStore>,
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) free: FreeSpace,
    clock: Arc<dyn Clock>,
    pub(crate) settings: Settings,
    /// Whether the last run ended in order.
    clean_start: bool,
    appends: AppendPath,
    applies: ApplyPath,
    pub(crate) reads: ReadPath,
    /// The projections: the apply path changes them, and reads look into them.
    pub(crate) state: RwLock<ShardState>,
    /// The leader of the queues that it has.
    pub(crate) queues: Arc<ShardQueues>,
    /// Its timers, as their leader has them.
    pub(crate) timers: Arc<ShardTimers>,
    /// Its dead letters, as their leader has them.
    pub(crate) dead_letters: Arc<ShardDeadLetters>,
    stopped: AtomicBool,
    pub(crate) meters: ShardMeters,
}

impl Shard {
    /// Why entries of this priority are not taken now.
    fn refuses(&self, priority: Priority) -> Option<ShardFailure> {
        if self.stopped.load(SeqCst) {
            Some(ShardFailure::StorageError)
        } else if !self.replicator.is_leader() {
            Some(ShardFailure::NotLeader)
        } else if !self.replicator.admits(priority) || self.holds_back(priority) {
            Some(ShardFailure::StorageFull)
        } else {
            None
        }
    }

    fn holds_back(&self, priority: Priority) -> bool {
        priority == Priority::Commit
            && self.applies.commit_room.load(Relaxed) <= 0
            && (self.applies.lacks_room.load(Relaxed) || !self.replicator.admits(Priority::Ordinary))
    }

    /// Counts what is taken of the room for commits.
    fn count_commit(&self, priority: Priority, bytes: usize) {
        if priority == Priority::Commit {
            self.applies.commit_room.fetch_sub(i64::try_from(bytes).unwrap_or(i64::MAX), Relaxed);
        }
    }

    /// Whether its disk has no space for ordinary entries.
    pub(crate) fn is_full(&self) -> bool {
        self.refuses(Priority::Ordinary) == Some(ShardFailure::StorageFull)
    }

    /// Copies batches into the open block, in order; they are the items of `call` from `slot` on.
    pub(crate) fn append(&self, items: &[Append], call: &Arc<AppendCall>, mut slot: u32) {
        let refused = self.refuses(Priority::Ordinary);
        let _guard = self.guard("append");
        let mut open = self.appends.open.lock();
        if let Some(error) = refused.or(open.refused) {
            drop(open);
            return call.refuse(slot, items, error.into());
        }
        // Under the lock, so that stamps are in the order of the records.
        let now_ms = self.clock.now_ms();
        for item in items {
            open.append(item, now_ms, self.settings.durability, call.clone(), slot);
            slot += 1;
        }
        let full = open.has_full();
        self.appends.waiting.store(open.waiting(), SeqCst);
        drop(open);
        if full {
            self.submit();
        }
    }

    /// Copies the batches of a publish into the open block, in order, each once for every group of targets that is in this shard.
    pub(crate) fn publish(&self, publish: &Publish, call: &Arc<PublishCall>) {
        let refused = self.refuses(Priority::Ordinary);
        let _guard = self.guard("publish");
        let mut open = self.appends.open.lock();
        if let Some(error) = refused.or(open.refused) {
            drop(open);
            return publish.refuse(self.id, call, error.into());
        }
        let times = (self.clock.now_ms(), self.settings.durability);
        let origin = (publish.targets.origin(), publish.partial);
        for (waiter, group, batch) in publish.entries(self.id, call) {
            open.publish(group, origin, batch, times, Waiter::Publish(Box::new(waiter)));
        }
        let full = open.has_full();
        self.appends.waiting.store(open.waiting(), SeqCst);
        drop(open);
        if full {
            self.submit();
        }
    }

    /// Pushes an entry without a payload. An error gives the waiter back; it is [`ShardFailure::Timeout`] where as many bytes of such changes
    /// wait as may: a client that asks for them need not wait for one before it asks for the next.
    pub(crate) fn push(
        &self,
        priority: Priority,
        kind: u16,
        body: &[u8],
        waiter: Option<Waiter>,
    ) -> Result<(), (ShardFailure, Option<Waiter>)> {
        self.push_with(priority, kind, (body, None), waiter)
    }

    /// The same of an entry that may have a payload.
    pub(crate) fn push_with(
        &self,
        priority: Priority,
        kind: u16,
        (body, payload): (&[u8], Option<&[u8]>),
        waiter: Option<Waiter>,
    ) -> Result<(), (ShardFailure, Option<Waiter>)> {
        let bytes = body.len() + payload.map_or(0, <[u8]>::len);
        if let Some(error) = self.refuses(priority).or_else(|| too_large(kind, bytes)) {
            return Err((error, waiter));
        }
        let _guard = self.guard("push an entry");
        let mut open = self.appends.open.lock();
        if let Some(error) = open.refused {
            return Err((error, waiter));
        }
        if open.is_crowded(bytes, 1, self.settings.open_bytes_max) {
            return Err((ShardFailure::Timeout, waiter));
        }
        let durability = Durability::Sync;
        open.push_change(&Entry { kind, body, payload, group: 0, durability, priority }, waiter);
        self.appends.waiting.store(open.waiting(), SeqCst);
        self.count_commit(priority, bytes);
        Ok(())
    }

    /// Pushes entries, each with its kind, with none between them: all or, with an error, none.
    pub(crate) fn push_together(
        &self,
        priority: Priority,
        entries: Vec<(u16, Vec<u8>, Waiter)>,
    ) -> Result<(), ShardFailure> {
        let too_large = || entries.iter().find_map(|(kind, body, _)| too_large(*kind, body.len()));
        if let Some(error) = self.refuses(priority).or_else(too_large) {
            return Err(error);
        }
        let _guard = self.guard("push entries");
        let mut open = self.appends.open.lock();
        if let Some(error) = open.refused {
            return Err(error);
        }
        let bodies = entries.iter().map(|(_, body, _)| body.len()).sum();
        if open.is_crowded(bodies, entries.len(), self.settings.open_bytes_max) {
            return Err(ShardFailure::Timeout);
        }
        self.count_commit(priority, bodies);
        let durability = Durability::Sync;
        for (kind, body, waiter) in entries {
            let entry = Entry { kind, body: &body, payload: None, group: 0, durability, priority };
            open.push_change(&entry, Some(waiter));
        }
        self.appends.waiting.store(open.waiting(), SeqCst);
        Ok(())
    }

    /// Pushes an entry of a front end's projection, of that number and name.
    pub(crate) fn write(
        &self,
        projection: (FrontendNo, &str),
        seed: Option<u64>,
        entry: &ProjectionEntry,
        waiter: Waiter,
    ) -> Result<(), EntryRefused> {
        let priority = if entry.makes_space { Priority::Reserve } else { Priority::Ordinary };
        let refused = self.refuses(priority);
        let _guard = self.guard("write an entry of a front end");
        let mut open = self.appends.open.lock();
        if let Some(error) = refused.or(open.refused) {
            return Err(error.into());
        }
        // A front end that writes only where there is room is never refused: as much again is for what others write between the look and this.
        if open.waiting() > self.settings.open_bytes_max
            && open.is_crowded(entry.bytes(), 1, 2 * self.settings.open_bytes_max)
        {
            return Err(EntryRefused::Crowded);
        }
        let durability = entry.durability.unwrap_or(self.settings.durability);
        open.write(projection, seed, entry, (self.clock.now_ms(), durability), waiter);
        let full = open.has_full();
        self.appends.waiting.store(open.waiting(), SeqCst);
        drop(open);
        if full {
            self.submit();
        }
        Ok(())
    }

    /// Pushes an entry whose outcome goes to `waiter`; one that is not taken is answered at once.
    pub(crate) fn propose<B: Body>(&self, priority: Priority, body: &B, waiter: Waiter) {
        self.propose_with(priority, body, None, waiter);
    }

    /// The same of an entry that may have a payload.
    pub(crate) fn propose_with<B: Body>(
        &self,
        priority: Priority,
        body: &B,
        payload: Option<&[u8]>,
        waiter: Waiter,
    ) {
        let mut encoded = Vec::new();
        body.encode(&mut encoded);
        let pushed = self.push_with(priority, B::KIND, (&encoded, payload), Some(waiter));
        if let Err((error, Some(waiter))) = pushed {
            let mut wakes = WakeBatch::default();
            waiter.fail(error, &mut wakes);
            wakes.deliver();
        }
    }

    /// Has the shard write the forms of a level.
    pub(crate) fn write_level(&self, level: FormatLevel) {
        self.state.write().level = level;
        self.appends.open.lock().says_node_time = level >= FormatLevel::RETRIES;
    }

    /// Whether messages that come back may wait, by the data directory's level.
    pub(crate) fn parks(&self) -> bool {
        self.state.read().level >= FormatLevel::RETRIES
    }

    /// Pushes an entry, sends it on its way and waits for its outcome.
    pub(crate) fn ask<B: Body>(&self, priority: Priority, body: &B) -> Answer<B::Outcome> {
        let answer = Answer::default();
        self.propose(priority, body, answer.waiter());
        self.submit();
        answer
    }

    /// Refers to stored records, with an overlay if there is to be one. Nothing but tests does so yet.
    #[cfg(test)]
    pub(crate) fn refer(
        &self,
        body: &crate::entry::ReferenceBody,
        overlay: Option<&[u8]>,
    ) -> Answer<crate::state::AppendOutcome> {
        let (answer, mut encoded) = (Answer::default(), Vec::new());
        body.encode(&mut encoded);
        let (durability, priority) = (Durability::Sync, Priority::Ordinary);
        let entry = Entry {
            kind: crate::entry::kind::REFERENCE,
            body: &encoded,
            payload: overlay,
            group: 0,
            durability,
            priority,
        };
        let mut open = self.appends.open.lock();
        open.push(&entry, Some(answer.waiter()));
        self.appends.waiting.store(open.waiting(), SeqCst);
        drop(open);
        self.submit();
        answer
    }

    pub(crate) fn now_ms(&self) -> i64 {
        self.clock.now_ms()
    }

    /// The time of the last block, if there is one.
    pub(crate) fn last_block_ms(&self) -> Option<i64> {
        let state = self.state.read();
        (state.applied != Sequence::NONE).then_some(state.time_ms)
    }

    /// Blocks that are neither committed nor cut.
    pub(crate) fn in_flight(&self) -> usize {
        self.appends.in_flight.lock().len()
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.stopped.load(SeqCst)
    }

    /// Figures for metrics, but for how many messages are kept back. Waits for no disk.
    pub(crate) fn stats(&self) -> ShardStats {
        let (applied, counters, appends, (producers, message_ids), (skipped_messages, waiting_dead_letters)) = {
            let state = self.state.read();
            let (partitions, subscriptions) = (&state.partitions, &state.subscriptions);
            let known = (partitions.producers.len() as u64, partitions.message_ids.len() as u64);
            let messages = (subscriptions.skipped, subscriptions.waiting_dead_letters());
            (state.applied, state.counters, partitions.counters, known, messages)
        };
        let journal = self.journal.stats();
        let meters = &self.meters;
        let commit_age = self.appends.in_flight.lock().age();
        ShardStats {
            shard: self.id,
            applied,
            term: self.replicator.term(),
            stopped: self.is_stopped(),
            full: !self.replicator.admits(Priority::Ordinary),
            lacks_segments: journal.segments < Journal::LEAST_SEGMENTS,
            waits_for_space: journal.waits_for_space,
            commit_age,
            disk_wait: self.disk_wait(),
            blocks: counters.blocks,
            entries: counters.entries,
            bytes: counters.bytes,
            batches: appends.batches,
            records: appends.records,
            batch_bytes: appends.batch_bytes,
            refused: appends.refused,
            duplicates: appends.duplicates,
            repeated: appends.repeated,
            message_ids,
            dead_letters: self.dead_letters.stats(&appends),
            waiting_dead_letters,
            delayed: self.delayed_stats(),
            kept_back: 0,
            delayed_refused: appends.delayed_refused + self.timers.refused(),
            skipped_messages,
            producers,
            crowded_out: meters.crowded_out.get(),
            hot_bytes: meters.hot_bytes.get(),
            cold_bytes: journal.cold_bytes,
            cache_hits: meters.cache_hits.get(),
            ahead_hits: meters.ahead_hits.get(),
            disk_reads: meters.disk_reads.get(),
            checkpoints: meters.checkpoints.get(),
            checkpoint_age: meters.checkpointed.age(),
            failed_checkpoints: meters.failed_checkpoints.get(),
            checkpoints_fail_for: meters.checkpoints_fail.age(),
            corrupt: meters.corrupt.get(),
            damaged: self.damaged_partitions(),
            segment_files: journal.segments,
            segment_bytes: journal.segments * self.settings.segment_bytes,
            free_bytes: self.free.get(),
            keep_free: self.settings.keep_free,
            tail_cache_bytes: journal.tail_bytes,
            in_flight: self.in_flight() as u32,
            block_bytes: meters.block_bytes.snapshot(),
            block_entries: meters.block_entries.snapshot(),
            commit_us: meters.commit_us.snapshot(),
        }
    }

    fn delayed_stats(&self) -> DelayedStats {
        let DelayedSurvey { messages, until_ms, in_each_segment } = *self.applies.delayed.lock();
        let left_ms = until_ms.map_or(0, |until_ms| until_ms.saturating_sub(self.clock.now_ms()));
        let left = Duration::from_millis(u64::try_from(left_ms).unwrap_or(0));
        DelayedStats { messages, left, in_each_segment: in_each_segment && messages > 0 }
    }

    /// Whether all that was pushed is applied.
    pub(crate) fn is_idle(&self) -> bool {
        // In the order in which an entry goes on, so that none is passed over on its way.
        self.waiting_bytes() == 0
            && !self.appends.is_submitting.load(SeqCst)
            && self.in_flight() == 0
            && !self.applies.is_applying.load(SeqCst)
    }

    pub(crate) fn waiting_bytes(&self) -> usize {
        self.appends.waiting.load(SeqCst)
    }
}

/// That of a group's entry of this kind.
fn priority_of(kind: u16) -> Priority {
    if makes_space(kind) { Priority::Reserve } else { Priority::Commit }
}

impl GroupShard for Shard {
    fn propose(
        &self,
        kind: u16,
        body: &[u8],
        waiter: GroupWaiter,
    ) -> Result<(), (ShardFailure, GroupWaiter)> {
        let refused = self.push(priority_of(kind), kind, body, Some(Waiter::Group(waiter)));
        refused.map_err(|(error, waiter)| match waiter {
            Some(Waiter::Group(waiter)) => (error, waiter),
            _ => (error, GroupWaiter::Nobody),
        })
    }

    fn propose_together(&self, kind: u16, entries: Vec<(Vec<u8>, GroupWaiter)>) -> Result<(), ShardFailure> {
        let waits = |(body, waiter)| (kind, body, Waiter::Group(waiter));
        self.push_together(priority_of(kind), entries.into_iter().map(waits).collect())
    }

    fn level(&self) -> FormatLevel {
        self.state.read().level
    }

    fn read_groups(&self, read: &mut dyn FnMut(&GroupTable)) {
        read(&self.state.read().groups);
    }

    fn flush(&self) {
        self.submit();
    }
}

/// What a body that no block takes is refused with, before anything is kept of it.
fn too_large(kind: u16, bytes: usize) -> Option<ShardFailure> {
    if bytes <= LARGEST_ENTRY {
        return None;
    }
    tracing::warn!(kind, bytes, max = LARGEST_ENTRY, "a change is too large for an entry");
    Some(ShardFailure::TooLarge)
}

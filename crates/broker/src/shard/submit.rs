//! From the open block to the replicator.

use std::collections::VecDeque;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use sabir_base::wake::WakeBatch;
use sabir_journal::{BlockAppendError, Priority, Ticket};
use sabir_model::ShardFailure;
use tracing::debug;

use super::Shard;
use super::open::Filled;
use crate::answer::{Sleeper, Waiter};
use crate::entry::{Body, FragmentedDropped};

/// A block that was given to the replicator.
#[derive(Debug)]
pub(super) struct Sent {
    number: u64,
    /// Not known while the replicator is taking it.
    ticket: Option<Ticket>,
    pub(super) waiters: Vec<(u32, Waiter)>,
    pub(super) at: Instant,
}

/// Blocks that are neither committed nor cut, in order.
#[derive(Debug, Default)]
pub(super) struct InFlight {
    blocks: VecDeque<Sent>,
    next: u64,
    /// The last ticket that a cut took. A block that commits goes before its ticket is compared with it.
    cut_through: Option<Ticket>,
}

impl InFlight {
    fn push(&mut self, waiters: Vec<(u32, Waiter)>) -> u64 {
        let number = self.next;
        self.next += 1;
        self.blocks.push_back(Sent { number, ticket: None, waiters, at: Instant::now() });
        number
    }

    /// The replicator took a block; gives it back if it was cut already.
    fn taken(&mut self, number: u64, ticket: Ticket) -> Option<Sent> {
        let at = self.blocks.iter().rposition(|sent| sent.number == number)?;
        self.blocks[at].ticket = Some(ticket);
        if ticket <= self.cut_through? { self.blocks.remove(at) } else { None }
    }

    fn refused(&mut self, number: u64) -> Vec<(u32, Waiter)> {
        match self.blocks.pop_back_if(|sent| sent.number == number) {
            Some(sent) => sent.waiters,
            None => Vec::new(),
        }
    }

    /// The block that `ticket` was given for: blocks commit in their order.
    pub(super) fn committed(&mut self, ticket: Ticket) -> Option<Sent> {
        self.blocks.pop_front_if(|sent| sent.ticket.is_none_or(|own| own == ticket))
    }

    /// The blocks with tickets in a range. One whose ticket is not known yet is told when it is.
    pub(super) fn cut(&mut self, from: Ticket, through: Ticket) -> Vec<Sent> {
        self.cut_through = Some(through);
        let cut = |sent: &Sent| sent.ticket.is_some_and(|own| from <= own && own <= through);
        let (cut, stay): (Vec<Sent>, Vec<Sent>) = self.blocks.drain(..).partition(cut);
        self.blocks = stay.into();
        cut
    }

    pub(super) fn all(&mut self) -> Vec<Sent> {
        std::mem::take(&mut self.blocks).into()
    }

    pub(super) fn len(&self) -> usize {
        self.blocks.len()
    }

    /// How long the oldest block has been under way.
    pub(super) fn age(&self) -> Duration {
        self.blocks.front().map_or(Duration::ZERO, |sent| sent.at.elapsed())
    }
}

impl Shard {
    /// Sends waiting blocks on their way, as far as the group-commit rule lets them.
    pub(crate) fn submit(&self) {
        self.appends.submitting.run(|| {
            self.contain("write", || {
                let mut submitter = self.appends.submitter.lock();
                self.appends.is_submitting.store(true, SeqCst);
                while self.submit_one(&mut submitter) {}
                self.appends.is_submitting.store(false, SeqCst);
            });
        });
    }

    fn submit_one(&self, last_ms: &mut i64) -> bool {
        let Some(mut filled) = self.take_ready() else { return false };
        // The last block in the journal may be that of another leader, which this node followed, and not be applied yet.
        *last_ms = self.journal.last_ms().max(*last_ms);
        let Filled { builder, waiters, stamp, reserve, .. } = &mut filled;
        if !*reserve && !self.replicator.admits(Priority::Ordinary) {
            // The disk filled up while it waited; what is kept in reserve is not for records.
            drop(builder.take(*last_ms));
            self.refuse_full(std::mem::take(waiters));
            self.appends.open.lock().reuse(filled.builder, filled.waiters);
            return true;
        }
        // Before anything else: should that panic, they are answered.
        let number = self.appends.in_flight.lock().push(std::mem::take(waiters));
        builder.raise_time(*last_ms);
        self.meters.block_entries.record(builder.entries().into());
        let block = builder.take(self.clock.now_ms().max(*stamp));
        *last_ms = block.time_ms();
        self.meters.block_bytes.record(block.framed_len() as u64);
        match self.replicator.append(block) {
            Ok(ticket) => {
                let cut = self.appends.in_flight.lock().taken(number, ticket);
                cut.into_iter().for_each(|sent| refuse(sent.waiters, ShardFailure::NotLeader));
            }
            Err(error) => self.not_taken(number, &error),
        }
        let mut open = self.appends.open.lock();
        open.last_ms = *last_ms;
        open.reuse(filled.builder, filled.waiters);
        true
    }

    fn take_ready(&self) -> Option<Filled> {
        let mut open = self.appends.open.lock();
        if open.bytes() == 0 || !self.replicator.ready(open.bytes()) {
            return None;
        }
        let filled = open.take();
        let waiting = open.waiting();
        // Under the lock, or an older figure may overwrite that of an append, or the last one of a shard that stops.
        self.appends.waiting.store(waiting, SeqCst);
        drop(open);
        if waiting <= self.settings.open_bytes_max / 2 {
            self.make_room();
        }
        filled
    }

    fn not_taken(&self, number: u64, error: &BlockAppendError) {
        let kind = match error {
            BlockAppendError::Stopped(_) => ShardFailure::StorageError,
            BlockAppendError::Closed(_) => ShardFailure::ShuttingDown,
            BlockAppendError::Full(_) => ShardFailure::StorageFull,
            BlockAppendError::NotLeader(_) => ShardFailure::NotLeader,
        };
        let waiters = self.appends.in_flight.lock().refused(number);
        if kind == ShardFailure::StorageFull { self.refuse_full(waiters) } else { refuse(waiters, kind) }
    }

    fn refuse_full(&self, waiters: Vec<(u32, Waiter)>) {
        let fragmented: Vec<u64> = waiters.iter().filter_map(|(_, waiter)| waiter.fragmented()).collect();
        refuse(waiters, ShardFailure::StorageFull);
        fragmented.into_iter().for_each(|fragmented| self.drop_fragmented(fragmented));
    }

    /// The end of a fragmented batch found no room; its chunks would keep theirs.
    fn drop_fragmented(&self, fragmented: u64) {
        let mut body = Vec::new();
        FragmentedDropped { fragmented }.encode(&mut body);
        if let Err((error, _)) = self.push(Priority::Reserve, FragmentedDropped::KIND, &body, None) {
            debug!(shard = %self.id, %error, "its chunks stay until the term ends");
        }
    }

    /// Registers a task that waits for room.
    pub(crate) fn wait_for_room(&self, sleeper: &Arc<Mutex<Sleeper>>) {
        let mut room = self.appends.room.lock();
        if room.len() == room.capacity() {
            // Connections come and go while a disk hangs.
            room.retain(|sleeper| sleeper.strong_count() > 0);
        }
        room.push(Arc::downgrade(sleeper));
    }

    pub(super) fn make_room(&self) {
        let sleepers = std::mem::take(&mut *self.appends.room.lock());
        let mut wakes = WakeBatch::default();
        let waiting = sleepers.iter().filter_map(Weak::upgrade);
        waiting.for_each(|sleeper| sleeper.lock().wake(&mut wakes));
        wakes.deliver();
    }

    pub(crate) fn has_room(&self) -> bool {
        self.waiting_bytes() <= self.settings.open_bytes_max
    }
}

fn refuse(waiters: Vec<(u32, Waiter)>, why: ShardFailure) {
    let mut wakes = WakeBatch::default();
    waiters.into_iter().for_each(|(_, waiter)| waiter.fail(why, &mut wakes));
    wakes.deliver();
}

#[cfg(test)]
impl Shard {
    /// Has so many bytes wait, as far as can be seen from outside.
    pub(crate) fn pretend_waiting(&self, bytes: usize) {
        self.appends.waiting.store(bytes, SeqCst);
        if bytes == 0 {
            self.make_room();
        }
    }

    /// Is in the middle of sending a block while `meanwhile` runs: neither waiting any more nor in flight yet.
    pub(crate) fn while_submitting<T>(&self, meanwhile: impl FnOnce() -> T) -> T {
        let _submitter = self.appends.submitter.lock();
        self.appends.is_submitting.store(true, SeqCst);
        let done = meanwhile();
        self.appends.is_submitting.store(false, SeqCst);
        done
    }

    /// How many tasks wait for room.
    pub(crate) fn waiting_for_room(&self) -> usize {
        self.appends.room.lock().len()
    }
}

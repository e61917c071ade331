//! A replicator that commits late and cuts.

use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;
use sabir_model::{Sequence, Term};

use crate::block::Block;
use crate::disk::WakeFn;
use crate::error::{BlockAppendError, CutError, JournalError};
use sabir_base::drain_loop::DrainLoop;

use crate::journal::Journal;
use crate::pending::Pending;
use crate::replicator::{Event, Priority, Replicator, Ticket};
use crate::space::splitmix;

/// How a [`LateReplicator`] behaves.
#[derive(Debug, Clone, Copy, Default)]
pub struct LateOptions {
    /// Seed of all it decides by itself.
    pub seed: u64,
    /// Whether it commits by itself, some time after the disk is done; else only when told.
    pub auto: bool,
    /// Of a thousand occasions with an uncommitted tail, how many cut a part of it; 0 for none. Only with `auto`.
    pub cut_per_mille: u32,
    /// Whether it also commits what this node's disk does not have yet, as a quorum of others may. A crash then loses committed
    /// blocks, which a quorum would bring back and this does not.
    pub ahead_of_disk: bool,
}

/// Commits late, out of step with the disk, and cuts uncommitted tails, as a quorum may.
///
/// A tail recovered beyond what the slot knows to be committed is committed late too, and never cut: it may have been
/// committed before the crash.
#[derive(Debug)]
pub struct LateReplicator {
    journal: Arc<Journal>,
    options: LateOptions,
    state: Mutex<State>,
    term: AtomicU64,
    leads: AtomicBool,
    completions: DrainLoop,
}

#[derive(Debug)]
struct State {
    pending: Pending,
    /// Blocks through this one may commit as soon as the disk has them.
    allowed: Sequence,
    random: u64,
    /// What was recovered.
    floor: Sequence,
}

impl LateReplicator {
    /// Takes office over an opened journal.
    ///
    /// # Errors
    /// The slot could not be written, or the recovered tail not read.
    pub fn start(journal: Arc<Journal>, options: LateOptions) -> Result<Arc<Self>, JournalError> {
        let mut pending = Pending::default();
        let (committed, floor) = (journal.committed(), journal.last());
        journal.replay_range::<JournalError>(committed, floor, &mut |block| {
            pending.push_without_ticket(block.sequence, block.term, block.content);
            Ok(())
        })?;
        let term = journal.enter_term(journal.term().next())?;
        pending.lead(term);
        let state = State { pending, allowed: committed, random: options.seed, floor };
        Ok(Arc::new(Self {
            journal,
            options,
            state: Mutex::new(state),
            term: AtomicU64::new(term.0),
            leads: AtomicBool::new(true),
            completions: DrainLoop::default(),
        }))
    }

    /// Lets up to `blocks` more commit.
    pub fn commit(&self, blocks: u64) {
        {
            let mut state = self.state.lock();
            let allowed = state.allowed.max(self.journal.committed()).0.saturating_add(blocks);
            state.allowed = Sequence(allowed.min(self.journal.last().0));
            self.settle(&mut state);
        }
        self.journal.wake();
    }

    /// Lets all that is appended commit.
    pub fn commit_all(&self) {
        self.commit(u64::MAX);
    }

    /// Makes this node the leader, in a new term, or not.
    ///
    /// # Errors
    /// The slot could not be written.
    pub fn lead(&self, leads: bool) -> Result<(), JournalError> {
        let mut state = self.state.lock();
        match (leads, self.leads.load(Ordering::Acquire)) {
            (true, false) => {
                let term = self.journal.enter_term(self.term().next())?;
                self.term.store(term.0, Ordering::Release);
                state.pending.lead(term);
            }
            (false, true) => state.pending.follow(None),
            _ => return Ok(()),
        }
        self.leads.store(leads, Ordering::Release);
        drop(state);
        self.journal.wake();
        Ok(())
    }

    /// Takes in a block of the leader that this node follows.
    ///
    /// # Errors
    /// See [`BlockAppendError`].
    pub fn take_in(&self, block: Block) -> Result<(), BlockAppendError> {
        let mut state = self.state.lock();
        let term = self.term();
        let (sequence, content) = self.journal.append(block, term)?;
        state.pending.push_without_ticket(sequence, term, content);
        drop(state);
        self.journal.wake();
        Ok(())
    }

    fn settle(&self, state: &mut State) -> bool {
        let on_disk = if self.options.ahead_of_disk { self.journal.last() } else { self.journal.acked() };
        if let Some(last) = state.pending.commit(state.allowed.min(on_disk)) {
            self.journal.commit(last);
        }
        self.journal.stopped().is_some_and(|error| state.pending.stop(error))
    }

    /// Decides by itself. Returns whether it wants another occasion.
    fn decide(&self, state: &mut State) -> bool {
        if !self.options.auto || state.pending.len() == 0 {
            return false;
        }
        let waiting = state.pending.len() as u64;
        let mut draw = |below: u64| splitmix(&mut state.random) % below;
        let (cuts, place, commits, count) = (draw(1000), draw(waiting), draw(2) == 0, draw(waiting) + 1);
        let committed = self.journal.committed();
        if cuts < u64::from(self.options.cut_per_mille) {
            let after = Sequence(committed.0 + place).max(state.floor);
            // A stopped journal says so by itself.
            let _ = self.cut_tail(state, after);
        } else if commits {
            state.allowed = state.allowed.max(Sequence(committed.0 + count)).min(self.journal.last());
        }
        self.settle(state);
        state.pending.len() > 0
    }

    fn cut_tail(&self, state: &mut State, after: Sequence) -> Result<(), CutError> {
        let (last, term) = (self.journal.last(), self.term().next());
        self.journal.cut(after, term)?;
        if self.journal.last() < last {
            state.pending.cut(after);
            state.allowed = state.allowed.min(after);
            self.term.store(term.0, Ordering::Release);
        }
        Ok(())
    }

    fn occasion(&self) {
        let again = {
            let state = &mut *self.state.lock();
            let stopped = self.settle(state);
            stopped || self.decide(state)
        };
        if again {
            self.journal.wake();
        }
    }
}

impl Replicator for LateReplicator {
    fn append(&self, block: Block) -> Result<Ticket, BlockAppendError> {
        if !self.is_leader() {
            return Err(BlockAppendError::NotLeader(block));
        }
        let mut state = self.state.lock();
        if block.time_ms() < self.journal.last_ms() {
            return Err(BlockAppendError::NotLeader(block));
        }
        let term = self.term();
        let appended = self.journal.append(block, term);
        let appended = appended.map(|(sequence, content)| state.pending.push(sequence, term, content));
        let stopped = self.settle(&mut state);
        drop(state);
        if stopped || self.options.ahead_of_disk {
            self.journal.wake();
        }
        appended
    }

    fn admits(&self, priority: Priority) -> bool {
        self.journal.admits(priority)
    }

    fn ready(&self, open_bytes: usize) -> bool {
        self.journal.ready(open_bytes)
    }

    fn advance(&self) {
        self.completions.run(|| {
            self.journal.advance();
            self.occasion();
        });
    }

    fn poll(&self, out: &mut Vec<Event>) {
        self.state.lock().pending.poll(out);
    }

    fn tick(&self, now_ms: u64) {
        self.journal.tick(now_ms);
        self.occasion();
    }

    fn committed(&self) -> Sequence {
        self.journal.committed()
    }

    fn term(&self) -> Term {
        Term(self.term.load(Ordering::Acquire))
    }

    fn is_leader(&self) -> bool {
        self.leads.load(Ordering::Acquire)
    }

    fn cut(&self, after: Sequence) -> Result<(), CutError> {
        let result = self.cut_tail(&mut self.state.lock(), after);
        self.journal.wake();
        result
    }

    fn event_fd(&self) -> Option<RawFd> {
        self.journal.disk().event_fd()
    }

    fn set_waker(&self, wake: WakeFn) {
        self.journal.set_waker(wake);
    }
}

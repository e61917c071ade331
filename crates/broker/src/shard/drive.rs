//! From what the replicator made final to the projections, and to the waiters.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

use bytes::Bytes;
use sabir_base::wake::WakeBatch;
use sabir_journal::{Event, StorageError, Ticket};
use sabir_model::{Sequence, ShardFailure, Term};
use tracing::{error, warn};

use super::Shard;
use crate::answer::Waiter;
use crate::state::{Outcome, Touched, TouchedMessages};

/// How long a thread drives a shard before it looks at its own connections again.
const TURN: Duration = Duration::from_millis(1);

/// What one round of driving works with; kept for the next one.
#[derive(Default)]
pub(super) struct Worker {
    polled: Vec<Event>,
    /// The waiters of the block that is being applied, by entry.
    waiters: VecDeque<(u32, Waiter)>,
    answers: Vec<(Waiter, Outcome)>,
    touched: Touched,
    messages: Vec<TouchedMessages>,
    wakes: WakeBatch,
}

impl Shard {
    /// Applies what is final and answers its waiters. If another thread is at it, that one does. After a while it leaves the
    /// rest to the thread that watches the shard's descriptors.
    pub(crate) fn drive(&self) {
        let began = Instant::now();
        // Where no I/O thread watches them, only the caller goes on.
        let is_over = || self.applies.watched.load(SeqCst) && began.elapsed() >= TURN;
        let whole = self.applies.driving.run_in_turns(|| {
            self.applies.signal.clear();
            if !self.contain("apply", || self.rounds(is_over)) {
                // Once more, for the waiters.
                self.contain("stop", || self.rounds(|| false));
            }
            !is_over()
        });
        if !whole {
            self.applies.signal.raise_anew();
        }
    }

    fn rounds(&self, is_over: impl Fn() -> bool) {
        let mut worker = self.applies.worker.lock();
        while self.round(&mut worker) && !is_over() {}
    }

    /// Handles what has happened since the last round; false when nothing has.
    fn round(&self, worker: &mut Worker) -> bool {
        self.settle_panic(worker);
        self.settle_leadership();
        self.replicator.advance();
        self.replicator.poll(&mut worker.polled);
        let mut events = std::mem::take(&mut worker.polled);
        let moved = !events.is_empty();
        for event in events.drain(..) {
            match event {
                Event::Committed { ticket, sequence, term, content } => {
                    self.applies.is_applying.store(true, SeqCst);
                    self.commit(worker, ticket, sequence, term, &content);
                    self.applies.is_applying.store(false, SeqCst);
                }
                Event::Cut { from, through } => self.cut(worker, from, through),
                Event::Leading { term } => self.leads(term),
                Event::Following { leader } => self.follows(leader),
                Event::Stopped(error) => self.stop(worker, &error),
            }
        }
        worker.polled = events;
        self.run_queues(&mut worker.wakes);
        self.submit();
        self.deliver(worker);
        self.go_on_with_queues(worker);
        moved
    }

    /// What waited for an answer may have more to do in queues.
    fn go_on_with_queues(&self, worker: &mut Worker) {
        if self.queues.is_wanted() {
            self.run_queues(&mut worker.wakes);
            self.submit();
            worker.wakes.deliver();
        }
    }

    /// Has the shard driven again soon.
    pub(crate) fn drive_again(&self) {
        self.applies.signal.raiser().raise();
    }

    fn commit(
        &self,
        worker: &mut Worker,
        ticket: Option<Ticket>,
        sequence: Sequence,
        term: Term,
        content: &Bytes,
    ) {
        if let Some(sent) = ticket.and_then(|ticket| self.appends.in_flight.lock().committed(ticket)) {
            self.meters.commit_us.record(sent.at.elapsed().as_micros() as u64);
            worker.waiters = sent.waiters.into();
        }
        if self.is_stopped() {
            return worker.fail_waiters(ShardFailure::StorageError);
        }
        let Worker { waiters, answers, wakes, .. } = &mut *worker;
        let mut state = self.state.write();
        if ticket.is_none() && sequence <= state.applied {
            // It became final between the replicator's start and the end of the replay, which took it in.
            return;
        }
        let is_of_next_term = state.term != term;
        let applied = state.apply_block(
            sequence,
            term,
            content,
            &|block| self.journal.segment_of(block),
            &mut |index, outcome, state| {
                if let Some((_, waiter)) = waiters.pop_front_if(|(entry, _)| *entry == index) {
                    waiter.applied(state, wakes);
                    answers.push((waiter, outcome));
                }
            },
        );
        std::mem::swap(&mut state.partitions.touched, &mut worker.touched);
        std::mem::swap(&mut state.subscriptions.touched, &mut worker.messages);
        let fresh = std::mem::take(&mut state.front_ends.fresh);
        let timer_ms = state.timers.set_ms;
        drop(state);
        if is_of_next_term {
            self.end_waiting(Some(term), ShardFailure::NotLeader);
        }
        if !fresh.is_empty() {
            self.appends.open.lock().bound.extend(fresh);
        }
        if let Err(reason) = applied {
            error!(shard = %self.id, %reason, "the shard stops");
            self.fail_all(worker, ShardFailure::StorageError);
        }
        self.reads.watchers.notify(&worker.touched, &mut worker.wakes);
        self.queues.tell(&worker.messages, &mut worker.wakes);
        self.dead_letters.tell(&worker.messages);
        self.timers.set(timer_ms);
    }

    /// Answers those whose blocks were cut.
    fn cut(&self, worker: &mut Worker, from: Ticket, through: Ticket) {
        let cut = self.appends.in_flight.lock().cut(from, through);
        warn!(shard = %self.id, blocks = cut.len(), "an uncommitted tail was cut");
        let waiters = cut.into_iter().flat_map(|sent| sent.waiters);
        worker.answers.extend(waiters.map(|(_, waiter)| (waiter, failed(ShardFailure::NotLeader))));
        self.reads.watchers.wake_all(&mut worker.wakes);
        // A tail is cut where another term begins.
        self.end_waiting(None, ShardFailure::NotLeader);
    }

    fn stop(&self, worker: &mut Worker, reason: &Arc<StorageError>) {
        error!(shard = %self.id, %reason, "the shard's storage failed: it takes no more writes, reads go on");
        self.fail_all(worker, ShardFailure::StorageError);
    }

    /// Takes no more writes and answers all waiters.
    pub(super) fn fail_all(&self, worker: &mut Worker, why: ShardFailure) {
        worker.fail_waiters(why);
        let left = self.give_up(why);
        worker.answers.extend(left.into_iter().map(|waiter| (waiter, failed(why))));
        self.reads.watchers.wake_all(&mut worker.wakes);
    }

    /// Stops for a reason that is not the journal's.
    pub(super) fn stop_for(&self, why: ShardFailure) {
        let mut wakes = WakeBatch::default();
        self.give_up(why).into_iter().for_each(|waiter| waiter.fail(why, &mut wakes));
        self.reads.watchers.wake_all(&mut wakes);
        wakes.deliver();
    }

    fn give_up(&self, why: ShardFailure) -> Vec<Waiter> {
        self.stopped.store(true, SeqCst);
        let sent = self.appends.in_flight.lock().all();
        let mut left: Vec<Waiter> =
            sent.into_iter().flat_map(|sent| sent.waiters).map(|(_, waiter)| waiter).collect();
        let mut open = self.appends.open.lock();
        left.extend(open.refuse(why));
        self.appends.waiting.store(0, SeqCst);
        drop(open);
        self.make_room();
        self.end_waiting(None, why);
        let mut wakes = WakeBatch::default();
        self.queues.end(why, &mut wakes);
        wakes.deliver();
        left
    }

    fn deliver(&self, worker: &mut Worker) {
        for (waiter, outcome) in worker.answers.drain(..) {
            self.hand_on(waiter, outcome, &mut worker.wakes);
        }
        worker.wakes.deliver();
    }
}

impl Worker {
    fn fail_waiters(&mut self, why: ShardFailure) {
        self.answers.extend(self.waiters.drain(..).map(|(_, waiter)| (waiter, failed(why))));
    }
}

fn failed(why: ShardFailure) -> Outcome {
    Outcome::Failed(why)
}

//! The leader of a shard's queues in its shard: its lock, and what runs it.
//!
//! Locks are taken in this order: the leader's, then the projections' to look, or the open block's to push; these two are never held together. An
//! entry is pushed before the leader's lock is given up, so that entries stand in the journal in the order in which they were made.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, OnceLock};

use parking_lot::{Mutex, MutexGuard};
use sabir_base::wake::WakeBatch;
use sabir_journal::Priority;
use sabir_model::{PartitionId, RateLimit, ShardFailure, Term};

use super::gathered::Gathered;
use super::leader::QueueLeader;
use super::lifetimes::Lifetimes;
use super::round::RoundTime;
use super::{QueueAlarm, QueueError};
use crate::answer::Waiter;
use crate::entry::{DeliveryBody, DeliveryError, DeliveryOutcome};
use crate::shard::{Leading, Shard};
use crate::state::{TouchedMessages, subscription_of};

/// Entries made in one go; then it is another one's turn.
const MOST_ENTRIES: usize = 16;

/// The queues of a shard, as their leader has them.
#[derive(Debug)]
pub(crate) struct ShardQueues {
    led: Mutex<LedQueues>,
    /// What sessions said since the last entry.
    gathered: Mutex<Gathered>,
    /// Whether there is something to propose.
    wanted: AtomicBool,
    /// Queues that are led: without any, no leader needs to be told what `apply` did.
    count: AtomicUsize,
    /// Whether there are queues to be deleted.
    is_deserted: AtomicBool,
    /// When something is due next, in milliseconds.
    due_ms: AtomicI64,
    /// What is to be told of that.
    alarm: OnceLock<Arc<QueueAlarm>>,
}

impl Default for ShardQueues {
    fn default() -> Self {
        Self {
            led: Mutex::default(),
            gathered: Mutex::default(),
            wanted: AtomicBool::new(false),
            count: AtomicUsize::new(0),
            is_deserted: AtomicBool::new(false),
            due_ms: AtomicI64::new(i64::MAX),
            alarm: OnceLock::new(),
        }
    }
}

#[derive(Debug)]
pub(super) struct LedQueues {
    pub(super) leader: QueueLeader,
    pub(super) lives: Lifetimes,
    /// Whether all lifetimes are to begin anew.
    begins_anew: bool,
    /// Why nothing is led, if so.
    closed: Option<ShardFailure>,
    /// The term that was begun last.
    term: Option<Term>,
}

impl Default for LedQueues {
    fn default() -> Self {
        let (leader, lives) = (QueueLeader::default(), Lifetimes::default());
        Self { leader, lives, begins_anew: false, closed: Some(ShardFailure::NotLeader), term: None }
    }
}

impl LedQueues {
    /// Whether queues are led here.
    pub(super) fn check(&self) -> Result<(), QueueError> {
        self.closed.map_or(Ok(()), |why| Err(why.into()))
    }
}

impl ShardQueues {
    /// The leader, for a session's call.
    pub(super) fn lock(&self) -> MutexGuard<'_, LedQueues> {
        self.led.lock()
    }

    /// There is something to propose, at the next flush at the latest.
    pub(super) fn want(&self) {
        self.wanted.store(true, SeqCst);
    }

    /// Whether there is something to propose.
    pub(crate) fn is_wanted(&self) -> bool {
        self.wanted.load(SeqCst)
    }

    /// Adds to what sessions said.
    pub(super) fn gather(&self, add: impl FnOnce(&mut Gathered)) {
        add(&mut self.gathered.lock());
        self.want();
    }

    /// To be told what a block did, where it concerns a queue that is led.
    pub(crate) fn tell(&self, events: &[TouchedMessages], wakes: &mut WakeBatch) {
        let expires = |event: &TouchedMessages| matches!(event, TouchedMessages::Expiring { .. });
        if events.is_empty() || self.count.load(SeqCst) == 0 && !events.iter().any(expires) {
            return;
        }
        let mut led = self.led.lock();
        led.leader.tell(events, wakes);
        self.note(&led);
    }

    /// What is to be told when something is due.
    pub(super) fn wake(&self, alarm: Arc<QueueAlarm>) {
        // It is set once, before anything is led.
        let _ = self.alarm.set(alarm);
    }

    /// When something is due next, in milliseconds.
    pub(crate) fn due_ms(&self) -> i64 {
        self.due_ms.load(SeqCst)
    }

    /// Sees to what is due: what has expired, and what may be dealt again, is proposed with the next flush, and what was not used for too long is to be
    /// deleted.
    pub(crate) fn see_to_due(&self, now_ms: i64) {
        if self.due_ms() > now_ms {
            return;
        }
        let mut led = self.led.lock();
        let LedQueues { leader, lives, begins_anew, .. } = &mut *led;
        leader.due(now_ms);
        if std::mem::take(begins_anew) {
            lives.restart(now_ms);
        }
        leader.left.drain(..).for_each(|queue| lives.used(queue, now_ms));
        let ended = lives.ended(now_ms, |queue| leader.count(subscription_of(queue)).0 > 0);
        leader.deserted.extend(ended);
        self.note(&led);
    }

    /// A queue is there, which may be unused for so many milliseconds, if that is limited.
    pub(crate) fn lives(&self, queue: PartitionId, expires_ms: Option<u64>, now_ms: i64) {
        let mut led = self.led.lock();
        led.lives.set(queue, expires_ms, now_ms);
        self.note(&led);
    }

    /// A queue's messages are dealt at that rate at the most from now on.
    pub(crate) fn set_rate(&self, queue: PartitionId, limit: Option<RateLimit>) {
        let mut led = self.led.lock();
        led.leader.rates.set(subscription_of(queue), limit);
        self.note(&led);
    }

    /// A queue is gone.
    pub(crate) fn gone(&self, queue: PartitionId) {
        let mut led = self.led.lock();
        led.lives.forget(queue);
        led.leader.rates.forget(subscription_of(queue));
    }

    /// Keeps what is looked at without the lock.
    pub(super) fn note(&self, led: &LedQueues) {
        self.count.store(led.leader.watched(), SeqCst);
        let due = led.leader.next_ms().into_iter().chain(led.lives.next_ms()).min();
        let at_once = led.begins_anew || !led.leader.left.is_empty();
        let due_ms = if at_once { i64::MIN } else { due.unwrap_or(i64::MAX) };
        if self.due_ms.swap(due_ms, SeqCst) > due_ms {
            self.alarm.get().into_iter().for_each(|alarm| alarm.set(due_ms));
        }
        if led.leader.has_work() {
            self.want();
        }
        self.is_deserted.store(!led.leader.deserted.is_empty(), SeqCst);
    }

    /// Closes the queues that are to go since their last consumers did, or since they were not used, and have no consumers now: they take none any more.
    pub(crate) fn close_deserted(&self) -> Vec<PartitionId> {
        if !self.is_deserted.swap(false, SeqCst) {
            return Vec::new();
        }
        let mut led = self.led.lock();
        let mut deserted = std::mem::take(&mut led.leader.deserted);
        deserted.retain(|queue| led.leader.close(subscription_of(*queue), true).is_ok());
        self.note(&led);
        deserted
    }

    /// A queue takes consumers again: it is not deleted after all.
    pub(crate) fn reopen(&self, queue: PartitionId) {
        let mut led = self.led.lock();
        led.leader.reopen(subscription_of(queue));
        self.note(&led);
    }

    /// What an entry came to.
    fn decided(&self, number: u64, outcome: Result<DeliveryOutcome, DeliveryError>, wakes: &mut WakeBatch) {
        let mut led = self.led.lock();
        match outcome {
            Err(DeliveryError::Shard(why)) => led.leader.lost(number, why, wakes),
            Ok(_) | Err(DeliveryError::Refused { .. }) => led.leader.applied(number, wakes),
        }
        self.note(&led);
    }

    /// Nothing is led any more.
    pub(crate) fn end(&self, why: ShardFailure, wakes: &mut WakeBatch) {
        let mut led = self.led.lock();
        *self.gathered.lock() = Gathered::default();
        led.closed = Some(why);
        led.leader.end_all(why.into(), wakes);
        self.note(&led);
    }

    fn begin(&self, term: Term) {
        let mut led = self.led.lock();
        // A part that registers while a term begins is told twice, and what was dealt between the two is not given back by a start.
        if led.closed.is_none() && led.term == Some(term) {
            return;
        }
        led.term = Some(term);
        let mut wakes = WakeBatch::default();
        // What was in flight in an earlier term has been given back.
        led.leader.end_all(ShardFailure::NotLeader.into(), &mut wakes);
        *self.gathered.lock() = Gathered::default();
        led.closed = None;
        led.leader.is_new = true;
        led.begins_anew = true;
        self.note(&led);
        drop(led);
        wakes.deliver();
    }
}

impl Leading for ShardQueues {
    fn led(self: Arc<Self>, term: Term) {
        self.begin(term);
    }

    fn laid_down(self: Arc<Self>) {
        let mut wakes = WakeBatch::default();
        self.end(ShardFailure::NotLeader, &mut wakes);
        wakes.deliver();
    }
}

impl Shard {
    /// Sends what is there on its way, of queues as well.
    #[inline]
    pub(crate) fn flush_all(&self) {
        self.flush_queues();
        if self.waiting_bytes() > 0 {
            self.submit();
        }
    }

    /// Proposes what is to be done in queues, and sends it on its way.
    #[inline]
    pub(crate) fn flush_queues(&self) {
        if self.queues.is_wanted() {
            let mut wakes = WakeBatch::default();
            self.run_queues(&mut wakes);
            wakes.deliver();
            self.submit();
        }
    }

    /// Proposes what is to be done in queues, if there is anything.
    pub(crate) fn run_queues(&self, wakes: &mut WakeBatch) {
        if self.queues.wanted.swap(false, SeqCst) {
            let _guard = self.guard("deal messages");
            self.run_led(&mut self.queues.lock(), wakes);
        }
    }

    /// The same, for a caller that has the leader's lock.
    pub(super) fn run_led(&self, led: &mut LedQueues, wakes: &mut WakeBatch) {
        if led.closed.is_none() {
            led.leader.gathered.take_in(&mut self.queues.gathered.lock());
            let entries = (0..MOST_ENTRIES).take_while(|_| self.make_entry(&mut led.leader, wakes)).count();
            if entries == MOST_ENTRIES {
                self.drive_again();
            }
        }
        self.queues.note(led);
    }

    /// Makes an entry and pushes it. Tells whether there is more.
    fn make_entry(&self, leader: &mut QueueLeader, wakes: &mut WakeBatch) -> bool {
        if !leader.has_work() {
            return false;
        }
        // Before the projections are looked at: what is applied by then is seen there.
        let is_idle = self.is_idle();
        let proposed = {
            let state = self.state.read();
            let proposed = leader.propose(
                &*state,
                &RoundTime { now_ms: self.now_ms(), is_idle, is_full: self.is_full() },
                wakes,
            );
            // While nothing is applied: the thread that applies what comes next sees that the leader is to be told.
            self.queues.count.store(leader.watched(), SeqCst);
            proposed
        };
        if !proposed.entry {
            return false;
        }
        let (number, body) = leader.entry();
        let queues = self.queues.clone();
        let waiter =
            Waiter::then(move |outcome, wakes: &mut WakeBatch| queues.decided(number, outcome, wakes));
        match self.push(Priority::Reserve, DeliveryBody::KIND, body, Some(waiter)) {
            Ok(()) => {
                leader.pushed(wakes);
                proposed.more || leader.has_work()
            }
            Err((why, _)) => {
                leader.refused(why, wakes);
                false
            }
        }
    }
}

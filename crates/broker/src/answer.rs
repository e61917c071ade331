//! What waits for an entry's outcome, and how it is told.

use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;
use sabir_base::panics::contain;
use sabir_base::wake::{ThreadSlot, WakeBatch, current_slot};
use sabir_model::{AppendError, ErrorAbout, PartitionId, ShardFailure};

use crate::append::{Append, Appended};
use crate::catalog::Topic;
use crate::front_ends::Written;
use crate::group::GroupWaiter;
use crate::publish::PublishWaiter;
use crate::state::{EntryOutcome, Outcome, ShardState};

/// A task that waits, and the I/O thread it lives on.
#[derive(Debug, Default)]
pub(crate) struct Sleeper(Option<(ThreadSlot, Waker)>);

impl Sleeper {
    pub(crate) fn sleep(&mut self, cx: &Context<'_>) {
        match &mut self.0 {
            Some((_, waker)) if waker.will_wake(cx.waker()) => {}
            slot => *slot = Some((current_slot(), cx.waker().clone())),
        }
    }

    /// Whether it waits to be woken.
    pub(crate) fn is_asleep(&self) -> bool {
        self.0.is_some()
    }

    pub(crate) fn wake(&mut self, wakes: &mut WakeBatch) {
        if let Some((slot, waker)) = self.0.take() {
            wakes.add(slot, waker);
        }
    }
}

/// What happens once an entry is applied.
type Next = Box<dyn FnOnce(Outcome, &mut WakeBatch) + Send>;

/// A batch of a call that is not appended yet.
#[derive(Debug)]
pub(crate) struct Waiting {
    pub(crate) call: Arc<AppendCall>,
    pub(crate) slot: u32,
    pub(crate) bytes: u32,
    pub(crate) topic: Arc<Topic>,
    pub(crate) partition: PartitionId,
}

impl Waiting {
    fn answer(self, answer: Result<Appended, AppendError>, wakes: &mut WakeBatch) {
        // Before the task that waits can look at the counters.
        if answer.is_ok_and(|appended| !appended.duplicate) {
            self.topic.traffic.receive(self.bytes as usize);
        }
        let answer = answer.map_err(|error| ErrorAbout::new(error, self.topic.subject_of(self.partition)));
        self.call.answer(self.slot, answer, wakes);
    }
}

/// What waits for one entry.
pub(crate) enum Waiter {
    /// One batch of a call; if it is fragmented, with its number.
    Append { batch: Waiting, fragmented: Option<u64> },
    /// One entry of a publish.
    Publish(Box<PublishWaiter>),
    /// A task.
    Reply(Arc<EntryReply>),
    /// A front end, and those that read right behind its entry.
    Frontend(Arc<Written>),
    /// A group, or a request to it.
    Group(GroupWaiter),
    /// The next step of something; it runs on the thread that applies, with no lock held.
    Then(Next),
}

impl fmt::Debug for Waiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Append { .. } => "Append",
            Self::Publish(_) => "Publish",
            Self::Reply(_) => "Reply",
            Self::Frontend(_) => "Frontend",
            Self::Group(_) => "Group",
            Self::Then(_) => "Then",
        })
    }
}

impl Waiter {
    pub(crate) fn then<T: EntryOutcome>(next: impl FnOnce(T, &mut WakeBatch) + Send + 'static) -> Self {
        Self::Then(Box::new(move |outcome, wakes| next(T::of(outcome), wakes)))
    }

    /// The fragmented batch whose end it waits for.
    pub(crate) fn fragmented(&self) -> Option<u64> {
        match self {
            Self::Append { fragmented, .. } => *fragmented,
            Self::Publish(waiter) => waiter.fragmented,
            _ => None,
        }
    }

    /// Has it wait for the end of a fragmented batch.
    pub(crate) fn set_fragmented(&mut self, number: u64) {
        match self {
            Self::Append { fragmented, .. } => *fragmented = Some(number),
            Self::Publish(waiter) => waiter.fragmented = Some(number),
            _ => {}
        }
    }

    /// The entry is applied, and this is what it left: for those that read right behind it.
    pub(crate) fn applied(&self, state: &ShardState, wakes: &mut WakeBatch) {
        if let Self::Frontend(written) = self {
            written.applied(state, wakes);
        }
    }

    pub(crate) fn answer(self, outcome: Outcome, wakes: &mut WakeBatch) {
        match self {
            Self::Append { batch, .. } => batch.answer(EntryOutcome::of(outcome), wakes),
            Self::Publish(waiter) => waiter.answer(EntryOutcome::of(outcome), wakes),
            Self::Reply(reply) => reply.answer(outcome, wakes),
            Self::Frontend(written) => written.answer(outcome, wakes),
            // The thread that answers has others to answer.
            Self::Group(waiter) => drop(contain(|| waiter.complete(EntryOutcome::of(outcome), wakes))),
            Self::Then(next) => drop(contain(|| next(outcome, wakes))),
        }
    }

    pub(crate) fn fail(self, failure: ShardFailure, wakes: &mut WakeBatch) {
        self.answer(Outcome::Failed(failure), wakes);
    }
}

/// The answers of one call of append.
#[derive(Debug)]
pub(crate) struct AppendCall(Mutex<Answers>);

#[derive(Debug)]
struct Answers {
    answers: Vec<Result<Appended, ErrorAbout<AppendError>>>,
    open: usize,
    sleeper: Sleeper,
}

impl AppendCall {
    pub(crate) fn new(batches: usize) -> Arc<Self> {
        // What stands here until the answer comes is for callers that do not wait for it.
        let answers = vec![Err(ShardFailure::Timeout.into()); batches];
        Arc::new(Self(Mutex::new(Answers { answers, open: batches, sleeper: Sleeper::default() })))
    }

    pub(crate) fn answer(
        &self,
        slot: u32,
        answer: Result<Appended, ErrorAbout<AppendError>>,
        wakes: &mut WakeBatch,
    ) {
        let mut call = self.0.lock();
        call.answers[slot as usize] = answer;
        call.open -= 1;
        if call.open == 0 {
            call.sleeper.wake(wakes);
        }
    }

    /// Answers items from `slot` on with an error, before a task waits.
    pub(crate) fn refuse(&self, slot: u32, items: &[Append], error: AppendError) {
        let mut wakes = WakeBatch::default();
        for (slot, item) in (slot..).zip(items) {
            self.answer(slot, Err(ErrorAbout::new(error, item.subject())), &mut wakes);
        }
        wakes.deliver();
    }

    /// The answers that have come; the others are [`ShardFailure::Timeout`].
    pub(crate) fn so_far(&self) -> Vec<Result<Appended, ErrorAbout<AppendError>>> {
        self.0.lock().answers.clone()
    }

    pub(crate) fn poll(&self, cx: &mut Context<'_>) -> Poll<Vec<Result<Appended, ErrorAbout<AppendError>>>> {
        let mut call = self.0.lock();
        if call.open == 0 {
            return Poll::Ready(std::mem::take(&mut call.answers));
        }
        call.sleeper.sleep(cx);
        Poll::Pending
    }
}

/// The answer to one entry.
#[derive(Debug, Default)]
pub(crate) struct EntryReply(Mutex<(Option<Outcome>, Sleeper)>);

impl EntryReply {
    pub(crate) fn answer(&self, outcome: Outcome, wakes: &mut WakeBatch) {
        let mut reply = self.0.lock();
        reply.0 = Some(outcome);
        reply.1.wake(wakes);
    }
}

/// Waits for an [`EntryReply`]: for what an entry of one kind came to.
#[derive(Debug)]
pub(crate) struct Answer<T>(pub(crate) Arc<EntryReply>, PhantomData<fn() -> T>);

impl<T> Default for Answer<T> {
    fn default() -> Self {
        Self(Arc::default(), PhantomData)
    }
}

impl<T> Answer<T> {
    pub(crate) fn waiter(&self) -> Waiter {
        Waiter::Reply(self.0.clone())
    }
}

impl<T: EntryOutcome> Future for Answer<T> {
    type Output = T;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        let mut reply = self.0.0.lock();
        if let Some(outcome) = reply.0.take() {
            return Poll::Ready(T::of(outcome));
        }
        reply.1.sleep(cx);
        Poll::Pending
    }
}

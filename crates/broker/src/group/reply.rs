//! An answer that comes later.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;
use sabir_base::wake::{ThreadSlot, WakeBatch, current_slot};

/// The answer to a request, when it comes. Dropping it does not undo the request.
#[derive(Debug)]
#[must_use = "the answer comes through it"]
pub struct Reply<T>(Arc<Mutex<ReplyState<T>>>);

/// The other end of a [`Reply`].
#[derive(Debug)]
pub(crate) struct Replier<T>(Arc<Mutex<ReplyState<T>>>);

#[derive(Debug)]
struct ReplyState<T> {
    answer: Option<T>,
    waker: Option<(ThreadSlot, Waker)>,
}

impl<T> Reply<T> {
    pub(crate) fn pair() -> (Replier<T>, Self) {
        let slot = Arc::new(Mutex::new(ReplyState { answer: None, waker: None }));
        (Replier(slot.clone()), Self(slot))
    }

    pub(crate) fn ready(answer: T) -> Self {
        Self(Arc::new(Mutex::new(ReplyState { answer: Some(answer), waker: None })))
    }
}

impl<T> Replier<T> {
    /// Whether the other end is still there.
    pub(crate) fn is_awaited(&self) -> bool {
        Arc::strong_count(&self.0) > 1
    }

    pub(crate) fn send(self, answer: T, wakes: &mut WakeBatch) {
        let mut slot = self.0.lock();
        slot.answer = Some(answer);
        if let Some((thread, waker)) = slot.waker.take() {
            drop(slot);
            wakes.add(thread, waker);
        }
    }
}

impl<T> Future for Reply<T> {
    type Output = T;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        let mut slot = self.0.lock();
        match slot.answer.take() {
            Some(answer) => Poll::Ready(answer),
            None => {
                slot.waker = Some((current_slot(), cx.waker().clone()));
                Poll::Pending
            }
        }
    }
}

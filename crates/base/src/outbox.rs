//! What others have for a connection's client, until the connection's own thread takes it.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::task::Waker;

use parking_lot::Mutex;

use crate::wake::{ThreadSlot, WakeBatch, current_slot};

/// Where a connection is reached from any thread, for as long as it lives.
pub struct Seat<P> {
    outbox: Arc<Outbox<P>>,
}

impl<P> Clone for Seat<P> {
    fn clone(&self) -> Self {
        Self { outbox: self.outbox.clone() }
    }
}

impl<P> fmt::Debug for Seat<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Seat").field("waiting", &self.waiting()).finish_non_exhaustive()
    }
}

impl<P> Seat<P> {
    /// Leaves something for the session, behind all that was left before. What wakes it is gathered in `wakes`: one wake-up a thread for
    /// all that a commit leaves to its connections.
    ///
    /// # Errors
    /// The connection has ended; gives back what was to be left.
    pub fn push(&self, push: P, wakes: &mut WakeBatch) -> Result<(), P> {
        let mut waits = self.outbox.waits.lock();
        if waits.ended {
            return Err(push);
        }
        waits.pushes.push_back(push);
        // Of one that was filled before, the task has been woken and has not come yet.
        if !self.outbox.filled.swap(true, SeqCst)
            && let Some((slot, waker)) = waits.task.clone()
        {
            wakes.add(slot, waker);
        }
        Ok(())
    }

    /// How much was left that the connection has not taken. It takes all at once, and then no more until the session has had that, which it
    /// has as far as the client reads. The part that leaves it bounds that, by the credit that the client gave.
    pub fn waiting(&self) -> usize {
        self.outbox.waits.lock().pushes.len()
    }

    /// Whether the connection has ended.
    pub fn has_ended(&self) -> bool {
        self.outbox.waits.lock().ended
    }
}

/// The end of a [`Seat`] that the connection's task has.
pub struct Outbox<P> {
    waits: Mutex<Waits<P>>,
    /// Whether something waits, to be looked at without the lock.
    filled: AtomicBool,
}

struct Waits<P> {
    pushes: VecDeque<P>,
    task: Option<(ThreadSlot, Waker)>,
    ended: bool,
}

impl<P> Outbox<P> {
    /// An empty one, for a connection that begins.
    #[must_use]
    pub fn new() -> Arc<Self> {
        let waits = Waits { pushes: VecDeque::new(), task: None, ended: false };
        Arc::new(Self { waits: Mutex::new(waits), filled: AtomicBool::new(false) })
    }

    /// The place at which others reach it.
    pub fn seat(self: &Arc<Self>) -> Seat<P> {
        Seat { outbox: self.clone() }
    }

    /// Has the calling task woken from now on; it takes what is there before it sleeps.
    pub fn attend(&self, waker: &Waker) {
        self.waits.lock().task = Some((current_slot(), waker.clone()));
    }

    /// Whether something was left that is not taken yet.
    #[inline]
    pub fn has_some(&self) -> bool {
        self.filled.load(SeqCst)
    }

    /// Takes all that was left, in order, behind what is in `taken`.
    #[inline]
    pub fn take(&self, taken: &mut VecDeque<P>) {
        if self.filled.load(SeqCst) {
            let mut waits = self.waits.lock();
            self.filled.store(false, SeqCst);
            taken.append(&mut waits.pushes);
        }
    }

    /// Nothing is taken any more.
    pub fn end(&self) {
        let mut waits = self.waits.lock();
        waits.ended = true;
        waits.task = None;
        let left = std::mem::take(&mut waits.pushes);
        // What is dropped may wake the task that waits for what becomes of it.
        drop(waits);
        drop(left);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Counted(AtomicUsize);

    impl Wake for Counted {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, SeqCst);
        }
    }

    fn push(seat: &Seat<u32>, numbers: std::ops::Range<u32>) -> usize {
        let mut wakes = WakeBatch::default();
        numbers.filter(|number| seat.push(*number, &mut wakes).is_ok()).count()
    }

    #[test]
    fn all_that_is_left_comes_in_order_with_one_wake_up_until_it_is_taken() {
        let (outbox, counted) = (Outbox::new(), Arc::new(Counted::default()));
        let seat = outbox.seat();
        assert_eq!(push(&seat, 0..2), 2, "before anybody attends");
        outbox.attend(&Waker::from(counted.clone()));
        let mut taken = VecDeque::new();
        outbox.take(&mut taken);
        assert_eq!(push(&seat, 2..5), 3);
        assert_eq!((counted.0.load(SeqCst), seat.waiting()), (1, 3));
        outbox.take(&mut taken);
        assert!(taken.iter().copied().eq(0..5));
        assert_eq!(push(&seat, 5..6), 1);
        assert_eq!((counted.0.load(SeqCst), seat.waiting()), (2, 1));
    }

    #[test]
    fn nothing_is_left_to_one_that_has_ended() {
        let outbox = Outbox::new();
        let seat = outbox.seat();
        push(&seat, 0..3);
        outbox.end();
        assert_eq!((push(&seat, 3..5), seat.waiting(), seat.has_ended()), (0, 0, true));
    }
}

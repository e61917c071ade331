//! Wakes each I/O thread once for many answers.
//!
//! A commit answers requests of connections on several I/O threads. Waking their tasks one by one from another thread
//! would cost a lock and perhaps a system call each; here the wakers are gathered by thread, handed over in one go, and the
//! tasks are woken on their own thread, where that costs next to nothing.

use std::cell::Cell;
use std::sync::OnceLock;
use std::task::{Context, Poll, Waker};

use parking_lot::{Mutex, RwLock};

/// The I/O thread a task lives on; `None` for a thread that never registered.
pub type ThreadSlot = Option<usize>;

thread_local! {
    static SLOT: Cell<ThreadSlot> = const { Cell::new(None) };
}

#[derive(Default)]
struct Mailbox {
    pending: Vec<Waker>,
    dispatcher: Option<Waker>,
}

fn mailboxes() -> &'static RwLock<Vec<&'static Mutex<Mailbox>>> {
    static MAILBOXES: OnceLock<RwLock<Vec<&'static Mutex<Mailbox>>>> = OnceLock::new();
    MAILBOXES.get_or_init(RwLock::default)
}

/// Makes the calling thread an I/O thread. It must run [`dispatch`] as a task until it ends.
pub fn register_io_thread() {
    if SLOT.get().is_some() {
        return;
    }
    let mut all = mailboxes().write();
    SLOT.set(Some(all.len()));
    // Leaked on purpose: as many as there are I/O threads in the life of the process.
    all.push(Box::leak(Box::default()));
}

/// The calling thread's slot, to be kept beside a waker.
pub fn current_slot() -> ThreadSlot {
    SLOT.get()
}

/// Wakes, on the calling I/O thread, what other threads gathered for it; never ends.
pub async fn dispatch() {
    let Some(slot) = SLOT.get() else { return };
    let mailbox = mailboxes().read()[slot];
    std::future::poll_fn(|cx: &mut Context<'_>| -> Poll<()> {
        let wakers = {
            let mut mailbox = mailbox.lock();
            if mailbox.dispatcher.as_ref().is_none_or(|w| !w.will_wake(cx.waker())) {
                mailbox.dispatcher = Some(cx.waker().clone());
            }
            std::mem::take(&mut mailbox.pending)
        };
        wakers.into_iter().for_each(Waker::wake);
        Poll::Pending
    })
    .await;
}

/// Wakers gathered during one commit.
#[derive(Default)]
pub struct WakeBatch {
    by_thread: Vec<Vec<Waker>>,
}

impl WakeBatch {
    /// Adds a task's waker. One that belongs to no I/O thread is woken at once.
    pub fn add(&mut self, slot: ThreadSlot, waker: Waker) {
        let Some(slot) = slot else { return waker.wake() };
        if self.by_thread.len() <= slot {
            self.by_thread.resize_with(slot + 1, Vec::new);
        }
        self.by_thread[slot].push(waker);
    }

    /// Hands the wakers over, waking each I/O thread at most once.
    pub fn deliver(&mut self) {
        let own = SLOT.get();
        for (slot, wakers) in self.by_thread.iter_mut().enumerate().filter(|(_, w)| !w.is_empty()) {
            if own == Some(slot) {
                wakers.drain(..).for_each(Waker::wake);
            } else {
                hand_over(slot, wakers);
            }
        }
    }
}

fn hand_over(slot: usize, wakers: &mut Vec<Waker>) {
    let dispatcher = {
        let mut mailbox = mailboxes().read()[slot].lock();
        let was_empty = mailbox.pending.is_empty();
        mailbox.pending.append(wakers);
        // A mailbox that held something has its thread woken already.
        if was_empty { mailbox.dispatcher.clone() } else { None }
    };
    if let Some(waker) = dispatcher {
        waker.wake();
    }
}

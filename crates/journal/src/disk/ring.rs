//! The one place that touches io_uring's queues: writes and syncs whose memory and files outlive them.
//!
//! All that the kernel may still look at is owned by the [`Ring`]: an operation lies in its table, with the bytes and the open
//! file, from before its submission until its completion has been taken off the queue; and the table is not freed while one
//! is there.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use bytes::Bytes;
use io_uring::types::{Fd, FsyncFlags};
use io_uring::{IoUring, Probe, opcode, squeue};
use parking_lot::Mutex;
use rustix::event::EventfdFlags;
use rustix::io::{Errno, ReadWriteFlags};

use super::files::Handle;

/// Operations that the kernel has at once; more wait in memory. Its queue of completions is twice as long, so it never overflows.
const ENTRIES: usize = 128;

/// What is to be done.
#[derive(Debug)]
pub(super) enum RingAction {
    /// Writes bytes that are aligned as the file needs it; waits until they are durable, if told so.
    Write { pos: u64, data: Bytes, sync: bool },
    /// Makes what is written durable.
    Sync,
}

/// An operation, with all that it needs to stay alive.
#[derive(Debug)]
pub(super) struct RingOp {
    pub(super) token: u64,
    pub(super) file: Handle,
    pub(super) action: RingAction,
}

impl RingOp {
    fn entry(&self) -> squeue::Entry {
        let file = Fd(self.file.file.as_raw_fd());
        match &self.action {
            RingAction::Sync => opcode::Fsync::new(file).flags(FsyncFlags::DATASYNC).build(),
            RingAction::Write { pos, data, sync } => {
                let flags = if *sync { ReadWriteFlags::DSYNC } else { ReadWriteFlags::empty() };
                opcode::Write::new(file, data.as_ptr(), data.len() as u32)
                    .offset(*pos)
                    .rw_flags(flags.bits() as i32)
                    .build()
            }
        }
    }
}

/// The operations that have not been reaped.
#[derive(Debug, Default)]
struct Table {
    slots: Vec<Option<RingOp>>,
    free: Vec<usize>,
    /// Slots that the kernel is yet to get, oldest first.
    waiting: VecDeque<usize>,
}

impl Table {
    fn insert(&mut self, op: RingOp) {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        });
        self.slots[slot] = Some(op);
        self.waiting.push_back(slot);
    }

    fn take(&mut self, slot: usize) -> Option<RingOp> {
        let op = self.slots.get_mut(slot)?.take()?;
        self.free.push(slot);
        Some(op)
    }

    fn live(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    fn next_for_kernel(&mut self) -> Option<usize> {
        let in_kernel = self.live() - self.waiting.len();
        if in_kernel < ENTRIES { self.waiting.pop_front() } else { None }
    }
}

/// An io_uring with an event counter.
pub(super) struct Ring {
    uring: IoUring,
    event: OwnedFd,
    /// Held while entries are put into the submission queue.
    table: Mutex<Table>,
    /// Held while completions are taken off their queue; never taken while `table` is held.
    reaping: Mutex<()>,
}

impl Ring {
    /// A ring, or why the system has none that would do.
    pub(super) fn new() -> io::Result<Self> {
        let uring = IoUring::new(ENTRIES as u32)?;
        let mut probe = Probe::new();
        uring.submitter().register_probe(&mut probe)?;
        if !probe.is_supported(opcode::Write::CODE) || !probe.is_supported(opcode::Fsync::CODE) {
            return Err(io::Error::new(io::ErrorKind::Unsupported, "it knows no writes or no syncs"));
        }
        let event = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        uring.submitter().register_eventfd(event.as_raw_fd())?;
        Ok(Self { uring, event, table: Mutex::default(), reaping: Mutex::new(()) })
    }

    /// The counter that every completion counts up.
    pub(super) fn event(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }

    /// Operations submitted and not reaped.
    pub(super) fn depth(&self) -> usize {
        self.table.lock().live()
    }

    /// Hands an operation to the kernel, now or when there is room for it.
    pub(super) fn submit(&self, op: RingOp) {
        {
            let mut table = self.table.lock();
            table.insert(op);
            self.enqueue(&mut table);
        }
        self.enter();
    }

    /// Fills the submission queue with what waits. `table` is the guarded content of `self.table`.
    fn enqueue(&self, table: &mut Table) {
        // SAFETY: the submission queue is touched here alone, and this function is called with the lock of `self.table` held.
        let mut queue = unsafe { self.uring.submission_shared() };
        while let Some(slot) = table.next_for_kernel() {
            let op = table.slots[slot].as_ref().expect("a slot that waits holds its operation");
            let entry = op.entry().user_data(slot as u64);
            // SAFETY: the entry points to the bytes of `op` and names its file's descriptor. The slot owns both, the bytes do not
            // move with it, and it is emptied only in `reap`, once the kernel has ended the operation; `drop` waits for that,
            // or leaks the table.
            let pushed = unsafe { queue.push(&entry) };
            pushed.expect("the queue has room for as many as the kernel is given at once");
        }
    }

    /// Tells the kernel what is in the submission queue.
    fn enter(&self) {
        while let Err(error) = self.uring.submit() {
            match error.raw_os_error().map(Errno::from_raw_os_error) {
                Some(Errno::INTR) => {}
                // Short of memory for now. What was queued stays so, and must not be forgotten.
                Some(Errno::AGAIN | Errno::BUSY) => std::thread::yield_now(),
                // No other answer is known for a ring that was set up; the next submission or reaping tries again.
                _ => return tracing::error!(%error, "io_uring takes no submissions"),
            }
        }
    }

    /// Takes the completions off the queue, each with the kernel's answer: bytes done, or an error's number, negated.
    pub(super) fn reap(&self, mut each: impl FnMut(RingOp, i32)) {
        let ended: Vec<(usize, i32)> = {
            let _reaping = self.reaping.lock();
            // SAFETY: the completion queue is touched only under the lock of `self.reaping`.
            let queue = unsafe { self.uring.completion_shared() };
            queue.map(|entry| (entry.user_data() as usize, entry.result())).collect()
        };
        if ended.is_empty() {
            return;
        }
        let (ops, more) = self.settle(ended);
        if more {
            self.enter();
        }
        ops.into_iter().for_each(|(op, answer)| each(op, answer));
    }

    /// Empties the slots of what has ended; says also whether something was queued instead.
    fn settle(&self, ended: Vec<(usize, i32)>) -> (Vec<(RingOp, i32)>, bool) {
        let mut table = self.table.lock();
        let mut ops = Vec::with_capacity(ended.len());
        for (slot, answer) in ended {
            if was_not_tried(answer) {
                table.waiting.push_back(slot);
            } else {
                ops.extend(table.take(slot).map(|op| (op, answer)));
            }
        }
        let more = !table.waiting.is_empty();
        self.enqueue(&mut table);
        (ops, more)
    }

    /// Whether there is something to reap.
    pub(super) fn has_completions(&self) -> bool {
        let _reaping = self.reaping.lock();
        // SAFETY: the completion queue is touched only under the lock of `self.reaping`.
        let queue = unsafe { self.uring.completion_shared() };
        !queue.is_empty()
    }
}

/// The kernel cancels what a thread submitted and a worker has not begun when that thread ends. The same write to the same place
/// may be done again, by a thread that lives.
fn was_not_tried(answer: i32) -> bool {
    let again = [Errno::CANCELED, Errno::INTR, Errno::AGAIN];
    answer < 0 && again.contains(&Errno::from_raw_os_error(-answer))
}

impl Drop for Ring {
    fn drop(&mut self) {
        while self.depth() > 0 {
            if let Err(error) = self.uring.submit_and_wait(1)
                && error.kind() != io::ErrorKind::Interrupted
            {
                tracing::error!(%error, "io_uring cannot be drained; its buffers are left to the kernel");
                std::mem::forget(std::mem::take(&mut *self.table.lock()));
                return;
            }
            self.reap(|_, _| {});
        }
    }
}

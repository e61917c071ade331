//! A thread that watches a shard's descriptors until an I/O thread does.

use std::os::fd::{BorrowedFd, OwnedFd, RawFd};
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Arc, Weak};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};
use sabir_base::panics::AbortOnPanic;

use super::Shard;

/// How often it looks whether it is still needed.
const LOOK: Duration = Duration::from_millis(100);

impl Shard {
    /// Descriptors of the caller's own; the shard is to be driven whenever one becomes readable.
    pub(crate) fn event_fds(&self) -> std::io::Result<Vec<OwnedFd>> {
        let mut fds = vec![self.applies.signal.fd().try_clone_to_owned()?];
        if let Some(fd) = self.replicator.event_fd() {
            fds.push(duplicate(fd)?);
        }
        Ok(fds)
    }

    /// From now on an I/O thread watches the descriptors.
    pub(crate) fn watched_outside(&self) {
        self.applies.watched.store(true, SeqCst);
    }

    /// Watches the descriptors on a thread of its own, until [`watched_outside`](Self::watched_outside).
    pub(super) fn watch_inside(self: &Arc<Self>) -> std::io::Result<()> {
        let fds = self.event_fds()?;
        let shard = Arc::downgrade(self);
        let name = format!("shard-{}", self.id);
        std::thread::Builder::new().name(name).spawn(move || {
            let _guard = AbortOnPanic;
            watch(&fds, &shard);
        })?;
        Ok(())
    }
}

/// The descriptor belongs to the shard's disk, which may close it before the watcher ends: so the watcher gets its own.
fn duplicate(fd: RawFd) -> std::io::Result<OwnedFd> {
    // SAFETY: the disk keeps its descriptor open for as long as the replicator lives, which the caller holds during this call.
    let borrowed = unsafe { BorrowedFd::borrow_raw(fd) };
    borrowed.try_clone_to_owned()
}

fn watch(fds: &[OwnedFd], shard: &Weak<Shard>) {
    let timeout = Timespec { tv_sec: 0, tv_nsec: LOOK.as_nanos() as i64 };
    loop {
        let mut polled: Vec<_> = fds.iter().map(|fd| PollFd::new(fd, PollFlags::IN)).collect();
        let ready = rustix::event::poll(&mut polled, Some(&timeout)).is_ok_and(|ready| ready > 0);
        let Some(shard) = shard.upgrade().filter(|shard| !shard.applies.watched.load(SeqCst)) else { return };
        if ready {
            clear(&fds[1..]);
            shard.drive();
        }
    }
}

/// Clears event counters before the work, so that what arrives during it is seen again. The signal clears itself.
fn clear(counters: &[OwnedFd]) {
    for fd in counters {
        let _ = rustix::io::read(fd, &mut [0u8; 8]);
    }
}

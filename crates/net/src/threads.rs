//! I/O threads: each a current-thread runtime that serves its connections and drives its share of the shards.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::SyncSender;
use std::thread::JoinHandle;

use sabir_base::panics::{self, AbortOnPanic};
use sabir_base::wake;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::LocalSet;
use tokio_util::sync::CancellationToken;

use crate::connection::LocalBoxFuture;
use crate::run_queue;

/// What an I/O thread watches for another part of the process: whenever `fd` becomes readable, `drive` is called. It must not block.
pub struct Watched {
    /// What becomes readable; edge-triggered, never read here.
    pub fd: OwnedFd,
    /// What is called then.
    pub drive: Box<dyn Fn() + Send>,
}

/// Something to be run on an I/O thread.
pub(crate) type Job = Box<dyn FnOnce() -> LocalBoxFuture + Send>;

/// The handle to one I/O thread.
pub(crate) struct IoThread {
    pub(crate) connections: Arc<AtomicUsize>,
    jobs: UnboundedSender<Job>,
    thread: Option<JoinHandle<()>>,
}

impl IoThread {
    /// Starts thread `number`. It ends when `stop` is cancelled, dropping whatever still runs there.
    pub(crate) fn start(number: usize, watched: Vec<Watched>, stop: CancellationToken) -> io::Result<Self> {
        let (jobs, queue) = unbounded_channel();
        let (ready, started) = std::sync::mpsc::sync_channel(1);
        let run = move || {
            // The connections that are served here, and the shards that are watched here, would wait for ever.
            let _guard = AbortOnPanic;
            Self::work(watched, queue, stop, &ready);
        };
        let thread = std::thread::Builder::new().name(format!("io-{number}")).spawn(run)?;
        started.recv().unwrap_or_else(|_| Err(io::Error::other("the I/O thread ended at once")))?;
        Ok(Self { connections: Arc::new(AtomicUsize::new(0)), jobs, thread: Some(thread) })
    }

    fn work(
        watched: Vec<Watched>,
        queue: UnboundedReceiver<Job>,
        stop: CancellationToken,
        ready: &SyncSender<io::Result<()>>,
    ) {
        match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => {
                wake::register_io_thread();
                // The receiver waits below; it cannot be gone.
                let _ = ready.send(Ok(()));
                LocalSet::new().block_on(&runtime, work(watched, queue, stop));
            }
            Err(error) => drop(ready.send(Err(error))),
        }
    }

    /// Runs a job on the thread. After it has been stopped, nothing happens.
    pub(crate) fn run(&self, job: Job) {
        let _ = self.jobs.send(job);
    }

    /// Connections it serves.
    pub(crate) fn load(&self) -> usize {
        self.connections.load(Relaxed)
    }

    /// Waits for its end.
    pub(crate) fn join(&mut self) {
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("an I/O thread panicked");
        }
    }
}

async fn work(watched: Vec<Watched>, mut queue: UnboundedReceiver<Job>, stop: CancellationToken) {
    tokio::task::spawn_local(wake::dispatch());
    tokio::task::spawn_local(run_queue::run());
    for one in watched {
        tokio::task::spawn_local(watch(one));
    }
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            job = queue.recv() => match job {
                Some(job) => drop(tokio::task::spawn_local(job())),
                None => return,
            },
        }
    }
}

async fn watch(watched: Watched) {
    // SAFETY: the descriptor is owned and given away here, so it is open and the same for as long as the `AsyncFd` is.
    let registered = unsafe { AsyncFd::register_with_interest(watched.fd, Interest::READABLE) };
    let fd = match registered {
        Ok(fd) => fd,
        Err(error) => return tracing::error!(%error, "a shard cannot be watched; it answers nobody"),
    };
    loop {
        match fd.readable().await {
            // Cleared before the call: what becomes ready during it is seen as a new edge.
            Ok(mut guard) => guard.clear_ready(),
            Err(error) => return tracing::error!(%error, "a shard is watched no longer"),
        }
        panics::contain(&watched.drive);
    }
}

//! Work that is too long for an I/O thread: a few threads do it, each job a piece at a time, in turns.

mod askers;
mod checks;
mod crowding;
mod memory;
mod requests;
mod turns;
mod unpacking;

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use self::askers::{Addresses, Asker};
pub use self::checks::{Checked, Checks};
use self::crowding::LongRequests;
use self::memory::JobMemory;
use self::requests::RequestTurns;
pub use self::turns::Turn;
use self::turns::{Stops, Turns};
use crate::memory::FrameMemory;

/// The node's threads for what decompresses and compresses, one for two processors, and for requests that are long. A job waits for
/// memory with those of its size, and then takes turns with the others under way: of a size, the address goes first for which the workers have
/// worked least, and its connections in the order of asking.
#[derive(Debug, Clone)]
pub struct Workers {
    shared: Arc<Shared>,
    /// The connection that asks by this handle, or the node.
    asker: Arc<Asker>,
}

/// How large a job is known to be. Each size has memory of its own, so that none waits for larger ones to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum JobSize {
    /// It takes some milliseconds, as far as is known.
    Small,
    /// It takes up to some tens of them.
    Modest,
    /// It takes up to a hundred or so.
    Medium,
    /// It takes more, up to a second or so.
    Large,
    /// It takes seconds.
    Slow,
}

impl JobSize {
    const COUNT: usize = 5;
    const ALL: [Self; Self::COUNT] = [Self::Small, Self::Modest, Self::Medium, Self::Large, Self::Slow];

    /// Memory for jobs of this size, in KiB, on a node whose frames share so many bytes.
    fn memory(self, frame_memory: usize) -> u32 {
        let (sixteenths, least, most) = match self {
            Self::Small | Self::Modest | Self::Medium => (1, 1 << 10, 64 << 10),
            Self::Large => (3, 1 << 10, 192 << 10),
            Self::Slow => (4, 8 << 10, 256 << 10),
        };
        u32::try_from(frame_memory / 16 * sixteenths / 1024).unwrap_or(u32::MAX).clamp(least, most)
    }

    /// How many are under way at the most, whatever little memory they take: they share the turns.
    fn at_once(self) -> usize {
        match self {
            Self::Small => 64,
            Self::Modest | Self::Medium => 16,
            Self::Large | Self::Slow => 4,
        }
    }
}

/// What a job takes.
#[derive(Debug, Clone, Copy)]
pub struct JobCost {
    /// Bytes of memory, at the most.
    pub bytes: usize,
    /// How large it is.
    pub size: JobSize,
}

#[derive(Debug)]
struct Shared {
    memory: [JobMemory; JobSize::COUNT],
    turns: Turns,
    requests: RequestTurns,
    addresses: Arc<Addresses>,
    stopped: Arc<AtomicBool>,
    long: Arc<LongRequests>,
}

impl Workers {
    /// The workers of a node whose frames share `frame_memory` bytes. Jobs have a part of that beside them for each size, and no more than they can
    /// use: small, modest and medium ones a sixteenth, large ones three, slow ones four.
    pub fn of_node(frame_memory: usize) -> Self {
        Self::new_on(LongRequests::new(None), frame_memory)
    }

    /// The same, beside that memory: where frames wait for it, requests that the workers look at for long are [over](Checks::is_over) early.
    pub fn beside(frame_memory: &FrameMemory) -> Self {
        Self::new_on(LongRequests::new(Some(frame_memory.clone())), frame_memory.total())
    }

    fn new_on(long: Arc<LongRequests>, frame_memory: usize) -> Self {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        Self::with((processors / 2).max(1), processors, frame_memory, long)
    }

    /// Bytes that all jobs have on such a node, beside the frames.
    pub fn memory(frame_memory: usize) -> usize {
        JobSize::ALL.iter().map(|size| size.memory(frame_memory) as usize * 1024).sum()
    }

    /// Bytes that one check of a batch may take: all that the largest jobs have.
    fn check_memory(&self) -> usize {
        self.shared.memory_of(JobSize::Slow).kib as usize * 1024
    }

    #[cfg(test)]
    fn new(turns: usize, processors: usize, frame_memory: usize) -> Self {
        Self::with(turns, processors, frame_memory, LongRequests::new(None))
    }

    fn with(turns: usize, processors: usize, frame_memory: usize, long: Arc<LongRequests>) -> Self {
        let shared = Shared {
            memory: JobSize::ALL.map(|size| JobMemory::new(size, frame_memory)),
            turns: Turns::new(turns),
            requests: RequestTurns::new(processors),
            addresses: Arc::default(),
            stopped: Arc::default(),
            long,
        };
        Self { shared: Arc::new(shared), asker: Arc::new(Asker::node()) }
    }

    /// The same workers, asked by a connection from that address: one handle is made for each connection and used for all that it asks for.
    #[must_use]
    pub fn asked_from(&self, ip: IpAddr) -> Self {
        let asker = Asker::connection(&self.shared.addresses, ip);
        Self { shared: self.shared.clone(), asker: Arc::new(asker) }
    }

    /// Ends the jobs under way at their next pauses and begins no more: no connection is answered any more, and nothing comes of what is asked for.
    pub fn stop(&self) {
        self.shared.stopped.store(true, Relaxed);
    }

    /// Does work, with a turn that is to be passed on after each piece; `None` if it panicked. If it is not waited for any more it ends at
    /// its next pause, or is not begun; so it does once the workers are stopped, and then this waits for ever.
    pub async fn run<T: Send + 'static>(
        &self,
        cost: JobCost,
        work: impl FnOnce(&mut Turn<'_>) -> T + Send + 'static,
    ) -> Option<T> {
        let (shared, address) = (self.shared.clone(), self.asker.address().clone());
        let waited_for = WaitedFor(Arc::default());
        let stops = Stops { gone: waited_for.0.clone(), stopped: shared.stopped.clone() };
        shared.turns.arrive(&address, cost.size);
        let granted = shared.memory_of(cost.size).ask(&shared, cost, address.clone()).await.ok()?;
        let job = move || {
            let _give_back = granted;
            shared.turns.take(cost.size, address, stops).work(work)
        };
        let done = tokio::task::spawn_blocking(job).await.ok().flatten();
        if done.is_none() && self.shared.stopped.load(Relaxed) {
            // The runtime ends soon, and with it this task.
            std::future::pending::<()>().await;
        }
        done
    }
}

/// Says when it is dropped that a job is not waited for any more.
struct WaitedFor(Arc<AtomicBool>);

impl Drop for WaitedFor {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

impl Shared {
    fn memory_of(&self, size: JobSize) -> &JobMemory {
        &self.memory[size as usize]
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
    use std::time::{Duration, Instant};

    use super::*;

    fn busy(time: Duration) {
        let began = Instant::now();
        while began.elapsed() < time {
            std::hint::spin_loop();
        }
    }

    #[tokio::test]
    async fn a_short_job_does_not_wait_for_a_long_one_to_end() {
        let workers = Workers::new(1, 2, 512 << 20);
        let (begun, over) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let long = tokio::spawn({
            let (workers, begun, over) = (workers.clone(), begun.clone(), over.clone());
            async move {
                let pieces = move |turn: &mut Turn<'_>| {
                    begun.store(true, Relaxed);
                    let since = Instant::now();
                    while !over.load(Relaxed) && since.elapsed() < Duration::from_secs(30) {
                        busy(Duration::from_millis(5));
                        turn.pause();
                    }
                    Instant::now()
                };
                workers.run(JobCost { bytes: 1 << 30, size: JobSize::Slow }, pieces).await
            }
        });
        while !begun.load(Relaxed) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        for _ in 0..5 {
            let short = workers.run(JobCost { bytes: 1000, size: JobSize::Small }, |_| Instant::now()).await;
            assert!(short.is_some());
            assert!(!long.is_finished());
        }
        over.store(true, Relaxed);
        assert!(long.await.unwrap().is_some());
    }

    #[tokio::test]
    async fn what_jobs_take_follows_the_nodes_memory_and_all_of_them_are_done() {
        let mib = |workers: &Workers| JobSize::ALL.map(|size| workers.shared.memory_of(size).kib >> 10);
        assert_eq!(mib(&Workers::new(1, 2, 512 << 20)), [32, 32, 32, 96, 128]);
        assert_eq!(mib(&Workers::new(1, 2, 8 << 30)), [64, 64, 64, 192, 256]);
        let little = Workers::new(1, 2, 16 << 20);
        assert_eq!(mib(&little), [1, 1, 1, 3, 8]);
        assert_eq!((little.check_memory(), Workers::memory(16 << 20)), (8 << 20, 14 << 20));
        for (bytes, size) in
            [0, 1000, 1 << 30].into_iter().flat_map(|bytes| JobSize::ALL.map(|size| (bytes, size)))
        {
            assert_eq!(little.run(JobCost { bytes, size }, |_| 7).await, Some(7));
        }
    }

    #[tokio::test]
    async fn memory_bounds_how_many_are_under_way_and_comes_back() {
        let workers = Workers::new(4, 2, 512 << 20);
        let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let jobs: Vec<_> = (0..8)
            .map(|_| {
                let (workers, running, most) = (workers.clone(), running.clone(), most.clone());
                tokio::spawn(async move {
                    let work = move |_: &mut Turn<'_>| {
                        most.fetch_max(running.fetch_add(1, Relaxed) + 1, Relaxed);
                        busy(Duration::from_millis(20));
                        running.fetch_sub(1, Relaxed);
                    };
                    workers.run(JobCost { bytes: 45 << 20, size: JobSize::Large }, work).await
                })
            })
            .collect();
        for job in jobs {
            assert!(job.await.unwrap().is_some());
        }
        let all = JobCost { bytes: usize::MAX, size: JobSize::Large };
        assert!(most.load(Relaxed) <= 2, "{most:?} at once");
        assert_eq!(workers.run(all, |_| panic!("on purpose")).await, None::<()>);
        assert_eq!(workers.shared.memory_of(JobSize::Large).free(), 96 << 10);
    }
}

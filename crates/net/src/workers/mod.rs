//! Work that is too long for an I/O thread: a few threads do it, each job a piece at a time, in turns.

mod checks;
mod requests;
mod turns;
mod unpacking;

use std::sync::Arc;

use sabir_base::panics::contain;
use tokio::sync::Semaphore;

pub use self::checks::{Checked, Checks};
use self::requests::RequestTurns;
pub use self::turns::Turn;
use self::turns::Turns;

/// The node's threads for what decompresses and compresses, one for two processors, and for requests that are long. A job waits for
/// memory with those of its size, in the order of asking, and then takes turns with the others under way.
#[derive(Debug, Clone)]
pub struct Workers {
    shared: Arc<Shared>,
}

/// How large a job is known to be. Each size has memory of its own, so that none waits for larger ones to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum JobSize {
    /// It takes some milliseconds, as far as is known.
    Small,
    /// It takes some tens of them.
    Medium,
    /// It takes more, up to a second or so.
    Large,
    /// It takes seconds.
    Slow,
}

impl JobSize {
    const COUNT: usize = 4;
    const ALL: [Self; Self::COUNT] = [Self::Small, Self::Medium, Self::Large, Self::Slow];

    /// Memory for jobs of this size, in KiB: the most of it, and in which parts of the frames' memory it is counted, and how many.
    fn memory(self) -> (u32, usize, usize) {
        match self {
            Self::Small | Self::Medium => (64 << 10, 8, 1),
            Self::Large => (192 << 10, 8, 3),
            Self::Slow => (256 << 10, 8, 4),
        }
    }

    /// How many are under way at the most, whatever little memory they take: they share the turns.
    fn at_once(self) -> usize {
        match self {
            Self::Small => 64,
            Self::Medium => 16,
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
}

/// Memory that jobs share.
#[derive(Debug)]
struct JobMemory {
    free: Semaphore,
    kib: u32,
}

impl JobMemory {
    fn new(size: JobSize, frame_memory: usize) -> Self {
        let (most, of, parts) = size.memory();
        let kib = most.min(u32::try_from(frame_memory / of * parts / 1024).unwrap_or(u32::MAX)).max(1024);
        Self { free: Semaphore::new(kib as usize), kib }
    }

    /// What a job takes of it. What needs more than all of it has all of it.
    fn part(&self, cost: JobCost) -> u32 {
        let least = self.kib as usize / cost.size.at_once();
        cost.bytes.div_ceil(1024).max(least).clamp(1, self.kib as usize) as u32
    }
}

impl Workers {
    /// The workers of a node whose frames share `frame_memory` bytes. Jobs have a part of that for each size, and no more than they can use:
    /// small and medium ones an eighth, large ones three eighths, slow ones a half.
    pub fn of_node(frame_memory: usize) -> Self {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        Self::new((processors / 2).max(1), processors, frame_memory)
    }

    fn new(turns: usize, processors: usize, frame_memory: usize) -> Self {
        let shared = Shared {
            memory: JobSize::ALL.map(|size| JobMemory::new(size, frame_memory)),
            turns: Turns::new(turns),
            requests: RequestTurns::new(processors),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Does work, with a turn that is to be passed on after each piece; `None` if it panicked. It ends whether it is waited for or not.
    pub async fn run<T: Send + 'static>(
        &self,
        cost: JobCost,
        work: impl FnOnce(&mut Turn<'_>) -> T + Send + 'static,
    ) -> Option<T> {
        let shared = self.shared.clone();
        let memory = shared.memory_of(cost.size);
        let kib = memory.part(cost);
        let granted = memory.free.acquire_many(kib).await.ok()?;
        granted.forget();
        let granted = Granted { shared: shared.clone(), kib, size: cost.size };
        let job = move || {
            let _give_back = granted;
            let mut turn = shared.turns.take(cost.size);
            contain(|| work(&mut turn))
        };
        tokio::task::spawn_blocking(job).await.ok().flatten()
    }
}

impl Shared {
    fn memory_of(&self, size: JobSize) -> &JobMemory {
        &self.memory[size as usize]
    }
}

/// Memory that a job took, given back when it ends.
struct Granted {
    shared: Arc<Shared>,
    kib: u32,
    size: JobSize,
}

impl Drop for Granted {
    fn drop(&mut self) {
        self.shared.memory_of(self.size).free.add_permits(self.kib as usize);
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
        assert_eq!(mib(&Workers::new(1, 2, 512 << 20)), [64, 64, 192, 256]);
        assert_eq!(mib(&Workers::new(1, 2, 8 << 30)), [64, 64, 192, 256]);
        let little = Workers::new(1, 2, 16 << 20);
        assert_eq!(mib(&little), [2, 2, 6, 8]);
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
                    workers.run(JobCost { bytes: 90 << 20, size: JobSize::Large }, work).await
                })
            })
            .collect();
        for job in jobs {
            assert!(job.await.unwrap().is_some());
        }
        let all = JobCost { bytes: usize::MAX, size: JobSize::Large };
        assert!(most.load(Relaxed) <= 2, "{most:?} at once");
        assert_eq!(workers.run(all, |_| panic!("on purpose")).await, None::<()>);
        assert_eq!(workers.shared.memory_of(JobSize::Large).free.available_permits(), 192 << 10);
    }
}

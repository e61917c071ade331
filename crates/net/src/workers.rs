//! Work that is too long for an I/O thread: a few threads do it, each job a piece at a time, in turns.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use parking_lot::{FairMutex, FairMutexGuard};
use sabir_base::panics::contain;
use sabir_model::batch::{BatchRefusal, CheckCost, CheckedBatch, LongCheck};
use tokio::sync::Semaphore;

/// Memory for jobs of up to 4 MiB each, in KiB. They never wait for a large one to end.
const SMALL_KIB: u32 = 64 << 10;
/// Memory for larger ones, in KiB, and for those of them that may take seconds: they do not keep the others waiting.
const LARGE_KIB: u32 = 256 << 10;
const SLOW_KIB: u32 = 256 << 10;
/// Bytes of a small job.
const SMALL: usize = 4 << 20;

/// Threads for what decompresses and compresses, one for two processors. A job waits for memory, in the order of asking, and then takes
/// turns with the others under way: after each piece it is the turn of the one that has waited longest.
#[derive(Debug, Clone)]
pub struct Workers {
    shared: Arc<Shared>,
}

/// What a job takes.
#[derive(Debug, Clone, Copy)]
pub struct JobCost {
    /// Bytes of memory, at the most.
    pub bytes: usize,
    /// Whether it may take seconds.
    pub slow: bool,
}

#[derive(Debug)]
struct Shared {
    small: Semaphore,
    large: Semaphore,
    slow: Semaphore,
    /// Who holds one works.
    turns: Vec<Arc<FairMutex<()>>>,
    next: AtomicUsize,
}

impl Default for Workers {
    fn default() -> Self {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        Self::new((processors / 2).max(1))
    }
}

impl Workers {
    fn new(threads: usize) -> Self {
        let shared = Shared {
            small: Semaphore::new(SMALL_KIB as usize),
            large: Semaphore::new(LARGE_KIB as usize),
            slow: Semaphore::new(SLOW_KIB as usize),
            turns: (0..threads).map(|_| Arc::default()).collect(),
            next: AtomicUsize::new(0),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Does work, and calls what it is given after each piece; `None` if it panicked. It ends whether
    /// it is waited for or not.
    pub async fn run<T: Send + 'static>(
        &self,
        cost: JobCost,
        work: impl FnOnce(&mut dyn FnMut()) -> T + Send + 'static,
    ) -> Option<T> {
        let shared = self.shared.clone();
        let (memory, most) = shared.memory(cost);
        // What needs more than all of it has all of it.
        let kib = cost.bytes.div_ceil(1024).clamp(1, most as usize) as u32;
        let granted = memory.acquire_many(kib).await.ok()?;
        granted.forget();
        let turns = shared.turns[shared.next.fetch_add(1, Relaxed) % shared.turns.len()].clone();
        let give_back = Granted { shared, kib, cost };
        let job = move || {
            let _give_back = give_back;
            let mut turn = turns.lock();
            contain(|| work(&mut || FairMutexGuard::bump(&mut turn)))
        };
        tokio::task::spawn_blocking(job).await.ok().flatten()
    }
}

impl Workers {
    /// Has the records of a batch looked at.
    ///
    /// # Errors
    /// Why the batch is not taken.
    pub async fn check(&self, batch: LongCheck) -> Result<CheckedBatch, BatchRefusal> {
        let batch = Arc::new(batch);
        if let Some(small) = batch.first_limit() {
            match self.check_within(batch.clone(), small).await {
                Err(refusal) if refusal.exceeds() => {}
                done => return done,
            }
        }
        let limit = batch.limit();
        self.check_within(batch, limit).await
    }

    async fn check_within(&self, batch: Arc<LongCheck>, limit: usize) -> Result<CheckedBatch, BatchRefusal> {
        let CheckCost { bytes, slow } = batch.cost(limit);
        let checked = self.run(JobCost { bytes, slow }, move |pause| batch.run(limit, pause)).await;
        checked.unwrap_or(Err(BatchRefusal::Failed))
    }
}

impl Shared {
    /// What memory a job has a part of, and how much of it there is, in KiB.
    fn memory(&self, cost: JobCost) -> (&Semaphore, u32) {
        match cost {
            JobCost { bytes, .. } if bytes <= SMALL => (&self.small, SMALL_KIB),
            JobCost { slow: false, .. } => (&self.large, LARGE_KIB),
            JobCost { slow: true, .. } => (&self.slow, SLOW_KIB),
        }
    }
}

/// Memory that a job took, given back when it ends.
struct Granted {
    shared: Arc<Shared>,
    kib: u32,
    cost: JobCost,
}

impl Drop for Granted {
    fn drop(&mut self) {
        self.shared.memory(self.cost).0.add_permits(self.kib as usize);
    }
}

#[cfg(test)]
mod tests {
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
        let workers = Workers::new(1);
        let long = tokio::spawn({
            let workers = workers.clone();
            async move {
                let pieces = |pause: &mut dyn FnMut()| {
                    (0..200).for_each(|_| {
                        busy(Duration::from_millis(5));
                        pause();
                    });
                    Instant::now()
                };
                workers.run(JobCost { bytes: 1 << 30, slow: true }, pieces).await
            }
        });
        tokio::time::sleep(Duration::from_millis(50)).await;
        for _ in 0..5 {
            let short = workers.run(JobCost { bytes: 1000, slow: false }, |_| Instant::now()).await;
            assert!(short.is_some());
            assert!(!long.is_finished());
        }
        assert!(long.await.unwrap().is_some());
    }

    #[tokio::test]
    async fn memory_bounds_how_many_are_under_way_and_comes_back() {
        let workers = Workers::new(4);
        let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let jobs: Vec<_> = (0..8)
            .map(|_| {
                let (workers, running, most) = (workers.clone(), running.clone(), most.clone());
                tokio::spawn(async move {
                    let work = move |_: &mut dyn FnMut()| {
                        most.fetch_max(running.fetch_add(1, Relaxed) + 1, Relaxed);
                        busy(Duration::from_millis(20));
                        running.fetch_sub(1, Relaxed);
                    };
                    workers.run(JobCost { bytes: 100 << 20, slow: false }, work).await
                })
            })
            .collect();
        for job in jobs {
            assert!(job.await.unwrap().is_some());
        }
        let all = JobCost { bytes: usize::MAX, slow: false };
        assert!(most.load(Relaxed) <= 2, "{most:?} at once");
        assert_eq!(workers.run(all, |_| panic!("on purpose")).await, None::<()>);
        assert_eq!(workers.shared.large.available_permits(), LARGE_KIB as usize);
    }
}

//! Work that is too long for an I/O thread: a few threads do it, each job a piece at a time, in turns.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use parking_lot::{FairMutex, FairMutexGuard};
use sabir_base::panics::contain;
use sabir_model::batch::{BatchCheck, BatchRefusal, CheckCost, CheckedBatch, LongCheck};
use tokio::sync::Semaphore;

/// Memory for jobs of up to 4 MiB each, in KiB, at the most. They never wait for a large one to end.
const SMALL_KIB: u32 = 64 << 10;
/// Memory for larger ones, in KiB, and as much for those of them that may take seconds: they do not keep the others waiting.
const LARGE_KIB: u32 = 256 << 10;
/// Bytes of a small job.
const SMALL: usize = 4 << 20;
/// Small checks go to a worker together: so many, and of so many bytes.
const TOGETHER: usize = 256;
const TOGETHER_BYTES: usize = 1 << 20;

/// The node's threads for what decompresses and compresses, one for two processors. A job waits for memory, in the order of asking, and
/// then takes turns with the others under way: after each piece it is the turn of the one that has waited longest.
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
    small: JobMemory,
    large: JobMemory,
    slow: JobMemory,
    /// A thread that holds one works.
    turns: Vec<Arc<FairMutex<()>>>,
    next: AtomicUsize,
}

/// Memory that jobs share.
#[derive(Debug)]
struct JobMemory {
    free: Semaphore,
    kib: u32,
}

impl JobMemory {
    fn new(kib: u32) -> Self {
        Self { free: Semaphore::new(kib as usize), kib }
    }
}

impl Workers {
    /// The workers of a node whose frames share `frame_memory` bytes: small jobs have an eighth of that, large ones a half, slow ones a
    /// half, none of them more than it can use.
    pub fn of_node(frame_memory: usize) -> Self {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        Self::new((processors / 2).max(1), frame_memory)
    }

    fn new(threads: usize, frame_memory: usize) -> Self {
        let share = |most: u32, part| most.min(u32::try_from(frame_memory / part / 1024).unwrap_or(u32::MAX));
        let small = share(SMALL_KIB, 8).max(1024);
        let large = share(LARGE_KIB, 2).max(4096);
        let shared = Shared {
            small: JobMemory::new(small),
            large: JobMemory::new(large),
            slow: JobMemory::new(large),
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
        let memory = shared.memory(cost);
        // What needs more than all of it has all of it.
        let kib = cost.bytes.div_ceil(1024).clamp(1, memory.kib as usize) as u32;
        let granted = memory.free.acquire_many(kib).await.ok()?;
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

/// What comes of a check.
pub type Checked = Result<CheckedBatch, BatchRefusal>;

impl Workers {
    /// Ends the next checks of a request, in order: one that takes much alone, small ones together. What comes of them is no more than a
    /// batch made anew, or slices of what came; it is to be appended before the next are ended. Nothing comes of none.
    pub async fn check_next(&self, begun: &mut VecDeque<BatchCheck>) -> Vec<Checked> {
        let mut small = Small::default();
        while !small.is_full() {
            match begun.pop_front() {
                None => break,
                Some(BatchCheck::Long(long)) if !is_small(&long) => {
                    if small.checks.is_empty() {
                        return vec![self.check(long).await];
                    }
                    begun.push_front(BatchCheck::Long(long));
                    break;
                }
                Some(check) => small.push(check),
            }
        }
        self.check_small(small).await
    }

    async fn check_small(&self, Small { checks, bytes }: Small) -> Vec<Checked> {
        if bytes == 0 {
            return checks.into_iter().map(|check| end(check, &mut || {})).collect();
        }
        let count = checks.len();
        let job = move |pause: &mut dyn FnMut()| -> Vec<Checked> {
            checks.into_iter().map(|check| end(check, pause)).collect()
        };
        let done = self.run(JobCost { bytes: SMALL, slow: false }, job).await;
        done.unwrap_or_else(|| vec![Err(BatchRefusal::Failed); count])
    }

    /// Has the records of a batch looked at.
    ///
    /// # Errors
    /// Why the batch is not taken.
    pub async fn check(&self, batch: LongCheck) -> Result<CheckedBatch, BatchRefusal> {
        let batch = Arc::new(batch);
        for lower in batch.lower_limits() {
            match self.check_within(batch.clone(), lower).await {
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

/// Checks that take little, and those between them that were done at once.
#[derive(Default)]
struct Small {
    checks: Vec<BatchCheck>,
    /// Bytes of batches that are still to be looked at.
    bytes: usize,
}

impl Small {
    fn push(&mut self, check: BatchCheck) {
        self.bytes += if let BatchCheck::Long(long) = &check { long.bytes() } else { 0 };
        self.checks.push(check);
    }

    fn is_full(&self) -> bool {
        self.checks.len() >= TOGETHER || self.bytes >= TOGETHER_BYTES
    }
}

fn is_small(check: &LongCheck) -> bool {
    let CheckCost { bytes, slow } = check.cost(check.limit());
    !slow && bytes <= SMALL && check.bytes() <= TOGETHER_BYTES
}

fn end(check: BatchCheck, pause: &mut dyn FnMut()) -> Checked {
    match check {
        BatchCheck::Done(batch) => Ok(batch),
        BatchCheck::Long(long) => {
            pause();
            long.run(long.limit(), pause)
        }
    }
}

impl Shared {
    /// What memory a job has a part of.
    fn memory(&self, cost: JobCost) -> &JobMemory {
        match cost {
            JobCost { bytes, .. } if bytes <= SMALL => &self.small,
            JobCost { slow: false, .. } => &self.large,
            JobCost { slow: true, .. } => &self.slow,
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
        self.shared.memory(self.cost).free.add_permits(self.kib as usize);
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
        let workers = Workers::new(1, 512 << 20);
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
    async fn what_jobs_take_follows_the_nodes_memory_and_all_of_them_are_done() {
        let kib = |workers: &Workers| (workers.shared.small.kib, workers.shared.large.kib);
        assert_eq!(kib(&Workers::new(1, 512 << 20)), (SMALL_KIB, LARGE_KIB));
        assert_eq!(kib(&Workers::new(1, 8 << 30)), (SMALL_KIB, LARGE_KIB));
        let little = Workers::new(1, 16 << 20);
        assert_eq!(kib(&little), (2 << 10, 8 << 10));
        for bytes in [0, 1000, SMALL, 1 << 30] {
            assert_eq!(little.run(JobCost { bytes, slow: false }, |_| 7).await, Some(7));
        }
    }

    #[tokio::test]
    async fn memory_bounds_how_many_are_under_way_and_comes_back() {
        let workers = Workers::new(4, 512 << 20);
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
        assert_eq!(workers.shared.large.free.available_permits(), LARGE_KIB as usize);
    }
}

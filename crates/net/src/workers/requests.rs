//! Requests that are long to decode, to handle and to answer: each on a thread of its own for as long as it works, so that no I/O thread
//! is kept from its connections, and what it waits for in between keeps no thread.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use tokio::sync::{Notify, Semaphore};

use super::Workers;

/// Requests of up to so many bytes, and larger ones, wait for those of their size alone: the work grows with the bytes.
const SIZES: [usize; 5] = [16 << 10, 64 << 10, 256 << 10, 1 << 20, 4 << 20];

/// How many requests of each size work at a time.
#[derive(Debug)]
pub(super) struct RequestTurns([Semaphore; SIZES.len() + 1]);

impl RequestTurns {
    pub(super) fn new(processors: usize) -> Self {
        Self(std::array::from_fn(|_| Semaphore::new(processors)))
    }

    fn of(&self, bytes: usize) -> &Semaphore {
        &self.0[SIZES.partition_point(|size| *size < bytes)]
    }
}

/// Notes that a future is to be polled again.
struct Woken(Notify);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.notify_one();
    }
}

impl Workers {
    /// What comes of handling a request of so many bytes, which is polled on other threads than the caller's. A poll under way is ended
    /// whether it is waited for or not.
    ///
    /// # Panics
    /// If the future does.
    pub async fn handle<T: Send + 'static>(
        &self,
        bytes: usize,
        mut handling: Pin<Box<dyn Future<Output = T> + Send>>,
    ) -> T {
        let woken = Arc::new(Woken(Notify::new()));
        loop {
            let shared = self.shared.clone();
            let waker = Waker::from(woken.clone());
            let turns = shared.requests.of(bytes);
            turns.acquire().await.expect("it is never closed").forget();
            let turn = GiveBack { workers: self.clone(), bytes };
            let poll = move || {
                let _turn = turn;
                let polled = handling.as_mut().poll(&mut Context::from_waker(&waker));
                (handling, polled)
            };
            let (pending, polled) = match tokio::task::spawn_blocking(poll).await {
                Ok(done) => done,
                Err(error) => match error.try_into_panic() {
                    Ok(panic) => std::panic::resume_unwind(panic),
                    // The runtime ends, and with it this task.
                    Err(_) => std::future::pending().await,
                },
            };
            match polled {
                Poll::Ready(done) => return done,
                Poll::Pending => handling = pending,
            }
            woken.0.notified().await;
        }
    }
}

/// A turn that is given back when it is dropped.
struct GiveBack {
    workers: Workers,
    bytes: usize,
}

impl Drop for GiveBack {
    fn drop(&mut self) {
        self.workers.shared.requests.of(self.bytes).add_permits(1);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
    use std::time::{Duration, Instant};

    use super::*;

    fn work(time: Duration) {
        let began = Instant::now();
        while began.elapsed() < time {
            std::hint::spin_loop();
        }
    }

    #[tokio::test]
    async fn the_callers_thread_is_free_while_requests_work_and_few_of_them_do_at_a_time() {
        let workers = Workers::new(1, 1, 64 << 20);
        let (working, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let answered = Arc::new(AtomicBool::new(false));
        let one = |bytes| {
            let (workers, working, most) = (workers.clone(), working.clone(), most.clone());
            let answered = answered.clone();
            let handling = async move {
                let began = Instant::now();
                for _ in 0..3 {
                    most.fetch_max(working.fetch_add(1, SeqCst) + 1, SeqCst);
                    work(Duration::from_millis(20));
                    // The large ones work until the small one is answered.
                    while bytes > 1000 && !answered.load(SeqCst) && began.elapsed() < Duration::from_secs(30)
                    {
                        work(Duration::from_millis(1));
                    }
                    working.fetch_sub(1, SeqCst);
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                bytes
            };
            tokio::spawn(async move { workers.handle(bytes, Box::pin(handling)).await })
        };
        let all: Vec<_> = (0..10).map(|_| one(8 << 20)).collect();
        tokio::task::yield_now().await;
        assert_eq!(one(1000).await.unwrap(), 1000);
        assert!(!all.iter().any(tokio::task::JoinHandle::is_finished), "it waited for them");
        answered.store(true, SeqCst);
        for one in all {
            assert_eq!(one.await.unwrap(), 8 << 20);
        }
        assert!((1..=3).contains(&most.load(SeqCst)), "{most:?}");
    }

    #[tokio::test]
    async fn a_panic_is_the_callers_and_its_turn_is_given_back() {
        let workers = Workers::new(1, 1, 64 << 20);
        for _ in 0..3 {
            let workers = workers.clone();
            let panicking = tokio::spawn(async move {
                workers.handle(8 << 20, Box::pin(async { panic!("on purpose") })).await
            });
            assert!(panicking.await.unwrap_err().is_panic());
        }
        assert_eq!(workers.handle(8 << 20, Box::pin(async { 7 })).await, 7);
    }
}

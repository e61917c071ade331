//! The API's work on threads beside the one that serves: probes are answered ahead of it.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

use crate::Admin;
use crate::api::Problem;

/// Workers that make the API's answers.
pub const API: usize = 2;

/// Does work that takes long, such as making a large answer. What finds no worker free waits its turn.
#[derive(Clone)]
pub struct AnswerWorkers(Arc<Semaphore>);

impl AnswerWorkers {
    /// So many workers.
    pub fn new(count: usize) -> Self {
        Self(Arc::new(Semaphore::new(count)))
    }

    /// What `work` comes to. It waits for nothing outside the broker's memory: work that waits keeps a worker from all others.
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Problem> {
        let worker = self.0.clone().acquire_owned().await.expect("it is never closed");
        let doing = move || {
            let _worker = worker;
            work()
        };
        tokio::task::spawn_blocking(doing).await.map_err(|error| {
            tracing::error!(%error, "a request to the admin port was not answered");
            Problem::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                "internal",
                "it could not be answered; see the log",
            )
        })
    }
}

/// Has a worker answer what only looks, and needs no more of the client for it. What changes something waits for the client's bytes and for
/// the disk, and gives the workers what takes long by itself; health has no turn to wait for.
pub async fn answer(State(admin): State<Admin>, request: Request, next: Next) -> Response {
    let looks = matches!(*request.method(), Method::GET | Method::HEAD);
    if !looks || request.uri().path() == "/health" {
        return next.run(request).await;
    }
    let answered = admin.workers.run(move || Handle::current().block_on(next.run(request))).await;
    answered.unwrap_or_else(Problem::into_response)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
    use std::time::{Duration, Instant};

    use sabir_net::Registry;

    use crate::testing::{Served, broker_options, code, open};
    use crate::{Options, ServedFrontend, Shown};

    /// How many answers are being made, and whether they may end.
    #[derive(Default)]
    struct Making {
        begun: AtomicUsize,
        may_end: AtomicBool,
    }

    const PATIENCE: Duration = Duration::from_secs(30);

    /// A port on which an answer is not made until it may be.
    fn slow(served: &mut Served, making: Arc<Making>) -> tempfile::TempDir {
        let data = tempfile::tempdir().unwrap();
        let broker = open(broker_options(data.path()));
        let front_ends = move || -> Vec<ServedFrontend> {
            making.begun.fetch_add(1, SeqCst);
            let began = Instant::now();
            while !making.may_end.load(SeqCst) && began.elapsed() < PATIENCE {
                std::thread::sleep(Duration::from_millis(1));
            }
            Vec::new()
        };
        served.admin.running(Shown {
            broker: broker.clone(),
            figures: Vec::new(),
            front_ends: Box::new(front_ends),
            registry: Registry::default(),
            routes: Vec::new(),
        });
        served.broker = Some(broker);
        data
    }

    #[tokio::test]
    async fn health_is_answered_ahead_of_answers_that_take_long() {
        let mut served = Served::with(Options { metrics_limit: 1, ..Options::default() });
        let making = Arc::new(Making::default());
        let _data = slow(&mut served, making.clone());
        let served = Arc::new(served);
        let mut asked = tokio::task::JoinSet::new();
        for _ in 0..10 {
            let served = served.clone();
            asked.spawn(async move { code(&served.get("/sabir/v1/node").await) });
        }
        let began = Instant::now();
        while making.begun.load(SeqCst) == 0 {
            assert!(began.elapsed() < PATIENCE, "none is being made");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
        for path in ["/livez", "/readyz", "/metrics", "/sabir/v1/health"].repeat(3) {
            let asked = tokio::time::timeout(PATIENCE, served.get(path)).await;
            assert_eq!(code(&asked.expect("none of the others ends before")), 200);
        }
        assert!(asked.try_join_next().is_none(), "an answer ended before it might");
        making.may_end.store(true, SeqCst);
        assert_eq!(asked.join_all().await, [200; 10]);
    }
}

//! The HTTP server: few connections, short requests, nothing that waits for ever.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use axum::routing::get;
use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;

use crate::{Admin, api, health, metrics};

/// Connections at once; a further one waits in the listen queue.
const CONNECTIONS: usize = 64;
/// A request's head must be there by then.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// A connection ends by then, whatever it does: a scraper opens another one.
const CONNECTION_AGE: Duration = Duration::from_secs(300);

/// Who asks.
#[derive(Debug, Clone, Copy)]
pub struct Peer(pub SocketAddr);

/// Serves from non-blocking sockets until `stop` is ready. Answers under way are cut off.
pub async fn serve(sockets: Vec<std::net::TcpListener>, admin: Admin, stop: impl Future<Output = ()>) {
    let router = router(admin);
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let mut accepting = JoinSet::new();
    for socket in sockets {
        match TcpListener::from_std(socket) {
            Ok(listener) => drop(accepting.spawn(accept(listener, router.clone(), places.clone()))),
            Err(error) => tracing::error!(%error, "the admin port cannot be served"),
        }
    }
    stop.await;
}

fn router(admin: Admin) -> Router {
    Router::new()
        .route("/livez", get(health::live))
        .route("/readyz", get(health::ready))
        .route("/metrics", get(metrics::show))
        .nest(api::PREFIX, api::router())
        .fallback(|| async { (StatusCode::NOT_FOUND, "there are /livez, /readyz, /metrics and /sabir/v1\n") })
        .with_state(admin)
}

async fn accept(listener: TcpListener, router: Router, places: Arc<Semaphore>) {
    // The semaphore is never closed.
    while let Ok(place) = places.clone().acquire_owned().await {
        match listener.accept().await {
            Ok((stream, peer)) => drop(tokio::spawn(connection(stream, peer, router.clone(), place))),
            Err(error) => {
                tracing::warn!(%error, "the admin port cannot accept a connection");
                // Out of file descriptors, most likely: trying again at once would only burn the CPU.
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn connection(stream: TcpStream, peer: SocketAddr, router: Router, _place: OwnedSemaphorePermit) {
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
    let service = TowerToHyperService::new(router.layer(Extension(Peer(peer))));
    let serving = server.serve_connection(TokioIo::new(stream), service);
    if let Ok(Err(error)) = tokio::time::timeout(CONNECTION_AGE, serving).await {
        tracing::debug!(%peer, %error, "admin connection");
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::{Served, code};

    #[tokio::test]
    async fn a_starting_server_lives_but_is_not_ready() {
        let served = Served::starting();
        assert_eq!(code(&served.get("/livez").await), 200);
        let ready = served.get("/readyz").await;
        assert!(ready.starts_with("HTTP/1.1 503") && ready.contains("journal is being opened"), "{ready}");
        let metrics = served.get("/metrics").await;
        assert!(metrics.contains("application/openmetrics-text") && metrics.contains("\nsabir_ready 0\n"));
        assert!(
            metrics.ends_with("# EOF\n") && metrics.contains("process_resident_memory_bytes"),
            "{metrics}"
        );
        assert_eq!(code(&served.get("/else").await), 404);
        assert_eq!(code(&served.ask("nonsense\r\n\r\n").await), 400);
        served.admin.stopping();
        assert!(served.get("/readyz").await.contains("stopping"));
    }
}

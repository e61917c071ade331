//! The HTTP server: few connections, short requests, nothing that waits for ever.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use axum::body::HttpBody;
use axum::extract::Request;
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::Response;
use axum::routing::get;
use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rustix::net::sockopt;
use sabir_base::descriptors;
use sabir_base::throttle::LogThrottle;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::connections::{HttpConnection, HttpConnections, ListedConnection};
use crate::stream::TimedStream;
use crate::{Admin, api, health, host, metrics, mounted, undated, workers};

/// A request's head must be there by then.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// A connection ends by then, whatever it does: a scraper opens another one.
const CONNECTION_AGE: Duration = Duration::from_secs(300);
/// How often it is logged that no connection can be accepted.
const COMPLAIN_EVERY: Duration = Duration::from_secs(10);
/// How long nothing is accepted after that, if there is nothing to give up for it.
const PAUSE: Duration = Duration::from_millis(100);
/// Bytes of an answer that the system holds for a client that does not read.
const SEND_BUFFER: usize = 128 * 1024;

/// The address of the client.
#[derive(Debug, Clone, Copy)]
pub struct Peer(pub SocketAddr);

/// Serves from non-blocking sockets until `stop` is ready. Answers under way are cut off.
pub async fn serve(sockets: Vec<std::net::TcpListener>, admin: Admin, stop: impl Future<Output = ()>) {
    let open = HttpConnections::new(admin.options.connections);
    let router = router(admin);
    let mut accepting = JoinSet::new();
    for socket in sockets {
        match TcpListener::from_std(socket) {
            Ok(listener) => drop(accepting.spawn(accept(listener, router.clone(), open.clone()))),
            Err(error) => tracing::error!(%error, "the admin port cannot be served"),
        }
    }
    stop.await;
}

pub fn router(admin: Admin) -> Router {
    Router::new()
        .route("/livez", get(health::live))
        .route("/readyz", get(health::ready))
        .route("/metrics", get(metrics::show))
        .nest(api::PREFIX, api::router().layer(from_fn_with_state(admin.clone(), workers::answer)))
        .fallback(mounted::answer)
        .layer(from_fn(count_answer))
        .layer(from_fn_with_state(admin.clone(), host::check))
        .with_state(admin)
}

/// Has other answers give way to this one, where together they are too large.
async fn count_answer(
    Extension(open): Extension<HttpConnections>,
    Extension(connection): Extension<Arc<HttpConnection>>,
    request: Request,
    next: Next,
) -> Response {
    let answer = next.run(request).await;
    open.answer(&connection, answer.body().size_hint().lower() as usize);
    answer
}

async fn accept(listener: TcpListener, router: Router, open: HttpConnections) {
    let throttle = LogThrottle::new(COMPLAIN_EVERY);
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                let registered = open.enter(peer.ip());
                let router = router.clone().layer(Extension(Peer(peer))).layer(Extension(open.clone()));
                tokio::spawn(connection(stream, peer, router, registered));
                // It has its turn before the next one that might displace it.
                tokio::task::yield_now().await;
            }
            Err(error) => {
                complain(&throttle, &error);
                if descriptors::are_lacking(&error) && open.relieve() {
                    // It closes its socket in its turn.
                    tokio::task::yield_now().await;
                } else {
                    // Trying again at once would only burn the CPU.
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }
}

fn complain(throttle: &LogThrottle, error: &std::io::Error) {
    if throttle.allows(Instant::now()) {
        tracing::warn!(%error, "the admin port cannot accept a connection; raise the open-file limit (ulimit -n)?");
    }
}

async fn connection(stream: TcpStream, peer: SocketAddr, router: Router, registered: ListedConnection) {
    let connection = registered.connection.clone();
    let router = router.layer(Extension(connection.clone()));
    if let Err(error) = sockopt::set_socket_send_buffer_size(&stream, SEND_BUFFER) {
        tracing::debug!(%peer, %error, "admin connection");
    }
    let serving = serve_one(TimedStream::new(stream, connection.clone()), router);
    tokio::select! {
        served = tokio::time::timeout(CONNECTION_AGE, serving) => if let Ok(Err(error)) = served {
            tracing::debug!(%peer, %error, "admin connection");
        },
        () = connection.ended() => tracing::debug!(%peer, "admin connection closed: others need its place"),
    }
}

async fn serve_one(
    stream: TimedStream,
    router: Router,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    if !undated::can_date(SystemTime::now()) {
        return Ok(undated::serve(stream, router).await?);
    }
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
    Ok(server.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router)).await?)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    use sabir_base::clock::SystemClock;
    use sabir_broker::testing::Disks;
    use sabir_model::ShardId;
    use tokio::io::AsyncReadExt;

    use crate::Options;
    use crate::testing::{Served, broker_options, code};

    #[tokio::test]
    async fn a_starting_server_lives_but_is_not_ready() {
        let served = Served::starting();
        assert_eq!(code(&served.get("/livez").await), 200);
        let ready = served.get("/readyz").await;
        assert!(ready.starts_with("HTTP/1.1 503") && ready.contains("journal is being opened"), "{ready}");
        let metrics = served.get("/metrics").await;
        assert!(metrics.contains("content-type: text/plain; version=0.0.4") && !metrics.contains("# EOF"));
        let accept = "accept: application/openmetrics-text\r\n";
        let metrics = served.send("GET", "/metrics", accept, "").await;
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

    #[tokio::test]
    async fn while_a_disk_is_frozen_readyz_says_so_and_livez_goes_on() {
        let data = tempfile::tempdir().unwrap();
        let clock = Arc::new(SystemClock);
        let (broker, disks) = Disks::open(broker_options(data.path()), clock).unwrap();
        let served = Served::over(broker.clone(), Options::default());
        assert_eq!(code(&served.get("/readyz").await), 200);
        disks.hang(ShardId(0));
        let waits =
            tokio::spawn(async move { broker.allocate_producer_id(&sabir_broker::Caller::OPERATOR).await });
        let began = Instant::now();
        let not_ready = loop {
            assert_eq!(code(&served.get("/livez").await), 200);
            let answer = served.get("/readyz").await;
            if code(&answer) != 200 {
                break answer;
            }
            assert!(began.elapsed() < Duration::from_secs(30), "it is frozen and was not told of");
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
        assert!(began.elapsed() > Duration::from_secs(4), "a slow disk is none that is frozen");
        assert!(
            not_ready.contains("not ready: shard 0: its disk has not finished a read or write for 5 s"),
            "{not_ready}"
        );
        disks.resume();
        assert!(waits.await.unwrap().is_ok());
        assert_eq!(code(&served.get("/readyz").await), 200);
    }

    #[tokio::test]
    async fn connections_that_say_nothing_keep_nobody_out() {
        let served = Served::starting();
        let mut idle = Vec::new();
        for _ in 0..200 {
            idle.push(served.connect().await);
            let asked = tokio::time::timeout(Duration::from_secs(30), served.get("/livez"));
            assert_eq!(code(&asked.await.expect("answered at once")), 200);
        }
        let mut byte = [0];
        let gone = tokio::time::timeout(Duration::from_secs(30), idle[0].read(&mut byte)).await;
        assert_eq!(gone.expect("the quietest was closed").unwrap_or(0), 0);
    }

    #[tokio::test]
    async fn a_port_that_is_asked_by_a_strange_name_tells_only_that_it_lives() {
        let served = Served::with(Options { hosts: vec!["broker.lan".into()], ..Options::default() });
        let ask = async |path: &str, host: &str| {
            let head = format!("GET {path} HTTP/1.1\r\nconnection: close\r\n{host}\r\n");
            served.ask(&head).await
        };
        for path in ["/readyz", "/metrics", "/sabir/v1/topics", "/sabir/v1/openapi.json", "/else"] {
            for host in ["host: evil.example\r\n", "host: [::1].evil.example\r\n", "host: \r\n"] {
                let answer = ask(path, host).await;
                assert!(code(&answer) == 421 && answer.contains("admin.hosts"), "{path} {host}: {answer}");
            }
            for other in ["evil.example", "localhost"] {
                let (here, there) = ("host: localhost\r\n", format!("host: {other}\r\n"));
                for host in [format!("{here}{there}"), format!("{there}{here}")] {
                    let answer = ask(path, &host).await;
                    assert!(
                        code(&answer) == 400 && answer.contains("more than one Host"),
                        "{path} {host}: {answer}"
                    );
                }
            }
            for host in ["host: broker.lan\r\n", "host: 127.0.0.1\r\n", ""] {
                assert_ne!(code(&ask(path, host).await), 421, "{path} {host}");
            }
            for name in
                ["evil.example", "[::1].evil.example", "localhost@evil.example", "localhost:1@evil.example"]
            {
                for host in ["host: localhost\r\n", ""] {
                    let answer = ask(&format!("http://{name}{path}"), host).await;
                    // What is no address of a page at all is not taken for a request.
                    assert!(matches!(code(&answer), 400 | 421), "{name}: {answer}");
                }
            }
            let answer = ask(&format!("http://localhost{path}"), "host: localhost\r\n").await;
            assert_ne!(code(&answer), 421, "{answer}");
        }
        assert_eq!(code(&ask("/livez", "host: evil.example\r\n").await), 200);
    }
}

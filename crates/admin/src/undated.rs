//! Answers under a clock that HTTP cannot write. hyper makes out the date of its answers, whether it is sent or not, and panics where
//! the clock is before 1970 or after 9999; so such a connection is answered here, one request without a body.

use std::io;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri};
use axum::response::IntoResponse;
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Seconds from the epoch to the year 10000.
const YEAR_10000: u64 = 253_402_300_800;
/// Bytes of a request that are looked at.
const HEAD_MAX: usize = 8 << 10;
/// A request must be there by then.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// Whether HTTP can write this time.
pub fn can_date(now: SystemTime) -> bool {
    now.duration_since(UNIX_EPOCH).is_ok_and(|since| since.as_secs() < YEAR_10000)
}

/// Answers one request.
pub async fn serve(mut stream: impl AsyncRead + AsyncWrite + Unpin, router: Router) -> io::Result<()> {
    let head = tokio::time::timeout(HEAD_TIMEOUT, read_head(&mut stream)).await??;
    let answer = match request(&head) {
        Some(request) if matches!(*request.method(), Method::GET | Method::HEAD) => {
            ask(router, request).await
        }
        Some(_) => {
            let why = "the machine's clock is before 1970 or after 9999: set it first\n";
            (StatusCode::SERVICE_UNAVAILABLE, why).into_response()
        }
        None => StatusCode::BAD_REQUEST.into_response(),
    };
    write(&mut stream, answer, head.starts_with(b"HEAD ")).await
}

async fn read_head(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    while !head.windows(4).any(|end| end == b"\r\n\r\n") && head.len() < HEAD_MAX {
        if stream.read_buf(&mut head).await? == 0 {
            break;
        }
    }
    Ok(head)
}

/// The request of a whole head.
fn request(head: &[u8]) -> Option<Request<Body>> {
    let (head, _) = std::str::from_utf8(head).ok()?.split_once("\r\n\r\n")?;
    let mut lines = head.split("\r\n");
    let mut first = lines.next()?.split(' ');
    let (method, target, version) = (first.next()?, first.next()?, first.next()?);
    let mut request = Request::new(Body::empty());
    *request.method_mut() = method.parse().ok()?;
    *request.uri_mut() = target.parse::<Uri>().ok().filter(|_| version.starts_with("HTTP/1."))?;
    for line in lines {
        let (name, value) = line.split_once(':')?;
        let name = HeaderName::try_from(name).ok()?;
        request.headers_mut().append(name, HeaderValue::try_from(value.trim()).ok()?);
    }
    Some(request)
}

async fn ask(router: Router, request: Request<Body>) -> Response<Body> {
    TowerToHyperService::new(router).call(request).await.into_response()
}

async fn write(
    stream: &mut (impl AsyncWrite + Unpin),
    answer: Response<Body>,
    head_only: bool,
) -> io::Result<()> {
    let (parts, body) = answer.into_parts();
    let body = to_bytes(body, usize::MAX).await.map_err(io::Error::other)?;
    let mut out =
        format!("HTTP/1.1 {}\r\nconnection: close\r\ncontent-length: {}\r\n", parts.status, body.len())
            .into_bytes();
    for (name, value) in parts.headers.iter().filter(|(name, _)| *name != "content-length") {
        out.extend_from_slice(&[name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat());
    }
    out.extend_from_slice(b"\r\n");
    if !head_only {
        out.extend_from_slice(&body);
    }
    stream.write_all(&out).await?;
    stream.shutdown().await
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use axum::Extension;

    use super::*;
    use crate::connections::HttpConnections;
    use crate::http::{Peer, router};
    use crate::testing::code;
    use crate::{Admin, Options};

    #[test]
    fn which_times_http_can_write() {
        assert!(can_date(SystemTime::now()) && can_date(UNIX_EPOCH));
        assert!(!can_date(UNIX_EPOCH - Duration::from_millis(1)));
        let last = UNIX_EPOCH + Duration::from_secs(YEAR_10000) - Duration::from_millis(1);
        assert!(can_date(last) && !can_date(last + Duration::from_millis(1)));
    }

    async fn ask(request: &str) -> String {
        let open = HttpConnections::new(2);
        let peer = SocketAddr::from(([127, 0, 0, 1], 1));
        let registered = open.enter(peer.ip());
        let router = router(Admin::new(Options::default()))
            .layer(Extension(Peer(peer)))
            .layer(Extension(open.clone()))
            .layer(Extension(registered.connection.clone()));
        let (mut client, server) = tokio::io::duplex(1 << 20);
        client.write_all(request.as_bytes()).await.unwrap();
        serve(server, router).await.unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn what_is_asked_under_such_a_clock_is_answered() {
        let get = async |path: &str| ask(&format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n")).await;
        assert_eq!(code(&get("/livez").await), 200);
        let ready = get("/readyz").await;
        assert!(code(&ready) == 503 && ready.contains("journal is being opened"), "{ready}");
        let metrics = get("/metrics").await;
        assert!(code(&metrics) == 200 && metrics.contains("content-type: text/plain; version=0.0.4"));
        assert!(metrics.contains("\nsabir_ready 0\n"), "{metrics}");
        assert_eq!(code(&get("/else").await), 404);
        let head = ask("HEAD /livez HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
        assert!(code(&head) == 200 && head.ends_with("\r\n\r\n"), "{head}");
        assert_eq!(code(&ask("GET /metrics HTTP/1.1\r\nhost: evil.example\r\n\r\n").await), 421);
        let post = ask("POST /sabir/v1/topics HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
        assert!(code(&post) == 503 && post.contains("clock"), "{post}");
        for nonsense in ["nonsense\r\n\r\n", "GET /livez SMTP\r\n\r\n", "GET /livez HTTP/1.1\r\nhost\r\n\r\n"]
        {
            assert_eq!(code(&ask(nonsense).await), 400, "{nonsense}");
        }
    }
}

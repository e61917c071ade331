//! What protocols mount beside the port's own paths. The port's rules hold there, too: by which names it may be asked, from where changes
//! are taken, how many connections there are, how large a body is, and how problems are told.

use axum::Router;
use axum::body::to_bytes;
use axum::extract::{DefaultBodyLimit, Request, State as Extracted};
use axum::http::{Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;

use crate::api::{BODY, Problem, check_writer};
use crate::{Admin, State};

/// A protocol's routes, so that they can be asked.
pub fn mounted(prefix: &'static str, routes: Router) -> Router {
    let routes = routes.method_not_allowed_fallback(not_allowed);
    // What a protocol says itself of paths that it lacks, and of large bodies, comes before this.
    Router::new().nest(prefix, routes).fallback(unknown).layer(DefaultBodyLimit::max(BODY))
}

/// Answers what is none of the port's own paths.
pub async fn answer(Extracted(admin): Extracted<Admin>, request: Request) -> Response {
    let path = request.uri().path();
    let Some(prefix) = admin.options.prefixes.iter().copied().find(|prefix| lies_below(path, prefix)) else {
        return (StatusCode::NOT_FOUND, nothing_here(&admin)).into_response();
    };
    match routes_at(&admin, prefix).and_then(|routes| check_change(&admin, &request).map(|()| routes)) {
        Ok(routes) => ask(routes, request).await,
        Err(problem) => problem.into_response(),
    }
}

fn routes_at(admin: &Admin, prefix: &str) -> Result<Router, Problem> {
    let unavailable =
        |detail: &str| Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", detail));
    match admin.state() {
        State::Running(shown) => {
            let routes = shown.routes.iter().find(|(mounted, _)| *mounted == prefix);
            routes.map(|(_, routes)| routes.clone()).ok_or_else(nothing)
        }
        State::Starting => unavailable("the broker is starting: the journal is being opened"),
        State::Stopping => unavailable("the broker is stopping"),
    }
}

/// What only looks is taken from everywhere.
fn check_change(admin: &Admin, request: &Request) -> Result<(), Problem> {
    match *request.method() {
        Method::GET | Method::HEAD | Method::OPTIONS => Ok(()),
        _ => check_writer(admin, request.extensions(), request.headers()),
    }
}

async fn ask(routes: Router, request: Request) -> Response {
    match TowerToHyperService::new(routes).call(request).await {
        Ok(answer) => as_problem(answer).await,
        Err(never) => match never {},
    }
}

/// A refusal that is told in plain text, as that of a body that makes no sense, is told as all others here are.
async fn as_problem(answer: Response) -> Response {
    let form = answer.headers().get(header::CONTENT_TYPE).and_then(|form| form.to_str().ok());
    let plain = form.is_some_and(|form| form.starts_with("text/plain"));
    let status = answer.status();
    if !plain || !(status.is_client_error() || status.is_server_error()) {
        return answer;
    }
    let said = to_bytes(answer.into_body(), BODY).await.unwrap_or_default();
    Problem::new(status, kind_of(status), String::from_utf8_lossy(&said)).into_response()
}

/// What programs tell a problem by that a protocol told by its status alone.
fn kind_of(status: StatusCode) -> &'static str {
    match status {
        StatusCode::FORBIDDEN => "forbidden",
        StatusCode::NOT_FOUND | StatusCode::GONE => "not-found",
        StatusCode::METHOD_NOT_ALLOWED => "method-not-allowed",
        StatusCode::REQUEST_TIMEOUT | StatusCode::GATEWAY_TIMEOUT => "timeout",
        StatusCode::CONFLICT => "conflict",
        StatusCode::PAYLOAD_TOO_LARGE => "too-large",
        StatusCode::UNSUPPORTED_MEDIA_TYPE => "unsupported-media-type",
        StatusCode::MISDIRECTED_REQUEST => "misdirected",
        StatusCode::UNPROCESSABLE_ENTITY => "invalid",
        StatusCode::TOO_MANY_REQUESTS => "busy",
        StatusCode::NOT_IMPLEMENTED => "unsupported",
        StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE => "unavailable",
        StatusCode::INSUFFICIENT_STORAGE => "storage-full",
        _ if status.is_client_error() => "bad-request",
        _ => "internal",
    }
}

fn lies_below(path: &str, prefix: &str) -> bool {
    path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn nothing_here(admin: &Admin) -> String {
    let own = ["/livez", "/readyz", "/metrics"].into_iter().chain(admin.options.prefixes.iter().copied());
    format!("there are {} and /sabir/v1\n", own.collect::<Vec<_>>().join(", "))
}

fn nothing() -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "unknown-path", "there is nothing here")
}

async fn unknown() -> Problem {
    nothing()
}

async fn not_allowed() -> Problem {
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", "this method does nothing here")
}

#[cfg(test)]
mod tests {
    use axum::Json;
    use axum::extract::Path;
    use axum::routing::{get, post};
    use serde_json::{Value, json};

    use super::*;
    use crate::testing::{Served, broker_options, code, content, open};
    use crate::{Options, Writes};

    fn routes() -> Router {
        let fails = async |Path(status): Path<u16>| (StatusCode::from_u16(status).unwrap(), "it says why");
        let echo = async |Json(said): Json<Value>| Json(json!({"said": said}));
        Router::new()
            .route("/things", get(async || Json(json!([1]))).delete(async || StatusCode::NO_CONTENT))
            .route("/echo", post(echo))
            .route("/fails/{status}", get(fails))
            .route(
                "/much",
                post(async |body: String| body.len().to_string()).layer(DefaultBodyLimit::max(1 << 20)),
            )
    }

    fn served(writes: Writes) -> (Served, tempfile::TempDir) {
        let data = tempfile::tempdir().unwrap();
        let options = Options { writes, prefixes: vec!["/test", "/off"], ..Options::default() };
        let broker = open(broker_options(data.path()));
        (Served::with_routes(broker, options, vec![("/test", routes())]), data)
    }

    fn kind(answer: &str) -> String {
        content(answer)["type"].as_str().unwrap().replace("urn:sabir:problem:", "")
    }

    #[tokio::test]
    async fn what_a_protocol_mounts_is_served_below_its_prefix() {
        let (served, _data) = served(Writes::Loopback);
        assert_eq!(served.json("GET", "/test/things", "").await, (200, json!([1])));
        assert_eq!(served.json("POST", "/test/echo", "{\"a\": 1}").await, (200, json!({"said": {"a": 1}})));
        assert_eq!(code(&served.send("DELETE", "/test/things", "", "").await), 204);
        for (method, path, wanted, problem) in [
            ("GET", "/test/none", 404, "unknown-path"),
            ("GET", "/test", 404, "unknown-path"),
            ("PUT", "/test/things", 405, "method-not-allowed"),
            ("GET", "/off/things", 404, "unknown-path"),
        ] {
            let answer = served.send(method, path, "", "").await;
            assert_eq!((code(&answer), &*kind(&answer)), (wanted, problem), "{method} {path}: {answer}");
            assert!(answer.contains("content-type: application/problem+json"), "{answer}");
        }
        let answer = served.get("/tests/things").await;
        assert!(code(&answer) == 404 && answer.contains("/metrics, /test, /off and /sabir/v1"), "{answer}");
    }

    #[tokio::test]
    async fn what_a_protocol_refuses_in_plain_text_has_the_type_of_its_code() {
        let (served, _data) = served(Writes::Loopback);
        for (status, wanted) in [
            (400, "bad-request"),
            (403, "forbidden"),
            (404, "not-found"),
            (405, "method-not-allowed"),
            (408, "timeout"),
            (409, "conflict"),
            (413, "too-large"),
            (415, "unsupported-media-type"),
            (422, "invalid"),
            (429, "busy"),
            (500, "internal"),
            (501, "unsupported"),
            (503, "unavailable"),
            (504, "timeout"),
            (507, "storage-full"),
        ] {
            let answer = served.get(&format!("/test/fails/{status}")).await;
            assert_eq!((code(&answer), &*kind(&answer)), (status, wanted), "{answer}");
            assert_eq!(content(&answer)["detail"], "it says why");
        }
    }

    #[tokio::test]
    async fn the_ports_rules_hold_for_what_is_mounted() {
        for (writes, headers, wanted) in [
            (Writes::Off, "", 403),
            (Writes::Loopback, "", 204),
            (Writes::Anywhere, "", 204),
            (Writes::Loopback, "origin: http://elsewhere.example\r\n", 403),
        ] {
            let (served, _data) = served(writes);
            let answer = served.send("DELETE", "/test/things", headers, "").await;
            assert_eq!(code(&answer), wanted, "{writes:?} {headers}: {answer}");
            assert!(wanted != 403 || kind(&answer) == "forbidden");
            assert_eq!(code(&served.send("GET", "/test/things", headers, "").await), 200);
        }
        let (served, _data) = served(Writes::Loopback);
        let strange = "GET /test/things HTTP/1.1\r\nhost: evil.example\r\nconnection: close\r\n\r\n";
        assert_eq!(code(&served.ask(strange).await), 421);
        let large = format!("\"{}\"", "x".repeat(2 * BODY));
        let refused = served.send("POST", "/test/echo", "", &large).await;
        assert_eq!((code(&refused), &*kind(&refused)), (413, "too-large"));
        let refused = served.send("POST", "/test/echo", "", "{").await;
        assert_eq!((code(&refused), &*kind(&refused)), (400, "bad-request"));
        assert_eq!(code(&served.send("POST", "/test/much", "", &large).await), 200);
    }

    #[tokio::test]
    async fn what_is_mounted_says_so_while_the_broker_is_not_open() {
        let served = Served::with(Options { prefixes: vec!["/test"], ..Options::default() });
        let answer = served.get("/test/things").await;
        assert_eq!((code(&answer), &*kind(&answer)), (503, "unavailable"));
        assert_eq!(code(&served.get("/else").await), 404);
    }
}

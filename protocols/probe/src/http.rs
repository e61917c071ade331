//! Routes on the admin port: an operator asks a client something, and hears its answer.

use std::time::Duration;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::post;
use sabir_broker::push::AskFailure;
use sabir_net::{ConnectionId, Registry};

/// How long a client's answer is waited for.
const PATIENCE: Duration = Duration::from_secs(5);

pub(crate) fn routes(registry: Registry) -> Router {
    Router::new().route("/connections/{id}/ask", post(ask)).with_state(registry)
}

async fn ask(State(registry): State<Registry>, Path(id): Path<u64>, text: String) -> (StatusCode, String) {
    let Some(connection) = registry.get(ConnectionId(id)) else {
        return (StatusCode::NOT_FOUND, format!("there is no connection {id}"));
    };
    // It is a line that the client gets.
    let reply = match connection.ask(text.replace(['\n', '\r'], " ").into()) {
        Ok(reply) => reply,
        Err(failure) => return failed(id, failure),
    };
    match tokio::time::timeout(PATIENCE, reply).await {
        Ok(Ok(answer)) => (StatusCode::OK, String::from_utf8_lossy(&answer).into_owned()),
        Ok(Err(failure)) => failed(id, failure),
        Err(_) => (StatusCode::GATEWAY_TIMEOUT, format!("connection {id}: the client does not answer")),
    }
}

fn failed(id: u64, failure: AskFailure) -> (StatusCode, String) {
    let status = match failure {
        AskFailure::Ended => StatusCode::NOT_FOUND,
        AskFailure::Busy => StatusCode::TOO_MANY_REQUESTS,
        AskFailure::Unsupported => StatusCode::NOT_IMPLEMENTED,
    };
    (status, format!("connection {id}: {failure}"))
}

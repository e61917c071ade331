//! `/sabir/v1`: what the broker holds, as JSON. The description that is served with it says what each answer contains; a test
//! holds the two together.

mod groups;
mod node;
mod problem;
mod request;
mod reset;
mod topics;

use axum::http::{HeaderName, StatusCode, header};
use axum::routing::{MethodRouter, get, post};
use axum::{Json, Router};

use crate::Admin;
pub use problem::Problem;

/// Where all of it lies.
pub const PREFIX: &str = "/sabir/v1";

const OPENAPI: &str = include_str!("openapi.json");

/// Every path and what it takes.
fn routes() -> Vec<(&'static str, MethodRouter<Admin>)> {
    vec![
        ("/openapi.json", get(openapi)),
        ("/health", get(node::health)),
        ("/node", get(node::node)),
        ("/shards", get(node::shards)),
        ("/connections", get(node::connections)),
        ("/topics", get(topics::list).post(topics::create)),
        ("/topics/{name}", get(topics::one).patch(topics::change).delete(topics::remove)),
        ("/groups", get(groups::list)),
        ("/groups/{name}", get(groups::one).delete(groups::remove)),
        ("/groups/{name}/reset", post(reset::reset)),
    ]
}

/// Routes below [`PREFIX`].
pub fn router() -> Router<Admin> {
    let known =
        routes().into_iter().fold(Router::new(), |router, (path, methods)| router.route(path, methods));
    known.fallback(unknown).method_not_allowed_fallback(not_allowed)
}

async fn openapi() -> ([(HeaderName, &'static str); 1], &'static str) {
    ([(header::CONTENT_TYPE, "application/json")], OPENAPI)
}

async fn unknown() -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "unknown-path", "there is nothing here; see /sabir/v1/openapi.json")
}

async fn not_allowed() -> Problem {
    let detail = "this method does nothing here; see /sabir/v1/openapi.json";
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", detail)
}

/// An answer, or what went wrong.
type Answer<T> = Result<Json<T>, Problem>;

/// A number that JSON's readers may keep in a double, and which may be without a bound.
fn bounded(value: i64) -> Option<i64> {
    (value < i64::MAX).then_some(value)
}

#[cfg(test)]
mod tests;

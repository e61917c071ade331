//! `/sabir/v1`: what the broker holds, as JSON. The description that is served with it says what each answer contains; a test
//! holds the two together.

mod connections;
mod definitions;
mod delayed;
mod groups;
mod node;
mod offsets;
mod problem;
mod records;
mod redrives;
mod request;
mod reset;
mod topics;

use axum::http::{HeaderName, Method, StatusCode, Uri, header};
use axum::routing::{MethodRouter, delete, get, patch, post};
use axum::{Json, Router};

use crate::Admin;
pub use problem::Problem;
pub use request::{BODY, check_writer};

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
        ("/connections", get(connections::list)),
        ("/connections/{id}", get(connections::one).delete(connections::close)),
        ("/topics", get(topics::list).post(topics::create)),
        ("/topics/{name}", get(topics::one).patch(topics::change).delete(topics::remove)),
        ("/topics/{name}/delete-records", post(records::delete)),
        ("/topics/{name}/redrive", post(redrives::begin)),
        ("/topics/{name}/subscriptions/{subscription}", delete(topics::unsubscribe)),
        ("/delayed", get(delayed::list).delete(delayed::drop_all)),
        ("/redrives", get(redrives::list)),
        ("/redrives/{id}", get(redrives::one).delete(redrives::cancel)),
        ("/groups", get(groups::list)),
        ("/groups/{id}", get(groups::one).delete(groups::remove)),
        ("/groups/{id}/offsets", patch(offsets::change)),
        ("/groups/{id}/reset", post(reset::reset)),
        ("/definitions", get(definitions::export).post(definitions::import)),
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

/// The header `allow`, which the router adds, names the methods that there are.
async fn not_allowed(method: Method, uri: Uri) -> Problem {
    let why =
        if method == Method::PATCH { unchangeable(uri.path()) } else { "this method does nothing here" };
    let detail = format!("{why}; see /sabir/v1/openapi.json");
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", detail)
}

/// Why what is shown below a path cannot be changed.
fn unchangeable(path: &str) -> &'static str {
    let path = path.strip_prefix(PREFIX).unwrap_or(path);
    match path.split('/').nth(1) {
        Some("node" | "shards") => {
            "what is shown here is set in the broker's configuration, or follows from what it does"
        }
        Some("health" | "connections" | "delayed" | "redrives") => {
            "what is shown here is how things are, and cannot be set"
        }
        Some("topics") => "topics are changed one by one: PATCH /sabir/v1/topics/{name}",
        Some("definitions") => {
            "what is absent is created by POST, and topics are changed by PATCH /sabir/v1/topics/{name}"
        }
        Some("groups") => {
            "a group's members say what it is; its positions are set by POST /sabir/v1/groups/{id}/reset"
        }
        _ => "what is shown here cannot be changed",
    }
}

/// An answer, or what went wrong.
type Answer<T> = Result<Json<T>, Problem>;

/// A number that JSON's readers may keep in a double, and which may be without a bound.
fn bounded(value: i64) -> Option<i64> {
    (value < i64::MAX).then_some(value)
}

#[cfg(test)]
mod tests;

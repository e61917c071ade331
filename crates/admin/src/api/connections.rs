//! Connections: counted, listed, and closed.

use std::net::SocketAddr;
use std::time::SystemTime;

use axum::Json;
use axum::http::StatusCode;
use sabir_net::{ConnectionId, ConnectionView, DropReason};
use serde::Serialize;

use super::Answer;
use super::problem::Problem;
use super::request::{Name, Open, Page, WriteAccess};
use crate::ServedFrontend;

#[derive(Serialize)]
pub struct Connections {
    open: u64,
    protocols: Vec<ProtocolConnections>,
    connections: Vec<ConnectionDetails>,
    next: Option<String>,
}

#[derive(Serialize)]
struct ProtocolConnections {
    protocol: &'static str,
    open: u64,
    accepted: u64,
    refused: u64,
}

#[derive(Serialize)]
pub struct ConnectionDetails {
    id: String,
    protocol: Option<&'static str>,
    peer: SocketAddr,
    local: SocketAddr,
    client: String,
    user: Option<String>,
    since_ms: u64,
    received_bytes: u64,
    sent_bytes: u64,
    received_bytes_per_second: f64,
    sent_bytes_per_second: f64,
}

pub async fn list(Open(shown): Open, page: Page) -> Answer<Connections> {
    page.goes_by(false, false)?;
    let after = page.after.as_deref().map(number).transpose()?;
    let mut listed = shown.registry.list();
    listed.retain(|view| after.is_none_or(|after| view.id > after) && view.client.starts_with(&page.prefix));
    listed.sort_unstable_by_key(|view| view.id);
    let more = listed.len() > page.limit;
    listed.truncate(page.limit);
    let next = listed.last().filter(|_| more).map(|last| last.id.0.to_string());
    let counts = |f: ServedFrontend| ProtocolConnections {
        protocol: f.name,
        open: f.open,
        accepted: f.accepted,
        refused: f.refused,
    };
    let protocols: Vec<_> = (shown.front_ends)().into_iter().map(counts).collect();
    Ok(Json(Connections {
        open: protocols.iter().map(|p| p.open).sum(),
        protocols,
        connections: listed.into_iter().map(connection).collect(),
        next,
    }))
}

fn connection(view: ConnectionView) -> ConnectionDetails {
    let named = |name: String| Some(name).filter(|name| !name.is_empty());
    ConnectionDetails {
        id: view.id.0.to_string(),
        protocol: Some(view.protocol).filter(|name| !name.is_empty()),
        peer: view.peer,
        local: view.local,
        client: view.client,
        user: named(view.user),
        since_ms: view.since.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis() as u64,
        received_bytes: view.received,
        sent_bytes: view.sent,
        received_bytes_per_second: view.receive_rate,
        sent_bytes_per_second: view.send_rate,
    }
}

pub async fn one(Open(shown): Open, Name(name): Name) -> Answer<ConnectionDetails> {
    let open = shown.registry.get(number(&name)?).ok_or_else(|| unknown(&name))?;
    Ok(Json(connection(open.view())))
}

pub async fn close(_: WriteAccess, Open(shown): Open, Name(name): Name) -> Result<StatusCode, Problem> {
    let open = shown.registry.get(number(&name)?).ok_or_else(|| unknown(&name))?;
    open.close(DropReason::Operator);
    Ok(StatusCode::NO_CONTENT)
}

fn number(id: &str) -> Result<ConnectionId, Problem> {
    let bad = |_| Problem::bad_request(format!("expected the number of a connection, not {id:?}"));
    id.parse().map(ConnectionId).map_err(bad)
}

fn unknown(id: &str) -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "unknown-connection", format!("there is no connection {id}"))
}

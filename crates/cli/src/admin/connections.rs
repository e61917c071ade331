//! The connections of a broker's clients.

use hyper::Method;
use sabir_server::client::ClientError;
use serde::{Deserialize, Serialize};

use super::{AdminClient, escaped};
use crate::output::known;

/// Connections asked for at once.
const PAGE: usize = 1000;

/// A connection of a client's, as the admin port shows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ShownConnection {
    pub id: String,
    /// None while it has not said what it speaks.
    pub protocol: Option<String>,
    pub peer: String,
    pub local: String,
    /// What the client calls itself; null for programs where it has not said.
    #[serde(serialize_with = "known_or_null")]
    pub client: String,
    pub user: Option<String>,
    /// Since the epoch.
    pub since_ms: i64,
    pub received_bytes: u64,
    pub sent_bytes: u64,
    pub received_bytes_per_second: f64,
    pub sent_bytes_per_second: f64,
}

fn known_or_null<S: serde::Serializer>(text: &str, out: S) -> Result<S::Ok, S::Error> {
    known(text).serialize(out)
}

#[derive(Deserialize)]
struct ListedConnections {
    connections: Vec<ShownConnection>,
    next: Option<String>,
}

impl AdminClient {
    /// The connections whose clients' names begin so.
    pub async fn connections(&self, client: &str) -> Result<Vec<ShownConnection>, ClientError> {
        let first = format!("/connections?limit={PAGE}&prefix={}", escaped(client));
        let (mut all, mut path) = (Vec::new(), first.clone());
        loop {
            let part: ListedConnections = self.get(&path).await?;
            all.extend(part.connections);
            let Some(next) = part.next else { return Ok(all) };
            path = format!("{first}&after={}", escaped(&next));
        }
    }

    pub async fn connection(&self, id: &str) -> Result<ShownConnection, ClientError> {
        self.get(&format!("/connections/{}", escaped(id))).await
    }

    pub async fn close_connection(&self, id: &str) -> Result<(), ClientError> {
        self.order(Method::DELETE, &format!("/connections/{}", escaped(id)), None).await
    }
}

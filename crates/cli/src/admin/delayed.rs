//! Messages that are kept back until their time.

use std::collections::BTreeMap;

use hyper::Method;
use sabir_server::client::ClientError;
use serde::{Deserialize, Serialize};

use super::{AdminClient, escaped, query};

/// What an exchange keeps back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShownDelayed {
    pub exchange: String,
    pub messages: u64,
    /// When the first of them is due, since the epoch.
    pub earliest_ms: i64,
    /// The same of the last.
    pub latest_ms: i64,
}

/// Which messages are meant.
#[derive(Debug, Clone, Default)]
pub struct DelayedScope {
    pub exchange: Option<String>,
    pub namespace: Option<String>,
}

#[derive(Deserialize)]
struct DelayedPart {
    exchanges: Vec<ShownDelayed>,
    next: Option<String>,
}

#[derive(Deserialize)]
struct DroppedPart {
    dropped: u64,
    next: Option<String>,
}

impl DelayedScope {
    fn path(&self, after: Option<&str>) -> String {
        let rest = after.map(|after| format!("after={}", escaped(after))).unwrap_or_default();
        let said = [("exchange", &self.exchange), ("namespace", &self.namespace)];
        format!("/delayed{}", query(said, &rest))
    }
}

impl AdminClient {
    /// What is kept back, by exchange.
    pub async fn delayed(&self, scope: &DelayedScope) -> Result<Vec<ShownDelayed>, ClientError> {
        let (mut all, mut after) = (BTreeMap::<String, ShownDelayed>::new(), None);
        loop {
            let part: DelayedPart = self.get(&scope.path(after.as_deref())).await?;
            for more in part.exchanges {
                let there =
                    all.entry(more.exchange.clone()).or_insert(ShownDelayed { messages: 0, ..more.clone() });
                there.add(&more);
            }
            after = part.next;
            if after.is_none() {
                return Ok(all.into_values().collect());
            }
        }
    }

    /// Drops it, and tells `dropped` after each part how many messages there were in it.
    pub async fn drop_delayed(
        &self,
        scope: &DelayedScope,
        mut dropped: impl FnMut(u64),
    ) -> Result<(), ClientError> {
        let mut after = None;
        loop {
            let path = scope.path(after.as_deref());
            let part: DroppedPart = self.ask(Method::DELETE, &path, Vec::new().into()).await?;
            dropped(part.dropped);
            after = part.next;
            if after.is_none() {
                return Ok(());
            }
        }
    }
}

impl ShownDelayed {
    fn add(&mut self, more: &Self) {
        self.messages += more.messages;
        self.earliest_ms = self.earliest_ms.min(more.earliest_ms);
        self.latest_ms = self.latest_ms.max(more.latest_ms);
    }
}

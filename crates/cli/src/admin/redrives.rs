//! Dead letters that go back to the queues that gave them up.

use hyper::Method;
use sabir_server::client::ClientError;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{AdminClient, AdminScope, escaped};

/// A redrive, as the admin port shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShownRedrive {
    pub id: String,
    pub queue: String,
    pub namespace: String,
    pub most: Option<u64>,
    pub origin: Option<String>,
    pub reason: Option<String>,
    pub per_second: Option<u32>,
    pub dry_run: bool,
    pub state: String,
    pub error: Option<String>,
    pub read: u64,
    pub wanted: u64,
    pub moved: u64,
    pub refused: u64,
    pub waiting: u64,
    pub taken: u64,
    pub origin_gone: u64,
    pub without_origin: u64,
    pub unreadable: u64,
    pub origins: Vec<ShownOrigin>,
}

/// Messages that a queue gave up for a reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShownOrigin {
    pub queue: String,
    pub reason: Option<String>,
    pub messages: u64,
    pub is_there: bool,
}

#[derive(Deserialize)]
struct ListedRedrives {
    redrives: Vec<ShownRedrive>,
}

impl ShownRedrive {
    pub fn is_running(&self) -> bool {
        self.state == "running"
    }
}

impl AdminClient {
    /// Begins a redrive of a queue's messages.
    pub async fn redrive(
        &self,
        queue: &str,
        namespace: Option<String>,
        wanted: &Value,
    ) -> Result<ShownRedrive, ClientError> {
        let scope = AdminScope { namespace, ..AdminScope::default() };
        let path = format!("/topics/{}/redrive{}", escaped(queue), scope.of_topics(""));
        self.ask(Method::POST, &path, wanted.to_string().into()).await
    }

    pub async fn redrives(&self) -> Result<Vec<ShownRedrive>, ClientError> {
        let listed: ListedRedrives = self.get("/redrives").await?;
        Ok(listed.redrives)
    }

    pub async fn redrive_progress(&self, id: &str) -> Result<ShownRedrive, ClientError> {
        self.get(&format!("/redrives/{}", escaped(id))).await
    }

    pub async fn cancel_redrive(&self, id: &str) -> Result<(), ClientError> {
        self.order(Method::DELETE, &format!("/redrives/{}", escaped(id)), None).await
    }
}

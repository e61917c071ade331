//! An entry that waits for one behind it, and the caller that waits for its answer.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use sabir_broker::{Broker, Caller, EntryRefused, ProjectionEntry, Reply};
use sabir_model::{FrontendNo, ShardFailure, ShardId};
use sabir_net::Tasks;

/// By which entry a projection is told that no caller waits any more for the answer to another one, which it gives then.
#[derive(Clone)]
pub struct GiveUp {
    /// Where both are written.
    pub broker: Broker,
    /// What writes it if the caller that waits goes while the shard has no room.
    pub tasks: Tasks,
    /// The front end's own caller.
    pub caller: &'static Caller,
    /// The shard.
    pub shard: ShardId,
    /// The projection.
    pub projection: FrontendNo,
    /// The command.
    pub command: Bytes,
}

/// The answer to an entry that may wait ([`answer_later`](sabir_broker::projection::Effects::answer_later)). If the caller that waits goes, so does
/// its place: what comes from then on is for others.
pub struct Parked {
    give_up: Option<GiveUp>,
    reply: Reply<Result<Bytes, ShardFailure>>,
}

impl Parked {
    /// Waits for the answer to an entry that was written.
    pub fn new(reply: Reply<Result<Bytes, ShardFailure>>, give_up: GiveUp) -> Self {
        Self { give_up: Some(give_up), reply }
    }

    /// Waits for so long; then it is given up, and the answer is what the projection gives then, which may be what came meanwhile.
    pub async fn within(mut self, limit: Duration) -> Result<Bytes, ShardFailure> {
        if let Ok(answer) = tokio::time::timeout(limit, &mut self).await {
            return answer;
        }
        if let Some(give_up) = self.give_up.clone() {
            give_up.write().await;
        }
        self.await
    }
}

impl Future for Parked {
    type Output = Result<Bytes, ShardFailure>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = ready!(Pin::new(&mut self.reply).poll(cx));
        self.give_up = None;
        Poll::Ready(answer)
    }
}

impl Drop for Parked {
    fn drop(&mut self) {
        // At once where that can be: what comes from now on is for others.
        let Some(give_up) = self.give_up.take().filter(|give_up| !give_up.is_written()) else { return };
        let tasks = give_up.tasks.clone();
        tasks.spawn("give up an entry", move || async move { give_up.write().await });
    }
}

impl GiveUp {
    /// Writes it, once there is room. A shard that takes no entries at all has answered the other one already.
    async fn write(&self) {
        while !self.is_written() {
            self.broker.room(self.shard).await;
        }
    }

    /// Whether there was room for it.
    fn is_written(&self) -> bool {
        let entry = ProjectionEntry::new(self.command.clone());
        let written = self.broker.write(self.caller, self.shard, self.projection, &entry);
        self.broker.flush();
        !matches!(written, Err(EntryRefused::Crowded))
    }
}

//! An entry that waits for one behind it, and the caller that waits for its answer.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use sabir_broker::{Broker, Caller, EntryRefused, ProjectionEntry, Reply};
use sabir_model::{FrontendNo, ShardFailure, ShardId};
use sabir_net::Tasks;

/// How long it is waited before what a full disk did not take is written again.
const AGAIN: Duration = Duration::from_millis(200);

/// What the broker says of an entry.
type Pushed = Result<Reply<Result<Bytes, ShardFailure>>, EntryRefused>;

/// By which entry a projection is told that no caller waits any more for the answer to another one, which it gives then.
#[derive(Clone)]
pub struct GiveUp {
    /// Where both are written.
    pub broker: Broker,
    /// What has it written if the caller that waits goes.
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
/// its place: what comes from then on is for others, and what has come is lost. Where the node itself ends the connection its session therefore
/// [begins](GiveUp::begin) to give up, and waits for the answer ([`Session::give_up`](sabir_net::Session::give_up)).
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
        if let Some(give_up) = self.give_up.take() {
            give_up.begin();
        }
    }
}

impl GiveUp {
    /// Writes it at once where that can be, else as soon as it can: what comes from then on is for others. The projection answers what waits, with what
    /// came meanwhile if anything did; doing it twice is doing it once.
    pub fn begin(self) {
        let began = self.push();
        let tasks = self.tasks.clone();
        tasks.spawn("give up an entry", move || async move { self.finish(began).await });
    }

    /// Writes it: once there is room, and again for as long as the disk is full. A shard that takes no entries at all has answered the other
    /// one already.
    async fn write(&self) {
        self.finish(self.push()).await;
    }

    async fn finish(&self, began: Pushed) {
        let mut pushed = began;
        loop {
            match pushed {
                Ok(reply) => match reply.await {
                    Err(ShardFailure::StorageFull) => tokio::time::sleep(AGAIN).await,
                    _ => return,
                },
                Err(EntryRefused::Crowded) => self.broker.room(self.shard).await,
                Err(EntryRefused::Shard(ShardFailure::StorageFull)) => tokio::time::sleep(AGAIN).await,
                Err(_) => return,
            }
            pushed = self.push();
        }
    }

    /// Has it written by the space kept in reserve: as a deletion does, it lets go of something.
    fn push(&self) -> Pushed {
        let entry = ProjectionEntry { makes_space: true, ..ProjectionEntry::new(self.command.clone()) };
        let written = self.broker.write(self.caller, self.shard, self.projection, &entry);
        self.broker.flush();
        written.map(|(_, reply)| reply)
    }
}

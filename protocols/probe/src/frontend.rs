//! What all connections share.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use sabir_base::metrics::Exposition;
use sabir_base::throttle::LogThrottle;
use sabir_broker::{Broker, Caller, EntryRef, EntryRefused, ProjectionEntry, Reply};
use sabir_frontend::{DeadlineClock, Deadlines, FrontendContext, GiveUp, Listening};
use sabir_model::{FrontendNo, ShardFailure, ShardId};
use sabir_net::{Claim, Connection, ConnectionCounters, Frontend, LocalBoxFuture, Registry, Tasks, Workers};

use crate::protocol::NAME;
use crate::session::ProbeSession;
use crate::state::{State, command};

/// The caller of the broker, for what no client asks for.
pub(crate) static CALLER: Caller = Caller::front_end(NAME);

/// What only a shard's leader does: it has leases end that are over, by an entry.
const LEASES: Deadlines = Deadlines {
    projection: NAME,
    caller: &CALLER,
    next: |view, number| view.projection::<State>(number)?.next_deadline(),
    due: || command("expire"),
};

const COMPLAIN_EVERY: Duration = Duration::from_secs(10);

pub(crate) struct ProbeFrontend {
    pub(crate) broker: Broker,
    pub(crate) workers: Workers,
    pub(crate) registry: Registry,
    pub(crate) tasks: Tasks,
    listening: Vec<Listening>,
    counters: Arc<ConnectionCounters>,
    failed_requests: AtomicU64,
    /// What the log has of clients' errors.
    pub(crate) complaints: LogThrottle,
    /// By the shards' numbers; the first holds no leases.
    clocks: Vec<Arc<DeadlineClock>>,
}

impl ProbeFrontend {
    pub(crate) fn start(place: FrontendContext) -> Arc<Self> {
        let shards = 1..=place.broker.options().data_shards;
        let clock = |shard| DeadlineClock::start(&place.broker, &place.tasks, ShardId(shard), LEASES);
        Arc::new(Self {
            clocks: shards.map(clock).collect(),
            broker: place.broker,
            workers: place.workers,
            registry: place.registry,
            tasks: place.tasks,
            listening: place.listening,
            counters: Arc::new(ConnectionCounters::new(NAME, &[])),
            failed_requests: AtomicU64::default(),
            complaints: LogThrottle::new(COMPLAIN_EVERY),
        })
    }

    /// Its number, by which its records and its entries are known.
    pub(crate) fn number(&self) -> Result<FrontendNo, EntryRefused> {
        self.broker.projection(NAME)
    }

    /// Counts a request that is answered with an error.
    pub(crate) fn count_failed(&self) {
        self.failed_requests.fetch_add(1, Relaxed);
    }

    /// The shard in which the caller's registers and queues live.
    pub(crate) fn home(&self, caller: &Caller) -> ShardId {
        caller.namespace().home(self.broker.options().data_shards)
    }

    pub(crate) fn clock(&self, shard: ShardId) -> &Arc<DeadlineClock> {
        &self.clocks[shard.0 as usize - 1]
    }

    /// Writes a command for the projection; what is written in one turn is flushed together.
    pub(crate) fn write(
        &self,
        caller: &Caller,
        shard: ShardId,
        words: &str,
    ) -> Result<(EntryRef, Reply<Result<Bytes, ShardFailure>>), EntryRefused> {
        let makes_space = !words.split(' ').next().is_some_and(|word| STORES.contains(&word));
        let entry = ProjectionEntry { makes_space, ..ProjectionEntry::new(command(words)) };
        self.broker.write(caller, shard, self.number()?, &entry)
    }

    /// How a client is given up that waits in a shard by an entry.
    pub(crate) fn give_up(&self, shard: ShardId, words: &str) -> Result<GiveUp, EntryRefused> {
        let (broker, tasks, command) = (self.broker.clone(), self.tasks.clone(), command(words));
        Ok(GiveUp { broker, tasks, caller: &CALLER, shard, projection: self.number()?, command })
    }

    /// Where a client is told to connect.
    pub(crate) fn told(&self, listener: usize, local: SocketAddr) -> String {
        self.listening[listener].told(local).to_string()
    }
}

/// Commands of the projection that store something. All others take, settle or remove what is stored: they go on while the disk is full.
const STORES: &[&str] = &["set", "add", "put", "group-make"];

impl Frontend for ProbeFrontend {
    fn name(&self) -> &'static str {
        NAME
    }

    fn claims(&self, first: &[u8]) -> Claim {
        let hello = b"HELLO ";
        match first.len() < hello.len() {
            true if hello.starts_with(first) => Claim::Unsure,
            _ if first.starts_with(hello) => Claim::Mine,
            _ => Claim::Foreign,
        }
    }

    fn serve(self: Arc<Self>, connection: Connection) -> LocalBoxFuture {
        let (session, counters) = (ProbeSession::new(self.clone(), &connection), self.counters.clone());
        Box::pin(sabir_net::drive(connection, session, counters))
    }

    fn metrics(&self, out: &mut Exposition) {
        self.counters.expose(out);
        let help = "Requests that were answered with an error, and lines that are none.";
        out.counter("sabir_probe_failed_requests", help, &[], self.failed_requests.load(Relaxed));
    }
}

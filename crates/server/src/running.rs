//! A running broker: what is started in which order, and stopped in the reverse one.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use sabir_admin::{Admin, Figures, ServedFrontends, Shown};
use sabir_base::clock::SystemClock;
use sabir_base::descriptors;
use sabir_base::metrics::Exposition;
use sabir_broker::{Broker, StartProgress};
use sabir_frontend::config::HostPort;
use sabir_frontend::{FrontendContext, Listening, StartedFrontend, watched};
use sabir_model::Durability;
use sabir_net::{BindError, Frontend, ListenOptions, Listener, Net, NetOptions, ServedAt, Tls};
use tokio::sync::oneshot;
use tracing::warn;

use crate::config::{FrontendConfig, ServerConfig};
use crate::limits::{self, Descriptors};
use crate::memory::{AutoMemory, MemoryFiles, TailCacheSize};
use crate::memory_watch::MemoryWatch;
use crate::start_watch;
use crate::storage::{keep_others_out, others_may, volatile};

/// Why a broker did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServerStartError {
    /// The data directory cannot be opened, or another process has had it for four seconds.
    #[error(transparent)]
    Broker(#[from] sabir_broker::StartError),
    /// An address cannot be listened on.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The system has no more threads or descriptors.
    #[error("cannot start: {0}")]
    System(#[from] std::io::Error),
}

impl ServerStartError {
    /// Whether another process has the data directory, and has kept it for as long as that is waited for.
    pub fn data_in_use(&self) -> bool {
        matches!(self, ServerStartError::Broker(sabir_broker::StartError::InUse { .. }))
    }

    /// Whether the configuration does not fit the data directory, to whose journals nothing was written.
    pub fn is_of_configuration(&self) -> bool {
        matches!(self, ServerStartError::Broker(sabir_broker::StartError::Options(_)))
    }

    /// Whether the process, or the system, had no descriptor left (`ulimit -n`).
    pub fn lacks_descriptors(&self) -> bool {
        match self {
            Self::Broker(error) => error.lacks_descriptors(),
            Self::Bind(BindError::System { source, .. }) | Self::System(source) => {
                descriptors::are_lacking(source)
            }
            Self::Bind(_) => false,
        }
    }
}

/// One protocol that is being served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Serving {
    /// Its name.
    pub protocol: &'static str,
    /// The addresses it listens on.
    pub listening: Vec<ServingAt>,
}

/// An address that a protocol listens on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServingAt {
    /// The address, with its real port.
    pub address: SocketAddr,
    /// What clients are told that come by it.
    pub advertise: HostPort,
    /// Whether they speak TLS there.
    pub tls: bool,
}

impl Serving {
    /// The first address for clients that speak no TLS.
    pub fn plain(&self) -> Option<SocketAddr> {
        self.listening.iter().find(|at| !at.tls).map(|at| at.address)
    }
}

/// A broker that serves.
pub struct Running {
    broker: Broker,
    net: Arc<Net>,
    admin: Admin,
    admin_server: Option<AdminServer>,
    memory: MemoryWatch,
    serving: Vec<Serving>,
    /// All that TLS is served with.
    tls: Vec<Arc<Tls>>,
    drain: Duration,
    took: Duration,
}

/// How a broker stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stopped {
    /// Connections that were cut off, because they had not ended in time.
    pub cut_off: usize,
}

/// How long a start waits for a data directory that another process has.
const LOCK_PATIENCE: Duration = Duration::from_secs(4);
/// How often it looks.
const LOCK_INTERVAL: Duration = Duration::from_millis(50);

/// Opens the data directory and serves. Blocking; returns when every listener takes connections. While another process has the directory
/// it waits for that, up to four seconds.
///
/// # Errors
/// What [`ServerStartError`] lists. Nothing is left running then.
pub fn start(config: ServerConfig) -> Result<Running, ServerStartError> {
    start_watched(config, Arc::default())
}

/// [`start`] where another thread looks how far it is.
pub(crate) fn start_watched(
    config: ServerConfig,
    progress: Arc<StartProgress>,
) -> Result<Running, ServerStartError> {
    let began = Instant::now();
    let open_files = limits::raise_open_files();
    let mut options = config.broker_options();
    options.progress = progress.clone();
    let mut net_options = net_options(&config.net);
    let wanted = net_options.max_connections;
    let share = Descriptors::share(open_files, options.data_shards + 1, net_options.io_threads, wanted);
    (options.open_files, net_options.max_connections) = (share.journals, share.connections);
    if share.connections < wanted {
        let (wanted, connections) = (wanted, share.connections);
        warn!(
            wanted,
            connections, "net.max_connections is lowered to what the open-file limit (ulimit -n) leaves"
        );
    }
    options.progress.enter(&options.data, "looking whether another process has the data directory");
    let watch = start_watch::begin(&options.data, options.progress.clone())?;
    // Before any address is tried: of two brokers with one configuration, the second must hear of the first.
    wait_until_free(&options.data, LOCK_PATIENCE)?;
    warn_of_memory(&options.data);
    if let Some(exceeds) = config.memory_warning() {
        warn!("{exceeds}. Lower them, or give it more");
    }
    let admin = Admin::new(sabir_admin::Options {
        connections: share.admin,
        start: progress,
        ..config.admin_options()
    });
    let admin_server = AdminServer::start(&config, admin.clone())?;
    let bound = bind_all(config.front_ends)?;

    let broker = Broker::open(options, Arc::new(SystemClock))?;
    drop(watch);
    // Of a start that fails it is not the reason.
    warn_of_others(&broker.options().data);
    let net = match Net::start(&net_options, watched(&broker)) {
        Ok(net) => Arc::new(net),
        Err(error) => {
            broker.shutdown();
            return Err(error.into());
        }
    };
    broker.hold_reads_in(&net.read_memory());
    let auto = config.data.tail_cache.0.is_none();
    let total = MemoryFiles::default().total().filter(|_| auto);
    let tail_cache = broker.options().tail_cache_bytes as u64;
    let memory = MemoryWatch::start(broker.clone(), total.map(|total| TailCacheSize::new(tail_cache, total)));
    let memory = memory.inspect_err(|_| broker.shutdown())?;
    let mut figures: Vec<Figures> = vec![net_figures(net.clone())];
    let (mut serving, mut routes) = (Vec::new(), Vec::new());
    let (mut listeners, mut served) = (Vec::new(), Vec::new());
    for BoundFrontend { config, listener, addresses, shares } in bound {
        let prefix = config.configured.http_prefix();
        let (shown, started) = start_front_end(&net, &broker, config, addresses);
        serving.push(shown);
        served.push((shares, started.frontend.clone()));
        listeners.push(listener);
        figures.push(Box::new(move |out| started.frontend.metrics(out)));
        routes.extend(prefix.zip(started.http));
    }
    for (listener, each) in listeners.into_iter().zip(served_at(&served)) {
        net.serve_at(listener, each);
    }
    let front_ends = shown(net.clone(), serving.clone());
    let registry = net.registry().clone();
    admin.running(Shown { broker: broker.clone(), figures, front_ends, registry, routes });
    let (drain, took) = (config.net.drain.0, began.elapsed());
    Ok(Running { broker, net, admin, admin_server, memory, serving, tls: config.tls, drain, took })
}

/// Waits for the process that has the data directory: a process with much memory lets go of it a while after it was killed.
fn wait_until_free(data: &Path, patience: Duration) -> Result<(), sabir_broker::StartError> {
    let began = Instant::now();
    let mut said = false;
    loop {
        match sabir_broker::check_free(data) {
            Err(sabir_broker::StartError::InUse { pid, .. }) if began.elapsed() < patience => {
                if !std::mem::replace(&mut said, true) {
                    warn!(data = %data.display(), pid, "another process has the data directory; waiting up to {patience:?} for it to end");
                }
                std::thread::sleep(LOCK_INTERVAL);
            }
            found => return found,
        }
    }
}

/// A broker's user hears that nothing survives the machine before anything is acknowledged.
fn warn_of_memory(data: &Path) {
    let there = data.ancestors().find(|path| path.exists());
    if let Some(memory) = there.and_then(volatile) {
        warn!(data = %data.display(), "the data directory lies in {memory}, which is memory: nothing survives the machine");
    }
}

fn warn_of_others(data: &Path) {
    if let Some(may) = others_may(data) {
        let command = keep_others_out(data);
        warn!(data = %data.display(), "the data directory is open to every user of this machine, who may {may}; to keep them out: {command}");
    }
}

/// A protocol whose addresses are bound.
struct BoundFrontend {
    config: FrontendConfig,
    /// The sockets that are its own.
    listener: Listener,
    /// All of its addresses, with their real ports.
    addresses: Vec<SocketAddr>,
    /// Whose socket each of them is.
    shares: Vec<SocketNo>,
}

/// A socket: the protocol that bound it, counted from 0, and which of its sockets.
type SocketNo = (usize, usize);

/// What serves a protocol's connections, and at which socket for each of its addresses.
type ServedSockets = (Vec<SocketNo>, Arc<dyn Frontend>);

/// Binds all addresses. One that several protocols name is bound once, for the first of them.
fn bind_all(front_ends: Vec<FrontendConfig>) -> Result<Vec<BoundFrontend>, BindError> {
    let mut bound: Vec<BoundFrontend> = Vec::with_capacity(front_ends.len());
    for config in front_ends {
        let shared = |address: &SocketAddr| {
            let at = |one: &BoundFrontend| one.addresses.iter().position(|other| other == address);
            bound.iter().find_map(|one| Some(one.shares[at(one)?]))
        };
        // Port 0 is another one each time.
        let shared: Vec<_> = config
            .listen
            .addresses
            .iter()
            .map(|one| shared(&one.address).filter(|_| one.address.port() != 0))
            .collect();
        let own = config.listen.addresses.iter().zip(&shared).filter(|(_, shared)| shared.is_none());
        let own = own.map(|(one, _)| one.clone()).collect();
        let listener = Listener::bind(&ListenOptions { addresses: own, ..config.listen.clone() })?;
        let mut sockets = listener.addresses().iter().enumerate();
        let (addresses, shares) = config
            .listen
            .addresses
            .iter()
            .zip(shared)
            .map(|(one, shared)| match shared {
                Some(shared) => (one.address, shared),
                None => {
                    let (socket, address) = sockets.next().expect("a socket for each that is its own");
                    (*address, (bound.len(), socket))
                }
            })
            .unzip();
        bound.push(BoundFrontend { config, listener, addresses, shares });
    }
    Ok(bound)
}

/// Those that are served at each socket of each protocol: the one that bound it first.
fn served_at(front_ends: &[ServedSockets]) -> Vec<Vec<Vec<ServedAt>>> {
    let mut all: Vec<Vec<Vec<ServedAt>>> = front_ends.iter().map(|_| Vec::new()).collect();
    for (shares, front_end) in front_ends {
        for (listener, &(whose, socket)) in shares.iter().enumerate() {
            let sockets = &mut all[whose];
            sockets.resize_with(sockets.len().max(socket + 1), Vec::new);
            sockets[socket].push(ServedAt { front_end: front_end.clone(), listener });
        }
    }
    all
}

fn start_front_end(
    net: &Net,
    broker: &Broker,
    config: FrontendConfig,
    addresses: Vec<SocketAddr>,
) -> (Serving, StartedFrontend) {
    let told = config.keys.iter().zip(&addresses).zip(config.advertise);
    let listening: Vec<_> =
        told.map(|((&key, &address), advertise)| Listening { key, address, advertise }).collect();
    let each = listening.iter().zip(&config.listen.addresses);
    let serving = each.map(|(at, listen)| ServingAt {
        address: at.address,
        advertise: at.shown(),
        tls: listen.tls.is_some(),
    });
    let serving = Serving { protocol: config.protocol.name(), listening: serving.collect() };
    let started = config.configured.start(FrontendContext {
        broker: broker.clone(),
        workers: net.workers().clone(),
        tasks: net.tasks(),
        registry: net.registry().clone(),
        listening,
        memory: AutoMemory::here().total(),
    });
    (serving, started)
}

fn net_options(net: &crate::config::sections::NetSection) -> NetOptions {
    let defaults = NetOptions::default();
    NetOptions {
        io_threads: net.io_threads.0.map_or(defaults.io_threads, usize::from),
        max_connections: net.max_connections.into(),
        frame_memory: net.frame_memory_bytes() as usize,
        handshake_timeout: net.handshake_timeout.0,
        frame_timeout: net.frame_timeout.0,
        write_timeout: net.write_timeout.0,
        idle_timeout: net.idle_timeout.0,
        keepalive: net.keepalive.0,
    }
}

fn net_figures(net: Arc<Net>) -> Figures {
    Box::new(move |out: &mut Exposition| {
        let memory = &net.limits().frame_memory;
        out.gauge(
            "sabir_frame_memory_bytes",
            "Memory of frames under way.",
            &[],
            (memory.granted() + memory.granted_little()) as i64,
        );
        crate::panics::expose(out);
        for listener in net.stats() {
            let labels = [("protocol", listener.name)];
            out.gauge("sabir_connections", "Open connections.", &labels, listener.open as i64);
            out.counter("sabir_accepted_connections", "Connections accepted.", &labels, listener.accepted);
            out.counter(
                "sabir_refused_connections",
                "Connections closed at once.",
                &labels,
                listener.refused,
            );
            let help = "Connections closed because there was no TLS with them where it is spoken.";
            out.counter("sabir_failed_tls_handshakes", help, &labels, listener.tls_failed);
            let help = "Connections that ended by a panic.";
            out.counter("sabir_panicked_connections", help, &labels, listener.panicked);
        }
    })
}

/// The front ends that are served, with how many connections each has.
fn shown(net: Arc<Net>, serving: Vec<Serving>) -> ServedFrontends {
    Box::new(move || {
        let stats = net.stats();
        let one = |served: &Serving| {
            let counts = stats.iter().find(|listener| listener.name == served.protocol);
            sabir_admin::ServedFrontend {
                name: served.protocol,
                listening: served.listening.iter().map(|at| at.address).collect(),
                advertise: served.listening.iter().map(|at| at.advertise.to_string()).collect(),
                open: counts.map_or(0, |c| c.open as u64),
                accepted: counts.map_or(0, |c| c.accepted),
                refused: counts.map_or(0, |c| c.refused),
            }
        };
        serving.iter().map(one).collect()
    })
}

impl Running {
    /// Every protocol that is served.
    pub fn serving(&self) -> &[Serving] {
        &self.serving
    }

    /// The admin port's addresses; none where it is off.
    pub fn admin(&self) -> &[SocketAddr] {
        self.admin_server.as_ref().map_or(&[], |a| &a.addresses)
    }

    /// The broker itself.
    pub fn broker(&self) -> &Broker {
        &self.broker
    }

    /// What an acknowledgement means where a topic does not say, as `data.durability` names it.
    pub fn durability(&self) -> &'static str {
        match self.broker.options().durability {
            Durability::Sync => "sync",
            Durability::Os => "os",
        }
    }

    /// From the call of [`start`] to the first connection that could be taken.
    pub fn took(&self) -> Duration {
        self.took
    }

    /// Reads the files again that TLS is served with, if they are others than before, and says in the log what came of it. Blocking.
    pub fn reload_tls(&self) {
        for tls in &self.tls {
            let certificate = tls.options().certificate.display();
            match tls.reload() {
                Ok(false) => {}
                Ok(true) => {
                    tracing::info!(%certificate, "TLS: the files have changed; connections from now on are served with them")
                }
                Err(error) => {
                    warn!("TLS: the files have changed and cannot be used; what was served goes on: {error}")
                }
            }
        }
    }

    /// Takes no more connections, lets what is under way finish, and closes the data directory. Blocking.
    pub fn stop(self) -> Stopped {
        self.admin.stopping();
        let drained = self.net.drain(self.drain);
        drop(self.memory);
        // The I/O threads drive the shards until the broker is done with them.
        self.broker.shutdown();
        if self.broker.has_hung_disk() {
            // The I/O threads may have it: they are not waited for.
            std::mem::forget(self.net);
        }
        Stopped { cut_off: drained.left }
    }
}

/// The admin port on a thread of its own: it answers while everything else is busy.
struct AdminServer {
    addresses: Vec<SocketAddr>,
    /// Dropped to stop it.
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl AdminServer {
    fn start(config: &ServerConfig, admin: Admin) -> Result<Option<Self>, ServerStartError> {
        let options = config.admin_listen();
        if options.addresses.is_empty() {
            return Ok(None);
        }
        let listener = Listener::bind(&options)?;
        let addresses = listener.addresses().to_vec();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (stop, stopped) = oneshot::channel::<()>();
        let serve = async move {
            // The sender's end means the same as its message.
            let stopped = async { drop(stopped.await) };
            sabir_admin::serve(listener.into_sockets(), admin, stopped).await;
        };
        let thread =
            std::thread::Builder::new().name("admin".into()).spawn(move || runtime.block_on(serve))?;
        Ok(Some(Self { addresses, stop: Some(stop), thread: Some(thread) }))
    }
}

impl Drop for AdminServer {
    fn drop(&mut self) {
        self.stop = None;
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the admin thread panicked");
        }
    }
}

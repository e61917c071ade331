//! The I/O threads and the listeners they accept from.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;
use rustix::net::sockopt;
use sabir_base::panics;
use sabir_base::throttle::LogThrottle;
use sabir_broker::ReadMemory;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use crate::admission::{Admission, Full, ListenerStats, NodeLimit, Permit};
use crate::claim;
use crate::connection::{Connection, Frontend, Limits};
use crate::listener::{Listener, ListeningSocket};
use crate::memory::FrameMemory;
use crate::registry::Registry;
use crate::stream::Stream;
use crate::threads::{IoThread, Watched};
use crate::tls::{self, HandshakeError, Tls};
use crate::workers::Workers;

/// How the network side runs.
#[derive(Debug, Clone)]
pub struct NetOptions {
    /// Threads that serve connections.
    pub io_threads: usize,
    /// Connections at once, over all listeners.
    pub max_connections: usize,
    /// Bytes that incomplete and unanswered frames take, over all connections.
    pub frame_memory: usize,
    /// See [`Limits::handshake_timeout`].
    pub handshake_timeout: Duration,
    /// See [`Limits::frame_timeout`].
    pub frame_timeout: Duration,
    /// See [`Limits::write_timeout`].
    pub write_timeout: Duration,
    /// See [`Limits::idle_timeout`].
    pub idle_timeout: Duration,
    /// A client from which nothing has come for so long is asked by the system whether it is still there, and missed after
    /// as much time again. In whole seconds, at least one; the system knows no more than 32,767 for either time.
    pub keepalive: Duration,
}

impl Default for NetOptions {
    fn default() -> Self {
        Self {
            io_threads: std::thread::available_parallelism().map_or(1, usize::from),
            max_connections: 10_000,
            frame_memory: 512 << 20,
            handshake_timeout: Duration::from_secs(30),
            frame_timeout: Duration::from_secs(30),
            write_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(600),
            keepalive: Duration::from_secs(60),
        }
    }
}

/// How a drain went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drained {
    /// Connections that were open when it began.
    pub open: usize,
    /// Connections that had not ended at its deadline.
    pub left: usize,
}

/// Starts what a front end does beside its connections, such as what it does by time. Clones are the same; the default one belongs to no
/// node, and starts nothing.
#[derive(Clone, Default)]
pub struct Tasks {
    /// Weak: what keeps this does not keep the threads.
    threads: Weak<Vec<IoThread>>,
    next: Arc<AtomicUsize>,
}

impl Tasks {
    /// Runs a task on an I/O thread until it ends, or the node has stopped; a drain does not wait for it. It must not block. One that
    /// panics ends alone.
    pub fn spawn<F: Future<Output = ()> + 'static>(
        &self,
        name: &'static str,
        task: impl FnOnce() -> F + Send + 'static,
    ) {
        let Some(threads) = self.threads.upgrade() else { return };
        let thread = &threads[self.next.fetch_add(1, Relaxed) % threads.len()];
        thread.run(Box::new(move || {
            Box::pin(async move {
                if panics::contain_task(task()).await.is_none() {
                    tracing::error!(name, "a task of a front end ended by a panic");
                }
            })
        }));
    }
}

/// The running I/O threads. Dropping it ends them and every connection.
pub struct Net {
    threads: Arc<Vec<IoThread>>,
    limits: Arc<Limits>,
    workers: Workers,
    keepalive: Duration,
    node_limit: Arc<NodeLimit>,
    admissions: Mutex<Vec<Arc<Admission>>>,
    registry: Registry,
    closing: CancellationToken,
    stop: CancellationToken,
}

impl Net {
    /// Starts the I/O threads; thread i watches every i-th of `watched`.
    ///
    /// # Errors
    /// The system has no more threads or descriptors.
    pub fn start(options: &NetOptions, watched: Vec<Watched>) -> io::Result<Self> {
        let count = options.io_threads.max(1);
        let mut shares: Vec<Vec<Watched>> = (0..count).map(|_| Vec::new()).collect();
        for (i, one) in watched.into_iter().enumerate() {
            shares[i % count].push(one);
        }
        let stop = CancellationToken::new();
        let start = |(i, share)| IoThread::start(i, share, stop.clone());
        let threads = shares.into_iter().enumerate().map(start).collect::<io::Result<_>>()?;
        let frame_memory = FrameMemory::new(options.frame_memory);
        Ok(Self {
            threads: Arc::new(threads),
            workers: Workers::beside(&frame_memory),
            limits: Arc::new(Limits {
                frame_memory,
                handshake_timeout: options.handshake_timeout,
                frame_timeout: options.frame_timeout,
                write_timeout: options.write_timeout,
                idle_timeout: options.idle_timeout,
            }),
            keepalive: options.keepalive,
            node_limit: Arc::new(NodeLimit::new(options.max_connections)),
            admissions: Mutex::default(),
            registry: Registry::default(),
            closing: CancellationToken::new(),
            stop,
        })
    }

    /// Accepts from a listener's sockets for a front end, until the drain.
    pub fn serve(&self, listener: Listener, front_end: Arc<dyn Frontend>) {
        self.serve_each(listener, vec![front_end]);
    }

    /// Accepts from a listener's sockets for several front ends, until the drain: a connection's first bytes say whose it is
    /// ([`Frontend::claims`]). What none of them claims is the first one's.
    ///
    /// # Panics
    /// There is no front end.
    pub fn serve_each(&self, listener: Listener, front_ends: Vec<Arc<dyn Frontend>>) {
        let at = |listener| {
            front_ends.iter().map(|front_end| ServedAt { front_end: front_end.clone(), listener }).collect()
        };
        let each = (0..listener.sockets.len()).map(at).collect();
        self.serve_at(listener, each);
    }

    /// The same with those that are served at each of the sockets, in their order. The listener's limit and counts are for all of them.
    ///
    /// # Panics
    /// There is a socket without a front end.
    pub fn serve_at(&self, listener: Listener, each: Vec<Vec<ServedAt>>) {
        assert!(each.iter().all(|served| !served.is_empty()), "somebody serves what is accepted");
        let admission =
            Arc::new(Admission::new(listener.section, self.node_limit.clone(), listener.max_connections));
        self.admissions.lock().push(admission.clone());
        for (i, (ListeningSocket { socket, tls }, served)) in
            listener.sockets.into_iter().zip(each).enumerate()
        {
            let acceptor = Acceptor {
                threads: self.threads.clone(),
                limits: self.limits.clone(),
                keepalive: self.keepalive,
                admission: admission.clone(),
                registry: self.registry.clone(),
                closing: self.closing.clone(),
                takes: takes(&served, tls.is_some()).into(),
                tls,
                served: served.into(),
                refusals: LogThrottle::new(COMPLAIN_EVERY),
                handshakes: Arc::new(LogThrottle::new(COMPLAIN_EVERY)),
            };
            self.threads[i % self.threads.len()].run(Box::new(move || Box::pin(acceptor.run(socket))));
        }
    }

    /// The listeners' counts.
    pub fn stats(&self) -> Vec<ListenerStats> {
        self.admissions.lock().iter().map(|admission| admission.stats()).collect()
    }

    /// The open connections.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// What bounds the connections.
    pub fn limits(&self) -> &Arc<Limits> {
        &self.limits
    }

    /// What reads of large batches hold: a part of what frames have.
    pub fn read_memory(&self) -> Arc<dyn ReadMemory> {
        Arc::new(self.limits.frame_memory.clone())
    }

    /// Starts what front ends do beside their connections.
    pub fn tasks(&self) -> Tasks {
        Tasks { threads: Arc::downgrade(&self.threads), next: Arc::default() }
    }

    /// The node's workers: all front ends share them.
    pub fn workers(&self) -> &Workers {
        &self.workers
    }

    /// Closes the listeners, lets every connection finish what is under way, and waits for their end, `deadline` at the
    /// longest; then the workers stop. Blocking; the threads go on driving what they watch until the drop.
    pub fn drain(&self, deadline: Duration) -> Drained {
        let open = self.node_limit.open();
        self.closing.cancel();
        let until = Instant::now() + deadline;
        while self.node_limit.open() > 0 && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(2));
        }
        // Connections that are left are cut off; the I/O threads wait for the jobs' ends.
        self.workers.stop();
        Drained { open, left: self.node_limit.open() }
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        self.workers.stop();
        self.closing.cancel();
        self.stop.cancel();
        // Acceptors hold the threads' handles too, until their own thread has dropped them.
        let until = Instant::now() + Duration::from_secs(5);
        while Arc::get_mut(&mut self.threads).is_none() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(1));
        }
        if let Some(threads) = Arc::get_mut(&mut self.threads) {
            threads.iter_mut().for_each(IoThread::join);
        }
    }
}

/// A front end at an address.
#[derive(Clone)]
pub struct ServedAt {
    /// Which.
    pub front_end: Arc<dyn Frontend>,
    /// Which of its own addresses it is: what [`Connection::listener`] says.
    pub listener: usize,
}

struct Acceptor {
    threads: Arc<Vec<IoThread>>,
    limits: Arc<Limits>,
    keepalive: Duration,
    admission: Arc<Admission>,
    registry: Registry,
    closing: CancellationToken,
    /// What the clients speak TLS with; none where they do not.
    tls: Option<Arc<Tls>>,
    /// Whose the connections are, one at least.
    served: Arc<[ServedAt]>,
    /// The same for the log.
    takes: Arc<str>,
    /// For connections that are refused or cannot be accepted.
    refusals: LogThrottle,
    /// For TLS handshakes that fail.
    handshakes: Arc<LogThrottle>,
}

/// How often refusals are logged, and handshakes that fail.
const COMPLAIN_EVERY: Duration = Duration::from_secs(10);
/// How long nothing is accepted after the system had no more descriptors.
const PAUSE: Duration = Duration::from_millis(100);
/// How often the system asks a silent client whether it is still there.
const PROBES: u32 = 3;
const SECOND: Duration = Duration::from_secs(1);
/// The longest silence, and the longest time between questions, that Linux takes; above it refuses the socket (`MAX_TCP_KEEPIDLE`,
/// `MAX_TCP_KEEPINTVL`).
const MAX_SILENCE: Duration = Duration::from_secs(32_767);

impl Acceptor {
    async fn run(self, socket: std::net::TcpListener) {
        let listener = match TcpListener::from_std(socket) {
            Ok(listener) => listener,
            Err(error) => return tracing::error!(%error, listener = self.admission.name, "cannot accept"),
        };
        loop {
            tokio::select! {
                () = self.closing.cancelled() => return,
                accepted = listener.accept() => match accepted {
                    Ok((stream, peer)) => drop(panics::contain(|| self.take(stream, peer))),
                    Err(error) => self.pause(&error).await,
                },
            }
        }
    }

    fn take(&self, stream: TcpStream, peer: SocketAddr) {
        let thread = self.threads.iter().min_by_key(|t| t.load()).expect("there is an I/O thread at least");
        let permit = match self.admission.enter(&thread.connections) {
            Ok(permit) => permit,
            Err(full) => return self.refuse(peer, full),
        };
        let prepared = prepare(stream, self.keepalive);
        let (limits, registry) = (self.limits.clone(), self.registry.clone());
        let (closing, served, takes) = (self.closing.clone(), self.served.clone(), self.takes.clone());
        let (tls, handshakes) = (self.tls.clone(), self.handshakes.clone());
        thread.run(Box::new(move || {
            Box::pin(async move {
                let opened = tokio::time::Instant::now();
                let stream = prepared.and_then(|(local, stream)| Ok((local, TcpStream::from_std(stream)?)));
                match stream {
                    Ok((local, stream)) => {
                        let by = opened + limits.handshake_timeout;
                        let stream = match tls {
                            None => Stream::Tcp(stream),
                            Some(tls) => match tls::accept(&tls, stream, by, &closing).await {
                                Ok(stream) => stream,
                                Err(failed) => return tell_of_handshake(peer, &failed, &permit, &handshakes),
                            },
                        };
                        let connection = Connection {
                            stream,
                            opened,
                            prefix: Bytes::new(),
                            peer,
                            local,
                            listener: served[0].listener,
                            takes,
                            open: registry.enter(peer, local),
                            limits,
                            closing,
                        };
                        if panics::contain_task(serve(connection, served)).await.is_none() {
                            permit.panicked();
                            tracing::error!(%peer, "connection closed: a panic while it was served");
                        }
                    }
                    Err(error) => tracing::debug!(%peer, %error, "a connection ended while it was accepted"),
                }
                // Kept here and not in the connection, of which a front end may drop what it does not need.
                drop(permit);
            })
        }));
    }

    fn refuse(&self, peer: SocketAddr, full: Full) {
        if self.refusals.allows(Instant::now()) {
            let listener = self.admission.name;
            match full {
                Full::Listener(max) => {
                    tracing::warn!(%peer, listener, max, "connection closed: its listener has as many as it may have");
                }
                Full::Node(max) => {
                    tracing::warn!(%peer, listener, max, "connection closed: net.max_connections is reached");
                }
            }
        }
    }

    async fn pause(&self, error: &io::Error) {
        if self.refusals.allows(Instant::now()) {
            let listener = self.admission.name;
            tracing::error!(%error, listener, "cannot accept a connection; raise the open-file limit (ulimit -n)?");
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Counts and names a connection that came to be closed before there was TLS with it.
fn tell_of_handshake(peer: SocketAddr, failed: &HandshakeError, permit: &Permit, throttle: &LogThrottle) {
    if matches!(failed, HandshakeError::Gone | HandshakeError::Drained) {
        return tracing::debug!(%peer, "a connection ended in its TLS handshake: {failed}");
    }
    permit.tls_failed();
    if throttle.allows(Instant::now()) {
        tracing::warn!(%peer, listener = permit.listener(), "connection closed: TLS: {failed}");
    }
}

/// What an address takes, for the log.
fn takes(served: &[ServedAt], tls: bool) -> String {
    let names: Vec<_> = served.iter().map(|at| at.front_end.name()).collect();
    format!("{} {}", names.join(", "), if tls { "by TLS" } else { "without TLS" })
}

/// Serves a connection by the front end that it is for.
async fn serve(mut connection: Connection, served: Arc<[ServedAt]>) {
    let ServedAt { front_end, listener } = &served[claim::choose(&mut connection, &served).await];
    connection.listener = *listener;
    connection.open.serve(front_end.name());
    front_end.clone().serve(connection).await;
}

/// Takes the socket off the accepting thread's runtime, so that another one can watch it.
fn prepare(stream: TcpStream, keepalive: Duration) -> io::Result<(SocketAddr, std::net::TcpStream)> {
    stream.set_nodelay(true)?;
    sockopt::set_socket_keepalive(&stream, true)?;
    let (silence, between) =
        (keepalive.clamp(SECOND, MAX_SILENCE), (keepalive / PROBES).clamp(SECOND, MAX_SILENCE));
    sockopt::set_tcp_keepidle(&stream, silence)?;
    sockopt::set_tcp_keepintvl(&stream, between)?;
    sockopt::set_tcp_keepcnt(&stream, PROBES)?;
    Ok((stream.local_addr()?, stream.into_std()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_keepalive_is_taken() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        for (wanted, silence, between) in
            [(0, 1, 1), (60, 60, 20), (32_768, 32_767, 10_923), (u64::from(u32::MAX), 32_767, 32_767)]
        {
            let stream = TcpStream::connect(address).await.unwrap();
            let (_, stream) = prepare(stream, Duration::from_secs(wanted)).unwrap();
            assert_eq!(sockopt::tcp_keepidle(&stream).unwrap(), Duration::from_secs(silence));
            assert_eq!(sockopt::tcp_keepintvl(&stream).unwrap(), Duration::from_secs(between));
        }
    }
}

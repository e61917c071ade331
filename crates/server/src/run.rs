//! The life of `sabir serve`: start, wait for a signal, drain, close.

use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use sabir_broker::StartProgress;
use tokio::signal::unix::{SignalKind, signal};

use crate::config::ServerConfig;
use crate::running::{Running, ServerStartError, ServingAt, Stopped, start_watched};

/// How long closing the data directory may take beside the drain, before the process gives up on it. Nothing acknowledged is
/// lost then: the next start recovers.
const CLOSE: Duration = Duration::from_secs(30);

/// Why a run did not end as it should.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// It did not start.
    #[error(transparent)]
    Start(#[from] ServerStartError),
    /// It did not stop in time.
    #[error("the broker did not stop within {} s of the signal; what was acknowledged is safe, and the next start recovers it", .0.as_secs())]
    Stuck(Duration),
}

/// Runs a broker until SIGTERM or SIGINT, then stops it cleanly; another one after a second ends the process at once. SIGHUP has it
/// look for other certificates; SIGUSR1, SIGUSR2 and SIGALRM change nothing.
///
/// # Errors
/// It did not start, or did not stop in time.
pub fn run(config: ServerConfig) -> Result<(), RunError> {
    run_while(config, |_| true)
}

/// [`run`] with something to do when connections are taken: if that returns false, the broker stops without a signal.
///
/// # Errors
/// Those of [`run`].
pub fn run_while(config: ServerConfig, ready: impl FnOnce(&Running) -> bool) -> Result<(), RunError> {
    crate::panics::report();
    let signals = watch_signals().map_err(ServerStartError::System)?;
    let limit = config.net.drain.0 + CLOSE;
    let Some((running, asked)) = start_unless_stopped(config, &signals, limit)? else { return Ok(()) };
    announce(&running);
    if asked.contains(&Asked::Reload) {
        running.reload_tls();
    }
    if ready(&running) && !asked.contains(&Asked::Stop) {
        wait_to_stop(&running, &signals);
    }
    tracing::info!(
        "stopping: no new connections; requests under way are finished (a second signal, not before a second has passed, ends it at once)"
    );
    let (done, stopped) = mpsc::channel::<Stopped>();
    std::thread::spawn(move || done.send(running.stop()));
    match stopped.recv_timeout(limit) {
        Ok(Stopped { cut_off: 0 }) => tracing::info!("stopped"),
        Ok(Stopped { cut_off }) => {
            tracing::warn!(cut_off, "stopped; connections that did not end were cut off")
        }
        Err(_) => return Err(RunError::Stuck(limit)),
    }
    Ok(())
}

/// How often it is looked whether a start is to end.
const LOOK_AT_START: Duration = Duration::from_millis(100);
/// As much stack as the main thread has.
const START_STACK: usize = 8 << 20;

/// Starts, and gives what signals asked for meanwhile. One that is told to stop while it waits for space ends at once, as if the process had been
/// killed: no client was served yet. Any other start has as long to come to its end as a stop has.
fn start_unless_stopped(
    config: ServerConfig,
    signals: &mpsc::Receiver<Asked>,
    limit: Duration,
) -> Result<Option<(Running, Vec<Asked>)>, RunError> {
    let (progress, (done, started)) = (Arc::<StartProgress>::default(), mpsc::channel());
    let watched = progress.clone();
    let begin = move || drop(done.send(start_watched(config, watched)));
    let thread = std::thread::Builder::new().name("start".into()).stack_size(START_STACK).spawn(begin);
    let thread = thread.map_err(ServerStartError::System)?;
    let (mut asked, mut until) = (Vec::new(), None);
    loop {
        match started.recv_timeout(LOOK_AT_START) {
            Ok(running) => return Ok(Some((running?, asked))),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => match thread.join() {
                Err(panic) => std::panic::resume_unwind(panic),
                Ok(()) => unreachable!("it says how it has ended, unless it panics"),
            },
        }
        asked.extend(signals.try_iter());
        if !asked.contains(&Asked::Stop) {
            continue;
        }
        if progress.step().full {
            tracing::info!("stopped, while the start waited for space on the disk: the next one recovers");
            return Ok(None);
        }
        if Instant::now() >= *until.get_or_insert_with(|| Instant::now() + limit) {
            return Err(RunError::Stuck(limit));
        }
    }
}

/// How often it is looked whether other certificates are to be served.
const LOOK_FOR_CERTIFICATES: Duration = Duration::from_secs(10);

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    Stop,
    Reload,
}

fn wait_to_stop(running: &Running, signals: &mpsc::Receiver<Asked>) {
    loop {
        match signals.recv_timeout(LOOK_FOR_CERTIFICATES) {
            Ok(Asked::Reload) | Err(mpsc::RecvTimeoutError::Timeout) => running.reload_tls(),
            // The sender lives as long as the process.
            Ok(Asked::Stop) | Err(mpsc::RecvTimeoutError::Disconnected) => return,
        }
    }
}

fn announce(running: &Running) {
    for serving in running.serving() {
        let protocol = serving.protocol;
        for ServingAt { address, advertise, tls } in &serving.listening {
            let tls = tls.then_some(true);
            tracing::info!(protocol, %address, %advertise, tls, "listening");
        }
    }
    for address in running.admin() {
        tracing::info!(protocol = "http", %address, "listening: /livez /readyz /metrics /sabir/v1");
    }
    let options = running.broker().options();
    let (data, data_shards, durability) = (options.data.display(), options.data_shards, running.durability());
    tracing::info!(%data, data_shards, durability, "ready after {:.1} ms", running.took().as_secs_f64() * 1e3);
}

/// A signal so soon after the first is the same one: a shell that ends a process group often ends the process, too.
const SAME: Duration = Duration::from_secs(1);

/// Reports the first signal, and each SIGHUP; a second one ends the process.
fn watch_signals() -> std::io::Result<mpsc::Receiver<Asked>> {
    // The runtime and its signals panic where they get no descriptors.
    let spare: std::io::Result<Vec<_>> = (0..8).map(|_| std::fs::File::open("/dev/null")).collect();
    drop(spare?);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (first, report) = mpsc::channel();
    let entered = runtime.enter();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    // Once handled it stays so: a write beyond the limit on file sizes fails, and is named, rather than end the process.
    drop(signal(SignalKind::from_raw(libc::SIGXFSZ))?);
    // These, too, would end it without a clean stop. What rotates the logs of other servers sends the first two.
    drop(signal(SignalKind::alarm())?);
    let mut user1 = signal(SignalKind::user_defined1())?;
    let mut user2 = signal(SignalKind::user_defined2())?;
    drop(entered);
    let watch = async move {
        let mut stopping: Option<Instant> = None;
        loop {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
                _ = user1.recv() => {
                    means_nothing("SIGUSR1");
                    continue;
                }
                _ = user2.recv() => {
                    means_nothing("SIGUSR2");
                    continue;
                }
                _ = hangup.recv() => {
                    tracing::info!("SIGHUP: TLS is served with its files as they are now; all else is read at the start");
                    // The part that asks in vain is stopping.
                    let _ = first.send(Asked::Reload);
                    continue;
                }
            }
            let now = Instant::now();
            match stopping {
                None if first.send(Asked::Stop).is_ok() => stopping = Some(now),
                Some(since) if now - since < SAME => {}
                _ => {
                    tracing::warn!("a second signal: ending at once; the next start recovers");
                    std::process::exit(130);
                }
            }
        }
    };
    std::thread::Builder::new().name("signals".into()).spawn(move || runtime.block_on(watch))?;
    Ok(report)
}

fn means_nothing(signal: &str) {
    tracing::info!(
        "{signal} means nothing to the broker: its log goes to stderr, and a file of that is its supervisor's to rotate"
    );
}

//! The end that a signal asks for, before which what was taken is given back.

use std::future::pending;
use std::io;
use std::time::Duration;

use tokio::runtime::Builder;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;

use super::ignored::is_ignored;

/// How long the end may take once a signal has asked for it.
pub const WITHIN: Duration = Duration::from_secs(3);

/// What a shell adds to a signal's number in the exit code of what it ended.
const BY_SIGNAL: i32 = 128;

/// Tells of the first SIGHUP, SIGINT or SIGTERM, by the code that the process is to end with. A thread ends it with that code at the next
/// one, or [`WITHIN`] that time: also while the caller waits for the reader of its output. Those that the process ignores stay ignored: `nohup`
/// and a shell that starts it in the background mean that.
pub fn asked() -> io::Result<oneshot::Receiver<i32>> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let mut signals = {
        let _entered = runtime.enter();
        Signals {
            hangup: unless_ignored(SignalKind::hangup())?,
            interrupt: unless_ignored(SignalKind::interrupt())?,
            terminate: unless_ignored(SignalKind::terminate())?,
        }
    };
    let (tell, told) = oneshot::channel();
    let watch = async move {
        let code = BY_SIGNAL + signals.next().await;
        // A command that no longer hears it is about to end.
        let _ = tell.send(code);
        let _ = tokio::time::timeout(WITHIN, signals.next()).await;
        std::process::exit(code);
    };
    std::thread::Builder::new().name("signals".into()).spawn(move || runtime.block_on(watch))?;
    Ok(told)
}

/// Those that are not ignored.
struct Signals {
    hangup: Option<Signal>,
    interrupt: Option<Signal>,
    terminate: Option<Signal>,
}

impl Signals {
    /// The number of the next one.
    async fn next(&mut self) -> i32 {
        let kind = tokio::select! {
            () = comes(&mut self.hangup) => SignalKind::hangup(),
            () = comes(&mut self.interrupt) => SignalKind::interrupt(),
            () = comes(&mut self.terminate) => SignalKind::terminate(),
        };
        kind.as_raw_value()
    }
}

fn unless_ignored(kind: SignalKind) -> io::Result<Option<Signal>> {
    if is_ignored(kind) { Ok(None) } else { signal(kind).map(Some) }
}

async fn comes(signal: &mut Option<Signal>) {
    match signal {
        Some(signal) => {
            signal.recv().await;
        }
        None => pending().await,
    }
}

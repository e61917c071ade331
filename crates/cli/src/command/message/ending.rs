//! The end that a signal asks for, before which what was taken is given back.

use std::io;
use std::time::Duration;

use tokio::runtime::Builder;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;

/// How long the end may take once a signal has asked for it.
pub const WITHIN: Duration = Duration::from_secs(3);

/// What a shell adds to a signal's number in the exit code of what it ended.
const BY_SIGNAL: i32 = 128;

/// Tells of the first SIGHUP, SIGINT or SIGTERM, by the code that the process is to end with. A thread ends it with that code at the next
/// one, or [`WITHIN`] that time: also while the caller waits for the reader of its output.
pub fn asked() -> io::Result<oneshot::Receiver<i32>> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let mut signals = {
        let _entered = runtime.enter();
        Signals {
            hangup: signal(SignalKind::hangup())?,
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        }
    };
    let (tell, told) = oneshot::channel();
    let watch = async move {
        let code = BY_SIGNAL + signals.next().await;
        // Who no longer hears it is about to end.
        let _ = tell.send(code);
        let _ = tokio::time::timeout(WITHIN, signals.next()).await;
        std::process::exit(code);
    };
    std::thread::Builder::new().name("signals".into()).spawn(move || runtime.block_on(watch))?;
    Ok(told)
}

struct Signals {
    hangup: Signal,
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    /// The number of the next one.
    async fn next(&mut self) -> i32 {
        let kind = tokio::select! {
            _ = self.hangup.recv() => SignalKind::hangup(),
            _ = self.interrupt.recv() => SignalKind::interrupt(),
            _ = self.terminate.recv() => SignalKind::terminate(),
        };
        kind.as_raw_value()
    }
}

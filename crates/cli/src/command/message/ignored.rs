//! Signals that the process was started to ignore.

use tokio::signal::unix::SignalKind;

/// Whether the process ignores a signal.
pub fn is_ignored(kind: SignalKind) -> bool {
    // SAFETY: zero bytes are a valid `sigaction`, which is plain data.
    let mut present: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: without a new action the call sets nothing; it writes the present one to `present`, which lives as long as the call.
    let failed = unsafe { libc::sigaction(kind.as_raw_value(), std::ptr::null(), &raw mut present) };
    failed == 0 && present.sa_sigaction == libc::SIG_IGN
}

//! The log: lines on stderr.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use crate::config::sections::{Log, LogFormat};

impl Log {
    /// The filter that `log.level` stands for.
    pub(crate) fn filter(&self) -> Result<EnvFilter, String> {
        let problem = |e| format!("`{}`: {e}; write `info`, or `info,sabir_net=debug`", self.level);
        EnvFilter::builder().parse(&self.level).map_err(problem)
    }
}

/// Sends the log to stderr from here on. Does nothing where the process has a log already.
pub fn init(log: &Log) {
    // The configuration was checked; only an embedding program could have made another one.
    let filter = log.filter().unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let outcome = match log.format {
        LogFormat::Text => builder.with_ansi(std::io::stderr().is_terminal()).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    // Another log is there: an embedding program's, or an earlier start's in this process.
    drop(outcome);
}

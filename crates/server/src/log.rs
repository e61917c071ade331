//! The log: lines on stderr.

use std::io::IsTerminal;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::EnvFilter;

use crate::config::sections::{LogFormat, LogSection};

impl LogSection {
    /// The filter that `log.level` stands for.
    pub(crate) fn filter(&self) -> Result<EnvFilter, String> {
        if let Some(word) = unknown_level(&self.level) {
            return Err(format!(
                "`{word}` is no level: write `error`, `warn`, `info`, `debug`, `trace`, `off`, or `info,sabir_net=debug`"
            ));
        }
        let problem = |e| format!("`{}`: {e}; write `info`, or `info,sabir_net=debug`", self.level);
        EnvFilter::builder().parse(&self.level).map_err(problem)
    }
}

/// A word that stands where a level is meant and is none. A filter takes it for the name of a module, and then nothing else is logged.
fn unknown_level(filter: &str) -> Option<&str> {
    let mut words = filter.split(',').map(str::trim).filter(|word| !word.is_empty()).peekable();
    if words.peek().is_none() {
        return Some(filter);
    }
    // One with brackets is of spans; the filter judges what level it has, if any.
    words.find(|word| !word.contains(['=', '[']) && word.parse::<LevelFilter>().is_err())
}

/// Whether a terminal may be given colours: not where the user wants none (<https://no-color.org>) or it knows none.
pub fn colors_allowed() -> bool {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    set("NO_COLOR").is_none() && set("TERM").is_none_or(|term| term != "dumb")
}

/// Sends the log to stderr from here on. Does nothing where the process has a log already.
pub fn init(log: &LogSection) {
    // The configuration was checked; only an embedding program could have made another one.
    let filter = log.filter().unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // Where the terminal has gone, saying so on it would only panic.
    let builder = builder.log_internal_errors(false);
    let outcome = match log.format {
        LogFormat::Text => builder.with_ansi(std::io::stderr().is_terminal() && colors_allowed()).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    // Another log is there: an embedding program's, or an earlier start's in this process.
    drop(outcome);
}

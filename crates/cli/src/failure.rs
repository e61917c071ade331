//! Failures as a user and a script see them: a sentence, what to do about it, and a stable exit code.

use std::error::Error;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::sync::Arc;

use sabir_server::advice_on;
use sabir_server::client::{ClientError, Failure};
use sabir_server::config::{About, ConfigErrors};

use crate::color::{self, Color};
use crate::output::visible;
use crate::program;

/// What the process ends with. Numbers are never reused; `docs/cli.md` lists them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Something failed that no other code names.
    Failed = 1,
    /// The command line makes no sense. (Clap uses the same number.)
    Usage = 2,
    /// No server answers at the address.
    Connect = 3,
    /// The topic, partition or offset does not exist.
    NotFound = 4,
    /// It exists already.
    Exists = 5,
    /// The broker refused, or does not know the operation.
    Refused = 6,
    /// No answer in time.
    Timeout = 7,
    /// The configuration is wrong.
    Config = 8,
    /// Another process holds the data directory.
    InUse = 9,
}

/// A command that failed.
#[derive(Debug)]
pub struct CliError {
    pub exit: Exit,
    pub message: String,
    /// What to do about it.
    pub advice: Option<String>,
    /// The reader of our output went away: nothing to complain about, and nobody to complain to.
    pub quiet: bool,
}

impl CliError {
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into(), advice: None, quiet: false }
    }

    pub fn advise(mut self, advice: impl Into<String>) -> Self {
        self.advice = Some(advice.into());
        self
    }

    /// Shows it on stderr.
    pub fn report(self) -> ExitCode {
        if self.quiet {
            return ExitCode::SUCCESS;
        }
        let mut err = io::stderr().lock();
        let label = match color::wanted(err.is_terminal()) {
            true => color::painted("error:", Color::Red),
            false => "error:".into(),
        };
        // Nothing can be done where stderr is closed.
        for line in program::as_typed(&self.message).lines() {
            let _ = writeln!(err, "{label} {}", visible(line));
        }
        let advice = self.advice.map(|advice| program::as_typed(&advice)).unwrap_or_default();
        for line in advice.lines() {
            let _ = writeln!(err, "  {}", visible(line));
        }
        ExitCode::from(self.exit as u8)
    }
}

impl From<ClientError> for CliError {
    fn from(error: ClientError) -> Self {
        let exit = match error.failure {
            Failure::Connect | Failure::AdminPort => Exit::Connect,
            Failure::NotFound => Exit::NotFound,
            Failure::Exists => Exit::Exists,
            Failure::Refused | Failure::Unsupported => Exit::Refused,
            Failure::Timeout => Exit::Timeout,
            Failure::Broken => Exit::Failed,
        };
        let failed = Self::new(exit, error.message);
        if let Some(advice) = error.advice {
            return failed.advise(advice);
        }
        if error.failure == Failure::AdminPort {
            return failed.advise(
                "Is the broker running there, and its admin port on (admin.listen)? Name another with --admin or \
                 SABIR_ADMIN.",
            );
        }
        match exit {
            Exit::Connect => failed.advise(
                "Is the broker running there? Start one with `sabir dev` or `sabir serve`, or name another with \
                 --address or SABIR_ADDRESS.",
            ),
            Exit::NotFound => failed.advise("`sabir topic list` and `sabir group list` show what there is."),
            Exit::Timeout => failed.advise(
                "Give it longer with --timeout; the broker's log says what it does, and `sabir doctor` what its machine \
                 makes of it.",
            ),
            _ => failed,
        }
    }
}

impl From<ConfigErrors> for CliError {
    fn from(errors: ConfigErrors) -> Self {
        // A file that cannot be read, or is no TOML, is all that is told: nothing in it was looked at.
        let about = errors.0.first().map_or(About::Value, |problem| problem.about);
        Self::new(Exit::Config, errors.to_string()).advise(config_advice(about))
    }
}

/// What to do about a configuration that is wrong.
pub fn config_advice(about: About) -> &'static str {
    const NAMED: &str = "--config or SABIR_CONFIG names it. Name the file that is meant, or none: every key has a default, \
                         and `sabir config reference -o toml` prints a file to begin with.";
    match about {
        About::Value => "`sabir config reference` lists every key with its default.",
        About::Syntax => "`sabir config reference -o toml` prints a file in that form, to begin with.",
        About::File(kind) => advice_on(kind).unwrap_or(NAMED),
    }
}

impl From<io::Error> for CliError {
    fn from(error: io::Error) -> Self {
        let quiet = error.kind() == io::ErrorKind::BrokenPipe;
        Self { quiet, advice: denied(&error).map(Into::into), ..Self::new(Exit::Failed, error.to_string()) }
    }
}

/// What to do where the system does not let this user at a file, if that is what went wrong.
pub fn denied(error: &(dyn Error + 'static)) -> Option<&'static str> {
    let (mut cause, mut kind) = (Some(error), None);
    while let Some(error) = cause {
        let shared = error.downcast_ref::<Arc<io::Error>>().map(AsRef::as_ref);
        kind = error.downcast_ref::<io::Error>().or(shared).map(io::Error::kind).or(kind);
        cause = error.source();
    }
    advice_on(kind?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_system_denies_comes_with_advice() {
        for (kind, says) in [
            (io::ErrorKind::PermissionDenied, Some("chown")),
            (io::ErrorKind::ReadOnlyFilesystem, Some("read-only")),
            (io::ErrorKind::NotADirectory, Some("a folder")),
            (io::ErrorKind::StorageFull, Some("make space")),
            (io::ErrorKind::NotFound, None),
        ] {
            let advice = CliError::from(io::Error::from(kind)).advice;
            // As a disk passes it on.
            assert_eq!(denied(&Arc::new(io::Error::from(kind))), advice.as_deref());
            assert_eq!(advice.is_some(), says.is_some(), "{kind}");
            assert!(advice.unwrap_or_default().contains(says.unwrap_or_default()), "{kind}");
        }
    }
}

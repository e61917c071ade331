//! `sabir serve`.

use sabir_server::config::{About, ServerConfig};
use sabir_server::{RunError, ServerStartError, log, protocols};

use super::config::sources;
use crate::args::ServeArgs;
use crate::failure::{CliError, Exit, config_advice, denied};

pub fn run(args: ServeArgs) -> Result<(), CliError> {
    let config = ServerConfig::load(&sources(&args.config, args.data), protocols())?;
    log::init(&config.log);
    Ok(sabir_server::run(config)?)
}

impl From<RunError> for CliError {
    fn from(error: RunError) -> Self {
        match error {
            RunError::Start(error) => error.into(),
            stuck => Self::new(Exit::Timeout, stuck.to_string()),
        }
    }
}

impl From<ServerStartError> for CliError {
    fn from(error: ServerStartError) -> Self {
        if error.data_in_use() {
            return Self::new(Exit::InUse, error.to_string())
                .advise("Stop that process first, or give this one another folder with --data.");
        }
        if error.is_of_configuration() {
            return Self::new(Exit::Config, error.to_string()).advise(config_advice(About::Value));
        }
        let failed = Self::new(Exit::Failed, error.to_string());
        if error.lacks_descriptors() {
            return failed.advise(
                "Raise the open-file limit (ulimit -Hn, or LimitNOFILE= in the unit): `sabir doctor` says how far.",
            );
        }
        match error {
            // It says itself what to do.
            ServerStartError::Bind(_) => failed,
            error => Self { advice: denied(&error).map(Into::into), ..failed },
        }
    }
}

//! `sabir config`.

use std::io::Write;
use std::path::PathBuf;

use sabir_server::config::{Sources, reference};
use sabir_server::protocols;

use crate::args::{ConfigArgs, ConfigCommand};
use crate::failure::CliError;

pub fn run(command: ConfigCommand) -> Result<(), CliError> {
    let text = match command {
        ConfigCommand::Reference => reference::markdown(protocols()),
        ConfigCommand::Show(args) => reference::effective(&sources(&args.config, args.data), protocols())?,
    };
    Ok(std::io::stdout().write_all(text.as_bytes())?)
}

/// Everything that settings come from, `--data` included.
pub fn sources(args: &ConfigArgs, data: Option<PathBuf>) -> Sources {
    let sources = Sources::from_process(args.config.clone(), args.set.clone());
    Sources { data, ..sources }
}

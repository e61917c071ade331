//! `sabir definitions`.

use std::path::PathBuf;

use clap::Subcommand;

use super::OutputArg;

#[derive(Debug, Subcommand)]
pub enum DefinitionsCommand {
    /// Write all topics, queues, exchanges and bindings with their settings as JSON, for this broker or another one
    #[command(after_help = "\
Examples:
  sabir definitions export -o definitions.json
  sabir definitions export | jq '.topics[].name'")]
    Export {
        /// The file to write, whole or not at all [default: stdout]
        #[arg(long, short = 'o', value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Create what of such a file is absent; what exists and differs keeps all from being created
    #[command(after_help = "\
Example:
  sabir definitions import definitions.json --dry-run")]
    Import {
        /// The file; - is stdin
        file: PathBuf,
        /// Only show what would be created
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        output: OutputArg,
    },
}

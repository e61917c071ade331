//! `sabir connection`.

use clap::Subcommand;

use super::{OutputArg, Sure};

#[derive(Debug, Subcommand)]
pub enum ConnectionCommand {
    /// List the connections of clients
    #[command(visible_alias = "ls")]
    List {
        /// Only those of clients whose names begin so
        #[arg(long, value_name = "PREFIX", default_value = "", hide_default_value = true)]
        client: String,
        #[command(flatten)]
        output: OutputArg,
    },
    /// Show connections
    Show {
        /// Their ids
        #[arg(required = true, value_name = "ID")]
        ids: Vec<String>,
        #[command(flatten)]
        output: OutputArg,
    },
    /// Close connections; their clients may connect again
    Close {
        /// Their ids
        #[arg(required = true, value_name = "ID")]
        ids: Vec<String>,
        /// Only show what would be closed
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        sure: Sure,
        #[command(flatten)]
        output: OutputArg,
    },
}

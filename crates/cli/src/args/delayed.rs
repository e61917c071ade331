//! `sabir delayed`.

use clap::{Args, Subcommand};

use super::{OutputArg, Sure};

#[derive(Debug, Subcommand)]
pub enum DelayedCommand {
    /// Count the messages that are not due yet, by the exchange that keeps them back
    #[command(visible_alias = "ls")]
    List {
        /// Only those of this exchange
        #[arg(long, value_name = "NAME")]
        exchange: Option<String>,
        /// The namespace they are in
        #[arg(long, value_name = "NAME")]
        namespace: Option<String>,
        #[command(flatten)]
        output: OutputArg,
    },
    /// Drop messages before they are due
    Delete(DeleteArgs),
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sabir delayed delete --exchange reminders --dry-run  (how many there are)
  sabir delayed delete --exchange reminders
  sabir delayed delete --all")]
pub struct DeleteArgs {
    /// Those of this exchange
    #[arg(long, value_name = "NAME", required_unless_present = "all", conflicts_with = "all")]
    pub exchange: Option<String>,
    /// All of the namespace, those too that cannot be read
    #[arg(long)]
    pub all: bool,
    /// The namespace they are in
    #[arg(long, value_name = "NAME")]
    pub namespace: Option<String>,
    /// Only count what would be dropped
    #[arg(long)]
    pub dry_run: bool,
    #[command(flatten)]
    pub sure: Sure,
    #[command(flatten)]
    pub output: OutputArg,
}

//! `sabir group`.

use clap::{Args, Subcommand};
use sabir_server::config_value::Span;

use super::value::Place;
use super::{OutputArg, Sure};

#[derive(Debug, Subcommand)]
pub enum GroupCommand {
    /// List consumer groups
    #[command(visible_alias = "ls")]
    List {
        #[command(flatten)]
        output: OutputArg,
    },
    /// Show groups: their members, what is dealt to them, and how far they are
    Describe {
        /// Their ids
        #[arg(required = true, value_name = "GROUP")]
        groups: Vec<String>,
        #[command(flatten)]
        output: OutputArg,
    },
    /// Show how far groups are behind, partition by partition
    Lag {
        /// Their ids [default: all]
        #[arg(value_name = "GROUP")]
        groups: Vec<String>,
        /// Show it again and again, so much apart, until Ctrl-C
        #[arg(long, value_name = "TIME", num_args = 0..=1, require_equals = true, default_missing_value = "2s")]
        watch: Option<Span>,
        #[command(flatten)]
        output: OutputArg,
    },
    /// Make a group without members go on elsewhere
    Reset(ResetArgs),
    /// Delete groups without members, and what they have committed
    #[command(visible_alias = "rm")]
    Delete {
        /// Their ids
        #[arg(required = true, value_name = "GROUP")]
        groups: Vec<String>,
        /// Only check that they could be deleted
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        sure: Sure,
        #[command(flatten)]
        output: OutputArg,
    },
    /// Delete what a group has committed of a topic that its members do not read
    DeleteOffsets(DeleteOffsetsArgs),
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sabir group reset billing --to earliest --dry-run
  sabir group reset billing --to -2h                          (what came in the last two hours)
  sabir group reset billing --to 2026-01-31T12:00:00Z
  sabir group reset billing --topic orders --partition 3 --to 4711
  sabir group reset billing --topic orders --by -100          (a hundred messages back)

A group that does not exist is made, if --topic says of what.")]
pub struct ResetArgs {
    /// Its id
    pub group: String,
    /// A topic; may be given more than once [default: all that it has committed offsets of]
    #[arg(long = "topic", value_name = "TOPIC")]
    pub topics: Vec<String>,
    /// Only this partition
    #[arg(long, short = 'p', requires = "topics", value_parser = clap::value_parser!(i32).range(0..))]
    pub partition: Option<i32>,
    #[command(flatten)]
    pub to: To,
    /// Only show what would change
    #[arg(long)]
    pub dry_run: bool,
    #[command(flatten)]
    pub sure: Sure,
    #[command(flatten)]
    pub output: OutputArg,
}

/// Where a group is to go on.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub struct To {
    /// At `earliest`, `latest`, an offset, or a time: 2026-01-31T12:00:00Z, "2026-01-31 12:00" (UTC), or -90m for so long ago
    #[arg(long, value_name = "WHERE", allow_hyphen_values = true)]
    pub to: Option<Place>,
    /// So many messages on, or back if it is negative
    #[arg(long, value_name = "COUNT", allow_hyphen_values = true)]
    pub by: Option<i64>,
}

#[derive(Debug, Args)]
pub struct DeleteOffsetsArgs {
    /// Its id
    pub group: String,
    /// The topic; may be given more than once
    #[arg(long = "topic", required = true, value_name = "TOPIC")]
    pub topics: Vec<String>,
    /// Only this partition
    #[arg(long, short = 'p', value_parser = clap::value_parser!(i32).range(0..))]
    pub partition: Option<i32>,
    /// Only show what would be deleted
    #[arg(long)]
    pub dry_run: bool,
    #[command(flatten)]
    pub sure: Sure,
    #[command(flatten)]
    pub output: OutputArg,
}

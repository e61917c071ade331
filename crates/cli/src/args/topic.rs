//! `sabir topic`.

use clap::{Args, Subcommand};

use super::value::{Moment, Place, name_value};
use super::{OutputArg, Sure};

#[derive(Debug, Subcommand)]
pub enum TopicCommand {
    /// Create topics
    Create {
        /// Their names
        #[arg(required = true, value_name = "TOPIC")]
        topics: Vec<String>,
        /// How many partitions [default: the broker's]
        #[arg(long, short = 'p', value_parser = clap::value_parser!(i32).range(1..))]
        partitions: Option<i32>,
        /// A setting by the protocol's name for it, such as retention.ms=3600000
        #[arg(long, short = 'c', value_name = "NAME=VALUE", value_parser = name_value)]
        config: Vec<(String, String)>,
        /// It is no failure if a topic exists
        #[arg(long)]
        if_not_exists: bool,
        /// Only check that they could be created
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        output: OutputArg,
    },
    /// List topics
    #[command(visible_alias = "ls")]
    List {
        /// Show the broker's own topics too
        #[arg(long)]
        internal: bool,
        #[command(flatten)]
        output: OutputArg,
    },
    /// Show topics with their partitions and offsets
    Describe {
        /// Their names
        #[arg(required = true, value_name = "TOPIC")]
        topics: Vec<String>,
        #[command(flatten)]
        output: OutputArg,
    },
    /// Show the offsets of a topic's partitions, and those of a time
    #[command(after_help = "\
Examples:
  sabir topic offsets orders
  sabir topic offsets orders --at -1h")]
    Offsets {
        /// Its name
        topic: String,
        /// Show the offset of the first message that is not older too: 2026-01-31T12:00:00Z, or -90m for so long ago
        #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
        at: Option<Moment>,
        /// Only this partition
        #[arg(long, short = 'p', value_parser = clap::value_parser!(i32).range(0..))]
        partition: Option<i32>,
        #[command(flatten)]
        output: OutputArg,
    },
    /// Show and change the settings of a topic
    #[command(subcommand)]
    Config(TopicConfigCommand),
    /// Give a topic more partitions; keys are placed anew then, and no partition can be taken away again
    #[command(after_help = "\
Example:
  sabir topic add-partitions orders --total 12")]
    AddPartitions {
        /// Its name
        topic: String,
        /// How many it is to have in all
        #[arg(long, value_parser = clap::value_parser!(i32).range(1..))]
        total: i32,
        /// Only check that it could have them
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        output: OutputArg,
    },
    /// Delete the oldest messages of a topic, up to an offset or a time
    DeleteRecords(DeleteRecordsArgs),
    /// Delete topics and all their messages
    #[command(visible_alias = "rm")]
    Delete {
        /// Their names
        #[arg(required = true, value_name = "TOPIC")]
        topics: Vec<String>,
        /// It is no failure if a topic does not exist
        #[arg(long)]
        if_exists: bool,
        /// Only show what would be lost
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        sure: Sure,
        #[command(flatten)]
        output: OutputArg,
    },
}

#[derive(Debug, Subcommand)]
pub enum TopicConfigCommand {
    /// Show the settings that a topic has of its own
    Show {
        /// Its name
        topic: String,
        /// Show what holds where the topic says nothing too
        #[arg(long)]
        all: bool,
        #[command(flatten)]
        output: OutputArg,
    },
    /// Set settings, all of them or none
    #[command(after_help = "\
Example:
  sabir topic config set orders retention.ms=3600000 max.message.bytes=2000000")]
    Set {
        /// The topic
        topic: String,
        /// The settings, by the protocol's names for them
        #[arg(required = true, value_name = "NAME=VALUE", value_parser = name_value)]
        settings: Vec<(String, String)>,
        /// Only check that they would be taken
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        output: OutputArg,
    },
    /// Take a topic's own settings away: what holds for all topics holds for it again
    Unset {
        /// The topic
        topic: String,
        /// The settings' names
        #[arg(required = true, value_name = "NAME")]
        settings: Vec<String>,
        /// Only check that they could be taken away
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        output: OutputArg,
    },
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sabir topic delete-records orders --before -7d --dry-run
  sabir topic delete-records orders --before 4711 --partition 3
  sabir topic delete-records orders --before latest          (all of them; the topic stays)")]
pub struct DeleteRecordsArgs {
    /// The topic
    pub topic: String,
    /// Delete what stands before: an offset, a time (2026-01-31T12:00:00Z, or -7d for so long ago), or `latest`
    #[arg(long, value_name = "WHERE", allow_hyphen_values = true)]
    pub before: Place,
    /// Only of this partition
    #[arg(long, short = 'p', value_parser = clap::value_parser!(i32).range(0..))]
    pub partition: Option<i32>,
    /// Only show what would be lost
    #[arg(long)]
    pub dry_run: bool,
    #[command(flatten)]
    pub sure: Sure,
    #[command(flatten)]
    pub output: OutputArg,
}

//! `sabir dlq`.

use std::num::NonZero;

use clap::{Args, Subcommand};

use super::{OutputArg, Sure};

#[derive(Debug, Subcommand)]
pub enum DlqCommand {
    /// Move messages of a dead-letter queue back to the queues that gave them up
    Redrive(RedriveArgs),
    /// List the redrives that are running, and the last that ended, with how far they came
    #[command(visible_alias = "ls")]
    Redrives {
        #[command(flatten)]
        output: OutputArg,
    },
    /// Cancel redrives that are running: what has gone back stays there
    Cancel {
        /// Their ids
        #[arg(required = true, value_name = "ID")]
        ids: Vec<String>,
        #[command(flatten)]
        output: OutputArg,
    },
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sabir dlq redrive dead --dry-run                     (what is in it, by where it came from and why)
  sabir dlq redrive dead --limit 10                    (try it with the ten oldest)
  sabir dlq redrive dead --from orders --rate 100
  sabir dlq redrive dead --reason delivery-limit

It goes on at the broker if this command is interrupted; `sabir dlq cancel` ends it.")]
pub struct RedriveArgs {
    /// The dead-letter queue
    pub queue: String,
    /// Only what this queue gave up
    #[arg(long, value_name = "QUEUE")]
    pub from: Option<String>,
    /// Only what was given up for this reason
    #[arg(long, value_name = "REASON")]
    pub reason: Option<Reason>,
    /// Stop after so many, the oldest first
    #[arg(long, short = 'n', value_name = "COUNT")]
    pub limit: Option<NonZero<u64>>,
    /// Move at most so many a second
    #[arg(long, value_name = "COUNT")]
    pub rate: Option<NonZero<u32>>,
    /// The namespace the queue is in
    #[arg(long, value_name = "NAME")]
    pub namespace: Option<String>,
    /// Only count what would be moved
    #[arg(long)]
    pub dry_run: bool,
    /// Do not wait until it is done
    #[arg(long, conflicts_with = "dry_run")]
    pub no_wait: bool,
    #[command(flatten)]
    pub sure: Sure,
    #[command(flatten)]
    pub output: OutputArg,
}

/// Why a queue gave a message up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Reason {
    /// A consumer rejected it
    Rejected,
    /// Its time to live was over
    Expired,
    /// Its queue was full
    Length,
    /// It came back too often
    DeliveryLimit,
}

impl Reason {
    /// As the admin port has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Rejected => "rejected",
            Self::Expired => "expired",
            Self::Length => "length",
            Self::DeliveryLimit => "delivery_limit",
        }
    }
}

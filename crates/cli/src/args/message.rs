//! `sabir message`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use regex::bytes::Regex;

use super::OutputArg;
use super::declared::PublishFlags;
use super::template::Template;
use super::value::{Moment, name_value, regex};

#[derive(Debug, Subcommand)]
pub enum MessageCommand {
    /// Publish a message, or each line of a file or of stdin
    #[command(visible_alias = "pub")]
    Publish(PublishArgs),
    /// Read messages, up to the end as it is now
    Read(ReadArgs),
    /// Show the last messages, and new ones as they come
    Tail(TailArgs),
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sabir message publish orders 'one message' --key customer-7 -H source=web
  printf 'a\\nb\\n' | sabir message publish orders
  sabir message publish orders --file users.csv --key-separator ,
  sabir message publish pictures --file cat.jpg --whole
  sabir message read orders -o json | sabir message publish copy --json")]
pub struct PublishArgs {
    /// The topic
    pub topic: String,
    /// The content; without it, each line of stdin or of --file is a message
    #[arg(conflicts_with_all = ["file", "whole", "key_separator"])]
    pub value: Option<String>,
    /// Read from a file instead of stdin
    #[arg(long, short = 'f', value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// All of the input is one message
    #[arg(long, conflicts_with = "key_separator")]
    pub whole: bool,
    /// Each line is an object as `message read -o json` writes it: key, content and headers are taken from it
    #[arg(long, conflicts_with_all = ["value", "whole", "key", "key_separator", "headers", "tombstone"])]
    pub json: bool,
    /// The key of every message
    #[arg(long, short = 'k')]
    pub key: Option<String>,
    /// What stands before this in a line is its key
    #[arg(long, value_name = "TEXT", conflicts_with = "key")]
    pub key_separator: Option<String>,
    /// A header of every message; may be given more than once
    #[arg(long = "header", short = 'H', value_name = "NAME=VALUE", value_parser = name_value)]
    pub headers: Vec<(String, String)>,
    /// The partition [default: by key; without one, batches go to the partition that was given least]
    #[arg(long, short = 'p', value_parser = clap::value_parser!(i32).range(0..))]
    pub partition: Option<i32>,
    /// A message without content (in a compacted topic, it deletes its key)
    #[arg(long, conflicts_with_all = ["value", "file", "whole", "key_separator"], requires = "key")]
    pub tombstone: bool,
    #[command(flatten)]
    pub options: PublishFlags,
    #[command(flatten)]
    pub output: OutputArg,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sabir message read orders --limit 10
  sabir message read orders --since -1h --key customer-7 -o json
  sabir message read orders --matches 'status=5..' --header source=web
  sabir message read orders --partition 2 --offset 4711 --limit 1 -o value
  sabir message read orders -f '%o %k %s\\n'
  sabir message read orders --group billing --limit 10       (go on where the group is, and commit)
  sabir message read tasks --settle --limit 10               (take the first ten off the queue)

What is read of a queue is taken from it and given back at the end, but for what --settle takes for good. More is taken than is shown
(--limit, filters). What comes back is flagged as redelivered then, and counts as delivered. Where the queue limits that, what comes
back once too often is dead-lettered, or lost.")]
pub struct ReadArgs {
    /// The topic
    pub topic: String,
    #[command(flatten)]
    pub start: StartArgs,
    /// Go on where this group is, and commit what was read, whether it fits the filters or not; it must have no members
    #[arg(long, short = 'g', value_name = "GROUP", conflicts_with_all = ["offset", "since", "last"])]
    pub group: Option<String>,
    /// Take what is shown off the queue for good, once it is written
    #[arg(long, conflicts_with = "group")]
    pub settle: bool,
    /// Stop after so many messages that fit
    #[arg(long, short = 'n', visible_alias = "count", value_name = "COUNT")]
    pub limit: Option<u64>,
    /// Only this partition
    #[arg(long, short = 'p', value_parser = clap::value_parser!(i32).range(0..))]
    pub partition: Option<i32>,
    /// Wait for new messages at the end
    #[arg(long)]
    pub follow: bool,
    /// The form of a message
    #[arg(long, short = 'o', default_value = "table", value_name = "FORM")]
    pub output: MessageFormat,
    /// Write each message so: %t topic, %p partition, %o offset, %T time in ms (-1: none), %k key, %s content, %K and %S their
    /// lengths (-1: none), %h headers, %%, \n, \t
    #[arg(long, short = 'f', value_name = "TEMPLATE", conflicts_with = "output")]
    pub format: Option<Template>,
    // Last, or what follows stands under its heading.
    #[command(flatten)]
    pub filter: FilterArgs,
}

/// Where reading begins: at the oldest message, if nothing is said.
#[derive(Debug, Args)]
#[group(multiple = false)]
pub struct StartArgs {
    /// Start at this offset of every partition
    #[arg(long, value_parser = clap::value_parser!(i64).range(0..))]
    pub offset: Option<i64>,
    /// Start at this time: 2026-01-31T12:00:00Z, "2026-01-31 12:00" (UTC), or -90m for so long ago
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    pub since: Option<Moment>,
    /// Start so many messages before the end of every partition
    #[arg(long, value_name = "COUNT")]
    pub last: Option<u32>,
}

/// Which messages are shown: those that fit all that is said.
#[derive(Debug, Args)]
#[command(next_help_heading = "Filters")]
pub struct FilterArgs {
    /// With this key
    #[arg(long, short = 'k', value_name = "TEXT")]
    pub key: Option<String>,
    /// With this header, whatever its value, or with this value; may be given more than once
    #[arg(long = "header", short = 'H', value_name = "NAME[=VALUE]")]
    pub headers: Vec<String>,
    /// With this text in the content
    #[arg(long, value_name = "TEXT")]
    pub contains: Option<String>,
    /// With content in which this regular expression is found
    #[arg(long, value_name = "REGEX", value_parser = regex)]
    pub matches: Option<Regex>,
    /// Older than this: 2026-01-31T12:00:00Z, "2026-01-31 12:00" (UTC), or -90m for so long ago
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    pub until: Option<Moment>,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sabir message tail orders
  sabir message tail orders --since -5m --contains error
  sabir message tail orders --last 0 -o json

It begins ten messages before the end of every partition, if nothing else is said.")]
pub struct TailArgs {
    /// The topic
    pub topic: String,
    #[command(flatten)]
    pub start: StartArgs,
    /// Only this partition
    #[arg(long, short = 'p', value_parser = clap::value_parser!(i32).range(0..))]
    pub partition: Option<i32>,
    /// Stop after so many messages that fit
    #[arg(long, short = 'n', visible_alias = "count", value_name = "COUNT")]
    pub limit: Option<u64>,
    /// The form of a message
    #[arg(long, short = 'o', default_value = "table", value_name = "FORM")]
    pub output: MessageFormat,
    /// Write each message so: %t topic, %p partition, %o offset, %T time in ms (-1: none), %k key, %s content, %K and %S their
    /// lengths (-1: none), %h headers, %%, \n, \t
    #[arg(long, short = 'f', value_name = "TEMPLATE", conflicts_with = "output")]
    pub format: Option<Template>,
    // Last, or what follows stands under its heading.
    #[command(flatten)]
    pub filter: FilterArgs,
}

/// How a message is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum MessageFormat {
    /// partition:offset, time, key, content and headers in a line
    #[value(alias = "text")]
    Table,
    /// One object a line; what is not UTF-8 stands in base64
    Json,
    /// The content and a line feed, nothing else
    #[value(alias = "raw")]
    Value,
    /// A line as in a table, and below it the bytes of the content, sixteen a line
    Hex,
}

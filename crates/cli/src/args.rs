//! The command line's grammar.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use sabir_server::config_value::{Size, Span};

use crate::output::Format;

/// One broker for the clients of many protocols.
#[derive(Debug, Parser)]
#[command(name = "sabir", version, propagate_version = true, arg_required_else_help = true)]
#[command(after_help = "\
Examples:
  sabir dev                              try it: a broker on loopback, and a message that goes round
  sabir serve --data /var/lib/sabir      run it
  sabir topic create orders -p 6
  sabir message publish orders 'hello' --key customer-7
  sabir message tail orders
  sabir bench produce --size 100 --duration 10s

Exit codes: 0 ok, 1 failed, 2 wrong usage, 3 cannot connect, 4 not found, 5 exists already, 6 refused,
7 timed out, 8 wrong configuration, 9 the data directory is in use.")]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the broker until it is told to stop (SIGTERM, SIGINT)
    Serve(ServeArgs),
    /// Try it: a broker on loopback, and one message that goes round through a real client connection
    Dev(DevArgs),
    /// Create, list, describe and delete topics
    Topic(Noun<TopicCommand>),
    /// Publish and read messages
    Message(Noun<MessageCommand>),
    /// See how far consumer groups are, and move them
    Group(Noun<GroupCommand>),
    /// Put load on a broker and measure it
    Bench(BenchArgs),
    /// Check the machine as the broker would find it: disk, limits, clock, kernel
    Doctor(DoctorArgs),
    /// Show and explain the configuration
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Print the completions for a shell
    #[command(after_help = "\
Bash:  sabir completions bash > ~/.local/share/bash-completion/completions/sabir
Zsh:   sabir completions zsh > \"${fpath[1]}/_sabir\"
Fish:  sabir completions fish > ~/.config/fish/completions/sabir.fish")]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

/// A noun whose verbs are a client's.
#[derive(Debug, Args)]
pub struct Noun<Verb: Subcommand> {
    #[command(flatten)]
    pub client: ClientArgs,
    #[command(subcommand)]
    pub verb: Verb,
}

/// Which broker, and how to speak with it.
#[derive(Debug, Clone, Args)]
pub struct Target {
    /// The broker, as host:port [default: 127.0.0.1 and the protocol's port]
    #[arg(long, short = 'a', global = true, env = "SABIR_ADDRESS", value_name = "HOST:PORT")]
    pub address: Option<String>,
    /// The protocol to speak with it
    #[arg(long, global = true, env = "SABIR_PROTO", value_name = "NAME")]
    pub proto: Option<String>,
}

/// How a client command reaches its broker.
#[derive(Debug, Clone, Args)]
pub struct ClientArgs {
    #[command(flatten)]
    pub target: Target,
    /// How long to wait for an answer
    #[arg(long, global = true, default_value = "30s", value_name = "TIME")]
    pub timeout: Span,
}

/// Where a broker's settings come from.
#[derive(Debug, Clone, Args)]
pub struct ConfigArgs {
    /// The configuration, in TOML
    #[arg(long, short = 'c', env = "SABIR_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Set one key, over the file and the environment
    #[arg(long, value_name = "SECTION.KEY=VALUE")]
    pub set: Vec<String>,
}

#[derive(Debug, Args)]
pub struct ServeArgs {
    #[command(flatten)]
    pub config: ConfigArgs,
    /// The data directory (data.dir)
    #[arg(long, short = 'd', value_name = "DIR")]
    pub data: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct DoctorArgs {
    #[command(flatten)]
    pub serve: ServeArgs,
    #[command(flatten)]
    pub output: OutputArg,
}

#[derive(Debug, Args)]
pub struct DevArgs {
    #[command(flatten)]
    pub config: ConfigArgs,
    /// A data directory to keep [default: a temporary one, removed at the end]
    #[arg(long, short = 'd', value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Stop when the message has gone round
    #[arg(long)]
    pub once: bool,
}

#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Check the configuration, and print the values that hold and where they come from
    Show(ServeArgs),
    /// Print every key with its default and what it does, in Markdown
    Reference,
}

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
        output: OutputArg,
    },
}

#[derive(Debug, Subcommand)]
pub enum GroupCommand {
    /// List consumer groups
    #[command(visible_alias = "ls")]
    List {
        #[command(flatten)]
        output: OutputArg,
    },
    /// Show groups with their members and what is dealt to them
    Describe {
        /// Their ids
        #[arg(required = true, value_name = "GROUP")]
        groups: Vec<String>,
        #[command(flatten)]
        output: OutputArg,
    },
    /// Show how far groups are behind, partition by partition
    Lag {
        /// Their ids
        #[arg(required = true, value_name = "GROUP")]
        groups: Vec<String>,
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
        output: OutputArg,
    },
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sabir group reset billing --to-earliest --dry-run
  sabir group reset billing --since 2h
  sabir group reset billing --topic orders --partition 3 --to-offset 4711")]
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
    pub output: OutputArg,
}

/// Where a group is to go on.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub struct To {
    /// At the oldest message
    #[arg(long = "to-earliest")]
    pub earliest: bool,
    /// Behind the newest message
    #[arg(long = "to-latest")]
    pub latest: bool,
    /// At this offset
    #[arg(long = "to-offset", value_name = "OFFSET", value_parser = clap::value_parser!(i64).range(0..))]
    pub offset: Option<i64>,
    /// At this time: 2026-01-31T12:00:00Z, 2026-01-31 12:00 (UTC), or 90m for so long ago
    #[arg(long, value_name = "TIME")]
    pub since: Option<Since>,
}

#[derive(Debug, Clone, Args)]
pub struct OutputArg {
    /// The form of the answer
    #[arg(long, short = 'o', default_value = "table", value_name = "FORM")]
    pub output: Format,
}

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
  sabir message publish pictures --file cat.jpg --whole")]
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
    /// The key of every message
    #[arg(long, short = 'k')]
    pub key: Option<String>,
    /// What stands before this in a line is its key
    #[arg(long, value_name = "TEXT", conflicts_with = "key")]
    pub key_separator: Option<String>,
    /// A header of every message; may be given more than once
    #[arg(long = "header", short = 'H', value_name = "NAME=VALUE", value_parser = name_value)]
    pub headers: Vec<(String, String)>,
    /// The partition [default: by key, or in turn]
    #[arg(long, short = 'p', value_parser = clap::value_parser!(i32).range(0..))]
    pub partition: Option<i32>,
    /// A message without content (in a compacted topic, it deletes its key)
    #[arg(long, conflicts_with_all = ["value", "file", "whole", "key_separator"], requires = "key")]
    pub tombstone: bool,
    /// What an acknowledgement must mean
    #[arg(long, default_value = "all", value_name = "WHO")]
    pub acks: AcksArg,
    /// How batches are compressed
    #[arg(long, default_value = "none", value_name = "CODEC")]
    pub compression: CompressionArg,
    #[command(flatten)]
    pub output: OutputArg,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sabir message read orders --count 10
  sabir message read orders --since 1h -o json
  sabir message read orders --partition 2 --offset 4711 --count 1 -o raw")]
pub struct ReadArgs {
    /// The topic
    pub topic: String,
    #[command(flatten)]
    pub start: StartArgs,
    /// Stop after so many messages
    #[arg(long, short = 'n')]
    pub count: Option<u64>,
    /// Only this partition
    #[arg(long, short = 'p', value_parser = clap::value_parser!(i32).range(0..))]
    pub partition: Option<i32>,
    /// Wait for new messages at the end
    #[arg(long)]
    pub follow: bool,
    /// The form of a message
    #[arg(long, short = 'o', default_value = "text", value_name = "FORM")]
    pub output: MessageFormat,
}

/// Where reading begins: at the oldest message, if nothing is said.
#[derive(Debug, Args)]
#[group(multiple = false)]
pub struct StartArgs {
    /// Start at this offset of every partition
    #[arg(long, value_parser = clap::value_parser!(i64).range(0..))]
    pub offset: Option<i64>,
    /// Start at this time: 2026-01-31T12:00:00Z, 2026-01-31 12:00 (UTC), or 90m for so long ago
    #[arg(long, value_name = "TIME")]
    pub since: Option<Since>,
    /// Start so many messages before the end of every partition
    #[arg(long, value_name = "COUNT")]
    pub last: Option<u32>,
}

#[derive(Debug, Args)]
pub struct TailArgs {
    /// The topic
    pub topic: String,
    /// How many of the messages there are to show of every partition
    #[arg(long, default_value_t = 10)]
    pub last: u32,
    /// Only this partition
    #[arg(long, short = 'p', value_parser = clap::value_parser!(i32).range(0..))]
    pub partition: Option<i32>,
    /// Stop after so many messages
    #[arg(long, short = 'n')]
    pub count: Option<u64>,
    /// The form of a message
    #[arg(long, short = 'o', default_value = "text", value_name = "FORM")]
    pub output: MessageFormat,
}

/// How a message is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum MessageFormat {
    /// partition:offset, time, key and content in a line
    Text,
    /// One object a line; what is not UTF-8 stands in base64
    Json,
    /// The content and a line feed, nothing else
    Raw,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum AcksArg {
    /// Nobody's
    #[value(name = "0", alias = "none")]
    None,
    /// The leader's
    #[value(name = "1", alias = "leader")]
    Leader,
    /// Every in-sync replica's
    #[value(name = "all", alias = "-1")]
    All,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum CompressionArg {
    None,
    Gzip,
    Snappy,
    Lz4,
    Zstd,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sabir bench produce --size 100 --duration 10s
  sabir bench produce --size 1KiB --count 5M --partitions 6 --compression lz4 --clients 4
  sabir bench consume --topic bench --count 5M
  sabir bench e2e --rate 1000 --duration 30s -o json
  sabir bench produce --address kafka.example.com:9092     (any broker that speaks the protocol)

With --rate, latency counts from when a message was due, not from when it was sent: a stall shows as what it is.")]
pub struct BenchArgs {
    #[command(flatten)]
    pub target: Target,
    #[command(subcommand)]
    pub load: BenchCommand,
}

#[derive(Debug, Subcommand)]
pub enum BenchCommand {
    /// Publish; latency is from when a message was due to its acknowledgement
    Produce(PublishLoad),
    /// Read what is there from the beginning; latency is that of a fetch
    Consume(LoadArgs),
    /// Publish and read at once; latency is from when a message was due to when it was read
    E2e(PublishLoad),
}

/// What every load has.
#[derive(Debug, Args)]
pub struct LoadArgs {
    /// The topic; what publishes creates it, if it does not exist
    #[arg(long, default_value = "bench")]
    pub topic: String,
    /// Stop after so many messages (10000, 500k, 5M)
    #[arg(long, short = 'n', value_parser = count)]
    pub count: Option<u64>,
    /// Stop after this time [default: 10s, if there is no --count]
    #[arg(long, short = 't', value_name = "TIME")]
    pub duration: Option<Span>,
    /// Leave this time at the beginning out of the figures
    #[arg(long, default_value = "0", value_name = "TIME")]
    pub warmup: Span,
    /// Connections that work at once
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    pub clients: u16,
    /// Show no progress
    #[arg(long, short = 'q')]
    pub quiet: bool,
    #[command(flatten)]
    pub output: OutputArg,
}

/// A load that publishes.
#[derive(Debug, Args)]
pub struct PublishLoad {
    #[command(flatten)]
    pub load: LoadArgs,
    /// Partitions of the topic, if it is created
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(i32).range(1..))]
    pub partitions: i32,
    /// Bytes of a message
    #[arg(long, short = 's', default_value = "100")]
    pub size: Size,
    /// Messages a second, all clients together [default: as many as go]
    #[arg(long, short = 'r', value_parser = positive)]
    pub rate: Option<f64>,
    /// What an acknowledgement must mean
    #[arg(long, default_value = "all", value_name = "WHO")]
    pub acks: AcksArg,
    /// How batches are compressed
    #[arg(long, default_value = "none", value_name = "CODEC")]
    pub compression: CompressionArg,
    /// Bytes a batch may have
    #[arg(long, default_value = "16KiB", value_name = "SIZE")]
    pub batch: Size,
    /// How long a message may wait for others to share its batch
    #[arg(long, default_value = "0", value_name = "TIME")]
    pub linger: Span,
    /// Requests under way at once, per connection
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub in_flight: u16,
    /// Number the batches, so that the broker knows a repeated one
    #[arg(long)]
    pub idempotent: bool,
}

fn name_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.into(), value.into())),
        _ => Err("write it as name=value".into()),
    }
}

fn positive(text: &str) -> Result<f64, String> {
    let number = text.parse::<f64>().ok().filter(|n| n.is_finite() && *n > 0.0);
    number.ok_or_else(|| "expected a number above 0".into())
}

/// A number with k, M or G behind it.
fn count(text: &str) -> Result<u64, String> {
    let (digits, factor) = match text.chars().last() {
        Some('k') => (&text[..text.len() - 1], 1_000),
        Some('M') => (&text[..text.len() - 1], 1_000_000),
        Some('G') => (&text[..text.len() - 1], 1_000_000_000),
        _ => (text, 1),
    };
    let number = digits.parse::<u64>().ok().and_then(|n| n.checked_mul(factor)).filter(|n| *n > 0);
    number.ok_or_else(|| "expected a number such as 10000, 500k or 5M".into())
}

/// A moment, in milliseconds since the epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Since {
    At(i64),
    Ago(Span),
}

impl Since {
    /// Milliseconds since the epoch.
    pub fn at(self) -> i64 {
        match self {
            Since::At(ms) => ms,
            Since::Ago(span) => jiff::Timestamp::now().as_millisecond() - span.0.as_millis() as i64,
        }
    }
}

impl std::str::FromStr for Since {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(span) = text.parse::<Span>() {
            return Ok(Since::Ago(span));
        }
        if let Ok(at) = text.parse::<jiff::Timestamp>() {
            return Ok(Since::At(at.as_millisecond()));
        }
        let civil = text.parse::<jiff::civil::DateTime>().ok();
        let utc = civil.and_then(|c| c.to_zoned(jiff::tz::TimeZone::UTC).ok());
        utc.map(|z| Since::At(z.timestamp().as_millisecond())).ok_or_else(|| {
            "expected a time such as 2026-01-31T12:00:00Z, 2026-01-31 12:00, or a length of time such as 90m".into()
        })
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_grammar_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn counts() {
        assert_eq!(count("5M"), Ok(5_000_000));
        assert_eq!(count("12"), Ok(12));
        for wrong in ["", "0", "M", "-1", "1.5M", "99999999999G", "5é"] {
            assert!(count(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn moments() {
        assert_eq!("1970-01-01T00:00:01Z".parse(), Ok(Since::At(1000)));
        assert_eq!("1970-01-02".parse(), Ok(Since::At(86_400_000)));
        assert_eq!("1970-01-01 00:01".parse(), Ok(Since::At(60_000)));
        assert!(matches!("90m".parse(), Ok(Since::Ago(_))));
        assert!("yesterday".parse::<Since>().is_err());
    }
}

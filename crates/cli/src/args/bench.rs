//! `sabir bench`.

use clap::{Args, Subcommand};
use sabir_server::config_value::{Size, Span};

use super::declared::LoadFlags;
use super::value::{count, positive};
use super::{OutputArg, Target};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sabir bench produce --size 100 --duration 10s
  sabir bench produce --size 1KiB --count 5M --partitions 6 --compression lz4 --clients 4
  sabir bench consume --topic bench --count 5M
  sabir bench e2e --rate 1000 --duration 30s -o json
  sabir bench produce --address broker.example.com:9092    (any broker that speaks the protocol)

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
    /// Bytes of a message
    #[arg(long, short = 's', default_value = "100")]
    pub size: Size,
    /// Messages a second, all clients together [default: as many as go]
    #[arg(long, short = 'r', value_parser = positive)]
    pub rate: Option<f64>,
    #[command(flatten)]
    pub options: LoadFlags,
}

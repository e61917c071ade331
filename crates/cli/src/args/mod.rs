//! The command line's grammar: what is common here, a file for each noun beside it.

pub mod bench;
pub mod connection;
pub mod declared;
pub mod definitions;
pub mod delayed;
pub mod dlq;
pub mod group;
pub mod leading;
pub mod message;
pub mod template;
pub mod topic;
pub mod value;

use std::path::PathBuf;

use clap::builder::FalseyValueParser;
use clap::{Args, Parser, Subcommand};
use sabir_server::config_value::Span;

use crate::admin::{AdminClient, AdminUrl};
use crate::output::{ConfigFormat, Format, PageFormat};
use bench::BenchArgs;
use connection::ConnectionCommand;
use definitions::DefinitionsCommand;
use delayed::DelayedCommand;
use dlq::DlqCommand;
use group::GroupCommand;
use message::MessageCommand;
use topic::TopicCommand;

/// The version, and the commit that this was built from.
const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " (", env!("SABIR_COMMIT"), ")");

/// One broker for the clients of many protocols.
#[derive(Debug, Parser)]
#[command(name = "sabir", version = VERSION, propagate_version = true, arg_required_else_help = true)]
#[command(max_term_width = 80)]
#[command(after_help = "\
Examples:
  sabir dev                              try it: a broker on loopback, and a message that goes round
  sabir serve --data /var/lib/sabir      run it
  sabir topic create orders -p 6
  sabir message publish orders 'hello' --key customer-7
  sabir message tail orders
  sabir bench produce --size 100 --duration 10s
  sabir --timeout 5s topic list          options may stand before a command

Exit codes: 0 ok, 1 failed, 2 wrong usage, 3 cannot connect, 4 not found, 5 exists already, 6 refused,
7 timed out, 8 wrong configuration, 9 the data directory is in use, 130 a second signal ended it, or
129, 130 or 143 a signal ended a read.
NO_COLOR, or output that goes to no terminal, turns colours off.")]
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
    /// Create, look at, change and delete topics
    Topic(TopicNoun),
    /// Publish and read messages
    Message(Noun<MessageCommand>),
    /// See how far consumer groups are, and move them
    Group(GroupNoun),
    /// Move dead letters back to the queues that gave them up
    Dlq(AdminNoun<DlqCommand>),
    /// Count delayed messages, and drop them before they are due
    Delayed(AdminNoun<DelayedCommand>),
    /// See who is connected, and close connections
    Connection(AdminNoun<ConnectionCommand>),
    /// Move topics with their settings from one broker to another
    Definitions(AdminNoun<DefinitionsCommand>),
    /// Show the nodes of a cluster
    Cluster(ClusterArgs),
    /// Put load on a broker and measure it
    Bench(BenchArgs),
    /// Check the machine as the broker would find it: disk, limits, clock, kernel
    Doctor(DoctorArgs),
    /// Show the configuration that holds, or explain every key
    Config(ConfigShowArgs),
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

/// `sabir topic`: a protocol administers those of its own namespace, and the admin port those of all.
#[derive(Debug, Args)]
pub struct TopicNoun {
    #[command(flatten)]
    pub client: ClientArgs,
    /// The namespace the topics are in, asked of the admin port [default: the protocol's own]
    #[arg(long, global = true, value_name = "NAME", help_heading = "Connection")]
    pub namespace: Option<String>,
    #[command(subcommand)]
    pub verb: TopicCommand,
}

/// `sabir group`: a protocol administers its own, and the admin port those of all.
#[derive(Debug, Args)]
pub struct GroupNoun {
    #[command(flatten)]
    pub client: ClientArgs,
    /// The protocol whose groups they are, asked of the admin port [default: the one spoken]
    #[arg(long, global = true, value_name = "NAME", help_heading = "Connection")]
    pub protocol: Option<String>,
    /// The namespace the groups are in, asked of the admin port [default: the protocol's own]
    #[arg(long, global = true, value_name = "NAME", help_heading = "Connection")]
    pub namespace: Option<String>,
    #[command(subcommand)]
    pub verb: GroupCommand,
}

/// A noun whose verbs ask the admin port.
#[derive(Debug, Args)]
pub struct AdminNoun<Verb: Subcommand> {
    #[command(flatten)]
    pub admin: AdminArgs,
    #[command(subcommand)]
    pub verb: Verb,
}

/// How a command reaches a broker's admin port.
#[derive(Debug, Clone, Args)]
pub struct AdminArgs {
    /// The broker's admin port [default: http://127.0.0.1:15672]
    #[arg(long, global = true, env = "SABIR_ADMIN", value_name = "URL", help_heading = "Connection")]
    pub admin: Option<AdminUrl>,
    /// How long to wait for the connection, and for each answer
    #[arg(long, global = true, default_value = "30s", value_name = "TIME", help_heading = "Connection")]
    pub timeout: Span,
}

impl AdminArgs {
    pub fn client(&self) -> AdminClient {
        AdminClient::new(self.admin.clone().unwrap_or_default(), self.timeout.0)
    }
}

#[derive(Debug, Args)]
pub struct ClusterArgs {
    #[command(flatten)]
    pub client: ClientArgs,
    #[command(flatten)]
    pub output: OutputArg,
}

/// Which broker, and how to speak with it.
#[derive(Debug, Clone, Args)]
pub struct Target {
    /// The broker, as host:port or PROTOCOL://host:port; with an s behind the protocol (kafkas://, amqps://) by TLS
    /// [default: 127.0.0.1 and the protocol's port]
    #[arg(
        long,
        short = 'a',
        global = true,
        env = "SABIR_ADDRESS",
        value_name = "HOST:PORT",
        help_heading = "Connection"
    )]
    pub address: Option<String>,
    /// The protocol to speak with it [default: what is spoken there]
    #[arg(long, global = true, env = "SABIR_PROTO", value_name = "NAME", help_heading = "Connection")]
    pub proto: Option<String>,
    #[command(flatten)]
    pub tls: TlsArgs,
}

/// How a client command speaks TLS.
#[derive(Debug, Clone, Default, Args)]
pub struct TlsArgs {
    /// Speak TLS, as each of the options below does
    #[arg(long, global = true, env = "SABIR_TLS", help_heading = "TLS", value_parser = FalseyValueParser::new())]
    pub tls: bool,
    /// The authorities that the broker's certificate may be of, in PEM [default: those that the system trusts]
    #[arg(long, global = true, env = "SABIR_TLS_CA", value_name = "FILE", help_heading = "TLS")]
    pub tls_ca: Option<PathBuf>,
    /// A certificate to show to the broker, in PEM
    #[arg(long, global = true, env = "SABIR_TLS_CERT", value_name = "FILE", help_heading = "TLS")]
    pub tls_cert: Option<PathBuf>,
    /// Its private key
    #[arg(long, global = true, env = "SABIR_TLS_KEY", value_name = "FILE", help_heading = "TLS")]
    pub tls_key: Option<PathBuf>,
    /// Take any certificate of the broker's: for tests, since whoever sits between can read all
    #[arg(long, global = true, help_heading = "TLS")]
    pub tls_insecure: bool,
}

/// How a client command reaches its broker.
#[derive(Debug, Clone, Args)]
pub struct ClientArgs {
    #[command(flatten)]
    pub target: Target,
    /// The broker's admin port, asked where the protocol does not administer topics or groups itself
    /// [default: port 15672 beside the broker]
    #[arg(long, global = true, env = "SABIR_ADMIN", value_name = "URL", help_heading = "Connection")]
    pub admin: Option<AdminUrl>,
    /// How long to wait for the connection, and for each answer
    #[arg(long, global = true, default_value = "30s", value_name = "TIME", help_heading = "Connection")]
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

/// What `sabir config` shows; without a verb, what holds.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct ConfigShowArgs {
    #[command(subcommand)]
    pub verb: Option<ConfigCommand>,
    #[command(flatten)]
    pub show: ConfigShow,
}

#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Check the configuration, and print the values that hold and where each comes from
    Show(ConfigShow),
    /// Print every key with its default and what it does
    Reference {
        /// The form of the page
        #[arg(long, short = 'o', default_value = "markdown", value_name = "FORM")]
        output: PageFormat,
    },
}

#[derive(Debug, Args)]
pub struct ConfigShow {
    #[command(flatten)]
    pub serve: ServeArgs,
    /// The form of the answer
    #[arg(long, short = 'o', default_value = "table", value_name = "FORM")]
    pub output: ConfigFormat,
}

/// Whether a question has to be answered before something is lost.
#[derive(Debug, Clone, Copy, Args)]
pub struct Sure {
    /// Ask no question; there is none anyway where nobody sits at a terminal
    #[arg(long, short = 'y')]
    pub yes: bool,
}

#[derive(Debug, Clone, Args)]
pub struct OutputArg {
    /// The form of the answer
    #[arg(long, short = 'o', default_value = "table", value_name = "FORM")]
    pub output: Format,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_grammar_is_sound() {
        Cli::command().debug_assert();
    }

    /// What says nothing that a program would read: it runs on, or what it prints is a program's own language.
    const WITHOUT_FORMS: [&str; 4] =
        ["sabir serve", "sabir dev", "sabir completions", "sabir definitions export"];

    fn leaves(path: String, command: &clap::Command, found: &mut Vec<(String, clap::Command)>) {
        let verbs: Vec<_> = command.get_subcommands().filter(|c| c.get_name() != "help").collect();
        if verbs.is_empty() || !command.is_subcommand_required_set() {
            found.push((path.clone(), command.clone()));
        }
        for verb in verbs {
            leaves(format!("{path} {}", verb.get_name()), verb, found);
        }
    }

    #[test]
    fn whatever_prints_data_has_a_form_for_programs() {
        let mut command = Cli::command();
        command.build();
        let mut found = Vec::new();
        leaves("sabir".into(), &command, &mut found);
        assert!(found.len() > 25, "{:?}", found.iter().map(|(path, _)| path).collect::<Vec<_>>());
        for (path, leaf) in found.iter().filter(|(path, _)| !WITHOUT_FORMS.contains(&path.as_str())) {
            let forms = leaf.get_arguments().find(|a| a.get_id() == "output");
            let forms = forms.unwrap_or_else(|| panic!("{path} has no -o"));
            assert_eq!((forms.get_short(), forms.get_long()), (Some('o'), Some("output")), "{path}");
            let names: Vec<_> = forms.get_possible_values().iter().map(|v| v.get_name().to_owned()).collect();
            assert!(names.contains(&"json".into()), "{path}: {names:?}");
            // A page is no table.
            assert!(path == "sabir config reference" || names.contains(&"table".into()), "{path}: {names:?}");
        }
    }

    #[test]
    fn what_takes_something_away_can_be_tried_and_asks_first() {
        let mut command = Cli::command();
        command.build();
        let mut found = Vec::new();
        leaves("sabir".into(), &command, &mut found);
        let takes =
            |path: &str| path.contains("delete") || path.ends_with("reset") || path.ends_with("close");
        let mut seen = 0;
        for (path, leaf) in found.iter().filter(|(path, _)| takes(path)) {
            let has = |name: &str| leaf.get_arguments().any(|a| a.get_long() == Some(name));
            assert!(has("dry-run") && has("yes"), "{path}");
            seen += 1;
        }
        assert_eq!(seen, 7);
    }
}

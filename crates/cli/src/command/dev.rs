//! `sabir dev`: a broker to try, and proof that it works.

use std::fmt::Write as _;
use std::fs::Permissions;
use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::Bytes;
use sabir_server::client::{
    ClientError, Endpoint, Failure, Incoming, Outgoing, PublishOptions, Receipt, Start, TopicAdmin, TopicSpec,
};
use sabir_server::config::{ServerConfig, Sources};
use sabir_server::{Protocol, Running, ServingAt, log, protocols, volatile};
use tempfile::TempDir;

use super::config::sources;
use super::{block_on, in_time};
use crate::args::{ConfigArgs, DevArgs};
use crate::failure::{CliError, Exit};
use crate::program;

const TOPIC: &str = "hello";
const PATIENCE: Duration = Duration::from_secs(10);

pub fn run(args: DevArgs) -> Result<(), CliError> {
    let data = Data::choose(args.data)?;
    let config = ServerConfig::load(&dev_sources(&args.config, data.path()), protocols())?;
    log::init(&config.log);
    if args.once {
        let running = sabir_server::start(config)?;
        let outcome = welcome(&running, &data, args.once);
        running.stop();
        return outcome;
    }
    let mut outcome = Ok(());
    // A round trip that failed ends it: there is nothing to try then.
    sabir_server::run_while(config, |running| {
        outcome = welcome(running, &data, false);
        outcome.is_ok()
    })?;
    outcome
}

/// The data directory, and whether it goes at the end.
enum Data {
    Kept(PathBuf),
    Temporary(TempDir),
}

impl Data {
    fn choose(kept: Option<PathBuf>) -> Result<Self, CliError> {
        match kept {
            Some(path) => Ok(Data::Kept(path)),
            None => {
                // As a start makes a data directory: other users of the machine have no business there.
                let private = Permissions::from_mode(0o700);
                let made = tempfile::Builder::new().prefix("sabir-dev-").permissions(private).tempdir();
                Ok(Data::Temporary(made.map_err(no_temporary)?))
            }
        }
    }

    fn path(&self) -> &Path {
        match self {
            Data::Kept(path) => path,
            Data::Temporary(dir) => dir.path(),
        }
    }
}

fn no_temporary(error: io::Error) -> CliError {
    let problem = format!("cannot make a temporary data directory: {error}");
    CliError::new(Exit::Failed, problem).advise(
        "TMPDIR names the folder for it, else it is /tmp; --data DIR takes another place, and keeps it.",
    )
}

/// The user's settings, over them the data directory, and below them what suits a trial: quiet, and no fight for ports.
fn dev_sources(args: &ConfigArgs, data: &Path) -> Sources {
    let mut sources = sources(args, Some(data.to_owned()));
    sources.defaults.push("log.level=warn".into());
    // Nobody asks it whether it is ready, and the machine may be on its battery.
    sources.defaults.push("data.idle_check=0s".into());
    for protocol in protocols() {
        let usual = protocol.default_listen().trim_matches('"');
        if usual != "off" && !free(usual) {
            sources.defaults.push(format!("{}.listen=127.0.0.1:0", protocol.name()));
        }
    }
    if !free("127.0.0.1:15672") {
        sources.defaults.push("admin.listen=127.0.0.1:0".into());
    }
    sources
}

fn free(address: &str) -> bool {
    TcpListener::bind(address).is_ok()
}

/// Says what runs where, and sends a message round.
fn welcome(running: &Running, data: &Data, once: bool) -> Result<(), CliError> {
    let mut out = io::stdout().lock();
    out.write_all(addresses(running, data).as_bytes())?;
    for serving in running.serving() {
        let Some(protocol) = protocols().iter().find(|p| p.name() == serving.protocol) else { continue };
        // The message goes round plainly: a trial has no certificate to trust.
        let Some(address) = serving.plain() else { continue };
        if let Some(trip) = block_on(round_trip(*protocol, address))? {
            out.write_all(trip.text(serving.protocol).as_bytes())?;
        }
    }
    if !once {
        out.write_all(try_it(running).as_bytes())?;
    }
    Ok(out.flush()?)
}

fn addresses(running: &Running, data: &Data) -> String {
    let mut text = format!(
        "Sabir {} is ready after {:.0} ms.\n\n",
        env!("CARGO_PKG_VERSION"),
        running.took().as_secs_f64() * 1e3
    );
    // Writing to a String cannot fail.
    for serving in running.serving() {
        for ServingAt { address, tls, .. } in &serving.listening {
            let how = if *tls { "   (TLS)".into() } else { instead_of(serving.protocol, *address) };
            let _ = writeln!(text, "  {:<12}{address}{how}", serving.protocol);
        }
    }
    for address in running.admin() {
        let _ = writeln!(text, "  {:<12}http://{address}   /livez /readyz /metrics /sabir/v1", "admin");
    }
    let fate = match data {
        Data::Kept(_) => "",
        Data::Temporary(_) => "   (removed at the end; --data DIR keeps one)",
    };
    let _ = writeln!(text, "  {:<12}{}{fate}", "data", data.path().display());
    let _ = writeln!(text, "  {:<12}{}\n", "durability", durability(running, data.path()));
    text
}

/// That another process has the usual address, if that is why a protocol has this one.
fn instead_of(protocol: &str, address: SocketAddr) -> String {
    let known = protocols().iter().find(|known| known.name() == protocol);
    let usual = known.map_or("off", |known| known.default_listen().trim_matches('"'));
    let is_other = usual != "off" && usual != address.to_string() && !free(usual);
    if is_other { format!("   (another process has {usual})") } else { String::new() }
}

fn durability(running: &Running, data: &Path) -> String {
    let name = running.durability();
    if let Some(memory) = volatile(data) {
        return format!("{name}, but on {memory}: NOTHING SURVIVES this machine's memory");
    }
    match name {
        "sync" => "sync: what is acknowledged is on the disk, and survives a power cut".into(),
        _ => format!("{name}: what is acknowledged survives a crash of the broker, NOT a power cut"),
    }
}

/// What went round, and how long each half took.
struct Trip {
    message: Outgoing,
    receipt: Receipt,
    published: Duration,
    back: Incoming,
    read: Duration,
}

/// None by a protocol that makes no topics: there is none that it could send to.
async fn round_trip(protocol: &dyn Protocol, address: SocketAddr) -> Result<Option<Trip>, CliError> {
    let connecting = protocol.connector().connect(Endpoint::plain(address.to_string()), PATIENCE);
    let mut client = in_time(PATIENCE, connecting).await?;
    let Some(topics) = client.topics() else { return Ok(None) };
    make_topic(topics).await?;
    let message = Outgoing {
        key: Some(Bytes::from_static(b"greeting")),
        value: Some(format!("Hello from {}!", protocol.name()).into()),
        ..Outgoing::default()
    };
    let (began, options) = (Instant::now(), PublishOptions::default());
    let sending = client.publish(TOPIC, vec![message.clone()], &options);
    let receipts = in_time(PATIENCE, sending).await?;
    let published = began.elapsed();
    let Some(Receipt { partition, offset: Some(offset) }) = receipts.first().copied() else {
        return Err(CliError::new(Exit::Failed, "the broker acknowledged the message without an offset"));
    };
    let asking = client.positions(TOPIC, Some(partition), Start::Offset(offset));
    let mut positions = in_time(PATIENCE, asking).await?;
    let began = Instant::now();
    let got = in_time(PATIENCE, client.read(TOPIC, &mut positions, PATIENCE)).await?;
    let read = began.elapsed();
    match got.into_iter().find(|m| m.offset == offset) {
        Some(back) if back.value == message.value && back.key == message.key => {
            Ok(Some(Trip { message, receipt: receipts[0], published, back, read }))
        }
        Some(back) => {
            let problem =
                format!("read something else at offset {offset} than was published: {:?}", back.value);
            Err(CliError::new(Exit::Failed, problem))
        }
        None => {
            Err(CliError::new(Exit::Failed, format!("offset {offset} was acknowledged, but cannot be read")))
        }
    }
}

async fn make_topic(topics: &mut dyn TopicAdmin) -> Result<(), CliError> {
    let topic = TopicSpec { name: TOPIC.into(), partitions: Some(1), configs: Vec::new(), dry_run: false };
    match in_time(PATIENCE, topics.create(topic)).await {
        // A kept data directory may have it from the last time.
        Ok(()) | Err(ClientError { failure: Failure::Exists, .. }) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

impl Trip {
    fn text(&self, protocol: &str) -> String {
        let content = |value: &Option<Bytes>| {
            String::from_utf8_lossy(value.as_deref().unwrap_or_default()).into_owned()
        };
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        let Receipt { partition, .. } = self.receipt;
        format!(
            "A message goes round, through a {protocol} client's connection:\n\
             \x20 -> published \"{}\" to topic {TOPIC}, acknowledged in {:.2} ms\n\
             \x20 <- read back \"{}\" from partition {partition}, offset {}, in {:.2} ms\n",
            content(&self.message.value),
            ms(self.published),
            content(&self.back.value),
            self.back.offset,
            ms(self.read),
        )
    }
}

fn try_it(running: &Running) -> String {
    let first = running.serving().first().and_then(|serving| Some((serving.protocol, serving.plain()?)));
    let at = match first {
        Some((protocol, address)) if !usual(protocol, address) => format!(" -a {address}"),
        _ => String::new(),
    };
    let sabir = program::name();
    format!(
        "\nTry it from another terminal:\n\
         \x20 {sabir} message tail {TOPIC}{at}\n\
         \x20 {sabir} message publish {TOPIC} 'Is anybody there?'{at}\n\
         \x20 {sabir} bench produce --duration 5s{at}\n\
         Ctrl-C stops it.\n"
    )
}

fn usual(protocol: &str, address: SocketAddr) -> bool {
    let listed = protocols().iter().find(|p| p.name() == protocol);
    listed.is_some_and(|p| p.default_listen().trim_matches('"') == address.to_string())
}

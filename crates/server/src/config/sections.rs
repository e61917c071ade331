//! The core's sections: their types and their keys.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::num::NonZero;
use std::path::PathBuf;
use std::str::FromStr;

use sabir_broker::BrokerOptions;
use sabir_frontend::config::{AutoSize, Expected, HostPort, Limit, Setting, Size, Span};
use serde::{Deserialize, Deserializer, de::Error};

use super::tls::TLS;
use crate::memory::AutoMemory;

/// The core's sections in the order in which they are shown, each with its keys.
pub const CORE: &[(&str, &[Setting])] = &[
    ("node", NODE),
    ("data", DATA),
    ("topic", TOPIC),
    ("group", GROUP),
    ("net", NET),
    ("tls", TLS),
    ("admin", ADMIN),
    ("log", LOG),
];

/// `[node]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeSection {
    /// See [`NODE`].
    pub id: u16,
}

/// Keys of `[node]`.
pub const NODE: &[Setting] =
    &[Setting { key: "id", default: "1", help: "This node's number, as clients see it. 0 to 65535." }];

/// `[data]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataSection {
    /// See [`DATA`].
    pub dir: PathBuf,
    /// See [`DATA`].
    pub shards: Auto<NonZero<u32>>,
    /// See [`DATA`].
    pub format_level: Auto<NonZero<u32>>,
    /// See [`DATA`].
    pub disk: DiskSetting,
    /// See [`DATA`].
    pub durability: DurabilitySetting,
    /// See [`DATA`].
    pub tail_cache: AutoSize,
    /// See [`DATA`].
    pub checkpoint_bytes: Size,
    /// See [`DATA`].
    pub checkpoint_entries: u64,
    /// See [`DATA`].
    pub idle_check: Span,
    /// See [`DATA`].
    pub retention_interval: Span,
    /// See [`DATA`].
    pub producer_expiry: Span,
    /// See [`DATA`].
    pub partition_producers: NonZero<usize>,
    /// See [`DATA`].
    pub producers: Auto<NonZero<usize>>,
    /// See [`DATA`].
    pub open_bytes_max: AutoSize,
    /// See [`DATA`].
    pub keep_free: Size,
}

/// Keys of `[data]`.
pub const DATA: &[Setting] = &[
    Setting {
        key: "dir",
        default: "\"data\"",
        help: "The folder of everything that must last. One broker at a time holds it, and only the owner of its files can read them. A new one takes 290 MiB a shard at once, 580 MiB with one data shard: segments made ahead, and space for checkpoints. Also `--data`.",
    },
    Setting {
        key: "shards",
        default: "\"auto\"",
        help: "How many journals hold partitions. `auto` is one for every two cores. Fixed when the folder is made.",
    },
    Setting {
        key: "format_level",
        default: "\"auto\"",
        help: "Which stored forms are written, where the folder's level is lower: raising it cannot be undone, and the version \
               before does not open the folder any more. `auto` keeps the level there is; a new folder has the newest, 5.",
    },
    Setting {
        key: "disk",
        default: "\"auto\"",
        help: "How files are written: `io_uring` (direct), `pwrite`, or `auto`, which takes io_uring where it works.",
    },
    Setting {
        key: "durability",
        default: "\"sync\"",
        help: "What an acknowledgement means where the topic does not say: `sync`, it survives a power cut; `os`, it \
               survives the death of the process, not of the machine.",
    },
    Setting {
        key: "tail_cache",
        default: "\"auto\"",
        help: "Memory for the newest blocks, from which readers that keep up are served. It is taken as it fills. `auto` is a \
               quarter of the memory that the machine or the control group has, from `16MiB` to `4GiB`; it gives way \
               while less than a sixteenth of that memory is left.",
    },
    Setting {
        key: "checkpoint_bytes",
        default: "\"1GiB\"",
        help: "A checkpoint is made after so much journal, as it lies on the disk: a block takes `4KiB` or more, though it be one small message. More \
               means fewer of them, and longer starts after a crash.",
    },
    Setting {
        key: "checkpoint_entries",
        default: "4000000",
        help: "A checkpoint is made after so many entries, if that comes first.",
    },
    Setting {
        key: "idle_check",
        default: "\"5s\"",
        help: "How long nothing is written to a file system before 4 KiB of a journal are written and synced again, so that `/readyz` tells within \
               seconds of a disk that does not answer though nobody needs it. `0s` is never: a disk may go to sleep then. `sabir dev` does without.",
    },
    Setting {
        key: "retention_interval",
        default: "\"30s\"",
        help: "How often it is looked for records that need not be kept any longer.",
    },
    Setting {
        key: "producer_expiry",
        default: "\"1d\"",
        help: "How long an idempotent producer is remembered after its last batch.",
    },
    Setting {
        key: "partition_producers",
        default: "10000",
        help: "How many idempotent producers a partition remembers. Beyond that those are forgotten that came with one batch only, \
               then those that were silent for longest; the next batch of one of them is taken as a new producer's.",
    },
    Setting {
        key: "producers",
        default: "\"auto\"",
        help: "The same for all partitions together, a producer counted in each; it is kept where most of them are. Each takes some \
               400 bytes; `auto` is as many as fit into a sixty-fourth of the memory that the machine or the control group has, from \
               5000 to 250000.",
    },
    Setting {
        key: "open_bytes_max",
        default: "\"auto\"",
        help: "Bytes that may wait for a shard's disk; producers beyond them wait, until half of it is written, and changes \
               beyond as many bytes are refused. At least `2MiB`; `auto` is a shard's share of a sixteenth of the memory, from `4MiB` \
               to `32MiB`.",
    },
    Setting {
        key: "keep_free",
        default: "\"256MiB\"",
        help: "Bytes of the disk that the journal leaves to others. Where no more are free, producers are refused, and \
               consumers and deletions still served.",
    },
];

/// `[topic]`: what holds for topics that do not say otherwise.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TopicSection {
    /// See [`TOPIC`].
    pub retention: Limit<Span>,
    /// See [`TOPIC`].
    pub retention_size: Limit<Size>,
    /// See [`TOPIC`].
    pub max_message: Size,
    /// See [`TOPIC`].
    pub timestamp: Timestamp,
    /// See [`TOPIC`].
    pub max_partitions: u32,
    /// See [`TOPIC`].
    pub max_total_partitions: Auto<NonZero<usize>>,
    /// See [`TOPIC`].
    pub settings_memory: AutoSize,
    /// See [`TOPIC`].
    pub dedup_memory: AutoSize,
    /// See [`TOPIC`].
    pub exchange_memory: AutoSize,
}

/// Keys of `[topic]`.
pub const TOPIC: &[Setting] = &[
    Setting {
        key: "retention",
        default: "\"7d\"",
        help: "How long records are kept at least; `unlimited` keeps them all.",
    },
    Setting {
        key: "retention_size",
        default: "\"unlimited\"",
        help: "How many bytes of a partition are kept at least.",
    },
    Setting {
        key: "max_message",
        default: "1048588",
        help: "The largest record batch that is taken. At most `1GiB`.",
    },
    Setting {
        key: "timestamp",
        default: "\"create\"",
        help: "Whose clock stamps records: the producer's (`create`) or the broker's (`append`).",
    },
    Setting {
        key: "max_partitions",
        default: "10000",
        help: "The most partitions that one topic may have. At most 400000.",
    },
    Setting {
        key: "max_total_partitions",
        default: "\"auto\"",
        help: "The most partitions that all topics may have together, some 3 KiB of memory each where a topic has one. Beyond it \
               no topic is made; those that are there are served. `auto` is as many as fit into an eighth of the memory that the machine \
               or the control group has, from 1000 to 500000.",
    },
    Setting {
        key: "settings_memory",
        default: "\"auto\"",
        help: "Memory for settings that have no effect here and are kept with topics for those who ask for them, all topics together. \
               Beyond it a topic that brings more is refused. `auto` is a sixty-fourth of the memory, from `2MiB` to `32MiB`.",
    },
    Setting {
        key: "dedup_memory",
        default: "\"auto\"",
        help: "Memory for the ids of messages that queues remember, to drop what comes twice, 128 bytes each: what all of them may remember \
               comes to no more. Beyond it no further such queue is declared. `auto` is a sixty-fourth of the memory, from `2MiB` to `32MiB`.",
    },
    Setting {
        key: "exchange_memory",
        default: "\"auto\"",
        help: "Memory for exchanges and what is bound to them, those of all namespaces together. Beyond it no exchange is declared and \
               nothing is bound; those that are there route on. `auto` is a sixteenth of the memory, from `8MiB` to `512MiB`.",
    },
];

/// The most that `topic.max_message` may be.
pub const LARGEST_MESSAGE: Size = Size(1 << 30);

/// `[group]`: consumer groups.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GroupSection {
    /// See [`GROUP`].
    pub min_session_timeout: Span,
    /// See [`GROUP`].
    pub max_session_timeout: Span,
    /// See [`GROUP`].
    pub initial_rebalance_delay: Span,
    /// See [`GROUP`].
    pub max_members: NonZero<usize>,
    /// See [`GROUP`].
    pub max_groups: NonZero<usize>,
    /// See [`GROUP`].
    pub member_memory: AutoSize,
    /// See [`GROUP`].
    pub offset_memory: AutoSize,
    /// See [`GROUP`].
    pub offsets_retention: Span,
}

/// Keys of `[group]`.
pub const GROUP: &[Setting] = &[
    Setting {
        key: "min_session_timeout",
        default: "\"6s\"",
        help: "The shortest session timeout that a member may ask for.",
    },
    Setting {
        key: "max_session_timeout",
        default: "\"30m\"",
        help: "The longest session timeout that a member may ask for.",
    },
    Setting {
        key: "initial_rebalance_delay",
        default: "\"3s\"",
        help: "How long the first members of an empty group wait for more, so that a group which starts is dealt its \
               partitions once. `0` for tests.",
    },
    Setting { key: "max_members", default: "10000", help: "The most members of one group." },
    Setting {
        key: "max_groups",
        default: "100000",
        help: "The most groups: with members, or with anything committed, within `group.offset_memory`. Those that only wait for clients to come back with the \
               member ids they were given are a quarter of it at the most.",
    },
    Setting {
        key: "member_memory",
        default: "\"auto\"",
        help: "Memory for what the members of all groups bring, twice, as it is stored, too: names, subscriptions, assignments; 1 KiB beside \
               that for each member, and 2.7 KiB for each group that has any. Those of one group may take 1 MiB of the journal, as they are stored \
               together. Groups that clients of one address made take half of it at the most. Beyond it groups that are there go on, with a \
               quarter more of it at the most, and no member is added to others. `auto` is a thirty-second of the memory that the machine or the control group has, \
               from `4MiB` to `256MiB`.",
    },
    Setting {
        key: "offset_memory",
        default: "\"auto\"",
        help: "Memory for groups and committed positions: half a KiB and its name for each group, 150 bytes and its text for each position, \
               and 700 more for the first one of a group. Beyond it, or a quarter of it for one group, groups and positions that are there \
               go on, and no group, no position and no text is added. `auto` is a sixteenth of the memory, from `8MiB` \
               to `512MiB`.",
    },
    Setting {
        key: "offsets_retention",
        default: "\"7d\"",
        help: "How long what a group has committed is kept after its last member left.",
    },
];

/// The most threads that serve connections.
pub const MOST_IO_THREADS: usize = 1024;
/// The least memory for frames: less would hold no request.
pub const LEAST_FRAME_MEMORY: Size = Size(1 << 20);
/// The least that `data.open_bytes_max` may be: the largest block and what waits for the next one.
pub const LEAST_OPEN_BYTES: Size = Size(2 << 20);

/// `[net]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetSection {
    /// See [`NET`].
    pub io_threads: Auto<NonZero<usize>>,
    /// See [`NET`].
    pub max_connections: NonZero<usize>,
    /// See [`NET`].
    pub frame_memory: AutoSize,
    /// See [`NET`].
    pub handshake_timeout: Span,
    /// See [`NET`].
    pub frame_timeout: Span,
    /// See [`NET`].
    pub write_timeout: Span,
    /// See [`NET`].
    pub idle_timeout: Span,
    /// See [`NET`].
    pub keepalive: Span,
    /// See [`NET`].
    pub drain: Span,
    /// See [`NET`].
    pub default_listen: DefaultListen,
}

/// Keys of `[net]`.
pub const NET: &[Setting] = &[
    Setting {
        key: "io_threads",
        default: "\"auto\"",
        help: "Threads that serve connections, 1024 at most. `auto` is one a core.",
    },
    Setting {
        key: "max_connections",
        default: "10000",
        help: "Connections at once, over all protocols; a further one is closed at once. Fewer, where the limit on open files \
               (`ulimit -n`) leaves no more beside those of the journal and the admin port.",
    },
    Setting {
        key: "frame_memory",
        default: "\"auto\"",
        help: "Memory for requests that have not arrived whole, answers that have not been sent, and large batches from before they \
               are read, over all connections; a quarter as much is beside it for what waits and for frames of no more than 64 KiB. `auto` is an eighth of \
               the memory that the machine or the control group has, from `16MiB` to `512MiB`.",
    },
    Setting {
        key: "handshake_timeout",
        default: "\"30s\"",
        help: "A client that has connected must have sent its first request by then, and where its protocol has a login, be logged in.",
    },
    Setting {
        key: "frame_timeout",
        default: "\"30s\"",
        help: "A request that has begun to arrive must be there whole by then; large ones have a second more for every \
               256 KiB.",
    },
    Setting {
        key: "write_timeout",
        default: "\"30s\"",
        help: "A client that does not read its answers for so long is dropped; large ones have a second more for every \
               256 KiB.",
    },
    Setting {
        key: "idle_timeout",
        default: "\"10m\"",
        help: "A connection without a request for so long is closed.",
    },
    Setting {
        key: "keepalive",
        default: "\"60s\"",
        help: "A client from which nothing has come for so long is asked by the system whether it is still there; one that \
               does not answer is dropped after as long again. In whole seconds, at least one.",
    },
    Setting {
        key: "drain",
        default: "\"10s\"",
        help: "How long requests under way may take to end when the broker is told to stop. Up to 5 s more go by for what was appended \
               to be written, and up to 10 s for the journals to be sealed: so long a stop may take before it is killed.",
    },
    Setting {
        key: "default_listen",
        default: "\"auto\"",
        help: "Where a protocol listens whose `listen` is not said: `auto` is where its own default says, `off` nowhere, so that those alone \
               are served whose `listen` is.",
    },
];

/// `[admin]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdminSection {
    /// See [`ADMIN`].
    pub listen: Listen,
    /// See [`ADMIN`].
    pub anonymous: bool,
    /// See [`ADMIN`].
    pub hosts: Names,
    /// See [`ADMIN`].
    pub writes: WritesSetting,
    /// See [`ADMIN`].
    pub metrics_limit: usize,
    /// See [`ADMIN`].
    pub counted_topics: usize,
}

/// Keys of `[admin]`.
pub const ADMIN: &[Setting] = &[
    Setting {
        key: "listen",
        default: "\"127.0.0.1:15672\"",
        help: "Where `/livez`, `/readyz`, `/metrics` and the API under `/sabir/v1` are served over HTTP; `off` for \
               nowhere.",
    },
    Setting {
        key: "anonymous",
        default: "false",
        help: "Allows it on an address that other machines reach, although nobody has to log in.",
    },
    Setting {
        key: "hosts",
        default: "\"\"",
        help: "Names by which it may be asked, with commas between them, beside addresses, `localhost`, this machine's name and names \
               in `listen`; `*` is any. What is asked by another name is refused, since a web page can make one mean this machine.",
    },
    Setting {
        key: "writes",
        default: "\"loopback\"",
        help: "From where the API takes requests that change something: from this machine (`loopback`), from wherever it \
               can be reached (`anywhere`), or from nowhere (`off`).",
    },
    Setting {
        key: "metrics_limit",
        default: "10000",
        help: "`/metrics` shows topics one by one while there are no more of them than this, and groups with their lag by \
               topic while there are no more groups than this. 0 leaves both out.",
    },
    Setting {
        key: "counted_topics",
        default: "1000",
        help: "Bytes in and out are counted topic by topic for as many topics as this, those that had traffic first since the start; \
               of the others together.",
    },
];

/// `[log]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogSection {
    /// See [`LOG`].
    pub level: String,
    /// See [`LOG`].
    pub format: LogFormat,
}

/// Keys of `[log]`.
pub const LOG: &[Setting] = &[
    Setting {
        key: "level",
        default: "\"info\"",
        help: "What is logged, on stderr: `error`, `warn`, `info`, `debug`, `trace`, `off`, or a filter such as \
               `info,sabir_net=debug`.",
    },
    Setting { key: "format", default: "\"text\"", help: "`text`, or `json` with one object a line." },
];

/// The settings that each listener of a protocol has. The keys, and the default of the first, are the protocol's.
pub const LISTEN: [Setting; 2] = [
    Setting {
        key: "listen",
        default: "\"off\"",
        help: "Where it listens: address:port, or several with commas between them; port 0 takes any free one; `off` \
               turns the protocol off. What several protocols name they share, told apart by a connection's first bytes.",
    },
    Setting {
        key: "advertise",
        default: "\"auto\"",
        help: "The address that clients are told to connect to, as host:port or only the host: one for all that `listen` names, or as \
               many with commas between them. `auto` is the one listened on that the client came by; where that is all of this \
               machine's, the one that the client has reached.",
    },
];

/// The other settings that the tables of all protocols share.
pub const ACCESS: [Setting; 2] = [
    Setting {
        key: "anonymous",
        default: "false",
        help: "Allows it on an address that other machines reach, although nobody has to log in.",
    },
    Setting {
        key: "max_connections",
        default: "\"unlimited\"",
        help: "Connections at once by this protocol, within `net.max_connections`.",
    },
];

/// What a protocol's table says of one of its listeners.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListenTable {
    /// Where it listens.
    pub listen: Listen,
    /// What clients are told.
    pub advertise: Advertise,
}

/// The other part of a protocol's table that all share.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AccessTable {
    /// Whether that is allowed beyond loopback.
    pub anonymous: bool,
    /// Connections at once.
    pub max_connections: Limit<Count>,
}

/// A number of things.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Count(pub usize);

impl FromStr for Count {
    type Err = Expected;

    fn from_str(text: &str) -> Result<Self, Expected> {
        text.parse().map(Count).map_err(|_| Expected("a number"))
    }
}

/// Names, none of them empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names(pub Vec<String>);

impl<'de> Deserialize<'de> for Names {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        let names: Vec<String> = parts(&text).map(str::to_owned).collect();
        // What only looks like a name would never be asked for.
        match names.iter().find(|name| name.contains([':', '/', ' '])) {
            Some(wrong) => Err(D::Error::custom(format!("expected names without a port, found `{wrong}`"))),
            None => Ok(Names(names)),
        }
    }
}

/// What stands between the commas.
fn parts(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|part| !part.is_empty())
}

/// Addresses to listen on; none is `off`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listen {
    /// The addresses.
    pub addresses: Vec<SocketAddr>,
    /// The names that some of them were given by.
    pub names: Vec<String>,
}

impl<'de> Deserialize<'de> for Listen {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        let mut listen = Listen { addresses: Vec::new(), names: Vec::new() };
        if text == "off" {
            return Ok(listen);
        }
        for part in text.split(',') {
            let (address, name) = resolve(part.trim()).map_err(D::Error::custom)?;
            listen.addresses.push(address);
            listen.names.extend(name);
        }
        Ok(listen)
    }
}

/// The address that is meant, and the name by which it was.
fn resolve(text: &str) -> Result<(SocketAddr, Option<String>), String> {
    if let Ok(address) = text.parse() {
        return Ok((address, None));
    }
    let named: HostPort = text.parse().map_err(|e| format!("{e}, or \"off\", found `{text}`"))?;
    let mut found =
        (named.host.as_str(), named.port).to_socket_addrs().map_err(|e| format!("`{text}`: {e}"))?;
    let address = found.next().ok_or_else(|| format!("`{text}` stands for no address"))?;
    Ok((address, Some(named.host)))
}

/// What clients are told, where it is said; one for all addresses listened on, or one for each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Advertise(pub Vec<Option<HostPort>>);

impl<'de> Deserialize<'de> for Advertise {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        let told: Result<_, String> = text.split(',').map(|part| told(part.trim())).collect();
        told.map(Advertise).map_err(D::Error::custom)
    }
}

impl Advertise {
    /// What is told at each of so many addresses; an error in words where there are not as many.
    pub(crate) fn at_each(&self, addresses: usize) -> Result<Vec<Option<HostPort>>, String> {
        match self.0.as_slice() {
            [one] => Ok(vec![one.clone(); addresses]),
            all if all.len() == addresses => Ok(all.to_vec()),
            all => Err(format!(
                "names {} addresses, and `listen` {addresses}; name one for each, or one for all",
                all.len()
            )),
        }
    }
}

/// The bytes that a host name has at most (RFC 1035, section 2.3.4, without the length bytes of its wire form).
const HOST_NAME_MAX: usize = 253;

fn told(text: &str) -> Result<Option<HostPort>, String> {
    if text == "auto" {
        return Ok(None);
    }
    // Port 0 stands for the one listened on.
    let parsed = text.parse().or_else(|e| format!("{text}:0").parse().map_err(|_| e));
    let told: HostPort = parsed.map_err(|e| format!("{e}, or \"auto\", found `{text}`"))?;
    // Clients that are told these connect to themselves, or to nothing.
    if told.host.parse::<IpAddr>().is_ok_and(|ip| ip.is_unspecified() || ip.is_multicast()) {
        return Err(format!(
            "no client can connect to `{}`; name an address of this machine, or \"auto\"",
            told.host
        ));
    }
    if told.host.len() > HOST_NAME_MAX {
        return Err(format!("a name of {} bytes; a host name has at most {HOST_NAME_MAX}", told.host.len()));
    }
    Ok(Some(told))
}

/// A number, or `auto`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Auto<T>(pub Option<T>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Auto<T> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "expected a number above 0, or \"auto\"")]
        enum Form<T> {
            Number(T),
            Word(AutoWord),
        }
        #[derive(Deserialize)]
        enum AutoWord {
            #[serde(rename = "auto")]
            Auto,
        }
        Ok(match Form::deserialize(d)? {
            Form::Number(n) => Auto(Some(n)),
            Form::Word(AutoWord::Auto) => Auto(None),
        })
    }
}

impl DataSection {
    /// Bytes of the tail cache.
    pub fn tail_cache_bytes(&self) -> u64 {
        or_auto(self.tail_cache, AutoMemory::tail_cache)
    }

    /// How many shards there are in a directory that is made with these settings, the catalog's among them.
    pub fn all_shards(&self) -> u32 {
        let data = self.shards.0.map_or_else(|| BrokerOptions::new(&self.dir).data_shards, u32::from);
        data.saturating_add(1)
    }

    /// Bytes that may wait for the disk of one of them.
    pub fn open_bytes(&self) -> u64 {
        or_auto(self.open_bytes_max, |auto| auto.open_bytes(self.all_shards()))
    }

    /// How many producers all partitions together remember.
    pub fn most_producers(&self) -> usize {
        self.producers.0.map_or_else(|| AutoMemory::here().producers(), usize::from)
    }
}

impl TopicSection {
    /// The most partitions of all topics.
    pub fn most_partitions(&self) -> usize {
        self.max_total_partitions.0.map_or_else(|| AutoMemory::here().partitions(), usize::from)
    }

    /// Bytes for settings without effect.
    pub fn settings_bytes(&self) -> u64 {
        or_auto(self.settings_memory, AutoMemory::settings_memory)
    }

    /// Bytes for message ids.
    pub fn dedup_bytes(&self) -> u64 {
        or_auto(self.dedup_memory, AutoMemory::dedup_memory)
    }

    /// Bytes for exchanges and bindings.
    pub fn exchange_bytes(&self) -> u64 {
        or_auto(self.exchange_memory, AutoMemory::exchange_memory)
    }
}

impl GroupSection {
    /// Bytes for what members bring.
    pub fn member_bytes(&self) -> u64 {
        or_auto(self.member_memory, AutoMemory::member_memory)
    }

    /// Bytes for committed positions.
    pub fn offset_bytes(&self) -> u64 {
        or_auto(self.offset_memory, AutoMemory::offset_memory)
    }
}

impl NetSection {
    /// Bytes of memory for frames.
    pub fn frame_memory_bytes(&self) -> u64 {
        or_auto(self.frame_memory, AutoMemory::frame_memory)
    }
}

fn or_auto(size: AutoSize, auto: impl FnOnce(AutoMemory) -> u64) -> u64 {
    size.0.map_or_else(|| auto(AutoMemory::here()), |size| size.0)
}

/// How files are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DiskSetting {
    /// io_uring where it works, else `pwrite`.
    Auto,
    /// Direct writes through io_uring.
    IoUring,
    /// `pwrite` and `fdatasync`.
    Pwrite,
}

/// Where a protocol listens of which nothing is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DefaultListen {
    /// Where its own default says.
    Auto,
    /// Nowhere.
    Off,
}

/// What an acknowledgement means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DurabilitySetting {
    /// On the disk.
    Sync,
    /// With the operating system.
    Os,
}

/// Whose clock stamps records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Timestamp {
    /// The producer's.
    Create,
    /// The broker's.
    Append,
}

/// From where changes are taken over HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WritesSetting {
    /// Nowhere.
    Off,
    /// This machine.
    Loopback,
    /// Every address that reaches it.
    Anywhere,
}

/// The form of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One object a line.
    Json,
}

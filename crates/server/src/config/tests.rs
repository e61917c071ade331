//! The configuration against a protocol of its own making: the core knows none by name.

use std::path::PathBuf;
use std::sync::Arc;

use sabir_frontend::client::Connector;
use sabir_frontend::config::{Size, parse_table};
use sabir_frontend::{FrontendContext, StartedFrontend};
use sabir_net::{Connection, Frontend, LocalBoxFuture};

use sabir_broker::exchange::{ExchangeKind, ExchangeSpec, PredeclaredExchange};
use sabir_broker::{BrokerOptions, GroupOptions, ReservedTopic};

use super::*;

struct Semaphore;

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Flags {
    wave: Size,
}

struct Pole;

impl Frontend for Pole {
    fn name(&self) -> &'static str {
        "flags"
    }

    fn serve(self: Arc<Self>, _: Connection) -> LocalBoxFuture {
        Box::pin(async {})
    }
}

impl Configured for Flags {
    fn largest_frame(&self) -> Option<(&'static str, Size)> {
        Some(("wave", self.wave))
    }

    fn start(self: Box<Self>, _: FrontendContext) -> StartedFrontend {
        Arc::new(Pole).into()
    }
}

const WAVES: &[Setting] = &[Setting { key: "wave", default: "\"1KiB\"", help: "How far." }];

impl Protocol for Semaphore {
    fn name(&self) -> &'static str {
        "flags"
    }

    fn default_listen(&self) -> &'static str {
        "\"127.0.0.1:1794\""
    }

    fn listeners(&self) -> Vec<ListenerSpec> {
        let first = ListenerSpec::plain(self.default_listen());
        let far = ListenerSpec {
            listen: "far_listen",
            advertise: "far_advertise",
            ..ListenerSpec::plain("\"off\"")
        };
        vec![first, far]
    }

    fn settings(&self) -> &'static [Setting] {
        WAVES
    }

    fn configure(&self, table: SettingsTable) -> Result<Box<dyn Configured>, ConfigError> {
        Ok(Box::new(parse_table::<Flags>("flags", table, WAVES)?))
    }

    fn reserved_topics(&self) -> &'static [&'static str] {
        &["flags.*"]
    }

    fn client_topics(&self) -> &'static [&'static str] {
        &["flag*"]
    }

    fn generated_topics(&self) -> &'static [&'static str] {
        &["flag-*"]
    }

    fn projections(&self) -> &'static [ProjectionFactory] {
        &[ProjectionFactory { name: "flags.raised", make: |_| panic!("the configuration makes nothing") }]
    }

    fn exchanges(&self) -> Vec<PredeclaredExchange> {
        vec![PredeclaredExchange {
            name: "flags.all",
            by: "flags",
            spec: ExchangeSpec::of(ExchangeKind::Fanout),
        }]
    }

    fn connector(&self) -> &'static dyn Connector {
        panic!("the configuration connects to nothing")
    }
}

fn load(sources: &Sources) -> Result<ServerConfig, String> {
    ServerConfig::load(sources, &[&Semaphore]).map_err(|e| e.to_string())
}

fn set(flags: &[&str]) -> Sources {
    Sources { set: flags.iter().map(|s| s.to_string()).collect(), ..Sources::default() }
}

fn problem(flags: &[&str]) -> String {
    match load(&set(flags)) {
        Ok(_) => panic!("{flags:?} was taken"),
        Err(problem) => problem,
    }
}

fn file(text: &str) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sabir.toml");
    std::fs::write(&path, text).unwrap();
    (dir, path)
}

#[test]
fn nothing_said_is_a_good_configuration() {
    let config = load(&Sources::default()).unwrap();
    assert_eq!(config.data.dir, PathBuf::from("data"));
    assert_eq!(config.front_ends.len(), 1);
    assert_eq!(config.front_ends[0].listen.addresses[0].address, "127.0.0.1:1794".parse().unwrap());
    assert_eq!(config.front_ends[0].advertise, [None]);
    let options = config.broker_options();
    let auto = crate::memory::AutoMemory::here();
    assert_eq!(options.tail_cache_bytes as u64, auto.tail_cache(), "it follows the memory");
    assert_eq!(options.open_bytes_max as u64, auto.open_bytes(options.data_shards + 1));
    let groups = [options.groups.max_member_bytes, options.groups.max_offset_bytes].map(|n| n as u64);
    assert_eq!(groups, [auto.member_memory(), auto.offset_memory()]);
    let counts = [options.partitions_total_max, options.producers_max];
    assert_eq!(
        (counts, options.settings_max as u64),
        ([auto.partitions(), auto.producers()], auto.settings_memory())
    );
    let followed = options.clone();
    let (reserved, projections) = (options.reserved.clone(), options.projections.clone());
    let (converters, exchanges) = (options.converters.clone(), options.exchanges.clone());
    let (of_clients, generated) = (options.of_clients.clone(), options.generated.clone());
    let (front_ends, unnamed_groups) = (options.front_ends.clone(), options.unnamed_groups);
    let own = BrokerOptions {
        front_ends,
        unnamed_groups,
        reserved,
        of_clients,
        generated,
        projections,
        converters,
        exchanges,
        ..BrokerOptions::new("data")
    };
    let defaults = BrokerOptions {
        tail_cache_bytes: followed.tail_cache_bytes,
        open_bytes_max: followed.open_bytes_max,
        groups: GroupOptions {
            max_member_bytes: followed.groups.max_member_bytes,
            max_offset_bytes: followed.groups.max_offset_bytes,
            ..own.groups.clone()
        },
        partitions_total_max: followed.partitions_total_max,
        producers_max: followed.producers_max,
        settings_max: followed.settings_max,
        dedup_max: followed.dedup_max,
        ..own
    };
    assert_eq!(format!("{options:?}"), format!("{defaults:?}"), "the two sets of defaults agree");
}

#[test]
fn a_frame_that_no_memory_is_for_is_refused_by_name() {
    let message = problem(&["flags.wave=65MiB", "net.frame_memory=64MiB"]);
    assert_eq!(
        message,
        "flags.wave: 65MiB is more than net.frame_memory, which is 64MiB (from --set flags.wave=65MiB)"
    );
    assert!(problem(&["flags.wave=1GiB"]).starts_with("flags.wave: 1GiB is more than net.frame_memory"));
    // What no setting says follows the memory.
    for good in [&["flags.wave=64MiB", "net.frame_memory=64MiB"][..], &["net.frame_memory=1MiB"]] {
        load(&set(good)).unwrap();
    }
}

#[test]
fn what_protocols_keep_is_handed_over_whether_they_listen_or_not() {
    for flags in [&[][..], &["flags.listen=off"]] {
        let options = load(&set(flags)).unwrap().broker_options();
        assert_eq!(options.reserved, [ReservedTopic { name: "flags.*", by: "flags" }], "{flags:?}");
        assert_eq!(options.of_clients, [ReservedTopic { name: "flag*", by: "flags" }], "{flags:?}");
        assert_eq!(options.generated, [ReservedTopic { name: "flag-*", by: "flags" }], "{flags:?}");
        assert_eq!(options.front_ends, ["flags"], "{flags:?}");
        let projections: Vec<_> = options.projections.iter().map(|projection| projection.name).collect();
        assert_eq!(projections, ["flags.raised"], "{flags:?}");
        let exchanges: Vec<_> = options.exchanges.predeclared.iter().map(|exchange| exchange.name).collect();
        assert_eq!(exchanges, ["flags.all"], "{flags:?}");
    }
}

#[test]
fn flags_win_over_the_environment_and_that_over_the_file() {
    let (_dir, path) = file("[node]\nid = 7\n[net]\nmax_connections = 1\n[topic]\nretention = \"1h\"\n");
    let mut sources = Sources { file: Some(path), ..Sources::default() };
    let config = load(&sources).unwrap();
    assert_eq!((config.node.id, config.net.max_connections.get()), (7, 1));

    sources.env = vec![
        ("SABIR__NET__MAX_CONNECTIONS".into(), "2".into()),
        ("SABIR__NODE__ID".into(), "8".into()),
        ("SABIR_ADDRESS".into(), "not a setting".into()),
    ];
    let config = load(&sources).unwrap();
    assert_eq!((config.node.id, config.net.max_connections.get()), (8, 2));

    sources.set = vec!["node.id=9".into(), "node.id = 10".into()];
    sources.data = Some("/somewhere/1.5".into());
    let config = load(&sources).unwrap();
    assert_eq!((config.node.id, config.net.max_connections.get()), (10, 2));
    assert_eq!(config.data.dir, PathBuf::from("/somewhere/1.5"));
    assert_eq!(config.broker_options().defaults.retention_ms, Some(3_600_000));
}

#[test]
fn unknown_keys_are_errors_that_suggest_and_name_their_source() {
    assert_eq!(
        problem(&["flags.lisen=off"]),
        "flags.lisen: unknown key; did you mean `listen`? (from --set flags.lisen=off)"
    );
    assert_eq!(
        problem(&["flag.listen=off"]),
        "[flag]: unknown key; did you mean `flags`? (from --set flag.listen=off)"
    );
    assert!(problem(&["flags.zzz=1"]).contains(
        "there are: listen, advertise, far_listen, far_advertise, anonymous, max_connections, wave"
    ));

    let env = vec![("SABIR__DATA__DIRR".into(), "x".into())];
    let message = load(&Sources { env, ..Sources::default() }).err().unwrap();
    assert_eq!(
        message,
        "data.dirr: unknown key; did you mean `dir`? (from environment variable SABIR__DATA__DIRR)"
    );

    let (_dir, path) = file("[log]\nlevle = \"info\"\n");
    let message = load(&Sources { file: Some(path.clone()), ..Sources::default() }).err().unwrap();
    assert_eq!(
        message,
        format!(
            "log.levle: unknown key; did you mean `level`? (from {})",
            path.canonicalize().unwrap().display()
        )
    );
}

#[test]
fn everything_wrong_is_reported_at_once() {
    let message = problem(&["node.id=x", "flags.wave=far", "net.iddle_timeout=1s", "admin.listen=nowhere"]);
    let lines: Vec<_> = message.lines().collect();
    assert_eq!(lines.len(), 4, "{message}");
    for (line, start) in
        lines.iter().zip(["node.id: ", "net.iddle_timeout: ", "admin.listen: ", "flags.wave: "])
    {
        assert!(line.starts_with(start), "{line}");
    }
}

#[test]
fn values_that_make_no_sense() {
    for (flag, says) in [
        ("data.shards=0", "a number above 0, or \"auto\""),
        ("data.shards=many", "a number above 0, or \"auto\""),
        ("data.durability=maybe", "`sync` or `os`"),
        ("data.tail_cache=much", "a size such as"),
        ("data.producers=0", "a number above 0, or \"auto\""),
        ("topic.max_total_partitions=all", "a number above 0, or \"auto\""),
        ("group.member_memory=much", "a size such as"),
        ("topic.retention=7", "with its unit"),
        ("data.open_bytes_max=64KiB", "at least 2MiB"),
        ("group.max_session_timeout=1s", "less than group.min_session_timeout, which is 6s"),
        ("group.max_members=0", "nonzero"),
        ("topic.max_message=2GiB", "at most 1GiB"),
        ("topic.max_partitions=400001", "at most 400000"),
        ("net.max_connections=0", "nonzero"),
        ("net.io_threads=9223372036854775807", "more than 1024"),
        ("net.frame_memory=1", "at least 1MiB"),
        ("net.idle_timeout=0s", "closed at once"),
        ("net.frame_timeout=0ms", "closed at once"),
        ("flags.listen=1794", "string"),
        ("flags.advertise=a b", "an address such as"),
        ("flags.anonymous=maybe", "a boolean"),
        ("log.format=xml", "`text` or `json`"),
        ("log.level=nonsense=high", "log.level"),
        ("log.level=Warning", "`error`, `warn`, `info`, `debug`, `trace`, `off`"),
        ("log.level=loud", "`loud` is no level"),
        ("log.level=info,sabir_net", "`sabir_net` is no level"),
        ("log.level=loud,[request]=info", "`loud` is no level"),
        ("log.level=[loud", "`[loud`"),
        ("log.level=sabir[request]=loud", "`sabir[request]=loud`"),
        ("log.level=", "`` is no level"),
        ("log=loud", "section.key"),
        ("loud", "section.key=value"),
    ] {
        let message = problem(&[flag]);
        assert!(message.contains(says), "{flag}: {message}");
    }
    let missing = Sources { file: Some("/nowhere/sabir.toml".into()), ..Sources::default() };
    assert!(load(&missing).err().unwrap().contains("/nowhere/sabir.toml"));
    let (_dir, path) = file("[log\n");
    assert!(load(&Sources { file: Some(path), ..Sources::default() }).is_err());
    let (_dir, path) = file("log = 3\n");
    let message = load(&Sources { file: Some(path), ..Sources::default() }).err().unwrap();
    assert!(message.starts_with("log: is a section"), "{message}");
}

#[test]
fn other_machines_are_let_in_only_when_that_is_said() {
    for section in ["flags", "admin"] {
        let message = problem(&[&format!("{section}.listen=0.0.0.0:1795")]);
        assert!(message.contains(&format!("{section}.anonymous = true")), "{message}");
        let listen = format!("{section}.listen=0.0.0.0:1795");
        load(&set(&[&listen, &format!("{section}.anonymous=true")])).unwrap();
    }
}

#[test]
fn groups_and_the_open_block_are_as_they_are_said_to_be() {
    let config = load(&set(&[
        "group.max_session_timeout=2h",
        "group.initial_rebalance_delay=0",
        "group.max_groups=7",
        "group.offsets_retention=1d",
        "data.open_bytes_max=4MiB",
        "data.keep_free=1GiB",
    ]));
    let options = config.unwrap().broker_options();
    let limits = &options.groups.limits;
    assert_eq!((limits.max_session_timeout_ms, limits.initial_rebalance_delay_ms), (7_200_000, 0));
    assert_eq!((options.groups.max_groups, options.groups.offsets_retention.as_secs()), (7, 86_400));
    assert_eq!((options.open_bytes_max, options.keep_free), (4 << 20, 1 << 30));
    assert!(problem(&["group.max_session_timout=2h"]).contains("did you mean `max_session_timeout`?"));
}

#[test]
fn off_is_off_and_several_addresses_are_several() {
    assert!(load(&set(&["flags.listen=off"])).unwrap().front_ends.is_empty());
    let config = load(&set(&["flags.listen=127.0.0.1:1, [::1]:2", "flags.advertise=broker"])).unwrap();
    assert_eq!(config.front_ends[0].listen.addresses.len(), 2);
    let broker = Some(HostPort { host: "broker".into(), port: 0 });
    assert_eq!(config.front_ends[0].advertise, [broker.clone(), broker.clone()]);
    let each = &["flags.listen=127.0.0.1:1, [::1]:2", "flags.advertise=auto, broker"];
    assert_eq!(load(&set(each)).unwrap().front_ends[0].advertise, [None, broker]);
    let three = problem(&["flags.listen=127.0.0.1:1, [::1]:2", "flags.advertise=a,b,c"]);
    assert!(three.starts_with("flags.advertise: names 3 addresses, and `listen` 2"), "{three}");
    for nowhere in ["0.0.0.0", "0.0.0.0:9092", "[::]:9092", "224.0.0.1:9092"] {
        let problem = problem(&[&format!("flags.advertise={nowhere}")]);
        assert!(problem.starts_with("flags.advertise: no client can connect to "), "{problem}");
    }
    let long = problem(&[&format!("flags.advertise={}", "a".repeat(254))]);
    assert!(long.starts_with("flags.advertise: a name of 254 bytes"), "{long}");
}

#[test]
fn each_listener_has_keys_of_its_own() {
    let far = ["flags.far_listen=127.0.0.1:7,127.0.0.1:8", "flags.far_advertise=far"];
    let config = load(&set(&far)).unwrap();
    let FrontendConfig { listen, keys, advertise, .. } = &config.front_ends[0];
    let ports: Vec<_> = listen.addresses.iter().map(|address| address.address.port()).collect();
    assert_eq!((ports, &keys[..]), (vec![1794, 7, 8], &["listen", "far_listen", "far_listen"][..]));
    let told = Some(HostPort { host: "far".into(), port: 0 });
    assert_eq!(*advertise, [None, told.clone(), told]);
    let config = load(&set(&[far[0], "flags.listen=off"])).unwrap();
    assert_eq!(config.front_ends[0].keys, ["far_listen", "far_listen"]);
    let quiet = load(&set(&["net.default_listen=off", far[0]])).unwrap();
    assert_eq!(quiet.front_ends[0].keys, ["far_listen", "far_listen"]);
    for (flags, says) in [
        (&["flags.far_listen=nowhere"][..], "flags.far_listen: "),
        (&[far[0], "flags.far_advertise=a,b,c"], "flags.far_advertise: names 3 addresses"),
        (&["flags.far_listen=0.0.0.0:7"], "flags.listen: 0.0.0.0:7 can be reached"),
    ] {
        assert!(problem(flags).starts_with(says), "{}", problem(flags));
    }
}

#[test]
fn where_nothing_is_said_a_protocol_may_be_off() {
    let sources = set(&["net.default_listen=off"]);
    assert!(load(&sources).unwrap().front_ends.is_empty());
    let held = reference::effective(&sources, &[&Semaphore]).unwrap();
    let listen = held.iter().find(|held| held.path() == "flags.listen").unwrap();
    let source = Some("--set net.default_listen=off");
    assert_eq!((listen.value.as_str(), listen.source.as_deref()), (Some("off"), source));
    let listening = |sources: &Sources| {
        let config = load(sources).unwrap();
        config.front_ends.iter().map(|one| one.listen.addresses[0].address.port()).collect::<Vec<_>>()
    };
    let said = set(&["flags.listen=127.0.0.1:5", "net.default_listen=off"]);
    assert_eq!(listening(&said), [5]);
    assert_eq!(
        listening(&Sources { defaults: said.set.clone(), ..sources }),
        [0; 0],
        "a default is not said"
    );
    assert_eq!(listening(&set(&["net.default_listen=auto"])), [1794]);
    assert!(problem(&["net.default_listen=elsewhere"]).starts_with("net.default_listen: "));
}

#[test]
fn what_holds_is_a_configuration_that_says_the_same() {
    let sources = set(&["flags.listen=127.0.0.1:1", "data.shards=3", "flags.wave=4096"]);
    let held = reference::effective(&sources, &[&Semaphore]).unwrap();
    let of = |path: &str| held.iter().find(|h| h.path() == path).unwrap().clone();
    assert_eq!((of("data.shards").value, of("data.shards").default), (3.into(), "auto".into()));
    assert_eq!(of("data.shards").source.as_deref(), Some("--set data.shards=3"));
    assert_eq!((of("node.id").value, of("node.id").source), (1.into(), None));
    let shown = reference::toml(&held);
    assert!(shown.contains("shards = 3  # --set data.shards=3\n"), "{shown}");
    let (_dir, path) = file(&shown);
    let again = load(&Sources { file: Some(path), ..Sources::default() }).unwrap();
    assert_eq!(
        format!("{:?}", again.broker_options()),
        format!("{:?}", load(&sources).unwrap().broker_options())
    );
}

#[test]
fn the_admin_port_is_asked_by_names_that_are_said() {
    let hosts = |flags: &[&str]| load(&set(flags)).unwrap().admin_options().hosts;
    let machine = hosts(&[]);
    assert_eq!(machine.len(), 1, "{machine:?}");
    let message = hosts(&["admin.hosts=a.example, b", "admin.listen=localhost:1, 127.0.0.1:2"]);
    assert_eq!(message, ["a.example", "b", "localhost", &machine[0]]);
    assert!(problem(&["admin.hosts=a.example:1"]).contains("names without a port"));
}

#[test]
fn a_file_that_is_not_toml_is_named() {
    for text in ["[net\nidle", "[net]\nidle_timeout = 1x", "= 3", "[net]\na = 1\na = 2"] {
        let (_dir, path) = file(text);
        let problem =
            load(&Sources { file: Some(path.clone()), ..Sources::default() }).err().unwrap().to_string();
        assert!(problem.contains(&path.display().to_string()), "{text}: {problem}");
        assert!(problem.contains("line"), "{text}: {problem}");
    }
}

#[test]
fn what_protocols_keep_in_shards_is_called_after_them() {
    for protocol in crate::protocols() {
        for projection in protocol.projections() {
            let rest = projection.name.strip_prefix(protocol.name());
            let good = rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
            assert!(good, "{} of {}", projection.name, protocol.name());
        }
    }
}

/// A folder with a certificate and its key, and the settings that name them in `[tls]`.
fn certified() -> (tempfile::TempDir, Vec<String>) {
    let dir = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    std::fs::write(dir.path().join("node.crt"), made.cert.pem()).unwrap();
    std::fs::write(dir.path().join("node.key"), made.signing_key.serialize_pem()).unwrap();
    let at = |name: &str| dir.path().join(name).display().to_string();
    let named = vec![format!("tls.certificate={}", at("node.crt")), format!("tls.key={}", at("node.key"))];
    (dir, named)
}

fn load_all(flags: &[String]) -> Result<ServerConfig, String> {
    let sources = Sources { set: flags.to_vec(), ..Sources::default() };
    ServerConfig::load(&sources, crate::protocols()).map_err(|e| e.to_string())
}

#[test]
fn tls_is_served_with_the_nodes_files_or_the_protocols() {
    let (dir, node) = certified();
    let with = |more: &[&str]| {
        let more = more.iter().map(|flag| flag.replace("DIR", &dir.path().display().to_string()));
        load_all(&node.iter().cloned().chain(more).collect::<Vec<_>>())
    };
    let refused = |more: &[&str]| with(more).err().unwrap();
    let config = with(&["kafka.tls_listen=127.0.0.1:9093", "kafka.tls_advertise=broker"]).unwrap();
    let kafka = config.front_ends.iter().find(|one| one.protocol.name() == "kafka").unwrap();
    let tls: Vec<_> = kafka.listen.addresses.iter().map(|one| one.tls.is_some()).collect();
    assert_eq!((tls, &kafka.keys[..]), (vec![false, true], &["listen", "tls_listen"][..]));
    assert_eq!(kafka.advertise[1].as_ref().unwrap().to_string(), "broker:0");

    let missing = load_all(&["kafka.tls_listen=127.0.0.1:9093".to_owned()]).err().unwrap();
    assert!(missing.starts_with("tls.certificate: kafka.tls_listen needs it"), "{missing}");
    let swapped = refused(&["kafka.tls_listen=127.0.0.1:9093", "kafka.tls_certificate=DIR/node.key"]);
    assert!(swapped.starts_with("kafka.tls_listen: ") && swapped.contains("no certificate"), "{swapped}");
    let asked = refused(&["kafka.tls_listen=127.0.0.1:9093", "kafka.tls_client_auth=required"]);
    assert!(asked.starts_with("tls.client_ca: kafka.tls_listen needs it"), "{asked}");

    let unknown = refused(&["kafka.tls_client_auth=maybe"]);
    assert!(unknown.starts_with("kafka.tls_client_auth: ") && unknown.lines().count() == 1, "{unknown}");
    for wrong in ["tls.client_auth=maybe", "tls.cerificate=x"] {
        let once = refused(&[wrong, "kafka.tls_listen=127.0.0.1:9093"]);
        assert!(once.starts_with("tls.c") && once.lines().count() == 1, "{once}");
    }

    let open = refused(&["kafka.tls_listen=0.0.0.0:9093"]);
    assert!(open.contains("client_auth = \"required\""), "{open}");
    let known = ["kafka.tls_listen=0.0.0.0:9093", "tls.client_auth=required", "tls.client_ca=DIR/node.crt"];
    with(&known).unwrap();

    let shared = with(&["kafka.tls_listen=127.0.0.1:9093", "amqp.tls_listen=127.0.0.1:9093"]).unwrap();
    assert_eq!(shared.tls.len(), 1, "the files are read once");
    let twice = refused(&["kafka.listen=127.0.0.1:9093", "kafka.tls_listen=127.0.0.1:9093"]);
    assert!(twice.starts_with("kafka.tls_listen: 127.0.0.1:9093 is kafka.listen's too"), "{twice}");
    let other = refused(&["kafka.tls_listen=127.0.0.1:5672"]);
    assert!(other.contains("127.0.0.1:5672 is kafka's too, with another TLS or none"), "{other}");
}

#[test]
fn an_address_is_listened_on_once_but_for_protocols_that_share_it() {
    let loaded = |set: &[&str]| {
        let set: Vec<String> = set.iter().map(|one| (*one).to_owned()).collect();
        load_all(&set)
    };
    for (set, says) in [
        (
            ["kafka.listen=127.0.0.1:1234", "admin.listen=127.0.0.1:1234"],
            "kafka.listen: 127.0.0.1:1234 is admin.listen's too",
        ),
        (
            ["kafka.listen=127.0.0.1:1234,127.0.0.1:1234", "net.default_listen=off"],
            "kafka.listen: it names 127.0.0.1:1234 more than once",
        ),
        (
            ["admin.listen=127.0.0.1:1234,127.0.0.1:1234", "net.default_listen=off"],
            "admin.listen: it names 127.0.0.1:1234 more than once",
        ),
        (
            ["kafka.listen=127.0.0.1:1234,0.0.0.0:1234", "kafka.anonymous=true"],
            "kafka.listen: 0.0.0.0:1234 cannot be listened on beside 127.0.0.1:1234 of kafka.listen",
        ),
    ] {
        let refused = loaded(&set).err().unwrap();
        assert!(refused.starts_with(says) && refused.lines().count() == 1, "{refused}");
    }
    for set in [
        ["kafka.listen=127.0.0.1:5672", "net.default_listen=auto"],
        ["kafka.listen=127.0.0.1:0,127.0.0.1:0", "admin.listen=127.0.0.1:0"],
        ["kafka.listen=127.0.0.1:1234", "admin.listen=127.0.0.2:1234"],
    ] {
        assert!(loaded(&set).is_ok(), "{set:?}");
    }
}

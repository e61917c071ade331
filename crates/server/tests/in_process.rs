//! A broker inside a program: started, used through its protocol, stopped, and started again.

use std::path::Path;
use std::time::Duration;

use sabir_base::testing::{keep_log, logged};
use sabir_server::client::{Endpoint, Outgoing, PublishOptions, Start};
use sabir_server::config::{ServerConfig, Sources};
use sabir_server::{Running, ServerStartError, protocols, start};

fn config(data: &Path, settings: &[&str]) -> ServerConfig {
    let ports = ["net.default_listen=off", "kafka.listen=127.0.0.1:0", "admin.listen=127.0.0.1:0"];
    let set = ports.iter().chain(settings).map(|s| s.to_string()).collect();
    ServerConfig::load(&Sources { data: Some(data.into()), set, ..Sources::default() }, protocols())
        .expect("good settings")
}

/// Publishes `content` if there is any, and reads all there is.
fn contents(running: &Running, content: Option<&'static str>) -> Vec<String> {
    let address = running.serving()[0].listening[0].address.to_string();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    tokio::task::LocalSet::new().block_on(&runtime, async {
        let mut client = protocols()[0]
            .connector()
            .connect(Endpoint::plain(address), std::time::Duration::from_secs(30))
            .await
            .expect("it answers");
        if let Some(content) = content {
            let message = Outgoing { value: Some(content.into()), ..Outgoing::default() };
            let options = PublishOptions::default();
            client.publish("t", vec![message], &options).await.expect("it is acknowledged");
        }
        let mut positions = client.positions("t", None, Start::Earliest).await.expect("the topic is there");
        let mut all = Vec::new();
        while positions.iter().any(|p| p.next < p.end) {
            let got = client
                .read("t", &mut positions, std::time::Duration::from_secs(5))
                .await
                .expect("it is read");
            all.extend(
                got.into_iter().map(|m| String::from_utf8_lossy(&m.value.unwrap_or_default()).into_owned()),
            );
        }
        all
    })
}

#[test]
fn start_use_stop_and_again() {
    let data = tempfile::tempdir().unwrap();
    let running = start(config(data.path(), &[])).unwrap();
    assert_eq!(running.durability(), "sync");
    assert_eq!(contents(&running, Some("one")), ["one"]);
    assert_eq!(running.stop().cut_off, 0);
    let running = start(config(data.path(), &["data.disk=pwrite", "data.durability=os"])).unwrap();
    assert_eq!(running.durability(), "os");
    assert_eq!(contents(&running, Some("two")), ["one", "two"]);
    running.stop();
}

#[test]
fn two_in_one_process_do_not_know_each_other() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let first = start(config(one.path(), &[])).unwrap();
    let second = start(config(two.path(), &[])).unwrap();
    assert_eq!(contents(&first, Some("first")), ["first"]);
    assert_eq!(contents(&second, Some("second")), ["second"]);
    first.stop();
    assert_eq!(contents(&second, None), ["second"]);
    second.stop();
}

#[test]
fn several_shards() {
    let data = tempfile::tempdir().unwrap();
    let settings = ["data.shards=3", "kafka.num_partitions=7"];
    let running = start(config(data.path(), &settings)).unwrap();
    assert_eq!(running.broker().stats().shards.len(), 4);
    for _ in 0..3 {
        contents(&running, Some("x"));
    }
    running.stop();
    // The number is that of the folder, whatever the configuration says later, and that is said.
    keep_log();
    let running = start(config(data.path(), &["data.shards=1"])).unwrap();
    assert_eq!(contents(&running, None).len(), 3);
    assert_eq!(running.broker().stats().shards.len(), 4);
    running.stop();
    let lines =
        logged(&["WARN", "the data directory keeps the number of data shards", "configured=1 data_shards=3"]);
    assert_eq!(lines.len(), 1, "{lines:?}");
}

/// A folder on a file system in memory, where the machine has one for everybody.
#[cfg(target_os = "linux")]
fn in_memory() -> Option<tempfile::TempDir> {
    let mounts = std::fs::read_to_string("/proc/self/mounts").ok()?;
    let mut fields = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    fields.find_map(|of| tempfile::tempdir_in((of.get(2) == Some(&"tmpfs")).then(|| of[1])?).ok())
}

#[cfg(target_os = "linux")]
#[test]
fn a_data_directory_in_memory_is_warned_of_before_anything_listens() {
    let Some(memory) = in_memory() else { return println!("no file system in memory takes a folder") };
    keep_log();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = format!("kafka.listen={}", taken.local_addr().unwrap());
    let data = memory.path().join("not/made/yet");
    let refused = start(config(&data, &[&listen])).err().unwrap();
    assert!(matches!(refused, ServerStartError::Bind(_)), "{refused}");
    let said = "lies in tmpfs, which is memory: nothing survives the machine";
    assert_eq!(logged(&["WARN", said, &data.display().to_string()]).len(), 1);
}

#[test]
fn a_start_waits_a_little_for_whoever_still_has_the_data_directory() {
    let data = tempfile::tempdir().unwrap();
    let running = start(config(data.path(), &[])).unwrap();
    let ending = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(500));
        running.stop();
    });
    start(config(data.path(), &[])).unwrap().stop();
    ending.join().unwrap();
}

#[test]
fn a_start_that_fails_leaves_nothing_behind() {
    let data = tempfile::tempdir().unwrap();
    let running = start(config(data.path(), &[])).unwrap();
    let taken = running.serving()[0].listening[0].address;
    assert!(start(config(data.path(), &[])).err().unwrap().data_in_use());

    let other = tempfile::tempdir().unwrap();
    let admin = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let settings = [format!("kafka.listen={taken}"), format!("admin.listen={admin}")];
    let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
    let failed = start(config(other.path(), &settings)).err().unwrap();
    assert!(matches!(failed, ServerStartError::Bind(_)), "{failed}");
    assert!(std::net::TcpListener::bind(admin).is_ok(), "the admin port is free again");
    running.stop();
    start(config(other.path(), &settings)).unwrap().stop();
}

#[test]
fn protocols_that_name_the_same_address_share_it() {
    let data = tempfile::tempdir().unwrap();
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let named: Vec<_> =
        protocols().iter().filter(|protocol| protocol.default_listen() != "\"off\"").collect();
    assert!(named.len() > 1);
    // The second one has another address before it.
    let listen = |(number, name): (usize, &str)| {
        let before = if number == 1 { "127.0.0.1:0," } else { "" };
        format!("{name}.listen={before}{free}")
    };
    let mut set: Vec<_> = named.iter().map(|protocol| protocol.name()).enumerate().map(listen).collect();
    set.extend(["net.default_listen=off", "admin.listen=off"].map(String::from));
    let sources = Sources { data: Some(data.path().into()), set, ..Sources::default() };
    let running = start(ServerConfig::load(&sources, protocols()).unwrap()).unwrap();
    let serving = running.serving();
    assert_eq!(serving.len(), named.len());
    assert!(
        serving.iter().all(|served| served.listening.last().map(|at| at.address) == Some(free)),
        "{serving:?}"
    );
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, async {
        for protocol in named {
            let patience = std::time::Duration::from_secs(30);
            let client = protocol.connector().connect(Endpoint::plain(free.to_string()), patience).await;
            assert!(client.is_ok(), "{}", protocol.name());
        }
    });
    running.stop();
}

//! Commands that work, against a broker of their own.

mod common;

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::{Broker, PATIENCE, run, sabir, sabir_without_space};
use serde_json::Value;

fn json(text: &str) -> Value {
    serde_json::from_str(text).expect("JSON")
}

#[test]
fn topics() {
    let data = tempfile::tempdir().unwrap();
    let broker = Broker::start(data.path(), &[]);
    let could = broker.run(&["topic", "create", "orders", "-p", "3", "--dry-run"]).ok();
    assert!(could.contains("would be created"), "{could}");
    assert_eq!(broker.run(&["topic", "list", "-o", "name"]).ok(), "");

    broker.run(&["topic", "create", "orders", "-p", "3", "-c", "retention.ms=3600000"]).ok();
    broker.run(&["topic", "create", "bills", "notes"]).ok();
    assert_eq!(broker.run(&["topic", "list", "-o", "name"]).ok(), "bills\nnotes\norders\n");
    let listed = json(&broker.run(&["topic", "ls", "-o", "json"]).ok());
    assert_eq!(listed[2]["topic"], "orders");
    assert_eq!(listed[2]["partitions"], 3);

    for content in ["a", "b"] {
        broker.run(&["message", "publish", "orders", content, "-p", "1"]).ok();
    }
    let described = json(&broker.run(&["topic", "describe", "orders", "-o", "json"]).ok());
    assert_eq!(described[0]["partitions"][1]["end"], 2);
    assert_eq!(described[0]["partitions"][0]["end"], 0);
    let yaml = broker.run(&["topic", "describe", "orders", "-o", "yaml"]).ok();
    assert!(yaml.starts_with("- topic: orders\n"), "{yaml}");

    let loss = json(&broker.run(&["topic", "delete", "orders", "--dry-run", "-o", "json"]).ok());
    assert_eq!(loss[0]["messages"], 2);
    // One that is not there keeps all from being deleted.
    broker.run(&["topic", "delete", "bills", "nothing"]).fails(4);
    assert_eq!(broker.run(&["topic", "list", "-o", "name"]).ok(), "bills\nnotes\norders\n");
    broker.run(&["topic", "delete", "bills", "orders"]).ok();
    assert_eq!(broker.run(&["topic", "list", "-o", "name"]).ok(), "notes\n");
}

#[test]
fn messages_go_in_and_come_out() {
    let data = tempfile::tempdir().unwrap();
    let broker = Broker::start(data.path(), &[]);
    broker.run(&["topic", "create", "orders", "-p", "1"]).ok();
    let places =
        ["message", "publish", "orders", "first", "--key", "k", "-H", "a=1", "-H", "a=2", "-o", "json"];
    assert_eq!(json(&broker.run(&places).ok())[0]["offset"], 0);
    let lines =
        broker.run_with(&["message", "pub", "orders", "--key-separator", ":"], b"x:second\ny:third").ok();
    assert!(lines.contains("orders  0          1") && lines.contains("orders  0          2"), "{lines}");
    broker.run_with(&["message", "publish", "orders", "--whole"], b"fo\nur\xff").ok();
    broker.run(&["message", "publish", "orders", "--tombstone", "--key", "k"]).ok();

    let read = broker.run(&["message", "read", "orders", "-o", "json"]).ok();
    let read: Vec<Value> = read.lines().map(json).collect();
    assert_eq!(read.len(), 5);
    assert_eq!((&read[0]["key"], &read[0]["value"]), (&"k".into(), &"first".into()));
    assert_eq!(read[0]["headers"][1]["value"], "2");
    assert_eq!((&read[1]["key"], &read[1]["value"]), (&"x".into(), &"second".into()));
    assert_eq!((&read[3]["value"], &read[3]["value_base64"]), (&Value::Null, &"Zm8KdXL/".into()));
    assert_eq!(read[4]["value"], Value::Null);

    let some = broker.run(&["message", "read", "orders", "--offset", "1", "-n", "2", "-o", "raw"]).ok();
    assert_eq!(some, "second\nthird\n");
    let last = broker.run(&["message", "read", "orders", "--last", "4", "-n", "1", "-o", "raw"]).ok();
    assert_eq!(last, "second\n");
    let since = read[0]["timestamp"].as_str().unwrap();
    assert_eq!(broker.run(&["message", "read", "orders", "--since", since]).ok().lines().count(), 5);
    assert_eq!(
        broker.run(&["message", "read", "orders", "--since", "1h", "-n", "3"]).ok().lines().count(),
        3
    );
    assert_eq!(broker.run(&["message", "read", "orders", "--since", "2100-01-01"]).ok(), "");
    let text = broker.run(&["message", "read", "orders", "-n", "1"]).ok();
    assert!(text.starts_with("0:0  20") && text.trim_end().ends_with("k  first  [a=1]  [a=2]"), "{text}");
}

#[test]
fn what_stands_before_a_bad_line_is_published() {
    let data = tempfile::tempdir().unwrap();
    let broker = Broker::start(data.path(), &[]);
    broker.run(&["topic", "create", "orders", "-p", "1"]).ok();
    let publish = ["message", "publish", "orders", "--key-separator", ":", "-o", "name"];
    let printed = broker.run_with(&publish, b"x:first\ny:second\nthird\nz:fourth\n");
    assert_eq!(printed.out, "orders/0/0\norders/0/1\n");
    let err = printed.fails(1);
    assert!(err.contains("line 3: `third`") && err.contains("lines before it were published"), "{err}");
    let read = ["message", "read", "orders", "-o", "value"];
    assert_eq!(broker.run(&read).ok(), "first\nsecond\n");
    let printed = broker.run_with(&publish, b"third\nz:fourth\n");
    assert_eq!(printed.out, "");
    assert!(printed.fails(1).contains("Nothing was published"));
    assert_eq!(broker.run(&read).ok(), "first\nsecond\n");
}

#[test]
fn a_pipe_that_pauses_holds_nothing_back() {
    let data = tempfile::tempdir().unwrap();
    let broker = Broker::start(data.path(), &[]);
    broker.run(&["topic", "create", "news", "-p", "1"]).ok();
    let mut command = broker.command(&["message", "publish", "news"]);
    let mut publish = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let mut pipe = publish.stdin.take().unwrap();
    for (written, wanted) in [("one\ntwo\nthr", "one\ntwo\n"), ("ee\n", "one\ntwo\nthree\n")] {
        pipe.write_all(written.as_bytes()).unwrap();
        let until = Instant::now() + PATIENCE;
        let shown = || broker.run(&["message", "read", "news", "-o", "value"]).ok();
        while shown() != wanted && Instant::now() < until {}
        assert_eq!(shown(), wanted);
    }
    drop(pipe);
    assert!(publish.wait().unwrap().success());
}

#[test]
fn a_group_goes_past_what_does_not_fit() {
    let data = tempfile::tempdir().unwrap();
    let broker = Broker::start(data.path(), &[]);
    broker.run(&["topic", "create", "orders", "-p", "1"]).ok();
    broker.run_with(&["message", "publish", "orders", "--key-separator", ":"], b"a:1\nb:2\n").ok();
    let read = ["message", "read", "orders", "--group", "g", "-o", "value"];
    assert_eq!(broker.run(&[&read[..], &["--key", "a"]].concat()).ok(), "1\n");
    assert_eq!(broker.run(&read).ok(), "");
    let promise = "whether it fits the filters or not";
    let help = run(&["message", "read", "--help"]).ok();
    assert!(help.split_whitespace().collect::<Vec<_>>().join(" ").contains(promise), "{help}");
    assert!(include_str!("../../../docs/cli.md").contains(promise));
}

#[test]
fn what_was_done_before_an_error_is_told() {
    let data = tempfile::tempdir().unwrap();
    let broker = Broker::start(data.path(), &[]);
    let printed = broker.run(&["topic", "create", "a", "b", "a", "no/good", "c", "-o", "name"]);
    assert_eq!(printed.out, "a\nb\n");
    printed.fails(6);
    assert_eq!(broker.run(&["topic", "list", "-o", "name"]).ok(), "a\nb\n");
    // Nothing was done: nothing is told.
    assert_eq!(broker.run(&["topic", "create", "b", "-o", "json"]).out, "");
    assert_eq!(broker.run(&["topic", "delete", "a", "b", "a", "-o", "name"]).ok(), "a\nb\n");
    broker.run(&["group", "reset", "g", "--topic", "x", "--to", "earliest"]).fails(4);
    broker.run(&["topic", "create", "x"]).ok();
    broker.run(&["group", "reset", "g", "--topic", "x", "--to", "earliest"]).ok();
    assert_eq!(broker.run(&["group", "delete", "g", "g", "-o", "name"]).ok(), "g\n");
}

#[test]
fn every_codec_and_many_lines() {
    let data = tempfile::tempdir().unwrap();
    let broker = Broker::start(data.path(), &[]);
    broker.run(&["topic", "create", "lines", "-p", "1"]).ok();
    let input: String = (0..3000).map(|n| format!("line {n}\n")).collect();
    for codec in ["none", "gzip", "snappy", "lz4", "zstd"] {
        let printed =
            broker.run_with(&["message", "publish", "lines", "--compression", codec], input.as_bytes()).ok();
        assert!(printed.contains("3000 messages published"), "{printed}");
    }
    broker.run_with(&["message", "publish", "lines", "--acks", "0"], b"no answer").ok();
    let read = broker.run(&["message", "read", "lines", "-n", "15000", "-o", "raw"]).ok();
    assert_eq!(read, input.repeat(5));
}

#[test]
fn tail_shows_what_comes() {
    let data = tempfile::tempdir().unwrap();
    let broker = Broker::start(data.path(), &[]);
    broker.run(&["topic", "create", "news", "-p", "1"]).ok();
    broker.run_with(&["message", "publish", "news"], b"old\nolder\n").ok();
    let mut command = broker.command(&["message", "tail", "news", "--last", "1", "-n", "2", "-o", "raw"]);
    let mut tail = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(tail.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "older");
    broker.run(&["message", "publish", "news", "new"]).ok();
    assert_eq!(lines.next().unwrap().unwrap(), "new");
    assert!(tail.wait().unwrap().success());
}

#[test]
fn what_was_acknowledged_survives_a_restart_and_a_kill() {
    let data = tempfile::tempdir().unwrap();
    let broker = Broker::start(data.path(), &[]);
    broker.run(&["message", "publish", "orders", "before the stop"]).ok();
    assert_eq!(broker.stop(), Some(0));
    let broker = Broker::start(data.path(), &[]);
    broker.run(&["message", "publish", "orders", "before the kill"]).ok();
    broker.signal("KILL");
    drop(broker);
    let broker = Broker::start(data.path(), &["data.disk=pwrite"]);
    let read = broker.run(&["message", "read", "orders", "-o", "raw"]).ok();
    assert_eq!(read, "before the stop\nbefore the kill\n");
}

#[test]
fn load() {
    let data = tempfile::tempdir().unwrap();
    let broker = Broker::start(data.path(), &[]);
    let printed = json(&broker.run(&["bench", "produce", "-n", "20k", "-s", "100", "-o", "json"]).ok());
    assert_eq!(
        (&printed["messages"], &printed["bytes"], &printed["errors"]),
        (&20_000.into(), &2_000_000.into(), &0.into())
    );
    assert!(printed["latency_ms"]["p99"].as_f64().unwrap() >= printed["latency_ms"]["p50"].as_f64().unwrap());
    let printed = json(&broker.run(&["bench", "consume", "-n", "20k", "-o", "json"]).ok());
    assert_eq!(printed["messages"], 20_000);
    assert!(printed["bytes"].as_u64().unwrap() > 2_000_000, "{printed}");
    for (clients, count) in [("1", 1), ("1", 19_999), ("3", 777), ("6", 12_345)] {
        let asked = count.to_string();
        let printed = ["bench", "consume", "-n", &asked, "-t", "1m", "--clients", clients, "-o", "json"];
        let printed = json(&broker.run(&printed).ok());
        assert_eq!(printed["messages"], count, "{printed}");
        // As many bytes as there are messages, not those of whole fetches.
        let each = printed["bytes"].as_f64().unwrap() / count as f64;
        assert!((100.0..200.0).contains(&each), "{printed}");
    }
    let missing = broker.run(&["bench", "consume", "--topic", "bensh"]).fails(4);
    assert!(
        missing.contains("there is no topic bensh") && missing.contains("Did you mean `bench`"),
        "{missing}"
    );
    let args = ["bench", "e2e", "--topic", "loop", "-r", "500", "-t", "1s", "-o", "json"];
    let printed = json(&broker.run(&args).ok());
    let messages = printed["messages"].as_u64().unwrap();
    assert!((450..=550).contains(&messages), "{printed}");
    let table = broker.run(&["bench", "produce", "-n", "100", "--acks", "1", "--clients", "2"]).ok();
    assert!(table.starts_with("LOAD") && table.contains("P99.9"), "{table}");
}

#[test]
fn dev_sends_a_message_round() {
    let printed = run(&[
        "dev",
        "--once",
        "--set",
        "kafka.listen=127.0.0.1:0",
        "--set",
        "net.default_listen=off",
        "--set",
        "admin.listen=127.0.0.1:0",
    ])
    .ok();
    for part in [
        "is ready after",
        "kafka       127.0.0.1:",
        "http://127.0.0.1:",
        "sync: what is acknowledged is on the disk",
        "-> published \"Hello from kafka!\"",
        "<- read back \"Hello from kafka!\" from partition 0, offset 0",
    ] {
        assert!(printed.contains(part) || printed.contains("NOTHING SURVIVES"), "{part} in {printed}");
    }
    let dir = printed
        .lines()
        .find_map(|l| l.trim().strip_prefix("data"))
        .unwrap()
        .split_whitespace()
        .next()
        .unwrap();
    assert!(!std::path::Path::new(dir).exists(), "{dir} is gone");

    let data = tempfile::tempdir().unwrap();
    let ports = ["net.default_listen=off", "kafka.listen=127.0.0.1:0", "admin.listen=127.0.0.1:0"];
    let sets = ports.iter().chain(&["data.durability=os"]).flat_map(|set| ["--set", set]);
    let args: Vec<_> =
        ["dev", "--once", "--data", data.path().to_str().unwrap()].into_iter().chain(sets).collect();
    run(&args).ok();
    let again = run(&args).ok();
    assert!(again.contains("offset 1") && again.contains("NOT a power cut"), "{again}");
}

#[test]
fn dev_goes_on_until_it_is_told_to_stop() {
    let mut dev = sabir(&["dev"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(dev.stdout.take().unwrap()).lines().map_while(Result::ok);
    let serving = lines.by_ref().find(|l| l.contains("kafka  ")).unwrap();
    let address = serving.split_whitespace().last().unwrap().to_owned();
    let hints: Vec<_> = lines.take_while(|l| !l.contains("Ctrl-C stops it")).collect();
    // They run as they are printed; a command that tails it would wait.
    for verb in ["message tail", "message publish"] {
        let hint = hints.iter().find(|l| l.contains(verb)).unwrap().trim().replace("tail", "read");
        let ran = std::process::Command::new("sh").args(["-c", &hint]).output().unwrap();
        assert!(ran.status.success(), "{hint}: {}", String::from_utf8_lossy(&ran.stderr));
    }
    run(&["message", "read", "hello", "--address", &address]).ok();
    std::process::Command::new("kill").args(["-INT", &dev.id().to_string()]).status().unwrap();
    let ended = dev.wait_with_output().unwrap();
    assert!(ended.status.success());
    // What it makes is for its user alone.
    let said = String::from_utf8_lossy(&ended.stderr);
    assert!(!said.contains("is open to every user"), "{said}");
}

#[test]
fn the_admin_port_and_the_log_say_how_it_is() {
    let data = tempfile::tempdir().unwrap();
    let broker = Broker::start(data.path(), &[]);
    let ready = broker.log.last().unwrap();
    let text = ready["message"].as_str().unwrap();
    let ms: f64 = text.strip_prefix("ready after ").unwrap().strip_suffix(" ms").unwrap().parse().unwrap();
    assert!(ms > 0.0 && ms < 10_000.0, "{text}");
    assert_eq!(ready["durability"], "sync");

    assert!(broker.get("/livez").starts_with("HTTP/1.1 200"));
    assert!(broker.get("/readyz").ends_with("ready\n"));
    broker.run(&["message", "publish", "orders", "x"]).ok();
    let metrics = broker.get("/metrics");
    let sum = |name: &str| -> f64 {
        let lines = metrics.lines().filter(|l| l.starts_with(name));
        lines.map(|l| l.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
    };
    assert_eq!(sum("sabir_appended_records_total"), 1.0, "{metrics}");
    assert_eq!(sum("sabir_topics "), 2.0, "one is internal");
    assert!(sum("process_resident_memory_bytes") > 1e6);
    assert!(sum("sabir_accepted_connections_total") >= 1.0);
    assert!(sum("sabir_requests_total") >= 2.0, "{metrics}");
}

#[test]
fn a_broker_stops_in_time_although_a_client_stays() {
    let data = tempfile::tempdir().unwrap();
    let broker = Broker::start(data.path(), &["net.drain=500ms"]);
    let _idle = std::net::TcpStream::connect(&broker.kafka).unwrap();
    let mut tail = broker.command(&["message", "tail", "orders"]).stderr(Stdio::null()).spawn().unwrap();
    let began = Instant::now();
    assert_eq!(broker.stop(), Some(0));
    assert!(began.elapsed() < PATIENCE / 2, "{:?}", began.elapsed());
    let _ = tail.kill();
    let _ = tail.wait();
}

#[test]
fn the_signals_of_a_process_group_are_one_and_a_lost_terminal_is_none() {
    let data = tempfile::tempdir().unwrap();
    let broker = Broker::start(data.path(), &[]);
    broker.signal("HUP");
    broker.run(&["message", "publish", "orders", "acknowledged"]).ok();
    // All are there when it goes on.
    for name in ["STOP", "HUP", "INT", "TERM", "CONT"] {
        broker.signal(name);
    }
    assert_eq!(broker.wait(), Some(0));
}

#[test]
fn signals_that_mean_nothing_to_a_broker_change_nothing() {
    let data = tempfile::tempdir().unwrap();
    let mut broker = Broker::start(data.path(), &[]);
    for name in ["USR1", "USR2"] {
        broker.signal(name);
        broker.until_logged(&format!("SIG{name} means nothing to the broker"));
    }
    broker.signal("ALRM");
    broker.run(&["message", "publish", "orders", "acknowledged"]).ok();
    assert_eq!(broker.stop(), Some(0));
}

/// A connection that keeps its broker from stopping: it asks for more than it reads.
fn reads_nothing(address: &str) -> std::net::TcpStream {
    let mut stream = std::net::TcpStream::connect(address).expect("a broker");
    stream.set_write_timeout(Some(Duration::from_secs(1))).expect("a timeout");
    let versions = b"\0\0\0\x0a\0\x12\0\0\0\0\0\x01\xff\xff".repeat(20_000);
    // Until the broker takes no more of them, since it has so much to send.
    let stuck = (0..1000).any(|_| stream.write_all(&versions).is_err());
    assert!(stuck, "the broker keeps what nobody reads");
    stream.read_exact(&mut [0]).expect("an answer");
    std::thread::sleep(Duration::from_millis(500));
    stream
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let data = tempfile::tempdir().unwrap();
    let broker = Broker::start(data.path(), &["net.drain=60s"]);
    broker.run(&["message", "publish", "orders", "acknowledged"]).ok();
    let _unread = reads_nothing(&broker.kafka);
    broker.signal("TERM");
    std::thread::sleep(Duration::from_millis(1200));
    broker.signal("TERM");
    assert_eq!(broker.wait(), Some(130));
    let broker = Broker::start(data.path(), &[]);
    assert_eq!(broker.run(&["message", "read", "orders", "-o", "raw"]).ok(), "acknowledged\n");
}

#[test]
fn a_start_that_waits_for_space_says_so_and_ends_with_the_first_signal() {
    let data = tempfile::tempdir().unwrap();
    let broker = Broker::start(data.path(), &[]);
    let value = "x".repeat(100_000);
    broker.run_with(&["message", "publish", "orders", "--whole"], value.as_bytes()).ok();
    assert_eq!(broker.stop(), Some(0));
    let path = data.path().to_str().unwrap();
    let settings = ["net.default_listen=off", "kafka.listen=127.0.0.1:0", "admin.listen=off"];
    let args: Vec<_> =
        ["serve", "--data", path].into_iter().chain(settings.iter().flat_map(|set| ["--set", set])).collect();
    let mut starting = sabir_without_space(&args).stderr(Stdio::piped()).spawn().unwrap();
    let mut log = BufReader::new(starting.stderr.take().unwrap()).lines().map_while(Result::ok);
    let mut said = Vec::new();
    let is_told = log.by_ref().any(|line| {
        said.push(line);
        said.last().is_some_and(|line| line.contains("the disk is full"))
    });
    assert!(is_told, "{said:#?}");
    let sent = Command::new("kill").args(["-TERM", &starting.id().to_string()]).status();
    assert!(sent.unwrap().success());
    let last: Vec<_> = log.collect();
    assert_eq!(starting.wait().unwrap().code(), Some(0), "{last:#?}");
    let broker = Broker::start(data.path(), &[]);
    assert_eq!(broker.run(&["message", "read", "orders", "-o", "raw"]).ok().trim_end(), value);
}

#[test]
fn an_advertised_address_that_means_nothing_is_said_to_be_the_brokers() {
    let data = tempfile::tempdir().unwrap();
    let broker = Broker::start(data.path(), &["kafka.advertise=nowhere.invalid:9092"]);
    let printed = broker.run(&["message", "publish", "orders", "x"]).err;
    assert!(
        printed.contains("nowhere.invalid:9092 is the address that the broker tells its clients"),
        "{printed}"
    );
}

#[test]
fn an_advertised_address_where_something_else_answers_is_said_to_be_the_brokers() {
    let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = other.local_addr().unwrap();
    std::thread::spawn(move || {
        for connection in other.incoming() {
            let mut connection = connection.unwrap();
            let _ = std::io::Write::write_all(&mut connection, b"220 mail.example ESMTP\r\n");
        }
    });
    let data = tempfile::tempdir().unwrap();
    let broker = Broker::start(data.path(), &[&format!("kafka.advertise={address}")]);
    let printed = broker.run(&["message", "publish", "orders", "x", "--timeout", "2s"]).err;
    let told = format!("{address} is the address that the broker tells its clients");
    assert!(printed.contains(&told), "{printed}");
}

#[test]
fn the_doctor_looks_at_the_machine() {
    let data = tempfile::tempdir().unwrap();
    let printed = sabir(&["doctor", "--data", data.path().to_str().unwrap(), "-o", "json"]).output().unwrap();
    let findings = json(&String::from_utf8(printed.stdout).unwrap());
    let bad = findings.as_array().unwrap().iter().any(|f| f["verdict"] == "bad");
    assert_eq!(printed.status.code(), Some(i32::from(bad)), "{findings}");
    assert!(findings.as_array().unwrap().iter().any(|f| f["check"] == "disk sync"), "{findings}");
}

#[test]
fn the_doctor_goes_by_the_limit_that_holds() {
    let data = tempfile::tempdir().unwrap();
    // In blocks of 512 or 1024 bytes, and only the soft one.
    let script = "ulimit -S -f 65536 && exec \"$0\" doctor -o json --data \"$1\"";
    let mut shell = std::process::Command::new("sh");
    let printed = shell.args(["-c", script, env!("CARGO_BIN_EXE_sabir")]).arg(data.path()).output().unwrap();
    let findings = json(&String::from_utf8(printed.stdout).unwrap());
    let finding = findings.as_array().unwrap().iter().find(|f| f["check"] == "file size").unwrap();
    assert_eq!(finding["verdict"], "bad", "{finding}");
}

#[test]
fn completions_and_help() {
    for shell in ["bash", "zsh", "fish"] {
        let script = run(&["completions", shell]).ok();
        assert!(script.contains("sabir") && script.contains("message"), "{shell}");
    }
    let help = run(&["--help"]).ok();
    let page = include_str!("../../../docs/cli.md");
    for line in
        ["0 ok", "3 cannot connect", "4 not found", "9 the data directory is in use", "130 a second signal"]
    {
        assert!(help.replace('\n', " ").contains(line), "{line} in {help}");
    }
    for command in
        ["serve", "dev", "topic", "message", "group", "cluster", "bench", "doctor", "config", "completions"]
    {
        assert!(help.contains(&format!("\n  {command} ")), "{command} in {help}");
        assert!(page.contains(&format!("`sabir {command}")), "docs/cli.md tells of {command}");
    }
    assert!(run(&["--version"]).ok().starts_with("sabir "));
}

#[test]
fn the_reference_page_is_what_the_program_prints() {
    let page = include_str!("../../../docs/configuration.md");
    assert_eq!(run(&["config", "reference"]).ok(), page, "sabir config reference > docs/configuration.md");
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let mut child =
        sabir(&["config", "reference"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let ended = child.wait_with_output().unwrap();
    assert!(ended.status.success());
    assert!(ended.stderr.is_empty());
}

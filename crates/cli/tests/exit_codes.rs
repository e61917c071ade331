//! What scripts rely on: the exit code of each kind of failure, and a complaint that says what to do.

mod common;

use common::{Broker, run};

#[test]
fn wrong_usage() {
    assert_eq!(
        run(&["topic", "create"]).fails(2).lines().next(),
        Some("error: the following required arguments were not provided:")
    );
    run(&["topics"]).fails(2);
    // What a command has no use for is not taken.
    run(&["serve", "--address", "127.0.0.1:1"]).fails(2);
    run(&["bench", "consume", "--acks", "1"]).fails(2);
    run(&["bench", "produce", "--rate", "0"]).fails(2);
    let printed = run(&["topic", "list", "--proto", "kafak"]).fails(2);
    assert!(printed.contains("Did you mean `kafka`?"), "{printed}");
    let printed = run(&["--proto", "kafak", "topic", "list"]).fails(2);
    assert!(printed.contains("Did you mean `kafka`?"), "{printed}");
    let printed = run(&["--proto", "kafka", "serve"]).fails(2);
    assert!(printed.contains("sabir serve"), "{printed}");
}

#[test]
fn nobody_there() {
    // A port that was free a moment ago, on an address that no other test uses.
    let port = std::net::TcpListener::bind("127.0.0.93:0").unwrap().local_addr().unwrap().port();
    for command in [["topic", "list"], ["message", "read"], ["bench", "produce"]] {
        let address = format!("127.0.0.93:{port}");
        let mut args = vec![command[0], command[1], "--address", &address];
        if command[0] == "message" {
            args.push("orders");
        }
        let printed = run(&args).fails(3);
        assert!(printed.contains(&address) && printed.contains("sabir dev"), "{printed}");
    }
}

#[test]
fn somebody_who_speaks_something_else() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let _ = std::io::Write::write_all(&mut stream.unwrap(), b"HTTP/1.1 400 Bad Request\r\n\r\n");
        }
    });
    run(&["topic", "list", "--address", &address]).fails(3);
}

#[test]
fn somebody_who_does_not_answer() {
    // It takes connections, as the system does for any process that listens, and says nothing.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    for (timeout, least) in [("500ms", 0.4), ("11s", 10.7)] {
        let began = std::time::Instant::now();
        let command = ["topic", "list", "--proto", "kafka", "--address", &address, "--timeout", timeout];
        let printed = run(&command).fails(7);
        assert!(began.elapsed().as_secs_f64() > least, "{timeout}: {:?}", began.elapsed());
        assert!(printed.contains(&address) && printed.contains("--timeout"), "{printed}");
    }
}

#[test]
fn no_place_for_a_trial() {
    let ended = common::sabir(&["dev", "--once"]).env("TMPDIR", "/nonexistent").output().unwrap();
    let printed = String::from_utf8(ended.stderr).unwrap();
    assert_eq!(ended.status.code(), Some(1), "{printed}");
    assert!(
        printed.contains("/nonexistent") && printed.contains("TMPDIR") && printed.contains("--data"),
        "{printed}"
    );
}

#[test]
fn wrong_configuration() {
    let printed = run(&["serve", "--set", "kafka.lisen=off"]).fails(8);
    assert!(
        printed.contains("did you mean `listen`?") && printed.contains("--set kafka.lisen=off"),
        "{printed}"
    );
    let printed = run(&["config", "show", "--set", "kafka.listen=0.0.0.0:9092"]).fails(8);
    assert!(printed.contains("kafka.anonymous = true"), "{printed}");
}

#[test]
fn a_configuration_that_no_data_directory_can_have_is_refused_before_anything_is_made() {
    let folder = tempfile::tempdir().unwrap();
    let (absent, there) = (folder.path().join("absent"), folder.path().join("there"));
    let settings = ["data.shards=1", "data.format_level=5"];
    assert_eq!(Broker::start(&there, &settings).stop(), Some(0));
    // The segments of the journals, and when they were last written.
    let files = || {
        let (mut all, mut folders) = (Vec::new(), vec![there.clone()]);
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
                match entry.metadata().unwrap() {
                    of if of.is_dir() => folders.push(entry.path()),
                    of if entry.file_name().to_string_lossy().starts_with("segment-") => {
                        all.push((entry.path(), of.len(), of.modified().unwrap()));
                    }
                    _ => {}
                }
            }
        }
        all.sort();
        all
    };
    let before = files();
    assert!(!before.is_empty());
    for (setting, says) in [
        ("data.shards=100000", "at most 1024"),
        ("data.format_level=99", "levels from 2 to 5"),
        ("data.format_level=4", "cannot go down to 4"),
    ] {
        for data in [&absent, &there] {
            let serve =
                ["serve", "--data", data.to_str().unwrap(), "--set", setting, "--set", "admin.listen=off"];
            let said = run(&[&serve[..], &["--set", "net.default_listen=off"]].concat());
            let printed = said.err;
            assert_eq!(said.code, 8, "{printed}");
            assert!(printed.contains(says) && printed.contains("sabir config reference"), "{printed}");
            assert!(!absent.exists(), "{setting}");
            assert_eq!(files(), before, "{setting}");
        }
    }
}

#[test]
fn advice_on_a_configuration_fits_what_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let written = |name: &str, text: &[u8]| {
        std::fs::write(folder.path().join(name), text).unwrap();
        folder.path().join(name).to_str().unwrap().to_owned()
    };
    let (keys, named, form) = ("lists every key", "Name the file that is meant", "to begin with");
    for (file, advice, not) in [
        ("/nowhere/sabir.toml".to_owned(), named, keys),
        (folder.path().to_str().unwrap().to_owned(), named, keys),
        (written("binary", b"\xff\xfe"), named, keys),
        (written("no.toml", b"[net\n"), form, keys),
        (written("key.toml", b"[net]\nidel = 3\n"), keys, form),
    ] {
        for verb in [&["serve"][..], &["config", "show"], &["doctor"], &["dev"]] {
            let printed = run(&[verb, &["--config", &file]].concat()).fails(8);
            assert!(
                printed.contains(&file) && printed.contains(advice) && !printed.contains(not),
                "{verb:?} {printed}"
            );
        }
    }
}

#[test]
fn a_data_directory_in_use() {
    let data = tempfile::tempdir().unwrap();
    let first = Broker::start(data.path(), &[]);
    let dir = data.path().to_str().unwrap();
    // The same address too: the second must hear of the first, not of its port.
    let listen = format!("kafka.listen={}", first.kafka);
    let said = run(&["serve", "--data", dir, "--set", &listen, "--set", "admin.listen=off"]);
    let printed = said.err;
    assert!(said.code == 9 && printed.contains("waiting up to 4s"), "{printed}");
    assert!(printed.contains(&format!("process {}", first.pid())) && printed.contains("--data"), "{printed}");
    let other = tempfile::tempdir().unwrap();
    let dir = other.path().to_str().unwrap();
    let printed = run(&["serve", "--data", dir, "--set", &listen, "--set", "admin.listen=off"]).fails(1);
    assert!(printed.contains("another process listens there"), "{printed}");
    assert_eq!(first.stop(), Some(0));
}

#[test]
fn too_few_open_files() {
    for limit in [6, 7, 8, 12, 16, 24, 32, 40, 48] {
        let data = tempfile::tempdir().unwrap();
        let script = format!(
            "ulimit -n {limit} && exec \"$0\" serve --data \"$1\" --set data.shards=1 --set kafka.listen=127.0.0.1:0 --set net.default_listen=off --set admin.listen=off \
             --set net.io_threads=2"
        );
        let mut shell = std::process::Command::new("timeout");
        shell.args(["5", "sh", "-c", &script, env!("CARGO_BIN_EXE_sabir")]).arg(data.path());
        let ended = shell.output().unwrap();
        let printed = String::from_utf8(ended.stderr).unwrap();
        // It may just do.
        let runs = ended.status.code() == Some(124) || ended.status.code() == Some(0);
        assert!(runs && limit > 32 || printed.contains("LimitNOFILE="), "{limit}: {printed}");
    }
}

#[test]
fn a_port_that_a_connection_has() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let outgoing = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let listen = format!("kafka.listen={}", outgoing.local_addr().unwrap());
    let data = tempfile::tempdir().unwrap();
    let dir = data.path().to_str().unwrap();
    let printed = run(&["serve", "--data", dir, "--set", &listen, "--set", "admin.listen=off"]).fails(1);
    assert!(printed.contains("a connection from that port"), "{printed}");
}

#[test]
fn what_is_not_there_and_what_is() {
    let data = tempfile::tempdir().unwrap();
    let broker = Broker::start(data.path(), &["kafka.auto_create=false"]);
    for args in [
        &["topic", "describe", "nothing"][..],
        &["topic", "delete", "nothing"],
        &["topic", "delete", "nothing", "--dry-run"],
        &["message", "read", "nothing"],
        &["message", "publish", "nothing", "x"],
    ] {
        let printed = broker.run(args).fails(4);
        assert!(printed.contains("nothing") && printed.contains("sabir topic list"), "{printed}");
    }
    broker.run(&["topic", "delete", "nothing", "--if-exists"]).ok();
    broker.run(&["topic", "create", "orders", "-p", "2"]).ok();
    assert!(broker.run(&["topic", "create", "orders"]).fails(5).contains("orders"));
    broker.run(&["topic", "create", "orders", "--if-not-exists"]).ok();
    for args in [
        &["message", "publish", "orders", "x", "-p", "2"][..],
        &["message", "read", "orders", "-p", "2"],
        &["message", "read", "orders", "-p", "1", "--offset", "7"],
    ] {
        broker.run(args).fails(4);
    }
    let delete = ["topic", "delete-records", "orders", "--before", "4711"];
    assert!(broker.run(&delete).fails(4).contains("Name the partition"));
    let printed = broker.run(&[&delete[..], &["--partition", "1"]].concat()).fails(4);
    assert!(!printed.contains("Name the partition") && printed.contains("--before latest"), "{printed}");
    broker.run(&["topic", "create", "a/b"]).fails(6);
    broker.run(&["topic", "create", "odd", "-c", "no.such.config=1"]).fails(6);
}

#[test]
fn a_place_that_is_not_there_is_told_whatever_is_spoken() {
    let data = tempfile::tempdir().unwrap();
    let broker = Broker::start(data.path(), &["probe.listen=127.0.0.1:0"]);
    broker.run(&["topic", "create", "t", "-p", "3"]).ok();
    broker.run_with(&["message", "publish", "t", "-p", "2"], b"a\nb\nc\n").ok();
    broker.run(&["topic", "delete-records", "t", "--before", "2", "-p", "2"]).ok();
    for protocol in ["kafka", "probe"] {
        for (place, says) in [
            (&["--offset", "5"][..], "no partition of t has offset 5"),
            (&["--offset", "5", "-p", "2"], "t-2 has no offset 5; it has 2 up to 3"),
            (&["--offset", "0", "-p", "2"], "t-2 has no offset 0"),
            (&["-p", "9"], "has no partition 9"),
        ] {
            let said = broker.run_as(protocol, &[&["message", "read", "t"], place].concat());
            assert_eq!(said.out, "");
            let printed = said.fails(4);
            assert!(
                printed.contains(says) && printed.contains("sabir topic describe t"),
                "{protocol}: {printed}"
            );
        }
        broker.run_as(protocol, &["message", "publish", "t", "x", "-p", "9"]).fails(4);
        for (offset, shown) in [("0", "c\n"), ("3", "")] {
            let read = ["message", "read", "t", "--offset", offset, "-o", "value"];
            assert_eq!(broker.run_as(protocol, &read).ok(), shown, "{protocol} {offset}");
        }
    }
}

#[test]
fn a_queue_of_amqp_is_no_topic() {
    let data = tempfile::tempdir().unwrap();
    let broker = Broker::start(data.path(), &["amqp.listen=127.0.0.1:0"]);
    let amqp = |args: &[&str]| broker.run_as("amqp", args);
    for args in [
        &["message", "publish", "absent", "x"][..],
        &["message", "read", "absent"],
        &["bench", "consume", "--topic", "absent"],
    ] {
        let printed = amqp(args).fails(4);
        assert!(printed.contains("queue.declare") && !printed.contains("topic create"), "{printed}");
    }
    let printed = amqp(&["message", "publish", "absent", "x", "--acks", "1"]).fails(2);
    assert!(printed.contains("It has none."), "{printed}");
    let load = |verb| amqp(&["bench", verb, "--topic", "q", "-n", "10", "-q"]);
    load("produce").ok();
    assert!(load("e2e").fails(6).contains("queue q has 10 messages"));
    let said = amqp(&["message", "read", "q", "-o", "json"]).ok();
    assert!(said.lines().count() == 10 && said.contains(r#""timestamp_ms":null"#), "{said}");
    assert!(amqp(&["message", "tail", "q"]).fails(6).contains("--follow"));
    load("consume").ok();
}

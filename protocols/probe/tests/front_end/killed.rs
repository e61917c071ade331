//! What was answered is there after the node was killed, and again after an end in order, which leaves a checkpoint.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::node::{Lines, Node, SHARDS};

/// What the node in a process of its own is told: where its data is, and how many data shards it has.
const DATA: &str = "PROBE_TEST_DATA";
const DATA_SHARDS: &str = "PROBE_TEST_SHARDS";
/// What it says of itself.
const LISTENS: &str = "listens at ";

/// Serves in a process that the test below started, until that kills it or is gone itself. Elsewhere there is nothing to serve.
#[test]
fn a_node_in_a_process_of_its_own() {
    let Some(data) = std::env::var_os(DATA) else { return };
    let shards = std::env::var(DATA_SHARDS).unwrap().parse().unwrap();
    let node = Node::start(Path::new(&data), shards);
    println!("{LISTENS}{}", node.addresses[0]);
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
}

/// Such a process; it ends with this value.
pub struct OtherProcess {
    child: Child,
    pub address: SocketAddr,
}

impl Drop for OtherProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl OtherProcess {
    pub fn start(data: &Path, shards: u32) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "killed::a_node_in_a_process_of_its_own", "--nocapture"])
            .env(DATA, data)
            .env(DATA_SHARDS, shards.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        let address = lines.filter_map(|line| Some(line.split_once(LISTENS)?.1.parse().unwrap())).next();
        Self { child, address: address.unwrap() }
    }

    pub fn kill(mut self) {
        self.child.kill().unwrap();
        assert!(!self.child.wait().unwrap().success());
    }
}

const NAMES: [&str; 4] = ["a", "b", "c", "d"];

fn write(client: &mut Lines) {
    for name in NAMES {
        for (request, answer) in [
            (format!("SET {name} 2"), "NIL"),
            (format!("ADD {name} 3"), "OK 5"),
            (format!("PUT {name} value 0"), "OK"),
            (format!("PUT {name} value 1"), "OK"),
            (format!("PUT {name} value 2"), "OK"),
            (format!("QUEUE t-{name}"), "OK"),
            (format!("PUBLISH t-{name} 0 one"), "OK 0"),
            (format!("PUBLISH t-{name} 0 two"), "OK 1"),
            (format!("LEASE t-{name} 600000"), "OK 1 0 one"),
            (format!("LEASE t-{name} 600000"), "OK 2 1 two"),
            (format!("RETURN t-{name} 2"), "OK"),
            (format!("QUEUE w-{name}"), "OK"),
            (format!("PUBLISH w-{name} 0 waits"), "OK 0"),
            (format!("PUBLISH w-{name} 0 waits long"), "OK 1"),
            (format!("LEASE w-{name} 600000"), "OK 1 0 waits"),
            (format!("LEASE w-{name} 600000"), "OK 2 1 waits long"),
            (format!("DELAY w-{name} 2 600000"), "OK"),
            (format!("DELAY w-{name} 1 100"), "OK"),
        ] {
            assert_eq!(client.ask(&request), answer, "{request}");
        }
    }
}

/// Finds all as it was left, and leaves it a step further.
fn look(client: &mut Lines, run: usize) {
    for name in NAMES {
        assert_eq!(client.ask(&format!("GET {name}")), format!("OK {}", 5 + run));
        assert_eq!(client.ask(&format!("ADD {name} 1")), format!("OK {}", 6 + run));
        assert_eq!(client.ask(&format!("TAKE {name} 0")), format!("OK value {run}"));
        // Leases end with the run that they were given in; one message is leased still then, the other was returned.
        let (one, two) = (3 + 2 * run, 4 + 2 * run);
        assert_eq!(client.ask(&format!("LEASE t-{name} 600000")), format!("OK {one} 0 one"));
        assert_eq!(client.ask(&format!("LEASE t-{name} 600000")), format!("OK {two} 1 two"));
        assert_eq!(client.ask(&format!("LEASE t-{name} 600000")), "NIL");
        assert_eq!(client.ask(&format!("RETURN t-{name} {two}")), "OK");
        // What was given back until later comes then, and not before.
        let lease = 3 + run;
        assert_eq!(client.leased(&format!("w-{name}")).0, format!("OK {lease} 0 waits"));
        assert_eq!(client.ask(&format!("LEASE w-{name} 600000")), "NIL");
        assert_eq!(client.ask(&format!("DELAY w-{name} {lease} 100")), "OK");
    }
}

#[test]
fn what_was_answered_is_there_after_a_kill_and_after_a_checkpoint() {
    for shards in SHARDS {
        let data = tempfile::tempdir().unwrap();
        let node = OtherProcess::start(data.path(), shards);
        write(&mut Lines::connect(node.address));
        node.kill();
        let node = OtherProcess::start(data.path(), shards);
        look(&mut Lines::connect(node.address), 0);
        node.kill();
        for run in 1..3 {
            let node = Node::start(data.path(), shards);
            look(&mut node.connect(), run);
            node.stop();
        }
    }
}

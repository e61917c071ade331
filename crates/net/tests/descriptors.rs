//! A process without a descriptor left. The limit is the process's: nothing else is tested in this one.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::time::{ClockId, clock_gettime};
use sabir_base::testing::{keep_log, logged};
use sabir_net::{Connection, Frontend, ListenOptions, Listener, LocalBoxFuture, Net, NetOptions};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

struct Echo;

impl Frontend for Echo {
    fn name(&self) -> &'static str {
        "echo"
    }

    fn serve(self: Arc<Self>, mut connection: Connection) -> LocalBoxFuture {
        Box::pin(async move {
            let mut byte = [0; 1];
            while connection.stream.read_exact(&mut byte).await.is_ok() {
                drop(connection.stream.write_all(&byte).await);
            }
        })
    }
}

fn serve() -> (Net, SocketAddr) {
    let net = Net::start(&NetOptions { io_threads: 1, ..NetOptions::default() }, Vec::new()).unwrap();
    let addresses = vec!["127.0.0.1:0".parse().unwrap()];
    let options = ListenOptions { section: "echo", addresses, anonymous: false, max_connections: 1000 };
    let listener = Listener::bind(&options).unwrap();
    let address = listener.addresses()[0];
    net.serve(listener, Arc::new(Echo));
    (net, address)
}

fn echo(stream: &mut TcpStream) {
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.write_all(b"x").unwrap();
    stream.read_exact(&mut [0; 1]).unwrap();
}

/// What all threads of this process have worked.
fn worked() -> Duration {
    clock_gettime(ClockId::ProcessCPUTime).try_into().unwrap()
}

#[test]
fn who_finds_no_descriptor_left_is_accepted_later_and_the_listener_does_not_spin() {
    keep_log();
    let (net, address) = serve();
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(200), ..limit }).unwrap();
    let mut there = TcpStream::connect(address).unwrap();
    echo(&mut there);
    let mut others: Vec<File> = std::iter::from_fn(|| File::open("/dev/null").ok()).collect();
    // For the client's own end.
    others.pop();
    let mut newcomer = TcpStream::connect(address).unwrap();
    let before = worked();
    for _ in 0..10 {
        std::thread::sleep(Duration::from_millis(100));
        echo(&mut there);
    }
    let worked = worked() - before;
    assert!(worked < Duration::from_millis(300), "{worked:?} within a second");
    assert_eq!(net.stats()[0].accepted, 1);
    let lines =
        logged(&["ERROR", "cannot accept a connection; raise the open-file limit", "listener=\"echo\""]);
    assert_eq!(lines.len(), 1, "{lines:?}");
    drop(others);
    echo(&mut newcomer);
    assert_eq!(net.stats()[0].accepted, 2);
}

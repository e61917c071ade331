//! Threads, listeners and drain, with a front end that echoes.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::ThreadId;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustix::net::sockopt;
use sabir_base::testing::{keep_log, logged};
use sabir_net::{
    Claim, Connection, Frontend, ListenOptions, Listener, LocalBoxFuture, Net, NetOptions, Watched,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const PATIENCE: Duration = Duration::from_secs(30);

/// Echoes until the drain, and says goodbye then unless it is stubborn.
#[derive(Default)]
struct Echo {
    stubborn: bool,
    threads: Mutex<Vec<ThreadId>>,
}

impl Frontend for Echo {
    fn name(&self) -> &'static str {
        "echo"
    }

    fn serve(self: Arc<Self>, mut connection: Connection) -> LocalBoxFuture {
        Box::pin(async move {
            self.threads.lock().push(std::thread::current().id());
            let mut buffer = [0; 64];
            loop {
                tokio::select! {
                    () = connection.closing.cancelled(), if !self.stubborn => {
                        let _ = connection.stream.write_all(b"bye").await;
                        return;
                    }
                    read = connection.stream.read(&mut buffer) => match read {
                        Ok(0) | Err(_) => return,
                        Ok(count) if buffer[..count] == *b"panic" => panic!("on purpose"),
                        Ok(count) => drop(connection.stream.write_all(&buffer[..count]).await),
                    },
                }
            }
        })
    }
}

fn serve(options: &NetOptions, echo: Echo, max_connections: usize) -> (Net, SocketAddr, Arc<Echo>) {
    let net = Net::start(options, Vec::new()).unwrap();
    let (address, echo) = listen(&net, echo, max_connections);
    (net, address, echo)
}

fn listen(net: &Net, echo: Echo, max_connections: usize) -> (SocketAddr, Arc<Echo>) {
    let addresses = vec!["127.0.0.1:0".parse().unwrap()];
    let options = ListenOptions { section: "echo", addresses, anonymous: false, max_connections };
    let listener = Listener::bind(&options).unwrap();
    let (address, echo) = (listener.addresses()[0], Arc::new(echo));
    net.serve(listener, echo.clone());
    (address, echo)
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

fn echo(stream: &mut TcpStream) {
    stream.write_all(b"hello").unwrap();
    let mut answer = [0; 5];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"hello");
}

fn until(what: &str, met: impl Fn() -> bool) {
    let began = Instant::now();
    while !met() {
        assert!(began.elapsed() < PATIENCE, "{what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn connections_are_dealt_evenly() {
    let options = NetOptions { io_threads: 3, ..NetOptions::default() };
    let (_net, address, front_end) = serve(&options, Echo::default(), 100);
    let mut streams: Vec<_> = (0..9).map(|_| connect(address)).collect();
    streams.iter_mut().for_each(echo);
    let threads = front_end.threads.lock();
    for thread in threads.iter() {
        assert_eq!(threads.iter().filter(|t| *t == thread).count(), 3);
    }
}

#[test]
fn limits_hold_for_a_listener_and_for_all() {
    let options = NetOptions { max_connections: 3, ..NetOptions::default() };
    let (net, small, _) = serve(&options, Echo::default(), 1);
    let (wide, _) = listen(&net, Echo::default(), 100);
    let mut first = connect(small);
    echo(&mut first);
    let refused = |address| {
        let mut buffer = [0; 1];
        // Closed at once: nothing to read, or a reset.
        assert!(matches!(connect(address).read(&mut buffer), Ok(0) | Err(_)));
    };
    refused(small);
    let mut others = [connect(wide), connect(wide)];
    others.iter_mut().for_each(echo);
    refused(wide);
    let stats = net.stats();
    assert_eq!((stats[0].open, stats[0].accepted, stats[0].refused), (1, 1, 1));
    assert_eq!((stats[1].open, stats[1].accepted, stats[1].refused), (2, 2, 1));
    drop(first);
    until("the place is free again", || net.stats()[0].open == 0);
    echo(&mut connect(small));
}

#[test]
fn a_panic_ends_its_connection_and_no_other() {
    let options = NetOptions { io_threads: 1, ..NetOptions::default() };
    let (net, address, _) = serve(&options, Echo::default(), 10);
    let mut bystander = connect(address);
    keep_log();
    for panics in 1..=3 {
        let mut stream = connect(address);
        let peer = format!("peer={}", stream.local_addr().unwrap());
        echo(&mut stream);
        stream.write_all(b"panic").unwrap();
        assert!(matches!(stream.read(&mut [0; 1]), Ok(0) | Err(_)), "it is closed");
        until("its place is free again", || net.stats()[0].open == 1);
        assert_eq!((net.stats()[0].panicked, net.stats()[0].accepted), (panics, panics + 1));
        assert_eq!(logged(&["ERROR", "connection closed: a panic while it was served", &peer]).len(), 1);
        echo(&mut bystander);
    }
    assert_eq!(net.drain(PATIENCE).left, 0);
}

#[test]
fn what_panics_while_it_is_driven_is_driven_again() {
    let (reader, writer) = std::io::pipe().unwrap();
    let driven = Arc::new(AtomicUsize::new(0));
    let counted = driven.clone();
    let drive = move || {
        counted.fetch_add(1, Ordering::SeqCst);
        panic!("on purpose");
    };
    let watched = Watched { fd: reader.into(), drive: Box::new(drive) };
    let _net = Net::start(&NetOptions::default(), vec![watched]).unwrap();
    for times in 1..=3 {
        (&writer).write_all(b"x").unwrap();
        until("it is driven", || driven.load(Ordering::SeqCst) >= times);
    }
}

/// Tells what the system was told of its connection.
struct Options;

impl Frontend for Options {
    fn name(&self) -> &'static str {
        "options"
    }

    fn serve(self: Arc<Self>, mut connection: Connection) -> LocalBoxFuture {
        Box::pin(async move {
            let stream = &connection.stream;
            let told = (
                sockopt::socket_keepalive(stream).unwrap(),
                sockopt::tcp_keepidle(stream).unwrap().as_secs(),
                sockopt::tcp_keepintvl(stream).unwrap().as_secs(),
                sockopt::tcp_keepcnt(stream).unwrap(),
            );
            connection.stream.write_all(format!("{told:?}").as_bytes()).await.unwrap();
        })
    }
}

#[test]
fn silent_clients_are_asked_whether_they_are_still_there() {
    for (keepalive, expected) in [(90, "(true, 90, 30, 3)"), (1, "(true, 1, 1, 3)"), (0, "(true, 1, 1, 3)")] {
        let options = NetOptions { keepalive: Duration::from_secs(keepalive), ..NetOptions::default() };
        let net = Net::start(&options, Vec::new()).unwrap();
        let addresses = vec!["127.0.0.1:0".parse().unwrap()];
        let options = ListenOptions { section: "options", addresses, anonymous: false, max_connections: 1 };
        let listener = Listener::bind(&options).unwrap();
        let address = listener.addresses()[0];
        net.serve(listener, Arc::new(Options));
        let mut told = String::new();
        connect(address).read_to_string(&mut told).unwrap();
        assert_eq!(told, expected);
    }
}

#[test]
fn a_drain_lets_connections_finish_and_takes_no_more() {
    let (net, address, _) = serve(&NetOptions::default(), Echo::default(), 100);
    let mut stream = connect(address);
    echo(&mut stream);
    let drained = net.drain(PATIENCE);
    assert_eq!((drained.open, drained.left), (1, 0));
    let mut rest = String::new();
    stream.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "bye");
    until("the listener is closed", || TcpStream::connect(address).is_err());
}

#[test]
fn who_does_not_finish_is_cut_off_in_time() {
    let (net, address, _) = serve(&NetOptions::default(), Echo { stubborn: true, ..Echo::default() }, 100);
    let mut stream = connect(address);
    echo(&mut stream);
    let began = Instant::now();
    let drained = net.drain(Duration::from_millis(200));
    assert_eq!((drained.open, drained.left), (1, 1));
    assert!(began.elapsed() >= Duration::from_millis(200));
    echo(&mut stream);
    drop(net);
    assert!(matches!(stream.read(&mut [0; 1]), Ok(0) | Err(_)));
    assert!(began.elapsed() < PATIENCE);
}

#[test]
fn what_becomes_readable_is_driven_by_an_io_thread() {
    let (reader, writer) = std::os::unix::net::UnixStream::pair().unwrap();
    reader.set_nonblocking(true).unwrap();
    let driven = Arc::new(AtomicUsize::new(0));
    let count = driven.clone();
    let watched = Watched {
        fd: reader.into(),
        drive: Box::new(move || {
            count.fetch_add(1, Ordering::SeqCst);
        }),
    };
    let _net = Net::start(&NetOptions::default(), vec![watched]).unwrap();
    let mut seen = 0;
    for _ in 0..3 {
        // Nothing is read: each write is an edge of its own.
        (&writer).write_all(b"x").unwrap();
        until("it is driven", || driven.load(Ordering::SeqCst) > seen);
        seen = driven.load(Ordering::SeqCst);
    }
}

/// Claims what begins with its letter, once it has seen two bytes, and answers with its name.
struct Lettered(u8, &'static str);

impl Frontend for Lettered {
    fn name(&self) -> &'static str {
        self.1
    }

    fn claims(&self, first: &[u8]) -> Claim {
        match first {
            [letter, ..] if *letter != self.0 => Claim::Foreign,
            [_, _, ..] => Claim::Mine,
            _ => Claim::Unsure,
        }
    }

    fn serve(self: Arc<Self>, mut connection: Connection) -> LocalBoxFuture {
        Box::pin(async move {
            let said = [self.1.as_bytes(), b" ", &connection.prefix].concat();
            let _ = connection.stream.write_all(&said).await;
        })
    }
}

#[test]
fn the_first_bytes_say_whose_a_connection_is() {
    // A client that says too little to be told by is kept for this long; all else is told before.
    let cases = [
        (PATIENCE, "ax", "first ax"),
        (PATIENCE, "bx", "second bx"),
        (PATIENCE, "c", "first c"),
        (Duration::from_millis(300), "", "first "),
        (Duration::from_secs(2), "b", "first b"),
    ];
    for (handshake_timeout, said, answer) in cases {
        let net = Net::start(&NetOptions { handshake_timeout, ..NetOptions::default() }, Vec::new()).unwrap();
        let addresses = vec!["127.0.0.1:0".parse().unwrap()];
        let options = ListenOptions { section: "shared", addresses, anonymous: false, max_connections: 10 };
        let listener = Listener::bind(&options).unwrap();
        let address = listener.addresses()[0];
        net.serve_each(listener, vec![Arc::new(Lettered(b'a', "first")), Arc::new(Lettered(b'b', "second"))]);
        let mut stream = connect(address);
        for byte in said.bytes() {
            stream.write_all(&[byte]).unwrap();
            std::thread::sleep(Duration::from_millis(5));
        }
        let mut heard = String::new();
        stream.read_to_string(&mut heard).unwrap();
        assert_eq!(heard, answer);
    }
}

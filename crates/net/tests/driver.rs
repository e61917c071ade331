//! The driver of connections, with sessions that only it knows.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::task::Context;
use std::time::Duration;

use sabir_net::{
    Appetite, Connection, ConnectionCounters, Ending, Frontend, Io, Limits, ListenOptions, Listener,
    LocalBoxFuture, Net, NetOptions, Patience, Session, drive,
};

const PATIENCE: Duration = Duration::from_secs(20);

/// Serves sessions of one kind, made anew for each connection.
struct Probe<S> {
    session: Box<dyn Fn() -> S + Send + Sync>,
    counters: Arc<ConnectionCounters>,
}

impl<S: Session + 'static> Frontend for Probe<S> {
    fn name(&self) -> &'static str {
        "probe"
    }

    fn serve(self: Arc<Self>, connection: Connection) -> LocalBoxFuture {
        let session = (self.session)();
        Box::pin(drive(connection, session, self.counters.clone()))
    }
}

fn serve<S: Session + 'static>(
    options: NetOptions,
    session: impl Fn() -> S + Send + Sync + 'static,
) -> (Net, SocketAddr) {
    let net = Net::start(&NetOptions { io_threads: 1, ..options }, Vec::new()).unwrap();
    let addresses = vec!["127.0.0.1:0".parse().unwrap()];
    let listener =
        Listener::bind(&ListenOptions { section: "probe", addresses, anonymous: false, max_connections: 10 })
            .unwrap();
    let address = listener.addresses()[0];
    let counters = Arc::new(ConnectionCounters::new("probe", &[]));
    net.serve(listener, Arc::new(Probe { session: Box::new(session), counters }));
    (net, address)
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Echoes lines, and wants a turn that it has had already.
struct Overdue {
    turns: Arc<AtomicUsize>,
    until: tokio::time::Instant,
}

impl Session for Overdue {
    fn advance(&mut self, io: &mut Io, _: &mut Context<'_>) -> Result<bool, Ending> {
        self.turns.fetch_add(1, SeqCst);
        let bytes = io.input.bytes.split().freeze();
        let moved = !bytes.is_empty();
        io.output.push(bytes);
        Ok(moved)
    }

    fn appetite(&self, _: &Io) -> Appetite {
        Appetite::All
    }

    fn is_busy(&self) -> bool {
        true
    }

    fn patience(&self, _: &Limits) -> Patience {
        Patience { hello: None, idle: None, silence: None }
    }

    fn until(&self) -> Option<tokio::time::Instant> {
        Some(self.until)
    }

    fn client(&self) -> &str {
        "overdue"
    }
}

#[test]
fn a_session_gets_the_turn_it_asks_for_once_and_the_thread_does_not_spin() {
    let turns = Arc::new(AtomicUsize::new(0));
    let counted = turns.clone();
    let session = move || {
        let until = tokio::time::Instant::now() + Duration::from_millis(200);
        Overdue { turns: counted.clone(), until }
    };
    let (_net, address) = serve(NetOptions::default(), session);
    let mut stream = connect(address);
    stream.write_all(b"a").unwrap();
    stream.read_exact(&mut [0]).unwrap();
    let before = turns.load(SeqCst);
    std::thread::sleep(Duration::from_millis(600));
    let turned = turns.load(SeqCst) - before;
    assert!((1..=5).contains(&turned), "{turned} turns while nothing happened");
    stream.write_all(b"b").unwrap();
    stream.read_exact(&mut [0]).unwrap();
}

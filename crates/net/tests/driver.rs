//! The driver of connections, with sessions that only it knows.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::convert::Infallible;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::task::Context;
use std::time::{Duration, Instant};

use bytes::Bytes;
use sabir_base::wake::WakeBatch;

use sabir_net::{
    Appetite, Closing, Connection, ConnectionCounters, Ending, Frontend, Io, Limits, ListenOptions, Listener,
    LocalBoxFuture, Net, NetOptions, Patience, Seat, Session, Standing, drive,
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
    type Push = Infallible;

    fn pushed(&mut self, push: Infallible, _: &mut Io) -> Result<(), Ending> {
        match push {}
    }

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

    fn standing(&self) -> Standing {
        Standing::Working
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

/// Sends its client what is pushed, and takes its leave as it is told.
struct Pushing {
    seats: Sender<Seat<&'static str>>,
    closing: fn() -> Closing,
    closed: bool,
}

impl Session for Pushing {
    type Push = &'static str;

    fn opened(&mut self, seat: Seat<&'static str>) {
        self.seats.send(seat).unwrap();
    }

    fn pushed(&mut self, push: &'static str, io: &mut Io) -> Result<(), Ending> {
        io.output.push(Bytes::from_static(push.as_bytes()));
        Ok(())
    }

    fn advance(&mut self, io: &mut Io, _: &mut Context<'_>) -> Result<bool, Ending> {
        if io.input.bytes.is_empty() {
            io.need(1)?;
            return Ok(false);
        }
        let frame = io.take_frame(1)?;
        match &frame[..] {
            b"x" if self.closed => return Err(Ending::Gone),
            _ if self.closed => io.output.push(Bytes::from_static(b"late ")),
            _ => io.output.push(frame),
        }
        Ok(true)
    }

    fn appetite(&self, _: &Io) -> Appetite {
        Appetite::All
    }

    fn standing(&self) -> Standing {
        Standing::Waiting
    }

    fn patience(&self, limits: &Limits) -> Patience {
        Patience { hello: None, idle: None, silence: Some(limits.idle_timeout) }
    }

    fn close(&mut self, why: &Ending, io: &mut Io) -> Closing {
        assert!(!self.closed, "it takes its leave once");
        self.closed = true;
        io.output.push(Bytes::from_static(if matches!(why, Ending::Drained) {
            b"drained "
        } else {
            b"bye "
        }));
        (self.closing)()
    }

    fn client(&self) -> &str {
        "pushing"
    }
}

fn pushing(silence_ms: u64, closing: fn() -> Closing) -> (Net, TcpStream, Receiver<Seat<&'static str>>) {
    let (seats, taken) = channel();
    let idle_timeout = Duration::from_millis(silence_ms);
    let session = move || Pushing { seats: seats.clone(), closing, closed: false };
    let (net, address) = serve(NetOptions { idle_timeout, ..NetOptions::default() }, session);
    (net, connect(address), taken)
}

fn rest(mut stream: &TcpStream) -> String {
    let mut rest = String::new();
    stream.read_to_string(&mut rest).unwrap();
    rest
}

#[test]
fn what_a_client_does_not_read_stays_where_it_is_counted() {
    const MOST: usize = 8;
    let text: &'static str = "x".repeat(64 << 10).leak();
    let (_net, _stream, seats) = pushing(60_000, || Closing::Now);
    let seat = seats.recv_timeout(PATIENCE).unwrap();
    let mut pushed = 0;
    for _ in 0..1000 {
        if seat.waiting() < MOST {
            let mut wakes = WakeBatch::default();
            seat.push(text, &mut wakes).unwrap();
            wakes.deliver();
            pushed += 1;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    // As much as the system keeps between two sockets, and what the output takes.
    assert!(pushed < 500, "{pushed}");
    assert_eq!(seat.waiting(), MOST);
}

#[test]
fn what_is_pushed_comes_in_order_and_nothing_is_after_the_end() {
    let (_net, mut stream, seats) = pushing(2000, || Closing::Now);
    let seat = seats.recv_timeout(PATIENCE).unwrap();
    let mut wakes = WakeBatch::default();
    for word in ["one ", "two ", "three "] {
        seat.push(word, &mut wakes).unwrap();
    }
    wakes.deliver();
    let mut said = [0; 14];
    stream.read_exact(&mut said).unwrap();
    assert_eq!(&said, b"one two three ");
    assert_eq!(rest(&stream), "");
    let began = Instant::now();
    while !seat.has_ended() {
        assert!(began.elapsed() < PATIENCE);
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(seat.push("four", &mut wakes), Err("four"));
}

#[test]
fn a_session_that_takes_its_leave_is_read_on_until_it_is_answered() {
    let (_net, mut stream, _seats) = pushing(300, || Closing::Until(tokio::time::Instant::now() + PATIENCE));
    let mut said = [0; 4];
    stream.read_exact(&mut said).unwrap();
    assert_eq!(&said, b"bye ");
    stream.write_all(b"y").unwrap();
    let mut said = [0; 5];
    stream.read_exact(&mut said).unwrap();
    assert_eq!(&said, b"late ");
    stream.write_all(b"x").unwrap();
    assert_eq!(rest(&stream), "");
}

#[test]
fn a_leave_that_is_not_answered_ends_in_time() {
    let until = || Closing::Until(tokio::time::Instant::now() + Duration::from_millis(200));
    let (_net, stream, _seats) = pushing(300, until);
    let began = Instant::now();
    assert_eq!(rest(&stream), "bye ");
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    let (_net, stream, _seats) = pushing(300, || Closing::Flushed);
    assert_eq!(rest(&stream), "bye ");
}

#[test]
fn who_waits_is_told_of_the_drain_and_may_answer() {
    let (net, mut stream, seats) = pushing(60_000, || Closing::Until(tokio::time::Instant::now() + PATIENCE));
    seats.recv_timeout(PATIENCE).unwrap();
    let draining = std::thread::spawn(move || net.drain(PATIENCE));
    let mut said = [0; 8];
    stream.read_exact(&mut said).unwrap();
    assert_eq!(&said, b"drained ");
    stream.write_all(b"x").unwrap();
    assert_eq!(rest(&stream), "");
    assert_eq!(draining.join().unwrap().left, 0);
}

/// Answers each frame, once it is there whole, with how large it is.
struct Frames {
    bytes: usize,
}

impl Session for Frames {
    type Push = Infallible;

    fn pushed(&mut self, push: Infallible, _: &mut Io) -> Result<(), Ending> {
        match push {}
    }

    fn advance(&mut self, io: &mut Io, _: &mut Context<'_>) -> Result<bool, Ending> {
        if io.input.bytes.len() < self.bytes {
            io.need(self.bytes)?;
            return Ok(false);
        }
        let frame = io.take_frame(self.bytes)?;
        io.output.push(Bytes::from(frame.len().to_string()));
        Ok(true)
    }

    fn appetite(&self, _: &Io) -> Appetite {
        Appetite::All
    }

    fn standing(&self) -> Standing {
        Standing::Idle
    }

    fn patience(&self, limits: &Limits) -> Patience {
        Patience::of(limits, true)
    }

    fn client(&self) -> &str {
        "frames"
    }
}

#[test]
fn frames_that_do_not_all_fit_into_memory_come_one_after_another() {
    const BYTES: usize = 5 << 20;
    let options = NetOptions { frame_memory: 16 << 20, ..NetOptions::default() };
    let (net, address) = serve(options, || Frames { bytes: BYTES });
    let streams: Vec<_> = (0..8).map(|_| connect(address)).collect();
    // Of each so much has arrived that none could go on if all of them kept that while they wait.
    let frame = vec![7; BYTES];
    for mut stream in &streams {
        stream.write_all(&frame[..600_000]).unwrap();
    }
    std::thread::scope(|scope| {
        for mut stream in &streams {
            let frame = &frame;
            scope.spawn(move || {
                stream.set_write_timeout(Some(PATIENCE)).unwrap();
                stream.write_all(&frame[600_000..]).unwrap();
                let mut answer = [0; 7];
                stream.read_exact(&mut answer).unwrap();
                assert_eq!(&answer, BYTES.to_string().as_bytes());
            });
        }
    });
    drop(streams);
    net.drain(PATIENCE);
}

//! The driver of connections, with sessions that only it knows.
#![allow(clippy::unwrap_used, reason = "tests")]

mod parting;

use std::convert::Infallible;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::task::Context;
use std::time::{Duration, Instant};

use bytes::Bytes;
use sabir_base::testing::best_of_three;
use sabir_base::wake::WakeBatch;

use sabir_net::{
    Appetite, Closing, Connection, ConnectionCounters, DropReason, Ending, Frontend, Io, Limits,
    ListenOptions, Listener, LocalBoxFuture, Net, NetOptions, Patience, Seat, Session, Standing, drive,
};

const PATIENCE: Duration = Duration::from_secs(30);

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
    let listener = Listener::bind(&ListenOptions {
        section: "probe",
        addresses,
        anonymous: false,
        max_connections: 1000,
    })
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

fn until(what: &str, holds: impl Fn() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < PATIENCE, "{what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Echoes what comes, and wants a turn soon after, which it goes on to want once it has had it.
struct Overdue {
    turns: Arc<AtomicUsize>,
    late: Arc<AtomicUsize>,
    until: Option<tokio::time::Instant>,
}

impl Session for Overdue {
    type Push = Infallible;

    fn pushed(&mut self, push: Infallible, _: &mut Io) -> Result<(), Ending> {
        match push {}
    }

    fn advance(&mut self, io: &mut Io, _: &mut Context<'_>) -> Result<bool, Ending> {
        self.turns.fetch_add(1, SeqCst);
        if self.until.is_some_and(|until| tokio::time::Instant::now() >= until) {
            self.late.fetch_add(1, SeqCst);
        }
        let bytes = io.input.bytes.split().freeze();
        let moved = !bytes.is_empty();
        if moved && self.until.is_none() {
            self.until = Some(tokio::time::Instant::now() + Duration::from_millis(200));
        }
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
        self.until
    }

    fn client(&self) -> &str {
        "overdue"
    }
}

#[test]
fn a_session_gets_the_turn_it_asks_for_once_and_the_thread_does_not_spin() {
    let (turns, late) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let counted = (turns.clone(), late.clone());
    let session = move || Overdue { turns: counted.0.clone(), late: counted.1.clone(), until: None };
    let (_net, address) = serve(NetOptions::default(), session);
    let mut stream = connect(address);
    stream.write_all(b"a").unwrap();
    stream.read_exact(&mut [0]).unwrap();
    until("it has the turn that it asked for", || late.load(SeqCst) > 0);
    std::thread::sleep(Duration::from_millis(400));
    let turned = turns.load(SeqCst);
    assert!(turned <= 8, "{turned} turns for one byte");
    stream.write_all(b"b").unwrap();
    stream.read_exact(&mut [0]).unwrap();
}

/// Echoes what comes; of a client that sends `g` it has more to do than a turn takes, for ever.
struct Greedy {
    turns: Arc<AtomicUsize>,
    greedy: bool,
}

impl Session for Greedy {
    type Push = Infallible;

    fn pushed(&mut self, push: Infallible, _: &mut Io) -> Result<(), Ending> {
        match push {}
    }

    fn advance(&mut self, io: &mut Io, _: &mut Context<'_>) -> Result<bool, Ending> {
        let bytes = io.input.bytes.split().freeze();
        self.greedy |= bytes.starts_with(b"g");
        let moved = self.greedy || !bytes.is_empty();
        io.output.push(bytes);
        if self.greedy {
            self.turns.fetch_add(1, SeqCst);
            std::thread::sleep(Duration::from_millis(2));
        }
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

    fn client(&self) -> &str {
        "greedy"
    }
}

#[test]
fn what_others_ask_does_not_wait_for_all_who_have_more_to_do() {
    let turns = Arc::new(AtomicUsize::new(0));
    let counted = turns.clone();
    let (_net, address) =
        serve(NetOptions::default(), move || Greedy { turns: counted.clone(), greedy: false });
    let mut other = connect(address);
    let mut echo = || {
        other.write_all(b"a").unwrap();
        other.read_exact(&mut [0]).unwrap();
    };
    echo();
    let greedy: Vec<TcpStream> = (0..100)
        .map(|_| {
            let mut stream = connect(address);
            stream.write_all(b"g").unwrap();
            stream.read_exact(&mut [0]).unwrap();
            stream
        })
        .collect();
    let mut turned: Vec<_> = (0..21)
        .map(|_| {
            let before = turns.load(SeqCst);
            echo();
            turns.load(SeqCst) - before
        })
        .collect();
    turned.sort_unstable();
    // A step gives them one turn, or as many as fit into twenty milliseconds where the thread was late, and they have more while this thread
    // is late; all of them have theirs in each if it waits for all.
    assert!(turned[10] < greedy.len() / 2, "{turned:?} turns of {} others", greedy.len());
}

/// Echoes what comes, and takes a millisecond for what is pushed. Stays when its client sends no more.
struct Told {
    seats: Sender<Seat<()>>,
    pushed: Arc<AtomicUsize>,
}

impl Session for Told {
    type Push = ();

    fn opened(&mut self, seat: Seat<()>) {
        self.seats.send(seat).unwrap();
    }

    fn pushed(&mut self, (): (), _: &mut Io) -> Result<(), Ending> {
        std::thread::sleep(Duration::from_millis(1));
        self.pushed.fetch_add(1, SeqCst);
        Ok(())
    }

    fn advance(&mut self, io: &mut Io, _: &mut Context<'_>) -> Result<bool, Ending> {
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

    fn client(&self) -> &str {
        "told"
    }
}

#[test]
fn what_others_ask_does_not_wait_for_all_who_are_pushed_something() {
    goes_before_all_who_are_told(|_| ());
}

#[test]
fn nor_does_it_where_these_have_ended_their_input() {
    goes_before_all_who_are_told(|told| told.shutdown(Shutdown::Write).unwrap());
}

fn goes_before_all_who_are_told(each: impl Fn(&TcpStream)) {
    const ALL: usize = 300;
    let (pushed, (seats, taken)) = (Arc::new(AtomicUsize::new(0)), channel());
    let counted = pushed.clone();
    let session = move || Told { seats: seats.clone(), pushed: counted.clone() };
    let (_net, address) = serve(NetOptions::default(), session);
    let mut other = connect(address);
    let mut echo = || {
        other.write_all(b"a").unwrap();
        other.read_exact(&mut [0]).unwrap();
    };
    echo();
    taken.recv().unwrap();
    let told: Vec<TcpStream> = (0..ALL).map(|_| connect(address)).collect();
    let seats: Vec<_> = told.iter().map(|_| taken.recv_timeout(PATIENCE).unwrap()).collect();
    told.iter().for_each(each);
    let mut before_it: Vec<_> = (1..=5)
        .map(|round| {
            let mut wakes = WakeBatch::default();
            seats.iter().for_each(|seat| seat.push((), &mut wakes).unwrap());
            wakes.deliver();
            let before = pushed.load(SeqCst);
            echo();
            let turns = pushed.load(SeqCst) - before;
            until("all are told", || pushed.load(SeqCst) == round * ALL);
            turns
        })
        .collect();
    before_it.sort_unstable();
    assert!(before_it[2] < ALL / 2, "{before_it:?} turns of {ALL} others");
}

/// Echoes what comes; for an `l` that takes 800 microseconds.
struct Long(Arc<AtomicUsize>);

impl Session for Long {
    type Push = Infallible;

    fn pushed(&mut self, push: Infallible, _: &mut Io) -> Result<(), Ending> {
        match push {}
    }

    fn advance(&mut self, io: &mut Io, _: &mut Context<'_>) -> Result<bool, Ending> {
        let bytes = io.input.bytes.split().freeze();
        let moved = !bytes.is_empty();
        if bytes.starts_with(b"l") {
            std::thread::sleep(Duration::from_micros(800));
            self.0.fetch_add(1, SeqCst);
        }
        io.output.push(bytes);
        Ok(moved)
    }

    fn appetite(&self, _: &Io) -> Appetite {
        Appetite::All
    }

    fn standing(&self) -> Standing {
        Standing::Waiting
    }

    fn patience(&self, _: &Limits) -> Patience {
        Patience { hello: None, idle: None, silence: None }
    }

    fn client(&self) -> &str {
        "long"
    }
}

#[test]
fn what_others_ask_does_not_wait_for_all_whose_turns_are_long() {
    const ALL: usize = 200;
    let turns = Arc::new(AtomicUsize::new(0));
    let counted = turns.clone();
    let (_net, address) = serve(NetOptions::default(), move || Long(counted.clone()));
    let mut other = connect(address);
    let mut echo = || {
        other.write_all(b"a").unwrap();
        other.read_exact(&mut [0]).unwrap();
    };
    echo();
    let mut long: Vec<TcpStream> = (0..ALL).map(|_| connect(address)).collect();
    let mut before_it: Vec<_> = (1..=9)
        .map(|_| {
            long.iter_mut().for_each(|long| long.write_all(b"l").unwrap());
            let before = turns.load(SeqCst);
            echo();
            let turns = turns.load(SeqCst) - before;
            long.iter_mut().for_each(|long| long.read_exact(&mut [0]).unwrap());
            turns
        })
        .collect();
    // What their turns take is not known in the first rounds.
    before_it.sort_unstable();
    assert!(before_it[3] < ALL / 2, "{before_it:?} turns of {ALL} others");
}

/// Echoes what comes, once it is not kept from it until its turn is over.
struct KeptOnce(bool);

impl Session for KeptOnce {
    type Push = Infallible;

    fn pushed(&mut self, push: Infallible, _: &mut Io) -> Result<(), Ending> {
        match push {}
    }

    fn advance(&mut self, io: &mut Io, _: &mut Context<'_>) -> Result<bool, Ending> {
        if !io.input.bytes.is_empty() && !std::mem::replace(&mut self.0, true) {
            // The machine gives the thread's processor to another one.
            std::thread::sleep(Duration::from_millis(50));
        }
        if io.is_turn_over(tokio::time::Instant::now()) {
            return Ok(false);
        }
        let bytes = io.input.bytes.split().freeze();
        let moved = !bytes.is_empty();
        io.output.push(bytes);
        Ok(moved)
    }

    fn appetite(&self, _: &Io) -> Appetite {
        Appetite::All
    }

    fn standing(&self) -> Standing {
        Standing::Waiting
    }

    fn patience(&self, _: &Limits) -> Patience {
        Patience { hello: None, idle: None, silence: None }
    }

    fn client(&self) -> &str {
        "kept"
    }
}

#[test]
fn what_a_session_leaves_since_its_turn_is_over_has_the_next_one() {
    let (_net, address) = serve(NetOptions::default(), || KeptOnce(false));
    let mut stream = connect(address);
    let began = Instant::now();
    stream.write_all(b"a").unwrap();
    stream.read_exact(&mut [0]).unwrap();
    assert!(began.elapsed() < PATIENCE / 2, "nothing else woke it: {:?}", began.elapsed());
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
    let (mut pushed, mut last) = (0, Instant::now());
    // Until none was taken for so long.
    while last.elapsed() < Duration::from_secs(1) {
        if seat.waiting() < MOST {
            let mut wakes = WakeBatch::default();
            seat.push(text, &mut wakes).unwrap();
            wakes.deliver();
            pushed += 1;
            last = Instant::now();
        }
        // As much as the system keeps between two sockets, and what the output takes.
        assert!(pushed < 500, "{pushed}");
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(seat.waiting(), MOST);
}

#[test]
fn what_is_pushed_comes_in_order_and_nothing_is_after_the_end() {
    let (_net, mut stream, seats) = pushing(3000, || Closing::Now);
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
    until("the session has ended", || seat.has_ended());
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
fn who_is_still_writing_reads_what_it_was_told_last() {
    let until = || Closing::Until(tokio::time::Instant::now() + PATIENCE);
    let cases: [(fn() -> Closing, bool); 2] = [(until, true), (|| Closing::Flushed, false)];
    for (closing, talks) in cases {
        let (_net, mut stream, seats) = pushing(300, closing);
        let seat = seats.recv_timeout(PATIENCE).unwrap();
        let mut first = [0; 4];
        stream.read_exact(&mut first).unwrap();
        assert_eq!(&first, b"bye ");
        if talks {
            stream.write_all(b"y").unwrap();
            let mut answer = [0; 5];
            stream.read_exact(&mut answer).unwrap();
        }
        // The session ends with the first of it.
        for _ in 0..200 {
            stream.write_all(&[b'x'; 10_000]).unwrap();
            std::thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(rest(&stream), "", "and no reset");
        let mut wakes = WakeBatch::default();
        assert!(seat.push("too late", &mut wakes).is_err(), "the session has gone");
        stream.shutdown(Shutdown::Write).unwrap();
    }
}

#[test]
fn a_client_whose_name_is_taken_over_is_not_waited_for() {
    let talks: fn() -> Closing = || Closing::Until(tokio::time::Instant::now() + PATIENCE);
    for closing in [|| Closing::Flushed, talks] {
        // Of some clients the socket takes no more.
        for unread in [0, 200] {
            best_of_three(Duration::from_secs(2), || {
                let text: &'static str = "x".repeat(64 << 10).leak();
                let (net, stream, seats) = pushing(60_000, closing);
                let (seat, mut wakes) = (seats.recv_timeout(PATIENCE).unwrap(), WakeBatch::default());
                (0..unread).for_each(|_| seat.push(text, &mut wakes).unwrap());
                wakes.deliver();
                let open = net.registry().list()[0].id;
                let began = Instant::now();
                net.registry().get(open).unwrap().close(DropReason::TakenOver);
                until("its session is gone", || net.registry().get(open).is_none() && seat.has_ended());
                let took = began.elapsed();
                // It is there still, and has not been asked.
                drop(stream);
                took
            });
        }
    }
}

#[test]
fn who_is_taken_over_and_still_writing_reads_what_it_was_told_last() {
    let (net, mut stream, seats) = pushing(60_000, || Closing::Flushed);
    seats.recv_timeout(PATIENCE).unwrap();
    let open = net.registry().list()[0].id;
    let open = net.registry().get(open).unwrap();
    open.close(DropReason::TakenOver);
    until("its session is gone", || net.registry().list().is_empty());
    // What is not read by a connection that is closed resets it.
    stream.write_all(&[b'x'; 1000]).unwrap();
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

/// Takes frames that begin with how many bytes they have, of which a first one `w` has it wait for as long as the connection is there, and
/// answers each with how large it is.
struct Measured {
    waits: bool,
}

impl Session for Measured {
    type Push = Infallible;

    fn pushed(&mut self, push: Infallible, _: &mut Io) -> Result<(), Ending> {
        match push {}
    }

    fn advance(&mut self, io: &mut Io, _: &mut Context<'_>) -> Result<bool, Ending> {
        if self.waits {
            return Ok(false);
        }
        let size = io.input.bytes.first_chunk().map_or(4, |size| u32::from_be_bytes(*size) as usize);
        if io.input.bytes.len() < size.max(5) {
            io.need(size.max(5))?;
            return Ok(false);
        }
        let frame = io.take_frame(size)?;
        self.waits = frame[4] == b'w';
        io.output.push(Bytes::copy_from_slice(&(frame.len() as u32).to_be_bytes()));
        Ok(true)
    }

    fn appetite(&self, _: &Io) -> Appetite {
        if self.waits { Appetite::Little } else { Appetite::All }
    }

    fn standing(&self) -> Standing {
        if self.waits { Standing::Waiting } else { Standing::Idle }
    }

    fn patience(&self, limits: &Limits) -> Patience {
        Patience::of(limits, true)
    }

    fn client(&self) -> &str {
        "measured"
    }
}

fn measured(size: usize, kind: u8) -> Vec<u8> {
    let mut frame = vec![7; size];
    frame[..4].copy_from_slice(&(size as u32).to_be_bytes());
    frame[4] = kind;
    frame
}

/// Asks by a frame of a size, and gives how long its answer took.
fn ask(mut stream: &TcpStream, size: usize) -> Duration {
    let began = Instant::now();
    stream.write_all(&measured(size, b'a')).unwrap();
    let mut answer = [0; 4];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(u32::from_be_bytes(answer) as usize, size);
    began.elapsed()
}

/// Connections that each announce a frame and send so much of it, some of them after a whole one; then a byte now and then.
fn trickle(address: SocketAddr, count: usize, announced: usize, sent: usize) -> Vec<TcpStream> {
    let frame = measured(announced, b'a');
    let one = |i: usize| {
        let mut stream = connect(address);
        if i.is_multiple_of(2) {
            ask(&stream, 100);
        }
        // It may be closed already, or not be read.
        stream.set_write_timeout(Some(Duration::from_millis(20))).unwrap();
        let _ = stream.write_all(&frame[..sent]);
        let mut slow = stream.try_clone().unwrap();
        std::thread::spawn(move || {
            while slow.write_all(b"x").is_ok() {
                std::thread::sleep(Duration::from_millis(50));
            }
        });
        stream
    };
    (0..count).map(one).collect()
}

const FRAME_MEMORY: usize = 16 << 20;

#[test]
fn requests_of_every_size_are_answered_beside_slow_ones() {
    for (count, announced, sent) in [(80, 200_000, 100_000), (80, 1 << 20, 100_000), (30, 12 << 20, 600_000)]
    {
        // The longest of them: the slow ones are made to give back what they hold long before their time is up.
        best_of_three(Duration::from_secs(1), || {
            let options = NetOptions { frame_memory: FRAME_MEMORY, ..NetOptions::default() };
            let (net, address) = serve(options, || Measured { waits: false });
            let honest = connect(address);
            ask(&honest, 100);
            let slow = trickle(address, count, announced, sent);
            let sizes =
                [1 << 10, 5000, 65_000, 70_000, 150_000, 256 << 10, 500_000, 1 << 20, 3 << 20, 10 << 20];
            let longest = sizes.into_iter().map(|size| ask(&honest, size)).max();
            let memory = &net.limits().frame_memory;
            assert!(memory.granted() <= FRAME_MEMORY, "{}", memory.granted());
            drop(slow);
            net.drain(Duration::ZERO);
            longest.unwrap()
        });
    }
}

#[test]
fn what_is_small_is_answered_while_something_large_waits() {
    let options = NetOptions { frame_memory: FRAME_MEMORY, ..NetOptions::default() };
    let (net, address) = serve(options, || Measured { waits: false });
    let memory = net.limits().frame_memory.clone();
    let (honest, large) = (connect(address), connect(address));
    ask(&honest, 100);
    ask(&large, 100);
    let mut others = memory.try_take(8 << 20).unwrap();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| ask(&large, 12 << 20));
        std::thread::sleep(Duration::from_millis(300));
        // What is large waits until all of these are answered.
        for size in [1 << 10, 70_000, 500_000, 1 << 20] {
            ask(&honest, size);
        }
        assert!(!waiting.is_finished());
        assert!(others.resize(0));
        assert!(waiting.join().unwrap() < PATIENCE);
    });
}

/// A client that is not read from cannot send any faster.
#[test]
fn who_is_held_back_by_the_node_is_not_slow() {
    let options = NetOptions { frame_memory: FRAME_MEMORY, ..NetOptions::default() };
    let (net, address) = serve(options, || Measured { waits: false });
    let memory = net.limits().frame_memory.clone();
    let (mut waiting, large) = (connect(address), connect(address));
    ask(&large, 100);
    waiting.write_all(&measured(100_000, b'w')).unwrap();
    waiting.write_all(&measured(200_000, b'a')[..60_000]).unwrap();
    waiting.read_exact(&mut [0; 4]).unwrap();
    let mut all = memory.try_take(11 << 20).unwrap();
    std::thread::scope(|scope| {
        let waits = scope.spawn(|| ask(&large, 10 << 20));
        std::thread::sleep(Duration::from_secs(2));
        assert!(all.resize(0));
        waits.join().unwrap();
    });
    waiting.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    let silent = waiting.read(&mut [0]).map_err(|error| error.kind());
    assert!(matches!(silent, Err(std::io::ErrorKind::WouldBlock)), "{silent:?}");
}

/// Frames that came whole with one read count as well, as long as they are kept.
#[test]
fn whole_frames_that_wait_to_be_taken_are_counted() {
    let options = NetOptions { frame_memory: FRAME_MEMORY, ..NetOptions::default() };
    let (net, address) = serve(options, || Measured { waits: false });
    let memory = net.limits().frame_memory.clone();
    let mut stream = connect(address);
    let both = [measured(100_000, b'w'), measured(100_000, b'a')].concat();
    stream.write_all(&both).unwrap();
    stream.read_exact(&mut [0; 4]).unwrap();
    let counted = || memory.granted() + memory.granted_little();
    until("what waits is counted", || counted() >= 60_000);
    std::thread::sleep(Duration::from_millis(300));
    assert!((60_000..=512 << 10).contains(&counted()), "{}", counted());
    drop(stream);
    until("it is given back", || counted() == 0);
}

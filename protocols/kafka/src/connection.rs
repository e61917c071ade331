//! Moves a connection's bytes: one task that reads what the socket has, handles every whole frame in it, flushes the broker
//! once, and writes the answers in order.
//!
//! Produce requests are pipelined: each appends at once, and the answers follow as the appends commit. Every other request
//! begins when all before it are answered, as Kafka's clients are used to.

use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::BufMut;
use sabir_net::{Connection, Grant};
use tokio::time::{Instant, Sleep};
use tokio_util::io::{poll_read_buf, poll_write_buf};
use tokio_util::sync::WaitForCancellationFutureOwned;

use crate::deadlines::{Deadlines, Late, Sight};
use crate::frontend::FrontEnd;
use crate::handlers::produce::{self, Producing};
use crate::handlers::{self, Client, Handling, Reply};
use crate::input::{FREE, Input, NoMemory};
use crate::metrics::Dropped;
use crate::output::Output;
use crate::session::{Next, Protest, Request, Session, Slot};
use crate::wire::{ApiKey, ErrorCode};

/// Requests of a connection without an answer.
const MAX_OPEN: usize = 1024;
/// No further request begins while more bytes than this wait to be read by the client.
const MAX_UNREAD: usize = 256 * 1024;
/// Bytes read in one turn, so that one busy connection does not hold up its thread.
const TURN: usize = 1024 * 1024;
/// How long a turn lasts at most, but for the request that it ends with: a pipeline of dear requests must not hold up the
/// thread either.
const TURN_TIME: Duration = Duration::from_millis(1);

/// Why a connection ended.
#[derive(Debug)]
enum End {
    /// The client went.
    Gone,
    /// The node drains.
    Drained,
    /// The socket failed.
    Broken(io::Error),
    /// The client said what cannot be answered.
    Protest(Protest),
    /// The broker has had enough of it.
    Dropped(Dropped),
}

impl From<io::Error> for End {
    /// The system says so where a peer answers nothing any more, not even that it is there.
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::TimedOut | io::ErrorKind::HostUnreachable => Self::Dropped(Dropped::Vanished),
            _ => Self::Broken(error),
        }
    }
}

impl From<Protest> for End {
    fn from(protest: Protest) -> Self {
        Self::Protest(protest)
    }
}

impl From<NoMemory> for End {
    fn from(NoMemory: NoMemory) -> Self {
        Self::Dropped(Dropped::Memory)
    }
}

impl From<Late> for End {
    fn from(late: Late) -> Self {
        match late {
            Late::Dropped(why) => Self::Dropped(why),
            Late::Gone => Self::Gone,
        }
    }
}

/// Serves a connection until it ends.
pub(crate) async fn serve(kafka: Arc<FrontEnd>, connection: Connection) {
    // Boxed, so that the task of a connection that does nothing is small.
    let mut driver = Box::new(Driver::new(kafka, connection));
    let end = std::future::poll_fn(|cx| driver.poll(cx)).await;
    driver.report(&end);
}

/// A request other than to produce, under way.
struct Running {
    slot: Slot,
    api: ApiKey,
    began: Instant,
    handling: Handling,
}

impl Running {
    /// Whether it may wait for something other than this broker's own work, and so need not be waited for.
    fn may_park(&self) -> bool {
        matches!(self.api, ApiKey::Fetch | ApiKey::JoinGroup | ApiKey::SyncGroup)
    }
}

/// Has the task polled again when the thread has looked at its sockets. One that merely wakes itself is polled some sixty times before
/// that.
fn go_on_later(cx: &mut Context<'_>) {
    let pending = std::pin::pin!(tokio::task::yield_now()).poll(cx);
    debug_assert!(pending.is_pending(), "it yields once");
}

type Waiting<T> = Option<Pin<Box<dyn Future<Output = T>>>>;

struct Driver {
    kafka: Arc<FrontEnd>,
    client: Rc<Client>,
    connection: Connection,
    closing: Pin<Box<WaitForCancellationFutureOwned>>,
    session: Session,
    input: Input,
    /// How many bytes the input must hold before there is another request in it.
    need: usize,
    /// A request whose turn has not come.
    held: Option<Request>,
    running: Option<Running>,
    producing: VecDeque<(Slot, Instant, Producing)>,
    output: Output,
    /// Memory for the frame under way is waited for.
    memory: Waiting<Grant>,
    /// Room in the broker's open blocks is waited for.
    room: Waiting<()>,
    /// The node drains.
    draining: bool,
    /// The client sends no more.
    ended: bool,
    /// A request was given up: no further one can be answered in order.
    gave_up: bool,
    deadlines: Deadlines,
    timer: Pin<Box<Sleep>>,
}

impl Driver {
    fn new(kafka: Arc<FrontEnd>, connection: Connection) -> Self {
        let now = Instant::now();
        let max_frame = (kafka.config.max_request.0 as usize).min(connection.limits.frame_memory.total());
        Self {
            client: Rc::new(Client::new(kafka.clone(), &connection)),
            kafka,
            closing: Box::pin(connection.closing.clone().cancelled_owned()),
            session: Session::new(max_frame, MAX_OPEN),
            input: Input::default(),
            need: 4,
            held: None,
            running: None,
            producing: VecDeque::new(),
            output: Output::default(),
            memory: None,
            room: None,
            draining: false,
            ended: false,
            gave_up: false,
            deadlines: Deadlines::new(now),
            timer: Box::pin(tokio::time::sleep_until(now + connection.limits.idle_timeout)),
            connection,
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        self.turn(cx).unwrap_or_else(Poll::Ready)
    }

    fn turn(&mut self, cx: &mut Context<'_>) -> Result<Poll<End>, End> {
        self.draining = self.draining || self.closing.as_mut().poll(cx).is_ready();
        let (mut left, began) = (TURN, Instant::now());
        loop {
            let mut moved = self.finish(cx)?;
            moved |= self.begin(cx, began)?;
            let over = moved && began.elapsed() >= TURN_TIME;
            // What is there already has its turn first, or the input would grow by what is not begun.
            if !over {
                moved |= self.read(cx, &mut left)?;
            }
            moved |= self.write(cx, began)?;
            if !moved {
                break;
            }
            if left == 0 || over || began.elapsed() >= TURN_TIME {
                go_on_later(cx);
                return Ok(Poll::Pending);
            }
        }
        match self.over() {
            Some(end) => Ok(Poll::Ready(end)),
            None => Ok(self.check_time(cx)),
        }
    }

    /// Takes what has become of the requests under way.
    fn finish(&mut self, cx: &mut Context<'_>) -> Result<bool, End> {
        let mut moved = self.check(cx);
        while let Some((slot, began, producing)) = self.producing.front_mut() {
            let Poll::Ready(reply) = producing.poll(cx) else { break };
            let (slot, began) = (*slot, *began);
            self.producing.pop_front();
            self.answer(slot, ApiKey::Produce, began, reply)?;
            moved = true;
        }
        if let Some(running) = &mut self.running {
            if let Poll::Ready(reply) = running.handling.as_mut().poll(cx) {
                let (slot, api, began) = (running.slot, running.api, running.began);
                self.running = None;
                self.answer(slot, api, began, reply?)?;
                moved = true;
            } else if running.may_park() && (self.draining || self.ended) {
                self.running = None;
                self.gave_up = true;
            }
        }
        Ok(moved)
    }

    /// Whether the workers look at the records of the last request to produce.
    fn is_checking(&self) -> bool {
        self.producing.back().is_some_and(|(.., producing)| producing.is_checking())
    }

    /// Appends what the workers are done with.
    fn check(&mut self, cx: &mut Context<'_>) -> bool {
        let Some((.., last)) = self.producing.back_mut().filter(|(.., last)| last.is_checking()) else {
            return false;
        };
        if last.check(&self.client, cx).is_pending() {
            return false;
        }
        if last.appends() {
            self.kafka.broker.flush();
            self.watch_room(cx);
        }
        true
    }

    fn answer(&mut self, slot: Slot, api: ApiKey, began: Instant, reply: Reply) -> Result<(), End> {
        let error = reply.error();
        self.kafka.metrics.request(api, error, began.elapsed());
        if error != ErrorCode::None {
            self.client.failed(api, error);
        }
        match reply {
            Reply::Frame { frame, memory, .. } => {
                self.session.answer(slot, Some(frame));
                memory.into_iter().for_each(|granted| self.output.take_grant(granted));
            }
            Reply::Silence => self.session.answer(slot, None),
            Reply::Close { why, .. } => return Err(End::Dropped(why)),
        }
        while let Some(answer) = self.session.pop() {
            self.output.push(answer);
        }
        Ok(())
    }

    /// Begins every request in the input whose turn has come, until the turn that began then is over.
    fn begin(&mut self, cx: &mut Context<'_>, began: Instant) -> Result<bool, End> {
        let (mut moved, mut appended, mut now) = (false, false, Instant::now());
        while let Some(request) = self.next_request()? {
            if request.api == ApiKey::Produce {
                let (slot, bytes) = (request.slot, request.body.len());
                let mut producing = produce::begin(&self.client, request)?;
                appended |= producing.appends();
                if producing.is_checking() {
                    producing.hold(self.input.grant_for(bytes, &self.connection.limits.frame_memory)?);
                }
                self.producing.push_back((slot, now, producing));
            } else if self.producing.is_empty() {
                self.run(request, now);
            } else {
                self.held = Some(request);
                break;
            }
            moved = true;
            now = Instant::now();
            if now - began >= TURN_TIME {
                break;
            }
        }
        if appended {
            self.kafka.broker.flush();
            self.watch_room(cx);
        }
        Ok(moved)
    }

    fn may_begin(&self) -> bool {
        let stopped = self.draining || self.gave_up;
        !stopped
            && self.running.is_none()
            && !self.is_checking()
            && self.output.len() <= MAX_UNREAD
            && !self.session.is_full()
    }

    fn next_request(&mut self) -> Result<Option<Request>, End> {
        if !self.may_begin() || (self.held.is_some() && !self.producing.is_empty()) {
            return Ok(None);
        }
        if let Some(held) = self.held.take() {
            return Ok(Some(held));
        }
        match self.session.next(&mut self.input.bytes)? {
            Next::Request(mut request) => {
                self.need = 4;
                self.deadlines.frame_taken();
                // What is produced is copied at once; other bodies may be kept while their requests wait.
                if request.in_buffer && request.api != ApiKey::Produce {
                    request.body = self.input.hand_on(request.body);
                }
                Ok(Some(request))
            }
            Next::Need(need) => {
                self.need = need;
                Ok(None)
            }
        }
    }

    fn run(&mut self, request: Request, began: Instant) {
        let (slot, api) = (request.slot, request.api);
        let handling = handlers::handle(self.client.clone(), request);
        self.running = Some(Running { slot, api, began, handling });
    }

    /// Has nothing more read while too much waits in the broker's open blocks.
    fn watch_room(&mut self, cx: &mut Context<'_>) {
        let broker = self.kafka.broker.clone();
        let mut room = Box::pin(async move { broker.room().await });
        if room.as_mut().poll(cx).is_pending() {
            self.room = Some(room);
        }
    }

    /// Reads what the socket has, as far as there is room for it.
    fn read(&mut self, cx: &mut Context<'_>, left: &mut usize) -> Result<bool, End> {
        let wanted = self.wanted();
        if *left == 0 || wanted == 0 || !self.may_read(cx) {
            return Ok(false);
        }
        let Poll::Ready(ready) = self.connection.stream.poll_read_ready(cx) else {
            return self.settle();
        };
        ready?;
        self.input.make_room(self.need);
        let mut room = (&mut self.input.bytes).limit(wanted);
        match poll_read_buf(Pin::new(&mut self.connection.stream), cx, &mut room) {
            Poll::Pending => self.settle(),
            Poll::Ready(Ok(0)) => {
                self.ended = true;
                Ok(true)
            }
            Poll::Ready(Ok(count)) => {
                self.kafka.metrics.received(count);
                *left = left.saturating_sub(count);
                Ok(true)
            }
            Poll::Ready(Err(error)) => Err(error.into()),
        }
    }

    /// How many bytes are wanted from the socket. While no request can begin, only enough to notice that the client went.
    fn wanted(&self) -> usize {
        if self.ended || self.draining || self.gave_up {
            0
        } else if self.may_begin() && self.held.is_none() {
            usize::MAX
        } else {
            FREE.saturating_sub(self.input.bytes.len())
        }
    }

    /// Whether there is room for more; if not, the task is woken when there is.
    fn may_read(&mut self, cx: &mut Context<'_>) -> bool {
        if let Some(room) = &mut self.room {
            if room.as_mut().poll(cx).is_pending() {
                return false;
            }
            self.room = None;
        }
        let Some(bytes) = self.input.must_be_granted(self.need) else { return true };
        let memory = &self.connection.limits.frame_memory;
        let take = || Box::pin(memory.clone().take(bytes)) as Pin<Box<dyn Future<Output = Grant>>>;
        match self.memory.get_or_insert_with(take).as_mut().poll(cx) {
            Poll::Pending => false,
            Poll::Ready(grant) => {
                self.memory = None;
                self.input.grant(grant);
                true
            }
        }
    }

    /// Nothing more is there to be read for now.
    fn settle(&mut self) -> Result<bool, End> {
        let settled = self.input.settle(&self.connection.limits.frame_memory);
        settled.map_err(|NoMemory| End::Dropped(Dropped::Memory))?;
        Ok(false)
    }

    /// Writes what the socket takes, while the turn lasts; says whether requests may begin that could not before, or there is more
    /// to write.
    fn write(&mut self, cx: &mut Context<'_>, began: Instant) -> Result<bool, End> {
        let held_up = self.output.len() > MAX_UNREAD;
        while !self.output.is_empty() {
            match poll_write_buf(Pin::new(&mut self.connection.stream), cx, &mut self.output) {
                Poll::Pending => break,
                Poll::Ready(Ok(count)) => {
                    self.kafka.metrics.sent(count);
                    self.deadlines.sent(count);
                    // Who reads as fast as this is not behind: what is left is not counted as unread.
                    if !self.output.is_empty() && began.elapsed() >= TURN_TIME {
                        return Ok(true);
                    }
                }
                Poll::Ready(Err(error)) => return Err(error.into()),
            }
        }
        let settled = self.output.settle(&self.connection.limits.frame_memory);
        settled.map_err(|NoMemory| End::Dropped(Dropped::Memory))?;
        Ok(held_up && self.output.len() <= MAX_UNREAD)
    }

    /// Whether nothing is left to be done.
    fn over(&self) -> Option<End> {
        let at_rest = self.running.is_none() && self.producing.is_empty() && self.output.is_empty();
        match at_rest {
            true if self.draining => Some(End::Drained),
            true if self.ended => Some(End::Gone),
            _ => None,
        }
    }

    fn check_time(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        // While it waits for memory the clock runs on: what others hold is given back sooner or later, or nobody gets on.
        let waiting = self.wanted() == usize::MAX && self.room.is_none();
        let arrived = self.input.bytes.len();
        let sight = Sight {
            arriving: (waiting && arrived > 0).then_some(arrived),
            unread: self.output.len(),
            busy: self.session.open() > 0,
            ended: self.ended,
        };
        loop {
            let now = Instant::now();
            let (until, late) = self.deadlines.next(&self.connection.limits, sight, now);
            if until <= now {
                return Poll::Ready(late.into());
            }
            let given_up = self.producing.front().and_then(|(_, _, producing)| producing.until());
            let until = given_up.map_or(until, |given_up| given_up.min(until));
            if until <= now {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            // A timer that rings too early costs less than moving it at every turn.
            if self.timer.deadline() > until || self.timer.is_elapsed() {
                self.timer.as_mut().reset(until);
            }
            if self.timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
        }
    }

    fn report(&self, end: &End) {
        let (peer, client) = (self.connection.peer, self.client.id());
        match end {
            End::Gone | End::Drained => tracing::debug!(%peer, client, ?end, "connection ended"),
            End::Broken(error) => tracing::debug!(%peer, client, %error, "connection broke"),
            End::Protest(protest) => {
                self.dropped(Dropped::Protest(protest.label()), format_args!("it sent {protest}"));
            }
            End::Dropped(why) => self.dropped(*why, format_args!("{why}")),
        }
    }

    /// Counts it, and names it in the log, which a flood of the same kind is not to fill.
    fn dropped(&self, why: Dropped, says: std::fmt::Arguments<'_>) {
        let (peer, client) = (self.connection.peer, self.client.id());
        if let Some(unsaid) = self.kafka.metrics.dropped(why, Instant::now().into_std()) {
            let not_named = (unsaid > 0).then_some(unsaid);
            tracing::warn!(%peer, client, not_named, "connection closed: {says}");
        }
    }
}

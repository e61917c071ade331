//! Moves a connection's bytes: one task that reads what the socket has, has the protocol's session handle it, and writes what the
//! session puts out.

mod deadlines;
mod ending;
mod input;
mod linger;
mod output;
mod session;

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::{BufMut, Bytes};
use rustix::event::{PollFd, PollFlags, Timespec};
use sabir_base::outbox::Outbox;
use tokio::io::AsyncWrite;
use tokio::time::{Instant, Sleep};
use tokio_util::io::{poll_read_buf, poll_write_buf};
use tokio_util::sync::WaitForCancellationFutureOwned;

pub use self::deadlines::Patience;
use self::deadlines::{Deadlines, LINGER, Overdue, Progress};
pub use self::ending::{ConnectionCounters, DropReason, Ending, OwnReason};
pub use self::input::{Input, NoMemory, UNCOUNTED};
pub use self::output::Output;
pub use self::session::{Appetite, Closing, Session, Standing};
use crate::connection::{Connection, Limits};
use crate::memory::Waiting;
use crate::run_queue::{self, Line, NextTurn};

/// Bytes read in one turn, so that one busy connection does not hold up its thread.
const TURN: usize = 1024 * 1024;
/// How long a turn lasts at most, but for what it ends with: a pipeline of dear requests must not hold up the thread either.
const TURN_TIME: Duration = Duration::from_millis(1);
/// Turns of more nanoseconds than this on the average are long: such a connection does not go before others.
const LONG_TURN: u32 = 400_000;
/// How long it is waited for the answers to what a session gave up as its connection is to end.
const GIVING_UP: Duration = Duration::from_secs(5);
/// How long a leave lasts at most, where another connection waits for it.
const PRESSING: Duration = Duration::from_millis(100);
/// How often it is looked whether a client is still there whose bytes are not read.
const LOOK: Duration = Duration::from_secs(1);

/// A connection's bytes, as its session sees them.
#[derive(Debug)]
pub struct Io {
    /// What has arrived.
    pub input: Input,
    /// What is to be sent.
    pub output: Output,
    /// What bounds the connection.
    pub limits: Arc<Limits>,
    deadlines: Deadlines,
    turn_began: Instant,
    draining: bool,
    ended: bool,
}

impl Io {
    /// Whether the node drains: nothing further is to be begun, and what may wait for others is to be given up.
    #[inline]
    pub fn is_draining(&self) -> bool {
        self.draining
    }

    /// Whether the client sends no more.
    #[inline]
    pub fn has_ended(&self) -> bool {
        self.ended
    }

    /// Says how many bytes there must be before there is a whole frame to take.
    ///
    /// # Errors
    /// There is no memory that a frame of so many bytes could be granted, now or later.
    #[inline]
    pub fn need(&mut self, bytes: usize) -> Result<(), Ending> {
        if bytes.saturating_sub(UNCOUNTED) > self.limits.frame_memory.total() {
            return Err(DropReason::FrameSize.into());
        }
        self.input.need(bytes);
        Ok(())
    }

    /// Takes a whole frame off the front of the input, to be kept for as long as its request is under way: what arrives now is another
    /// one. A small one is copied, so that it does not hold the buffer.
    ///
    /// # Errors
    /// No memory is left for it.
    #[inline]
    pub fn take_frame(&mut self, len: usize) -> Result<Bytes, NoMemory> {
        self.deadlines.frame_taken();
        self.input.take(len, &self.limits.frame_memory)
    }

    /// The same for a frame whose bytes are used at once, whatever its size.
    #[inline]
    pub fn take_passing_frame(&mut self, len: usize) -> Bytes {
        self.deadlines.frame_taken();
        self.input.take_passing(len)
    }

    /// Whether nothing further is to be begun in this turn, now that it is `now`.
    #[inline]
    pub fn is_turn_over(&self, now: Instant) -> bool {
        now - self.turn_began >= TURN_TIME
    }
}

/// Serves a connection until it ends.
pub async fn drive<S: Session>(connection: Connection, session: S, counters: Arc<ConnectionCounters>) {
    // Boxed, so that the task of a connection that does nothing is small.
    let mut driver = Box::new(Driver::new(connection, session, counters));
    let ending = std::future::poll_fn(|cx| driver.poll(cx)).await;
    driver.report(&ending);
    if driver.lingers(&ending) {
        let drains = driver.io.draining;
        let connection = driver.into_connection();
        // Its session is gone, and what waits for that (a takeover of its name) goes on.
        connection.open.leave();
        Box::pin(linger::linger(connection, drains)).await;
    }
}

/// A session's outbox, which takes nothing any more once this is dropped.
struct Attended<P>(Arc<Outbox<P>>);

impl<P> Drop for Attended<P> {
    fn drop(&mut self) {
        self.0.end();
    }
}

struct Driver<S: Session> {
    session: S,
    outbox: Attended<S::Push>,
    /// The task that is woken when something is left there.
    attends: Option<Waker>,
    /// What was left there and the session has not taken.
    pushes: VecDeque<S::Push>,
    /// The connection is to end, and the session has answers to come for its client before it takes its leave.
    parting: Option<Parting>,
    /// The session takes its leave.
    goodbye: Option<Goodbye>,
    io: Io,
    connection: Connection,
    counters: Arc<ConnectionCounters>,
    closing: Pin<Box<WaitForCancellationFutureOwned>>,
    /// The frame under way waits for memory.
    memory: Option<Waiting>,
    /// It has had its turn, and has no other one before.
    next_turn: Option<NextTurn>,
    /// What its last turns were for.
    line: Line,
    /// What its turns took of late, on the average, in nanoseconds; one that was long because the system had the thread wait does not make it long.
    turns_take: u32,
    timer: Pin<Box<Sleep>>,
    /// When it was looked last whether a client is still there whose bytes are not read, and whether it sends no more.
    looked: Instant,
    left: bool,
    /// Whether the session has taken its leave in time.
    has_parted: bool,
    /// Whether its client was to be told what it waited for no more: it may be nobody else's.
    gave_up: bool,
}

/// How a connection is to end, and how long it is waited for the answers to what its session gave up.
struct Parting {
    why: Ending,
    until: Instant,
}

/// How a session takes its leave.
struct Goodbye {
    why: Ending,
    /// Whether it reads on, until it says that the connection ends; else it ends when the output is empty.
    talks: bool,
    until: Instant,
}

/// The average of what turns take, in nanoseconds, with one more; what that takes beyond its time does not count.
fn average(before: u32, took: Duration) -> u32 {
    (before * 3 + took.min(TURN_TIME).subsec_nanos()) / 4
}

impl<S: Session> Driver<S> {
    fn new(connection: Connection, mut session: S, counters: Arc<ConnectionCounters>) -> Self {
        let now = Instant::now();
        counters.received(connection.prefix.len());
        connection.open.received(connection.prefix.len());
        let io = Io {
            input: Input::beginning(&connection.prefix),
            output: Output::default(),
            limits: connection.limits.clone(),
            deadlines: Deadlines::new(connection.opened),
            turn_began: now,
            draining: false,
            ended: false,
        };
        let outbox = Outbox::new();
        session.opened(outbox.seat());
        Self {
            session,
            outbox: Attended(outbox),
            attends: None,
            pushes: VecDeque::new(),
            parting: None,
            goodbye: None,
            io,
            counters,
            closing: Box::pin(connection.closing.clone().cancelled_owned()),
            memory: None,
            next_turn: None,
            line: Line::default(),
            turns_take: 0,
            timer: Box::pin(tokio::time::sleep_until(now + connection.limits.idle_timeout)),
            connection,
            looked: now,
            left: false,
            has_parted: false,
            gave_up: false,
        }
    }

    /// Whether the client is to be let close first: it was told something that it may not have read. A node that drains waits so for those alone
    /// that would not read it else, or that were told what nobody else has.
    fn lingers(&self, ending: &Ending) -> bool {
        let was_told = self.has_parted || matches!(ending, Ending::Gone);
        let may_be_there = !self.io.ended && !self.left && !matches!(ending, Ending::Broken(_));
        was_told
            && may_be_there
            && self.is_sent()
            && (!self.io.draining || self.gave_up || self.is_written_to())
    }

    /// Whether the socket has what was not read.
    fn is_written_to(&self) -> bool {
        let mut seen = [PollFd::new(&self.connection.stream, PollFlags::IN)];
        rustix::event::poll(&mut seen, Some(&Timespec::default())).is_ok_and(|found| found > 0)
    }

    /// Its connection. All else goes.
    fn into_connection(self) -> Connection {
        self.connection
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Ending> {
        if self.waits_for_its_turn(cx) {
            return Poll::Pending;
        }
        loop {
            match self.turn(cx).unwrap_or_else(Poll::Ready) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(ending) => {
                    if let Some(ending) = self.part(ending) {
                        return Poll::Ready(ending);
                    }
                }
            }
        }
    }

    /// Whether it is not its turn yet. What a client asks goes before what others have for theirs, and both before those whose turns are long.
    fn waits_for_its_turn(&mut self, cx: &mut Context<'_>) -> bool {
        if self.connection.open.is_closing() && !self.is_ending() {
            self.leave_queue();
            return false;
        }
        if let Some(turn) = &mut self.next_turn {
            let waits = Pin::new(turn).poll(cx).is_pending();
            if waits && !(self.line == Line::Deliveries && self.goes_first(cx)) {
                return true;
            }
            self.leave_queue();
            return false;
        }
        // It may be woken by what it reads for that, or by the client's having taken some.
        let is_at_it = self.line == Line::Deliveries;
        let delivers = is_at_it || self.outbox.0.has_some() || !self.pushes.is_empty();
        if !delivers && !self.has_long_turns() {
            return false;
        }
        let goes_on = !self.has_long_turns() && run_queue::may_deliver_at_once();
        if goes_on || self.goes_first(cx) {
            return false;
        }
        if delivers {
            self.line = Line::Deliveries;
        }
        self.go_on_later(cx);
        true
    }

    /// Waits for no other turn, be it that this one came or that it goes on before.
    fn leave_queue(&mut self) {
        if let Some(turn) = self.next_turn.take() {
            turn.give_up();
        }
    }

    fn has_long_turns(&self) -> bool {
        self.turns_take > LONG_TURN
    }

    /// Whether its client has asked for something that is read now, and is not one that takes much of the thread's time.
    fn goes_first(&self, cx: &mut Context<'_>) -> bool {
        !self.has_long_turns() && self.wanted() > 0 && self.connection.stream.poll_readable(cx).is_ready()
    }

    /// Notes what a turn was for, and what it took.
    fn note_turn(&mut self, took: Duration, delivered: bool, received: bool) {
        self.turns_take = average(self.turns_take, took);
        if delivered {
            self.line = Line::Deliveries;
        } else if received {
            self.line = Line::Requests;
        }
        if self.line == Line::Deliveries {
            run_queue::has_delivered(took);
        }
    }

    /// Whether the connection ends, for a reason that stays the same.
    fn is_ending(&self) -> bool {
        self.parting.is_some() || self.goodbye.is_some()
    }

    /// Has the session give up what waits for others.
    fn give_up(&mut self) -> bool {
        let has_answers = self.session.give_up();
        self.gave_up |= has_answers;
        has_answers
    }

    /// Has the session give up what waits, and take its leave once that is answered. Gives how the connection ended once there is nothing more to be
    /// said.
    fn part(&mut self, ending: Ending) -> Option<Ending> {
        if let Some(goodbye) = self.goodbye.take() {
            self.has_parted = !matches!(ending, Ending::Broken(_)) && Instant::now() < goodbye.until;
            return Some(goodbye.why);
        }
        let can_be_told = ending.can_be_told();
        let (ending, has_given_up) = match self.parting.take() {
            Some(parting) => (parting.why, true),
            None => (ending, false),
        };
        if !can_be_told {
            return Some(ending);
        }
        if !has_given_up && self.give_up() {
            self.parting = Some(Parting { why: ending, until: Instant::now() + GIVING_UP });
            self.rest();
            return None;
        }
        let (talks, until) = match self.session.close(&ending, &mut self.io) {
            Closing::Now => return Some(ending),
            Closing::Flushed => (false, Instant::now() + LINGER),
            Closing::Until(until) => (true, until),
        };
        let until = if ending.is_pressing() { until.min(Instant::now() + PRESSING) } else { until };
        self.goodbye = Some(Goodbye { why: ending, talks, until });
        // It may not be read any more, and then waits for nothing. Else it begins to wait again.
        self.rest();
        None
    }

    fn talks(&self) -> bool {
        self.goodbye.as_ref().is_none_or(|goodbye| goodbye.talks)
    }

    fn turn(&mut self, cx: &mut Context<'_>) -> Result<Poll<Ending>, Ending> {
        if !self.io.draining && self.closing.as_mut().poll(cx).is_ready() {
            self.io.draining = true;
            if !self.is_ending() {
                self.give_up();
            }
        }
        self.attend(cx);
        if let Some(why) = self.connection.open.close_wanted().filter(|_| !self.is_ending()) {
            return Err(why.into());
        }
        self.io.turn_began = Instant::now();
        let (mut left, mut delivered) = (TURN, false);
        let talks = self.talks();
        loop {
            let mut moved = false;
            if talks {
                moved = self.deliver()?;
                delivered |= moved;
                moved |= self.session.advance(&mut self.io, cx)?;
            }
            let over = moved && self.io.is_turn_over(Instant::now());
            // What is there already has its turn first, or the input would grow by what is not begun.
            if talks && !over {
                moved |= self.read(cx, &mut left)?;
            }
            moved |= self.write(cx)?;
            // A session that finds its turn over leaves what has come, and nothing else would wake this task for it.
            let took = Instant::now() - self.io.turn_began;
            let over = over || took >= TURN_TIME;
            if moved && !over && left > 0 {
                continue;
            }
            self.note_turn(took, delivered, left < TURN);
            if moved || over {
                self.go_on_later(cx);
                return Ok(Poll::Pending);
            }
            break;
        }
        match self.over() {
            Some(ending) => Ok(Poll::Ready(ending)),
            None => self.check_time(cx),
        }
    }

    /// Has another turn behind those that are ready now, and no other one before.
    fn go_on_later(&mut self, cx: &mut Context<'_>) {
        let mut turn = NextTurn::NotAsked(self.line);
        let pending = Pin::new(&mut turn).poll(cx);
        debug_assert!(pending.is_pending(), "it waits once");
        self.next_turn = Some(turn);
    }

    /// Has threads that leave something, or want the connection closed, wake this task.
    #[inline]
    fn attend(&mut self, cx: &mut Context<'_>) {
        if !self.attends.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            self.outbox.0.attend(cx.waker());
            self.connection.open.attend(cx.waker());
            self.attends = Some(cx.waker().clone());
        }
    }

    /// Gives the session what others have left for it, while there is room for what it makes of that.
    #[inline]
    fn deliver(&mut self) -> Result<bool, Ending> {
        if self.parting.is_some() {
            return Ok(false);
        }
        // What is taken is not bounded any more with what is left: no more is taken before there is room for it.
        if self.pushes.is_empty() && !self.io.output.is_full() {
            self.outbox.0.take(&mut self.pushes);
        }
        let mut moved = false;
        while !self.io.output.is_full()
            && let Some(push) = self.pushes.pop_front()
        {
            self.session.pushed(push, &mut self.io)?;
            moved = true;
        }
        Ok(moved)
    }

    /// Reads what the socket has, as far as there is room for it.
    fn read(&mut self, cx: &mut Context<'_>, left: &mut usize) -> Result<bool, Ending> {
        let wanted = self.wanted();
        if wanted == 0 {
            self.rest();
            return self.settle();
        }
        if *left == 0 || !self.is_granted(cx)? {
            return Ok(false);
        }
        let Poll::Ready(ready) = self.connection.stream.poll_readable(cx) else {
            return self.settle();
        };
        ready?;
        self.io.input.make_room(&self.connection.limits.frame_memory);
        let most = wanted.min(self.io.input.room());
        let mut room = (&mut self.io.input.bytes).limit(most);
        match poll_read_buf(Pin::new(&mut self.connection.stream), cx, &mut room) {
            Poll::Pending => self.settle(),
            Poll::Ready(Ok(0)) => {
                self.io.ended = true;
                Ok(true)
            }
            Poll::Ready(Ok(count)) => {
                self.counters.received(count);
                self.connection.open.received(count);
                self.io.deadlines.received();
                self.io.input.has_read();
                *left = left.saturating_sub(count);
                Ok(true)
            }
            Poll::Ready(Err(error)) => Err(error.into()),
        }
    }

    /// How many bytes are wanted from the socket.
    fn wanted(&self) -> usize {
        if self.io.ended || self.parting.is_some() || (self.io.draining && self.goodbye.is_none()) {
            return 0;
        }
        match self.session.appetite(&self.io) {
            Appetite::All => usize::MAX,
            Appetite::Little => UNCOUNTED.saturating_sub(self.io.input.bytes.len()),
        }
    }

    /// Whether there is memory for more; if not, the task is woken when there is.
    fn is_granted(&mut self, cx: &mut Context<'_>) -> Result<bool, Ending> {
        let (memory, input) = (&self.connection.limits.frame_memory, &mut self.io.input);
        while let Some(bytes) = input.must_be_granted() {
            if self.memory.is_none() && input.grow(bytes, memory)? {
                continue;
            }
            let waiting = self.memory.get_or_insert_with(|| Waiting::new(memory));
            // It listens before it looks, or what is given back in between goes unseen.
            if !waiting.is_over(cx) && !input.grow(bytes, memory)? {
                waiting.lacks(input.lack(bytes, memory));
                return Ok(false);
            }
        }
        self.rest();
        Ok(true)
    }

    /// The frame under way waits for no memory any more, and keeps none from others.
    fn rest(&mut self) {
        if self.memory.take().is_some() {
            self.io.input.rest();
        }
    }

    /// Nothing more is there to be read for now.
    fn settle(&mut self) -> Result<bool, Ending> {
        self.io.input.settle(&self.connection.limits.frame_memory)?;
        Ok(false)
    }

    /// Writes what the socket takes, while the turn lasts; says whether more may be put out that could not before, or there is more
    /// to write.
    fn write(&mut self, cx: &mut Context<'_>) -> Result<bool, Ending> {
        let was_full = self.io.output.is_full();
        while !self.io.output.is_empty() {
            match poll_write_buf(Pin::new(&mut self.connection.stream), cx, &mut self.io.output) {
                Poll::Pending => break,
                Poll::Ready(Ok(count)) => {
                    self.counters.sent(count);
                    self.connection.open.sent(count);
                    self.io.deadlines.sent(count);
                    // A client that reads as fast as this is not behind: what is left is not counted as unread.
                    if !self.io.output.is_empty() && self.io.is_turn_over(Instant::now()) {
                        return Ok(true);
                    }
                }
                Poll::Ready(Err(error)) => return Err(error.into()),
            }
        }
        self.flush(cx)?;
        self.io.output.settle(&self.connection.limits.frame_memory)?;
        Ok(was_full && !self.io.output.is_full())
    }

    /// Has the socket take what the stream itself still holds, as far as it does.
    #[inline]
    fn flush(&mut self, cx: &mut Context<'_>) -> Result<(), Ending> {
        if self.io.output.is_empty() && self.connection.stream.holds_unsent() {
            let Poll::Ready(flushed) = Pin::new(&mut self.connection.stream).poll_flush(cx) else {
                return Ok(());
            };
            flushed?;
        }
        Ok(())
    }

    /// Whether everything was sent.
    fn is_sent(&self) -> bool {
        self.io.output.is_empty() && !self.connection.stream.holds_unsent()
    }

    /// Whether nothing is left to be done.
    fn over(&self) -> Option<Ending> {
        let Io { draining, ended, .. } = self.io;
        if self.parting.is_some() {
            // How it ends is known, and said behind the answers.
            return (self.session.standing() != Standing::Working).then_some(Ending::Drained);
        }
        let over = match &self.goodbye {
            Some(Goodbye { talks: true, .. }) => ended,
            Some(_) => true,
            None => (draining || ended) && self.session.standing() != Standing::Working,
        };
        let ending = if draining { Ending::Drained } else { Ending::Gone };
        (over && self.is_sent()).then_some(ending)
    }

    fn check_time(&mut self, cx: &mut Context<'_>) -> Result<Poll<Ending>, Ending> {
        let now = Instant::now();
        let progress = self.progress(now)?;
        let (until, overdue) = match (&self.goodbye, &self.parting) {
            (Some(goodbye), _) => (goodbye.until, Overdue::Gone),
            (None, Some(parting)) => (parting.until, Overdue::Answer),
            (None, None) => self.io.deadlines.next(&self.connection.limits, progress, now),
        };
        if until <= now {
            return Ok(Poll::Ready(overdue.into()));
        }
        let own = self.session.until().filter(|own| *own > self.io.turn_began);
        let look = (!progress.reading).then_some(self.looked + LOOK);
        let until = [own, look].into_iter().flatten().fold(until, Instant::min);
        // A timer that rings too early costs less than moving it at every turn.
        if self.timer.deadline() > until || self.timer.is_elapsed() {
            self.timer.as_mut().reset(until);
        }
        if self.timer.as_mut().poll(cx).is_ready() {
            self.go_on_later(cx);
        }
        Ok(Poll::Pending)
    }

    fn progress(&mut self, now: Instant) -> Result<Progress, Ending> {
        let wanted = self.wanted();
        let arrived = self.io.input.bytes.len();
        let waits = self.memory.is_some();
        let reading = (wanted > 0 && !waits) || self.io.ended;
        let arriving = (wanted == usize::MAX && arrived > 0).then_some(arrived);
        let holds = arriving.is_some() && !waits && self.io.input.holds();
        Ok(Progress {
            arriving,
            waits,
            holds,
            is_short: holds && self.io.input.is_short(&self.connection.limits.frame_memory),
            unread: self.io.output.len() + usize::from(self.connection.stream.holds_unsent()),
            busy: self.session.standing() != Standing::Idle,
            ended: self.io.ended || (!reading && self.look(now)?),
            reading,
            patience: self.session.patience(&self.connection.limits),
        })
    }

    /// Whether the client sends no more, as far as that can be told without reading what it has sent.
    fn look(&mut self, now: Instant) -> Result<bool, Ending> {
        if now - self.looked < LOOK {
            return Ok(self.left);
        }
        self.looked = now;
        let mut seen = [PollFd::new(&self.connection.stream, PollFlags::RDHUP)];
        // What fails is tried again.
        let found = rustix::event::poll(&mut seen, Some(&Timespec::default())).unwrap_or(0);
        let seen = if found > 0 { seen[0].revents() } else { PollFlags::empty() };
        if seen.intersects(PollFlags::ERR | PollFlags::HUP) {
            return Err(self.connection.stream.take_error()?.map_or(Ending::Gone, Ending::from));
        }
        self.left = seen.contains(PollFlags::RDHUP);
        Ok(self.left)
    }

    /// Counts how it ended, and names it in the log, which a flood of the same kind is not to fill.
    fn report(&self, ending: &Ending) {
        let (peer, client) = (self.connection.peer, self.session.client());
        match ending {
            Ending::Gone | Ending::Drained => tracing::debug!(%peer, client, ?ending, "connection ended"),
            Ending::Broken(error) => tracing::debug!(%peer, client, %error, "connection broke"),
            Ending::Dropped { reason, says } => {
                if let Some(untold) = self.counters.dropped(*reason, Instant::now().into_std()) {
                    let not_named = (untold > 0).then_some(untold);
                    let takes = (*reason == DropReason::Foreign).then_some(&*self.connection.takes);
                    tracing::warn!(%peer, client, not_named, takes, "connection closed: {says}");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_are_long_after_some_that_were_and_not_after_one() {
        let after = |turns: &[Duration]| turns.iter().fold(0, |before, took| average(before, *took));
        let (long, short) = (Duration::from_secs(5), Duration::from_micros(10));
        assert!(after(&[long]) <= LONG_TURN, "the system had the thread wait");
        assert!(after(&[long, long]) > LONG_TURN);
        assert!(after(&[Duration::from_micros(450); 20]) > LONG_TURN);
        assert!(after(&[Duration::from_micros(350); 20]) <= LONG_TURN);
        assert!(after(&[long, long, long, short, short]) <= LONG_TURN, "it is as others again soon");
        assert_eq!(after(&[TURN_TIME; 100]) / 1_000, 999);
    }
}

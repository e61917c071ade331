//! A connection: takes frames, has what they ask for done, and sends what is to be said.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use rustc_hash::FxHashMap;
use sabir_base::panics::contain;
use sabir_broker::push::{AskFailure, Push, PushSeat, Scarcity};
use sabir_broker::queue::QueueOwner;
use sabir_broker::{Broker, Caller, SessionId};
use sabir_net::{
    Appetite, Closing, Connection, DropReason, Ending, ErrorPace, Grant, Io, Limits, LocalBoxFuture,
    OpenConnection, Patience, Session, Standing, Workers,
};
use tokio::time::Instant;

use super::asking::{Asked, Asker};
use super::channel::{Channel, Consumer};
use super::config::NAME;
use super::deliver::Deliveries;
use super::foreign::looks_like;
use super::frames::{Filled, Frames};
use super::frontend::{AmqpFrontend, EXCEPTION};
use super::kept::KeptMemory;
use super::login::{ClientProperties, MECHANISMS};
use super::publish::{ChannelId, Decision, HeldBack, Publisher};
use super::routes::Routes;
use super::settling::Settling;
use crate::session::{ClientEvent, ConnectionMachine, HeaderFound, Heartbeat, HeartbeatDue};
use crate::wire::*;

/// Bytes of the protocol header.
const HEADER: usize = 8;
/// Frames between two looks at the clock.
const LOOK: usize = 64;
/// How long a client may take to answer that its connection is closed, and to let go of it.
const FAREWELL: Duration = Duration::from_secs(3);
/// Bytes of what is held for a client, for which memory is granted at a time.
const PART: usize = 64 * 1024;
/// Bits of a consumer's number that are its channel's; the others say when it began.
const CHANNEL_BITS: u32 = u16::BITS;
const CHANNEL_MASK: u64 = u16::MAX as u64;
/// Requests of one kind that wait for their answers at the same time.
const ASKED: usize = 256;

/// A connection's end.
pub(super) struct AmqpSession {
    pub(super) amqp: Arc<AmqpFrontend>,
    /// The node's workers, asked for this connection.
    pub(super) workers: Workers,
    pub(super) open: Arc<OpenConnection>,
    pub(super) caller: Caller,
    pub(super) peer: IpAddr,
    pub(super) seat: Option<PushSeat>,
    pub(super) client: ClientProperties,
    /// As whom the client has logged in.
    pub(super) user: &'static str,
    pub(super) machine: ConnectionMachine,
    pub(super) out: FrameBuffer,
    pub(super) channels: FxHashMap<u16, Channel>,
    /// By the numbers by which the broker knows them.
    pub(super) consumers: FxHashMap<u64, Consumer>,
    pub(super) deliveries: Deliveries,
    /// What bounds the node's connections.
    pub(super) limits: Arc<Limits>,
    pub(super) publisher: Publisher,
    pub(super) routes: Routes,
    pub(super) settling: Settling,
    /// Consumers that may be given more.
    pub(super) refills: Vec<u64>,
    /// Channels on which there may be something to confirm.
    pub(super) confirming: Vec<ChannelId>,
    /// Requests whose answers take their time, in their order.
    pub(super) asked: VecDeque<Asked>,
    /// Consumers that the broker ended while an answer was waited for: it may be why, and is told first.
    cancelled: Vec<u64>,
    /// Waits for a shard that has no room for what is published.
    room: Option<LocalBoxFuture>,
    /// Whether the client is to publish no more, since there is no space for it.
    is_blocked: bool,
    /// What channels and consumers are numbered by.
    last_number: u64,
    /// Whether something that may take as long as a turn was done since the time was looked at.
    pub(super) may_be_over: bool,
    frames: Frames,
    /// Bytes that channels hold until they are committed.
    pub(super) held: usize,
    /// The same of what is being committed.
    pub(super) committing: usize,
    /// Memory for that, and for messages that have come in part.
    partial: Option<Grant>,
    /// Memory for channels and consumers.
    pub(super) kept: KeptMemory,
    /// From when heartbeats count.
    began: Instant,
    pub(super) heartbeat: Heartbeat,
    /// How the connection ends, once what is to be said of it is put out.
    pub(super) ending: Option<Ending>,
    /// When all was said on a connection that the client closed.
    pub(super) ended: Option<Instant>,
    /// Whether it takes its leave.
    is_leaving: bool,
    /// What its channels' errors are held to.
    errors: ErrorPace,
    /// It had too many of those: no frame is handled until then.
    paused: Option<Instant>,
}

impl AmqpSession {
    pub(super) fn new(amqp: Arc<AmqpFrontend>, connection: &Connection) -> Self {
        let open = connection.open.shared();
        Self {
            machine: ConnectionMachine::new(amqp.options.clone()),
            caller: Caller::client(NAME, SessionId(open.id().0)),
            workers: amqp.workers.asked_from(connection.peer.ip()),
            amqp,
            open,
            peer: connection.peer.ip(),
            seat: None,
            client: ClientProperties::default(),
            user: "",
            out: FrameBuffer::new(),
            channels: FxHashMap::default(),
            consumers: FxHashMap::default(),
            deliveries: Deliveries::default(),
            limits: connection.limits.clone(),
            publisher: Publisher::default(),
            routes: Routes::default(),
            settling: Settling::default(),
            refills: Vec::new(),
            confirming: Vec::new(),
            asked: VecDeque::new(),
            cancelled: Vec::new(),
            room: None,
            is_blocked: false,
            last_number: 0,
            may_be_over: false,
            frames: Frames::default(),
            held: 0,
            committing: 0,
            partial: None,
            kept: KeptMemory::default(),
            began: connection.opened,
            heartbeat: Heartbeat::new(0, 0),
            ending: None,
            ended: None,
            is_leaving: false,
            errors: ErrorPace::default(),
            paused: None,
        }
    }

    pub(super) fn broker(&self) -> &Broker {
        &self.amqp.broker
    }

    /// What asks the broker for this connection's client.
    pub(super) fn asker(&self) -> Asker {
        let (amqp, workers, caller) = (self.amqp.clone(), self.workers.clone(), self.caller.clone());
        Asker { amqp, workers, caller, connection: self.open.id() }
    }

    pub(super) fn number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }

    /// The number of another consumer, which says on which channel it is.
    pub(super) fn consumer_number(&mut self, channel: u16) -> u64 {
        self.number() << CHANNEL_BITS | u64::from(channel)
    }

    /// The owner of what is delivered to a consumer, whether that has ended or not; none if its channel has.
    pub(super) fn owner_of(&self, consumer: u64) -> Option<QueueOwner> {
        let number = channel_of(consumer)?;
        // A channel that was opened later has the same number, and nothing to do with it.
        let channel =
            self.channels.get(&number).filter(|channel| channel.id.serial < consumer >> CHANNEL_BITS);
        channel.map(|channel| channel.owner)
    }

    /// Whether frames are handled now.
    fn takes_frames(&self, io: &Io) -> bool {
        let is_free = self.is_leaving || (!io.is_draining() && self.ending.is_none());
        is_free
            && self.paused.is_none()
            && io.output.has_room_for_answers()
            && !self.machine.has_ended()
            && !self.machine.awaits_handlers()
    }

    /// Whether a frame is handled now, or what was asked for before comes first.
    fn is_due(&self, frame: &Frame<'_>) -> bool {
        if self.asked.is_empty() && self.publisher.is_idle() {
            return true;
        }
        let method = if frame.kind == FrameKind::Method { method_id(frame.payload) } else { None };
        if !self.is_leaving && method.is_some_and(|method| self.is_held_back(frame.channel, method)) {
            return false;
        }
        match self.asked.back() {
            Some(last) => {
                self.publisher.is_idle()
                    && self.asked.len() < ASKED
                    && method.is_some_and(|method| method == last.method && may_be_many(method))
            }
            None => !method.is_some_and(looks_at_queues),
        }
    }

    /// Whether a method waits for room in a shard: a message where as many wait as may, and what was said on a channel behind one that waits. What
    /// other channels say goes on: an acknowledgement may be what makes room.
    fn is_held_back(&self, channel: u16, method: (u16, u16)) -> bool {
        match method == <BasicPublish<'_> as MethodArguments>::ID {
            true => self.publisher.is_full(),
            false => self.publisher.holds_back(channel, self.broker()),
        }
    }

    /// Handles what has come, until the connection's turn is over.
    fn begin(&mut self, io: &mut Io) -> Result<bool, Ending> {
        let mut moved = false;
        while self.takes_frames(io) && !io.is_turn_over(Instant::now()) && self.fill(io)? {
            self.routes.turn();
            if !self.handle_frames(io) {
                break;
            }
            moved = true;
        }
        Ok(moved)
    }

    /// Sees to it that there are frames to handle, if they have come.
    fn fill(&mut self, io: &mut Io) -> Result<bool, Ending> {
        if !self.machine.has_begun() {
            return self.fill_header(io);
        }
        match self.frames.fill(io, self.machine.frame_max())? {
            Ok(filled) => Ok(matches!(filled, Filled::Yes)),
            Err(exception) => self.lose_track(exception, io).map(|()| false),
        }
    }

    fn fill_header(&mut self, io: &mut Io) -> Result<bool, Ending> {
        let properties = self.amqp.properties.as_table();
        match self.machine.begin(&io.input.bytes, properties, MECHANISMS, &mut self.out) {
            HeaderFound::Unsure => io.need(HEADER).map(|()| false),
            HeaderFound::Amqp091 => {
                io.take_passing_frame(HEADER);
                self.fill(io)
            }
            HeaderFound::Amqp10 { .. } | HeaderFound::OtherVersion | HeaderFound::Foreign => {
                self.machine.answer_version(&mut self.out);
                let says = match looks_like(&io.input.bytes) {
                    Some(other) => format!("it speaks what looks like {other}, and no AMQP 0-9-1"),
                    None => "it speaks no AMQP 0-9-1".into(),
                };
                self.ending = Some(Ending::dropped(DropReason::Foreign, says));
                Ok(false)
            }
        }
    }

    /// What came is no frame: nothing of it is looked at. A client that goes on so after having been told is not waited for.
    fn lose_track(&mut self, exception: ConnectionException, io: &mut Io) -> Result<(), Ending> {
        io.take_passing_frame(io.input.bytes.len());
        if self.is_leaving && io.output.is_empty() {
            return Err(Ending::Gone);
        }
        self.fail_connection(exception);
        Ok(())
    }

    /// Handles frames that were taken; says whether there was one that is due.
    fn handle_frames(&mut self, io: &Io) -> bool {
        let (bytes, mut at, mut handled) = (self.frames.left(), 0, 0);
        while at < bytes.len() && self.takes_frames(io) {
            let mut next = at;
            match Frame::next(&bytes, &mut next, self.machine.frame_max()) {
                Ok(Some(frame)) if self.is_due(&frame) => self.handle_frame(&frame),
                Ok(Some(_)) => break,
                // They were whole when they were taken: none is larger now than it was then.
                Ok(None) => next = bytes.len(),
                Err(exception) => {
                    self.fail_connection(exception);
                    next = bytes.len();
                }
            }
            at = next;
            handled += 1;
            if (handled % LOOK == 0 || std::mem::take(&mut self.may_be_over))
                && io.is_turn_over(Instant::now())
            {
                break;
            }
        }
        self.frames.handled(at);
        at > 0
    }

    fn handle_frame(&mut self, frame: &Frame<'_>) {
        if self.machine.is_running()
            && frame.kind == FrameKind::Method
            && ChannelOpen::is(frame.payload)
            && let Err(exception) =
                self.kept.admit_channel(&self.limits.frame_memory, self.machine.channels())
        {
            let cause = <ChannelOpen<'_> as MethodArguments>::ID;
            return self.fail_connection(exception.caused_by(cause));
        }
        if let Some(event) = self.machine.frame(frame, &mut self.out) {
            self.handle(event);
        }
    }

    /// Something is wrong: the channel ends, or the connection.
    pub(super) fn fail(&mut self, channel: u16, exception: impl Into<Exception>) {
        if let Some(event) = self.machine.fail(channel, exception.into(), &mut self.out) {
            self.handle(event);
        }
    }

    /// Something is wrong: the connection ends.
    pub(super) fn fail_connection(&mut self, exception: ConnectionException) {
        if let Some(event) = self.machine.fail_connection(exception, &mut self.out) {
            self.handle(event);
        }
    }

    fn handle(&mut self, event: ClientEvent<'_>) {
        match event {
            ClientEvent::Authenticate(start_ok) => self.authenticate(&start_ok),
            // No mechanism asks for more.
            ClientEvent::AuthenticateFurther(_) => {}
            ClientEvent::Tuned(tuning) => self.heartbeat = Heartbeat::new(tuning.heartbeat, self.now()),
            ClientEvent::OpenVirtualHost(name) => self.open_virtual_host(name.as_str()),
            // The one user there is proves who it is once.
            ClientEvent::UpdateSecret(_) => self.say(0, &ConnectionUpdateSecretOk {}),
            ClientEvent::ChannelOpened(number) => self.open_channel(number),
            ClientEvent::Request(number, request) => self.request(number, request),
            ClientEvent::Publish(number, content) => self.publish(number, &content),
            ClientEvent::ChannelClosing(number, _) => {
                self.lay_down(number);
                self.machine.channel_closed(number, &mut self.out);
            }
            ClientEvent::ChannelClosed(_) => {}
            ClientEvent::ChannelFailed(number, exception) => {
                let says = exception.reply_text();
                tracing::debug!(client = self.client.name, number, says, "channel closed");
                self.lay_down(number);
                self.hold_back(&says);
            }
            ClientEvent::ConnectionClosing(_) => self.begin_to_close(),
            ClientEvent::ConnectionFailed(exception) => {
                self.lay_all_down();
                let says = format!("it was told: {}", exception.reply_text());
                self.ending.get_or_insert(Ending::dropped(DropReason::Protocol(EXCEPTION), says));
            }
            ClientEvent::Ended => {}
        }
    }

    /// A channel has failed. A client that has that over and over is named in the log, and waits a little each time.
    fn hold_back(&mut self, says: &str) {
        let now = Instant::now();
        self.amqp.channel_failed();
        if let Some(many) = self.errors.are_many(now.into_std())
            && let Some(untold) = self.amqp.may_complain(now.into_std())
        {
            let (peer, client, not_named) = (self.peer, &self.client.name, (untold > 0).then_some(untold));
            tracing::warn!(%peer, client, not_named, "{many} of its channels failed within ten seconds, the last of them: {says}");
        }
        self.paused = self.errors.pause().map(|pause| now + pause);
    }

    fn open_channel(&mut self, number: u16) {
        let id = ChannelId { number, serial: self.number() };
        let owner = self.broker().queues().owner();
        self.channels.insert(number, Channel::new(id, owner));
    }

    /// Says something on a channel that is open.
    pub(super) fn say<M: MethodArguments>(&mut self, channel: u16, arguments: &M) {
        if self.machine.is_heard(channel) {
            self.out.arguments(channel, arguments);
        }
    }

    /// Answers what is known now, in the order of the requests.
    fn answer(&mut self, cx: &mut Context<'_>) -> bool {
        let mut moved = false;
        while let Some(first) = self.asked.front_mut()
            && let Poll::Ready(answer) = first.answering.as_mut().poll(cx)
        {
            if let Some(asked) = self.asked.pop_front() {
                self.answered(asked, answer);
            }
            moved = true;
        }
        moved
    }

    /// Tells of consumers that the broker has ended.
    fn tell_cancelled(&mut self) {
        if self.asked.is_empty() {
            let cancelled = std::mem::take(&mut self.cancelled);
            cancelled.into_iter().for_each(|consumer| self.end_cancelled(consumer));
        }
    }

    /// Hears what became of messages, and confirms them.
    fn confirm(&mut self, cx: &mut Context<'_>) -> bool {
        let Self { publisher, channels, confirming, .. } = self;
        let moved = publisher.poll_decision(cx, |id, decision| {
            let channel = channels.get_mut(&id.number).filter(|channel| channel.id == id);
            let Some(confirms) = channel.and_then(|channel| channel.confirms.as_mut()) else { return };
            match decision {
                Decision::Refused(tags) => confirms.refuse(tags),
                Decision::Decided(tags) => confirms.decide(tags),
            }
            if confirming.last() != Some(&id) {
                confirming.push(id);
            }
        });
        // A message goes back before it is confirmed.
        self.give_back_unroutable();
        self.say_confirms();
        moved
    }

    fn say_confirms(&mut self) {
        for id in std::mem::take(&mut self.confirming) {
            let channel = self.channels.get_mut(&id.number).filter(|channel| channel.id == id);
            if let Some(confirms) = channel.and_then(|channel| channel.confirms.as_mut()) {
                confirms.say(id.number, &mut self.out);
            }
        }
    }

    /// Tells the broker what was gathered, and sends it on its way.
    fn tell(&mut self) {
        self.send_batches();
        self.settling.tell(self.amqp.broker.queues());
        self.tell_refills();
        self.broker().flush();
    }

    /// Has the broker take the messages that came.
    pub(super) fn send_batches(&mut self) {
        let held_back = self.publisher.send(&self.amqp.broker, &self.caller);
        self.tell_blocked(matches!(held_back, Some(HeldBack::Full(_))));
        match held_back {
            None => self.room = None,
            Some(held_back) if self.room.is_none() => {
                self.room = Some(Box::pin(held_back.over(self.broker().clone())));
            }
            Some(_) => {}
        }
    }

    /// Tells a client that understands it whether it is to publish no more.
    fn tell_blocked(&mut self, is_blocked: bool) {
        if std::mem::replace(&mut self.is_blocked, is_blocked) != is_blocked {
            self.say_blocked(is_blocked.then(|| format!("low on {}", Scarcity::Disk)));
        }
    }

    fn say_blocked(&mut self, reason: Option<String>) {
        match reason {
            _ if !self.client.hears_blocked => {}
            Some(reason) => self.say(0, &ConnectionBlocked { reason: ShortStr::cut(&reason) }),
            None => self.say(0, &ConnectionUnblocked {}),
        }
    }

    fn wait_for_room(&mut self, cx: &mut Context<'_>) {
        while self.room.as_mut().is_some_and(|room| room.as_mut().poll(cx).is_ready()) {
            // It may be taken again before this one comes to it.
            self.room = None;
            self.send_batches();
        }
    }

    /// Milliseconds that heartbeats are reckoned by.
    fn now(&self) -> u64 {
        self.began.elapsed().as_millis() as u64
    }

    /// Gives a sign of life when one is due. That the client does so is the driver's to see.
    fn beat(&mut self) {
        let now = self.now();
        self.heartbeat.received(now);
        if self.machine.is_running() && self.heartbeat.due(now) == HeartbeatDue::Send {
            self.out.heartbeat();
        }
    }

    /// Puts out what is to be said.
    pub(super) fn put_out(&mut self, io: &mut Io) {
        if !self.out.is_empty() {
            let now = self.now();
            self.heartbeat.sent(now);
            self.out.take_told().for_each(|(piece, is_held)| match is_held {
                true => io.output.push_held(piece),
                false => io.output.push(piece),
            });
        }
    }

    fn held_bytes(&self) -> usize {
        let held = self.held + self.committing + self.publisher.held_bytes() + self.deliveries.held_bytes();
        self.machine.unfinished_bytes() as usize + held
    }

    /// Holds no more of the input than there is to be waited with, and counts that.
    fn settle(&mut self, io: &mut Io) -> Result<(), Ending> {
        self.frames.wait(io)?;
        self.machine.detach();
        self.kept.settle(self.machine.channels());
        self.deliveries.settle(&io.limits.frame_memory);
        let bytes = self.held_bytes();
        let granted = self.partial.as_ref().map_or(0, Grant::bytes);
        if bytes == 0 {
            self.partial = None;
        } else if bytes > granted {
            self.partial = None;
            let memory = &io.limits.frame_memory;
            let taken = memory.try_take(bytes.next_multiple_of(PART)).or_else(|| {
                self.deliveries.keep_first();
                memory.try_take(self.held_bytes().next_multiple_of(PART))
            });
            let taken = taken.or_else(|| {
                self.deliveries.keep_none();
                memory.try_take(self.held_bytes().next_multiple_of(PART))
            });
            let is_needed = self.held_bytes() > 0;
            self.partial = if is_needed { Some(taken.ok_or(DropReason::Memory)?) } else { None };
        }
        Ok(())
    }

    /// Whether nothing more is read or said: all has been, or the client had its time for that.
    fn is_over(&self, io: &Io) -> bool {
        let is_late = self.ended.is_some_and(|ended| ended.elapsed() >= FAREWELL);
        self.machine.has_ended() && (io.output.is_empty() || is_late)
    }
}

/// The channel that a consumer of that number is on, or was.
pub(super) fn channel_of(consumer: u64) -> Option<u16> {
    u16::try_from(consumer & CHANNEL_MASK).ok()
}

/// The method of a frame.
fn method_id(payload: &[u8]) -> Option<(u16, u16)> {
    let [c0, c1, m0, m1] = *payload.first_chunk()?;
    Some((u16::from_be_bytes([c0, c1]), u16::from_be_bytes([m0, m1])))
}

/// Whether requests of this kind may be under way at the same time: what one does is nothing to the next.
fn may_be_many(method: (u16, u16)) -> bool {
    let many = [
        <QueueDeclare<'_> as MethodArguments>::ID,
        <QueueBind<'_> as MethodArguments>::ID,
        <ExchangeBind<'_> as MethodArguments>::ID,
    ];
    many.contains(&method)
}

/// Whether a method asks for something that messages published before it count for: they are decided first.
fn looks_at_queues(method: (u16, u16)) -> bool {
    let (class, _) = method;
    matches!(class, 40 | 50 | 90) || method == <BasicGet<'_> as MethodArguments>::ID
}

impl Session for AmqpSession {
    type Push = Push;

    fn opened(&mut self, seat: PushSeat) {
        self.open.reach_by(seat.clone());
        self.seat = Some(seat);
    }

    fn pushed(&mut self, push: Push, io: &mut Io) -> Result<(), Ending> {
        match push {
            Push::Deliver(messages) => self.deliveries.add(messages),
            Push::Cancelled { consumer, .. } => self.cancelled.push(consumer),
            Push::Live(delivery) => self.deliver_reply(&delivery, io),
            // An append is answered to its caller.
            Push::Confirmed(_) => {}
            Push::Alarm { of, raised } => self.say_blocked(raised.then(|| format!("low on {of}"))),
            Push::Ask(ask) => ask.reply.into_iter().for_each(|reply| reply.refuse(AskFailure::Unsupported)),
        }
        Ok(())
    }

    fn advance(&mut self, io: &mut Io, cx: &mut Context<'_>) -> Result<bool, Ending> {
        self.paused = self.paused.filter(|until| *until > Instant::now());
        let held_back = self.room.is_some();
        self.wait_for_room(cx);
        self.try_again();
        let begun = self.begin(io)?;
        self.tell();
        let answered = self.answer(cx);
        self.tell_cancelled();
        let confirmed = self.confirm(cx);
        let delivered = self.deliver(io, cx);
        self.tell();
        self.beat();
        self.put_out(io);
        self.settle(io)?;
        match self.ending.take() {
            Some(ending) => Err(ending),
            None if self.is_over(io) => Err(Ending::Gone),
            None => Ok(held_back && self.room.is_none() || begun || answered || confirmed || delivered),
        }
    }

    fn appetite(&self, io: &Io) -> Appetite {
        let takes_all = self.asked.is_empty() && !self.publisher.is_full();
        if self.takes_frames(io) && takes_all { Appetite::All } else { Appetite::Little }
    }

    fn standing(&self) -> Standing {
        if !self.asked.is_empty() || !self.publisher.is_idle() {
            return Standing::Working;
        }
        match self.machine.is_running() {
            true => Standing::Waiting,
            false => Standing::Idle,
        }
    }

    /// A client that has logged in may be idle for as long as it gives signs of life.
    fn patience(&self, limits: &Limits) -> Patience {
        if !self.machine.is_running() {
            return Patience::of(limits, false);
        }
        let seconds = self.machine.tuning().map_or(0, |tuning| tuning.heartbeat);
        let silence = (seconds > 0).then(|| 2 * Duration::from_secs(seconds.into()));
        Patience { hello: None, idle: None, silence }
    }

    fn until(&self) -> Option<Instant> {
        if let Some(ended) = self.ended {
            return Some(ended + FAREWELL);
        }
        let beat = self.heartbeat.deadline().filter(|_| self.machine.is_running());
        let beat = beat.map(|ms| self.began + Duration::from_millis(ms));
        let again = self.deliveries.put_off.until().map(Instant::from_std);
        beat.into_iter().chain(again).chain(self.paused).min()
    }

    fn close(&mut self, why: &Ending, io: &mut Io) -> Closing {
        let says = match why {
            Ending::Dropped { reason: DropReason::Silent, .. } => return Closing::Now,
            Ending::Dropped { reason: DropReason::Foreign, .. } => return Closing::Flushed,
            Ending::Dropped { says, .. } => says.clone(),
            Ending::Gone | Ending::Broken(_) | Ending::Drained => {
                "broker forced connection closure with reason 'shutdown'".into()
            }
        };
        self.fail_connection(ConnectionException::new(ReplyCode::ConnectionForced, says));
        (self.ending, self.is_leaving) = (None, true);
        self.put_out(io);
        match self.machine.is_closing() {
            true => Closing::Until(Instant::now() + FAREWELL),
            false => Closing::Flushed,
        }
    }

    fn client(&self) -> &str {
        &self.client.name
    }
}

impl Drop for AmqpSession {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return self.end();
        }
        // What was gathered may be half of what the client said: it is not published, nor are messages settled by it.
        (self.publisher, self.settling) = (Publisher::default(), Settling::default());
        // What is half changed may well panic again, which here would end the process.
        contain(|| self.end());
    }
}

impl AmqpSession {
    /// Gives back and sends on its way all that there is.
    fn end(&mut self) {
        // What is asked for is waited for no more before all there is is given back, so that nothing is taken behind that.
        let taken: Vec<_> = self.asked.drain(..).flat_map(|asked| asked.takes).collect();
        self.lay_all_down();
        for (target, owner) in taken {
            self.amqp.broker.queues().release(target, owner, true);
        }
        self.publisher.send_all(&self.amqp.broker, &self.caller);
        self.tell();
        if !self.amqp.exclusive.of(self.open.id()).is_empty() {
            let (amqp, caller, connection) = (self.amqp.clone(), self.caller.clone(), self.open.id());
            self.amqp.tasks.spawn("amqp exclusive queues", move || async move {
                amqp.remove_exclusive(&caller, connection).await;
            });
        }
    }
}

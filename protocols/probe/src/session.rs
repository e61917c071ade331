//! A connection's end: takes lines, answers them in their order, and sends what is pushed between the answers.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt::Display;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use sabir_broker::push::{AskFailure, AskReply, Push, PushSeat};
use sabir_broker::{Broker, Caller, EntryRef, SessionId};
use sabir_frontend::GiveUp;
use sabir_model::{QueueConfig, ShardId};
use sabir_net::{
    Appetite, ClientKey, Closing, Connection, DropReason, Ending, ErrorPace, Io, Limits, LocalBoxFuture,
    OpenConnection, Patience, Session, Standing,
};
use tokio::time::Instant;

use crate::frontend::ProbeFrontend;
use crate::protocol::NAME;
use crate::records::{Shown, no_topic};
use crate::requests::{self, Answering, at_once, error};
use crate::subscription::Subscription;
use crate::wire::{self, BadLine, Command, GroupCommand};

/// Requests without an answer, subscriptions, and questions to the client without one.
const MOST_OPEN: usize = 64;

/// No more lines are taken while answers of so many bytes wait for those before them.
const MOST_WAITING: usize = 256 * 1024;

/// Partitions that a connection's subscriptions follow.
const MOST_FOLLOWED: usize = 10_000;

/// An answer under way.
struct Pending {
    answering: Answering,
    /// How it is given up, if it may take as long as others like.
    give_up: Option<GiveUp>,
}

pub(crate) struct ProbeSession {
    probe: Arc<ProbeFrontend>,
    open: Arc<OpenConnection>,
    caller: Caller,
    client: String,
    /// Where the client is told to connect.
    told: String,
    pending: VecDeque<Pending>,
    /// Waits for a shard in whose open blocks too much is.
    room: Option<LocalBoxFuture>,
    /// The next first that is to be asked what it has.
    subscriptions: VecDeque<Subscription>,
    /// Messages that may be sent.
    credit: u64,
    asked: BTreeMap<u64, AskReply>,
    /// The last entry that it wrote in each shard.
    written: HashMap<ShardId, EntryRef>,
    /// What subscriptions, questions and waits are numbered by.
    last: u64,
    /// The node ends the connection: nothing more is begun, and what waits for others is given up.
    gives_up: bool,
    peer: SocketAddr,
    /// What its requests' errors are held to.
    errors: ErrorPace,
    /// No line is taken before that.
    paused: Option<Instant>,
}

impl ProbeSession {
    pub(crate) fn new(probe: Arc<ProbeFrontend>, connection: &Connection) -> Self {
        Self {
            told: probe.told(connection.listener, connection.local),
            open: connection.open.shared(),
            caller: Caller::client(NAME, SessionId(connection.open.id().0)),
            probe,
            client: String::new(),
            pending: VecDeque::new(),
            room: None,
            subscriptions: VecDeque::new(),
            credit: 0,
            asked: BTreeMap::new(),
            written: HashMap::new(),
            last: 0,
            gives_up: false,
            peer: connection.peer,
            errors: ErrorPace::default(),
            paused: None,
        }
    }

    fn broker(&self) -> &Broker {
        &self.probe.broker
    }

    fn number(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    fn answer(&mut self, io: &mut Io, cx: &mut Context<'_>) -> bool {
        let mut moved = false;
        self.pending.iter_mut().for_each(|pending| pending.answering.look(cx));
        while let Some(first) = self.pending.front_mut()
            && let Poll::Ready(answer) = first.answering.poll(cx)
        {
            self.pending.pop_front();
            if answer.starts_with("ERR ") {
                self.failed(&answer);
            }
            put(io, answer);
            moved = true;
        }
        moved
    }

    /// A request has failed. A client that has that over and over is named in the log, and waits a little each time.
    fn failed(&mut self, answer: &str) {
        let now = Instant::now();
        self.probe.count_failed();
        if let Some(many) = self.errors.are_many(now.into_std())
            && self.probe.complaints.allows(now.into_std())
        {
            let (peer, client) = (self.peer, &self.client);
            tracing::warn!(%peer, client, "{many} of its requests failed within ten seconds, the last of them: {answer}");
        }
        self.paused = self.errors.pause().map(|pause| now + pause);
    }

    fn may_begin(&mut self, io: &Io, cx: &mut Context<'_>) -> bool {
        if self.room.as_mut().is_some_and(|room| room.as_mut().poll(cx).is_ready()) {
            self.room = None;
        }
        self.paused = self.paused.filter(|until| *until > Instant::now());
        self.takes_lines(io)
    }

    fn takes_lines(&self, io: &Io) -> bool {
        let waiting = || self.pending.iter().map(|pending| pending.answering.bytes()).sum::<usize>();
        !self.gives_up
            && self.room.is_none()
            && self.paused.is_none()
            && self.pending.len() < MOST_OPEN
            && !io.is_draining()
            && !io.output.is_full()
            && waiting() < MOST_WAITING
    }

    /// Begins what has come, until the connection's turn is over, and sends it on its way together.
    fn begin(&mut self, io: &mut Io, cx: &mut Context<'_>) -> Result<bool, Ending> {
        let mut moved = false;
        while self.may_begin(io, cx) {
            let Some(len) = wire::line_len(&io.input.bytes)? else {
                io.need(io.input.bytes.len() + 1)?;
                break;
            };
            let line = io.take_passing_frame(len);
            self.handle(&line);
            moved = true;
            if io.is_turn_over(Instant::now()) {
                break;
            }
        }
        if moved {
            self.broker().flush();
        }
        Ok(moved)
    }

    /// How many questions to the client wait for its answer. Those whose callers have given up are forgotten: an answer to one goes nowhere.
    fn awaited(&mut self) -> usize {
        self.asked.retain(|_, reply| reply.is_awaited());
        self.asked.len()
    }

    fn handle(&mut self, line: &Bytes) {
        let (answering, give_up) = match wire::parse(line) {
            Err(BadLine(what)) => (at_once(error(what)), None),
            Ok(Command::Credit { messages }) => {
                self.credit = self.credit.saturating_add(messages.into());
                return;
            }
            Ok(Command::Answer { number, text }) => {
                // One that is not waited for is not missed.
                let asked = self.asked.remove(&number);
                return asked
                    .into_iter()
                    .for_each(|asked| asked.send(Bytes::copy_from_slice(text.as_bytes())));
            }
            Ok(Command::Take { queue, ms }) => {
                let number = (self.open.id().0 << 32) + self.number();
                requests::take(&self.probe, &self.caller, queue, ms, number)
            }
            Ok(command) => (self.run(command), None),
        };
        self.pending.push_back(Pending { answering, give_up });
    }

    fn run(&mut self, command: Command<'_>) -> Answering {
        let (probe, caller) = (self.probe.clone(), self.caller.clone());
        match command {
            Command::Hello { client } => self.hello(client),
            Command::Queue { name } => requests::create_queue(probe, caller, name, QueueConfig::default()),
            Command::Retries { name, most, ms } => {
                requests::create_queue(probe, caller, name, requests::retries(most, ms))
            }
            Command::Create { topic, partitions } => requests::create(probe, caller, topic, partitions),
            Command::Publish { topic, partition, text } => {
                self.hold(probe.shard(&caller, topic, partition));
                requests::publish(&probe, &caller, topic, partition, text)
            }
            Command::Send { topics, text } => self.send(topics, text),
            Command::Keep { topic, partition, most, text } => {
                self.hold(probe.shard(&caller, topic, partition));
                requests::keep(&probe, &caller, (topic, partition), most, text)
            }
            Command::Offsets { topic } => requests::offsets(&probe, &caller, topic),
            Command::Read { topic, partition, offset, most } => {
                requests::read(probe, &caller, topic, partition, offset, most)
            }
            Command::Subscribe { topic } => self.subscribe(topic),
            Command::Set { name, value } => self.write(&format!("set {name} {value}")),
            Command::Add { name, number } => self.write(&format!("add {name} {number}")),
            Command::Get { name } => {
                requests::get(&probe, &caller, self.written.get(&probe.home(&caller)), name)
            }
            Command::Put { queue, value } => self.write(&format!("put {queue} {value}")),
            Command::Lease { queue, ms } => requests::lease(probe, &caller, queue, ms),
            Command::Done { queue, lease } => requests::end_lease(&probe, &caller, queue, "done", &[lease]),
            Command::Return { queue, lease } => {
                requests::end_lease(&probe, &caller, queue, "return", &[lease])
            }
            Command::Delay { queue, lease, ms } => requests::delay(&probe, &caller, queue, lease, ms),
            Command::Group { topic, partition, group, what } => self.group(topic, partition, group, what),
            // Handled before: they have no answer, or may wait.
            Command::Credit { .. } | Command::Answer { .. } | Command::Take { .. } => {
                at_once(error("unexpected"))
            }
        }
    }

    fn group(&mut self, topic: &str, partition: i32, group: &str, what: GroupCommand<'_>) -> Answering {
        let place = match self.probe.used(&self.caller, topic, partition) {
            Ok(place) => place,
            Err(why) => return at_once(error(why)),
        };
        let behind = self.written.get(&place.shard);
        let (answering, written) = requests::group(&self.probe, &self.caller, place, group, what, behind);
        if let Some(written) = written {
            self.written.insert(place.shard, written);
        }
        self.hold(Some(place.shard));
        answering
    }

    /// Takes no more lines while too much waits to be written there.
    fn hold(&mut self, shard: Option<ShardId>) {
        if let Some(shard) = shard.filter(|shard| !self.broker().has_room(*shard)) {
            let broker = self.broker().clone();
            self.room = Some(Box::pin(async move { broker.room(shard).await }));
        }
    }

    fn send(&mut self, topics: &str, text: &str) -> Answering {
        match self.probe.targets(&self.caller, topics) {
            Err(why) => at_once(error(why)),
            Ok(targets) => {
                self.hold(self.broker().crowded_by(&targets));
                requests::send(&self.probe, &self.caller, targets, text)
            }
        }
    }

    fn write(&mut self, words: &str) -> Answering {
        let home = self.probe.home(&self.caller);
        let written = self.probe.write(&self.caller, home, words);
        if let Ok((entry, _)) = &written {
            self.written.insert(home, entry.clone());
        }
        self.hold(Some(home));
        requests::entry(written)
    }

    /// Takes a name, and waits until the connection that had it is gone.
    fn hello(&mut self, client: &str) -> Answering {
        self.client = client.to_owned();
        self.open.introduce(client);
        let key = ClientKey { front_end: NAME, namespace: "".into(), client: client.into() };
        let former = self.probe.registry.take_over(key, &self.open);
        let told = self.told.clone();
        requests::soon(async move {
            if let Some(former) = former {
                former.close(DropReason::TakenOver);
                former.ended().await;
            }
            format!("OK {told}")
        })
    }

    fn subscribe(&mut self, topic: &str) -> Answering {
        if self.subscriptions.len() >= MOST_OPEN {
            return at_once(error("too many subscriptions"));
        }
        let Some(topic) = self.broker().catalog().topic_of(&self.caller, topic).cloned() else {
            return at_once(error(no_topic(topic)));
        };
        let followed: usize = self.subscriptions.iter().map(|subscription| subscription.partitions).sum();
        if followed + topic.partitions.len() > MOST_FOLLOWED {
            return at_once(error("its subscriptions would follow too many partitions"));
        }
        let number = self.number();
        match Subscription::begin(number, self.probe.clone(), &self.caller, &topic) {
            Err(failure) => at_once(error(failure)),
            Ok(begun) => {
                self.subscriptions.push_back(begun);
                at_once(format!("OK {number}"))
            }
        }
    }

    /// Sends what subscriptions have, as far as credit goes, until the connection's turn is over: the others go first in the next one.
    fn feed(&mut self, io: &mut Io, cx: &mut Context<'_>) -> bool {
        let mut moved = false;
        for _ in 0..self.subscriptions.len() {
            let Some(mut subscription) = self.subscriptions.pop_front() else { break };
            let (sent, ended) = self.feed_from(&mut subscription, io, cx);
            moved |= sent;
            if !ended {
                self.subscriptions.push_back(subscription);
            }
            if io.is_turn_over(Instant::now()) {
                break;
            }
        }
        moved
    }

    /// Sends what one subscription has. Says whether it had something, and whether it has ended.
    fn feed_from(
        &mut self,
        subscription: &mut Subscription,
        io: &mut Io,
        cx: &mut Context<'_>,
    ) -> (bool, bool) {
        let mut moved = false;
        while self.credit > 0 && !io.output.is_full() && !self.gives_up {
            match subscription.poll_next(cx) {
                Poll::Pending => break,
                Poll::Ready(Ok(record)) => {
                    self.credit -= 1;
                    put_message(io, subscription.number, &record);
                    moved = true;
                }
                Poll::Ready(Err(failure)) => {
                    put_end(io, subscription.number, failure);
                    return (true, true);
                }
            }
            if io.is_turn_over(Instant::now()) {
                break;
            }
        }
        (moved, false)
    }
}

fn put(io: &mut Io, mut line: String) {
    line.push('\n');
    io.output.push(line.into());
}

fn put_message(io: &mut Io, subscription: u64, record: &Shown) {
    put(io, format!("MSG {subscription} {} {} {}", record.partition, record.offset, record.text));
}

fn put_end(io: &mut Io, subscription: u64, why: impl Display) {
    put(io, format!("END {subscription} {why}"));
}

impl Session for ProbeSession {
    type Push = Push;

    fn opened(&mut self, seat: PushSeat) {
        self.open.reach_by(seat);
    }

    fn pushed(&mut self, push: Push, io: &mut Io) -> Result<(), Ending> {
        match push {
            Push::Deliver(delivery) => {
                let Range { start, end } = delivery.offsets;
                let seen = if delivery.redelivered { " again" } else { "" };
                put(io, format!("DELIVER {} {start} {end}{seen}", delivery.consumer));
            }
            Push::Live(delivery) => {
                let text = delivery.message.downcast_ref::<String>().map_or("", String::as_str);
                put(io, format!("LIVE {} {text}", delivery.consumer));
            }
            Push::Confirmed(confirmation) => {
                let word = if confirmation.stored { "CONFIRMED" } else { "REFUSED" };
                put(io, format!("{word} {}", confirmation.number));
            }
            Push::Cancelled { consumer, why } => put_end(io, consumer, why),
            Push::Alarm { of, raised } => {
                put(io, format!("ALARM {of} {}", if raised { "on" } else { "off" }))
            }
            Push::Ask(ask) => match ask.reply {
                // Nobody hears what the client would say.
                Some(reply) if !reply.is_awaited() => {}
                Some(reply) if self.awaited() >= MOST_OPEN => reply.refuse(AskFailure::Busy),
                reply => {
                    let number = self.number();
                    self.asked.extend(reply.map(|reply| (number, reply)));
                    put(io, format!("ASK {number} {}", String::from_utf8_lossy(&ask.payload)));
                }
            },
        }
        Ok(())
    }

    fn advance(&mut self, io: &mut Io, cx: &mut Context<'_>) -> Result<bool, Ending> {
        let answered = self.answer(io, cx);
        let begun = self.begin(io, cx)?;
        let fed = self.feed(io, cx);
        Ok(answered | begun | fed)
    }

    fn appetite(&self, io: &Io) -> Appetite {
        if self.takes_lines(io) { Appetite::All } else { Appetite::Little }
    }

    fn standing(&self) -> Standing {
        // What stands behind one that waits for others waits as long.
        match self.pending.front().is_some_and(|first| self.gives_up || first.give_up.is_none()) {
            true => Standing::Working,
            false if self.pending.is_empty() && self.subscriptions.is_empty() => Standing::Idle,
            false => Standing::Waiting,
        }
    }

    fn until(&self) -> Option<Instant> {
        self.paused
    }

    fn patience(&self, limits: &Limits) -> Patience {
        Patience::of(limits, !self.client.is_empty())
    }

    fn give_up(&mut self) -> bool {
        let parked = self.pending.iter().filter_map(|pending| pending.give_up.as_ref());
        if !std::mem::replace(&mut self.gives_up, true) {
            parked.clone().for_each(|give_up| give_up.clone().begin());
        }
        parked.count() > 0
    }

    fn close(&mut self, why: &Ending, io: &mut Io) -> Closing {
        let says = match why {
            Ending::Dropped { says, .. } => says,
            Ending::Gone | Ending::Broken(_) | Ending::Drained => "the node goes down",
        };
        put(io, format!("BYE {says}"));
        Closing::Flushed
    }

    fn client(&self) -> &str {
        &self.client
    }
}

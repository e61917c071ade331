//! Load on a broker. At a rate, a message's latency counts from when it was due, so that a broker that stalls is charged for the messages
//! that could not be sent meanwhile, too.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use sabir_frontend::client::{
    ClientError, Endpoint, Failure, Load, LoadPlan, LoadProgress, LoadReport, LoadTally,
};

use super::link::{Came, Link, LinkReader, LinkWriter, unexpected};
use super::options::Loading;
use crate::wire::*;

/// A message begins with when it was due.
const HEAD: usize = 8;
/// Messages that are written before it is looked again.
const AT_ONCE: u64 = 256;
/// Messages that were sent and not read, end to end and without confirms: a queue that grows is no measure of latency.
const UNREAD: u64 = 50_000;
/// How long the last messages are waited for.
const GRACE: Duration = Duration::from_secs(10);
/// How long a reader waits before it looks whether it is done.
const TURN: Duration = Duration::from_millis(50);
/// At a rate, how long is slept at once: messages that are due within it are sent together.
const TICK: Duration = Duration::from_millis(1);

/// Runs a plan, counting into `progress`.
pub(super) async fn run(
    to: &Endpoint,
    plan: &LoadPlan,
    progress: &'static LoadProgress,
) -> Result<LoadReport, ClientError> {
    let loading = Loading::of(&plan.options)?;
    if plan.load != Load::Consume && plan.size < HEAD {
        let text = format!("a message has at least {HEAD} bytes");
        return Err(ClientError::new(Failure::Refused, text));
    }
    let bench = Rc::new(Bench::new(plan.clone(), loading, progress));
    let mut lanes = Vec::new();
    for number in 0..plan.clients.max(1) {
        lanes.push(Lane::open(to, &bench, number).await?);
    }
    let running: Vec<_> = lanes.into_iter().map(|lane| tokio::task::spawn_local(lane.run())).collect();
    for lane in running {
        lane.await.map_err(|e| ClientError::new(Failure::Broken, format!("a client ended early: {e}")))??;
    }
    Ok(bench.tally.report())
}

/// What all clients share.
struct Bench {
    plan: LoadPlan,
    loading: Loading,
    /// The correlation id of messages that are read end to end: others are no part of it.
    run: [u8; 8],
    tally: LoadTally,
    flow: RefCell<Flow>,
}

impl Bench {
    fn new(plan: LoadPlan, loading: Loading, progress: &'static LoadProgress) -> Self {
        let run = RandomState::new().hash_one(0).to_be_bytes();
        Self { tally: LoadTally::new(&plan, progress), plan, loading, run, flow: RefCell::default() }
    }
}

/// A client: a connection that publishes, one that reads, or both.
struct Lane {
    bench: Rc<Bench>,
    queue: String,
    number: usize,
    publishes: Option<Link>,
    reads: Option<Link>,
}

/// What is on its way, of all clients: one that shares a queue reads what others have sent, too.
#[derive(Default)]
struct Flow {
    sent: u64,
    read: u64,
    /// Clients that send.
    sending: usize,
}

impl Flow {
    fn unread(&self) -> u64 {
        self.sent.saturating_sub(self.read)
    }
}

impl Lane {
    async fn open(to: &Endpoint, bench: &Rc<Bench>, number: usize) -> Result<Self, ClientError> {
        let queue = match bench.loading.queues {
            1 => bench.plan.topic.clone(),
            several => format!("{}-{}", bench.plan.topic, number % several),
        };
        let (publishes, reads) = match bench.plan.load {
            Load::Produce => (true, false),
            Load::Consume => (false, true),
            Load::EndToEnd => (true, true),
        };
        let mut lane = Self {
            bench: bench.clone(),
            queue,
            number,
            publishes: if publishes { Some(Link::open(to).await?) } else { None },
            reads: if reads { Some(Link::open(to).await?) } else { None },
        };
        lane.prepare().await?;
        if publishes {
            bench.flow.borrow_mut().sending += 1;
        }
        Ok(lane)
    }

    async fn prepare(&mut self) -> Result<(), ClientError> {
        let Loading { confirm, prefetch, transient, quorum, delay, .. } = self.bench.loading;
        let queue = ShortStr::new(&self.queue);
        let queue =
            queue.ok_or_else(|| ClientError::new(Failure::Refused, "the topic's name is too long"))?;
        if let Some(link) = &mut self.publishes {
            let mut arguments = FieldTableBuf::new();
            if quorum {
                arguments.push(ShortBytes::cut("x-queue-type"), FieldValue::LongStr(b"quorum"));
            }
            let arguments = arguments.as_table();
            let declare = QueueDeclare { queue, durable: !transient, arguments, ..Default::default() };
            let declared = link.ask(1, &declare).await?;
            let Method::QueueDeclareOk(declared) = declared.method() else {
                return Err(unexpected(&declared));
            };
            if self.bench.plan.load == Load::EndToEnd && declared.message_count > 0 {
                return Err(not_empty(&self.queue, declared.message_count));
            }
            if !delay.is_zero() {
                delay_by(link, queue, !transient).await?;
            }
            if confirm > 0 {
                let selected = link.ask(1, &ConfirmSelect::default()).await?;
                let Method::ConfirmSelectOk(_) = selected.method() else { return Err(unexpected(&selected)) };
            }
        }
        if let Some(link) = &mut self.reads {
            if prefetch > 0 {
                let bound = link.ask(1, &BasicQos { prefetch_count: prefetch, ..Default::default() }).await?;
                let Method::BasicQosOk(_) = bound.method() else { return Err(unexpected(&bound)) };
            }
            let consume = BasicConsume { queue, no_ack: prefetch == 0, ..Default::default() };
            let consuming = link.ask(1, &consume).await?;
            let Method::BasicConsumeOk(_) = consuming.method() else { return Err(unexpected(&consuming)) };
        }
        Ok(())
    }

    async fn run(self) -> Result<(), ClientError> {
        let Self { bench, queue, number, publishes, reads } = self;
        let is_end_to_end = bench.plan.load == Load::EndToEnd;
        let reading = reads.map(|link| {
            let reader = Reader { bench: bench.clone(), link, is_end_to_end, unacked: 0, last: 0 };
            tokio::task::spawn_local(reader.run())
        });
        if let Some(link) = publishes {
            let written = Writer::new(bench.clone(), link, &queue, number, is_end_to_end).run().await;
            bench.flow.borrow_mut().sending -= 1;
            written?;
        }
        match reading {
            Some(reading) => {
                let ended = reading.await;
                ended.map_err(|e| ClientError::new(Failure::Broken, format!("a client ended early: {e}")))?
            }
            None => Ok(()),
        }
    }
}

/// The exchange by which messages for a queue are delayed.
fn delaying(queue: &str) -> String {
    format!("{queue}-delayed")
}

/// Has a queue be sent messages by an exchange that delays them.
async fn delay_by(link: &mut Link, queue: ShortStr<'_>, durable: bool) -> Result<(), ClientError> {
    let (name, mut arguments) = (delaying(queue.as_str()), FieldTableBuf::new());
    arguments.push(ShortBytes::cut("x-delayed-type"), FieldValue::LongStr(b"direct"));
    let (exchange, kind) = (ShortStr::cut(&name), ShortStr::cut("x-delayed-message"));
    let declare =
        ExchangeDeclare { exchange, kind, durable, arguments: arguments.as_table(), ..Default::default() };
    let declared = link.ask(1, &declare).await?;
    let Method::ExchangeDeclareOk(_) = declared.method() else { return Err(unexpected(&declared)) };
    let bind = QueueBind { queue, exchange, routing_key: queue, ..Default::default() };
    let bound = link.ask(1, &bind).await?;
    let Method::QueueBindOk(_) = bound.method() else { return Err(unexpected(&bound)) };
    Ok(())
}

/// What waits already would come first, and its time in the queue would be taken for that of this load's messages.
fn not_empty(queue: &str, messages: u32) -> ClientError {
    let text =
        format!("queue {queue} has {messages} messages already, behind which those of this load would wait");
    let advice =
        "Name another queue with --topic, or have this one read first (`sabir bench consume`) or purged.";
    ClientError::new(Failure::Refused, text).advise(advice)
}

/// The end that publishes.
struct Writer {
    bench: Rc<Bench>,
    incoming: LinkReader,
    outgoing: LinkWriter,
    queue: Vec<u8>,
    /// Empty: the default one.
    exchange: String,
    delays: RandomState,
    content: Vec<u8>,
    is_end_to_end: bool,
    /// When those were due that are not confirmed: (the last tag of a row, when).
    open: VecDeque<(u64, u64)>,
    sent: u64,
    confirmed: u64,
}

impl Writer {
    fn new(bench: Rc<Bench>, link: Link, queue: &str, number: usize, is_end_to_end: bool) -> Self {
        let letter = |at: usize| b'A' + ((at * 7919 + number) % 26) as u8;
        Self {
            content: (0..bench.plan.size).map(letter).collect(),
            exchange: if bench.loading.delay.is_zero() { String::new() } else { delaying(queue) },
            delays: RandomState::new(),
            bench,
            incoming: link.incoming,
            outgoing: link.outgoing,
            queue: queue.as_bytes().to_vec(),
            is_end_to_end,
            open: VecDeque::new(),
            sent: 0,
            confirmed: 0,
        }
    }

    async fn run(mut self) -> Result<(), ClientError> {
        let clients = self.bench.plan.clients.max(1) as f64;
        match self.bench.plan.rate.map(|rate| rate / clients) {
            None => self.flat_out().await?,
            Some(rate) => self.at_rate(rate).await?,
        }
        while self.bench.loading.confirm > 0 && self.confirmed < self.sent {
            let heard = tokio::time::timeout(GRACE, self.hear()).await;
            heard.map_err(|_| ClientError::new(Failure::Timeout, "confirmations are missing"))??;
        }
        Ok(())
    }

    async fn flat_out(&mut self) -> Result<(), ClientError> {
        loop {
            let wanted = self.room().await?.min(AT_ONCE);
            let count = self.bench.tally.take(wanted);
            if count == 0 {
                return Ok(());
            }
            let now = self.bench.tally.now();
            self.write(count, |_| now).await?;
            tokio::task::yield_now().await;
        }
    }

    async fn at_rate(&mut self, rate: f64) -> Result<(), ClientError> {
        let (began, mut index) = (self.bench.tally.now(), 0);
        loop {
            let due = |index: u64| began + (index as f64 * 1e9 / rate) as u64;
            let elapsed = self.bench.tally.now() - began;
            let ripe = (elapsed as f64 * rate / 1e9) as u64 + 1;
            let count = self.bench.tally.take(ripe.saturating_sub(index).min(AT_ONCE));
            if count > 0 {
                self.write(count, |at| due(index + at)).await?;
                index += count;
            } else if self.bench.tally.is_spent() {
                return Ok(());
            } else {
                self.hear_for(TICK).await?;
            }
        }
    }

    /// How many messages may be sent now.
    async fn room(&mut self) -> Result<u64, ClientError> {
        loop {
            let confirm = self.bench.loading.confirm;
            let is_read = self.is_end_to_end && self.bench.loading.delay.is_zero();
            let unread = if is_read { self.bench.flow.borrow().unread() } else { 0 };
            let unconfirmed = if confirm > 0 { self.sent - self.confirmed } else { 0 };
            let most = if confirm > 0 { confirm } else { UNREAD };
            if unconfirmed < most && unread < UNREAD {
                return Ok((most - unconfirmed).min(UNREAD - unread));
            }
            if self.bench.tally.is_over() {
                return Ok(0);
            }
            if unconfirmed > 0 && unread < UNREAD {
                self.hear().await?;
            } else {
                self.hear_for(TICK).await?;
            }
        }
    }

    async fn write(&mut self, count: u64, due: impl Fn(u64) -> u64) -> Result<(), ClientError> {
        let routing_key = ShortBytes::new(&self.queue).unwrap_or_default();
        let exchange = ShortBytes::cut(&self.exchange);
        let publish = BasicPublish { exchange, routing_key, ..Default::default() };
        let undelayed = self.properties(None);
        for at in 0..count {
            let delay_ms = self.delay_ms(self.sent + at);
            let delayed = delay_ms.map(|ms| self.properties(Some(ms)));
            let due_at = due(at) + u64::from(delay_ms.unwrap_or(0)) * 1_000_000;
            self.content[..HEAD].copy_from_slice(&due_at.to_be_bytes());
            let body = ContentBody::of(Bytes::copy_from_slice(&self.content));
            let (out, frame_max) = (&mut self.outgoing.out, self.outgoing.frame_max);
            let written = out.content(1, &publish, delayed.as_ref().unwrap_or(&undelayed), &body, frame_max);
            written.expect("so few properties fit any frame");
            if self.bench.loading.confirm > 0 {
                self.open.push_back((self.sent + at + 1, due(at)));
            }
        }
        self.sent += count;
        self.bench.flow.borrow_mut().sent += count;
        self.outgoing.flush().await
    }

    /// By how much a message is delayed.
    fn delay_ms(&self, number: u64) -> Option<u32> {
        let most = u32::try_from(self.bench.loading.delay.as_millis()).unwrap_or(u32::MAX);
        (most > 0).then(|| (self.delays.hash_one(number) % u64::from(most)) as u32)
    }

    fn properties(&self, delay_ms: Option<u32>) -> Bytes {
        let mut headers = FieldTableBuf::new();
        if let Some(ms) = delay_ms {
            headers.push(ShortBytes::cut("x-delay"), FieldValue::I64(ms.into()));
        }
        let headers = delay_ms.is_some().then(|| headers.as_table());
        let delivery_mode = Some(if self.bench.loading.transient { 1 } else { 2 });
        let correlation_id = self.is_end_to_end.then(|| ShortBytes::new(&self.bench.run).unwrap_or_default());
        BasicProperties { delivery_mode, correlation_id, headers, ..Default::default() }.to_bytes()
    }

    /// Waits for what the broker says, and takes it.
    async fn hear(&mut self) -> Result<(), ClientError> {
        let came = self.incoming.next().await?;
        self.take(&came)?;
        while let Some(came) = self.incoming.take() {
            self.take(&came)?;
        }
        Ok(())
    }

    /// The same for no longer than that.
    async fn hear_for(&mut self, time: Duration) -> Result<(), ClientError> {
        tokio::time::timeout(time, self.hear()).await.unwrap_or(Ok(()))
    }

    fn take(&mut self, came: &Came) -> Result<(), ClientError> {
        let (tag, taken) = match came.method() {
            Method::BasicAck(ack) => (ack.delivery_tag, true),
            Method::BasicNack(nack) => (nack.delivery_tag, false),
            _ => return Err(unexpected(came)),
        };
        let now = self.bench.tally.now();
        while let Some((open, due)) = self.open.front().copied().filter(|(open, _)| *open <= tag) {
            self.open.pop_front();
            self.confirmed = open;
            match taken {
                // End to end it is done when it is read.
                true if !self.is_end_to_end => self.bench.tally.done(self.content.len() as u64, due, now),
                true => {}
                false => self.bench.tally.failed("the broker did not take a message"),
            }
        }
        Ok(())
    }
}

/// The end that reads.
struct Reader {
    bench: Rc<Bench>,
    link: Link,
    is_end_to_end: bool,
    /// Messages that are not acknowledged yet, and the tag of the last of them.
    unacked: u64,
    last: u64,
}

impl Reader {
    async fn run(mut self) -> Result<(), ClientError> {
        let mut idle_since = Instant::now();
        while !self.is_done(idle_since) {
            match tokio::time::timeout(TURN, self.link.incoming.fill()).await {
                Ok(filled) => filled?,
                Err(_) => continue,
            }
            let now = self.bench.tally.now();
            while let Some(came) = self.link.incoming.take() {
                let Method::BasicDeliver(deliver) = came.method() else { return Err(unexpected(&came)) };
                if !self.count(&came, now) {
                    continue;
                }
                idle_since = Instant::now();
                (self.last, self.unacked) = (deliver.delivery_tag, self.unacked + 1);
                if self.unacked >= self.bench.loading.ack_every {
                    self.acknowledge();
                }
            }
            self.link.outgoing.flush().await?;
        }
        self.leave().await
    }

    fn acknowledge(&mut self) {
        if self.bench.loading.prefetch > 0 && self.unacked > 0 {
            self.link.outgoing.out.arguments(1, &BasicAck { delivery_tag: self.last, multiple: true });
        }
        self.unacked = 0;
    }

    /// Ends the channel and waits until the broker has taken that: what was acknowledged is settled, and what was not goes back to the queue.
    async fn leave(mut self) -> Result<(), ClientError> {
        if self.bench.loading.prefetch == 0 {
            return Ok(());
        }
        self.acknowledge();
        self.link.outgoing.out.arguments(1, &ChannelClose { reply_code: 200, ..Default::default() });
        self.link.outgoing.flush().await?;
        let closed = async {
            while !matches!(self.link.incoming.next().await?.method(), Method::ChannelCloseOk(_)) {}
            Ok(())
        };
        let missing = |_| ClientError::new(Failure::Timeout, "the channel does not close");
        tokio::time::timeout(GRACE, closed).await.map_err(missing)?
    }

    /// Whether a message is to be acknowledged: one too many is not. End to end, one of another load is, but does not count.
    fn count(&self, came: &Came, now: u64) -> bool {
        let bytes = came.body.len();
        if !self.is_end_to_end {
            // What is there already is read as fast as it goes: there is no latency in that.
            let taken = self.bench.tally.take(1) > 0;
            if taken {
                self.bench.tally.done(bytes, now, now);
            }
            return taken;
        }
        let properties = BasicProperties::read(&came.properties).unwrap_or_default();
        let is_ours = properties.correlation_id.is_some_and(|id| id.as_bytes() == self.bench.run);
        let first = came.body.pieces().next().and_then(|piece| piece.first_chunk::<HEAD>());
        if let Some(head) = first.filter(|_| is_ours) {
            self.bench.tally.done(bytes, u64::from_be_bytes(*head), now);
            self.bench.flow.borrow_mut().read += 1;
        }
        true
    }

    fn is_done(&self, idle_since: Instant) -> bool {
        let is_idle = idle_since.elapsed() > GRACE + self.bench.loading.delay;
        if self.is_end_to_end {
            let flow = self.bench.flow.borrow();
            return flow.sending == 0 && (flow.unread() == 0 || is_idle);
        }
        self.bench.tally.is_spent() || is_idle
    }
}

//! Load on a broker: every request is a message, and so many of them are under way. At a rate, a message's latency counts from when it was
//! due, so that a broker that stalls is charged for the messages that could not be sent meanwhile, too.

use std::cell::Cell;
use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::{Buf, BytesMut};
use sabir_frontend::client::{
    ClientError, ClientOption, Endpoint, Failure, Load, LoadPlan, LoadProgress, LoadReport, LoadTally, Socket,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{broken, connect, failed, number, refused};

/// Messages of one read, and of one credit.
const AT_ONCE: u64 = 500;
/// Requests of a client that may be under way.
const MOST_IN_FLIGHT: u32 = 10_000;
/// How long an end waits for answers before it looks at the time.
const TICK: Duration = Duration::from_millis(1);
/// How long the last messages are waited for.
const GRACE: Duration = Duration::from_secs(10);
/// Messages that were sent and not read, end to end.
const UNREAD: u64 = 50_000;
/// What a message begins with: when it was due, and which load it is of.
const HEAD: usize = DUE + RUN;
const DUE: usize = 20;
const RUN: usize = 8;

const IN_FLIGHT: ClientOption = ClientOption {
    name: "in-flight",
    value: Some("REQUESTS"),
    default: "5",
    help: "Requests under way at once, per connection",
    check: |text| in_flight(text).map(drop),
};

pub(super) const LOAD: &[ClientOption] = &[IN_FLIGHT];

fn in_flight(text: &str) -> Result<u32, String> {
    let number = text.parse().ok().filter(|number| (1..=MOST_IN_FLIGHT).contains(number));
    number.ok_or_else(|| format!("expected a number from 1 to {MOST_IN_FLIGHT}"))
}

fn wrong(what: impl Into<String>) -> ClientError {
    ClientError::new(Failure::Refused, what)
}

/// Runs a plan, counting into `progress`.
pub(super) async fn run(
    to: &Endpoint,
    plan: LoadPlan,
    progress: &'static LoadProgress,
) -> Result<LoadReport, ClientError> {
    let in_flight = in_flight(plan.options.get(&IN_FLIGHT)).map_err(wrong)?;
    if plan.load != Load::Consume && plan.size < HEAD {
        return Err(wrong(format!("a message has at least {HEAD} bytes")));
    }
    let tally = LoadTally::new(&plan, progress);
    let run = format!("{:0RUN$x}", RandomState::new().hash_one(0) as u32);
    let (sent, read) = Default::default();
    let bench = Rc::new(Bench { plan, in_flight: in_flight.into(), run, tally, sent, read });
    match bench.plan.load {
        Load::Consume => consume(to, &bench).await?,
        Load::Produce => publish(to, &bench).await?,
        Load::EndToEnd => end_to_end(to, &bench).await?,
    }
    Ok(bench.tally.report())
}

/// What all clients share.
struct Bench {
    plan: LoadPlan,
    in_flight: u64,
    /// What messages that are read end to end say behind their times: others are no part of it.
    run: String,
    tally: LoadTally,
    /// Messages that were sent and not refused, and those that were read end to end.
    sent: Cell<u64>,
    read: Cell<u64>,
}

fn add(counter: &Cell<u64>, count: u64) {
    counter.set(counter.get() + count);
}

/// A connection whose lines are read as they come.
struct Lines {
    socket: Socket,
    buffer: BytesMut,
}

impl Lines {
    async fn open(to: &Endpoint) -> Result<Self, ClientError> {
        Ok(Self { socket: connect(to).await?.into_inner(), buffer: BytesMut::new() })
    }

    async fn write(&mut self, text: &str) -> Result<(), ClientError> {
        self.socket.write_all(text.as_bytes()).await.map_err(failed)
    }

    /// Waits for more, for no longer than that.
    async fn fill(&mut self, within: Duration) -> Result<(), ClientError> {
        match tokio::time::timeout(within, self.socket.read_buf(&mut self.buffer)).await {
            Err(_) => Ok(()),
            Ok(Ok(0)) => Err(ClientError::new(Failure::Broken, "the connection was closed")),
            Ok(read) => read.map(drop).map_err(failed),
        }
    }

    /// The next line of those that are there whole.
    fn next(&mut self) -> Option<String> {
        let len = self.buffer.iter().position(|byte| *byte == b'\n')?;
        let line = String::from_utf8_lossy(&self.buffer[..len]).into_owned();
        self.buffer.advance(len + 1);
        Some(line)
    }

    async fn line(&mut self) -> Result<String, ClientError> {
        let until = Instant::now() + GRACE;
        loop {
            if let Some(line) = self.next() {
                return Ok(line);
            }
            if Instant::now() >= until {
                return Err(ClientError::new(Failure::Timeout, "no answer came in time"));
            }
            self.fill(TICK).await?;
        }
    }
}

/// What stands behind `OK` in an answer.
fn done(line: &str) -> Result<&str, ClientError> {
    match line.split_once(' ').unwrap_or((line, "")) {
        ("OK", rest) => Ok(rest),
        ("ERR", why) => Err(refused(why)),
        _ => Err(broken(line)),
    }
}

/// Creates the topic unless it is there.
async fn ensure_topic(to: &Endpoint, topic: &str) -> Result<(), ClientError> {
    let mut lines = Lines::open(to).await?;
    lines.write(&format!("OFFSETS {topic}\n")).await?;
    if done(&lines.line().await?).is_ok() {
        return Ok(());
    }
    lines.write(&format!("CREATE {topic} 1\n")).await?;
    done(&lines.line().await?).map(drop)
}

async fn publish(to: &Endpoint, bench: &Rc<Bench>) -> Result<(), ClientError> {
    ensure_topic(to, &bench.plan.topic).await?;
    let mut publishing = Vec::new();
    for _ in 0..bench.plan.clients.max(1) {
        let publisher =
            Publisher { bench: bench.clone(), lines: Lines::open(to).await?, open: VecDeque::new() };
        publishing.push(tokio::task::spawn_local(publisher.run()));
    }
    for publisher in publishing {
        ended(publisher).await?;
    }
    Ok(())
}

async fn ended(task: tokio::task::JoinHandle<Result<(), ClientError>>) -> Result<(), ClientError> {
    task.await.map_err(|e| ClientError::new(Failure::Broken, format!("a client ended early: {e}")))?
}

/// The end that publishes.
struct Publisher {
    bench: Rc<Bench>,
    lines: Lines,
    /// When those were due that are not answered.
    open: VecDeque<u64>,
}

impl Publisher {
    async fn run(mut self) -> Result<(), ClientError> {
        let (began, mut index) = (self.bench.tally.now(), 0);
        let clients = self.bench.plan.clients.max(1) as f64;
        let rate = self.bench.plan.rate.map(|rate| rate / clients);
        let due = |index: u64, now| rate.map_or(now, |rate| began + (index as f64 * 1e9 / rate) as u64);
        let mut heard = Instant::now();
        while !self.bench.tally.is_spent() || !self.open.is_empty() {
            let now = self.bench.tally.now();
            let ripe = rate.map_or(u64::MAX, |rate| ((now - began) as f64 * rate / 1e9) as u64 + 1 - index);
            let count = self.bench.tally.take(self.room().min(ripe));
            let dues: Vec<_> = (index..index + count).map(|index| due(index, now)).collect();
            index += count;
            self.write(dues).await?;
            self.lines.fill(TICK).await?;
            if self.hear()? || self.open.is_empty() {
                heard = Instant::now();
            } else if heard.elapsed() > GRACE {
                return Err(ClientError::new(Failure::Timeout, "no answer came in time"));
            }
        }
        Ok(())
    }

    /// How many messages may be sent now.
    fn room(&self) -> u64 {
        let unread = match self.bench.plan.load {
            Load::EndToEnd => self.bench.sent.get().saturating_sub(self.bench.read.get()),
            Load::Produce | Load::Consume => 0,
        };
        self.bench.in_flight.saturating_sub(self.open.len() as u64).min(UNREAD.saturating_sub(unread))
    }

    async fn write(&mut self, dues: Vec<u64>) -> Result<(), ClientError> {
        let Bench { plan: LoadPlan { topic, size, .. }, run, .. } = &*self.bench;
        let filler = "x".repeat(size - HEAD);
        let line = |due: &u64| format!("PUBLISH {topic} 0 {due:0DUE$}{run}{filler}\n");
        let text: String = dues.iter().map(line).collect();
        add(&self.bench.sent, dues.len() as u64);
        self.open.extend(dues);
        self.lines.write(&text).await
    }

    /// Takes the answers that are there, and tells whether there were any.
    fn hear(&mut self) -> Result<bool, ClientError> {
        let mut any = false;
        while let Some(line) = self.lines.next() {
            let due = self.open.pop_front().ok_or_else(|| broken(&line))?;
            match (done(&line), self.bench.plan.load) {
                // End to end it is done when it is read.
                (Ok(_), Load::EndToEnd) => {}
                (Ok(_), _) => self.bench.tally.done(self.bench.plan.size as u64, due, self.bench.tally.now()),
                (Err(error), _) => {
                    self.bench.tally.failed(&error.message);
                    add(&self.bench.read, 1);
                }
            }
            any = true;
        }
        Ok(any)
    }
}

/// Reads what is there, all partitions one after another.
async fn consume(to: &Endpoint, bench: &Rc<Bench>) -> Result<(), ClientError> {
    if bench.plan.clients > 1 {
        return Err(wrong("this protocol's readers do not share a topic: one client reads it"));
    }
    let (topic, mut lines) = (&bench.plan.topic, Lines::open(to).await?);
    lines.write(&format!("OFFSETS {topic}\n")).await?;
    let ends = lines.line().await?;
    for (partition, ends) in done(&ends)?.split(' ').enumerate() {
        let (first, end) = ends.split_once(':').ok_or_else(|| broken(ends))?;
        let (mut next, end): (u64, u64) = (number(first)?, number(end)?);
        // What an answer does not hold is asked for again.
        let (mut wanted, mut came) = (0, true);
        while next < end && came && (wanted > 0 || !bench.tally.is_spent()) {
            let asked = bench.tally.now();
            if wanted == 0 {
                wanted = bench.tally.take((end - next).min(AT_ONCE));
            }
            lines.write(&format!("READ {topic} {partition} {next} {wanted}\n")).await?;
            came = false;
            loop {
                let line = lines.line().await?;
                let Some((offset, text)) = line.split_once(' ').filter(|(word, _)| *word != "ERR") else {
                    done(&line)?;
                    break;
                };
                next = number::<u64>(offset)? + 1;
                wanted = wanted.saturating_sub(1);
                came = true;
                bench.tally.done(text.len() as u64, asked, bench.tally.now());
            }
        }
    }
    Ok(())
}

/// Publishes, and reads what comes of it.
async fn end_to_end(to: &Endpoint, bench: &Rc<Bench>) -> Result<(), ClientError> {
    ensure_topic(to, &bench.plan.topic).await?;
    let mut lines = Lines::open(to).await?;
    lines.write(&format!("SUBSCRIBE {}\nCREDIT {UNREAD}\n", bench.plan.topic)).await?;
    done(&lines.line().await?)?;
    let publishing = publish(to, bench);
    tokio::pin!(publishing);
    let mut is_published = false;
    let mut idle_since = Instant::now();
    while !is_published || (bench.read.get() < bench.sent.get() && idle_since.elapsed() < GRACE) {
        tokio::select! {
            published = &mut publishing, if !is_published => {
                published?;
                is_published = true;
            }
            filled = lines.fill(TICK) => filled?,
        }
        let came = take_messages(&mut lines, bench)?;
        if came > 0 {
            idle_since = Instant::now();
            lines.write(&format!("CREDIT {came}\n")).await?;
        }
    }
    let missing = bench.sent.get().saturating_sub(bench.read.get());
    match missing {
        0 => Ok(()),
        _ => Err(ClientError::new(Failure::Timeout, format!("{missing} messages did not come"))),
    }
}

/// Counts the messages that are there: those of others neither count nor are a part of the load.
fn take_messages(lines: &mut Lines, bench: &Bench) -> Result<u64, ClientError> {
    let mut came = 0;
    while let Some(line) = lines.next() {
        let text = line.strip_prefix("MSG ").and_then(|rest| rest.splitn(4, ' ').nth(3));
        let text = text.ok_or_else(|| broken(&line))?;
        let ours = text.split_at_checked(DUE).filter(|(_, rest)| rest.starts_with(&bench.run));
        if let Some(due) = ours.and_then(|(due, _)| due.parse().ok()) {
            bench.tally.done(text.len() as u64, due, bench.tally.now());
            add(&bench.read, 1);
        }
        came += 1;
    }
    Ok(came)
}

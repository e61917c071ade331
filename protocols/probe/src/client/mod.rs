//! The client that the command line uses: it publishes, reads, settles and puts on load.

mod bench;

use std::fmt::Display;
use std::time::{Duration, Instant};

use sabir_frontend::client::{
    Client, ClientError, ClientOption, Connector, Endpoint, Failure, Incoming, LoadPlan, LoadProgress,
    LoadReport, LocalFuture, Outgoing, Position, PublishOptions, Receipt, Settling, Socket, Start,
};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};

/// Makes clients.
pub(crate) static CONNECTOR: ProbeConnector = ProbeConnector;

/// Between two looks for what is not there yet.
const AGAIN: Duration = Duration::from_millis(20);
/// How long a message is held while it is settled.
const LEASE_MS: u32 = 30_000;
/// Records of one answer.
const AT_ONCE: usize = 500;

pub(crate) struct ProbeConnector;

impl Connector for ProbeConnector {
    fn default_port(&self) -> Option<u16> {
        None
    }

    fn load_options(&self) -> &'static [ClientOption] {
        bench::LOAD
    }

    fn connect(&self, to: Endpoint, _: Duration) -> LocalFuture<'static, Box<dyn Client>> {
        Box::pin(async move {
            let mut client = ProbeClient { stream: connect(&to).await? };
            let name = format!("HELLO sabir-{}", std::process::id());
            client.ask(&name).await.map_err(|e| unreachable(&to, &e))?;
            Ok(Box::new(client) as Box<dyn Client>)
        })
    }

    fn bench(
        &self,
        to: Endpoint,
        plan: LoadPlan,
        progress: &'static LoadProgress,
    ) -> LocalFuture<'static, LoadReport> {
        Box::pin(async move { bench::run(&to, plan, progress).await })
    }
}

async fn connect(to: &Endpoint) -> Result<BufReader<Socket>, ClientError> {
    to.dialer.connect(&to.address).await.map(BufReader::new).map_err(|e| unreachable(to, &e))
}

fn unreachable(to: &Endpoint, why: &dyn Display) -> ClientError {
    ClientError::new(Failure::Connect, format!("{}: {why}", to.address))
}

fn failed(error: std::io::Error) -> ClientError {
    ClientError::new(Failure::Broken, error.to_string())
}

fn unsupported(what: &str) -> ClientError {
    ClientError::new(Failure::Unsupported, what)
}

fn broken(what: &str) -> ClientError {
    ClientError::new(Failure::Broken, format!("the answer makes no sense: {what}"))
}

fn number<T: std::str::FromStr>(text: &str) -> Result<T, ClientError> {
    text.parse().map_err(|_| broken(text))
}

struct ProbeClient {
    stream: BufReader<Socket>,
}

impl ProbeClient {
    /// Sends a line, and gives what stands behind `OK` in the last line of the answer.
    async fn ask(&mut self, line: &str) -> Result<String, ClientError> {
        Ok(self.ask_many(line).await?.pop().unwrap_or_default())
    }

    /// The same, with the lines before that one.
    async fn ask_many(&mut self, line: &str) -> Result<Vec<String>, ClientError> {
        self.stream.get_mut().write_all(format!("{line}\n").as_bytes()).await.map_err(failed)?;
        let mut all = Vec::new();
        loop {
            let mut answer = String::new();
            if self.stream.read_line(&mut answer).await.map_err(failed)? == 0 {
                return Err(ClientError::new(Failure::Broken, "the connection was closed"));
            }
            let answer = answer.trim_end_matches('\n');
            match answer.split_once(' ').unwrap_or((answer, "")) {
                ("OK", rest) => {
                    all.push(rest.to_owned());
                    return Ok(all);
                }
                ("NIL", _) => return Ok(vec![String::new()]),
                ("ERR", why) => return Err(refused(why)),
                _ => all.push(answer.to_owned()),
            }
        }
    }

    async fn publish_one(&mut self, topic: &str, message: &Outgoing) -> Result<Receipt, ClientError> {
        if message.key.is_some() || !message.headers.is_empty() {
            return Err(unsupported("this protocol's messages have no keys and no headers"));
        }
        let text = message.value.as_ref().and_then(|value| std::str::from_utf8(value).ok());
        let text = text.filter(|text| !text.contains(['\n', '\r']));
        let text = text.ok_or_else(|| unsupported("this protocol's messages are a line of text each"))?;
        let partition = message.partition.unwrap_or(0);
        let offset = self.ask(&format!("PUBLISH {topic} {partition} {text}")).await?;
        Ok(Receipt { partition, offset: Some(number(&offset)?) })
    }

    async fn ends(&mut self, topic: &str) -> Result<Vec<(i64, i64)>, ClientError> {
        let answer = self.ask(&format!("OFFSETS {topic}")).await?;
        let pair = |text: &str| {
            let (first, end) = text.split_once(':').ok_or_else(|| broken(text))?;
            Ok((number(first)?, number(end)?))
        };
        answer.split(' ').map(pair).collect()
    }

    async fn read_one(&mut self, topic: &str, position: &mut Position) -> Result<Vec<Incoming>, ClientError> {
        let Position { partition, next, .. } = *position;
        let mut lines = self.ask_many(&format!("READ {topic} {partition} {next} {AT_ONCE}")).await?;
        lines.pop();
        let mut all = Vec::with_capacity(lines.len());
        for line in lines {
            let (offset, text) = line.split_once(' ').ok_or_else(|| broken(&line))?;
            let offset = number(offset)?;
            position.next = offset + 1;
            all.push(Incoming {
                partition,
                offset,
                timestamp_ms: None,
                key: None,
                value: Some(text.to_owned().into()),
                headers: Vec::new(),
            });
        }
        position.end = position.end.max(position.next);
        Ok(all)
    }
}

impl ProbeClient {
    /// Takes a message off a queue: reading leaves it there, so that another one may have it meanwhile.
    async fn settle_one(&mut self, queue: &str, offset: i64) -> Result<(), ClientError> {
        let leased = self.ask(&format!("LEASE {queue} {LEASE_MS}")).await?;
        let mut fields = leased.split(' ');
        let (lease, first) = (fields.next().unwrap_or_default(), fields.next());
        let is_it = first.is_some_and(|first| number::<i64>(first) == Ok(offset));
        let word = if is_it { "DONE" } else { "RETURN" };
        if first.is_some() {
            self.ask(&format!("{word} {queue} {lease}")).await?;
        }
        let other = || {
            ClientError::new(Failure::Refused, format!("{queue} does not have message {offset} as its first"))
        };
        is_it.then_some(()).ok_or_else(other)
    }
}

fn refused(why: &str) -> ClientError {
    let failure = if why.starts_with("there is no ") { Failure::NotFound } else { Failure::Refused };
    ClientError::new(failure, why)
}

impl Client for ProbeClient {
    fn publish<'a>(
        &'a mut self,
        topic: &'a str,
        messages: Vec<Outgoing>,
        _: &'a PublishOptions,
    ) -> LocalFuture<'a, Vec<Receipt>> {
        Box::pin(async move {
            let mut all = Vec::with_capacity(messages.len());
            for message in &messages {
                all.push(self.publish_one(topic, message).await?);
            }
            Ok(all)
        })
    }

    fn positions<'a>(
        &'a mut self,
        topic: &'a str,
        partition: Option<i32>,
        start: Start,
    ) -> LocalFuture<'a, Vec<Position>> {
        Box::pin(async move {
            let ends = self.ends(topic).await?;
            let mut all = Vec::with_capacity(ends.len());
            for (at, (first, end)) in (0..).zip(ends).filter(|(at, _)| partition.is_none_or(|p| p == *at)) {
                let next = match start {
                    Start::Earliest => first,
                    Start::Latest => end,
                    Start::Offset(offset) => offset,
                    Start::Last(count) => (end - i64::from(count)).max(first),
                    Start::Time(_) => return Err(unsupported("this protocol finds no times")),
                };
                all.push(Position { partition: at, first, next, end });
            }
            Ok(all)
        })
    }

    fn read<'a>(
        &'a mut self,
        topic: &'a str,
        positions: &'a mut [Position],
        wait: Duration,
    ) -> LocalFuture<'a, Vec<Incoming>> {
        Box::pin(async move {
            let until = Instant::now() + wait;
            loop {
                let mut all = Vec::new();
                for position in &mut *positions {
                    all.extend(self.read_one(topic, position).await?);
                }
                if !all.is_empty() || Instant::now() >= until {
                    return Ok(all);
                }
                tokio::time::sleep(AGAIN).await;
            }
        })
    }

    fn settles(&self, what: Settling<'_>) -> bool {
        matches!(what, Settling::Messages(_))
    }

    fn settle<'a>(&'a mut self, topic: &'a str, what: Settling<'a>) -> LocalFuture<'a, ()> {
        Box::pin(async move {
            let Settling::Messages(messages) = what else {
                return Err(unsupported("this protocol keeps no positions"));
            };
            for (_, offset) in messages {
                self.settle_one(topic, *offset).await?;
            }
            Ok(())
        })
    }

    fn stop_reading(&mut self) -> LocalFuture<'_, ()> {
        Box::pin(async { Ok(()) })
    }
}

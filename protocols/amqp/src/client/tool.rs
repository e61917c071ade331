//! This client in the form in which the command line uses every protocol's.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use sabir_frontend::client::{
    Client, ClientError, ClientOption, Connector, Endpoint, Failure, Incoming, LoadPlan, LoadProgress,
    LoadReport, LocalFuture, Outgoing, Position, PublishOptions, Receipt, Settling, Start,
};

use super::bench;
use super::link::{Came, DECLARE, Link, unexpected};
use super::options;
use crate::converter::header;
use crate::wire::*;

/// The port that brokers usually listen on.
const PORT: u16 = 5672;
/// The same with TLS.
const TLS_PORT: u16 = 5671;
/// Messages of one confirmation round.
const AT_ONCE: usize = 500;
/// The channels for publishing and asking, for reading, and for the last question.
const ASKS: u16 = 1;
const READS: u16 = 2;
const LAST: u16 = 3;
/// What a client says that closes because it has done what it came for: the specification's reply-success.
const REPLY_SUCCESS: u16 = 200;

/// Makes clients.
pub(crate) static CONNECTOR: AmqpConnector = AmqpConnector;

pub(crate) struct AmqpConnector;

impl Connector for AmqpConnector {
    fn default_port(&self) -> Option<u16> {
        Some(PORT)
    }

    fn load_options(&self) -> &'static [ClientOption] {
        options::LOAD
    }

    fn default_tls_port(&self) -> Option<u16> {
        Some(TLS_PORT)
    }

    fn connect(&self, to: Endpoint, _: Duration) -> LocalFuture<'static, Box<dyn Client>> {
        Box::pin(async move {
            let link = Link::open(&to).await?;
            Ok(Box::new(AmqpTool { link, published: None, reading: None, delivered: VecDeque::new() })
                as Box<dyn Client>)
        })
    }

    fn bench(
        &self,
        to: Endpoint,
        plan: LoadPlan,
        progress: &'static LoadProgress,
    ) -> LocalFuture<'static, LoadReport> {
        Box::pin(async move { bench::run(&to, &plan, progress).await })
    }
}

fn unsupported(what: &str) -> ClientError {
    ClientError::new(Failure::Unsupported, what)
}

struct AmqpTool {
    link: Link,
    /// Messages that were published, once confirms were asked for.
    published: Option<u64>,
    /// The queue that is being read.
    reading: Option<String>,
    /// Deliveries that came while something else was waited for.
    delivered: VecDeque<Came>,
}

impl AmqpTool {
    /// The next method that is no delivery.
    async fn next(&mut self) -> Result<Came, ClientError> {
        loop {
            let came = self.link.incoming.next().await?;
            match came.method() {
                Method::BasicDeliver(_) => self.delivered.push_back(came),
                _ => return Ok(came),
            }
        }
    }

    async fn ask<M: MethodArguments>(&mut self, channel: u16, arguments: &M) -> Result<Came, ClientError> {
        self.link.outgoing.out.arguments(channel, arguments);
        self.link.outgoing.flush().await?;
        self.next().await
    }

    async fn publish_some(&mut self, queue: &str, messages: &[Outgoing]) -> Result<(), ClientError> {
        if self.published.is_none() {
            let selected = self.ask(ASKS, &ConfirmSelect::default()).await?;
            let Method::ConfirmSelectOk(_) = selected.method() else { return Err(unexpected(&selected)) };
            self.published = Some(0);
        }
        let published = self.published.get_or_insert(0);
        *published += messages.len() as u64;
        let last = *published;
        let routing_key =
            ShortBytes::new(queue.as_bytes()).ok_or_else(|| unsupported("the name is too long"))?;
        for message in messages {
            put(&mut self.link, routing_key, message)?;
        }
        self.link.outgoing.flush().await?;
        self.confirmed(last).await
    }

    async fn confirmed(&mut self, last: u64) -> Result<(), ClientError> {
        let mut trouble = None;
        loop {
            let came = self.next().await?;
            let done = match came.method() {
                Method::BasicAck(ack) => ack.delivery_tag,
                Method::BasicNack(nack) => {
                    trouble.get_or_insert(ClientError::new(
                        Failure::Refused,
                        "the broker did not take a message",
                    ));
                    nack.delivery_tag
                }
                Method::BasicReturn(back) => {
                    let key = String::from_utf8_lossy(&back.routing_key).into_owned();
                    let absent = ClientError::new(Failure::NotFound, format!("there is no queue {key:?}"));
                    trouble.get_or_insert(absent.advise(DECLARE));
                    0
                }
                _ => return Err(unexpected(&came)),
            };
            if done >= last {
                return trouble.map_or(Ok(()), Err);
            }
        }
    }

    async fn messages(&mut self, queue: &str) -> Result<i64, ClientError> {
        let name = ShortStr::new(queue).ok_or_else(|| unsupported("the name is too long"))?;
        let declare = QueueDeclare { queue: name, passive: true, ..Default::default() };
        let came = self.ask(ASKS, &declare).await?;
        match came.method() {
            Method::QueueDeclareOk(ok) => Ok(ok.message_count.into()),
            _ => Err(unexpected(&came)),
        }
    }

    /// Has the queue's messages come. They go back to it when reading stops; there is no prefetch, with which no more would come behind so many.
    async fn begin_to_read(&mut self, queue: &str) -> Result<(), ClientError> {
        if self.reading.as_deref() == Some(queue) {
            return Ok(());
        }
        if self.reading.is_some() {
            return Err(unsupported("a client of this protocol reads one queue"));
        }
        // Before it is asked: what is dropped while it waits may have it come already.
        self.reading = Some(queue.to_owned());
        let begun = self.consume(queue).await;
        if begun.is_err() {
            self.reading = None;
        }
        begun
    }

    async fn consume(&mut self, queue: &str) -> Result<(), ClientError> {
        let opened = self.ask(READS, &ChannelOpen::default()).await?;
        let Method::ChannelOpenOk(_) = opened.method() else { return Err(unexpected(&opened)) };
        let queue_name = ShortStr::cut(queue);
        let consuming = self.ask(READS, &BasicConsume { queue: queue_name, ..Default::default() }).await?;
        let Method::BasicConsumeOk(_) = consuming.method() else { return Err(unexpected(&consuming)) };
        Ok(())
    }

    /// The answer that comes in a channel, past those to questions that were dropped.
    async fn answer_in(&mut self, channel: u16, wanted: fn(&Method<'_>) -> bool) -> Result<(), ClientError> {
        loop {
            let came = self.link.incoming.next().await?;
            match came.method() {
                method if came.channel == channel && wanted(&method) => return Ok(()),
                Method::ConnectionClose(_) => return Err(unexpected(&came)),
                Method::ChannelClose(_) if came.channel == channel => return Err(unexpected(&came)),
                _ => {}
            }
        }
    }
}

fn no_partition() -> ClientError {
    let error = ClientError::new(Failure::NotFound, "a queue has one partition, number 0");
    error.advise("Leave --partition out.")
}

/// Writes a message.
fn put(link: &mut Link, routing_key: ShortBytes<'_>, message: &Outgoing) -> Result<(), ClientError> {
    if message.partition.is_some_and(|partition| partition != 0) {
        return Err(no_partition());
    }
    let mut headers = FieldTableBuf::new();
    if let Some(key) = &message.key {
        headers.push(ShortBytes::cut("key"), FieldValue::LongStr(key));
    }
    for (name, value) in &message.headers {
        let value = value.as_deref().map_or(FieldValue::Void, FieldValue::LongStr);
        headers.push(ShortBytes::cut(name), value);
    }
    let table = headers.as_table();
    let headers = (!table.is_empty()).then_some(table);
    let properties = BasicProperties { headers, delivery_mode: Some(2), ..Default::default() }.to_bytes();
    let publish = BasicPublish { routing_key, mandatory: true, ..Default::default() };
    let (body, frame_max) = (message.value.clone().unwrap_or_default(), link.outgoing.frame_max);
    let written = link.outgoing.out.content(ASKS, &publish, &properties, &body.into(), frame_max);
    written.map_err(|_| unsupported("the headers do not fit a frame"))
}

/// The tag of the delivery that has this offset.
fn delivery_tag(offset: i64) -> u64 {
    u64::try_from(offset).unwrap_or(0) + 1
}

/// A message as the command line shows it; offsets are the numbers of deliveries, from 0 on.
fn shown(came: &Came) -> Option<Incoming> {
    let Method::BasicDeliver(deliver) = came.method() else { return None };
    let properties = BasicProperties::read(&came.properties).unwrap_or_default();
    let text = |value: FieldValue<'_>| header(value).to_untyped();
    let seconds = properties.timestamp.and_then(|seconds| i64::try_from(seconds).ok());
    let headers = properties.headers.unwrap_or_default();
    let key = headers.get("key").and_then(text);
    let others = headers.iter().filter(|(name, _)| name.as_bytes() != b"key");
    Some(Incoming {
        partition: 0,
        offset: i64::try_from(deliver.delivery_tag).unwrap_or(i64::MAX) - 1,
        timestamp_ms: seconds.map(|seconds| seconds.saturating_mul(1000)),
        key,
        value: Some(came.body.to_bytes()),
        headers: others
            .map(|(name, value)| (String::from_utf8_lossy(name.as_bytes()).into_owned(), text(value)))
            .collect(),
    })
}

impl Client for AmqpTool {
    fn publish<'a>(
        &'a mut self,
        topic: &'a str,
        messages: Vec<Outgoing>,
        options: &'a PublishOptions,
    ) -> LocalFuture<'a, Vec<Receipt>> {
        Box::pin(async move {
            for some in messages.chunks(AT_ONCE) {
                let published = tokio::time::timeout(options.timeout, self.publish_some(topic, some)).await;
                published
                    .map_err(|_| ClientError::new(Failure::Timeout, "no confirmation came in time"))??;
            }
            Ok(messages.iter().map(|_| Receipt { partition: 0, offset: None }).collect())
        })
    }

    fn positions<'a>(
        &'a mut self,
        topic: &'a str,
        partition: Option<i32>,
        start: Start,
    ) -> LocalFuture<'a, Vec<Position>> {
        Box::pin(async move {
            if partition.is_some_and(|partition| partition != 0) {
                return Err(no_partition());
            }
            if start != Start::Earliest {
                let advice = "`sabir message read` without --offset, --last and --since does; with --follow it shows what comes, too.";
                return Err(unsupported("a queue is read from its first message on").advise(advice));
            }
            let end = self.messages(topic).await?;
            Ok(vec![Position { partition: 0, first: 0, next: 0, end }])
        })
    }

    fn read<'a>(
        &'a mut self,
        topic: &'a str,
        positions: &'a mut [Position],
        wait: Duration,
    ) -> LocalFuture<'a, Vec<Incoming>> {
        Box::pin(async move {
            let Some(position) = positions.first_mut() else { return Ok(Vec::new()) };
            self.begin_to_read(topic).await?;
            let (until, mut all) = (Instant::now() + wait, Vec::new());
            loop {
                while let Some(came) = self.delivered.pop_front().or_else(|| self.link.incoming.take()) {
                    all.push(shown(&came).ok_or_else(|| unexpected(&came))?);
                }
                let left = until.saturating_duration_since(Instant::now());
                if !all.is_empty() || left.is_zero() {
                    break;
                }
                match tokio::time::timeout(left, self.link.incoming.fill()).await {
                    Ok(filled) => filled?,
                    Err(_) => break,
                }
            }
            position.next = all.last().map_or(position.next, |last| last.offset + 1);
            position.end = position.end.max(position.next);
            if all.is_empty() && self.messages(topic).await? == 0 && self.delivered.is_empty() {
                // What was dealt to this consumer just now is on its way. What does not come then is another's, or cannot be read.
                match tokio::time::timeout(wait, self.link.incoming.fill()).await {
                    Ok(filled) => filled?,
                    Err(_) => position.end = position.next,
                }
            }
            Ok(all)
        })
    }

    fn settles(&self, what: Settling<'_>) -> bool {
        matches!(what, Settling::Messages(_))
    }

    fn settle<'a>(&'a mut self, _: &'a str, what: Settling<'a>) -> LocalFuture<'a, ()> {
        Box::pin(async move {
            let Settling::Messages(messages) = what else {
                return Err(unsupported("this protocol's queues have no groups"));
            };
            for (_, offset) in messages {
                let delivery_tag = delivery_tag(*offset);
                self.link.outgoing.out.arguments(READS, &BasicAck { delivery_tag, multiple: false });
            }
            self.link.outgoing.flush().await
        })
    }

    fn stop_reading(&mut self) -> LocalFuture<'_, ()> {
        Box::pin(async move {
            let Some(queue) = self.reading.take() else { return Ok(()) };
            self.delivered.clear();
            self.link.outgoing.out.arguments(READS, &ChannelClose::default());
            self.link.outgoing.flush().await?;
            self.answer_in(READS, |method| matches!(method, Method::ChannelCloseOk(_))).await?;
            // An answer about the queue: what the channel had is back before it. In a channel that has answered nothing yet.
            let declare = QueueDeclare { queue: ShortStr::cut(&queue), passive: true, ..Default::default() };
            self.link.outgoing.out.arguments(LAST, &ChannelOpen::default());
            self.link.outgoing.out.arguments(LAST, &declare);
            self.link.outgoing.flush().await?;
            self.answer_in(LAST, |method| matches!(method, Method::QueueDeclareOk(_))).await?;
            let close = ConnectionClose { reply_code: REPLY_SUCCESS, ..Default::default() };
            self.link.outgoing.out.arguments(0, &close);
            self.link.outgoing.flush().await?;
            self.answer_in(0, |method| matches!(method, Method::ConnectionCloseOk(_))).await
        })
    }
}

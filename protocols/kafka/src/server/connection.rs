//! One connection: takes every whole request off the input, flushes the broker once, and puts the answers out in order.
//!
//! Produce requests are pipelined: each appends at once, and the answers follow as the appends commit. Every other request
//! begins when all before it are answered, as Kafka's clients are used to.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use sabir_net::{Appetite, Connection, Ending, Io, Limits, Output, Patience, Standing};
use tokio::time::Instant;

use crate::server::frontend::KafkaFrontend;
use crate::server::handlers::produce::{self, Producing};
use crate::server::handlers::{self, Client, Handling, Reply, Unanswered};
use crate::server::requests::{BadRequest, Next, Request, RequestNumber, Requests};
use crate::wire::{ApiKey, Encoded, ErrorCode};

/// Requests of a connection without an answer.
const MAX_OPEN: usize = 1024;

/// Serves a connection until it ends.
pub(crate) async fn serve(kafka: Arc<KafkaFrontend>, connection: Connection) {
    let session = KafkaSession::new(kafka.clone(), &connection);
    sabir_net::drive(connection, session, kafka.counters.clone()).await;
}

/// A request other than to produce, under way.
struct Running {
    number: RequestNumber,
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

struct KafkaSession {
    kafka: Arc<KafkaFrontend>,
    client: Arc<Client>,
    requests: Requests,
    /// A request whose turn has not come.
    held: Option<Request>,
    running: Option<Running>,
    producing: VecDeque<(RequestNumber, Instant, Producing)>,
}

impl KafkaSession {
    fn new(kafka: Arc<KafkaFrontend>, connection: &Connection) -> Self {
        let max_frame = (kafka.config.max_request.0 as usize).min(connection.limits.frame_memory.total());
        Self {
            client: Arc::new(Client::new(kafka.clone(), connection)),
            kafka,
            requests: Requests::new(max_frame, MAX_OPEN),
            held: None,
            running: None,
            producing: VecDeque::new(),
        }
    }

    /// Takes what has become of the requests under way.
    fn finish(&mut self, io: &mut Io, cx: &mut Context<'_>) -> Result<bool, Ending> {
        let mut moved = self.go_on(cx)?;
        while let Some((number, began, producing)) = self.producing.front_mut() {
            let Poll::Ready(reply) = producing.poll(cx) else { break };
            let (number, began) = (*number, *began);
            self.producing.pop_front();
            self.answer(io, number, ApiKey::Produce, began, reply)?;
            moved = true;
        }
        if let Some(running) = &mut self.running
            && let Poll::Ready(reply) = running.handling.as_mut().poll(cx)
        {
            let (number, api, began) = (running.number, running.api, running.began);
            self.running = None;
            self.answer(io, number, api, began, reply)?;
            moved = true;
        }
        Ok(moved)
    }

    /// Whether the last request to produce is not appended yet.
    fn is_held(&self) -> bool {
        self.producing.back().is_some_and(|(.., producing)| producing.is_held())
    }

    /// Appends what was held, once it may be.
    fn go_on(&mut self, cx: &mut Context<'_>) -> Result<bool, Unanswered> {
        let Some((.., last)) = self.producing.back_mut().filter(|(.., last)| last.is_held()) else {
            return Ok(false);
        };
        let Poll::Ready(done) = last.go_on(&self.client, cx) else { return Ok(false) };
        done?;
        if last.appends() {
            self.kafka.broker.flush();
        }
        Ok(true)
    }

    fn answer(
        &mut self,
        io: &mut Io,
        number: RequestNumber,
        api: ApiKey,
        began: Instant,
        reply: Result<Reply, Unanswered>,
    ) -> Result<(), Ending> {
        let error = reply.as_ref().map_or_else(Unanswered::error, |reply| Some(reply.error()));
        if let Some(error) = error {
            self.kafka.metrics.request(api, error, began.elapsed());
        }
        if let Some(error) = error.filter(|error| *error != ErrorCode::None) {
            self.client.failed(api, error);
        }
        let mut holds = None;
        match reply? {
            Reply::Frame { frame, memory, held, .. } => {
                self.requests.answer(number, Some(frame));
                memory.into_iter().for_each(|granted| io.output.take_grant(granted));
                holds = held;
            }
            Reply::Silence => self.requests.answer(number, None),
        }
        while let Some(answer) = self.requests.pop() {
            match &holds {
                None => answer.into_segments().for_each(|segment| io.output.push(segment)),
                Some(held) => push_holding(&mut io.output, answer, held),
            }
        }
        Ok(())
    }

    /// Begins every request in the input whose turn has come, until the connection's turn is over.
    fn begin(&mut self, io: &mut Io) -> Result<bool, Ending> {
        let (mut moved, mut appended, mut now) = (false, false, Instant::now());
        while let Some(request) = self.next_request(io)? {
            if request.api == ApiKey::Produce {
                let (number, bytes) = (request.number, request.body.len());
                let mut producing = produce::begin(&self.client, request)?;
                appended |= producing.appends();
                if producing.is_held() {
                    producing.hold(io.input.grant_for(bytes, &io.limits.frame_memory)?);
                }
                self.producing.push_back((number, now, producing));
            } else if self.producing.is_empty() {
                self.run(request, now);
            } else {
                self.held = Some(request);
                break;
            }
            moved = true;
            now = Instant::now();
            if io.is_turn_over(now) {
                break;
            }
        }
        if appended {
            self.kafka.broker.flush();
        }
        Ok(moved)
    }

    fn may_begin(&self, io: &Io) -> bool {
        !io.is_draining()
            && self.running.is_none()
            && !self.is_held()
            && !io.output.is_full()
            && !self.requests.is_full()
    }

    fn next_request(&mut self, io: &mut Io) -> Result<Option<Request>, Ending> {
        if !self.may_begin(io) || (self.held.is_some() && !self.producing.is_empty()) {
            return Ok(None);
        }
        if let Some(held) = self.held.take() {
            return Ok(Some(held));
        }
        match self.requests.next(&io.input.bytes)? {
            Next::Frame { len, produces } => {
                let frame = if produces { io.take_passing_frame(len) } else { io.take_frame(len)? };
                Ok(Some(self.requests.take(frame)?))
            }
            Next::Need(need) => {
                io.need(need)?;
                Ok(None)
            }
        }
    }

    fn run(&mut self, request: Request, began: Instant) {
        let (number, api) = (request.number, request.api);
        let handling = handlers::handle(self.client.clone(), request);
        self.running = Some(Running { number, api, began, handling });
    }
}

/// Puts out an answer of which a piece holds memory of its own.
fn push_holding(output: &mut Output, answer: Encoded, held: &Bytes) {
    for segment in answer.into_segments() {
        if segment.as_ptr() == held.as_ptr() {
            output.push_held(segment);
        } else {
            output.push(segment);
        }
    }
}

impl sabir_net::Session for KafkaSession {
    /// Kafka's brokers send nothing but answers.
    type Push = Infallible;

    fn pushed(&mut self, push: Infallible, _: &mut Io) -> Result<(), Ending> {
        match push {}
    }

    fn advance(&mut self, io: &mut Io, cx: &mut Context<'_>) -> Result<bool, Ending> {
        let finished = self.finish(io, cx)?;
        let begun = self.begin(io)?;
        Ok(finished | begun)
    }

    fn appetite(&self, io: &Io) -> Appetite {
        if self.may_begin(io) && self.held.is_none() { Appetite::All } else { Appetite::Little }
    }

    fn standing(&self) -> Standing {
        match &self.running {
            _ if !self.producing.is_empty() => Standing::Working,
            Some(running) if running.may_park() => Standing::Waiting,
            Some(_) => Standing::Working,
            None => Standing::Idle,
        }
    }

    fn patience(&self, limits: &Limits) -> Patience {
        Patience::of(limits, self.requests.has_begun())
    }

    fn until(&self) -> Option<Instant> {
        self.producing.front().and_then(|(_, _, producing)| producing.until())
    }

    fn client(&self) -> &str {
        self.client.id()
    }
}

impl From<BadRequest> for Ending {
    fn from(bad: BadRequest) -> Self {
        Self::dropped(bad.reason(), format!("it sent {bad}"))
    }
}

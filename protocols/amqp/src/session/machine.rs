//! What is legal when, on the connection and on its channels.

use rustc_hash::FxHashMap;

use super::channel::{Assembled, ChannelState};
use super::event::{ChannelRequest, ClientEvent};
use super::handshake::{ConnectionOptions, HeaderFound, OURS, Tuning, protocol_header};
use crate::wire::*;

/// Where a connection stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Nothing has come, or not the whole protocol header.
    Header,
    /// `connection.start` was sent; the client is to say who it is.
    Starting,
    /// The handlers look who it is.
    Authenticating,
    /// The client is to answer a challenge.
    Securing,
    /// The client is to agree on limits.
    Tuning,
    /// The client is to name a virtual host.
    Opening,
    /// The handlers look whether it may have it.
    Admitting,
    /// All is open.
    Running,
    /// The client closes; the handlers lay all down.
    ClientCloses,
    /// The server has closed; what comes is passed over until the client knows.
    ServerCloses,
    /// Nothing more is read or said.
    Ended,
}

/// What a frame led to.
type Led<'a, E> = Result<Option<ClientEvent<'a>>, E>;

/// A connection: its state, and that of its channels.
#[derive(Debug)]
pub struct ConnectionMachine {
    options: ConnectionOptions,
    phase: Phase,
    tuning: Option<Tuning>,
    channels: FxHashMap<u16, ChannelState>,
    /// Bytes that have come of contents on their way.
    unfinished: u64,
    /// Channels on which a content is on its way.
    assembling: usize,
    /// Whether the client understands that it is told of a failed authentication.
    is_told_of_refusal: bool,
}

impl ConnectionMachine {
    /// A connection of which nothing has come.
    pub fn new(options: ConnectionOptions) -> Self {
        Self {
            options,
            phase: Phase::Header,
            tuning: None,
            channels: FxHashMap::default(),
            unfinished: 0,
            assembling: 0,
            is_told_of_refusal: false,
        }
    }

    /// Looks at the first bytes. Those of ours are answered with `connection.start`, and are eight; another version, and what is not
    /// AMQP, with the protocol header of ours, and the connection has ended; AMQP 1.0 is left to the caller.
    pub fn begin(
        &mut self,
        first: &[u8],
        server_properties: FieldTable<'_>,
        mechanisms: &[u8],
        out: &mut FrameBuffer,
    ) -> HeaderFound {
        let found = protocol_header(first);
        match found {
            HeaderFound::Amqp091 if self.phase == Phase::Header => {
                self.phase = Phase::Starting;
                out.arguments(0, &start(server_properties, mechanisms));
            }
            HeaderFound::OtherVersion | HeaderFound::Foreign => {
                self.phase = Phase::Ended;
                out.raw(&OURS);
            }
            _ => {}
        }
        found
    }

    /// AMQP 1.0 is no other front end's either: it is answered as any other version, and the connection has ended.
    pub fn answer_version(&mut self, out: &mut FrameBuffer) {
        if self.phase == Phase::Header {
            self.phase = Phase::Ended;
            out.raw(&OURS);
        }
    }

    /// Bytes of the largest frame that is taken now, and sent.
    #[inline]
    pub fn frame_max(&self) -> u32 {
        self.tuning.map_or(PRE_AUTHENTICATION_MAX, |tuning| tuning.frame_max)
    }

    /// What was agreed on, as soon as it was.
    pub fn tuning(&self) -> Option<Tuning> {
        self.tuning
    }

    /// Whether the handlers are to answer before the next frame is given to it.
    pub fn awaits_handlers(&self) -> bool {
        matches!(self.phase, Phase::Authenticating | Phase::Admitting | Phase::ClientCloses)
    }

    /// Whether the protocol header has come, and was answered.
    pub fn has_begun(&self) -> bool {
        self.phase != Phase::Header
    }

    /// Whether the server has closed it, and the client has not said yet that it knows.
    pub fn is_closing(&self) -> bool {
        self.phase == Phase::ServerCloses
    }

    /// Whether the connection is open.
    pub fn is_running(&self) -> bool {
        self.phase == Phase::Running
    }

    /// Whether nothing more is read or said: the socket can be closed when all is sent.
    pub fn has_ended(&self) -> bool {
        self.phase == Phase::Ended
    }

    /// Channels whose number is taken.
    pub fn channels(&self) -> usize {
        self.channels.len()
    }

    /// Bytes of messages that have come in part.
    pub fn unfinished_bytes(&self) -> u64 {
        self.unfinished
    }

    /// Copies what has come of contents on their way, where that is not done: they no longer hold the buffers in which it came, and take
    /// no more memory than they have bytes. To be called before the client is waited for.
    pub fn detach(&mut self) {
        if self.assembling > 0 {
            self.channels.values_mut().for_each(ChannelState::detach);
        }
    }

    /// Takes a frame. What no handler is needed for is answered at once.
    #[inline]
    pub fn frame<'a>(&mut self, frame: &Frame<'a>, out: &mut FrameBuffer) -> Option<ClientEvent<'a>> {
        if self.phase == Phase::Running && frame.channel != 0 {
            match self.channel_frame(frame, out) {
                Ok(event) => event,
                Err(exception) => self.fail(frame.channel, exception, out),
            }
        } else {
            match self.other_frame(frame, out) {
                Ok(event) => event,
                Err(exception) => self.fail_connection(exception, out),
            }
        }
    }

    /// Something is wrong with what the client asks for on a channel, or with the server: the channel is closed or the connection, as the
    /// error has it, and the client told. Where there is no channel yet, and on 0, it is the connection.
    #[cold]
    pub fn fail<'a>(
        &mut self,
        channel: u16,
        error: Exception,
        out: &mut FrameBuffer,
    ) -> Option<ClientEvent<'a>> {
        match error {
            Exception::Channel(error) if channel != 0 && self.phase == Phase::Running => {
                self.fail_channel(channel, error, out)
            }
            Exception::Channel(error) => self.fail_connection(error.into(), out),
            Exception::Connection(error) => self.fail_connection(error, out),
        }
    }

    /// Something is wrong with the connection, or with a frame that cannot be told: the connection is closed, and the client told.
    #[cold]
    pub fn fail_connection<'a>(
        &mut self,
        error: ConnectionException,
        out: &mut FrameBuffer,
    ) -> Option<ClientEvent<'a>> {
        if matches!(self.phase, Phase::Header | Phase::ClientCloses | Phase::ServerCloses | Phase::Ended) {
            return None;
        }
        self.end(Phase::ServerCloses);
        let (class_id, method_id) = error.cause;
        error.with_reply_text(|reply_text| {
            out.arguments(
                0,
                &ConnectionClose { reply_code: error.code as u16, reply_text, class_id, method_id },
            );
        });
        Some(ClientEvent::ConnectionFailed(error))
    }

    fn fail_channel<'a>(
        &mut self,
        number: u16,
        error: ChannelException,
        out: &mut FrameBuffer,
    ) -> Option<ClientEvent<'a>> {
        let state = self.channels.get_mut(&number)?;
        if matches!(state, ChannelState::ServerCloses | ChannelState::ClientCloses) {
            return None;
        }
        self.unfinished -= state.unfinished();
        self.assembling -= usize::from(state.is_assembling());
        *state = ChannelState::ServerCloses;
        let (class_id, method_id) = error.cause;
        error.with_reply_text(|reply_text| {
            out.arguments(
                number,
                &ChannelClose { reply_code: error.code as u16, reply_text, class_id, method_id },
            );
        });
        Some(ClientEvent::ChannelFailed(number, error))
    }

    /// No channel is open any more, and what has come in part is let go.
    fn end(&mut self, phase: Phase) {
        self.phase = phase;
        self.channels = FxHashMap::default();
        (self.unfinished, self.assembling) = (0, 0);
    }

    /// A frame that is for no channel of an open connection. Kept out of the way of those that are.
    #[inline(never)]
    fn other_frame<'a>(&mut self, frame: &Frame<'a>, out: &mut FrameBuffer) -> Led<'a, ConnectionException> {
        match self.phase {
            Phase::Header | Phase::ClientCloses | Phase::Ended => Ok(None),
            Phase::ServerCloses => Ok(self.while_closing(frame, out)),
            _ if frame.kind == FrameKind::Heartbeat => check_heartbeat(frame),
            _ => self.connection_frame(frame),
        }
    }

    /// The client may have sent much before it knows; a close of its own crosses ours.
    fn while_closing<'a>(&mut self, frame: &Frame<'a>, out: &mut FrameBuffer) -> Option<ClientEvent<'a>> {
        if frame.kind != FrameKind::Method || frame.channel != 0 {
            return None;
        }
        match Method::read(frame.payload) {
            Ok(Method::ConnectionCloseOk(_)) => {
                self.phase = Phase::Ended;
                Some(ClientEvent::Ended)
            }
            Ok(Method::ConnectionClose(_)) => {
                out.arguments(0, &ConnectionCloseOk {});
                None
            }
            _ => None,
        }
    }
}

/// The connection itself.
impl ConnectionMachine {
    fn connection_frame<'a>(&mut self, frame: &Frame<'a>) -> Led<'a, ConnectionException> {
        if frame.channel != 0 {
            return Err(unexpected(format!(
                "a frame on channel {}, where the connection is not open",
                frame.channel
            )));
        }
        if frame.kind != FrameKind::Method {
            return Err(unexpected("a frame on channel 0 that carries no method".to_owned()));
        }
        let method = Method::read(frame.payload)?;
        self.connection_method(method)
    }

    fn connection_method<'a>(&mut self, method: Method<'a>) -> Led<'a, ConnectionException> {
        let (phase, event) = match (self.phase, method) {
            (Phase::Starting, Method::ConnectionStartOk(start_ok)) => {
                self.is_told_of_refusal = is_told_of_refusal(start_ok.client_properties);
                (Phase::Authenticating, ClientEvent::Authenticate(start_ok))
            }
            (Phase::Securing, Method::ConnectionSecureOk(secure_ok)) => {
                (Phase::Authenticating, ClientEvent::AuthenticateFurther(secure_ok))
            }
            (Phase::Tuning, Method::ConnectionTuneOk(tune_ok)) => (Phase::Opening, self.tune(&tune_ok)?),
            (Phase::Opening, Method::ConnectionOpen(open)) => {
                (Phase::Admitting, ClientEvent::OpenVirtualHost(open.virtual_host))
            }
            (Phase::Running, Method::ConnectionUpdateSecret(update)) => {
                (Phase::Running, ClientEvent::UpdateSecret(update))
            }
            (_, Method::ConnectionClose(close)) => {
                self.end(Phase::ClientCloses);
                (Phase::ClientCloses, ClientEvent::ConnectionClosing(close))
            }
            (_, method) => return Err(self.wrong_method(&method)),
        };
        self.phase = phase;
        Ok(Some(event))
    }

    fn tune<'a>(&mut self, tune_ok: &ConnectionTuneOk) -> Result<ClientEvent<'a>, ConnectionException> {
        let id = <ConnectionTuneOk as MethodArguments>::ID;
        let tuning = self.options.agree(tune_ok).map_err(|error| error.caused_by(id))?;
        self.tuning = Some(tuning);
        Ok(ClientEvent::Tuned(tuning))
    }

    #[cold]
    fn wrong_method(&self, method: &Method<'_>) -> ConnectionException {
        if !method.sender().may_be_client() {
            return not_a_clients(method);
        }
        let text = format!("unexpected method {} in connection state {}", method.name(), self.phase.name());
        ConnectionException::new(ReplyCode::ChannelError, text).caused_by(method.id())
    }

    /// The client is asked for more before it is known who it is.
    pub fn challenge(&mut self, challenge: &[u8], out: &mut FrameBuffer) {
        if self.phase == Phase::Authenticating {
            self.phase = Phase::Securing;
            out.arguments(0, &ConnectionSecure { challenge });
        }
    }

    /// It is known who the client is: limits are proposed.
    pub fn authenticated(&mut self, out: &mut FrameBuffer) {
        if self.phase == Phase::Authenticating {
            self.phase = Phase::Tuning;
            let ConnectionOptions { channel_max, frame_max, heartbeat, .. } = self.options;
            out.arguments(0, &ConnectionTune { channel_max, frame_max, heartbeat });
        }
    }

    /// The client is not who it says. Those that understand it are told; for others the connection ends as it stands, as with RabbitMQ.
    pub fn refuse(&mut self, error: ConnectionException, out: &mut FrameBuffer) {
        if self.phase != Phase::Authenticating {
            return;
        }
        if self.is_told_of_refusal {
            self.fail_connection(error, out);
        } else {
            self.end(Phase::Ended);
        }
    }

    /// The client may have its virtual host.
    pub fn opened(&mut self, out: &mut FrameBuffer) {
        if self.phase == Phase::Admitting {
            self.phase = Phase::Running;
            out.arguments(0, &ConnectionOpenOk::default());
        }
    }

    /// All is laid down for a client that closes: it is told, and the connection has ended.
    pub fn connection_closed(&mut self, out: &mut FrameBuffer) {
        if self.phase == Phase::ClientCloses {
            self.phase = Phase::Ended;
            out.arguments(0, &ConnectionCloseOk {});
        }
    }
}

/// Its channels.
impl ConnectionMachine {
    #[inline]
    fn channel_frame<'a>(&mut self, frame: &Frame<'a>, out: &mut FrameBuffer) -> Led<'a, Exception> {
        let Some(state) = self.channels.get_mut(&frame.channel) else {
            return Ok(self.unopened(frame, out)?);
        };
        match (state, frame.kind) {
            (ChannelState::ServerCloses, _) => Ok(self.while_channel_closes(frame, out)),
            (ChannelState::ClientCloses, _) => Ok(None),
            (_, FrameKind::Heartbeat) => Ok(check_heartbeat(frame)?),
            (state @ ChannelState::Open, FrameKind::Method) => {
                let led = channel_method(state, frame);
                self.assembling += usize::from(state.is_assembling());
                Ok(led?)
            }
            (state, FrameKind::Header) => {
                let assembled = state.header(frame, self.options.message_max)?;
                self.assembling -= usize::from(!state.is_assembling());
                Ok(published(frame.channel, assembled))
            }
            (state, FrameKind::Body) => {
                let before = state.unfinished();
                let assembled = state.body(frame)?;
                self.unfinished = self.unfinished - before + state.unfinished();
                self.assembling -= usize::from(!state.is_assembling());
                self.check_unfinished()?;
                Ok(published(frame.channel, assembled))
            }
            (state, FrameKind::Method) => Err(state.unexpected("a method").into()),
        }
    }

    #[inline]
    fn check_unfinished(&self) -> Result<(), ConnectionException> {
        let (now, most) = (self.unfinished, self.options.unfinished_max);
        if now <= most {
            return Ok(());
        }
        let text = format!("messages that came in part take {now} bytes, where {most} are allowed");
        Err(ConnectionException::new(ReplyCode::ResourceError, text))
    }

    #[inline(never)]
    fn unopened<'a>(&mut self, frame: &Frame<'a>, out: &mut FrameBuffer) -> Led<'a, ConnectionException> {
        let number = frame.channel;
        if frame.kind == FrameKind::Heartbeat {
            return check_heartbeat(frame);
        }
        if frame.kind != FrameKind::Method {
            return Err(unexpected(format!("a content on channel {number}, which is not open")));
        }
        let method = Method::read(frame.payload)?;
        if !matches!(method, Method::ChannelOpen(_)) {
            let text = format!("expected 'channel.open' on channel {number}, got {}", method.name());
            return Err(ConnectionException::new(ReplyCode::ChannelError, text).caused_by(method.id()));
        }
        self.check_channels(method.id())?;
        self.channels.insert(number, ChannelState::Open);
        out.arguments(number, &ChannelOpenOk::default());
        Ok(Some(ClientEvent::ChannelOpened(number)))
    }

    fn check_channels(&self, cause: (u16, u16)) -> Result<(), ConnectionException> {
        let (open, most) = (self.channels.len(), self.tuning.map_or(0, |tuning| tuning.channel_max));
        if most == 0 || open < usize::from(most) {
            return Ok(());
        }
        let text =
            format!("number of channels opened ({open}) has reached the negotiated channel_max ({most})");
        Err(ConnectionException::new(ReplyCode::NotAllowed, text).caused_by(cause))
    }

    /// The client may have sent much before it knows; a close of its own crosses ours.
    fn while_channel_closes<'a>(
        &mut self,
        frame: &Frame<'a>,
        out: &mut FrameBuffer,
    ) -> Option<ClientEvent<'a>> {
        if frame.kind != FrameKind::Method {
            return None;
        }
        match Method::read(frame.payload) {
            Ok(Method::ChannelCloseOk(_)) => {
                self.channels.remove(&frame.channel);
                Some(ClientEvent::ChannelClosed(frame.channel))
            }
            Ok(Method::ChannelClose(_)) => {
                out.arguments(frame.channel, &ChannelCloseOk {});
                None
            }
            _ => None,
        }
    }

    /// Whether the client still listens on a channel; 0 is the connection.
    #[inline]
    pub fn is_heard(&self, channel: u16) -> bool {
        if channel == 0 {
            return self.phase == Phase::Running;
        }
        self.channels.get(&channel).is_some_and(|state| !matches!(state, ChannelState::ServerCloses))
    }

    /// Says something on a channel, unless the client no longer listens there. Tells whether it was said.
    pub fn reply(&self, channel: u16, method: &Method<'_>, out: &mut FrameBuffer) -> bool {
        let heard = self.is_heard(channel);
        if heard {
            out.method(channel, method);
        }
        heard
    }

    /// A channel is laid down for a client that closes it: the client is told, and the number is free.
    pub fn channel_closed(&mut self, channel: u16, out: &mut FrameBuffer) {
        if matches!(self.channels.get(&channel), Some(ChannelState::ClientCloses)) {
            self.channels.remove(&channel);
            out.arguments(channel, &ChannelCloseOk {});
        }
    }
}

/// The methods that come with every message are looked for first, and read as what they are.
#[inline]
fn channel_method<'a>(state: &mut ChannelState, frame: &Frame<'a>) -> Led<'a, ConnectionException> {
    if BasicPublish::is(frame.payload) {
        BasicPublish::read_payload(frame.payload)?;
        state.begin(frame.share(frame.payload));
        return Ok(None);
    }
    if BasicAck::is(frame.payload) {
        let ack = BasicAck::read_payload(frame.payload)?;
        return Ok(Some(ClientEvent::Request(frame.channel, ChannelRequest::Ack(ack))));
    }
    other_channel_method(state, frame)
}

#[inline(never)]
fn other_channel_method<'a>(state: &mut ChannelState, frame: &Frame<'a>) -> Led<'a, ConnectionException> {
    let number = frame.channel;
    match Method::read(frame.payload)? {
        Method::ChannelClose(close) => {
            *state = ChannelState::ClientCloses;
            Ok(Some(ClientEvent::ChannelClosing(number, close)))
        }
        Method::ChannelOpen(_) => {
            let text = format!("second 'channel.open' seen on channel {number}");
            Err(ConnectionException::new(ReplyCode::ChannelError, text).caused_by((20, 10)))
        }
        method => match ChannelRequest::of(method) {
            Some(request) => Ok(Some(ClientEvent::Request(number, request))),
            None => Err(not_a_clients(&method)),
        },
    }
}

#[inline]
fn published<'a>(channel: u16, assembled: Assembled) -> Option<ClientEvent<'a>> {
    match assembled {
        Assembled::More => None,
        Assembled::Whole(content) => Some(ClientEvent::Publish(channel, content)),
    }
}

fn start<'a>(server_properties: FieldTable<'a>, mechanisms: &'a [u8]) -> ConnectionStart<'a> {
    ConnectionStart { version_major: 0, version_minor: 9, server_properties, mechanisms, locales: b"en_US" }
}

fn check_heartbeat<'a>(frame: &Frame<'_>) -> Led<'a, ConnectionException> {
    if frame.channel != 0 {
        return Err(unexpected(format!("a heartbeat on channel {}", frame.channel)));
    }
    if !frame.payload.is_empty() {
        return Err(ConnectionException::new(ReplyCode::FrameError, "a heartbeat with a payload"));
    }
    Ok(None)
}

/// Whether a client says among its capabilities that it understands `connection.close` as the answer to its credentials.
fn is_told_of_refusal(client_properties: FieldTable<'_>) -> bool {
    let Some(FieldValue::Table(capabilities)) = client_properties.get("capabilities") else { return false };
    capabilities.get("authentication_failure_close") == Some(FieldValue::Bool(true))
}

#[cold]
fn unexpected(text: String) -> ConnectionException {
    ConnectionException::new(ReplyCode::UnexpectedFrame, text)
}

#[cold]
fn not_a_clients(method: &Method<'_>) -> ConnectionException {
    let text = format!("{} is nothing that a client says here", method.name());
    ConnectionException::new(ReplyCode::CommandInvalid, text).caused_by(method.id())
}

impl Phase {
    fn name(self) -> &'static str {
        match self {
            Self::Header | Self::Starting => "starting",
            Self::Authenticating | Self::Securing => "securing",
            Self::Tuning => "tuning",
            Self::Opening | Self::Admitting => "opening",
            Self::Running => "running",
            Self::ClientCloses | Self::ServerCloses => "closing",
            Self::Ended => "closed",
        }
    }
}

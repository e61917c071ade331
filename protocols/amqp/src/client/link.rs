//! A connection to a broker: methods with their contents, as they come.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use sabir_frontend::client::{ClientError, Endpoint, Failure, Socket};
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};

use crate::wire::*;

/// Bytes of a read at a time.
const READ: usize = 256 * 1024;

/// What to do about a queue that is not there.
pub(super) const DECLARE: &str =
    "A client of AMQP declares queues (queue.declare): a topic of that name would be none.";

/// A method that came, with its content if it has one.
#[derive(Debug, Clone)]
pub(super) struct Came {
    pub(super) channel: u16,
    payload: Bytes,
    /// As on the wire.
    pub(super) properties: Bytes,
    pub(super) body: ContentBody,
}

impl Came {
    pub(super) fn method(&self) -> Method<'_> {
        Method::read(&self.payload).expect("it was read when it came")
    }
}

/// A content on its way, of one channel.
struct PartialContent {
    came: Came,
    left: Option<u64>,
}

/// What a broker sends.
pub(super) struct LinkReader {
    read: ReadHalf<Socket>,
    input: BytesMut,
    frame_max: u32,
    unfinished: Vec<PartialContent>,
    came: VecDeque<Came>,
}

/// What a broker is sent.
pub(super) struct LinkWriter {
    write: WriteHalf<Socket>,
    pub(super) out: FrameBuffer,
    pub(super) frame_max: u32,
}

/// Both.
pub(super) struct Link {
    pub(super) incoming: LinkReader,
    pub(super) outgoing: LinkWriter,
}

pub(super) fn broken(what: impl ToString) -> ClientError {
    ClientError::new(Failure::Broken, what.to_string())
}

impl LinkReader {
    /// The next method.
    pub(super) async fn next(&mut self) -> Result<Came, ClientError> {
        loop {
            match self.came.pop_front() {
                Some(came) => return Ok(came),
                None => self.fill().await?,
            }
        }
    }

    /// One that has come already.
    pub(super) fn take(&mut self) -> Option<Came> {
        self.came.pop_front()
    }

    /// Reads what comes. Loses nothing when it is dropped.
    pub(super) async fn fill(&mut self) -> Result<(), ClientError> {
        self.input.reserve(READ);
        if self.read.read_buf(&mut self.input).await.map_err(broken)? == 0 {
            return Err(broken("the connection was closed"));
        }
        while let Whole::Frames(len) = whole_frames(&self.input, self.frame_max).map_err(said)? {
            let (bytes, mut at) = (self.input.split_to(len).freeze(), 0);
            while let Some(frame) = Frame::next(&bytes, &mut at, self.frame_max).map_err(said)? {
                self.take_frame(&frame)?;
            }
        }
        Ok(())
    }

    fn take_frame(&mut self, frame: &Frame<'_>) -> Result<(), ClientError> {
        match frame.kind {
            FrameKind::Heartbeat => return Ok(()),
            FrameKind::Method => {
                let has_content = Method::read(frame.payload).map_err(said)?.has_content();
                let (payload, properties) = (frame.share(frame.payload), Bytes::new());
                let came = Came { channel: frame.channel, payload, properties, body: ContentBody::default() };
                match has_content {
                    true => self.unfinished.push(PartialContent { came, left: None }),
                    false => self.came.push_back(came),
                }
                return Ok(());
            }
            FrameKind::Header | FrameKind::Body => {}
        }
        let at = self.unfinished.iter().position(|content| content.came.channel == frame.channel);
        let at = at.ok_or_else(|| broken("a content without a method"))?;
        let content = &mut self.unfinished[at];
        match content.left {
            None => {
                let header = ContentHeader::read(frame).map_err(said)?;
                content.came.properties = header.raw_properties().clone();
                content.left = Some(header.body_size());
            }
            Some(left) => {
                let rest = left.checked_sub(frame.payload.len() as u64);
                let rest = rest.ok_or_else(|| broken("a body that is longer than was announced"))?;
                content.came.body.push(frame.share(frame.payload), rest == 0);
                content.left = Some(rest);
            }
        }
        if content.left == Some(0) {
            self.came.push_back(self.unfinished.swap_remove(at).came);
        }
        Ok(())
    }
}

impl LinkWriter {
    /// Sends what was written.
    pub(super) async fn flush(&mut self) -> Result<(), ClientError> {
        for piece in self.out.take() {
            self.write.write_all(&piece).await.map_err(broken)?;
        }
        Ok(())
    }
}

impl Link {
    /// Connects as `guest`, and opens channel 1.
    pub(super) async fn open(to: &Endpoint) -> Result<Self, ClientError> {
        let address = &to.address;
        let failed = |what: String| ClientError::new(Failure::Connect, format!("{address}: {what}"));
        let socket = to.dialer.connect(address).await.map_err(|e| failed(e.to_string()))?;
        let (read, write) = tokio::io::split(socket);
        let (unfinished, came) = (Vec::new(), VecDeque::new());
        let frame_max = PRE_AUTHENTICATION_MAX;
        let incoming = LinkReader { read, input: BytesMut::new(), frame_max, unfinished, came };
        let mut link = Self { incoming, outgoing: LinkWriter { write, out: FrameBuffer::new(), frame_max } };
        link.shake_hands().await.map_err(|error| failed(error.message))?;
        Ok(link)
    }

    async fn shake_hands(&mut self) -> Result<(), ClientError> {
        self.outgoing.out.raw(b"AMQP\x00\x00\x09\x01");
        self.outgoing.flush().await?;
        let start = self.incoming.next().await?;
        let Method::ConnectionStart(_) = start.method() else { return Err(unexpected(&start)) };
        let mut properties = FieldTableBuf::new();
        properties.push(ShortBytes::cut("product"), FieldValue::LongStr(b"sabir"));
        let (mechanism, locale) = (ShortStr::cut("PLAIN"), ShortStr::cut("en_US"));
        let (client_properties, response) = (properties.as_table(), &b"\0guest\0guest"[..]);
        let tune = self.ask(0, &ConnectionStartOk { client_properties, mechanism, response, locale }).await?;
        let Method::ConnectionTune(tune) = tune.method() else { return Err(unexpected(&tune)) };
        let frame_max = if tune.frame_max == 0 { 131_072 } else { tune.frame_max };
        (self.incoming.frame_max, self.outgoing.frame_max) = (frame_max, frame_max);
        let agreed = ConnectionTuneOk { channel_max: tune.channel_max, frame_max, heartbeat: 0 };
        self.outgoing.out.arguments(0, &agreed);
        let virtual_host = ShortStr::cut("/");
        let opened = self.ask(0, &ConnectionOpen { virtual_host, ..Default::default() }).await?;
        let Method::ConnectionOpenOk(_) = opened.method() else { return Err(unexpected(&opened)) };
        let opened = self.ask(1, &ChannelOpen::default()).await?;
        let Method::ChannelOpenOk(_) = opened.method() else { return Err(unexpected(&opened)) };
        Ok(())
    }

    /// Asks for something; the answer is what comes next.
    pub(super) async fn ask<M: MethodArguments>(
        &mut self,
        channel: u16,
        arguments: &M,
    ) -> Result<Came, ClientError> {
        self.outgoing.out.arguments(channel, arguments);
        self.outgoing.flush().await?;
        self.incoming.next().await
    }
}

/// Another method came than was expected: often one that says why.
pub(super) fn unexpected(came: &Came) -> ClientError {
    let (code, text) = match came.method() {
        Method::ChannelClose(close) => (close.reply_code, close.reply_text.as_str().to_owned()),
        Method::ConnectionClose(close) => (close.reply_code, close.reply_text.as_str().to_owned()),
        other => return broken(format!("{} came, which makes no sense here", other.name())),
    };
    match code == ReplyCode::NotFound as u16 {
        true => ClientError::new(Failure::NotFound, text).advise(DECLARE),
        false => ClientError::new(Failure::Refused, text),
    }
}

fn said(exception: ConnectionException) -> ClientError {
    broken(format!("what came makes no sense: {}", exception.text))
}

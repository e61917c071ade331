//! A channel: whether it is open, and the content that is on its way.

use bytes::Bytes;

use crate::wire::*;

/// A message as it was published: the method's frame, the properties and the body, all of them slices of what was read.
#[derive(Debug)]
pub struct PublishedContent {
    method: Bytes,
    /// Properties and size.
    pub header: ContentHeader,
    /// The body, whole.
    pub body: ContentBody,
}

impl PublishedContent {
    /// Where it goes.
    #[inline]
    pub fn method(&self) -> BasicPublish<'_> {
        BasicPublish::read_payload(&self.method).expect("the frame was read as basic.publish when it came")
    }
}

/// Where a channel stands.
#[derive(Debug)]
pub(super) enum ChannelState {
    /// Open; a method is expected.
    Open,
    /// A publish has come; its header is expected.
    Header(Bytes),
    /// So many bytes of a body are expected.
    Body(Unfinished),
    /// The client closes it; the handlers lay it down.
    ClientCloses,
    /// The server has closed it; what comes is passed over until the client knows.
    ServerCloses,
}

/// A content of which something is missing.
#[derive(Debug)]
pub(super) struct Unfinished {
    content: PublishedContent,
    left: u64,
    /// Whether method and properties hold nothing but their own bytes, and how many pieces of the body do.
    detached: Option<u32>,
}

impl Unfinished {
    fn detach(&mut self) {
        let PublishedContent { method, header, body } = &mut self.content;
        if self.detached.is_none() {
            *method = Bytes::copy_from_slice(method);
            header.detach();
        }
        self.detached = Some(body.detach(self.detached.unwrap_or(0)));
    }
}

/// What a frame of a content led to.
pub(super) enum Assembled {
    /// More is to come.
    More,
    /// The content is whole.
    Whole(PublishedContent),
}

impl ChannelState {
    /// Bytes that have come of a content on its way.
    #[inline]
    pub fn unfinished(&self) -> u64 {
        match self {
            Self::Body(unfinished) => unfinished.content.body.len(),
            _ => 0,
        }
    }

    /// Whether a content is on its way.
    #[inline]
    pub fn is_assembling(&self) -> bool {
        matches!(self, Self::Header(_) | Self::Body(_))
    }

    /// Copies what has come of a content.
    pub fn detach(&mut self) {
        match self {
            Self::Header(method) => *method = Bytes::copy_from_slice(method),
            Self::Body(unfinished) => unfinished.detach(),
            _ => {}
        }
    }

    /// What is expected, for an error.
    fn expected(&self) -> &'static str {
        match self {
            Self::Header(_) => "a content header",
            Self::Body(_) => "a content body",
            _ => "a method",
        }
    }

    /// Begins a content.
    #[inline]
    pub fn begin(&mut self, method: Bytes) {
        *self = Self::Header(method);
    }

    /// Takes a header frame. A message that is too large closes its channel; what comes of it is passed over.
    #[inline]
    pub fn header(&mut self, frame: &Frame<'_>, message_max: u64) -> Result<Assembled, Exception> {
        let Self::Header(method) = self else { return Err(self.unexpected("a content header").into()) };
        let header = ContentHeader::read(frame)?;
        if header.body_size() > message_max {
            return Err(too_large(header.body_size(), message_max).into());
        }
        let method = std::mem::take(method);
        let left = header.body_size();
        let content = PublishedContent { method, header, body: ContentBody::default() };
        if left == 0 {
            *self = Self::Open;
            return Ok(Assembled::Whole(content));
        }
        *self = Self::Body(Unfinished { content, left, detached: None });
        Ok(Assembled::More)
    }

    /// Takes a body frame.
    #[inline]
    pub fn body(&mut self, frame: &Frame<'_>) -> Result<Assembled, ConnectionException> {
        let Self::Body(unfinished) = self else { return Err(self.unexpected("a content body")) };
        let size = frame.payload.len() as u64;
        unfinished.left = unfinished.left.checked_sub(size).ok_or_else(|| too_long(size, unfinished.left))?;
        unfinished.content.body.push(frame.share(frame.payload), unfinished.left == 0);
        if unfinished.left > 0 {
            return Ok(Assembled::More);
        }
        match std::mem::replace(self, Self::Open) {
            Self::Body(unfinished) => Ok(Assembled::Whole(unfinished.content)),
            _ => unreachable!("a body was expected"),
        }
    }

    /// An error: something else was expected.
    #[cold]
    pub fn unexpected(&self, got: &str) -> ConnectionException {
        let error = ConnectionException::new(
            ReplyCode::UnexpectedFrame,
            format!("expected {}, got {got}", self.expected()),
        );
        if matches!(self, Self::Open) { error } else { error.caused_by(PUBLISH) }
    }
}

const PUBLISH: (u16, u16) = <BasicPublish<'_> as MethodArguments>::ID;

#[cold]
fn too_large(size: u64, most: u64) -> ChannelException {
    let text = format!("message size {size} is larger than configured max size {most}");
    ChannelException::precondition_failed(text).caused_by(PUBLISH)
}

#[cold]
fn too_long(size: u64, left: u64) -> ConnectionException {
    let text = format!("a content body frame has {size} bytes, where {left} are left of what was announced");
    ConnectionException::new(ReplyCode::FrameError, text).caused_by(PUBLISH)
}

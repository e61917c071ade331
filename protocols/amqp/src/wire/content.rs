//! Contents: the header frame that announces a body, and a method with its content as frames.

use bytes::Bytes;

use super::body::ContentBody;
use super::exception::{ConnectionException, Malformed, ReplyCode};
use super::frame::{EMPTY_FRAME, Frame, FrameKind};
use super::method::{BasicPublish, MethodArguments, write_method};
use super::output::FrameBuffer;
use super::properties::{BasicProperties, CLASS_BASIC};
use super::reader::ArgumentReader;
use super::writer::WriteArgument;

/// The only method of a client that has a content, and so the cause of all that is wrong with one.
const PUBLISH: (u16, u16) = <BasicPublish<'_> as MethodArguments>::ID;

/// Bytes of a header frame's payload before the properties.
const HEADER_PREFIX: usize = 12;

/// What a header frame says. The properties have been checked, and are kept as they came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContentHeader {
    body_size: u64,
    properties: Bytes,
}

impl ContentHeader {
    /// Reads a header frame's payload.
    ///
    /// # Errors
    /// It is cut, is of another class, has a weight, or has properties that cannot be read.
    #[inline]
    pub fn read(frame: &Frame<'_>) -> Result<Self, ConnectionException> {
        let mut r = ArgumentReader::new(frame.payload);
        let (class, weight, body_size) =
            read_prefix(&mut r).map_err(|bad| unreadable("a content header", bad))?;
        if class != CLASS_BASIC || weight != 0 {
            return Err(not_expected(class, weight));
        }
        let raw = r.rest();
        BasicProperties::check(raw).map_err(|bad| unreadable("properties", bad))?;
        Ok(Self { body_size, properties: frame.share(raw) })
    }

    /// A header of properties as they stand on the wire.
    ///
    /// # Errors
    /// The properties cannot be read.
    pub fn of(properties: Bytes, body_size: u64) -> Result<Self, Malformed> {
        BasicProperties::check(&properties)?;
        Ok(Self { body_size, properties })
    }

    /// Copies the properties: they no longer hold the buffer in which they came.
    pub fn detach(&mut self) {
        self.properties = Bytes::copy_from_slice(&self.properties);
    }

    /// How many bytes the body has.
    pub fn body_size(&self) -> u64 {
        self.body_size
    }

    /// The properties as they came: flags and values.
    pub fn raw_properties(&self) -> &Bytes {
        &self.properties
    }

    /// The properties.
    pub fn properties(&self) -> BasicProperties<'_> {
        BasicProperties::read_again(&self.properties)
    }
}

#[inline]
fn read_prefix(r: &mut ArgumentReader<'_>) -> Result<(u16, u16, u64), Malformed> {
    Ok((r.u16()?, r.u16()?, r.u64()?))
}

#[cold]
fn unreadable(what: &str, malformed: Malformed) -> ConnectionException {
    ConnectionException::malformed(what, malformed).caused_by(PUBLISH)
}

#[cold]
fn not_expected(class: u16, weight: u16) -> ConnectionException {
    let text = format!(
        "expected a content header of class {CLASS_BASIC}, got one of class {class} and weight {weight}"
    );
    ConnectionException::new(ReplyCode::UnexpectedFrame, text).caused_by(PUBLISH)
}

/// Whether so many bytes of properties fit a frame of the size that was agreed on.
#[inline]
pub fn header_fits(properties: usize, frame_max: u32) -> bool {
    properties + HEADER_PREFIX + EMPTY_FRAME <= frame_max as usize
}

/// The properties of a message do not fit a frame of the size that was agreed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeaderTooLarge;

impl FrameBuffer {
    /// Writes a method with its content: the frames of a delivery, of an answer to a get, of a return. `properties` are flags and values.
    ///
    /// # Errors
    /// The properties do not fit a frame; nothing has been written.
    #[inline]
    pub fn content<M: MethodArguments>(
        &mut self,
        channel: u16,
        arguments: &M,
        properties: &[u8],
        body: &ContentBody,
        frame_max: u32,
    ) -> Result<(), HeaderTooLarge> {
        if !header_fits(properties.len(), frame_max) {
            return Err(HeaderTooLarge);
        }
        self.open.reserve(room(properties.len(), body.len()));
        self.frame(FrameKind::Method, channel, |w| write_method(arguments, w));
        self.frame(FrameKind::Header, channel, |w| {
            CLASS_BASIC.write(w);
            0u16.write(w);
            body.len().write(w);
            w.raw(properties);
        });
        self.body(channel, body, frame_max as usize - EMPTY_FRAME);
        Ok(())
    }

    /// A piece of a body may span frames, and a frame may span pieces.
    #[inline]
    fn body(&mut self, channel: u16, body: &ContentBody, most: usize) {
        let (mut left, mut room) = (body.len(), 0);
        for piece in body.pieces() {
            let mut at = 0;
            while at < piece.len() {
                if room == 0 {
                    room = usize::try_from(left).unwrap_or(most).min(most);
                    self.begin_body(channel, room);
                }
                let part = room.min(piece.len() - at);
                self.piece(piece, at, at + part);
                (at, room, left) = (at + part, room - part, left - part as u64);
                if room == 0 {
                    self.end_body();
                }
            }
        }
    }
}

/// How many bytes a content of one body frame takes at most, as far as they are copied.
#[inline]
fn room(properties: usize, body: u64) -> usize {
    const FRAMES: usize = 3 * EMPTY_FRAME + HEADER_PREFIX + 64;
    let copied = usize::try_from(body).unwrap_or(usize::MAX).min(super::SHARED_FROM);
    FRAMES + properties + copied
}

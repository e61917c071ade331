//! Frames: kind, channel, length, payload, end.

use bytes::Bytes;

use super::exception::{ConnectionException, ReplyCode};

/// Bytes before a frame's payload.
pub const FRAME_PREFIX: usize = 7;
/// Bytes of a frame without payload.
pub const EMPTY_FRAME: usize = 8;
/// The octet that ends a frame.
pub const FRAME_END: u8 = 0xCE;
/// The least that both sides must take as a frame's size.
pub const FRAME_MIN: u32 = 4096;
/// How large a frame may be before the client is known, as with RabbitMQ.
pub const PRE_AUTHENTICATION_MAX: u32 = 8192;

/// What a frame carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum FrameKind {
    /// A method.
    Method = 1,
    /// Properties and size of a content.
    Header = 2,
    /// A piece of a content.
    Body = 3,
    /// A sign of life.
    Heartbeat = 8,
}

impl FrameKind {
    fn of(octet: u8) -> Option<Self> {
        Some(match octet {
            1 => Self::Method,
            2 => Self::Header,
            3 => Self::Body,
            8 => Self::Heartbeat,
            _ => return None,
        })
    }
}

/// A whole frame, within the bytes in which it arrived.
#[derive(Debug, Clone, Copy)]
pub struct Frame<'a> {
    /// What it carries.
    pub kind: FrameKind,
    /// The channel it is for; 0 is the connection.
    pub channel: u16,
    /// What it carries.
    pub payload: &'a [u8],
    owner: &'a Bytes,
}

impl<'a> Frame<'a> {
    /// Takes the frame that begins at `*at`, and moves `at` behind it; `None` where it is not whole.
    ///
    /// # Errors
    /// What begins there is no frame, or one larger than `frame_max`.
    #[inline]
    pub fn next(
        owner: &'a Bytes,
        at: &mut usize,
        frame_max: u32,
    ) -> Result<Option<Self>, ConnectionException> {
        let input = owner.get(*at..).unwrap_or_default();
        let Some(prefix) = Prefix::read(input)? else { return Ok(None) };
        prefix.check_size(frame_max)?;
        let Some(frame) = input.get(..prefix.frame_len()) else { return Ok(None) };
        let payload = &frame[FRAME_PREFIX..FRAME_PREFIX + prefix.payload];
        if frame[frame.len() - 1] != FRAME_END {
            return Err(no_end(frame[frame.len() - 1]));
        }
        *at += frame.len();
        Ok(Some(Self { kind: prefix.kind, channel: prefix.channel, payload, owner }))
    }

    /// A part of the payload that outlives the frame: it holds the bytes in which the frame arrived.
    pub fn share(&self, part: &'a [u8]) -> Bytes {
        self.owner.slice_ref(part)
    }
}

/// What stands before a payload.
struct Prefix {
    kind: FrameKind,
    channel: u16,
    payload: usize,
}

impl Prefix {
    #[inline]
    fn read(input: &[u8]) -> Result<Option<Self>, ConnectionException> {
        let Some(first) = input.first() else { return Ok(None) };
        // Told by its first octet, so that no connection waits for the rest of what is no frame.
        let kind = FrameKind::of(*first).ok_or_else(|| unknown_kind(*first))?;
        let Some(prefix) = input.first_chunk::<FRAME_PREFIX>() else { return Ok(None) };
        let [_, c0, c1, p0, p1, p2, p3] = *prefix;
        let payload = u32::from_be_bytes([p0, p1, p2, p3]) as usize;
        Ok(Some(Self { kind, channel: u16::from_be_bytes([c0, c1]), payload }))
    }

    fn frame_len(&self) -> usize {
        EMPTY_FRAME + self.payload
    }

    /// RabbitMQ lets the payload alone have the size that was agreed on for the whole frame, because clients get it wrong.
    #[inline]
    fn check_size(&self, frame_max: u32) -> Result<(), ConnectionException> {
        if self.payload > frame_max as usize { Err(too_large(self.payload, frame_max)) } else { Ok(()) }
    }
}

/// What stands at the front of the input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whole {
    /// Whole frames, so many bytes in all.
    Frames(usize),
    /// No whole frame; there is one, or an error, once there are so many bytes.
    Need(usize),
}

/// Finds out how much of the input is whole frames, so that they can be taken out at once. A frame that is too large is an error only
/// at the front: those before it may raise the limit.
///
/// # Errors
/// What begins the input is no frame, or one larger than `frame_max`.
pub fn whole_frames(input: &[u8], frame_max: u32) -> Result<Whole, ConnectionException> {
    let mut len = 0;
    loop {
        let rest = &input[len..];
        let found = Prefix::read(rest).and_then(|prefix| match prefix {
            Some(prefix) => prefix.check_size(frame_max).map(|()| prefix.frame_len()),
            None => Ok(FRAME_PREFIX),
        });
        match found {
            Ok(need) if need > rest.len() => {
                return Ok(if len > 0 { Whole::Frames(len) } else { Whole::Need(need) });
            }
            // Seven bytes are never a frame.
            Ok(need) => len += need,
            Err(error) if len == 0 => return Err(error),
            Err(_) => return Ok(Whole::Frames(len)),
        }
    }
}

#[cold]
fn unknown_kind(octet: u8) -> ConnectionException {
    ConnectionException::new(ReplyCode::FrameError, format!("there is no frame of type {octet}"))
}

#[cold]
fn too_large(payload: usize, frame_max: u32) -> ConnectionException {
    ConnectionException::new(
        ReplyCode::FrameError,
        format!("a frame has a payload of {payload} bytes, where {frame_max} are taken"),
    )
}

#[cold]
fn no_end(octet: u8) -> ConnectionException {
    ConnectionException::new(
        ReplyCode::FrameError,
        format!("a frame ends with {octet}, not with {FRAME_END}"),
    )
}

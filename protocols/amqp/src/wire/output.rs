//! What is to be sent, as few pieces.

use bytes::{BufMut, Bytes, BytesMut};

use super::frame::{FRAME_END, FRAME_PREFIX, FrameKind};
use super::method::{Method, MethodArguments, write_method};
use super::writer::ArgumentWriter;

/// Pieces of bodies that are at least this large are sent as they are; smaller ones are copied between the frames around them.
pub const SHARED_FROM: usize = 4096;

/// Frames to be sent.
#[derive(Debug, Default)]
pub struct FrameBuffer {
    pieces: Vec<Bytes>,
    pub(super) open: BytesMut,
    pieces_len: usize,
    /// Whether pieces that are sent as they are hold memory of the node's, and the numbers of those that do.
    holds: bool,
    held: Vec<usize>,
}

impl FrameBuffer {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many bytes are in it.
    pub fn len(&self) -> usize {
        self.pieces_len + self.open.len()
    }

    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes what is to be sent, in order.
    pub fn take(&mut self) -> impl Iterator<Item = Bytes> {
        self.close();
        self.pieces_len = 0;
        self.held.clear();
        self.pieces.drain(..)
    }

    /// Says of the bodies that are written from now on whether their pieces hold memory of the node's.
    pub fn hold(&mut self, holds: bool) {
        self.holds = holds;
    }

    /// Takes what is to be sent, in order, and of each piece whether it holds memory of the node's.
    pub fn take_told(&mut self) -> impl Iterator<Item = (Bytes, bool)> {
        self.close();
        self.pieces_len = 0;
        let mut held = self.held.drain(..).peekable();
        let pieces = self.pieces.drain(..).enumerate();
        pieces.map(move |(at, piece)| (piece, held.next_if_eq(&at).is_some()))
    }

    /// Takes what is to be sent where only small frames were written: all of it, in one piece.
    pub fn take_all(&mut self) -> Bytes {
        let mut all = BytesMut::with_capacity(self.len());
        self.take().for_each(|piece| all.extend_from_slice(&piece));
        all.freeze()
    }

    /// Makes a piece of what has been written.
    fn close(&mut self) {
        if !self.open.is_empty() {
            self.pieces_len += self.open.len();
            self.pieces.push(self.open.split().freeze());
        }
    }

    /// Writes a method's frame.
    pub fn method(&mut self, channel: u16, method: &Method<'_>) {
        self.frame(FrameKind::Method, channel, |w| method.write(w));
    }

    /// Writes the frame of a method whose type is known.
    #[inline]
    pub fn arguments<M: MethodArguments>(&mut self, channel: u16, arguments: &M) {
        self.frame(FrameKind::Method, channel, |w| write_method(arguments, w));
    }

    /// Writes a sign of life.
    pub fn heartbeat(&mut self) {
        self.frame(FrameKind::Heartbeat, 0, |_| {});
    }

    /// Writes bytes that are no frame: the protocol header that answers another one.
    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        self.open.put_slice(bytes);
    }

    /// Writes a frame whose payload `payload` writes.
    #[inline]
    pub(super) fn frame(
        &mut self,
        kind: FrameKind,
        channel: u16,
        payload: impl FnOnce(&mut ArgumentWriter<'_>),
    ) {
        let at = self.open.len();
        self.prefix(kind, channel, 0);
        payload(&mut ArgumentWriter::new(&mut self.open));
        let len = self.open.len() - at - FRAME_PREFIX;
        let len = u32::try_from(len).expect("a frame is smaller than 4 GiB");
        self.open[at + 3..at + FRAME_PREFIX].copy_from_slice(&len.to_be_bytes());
        self.open.put_u8(FRAME_END);
    }

    #[inline]
    fn prefix(&mut self, kind: FrameKind, channel: u16, payload: u32) {
        let ([c0, c1], [p0, p1, p2, p3]) = (channel.to_be_bytes(), payload.to_be_bytes());
        self.open.put_slice(&[kind as u8, c0, c1, p0, p1, p2, p3]);
    }

    /// Begins a body frame of so many bytes.
    #[inline]
    pub(super) fn begin_body(&mut self, channel: u16, payload: usize) {
        let payload = u32::try_from(payload).expect("a frame is smaller than 4 GiB");
        self.prefix(FrameKind::Body, channel, payload);
    }

    /// Ends a body frame.
    #[inline]
    pub(super) fn end_body(&mut self) {
        self.open.put_u8(FRAME_END);
    }

    /// A piece of a body.
    #[inline]
    pub(super) fn piece(&mut self, piece: &Bytes, from: usize, to: usize) {
        if to - from < SHARED_FROM {
            self.open.put_slice(&piece[from..to]);
            return;
        }
        self.close();
        self.pieces_len += to - from;
        if self.holds {
            self.held.push(self.pieces.len());
        }
        self.pieces.push(piece.slice(from..to));
    }
}

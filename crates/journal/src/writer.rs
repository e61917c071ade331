//! The one place where frames are made: blocks get their sequence and their place, and completions move the marks.

use std::sync::Arc;

use bytes::Bytes;
use sabir_model::{Sequence, Term};

use crate::block::Block;
use crate::disk::{Completion, DiskError, FileId, WriteOp};
use crate::error::{BlockAppendError, StorageError};
use crate::flight::Flight;
use crate::frame::{FRAME, FrameHeader, FrameKind, STEP};
use crate::index::Located;
use crate::journal::Parts;
use crate::segment::{SEGMENT_HEADER, Segment};
use crate::tail::content_of;
use crate::walk::{Chain, Found, Window, examine};

/// How long an idle journal waits before it seals, in milliseconds.
pub(crate) const SEAL_AFTER_MS: u64 = 100;
/// How long a plain run may go without a flush, in milliseconds; ticks come a little late.
pub(crate) const FLUSH_AFTER_MS: u64 = 900;
/// How long a write waits that found no space before it is tried again, in milliseconds.
pub(crate) const AGAIN_AFTER_MS: u64 = 500;
/// How many blocks are written again at a time of those that a flush found no space for.
const REWRITE_BLOCKS: usize = 8;

/// What an append gives its caller.
pub(crate) struct Appended {
    pub sequence: Sequence,
    pub content: bytes::Bytes,
}

/// Whether the last frame is a seal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seal {
    /// No: a block is.
    Open,
    /// A seal with this token is under way; blocks wait for it.
    Writing(u64),
    Sealed,
}

/// A write that has not been done. It is kept, so that the same bytes can be written to the same place again.
#[derive(Debug)]
struct Sent {
    op: WriteOp,
    try_: Try,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Try {
    First,
    /// It found no space, and is to be tried again.
    Waits,
    Again,
}

/// What a completion is for, in the low bits of its token.
const KIND_BITS: u32 = 2;
const BLOCK: u64 = 0;
const SYNC: u64 = 1;
const SEAL: u64 = 2;
/// A plain block, written again.
const REWRITE: u64 = 3;

fn kind_of(token: u64) -> u64 {
    token & ((1 << KIND_BITS) - 1)
}

/// The writing half of a journal; lives under one lock.
#[derive(Debug)]
pub(crate) struct Writer {
    active: Arc<Segment>,
    /// Where the next frame goes, in bytes.
    pos: u64,
    prev_crc: u32,
    term: Term,
    cuts: u32,
    pub flight: Flight,
    tokens: u64,
    seal: Seal,
    /// Blocks that wait for the seal.
    held: Vec<WriteOp>,
    /// Blocks and seals that the disk was given and has not written.
    sent: Vec<Sent>,
    /// When those that found no space are tried again, and what the last of them was told.
    again_at_ms: Option<u64>,
    shortage: Option<DiskError>,
    /// The first plain block that is still to be written again and synced, since a sync found no space: a cache may have let go of
    /// what that was to make durable, and a later sync says nothing of it.
    rewrite_from: Option<u64>,
    now_ms: u64,
    /// Whether a block came since the last tick, and the tick that saw the last one.
    appended: bool,
    idle_since_ms: u64,
    /// The tick before the plain run began.
    plain_since_ms: Option<u64>,
    closed: bool,
    /// Whether a cut is under way: time must start nothing that the cut would not see.
    paused: bool,
}

impl Writer {
    pub(crate) fn new(active: Arc<Segment>, pos: u64, chain: &Chain, cuts: u32) -> Self {
        Self {
            active,
            pos,
            prev_crc: chain.prev_crc,
            term: chain.term,
            cuts,
            flight: Flight::after(chain.last.0),
            tokens: 0,
            seal: if chain.sealed { Seal::Sealed } else { Seal::Open },
            held: Vec::new(),
            sent: Vec::new(),
            again_at_ms: None,
            shortage: None,
            rewrite_from: None,
            now_ms: 0,
            appended: false,
            idle_since_ms: 0,
            plain_since_ms: None,
            closed: false,
            paused: false,
        }
    }

    /// Continues behind `chain` after a cut.
    pub(crate) fn restart(&mut self, active: Arc<Segment>, pos: u64, chain: &Chain, cuts: u32) {
        let (tokens, now_ms) = (self.tokens, self.now_ms);
        // Where there is no descriptor now, the next write asks again.
        let _ = active.file.hold();
        self.active.file.let_go();
        *self = Self { tokens, now_ms, idle_since_ms: now_ms, ..Self::new(active, pos, chain, cuts) };
    }

    pub(crate) fn pause(&mut self, parts: &Parts, paused: bool) {
        self.paused = paused;
        self.try_again(parts);
    }

    pub(crate) fn close(&mut self, parts: &Parts) {
        self.closed = true;
        self.try_again(parts);
    }

    /// Whether a thread waits for the end of all writes, which must not wait for space.
    fn waits_no_longer(&self) -> bool {
        self.closed || self.paused
    }

    /// What a write or a flush lacked that is yet to be done.
    pub(crate) fn shortage(&self) -> Option<&DiskError> {
        self.shortage.as_ref()
    }

    pub(crate) fn is_sealing(&self) -> bool {
        matches!(self.seal, Seal::Writing(_))
    }

    pub(crate) fn is_sealed(&self) -> bool {
        self.seal == Seal::Sealed
    }

    /// What a flush lacked, if blocks are to be written again for it.
    pub(crate) fn unflushable(&self) -> Option<&DiskError> {
        self.shortage.as_ref().filter(|_| self.rewrite_from.is_some())
    }

    /// Whether nothing is under way and nothing waits; goes on with what is to be written again. Blocking.
    pub(crate) fn drained(&mut self, parts: &Parts) -> bool {
        self.rewrite(parts);
        self.rewrite_from.is_none() && self.flight.is_idle() && !self.is_sealing() && self.held.is_empty()
    }

    pub(crate) fn term(&self) -> Term {
        self.term
    }

    /// Bytes left in the segment at hand.
    pub(crate) fn room(&self) -> u64 {
        self.active.file.len - self.pos
    }

    /// Bytes of the segment in use.
    pub(crate) fn segment_len(&self) -> u64 {
        self.active.file.len
    }

    /// Bytes taken of it.
    pub(crate) fn used(&self) -> u64 {
        self.pos - SEGMENT_HEADER as u64
    }

    fn token(&mut self, kind: u64) -> u64 {
        self.tokens += 1;
        self.tokens << KIND_BITS | kind
    }

    /// Frames a block and sends it off.
    pub(crate) fn append(
        &mut self,
        parts: &Parts,
        block: Block,
        term: Term,
    ) -> Result<Appended, BlockAppendError> {
        if let Some(error) = parts.stopped.get() {
            return Err(BlockAppendError::Stopped(error.clone()));
        }
        if self.closed {
            return Err(BlockAppendError::Closed(block));
        }
        match self.make_room(parts, block.framed_len() as u64) {
            Ok(()) => Ok(self.send_block(parts, block, term)?),
            Err(error) if error.is_shortage() => Err(BlockAppendError::Full(block)),
            Err(error) => Err(BlockAppendError::Stopped(self.stop(parts, "make a segment", error))),
        }
    }

    /// Goes on to the next segment where this one has too little left.
    fn make_room(&mut self, parts: &Parts, len: u64) -> Result<(), DiskError> {
        if len > parts.segment_pool.largest_frame() {
            return Err(DiskError::full("write a block to", self.active.file.name()));
        }
        if self.room() < len {
            self.go_on(parts)?;
        }
        // A segment made under other options may be too short. It is not skipped: the next frame must follow here.
        if self.room() < len {
            return Err(DiskError::full("write a block to", self.active.file.name()));
        }
        Ok(())
    }

    /// Goes on to the next segment.
    fn go_on(&mut self, parts: &Parts) -> Result<(), DiskError> {
        let next = parts.segment_pool.take()?;
        if let Err(error) = next.file.hold() {
            next.file.let_go();
            parts.segment_pool.put_back(vec![next]);
            return Err(error);
        }
        std::mem::replace(&mut self.active, next).file.let_go();
        self.pos = SEGMENT_HEADER as u64;
        Ok(())
    }

    /// Goes on to the next segment though this one has room, if `last` is the last block and stands in this one; whether it did.
    pub(crate) fn leave(&mut self, parts: &Parts, last: Sequence) -> bool {
        let here = parts.index.read().segment_of(last.0) == Some(self.active.no);
        let stopped = parts.stopped.get().is_some() || self.waits_no_longer();
        here && !stopped && self.flight.last() == last.0 && self.go_on(parts).is_ok()
    }

    fn send_block(&mut self, parts: &Parts, block: Block, term: Term) -> Result<Appended, Arc<StorageError>> {
        let sequence = Sequence(self.flight.last() + 1);
        let (durability, content_len) = (block.durability(), block.content_len());
        let header = FrameHeader {
            kind: FrameKind::Block,
            generation: self.active.generation,
            sequence,
            term,
            durable_through: Sequence(self.flight.durable()),
            content_len: content_len as u32,
            content_crc: block.content_crc(),
            prev_crc: self.prev_crc,
            cuts: self.cuts,
        };
        let mut buf = block.buf;
        let (bytes, crc) = header.encode();
        buf[..FRAME].copy_from_slice(&bytes);
        let len = buf.len() as u64;
        let frame = parts.tail.share(buf);
        let content = content_of(&frame, content_len);

        let (pos, file) = (self.pos, self.active.file.id);
        parts.index.write().push(&self.active, sequence.0, pos, pos + len);
        parts.tail.push(frame.clone(), content_len, parts.marks.evictable());
        let token = self.token(BLOCK);
        let sync = self.flight.append(token, file, len, durability);
        if !sync && self.plain_since_ms.is_none() {
            self.plain_since_ms = Some(self.now_ms);
        }
        (self.pos, self.prev_crc, self.term) = (pos + len, crc, term);
        self.appended = true;
        parts.counters.block(content_len as u64, len);
        self.send(parts, WriteOp { token, file, pos, data: frame, sync })?;
        Ok(Appended { sequence, content })
    }

    fn send(&mut self, parts: &Parts, op: WriteOp) -> Result<(), Arc<StorageError>> {
        if self.is_sealing() {
            self.held.push(op);
            return Ok(());
        }
        self.seal = Seal::Open;
        self.submit(parts, op, Try::First)
    }

    fn submit(&mut self, parts: &Parts, op: WriteOp, try_: Try) -> Result<(), Arc<StorageError>> {
        let submitted = parts.disk.submit(op.clone());
        self.sent.push(Sent { op, try_ });
        let at = self.sent.len() - 1;
        submitted.or_else(|error| self.not_written(parts, at, error))
    }

    /// A write was not done, or in part. Where there was only too little space, the same bytes are to be written to the same place again:
    /// nothing was promised of them, nor of any block behind them, and until they stand there in full nothing is.
    fn not_written(&mut self, parts: &Parts, at: usize, error: DiskError) -> Result<(), Arc<StorageError>> {
        if !error.is_shortage() || self.waits_no_longer() {
            return Err(self.stop(parts, "write", error));
        }
        self.sent[at].try_ = Try::Waits;
        if self.sent[at].op.sync {
            self.doubt_plain();
        }
        self.wait_for_space(error);
        Ok(())
    }

    /// A sync of a flush was not done. Where there was only too little space, all that no flush covers is written again.
    fn not_flushed(&mut self, parts: &Parts, error: DiskError) -> Result<(), Arc<StorageError>> {
        if !error.is_shortage() || self.waits_no_longer() {
            return Err(self.stop(parts, "flush", error));
        }
        self.flight.flush_failed();
        self.doubt_plain();
        self.wait_for_space(error);
        Ok(())
    }

    fn wait_for_space(&mut self, error: DiskError) {
        tracing::debug!(%error, "a write or a flush waits for space");
        self.again_at_ms.get_or_insert(self.now_ms + AGAIN_AFTER_MS);
        self.shortage = Some(error);
    }

    /// A sync found no space. Blocks that were written again before it are durable.
    fn doubt_plain(&mut self) {
        self.rewrite_from = self.rewrite_from.or_else(|| self.flight.plain_from(0).next());
    }

    /// Writes plain blocks again whose flush found no space, some at a time; each is synced. Blocking.
    fn rewrite(&mut self, parts: &Parts) {
        let Some(next) = self.rewrite_from else { return };
        let under_way = |sent: &Sent| !sent.op.sync || kind_of(sent.op.token) == REWRITE;
        let waits = self.again_at_ms.is_some() || !self.held.is_empty() || self.sent.iter().any(under_way);
        if waits || parts.stopped.get().is_some() {
            return;
        }
        let sequences: Vec<u64> = self.flight.plain_from(next).take(REWRITE_BLOCKS).collect();
        let Some(&last) = sequences.last() else {
            // The flush that follows ends it.
            self.rewrite_from = None;
            self.flight.want(next - 1);
            return self.end_shortage();
        };
        self.rewrite_from = Some(last + 1);
        for sequence in sequences {
            let (file, pos, data) = match written(parts, sequence) {
                Ok(written) => written,
                Err(error) => {
                    self.stop(parts, "flush", error);
                    return;
                }
            };
            let op = WriteOp { token: self.token(REWRITE), file, pos, data, sync: true };
            if self.submit(parts, op, Try::Again).is_err() {
                return;
            }
        }
    }

    fn end_shortage(&mut self) {
        if self.rewrite_from.is_none() && self.sent.iter().all(|sent| sent.try_ == Try::First) {
            self.shortage = None;
        }
    }

    /// Tries what found no space again, in the order of their places.
    fn try_again(&mut self, parts: &Parts) {
        self.again_at_ms = None;
        if parts.stopped.get().is_some() {
            return;
        }
        let (waiting, rest) =
            std::mem::take(&mut self.sent).into_iter().partition(|sent| sent.try_ == Try::Waits);
        self.sent = rest;
        let mut waiting: Vec<Sent> = waiting;
        waiting.sort_unstable_by_key(|sent| sent.op.token);
        for sent in waiting {
            if self.submit(parts, sent.op, Try::Again).is_err() {
                return;
            }
        }
        self.end_shortage();
    }

    /// Takes in a completion.
    pub(crate) fn complete(&mut self, parts: &Parts, completion: Completion) {
        if parts.stopped.get().is_some() {
            return;
        }
        let token = completion.token;
        let at = self.sent.iter().position(|sent| sent.op.token == token);
        match (completion.result, at) {
            (Err(error), Some(at)) => {
                // A stop is told of by itself.
                let _ = self.not_written(parts, at, error);
                return;
            }
            (Err(error), None) => {
                // The same.
                let _ = self.not_flushed(parts, error);
                return;
            }
            (Ok(()), Some(at)) => drop(self.sent.swap_remove(at)),
            (Ok(()), None) => {}
        }
        self.end_shortage();
        match kind_of(token) {
            BLOCK => self.flight.block_written(token),
            SYNC => self.flight.sync_done(token),
            REWRITE => {}
            _ => self.sealed(parts, token),
        }
    }

    fn sealed(&mut self, parts: &Parts, token: u64) {
        if self.seal != Seal::Writing(token) {
            return;
        }
        self.seal = Seal::Sealed;
        parts.counters.seal();
        for op in std::mem::take(&mut self.held) {
            if self.send(parts, op).is_err() {
                return;
            }
        }
    }

    /// Starts the flush that is due, if one is.
    pub(crate) fn flush_if_due(&mut self, parts: &Parts) {
        if parts.stopped.get().is_some() || self.rewrite_from.is_some() {
            return;
        }
        let Some(files) = self.flight.flush_due() else {
            if !self.flight.has_plain() {
                self.plain_since_ms = None;
            }
            return;
        };
        let syncs: Vec<_> = files.into_iter().map(|file| (self.token(SYNC), file)).collect();
        self.flight.flush_started(syncs.iter().map(|(token, _)| *token).collect());
        // What comes after this moment is another run.
        self.plain_since_ms = Some(self.now_ms);
        parts.counters.flush();
        for (token, file) in syncs {
            if let Err(error) = parts.disk.submit_sync(token, file) {
                // A stop is told of by itself.
                let _ = self.not_flushed(parts, error);
                return;
            }
        }
    }

    /// Does what is due by time.
    pub(crate) fn tick(&mut self, parts: &Parts, now_ms: u64) {
        self.now_ms = self.now_ms.max(now_ms);
        if self.paused {
            return;
        }
        if self.again_at_ms.is_some_and(|at| at <= self.now_ms) {
            self.try_again(parts);
        }
        self.rewrite(parts);
        if std::mem::take(&mut self.appended) {
            self.idle_since_ms = self.now_ms;
        }
        let plain_for = self.plain_since_ms.map_or(0, |since| self.now_ms - since);
        if plain_for >= FLUSH_AFTER_MS {
            self.flight.want(self.flight.written());
        }
        if self.now_ms - self.idle_since_ms >= SEAL_AFTER_MS {
            self.seal_or_flush(parts);
        }
        self.flush_if_due(parts);
    }

    /// Seals an idle journal; first has its plain run flushed. Returns whether it is sealed or nothing can be done for it.
    pub(crate) fn seal_or_flush(&mut self, parts: &Parts) -> bool {
        let stopped = parts.stopped.get().is_some();
        if stopped || self.is_sealed() || self.flight.last() == 0 {
            return true;
        }
        if !self.drained(parts) {
            return false;
        }
        if self.flight.durable() < self.flight.last() {
            self.flight.want(self.flight.last());
            self.flush_if_due(parts);
            return false;
        }
        // A full segment is left unsealed: the next one's first block says the same.
        if self.room() < STEP {
            return true;
        }
        self.write_seal(parts);
        false
    }

    fn write_seal(&mut self, parts: &Parts) {
        let last = Sequence(self.flight.last());
        let header = FrameHeader {
            kind: FrameKind::Seal,
            generation: self.active.generation,
            sequence: last,
            term: self.term,
            durable_through: last,
            content_len: 0,
            content_crc: 0,
            prev_crc: self.prev_crc,
            cuts: self.cuts,
        };
        let mut buf = parts.pool.get(STEP as usize);
        buf.fill(0);
        let (bytes, crc) = header.encode();
        buf[..FRAME].copy_from_slice(&bytes);
        let (token, pos) = (self.token(SEAL), self.pos);
        let op = WriteOp { token, file: self.active.file.id, pos, data: buf.freeze(), sync: true };
        (self.pos, self.prev_crc, self.seal) = (pos + STEP, crc, Seal::Writing(token));
        parts.counters.written(STEP);
        // A stop is told of by itself.
        let _ = self.submit(parts, op, Try::First);
    }

    /// Stops the journal for good.
    pub(crate) fn stop(
        &mut self,
        parts: &Parts,
        doing: &'static str,
        source: DiskError,
    ) -> Arc<StorageError> {
        self.held.clear();
        self.sent.clear();
        self.shortage = None;
        let sequence = Sequence(self.flight.durable() + 1);
        let error = Arc::new(StorageError { doing, sequence, source });
        let error = parts.stopped.get_or_init(|| error).clone();
        tracing::error!(%error, "the journal has stopped; what is committed can still be read");
        error
    }
}

/// A block's frame as it was written, and where: from memory, or read back and looked through.
fn written(parts: &Parts, sequence: u64) -> Result<(FileId, u64, Bytes), DiskError> {
    let located = parts.index.read().locate(sequence, 0);
    let missing =
        || DiskError::NotFound { path: format!("the frame of block {sequence}, to be written again,") };
    let Located { segment, start, .. } = located.ok_or_else(missing)?;
    let file = segment.file.id;
    if let Some(frame) = parts.tail.frame(sequence) {
        return Ok((file, start, frame));
    }
    let mut window = Window::new(&segment.file, &parts.pool);
    match examine(&mut window, start, segment.generation)? {
        Found::Frame(header, _) if header.sequence.0 == sequence && header.kind == FrameKind::Block => {
            let frame = window.bytes(start, header.framed_len() as u64)?;
            let mut buf = parts.pool.get(frame.len());
            buf.copy_from_slice(frame);
            Ok((file, start, buf.freeze()))
        }
        _ => Err(missing()),
    }
}

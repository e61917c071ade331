//! Batches of a queue that were read, one after the other: each is unpacked when a message of it is wanted, and some of its records are known at a time.

use std::collections::VecDeque;
use std::ops::Range;

use bytes::Bytes;
use sabir_model::batch::{
    BatchError, BatchHeader, Compression, RecordView, RecordsPlace, records, uncompressed_records,
};
use sabir_model::{FrontendNo, Message, ReadError};

use super::at;
use super::missing::Missing;
use crate::broker::Broker;
use crate::read::{Fetched, ReadGrant, Slice, held};
use crate::relay::RECORDS_MAX;

/// Bytes that a batch may take that is unpacked where a message of it is looked for; larger ones are [`PackedBatch`]es.
const AT_ONCE: usize = 1 << 20;
/// Records whose places are known at a time.
const WINDOW: usize = 1024;

/// It is unpacked within these limits, one after the other: what it takes is not known before.
pub(super) const LIMITS: [usize; 3] = [8 << 20, 64 << 20, RECORDS_MAX];

/// A batch whose unpacking may take long: it is work for a thread that may be kept so long.
#[derive(Debug, Clone)]
pub struct PackedBatch {
    batch: Bytes,
    /// Bytes that it may take unpacked.
    limit: usize,
}

/// What became of it.
#[derive(Debug, Clone)]
pub struct UnpackedBatch(Unpacked);

#[derive(Debug, Clone)]
enum Unpacked {
    /// The batch, and whether it holds memory of the node's.
    Whole(Bytes, bool),
    /// It takes more than it may.
    TooLarge,
}

impl PackedBatch {
    /// Unpacks it, to 512 MiB at the most; none if it is damaged. It takes up to a second or so.
    pub fn unpack(&self) -> Option<UnpackedBatch> {
        match unpack_within(&self.batch, self.limit) {
            Ok(unpacked) => Some(UnpackedBatch(Unpacked::Whole(unpacked, false))),
            Err(BatchError::TooLarge { .. }) if self.limit < RECORDS_MAX => {
                Some(UnpackedBatch(Unpacked::TooLarge))
            }
            Err(_) => None,
        }
    }

    /// Bytes that it may take unpacked.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// Bytes that it has packed.
    pub(super) fn len(&self) -> usize {
        self.batch.len()
    }

    pub(super) fn within(self, limit: usize) -> Self {
        Self { limit, ..self }
    }
}

impl UnpackedBatch {
    /// Whether it takes more than it may.
    pub(super) fn is_too_large(&self) -> bool {
        matches!(self.0, Unpacked::TooLarge)
    }

    /// The same, holding as much of the memory as it takes.
    pub(super) fn held(self, mut grant: Box<dyn ReadGrant>) -> Self {
        match self.0 {
            Unpacked::Whole(batch, _) => {
                let grant = grant.split_off(batch.len());
                Self(Unpacked::Whole(held(batch, grant), true))
            }
            Unpacked::TooLarge => self,
        }
    }
}

fn unpack_within(batch: &Bytes, most: usize) -> Result<Bytes, BatchError> {
    records(batch, most).map(|found| found.uncompressed(batch))
}

/// A message as it is stored.
#[derive(Debug, Clone, Copy)]
pub struct StoredMessage<'a> {
    /// The front end that wrote it; [`FrontendNo::NONE`] for what a client sent as it is.
    pub origin: FrontendNo,
    /// Its record.
    pub record: RecordView<'a>,
    /// Whether the memory of its value is held.
    pub is_held: bool,
    /// The batch that the record is borrowed from.
    batch: &'a Bytes,
}

impl StoredMessage<'_> {
    /// The record's value, in the memory of what was read.
    pub fn value(&self) -> Option<Bytes> {
        self.record.value.map(|value| self.batch.slice_ref(value))
    }

    /// The message that the record holds, whichever front end wrote it. Of a front end that this server does not know it is the value.
    pub fn to_message(&self, broker: &Broker) -> Message {
        let message = broker.to_message(self.origin, &self.record);
        let mut message = message.unwrap_or_else(|| Message {
            body: self.value(),
            timestamp_ms: self.record.timestamp,
            ..Message::default()
        });
        // A large body is kept where it was read, and not a second time.
        if self.is_held && message.body.as_deref() == self.record.value {
            message.body = self.value();
        }
        message
    }
}

/// What there is at an offset, as far as that is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    /// The record of that number in the window.
    Record(usize),
    Gone,
    Unreadable(Lost),
    Unread,
    /// A batch is to be unpacked.
    Packed,
}

/// Messages up to an offset that cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Lost {
    pub(super) end: u64,
    pub(super) error: ReadError,
    /// Whether the read has told of it that found it.
    pub(super) is_noted: bool,
}

/// Batches that were read, from one offset on.
#[derive(Debug, Default)]
pub(super) struct Batches {
    /// Where the read began that found them, until it is known to have found nothing there.
    read_from: Option<u64>,
    slices: VecDeque<Slice>,
    /// Bytes that were read and hold no memory of the node's.
    read: usize,
    /// Batches of the slice in hand that were not looked at, whether they hold memory, the front end that wrote them, and the offset behind them.
    rest: Bytes,
    is_rest_held: bool,
    origin: FrontendNo,
    end: u64,
    /// The batch in hand, unpacked, whether it holds memory, and its offsets.
    batch: Bytes,
    is_held: bool,
    batch_start: u64,
    batch_end: u64,
    /// Where its records stand that were not looked at.
    place: RecordsPlace,
    /// The batch in hand as it is, if it is to be unpacked.
    packed: Option<PackedBatch>,
    /// Bytes that were unpacked and hold no memory.
    unpacked: usize,
    /// The offsets of which it is known what there is: these records, and nothing else that can be read.
    known: Range<u64>,
    window: Vec<(u64, RecordsPlace)>,
    /// Why other messages of the batch in hand, or of what is known, cannot be read. Queues' batches have no gaps.
    lost: Option<(ReadError, bool)>,
    /// Where the last one was found.
    found: usize,
}

impl Batches {
    /// Takes what was read from an offset on.
    pub(super) fn take(&mut self, from: u64, fetched: Fetched) {
        let unheld = fetched.slices.iter().filter(|slice| !slice.is_held);
        *self = Self {
            read_from: Some(from),
            read: unheld.map(Slice::len).sum(),
            slices: fetched.slices.into(),
            known: from..from,
            ..Self::default()
        };
    }

    /// Takes why nothing was read of some offsets.
    ///
    /// # Errors
    /// None of the queue's can be.
    pub(super) fn miss(&mut self, offsets: Range<u64>, missing: Missing) -> Result<(), ReadError> {
        let (end, lost) = match missing {
            Missing::Gone { end } => (end.min(offsets.end), None),
            Missing::Unreadable { end, error } => (end, Some((error, true))),
            Missing::Failed(error) => return Err(error),
        };
        let end = end.max(offsets.start + 1);
        *self = Self { known: offsets.start..end, lost, ..Self::default() };
        Ok(())
    }

    /// Bytes that were unpacked and hold no memory.
    pub(super) fn unpacked(&self) -> usize {
        self.unpacked
    }

    /// Bytes that were read and hold no memory.
    pub(super) fn read(&self) -> usize {
        self.read
    }

    /// Whether anything of it holds memory.
    pub(super) fn holds_memory(&self) -> bool {
        self.is_held || self.is_rest_held || self.slices.iter().any(|slice| slice.is_held)
    }

    /// Where the batch begins that is to be unpacked.
    pub(super) fn packed_from(&self) -> u64 {
        self.known.end
    }

    /// The batch that is to be unpacked.
    pub(super) fn packed(&self) -> Option<PackedBatch> {
        self.packed.clone()
    }

    /// The batch that was to be unpacked is, unless it is damaged.
    pub(super) fn put_unpacked(&mut self, unpacked: Option<UnpackedBatch>) {
        if self.packed.take().is_none() {
            return;
        }
        match unpacked {
            Some(UnpackedBatch(Unpacked::Whole(batch, is_held))) => {
                self.unpacked = if is_held { 0 } else { batch.len() };
                (self.batch, self.is_held, self.place) = (batch, is_held, RecordsPlace::default());
            }
            Some(UnpackedBatch(Unpacked::TooLarge)) | None => self.know_damaged(self.batch_end),
        }
    }

    /// What there is at an offset. Of what cannot be read it is said once: then it is to be read anew.
    pub(super) fn look(&mut self, offset: u64) -> Look {
        while !self.known.contains(&offset) {
            if offset < self.known.start {
                return Look::Unread;
            }
            if self.packed.is_some() {
                return Look::Packed;
            }
            if self.look_on(offset) {
                continue;
            }
            return match self.read_from.take_if(|from| *from == offset) {
                None => Look::Unread,
                // No batch is where one was found.
                Some(_) => {
                    Look::Unreadable(Lost { end: offset + 1, error: ReadError::Corrupt, is_noted: false })
                }
            };
        }
        match (self.place(offset), self.lost) {
            (Some(found), _) => {
                self.found = found;
                Look::Record(found)
            }
            (None, Some((error, is_noted))) if offset >= self.batch_start => {
                let next = self.window.iter().find(|(at, _)| *at > offset);
                let end = next.map_or(self.known.end, |(at, _)| *at);
                self.known.start = end;
                Look::Unreadable(Lost { end, error, is_noted })
            }
            (None, _) => Look::Gone,
        }
    }

    /// A record of the window.
    pub(super) fn record(&self, number: usize) -> StoredMessage<'_> {
        let (_, place) = self.window[number];
        let record =
            uncompressed_records(&self.batch, place).ok().and_then(|mut records| records.next()?.ok());
        StoredMessage {
            is_held: self.is_held,
            origin: self.origin,
            record: record.expect("it was walked before"),
            batch: &self.batch,
        }
    }

    /// Messages are mostly asked for one after the other.
    fn place(&self, offset: u64) -> Option<usize> {
        let is_at = |number: &usize| self.window.get(*number).is_some_and(|(at, _)| *at == offset);
        let near = [self.found, self.found + 1].into_iter().find(is_at);
        near.or_else(|| self.window.binary_search_by_key(&offset, |(at, _)| *at).ok())
    }

    /// Looks at what comes behind what is known: nothing, if all that was read is.
    fn look_on(&mut self, offset: u64) -> bool {
        if self.known.end < self.batch_end {
            self.look_at_window();
        } else if !self.rest.is_empty() {
            self.look_at_batch(offset);
        } else if let Some(slice) = self.slices.pop_front() {
            (self.rest, self.is_rest_held) = (slice.joined(), slice.is_held);
            (self.origin, self.end) = (slice.origin, at(slice.next_offset));
            let from = self.known.end.min(at(slice.base_offset));
            self.know(from..from);
        } else {
            return false;
        }
        true
    }

    /// Takes the next batch in hand, unless it ends before an offset.
    fn look_at_batch(&mut self, offset: u64) {
        let header = BatchHeader::parse(&self.rest).ok();
        let Some(header) = header.filter(|header| header.total_len() <= self.rest.len()) else {
            self.rest = Bytes::new();
            return self.know_damaged(self.end);
        };
        let (batch, is_held) = (self.rest.split_to(header.total_len()), self.is_rest_held);
        self.is_rest_held &= !self.rest.is_empty();
        let start = at(header.base_offset);
        let end = start + u64::try_from(header.last_offset_delta).unwrap_or(0) + 1;
        if end <= offset {
            return self.know(end..end);
        }
        let from = start.min(self.known.end);
        if header.is_control() {
            return self.know(from..end);
        }
        self.know(from..from);
        (self.batch_start, self.batch_end, self.place, self.unpacked) =
            (start, end, RecordsPlace::default(), 0);
        // What is not compressed is looked at where it is.
        let most = if header.compression() == Ok(Compression::None) { usize::MAX } else { AT_ONCE };
        match unpack_within(&batch, most) {
            Ok(unpacked) => {
                let is_same = unpacked.as_ptr() == batch.as_ptr();
                self.unpacked = if is_same { 0 } else { unpacked.len() };
                (self.batch, self.is_held) = (unpacked, is_same && is_held);
            }
            Err(BatchError::TooLarge { .. }) => {
                (self.batch, self.is_held) = (Bytes::new(), is_held);
                self.packed = Some(PackedBatch { batch, limit: RECORDS_MAX });
            }
            Err(_) => self.know_damaged(end),
        }
    }

    /// Looks at the next records of the batch in hand.
    fn look_at_window(&mut self) {
        let from = self.known.end;
        self.know(from..self.batch_end);
        self.lost = Some((ReadError::Corrupt, false));
        let batch = self.batch.clone();
        let Ok(mut records) = uncompressed_records(&batch, self.place) else { return };
        loop {
            self.place = records.place();
            if self.window.len() >= WINDOW {
                let (last, _) = self.window[WINDOW - 1];
                self.known.end = (last + 1).min(self.batch_end);
                return;
            }
            let Some(Ok(record)) = records.next() else { return };
            self.window.push((at(record.offset), self.place));
        }
    }

    /// It is known that there is nothing in these offsets but what is added.
    fn know(&mut self, offsets: Range<u64>) {
        self.window.clear();
        (self.known, self.found, self.lost) = (offsets, 0, None);
    }

    /// What comes before an offset is damaged.
    fn know_damaged(&mut self, end: u64) {
        self.know(self.known.end..end);
        (self.lost, self.batch_start, self.batch_end) =
            (Some((ReadError::Corrupt, false)), self.known.start, end);
    }
}

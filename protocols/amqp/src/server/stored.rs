//! Reading messages back: the broker names them, and a session reads their bytes.

use std::collections::VecDeque;
use std::ops::Range;

use bytes::Bytes;
use sabir_broker::queue::QueueTarget;
use sabir_broker::{Broker, Fetched, Slice};
use sabir_model::batch::{BatchError, BatchHeader, RecordView, RecordsPlace, records};
use sabir_model::{self as model, FrontendNo, Offset, ReadError};
use sabir_net::{JobCost, JobSize, Workers};

use super::records::Envelope;
use crate::converter;
use crate::wire::*;

/// Bytes that the records of a batch may decompress to.
const MOST_RECORDS: usize = 512 << 20;
/// The same on an I/O thread; workers unpack what is larger.
const MOST_AT_ONCE: usize = 1 << 20;
/// Messages of a batch that are looked at together, and bytes of these.
const WINDOW: usize = 1024;
const WINDOW_BYTES: usize = 1 << 20;

/// A message that was read.
pub(super) struct Message<'a> {
    pub(super) exchange: ShortBytes<'a>,
    pub(super) routing_key: ShortBytes<'a>,
    pub(super) properties: &'a [u8],
    pub(super) body: Bytes,
}

/// A message in a batch, by places in its bytes where it is this front end's.
enum Place {
    Own { body: Range<usize>, envelope: Range<usize> },
    Other(Box<Other>),
}

/// A message that was read.
struct Stored {
    offset: u64,
    place: Place,
}

/// A message that this front end did not write.
struct Other {
    exchange: Box<[u8]>,
    routing_key: Box<[u8]>,
    properties: Bytes,
    body: Bytes,
}

/// What there is at an offset.
pub(super) enum Found<'a> {
    /// A message.
    Message(Message<'a>),
    /// None: it is gone.
    Gone,
    /// That is not known: it is to be read.
    Unread,
    /// It was read, and is damaged.
    Unreadable,
    /// That is not known: its batch is to be unpacked.
    Packed(Bytes),
}

/// Why messages are not read, and the first offset behind those that this holds for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Unread {
    /// They are there no more.
    Gone { end: u64 },
    /// They are damaged, or the disk errs.
    Unreadable { end: u64, error: ReadError },
    /// No message of the queue can be read.
    Failed(ReadError),
}

/// Reads a queue's messages from one on.
pub(super) async fn read(
    broker: &Broker,
    target: QueueTarget,
    from: u64,
    bytes: usize,
) -> Result<Fetched, Unread> {
    let (target, first) = (target.read_target(), Offset(i64::try_from(from).expect("offsets count from 0")));
    match broker.read(target, first, bytes, true).await {
        Ok(fetched) if !fetched.slices.is_empty() => Ok(fetched),
        // No batch stands where a message was named. It may yet come to be found: it is not said to be gone.
        Ok(_) => Err(Unread::Unreadable { end: from + 1, error: ReadError::Storage }),
        Err(ReadError::OutOfRange { start, .. }) if start > first => Err(Unread::Gone { end: at(start) }),
        Err(ReadError::UnknownPartition) => Err(Unread::Gone { end: u64::MAX }),
        Err(ReadError::Deleted) => Err(Unread::Gone { end: at(broker.unreadable_end(target, first).await) }),
        Err(error @ (ReadError::Corrupt | ReadError::Storage)) => {
            Err(Unread::Unreadable { end: at(broker.unreadable_end(target, first).await), error })
        }
        Err(error) => Err(Unread::Failed(error)),
    }
}

/// Unpacks a batch with the node's workers; nothing if it is damaged.
pub(super) async fn unpack(workers: Workers, batch: Bytes) -> Option<Bytes> {
    let cost = JobCost { bytes: 128 << 20, size: JobSize::Large };
    let unpacked = workers.run(cost, move |_| unpack_within(&batch, MOST_RECORDS).ok()).await;
    unpacked.flatten()
}

fn unpack_within(batch: &Bytes, most: usize) -> Result<Bytes, BatchError> {
    records(batch, most).map(|found| found.uncompressed(batch))
}

/// Messages of a queue that were read, from one offset on: a batch at a time is unpacked, and of that a window is looked at.
#[derive(Default)]
pub(super) struct Reader {
    /// The name of the queue, as which messages of others have been sent.
    name: Box<str>,
    slices: VecDeque<Slice>,
    /// Batches of the slice in hand that were not looked at, who wrote them, and the offset behind them.
    rest: Bytes,
    origin: FrontendNo,
    end: u64,
    /// The batch in hand, unpacked, and the offset behind it.
    batch: Bytes,
    batch_end: u64,
    /// Where its records stand that were not looked at.
    place: RecordsPlace,
    /// The batch in hand as it is, if it is to be unpacked.
    packed: Option<Bytes>,
    /// Bytes that were unpacked.
    unpacked: usize,
    /// The offsets of which it is known what there is.
    known: Range<u64>,
    messages: Vec<Stored>,
    /// Whether there are others there, which are damaged.
    is_damaged: bool,
    /// Where the last one was found.
    at: usize,
}

impl Reader {
    pub(super) fn new(name: &str) -> Self {
        Self { name: name.into(), ..Self::default() }
    }

    /// Takes what was read from an offset on.
    pub(super) fn take(&mut self, from: u64, fetched: Fetched) {
        let name = std::mem::take(&mut self.name);
        *self = Self { name, slices: fetched.slices.into(), known: from..from, ..Self::default() };
    }

    /// It is known that there is nothing before an offset.
    pub(super) fn skip_to(&mut self, from: u64, to: u64) {
        self.take(from, Fetched::default());
        self.known = from..to;
    }

    /// Bytes that it holds beside those that were read.
    pub(super) fn held_bytes(&self) -> usize {
        self.unpacked
    }

    /// What there is at an offset.
    pub(super) fn find(&mut self, broker: &Broker, own: FrontendNo, offset: u64) -> Found<'_> {
        while !self.known.contains(&offset) {
            if offset < self.known.start {
                return Found::Unread;
            }
            if let Some(packed) = &self.packed {
                return Found::Packed(packed.clone());
            }
            if !self.look_on(broker, own, offset) {
                return Found::Unread;
            }
        }
        match self.place(offset) {
            None if self.is_damaged => Found::Unreadable,
            None => Found::Gone,
            Some(at) => {
                self.at = at;
                Found::Message(self.message(at))
            }
        }
    }

    /// The batch that was to be unpacked is, unless it is damaged.
    pub(super) fn put_unpacked(&mut self, unpacked: Option<Bytes>) {
        if self.packed.take().is_none() {
            return;
        }
        match unpacked {
            Some(batch) => {
                self.unpacked = batch.len();
                (self.batch, self.place) = (batch, RecordsPlace::default());
            }
            None => self.know_damaged(self.batch_end),
        }
    }

    /// Messages are mostly asked for one after the other.
    fn place(&self, offset: u64) -> Option<usize> {
        let near = [self.at, self.at + 1]
            .into_iter()
            .find(|at| self.messages.get(*at).is_some_and(|stored| stored.offset == offset));
        near.or_else(|| self.messages.binary_search_by_key(&offset, |stored| stored.offset).ok())
    }

    fn message(&self, at: usize) -> Message<'_> {
        match &self.messages[at].place {
            Place::Own { body, envelope } => {
                let envelope = Envelope::take(&self.batch[envelope.clone()]).expect("it was read before");
                let Envelope { exchange, routing_key, properties } = envelope;
                Message { exchange, routing_key, properties, body: self.batch.slice(body.clone()) }
            }
            Place::Other(other) => Message {
                exchange: ShortBytes::new(&other.exchange).unwrap_or_default(),
                routing_key: ShortBytes::new(&other.routing_key).unwrap_or_default(),
                properties: &other.properties,
                body: other.body.clone(),
            },
        }
    }

    /// Looks at what comes behind what is known: nothing, if all that was read is.
    fn look_on(&mut self, broker: &Broker, own: FrontendNo, offset: u64) -> bool {
        if self.known.end < self.batch_end {
            self.look_at_window(broker, own);
        } else if !self.rest.is_empty() {
            self.look_at_batch(offset);
        } else if let Some(slice) = self.slices.pop_front() {
            (self.rest, self.origin, self.end) = (slice.joined(), slice.origin, at(slice.next_offset));
            self.know(self.known.end.min(at(slice.base_offset)), self.known.end.min(at(slice.base_offset)));
        } else {
            return false;
        }
        true
    }

    /// Takes the next batch in hand, unless it ends before an offset.
    fn look_at_batch(&mut self, offset: u64) {
        let header =
            BatchHeader::parse(&self.rest).ok().filter(|header| header.total_len() <= self.rest.len());
        let Some(header) = header else {
            self.rest = Bytes::new();
            return self.know_damaged(self.end);
        };
        let batch = self.rest.split_to(header.total_len());
        let base = at(header.base_offset).min(self.known.end);
        let end = at(header.base_offset) + u64::try_from(header.last_offset_delta).unwrap_or(0) + 1;
        if end <= offset {
            return self.know(end, end);
        }
        if header.is_control() {
            return self.know(base, end);
        }
        self.know(base, base);
        (self.batch_end, self.place, self.unpacked) = (end, RecordsPlace::default(), 0);
        match unpack_within(&batch, MOST_AT_ONCE) {
            Ok(unpacked) => {
                self.unpacked = if unpacked.len() == batch.len() { 0 } else { unpacked.len() };
                self.batch = unpacked;
            }
            Err(BatchError::TooLarge { .. }) => self.packed = Some(batch),
            Err(_) => self.know_damaged(end),
        }
    }

    /// Looks at the next records of the batch in hand.
    fn look_at_window(&mut self, broker: &Broker, own: FrontendNo) {
        let (from, batch) = (self.known.end, self.batch.clone());
        self.know(from, self.batch_end);
        let Ok(found) = records(&batch, usize::MAX) else { return self.is_damaged = true };
        let (mut records, mut bytes) = (found.iter_from(self.place), 0);
        for record in records.by_ref() {
            let Ok(record) = record else { return self.is_damaged = true };
            bytes += record.value.map_or(0, <[u8]>::len);
            self.add(broker, own, &record);
            if self.messages.len() >= WINDOW || bytes >= WINDOW_BYTES {
                self.known.end = (at(record.offset) + 1).min(self.batch_end);
                break;
            }
        }
        self.place = records.place();
    }

    /// It is known that there is nothing in these offsets but what is added.
    fn know(&mut self, from: u64, to: u64) {
        self.messages.clear();
        (self.known, self.at, self.is_damaged) = (from..to, 0, false);
    }

    /// What comes before an offset is damaged.
    fn know_damaged(&mut self, to: u64) {
        self.know(self.known.end, to);
        (self.is_damaged, self.batch_end) = (true, to);
    }

    fn add(&mut self, broker: &Broker, own: FrontendNo, record: &RecordView<'_>) {
        let value = (self.origin == own).then(|| Envelope::bytes_of(record)).flatten();
        let envelope = value.filter(|value| Envelope::take(value).is_some());
        let envelope = envelope.and_then(|envelope| range_in(&self.batch, envelope));
        let body = record.value.map_or(Some(0..0), |body| range_in(&self.batch, body));
        let place = match (body, envelope) {
            (Some(body), Some(envelope)) => Place::Own { body, envelope },
            _ => self.other(broker, record),
        };
        self.messages.push(Stored { offset: at(record.offset), place });
    }

    /// One that another protocol wrote was sent to the queue by its name.
    fn other(&self, broker: &Broker, record: &RecordView<'_>) -> Place {
        let plain = || model::Message {
            body: record.value.map(Bytes::copy_from_slice),
            timestamp_ms: record.timestamp,
            ..model::Message::default()
        };
        let message = broker.to_message(self.origin, record).unwrap_or_else(plain);
        let name = self.name.as_bytes();
        let other = Other {
            exchange: Box::default(),
            routing_key: name[..name.len().min(255)].into(),
            properties: converter::properties(&message, broker.wall_ms()),
            body: message.body.unwrap_or_default(),
        };
        Place::Other(Box::new(other))
    }
}

fn at(offset: Offset) -> u64 {
    u64::try_from(offset.0).expect("offsets count from 0")
}

/// Where a part lies in the whole; none if it is of something else.
fn range_in(whole: &[u8], part: &[u8]) -> Option<Range<usize>> {
    let from = (part.as_ptr() as usize).checked_sub(whole.as_ptr() as usize)?;
    let range = from..from + part.len();
    (range.end <= whole.len()).then_some(range)
}

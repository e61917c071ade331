//! Reading messages back: the broker names them, and a session reads their bytes.

use std::collections::VecDeque;
use std::ops::Range;

use bytes::Bytes;
use sabir_broker::queue::QueueTarget;
use sabir_broker::{Broker, Fetched, Slice};
use sabir_model::batch::{RecordView, Records, records, split};
use sabir_model::{self as model, FrontendNo, Offset, ReadError};

use super::records::Envelope;
use crate::converter;
use crate::wire::*;

/// Bytes that the records of a batch may decompress to.
const MOST_RECORDS: usize = 512 << 20;

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

/// A message that this front end did not write, or that is compressed.
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
    let (target, at) = (target.read_target(), Offset(i64::try_from(from).expect("offsets count from 0")));
    match broker.read(target, at, bytes, true).await {
        Ok(fetched) if !fetched.slices.is_empty() => Ok(fetched),
        // No batch stands where a message was named. It may yet come to be found: it is not said to be gone.
        Ok(_) => Err(Unread::Unreadable { end: from + 1, error: ReadError::Storage }),
        Err(ReadError::OutOfRange { start, .. }) if start > at => Err(Unread::Gone { end: offset(start.0) }),
        Err(ReadError::UnknownPartition) => Err(Unread::Gone { end: u64::MAX }),
        Err(ReadError::Deleted) => {
            Err(Unread::Gone { end: offset(broker.unreadable_end(target, at).await.0) })
        }
        Err(error @ (ReadError::Corrupt | ReadError::Storage)) => {
            Err(Unread::Unreadable { end: offset(broker.unreadable_end(target, at).await.0), error })
        }
        Err(error) => Err(Unread::Failed(error)),
    }
}

/// Messages of a queue that were read, from one offset on.
#[derive(Default)]
pub(super) struct Reader {
    /// The name of the queue, as which messages of others have been sent.
    name: Box<str>,
    slices: VecDeque<Slice>,
    bytes: Bytes,
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
        self.slices = fetched.slices.into();
        (self.messages, self.at, self.known, self.is_damaged) = (Vec::new(), 0, from..from, false);
    }

    /// It is known that there is nothing before an offset.
    pub(super) fn skip_to(&mut self, from: u64, to: u64) {
        self.take(from, Fetched::default());
        self.known = from..to;
    }

    /// What there is at an offset.
    pub(super) fn find(&mut self, broker: &Broker, own: FrontendNo, offset: u64) -> Found<'_> {
        while !self.known.contains(&offset) {
            if offset < self.known.start {
                return Found::Unread;
            }
            let Some(slice) = self.slices.pop_front() else { return Found::Unread };
            self.load(broker, own, &slice);
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
                let envelope = Envelope::take(&self.bytes[envelope.clone()]).expect("it was read before");
                let Envelope { exchange, routing_key, properties } = envelope;
                Message { exchange, routing_key, properties, body: self.bytes.slice(body.clone()) }
            }
            Place::Other(other) => Message {
                exchange: ShortBytes::new(&other.exchange).unwrap_or_default(),
                routing_key: ShortBytes::new(&other.routing_key).unwrap_or_default(),
                properties: &other.properties,
                body: other.body.clone(),
            },
        }
    }

    fn load(&mut self, broker: &Broker, own: FrontendNo, slice: &Slice) {
        self.bytes = slice.joined();
        self.known = offset(slice.base_offset.0).min(self.known.end)..offset(slice.next_offset.0);
        self.messages.clear();
        (self.at, self.is_damaged) = (0, false);
        let bytes = self.bytes.clone();
        for batch in split(&bytes) {
            let found = batch.ok().and_then(|batch| records(batch.1, MOST_RECORDS).ok());
            self.is_damaged |= found.is_none();
            if let Some(found) = found.filter(|found| !found.header().is_control()) {
                self.add(broker, own, slice.origin, &found);
            }
        }
    }

    fn add(&mut self, broker: &Broker, own: FrontendNo, origin: FrontendNo, found: &Records<'_>) {
        for record in found.iter() {
            let Ok(record) = record else {
                self.is_damaged = true;
                continue;
            };
            let value = (origin == own).then(|| Envelope::bytes_of(&record)).flatten();
            let place = match value.and_then(|value| Some((value, Envelope::take(value)?))) {
                Some((value, envelope)) => self.own(&record, value, &envelope),
                None => self.other(broker, origin, &record),
            };
            self.messages.push(Stored { offset: offset(record.offset.0), place });
        }
    }

    fn own(&self, record: &RecordView<'_>, value: &[u8], envelope: &Envelope<'_>) -> Place {
        let body = record.value.unwrap_or_default();
        match (range_in(&self.bytes, body), range_in(&self.bytes, value)) {
            (Some(body), Some(envelope)) => Place::Own { body, envelope },
            // It was compressed.
            _ => Place::Other(Box::new(Other {
                exchange: envelope.exchange.as_bytes().into(),
                routing_key: envelope.routing_key.as_bytes().into(),
                properties: Bytes::copy_from_slice(envelope.properties),
                body: Bytes::copy_from_slice(body),
            })),
        }
    }

    /// One that another protocol wrote was sent to the queue by its name.
    fn other(&self, broker: &Broker, origin: FrontendNo, record: &RecordView<'_>) -> Place {
        let plain = || model::Message {
            body: record.value.map(Bytes::copy_from_slice),
            timestamp_ms: record.timestamp,
            ..model::Message::default()
        };
        let message = broker.to_message(origin, record).unwrap_or_else(plain);
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

fn offset(offset: i64) -> u64 {
    u64::try_from(offset).expect("offsets count from 0")
}

/// Where a part lies in the whole; none if it is of something else.
fn range_in(whole: &[u8], part: &[u8]) -> Option<Range<usize>> {
    let from = (part.as_ptr() as usize).checked_sub(whole.as_ptr() as usize)?;
    let range = from..from + part.len();
    (range.end <= whole.len()).then_some(range)
}

//! Mandatory messages on their way: one that no queue took, since those it was routed to went meanwhile, goes back as if it had come a moment later.

use rustc_hash::FxHashMap;
use sabir_broker::{PublishOutcome, PublishVerdict};

use super::publish::ChannelId;
use super::records::Envelope;

/// Bytes that a message is counted with beside its own.
const BESIDE: usize = 128;
/// With more bytes of such messages on their way no further one is taken.
const MOST_BYTES: usize = 256 * 1024;

/// A message, to be published or to go back.
#[derive(Debug)]
pub(super) struct KeptMessage {
    /// Its envelope, and behind that its body.
    bytes: Box<[u8]>,
    body_at: usize,
}

impl KeptMessage {
    pub(super) fn new(envelope: &Envelope<'_>, body: &[u8]) -> Self {
        let mut bytes = Vec::with_capacity(envelope.len() + body.len());
        envelope.put(&mut bytes);
        let body_at = bytes.len();
        bytes.extend_from_slice(body);
        Self { bytes: bytes.into(), body_at }
    }

    pub(super) fn envelope(&self) -> Envelope<'_> {
        Envelope::take(&self.bytes[..self.body_at]).expect("it was written here")
    }

    pub(super) fn body(&self) -> &[u8] {
        &self.bytes[self.body_at..]
    }

    /// Bytes that are counted for it.
    pub(super) fn size(&self) -> usize {
        self.bytes.len() + BESIDE
    }
}

/// One that goes back, on the channel on which it came.
#[derive(Debug)]
pub(super) struct Unroutable {
    pub(super) channel: ChannelId,
    pub(super) message: KeptMessage,
}

#[derive(Debug)]
struct Underway {
    back: Unroutable,
    /// Its publishes that are not decided.
    open: usize,
    /// Whether a target has taken it, or is there and has refused it.
    is_routed: bool,
}

/// The mandatory messages of a connection that are not decided.
#[derive(Debug, Default)]
pub(super) struct Mandatory {
    underway: FxHashMap<u64, Underway>,
    last: u64,
    bytes: usize,
}

impl Mandatory {
    /// Bytes that are counted for them.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn is_full(&self) -> bool {
        self.bytes >= MOST_BYTES
    }

    /// The number by which the next message is known that is kept.
    pub(super) fn next(&self) -> u64 {
        self.last + 1
    }

    /// Keeps a message that so many publishes are made for; gives the number by which it is known.
    pub(super) fn keep(&mut self, channel: ChannelId, publishes: usize, message: KeptMessage) -> u64 {
        self.bytes += message.size();
        self.last += 1;
        let back = Unroutable { channel, message };
        self.underway.insert(self.last, Underway { back, open: publishes, is_routed: false });
        self.last
    }

    /// One of a message's publishes is decided, and a target of it is there or is not. Gives the message if that was the last one and it goes back.
    pub(super) fn decide(&mut self, number: u64, is_routed: bool) -> Option<Unroutable> {
        let message = self.underway.get_mut(&number)?;
        message.open -= 1;
        message.is_routed |= is_routed;
        if message.open > 0 {
            return None;
        }
        let message = self.underway.remove(&number)?;
        self.bytes -= message.back.message.size();
        (!message.is_routed).then_some(message.back)
    }
}

/// A batch's records that are mandatory messages.
#[derive(Debug, Default)]
pub(super) struct MandatoryRecords(Vec<MandatoryRecord>);

#[derive(Debug)]
struct MandatoryRecord {
    record: u32,
    /// By which the message is known.
    number: u64,
    /// Whether a target is there for it.
    is_routed: bool,
}

impl MandatoryRecords {
    pub(super) fn push(&mut self, record: u32, number: u64) {
        self.0.push(MandatoryRecord { record, number, is_routed: false });
    }

    /// A target has been asked: one that is gone is no route.
    pub(super) fn note(&mut self, outcome: &PublishOutcome) {
        if outcome.verdict() != PublishVerdict::Gone {
            let of_outcome = self.0.iter_mut().filter(|message| outcome.records.contains(&message.record));
            of_outcome.for_each(|message| message.is_routed = true);
        }
    }

    /// None has been asked: the publish was refused.
    pub(super) fn refused(&mut self) {
        self.0.iter_mut().for_each(|message| message.is_routed = true);
    }

    /// All targets have been asked. Gives the messages that go back.
    pub(super) fn decide(&mut self, mandatory: &mut Mandatory) -> impl Iterator<Item = Unroutable> {
        let decided = std::mem::take(&mut self.0).into_iter();
        decided.filter_map(|message| mandatory.decide(message.number, message.is_routed))
    }
}

/// The mandatory messages of batches that are published together.
#[derive(Debug)]
pub(super) struct MandatoryTogether {
    /// By the batch's number.
    records: Vec<MandatoryRecords>,
    mandatory: Mandatory,
}

impl MandatoryTogether {
    pub(super) fn of(mandatory: Mandatory) -> Self {
        Self { records: Vec::new(), mandatory }
    }

    /// Adds those of the next batch.
    pub(super) fn push(&mut self, records: MandatoryRecords) {
        self.records.push(records);
    }

    pub(super) fn note(&mut self, batch: usize, outcome: &PublishOutcome) {
        self.records[batch].note(outcome);
    }

    /// All is decided. Gives the messages that go back.
    pub(super) fn decide(mut self) -> Vec<Unroutable> {
        let Self { records, mandatory } = &mut self;
        let mut back = Vec::new();
        records.iter_mut().for_each(|records| back.extend(records.decide(mandatory)));
        back
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::ShortBytes;

    #[test]
    fn a_message_goes_back_if_all_its_targets_are_gone() {
        let mut mandatory = Mandatory::default();
        let channel = ChannelId { number: 1, serial: 1 };
        let envelope = Envelope {
            exchange: ShortBytes::cut(""),
            routing_key: ShortBytes::cut("q"),
            properties: &[0, 0],
        };
        let mut keep = |publishes| mandatory.keep(channel, publishes, KeptMessage::new(&envelope, b"body"));
        let (gone, taken, half) = (keep(1), keep(1), keep(2));
        let back = mandatory.decide(gone, false).unwrap();
        assert_eq!(
            (back.channel, back.message.body(), back.message.envelope()),
            (channel, &b"body"[..], envelope)
        );
        assert!(mandatory.decide(taken, true).is_none());
        assert!(mandatory.decide(half, true).is_none() && mandatory.decide(half, false).is_none());
        assert_eq!((mandatory.bytes(), mandatory.underway.len()), (0, 0));
    }

    #[test]
    fn bytes_are_bounded() {
        let mut mandatory = Mandatory::default();
        let envelope = Envelope {
            exchange: ShortBytes::cut(""),
            routing_key: ShortBytes::cut("q"),
            properties: &[0, 0],
        };
        let channel = ChannelId { number: 1, serial: 1 };
        let number = mandatory.keep(channel, 1, KeptMessage::new(&envelope, &vec![0; MOST_BYTES]));
        assert!(mandatory.is_full());
        assert!(mandatory.decide(number, false).is_some() && !mandatory.is_full());
    }
}

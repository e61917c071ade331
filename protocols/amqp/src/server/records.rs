//! A message as a record: the body is the value, and all else stands in one header as it came.

use bytes::Bytes;
use sabir_broker::exchange::ExchangeId;
use sabir_model::batch::{BatchBuilder, RecordView};

use super::dead_letters;
use crate::wire::*;

/// The key of the header, which no client is shown: what is in such a header counts only in batches that this front end built.
pub(super) const NATIVE: &[u8] = b"amqp";

/// The key of the header that a message has beside it which an exchange keeps back: the exchange's number, big-endian.
const KEPT_BY: &[u8] = b"amqp-exchange";

/// The form of the header's value: this byte, then exchange and routing key, each behind its length u8, then the properties as on the wire.
const FORM: u8 = 1;

/// What a record takes beside what is in it, at the most.
pub(super) const RECORD: usize = 96;

/// Where a message was sent, and its properties.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Envelope<'a> {
    pub(crate) exchange: ShortBytes<'a>,
    pub(crate) routing_key: ShortBytes<'a>,
    /// As on the wire; they have been checked.
    pub(crate) properties: &'a [u8],
}

impl<'a> Envelope<'a> {
    /// Bytes of the header's value.
    pub(super) fn len(&self) -> usize {
        3 + self.exchange.len() + self.routing_key.len() + self.properties.len()
    }

    /// Appends the header's value.
    pub(super) fn put(&self, out: &mut Vec<u8>) {
        out.push(FORM);
        for name in [self.exchange, self.routing_key] {
            out.push(u8::try_from(name.len()).expect("short bytes are at most 255"));
            out.extend_from_slice(&name);
        }
        out.extend_from_slice(self.properties);
    }

    /// Reads the header's value.
    pub(crate) fn take(value: &'a [u8]) -> Option<Self> {
        let (FORM, rest) = value.split_first().map(|(form, rest)| (*form, rest))? else { return None };
        let (exchange, rest) = take_short(rest)?;
        let (routing_key, properties) = take_short(rest)?;
        Some(Self { exchange, routing_key, properties })
    }

    /// The header's value in a record that this front end wrote.
    pub(crate) fn bytes_of(record: &RecordView<'a>) -> Option<&'a [u8]> {
        { record.headers }.find(|header| header.key == NATIVE)?.value
    }

    /// When the message expires, in milliseconds, if it arrives at `now_ms`.
    pub(super) fn expires_ms(&self, now_ms: i64) -> Option<i64> {
        if !BasicProperties::has_expiration(self.properties) {
            return None;
        }
        let expiration = BasicProperties::read_again(self.properties).expiration?;
        let after: u32 = std::str::from_utf8(&expiration).ok()?.parse().ok()?;
        Some(now_ms.saturating_add(after.into()))
    }

    /// The key by which the message is placed and compacted: its header of that name, else its routing key, which on the default exchange
    /// is the queue's name and says nothing.
    pub(super) fn key(&self) -> Option<&'a [u8]> {
        let properties = BasicProperties::read_again(self.properties);
        match properties.headers.and_then(|headers| headers.get("key")) {
            Some(FieldValue::LongStr(key) | FieldValue::Binary(key)) => Some(key),
            _ if self.exchange.is_empty() => None,
            _ => Some(self.routing_key.as_bytes()),
        }
    }
}

/// Properties with a header put in the place of any of its name.
pub(super) fn with_header(properties: &[u8], name: &str, value: FieldValue<'_>) -> Bytes {
    let read = BasicProperties::read_again(properties);
    let mut headers = FieldTableBuf::new();
    for (other, value) in read.headers.unwrap_or_default() {
        if other.as_bytes() != name.as_bytes() {
            headers.push(other, value);
        }
    }
    headers.push(ShortBytes::cut(name), value);
    BasicProperties { headers: Some(headers.as_table()), ..read }.to_bytes()
}

/// The header in which a quorum queue says how often a message was given back in such a way that it counts.
const RETURNS: &str = "x-delivery-count";

/// The properties with that header; none for never.
pub(super) fn with_returns(properties: &[u8], returned: u32) -> Option<Bytes> {
    (returned > 0).then(|| with_header(properties, RETURNS, FieldValue::I64(returned.into())))
}

/// The properties without the headers that are the broker's own: as they were published, which fits a frame of the publisher's connection.
pub(super) fn without_added(properties: &[u8]) -> Bytes {
    let added = |name: ShortBytes<'_>| {
        let name = name.as_bytes();
        name == RETURNS.as_bytes() || dead_letters::ADDED.iter().any(|added| name == added.as_bytes())
    };
    let read = BasicProperties::read_again(properties);
    let mut headers = FieldTableBuf::new();
    for (name, value) in read.headers.unwrap_or_default().iter().filter(|(name, _)| !added(*name)) {
        headers.push(name, value);
    }
    BasicProperties { headers: read.headers.map(|_| headers.as_table()), ..read }.to_bytes()
}

fn take_short(bytes: &[u8]) -> Option<(ShortBytes<'_>, &[u8])> {
    let (len, rest) = bytes.split_first()?;
    let (name, rest) = rest.split_at_checked(usize::from(*len))?;
    Some((ShortBytes::new(name)?, rest))
}

/// Puts messages into batches.
#[derive(Debug, Default)]
pub(crate) struct RecordWriter {
    /// The header's value, whose memory is used again.
    native: Vec<u8>,
}

impl RecordWriter {
    /// Puts a message into a batch; its time is that of its arrival.
    pub(crate) fn push(
        &mut self,
        batch: &mut BatchBuilder,
        now_ms: i64,
        envelope: &Envelope<'_>,
        body: &[u8],
    ) {
        self.native.clear();
        envelope.put(&mut self.native);
        batch.push(now_ms, envelope.key(), Some(body), &[(NATIVE, Some(&self.native))]);
    }

    /// Puts a message into a batch that this exchange keeps back until that moment.
    pub(super) fn push_delayed(
        &mut self,
        batch: &mut BatchBuilder,
        due_ms: i64,
        (exchange, envelope): (ExchangeId, &Envelope<'_>),
        body: &[u8],
    ) {
        self.native.clear();
        envelope.put(&mut self.native);
        let kept_by = exchange.0.to_be_bytes();
        let headers = [(NATIVE, Some(&self.native[..])), (KEPT_BY, Some(&kept_by))];
        batch.push(due_ms, envelope.key(), Some(body), &headers);
    }
}

/// The exchange that keeps a message back, by the record; none where an earlier version wrote it.
pub(super) fn kept_by(record: &RecordView<'_>) -> Option<ExchangeId> {
    let value = { record.headers }.find(|header| header.key == KEPT_BY)?.value?;
    value.try_into().ok().map(|number| ExchangeId(u64::from_be_bytes(number)))
}

#[cfg(test)]
mod tests {
    use sabir_model::batch::{Compression, records};

    use super::*;

    fn written(envelope: &Envelope<'_>) -> bytes::Bytes {
        let mut batch = BatchBuilder::new(Compression::None);
        RecordWriter::default().push(&mut batch, 7, envelope, b"body");
        batch.build()
    }

    #[test]
    fn a_message_is_stored_as_it_came() {
        let properties = BasicProperties { delivery_mode: Some(2), ..Default::default() }.to_bytes();
        let (exchange, routing_key) = (ShortBytes::cut("ex"), ShortBytes::cut("a.b"));
        let envelope = Envelope { exchange, routing_key, properties: &properties };
        let mut value = Vec::new();
        envelope.put(&mut value);
        assert_eq!(value, b"\x01\x02ex\x03a.b\x10\x00\x02");
        assert_eq!(value.len(), envelope.len());
        let batch = written(&envelope);
        let all = records(&batch, 1000).unwrap();
        let record = all.iter().next().unwrap().unwrap();
        assert_eq!(Envelope::bytes_of(&record).and_then(Envelope::take), Some(envelope));
        assert_eq!((record.key, record.value, record.timestamp), (Some(&b"a.b"[..]), Some(&b"body"[..]), 7));
        for cut in 0..8 {
            assert_eq!(Envelope::take(&value[..cut]), None, "{cut}");
        }
        value[0] = 2;
        assert_eq!(Envelope::take(&value), None, "a form of a later version");
    }

    #[test]
    fn what_an_exchange_keeps_back_says_which_one_does() {
        let properties = BasicProperties::default().to_bytes();
        let (exchange, routing_key) = (ShortBytes::cut("ex"), ShortBytes::cut("k"));
        let envelope = Envelope { exchange, routing_key, properties: &properties };
        let mut batch = BatchBuilder::new(Compression::None);
        RecordWriter::default().push_delayed(&mut batch, 7, (ExchangeId(300), &envelope), b"body");
        let batch = batch.build();
        assert!(batch.len() <= RECORD + envelope.len() + envelope.key().unwrap().len() + 4 + 61);
        let all = records(&batch, 1000).unwrap();
        let record = all.iter().next().unwrap().unwrap();
        assert_eq!(Envelope::bytes_of(&record).and_then(Envelope::take), Some(envelope));
        assert_eq!(kept_by(&record), Some(ExchangeId(300)));
        let batch = written(&envelope);
        let all = records(&batch, 1000).unwrap();
        assert_eq!(kept_by(&all.iter().next().unwrap().unwrap()), None);
    }

    #[test]
    fn the_key_is_the_header_of_that_name_else_the_routing_key_of_an_exchange() {
        let mut headers = FieldTableBuf::new();
        headers.push(ShortBytes::cut("key"), FieldValue::LongStr(b"k"));
        let with = BasicProperties { headers: Some(headers.as_table()), ..Default::default() }.to_bytes();
        let without = BasicProperties::default().to_bytes();
        let key = |exchange, properties| {
            let routing_key = ShortBytes::cut("r");
            Envelope { exchange: ShortBytes::cut(exchange), routing_key, properties }.key()
        };
        assert_eq!(key("", &with), Some(&b"k"[..]));
        assert_eq!(key("", &without), None);
        assert_eq!(key("x", &without), Some(&b"r"[..]));
    }
}

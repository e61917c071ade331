//! Kafka's records as messages, and back: attributes are headers of fixed names.
//!
//! Of headers with such a name the first one counts, and only if its value makes sense: else, and from the second on, it is a header
//! like any other. What another protocol's writer calls so itself stands behind the attribute.

use bytes::Bytes;
use sabir_model::batch::RecordView;
use sabir_model::{Facts, HeaderValue, Message, SentTo};

const GROUP: &str = "group";
const CONTENT_TYPE: &str = "content-type";
const CONTENT_ENCODING: &str = "content-encoding";
const CORRELATION_ID: &str = "correlation-id";
const REPLY_TO: &str = "reply-to";
const MESSAGE_ID: &str = "message-id";
const PRIORITY: &str = "priority";
const EXPIRES_AT: &str = "expires-at";
const DELIVER_AT: &str = "deliver-at";
const TAG: &str = "tag";
const KEYS: &str = "keys";
const TRACEPARENT: &str = "traceparent";
/// Where it was sent, for protocols that have no exchanges.
const EXCHANGE: &str = "x-exchange";
const ROUTING_KEY: &str = "x-routing-key";

/// A record for a producer to send, or a consumer to read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NativeRecord {
    /// The key.
    pub key: Option<Bytes>,
    /// The value; none is a tombstone.
    pub value: Option<Bytes>,
    /// The headers in order.
    pub headers: Vec<(Box<str>, Option<Bytes>)>,
    /// Milliseconds since the epoch.
    pub timestamp_ms: i64,
}

/// A record that a Kafka producer sent, as every protocol understands it.
pub fn to_message(record: &RecordView<'_>) -> Message {
    let owned = |bytes: Option<&[u8]>| bytes.map(Bytes::copy_from_slice);
    let mut message = Message {
        key: owned(record.key),
        body: owned(record.value),
        timestamp_ms: record.timestamp,
        ..Message::default()
    };
    for header in record.headers {
        let name = String::from_utf8_lossy(header.key);
        if !header.value.is_some_and(|value| take_attribute(&mut message, &name, value)) {
            message.headers.push((name.into(), HeaderValue::untyped(header.value)));
        }
    }
    message
}

/// What a queue must know of a record that a Kafka producer sent: when it expires, and its priority. The first header that makes sense counts.
pub(crate) fn facts(record: &RecordView<'_>) -> Facts {
    let (mut priority, mut expires_ms) = (None::<u8>, None);
    for header in record.headers {
        let Some(value) = header.value else { continue };
        match header.key {
            key if key == PRIORITY.as_bytes() => number(&mut priority, value),
            key if key == EXPIRES_AT.as_bytes() => number(&mut expires_ms, value),
            _ => continue,
        };
    }
    Facts {
        size: record.value.map_or(0, |value| u32::try_from(value.len()).unwrap_or(u32::MAX)),
        expires_ms,
        priority: priority.filter(|priority| *priority > 0),
        ..Facts::default()
    }
}

/// The same, and what it is known by: for queues that drop what comes twice.
pub(crate) fn facts_with_id(record: &RecordView<'_>) -> Facts {
    let ids = record.headers.into_iter().filter(|header| header.key == MESSAGE_ID.as_bytes());
    let fits = |id: &&[u8]| (1..=Facts::NAME_MAX).contains(&id.len());
    let id = ids.filter_map(|header| header.value).find(fits);
    Facts { message_id: id.map(Into::into), ..facts(record) }
}

/// Takes a header for the attribute that it names, if the message has none of it yet and the value makes sense.
fn take_attribute(message: &mut Message, name: &str, value: &[u8]) -> bool {
    match name {
        GROUP => text(&mut message.group, value),
        CONTENT_TYPE => text(&mut message.content_type, value),
        CONTENT_ENCODING => text(&mut message.content_encoding, value),
        CORRELATION_ID => fill(&mut message.correlation_id, Some(Bytes::copy_from_slice(value))),
        REPLY_TO => text(&mut message.reply_to, value),
        MESSAGE_ID => text(&mut message.message_id, value),
        PRIORITY => number(&mut message.priority, value),
        EXPIRES_AT => number(&mut message.expires_at_ms, value),
        DELIVER_AT => number(&mut message.deliver_at_ms, value),
        TAG => text(&mut message.tag, value),
        KEYS => text(&mut message.keys, value),
        TRACEPARENT => text(&mut message.traceparent, value),
        _ => false,
    }
}

fn fill<T>(attribute: &mut Option<T>, value: Option<T>) -> bool {
    let fits = attribute.is_none() && value.is_some();
    if fits {
        *attribute = value;
    }
    fits
}

fn text(attribute: &mut Option<Box<str>>, value: &[u8]) -> bool {
    fill(attribute, std::str::from_utf8(value).ok().map(Box::from))
}

fn number<T: std::str::FromStr>(attribute: &mut Option<T>, value: &[u8]) -> bool {
    fill(attribute, std::str::from_utf8(value).ok().and_then(|digits| digits.parse().ok()))
}

/// A message of any protocol as the record that a Kafka consumer reads.
pub fn from_message(message: &Message) -> NativeRecord {
    let mut headers = attributes(message);
    headers.extend(message.headers.iter().map(|(name, value)| (name.clone(), value.to_untyped())));
    NativeRecord {
        key: message.key.clone(),
        value: message.body.clone(),
        headers,
        timestamp_ms: message.timestamp_ms,
    }
}

fn attributes(message: &Message) -> Vec<(Box<str>, Option<Bytes>)> {
    let of_text = |text: &Option<Box<str>>| text.as_ref().map(|text| Bytes::copy_from_slice(text.as_bytes()));
    let of_number = |number: Option<i64>| number.map(|number| Bytes::from(number.to_string()));
    let part = |of: fn(&SentTo) -> &str| {
        message.sent_to.as_ref().map(|to| Bytes::copy_from_slice(of(to).as_bytes()))
    };
    let all = [
        (GROUP, of_text(&message.group)),
        (EXCHANGE, part(|to| &to.exchange)),
        (ROUTING_KEY, part(|to| &to.routing_key)),
        (CONTENT_TYPE, of_text(&message.content_type)),
        (CONTENT_ENCODING, of_text(&message.content_encoding)),
        (CORRELATION_ID, message.correlation_id.clone()),
        (REPLY_TO, of_text(&message.reply_to)),
        (MESSAGE_ID, of_text(&message.message_id)),
        (PRIORITY, of_number(message.priority.map(i64::from))),
        (EXPIRES_AT, of_number(message.expires_at_ms)),
        (DELIVER_AT, of_number(message.deliver_at_ms)),
        (TAG, of_text(&message.tag)),
        (KEYS, of_text(&message.keys)),
        (TRACEPARENT, of_text(&message.traceparent)),
    ];
    all.into_iter().filter_map(|(name, value)| Some((name.into(), Some(value?)))).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sabir_model::batch::{self, BatchBuilder, Compression};

    use super::*;

    type Header<'a> = (&'a [u8], Option<&'a [u8]>);

    fn read(key: Option<&[u8]>, value: Option<&[u8]>, headers: &[Header<'_>]) -> Message {
        let mut builder = BatchBuilder::new(Compression::None);
        builder.push(17, key, value, headers);
        let batch = builder.build();
        let records = batch::records(&batch, 1 << 20).unwrap();
        let record = records.iter().next().unwrap().unwrap();
        to_message(&record)
    }

    fn named<'a>(headers: &[(&'a str, &'a [u8])]) -> Vec<Header<'a>> {
        headers.iter().map(|(name, value)| (name.as_bytes(), Some(*value))).collect()
    }

    #[test]
    fn a_queue_is_told_a_message_s_id_where_it_asks() {
        let id_of = |headers: &[(&str, &[u8])]| {
            let mut builder = BatchBuilder::new(Compression::None);
            builder.push(17, None, Some(b"v"), &named(headers));
            let batch = builder.build();
            let records = batch::records(&batch, 1 << 20).unwrap();
            let record = records.iter().next().unwrap().unwrap();
            assert_eq!(facts(&record).message_id, None);
            facts_with_id(&record).message_id.map(|id| id.to_vec())
        };
        assert_eq!(id_of(&[("priority", b"5")]), None);
        assert_eq!(id_of(&[("message-id", b""), ("message-id", b"m-1")]), Some(b"m-1".to_vec()));
        let (longest, longer) = ([7; Facts::NAME_MAX], [7; Facts::NAME_MAX + 1]);
        assert_eq!(id_of(&[("message-id", &longest)]), Some(longest.to_vec()));
        assert_eq!(id_of(&[("message-id", &longer)]), None);
    }

    #[test]
    fn every_attribute_has_its_header() {
        let message = read(
            Some(b"k"),
            Some(b"v"),
            &named(&[
                ("group", b"g"),
                ("content-type", b"text/plain"),
                ("content-encoding", b"gzip"),
                ("correlation-id", b"\xff\x00"),
                ("reply-to", b"answers"),
                ("message-id", b"m-1"),
                ("priority", b"9"),
                ("expires-at", b"1700000000000"),
                ("deliver-at", b"1700000000001"),
                ("tag", b"red"),
                ("keys", b"a b"),
                ("traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
            ]),
        );
        assert!(message.headers.is_empty(), "{message:?}");
        assert_eq!((message.timestamp_ms, message.body.as_deref()), (17, Some(&b"v"[..])));
        assert_eq!((message.key.as_deref(), message.group.as_deref()), (Some(&b"k"[..]), Some("g")));
        assert_eq!((message.priority, message.expires_at_ms), (Some(9), Some(1_700_000_000_000)));
        assert_eq!((message.deliver_at_ms, message.tag.as_deref()), (Some(1_700_000_000_001), Some("red")));
        assert_eq!(message.correlation_id.as_deref(), Some(&b"\xff\x00"[..]));
        assert_eq!(message.keys.as_deref(), Some("a b"));
        let native = from_message(&message);
        assert_eq!(native.headers.len(), 12);
        assert_eq!(native.headers[0], ("group".into(), Some(Bytes::from_static(b"g"))));
    }

    #[test]
    fn what_makes_no_sense_or_comes_again_is_a_header_like_any_other() {
        let headers = named(&[
            ("priority", b"300"),
            ("priority", b"7"),
            ("priority", b"8"),
            ("deliver-at", b"soon"),
            ("tag", b"\xff"),
        ]);
        let message = read(None, None, &headers);
        assert_eq!((message.priority, message.deliver_at_ms, &message.tag), (Some(7), None, &None));
        let left: Vec<&str> = message.headers.iter().map(|(name, _)| &**name).collect();
        assert_eq!(left, ["priority", "priority", "deliver-at", "tag"]);
        assert_eq!(message.headers[3].1, HeaderValue::Bytes(Bytes::from_static(b"\xff")));
    }

    #[test]
    fn a_header_without_a_value_is_no_attribute() {
        let message = read(None, Some(b""), &[(b"tag", None)]);
        assert_eq!((message.tag, message.headers), (None, vec![("tag".into(), HeaderValue::Null)]));
        assert_eq!(message.body.as_deref(), Some(&b""[..]), "an empty body is no tombstone");
    }

    #[test]
    fn a_kafka_reader_sees_where_a_message_was_sent_and_types_as_text() {
        let message = Message {
            sent_to: Some(SentTo { exchange: "".into(), routing_key: "orders.eu".into() }),
            content_type: Some("application/json".into()),
            headers: vec![
                ("content-type".into(), HeaderValue::Text("its own".into())),
                ("tries".into(), HeaderValue::Integer(3)),
            ],
            ..Message::default()
        };
        let native = from_message(&message);
        let shown: Vec<_> =
            native.headers.iter().map(|(name, value)| (&**name, value.as_deref().unwrap())).collect();
        let expected: [(&str, &[u8]); 5] = [
            ("x-exchange", b""),
            ("x-routing-key", b"orders.eu"),
            ("content-type", b"application/json"),
            ("content-type", b"its own"),
            ("tries", b"3"),
        ];
        assert_eq!(shown, expected);
        assert_eq!(native.value, None, "a tombstone stays one");
    }

    fn sorted(headers: impl Iterator<Item = (Vec<u8>, Option<Vec<u8>>)>) -> Vec<(Vec<u8>, Option<Vec<u8>>)> {
        let mut all: Vec<_> = headers.collect();
        all.sort();
        all
    }

    proptest! {
        #[test]
        fn a_record_has_the_same_headers_after_both_ways(
            headers in proptest::collection::vec(
                ("(tag|keys|priority|expires-at|group|message-id|own)", proptest::option::of("([1-9][0-9]{0,2}|[a-z]{0,4})")),
                0..8,
            )
        ) {
            let bytes = |(name, value): &(String, Option<String>)| (name.clone().into_bytes(), value.clone().map(String::into_bytes));
            let sent: Vec<_> = headers.iter().map(bytes).collect();
            let views: Vec<Header<'_>> = sent.iter().map(|(name, value)| (&**name, value.as_deref())).collect();
            let native = from_message(&read(Some(b"k"), Some(b"v"), &views));
            let seen = native.headers.into_iter().map(|(name, value)| (name.as_bytes().to_vec(), value.map(|v| v.to_vec())));
            prop_assert_eq!(sorted(seen), sorted(sent.into_iter()));
        }
    }
}

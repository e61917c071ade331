//! Records of this protocol as messages that every protocol understands, and such messages as this protocol delivers them.
//!
//! What other protocols have a name for is a property, or a header of that name; a property that none has becomes the header `amqp.<name>`.

use std::fmt::Write;

use bytes::Bytes;
use sabir_model::batch::RecordView;
use sabir_model::{HeaderValue, Message, SentTo};

use crate::server::records::Envelope;
use crate::wire::*;

/// Headers that are attributes to others.
const KEY: &str = "key";
const GROUP: &str = "group";
const TAG: &str = "tag";
const KEYS: &str = "keys";
const TRACEPARENT: &str = "traceparent";
/// Milliseconds, where the property has seconds.
const TIMESTAMP: &str = "timestamp_in_ms";

/// A record that this front end wrote, as every protocol understands it.
pub(crate) fn to_message(record: &RecordView<'_>) -> Message {
    let mut message = Message {
        key: record.key.map(Bytes::copy_from_slice),
        body: record.value.map(Bytes::copy_from_slice),
        timestamp_ms: record.timestamp,
        ..Message::default()
    };
    let Some(envelope) = Envelope::bytes_of(record).and_then(Envelope::take) else { return message };
    let text = |name: ShortBytes<'_>| String::from_utf8_lossy(name.as_bytes()).into();
    message.sent_to =
        Some(SentTo { exchange: text(envelope.exchange), routing_key: text(envelope.routing_key) });
    let properties = BasicProperties::read(envelope.properties).unwrap_or_default();
    take_properties(&mut message, &properties);
    take_headers(&mut message, properties.headers.unwrap_or_default());
    take_others(&mut message, &properties);
    message
}

fn take_properties(message: &mut Message, properties: &BasicProperties<'_>) {
    let arrived = message.timestamp_ms;
    if let Some(seconds) = properties.timestamp.and_then(|seconds| i64::try_from(seconds).ok()) {
        message.timestamp_ms = seconds.saturating_mul(1000);
    }
    let expires = properties.expiration.and_then(|text| std::str::from_utf8(&text).ok()?.parse::<u32>().ok());
    message.expires_at_ms = expires.map(|ms| arrived.saturating_add(ms.into()));
    message.priority = properties.priority;
    message.correlation_id = properties.correlation_id.map(|id| Bytes::copy_from_slice(&id));
    let Message { headers, content_type, content_encoding, reply_to, message_id, .. } = message;
    for (name, value, attribute) in [
        ("content-type", properties.content_type, content_type),
        ("content-encoding", properties.content_encoding, content_encoding),
        ("reply-to", properties.reply_to, reply_to),
        ("message-id", properties.message_id, message_id),
    ] {
        match value.map(|value| (value, std::str::from_utf8(value.as_bytes()))) {
            None => {}
            Some((_, Ok(text))) => *attribute = Some(text.into()),
            Some((bytes, Err(_))) => headers.push((name.into(), HeaderValue::untyped(Some(&bytes)))),
        }
    }
}

fn take_headers(message: &mut Message, headers: FieldTable<'_>) {
    for (name, value) in headers {
        let name = String::from_utf8_lossy(name.as_bytes());
        let text = match value {
            FieldValue::LongStr(text) => std::str::from_utf8(text).ok(),
            _ => None,
        };
        let attribute = match &*name {
            GROUP => Some(&mut message.group),
            TAG => Some(&mut message.tag),
            KEYS => Some(&mut message.keys),
            TRACEPARENT => Some(&mut message.traceparent),
            _ => None,
        };
        match (attribute, text, value) {
            (Some(attribute @ None), Some(text), _) => *attribute = Some(text.into()),
            (_, _, FieldValue::I64(ms)) if name == TIMESTAMP => message.timestamp_ms = ms,
            // It is the record's key.
            (_, _, FieldValue::LongStr(_) | FieldValue::Binary(_)) if name == KEY => {}
            _ => message.headers.push((name.into(), header(value))),
        }
    }
}

/// What no other protocol has a name for.
fn take_others(message: &mut Message, properties: &BasicProperties<'_>) {
    let mut add = |name: &str, value: HeaderValue| message.headers.push((name.into(), value));
    if let Some(mode) = properties.delivery_mode {
        add("amqp.delivery-mode", HeaderValue::Integer(mode.into()));
    }
    for (name, value) in [
        ("amqp.type", properties.kind),
        ("amqp.user-id", properties.user_id),
        ("amqp.app-id", properties.app_id),
        ("amqp.cluster-id", properties.cluster_id),
    ] {
        value.into_iter().for_each(|value| add(name, HeaderValue::untyped(Some(&value))));
    }
}

/// A header as those understand it whose protocol knows no tables: what has parts as JSON, in which bytes that are no text are in hex.
pub(crate) fn header(value: FieldValue<'_>) -> HeaderValue {
    match value {
        FieldValue::Void => HeaderValue::Null,
        FieldValue::Bool(v) => HeaderValue::Bool(v),
        FieldValue::I8(v) => HeaderValue::Integer(v.into()),
        FieldValue::U8(v) => HeaderValue::Integer(v.into()),
        FieldValue::I16(v) => HeaderValue::Integer(v.into()),
        FieldValue::U16(v) => HeaderValue::Integer(v.into()),
        FieldValue::I32(v) => HeaderValue::Integer(v.into()),
        FieldValue::U32(v) => HeaderValue::Integer(v.into()),
        FieldValue::I64(v) => HeaderValue::Integer(v),
        FieldValue::F32(v) => HeaderValue::Float(v.into()),
        FieldValue::F64(v) => HeaderValue::Float(v),
        FieldValue::Timestamp(v) => HeaderValue::Integer(i64::try_from(v).unwrap_or(i64::MAX)),
        FieldValue::LongStr(v) => HeaderValue::untyped(Some(v)),
        FieldValue::Binary(v) => HeaderValue::Bytes(Bytes::copy_from_slice(v)),
        FieldValue::Decimal { .. } | FieldValue::Array(_) | FieldValue::Table(_) => {
            let mut json = String::new();
            put_json(&mut json, value);
            HeaderValue::Text(json.into())
        }
    }
}

/// What has parts, as JSON.
fn put_json(out: &mut String, value: FieldValue<'_>) {
    match value {
        FieldValue::Table(table) => {
            out.push('{');
            for (at, (name, value)) in table.iter().enumerate() {
                out.push_str(if at > 0 { "," } else { "" });
                put_text(out, &String::from_utf8_lossy(name.as_bytes()));
                out.push(':');
                put_json(out, value);
            }
            out.push('}');
        }
        FieldValue::Array(array) => {
            out.push('[');
            for (at, value) in array.iter().enumerate() {
                out.push_str(if at > 0 { "," } else { "" });
                put_json(out, value);
            }
            out.push(']');
        }
        FieldValue::Decimal { scale, value } => drop(write!(out, "{value}e-{scale}")),
        FieldValue::Binary(bytes) => put_bytes(out, bytes),
        plain => match header(plain) {
            HeaderValue::Null => out.push_str("null"),
            HeaderValue::Bool(v) => drop(write!(out, "{v}")),
            HeaderValue::Integer(v) => drop(write!(out, "{v}")),
            HeaderValue::Float(v) if v.is_finite() => drop(write!(out, "{v}")),
            HeaderValue::Float(v) => put_text(out, &v.to_string()),
            HeaderValue::Text(text) => put_text(out, &text),
            HeaderValue::Bytes(bytes) => put_bytes(out, &bytes),
        },
    }
}

fn put_bytes(out: &mut String, bytes: &[u8]) {
    match std::str::from_utf8(bytes) {
        Ok(text) => put_text(out, text),
        Err(_) => {
            out.push('"');
            for byte in bytes {
                // Writing to a String cannot fail.
                let _ = write!(out, "{byte:02x}");
            }
            out.push('"');
        }
    }
}

fn put_text(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c < ' ' => drop(write!(out, "\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
}

/// The properties with which a message is delivered that another protocol wrote, at `now_ms`.
pub(crate) fn properties(message: &Message, now_ms: i64) -> Bytes {
    let headers = headers(message);
    let expiration = message.expires_at_ms.map(|at| at.saturating_sub(now_ms).max(0).to_string());
    BasicProperties {
        content_type: short(&message.content_type),
        content_encoding: short(&message.content_encoding),
        headers: (!headers.as_table().is_empty()).then_some(headers.as_table()),
        priority: message.priority,
        correlation_id: message.correlation_id.as_deref().and_then(ShortBytes::new),
        reply_to: short(&message.reply_to),
        expiration: expiration.as_deref().map(ShortBytes::cut),
        message_id: short(&message.message_id),
        timestamp: u64::try_from(message.timestamp_ms).ok().map(|ms| ms / 1000),
        ..BasicProperties::default()
    }
    .to_bytes()
}

fn short(text: &Option<Box<str>>) -> Option<ShortBytes<'_>> {
    text.as_deref().map(ShortBytes::cut)
}

fn headers(message: &Message) -> FieldTableBuf {
    let mut table = FieldTableBuf::new();
    let text = |text: &Option<Box<str>>| text.as_ref().map(|text| text.as_bytes().to_vec());
    let key = message.key.as_ref().map(|key| key.to_vec());
    let sub_second = message.timestamp_ms > 0 && message.timestamp_ms % 1000 != 0;
    for (name, value) in [
        (KEY, key),
        (GROUP, text(&message.group)),
        (TAG, text(&message.tag)),
        (KEYS, text(&message.keys)),
        (TRACEPARENT, text(&message.traceparent)),
    ] {
        if let Some(value) = value {
            table.push(ShortBytes::cut(name), FieldValue::LongStr(&value));
        }
    }
    if sub_second {
        table.push(ShortBytes::cut(TIMESTAMP), FieldValue::I64(message.timestamp_ms));
    }
    for (name, value) in &message.headers {
        table.push(ShortBytes::cut(name), field(value));
    }
    table
}

fn field(value: &HeaderValue) -> FieldValue<'_> {
    match value {
        HeaderValue::Null => FieldValue::Void,
        HeaderValue::Bool(v) => FieldValue::Bool(*v),
        HeaderValue::Integer(v) => FieldValue::I64(*v),
        HeaderValue::Float(v) => FieldValue::F64(*v),
        HeaderValue::Text(v) => FieldValue::LongStr(v.as_bytes()),
        HeaderValue::Bytes(v) => FieldValue::Binary(v),
    }
}

#[cfg(test)]
mod tests {
    use sabir_model::batch::{BatchBuilder, Compression, records};

    use super::*;
    use crate::server::records::RecordWriter;

    fn read(exchange: &str, properties: &BasicProperties<'_>) -> Message {
        let properties = properties.to_bytes();
        let (exchange, routing_key) = (ShortBytes::cut(exchange), ShortBytes::cut("a.b"));
        let envelope = Envelope { exchange, routing_key, properties: &properties };
        let mut batch = BatchBuilder::new(Compression::None);
        RecordWriter::default().push(&mut batch, 7, &envelope, b"body");
        let batch = batch.build();
        let all = records(&batch, 1000).unwrap();
        to_message(&all.iter().next().unwrap().unwrap())
    }

    #[test]
    fn every_property_is_an_attribute_or_a_header() {
        let mut inner = FieldTableBuf::new();
        inner.push(ShortBytes::cut("a\"b"), FieldValue::I32(1));
        let list = FieldTableBuf::array(&[
            FieldValue::Table(inner.as_table()),
            FieldValue::Void,
            FieldValue::Binary(b"\xff\x01"),
        ]);
        let mut headers = FieldTableBuf::new();
        headers
            .push(ShortBytes::cut("group"), FieldValue::LongStr(b"g"))
            .push(ShortBytes::cut("tag"), FieldValue::I32(5))
            .push(ShortBytes::cut("key"), FieldValue::LongStr(b"k"))
            .push(ShortBytes::cut("n"), FieldValue::U8(9))
            .push(ShortBytes::cut("list"), FieldValue::Array(FieldArray::from_values(&list).unwrap()));
        let message = read(
            "x",
            &BasicProperties {
                content_type: Some(ShortBytes::cut("text/plain")),
                headers: Some(headers.as_table()),
                delivery_mode: Some(2),
                priority: Some(3),
                correlation_id: Some(ShortBytes::new(b"\xff").unwrap()),
                reply_to: Some(ShortBytes::cut("answers")),
                expiration: Some(ShortBytes::cut("1000")),
                message_id: Some(ShortBytes::new(b"\xfe").unwrap()),
                timestamp: Some(2),
                kind: Some(ShortBytes::cut("t")),
                ..Default::default()
            },
        );
        let sent_to = SentTo { exchange: "x".into(), routing_key: "a.b".into() };
        assert_eq!((message.sent_to, message.key.as_deref()), (Some(sent_to), Some(&b"k"[..])));
        assert_eq!(
            (message.timestamp_ms, message.expires_at_ms, message.priority),
            (2000, Some(1007), Some(3))
        );
        assert_eq!((message.group.as_deref(), message.tag), (Some("g"), None));
        assert_eq!(message.content_type.as_deref(), Some("text/plain"));
        assert_eq!(message.correlation_id.as_deref(), Some(&b"\xff"[..]));
        let expected: Vec<(Box<str>, HeaderValue)> = vec![
            ("message-id".into(), HeaderValue::Bytes(Bytes::from_static(b"\xfe"))),
            ("tag".into(), HeaderValue::Integer(5)),
            ("n".into(), HeaderValue::Integer(9)),
            ("list".into(), HeaderValue::Text(r#"[{"a\"b":1},null,"ff01"]"#.into())),
            ("amqp.delivery-mode".into(), HeaderValue::Integer(2)),
            ("amqp.type".into(), HeaderValue::Text("t".into())),
        ];
        assert_eq!(message.headers, expected);
    }

    #[test]
    fn a_message_of_others_is_delivered_with_what_it_has() {
        let message = Message {
            key: Some("k".into()),
            group: Some("g".into()),
            headers: vec![
                ("h".into(), HeaderValue::Bool(true)),
                ("b".into(), HeaderValue::Bytes("x".into())),
            ],
            timestamp_ms: 2_500,
            content_type: Some("a/b".into()),
            correlation_id: Some("c".into()),
            priority: Some(200),
            expires_at_ms: Some(10_000),
            ..Message::default()
        };
        let bytes = properties(&message, 4_000);
        let read = BasicProperties::read(&bytes).unwrap();
        assert_eq!((read.timestamp, read.priority), (Some(2), Some(200)));
        assert_eq!(read.expiration.map(|e| e.as_bytes().to_vec()), Some(b"6000".to_vec()));
        let headers = read.headers.unwrap();
        assert_eq!(headers.get("key"), Some(FieldValue::LongStr(b"k")));
        assert_eq!(headers.get("group"), Some(FieldValue::LongStr(b"g")));
        assert_eq!(headers.get("timestamp_in_ms"), Some(FieldValue::I64(2500)));
        assert_eq!(
            (headers.get("h"), headers.get("b")),
            (Some(FieldValue::Bool(true)), Some(FieldValue::Binary(b"x")))
        );
        let plain = properties(&Message { timestamp_ms: -1, ..Message::default() }, 0);
        assert_eq!(plain, BasicProperties::default().to_bytes(), "nothing is made up");
    }
}

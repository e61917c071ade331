//! A message as all protocols understand it: what one of them wrote and another reads goes through this form.
//!
//! What a protocol knows beyond these fields becomes a header, named as Kafka names it or `<protocol>.<name>`. Reading through the
//! protocol that wrote needs no such form: the record holds what was sent.

use bytes::Bytes;

/// A message.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Message {
    /// Places it in a partition, and compacts it.
    pub key: Option<Bytes>,
    /// Within it order may be kept.
    pub group: Option<Box<str>>,
    /// The content; none is a tombstone, which an empty one is not.
    pub body: Option<Bytes>,
    /// The writer's own headers in order; names may repeat.
    pub headers: Vec<(Box<str>, HeaderValue)>,
    /// To which exchange it was sent, by a protocol that has them.
    pub sent_to: Option<SentTo>,
    /// When it was made, in milliseconds since the epoch.
    pub timestamp_ms: i64,
    /// The content's media type.
    pub content_type: Option<Box<str>>,
    /// How the content is encoded.
    pub content_encoding: Option<Box<str>>,
    /// Which request it answers.
    pub correlation_id: Option<Bytes>,
    /// Where an answer is expected.
    pub reply_to: Option<Box<str>>,
    /// What its writer calls it.
    pub message_id: Option<Box<str>>,
    /// How urgent it is; more is more urgent.
    pub priority: Option<u8>,
    /// When it is no longer of use, in milliseconds since the epoch.
    pub expires_at_ms: Option<i64>,
    /// Not before when it is delivered, in milliseconds since the epoch.
    pub deliver_at_ms: Option<i64>,
    /// What consumers choose it by.
    pub tag: Option<Box<str>>,
    /// Keys to search by.
    pub keys: Option<Box<str>>,
    /// The W3C trace context that it belongs to.
    pub traceparent: Option<Box<str>>,
}

/// To what a message was published, where that is not the topic that holds it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SentTo {
    /// The exchange.
    pub exchange: Box<str>,
    /// The routing key.
    pub routing_key: Box<str>,
}

/// The value of a header. Protocols that have types keep them among each other; others see text, or bytes.
#[derive(Debug, Clone, PartialEq)]
pub enum HeaderValue {
    /// Nothing.
    Null,
    /// A truth value.
    Bool(bool),
    /// A whole number.
    Integer(i64),
    /// A number.
    Float(f64),
    /// Text.
    Text(Box<str>),
    /// Bytes that are not text.
    Bytes(Bytes),
}

impl HeaderValue {
    /// The value that a protocol without types has sent: text, if it is UTF-8.
    pub fn untyped(value: Option<&[u8]>) -> Self {
        match value.map(|bytes| (bytes, std::str::from_utf8(bytes))) {
            None => Self::Null,
            Some((_, Ok(text))) => Self::Text(text.into()),
            Some((bytes, Err(_))) => Self::Bytes(Bytes::copy_from_slice(bytes)),
        }
    }

    /// The value for a protocol without types.
    pub fn to_untyped(&self) -> Option<Bytes> {
        Some(match self {
            Self::Null => return None,
            Self::Bool(value) => value.to_string().into(),
            Self::Integer(value) => value.to_string().into(),
            Self::Float(value) => value.to_string().into(),
            Self::Text(value) => Bytes::copy_from_slice(value.as_bytes()),
            Self::Bytes(value) => value.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_without_a_type_are_text_where_they_can_be() {
        assert_eq!(HeaderValue::untyped(Some(b"7")), HeaderValue::Text("7".into()));
        assert_eq!(HeaderValue::untyped(Some(b"\xff")), HeaderValue::Bytes(Bytes::from_static(b"\xff")));
        assert_eq!(HeaderValue::untyped(None), HeaderValue::Null);
        for (value, seen) in [
            (HeaderValue::Integer(-7), Some("-7")),
            (HeaderValue::Bool(true), Some("true")),
            (HeaderValue::Float(0.5), Some("0.5")),
            (HeaderValue::Text("a".into()), Some("a")),
            (HeaderValue::Null, None),
        ] {
            assert_eq!(value.to_untyped(), seen.map(Bytes::from));
        }
    }
}

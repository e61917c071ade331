//! Messages that are kept back: an exchange of type `x-delayed-message` routes each when the milliseconds of its header `x-delay` are over.
//!
//! Such a message lies in a queue that no client sees, until the broker's timer fires and it is routed as things are then.

use bytes::Bytes;
use sabir_broker::{DelayedAddress, NewTopic};
use sabir_model::batch::RecordView;
use sabir_model::{Facts, QueueConfig, TopicConfig};

use super::arguments::{integer, precondition};
use super::asking::Asker;
use super::attributes::MessageAttributes;
use super::facts;
use super::records::{Envelope, kept_by};
use super::routes::{further_keys, murmur2};
use crate::wire::*;

/// The queue in which messages wait for their time.
pub(crate) const DELAYED: &str = "__amqp_delayed";

/// The type of an exchange that delays, its argument, and the header of its messages.
pub(super) const KIND: &str = "x-delayed-message";
pub(super) const ARGUMENT: &str = "x-delayed-type";
const HEADER: &str = "x-delay";

/// The longest delay, in milliseconds: a message with a longer one is not delayed, as with the plugin.
const LONGEST: i64 = u32::MAX as i64;
/// The largest record that is kept back: its timer refers to it in one piece.
const LARGEST: u32 = 1 << 20;

/// How long a message is to be kept back, in milliseconds, if its exchange delays.
pub(super) fn delay(properties: &[u8]) -> Option<i64> {
    if !BasicProperties::has_headers(properties) {
        return None;
    }
    let delay = match BasicProperties::read_again(properties).headers?.get(HEADER)? {
        FieldValue::LongStr(digits) => std::str::from_utf8(digits).ok()?.parse().ok(),
        value => integer(value),
    };
    delay.filter(|delay| (1..=LONGEST).contains(delay))
}

/// The properties as the clients that get the message see them: its delay is over, which a negative one says.
///
/// # Errors
/// It names routing keys that no consumer is to see, and that could not be told apart later.
pub(super) fn over(properties: &[u8], delay: i64) -> Result<Bytes, ConnectionException> {
    let read = BasicProperties::read_again(properties);
    let mut shown = FieldTableBuf::new();
    for (name, value) in read.headers.unwrap_or_default() {
        if name.as_bytes() == b"BCC" {
            return Err(ConnectionException::new(
                ReplyCode::NotImplemented,
                "a delayed message with the header 'BCC'",
            ));
        }
        let is_delay = name.as_bytes() == HEADER.as_bytes();
        shown.push(name, if is_delay { negative(delay) } else { value });
    }
    Ok(BasicProperties { headers: Some(shown.as_table()), ..read }.to_bytes())
}

fn negative(delay: i64) -> FieldValue<'static> {
    i32::try_from(-delay).map_or(FieldValue::I64(-delay), FieldValue::I32)
}

/// Where a message goes that was kept back.
pub(crate) fn address(record: &RecordView<'_>, each: &mut dyn FnMut(&DelayedAddress<'_>)) {
    let Some(envelope) = Envelope::bytes_of(record).and_then(Envelope::take) else { return };
    let Ok(exchange) = std::str::from_utf8(envelope.exchange.as_bytes()) else { return };
    let further = further_keys(envelope.properties).unwrap_or_default();
    each(&DelayedAddress {
        exchange,
        exchange_id: kept_by(record),
        repetition: None,
        key: envelope.routing_key.as_bytes(),
        further_keys: &further,
        attributes: &MessageAttributes::new(envelope.properties),
        hash: envelope.key().map_or(record.timestamp as u32, murmur2) & 0x7fff_ffff,
        facts: Facts {
            expires_ms: envelope.expires_ms(record.timestamp),
            message_id: facts::message_id(envelope.properties),
            ..facts::of(&envelope, record.value.unwrap_or_default())
        },
    });
}

/// The place in which messages wait for their time.
pub(crate) fn queue() -> NewTopic {
    let mut config = TopicConfig::of_queue(QueueConfig { delays: true, ..QueueConfig::default() });
    config.max_message_bytes = LARGEST;
    config.timestamp_after_max_ms = i64::MAX;
    NewTopic { name: DELAYED.into(), partitions: 1, config, internal: true, unlike: false }
}

impl Asker {
    /// Makes that place, if there is none.
    pub(super) async fn prepare_delays(&self) -> Result<(), ChannelException> {
        let made = self.amqp.broker.prepare_delays(&self.caller).await;
        made.map_err(|error| precondition(format!("no place for delayed messages: {error}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn properties(value: FieldValue<'_>) -> Bytes {
        let mut headers = FieldTableBuf::new();
        headers.push(ShortBytes::cut("own"), FieldValue::I32(1));
        headers.push(ShortBytes::cut(HEADER), value);
        BasicProperties { headers: Some(headers.as_table()), ..Default::default() }.to_bytes()
    }

    #[test]
    fn a_delay_is_a_number_of_milliseconds_or_its_digits() {
        let some =
            [FieldValue::I32(500), FieldValue::I64(500), FieldValue::U16(500), FieldValue::LongStr(b"500")];
        for value in some {
            assert_eq!(delay(&properties(value)), Some(500), "{value:?}");
        }
        let none = [
            FieldValue::I32(0),
            FieldValue::I32(-5),
            FieldValue::I64(1 << 32),
            FieldValue::LongStr(b"soon"),
            FieldValue::Bool(true),
        ];
        for value in none {
            assert_eq!(delay(&properties(value)), None, "{value:?}");
        }
        assert_eq!(delay(&BasicProperties::default().to_bytes()), None);
    }

    #[test]
    fn a_delay_that_is_over_is_negative_and_all_else_as_it_was() {
        let shown = over(&properties(FieldValue::I64(500)), 500).unwrap();
        let headers = BasicProperties::read(&shown).unwrap().headers.unwrap();
        assert_eq!(headers.get("own"), Some(FieldValue::I32(1)));
        assert_eq!((headers.get(HEADER), delay(&shown)), (Some(FieldValue::I32(-500)), None));
        let long = over(&properties(FieldValue::I64(LONGEST)), LONGEST).unwrap();
        let headers = BasicProperties::read(&long).unwrap().headers.unwrap();
        assert_eq!(headers.get(HEADER), Some(FieldValue::I64(-LONGEST)));
        let mut hidden = FieldTableBuf::new();
        hidden.push(ShortBytes::cut("BCC"), FieldValue::Void);
        let hidden = BasicProperties { headers: Some(hidden.as_table()), ..Default::default() }.to_bytes();
        assert_eq!(over(&hidden, 1).unwrap_err().code, ReplyCode::NotImplemented);
    }
}

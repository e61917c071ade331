//! Dead letters: what a message says of how it came to be one, in RabbitMQ's headers.

use std::sync::Arc;

use sabir_broker::{
    DeadLetter, DeadLetterRecord, DeadRecord, DeathReason, Deaths, DelayedAddress, RedrivenRecord,
};
use sabir_model::batch::RecordView;

use super::attributes::MessageAttributes;
use super::facts;
use super::records::{Envelope, NATIVE};
use super::routes::{further_keys, murmur2};
use crate::converter;
use crate::wire::*;

/// The header that lists a message's deaths, the latest first.
const DEATHS: &str = "x-death";
/// The header of further routing keys, which another routing key stands for.
const FURTHER: &str = "CC";
/// Those of the first death.
const FIRST_REASON: &str = "x-first-death-reason";
const FIRST_QUEUE: &str = "x-first-death-queue";
const FIRST_EXCHANGE: &str = "x-first-death-exchange";
/// All of these.
pub(super) const ADDED: [&str; 4] = [DEATHS, FIRST_REASON, FIRST_QUEUE, FIRST_EXCHANGE];
/// What a record of a death says that was before an operator had the message go back.
const REDRIVEN: &str = "redriven";
/// Deaths that are kept, and the bytes that they may take; the earliest go.
const MOST: usize = 256;
const MOST_BYTES: usize = 32 * 1024;
/// Bytes that the routing keys of a death may take; the last ones go.
const KEY_BYTES: usize = 8 * 1024;

/// A dead letter as it is published.
pub(crate) fn publish(
    dead: &DeadRecord<'_>,
    death: &DeadLetter<'_>,
    each: &mut dyn FnMut(&DeadLetterRecord<'_>),
) {
    match dead {
        DeadRecord::Own(record) => {
            if let Some(envelope) = Envelope::bytes_of(record).and_then(Envelope::take) {
                bury(&envelope, record.value.unwrap_or_default(), death, each);
            }
        }
        DeadRecord::Other(message) => {
            // It was sent to the queue by its name.
            let routing_key = ShortBytes::cut(death.queue);
            let properties = converter::properties(message, death.time_ms);
            let envelope = Envelope { exchange: ShortBytes::cut(""), routing_key, properties: &properties };
            bury(&envelope, message.body.as_deref().unwrap_or_default(), death, each);
        }
    }
}

fn bury(
    before: &Envelope<'_>,
    body: &[u8],
    death: &DeadLetter<'_>,
    each: &mut dyn FnMut(&DeadLetterRecord<'_>),
) {
    let properties = dead_properties(before, death);
    let routing_key = death.routing_key.map_or(before.routing_key, ShortBytes::cut);
    let exchange = ShortBytes::cut(death.exchange);
    let envelope = Envelope { exchange, routing_key, properties: &properties };
    let further = further_keys(&properties).unwrap_or_default();
    let address = DelayedAddress {
        exchange: death.exchange,
        exchange_id: None,
        repetition: None,
        key: routing_key.as_bytes(),
        further_keys: &further,
        attributes: &MessageAttributes::new(&properties),
        hash: envelope.key().map_or(death.time_ms as u32, murmur2) & 0x7fff_ffff,
        facts: facts::of(&envelope, body),
    };
    let mut native = Vec::with_capacity(envelope.len());
    envelope.put(&mut native);
    each(&DeadLetterRecord {
        address: &address,
        deaths: &deaths(&properties),
        key: envelope.key(),
        value: Some(body),
        headers: &[(NATIVE, Some(&native))],
    });
}

/// A dead letter as it goes back: as the queue had it that gave it up, so that it can be given up again and go where it went, and with its history.
pub(crate) fn redrive(record: &RecordView<'_>, queue: &str, each: &mut dyn FnMut(&RedrivenRecord<'_>)) {
    let Some(before) = Envelope::bytes_of(record).and_then(Envelope::take) else { return };
    let read = BasicProperties::read_again(before.properties);
    let headers = read.headers.unwrap_or_default();
    let Some(FieldValue::Array(all)) = headers.get(DEATHS) else { return };
    let Some((death, origin)) = all.iter().find_map(|death| elsewhere(death, queue)) else { return };
    let reason = death.get("reason").and_then(known_reason).unwrap_or(DeathReason::QueueLength);
    let mut kept = FieldTableBuf::new();
    for (name, value) in headers.iter().filter(|(name, _)| name.as_bytes() != DEATHS.as_bytes()) {
        kept.push(name, value);
    }
    let marked: Vec<u8> = all.iter().flat_map(marked).collect();
    kept.push(ShortBytes::cut(DEATHS), FieldValue::Array(array(&marked)));
    let properties = BasicProperties { headers: Some(kept.as_table()), ..read }.to_bytes();
    // Of a record that a client made up they may be missing: then it is sent to the queue by its name.
    let by_name = (ShortBytes::cut(""), ShortBytes::cut(origin));
    let (exchange, routing_key) = sent_to(&death).unwrap_or(by_name);
    let (envelope, body) =
        (Envelope { exchange, routing_key, properties: &properties }, record.value.unwrap_or_default());
    let mut native = Vec::with_capacity(envelope.len());
    envelope.put(&mut native);
    each(&RedrivenRecord {
        origin,
        reason,
        facts: facts::of(&envelope, body),
        key: envelope.key(),
        value: Some(body),
        headers: &[(NATIVE, Some(&native))],
    });
}

/// A death in another queue than that one, and its name.
fn elsewhere<'a>(death: FieldValue<'a>, queue: &str) -> Option<(FieldTable<'a>, &'a str)> {
    let FieldValue::Table(death) = death else { return None };
    let Some(FieldValue::LongStr(name)) = death.get("queue") else { return None };
    let name = std::str::from_utf8(name).ok()?;
    (name != queue).then_some((death, name))
}

/// The exchange and the routing key with which the message came to the queue that gave it up.
fn sent_to<'a>(death: &FieldTable<'a>) -> Option<(ShortBytes<'a>, ShortBytes<'a>)> {
    let Some(FieldValue::LongStr(exchange)) = death.get("exchange") else { return None };
    let Some(FieldValue::Array(keys)) = death.get("routing-keys") else { return None };
    let Some(FieldValue::LongStr(key)) = keys.iter().next() else { return None };
    Some((ShortBytes::new(exchange)?, ShortBytes::new(key)?))
}

/// A death as it is listed that was before a redrive.
fn marked(death: FieldValue<'_>) -> Vec<u8> {
    let FieldValue::Table(death) = death else { return FieldTableBuf::array(&[death]) };
    let mut table = FieldTableBuf::new();
    for (name, value) in death.iter().filter(|(name, _)| name.as_bytes() != REDRIVEN.as_bytes()) {
        table.push(name, value);
    }
    table.push(ShortBytes::cut(REDRIVEN), FieldValue::Bool(true));
    FieldTableBuf::array(&[FieldValue::Table(table.as_table())])
}

/// The properties with what is said of this death. Its expiration is over, or would be over again where it goes.
fn dead_properties(before: &Envelope<'_>, death: &DeadLetter<'_>) -> bytes::Bytes {
    let read = BasicProperties::read_again(before.properties);
    let headers = read.headers.unwrap_or_default();
    let earlier = match headers.get(DEATHS) {
        Some(FieldValue::Array(earlier)) => Some(earlier),
        _ => None,
    };
    let mut said = FieldTableBuf::new();
    let is_first = earlier.is_none();
    for (name, value) in headers {
        let name_of = |known: &str| name.as_bytes() == known.as_bytes();
        let is_replaced = name_of(DEATHS)
            || is_first && (name_of(FIRST_REASON) || name_of(FIRST_QUEUE) || name_of(FIRST_EXCHANGE))
            || death.routing_key.is_some() && name_of(FURTHER);
        if !is_replaced {
            said.push(name, value);
        }
    }
    if is_first {
        said.push(ShortBytes::cut(FIRST_REASON), text(reason(death.reason)));
        said.push(ShortBytes::cut(FIRST_QUEUE), text(death.queue));
        said.push(ShortBytes::cut(FIRST_EXCHANGE), FieldValue::LongStr(before.exchange.as_bytes()));
    }
    let all = with_death(before, &read, earlier, death);
    said.push(ShortBytes::cut(DEATHS), FieldValue::Array(array(&all)));
    BasicProperties { headers: Some(said.as_table()), expiration: None, ..read }.to_bytes()
}

/// The list of deaths with this one in front: counted with an earlier one in the same queue for the same reason, if there is one.
fn with_death(
    before: &Envelope<'_>,
    properties: &BasicProperties<'_>,
    earlier: Option<FieldArray<'_>>,
    death: &DeadLetter<'_>,
) -> Vec<u8> {
    let earlier: Vec<FieldValue<'_>> = earlier.into_iter().flat_map(FieldArray::iter).collect();
    let is_same = |value: &FieldValue<'_>| match value {
        FieldValue::Table(table) => {
            table.get("queue") == Some(text(death.queue))
                && table.get("reason") == Some(text(reason(death.reason)))
        }
        _ => false,
    };
    let listed = |table: &FieldTableBuf| FieldTableBuf::array(&[FieldValue::Table(table.as_table())]);
    let counted = earlier.iter().find(|value| is_same(value)).and_then(|same| match same {
        FieldValue::Table(table) => Some(listed(&again(*table))),
        _ => None,
    });
    // A client may have made one up that is larger than any of the broker's.
    let counted = counted.filter(|counted| counted.len() <= MOST_BYTES);
    let mut all = counted.unwrap_or_else(|| listed(&first(before, properties, death)));
    for other in earlier.iter().filter(|value| !is_same(value)).take(MOST - 1) {
        let other = FieldTableBuf::array(&[*other]);
        if all.len() + other.len() > MOST_BYTES {
            break;
        }
        all.extend_from_slice(&other);
    }
    all
}

/// One more of those that are counted.
fn again(earlier: FieldTable<'_>) -> FieldTableBuf {
    const COUNT: &str = "count";
    let count = earlier.get(COUNT).and_then(super::arguments::integer).unwrap_or(0);
    let mut table = FieldTableBuf::new();
    table.push(ShortBytes::cut(COUNT), FieldValue::I64(count.saturating_add(1)));
    let is_kept = |name: &[u8]| name != COUNT.as_bytes() && name != REDRIVEN.as_bytes();
    for (name, value) in earlier.iter().filter(|(name, _)| is_kept(name.as_bytes())) {
        table.push(name, value);
    }
    table
}

fn first(before: &Envelope<'_>, properties: &BasicProperties<'_>, death: &DeadLetter<'_>) -> FieldTableBuf {
    let further = further_keys(before.properties).unwrap_or_default();
    let mut keys = Vec::new();
    for key in std::iter::once(before.routing_key.as_bytes()).chain(further) {
        let key = FieldTableBuf::array(&[FieldValue::LongStr(key)]);
        if keys.len() + key.len() > KEY_BYTES {
            break;
        }
        keys.extend_from_slice(&key);
    }
    let mut table = FieldTableBuf::new();
    let seconds = u64::try_from(death.time_ms / 1000).unwrap_or(0);
    for (name, value) in [
        ("count", FieldValue::I64(1)),
        ("reason", text(reason(death.reason))),
        ("queue", text(death.queue)),
        ("time", FieldValue::Timestamp(seconds)),
        ("exchange", FieldValue::LongStr(before.exchange.as_bytes())),
        ("routing-keys", FieldValue::Array(array(&keys))),
    ] {
        table.push(ShortBytes::cut(name), value);
    }
    if let Some(expiration) = properties.expiration {
        table.push(ShortBytes::cut("original-expiration"), FieldValue::LongStr(&expiration));
    }
    table
}

/// What properties say of deaths, since the last redrive: what was before it makes no cycle.
fn deaths(properties: &[u8]) -> Deaths {
    let mut deaths = Deaths::default();
    let headers = BasicProperties::read_again(properties).headers.unwrap_or_default();
    let Some(FieldValue::Array(all)) = headers.get(DEATHS) else { return deaths };
    let tables: Vec<_> = all.iter().collect();
    for value in tables.into_iter().rev() {
        let FieldValue::Table(table) = value else { continue };
        let Some(FieldValue::LongStr(queue)) = table.get("queue") else { continue };
        if table.get(REDRIVEN).is_some() {
            continue;
        }
        let queue: Arc<str> = String::from_utf8_lossy(queue).into();
        let reason = table.get("reason").and_then(known_reason).unwrap_or(DeathReason::QueueLength);
        deaths.add(&queue, reason, 0);
    }
    deaths
}

fn known_reason(value: FieldValue<'_>) -> Option<DeathReason> {
    DeathReason::ALL.into_iter().find(|known| value == text(reason(*known)))
}

fn reason(reason: DeathReason) -> &'static str {
    match reason {
        DeathReason::Rejected => "rejected",
        DeathReason::Expired => "expired",
        DeathReason::QueueLength => "maxlen",
        DeathReason::DeliveryLimit => "delivery_limit",
        // No queue gives a message up for it.
        DeathReason::Redriven => REDRIVEN,
    }
}

fn text(text: &str) -> FieldValue<'_> {
    FieldValue::LongStr(text.as_bytes())
}

fn array(values: &[u8]) -> FieldArray<'_> {
    FieldArray::from_values(values).expect("it was written here")
}

#[cfg(test)]
mod tests {
    use sabir_model::batch::{BatchBuilder, Compression, records};

    use super::super::records::RecordWriter;
    use super::*;

    /// What a message came to.
    #[derive(Debug)]
    struct Published {
        exchange: String,
        keys: Vec<String>,
        properties: bytes::Bytes,
        cycles: Vec<&'static str>,
    }

    fn death<'a>(queue: &'a str, reason: DeathReason, routing_key: Option<&'a str>) -> DeadLetter<'a> {
        DeadLetter { queue, reason, time_ms: 5_000, exchange: "dlx", routing_key }
    }

    fn published(properties: &[u8], death: &DeadLetter<'_>) -> Published {
        let mut batch = BatchBuilder::new(Compression::None);
        let envelope =
            Envelope { exchange: ShortBytes::cut("ex"), routing_key: ShortBytes::cut("k"), properties };
        RecordWriter::default().push(&mut batch, 7, &envelope, b"body");
        let batch = batch.build();
        let all = records(&batch, 1 << 20).unwrap();
        let record = all.iter().next().unwrap().unwrap();
        let mut found = None;
        publish(&DeadRecord::Own(&record), death, &mut |letter| {
            let native = Envelope::take(letter.headers[0].1.unwrap()).unwrap();
            let keys = std::iter::once(letter.address.key).chain(letter.address.further_keys.iter().copied());
            found = Some(Published {
                exchange: letter.address.exchange.to_owned(),
                keys: keys.map(|key| String::from_utf8_lossy(key).into_owned()).collect(),
                properties: bytes::Bytes::copy_from_slice(native.properties),
                cycles: ["a", "b"].into_iter().filter(|queue| letter.deaths.is_cycle(queue)).collect(),
            });
            assert_eq!(letter.value, Some(&b"body"[..]));
        });
        found.unwrap()
    }

    /// Queue, reason, count of each death.
    fn listed(properties: &[u8]) -> Vec<(String, String, i64)> {
        let headers = BasicProperties::read(properties).unwrap().headers.unwrap();
        let Some(FieldValue::Array(all)) = headers.get(DEATHS) else { panic!("{headers:?}") };
        let string = |value: Option<FieldValue<'_>>| match value {
            Some(FieldValue::LongStr(text)) => String::from_utf8_lossy(text).into_owned(),
            other => panic!("{other:?}"),
        };
        let one = |value| match value {
            FieldValue::Table(t) => {
                let count = t.get("count").and_then(super::super::arguments::integer).unwrap();
                (string(t.get("queue")), string(t.get("reason")), count)
            }
            other => panic!("{other:?}"),
        };
        all.iter().map(one).collect()
    }

    #[test]
    fn deaths_are_listed_the_latest_first_and_counted_by_queue_and_reason() {
        use DeathReason::{Expired, Rejected};
        let plain = BasicProperties {
            expiration: Some(ShortBytes::cut("9")),
            priority: Some(3),
            ..Default::default()
        };
        let once = published(&plain.to_bytes(), &death("a", Expired, None));
        assert_eq!(
            (&*once.exchange, &once.keys[..], &once.cycles[..]),
            ("dlx", &["k".to_owned()][..], &["a"][..])
        );
        let read = BasicProperties::read(&once.properties).unwrap();
        assert_eq!((read.expiration, read.priority), (None, Some(3)));
        let headers = read.headers.unwrap();
        assert_eq!(headers.get(FIRST_REASON), Some(text("expired")));
        assert_eq!(headers.get(FIRST_EXCHANGE), Some(text("ex")));
        let Some(FieldValue::Array(all)) = headers.get(DEATHS) else { panic!() };
        let FieldValue::Table(entry) = all.iter().next().unwrap() else { panic!() };
        assert_eq!(entry.get("original-expiration"), Some(text("9")));
        assert_eq!(entry.get("time"), Some(FieldValue::Timestamp(5)));
        let twice = published(&once.properties, &death("b", Rejected, None));
        let thrice = published(&twice.properties, &death("a", Expired, None));
        let entry = |queue: &str, reason: &str, count| (queue.to_owned(), reason.to_owned(), count);
        assert_eq!(listed(&thrice.properties), [entry("a", "expired", 2), entry("b", "rejected", 1)]);
        assert_eq!((twice.cycles, thrice.cycles), (vec![], vec!["a"]), "rejected it may come to b again");
        let headers = BasicProperties::read(&thrice.properties).unwrap().headers.unwrap();
        assert_eq!(headers.get(FIRST_QUEUE), Some(text("a")));
    }

    /// Where a dead letter goes back to, and as what.
    fn redriven(properties: &[u8], queue: &str) -> Option<(String, DeathReason, Published)> {
        let mut batch = BatchBuilder::new(Compression::None);
        let envelope =
            Envelope { exchange: ShortBytes::cut("dlx"), routing_key: ShortBytes::cut("d"), properties };
        RecordWriter::default().push(&mut batch, 7, &envelope, b"body");
        let batch = batch.build();
        let all = records(&batch, 1 << 20).unwrap();
        let record = all.iter().next().unwrap().unwrap();
        let mut found = None;
        redrive(&record, queue, &mut |back| {
            let native = Envelope::take(back.headers[0].1.unwrap()).unwrap();
            assert_eq!((back.value, back.key), (Some(&b"body"[..]), native.key()));
            let text = |bytes: ShortBytes<'_>| String::from_utf8_lossy(&bytes).into_owned();
            let properties = bytes::Bytes::copy_from_slice(native.properties);
            let published = Published {
                exchange: text(native.exchange),
                keys: vec![text(native.routing_key)],
                properties,
                cycles: Vec::new(),
            };
            found = Some((back.origin.to_owned(), back.reason, published));
        });
        found
    }

    #[test]
    fn a_dead_letter_goes_back_as_the_queue_had_it_that_gave_it_up_last() {
        use DeathReason::{Expired, Rejected};
        let plain = BasicProperties { priority: Some(3), ..Default::default() }.to_bytes();
        assert!(redriven(&plain, "dead").is_none(), "it is none");
        let once = published(&plain, &death("a", Rejected, Some("d"))).properties;
        let twice = published(&once, &death("b", Expired, None)).properties;
        let (origin, reason, _) = redriven(&twice, "dead").unwrap();
        assert_eq!((&*origin, reason), ("b", Expired));
        let (origin, reason, back) = redriven(&twice, "b").unwrap();
        assert_eq!((&*origin, reason), ("a", Rejected), "it is in b");
        assert_eq!((&*back.exchange, &*back.keys[0]), ("ex", "k"));
        assert!(redriven(&once, "a").is_none(), "it is where it was");
        // It says of its history what it said, and is no cycle once more.
        assert_eq!(listed(&back.properties), listed(&twice));
        assert_eq!(BasicProperties::read(&back.properties).unwrap().priority, Some(3));
        let again = published(&back.properties, &death("a", Expired, None));
        assert_eq!(again.cycles, ["a"], "but not b");
        let third = published(&again.properties, &death("b", Expired, None));
        assert_eq!(third.cycles, ["a", "b"]);
        let entry = |queue: &str, reason: &str, count| (queue.to_owned(), reason.to_owned(), count);
        let all = [entry("b", "expired", 2), entry("a", "expired", 1), entry("a", "rejected", 1)];
        assert_eq!(listed(&third.properties), all);
    }

    #[test]
    fn what_clients_say_of_where_they_came_from_does_no_harm() {
        let said = |fields: &[(&str, FieldValue<'_>)]| {
            let mut table = FieldTableBuf::new();
            for (name, value) in fields {
                table.push(ShortBytes::cut(name), *value);
            }
            let all = FieldTableBuf::array(&[FieldValue::Void, FieldValue::Table(table.as_table())]);
            let mut headers = FieldTableBuf::new();
            headers.push(ShortBytes::cut(DEATHS), FieldValue::Array(array(&all)));
            BasicProperties { headers: Some(headers.as_table()), ..Default::default() }.to_bytes()
        };
        let (_, reason, back) = redriven(&said(&[("queue", text("a"))]), "dead").unwrap();
        assert_eq!((reason, &*back.exchange, &*back.keys[0]), (DeathReason::QueueLength, "", "a"));
        let (long, keys) = ("e".repeat(300), FieldTableBuf::array(&[text("k")]));
        let keys = ("routing-keys", FieldValue::Array(array(&keys)));
        let (_, _, back) =
            redriven(&said(&[("queue", text("a")), ("exchange", text(&long)), keys]), "dead").unwrap();
        assert_eq!((&*back.exchange, &*back.keys[0]), ("", "a"));
        for wrong in [&[("queue", FieldValue::LongStr(&[0xff]))][..], &[("queue", FieldValue::I32(1))], &[]] {
            assert!(redriven(&said(wrong), "dead").is_none());
        }
    }

    #[test]
    fn what_clients_say_of_deaths_themselves_does_no_harm() {
        let mut deep = FieldTableBuf::new();
        for _ in 0..MAX_DEPTH - 4 {
            let inner = std::mem::take(&mut deep);
            deep.push(ShortBytes::cut("queue"), FieldValue::Table(inner.as_table()));
        }
        let mut negative = FieldTableBuf::new();
        for (name, value) in [
            ("queue", text("a")),
            ("reason", text("expired")),
            ("count", FieldValue::I64(i64::MAX)),
            ("count", text("again")),
        ] {
            negative.push(ShortBytes::cut(name), value);
        }
        let said = [
            FieldValue::Table(deep.as_table()),
            FieldValue::I32(-1),
            FieldValue::Void,
            FieldValue::Table(negative.as_table()),
            FieldValue::Table(FieldTable::EMPTY),
        ];
        let many: Vec<_> = said.iter().copied().cycle().take(2 * MOST).collect();
        for said in [&said[..], &many] {
            let all = FieldTableBuf::array(said);
            let mut headers = FieldTableBuf::new();
            headers.push(ShortBytes::cut(DEATHS), FieldValue::Array(array(&all)));
            headers.push(ShortBytes::cut(FURTHER), FieldValue::Void);
            let properties =
                BasicProperties { headers: Some(headers.as_table()), ..Default::default() }.to_bytes();
            let dead = published(&properties, &death("a", DeathReason::Expired, None));
            let headers = BasicProperties::read(&dead.properties).unwrap().headers.unwrap();
            let Some(FieldValue::Array(all)) = headers.get(DEATHS) else { panic!() };
            let Some(FieldValue::Table(latest)) = all.iter().next() else { panic!() };
            assert_eq!(latest.get("count"), Some(FieldValue::I64(i64::MAX)));
            assert!(all.iter().count() <= MOST);
        }
    }

    #[test]
    fn what_is_said_of_deaths_takes_so_many_bytes_and_the_earliest_go() {
        let keys = FieldTableBuf::array(&vec![text("one of many routing keys"); 2500]);
        let mut headers = FieldTableBuf::new();
        headers.push(ShortBytes::cut(FURTHER), FieldValue::Array(array(&keys)));
        let properties =
            BasicProperties { headers: Some(headers.as_table()), ..Default::default() }.to_bytes();
        assert!(properties.len() > 70_000);
        let mut dead = properties.clone();
        for number in 0..100 {
            let queue = format!("{number:0>200}");
            dead = published(&dead, &death(&queue, DeathReason::Expired, None)).properties;
            assert!(dead.len() - properties.len() < MOST_BYTES + 1024, "{number}: {}", dead.len());
            let listed = listed(&dead);
            let at = |at: usize| listed[at].0.trim_start_matches('0').parse().unwrap_or(0);
            assert_eq!((at(0), at(listed.len() - 1)), (number, number + 1 - listed.len()));
        }
        assert!(listed(&dead).len() > 2);
        // One that a client has made up.
        let large = "x".repeat(MOST_BYTES);
        let mut made_up = FieldTableBuf::new();
        for (name, value) in [("queue", text("a")), ("reason", text("expired")), ("own", text(&large))] {
            made_up.push(ShortBytes::cut(name), value);
        }
        let all = FieldTableBuf::array(&[FieldValue::Table(made_up.as_table())]);
        let mut headers = FieldTableBuf::new();
        headers.push(ShortBytes::cut(DEATHS), FieldValue::Array(array(&all)));
        let properties =
            BasicProperties { headers: Some(headers.as_table()), ..Default::default() }.to_bytes();
        let dead = published(&properties, &death("a", DeathReason::Expired, None)).properties;
        assert_eq!(listed(&dead), [("a".to_owned(), "expired".to_owned(), 1)]);
    }

    #[test]
    fn further_routing_keys_stay_unless_another_key_stands_for_them() {
        let keys = FieldTableBuf::array(&[text("x"), text("y")]);
        let mut headers = FieldTableBuf::new();
        headers.push(ShortBytes::cut(FURTHER), FieldValue::Array(array(&keys)));
        headers.push(ShortBytes::cut(DEATHS), text("no list"));
        let properties =
            BasicProperties { headers: Some(headers.as_table()), ..Default::default() }.to_bytes();
        let own = published(&properties, &death("a", DeathReason::QueueLength, None));
        assert_eq!(own.keys, ["k", "x", "y"]);
        assert_eq!(listed(&own.properties), [("a".to_owned(), "maxlen".to_owned(), 1)]);
        let other = published(&properties, &death("a", DeathReason::DeliveryLimit, Some("z")));
        assert_eq!(other.keys, ["z"]);
        let headers = BasicProperties::read(&other.properties).unwrap().headers.unwrap();
        assert_eq!(headers.get(FURTHER), None);
    }
}

use std::sync::Arc;

use proptest::prelude::*;
use sabir_base::crc::crc32c;
use sabir_delivery::subscription::{Attempts, SubscriptionNo};
use sabir_delivery::timer::TimerKey;
use sabir_model::{
    Backoff, DecodeError, DedupLimit, Extent, Facts, FrontendNo, NodeId, Offset, Overflow, Overlay,
    OverlayBody, OverlayPlace, PartitionId, ProducerId, RecordFacts, Sequence, ShardId, TopicConfig, TopicId,
    ValidConfig,
};

use super::*;
use crate::exchange::{
    Argument, ArgumentValue, Arguments, ExchangeKind, ExchangeSpec, HashOn, HashedProperty, KeySyntax,
    NamedBinding, NamedDestination,
};
use crate::level::FormatLevel;

fn encoded(body: &impl Body) -> Vec<u8> {
    let mut out = Vec::new();
    body.encode(&mut out);
    out
}

/// The stored form, that it is read back, and that no part of it is.
fn golden<B: Body + PartialEq + std::fmt::Debug>(body: &B, kind: u16, expected: &[u8]) {
    assert_eq!(B::KIND, kind);
    let stored = encoded(body);
    assert_eq!(stored, expected, "{body:?}");
    assert_eq!(B::decode(&stored).as_ref(), Ok(body));
    for len in 0..stored.len() {
        assert!(B::decode(&stored[..len]).is_err(), "{len} bytes of {body:?}");
    }
    let longer = [expected, &[0]].concat();
    assert!(B::decode(&longer).is_err(), "a byte behind {body:?}");
}

fn plain() -> AppendBody {
    AppendBody {
        targets: Targets::One(PartitionId(300)),
        records: 5,
        max_ts: 1_700_000_000_000,
        stamped: false,
        origin: FrontendNo::NONE,
        producer: None,
        facts: None,
        partial: false,
    }
}

fn facts(records: u32) -> Option<Box<RecordFacts>> {
    let mut facts = RecordFacts::new();
    for record in 0..records {
        let persistent = record > 2;
        facts.push(Facts { size: 300, persistent, ..Facts::default() }).unwrap();
    }
    Some(Box::new(facts))
}

const NOW: [u8; 6] = [0x80, 0xa0, 0xab, 0xfe, 0xf9, 0x62];

#[test]
fn appends() {
    golden(&plain(), 1, &[&[0, 0xac, 2, 5], &NOW[..]].concat());
    let producer = Some(Producer { id: ProducerId(1000), epoch: 3, base_sequence: 200 });
    let idempotent = AppendBody { producer, stamped: true, ..plain() };
    golden(&idempotent, 1, &[&[5, 0xac, 2, 5], &NOW[..], &[0xe8, 7, 3, 0xc8, 1]].concat());
    let epochless = producer.map(|producer| Producer { epoch: Producer::NO_EPOCH, ..producer });
    let epochless = AppendBody { producer: epochless, ..idempotent };
    golden(&epochless, 1, &[&[21, 0xac, 2, 5], &NOW[..], &[0xe8, 7, 0xc8, 1]].concat());
    let targets = Targets::Several(vec![PartitionId(1), PartitionId(2)]);
    let several = AppendBody { targets, origin: FrontendNo(7), ..plain() };
    golden(&several, 1, &[&[10, 2, 1, 2, 5], &NOW[..], &[7]].concat());
    golden(&AppendBody { partial: true, ..plain() }, 1, &[&[64, 0xac, 2, 5], &NOW[..]].concat());
    let facts = AppendBody { facts: facts(5), producer, ..plain() };
    let tail = [1, 2, 3, 0, 0xac, 2, 2, 64, 0xac, 2];
    golden(&facts, 1, &[&[33, 0xac, 2, 5], &NOW[..], &[0xe8, 7, 3, 0xc8, 1], &tail].concat());
}

#[test]
fn appends_refuse_what_they_do_not_know() {
    let mut newer = encoded(&plain());
    newer[0] = 0x80;
    assert_eq!(AppendBody::decode(&newer), Err(DecodeError::MoreMarks("append")));
    let none = AppendBody { records: 0, ..plain() };
    assert_eq!(AppendBody::decode(&encoded(&none)), Err(DecodeError::Field("number of records")));
    let other = AppendBody { facts: facts(4), ..plain() };
    assert_eq!(AppendBody::decode(&encoded(&other)), Err(DecodeError::Field("number of facts")));
}

#[test]
fn references_chunks_and_fragmented_batches() {
    let extent = Extent {
        block: Sequence(9),
        offset: 32,
        len: 70,
        first_record: 1,
        records: 2,
        origin: FrontendNo(3),
        overlay: Overlay::None,
    };
    let source = Some(RecordPlace { partition: PartitionId(300), offset: Offset(5) });
    let reference = ReferenceBody { targets: vec![PartitionId(4)], max_ts: -1, source, extent };
    golden(&reference, 2, &[2, 1, 4, 1, 0xac, 2, 10, 9, 32, 70, 1, 2, 3, 0]);
    let place = OverlayPlace { block: Sequence(8), offset: 64, len: 300 };
    let overlays: [(Overlay, &[u8]); 2] =
        [(Overlay::Payload, &[1]), (Overlay::At(place), &[2, 8, 64, 0xac, 2])];
    for (overlay, tail) in overlays {
        let overlaid = ReferenceBody { extent: Extent { overlay, ..extent }, ..reference.clone() };
        golden(&overlaid, 2, &[&[2, 1, 4, 1, 0xac, 2, 10, 9, 32, 70, 1, 2, 3], tail].concat());
        let first = ReferenceBody { source: None, ..overlaid };
        assert_eq!(ReferenceBody::decode(&encoded(&first)), Err(DecodeError::Field("overlay")));
    }
    golden(&ReferenceBody { source: None, ..reference.clone() }, 2, &[1, 1, 4, 1, 9, 32, 70, 1, 2, 3, 0]);
    let nowhere = Some(RecordPlace { partition: PartitionId(1), offset: Offset(-1) });
    let nowhere = ReferenceBody { source: nowhere, ..reference };
    assert_eq!(ReferenceBody::decode(&encoded(&nowhere)), Err(DecodeError::Field("offset of a record")));
    assert_eq!(ReferenceBody::decode(&[3, 0]), Err(DecodeError::Version(3)));
    golden(&ChunkBody { fragmented: 8, index: 2 }, 3, &[1, 8, 2]);
    golden(&FragmentedDropped { fragmented: 300 }, 5, &[1, 0xac, 2]);
    let fragmented = FragmentedBody { fragmented: 8, chunks: 3, append: plain() };
    golden(&fragmented, 4, &[&[1, 8, 3, 0, 0xac, 2, 5], &NOW[..]].concat());
}

fn default_config() -> ValidConfig {
    ValidConfig::trusted(TopicConfig::default())
}

#[test]
fn the_catalog() {
    let id = TopicId([0x11; 16]);
    let mut config = Vec::new();
    TopicConfig::default().encode(&mut config);
    let created = TopicCreated {
        id,
        namespace: "/".into(),
        name: "t".into(),
        config: default_config(),
        internal: true,
        unlike: false,
        made_by: FrontendNo(2),
        epoch_base: -1,
        shards: vec![ShardId(1), ShardId(3)],
    };
    let expected = |version: u8, marks: u8| {
        [&[version][..], &[0x11; 16], b"\x01/\x01t", &config, &[marks, 2, 1, 2, 1, 3]].concat()
    };
    golden(&created, 10, &expected(2, 1));
    golden(&TopicCreated { internal: false, unlike: true, ..created.clone() }, 10, &expected(2, 2));
    assert_eq!(TopicCreated::decode(&expected(1, 1)), Ok(created), "the first form");
    for (version, marks) in [(1, 2), (2, 4)] {
        assert_eq!(
            TopicCreated::decode(&expected(version, marks)),
            Err(DecodeError::Marks { of: "topic", marks })
        );
    }
    assert_eq!(TopicCreated::decode(&expected(3, 0)), Err(DecodeError::Version(3)));
    golden(&TopicDeleted { id }, 11, &[&[1][..], &[0x11; 16]].concat());
    let configured = TopicConfigured { id, version: Some(300), config: default_config() };
    golden(&configured, 12, &[&[2][..], &[0x11; 16], &[0xac, 2], &config].concat());
    let whatever = TopicConfigured { version: None, ..configured };
    golden(&whatever, 12, &[&[2][..], &[0x11; 16], &[0], &config].concat());
    let first = [&[1][..], &[0x11; 16], &config].concat();
    assert_eq!(TopicConfigured::decode(&first), Ok(whatever), "the first form");
    golden(&FrontendRegistered { name: "mqtt".into() }, 13, b"\x01\x04mqtt");
    golden(&ProducerIdsAllocated { count: 1000 }, 14, &[1, 0xe8, 7]);
    golden(&DataShardsFixed { shards: 3, cluster: id }, 15, &[&[1, 3][..], &[0x11; 16]].concat());
    let extended = TopicExtended { id, from: 2, shards: vec![ShardId(2)] };
    golden(&extended, 16, &[&[1][..], &[0x11; 16], &[2, 1, 2]].concat());
    golden(&FormatLevelRaised { level: FormatLevel::LISTED }, 17, &[1, 2]);
    assert_eq!(FormatLevelRaised::decode(&[2, 2]), Err(DecodeError::Version(2)));
    assert!(FormatLevelRaised::decode(&[1, 6]).is_err(), "a level of a newer version");
    golden(&FormatLevelRaised { level: FormatLevel::FRONT_ENDS }, 17, &[1, 3]);
    golden(&FormatLevelRaised { level: FormatLevel::QUEUES }, 17, &[1, 4]);
    golden(&FormatLevelRaised { level: FormatLevel::RETRIES }, 17, &[1, 5]);
    golden(&Started { node: NodeId(1), clean: false }, 40, &[1, 2, 0]);
}

fn arguments(all: &[(&str, u8, ArgumentValue)]) -> Arguments {
    let argument = |(name, tag, value): &(&str, u8, ArgumentValue)| Argument {
        name: name.as_bytes().into(),
        tag: *tag,
        value: value.clone(),
    };
    Arguments::new(all.iter().map(argument).collect())
}

#[test]
fn exchanges_and_bindings() {
    let spec = ExchangeSpec::of(ExchangeKind::Direct);
    let declared = |spec: ExchangeSpec| {
        let (namespace, name) = ("/".into(), "e".into());
        ExchangeDeclared { namespace, name, made_by: FrontendNo(7), spec }
    };
    golden(&declared(spec.clone()), 70, b"\x02\x01/\x01e\x07\x01\0\x01\0");
    let first = ExchangeDeclared { made_by: FrontendNo::NONE, ..declared(spec.clone()) };
    assert_eq!(ExchangeDeclared::decode(b"\x01\x01/\x01e\x01\0\x01\0"), Ok(first));
    assert_eq!(ExchangeDeclared::decode(b"\x03"), Err(DecodeError::Version(3)));
    let kept = arguments(&[
        ("h", b'x', ArgumentValue::Composite(b"\x01"[..].into())),
        ("a", b'V', ArgumentValue::Null),
        ("b", b't', ArgumentValue::Bool(true)),
        ("c", b'l', ArgumentValue::Integer(-150)),
        ("d", b'd', ArgumentValue::Float(1.5)),
        ("e", b'D', ArgumentValue::Decimal { scale: 2, value: 300 }),
        ("f", b'S', ArgumentValue::Text(b"text"[..].into())),
        ("g", b'T', ArgumentValue::Timestamp(7)),
    ]);
    let all = ExchangeSpec {
        kind: ExchangeKind::ConsistentHash(HashOn::Header(b"id"[..].into())),
        durable: false,
        auto_delete: true,
        internal: true,
        delayed: true,
        alternate: Some("alt".into()),
        kept,
    };
    let values = b"\x08\x01aV\0\x01bt\x01\x01\x01cl\x02\xab\x02\x01dd\x03\0\0\0\0\0\0\xf8\x3f\
        \x01eD\x04\x02\xd8\x04\x01fS\x05\x04text\x01gT\x06\x0e\x01hx\x07\x01\x01";
    golden(&declared(all), 70, &[b"\x02\x01/\x01e\x07\x01\x04\x01\x02id\x1e\x03alt", &values[..]].concat());
    for (kind, stored) in [
        (ExchangeKind::Fanout, &[1][..]),
        (ExchangeKind::Topic, &[2]),
        (ExchangeKind::Headers, &[3]),
        (ExchangeKind::ConsistentHash(HashOn::Key), &[4, 0]),
        (ExchangeKind::ConsistentHash(HashOn::Property(HashedProperty::CorrelationId)), &[4, 2, 0]),
        (ExchangeKind::ConsistentHash(HashOn::Property(HashedProperty::MessageId)), &[4, 2, 1]),
        (ExchangeKind::ConsistentHash(HashOn::Property(HashedProperty::Timestamp)), &[4, 2, 2]),
    ] {
        let stored = [b"\x02\x01/\x01e\x07\x01", stored, &[1, 0]].concat();
        golden(&declared(ExchangeSpec { kind, ..spec.clone() }), 70, &stored);
    }
    let deleted = ExchangeDeleted { namespace: "/".into(), name: "e".into(), if_unused: true };
    golden(&deleted, 71, b"\x01\x01/\x01e\x01");
    let queue = NamedBinding::keyed("e", NamedDestination::Queue("q".into()), b"k");
    golden(&ExchangeBound { namespace: "/".into(), binding: queue }, 72, b"\x01\x01/\x01e\0\x01q\x01k\0\0");
    let exchange = NamedBinding {
        syntax: KeySyntax::Slashed,
        arguments: arguments(&[("x", b'I', ArgumentValue::Integer(1))]),
        ..NamedBinding::keyed("e", NamedDestination::Exchange("f".into()), b"")
    };
    let stored = b"\x01\x01/\x01e\x01\x01f\0\x01\x01\x01xI\x02\x02";
    golden(&ExchangeUnbound { namespace: "/".into(), binding: exchange }, 73, stored);
    assert!(ExchangeDeclared::decode(b"\x01\x01/\x01e\x01\0\x20\0").is_err(), "a mark of a newer version");
    assert_eq!(ExchangeDeclared::decode(b"\x01\x01/\x01e\x02\0\x01\0"), Err(DecodeError::Version(2)));
}

#[test]
fn partitions() {
    let topic = TopicId([0x22; 16]);
    let settings = PartitionSettings { version: 4, retention_ms: 60, retention_bytes: -1, queue: None };
    let partitions = vec![(0, PartitionId(7)), (2, PartitionId(300))];
    let created = PartitionsCreated { topic, epoch_base: 0, settings: settings.clone(), partitions };
    let expected = [&[2][..], &[0x22; 16], &[0, 1, 4, 120, 1, 2, 0, 7, 2, 0xac, 2]].concat();
    golden(&created, 20, &expected);
    let first = [&[1][..], &[0x22; 16], &[0, 4, 120, 1, 2, 0, 7, 2, 0xac, 2]].concat();
    assert_eq!(PartitionsCreated::decode(&first), Ok(created), "the first form");
    let queue = QueueSettings {
        max_length: Some(5),
        max_length_bytes: None,
        overflow: Overflow::Reject,
        dead_letters: true,
        max_priority: None,
        delays: false,
        message_ttl_ms: None,
        delivery_limit: None,
        retry: None,
        dedup: None,
    };
    let of_a_queue = PartitionSettings { retention_ms: -1, queue: Some(queue.clone()), ..settings.clone() };
    let configured = PartitionsConfigured { settings: of_a_queue.clone(), partitions: vec![PartitionId(7)] };
    golden(&configured, 22, &[2, 2, 4, 1, 1, 6, 0, 5, 1, 7]);
    let queue = QueueSettings { max_length: None, dead_letters: false, max_priority: Some(9), ..queue };
    let settings_of = PartitionSettings { queue: Some(queue.clone()), ..of_a_queue.clone() };
    let configured = PartitionsConfigured { settings: settings_of, partitions: vec![PartitionId(7)] };
    golden(&configured, 22, &[2, 2, 4, 1, 1, 0, 0, 9, 9, 1, 7]);
    let queue = QueueSettings { max_priority: None, delays: true, ..queue };
    let settings_of = PartitionSettings { queue: Some(queue.clone()), ..of_a_queue.clone() };
    let configured = PartitionsConfigured { settings: settings_of, partitions: vec![PartitionId(7)] };
    golden(&configured, 22, &[2, 2, 4, 1, 1, 0, 0, 17, 1, 7]);
    let queue = QueueSettings { max_priority: Some(9), delays: false, message_ttl_ms: Some(300), ..queue };
    let settings_of = PartitionSettings { queue: Some(queue.clone()), ..of_a_queue.clone() };
    let configured = PartitionsConfigured { settings: settings_of, partitions: vec![PartitionId(7)] };
    golden(&configured, 22, &[2, 2, 4, 1, 1, 0, 0, 41, 9, 0xac, 2, 1, 7]);
    let queue = QueueSettings { max_priority: None, delivery_limit: Some(3), ..queue };
    let settings_of = PartitionSettings { queue: Some(queue.clone()), ..of_a_queue.clone() };
    let configured = PartitionsConfigured { settings: settings_of, partitions: vec![PartitionId(7)] };
    golden(&configured, 22, &[2, 2, 4, 1, 1, 0, 0, 97, 0xac, 2, 3, 1, 7]);
    let queue = QueueSettings { retry: Some(Arc::new(Backoff::Steps([300].into()))), ..queue };
    let settings_of = PartitionSettings { queue: Some(queue.clone()), ..of_a_queue.clone() };
    let configured = PartitionsConfigured { settings: settings_of, partitions: vec![PartitionId(7)] };
    golden(&configured, 22, &[2, 2, 4, 1, 1, 0, 0, 0xe1, 1, 0xac, 2, 3, 0, 1, 0xac, 2, 1, 7]);
    let dedup = Some(Box::new(DedupLimit { window_ms: 300, most: 5 }));
    let queue = QueueSettings { dedup, ..queue };
    let settings_of = PartitionSettings { queue: Some(queue.clone()), ..of_a_queue.clone() };
    let configured = PartitionsConfigured { settings: settings_of, partitions: vec![PartitionId(7)] };
    golden(&configured, 22, &[2, 2, 4, 1, 1, 0, 0, 0xe1, 3, 0xac, 2, 3, 0, 1, 0xac, 2, 0xac, 2, 5, 1, 7]);
    let queue = QueueSettings { retry: None, delivery_limit: None, message_ttl_ms: None, ..queue };
    let settings_of = PartitionSettings { queue: Some(queue.clone()), ..of_a_queue.clone() };
    let configured = PartitionsConfigured { settings: settings_of, partitions: vec![PartitionId(7)] };
    golden(&configured, 22, &[2, 2, 4, 1, 1, 0, 0, 0x81, 2, 0xac, 2, 5, 1, 7]);
    golden(&PartitionsDeleted { partitions: vec![PartitionId(7)] }, 21, &[1, 1, 7]);
    let configured = PartitionsConfigured { settings, partitions: vec![PartitionId(7)] };
    golden(&configured, 22, &[2, 1, 4, 120, 1, 1, 7]);
    assert_eq!(PartitionsConfigured::decode(&[1, 4, 120, 1, 1, 7]), Ok(configured), "the first form");
    let moved = LogStartsMoved { moves: vec![(PartitionId(7), Offset(5)), (PartitionId(8), Offset(-1))] };
    golden(&moved, 23, &[1, 2, 7, 10, 8, 1]);
    let expired = ProducersExpired { idle_since: 30, producers: vec![(PartitionId(7), ProducerId(9))] };
    golden(&expired, 24, &[1, 60, 1, 7, 18]);
}

#[test]
fn timers_that_fired() {
    let place = RecordPlace { partition: PartitionId(7), offset: Offset(5) };
    let extent = Extent {
        block: Sequence(9),
        offset: 300,
        len: 80,
        first_record: 2,
        records: 1,
        origin: FrontendNo(3),
        overlay: Overlay::None,
    };
    let targets = vec![PartitionId(8), PartitionId(300)];
    let published = Some(ReferenceBody { targets, max_ts: 30, source: Some(place), extent });
    let sent = FiredMessage { place, published, facts: facts(1), put_off_ms: None, fired: 0, again_ms: None };
    let dropped =
        FiredMessage { place, published: None, facts: None, put_off_ms: None, fired: 0, again_ms: None };
    let put_off = FiredMessage { put_off_ms: Some(50), ..dropped.clone() };
    let through = TimerKey { due_ms: 30, number: 4 };
    let again = FiredMessage { fired: 300, again_ms: Some(50), ..dropped.clone() };
    let put_off_again = FiredMessage { put_off_ms: Some(50), fired: 3, ..dropped.clone() };
    golden(
        &TimersFired { through, below: 6, messages: vec![again, put_off_again], due: Vec::new() },
        61,
        &[1, 60, 4, 6, 2, 24, 7, 10, 0xac, 2, 100, 12, 7, 10, 100, 3],
    );
    let fired = TimersFired { through, below: 6, messages: vec![sent, dropped, put_off], due: Vec::new() };
    let mut facts_of_one = Vec::new();
    facts(1).unwrap().encode(&mut facts_of_one);
    let sent = [&[3, 7, 10, 2, 8, 0xac, 2, 60, 9, 0xac, 2, 80, 2, 1, 3, 0][..], &facts_of_one].concat();
    golden(&fired, 61, &[&[1, 60, 4, 6, 3][..], &sent, &[0, 7, 10], &[4, 7, 10, 100]].concat());
    let attempts = Attempts { acquired: 3, returned: 2 };
    let due = vec![DueMessage { subscription: SubscriptionNo(300), offset: 5, resets: 1, attempts }];
    golden(
        &TimersFired { messages: Vec::new(), due, ..fired },
        61,
        &[2, 60, 4, 6, 0, 1, 0xac, 2, 5, 1, 3, 2],
    );
    assert!(TimersFired::decode(&[3, 60, 4, 6, 0, 0]).is_err(), "a newer version");
    assert!(TimersFired::decode(&[1, 60, 4, 6, 1, 32, 7, 10]).is_err(), "a mark of a newer version");
    assert!(
        TimersFired::decode(&[1, 60, 4, 6, 1, 1, 7, 10, 1, 8, 60, 9, 0, 80, 2, 2, 3, 0]).is_err(),
        "two records"
    );
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
        let _ = AppendBody::decode(&bytes);
        let _ = ReferenceBody::decode(&bytes);
        let _ = TimersFired::decode(&bytes);
        let _ = FragmentedBody::decode(&bytes);
        let _ = TopicCreated::decode(&bytes);
        let _ = PartitionsCreated::decode(&bytes);
        let _ = LogStartsMoved::decode(&bytes);
        let _ = ProducersExpired::decode(&bytes);
        let _ = FrontendBody::decode(&bytes);
        let _ = ExchangeDeclared::decode(&bytes);
        let _ = ExchangeBound::decode(&bytes);
        let _ = RecordFacts::decode(&mut bytes.as_slice());
        let _ = OverlayBody::decode(&[&bytes[..], &crc32c(&bytes).to_le_bytes()].concat());
    }

    #[test]
    fn any_append_comes_back(
        ids in prop::collection::vec(any::<u64>(), 0..4),
        records in 1u32..,
        max_ts in any::<i64>(),
        stamped in any::<bool>(),
        origin in any::<u16>(),
        producer in prop::option::of((0i64.., 0i16.., 0i32..)),
        partial in any::<bool>(),
    ) {
        let targets = match ids.as_slice() {
            [one] => Targets::One(PartitionId(*one)),
            more => Targets::Several(more.iter().copied().map(PartitionId).collect()),
        };
        let producer = producer.map(|(id, epoch, base_sequence)| Producer { id: ProducerId(id), epoch, base_sequence });
        let facts = if stamped { facts(records.min(9)) } else { None };
        let records = facts.as_ref().map_or(records, |facts| facts.records() as u32);
        let origin = FrontendNo(origin);
        let body = AppendBody { targets, records, max_ts, stamped, origin, producer, facts, partial };
        prop_assert_eq!(AppendBody::decode(&encoded(&body)), Ok(body));
    }
}

#[test]
fn entries_of_front_ends() {
    let number = FrontendNo(300);
    let plain = FrontendBody { number, name: None, seed: None, batches: Vec::new(), command: b"SET k v" };
    let named = FrontendBody { name: Some("mqtt"), ..plain.clone() };
    let seeded = FrontendBody { seed: Some(0x0102), command: b"", ..plain.clone() };
    let append = AppendBody { origin: number, ..self::plain() };
    let batches = vec![OfferedBatch { len: 200, append: append.clone() }];
    let with_batch = FrontendBody { batches, ..plain.clone() };
    let cases: [(FrontendBody<'_>, Vec<u8>); 4] = [
        (plain, [&[1, 0, 0xac, 2, 0][..], b"SET k v"].concat()),
        (named, [&[1, 2, 0xac, 2, 4][..], b"mqtt", &[0], b"SET k v"].concat()),
        (seeded, [&[1, 1, 0xac, 2][..], &[2, 1, 0, 0, 0, 0, 0, 0], &[0]].concat()),
        (with_batch, [&[1, 0, 0xac, 2, 1, 0xc8, 1][..], &encoded(&append), b"SET k v"].concat()),
    ];
    for (body, expected) in cases {
        let mut stored = Vec::new();
        body.encode(&mut stored);
        assert_eq!(stored, expected, "{body:?}");
        assert_eq!(FrontendBody::decode(&stored), Ok(body.clone()));
        for len in 0..stored.len() - body.command.len() {
            assert!(FrontendBody::decode(&stored[..len]).is_err(), "{len} bytes of {body:?}");
        }
    }
    assert_eq!(FrontendBody::KIND, 50);
    assert_eq!(FrontendBody::decode(&[2, 0, 1, 0]), Err(DecodeError::Version(2)));
    let marks = DecodeError::Marks { of: "entry of a front end", marks: 4 };
    assert_eq!(FrontendBody::decode(&[1, 4, 1, 0]), Err(marks));
}

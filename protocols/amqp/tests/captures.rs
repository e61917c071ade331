//! Whole conversations as real clients and a real broker had them: pika 1.4.4, py-amqp 5.4.2, amqplib 2.2.0 and RabbitMQ's Java
//! client 5.25.0 against a recorder, RabbitMQ 3.10.8 against pika. Every byte is accounted for.
#![allow(clippy::unwrap_used, reason = "a failure is what a test is for")]

mod rig;

use bytes::{Bytes, BytesMut};
use rig::{Client, unhex};
use sabir_amqp::session::{ChannelRequest, ClientEvent};
use sabir_amqp::wire::*;

const PIKA: &[u8] = include_bytes!("captures/pika.bin");
const PY_AMQP: &[u8] = include_bytes!("captures/pyamqp.bin");
const AMQPLIB: &[u8] = include_bytes!("captures/amqplib.bin");
const JAVA: &[u8] = include_bytes!("captures/java.bin");
const RABBITMQ: &[u8] = include_bytes!("captures/rabbitmq-3.10.8.bin");

fn clients() -> [(&'static str, &'static [u8]); 4] {
    [("pika", PIKA), ("py-amqp", PY_AMQP), ("amqplib", AMQPLIB), ("java", JAVA)]
}

/// All frames behind the protocol header.
fn each_frame(capture: &'static [u8], mut look: impl FnMut(&Frame<'_>)) -> usize {
    let bytes = Bytes::from_static(capture.strip_prefix(b"AMQP\0\0\x09\x01").unwrap_or(capture));
    let (mut at, mut count) = (0, 0);
    while let Some(frame) = Frame::next(&bytes, &mut at, 131_072).unwrap() {
        look(&frame);
        count += 1;
    }
    assert_eq!(at, bytes.len());
    count
}

fn rebuilt(table: FieldTable<'_>) -> FieldTableBuf {
    let mut again = FieldTableBuf::new();
    for (name, value) in table {
        match value {
            FieldValue::Table(inner) => again.push(name, FieldValue::Table(rebuilt(inner).as_table())),
            FieldValue::Array(inner) => {
                let values: Vec<_> = inner.iter().collect();
                let bytes = FieldTableBuf::array(&values);
                again.push(name, FieldValue::Array(FieldArray::from_values(&bytes).unwrap()))
            }
            value => again.push(name, value),
        };
    }
    again
}

/// py-amqp writes 64-bit numbers with `L`, which means the same as `l`.
fn with_l(table: FieldTable<'_>) -> Vec<u8> {
    table.as_bytes().iter().map(|byte| if *byte == b'L' { b'l' } else { *byte }).collect()
}

#[test]
fn what_clients_and_a_broker_said_is_written_byte_for_byte_as_it_was_read() {
    let mut methods = std::collections::BTreeSet::new();
    for (name, capture) in clients().into_iter().chain([("rabbitmq", RABBITMQ)]) {
        let frames = each_frame(capture, |frame| match frame.kind {
            FrameKind::Method => {
                let method = Method::read(frame.payload).unwrap();
                let mut out = BytesMut::new();
                method.write(&mut ArgumentWriter::new(&mut out));
                assert_eq!(out, frame.payload, "{name}: {method:?}");
                methods.insert(method.name());
            }
            FrameKind::Header => {
                let header = ContentHeader::read(frame).unwrap();
                assert_eq!(&header.properties().to_bytes(), header.raw_properties(), "{name}");
                let headers = header.properties().headers.unwrap_or_default();
                assert_eq!(with_l(rebuilt(headers).as_table()), with_l(headers), "{name}");
            }
            FrameKind::Body | FrameKind::Heartbeat => {}
        });
        assert!(frames > 15, "{name}: {frames}");
    }
    assert!(methods.len() >= 50, "{} of {}: {methods:?}", methods.len(), METHODS.len());
}

#[test]
fn every_table_that_clients_sent_is_built_again_value_by_value() {
    for (name, capture) in clients() {
        each_frame(capture, |frame| {
            let table = match (frame.kind == FrameKind::Method).then(|| Method::read(frame.payload).unwrap())
            {
                Some(Method::ConnectionStartOk(m)) => m.client_properties,
                Some(Method::QueueDeclare(m)) => m.arguments,
                Some(Method::QueueBind(m)) => m.arguments,
                Some(Method::ExchangeDeclare(m)) => m.arguments,
                Some(Method::BasicConsume(m)) => m.arguments,
                _ => return,
            };
            assert_eq!(rebuilt(table).as_table(), table, "{name}");
        });
    }
}

/// What a capture amounts to, an event a word.
fn story(capture: &[u8]) -> String {
    let mut client = Client::new();
    let mut words = Vec::new();
    client.feed(capture, &mut |event| words.push(rig::word(event)));
    assert!(client.machine.has_ended(), "it took its leave");
    assert_eq!((client.machine.channels(), client.machine.unfinished_bytes()), (0, 0));
    words.join(" ")
}

#[test]
fn conversations_amount_to_the_requests_that_the_clients_were_asked_to_make() {
    assert_eq!(
        story(PIKA),
        "authenticate tuned open-vhost 1:open 1:DeclareExchange 1:DeclareExchange 1:BindExchange 1:DeclareQueue 1:BindQueue \
         1:Qos 1:SelectConfirms 1:publish(12) 1:publish(0) 1:publish(17000) 1:Consume 1:Ack 1:Nack 1:Reject 1:Cancel 1:Get \
         1:Recover 2:open 2:SelectTransactions 2:publish(1) 2:Commit 2:Rollback 2:closing update-secret 1:UnbindQueue \
         1:UnbindExchange 1:PurgeQueue 1:DeleteQueue 1:DeleteExchange 1:closing closing"
    );
    assert_eq!(
        story(PY_AMQP),
        "authenticate tuned open-vhost 1:open 1:DeclareExchange 1:DeclareQueue 1:BindQueue 1:Qos 1:SelectConfirms \
         1:publish(33) 1:Consume 1:Ack 1:Ack 1:Ack 1:Cancel 1:Flow 1:closing closing"
    );
    assert_eq!(
        story(AMQPLIB),
        "authenticate tuned open-vhost 1:open 1:SelectConfirms 1:DeclareExchange 1:DeclareQueue 1:BindQueue 1:BindExchange \
         1:Qos 1:publish(4) 1:publish(0) 1:Consume 1:Ack 1:Nack 1:Reject 1:Cancel 1:Get 1:Recover 1:Ack 1:Nack \
         1:DeclareQueue 1:DeclareExchange 1:UnbindExchange 1:PurgeQueue 1:DeleteQueue 1:DeleteExchange 1:closing closing"
    );
    assert_eq!(
        story(JAVA),
        "authenticate tuned open-vhost 1:open 1:DeclareExchange 1:DeclareExchange 1:DeclareQueue 1:DeclareQueue 1:BindQueue \
         1:BindExchange 1:Qos 1:SelectConfirms 1:publish(3) 1:publish(9000) 1:Consume 1:Ack 1:Nack 1:Reject 1:Cancel 1:Get \
         1:Recover 5:open 5:SelectTransactions 5:publish(2) 5:Commit 5:Rollback 5:closing 1:UnbindQueue 1:UnbindExchange \
         1:PurgeQueue 1:DeleteQueue 1:DeleteExchange 1:closing closing"
    );
}

#[test]
fn it_makes_no_difference_how_the_bytes_are_cut() {
    for (name, capture) in clients() {
        let whole = story(capture);
        for size in [1, 7, 100, 4096] {
            let mut client = Client::new();
            let mut words = Vec::new();
            capture
                .chunks(size)
                .for_each(|part| client.feed(part, &mut |event| words.push(rig::word(event))));
            assert_eq!(words.join(" "), whole, "{name} in pieces of {size}");
        }
    }
}

/// The first declaration of a queue in a capture, and the first message.
fn first(capture: &[u8], look: &mut dyn FnMut(&ClientEvent<'_>)) {
    let (mut declared, mut published) = (false, false);
    Client::new().feed(capture, &mut |event| match event {
        ClientEvent::Request(_, ChannelRequest::DeclareQueue(_)) if !declared => {
            declared = true;
            look(event);
        }
        ClientEvent::Publish(..) if !published => {
            published = true;
            look(event);
        }
        _ => {}
    });
    assert!(declared && published);
}

#[test]
fn pikas_arguments_and_properties_arrive_in_their_order_and_with_their_types() {
    first(PIKA, &mut |event| match event {
        ClientEvent::Request(_, ChannelRequest::DeclareQueue(declare)) => {
            assert_eq!((&*declare.queue, declare.durable, declare.passive), ("q", true, false));
            let names: Vec<_> = declare
                .arguments
                .iter()
                .map(|(name, _)| String::from_utf8_lossy(&name).into_owned())
                .collect();
            let want = "x-queue-type x-message-ttl x-max-length x-single-active-consumer list d t b neg";
            assert_eq!(names.join(" "), want);
            let get = |name| declare.arguments.get(name).unwrap();
            assert_eq!(get("x-queue-type"), FieldValue::LongStr(b"quorum"));
            assert_eq!(get("x-message-ttl"), FieldValue::I32(60_000));
            assert_eq!(get("x-max-length"), FieldValue::I64(3_000_000_000));
            assert_eq!(get("x-single-active-consumer"), FieldValue::Bool(true));
            assert_eq!(get("d"), FieldValue::Decimal { scale: 2, value: 314 });
            assert_eq!(get("neg"), FieldValue::I32(-5));
            let FieldValue::Array(list) = get("list") else { panic!("{:?}", get("list")) };
            let list: Vec<_> = list.iter().collect();
            assert_eq!(list[..3], [FieldValue::I32(1), FieldValue::LongStr(b"two"), FieldValue::Void]);
        }
        ClientEvent::Publish(_, content) => {
            let method = content.method();
            assert_eq!(
                (&*method.exchange, &*method.routing_key, method.mandatory),
                (&b"ex"[..], &b"a.b"[..], true)
            );
            let properties = content.header.properties();
            let short =
                |value: Option<ShortBytes<'_>>| value.map(|v| String::from_utf8_lossy(&v).into_owned());
            assert_eq!(short(properties.reply_to).as_deref(), Some("amq.rabbitmq.reply-to"));
            assert_eq!(short(properties.expiration).as_deref(), Some("1000"));
            assert_eq!((properties.delivery_mode, properties.priority), (Some(2), Some(5)));
            assert_eq!(
                (properties.timestamp, short(properties.cluster_id).as_deref()),
                (Some(1_700_000_000), Some("cl"))
            );
            assert_eq!(properties.headers.unwrap().get("é"), Some(FieldValue::LongStr("ü".as_bytes())));
            assert_eq!(&content.body.to_bytes()[..], b"hello \xff body");
        }
        _ => {}
    });
}

#[test]
fn javas_numbers_keep_their_types() {
    first(JAVA, &mut |event| {
        let ClientEvent::Request(_, ChannelRequest::DeclareQueue(declare)) = event else { return };
        let get = |name| declare.arguments.get(name).unwrap();
        assert_eq!(get("x-max-length"), FieldValue::I32(1000));
        assert_eq!(get("x-max-length-bytes"), FieldValue::I64(5_000_000_000));
        assert_eq!((get("byte"), get("short")), (FieldValue::I8(-1), FieldValue::I16(-2)));
        assert_eq!((get("float"), get("double")), (FieldValue::F32(1.5), FieldValue::F64(2.5)));
        assert_eq!((get("date"), get("null")), (FieldValue::Timestamp(1_700_000_000), FieldValue::Void));
        assert_eq!(get("bytes"), FieldValue::Binary(&[0, 1, 255]));
        assert_eq!(get("dec"), FieldValue::Decimal { scale: 2, value: 1234 });
    });
}

/// Bytes worked out by hand from the specification.
#[test]
fn frames_are_as_the_specification_has_them() {
    let frame = |channel, method: Method<'_>| {
        let mut out = FrameBuffer::new();
        out.method(channel, &method);
        out.take_all()
    };
    let tune =
        Method::ConnectionTune(ConnectionTune { channel_max: 2047, frame_max: 131_072, heartbeat: 60 });
    assert_eq!(frame(0, tune), unhex("01 0000 0000000c 000a 001e 07ff 00020000 003c ce"));
    let ack = Method::BasicAck(BasicAck { delivery_tag: 5, multiple: true });
    assert_eq!(frame(1, ack), unhex("01 0001 0000000d 003c 0050 0000000000000005 01 ce"));
    // Five bits share an octet, the first in its lowest bit.
    let queue = ShortStr::cut("q");
    let declare = QueueDeclare { queue, durable: true, auto_delete: true, ..QueueDeclare::default() };
    let want = unhex("01 0002 0000000d 0032 000a 0000 01 71 0a 00000000 ce");
    assert_eq!(frame(2, Method::QueueDeclare(declare)), want);
    let mut beat = FrameBuffer::new();
    beat.heartbeat();
    assert_eq!(beat.take_all(), unhex("08 0000 00000000 ce"));
    // A content: flags of content-type and delivery-mode.
    let properties = BasicProperties {
        content_type: Some(ShortBytes::cut("t")),
        delivery_mode: Some(2),
        ..Default::default()
    };
    let mut out = FrameBuffer::new();
    let get_ok = BasicGetOk { delivery_tag: 1, redelivered: true, message_count: 9, ..BasicGetOk::default() };
    out.content(1, &get_ok, &properties.to_bytes(), &ContentBody::of(Bytes::from_static(b"abc")), 4096)
        .unwrap();
    let method = "01 0001 00000013 003c 0047 0000000000000001 01 00 00 00000009 ce";
    let header = "02 0001 00000011 003c 0000 0000000000000003 9000 01 74 02 ce";
    assert_eq!(out.take_all(), unhex(&format!("{method} {header} 03 0001 00000003 616263 ce")));
}

/// The letters of RabbitMQ's table of types, `L` among them, which it reads as `l`.
#[test]
fn every_type_of_field_is_read_by_its_letter() {
    let bytes = unhex(
        "0161 74 01  0161 62 ff  0161 42 ff  0161 73 fffe  0161 75 fffe  0161 49 fffffffd  0161 69 fffffffd
         0161 6c fffffffffffffffc  0161 4c fffffffffffffffc  0161 66 3fc00000  0161 64 4004000000000000
         0161 44 02 0000013a  0161 53 00000002 c3a9  0161 54 000000006553f100  0161 78 00000001 00
         0161 41 00000003 56 74 00  0161 46 00000003 0162 56  0161 56",
    );
    let values: Vec<_> = FieldTable::from_bytes(&bytes).unwrap().iter().map(|(_, value)| value).collect();
    let array = FieldArray::from_values(&[0x56, 0x74, 0]).unwrap();
    let table = FieldTable::from_bytes(b"\x01bV").unwrap();
    let want = [
        FieldValue::Bool(true),
        FieldValue::I8(-1),
        FieldValue::U8(255),
        FieldValue::I16(-2),
        FieldValue::U16(65534),
        FieldValue::I32(-3),
        FieldValue::U32(4_294_967_293),
        FieldValue::I64(-4),
        FieldValue::I64(-4),
        FieldValue::F32(1.5),
        FieldValue::F64(2.5),
        FieldValue::Decimal { scale: 2, value: 314 },
        FieldValue::LongStr("é".as_bytes()),
        FieldValue::Timestamp(1_700_000_000),
        FieldValue::Binary(&[0]),
        FieldValue::Array(array),
        FieldValue::Table(table),
        FieldValue::Void,
    ];
    assert_eq!(values, want);
}

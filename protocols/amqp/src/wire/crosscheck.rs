//! Every method and all properties, checked against the `amq-protocol` crate, an independent reading of the same specification.

use amq_protocol::frame::{AMQPFrame, WriteContext, gen_frame, parse_frame};
use bytes::{Bytes, BytesMut};

use sabir_base::testing::Bits;

use super::testing::{Pools, Source, properties};
use super::*;

const SEEDS: u64 = 200;

/// Theirs reads the frame that ours wrote, and writes the same bytes.
fn check_theirs(bytes: &[u8]) -> AMQPFrame {
    let (left, frame) = parse_frame(bytes).unwrap_or_else(|e| panic!("{e}: {bytes:?}"));
    assert!(left.is_empty());
    let written = gen_frame(&frame)(WriteContext::from(Vec::new())).expect("written");
    assert_eq!(written.into_inner().0, bytes, "{frame:?}");
    frame
}

fn read_frame(bytes: &Bytes) -> Frame<'_> {
    let mut at = 0;
    let frame = Frame::next(bytes, &mut at, u32::MAX).expect("a frame").expect("whole");
    assert_eq!(at, bytes.len());
    frame
}

/// Theirs does not keep what is reserved, nor what RabbitMQ does not implement.
fn without_reserved(method: Method<'_>) -> Method<'_> {
    match method {
        Method::ConnectionOpen(m) => {
            Method::ConnectionOpen(ConnectionOpen { virtual_host: m.virtual_host, ..Default::default() })
        }
        Method::ConnectionOpenOk(_) => Method::ConnectionOpenOk(ConnectionOpenOk::default()),
        Method::ChannelOpen(_) => Method::ChannelOpen(ChannelOpen::default()),
        Method::ChannelOpenOk(_) => Method::ChannelOpenOk(ChannelOpenOk::default()),
        Method::AccessRequestOk(_) => Method::AccessRequestOk(AccessRequestOk { ticket: 1 }),
        Method::BasicQos(m) => Method::BasicQos(BasicQos { prefetch_size: 0, ..m }),
        Method::BasicGetEmpty(_) => Method::BasicGetEmpty(BasicGetEmpty::default()),
        Method::ExchangeDeclare(m) => Method::ExchangeDeclare(ExchangeDeclare { ticket: 0, ..m }),
        Method::ExchangeDelete(m) => Method::ExchangeDelete(ExchangeDelete { ticket: 0, ..m }),
        Method::ExchangeBind(m) => Method::ExchangeBind(ExchangeBind { ticket: 0, ..m }),
        Method::ExchangeUnbind(m) => Method::ExchangeUnbind(ExchangeUnbind { ticket: 0, ..m }),
        Method::QueueDeclare(m) => Method::QueueDeclare(QueueDeclare { ticket: 0, ..m }),
        Method::QueueBind(m) => Method::QueueBind(QueueBind { ticket: 0, ..m }),
        Method::QueuePurge(m) => Method::QueuePurge(QueuePurge { ticket: 0, ..m }),
        Method::QueueDelete(m) => Method::QueueDelete(QueueDelete { ticket: 0, ..m }),
        Method::QueueUnbind(m) => Method::QueueUnbind(QueueUnbind { ticket: 0, ..m }),
        Method::BasicConsume(m) => Method::BasicConsume(BasicConsume { ticket: 0, ..m }),
        Method::BasicPublish(m) => Method::BasicPublish(BasicPublish { ticket: 0, ..m }),
        Method::BasicGet(m) => Method::BasicGet(BasicGet { ticket: 0, ..m }),
        other => other,
    }
}

/// No prefix of a method is one, and nothing may follow it.
fn check_cut(payload: &[u8]) {
    for len in 0..payload.len() {
        let error = Method::read(&payload[..len]).expect_err("cut");
        assert!(error.code.closes_connection(), "{error:?}");
    }
    let longer = [payload, &[0]].concat();
    assert_eq!(Method::read(&longer).expect_err("longer").code, ReplyCode::FrameError);
}

/// A damaged method is an error or another method, which is read again as it is written.
fn check_damaged(payload: &[u8], seed: u64) {
    let mut g = Bits(seed ^ 0x5ab1);
    for _ in 0..20 {
        let mut damaged = payload.to_vec();
        let at = g.below(damaged.len() as u64) as usize;
        damaged[at] = [0, 0x7f, 0x80, 0xff, g.next() as u8][g.below(5) as usize];
        let Ok(method) = Method::read(&damaged) else { continue };
        let mut out = BytesMut::new();
        method.write(&mut ArgumentWriter::new(&mut out));
        assert_eq!(Method::read(&out), Ok(method));
    }
}

#[test]
fn every_method_is_what_another_implementation_reads_and_writes() {
    for (number, known) in METHODS.iter().enumerate() {
        for seed in 0..SEEDS {
            let pools = Pools::new(seed);
            let method = Method::sample(number, &mut Source::new(seed + 1, &pools));
            assert_eq!((method.id(), method.name()), (known.id, known.name));
            let frame_of = |method: &Method<'_>| {
                let mut out = FrameBuffer::new();
                out.method(seed as u16, method);
                out.take_all()
            };
            check_theirs(&frame_of(&without_reserved(method)));
            let bytes = frame_of(&method);
            let frame = read_frame(&bytes);
            assert_eq!((frame.kind, frame.channel), (FrameKind::Method, seed as u16));
            assert_eq!(Method::read(frame.payload), Ok(method));
            if seed < 10 {
                check_cut(frame.payload);
                check_damaged(frame.payload, seed);
            }
        }
    }
}

#[test]
fn properties_are_what_another_implementation_reads_and_writes() {
    for seed in 0..20 * SEEDS {
        let pools = Pools::new(seed / 8);
        let sample = properties(&mut Source::new(seed, &pools));
        let raw = sample.to_bytes();
        assert_eq!(BasicProperties::read(&raw), Ok(sample));
        let mut out = FrameBuffer::new();
        let body = ContentBody::of(Bytes::from_static(b"body"));
        let deliver = BasicDeliver { delivery_tag: seed, ..BasicDeliver::default() };
        out.content(3, &deliver, &raw, &body, u32::MAX).expect("it fits");
        let bytes = out.take_all();
        let mut at = 0;
        for kind in [FrameKind::Method, FrameKind::Header, FrameKind::Body] {
            let from = at;
            let frame = Frame::next(&bytes, &mut at, u32::MAX).expect("a frame").expect("whole");
            assert_eq!(frame.kind, kind);
            check_theirs(&bytes[from..at]);
            if kind == FrameKind::Header {
                let header = ContentHeader::read(&frame).expect("a header");
                assert_eq!((header.body_size(), header.raw_properties()), (4, &raw));
                assert_eq!(header.properties(), sample);
            }
        }
        assert_eq!(at, bytes.len());
        (0..raw.len()).for_each(|len| assert!(BasicProperties::read(&raw[..len]).is_err(), "{len}"));
    }
}

#[test]
fn tables_are_read_value_by_value_as_they_were_written() {
    for seed in 0..SEEDS {
        let pools = Pools::new(seed);
        let table: FieldTable<'_> = super::testing::Sample::sample(&mut Source::new(seed, &pools));
        let mut again = FieldTableBuf::new();
        table.iter().for_each(|(name, value)| {
            again.push(name, value);
        });
        assert_eq!(again.as_table(), table);
        assert_eq!(FieldTable::from_bytes(table.as_bytes()), Ok(table));
    }
}

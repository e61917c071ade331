//! What the codec costs: `cargo run --release -p sabir-amqp --example codec_rate`. Nanoseconds a message, the best of many rounds.

use std::hint::black_box;
use std::time::Instant;

use bytes::Bytes;
use sabir_amqp::session::{ClientEvent, ConnectionMachine, ConnectionOptions};
use sabir_amqp::wire::*;

/// Messages in one buffer, about as many as one read of a socket brings.
const BATCH: usize = 200;
const ROUNDS: usize = 5000;

fn main() {
    let small = BasicProperties {
        delivery_mode: Some(2),
        content_type: ShortBytes::new(b"text/plain"),
        ..Default::default()
    };
    let mut headers = FieldTableBuf::new();
    for (name, value) in [
        ("x-retry", FieldValue::I32(3)),
        ("tenant", FieldValue::LongStr(b"acme")),
        ("traced", FieldValue::Bool(true)),
    ] {
        headers.push(ShortStr::cut(name).into(), value);
    }
    let large = BasicProperties {
        headers: Some(headers.as_table()),
        message_id: ShortBytes::new(&[b'7'; 36]),
        ..small
    };
    for (name, properties) in [("two properties", small), ("four properties, three headers", large)] {
        let (raw, body) = (properties.to_bytes(), ContentBody::of(vec![7; 1024].into()));
        println!(
            "publish, {name}, body of 1 KiB: {:.0} ns to frames and back to a message",
            decode(&raw, &body)
        );
        println!("delivery, {name}, body of 1 KiB: {:.0} ns to write", encode(&raw, &body));
    }
    println!("ack: {:.0} ns to read", acks());
}

/// Nanoseconds a message in the best round: others may use the machine in between.
fn best(mut run: impl FnMut()) -> f64 {
    let rounds = (0..ROUNDS).map(|_| {
        let began = Instant::now();
        run();
        began.elapsed().as_nanos() as f64 / BATCH as f64
    });
    rounds.fold(f64::MAX, f64::min)
}

/// A machine with channel 1 open.
fn running() -> ConnectionMachine {
    let mut machine = ConnectionMachine::new(ConnectionOptions::default());
    let mut out = FrameBuffer::new();
    machine.begin(b"AMQP\0\0\x09\x01", FieldTable::EMPTY, b"PLAIN", &mut out);
    let mut input = FrameBuffer::new();
    input.arguments(0, &ConnectionStartOk::default());
    input.arguments(0, &ConnectionTuneOk { channel_max: 10, frame_max: 131_072, heartbeat: 0 });
    input.arguments(0, &ConnectionOpen::default());
    input.arguments(1, &ChannelOpen::default());
    feed(&mut machine, &input.take_all(), &mut out, |event, machine, out| match event {
        ClientEvent::Authenticate(_) => machine.authenticated(out),
        ClientEvent::OpenVirtualHost(_) => machine.opened(out),
        _ => {}
    });
    assert!(machine.is_heard(1));
    machine
}

fn feed(
    machine: &mut ConnectionMachine,
    input: &Bytes,
    out: &mut FrameBuffer,
    mut handle: impl FnMut(ClientEvent<'_>, &mut ConnectionMachine, &mut FrameBuffer),
) {
    let mut at = 0;
    while let Some(frame) = Frame::next(input, &mut at, machine.frame_max()).expect("frames") {
        if let Some(event) = machine.frame(&frame, out) {
            handle(event, machine, out);
        }
    }
}

fn decode(properties: &[u8], body: &ContentBody) -> f64 {
    let publish = BasicPublish {
        exchange: ShortBytes::cut("orders"),
        routing_key: ShortBytes::cut("orders.created.eu"),
        ..BasicPublish::default()
    };
    let mut input = FrameBuffer::new();
    (0..BATCH).for_each(|_| input.content(1, &publish, properties, body, 131_072).expect("it fits"));
    let (input, mut machine, mut out) = (input.take_all(), running(), FrameBuffer::new());
    best(|| {
        feed(&mut machine, &input, &mut out, |event, _, _| {
            let ClientEvent::Publish(_, content) = event else { panic!("{event:?}") };
            let method = content.method();
            black_box((method.exchange, method.routing_key, content.header.properties().delivery_mode));
            black_box(content.body.len());
        });
    })
}

fn encode(properties: &[u8], body: &ContentBody) -> f64 {
    let mut out = FrameBuffer::new();
    best(|| {
        for tag in 0..BATCH as u64 {
            let deliver = BasicDeliver {
                consumer_tag: ShortStr::cut("ctag1.0123456789abcdef"),
                delivery_tag: tag,
                redelivered: false,
                exchange: ShortBytes::cut("orders"),
                routing_key: ShortBytes::cut("orders.created.eu"),
            };
            out.content(1, &deliver, properties, body, 131_072).expect("it fits");
        }
        out.take().for_each(|piece| drop(black_box(piece)));
    })
}

fn acks() -> f64 {
    let mut input = FrameBuffer::new();
    (0..BATCH as u64)
        .for_each(|delivery_tag| input.arguments(1, &BasicAck { delivery_tag, multiple: false }));
    let (input, mut machine, mut out) = (input.take_all(), running(), FrameBuffer::new());
    best(|| {
        feed(&mut machine, &input, &mut out, |event, _, _| {
            black_box(&event);
        });
    })
}

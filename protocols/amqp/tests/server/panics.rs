//! A session that panics ends its connection, and nothing that it was about to do is done.

use sabir_amqp::wire::*;
use sabir_broker::testing::panic_once;

use crate::node::Node;

#[test]
fn what_a_session_had_gathered_when_it_panicked_is_neither_published_nor_settled() {
    let data = tempfile::tempdir().unwrap();
    let node = Node::start(data.path());
    let (mut client, mut other) = (node.open(), node.open());
    client.declare("q");
    client.publish("q", &["delivered"]);
    client.consume("q", "c", false);
    assert_eq!(client.content().text(), "delivered");
    panic_once("route", "amq.headers");
    let (frame_max, body) = (client.frame_max, bytes::Bytes::from_static(b"lost").into());
    client.say(|out| {
        out.arguments(1, &BasicAck { delivery_tag: 1, multiple: false });
        for (exchange, routing_key) in [("", "q"), ("amq.headers", "x")] {
            let (exchange, routing_key) = (ShortBytes::cut(exchange), ShortBytes::cut(routing_key));
            let publish = BasicPublish { exchange, routing_key, ..Default::default() };
            let properties = BasicProperties::default().to_bytes();
            out.content(1, &publish, &properties, &body, frame_max).unwrap();
        }
    });
    assert!(client.next().is_none(), "the connection has ended");
    let back = other.get_soon("q").unwrap();
    assert_eq!((back.text(), back.got().redelivered), ("delivered", true));
    assert!(other.get("q", true).is_none());
    node.stop();
}

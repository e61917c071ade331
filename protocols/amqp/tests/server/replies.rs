//! Direct replies.

use sabir_amqp::wire::*;

use crate::node::{Client, Node};

const REPLY_TO: &str = "amq.rabbitmq.reply-to";

/// Asks by way of a queue; where the reply goes.
fn asked(client: &mut Client, answerer: &mut Client) -> String {
    let properties = BasicProperties {
        reply_to: Some(ShortBytes::cut(REPLY_TO)),
        correlation_id: Some(ShortBytes::cut("7")),
        ..Default::default()
    };
    let publish = BasicPublish { routing_key: ShortBytes::cut("work"), ..Default::default() };
    client.publish_as(&publish, &properties, &["?"]);
    let work = loop {
        if let Some(got) = answerer.get("work", true) {
            break got;
        }
    };
    let properties = BasicProperties::read(&work.properties).unwrap();
    assert_eq!(properties.correlation_id, Some(ShortBytes::cut("7")), "the rest is as it was");
    String::from_utf8(properties.reply_to.unwrap().as_bytes().to_vec()).unwrap()
}

fn answer(client: &mut Client, address: &str, mandatory: bool, bodies: &[&str]) {
    let publish = BasicPublish { routing_key: ShortBytes::cut(address), mandatory, ..Default::default() };
    client.publish_as(&publish, &BasicProperties::default(), bodies);
}

fn passive(queue: &str) -> QueueDeclare<'_> {
    QueueDeclare { queue: ShortStr::cut(queue), passive: true, ..Default::default() }
}

fn open(node: &Node) -> (Client, Client) {
    let (mut client, mut answerer) = (node.open(), node.open());
    answerer.declare("work");
    client.consume(REPLY_TO, "replies", true);
    (client, answerer)
}

#[test]
fn a_reply_goes_to_who_asked_by_way_of_no_queue() {
    let data = tempfile::tempdir().unwrap();
    let node = Node::start(data.path());
    let (mut client, mut answerer) = open(&node);
    let address = asked(&mut client, &mut answerer);
    assert!(address.starts_with("amq.rabbitmq.reply-to."), "{address}");
    assert_eq!(answerer.declare_as(&passive(&address)), (address.clone(), 0, 1));
    assert_eq!(answerer.declare_as(&passive(REPLY_TO)), (REPLY_TO.to_owned(), 0, 1));
    answerer.select_confirms();
    answer(&mut answerer, &address, true, &["!", ""]);
    assert!(answerer.confirmed(2).is_empty());
    let reply = client.content();
    let delivered = reply.delivered();
    assert_eq!((reply.text(), delivered.consumer_tag.as_str(), delivered.delivery_tag), ("!", "replies", 1));
    assert_eq!((&delivered.routing_key[..], delivered.redelivered), (address.as_bytes(), false));
    assert_eq!((client.content().text(), asked(&mut client, &mut answerer)), ("", address.clone()));
    // A client that cancels is sent nothing more.
    let cancel = BasicCancel { consumer_tag: ShortStr::cut("replies"), no_wait: false };
    assert!(matches!(client.ask(1, &cancel).method(), Method::BasicCancelOk(_)));
    assert_eq!(answerer.refused(&passive(&address)).0, 404);
    answer(&mut answerer, &address, false, &["late"]);
    assert!(client.is_silent());
    client.consume(REPLY_TO, "again", true);
    assert_ne!(asked(&mut client, &mut answerer), address);
}

#[test]
fn what_cannot_be_done_with_direct_replies_is_refused_as_rabbitmq_does() {
    let data = tempfile::tempdir().unwrap();
    let node = Node::start(data.path());
    let mut client = node.open();
    let consume = BasicConsume { queue: ShortStr::cut(REPLY_TO), no_ack: true, ..Default::default() };
    let acknowledged = BasicConsume { no_ack: false, ..consume };
    let says = "PRECONDITION_FAILED - reply consumer cannot acknowledge";
    assert_eq!(client.refused(&acknowledged), (406, says.to_owned()));
    client.consume(REPLY_TO, "replies", true);
    let says = "PRECONDITION_FAILED - reply consumer already set";
    assert_eq!(client.refused(&consume), (406, says.to_owned()));
    let properties = BasicProperties { reply_to: Some(ShortBytes::cut(REPLY_TO)), ..Default::default() };
    client.publish_as(&BasicPublish::default(), &properties, &["?"]);
    let came = client.frame();
    let says = "PRECONDITION_FAILED - fast reply consumer does not exist";
    assert_eq!(client.channel_closed(&came), (406, says.to_owned()));
    client.consume(REPLY_TO, "replies", true);
    let reused =
        BasicConsume { queue: ShortStr::cut("any"), consumer_tag: ShortStr::cut("replies"), ..consume };
    let came = client.ask(1, &reused);
    assert!(
        matches!(came.method(), Method::ConnectionClose(ConnectionClose { reply_code: 530, .. })),
        "{came:?}"
    );
}

#[test]
fn a_reply_to_who_has_gone_goes_back_if_it_is_mandatory() {
    let data = tempfile::tempdir().unwrap();
    let node = Node::start(data.path());
    let (mut client, mut answerer) = open(&node);
    let address = asked(&mut client, &mut answerer);
    drop(client);
    loop {
        let came = answerer.ask(1, &passive(&address));
        if matches!(came.method(), Method::ChannelClose(_)) {
            assert_eq!(answerer.channel_closed(&came).0, 404);
            break;
        }
    }
    answerer.select_confirms();
    answer(&mut answerer, &address, true, &["late"]);
    let back = answerer.content();
    assert!(matches!(back.method.method(), Method::BasicReturn(BasicReturn { reply_code: 312, .. })));
    assert!(answerer.confirmed(1).is_empty());
    answer(&mut answerer, &address, false, &["later"]);
    assert!(matches!(answerer.frame().method(), Method::BasicAck(_)));
}

#[test]
fn no_more_waits_for_who_does_not_read_than_there_is_room_for() {
    const REPLIES: usize = 64;
    let data = tempfile::tempdir().unwrap();
    let node = Node::start(data.path());
    let (mut client, mut answerer) = open(&node);
    let address = asked(&mut client, &mut answerer);
    let body = "x".repeat(1_000_000);
    answerer.select_confirms();
    let mut back = 0;
    for _ in 0..REPLIES {
        answer(&mut answerer, &address, true, &[&body]);
        while !matches!(answerer.frame().method(), Method::BasicAck(_)) {
            back += 1;
            // A returned message's header and body.
            let header = answerer.frame();
            assert_eq!(header.kind, FrameKind::Header);
            let mut size = 0;
            while size < body.len() {
                size += answerer.frame().payload.len();
            }
        }
    }
    assert!(back > REPLIES / 4, "{back} of {REPLIES} went back");
    for _ in back..REPLIES {
        assert_eq!(client.content().body.len(), body.len());
    }
    assert!(client.is_silent());
    answer(&mut answerer, &address, true, &["small"]);
    assert_eq!(client.content().text(), "small", "there is room again");
}

//! What a client may take of the node's memory.

use std::io::Read;

use sabir_amqp::wire::*;

use crate::node::Node;

/// The frames of a publish.
fn published(channel: u16, body: usize) -> Vec<u8> {
    let mut out = FrameBuffer::new();
    let body = bytes::Bytes::from(vec![b'x'; body]);
    let publish = BasicPublish { routing_key: ShortBytes::cut("q"), ..Default::default() };
    out.content(channel, &publish, &BasicProperties::default().to_bytes(), &body.into(), FRAME).unwrap();
    out.take_all().to_vec()
}

/// The same without the last frame of the body.
fn begun(channel: u16, body: usize) -> Vec<u8> {
    let most = FRAME as usize - EMPTY_FRAME;
    let mut all = published(channel, body);
    all.truncate(all.len() - (body % most + EMPTY_FRAME));
    all
}

const FRAME: u32 = 131_072;

#[test]
fn parts_of_messages_beyond_a_connections_share_end_it() {
    let data = tempfile::tempdir().unwrap();
    let node = Node::with(data.path(), &["amqp.max_message=1MiB", "amqp.partial_memory=1MiB"]);
    let mut client = node.connect();
    client.log_in(0);
    for channel in 1..=3 {
        client.open_channel(channel);
        client.send(&begun(channel, 500_000));
    }
    let (code, text) = client.closed();
    assert_eq!(code, 506, "{text}");
}

#[test]
fn a_message_that_is_too_large_closes_its_channel_and_the_rest_goes_on() {
    let data = tempfile::tempdir().unwrap();
    let node = Node::with(data.path(), &["amqp.max_message=100KiB"]);
    let mut client = node.open();
    client.open_channel(2);
    client.send(&published(1, 200_000));
    let came = client.frame();
    let Method::ChannelClose(close) = came.method() else { panic!("{came:?}") };
    assert_eq!((came.channel, close.reply_code), (1, 406));
    client.say(|out| out.arguments(1, &ChannelCloseOk {}));
    assert!(matches!(client.ask(2, &ChannelFlow { active: true }).method(), Method::ChannelFlowOk(_)));
    client.open_channel(1);
}

#[test]
fn headers_without_bodies_do_not_hold_the_buffers_in_which_they_came() {
    let data = tempfile::tempdir().unwrap();
    let node = Node::start(data.path());
    let mut client = node.connect();
    client.log_in(0);
    let before = resident();
    for channel in 1..=1000 {
        client.open_channel(channel);
        let mut out = FrameBuffer::new();
        out.arguments(channel, &BasicPublish::default());
        client.send(&out.take_all());
    }
    let grown = resident().saturating_sub(before);
    assert!(grown < 64 << 20, "{grown} bytes more for a thousand methods without a header");
}

/// Bytes of this process that are in memory.
fn resident() -> usize {
    let mut text = String::new();
    std::fs::File::open("/proc/self/statm").unwrap().read_to_string(&mut text).unwrap();
    text.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

//! How a connection begins and ends.

use std::time::{Duration, Instant};

use sabir_amqp::wire::*;

use crate::node::{Client, Node, PATIENCE};

#[test]
fn a_client_logs_in_opens_channels_and_closes() {
    let data = tempfile::tempdir().unwrap();
    let node = Node::start(data.path());
    let mut client = node.open();
    client.open_channel(7);
    let flow = client.ask(7, &ChannelFlow { active: true });
    assert!(matches!(flow.method(), Method::ChannelFlowOk(ChannelFlowOk { active: true })));
    let closed = client.ask(7, &ChannelClose::default());
    assert!(matches!(closed.method(), Method::ChannelCloseOk(_)) && closed.channel == 7);
    client.open_channel(7);
    let closed = client.ask(0, &ConnectionClose::default());
    assert!(matches!(closed.method(), Method::ConnectionCloseOk(_)));
    assert!(client.next().is_none(), "the socket is closed");
    node.stop();
}

#[test]
fn the_server_says_what_it_is_and_what_it_can() {
    let data = tempfile::tempdir().unwrap();
    let node = Node::start(data.path());
    let mut client = node.connect();
    client.send(b"AMQP\x00\x00\x09\x01");
    let start = client.frame();
    let Method::ConnectionStart(start) = start.method() else { panic!("{start:?}") };
    assert_eq!((start.version_major, start.version_minor, start.locales), (0, 9, &b"en_US"[..]));
    assert_eq!(start.mechanisms, b"PLAIN AMQPLAIN");
    assert_eq!(start.server_properties.get("product"), Some(FieldValue::LongStr(b"Sabir")));
    assert!(matches!(start.server_properties.get("capabilities"), Some(FieldValue::Table(_))));
}

#[test]
fn who_is_not_guest_is_told_so() {
    let data = tempfile::tempdir().unwrap();
    let node = Node::start(data.path());
    let mut client = node.connect();
    let came = client.introduce(b"\0guest\0wrong").unwrap();
    let Method::ConnectionClose(close) = came.method() else { panic!("{came:?}") };
    assert_eq!(close.reply_code, 403);
    let text = "ACCESS_REFUSED - Login was refused using authentication mechanism PLAIN. For details see the broker logfile.";
    assert_eq!(close.reply_text.as_str(), text);
    client.say(|out| out.arguments(0, &ConnectionCloseOk {}));
    assert!(client.next().is_none());
}

#[test]
fn there_is_one_virtual_host() {
    let data = tempfile::tempdir().unwrap();
    let node = Node::start(data.path());
    let mut client = node.connect();
    client.introduce(b"\0guest\0guest").unwrap();
    client.say(|out| {
        out.arguments(0, &ConnectionTuneOk { channel_max: 10, frame_max: 4096, heartbeat: 0 });
        out.arguments(0, &ConnectionOpen { virtual_host: ShortStr::cut("other"), ..Default::default() });
    });
    assert_eq!(client.closed(), (530, "NOT_ALLOWED - vhost other not found".to_owned()));
}

#[test]
fn another_version_is_answered_with_ours() {
    let data = tempfile::tempdir().unwrap();
    let node = Node::start(data.path());
    for first in [
        &b"AMQP\x01\x01\x08\x00"[..],
        b"AMQP\x00\x01\x00\x00",
        b"AMQP\x03\x01\x00\x00",
        b"GET / HTTP/1.1\r\n\r\n",
    ] {
        let mut client = node.connect();
        client.send(first);
        assert_eq!(client.rest(), b"AMQP\x00\x00\x09\x01", "{first:?}");
    }
}

#[test]
fn what_breaks_the_rules_is_told_and_the_socket_closed() {
    let data = tempfile::tempdir().unwrap();
    let node = Node::start(data.path());
    let mut client = node.open();
    client.say(|out| out.arguments(2, &BasicQos::default()));
    let (code, text) = client.closed();
    assert_eq!(code, 504, "{text}");
    let mut client = node.open();
    client.send(b"\x07\x00\x01\x00\x00\x00\x00\xce");
    let (code, text) = client.closed();
    assert_eq!(code, 501, "{text}");
    // One that goes on sending what is no frame is not waited for.
    let mut client = node.open();
    client.send(b"\x07\x00\x01\x00\x00\x00\x00\xce");
    assert!(matches!(client.frame().method(), Method::ConnectionClose(_)));
    client.send(b"nonsense");
    assert!(client.next().is_none());
}

#[test]
fn both_sides_give_signs_of_life() {
    let data = tempfile::tempdir().unwrap();
    let node = Node::start(data.path());
    let mut client = node.connect();
    client.log_in(1);
    let began = Instant::now();
    let mut apart: Vec<_> = (0..7)
        .map(|_| {
            let last = Instant::now();
            assert_eq!(client.any().unwrap().kind, FrameKind::Heartbeat);
            client.say(FrameBuffer::heartbeat);
            last.elapsed()
        })
        .collect();
    apart.sort_unstable();
    // One may come late where the machine was busy, and the next one early.
    assert!(apart[3] < Duration::from_millis(900), "{apart:?}");
    assert!(began.elapsed() > Duration::from_secs(2), "it was kept for longer than a silent one is");
    while client.any().is_some() {}
    assert!(began.elapsed() < PATIENCE, "one that is silent is gone");
}

#[test]
fn a_node_that_goes_down_says_so() {
    let data = tempfile::tempdir().unwrap();
    let node = Node::start(data.path());
    let client = node.open();
    let stopped = std::thread::spawn(move || node.stop());
    let (code, text) = client.closed();
    assert_eq!(
        (code, &*text),
        (320, "CONNECTION_FORCED - broker forced connection closure with reason 'shutdown'")
    );
    stopped.join().unwrap();
}

/// Publishes that no client has asked for any more, in pieces.
fn write_on(client: &mut Client, pieces: usize) {
    for _ in 0..pieces {
        client.publish("q", &["x"; 1000]);
    }
}

#[test]
fn who_writes_on_reads_the_answer_to_its_close_and_nothing_from_before_is_lost() {
    let data = tempfile::tempdir().unwrap();
    let node = Node::start(data.path());
    let mut client = node.open();
    client.declare("q");
    write_on(&mut client, 10);
    client.say(|out| out.arguments(0, &ConnectionClose::default()));
    write_on(&mut client, 50);
    std::thread::sleep(std::time::Duration::from_millis(200));
    write_on(&mut client, 50);
    assert!(matches!(client.frame().method(), Method::ConnectionCloseOk(_)));
    assert!(client.next().is_none());
    drop(client);
    let mut other = node.open();
    while other.declare("q").1 < 10_000 {}
}

#[test]
fn who_writes_on_reads_why_its_connection_is_closed() {
    let data = tempfile::tempdir().unwrap();
    let node = Node::start(data.path());
    let mut client = node.open();
    client.say(|out| out.arguments(0, &ChannelOpenOk::default()));
    write_on(&mut client, 100);
    let (code, text) = client.closed();
    assert_eq!(code, 503, "{text}");
    // A client that knows no more of it than the end of the stream.
    let mut other = node.connect();
    other.send(b"HTTP/1.1 please\r\n");
    std::thread::sleep(std::time::Duration::from_millis(200));
    other.send(&[b'x'; 100_000]);
    assert_eq!(other.rest(), b"AMQP\0\0\x09\x01");
}

//! What is legal when. Codes and causes are those of RabbitMQ 3.10.8 with the same bytes, unless a case says otherwise.
#![allow(clippy::unwrap_used, reason = "a failure is what a test is for")]

mod rig;

use bytes::Bytes;
use rig::{Client, unhex, word};
use sabir_amqp::session::{ClientEvent, ConnectionOptions};
use sabir_amqp::wire::*;

const HELLO: &[u8] = b"AMQP\0\0\x09\x01";

fn frame(kind: u8, channel: u16, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![kind];
    out.extend(channel.to_be_bytes());
    out.extend((payload.len() as u32).to_be_bytes());
    out.extend(payload);
    out.push(FRAME_END);
    out
}

fn method<M: MethodArguments>(channel: u16, arguments: &M) -> Vec<u8> {
    let mut out = FrameBuffer::new();
    out.arguments(channel, arguments);
    out.take_all().to_vec()
}

fn publish() -> Vec<u8> {
    method(1, &BasicPublish { routing_key: ShortBytes::cut("q"), ..BasicPublish::default() })
}

fn header(class: u16, weight: u16, size: u64, properties: &[u8]) -> Vec<u8> {
    let mut payload = [class.to_be_bytes(), weight.to_be_bytes()].concat();
    payload.extend(size.to_be_bytes());
    payload.extend(properties);
    frame(2, 1, &payload)
}

fn body(bytes: &[u8]) -> Vec<u8> {
    frame(3, 1, bytes)
}

/// What a client is told that sends this on an open connection with channel 1.
fn told(parts: &[Vec<u8>]) -> String {
    let mut client = Client::running(ConnectionOptions::default());
    client.feed(&parts.concat(), &mut |_| {});
    client.said()
}

fn declare(arguments: &[u8]) -> Vec<u8> {
    let mut payload = unhex("0032 000a 0000 01 71 00").to_vec();
    payload.extend((arguments.len() as u32).to_be_bytes());
    payload.extend(arguments);
    frame(1, 1, &payload)
}

fn nested(depth: usize) -> Vec<u8> {
    (0..depth).fold(Vec::new(), |inner, _| {
        let len = (inner.len() as u32).to_be_bytes();
        [&b"\x01aF"[..], &len, &inner].concat()
    })
}

#[test]
fn frames_that_are_none_are_frame_errors() {
    assert_eq!(told(&[frame(9, 1, b"")]), "connection.close 501 0.0");
    assert_eq!(told(&[unhex("01 0001 00000005 0014000a00 00").to_vec()]), "connection.close 501 0.0");
    assert_eq!(told(&[unhex("03 0001 00020001").to_vec()]), "connection.close 501 0.0");
    assert_eq!(told(&[frame(8, 0, b"x")]), "connection.close 501 0.0");
    assert_eq!(told(&[frame(8, 1, b"")]), "connection.close 505 0.0");
    assert_eq!(told(&[frame(8, 0, b"")]), "");
}

#[test]
fn a_payload_alone_may_have_the_size_agreed_on_for_a_frame() {
    let bytes = vec![7; 131_072];
    assert_eq!(told(&[publish(), header(60, 0, 131_072, &[0, 0]), body(&bytes)]), "");
}

#[test]
fn arguments_that_cannot_be_read_close_the_connection() {
    assert_eq!(told(&[frame(1, 1, &unhex("0032 000a 0000 09 71"))]), "connection.close 501 50.10");
    assert_eq!(told(&[frame(1, 1, &unhex("003c 000a 0000000000000000"))]), "connection.close 501 60.10");
    assert_eq!(told(&[frame(1, 1, &unhex("00"))]), "connection.close 501 0.0");
    // RabbitMQ tells no cause here.
    assert_eq!(
        told(&[frame(1, 1, &unhex("0032 000a 0000 01 ff 00 00000000"))]),
        "connection.close 501 50.10"
    );
    // RabbitMQ closes the socket without a word.
    assert_eq!(told(&[declare(b"\x01a?")]), "connection.close 502 50.10");
    assert_eq!(told(&[declare(b"\x05a")]), "connection.close 501 50.10");
    assert_eq!(told(&[frame(1, 1, &unhex("0063 0001"))]), "connection.close 540 99.1");
    assert_eq!(told(&[frame(1, 1, &unhex("0032 0063"))]), "connection.close 540 50.99");
}

#[test]
fn exchanges_and_routing_keys_of_messages_need_not_be_utf8() {
    let mut client = Client::running(ConnectionOptions::default());
    let key = [0xff, 0xfe];
    let publish = BasicPublish { routing_key: ShortBytes::new(&key).unwrap(), ..BasicPublish::default() };
    let mut found = Vec::new();
    client.feed(&[method(1, &publish), header(60, 0, 0, &[0, 0])].concat(), &mut |event| {
        let ClientEvent::Publish(_, content) = event else { panic!("{event:?}") };
        found.extend_from_slice(&content.method().routing_key);
    });
    assert_eq!(found, key);
}

/// RabbitMQ has no limit; the depth of a client's tables is the depth of its stack.
#[test]
fn tables_may_be_nested_as_deep_as_the_limit() {
    // The arguments are a table themselves.
    assert_eq!(told(&[declare(&nested(MAX_DEPTH - 1))]), "");
    assert_eq!(told(&[declare(&nested(MAX_DEPTH))]), "connection.close 502 50.10");
    assert_eq!(told(&[declare(&nested(10_000))]), "connection.close 502 50.10");
}

#[test]
fn methods_that_are_not_a_clients_or_not_now_close_the_connection() {
    assert_eq!(told(&[method(1, &QueueDeclareOk::default())]), "connection.close 503 50.11");
    assert_eq!(told(&[method(1, &BasicReturn::default())]), "connection.close 503 60.50");
    assert_eq!(told(&[method(1, &ConnectionOpen::default())]), "connection.close 503 10.40");
    assert_eq!(told(&[method(1, &ChannelFlowOk::default())]), "connection.close 503 20.21");
    assert_eq!(told(&[method(1, &BasicCancelOk::default())]), "connection.close 503 60.31");
    assert_eq!(told(&[method(1, &ChannelCloseOk {})]), "connection.close 503 20.41");
    assert_eq!(told(&[method(0, &ConnectionStartOk::default())]), "connection.close 504 10.11");
    assert_eq!(told(&[method(0, &QueueDeclare::default())]), "connection.close 504 50.10");
    assert_eq!(told(&[method(0, &ConnectionCloseOk {})]), "connection.close 504 10.51");
    // RabbitMQ: 504.
    assert_eq!(told(&[method(0, &ConnectionTune::default())]), "connection.close 503 10.30");
}

#[test]
fn channels_are_opened_once_before_they_are_used() {
    assert_eq!(told(&[method(1, &ChannelOpen::default())]), "connection.close 504 20.10");
    assert_eq!(told(&[method(7, &QueueDeclare::default())]), "connection.close 504 50.10");
    assert_eq!(told(&[frame(2, 7, &[0; 14])]), "connection.close 505 0.0");
    assert_eq!(told(&[frame(3, 7, b"x")]), "connection.close 505 0.0");
    assert_eq!(told(&[frame(3, 0, b"x")]), "connection.close 505 0.0");
    assert_eq!(told(&[method(2, &ChannelOpen::default())]), "2:channel.open-ok");
}

#[test]
fn as_many_channels_are_open_as_was_agreed_whatever_their_numbers() {
    let options = ConnectionOptions { channel_max: 2, ..ConnectionOptions::default() };
    let mut client = Client::running(options);
    client.feed(&method(65_535, &ChannelOpen::default()), &mut |_| {});
    client.feed(&method(65_535, &ChannelClose::default()), &mut |_| {});
    client.feed(&method(9, &ChannelOpen::default()), &mut |_| {});
    assert_eq!(client.said(), "65535:channel.open-ok 65535:channel.close-ok 9:channel.open-ok");
    client.feed(&method(10, &ChannelOpen::default()), &mut |_| {});
    assert_eq!(client.said(), "connection.close 530 20.10");
}

#[test]
fn a_content_comes_whole_and_in_order() {
    let qos = method(1, &BasicQos::default());
    let empty = header(60, 0, 0, &[0, 0]);
    assert_eq!(told(std::slice::from_ref(&empty)), "connection.close 505 0.0");
    assert_eq!(told(&[body(b"x")]), "connection.close 505 0.0");
    assert_eq!(told(&[publish(), qos.clone()]), "connection.close 505 60.40");
    assert_eq!(told(&[publish(), body(b"x")]), "connection.close 505 60.40");
    assert_eq!(told(&[publish(), header(50, 0, 0, &[0, 0])]), "connection.close 505 60.40");
    assert_eq!(told(&[publish(), header(60, 1, 0, &[0, 0])]), "connection.close 505 60.40");
    assert_eq!(told(&[publish(), header(60, 0, 9, &[0, 0]), qos]), "connection.close 505 60.40");
    assert_eq!(told(&[publish(), header(60, 0, 9, &[0, 0]), empty]), "connection.close 505 60.40");
    // RabbitMQ 3.10.8 waits for ever, later ones say this.
    assert_eq!(told(&[publish(), header(60, 0, 1, &[0, 0]), body(b"xx")]), "connection.close 501 60.40");
}

/// RabbitMQ fails within (541), and passes over flags that stand for nothing; so would its consumers have to.
#[test]
fn properties_that_cannot_be_read_close_the_connection() {
    assert_eq!(told(&[publish(), header(60, 0, 0, &[0x80, 0])]), "connection.close 501 60.40");
    assert_eq!(told(&[publish(), header(60, 0, 0, &[0, 0, 7])]), "connection.close 501 60.40");
    assert_eq!(told(&[publish(), header(60, 0, 0, &[])]), "connection.close 501 60.40");
    assert_eq!(told(&[publish(), header(60, 0, 0, &[0, 1])]), "connection.close 502 60.40");
    assert_eq!(told(&[publish(), header(60, 0, 0, &[0, 2])]), "connection.close 502 60.40");
    let deep = nested(MAX_DEPTH);
    let headers = [&[0x20, 0][..], &(deep.len() as u32).to_be_bytes(), &deep].concat();
    assert_eq!(told(&[publish(), header(60, 0, 0, &headers)]), "connection.close 502 60.40");
}

#[test]
fn a_message_that_is_too_large_closes_its_channel_and_what_comes_of_it_is_passed_over() {
    let options = ConnectionOptions { message_max: 10, ..ConnectionOptions::default() };
    let mut client = Client::running(options);
    let mut words = Vec::new();
    let mut look = |event: &ClientEvent<'_>| words.push(word(event));
    client.feed(&method(2, &ChannelOpen::default()), &mut look);
    client.feed(&[publish(), header(60, 0, 11, &[0, 0]), body(b"12345")].concat(), &mut look);
    client.feed(&[body(b"678901"), frame(1, 1, b"\xff\xff\xff\xff"), publish()].concat(), &mut look);
    assert_eq!(client.said(), "2:channel.open-ok 1:channel.close 406 60.40");
    assert!(!client.machine.is_heard(1) && client.machine.is_heard(2));
    client.feed(&method(1, &ChannelClose::default()), &mut look);
    client.feed(&method(1, &ChannelCloseOk {}), &mut look);
    client.feed(&method(1, &ChannelOpen::default()), &mut look);
    client.feed(&[publish(), header(60, 0, 10, &[0, 0]), body(b"1234567890")].concat(), &mut look);
    assert_eq!(client.said(), "1:channel.close-ok 1:channel.open-ok");
    assert_eq!(words.join(" "), "2:open 1:failed(406) 1:closed 1:open 1:publish(10)");
}

#[test]
fn messages_on_different_channels_may_come_at_once_and_are_bounded_together() {
    let options = ConnectionOptions { unfinished_max: 1000, ..ConnectionOptions::default() };
    let mut client = Client::running(options);
    client.feed(&method(2, &ChannelOpen::default()), &mut |_| {});
    let mut words = Vec::new();
    let mut look = |event: &ClientEvent<'_>| words.push(word(event));
    let on_two = |mut bytes: Vec<u8>| {
        bytes[2] = 2;
        bytes
    };
    client.feed(&[publish(), on_two(publish()), header(60, 0, 700, &[0, 0])].concat(), &mut look);
    client.feed(
        &[on_two(header(60, 0, 5000, &[0, 0])), body(&[1; 600]), on_two(body(&[2; 400]))].concat(),
        &mut look,
    );
    assert_eq!(client.machine.unfinished_bytes(), 1000);
    client.feed(&body(&[1; 100]), &mut look);
    assert_eq!(client.machine.unfinished_bytes(), 400);
    client.feed(&on_two(body(&[2; 601])), &mut look);
    assert_eq!(words.join(" "), "1:publish(700) failed(506)");
    assert_eq!(client.machine.unfinished_bytes(), 0);
}

#[test]
fn what_came_of_a_message_is_let_go_when_its_channel_fails() {
    let mut client = Client::running(ConnectionOptions::default());
    client.feed(&[publish(), header(60, 0, 700, &[0, 0]), body(&[1; 600])].concat(), &mut |_| {});
    assert_eq!(client.machine.unfinished_bytes(), 600);
    let gone = ChannelException::resource_locked("another has it");
    assert!(client.machine.fail(1, gone.into(), &mut client.out).is_some());
    assert_eq!(client.machine.unfinished_bytes(), 0);
    client.feed(&[body(&[1; 100]), method(1, &ChannelCloseOk {})].concat(), &mut |_| {});
    assert_eq!((client.machine.unfinished_bytes(), client.machine.channels()), (0, 0));
}

/// RabbitMQ tells a client that is not open yet nothing; here it is told the code.
#[test]
fn before_a_connection_is_open_only_its_next_step_is_legal() {
    let told = |parts: &[Vec<u8>]| {
        let mut client = Client::new();
        client.feed(HELLO, &mut |_| {});
        client.feed(&parts.concat(), &mut |_| {});
        client.said().replace("0:connection.start", "start").replace("0:connection.tune", "tune")
    };
    let start_ok = method(0, &ConnectionStartOk::default());
    let tune_ok =
        |channel_max, frame_max| method(0, &ConnectionTuneOk { channel_max, frame_max, heartbeat: 0 });
    let open = method(0, &ConnectionOpen::default());
    assert_eq!(told(&[]), "start");
    assert_eq!(told(std::slice::from_ref(&open)), "start connection.close 504 10.40");
    assert_eq!(told(&[method(1, &ChannelOpen::default())]), "start connection.close 505 0.0");
    assert_eq!(told(&[method(0, &ConnectionSecureOk::default())]), "start connection.close 504 10.21");
    assert_eq!(told(&[start_ok.clone(), open.clone()]), "start tune connection.close 504 10.40");
    assert_eq!(told(&[start_ok.clone(), tune_ok(0, 4096)]), "start tune connection.close 530 10.31");
    assert_eq!(told(&[start_ok.clone(), tune_ok(1, 4095)]), "start tune connection.close 530 10.31");
    assert_eq!(told(&[frame(8, 0, b""), start_ok.clone()]), "start tune");
    let opened = [start_ok.clone(), tune_ok(1, 4096), open];
    assert_eq!(told(&opened), "start tune 0:connection.open-ok");
    assert_eq!(told(&[method(0, &ConnectionClose::default())]), "start 0:connection.close-ok");
    // 8192 bytes until limits have been agreed on.
    assert_eq!(told(&[frame(1, 0, &[0; 8193])]), "start connection.close 501 0.0");
    assert_eq!(
        told(&[opened.concat(), frame(1, 0, &[0; 4097])]),
        "start tune 0:connection.open-ok connection.close 501 0.0"
    );
}

/// A client need not wait for `open-ok`, and its large frames may come in the same read as its `tune-ok`.
#[test]
fn frames_behind_tune_ok_may_have_the_size_that_it_agrees_on() {
    let tune_ok = ConnectionTuneOk { channel_max: 1, frame_max: 131_072, heartbeat: 0 };
    let large = [publish(), header(60, 0, 100_000, &[0, 0]), body(&[1; 100_000])].concat();
    let before = [method(0, &ConnectionStartOk::default()), method(0, &tune_ok)].concat();
    let open = [method(0, &ConnectionOpen::default()), method(1, &ChannelOpen::default())].concat();
    let mut words = Vec::new();
    let mut client = Client::new();
    client.feed(&[HELLO, &before, &open, &large].concat(), &mut |event| words.push(word(event)));
    assert_eq!(words.join(" "), "authenticate tuned open-vhost 1:open 1:publish(100000)");
    let input = [before.clone(), large.clone()].concat();
    assert_eq!(whole_frames(&input, 8192), Ok(Whole::Frames(before.len() + large.len() - 100_008)));
    assert_eq!(whole_frames(&large[large.len() - 100_008..], 8192).unwrap_err().code, ReplyCode::FrameError);
    assert_eq!(whole_frames(&input[..3], 8192), Ok(Whole::Need(7)));
    assert_eq!(whole_frames(&input[..9], 8192), Ok(Whole::Need(before.len() - 20)));
}

#[test]
fn what_comes_on_a_channel_that_its_client_has_closed_is_passed_over() {
    let mut client = Client::running(ConnectionOptions::default());
    let bytes = Bytes::from(
        [method(1, &ChannelClose::default()), method(1, &BasicAck::default()), publish()].concat(),
    );
    let mut at = 0;
    let mut words = Vec::new();
    while let Some(frame) = Frame::next(&bytes, &mut at, 8192).unwrap() {
        words.extend(client.machine.frame(&frame, &mut client.out).map(|event| word(&event)));
    }
    assert_eq!((words.join(" ").as_str(), client.said().as_str()), ("1:closing", ""));
}

#[test]
fn a_protocol_header_of_another_version_is_answered_with_ours() {
    for other in [&b"AMQP\0\0\x09\x02"[..], b"AMQP\x01\x01\x08\0", b"GET / HT"] {
        let mut client = Client::new();
        client.feed(other, &mut |_| {});
        assert!(client.machine.has_ended());
        assert_eq!(client.out.take_all(), HELLO);
    }
}

#[test]
fn a_failed_authentication_is_told_to_those_who_understand_it() {
    let mut yes = FieldTableBuf::new();
    yes.push(ShortBytes::cut("authentication_failure_close"), FieldValue::Bool(true));
    let mut properties = FieldTableBuf::new();
    properties.push(ShortBytes::cut("capabilities"), FieldValue::Table(yes.as_table()));
    for (client_properties, want) in
        [(properties.as_table(), "connection.close 403 0.0"), (FieldTable::EMPTY, "")]
    {
        let mut machine = sabir_amqp::session::ConnectionMachine::new(ConnectionOptions::default());
        let mut client = Client::new();
        machine.begin(HELLO, FieldTable::EMPTY, b"PLAIN", &mut client.out);
        client.out.take_all();
        let bytes = Bytes::from(method(0, &ConnectionStartOk { client_properties, ..Default::default() }));
        let start_ok = Frame::next(&bytes, &mut 0, 8192).unwrap().unwrap();
        assert!(matches!(machine.frame(&start_ok, &mut client.out), Some(ClientEvent::Authenticate(_))));
        assert!(machine.awaits_handlers());
        let refused = ConnectionException::new(ReplyCode::AccessRefused, "Login was refused");
        machine.refuse(refused, &mut client.out);
        assert_eq!(client.said(), want);
        assert_eq!(machine.has_ended(), want.is_empty());
    }
}

#[test]
fn a_challenge_is_answered_before_limits_are_proposed() {
    let mut client = Client::new();
    client.machine.begin(HELLO, FieldTable::EMPTY, b"PLAIN", &mut client.out);
    let step = |client: &mut Client, bytes: Vec<u8>| {
        let bytes = Bytes::from(bytes);
        let frame = Frame::next(&bytes, &mut 0, 8192).unwrap().unwrap();
        client.machine.frame(&frame, &mut client.out).map(|event| word(&event)).unwrap()
    };
    assert_eq!(step(&mut client, method(0, &ConnectionStartOk::default())), "authenticate");
    client.machine.challenge(b"what", &mut client.out);
    assert_eq!(step(&mut client, method(0, &ConnectionSecureOk::default())), "authenticate-further");
    client.machine.authenticated(&mut client.out);
    assert_eq!(client.said(), "0:connection.start 0:connection.secure 0:connection.tune");
}

#[test]
fn a_connection_that_the_server_closes_ends_when_the_client_knows() {
    let mut client = Client::running(ConnectionOptions::default());
    let forced = ConnectionException::new(ReplyCode::ConnectionForced, "by an operator");
    assert!(client.machine.fail_connection(forced.clone(), &mut client.out).is_some());
    assert!(client.machine.fail_connection(forced, &mut client.out).is_none(), "it is told once");
    let mut words = Vec::new();
    let crossing = [
        publish(),
        frame(1, 0, b"\xff"),
        method(0, &ConnectionClose::default()),
        method(0, &ConnectionCloseOk {}),
        publish(),
    ];
    client.feed(&crossing.concat(), &mut |event| words.push(word(event)));
    assert_eq!(
        (client.said().as_str(), words.join(" ").as_str()),
        ("connection.close 320 0.0 0:connection.close-ok", "ended")
    );
    assert!(client.machine.has_ended());
}

#[test]
fn nothing_is_said_on_a_channel_where_the_client_no_longer_listens() {
    let mut client = Client::running(ConnectionOptions::default());
    let answer = Method::QueueDeclareOk(QueueDeclareOk::default());
    assert!(client.machine.reply(1, &answer, &mut client.out));
    let not_found = ChannelException::not_found("no queue 'q' in vhost '/'").caused_by((50, 10));
    assert_eq!(not_found.reply_text(), "NOT_FOUND - no queue 'q' in vhost '/'");
    assert!(client.machine.fail(1, not_found.clone().into(), &mut client.out).is_some());
    assert!(client.machine.fail(1, not_found.into(), &mut client.out).is_none());
    assert!(!client.machine.reply(1, &answer, &mut client.out));
    assert!(!client.machine.reply(2, &answer, &mut client.out));
    assert_eq!(client.said(), "1:queue.declare-ok 1:channel.close 404 50.10");
}

#[test]
fn answers_to_earlier_requests_go_out_before_a_channel_is_closed_for_its_client() {
    let mut client = Client::running(ConnectionOptions::default());
    let bytes = Bytes::from(method(1, &ChannelClose::default()));
    let close = Frame::next(&bytes, &mut 0, 8192).unwrap().unwrap();
    client.machine.frame(&close, &mut client.out);
    assert!(client.machine.reply(1, &Method::BasicQosOk(BasicQosOk {}), &mut client.out));
    client.machine.channel_closed(1, &mut client.out);
    assert_eq!(client.said(), "1:basic.qos-ok 1:channel.close-ok");
    assert!(!client.machine.is_heard(1));
}

#[test]
fn codes_say_whether_they_close_the_channel_or_the_connection() {
    let soft: Vec<_> =
        ReplyCode::ALL.iter().filter(|code| !code.closes_connection()).map(|code| *code as u16).collect();
    assert_eq!(soft, [311, 312, 313, 403, 404, 405, 406]);
    assert_eq!(ReplyCode::ALL.len(), 18);
    let of_channels = [
        ChannelException::access_refused(""),
        ChannelException::not_found(""),
        ChannelException::resource_locked(""),
        ChannelException::precondition_failed(""),
    ];
    assert!(of_channels.iter().all(|exception| soft.contains(&(exception.code as u16))));
}

#[test]
fn a_reply_text_is_cut_to_what_a_short_string_holds() {
    let long = ChannelException::not_found("é".repeat(200));
    long.with_reply_text(|text| assert!(text.len() <= 255 && text.starts_with("NOT_FOUND - é")));
}

#[test]
fn a_body_goes_out_in_frames_of_the_size_agreed_on_whatever_its_pieces() {
    for (sizes, frame_max) in [
        (&[10_000][..], 4096),
        (&[5, 4088, 1], 4096),
        (&[4088, 4088], 4096),
        (&[9000, 9000], 131_072),
        (&[], 4096),
    ] {
        let total: usize = sizes.iter().sum();
        let mut sent = ContentBody::default();
        let mut at = 0;
        for size in sizes {
            at += size;
            sent.push(Bytes::from(vec![at as u8; *size]), at == total);
        }
        let mut out = FrameBuffer::new();
        out.content(1, &BasicDeliver::default(), &[0, 0], &sent, frame_max).unwrap();
        let len = out.len();
        let bytes = out.take_all();
        assert_eq!(bytes.len(), len);
        let (mut at, mut got) = (0, Vec::new());
        while let Some(frame) = Frame::next(&bytes, &mut at, frame_max - EMPTY_FRAME as u32).unwrap() {
            if frame.kind == FrameKind::Body {
                got.extend_from_slice(frame.payload);
            }
        }
        assert_eq!((at, &got[..]), (bytes.len(), &sent.to_bytes()[..]), "{sizes:?}");
    }
}

#[test]
fn a_delivery_of_a_small_body_is_one_piece_and_a_large_body_is_not_copied() {
    let mut out = FrameBuffer::new();
    for _ in 0..10 {
        out.content(1, &BasicDeliver::default(), &[0, 0], &ContentBody::of(vec![1; 1024].into()), 131_072)
            .unwrap();
    }
    assert_eq!(out.take().count(), 1);
    let large = Bytes::from(vec![1; 100_000]);
    out.content(1, &BasicDeliver::default(), &[0, 0], &ContentBody::of(large.clone()), 131_072).unwrap();
    let pieces: Vec<_> = out.take().collect();
    assert_eq!((pieces.len(), pieces[1].as_ptr()), (3, large.as_ptr()));
    assert!(out.is_empty());
}

#[test]
fn properties_that_do_not_fit_a_frame_are_not_sent() {
    let mut out = FrameBuffer::new();
    let most = vec![0; 4096 - 20];
    let body = ContentBody::default();
    assert_eq!(out.content(1, &BasicDeliver::default(), &most, &body, 4096), Ok(()));
    let more = vec![0; 4096 - 19];
    out.take_all();
    assert_eq!(out.content(1, &BasicDeliver::default(), &more, &body, 4096), Err(HeaderTooLarge));
    assert!(out.is_empty());
}

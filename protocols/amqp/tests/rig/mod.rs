//! A machine whose handlers say yes to everything, fed as a socket would.
#![allow(dead_code, reason = "each test uses a part")]

use bytes::{Buf, Bytes, BytesMut};
use sabir_amqp::session::{ClientEvent, ConnectionMachine, ConnectionOptions, HeaderFound};
use sabir_amqp::wire::*;

pub fn unhex(hex: &str) -> Bytes {
    let digits: Vec<u8> = hex.bytes().filter(|b| !b.is_ascii_whitespace()).collect();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(byte).collect()
}

pub struct Client {
    pub machine: ConnectionMachine,
    pub out: FrameBuffer,
    input: BytesMut,
    has_begun: bool,
}

impl Client {
    pub fn new() -> Self {
        Self::with(ConnectionOptions::default())
    }

    pub fn with(options: ConnectionOptions) -> Self {
        let machine = ConnectionMachine::new(options);
        Self { machine, out: FrameBuffer::new(), input: BytesMut::new(), has_begun: false }
    }

    /// One whose connection is open, and channel 1.
    pub fn running(options: ConnectionOptions) -> Self {
        let (channel_max, frame_max) = (options.channel_max, options.frame_max);
        let mut client = Self::with(options);
        let mut hello = FrameBuffer::new();
        hello.arguments(0, &ConnectionStartOk::default());
        hello.arguments(0, &ConnectionTuneOk { channel_max, frame_max, heartbeat: 0 });
        hello.arguments(0, &ConnectionOpen::default());
        hello.arguments(1, &ChannelOpen::default());
        client.feed(b"AMQP\0\0\x09\x01", &mut |_| {});
        client.feed(&hello.take_all(), &mut |_| {});
        assert!(client.machine.is_heard(1));
        client.out.take_all();
        client
    }

    pub fn feed(&mut self, bytes: &[u8], look: &mut dyn FnMut(&ClientEvent<'_>)) {
        self.input.extend_from_slice(bytes);
        if !self.has_begun && !self.begin() {
            return;
        }
        while let Some(taken) = self.whole(look) {
            let mut at = 0;
            while let Some(frame) = self.next(&taken, &mut at, look) {
                if let Some(event) = self.machine.frame(&frame, &mut self.out) {
                    look(&event);
                    self.handle(&event);
                }
            }
            assert!(at == taken.len() || !self.machine.is_running(), "{at} of {}", taken.len());
        }
    }

    fn begin(&mut self) -> bool {
        let found = self.machine.begin(&self.input, FieldTable::EMPTY, b"PLAIN", &mut self.out);
        self.has_begun = found == HeaderFound::Amqp091;
        if self.has_begun {
            self.input.advance(8);
        }
        self.has_begun
    }

    fn whole(&mut self, look: &mut dyn FnMut(&ClientEvent<'_>)) -> Option<Bytes> {
        match whole_frames(&self.input, self.machine.frame_max()) {
            Ok(Whole::Frames(len)) => Some(self.input.split_to(len).freeze()),
            Ok(Whole::Need(need)) => {
                assert!(need > self.input.len());
                None
            }
            Err(error) => {
                self.input.clear();
                self.fail(error, look);
                None
            }
        }
    }

    fn next<'a>(
        &mut self,
        taken: &'a Bytes,
        at: &mut usize,
        look: &mut dyn FnMut(&ClientEvent<'_>),
    ) -> Option<Frame<'a>> {
        match Frame::next(taken, at, self.machine.frame_max()) {
            Ok(frame) => frame,
            Err(error) => {
                self.fail(error, look);
                None
            }
        }
    }

    fn fail(&mut self, error: ConnectionException, look: &mut dyn FnMut(&ClientEvent<'_>)) {
        if let Some(event) = self.machine.fail_connection(error, &mut self.out) {
            look(&event);
        }
    }

    fn handle(&mut self, event: &ClientEvent<'_>) {
        let (machine, out) = (&mut self.machine, &mut self.out);
        match event {
            ClientEvent::Authenticate(_) => machine.authenticated(out),
            ClientEvent::OpenVirtualHost(_) => machine.opened(out),
            ClientEvent::ChannelClosing(channel, _) => machine.channel_closed(*channel, out),
            ClientEvent::ConnectionClosing(_) => machine.connection_closed(out),
            _ => {}
        }
    }

    /// Takes what was said to the client, whatever it was.
    pub fn said_anything(&mut self) {
        self.out.take().for_each(drop);
    }

    /// What was said to the client: names of methods, with their channel and code where they have one.
    pub fn said(&mut self) -> String {
        let bytes = self.out.take_all();
        let (mut at, mut words) = (0, Vec::new());
        while let Some(frame) = Frame::next(&bytes, &mut at, u32::MAX).unwrap() {
            words.push(
                match (frame.kind == FrameKind::Method).then(|| Method::read(frame.payload).unwrap()) {
                    Some(Method::ConnectionClose(m)) => {
                        format!("connection.close {} {}.{}", m.reply_code, m.class_id, m.method_id)
                    }
                    Some(Method::ChannelClose(m)) => {
                        format!(
                            "{}:channel.close {} {}.{}",
                            frame.channel, m.reply_code, m.class_id, m.method_id
                        )
                    }
                    Some(method) => format!("{}:{}", frame.channel, method.name()),
                    None => format!("{:?}", frame.kind),
                },
            );
        }
        words.join(" ")
    }
}

/// An event, in a word.
pub fn word(event: &ClientEvent<'_>) -> String {
    match event {
        ClientEvent::Authenticate(_) => "authenticate".to_owned(),
        ClientEvent::AuthenticateFurther(_) => "authenticate-further".to_owned(),
        ClientEvent::Tuned(_) => "tuned".to_owned(),
        ClientEvent::OpenVirtualHost(_) => "open-vhost".to_owned(),
        ClientEvent::UpdateSecret(_) => "update-secret".to_owned(),
        ClientEvent::ChannelOpened(channel) => format!("{channel}:open"),
        ClientEvent::Request(channel, request) => {
            let name = format!("{request:?}");
            format!("{channel}:{}", name.split('(').next().unwrap())
        }
        ClientEvent::Publish(channel, content) => format!("{channel}:publish({})", content.body.len()),
        ClientEvent::ChannelClosing(channel, _) => format!("{channel}:closing"),
        ClientEvent::ChannelClosed(channel) => format!("{channel}:closed"),
        ClientEvent::ChannelFailed(channel, error) => format!("{channel}:failed({})", error.code as u16),
        ClientEvent::ConnectionClosing(_) => "closing".to_owned(),
        ClientEvent::ConnectionFailed(error) => format!("failed({})", error.code as u16),
        ClientEvent::Ended => "ended".to_owned(),
    }
}

//! A node that serves the protocol, and clients of it.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use sabir_amqp::Amqp;
use sabir_amqp::wire::*;
use sabir_broker::{Broker, DeadLetterStats};
use sabir_server::config::{ServerConfig, Sources};
use sabir_server::{Running, start};

/// Long enough for a busy machine, short enough to see that a test hangs.
pub const PATIENCE: Duration = Duration::from_secs(30);

pub struct Node {
    running: Option<Running>,
    pub address: SocketAddr,
}

impl Node {
    pub fn start(data: &Path) -> Self {
        Self::with(data, &[])
    }

    pub fn with(data: &Path, settings: &[&str]) -> Self {
        let common = ["amqp.listen=127.0.0.1:0", "admin.listen=127.0.0.1:0", "net.io_threads=2"];
        let set = common.iter().chain(settings).map(|setting| setting.to_string()).collect();
        let sources = Sources { data: Some(data.into()), set, ..Sources::default() };
        let running = start(ServerConfig::load(&sources, &[&Amqp]).unwrap()).unwrap();
        let address = running.serving().iter().find(|s| s.protocol == "amqp").unwrap().listening[0].address;
        Self { address, running: Some(running) }
    }

    pub fn connect(&self) -> Client {
        Client::connected(self.address)
    }

    /// A client whose connection is open, and channel 1.
    pub fn open(&self) -> Client {
        Client::opened(self.address)
    }

    /// What became of dead letters in the shard of the queues since the node started.
    pub fn dead_letters(&self) -> DeadLetterStats {
        self.running.as_ref().unwrap().broker().stats().shards[1].dead_letters
    }

    /// The broker behind it.
    pub fn broker(&self) -> &Broker {
        self.running.as_ref().unwrap().broker()
    }

    pub fn stop(mut self) {
        assert_eq!(self.running.take().unwrap().stop().cut_off, 0);
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.running.take().map(Running::stop);
    }
}

/// A frame that came.
#[derive(Debug, Clone)]
pub struct Came {
    pub kind: FrameKind,
    pub channel: u16,
    pub payload: Bytes,
}

impl Came {
    pub fn method(&self) -> Method<'_> {
        assert_eq!(self.kind, FrameKind::Method);
        Method::read(&self.payload).unwrap()
    }
}

/// A client that says what a test wants it to say.
pub struct Client {
    stream: TcpStream,
    read: Vec<u8>,
    pub frame_max: u32,
    /// The channel on which it publishes.
    pub on: u16,
}

impl Client {
    pub fn connected(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { stream, read: Vec::new(), frame_max: 131_072, on: 1 }
    }

    /// One whose connection is open, and channel 1.
    pub fn opened(address: SocketAddr) -> Self {
        let mut client = Self::connected(address);
        client.log_in(0);
        client.open_channel(1);
        client
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// Sends what `say` writes, together.
    pub fn say(&mut self, say: impl FnOnce(&mut FrameBuffer)) {
        let mut out = FrameBuffer::new();
        say(&mut out);
        self.send(&out.take_all());
    }

    pub fn ask<M: MethodArguments>(&mut self, channel: u16, arguments: &M) -> Came {
        self.say(|out| out.arguments(channel, arguments));
        self.frame()
    }

    /// The next frame but heartbeats; nothing at the end.
    pub fn next(&mut self) -> Option<Came> {
        loop {
            let came = self.any()?;
            if came.kind != FrameKind::Heartbeat {
                return Some(came);
            }
        }
    }

    pub fn frame(&mut self) -> Came {
        self.next().expect("the connection is open")
    }

    /// The next frame, whatever it is; nothing at the end.
    pub fn any(&mut self) -> Option<Came> {
        loop {
            let bytes = Bytes::copy_from_slice(&self.read);
            let mut at = 0;
            if let Some(frame) = Frame::next(&bytes, &mut at, self.frame_max).unwrap() {
                let came = Came {
                    kind: frame.kind,
                    channel: frame.channel,
                    payload: Bytes::copy_from_slice(frame.payload),
                };
                self.read.drain(..at);
                return Some(came);
            }
            let mut some = [0; 65536];
            match self.stream.read(&mut some) {
                Ok(0) => return None,
                Ok(count) => self.read.extend_from_slice(&some[..count]),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return None,
                // A signal that was for the node that the test has.
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// All that comes as bytes, until the end.
    pub fn rest(&mut self) -> Vec<u8> {
        let mut all = std::mem::take(&mut self.read);
        let _ = self.stream.read_to_end(&mut all);
        all
    }

    /// Whether nothing comes for a moment.
    pub fn is_silent(&mut self) -> bool {
        self.stream.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        let mut some = [0; 4096];
        let read = self.stream.read(&mut some);
        self.stream.set_read_timeout(Some(PATIENCE)).unwrap();
        match read {
            Ok(count) => self.read.extend_from_slice(&some[..count]),
            Err(error) => assert!(matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)),
        }
        self.read.is_empty()
    }

    /// As far as the limits: what the server offered is agreed to, but for the heartbeat.
    pub fn introduce(&mut self, response: &[u8]) -> Option<Came> {
        self.send(b"AMQP\x00\x00\x09\x01");
        let start = self.frame();
        assert!(matches!(start.method(), Method::ConnectionStart(_)));
        let mut capabilities = FieldTableBuf::new();
        capabilities.push(ShortBytes::cut("authentication_failure_close"), FieldValue::Bool(true));
        capabilities.push(ShortBytes::cut("connection.blocked"), FieldValue::Bool(true));
        capabilities.push(ShortBytes::cut("consumer_cancel_notify"), FieldValue::Bool(true));
        let mut properties = FieldTableBuf::new();
        properties.push(ShortBytes::cut("capabilities"), FieldValue::Table(capabilities.as_table()));
        let client_properties = properties.as_table();
        let (mechanism, locale) = (ShortStr::cut("PLAIN"), ShortStr::cut("en_US"));
        self.say(|out| {
            out.arguments(0, &ConnectionStartOk { client_properties, mechanism, response, locale });
        });
        self.next()
    }

    pub fn log_in(&mut self, heartbeat: u16) {
        let tune = self.introduce(b"\0guest\0guest").unwrap();
        let Method::ConnectionTune(ConnectionTune { channel_max, frame_max, .. }) = tune.method() else {
            panic!("{tune:?}")
        };
        let frame_max = frame_max.min(self.frame_max);
        self.frame_max = frame_max;
        self.say(|out| {
            out.arguments(0, &ConnectionTuneOk { channel_max, frame_max, heartbeat });
            out.arguments(0, &ConnectionOpen { virtual_host: ShortStr::cut("/"), ..Default::default() });
        });
        assert!(matches!(self.frame().method(), Method::ConnectionOpenOk(_)));
    }

    pub fn open_channel(&mut self, number: u16) {
        let came = self.ask(number, &ChannelOpen::default());
        assert!(matches!(came.method(), Method::ChannelOpenOk(_)) && came.channel == number);
    }

    /// What the connection is closed with; answers it, and sees the end.
    pub fn closed(mut self) -> (u16, String) {
        let came = self.frame();
        let Method::ConnectionClose(ConnectionClose { reply_code, reply_text, .. }) = came.method() else {
            panic!("{came:?}")
        };
        self.say(|out| out.arguments(0, &ConnectionCloseOk {}));
        assert!(self.next().is_none());
        (reply_code, reply_text.as_str().to_owned())
    }
}

/// A message that came with a method.
#[derive(Debug)]
pub struct Content {
    pub method: Came,
    pub properties: Bytes,
    pub body: Vec<u8>,
}

impl Content {
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub fn delivered(&self) -> BasicDeliver<'_> {
        match self.method.method() {
            Method::BasicDeliver(deliver) => deliver,
            other => panic!("{other:?}"),
        }
    }

    pub fn got(&self) -> BasicGetOk<'_> {
        match self.method.method() {
            Method::BasicGetOk(got) => got,
            other => panic!("{other:?}"),
        }
    }
}

/// Requests on channel 1.
impl Client {
    pub fn declare(&mut self, queue: &str) -> (String, u32, u32) {
        self.declare_as(&QueueDeclare { queue: ShortStr::cut(queue), durable: true, ..Default::default() })
    }

    /// Name, messages and consumers.
    pub fn declare_as(&mut self, declare: &QueueDeclare<'_>) -> (String, u32, u32) {
        let came = self.ask(1, declare);
        match came.method() {
            Method::QueueDeclareOk(ok) => (ok.queue.as_str().to_owned(), ok.message_count, ok.consumer_count),
            other => panic!("{other:?}"),
        }
    }

    pub fn select_confirms(&mut self) {
        assert!(matches!(self.ask(1, &ConfirmSelect::default()).method(), Method::ConfirmSelectOk(_)));
    }

    /// Publishes to the queue of that name.
    pub fn publish(&mut self, queue: &str, bodies: &[&str]) {
        let publish = BasicPublish { routing_key: ShortBytes::cut(queue), ..Default::default() };
        self.publish_as(&publish, &BasicProperties::default(), bodies);
    }

    pub fn publish_as(
        &mut self,
        publish: &BasicPublish<'_>,
        properties: &BasicProperties<'_>,
        bodies: &[&str],
    ) {
        let (properties, frame_max, on) = (properties.to_bytes(), self.frame_max, self.on);
        self.say(|out| {
            for body in bodies {
                let body = Bytes::copy_from_slice(body.as_bytes());
                out.content(on, publish, &properties, &body.into(), frame_max).unwrap();
            }
        });
    }

    /// Waits until all up to a tag are confirmed; the tags that were refused.
    pub fn confirmed(&mut self, last: u64) -> Vec<u64> {
        self.confirmed_from(0, last)
    }

    /// The same behind a tag that was confirmed before.
    pub fn confirmed_from(&mut self, mut done: u64, last: u64) -> Vec<u64> {
        let mut refused = Vec::new();
        while done < last {
            match self.frame().method() {
                Method::BasicAck(ack) => {
                    assert!(ack.multiple || ack.delivery_tag == done + 1, "{ack:?} behind {done}");
                    done = ack.delivery_tag;
                }
                Method::BasicNack(nack) => {
                    refused.extend(done + 1..=nack.delivery_tag);
                    done = nack.delivery_tag;
                }
                other => panic!("{other:?}"),
            }
        }
        refused
    }

    pub fn consume(&mut self, queue: &str, tag: &str, no_ack: bool) {
        let (queue, consumer_tag) = (ShortStr::cut(queue), ShortStr::cut(tag));
        let came = self.ask(1, &BasicConsume { queue, consumer_tag, no_ack, ..Default::default() });
        assert!(matches!(came.method(), Method::BasicConsumeOk(_)), "{came:?}");
    }

    pub fn qos(&mut self, prefetch_count: u16) {
        let came = self.ask(1, &BasicQos { prefetch_count, ..Default::default() });
        assert!(matches!(came.method(), Method::BasicQosOk(_)), "{came:?}");
    }

    pub fn ack(&mut self, delivery_tag: u64, multiple: bool) {
        self.say(|out| out.arguments(1, &BasicAck { delivery_tag, multiple }));
    }

    /// The next message.
    pub fn content(&mut self) -> Content {
        let method = self.frame();
        self.content_of(method)
    }

    /// The message whose method came.
    pub fn content_of(&mut self, method: Came) -> Content {
        let header = self.frame();
        assert_eq!(header.kind, FrameKind::Header, "{method:?}");
        let size = u64::from_be_bytes(header.payload[4..12].try_into().unwrap()) as usize;
        let mut body = Vec::new();
        while body.len() < size {
            body.extend_from_slice(&self.frame().payload);
        }
        Content { method, properties: header.payload.slice(12..), body }
    }

    /// The next message of a queue. What a client has let go of is ready when that is committed.
    pub fn get_soon(&mut self, queue: &str) -> Option<Content> {
        let began = std::time::Instant::now();
        while began.elapsed() < PATIENCE {
            let got = self.get(queue, true);
            if got.is_some() {
                return got;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        None
    }

    pub fn get(&mut self, queue: &str, no_ack: bool) -> Option<Content> {
        self.say(|out| {
            out.arguments(1, &BasicGet { queue: ShortStr::cut(queue), no_ack, ..Default::default() });
        });
        let first = self.frame();
        if matches!(first.method(), Method::BasicGetEmpty(_)) {
            return None;
        }
        let header = self.frame();
        let size = u64::from_be_bytes(header.payload[4..12].try_into().unwrap()) as usize;
        let mut body = Vec::new();
        while body.len() < size {
            body.extend_from_slice(&self.frame().payload);
        }
        Some(Content { method: first, properties: header.payload.slice(12..), body })
    }

    /// Asks for what may close the channel: with which code it did, or 0.
    pub fn refused_or_done<M: MethodArguments>(&mut self, arguments: &M) -> u16 {
        let came = self.ask(1, arguments);
        match came.method() {
            Method::ChannelClose(_) => self.channel_closed(&came).0,
            _ => 0,
        }
    }

    /// Asks for what closes the channel; with what, and opens it anew.
    pub fn refused<M: MethodArguments>(&mut self, arguments: &M) -> (u16, String) {
        let came = self.ask(1, arguments);
        self.channel_closed(&came)
    }

    pub fn channel_closed(&mut self, came: &Came) -> (u16, String) {
        let Method::ChannelClose(close) = came.method() else { panic!("{came:?}") };
        let said = (close.reply_code, close.reply_text.as_str().to_owned());
        self.say(|out| out.arguments(1, &ChannelCloseOk {}));
        self.open_channel(1);
        said
    }
}

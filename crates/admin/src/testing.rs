//! The port with a broker behind it, and requests as a user types them.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use axum::Router;
use sabir_base::clock::SystemClock;
use sabir_broker::{Broker, BrokerOptions, DiskKind};
use sabir_net::{Registered, Registry};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::{Admin, Options, ServedFrontend, Shown, serve};

/// What a small broker is opened with.
pub fn broker_options(data: &Path) -> BrokerOptions {
    BrokerOptions { disk: DiskKind::Pwrite, segment_bytes: 8 << 20, keep_free: 0, ..BrokerOptions::new(data) }
}

pub fn open(options: BrokerOptions) -> Broker {
    Broker::open(options, Arc::new(SystemClock)).unwrap()
}

/// A port that is served.
pub struct Served {
    pub admin: Admin,
    pub broker: Option<Broker>,
    address: SocketAddr,
    /// A connection that is open.
    pub connection: Option<Registered>,
    _data: Option<tempfile::TempDir>,
}

impl Served {
    /// Without a broker.
    pub fn starting() -> Self {
        Self::with(Options::default())
    }

    /// Without a broker.
    pub fn with(options: Options) -> Self {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        socket.set_nonblocking(true).unwrap();
        let address = socket.local_addr().unwrap();
        let admin = Admin::new(options);
        tokio::spawn(serve(vec![socket], admin.clone(), std::future::pending()));
        Self { admin, broker: None, address, connection: None, _data: None }
    }

    /// With an empty broker.
    pub fn running(options: Options) -> Self {
        let data = tempfile::tempdir().unwrap();
        let mut served = Self::over(open(broker_options(data.path())), options);
        served._data = Some(data);
        served
    }

    /// With this broker.
    pub fn over(broker: Broker, options: Options) -> Self {
        Self::with_routes(broker, options, Vec::new())
    }

    /// With this broker, and what protocols mount.
    pub fn with_routes(broker: Broker, options: Options, routes: Vec<(&'static str, Router)>) -> Self {
        let mut served = Self::with(options);
        let front_end = ServedFrontend {
            name: "test",
            listening: vec!["127.0.0.1:1".parse().unwrap(), "[::1]:2".parse().unwrap()],
            advertise: vec!["here:1".into(), "there:2".into()],
            open: 1,
            accepted: 2,
            refused: 3,
        };
        let front_ends = Box::new(move || vec![front_end.clone()]);
        let registry = Registry::default();
        let (peer, local) = ("127.0.0.1:7".parse().unwrap(), "127.0.0.1:1".parse().unwrap());
        served.connection = Some(registry.enter(peer, local));
        let broker_shown = broker.clone();
        served.admin.running(Shown {
            broker: broker_shown,
            figures: Vec::new(),
            front_ends,
            registry,
            routes,
        });
        served.broker = Some(broker);
        served
    }

    /// A connection on which nothing was said.
    pub async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// The whole answer to a request.
    pub async fn ask(&self, request: &str) -> String {
        let mut stream = self.connect().await;
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    pub async fn get(&self, path: &str) -> String {
        self.send("GET", path, "", "").await
    }

    /// A request with more header lines and a body of JSON, if there is one.
    pub async fn send(&self, method: &str, path: &str, headers: &str, body: &str) -> String {
        let length = match body {
            "" => String::new(),
            body => format!("content-type: application/json\r\ncontent-length: {}\r\n", body.len()),
        };
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{headers}{length}\r\n"
        );
        self.ask(&(head + body)).await
    }

    /// The code of an answer and what its body says.
    pub async fn json(&self, method: &str, path: &str, body: &str) -> (u16, Value) {
        let answer = self.send(method, path, "", body).await;
        (code(&answer), content(&answer))
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        if let Some(broker) = self.broker.take() {
            broker.shutdown();
        }
    }
}

/// The code of an answer.
pub fn code(answer: &str) -> u16 {
    answer["HTTP/1.1 ".len()..][..3].parse().unwrap()
}

/// The body of an answer, in JSON; null if it has none.
pub fn content(answer: &str) -> Value {
    let body = body(answer);
    if body.is_empty() { Value::Null } else { serde_json::from_str(&body).unwrap() }
}

/// The body of an answer.
pub fn body(answer: &str) -> String {
    let (head, mut rest) = answer.split_once("\r\n\r\n").unwrap();
    if !head.contains("transfer-encoding: chunked") {
        return rest.to_owned();
    }
    let mut body = String::new();
    loop {
        let (length, chunk) = rest.split_once("\r\n").unwrap();
        match usize::from_str_radix(length, 16).unwrap() {
            0 => return body,
            length => {
                body += &chunk[..length];
                rest = &chunk[length + 2..];
            }
        }
    }
}

//! A node that serves the protocol at two addresses, and clients of it.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use sabir_server::config::{ServerConfig, Sources};
use sabir_server::{Running, protocols, start};

/// Long enough for a busy machine, short enough to see that a test hangs.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Each is tried with so many data shards.
pub const SHARDS: [u32; 2] = [1, 3];

pub struct Node {
    running: Option<Running>,
    pub addresses: Vec<SocketAddr>,
    pub kafka: SocketAddr,
    pub admin: SocketAddr,
}

impl Node {
    pub fn start(data: &Path, shards: u32) -> Self {
        let shards = format!("data.shards={shards}");
        let at = "probe.listen=127.0.0.1:0,127.0.0.1:0";
        Self::with(data, &[at, "probe.advertise=auto,second.example.com:77", &shards])
    }

    /// One that no setting told to serve the protocol.
    pub fn quiet(data: &Path) -> Self {
        Self::with(data, &[])
    }

    fn with(data: &Path, settings: &[&str]) -> Self {
        let common = [
            "net.default_listen=off",
            "kafka.listen=127.0.0.1:0",
            "admin.listen=127.0.0.1:0",
            "net.io_threads=2",
        ];
        let set = common.iter().chain(settings).map(|setting| setting.to_string()).collect();
        let sources = Sources { data: Some(data.into()), set, ..Sources::default() };
        let running = start(ServerConfig::load(&sources, protocols()).unwrap()).unwrap();
        let serving = |name| running.serving().iter().filter(move |served| served.protocol == name);
        let listening = |name| serving(name).flat_map(|served| &served.listening).map(|at| at.address);
        Self {
            addresses: listening("probe").collect(),
            kafka: listening("kafka").next().unwrap(),
            admin: running.admin()[0],
            running: Some(running),
        }
    }

    pub fn running(&self) -> &Running {
        self.running.as_ref().unwrap()
    }

    pub fn stop(mut self) {
        assert_eq!(self.running.take().unwrap().stop().cut_off, 0);
    }

    pub fn connect(&self) -> Lines {
        self.connect_at(0)
    }

    /// A client that comes by one of the addresses.
    pub fn connect_at(&self, listener: usize) -> Lines {
        Lines::connect(self.addresses[listener])
    }

    /// A request to the admin port: the answer's status and body.
    pub fn http(&self, method: &str, path: &str, body: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(self.admin).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let head = format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close");
        write!(stream, "{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.running.take().map(Running::stop);
    }
}

/// A connection.
pub struct Lines(BufReader<TcpStream>);

impl Lines {
    pub fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self(BufReader::new(stream))
    }

    /// Sends lines together.
    pub fn send(&mut self, lines: &[&str]) {
        let all: String = lines.iter().flat_map(|line| [line, "\n"]).collect();
        self.0.get_mut().write_all(all.as_bytes()).unwrap();
    }

    /// The next line; nothing at the end.
    pub fn line(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        line.trim_end_matches('\n').to_owned()
    }

    pub fn lines<const N: usize>(&mut self) -> [String; N] {
        std::array::from_fn(|_| self.line())
    }

    pub fn ask(&mut self, line: &str) -> String {
        self.send(&[line]);
        self.line()
    }

    /// The same of a node that may close the connection meanwhile: nothing then.
    pub fn try_ask(&mut self, line: &str) -> Option<String> {
        self.0.get_mut().write_all(format!("{line}\n").as_bytes()).ok()?;
        let mut answer = String::new();
        self.0.read_line(&mut answer).ok()?;
        answer.strip_suffix('\n').map(str::to_owned)
    }

    /// Asks for a lease until there is one. Gives the answer, and how long that took.
    pub fn leased(&mut self, queue: &str) -> (String, Duration) {
        let began = Instant::now();
        loop {
            let answer = self.ask(&format!("LEASE {queue} 600000"));
            if answer != "NIL" {
                return (answer, began.elapsed());
            }
            assert!(began.elapsed() < PATIENCE);
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Whether nothing comes for a moment.
    pub fn is_silent(&mut self) -> bool {
        self.0.get_ref().set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        let mut line = String::new();
        let read = self.0.read_line(&mut line);
        self.0.get_ref().set_read_timeout(Some(PATIENCE)).unwrap();
        matches!(read, Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut))
            && line.is_empty()
    }
}

//! A broker as its users start it, and commands as they type them.
#![allow(dead_code)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::time::Duration;

/// How long anything may take before a test gives up on it.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// The program, without settings from the environment that the tests run in.
pub fn sabir(args: &[&str]) -> Command {
    of_no_settings(Command::new(env!("CARGO_BIN_EXE_sabir")), args)
}

/// The same with files of 16 KiB at the most, which stands for a full disk.
pub fn sabir_without_space(args: &[&str]) -> Command {
    let mut command = Command::new("bash");
    command.args(["-c", "ulimit -S -f 16 && exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_sabir")]);
    of_no_settings(command, args)
}

fn of_no_settings(mut command: Command, args: &[&str]) -> Command {
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("SABIR") {
            command.env_remove(name);
        }
    }
    command.args(args).stdin(Stdio::null());
    command
}

/// What a command that ended said.
pub struct Said {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Said {
    fn of(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).expect("output is text");
        let code = output.status.code().expect("it was not killed by a signal");
        Self { code, out: text(output.stdout), err: text(output.stderr) }
    }

    /// The output of a command that must succeed.
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(self.code, 0, "out: {}\nerr: {}", self.out, self.err);
        self.out
    }

    /// The complaint of a command that must end with `code`.
    #[track_caller]
    pub fn fails(self, code: i32) -> String {
        assert_eq!(self.code, code, "out: {}\nerr: {}", self.out, self.err);
        assert!(self.err.starts_with("error: "), "err: {}", self.err);
        self.err
    }
}

pub fn run(args: &[&str]) -> Said {
    Said::of(sabir(args).output().expect("the program starts"))
}

/// A broker on free ports.
pub struct Broker {
    child: Child,
    pub kafka: String,
    pub admin: String,
    pub log: Vec<serde_json::Value>,
    /// What comes behind it.
    lines: mpsc::Receiver<String>,
}

impl Broker {
    pub fn start(data: &std::path::Path, settings: &[&str]) -> Self {
        let data = data.to_str().expect("a path in text");
        let mut args = vec!["serve", "--data", data, "--set", "log.format=json"];
        for set in ["net.default_listen=off", "kafka.listen=127.0.0.1:0", "admin.listen=127.0.0.1:0"]
            .iter()
            .chain(settings)
        {
            args.extend(["--set", set]);
        }
        let mut child = sabir(&args).stderr(Stdio::piped()).spawn().expect("the program starts");
        let lines = BufReader::new(child.stderr.take().expect("it is piped")).lines();
        let (sender, receiver) = mpsc::channel();
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(|line| drop(sender.send(line))));
        let (kafka, admin, log) = (String::new(), String::new(), Vec::new());
        let mut broker = Self { child, kafka, admin, log, lines: receiver };
        loop {
            let line = broker.line("the broker says that it is ready");
            let text = |key: &str| line[key].as_str().unwrap_or_default().to_owned();
            match text("protocol").as_str() {
                "kafka" => broker.kafka = text("address"),
                "http" => broker.admin = text("address"),
                _ => {}
            }
            let ready = text("message").starts_with("ready after");
            broker.log.push(line);
            if ready {
                return broker;
            }
        }
    }

    fn line(&self, expected: &str) -> serde_json::Value {
        let line = self.lines.recv_timeout(PATIENCE).expect(expected);
        serde_json::from_str(&line).expect("each line is an object")
    }

    /// Waits for a line of the log that has these words.
    pub fn until_logged(&mut self, words: &str) {
        while !self.line(words)["message"].as_str().unwrap_or_default().contains(words) {}
    }

    /// A client command of a protocol against this broker.
    pub fn run_as(&self, protocol: &str, args: &[&str]) -> Said {
        Said::of(self.command_as(protocol, args).output().expect("the program starts"))
    }

    /// The same, not yet started. What the protocol does not administer is the admin port's.
    pub fn command_as(&self, protocol: &str, args: &[&str]) -> Command {
        let serving = self.log.iter().find(|line| line["protocol"] == protocol).expect("it is served");
        let address = serving["address"].as_str().expect("it listens somewhere");
        let mut command = sabir(&[args, &["--proto", protocol, "--address", address]].concat());
        command.env("SABIR_ADMIN", format!("http://{}", self.admin));
        command
    }

    /// A client command against this broker.
    pub fn run(&self, args: &[&str]) -> Said {
        Said::of(self.command(args).output().expect("the program starts"))
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = sabir(args);
        command.env("SABIR_ADDRESS", &self.kafka);
        command
    }

    /// A client command that is given `input` on stdin.
    pub fn run_with(&self, args: &[&str], input: &[u8]) -> Said {
        let mut command = self.command(args);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the program starts");
        child.stdin.take().expect("it is piped").write_all(input).expect("it reads");
        Said::of(child.wait_with_output().expect("it ends"))
    }

    pub fn get(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(&self.admin).expect("the admin port answers");
        let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).expect("it reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("it answers in text");
        answer
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal, as `kill` does.
    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([&format!("-{name}"), &self.pid().to_string()]).status();
        assert!(sent.expect("kill is there").success());
    }

    /// Stops it as an operator does; its exit code.
    pub fn stop(self) -> Option<i32> {
        self.signal("TERM");
        self.wait()
    }

    /// Waits for its end; its exit code.
    pub fn wait(mut self) -> Option<i32> {
        self.child.wait().expect("it ends").code()
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // It has ended already, or nothing else matters.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

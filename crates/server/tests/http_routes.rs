//! Protocols that mount routes on the admin port.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;

use axum::Router;
use axum::routing::get;
use sabir_frontend::client::Connector;
use sabir_frontend::config::{ConfigError, Setting, SettingsTable};
use sabir_frontend::{Configured, FrontendContext, Protocol, StartedFrontend};
use sabir_net::{Connection, Frontend, LocalBoxFuture};
use sabir_server::config::{ServerConfig, Sources};
use sabir_server::start;

/// A protocol with this name and this prefix.
struct Mounting(&'static str, Option<&'static str>);

struct MountingConfig {
    name: &'static str,
    prefix: Option<&'static str>,
}

struct Silent(&'static str);

impl Protocol for Mounting {
    fn name(&self) -> &'static str {
        self.0
    }

    fn default_listen(&self) -> &'static str {
        "\"127.0.0.1:0\""
    }

    fn settings(&self) -> &'static [Setting] {
        &[]
    }

    fn configure(&self, _: SettingsTable) -> Result<Box<dyn Configured>, ConfigError> {
        Ok(Box::new(MountingConfig { name: self.0, prefix: self.1 }))
    }

    fn connector(&self) -> &'static dyn Connector {
        panic!("nobody connects to it")
    }
}

impl Configured for MountingConfig {
    fn http_prefix(&self) -> Option<&'static str> {
        self.prefix
    }

    fn start(self: Box<Self>, context: FrontendContext) -> StartedFrontend {
        let name = self.name;
        let topics = move || async move { format!("{name} sees {} topics", context.broker.catalog().len()) };
        StartedFrontend::from(Arc::new(Silent(name))).with_http(Router::new().route("/topics", get(topics)))
    }
}

impl Frontend for Silent {
    fn name(&self) -> &'static str {
        self.0
    }

    fn serve(self: Arc<Self>, _: Connection) -> LocalBoxFuture {
        Box::pin(async {})
    }
}

fn load(data: &Path, protocols: &[&'static dyn Protocol], set: &[&str]) -> Result<ServerConfig, String> {
    let set = [&["admin.listen=127.0.0.1:0"], set].concat().iter().map(|s| s.to_string()).collect();
    let sources = Sources { data: Some(data.into()), set, ..Sources::default() };
    ServerConfig::load(&sources, protocols).map_err(|errors| errors.to_string())
}

fn ask(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("the admin port answers");
    let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers in text");
    answer
}

#[test]
fn each_protocols_routes_lie_below_its_prefix() {
    let data = tempfile::tempdir().unwrap();
    let config = load(data.path(), &[&Mounting("one", Some("/one")), &Mounting("two", Some("/two"))], &[]);
    let running = start(config.unwrap()).unwrap();
    let address = running.admin()[0];
    for name in ["one", "two"] {
        let answer = ask(address, &format!("/{name}/topics"));
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert!(answer.ends_with(&format!("{name} sees 0 topics")), "{answer}");
    }
    let answer = ask(address, "/one/none");
    assert!(
        answer.starts_with("HTTP/1.1 404") && answer.contains("urn:sabir:problem:unknown-path"),
        "{answer}"
    );
    running.stop();
}

#[test]
fn two_protocols_that_claim_one_prefix_are_refused_by_name() {
    let data = tempfile::tempdir().unwrap();
    let both: [&'static dyn Protocol; 2] = [&Mounting("one", Some("/api")), &Mounting("two", Some("/api"))];
    let refused = load(data.path(), &both, &[]).err().unwrap();
    assert!(refused.contains("two.listen: /api of the admin port is one's already"), "{refused}");
    assert!(load(data.path(), &both, &["two.listen=off"]).is_ok(), "one of them is off");
    for (prefix, says) in
        [("/sabir", "the admin port itself"), ("/", "one name"), ("api", "one name"), ("/a/b", "one name")]
    {
        let wrong: &'static dyn Protocol = Box::leak(Box::new(Mounting("one", Some(prefix))));
        let refused = load(data.path(), &[wrong], &[]).err().unwrap();
        assert!(refused.contains("one.listen") && refused.contains(says), "{prefix}: {refused}");
    }
    let same: [&'static dyn Protocol; 2] = [&Mounting("one", None), &Mounting("two", None)];
    assert!(load(data.path(), &same, &[]).is_ok(), "none is no prefix");
}

//! The admin port as the command line asks it: a connection for each request, bounded in time and in bytes, and what it says went wrong as
//! an error that has an exit code.

mod administered;
mod alone;
pub mod connections;
pub mod delayed;
mod groups;
pub mod redrives;
mod topics;

use std::io::Write;
use std::str::FromStr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{Method, Request, Response, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use sabir_server::client::{ClientError, Failure};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::net::TcpStream;

pub use administered::Administered;

use crate::command::in_time;
use crate::failure::CliError;

/// The port that a broker's admin port usually has.
const PORT: u16 = 15672;
/// Bytes of an answer that are taken at most.
const ANSWER: usize = 64 << 20;
/// Bytes of what went wrong that are taken at most.
const PROBLEM: usize = 64 << 10;
/// Where the API lies.
const PREFIX: &str = "/sabir/v1";

/// Where an admin port is, as a user says it: `http://host:port`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminUrl {
    /// Without the brackets of an IPv6 address.
    host: String,
    port: u16,
}

impl FromStr for AdminUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("expected http://HOST:PORT, not {text:?}");
        let whole = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
        let url: Uri = whole.parse().map_err(|_| wrong())?;
        match (url.scheme_str(), url.authority()) {
            (Some("http"), Some(authority)) if matches!(url.path(), "" | "/") && url.query().is_none() => {
                let port = match authority.port_u16() {
                    Some(port) if !authority.as_str().contains('@') => port,
                    None if authority.as_str() == authority.host() => PORT,
                    _ => return Err(wrong()),
                };
                Ok(Self::at(authority.host(), port))
            }
            (Some("https"), _) => Err("the admin port speaks http, not https".into()),
            _ => Err(wrong()),
        }
    }
}

impl Default for AdminUrl {
    fn default() -> Self {
        Self::at("127.0.0.1", PORT)
    }
}

impl std::fmt::Display for AdminUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "http://{}", self.authority())
    }
}

impl AdminUrl {
    fn at(host: &str, port: u16) -> Self {
        Self { host: host.trim_matches(['[', ']']).to_owned(), port }
    }

    /// The usual admin port beside a broker at `address`, which may have a port.
    pub fn beside(address: &str) -> Self {
        let authority: Option<hyper::http::uri::Authority> = address.parse().ok();
        authority.map_or_else(|| Self::at(address, PORT), |found| Self::at(found.host(), PORT))
    }

    fn authority(&self) -> String {
        match self.host.contains(':') {
            true => format!("[{}]:{}", self.host, self.port),
            false => format!("{}:{}", self.host, self.port),
        }
    }
}

/// Whose topics or groups are meant; where nothing is said, those that the admin port means.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AdminScope {
    pub protocol: Option<String>,
    pub namespace: Option<String>,
}

impl AdminScope {
    /// What a path has behind it to say so of groups.
    fn of_groups(&self, rest: &str) -> String {
        query([("protocol", &self.protocol), ("namespace", &self.namespace)], rest)
    }

    /// The same of topics, which are no protocol's.
    fn of_topics(&self, rest: &str) -> String {
        query([("namespace", &self.namespace)], rest)
    }
}

fn query<const N: usize>(said: [(&str, &Option<String>); N], rest: &str) -> String {
    let said = said.iter().filter_map(|(name, value)| Some(format!("{name}={}", escaped(value.as_deref()?))));
    let parts: Vec<String> = said.chain((!rest.is_empty()).then(|| rest.to_owned())).collect();
    if parts.is_empty() { String::new() } else { format!("?{}", parts.join("&")) }
}

/// A client of an admin port.
#[derive(Debug, Clone)]
pub struct AdminClient {
    url: AdminUrl,
    owner: AdminScope,
    /// How long an answer, or the next piece of a long one, may take.
    timeout: Duration,
}

impl AdminClient {
    pub fn new(url: AdminUrl, timeout: Duration) -> Self {
        Self { url, owner: AdminScope::default(), timeout }
    }

    /// The same for what is that owner's.
    pub fn about(self, owner: AdminScope) -> Self {
        Self { owner, ..self }
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.ask(Method::GET, path, Bytes::new()).await
    }

    /// Asks for something to be done of which nothing is told.
    async fn order(&self, method: Method, path: &str, body: Option<Value>) -> Result<(), ClientError> {
        let body = body.map(|body| body.to_string().into()).unwrap_or_default();
        self.send(method, path, body).await.map(drop)
    }

    pub async fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<T, ClientError> {
        let answer = self.send(method, path, body).await?;
        serde_json::from_slice(&self.whole(answer, ANSWER).await?)
            .map_err(|error| ClientError::new(Failure::Broken, format!("{}{path}: {error}", self.url)))
    }

    /// Writes an answer as it comes, however long it is.
    pub async fn copy(&self, path: &str, out: &mut impl Write) -> Result<(), CliError> {
        let mut answer = self.send(Method::GET, path, Bytes::new()).await?;
        loop {
            let piece = in_time(self.timeout, async {
                answer.body_mut().frame().await.transpose().map_err(|error| self.broken(&error))
            });
            let Some(piece) = piece.await? else { return Ok(out.flush()?) };
            if let Some(bytes) = piece.data_ref() {
                out.write_all(bytes)?;
            }
        }
    }

    /// The head of an answer that says yes.
    async fn send(&self, method: Method, path: &str, body: Bytes) -> Result<Response<Incoming>, ClientError> {
        let answer = in_time(self.timeout, self.exchange(method, path, body)).await?;
        if answer.status().is_success() { Ok(answer) } else { Err(self.refusal(answer).await) }
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<Response<Incoming>, ClientError> {
        let stream = TcpStream::connect((&*self.url.host, self.url.port)).await;
        let stream = stream.map_err(|error| self.unreachable(&error))?;
        let handshake = http1::handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = handshake.map_err(|error| self.unreachable(&error))?;
        // It ends with the answer, and what goes wrong with it is told to the command that waits for that.
        tokio::spawn(connection);
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{PREFIX}{path}"))
            .header(HOST, self.url.authority());
        if !body.is_empty() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        let request = request.body(Full::new(body));
        let request = request.map_err(|error| ClientError::new(Failure::Refused, error.to_string()))?;
        sender.send_request(request).await.map_err(|error| self.unreachable(&error))
    }

    async fn whole(&self, answer: Response<Incoming>, most: usize) -> Result<Bytes, ClientError> {
        let arriving = async {
            let body = Limited::new(answer.into_body(), most).collect().await;
            body.map(|body| body.to_bytes()).map_err(|error| self.broken(&error))
        };
        in_time(self.timeout, arriving).await
    }

    /// What an answer says that says no.
    async fn refusal(&self, answer: Response<Incoming>) -> ClientError {
        let status = answer.status();
        let body = match self.whole(answer, PROBLEM).await {
            Ok(body) => body,
            Err(error) => return error,
        };
        match serde_json::from_slice::<ToldProblem>(&body) {
            Ok(told) => told.error(status),
            Err(_) => {
                let problem = format!("what answers at {} is no admin port: it says {status}", self.url);
                ClientError::new(Failure::AdminPort, problem)
            }
        }
    }

    fn unreachable(&self, error: &dyn std::fmt::Display) -> ClientError {
        ClientError::new(
            Failure::AdminPort,
            format!("the admin port at {} does not answer: {error}", self.url),
        )
    }

    fn broken(&self, error: &dyn std::fmt::Display) -> ClientError {
        ClientError::new(Failure::Broken, format!("the answer of {} broke off: {error}", self.url))
    }
}

/// What went wrong, as RFC 9457 has it.
#[derive(Debug, Deserialize)]
struct ToldProblem {
    r#type: String,
    detail: String,
}

impl ToldProblem {
    fn error(self, status: StatusCode) -> ClientError {
        let (failure, is_redrive) = (self.failure(status), self.r#type.ends_with(":unknown-redrive"));
        let error = ClientError::new(failure, self.detail);
        if is_redrive { error.advise("`sabir dlq redrives` shows what there is.") } else { error }
    }

    fn failure(&self, status: StatusCode) -> Failure {
        match (self.r#type.rsplit(':').next(), status) {
            // A broker of an earlier version.
            (Some("unknown-path" | "method-not-allowed"), _) => Failure::Unsupported,
            (Some("topic-exists" | "exchange-exists"), _) => Failure::Exists,
            (_, StatusCode::NOT_FOUND) => Failure::NotFound,
            (_, StatusCode::REQUEST_TIMEOUT | StatusCode::GATEWAY_TIMEOUT) => Failure::Timeout,
            (_, StatusCode::INTERNAL_SERVER_ERROR) => Failure::Broken,
            _ => Failure::Refused,
        }
    }
}

/// A name as a part of a path, or a value in a query.
fn escaped(name: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-' | b'~');
    let escape = |b: u8| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") };
    name.bytes().map(escape).collect()
}

#[cfg(test)]
mod tests;

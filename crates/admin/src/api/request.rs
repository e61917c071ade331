//! What is taken out of requests: the broker, the right to change something, names, pages and bodies.

use std::time::Duration;

use axum::body::Bytes;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::request::Parts;
use axum::http::{Extensions, HeaderMap, StatusCode, header};
use sabir_broker::{Broker, Caller};
use sabir_model::Namespace;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::problem::Problem;
use crate::http::Peer;
use crate::{Admin, Shown, State, Writes};

/// The largest body taken.
pub const BODY: usize = 64 * 1024;
/// A body must be there by then.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// What is shown of a broker that takes requests.
pub struct Open(pub std::sync::Arc<Shown>);

impl FromRequestParts<Admin> for Open {
    type Rejection = Problem;

    async fn from_request_parts(_: &mut Parts, admin: &Admin) -> Result<Self, Problem> {
        let unavailable =
            |detail: &str| Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", detail));
        match admin.state() {
            State::Running(shown) => Ok(Self(shown)),
            State::Starting => unavailable("the broker is starting: the journal is being opened"),
            State::Stopping => unavailable("the broker is stopping"),
        }
    }
}

/// That the client may change something.
pub struct WriteAccess;

impl FromRequestParts<Admin> for WriteAccess {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, admin: &Admin) -> Result<Self, Problem> {
        check_writer(admin, &parts.extensions, &parts.headers).map(|()| Self)
    }
}

/// Whether a request with these headers may change something.
pub fn check_writer(admin: &Admin, extensions: &Extensions, headers: &HeaderMap) -> Result<(), Problem> {
    let peer = extensions.get::<Peer>().map(|peer| peer.0.ip().to_canonical());
    match admin.options.writes {
        Writes::Off => Err(forbidden("changes are not taken here (admin.writes = \"off\")")),
        Writes::Loopback if !peer.is_some_and(|ip| ip.is_loopback()) => {
            Err(forbidden("changes are taken from this machine only (admin.writes = \"loopback\")"))
        }
        // Browsers say so of every change that a page asks for, and no client logs in here.
        _ if headers.contains_key(header::ORIGIN) => Err(forbidden("changes are not taken from web pages")),
        Writes::Loopback | Writes::Anywhere => Ok(()),
    }
}

fn forbidden(detail: &str) -> Problem {
    Problem::new(StatusCode::FORBIDDEN, "forbidden", detail)
}

/// The name that the path ends with.
pub struct Name(pub String);

impl FromRequestParts<Admin> for Name {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, admin: &Admin) -> Result<Self, Problem> {
        let taken: Result<Path<String>, PathRejection> = Path::from_request_parts(parts, admin).await;
        taken.map(|Path(name)| Self(name)).map_err(|error| Problem::bad_request(error.body_text()))
    }
}

/// The name of what has something, and the name of that, with which the path ends.
pub struct NamePair(pub String, pub String);

impl FromRequestParts<Admin> for NamePair {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, admin: &Admin) -> Result<Self, Problem> {
        let taken: Result<Path<(String, String)>, PathRejection> =
            Path::from_request_parts(parts, admin).await;
        let names = taken.map_err(|error| Problem::bad_request(error.body_text()));
        names.map(|Path((outer, inner))| Self(outer, inner))
    }
}

/// Which part of a list is wanted.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Page {
    /// Only what comes behind this name.
    pub after: Option<String>,
    /// Only names that begin so.
    pub prefix: String,
    /// So many at most.
    pub limit: usize,
    /// Only what is in this namespace.
    pub namespace: Option<String>,
    /// Only what is this protocol's.
    pub protocol: Option<String>,
}

impl Default for Page {
    fn default() -> Self {
        Self { after: None, prefix: String::new(), limit: 100, namespace: None, protocol: None }
    }
}

impl FromRequestParts<Admin> for Page {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, admin: &Admin) -> Result<Self, Problem> {
        let taken: Result<Query<Page>, QueryRejection> = Query::from_request_parts(parts, admin).await;
        let Query(page) = taken.map_err(|error| Problem::bad_request(error.body_text()))?;
        match page.limit {
            1..=1000 => Ok(page),
            _ => Err(Problem::bad_request("limit: expected a number from 1 to 1000")),
        }
    }
}

impl Page {
    /// Refuses what a list does not go by.
    pub fn goes_by(&self, namespace: bool, protocol: bool) -> Result<(), Problem> {
        let asked = [
            ("namespace", !namespace && self.namespace.is_some()),
            ("protocol", !protocol && self.protocol.is_some()),
        ];
        match asked.iter().find(|(_, wrong)| *wrong) {
            Some((name, _)) => Err(Problem::bad_request(format!("{name}: this list does not go by it"))),
            None => Ok(()),
        }
    }

    /// Whether what is of that namespace is wanted.
    pub fn is_within(&self, namespace: &str) -> bool {
        self.namespace.as_deref().is_none_or(|wanted| wanted == namespace)
    }

    fn wants(&self, name: &str) -> bool {
        self.after.as_deref().is_none_or(|after| name > after) && name.starts_with(&self.prefix)
    }

    /// The part of `all` that is wanted, by name, and after which name the next part begins.
    pub fn cut<T>(
        &self,
        all: impl Iterator<Item = T>,
        name: impl Fn(&T) -> &str,
    ) -> (Vec<T>, Option<String>) {
        let mut wanted: Vec<T> = all.filter(|one| self.wants(name(one))).collect();
        wanted.sort_unstable_by(|a, b| name(a).cmp(name(b)));
        let more = wanted.len() > self.limit;
        wanted.truncate(self.limit);
        let next = wanted.last().filter(|_| more).map(|last| name(last).to_owned());
        (wanted, next)
    }
}

/// Whose groups are meant: those of the front end and the namespace that are asked for, or of the first.
pub struct Owner(pub Caller);

#[derive(Debug, Deserialize)]
struct OwnerQuery {
    protocol: Option<String>,
    namespace: Option<String>,
}

impl FromRequestParts<Admin> for Owner {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, admin: &Admin) -> Result<Self, Problem> {
        let Open(shown) = Open::from_request_parts(parts, admin).await?;
        let taken: Result<Query<OwnerQuery>, QueryRejection> = Query::from_request_parts(parts, admin).await;
        let Query(OwnerQuery { protocol, namespace }) =
            taken.map_err(|error| Problem::bad_request(error.body_text()))?;
        let mut caller = Caller::OPERATOR;
        if let Some(name) = protocol {
            caller = caller.about(protocol_named(&shown.broker, &name)?);
        }
        within(caller, namespace).map(Self)
    }
}

/// The front end of that name.
pub fn protocol_named(broker: &Broker, name: &str) -> Result<&'static str, Problem> {
    let known = broker.options().front_ends.iter().find(|known| **known == name);
    known.copied().ok_or_else(|| Problem::bad_request(format!("protocol: there is none called {name:?}")))
}

fn within(caller: Caller, namespace: Option<String>) -> Result<Caller, Problem> {
    let Some(name) = namespace else { return Ok(caller) };
    let illegal = || Problem::bad_request(format!("namespace: none can be called {name:?}"));
    Ok(caller.within(Namespace::named(&name).ok_or_else(illegal)?))
}

/// The operator in the namespace that is asked for, or in the default one.
pub struct Within(pub Caller);

#[derive(Debug, Deserialize)]
struct NamespaceQuery {
    namespace: Option<String>,
}

impl FromRequestParts<Admin> for Within {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, admin: &Admin) -> Result<Self, Problem> {
        let taken: Result<Query<NamespaceQuery>, QueryRejection> =
            Query::from_request_parts(parts, admin).await;
        let Query(asked) = taken.map_err(|error| Problem::bad_request(error.body_text()))?;
        within(Caller::OPERATOR, asked.namespace).map(Self)
    }
}

/// A body in JSON.
pub struct Body<T>(pub T);

impl<T: DeserializeOwned> FromRequest<Admin> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &Admin) -> Result<Self, Problem> {
        read_json(request, BODY, BODY_TIMEOUT).await.map(Self)
    }
}

/// The body of a request in JSON, if it has at most `most` bytes and is there within `patience`.
async fn read_json<T: DeserializeOwned>(
    request: Request,
    most: usize,
    patience: Duration,
) -> Result<T, Problem> {
    parse(&read(request, most, patience).await?)
}

/// The body of a request that says it is JSON.
pub async fn read(request: Request, most: usize, patience: Duration) -> Result<Bytes, Problem> {
    // A page elsewhere may send other types without asking first.
    let form = request.headers().get(header::CONTENT_TYPE).and_then(|form| form.to_str().ok());
    if form.and_then(|form| form.split(';').next()).is_none_or(|form| form.trim() != "application/json") {
        let detail = "the body must be JSON: content-type: application/json";
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported-media-type", detail));
    }
    let arriving = axum::body::to_bytes(request.into_body(), most);
    match tokio::time::timeout(patience, arriving).await {
        Ok(Ok(body)) => Ok(body),
        Ok(Err(_)) => {
            let detail = format!("the body is broken off, or over {most} bytes");
            Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", detail))
        }
        Err(_) => {
            let detail = "the body did not arrive in time";
            Err(Problem::new(StatusCode::REQUEST_TIMEOUT, "timeout", detail))
        }
    }
}

/// What a body in JSON says.
pub fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    let mut json = serde_json::Deserializer::from_slice(body);
    let value =
        serde_path_to_error::deserialize(&mut json).map_err(|error| Problem::bad_request(placed(&error)))?;
    json.end().map(|()| value).map_err(|error| Problem::bad_request(error.to_string()))
}

/// What is wrong with a body, behind where it is.
fn placed(error: &serde_path_to_error::Error<serde_json::Error>) -> String {
    match error.path().to_string() {
        whole if whole == "." => error.inner().to_string(),
        path => format!("{path}: {}", error.inner()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_follow_one_another() {
        let names = ["b", "ac", "a", "c", "ab"];
        let cut = |after: Option<&str>, prefix: &str, limit| {
            let page =
                Page { after: after.map(str::to_owned), prefix: prefix.into(), limit, ..Page::default() };
            let (names, next) = page.cut(names.iter(), |name| name);
            (names.into_iter().copied().collect::<Vec<_>>(), next)
        };
        assert_eq!(cut(None, "", 2), (vec!["a", "ab"], Some("ab".into())));
        assert_eq!(cut(Some("ab"), "", 3), (vec!["ac", "b", "c"], None));
        assert_eq!(cut(None, "a", 9), (vec!["a", "ab", "ac"], None));
    }
}

//! By which names the port may be asked. A web page can make a name of its own mean this machine (DNS rebinding), and would then
//! read what no client has to log in for: the name it asks by gives it away.

use std::net::{Ipv4Addr, Ipv6Addr};

use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::Admin;
use crate::api::Problem;

/// Refuses what is asked by a strange name. Whether the process lives is told to every client.
pub async fn check(State(admin): State<Admin>, request: Request, next: Next) -> Response {
    match refusal(&admin.options.hosts, &request).filter(|_| request.uri().path() != "/livez") {
        Some(refusal) => refusal.into_response(),
        None => next.run(request).await,
    }
}

fn refusal(known: &[String], request: &Request) -> Option<Problem> {
    if request.headers().get_all(header::HOST).iter().nth(1).is_some() {
        return Some(Problem::bad_request("it has more than one Host header"));
    }
    let name = strange(known, request)?;
    let detail = format!(
        "this port is not to be asked by the name {name:?}: web pages could reach it so; ask by an address or by \
         localhost, or add the name to admin.hosts"
    );
    Some(Problem::new(StatusCode::MISDIRECTED_REQUEST, "misdirected", detail))
}

/// The first name in the request that is not known. Programs that say none are no browsers.
fn strange(known: &[String], request: &Request) -> Option<String> {
    let line = request.headers().get(header::HOST);
    let line = line.map(|line| String::from_utf8_lossy(line.as_bytes()).into_owned());
    let asked = request.uri().authority().map(ToString::to_string);
    line.into_iter().chain(asked).find(|text| !is_known(known, text))
}

fn is_known(known: &[String], text: &str) -> bool {
    match host_of(text) {
        Some(Host::Address) => true,
        Some(Host::Name(name)) => {
            let local = name == "localhost" || name.ends_with(".localhost");
            local || known.iter().any(|known| known == "*" || known.to_lowercase() == name)
        }
        None => false,
    }
}

enum Host {
    Address,
    /// In lower case, without the dot that may end it.
    Name(String),
}

/// What stands before an optional port; `None` if it is not of the form that a Host header has (RFC 9110, 7.2). No lenient reading: what is
/// taken for something else by a client that resolves the name must not be taken for an address here.
fn host_of(text: &str) -> Option<Host> {
    if let Some(rest) = text.strip_prefix('[') {
        let (address, behind) = rest.split_once(']')?;
        return (address.parse::<Ipv6Addr>().is_ok() && is_port(behind)).then_some(Host::Address);
    }
    let (host, behind) = text.split_at(text.find(':').unwrap_or(text.len()));
    if !is_port(behind) {
        return None;
    }
    if host.parse::<Ipv4Addr>().is_ok() {
        return Some(Host::Address);
    }
    let name = host.strip_suffix('.').unwrap_or(host);
    let of_label = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    let is_name = name.split('.').all(|label| !label.is_empty() && label.bytes().all(of_label));
    is_name.then(|| Host::Name(name.to_ascii_lowercase()))
}

/// Whether it is nothing, or a colon and a port, which may be left out.
fn is_port(text: &str) -> bool {
    let Some(port) = text.strip_prefix(':') else { return text.is_empty() };
    port.bytes().all(|byte| byte.is_ascii_digit()) && (port.is_empty() || port.parse::<u16>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_this_machine_are_known() {
        let known = ["broker.lan".to_owned(), "under_score".to_owned()];
        for host in [
            "127.0.0.1",
            "127.0.0.1:15672",
            "127.0.0.1:",
            "[::1]",
            "[::1]:15672",
            "[::FFFF:127.0.0.1]:1",
            "10.1.2.3:80",
            "localhost",
            "LOCALHOST:1",
            "localhost.:1",
            "a.localhost",
            "Broker.lan:15672",
            "broker.lan.",
            "under_score",
        ] {
            assert!(is_known(&known, host), "{host}");
        }
        for host in [
            "",
            ".",
            ":1",
            "evil.example",
            "evil.example:15672",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "broker.lan.evil.example",
            "evil.example.:1",
            // Brackets hold an address, and nothing but a port follows.
            "[::1].evil.example",
            "[::1].evil.example:15672",
            "[::1]evil.example",
            "[::1].",
            "[::1]:80:80",
            "[::1]:evil.example",
            "[::1",
            "::1]",
            "::1",
            "[::1%lo]",
            "[[::1]]",
            "[127.0.0.1]",
            "[localhost]",
            "[broker.lan]",
            "[]",
            // A port is a number.
            "127.0.0.1:80:80",
            "localhost:evil.example",
            "localhost:+1",
            "localhost:65536",
            "127.0.0.1:-1",
            // A Host header has no user in it.
            "localhost@evil.example",
            "evil.example@localhost",
            "localhost:1@evil.example:1",
            "@localhost",
            // An address has four decimal numbers: browsers write it so.
            "127.1",
            "2130706433",
            "0x7f.0.0.1",
            "0177.0.0.1",
            "127.0.0.1.",
            "127.0.0.256",
            "localhost..",
            "a b",
            "localhost/",
            "localhost,evil.example",
            "evil.example#localhost",
            "evil.example\\.localhost",
            "local%68ost",
            "löcalhost.localhost",
        ] {
            assert!(!is_known(&known, host), "{host}");
        }
        assert!(is_known(&["*".to_owned()], "evil.example"));
        assert!(!is_known(&["*".to_owned()], "[::1].evil.example"), "not what a name is like");
    }
}

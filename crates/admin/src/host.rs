//! By which names the port may be asked. A web page can make a name of its own mean this machine (DNS rebinding), and would then
//! read what no client has to log in for: the name it asks by gives it away.

use std::net::IpAddr;

use axum::extract::{Request, State};
use axum::http::uri::Authority;
use axum::http::{StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::Admin;
use crate::api::Problem;

/// Refuses what is asked by a strange name. Whether the process lives is told to every client.
pub async fn check(State(admin): State<Admin>, request: Request, next: Next) -> Response {
    match strange(&admin.options.hosts, &request).filter(|_| request.uri().path() != "/livez") {
        Some(name) => refusal(&name).into_response(),
        None => next.run(request).await,
    }
}

fn refusal(name: &str) -> Problem {
    let detail = format!(
        "this port is not to be asked by the name {name:?}: web pages could reach it so; ask by an address or by \
         localhost, or add the name to admin.hosts"
    );
    Problem::new(StatusCode::MISDIRECTED_REQUEST, "misdirected", detail)
}

/// The first name in the request that is not known. Programs that say none are no browsers.
fn strange(known: &[String], request: &Request) -> Option<String> {
    let lines = request.headers().get_all(header::HOST).iter();
    let lines = lines.map(|line| String::from_utf8_lossy(line.as_bytes()).into_owned());
    let asked = request.uri().authority().map(ToString::to_string);
    lines.chain(asked).find(|text| !is_known(known, text))
}

fn is_known(known: &[String], text: &str) -> bool {
    let Ok(authority) = text.parse::<Authority>() else { return false };
    let host = authority.host().trim_matches(['[', ']']).trim_end_matches('.').to_lowercase();
    let local = host == "localhost" || host.ends_with(".localhost");
    local
        || host.parse::<IpAddr>().is_ok()
        || known.iter().any(|name| name == "*" || name.to_lowercase() == host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_this_machine_are_known() {
        let known = ["broker.lan".to_owned()];
        for host in [
            "127.0.0.1",
            "127.0.0.1:15672",
            "[::1]:15672",
            "10.1.2.3:80",
            "localhost",
            "LOCALHOST:1",
            "localhost.:1",
            "a.localhost",
            "Broker.lan:15672",
        ] {
            assert!(is_known(&known, host), "{host}");
        }
        for host in [
            "",
            "evil.example",
            "evil.example:15672",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "broker.lan.evil.example",
            "localhost@evil.example",
            "evil.example.:1",
            "127.0.0.1:80:80",
            "a b",
            "[::1",
        ] {
            assert!(!is_known(&known, host), "{host}");
        }
        assert!(is_known(&["*".to_owned()], "evil.example"));
    }
}

//! Who a client is, and what it is told of the server before.

use std::net::IpAddr;

use crate::wire::*;

/// The mechanisms by which a client says who it is.
pub(crate) const MECHANISMS: &[u8] = b"PLAIN AMQPLAIN";

/// The one user there is so far.
const GUEST: &str = "guest";

/// What the server can do beyond the specification, as far as it does.
const CAPABILITIES: &[&str] = &[
    "authentication_failure_close",
    "basic.nack",
    "connection.blocked",
    "consumer_cancel_notify",
    "consumer_priorities",
    "direct_reply_to",
    "exchange_exchange_bindings",
    "per_consumer_qos",
    "publisher_confirms",
];

/// A user and a password.
#[derive(Debug, PartialEq, Eq)]
struct Credentials<'a> {
    user: &'a [u8],
    password: &'a [u8],
}

/// The user that a client is: `guest` with the password `guest`, from this machine alone.
///
/// # Errors
/// What the client is told, and what the log says beside it: a client that guesses is not told which users there are.
pub(crate) fn log_in(
    start_ok: &ConnectionStartOk<'_>,
    from: IpAddr,
) -> Result<&'static str, (ConnectionException, String)> {
    let mechanism = start_ok.mechanism.as_str();
    let credentials = match mechanism {
        "PLAIN" => plain(start_ok.response),
        "AMQPLAIN" => amqplain(start_ok.response),
        _ => {
            let text = format!("there is no authentication mechanism {mechanism:?}");
            return Err((refused(text.clone()), text));
        }
    };
    let guest = Credentials { user: GUEST.as_bytes(), password: GUEST.as_bytes() };
    if credentials != Some(guest) {
        let text = format!(
            "Login was refused using authentication mechanism {mechanism}. For details see the broker logfile."
        );
        return Err((refused(text), why(credentials.as_ref())));
    }
    if !from.to_canonical().is_loopback() {
        let text = "user 'guest' can only connect via localhost";
        return Err((refused(text.to_owned()), text.to_owned()));
    }
    Ok(GUEST)
}

fn why(credentials: Option<&Credentials<'_>>) -> String {
    match credentials {
        None => "its response has no user and password".to_owned(),
        Some(Credentials { user, .. }) if *user == GUEST.as_bytes() => {
            "a wrong password of user \"guest\"".to_owned()
        }
        Some(Credentials { user, .. }) => {
            let user = String::from_utf8_lossy(&user[..user.len().min(64)]);
            format!("there is no user {user:?}: the one there is so far is \"guest\"")
        }
    }
}

fn refused(text: String) -> ConnectionException {
    ConnectionException::new(ReplyCode::AccessRefused, text)
}

/// On whose behalf, user and password, each behind a zero but the first. No user acts on another's behalf.
fn plain(response: &[u8]) -> Option<Credentials<'_>> {
    let mut parts = response.split(|byte| *byte == 0);
    let (_, user, password) = (parts.next()?, parts.next()?, parts.next()?);
    parts.next().is_none().then_some(Credentials { user, password })
}

/// A field table without its length.
fn amqplain(response: &[u8]) -> Option<Credentials<'_>> {
    let table = FieldTable::from_bytes(response).ok()?;
    let text = |name| match table.get(name) {
        Some(FieldValue::LongStr(text)) => Some(text),
        _ => None,
    };
    Some(Credentials { user: text("LOGIN")?, password: text("PASSWORD")? })
}

/// What the server says of itself.
pub(crate) fn server_properties(cluster: &str) -> FieldTableBuf {
    let mut capabilities = FieldTableBuf::new();
    for name in CAPABILITIES {
        capabilities.push(ShortBytes::cut(name), FieldValue::Bool(true));
    }
    let mut all = FieldTableBuf::new();
    let text = |text: &'static str| FieldValue::LongStr(text.as_bytes());
    all.push(ShortBytes::cut("capabilities"), FieldValue::Table(capabilities.as_table()));
    all.push(ShortBytes::cut("cluster_name"), FieldValue::LongStr(cluster.as_bytes()));
    all.push(ShortBytes::cut("platform"), text("Rust"));
    all.push(ShortBytes::cut("product"), text("Sabir"));
    all.push(ShortBytes::cut("version"), text(env!("CARGO_PKG_VERSION")));
    all
}

/// What a client says of itself.
#[derive(Debug, Clone, Default)]
pub(crate) struct ClientProperties {
    /// What it calls the connection, or its library.
    pub(crate) name: String,
    /// Whether it understands that the server cancels a consumer.
    pub(crate) hears_cancels: bool,
    /// Whether it understands that it is to publish no more.
    pub(crate) hears_blocked: bool,
}

impl ClientProperties {
    /// Bytes of a name that are kept.
    const NAME: usize = 256;

    pub(crate) fn read(table: FieldTable<'_>) -> Self {
        let text = |name| match table.get(name) {
            Some(FieldValue::LongStr(text)) => Some(String::from_utf8_lossy(text)),
            _ => None,
        };
        let name = text("connection_name").or_else(|| text("product")).unwrap_or_default();
        let can = |name| match table.get("capabilities") {
            Some(FieldValue::Table(all)) => all.get(name) == Some(FieldValue::Bool(true)),
            _ => false,
        };
        Self {
            name: name[..name.floor_char_boundary(Self::NAME)].to_owned(),
            hears_cancels: can("consumer_cancel_notify"),
            hears_blocked: can("connection.blocked"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    fn tried(mechanism: &str, response: &[u8], from: IpAddr) -> Result<&'static str, ReplyCode> {
        let mechanism = ShortStr::cut(mechanism);
        log_in(&ConnectionStartOk { mechanism, response, ..Default::default() }, from)
            .map_err(|(told, _)| told.code)
    }

    #[test]
    fn the_log_says_what_the_client_is_not_told() {
        let why = |response: &[u8]| why(plain(response).as_ref());
        assert_eq!(why(b"\0guest\0gues"), "a wrong password of user \"guest\"");
        assert_eq!(
            why(b"\0a\x1b\n\0x"),
            "there is no user \"a\\u{1b}\\n\": the one there is so far is \"guest\""
        );
        assert_eq!(why(b"guest"), "its response has no user and password");
    }

    #[test]
    fn guest_comes_from_this_machine_with_its_password_alone() {
        let refused = Err(ReplyCode::AccessRefused);
        assert_eq!(tried("PLAIN", b"\0guest\0guest", HERE), Ok("guest"));
        assert_eq!(tried("PLAIN", b"other\0guest\0guest", Ipv6Addr::LOCALHOST.into()), Ok("guest"));
        assert_eq!(
            tried("PLAIN", b"\0guest\0guest", Ipv4Addr::LOCALHOST.to_ipv6_mapped().into()),
            Ok("guest")
        );
        for response in [&b"\0guest\0"[..], b"", b"guest", b"\0guest\0guest\0", b"\0root\0guest", b"\0\0"] {
            assert_eq!(tried("PLAIN", response, HERE), refused, "{response:?}");
        }
        assert_eq!(tried("PLAIN", b"\0guest\0guest", Ipv4Addr::new(192, 0, 2, 1).into()), refused);
        assert_eq!(tried("EXTERNAL", b"", HERE), refused);
    }

    #[test]
    fn amqplain_is_a_table() {
        let mut table = FieldTableBuf::new();
        table.push(ShortBytes::cut("LOGIN"), FieldValue::LongStr(b"guest"));
        assert_eq!(tried("AMQPLAIN", table.as_table().as_bytes(), HERE), Err(ReplyCode::AccessRefused));
        table.push(ShortBytes::cut("PASSWORD"), FieldValue::LongStr(b"guest"));
        assert_eq!(tried("AMQPLAIN", table.as_table().as_bytes(), HERE), Ok("guest"));
        assert_eq!(tried("AMQPLAIN", b"\0guest\0guest", HERE), Err(ReplyCode::AccessRefused));
    }

    #[test]
    fn a_client_says_its_name_and_what_it_understands() {
        let mut capabilities = FieldTableBuf::new();
        capabilities.push(ShortBytes::cut("consumer_cancel_notify"), FieldValue::Bool(true));
        let mut table = FieldTableBuf::new();
        table.push(ShortBytes::cut("product"), FieldValue::LongStr(b"a library"));
        table.push(ShortBytes::cut("capabilities"), FieldValue::Table(capabilities.as_table()));
        let read = ClientProperties::read(table.as_table());
        assert_eq!((&*read.name, read.hears_cancels), ("a library", true));
        let long = "x".repeat(300);
        table.push(ShortBytes::cut("connection_name"), FieldValue::LongStr(long.as_bytes()));
        assert_eq!(ClientProperties::read(table.as_table()).name.len(), 256);
        assert!(!ClientProperties::read(FieldTable::EMPTY).hears_cancels);
    }
}

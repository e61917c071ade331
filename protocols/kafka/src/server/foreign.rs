//! What a peer speaks that does not speak Kafka's protocol, by the first bytes it sends: four of them, or as many as came at once.

/// Beginnings, and whose they are.
const BEGINNINGS: &[(&[u8], &str)] = &[
    (b"\x16\x03", "TLS"),
    (b"\x15\x03", "an alert of TLS"),
    (b"GET ", "HTTP"),
    (b"POST", "HTTP"),
    (b"PUT ", "HTTP"),
    (b"HEAD", "HTTP"),
    (b"DELE", "HTTP"),
    (b"PATC", "HTTP"),
    (b"OPTI", "HTTP"),
    (b"TRAC", "HTTP"),
    (b"CONNECT {", "NATS"),
    (b"INFO {", "NATS"),
    (b"CONNECT ", "HTTP"),
    (b"PRI ", "HTTP/2"),
    (b"CONN", "STOMP"),
    (b"STOM", "STOMP"),
    (b"SSH-", "SSH"),
    (b"AMQP", "AMQP"),
    (b"PROX", "the PROXY protocol"),
    (b"\r\n\r\n", "the PROXY protocol"),
    (b"EHLO", "SMTP"),
    (b"HELO", "SMTP"),
    (b"PING", "Redis"),
    (b"AUTH", "Redis"),
    (b"INFO", "Redis"),
    (b"USER", "FTP"),
    (b"{\"", "JSON"),
    (b"[{\"", "JSON"),
];

/// What a first message looks like that is none of Kafka's.
pub(crate) fn looks_like(first: &[u8]) -> Option<&'static str> {
    let known = BEGINNINGS.iter().find(|(beginning, _)| first.starts_with(beginning));
    known.map(|(_, name)| *name).or_else(|| match first {
        // An array of so many words.
        [b'*', b'0'..=b'9', ..] => Some("Redis"),
        // A length with its highest bit, a client's hello, and the version that it offers.
        [0x80..=0xff, _, 1, 0 | 2 | 3, ..] => Some("SSL 2.0"),
        // A packet to connect, and the length of the protocol's name.
        [0x10, _, 0, 4 | 6, ..] | [0x10, _, _, 0, 4 | 6, ..] => Some("MQTT"),
        _ if first.get(5..).is_some_and(|rest| rest.starts_with(b"ActiveMQ")) => Some("OpenWire (ActiveMQ)"),
        // Two lengths, and JSON.
        _ if first.get(8..).is_some_and(|rest| rest.starts_with(b"{\"")) => Some("RocketMQ"),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beginnings_are_known() {
        for (first, name) in [
            (b"\x16\x03\x01\x02".as_slice(), "TLS"),
            (b"\x15\x03\x03\x00\x02\x02\x50", "an alert of TLS"),
            (b"GET / HTTP/1.1\r\n", "HTTP"),
            (b"CONNECT {\"verbose", "NATS"),
            (b"INFO {\"server_id\"", "NATS"),
            (b"INFO\r\n", "Redis"),
            (b"CONNECT a:1 HTTP/1.1", "HTTP"),
            (b"CONNECT\naccept-version:1.2", "STOMP"),
            (b"SSH-2.0-OpenSSH", "SSH"),
            (b"AMQP\0\0\x09\x01", "AMQP"),
            (b"*1\r\n$4\r\nPING", "Redis"),
            (b"\x10\x10\0\x04MQTT\x04", "MQTT"),
            (b"USER anonymous\r\n", "FTP"),
            (b"{\"js", "JSON"),
            (b"[{\"a", "JSON"),
            (b"\x80\x2e\x01\x03\x01", "SSL 2.0"),
            (b"\x80\x2e\x01\x00\x02", "SSL 2.0"),
            (b"\0\0\0\xf0\x01ActiveMQ\0\0\0", "OpenWire (ActiveMQ)"),
            (b"\0\0\0\xf0\0\0\0\xe0{\"code\":", "RocketMQ"),
        ] {
            assert_eq!(looks_like(first), Some(name), "{first:?}");
        }
        for first in
            [b"".as_slice(), b"\0\0\0\x0c\0\x12\0\0\0\0\0\x07\0\x02me", b"\x7f\xff\xff\xff", b"nonsense"]
        {
            assert_eq!(looks_like(first), None, "{first:?}");
        }
    }
}

//! What a peer speaks that does not speak AMQP 0-9-1, by the first eight bytes it sends.

/// What a protocol header looks like that is another protocol's: a name for the log.
pub(super) fn looks_like(first: &[u8]) -> Option<&'static str> {
    match first {
        [b'A', b'M', b'Q', b'P', ..] => Some("another version of AMQP"),
        [0x16, 3, ..] => Some("TLS"),
        [0x15, 3, ..] => Some("an alert of TLS"),
        [b'C', b'O', b'N', b'N', b'E', b'C', b'T', b' ', b'{', ..] => Some("NATS"),
        [b'G', b'E', b'T', b' ', ..] | [b'P', b'O', b'S', b'T', ..] | [b'P', b'U', b'T', b' ', ..] => {
            Some("HTTP")
        }
        [b'S', b'S', b'H', b'-', ..] => Some("SSH"),
        // A length, then the number of a request and its version.
        [0, 0, _, _, 0, 0..=0x7f, 0, 0..=0x20, ..] => Some("a request of Kafka's"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn others_are_known_by_how_they_begin() {
        let known: [(&[u8], &str); 7] = [
            (b"AMQP\x00\x01\x00\x00", "another version of AMQP"),
            (b"\x16\x03\x01\x02\x00\x01\x00\x01", "TLS"),
            (b"\x15\x03\x03\x00\x02\x02\x50", "an alert of TLS"),
            (b"CONNECT {\"verbose", "NATS"),
            (b"GET / HT", "HTTP"),
            (b"SSH-2.0-", "SSH"),
            (b"\x00\x00\x00\x30\x00\x12\x00\x04", "a request of Kafka's"),
        ];
        for (first, name) in known {
            assert_eq!(looks_like(first), Some(name));
        }
        assert_eq!(looks_like(b"whatever"), None);
    }
}

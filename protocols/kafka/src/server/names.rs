//! Topic names, which Kafka restricts to letters, digits, `.`, `_` and `-`.
//!
//! A name that is legal here is shown as it is. Any other is shown as [`MARK`] and the name with every byte but letters,
//! digits, `.` and `-` as `_` and two hex digits: `/orders/new` is `escaped.._2forders_2fnew`. So is a legal name that begins
//! with the mark, so that no two topics are shown as one. A name that is longer so than any of Kafka's is shown to none of its clients: some
//! of them end over one (librdkafka beyond 512 bytes, kafka-python beyond 249).

use std::borrow::Cow;
use std::fmt::Write;
use std::sync::Arc;

use sabir_broker::{Caller, CatalogView, Topic};

/// What escaped names begin with.
pub const MARK: &str = "escaped..";

/// The longest name that Kafka's clients create, and are shown.
pub const LONGEST_SHOWN: usize = 249;

/// The most bytes by which topics are shown, so many of them with names of so many bytes together.
pub fn most_shown(topics: usize, name_bytes: usize) -> usize {
    (topics * MARK.len() + 3 * name_bytes).min(topics * LONGEST_SHOWN)
}

/// Whether Kafka's clients are shown a topic of this name.
pub fn is_shown(name: &str) -> bool {
    is_as_it_is(name) || shown_len(name) <= LONGEST_SHOWN
}

/// Whether a name is shown without a change.
fn is_as_it_is(name: &str) -> bool {
    is_legal(name) && !name.starts_with(MARK)
}

/// Whether a byte stands for itself in an escaped name.
fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-')
}

/// Bytes of a name that is escaped.
fn shown_len(name: &str) -> usize {
    MARK.len() + name.bytes().map(|byte| if is_plain(byte) { 1 } else { 3 }).sum::<usize>()
}

/// The topics that a client is shown.
pub fn shown<'a>(catalog: &'a CatalogView, caller: &'a Caller) -> impl Iterator<Item = &'a Arc<Topic>> {
    catalog.topics_of(caller).filter(|topic| is_shown(&topic.name))
}

/// Whether Kafka's clients may make a topic of this name, as it is stored. Other protocols make longer ones.
pub fn may_be_made(name: &str) -> bool {
    name.len() <= LONGEST_SHOWN
}

/// The topic in which Kafka keeps the positions of groups. Here it is there, and empty.
pub const OFFSETS: &str = "__consumer_offsets";

/// The topics of which Kafka tells its clients that it keeps them for itself.
const INTERNAL: [&str; 3] = [OFFSETS, "__transaction_state", "__share_group_state"];

/// The log of Kafka's controllers, which is not shown as a topic.
const METADATA: &str = "__cluster_metadata";

/// Names under which clients make no topics.
pub const RESERVED: [&str; 4] = [INTERNAL[0], INTERNAL[1], INTERNAL[2], METADATA];

/// Whether Kafka keeps the topic of this name for itself.
pub fn is_internal(name: &str) -> bool {
    INTERNAL.contains(&name)
}

/// A name that no topic can have in Kafka.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IllegalName;

/// The name by which Kafka's clients see a topic.
pub fn client_name(name: &str) -> Cow<'_, str> {
    if is_as_it_is(name) {
        return Cow::Borrowed(name);
    }
    let mut shown = String::from(MARK);
    for byte in name.bytes() {
        if is_plain(byte) {
            shown.push(byte.into());
        } else {
            // Writing to a String cannot fail.
            let _ = write!(shown, "_{byte:02x}");
        }
    }
    Cow::Owned(shown)
}

/// The topic that a Kafka client means.
///
/// # Errors
/// No topic can be shown by this name.
pub fn topic_name(shown_name: &str) -> Result<Cow<'_, str>, IllegalName> {
    let Some(escaped) = shown_name.strip_prefix(MARK) else {
        return if is_legal(shown_name) { Ok(Cow::Borrowed(shown_name)) } else { Err(IllegalName) };
    };
    if shown_name.len() > LONGEST_SHOWN {
        return Err(IllegalName);
    }
    let name = unescape(escaped).ok_or(IllegalName)?;
    // One form only: what is legal is not escaped, and nothing is escaped twice.
    if client_name(&name) == shown_name { Ok(Cow::Owned(name)) } else { Err(IllegalName) }
}

/// What a client is told that cannot make a topic of this name.
pub fn why_illegal(shown_name: &str) -> String {
    match shown_name.starts_with(MARK) {
        true => format!("names that begin with {MARK:?} are reserved for topics whose names Kafka's clients cannot write: choose another"),
        false => "a topic's name has 1 to 249 of the characters a-z, A-Z, 0-9, '.', '_' and '-', and is not '.' or '..'".into(),
    }
}

fn is_legal(name: &str) -> bool {
    let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    !name.is_empty() && name.len() <= LONGEST_SHOWN && name != "." && name != ".." && name.bytes().all(legal)
}

fn unescape(escaped: &str) -> Option<String> {
    let mut bytes = escaped.bytes();
    let mut name = Vec::with_capacity(escaped.len());
    while let Some(byte) = bytes.next() {
        name.push(match byte {
            b'_' => hex(bytes.next()?)? << 4 | hex(bytes.next()?)?,
            other => other,
        });
    }
    String::from_utf8(name).ok()
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).map(|value| value as u8)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn who_takes_the_reserved_beginning_is_told_so() {
        assert!(why_illegal("escaped..orders").contains("\"escaped..\" are reserved"));
        assert!(why_illegal("a b").contains("of the characters"));
    }

    #[test]
    fn legal_names_stay_and_others_are_escaped() {
        for (name, expected) in [
            ("orders", "orders"),
            ("a.b_c-D9", "a.b_c-D9"),
            ("/orders/new", "escaped.._2forders_2fnew"),
            ("a_b c", "escaped..a_5fb_20c"),
            (".", "escaped..."),
            ("escaped..x", "escaped..escaped..x"),
            ("bücher", "escaped..b_c3_bccher"),
        ] {
            assert_eq!(client_name(name), expected);
            assert_eq!(topic_name(expected), Ok(Cow::Borrowed(name)));
        }
    }

    #[test]
    fn what_stands_for_no_topic_is_refused() {
        let long = "x".repeat(250);
        for name in [
            "",
            ".",
            "..",
            "a b",
            "a/b",
            "ü",
            &long,
            "escaped..orders",
            "escaped..a_5",
            "escaped..a_zz",
            "escaped..a_2F",
        ] {
            assert_eq!(topic_name(name), Err(IllegalName), "{name}");
        }
    }

    #[test]
    fn names_that_are_longer_than_any_of_kafkas_are_not_shown() {
        for (name, is_one) in [
            ("x".repeat(249), true),
            ("x".repeat(250), false),
            (" ".repeat(80), true),
            (" ".repeat(81), false),
            ("_".repeat(1024), false),
        ] {
            let shown = client_name(&name);
            assert_eq!(is_shown(&name), is_one, "{name}");
            assert_eq!(topic_name(&shown).is_ok_and(|meant| meant == name), is_one, "{name}");
            assert!(!is_one || shown.len() <= most_shown(1, name.len()));
        }
    }

    proptest! {
        #[test]
        fn no_two_topics_are_shown_as_one(name in ".{1,60}|escaped[.]{2}.{0,20}|[a-z._-]{1,20}") {
            let shown_name = client_name(&name).into_owned();
            let meant_name = topic_name(&shown_name).map(Cow::into_owned);
            prop_assert_eq!(meant_name, if is_shown(&name) { Ok(name) } else { Err(IllegalName) });
        }
    }
}

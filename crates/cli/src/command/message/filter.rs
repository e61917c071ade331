//! Which messages are shown.

use regex::bytes::Regex;
use sabir_server::client::Incoming;

use crate::args::message::FilterArgs;

/// What a message must be like.
pub struct Filter {
    key: Option<String>,
    /// Names, and values where they matter.
    headers: Vec<(String, Option<String>)>,
    contains: Option<Regex>,
    matches: Option<Regex>,
    /// Milliseconds since the epoch.
    until: Option<i64>,
}

impl From<FilterArgs> for Filter {
    fn from(args: FilterArgs) -> Self {
        let header = |text: String| match text.split_once('=') {
            Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
            None => (text, None),
        };
        let literal =
            |text: String| Regex::new(&regex::escape(&text)).expect("an escaped text is an expression");
        Self {
            key: args.key,
            headers: args.headers.into_iter().map(header).collect(),
            contains: args.contains.map(literal),
            matches: args.matches,
            until: args.until.map(|moment| moment.at()),
        }
    }
}

impl Filter {
    /// Whether a message fits all that is said.
    pub fn fits(&self, message: &Incoming) -> bool {
        let value = message.value.as_deref();
        let found = |wanted: &Option<Regex>| {
            wanted.as_ref().is_none_or(|regex| value.is_some_and(|value| regex.is_match(value)))
        };
        self.until.is_none_or(|until| message.timestamp_ms.is_some_and(|ms| ms < until))
            && self.key.as_ref().is_none_or(|key| message.key.as_deref() == Some(key.as_bytes()))
            && self.headers.iter().all(|wanted| has(message, wanted))
            && found(&self.contains)
            && found(&self.matches)
    }
}

fn has(message: &Incoming, (name, value): &(String, Option<String>)) -> bool {
    message.headers.iter().any(|(other, content)| {
        let same = |value: &String| content.as_deref() == Some(value.as_bytes());
        other == name && value.as_ref().is_none_or(same)
    })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn nothing_said() -> FilterArgs {
        FilterArgs { key: None, headers: vec![], contains: None, matches: None, until: None }
    }

    fn fits(args: FilterArgs) -> bool {
        let text = |text: &'static str| Some(Bytes::from_static(text.as_bytes()));
        Filter::from(args).fits(&Incoming {
            partition: 0,
            offset: 0,
            timestamp_ms: Some(1_000),
            key: text("k"),
            value: text("status=500 (a.b)"),
            headers: vec![("source".into(), text("web")), ("empty".into(), None)],
        })
    }

    #[test]
    fn all_that_is_said_must_fit() {
        let regex = |text| Some(Regex::new(text).unwrap());
        let headers = |list: &[&str]| list.iter().map(|h| h.to_string()).collect::<Vec<_>>();
        assert!(fits(nothing_said()));
        for (key, fit) in [("k", true), ("", false), ("kk", false)] {
            assert_eq!(fits(FilterArgs { key: Some(key.into()), ..nothing_said() }), fit, "{key}");
        }
        let named = headers(&["source", "empty", "source=web"]);
        assert!(fits(FilterArgs { headers: named, ..nothing_said() }));
        for wrong in ["web", "source=", "source=we", "empty="] {
            assert!(!fits(FilterArgs { headers: headers(&[wrong]), ..nothing_said() }), "{wrong}");
        }
        for (text, fit) in [("a.b)", true), ("a+b", false), ("", true)] {
            assert_eq!(fits(FilterArgs { contains: Some(text.into()), ..nothing_said() }), fit, "{text}");
        }
        assert!(fits(FilterArgs { matches: regex("=5.. "), ..nothing_said() }));
        assert!(!fits(FilterArgs { matches: regex("^500"), ..nothing_said() }));
        let until = |ms| Some(crate::args::value::Moment::At(ms));
        assert!(fits(FilterArgs { until: until(1_001), ..nothing_said() }));
        assert!(!fits(FilterArgs { until: until(1_000), ..nothing_said() }));
        assert!(!fits(FilterArgs { key: Some("k".into()), matches: regex("x"), ..nothing_said() }));
    }

    #[test]
    fn what_a_message_does_not_have_does_not_fit() {
        let empty =
            Incoming { partition: 0, offset: 0, timestamp_ms: None, key: None, value: None, headers: vec![] };
        assert!(Filter::from(nothing_said()).fits(&empty));
        assert!(!Filter::from(FilterArgs { contains: Some(String::new()), ..nothing_said() }).fits(&empty));
        let until = Some(crate::args::value::Moment::At(i64::MAX));
        assert!(!Filter::from(FilterArgs { until, ..nothing_said() }).fits(&empty));
        assert!(!Filter::from(FilterArgs { key: Some(String::new()), ..nothing_said() }).fits(&empty));
    }
}

//! Settings as a user writes them: sizes, lengths of time, addresses, and tables whose unknown keys are errors.
//!
//! A section is described by its [`Setting`]s (what the reference page and the suggestions are made from) and parsed by
//! its owner, so that the server knows no protocol's keys.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::de::{DeserializeOwned, Error as _, Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// One key of a section, for the reference page, for suggestions and for completeness tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Setting {
    /// The key inside its section.
    pub key: &'static str,
    /// The value that holds when nothing is said, in a form that TOML and JSON share: `3`, `true`, `"7d"`.
    pub default: &'static str,
    /// What it does, its unit and its limits, in one or two sentences of Markdown.
    pub help: &'static str,
}

impl Setting {
    /// The default as a value.
    pub fn default_value(&self) -> serde_json::Value {
        serde_json::from_str(self.default).expect("a setting's default is written in JSON")
    }
}

/// A section's keys and values as they were read, untyped.
pub type SettingsTable = serde_json::Map<String, serde_json::Value>;

/// A setting that cannot be taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{section}.{key}: {problem}")]
pub struct ConfigError {
    /// The section the key stands in.
    pub section: String,
    /// The key.
    pub key: String,
    /// What is wrong with it, and what would be right.
    pub problem: String,
}

impl ConfigError {
    /// An error about `section.key`.
    pub fn new(section: &str, key: &str, problem: impl Into<String>) -> Self {
        Self { section: section.into(), key: key.into(), problem: problem.into() }
    }
}

/// Parses a section into its type. What was not said has its default; a key that `settings` does not list is refused, with
/// the nearest one as a suggestion. `T` needs no defaults of its own, and should deny unknown fields.
pub fn parse_table<T: DeserializeOwned>(
    section: &str,
    mut table: SettingsTable,
    settings: &[Setting],
) -> Result<T, ConfigError> {
    check_keys(section, &table, settings)?;
    for setting in settings {
        table.entry(setting.key).or_insert_with(|| setting.default_value());
    }
    serde_path_to_error::deserialize(serde_json::Value::Object(table)).map_err(|e| {
        let key = e.path().to_string();
        ConfigError::new(section, &key, e.into_inner().to_string())
    })
}

/// Refuses keys that `settings` does not list.
pub fn check_keys(section: &str, table: &SettingsTable, settings: &[Setting]) -> Result<(), ConfigError> {
    let known = || settings.iter().map(|s| s.key);
    match table.keys().find(|k| known().all(|s| s != k.as_str())) {
        None => Ok(()),
        Some(key) => Err(ConfigError::new(section, key, unknown(key, known()))),
    }
}

/// "unknown key", with the nearest of the `known` ones, or all of them where none is near.
pub fn unknown<'a>(key: &str, known: impl Iterator<Item = &'a str> + Clone) -> String {
    match nearest(key, known.clone()) {
        Some(near) => format!("unknown key; did you mean `{near}`?"),
        None => format!("unknown key; there are: {}", known.collect::<Vec<_>>().join(", ")),
    }
}

/// The candidate that a mistyped `word` most likely stood for.
pub fn nearest<'a>(word: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    candidates
        .map(|c| (strsim::jaro_winkler(&word.to_lowercase(), c), c))
        .filter(|(likeness, _)| *likeness >= 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, c)| c)
}

/// A size in bytes: `4096`, `64KiB`, `1.5GiB`, `10MB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Size(pub u64);

/// A length of time: `250ms`, `30s`, `15m`, `12h`, `7d`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span(pub Duration);

/// A value that `"unlimited"` lifts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Limit<T>(pub Option<T>);

/// A [`Size`], or `"auto"` for what follows from the system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AutoSize(pub Option<Size>);

/// A setting that bounds memory and follows, where it is `auto`, what the machine or the control group has.
#[derive(Debug, Clone, Copy)]
pub struct MemorySetting {
    /// Section and key.
    pub setting: &'static str,
    /// What is said.
    pub said: AutoSize,
    /// What `auto` is where there are so many bytes of memory.
    pub auto: fn(u64) -> u64,
}

impl MemorySetting {
    /// Bytes that it allows where there are so many of memory.
    pub fn bytes(&self, memory: u64) -> u64 {
        self.said.0.map_or_else(|| (self.auto)(memory), |said| said.0)
    }
}

const SIZE_UNITS: &[(&str, u64)] = &[
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
    ("KB", 1_000),
    ("B", 1),
];

const SPAN_UNITS: &[(&str, u64)] =
    &[("d", 86_400_000), ("h", 3_600_000), ("ms", 1), ("m", 60_000), ("s", 1_000)];

/// What a value was expected to look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected {0}")]
pub struct Expected(pub &'static str);

/// `number × unit`, without a loss of precision for whole numbers. `None` for what is not a number, or too large.
fn scaled(number: &str, unit: u64) -> Option<u64> {
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(unit);
    }
    if !number.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
        return None;
    }
    let value = number.parse::<f64>().ok()? * unit as f64;
    // 2^63: beyond it an `f64` no longer fits, and no such size or time is meant.
    (value < 9.2e18).then_some(value.round() as u64)
}

fn with_unit(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let text = text.trim();
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    let (number, unit) = (&text[..split], text[split..].trim());
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    scaled(number, *factor)
}

impl FromStr for Size {
    type Err = Expected;

    fn from_str(text: &str) -> Result<Self, Expected> {
        let expected = Expected("a size such as 512, \"64KiB\", \"1GiB\" or \"10MB\"");
        let bytes = text.trim().parse().ok().or_else(|| with_unit(text, SIZE_UNITS));
        bytes.map(Size).ok_or(expected)
    }
}

impl FromStr for Span {
    type Err = Expected;

    fn from_str(text: &str) -> Result<Self, Expected> {
        let expected =
            Expected("a length of time with its unit, such as \"250ms\", \"30s\", \"12h\" or \"7d\"");
        let ms = if text.trim() == "0" { Some(0) } else { with_unit(text, SPAN_UNITS) };
        ms.map(|ms| Span(Duration::from_millis(ms))).ok_or(expected)
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let exact = |unit: u64| self.0 >= unit && self.0.is_multiple_of(unit);
        match SIZE_UNITS[..4].iter().find(|(_, unit)| exact(*unit)) {
            Some((name, unit)) => write!(f, "{}{name}", self.0 / unit),
            None => write!(f, "{}", self.0),
        }
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = self.0.as_millis() as u64;
        let by_size = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];
        match by_size.iter().find(|(_, unit)| ms >= *unit && ms.is_multiple_of(*unit)) {
            Some((name, unit)) => write!(f, "{}{name}", ms / unit),
            None => write!(f, "0s"),
        }
    }
}

struct TextOrNumber(&'static str);

impl Visitor<'_> for TextOrNumber {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<String, E> {
        Ok(text.into())
    }

    fn visit_u64<E: serde::de::Error>(self, n: u64) -> Result<String, E> {
        Ok(n.to_string())
    }

    fn visit_i64<E: serde::de::Error>(self, n: i64) -> Result<String, E> {
        u64::try_from(n).map(|n| n.to_string()).map_err(|_| E::invalid_value(Unexpected::Signed(n), &self))
    }
}

fn deserialize_from_str<'de, D: Deserializer<'de>, T: FromStr<Err = Expected>>(d: D) -> Result<T, D::Error> {
    let text = d.deserialize_any(TextOrNumber("a text or a number"))?;
    text.parse().map_err(|e: Expected| D::Error::custom(format!("{e}, found `{text}`")))
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        deserialize_from_str(d)
    }
}

impl<'de> Deserialize<'de> for AutoSize {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = d.deserialize_any(TextOrNumber("a text or a number"))?;
        if text == "auto" {
            return Ok(Self(None));
        }
        let size = text.parse().map(|size| Self(Some(size)));
        size.map_err(|e: Expected| D::Error::custom(format!("{e}, or \"auto\", found `{text}`")))
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        deserialize_from_str(d)
    }
}

impl<'de, T: FromStr<Err = Expected>> Deserialize<'de> for Limit<T> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = d.deserialize_any(TextOrNumber("a text or a number"))?;
        if text == "unlimited" {
            return Ok(Limit(None));
        }
        let value = text.parse::<T>();
        value
            .map(|v| Limit(Some(v)))
            .map_err(|e| D::Error::custom(format!("{e}, or \"unlimited\", found `{text}`")))
    }
}

impl Serialize for Size {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<T: fmt::Display> fmt::Display for Limit<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(value) => value.fmt(f),
            None => f.write_str("unlimited"),
        }
    }
}

impl<T: fmt::Display> Serialize for Limit<T> {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

/// A host name or address with its port, as it is given to clients.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HostPort {
    /// A name or an address; an IPv6 address stands without its brackets.
    pub host: String,
    /// The port; 0 in an advertised address means the one listened on.
    pub port: u16,
}

impl FromStr for HostPort {
    type Err = Expected;

    fn from_str(text: &str) -> Result<Self, Expected> {
        let expected = Expected("an address such as \"broker.example.com:9092\" or \"[::1]:9092\"");
        let (host, port) = text.trim().rsplit_once(':').ok_or(expected)?;
        let bracketed = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
        let host = bracketed.unwrap_or(host);
        let port = port.parse().map_err(|_| expected)?;
        let bare_v6 = bracketed.is_none() && host.contains(':');
        if host.is_empty() || bare_v6 || host.contains(char::is_whitespace) {
            return Err(expected);
        }
        Ok(HostPort { host: host.into(), port })
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_as_they_are_written() {
        for (text, bytes) in
            [("512", 512), ("64KiB", 65_536), ("1.5 GiB", 1_610_612_736), ("10MB", 10_000_000), ("7B", 7)]
        {
            assert_eq!(text.parse(), Ok(Size(bytes)), "{text}");
        }
        for text in ["", "KiB", "-1", "1XB", "1e3B", "99999999999TiB", "1.2.3MB"] {
            assert!(text.parse::<Size>().is_err(), "{text}");
        }
    }

    #[test]
    fn spans_need_a_unit() {
        for (text, ms) in [("250ms", 250), ("30s", 30_000), ("1.5m", 90_000), ("7d", 604_800_000), ("0", 0)] {
            assert_eq!(text.parse(), Ok(Span(Duration::from_millis(ms))), "{text}");
        }
        for text in ["5", "s", "1w", "-3s", "1 fortnight"] {
            assert!(text.parse::<Span>().is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_shown_reads_back() {
        for bytes in [0, 1, 1023, 1024, 1 << 20, 3 << 40, u64::MAX] {
            assert_eq!(Size(bytes).to_string().parse(), Ok(Size(bytes)));
        }
        for ms in [0, 1, 999, 1000, 90_000, 86_400_000] {
            let span = Span(Duration::from_millis(ms));
            assert_eq!(span.to_string().parse(), Ok(span));
        }
    }

    #[test]
    fn addresses() {
        let v6: HostPort = "[::1]:9092".parse().unwrap();
        assert_eq!((v6.host.as_str(), v6.port), ("::1", 9092));
        assert_eq!(v6.to_string(), "[::1]:9092");
        assert_eq!("broker:1".parse::<HostPort>().unwrap().to_string(), "broker:1");
        for text in ["", "broker", ":1", "broker:", "broker:70000", "::1:9092", "a b:1"] {
            assert!(text.parse::<HostPort>().is_err(), "{text}");
        }
    }

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(deny_unknown_fields)]
    struct Section {
        depth: u32,
        keep: Limit<Size>,
    }

    const SETTINGS: &[Setting] = &[
        Setting { key: "depth", default: "1", help: "How deep." },
        Setting { key: "keep", default: "\"unlimited\"", help: "How much." },
    ];

    fn parse(json: &str) -> Result<Section, String> {
        let table = serde_json::from_str(json).unwrap();
        parse_table("pit", table, SETTINGS).map_err(|e| e.to_string())
    }

    #[test]
    fn sections() {
        assert_eq!(parse("{}"), Ok(Section { depth: 1, keep: Limit(None) }));
        let both = Section { depth: 3, keep: Limit(Some(Size(1024))) };
        assert_eq!(parse(r#"{"depth": 3, "keep": "1KiB"}"#), Ok(both));
        assert_eq!(parse(r#"{"dept": 3}"#).unwrap_err(), "pit.dept: unknown key; did you mean `depth`?");
        assert_eq!(parse(r#"{"zz": 3}"#).unwrap_err(), "pit.zz: unknown key; there are: depth, keep");
        let wrong = parse(r#"{"keep": "much"}"#).unwrap_err();
        assert!(wrong.starts_with("pit.keep: expected a size"), "{wrong}");
        assert!(wrong.contains("unlimited"), "{wrong}");
        assert!(parse(r#"{"depth": "x"}"#).unwrap_err().starts_with("pit.depth: "));
    }
}

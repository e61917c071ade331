//! Values as a user types them.

use std::str::FromStr;

use sabir_server::config_value::Span;

/// `name=value`.
pub fn name_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.into(), value.into())),
        _ => Err("write it as name=value".into()),
    }
}

/// A number above 0.
pub fn positive(text: &str) -> Result<f64, String> {
    let number = text.parse::<f64>().ok().filter(|n| n.is_finite() && *n > 0.0);
    number.ok_or_else(|| "expected a number above 0".into())
}

/// A number with k, M or G behind it.
pub fn count(text: &str) -> Result<u64, String> {
    let (digits, factor) = match text.chars().last() {
        Some('k') => (&text[..text.len() - 1], 1_000),
        Some('M') => (&text[..text.len() - 1], 1_000_000),
        Some('G') => (&text[..text.len() - 1], 1_000_000_000),
        _ => (text, 1),
    };
    let number = digits.parse::<u64>().ok().and_then(|n| n.checked_mul(factor)).filter(|n| *n > 0);
    number.ok_or_else(|| "expected a number such as 10000, 500k or 5M".into())
}

/// A regular expression over bytes.
pub fn regex(text: &str) -> Result<regex::bytes::Regex, String> {
    regex::bytes::Regex::new(text).map_err(|e| e.to_string())
}

/// A moment: a date and time, or so long ago.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// Milliseconds since the epoch.
    At(i64),
    /// Milliseconds before now.
    Ago(i64),
}

impl Moment {
    /// Milliseconds since the epoch.
    pub fn at(self) -> i64 {
        match self {
            Moment::At(ms) => ms,
            Moment::Ago(ms) => now_ms().saturating_sub(ms),
        }
    }
}

/// A clock that shows what no calendar has (jiff panics over it) reads as the epoch.
fn now_ms() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

impl FromStr for Moment {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(ms) = length(text.strip_prefix('-').unwrap_or(text)) {
            return Ok(Moment::Ago(ms));
        }
        if let Ok(at) = text.parse::<jiff::Timestamp>() {
            return Ok(Moment::At(at.as_millisecond()));
        }
        let civil = text.parse::<jiff::civil::DateTime>().ok();
        let utc = civil.and_then(|c| c.to_zoned(jiff::tz::TimeZone::UTC).ok());
        utc.map(|z| Moment::At(z.timestamp().as_millisecond())).ok_or_else(|| {
            "expected a time such as 2026-01-31T12:00:00Z or \"2026-01-31 12:00\" (UTC), or -90m for 90 minutes ago"
                .into()
        })
    }
}

/// A length of time in milliseconds: `90m`, `1h30m`, `PT1H30M`.
fn length(text: &str) -> Option<i64> {
    if let Ok(span) = text.parse::<Span>() {
        return i64::try_from(span.0.as_millis()).ok();
    }
    let length = text.parse::<jiff::SignedDuration>().ok().filter(|d| !d.is_negative())?;
    i64::try_from(length.as_millis()).ok()
}

/// A place in every partition of a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// At the oldest message.
    Earliest,
    /// Behind the newest message.
    Latest,
    /// At an offset.
    Offset(i64),
    /// At the first message that is not older.
    Time(Moment),
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "earliest" => return Ok(Place::Earliest),
            "latest" => return Ok(Place::Latest),
            _ => {}
        }
        if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
            let offset = text.parse().map_err(|_| format!("{text} is larger than any offset"))?;
            return Ok(Place::Offset(offset));
        }
        text.parse().map(Place::Time).map_err(|problem: String| {
            format!("expected `earliest`, `latest` or an offset; as a time, {problem}")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts() {
        assert_eq!(count("5M"), Ok(5_000_000));
        assert_eq!(count("12"), Ok(12));
        for wrong in ["", "0", "M", "-1", "1.5M", "99999999999G", "5é"] {
            assert!(count(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn moments() {
        assert_eq!("1970-01-01T00:00:01Z".parse(), Ok(Moment::At(1000)));
        assert_eq!("1970-01-01T02:00:01+02:00".parse(), Ok(Moment::At(1000)));
        assert_eq!("1970-01-02".parse(), Ok(Moment::At(86_400_000)));
        assert_eq!("1970-01-01 00:01".parse(), Ok(Moment::At(60_000)));
        for ago in ["90m", "-90m", "1h30m", "-1.5h", "PT1H30M", "-PT90M"] {
            assert_eq!(ago.parse(), Ok(Moment::Ago(5_400_000)), "{ago}");
        }
        for wrong in ["", "-", "yesterday", "--1h", "12:00", "2026-13-01", "1 fortnight"] {
            assert!(wrong.parse::<Moment>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn places() {
        assert_eq!("earliest".parse(), Ok(Place::Earliest));
        assert_eq!("latest".parse(), Ok(Place::Latest));
        assert_eq!("4711".parse(), Ok(Place::Offset(4711)));
        assert_eq!("-1h".parse(), Ok(Place::Time(Moment::Ago(3_600_000))));
        assert_eq!("1970-01-02".parse(), Ok(Place::Time(Moment::At(86_400_000))));
        for wrong in ["", "-5", "first", "99999999999999999999"] {
            assert!(wrong.parse::<Place>().is_err(), "{wrong}");
        }
    }
}

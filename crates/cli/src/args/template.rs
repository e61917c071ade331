//! How a message is written, as a user says it: a text with places for its parts, in kcat's letters.

use std::str::FromStr;

/// A text with places.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template(pub Vec<Part>);

/// A piece of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    Text(char),
    Topic,
    Partition,
    Offset,
    Timestamp,
    Key,
    KeyLength,
    Value,
    ValueLength,
    Headers,
}

impl FromStr for Template {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut letters = text.chars();
        while let Some(letter) = letters.next() {
            parts.push(match letter {
                '%' => place(letters.next())?,
                '\\' => Part::Text(escaped(letters.next())?),
                plain => Part::Text(plain),
            });
        }
        Ok(Self(parts))
    }
}

fn place(letter: Option<char>) -> Result<Part, String> {
    Ok(match letter {
        Some('t') => Part::Topic,
        Some('p') => Part::Partition,
        Some('o') => Part::Offset,
        Some('T') => Part::Timestamp,
        Some('k') => Part::Key,
        Some('K') => Part::KeyLength,
        Some('s') => Part::Value,
        Some('S') => Part::ValueLength,
        Some('h') => Part::Headers,
        Some('%') => Part::Text('%'),
        other => {
            let place = other.map_or("at the end".into(), |letter| format!("before `{letter}`"));
            return Err(format!("`%` {place} means nothing; there are %t %p %o %T %k %K %s %S %h %%"));
        }
    })
}

fn escaped(letter: Option<char>) -> Result<char, String> {
    match letter {
        Some('n') => Ok('\n'),
        Some('r') => Ok('\r'),
        Some('t') => Ok('\t'),
        Some('0') => Ok('\0'),
        Some('\\') => Ok('\\'),
        _ => Err("a backslash stands before n, r, t, 0 or another one".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_and_escapes_are_told_from_text() {
        let parts = |text: &str| text.parse::<Template>().map(|template| template.0);
        assert_eq!(
            parts("%k=%%\\n"),
            Ok(vec![Part::Key, Part::Text('='), Part::Text('%'), Part::Text('\n')])
        );
        assert_eq!(parts(""), Ok(vec![]));
        for wrong in ["%", "%x", "\\", "\\q", "a%"] {
            assert!(parts(wrong).is_err(), "{wrong}");
        }
    }
}

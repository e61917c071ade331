//! Routing keys and patterns as lists of words.
//!
//! A routing key is dotted: `a.b.c`, and the empty key has no words. A pattern is dotted, with `*` for one word and `#` for any
//! number of them, or slashed: `a/+/c`, with `+` for one level and `#`, at its end alone, for any number. A slash of one form is a dot
//! of the other, so a topic of levels becomes a routing key by [`swap_separators`], and back by the same.

use std::borrow::Cow;

use thiserror::Error;

/// Most words of a key or a pattern.
pub const MAX_WORDS: usize = 256;

/// Most bytes of a key or a pattern.
pub const MAX_KEY_BYTES: usize = 65_535;

/// How a pattern is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum KeySyntax {
    /// Words between dots; `*` is one word, `#` any number, wherever it stands.
    #[default]
    Dotted,
    /// Levels between slashes; `+` is one level, `#` any number, at the end alone. Wildcards at the first level do not match a key
    /// that begins with `$`.
    Slashed,
}

/// Why a key or a pattern is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum KeyError {
    /// More bytes than [`MAX_KEY_BYTES`].
    #[error("the key has {0} bytes; at most {MAX_KEY_BYTES} are allowed")]
    TooLong(usize),
    /// More words than [`MAX_WORDS`].
    #[error("the key has more than {MAX_WORDS} words")]
    TooManyWords,
    /// A wildcard shares its level with other characters, or `#` is not last.
    #[error("a wildcard must be a whole level, and # the last one")]
    MisplacedWildcard,
    /// A slashed pattern without a character.
    #[error("the pattern is empty")]
    Empty,
}

/// A word of a pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum PatternWord<'a> {
    Literal(Cow<'a, [u8]>),
    One,
    Any,
}

/// Makes a slashed topic a dotted key, or a dotted key a slashed topic, in place.
pub fn swap_separators(key: &mut [u8]) {
    for byte in key {
        *byte = match *byte {
            b'/' => b'.',
            b'.' => b'/',
            other => other,
        };
    }
}

/// The words of a routing key.
pub(crate) fn words(key: &[u8]) -> Result<impl Iterator<Item = &[u8]>, KeyError> {
    check_bytes(key)?;
    let dots = key.iter().filter(|byte| **byte == b'.').count();
    if dots >= MAX_WORDS {
        return Err(KeyError::TooManyWords);
    }
    let count = if key.is_empty() { 0 } else { dots + 1 };
    Ok(key.split(|byte| *byte == b'.').take(count))
}

fn check_bytes(key: &[u8]) -> Result<(), KeyError> {
    if key.len() > MAX_KEY_BYTES { Err(KeyError::TooLong(key.len())) } else { Ok(()) }
}

/// The words of a pattern. What `#.#` matches `#` does, so only one of them is kept.
pub(crate) fn pattern(key: &[u8], syntax: KeySyntax) -> Result<Vec<PatternWord<'_>>, KeyError> {
    let mut words = match syntax {
        KeySyntax::Dotted => words(key)?.map(dotted).collect(),
        KeySyntax::Slashed => levels(key)?,
    };
    words.dedup_by(|next, before| *next == PatternWord::Any && *before == PatternWord::Any);
    Ok(words)
}

/// A word of a dotted pattern.
pub(crate) fn dotted(word: &[u8]) -> PatternWord<'_> {
    match word {
        b"*" => PatternWord::One,
        b"#" => PatternWord::Any,
        literal => PatternWord::Literal(Cow::Borrowed(literal)),
    }
}

fn levels(filter: &[u8]) -> Result<Vec<PatternWord<'_>>, KeyError> {
    check_bytes(filter)?;
    if filter.is_empty() {
        return Err(KeyError::Empty);
    }
    let count = 1 + filter.iter().filter(|byte| **byte == b'/').count();
    if count > MAX_WORDS {
        return Err(KeyError::TooManyWords);
    }
    let levels = filter.split(|byte| *byte == b'/').enumerate();
    levels.map(|(at, level)| slashed(level, at + 1 == count)).collect()
}

fn slashed(level: &[u8], last: bool) -> Result<PatternWord<'_>, KeyError> {
    match level {
        b"+" => Ok(PatternWord::One),
        b"#" if last => Ok(PatternWord::Any),
        wild if wild.iter().any(|byte| matches!(byte, b'+' | b'#')) => Err(KeyError::MisplacedWildcard),
        plain if plain.contains(&b'.') => {
            let mut word = plain.to_vec();
            swap_separators(&mut word);
            Ok(PatternWord::Literal(Cow::Owned(word)))
        }
        plain => Ok(PatternWord::Literal(Cow::Borrowed(plain))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn literal(word: &'static str) -> PatternWord<'static> {
        PatternWord::Literal(Cow::Borrowed(word.as_bytes()))
    }

    #[test]
    fn the_empty_key_has_no_words_and_a_dot_two_empty_ones() {
        assert_eq!(words(b"").expect("short").count(), 0);
        assert_eq!(words(b".").expect("short").collect::<Vec<_>>(), [b"", b""]);
        assert_eq!(words(b"a..b").expect("short").count(), 3);
    }

    #[test]
    fn wildcards_are_whole_words() {
        let dotted = pattern(b"*.a*.#.#", KeySyntax::Dotted).expect("valid");
        assert_eq!(dotted, [PatternWord::One, literal("a*"), PatternWord::Any]);
        let slashed = pattern(b"/+/*/a.b/#", KeySyntax::Slashed).expect("valid");
        let want = [literal(""), PatternWord::One, literal("*"), literal("a/b"), PatternWord::Any];
        assert_eq!(slashed, want);
    }

    #[test]
    fn misplaced_wildcards_and_what_is_too_long_are_refused() {
        for filter in ["a#", "#/a", "a+/b", "+#"] {
            assert_eq!(pattern(filter.as_bytes(), KeySyntax::Slashed), Err(KeyError::MisplacedWildcard));
        }
        assert_eq!(pattern(b"", KeySyntax::Slashed), Err(KeyError::Empty));
        let dots = [b'.'; MAX_WORDS];
        assert!(words(&dots[1..]).is_ok());
        assert_eq!(words(&dots).err(), Some(KeyError::TooManyWords));
        assert_eq!(pattern(&[b'/'; MAX_WORDS], KeySyntax::Slashed), Err(KeyError::TooManyWords));
        assert_eq!(words(&[b'a'; MAX_KEY_BYTES + 1]).err(), Some(KeyError::TooLong(MAX_KEY_BYTES + 1)));
    }

    #[test]
    fn separators_swap_both_ways() {
        let mut key = *b"a/b.c";
        swap_separators(&mut key);
        assert_eq!(&key, b"a.b/c");
        swap_separators(&mut key);
        assert_eq!(&key, b"a/b.c");
    }
}

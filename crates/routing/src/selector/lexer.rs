//! A selector's text as tokens.

use super::SelectorError;

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Token<'a> {
    /// A name or a reserved word.
    Word(&'a str),
    /// A name between double quotes.
    Quoted(&'a str),
    /// A text between single quotes, two of which in it are one.
    Text(Box<str>),
    /// A number, as it is written.
    Number(&'a str),
    Symbol(Symbol),
    End,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Symbol {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    Open,
    Close,
    Comma,
    Plus,
    Minus,
    Times,
    Over,
}

/// Longer ones first.
const SYMBOLS: &[(&str, Symbol)] = &[
    ("<>", Symbol::NotEqual),
    ("<=", Symbol::LessOrEqual),
    (">=", Symbol::GreaterOrEqual),
    ("=", Symbol::Equal),
    ("<", Symbol::Less),
    (">", Symbol::Greater),
    ("(", Symbol::Open),
    (")", Symbol::Close),
    (",", Symbol::Comma),
    ("+", Symbol::Plus),
    ("-", Symbol::Minus),
    ("*", Symbol::Times),
    ("/", Symbol::Over),
];

pub(crate) struct Lexer<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Lexer<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    /// The next token, and where it begins.
    pub(crate) fn next(&mut self) -> Result<(Token<'a>, usize), SelectorError> {
        self.skip_blanks()?;
        let at = self.at;
        let rest = self.rest();
        let digit_at = |place: usize| rest.as_bytes().get(place).is_some_and(u8::is_ascii_digit);
        let token = match rest.chars().next() {
            None => Token::End,
            Some('\'') => Token::Text(self.quoted('\'')?.replace("''", "'").into()),
            Some('"') => Token::Quoted(self.quoted('"')?),
            Some('.') if digit_at(1) => Token::Number(self.take(number(rest))),
            Some('0'..='9') => Token::Number(self.take(number(rest))),
            Some(c) if begins_name(c) => Token::Word(self.take(run(rest, is_of_name))),
            Some(_) => Token::Symbol(self.symbol()?),
        };
        Ok((token, at))
    }

    fn take(&mut self, length: usize) -> &'a str {
        let token = &self.rest()[..length];
        self.at += length;
        token
    }

    /// Skips white space and comments, which are `--` to the line's end and `/*` to `*/`.
    fn skip_blanks(&mut self) -> Result<(), SelectorError> {
        loop {
            let rest = self.rest();
            self.at += match rest {
                _ if rest.starts_with("--") => run(rest, |c| !matches!(c, '\n' | '\r')),
                _ if rest.starts_with("/*") => self.comment()?,
                _ => run(rest, char::is_whitespace),
            };
            if self.at == self.text.len() || self.rest().len() == rest.len() {
                return Ok(());
            }
        }
    }

    fn comment(&self) -> Result<usize, SelectorError> {
        let end = self.rest()[2..].find("*/").map(|end| end + 4);
        end.ok_or(SelectorError::Expected { at: self.text.len(), expected: "*/" })
    }

    /// What stands between two quotes, where a doubled quote is none.
    fn quoted(&mut self, quote: char) -> Result<&'a str, SelectorError> {
        let rest = &self.rest()[1..];
        let (mut end, mut quotes) = (None, 0);
        for (at, c) in rest.char_indices() {
            if c == quote {
                (end, quotes) = (Some(at), quotes + 1);
            } else if quotes % 2 == 1 {
                break;
            }
        }
        let end = end.filter(|_| quotes % 2 == 1);
        let end = end.ok_or(SelectorError::Expected { at: self.text.len(), expected: "a closing quote" })?;
        self.at += end + 2;
        Ok(&rest[..end])
    }

    fn symbol(&mut self) -> Result<Symbol, SelectorError> {
        let found = SYMBOLS.iter().find(|(text, _)| self.rest().starts_with(text));
        let unknown = SelectorError::Invalid { at: self.at, what: "this character means nothing here" };
        let (text, symbol) = found.ok_or(unknown)?;
        self.at += text.len();
        Ok(*symbol)
    }
}

/// Bytes until the first character that is not wanted.
fn run(text: &str, wanted: impl Fn(char) -> bool) -> usize {
    text.find(|c| !wanted(c)).unwrap_or(text.len())
}

fn begins_name(c: char) -> bool {
    c.is_alphabetic() || matches!(c, '_' | '$')
}

fn is_of_name(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '_' | '$')
}

/// Bytes of a number, whose exponent may have a sign.
fn number(text: &str) -> usize {
    let hexadecimal = text.starts_with("0x") || text.starts_with("0X");
    let mut before = ' ';
    let end = text.find(|c: char| {
        let sign = matches!(c, '+' | '-') && matches!(before, 'e' | 'E') && !hexadecimal;
        before = c;
        !(c.is_ascii_alphanumeric() || c == '.' || sign)
    });
    end.unwrap_or(text.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(text: &str) -> Result<Vec<Token<'_>>, SelectorError> {
        let mut lexer = Lexer::new(text);
        let mut tokens = Vec::new();
        loop {
            match lexer.next()?.0 {
                Token::End => return Ok(tokens),
                token => tokens.push(token),
            }
        }
    }

    #[test]
    fn texts_names_numbers_and_symbols_are_told_apart() {
        let got = tokens("a$1>=-.5E-3+0xE-1 'it''s' \"x-y\"<>''").expect("valid");
        let want = [
            Token::Word("a$1"),
            Token::Symbol(Symbol::GreaterOrEqual),
            Token::Symbol(Symbol::Minus),
            Token::Number(".5E-3"),
            Token::Symbol(Symbol::Plus),
            Token::Number("0xE"),
            Token::Symbol(Symbol::Minus),
            Token::Number("1"),
            Token::Text("it's".into()),
            Token::Quoted("x-y"),
            Token::Symbol(Symbol::NotEqual),
            Token::Text("".into()),
        ];
        assert_eq!(got, want);
    }

    #[test]
    fn comments_are_blanks() {
        assert_eq!(
            tokens(" a -- b\n/* c * */ d /**/ -- e").expect("valid"),
            [Token::Word("a"), Token::Word("d")]
        );
    }

    #[test]
    fn what_is_not_closed_or_not_known_is_refused() {
        for wrong in ["'a", "'a''", "\"a", "/* a", "a ; b", "#", "\u{0}", "a.b"] {
            assert!(tokens(wrong).is_err(), "{wrong}");
        }
    }
}

//! Short strings: at most 255 bytes.

use std::fmt;
use std::ops::Deref;

/// Text of at most 255 bytes: a short string among a method's arguments. As RabbitMQ does, those that are not UTF-8 are refused.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct ShortStr<'a>(&'a str);

impl<'a> ShortStr<'a> {
    /// The empty one.
    pub const EMPTY: Self = Self("");

    /// `text`, if it is short enough.
    pub fn new(text: &'a str) -> Option<Self> {
        (text.len() <= 255).then_some(Self(text))
    }

    /// `text` or as much of its beginning as is short enough.
    pub fn cut(text: &'a str) -> Self {
        Self(&text[..text.floor_char_boundary(255)])
    }

    /// The text, for as long as what it was read from.
    pub fn as_str(self) -> &'a str {
        self.0
    }
}

impl Deref for ShortStr<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        self.0
    }
}

impl fmt::Debug for ShortStr<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.0, f)
    }
}

/// At most 255 bytes: an exchange or routing key of a message, a short string among its properties, a name in a field table. As in
/// RabbitMQ, it is not looked at whether they are UTF-8.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct ShortBytes<'a>(&'a [u8]);

impl<'a> ShortBytes<'a> {
    /// `bytes`, if they are few enough.
    pub fn new(bytes: &'a [u8]) -> Option<Self> {
        (bytes.len() <= 255).then_some(Self(bytes))
    }

    /// `text` or as much of its beginning as is short enough.
    pub fn cut(text: &'a str) -> Self {
        ShortStr::cut(text).into()
    }

    /// The bytes, for as long as what they were read from.
    pub fn as_bytes(self) -> &'a [u8] {
        self.0
    }
}

impl<'a> From<ShortStr<'a>> for ShortBytes<'a> {
    fn from(text: ShortStr<'a>) -> Self {
        Self(text.as_str().as_bytes())
    }
}

impl Deref for ShortBytes<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.0
    }
}

impl fmt::Debug for ShortBytes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0.escape_ascii())
    }
}

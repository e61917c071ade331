//! What the protocol says when something is wrong: reply codes, and whether they close a channel or the connection.

use std::borrow::Cow;
use std::fmt;
use std::ops::Deref;

use super::text::ShortStr;

macro_rules! reply_codes {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $text:literal, $scope:ident;)*) => {
        /// A reply code of the specification.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u16)]
        pub enum ReplyCode {
            $($(#[$doc])* $name = $code,)*
        }

        impl ReplyCode {
            /// Every code.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// The code's name, as it stands before reply texts.
            pub fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// Whether it ends the connection, or only the channel on which it arose.
            pub fn closes_connection(self) -> bool {
                match self { $(Self::$name => reply_codes!(@ $scope),)* }
            }
        }
    };
    (@ connection) => { true };
    (@ channel) => { false };
}

reply_codes! {
    /// A message is larger than the server takes. Not used: RabbitMQ says [`PreconditionFailed`](Self::PreconditionFailed).
    ContentTooLarge = 311, "CONTENT_TOO_LARGE", channel;
    /// A mandatory message was routed to no queue: the code of a return.
    NoRoute = 312, "NO_ROUTE", channel;
    /// An immediate message found no consumer.
    NoConsumers = 313, "NO_CONSUMERS", channel;
    /// An operator closed the connection.
    ConnectionForced = 320, "CONNECTION_FORCED", connection;
    /// A virtual host that does not exist.
    InvalidPath = 402, "INVALID_PATH", connection;
    /// The user may not do this.
    AccessRefused = 403, "ACCESS_REFUSED", channel;
    /// There is no such exchange or queue.
    NotFound = 404, "NOT_FOUND", channel;
    /// Another connection has the queue for itself.
    ResourceLocked = 405, "RESOURCE_LOCKED", channel;
    /// A precondition does not hold: an unequal declaration, an unknown delivery tag, a queue in use.
    PreconditionFailed = 406, "PRECONDITION_FAILED", channel;
    /// A frame that cannot be decoded.
    FrameError = 501, "FRAME_ERROR", connection;
    /// A frame with an illegal value in a field.
    SyntaxError = 502, "SYNTAX_ERROR", connection;
    /// A method that makes no sense from a client, or not now.
    CommandInvalid = 503, "COMMAND_INVALID", connection;
    /// A channel that is not open, or is open already.
    ChannelError = 504, "CHANNEL_ERROR", connection;
    /// A frame that was not expected, usually in the middle of a content.
    UnexpectedFrame = 505, "UNEXPECTED_FRAME", connection;
    /// The server has not enough of something.
    ResourceError = 506, "RESOURCE_ERROR", connection;
    /// The server does not allow this at all.
    NotAllowed = 530, "NOT_ALLOWED", connection;
    /// The server does not have this.
    NotImplemented = 540, "NOT_IMPLEMENTED", connection;
    /// The server failed.
    InternalError = 541, "INTERNAL_ERROR", connection;
}

/// Why the arguments of a method or the properties of a message cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Malformed {
    /// They end before their last field, or a length in them points beyond their end.
    Truncated,
    /// Bytes follow their last field.
    Trailing,
    /// A name is not UTF-8.
    NotUtf8,
    /// A field table has a value of a type that there is not.
    UnknownFieldType(u8),
    /// Field tables and arrays are nested deeper than [`MAX_DEPTH`](super::MAX_DEPTH).
    TooDeep,
    /// A property flag that there is not.
    UnknownProperty,
}

impl Malformed {
    /// The code for it: RabbitMQ's where it has one. An unknown type ends RabbitMQ's connection without one, and it has no limit of depth:
    /// illegal values, in the specification's words.
    pub fn code(self) -> ReplyCode {
        match self {
            Self::Truncated | Self::Trailing | Self::NotUtf8 => ReplyCode::FrameError,
            Self::UnknownFieldType(_) | Self::TooDeep | Self::UnknownProperty => ReplyCode::SyntaxError,
        }
    }
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated => f.write_str("it ends within a field"),
            Self::Trailing => f.write_str("bytes follow its last field"),
            Self::NotUtf8 => f.write_str("a short string in it is not UTF-8"),
            Self::UnknownFieldType(tag) => {
                write!(f, "a field table has a value of the unknown type {tag:#04x}")
            }
            Self::TooDeep => f.write_str("field tables are nested too deep"),
            Self::UnknownProperty => f.write_str("it has a property that there is not"),
        }
    }
}

/// What an exception says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExceptionParts {
    /// What kind of error.
    pub code: ReplyCode,
    /// What was wrong, without the code's name.
    pub text: Cow<'static, str>,
    /// Class and method that caused it; zeros where none did.
    pub cause: (u16, u16),
}

impl ExceptionParts {
    fn new(code: ReplyCode, text: impl Into<Cow<'static, str>>) -> Box<Self> {
        Box::new(Self { code, text: text.into(), cause: (0, 0) })
    }

    /// The text with the code's name before it, as clients of RabbitMQ know it.
    pub fn reply_text(&self) -> String {
        format!("{} - {}", self.code.name(), self.text)
    }

    /// Hands the reply text on, cut to what a short string holds.
    pub fn with_reply_text<T>(&self, then: impl FnOnce(ShortStr<'_>) -> T) -> T {
        then(ShortStr::cut(&self.reply_text()))
    }
}

/// An error that ends the channel on which it arose, and nothing else. As small as a pointer, so that what does not fail is not the slower
/// for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChannelException(Box<ExceptionParts>);

/// An error that ends the connection. As small as a pointer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectionException(Box<ExceptionParts>);

/// An error as the protocol tells it, which ends the channel on which it arose, or the connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Exception {
    /// The channel.
    Channel(ChannelException),
    /// The connection.
    Connection(ConnectionException),
}

impl ChannelException {
    /// The user may not do this.
    pub fn access_refused(text: impl Into<Cow<'static, str>>) -> Self {
        Self(ExceptionParts::new(ReplyCode::AccessRefused, text))
    }

    /// There is no such exchange or queue.
    pub fn not_found(text: impl Into<Cow<'static, str>>) -> Self {
        Self(ExceptionParts::new(ReplyCode::NotFound, text))
    }

    /// Another connection has the queue for itself.
    pub fn resource_locked(text: impl Into<Cow<'static, str>>) -> Self {
        Self(ExceptionParts::new(ReplyCode::ResourceLocked, text))
    }

    /// A precondition does not hold.
    pub fn precondition_failed(text: impl Into<Cow<'static, str>>) -> Self {
        Self(ExceptionParts::new(ReplyCode::PreconditionFailed, text))
    }

    /// The same, caused by a method.
    pub fn caused_by(mut self, cause: (u16, u16)) -> Self {
        self.0.cause = cause;
        self
    }
}

impl ConnectionException {
    /// An error that no method caused. Any code may end a connection: those of channels do so where there is none.
    pub fn new(code: ReplyCode, text: impl Into<Cow<'static, str>>) -> Self {
        Self(ExceptionParts::new(code, text))
    }

    /// Arguments or properties that cannot be read.
    #[cold]
    pub fn malformed(what: &str, malformed: Malformed) -> Self {
        Self::new(malformed.code(), format!("{what} cannot be read: {malformed}"))
    }

    /// The same, caused by a method.
    pub fn caused_by(mut self, cause: (u16, u16)) -> Self {
        self.0.cause = cause;
        self
    }
}

impl Exception {
    /// The same, caused by a method.
    pub fn caused_by(self, cause: (u16, u16)) -> Self {
        match self {
            Self::Channel(exception) => Self::Channel(exception.caused_by(cause)),
            Self::Connection(exception) => Self::Connection(exception.caused_by(cause)),
        }
    }
}

impl Deref for ChannelException {
    type Target = ExceptionParts;

    fn deref(&self) -> &ExceptionParts {
        &self.0
    }
}

impl Deref for ConnectionException {
    type Target = ExceptionParts;

    fn deref(&self) -> &ExceptionParts {
        &self.0
    }
}

impl From<ChannelException> for Exception {
    fn from(exception: ChannelException) -> Self {
        Self::Channel(exception)
    }
}

impl From<ConnectionException> for Exception {
    fn from(exception: ConnectionException) -> Self {
        Self::Connection(exception)
    }
}

/// Where there is no channel, the connection ends.
impl From<ChannelException> for ConnectionException {
    fn from(ChannelException(parts): ChannelException) -> Self {
        Self(parts)
    }
}

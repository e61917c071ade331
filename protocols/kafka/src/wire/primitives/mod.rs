//! What messages are made of: integers, strings, bytes, arrays, and the reader and writer over them.

mod encoded;
mod field;
mod reader;
mod str;
mod writer;

pub use encoded::{Encoded, RecordData};
pub(crate) use field::differs;
pub use field::{Cx, Nullable, Wire};
pub use reader::Reader;
pub use str::Str;
pub use writer::Writer;

/// A topic's or directory's id, in network byte order.
pub type Uuid = [u8; 16];

/// Why bytes are not the message they should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// The frame ended inside a field.
    #[error("the frame ends inside a field")]
    Truncated,
    /// An array's count is negative, or more elements than the bytes left could hold.
    #[error("an array of {0} elements does not fit the frame")]
    BadCount(i64),
    /// A negative length, or one beyond the frame.
    #[error("a length of {0} bytes does not fit the frame")]
    BadLength(i64),
    /// A string that is not UTF-8.
    #[error("a string is not UTF-8")]
    BadString,
    /// A varint of more bits than its type.
    #[error("a varint has more bits than its type")]
    BadVarint,
    /// Null where this version of the field has none.
    #[error("null in a field that cannot be null in this version")]
    UnexpectedNull,
    /// A known tagged field whose content is shorter than its announced size.
    #[error("{0} bytes too many in a tagged field")]
    BadTaggedField(usize),
    /// The decoded message would take more memory than the reader's limit.
    #[error("the decoded message would take more than its memory limit")]
    TooLarge,
    /// A request's key that no API has.
    #[error("no API has key {0}")]
    UnknownApi(i16),
    /// A version outside an API's range.
    #[error("{api} has no version {version}")]
    UnsupportedVersion {
        /// The API.
        api: super::ApiKey,
        /// The version asked for.
        version: i16,
    },
}
